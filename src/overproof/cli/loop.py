"""`overproof demo --loop`: the later quarter arrives, the watch sees it, and the smallest re-run mends it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from overproof.errors import EXIT_PASS, EXIT_REFUSED, DataError

if TYPE_CHECKING:
    from rich.console import Console

    from overproof.cli.door import Door
    from overproof.cli.loop_shop import Shop
    from overproof.data import Alarm, Trigger, WatchReport
    from overproof.evidence import Release
    from overproof.pipeline import RunResult
    from overproof.project import Project
    from overproof.refresh import Refreshed
    from overproof.steps.before_after import BeforeAfter, Mended, Message
    from overproof.store.project_store import Store

Sent = Mapping[str, Any]
"""A message of the inbox, with the true queue."""
MODEL = "northlane-readers-2025-11-15"
REASON = "demo"
MUG, MEMBERSHIP, SAFETY = "Ember mug", "membership_change", "safety_report"
SHOWN_ALARMS, SHOWN_EXAMPLES, SHOWN_CHARS = 3, 2, 110
AFTER_MIDNIGHT = timedelta(minutes=10)
EVERY_LATER = 7
"""Days between two passes after the re-run, when nobody waits for an alarm any more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """How long the demo is."""

    rows: int | None = None
    """Messages of the ordinary quarter; all where None."""
    later: int | None = None
    """Messages of the later one."""
    enough: int = 350
    """After an alarm the owner waits for so many messages of the changed world: fewer would teach and prove too little."""
    nights: int = 1
    """Days from one pass to the next, until there is an alarm and enough to re-run on."""
    files: Mapping[str, str] | None = None
    """Lines of the project file to others, for a shorter rehearsal."""


def loop(door: Door, folder: Path, *, pace: Pace | None = None) -> int:
    """
    Distil the ordinary quarter, serve the later one under the watch, re-run, compare.

    Args:
        door: how to talk.
        folder: gets the project; empty or absent.
        pace: how long it is.

    Returns: the exit code: 0 where the re-run's student took the place, 1 where there was no alarm or it was refused.
    Raises: DataError where the folder holds something.
    """
    from overproof.cli.door import console_on
    from overproof.store.project_store import open_store

    pace = pace or Pace()
    if folder.exists() and any(folder.iterdir()):
        raise DataError(
            f"{str(folder)!r} is not empty: the loop starts from an ordinary quarter", next_action="give another folder: `overproof demo --loop FOLDER`"
        )
    told = console_on(sys.stderr if door.as_json else sys.stdout)
    with made_project(folder, door.overrides, pace) as project, open_store(folder) as store:
        story = Story(store, project, told, pace)
        mended = story.tell()
        door.emit({"mended": mended, "dossier": None if story.page is None else str(story.page)}, *story.ending(mended))
    return EXIT_PASS if mended is not None and mended.challenger else EXIT_REFUSED


@contextlib.contextmanager
def made_project(folder: Path, overrides: Sequence[str], pace: Pace) -> Iterator[Project]:
    """
    The project, its teacher answering on loopback.

    Args:
        folder: gets the project.
        overrides: of the call.
        pace: how much of the ordinary quarter there is.

    Returns: the project, for as long as the teacher answers.
    """
    from overproof.cli.bundled import careful_answers, make_demo
    from overproof.cli.loop_teacher import LoopTeacher
    from overproof.privacy.redact import redactor_of
    from overproof.project import load_project
    from overproof.store.project_store import open_store

    teacher = LoopTeacher(careful_answers(), model=MODEL)
    with teacher.running():
        file = make_demo(folder, address=teacher.address, rows=pace.rows)
        if pace.files:
            text = file.read_text(encoding="utf-8")
            for old, new in pace.files.items():
                text = text.replace(old, new)
            file.write_text(text, encoding="utf-8")
        project = load_project(file, overrides=overrides)
        with open_store(folder) as store:  # the log, and so the run, has the messages with personal data replaced
            redactor = redactor_of(project.privacy, key=store.secret, keep=project.task.output.labels)
            teacher.answers.update({redactor.text(text): said for text, said in list(teacher.answers.items())})
        assert urlsplit(project.teacher.base_url).port == teacher.server_port
        yield project


class Story:
    """
    One walk round the loop, told as it happens.

    Args:
        store: of the demo's project.
        project: whose teacher answers.
        told: where to.
        pace: how long it is.
    """

    def __init__(self, store: Store, project: Project, told: Console, pace: Pace) -> None:
        self._store, self._project, self._told, self._pace = store, project, told, pace
        self._by = project.owner.name if project.owner else "nobody named"
        self._seen: dict[str, Alarm] = {}
        self._opened: dict[str, Trigger] = {}
        self._blind: set[str] = set()
        self._alarmed = ""
        """Day of the first alarm about the release."""
        self.page: Path | None = None
        """Where the comparison can be read."""

    def tell(self) -> Mended | None:
        """The whole story; None where there is no release to begin with."""
        from overproof.cli.bundled import messages_of
        from overproof.cli.loop_shop import open_shop, seconds_at

        self._say(
            "Northlane sells home gadgets. A quarter ago a small student took over part of its inbox.\n"
            f"Project: {self._project.root}. The teacher listens on this machine; no key, no network.\n"
        )
        first = self._distilled()
        if first is None:
            return None
        later = messages_of(2)[: self._pace.later]
        opens = seconds_at(later[0]["ts"]) - 60
        self._promoted(first.id, at=opens)
        days = [(day, list(some)) for day, some in groupby(later, key=lambda one: str(one["ts"])[:10])]
        with open_shop(self._project, at=opens) as shop:
            shop.follow(first.id)
            done = self._until_enough(shop, days)
            if not self._alarmed or done == len(days):
                self._say("\n[bold]no alarm[/] in the whole quarter" if not self._alarmed else "\nthe quarter ended before there was enough to re-run on")
                return self._mended(first, None, None, shop, cut="9999-12-31")
            night = _night(days[done - 1][0])
            refreshed = self._refreshed(night)
            second = refreshed.release
            if second is not None:
                self._promoted(second.id, at=night.timestamp() + 60)
                shop.follow(second.id)
            self._rest(shop, days[done:])
            return self._mended(first, second, refreshed, shop, cut=days[done][0])

    def ending(self, mended: Mended | None) -> Iterator[Any]:
        """
        What it came to.

        Args:
            mended: of `tell`.

        Returns: tables and lines.
        """
        if mended is None or not mended.challenger:
            yield "\nnothing was mended"
        if mended is None:
            return
        if mended.challenger:
            yield from mended_lines(mended)
        if self.page is not None:
            yield "\n[bold]dossier:[/]"
            yield self.page

    # -- the chapters ----------------------------------------------------------------------------------------------

    def _distilled(self) -> Release | None:
        from overproof.cli.walk import Steps
        from overproof.evidence import Release
        from overproof.pipeline import distil

        self._chapter("1  An ordinary quarter: distil")
        steps = Steps(self._told)
        result: RunResult = distil(self._store, self._project, on_event=steps.tell)
        steps.flush()
        verdict = result.verdict
        assert verdict is not None
        self._say(verdict.headline)
        self._publish(result.dossier_path)
        return verdict if isinstance(verdict, Release) else None

    def _until_enough(self, shop: Shop, days: Sequence[tuple[str, Sequence[Sent]]]) -> int:
        """Serve day after day, with a pass of the watch each night, until there is an alarm and enough to re-run on; how many days."""
        self._chapter("2  The later quarter arrives: the gateway serves, the watch looks every night")
        served = 0
        for number, (day, messages) in enumerate(days, 1):
            shop.serve(messages)
            served += len(messages)
            if number % self._pace.nights == 0:
                self._pass(day, served)
                if self._alarmed and served >= self._pace.enough:
                    return number
        return len(days)

    def _refreshed(self, night: datetime) -> Refreshed:
        from overproof.cli.refresh import challenge_lines, plan_lines
        from overproof.cli.walk import Steps
        from overproof.refresh import refresh

        self._chapter(f"3  {night:%d %B}: the smallest re-run")
        asked = [one for one in self._opened.values() if one.act == "re-distil"]
        # In words: with a trigger's id its slices would have to be shown better, for which half a quarter has too few messages.
        why = f"{len(asked)} triggers of the watch ask for it: {asked[0].why}" if asked else "the alarms of the watch"
        steps = Steps(self._told)
        found = refresh(self._store, self._project, now=night, why=why, on_event=steps.tell)
        steps.flush()
        for line in (*plan_lines(found.plan, past=True), *challenge_lines(found.challenge)):
            self._told.print(line)
        verdict = found.run.verdict
        if verdict is not None:
            self._say("", verdict.headline)
            for one in verdict.findings if found.release is None else ():
                if one.outcome not in ("pass", "waived"):
                    self._say("  [red]not passed[/] ", f"{one.title}: {one.reason}")
        self._publish(found.run.dossier_path)
        return found

    def _rest(self, shop: Shop, days: Sequence[tuple[str, Sequence[Sent]]]) -> None:
        self._chapter("4  The rest of the quarter")
        served = 0
        for number, (day, messages) in enumerate(days, 1):
            shop.serve(messages)
            served += len(messages)
            if number % EVERY_LATER == 0 or number == len(days):
                self._pass(day, served)

    def _pass(self, day: str, served: int) -> None:
        """One night's pass, and what is new in it."""
        from overproof.watch.turn import watch_once

        report = watch_once(self._store, self._project, now=_night(day))
        new = [a for a in report.alarms if a.id not in self._seen and a.signal != "blind"]
        self._seen.update({a.id: a for a in new})
        if new and not self._alarmed:
            self._alarmed = day
        self._tell_alarms(day, served, new, report)
        for name in sorted(set(report.blind) - self._blind):  # a part that failed: never taken for a quiet night
            self._say(f"[bold]{day}[/]  [bold red]the watch is blind[/] in ", name)
        self._blind |= set(report.blind)
        for one in report.triggers:
            if one.id not in self._opened:
                self._opened[one.id] = one
                self._say(f"  [bold]trigger[/] {one.occasion} → {one.act}: ", one.why)

    def _tell_alarms(self, day: str, served: int, new: Sequence[Alarm], report: WatchReport) -> None:
        from overproof.data import ALL

        if not new:
            return
        self._say(f"[bold]{day}[/], {served} messages served, {report.audits_labelled} audits answered last night")
        for alarm in new[:SHOWN_ALARMS]:
            where = "all traffic" if alarm.slice == ALL else alarm.slice
            self._say(f"  [bold red]alarm[/] {alarm.signal}, {where}: ", alarm.words)
            for shown in alarm.examples[:SHOWN_EXAMPLES]:
                text = " ".join(shown.text.split())
                self._say("    “", text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 1] + "…", "”")
        if more := [f"{a.signal} in {a.slice or 'all traffic'}" for a in new[SHOWN_ALARMS:]]:
            self._say("  and ", ", ".join(more))

    # -- what the chapters share -----------------------------------------------------------------------------------

    def _promoted(self, release_id: str, *, at: float) -> None:
        from overproof.serve import moves

        done = moves.promote(self._store, self._project, by=self._by, release_id=release_id, to="full", force=REASON, now=at)
        if not done.moved:
            raise DataError(f"release {release_id!r} was not promoted: {done.why}", next_action="look at `overproof status`")
        self._say(f"release {release_id} answers: promoted to full, forced with the reason “{REASON}”")

    def _publish(self, page: Path | None) -> None:
        from overproof.cli.walk import publish

        if page is not None:
            publish(page, self._project.root / "dossier")

    def _mended(self, first: Release, second: Release | None, refreshed: Refreshed | None, shop: Shop, *, cut: str) -> Mended:
        """Both students on what was served, by slice, and the page that shows it."""
        from overproof.steps.before_after import Mended, compare, weeks_of, write_mended

        messages = self._both(first, second, shop, cut)
        rows = compare(messages, [*(s.name for s in self._project.slices if s.name), *NAMED]) if second is not None else ()
        mended = Mended(
            task=self._project.task.name, champion=first.id, challenger=second.id if second else "", alarmed=self._alarmed,
            refreshed=cut if second else "", rows=rows, weeks=weeks_of(messages), alarms=tuple(self._seen.values()),
        )  # fmt: skip
        if refreshed is not None:
            plan, audits = refreshed.plan, self._store.watching.audits(first.id, state="labelled")
            mended = replace(mended, audited=len(audits), audit_usd=sum(one.cost_usd for one in audits))
            prompts, each = plan.following.prompts, self._store.watching.usual_cost_usd()
            everything = len(prompts.train) + len(prompts.calibration) + len(prompts.test)
            mended = replace(
                mended, labelled=plan.asked, reused=plan.reused + plan.served, cost_usd=refreshed.spent_usd, all_rows=everything,
                all_usd=everything * each if each is not None else None,
            )  # fmt: skip
        self.page = write_mended(mended, self._project.root / "dossier")
        return mended

    def _both(self, first: Release, second: Release | None, shop: Shop, cut: str) -> list[Message]:
        from overproof.steps.before_after import Message

        served = [r for r in self._store.traffic.read() if r.request.id in shop.sent]
        requests = [r.request for r in served]
        one = self._said(first, requests)
        other = self._said(second, requests) if second is not None else None
        found = []
        for at, request in enumerate(requests):
            sent = shop.sent[request.id]
            day = date.fromisoformat(str(sent["ts"])[:10])
            found.append(Message(
                week=(day - timedelta(days=day.weekday())).isoformat(), truth=sent["queue"], slices=self._slices(sent), before=one[at].guess,
                before_kept=one[at].value is not None, after=other[at].guess if other else None,
                after_kept=other is not None and other[at].value is not None, fresh=other is not None and day.isoformat() >= cut,
            ))  # fmt: skip
        return found

    def _said(self, release: Release, requests: Sequence[Any]) -> list[Any]:
        from overproof.students.bundle import load_bundle

        bundle = load_bundle(self._store.objects.find(release.bundle.digest))
        return bundle.answers(requests)

    def _slices(self, sent: Sent) -> tuple[str, ...]:
        """The project's slices, by the true queue where one asks for a label; and what is new in this quarter."""
        attributes = {"label": sent["queue"], **{name: sent[name] for name in ("channel", "tier", "language")}}
        found = [
            s.name for s in self._project.slices
            if isinstance(s.where, Mapping) and all(attributes.get(k) in ((v,) if isinstance(v, str) else v) for k, v in s.where.items())
        ]  # fmt: skip
        return (*found, *(name for name, holds in NAMED.items() if holds(sent)))

    def _chapter(self, title: str) -> None:
        self._told.print(f"\n[bold]{title}[/]\n")

    def _say(self, *parts: str) -> None:
        """A line: the first part has our markup, every second one is somebody's words and has none."""
        from rich.text import Text

        line = Text()
        for at, part in enumerate(parts):
            line += Text(part) if at % 2 else Text.from_markup(part)
        self._told.print(line)


NAMED: Mapping[str, Any] = {
    "about the new mug": lambda sent: sent["fields"].get("product") == MUG,
    "about a carrier": lambda sent: bool(sent["fields"].get("carrier")),
    "membership changes": lambda sent: sent["queue"] == MEMBERSHIP,
}
"""Slices that the project doesn't have, since nobody could know them before: for the comparison alone, by the true fields."""


def mended_lines(mended: Mended) -> Iterator[Any]:
    """
    The comparison as a person reads it.

    Args:
        mended: with a challenger.

    Returns: a table and lines.
    """
    from overproof.cli.tables import grid

    table = grid("Before and after, on messages that came after the re-run", "slice", "n", "before", "after", "points (interval)", "", "kept", right=(1, 2, 3))
    for r in mended.rows:
        change = "-" if r.difference is None else f"{100 * r.difference:+.0f} ({100 * r.low:+.0f} to {100 * r.high:+.0f})"
        table.add_row(
            r.slice or "all", str(r.n), _share(r.before.value), _share(r.after.value), change, WORDS[r.word],
            f"{_share(r.kept_before.value)} → {_share(r.kept_after.value)}",
        )  # fmt: skip
    yield table
    yield "each student alone, against the true queue; the intervals hold together at 95%"
    yield from wrong_lines(mended.rows)
    whole = "at an unknown price" if mended.all_usd is None else f"for about {mended.all_usd:.2f} USD"
    yield (
        f"audits bought {mended.audited:,} answers for {mended.audit_usd:.2f} USD; the re-run bought {mended.labelled:,} for "
        f"{mended.cost_usd:.2f} USD and reused {mended.reused:,}; labelling all again would buy {mended.all_rows:,} {whole}"
    )


def wrong_lines(rows: Sequence[BeforeAfter]) -> Iterator[str]:
    """
    Wrong answers that callers got or would have got.

    Args:
        rows: of the comparison, all messages first.

    Returns: one line, where the students keep anything.
    """
    whole = rows[0]
    if whole.kept_before.good and whole.kept_after.good:
        before, after = whole.wrong_before, whole.wrong_after
        yield (
            f"of what they answer themselves, wrong: {before.good} of {before.n} before ({_interval(before)}), "
            f"{after.good} of {after.n} after ({_interval(after)})"
        )


WORDS = {"better": "[green]better[/]", "worse": "[bold red]worse[/]", "no difference shown": "[dim]not shown[/]"}


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f}%"


def _interval(figure: Any) -> str:
    return f"{100 * figure.low:.1f} to {100 * figure.high:.1f}%"


def _night(day: str) -> datetime:
    """The time of the pass that closes a day."""
    return datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(days=1) + AFTER_MIDNIGHT
