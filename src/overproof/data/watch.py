"""What is seen of a release while it serves: audits, readings, alarms, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

AuditSource = Literal["teacher", "person"]
"""Who says what would have been right."""
AuditState = Literal["due", "labelled", "overdue", "barred"]
""""due": drawn, no word yet; "overdue": none came in time, which counts as right and is shown; "barred": the answer can't be
judged (refused, cut, off the form), which counts as overdue."""
Signal = Literal[
    "disagreement", "error", "far_share", "ngram_far_share", "slice_share", "label_share", "escalation", "confidence", "vocabulary",
    "clusters", "mmd_sketch", "canaries", "teacher_agreement", "teacher_identity", "blind",
]  # fmt: skip
""""disagreement" is with the teacher, "error" with people; the others need no label. "canaries", "teacher_agreement" and
"teacher_identity" are of the teacher: canary prompts against its usual answers, its answers against the labels that it gave,
and the names that it answers under. "blind" is about the watch itself, its slice the part that failed."""
Occasion = Literal["drift", "bar", "teacher_changed", "teacher_ends", "review_overdue", "attestation_expired", "starved"]
"""Why something has to happen."""
Act = Literal["alarm", "hold", "roll-back", "re-distil"]
"""What may follow: say so; keep the rollout where it is; give the slice, or all, back to the teacher; distil again."""
OCCASIONS: tuple[Occasion, ...] = get_args(Occasion)
ACTS: tuple[Act, ...] = get_args(Act)


@dataclass(frozen=True, kw_only=True, slots=True)
class SliceDraw:
    """How the requests of one slice are drawn on one day."""

    kept_per_day: float
    """Kept requests of a usual day, from days that are over."""
    boost: float = 1.0
    """Factor on the slice's rate, at least 1: after a page, and for critical slices."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditPlan:
    """How a release's kept requests are drawn on one day; written down before the first of them is drawn."""

    release_id: str
    day: str
    """ISO date in UTC."""
    slices: Mapping[str, SliceDraw]
    rate: float
    """With the next four the fields of `measure.monitor.AuditDesign`."""
    pi_min: float
    floor_per_day: int
    low_below: float
    low_share: float
    person_share: float = 0.0
    """Share of audited requests that a person judges; 1 where people alone are asked."""
    ask: Literal["teacher", "person", "both"] = "teacher"
    """Who is asked about what is drawn."""
    note: str = ""
    """What the reader should know of the plan: rates that were lowered, a budget that is used up. Without `slices` nothing is drawn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """One request that was drawn."""

    release_id: str
    request_id: str
    day: str
    """ISO date in UTC of the request."""
    slice: str
    source: AuditSource
    pi: float
    """The chance with which it was drawn, for this source."""
    said: str
    """The student's answer, as served."""
    confidence: float
    state: AuditState = "due"
    truth: str | None = None
    wrong: bool | None = None
    """None until labelled."""
    reason: str = ""
    """Why it is barred or overdue."""
    cost_usd: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ExampleShown:
    """A message that shows what is meant."""

    request_id: str
    text: str
    """Redacted, cut to 300 characters."""
    said: str | None = None
    """The student's answer."""
    truth: str | None = None
    """What the teacher or a person says."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """One signal in one slice, as it stands: a figure with its interval, how it was made and from how many rows."""

    release_id: str
    slice: str
    """`ALL` for all traffic."""
    signal: Signal
    day: str
    """The last settled day in it."""
    value: float | None
    """None where nothing can be said."""
    low: float | None
    high: float | None
    reference: float | None
    """The bar, or the value in the reference."""
    n: int
    method: str
    log_e: float | None = None
    """Log evidence against "within its bar"; an alarm compares it with `level`."""
    level: float | None = None
    state: Literal["quiet", "alarm", "starved", "not enough"] = "quiet"
    """"not enough" is never good news."""
    part: str = ""
    """Which share, where a signal has several: the label."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Alarm:
    """A reading that reached its level."""

    id: str
    """Made from release, slice, signal and the day since which."""
    task: str
    release_id: str
    slice: str
    signal: Signal
    at: str
    """Day of the reading that reached it, ISO date."""
    since: str
    """Day from which on the evidence grew."""
    kind: Literal["life", "page"]
    """"life": false at most so often in a release's life, and may roll back; "page": false at most so often a year."""
    value: float
    low: float | None
    high: float | None
    reference: float
    n: int
    words: str
    """One sentence: slice, size, since when, how sure."""
    examples: tuple[ExampleShown, ...] = ()
    part: str = ""
    """As in `Reading`; for "vocabulary" the surest word."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trigger:
    """Why something has to happen, what may, and what became of it."""

    id: str
    task: str
    occasion: Occasion
    act: Act
    """As the owner chose for the occasion."""
    at: str
    """ISO 8601 in UTC."""
    why: str
    release_id: str = ""
    slices: tuple[str, ...] = ()
    alarms: tuple[str, ...] = ()
    state: Literal["open", "done", "dismissed"] = "open"
    outcome: str = ""
    """What was done, or who dismissed it and why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hold:
    """A rollout that may not go on."""

    task: str
    since: float
    """Seconds since 1970."""
    by: str
    why: str
    trigger: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class WatchReport:
    """What one pass of the watch found."""

    task: str
    release_id: str | None
    """None where nothing serves; then only teacher, owner and terms are looked at."""
    at: str
    """ISO 8601 in UTC."""
    readings: tuple[Reading, ...] = ()
    alarms: tuple[Alarm, ...] = ()
    """Open ones."""
    triggers: tuple[Trigger, ...] = ()
    """Open ones, and those that this pass dealt with."""
    audits_drawn: int = 0
    audits_labelled: int = 0
    audits_due: int = 0
    spent_usd: float = 0.0
    """By audits and canary prompts of this month."""
    notes: tuple[str, ...] = ()
    """What the reader should know: an overspent cap, a countdown, days that wait."""
    examples: Mapping[str, tuple[ExampleShown, ...]] = field(default_factory=dict)
    """What is new, by cluster or word."""
    blind: tuple[str, ...] = ()
    """Parts that failed; there is an alarm for each."""
    audit_more: tuple[str, ...] = ()
    """Slices whose mean confidence fell: the next day's plan audits them more."""
    retained_on: str = ""
    """Day on which the retention policy was applied last; empty where there is none, or never."""
    retained: Mapping[str, int] = field(default_factory=dict)
    """What was over on that day: kind to rows."""
