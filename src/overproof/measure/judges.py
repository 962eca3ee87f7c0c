"""Several judges of the same rows: who is right how often, whom to believe, and what a noisy verdict can prove."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from overproof.errors import MeasureError
from overproof.measure.intervals import Interval, cp_lower, cp_upper

SILENT = -1
"""In a table of answers: this judge said nothing about this row. In gold: nobody knows."""
GOLD_A_CLASS = 20
"""Gold rows of the rarest class from which on the judges' matrices beat the best single judge."""
_SMOOTHING = 0.01
_STOP = 1e-4
_ROUNDS = 50
_FLOOR = 1e-300

Method = Literal["gold matrices", "best judge", "em"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """How often each class occurs and what each judge says of it."""

    prior: NDArray[np.float64]
    """Shape (k,): share of each class; sums to 1."""
    matrix: NDArray[np.float64]
    """Shape (judges, k, k): chance of each answer (last axis) where a class (middle axis) is true; rows sum to 1."""
    rounds: int
    """Rounds of EM; 0 where the matrices come from gold."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Joint:
    """One answer for each row from all judges."""

    answer: NDArray[np.int64]
    """Shape (n,): the class; -1 where no judge that counts has answered."""
    probability: NDArray[np.float64] | None
    """Shape (n, k): chance of each class under the panel; None where one judge was simply believed."""
    method: Method
    """Which rule was used."""
    judge: int | None
    """Column of the judge that was believed; None where all were combined."""
    reason: str
    """Why this rule, in a few words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgedBound:
    """What a fallible judge's verdicts prove about the true failure rate."""

    upper: float
    """Upper bound of the true failure rate, in [0, 1]."""
    judged_upper: float
    """Upper bound of the rate at which the judge says "failed"."""
    caught_lower: float
    """Lower bound of the share of true failures that the judge sees."""
    blamed_lower: float
    """Lower bound of the share of good rows that the judge calls failed."""


def dawid_skene(answers: ArrayLike, classes: int) -> Panel:
    """
    Judges' matrices from their answers alone. Without gold it does not find a good judge among poor ones.

    Args:
        answers: shape (n, judges), columns of the classes, -1 where a judge was silent.
        classes: k, at least 2.

    Returns: the panel after at most 50 rounds, or as soon as no row's probability moves by more than 1e-4.
    Raises: MeasureError for another shape, no rows, an answer outside the classes, or a row without any answer.
    Source: Dawid and Skene 1979, Applied Statistics 28, 20-28; started at the majority, .01 added to every count.

    >>> panel = dawid_skene([[0, 0, 1], [1, 1, 0], [0, 0, 0], [1, 1, 1]] * 5, 2)
    >>> panel.matrix[:, 0, 0].round(2).tolist()
    [1.0, 1.0, 0.5]
    """
    said = _answers(answers, classes)
    if bool(np.any(np.all(said == SILENT, axis=1))):
        raise MeasureError("a row has no answer of any judge", next_action="leave such rows out")
    shown = _indicator(said, classes)
    belief = shown.sum(axis=0)
    belief /= belief.sum(axis=1, keepdims=True)
    rounds = 0
    panel = _panel(belief, shown, 0)
    while rounds < _ROUNDS:
        rounds += 1
        panel = _panel(belief, shown, rounds)
        new = _posterior(panel, said)
        moved = float(np.max(np.abs(new - belief)))
        belief = new
        if moved <= _STOP:
            break
    return panel


def gold_panel(answers: ArrayLike, gold: ArrayLike, classes: int) -> Panel:
    """
    Judges' matrices from rows whose truth is known.

    Args:
        answers: shape (n, judges), columns of the classes, -1 where a judge was silent.
        gold: shape (n,), the true class, -1 where nobody knows: such rows are left out.
        classes: k, at least 2.

    Returns: the panel; one pseudo-row is spread evenly over each row of each matrix, and one over the prior.
    Raises: MeasureError for shapes that differ, an answer or truth outside the classes, or no gold row.
    Source: posterior mean under a Dirichlet prior of total weight 1; Gelman et al., Bayesian Data Analysis, 3.4.

    >>> panel = gold_panel([[0, 1], [0, 0], [1, 1], [1, 0]], [0, 0, 1, 1], 2)
    >>> panel.matrix[:, 0, 0].round(3).tolist()
    [0.833, 0.5]
    """
    said = _answers(answers, classes)
    truth = _gold(gold, said.shape[0], classes)
    known = truth != SILENT
    if not known.any():
        raise MeasureError("no row has gold", next_action="label some rows by hand, or use `dawid_skene`")
    counts = np.einsum("jni,nt->jti", _indicator(said[known], classes), np.eye(classes)[truth[known]])
    matrix = counts + 1.0 / classes
    prior = np.bincount(truth[known], minlength=classes) + 1.0 / classes
    return Panel(prior=prior / prior.sum(), matrix=matrix / matrix.sum(axis=2, keepdims=True), rounds=0)


def panel_posterior(panel: Panel, answers: ArrayLike) -> NDArray[np.float64]:
    """
    Chance of each class given what the judges said.

    Args:
        panel: from `gold_panel` or `dawid_skene`.
        answers: shape (n, judges), columns of the classes, -1 where a judge was silent.

    Returns: shape (n, k), rows sum to 1; the prior where all judges were silent.
    Raises: MeasureError for another number of judges or an answer outside the classes.
    Source: naive Bayes: log prior plus each judge's log-likelihood; judges err independently given the class.

    >>> panel = gold_panel([[0], [0], [1], [1]], [0, 0, 1, 1], 2)
    >>> panel_posterior(panel, [[0], [-1]]).round(3).tolist()
    [[0.833, 0.167], [0.5, 0.5]]
    """
    said = _answers(answers, panel.prior.size)
    if said.shape[1] != panel.matrix.shape[0]:
        raise MeasureError(
            f"the panel has {panel.matrix.shape[0]} judges, the answers {said.shape[1]}",
            next_action="pass the same judges in the same order",
        )
    return _posterior(panel, said)


def combine_judges(answers: ArrayLike, gold: ArrayLike, classes: int) -> Joint:
    """
    One answer a row, by the rule that gold can support.

    Args:
        answers: shape (n, judges), columns of the classes, -1 where a judge was silent.
        gold: shape (n,), the true class, -1 where nobody knows.
        classes: k, at least 2.

    Returns: the answers: by matrices estimated on gold, if the rarest class has 20 gold rows and the matrices of the
        other gold rows do no worse on each gold row than the best judge; else those of the judge with the best
        accuracy on gold (the earlier one among equals); by EM where there is no gold at all. The answer on a gold
        row has seen its gold, so it says nothing about accuracy.
    Raises: MeasureError for shapes that differ or an answer or truth outside the classes.
    Source: ours, measured in benchmarks/proof/labels.py: where poor judges share their errors EM believes them, and
        matrices from a few rows are noise.

    >>> joint = combine_judges([[0, 1, 1], [1, 0, 0], [0, 1, 1]], [0, 1, -1], 2)
    >>> joint.method, joint.judge, joint.answer.tolist()
    ('best judge', 0, [0, 1, 0])
    """
    said = _answers(answers, classes)
    truth = _gold(gold, said.shape[0], classes)
    known = truth != SILENT
    if not known.any():
        some = np.any(said != SILENT, axis=1)
        chance = _posterior(dawid_skene(said[some], classes), said)
        return _joint(chance, said, method="em", reason="no gold row: the judges are compared with each other only")
    rarest = int(np.bincount(truth[known], minlength=classes).min())
    judge = best_judge(said, truth)
    reason = f"{rarest} gold rows of the rarest class, matrices need {GOLD_A_CLASS}"
    if rarest >= GOLD_A_CLASS:
        together = float(np.mean(_left_out(said[known], truth[known], classes) == truth[known]))
        alone = float(np.mean(said[known, judge] == truth[known]))
        reason = f"on gold rows left out in turn the matrices give {together:.1%}, the best judge {alone:.1%}"
        if together >= alone:
            chance = _posterior(gold_panel(said, truth, classes), said)
            return _joint(chance, said, method="gold matrices", reason=reason)
    answer = said[:, judge].copy()
    return Joint(answer=answer, probability=None, method="best judge", judge=judge, reason=reason)


def best_judge(answers: ArrayLike, gold: ArrayLike) -> int:
    """
    The judge that is right on the largest share of the gold rows; silence is not right.

    Args:
        answers: shape (n, judges), whole numbers, -1 where a judge was silent.
        gold: shape (n,), the true class, -1 where nobody knows: such rows are left out.

    Returns: the judge's column, the first among equals.
    Raises: MeasureError for shapes that differ or no gold row.
    Source: counting.

    >>> best_judge([[0, 0], [0, 1], [1, 1]], [0, 1, 1])
    1
    """
    said, truth = np.asarray(answers), np.asarray(gold)
    if said.ndim != 2 or truth.shape != said.shape[:1] or not bool(np.any(truth != SILENT)):
        raise MeasureError(
            f"the best judge is found on gold rows, got answers {said.shape!r} and gold {truth.shape!r}",
            next_action="label some rows by hand",
        )
    known = truth != SILENT
    return int(np.argmax(np.sum(said[known] == truth[known, None], axis=0)))


def judged_failure_bound(
    failed: int, n: int, *, bad_caught: int, bad: int, good_blamed: int, good: int, d: float
) -> JudgedBound:
    """
    Upper bound of the true failure rate where a fallible judge did the judging.

    Args:
        failed: rows that the judge calls failed, of `n` fresh rows.
        n: fresh independent rows.
        bad_caught: gold failures that the judge calls failed.
        bad: gold failures shown to the judge.
        good_blamed: gold good rows that the judge calls failed.
        good: gold good rows shown to the judge.
        d: admitted chance that the bound lies below the truth, in (0, 1); each of the three rates takes a third.

    Returns: the bound with the three bounds that it is made of.
    Raises: MeasureError for impossible counts; where the judge may catch fewer failures than it reports, so nothing
        can be proved with it; and where it blames good rows more often than it fails anything, a contradiction.
    Source: Rogan and Gladen 1978, American Journal of Epidemiology 107 (prevalence behind an imperfect test), with
        Clopper-Pearson bounds: the estimate falls with both rates wherever the judge catches more than it reports.

    >>> bound = judged_failure_bound(20, 1000, bad_caught=90, bad=100, good_blamed=2, good=400, d=0.05)
    >>> round(bound.upper, 4), round(bound.judged_upper, 4)
    (0.0382, 0.0317)
    """
    third = d / 3.0
    seen = cp_upper(failed, n, third)
    caught = cp_lower(bad_caught, bad, third)
    blamed = cp_lower(good_blamed, good, third)
    if caught <= seen:
        raise MeasureError(
            f"this judge may catch only {caught:.1%} of the failures while it fails up to {seen:.1%} of all rows",
            next_action="judge more rows with known failures by hand, or take a better judge",
        )
    if seen <= blamed:
        raise MeasureError(
            f"this judge fails at most {seen:.1%} of the rows but at least {blamed:.1%} of the good ones: gold and "
            "judged rows can't come from the same traffic",
            next_action="draw the judge's gold rows from the same traffic as the judged ones",
        )
    upper = min(1.0, (seen - blamed) / (caught - blamed))
    return JudgedBound(upper=upper, judged_upper=seen, caught_lower=caught, blamed_lower=blamed)


def judged_failure_interval(
    failed: int, n: int, *, bad_caught: int, bad: int, good_blamed: int, good: int, level: float = 0.95
) -> Interval:
    """
    Both ends of the true failure rate where a fallible judge did the judging.

    Args:
        failed: rows that the judge calls failed, of `n` fresh rows.
        n: fresh independent rows.
        bad_caught: gold failures that the judge calls failed.
        bad: gold failures shown to the judge.
        good_blamed: gold good rows that the judge calls failed.
        good: gold good rows shown to the judge.
        level: confidence, in (0, 1); each end takes half of what is left, and each of its three rates a third of that.

    Returns: the interval, inside [0, 1].
    Raises: MeasureError as `judged_failure_bound`.
    Source: `judged_failure_bound` for the upper end; the lower one turns all three bounds round, and is 0 where the
        judge may blame good rows as often as it fails anything.

    >>> found = judged_failure_interval(20, 1000, bad_caught=90, bad=100, good_blamed=2, good=400)
    >>> round(found.low, 4), round(found.high, 4)
    (0.0, 0.0409)
    """
    d = (1.0 - level) / 2.0
    counts = {"bad_caught": bad_caught, "bad": bad, "good_blamed": good_blamed, "good": good}
    high = judged_failure_bound(failed, n, **counts, d=d).upper
    seen, caught = cp_lower(failed, n, d / 3.0), cp_upper(bad_caught, bad, d / 3.0)
    blamed = cp_upper(good_blamed, good, d / 3.0)
    low = 0.0 if seen <= blamed else min(high, (seen - blamed) / (caught - blamed)) if caught > seen else high
    return Interval(low=low, high=high)


def _left_out(said: NDArray[np.int64], truth: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Each gold row's answer by the matrices of all other gold rows."""
    panel = gold_panel(said, truth, classes)
    size = np.bincount(truth, minlength=classes)[truth].astype(np.float64)  # rows of the same class, this one too
    rows = np.arange(truth.size)
    chance = np.log(np.maximum(_posterior(panel, said), _FLOOR))
    # Without itself a row's own class has one row less, and one count less at each answer given: every other class
    # stays as it is, so only one entry a row is corrected.
    own = np.log(size - 1.0 + 1.0 / classes) - np.log(size + 1.0 / classes)
    for judge, matrix in enumerate(panel.matrix):
        spoke = said[:, judge] != SILENT
        spoken = np.zeros(classes)
        np.add.at(spoken, truth[spoke], 1.0)
        total = spoken[truth[spoke]] + 1.0
        count = matrix[truth[spoke], said[spoke, judge]] * total
        own[spoke] += np.log((count - 1.0) / (total - 1.0)) - np.log(count / total)
    chance[rows, truth] += own
    return np.asarray(chance.argmax(axis=1), dtype=np.int64)


def _joint(chance: NDArray[np.float64], said: NDArray[np.int64], *, method: Method, reason: str) -> Joint:
    answer = np.where(np.all(said == SILENT, axis=1), SILENT, chance.argmax(axis=1)).astype(np.int64)
    return Joint(answer=answer, probability=chance, method=method, judge=None, reason=reason)


def _indicator(said: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Shape (judges, n, k): 1 where that judge gave that answer."""
    return np.asarray(said.T[:, :, None] == np.arange(classes), dtype=np.float64)


def _panel(belief: NDArray[np.float64], shown: NDArray[np.float64], rounds: int) -> Panel:
    matrix = np.einsum("nt,jni->jti", belief, shown, optimize=True) + _SMOOTHING
    prior = belief.sum(axis=0) + _SMOOTHING
    return Panel(prior=prior / prior.sum(), matrix=matrix / matrix.sum(axis=2, keepdims=True), rounds=rounds)


def _posterior(panel: Panel, said: NDArray[np.int64]) -> NDArray[np.float64]:
    log = np.tile(np.log(np.maximum(panel.prior, _FLOOR)), (said.shape[0], 1))
    for judge, matrix in enumerate(panel.matrix):
        spoke = said[:, judge] != SILENT
        log[spoke] += np.log(np.maximum(matrix, _FLOOR)).T[said[spoke, judge]]
    log -= log.max(axis=1, keepdims=True)
    chance = np.exp(log)
    return np.asarray(chance / chance.sum(axis=1, keepdims=True), dtype=np.float64)


def _answers(values: ArrayLike, classes: int) -> NDArray[np.int64]:
    said = np.asarray(values)
    if classes < 2 or said.ndim != 2 or 0 in said.shape or said.dtype.kind not in "iu":
        raise MeasureError(
            f"answers are whole numbers of shape (n, judges) over 2 classes or more, got {said.dtype} {said.shape!r}",
            next_action="pass the column of each answer, -1 where a judge was silent",
        )
    if int(said.min()) < SILENT or int(said.max()) >= classes:
        raise MeasureError(f"an answer lies outside the {classes} classes", next_action="use the task's label order")
    return said.astype(np.int64)


def _gold(values: ArrayLike, n: int, classes: int) -> NDArray[np.int64]:
    truth = np.asarray(values)
    if truth.shape != (n,) or truth.dtype.kind not in "iu":
        raise MeasureError(
            f"gold is whole numbers of shape ({n},), got {truth.dtype} {truth.shape!r}",
            next_action="pass -1 where nobody knows",
        )
    if int(truth.min()) < SILENT or int(truth.max()) >= classes:
        raise MeasureError(f"a truth lies outside the {classes} classes", next_action="use the task's label order")
    return truth.astype(np.int64)
