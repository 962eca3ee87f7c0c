"""Confident-learning suspicion: training rows whose label a model that never saw them does not believe."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from overproof.data import Dropped, Example, Folder, Labelled, PromptSet
from overproof.errors import DataError
from overproof.evidence import Figure
from overproof.measure.intervals import figure
from overproof.measure.labels import suspicion_rank
from overproof.measure.suspicion import confident_errors, out_of_fold
from overproof.steps.filter import KEPT
from overproof.steps.filter_report import ENOUGH
from overproof.steps.mend import load_features
from overproof.steps.provenance import DRAWN
from overproof.store.artifacts import Step

RULE = "suspicion.v1"


@dataclass(frozen=True, kw_only=True, slots=True)
class SuspicionRecipe:
    """How rows are judged."""

    folds: int = 5
    """Parts that the rows are cut into; each is judged by a model of the others."""
    at_most: float = 0.2
    """Largest share of the training rows that is marked, the most suspicious first."""
    seed: int = 0
    """Of the cut."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """One suspicious row."""

    digest: str
    """Of the request."""
    target: str
    """The teacher's label."""
    likely: str
    """The label that the model believes in."""
    chance: float
    """What the model gives the teacher's label, in [0, 1]."""
    text: str
    """At most 200 characters of the request."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Marks:
    """Every suspicious training row, the most suspicious first."""

    rows: tuple[Mark, ...]
    of: int
    """Training rows."""
    judged: int
    """Those on whose label the models had a say."""
    agreed: int
    """Judged rows whose likeliest label by the model is the teacher's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Suspicion:
    """What the rule marked, and how far it was right."""

    marks: tuple[Mark, ...]
    of: int
    """Training rows."""
    judged: int
    """Those on whose label the models had a say."""
    agreed: int
    """Judged rows whose likeliest label by the model is the teacher's: how much the model knows."""
    wrong: Figure | None
    """Of the marked rows with a true label: the share whose label is wrong; None where no row has one."""
    wrong_overall: Figure | None
    """The same of all training rows: what marking by chance would show."""
    dropped: bool
    """Whether marked rows are left out where nobody has spoken on them."""

    @property
    def words(self) -> str:
        """One sentence for the reader who wonders whether the rule does any good."""
        if not self.judged:
            return f"{RULE} judged none of {self.of:,} training rows: too few rows of each label, not enough data"
        head = f"{RULE} marked {len(self.marks):,} of {self.of:,} training rows as suspicious"
        head += f" (its model agrees with the teacher on {self.agreed / self.judged:.0%} of {self.judged:,})"
        head += ", to be dropped" if self.dropped else "; they stay"
        if not self.marks:
            return head
        if self.wrong is None or self.wrong_overall is None:
            return f"{head}; whether their labels are wrong is not known: review {min(ENOUGH, len(self.marks))} of them"
        said = f"{head}; of those with a true label {_share(self.wrong)} are wrong, of all rows {_share(self.wrong_overall)}"
        more = min(ENOUGH, len(self.marks)) - self.wrong.n
        return f"{said}; too few to tell, review {more} more" if more > 0 else said


@dataclass(frozen=True, kw_only=True, slots=True)
class WeighRecipe:
    """What is done with marked rows."""

    drop: bool = False
    """Whether they are left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LeaveOutRecipe:
    """Nothing to choose."""


def mark(labelled: Labelled, features: Folder, prompts: PromptSet, recipe: SuspicionRecipe) -> Marks:
    """
    Look at each training row with a model that saw neither it nor its near-duplicates.

    Args:
        labelled: the filter's result; its training rows alone are read.
        features: of their texts.
        prompts: for the groups that may not be torn apart.
        recipe: how.

    Returns: the marked rows; nothing is changed.
    """
    examples = labelled.train.examples
    if labelled.train.output is not None:
        raise DataError("suspicion compares labels, and these answers are none", next_action="review rows of the audit queue instead")
    at = {label: i for i, label in enumerate(labelled.train.labels)}
    given = np.array([at[e.target] for e in examples], dtype=np.int64)
    groups = {row.request.digest: row.group for row in prompts.train}
    found = out_of_fold(
        load_features(features), given, classes=len(at), folds=recipe.folds, seed=recipe.seed,
        group=[groups.get(e.request.digest, e.request.digest) for e in examples],
    )  # fmt: skip
    suspicious = confident_errors(found, given)
    order = [i for i in suspicion_rank(found.chance, given).tolist() if suspicious[i]]
    rows = []
    for i in order[: int(recipe.at_most * len(examples))]:
        others = found.chance[i].copy()
        others[given[i]] = -1.0
        rows.append(
            Mark(
                digest=examples[i].request.digest, target=examples[i].target, likely=labelled.train.labels[int(others.argmax())],
                chance=float(found.chance[i, given[i]]), text=examples[i].request.text[:200],
            )
        )  # fmt: skip
    agreed = found.judged & (found.chance.argmax(axis=1) == given)
    return Marks(rows=tuple(rows), of=len(examples), judged=int(found.judged.sum()), agreed=int(agreed.sum()))


def weigh(marks: Marks, filtered: Labelled, labelled: Labelled, recipe: WeighRecipe) -> Suspicion:
    """
    Hold the marks against true labels: those of the log, and those of rows that chance has chosen for review.

    Args:
        marks: from `mark`.
        filtered: the filter's result: the labels that were marked.
        labelled: the same rows after people's reviews, with what they know of the truth.
        recipe: whether marked rows are dropped.

    Returns: the account. A true label from a row that was picked for looking wrong is not counted.
    """
    truth = {e.request.digest: e.gold for e in labelled.train.examples if e.gold is not None and e.gold_from in DRAWN}
    suspicious = {one.digest for one in marks.rows}
    known = [(e.request.digest in suspicious, e.target != truth[e.request.digest])
             for e in filtered.train.examples if e.request.digest in truth]  # fmt: skip
    hits = [wrong for marked, wrong in known if marked]
    return Suspicion(
        marks=marks.rows, of=marks.of, judged=marks.judged, agreed=marks.agreed, dropped=recipe.drop,
        wrong=figure(sum(hits), len(hits), metric="wrong") if hits else None,
        wrong_overall=figure(sum(w for _, w in known), len(known), metric="wrong") if known else None,
    )  # fmt: skip


def leave_out(labelled: Labelled, marks: Marks, recipe: LeaveOutRecipe) -> Labelled:
    """
    Drop marked training rows that still carry the teacher's label on nobody's word but its own.

    Args:
        labelled: the rows after people's reviews.
        marks: from `mark`.
        recipe: nothing to choose.

    Returns: the three sets; a marked row that a person spoke on, or that reviews have mended, stays.
    """
    del recipe
    likely = {one.digest: one.likely for one in marks.rows}
    kept: list[Example] = []
    dropped: list[Dropped] = []
    for e in labelled.train.examples:
        if e.request.digest not in likely or e.label_from != "teacher":
            kept.append(e)
            continue
        reason = f"a model of the other rows says {likely[e.request.digest]!r}"
        dropped.append(
            Dropped(request=e.request, split="train", by=RULE, reason=reason, text=e.target, target=e.target, gold=e.gold, weight=e.weight)
        )
    counts = Counter(labelled.counts)
    counts[f"train: {KEPT}"] -= len(dropped)
    counts[f"train: {RULE}"] += len(dropped)
    return replace(
        labelled,
        train=replace(labelled.train, examples=tuple(kept)),
        dropped=(*labelled.dropped, *dropped),
        counts=dict(sorted(counts.items())),
    )


def _share(one: Figure) -> str:
    return f"{one.value or 0.0:.0%} ({one.low:.0%} to {one.high:.0%}, n = {one.n:,})"


MARK = Step(name="suspicion", version=1, fn=mark)
WEIGH = Step(name="weigh-suspicion", version=1, fn=weigh)
LEAVE_OUT = Step(name="leave-out", version=1, fn=leave_out)
