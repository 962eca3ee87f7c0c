"""Candidates side by side, findings, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from overproof.data import Folder
from overproof.evidence.certificates import Certificate, Comparison, Outlook
from overproof.evidence.confidence import Calibration, Reliability
from overproof.evidence.figures import CandidateKind, CurvePoint, Figure, Outcome, Verdict
from overproof.evidence.records import WrittenReport
from overproof.evidence.waivers import Waiver


@dataclass(frozen=True, kw_only=True, slots=True)
class TwoByTwo:
    """Teacher right or wrong against student agreeing or not; counts over rows with gold."""

    right_agree: int
    right_differ: int
    wrong_agree: int
    """The student inherited the teacher's error."""
    wrong_differ: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SliceReport:
    """One candidate on one slice of the sealed rows."""

    slice: str
    kind: Literal["all", "attribute", "label", "novelty"]
    critical: bool
    n: int
    fidelity: Figure
    accuracy: Figure | None
    teacher_accuracy: Figure | None
    served_fidelity: Figure | None
    """Student where it may answer, teacher elsewhere; judged on rows that did not choose the thresholds."""
    served_accuracy: Figure | None
    kept: Figure | None
    """Share that the student answers."""
    two_by_two: TwoByTwo | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Disagreement:
    """One sealed-free row (calibration) on which student and teacher differ."""

    request_id: str
    text: str
    teacher: str
    student: str
    confidence: float
    gold: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class CandidateReport:
    """Everything about one candidate."""

    name: str
    kind: CandidateKind
    size_bytes: int
    parameters: int
    latency_s: float
    latency_p95_s: float
    cost_usd_per_1000: float
    calibration: Calibration | None
    ece_test: float | None
    reliability_before: tuple[CurvePoint, ...]
    reliability_after: tuple[CurvePoint, ...]
    slices: tuple[SliceReport, ...]
    """The first is "all"."""
    clears_bars: Verdict
    margin: float | None
    """Least distance of a bound from its bar over all bars; negative where one is missed."""
    latency_n: int = 0
    """Requests that the latency was measured on."""
    cost_n: int = 0
    """Requests that the cost was measured on."""
    reliability: tuple[Reliability, ...] = ()
    """Of the chosen one on sealed rows, as calibrated: "all", then certification slices; empty for the others."""
    out_of_scope: Figure | None = None
    """Share of the sealed rows that the chosen one's out-of-scope rules send to the teacher; None where there are none."""
    role: str = ""
    """See `Scores.role`."""
    mixed: Figure | None = None
    """Share of the sealed rows that the chosen one sends to the teacher as put together; None where no rule does that."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalReport:
    """All candidates on the same sealed rows; the chosen one with its certificate."""

    candidates: tuple[CandidateReport, ...]
    chosen: str
    reason: str
    certificate: Certificate
    n_test: int
    n_gold: int
    weak_labels: tuple[SliceReport, ...]
    """Labels on which the teacher itself is wrong more than half the time, worst first."""
    disagreements: tuple[Disagreement, ...]
    """Worst first, from calibration rows: sealed rows are never shown."""
    cheaper: str | None
    """The do-nothing baseline that clears the bars at lower or equal cost, if there is one."""
    other: Certificate | None = None
    """The certificate of the other label kind: correctness beside fidelity, or the reverse; nothing ships under it."""
    truth_note: str = ""
    """Why there is no certificate of correctness, and what it would take; else empty."""
    noninferiority: Comparison | None = None
    """The system as served against the teacher, against gold; None without gold or without a margin."""
    superiority: Comparison | None = None
    """The chosen student alone against the best do-nothing baseline; None without a baseline."""
    margin_from: str = ""
    """Where the margin of `noninferiority` comes from, in words."""
    outlook: Outlook | None = None
    """What more rows would bring, and what the next use of these rows costs."""
    decided: str = ""
    """ISO date of the look that this report rests on."""
    written: WrittenReport | None = None
    """For records and texts: figures within the answers; None for labels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One gate check's outcome."""

    id: str
    """For example "G08"."""
    title: str
    outcome: Outcome
    slice: str | None
    value: float | None
    bound: float | None
    bar: float | None
    n: int | None
    reason: str
    next_action: str
    evidence: Mapping[str, str] = field(default_factory=dict)
    """Name to digest."""
    waivable: bool = True
    waiver: Waiver | None = None
    """Under which it is "waived"."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """Nothing ships: the findings, failing ones first."""

    task: str
    findings: tuple[Finding, ...]
    headline: str
    """One sentence for a person in a hurry."""
    watched: tuple[Finding, ...] = ()
    """Found by probes that nobody asked for; they refuse nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """The bundle that may serve. Only `steps.gate` makes one."""

    id: str
    task: str
    findings: tuple[Finding, ...]
    headline: str
    candidate: str
    bundle: Folder
    certificate: Certificate
    owner: str
    review_due: str
    """ISO date."""
    watched: tuple[Finding, ...] = ()
    """See `Refusal.watched`."""
