"""`overproof watch` and `overproof status`: what people, cron, a prompt and CI see."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from tests.watch.projects import NOON, alarm, parts, project_in, reading, serve_release, trigger

from overproof.cli import main
from overproof.cli.watch import seconds_of
from overproof.data import ExampleShown
from overproof.errors import DataError
from overproof.store.project_store import open_store
from overproof.watch import turn
from overproof.watch.parts import Found
from overproof.watch.standing import short, standing_of
from overproof.watch.turn import watch_once


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    """Call a verb in this process; the parts are those that the test gives."""
    project_in(tmp_path)

    def called(*words: str, **given):
        monkeypatch.setattr(turn, "REAL", parts(**given))
        with pytest.raises(SystemExit) as ended:
            main([*words, "--project", str(tmp_path)])
        told = capsys.readouterr()
        return ended.value.code, told.out, told.err

    return called


def failing(*_, **__):
    raise OSError(111, "nobody there")


LOUD = {
    "monitors": lambda *_, **__: Found(
        readings=(reading(), reading(slice="paying", state="alarm", value=0.09, low=0.06, high=0.13), reading(slice="french", state="not enough", value=None, low=None, high=None, n=3)),
        alarms=(alarm(),),
    ),
    "drifts": lambda *_, **__: Found(examples={"new word: Akku": (ExampleShown(request_id="q", text="der [bold]Akku[/] wird heiß"),)}),
    "duties": lambda *_, **__: Found(notes=("The teacher ends in 40 days.",)),
}  # fmt: skip


def test_a_pass_says_what_is_wrong_and_its_code_says_so_to_cron(run, tmp_path) -> None:
    """Alarms as sentences with examples, readings with interval and n, what is new, countdowns, money; 0, 1 and 4."""
    with open_store(tmp_path) as store:
        serve_release(store, tmp_path)
    assert run("watch", "--once")[0] == 0
    code, out, _ = run("watch", "--once", **LOUD)
    assert code == 1
    for part in ("Among paying customers the student errs too often.", '"battery hot, call', "[delivery / billing]", "9.00%", "6.00% to 13.00%", "310",
                 "not enough data", "new word: Akku", "der [bold]Akku[/] wird heiß", "The teacher ends in 40 days.", "--close a1", "0.00 USD this month"):  # fmt: skip
        assert part in " ".join(out.split()), out
    assert out.index("alarm") < out.index("Readings")
    code, out, _ = run("watch", "--once", teacher=failing)
    assert code == 4
    assert "The watch is blind in teacher" in out
    code, out, _ = run("watch", "--once", "--json")
    assert (code, [a["id"] for a in json.loads(out)["alarms"]]) == (1, ["a1"])


def test_alarms_and_triggers_end_with_a_reason_and_a_name(run, tmp_path) -> None:
    """What is open is shown and ended; without a reason, or for something that is not open, nothing is."""
    with open_store(tmp_path) as store:
        serve_release(store, tmp_path)
        at = NOON.timestamp()
        store.watching.raise_alarm(alarm(), at=at)
        for name in ("t1", "t2"):
            store.watching.open_trigger(trigger(name), at=at)
            store.watching.hold("routing", by="watch", why="bar", cause=name, at=at)
    code, out, _ = run("watch", "--alarms")
    assert code == 1
    assert all(word in out for word in ("Among paying customers", "paying crossed its bar", "held"))
    assert run("watch", "--close", "a1")[0] == 2
    assert run("watch", "--close", "a7", "--why", "x")[0] == 2
    assert run("watch", "--close", "a1", "--dismiss", "t1", "--why", "x")[0] == 2
    assert run("watch", "--close", "a1", "--why", "a known campaign", "--by", "Dana")[0] == 0
    assert run("watch", "--dismiss", "t1", "--why", "fixed", "--by", "Dana")[0] == 0
    assert run("watch", "--dismiss", "t1", "--why", "fixed", "--by", "Dana")[0] == 2
    assert run("watch", "--dismiss", "t2", "--why", "fixed", "--by", "Dana")[0] == 0
    code, out, _ = run("watch", "--alarms")
    assert (code, out.count("held by")) == (1, 2)
    assert run("watch", "--unhold")[0] == 2
    code, out, _ = run("watch", "--unhold", "--why", "fixed", "--by", "Dana", "--json")
    assert (code, json.loads(out)) == (0, {"ended": "hold", "by": "Dana", "why": "fixed"})
    assert run("watch", "--unhold", "--why", "fixed", "--by", "Dana")[0] == 2
    assert run("watch", "--alarms")[0] == 0
    with open_store(tmp_path) as store:
        said = [(d.kind, d.actor, d.body.get("why", d.body.get("outcome"))) for d in store.decisions.read()][-4:]
        assert said == [("alarm-closed", "Dana", "a known campaign"), ("trigger", "watch", "Dana: fixed"), ("trigger", "watch", "Dana: fixed"),
                        ("hold-released", "Dana", "fixed")]  # fmt: skip


def test_channels_can_be_tried_out(run, tmp_path) -> None:
    """The log of notices is always there."""
    code, out, _ = run("watch", "--test-notify")
    assert (code, "log: delivered" in out) == (0, True)
    assert (tmp_path / ".overproof" / "notices.log").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(("text", "seconds"), [("10s", 10), ("30m", 1800), ("1h", 3600), ("1d", 86400)])
def test_a_time_between_passes_is_read(text: str, seconds: int) -> None:
    """As people write it."""
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "1", "5s", "2d", "1h30m", "-1h", "0h", "h"])
def test_an_odd_time_is_refused(text: str) -> None:
    """With what to write."""
    with pytest.raises(DataError):
        seconds_of(text)


def test_a_long_watch_ends_with_sigterm_after_its_pass(tmp_path) -> None:
    """One line a pass, exit code 0, and the pass is in the store."""
    project_in(tmp_path)
    words = [sys.executable, "-m", "overproof.cli", "watch", "--every", "1d", "--no-ask", "--project", str(tmp_path)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ})
    try:
        lines = [process.stdout.readline(), process.stdout.readline()]
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert lines[0].startswith("watching routing every 86400 s")
    assert "readings; 0 audits drawn" in lines[1]
    assert out == ""
    with open_store(tmp_path) as store:
        assert store.watching.last_pass("routing") is not None


def test_the_standing_tells_fine_from_open_from_blind(tmp_path) -> None:
    """Where nothing serves nothing is wrong; a release without a watch is; then age, alarms, holds and blindness count."""
    project = project_in(tmp_path)
    with open_store(tmp_path) as store:

        def state(hours: float = 0.0):
            return standing_of(store, project, now=NOON + timedelta(hours=hours))

        assert (state().state, state().hours) == ("fine", None)
        serve_release(store, tmp_path)
        assert state().state == "blind"
        assert "has never run" in state().problems[0]
        watch_once(store, project, now=NOON, parts=parts())
        assert state(25).state == "fine"
        assert state(30).problems == ("the watch has not run for 30 hours, while a release serves; start `overproof watch`",)
        store.watching.open_trigger(trigger(act="alarm"), at=1.0)
        assert (state().state, state().triggers) == ("open", 1)
        store.watching.raise_alarm(alarm(), at=1.0)
        store.watching.hold("routing", by="watch", why="bar", cause="t1", at=1.0)
        assert (state().alarms, len(state().holds), len(state().problems)) == (1, 1, 3)
        watch_once(store, project, now=NOON, parts=parts(drifts=failing))
        assert (state().state, state().alarms) == ("blind", 1)
        assert state().problems[0].startswith("The watch is blind in drifts")
        line = short(state(3))
        assert line == "routing full: BLIND, 1 alarm, 1 trigger, held, watched 3h ago"
        long = short(replace(state(3), task="a-task-with-a-very-long-name-" * 5))
        assert len(long) < 80
        assert long.endswith("watched 3h ago")


def test_status_for_a_prompt_and_for_ci(run, tmp_path) -> None:
    """One line without colour and without a look at the runs; 0, 1 and 2 only where --check asks."""
    assert run("status", "--short")[:2] == (0, "routing teacher-only: fine, never watched\n")
    with open_store(tmp_path) as store:
        serve_release(store, tmp_path)
    code, out, _ = run("status", "--check")
    assert (code, "has never run" in " ".join(out.split())) == (2, True)
    assert run("status", "--short")[0] == 0
    with open_store(tmp_path) as store:
        watch_once(store, project_in(tmp_path), now=datetime.now(UTC), parts=parts())
    assert run("status", "--check")[0] == 0
    with open_store(tmp_path) as store:
        store.watching.raise_alarm(alarm(), at=1.0)
    code, out, _ = run("status", "--check", "--short")
    assert (code, out) == (1, "routing full: 1 alarm, watched 0min ago\n")
    code, out, _ = run("status", "--check", "--json")
    assert (code, json.loads(out)["state"]) == (1, "open")
    code, out, _ = run("status", "--json")
    assert (code, json.loads(out)["watch"]["alarms"]) == (0, 1)
    assert "watch: open, last pass" in run("status")[1]
