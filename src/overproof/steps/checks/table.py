"""What every check of the gate shares: the recipe, a row of the table, and how a finding is said."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from overproof.errors import DataError
from overproof.evidence import CandidateReport, Figure, Finding, Outcome, SliceReport
from overproof.evidence.probe_bars import Asked
from overproof.evidence.waivers import Waiver
from overproof.steps.collect import DataEvidence, Evidence
from overproof.steps.disparities import DisparityBars
from overproof.steps.headlines import said
from overproof.task import Bar

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class WatchPlan:
    """[watch] as far as the gate asks about it; the defaults are those of the project file."""

    redistil_on: tuple[str, ...] = ("drift",)
    """Occasions of [watch.on] that start a re-distillation."""
    drift: tuple[str, ...] = ("far_share", "ngram_far_share", "shares", "escalation", "confidence", "vocabulary", "clusters", "mmd_sketch")
    """What is watched without labels."""
    canaries: bool = True
    """Whether the teacher is asked canary prompts while the release serves."""
    audit_rate: float = 0.01
    floor_per_day: int = 25
    critical_boost: float = 3.0
    audits_per_day: int = 500
    usd_per_month: float = 10.0
    false_alarms: float = 0.05
    ask: str = "teacher"
    """"teacher", "person" or "both"."""
    person_share: float = 0.1
    deadline_days: int = 7
    overall_bar: float = 0.04
    """Share of the student's answers over all traffic that may be wrong."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnCheck:
    """One entry of [gate] checks."""

    use: str
    """Registered name, or "module:function"."""
    source_digest: str = ""
    """SHA-256 of the module's file: another text is another check."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GateRecipe:
    """Bars and people that the checks hold the evidence against."""

    task: str
    """The task's name."""
    owner: str
    """The person who answers for the student; never a team alias."""
    deputy: str
    """Who answers when the owner is away; another person."""
    review_every_days: int
    """Days until the release has to be looked at again."""
    today: str
    """ISO date of the decision."""
    student_kind: str = "classifier"
    """What is built, in the words of the terms record."""
    distribution: str = "internal"
    """Where it will run, in the words of the terms record."""
    teacher_right_at_least: float = 0.9
    """Least share of the teacher's labels that must be right against gold."""
    distance_at_most: float = 0.1
    """Largest total variation distance between live traffic and prompt set, in [0, 1]."""
    familiar_at_most: float = 0.2
    """Largest share of sealed rows that say in the same words what a training row says."""
    uses_at_most: int = 3
    """How often one set of sealed rows may be opened."""
    gap_at_most: float | None = None
    """Tolerance between declared groups; None: gaps are reported, no check asks for them."""
    swaps: bool = False
    """Whether swapped terms must change few answers."""
    disparity: DisparityBars = field(default_factory=DisparityBars)
    """On ratios between groups, and on gaps beyond the teacher's; None each: reported, no check asks for it."""
    written: bool = False
    """Whether the owner set bars within written answers: on fields, or on similarity."""
    judged: Bar | None = None
    """The owner's bar on what a judge of texts says."""
    sizing: bool = False
    """Whether further fits compared the sizes."""
    cases: bool = False
    """Whether there are rare or critical cases and sizes to compare on them."""
    probes: tuple[str, ...] = ()
    """Ids of the probe checks that are asked for; see `steps.probe_checks`."""
    probe_bars: Mapping[str, Asked] = field(default_factory=dict)
    """The owner's bars on perturbations; none is read as looser than its default."""
    watched: tuple[str, ...] = ()
    """Ids of the probe checks that are shown and not asked for."""
    challenged: bool = False
    """Whether a serving release has to be held up to."""
    ece_at_most: float | None = None
    """Advisory: a calibration error above it is said, and never refuses."""

    stage: str = "shadow"
    """The stage that a release would enter first: "shadow", "canary" or "full"."""
    redacted: bool = True
    """Whether personal data is redacted before anything is kept or learned."""
    weaknesses: bool = False
    """Whether reviews found enough mistakes of the teacher to be a regression suite."""
    weaknesses_right: float = 0.5
    """Least share of those rows on which the student must say what is true."""
    watch: WatchPlan | None = field(default_factory=WatchPlan)
    """How the release would be watched; None where nobody says."""
    breaks_from: float = 0.15
    """Share of wrong answers that the audits must see before the next review."""
    own: tuple[OwnCheck, ...] = ()
    """Checks of the owner's, beside those of the table."""
    waivers: tuple[Waiver, ...] = ()
    """Waivers of this plan that are in force on the day of the run."""
    ran_out: tuple[Waiver, ...] = ()
    """Waivers of this plan whose day has passed."""


def _always(recipe: GateRecipe) -> bool:
    del recipe
    return True


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One row of the gate's table."""

    id: str
    """For example "G08"."""
    title: str
    """What is asked, as a statement that should hold."""
    check: Callable[[Evidence, GateRecipe], Iterator[Finding]]
    """Yields at least one finding."""
    reads: tuple[str, ...]
    """Names in `Evidence.digests` of what the check rests on."""
    waivable: bool = False
    """False for what no reason excuses."""
    when: Callable[[GateRecipe], bool] = _always
    """Whether the check is asked of this kind, distribution and stage, and of what the project declares."""


def finding(
    outcome: Outcome,
    reason: str,
    next_action: str = "",
    *,
    figure: Figure | None = None,
    where: SliceReport | None = None,
) -> Finding:
    """
    What a check says; the gate puts the check's own id, title and evidence on it.

    Args:
        outcome: "pass", "fail" or "not-run".
        reason: one sentence with the figures.
        next_action: what would change an unwelcome outcome.
        figure: that decided.
        where: slice that it is of; nothing about a critical slice can be waived.

    Returns: the finding.
    """
    return Finding(
        id="",
        title="",
        outcome=outcome,
        slice=where.slice if where is not None else None,
        value=figure.value if figure is not None else None,
        # the bound that decided: what is missed for certain lies under its upper end, everything else is held by the lower
        bound=None if figure is None else figure.high if figure.verdict == "fail" else figure.low,
        bar=figure.bar if figure is not None else None,
        n=figure.n if figure is not None else None,
        reason=reason,
        next_action=next_action,
        waivable=not (where is not None and where.critical),
    )


def need(value: T | None, what: str) -> T:
    """
    What a check can't do without.

    Args:
        value: of the evidence.
        what: in words.

    Returns: the value.
    Raises: DataError where it is missing, which makes the check "not-run".
    """
    if value is None:
        raise DataError(f"there is no {what}", next_action="run `overproof run`, which makes it")
    return value


def chosen_of(evidence: Evidence) -> CandidateReport:
    """The chosen candidate's report; DataError without a report."""
    report = need(evidence.report, "evaluation report")
    return next(c for c in report.candidates if c.name == report.chosen)


def data_of(evidence: Evidence) -> DataEvidence:
    """Rows, teacher and terms; DataError where there are none."""
    return need(evidence.data, "summary of rows, teacher and terms")


def judged(where: SliceReport, figure: Figure, subject: str) -> Finding:
    """
    A figure against its bar.

    Args:
        where: slice that the figure is of.
        figure: with its bar.
        subject: what it says, in words before the figure.

    Returns: the finding, with what would change an unwelcome one.
    """
    name = "all traffic" if where.slice == "all" else f"slice {where.slice!r}"
    bar = "no bar" if figure.bar is None else f"the bar is {figure.bar:.1%}"
    rows = "more requests" if where.slice == "all" else f"more {where.slice!r} requests"
    if figure.verdict == "pass":
        return finding("pass", f"{name}: {subject} {said(figure)}, {bar}", figure=figure, where=where)
    if figure.verdict == "fail":
        reason = f"{name}: {subject} {said(figure)}: all of the interval lies below the bar of {figure.bar:.1%}"
        todo = f"look at the disagreements on {name}, teach {rows} of that kind, or lower the bar with a reason"
        return finding("fail", reason, todo, figure=figure, where=where)
    reason = f"{name}: {subject} {said(figure)}, {bar}: not enough data to tell"
    count = f"about {figure.rows_needed:,} " if figure.rows_needed else ""
    todo = f"collect {count}{rows}, or lower the bar with a reason"
    return finding("not-run", reason, todo, figure=figure, where=where)
