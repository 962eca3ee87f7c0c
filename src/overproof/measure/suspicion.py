"""Which labels a model that never saw them does not believe: out-of-fold probabilities and confident errors."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from overproof.errors import MeasureError
from overproof.measure.mending import even_features

STRENGTH = 23.0  # inverse L2 penalty on features of mean squared length 1
MAX_ITERATIONS = 150
LEAST_OTHERS = 3  # rows of a label that a model must have seen before its silence about the label means anything

Matrix = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class OutOfFold:
    """What models say of rows that they were not fitted on."""

    chance: Matrix
    """Shape (n, k), rows sum to 1; all 1 / k where the row was not judged."""
    judged: Mask
    """Shape (n,): False where the models saw too few rows of the given label to have a say on it."""


def out_of_fold(
    features: ArrayLike, given: ArrayLike, *, classes: int, folds: int, group: Sequence[Hashable], seed: int = 0
) -> OutOfFold:
    """
    Label probabilities of each row by a model that saw neither the row nor its near-duplicates.

    Args:
        features: shape (n, d), of the rows' texts.
        given: shape (n,), column of each row's given label.
        classes: how many labels there are.
        folds: into how many parts the rows are cut, at least 2.
        group: n names; rows of one name share a fold, so that no row is vouched for by its own copy.
        seed: of the cut.

    Returns: probabilities, and which rows were judged at all.
    Raises: MeasureError for shapes that don't fit, fewer than two folds, or a label outside the columns.
    Source: cross-validated probabilities as in Northcutt et al. 2021, arXiv:1911.00068; multinomial logistic
        regression with the penalty of `mending`.

    >>> points = np.repeat(np.eye(2), 10, axis=0)
    >>> given = np.array([0] * 10 + [1] * 9 + [0])
    >>> found = out_of_fold(points, given, classes=2, folds=5, group=range(20))
    >>> int(found.chance[-1].argmax()), bool(found.judged.all())
    (1, True)
    """
    x, y = even_features(features), np.asarray(given)
    if y.shape != (x.shape[0],) or len(group) != x.shape[0] or folds < 2 or y.dtype.kind not in "iu":
        raise MeasureError(
            f"features {x.shape!r}, labels {y.shape!r}, {len(group)} groups and {folds!r} folds don't fit",
            next_action="pass a label and a group for each row, and two or more folds",
        )
    if int(y.min()) < 0 or int(y.max()) >= classes:
        raise MeasureError(
            f"a given label lies outside the {classes} columns", next_action="use the order of the columns"
        )
    names = list(dict.fromkeys(group))
    drawn = np.random.default_rng(seed).permutation(len(names)) % folds
    fold_of = dict(zip(names, drawn.tolist(), strict=True))
    fold = np.array([fold_of[name] for name in group], dtype=np.int64)
    chance = np.full((x.shape[0], classes), 1.0 / classes)
    judged = np.zeros(x.shape[0], dtype=bool)
    for part in range(folds):
        seen, asked = fold != part, fold == part
        counts = np.bincount(y[seen], minlength=classes)
        if asked.any() and np.count_nonzero(counts) >= 2:
            some = asked & (counts[y] >= LEAST_OTHERS)
            if some.any():
                chance[some] = _fit(x[seen], y[seen], x[some], classes)
            judged |= some
    return OutOfFold(chance=chance, judged=judged)


def confident_errors(found: OutOfFold, given: ArrayLike) -> Mask:
    """
    Rows that a model believes to be of another label, as firmly as it believes the rows of that label.

    Args:
        found: from `out_of_fold`.
        given: shape (n,), column of each row's given label.

    Returns: shape (n,), True for rows to look at. Suspicion, no proof: an estimate by a model that learned from labels
        with the same errors, so that errors which the teacher makes always are not seen.
    Raises: MeasureError for shapes that differ.
    Source: Northcutt et al. 2021, arXiv:1911.00068, section 3.1: off the diagonal of the confident joint, with each
        label's mean self-confidence as its threshold.

    >>> chance = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.45, 0.55]])
    >>> confident_errors(OutOfFold(chance=chance, judged=np.ones(5, dtype=bool)), [0, 0, 1, 0, 0]).tolist()
    [False, False, False, False, False]
    >>> confident_errors(OutOfFold(chance=chance, judged=np.ones(5, dtype=bool)), [0, 0, 1, 1, 1]).tolist()
    [False, False, False, False, False]
    >>> chance = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.05, 0.95], [0.3, 0.7]])
    >>> confident_errors(OutOfFold(chance=chance, judged=np.ones(5, dtype=bool)), [0, 0, 1, 0, 1]).tolist()
    [False, False, False, True, False]
    """
    label, chance = np.asarray(given, dtype=np.int64), found.chance
    if label.shape != chance.shape[:1] or found.judged.shape != label.shape:
        raise MeasureError(
            f"probabilities {chance.shape!r} and labels {label.shape!r} don't fit", next_action="pass both for the same rows"
        )
    limit = np.full(chance.shape[1], np.inf)
    for column in range(chance.shape[1]):
        rows = found.judged & (label == column)
        if rows.any():
            limit[column] = chance[rows, column].mean()
    firm = np.where(chance >= limit, chance, -1.0)
    best = firm.argmax(axis=1)
    marked: Mask = found.judged & (firm.max(axis=1) >= 0.0) & (best != label)
    return marked


def _fit(x: Matrix, y: NDArray[np.int64], at: Matrix, classes: int) -> Matrix:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=STRENGTH, max_iter=MAX_ITERATIONS, tol=1e-3).fit(x, y)
    chance = np.full((at.shape[0], classes), 1e-9)
    chance[:, model.classes_] = np.maximum(model.predict_proba(at), 1e-9)
    total: Matrix = chance / chance.sum(axis=1, keepdims=True)
    return total
