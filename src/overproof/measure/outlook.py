"""What more rows or another use of the same rows would bring: prices that are shown before anybody pays them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from overproof.errors import MeasureError
from overproof.evidence import Figure
from overproof.measure.certify import Counts, ledger_delta, plan_start
from overproof.measure.intervals import gate_power, min_rows


@dataclass(frozen=True, kw_only=True, slots=True)
class KeepOutlook:
    """What a slice would probably keep with so many sealed rows."""

    rows: int
    """Sealed rows of the slice."""
    chance: float
    """Chance that any threshold is certified."""
    keep: float
    """Expected share of requests that the student answers, in [0, 1]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Saving:
    """Money saved by the answers that the student keeps, with the interval of the kept share."""

    value_usd: float | None
    """Best estimate; None where no row was seen."""
    low_usd: float
    """At the lower end of the kept share."""
    high_usd: float
    """At the upper end of the kept share."""
    requests: int
    """Requests that the money is for."""


def rows_for_reuse(alpha: float, delta: float, k: int, *, weight: float = 1.0) -> int:
    """
    The price of using the same sealed rows again: fewest kept rows that can pass at the k-th use.

    Args:
        alpha: the bar on the error, in (0, 1].
        delta: error budget of all uses together, in (0, 1).
        k: which use, from 1.
        weight: the slice's share of the budget, in (0, 1].

    Returns: a count of rows without an error among them; a true error above zero needs several times as many.
    Raises: MeasureError for k < 1, a weight outside (0, 1] or fractions outside their range.
    Source: `min_rows` at delta x 6 / (pi^2 k^2) x weight.

    >>> [rows_for_reuse(0.05, 0.05, k) for k in (1, 2, 3, 5, 10)]
    [69, 96, 111, 131, 158]
    """
    if not 0.0 < weight <= 1.0:
        raise MeasureError(
            f"a slice's share of the error budget lies in (0, 1], got {weight!r}",
            next_action="make the weights with `split_delta`",
        )
    return min_rows(alpha, ledger_delta(delta, k) * weight)


def keep_with_more_rows(
    dev: Counts, dev_n: int, *, alpha: float, d: float, rows: Sequence[int]
) -> tuple[KeepOutlook, ...]:
    """
    What share of a slice the student would probably keep, for several numbers of sealed rows.

    Args:
        dev: (wrong, kept) of the calibration rows at each grid point, strict to loose.
        dev_n: calibration rows of the slice, at least 1.
        alpha: largest share of wrong answers among kept, in [0, 1].
        d: error probability of the slice's walk, in (0, 1).
        rows: numbers of sealed rows to look ahead to, each at least 1.

    Returns: one outlook for each entry of `rows`. A plan, never a promise: it takes the error seen on the calibration
        rows, plus one, for the true one, so a plan on few calibration rows can be off by a third either way.
    Raises: MeasureError for no rows, more kept rows than there are, or fractions outside their range.
    Source: ours; at each grid point the exact chance to pass (`gate_power`), the smallest one so far along the walk.

    >>> dev = ((2, 400), (20, 800), (100, 1000))
    >>> [round(one.keep, 2) for one in keep_with_more_rows(dev, 1000, alpha=0.05, d=0.05, rows=(50, 200, 1000))]
    [0.0, 0.38, 0.79]
    """
    _check_outlook(dev, dev_n, rows)
    return tuple(_outlook(dev, dev_n, alpha, d, n) for n in rows)


def _outlook(dev: Counts, dev_n: int, alpha: float, d: float, n: int) -> KeepOutlook:
    factor = n / dev_n
    start = plan_start(dev, alpha, factor=factor)
    reached, chance, keep, before = 1.0, 0.0, 0.0, 0
    for j in range(start, len(dev)):
        wrong, kept = dev[j]
        rate = (wrong + 1) / (kept + 1)  # one error more than seen: the start was picked for its luck, too
        reached = min(reached, gate_power(round(factor * kept), rate, alpha, d))
        chance = reached if j == start else chance
        keep += reached * (kept - before) / dev_n
        before = kept
        if reached == 0.0:
            break
    return KeepOutlook(rows=n, chance=chance, keep=keep)


def keep_within_budget(
    dev: Counts, dev_n: int, *, budget: float, d: float, rows: Sequence[int]
) -> tuple[KeepOutlook, ...]:
    """
    What share of all requests the student would probably keep under a budget, for several numbers of sealed rows.

    Args:
        dev: (wrong, kept) of the calibration rows at each grid point, strict to loose.
        dev_n: calibration rows, kept or not, at least 1.
        budget: largest share of all requests that may be kept and wrong, in [0, 1].
        d: error probability, in (0, 1).
        rows: numbers of sealed rows to look ahead to, each at least 1.

    Returns: one outlook for each entry of `rows`; a plan, never a promise, see `keep_with_more_rows`.
    Raises: MeasureError for no rows, more kept rows than there are, or fractions outside their range.
    Source: ours; `gate_power` of all rows at each point, from the strictest on.

    >>> [round(one.keep, 2) for one in keep_within_budget(((1, 500), (80, 1000)), 1000, budget=0.05, d=0.05, rows=(50, 500))]
    [0.0, 0.5]
    """
    _check_outlook(dev, dev_n, rows)

    def one(n: int) -> KeepOutlook:
        powers = [gate_power(n, min(1.0, (wrong + 1) / (dev_n + 1)), budget, d) for wrong, _ in dev]
        return _reached(powers, [kept / dev_n for _, kept in dev], n)

    return tuple(one(n) for n in rows)


def keep_all_or_none(
    dev: Sequence[Counts], dev_n: Sequence[int], *, alphas: Sequence[float], d: float, factors: Sequence[float]
) -> tuple[KeepOutlook, ...]:
    """
    What share of all requests the student would probably keep where all slices are certified or none.

    Args:
        dev: for each slice, (wrong, kept) of its calibration rows at each point of the path.
        dev_n: calibration rows of each slice, each at least 1.
        alphas: each slice's largest share of wrong answers among kept, in [0, 1].
        d: error probability of the whole path, in (0, 1); it is not split.
        factors: sealed rows for each calibration row to look ahead to, each above 0.

    Returns: one outlook for each factor, `rows` over all slices; a plan, never a promise, see `keep_with_more_rows`.
    Raises: MeasureError for no slice, slices of different paths, more kept rows than there are, factors of 0 or less, or
        fractions outside their range.
    Source: ours; rows of different slices are independent, so that the chance at a point is the product over slices.

    >>> far = keep_all_or_none([((0, 400), (60, 1000))], [1000], alphas=[0.05], d=0.05, factors=[0.2, 1.0])
    >>> [round(one.keep, 2) for one in far]
    [0.33, 0.4]
    """
    if not dev or len({len(dev), len(dev_n), len(alphas)}) > 1 or len({len(one) for one in dev}) > 1 or min(factors, default=1) <= 0:
        raise MeasureError(
            f"{len(dev)} slices, {len(dev_n)} row counts, {len(alphas)} bars, factors {list(factors)!r} make no path",
            next_action="pass counts of every slice at every point, its rows and its bar, and factors above 0",
        )
    for counts, n in zip(dev, dev_n, strict=True):
        _check_outlook(counts, n, (1,))
    points, total = range(len(dev[0])), sum(dev_n)
    shares = [sum(counts[j][1] for counts in dev) / total for j in points]

    def chance(j: int, factor: float) -> float:
        return math.prod(
            gate_power(round(factor * counts[j][1]), (counts[j][0] + 1) / (counts[j][1] + 1), alpha, d)
            for counts, alpha in zip(dev, alphas, strict=True)
        )

    return tuple(_reached([chance(j, f) for j in points], shares, round(f * total)) for f in factors)


def _reached(powers: Sequence[float], shares: Sequence[float], n: int) -> KeepOutlook:
    """Expected share kept by a walk that goes on while points pass: the smallest chance so far at each."""
    reached, keep, before = 1.0, 0.0, 0.0
    for power, share in zip(powers, shares, strict=True):
        reached = min(reached, power)
        keep += reached * (share - before)
        before = share
    return KeepOutlook(rows=n, chance=powers[0] if powers else 0.0, keep=keep)


def _check_outlook(dev: Counts, dev_n: int, rows: Sequence[int]) -> None:
    if dev_n < 1 or not dev or dev[-1][1] > dev_n or any(n < 1 for n in rows):
        raise MeasureError(
            f"an outlook needs calibration rows and positive numbers of sealed rows, got {dev_n!r} and {list(rows)!r}",
            next_action="pass the counts of the calibration rows, how many rows they are, and rows of 1 or more",
        )


def saving(
    kept: Figure, requests: int, *, teacher_usd: float, student_usd: float, audit_usd: float = 0.0
) -> Saving:
    """
    Money saved over a number of requests, with the interval that the kept share has.

    Args:
        kept: share of the requests that the student answers, with its interval.
        requests: requests to count for, >= 0.
        teacher_usd: cost of one answer of the teacher, US dollars.
        student_usd: cost of one answer of the student, US dollars.
        audit_usd: cost of all audits of these requests, US dollars, >= 0; paid whatever is kept.

    Returns: kept x requests x (teacher - student) - audits, at the estimate and at both ends; negative is a loss.
    Raises: MeasureError for negative requests or costs.
    Source: arithmetic; with a bar for each slice the loosest certified threshold saves the most.

    >>> from overproof.measure.intervals import figure
    >>> money = saving(figure(60, 100, metric="kept"), 1000, teacher_usd=0.01, student_usd=0.0, audit_usd=1.0)
    >>> money.value_usd, round(money.low_usd, 2), round(money.high_usd, 2)
    (5.0, 3.97, 5.97)
    """
    if requests < 0 or min(teacher_usd, student_usd, audit_usd) < 0.0:
        raise MeasureError(
            "requests and costs are not negative, "
            f"got {requests!r} requests, teacher {teacher_usd!r}, student {student_usd!r}, audits {audit_usd!r}",
            next_action="pass US dollars for one answer",
        )
    each = requests * (teacher_usd - student_usd)
    ends = sorted((kept.low * each, kept.high * each))
    return Saving(
        value_usd=None if kept.value is None else kept.value * each - audit_usd,
        low_usd=ends[0] - audit_usd,
        high_usd=ends[1] - audit_usd,
        requests=requests,
    )
