"""What is fixed before unsealing, and the statements that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from overproof.evidence.confidence import Confidence
from overproof.evidence.figures import Figure, Verdict
from overproof.evidence.sizing import Expected

Moved = Literal["alone", "all", "cost"]
"""How thresholds of slices move: each by itself, all or none, or in the order of money saved per error."""
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
    moved: Moved = "alone"
    """How thresholds were planned to move; "all" and "cost" follow one path: entry j of every slice's grid together."""
    left_out: tuple[str, ...] = ()
    """Slices without a calibration row that an "all" or "cost" path leaves with the teacher."""
    looks: int = 1
    """Planned looks at the sealed rows, which share the error budget of one use."""
    novelty_below: float | None = None
    """Rows with less similarity to the nearest training row are the least familiar slice; None: not judged."""
    expected: tuple[Expected, ...] = ()
    """What each student was expected to do as served, smallest first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LookCounts:
    """What one earlier look at a slice saw: all rows so far."""

    n: int
    """Rows of the slice so far."""
    counts: tuple[tuple[int, int], ...]
    """(wrong, kept) at each grid point; zeros where the look was taken and its counts were never stored."""


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
    earlier: tuple[LookCounts, ...] = ()
    """What the looks before this one saw, oldest first; empty where there was none."""
    passed_at: int = 1
    """The look, from 1, at which the threshold passed; `wrong`, `kept` and `upper` are of that look."""


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
    moved: Moved = "alone"
    """How the thresholds moved; "all": every slice or none at the undivided `delta_spent`."""
    left_out: tuple[str, ...] = ()
    """Slices that the plan left with the teacher for want of a calibration row."""
    look: int = 1
    """Which planned look this is, from 1."""
    looks: int = 1
    """Looks planned; all of them together spend `delta_spent`."""

    def kept_bar(self, part: SliceCertificate) -> float:
        """The most of a slice's kept answers that may be wrong; a budget is a share of all requests, this one of the kept."""
        kept = part.keep_share.value if self.supports == "G2" else 1.0
        return min(0.5, part.alpha / kept) if kept else part.alpha


@dataclass(frozen=True, kw_only=True, slots=True)
class MoreRows:
    """What would probably be kept with so many times the sealed rows; a plan, never a promise."""

    times: int
    """How many times the present rows."""
    rows: int
    """Sealed rows that choose thresholds, all slices together."""
    keep: float
    """Expected share of the requests that the student answers, in [0, 1]."""
    chance: float
    """Chance that any threshold at all is certified."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MoneySaved:
    """Money saved as served, with the interval of the kept share."""

    value_usd: float | None
    """Best estimate; None where no row was judged. Negative is a loss."""
    low_usd: float
    """At the lower end of the kept share."""
    high_usd: float
    """At the upper end of the kept share."""
    requests: int
    """Requests that the money is for."""
    monthly: bool
    """True where these are the requests of a month; else 1,000, since the volume is not known."""
    n: int
    """Rows that the kept share rests on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NextUse:
    """What one slice would have to show at the next use of the same sealed rows."""

    slice: str
    use_k: int
    """The next use, from 2."""
    rows: int
    """Fewest rows, without an error among them, that could pass then: kept ones, or all under a budget."""
    now: int
    """The same for this use."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outlook:
    """What more rows, or another use of the same rows, would bring to the chosen student."""

    more: tuple[MoreRows, ...] = ()
    """From calibration rows; the first is for as many rows as there are."""
    saved: MoneySaved | None = None
    """None where the teacher's price is not known."""
    next_use: tuple[NextUse, ...] = ()
    """One for each certification slice."""
    n: int = 0
    """Calibration rows that `more` rests on."""


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
