"""Worlds with a known truth: how confident a simulated student is, and how often it is wrong at each confidence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class World:
    """A student: its confidences, and its chance to be wrong at each of them."""

    name: str
    scores: Callable[[np.random.Generator, int], Vector]
    error: Callable[[Vector], Vector]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows drawn from a world."""

    scores: Vector
    wrong: Flags


@dataclass(frozen=True, kw_only=True)
class At:
    """What is true of a world at one threshold."""

    error: float
    """Share of wrong answers among kept; 0 where nothing is kept."""
    keep: float
    """Share of requests that is kept."""


def _beta(a: float, b: float) -> Callable[[np.random.Generator, int], Vector]:
    return lambda rng, n: rng.beta(a, b, n)


def _pocket(rng: np.random.Generator, n: int) -> Vector:
    return np.where(rng.random(n) < 0.02, rng.uniform(0.985, 1.0, n), rng.beta(6, 1, n))


def _pocket_error(s: Vector) -> Vector:
    """Above .985 two kinds of rows are mixed: those of the pocket, 60 % wrong, and ordinary ones."""
    pocket = 0.02 / 0.015
    share = pocket / (pocket + 0.98 * 6.0 * s**5)
    return np.where(s >= 0.985, share * 0.6 + (1 - share) * (1 - s), 1 - s)


CALIBRATED = World(name="calibrated", scores=_beta(6, 1), error=lambda s: 1 - s)
OVERCONFIDENT = World(
    name="overconfident", scores=_beta(9, 0.7), error=lambda s: np.clip(0.025 + 1.3 * (1 - s), 0, 1)
)
POCKET = World(name="pocket", scores=_pocket, error=_pocket_error)
AT_THE_BAR = World(name="at the bar", scores=_beta(6, 1), error=lambda s: np.full_like(s, 0.0505))
GOOD = World(name="good", scores=_beta(9, 0.6), error=lambda s: 0.01 + 0.5 * (1 - s) ** 1.2)
WORLDS = (CALIBRATED, OVERCONFIDENT, POCKET, AT_THE_BAR, GOOD)

EIGHT = (GOOD, CALIBRATED, OVERCONFIDENT, AT_THE_BAR, AT_THE_BAR, CALIBRATED, GOOD, OVERCONFIDENT)
EIGHT_SHARES = (0.35, 0.25, 0.15, 0.10, 0.05, 0.05, 0.03, 0.02)


def draw(world: World, rng: np.random.Generator, n: int) -> Rows:
    """Independent rows of a world."""
    scores = world.scores(rng, n)
    return Rows(scores=scores, wrong=rng.random(n) < world.error(scores))


class Truth:
    """The true error and the true share kept at any threshold, from two million rows without label noise."""

    def __init__(self, world: World, rows: int = 2_000_000) -> None:
        """Draw and sort the rows once."""
        falling = np.sort(world.scores(np.random.default_rng(99), rows))[::-1]
        self._error = np.cumsum(world.error(falling)) / np.arange(1, rows + 1)
        self._rising = -falling

    def at(self, threshold: float) -> At:
        """What is true at a threshold."""
        kept = int(np.searchsorted(self._rising, -threshold, side="right"))
        return At(error=float(self._error[kept - 1]) if kept else 0.0, keep=kept / self._rising.size)

    def oracle(self, bar: float) -> At:
        """The most that can be kept within the bar by somebody who knows the truth."""
        fits = np.flatnonzero(self._error <= bar)
        kept = int(fits[-1]) + 1 if fits.size else 0
        return At(error=float(self._error[kept - 1]) if kept else 0.0, keep=kept / self._rising.size)


@cache
def truth(world: World) -> Truth:
    """The truth of a world, made once."""
    return Truth(world)
