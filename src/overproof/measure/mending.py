"""What reviewed rows say about the others: a model of (features, teacher's label) to truth, and who to review next."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from overproof.errors import MeasureError
from overproof.measure.labels import fix_order

LEAST_REVIEWED = 50  # below, a model of the teacher's mistakes has too little to stand on
PRIOR = 1.0  # every answer starts with so many reviews that confirm it, at the mean of the texts that get it
STRENGTH = 30.0  # inverse L2 penalty on features of mean squared length 1; 10 to 100 differ by under a point
SCALES = (0.36, 1.0)  # length of the teacher's label among the features; the reviewed rows choose
SHARPNESS = tuple(round(0.5 + 0.1 * i, 1) for i in range(26))  # powers tried on the model's probabilities
FOLDS = 3
MAX_ITERATIONS = 150
LEAST_CHANCE = 1e-9
LEAST_EXPECTED = 0.5  # rows of a label, below which no share is given

Matrix = NDArray[np.float64]
Columns = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Posterior:
    """What each row's true label probably is, given its text and what the teacher said."""

    chance: Matrix
    """Shape (n, k), rows sum to 1, calibrated on held-out reviewed rows; a reviewed row holds 1 at its reviewed label."""
    scale: float
    """Weight of the teacher's label among the features, chosen on the reviewed rows; one of `SCALES`."""
    lead: NDArray[np.float64]
    """Shape (n,), lead of the likeliest label over the next, in [0, 1], before calibration."""
    held_out: Columns
    """Shape (r,): label that each reviewed row gets from a model that did not see it, in the order of `reviewed`."""
    sharpness: float = 1.0
    """Power that the model's probabilities are raised to, chosen on held-out reviewed rows; one of `SHARPNESS`."""


def mended_posterior(features: ArrayLike, said: ArrayLike, reviewed: ArrayLike, truth: ArrayLike, *, classes: int) -> Posterior:
    """
    Learn from reviewed rows what is true where the teacher says what, and apply it to all rows.

    Args:
        features: shape (n, d), of the rows' texts.
        said: shape (n,), column of the teacher's label of each row.
        reviewed: shape (r,), row numbers, each once; at least `LEAST_REVIEWED`.
        truth: shape (r,), column of the reviewed label of each of them.
        classes: how many labels there are.

    Returns: probabilities for all rows; reviewed rows of a fold never vote on themselves in `held_out`.
    Raises: MeasureError for shapes that don't fit, too few reviewed rows, or reviews of one label only.
    Source: ours: multinomial logistic regression on text features and the teacher's label together, so that it learns
        both where a label stands in the text and which answers of the teacher not to believe. It is shrunk towards
        the teacher by one made-up review per answer. Weight of the answer and sharpness (temperature scaling,
        Guo et al. 2017, arXiv:1706.04599) have the least log loss on reviewed rows in three folds.

    >>> truth = np.arange(60) % 3
    >>> said = np.where(truth == 2, 1, truth)  # the teacher calls all of the third kind by the name of the second
    >>> found = mended_posterior(np.eye(3)[truth], said, np.arange(50), truth[:50], classes=3)
    >>> bool((found.chance.argmax(axis=1) == truth).all())
    True
    """
    x, t = even_features(features), np.asarray(said, dtype=np.int64)
    rows, y = np.asarray(reviewed, dtype=np.int64), np.asarray(truth, dtype=np.int64)
    _check(x, t, rows, y, classes)
    folds = np.arange(rows.size) % FOLDS
    best: tuple[float, float, float, Columns] | None = None
    for scale in SCALES:
        task = _task(x, t, scale, classes)
        out = np.empty((rows.size, classes))
        for fold in range(FOLDS):
            inside = folds != fold
            out[~inside] = _fit(task, rows[inside], y[inside], task.x[rows[~inside]])
        losses = [-float(np.log(_sharpened(out, power)[np.arange(rows.size), y]).mean()) for power in SHARPNESS]
        at = int(np.argmin(losses))
        if best is None or losses[at] < best[0]:
            best = (losses[at], scale, SHARPNESS[at], out.argmax(axis=1))
    assert best is not None
    _, scale, power, held_out = best
    task = _task(x, t, scale, classes)
    chance = _fit(task, rows, y, task.x)
    top = np.partition(chance, classes - 2, axis=1)
    lead = np.clip(top[:, -1] - top[:, -2], 0.0, 1.0)
    chance = _sharpened(chance, power)
    chance[rows] = np.eye(classes)[y]
    return Posterior(chance=chance, lead=lead, scale=scale, sharpness=power, held_out=held_out.astype(np.int64))


def review_order(
    posterior: Posterior, reviewed: ArrayLike, *, weight: ArrayLike, pending: ArrayLike, cluster: Sequence[Hashable]
) -> Columns:
    """
    The fix queue: unreviewed rows in the order in which a person's word is worth most.

    Args:
        posterior: from `mended_posterior`.
        reviewed: row numbers that need no review any more.
        weight: shape (n,), traffic that a row stands for, above 0.
        pending: shape (n,), bool: the row's slice is undecided or failed.
        cluster: n cluster names; only the first row of each comes.

    Returns: row numbers by falling (1 - lead of the likeliest label over the next) x traffic x (2 if pending).
    Raises: MeasureError, see `labels.fix_order`.
    Source: margin sampling, Scheffer et al. 2001; the traffic and the clusters as in `labels.fix_order`.

    >>> chance = np.array([[0.9, 0.1], [0.5, 0.5], [1.0, 0.0]])
    >>> found = Posterior(chance=chance, lead=np.array([0.8, 0.0, 1.0]), scale=1.0, held_out=np.array([0]))
    >>> review_order(found, [2], weight=[1, 1, 1], pending=[False] * 3, cluster="abc").tolist()
    [1, 0]
    """
    load = np.asarray(weight, dtype=np.float64)
    share = load / load.max() if load.size else load
    order = fix_order(posterior.lead, share, pending, cluster)
    done = np.asarray(reviewed, dtype=np.int64)
    known = {cluster[int(row)] for row in done}
    found: Columns = np.array([row for row in order if cluster[int(row)] not in known], dtype=np.int64)
    return found


def share_believed(chance: ArrayLike, said: ArrayLike) -> Matrix:
    """
    Per true label, the expected share of its rows on which the teacher has said so.

    Args:
        chance: shape (n, k), from `mended_posterior`.
        said: shape (n,), column of the teacher's label.

    Returns: shape (k,), NaN where the label's rows are expected to be fewer than one half. An estimate by a model: it
        ranks and flags, and proves nothing.
    Raises: MeasureError for shapes that differ.
    Source: ours: each row counts for each label by its chance, a reviewed row for its reviewed label alone. Counting
        likeliest labels instead calls too few labels failing, because doubtful rows then count for the teacher.

    >>> [round(share, 3) for share in share_believed([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]], [0, 1, 1]).tolist()]
    [0.45, 0.9]
    """
    belief, t = np.asarray(chance, dtype=np.float64), np.asarray(said, dtype=np.int64)
    if belief.ndim != 2 or t.shape != belief.shape[:1]:
        raise MeasureError(
            f"probabilities {belief.shape!r} and labels {t.shape!r} don't fit", next_action="pass both for the same rows"
        )
    rows = belief.sum(axis=0)
    right = np.bincount(t, weights=belief[np.arange(t.size), t], minlength=belief.shape[1])
    found: Matrix = np.divide(right, rows, out=np.full(rows.shape, np.nan), where=rows >= LEAST_EXPECTED)
    return found


def even_features(features: ArrayLike) -> Matrix:
    """
    Columns of mean 0 and unit variance, then all of one scale, so that one penalty fits embeddings and n-grams alike.

    Args:
        features: shape (n, d), finite.

    Returns: shape (n, d), rows of mean squared length 1; 0 everywhere where all rows are equal.
    Raises: MeasureError for no rows, no columns, NaN or infinity.
    Source: ours.

    >>> even_features([[1.0], [3.0]]).round(3).tolist()
    [[-1.0], [1.0]]
    """
    x = np.asarray(features, dtype=np.float64)
    if x.ndim != 2 or x.shape[0] == 0 or x.shape[1] == 0 or not np.isfinite(x).all():
        raise MeasureError(f"features of shape {x.shape!r} say nothing", next_action="pass finite numbers, one row for each text")
    even: Matrix = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-6)
    length = float(np.sqrt((even**2).sum(axis=1).mean()))
    return even / length if length > 0 else even


def _check(x: Matrix, t: Columns, rows: Columns, y: Columns, classes: int) -> None:
    if t.shape != (x.shape[0],) or rows.ndim != 1 or y.shape != rows.shape:
        raise MeasureError(
            f"features {x.shape!r}, labels {t.shape!r}, reviewed {rows.shape!r} and truth {y.shape!r} don't fit",
            next_action="pass one label for each row and one truth for each reviewed row",
        )
    if rows.size < LEAST_REVIEWED or len(np.unique(y)) < 2:
        raise MeasureError(
            f"{rows.size} reviewed rows with {len(np.unique(y))} different labels teach nothing about the others",
            next_action=f"review at least {LEAST_REVIEWED} rows of the audit queue first",
        )
    for name, column, most in (("label", t, classes), ("truth", y, classes), ("reviewed row", rows, x.shape[0])):
        if column.min() < 0 or column.max() >= most:
            raise MeasureError(f"a {name} lies outside 0 to {most - 1}", next_action="use the order of the columns")
    if len(np.unique(rows)) != rows.size:
        raise MeasureError("a row is reviewed twice", next_action="settle on one label for each row first")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Task:
    """What is fitted: all rows with the teacher's answer beside the text, and the made-up reviews."""

    x: NDArray[np.float32]
    prior: NDArray[np.float32]
    """One row for each answer that the teacher gives."""
    given: Columns
    """Those answers."""
    classes: int


def _task(x: Matrix, t: Columns, scale: float, classes: int) -> _Task:
    given = np.unique(t)
    centres = np.vstack([x[t == label].mean(axis=0) for label in given])
    names = scale * np.eye(classes)
    return _Task(
        x=np.hstack([x, names[t]]).astype(np.float32),
        prior=np.hstack([centres, names[given]]).astype(np.float32),
        given=given,
        classes=classes,
    )


def _fit(task: _Task, rows: Columns, truth: Columns, at: NDArray[np.float32]) -> Matrix:
    from sklearn.linear_model import LogisticRegression

    x, y = np.vstack([task.x[rows], task.prior]), np.concatenate([truth, task.given])
    known = np.unique(y)
    chance = np.full((at.shape[0], task.classes), LEAST_CHANCE)
    if known.size == 1:
        chance[:, known[0]] = 1.0
    else:
        weight = np.concatenate([np.ones(rows.size), np.full(task.given.size, PRIOR)])
        model = LogisticRegression(C=STRENGTH, max_iter=MAX_ITERATIONS, tol=1e-4).fit(x, y, sample_weight=weight)
        chance[:, model.classes_] = np.maximum(model.predict_proba(at), LEAST_CHANCE)
    return _sharpened(chance, 1.0)


def _sharpened(chance: Matrix, power: float) -> Matrix:
    """Probabilities to a power, summing to 1 again."""
    raised = np.maximum(chance, LEAST_CHANCE) ** power
    total: Matrix = raised / raised.sum(axis=1, keepdims=True)
    return total
