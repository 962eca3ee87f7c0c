"""The ledger of looks: planned ones go on under the same plan, and nothing makes one free."""

import pytest

from overproof.errors import StoreError
from overproof.evidence import Certificate, SliceCertificate
from overproof.measure.intervals import figure
from overproof.store.local import Db
from overproof.store.project_store import open_store
from overproof.store.schema import PROJECT_SCHEMA

ROWS = [f"row{i}" for i in range(10)]


@pytest.fixture
def store(tmp_path):
    with open_store(tmp_path) as opened:
        yield opened


def take(store, labels, *, plan="p", anchor="a", looks=3):
    return store.looks.take(plan, labels, anchor=anchor, sealed_digest="s", looks=looks, facts={"n_sealed": 10}, by="Dana")


def certificate(counts, n):
    part = SliceCertificate(
        slice="other", alpha=0.05, delta=0.05, threshold=None, n=n, kept=0, wrong=0, upper=1.0,
        keep_share=figure(0, n, metric="kept"), verdict="undecided", counts=counts, grid=(0.5, -1.0),
    )  # fmt: skip
    return Certificate(plan_hash="p", sealed_digest="s", label_kind="gold", use_k=1, delta_spent=0.05, slices=(part,),
                       assumptions=(), window=(None, None), expires="2030-01-01")  # fmt: skip


def test_the_same_labels_are_the_same_look_and_more_are_the_next(store):
    """A repeated run takes nothing; labels that hold all earlier ones take the next look, in whatever order."""
    assert take(store, ROWS[:5]).look == 1
    assert take(store, ROWS[4::-1]).look == 1
    assert store.looks.admits("a", ROWS[:7]).look == 2
    assert take(store, ROWS[:7]).look == 2
    again = store.looks.admits("a", ROWS[:5])
    assert (again.look, again.taken, again.facts) == (1, True, {"n_sealed": 10})


def test_a_missing_or_changed_label_and_a_look_too_many_are_no_planned_look(store):
    """Neither is admitted, and neither can be taken by asking for it."""
    take(store, ROWS[:5], looks=2)
    assert store.looks.admits("a", ROWS[1:8]) is None
    with pytest.raises(StoreError, match="a label is gone"):
        take(store, ROWS[1:8])
    take(store, ROWS[:6])
    assert store.looks.admits("a", ROWS) is None
    with pytest.raises(StoreError, match="not one of the 2 planned"):
        take(store, ROWS, looks=9)  # what was planned first holds
    assert store.looks.admits("another anchor", ROWS[:6]) is None


def test_counts_of_earlier_looks_come_back_and_are_kept_once(store):
    """The second look is handed what the first counted; rewriting it later has no effect."""
    take(store, ROWS[:5])
    store.looks.keep("p", 1, [certificate(((0, 3), (1, 5)), 5)])
    store.looks.keep("p", 1, [certificate(((0, 5), (0, 5)), 5)])
    seen = take(store, ROWS[:7]).earlier["gold"]["other"]
    assert [(one.n, one.counts) for one in seen] == [(5, ((0, 3), (1, 5)))]


def test_a_look_that_was_never_counted_costs_its_share_and_passes_nothing(store):
    """A crash before the counts were stored leaves no rows for that look; the next look is still the third."""
    take(store, ROWS[:5])
    take(store, ROWS[:6])
    store.looks.keep("p", 2, [certificate(((0, 3), (1, 6)), 6)])
    look = take(store, ROWS[:7])
    assert look.look == 3
    assert [one.counts for one in look.earlier["gold"]["other"]] == [((0, 0), (0, 0)), ((0, 3), (1, 6))]


def test_a_failed_write_takes_no_look(store, monkeypatch):
    """All of a look is on record or nothing: an error in the middle leaves the ledger as it was."""
    import overproof.store.looks as module

    take(store, ROWS[:5])
    monkeypatch.setattr(module, "set", lambda _: ["x", object()], raising=False)  # the second row can't be stored
    with pytest.raises(Exception):  # noqa: B017 - whatever the database says
        take(store, ROWS[:7])
    monkeypatch.undo()
    assert store.looks.admits("a", ROWS[:7]).look == 2
    assert not store.looks.admits("a", ROWS[:7]).taken


def test_rows_of_a_later_look_are_known_to_the_ledger_of_uses(store):
    """A fresh plan on rows that only a later look opened goes on from the count of that use."""
    old, new = [f"old{i}" for i in range(10)], [f"new{i}" for i in range(190)]
    ask = {"label_kind": "gold", "delta": 0.05, "by": "Dana"}
    assert store.releases.unseal("s", plan_hash="p", rows=old, **ask).k == 1
    assert store.releases.unseal("s", plan_hash="p", rows=[*old, *new], **ask).replay  # the look under the first digest
    assert store.releases.unseal("grown", plan_hash="q", rows=new, **ask).k == 2
    assert store.releases.known_use("grown", label_kind="gold", plan_hash="q").k == 2
    assert store.releases.known_use("grown", label_kind="gold", plan_hash="p") is None


@pytest.mark.parametrize("version", [1, 2])
def test_a_project_of_an_older_schema_gets_the_tables_of_looks_and_keeps_its_uses(tmp_path, version):
    """Nothing that was counted is lost, and looks can be taken at once."""
    (tmp_path / ".overproof").mkdir()
    old = Db(tmp_path / ".overproof" / "project.db", PROJECT_SCHEMA[:version])
    with old.write() as connection:
        connection.execute("INSERT INTO unsealing VALUES('s', 'gold', 2, 'p', 0.1, 0.01, '2026-01-01', 'Dana')")
    old.close()
    with open_store(tmp_path) as store:
        assert store.looks.admits("a", ROWS) is None
        assert take(store, ROWS).look == 1
        assert store.releases.known_use("s", label_kind="gold", plan_hash="p").k == 2
