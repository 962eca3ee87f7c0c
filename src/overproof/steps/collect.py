"""Gather what the gate and the dossier read: counts, shares, pins and reports, with no sealed text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from overproof.data import (
    Answered,
    Answers,
    Clearance,
    Folder,
    Gap,
    Labelled,
    MixDistance,
    PromptSet,
    SliceMatch,
    SliceShare,
    TeacherPin,
)
from overproof.evidence import EvalReport, Figure, Trained
from overproof.measure.intervals import figure
from overproof.measure.slices import one_per_session
from overproof.steps.flips import FlipReport
from overproof.steps.groups import GroupReport
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
    self_agreement: Figure | None = None
    """How often the teacher's first two samples agree, on rows that are not sealed; None where it was asked once."""
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


@dataclass(frozen=True, kw_only=True, slots=True)
class SummariseRecipe:
    """What was asked of every row."""

    samples: int = 1
    """Samples that every row took; further ones of hard rows don't count, they were bought where samples differed."""


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
    requests_per_month: float | None = None
    """Measured traffic volume; None where the log has no times."""
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
        recipe: how many samples every row took.

    Returns: counts, shares and pins; no request text but the gaps' examples.
    """
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
        notes=prompts.notes,
        labels=labelled.test.labels,
        counts=dict(labelled.counts),
        rows={
            "train": len(labelled.train.examples),
            "calibration": len(labelled.calibration.examples),
            "test": len(labelled.test.examples),
        },
        self_agreement=self_agreement((*answers.train, *answers.calibration)) if recipe.samples > 1 else None,
        distances=prompts.distances,
        shares=prompts.shares,
        gaps=prompts.gaps,
        gap_rows=prompts.gap_rows,
        boosted=Counter(name for row in labelled.test.examples for name in row.boost),
        familiar=sum((row.near_train or 0.0) >= SAME for row in labelled.test.examples),
        written=sum(row.origin != "traffic" for row in prompts.train),
    )


def self_agreement(rows: Sequence[Answered]) -> Figure | None:
    """
    How often the teacher's first two samples of a row are the same label.

    Args:
        rows: rows that all were asked at least twice; sealed ones don't belong here.

    Returns: the share with its interval, one row of each near-duplicate group; None where no row has two answers. An
        answer that is no label agrees with nothing.
    """
    ids, groups = [a.row.request.id for a in rows], [a.row.group for a in rows]
    alone = one_per_session(groups, ids, "self-agreement")
    twice = [a.completions[:2] for a, ok in zip(rows, alone, strict=True) if ok and len(a.completions) > 1]
    same = sum(one.value is not None and one.value == two.value for one, two in twice)
    return figure(same, len(twice), metric="self-agreement") if twice else None


@dataclass(frozen=True, kw_only=True, slots=True)
class AddRecipe:
    """Nothing to choose."""


def add_groups(evidence: Evidence, groups: GroupReport, recipe: AddRecipe) -> Evidence:
    """The evidence with the gaps between groups."""
    del recipe
    return replace(evidence, groups=groups)


def add_flips(evidence: Evidence, flips: FlipReport, recipe: AddRecipe) -> Evidence:
    """The evidence with the flips of swapped terms."""
    del recipe
    return replace(evidence, flips=flips)


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


SUMMARISE = Step(name="summarise", version=2, fn=summarise)
COLLECT = Step(name="collect", version=2, fn=collect)
ADD_GROUPS = Step(name="add-groups", version=1, fn=add_groups)
ADD_FLIPS = Step(name="add-flips", version=1, fn=add_flips)
