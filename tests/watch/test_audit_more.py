"""Where confidence fell, the next day's plan audits more: within the budget, on no plan that is written down, and not for ever."""

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.watch.living import BEGIN, Living, noon

from overproof.data import ALL, WatchReport
from overproof.watch.audit_plan import PAGE_BOOST, UNSURE_BOOST, UNSURE_DAYS, chance, plan_day
from overproof.watch.parts import REAL
from overproof.watch.turn import watch_once

STRANGE = ("qxzj", "wvkq", "zzxq", "jqwx", "kxqz", "vwqj")


@pytest.fixture(scope="module")
def unsure(tmp_path_factory):
    """A quiet week and one of messages that the student can't read; a pass on the day after, with the next day's traffic in the log."""
    live = Living(tmp_path_factory.mktemp("unsure"), watch='audit_rate = 0.05\nfloor_per_day = 0\ndrift = ["confidence"]\n')
    state = live.store.rollouts.current("inbox")
    live.store.rollouts.move(state, release_id=live.release.id, stage="full", share=1.0, by="t", why="t", evidence={}, at=noon(BEGIN).timestamp() - 99_999)
    changed = live.days(BEGIN, 7, 60)
    end = live.days(changed, 9, 60, new=0.4, news=STRANGE) - timedelta(days=2)
    yield live, end
    live.store.close()


def test_the_day_after_confidence_fell_more_is_audited(unsure) -> None:
    """Two passes on two days: the first day's plan is written before anybody looked, the second one's draws with twice the chance."""
    live, end = unsure
    first = watch_once(live.store, live.project, now=noon(end), ask=False)
    assert ALL in first.audit_more
    before = live.store.watching.plan(live.release.id, end.isoformat())
    assert {how.boost for how in before.slices.values()} == {1.0}
    second = watch_once(live.store, live.project, now=noon(end + timedelta(days=1)), ask=False)
    after = live.store.watching.plan(live.release.id, (end + timedelta(days=1)).isoformat())
    assert {how.boost for how in after.slices.values()} == {UNSURE_BOOST}
    assert live.store.watching.plan(live.release.id, end.isoformat()) == before
    assert ALL in second.audit_more
    busy = [name for name, how in before.slices.items() if how.kept_per_day]
    assert busy
    for name in busy:
        assert chance(after, name, 0.99) == pytest.approx(2 * chance(before, name, 0.99), rel=0.1)


def told(live, day, names, *, release=None) -> None:
    """A pass of that day that found these slices less sure."""
    report = WatchReport(task="inbox", release_id=release or live.release.id, at=noon(day).isoformat(timespec="seconds"), audit_more=names)
    live.store.watching.note_pass(report, at=noon(day).timestamp())


def boosts(live, day, project=None) -> dict[str, float]:
    """Of a day for which no plan is written down yet."""
    plan = plan_day(live.store, project or live.project, live.release, day)
    return {name: how.boost for name, how in plan.slices.items()}


def test_only_the_slice_that_was_named_and_only_for_a_while(unsure) -> None:
    """One slice is doubled, the others are not; a look that is older than a week, or of another release, says nothing."""
    live, end = unsure
    far = end + timedelta(days=2)
    told(live, far, ("german",))
    found = boosts(live, far + timedelta(days=1))
    assert found["german"] == UNSURE_BOOST
    assert {boost for name, boost in found.items() if name != "german"} == {1.0}
    assert set(boosts(live, far + timedelta(days=UNSURE_DAYS + 1)).values()) == {1.0}
    told(live, far, ("german",), release="another")
    assert set(boosts(live, far + timedelta(days=2)).values()) == {1.0}
    assert PAGE_BOOST > UNSURE_BOOST


def test_the_budget_holds_all_the_same(unsure) -> None:
    """With room for five audits a day the rates go down together, and the note says so."""
    live, end = unsure
    day = end + timedelta(days=5)
    told(live, end + timedelta(days=4), (ALL,))
    tight = replace(live.project, watch=replace(live.project.watch, audits_per_day=5, audit_rate=0.5))
    plan = plan_day(live.store, tight, live.release, day)
    assert {how.boost for how in plan.slices.values()} == {UNSURE_BOOST}
    assert plan.rate < 0.5
    assert "audits_per_day is 5" in plan.note


def test_a_look_that_failed_forgets_nothing(unsure) -> None:
    """A pass in which the drift could not be looked at keeps what the one before said."""
    live, end = unsure

    def broken(*_, **__):
        raise ValueError("no")

    told(live, end + timedelta(days=6), ("english",))
    report = watch_once(live.store, live.project, now=noon(end + timedelta(days=7)), ask=False, parts=replace(REAL, drifts=broken))
    assert report.audit_more == ("english",)
    assert "drifts" in report.blind
