"""How foreign a request looks to a student, by several scores, and which of them to use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from overproof.errors import MeasureError

FREE = (
    "max_logit", "energy", "nearest_1", "nearest_10", "relative_mahalanobis", "mahalanobis", "unknown_share", "entropy",
    "max_probability", "margin",
)  # fmt: skip
"""Scores that cost nothing at serving, in the order in which a tie is broken."""
LEAST_ROWS = 20
"""Rows of each kind below which a choice would be noise: there the standard error of an AUROC of .9 passes .05."""
BLOCK = 4_000_000
"""Distances held at one time: 32 MB."""
_ROUNDING = 1e-14  # squared distances below it are equal vectors


@dataclass(frozen=True, kw_only=True, slots=True)
class ScopeScore:
    """How well one score tells foreign requests from the task's own."""

    name: str
    """Which score; see `FREE`."""
    auroc: float
    """Chance that a foreign request scores above one of the task, ties half; .5 says nothing."""
    fpr: float
    """Share of the foreign requests that still pass where 95 % of the task's own pass."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScopeChoice:
    """The score that watches for foreign requests."""

    name: str
    """Which score; see `FREE`."""
    table: tuple[ScopeScore, ...]
    """Every score that was compared, the best first; empty where there was nothing to compare on."""
    inside: int
    """Dev rows of the task."""
    outside: int
    """Foreign dev rows."""
    reason: str
    """Why this one."""


def max_logit(logits: ArrayLike) -> NDArray[np.float64]:
    """
    Foreignness by the largest logit, sign changed.

    Args:
        logits: shape (n, k), as the student's last layer gives them: normalised ones hold no such signal.

    Returns: shape (n,); the higher, the more foreign.
    Raises: MeasureError for another shape, NaN or +inf.
    Source: Hendrycks et al. 2019, arXiv:1911.11132.

    >>> max_logit([[4.0, 1.0], [0.5, 0.2]]).tolist()
    [-4.0, -0.5]
    """
    return np.asarray(-_rows(logits).max(axis=1), dtype=np.float64)


def energy(logits: ArrayLike) -> NDArray[np.float64]:
    """
    Foreignness by the free energy, at temperature 1.

    Args:
        logits: shape (n, k), as the student's last layer gives them: normalised ones all have energy 0.

    Returns: shape (n,), minus the logarithm of the summed exponentials; the higher, the more foreign.
    Raises: MeasureError for another shape, NaN or +inf.
    Source: Liu et al. 2020, arXiv:2010.03759, equation 4.

    >>> energy([[4.0, 1.0], [0.5, 0.2]]).round(2).tolist()
    [-4.05, -1.05]
    """
    raw = _rows(logits)
    top = raw.max(axis=1)
    return np.asarray(-(top + np.log(np.exp(raw - top[:, None]).sum(axis=1))), dtype=np.float64)


def entropy(logits: ArrayLike) -> NDArray[np.float64]:
    """
    Foreignness by how evenly the probability is spread.

    Args:
        logits: shape (n, k), up to a constant per row.

    Returns: shape (n,), nats in [0, ln k]; the higher, the more foreign.
    Raises: MeasureError for another shape, NaN or +inf.
    Source: Shannon 1948, Bell System Technical Journal 27.

    >>> entropy([[0.0, 0.0], [40.0, 0.0]]).round(3).tolist()
    [0.693, 0.0]
    """
    chance = softmax_rows(logits)
    # 0 ln 0 is 0
    return np.asarray(-(chance * np.log(np.where(chance > 0.0, chance, 1.0))).sum(axis=1), dtype=np.float64)


def max_probability(logits: ArrayLike) -> NDArray[np.float64]:
    """
    Foreignness by the probability that the best class lacks.

    Args:
        logits: shape (n, k), up to a constant per row.

    Returns: shape (n,), in [0, 1 - 1/k]; the higher, the more foreign.
    Raises: MeasureError for another shape, NaN or +inf.
    Source: Hendrycks and Gimpel 2017, arXiv:1610.02136.

    >>> max_probability([[0.0, 0.0], [40.0, 0.0]]).round(3).tolist()
    [0.5, 0.0]
    """
    return np.asarray(1.0 - softmax_rows(logits).max(axis=1), dtype=np.float64)


def margin(logits: ArrayLike) -> NDArray[np.float64]:
    """
    Foreignness by how close the second-best class comes.

    Args:
        logits: shape (n, k), up to a constant per row, k at least 2.

    Returns: shape (n,), 1 minus the lead in probability, in [0, 1]; the higher, the more foreign.
    Raises: MeasureError for another shape, NaN, +inf or fewer than two classes.
    Source: Scheffer et al. 2001, Active hidden Markov models for information extraction.

    >>> margin([[0.0, 0.0], [40.0, 0.0]]).round(3).tolist()
    [1.0, 0.0]
    """
    chance = softmax_rows(logits)
    if chance.shape[1] < 2:
        raise MeasureError("a margin needs two classes", next_action="use another score")
    best = np.partition(chance, -2, axis=1)[:, -2:]
    return np.asarray(1.0 - (best[:, 1] - best[:, 0]), dtype=np.float64)


def softmax_rows(logits: ArrayLike) -> NDArray[np.float64]:
    """
    Class probabilities as the scores came; NumPy alone, so that a server needs no more.

    Args:
        logits: shape (n, k), up to a constant per row.

    Returns: shape (n, k), rows sum to 1.
    Raises: MeasureError for another shape, NaN or +inf.
    Source: Bridle 1990; equal to `calibration.probabilities` at temperature 1.

    >>> softmax_rows([[0.0, 0.0], [2.0, 0.0]]).round(3).tolist()
    [[0.5, 0.5], [0.881, 0.119]]
    """
    raw = _rows(logits)
    powers = np.exp(raw - raw.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float64)


def nearest_distance(
    train: ArrayLike, rows: ArrayLike, *, k: int = 1, itself: bool = False
) -> NDArray[np.float64]:
    """
    Foreignness by the distance to the k-th nearest training row, all vectors at length 1.

    Args:
        train: shape (m, d), embeddings of training rows, m >= k.
        rows: shape (n, d), embeddings of the rows to score.
        k: which neighbour, at least 1.
        itself: `rows` are the training rows, and no row is its own neighbour.

    Returns: shape (n,), Euclidean, in [0, 2].
    Raises: MeasureError for shapes that don't fit, NaN, infinity, or fewer than k training rows to compare with.
    Source: Sun et al. 2022, arXiv:2204.06507 (deep nearest neighbours, L2-normalised).

    >>> nearest_distance([[1.0, 0.0], [0.0, 2.0]], [[3.0, 0.0], [-1.0, 0.0]]).round(3).tolist()
    [0.0, 1.414]
    """
    known, asked = unit_rows(train), unit_rows(rows)
    if known.shape[1] != asked.shape[1] or not 1 <= k <= known.shape[0] - itself:
        raise MeasureError(
            f"neighbour {k!r} of {asked.shape!r} can't be found among {known.shape!r}",
            next_action="pass embeddings of one encoder and at least k training rows",
        )
    known_size, asked_size = (known**2).sum(axis=1), (asked**2).sum(axis=1)
    found = np.empty(asked.shape[0])
    step = max(1, BLOCK // known.shape[0])
    for start in range(0, asked.shape[0], step):
        part = slice(start, start + step)
        square = asked_size[part, None] + known_size - 2.0 * (asked[part] @ known.T)
        if itself:
            square[np.arange(square.shape[0]), np.arange(start, start + square.shape[0])] = np.inf
        found[part] = np.partition(square, k - 1, axis=1)[:, k - 1]
    return np.sqrt(np.where(found < _ROUNDING, 0.0, found))


def unit_rows(values: ArrayLike) -> NDArray[np.float64]:
    """
    Each row at length 1.

    Args:
        values: shape (n, d), finite.

    Returns: shape (n, d); a row of zeros stays one.
    Raises: MeasureError for another shape, NaN or infinity.
    Source: Euclidean norm.

    >>> unit_rows([[3.0, 4.0], [0.0, 0.0]]).round(3).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    raw = np.asarray(values, dtype=np.float64)
    if raw.ndim != 2 or not bool(np.all(np.isfinite(raw))):
        raise MeasureError(
            f"embeddings are finite and of shape (n, d), got shape {raw.shape!r}",
            next_action="look at the encoder's output",
        )
    length = np.linalg.norm(raw, axis=1, keepdims=True)
    return np.asarray(raw / np.where(length > 0.0, length, 1.0), dtype=np.float64)


def scope_scores(
    logits: ArrayLike, *, train: ArrayLike | None = None, rows: ArrayLike | None = None
) -> dict[str, NDArray[np.float64]]:
    """
    Every free score of each row.

    Args:
        logits: shape (n, k).
        train: shape (m, d), embeddings of training rows; None where the student has none.
        rows: shape (n, d), embeddings of the same n rows; None where the student has none.

    Returns: by name, shape (n,) each, the higher, the more foreign. Where every row of logits is normalised (as
        log-probabilities are), max_logit and energy are left out: they would say nothing of their own.
    Raises: MeasureError for shapes that don't fit, NaN or +inf.
    Source: see each score.

    >>> sorted(scope_scores([[2.0, 0.0], [0.0, 0.1]]))
    ['energy', 'entropy', 'margin', 'max_logit', 'max_probability']
    """
    raw = _rows(logits)
    found = {"entropy": entropy(raw), "max_probability": max_probability(raw)}
    level = energy(raw)
    if float(np.max(np.abs(level))) > 1e-6:
        found |= {"max_logit": max_logit(raw), "energy": level}
    if raw.shape[1] >= 2:
        found["margin"] = margin(raw)
    if train is not None and rows is not None:
        known = np.asarray(train)
        if np.asarray(rows).shape[:1] != raw.shape[:1]:
            raise MeasureError("logits and embeddings differ in rows", next_action="pass both for the same rows")
        found |= {f"nearest_{k}": nearest_distance(known, rows, k=k) for k in (1, 10) if known.shape[0] >= k}
    return found


def auroc(score: ArrayLike, outside: ArrayLike) -> float:
    """
    Chance that a foreign request scores above one of the task.

    Args:
        score: shape (n,), the higher, the more foreign.
        outside: shape (n,), bool: the request is foreign; both kinds occur.

    Returns: a fraction in [0, 1]; ties count half.
    Raises: MeasureError for shapes that differ, NaN, or only one kind of row.
    Source: Hanley and McNeil 1982, Radiology 143 (the Mann-Whitney statistic).

    >>> auroc([0.1, 0.4, 0.4, 0.9], [False, False, True, True])
    0.875
    """
    value, foreign = _labelled(score, outside)
    own = np.sort(value[~foreign])
    below = np.searchsorted(own, value[foreign], side="left")
    upto = np.searchsorted(own, value[foreign], side="right")
    return float(np.mean(below + upto) / (2.0 * own.size))


@dataclass(frozen=True, kw_only=True, slots=True)
class AurocInterval:
    """An AUROC with its interval."""

    value: float
    """As `auroc` gives it."""
    low: float
    """Lower end, in [0, 1]."""
    high: float
    """Upper end, in [0, 1]."""
    method: str
    """Name of the interval."""


def auroc_interval(score: ArrayLike, outside: ArrayLike, *, level: float = 0.95) -> AurocInterval:
    """
    An AUROC with a score-type interval, which keeps its width where the two kinds of rows are apart.

    Args:
        score: shape (n,), the higher, the more foreign.
        outside: shape (n,), bool: the request is foreign; both kinds occur.
        level: confidence of the interval, in (0, 1).

    Returns: the interval; DeLong's would have no width at an AUROC of 1, on three rows as on three thousand.
    Raises: MeasureError for shapes that differ, NaN, only one kind of row, or a level outside (0, 1).
    Source: Newcombe 2006, Statistics in Medicine 25, 559-573, method 5 (no bootstrap).

    >>> found = auroc_interval([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [False] * 3 + [True] * 3)
    >>> found.value, round(found.low, 2), found.high
    (1.0, 0.5, 1.0)
    """
    from scipy.optimize import brentq
    from scipy.special import ndtri

    if not 0.0 < level < 1.0:
        raise MeasureError(f"a level lies in (0, 1), got {level!r}", next_action="pass a fraction such as 0.95")
    value, foreign = auroc(score, outside), np.asarray(outside, dtype=bool)
    counts = (int((~foreign).sum()), int(foreign.sum()))
    z = float(ndtri((1.0 + level) / 2.0))

    def gap(theta: float) -> float:
        return (value - theta) ** 2 - z * z * _newcombe_variance(theta, *counts)

    low = float(brentq(gap, 0.0, value - 1e-12)) if value > 0.0 and gap(value - 1e-12) < 0.0 else value
    high = float(brentq(gap, value + 1e-12, 1.0)) if value < 1.0 and gap(value + 1e-12) < 0.0 else value
    return AurocInterval(value=value, low=max(low, 0.0), high=min(high, 1.0), method="newcombe-5")


def fpr_at_tpr(score: ArrayLike, outside: ArrayLike, *, tpr: float = 0.95) -> float:
    """
    Share of foreign requests that pass where a wanted share of the task's own passes.

    Args:
        score: shape (n,), the higher, the more foreign.
        outside: shape (n,), bool: the request is foreign; both kinds occur.
        tpr: share of the task's own requests that must pass, in (0, 1].

    Returns: a fraction in [0, 1] at the strictest threshold on the score that lets so many pass.
    Raises: MeasureError for shapes that differ, NaN, only one kind of row, or a share outside (0, 1].
    Source: Hendrycks and Gimpel 2017, arXiv:1610.02136; "positive" is a request of the task, as there.

    >>> fpr_at_tpr([0.1, 0.2, 0.3, 0.4, 0.25, 0.9], [False] * 4 + [True] * 2, tpr=0.75)
    0.5
    """
    value, foreign = _labelled(score, outside)
    if not 0.0 < tpr <= 1.0:
        raise MeasureError(f"a share lies in (0, 1], got {tpr!r}", next_action="pass a fraction")
    own = np.sort(value[~foreign])
    threshold = own[max(0, int(np.ceil(tpr * own.size - 1e-9)) - 1)]
    return float(np.mean(value[foreign] <= threshold))


def choose_score(scores: Mapping[str, ArrayLike], outside: ArrayLike) -> ScopeChoice:
    """
    The score with the largest AUROC on dev; which one it is changes with the encoder.

    Args:
        scores: by name, shape (n,) each, the higher, the more foreign; from `scope_scores` on dev rows.
        outside: shape (n,), bool: the request is foreign.

    Returns: the choice with every score's figures. With fewer than 20 rows of either kind nothing is compared, and
        the first score in the order of `FREE` is taken.
    Raises: MeasureError for no scores, shapes that differ or NaN.
    Source: ours; Podolskiy et al. 2021, arXiv:2101.03778, and Darrin et al. 2023, arXiv:2305.13282, find opposite
        orders.

    >>> foreign = [False] * 20 + [True] * 20
    >>> choice = choose_score({"energy": range(40), "margin": [0] * 40}, foreign)
    >>> choice.name, [round(score.auroc, 2) for score in choice.table]
    ('energy', [1.0, 0.5])
    """
    if not scores:
        raise MeasureError("no score to choose from", next_action="pass the result of `scope_scores`")
    place = {name: i for i, name in enumerate(FREE)}
    names = sorted(scores, key=lambda name: (place.get(name, len(FREE)), name))
    foreign = np.asarray(outside, dtype=bool)
    count = int(foreign.sum())
    own = foreign.size - count
    if min(count, own) < LEAST_ROWS:
        reason = f"{own} rows of the task and {count} foreign ones; a choice needs {LEAST_ROWS} of each"
        return ScopeChoice(name=names[0], table=(), inside=own, outside=count, reason=reason)
    table = tuple(
        ScopeScore(name=name, auroc=auroc(scores[name], foreign), fpr=fpr_at_tpr(scores[name], foreign))
        for name in names
    )
    ranked = tuple(sorted(table, key=lambda score: -score.auroc))
    return ScopeChoice(name=ranked[0].name, table=ranked, inside=own, outside=count, reason="largest AUROC on dev")


def scope_threshold(score: ArrayLike, *, share: float) -> float:
    """
    The edge above which a request counts as foreign, so that hardly any of the task's own do.

    Args:
        score: shape (n,), the higher, the more foreign, of dev rows of the task's own.
        share: of the task's own requests that may lie above it, in (0, 1).

    Returns: the edge; a fresh row of the same kind lies above it with a chance of at most `share` from 1/share rows
        on, and of at most 1/(n + 1) with fewer, where the edge is the largest score seen.
    Raises: MeasureError for no rows, NaN, or a share outside (0, 1).
    Source: Vovk, Gammerman and Shafer 2005, Algorithmic Learning in a Random World (split conformal quantile).

    >>> scope_threshold(range(100), share=0.05)
    95.0
    """
    value = np.sort(np.asarray(score, dtype=np.float64))
    if value.ndim != 1 or value.size == 0 or bool(np.any(np.isnan(value))) or not 0.0 < share < 1.0:
        raise MeasureError(
            f"an edge needs scores without NaN and a share in (0, 1), got {value.shape!r} and {share!r}",
            next_action="pass the scores of the task's own dev rows",
        )
    rank = int(np.ceil((1.0 - share) * (value.size + 1) - 1e-9))
    return float(value[min(rank, value.size) - 1])


def _rows(values: ArrayLike) -> NDArray[np.float64]:
    raw = np.asarray(values, dtype=np.float64)
    if raw.ndim != 2 or 0 in raw.shape or bool(np.any(np.isnan(raw) | (raw == np.inf))):
        raise MeasureError(
            f"logits have shape (n, k) and hold no NaN or +inf, got shape {raw.shape!r}",
            next_action="look at the student's output: training may have diverged",
        )
    return raw


def _newcombe_variance(theta: float, own: int, foreign: int) -> float:
    half = (own + foreign) / 2.0 - 1.0
    grown = 1.0 + half * ((1.0 - theta) / (2.0 - theta) + theta / (1.0 + theta))
    return theta * (1.0 - theta) * grown / (own * foreign)


def _labelled(score: ArrayLike, outside: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    value, foreign = np.asarray(score, dtype=np.float64), np.asarray(outside, dtype=bool)
    if value.ndim != 1 or value.shape != foreign.shape or bool(np.any(np.isnan(value))):
        raise MeasureError(
            f"a score and its kind are two columns of one length without NaN, got {value.shape!r}, {foreign.shape!r}",
            next_action="pass both for the same rows",
        )
    if foreign.all() or not foreign.any():
        raise MeasureError(
            "foreign requests and requests of the task must both occur",
            next_action="add labelled rows of the missing kind to the dev rows",
        )
    return value, foreign
