"""Whether a rule helps the student: the same student with and without it, compared on the same calibration rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from overproof.data import CalibrationSet, Example, Labelled, TrainSet
from overproof.errors import DataError
from overproof.evidence import Figure, Scores
from overproof.measure.intervals import figure
from overproof.measure.paired import difference_interval, superiority
from overproof.steps.answers import answers_of, same_answer
from overproof.steps.filter_report import ENOUGH
from overproof.steps.provenance import DRAWN
from overproof.steps.streamed import LOGITS
from overproof.store.artifacts import Step

MEND_RULE = "mend"
DELTA = 0.05
Word = Literal["helps", "hurts", "can't tell"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PutBackRecipe:
    """Whose rows are put back."""

    rule: str
    """As `Dropped.by` names it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UnmendRecipe:
    """Nothing to choose."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CompareRecipe:
    """Which rule is judged, among how many."""

    rule: str
    rows: int
    """Training rows that it drops or changes."""
    rules: int
    """Rules judged together: they share the admitted error."""
    delta: float = DELTA
    """Admitted chance that any of the verdicts is false."""
    gold_only: bool = False
    """Whether the teacher's own label is no measure: mending departs from it on purpose."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Effect:
    """One rule: the student with it against the student without it."""

    rule: str
    rows: int
    """Training rows that it drops or changes."""
    metric: Literal["accuracy", "fidelity"]
    """Against gold, or against the teacher's label where fewer than 30 calibration rows have gold."""
    with_rule: Figure
    without: Figure
    gain: float | None
    """Share of the rows that the student with the rule gets right more; None where n = 0."""
    low: float
    high: float
    """Interval of `gain` at `level`."""
    level: float
    method: str
    """Of the interval and of the test."""
    only_with_wrong: int
    only_without_wrong: int
    n: int
    p: float
    """Two-sided, exact: chance of a split of the discordant rows at least as uneven, if the rule did nothing."""
    delta: float
    """Chance of a false verdict that this rule's test admits."""
    verdict: Word

    @property
    def words(self) -> str:
        """One sentence; the interval and the n stand in it."""
        if self.gain is None:
            return f"{self.rule}: can't tell, {ENOUGH} calibration rows with a true label are needed: review them first"
        what = "right by gold" if self.metric == "accuracy" else "agreeing with the teacher (there is too little gold)"
        return (
            f"{self.rule} {self.verdict}: {100 * self.gain:+.1f} points of rows {what} "
            f"({100 * self.low:+.1f} to {100 * self.high:+.1f} at {self.level:.1%}, n = {self.n:,})"
        )


def put_back(labelled: Labelled, recipe: PutBackRecipe) -> TrainSet:
    """
    The training rows with those that one rule dropped.

    Args:
        labelled: the rows that are learned from, and what was left out.
        recipe: whose rows come back; other rules' rows stay out.

    Returns: the training rows.
    """
    back = tuple(
        Example(request=d.request, target=d.target, gold=d.gold, weight=d.weight)
        for d in labelled.dropped
        if d.split == "train" and d.target and d.by == recipe.rule
    )
    return replace(labelled.train, examples=(*labelled.train.examples, *back))


def unmend(labelled: Labelled, filtered: Labelled, recipe: UnmendRecipe) -> TrainSet:
    """
    The same training rows with the labels that they had before people's reviews.

    Args:
        labelled: the rows that are learned from.
        filtered: the filter's result.
        recipe: nothing to choose.

    Returns: the training rows.
    """
    del recipe
    before = {e.request.digest: e for e in filtered.train.examples}
    rows = tuple(before[e.request.digest] for e in labelled.train.examples)
    return replace(labelled.train, examples=rows)


def compare(with_rule: Scores, without: Scores, rows: CalibrationSet, recipe: CompareRecipe) -> Effect:
    """
    Count on which rows only one of the two students is right.

    Args:
        with_rule: scores of the student that was trained with the rule.
        without: of the one that was trained without it.
        rows: calibration rows, in the order of the scores.
        recipe: which rule.

    Returns: the effect. Gold is the measure where 30 or more rows have it, else the teacher's label, never a mixture;
        a row that was picked for review because it looked wrong is none of them.
    Raises: DataError where scores and rows don't fit.
    """
    truth = [e.gold if e.gold_from in DRAWN else None for e in rows.examples]
    by_gold = recipe.gold_only or sum(t is not None for t in truth) >= ENOUGH
    if not by_gold:
        truth = [e.target for e in rows.examples]
    known = [i for i, t in enumerate(truth) if t is not None]
    if recipe.gold_only and len(known) < ENOUGH:
        known = []
    a, b = (_right(scores, rows, truth)[known] for scores in (with_rule, without))
    n, delta = len(known), recipe.delta / recipe.rules
    only_with, only_without = int((~a & b).sum()), int((a & ~b).sum())
    test = superiority(only_with, only_without, d=delta / 2, n=n)
    worse = superiority(only_without, only_with, d=delta / 2, n=n)
    gap = difference_interval(only_without, only_with, n, level=1 - delta)
    metric: Literal["accuracy", "fidelity"] = "accuracy" if by_gold else "fidelity"
    return Effect(
        rule=recipe.rule, rows=recipe.rows, metric=metric, n=n, delta=delta, level=1 - delta,
        with_rule=figure(int(a.sum()), n, metric=metric), without=figure(int(b.sum()), n, metric=metric),
        gain=(only_without - only_with) / n if n else None, low=gap.low, high=gap.high,
        method=f"tango score interval; {test.method}", only_with_wrong=only_with, only_without_wrong=only_without,
        p=min(1.0, 2 * min(test.p, worse.p)), verdict=_WORDS[test.verdict],
    )  # fmt: skip


_WORDS: dict[str, Word] = {"pass": "helps", "fail": "hurts", "undecided": "can't tell"}


def _right(scores: Scores, rows: CalibrationSet, truth: list[str | None]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    if rows.output is not None:
        said = zip(answers_of(scores, rows), truth, strict=True)
        return np.array([a is not None and t is not None and same_answer(rows.output, a, t) for a, t in said], dtype=np.bool_)
    logits = np.load(scores.folder.path / LOGITS, allow_pickle=False)
    if logits.shape != (len(rows.examples), len(rows.labels)):
        raise DataError(
            f"{scores.name}: scores of shape {logits.shape} for {len(rows.examples)} rows and {len(rows.labels)} labels",
            next_action="run `overproof ablate` again; report this if it comes back",
        )
    answers = logits.argmax(axis=1).tolist()
    return np.array([rows.labels[answer] == t for answer, t in zip(answers, truth, strict=True)], dtype=np.bool_)


PUT_BACK = Step(name="put-back", version=1, fn=put_back)
UNMEND = Step(name="unmend", version=1, fn=unmend)
COMPARE = Step(name="compare", version=1, fn=compare)
