"""How a candidate's confidence is read: fitted on calibration rows against the teacher's labels, read the same everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from overproof.data import CalibrationSet, TestSet
from overproof.errors import DataError
from overproof.evidence import (
    Calibration,
    CalibrationGap,
    Calibrator,
    Confidence,
    Reliability,
    Scores,
    SliceCalibrator,
)
from overproof.measure.calibration import brier, calibration_band, log_loss
from overproof.measure.calibrators import CalibratorChoice, choose_calibrator, slice_calibrator
from overproof.measure.intervals import figure
from overproof.measure.reading import column_of, read_columns, read_scores
from overproof.measure.sequences import AS_IT_CAME, choose_sequence_calibrator
from overproof.measure.slices import NO_FUNCTIONS, OTHER, Functions, partition
from overproof.steps.answers import STRANGE, UNKNOWN, answers_of, codes_of
from overproof.steps.field_confidence import field_calibrators
from overproof.steps.scope import MIXED, ScopeFit, choose_mixed, choose_scope
from overproof.steps.sheet import Sheet, sheet_of
from overproof.steps.streamed import COLUMN
from overproof.store.artifacts import Step
from overproof.task import Slice

LOGITS = "logits.npy"
FOREIGN = ("nearest_", "mahalanobis", "unknown_share")
"""Starts of the names of columns that say how foreign a request is; others say how sure an answer is."""
__all__ = ["STRANGE", "UNKNOWN", "Sheet", "sheet_of"]  # what readers of scores ask for beside the reading

@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrateRecipe:
    """How the calibration is reported."""

    bins: int = 15
    """Equal-mass bins of the calibration error; fewer where there are fewer rows."""
    level: float = 0.95
    """Confidence of the intervals."""
    slices: tuple[Slice, ...] = ()
    """The slices that thresholds are certified for, in file order; empty where one threshold is for all traffic."""
    out_of_scope: str = ""
    """The label that says so, where the task has one."""
    scope_share: float = 0.01
    """Share of the task's own requests that may be routed as out of scope; 0 turns the route off."""
    mixed_share: float = 0.0
    """Share of the task's own requests that may be routed as put together; 0 turns the route off."""
    draws: int = 200
    """Resamples of the calibration error's band."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """A candidate's answers as numbers."""

    answer: NDArray[np.int64]
    """Shape (n,): column of the answered label, or the code of a written answer."""
    confidence: NDArray[np.float64]
    """Shape (n,): calibrated chance that the answer is right, in [0, 1]; NaN where a score was NaN."""
    foreign: NDArray[np.bool_]
    """Shape (n,): a rule sends the row to the teacher, whatever the confidence."""
    mixed: NDArray[np.bool_]
    """Shape (n,): only because it is put together of several; no out-of-scope rule does."""

    @property
    def score(self) -> NDArray[np.float64]:
        """Shape (n,): what a threshold is compared with; NaN, which no threshold keeps, where the row is foreign."""
        return np.where(self.foreign, np.nan, self.confidence)


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


def columns_of(scores: Scores) -> dict[str, NDArray[np.float64]]:
    """
    The out-of-scope scores that a candidate brings itself.

    Args:
        scores: any.

    Returns: by name, shape (n,) each; empty for most candidates.
    """
    files = sorted(scores.folder.path.glob(f"{COLUMN}*.npy"))
    return {
        file.stem.removeprefix(COLUMN): np.load(file, allow_pickle=False).astype(np.float64) for file in files
    }


def slice_names(rows: CalibrationSet | TestSet, slices: Sequence[Slice], functions: Functions) -> tuple[str, ...]:
    """
    The certification slice of every row, by the rule that the bundle routes by.

    Args:
        rows: any set.
        slices: in file order.
        functions: "module:function" to the function.

    Returns: a name for each row, "other" where no slice admits it.
    """
    part = partition(slices, [e.request for e in rows.examples], functions=functions)
    return tuple(part.names[i] for i in part.index)


def read(
    logits: NDArray[np.float64],
    how: Confidence | float,
    *,
    slices: Sequence[str] = (),
    columns: Mapping[str, NDArray[np.float64]] | None = None,
) -> Reading:
    """
    Answers and confidences.

    Args:
        logits: shape (n, k).
        how: the fitted reading, or a temperature alone; 1.0 leaves the scores as they are.
        slices: the certification slice of each row; needed where slices have their own calibrator.
        columns: what the candidate brings beside its logits.

    Returns: the reading; the answer does not depend on `how`.
    """
    if isinstance(how, float | int):
        how = Confidence(everywhere=Calibrator(method="temperature", temperature=float(how)))
    broken = broken_rows(logits)
    found = read_scores(how, np.where(broken[:, None], 0.0, logits), slices=slices, columns=columns)
    return Reading(
        answer=np.argmax(logits, axis=1).astype(np.int64),
        confidence=np.where(broken, np.nan, found.confidence),
        foreign=found.foreign & ~broken,
        mixed=found.mixed & ~broken,
    )


def reading_of(
    scores: Scores, rows: CalibrationSet | TestSet, how: Confidence | float, *, slices: Sequence[str] = ()
) -> Reading:
    """
    A candidate's answers to these rows, read as the plan fixed it.

    Args:
        scores: of the rows.
        rows: any set.
        how: see `read`.
        slices: see `read`.

    Returns: the reading. Written answers are codes (`steps.answers`), and a row without one has no confidence.
    Raises: DataError where the shape is not that of the rows.
    """
    if rows.output is not None:
        answers, columns = answers_of(scores, rows), columns_of(scores)
        silent = np.array([one is None for one in answers], dtype=np.bool_)
        reads = how if isinstance(how, Confidence) else Confidence(everywhere=AS_IT_CAME)  # there is no temperature to read it by
        found = read_columns(reads, columns, slices=slices)
        return Reading(
            answer=codes_of(answers, rows, rows.output), confidence=np.where(silent, np.nan, found.confidence), foreign=found.foreign & ~silent, mixed=found.mixed & ~silent,
        )
    return read(logits_of(scores, rows), how, slices=slices, columns=columns_of(scores))


def reliabilities(
    reading: Reading, target: NDArray[np.int64], names: Sequence[str], how: Confidence | None, recipe: CalibrateRecipe
) -> tuple[Reliability, ...]:
    """
    How far stated confidence is from what was seen: all rows, then each certification slice.

    Args:
        reading: of the rows.
        target: shape (n,): the label that an answer is compared with.
        names: the certification slice of each row; empty for none.
        how: says which slices have a calibrator of their own; None where the scores are read as they came.
        recipe: bins, level and draws.

    Returns: "all" first; empty where no row can be read.
    """
    sound = ~np.isnan(reading.confidence)
    own = {one.slice for one in how.own} if how is not None else set()
    of = np.array(names, dtype=object)
    order = sorted(set(names), key=lambda name: (name == OTHER, name))
    masks = {"all": sound} | ({name: sound & (of == name) for name in order} if len(order) > 1 else {})
    return tuple(
        reliability(name, reading.confidence[mask], (reading.answer == target)[mask], recipe, own=name in own)
        for name, mask in masks.items()
        if mask.any()
    )


def reliability(
    name: str, stated: NDArray[np.float64], right: NDArray[np.bool_], recipe: CalibrateRecipe, *, own: bool = False
) -> Reliability:
    """
    How far stated confidence is from what was seen, on one set of rows.

    Args:
        name: of the rows.
        stated: shape (n,), n at least 1, in [0, 1].
        right: shape (n,): what was stated came true.
        recipe: bins, level and draws.
        own: read by a calibrator of the slice's own.

    Returns: Brier score, log-loss and calibration error.
    """
    n = len(stated)
    band = calibration_band(stated, right, bins=min(recipe.bins, n), level=recipe.level, draws=recipe.draws)
    chances, hit = np.stack([1.0 - stated, stated], axis=1), right.astype(np.int64)
    return Reliability(
        slice=name,
        brier=brier(chances, hit),
        log_loss=log_loss(chances, hit),
        ece=CalibrationGap(
            value=band.value, low=band.low, high=band.high, level=recipe.level,
            method=f"bootstrap less its bias, {recipe.draws} draws", n=n, noise=band.noise,
        ),
        own=own,
    )  # fmt: skip


def calibrate(
    scores: Scores, rows: CalibrationSet, recipe: CalibrateRecipe, *, functions: Functions = NO_FUNCTIONS
) -> Calibration:
    """
    Choose and fit the reading of confidence, and report how far confidence was off before and after.

    Args:
        scores: a candidate's scores of `rows`.
        rows: calibration rows.
        recipe: bins, level, slices, out-of-scope label.
        functions: "module:function" to the function, for slices that equality can't say.

    Returns: the calibration, with agreement and (where there is gold) accuracy on these rows. Candidates of kind
        "student" get out-of-scope rules; others are never served.
    Raises: DataError for no rows, scores of other rows, or scores that are not finite.
    """
    sheet, names = sheet_of(rows), slice_names(rows, recipe.slices, functions)
    fit = (_fitted if rows.output is None else _fitted_written)(scores, rows, sheet, names, recipe)
    choice, how, scope = fit.choice, fit.how, fit.scope
    n = len(sheet.target)
    before, after = reading_of(scores, rows, 1.0), reading_of(scores, rows, how, slices=names)
    right, sound = after.answer == sheet.target, ~np.isnan(before.confidence)
    known = sheet.has_gold
    n_gold = int(known.sum())
    true = int((after.answer == sheet.gold)[known].sum())
    # Nobody asks how far a baseline's confidence is off in a slice, and each band takes a tenth of a second.
    seen = reliabilities(after, sheet.target, names if scores.kind == "student" else (), how, recipe)
    return Calibration(
        name=scores.name,
        confidence=how,
        reason=choice.reason,
        losses=choice.losses,
        before=reliability("all", before.confidence[sound], right[sound], recipe),
        after=seen[0],
        slices=seen[1:],
        scope=scope.report(after.foreign & ~after.mixed),
        mixed=figure(int(after.mixed.sum()), n, metric="mixed", level=recipe.level) if how.mixed else None,
        n=n,
        fidelity=figure(int(right.sum()), n, metric="fidelity", level=recipe.level),
        accuracy=figure(true, n_gold, metric="accuracy", level=recipe.level) if n_gold else None,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Fit:
    """A fitted reading, and what it was chosen from."""

    choice: CalibratorChoice
    how: Confidence
    scope: ScopeFit


def _fitted(scores: Scores, rows: CalibrationSet, sheet: Sheet, names: Sequence[str], recipe: CalibrateRecipe) -> _Fit:
    logits, found = logits_of(scores, rows), columns_of(scores)
    columns = {name: column for name, column in found.items() if name not in MIXED}
    if broken_rows(logits).any():
        raise DataError(
            f"{scores.name!r} gave no numbers for {int(broken_rows(logits).sum())} of {len(logits)} calibration rows",
            next_action="retrain it; a student that breaks on ordinary rows can't be calibrated",
        )
    share = recipe.scope_share if scores.kind == "student" else 0.0
    scope = choose_scope(
        logits, columns, sheet, rows.labels, named=recipe.out_of_scope, share=share, level=recipe.level
    )
    choice = choose_calibrator(logits, sheet.target, features=_features(logits, columns, scope))
    mixed = choose_mixed(found, recipe.mixed_share if scores.kind == "student" else 0.0)
    how = Confidence(everywhere=choice.calibrator, own=_own(choice, logits, sheet, names), scope=scope.rules, mixed=mixed)
    return _Fit(choice=choice, how=how, scope=scope)


def _fitted_written(scores: Scores, rows: CalibrationSet, sheet: Sheet, names: Sequence[str], recipe: CalibrateRecipe) -> _Fit:
    """Rows without an answer are never kept, so they say nothing about how sure an answer is."""
    del names  # a reading of a slice's own is a temperature, and there is none without logits
    reading, columns = reading_of(scores, rows, 1.0), columns_of(scores)
    some = ~np.isnan(reading.confidence)
    if not some.any():
        raise DataError(
            f"{scores.name!r} answered none of {len(some)} calibration rows",
            next_action="look at its training rows and options; a candidate that answers nothing can't be calibrated",
        )
    foreign = {name: column for name, column in columns.items() if name.startswith(FOREIGN)}
    share = recipe.scope_share if scores.kind == "student" and foreign else 0.0
    scope = choose_scope(np.zeros((len(some), 0)), foreign, sheet, rows.labels, named="", share=share, level=recipe.level)
    right = reading.answer == sheet.target
    choice = choose_sequence_calibrator({name: column[some] for name, column in columns.items()}, right[some])
    how = Confidence(everywhere=choice.calibrator, scope=scope.rules, fields=field_calibrators(scores, rows))
    return _Fit(choice=choice, how=how, scope=scope)


def _features(
    logits: NDArray[np.float64], columns: Mapping[str, NDArray[np.float64]], scope: ScopeFit
) -> dict[str, NDArray[np.float64]]:
    """What a confidence head may read: the log-odds of the answer, and the scores that watch for foreign requests."""
    if not scope.rules:
        return {}
    names = ["log_odds", *(rule.score for rule in scope.rules)]
    return {name: column_of(name, logits, columns) for name in names}


def _own(
    choice: CalibratorChoice, logits: NDArray[np.float64], sheet: Sheet, names: Sequence[str]
) -> tuple[SliceCalibrator, ...]:
    of = np.array(names, dtype=object)
    parts = sorted(set(names)) if len(set(names)) > 1 else []
    fitted = {name: slice_calibrator(choice.calibrator, logits, sheet.target, of == name) for name in parts}
    return tuple(SliceCalibrator(slice=name, calibrator=one) for name, one in fitted.items() if one is not None)


CALIBRATE = Step(name="calibrate", version=4, fn=calibrate)
