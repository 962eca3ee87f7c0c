"""What is kept of the live traffic of a closed day, slice by slice, so that the log is read once."""

from __future__ import annotations

import base64
import json
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from overproof.data import ALL, Request, TrafficRecord
from overproof.measure.drift import SketchPlan, sketch
from overproof.measure.slices import hash_unit, one_per_session
from overproof.measure.words import told_words
from overproof.progress import track
from overproof.steps.usual import Usual, is_far, placed_by, unseen
from overproof.store.project_store import Store
from overproof.students.bundle import Bundle

LOOKED = 2_000
"""Rows of a day that are put to the student's features; drawn by a hash where there are more."""
KEPT = 300
"""Rows of a day whose vectors are kept for grouping."""
SHOWN = 5
WINDOW = 28
"""Days for which words and vectors are kept."""
REASONS = {"below_threshold": "unsure", "out_of_scope": "out_of_scope", "mixed": "mixed", "slice_not_certified": "uncertified"}
FAILED = ("student_error", "deadline")
"""Reasons of requests that the student gave away without a word; it isn't asked about them again."""
WEEK = "week:"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A row whose vector is kept."""

    id: str
    likeness: str
    """Equal for rows of one conversation or one text."""
    vector: str
    """float16, base64."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DaySlice:
    """A closed day of one slice; one row of each conversation counts. Sums of weights, which are 1 for rows that stand for themselves."""

    rows: int = 0
    weight: float = 0.0
    square: float = 0.0
    """Sum of squared weights."""
    causes: Mapping[str, float] = field(default_factory=dict)
    """Why the student kept or gave away."""
    labels: Mapping[str, float] = field(default_factory=dict)
    confidence: float = 0.0
    confidence_square: float = 0.0
    sure: float = 0.0
    """Weight of the rows that have a confidence."""
    looked: float = 0.0
    looked_square: float = 0.0
    far: float = 0.0
    unseen: float = 0.0
    texts: int = 0
    """Different texts behind the words."""
    words: Mapping[str, int] = field(default_factory=dict)
    word_ids: Mapping[str, Sequence[str]] = field(default_factory=dict)
    shown: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Request ids that show a property, drawn by a hash."""
    sketch: str = ""
    """float32, base64."""
    sketched: int = 0
    samples: Sequence[Sample] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveRow:
    """One request of the day as the student sees it."""

    record: TrafficRecord
    request: Request
    weight: float
    slice: str
    guess: str | None
    cause: str
    confidence: float | None


class Daybook:
    """
    The closed days of a release.

    Args:
        store: the project's store.
        task: name of the task.
        release_id: which release.
        usual: its reference.
        bundle: its student.
    """

    def __init__(self, store: Store, *, task: str, release_id: str, usual: Usual, bundle: Bundle) -> None:
        self._store, self._task, self._release = store, task, release_id
        self._usual, self._bundle = usual, bundle
        self._raw = store.watching.drift_days(release_id)
        self.skipped = 0
        """Rows of new days that could not be compared: cut short, or without the task's fields."""

    @property
    def days(self) -> list[date]:
        """Closed days in the book, without gaps, oldest first."""
        return sorted(date.fromisoformat(day) for name, day in self._raw if name == ALL and not day.startswith(WEEK))

    def catch_up(self, now: datetime) -> int:
        """
        Read the days that have closed since; each is durable when the next begins.

        Args:
            now: in UTC.

        Returns: days that were added.
        """
        known = self.days
        if known:
            begin = known[-1] + timedelta(days=1)
        else:
            first = self._store.traffic.first_asked(self._release)
            if first is None:
                return 0
            begin = first.astimezone(UTC).date()
        closed = (now.astimezone(UTC).date() - begin).days
        if closed <= 0:
            return 0
        rule, plan, grams = self._usual.far_rule(), self._usual.plan(), self._usual.seen_grams()
        for number in track(range(closed), "reading closed days", total=closed):
            day = begin + timedelta(days=number)
            self._read(day, lambda rows: self._summed(rows, rule=rule, plan=plan, grams=grams))
        return closed

    def of(self, name: str, day: date) -> DaySlice:
        """
        One slice on one day.

        Args:
            name: of the slice.
            day: any.

        Returns: its summary; an empty one where nothing came.
        """
        raw = self._raw.get((name, day.isoformat()))
        return DaySlice() if raw is None else _unpacked(raw)

    def week(self, monday: date) -> Any:
        """
        What a week's tests found.

        Args:
            monday: its first day.

        Returns: as `note_week` was given it; None for a week that was not tested.
        """
        raw = self._raw.get((ALL, f"{WEEK}{monday.isoformat()}"))
        return None if raw is None else json.loads(zlib.decompress(raw))

    def note_week(self, monday: date, found: Any) -> None:
        """
        Keep what a week's tests found.

        Args:
            monday: its first day.
            found: what JSON can say.
        """
        self._note(ALL, f"{WEEK}{monday.isoformat()}", zlib.compress(json.dumps(found).encode()))

    def forget(self, before: date) -> None:
        """
        Drop words and vectors of older days; counts, sketches and ids stay.

        Args:
            before: first day that keeps them.
        """
        for name, day in list(self._raw):
            if name == ALL or day.startswith(WEEK) or date.fromisoformat(day) >= before:
                continue
            one = _unpacked(self._raw[name, day])
            if one.words or one.samples:
                self._note(name, day, _packed(replace(one, words={}, word_ids={}, samples=())))

    def _note(self, name: str, day: str, body: bytes) -> None:
        self._store.watching.note_drift(self._release, name, day, body)
        self._raw[name, day] = body

    def _read(self, day: date, summed: Any) -> None:
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        records = self._store.traffic.between(start, start + timedelta(days=1))
        rows = self._seen([one for one in records if one.served is not None and one.served.task == self._task], day)
        for name, one in summed(rows).items():
            self._note(name, day.isoformat(), _packed(one))
        self._note(ALL, day.isoformat(), b"")  # last, so that a day that was cut off is read again

    def _seen(self, records: Sequence[TrafficRecord], day: date) -> list[LiveRow]:
        """One row of each conversation, with the student's view of it."""
        names = self._bundle.card.input
        whole = [r for r in records if r.served is not None and not r.served.truncated and all(name in r.request.fields for name in names)]
        self.skipped += len(records) - len(whole)
        drawn = one_per_session([r.request.session for r in whole], [r.request.id for r in whole], f"drift {day}")
        kept = [one for one, keep in zip(whole, drawn, strict=True) if keep]
        requests = [
            Request(id=r.request.id, fields={name: r.request.fields[name] for name in names}, attributes=r.request.attributes,
                    session=r.request.session) for r in kept
        ]  # fmt: skip
        slices = self._bundle.slices_of(requests)
        asked = [at for at, one in enumerate(kept) if self._must_ask(one)]
        answers = dict(zip(asked, self._bundle.answers([requests[at] for at in asked], today=date.min), strict=True))
        found = []
        for at, (record, request) in enumerate(zip(kept, requests, strict=True)):
            served, answer = record.served, answers.get(at)
            assert served is not None
            view: tuple[str | None, str, float | None]
            if answer is not None:
                view = (answer.guess, answer.cause, answer.confidence)
            elif served.reason in FAILED:
                view = (None, served.reason, None)
            else:
                cause = "confident" if served.kept else REASONS.get(served.reason, "unsure")
                view = (served.guess, cause, served.confidence)
            found.append(
                LiveRow(record=record, request=request, weight=served.weight, slice=slices[at], guess=view[0], cause=view[1], confidence=view[2])
            )
        return found

    def _must_ask(self, record: TrafficRecord) -> bool:
        """Whether the log doesn't hold this release's own word on the row."""
        served = record.served
        assert served is not None
        return served.reason not in FAILED and (
            served.release != self._release or served.confidence is None or served.reason == "expired"
        )

    def _summed(
        self, rows: Sequence[LiveRow], *, rule: Any, plan: SketchPlan | None, grams: NDArray[np.bool_]
    ) -> dict[str, DaySlice]:
        order = sorted(range(len(rows)), key=lambda at: hash_unit(rows[at].record.request.id, "looked"))
        looked = [at for at in order if rows[at].cause not in FAILED][:LOOKED]
        vectors = placed_by(self._bundle, [rows[at].request for at in looked]).rows
        new = np.asarray(unseen([rows[at].request.text for at in looked], grams)) > self._usual.unseen_limit
        away = is_far(vectors, rule)
        labels = frozenset(self._usual.labels)
        found = {}
        for name in dict.fromkeys(row.slice for row in rows):
            mine = [at for at in order if rows[at].slice == name]
            seen = [place for place, at in enumerate(looked) if rows[at].slice == name]
            one = _counted([rows[at] for at in mine], labels)
            weights = np.array([rows[looked[place]].weight for place in seen])
            shown = dict(one.shown)
            for key, flags in (("far", away), ("unseen", new)):
                shown[key] = [rows[looked[place]].request.id for place in seen if flags[place]][:SHOWN]
            part = sketch(vectors[seen], plan) if plan is not None and seen else None
            found[name] = replace(
                one,
                looked=float(weights.sum()), looked_square=float((weights**2).sum()), far=float(weights[away[seen]].sum()),
                unseen=float(weights[new[seen]].sum()), shown=shown, sketched=part.n if part else 0,
                sketch=_text(part.total.astype(np.float32)) if part else "",
                samples=[
                    Sample(id=rows[looked[place]].request.id, likeness=_likeness(rows[looked[place]].request), vector=_text(vectors[place].astype(np.float16)))
                    for place in seen if place < KEPT
                ],
            )  # fmt: skip
        return found


def vector_of(sample: Sample, width: int) -> NDArray[np.float32]:
    """
    A kept row's vector.

    Args:
        sample: the row.
        width: of the release's vectors.

    Returns: shape (width,).
    """
    return np.frombuffer(base64.b64decode(sample.vector), dtype=np.float16).astype(np.float32)[:width]


def sketch_of(one: DaySlice, features: int) -> NDArray[np.float64]:
    """
    A day's sums of random features.

    Args:
        one: the day.
        features: numbers of a sketch.

    Returns: shape (features,); zeros where no row was looked at.
    """
    if not one.sketch:
        return np.zeros(features)
    return np.frombuffer(base64.b64decode(one.sketch), dtype=np.float32).astype(np.float64)


def _counted(rows: Sequence[LiveRow], labels: frozenset[str]) -> DaySlice:
    """What needs no vector; `rows` in the order of their hash."""
    causes, said = Counter[str](), Counter[str]()
    shown: dict[str, list[str]] = {"any": []}
    sure = total = square = 0.0
    for row in rows:
        causes[row.cause] += row.weight  # type: ignore[assignment]  # counters add fractions too
        marks = ["any", *(["away"] if row.cause != "confident" else [])]
        if row.guess in labels:
            said[str(row.guess)] += row.weight  # type: ignore[assignment]
            marks.append(f"label:{row.guess}")
        if row.confidence is not None:
            sure, total = sure + row.weight, total + row.weight * row.confidence
            square += row.weight * row.confidence**2
        for mark in marks:
            if len(shown.setdefault(mark, [])) < SHOWN:
                shown[mark].append(row.request.id)
    words, ids, texts = Counter[str](), dict[str, list[str]](), set[str]()
    for row in rows:
        if row.request.digest in texts:  # the same text again, of a machine or an impatient sender, says nothing new
            continue
        texts.add(row.request.digest)
        for word in told_words(row.request.text):
            words[word] += 1
            if words[word] <= SHOWN:
                ids.setdefault(word, []).append(row.request.id)
    return DaySlice(
        rows=len(rows), weight=sum(row.weight for row in rows), square=sum(row.weight**2 for row in rows), causes=dict(causes),
        labels=dict(said), confidence=total, confidence_square=square, sure=sure, texts=len(texts), words=dict(words), word_ids=ids, shown=shown,
    )  # fmt: skip


def _likeness(request: Request) -> str:
    return request.session or request.digest[:16]


def _text(values: NDArray[Any]) -> str:
    return base64.b64encode(values.tobytes()).decode()


def _packed(one: DaySlice) -> bytes:
    return zlib.compress(json.dumps({"v": 1, **asdict(one)}, ensure_ascii=False).encode("utf-8", "surrogatepass"))


def _unpacked(raw: bytes) -> DaySlice:
    body = json.loads(zlib.decompress(raw).decode("utf-8", "surrogatepass"))
    known = {name: body[name] for name in (f.name for f in fields(DaySlice)) if name in body}
    return DaySlice(**{**known, "samples": [Sample(**sample) for sample in known.get("samples", ())]})
