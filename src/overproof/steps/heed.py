"""Labels that callers posted as feedback become targets of training rows, few of them, and nothing else."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from overproof.data import FEEDBACK, Example, Labelled, TrainSet
from overproof.errors import DataError
from overproof.steps.answers import same_answer
from overproof.store.artifacts import Step


@dataclass(frozen=True, kw_only=True, slots=True)
class HeedRecipe:
    """How far callers are believed."""

    at_most: float = 0.01
    """Of the training rows. Whoever may call the gateway may post: some 250 rows have been enough to plant a back door."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Heeded:
    """The three sets after feedback, and an account of it."""

    labelled: Labelled
    counts: Mapping[str, int]
    """What happened to how many rows."""


def heed(labelled: Labelled, recipe: HeedRecipe) -> Heeded:
    """
    Let posted labels take the place of the teacher's in training, never in calibration or among the sealed rows.

    Args:
        labelled: rows after reviews; a row that a person reviewed keeps its label.
        recipe: how many rows at most; which ones is decided by a hash of the request's id.

    Returns: the sets, and an account.
    """
    train = labelled.train
    posted = [e for e in train.examples if e.gold is not None and e.gold_from == FEEDBACK and not e.label_from.startswith("review-")]
    labels = {e.request.id: label for e in posted if (label := _answer(e, train)) is not None}
    most = math.ceil(recipe.at_most * len(train.examples))
    believed = set(sorted(labels, key=_draw)[:most])
    counts = Counter({
        "feedback that is no answer of the task, ignored": len(posted) - len(labels),
        "feedback over the share that is believed, ignored": len(labels) - len(believed),
    })  # fmt: skip
    examples = []
    for example in train.examples:
        if example.request.id not in believed:
            examples.append(example)
            continue
        label = labels[example.request.id]
        counts["feedback, " + ("confirmed" if same_answer(train.output, label, example.target) else "corrected")] += 1
        examples.append(replace(example, target=label, agreement=1.0, label_from=FEEDBACK))
    return Heeded(labelled=replace(labelled, train=replace(train, examples=tuple(examples))), counts=dict(sorted((+counts).items())))


def take_heeded(heeded: Heeded, recipe: HeedRecipe) -> Labelled:
    """The rows by themselves."""
    del recipe
    return heeded.labelled


def _answer(example: Example, train: TrainSet) -> str | None:
    """The label in the task's spelling; None where it is no answer of the task."""
    assert example.gold is not None
    if train.output is None:
        return example.gold if example.gold in train.labels else None
    try:
        return train.output.parse(example.gold)
    except DataError:
        return None


def _draw(identity: str) -> str:
    return hashlib.sha256(f"heed {identity}".encode("utf-8", "surrogatepass")).hexdigest()


HEED = Step(name="heed", version=1, fn=heed)
TAKE_HEEDED = Step(name="take_heeded", version=1, fn=take_heeded)
