"""How sure a generator is of each field of a record: kept beside its answers, read by a calibrator of the field's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from overproof.data import CalibrationSet, TestSet
from overproof.errors import DataError
from overproof.evidence import FieldCalibrator, Scores
from overproof.measure.calibrators import fit_columns
from overproof.measure.reading import ODDS
from overproof.outputs import Fields
from overproof.steps.answers import answers_of

FIELDS = "fields.npy"  # no "column-": what is known of a part must not become a feature of the whole


def field_table(output: Fields, odds: Sequence[Mapping[str, float]]) -> NDArray[np.float64]:
    """
    What `fields.npy` holds.

    Args:
        output: the fields.
        odds: for each row field name to log-odds.

    Returns: one row each, one column a field, NaN where there is none.
    """
    return np.array([[row.get(one.name, np.nan) for one in output.fields] for row in odds], dtype=np.float64)


def field_odds(scores: Scores, rows: CalibrationSet | TestSet) -> dict[str, NDArray[np.float64]]:
    """
    The log-odds that a generator gave to its fields.

    Args:
        scores: of these rows.
        rows: any set.

    Returns: by name in the task's order, shape (n,) each, NaN where it gave none; empty for texts, and where it scores no field.
    Raises: DataError where they are not those of the rows.
    """
    path = scores.folder.path / FIELDS
    if not isinstance(rows.output, Fields) or not path.is_file():
        return {}
    table: NDArray[Any] = np.load(path, allow_pickle=False)
    names = [one.name for one in rows.output.fields]
    if table.shape != (len(rows.examples), len(names)):
        raise DataError(f"field scores of {scores.name!r} have shape {table.shape}, the rows ask for {(len(rows.examples), len(names))}", next_action="predict these rows again")
    return {name: table[:, at].astype(np.float64) for at, name in enumerate(names) if not np.isnan(table[:, at]).all()}


def field_right(scores: Scores, rows: CalibrationSet | TestSet) -> dict[str, NDArray[np.bool_]]:
    """
    Field by field, whether a candidate says what the teacher says.

    Args:
        scores: of these rows.
        rows: a set of records.

    Returns: by name, shape (n,) each, False where it has no answer.
    """
    assert isinstance(rows.output, Fields)
    said, none = answers_of(scores, rows), (False,) * len(rows.output.fields)
    table = np.array([none if a is None else rows.output.compare(a, e.target) for a, e in zip(said, rows.examples, strict=True)], dtype=np.bool_)
    return {one.name: table[:, at] for at, one in enumerate(rows.output.fields)}


def field_calibrators(scores: Scores, rows: CalibrationSet) -> tuple[FieldCalibrator, ...]:
    """
    A reading for each field, fitted on the rows that it was scored on.

    Args:
        scores: of these rows.
        rows: calibration rows.

    Returns: Platt's with a prior, so that few rows make no steep reading; empty where the generator scores no field.
    """
    if not (odds := field_odds(scores, rows)):
        return ()
    right = field_right(scores, rows)
    known = {name: ~np.isnan(column) for name, column in odds.items()}
    return tuple(
        FieldCalibrator(field=name, calibrator=fit_columns("platt", {ODDS: column[known[name]]}, right[name][known[name]]))
        for name, column in odds.items()
    )
