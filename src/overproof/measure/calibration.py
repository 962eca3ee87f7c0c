"""How a candidate's confidence is read: temperature, and how far stated confidence is from observed accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # its submodules load on first use: a run that reuses everything computes nothing
from numpy.typing import ArrayLike, NDArray

from overproof.errors import MeasureError
from overproof.evidence import CurvePoint

SLICE_ROWS = 300
"""Rows from which on a slice gets a temperature of its own."""
_LOG_T_MAX = 4.0  # T in [0.018, 55]: wider than any student needs, narrow enough for a bounded search
_LOG_FLOOR = -700.0  # a class with probability 0 that was the answer costs much, not infinity


def probabilities(logits: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """
    Class probabilities at a temperature.

    Args:
        logits: shape (n, k), log-probabilities up to a constant per row; -inf is a class that can't be.
        temperature: > 0; above 1 it lowers confidence, the best class of a row stays the same.

    Returns: shape (n, k), float64, rows sum to 1.
    Raises: MeasureError for another shape, NaN, +inf, a row of -inf alone, or temperature <= 0.
    Source: Guo et al. 2017, arXiv:1706.04599, equation 9.

    >>> probabilities([[0.0, 0.0], [2.0, 0.0]], 1.0).round(3).tolist()
    [[0.5, 0.5], [0.881, 0.119]]
    """
    if not (temperature > 0.0 and math.isfinite(temperature)):
        raise MeasureError(
            f"a temperature is a finite number above 0, got {temperature!r}",
            next_action="fit it with `fit_temperature`",
        )
    return np.asarray(scipy.special.softmax(_logits(logits) / temperature, axis=1), dtype=np.float64)


def fit_temperature(logits: ArrayLike, target: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
    """
    The temperature that makes the labels of the calibration rows most likely.

    Args:
        logits: shape (n, k), log-probabilities up to a constant per row.
        target: shape (n,), column of each row's label.
        sample_weight: shape (n,), >= 0, not all 0; equal where not given.

    Returns: a temperature in [exp(-4), exp(4)]; far below 1 where every row is right by a margin, which says that
        there are too few hard rows to read a confidence from, not that the confidence is 1.
    Raises: MeasureError for no rows, shapes that differ, or a target outside the columns.
    Source: Guo et al. 2017, arXiv:1706.04599, section 4.2: minimum of the negative log-likelihood over ln T.

    >>> logits = [[4.0, 0.0]] * 8 + [[0.0, 4.0]] * 2
    >>> round(fit_temperature(logits, [0] * 10), 2)
    2.89
    """
    from scipy.optimize import minimize_scalar

    raw = _logits(logits)
    label = _columns(target, raw.shape)
    weight = _weights(sample_weight, raw.shape[0])
    rows = np.arange(raw.shape[0])

    def loss(log_t: float) -> float:
        likelihood = scipy.special.log_softmax(raw / math.exp(log_t), axis=1)[rows, label]
        return -float(np.sum(weight * np.maximum(likelihood, _LOG_FLOOR)))

    found = minimize_scalar(loss, bounds=(-_LOG_T_MAX, _LOG_T_MAX), method="bounded", options={"xatol": 1e-6})
    return math.exp(float(found.x))


def log_loss(probability: ArrayLike, target: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
    """
    Mean surprise at the labels; the lower, the better the probabilities.

    Args:
        probability: shape (n, k), rows sum to 1.
        target: shape (n,), column of each row's label.
        sample_weight: shape (n,), >= 0, not all 0; equal where not given.

    Returns: nats, >= 0.
    Raises: MeasureError for no rows, shapes that differ, values outside [0, 1], or a target outside the columns.
    Source: Good 1952, Journal of the Royal Statistical Society B 14 (logarithmic score).

    >>> round(log_loss([[0.5, 0.5], [0.9, 0.1]], [0, 0]), 4)
    0.3993
    """
    chance = _chances(probability)
    label = _columns(target, chance.shape)
    weight = _weights(sample_weight, chance.shape[0])
    given = chance[np.arange(chance.shape[0]), label]
    logs = np.log(np.maximum(given, math.exp(_LOG_FLOOR)))
    return max(0.0, -float(np.sum(weight * logs)))


def brier(probability: ArrayLike, target: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
    """
    Mean squared distance of the probabilities from the truth, halved.

    Args:
        probability: shape (n, k), rows sum to 1.
        target: shape (n,), column of each row's label.
        sample_weight: shape (n,), >= 0, not all 0; equal where not given.

    Returns: a number in [0, 1]; 0 is perfect. With two classes it is the usual binary score.
    Raises: MeasureError for no rows, shapes that differ, values outside [0, 1], or a target outside the columns.
    Source: Brier 1950, Monthly Weather Review 78, divided by 2.

    >>> round(brier([[0.5, 0.5], [0.9, 0.1]], [0, 0]), 4)
    0.13
    """
    chance = _chances(probability)
    label = _columns(target, chance.shape)
    weight = _weights(sample_weight, chance.shape[0])
    truth = np.zeros_like(chance)
    truth[np.arange(chance.shape[0]), label] = 1.0
    return float(np.sum(weight * np.sum((chance - truth) ** 2, axis=1)) / 2.0)


def reliability_curve(confidence: ArrayLike, correct: ArrayLike, *, bins: int = 15) -> tuple[CurvePoint, ...]:
    """
    Observed accuracy beside stated confidence, in bins of about equally many rows.

    Args:
        confidence: shape (n,), probability of the predicted class, in [0, 1].
        correct: shape (n,), bool.
        bins: how many bins; equal confidences share one, so there may be fewer.

    Returns: one point for each bin, by rising confidence; the counts sum to n. It doesn't depend on the rows' order.
    Raises: MeasureError if n < bins, bins < 1, or a value lies outside [0, 1].
    Source: Nguyen and O'Connor 2015, arXiv:1508.05154 (adaptive bins).

    >>> [(p.confidence, p.accuracy, p.n) for p in reliability_curve([0.5, 0.5, 0.75, 1.0], [0, 1, 1, 1], bins=2)]
    [(0.5, 0.5, 2), (0.875, 1.0, 2)]
    """
    stated = np.asarray(confidence, dtype=np.float64)
    right = np.asarray(correct, dtype=np.float64)
    if stated.ndim != 1 or stated.shape != right.shape:
        raise MeasureError(
            f"confidence and correct are two rows of one length, got {stated.shape!r} and {right.shape!r}",
            next_action="pass both for the same rows",
        )
    if bins < 1 or stated.size < bins:
        raise MeasureError(
            f"{bins!r} bins need at least as many rows, got {stated.size}",
            next_action="collect more rows or ask for fewer bins",
        )
    if not (_in_unit(stated) and _in_unit(right)):
        raise MeasureError(
            "a confidence lies outside [0, 1]", next_action="turn logits into probabilities first"
        )
    return tuple(
        CurvePoint(confidence=total / count, accuracy=good / count, n=int(count))
        for count, total, good in _binned(stated, right, bins).T.tolist()
    )


def _places(stated: NDArray[np.float64], bins: int) -> NDArray[np.intp]:
    """Each row's bin."""
    edges = np.sort(stated)[np.arange(1, bins) * stated.size // bins]
    fresh = np.ones(edges.size, dtype=np.bool_)
    fresh[1:] = edges[1:] != edges[:-1]
    return np.searchsorted(edges[fresh], stated, side="right")


def _binned(stated: NDArray[np.float64], right: NDArray[np.float64] | NDArray[np.bool_], bins: int) -> NDArray[np.float64]:
    """Rows, sum of confidences and hits of each bin that has rows."""
    place = _places(stated, bins)
    found = np.array([np.bincount(place), np.bincount(place, weights=stated), np.bincount(place, weights=right)])
    return found if found[0].all() else found[:, found[0] > 0]


def _gap(binned: NDArray[np.float64], n: int) -> float:
    """The calibration error of what has been checked before: a band asks a thousand times."""
    count, total, good = binned
    return math.fsum(count / n * np.abs(good / count - total / count))


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, *, bins: int = 15) -> float:
    """
    Mean gap between stated confidence and observed accuracy; no bar may rest on it alone.

    Args:
        confidence: shape (n,), probability of the predicted class, in [0, 1].
        correct: shape (n,), bool.
        bins: number of equal-mass bins.

    Returns: a fraction in [0, 1]; 0.03 means three percentage points.
    Raises: MeasureError if n < bins, bins < 1, or a value lies outside [0, 1].
    Source: Guo et al. 2017, arXiv:1706.04599, equation 3, with the bins of `reliability_curve`.

    >>> expected_calibration_error([0.5, 0.5, 0.75, 1.0], [0, 1, 1, 1], bins=2)
    0.0625
    """
    curve = reliability_curve(confidence, correct, bins=bins)
    n = sum(point.n for point in curve)
    return math.fsum(point.n / n * abs(point.accuracy - point.confidence) for point in curve)


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationBand:
    """A calibration error with its uncertainty; for display, no bar may rest on it."""

    value: float
    """The adaptive ECE, in [0, 1]."""
    low: float
    """Lower end of the bootstrap band."""
    high: float
    """Upper end of the bootstrap band."""
    noise: float
    """What a perfectly calibrated student with these confidences shows on so many rows, on average."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SliceTemperature:
    """The temperature that one slice is read at."""

    name: str
    """The slice."""
    temperature: float
    """Its own, or that of all rows."""
    own: bool
    """It has rows enough for its own."""
    n: int
    """Its rows."""


def slice_temperatures(
    logits: ArrayLike, target: ArrayLike, slices: Sequence[str]
) -> tuple[SliceTemperature, ...]:
    """
    A temperature for each slice that has rows enough, the common one for the others.

    Args:
        logits: shape (n, k), log-probabilities up to a constant per row.
        target: shape (n,), column of each row's label.
        slices: n slice names, one a row.

    Returns: one for each slice, by name; its own from 300 rows on.
    Raises: MeasureError for columns of different length or targets outside the columns.
    Source: ours; below 300 rows a slice's own temperature is noisier than its difference from the common one.

    >>> [found.own for found in slice_temperatures([[4.0, 0.0]] * 8 + [[0.0, 4.0]] * 2, [0] * 10, ["a"] * 10)]
    [False]
    """
    raw = _logits(logits)
    label = _columns(target, raw.shape)
    if len(slices) != label.size:
        raise MeasureError(
            f"{label.size} rows and {len(slices)} slice names", next_action="pass one slice name for each row"
        )
    everywhere = fit_temperature(raw, label)
    name_of = np.asarray(slices, dtype=object)
    found = []
    for name in sorted(set(slices)):
        rows = name_of == name
        n = int(rows.sum())
        own = n >= SLICE_ROWS
        found.append(
            SliceTemperature(
                name=name,
                temperature=fit_temperature(raw[rows], label[rows]) if own else everywhere,
                own=own,
                n=n,
            )
        )
    return tuple(found)


def calibration_band(
    confidence: ArrayLike, correct: ArrayLike, *, bins: int = 15, level: float = 0.95, draws: int = 500, seed: int = 0
) -> CalibrationBand:
    """
    Calibration error with a bootstrap band, beside what pure chance would show.

    Args:
        confidence: shape (n,), probability of the predicted class, in [0, 1].
        correct: shape (n,), bool.
        bins: number of equal-mass bins.
        level: confidence of the band, in (0, 1).
        draws: resamples, at least 1.
        seed: of the resampling.

    Returns: the band; it lies around what is seen, which even with perfect calibration is about `noise`, not 0.
    Raises: MeasureError if n < bins, bins < 1, draws < 1, a value lies outside [0, 1] or level outside (0, 1).
    Source: Efron 1979, Annals of Statistics 7 (bootstrap over rows, its percentiles moved by the bias seen); noise as in the consistency bars of
        Broecker and Smith 2007, Weather and Forecasting 22.

    >>> band = calibration_band([0.9] * 100, [True] * 60 + [False] * 40, bins=1)
    >>> round(band.value, 2), band.low < 0.3 < band.high, band.noise < 0.1
    (0.3, True, True)
    """
    value = expected_calibration_error(confidence, correct, bins=bins)
    if draws < 1 or not 0.0 < level < 1.0:
        raise MeasureError(
            f"a band needs draws and a level in (0, 1), got {draws!r} and {level!r}",
            next_action="use the defaults",
        )
    stated, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    rng = np.random.default_rng(seed)
    place = _places(stated, bins)  # chance moves hits alone
    rows, sums, _ = _binned(stated, right, bins)
    some = np.bincount(place) > 0
    seen, chance = [], []
    for _ in range(draws):
        pick = rng.integers(0, stated.size, stated.size)
        seen.append(_gap(_binned(stated[pick], right[pick], bins), stated.size))
        good = np.bincount(place, weights=rng.random(stated.size) < stated)[some]
        chance.append(_gap(np.array([rows, sums, good]), stated.size))
    # A resample adds noise of its own to an error that noise only makes larger: the band is moved back by the mean of it.
    shift = float(np.mean(seen)) - value
    low, high = np.quantile(seen, [(1.0 - level) / 2.0, (1.0 + level) / 2.0]) - shift
    return CalibrationBand(
        value=value, low=max(0.0, min(float(low), value)), high=min(1.0, max(float(high), value)), noise=float(np.mean(chance))
    )


def _logits(values: ArrayLike) -> NDArray[np.float64]:
    raw = np.asarray(values, dtype=np.float64)
    if raw.ndim != 2 or raw.shape[1] < 1 or bool(np.any(np.isnan(raw) | (raw == np.inf))):
        raise MeasureError(
            f"logits have shape (n, k) and hold no NaN or +inf, got shape {raw.shape!r}",
            next_action="look at the student's output: training may have diverged",
        )
    if bool(np.any(np.all(raw == -np.inf, axis=1))):
        raise MeasureError(
            "a row gives every class probability 0", next_action="look at the student's output"
        )
    return raw


def _chances(values: ArrayLike) -> NDArray[np.float64]:
    chance = np.asarray(values, dtype=np.float64)
    if chance.ndim != 2 or not _in_unit(chance):
        raise MeasureError(
            f"probabilities have shape (n, k) and lie in [0, 1], got shape {chance.shape!r}",
            next_action="turn logits into probabilities first",
        )
    return chance


def _columns(values: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.int64]:
    label = np.asarray(values)
    if label.shape != shape[:1] or label.size == 0 or label.dtype.kind not in "iu":
        raise MeasureError(
            f"targets are whole numbers of shape {shape[:1]!r}, at least one, got {label.dtype} {label.shape!r}",
            next_action="pass the column of each row's label",
        )
    if int(label.min()) < 0 or int(label.max()) >= shape[1]:
        raise MeasureError(
            f"a target lies outside the {shape[1]} columns", next_action="use the label order of the logits"
        )
    return label.astype(np.int64)


def _weights(values: ArrayLike | None, n: int) -> NDArray[np.float64]:
    """Weights that sum to 1."""
    if values is None:
        return np.full(n, 1.0 / n)
    weight = np.asarray(values, dtype=np.float64)
    total = float(weight.sum())
    if weight.shape != (n,) or bool(np.any(~(weight >= 0.0))) or not 0.0 < total < math.inf:
        raise MeasureError(
            f"weights have shape ({n},), are at least 0 and not all 0, got shape {weight.shape!r}",
            next_action="pass one weight for each row",
        )
    return weight / total


def _in_unit(values: NDArray[np.float64]) -> bool:
    return bool(np.all((values >= 0.0) & (values <= 1.0)))
