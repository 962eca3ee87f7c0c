"""One reading of a student's scores, for the evaluation and for the server: NumPy alone, the same numbers on both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from overproof.errors import MeasureError
from overproof.evidence import Calibrator, Confidence, ScopeRule
from overproof.measure.scope import energy, entropy, margin, max_logit, max_probability, softmax_rows
from overproof.measure.venn_abers import places

Floats = NDArray[np.float64]
OF_LOGITS = {
    "max_logit": max_logit, "energy": energy, "entropy": entropy, "max_probability": max_probability, "margin": margin,
}  # fmt: skip
"""Scores that need nothing but the logits; the others are columns that the student brings."""
ODDS = "odds"
"""Name of the one column that a field is read by."""
AS_STATED = Calibrator(method="platt", inputs=(ODDS,), mean=(0.0,), scale=(1.0,), weight=(1.0, 0.0))
DIGITS = 12  # rows read one by one or in a block differ by a unit in the last place, which must not move a row over an edge


@dataclass(frozen=True, kw_only=True, slots=True)
class Read:
    """What one pass over a student's scores says."""

    confidence: Floats
    """Shape (n,): calibrated chance that the top answer is right, in [0, 1]."""
    foreign: NDArray[np.bool_]
    """Shape (n,): a rule sends the row to the teacher, whatever the confidence."""
    mixed: NDArray[np.bool_]
    """Shape (n,): only because it is put together of several; no out-of-scope rule does."""


def log_odds(logits: Floats) -> Floats:
    """
    Log-odds of the top answer.

    Args:
        logits: shape (n, k), readable.

    Returns: shape (n,), bounded to about 27.6 on either side.
    Raises: MeasureError for another shape, NaN or +inf.
    Source: the input of Platt 1999, Advances in Large Margin Classifiers.

    >>> log_odds(np.array([[2.0, 0.0], [0.0, 0.0]])).round(3).tolist()
    [2.0, 0.0]
    """
    best = np.clip(softmax_rows(logits).max(axis=1), 1e-12, 1.0 - 1e-12)
    return np.asarray(np.log(best) - np.log1p(-best), dtype=np.float64)


def column_of(name: str, logits: Floats, columns: Mapping[str, Floats]) -> Floats:
    """
    One named score of each row.

    Args:
        name: "log_odds", one of `OF_LOGITS`, or a column that the student brings.
        logits: shape (n, k), readable.
        columns: shape (n,) each, by name.

    Returns: shape (n,), rounded to twelve digits.
    Raises: MeasureError for a column that is not there, of another length or not finite.
    Source: see `measure.scope`.

    >>> column_of("max_logit", np.array([[2.0, 0.0]]), {}).tolist()
    [-2.0]
    """
    if name == "log_odds":
        return log_odds(logits)
    if name in OF_LOGITS and name not in columns:
        return np.round(OF_LOGITS[name](logits), DIGITS)
    found = columns.get(name)
    if found is None or found.shape != (logits.shape[0],) or not bool(np.isfinite(found).all()):
        raise MeasureError(
            f"the student brings no column {name!r} of shape ({logits.shape[0]},)",
            next_action="use the student that this reading was fitted for",
        )
    return np.round(found, DIGITS)


def stated_confidence(calibrator: Calibrator, logits: Floats, columns: Mapping[str, Floats]) -> Floats:
    """
    Confidence that the top answer is right, by one calibrator.

    Args:
        calibrator: from `measure.calibrators`.
        logits: shape (n, k), readable.
        columns: what the student brings beside its logits, shape (n,) each.

    Returns: shape (n,), in [0, 1], rounded to twelve digits.
    Raises: MeasureError for another shape, NaN, +inf or a column that is not there.
    Source: see `measure.calibrators.fit_calibrator`.

    >>> stated_confidence(Calibrator(method="temperature", temperature=2.0), np.array([[4.0, 0.0]]), {}).round(3).tolist()
    [0.881]
    """
    if calibrator.method == "temperature":
        found = softmax_rows(logits / calibrator.temperature).max(axis=1)
    elif calibrator.method == "isotonic":
        found = np.interp(softmax_rows(logits).max(axis=1), calibrator.stated, calibrator.observed)
    elif calibrator.method == "venn-abers":
        raw = np.round(softmax_rows(logits).max(axis=1), DIGITS)
        found = np.asarray(calibrator.observed)[places(calibrator.stated, raw)]
    else:
        table = np.column_stack([column_of(name, logits, columns) for name in calibrator.inputs])
        scaled = (table - np.asarray(calibrator.mean)) / np.asarray(calibrator.scale)
        weight = np.asarray(calibrator.weight)
        score = np.clip((scaled * weight[:-1]).sum(axis=1) + weight[-1], -700.0, 700.0)
        found = 1.0 / (1.0 + np.exp(-score))
    return np.asarray(np.minimum(np.round(found, DIGITS), 1.0), dtype=np.float64)


def read_scores(
    how: Confidence, logits: Floats, *, slices: Sequence[str] = (), columns: Mapping[str, Floats] | None = None
) -> Read:
    """
    Confidence and foreignness of every row, as the plan fixed them.

    Args:
        how: the fitted reading.
        logits: shape (n, k), readable.
        slices: the certification slice of each row; empty where no slice has a calibrator of its own.
        columns: what the student brings beside its logits, shape (n,) each.

    Returns: both, shape (n,) each.
    Raises: MeasureError for names that are not one a row, or a column that is not there.
    Source: the seam that every reader of confidence goes through.

    >>> how = Confidence(everywhere=Calibrator(method="temperature"))
    >>> read_scores(how, np.array([[0.0, 0.0]])).confidence.tolist()
    [0.5]
    """
    given = columns or {}
    if how.own and len(slices) != logits.shape[0]:
        raise MeasureError(
            f"{len(slices)} slice names for {logits.shape[0]} rows, and some slices have their own calibrator",
            next_action="name the certification slice of each row",
        )
    confidence = stated_confidence(how.everywhere, logits, given)
    for one in how.own:
        rows = np.array([name == one.slice for name in slices], dtype=bool)
        if rows.any():
            part = {name: column[rows] for name, column in given.items()}
            confidence[rows] = stated_confidence(one.calibrator, logits[rows], part)
    foreign, mixed = _above(how.scope, logits, given), _above(how.mixed, logits, given)
    return Read(confidence=confidence, foreign=foreign | mixed, mixed=mixed & ~foreign)


def _above(rules: Sequence[ScopeRule], logits: Floats, columns: Mapping[str, Floats]) -> NDArray[np.bool_]:
    found = np.zeros(logits.shape[0], dtype=bool)
    for rule in rules:
        found |= column_of(rule.score, logits, columns) > rule.threshold
    return found


def read_columns(how: Confidence, columns: Mapping[str, Floats], *, slices: Sequence[str] = ()) -> Read:
    """
    Confidence and foreignness of answers that are written and not picked from labels: no logits, columns alone.

    Args:
        how: the fitted reading.
        columns: shape (n,) each, by name; "sequence" is the generator's own score.
        slices: see `read_scores`.

    Returns: both, shape (n,) each.
    Raises: MeasureError for a reading that needs logits, no column, or a column that is missing or not finite.
    Source: `read_scores`.

    >>> platt = Calibrator(method="platt", inputs=("sequence",), mean=(0.0,), scale=(1.0,), weight=(1.0, 0.0))
    >>> read_columns(Confidence(everywhere=platt), {"sequence": np.array([0.0, 2.0])}).confidence.round(3).tolist()
    [0.5, 0.881]
    """
    try:
        refuse_logits(how)
    except ValueError as error:
        raise MeasureError(str(error), next_action='fit the reading on the column "sequence"') from error
    if not columns:
        raise MeasureError("a written answer is read by columns, got none", next_action='pass at least "sequence"')
    n = len(next(iter(columns.values())))
    return read_scores(how, np.zeros((n, 1)), slices=slices, columns=columns)


def field_chances(how: Confidence, field: str, odds: Floats) -> Floats:
    """
    The chance that one field of a record is right.

    Args:
        how: the fitted reading.
        field: its name.
        odds: shape (n,), finite: the generator's own log-odds of the field.

    Returns: shape (n,), in [0, 1]; as the generator states it where the reading has none for the field.
    Raises: MeasureError for a column of another shape or not finite.
    Source: `stated_confidence`.

    >>> how = Confidence(everywhere=Calibrator(method="temperature"))
    >>> field_chances(how, "total", np.array([0.0, 2.0])).round(3).tolist()
    [0.5, 0.881]
    """
    own = next((one.calibrator for one in how.fields if one.field == field), AS_STATED)
    return stated_confidence(own, np.zeros((len(odds), 1)), {ODDS: odds})


def refuse_logits(how: Confidence) -> None:
    """
    Refuse a reading that stands on label scores, where every answer would look certain.

    Args:
        how: a reading.

    Returns: nothing.
    Raises: ValueError that names what it stands on.
    Source: the softmax of a single column is 1 whatever the answer is worth.

    >>> refuse_logits(Confidence(everywhere=Calibrator(method="temperature")))
    Traceback (most recent call last):
    ...
    ValueError: 'temperature' reads label scores, which written answers have not
    """
    readings = [how.everywhere, *(one.calibrator for one in how.own)]
    wanted: list[str] = [one.method for one in readings if one.method not in ("platt", "head")]
    named = {*(name for one in readings for name in one.inputs), *(rule.score for rule in (*how.scope, *how.mixed))}
    wanted += sorted(named & {"log_odds", *OF_LOGITS})
    if wanted:
        raise ValueError(f"{wanted[0]!r} reads label scores, which written answers have not")
