"""Which labels may prove something: those of rows that chance has chosen, never those that were picked for looking wrong."""

from __future__ import annotations

from collections.abc import Sequence

from overproof.data import Example
from overproof.measure.labels import DrawnLabel, SuspectLabel, provable

DRAWN = frozenset({"teacher", "log", "review-audit"})
"""Marks of `Example.label_from` and `gold_from` that say: whether the row has this label was not decided by its answer."""


def require_provable(rows: Sequence[Example]) -> None:
    """
    Let only rows through whose labels may enter a plan, a certificate or a monitor.

    Args:
        rows: calibration or sealed rows.

    Raises: MeasureError that names the first row whose label was picked by suspicion, or whose mark is not known, or
        that stands there twice.
    """
    provable([_label(e, e.target, e.label_from) for e in rows])  # type: ignore[misc]  # finding the others is its job
    provable([_label(e, e.gold, e.gold_from) for e in rows if e.gold is not None])  # type: ignore[misc]


def _label(example: Example, label: str, mark: str) -> DrawnLabel | SuspectLabel:
    if mark in DRAWN:
        # within its set each row was to be labelled, whatever its answer would be
        return DrawnLabel(row=example.request.id, label=label, chance=1.0)
    return SuspectLabel(row=example.request.id, label=label, worth=1.0)
