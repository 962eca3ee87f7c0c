"""Alarms over audits of live answers that stay valid however often they are read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # its submodules load on first use: a run that reuses everything computes nothing
from numpy.typing import NDArray

from overproof.errors import MeasureError

_BETS = 12
Vector = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Fold:
    """Where a monitor stands after some settled days; the integers of the days are the record, this is derived."""

    day: int
    """How many days are in it."""
    state: tuple[float, ...]
    """Log wealth of each bet."""
    log_e: float
    """Log of the evidence against "the rate is within its bar"; an alarm compares it with `alarm_level`."""


def bets(bar: float, *, pi_min: float | None = None) -> Vector:
    """
    The fixed bets of a monitor.

    Args:
        bar: the rate that is not to be exceeded, in (0, 1).
        pi_min: least audit probability of a weighted stream, in (0, 1]; None for plain audits.

    Returns: shape (12,), rising; each keeps wealth positive whatever is seen.
    Raises: MeasureError for a bar or a probability outside its range.
    Source: mixture over a geometric grid of bets, Waudby-Smith and Ramdas 2020, arXiv:2010.09686. The lowest bet must
        fit the largest value 1 / pi_min, or a real shift goes unseen.

    >>> bets(0.05).round(2).tolist()[::11]
    [0.4, 19.6]
    """
    if not 0.0 < bar < 1.0 or (pi_min is not None and not 0.0 < pi_min <= 1.0):
        raise MeasureError(
            f"a monitor needs a bar in (0, 1) and audit probabilities in (0, 1], got {bar!r} and {pi_min!r}",
            next_action="pass fractions",
        )
    low = 0.02 / bar if pi_min is None else 0.1 * pi_min
    return np.geomspace(low, 0.98 / bar, _BETS)


def increment(wrong: int, n: int, bar: float) -> Vector:
    """
    What n plain audits add to a monitor.

    Args:
        wrong: audited answers that were wrong, 0 <= wrong <= n.
        n: audited answers.
        bar: the rate that is not to be exceeded, in (0, 1).

    Returns: shape (12,), log wealth of each bet; increments of two workers add.
    Raises: MeasureError for impossible counts or a bar outside (0, 1).
    Source: sum of ln(1 + bet (Z - bar)) over the audits, Z in {0, 1}; arXiv:2010.09686.

    >>> bool(np.allclose(increment(3, 50, 0.05), increment(1, 20, 0.05) + increment(2, 30, 0.05)))
    True
    """
    if n < 0 or not 0 <= wrong <= n:
        raise MeasureError(
            f"audits must satisfy 0 <= wrong <= n, got {wrong!r} of {n!r}",
            next_action="count settled audits only",
        )
    bet = bets(bar)
    return np.asarray(wrong * np.log1p(bet * (1.0 - bar)) + (n - wrong) * np.log1p(-bet * bar))


def weighted_increment(
    wrong_by_pi: Mapping[float, int], requests: int, bar: float, *, pi_min: float
) -> Vector:
    """
    What a day of requests adds, where each was audited with its own known probability.

    Args:
        wrong_by_pi: audit probability to the number of audited wrong answers that had it.
        requests: all requests of the day, audited or not.
        bar: the rate that is not to be exceeded, in (0, 1).
        pi_min: least audit probability of the design, in (0, 1].

    Returns: shape (12,), log wealth of each bet; increments of two workers add.
    Raises: MeasureError for a probability below pi_min, missing or above 1, or more wrong answers than requests.
    Source: Z = 1{audited and wrong} / pi, of which every request has one (Horvitz and Thompson 1952, JASA 47);
        sum of ln(1 + bet (Z - bar)).

    >>> day = weighted_increment({0.01: 2, 0.05: 1}, 1000, 0.05, pi_min=0.01)
    >>> halves = [weighted_increment({0.01: 2}, 600, 0.05, pi_min=0.01),
    ...           weighted_increment({0.05: 1}, 400, 0.05, pi_min=0.01)]
    >>> bool(np.allclose(day, sum(halves)))
    True
    """
    wrong = _checked(wrong_by_pi, requests, pi_min)
    bet = bets(bar, pi_min=pi_min)
    quiet = (requests - wrong) * np.log1p(-bet * bar)
    seen = [count * np.log1p(bet * (1.0 / pi - bar)) for pi, count in wrong_by_pi.items()]
    return np.asarray(np.sum([quiet, *seen], axis=0))


def weighted_mean(wrong_by_pi: Mapping[float, int], requests: int) -> float:
    """
    Estimated error rate of all requests from audits of unequal probability; for display.

    Args:
        wrong_by_pi: audit probability, in (0, 1], to the number of audited wrong answers that had it.
        requests: all requests, audited or not; at least 1.

    Returns: a rate >= 0; it is unbiased, so it may exceed 1 by chance.
    Raises: MeasureError for a probability outside (0, 1], or no requests.
    Source: Horvitz and Thompson 1952, JASA 47.

    >>> weighted_mean({0.5: 1, 0.1: 2}, 440)
    0.05
    """
    _checked(wrong_by_pi, requests, 0.0)
    if requests == 0:
        raise MeasureError("no requests have no error rate", next_action="wait for a settled day")
    return math.fsum(count / pi for pi, count in wrong_by_pi.items()) / requests


def fold_mixture(before: Fold | None, day: Sequence[float] | Vector) -> Fold:
    """
    Add a settled day to a monitor that bets since launch.

    Args:
        before: the monitor so far; None before the first day.
        day: shape (12,), the day's increment.

    Returns: the monitor with the day.
    Raises: MeasureError for an increment of another shape.
    Source: Ville's inequality for the mean of 12 wealth processes; arXiv:2010.09686.

    >>> fold_mixture(None, increment(40, 100, 0.05)).log_e > alarm_level(0.05)
    True
    """
    state = _step(before, day, restart=None)
    return _fold(before, state, float(scipy.special.logsumexp(state)) - math.log(_BETS))


def fold_restart(before: Fold | None, day: Sequence[float] | Vector) -> Fold:
    """
    Add a settled day to a life alarm: it may start betting on any day, so a good spell does not slow it down.

    Args:
        before: the monitor so far; None before the first day.
        day: shape (12,), the day's increment.

    Returns: the monitor with the day; ever reaching `alarm_level(delta)` has probability at most delta within the bar.
    Raises: MeasureError for an increment of another shape.
    Source: mixture over starting days with weights 1 / (d (d + 1)), Shin, Ramdas and Rinaldo 2022, arXiv:2203.03532.

    >>> fold_restart(None, increment(0, 25, 0.05)).log_e < 0
    True
    """
    number = (before.day if before else 0) + 1
    state = _step(before, day, restart=-math.log(number * (number + 1)))
    value = np.logaddexp(float(scipy.special.logsumexp(state)) - math.log(_BETS), -math.log(number + 1))
    return _fold(before, state, float(value))


def fold_pager(before: Fold | None, day: Sequence[float] | Vector) -> Fold:
    """
    Add a settled day to a pager: quicker than a life alarm, and it promises only that false pages are rare.

    Args:
        before: the monitor so far; None before the first day and after a page.
        day: shape (12,), the day's increment.

    Returns: the monitor with the day; the mean time to a false page at level ln(A) is at least A days.
    Raises: MeasureError for an increment of another shape.
    Source: Shiryaev-Roberts e-detector, Shin, Ramdas and Rinaldo 2022, arXiv:2203.03532.

    >>> fold_pager(None, increment(20, 25, 0.05)).log_e > math.log(365)
    True
    """
    state = _step(before, day, restart=0.0)
    return _fold(before, state, float(scipy.special.logsumexp(state)) - math.log(_BETS))


def alarm_level(delta: float, *, weight: float = 1.0) -> float:
    """
    The log evidence at which a life alarm goes off.

    Args:
        delta: chance of a false alarm of all streams together, in (0, 1).
        weight: this stream's share of delta, in (0, 1].

    Returns: a number to compare `Fold.log_e` with; alarm iff it is reached.
    Raises: MeasureError for fractions outside their range.
    Source: Ville's inequality.

    >>> round(alarm_level(0.05), 3)
    2.996
    """
    if not (0.0 < delta < 1.0 and 0.0 < weight <= 1.0):
        raise MeasureError(
            f"an alarm needs delta in (0, 1) and weight in (0, 1], got {delta!r} and {weight!r}",
            next_action="pass fractions; the weights of all streams sum to 1",
        )
    return -math.log(delta * weight)


def _step(before: Fold | None, day: Sequence[float] | Vector, *, restart: float | None) -> Vector:
    """The wealth of each bet after the day, a fresh start of weight exp(restart) included."""
    gain = np.asarray(day, dtype=np.float64)
    if gain.shape != (_BETS,) or not bool(np.all(np.isfinite(gain))):
        raise MeasureError(
            f"a day's increment has shape ({_BETS},), got {gain.shape!r}",
            next_action="make it with `increment`",
        )
    if restart is None:
        return gain if before is None else np.asarray(before.state) + gain
    held = np.full(_BETS, -np.inf) if before is None else np.asarray(before.state)
    return np.asarray(np.logaddexp(held, restart) + gain)


def _fold(before: Fold | None, state: Vector, log_e: float) -> Fold:
    return Fold(day=(before.day if before else 0) + 1, state=tuple(state.tolist()), log_e=log_e)


def _checked(wrong_by_pi: Mapping[float, int], requests: int, pi_min: float) -> int:
    """How many wrong answers there are, once every probability is known to be one."""
    for pi, count in wrong_by_pi.items():
        if not (0.0 < pi <= 1.0 and pi >= pi_min) or count < 0:
            raise MeasureError(
                f"every audit carries its probability in [{pi_min}, 1], got {pi!r} ({count!r} times)",
                next_action="log the audit probability of each request; there is no default",
            )
    wrong = sum(wrong_by_pi.values())
    if wrong > requests:
        raise MeasureError(f"{wrong} wrong answers of {requests} requests", next_action="count all requests")
    return wrong
