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


def unseal(store, plan, *, sealed="s", kind="gold", delta=0.1):
    return store.releases.unseal(sealed, label_kind=kind, plan_hash=plan, delta=delta, by="test")


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
