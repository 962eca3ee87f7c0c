"""Fallback thresholds with a finite-sample guarantee: planned on calibration rows, certified on sealed rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from overproof.errors import MeasureError
from overproof.evidence import Certificate, Figure, SliceCertificate, SlicePlan, Verdict
from overproof.measure.intervals import (
    cp_upper,
    expected_rate,
    figure,
    min_rows,
    p_pass,
    rows_needed,
    verdict_of,
)

KEEP_ALL = -1.0
"""The loosest threshold: every confidence in [0, 1] is at or above it, and JSON can say it."""

Counts = tuple[tuple[int, int], ...]
"""(wrong, kept) at each grid point, strict to loose."""

_REBUILT = ("threshold", "verdict", "kept", "wrong", "delta", "upper")
_REBUILT_SHARE = ("good", "n", "value", "low", "high")


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetCertificate:
    """The loosest threshold at which kept-and-wrong answers stay under a budget over all requests."""

    budget: float
    """Largest admitted share of all requests that are kept and wrong."""
    delta: float
    """Chance that the statement is false."""
    threshold: float | None
    """The student answers at or above it; None: everything stays on the teacher."""
    n: int
    """All rows, kept or not."""
    kept: int
    """Rows at or above the threshold."""
    wrong: int
    """Kept rows that are wrong."""
    upper: float
    """Upper bound of the share of all requests that are kept and wrong."""
    keep_share: Figure
    """Share of the requests that the student answers."""
    verdict: Verdict
    """Pass where a threshold is certified, else undecided or fail."""


def grid_of(reference: ArrayLike, *, points: int = 50) -> tuple[float, ...]:
    """
    Candidate thresholds, spread so that each keeps about the same further share of rows.

    Args:
        reference: shape (n,), confidences in [0, 1] of rows that are NOT the sealed ones; NaN is left out.
        points: how many shares: 1/points, 2/points, …, 1.

    Returns: unique thresholds, strict to loose; the last one is -1.0, which keeps everything.
    Raises: MeasureError for points < 1 or a confidence outside [0, 1].
    Source: Angelopoulos et al. 2021, arXiv:2110.01052 (a grid that is fixed before the tested rows are read).

    >>> grid_of([0.2, 0.9, 0.6, 0.8], points=4)
    (0.9, 0.8, 0.6, -1.0)
    """
    if points < 1:
        raise MeasureError(
            f"a grid needs at least one point, got {points!r}", next_action="ask for 50 points"
        )
    scores = _scores(reference)
    scores = scores[~np.isnan(scores)]
    if scores.size == 0:
        return (KEEP_ALL,)
    falling = np.sort(scores)[::-1]
    last_kept = (np.arange(1, points) * scores.size + points - 1) // points - 1  # ceil(share * n), from 0
    return (*np.unique(falling[last_kept])[::-1].tolist(), KEEP_ALL)


def grid_counts(scores: ArrayLike, wrong: ArrayLike, grid: Sequence[float]) -> Counts:
    """
    How many rows each threshold keeps, and how many of these are wrong.

    Args:
        scores: shape (n,), confidences in [0, 1]; a NaN is kept nowhere.
        wrong: shape (n,), bool.
        grid: thresholds, strictly falling.

    Returns: (wrong, kept) at each threshold; counts of two parts of the rows add.
    Raises: MeasureError for shapes that differ, a grid that doesn't fall, or confidences outside [0, 1].
    Source: counting by bins gives the integers that sorting gives.

    >>> grid_counts([0.9, 0.8, 0.3], [False, True, True], (0.85, 0.5, -1.0))
    ((0, 1), (1, 2), (2, 3))
    """
    at, bad = _scores(scores), np.asarray(wrong, dtype=bool)
    steps = np.asarray(grid, dtype=np.float64)
    if at.shape != bad.shape:
        raise MeasureError(
            f"scores and wrong must have one shape, got {at.shape!r} and {bad.shape!r}",
            next_action="pass both for the same rows",
        )
    if steps.size == 0 or not bool(np.all(np.diff(steps) < 0)):
        raise MeasureError(
            f"a grid is a strictly falling list of thresholds, got {list(grid)[:5]!r}…",
            next_action="make it with `grid_of`",
        )
    real = ~np.isnan(at)
    first = steps.size - np.searchsorted(steps[::-1], at[real], side="right")
    bins = steps.size + 1  # the last bin takes rows below every threshold
    kept = np.cumsum(np.bincount(first, minlength=bins))[:-1]
    errors = np.cumsum(np.bincount(first[bad[real]], minlength=bins))[:-1]
    return tuple(zip(errors.tolist(), kept.tolist(), strict=True))


def plan_start(dev: Counts, alpha: float, *, factor: float) -> int:
    """
    The grid point at which the sealed rows are most likely to pass: the walk starts there.

    Args:
        dev: (wrong, kept) of the calibration rows at each grid point.
        alpha: largest share of wrong answers among kept, in [0, 1].
        factor: sealed rows over calibration rows of the slice, > 0.

    Returns: an index into the grid; the strictest one where several are equal.
    Raises: MeasureError for no grid point, factor <= 0, or alpha outside [0, 1].
    Source: fixed-sequence testing of arXiv:2110.01052 section 3, with the sequence planned on other rows.

    >>> plan_start(((0, 20), (2, 400), (60, 800)), 0.05, factor=0.5)
    1
    """
    if not dev or not factor > 0.0:
        raise MeasureError(
            f"a start needs grid points and factor > 0, got {len(dev)} points, factor {factor!r}",
            next_action="pass the counts of calibration rows, and how many sealed rows there are for each of them",
        )
    return min(
        range(len(dev)), key=lambda j: p_pass(round(factor * dev[j][0]), round(factor * dev[j][1]), alpha)
    )


def plan_slice(
    slice_name: str,
    scores: ArrayLike,
    wrong: ArrayLike,
    *,
    alpha: float,
    weight: float,
    n_sealed: int,
    grid: Sequence[float] | None = None,
) -> SlicePlan:
    """
    Fix everything about one slice before a sealed label is read.

    Args:
        slice_name: the slice.
        scores: shape (n,), confidences in [0, 1] of its calibration rows.
        wrong: shape (n,), bool, the student's answer differs from the label.
        alpha: largest share of wrong answers among kept, in [0, 1].
        weight: the slice's share of delta (see `split_delta`).
        n_sealed: certify rows of this slice; their number is no secret, their labels are.
        grid: thresholds; made from `scores` where not given.

    Returns: the plan; without calibration rows it has the one point that keeps everything, and an error of 1.
    Raises: MeasureError for shapes that differ or fractions outside their range.
    Source: steps 1 and 4 of the per-slice Learn-then-Test walk, arXiv:2110.01052.

    >>> plan = plan_slice("other", [0.9] * 90 + [0.2] * 10, [False] * 90 + [True] * 10,
    ...                   alpha=0.05, weight=1.0, n_sealed=200)
    >>> plan.grid[plan.start], plan.dev_keep, plan.dev_error
    (0.9, 0.9, 0.0)
    """
    steps = tuple(grid) if grid is not None else grid_of(scores)
    counts = grid_counts(scores, wrong, steps)
    n = int(np.asarray(scores).size)
    start = plan_start(counts, alpha, factor=max(n_sealed, 1) / n) if n else len(steps) - 1
    bad, kept = counts[start]
    return SlicePlan(
        slice=slice_name,
        alpha=alpha,
        weight=weight,
        grid=steps,
        start=start,
        dev_n=n,
        dev_keep=kept / n if n else 0.0,
        dev_error=bad / kept if kept else 1.0,
    )


def walk(counts: Counts, alpha: float, d: float, start: int) -> int | None:
    """
    Loosen the threshold point by point from the start while the exact test passes.

    Args:
        counts: (wrong, kept) of the sealed rows at each grid point.
        alpha: largest share of wrong answers among kept, in [0, 1].
        d: error probability of the whole walk, in (0, 1).
        start: index of the first point tested, fixed without these rows.

    Returns: index of the last point that passed; None where the first one fails.
    Raises: MeasureError for a start outside the grid or fractions outside their range.
    Source: fixed-sequence testing, arXiv:2110.01052 section 3: the first point that is truly over its bar is passed
        with probability at most d, so no correction for the number of points is due.

    >>> walk(((0, 40), (0, 100), (1, 150), (30, 200)), 0.05, 0.05, 1)
    2
    """
    if not 0 <= start < len(counts):
        raise MeasureError(
            f"the walk must start on the grid, got {start!r} of {len(counts)} points",
            next_action="take the start from the plan that the grid belongs to",
        )
    last = None
    for j in range(start, len(counts)):
        if p_pass(*counts[j], alpha) > d:
            break
        last = j
    return last


def certify_slices(
    plans: Sequence[SlicePlan],
    scores: Mapping[str, ArrayLike],
    wrong: Mapping[str, ArrayLike],
    delta: float,
) -> tuple[SliceCertificate, ...]:
    """
    Certify a threshold for each slice; that any one of them is over its bar has probability at most delta.

    Args:
        plans: one for each slice, fixed on other rows; weights sum to 1.
        scores: slice name to shape (n,), confidences in [0, 1] of its sealed certify rows.
        wrong: slice name to shape (n,), bool.
        delta: error probability of all slices together, in (0, 1).

    Returns: one certificate for each plan, in its order. A slice that can't be certified keeps nothing (threshold
        None), with the verdict at its start and the rows it needs. A slice missing from `scores` has no rows.
    Raises: MeasureError for no plans, weights that don't sum to 1, repeated slices, or scores of an unplanned slice.
    Source: arXiv:2110.01052 per slice, delta split by weight; a slice certified at its last point hands its share on
        (Bretz et al. 2009, Statistics in Medicine 28, the graphical procedure).

    >>> plan = SlicePlan(slice="other", alpha=0.05, weight=1.0, grid=(0.5, -1.0), start=0,
    ...                  dev_n=200, dev_keep=0.5, dev_error=0.0)
    >>> done = certify_slices([plan], {"other": [0.9] * 80}, {"other": [False] * 80}, 0.05)[0]
    >>> done.threshold, done.kept, done.verdict, round(done.upper, 3)
    (-1.0, 80, 'pass', 0.037)
    """
    names = [plan.slice for plan in plans]
    strangers = sorted((set(scores) | set(wrong)) - set(names))
    if not plans or len(set(names)) < len(names) or strangers:
        raise MeasureError(
            f"plans must name each slice once, got {names!r}; scored but unplanned: {strangers!r}",
            next_action="plan every certification slice before unsealing",
        )
    sums = math.fsum(plan.weight for plan in plans)
    if abs(sums - 1.0) > 1e-9 or any(plan.weight < 0.0 for plan in plans):
        raise MeasureError(
            f"weights are shares of delta and sum to 1, got {sums!r}",
            next_action="make them with `split_delta`",
        )
    empty: list[float] = []
    open_slices = [
        nothing_kept(
            plan.slice,
            int(np.asarray(scores.get(plan.slice, empty)).size),
            grid_counts(scores.get(plan.slice, empty), wrong.get(plan.slice, empty), plan.grid),
            alpha=plan.alpha,
            grid=plan.grid,
            start=plan.start,
            weight=plan.weight,
        )
        for plan in plans
    ]
    return tuple(
        _with_rows_needed(done, plan) for done, plan in zip(_settle(open_slices, delta), plans, strict=True)
    )


def certify_budget(
    scores: ArrayLike, wrong: ArrayLike, grid: Sequence[float], *, budget: float, delta: float
) -> BudgetCertificate:
    """
    The loosest threshold at which requests that are kept and wrong stay within a share of all requests.

    Args:
        scores: shape (n,), confidences in [0, 1] of sealed rows drawn from all traffic.
        wrong: shape (n,), bool.
        grid: thresholds, strictly falling, fixed without these rows.
        budget: largest share of all requests that may be kept and wrong, in [0, 1].
        delta: error probability, in (0, 1).

    Returns: the certificate; threshold None where not even the strictest point passes.
    Raises: MeasureError for shapes that differ, a grid that doesn't fall, or fractions outside their range.
    Source: Bates et al. 2021, arXiv:2101.02703: the loss only grows as the threshold falls, so one bound at a time is
        enough and no correction for the number of points is due.

    >>> certify_budget([0.9] * 100 + [0.4] * 100, [False] * 180 + [True] * 20, (0.5, -1.0),
    ...                budget=0.05, delta=0.05).threshold
    0.5
    """
    if not 0.0 <= budget <= 1.0:
        raise MeasureError(
            f"a budget lies in [0, 1], got {budget!r}", next_action="pass a share of all requests"
        )
    counts = grid_counts(scores, wrong, grid)
    n = int(np.asarray(scores).size)
    last = None
    for j, (bad, _) in enumerate(counts):
        if cp_upper(bad, n, delta) > budget:
            break
        last = j
    bad, kept = (0, 0) if last is None else counts[last]
    verdict: Verdict = "pass" if last is not None else verdict_of(counts[0][0], n, budget, delta)
    return BudgetCertificate(
        budget=budget,
        delta=delta,
        threshold=None if last is None else float(grid[last]),
        n=n,
        kept=kept,
        wrong=bad,
        upper=cp_upper(bad, n, delta),
        keep_share=figure(kept, n, metric="kept"),
        verdict=verdict,
    )


def split_delta(traffic_share: Mapping[str, float], dev_keep: Mapping[str, float]) -> dict[str, float]:
    """
    Each slice's share of the error budget, in proportion to the traffic that it would move to the student.

    Args:
        traffic_share: slice name to its share of the traffic, >= 0.
        dev_keep: slice name to the share kept at the planned start, in [0, 1].

    Returns: slice name to weight, in the order of `traffic_share`; they sum to 1 and none is below a quarter of an
        equal share before the sum is brought back to 1.
    Raises: MeasureError for no slice or names that differ.
    Source: ours; any weights fixed without the sealed rows are valid (union bound).

    >>> split_delta({"a": 0.9, "b": 0.1}, {"a": 0.5, "b": 0.0})["b"] > 0.1
    True
    """
    if not traffic_share or set(traffic_share) != set(dev_keep):
        raise MeasureError(
            f"shares and keeps must name the same slices, got {sorted(traffic_share)!r} and {sorted(dev_keep)!r}",
            next_action="pass both for every certification slice",
        )
    moved = {name: max(0.0, share * dev_keep[name]) for name, share in traffic_share.items()}
    total = math.fsum(moved.values())
    equal = 1.0 / len(moved)
    floored = {name: max(part / total if total else equal, equal / 4.0) for name, part in moved.items()}
    again = math.fsum(floored.values())
    return {name: part / again for name, part in floored.items()}


def ledger_delta(delta: float, k: int) -> float:
    """
    The error budget of the k-th use of the same sealed rows.

    Args:
        delta: budget of all uses together, in (0, 1).
        k: which use, from 1.

    Returns: a share of delta; over all k they sum to delta.
    Raises: MeasureError for k < 1 or delta outside (0, 1).
    Source: 6 / (pi^2 k^2), whose sum over k is 1.

    >>> [round(ledger_delta(0.05, k), 4) for k in (1, 2, 3)]
    [0.0304, 0.0076, 0.0034]
    """
    if k < 1 or not 0.0 < delta < 1.0:
        raise MeasureError(
            f"a ledger entry needs k >= 1 and delta in (0, 1), got k={k!r}, delta={delta!r}",
            next_action="take k from the ledger of the sealed rows",
        )
    return delta * 6.0 / (math.pi**2 * k * k)


def recompute(certificate: Certificate) -> tuple[str, ...]:
    """
    Rebuild every bound and threshold of a certificate from its counts alone.

    Args:
        certificate: with grid, start, weight and counts in each slice.

    Returns: one sentence for each difference; empty where the certificate says what its counts say.
    Raises: MeasureError where the certificate's own numbers are impossible.
    Source: the walk and the recycling of `certify_slices`, run again.

    >>> recompute(Certificate(plan_hash="p", sealed_digest="s", label_kind="gold", use_k=1, delta_spent=0.05,
    ...                       slices=(), assumptions=(), window=(None, None), expires="2030-01-01"))
    ('the certificate has no slices',)
    """
    if not certificate.slices:
        return ("the certificate has no slices",)
    stated = certificate.slices
    problems = [problem for part in stated for problem in _count_problems(part)]
    if problems:
        return tuple(problems)
    total = math.fsum(part.weight for part in stated)
    if abs(total - 1.0) > 1e-9:
        problems.append(f"the weights of the slices sum to {total!r}, not to 1")
    rebuilt = _settle([replace(part, threshold=None) for part in stated], certificate.delta_spent)
    return (
        *problems,
        *(line for old, new in zip(stated, rebuilt, strict=True) for line in _differences(old, new)),
    )


def _scores(values: ArrayLike) -> NDArray[np.float64]:
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1 or bool(np.any((scores < 0.0) | (scores > 1.0))):
        raise MeasureError(
            f"confidences are one row of numbers in [0, 1], got shape {scores.shape!r}",
            next_action="turn logits into probabilities first",
        )
    return scores


def nothing_kept(
    name: str,
    n: int,
    counts: Counts,
    *,
    alpha: float,
    grid: Sequence[float],
    start: int = 0,
    weight: float = 1.0,
) -> SliceCertificate:
    """
    A slice before its test: counted, nothing kept.

    Args:
        name: of the slice.
        n: its sealed rows.
        counts: (wrong, kept) at each grid point.
        alpha: largest share of wrong answers among kept, in [0, 1].
        grid: thresholds, strict to loose.
        start: where the walk will start.
        weight: the slice's share of the error budget.

    Returns: the slice without threshold and verdict, `delta` 0.
    Raises: MeasureError for a negative number of rows.
    Source: what every certificate starts from.

    >>> nothing_kept("a", 10, ((0, 5), (1, 10)), alpha=0.05, grid=(0.5, -1.0)).verdict
    'undecided'
    """
    return SliceCertificate(
        slice=name, alpha=alpha, delta=0.0, threshold=None, n=n, kept=0, wrong=0, upper=1.0,
        keep_share=figure(0, n, metric="kept"), verdict="undecided", counts=counts, grid=tuple(grid), start=start,
        weight=weight,
    )  # fmt: skip


def _settle(parts: Sequence[SliceCertificate], delta: float) -> list[SliceCertificate]:
    """Walk every slice; slices that reach their last point hand their share of delta to the rest, and so on."""
    done: dict[str, SliceCertificate] = {}
    while True:
        left = [part for part in parts if part.slice not in done]
        weights = math.fsum(part.weight for part in left)
        walked = [_walked(part, delta * part.weight / weights if weights else 0.0) for part in left]
        settled = [part for part in walked if part.threshold is not None and part.threshold == part.grid[-1]]
        done.update({part.slice: part for part in settled})
        if not settled or len(done) == len(parts):
            done.update({part.slice: part for part in walked})
            return [done[part.slice] for part in parts]


def _walked(part: SliceCertificate, d: float) -> SliceCertificate:
    last = walk(part.counts, part.alpha, d, part.start) if d > 0.0 else None
    if last is None:
        at_start = verdict_of(*part.counts[part.start], part.alpha, d) if d > 0.0 else "undecided"
        return replace(part, delta=d, verdict=at_start, kept=0, wrong=0, upper=1.0)
    wrong, kept = part.counts[last]
    return replace(
        part,
        delta=d,
        threshold=part.grid[last],
        kept=kept,
        wrong=wrong,
        upper=cp_upper(wrong, kept, d),
        keep_share=figure(kept, part.n, metric="kept"),
        verdict="pass",
        rows_needed=None,
    )


def _with_rows_needed(part: SliceCertificate, plan: SlicePlan) -> SliceCertificate:
    """For a slice that stays undecided: more sealed rows at the worse of the two error rates seen at its start."""
    if part.verdict != "undecided" or part.delta <= 0.0 or not 0.0 < part.alpha < 1.0:
        return part
    wrong, kept = part.counts[part.start]
    dev_kept = round(plan.dev_n * plan.dev_keep)
    dev_rate = expected_rate(round(dev_kept * plan.dev_error), dev_kept, plan.alpha)
    rate = max(dev_rate, wrong / kept if kept else 0.0)
    needed = rows_needed(part.alpha, rate, part.delta)
    keep = plan.dev_keep if plan.dev_keep > 0.0 else 1.0
    if needed is None:
        return part
    rows = math.ceil(max(needed, min_rows(part.alpha, part.delta)) / keep)
    return replace(part, rows_needed=max(1, rows - part.n))


def _count_problems(part: SliceCertificate) -> list[str]:
    """What makes a slice's own numbers impossible, before any bound is rebuilt."""
    problems = []
    if len(part.grid) != len(part.counts) or not part.grid or not 0 <= part.start < len(part.grid):
        problems.append(f"slice {part.slice!r}: grid, counts and start don't belong together")
    pairs = [(0, 0), *part.counts]
    if any(not (a <= c and b <= d and c <= d) for (a, b), (c, d) in pairwise(pairs)):
        problems.append(f"slice {part.slice!r}: counts must grow along the grid with wrong <= kept")
    if part.counts and part.counts[-1][1] > part.n:
        problems.append(f"slice {part.slice!r}: more rows kept than there are")
    return problems


def _differences(old: SliceCertificate, new: SliceCertificate) -> list[str]:
    """Where a stated slice is not what its counts give."""
    share = old.keep_share
    fresh = figure(new.kept, old.n, metric=share.metric, level=share.level)
    pairs = {name: (getattr(old, name), getattr(new, name)) for name in _REBUILT}
    pairs |= {f"keep_share.{name}": (getattr(share, name), getattr(fresh, name)) for name in _REBUILT_SHARE}
    return [
        f"slice {old.slice!r}: {name} is stated as {stated!r}, its counts give {given!r}"
        for name, (stated, given) in pairs.items()
        if not _same(stated, given)
    ]


def _same(stated: object, given: object) -> bool:
    if isinstance(stated, float) and isinstance(given, float):
        return math.isclose(
            stated, given, rel_tol=1e-9, abs_tol=1e-12
        )  # special functions differ between builds
    return stated == given
