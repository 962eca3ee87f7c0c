"""One pass of the watch: every part in turn, each on its own, so that one that fails blinds nothing but itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from overproof.data import ALL, Alarm, Reading, Signal, WatchReport
from overproof.errors import DataError, OverproofError
from overproof.evidence import Release
from overproof.progress import track
from overproof.project import Project
from overproof.store.project_store import Store
from overproof.watch.parts import REAL, Followed, Found, Parts

T = TypeVar("T")
D = TypeVar("D")
BLIND: Signal = "blind"
DOES = {
    "audits": "nobody checks its answers", "monitors": "what the audits say is not read", "drifts": "changes of the traffic are not seen",
    "teacher": "a teacher that changes is not seen", "duties": "the owner's review and the attestation are not looked at",
    "retention": "what is over is still there", "triggers": "nothing follows from alarms", "notices": "nobody is told",
}  # fmt: skip


def watch_once(
    store: Store, project: Project, *, now: datetime, most_audits: int | None = None, ask: bool = True, parts: Parts | None = None
) -> WatchReport:
    """
    Go once through all that is watched; no two passes at a time.

    A part that fails is an alarm of its own, "the watch is blind in …", which stays open until the part works again.

    Args:
        store: the project's store.
        project: the loaded project.
        now: the time, with its zone; days before its day are over.
        most_audits: the most audits that this pass asks about; None for all that are due.
        ask: whether the teacher is asked at all.
        parts: what looks and acts; the real ones where None.

    Returns: what was found; it is kept as the last pass too.
    Raises: StoreError where another watch works on the project, or the store can't be written; DataError for a time without zone.
    """
    if now.tzinfo is None:
        raise DataError(f"now = {now.isoformat()!r} has no time zone", next_action="pass a datetime in UTC")
    with store.role("watch"):
        return _Pass(store, project, now.astimezone(UTC)).go(parts or REAL, most_audits, ask=ask)


class _Pass:
    def __init__(self, store: Store, project: Project, now: datetime) -> None:
        self.store, self.project, self.now = store, project, now
        self.task, self.at = project.task.name, now.timestamp()
        self.state = store.rollouts.current(self.task)
        self.faults: dict[str, str] = {}
        self.done: list[str] = []
        """Parts that were tried."""

    def go(self, parts: Parts, most: int | None, *, ask: bool) -> WatchReport:
        """The parts in order; what each says is kept before the next one looks."""
        s, p, now = self.store, self.project, self.now
        found: dict[str, Found] = {}
        release = self.attempt("release", self.serving, None)
        look: dict[str, Callable[[], Found]] = {}
        if release is not None:
            one = release
            look["audits"] = lambda: parts.audits(s, p, one, now=now, most=most, ask=ask)
            look["monitors"] = lambda: parts.monitors(s, p, one, now=now)
            look["drifts"] = lambda: parts.drifts(s, p, one, now=now)
        look["teacher"] = lambda: parts.teacher(s, p, release=release, now=now, ask=ask)
        look["duties"] = lambda: parts.duties(s, p, release=release, now=now)
        look["retention"] = lambda: parts.retention(s, p, now=now)
        for name in track(list(look), "the watch", total=len(look)):
            one_found = self.attempt(name, look[name], None)
            if one_found is not None:
                found[name] = one_found
                self.keep(one_found.alarms)
        self.forget_replaced()
        known = [a for a in s.watching.alarms(self.task) if a.signal != BLIND]
        followed = self.attempt("triggers", lambda: parts.triggers(s, p, found, alarms=known, now=now), Followed())
        self.mark_blind()
        report = self.report(found, followed)
        told = self.attempt("notices", lambda: parts.notices(s, p, report, now=now), ())
        self.mark_blind()
        report = self.report(found, Followed(triggers=followed.triggers, notes=(*followed.notes, *told)))
        s.watching.note_pass(report, at=self.at)
        return report

    def attempt(self, name: str, work: Callable[[], T], otherwise: D) -> T | D:
        """A part on its own; a store that can't be written ends the pass when the fault itself is written down."""
        self.done.append(name)
        try:
            return work()
        except OverproofError as error:
            self.faults[name] = error.what.partition("\n")[0]
        except Exception as error:  # noqa: BLE001 - a bug in one part must not blind the others; it is told as an alarm
            self.faults[name] = f"unexpected {type(error).__name__}: {error}"
        return otherwise

    def serving(self) -> Release | None:
        """The release that is rolled out, at whatever stage."""
        return self.store.releases.get(self.state.release_id) if self.state.release_id is not None else None

    def keep(self, alarms: Sequence[Alarm]) -> None:
        """What is known by its id stays one alarm, closed ones included."""
        for alarm in alarms:
            self.store.watching.raise_alarm(alarm, at=self.at)

    def forget_replaced(self) -> None:
        """An alarm about a release ends when another one serves; with the teacher alone it stays, since nobody has mended anything."""
        serving = self.state.release_id
        for alarm in self.store.watching.alarms(self.task):
            if serving is not None and alarm.release_id not in ("", serving) and alarm.signal != BLIND:
                why = f"release {serving} serves in the place of {alarm.release_id}"
                self.store.watching.close_alarm(alarm.id, by="watch", why=why, at=self.at)

    def mark_blind(self) -> None:
        """One open alarm for each part that fails, closed by the pass in which it works again."""
        known = {a.slice: a for a in self.store.watching.alarms(self.task) if a.signal == BLIND}
        for name, alarm in known.items():
            if name in self.done and name not in self.faults:
                self.store.watching.close_alarm(alarm.id, by="watch", why=f"{name}: works again", at=self.at)
        self.keep([self.blind_alarm(name, why) for name, why in self.faults.items() if name not in known])

    def blind_alarm(self, name: str, why: str) -> Alarm:
        from overproof.privacy.redact import scrub

        day = self.now.date().isoformat()
        meaning = DOES.get(name, "the release that serves can't be looked at")
        return Alarm(
            id=f"{BLIND}-{name}-{self.now.isoformat(timespec='seconds')}", task=self.task, release_id=self.state.release_id or "", slice=name,
            signal=BLIND, at=day, since=day, kind="page", value=1.0, low=None, high=None, reference=0.0, n=0,
            words=f"The watch is blind in {name}: {meaning}. {scrub(why)[:300]}",
        )  # fmt: skip

    def report(self, found: Mapping[str, Found], followed: Followed) -> WatchReport:
        watching, release_id = self.store.watching, self.state.release_id
        ended = {t.id: t for t in followed.triggers if t.state != "open"}
        before = watching.last_pass(self.task)
        same = before is not None and before.release_id == release_id and "drifts" not in found  # a look that failed forgets nothing
        more = before.audit_more if before is not None and same else ()
        kept = found["retention"].said if "retention" in found else None
        day, over = (self.now.date().isoformat(), kept.counts) if kept is not None else (before.retained_on, before.retained) if before is not None else ("", {})
        known = {t.id: t for t in watching.triggers(self.task)}
        return WatchReport(
            task=self.task, release_id=release_id, at=self.now.isoformat(timespec="seconds"),
            readings=tuple(r for part in found.values() for r in part.readings),
            alarms=tuple(watching.alarms(self.task)), triggers=tuple({**known, **ended}.values()),
            audits_drawn=sum(part.drawn for part in found.values()), audits_labelled=sum(part.labelled for part in found.values()),
            audits_due=len(watching.audits(release_id, state="due")) if release_id is not None else 0,
            spent_usd=watching.spent_usd(self.now.strftime("%Y-%m")) + sum(part.spent_usd for part in found.values()), blind=tuple(self.faults),
            audit_more=tuple(sorted({*more, *(name for part in found.values() for name in part.audit_more)})),
            notes=tuple(dict.fromkeys([*(n for part in found.values() for n in part.notes), *followed.notes])),
            examples={key: shown for part in found.values() for key, shown in part.examples.items()}, retained_on=day, retained=over,
        )  # fmt: skip


def worst(report: WatchReport) -> tuple[Reading, ...]:
    """
    Readings in the order in which people should see them.

    Args:
        report: of a pass.

    Returns: alarms first, then starved and too few, then the quiet ones; all traffic before slices.
    """
    rank = {"alarm": 0, "starved": 1, "not enough": 2, "quiet": 3}
    return tuple(sorted(report.readings, key=lambda r: (rank[r.state], r.slice != ALL, r.slice, r.signal)))
