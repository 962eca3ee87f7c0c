"""One row of the table of proofs: what is promised, what the naive method does, and what was measured."""

from __future__ import annotations

import math
from dataclasses import dataclass


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
