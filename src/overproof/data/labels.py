"""Rows with a label, in three sets that can not be mixed up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from overproof.data.traffic import Request
from overproof.outputs import Fields, Text


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """A verifier's word on one answer."""

    keep: bool
    reason: str = ""
    """Why not; empty where kept."""
    score: float | None = None
    """In [0, 1] where the verifier has one, for example the agreement of samples."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """A request and the label to learn or to compare with."""

    request: Request
    target: str
    """The teacher's label."""
    weight: float = 1.0
    agreement: float = 1.0
    """Share of the teacher's samples that gave `target`, in (0, 1]."""
    samples: int = 1
    gold: str | None = None
    near_train: float | None = None
    """See `PromptRow.near_train`."""
    boost: tuple[str, ...] = ()
    """See `PromptRow.boost`."""
    latency_s: float | None = None
    """The teacher's own latency on this request."""
    cost_usd: float | None = None
    """The teacher's own cost for one answer to this request."""
    label_from: str = "teacher"
    """Who the label that stands over the teacher's comes from: "teacher" where there is none, "review-audit" (a row that
    chance has chosen), "review-fix" (one picked), "mended" (training rows only: learned from reviewed rows), or "feedback"
    (training rows only: posted by a caller)."""
    gold_from: str = "log"
    """Where `gold` is from: "log", "review-audit", "review-fix" or "feedback"; the last two train and prove nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dropped:
    """A row that will not be learned from, with the reason and who dropped it."""

    request: Request
    split: str
    by: str
    """The verifier or step, for example "label_set.v1"."""
    reason: str
    text: str
    """The answer that was rejected, at most 500 characters."""
    target: str = ""
    """The label that the row would have had; empty where no answer was one."""
    gold: str | None = None
    """The true answer, where known: it shows whether the rule that dropped the row was right."""
    weight: float = 1.0
    """Of the row, see `PromptRow.weight`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainSet:
    """What students are fitted on, and nothing else."""

    examples: tuple[Example, ...]
    labels: tuple[str, ...]
    """The task's labels, in its order; empty where the answers are records or texts."""
    output: Fields | Text | None = None
    """What the answers are where they are no labels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationSet:
    """Development rows: temperature, choice between students, plan of the thresholds."""

    examples: tuple[Example, ...]
    labels: tuple[str, ...]
    output: Fields | Text | None = None
    """See `TrainSet.output`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TestSet:
    """Sealed rows: read for certificates and verdicts only, each use counted."""

    __test__ = False  # not a test case, whatever pytest thinks of the name

    examples: tuple[Example, ...]
    labels: tuple[str, ...]
    output: Fields | Text | None = None
    """See `TrainSet.output`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Labelled:
    """The filter's result: three sets that can't be mixed up, and what was left out."""

    train: TrainSet
    calibration: CalibrationSet
    test: TestSet
    dropped: tuple[Dropped, ...]
    counts: Mapping[str, int]
    """"SPLIT: REASON" to rows, kept ones included."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """What a candidate answers to one request."""

    value: str
    confidence: float
    """In [0, 1]."""
    calibrated: bool = False
    """True where the confidence went through a map fitted on calibration rows."""
