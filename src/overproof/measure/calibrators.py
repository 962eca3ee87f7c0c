"""Calibrators behind one seam: fitted readings of the confidence in a top answer, and which of them to serve with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import scipy  # its submodules load on first use: a run that reuses everything computes nothing
from numpy.typing import ArrayLike, NDArray

from overproof.errors import MeasureError
from overproof.evidence import Calibrator, CalibratorMethod, MethodLoss
from overproof.measure.calibration import SLICE_ROWS, fit_temperature, log_loss, probabilities
from overproof.measure.reading import DIGITS, log_odds, stated_confidence
from overproof.measure.venn_abers import fit_venn_abers

CHOICE_ROWS = 1_000
"""Dev rows from which on another method can win: on real text temperature had the least log-loss below."""
STEPPED: tuple[CalibratorMethod, ...] = ("isotonic", "venn-abers")
"""Readings that give many rows one confidence: between those no threshold can tell."""
STEPS_WORTH = 2.0
"""Standard errors by which a stepped reading has to beat the best smooth one."""
ISOTONIC_ROWS = 1_000
"""Rows that isotonic needs: at 100 its log-loss was .301 against .183, and it ruins the ranking that it is used for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibratorChoice:
    """The calibrator to serve with, and why."""

    calibrator: Calibrator
    """Fitted on all rows."""
    losses: tuple[MethodLoss, ...]
    """Every method on the held-out part, the best first; empty where nothing was compared."""
    held_out: int
    """Rows of the held-out part."""
    reason: str
    """Why this one."""


def fit_calibrator(
    method: str, logits: ArrayLike, target: ArrayLike, *, features: Mapping[str, ArrayLike] | None = None
) -> Calibrator:
    """
    Fit one reading of the top answer's confidence; all methods share this seam.

    Args:
        method: "temperature", "platt" (on the top answer's log-odds), "isotonic", "venn-abers", or "head" (on the features).
        logits: shape (n, k), log-probabilities up to a constant per row.
        target: shape (n,), column of each row's label.
        features: for "head": columns of shape (n,), by name, finite; see `sequence_features` and `measure.scope`.

    Returns: the calibrator; read confidences with `calibrated`.
    Raises: MeasureError for an unknown method, isotonic below 1,000 rows, a head without features, or columns that
        don't fit.
    Source: Guo et al. 2017, arXiv:1706.04599; Platt 1999, Advances in Large Margin Classifiers (with his smoothed
        targets, here for the head too, whose standardised weights carry a ridge of 1); Zadrozny and Elkan 2002; Vovk and
        Petej 2014, arXiv:1211.0025.

    >>> logits = [[4.0, 0.0]] * 80 + [[0.0, 4.0]] * 20
    >>> fitted = fit_calibrator("platt", logits, [0] * 100)
    >>> calibrated(fitted, [[4.0, 0.0]]).round(2).tolist()
    [0.8]
    """
    if method not in get_args(CalibratorMethod):
        raise MeasureError(
            f"no calibration method {method!r}", next_action=f"use one of {', '.join(get_args(CalibratorMethod))}"
        )
    right = _top_is_right(logits, target)
    if method == "temperature":
        return _calibrator("temperature", right.size, temperature=fit_temperature(logits, target))
    if method == "isotonic":
        return _fit_isotonic(probabilities(logits, 1.0).max(axis=1), right)
    if method == "venn-abers":
        found = fit_venn_abers(np.round(probabilities(logits, 1.0).max(axis=1), DIGITS), right)
        return _calibrator("venn-abers", right.size, steps=(found.edges, found.merged))
    if method == "platt":
        return _fit_weights("platt", {"log_odds": log_odds(_checked(logits))}, right, ridge=0.0)
    if not features:
        raise MeasureError(
            "a confidence head needs features", next_action="pass them by name, or use temperature"
        )
    return _fit_weights("head", features, right, ridge=1.0)


def calibrated(
    calibrator: Calibrator, logits: ArrayLike, *, features: Mapping[str, ArrayLike] | None = None
) -> NDArray[np.float64]:
    """
    Confidence that the top answer is right.

    Args:
        calibrator: from `fit_calibrator`.
        logits: shape (n, k), log-probabilities up to a constant per row.
        features: for a head: the columns that it was fitted on, by name.

    Returns: shape (n,), in [0, 1]. The top answer itself is the largest logit's with every method.
    Raises: MeasureError for another shape, or a feature that is missing, not finite or of another length.
    Source: see `fit_calibrator`.

    >>> calibrated(fit_calibrator("temperature", [[4.0, 0.0]] * 8 + [[0.0, 4.0]] * 2, [0] * 10), [[4.0, 0.0]]).round(2)
    array([0.8])
    """
    raw = _checked(logits)
    given = dict(features or {}) if calibrator.method == "head" else {}
    missing = [name for name in calibrator.inputs if calibrator.method == "head" and name not in given]
    if missing:
        raise MeasureError(
            f"the confidence head misses {missing!r}", next_action="compute the features that it was fitted on"
        )
    if given:
        _table({name: given[name] for name in calibrator.inputs}, raw.shape[0])
    columns = {name: np.asarray(given[name], dtype=np.float64) for name in calibrator.inputs if name in given}
    return stated_confidence(calibrator, raw, columns)


def choose_calibrator(
    logits: ArrayLike, target: ArrayLike, *, features: Mapping[str, ArrayLike] | None = None, seed: int = 0
) -> CalibratorChoice:
    """
    Temperature, unless another method is better on held-out rows.

    Args:
        logits: shape (n, k), log-probabilities up to a constant per row, of dev rows.
        target: shape (n,), column of each row's label.
        features: columns for a head, by name; without them no head takes part.
        seed: of the draw of the held-out third.

    Returns: the choice, fitted on all rows. Below 1,000 rows temperature without a comparison. Isotonic and Venn–Abers take
        part from 1,500 on, and have to be better by two standard errors, since their steps blur the order of the rows.
    Raises: MeasureError for columns that don't fit.
    Source: ours: log-loss of "the top answer is right" on a third of the rows; ties keep the simpler method.

    >>> choose_calibrator([[4.0, 0.0]] * 8 + [[0.0, 4.0]] * 2, [0] * 10).calibrator.method
    'temperature'
    """
    right = _top_is_right(logits, target)
    raw, label, n = np.asarray(logits, dtype=np.float64), np.asarray(target), right.size
    if n < CHOICE_ROWS:
        fitted = fit_calibrator("temperature", raw, label)
        return CalibratorChoice(
            calibrator=fitted, losses=(), held_out=0, reason=f"{n} rows; others are tried from {CHOICE_ROWS}"
        )
    order = np.random.default_rng(seed).permutation(n)
    test, fit = order[: n // 3], order[n // 3 :]
    columns = {name: np.asarray(column) for name, column in (features or {}).items()}
    if columns:
        _table(columns, n)
    stated, losses = {}, []
    for method in ("temperature", "platt", *(["head"] if columns else []), *(STEPPED if fit.size >= ISOTONIC_ROWS else ())):
        part = {name: column[fit] for name, column in columns.items()}
        held = {name: column[test] for name, column in columns.items()}
        fitted = fit_calibrator(method, raw[fit], label[fit], features=part)
        stated[fitted.method] = calibrated(fitted, raw[test], features=held)
        loss = float(_surprise(stated[fitted.method], right[test]).mean())
        losses.append(MethodLoss(method=fitted.method, log_loss=loss))
    ranked = tuple(sorted(losses, key=lambda found: found.log_loss))
    smooth = next(one.method for one in ranked if one.method not in STEPPED)
    best, reason = ranked[0].method, "least log-loss on the held-out third"
    if best in STEPPED:
        gain = _surprise(stated[smooth], right[test]) - _surprise(stated[best], right[test])
        if float(gain.mean()) <= STEPS_WORTH * float(gain.std(ddof=1)) / np.sqrt(gain.size):
            best, reason = smooth, f"{best} is no surer bet on the held-out third, and its steps blur the order of the rows"
    return CalibratorChoice(
        calibrator=fit_calibrator(best, raw, label, features=columns), losses=ranked, held_out=int(test.size), reason=reason
    )


def fit_columns(method: CalibratorMethod, columns: Mapping[str, ArrayLike], right: ArrayLike, *, ridge: float = 1.0) -> Calibrator:
    """
    Weigh columns into the chance that an answer is right, for answers that have no logits.

    Args:
        method: "platt" for one column, "head" for several.
        columns: shape (n,) each, by name, finite.
        right: shape (n,), bool: the answer was right.
        ridge: pull of each standardised weight to 0, a normal prior of variance 1 / ridge: few rows can't make a steep reading.

    Returns: the calibrator; read it with `measure.reading.stated_confidence`.
    Raises: MeasureError for no rows, or columns that don't fit.
    Source: Platt 1999 with his smoothed targets; ridge as the prior of Gelman et al. 2008, arXiv:0901.4011, simplified.

    >>> fitted = fit_columns("platt", {"sequence": [2.0] * 8 + [-2.0] * 2}, [True] * 8 + [False] * 2)
    >>> stated_confidence(fitted, np.zeros((2, 0)), {"sequence": np.array([2.0, -2.0])}).round(2).tolist()
    [0.86, 0.42]
    """
    found = np.asarray(right, dtype=bool)
    if not found.size or not columns:
        raise MeasureError("no rows or no columns to fit a confidence on", next_action="calibrate on rows that have answers")
    return _fit_weights(method, columns, found, ridge=ridge)


def slice_calibrator(
    everywhere: Calibrator, logits: ArrayLike, target: ArrayLike, rows: ArrayLike, *, seed: int = 0
) -> Calibrator | None:
    """
    A temperature of a slice's own, where it is shown to be better than the common reading.

    Args:
        everywhere: the common calibrator; a head keeps all slices.
        logits: shape (n, k), log-probabilities up to a constant per row, of all dev rows.
        target: shape (n,), column of each row's label.
        rows: shape (n,), bool: rows of the slice.
        seed: of the split into three parts.

    Returns: the slice's own, fitted on all its rows; None with fewer than 300 of them, or where its mean log-loss on
        held-out thirds is not lower than the common one's by more than one standard error of the difference.
    Raises: MeasureError for columns that don't fit.
    Source: ours: three-fold comparison, both fitted without the third that judges them.

    >>> logits, few = np.array([[4.0, 0.0]] * 8), np.ones(8, dtype=bool)
    >>> slice_calibrator(fit_calibrator("temperature", logits, [0] * 8), logits, [0] * 8, few) is None
    True
    """
    right = _top_is_right(logits, target)
    raw, label, mask = np.asarray(logits, dtype=np.float64), np.asarray(target), np.asarray(rows, dtype=bool)
    if mask.shape != right.shape:
        raise MeasureError(f"a slice is a mask of {right.size} rows, got {mask.shape!r}", next_action="pass one")
    place = np.flatnonzero(mask)
    if place.size < SLICE_ROWS or everywhere.method == "head":
        return None
    order = np.random.default_rng(seed).permutation(place)
    gains = []
    for part in range(3):
        held = order[part::3]
        others = np.setdiff1d(np.arange(right.size), held)
        inside = np.setdiff1d(place, held)
        if everywhere.method in STEPPED and others.size < ISOTONIC_ROWS:
            return None
        common = calibrated(fit_calibrator(everywhere.method, raw[others], label[others]), raw[held])
        own = calibrated(fit_calibrator("temperature", raw[inside], label[inside]), raw[held])
        gains.append(_surprise(common, right[held]) - _surprise(own, right[held]))
    gain = np.concatenate(gains)
    if float(gain.mean()) <= float(gain.std(ddof=1)) / np.sqrt(gain.size):
        return None
    return fit_calibrator("temperature", raw[mask], label[mask])


def _surprise(stated: NDArray[np.float64], right: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Log-loss of each row."""
    return np.asarray(-np.log(np.clip(np.where(right, stated, 1.0 - stated), 1e-300, 1.0)), dtype=np.float64)


def sequence_features(logprobs: Sequence[ArrayLike]) -> dict[str, NDArray[np.float64]]:
    """
    What a generated answer's tokens say about its confidence, as columns for a head.

    Args:
        logprobs: for each answer its tokens' log-probabilities, at least one token each, <= 0 and finite.

    Returns: "mean", "least" and "sum" of the log-probabilities and "tokens", shape (n,) each.
    Raises: MeasureError for an answer without tokens or a value that is no log-probability.
    Source: the usual sequence scores; Malinin and Gales 2021, arXiv:2002.07650, section 3.

    >>> {name: column.tolist() for name, column in sequence_features([[-0.5, -0.25], [-1.0]]).items()}
    {'mean': [-0.375, -1.0], 'least': [-0.5, -1.0], 'sum': [-0.75, -1.0], 'tokens': [2.0, 1.0]}
    """
    rows = [np.asarray(row, dtype=np.float64) for row in logprobs]
    if not all(row.ndim == 1 and row.size and bool(np.all(np.isfinite(row) & (row <= 0.0))) for row in rows):
        raise MeasureError(
            "each answer needs at least one token, and log-probabilities are finite and at most 0",
            next_action="ask the runtime for log-probabilities; leave out empty answers",
        )
    sums = np.asarray([row.sum() for row in rows], dtype=np.float64)
    tokens = np.asarray([row.size for row in rows], dtype=np.float64)
    least = np.asarray([row.min() for row in rows], dtype=np.float64)
    return {"mean": sums / np.maximum(tokens, 1.0), "least": least, "sum": sums, "tokens": tokens}


def _calibrator(
    method: CalibratorMethod,
    n: int,
    *,
    temperature: float = 1.0,
    steps: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
) -> Calibrator:
    stated, observed = ((), ()) if steps is None else (tuple(steps[0].tolist()), tuple(steps[1].tolist()))
    return Calibrator(method=method, temperature=temperature, stated=stated, observed=observed, n=n)


def _fit_isotonic(stated: NDArray[np.float64], right: NDArray[np.bool_]) -> Calibrator:
    from sklearn.isotonic import isotonic_regression

    n = right.size
    if n < ISOTONIC_ROWS:
        raise MeasureError(
            f"isotonic calibration needs {ISOTONIC_ROWS} rows, got {n}", next_action="use temperature"
        )
    values, place, count = np.unique(stated, return_inverse=True, return_counts=True)
    mean = np.bincount(place, weights=right.astype(np.float64)) / count
    fitted = np.asarray(isotonic_regression(mean, sample_weight=count), dtype=np.float64)
    # No confidence is 0 or 1: one wrong row there would cost everything.
    return _calibrator("isotonic", n, steps=(values, np.clip(fitted, 1.0 / (n + 2), (n + 1.0) / (n + 2))))


def _fit_weights(
    method: CalibratorMethod, columns: Mapping[str, ArrayLike], right: NDArray[np.bool_], *, ridge: float
) -> Calibrator:
    """Logistic regression of "the top answer is right" by Newton's method, on standardised columns."""
    table = _table(columns, right.size)
    mean, spread = table.mean(axis=0), table.std(axis=0)
    scale = np.where(spread > 1e-12, spread, 1.0)
    design = np.column_stack([(table - mean) / scale, np.ones(right.size)])
    good = int(right.sum())
    target = np.where(right, (good + 1.0) / (good + 2.0), 1.0 / (right.size - good + 2.0))
    penalty = np.full(design.shape[1], ridge)
    penalty[-1] = 0.0

    def loss(weight: NDArray[np.float64]) -> float:
        score = design @ weight
        return float(np.sum(np.logaddexp(0.0, score) - target * score) + 0.5 * np.sum(penalty * weight**2))

    weight = np.zeros(design.shape[1])
    now = loss(weight)
    for _ in range(100):
        chance = scipy.special.expit(design @ weight)
        slope = design.T @ (chance - target) + penalty * weight
        curve = (design * (chance * (1.0 - chance))[:, None]).T @ design + np.diag(penalty + 1e-9)
        step = np.linalg.solve(curve, slope)
        size = 1.0
        while size > 1e-6 and loss(weight - size * step) > now:
            size /= 2.0
        weight = weight - size * step
        before, now = now, loss(weight)
        if before - now < 1e-10 * max(1.0, now):
            break
    return Calibrator(
        method=method,
        inputs=tuple(columns),
        mean=tuple(mean.tolist()),
        scale=tuple(scale.tolist()),
        weight=tuple(weight.tolist()),
        n=right.size,
    )


def _top_is_right(logits: ArrayLike, target: ArrayLike) -> NDArray[np.bool_]:
    chance = probabilities(logits, 1.0)
    log_loss(chance, target)  # refuses labels that don't fit
    return np.asarray(chance.argmax(axis=1) == np.asarray(target), dtype=bool)


def _checked(logits: ArrayLike) -> NDArray[np.float64]:
    """Shape (n, k), readable."""
    probabilities(logits, 1.0)
    return np.asarray(logits, dtype=np.float64)


def _table(columns: Mapping[str, ArrayLike], n: int) -> NDArray[np.float64]:
    """Shape (n, features)."""
    found = {name: np.asarray(column, dtype=np.float64) for name, column in columns.items()}
    for name, column in found.items():
        if column.shape != (n,) or not bool(np.all(np.isfinite(column))):
            raise MeasureError(
                f"feature {name!r} is finite and of shape ({n},), got {column.shape!r}",
                next_action="fill in unknown values before the fit, with a column that says which are unknown",
            )
    return np.column_stack(list(found.values()))
