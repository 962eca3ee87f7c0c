"""What is new in the traffic of a week: words, groups of messages, a shifted whole; each with messages that show it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Literal

import numpy as np

from overproof.data import ALL, ExampleShown
from overproof.measure.clusters import new_clusters
from overproof.measure.drift import Sketch, SketchPlan, Weeks, sketch, weekly_shift
from overproof.measure.words import WordCounts, new_words
from overproof.steps.usual import Usual
from overproof.store.project_store import Store
from overproof.watch.daybook import SHOWN, WINDOW, Daybook, DaySlice, Sample, sketch_of, vector_of

Kind = Literal["vocabulary", "clusters", "mmd_sketch"]
TEXT = 300
WEEKS = 8
"""Most weeks of the reference that a week is compared with."""
LEAST_WEEKS = 4
NAMED = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """Something new of one week."""

    kind: Kind
    slice: str
    """`ALL` where it is in no single slice."""
    name: str
    """The word, or of a group its commonest telling words; empty for a sketch."""
    k: int
    """Live rows with it."""
    n: int
    """Live rows that were looked at."""
    k_reference: int
    n_reference: int
    p_value: float
    """Adjusted for all tests of the week."""
    since: str
    """First day it was seen, ISO date."""
    ids: tuple[str, ...]
    """Requests that show it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WeekFound:
    """What the tests of a week say."""

    monday: date
    found: tuple[Found, ...]
    looked: Mapping[str, Mapping[str, int]]
    """Kind to slice to live rows behind its test; a slice that is missing could not be tested."""

    @property
    def last(self) -> date:
        """Its Sunday."""
        return self.monday + timedelta(days=6)


@dataclass(frozen=True, kw_only=True, slots=True)
class WeekLevels:
    """Chance of a false finding in one week, by kind; a kind that is missing isn't watched."""

    levels: Mapping[str, float]
    tolerance: float


def week_of(book: Daybook, usual: Usual, monday: date, levels: WeekLevels, plan: SketchPlan | None) -> WeekFound:
    """
    Test a week that has closed; a week that was tested before keeps its findings.

    Args:
        book: the closed days.
        usual: the reference.
        monday: first day of the week, which lies wholly in the book.
        levels: what is tested, and how surely.
        plan: the release's sketches.

    Returns: the findings. Words and groups are looked for in the week and in the four weeks up to it, at half the
        level each, so that what is rare is found later and not never.
    """
    if (known := book.week(monday)) is not None:
        found = tuple(Found(**{**one, "ids": tuple(one["ids"])}) for one in known["found"])
        return WeekFound(monday=monday, found=found, looked=known["looked"])
    first, last = book.days[0], monday + timedelta(days=6)
    starts = dict.fromkeys((monday, max(first, last - timedelta(days=WINDOW - 1))))
    windows = [[start + timedelta(days=at) for at in range((last - start).days + 1)] for start in starts]
    names = (*usual.slices, ALL) if len(usual.slices) > 1 else (ALL,)
    new: dict[tuple[str, str, str], Found] = {}
    looked: dict[str, dict[str, int]] = {}
    for days in windows:
        parts = {name: [(day, _of(book, usual, name, day)) for day in days] for name in names}
        for kind, search in (("vocabulary", _words), ("clusters", _groups)):
            if level := levels.levels.get(kind, 0.0):
                for one in search(parts, usual, level=level / len(windows), tolerance=levels.tolerance):
                    new.setdefault((one.kind, one.slice, one.name), one)
                looked[kind] = {name: sum(one.texts if kind == "vocabulary" else len(one.samples) for _, one in part) for name, part in parts.items()}
    if plan is not None and (level := levels.levels.get("mmd_sketch", 0.0)):
        shifted = _shift(book, usual, windows[0], plan, level)
        looked["mmd_sketch"] = {one.slice: one.n for one in shifted}
        new.update({(one.kind, one.slice, ""): one for one in shifted if one.p_value <= level})
    result = WeekFound(monday=monday, found=_attributed(new.values()), looked=looked)
    book.note_week(monday, {"found": [_plain(one) for one in result.found], "looked": looked})
    return result


def whole(parts: Iterable[DaySlice]) -> DaySlice:
    """
    Slices of one day together.

    Args:
        parts: of one day.

    Returns: their sums; examples of all.
    """
    every = list(parts)
    sums: dict[str, Any] = {
        name: sum(getattr(one, name) for one in every)
        for name in ("rows", "weight", "square", "confidence", "confidence_square", "sure", "looked", "looked_square", "far", "unseen", "texts", "sketched")
    }
    for name in ("causes", "labels", "words"):
        counter = Counter[str]()
        for one in every:
            for key, value in getattr(one, name).items():
                counter[key] += value
        sums[name] = dict(counter)
    for name in ("word_ids", "shown"):
        ids: dict[str, list[str]] = {}
        for one in every:
            for key, some in getattr(one, name).items():
                ids.setdefault(key, []).extend(some)
        sums[name] = {key: some[:SHOWN] for key, some in ids.items()}
    return DaySlice(**sums, samples=[sample for one in every for sample in one.samples])


def shown(store: Store, ids: Sequence[str]) -> tuple[ExampleShown, ...]:
    """
    Requests as messages.

    Args:
        store: the project's store.
        ids: of requests.

    Returns: at most five that the log still has, as they are stored: redacted when they were written.
    """
    rows = {one.request.id: one for one in store.traffic.find(dict.fromkeys(ids))}
    return tuple(
        ExampleShown(request_id=name, text=row.request.text[:TEXT], said=row.served.guess if row.served else None)
        for name, row in list(rows.items())[:SHOWN]
    )


def _of(book: Daybook, usual: Usual, name: str, day: date) -> DaySlice:
    return whole(book.of(one, day) for one in usual.slices) if name == ALL else book.of(name, day)


def _words(parts: Mapping[str, Sequence[tuple[date, DaySlice]]], usual: Usual, *, level: float, tolerance: float) -> list[Found]:
    names, pairs = list(parts), []
    for name in names:
        counts = Counter[str]()
        for _, one in parts[name]:
            counts.update(one.words)
        rows = sum(one.texts for _, one in parts[name])
        pairs.append((WordCounts(rows=rows, counts=counts), _reference_words(usual, name)))
    found = []
    for word in new_words(pairs, tolerance=tolerance, level=level):
        name = names[word.group]
        days = [day for day, one in parts[name] if word.word in one.words]
        ids = [one for _, part in parts[name] for one in part.word_ids.get(word.word, ())]
        found.append(
            Found(kind="vocabulary", slice=name, name=word.word, k=word.k, n=word.n, k_reference=word.k_reference, n_reference=word.m_reference,
                  p_value=word.p_value, since=days[0].isoformat(), ids=tuple(ids[:SHOWN]))
        )  # fmt: skip
    return found


def _reference_words(usual: Usual, name: str) -> WordCounts:
    if name != ALL:
        return usual.words[name]
    counts = Counter[str]()
    for one in usual.words.values():
        counts.update(one.counts)
    return WordCounts(rows=sum(one.rows for one in usual.words.values()), counts=counts)


def _groups(parts: Mapping[str, Sequence[tuple[date, DaySlice]]], usual: Usual, *, level: float, tolerance: float) -> list[Found]:
    found = []
    radii = sorted({usual.reach, usual.radius or usual.reach})
    for name, part in parts.items():
        compared = usual.compared(name)
        kept: dict[str, tuple[date, Sample]] = {}  # one row of each conversation and each text
        for day, one in part:
            for sample in one.samples:
                kept.setdefault(sample.likeness, (day, sample))
        rows = list(kept.values())
        if len(rows) < 2 or not len(compared):
            continue
        live = np.stack([vector_of(sample, usual.width) for _, sample in rows])
        for group in new_clusters(live, compared, radii=radii, tolerance=tolerance, level=level, tries=len(parts)):
            ids = tuple(rows[at][1].id for at in group.rows)
            found.append(
                Found(kind="clusters", slice=name, name=_named(part, frozenset(ids)), k=len(ids), n=len(rows), k_reference=group.k_reference,
                      n_reference=len(compared), p_value=group.p_value, since=min(rows[at][0] for at in group.rows).isoformat(), ids=ids[:SHOWN])
            )  # fmt: skip
    return found


def _named(part: Sequence[tuple[date, DaySlice]], ids: frozenset[str]) -> str:
    """A group's own words: those of its examples that are rarest in the rest of the window."""
    inside, everywhere = Counter[str](), Counter[str]()
    for _, one in part:
        everywhere.update(one.words)
        for word, some in one.word_ids.items():
            inside[word] += sum(name in ids for name in some)
    said = sorted(inside, key=lambda word: (-inside[word] ** 2 / everywhere[word], word))
    return ", ".join(word for word in said[:3] if inside[word] > 1) or min(ids)


def _shift(book: Daybook, usual: Usual, days: Sequence[date], plan: SketchPlan, level: float) -> list[Found]:
    features = 2 * plan.weights.shape[1]
    reference = _reference_weeks(usual, plan)
    weeks = {}
    for name, known in reference.items():
        live = []
        for day in days:
            parts = [book.of(one, day) for one in (usual.slices if name == ALL else (name,))]
            live.append(Sketch(n=sum(one.sketched for one in parts), total=np.sum([sketch_of(one, features) for one in parts], axis=0)))
        if sum(one.n for one in live) >= 2:
            weeks[name] = Weeks(reference=known, live=tuple(live))
    if not weeks:
        return []
    scores = weekly_shift(weeks, level=level, seed=days[0].toordinal())
    return [
        Found(kind="mmd_sketch", slice=name, name="", k=0, n=score.n, k_reference=0, n_reference=score.n_reference,
              p_value=1.0 if score.p_value is None else score.p_value, since=days[0].isoformat(),
              ids=tuple(one for day in days for one in _of(book, usual, name, day).shown.get("any", ()))[:SHOWN])
        for name, score in zip(weeks, scores, strict=True)
    ]  # fmt: skip


def _reference_weeks(usual: Usual, plan: SketchPlan) -> dict[str, tuple[tuple[Sketch, ...], ...]]:
    """Whole weeks of the reference's held rows, Monday first, by slice; only slices with rows in each of them."""
    held = usual.held_rows()
    days = [None if row.at is None else date.fromisoformat(row.at[:10]) for row in usual.held]
    known = [day for day in days if day is not None]
    if not known:
        return {}
    last = max(known) + timedelta(days=1)
    monday = last - timedelta(days=last.weekday() + 7)
    mondays: list[date] = []
    while monday >= min(known) and len(mondays) < WEEKS:
        mondays.append(monday)
        monday -= timedelta(days=7)
    found = {}
    for name in (*usual.slices, ALL) if len(usual.slices) > 1 else (ALL,):
        weeks = []
        for start in reversed(mondays):
            parts = []
            for at in range(7):
                day = start + timedelta(days=at)
                mine = [place for place, one in enumerate(days) if one == day and name in (ALL, usual.held[place].slice)]
                parts.append(sketch(held[mine], plan))
            if sum(part.n for part in parts) >= 2:
                weeks.append(tuple(parts))
        if len(weeks) >= LEAST_WEEKS:
            found[name] = tuple(weeks)
    return found


def _attributed(found: Iterable[Found]) -> tuple[Found, ...]:
    """All-traffic findings only where no single slice has them, so that a finding names its slice."""
    every = list(found)
    named = {(one.kind, one.name) for one in every if one.slice != ALL}
    members = [set(one.ids) for one in every if one.kind == "clusters" and one.slice != ALL]
    kept = [
        one
        for one in every
        if one.slice != ALL
        or not ((one.kind, one.name) in named or (one.kind == "clusters" and any(ids & set(one.ids) for ids in members)))
    ]
    return tuple(sorted(kept, key=lambda one: (one.kind, one.p_value, -one.k, one.name)))


def _plain(one: Found) -> dict[str, Any]:
    return {name: getattr(one, name) for name in Found.__slots__}
