"""The verb that watches what serves: one pass for cron, or one after the other."""

from __future__ import annotations

import json
import re
import signal
import sys
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from overproof.cli.door import Door, console_on, jsonable, verb
from overproof.errors import EXIT_OUTSIDE_WORLD, EXIT_PASS, EXIT_REFUSED, DataError, OverproofError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from overproof.data import Trigger, WatchReport
    from overproof.project import Project

UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
LEAST_S, MOST_S = 10, 86_400


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What the options ask for."""

    once: bool
    every_s: float
    ask: bool
    most: int | None
    mend: bool = False


@click.command(short_help="Watch what serves: audits, drift, the teacher, the owner's duties.")
@click.option("--once", is_flag=True, help="One pass, for cron; exit code 0 quiet, 1 an alarm or trigger is open, 4 a part failed.")
@click.option("--every", default="1h", metavar="TIME", help="Time between two passes, from 10s to 1d.", show_default=True)
@click.option("--most-audits", "most", type=click.IntRange(0), default=None, help="Ask about so many audits in a pass; all that are due where absent.")
@click.option("--no-ask", is_flag=True, help="Ask no teacher in this pass: what is due stays due, and nothing is paid.")
@click.option("--refresh", "mend", is_flag=True, help="Make the re-run that a trigger asks for, as `overproof refresh` does; each trigger gets one.")
@click.option("--alarms", "show_alarms", is_flag=True, help="Show what is open, and watch nothing.")
@click.option("--close", "close", default="", metavar="ALARM", help="Close an alarm; needs --why.")
@click.option("--dismiss", default="", metavar="TRIGGER", help="Dismiss a trigger; needs --why.")
@click.option("--unhold", is_flag=True, help="Let the rollout go on, whatever holds it; needs --why.")
@click.option("--why", default="", metavar="TEXT", help="The reason, for the log of decisions.")
@click.option("--by", default="", metavar="NAME", help="Who decides; the user of this machine where absent.")
@click.option("--test-notify", is_flag=True, help="Send one harmless notice through every channel.")
@verb
def watch(door: Door, *, every: str, most: int | None, close: str, dismiss: str, why: str, by: str, **given: bool) -> int:
    """Look at the audits, the drift, the teacher and the owner's duties; say what is wrong; do what [watch.on] allows."""
    chosen = [name for name, asked in (("--close", close), ("--dismiss", dismiss), ("--unhold", given["unhold"]), ("--alarms", given["show_alarms"]),
              ("--test-notify", given["test_notify"]), ("--once", given["once"])) if asked]  # fmt: skip
    if len(chosen) > 1:
        raise DataError(f"{' and '.join(chosen)} are two things", next_action="ask for one of them")
    asked = Asked(once=given["once"], every_s=seconds_of(every), ask=not given["no_ask"], most=most, mend=given["mend"])
    project = door.load()
    if close or dismiss or given["unhold"]:
        return _end(door, project, close=close, dismiss=dismiss, why=why.strip(), by=by)
    if given["show_alarms"]:
        return _open_ones(door, project)
    if given["test_notify"]:
        return _try_out(door, project)
    return _once(door, project, asked) if asked.once else _on_and_on(door, project, asked)


def seconds_of(text: str) -> float:
    """
    A time as people write it.

    Args:
        text: "30m", "1h", "1d", "45s".

    Returns: seconds.
    Raises: DataError for another form, or a time that is too short or too long.
    """
    found = re.fullmatch(r"(\d{1,6})([smhd])", text.strip())
    seconds = int(found[1]) * UNITS_S[found[2]] if found else 0
    if not LEAST_S <= seconds <= MOST_S:
        raise DataError(f"--every {text!r} is no time from 10s to 1d", next_action='write it as "30m" or "1h"')
    return float(seconds)


def exit_code(report: WatchReport) -> int:
    """
    What a pass means to cron.

    Args:
        report: what the pass found.

    Returns: 4 where a part failed, 1 where an alarm or trigger is open, else 0.
    """
    if report.blind:
        return EXIT_OUTSIDE_WORLD
    return EXIT_REFUSED if report.alarms or any(t.state == "open" for t in report.triggers) else EXIT_PASS


def _pass(project: Project, asked: Asked) -> WatchReport:
    from overproof.store.project_store import open_store
    from overproof.watch.turn import watch_once

    with open_store(project.root) as store:
        return watch_once(store, project, now=datetime.now(UTC), most_audits=asked.most, ask=asked.ask)


def mend(project: Project, triggers: Sequence[Trigger]) -> list[str]:
    """
    Make one re-run for the open triggers that ask for one. What comes of it ends them: a refusal isn't bought again every hour.

    Args:
        project: the loaded project.
        triggers: of a pass.

    Returns: one sentence; none where no trigger asks.
    """
    from overproof.refresh import refresh
    from overproof.store.project_store import open_store

    due = [one for one in triggers if one.state == "open" and one.act == "re-distil"]
    if not due:
        return []
    with open_store(project.root) as store:
        now = datetime.now(UTC)
        try:
            done = refresh(store, project, now=now, why=due[0].id)
        except OverproofError as error:  # too little new traffic, an outage: the next pass tries again
            return [f"the re-run waits: {error.what}; next: {error.next_action}"]
        if done.release is not None:
            said = f"re-distilled: release {done.release.id} is a candidate; `overproof promote --release {done.release.id}` takes it on"
        else:
            said = f"the re-run was refused, release {done.plan.champion} stays; `overproof show` has the reasons"
        for one in due:
            store.watching.end_trigger(one.id, state="done", outcome=said, at=now.timestamp())
    return [said]


def _once(door: Door, project: Project, asked: Asked) -> int:
    from overproof.cli.watch_page import report_page

    report = _pass(project, asked)
    door.emit(report, *report_page(report))
    for line in mend(project, report.triggers) if asked.mend else ():
        click.echo(line, err=door.as_json)
    return exit_code(report)


def _on_and_on(door: Door, project: Project, asked: Asked) -> int:
    """Pass after pass, a line for each; SIGTERM and Ctrl-C end it after the pass that is under way."""
    from overproof.cli.watch_page import pass_line

    over = threading.Event()
    before = {number: signal.signal(number, lambda *_: over.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        if not door.as_json:
            click.echo(f"watching {project.task.name} every {asked.every_s:g} s; end with Ctrl-C")
        while not over.is_set():
            began = time.monotonic()
            try:
                report = _pass(project, asked)
                _say(door, jsonable(report), pass_line(report))
                for line in mend(project, report.triggers) if asked.mend else ():
                    _say(door, {"refresh": line}, _plain(line))
            except OverproofError as error:  # a full disk, another watch: the next pass may find it mended
                _say(door, {"error": error.what, "next": error.next_action}, f"[bold red]no pass:[/] {_plain(error.what)}; next: {_plain(error.next_action)}")
            over.wait(max(0.0, asked.every_s - (time.monotonic() - began)))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return EXIT_PASS


def _say(door: Door, value: Any, line: str) -> None:
    if door.as_json:
        click.echo(json.dumps(value, ensure_ascii=False, allow_nan=False))
    else:
        console_on(sys.stdout).print(line, soft_wrap=True)
    sys.stdout.flush()


def _plain(text: str) -> str:
    from rich.markup import escape

    from overproof.privacy.redact import scrub

    return escape(scrub(text.partition("\n")[0]))


def _open_ones(door: Door, project: Project) -> int:
    from overproof.cli.watch_page import open_page
    from overproof.store.project_store import open_store

    task = project.task.name
    with open_store(project.root) as store:
        alarms, triggers, holds = store.watching.alarms(task), store.watching.triggers(task), store.watching.holds(task)
    door.emit({"alarms": alarms, "triggers": triggers, "holds": holds}, *open_page(alarms, triggers, holds))
    return EXIT_REFUSED if alarms or triggers or holds else EXIT_PASS


def _try_out(door: Door, project: Project) -> int:
    from rich.markup import escape

    from overproof.store.project_store import open_store
    from overproof.watch.notices import try_out

    with open_store(project.root) as store:
        said = try_out(store, project, now=datetime.now(UTC))
    lines = [f"{escape(channel)}: {f'[bold red]{escape(fault)}[/]' if fault else '[green]delivered[/]'}" for channel, fault in said.items()]
    door.emit({channel: fault or None for channel, fault in said.items()}, *lines)
    return EXIT_OUTSIDE_WORLD if any(said.values()) else EXIT_PASS


def _end(door: Door, project: Project, *, close: str, dismiss: str, why: str, by: str) -> int:
    """An alarm, a trigger, or where neither is named all that holds the rollout."""
    from rich.markup import escape

    from overproof.cli.rollout import user
    from overproof.registry import suggest
    from overproof.store.project_store import open_store

    named = close or dismiss
    what = f"alarm {named!r}" if close else f"trigger {named!r}" if dismiss else "the hold"
    if not why:
        raise DataError(f"a reason is missing for ending {what}", next_action="say --why TEXT: it goes into the log of decisions")
    who, at = by or user(), time.time()
    with open_store(project.root) as store:
        watching, task = store.watching, project.task.name
        if close:
            done = watching.close_alarm(close, by=who, why=why, at=at)
            known = [a.id for a in watching.alarms(task)]
        elif dismiss:
            done = watching.end_trigger(dismiss, state="dismissed", outcome=f"{who}: {why}", at=at)
            known = [t.id for t in watching.triggers(task)]
        else:
            done, known = watching.release_hold(task, by=who, why=why, at=at) > 0, []
    if not done:
        raise DataError(
            f"{what[:1].upper()}{what[1:]} is not open" if named else f"nothing holds {task!r}",
            next_action=f"take one that is open. {suggest(named, known)}" if named else "look at `overproof watch --alarms`",
        )
    then = "; a hold that it caused ends with the next pass" if close else ""
    door.emit({"ended": named or "hold", "by": who, "why": why}, f"{escape(what)} is {'closed' if close else 'dismissed' if dismiss else 'lifted'}{then}")
    return EXIT_PASS
