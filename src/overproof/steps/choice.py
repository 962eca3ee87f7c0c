"""Which candidate may be released: the cheapest as served of those that are expected to clear every bar."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from overproof.evidence import Expected, SlicePlan

SAME_BILL = 0.01  # a hundredth of the teacher's bill is not worth a larger student; the kept share is no better known


@dataclass(frozen=True, kw_only=True, slots=True)
class Expectation:
    """What a candidate is expected to do as served, seen from the calibration rows."""

    name: str
    size_bytes: int
    plans: tuple[SlicePlan, ...]
    fidelity: float
    """Agreement with the teacher, alone."""
    kept: float
    """Share of the calibration rows that it would answer itself."""
    clears: bool
    """True iff every bar would be passed with as many rows as will judge it."""
    misses: int
    """Bars that would not be passed."""
    spoils: int
    """Bars that the teacher alone would pass, and that it would be shown to miss: more rows mend none of them."""
    margin: float
    """Least distance of a lower bound from its bar; negative where one would be missed."""
    missed: str
    """The bar with the least margin, in words."""
    cost: float
    """USD per 1,000 as served; the teacher's share of the answers where prices are not known."""
    bill: float
    """What the teacher alone costs, in the same unit."""
    priced: bool
    """True iff both are money."""


def choose(expected: list[Expectation], spread: Mapping[str, float] | None = None) -> Expectation:
    """
    The candidate that may be released.

    Args:
        expected: at least one.
        spread: student to the standard deviation of its kept share over seeds, where that was measured.

    Returns: the cheapest as served of those that clear every bar, the smaller one where costs differ by under
        a hundredth of the teacher's bill or by less than seeds alone change; where none clears them, of those that keep anything
        the one that spoils the fewest, then the cheapest: a bar that only lacks rows, or that the teacher alone
        would not pass either, speaks for no student that keeps less.
    """
    good = [e for e in expected if e.clears]
    if not good:
        # one that keeps nothing is as good as the teacher on every bar, and of no use
        return max(expected, key=lambda e: (e.kept > 0, -e.spoils, -e.cost, e.fidelity, -e.size_bytes))
    first = min(good, key=lambda e: e.cost)
    tied = [e for e in good if e.cost <= first.cost + e.bill * max(SAME_BILL, seed_spread(e.name, first.name, spread))]
    return min(tied, key=lambda e: (e.size_bytes, e.cost))


def by_size(expected: Sequence[Expectation]) -> tuple[Expected, ...]:
    """
    What a plan keeps of its expectations.

    Args:
        expected: any.

    Returns: one each, smallest first.
    """
    return tuple(
        Expected(name=e.name, size_bytes=e.size_bytes, kept=e.kept, cost=e.cost, bill=e.bill, clears=e.clears)
        for e in sorted(expected, key=lambda e: (e.size_bytes, e.name))
    )


def seed_spread(one: str, other: str, spread: Mapping[str, float] | None) -> float:
    """
    How much the difference of two students' kept shares varies over seeds.

    Args:
        one: name of a student.
        other: name of another one.
        spread: see `choose`.

    Returns: a standard deviation; 0 for a student and itself, and where neither was fitted more than once.
    """
    known = spread or {}
    return 0.0 if one == other else math.hypot(known.get(one, 0.0), known.get(other, 0.0))


def reason_of(
    best: Expectation, expected: list[Expectation], *, n: int, spread: Mapping[str, float] | None = None, seeds: int = 1
) -> str:
    """
    Why this candidate, in one sentence.

    Args:
        best: the chosen one.
        expected: all of them.
        n: calibration rows.
        spread: see `choose`.
        seeds: how many were tried.

    Returns: a sentence with the figures that decided.
    """
    good = [e for e in expected if e.clears]
    seen = f"on {n:,} calibration rows"
    if not good and best.kept <= 0:
        return f"{seen} no student is expected to keep any answer; {best.name} agrees most or costs least of them"
    if not good:
        return (
            f"{seen} no student is expected to clear every bar; {best.name}, keeping {best.kept:.1%}, is nearest: "
            f"it would miss {best.misses} (worst: {best.missed}, lower bound {100 * best.margin:+.1f} points from the bar)"
        )
    bill = f"{best.cost:.4g} USD per 1,000" if best.priced else f"{best.cost:.1%} of requests to the teacher"
    cheapest = min(e.cost for e in good)
    lowest = "the lowest bill as served" if best.cost <= cheapest else "the smallest of those that tie for the lowest bill as served"
    others = "; ".join(
        f"{e.name} would keep {e.kept:.1%}" + ("" if e.clears else " and miss a bar") + _tie(best, e, spread)
        for e in expected
        if e is not best
    )
    return (
        f"{seen} {best.name} is expected to clear every bar and to keep {best.kept:.1%}, {lowest} "
        f"({bill}) of {len(good)} such student(s)" + (f"; {others}" if others else "") + _spread_words(spread, seeds)
    )


def _tie(best: Expectation, other: Expectation, spread: Mapping[str, float] | None) -> str:
    tied = other.clears and other.cost < best.cost
    return f", a tie within {100 * max(SAME_BILL, seed_spread(best.name, other.name, spread)):.1f} points" if tied else ""


def _spread_words(spread: Mapping[str, float] | None, seeds: int) -> str:
    if not spread:
        return ""
    if not any(spread.values()):
        return "; seeds change nothing"
    each = ", ".join(f"{name} {100 * sd:.1f}" for name, sd in spread.items())
    return f"; standard deviation of the kept share over {seeds} seeds, in points: {each}"
