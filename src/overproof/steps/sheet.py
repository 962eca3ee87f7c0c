"""A set's labels as columns of the label list."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from overproof.data import CalibrationSet, TestSet
from overproof.errors import DataError
from overproof.steps.answers import STRANGE, TEACHERS, UNKNOWN, gold_code
from overproof.steps.provenance import require_provable


@dataclass(frozen=True, kw_only=True, slots=True)
class Sheet:
    """A set of rows as columns of the label list, or as the codes of `steps.answers` where answers are written."""

    target: NDArray[np.int64]
    """Shape (n,): the teacher's label."""
    gold: NDArray[np.int64]
    """Shape (n,): the true label, `UNKNOWN` where nobody gave it, `STRANGE` where it is outside the task."""

    @property
    def has_gold(self) -> NDArray[np.bool_]:
        """Shape (n,): rows whose true label is known."""
        known: NDArray[np.bool_] = self.gold != UNKNOWN
        return known


def sheet_of(rows: CalibrationSet | TestSet) -> Sheet:
    """
    The rows' labels as column numbers.

    Args:
        rows: any set with labels.

    Returns: teacher's and true labels.
    Raises: DataError for a teacher's label outside the task's labels, or an empty set; MeasureError for a label that
        was picked for looking wrong.
    """
    require_provable(rows.examples)  # every figure of a plan or a certificate comes by here
    column = {label: i for i, label in enumerate(rows.labels)}
    if not rows.examples:
        raise DataError(
            f"a {type(rows).__name__} has no rows", next_action="import more traffic, or change the shares in [promptset]"
        )
    if rows.output is not None:
        gold = [gold_code(e, rows.output) for e in rows.examples]
        return Sheet(target=np.full(len(gold), TEACHERS, dtype=np.int64), gold=np.array(gold, dtype=np.int64))
    strangers = sorted({e.target for e in rows.examples} - set(column))
    if strangers:
        raise DataError(
            f"rows carry labels outside the task: {strangers[:5]!r}",
            next_action="add them to [task] output.classes, or let the label_set verifier drop them",
        )
    return Sheet(
        target=np.array([column[e.target] for e in rows.examples], dtype=np.int64),
        gold=np.array(
            [UNKNOWN if e.gold is None else column.get(e.gold, STRANGE) for e in rows.examples], dtype=np.int64
        ),
    )
