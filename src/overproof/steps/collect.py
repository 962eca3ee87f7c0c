"""Gather what the gate and the dossier read: counts, shares, pins and reports, with no sealed text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from overproof.data import (
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
from overproof.evidence import EvalReport, Trained
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


@dataclass(frozen=True, kw_only=True, slots=True)
class SummariseRecipe:
    """Nothing to choose."""


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
        recipe: nothing.

    Returns: counts, shares and pins; no request text but the gaps' examples.
    """
    del recipe
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
        distances=prompts.distances,
        shares=prompts.shares,
        gaps=prompts.gaps,
        gap_rows=prompts.gap_rows,
        boosted=Counter(name for row in labelled.test.examples for name in row.boost),
        familiar=sum((row.near_train or 0.0) >= SAME for row in labelled.test.examples),
        written=sum(row.origin != "traffic" for row in prompts.train),
    )


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
COLLECT = Step(name="collect", version=1, fn=collect)
