"""Exact bounds for counted fractions, the three-valued verdict, and the rows that a verdict needs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import scipy  # its submodules load on first use: a run that reuses everything computes nothing

from overproof.errors import MeasureError
from overproof.evidence import Figure, Verdict

CLOPPER_PEARSON = "clopper-pearson"
_SAW_TEETH = 12  # power is a saw-tooth in n: it must hold at n and the 11 values after it
_ROWS_CAP = 1_000_000  # beyond this nobody labels rows: the answer is "none that you could collect"
_NORMAL_WRONG = 100  # from so many expected wrong rows the normal approximation is within a few percent
_EXACT_TEETH = 1_000  # the search visits every count of wrong rows up to here, then steps of half a percent


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """Two ends between which a quantity lies."""

    low: float
    """Lower end."""
    high: float
    """Upper end."""


def _check(k: int, n: int, d: float) -> None:
    if n < 0 or not 0 <= k <= n:
        raise MeasureError(
            f"counts must satisfy 0 <= k <= n, got k={k!r}, n={n!r}",
            next_action="pass counts of the same rows",
        )
    if not 0.0 < d < 1.0:
        raise MeasureError(
            f"an error probability lies strictly between 0 and 1, got {d!r}",
            next_action="pass delta as a fraction, for example 0.05",
        )


def _fraction(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise MeasureError(
            f"{name} must lie in [0, 1], got {value!r}", next_action="pass a fraction, not a percentage"
        )


def cp_upper(k: int, n: int, d: float) -> float:
    """
    Upper bound of a rate that is missed with probability at most d, whatever the rate.

    Args:
        k: rows that count, 0 <= k <= n.
        n: independent rows.
        d: error probability of the bound, in (0, 1).

    Returns: a fraction in [0, 1]; 1 where n = 0 or k = n.
    Raises: MeasureError for impossible counts or d outside (0, 1).
    Source: Clopper and Pearson 1934, Biometrika 26; the beta quantile form.

    >>> round(cp_upper(0, 59, 0.05), 4)
    0.0495
    """
    _check(k, n, d)
    return 1.0 if k >= n else float(scipy.special.betainccinv(k + 1, n - k, d))


def cp_lower(k: int, n: int, d: float) -> float:
    """
    Lower bound of a rate that is missed with probability at most d, whatever the rate.

    Args:
        k: rows that count, 0 <= k <= n.
        n: independent rows.
        d: error probability of the bound, in (0, 1).

    Returns: a fraction in [0, 1]; 0 where n = 0 or k = 0.
    Raises: MeasureError for impossible counts or d outside (0, 1).
    Source: Clopper and Pearson 1934, Biometrika 26; the beta quantile form.

    >>> round(cp_lower(59, 59, 0.05), 4)
    0.9505
    """
    _check(k, n, d)
    return 0.0 if k == 0 else float(scipy.special.betaincinv(k, n - k + 1, d))


def cp_interval(k: int, n: int, *, level: float = 0.95) -> Interval:
    """
    Two-sided exact interval of a rate.

    Args:
        k: rows that count, 0 <= k <= n.
        n: independent rows.
        level: confidence, in (0, 1); each end takes half of what is left.

    Returns: the interval, inside [0, 1]; all of [0, 1] where n = 0.
    Raises: MeasureError for impossible counts or level outside (0, 1).
    Source: Clopper and Pearson 1934, Biometrika 26.

    >>> both = cp_interval(50, 1000)
    >>> round(both.low, 3), round(both.high, 3)
    (0.037, 0.065)
    """
    d = (1.0 - level) / 2.0
    return Interval(low=cp_lower(k, n, d), high=cp_upper(k, n, d))


def wilson(k: int, n: int, *, level: float = 0.95) -> Interval:
    """
    Two-sided score interval of a rate, for charts; no verdict may rest on it.

    Args:
        k: rows that count, 0 <= k <= n.
        n: independent rows.
        level: confidence, in (0, 1).

    Returns: the interval, inside [0, 1]; all of [0, 1] where n = 0.
    Raises: MeasureError for impossible counts or level outside (0, 1).
    Source: Wilson 1927, JASA 22.

    >>> both = wilson(0, 10)
    >>> round(both.low, 3), round(both.high, 3)
    (0.0, 0.278)
    """
    d = (1.0 - level) / 2.0
    _check(k, n, d)
    if n == 0:
        return Interval(low=0.0, high=1.0)
    z2 = float(scipy.special.ndtri(d)) ** 2
    rate, scale = k / n, 1.0 + z2 / n
    centre = (rate + z2 / (2 * n)) / scale
    half = math.sqrt(z2 * (rate * (1 - rate) / n + z2 / (4 * n * n))) / scale
    low = 0.0 if k == 0 else max(0.0, centre - half)
    return Interval(low=low, high=1.0 if k == n else min(1.0, centre + half))


def p_pass(k: int, n: int, alpha: float) -> float:
    """
    Chance of seeing at most k wrong of n if the true error were alpha; a bar is passed iff it is at most d.

    Args:
        k: wrong rows, 0 <= k <= n.
        n: independent rows.
        alpha: the bar on the error, in [0, 1].

    Returns: a p-value in [0, 1]; 1 where n = 0. It is at most d exactly where `cp_upper(k, n, d)` is at most alpha.
    Raises: MeasureError for impossible counts or alpha outside [0, 1].
    Source: lower binomial tail, as in Bates et al. 2021, arXiv:2101.02703, section 3 (binomial bound).

    >>> round(p_pass(0, 59, 0.05), 4)
    0.0485
    """
    _check(k, n, 0.5)
    _fraction("alpha", alpha)
    return 1.0 if k >= n else float(scipy.special.betaincc(k + 1, n - k, alpha))


def min_rows(alpha: float, d: float) -> int:
    """
    Fewest rows that can pass a bar at all: with no error among them.

    Args:
        alpha: the bar on the error, in (0, 1].
        d: error probability of the test, in (0, 1).

    Returns: a count of rows, at least 1.
    Raises: MeasureError for alpha outside (0, 1] or d outside (0, 1).
    Source: (1 - alpha)^n <= d, solved for n.

    >>> min_rows(0.05, 0.05), min_rows(0.01, 0.05)
    (59, 299)
    """
    _check(0, 0, d)
    _fraction("alpha", alpha)
    if alpha == 0.0:
        raise MeasureError(
            "no number of rows can pass a bar of 0 on the error", next_action="ask for less than 100% correct"
        )
    n = 1 if alpha == 1.0 else max(1, math.ceil(math.log(d) / math.log1p(-alpha)))
    while p_pass(0, n, alpha) > d:
        n += 1
    while n > 1 and p_pass(0, n - 1, alpha) <= d:
        n -= 1
    return n


def k_star(n: int, alpha: float, d: float) -> int:
    """
    Most wrong rows with which n rows still pass a bar.

    Args:
        n: rows.
        alpha: the bar on the error, in [0, 1].
        d: error probability of the test, in (0, 1).

    Returns: a count of rows, or -1 where not even zero errors pass.
    Raises: MeasureError for n < 0, alpha outside [0, 1] or d outside (0, 1).
    Source: largest k with `p_pass(k, n, alpha) <= d`, by bisection.

    >>> k_star(58, 0.05, 0.05), k_star(400, 0.05, 0.05)
    (-1, 12)
    """
    _check(0, n, d)
    passes, misses = -1, n
    while misses - passes > 1:
        middle = (passes + misses) // 2
        if p_pass(middle, n, alpha) <= d:
            passes = middle
        else:
            misses = middle
    return passes


def gate_power(n: int, rate: float, alpha: float, d: float) -> float:
    """
    Chance that n rows pass a bar when the true error is `rate`.

    Args:
        n: rows.
        rate: true error, in [0, 1].
        alpha: the bar on the error, in [0, 1].
        d: error probability of the test, in (0, 1).

    Returns: a fraction in [0, 1].
    Raises: MeasureError for n < 0, a rate or alpha outside [0, 1], or d outside (0, 1).
    Source: BinomCDF(k_star; n, rate).

    >>> round(gate_power(400, 0.025, 0.05, 0.05), 2)
    0.79
    """
    _fraction("rate", rate)
    most = k_star(n, alpha, d)
    return 0.0 if most < 0 else p_pass(most, n, rate)


def rows_needed(bar_error: float, rate: float, d: float, power: float = 0.8) -> int | None:
    """
    Rows with which a bar is passed with a wanted chance, if the true error is `rate`.

    Args:
        bar_error: the bar on the error, in [0, 1].
        rate: assumed true error, in [0, 1].
        d: error probability of the test, in (0, 1).
        power: wanted chance to pass, in (0, 1).

    Returns: a count of rows; None where the rate is not below the bar or a million rows would not do.
    Raises: MeasureError for fractions outside their range.
    Source: the first n with `gate_power` >= power at n and at the 11 values after it. Power jumps where one more
        wrong row is admitted and falls from there, so only those n are visited; beyond a thousand wrong rows the
        answer may be half a percent too large.

    >>> rows_needed(0.05, 0.025, 0.05)
    386
    >>> rows_needed(0.05, 0.06, 0.05) is None
    True
    """
    _check(0, 0, d)
    _check(0, 0, power)
    _fraction("bar_error", bar_error)
    _fraction("rate", rate)
    if rate >= bar_error:
        return None
    z = [float(scipy.special.ndtri(1.0 - d)), float(scipy.special.ndtri(power))]
    about = (z[0] * _spread(bar_error) + z[1] * _spread(rate)) ** 2 / (bar_error - rate) ** 2
    k, n = 0, min_rows(bar_error, d)
    if about * rate > _NORMAL_WRONG:  # skip most of the way
        k = int(0.85 * about * rate)
        n = _first_n_admitting(k, max(k, n), bar_error, d) if about <= 2 * _ROWS_CAP else 2 * _ROWS_CAP
    while n <= _ROWS_CAP:
        if p_pass(k, n, rate) >= power and all(
            gate_power(n + i, rate, bar_error, d) >= power for i in range(1, _SAW_TEETH)
        ):
            return n
        k += 1 if k < _EXACT_TEETH else k // 200
        n = _first_n_admitting(k, n, bar_error, d)
    return None


def _spread(rate: float) -> float:
    return math.sqrt(rate * (1.0 - rate))


def _first_n_admitting(k: int, fails: int, alpha: float, d: float) -> int:
    """Least n at which k wrong rows pass; at `fails` rows they don't."""
    step = math.ceil(1.0 / alpha)
    passes = fails + step
    while p_pass(k, passes, alpha) > d:
        fails, passes, step = passes, passes + 2 * step, 2 * step
    while passes - fails > 1:
        middle = (fails + passes) // 2
        if p_pass(k, middle, alpha) <= d:
            passes = middle
        else:
            fails = middle
    return passes


def expected_rate(k: int, n: int, alpha: float) -> float:
    """
    The error rate to plan with after k wrong of n: the observed one, or a cautious one where none was seen.

    Args:
        k: wrong rows seen, 0 <= k <= n.
        n: rows seen.
        alpha: the bar on the error, in [0, 1].

    Returns: k / n; with k = 0 half an error in n rows, at most half the bar.
    Raises: MeasureError for impossible counts.
    Source: ours; zero seen errors do not mean a zero rate, and planning on zero promises a pass too early.

    >>> expected_rate(3, 100, 0.05), expected_rate(0, 100, 0.05), expected_rate(0, 0, 0.05)
    (0.03, 0.005, 0.025)
    """
    _check(k, n, 0.5)
    if k > 0:
        return k / n
    return alpha / 2.0 if n == 0 else min(alpha / 2.0, 0.5 / n)


def figure(good: int, n: int, *, metric: str, level: float = 0.95) -> Figure:
    """
    A measured fraction with its exact two-sided interval, without a bar.

    Args:
        good: rows that count for the metric, 0 <= good <= n.
        n: independent rows.
        metric: its name, for example "fidelity".
        level: confidence of the interval, in (0, 1).

    Returns: the figure; value None and interval [0, 1] where n = 0.
    Raises: MeasureError for impossible counts or level outside (0, 1).
    Source: Clopper and Pearson 1934, Biometrika 26.

    >>> figure(0, 0, metric="kept").value is None
    True
    """
    both = cp_interval(good, n, level=level)
    return Figure(
        metric=metric,
        value=good / n if n else None,
        low=both.low,
        high=both.high,
        level=level,
        method=CLOPPER_PEARSON,
        n=n,
        good=good,
    )


def verdict_of(k: int, n: int, alpha: float, d: float) -> Verdict:
    """
    Pass, fail or undecided for an error bar.

    Args:
        k: wrong rows, 0 <= k <= n.
        n: independent rows.
        alpha: the bar on the error, in [0, 1].
        d: error probability of each of the two one-sided tests, in (0, 1).

    Returns: "pass" iff the upper bound is at most alpha, "fail" iff the lower bound is above it, else "undecided";
        always "undecided" where n = 0.
    Raises: MeasureError for impossible counts or fractions outside their range.
    Source: two one-sided Clopper-Pearson tests.

    >>> verdict_of(12, 400, 0.05, 0.05), verdict_of(13, 400, 0.05, 0.05), verdict_of(40, 400, 0.05, 0.05)
    ('pass', 'undecided', 'fail')
    """
    _check(k, n, d)
    _fraction("alpha", alpha)
    if n == 0:
        return "undecided"
    if cp_upper(k, n, d) <= alpha:
        return "pass"
    return "fail" if cp_lower(k, n, d) > alpha else "undecided"


def judge(
    good: int,
    n: int,
    at_least: float,
    d: float,
    *,
    level: float = 0.95,
    metric: str = "accuracy",
    min_n: int = 0,
) -> Figure:
    """
    A measured fraction judged by a bar: pass, fail, or undecided with the rows that would decide.

    Args:
        good: rows that count for the metric, 0 <= good <= n.
        n: independent rows.
        at_least: the bar, in [0, 1].
        d: chance of a false pass that the verdict admits, in (0, 1).
        level: confidence of the displayed two-sided interval, in (0, 1).
        metric: its name, for example "fidelity".
        min_n: below so many rows the verdict is undecided whatever the figure.

    Returns: the figure with bar, verdict and delta; `rows_needed` only where undecided, None there if no reachable
        number of rows decides. Where the value is below the bar, those rows would most likely decide for a fail.
    Raises: MeasureError for impossible counts or fractions outside their range.
    Source: two one-sided Clopper-Pearson tests on the error 1 - good / n against 1 - at_least.

    >>> judge(388, 400, 0.95, 0.05).verdict
    'pass'
    >>> open_question = judge(97, 100, 0.95, 0.05, metric="fidelity")
    >>> open_question.verdict, open_question.rows_needed
    ('undecided', 547)
    """
    shown = figure(good, n, metric=metric, level=level)
    _fraction("at_least", at_least)
    alpha = 1.0 - at_least
    verdict = "undecided" if n < min_n else verdict_of(n - good, n, alpha, d)
    return Figure(
        metric=metric,
        value=shown.value,
        low=shown.low,
        high=shown.high,
        level=level,
        method=CLOPPER_PEARSON,
        n=n,
        good=good,
        bar=at_least,
        verdict=verdict,
        rows_needed=_more_rows(n - good, n, alpha, d, min_n) if verdict == "undecided" else None,
        delta=d,
    )


def _more_rows(k: int, n: int, alpha: float, d: float, min_n: int) -> int | None:
    """Rows beyond n after which the bar is decided, if the rate stays what it looks like."""
    rate = expected_rate(k, n, alpha)
    if rate > alpha:  # the fail test is the pass test with right and wrong exchanged
        alpha, rate = 1.0 - alpha, 1.0 - rate
    total = rows_needed(alpha, rate, d)
    return None if total is None else max(total - n, min_n - n, 1)


def confidence_sequence(k: int, n: int, d: float) -> Interval:
    """
    Interval of a rate that may be looked at after every row: it is right at all times at once.

    Args:
        k: rows that count so far, 0 <= k <= n.
        n: independent rows so far.
        d: chance that the rate ever leaves the interval, in (0, 1).

    Returns: the interval, inside [0, 1].
    Raises: MeasureError for impossible counts or d outside (0, 1).
    Source: beta-binomial mixture with a Beta(1/2, 1/2) prior; Robbins 1970, Ville's inequality.

    >>> both = confidence_sequence(50, 1000, 0.05)
    >>> round(both.low, 3), round(both.high, 3)
    (0.029, 0.079)
    """
    _check(k, n, d)
    if n == 0:
        return Interval(low=0.0, high=1.0)
    mixture = float(scipy.special.betaln(k + 0.5, n - k + 0.5) - scipy.special.betaln(0.5, 0.5))

    def excluded(p: float) -> bool:
        likelihood = (k * math.log(p) if k else 0.0) + ((n - k) * math.log1p(-p) if n > k else 0.0)
        return mixture - likelihood >= -math.log(d)

    return Interval(
        low=0.0 if k == 0 else _edge(excluded, outside=0.0, inside=k / n),
        high=1.0 if k == n else _edge(excluded, outside=1.0, inside=k / n),
    )


def _edge(excluded: Callable[[float], bool], *, outside: float, inside: float) -> float:
    """The last excluded value between an excluded end and an admitted one."""
    for _ in range(60):  # 2^-60 is below the spacing of doubles near any rate that rows can show
        middle = (outside + inside) / 2.0
        if excluded(middle):
            outside = middle
        else:
            inside = middle
    return outside
