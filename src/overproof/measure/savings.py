"""What a service would have cost at another's prices: the mean price of comparable requests, and how sure the sum is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import scipy

from overproof.errors import MeasureError

LEAST_PRICED = 30
"""Fewer prices than these say nothing of a place by itself, and nothing at all where there are no more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stratum:
    """Requests that resemble one another: of one slice in one month."""

    kept: float
    """Requests whose price is to be guessed."""
    priced: int
    """Priced requests of the same place."""
    weight: float
    """How many requests the priced ones stand for; `priced` where each stands for itself."""
    usd: float
    """Sum of their prices, each times its weight."""
    usd2: float
    """Sum of the squares of their prices, each times its weight."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Avoided:
    """What the kept requests would have cost."""

    usd: float | None
    """Best guess; None where too few prices are known."""
    low: float
    """Lower end of the interval, from 0."""
    high: float
    """Upper end; infinite where too few prices are known."""
    kept: float
    """Requests that it is for."""
    priced: int
    """Prices that it rests on."""
    level: float
    """Confidence of the interval, in (0, 1)."""
    method: str
    """In words."""


def avoided(places: Sequence[Stratum], *, level: float = 0.95) -> Avoided:
    """
    What requests would have cost, by the mean price of the priced ones of their place.

    A place with fewer than `LEAST_PRICED` prices takes the mean over all places. Of each sum the variance has two parts: of the
    mean price, and of the prices that nobody paid. The interval is Student's; the errors of places that share a mean are added, not
    their squares. It assumes that within a place the kept requests are priced like the others.

    Args:
        places: disjoint.
        level: of the interval, in (0, 1).

    Returns: the sum with its interval, from 0.
    Raises: MeasureError for counts that can't be.
    Source: Cochran, Sampling Techniques, 3rd edition (1977), sections 5.3 and 5.4.

    >>> avoided([Stratum(kept=1000, priced=100, weight=100, usd=2.0, usd2=0.04)]).usd
    20.0
    """
    if not 0.0 < level < 1.0:
        raise MeasureError(f"a level lies strictly between 0 and 1, got {level!r}", next_action="pass a fraction, for example 0.95")
    for one in places:
        if min(one.kept, one.priced, one.weight, one.usd, one.usd2) < 0 or (one.priced and one.weight <= 0):
            raise MeasureError(f"counts and prices are at least 0, got {one}", next_action="pass sums of the same rows")
    kept, priced = math.fsum(one.kept for one in places), sum(one.priced for one in places)
    told = f"mean price by slice and month, Student's t; under {LEAST_PRICED} prices the mean over all"
    if not kept:
        return Avoided(usd=0.0, low=0.0, high=0.0, kept=0.0, priced=priced, level=level, method=told)
    if priced < LEAST_PRICED:
        return Avoided(usd=None, low=0.0, high=math.inf, kept=kept, priced=priced, level=level, method=told)
    rich = [one for one in places if one.priced >= LEAST_PRICED and one.kept]
    poor = math.fsum(one.kept for one in places if one.priced < LEAST_PRICED)
    every = Stratum(
        kept=poor, priced=priced, weight=math.fsum(one.weight for one in places), usd=math.fsum(one.usd for one in places), usd2=math.fsum(one.usd2 for one in places),
    )  # fmt: skip
    guess = math.fsum(_guess(one) for one in (*rich, every))
    error = math.sqrt(math.fsum(_variance(one) for one in rich)) + math.sqrt(_variance(every))
    used = priced if poor else sum(one.priced for one in rich)
    fewest = min(one.priced for one in (*rich, *([every] if poor else [])))
    wide = float(scipy.special.stdtrit(fewest - 1, 0.5 + level / 2.0)) * error
    return Avoided(usd=guess, low=max(0.0, guess - wide), high=guess + wide, kept=kept, priced=used, level=level, method=told)


def _guess(one: Stratum) -> float:
    return one.kept * one.usd / one.weight


def _variance(one: Stratum) -> float:
    """Of the guessed sum minus the true one; a row that stands for several requests is one observation."""
    mean = one.usd / one.weight
    spread = max(0.0, one.usd2 / one.weight - mean * mean) * one.priced / (one.priced - 1)
    return spread * (one.kept * one.kept / one.priced + one.kept)
