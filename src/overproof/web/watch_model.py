"""What the monitoring page shows: how the watch stands, each slice's error over time, drift, escalation, the teacher, the money."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Final

import scipy.special  # noqa: F401 - its first use loads for a second, which a page would wait for

from overproof.data import ALL, Alarm, ExampleShown, Hold, Reading, Signal, Trigger, WatchReport, seconds_of
from overproof.errors import OverproofError
from overproof.evidence import Release
from overproof.measure.audited import Counted, audited_rate
from overproof.measure.intervals import CLOPPER_PEARSON, cp_lower, cp_upper
from overproof.store.logs import AnsweredBy
from overproof.store.search import Caught, DayCount
from overproof.store.watch import Notice
from overproof.watch.monitors import CONFIDENCE, JUDGES, Watched, read_stream, streams_of
from overproof.watch.teacher import OF_THE_TEACHER, Ends, ends_of
from overproof.watch.turn import worst
from overproof.web.catching_up import follow
from overproof.web.place import Place

POINTS: Final = 40
"""Days of a chart whose interval is worked out; more would not be seen."""
BUDGET_S: Final = 0.35
"""For intervals that nobody has worked out before; what is left over comes with the next look."""
LOUD_H: Final = 48.0
DAYS: Final = 30
ROUNDS: Final = 10
EXAMPLES: Final = 5
NOTICES: Final = 12
SHARES: Final = frozenset({"far_share", "ngram_far_share", "slice_share", "label_share", "escalation", *OF_THE_TEACHER})
"""Signals whose figures are shares."""
SAID: Final[Mapping[str, str]] = {
    "disagreement": "disagreement with the teacher", "error": "error by people’s judgement", "far_share": "requests unlike all training rows",
    "ngram_far_share": "requests with many new n-grams", "slice_share": "share of a slice", "label_share": "share of an answer",
    "escalation": "share that goes to the teacher", "confidence": "mean confidence", "vocabulary": "new words", "clusters": "new groups of messages",
    "mmd_sketch": "mix of messages as a whole", "canaries": "canary prompts", "teacher_agreement": "the teacher against its own labels",
    "teacher_identity": "the teacher’s name and fingerprint", "blind": "the watch itself",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """The running rate at the end of one settled day."""

    day: date
    value: float
    low: float
    high: float
    audits: int
    """So far."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SliceError:
    """One signal in one slice over time."""

    reading: Reading
    """As the last pass left it."""
    name: str
    points: tuple[Point, ...]
    """Empty where no day is settled, or where they are not worked out yet."""
    waits: bool
    """They are not worked out yet: the next look has them."""
    alarms: tuple[date, ...]
    """Days on which an alarm was reached."""
    sentence: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DriftSignal:
    """One signal that needs no label, over all slices."""

    signal: Signal
    readings: tuple[Reading, ...]
    """The worst first."""
    counts: Mapping[str, int]
    """State to readings."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DayWay:
    """The requests of one day."""

    day: str
    requests: float
    escalated: float
    usd: float
    """What the teacher's answers to callers cost."""
    audits_usd: float
    canaries_usd: float
    reasons: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Escalation:
    """Which requests went to the teacher."""

    days: tuple[DayWay, ...]
    """Every day of the window, oldest first."""
    reasons: tuple[str, ...]
    """The most frequent first."""
    n: int
    escalated: int
    low: float
    high: float
    method: str
    caught: Caught
    """How far the index is that this is counted in."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundSeen:
    """One round of canary prompts."""

    at: float
    asked: int
    changed: int | None
    """Answers that differ from the round before with the same prompts; None where there is none."""
    usd: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Teacher:
    """What is known of the teacher."""

    readings: tuple[Reading, ...]
    rounds: tuple[RoundSeen, ...]
    """Newest first."""
    names: tuple[AnsweredBy, ...]
    ends: tuple[Ends, ...]
    every: str
    """How often canary prompts are asked, as in [watch] canaries."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Money:
    """What the watch has cost this month, and what it may."""

    month: str
    spent_usd: float
    cap_usd: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Monitoring:
    """The whole page."""

    stage: str
    release_id: str | None
    report: WatchReport | None
    hours: float | None
    """Since the last pass; None before the first."""
    stale: bool
    """A release serves, and the watch has not run for two days, or never."""
    alarms: tuple[Alarm, ...]
    triggers: tuple[Trigger, ...]
    holds: tuple[Hold, ...]
    shown: Mapping[str, tuple[ExampleShown, ...]]
    """Trigger to messages of the alarms behind it, where these are not open any more."""
    errors: tuple[SliceError, ...]
    drift: tuple[DriftSignal, ...]
    examples: Mapping[str, tuple[ExampleShown, ...]]
    escalation: Escalation
    teacher: Teacher
    money: Money
    notices: tuple[Notice, ...]
    """Newest first."""
    past: tuple[Trigger, ...]
    """Ended ones, newest first."""


def read_watch(place: Place, *, now: float) -> Monitoring:
    """
    How the watch of a task stands.

    Args:
        place: the task.
        now: Unix time.

    Returns: the page.
    """
    store, name = place.store, place.name
    state, report = store.rollouts.current(name), store.watching.last_pass(name)
    hours = None if report is None else max(0.0, now - datetime.fromisoformat(report.at).timestamp()) / 3600
    serving = state.release_id is not None
    known = store.watching.triggers(name, open_only=False)
    release = store.releases.get(report.release_id) if report is not None and report.release_id else None
    alarms = store.watching.alarms(name)
    closed = {one.id: one.examples for one in store.watching.alarms(name, open_only=False) if one.id not in {a.id for a in alarms}}
    behind = {t.id: tuple(shown for one in t.alarms for shown in closed.get(one, ())) for t in known if t.state == "open"}
    return Monitoring(
        stage=state.stage, release_id=state.release_id, report=report, hours=hours, stale=serving and (hours is None or hours > LOUD_H),
        alarms=tuple(alarms), triggers=tuple(t for t in known if t.state == "open"), holds=tuple(store.watching.holds(name)),
        shown={name: shown[:EXAMPLES] for name, shown in behind.items() if shown}, errors=_errors(place, release, report), drift=_drift(report), examples=report.examples if report is not None else {},
        escalation=_escalation(place), teacher=_teacher(place, report, now), money=_money(place, now), notices=_notices(place),
        past=tuple(t for t in reversed(known) if t.state != "open")[:NOTICES],
    )  # fmt: skip


# -- errors by slice --------------------------------------------------------------------------------------------------


def _errors(place: Place, release: Release | None, report: WatchReport | None) -> tuple[SliceError, ...]:
    """Charts as far as the last pass has read; the worst slices first, since time may run out."""
    if release is None or report is None:
        return ()
    known = place.store.watching.days(release.id)
    days = {row.day for rows in known.values() for row in rows}
    plans = {day: plan for day in days if (plan := place.store.watching.plan(release.id, day.isoformat())) is not None}
    today = datetime.fromisoformat(report.at).date()
    table = place.project.watch
    deadline = max(1, math.ceil(seconds_of(table.deadline) / 86_400.0))
    page_days = max(1.0, seconds_of(table.false_page_every) / 86_400.0)
    streams = {(one.slice, one.signal): one for one in streams_of(place.project, release.certificate, known, plans)}
    until = time.monotonic() + BUDGET_S
    found: list[SliceError] = []
    for reading in worst(report):
        stream = streams.get((reading.slice, reading.signal))
        if stream is None or reading.signal not in JUDGES:
            continue
        watched = read_stream(stream, today=today, deadline_days=deadline, delta=table.false_alarms, page_days=page_days)
        waits = bool(watched.days) and time.monotonic() > until and bool(found)
        found.append(_error(reading, watched, waits=waits))
    return tuple(sorted(found, key=lambda one: (one.reading.signal, one.reading.slice != ALL)))


def _error(reading: Reading, watched: Watched, *, waits: bool) -> SliceError:
    return SliceError(
        reading=reading, name="all traffic" if reading.slice == ALL else reading.slice, points=() if waits else running(watched.days), waits=waits,
        alarms=tuple(watched.days[one.at].row.day for one in watched.episodes), sentence=sentence_of(reading),
    )  # fmt: skip


@lru_cache(maxsize=256)
def running(days: tuple[Counted, ...]) -> tuple[Point, ...]:
    """
    The rate since the first day, with its interval, as it stood after each day: read at any of them the interval is right.

    Args:
        days: settled ones, in order.

    Returns: one point for each of at most `POINTS` days, the last one among them; days before the first request have none.
    """
    step = max(1, math.ceil(len(days) / POINTS))
    chosen = sorted({*range(len(days) - 1, -1, -step)})
    found = []
    for at in chosen:
        part = days[: at + 1]
        if sum(day.row.requests for day in part):
            rate = audited_rate(part, CONFIDENCE)
            found.append(Point(day=days[at].row.day, value=rate.value, low=rate.low, high=rate.high, audits=rate.audits))
    return tuple(found)


def sentence_of(reading: Reading) -> str:
    """
    What a reading of audits means.

    Args:
        reading: of "disagreement" or "error".

    Returns: one sentence; "quiet" alone never reads as a pass.
    """
    against = "differ from the teacher’s" if reading.signal == "disagreement" else "are wrong by people’s judgement"
    if reading.value is None or reading.low is None or reading.high is None or reading.reference is None:
        return "Not enough data: no audited answer is settled yet, so nothing can be said."
    share = f"{_percent(reading.value)} of the student’s answers {against} ({_percent(reading.low)} to {_percent(reading.high)}, n = {reading.n:,} audits)"
    bar = _percent(reading.reference)
    if reading.state == "alarm":
        return f"Too often: {share}, where at most {bar} is allowed."
    if reading.state == "starved":
        return f"Starved: too many audits had no word in time, so that quiet says nothing. So far {share}; the bar is {bar}."
    if reading.state == "not enough":
        return f"Not enough data to tell: so far {share}; the bar is {bar}."
    if reading.high <= reading.reference:
        return f"Within its bar of {bar}: {share}."
    return f"No alarm, and not shown to be within its bar of {bar} either: {share}."


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


# -- drift, escalation, teacher, money ------------------------------------------------------------------------------------


def _drift(report: WatchReport | None) -> tuple[DriftSignal, ...]:
    found: dict[Signal, list[Reading]] = {}
    for reading in worst(report) if report is not None else ():
        if reading.signal not in JUDGES and reading.signal not in OF_THE_TEACHER:
            found.setdefault(reading.signal, []).append(reading)
    made = []
    for signal, readings in found.items():
        counts: dict[str, int] = defaultdict(int)
        for one in readings:
            counts[one.state] += 1
        made.append(DriftSignal(signal=signal, readings=tuple(readings), counts=dict(counts)))
    return tuple(made)


def _escalation(place: Place) -> Escalation:
    """The last days with traffic, whatever the clock says: a log may end before today."""
    caught, last = follow(place), place.store.search.last_day()
    end = date.fromisoformat(last) if last else None
    every = [] if end is None else [(end - timedelta(days=back)).isoformat() for back in range(DAYS - 1, -1, -1)]
    counts: dict[str, list[DayCount]] = defaultdict(list)
    for one in place.store.search.daily(since=every[0]) if every else ():
        if one.route in ("student", "teacher"):
            counts[one.day].append(one)
    audits = {day: usd for day, _, usd in place.store.watching.daily_usd(since=every[0])} if every else {}
    canaries: dict[str, float] = defaultdict(float)
    for _, asked in place.store.canaries.newest_rounds(10 * DAYS):
        canaries[datetime.fromtimestamp(asked.at, UTC).date().isoformat()] += asked.cost_usd
    days = tuple(_day(day, counts.get(day, ()), audits.get(day, 0.0), canaries.get(day, 0.0)) for day in every)
    n, escalated = (round(math.fsum(getattr(day, name) for day in days)) for name in ("requests", "escalated"))
    reasons: dict[str, float] = defaultdict(float)
    for each in days:
        for reason, count in each.reasons.items():
            reasons[reason] += count
    return Escalation(
        days=days, reasons=tuple(sorted(reasons, key=lambda reason: -reasons[reason])), n=n, escalated=escalated, caught=caught, method=CLOPPER_PEARSON,
        low=cp_lower(escalated, n, CONFIDENCE / 2) if n else 0.0, high=cp_upper(escalated, n, CONFIDENCE / 2) if n else 1.0,
    )  # fmt: skip


def _day(day: str, ways: Sequence[DayCount], audits_usd: float, canaries_usd: float) -> DayWay:
    reasons: dict[str, float] = defaultdict(float)
    for way in ways:
        if way.route == "teacher":
            reasons[way.reason] += way.requests
    return DayWay(
        day=day, requests=math.fsum(way.requests for way in ways), escalated=math.fsum(reasons.values()), usd=math.fsum(way.usd for way in ways),
        audits_usd=audits_usd, canaries_usd=canaries_usd, reasons=dict(reasons),
    )  # fmt: skip


def _teacher(place: Place, report: WatchReport | None, now: float) -> Teacher:
    rounds: list[RoundSeen] = []
    before: dict[str, tuple[str, ...]] = {}
    for prompts, one in reversed(place.store.canaries.newest_rounds(ROUNDS + 1)):
        earlier = before.get(prompts)
        changed = None if earlier is None else sum(a != b for a, b in zip(earlier, one.answers, strict=False))
        rounds.append(RoundSeen(at=one.at, asked=len(one.answers), changed=changed, usd=one.cost_usd))
        before[prompts] = one.answers
    try:
        ends = ends_of(place.store, place.project, now=datetime.fromtimestamp(now, UTC))
    except OverproofError:  # the terms can't be read: the run and the watch say so
        ends = ()
    return Teacher(
        readings=tuple(r for r in (report.readings if report is not None else ()) if r.signal in OF_THE_TEACHER), rounds=tuple(reversed(rounds))[:ROUNDS],
        names=tuple(place.store.canaries.answering_now()), ends=ends, every=place.project.watch.canaries,
    )  # fmt: skip


def _money(place: Place, now: float) -> Money:
    month = datetime.fromtimestamp(now, UTC).strftime("%Y-%m")
    return Money(month=month, spent_usd=place.store.watching.charged_usd(month), cap_usd=place.project.watch.usd_per_month)


def _notices(place: Place) -> tuple[Notice, ...]:
    return tuple(place.store.watching.newest_notices(place.name, NOTICES))
