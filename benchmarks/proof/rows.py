"""One row of the table of proofs: what is promised, what the naive method does, and what was measured."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass

from overproof.measure.intervals import cp_interval

FULL = 2_000
"""Trials of the published table; below so many a figure may be over its level by chance."""


@dataclass(frozen=True, kw_only=True)
class ProofRow:
    """A claim with the figures that support it or break it."""

    claim: str
    """What is promised, in a few words."""
    naive: str
    """What the usual method did in the same run, for example "36–61 %"."""
    reach: str
    """The figure to reach, for example "≤ 10 %"."""
    measured: str
    """What our method did, with n and its interval."""
    holds: bool
    """The figure was reached, and the naive method was seen to fail where it should."""
    n_trials: int
    """Simulated runs behind the figure."""


def slack(level: float, trials: int) -> float:
    """What a Monte-Carlo estimate of a chance of at most `level` may show: three standard errors above it."""
    return level + 3.0 * math.sqrt(level * (1.0 - level) / trials)


def reached(rate: float, level: float, trials: int) -> bool:
    """The full run must show the level itself; a short one is allowed three standard errors."""
    return rate <= (level if trials >= FULL else slack(level, trials))


def percent(rate: float) -> str:
    """A share as a reader wants it: "7.7 %"."""
    return f"{100 * rate:.1f} %"


def span(rates: list[float]) -> str:
    """The least and the largest of several shares: "36–61 %"."""
    low, high = min(rates), max(rates)
    return (
        f"{100 * low:.0f}–{100 * high:.0f} %"
        if f"{100 * low:.0f}" != f"{100 * high:.0f}"
        else f"{100 * low:.0f} %"
    )


def counted(hits: int, trials: int) -> str:
    """A share of trials with its exact 95 % interval: "7.7 % (154 of 2,000; 6.6–9.0 %)"."""
    both = cp_interval(hits, trials)
    return f"{percent(hits / trials)} ({hits:,} of {trials:,}; 95 %: {100 * both.low:.1f}–{100 * both.high:.1f} %)"


def alone(rows: Callable[[int, int], list[ProofRow]]) -> None:
    """Run one module's proofs by themselves and print them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=FULL)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    for row in rows(given.trials, given.seed):
        print(f"{'holds' if row.holds else 'BROKEN'}: {row.claim}")
        print(f"  naive: {row.naive}\n  reach: {row.reach}\n  measured: {row.measured}")
