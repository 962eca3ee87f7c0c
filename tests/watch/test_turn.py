"""A pass: every part on its own, and a part that fails is an alarm and never silence."""

from datetime import datetime, timedelta

import pytest
from tests.watch.projects import NOON, alarm, parts, project_in, reading, serve_release, trigger

from overproof.data import ExampleShown
from overproof.errors import DataError, StoreError, TeacherError
from overproof.store.project_store import open_store
from overproof.watch.parts import Followed, Found
from overproof.watch.turn import DOES, watch_once, worst


def raising(error: Exception):
    def part(*_, **__):
        raise error

    return part


def test_what_the_parts_find_is_one_report_and_the_last_pass(tmp_path) -> None:
    """Readings, alarms, notes, examples and counts of all parts; the triggers see the alarms; the store keeps it."""
    project, seen = project_in(tmp_path), {}

    def follow(store, project, found, *, alarms, now):
        seen.update(alarms=[a.id for a in alarms], duties=found["duties"].said, teacher=found["teacher"].said, now=now)
        store.watching.open_trigger(trigger(), at=now.timestamp())
        return Followed(triggers=(trigger(),))

    new = {"battery": (ExampleShown(request_id="q", text="hot"),)}
    with open_store(tmp_path) as store:
        serve_release(store, tmp_path)
        report = watch_once(store, project, now=NOON, parts=parts(
            audits=lambda *_, **__: Found(drawn=7, labelled=5, notes=("a note",)),
            monitors=lambda *_, **__: Found(readings=(reading(),), alarms=(alarm(),)),
            drifts=lambda *_, **__: Found(readings=(reading(slice="paying", state="starved", value=None),), notes=("a note",), examples=new),
            teacher=lambda *_, **__: Found(said="teacher", spent_usd=0.25), duties=lambda *_, **__: Found(said="duties"), triggers=follow,
        ))  # fmt: skip
        assert store.watching.last_pass("routing") == report
    assert report.spent_usd == 0.25
    assert (report.release_id, report.at) == ("r1", "2026-11-20T12:00:00+00:00")
    assert (report.audits_drawn, report.audits_labelled, report.notes, report.blind) == (7, 5, ("a note",), ())
    assert ([a.id for a in report.alarms], [t.id for t in report.triggers], dict(report.examples)) == (["a1"], ["t1"], new)
    assert seen == {"alarms": ["a1"], "duties": "duties", "teacher": "teacher", "now": NOON}
    assert [r.state for r in worst(report)] == ["starved", "quiet"]


@pytest.mark.parametrize("name", [n for n in DOES if n != "notices"])
@pytest.mark.parametrize("error", [ValueError("key sk-abcdefghijklmnopqrstuvwx0123456789AB"), TeacherError("the teacher is down", next_action="wait")])
def test_a_part_that_fails_blinds_itself_alone_and_is_told_once(tmp_path, name, error) -> None:
    """The others go on; there is one alarm and one notice while it lasts, closed by the pass in which the part works again."""
    project, ran = project_in(tmp_path), []

    def noting(one):
        def part(*_, **__):
            ran.append(one)
            return Followed() if one == "triggers" else Found()

        return part

    working = {n: noting(n) for n in DOES if n != "notices"}
    with open_store(tmp_path) as store:
        serve_release(store, tmp_path)
        for hours in range(3):
            ran.clear()
            report = watch_once(store, project, now=NOON + timedelta(hours=hours), parts=parts(**{**working, name: raising(error)}))
            assert ran == [n for n in working if n != name]
        assert report.blind == (name,)
        (one,) = report.alarms
        assert (one.signal, one.slice) == ("blind", name)
        assert one.words.startswith(f"The watch is blind in {name}: {DOES[name]}.")
        assert "sk-abcdefghijklmnopqrstuvwx0123456789AB" not in one.words
        assert [n.kind for n in store.watching.notices("routing")] == ["alarm", "summary"]
        report = watch_once(store, project, now=NOON + timedelta(hours=4), parts=parts(**working))
        assert (report.blind, report.alarms) == ((), ())
        again = watch_once(store, project, now=NOON + timedelta(hours=5), parts=parts(**{**working, name: raising(error)}))
        assert [a.id != one.id for a in again.alarms] == [True]


def test_notices_that_can_not_be_written_are_an_alarm_too(tmp_path) -> None:
    """Nobody can be told, so the report and the next `status` say it."""
    project = project_in(tmp_path)
    with open_store(tmp_path) as store:
        report = watch_once(store, project, now=NOON, parts=parts(notices=raising(OSError(28, "No space left"))))
        assert report.blind == ("notices",)
        assert store.watching.last_pass("routing") == report


def test_without_a_release_only_teacher_and_duties_are_looked_at(tmp_path) -> None:
    """Nothing serves, so there is nothing to audit; the teacher and the terms go on moving."""
    project, ran = project_in(tmp_path), []

    def noting(name):
        return lambda *_, **__: ran.append(name) or Found()

    with open_store(tmp_path) as store:
        report = watch_once(store, project, now=NOON, parts=parts(**{n: noting(n) for n in ("audits", "monitors", "drifts", "teacher", "duties")}))
    assert ran == ["teacher", "duties"]
    assert (report.release_id, report.audits_due) == (None, 0)


def test_an_alarm_ends_when_another_release_serves_and_not_when_the_teacher_does(tmp_path) -> None:
    """A roll-back mends nothing; a new champion does."""
    project = project_in(tmp_path)
    with open_store(tmp_path) as store:
        serve_release(store, tmp_path)
        store.watching.raise_alarm(alarm(), at=NOON.timestamp())
        state = store.rollouts.current("routing")
        store.rollouts.move(state, release_id="r1", stage="teacher-only", share=0.0, by="watch", why="bar", evidence={}, at=NOON.timestamp() + 1)
        assert [a.id for a in watch_once(store, project, now=NOON + timedelta(hours=1), parts=parts()).alarms] == ["a1"]
        serve_release(store, tmp_path, "r2", NOON + timedelta(hours=2))
        assert watch_once(store, project, now=NOON + timedelta(hours=3), parts=parts()).alarms == ()


def test_nothing_follows_from_blindness_but_being_told(tmp_path) -> None:
    """A part that fails moves no release: the triggers see what the others found."""
    project, seen = project_in(tmp_path), []

    def follow(store, project, found, *, alarms, now):
        assert "drifts" not in found
        seen.append([a.id for a in alarms])
        return Followed()

    with open_store(tmp_path) as store:
        serve_release(store, tmp_path)
        look = parts(monitors=lambda *_, **__: Found(alarms=(alarm(),)), drifts=raising(ValueError("odd")), triggers=follow)
        for hours in range(2):
            watch_once(store, project, now=NOON + timedelta(hours=hours), parts=look)
    assert seen == [["a1"], ["a1"]]


def test_an_alarm_that_somebody_closed_stays_closed(tmp_path) -> None:
    """The monitors find it again each day; nobody is asked twice."""
    project = project_in(tmp_path)
    with open_store(tmp_path) as store:
        serve_release(store, tmp_path)
        look = parts(monitors=lambda *_, **__: Found(alarms=(alarm(),)))
        assert len(watch_once(store, project, now=NOON, parts=look).alarms) == 1
        assert store.watching.close_alarm("a1", by="Dana", why="a test", at=NOON.timestamp())
        assert watch_once(store, project, now=NOON + timedelta(days=1), parts=look).alarms == ()


def test_what_this_pass_dealt_with_is_in_its_report_and_not_in_the_next(tmp_path) -> None:
    """Open triggers stay, ended ones are shown once."""
    project = project_in(tmp_path)
    done = trigger(state="done", outcome="the rollout is held")
    with open_store(tmp_path) as store:

        def follow(store, *_, now, **__):
            store.watching.open_trigger(trigger(), at=now.timestamp())
            store.watching.end_trigger("t1", state="done", outcome=done.outcome, at=now.timestamp())
            store.watching.open_trigger(trigger("t2", act="re-distil"), at=now.timestamp())
            return Followed(triggers=(done, trigger("t2", act="re-distil")))

        first = watch_once(store, project, now=NOON, parts=parts(triggers=follow))
        assert {t.id: t.state for t in first.triggers} == {"t1": "done", "t2": "open"}
        then = watch_once(store, project, now=NOON + timedelta(hours=1), parts=parts())
        assert [t.id for t in then.triggers] == ["t2"]


def test_two_passes_never_run_at_once_and_time_has_a_zone(tmp_path) -> None:
    """The second one is refused with the process that works; a naive time is refused too."""
    project = project_in(tmp_path)
    with open_store(tmp_path) as store, open_store(tmp_path) as other:
        inside = []

        def again(*_, **__):
            with pytest.raises(StoreError, match="another `overproof watch`"):
                watch_once(other, project, now=NOON, parts=parts())
            inside.append(1)
            return Found()

        watch_once(store, project, now=NOON, parts=parts(teacher=again))
        assert inside == [1]
        with pytest.raises(DataError, match="no time zone"):
            watch_once(store, project, now=datetime(2026, 11, 20), parts=parts())  # noqa: DTZ001
