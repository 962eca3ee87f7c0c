"""From the filter's labels to the rows that are learned from: suspicion, and what people said."""

from __future__ import annotations

from typing import Any

from overproof.data import Labelled, PromptSet
from overproof.project import Project
from overproof.recipes import features_recipe
from overproof.settings import SuspicionTable
from overproof.steps.heed import HEED, TAKE_HEEDED, HeedRecipe
from overproof.steps.mend import FEATURES, MEND, TAKE_LABELLED, MendRecipe, TakeRecipe
from overproof.steps.suspicion import (
    LEAVE_OUT,
    MARK,
    WEIGH,
    LeaveOutRecipe,
    Marks,
    SuspicionRecipe,
    WeighRecipe,
)
from overproof.steps.teacher_errors import TEACHER_ERRORS, TeacherErrorsRecipe
from overproof.store.artifacts import Artifact, Memo
from overproof.store.reviews import Reviews


def marked(memo: Memo, project: Project, filtered: Artifact[Labelled], prompts: Artifact[PromptSet]) -> Artifact[Marks]:
    """
    The suspicious training rows; nothing is changed.

    Args:
        memo: runs or reuses the steps.
        project: the checked project file; its `suspicion.v1` table, or the defaults of one.
        filtered: the filter's result.
        prompts: the prompt set.

    Returns: the marks.
    """
    table = project.suspicion or SuspicionTable()
    recipe = SuspicionRecipe(folds=table.folds, at_most=table.at_most, seed=project.promptset.seed)
    return memo.run(MARK, filtered, memo.run(FEATURES, filtered, recipe=features_recipe(project)), prompts, recipe=recipe)


def learned_rows(
    memo: Memo, project: Project, reviews: Reviews, kept: dict[str, Artifact[Any]], *, attributes: tuple[str, ...],
    heed: bool = False,
) -> Artifact[Labelled]:  # fmt: skip
    """
    The rows after suspicion, people's reviews and callers' feedback; the filter's own, and no work, where there is none of them.

    Args:
        memo: runs or reuses the steps.
        project: the checked project file.
        reviews: all words that hold.
        kept: has "labels", the filter's result, and "prompts"; gets what is made on the way.
        attributes: that the teacher's errors are cut by.
        heed: whether the log has labels that callers posted.

    Returns: the rows that are learned from.
    """
    rows = _believed(memo, project, reviews, kept, attributes)
    if not heed:
        return rows
    kept["heeded"] = memo.run(HEED, rows, recipe=HeedRecipe())
    return memo.run(TAKE_HEEDED, kept["heeded"], recipe=HeedRecipe())


def _believed(
    memo: Memo, project: Project, reviews: Reviews, kept: dict[str, Artifact[Any]], attributes: tuple[str, ...]
) -> Artifact[Labelled]:
    filtered: Artifact[Labelled] = kept["labels"]
    rows = _reviewed(memo, project, reviews, kept, attributes) if reviews.rows else filtered
    if project.suspicion is None:
        return rows
    marks = marked(memo, project, filtered, kept["prompts"])
    kept["filtered"] = filtered
    kept["suspicion"] = memo.run(WEIGH, marks, filtered, rows, recipe=WeighRecipe(drop=project.suspicion.drop))
    return memo.run(LEAVE_OUT, rows, marks, recipe=LeaveOutRecipe()) if project.suspicion.drop else rows


def _reviewed(
    memo: Memo, project: Project, reviews: Reviews, kept: dict[str, Artifact[Any]], attributes: tuple[str, ...]
) -> Artifact[Labelled]:
    labelled: Artifact[Labelled] = kept["labels"]
    kept["filtered"], kept["features"] = labelled, memo.run(FEATURES, labelled, recipe=features_recipe(project))
    words = memo.source("reviews", reviews)
    relabel = MendRecipe(relabel=project.promptset.mend)
    kept["mended"] = mended = memo.run(MEND, labelled, kept["features"], words, recipe=relabel)
    kept["teacher"] = memo.run(TEACHER_ERRORS, labelled, mended, recipe=TeacherErrorsRecipe(attributes=attributes))
    return memo.run(TAKE_LABELLED, mended, recipe=TakeRecipe())
