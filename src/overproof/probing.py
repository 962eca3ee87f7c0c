"""The packed student put to the test on the road: swapped terms, spoiled and attacked texts, beside its teacher and the serving release."""

from __future__ import annotations

from typing import Any

from overproof.asking import Buyer
from overproof.data import CalibrationSet, Clearance, Folder, TrainSet
from overproof.evidence import Release
from overproof.project import Project
from overproof.recipes import flip_recipe, functions_of, probe_recipe, slices_of
from overproof.steps.flips import FLIPS
from overproof.steps.flips_beyond import TEACHER_FLIPS, BeyondRecipe
from overproof.steps.probe import DUEL, PROBE
from overproof.steps.survey import Survey
from overproof.store.artifacts import Artifact, Memo
from overproof.store.project_store import Store

ANSWERS = ("canary", "full")
"""Stages in which callers get answers of the student."""


class Probing:
    """
    What the packed student is put through.

    Args:
        store: says which release serves.
        project: what the user's file asks for.
        memo: runs or reuses each step.
        buyer: asks the teacher, where it may be asked.
    """

    def __init__(self, store: Store, project: Project, memo: Memo, buyer: Buyer) -> None:
        self._store, self._project, self._memo, self._buyer = store, project, memo, buyer

    def results(
        self, bundle: Artifact[Folder], dev_rows: Artifact[CalibrationSet], train_rows: Artifact[TrainSet],
        clearance: Artifact[Clearance], survey: Survey,
    ) -> dict[str, Artifact[Any]]:  # fmt: skip
        """
        Whatever the project file asks for.

        Args:
            bundle: the packed student.
            dev_rows: calibration rows, whose texts are varied.
            train_rows: whose rare words are tried as triggers.
            clearance: that the teacher is asked under.
            survey: values of the attributes, for slices.

        Returns: "flips" and "probes", each where there is one.
        """
        p, run = self._project, self._memo.run
        found: dict[str, Artifact[Any]] = {}
        if p.fairness.swaps:
            swapping = flip_recipe(p)
            found["flips"] = run(FLIPS, bundle, dev_rows, recipe=swapping)
            if p.fairness.teacher_pairs and p.teacher.use != "recorded.v1":
                beside = BeyondRecipe(flips=swapping, pairs=p.fairness.teacher_pairs, pin=p.pin)
                found["flips"] = run(TEACHER_FLIPS, found["flips"], bundle, dev_rows, clearance, recipe=beside, teacher=self._buyer.teacher(clearance))
        if p.probe.use == "off":
            return found
        recipe = probe_recipe(p, slices_of(p, survey))
        functions = functions_of(recipe.slices)
        teacher = self._buyer.teacher(clearance) if recipe.teacher_rows else None
        found["probes"] = run(PROBE, bundle, dev_rows, train_rows, clearance, recipe=recipe, teacher=teacher, functions=functions)
        champion = None if recipe.watched else serving(self._store, p.task.name, bundle.value)
        if champion is not None:
            found["probes"] = run(DUEL, found["probes"], self._memo.source("champion", champion), bundle, dev_rows, recipe=recipe, functions=functions)
        return found


def serving(store: Store, task: str, bundle: Folder) -> Release | None:
    """
    The release that a new one is held up to.

    Args:
        store: the project's store.
        task: its name.
        bundle: the new student.

    Returns: the release that answers callers, or answered them last; never the new student itself, so that it is not
        compared with itself once it serves. None where no other ever did.
    """
    for move in reversed(store.rollouts.history(task)):
        if move.stage in ANSWERS:
            found = store.releases.get(move.release_id)
            if found is not None and found.bundle.digest != bundle.digest:
                return found
    return None
