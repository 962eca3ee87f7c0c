"""Thresholds certified while the rows still arrive: looks planned beforehand, most of the error budget kept for the last."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from overproof.errors import MeasureError
from overproof.evidence import Figure, SlicePlan, Verdict
from overproof.measure.certify import Counts
from overproof.measure.intervals import cp_lower, cp_upper, figure, p_pass


@dataclass(frozen=True, kw_only=True, slots=True)
class SliceLook:
    """What one slice shows at one look: all rows so far, not only the new ones."""

    n: int
    """Rows of the slice so far, kept or not."""
    counts: Counts
    """(wrong, kept) at each grid point."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LookCertificate:
    """The outcome for one slice after the looks taken so far; a later look can only keep more."""

    slice: str
    """The slice."""
    alpha: float
    """Largest share of wrong answers among kept."""
    delta: float
    """Chance that any threshold ever certified for this slice is over its bar, all looks together."""
    threshold: float | None
    """The student answers at or above it; None: the slice stays on the teacher for now."""
    look: int | None
    """The look, from 1, at which this threshold passed."""
    kept: int
    """Rows kept at that look."""
    wrong: int
    """Kept rows that were wrong at that look."""
    upper: float
    """Upper bound of the share of wrong answers among kept, at that look's part of delta."""
    keep_share: Figure
    """Share that the student answers, over the rows of the latest look."""
    verdict: Verdict
    """Pass where a threshold is certified; fail where the planned start is shown to be over its bar."""
    looks_left: int
    """Planned looks still to come; with none left, more rows need a fresh plan and a new use of the ledger."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetLook:
    """How loose a budget lets the thresholds be after the looks taken so far."""

    point: int | None
    """Index into the grid; None: everything stays on the teacher."""
    look: int | None
    """The look, from 1, at which the point passed."""
    upper: float
    """Upper bound of the share of all requests that are kept and wrong, at that look's part of delta."""
    verdict: Verdict
    """Pass where a point passed; fail where the strictest one is shown to be over the budget."""


def look_rows(*, first: int = 250, looks: int = 6) -> tuple[int, ...]:
    """
    After how many rows to look: each look has twice the rows of the one before.

    Args:
        first: rows at the first look, at least 1.
        looks: how many looks, at least 1.

    Returns: row counts, rising.
    Raises: MeasureError for counts below 1.
    Source: ours; doubling spends few looks where rows are few.

    >>> look_rows()
    (250, 500, 1000, 2000, 4000, 8000)
    """
    if first < 1 or looks < 1:
        raise MeasureError(
            f"looks are planned for at least one row and one look, got first={first!r}, looks={looks!r}",
            next_action="ask for 6 looks from 250 rows",
        )
    return tuple(first * 2**i for i in range(looks))


def look_shares(looks: int = 6) -> tuple[float, ...]:
    """
    Each look's part of the error budget: half of it for the last look, half of the rest for the one before, and so on.

    Args:
        looks: how many looks, at least 1.

    Returns: fractions, rising, that sum to 1.
    Raises: MeasureError for looks < 1.
    Source: union bound over looks; back-loaded because the last look has the most rows and can use the budget best.

    >>> [round(share, 3) for share in look_shares()]
    [0.016, 0.032, 0.063, 0.127, 0.254, 0.508]
    """
    if looks < 1:
        raise MeasureError(f"there is at least one look, got {looks!r}", next_action="plan one look or more")
    total = math.fsum(2.0**-i for i in range(1, looks + 1))
    return tuple(2.0 ** -(looks - i) / total for i in range(looks))


def walk_looks(looks: Sequence[Counts], alpha: float, deltas: Sequence[float], start: int) -> int | None:
    """
    Loosen the threshold point by point while each point has passed at one of the looks so far.

    Args:
        looks: (wrong, kept) at each grid point, for each look taken so far; each look has all rows so far.
        alpha: largest share of wrong answers among kept, in [0, 1].
        deltas: error probability of each planned look, in (0, 1); as many as looks planned.
        start: index of the first point tested, fixed without these rows.

    Returns: index of the last point that passed; None where the first one hasn't passed yet.
    Raises: MeasureError for more looks than planned, grids of different lengths, counts that fall from one look to
        the next, a start outside the grid or fractions outside their range.
    Source: fixed-sequence testing (arXiv:2110.01052, section 3) with a union bound over looks: the first point that is
        truly over its bar passes at any look with probability at most the sum of `deltas`. What passed stays passed.

    >>> early, late = ((0, 100), (3, 150)), ((1, 200), (5, 300))
    >>> walk_looks([early], 0.05, [0.02, 0.03], 0), walk_looks([early, late], 0.05, [0.02, 0.03], 0)
    (0, 1)
    """
    _check_looks(looks, deltas)
    if not looks:
        return None
    if not 0 <= start < len(looks[0]):
        raise MeasureError(
            f"the walk must start on the grid, got {start!r} of {len(looks[0])} points",
            next_action="take the start from the plan that the grid belongs to",
        )
    last = None
    for j in range(start, len(looks[0])):
        if _first_pass(looks, alpha, deltas, j) is None:
            break
        last = j
    return last


def certify_looks(
    plans: Sequence[SlicePlan],
    seen: Mapping[str, Sequence[SliceLook]],
    delta: float,
    *,
    shares: Sequence[float],
) -> tuple[LookCertificate, ...]:
    """
    Certify a threshold for each slice from the looks taken so far; announce any of them at any look.

    Args:
        plans: one for each slice, fixed on other rows (`n_sealed` = rows at the last look); weights sum to 1.
        seen: slice name to its looks so far, oldest first; a slice that is missing has not been looked at.
        delta: error probability of all slices and all looks together, in (0, 1).
        shares: each planned look's part of delta, fixed beforehand; see `look_shares`.

    Returns: one certificate for each plan, in its order.
    Raises: MeasureError for plans that don't belong together, shares that don't sum to at most 1, more looks than
        planned, counts that don't fit the grid or that fall, or fractions outside their range.
    Source: `walk_looks` per slice at delta x share x weight (union bound over looks and slices).

    >>> plan = SlicePlan(slice="other", alpha=0.05, weight=1.0, grid=(0.5, -1.0), start=0,
    ...                  dev_n=200, dev_keep=0.5, dev_error=0.0)
    >>> looks = [SliceLook(n=250, counts=((0, 120), (9, 250)))]
    >>> done = certify_looks([plan], {"other": looks}, 0.05, shares=look_shares(2))[0]
    >>> done.threshold, done.look, done.looks_left
    (0.5, 1, 1)
    """
    names = [plan.slice for plan in plans]
    strangers = sorted(set(seen) - set(names))
    weights = math.fsum(plan.weight for plan in plans)
    negative = any(plan.weight < 0.0 for plan in plans)
    if not plans or len(set(names)) < len(names) or strangers or negative or abs(weights - 1.0) > 1e-9:
        raise MeasureError(
            f"plans must name each slice once with weights of 0 or more that sum to 1, got {names!r} with {weights!r}; "
            f"looked at but unplanned: {strangers!r}",
            next_action="plan every certification slice, with weights from `split_delta`, before the first look",
        )
    if not 0.0 < delta < 1.0 or min(shares, default=0.0) <= 0.0 or math.fsum(shares) > 1.0 + 1e-9:
        raise MeasureError(
            f"delta lies in (0, 1) and the looks share it, got delta={delta!r}, shares={list(shares)!r}",
            next_action="make the shares with `look_shares`",
        )
    return tuple(
        _certified(plan, seen.get(plan.slice, ()), [delta * plan.weight * share for share in shares])
        for plan in plans
    )


def budget_looks(looks: Sequence[SliceLook], budget: float, deltas: Sequence[float]) -> BudgetLook:
    """
    The loosest point at which kept-and-wrong requests stayed within a budget at one of the looks so far.

    Args:
        looks: rows and (wrong, kept) at each grid point, strict to loose, for each look taken; at least one.
        budget: largest share of all requests that may be kept and wrong, in [0, 1].
        deltas: error probability of each planned look, in (0, 1); as many as looks planned.

    Returns: the point, the look at which it passed (the earliest one where several are as loose), and its bound.
    Raises: MeasureError for no look or more than planned, counts that fall from one look to the next, or fractions
        outside their range.
    Source: Bates et al. 2021, arXiv:2101.02703, with a union bound over looks; see `certify_budget`.

    >>> early, late = SliceLook(n=100, counts=((0, 50), (9, 100))), SliceLook(n=400, counts=((0, 200), (9, 400)))
    >>> budget_looks([early, late], 0.05, [0.02, 0.03]).point, budget_looks([early], 0.05, [0.02, 0.03]).point
    (1, 0)
    """
    _check_looks([look.counts for look in looks], deltas)
    if not looks or not looks[0].counts:
        raise MeasureError(
            "a budget is judged on at least one look with one grid point", next_action="count the rows at the plan's grid"
        )
    point, at = None, 0
    for i, look in enumerate(looks):
        last = None
        for j, (wrong, _) in enumerate(look.counts):
            if cp_upper(wrong, look.n, deltas[i]) > budget:
                break
            last = j
        if last is not None and (point is None or last > point):
            point, at = last, i
    if point is not None:
        upper = cp_upper(looks[at].counts[point][0], looks[at].n, deltas[at])
        return BudgetLook(point=point, look=at + 1, upper=upper, verdict="pass")
    latest, now = looks[-1], deltas[len(looks) - 1]
    verdict: Verdict = "fail" if cp_lower(latest.counts[0][0], latest.n, now) > budget else "undecided"
    return BudgetLook(point=None, look=None, upper=cp_upper(0, latest.n, now), verdict=verdict)


def _certified(plan: SlicePlan, looks: Sequence[SliceLook], deltas: Sequence[float]) -> LookCertificate:
    counts = [look.counts for look in looks]
    if any(len(points) != len(plan.grid) for points in counts):
        raise MeasureError(
            f"slice {plan.slice!r}: counts and grid differ in length",
            next_action="count at the grid of the plan with `grid_counts`",
        )
    last = walk_looks(counts, plan.alpha, deltas, plan.start) if plan.weight > 0.0 else None
    n = looks[-1].n if looks else 0
    kept, wrong, upper, at = 0, 0, 1.0, None
    verdict: Verdict = "undecided"
    if last is not None:
        at = _first_pass(counts, plan.alpha, deltas, last)
        wrong, kept = counts[at or 0][last]
        upper, verdict = cp_upper(wrong, kept, deltas[at or 0]), "pass"
    elif looks and plan.weight > 0.0:
        bad, rows = counts[-1][plan.start]
        verdict = "fail" if cp_lower(bad, rows, deltas[len(looks) - 1]) > plan.alpha else "undecided"
    return LookCertificate(
        slice=plan.slice,
        alpha=plan.alpha,
        delta=math.fsum(deltas),
        threshold=None if last is None else plan.grid[last],
        look=None if at is None else at + 1,
        kept=kept,
        wrong=wrong,
        upper=upper,
        keep_share=figure(0 if last is None else counts[-1][last][1], n, metric="kept"),
        verdict=verdict,
        looks_left=len(deltas) - len(looks),
    )


def _first_pass(looks: Sequence[Counts], alpha: float, deltas: Sequence[float], j: int) -> int | None:
    """The first look at which point j passed."""
    passed = (i for i, counts in enumerate(looks) if p_pass(*counts[j], alpha) <= deltas[i])
    return next(passed, None)


def _check_looks(looks: Sequence[Counts], deltas: Sequence[float]) -> None:
    if len(looks) > len(deltas):
        raise MeasureError(
            f"{len(looks)} looks were taken, {len(deltas)} were planned",
            next_action="plan anew: an unplanned look is a new use of the sealed rows",
        )
    for before, after in pairwise(looks):
        fits = len(before) == len(after)
        if not fits or any(
            a > b for old, new in zip(before, after, strict=True) for a, b in zip(old, new, strict=True)
        ):
            raise MeasureError(
                "each look counts all rows so far on one grid, but a later look has fewer",
                next_action="add the new rows' counts to those of the look before",
            )
