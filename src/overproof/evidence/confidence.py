"""How confidence is read, and how far it can be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from overproof.evidence.figures import Figure

CalibratorMethod = Literal["temperature", "platt", "isotonic", "venn-abers", "head"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibrator:
    """A fitted reading of confidence: plain numbers, so that it can be stored and served."""

    method: CalibratorMethod
    """How it reads."""
    temperature: float = 1.0
    """For "temperature"; 1 elsewhere."""
    inputs: tuple[str, ...] = ()
    """Names of the columns that are weighted: "log_odds" for Platt, the features for the head."""
    mean: tuple[float, ...] = ()
    """Subtracted from each input."""
    scale: tuple[float, ...] = ()
    """Divides each input, > 0."""
    weight: tuple[float, ...] = ()
    """Weight of each standardised input, then the constant."""
    stated: tuple[float, ...] = ()
    """For isotonic and Venn–Abers: rising raw confidences."""
    observed: tuple[float, ...] = ()
    """For isotonic the accuracy at each of them, never falling; for Venn–Abers the chance below the first, at it, between it
    and the second, and so on."""
    n: int = 0
    """Rows that it was fitted on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SliceCalibrator:
    """The reading of one certification slice that was better off with its own."""

    slice: str
    calibrator: Calibrator


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldCalibrator:
    """The reading of one field of a record; nothing is routed by it."""

    field: str
    calibrator: Calibrator
    """Of kind "platt", on the generator's own log-odds of the field."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScopeRule:
    """What sends a request to the teacher as foreign to the task, before its confidence is looked at."""

    score: str
    """Which score; see `measure.scope.FREE`. The higher, the more foreign."""
    threshold: float
    """A request above it is foreign."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Confidence:
    """All that serving needs to read a student's scores: fixed with the plan, carried by the bundle."""

    everywhere: Calibrator
    own: tuple[SliceCalibrator, ...] = ()
    """Certification slices that are read by their own calibrator."""
    scope: tuple[ScopeRule, ...] = ()
    """One of them is enough to make a request foreign; empty: nothing is routed so."""
    fields: tuple[FieldCalibrator, ...] = ()
    """For records: each field that the generator scores, in the task's order."""
    mixed: tuple[ScopeRule, ...] = ()
    """One of them is enough to send a request to the teacher as put together of several; empty: nothing is routed so."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationGap:
    """Adaptive calibration error with its uncertainty; for display, no bar rests on it."""

    value: float
    """A fraction in [0, 1]."""
    low: float
    high: float
    level: float
    """Confidence of the band, for example 0.95."""
    method: str
    """For example "bootstrap, 200 draws"."""
    n: int
    noise: float
    """What a perfectly calibrated student with these confidences shows on so many rows, on average."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reliability:
    """How far stated confidence is from what was seen, on one set of rows."""

    slice: str
    """"all", a certification slice, or a field of a record."""
    brier: float
    """Mean squared distance of the confidence from "the answer was the label", in [0, 1]."""
    log_loss: float
    """Mean surprise at "the answer was the label", in nats."""
    ece: CalibrationGap
    own: bool = False
    """Read by the slice's own calibrator."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodLoss:
    """How one calibrator did on rows that it was not fitted on."""

    method: CalibratorMethod
    """Its name."""
    log_loss: float
    """Mean surprise, in nats, at whether the top answer was right."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScopeFigure:
    """How well one score tells foreign requests from the task's own, on calibration rows."""

    name: str
    auroc: float
    """Chance that a foreign row scores above one of the task's own; .5 says nothing."""
    low: float
    high: float
    level: float
    """Confidence with which all intervals of the table hold at once."""
    method: str
    fpr: float
    """Share of the foreign rows that still pass where 95 % of the task's own pass."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScopeReport:
    """Which out-of-scope scores were chosen, from what, and what they send to the teacher."""

    reason: str
    """Why these, in words."""
    table: tuple[ScopeFigure, ...]
    """Every score that was compared, the best first; empty where there was nothing to compare on."""
    inside: int
    """Calibration rows of the task's own."""
    outside: int
    """Calibration rows that are known to be out of scope."""
    routed: Figure
    """Share of the calibration rows that the rules send to the teacher."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """How a candidate's confidence is read, fitted on calibration rows against the teacher's labels."""

    name: str
    confidence: Confidence
    """The fitted reading."""
    reason: str
    """Why this calibrator, in words."""
    losses: tuple[MethodLoss, ...]
    """Held-out log-loss of each calibrator that was compared, the best first; empty where none was."""
    before: Reliability
    """On the calibration rows, as the scores came."""
    after: Reliability
    """The same rows, as calibrated."""
    slices: tuple[Reliability, ...]
    """As calibrated, by certification slice, "other" last; empty for one slice alone, and for baselines."""
    scope: ScopeReport | None
    """None for candidates that are never served, and where the route is turned off."""
    n: int
    fidelity: Figure
    """Agreement with the teacher on the calibration rows: what the choice between candidates rests on."""
    accuracy: Figure | None
    """Against gold on the calibration rows, where there is gold."""
    mixed: Figure | None = None
    """Share of the calibration rows that are routed as put together; None where no rule does that."""

    @property
    def temperature(self) -> float:
        """The common temperature; 1 where another calibrator was chosen."""
        return self.confidence.everywhere.temperature

    @property
    def ece_before(self) -> float:
        """Adaptive calibration error as the scores came."""
        return self.before.ece.value

    @property
    def ece_after(self) -> float:
        """Adaptive calibration error as calibrated."""
        return self.after.ece.value
