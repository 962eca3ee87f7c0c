"""Read a candidate's confidence: one temperature, fitted on calibration rows against the teacher's labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from overproof.data import CalibrationSet, TestSet
from overproof.errors import DataError
from overproof.evidence import Calibration, Scores
from overproof.measure.calibration import expected_calibration_error, fit_temperature, log_loss, probabilities
from overproof.measure.intervals import figure
from overproof.steps.provenance import require_provable
from overproof.store.artifacts import Step

LOGITS = "logits.npy"
UNKNOWN = -1
"""Column of a true label that nobody gave."""
STRANGE = -2
"""Column of a true label that is none of the task's labels: every answer to that row is wrong."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrateRecipe:
    """How the calibration is reported."""

    bins: int = 15
    """Equal-mass bins of the calibration error; fewer where there are fewer rows."""
    level: float = 0.95
    """Confidence of the intervals."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sheet:
    """A set of rows as columns of the label list."""

    target: NDArray[np.int64]
    """Shape (n,): the teacher's label."""
    gold: NDArray[np.int64]
    """Shape (n,): the true label, `UNKNOWN` where nobody gave it, `STRANGE` where it is outside the task."""

    @property
    def has_gold(self) -> NDArray[np.bool_]:
        """Shape (n,): rows whose true label is known."""
        known: NDArray[np.bool_] = self.gold != UNKNOWN
        return known


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """A candidate's answers as numbers."""

    answer: NDArray[np.int64]
    """Shape (n,): column of the answered label."""
    confidence: NDArray[np.float64]
    """Shape (n,): probability of the answer after the temperature, in [0, 1]; NaN where a score was NaN."""


def sheet_of(rows: CalibrationSet | TestSet) -> Sheet:
    """
    The rows' labels as column numbers.

    Args:
        rows: any set with labels.

    Returns: teacher's and true labels.
    Raises: DataError for a teacher's label outside the task's labels, or an empty set; MeasureError for a label that
        was picked for looking wrong.
    """
    column = {label: i for i, label in enumerate(rows.labels)}
    require_provable(rows.examples)  # every figure of a plan or a certificate comes by here
    if not rows.examples:
        raise DataError(
            f"a {type(rows).__name__} has no rows", next_action="import more traffic, or change the shares in [promptset]"
        )
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


def logits_of(scores: Scores, rows: CalibrationSet | TestSet) -> NDArray[np.float64]:
    """
    A candidate's scores for these rows.

    Args:
        scores: with `logits.npy` in its folder.
        rows: the set that the scores were made for.

    Returns: shape (n, k), columns in label order.
    Raises: DataError where the shape is not that of the rows.
    """
    found: NDArray[Any] = np.load(scores.folder.path / LOGITS, allow_pickle=False)
    expected = (len(rows.examples), len(rows.labels))
    if found.shape != expected:
        raise DataError(
            f"scores of {scores.name!r} have shape {found.shape}, the rows ask for {expected}",
            next_action="predict these rows again",
        )
    return found.astype(np.float64)


def broken_rows(logits: NDArray[np.float64]) -> NDArray[np.bool_]:
    """
    Rows that no confidence can be read from.

    Args:
        logits: shape (n, k).

    Returns: shape (n,), True where a score is NaN or +inf, or all are -inf.
    """
    found: NDArray[np.bool_] = (np.isnan(logits) | (logits == np.inf)).any(axis=1) | (logits == -np.inf).all(axis=1)
    return found


def read(logits: NDArray[np.float64], temperature: float) -> Reading:
    """
    Answers and confidences.

    Args:
        logits: shape (n, k).
        temperature: positive; 1 leaves the scores as they are.

    Returns: the reading; the answer does not depend on the temperature.
    """
    broken = broken_rows(logits)
    chances = probabilities(np.where(broken[:, None], 0.0, logits), temperature)
    confidence = np.where(broken, np.nan, np.minimum(chances.max(axis=1), 1.0))
    return Reading(answer=np.argmax(logits, axis=1).astype(np.int64), confidence=confidence)


def calibrate(scores: Scores, rows: CalibrationSet, recipe: CalibrateRecipe) -> Calibration:
    """
    Fit the temperature and report how far confidence was off before and after.

    Args:
        scores: a candidate's scores of `rows`.
        rows: calibration rows.
        recipe: bins and level.

    Returns: the calibration, with agreement and (where there is gold) accuracy on these rows.
    Raises: DataError for no rows, scores of other rows, or scores that are not finite.
    """
    sheet, logits = sheet_of(rows), logits_of(scores, rows)
    if broken_rows(logits).any():
        raise DataError(
            f"{scores.name!r} gave no numbers for {int(broken_rows(logits).sum())} of {len(logits)} calibration rows",
            next_action="retrain it; a student that breaks on ordinary rows can't be calibrated",
        )
    temperature = fit_temperature(logits, sheet.target)
    n = len(sheet.target)
    bins = min(recipe.bins, n)
    before, after = read(logits, 1.0), read(logits, temperature)
    right = after.answer == sheet.target
    known = sheet.has_gold
    n_gold = int(known.sum())
    true = int((after.answer == sheet.gold)[known].sum())
    return Calibration(
        name=scores.name,
        temperature=temperature,
        ece_before=expected_calibration_error(before.confidence, right, bins=bins),
        ece_after=expected_calibration_error(after.confidence, right, bins=bins),
        log_loss_before=log_loss(probabilities(logits, 1.0), sheet.target),
        log_loss_after=log_loss(probabilities(logits, temperature), sheet.target),
        n=n,
        fidelity=figure(int(right.sum()), n, metric="fidelity", level=recipe.level),
        accuracy=figure(true, n_gold, metric="accuracy", level=recipe.level) if n_gold else None,
    )


CALIBRATE = Step(name="calibrate", version=1, fn=calibrate)
