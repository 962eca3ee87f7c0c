"""Venn–Abers prediction: a confidence between the two that isotonic regression gives if the next answer is right or wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from overproof.errors import MeasureError

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class VennAbers:
    """Both predictions for every place that a new score can take among the calibration scores."""

    edges: Floats
    """Shape (m,): rising scores at which something changes."""
    low: Floats
    """Shape (2m + 1,): below the first edge, at it, between it and the second, and so on: the chance if the answer is wrong."""
    high: Floats
    """Shape (2m + 1,): the chance if the answer is right; never below `low`."""

    @property
    def merged(self) -> Floats:
        """Shape (2m + 1,): the one chance with the least regret under log-loss."""
        return np.asarray(self.high / (1.0 - self.low + self.high), dtype=np.float64)


def places(edges: ArrayLike, scores: ArrayLike) -> NDArray[np.int64]:
    """
    Where scores fall among edges.

    Args:
        edges: shape (m,), rising.
        scores: shape (n,).

    Returns: shape (n,), 2i + 1 at edge i, 2i between edge i - 1 and edge i.
    Raises: nothing.
    Source: ours.

    >>> places([1.0, 2.0], [0.0, 1.0, 1.5, 2.0, 3.0]).tolist()
    [0, 1, 2, 3, 4]
    """
    rising, asked = np.asarray(edges, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    return np.asarray(np.searchsorted(rising, asked, "left") + np.searchsorted(rising, asked, "right"), dtype=np.int64)


def fit_venn_abers(scores: ArrayLike, right: ArrayLike) -> VennAbers:
    """
    Inductive Venn–Abers prediction, for every score that may come.

    Args:
        scores: shape (n,), finite, n >= 1; the higher, the surer.
        right: shape (n,), bool.

    Returns: the predictor. If the rows are exchangeable with the next one, one of its two chances is calibrated exactly.
    Raises: MeasureError for other shapes or scores that are not finite.
    Source: Vovk and Petej 2014, "Venn-Abers predictors", arXiv:1211.0025, with the merging of its section 4.

    >>> found = fit_venn_abers([0.2, 0.4, 0.8], [False, True, True])
    >>> found.merged[places(found.edges, [0.1, 0.9])].round(2).tolist()
    [0.33, 0.75]
    """
    s, y = np.asarray(scores, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if s.ndim != 1 or s.shape != y.shape or not s.size or not bool(np.isfinite(s).all()):
        raise MeasureError(f"scores of shape {s.shape} for {y.shape} rows", next_action="give one finite score a row")
    edges, place, count = np.unique(s, return_inverse=True, return_counts=True)
    total, rows = np.asarray(np.bincount(place, weights=y), dtype=np.float64), np.asarray(count, dtype=np.float64)
    cells = 2 * edges.size + 1
    low, high = (_steps(total, rows, cells, extra) for extra in (0.0, 1.0))
    flat = (np.diff(low) == 0.0) & (np.diff(high) == 0.0)
    moves = ~(flat[0::2] & flat[1::2])  # edge i lies between the cells 2i and 2i + 2
    moves[0] = True  # also where all scores are read alike there is a place to look up
    keep = np.sort(np.concatenate([[0], 2 * np.flatnonzero(moves) + 1, 2 * np.flatnonzero(moves) + 2])).astype(np.int64)
    return VennAbers(edges=edges[moves], low=low[keep], high=high[keep])


def _steps(total: Floats, count: Floats, cells: int, extra: float) -> Floats:
    """The fitted value at each cell if one more row of outcome `extra` lay there; it never falls, so halves that agree are done."""
    found = np.empty(cells)
    found[0], found[-1] = _value(total, count, 0, extra), _value(total, count, cells - 1, extra)
    open_ = [(0, cells - 1)]
    while open_:
        first, last = open_.pop()
        if found[first] == found[last]:
            found[first : last + 1] = found[first]
        elif last - first > 1:
            middle = (first + last) // 2
            found[middle] = _value(total, count, middle, extra)
            open_ += [(first, middle), (middle, last)]
    return found


def _value(total: Floats, count: Floats, cell: int, extra: float) -> float:
    from scipy.optimize import isotonic_regression

    at = cell // 2
    if cell % 2:
        sums, rows = total.copy(), count.copy()
        sums[at], rows[at] = sums[at] + extra, rows[at] + 1.0
    else:
        sums, rows = np.insert(total, at, extra), np.insert(count, at, 1.0)
    # Blocks that are equal in truth differ in the last place; rounding lets halves agree.
    return float(np.round(isotonic_regression(sums / rows, weights=rows).x[at], 12))
