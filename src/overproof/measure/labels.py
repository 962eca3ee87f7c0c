"""How far several samples of a teacher agree, and which labels deserve a second look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from overproof.errors import MeasureError


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """What several samples say together. It measures the teacher's certainty, never truth."""

    value: str
    """The most frequent answer; the earliest sample among equals."""
    share: float
    """Share of the samples that gave `value`, in (0, 1]."""
    samples: int
    """How many samples there are."""
    tied: tuple[str, ...]
    """Every answer as frequent as `value`, `value` first; one entry where there is no tie."""


def agreement(values: Sequence[str]) -> Agreement:
    """
    The majority answer of several samples, with ties shown.

    Args:
        values: parsed answers to one request, in the order of the samples; at least one.

    Returns: the majority with its share.
    Raises: MeasureError for no samples.
    Source: plurality vote, as in Wang et al. 2022, arXiv:2203.11171 (self-consistency).

    >>> agreement(["bug", "billing", "billing", "bug", "other"])
    Agreement(value='bug', share=0.4, samples=5, tied=('bug', 'billing'))
    """
    if not values:
        raise MeasureError(
            "no samples to agree", next_action="leave out requests that the teacher did not answer"
        )
    counts = Counter(values)  # keeps the order of first occurrence
    most = max(counts.values())
    tied = tuple(value for value, count in counts.items() if count == most)
    return Agreement(value=tied[0], share=most / len(values), samples=len(values), tied=tied)


def suspicion_rank(probability: ArrayLike, given: ArrayLike) -> NDArray[np.int64]:
    """
    Rows in the order in which their labels deserve a second look.

    Args:
        probability: shape (n, k), class probabilities of a model that was not fitted on the row (out of fold).
        given: shape (n,), column of each row's given label.

    Returns: shape (n,), row numbers, most suspicious first: least probability of the given label, then the largest
        lead of the best other label, then the row's number.
    Raises: MeasureError for shapes that differ, NaN, or a label outside the columns.
    Source: Northcutt et al. 2021, arXiv:1911.00068 (self-confidence ranking; no thresholds).

    >>> suspicion_rank([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], [0, 0, 0]).tolist()
    [1, 2, 0]
    """
    chance = np.asarray(probability, dtype=np.float64)
    label = np.asarray(given)
    if chance.ndim != 2 or label.shape != chance.shape[:1] or bool(np.any(np.isnan(chance))):
        raise MeasureError(
            f"a rank needs probabilities (n, k) and labels (n,), got {chance.shape!r} and {label.shape!r}",
            next_action="pass both for the same rows",
        )
    if label.size == 0:
        return np.zeros(0, dtype=np.int64)
    if label.dtype.kind not in "iu" or int(label.min()) < 0 or int(label.max()) >= chance.shape[1]:
        raise MeasureError(
            f"a given label lies outside the {chance.shape[1]} columns",
            next_action="use the order of the columns",
        )
    rows = np.arange(label.size)
    own = chance[rows, label]
    others = chance.copy()
    others[rows, label] = -np.inf
    lead = others.max(axis=1) - own
    return np.lexsort((rows, -lead, own)).astype(np.int64)
