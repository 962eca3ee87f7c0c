"""Figures of records and texts: what is counted within an answer, beside whether the whole of it is right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from overproof.evidence.confidence import Reliability
from overproof.evidence.figures import Figure, Verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A measured quantity in [0, 1] that no single count can say, with its interval."""

    metric: str
    """"f1", "precision", "recall", "similarity", "rouge_l", "chrf"."""
    value: float | None
    """None where nothing was there to be measured."""
    low: float
    high: float
    """Two-sided interval at `level`; [0, 1] where there is no value."""
    level: float
    """Confidence of the interval, for example 0.95."""
    method: str
    """Name of the interval."""
    n: int
    """Documents; each counts as one independent draw, however many fields it has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldScore:
    """How well one field is found."""

    name: str
    precision: Figure
    """Of the values given: the share that is right. Its n counts values given."""
    recall: Figure
    """Of the values wanted: the share that was given right. Its n counts values wanted."""
    f1: Estimate
    """2 hits / (given + wanted); its n counts documents. None where the field was neither given nor wanted."""
    same: Figure
    """Documents on which both say the same, null and null included."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordScores:
    """Records against the truth, field by field and as a whole."""

    fields: tuple[FieldScore, ...]
    """In the order of the task."""
    precision: Estimate
    recall: Estimate
    f1: Estimate
    """Micro figures: all fields of all documents together."""
    exact: Figure
    """Documents on which every field is right: what thresholds are certified on."""
    n: int
    """Documents."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TextScores:
    """Texts against reference texts."""

    similarity: Estimate
    """Mean of the task's own similarity; an answer that is missing has 0."""
    same: Figure
    """Documents on which the similarity reaches the task's `same_at`: what thresholds are certified on."""
    rouge_l: Estimate
    """Mean ROUGE-L F-measure on words."""
    chrf: Estimate
    """Mean chrF2 against the reference."""
    n: int
    """Documents."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WrittenScores:
    """One voice on the sealed rows that judge the bars."""

    who: Literal["student", "served", "teacher"]
    """The chosen student alone, the system as served (student above its threshold, teacher below), or the teacher."""
    against: Literal["gold", "teacher"]
    """What is held to be right."""
    records: RecordScores | None = None
    """For records."""
    texts: TextScores | None = None
    """For texts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WrittenBar:
    """A bar within answers, judged as served against gold."""

    metric: str
    """"field_f1", "f1 FIELD" or "similarity"."""
    bar: float
    """The least value admitted."""
    estimate: Estimate
    """With the interval that decided, each end at `delta`."""
    verdict: Verdict
    """Undecided is never a pass."""
    delta: float
    """Chance of a false pass."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldConfidence:
    """How far the stated chance of one field is from how often it says what the teacher says, on sealed rows with an answer."""

    raw: Reliability
    """As the generator states it."""
    read: Reliability
    """As calibrated, and as the bundle gives it."""
    fitted_on: int
    """Calibration rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WrittenReport:
    """What whole-answer figures don't say: field by field, or how alike."""

    scores: tuple[WrittenScores, ...]
    """Against gold where there is any, then against the teacher."""
    judged: tuple[WrittenBar, ...]
    """In file order; empty where no such bar is set."""
    strange: int = 0
    """Judging rows left out here: their true answer is none of the task's. Whole-answer figures count them as wrong."""
    fields: tuple[FieldConfidence, ...] = ()
    """Of the student alone; empty for texts, and where the generator scores no field."""
