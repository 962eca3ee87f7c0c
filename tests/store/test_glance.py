"""Short looks at the traffic log: counts and pages of rows, by index."""

from datetime import UTC, datetime, timedelta

import pytest

from overproof.data import Request, Skipped, TrafficRecord
from overproof.store.project_store import open_store

LAST = datetime(2026, 3, 31, 12, tzinfo=UTC)


@pytest.fixture
def store(tmp_path):
    with open_store(tmp_path) as opened:
        yield opened


def record(days_ago):
    at = None if days_ago is None else (LAST - timedelta(days=days_ago)).isoformat()
    return TrafficRecord(request=Request(id=f"r{days_ago}", fields={"text": "words"}, at=at))


def test_the_last_days_end_with_the_newest_row(store):
    """Rows of thirty days before it, the thirtieth included; rows without a time are of no day."""
    store.traffic.append([record(n) for n in (0, 1, 29.5, 30, 30.5, 90, None)], "test")
    found = store.glance.last_days(30)
    assert (found.rows, found.days, found.until) == (4, 30.0, LAST)


def test_a_young_log_says_how_young_it_is(store):
    """Its days are fewer than asked for."""
    store.traffic.append([record(n) for n in (0, 3)], "test")
    found = store.glance.last_days(30)
    assert (found.rows, found.days) == (2, 3.0)


def test_a_log_without_times_has_no_last_days(store):
    """Nor has an empty one."""
    assert store.glance.last_days(30) is None
    store.traffic.append([record(None)], "test")
    assert store.glance.last_days(30) is None


def test_skipped_rows_come_by_reason_and_in_pages(store):
    """Counted by reason, the most frequent first; each page goes on where the one before ended."""
    rows = [Skipped(where=f"a.jsonl:{i}", reason="no JSON" if i % 3 else "no text", raw=f"row {i}") for i in range(9)]
    store.traffic.append(rows, "a.jsonl")
    assert list(store.glance.skipped_reasons().items()) == [("no JSON", 6), ("no text", 3)]
    pages = [store.glance.skipped_for("no JSON", first=at, most=4) for at in (0, 4, 8)]
    assert [one.raw for page in pages for one in page] == [one.raw for one in rows if one.reason == "no JSON"]


@pytest.mark.parametrize("query", ["SELECT min(at_us) FROM record WHERE (at_us IS NULL) = 0", "SELECT count(*) FROM record WHERE (at_us IS NULL) = 0 AND at_us >= 1"])
def test_time_is_read_from_the_index(store, query):
    """No page may read a long log's rows."""
    plan = " ".join(str(row) for row in store._traffic_db.rows(f"EXPLAIN QUERY PLAN {query}"))
    assert "SEARCH record USING COVERING INDEX record_in_time" in plan


def test_a_busy_log_is_told_by_its_newest_rows(store, monkeypatch):
    """Not more than a bound is counted, and the days are those of the rows that were."""
    monkeypatch.setattr("overproof.store.glance.MOST_COUNTED", 10)
    store.traffic.append([record(n / 10) for n in range(40)], "test")
    found = store.glance.last_days(30)
    assert found.rows == 10
    assert found.rows / found.days == pytest.approx(10, rel=0.02)
