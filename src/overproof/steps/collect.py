"""Gather what the gate and the dossier read: counts, shares, pins and reports, with no sealed text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from overproof.data import (
    Answers,
    Asking,
    Clearance,
    Committee,
    Folder,
    Gap,
    Labelled,
    MixDistance,
    PromptSet,
    SliceMatch,
    SliceShare,
    TeacherPin,
)
from overproof.evidence import (
    Challenge,
    Compression,
    EvalReport,
    Exported,
    ExportReport,
    JudgedShare,
    Sizing,
    StandingReport,
    Trained,
)
from overproof.evidence.probes import ProbeReport
from overproof.steps.ceiling import Ceiling, CeilingRecipe, ceiling
from overproof.steps.filter_report import rules_of
from overproof.steps.flips import FlipReport
from overproof.steps.groups import GroupReport
from overproof.steps.register import Register
from overproof.steps.suspicion import Suspicion
from overproof.store.artifacts import Step

SAME = 0.98
"""Similarity from which on a sealed row says what some training row says, in other order or with another mark."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataEvidence:
    """What the run knows about its rows, its teacher and its terms; the only text is that of the gaps' examples."""

    clearance: Clearance
    """The permission that was minted."""
    pin: TeacherPin
    """The teacher that the answers came from."""
    clearance_id: str
    """The clearance that the answers carry."""
    models: Mapping[str, int]
    """Model id as answered, to number of answers."""
    spent_usd: float
    """Cost of all answers."""
    funnel: Mapping[str, int]
    """Ordered: from rows read to rows in each split."""
    match: tuple[SliceMatch, ...]
    """Live share against prompt-set share, per attribute value."""
    distance: float
    """Total variation distance between the live traffic and the prompt set, in [0, 1]."""
    leaks: Mapping[str, int]
    """Check name to rows that straddle two splits."""
    notes: tuple[str, ...]
    """Sentences for the reader of the report."""
    labels: tuple[str, ...]
    """The task's labels."""
    counts: Mapping[str, int]
    """"SPLIT: REASON" to rows, kept ones included."""
    rows: Mapping[str, int]
    """Split name to labelled rows."""
    distances: tuple[MixDistance, ...] = ()
    """Live traffic against prompt set, before and after matching."""
    shares: tuple[SliceShare, ...] = ()
    """Critical slices: share of training over live share."""
    gaps: tuple[Gap, ...] = ()
    """What training doesn't cover, with examples; none of them is sealed."""
    gap_rows: int = 0
    """Live rows that gaps were looked for among."""
    boosted: Mapping[str, int] = field(default_factory=dict)
    """Critical slice to the sealed rows beyond the fair draw."""
    familiar: int = 0
    """Sealed rows that are as good as a training row by their words."""
    written: int = 0
    """Training rows that are no traffic."""
    ceiling: Ceiling | None = None
    """The teacher against itself."""
    asking: Asking | None = None
    """Extra samples, fingerprints, canary prompts; without the rows that were asked twice."""
    committee: Committee | None = None
    """Who decided; None where one teacher did."""
    filter_lines: tuple[str, ...] = ()
    """What each rule of the filter did, a sentence each, without any text of a row."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SummariseRecipe:
    """What the teacher's agreement with itself is read from."""

    samples: int = 1
    """First samples of every row."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """All that the checks read. What is absent is None or empty, and its check is not run."""

    data: DataEvidence | None = None
    """Rows, teacher and terms."""
    trained: tuple[Trained, ...] = ()
    """Every fitted candidate."""
    report: EvalReport | None = None
    """The evaluation on sealed rows."""
    bundle: Folder | None = None
    """The packed candidate."""
    groups: GroupReport | None = None
    """Gaps between declared groups; None where none are declared."""
    flips: FlipReport | None = None
    """Answers that change with a swapped term; None where nothing is to be swapped."""
    exports: tuple[ExportReport, ...] = ()
    """How each candidate's runtime was chosen, where there was a choice."""
    sizing: Sizing | None = None
    """What sizes, rows and seeds are worth; None where [sizing] is off."""
    requests_per_month: float | None = None
    """Measured traffic volume; None where the log has no times."""
    judged: JudgedShare | None = None
    """What a judge of texts says of the student's served answers; None without one."""
    standing: StandingReport | None = None
    """Everything that could serve, in money."""
    challenge: Challenge | None = None
    """Against the serving release; None outside a refresh."""
    register: Register | None = None
    """The teacher's known mistakes, asked of the student; None where nobody reviewed anything."""
    compression: Compression | None = None
    """Rare and critical cases across the sizes; None where there is no case, or one student."""
    probes: ProbeReport | None = None
    """What spoiled, attacked and foreign texts do; None where [probe] is off."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """Name of an artifact to its digest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CollectRecipe:
    """What stands beside the artifacts."""

    requests_per_month: float | None = None
    """See `Evidence.requests_per_month`."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """Name of an artifact to its digest."""


def summarise(
    prompts: PromptSet, clearance: Clearance, answers: Answers, labelled: Labelled, recipe: SummariseRecipe
) -> DataEvidence:
    """
    What the gate and the dossier need of the data steps, counted.

    Args:
        prompts: the prompt set.
        clearance: the permission that was minted.
        answers: all that the teacher said.
        labelled: what the filter kept and left out.
        recipe: how many first samples there are.

    Returns: counts, shares and pins; no request text but the gaps' examples.
    """
    found = ceiling(answers, CeilingRecipe(samples=recipe.samples, output=labelled.train.output))
    every = (*answers.train, *answers.calibration, *answers.test)
    models = Counter(c.model for row in every for c in row.completions if c.value is not None)
    return DataEvidence(
        clearance=clearance,
        pin=answers.pin,
        clearance_id=answers.clearance_id,
        models=dict(sorted(models.items())),
        spent_usd=answers.spent_usd,
        funnel=dict(prompts.funnel),
        match=prompts.match,
        distance=prompts.distance,
        leaks=dict(prompts.leaks),
        notes=(*prompts.notes, *_how_asked(answers)),
        labels=labelled.test.labels,
        counts=dict(labelled.counts),
        rows={
            "train": len(labelled.train.examples),
            "calibration": len(labelled.calibration.examples),
            "test": len(labelled.test.examples),
        },
        distances=prompts.distances,
        shares=prompts.shares,
        gaps=prompts.gaps,
        gap_rows=prompts.gap_rows,
        boosted=Counter(name for row in labelled.test.examples for name in row.boost),
        familiar=sum((row.near_train or 0.0) >= SAME for row in labelled.test.examples),
        written=sum(row.origin != "traffic" for row in prompts.train),
        ceiling=found,
        asking=replace(answers.asking, repeats=()),
        committee=answers.committee,
        filter_lines=tuple(rule.words for rule in rules_of(labelled)),
    )


def _how_asked(answers: Answers) -> Iterator[str]:
    """What a reader should know about how the labels were bought, one sentence each."""
    asking, panel = answers.asking, answers.committee
    if asking.extra_rows:
        why = ", ".join(f"{reason}: {n:,}" for reason, n in asking.extra_reasons.items())
        yield (
            f"{asking.extra_bought:,} extra samples were taken on {asking.extra_rows:,} rows ({why}); they changed the"
            f" label of {asking.extra_changed:,}."
        )
    if len(asking.fingerprints) > 1:
        names = ", ".join(f"{name or 'none named'} {n:,}" for name, n in asking.fingerprints.items())
        yield f"The teacher's answers carry more than one fingerprint ({names}): the provider changed something between them."
    watch = asking.canaries
    if watch is not None and watch.n:
        word = "more than noise explains: the teacher changed" if watch.alarm else "no more than noise explains"
        yield (
            f"Canary prompts: {watch.differ} of {watch.n} answers differ from the reference, {word}"
            f" (alarm from {watch.alarm_at}, chance {watch.p:.2g} if nothing had changed)."
        )
    if panel is not None:
        who = ", ".join(f"{m.name} was followed on {m.agreed:,} of {m.answered:,}" for m in panel.members)
        yield (
            f"The labels are those of {len(panel.members)} teachers by {panel.rule}: {panel.unanimous:,} of"
            f" {panel.rows:,} rows unanimous, {panel.tied:,} ties, {panel.arbitrated:,} decided by an arbiter,"
            f" {panel.overruled:,} against the most votes; {who}."
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class AddRecipe:
    """Where a report belongs."""

    to: str
    """Field of `Evidence`."""


def add(evidence: Evidence, found: Any, recipe: AddRecipe) -> Evidence:
    """
    The evidence with one report more.

    Args:
        evidence: so far.
        found: what belongs in the field.
        recipe: which field.

    Returns: the evidence.
    """
    return replace(evidence, **{recipe.to: found})


def add_exports(evidence: Evidence, exports: tuple[Exported, ...], recipe: AddRecipe) -> Evidence:
    """The evidence with how runtimes were chosen."""
    return add(evidence, tuple(one.report for one in exports), recipe)


def add_suspicion(evidence: Evidence, suspicion: Suspicion, recipe: AddRecipe) -> Evidence:
    """The evidence with what suspicion.v1 marked, in a sentence."""
    if evidence.data is None:
        return evidence
    return add(evidence, replace(evidence.data, filter_lines=(*evidence.data.filter_lines, suspicion.words)), recipe)


def collect(
    data: DataEvidence, trained: tuple[Trained, ...], report: EvalReport, bundle: Folder, recipe: CollectRecipe
) -> Evidence:
    """
    Everything that the checks read, in one value.

    Args:
        data: from `summarise`.
        trained: every fitted candidate.
        report: from `evaluate`.
        bundle: the packed candidate.
        recipe: traffic volume and digests.

    Returns: the evidence.
    """
    return Evidence(
        data=data,
        trained=trained,
        report=report,
        bundle=bundle,
        requests_per_month=recipe.requests_per_month,
        digests=recipe.digests,
    )


SUMMARISE = Step(name="summarise", version=3, fn=summarise)
COLLECT = Step(name="collect", version=4, fn=collect)
ADD = Step(name="add", version=1, fn=add)
ADD_EXPORTS = Step(name="add-exports", version=1, fn=add_exports)
ADD_SUSPICION = Step(name="add-suspicion", version=1, fn=add_suspicion)
