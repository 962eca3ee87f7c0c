"""Shares of live traffic read day by day against what they were where the student was proven, many at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from overproof.errors import MeasureError
from overproof.measure.drift import ShareLane
from overproof.measure.intervals import cp_lower, cp_upper
from overproof.measure.monitor import Vector, increment, pager_level

LEAST, MOST = 1e-6, 1.0 - 1e-6
"""Bounds lie between these: a bet against 0 or 1 has no stake."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShareBounds:
    """Between these a share is as it was, for all that can be said."""

    low: float
    """In [0, 1); 0 where no fall could be told."""
    high: float
    """In (0, 1]; 1 where no rise could be told."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """A stream reached its level."""

    stream: int
    """Which, as in the counts."""
    at: int
    """The day's number, from 0, on which its epoch ended."""
    since: int
    """Number of the day from which on the evidence grew."""
    up: bool
    """Whether the share rose."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LaneReading:
    """Where the streams of a lane stand."""

    log_e: Vector
    """Shape (streams,): log evidence after the last epoch, of the stronger direction; 0 before the first."""
    levels: Vector
    """Shape (streams,): a page wherever it is reached."""
    pages: tuple[Page, ...]
    """By time. After a page both directions of a stream start afresh."""


def share_bounds(k: float, m: float, *, tolerance: float, d: float) -> ShareBounds:
    """
    What a share has to leave before it is drift: the tolerance and the interval of its reference, both.

    Args:
        k: reference rows with the property.
        m: reference rows, above 0; a small reference widens the bounds, so that its own chance pages nobody.
        tolerance: factor, above 1, that a share may rise or fall by.
        d: chance of each bound to be on the wrong side of the true share, in (0, 1).

    Returns: the bounds, inside (0, 1).
    Raises: MeasureError for impossible counts, tolerance or d.
    Source: Clopper and Pearson 1934, Biometrika 26.

    >>> found = share_bounds(50, 1000, tolerance=1.25, d=0.01)
    >>> round(found.low, 3), round(found.high, 3)
    (0.035, 0.068)
    """
    if not (0 <= k <= m and m >= 1 and tolerance > 1.0 and 0.0 < d < 1.0):
        raise MeasureError(
            f"no bounds for {k!r} of {m!r} rows, tolerance {tolerance!r}, d {d!r}", next_action="count reference rows"
        )
    rows, share = math.floor(m), k / m
    high = max(share * tolerance, cp_upper(min(rows, math.ceil(share * rows)), rows, d))
    low = min(share / tolerance, cp_lower(math.floor(share * rows), rows, d))
    return ShareBounds(low=float(np.clip(low, 0.0, MOST)), high=float(np.clip(high, LEAST, 1.0)))


def read_lane(
    counts: ArrayLike, totals: ArrayLike, bounds: Sequence[ShareBounds], *, lane: ShareLane, weights: ArrayLike, falls: ArrayLike
) -> LaneReading:
    """
    Read many shares in one lane, epoch by epoch, and start a stream afresh after each of its pages.

    Args:
        counts: shape (streams, days), rows with the property on each closed day, without gaps.
        totals: shape (streams, days), all rows.
        bounds: one for each stream.
        lane: days of an epoch, and the least mean number of epochs between false pages; its tolerance is in the bounds.
        weights: shape (streams,), share of all streams' false pages, above 0.
        falls: shape (streams,), bool: whether a fall is read as well, for half of the weight.

    Returns: evidence, levels and pages.
    Raises: MeasureError for shapes that don't fit, or as `increment`.
    Source: e-SR detectors, Shin, Ramdas and Rinaldo 2022, arXiv:2203.03532: at level ln(A / w) a stream pages falsely
        at most once in A / w epochs in the mean, so all streams together once in A; each fresh start renews that.

    >>> lane = ShareLane(days=1, tolerance=2.0, mean_epochs=365)
    >>> found = read_lane([[5] * 9 + [30] * 9], [[100] * 18], [ShareBounds(low=0.025, high=0.1)], lane=lane, weights=[1], falls=[True])
    >>> page = found.pages[0]
    >>> page.since, page.up
    (9, True)
    """
    k, n = (_epochs(np.asarray(rows, dtype=np.float64), lane.days) for rows in (counts, totals))
    weight, both = np.asarray(weights, dtype=np.float64), np.asarray(falls, dtype=np.bool_)
    streams = len(bounds)
    if k.shape != n.shape or not k.shape[0] == weight.size == both.size == streams:
        raise MeasureError(
            f"counts {k.shape!r}, totals {n.shape!r}, {streams} bounds and {weight.size} weights don't fit",
            next_action="give one row of days, one pair of bounds and one weight for each stream",
        )
    levels = np.array([pager_level(lane.mean_epochs, weight=min(1.0, w) / (2.0 if b else 1.0)) for w, b in zip(weight, both, strict=True)])
    gains = np.stack([_gains(k, n, bounds, both, up=True), _gains(k, n, bounds, both, up=False)])  # (2, streams, epochs, 12)
    state = np.full((2, streams, gains.shape[-1]), -np.inf)
    evidence = np.zeros((2, streams))
    fresh = np.zeros(streams, dtype=np.int64)
    pages: list[Page] = []
    for epoch in range(k.shape[1]):
        state = np.logaddexp(state, 0.0) + gains[:, :, epoch]
        evidence = np.logaddexp.reduce(state, axis=-1) - math.log(gains.shape[-1])
        for stream in np.flatnonzero((evidence >= levels).any(axis=0)).tolist():
            side = int(evidence[:, stream].argmax())
            begun = _since(gains[side, stream, int(fresh[stream]) : epoch + 1]) + int(fresh[stream])
            pages.append(Page(stream=stream, at=(epoch + 1) * lane.days - 1, since=begun * lane.days, up=side == 0))
            state[:, stream] = -np.inf
            fresh[stream] = epoch + 1
    return LaneReading(log_e=np.asarray(evidence.max(axis=0)), levels=levels, pages=tuple(pages))


def would_see(rows: float, bound: float, *, level: float) -> bool:
    """
    Whether a share of twice its bound, or five points above it where that is more, would be seen in so many rows.

    Args:
        rows: live rows of a slice, at least 0.
        bound: the upper bound, in (0, 1].
        level: log evidence of a page.

    Returns: False where quiet would mean nothing. Where that is above half of the way to all, half of the way counts.
    Raises: MeasureError as `increment`.
    Source: the evidence of the expected count; a reading that could not have paged is no good news.

    >>> would_see(2000, 0.05, level=8.0), would_see(40, 0.05, level=8.0)
    (True, False)
    """
    if bound >= MOST or rows <= 0:
        return False
    gain = increment(rows * min(max(2.0 * bound, bound + 0.05), (1.0 + bound) / 2.0), rows, bound)
    return bool(np.logaddexp.reduce(gain) - math.log(gain.size) >= level)


def _epochs(daily: NDArray[np.float64], days: int) -> Vector:
    if daily.ndim != 2 or days < 1:
        raise MeasureError(f"counts have shape (streams, days), got {daily.shape!r}", next_action="give one count a day")
    whole = daily.shape[1] // days
    return np.asarray(daily[:, : whole * days].reshape(len(daily), whole, days).sum(axis=-1))


def _gains(k: Vector, n: Vector, bounds: Sequence[ShareBounds], falls: NDArray[np.bool_], *, up: bool) -> Vector:
    """Shape (streams, epochs, 12); minus infinity where a stream can't leave its bound or isn't read in this direction."""
    found = np.full((*k.shape, 12), -np.inf)
    for stream, one in enumerate(bounds):
        if up and one.high < MOST:
            found[stream] = increment(k[stream], n[stream], one.high)
        elif not up and falls[stream] and one.low > LEAST:
            found[stream] = increment(n[stream] - k[stream], n[stream], 1.0 - one.low)
    return found


def _since(gains: Vector) -> int:
    """The start whose evidence up to now is greatest."""
    left = np.cumsum(gains[::-1], axis=0)[::-1]
    return int(np.logaddexp.reduce(left, axis=-1).argmax())
