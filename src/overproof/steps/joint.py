"""Thresholds that move together: all slices or none, or one budget spent where it saves the most money."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from overproof.errors import DataError
from overproof.evidence import SlicePlan
from overproof.measure.certify import Counts, grid_counts
from overproof.measure.intervals import cp_upper, p_pass
from overproof.measure.paths import (
    KEEP_NONE,
    ThresholdPath,
    plan_cost_path,
    plan_path,
    position,
    position_grid,
)

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]


def plan_all(confidence: Floats, wrong: Mask, cells: Mapping[str, Mask], *, alpha: float, factor: float) -> tuple[SlicePlan, ...]:
    """
    One path for all slices: every one passes at a point, or nothing ships.

    Args:
        confidence: shape (n,), of the calibration rows.
        wrong: shape (n,).
        cells: certification slice to its calibration rows that count; disjoint.
        alpha: largest share of wrong answers among kept.
        factor: sealed rows that choose thresholds, for each calibration row.

    Returns: one plan for each slice with calibration rows, entry j of every grid being point j of the path; weights are
        1, since the error budget is not split.
    Raises: DataError where no slice has a calibration row.
    """
    some = _with_rows(cells)
    path = plan_path(
        {name: confidence[mask] for name, mask in some.items()},
        {name: wrong[mask] for name, mask in some.items()},
        alphas=dict.fromkeys(some, alpha),
        n_sealed={name: round(factor * int(mask.sum())) for name, mask in some.items()},
    )
    return _plans(path, confidence, wrong, some, alpha)


def plan_cost(confidence: Floats, wrong: Mask, cells: Mapping[str, Mask], *, prices: Floats, alpha: float) -> tuple[SlicePlan, ...]:
    """
    One path for all slices in the order of money saved per expected error, to be certified under one budget.

    Args:
        confidence: shape (n,), of the calibration rows; calibrated, so that 1 - confidence is the chance of an error.
        wrong: shape (n,), for the figures at the start of the path.
        cells: certification slice to its calibration rows that count; disjoint.
        prices: shape (n,), USD that the teacher asked for each row, NaN where not known.
        alpha: largest share of all requests that may be kept and wrong.

    Returns: one plan for each slice with calibration rows; a threshold of 2.0 keeps nothing.
    Raises: DataError where no slice has a calibration row, or no price is known.
    """
    some = _with_rows(cells)
    known = ~np.isnan(prices)
    if not known.any() or float(prices[known].max()) <= 0.0:
        raise DataError(
            "by_cost orders slices by the teacher's price, and no calibration row has one",
            next_action="import a cost column or set the prices in [teacher], or take by_cost out of [proof]",
        )
    mean = float(prices[known].mean())
    priced = {name: mask & known for name, mask in some.items()}
    path = plan_cost_path(
        {name: confidence[mask] for name, mask in some.items()},
        {name: 1.0 - np.nan_to_num(confidence[mask]) for name, mask in some.items()},
        saving_usd={name: float(prices[mask].mean()) if mask.any() else mean for name, mask in priced.items()},
    )
    return _plans(path, confidence, wrong, some, alpha)


def path_of(plans: Sequence[SlicePlan]) -> ThresholdPath:
    """
    The path that plans of slices make together.

    Args:
        plans: of `plan_all` or `plan_cost`.

    Returns: the path.
    """
    vectors = tuple(zip(*(p.grid for p in plans), strict=True))
    return ThresholdPath(slices=tuple(p.slice for p in plans), vectors=vectors)


def counts_on(path: ThresholdPath, name: str, scores: Floats, wrong: Mask) -> Counts:
    """
    (wrong, kept) of a slice's rows at each point of a path.

    Args:
        path: the path.
        name: a slice on it.
        scores: shape (n,), confidences of its rows.
        wrong: shape (n,).

    Returns: one pair for each point.
    """
    return grid_counts(position(path, name, scores), wrong, position_grid(path))


def expected_thresholds(
    plans: Sequence[SlicePlan], confidence: Floats, wrong: Mask, cells: Mapping[str, Mask], *, factor: float, delta: float, budget: bool
) -> dict[str, float]:
    """
    Where the path would end if the sealed rows look like the calibration rows.

    Args:
        plans: one for each slice of the path.
        confidence: shape (n,), of the calibration rows.
        wrong: shape (n,).
        cells: certification slice to its calibration rows that count.
        factor: sealed rows that choose thresholds, for each calibration row.
        delta: error budget of the path.
        budget: whether one budget is spent over all rows, else every slice has its bar.

    Returns: slice to threshold; empty where nothing would be certified. Slices that stay on the teacher are left out.
    """
    path = path_of(plans)
    scaled = [
        [(round(k * factor), round(m * factor)) for k, m in counts_on(path, p.slice, confidence[cells[p.slice]], wrong[cells[p.slice]])]
        for p in plans
    ]
    n = round(factor * sum(int(cells[p.slice].sum()) for p in plans))
    last = None
    for j in range(len(path.vectors)):
        if budget:
            bad = sum(counts[j][0] for counts in scaled)
            holds = cp_upper(min(bad, n), n, delta) <= plans[0].alpha
        else:
            holds = all(p_pass(*counts[j], p.alpha) <= delta for counts, p in zip(scaled, plans, strict=True))
        if not holds:
            break
        last = j
    if last is None:
        return {}
    return {p.slice: p.grid[last] for p in plans if p.grid[last] < KEEP_NONE}


def _with_rows(cells: Mapping[str, Mask]) -> dict[str, Mask]:
    some = {name: mask for name, mask in cells.items() if mask.any()}
    if not some:
        raise DataError("no certification slice has a calibration row", next_action="raise [promptset] calibration_share")
    return some


def _plans(path: ThresholdPath, confidence: Floats, wrong: Mask, cells: Mapping[str, Mask], alpha: float) -> tuple[SlicePlan, ...]:
    found = []
    for at, name in enumerate(path.slices):
        mask = cells[name]
        n = int(mask.sum())
        bad, kept = counts_on(path, name, confidence[mask], wrong[mask])[0]
        found.append(
            SlicePlan(
                slice=name, alpha=alpha, weight=1.0, grid=tuple(vector[at] for vector in path.vectors), start=0,
                dev_n=n, dev_keep=kept / n, dev_error=bad / kept if kept else 1.0,
            )
        )  # fmt: skip
    return tuple(found)
