"""Which candidate may be released: the cheapest as served of those that are expected to clear every bar."""

from __future__ import annotations

from dataclasses import dataclass

from overproof.evidence import SlicePlan

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


def choose(expected: list[Expectation]) -> Expectation:
    """
    The candidate that may be released.

    Args:
        expected: at least one.

    Returns: the cheapest as served of those that clear every bar, the smaller one where costs differ by under
        a hundredth of the teacher's bill; where none clears them, of those that keep anything
        the one that spoils the fewest, then the cheapest: a bar that only lacks rows, or that the teacher alone
        would not pass either, speaks for no student that keeps less.
    """
    good = [e for e in expected if e.clears]
    if not good:
        # one that keeps nothing is as good as the teacher on every bar, and of no use
        return max(expected, key=lambda e: (e.kept > 0, -e.spoils, -e.cost, e.fidelity, -e.size_bytes))
    least = min(e.cost for e in good)
    return min((e for e in good if e.cost <= least + SAME_BILL * e.bill), key=lambda e: (e.size_bytes, e.cost))


def reason_of(best: Expectation, expected: list[Expectation], *, n: int) -> str:
    """
    Why this candidate, in one sentence.

    Args:
        best: the chosen one.
        expected: all of them.
        n: calibration rows.

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
    others = "; ".join(
        f"{e.name} would keep {e.kept:.1%}" + ("" if e.clears else " and miss a bar")
        for e in expected
        if e is not best
    )
    return (
        f"{seen} {best.name} is expected to clear every bar and to keep {best.kept:.1%}, the lowest bill as served "
        f"({bill}) of {len(good)} such student(s)" + (f"; {others}" if others else "")
    )
