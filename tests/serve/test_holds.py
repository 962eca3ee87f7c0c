"""A rollout that is held stays where it is, for people and for gateways; an overdue review is in every answer."""

import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner
from tests.serve.test_moves import START, Gateway, at_shadow, release, write_project
from tests.serve.whole import Teacher, project, put_at, serving
from tests.serve.whole import release as packed

from overproof.cli import main
from overproof.data import OCCASIONS, Trigger
from overproof.project import load_project
from overproof.serve import moves
from overproof.serve.router import Routed, Shown, headers_of
from overproof.store.project_store import open_store


@pytest.fixture
def world(tmp_path):
    found = load_project(write_project(tmp_path))
    with open_store(tmp_path) as store:
        release(store)
        yield store, found


def held(store, occasion, *, about="r1"):
    """As the watch does it."""
    made = Trigger(id=f"{occasion}-1", task="t", occasion=occasion, act="hold", at="", why=f"because of {occasion}", release_id=about)
    store.watching.open_trigger(made, at=START)
    assert store.watching.hold("t", by="watch", why=made.why, cause=made.id, at=START)


@pytest.mark.parametrize("occasion", OCCASIONS)
def test_a_reason_passes_what_was_seen_and_not_what_people_owe(world, occasion):
    """Without a reason no hold is passed; with one an alarm's is, and the record says so; a lapsed attestation's never."""
    store, project = world
    state = at_shadow(store, project)
    held(store, occasion)
    refused = moves.promote(store, project, by="Dana", now=START + 7_200)
    assert (refused.moved, refused.why) == (False, f"held since {datetime.fromtimestamp(START, UTC).date()} by watch: because of {occasion}")
    forced = moves.promote(store, project, by="Dana", force="a launch", now=START + 7_200)
    assert forced.moved == (occasion not in ("attestation_expired", "review_overdue"))
    assert store.rollouts.current("t").stage == ("canary" if forced.moved else "shadow")
    if forced.moved:
        assert "forced: a launch" in store.rollouts.history("t")[-1].why
        assert occasion in store.rollouts.history("t")[-1].body["held"]
    store.watching.release_hold("t", by="Dana", why="done", at=START)
    assert (moves.held_by(store, "t", "r1"), state.release_id) == ("", "r1")


def test_proven_evidence_does_not_pass_a_hold_and_a_forced_pass_is_recorded_as_forced(world):
    """All bars are met and time is over: still held; with a reason it goes on, and the record says what was passed."""
    store, project = world
    clock = [START]
    gate = Gateway(store, project, lambda: clock[0])
    state = at_shadow(store, project)
    held(store, "drift")
    clock[0] += 3_700
    for name in ("vip", "other"):
        gate.see(state, name, 1_500, wrong=15)
    assert gate.tick.run() == state
    assert (gate.tick.last.move, "because of drift" in gate.tick.last.why) == ("hold", True)
    assert moves.promote(store, project, by="Dana", now=clock[0]).moved is False
    assert moves.promote(store, project, by="Dana", force="seen to", now=clock[0]).moved
    assert store.rollouts.history("t")[-1].body["forced"] is True
    store.watching.release_hold("t", by="Dana", why="closed", at=clock[0])
    clock[0] += 3_700
    for name in ("vip", "other"):
        gate.see(store.rollouts.current("t"), name, 1_500, wrong=15)
    assert gate.tick.run().stage == "full"


def test_a_hold_never_stops_a_rollback_or_a_suspension(world):
    """What protects callers goes on."""
    store, project = world
    gate = Gateway(store, project, lambda: START + 60)
    state = at_shadow(store, project)
    held(store, "attestation_expired")
    for name in ("vip", "other"):
        gate.see(state, name, 2_000, faults=600)
    assert gate.tick.run().stage == "teacher-only"


def test_what_was_seen_of_one_release_does_not_keep_the_next_one_out(world):
    """A drift hold on the serving release can't bar the release that mends it; what the teacher did bars both."""
    store, project = world
    at_shadow(store, project)
    release(store, "r2")
    held(store, "drift", about="r1")
    assert moves.held_by(store, "t", "r2") == ""
    assert moves.promote(store, project, by="Dana", release_id="r2", now=START).moved
    held(store, "teacher_changed", about="r1")
    assert "teacher_changed" in moves.held_by(store, "t", "r2")


def test_status_shows_what_holds_the_rollout(tmp_path):
    """In words and as JSON; the refused verb says it too and ends with exit code 1."""
    folder = write_project(tmp_path, "by-hand")
    with open_store(folder) as store:
        release(store)
        at_shadow(store, load_project(folder))
        held(store, "teacher_changed")
    call = lambda *args: CliRunner().invoke(main, [str(a) for a in args])  # noqa: E731
    shown = call("status", "--project", folder)
    assert "because of teacher_changed" in " ".join(shown.output.split())
    body = json.loads(call("status", "--project", folder, "--json").stdout)["rollout"]["holds"]
    assert [(one["by"], one["trigger"]) for one in body] == [("watch", "teacher_changed-1")]
    done = call("promote", "--project", folder, "--by", "Dana")
    assert (done.exit_code, "because of teacher_changed" in " ".join(done.output.split())) == (1, True)


def test_the_header_comes_with_an_overdue_review_alone():
    """Current and due reviews are nobody's business but the owner's."""
    for word, told in (("", None), ("current", None), ("due", None), ("overdue", b"overdue"), ("lapsed", b"lapsed")):
        found = dict(headers_of(Routed(route="student", reason="confident"), Shown(request_id="x", review=word)))
        assert found.get(b"x-overproof-review") == told


def test_a_running_gateway_says_that_the_review_is_overdue(tmp_path):
    """Header and metric of a real process, for a release whose review was due last week."""
    late = (datetime.now(UTC) - timedelta(days=7)).date().isoformat()
    teacher = Teacher()
    try:
        folder = project(tmp_path / "a", teacher.url)
        packed(folder, "r1", due=late)
        put_at(folder, "r1", "full")
        with serving(folder) as gateway:
            until = time.monotonic() + 20
            while (told := gateway.chat("where is my parcel").headers.get("x-overproof-review")) is None and time.monotonic() < until:
                time.sleep(0.1)  # the rollout is looked at once a second
            figures = gateway.ask("GET", "/metrics").body.decode()
        assert told == "overdue"
        assert 'overproof_review_state{state="overdue",task="routing"} 1.0' in figures
        assert 'overproof_review_state{state="current",task="routing"} 0.0' in figures
        (due,) = [line.split()[-1] for line in figures.splitlines() if line.startswith("overproof_review_due_timestamp_seconds{")]
        assert datetime.fromtimestamp(float(due), UTC).date().isoformat() == late
    finally:
        teacher.close()
