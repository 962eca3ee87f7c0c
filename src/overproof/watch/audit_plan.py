"""How the requests of a day are drawn for an audit: written down before the first of them is drawn."""

from __future__ import annotations

import calendar
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta

from overproof.data import ALL, AuditPlan, SliceDraw, TrafficRecord
from overproof.evidence import Release
from overproof.measure.monitor import AuditDesign, audit_probability
from overproof.measure.slices import OTHER
from overproof.progress import track
from overproof.project import Project
from overproof.settings import critical_slices
from overproof.store.project_store import Store

HISTORY_DAYS = 7  # weekdays differ
PAGE_BOOST, PAGE_DAYS = 3.0, 14
UNSURE_BOOST, UNSURE_DAYS = 2.0, 7  # where mean confidence fell, as a look within these days said; less sure is no error yet
LOW_SHARE = 0.1  # of the answers, the least sure ones: they are audited more often than the others
ROUNDS = 40  # halvings of the factor by which rates are lowered
LEAST_FACTOR = 1e-6


@dataclass(slots=True)
class Volume:
    """Answers of one slice in the days that the plan rests on."""

    requests: float = 0.0
    sure: list[tuple[float, float]] = field(default_factory=list)
    """(confidence, requests that the row stands for)."""

    def low(self, below: float) -> float:
        """Requests with less confidence than this."""
        return sum(weight for confidence, weight in self.sure if confidence < below)


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """What is known of a release's traffic before a day."""

    slices: Mapping[str, Volume]
    days: int
    """How many days they are from; 1 where only the day itself is known."""


def plan_day(store: Store, project: Project, release: Release, day: date) -> AuditPlan:
    """
    Plan the draws of a day and write the plan down, unless one is written down already.

    Rates come from how many answers each slice had in the week before, and from nothing that an audit has said of the day.
    Where they would ask for more audits than [watch] admits, or cost more than is left of the month, all are lowered alike.

    Args:
        store: holds the traffic log, what was spent, and what raises a slice's rate: pages, and confidence that fell.
        project: [watch] as it stands.
        release: that serves.
        day: in UTC.

    Returns: the plan that holds. Without slices nothing is drawn, and its note says why.
    """
    known = store.watching.plan(release.id, day.isoformat())
    if known is not None:
        return known
    table, history = project.watch, _history(store, release, day)
    below, share = _least_sure(history)
    natural = AuditPlan(
        release_id=release.id, day=day.isoformat(), rate=table.audit_rate, pi_min=table.audit_rate * (0.5 if below > 0 else 1.0),
        floor_per_day=table.floor_per_day, low_below=below, low_share=share, ask=table.ask,
        person_share={"teacher": 0.0, "person": 1.0, "both": table.person_share}[table.ask],
        slices={
            name: SliceDraw(kept_per_day=volume.requests / history.days, boost=boost)
            for name, volume, boost in _boosted(store, project, release, history, day)
        },
    )  # fmt: skip
    wanted = expected(natural, history)
    most, why = _most(store, project, day, wanted)
    if wanted <= most:
        return store.watching.note_plan(natural)
    if most < 1.0:
        note = f"{day}: {why}; nothing is drawn, and quiet means nothing"
        return store.watching.note_plan(replace(natural, slices={}, note=note))
    plan = _lowered(natural, history, most)
    return store.watching.note_plan(replace(plan, note=f"{day}: {why}; rates are {plan.rate / natural.rate:.2g} of [watch] audit_rate"))


def chance(plan: AuditPlan, slice_name: str, confidence: float) -> float:
    """
    The chance with which a request is drawn.

    Args:
        plan: of the day.
        slice_name: certification slice.
        confidence: of the student, in [0, 1].

    Returns: a probability in [plan.pi_min, 1]; in a slice that the plan doesn't know everything is drawn.
    """
    how = plan.slices.get(slice_name, SliceDraw(kept_per_day=0.0))
    design = AuditDesign(
        rate=plan.rate, pi_min=plan.pi_min, floor_per_day=plan.floor_per_day, low_below=plan.low_below, low_share=plan.low_share
    )
    return audit_probability(min(1.0, max(0.0, confidence)), kept_per_day=how.kept_per_day, design=design, boost=how.boost)


def expected(plan: AuditPlan, history: History) -> float:
    """
    How many audits a plan makes in a day like those of the history.

    Args:
        plan: the plan.
        history: what is known of the traffic.

    Returns: the number to be expected.
    """
    total = 0.0
    for name, volume in history.slices.items():
        low = volume.low(plan.low_below)
        total += low * chance(plan, name, 0.0) + (volume.requests - low) * chance(plan, name, 1.0)
    return total / history.days


def answered(rows: Iterable[TrafficRecord], release: Release) -> Iterator[TrafficRecord]:
    """
    The student's own answers.

    Args:
        rows: of the traffic log.
        release: whose.

    Returns: those that it was sure of; what it said in the teacher's outage is under no bar.
    """
    for row in rows:
        how = row.served
        if how is None or how.route != "student" or how.release != release.id or how.task != release.task or how.degraded:
            continue
        if how.guess is not None and how.confidence is not None:
            yield row


def of_day(store: Store, day: date) -> Iterator[TrafficRecord]:
    """
    The rows of a day.

    Args:
        store: holds the traffic log.
        day: in UTC.

    Returns: the rows, lazily.
    """
    start = datetime.combine(day, time(), UTC)
    return store.traffic.between(start, start + timedelta(days=1))


def slice_of(row: TrafficRecord) -> str:
    """The certification slice of a served row."""
    return (row.served.slice if row.served else "") or OTHER


def standing_for(row: TrafficRecord, pi_min: float) -> float:
    """How many requests a row stands for; a row that stands for very many counts as fewer, which can only delay an alarm."""
    return min(max(1.0, row.served.weight), 1.0 / pi_min) if row.served else 1.0


def _history(store: Store, release: Release, day: date) -> History:
    """The week before; the day itself where nothing was answered before it."""
    found = _volumes(store, release, [day - timedelta(days=n) for n in range(HISTORY_DAYS, 0, -1)])
    if found.days:
        return found
    return replace(_volumes(store, release, [day]), days=1)


def _volumes(store: Store, release: Release, days: list[date]) -> History:
    slices: dict[str, Volume] = {}
    first: int | None = None
    for number, day in enumerate(track(days, "reading a week of the log")):
        for row in answered(of_day(store, day), release):
            first = number if first is None else first
            volume = slices.setdefault(slice_of(row), Volume())
            weight = max(1.0, row.served.weight) if row.served else 1.0
            volume.requests += weight
            volume.sure.append((row.served.confidence or 0.0 if row.served else 0.0, weight))
    return History(slices=slices, days=0 if first is None else len(days) - first)


def _least_sure(history: History) -> tuple[float, float]:
    """The confidence below which about a tenth of the answers lie, and their share; 0 where no such line can be drawn."""
    total, below = sum(volume.requests for volume in history.slices.values()), 0.0
    counts: dict[float, float] = {}
    for volume in history.slices.values():
        for confidence, weight in volume.sure:
            counts[confidence] = counts.get(confidence, 0.0) + weight
    lines: list[tuple[float, float]] = []
    for confidence in sorted(counts):
        lines.append((confidence, below / total))
        below += counts[confidence]
    near = min(lines, key=lambda line: abs(line[1] - LOW_SHARE), default=(0.0, 0.0))
    return near if LOW_SHARE / 2 <= near[1] <= 3 * LOW_SHARE else (0.0, LOW_SHARE)


def _boosted(
    store: Store, project: Project, release: Release, history: History, day: date
) -> Iterator[tuple[str, Volume, float]]:
    names = dict.fromkeys([*(p.slice for p in release.certificate.slices if p.threshold is not None), *history.slices])
    critical = critical_slices(project.slices, names)
    pages, unsure = _paged(store, release, day), _unsure(store, release, day)
    for name in names:
        seen = PAGE_BOOST if pages & {name, ALL} else UNSURE_BOOST if unsure & {name, ALL} else 1.0
        yield name, history.slices.get(name, Volume()), seen * (project.watch.critical_boost if name in critical else 1.0)


def _unsure(store: Store, release: Release, day: date) -> frozenset[str]:
    """Slices whose mean confidence had fallen when drift was last looked for, before the day's plan was made."""
    last = store.watching.last_pass(release.task)
    if last is None or last.release_id != release.id or last.at < (day - timedelta(days=UNSURE_DAYS)).isoformat():
        return frozenset()
    return frozenset(last.audit_more)


def _paged(store: Store, release: Release, day: date) -> frozenset[str]:
    """Slices with a page that stands, or that came in the two weeks before."""
    pages = [a for a in store.watching.alarms(release.task, open_only=False) if a.kind == "page" and a.release_id == release.id]
    standing = {a.id for a in store.watching.alarms(release.task)}
    recent = (day - timedelta(days=PAGE_DAYS)).isoformat()
    return frozenset(a.slice for a in pages if a.at <= day.isoformat() and (a.id in standing or a.at >= recent))


def _most(store: Store, project: Project, day: date, wanted: float) -> tuple[float, str]:
    """How many audits of the day are admitted, and what admits no more."""
    table = project.watch
    most, why = float(table.audits_per_day), f"{wanted:,.0f} audits would be drawn and [watch] audits_per_day is {table.audits_per_day:,}"
    each = store.watching.usual_cost_usd() if table.ask != "person" else None
    if not each:
        return most, why
    month = day.isoformat()[:7]
    left = max(0.0, table.usd_per_month - store.watching.charged_usd(month))
    rest = calendar.monthrange(day.year, day.month)[1] - day.day + 1
    paid = left / rest / each
    if paid >= most:
        return most, why
    return paid, f"${left:.2f} of [watch] usd_per_month = {table.usd_per_month:g} is left for {rest} days of {month} at ${each:.6f} an answer"


def _lowered(plan: AuditPlan, history: History, most: float) -> AuditPlan:
    """The largest common factor on all rates that keeps the expected number within bounds."""

    def by(factor: float) -> AuditPlan:
        return replace(
            plan, rate=plan.rate * factor, pi_min=plan.pi_min * factor, floor_per_day=int(plan.floor_per_day * factor)
        )

    low, high = LEAST_FACTOR, 1.0
    for _ in range(ROUNDS):
        middle = (low + high) / 2
        low, high = (middle, high) if expected(by(middle), history) <= most else (low, middle)
    return by(low)
