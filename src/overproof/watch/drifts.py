"""Drift without labels: the live traffic of a release against the prompt set it was made from, slice by slice."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

import numpy as np

from overproof.data import ALL, Alarm, ExampleShown, Reading, Signal, digest_of
from overproof.evidence import Release
from overproof.measure.drift import ShareLane
from overproof.measure.intervals import cp_lower, cp_upper
from overproof.measure.shares import LaneReading, Page, ShareBounds, read_lane, share_bounds, would_see
from overproof.project import Project
from overproof.steps.usual import LEAST, OWN, USUAL, Usual, UsualRecipe
from overproof.store.project_store import Store
from overproof.watch.daybook import WINDOW, Daybook
from overproof.watch.novelty import NAMED, Found, WeekFound, WeekLevels, shown, week_of, whole
from overproof.watch.reference import reference_of

SLOW_DAYS, FAST_TOLERANCE = 7, 2.0
UNSURE = 0.05
"""Chance that the reference of any share is so far off, by its own chance, that a share within it looks like drift."""
EPISODE = 28
"""Days without a page after which a later page is of something else."""
LOWER = 2.0
"""Standard errors by which mean confidence must fall before more is audited."""
LEAST_SKETCHED = 100
"""Rows of a week, below which its sketch is mostly noise."""
WEEKLY: tuple[Signal, ...] = ("vocabulary", "clusters", "mmd_sketch")
SAID: Mapping[str, str] = {
    "far_share": "share of requests unlike all that it was trained on", "ngram_far_share": "share of requests with many new n-grams",
    "slice_share": "share of all requests", "escalation": "share of requests that the student gives away", "label_share": "share of answers",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class DriftFound:
    """What a look at the traffic says."""

    readings: tuple[Reading, ...] = ()
    alarms: tuple[Alarm, ...] = ()
    """Of what goes on now; the same alarm has the same id at every look."""
    examples: Mapping[str, tuple[ExampleShown, ...]] = field(default_factory=dict)
    """What is new in the last four weeks, as messages, by word or group."""
    audit_more: frozenset[str] = frozenset()
    """Slices whose mean confidence fell: no alarm, but worth more audits."""
    notes: tuple[str, ...] = ()
    days_read: int = 0
    """Closed days that were new."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Stream:
    """One share in one slice, over the closed days."""

    slice: str
    signal: Signal
    k: Sequence[float]
    n: Sequence[float]
    """Effective rows of each day."""
    known: int
    m: int
    """Reference rows with it, and all."""
    weight: float
    part: str = ""
    falls: bool = False

    @property
    def shown_by(self) -> str:
        keys = {"far_share": "far", "ngram_far_share": "unseen", "slice_share": "any", "escalation": "away"}
        return keys.get(self.signal, f"label:{self.part}")


def look_for_drift(store: Store, project: Project, release: Release, *, now: datetime) -> DriftFound:
    """
    Read the days that have closed, and say where live traffic left the release's own prompt set.

    Args:
        store: the project's store.
        project: the checked project file.
        release: the one that serves.
        now: in UTC; only days that are past count.

    Returns: readings of every signal and slice, alarms for what goes on now, and what is new.
    Raises: StoreError where nothing says what the release was trained on.
    """
    table, reference = project.watch, reference_of(store, release)
    memo = store.memo()
    usual = memo.run(USUAL, reference.artifact("prompts"), memo.source("bundle", release.bundle), recipe=UsualRecipe()).value
    book = Daybook(store, task=project.task.name, release_id=release.id, usual=usual, bundle=reference.bundle)
    added = book.catch_up(now)
    days = book.days
    if not days:
        return DriftFound(notes=("no closed day of live traffic yet: drift says nothing",))
    look = _Look(store=store, project=project, release=release, usual=usual, book=book, days=days)
    streams = list(_streams(look, table.drift))
    readings, alarms = _read_streams(look, streams)
    more: frozenset[str] = frozenset()
    if "confidence" in table.drift:
        said = [_confidence(look, name) for name in look.names]
        readings += [one.reading for one in said]
        more = frozenset(one.reading.slice for one in said if one.fell)
    weeks = _weeks(look)
    told = _weekly(look, weeks)
    readings += told.readings
    alarms += told.alarms
    book.forget(days[-1] - timedelta(days=WINDOW + 7))
    notes = (f"{book.skipped} rows of new days were cut short or lack the task's fields; drift leaves them out",) if book.skipped else ()
    return DriftFound(
        readings=tuple(readings), alarms=tuple(alarms), examples=told.examples, audit_more=more, notes=notes, days_read=added
    )


class _Look:
    """What all signals of one look share."""

    def __init__(self, *, store: Store, project: Project, release: Release, usual: Usual, book: Daybook, days: list[date]) -> None:
        self.store, self.project, self.release = store, project, release
        self.usual, self.book, self.days = usual, book, days
        self.parts = {name: [book.of(name, day) for day in days] for name in usual.slices}
        self.parts = {name: part for name, part in self.parts.items() if self.held(name) or any(one.rows for one in part)}
        everything = [whole([part[at] for part in self.parts.values()]) for at in range(len(days))]
        self.slices = tuple(self.parts)
        self.parts[ALL] = everything
        self.names = (ALL, *self.slices) if len(self.slices) > 1 else (ALL,)
        self.share = 1.0 / max(1, len([one for one in project.watch.drift if one != "confidence"]))
        """Of all false pages, for each signal of [watch] drift that may page."""
        self.every = int(project.watch.false_page_every[:-1])
        self.last = days[-1].isoformat()

    def held(self, name: str) -> int:
        """Reference rows of a slice."""
        return sum(name in (ALL, row.slice) for row in self.usual.held)

    def part_of(self, name: str) -> float:
        """A slice's part of a signal: half for all traffic, half for the slices together."""
        return 1.0 if len(self.names) == 1 else 0.5 if name == ALL else 0.5 / len(self.slices)


def _streams(look: _Look, wanted: Sequence[str]) -> Iterator[_Stream]:
    """Every share that is read, with its part of the false pages; the parts of a signal sum to at most `look.share`."""
    held = look.usual.held
    for name in look.names:
        mine = [row for row in held if name in (ALL, row.slice)]
        m, part, days = len(mine), look.part_of(name) * look.share, look.parts[name]
        if "far_share" in wanted and look.usual.radius is not None:
            k, n = _effective([_Sum(of=one.far, all=one.looked, square=one.looked_square) for one in days])
            yield _Stream(slice=name, signal="far_share", k=k, n=n, known=sum(r.far for r in mine), m=m, weight=part)
        if "ngram_far_share" in wanted:
            k, n = _effective([_Sum(of=one.unseen, all=one.looked, square=one.looked_square) for one in days])
            yield _Stream(slice=name, signal="ngram_far_share", k=k, n=n, known=sum(r.unseen for r in mine), m=m, weight=part)
        if "escalation" in wanted:
            k, n = _effective([_Sum(of=one.weight - one.causes.get("confident", 0.0), all=one.weight, square=one.square) for one in days])
            yield _Stream(slice=name, signal="escalation", k=k, n=n, known=sum(r.cause != "confident" for r in mine), m=m, weight=part)
        if "shares" in wanted and look.usual.labels:
            weight = part / (2 if len(look.names) > 1 else 1) / len(look.usual.labels)
            for label in look.usual.labels:
                k, n = _effective([_Sum(of=one.labels.get(label, 0.0), all=one.weight, square=one.square) for one in days])
                known = sum(r.guess == label for r in mine)
                yield _Stream(slice=name, signal="label_share", part=label, k=k, n=n, known=known, m=m, weight=weight, falls=True)
    if "shares" in wanted and len(look.names) > 1:
        weight = look.share / (2 if look.usual.labels else 1) / len(look.slices)
        for name in look.slices:
            both = zip(look.parts[name], look.parts[ALL], strict=True)
            k, n = _effective([_Sum(of=one.weight, all=every.weight, square=every.square) for one, every in both])
            yield _Stream(slice=name, signal="slice_share", k=k, n=n, known=look.held(name), m=len(held), weight=weight, falls=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sum:
    """A day's rows with a property: their weights, all weights, and the sum of all squared."""

    of: float
    all: float
    square: float


def _effective(sums: Sequence[_Sum]) -> Iterator[list[float]]:
    """Counts, then totals, in effective rows: rows that stand for several say less than so many rows (Kish 1965)."""
    n = [one.all * one.all / one.square if one.square else 0.0 for one in sums]
    yield [min(rows, max(0.0, one.of / one.all) * rows) if one.all else 0.0 for one, rows in zip(sums, n, strict=True)]
    yield n


def _read_streams(look: _Look, streams: Sequence[_Stream]) -> tuple[list[Reading], list[Alarm]]:
    readable = [one for one in streams if one.m >= LEAST]
    readings = [_too_few(look, one) for one in streams if one.m < LEAST]
    if not readable:
        return readings, []
    d = UNSURE / (2 * len(readable))
    lanes = (
        ShareLane(days=SLOW_DAYS, tolerance=look.project.watch.tolerance, mean_epochs=max(1.0, look.every / SLOW_DAYS)),
        ShareLane(days=1, tolerance=max(FAST_TOLERANCE, look.project.watch.tolerance), mean_epochs=float(look.every)),
    )
    bounds = [[share_bounds(one.known, one.m, tolerance=lane.tolerance, d=d) for one in readable] for lane in lanes]
    weights = [one.weight / len(lanes) for one in readable]
    falls = [one.falls for one in readable]
    found = [
        read_lane([one.k for one in readable], [one.n for one in readable], some, lane=lane, weights=weights, falls=falls)
        for lane, some in zip(lanes, bounds, strict=True)
    ]
    alarms = []
    for at, one in enumerate(readable):
        pages = sorted((page for lane in found for page in lane.pages if page.stream == at), key=lambda page: (page.at, page.since))
        episode = _going_on(pages, len(look.days))
        readings.append(_share_reading(look, one, at, found, bounds[0][at], paged=episode is not None))
        if episode is not None:
            alarms.append(_share_alarm(look, one, episode))
    return readings, alarms


def _going_on(pages: Sequence[Page], days: int) -> Page | None:
    """The first page of the run of pages that reaches into the last four weeks."""
    first: Page | None = None
    before = -EPISODE
    for page in pages:
        if first is None or page.at - before > EPISODE:
            first = page
        before = page.at
    return first if first is not None and days - 1 - before <= EPISODE else None


def _share_reading(look: _Look, one: _Stream, at: int, lanes: Sequence[LaneReading], bound: ShareBounds, *, paged: bool) -> Reading:
    k, n = sum(one.k[-WINDOW:]), sum(one.n[-WINDOW:])
    strongest = max(lanes, key=lambda lane: float(lane.log_e[at] - lane.levels[at]))
    log_e, level = float(strongest.log_e[at]), float(strongest.levels[at])
    sees = would_see(n, bound.high, level=float(lanes[0].levels[at]))
    low, high = _between(k, n)
    return Reading(
        release_id=look.release.id, slice=one.slice, signal=one.signal, day=look.last, value=k / n if n else None, low=low, high=high,
        reference=one.known / one.m, n=round(n), part=one.part, log_e=log_e if math.isfinite(log_e) else None, level=level,
        method=f"last {min(WINDOW, len(look.days))} days, Clopper-Pearson 95 %; e-SR pagers, weekly and daily; {one.m} reference rows",
        state="alarm" if paged else "quiet" if sees else "not enough",
    )  # fmt: skip


def _too_few(look: _Look, one: _Stream) -> Reading:
    k, n = sum(one.k[-WINDOW:]), sum(one.n[-WINDOW:])
    low, high = _between(k, n)
    return Reading(
        release_id=look.release.id, slice=one.slice, signal=one.signal, day=look.last, value=k / n if n else None, low=low, high=high,
        reference=one.known / one.m if one.m else None, n=round(n), part=one.part, state="not enough",
        method=f"not read: {one.m} reference rows, at least {LEAST} are needed",
    )  # fmt: skip


def _between(k: float, n: float) -> tuple[float | None, float | None]:
    rows = math.floor(n + 1e-9)
    if rows < 1:
        return None, None
    low, high = math.floor(k * rows / n + 1e-9), min(rows, math.ceil(k * rows / n - 1e-9))
    return cp_lower(max(0, low), rows, 0.025), cp_upper(max(0, high), rows, 0.025)


def _share_alarm(look: _Look, one: _Stream, page: Page) -> Alarm:
    k, n = sum(one.k[page.since : page.at + 1]), sum(one.n[page.since : page.at + 1])
    low, high = _between(k, n)
    since, at = look.days[page.since], look.days[page.at]
    value, before = k / n, one.known / one.m
    what = SAID[one.signal] + (f" {one.part!r}" if one.part else "")
    words = (
        f"{_where(one.slice)}: {what} {'rose' if page.up else 'fell'} from {before:.1%} of {one.m} reference rows to {value:.1%}"
        f" ({low or 0:.1%} to {high or 0:.1%}, n = {round(n)}), since {since}"
    )
    if one.signal == "escalation":
        words += f"; mostly {_cause(look, one.slice, page)}"
    days = look.parts[one.slice][page.since : page.at + 1]
    ids = [name for day in reversed(days) for name in day.shown.get(one.shown_by, ())]
    return Alarm(
        id=_alarm_id(look, one.slice, one.signal, since.isoformat(), one.part), task=look.release.task, release_id=look.release.id, slice=one.slice,
        signal=one.signal, at=at.isoformat(), since=since.isoformat(), kind="page", value=value, low=low, high=high, reference=before, n=round(n),
        words=words, examples=shown(look.store, ids[:5]), part=one.part,
    )  # fmt: skip


def _cause(look: _Look, name: str, page: Page) -> str:
    causes: dict[str, float] = {}
    for day in look.parts[name][page.since : page.at + 1]:
        for cause, weight in day.causes.items():
            causes[cause] = causes.get(cause, 0.0) + weight
    causes.pop("confident", None)
    return max(causes, key=lambda cause: causes[cause], default="unsure").replace("_", " ")


def _where(name: str) -> str:
    return "all traffic" if name == ALL else f"slice {name!r}"


def _alarm_id(look: _Look, *parts: str) -> str:
    return digest_of([look.release.id, *parts])[:16]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sure:
    reading: Reading
    fell: bool


def _confidence(look: _Look, name: str) -> _Sure:
    """Mean confidence of the last four weeks; it pages nobody."""
    days = look.parts[name][-WINDOW:]
    before = np.array([row.confidence for row in look.usual.held if name in (ALL, row.slice)])
    sure = sum(day.sure for day in days)
    rows = sum(day.rows for day in days)
    if sure <= 0 or rows < LEAST or before.size < LEAST:
        method = f"mean of the last {len(days)} days; at least {LEAST} rows are needed on both sides"
        reading = Reading(release_id=look.release.id, slice=name, signal="confidence", day=look.last, value=None, low=None, high=None,
                          reference=float(before.mean()) if before.size else None, n=rows, method=method, state="not enough")  # fmt: skip
        return _Sure(reading=reading, fell=False)
    mean = sum(day.confidence for day in days) / sure
    spread = max(0.0, sum(day.confidence_square for day in days) / sure - mean * mean)
    error = math.sqrt(spread / rows)
    reading = Reading(
        release_id=look.release.id, slice=name, signal="confidence", day=look.last, value=mean, low=max(0.0, mean - 1.96 * error),
        high=min(1.0, mean + 1.96 * error), reference=float(before.mean()), n=rows,
        method=f"mean of the last {len(days)} days, normal approximation 95 %; {before.size} reference rows; raises the audit rate, pages nobody",
    )  # fmt: skip
    both = math.sqrt(error**2 + float(before.var()) / before.size)
    return _Sure(reading=reading, fell=mean < float(before.mean()) - LOWER * both)


def _weeks(look: _Look) -> list[WeekFound]:
    """Every whole week of the book, Monday to Sunday."""
    wanted = [one for one in WEEKLY if one in look.project.watch.drift]
    level = 7.0 * look.share / look.every
    levels = WeekLevels(levels=dict.fromkeys(wanted, min(0.05, level)), tolerance=look.project.watch.tolerance)
    monday = look.days[0] + timedelta(days=-look.days[0].weekday() % 7)
    plan, found = look.usual.plan(), []
    while wanted and monday + timedelta(days=6) <= look.days[-1]:
        found.append(week_of(look.book, look.usual, monday, levels, plan))
        monday += timedelta(days=7)
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class _Told:
    readings: list[Reading]
    alarms: list[Alarm]
    examples: dict[str, tuple[ExampleShown, ...]]


def _weekly(look: _Look, weeks: Sequence[WeekFound]) -> _Told:
    """Readings of the last week's tests, and an alarm for each slice, signal and week that brought something new."""
    told = _Told(readings=[], alarms=[], examples={})
    known: dict[Signal, set[str]] = {}
    for week in weeks:
        news: dict[tuple[Signal, str], list[Found]] = {}
        for one in week.found:
            if not _marks(one, week.monday) & known.get(one.kind, set()):
                news.setdefault((one.kind, one.slice), []).append(one)
        for one in week.found:
            known.setdefault(one.kind, set()).update(_marks(one, week.monday + timedelta(days=7)))
        if (look.days[-1] - week.last).days >= EPISODE:
            continue
        for (signal, name), found in news.items():
            told.alarms.append(_weekly_alarm(look, week, signal, name, found))
            told.examples.update({f"{one.kind}: {one.name}": shown(look.store, one.ids) for one in found[:NAMED] if one.name})
    wanted = [one for one in WEEKLY if one in look.project.watch.drift]
    told.readings.extend(_weekly_reading(look, weeks[-1] if weeks else None, signal, name) for signal in wanted for name in look.names)
    return told


def _marks(one: Found, monday: date) -> set[str]:
    """By what a finding is known again: its words, in whichever slice; a shift of the whole by the week before it."""
    return set(one.name.split(", ")) if one.name else {f"{one.slice} {monday}"}


def _weekly_reading(look: _Look, week: WeekFound | None, signal: Signal, name: str) -> Reading:
    found = [] if week is None else [one for one in week.found if (one.kind, one.slice) == (signal, name)]
    n = 0 if week is None else week.looked.get(signal, {}).get(name, 0)
    how = {
        "vocabulary": "exact tests of words that the reference lacks, Tarone's correction over slices",
        "clusters": f"density of messages by {'own features' if look.usual.vectors == OWN else 'n-grams'}, Bonferroni over places and slices",
        "mmd_sketch": "sketch of the week against weeks of the reference, days exchanged within weekdays, Holm over slices",
    }[signal]
    return Reading(
        release_id=look.release.id, slice=name, signal=signal, day=week.last.isoformat() if week else look.last, low=None, high=None, n=n,
        value=float(len(found)) if n else None, reference=0.0, method=f"findings of the last whole week; {how}",
        state="alarm" if found else "quiet" if _able(look, signal, name, n) else "not enough",
    )  # fmt: skip


def _able(look: _Look, signal: Signal, name: str, n: int) -> bool:
    """Whether something in a tenth of the rows, that the reference lacks, would have been named."""
    if signal == "mmd_sketch":
        return n >= LEAST_SKETCHED
    m = sum(one.rows for part, one in look.usual.words.items() if name in (ALL, part)) if signal == "vocabulary" else len(look.usual.compared(name))
    if n < 10 or not m:
        return False
    q = look.project.watch.tolerance * n / (look.project.watch.tolerance * n + m)
    tests = max(1, n) * len(look.names)
    return (n // 10) * math.log(q) <= math.log(7.0 * look.share / look.every / 2 / tests)


def _weekly_alarm(look: _Look, week: WeekFound, signal: Signal, name: str, found: Sequence[Found]) -> Alarm:
    first, since = found[0], min(one.since for one in found)
    said = ", ".join(f"{one.name!r} ({one.k} of {one.n})" for one in found[:NAMED])
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    words = {
        "vocabulary": f"{_where(name)}: new words, in messages: {said}{more}; at most {max(one.k_reference for one in found)} of "
                      f"{first.n_reference} reference rows have any of them",
        "clusters": f"{_where(name)}: messages like each other and unlike the reference: {said}{more}",
        "mmd_sketch": f"{_where(name)}: the messages of the week are distributed otherwise than those of the reference's weeks",
    }[signal]  # fmt: skip
    words += f"; since {since}, p = {first.p_value:.2g} after correction"
    if signal == "mmd_sketch":
        value, low, high = first.p_value, None, None
    else:
        value = first.k / first.n
        low, high = cp_lower(first.k, first.n, 0.025), cp_upper(first.k, first.n, 0.025)
    ids = [name for one in found[:NAMED] for name in one.ids[: 5 if one is first else 1]]
    return Alarm(
        id=_alarm_id(look, name, signal, since, week.monday.isoformat()), task=look.release.task, release_id=look.release.id, slice=name,
        signal=signal, at=week.last.isoformat(), since=since, kind="page", value=value, low=low, high=high,
        reference=first.k_reference / first.n_reference if signal != "mmd_sketch" else 1.0, n=first.n, words=words,
        examples=shown(look.store, list(dict.fromkeys(ids))[:5]), part=first.name,
    )  # fmt: skip
