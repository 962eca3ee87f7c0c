"""Does dropping help? The project's cheapest student with and without each rule, on calibration rows; nothing changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from overproof import registry
from overproof.data import CalibrationSet, Labelled, TrainSet
from overproof.errors import DataError
from overproof.evidence import Scores
from overproof.learned import marked
from overproof.pipeline import look_ahead
from overproof.project import Project
from overproof.recipes import predict_recipe, student_recipe
from overproof.settings import Part
from overproof.steps.ablate import (
    COMPARE,
    DELTA,
    MEND_RULE,
    PUT_BACK,
    UNMEND,
    CompareRecipe,
    Effect,
    PutBackRecipe,
    UnmendRecipe,
)
from overproof.steps.filter import TAKE_CALIBRATION, TAKE_TRAIN, NoRecipe
from overproof.steps.filter_report import rules_of
from overproof.steps.predict import PREDICT_DEV
from overproof.steps.suspicion import LEAVE_OUT, RULE, LeaveOutRecipe
from overproof.steps.train import TRAIN
from overproof.store.artifacts import Artifact, Memo, StepEvent
from overproof.store.project_store import Store

CHEAP = ("majority.v1", "ngram.v1", "nearest.v1", "linear.v1", "static.v1", "encoder.v1")
"""Students by what fitting them costs, the cheapest first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ablation:
    """Every rule that changes the training rows, judged."""

    student: str
    """Shown name of the student that was trained."""
    rows: int
    """Training rows as the project uses them."""
    delta: float
    """Admitted chance that any of the verdicts is false."""
    effects: tuple[Effect, ...]
    """In the order of the filter; suspicion.v1 also where the project does not use it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Variant:
    rule: str
    rows: int
    train: Artifact[TrainSet]
    in_use: bool
    """True: `train` is without the rule; False: with it."""


def cheapest(project: Project, name: str = "") -> Part:
    """
    The student that shows a rule's effect at the least cost.

    Args:
        project: the checked project file.
        name: of one of its students, where another one is wanted.

    Returns: the student.
    Raises: DataError where none has the name.
    """
    if name:
        found = [p for p in project.students if p.name == name]
        if not found:
            raise DataError(
                f"no student {name!r}. {registry.suggest(name, [p.name for p in project.students])}",
                next_action="name one of the file's [[student]] tables",
            )
        return found[0]
    return min(project.students, key=lambda p: CHEAP.index(p.use) if p.use in CHEAP else len(CHEAP))


def ablate(
    store: Store, project: Project, *, student: str = "", on_event: Callable[[StepEvent], None] | None = None
) -> Ablation:
    """
    Train with and without each rule, and compare on calibration rows; asks no teacher, reads no sealed label.

    Rows that a rule dropped are put back as they were, on top of the rows that the project learns from: what another
    rule would have said of them is not asked again. Results are kept, so that a second call does no work.

    Args:
        store: the project's store.
        project: the checked project file.
        student: name of the student; the cheapest where empty.
        on_event: called at the start and the end of each step.

    Returns: an effect for each rule that dropped or changed a training row.
    Raises: DataError where the teacher's labels are not there yet, or are stale.
    """
    part = cheapest(project, student)
    kept = _as_learned(store, project)
    labels: Artifact[Labelled] = kept["labels"]
    with store.role("run"):
        memo = store.memo(on_event=on_event)
        base = memo.run(TAKE_TRAIN, labels, recipe=NoRecipe())
        dev = memo.run(TAKE_CALIBRATION, labels, recipe=NoRecipe())
        variants = [v for v in _variants(memo, project, kept) if v.train.digest != base.digest]
        ours = _scores(memo, project, part, base, dev) if variants else None
        effects = []
        for one in variants:
            assert ours is not None
            other = _scores(memo, project, part, one.train, dev)
            recipe = CompareRecipe(rule=one.rule, rows=one.rows, rules=len(variants), gold_only=one.rule == MEND_RULE)
            pair = (ours, other) if one.in_use else (other, ours)
            effects.append(memo.run(COMPARE, *pair, dev, recipe=recipe).value)
        return Ablation(student=part.name, rows=len(base.value.examples), delta=DELTA, effects=tuple(effects))


def _as_learned(store: Store, project: Project) -> dict[str, Artifact[Any]]:
    road = look_ahead(store, project, to="filter")
    needed = [road.artifacts.get(name) for name in ("labels", "prompts")]
    if any(one is None or not one.built for one in needed):
        raise DataError("the teacher's labels are not there yet, or are stale", next_action="run `overproof run --to filter` first")
    return road.artifacts


def _variants(memo: Memo, project: Project, kept: dict[str, Artifact[Any]]) -> list[_Variant]:
    """The training rows without each rule that is in use, and with suspicion where it isn't."""
    labels: Artifact[Labelled] = kept["labels"]
    filtered: Artifact[Labelled] = kept.get("filtered", labels)
    found = [
        _Variant(rule=r.rule, rows=r.rows, in_use=True, train=memo.run(PUT_BACK, labels, recipe=PutBackRecipe(rule=r.rule)))
        for r in rules_of(labels.value)
    ]
    if project.suspicion is None or not project.suspicion.drop:
        marks = marked(memo, project, filtered, kept["prompts"])
        left = memo.run(LEAVE_OUT, labels, marks, recipe=LeaveOutRecipe())
        gone = len(labels.value.train.examples) - len(left.value.train.examples)
        found.append(_Variant(rule=RULE, rows=gone, in_use=False, train=memo.run(TAKE_TRAIN, left, recipe=NoRecipe())))
    if "mended" in kept:
        before = memo.run(UNMEND, labels, filtered, recipe=UnmendRecipe())
        pairs = zip(before.value.examples, labels.value.train.examples, strict=True)
        changed = sum((a.target, a.weight) != (b.target, b.weight) for a, b in pairs)
        if changed:  # gold and the label's origin differ as well, and teach nothing
            found.append(_Variant(rule=MEND_RULE, rows=changed, in_use=True, train=before))
    return found


def _scores(
    memo: Memo, project: Project, part: Part, rows: Artifact[TrainSet], dev: Artifact[CalibrationSet]
) -> Artifact[Scores]:
    fitted = memo.run(TRAIN, rows, recipe=student_recipe(project, part), checkpoints=memo.objects.checkpoints)
    return memo.run(PREDICT_DEV, fitted, dev, recipe=predict_recipe(project))
