"""Reviews are kept whole or not at all, and nothing that was said can be unsaid unseen."""

import apsw
import pytest

from overproof.errors import StoreError
from overproof.store.local import Db
from overproof.store.project_store import open_store
from overproof.store.reviews import Review
from overproof.store.schema import PROJECT_SCHEMA


def word(digest="d1", label="bug", **changes):
    return Review(**{"digest": digest, "request_id": f"r-{digest}", "label": label, "reviewer": "Ana", "queue": "audit", **changes})


@pytest.fixture
def reviews(tmp_path):
    with open_store(tmp_path) as store:
        yield store.reviews


def test_the_last_word_of_a_person_holds_and_all_words_stay(reviews) -> None:
    """A change of mind and a withdrawal add lines."""
    reviews.append([word(), word(reviewer="Bo", label="other"), word(label="billing")])
    assert [(r.reviewer, r.label) for r in reviews.live().rows] == [("Bo", "other"), ("Ana", "billing")]
    reviews.append([word(label="", kind="withdrawn")])
    assert [r.reviewer for r in reviews.live().rows] == ["Bo"]
    assert len(reviews.history()) == 4


def test_the_same_word_twice_is_one(reviews) -> None:
    """Importing a sheet again adds nothing."""
    assert reviews.append([word(), word("d2")]) == 2
    assert reviews.append([word(), word("d2"), word("d3")]) == 1


def test_one_bad_word_keeps_all_out(reviews) -> None:
    """All or none, whatever stands first."""
    for bad in (word(label=""), word(reviewer=" "), word(queue="x"), word(kind="x"), word(seconds=float("nan")), word(label="a", kind="withdrawn")):
        with pytest.raises(StoreError):
            reviews.append([word("good"), bad])
    assert reviews.history() == []


def test_lines_can_be_neither_changed_nor_removed(tmp_path) -> None:
    """The database itself refuses, whoever asks."""
    with open_store(tmp_path) as store:
        store.reviews.append([word()])
    connection = apsw.Connection(str(tmp_path / ".overproof" / "project.db"))
    for sql in ("UPDATE review SET label='x'", "DELETE FROM review"):
        with pytest.raises(apsw.ConstraintError, match="append-only"):
            connection.execute(sql)
    connection.close()


def test_a_store_of_the_version_before_gets_the_table(tmp_path) -> None:
    """What was in it stays."""
    old = Db(tmp_path / ".overproof" / "project.db", PROJECT_SCHEMA[:2])
    with old.write() as connection:
        connection.execute("INSERT INTO role VALUES('run', 7)")
    old.close()
    with open_store(tmp_path) as store:
        assert store.reviews.append([word()]) == 1
    after = Db(tmp_path / ".overproof" / "project.db", PROJECT_SCHEMA)
    assert after.rows("SELECT token FROM role") == [(7,)]
    after.close()


def test_a_write_that_dies_half_way_leaves_nothing(tmp_path, monkeypatch) -> None:
    """An error at the second of three words undoes the first."""
    from overproof.store import reviews as module

    with open_store(tmp_path) as store:
        store.reviews.append([word("d0")])
        times = iter(["2026-01-01T00:00:00+00:00"])
        monkeypatch.setattr(module, "now", lambda: next(times))
        with pytest.raises((StopIteration, RuntimeError)):
            store.reviews.append([word("d1"), word("d2"), word("d3")])
        assert [r.digest for r in store.reviews.history()] == ["d0"]
