"""How far a chosen set is from the live mix, with intervals; texts as points; groups of like texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from overproof.errors import MeasureError
from overproof.evidence import Verdict
from overproof.measure.intervals import cp_lower, cp_upper
from overproof.measure.minhash import words_of
from overproof.measure.slices import total_variation

FEATURES = 2**12
DIMENSIONS = 48
FIT_ROWS = 5_000
"""Texts that the centres are fitted on; the others are only put to the nearest one."""
ROUNDS = 12
BLOCK = 20_000
RAKES = 20
"""Rounds over the margins; the last one is met exactly in each of them."""
SHARE_LOW, SHARE_HIGH = 0.8, 1.25
"""A slice has its live share if the ratio of the shares lies between these."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Distance:
    """A total variation distance between two mixes with an interval that holds at finite n."""

    value: float
    """As seen, in [0, 1]."""
    low: float
    """Lower end, in [0, 1]."""
    high: float
    """Upper end, in [0, 1]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ratio:
    """One share over another, with a three-valued answer to whether they are the same."""

    value: float | None
    """None where the second share is 0."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end; `math.inf` where the second share may be 0."""
    verdict: Verdict
    """Pass where all of the interval lies in [0.8, 1.25], fail where none of it does."""


def distance_radius(k: int, n: float, d: float) -> float:
    """
    How far the mix seen in n rows may be from the true mix over k segments.

    Args:
        k: segments, at least 1.
        n: independent rows, above 0; the effective number where rows have weights.
        d: chance to be farther, in (0, 1).

    Returns: a total variation distance, at most 1.
    Raises: MeasureError outside these ranges.
    Source: Weissman et al. 2003, HPL-2003-97R1, theorem 2.1: P(|p - q|_1 >= e) <= (2^k - 2) exp(-n e^2 / 2).

    >>> round(distance_radius(5, 1_000, 0.05), 3)
    0.057
    """
    if k < 1 or n <= 0 or not 0 < d < 1:
        raise MeasureError(f"no radius for k={k!r}, n={n!r}, d={d!r}", next_action="give k >= 1, n > 0, 0 < d < 1")
    if k == 1:
        return 0.0
    ways = k * math.log(2) + math.log1p(-(2.0 ** (1 - k)))  # ln(2^k - 2)
    return min(1.0, math.sqrt(2.0 / n * (ways - math.log(d))) / 2.0)


def effective_rows(weights: Sequence[float]) -> float:
    """
    How many equal rows say as much as weighted ones.

    Args:
        weights: non-negative, not all 0.

    Returns: at most their number.
    Raises: MeasureError for no weight above 0.
    Source: Kish 1965, Survey Sampling.

    >>> effective_rows([1.0, 1.0, 2.0]) < 3
    True
    """
    values = np.asarray(weights, dtype=np.float64)
    if not len(values) or values.min() < 0 or values.sum() <= 0:
        raise MeasureError("weights are at least 0 and not all 0", next_action="give at least one row")
    return float(values.sum() ** 2 / (values**2).sum())


def mix_distance(
    live: NDArray[np.int64], chosen: NDArray[np.int64], weights: NDArray[np.float64], *, segments: int, level: float = 0.95
) -> Distance:
    """
    The distance between the live mix and a set's mix.

    Args:
        live: shape (n,), segment of each live row, in [0, segments).
        chosen: shape (m,), segment of each chosen row.
        weights: shape (m,), non-negative.
        segments: how many there are.
        level: confidence of the interval.

    Returns: the seen distance; its ends are the seen one less and plus what each side may be off by, so the interval
        covers with at least `level` for independent rows, and more where the draw is stratified.
    Raises: MeasureError for an empty side.
    Source: triangle inequality with `distance_radius` at half of 1 - level on either side.

    >>> mix_distance(np.zeros(9, int), np.zeros(4, int), np.ones(4), segments=1)
    Distance(value=0.0, low=0.0, high=0.0)
    """
    if not len(live) or not len(chosen):
        raise MeasureError("a mix needs rows on both sides", next_action="give at least one row on each side")
    p = np.bincount(live, minlength=segments).astype(np.float64)
    q = np.bincount(chosen, weights=weights, minlength=segments)
    seen, d = total_variation(p, q), (1 - level) / 2
    off = distance_radius(segments, len(live), d) + distance_radius(segments, effective_rows(weights.tolist()), d)
    return Distance(value=seen, low=max(0.0, seen - off), high=min(1.0, seen + off))


def share_ratio(k: float, m: float, live: int, n: int, *, level: float = 0.95) -> Ratio:
    """
    Whether a slice has the same share in a set as in the live traffic.

    Args:
        k: the set's rows in the slice, in effective rows where they have weights.
        m: the set's rows.
        live: live rows in the slice.
        n: live rows.
        level: confidence of the interval.

    Returns: share in the set over live share. Passes where all of the interval lies in [0.8, 1.25], fails where none
        does, is undecided otherwise. Effective rows are rounded so that the interval gets wider, never narrower.
    Raises: MeasureError for counts that don't fit.
    Source: Clopper and Pearson 1934 for each share at half of 1 - level; the ratio's ends by division.

    >>> share_ratio(500, 5_000, 1_000, 10_000).verdict, share_ratio(3, 50, 6, 100).verdict
    ('pass', 'undecided')
    """
    d = (1 - level) / 4  # two shares, two sides
    rows = max(1, math.floor(m))
    below, above = min(rows, math.floor(k * rows / m) if m else 0), min(rows, math.ceil(k * rows / m) if m else 0)
    low_set, high_set = cp_lower(below, rows, d), cp_upper(above, rows, d)
    low_live, high_live = cp_lower(live, n, d), cp_upper(live, n, d)
    low = low_set / high_live
    high = high_set / low_live if low_live > 0 else math.inf
    inside = low >= SHARE_LOW and high <= SHARE_HIGH
    outside = high < SHARE_LOW or low > SHARE_HIGH
    value = (k / m) / (live / n) if live and m else None
    return Ratio(value=value, low=low, high=high, verdict="pass" if inside else "fail" if outside else "undecided")


@dataclass(frozen=True, kw_only=True, slots=True)
class Margin:
    """One way to cut the rows whose shares weights are to bring back."""

    live: NDArray[np.int64]
    """Shape (n,): segment of each live row."""
    chosen: NDArray[np.int64]
    """Shape (m,): segment of each chosen row."""


def raked(base: NDArray[np.float64], margins: Sequence[Margin]) -> NDArray[np.float64]:
    """
    Weights under which a set has the live shares of each margin.

    Args:
        base: shape (m,), positive: what each row weighs by itself.
        margins: ways to cut the rows; the last one is met exactly wherever the set has rows of the segment.

    Returns: shape (m,), positive. The mass of live segments of which the set has no row goes to the others in
        proportion.
    Raises: MeasureError for an empty side or a base that isn't positive.
    Source: Deming and Stephan 1940, iterative proportional fitting.

    >>> margin = Margin(live=np.array([0, 0, 0, 1]), chosen=np.array([0, 1]))
    >>> raked(np.ones(2), [margin]).tolist()
    [1.5, 0.5]
    """
    if not len(base) or base.min() <= 0 or any(not len(one.live) for one in margins):
        raise MeasureError("raking needs rows on both sides and positive weights", next_action="give at least one row")
    weights = base.astype(np.float64)
    whole = weights.sum()
    for _ in range(RAKES):
        for one in margins:
            k = int(max(one.live.max(), one.chosen.max())) + 1
            live = np.bincount(one.live, minlength=k).astype(np.float64)
            mass = np.bincount(one.chosen, weights=weights, minlength=k)
            # a segment that only the set has keeps its mass: nothing is known of its live share
            wanted = np.where(live > 0, live, 0.0)
            known = wanted[mass > 0].sum()
            factor = np.divide(wanted * whole, mass * max(known, 1.0), out=np.ones(k), where=(mass > 0) & (live > 0))
            weights = weights * factor[one.chosen]
    return np.asarray(weights * (whole / weights.sum()), dtype=np.float64)


def points(texts: Sequence[str], *, seed: int = 0) -> NDArray[np.float32]:
    """
    Texts as directions: like words, like direction. Made of the words alone, so it needs no model and no fitting.

    Args:
        texts: normalised texts.
        seed: of the projection.

    Returns: shape (n, 48), length 1 or 0.
    Raises: nothing.
    Source: Weinberger et al. 2009 (hashing), Johnson and Lindenstrauss 1984 (projection).

    >>> found = points(["where is my order", "where is my order", "close the account"])
    >>> bool(found[0] @ found[1] > 0.99 > found[0] @ found[2])
    True
    """
    from sklearn.feature_extraction.text import HashingVectorizer

    hashing = HashingVectorizer(
        analyzer=words_of, n_features=FEATURES, norm="l2", alternate_sign=False, dtype=np.float32
    )
    spread = np.random.default_rng(seed).standard_normal((FEATURES, DIMENSIONS)).astype(np.float32)
    found = np.empty((len(texts), DIMENSIONS), dtype=np.float32)
    for start in range(0, len(texts), BLOCK):
        part = hashing.transform(texts[start : start + BLOCK])
        counts = np.sqrt(part.data)  # a word said twice is not twice the topic
        part.data = counts
        rows = np.asarray(part @ spread)
        found[start : start + len(rows)] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    return found


def like_groups(vectors: NDArray[np.float32], k: int, *, seed: int = 0) -> NDArray[np.int64]:
    """
    Put each point to one of at most k centres.

    Args:
        vectors: shape (n, d), from `points`.
        k: centres wanted, at least 1.
        seed: of the rows that the centres start from.

    Returns: shape (n,), in [0, k).
    Raises: MeasureError for k below 1.
    Source: spherical k-means, Dhillon and Modha 2001, started as Arthur and Vassilvitskii 2007; fitted on at most 5,000 seeded rows.

    >>> like_groups(np.array([[1, 0], [1, 0], [0, 1]], dtype=np.float32), 1).tolist()
    [0, 0, 0]
    """
    if k < 1:
        raise MeasureError(f"{k} groups can't hold anything", next_action="ask for at least one group")
    n = len(vectors)
    rng = np.random.default_rng(seed)
    fit = vectors[np.sort(rng.permutation(n)[:FIT_ROWS])]
    centres = fit[[int(rng.integers(len(fit)))]] if len(fit) else fit
    away = np.clip(1.0 - fit @ centres.T, 0.0, None).min(axis=1, initial=2.0)
    while 0 < len(centres) < k and away.max() > 1e-6:  # a next start is drawn by its distance from those there are
        ends = np.cumsum(away, dtype=np.float64)
        at = min(int(np.searchsorted(ends, rng.random() * ends[-1])), len(fit) - 1)
        centres = np.vstack([centres, fit[at]])
        away = np.minimum(away, np.clip(1.0 - fit @ fit[at], 0.0, None))
    for _ in range(ROUNDS):
        nearest = (fit @ centres.T).argmax(axis=1)
        for j in range(len(centres)):
            members = fit[nearest == j]
            if len(members):
                middle = members.sum(axis=0)
                centres[j] = middle / max(float(np.linalg.norm(middle)), 1e-9)
    found = np.zeros(n, dtype=np.int64)
    for start in range(0, n, BLOCK):
        part = vectors[start : start + BLOCK]
        found[start : start + len(part)] = (part @ centres.T).argmax(axis=1) if len(centres) else 0
    return found
