"""How far two people agree beyond chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from overproof.errors import MeasureError

Z95 = 1.959963984540054


@dataclass(frozen=True, kw_only=True, slots=True)
class Kappa:
    """Agreement of two reviewers, corrected for chance."""

    value: float | None
    """At most 1; 0 is chance; None where both use one and the same label throughout, or n = 0."""
    low: float
    """Lower end of the interval."""
    high: float
    """Two-sided interval at 0.95; [-1, 1] where there is no value or no spread to judge by."""
    n: int
    """Rows with both people's words."""
    same: int
    """Rows on which they agree."""
    method: str = "Cohen, large-sample interval"
    """How value and interval were made."""


def cohen_kappa(first: Sequence[str], second: Sequence[str]) -> Kappa:
    """
    Cohen's kappa with its large-sample interval.

    Args:
        first: labels of one person.
        second: labels of the other, of the same rows.

    Returns: kappa; below about 50 rows, or with perfect agreement, the interval is wide open on purpose.
    Raises: MeasureError for columns of different length.
    Source: Cohen 1960, Educational and Psychological Measurement 20; variance of Fleiss, Cohen and Everitt 1969.

    >>> cohen_kappa(["a", "a", "b", "b"], ["a", "b", "b", "b"]).value
    0.5
    """
    n = len(first)
    if len(second) != n:
        raise MeasureError(f"{n} and {len(second)} labels don't pair up", next_action="pass both people's words on the same rows")
    same = sum(a == b for a, b in zip(first, second, strict=True))
    names = {label: i for i, label in enumerate(sorted({*first, *second}))}
    if n == 0 or len(names) < 2:
        return Kappa(value=None, low=-1.0, high=1.0, n=n, same=same)
    table = np.zeros((len(names), len(names)))
    for a, b in zip(first, second, strict=True):
        table[names[a], names[b]] += 1 / n
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    seen, chance = same / n, float(rows @ columns)
    value = (seen - chance) / (1 - chance)
    diagonal = np.diag(table) * (1 - (rows + columns) * (1 - value)) ** 2
    other = (table * (rows[None, :] + columns[:, None]) ** 2).sum() - (np.diag(table) * (rows + columns) ** 2).sum()
    spread = float(diagonal.sum() + (1 - value) ** 2 * other - (value - chance * (1 - value)) ** 2)
    half = Z95 * math.sqrt(max(spread, 0.0) / n) / (1 - chance)
    if half == 0.0:  # perfect agreement has no spread to judge by; it is no proof of more
        return Kappa(value=value, low=-1.0, high=1.0, n=n, same=same)
    return Kappa(value=value, low=max(-1.0, value - half), high=min(1.0, value + half), n=n, same=same)
