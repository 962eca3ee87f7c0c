"""A monitored rate in figures: its estimate, an interval that is right at every look, and since when it has been too high."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from overproof.errors import MeasureError
from overproof.measure.intervals import Interval, confidence_sequence
from overproof.measure.monitor import AuditDay, Vector, merged

_BETS = 24
_EXCESS = (0.2, 0.45, 0.7, 0.9, 1.1, 1.4, 1.8, 2.5, 4.0)  # rates over the bar, as parts of it, on which most bets lie
_NEARLY = 2.0  # log evidence that a day may fall short of the best and still be named as the first one


@dataclass(frozen=True, kw_only=True, slots=True)
class Draw:
    """With which probabilities the requests of a day were drawn, as planned before the day."""

    low: float
    """The least of any request, in (0, 1]."""
    high: float
    """The largest."""

    @property
    def even(self) -> bool:
        """Whether all requests had the same."""
        return self.low == self.high


@dataclass(frozen=True, kw_only=True, slots=True)
class Counted:
    """A settled day with its draw."""

    row: AuditDay
    """What was counted."""
    draw: Draw
    """How it was drawn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """The share of wrong answers among all requests of some days."""

    value: float
    """The estimate, in [0, 1]."""
    low: float
    """Lower end of an interval that may be read after every day and is right at all of them at once."""
    high: float
    """Its upper end."""
    audits: int
    """Audited answers behind it."""
    wrong: int
    """Wrong ones among these."""
    method: str
    """How it was made, in words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Since:
    """The day from which on a rate has been too high, as far as the record shows; positions in the record, from 0."""

    first: int
    """The day from which on the evidence is largest."""
    earliest: int
    """The first day that fits nearly as well."""
    latest: int
    """The last one that does."""


def audit_bets(bar: float, draw: Draw) -> Vector:
    """
    Bets for audits: more of them than in `monitor.bets` where live faults are, at 1.5 to 4 times the bar.

    Args:
        bar: the rate that is not to be exceeded, in (0, 1).
        draw: with which probabilities the day was drawn.

    Returns: shape (12,), rising; each keeps wealth positive whatever is seen.
    Raises: MeasureError for a bar outside its range.
    Source: the best fixed bet against a rate of (1 + x) bar is about x times the audit probability of the rows at fault
        (Kelly 1956); a mixture pays the logarithm of a bet's share, arXiv:2010.09686.

    >>> audit_bets(0.05, Draw(low=1.0, high=1.0)).round(2).tolist()
    [0.2, 0.45, 0.7, 0.9, 1.1, 1.4, 1.8, 2.5, 4.0, 6.84, 11.7, 19.6]
    """
    if not 0.0 < bar < 1.0:
        raise MeasureError(f"a monitor needs a bar in (0, 1), got {bar!r}", next_action="pass a fraction")
    low, high = (1.0, 1.0) if draw.even else (draw.low, draw.high)
    near = low * np.array(_EXCESS)
    far = np.geomspace(near[-1], max(near[-1], 20.0 * high), 13 - len(near))[1:]
    return np.asarray(np.minimum(np.concatenate([near, far]), 0.98 / bar))


def day_gain(day: Counted, bar: float) -> Vector:
    """
    What a settled day adds to a monitor.

    Args:
        day: the day and how it was drawn.
        bar: the rate that is not to be exceeded, in (0, 1).

    Returns: shape (12,), log wealth of each bet of `audit_bets`; fold it with the folds of `monitor`.
    Raises: MeasureError for a bar or counts that can't be.
    Source: where all requests have the same chance the audited ones are a plain sample, which is quicker; else every
        request counts as 1{audited and wrong} / pi, Horvitz and Thompson 1952, JASA 47. A row that stands for many counts
        as at most 1 / low, which can only delay an alarm.

    >>> from datetime import date
    >>> row = AuditDay(day=date(2025, 3, 1), requests=80, audited=40, unlabelled=0, wrong_by_pi=((0.5, 40),))
    >>> bool((day_gain(Counted(row=row, draw=Draw(low=0.5, high=0.5)), 0.05) > 0).all())
    True
    """
    row, draw = day.row, day.draw
    (row,) = merged([row])  # says which counts can't be
    bet = audit_bets(bar, draw)
    if draw.even:
        return np.asarray(row.wrong * np.log1p(bet * (1.0 - bar)) + (row.audited - row.wrong) * np.log1p(-bet * bar))
    quiet = (row.requests - row.wrong) * np.log1p(-bet * bar)
    seen = [count * np.log1p(bet * (1.0 / max(pi, draw.low) - bar)) for pi, count in row.wrong_by_pi]
    return np.asarray(np.sum([quiet, *seen], axis=0))


def audited_rate(days: Sequence[Counted], d: float) -> Rate:
    """
    Estimate and interval of the share of wrong answers, from audits of unequal probability.

    Args:
        days: settled days, at least one with a request.
        d: chance that a constant rate ever leaves its interval, in (0, 1).

    Returns: the rate, with how it was made.
    Raises: MeasureError without a request.
    Source: plain samples: beta-binomial confidence sequence; else a betting confidence sequence, Waudby-Smith and Ramdas
        2020, arXiv:2010.09686: mixtures of upward and downward bets, each with half of d, and every rate that is not
        refuted stays in.

    >>> from datetime import date
    >>> row = AuditDay(day=date(2025, 3, 1), requests=4000, audited=300, unlabelled=0, wrong_by_pi=((0.05, 8), (0.5, 20)))
    >>> rate = audited_rate([Counted(row=row, draw=Draw(low=0.05, high=0.5))], 0.05)
    >>> rate.value, round(rate.low, 3), round(rate.high, 3)
    (0.05, 0.018, 0.119)
    """
    requests = sum(day.row.requests for day in days)
    if not requests:
        raise MeasureError("no requests have no error rate", next_action="wait for a settled day")
    audits, wrong = (sum(getattr(day.row, name) for day in days) for name in ("audited", "wrong"))
    if len({day.draw.low for day in days if day.draw.even}) == 1 and all(day.draw.even for day in days) and audits:
        both, value = confidence_sequence(wrong, audits, d), wrong / audits
        method = f"confidence sequence of {audits} audits drawn alike"
    else:
        both = _betting(days, d)
        value = min(1.0, math.fsum(count / pi for day in days for pi, count in day.row.wrong_by_pi) / requests)
        method = f"Horvitz-Thompson over {requests} requests, betting confidence sequence of {audits} weighted audits"
    return Rate(value=value, low=both.low, high=both.high, audits=audits, wrong=wrong, method=method)


def since_when(gains: ArrayLike) -> Since:
    """
    From which day on a rate has been above its bar, given that it is now.

    Args:
        gains: shape (days, 12), one increment a day, up to the day of the alarm.

    Returns: the first day of the stretch with the largest evidence, and those that come near.
    Raises: MeasureError for a record of another shape.
    Source: the maximum over starting days of the evidence of the mixture of bets since then: the estimate that belongs to
        CUSUM, Page 1954, Biometrika 41. It is an estimate, and a slow change has no first day.

    >>> from overproof.measure.monitor import increment
    >>> quiet, loud = increment(1, 50, 0.05), increment(12, 50, 0.05)
    >>> since_when([quiet, quiet, quiet, loud, loud]).first
    3
    """
    found = np.asarray(gains, dtype=np.float64)
    if found.ndim != 2 or not len(found):
        raise MeasureError(f"a record has shape (days, bets), got {found.shape!r}", next_action="stack the days' increments")
    ahead = found[::-1].cumsum(axis=0)[::-1]
    each = np.logaddexp.reduce(ahead, axis=1)
    near = np.flatnonzero(each >= each.max() - _NEARLY)
    return Since(first=int(each.argmax()), earliest=int(near[0]), latest=int(near[-1]))


def _betting(days: Sequence[Counted], d: float) -> Interval:
    """Every rate that neither the upward nor the downward bets refute; both are monotone in the rate."""
    groups: dict[float, tuple[int, dict[float, int]]] = {}
    for day in days:
        floor = min([day.draw.low, *(pi for pi, _ in day.row.wrong_by_pi)])
        requests, counts = groups.get(floor, (0, {}))
        for pi, count in day.row.wrong_by_pi:
            counts[pi] = counts.get(pi, 0) + count
        groups[floor] = (requests + day.row.requests, counts)
    up = {floor: np.geomspace(0.05 * floor, 0.98, _BETS) for floor in groups}
    down = {floor: -np.geomspace(0.01, 0.98, _BETS) * floor for floor in groups}
    level = math.log(2.0 / d)

    def refuted(rate: float, bets: dict[float, Vector]) -> bool:
        state = np.zeros(_BETS)
        for floor, (requests, counts) in groups.items():
            bet = bets[floor]
            state += (requests - sum(counts.values())) * np.log1p(-bet * rate)
            for pi, count in counts.items():
                state += count * np.log1p(bet * (1.0 / pi - rate))
        return bool(np.logaddexp.reduce(state) - math.log(_BETS) >= level)

    return Interval(
        low=_edge(lambda rate: refuted(rate, up), outside=0.0, inside=1.0),
        high=_edge(lambda rate: refuted(rate, down), outside=1.0, inside=0.0),
    )


def _edge(refuted: Callable[[float], bool], *, outside: float, inside: float) -> float:
    """The last refuted rate on the way in; the end itself where even that is admitted."""
    if not refuted(outside):
        return outside
    for _ in range(40):
        middle = (outside + inside) / 2.0
        outside, inside = (middle, inside) if refuted(middle) else (outside, middle)
    return outside
