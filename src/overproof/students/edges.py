"""Which rows of a batch stand so near an edge that the batch's padding could have moved them over it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from overproof.evidence import Calibrator, Confidence
from overproof.measure.reading import column_of
from overproof.measure.scope import softmax_rows

Floats = NDArray[np.float64]
# Padding moves float32 logits in the seventh digit, and a confidence made of them in the sixth at most (measured on
# all-MiniLM-L6-v2: 6e-7 in a logit); this is a hundred times that.
NEAR = 1e-4


def near_edge(
    how: Confidence, logits: Floats, columns: Mapping[str, Floats], confidence: Floats, least: Floats
) -> NDArray[np.bool_]:
    """
    Rows whose answer or route might be another one, were they looked at alone.

    Args:
        how: the reading that made the confidence.
        logits: shape (n, k), readable, as the batch gave them.
        columns: shape (n,) each, as the batch gave them.
        confidence: shape (n,), in [0, 1].
        least: shape (n,), the threshold of each row's slice.

    Returns: shape (n,), True where the top label, the threshold or a rule is within reach.
    """
    found = np.abs(confidence - least) <= NEAR
    if logits.shape[1] > 1:
        best = np.partition(logits, -2, axis=1)
        found |= best[:, -1] - best[:, -2] <= NEAR
    for rule in (*how.scope, *how.mixed):
        found |= np.abs(column_of(rule.score, logits, columns) - rule.threshold) <= NEAR * max(1.0, abs(rule.threshold))
    for calibrator in (how.everywhere, *(one.calibrator for one in how.own)):
        found |= _near_step(calibrator, logits)
    return np.asarray(found, dtype=np.bool_)


def _near_step(calibrator: Calibrator, logits: Floats) -> NDArray[np.bool_]:
    """A confidence read off a table jumps where the table does."""
    if calibrator.method not in ("isotonic", "venn-abers") or not len(calibrator.stated):
        return np.zeros(len(logits), dtype=bool)
    raw, steps = softmax_rows(logits).max(axis=1), np.asarray(calibrator.stated, dtype=np.float64)
    right = np.searchsorted(steps, raw).clip(max=len(steps) - 1)
    gap = np.minimum(np.abs(steps[right] - raw), np.abs(steps[(right - 1).clip(min=0)] - raw))
    return np.asarray(gap <= NEAR / 10, dtype=np.bool_)
