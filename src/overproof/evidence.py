"""What a verdict stands on: fitted candidates, figures with intervals, certificates, findings, release or refusal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from overproof.data import Folder

Verdict = Literal["pass", "fail", "undecided"]
Outcome = Literal["pass", "fail", "waived", "not-run"]
CandidateKind = Literal["student", "baseline", "teacher"]
CalibratorMethod = Literal["temperature", "platt", "isotonic", "head"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A measured fraction with all that makes it trustworthy, and the bar that it is judged by."""

    metric: str
    """"accuracy", "fidelity", "kept", "kept_error", …"""
    value: float | None
    """Fraction in [0, 1]; None where n = 0."""
    low: float
    high: float
    """Two-sided interval at `level`; [0, 1] where n = 0."""
    level: float
    """Confidence of the interval, for example 0.95."""
    method: str
    """For example "clopper-pearson"."""
    n: int
    good: int
    """How many of the n count for the metric."""
    bar: float | None = None
    """The least value admitted, where there is a bar."""
    verdict: Verdict | None = None
    """None where there is no bar. Undecided is never a pass."""
    rows_needed: int | None = None
    """Where undecided: about how many more rows of this slice would decide it."""
    delta: float | None = None
    """Chance of a false pass that the verdict's one-sided test admits; None where there is no verdict."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """A fitted candidate: its files and its size."""

    name: str
    """Shown name, unique in the run, for example "encoder.v1"."""
    use: str
    """Part name that loads the folder again."""
    kind: CandidateKind
    folder: Folder
    """Everything that answering needs; no pickle."""
    size_bytes: int
    parameters: int
    """Learned numbers, frozen ones included."""
    rows: int
    """Training rows that were used."""
    seed: int
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """A candidate's answers to a list of requests, in the order of the set that they were made for."""

    name: str
    kind: CandidateKind
    folder: Folder
    """`logits.npy`, float32, shape (n, k), log-probabilities up to a constant per row, columns in label order."""
    n: int
    latency_s: float
    """Median seconds for one request answered alone on one thread."""
    latency_p95_s: float
    cost_usd_per_1000: float
    size_bytes: int
    parameters: int
    latency_n: int = 0
    """Answers that the latencies rest on; 0: nobody measured them, and they are 0.0 for want of a figure."""
    cost_n: int = 0
    """Answers that the cost rests on; 0: not known, and 0.0 for want of a figure."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CurvePoint:
    """One bin of a reliability curve."""

    confidence: float
    accuracy: float
    n: int


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
    """For isotonic: rising raw confidences."""
    observed: tuple[float, ...] = ()
    """For isotonic: the accuracy at each of them, never falling."""
    n: int = 0
    """Rows that it was fitted on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SliceCalibrator:
    """The reading of one certification slice that was better off with its own."""

    slice: str
    calibrator: Calibrator


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
    """"all", or a certification slice."""
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


@dataclass(frozen=True, kw_only=True, slots=True)
class SlicePlan:
    """What is fixed for one certification slice before any sealed label is read."""

    slice: str
    alpha: float
    """Largest share of wrong answers among those that the student keeps."""
    weight: float
    """Share of delta; all weights sum to 1."""
    grid: tuple[float, ...]
    """Thresholds, strict to loose; the last one (-1.0) keeps everything. Confidence lies in [0, 1]."""
    start: int
    """Where the walk starts."""
    dev_n: int
    dev_keep: float
    """Share kept at the start on the calibration rows."""
    dev_error: float
    """Error among kept at the start on the calibration rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Everything that is fixed before unsealing; its digest goes into the ledger."""

    chosen: str
    """The candidate that may be released."""
    reason: str
    """Why this one, in one sentence."""
    label_kind: str
    """"gold" or "teacher:<model>"."""
    delta: float
    slices: tuple[SlicePlan, ...]
    certify_share: float
    """Share of sealed rows that choose the thresholds; the others judge the bars."""
    salt: str
    """Seed of the split into certify and judge rows."""
    confidence: Confidence
    """How the chosen candidate is read, out-of-scope rules included."""
    digests: Mapping[str, str]
    """Names to digests of what is fixed: weights, calibration, prompt, decoding, bars, slices."""
    guarantee: Literal["kept", "budget"] = "kept"
    """"kept": wrong among kept, per slice; "budget": kept and wrong among all requests."""
    other_label: str = ""
    """Label kind of the second certificate; empty where there can be none."""
    other_slices: tuple[SlicePlan, ...] = ()
    """Its grids and starts; the grids are those of `slices`."""
    truth_note: str = ""
    """Why no certificate of correctness is planned, and how many true labels it would take; else empty."""
    margin: float | None = None
    """How much more often than the teacher the served system may be wrong; 0 where nothing is left to protect."""
    margin_from: str = ""
    """Where the margin comes from, in words."""
    baseline: str = ""
    """The do-nothing baseline that was best on the calibration rows; the student has to beat it."""
    novelty_below: float | None = None
    """Rows with less similarity to the nearest training row are the least familiar slice; None: not judged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SliceCertificate:
    """The outcome for one certification slice."""

    slice: str
    alpha: float
    delta: float
    threshold: float | None
    """The student answers at or above it; None: the slice stays on the teacher."""
    n: int
    kept: int
    wrong: int
    upper: float
    """Upper bound of the share of wrong answers among kept."""
    keep_share: Figure
    verdict: Verdict
    rows_needed: int | None = None
    counts: tuple[tuple[int, int], ...] = ()
    """(wrong, kept) at each grid point: enough to recompute the bound."""
    grid: tuple[float, ...] = ()
    """The plan's thresholds, one for each pair of `counts`."""
    start: int = 0
    """Where the walk over the grid started."""
    weight: float = 1.0
    """The slice's share of `delta_spent`, before what other slices handed on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Certificate:
    """A statement about the kept answers, with its assumptions."""

    plan_hash: str
    sealed_digest: str
    label_kind: str
    use_k: int
    """Which use of these sealed rows this is; later uses get a smaller share of the error budget."""
    delta_spent: float
    slices: tuple[SliceCertificate, ...]
    assumptions: tuple[str, ...]
    window: tuple[str | None, str | None]
    expires: str
    """ISO date."""
    supports: str = ""
    """The guarantee: "G1" (correct among kept), "G4" (agreement among kept), "G2" (kept and wrong among all)."""
    fixed: Mapping[str, str] = field(default_factory=dict)
    """Name to digest of everything that was fixed before unsealing; `plan_hash` covers it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Two answerers on the same judging rows, by an exact paired test fixed before unsealing."""

    against: str
    """Who the served system or the student is compared with."""
    label_kind: str
    """What "wrong" is counted against: "gold" or "teacher:<model>"."""
    b: int
    """Rows on which only ours is wrong."""
    c: int
    """Rows on which only the other is wrong."""
    n: int
    """All rows compared."""
    margin: float
    """How much more often ours may be wrong; 0 for superiority."""
    p: float
    """Chance of evidence at least this good if the claim were false."""
    delta: float
    """Admitted chance of a false pass."""
    verdict: Verdict
    rows_needed: int | None
    """Where undecided: about how many more rows would pass at the seen rates; None where none would."""
    method: str
    """Name of the test."""


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
    """The do-nothing baseline that clears the bars at lower cost, if there is one."""
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """Nothing ships: the findings, failing ones first."""

    task: str
    findings: tuple[Finding, ...]
    headline: str
    """One sentence for a person in a hurry."""


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
