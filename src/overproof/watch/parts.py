"""The parts of a pass: what each is given and says, and where the real ones are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol

from overproof.data import Alarm, ExampleShown, Occasion, Reading, Trigger, WatchReport
from overproof.evidence import Release
from overproof.project import Project
from overproof.store.project_store import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What one part says."""

    readings: tuple[Reading, ...] = ()
    alarms: tuple[Alarm, ...] = ()
    notes: tuple[str, ...] = ()
    examples: Mapping[str, tuple[ExampleShown, ...]] = field(default_factory=dict)
    drawn: int = 0
    """Audits."""
    labelled: int = 0
    spent_usd: float = 0.0
    """This month, beside what audits cost."""
    audit_more: frozenset[str] = frozenset()
    """Slices of which the next day's plan should audit more."""
    said: Any = None
    """What the triggers need of it besides: the duties, or how the teacher stands."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Followed:
    """What the triggers did."""

    triggers: tuple[Trigger, ...] = ()
    """Those that this pass opened or dealt with."""
    notes: tuple[str, ...] = ()


class OfRelease(Protocol):
    """A part that looks at the release that serves."""

    def __call__(self, store: Store, project: Project, release: Release, *, now: datetime) -> Found:
        """Look."""


class OfProject(Protocol):
    """A part that looks at what there is with or without a release."""

    def __call__(self, store: Store, project: Project, *, release: Release | None, now: datetime) -> Found:
        """Look."""


class OfTeacher(Protocol):
    """A part that may ask the teacher, with or without a release."""

    def __call__(self, store: Store, project: Project, *, release: Release | None, now: datetime, ask: bool) -> Found:
        """Look."""


class Auditing(Protocol):
    """Plan, draw, ask, settle."""

    def __call__(self, store: Store, project: Project, release: Release, *, now: datetime, most: int | None, ask: bool) -> Found:
        """Look."""


class Acting(Protocol):
    """What follows from alarms, the duties and the teacher."""

    def __call__(self, store: Store, project: Project, found: Mapping[str, Found], *, alarms: Sequence[Alarm], now: datetime) -> Followed:
        """Act; a part that failed is not in `found`, and what was held for it stays held."""


class Telling(Protocol):
    """Write down what people have to be told, and deliver it."""

    def __call__(self, store: Store, project: Project, report: WatchReport, *, now: datetime) -> tuple[str, ...]:
        """Tell; says what could not be delivered."""


class Keeping(Protocol):
    """Apply the retention policy."""

    def __call__(self, store: Store, project: Project, *, now: datetime) -> Found:
        """Make today's pass, where there is a policy and it was not made yet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """The parts of a pass."""

    audits: Auditing
    monitors: OfRelease
    drifts: OfRelease
    teacher: OfTeacher
    duties: OfProject
    triggers: Acting
    notices: Telling
    retention: Keeping


READS: Mapping[str, tuple[Occasion, ...]] = {
    "duties": ("review_overdue", "attestation_expired"), "teacher": ("teacher_ends",), "monitors": ("starved",),
}  # fmt: skip
"""Occasions that only this part can see; those of alarms are in the store."""


# the real ones, each imported in its turn: one that can't be imported blinds itself alone


def _audits(store: Store, project: Project, release: Release, *, now: datetime, most: int | None, ask: bool) -> Found:
    from overproof.watch.audits import audit_pass

    done = audit_pass(store, project, release, now=now, most=most, asking=ask)
    return Found(notes=done.notes, drawn=done.drawn, labelled=done.labelled)


def _monitors(store: Store, project: Project, release: Release, *, now: datetime) -> Found:
    from overproof.watch.monitors import read_monitors

    seen = read_monitors(store, project, release, now=now)
    return Found(readings=seen.readings, alarms=seen.alarms, notes=seen.notes)


def _drifts(store: Store, project: Project, release: Release, *, now: datetime) -> Found:
    from overproof.watch.drifts import look_for_drift

    seen = look_for_drift(store, project, release, now=now)
    return Found(readings=seen.readings, alarms=seen.alarms, notes=seen.notes, examples=seen.examples, audit_more=seen.audit_more)


def _teacher(store: Store, project: Project, *, release: Release | None, now: datetime, ask: bool) -> Found:
    from overproof.watch.teacher import watch_teacher

    silent = project if ask else replace(project, watch=replace(project.watch, canaries="off"))
    seen = watch_teacher(store, silent, release=release, now=now)
    return Found(readings=seen.readings, alarms=seen.alarms, notes=seen.notes, spent_usd=seen.spent_usd, said=seen)


def _duties(store: Store, project: Project, *, release: Release | None, now: datetime) -> Found:
    from overproof.watch.duties import duties_of

    seen = duties_of(store, project, release=release, now=now)
    return Found(notes=seen.notes, said=seen)


def _triggers(store: Store, project: Project, found: Mapping[str, Found], *, alarms: Sequence[Alarm], now: datetime) -> Followed:
    from overproof.watch.duties import Duties
    from overproof.watch.teacher import TeacherState
    from overproof.watch.triggers import act, fire

    duties = found["duties"].said if "duties" in found else Duties(review=None, attestations=())
    teacher = found["teacher"].said if "teacher" in found else TeacherState()
    readings = [r for part in found.values() for r in part.readings]
    unseen = [occasion for name, occasions in READS.items() if name not in found for occasion in occasions]
    fired = fire(store, project, alarms=alarms, duties=duties, teacher=teacher, readings=readings, unseen=unseen, now=now)
    return Followed(triggers=act(store, project, fired, now=now))


def _notices(store: Store, project: Project, report: WatchReport, *, now: datetime) -> tuple[str, ...]:
    from overproof.watch.notices import tell

    return tell(store, project, report, now=now)


def _retention(store: Store, project: Project, *, now: datetime) -> Found:
    from overproof.watch.keeping import keep_today

    seen = keep_today(store, project, now=now)
    return Found(notes=seen.notes, said=seen.done)


REAL = Parts(
    audits=_audits, monitors=_monitors, drifts=_drifts, teacher=_teacher, duties=_duties, triggers=_triggers, notices=_notices, retention=_retention,
)  # fmt: skip
"""What `watch_once` goes through."""
