"""Releases and their stages; sealed rows are counted before anybody sees them."""

import math

import pytest

from overproof.data import Folder
from overproof.errors import CorruptArtifact, StoreError
from overproof.evidence import Certificate, Release
from overproof.store.project_store import open_store


@pytest.fixture
def store(tmp_path):
    with open_store(tmp_path) as opened:
        yield opened


def release(store, tmp_path, name="r1", headline="ships"):
    folder = tmp_path / name
    folder.mkdir(exist_ok=True)
    (folder / "weights").write_text(name)
    bundle = store.memo().source("bundle", Folder(path=folder)).value
    certificate = Certificate(
        plan_hash="p", sealed_digest="s", label_kind="gold", use_k=1, delta_spent=0.05, slices=(), assumptions=(),
        window=(None, None), expires="2027-01-01",
    )  # fmt: skip
    return Release(
        id=name, task="t", findings=(), headline=headline, candidate="c", bundle=bundle, certificate=certificate,
        owner="Dana", review_due="2027-01-01",
    )  # fmt: skip


def unseal(store, plan, *, sealed="s", kind="gold", delta=0.1, rows=None):
    names = [f"{sealed}-{i}" for i in range(20)] if rows is None else rows
    return store.releases.unseal(sealed, label_kind=kind, plan_hash=plan, delta=delta, by="test", rows=names)


def test_a_release_comes_back_and_serves_only_in_a_serving_stage(store, tmp_path):
    """A candidate is recorded and serves nothing; a shadow or full one is the current one until it is rolled back."""
    first, second = release(store, tmp_path), release(store, tmp_path, "r2")
    store.releases.record(first, stage="candidate", by="gate")
    assert store.releases.current() is None
    assert store.releases.latest() == first
    store.releases.record(first, stage="full", by="Dana")
    store.releases.record(second, stage="candidate", by="gate")
    assert store.releases.current() == first
    store.releases.record(second, stage="shadow", by="Dana")
    assert store.releases.current() == second
    store.releases.record(second, stage="rolled-back", by="guard", why="errors")
    assert store.releases.current() == first
    assert [(e.release_id, e.stage) for e in store.releases.history()] == [
        ("r1", "candidate"), ("r1", "full"), ("r2", "candidate"), ("r2", "shadow"), ("r2", "rolled-back"),
    ]  # fmt: skip
    assert (store.releases.current().bundle.path / "weights").read_text() == "r1"


def test_a_release_id_stands_for_one_release(store, tmp_path):
    """Another release under a known id, and an unknown stage, are refused and recorded nowhere."""
    store.releases.record(release(store, tmp_path), stage="candidate", by="gate")
    with pytest.raises(StoreError, match="other content"):
        store.releases.record(release(store, tmp_path, headline="other"), stage="full", by="gate")
    with pytest.raises(StoreError, match="unknown"):
        store.releases.record(release(store, tmp_path), stage="live", by="gate")
    assert len(store.releases.history()) == 1


def test_a_release_with_a_damaged_bundle_is_refused(tmp_path):
    """The bundle is verified before a release is handed out."""
    with open_store(tmp_path) as store:
        made = release(store, tmp_path)
        store.releases.record(made, stage="full", by="gate")
    path = made.bundle.path / "weights"
    path.chmod(0o644)
    path.write_text("xx")
    with open_store(tmp_path) as store, pytest.raises(CorruptArtifact):
        store.releases.current()


def test_each_new_plan_is_a_use_and_a_known_one_is_free(tmp_path):
    """The k-th plan gets delta * 6 / (pi^2 k^2); the same plan again, also in a later process, gets its first answer."""
    with open_store(tmp_path) as store:
        uses = [unseal(store, plan) for plan in ("a", "b", "a", "c", "b")]
    assert [(u.k, u.replay) for u in uses] == [(1, False), (2, False), (1, True), (3, False), (2, True)]
    assert [u.delta_k for u in uses] == [pytest.approx(0.1 * 6 / (math.pi**2 * k**2)) for k in (1, 2, 1, 3, 2)]
    with open_store(tmp_path) as store:
        assert unseal(store, "c").k == 3
        assert unseal(store, "d").k == 4


def test_label_kinds_and_sets_are_counted_apart(store):
    """Gold and teacher labels, and other sealed rows, each start at the first use."""
    assert unseal(store, "a").k == 1
    assert unseal(store, "a", kind="teacher:m").k == 1
    assert unseal(store, "a", sealed="other").k == 1
    assert unseal(store, "b").k == 2


def test_all_uses_together_stay_within_delta(store):
    """However many plans are tried, the budgets sum to less than delta."""
    spent = sum(unseal(store, f"p{i}").delta_k for i in range(60))
    assert 0.095 < spent < 0.1


def test_a_closed_set_admits_no_new_plan(store):
    """Once sealed rows were shown, a new plan is refused; the replay of an old one is not."""
    unseal(store, "a")
    store.releases.close_sealed("s", why="rows were shown")
    with pytest.raises(StoreError, match="rows were shown"):
        unseal(store, "b")
    assert unseal(store, "a").replay
    assert unseal(store, "b", sealed="fresh").k == 1


@pytest.mark.parametrize("delta", [0.0, 1.0, -0.1, float("nan")])
def test_a_budget_that_is_none_is_refused(store, delta):
    """Delta must lie between 0 and 1, and the same plan can't come back with another one."""
    with pytest.raises(StoreError):
        unseal(store, "a", delta=delta)
    unseal(store, "a", delta=0.05)
    with pytest.raises(StoreError, match="delta"):
        unseal(store, "a", delta=0.2)


def test_a_set_with_one_more_row_goes_on_from_the_old_count(store):
    """Another digest is no fresh draw: what counts is which rows were opened before."""
    rows = [f"row{i}" for i in range(100)]
    assert [unseal(store, f"p{i}", sealed="first", rows=rows).k for i in range(3)] == [1, 2, 3]
    grown = unseal(store, "p9", sealed="second", rows=[*rows, "one more"])
    assert (grown.k, round(grown.shared, 3)) == (4, 0.99)
    assert unseal(store, "p10", sealed="second", rows=[*rows, "one more"]).k == 5
    assert unseal(store, "p11", sealed="first", rows=rows).k == 6  # and the old set wears with the new one


@pytest.mark.parametrize(("common", "k"), [(0, 1), (10, 1), (11, 3)])
def test_up_to_a_tenth_of_known_rows_is_a_fresh_draw(store, common, k):
    """At 10 of 100 shared rows the count starts anew, at 11 it goes on."""
    old = [f"old{i}" for i in range(100)]
    for plan in ("a", "b"):
        unseal(store, plan, sealed="first", rows=old)
    fresh = [*old[:common], *(f"new{i}" for i in range(100 - common))]
    assert unseal(store, "c", sealed="second", rows=fresh).k == k


def test_rows_taken_from_several_old_sets_count_together(store):
    """6 of 100 rows from each of two sets are 12 of 100: the larger count goes on; another label kind has its own."""
    first, second = ([f"{name}{i}" for i in range(100)] for name in "xy")
    unseal(store, "a", sealed="first", rows=first)
    for plan in ("b", "c", "d"):
        unseal(store, plan, sealed="second", rows=second)
    mixed = [*first[:6], *second[:6], *(f"new{i}" for i in range(88))]
    assert unseal(store, "e", sealed="third", rows=mixed, kind="teacher:m").k == 1
    assert unseal(store, "e", sealed="third", rows=mixed).k == 4


def test_a_project_of_the_older_schema_is_migrated_and_its_sets_count_as_known(tmp_path):
    """A set that was opened before rows were kept can't be told from a new one, so the new one goes on from its count."""
    from overproof.store.local import Db
    from overproof.store.schema import PROJECT_SCHEMA

    (tmp_path / ".overproof").mkdir()
    old = Db(tmp_path / ".overproof" / "project.db", PROJECT_SCHEMA[:1])
    with old.write() as connection:
        connection.execute("INSERT INTO unsealing VALUES('s', 'gold', 2, 'p', 0.1, 0.01, '2026-01-01', 'Dana')")
    old.close()
    with open_store(tmp_path) as store:
        assert unseal(store, "q", sealed="new").k == 3
        assert unseal(store, "p", sealed="s").replay  # now its rows are on record
        assert unseal(store, "r", sealed="s").k == 3
        assert unseal(store, "r", sealed="newer").k == 1
