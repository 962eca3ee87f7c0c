"""The search index follows the log, finds what is asked for, and can always be made anew."""

import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overproof.data import Completion, Request, Served, TrafficRecord
from overproof.outputs import Classes
from overproof.store import search
from overproof.store.project_store import open_store
from overproof.store.search import Wanted, asked_words

OUTPUT = Classes(labels=("refund", "delivery", "other"))


def row(at, text="where is my parcel", *, name="", minute=None, route="student", reason="confident", piece="en", sure=0.9, guess="refund", said="refund", served=True):
    """A row as the gateway keeps it."""
    when = None if minute is None else datetime(2026, 3, 1 + minute // 1440, minute // 60 % 24, minute % 60, tzinfo=UTC).isoformat()
    how = Served(
        route=route, reason=reason, stage="full", endpoint="/v1/chat/completions", status=200, latency_s=0.1, overhead_s=0.01, slice=piece, release="r1",
        guess=guess, confidence=sure, weight=1.0,
    )
    return TrafficRecord(
        request=Request(id=name or f"q{at}", fields={"text": text}, at=when), completion=Completion(text=said, value=None, model="m", cost_usd=0.25),
        served=how if served else None,
    )  # fmt: skip


@pytest.fixture
def store(tmp_path):
    """An empty project."""
    with open_store(tmp_path) as opened:
        yield opened


def followed(store, records, *, wrong=()):
    """Rows written and taken in."""
    store.traffic.append(records, "test")
    return store.search.catch_up(OUTPUT, wrong=lambda: list(wrong))


def names(store, **wanted):
    """Ids that are found, in order."""
    return [one.request.id for one in store.traffic.numbered(hit.seq for hit in store.search.find(Wanted(**wanted), rows=1000, budget_s=30).rows)]


def test_words_phrases_and_beginnings_find_what_holds_them_whatever_the_case_or_accent(store):
    """Every word has to be there; quotes keep them together; a star leaves the end open; signs without spaces are words."""
    texts = ["My parcel is LATE", "late for my parcel", "Où est mon colis, s'il vous plaît", "注文はどこですか", "parcels"]
    followed(store, [row(at, text, minute=at) for at, text in enumerate(texts)])
    assert names(store, text="late parcel") == ["q1", "q0"]
    assert names(store, text='"my parcel"') == ["q1", "q0"]
    assert names(store, text='"parcel late"') == []
    assert names(store, text="parc*") == ["q4", "q1", "q0"]
    assert names(store, text="ou plait") == ["q2"]
    assert names(store, text="どこ") == ["q3"]
    assert names(store, text='"; ( *') == []


@given(text=st.text(max_size=60))
@settings(max_examples=150, deadline=None)
def test_whatever_is_typed_is_words_and_never_a_command(text, tmp_path_factory):
    """No text that anybody types breaks the question or reaches its grammar."""
    global _hostile  # noqa: PLW0603 - one store for all examples
    if _hostile is None:
        _hostile = open_store(tmp_path_factory.mktemp("hostile"))
        followed(_hostile, [row(0, "parcel", minute=0)])
    found = _hostile.search.find(Wanted(text=text))
    assert len(found.rows) <= 1
    assert asked_words(text) or not found.rows or not text.strip()


_hostile = None


def test_rows_come_by_time_whatever_order_they_were_imported_in_and_pages_meet_without_gap_or_overlap(store):
    """An older file that is imported later stands behind; rows of one moment all have a place; rows without a time come last."""
    minutes = [*range(300, 400), *range(200), *([50] * 130), None, None]
    followed(store, [row(at, minute=minute) for at, minute in enumerate(minutes)])
    by_time = sorted(range(len(minutes)), key=lambda at: (minutes[at] is not None, minutes[at] or 0), reverse=True)
    seen, before = [], None
    while True:
        page = store.search.find(Wanted(), before=before, rows=37, budget_s=30)
        seen += [one.request.id for one in store.traffic.numbered(hit.seq for hit in page.rows)]
        if page.older is None:
            break
        before = page.older
    assert sorted(seen) == sorted(f"q{at}" for at in range(len(minutes)))
    assert [minutes[int(name[1:])] for name in seen] == [minutes[at] for at in by_time]


def test_filters_hold_alone_and_together(store):
    """Way, slice, confidence, day, and where student and teacher differ."""
    followed(store, [
        row(0, minute=10), row(1, minute=20, route="teacher", reason="below_threshold", sure=0.4, said="Delivery"),
        row(2, minute=30, route="teacher", reason="stage", sure=0.5, said=" Refund. "), row(3, minute=1500, piece="es", sure=0.7), row(4, minute=40, served=False),
        row(5, minute=50, route="teacher", reason="stage", said="no label at all"),
    ])  # fmt: skip
    assert names(store, route="teacher") == ["q5", "q2", "q1"]
    assert names(store, route="imported") == ["q4"]
    assert names(store, reason="stage", low=0.45, high=0.6) == ["q2"]
    assert names(store, slice="es") == ["q3"]
    assert names(store, differs=True) == ["q1"]
    assert names(store, until=datetime(2026, 3, 2, tzinfo=UTC), low=0.0) == ["q5", "q2", "q1", "q0"]
    assert names(store, since=datetime(2026, 3, 2, tzinfo=UTC)) == ["q3"]
    assert names(store, text="parcel", route="student", low=0.8) == ["q0"]


def test_an_audit_that_comes_later_marks_its_row(store):
    """The student answered, so nobody compared at the time; the audit says that it was wrong."""
    followed(store, [row(0, minute=1), row(1, minute=2)])
    assert names(store, differs=True) == []
    store.search.catch_up(OUTPUT, wrong=lambda: ["q1", "not in the log"])
    assert names(store, differs=True) == ["q1"]


def test_days_add_up_with_weights_and_costs(store):
    """What the monitoring page counts escalations and money from."""
    followed(store, [row(at, minute=at, route="teacher" if at % 2 else "student", reason="stage" if at % 2 else "confident") for at in range(10)])
    counted = {one.route: (one.requests, one.usd) for one in store.search.daily()}
    assert counted == {"teacher": (5.0, 1.25), "student": (5.0, 1.25)}
    assert store.search.last_day() == "2026-03-01"


def test_a_page_that_takes_long_says_how_far_it_got_and_goes_on_from_there(store, monkeypatch):
    """Nothing is lost between two tired pages, and none of them is endless."""
    monkeypatch.setattr(search, "WINDOW", 50)
    followed(store, [row(at, "parcel", minute=at, sure=0.1 if at % 7 in (3, 4, 5) else 0.9) for at in range(500)])
    for wanted in (Wanted(high=0.2), Wanted(text="parcel", high=0.2)):
        before, found, tired = None, [], 0
        while True:
            page = store.search.find(wanted, before=before, rows=1_000, budget_s=0.0)
            found += page.rows
            if page.older is None:
                break
            assert page.tired == (page.reached is not None)
            before, tired = page.older, tired + page.tired
        assert [hit.seq for hit in found] == [at + 1 for at in range(499, -1, -1) if at % 7 in (3, 4, 5)]
        assert tired >= 2


def test_replaced_rows_another_log_and_a_damaged_file_make_it_anew(store, tmp_path):
    """What it says is always what the log says."""
    followed(store, [row(at, f"word{at}", minute=at) for at in range(20)])
    store.traffic.append([row(3, "another text", minute=3)], "test", replace=True)
    store.search.catch_up(OUTPUT, wrong=list)
    assert names(store, text="word3") == []
    assert names(store, text="another") == ["q3"]
    store.close()
    (tmp_path / ".overproof" / "search.db").write_bytes(b"not a database" * 500)
    with open_store(tmp_path) as again:
        assert again.search.caught().done == 0
        assert again.search.catch_up(OUTPUT, wrong=list) == 20
        assert names(again, text="word7") == ["q7"]
    home = tmp_path / "another" / ".overproof"
    home.mkdir(parents=True)
    shutil.copy(tmp_path / ".overproof" / "search.db", home)
    with open_store(home.parent) as other:
        followed(other, [row(at, f"else{at}", minute=at) for at in range(30)])
        assert names(other, text="word7") == []
        assert len(names(other)) == 30


def test_half_a_surrogate_pair_that_a_stranger_sent_stops_nobody_from_being_found(store):
    """No index holds such a text; the rows before and after it are found, and so are its other words."""
    assert followed(store, [row(1, "a\ud800 parcel"), row(2, r"\\ud800 b\0c parcel"), row(3, "parcel 😀", piece="x\udfff")]) == 3
    assert names(store, text="parcel") == ["q3", "q2", "q1"]


CHILD = """
import sys
from pathlib import Path
from overproof.outputs import Classes
from overproof.store import search
from overproof.store.project_store import open_store
search.BATCH = 20
with open_store(Path(sys.argv[1])) as store:
    print("at it", flush=True)
    store.search.catch_up(Classes(labels=("refund", "delivery", "other")), wrong=list)
"""


def test_one_that_is_killed_is_gone_on_with_and_nobody_does_it_twice(store, tmp_path):
    """Killed at any moment it holds whole batches, each row once."""
    store.traffic.append([row(at, minute=at) for at in range(2_000)], "test")
    for wait in (0.0, 0.05, 0.15):
        with subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, env=dict(os.environ)) as child:
            child.stdout.readline()
            time.sleep(wait)
            child.send_signal(signal.SIGKILL)
    caught = store.search.caught()
    assert store.search.catch_up(OUTPUT, wrong=list) == 2_000 - caught.done
    assert len(names(store, text="parcel")) == 1000
    assert len({hit.seq for hit in store.search.find(Wanted(), rows=5000, budget_s=30).rows}) == 2_000
    assert sum(one.requests for one in store.search.daily()) == 2_000


def test_two_at_a_time_is_one_at_a_time(store, tmp_path):
    """The second one leaves it to the first."""
    store.traffic.append([row(0, minute=0)], "test")
    with store.search._turn() as mine, open_store(tmp_path) as other:
        assert mine
        assert other.search.catch_up(OUTPUT, wrong=list) == 0
    assert store.search.catch_up(OUTPUT, wrong=list) == 1
