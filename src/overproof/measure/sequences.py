"""Which reading of a written answer's scores to serve with: there are no logits, so temperature has no meaning here."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from overproof.errors import MeasureError
from overproof.evidence import Calibrator, MethodLoss
from overproof.measure.calibrators import CalibratorChoice, fit_columns
from overproof.measure.reading import stated_confidence

SEQUENCE = "sequence"
AS_IT_CAME = Calibrator(method="platt", inputs=(SEQUENCE,), mean=(0.0,), scale=(1.0,), weight=(1.0, 0.0))
"""The raw score read as the log-odds that it claims to be."""
HEAD_ROWS, HEAD_EACH = 300, 30
"""Rows, and rows of either kind (right, wrong), from which on a head of several columns is tried."""


def choose_sequence_calibrator(columns: Mapping[str, ArrayLike], right: ArrayLike, *, seed: int = 0) -> CalibratorChoice:
    """
    Platt on the raw score, unless a head of all columns is shown to be better on held-out rows.

    Args:
        columns: shape (n,) each, by name, finite; "sequence" is among them.
        right: shape (n,), bool: the answer was right.
        seed: of the draw of the held-out third.

    Returns: the choice, fitted on all rows, with a prior that pulls weights to 0 where rows are few.
    Raises: MeasureError without the column "sequence", without rows, or for columns that don't fit.
    Source: ours: the head's mean log-loss on a third must be lower by more than one standard error of the difference.

    >>> choose_sequence_calibrator({"sequence": [1.0, -1.0]}, [True, False]).calibrator.inputs
    ('sequence',)
    """
    if SEQUENCE not in columns:
        raise MeasureError("written answers need the column 'sequence'", next_action="predict these rows again")
    good = np.asarray(right, dtype=bool)
    table = {name: np.asarray(column, dtype=np.float64) for name, column in columns.items()}
    alone = {SEQUENCE: table[SEQUENCE]}
    platt = fit_columns("platt", alone, good)
    more = {name: column for name, column in table.items() if name == SEQUENCE or np.ptp(column) > 0.0}
    n, least = good.size, int(min(good.sum(), (~good).sum()))
    if len(more) == 1 or n < HEAD_ROWS or least < HEAD_EACH:
        why = "no further column" if len(more) == 1 else f"a head is tried from {HEAD_ROWS} rows with {HEAD_EACH} right and {HEAD_EACH} wrong"
        return CalibratorChoice(calibrator=platt, losses=(), held_out=0, reason=f"Platt on the raw score of {n} rows, {int(good.sum())} right; {why}")
    order = np.random.default_rng(seed).permutation(n)
    test, fit = order[: n // 3], order[n // 3 :]

    def surprise(chosen: Mapping[str, NDArray[np.float64]], method: str) -> NDArray[np.float64]:
        fitted = fit_columns("head" if method == "head" else "platt", {k: v[fit] for k, v in chosen.items()}, good[fit])
        stated = stated_confidence(fitted, np.zeros((test.size, 0)), {k: v[test] for k, v in chosen.items()})
        return np.asarray(-np.log(np.clip(np.where(good[test], stated, 1.0 - stated), 1e-300, 1.0)), dtype=np.float64)

    simple, rich = surprise(alone, "platt"), surprise(more, "head")
    gain = simple - rich
    better = float(gain.mean()) > float(gain.std(ddof=1)) / np.sqrt(gain.size)
    losses = (MethodLoss(method="platt", log_loss=float(simple.mean())), MethodLoss(method="head", log_loss=float(rich.mean())))
    return CalibratorChoice(
        calibrator=fit_columns("head", more, good) if better else platt,
        losses=tuple(sorted(losses, key=lambda one: one.log_loss)),
        held_out=int(test.size),
        reason="the head's log-loss on the held-out third is lower by more than a standard error" if better
        else "no head is shown to be better on the held-out third",
    )  # fmt: skip
