"""Student against teacher, or against a baseline, on the same rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy  # its submodules load on first use: a run that reuses everything computes nothing
from numpy.typing import NDArray

from overproof.errors import MeasureError
from overproof.evidence import Verdict
from overproof.measure.intervals import Interval, cp_lower, cp_upper, p_pass

_NUISANCE_MISS = 1e-4  # Berger and Boos: the error spent on the range of the nuisance rate
_TAIL = 1e-12  # probability left outside the enumerated box; added to p
_NUISANCE_POINTS = 60
_ROWS_CAP = 1_000_000
_HALF = 0.5
_EDGE_HALVINGS = 4
_EXACT_ROWS = (
    20_000  # above it the score test's size is within a percent of nominal and the exact one takes seconds
)


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedTest:
    """The outcome of a paired comparison."""

    b: int
    """Rows on which only the first (the student) is wrong."""
    c: int
    """Rows on which only the second is wrong."""
    n: int
    """All rows."""
    margin: float
    """How much worse the first may be, as a share of all rows; 0 for superiority."""
    difference: float | None
    """Error of the first minus error of the second; None where n = 0."""
    p: float
    """Chance of evidence at least this good if the claim were false."""
    delta: float
    """Admitted chance of a false pass."""
    verdict: Verdict
    """Pass iff p <= delta; fail where the opposite is shown at the same delta."""
    rows_needed: int | None
    """Where undecided: about how many more rows would pass at the seen rates; None if none would."""
    method: str
    """Name of the test."""


def _check(b: int, c: int, n: int) -> None:
    if b < 0 or c < 0 or b + c > n:
        raise MeasureError(
            f"discordant rows must satisfy b, c >= 0 and b + c <= n, got b={b!r}, c={c!r}, n={n!r}",
            next_action="count b, c and n on the same rows",
        )


def _open_unit(name: str, value: float) -> None:
    if not 0.0 < value < 1.0:
        raise MeasureError(
            f"{name} lies strictly between 0 and 1, got {value!r}", next_action="pass a fraction"
        )


def tango_score(b: int, c: int, n: int, margin: float) -> float:
    """
    Score statistic of a paired difference against a margin; small values speak for "not worse by the margin".

    Args:
        b: rows on which only the first is wrong.
        c: rows on which only the second is wrong.
        n: all rows, at least 1.
        margin: hypothesised difference of the error rates, in (-1, 1), not 0 where b + c = 0.

    Returns: a number, about standard normal if the difference equals the margin.
    Raises: MeasureError for impossible counts, n = 0 or a margin outside (-1, 1).
    Source: Tango 1998, Statistics in Medicine 17, 891-908.

    >>> round(tango_score(5, 5, 1000, 0.01), 3)
    -2.497
    """
    _check(b, c, n)
    if n == 0 or not -1.0 < margin < 1.0:
        raise MeasureError(
            f"a paired score needs rows and a margin in (-1, 1), got n={n!r}, margin={margin!r}",
            next_action="pass the margin as a fraction of all rows",
        )
    return float(_score(np.asarray(b, dtype=np.float64), np.asarray(c, dtype=np.float64), n, margin))


def _score(b: NDArray[np.float64], c: NDArray[np.float64], n: int, margin: float) -> NDArray[np.float64]:
    linear = -b - c + (2 * n - b + c) * margin
    constant = -c * margin * (1.0 - margin)
    root = np.sqrt(np.maximum(linear * linear - 8.0 * n * constant, 0.0))
    rate = (root - linear) / (4.0 * n)
    spread = np.sqrt(np.maximum(n * (2.0 * rate + margin * (1.0 - margin)), 0.0))
    gap = b - c - n * margin
    return np.divide(gap, spread, out=np.zeros_like(gap), where=spread > 0.0)


def noninferiority(b: int, c: int, n: int, *, margin: float, d: float) -> PairedTest:
    """
    Test that the first's error is at most the second's plus a margin, on the same rows.

    Args:
        b: rows on which only the first (the student) is wrong.
        c: rows on which only the second (the teacher) is wrong.
        n: all rows; rows that the teacher serves anyway count here only.
        margin: how much worse the first may be, as a share of all rows, in (0, 1).
        d: admitted chance of a false pass, in (0, 1).

    Returns: the test. Pass iff p <= d; fail where exact bounds at d / 2 each put the difference above the margin.
    Raises: MeasureError for impossible counts or fractions outside their range.
    Source: H0 P(b) - P(c) >= margin; ordering of Tango 1998, Statistics in Medicine 17; exact maximum over a range of
        the nuisance rate as in Berger and Boos 1994, JASA 89. Above 20,000 rows the score test alone.

    >>> noninferiority(8, 8, 1500, margin=0.01, d=0.05).verdict
    'pass'
    >>> noninferiority(3, 3, 300, margin=0.01, d=0.05).verdict
    'undecided'
    """
    _check(b, c, n)
    _open_unit("margin", margin)
    _open_unit("d", d)
    exact = n <= _EXACT_ROWS
    p = 1.0
    if n:
        p = _exact_p(b, c, n, margin) if exact else _normal_tail(tango_score(b, c, n, margin))
    verdict: Verdict = "undecided"
    if p <= d:
        verdict = "pass"
    elif n and cp_lower(b, n, d / 2.0) - cp_upper(c, n, d / 2.0) > margin:
        verdict = "fail"
    total = None
    if (
        verdict == "undecided" and n
    ):  # with no discordant row seen, half a row each way: rates are never known to be 0
        seen = (b / n, c / n) if b + c else (0.5 / n, 0.5 / n)
        total = noninferiority_rows(margin, d, *seen)
    return PairedTest(
        b=b,
        c=c,
        n=n,
        margin=margin,
        difference=(b - c) / n if n else None,
        p=p,
        delta=d,
        verdict=verdict,
        rows_needed=None if total is None else max(1, total - n),
        method="tango, exact over the nuisance range" if exact else "tango score",
    )


def _normal_tail(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2.0))


def _exact_p(b: int, c: int, n: int, margin: float) -> float:
    """Largest chance, over plausible rates of c, of counts that the score orders at or below the seen ones."""
    low = max(cp_lower(c, n, _NUISANCE_MISS / 2.0), -margin)  # neither rate is negative
    high = min(cp_upper(c, n, _NUISANCE_MISS / 2.0), (1.0 - margin) / 2.0)  # both rates fit into 1
    if low > high:
        return _NUISANCE_MISS  # no plausible rate is left under the hypothesis
    rates = np.geomspace(min(max(low, 1e-7), high), high, _NUISANCE_POINTS)
    box = _upper_count(n, high + max(margin, 0.0))
    y = np.arange(box + 1, dtype=np.float64)
    x = _largest_ordered(y, n, margin, tango_score(b, c, n, margin) + _TAIL)
    some = x >= 0
    y, x = y[some], x[some]
    log_choose = scipy.special.gammaln(n + 1) - scipy.special.gammaln(y + 1) - scipy.special.gammaln(n - y + 1)
    q = rates[:, None]
    log_y = log_choose + scipy.special.xlogy(y, q) + (n - y) * np.log1p(-q)
    # given y, the other count is binomial among the remaining n - y rows
    below = scipy.special.betaincc(x + 1.0, np.maximum(n - y - x, 1e-300), np.clip((q + margin) / (1.0 - q), 0.0, 1.0))
    below = np.where(x >= n - y, 1.0, below)
    return min(1.0, _NUISANCE_MISS + _TAIL + float(np.max(np.sum(np.exp(log_y) * below, axis=1))))


def _upper_count(n: int, rate: float) -> int:
    """Least count that a Bin(n, rate) exceeds with probability at most `_TAIL`."""
    low, high = -1, n
    while high - low > 1:
        middle = (low + high) // 2
        if 1.0 - p_pass(middle, n, rate) <= _TAIL:
            high = middle
        else:
            low = middle
    return high


def _largest_ordered(y: NDArray[np.float64], n: int, margin: float, limit: float) -> NDArray[np.float64]:
    """For each y the largest x with score(x, y) <= limit, -1 where there is none; the score grows with x."""
    inside, outside = np.full_like(y, -1.0), n - y + 1.0
    while bool(np.any(outside - inside > 1.0)):
        middle = np.floor((inside + outside) / 2.0)
        tried = np.clip(middle, 0.0, n - y)
        ordered = (_score(tried, y, n, margin) <= limit) & (middle >= 0.0) & (middle <= n - y)
        inside, outside = np.where(ordered, middle, inside), np.where(ordered, outside, middle)
    return inside


def noninferiority_rows(
    margin: float, d: float, rate_b: float, rate_c: float, *, power: float = 0.8
) -> int | None:
    """
    Rows with which a non-inferiority test passes with a wanted chance.

    Args:
        margin: how much worse the first may be, in (0, 1).
        d: admitted chance of a false pass, in (0, 1).
        rate_b: share of rows on which only the first is wrong, in [0, 1].
        rate_c: share of rows on which only the second is wrong, in [0, 1].
        power: wanted chance to pass, in (0, 1).

    Returns: a count of rows, at least 1; None where the first is worse by the margin or more, or a million rows
        would not do. Below 350 rows the normal approximation is a little short: 25% are added there.
    Raises: MeasureError for fractions outside their range.
    Source: (z_d + z_power)^2 (P(b) + P(c) - diff^2) / (margin - diff)^2, the score test's power.

    >>> noninferiority_rows(0.01, 0.05, 0.01, 0.01)
    1237
    """
    for name, value in (("margin", margin), ("d", d), ("power", power)):
        _open_unit(name, value)
    if not (0.0 <= rate_b <= 1.0 and 0.0 <= rate_c <= 1.0 and rate_b + rate_c <= 1.0):
        raise MeasureError(
            f"discordance rates lie in [0, 1] and sum to at most 1, got {rate_b!r} and {rate_c!r}",
            next_action="pass shares of all rows",
        )
    difference = rate_b - rate_c
    if difference >= margin:
        return None
    z = float(scipy.special.ndtri(1.0 - d) + scipy.special.ndtri(power))
    rows = z * z * (rate_b + rate_c - difference * difference) / (margin - difference) ** 2
    return max(1, math.ceil(rows * 1.25 if rows < 350 else rows)) if rows <= _ROWS_CAP else None


def superiority(b: int, c: int, *, d: float, n: int | None = None) -> PairedTest:
    """
    Test that the first errs less often than the second, on the same rows.

    Args:
        b: rows on which only the first (the student) is wrong.
        c: rows on which only the second (the baseline) is wrong.
        d: admitted chance of a false pass, in (0, 1).
        n: all rows; b + c where not given (it changes the difference shown, not the test).

    Returns: the test. Pass iff p <= d; fail where the reverse test passes.
    Raises: MeasureError for impossible counts or d outside (0, 1).
    Source: McNemar 1947, Psychometrika 12, one-sided and exact: p = P(Bin(b + c, 1/2) >= c).

    >>> test = superiority(2, 12, d=0.05)
    >>> round(test.p, 4), test.verdict
    (0.0065, 'pass')
    """
    rows = b + c if n is None else n
    _check(b, c, rows)
    _open_unit("d", d)
    p, reverse = p_pass(b, b + c, 0.5), p_pass(c, b + c, 0.5)
    verdict: Verdict = "pass" if p <= d else "fail" if reverse <= d else "undecided"
    return PairedTest(
        b=b,
        c=c,
        n=rows,
        margin=0.0,
        difference=(b - c) / rows if rows else None,
        p=p,
        delta=d,
        verdict=verdict,
        rows_needed=None,
        method="mcnemar, exact",
    )


def difference_interval(b: int, c: int, n: int, *, level: float = 0.95) -> Interval:
    """
    Two-sided interval of the first's error minus the second's, for display.

    Args:
        b: rows on which only the first is wrong.
        c: rows on which only the second is wrong.
        n: all rows.
        level: confidence, in (0, 1).

    Returns: the interval, inside [-1, 1]; all of it where n = 0.
    Raises: MeasureError for impossible counts or level outside (0, 1).
    Source: Tango 1998, Statistics in Medicine 17: the differences that the score test doesn't reject.

    >>> both = difference_interval(12, 4, 500)
    >>> round(both.low, 4), round(both.high, 4)
    (0.0004, 0.0345)
    """
    _check(b, c, n)
    _open_unit("level", level)
    if n == 0:
        return Interval(low=-1.0, high=1.0)
    z = -float(scipy.special.ndtri((1.0 - level) / 2.0))
    seen = (b - c) / n
    return Interval(
        low=_rejected_edge(b, c, n, z, inside=seen, outside=-1.0),
        high=_rejected_edge(b, c, n, z, inside=seen, outside=1.0),
    )


def _rejected_edge(b: int, c: int, n: int, z: float, *, inside: float, outside: float) -> float:
    if abs(inside) == 1.0 and inside == outside:
        return outside
    for _ in range(60):
        middle = (inside + outside) / 2.0
        if abs(tango_score(b, c, n, middle)) <= z:
            inside = middle
        else:
            outside = middle
    return outside


def difference_bounds(b: int, c: int, n: int, *, d: float) -> Interval:
    """
    Bounds of the first's error minus the second's that hold at any sample size: what a claim may stand on.

    Args:
        b: rows on which only the first is wrong.
        c: rows on which only the second is wrong.
        n: all rows.
        d: admitted chance that the lower bound is too high, and as much that the upper one is too low, in (0, 1).

    Returns: both bounds, inside [-1, 1]; all of it where n = 0.
    Raises: MeasureError for impossible counts or d outside (0, 1).
    Source: the differences that the exact test of `noninferiority` doesn't reject at d, to within a hundredth of the
        distance from the difference seen; above 20,000 rows those of Tango's score test.

    >>> both = difference_bounds(12, 4, 500, d=0.025)
    >>> round(both.low, 3), round(both.high, 3)
    (0.0, 0.034)
    """
    _check(b, c, n)
    _open_unit("d", d)
    return Interval(low=-_exact_edge(c, b, n, d), high=_exact_edge(b, c, n, d))


def _exact_edge(b: int, c: int, n: int, d: float) -> float:
    """Upper bound: from the score test's own one outwards or inwards, then bisection, on the side that is rejected."""
    if n in (0, b):
        return 1.0
    seen, near = (b - c) / n, difference_interval(b, c, n, level=1.0 - 2.0 * d).high if d < _HALF else (b - c) / n
    if n > _EXACT_ROWS:
        return near

    def kept(edge: float) -> bool:
        return edge < 1.0 and _exact_p(b, c, n, edge) > d

    width = max(near - seen, 1.0 / n) / 8.0
    inside, outside = seen, near
    while kept(outside):
        inside, outside = outside, min(1.0, outside + width)
    while outside - inside > 2.0 * width and not kept(outside - width):
        outside -= width
    inside = max(inside, outside - 2.0 * width)
    for _ in range(_EDGE_HALVINGS):
        middle = (inside + outside) / 2.0
        inside, outside = (middle, outside) if kept(middle) else (inside, middle)
    return min(outside, 1.0)
