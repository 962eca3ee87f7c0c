"""How many audits a monitor needs before it sees that a slice has broken, and how many a plan draws."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy  # its submodules load on first use

from overproof.errors import MeasureError
from overproof.measure.monitor import AuditDesign, alarm_level, audit_probability, increment

START = math.log(0.7 / 90)
"""Least log weight of a start on one of the first 90 days of a life alarm; see `monitor.fold_days`, rule "life"."""
LEAST_WEIGHT = 0.25  # of an equal share: no slice is starved of its part of the error budget
MOST = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Draws:
    """What a plan draws from a slice in a day."""

    per_day: float
    """Audits to be expected."""
    even: float
    """Of how many audits drawn with one chance for all they are worth, in (0, per_day]; fewer, where chances lean on confidence."""


def stream_weights(weights: Mapping[str, float], *, whole: str) -> dict[str, float]:
    """
    How the streams of a signal share the chance of a false alarm.

    Args:
        weights: slice to its weight in the certificate, at least 0.
        whole: name of the stream of all traffic.

    Returns: each slice's part and that of all traffic, which sum to 1; no slice gets less than a fifth of an equal share.
    Raises: nothing; without slices all traffic has everything.
    Source: a union bound over streams; the split is the house's own.

    >>> stream_weights({"a": 3.0, "b": 1.0}, whole="*")["*"]
    0.3333333333333333
    """
    each = 1.0 / (len(weights) + 1)
    total = sum(weights.values()) or 1.0
    raised = {name: max(weight / total, LEAST_WEIGHT / len(weights)) for name, weight in weights.items()}
    return {whole: each, **{name: (1.0 - each) * one / sum(raised.values()) for name, one in raised.items()}}


def power_to_see(n: int, rate: float, bar: float, *, delta: float, weight: float = 1.0) -> float:
    """
    The least chance that a life alarm has gone off by the n-th plain audit after a break.

    Args:
        n: audits since the break, at least 0.
        rate: share of wrong answers since then, in (bar, 1].
        bar: the rate that is not to be exceeded, in (0, 1).
        delta: chance of a false alarm over all streams, in (0, 1).
        weight: this stream's share of delta, in (0, 1].

    Returns: a probability. It is a lower bound: an alarm that went off on the way, and bets that started on other days, are
        not counted; the break is on one of the first 90 days.
    Raises: MeasureError for fractions outside their ranges.
    Source: at n audits the mixture of bets rises with the number of wrong ones, so the alarm is the event that a binomial
        count reaches a number, which is found by bisection; bets as in `monitor.increment`, Ville's inequality for the level.

    >>> power_to_see(0, 0.15, 0.05, delta=0.05)
    0.0
    >>> power_to_see(400, 0.15, 0.05, delta=0.05) > 0.95
    True
    """
    if not (n >= 0 and 0.0 < bar < rate <= 1.0):
        raise MeasureError(f"n {n!r}, rate {rate!r}, bar {bar!r}", next_action="pass a rate above the bar; up to the bar nothing is broken")
    least = _wrong_at(n, bar, alarm_level(delta, weight=weight) - START)
    return 0.0 if least is None else float(scipy.special.betainc(least, n - least + 1, rate))  # P(count >= least)


def audits_to_see(rate: float, bar: float, *, delta: float, weight: float = 1.0, power: float = 0.8) -> int | None:
    """
    How many plain audits are needed to see a break.

    Args:
        rate: see `power_to_see`.
        bar: see there.
        delta: see there.
        weight: see there.
        power: chance with which it is to be seen, in (0, 1).

    Returns: a number of audits from which on it is seen with at least that chance; None above a million.
    Raises: MeasureError for fractions outside their ranges.
    Source: bisection over `power_to_see`, whose saw teeth are below one step of the count.

    >>> audits_to_see(0.15, 0.05, delta=0.05) < audits_to_see(0.10, 0.05, delta=0.05)
    True
    """
    if not 0.0 < power < 1.0:
        raise MeasureError(f"a power lies in (0, 1), got {power!r}", next_action="pass a fraction such as 0.8")
    high = 1
    while power_to_see(high, rate, bar, delta=delta, weight=weight) < power:
        high *= 2
        if high > MOST:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        if power_to_see(middle, rate, bar, delta=delta, weight=weight) < power:
            low = middle
        else:
            high = middle
    return high


def draws_of(kept_per_day: float, *, design: AuditDesign, boost: float = 1.0) -> Draws:
    """
    What a design draws from a slice.

    Args:
        kept_per_day: the student's answers in the slice on a usual day.
        design: rates and floors.
        boost: factor on the slice's rate, at least 1.

    Returns: audits a day, and of how many plain ones they are worth where wrong answers have no preferred confidence.
    Raises: MeasureError as `audit_probability`.
    Source: Kish 1965, the design effect E[pi] E[1 / pi] of unequal probabilities.

    >>> draws_of(20, design=AuditDesign())
    Draws(per_day=20.0, even=20.0)
    """
    low, high = (audit_probability(c, kept_per_day=kept_per_day, design=design, boost=boost) for c in (0.0, 1.0))
    share = design.low_share
    mean = share * low + (1.0 - share) * high
    effect = mean * (share / low + (1.0 - share) / high)
    return Draws(per_day=kept_per_day * mean, even=kept_per_day * mean / effect)


def _wrong_at(n: int, bar: float, level: float) -> int | None:
    """The fewest wrong ones of n at which the mean wealth of the bets reaches the level."""

    def reached(wrong: int) -> bool:
        gains = increment(wrong, n, bar)
        return float(np.logaddexp.reduce(gains)) - math.log(len(gains)) >= level

    if not reached(n):
        return None
    low, high = int(np.floor(n * bar)), n
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high
