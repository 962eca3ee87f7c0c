"""A pass with every real part, over a release that serves live rows."""

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.watch.living import BEGIN, Living, noon

from overproof.data import ALL
from overproof.watch import duties
from overproof.watch.standing import standing_of
from overproof.watch.turn import watch_once


@pytest.fixture
def live(tmp_path):
    made = Living(tmp_path)
    before = made.store.rollouts.current("inbox")
    made.store.rollouts.move(before, release_id=made.release.id, stage="full", share=1.0, by="t", why="t", evidence={}, at=noon(BEGIN).timestamp() - 99_999)
    with made.store:
        yield made


def test_every_part_looks_and_none_is_blind(live) -> None:
    """Four days of traffic: audits are drawn and wait, drift is read, the duties are looked at, and the standing says so."""
    end = live.days(BEGIN, 4, 40)
    report = watch_once(live.store, live.project, now=noon(end), ask=False)
    assert report.blind == ()
    assert report.audits_drawn == report.audits_due > 0
    assert {r.signal for r in report.readings} >= {"disagreement", "far_share", "label_share", "vocabulary"}
    assert {r.slice for r in report.readings} >= {ALL, "english", "german"}
    assert all(r.state in ("quiet", "not enough", "starved") for r in report.readings)
    standing = standing_of(live.store, live.project, now=noon(end))
    assert standing.state != "blind"
    assert standing.review
    assert standing.audits_due == report.audits_due


def test_what_is_held_for_a_part_that_fails_stays_held(live, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attestation is missing and the rollout held; a pass in which the duties can't be looked at lets nothing go on."""
    project = replace(live.project, watch=replace(live.project.watch, on={"attestation_expired": "hold", "review_overdue": "hold"}))
    end = live.days(BEGIN, 2, 20)
    watch_once(live.store, project, now=noon(end), ask=False)
    held = {hold.trigger for hold in live.store.watching.holds("inbox")}
    assert any(name.startswith("attestation_expired") for name in held)

    def gone(*_, **__):
        raise OSError(5, "gone")

    monkeypatch.setattr(duties, "duties_of", gone)
    report = watch_once(live.store, project, now=noon(end) + timedelta(hours=1), ask=False)
    assert report.blind == ("duties",)
    assert {hold.trigger for hold in live.store.watching.holds("inbox")} >= held
    assert not any("blind" in t.why for t in live.store.watching.triggers("inbox", open_only=False))
