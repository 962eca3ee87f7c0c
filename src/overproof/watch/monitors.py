"""Audits read: is any slice, or all of it, wrong more often than its bar; how much, since when, how sure."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Literal

import numpy as np

from overproof.data import ALL, Alarm, Audit, AuditPlan, ExampleShown, Reading, Signal, seconds_of
from overproof.evidence import Certificate, Release
from overproof.measure.audit_power import stream_weights
from overproof.measure.audited import Counted, Draw, Rate, audited_rate, day_gain, since_when
from overproof.measure.intervals import min_rows
from overproof.measure.monitor import (
    AuditDay,
    AuditDesign,
    Fold,
    Settled,
    alarm_level,
    audit_probability,
    fold_days,
    fold_pager,
    merged,
    pager_level,
    settled,
)
from overproof.project import Project
from overproof.settings import ServeTable
from overproof.store.project_store import Store

CONFIDENCE = 0.05  # chance that an interval ever leaves a constant rate
PAGE_SHARE = 0.5  # of [watch] false_page_every; the other half is for drift
PAGE_LASTS = 14  # settled days for which a page stands; one within them is the same trouble
SHOWN, CUT = 5, 300  # examples of an alarm, characters of each
ASKED: Mapping[str, tuple[Signal, ...]] = {"teacher": ("disagreement",), "person": ("error",), "both": ("disagreement", "error")}
JUDGES: Mapping[Signal, Literal["teacher", "person"]] = {"disagreement": "teacher", "error": "person"}
Kind = Literal["life", "page"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stream:
    """One signal in one slice, its days as counted, and what it is held to."""

    slice: str
    signal: Signal
    bar: float
    """The most of the kept answers that may be wrong, in (0, 1)."""
    days: tuple[AuditDay, ...]
    draws: Mapping[date, Draw]
    """How each day was drawn. A day that nobody planned to audit says nothing and is left out."""
    weight: float = 1.0
    """Its share of the chance of a false alarm, in (0, 1]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Episode:
    """A stretch in which a stream is above its bar."""

    kind: Kind
    at: int
    """Position of the settled day that reached the level."""
    since: int
    """Position of the day from which on the evidence is largest."""
    earliest: int
    latest: int
    """Days in between that fit nearly as well as the first one."""
    last: int
    """The newest settled day on which it stands."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Watched:
    """One stream, read to its last settled day."""

    stream: Stream
    settled: Settled
    days: tuple[Counted, ...]
    """Settled days that were planned, in calendar order."""
    unplanned: int
    """Settled days that nobody planned to audit."""
    log_e: float
    """Of the life alarm, after the last day; 0 before the first."""
    level: float
    episodes: tuple[Episode, ...]

    @property
    def standing(self) -> Episode | None:
        """The alarm that stands on the last settled day; a life alarm always does."""
        newest = [one for one in self.episodes if one.kind == "life" or one.last == len(self.days) - 1]
        return min(newest, key=lambda one: one.kind == "page", default=None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Monitored:
    """What the audits of a release say."""

    readings: tuple[Reading, ...]
    alarms: tuple[Alarm, ...]
    """Every one in the life of the release, oldest first; their ids stay the same from pass to pass."""
    notes: tuple[str, ...] = ()
    """Days that wait for words, or that nobody planned to audit."""


def read_monitors(store: Store, project: Project, release: Release, *, now: datetime) -> Monitored:
    """
    Read the audits of a release: every stream's figure, and every alarm in its life.

    Args:
        store: of the project; read only.
        project: [watch] and [serve] as they stand.
        release: whose certificate has the bars.
        now: in UTC; days before it are closed.

    Returns: readings in the order of the certificate's slices, alarms oldest first.
    """
    known = store.watching.days(release.id)
    plans = {day: plan for day in {row.day for rows in known.values() for row in rows}
             if (plan := store.watching.plan(release.id, day.isoformat())) is not None}  # fmt: skip
    streams = streams_of(project, release.certificate, known, plans)
    today = (now.astimezone(UTC) if now.tzinfo else now).date()
    deadline = max(1, math.ceil(seconds_of(project.watch.deadline) / 86_400.0))
    page_days = max(1.0, seconds_of(project.watch.false_page_every) / 86_400.0)
    read = [read_stream(one, today=today, deadline_days=deadline, delta=project.watch.false_alarms, page_days=page_days) for one in streams]
    alarms = [
        _alarm(one, episode, release, project, _examples(store, release.id, one, episode))
        for one in read
        for episode in one.episodes
    ]
    order = {"life": 0, "page": 1}
    return Monitored(
        readings=tuple(_reading(one, release.id, today, deadline) for one in read),
        alarms=tuple(sorted(alarms, key=lambda alarm: (alarm.at, order[alarm.kind], alarm.slice, alarm.signal))),
        notes=tuple(note for one in read for note in _notes(one)),
    )


def bars_of(serve: ServeTable, certificate: Certificate, signal: Signal) -> dict[str, float]:
    """
    What each slice in which the student answers is held to, and `ALL`.

    Args:
        serve: [serve] of the project.
        certificate: of the release.
        signal: "disagreement" or "error".

    Returns: slice to the most of its kept answers that may be wrong. What the certificate speaks of is held to its own
        bars, the other signal to the overall one: [serve] fidelity_below, else 0.01 below the kept-right dial.
    """
    overall = serve.overall_bar
    own = (certificate.label_kind == "gold") == (signal == "error")
    bars = {}
    for part in certificate.slices:
        if part.threshold is None:
            continue
        bars[part.slice] = certificate.kept_bar(part) if own else overall
    if certificate.supports == "G2" and serve.fidelity_below is None:
        overall = max([overall, *bars.values()])
    return {**bars, ALL: overall}


def streams_of(
    project: Project, certificate: Certificate, days: Mapping[tuple[str, Signal], Sequence[AuditDay]], plans: Mapping[date, AuditPlan]
) -> tuple[Stream, ...]:
    """
    Every stream that the release has to keep within its bar.

    The chance of a false alarm is shared equally by the signals that are asked for; within a signal all traffic gets as much
    as one slice of K on average, and each slice its weight in the certificate, a quarter of an equal share at least.

    Args:
        project: says whom the audits ask.
        certificate: of the release.
        days: as counted, by slice and signal; all traffic is added up from the slices.
        plans: of the days that were planned.

    Returns: by signal, all traffic first, then the slices in the certificate's order.
    """
    signals = dict.fromkeys([*ASKED[project.watch.ask], *(signal for _, signal in days if signal in JUDGES)])
    found = []
    for signal in signals:
        bars = bars_of(project.serve, certificate, signal)
        shares = stream_weights({part.slice: part.weight for part in certificate.slices if part.slice in bars}, whole=ALL)
        by_slice = {name: tuple(days.get((name, signal), ())) for name in bars if name != ALL}
        draws = {name: _draws(plans, [name], signal) for name in by_slice}
        whole = merged(row for rows in by_slice.values() for row in rows)
        found.append(Stream(slice=ALL, signal=signal, bar=bars[ALL], days=whole, draws=_draws(plans, by_slice, signal), weight=shares[ALL] / len(signals)))
        found += [Stream(slice=name, signal=signal, bar=bars[name], days=rows, draws=draws[name], weight=shares[name] / len(signals))
                  for name, rows in by_slice.items()]  # fmt: skip
    return tuple(found)


def read_stream(stream: Stream, *, today: date, deadline_days: int, delta: float, page_days: float) -> Watched:
    """
    Read one stream to its last settled day.

    Args:
        stream: with its whole record.
        today: the current day, not closed yet.
        deadline_days: how long a word is waited for.
        delta: chance of any life alarm about nothing, over all streams.
        page_days: least mean time between two pages about nothing, over all signals, in days.

    Returns: the evidence and every alarm so far. It depends on the record alone, so that a pass that comes late finds what
        daily ones would have found, on the same days.
    """
    ready = settled(stream.days, today=today, deadline_days=deadline_days)
    days = tuple(Counted(row=row, draw=stream.draws[row.day]) for row in ready.ready if row.day in stream.draws)
    level = alarm_level(delta, weight=stream.weight)
    page = pager_level(page_days, weight=PAGE_SHARE * stream.weight)
    gains = np.array([day_gain(day, stream.bar) for day in days])
    life = fold_days(gains, "life") if days else np.zeros(0)
    return Watched(
        stream=stream, settled=ready, days=days, unplanned=len(ready.ready) - len(days), level=level,
        log_e=float(life[-1]) if days else 0.0, episodes=_episodes(gains, life, level, page),
    )  # fmt: skip


def _episodes(gains: np.ndarray, life: np.ndarray, level: float, page: float) -> tuple[Episode, ...]:
    """The life alarm, and the pages: the pager starts anew after each, and one soon after another goes on with it."""
    found: list[Episode] = []
    ever = int((life >= level).argmax()) if bool((life >= level).any()) else None
    if ever is not None:
        since = since_when(gains[: ever + 1])
        found.append(Episode(kind="life", at=ever, since=since.first, earliest=since.earliest, latest=since.latest, last=len(gains) - 1))
    pages: list[Episode] = []
    fold: Fold | None = None
    loud = fold_days(gains, "pager") >= page if len(gains) else np.zeros(0, dtype=bool)
    first = int(loud.argmax()) if bool(loud.any()) else len(gains)
    for at in range(first, len(gains)):
        if at > first:
            fold = fold_pager(fold, gains[at])
            if fold.log_e < page:
                continue
        fold = None
        last = min(at + PAGE_LASTS, len(gains) - 1)
        if pages and at <= pages[-1].last:
            pages.append(replace(pages.pop(), last=last))
            continue
        begin = pages[-1].last + 1 if pages else 0
        since = since_when(gains[begin : at + 1])
        pages.append(Episode(kind="page", at=at, since=begin + since.first, earliest=begin + since.earliest, latest=begin + since.latest, last=last))
    return (*found, *(one for one in pages if ever is None or one.at < ever))


def _draws(plans: Mapping[date, AuditPlan], names: Iterable[str], signal: Signal) -> dict[date, Draw]:
    """How each planned day was drawn in these slices together; a slice that the plan doesn't name has the plan's extremes."""
    wanted = list(names)
    found = {}
    for day, plan in plans.items():
        part = plan.person_share if signal == "error" else 1.0
        if part <= 0.0:
            continue
        design = AuditDesign(rate=plan.rate, pi_min=plan.pi_min, floor_per_day=plan.floor_per_day, low_below=plan.low_below, low_share=plan.low_share)
        each = []
        for name in wanted:
            if (how := plan.slices.get(name)) is None:
                each += [plan.pi_min, 1.0]
                continue
            each += [audit_probability(sure, kept_per_day=how.kept_per_day, design=design, boost=how.boost) for sure in (0.0, 1.0)]
        if each:
            found[day] = Draw(low=part * min(each), high=part * max(each))
    return found


def _rate(one: Watched, first: int, chance: float) -> Rate | None:
    """Of the settled days from `first` on; None where there was no request."""
    part = one.days[first:]
    return audited_rate(part, chance) if sum(day.row.requests for day in part) else None


def _of_alarm(one: Watched, episode: Episode) -> Rate:
    """
    The rate since the alarm's first day. That day was picked for its evidence, so each day on which it might have begun has an
    interval of its own with the chance 1 / (s (s + 1)): together they are right, whichever was picked.
    """
    number = episode.since + 1
    end = episode.last + 1
    return audited_rate(one.days[episode.since : end], CONFIDENCE / (number * (number + 1)))


def _reading(one: Watched, release_id: str, today: date, deadline_days: int) -> Reading:
    stream, standing = one.stream, one.standing
    rate = _rate(one, 0, CONFIDENCE)
    if standing is not None:
        rate = _of_alarm(one, standing)
    window = "since launch" if standing is None else "since the alarm's first day, whichever that is"
    judged = 0 if rate is None else rate.audits - sum(day.row.unlabelled for day in one.days)
    late = [day for day in one.settled.starved if (today - day).days <= 2 * deadline_days]
    audited = sum(day.row.audited for day in one.days)
    starved = late or one.settled.overdue > 0.02 * max(1, audited)
    state: Literal["quiet", "alarm", "starved", "not enough"] = "quiet"
    if standing is not None:
        state = "alarm"
    elif starved:
        state = "starved"
    elif judged < min_rows(stream.bar, CONFIDENCE):
        state = "not enough"
    nothing = rate is None or not rate.audits
    return Reading(
        release_id=release_id, slice=stream.slice, signal=stream.signal, state=state,
        day=one.days[-1].row.day.isoformat() if one.days else "",
        value=None if nothing or rate is None else rate.value, low=None if nothing or rate is None else rate.low,
        high=None if nothing or rate is None else rate.high, reference=stream.bar, n=0 if rate is None else rate.audits,
        method="no settled day" if rate is None else f"{rate.method}, {100 * (1 - CONFIDENCE):g} % at all looks, {window}", log_e=one.log_e, level=one.level,
    )  # fmt: skip


def _alarm(one: Watched, episode: Episode, release: Release, project: Project, examples: tuple[ExampleShown, ...]) -> Alarm:
    stream, rate = one.stream, _of_alarm(one, episode)
    since, at = (one.days[i].row.day for i in (episode.since, episode.at))
    made = f"{release.id}\n{stream.slice}\n{stream.signal}\n{episode.kind}\n{since.isoformat()}"
    return Alarm(
        id=hashlib.sha256(made.encode()).hexdigest()[:16], task=release.task, release_id=release.id, slice=stream.slice,
        signal=stream.signal, at=at.isoformat(), since=since.isoformat(), kind=episode.kind, value=rate.value, low=rate.low,
        high=rate.high, reference=stream.bar, n=rate.audits, words=_words(one, episode, rate, project), examples=examples,
    )  # fmt: skip


def _words(one: Watched, episode: Episode, rate: Rate, project: Project) -> str:
    stream = one.stream
    since, earliest, latest = (one.days[i].row.day for i in (episode.since, episode.earliest, episode.latest))
    where = "over all slices" if stream.slice == ALL else f"in slice {stream.slice!r}"
    what = "does not answer as the teacher would" if stream.signal == "disagreement" else "is wrong by people's judgement"
    when = f"since about {_date(since)}"
    if earliest != latest:
        when += f" (any day from {_date(earliest)} to {_date(latest)} fits nearly as well)"
    sure = (
        f"at most {_percent(project.watch.false_alarms)} of the releases that keep their bars ever see an alarm like this"
        if episode.kind == "life"
        else f"a page like this about nothing comes at most once in {seconds_of(project.watch.false_page_every) / 86_400.0:g} days on average"
    )
    return (
        f"{where[0].upper()}{where[1:]} the student {what} in {_percent(rate.value)} of its answers {when}, where at most "
        f"{_percent(stream.bar)} is allowed; {rate.audits} audits put it between {_percent(rate.low)} and {_percent(rate.high)}, and {sure}."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


def _date(day: date) -> str:
    return f"{day.day} {day:%B %Y}"


def _examples(store: Store, release_id: str, one: Watched, episode: Episode) -> tuple[ExampleShown, ...]:
    """Wrong audited answers since the first day: each pair of words once before any comes twice, the surest mistakes first."""
    first, last = (one.days[i].row.day.isoformat() for i in (episode.since, episode.last))
    wrong = [audit for audit in store.watching.audits(release_id, state="labelled") if audit.wrong and audit.source == JUDGES[one.stream.signal]
             and one.stream.slice in {ALL, audit.slice} and first <= audit.day <= last]  # fmt: skip
    seen: dict[tuple[str, str | None], int] = {}
    rank: dict[str, int] = {}
    by_sureness = sorted(wrong, key=lambda audit: (-audit.confidence, audit.request_id))
    for audit in by_sureness:
        rank[audit.request_id] = seen[audit.said, audit.truth] = seen.get((audit.said, audit.truth), -1) + 1
    shown: list[Audit] = sorted(by_sureness, key=lambda audit: rank[audit.request_id])[:SHOWN]
    texts = {row.request.id: row.request.text for row in store.traffic.find([audit.request_id for audit in shown])}
    return tuple(
        ExampleShown(request_id=audit.request_id, text=texts[audit.request_id][:CUT], said=audit.said[:CUT],
                     truth=None if audit.truth is None else audit.truth[:CUT])
        for audit in shown
        if audit.request_id in texts
    )  # fmt: skip


def _notes(one: Watched) -> list[str]:
    name = f"{one.stream.signal}, {'all slices' if one.stream.slice == ALL else f'slice {one.stream.slice!r}'}"
    found = []
    if one.settled.waiting:
        found.append(f"{name}: {len(one.settled.waiting)} closed days wait for words, from {_date(one.settled.waiting[0])} on")
    if one.settled.overdue:
        found.append(f"{name}: {one.settled.overdue} audits never got a word and count as right")
    if one.unplanned:
        found.append(f"{name}: {one.unplanned} days were never planned and are left out")
    return found
