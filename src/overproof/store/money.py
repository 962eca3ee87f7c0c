"""Prices, and sums of money in whole millionths of a dollar."""

from __future__ import annotations

import math
from dataclasses import dataclass

from overproof.errors import StoreError


@dataclass(frozen=True, kw_only=True, slots=True)
class Prices:
    """What the provider charges."""

    usd_per_million_in: float
    """US dollars for a million prompt tokens."""
    usd_per_million_out: float
    """US dollars for a million answer tokens."""
    usd_per_million_dearest: float = 0.0
    """US dollars for a million prompt tokens in the dearest way, for example written to a cache; 0: as any other."""


def to_micro(usd: float, *, up: bool = True) -> int:
    """
    Dollars in whole millionths.

    Args:
        usd: US dollars, finite, from 0.
        up: round up (what is charged) or down (what is allowed).

    Returns: millionths of a dollar.
    Raises: StoreError for a negative or infinite sum.
    """
    if not math.isfinite(usd) or usd < 0:
        raise StoreError(
            f"{usd!r} is not a sum of money", next_action="mend prices and budget_usd in [teacher]"
        )
    exact = round(usd * 1e6, 3)  # the noise of binary fractions must not cost a millionth
    return math.ceil(exact) if up else math.floor(exact)
