"""What reviewed rows say about the others: a model of (features, teacher's label) to truth, and who to review next."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from overproof.errors import MeasureError
from overproof.measure.labels import fix_order

LEAST_REVIEWED = 50  # below, a model of the teacher's mistakes has too little to stand on
LEAST_OF_LABEL = 3  # reviewed rows of a teacher's label before unreviewed rows of it may be relabelled
STRENGTH = 23.0  # inverse L2 penalty on features of mean squared length 1: 0.03 on 768 columns of unit variance
SCALES = (0.36, 1.0)  # length of the teacher's label among the features; the reviewed rows choose
FOLDS = 3
MAX_ITERATIONS = 150

Matrix = NDArray[np.float64]
Columns = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Posterior:
    """What each row's true label probably is, given its text and what the teacher said."""

    chance: Matrix
    """Shape (n, k), rows sum to 1; a reviewed row holds 1 at its reviewed label."""
    scale: float
    """Weight of the teacher's label among the features, chosen on the reviewed rows; one of `SCALES`."""
    lead: NDArray[np.float64]
    """Shape (n,), lead of the likeliest label over the next, in [0, 1], before any answer is left to stand: rows of an
    answer that nobody has looked at are to be reviewed, not trusted."""
    held_out: Columns
    """Shape (r,): label that each reviewed row gets from a model that did not see it, in the order of `reviewed`."""


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
        both where a label stands in the text and which answers of the teacher not to believe.

    >>> truth = np.arange(60) % 3
    >>> said = np.where(truth == 2, 1, truth)  # the teacher calls all of the third kind by the name of the second
    >>> found = mended_posterior(np.eye(3)[truth], said, np.arange(50), truth[:50], classes=3)
    >>> bool((found.chance.argmax(axis=1) == truth).all())
    True
    """
    x, t = _features(features), np.asarray(said, dtype=np.int64)
    rows, y = np.asarray(reviewed, dtype=np.int64), np.asarray(truth, dtype=np.int64)
    _check(x, t, rows, y, classes)
    folds = np.arange(rows.size) % FOLDS
    best: tuple[float, float, Columns] | None = None
    for scale in SCALES:
        joined = _joined(x[rows], t[rows], scale, classes)
        out = np.full((rows.size, classes), 1e-9)
        for fold in range(FOLDS):
            inside = folds != fold
            if len(np.unique(y[inside])) >= 2:
                out[~inside] = _fit(joined[inside], y[inside], joined[~inside], classes)
        loss = -float(np.log(out[np.arange(rows.size), y]).mean())
        if best is None or loss < best[0]:
            best = (loss, scale, out.argmax(axis=1))
    assert best is not None
    chance = _fit(_joined(x[rows], t[rows], best[1], classes), y, _joined(x, t, best[1], classes), classes)
    top = np.partition(chance, classes - 2, axis=1)
    lead = np.clip(top[:, -1] - top[:, -2], 0.0, 1.0)
    seen = np.bincount(t[rows], minlength=classes) >= LEAST_OF_LABEL
    chance[~seen[t]] = np.eye(classes)[t[~seen[t]]]  # nobody has looked at this answer of the teacher: it stands
    held_out = np.where(seen[t[rows]], best[2], t[rows])
    chance[rows] = np.eye(classes)[y]
    return Posterior(chance=chance, lead=lead, scale=best[1], held_out=held_out.astype(np.int64))


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
    Per true label, the share of its rows on which the teacher seems to have said so.

    Args:
        chance: shape (n, k), from `mended_posterior`.
        said: shape (n,), column of the teacher's label.

    Returns: shape (k,), NaN where no row seems to have the label. An estimate by a model: it ranks and flags, and
        proves nothing.
    Raises: MeasureError for shapes that differ.
    Source: ours; each row counts for its likeliest label.

    >>> share_believed([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]], [0, 1, 1]).tolist()
    [0.5, 1.0]
    """
    belief, t = np.asarray(chance, dtype=np.float64), np.asarray(said, dtype=np.int64)
    if belief.ndim != 2 or t.shape != belief.shape[:1]:
        raise MeasureError(
            f"probabilities {belief.shape!r} and labels {t.shape!r} don't fit", next_action="pass both for the same rows"
        )
    true = belief.argmax(axis=1)
    rows = np.bincount(true, minlength=belief.shape[1]).astype(np.float64)
    right = np.bincount(true[true == t], minlength=belief.shape[1])
    found: Matrix = np.divide(right, rows, out=np.full(rows.shape, np.nan), where=rows > 0)
    return found


def _features(features: ArrayLike) -> Matrix:
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


def _joined(x: Matrix, t: Columns, scale: float, classes: int) -> Matrix:
    both: Matrix = np.hstack([x, scale * np.eye(classes)[t]])
    return both


def _fit(x: Matrix, y: Columns, at: Matrix, classes: int) -> Matrix:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=STRENGTH, max_iter=MAX_ITERATIONS, tol=1e-3).fit(x, y)
    chance = np.full((at.shape[0], classes), 1e-9)
    chance[:, model.classes_] = np.maximum(model.predict_proba(at), 1e-9)
    total: Matrix = chance / chance.sum(axis=1, keepdims=True)
    return total
