"""The record of the watch: what is written is read, the first word holds, and a write that fails leaves nothing."""

import subprocess
import sys
import tempfile
from dataclasses import replace
from datetime import date
from pathlib import Path

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overproof.data import Alarm, Audit, AuditPlan, ExampleShown, Reading, SliceDraw, Trigger, WatchReport
from overproof.errors import StoreError
from overproof.measure.monitor import AuditDay
from overproof.store.project_store import open_store

TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12)
UNIT = st.floats(0, 1, exclude_min=True)
DAY = st.dates(date(2026, 1, 1), date(2026, 12, 31))


@pytest.fixture
def watching(tmp_path):
    with open_store(tmp_path) as store:
        yield store.watching


def audit(name="a", **changes) -> Audit:
    values = {"release_id": "r1", "request_id": name, "day": "2026-11-03", "slice": "en", "source": "teacher", "pi": 0.1, "said": "bug"}
    return Audit(**{**values, "confidence": 0.9, **changes})


def alarm(name="x", **changes) -> Alarm:
    shown = (ExampleShown(request_id="a", text="hot", said="bug", truth="safety"),)
    values = {
        "id": name, "task": "t", "release_id": "r1", "slice": "en", "signal": "error", "at": "2026-11-03", "since": "2026-11-01",
        "kind": "life", "value": 0.2, "low": 0.1, "high": None, "reference": 0.05, "n": 80, "words": "worse", "examples": shown,
    }  # fmt: skip
    return Alarm(**{**values, **changes})


TRIGGER = Trigger(id="g", task="t", occasion="bar", act="hold", at="2026-11-03T00:00:00Z", why="errors", release_id="r1", alarms=("x",))

days_of_plans = st.builds(
    AuditPlan, release_id=TEXT, day=DAY.map(date.isoformat), rate=UNIT, pi_min=UNIT, floor_per_day=st.integers(0, 99), low_below=UNIT,
    low_share=UNIT, person_share=UNIT, slices=st.dictionaries(TEXT, st.builds(SliceDraw, kept_per_day=UNIT, boost=UNIT), max_size=3),
)  # fmt: skip
audits = st.lists(
    st.builds(
        Audit, release_id=st.just("r1"), request_id=TEXT, day=DAY.map(date.isoformat), slice=TEXT, source=st.sampled_from(["teacher", "person"]),
        pi=UNIT, said=TEXT, confidence=UNIT, state=st.sampled_from(["due", "labelled", "overdue", "barred"]), truth=st.none() | TEXT,
        wrong=st.none() | st.booleans(), reason=TEXT, cost_usd=st.integers(0, 10**7).map(lambda micro: micro / 1_000_000),
    ), max_size=8, unique_by=lambda one: (one.request_id, one.source),
)  # fmt: skip
counted = st.lists(
    st.builds(
        AuditDay, day=DAY, requests=st.integers(0, 9**9), audited=st.integers(0, 99), unlabelled=st.integers(0, 99),
        wrong_by_pi=st.lists(st.tuples(UNIT, st.integers(0, 99)), max_size=3).map(tuple),
    ), max_size=5, unique_by=lambda one: one.day,
)  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(days_of_plans, audits, counted, TEXT, TEXT, st.binary(max_size=20))
def test_what_is_written_is_read(plan, drawn, days, slice_name, words, sketch) -> None:
    """Every field of plans, audits, days, sketches, alarms, triggers and reports survives the file."""
    reading = Reading(
        release_id="r1", slice=slice_name, signal="error", day="2026-11-03", value=None, low=None, high=None, reference=0.1, n=3,
        method=words, state="not enough",
    )  # fmt: skip
    told = alarm(words=words)
    report = WatchReport(
        task="t", release_id=None, at=words, readings=(reading,), alarms=(told,), triggers=(TRIGGER,), examples={slice_name: told.examples}
    )
    with tempfile.TemporaryDirectory() as folder:
        with open_store(Path(folder)) as store:
            watching = store.watching
            assert watching.note_plan(plan) == plan
            assert watching.note_audits(drawn, at=1) == len(drawn)
            watching.note_days("r1", slice_name, "error", days)
            watching.note_drift("r1", slice_name, "2026-11-03", sketch)
            assert watching.raise_alarm(told, at=1)
            assert watching.open_trigger(TRIGGER, at=1)
            watching.note_pass(report, at=2.5)
        with open_store(Path(folder)) as store:
            watching = store.watching
            assert watching.plan(plan.release_id, plan.day) == plan
            assert watching.audits("r1") == sorted(drawn, key=lambda a: (a.day, a.request_id.encode(), a.source))
            assert watching.days("r1") == ({(slice_name, "error"): sorted(days, key=lambda one: one.day)} if days else {})
            assert watching.drift_days("r1") == {(slice_name, "2026-11-03"): sketch}
            assert (watching.alarms("t"), watching.triggers("t"), watching.last_pass("t")) == ([told], [TRIGGER], report)
            assert watching.last_pass("other") is None


def test_the_first_plan_of_a_day_and_the_first_draw_of_a_request_hold(watching) -> None:
    """Whoever comes second learns what holds and changes nothing; a teacher and a person are asked apart."""
    first = AuditPlan(release_id="r1", day="2026-11-03", slices={}, rate=0.1, pi_min=0.05, floor_per_day=1, low_below=0.8, low_share=0.1)
    watching.note_plan(first)
    assert watching.note_plan(replace(first, rate=0.2)) == first
    assert watching.note_audits([audit()], at=1) == 1
    assert watching.note_audits([audit(pi=0.9), audit(source="person"), audit("b", day="2026-11-04")], at=2) == 2
    assert [(a.request_id, a.source, a.pi) for a in watching.audits("r1")] == [("a", "person", 0.1), ("a", "teacher", 0.1), ("b", "teacher", 0.1)]
    assert [a.request_id for a in watching.audits("r1", day="2026-11-04")] == ["b"]


def test_a_settled_audit_stays_as_it_is(watching) -> None:
    """A word after the deadline changes nothing; what is due may be settled, and costs count in their month."""
    watching.note_audits([audit(), audit("b"), audit("c", day="2026-10-31")], at=1)
    watching.settle([audit(state="overdue", reason="no word"), audit("b", state="labelled", truth="x", wrong=True, cost_usd=0.25)])
    watching.settle([audit(state="labelled", truth="bug", wrong=False, cost_usd=9.0), audit("c", cost_usd=0.5)])
    assert [(a.request_id, a.state, a.wrong) for a in watching.audits("r1")] == [
        ("c", "due", None), ("a", "overdue", None), ("b", "labelled", True),
    ]  # fmt: skip
    assert (watching.spent_usd("2026-11"), watching.spent_usd("2026-10"), watching.spent_usd("2026-09")) == (0.25, 0.5, 0.0)
    assert [a.request_id for a in watching.audits("r1", state="due")] == ["c"]


def test_alarms_triggers_and_holds_end_once_and_say_so_in_the_decisions_log(tmp_path) -> None:
    """An ended one is not opened again by the same finding; the log names who ended it and why."""
    with open_store(tmp_path) as store:
        watching = store.watching
        assert watching.raise_alarm(alarm(), at=1)
        assert watching.close_alarm("x", by="Dana", why="mended", at=2)
        assert not watching.close_alarm("x", by="Bo", why="again", at=3)
        assert not watching.raise_alarm(alarm(), at=4)
        assert (watching.alarms("t"), watching.alarms("t", open_only=False)) == ([], [alarm()])
        assert watching.open_trigger(TRIGGER, at=1)
        assert watching.end_trigger("g", state="done", outcome="held", at=2)
        assert not watching.end_trigger("g", state="dismissed", outcome="no", at=3)
        assert not watching.open_trigger(TRIGGER, at=4)
        assert watching.triggers("t") == []
        assert watching.triggers("t", open_only=False) == [replace(TRIGGER, state="done", outcome="held")]
        assert watching.hold("t", by="watch", why="errors", cause="g", at=1)
        assert not watching.hold("t", by="watch", why="errors", cause="g", at=2)
        assert watching.hold("t", by="Dana", why="holiday", cause="", at=3)
        assert [(h.by, h.trigger, h.since) for h in watching.holds("t")] == [("watch", "g", 1), ("Dana", "", 3)]
        assert watching.holds("other") == []
        assert watching.release_hold("t", by="Dana", why="fine", at=4) == 2
        assert (watching.release_hold("t", by="Dana", why="fine", at=4), watching.holds("t")) == (0, [])
        said = [(d.kind, d.actor, d.subject) for d in store.decisions.read()]
        assert said == [
            ("alarm-closed", "Dana", "x"), ("trigger", "watch", "r1"), ("hold", "watch", "t"), ("hold", "Dana", "t"), ("hold-released", "Dana", "t"),
        ]  # fmt: skip
        assert store.decisions.verify() == 5


def test_a_notice_is_due_at_each_channel_until_it_arrives_or_is_given_up(watching) -> None:
    """One channel's fault holds up no other; the same notice is kept once."""
    assert watching.note("n", "t", kind="alarm", body={"words": "ünï"}, channels=("mail", "hook"), at=10)
    assert not watching.note("n", "t", kind="alarm", body={}, channels=("mail", "log"), at=11)
    assert watching.due(9) == []
    assert [(d.channel, d.tries, d.notice.body) for d in watching.due(10)] == [("hook", 0, {"words": "ünï"}), ("mail", 0, {"words": "ünï"})]
    watching.delivered("n", "mail", at=12)
    watching.failed("n", "hook", fault="503", next_at=60)
    watching.failed("n", "mail", fault="late", next_at=20)  # it has arrived: a second process that gave up changes nothing
    assert watching.due(59) == []
    assert [(d.channel, d.tries, d.fault) for d in watching.due(60)] == [("hook", 1, "503")]
    watching.failed("n", "hook", fault="gone", next_at=None)
    assert watching.due(1e12) == []
    assert [n.id for n in watching.notices("t", since=10)] == ["n"]
    assert watching.notices("t", since=10.5) == []


def test_a_write_that_fails_leaves_nothing_half(watching) -> None:
    """One row that breaks a rule keeps the whole call out: audits, days, settlements, a notice with its deliveries."""
    with pytest.raises(apsw.ConstraintError):
        watching.note_audits([audit(), audit("b", state="odd")], at=1)
    assert watching.audits("r1") == []
    watching.note_audits([audit()], at=1)
    with pytest.raises(StoreError, match="never drawn"):
        watching.settle([audit(state="labelled", truth="bug", wrong=False), audit("zz")])
    assert watching.audits("r1") == [audit()]
    good = AuditDay(day=date(2026, 11, 3), requests=9, audited=1, unlabelled=0)
    with pytest.raises(apsw.ConstraintError):
        watching.note_days("r1", "en", "error", [good, replace(good, day=date(2026, 11, 4), requests=None)])
    assert watching.days("r1") == {}
    with pytest.raises(apsw.ConstraintError):
        watching.note("n", "t", kind="alarm", body={}, channels=("mail", None), at=1)
    assert (watching.notices("t"), watching.due(99)) == ([], [])


WORK = """
import sys
from pathlib import Path
from overproof.data import Audit
from overproof.store.project_store import open_store
with open_store(Path(sys.argv[1])) as store:
    added = 0
    for number in range(60):
        rows = [
            Audit(release_id="r1", request_id=f"{number}-{i}", day="2026-11-03", slice="en", source="teacher", pi=0.5, said="x", confidence=0.5)
            for i in range(3)
        ]
        added += store.watching.note_audits(rows, at=1)
        store.watching.hold("t", by=sys.argv[2], why="w", cause="g", at=1)
    print(added)
"""


def test_two_processes_draw_each_request_once(tmp_path) -> None:
    """Both write the same draws at the same time: together they add each once, and one hold stands."""
    with open_store(tmp_path):
        pass
    both = [subprocess.Popen([sys.executable, "-c", WORK, str(tmp_path), name], stdout=subprocess.PIPE) for name in ("a", "b")]
    added = [int(one.communicate(timeout=120)[0]) for one in both]
    assert sum(added) == 180
    with open_store(tmp_path) as store:
        assert len(store.watching.audits("r1")) == 180
        assert len(store.watching.holds("t")) == 1
