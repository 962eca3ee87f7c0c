"""Several thresholds moved as one: a fixed path of vectors, certified point by point at the full error budget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from overproof.errors import MeasureError
from overproof.evidence import SliceCertificate, Verdict
from overproof.measure.certify import grid_counts, grid_of, nothing_kept, plan_start
from overproof.measure.intervals import cp_lower, cp_upper, expected_rate, figure, p_pass, rows_needed

KEEP_NONE = 2.0
"""A threshold that no confidence reaches: the slice stays on the teacher at this point of the path."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ThresholdPath:
    """An ordered list of threshold vectors, strict to loose, fixed before a sealed label is read."""

    slices: tuple[str, ...]
    """Names, in the order of each vector's entries."""
    vectors: tuple[tuple[float, ...], ...]
    """One threshold for each slice at each point; no entry rises along the path."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PathCertificate:
    """All slices or none: the loosest point of a path that passed every requirement."""

    delta: float
    """Chance that any slice is over its bar, or any further requirement unmet; not split."""
    point: int | None
    """Index into the path; None: everything stays on the teacher."""
    p: float
    """Largest p-value over the requirements at that point, or at the first point where none passed."""
    binding: str
    """The requirement with the largest p-value where the walk ended: a slice's name, or "also"."""
    slices: tuple[SliceCertificate, ...]
    """One for each slice, each at the full delta; `grid` and `counts` run along the path."""
    verdict: Verdict
    """Pass for all slices together; fail where one is shown to be over its bar at the first point."""


def plan_path(
    scores: Mapping[str, ArrayLike],
    wrong: Mapping[str, ArrayLike],
    *,
    alphas: Mapping[str, float],
    n_sealed: Mapping[str, int],
    points: int = 50,
) -> ThresholdPath:
    """
    Order threshold vectors from the one most likely to pass in every slice to the one that keeps everything.

    Args:
        scores: slice name to shape (n,), confidences in [0, 1] of its calibration rows; leave out a slice that has
            no chance, or nothing will be certified at all.
        wrong: slice name to shape (n,), bool.
        alphas: slice name to the largest share of wrong answers among kept, in [0, 1].
        n_sealed: slice name to its sealed rows; their number is no secret, their labels are.
        points: thresholds considered for each slice.

    Returns: the path. Its first point is each slice's own best start; from there the slice with the most room moves
        first, so the slices that are closest to their bars move last.
    Raises: MeasureError for no slice, names that differ, a slice without rows, or values outside their range.
    Source: fixed-sequence testing of arXiv:2110.01052, section 3, over vectors; the order is planned on other rows.

    >>> path = plan_path({"a": [0.9] * 50 + [0.2] * 50}, {"a": [False] * 100}, alphas={"a": 0.05},
    ...                  n_sealed={"a": 100}, points=2)
    >>> path.vectors
    ((-1.0,),)
    """
    names = _names(scores, wrong, alphas, n_sealed)
    grids, starts, events = {}, {}, []
    for name in names:
        grid = grid_of(scores[name], points=points)
        counts = grid_counts(scores[name], wrong[name], grid)
        rows = int(np.asarray(scores[name]).size)
        if rows == 0:
            raise MeasureError(
                f"slice {name!r} has no calibration rows to plan a path with",
                next_action="leave it on the teacher, or collect calibration rows for it",
            )
        factor = max(n_sealed[name], 1) / rows
        grids[name], starts[name] = grid, plan_start(counts, alphas[name], factor=factor)
        level = 0.0
        for j in range(starts[name] + 1, len(grid)):
            level = max(
                level, p_pass(round(factor * counts[j][0]), round(factor * counts[j][1]), alphas[name])
            )
            events.append((level, name, j))
    vector = {name: grids[name][starts[name]] for name in names}
    vectors = [tuple(vector.values())]
    events.sort()
    for i, (level, name, j) in enumerate(events):
        vector[name] = grids[name][j]
        if i + 1 == len(events) or events[i + 1][0] != level:
            vectors.append(tuple(vector.values()))
    return ThresholdPath(slices=names, vectors=tuple(vectors))


def plan_cost_path(
    scores: Mapping[str, ArrayLike],
    risk: Mapping[str, ArrayLike],
    *,
    saving_usd: Mapping[str, float],
    points: int = 50,
) -> ThresholdPath:
    """
    Order threshold vectors so that each step saves the most money for the errors it adds: one budget for all slices.

    Args:
        scores: slice name to shape (n,), confidences in [0, 1] of its calibration rows.
        risk: slice name to shape (n,), chance in [0, 1] that each answer is wrong: calibrated, or 0 and 1 as seen.
        saving_usd: slice name to what one kept answer saves, US dollars; a slice that saves nothing is never kept.
        points: thresholds considered for each slice.

    Returns: the path, from keeping as good as nothing to keeping every slice that saves money. Certify it with
        `certify_budget` over `position` of the sealed rows and `position_grid`, and read it with `thresholds_at`.
    Raises: MeasureError for no slice, names that differ, nothing that saves, or values outside their range.
    Source: greedy by marginal error per dollar on each slice's lower convex hull (the fractional knapsack rule); its
        optimality is for the calibration rows, its validity is that of any path fixed beforehand.

    >>> path = plan_cost_path({"a": [0.9, 0.8], "b": [0.9, 0.8]}, {"a": [0, 0.5], "b": [0.1, 0.3]},
    ...                       saving_usd={"a": 0.01, "b": 0.01}, points=2)
    >>> path.vectors
    ((0.9, 2.0), (0.9, 0.9), (0.9, -1.0), (-1.0, -1.0))
    """
    names = _names(scores, risk, saving_usd)
    steps = [
        (slope, name, threshold)
        for name in names
        if saving_usd[name] > 0.0
        for slope, threshold in _hull(scores[name], risk[name], saving_usd[name], points)
    ]
    if not steps:
        raise MeasureError(
            "no slice saves money when it is kept",
            next_action="compare the costs of one answer of teacher and student",
        )
    vector = dict.fromkeys(names, KEEP_NONE)
    vectors = []
    for _, name, threshold in sorted(steps, key=lambda step: (step[0], step[1], -step[2])):
        vector[name] = threshold
        vectors.append(tuple(vector.values()))
    return ThresholdPath(slices=names, vectors=tuple(vectors))


def position(path: ThresholdPath, slice_name: str, scores: ArrayLike) -> NDArray[np.float64]:
    """
    How early on the path each row is kept, as a confidence: a row is kept from there on.

    Args:
        path: the path.
        slice_name: the slice that the rows belong to.
        scores: shape (n,), confidences in [0, 1]; a NaN stays one and is kept nowhere.

    Returns: shape (n,), in [0, 1]: 1 is kept from the first point on, 0 at none.
    Raises: MeasureError for a slice that is not on the path, thresholds that rise along it, or confidences outside
        [0, 1].
    Source: a scalar score in the order of the path makes every one-threshold method apply to vectors.

    >>> path = ThresholdPath(slices=("a",), vectors=((0.9,), (0.5,)))
    >>> position(path, "a", [0.95, 0.6, 0.1]).tolist()
    [1.0, 0.5, 0.0]
    """
    if slice_name not in path.slices or not path.vectors:
        raise MeasureError(
            f"{slice_name!r} is not on the path of {list(path.slices)!r}",
            next_action="plan the path over every slice that may be kept",
        )
    at = path.slices.index(slice_name)
    falling = np.array([vector[at] for vector in path.vectors], dtype=np.float64)
    if bool(np.any(np.diff(falling) > 0.0)):
        raise MeasureError(
            f"thresholds of {slice_name!r} rise along the path", next_action="make the path with `plan_path`"
        )
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or bool(np.any((values < 0.0) | (values > 1.0))):
        raise MeasureError(
            f"confidences are one row of numbers in [0, 1], got shape {values.shape!r}",
            next_action="turn logits into probabilities first",
        )
    first = np.searchsorted(-falling, -values, side="left")
    return np.where(np.isnan(values), np.nan, (falling.size - first) / falling.size)


def position_grid(path: ThresholdPath) -> tuple[float, ...]:
    """
    The path's points as thresholds on `position`.

    Args:
        path: the path.

    Returns: one number for each point, strictly falling from 1.
    Raises: nothing.
    Source: see `position`.

    >>> position_grid(ThresholdPath(slices=("a",), vectors=((0.9,), (0.5,))))
    (1.0, 0.5)
    """
    size = len(path.vectors)
    return tuple((size - i) / size for i in range(size))


def thresholds_at(path: ThresholdPath, at: float | None) -> dict[str, float | None]:
    """
    Each slice's threshold at a certified position of the path.

    Args:
        path: the path.
        at: an entry of `position_grid`, or None where nothing is certified.

    Returns: slice name to threshold; None where the slice stays on the teacher.
    Raises: MeasureError for a number that is not a position of this path.
    Source: see `position`.

    >>> thresholds_at(ThresholdPath(slices=("a", "b"), vectors=((0.9, 2.0), (0.5, 0.7))), 1.0)
    {'a': 0.9, 'b': None}
    """
    grid = position_grid(path)
    if at is None:
        return dict.fromkeys(path.slices)
    if at not in grid:
        raise MeasureError(
            f"{at!r} is no position of this path", next_action="pass an entry of `position_grid`"
        )
    vector = path.vectors[grid.index(at)]
    return {
        name: None if threshold >= KEEP_NONE else threshold
        for name, threshold in zip(path.slices, vector, strict=True)
    }


def certify_path(
    path: ThresholdPath,
    scores: Mapping[str, ArrayLike],
    wrong: Mapping[str, ArrayLike],
    *,
    alphas: Mapping[str, float],
    delta: float,
    also: Sequence[float] = (),
) -> PathCertificate:
    """
    Certify the loosest point of a path at which every slice passes its bar, all slices or none.

    Args:
        path: fixed on other rows.
        scores: slice name to shape (n,), confidences in [0, 1] of its sealed rows, for every slice of the path.
        wrong: slice name to shape (n,), bool.
        alphas: slice name to the largest share of wrong answers among kept, in [0, 1].
        delta: error probability of the whole statement, in (0, 1); it is not split.
        also: p-values of a further requirement at each point of the path, on the same rows, for example
            `noninferiority(...).p` of the served system; none for slices alone.

    Returns: the certificate.
    Raises: MeasureError for names that differ, p-values that don't fit the path, or fractions outside their range.
    Source: fixed sequence (arXiv:2110.01052, section 3) of intersection-union tests (Berger 1982, Technometrics 24):
        at each point the largest p-value of all requirements is a p-value for "one of them is unmet".

    >>> path = ThresholdPath(slices=("a", "b"), vectors=((0.9, 0.9), (0.5, 0.5)))
    >>> rows = {"a": [0.95] * 80 + [0.6] * 20, "b": [0.95] * 70 + [0.6] * 30}
    >>> right = {"a": [False] * 100, "b": [False] * 70 + [True] * 30}
    >>> done = certify_path(path, rows, right, alphas={"a": 0.05, "b": 0.05}, delta=0.05)
    >>> done.point, done.binding, [part.threshold for part in done.slices]
    (0, 'b', [0.9, 0.9])
    """
    _names(scores, wrong, alphas)
    _check_path(path, scores, also, delta)
    opened = [
        open_on_path(path, name, scores[name], wrong[name], alpha=alphas[name]) for name in path.slices
    ]
    return _walked(opened, [delta], also)


def settle_path(parts: Sequence[SliceCertificate], deltas: Sequence[float]) -> PathCertificate:
    """
    The outcome that the counts of a path's slices give, whatever else their certificates state.

    Args:
        parts: one for each slice of the path, with `grid`, `counts`, `n`, `alpha`, and `earlier` where there were looks
            before this one.
        deltas: error probability of each planned look, in (0, 1); one where a single look is planned.

    Returns: the certificate that `certify_path` gives for the same counts; with several looks each point has to pass in
        every slice at one and the same look, and what passed stays passed.
    Raises: MeasureError for no slice, slices with different numbers of points or looks, or more looks than planned.
    Source: `certify_path`, with a union bound over looks.

    >>> path = ThresholdPath(slices=("a",), vectors=((0.9,), (0.5,)))
    >>> part = open_on_path(path, "a", [0.95] * 80 + [0.6] * 20, [False] * 100, alpha=0.05)
    >>> settle_path([part], [0.05]).slices[0].threshold
    0.5
    """
    shapes = {(len(part.grid), len(part.counts), len(part.earlier)) for part in parts}
    shapes |= {(len(look.counts), len(look.counts), len(p.earlier)) for p in parts for look in p.earlier}
    points, counted, before = next(iter(shapes), (0, 0, 0))
    if len(shapes) != 1 or points != counted or not points or before >= len(deltas):
        raise MeasureError(
            f"slices of one path have as many points and looks as each other, got {sorted(shapes)!r} "
            f"with {len(deltas)} looks planned",
            next_action="count every slice at every point of the path, at each look",
        )
    cleared = [replace(part, threshold=None, kept=0, wrong=0, upper=1.0, verdict="undecided") for part in parts]
    return _walked(cleared, deltas, ())


def _walked(opened: Sequence[SliceCertificate], deltas: Sequence[float], also: Sequence[float]) -> PathCertificate:
    seen = [[*(look.counts for look in part.earlier), part.counts] for part in opened]
    taken = range(len(seen[0]))
    point, p, binding, at = None, 1.0, "", 0
    for j in range(len(opened[0].grid)):
        worst, by, look = 2.0, "", None
        for i in taken:
            tests = [(p_pass(*counts[i][j], part.alpha), part.slice) for counts, part in zip(seen, opened, strict=True)]
            worst, by = max([*tests, (also[j], "also")] if also else tests)
            if worst <= deltas[i]:
                look = i
                break
        binding = by
        if look is None:
            p = worst if point is None else p
            break
        point, p, at = j, worst, look
    slices = tuple(_on_path(part, point, at, deltas, fail_parts=len(opened)) for part in opened)
    failed = any(part.verdict == "fail" for part in slices)
    verdict: Verdict = "pass" if point is not None else "fail" if failed else "undecided"
    total = math.fsum(deltas)
    return PathCertificate(delta=total, point=point, p=p, binding=binding, slices=slices, verdict=verdict)


def _check_path(
    path: ThresholdPath, scores: Mapping[str, ArrayLike], also: Sequence[float], delta: float
) -> None:
    if (
        set(scores) != set(path.slices)
        or len(also) not in (0, len(path.vectors))
        or not 0.0 < delta < 1.0
        or not all(0.0 <= one <= 1.0 for one in also)
    ):
        raise MeasureError(
            f"a path over {list(path.slices)!r} with {len(path.vectors)} points was given rows of {sorted(scores)!r}, "
            f"{len(also)} further p-values and delta={delta!r}",
            next_action="pass rows of every slice, one p-value in [0, 1] for each point, and delta in (0, 1)",
        )


def open_on_path(
    path: ThresholdPath, name: str, scores: ArrayLike, wrong: ArrayLike, *, alpha: float
) -> SliceCertificate:
    """
    A slice of the path before its test: counted along the path, nothing kept.

    Args:
        path: fixed on other rows.
        name: a slice of the path.
        scores: shape (n,), confidences in [0, 1] of its sealed rows.
        wrong: shape (n,), bool.
        alpha: the largest share of wrong answers among kept, in [0, 1].

    Returns: the slice with `counts`, `grid` and `n`; no threshold, no verdict, `delta` 0.
    Raises: MeasureError for a slice that is not on the path, shapes that differ, or confidences outside [0, 1].
    Source: see `certify_path`.

    >>> path = ThresholdPath(slices=("a",), vectors=((0.9,), (0.5,)))
    >>> open_on_path(path, "a", [0.95, 0.6], [False, True], alpha=0.05).counts
    ((0, 1), (1, 2))
    """
    at = path.slices.index(name)
    counts = grid_counts(position(path, name, scores), wrong, position_grid(path))
    grid = [vector[at] for vector in path.vectors]
    return nothing_kept(name, int(np.asarray(scores).size), counts, alpha=alpha, grid=grid)


def _on_path(
    part: SliceCertificate, point: int | None, look: int, deltas: Sequence[float], *, fail_parts: int
) -> SliceCertificate:
    """The slice at the certified point; where there is none, what its first point says by itself."""
    part = replace(part, delta=math.fsum(deltas), keep_share=figure(0, part.n, metric="kept"), passed_at=1)
    if point is not None:
        at_look = [*(one.counts for one in part.earlier), part.counts][look]
        wrong, kept = at_look[point]
        return replace(
            part,
            threshold=part.grid[point],
            kept=kept,
            wrong=wrong,
            upper=cp_upper(wrong, kept, deltas[look]),
            keep_share=figure(part.counts[point][1], part.n, metric="kept"),
            verdict="pass",
            passed_at=look + 1,
            rows_needed=None,
        )
    now = deltas[len(part.earlier)]
    wrong, kept = part.counts[0]
    if cp_lower(wrong, kept, now / fail_parts) > part.alpha:  # split over slices: one false fail in all is too many
        return replace(part, verdict="fail")
    if cp_upper(wrong, kept, now) <= part.alpha or not kept or not 0.0 < part.alpha < 1.0:
        return part
    total = rows_needed(part.alpha, expected_rate(wrong, kept, part.alpha), now)
    return replace(
        part, rows_needed=None if total is None else max(1, math.ceil(total * part.n / kept) - part.n)
    )


def _names(*given: Mapping[str, object]) -> tuple[str, ...]:
    first, *others = given
    if not first or any(set(other) != set(first) for other in others):
        raise MeasureError(
            f"every argument must name the same slices, got {[sorted(one) for one in given]!r}",
            next_action="pass an entry for each slice everywhere",
        )
    return tuple(first)


def _hull(scores: ArrayLike, risk: ArrayLike, saving_usd: float, points: int) -> list[tuple[float, float]]:
    """Errors per dollar and threshold at each corner of the lower convex hull of errors over money, from the origin."""
    at, chance = np.asarray(scores, dtype=np.float64), np.asarray(risk, dtype=np.float64)
    if at.shape != chance.shape or bool(np.any(~((chance >= 0.0) & (chance <= 1.0)))):
        raise MeasureError(
            "risks are one chance in [0, 1] for each score", next_action="pass 1 - calibrated confidence"
        )
    corners = [(0.0, 0.0, KEEP_NONE)]  # money, errors, threshold
    for threshold in grid_of(at, points=points):
        kept = at >= threshold
        money, errors = saving_usd * float(np.sum(kept)), float(np.sum(chance[kept]))
        if money <= corners[-1][0]:
            continue
        while len(corners) > 1 and _slope(corners[-2], (money, errors)) <= _slope(corners[-2], corners[-1]):
            corners.pop()
        corners.append((money, errors, threshold))
    return [(_slope(a, b), b[2]) for a, b in pairwise(corners)]


def _slope(a: Sequence[float], b: Sequence[float]) -> float:
    return (b[1] - a[1]) / (b[0] - a[0])
