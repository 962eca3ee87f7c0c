"""Signs that live traffic is no longer what the student was proven on; they page and inform, and pass no verdict."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from overproof.errors import MeasureError
from overproof.measure.monitor import Vector, fold_days, increment, pager_level

_BLOCK = 4096  # rows at a time: bounds memory whatever the number of rows
_PAIRS = 1000  # rows of the reference behind the width of the kernel
_WEEK = 7
SKETCH_LEVEL = 0.003
"""Of one week's sketch test: 13 weeks spend 3.9 %, which leaves 1.1 % of a quarter's 5 % to the shares."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DriftScore:
    """One reading of one drift signal. It is not a figure and has no bar, so no verdict can stand on it."""

    signal: str
    """For example "far_share", "psi" or "mmd_sketch:vip"."""
    value: float
    """What was measured now; its unit is the signal's."""
    reference: float | None
    """The same on the reference; None where the value is already a difference from it."""
    n: int
    """Live rows behind the value."""
    n_reference: int
    """Reference rows behind it; 0 where it needs none."""
    use: Literal["display", "audit-rate", "pager"]
    """The most that may follow from it."""
    p_value: float | None = None
    """Chance of a value this large with no drift, adjusted for all tests of the week; None where none is claimed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FarReference:
    """Reference rows, and how far from its nearest neighbour a usual row may be."""

    rows: NDArray[np.float32]
    """Shape (m, d), each of length 1."""
    radius: float
    """Distance within which a usual reference row has another one."""
    share: float
    """Share of the reference rows that are farther: what to expect of live rows with no new content."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShareLane:
    """One way of reading a share: how many days make one reading, what it tolerates, how rarely it pages falsely."""

    days: int
    """Settled days in an epoch; 7 averages the weekly swing away."""
    tolerance: float
    """Factor, above 1, by which a share may rise or fall."""
    mean_epochs: float
    """Least mean time to a false page, in epochs."""


SLOW = ShareLane(days=7, tolerance=1.25, mean_epochs=52)
FAST = ShareLane(days=1, tolerance=2.0, mean_epochs=365)


@dataclass(frozen=True, kw_only=True, slots=True)
class ShareReading:
    """A share read in one lane: evidence after each epoch, and where it pages."""

    up: Vector
    """Shape (..., epochs): log evidence that the share rose by more than the tolerance; -inf where it can't."""
    down: Vector
    """Shape (..., epochs): log evidence that it fell by more than that."""
    level: float
    """Page iff reached by either."""

    @property
    def pages(self) -> NDArray[np.bool_]:
        """Shape (..., epochs): which epochs reach the level."""
        return np.asarray((self.up >= self.level) | (self.down >= self.level))


@dataclass(frozen=True, kw_only=True, slots=True)
class SketchPlan:
    """The fixed random projection of a release's sketches; only sketches of one plan compare or add."""

    weights: NDArray[np.float32]
    """Shape (d, features)."""
    width: float
    """Kernel width: the median distance between reference rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sketch:
    """What is kept of the embeddings of a day and slice: it adds over rows, workers and shards."""

    n: int
    """Rows in it."""
    total: Vector
    """Shape (2 features,): sum over rows of their random features."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Weeks:
    """The daily sketches of a slice: reference weeks, and the last full week."""

    reference: tuple[tuple[Sketch, ...], ...]
    """Weeks of seven days, Monday first in each."""
    live: tuple[Sketch, ...]
    """Seven days, the same weekdays in the same order."""


def mean_confidence(live: ArrayLike, reference: ArrayLike) -> DriftScore:
    """
    Mean confidence now against the reference: it falls when content is new; a change of mix hides from it.

    Args:
        live: shape (n,), calibrated confidence, in [0, 1].
        reference: shape (m,), the same on reference rows.

    Returns: both means; it may raise the audit rate, and pages nobody.
    Raises: MeasureError for an empty side or a value outside [0, 1].
    Source: the house's own reading; power by kind of drift is in the documentation.

    >>> score = mean_confidence([0.5, 0.7], [0.9, 0.9])
    >>> round(score.value, 2), score.reference, score.use
    (0.6, 0.9, 'audit-rate')
    """
    now, then = _unit("confidence", live), _unit("confidence", reference)
    return DriftScore(
        signal="mean_confidence", value=float(now.mean()), reference=float(then.mean()), n=now.size,
        n_reference=then.size, use="audit-rate",
    )


def cbpe(live: ArrayLike) -> DriftScore:
    """
    Accuracy that calibrated confidence would mean if nothing but the mix had changed.

    Args:
        live: shape (n,), calibrated confidence of the answers, in [0, 1].

    Returns: the estimated accuracy; for display and audit rates, since new content or new rules make it too high.
    Raises: MeasureError for no rows or a value outside [0, 1].
    Source: confidence-based performance estimation, as in NannyML's documentation; the mean of calibrated chances.

    >>> cbpe([0.9, 0.7]).value
    0.8
    """
    now = _unit("confidence", live)
    return DriftScore(
        signal="cbpe", value=float(now.mean()), reference=None, n=now.size, n_reference=0, use="audit-rate"
    )


def psi(live: ArrayLike, reference: ArrayLike) -> DriftScore:
    """
    Population stability index with the part taken off that chance alone puts into it; for display.

    Args:
        live: shape (B,), rows per bin now; B at least 2.
        reference: shape (B,), the same bins on the reference, best of equal mass.

    Returns: sum over bins of (p - q) ln(p / q), less (B - 1) (1/n + 1/m); about 0 with no drift, may be negative.
    Raises: MeasureError for other shapes, negative or non-integer counts, or an empty side.
    Source: mean of the index with no drift by its chi-square expansion, Yurdakul 2018, Western Michigan University;
        half a row is added to each bin, so that empty bins stay finite.

    >>> round(psi([30, 10], [500, 500]).value, 3)
    0.234
    """
    p, q, n, m = _binned(live, reference)
    value = float(((p - q) * np.log(p / q)).sum()) - (p.size - 1) * (1.0 / n + 1.0 / m)
    return DriftScore(signal="psi", value=value, reference=None, n=n, n_reference=m, use="display")


def js(live: ArrayLike, reference: ArrayLike) -> DriftScore:
    """
    Jensen-Shannon divergence of two histograms, less what chance alone puts into it; for display.

    Args:
        live: shape (B,), rows per bin now; B at least 2.
        reference: shape (B,), the same bins on the reference.

    Returns: bits, at most 1; about 0 with no drift, may be negative.
    Raises: MeasureError for other shapes, negative or non-integer counts, or an empty side.
    Source: Lin 1991, IEEE Transactions on Information Theory 37; its mean with no drift is about
        (B - 1) (1/n + 1/m) / 8 nats.

    >>> round(js([30, 10], [500, 500]).value, 3)
    0.042
    """
    p, q, n, m = _binned(live, reference)
    middle = (p + q) / 2.0
    nats = float((p * np.log(p / middle) + q * np.log(q / middle)).sum()) / 2.0
    value = (nats - (p.size - 1) * (1.0 / n + 1.0 / m) / 8.0) / math.log(2.0)
    return DriftScore(signal="js", value=value, reference=None, n=n, n_reference=m, use="display")


def far_reference(embeddings: ArrayLike, *, quantile: float = 0.95) -> FarReference:
    """
    Learn how near its nearest neighbour a usual row is.

    Args:
        embeddings: shape (m, d), of distinct reference rows (no near-duplicates, which would make everything far).
        quantile: share of the reference that counts as usual, in (0, 1).

    Returns: the rows, scaled to length 1, and the radius.
    Raises: MeasureError for fewer than 20 rows, a row of zeros, or a quantile outside (0, 1).
    Source: nearest-neighbour novelty on L2-normalised embeddings, Sun et al. 2022, arXiv:2204.06507.

    >>> rows = np.random.default_rng(0).normal(size=(200, 8))
    >>> round(far_share(rows, far_reference(rows)).reference, 2)
    0.05
    """
    rows = _directions(embeddings)
    if len(rows) < 20 or not 0.0 < quantile < 1.0:
        raise MeasureError(
            f"a far-share needs at least 20 reference rows and a quantile in (0, 1), got {len(rows)} and {quantile!r}",
            next_action="give more reference rows",
        )
    distance = _nearest(rows, rows, same=True)
    radius = float(np.quantile(distance, quantile))
    return FarReference(rows=rows, radius=radius, share=float((distance > radius).mean()))


def far(embeddings: ArrayLike, reference: FarReference) -> NDArray[np.bool_]:
    """
    Which rows have no reference row within the usual distance.

    Args:
        embeddings: shape (n, d), of live rows.
        reference: what `far_reference` learnt.

    Returns: shape (n,), bool; their count is a share, read like any other by `read_share`.
    Raises: MeasureError for another d, or a row of zeros.
    Source: as `far_reference`.

    >>> usual = far_reference(np.eye(40) + 1.0)
    >>> far([[1.0] * 40, [-1.0] * 40], usual).tolist()
    [False, True]
    """
    rows = _directions(embeddings)
    if rows.shape[1] != reference.rows.shape[1]:
        raise MeasureError(
            f"live rows have {rows.shape[1]} dimensions, the reference {reference.rows.shape[1]}",
            next_action="embed both with the same model",
        )
    return np.asarray(_nearest(rows, reference.rows, same=False) > reference.radius)


def far_share(embeddings: ArrayLike, reference: FarReference) -> DriftScore:
    """
    Share of live rows that are unlike anything in the reference.

    Args:
        embeddings: shape (n, d), of live rows; n at least 1.
        reference: what `far_reference` learnt.

    Returns: the share now and on the reference; its stream pages (`read_share`).
    Raises: MeasureError as `far`, or for no rows.
    Source: as `far_reference`.

    >>> far_share([[-1.0] * 40], far_reference(np.eye(40) + 1.0)).value
    1.0
    """
    found = far(embeddings, reference)
    return DriftScore(
        signal="far_share", value=float(found.mean()), reference=reference.share, n=found.size,
        n_reference=len(reference.rows), use="pager",
    )


def read_share(
    counts: ArrayLike, totals: ArrayLike, reference: float, *, lane: ShareLane, weight: float = 1.0
) -> ShareReading:
    """
    Read a share day by day or week by week, in both directions.

    Args:
        counts: shape (..., days), rows of the slice (or far rows, or rows with a prediction) on each settled day.
        totals: shape (..., days), all rows of each day.
        reference: the share where the student was proven, in (0, 1).
        lane: `SLOW` for small shifts, `FAST` for large ones; run both.
        weight: this stream's share of all streams of the lane, in (0, 1]; both directions take half of it each.

    Returns: evidence after each whole epoch; days of an epoch that is not over are left out.
    Raises: MeasureError for impossible counts, or a share, tolerance or weight outside its range.
    Source: e-SR detectors (Shin, Ramdas and Rinaldo 2022, arXiv:2203.03532) of "the share is at most reference x
        tolerance" and "at least reference / tolerance". A reading by whole weeks holds its promise under a weekly swing.

    >>> quiet, doubled = [50] * 28, [50] * 14 + [100] * 14
    >>> [bool(read_share(c, [1000] * 28, 0.05, lane=SLOW).pages.any()) for c in (quiet, doubled)]
    [False, True]
    """
    k, n = _epochs(counts, lane.days), _epochs(totals, lane.days)
    k, n = np.broadcast_arrays(k, n)
    if not (0.0 < reference < 1.0 and lane.tolerance > 1.0):
        raise MeasureError(
            f"a share lies in (0, 1) and its tolerance is above 1, got {reference!r} and {lane.tolerance!r}",
            next_action="count the share on reference rows; a slice with no rows there has no share to compare",
        )
    high, low = reference * lane.tolerance, reference / lane.tolerance
    down = fold_days(increment(n - k, n, 1.0 - low), "pager")
    up = fold_days(increment(k, n, high), "pager") if high < 1.0 else np.full(down.shape, -np.inf)
    return ShareReading(up=up, down=down, level=pager_level(lane.mean_epochs, weight=weight / 2.0))


def sketch_plan(reference: ArrayLike, *, features: int = 256, seed: int = 0) -> SketchPlan:
    """
    Fix the projection of a release's sketches.

    Args:
        reference: shape (m, d), embeddings; m at least 2.
        features: random directions; the sketch holds twice as many numbers.
        seed: of the directions, and of the rows behind the width.

    Returns: the plan; keep it with the release.
    Raises: MeasureError for fewer than two distinct rows or no features.
    Source: random Fourier features of a Gaussian kernel, Rahimi and Recht 2007; width by the median distance,
        Gretton et al. 2012, JMLR 13.

    >>> plan = sketch_plan(np.eye(4), features=8)
    >>> plan.weights.shape, round(plan.width, 3)
    ((4, 8), 1.414)
    """
    rows = _matrix(reference)
    rng = np.random.default_rng(seed)
    some = rows[rng.permutation(len(rows))[:_PAIRS]].astype(np.float64)
    squares = (some**2).sum(axis=1)
    distance2 = (squares[:, None] + squares - 2.0 * some @ some.T)[np.triu_indices(len(some), 1)]
    width = math.sqrt(max(float(np.median(distance2)), 0.0)) if distance2.size else 0.0
    if width <= 1e-6 or features < 1:
        raise MeasureError(
            f"a sketch needs distinct reference rows and at least one feature, got {len(rows)} rows, width {width:.3g}",
            next_action="embed the reference rows and give them all",
        )
    weights = (rng.normal(size=(rows.shape[1], features)) / width).astype(np.float32)
    return SketchPlan(weights=weights, width=width)


def sketch(embeddings: ArrayLike, plan: SketchPlan) -> Sketch:
    """
    Reduce rows to a fixed number of sums; the rows can be forgotten.

    Args:
        embeddings: shape (n, d); n may be 0.
        plan: the release's plan.

    Returns: the count and the sums, over blocks of rows, in double precision.
    Raises: MeasureError for another d, or values that are not finite.
    Source: mean embedding by random features: cos and sin of x W over sqrt(features), each row of length 1.

    >>> plan = sketch_plan(np.eye(4), features=8)
    >>> found = sketch(np.eye(4)[:1], plan)
    >>> found.n, round(float(found.total @ found.total), 6)
    (1, 1.0)
    """
    rows = _matrix(embeddings)
    d, features = plan.weights.shape
    if rows.shape[1] != d:
        raise MeasureError(
            f"rows have {rows.shape[1]} dimensions, the sketch's plan {d}", next_action="embed with the plan's model"
        )
    total = np.zeros(2 * features)
    with np.errstate(invalid="ignore", over="ignore"):  # looked at below, once for all rows
        for start in range(0, len(rows), _BLOCK):
            angle = rows[start : start + _BLOCK].astype(np.float32, copy=False) @ plan.weights
            total[:features] += np.cos(angle).sum(axis=0, dtype=np.float64)
            total[features:] += np.sin(angle).sum(axis=0, dtype=np.float64)
    if not bool(np.all(np.isfinite(total))):
        raise MeasureError("embeddings must be finite", next_action="leave out rows that could not be embedded")
    return Sketch(n=len(rows), total=total / math.sqrt(features))


def added(sketches: Iterable[Sketch]) -> Sketch:
    """
    The sketch of all rows together.

    Args:
        sketches: at least one, of one plan.

    Returns: counts added exactly, sums to rounding.
    Raises: MeasureError for none, or different plans.
    Source: sums add.

    >>> one = Sketch(n=1, total=np.ones(2))
    >>> added([one, one]).n
    2
    """
    parts = list(sketches)
    if not parts or len({part.total.shape for part in parts}) != 1:
        raise MeasureError("only sketches of one plan add, and at least one", next_action="sketch with the same plan")
    return Sketch(n=sum(part.n for part in parts), total=np.sum([part.total for part in parts], axis=0))


def mmd2(left: Sketch, right: Sketch) -> float:
    """
    Squared distance between the distributions behind two sketches, unbiased.

    Args:
        left: at least two rows.
        right: at least two rows, of the same plan.

    Returns: about 0 for one distribution (it may be negative), at most 4.
    Raises: MeasureError for fewer rows or different plans.
    Source: Gretton et al. 2012, JMLR 13, lemma 6, with the kernel of the random features.

    >>> rows = np.random.default_rng(0).normal(size=(200, 4))
    >>> plan = sketch_plan(rows)
    >>> mmd2(sketch(rows, plan), sketch(rows + 1.0, plan)) > 0.1
    True
    """
    if min(left.n, right.n) < 2 or left.total.shape != right.total.shape:
        raise MeasureError(
            f"a comparison needs two rows a side and one plan, got {left.n} and {right.n} rows",
            next_action="wait for more rows",
        )
    s, t = left.total, right.total
    return float(_mmd2(s @ s, t @ t, s @ t, left.n, right.n))


def weekday_test(weeks: Weeks, *, arrangements: int, seed: int) -> float:
    """
    Chance of a week this different from the reference weeks, if weeks only differ as usual.

    Args:
        weeks: at least one reference week and the live one.
        arrangements: random exchanges of days, each within its weekday, at least 1.
        seed: of the exchanges.

    Returns: a p-value in (0, 1], exact whatever the spread between days, if days of one weekday are exchangeable.
    Raises: MeasureError for weeks that are not seven days, a week without rows, or no arrangement.
    Source: permutation test with restricted exchanges; p = (1 + as large) / (1 + all), Phipson and Smyth 2010. A test
        that exchanges rows takes the spread between days for drift.

    >>> day = Sketch(n=100, total=np.ones(2))
    >>> weekday_test(Weeks(reference=((day,) * 7,) * 4, live=(day,) * 7), arrangements=100, seed=0)
    1.0
    """
    grid = (*weeks.reference, weeks.live)
    shapes = {part.total.shape for week in grid for part in week}
    rows = [sum(part.n for part in week) for week in grid]
    if len(grid) < 2 or {len(week) for week in grid} != {_WEEK} or len(shapes) != 1 or min(rows) < 2:
        raise MeasureError(
            f"the test needs whole weeks with rows, one of them live, and one plan; got weeks of {rows} rows",
            next_action="wait for a full week of settled days",
        )
    if arrangements < 1:
        raise MeasureError("no arrangement to compare with", next_action="give at least 5 x slices / level")
    # Day j of week i is number 7 i + j: all sums of squares follow from the products between days.
    total = np.array([part.total for week in grid for part in week])
    n = np.array([part.n for week in grid for part in week], dtype=np.float64)
    taken = np.random.default_rng(seed).integers(0, len(grid), size=(arrangements + 1, _WEEK))
    taken[0] = len(grid) - 1
    live = np.zeros((arrangements + 1, len(n)))
    np.put_along_axis(live, taken * _WEEK + np.arange(_WEEK), 1.0, axis=1)
    rest, products = 1.0 - live, total @ total.T
    right, left = live @ products, rest @ products
    n_live, n_rest = live @ n, rest @ n
    sound = np.minimum(n_live, n_rest) >= 2
    found = _mmd2(
        (left * rest).sum(axis=1), (right * live).sum(axis=1), (right * rest).sum(axis=1),
        np.maximum(n_rest, 2), np.maximum(n_live, 2),
    )
    # An arrangement that can't be judged counts against an alarm; so does a tie, to rounding.
    as_large = ~sound | (found >= found[0] - 1e-12)
    return float(as_large.sum() / (arrangements + 1))


def weekly_shift(weeks: Mapping[str, Weeks], *, level: float = SKETCH_LEVEL, seed: int = 0) -> tuple[DriftScore, ...]:
    """
    Compare the last week with the reference weeks in every slice.

    Args:
        weeks: slice name to its daily sketches.
        level: chance of any false page of the week, in (0, 1), and of one in 13 weeks at most 13 times that, however
            the weeks depend on each other; it sets how finely chances are estimated.
        seed: of the exchanges.

    Returns: one score a slice, in the order given: its mmd2, with the p-value adjusted over slices; page iff it is at
        most `level`.
    Raises: MeasureError for no slices, a level outside (0, 1), or as `weekday_test`.
    Source: `weekday_test`; Holm 1979, Scandinavian Journal of Statistics 6.

    >>> day = Sketch(n=100, total=np.ones(2))
    >>> weekly_shift({"vip": Weeks(reference=((day,) * 7,) * 4, live=(day,) * 7)})[0].p_value
    1.0
    """
    if not weeks or not 0.0 < level < 1.0:
        raise MeasureError(f"{len(weeks)} slices at level {level!r}", next_action="give slices and a level in (0, 1)")
    draws = math.ceil(5 * len(weeks) / level)
    adjusted = holm([weekday_test(one, arrangements=draws, seed=seed + i) for i, one in enumerate(weeks.values())])
    scores = []
    for (name, one), p_value in zip(weeks.items(), adjusted.tolist(), strict=True):
        live, reference = added(one.live), added(part for week in one.reference for part in week)
        scores.append(
            DriftScore(
                signal=f"mmd_sketch:{name}", value=mmd2(reference, live), reference=None, n=live.n,
                n_reference=reference.n, use="pager", p_value=p_value,
            )
        )
    return tuple(scores)


def holm(p_values: Sequence[float] | Vector) -> Vector:
    """
    Adjust p-values of several tests so that the chance of any false alarm is the level they are read at.

    Args:
        p_values: shape (k,), in [0, 1].

    Returns: shape (k,), adjusted p-values in the same order.
    Raises: MeasureError for values outside [0, 1].
    Source: Holm 1979, Scandinavian Journal of Statistics 6; valid whatever the dependence.

    >>> holm([0.01, 0.04, 0.03]).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    p = _unit("p-values", p_values)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    adjusted = np.empty(p.size)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def _unit(name: str, values: ArrayLike) -> Vector:
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 1 or not found.size or not bool(np.all((found >= 0.0) & (found <= 1.0))):
        raise MeasureError(
            f"{name}: at least one value in [0, 1] is needed, shape (n,), got shape {found.shape!r}",
            next_action="pass fractions of one or more rows",
        )
    return found


def _binned(live: ArrayLike, reference: ArrayLike) -> tuple[Vector, Vector, int, int]:
    """Smoothed shares per bin of both sides, and their rows."""
    a, b = np.asarray(live, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    sound = a.shape == b.shape and a.ndim == 1 and a.size >= 2
    if not sound or any(bool(np.any((v < 0) | (v % 1 != 0))) or v.sum() <= 0 for v in (a, b)):
        raise MeasureError(
            f"two histograms need whole counts in the same two or more bins, got shapes {a.shape} and {b.shape}",
            next_action="count rows per bin on both sides, at least one row each",
        )
    half = a.size / 2.0
    return (a + 0.5) / (a.sum() + half), (b + 0.5) / (b.sum() + half), int(a.sum()), int(b.sum())


def _matrix(values: ArrayLike) -> NDArray[Any]:
    found = np.asarray(values)
    if found.ndim != 2 or not found.shape[1] or not np.issubdtype(found.dtype, np.number):
        raise MeasureError(
            f"embeddings have shape (n, d) of numbers, got {found.shape!r}", next_action="embed one row per request"
        )
    return found


def _directions(values: ArrayLike) -> NDArray[np.float32]:
    rows = _matrix(values).astype(np.float64)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    if not len(rows) or not bool(np.all(np.isfinite(length) & (length > 0))):
        raise MeasureError(
            f"{len(rows)} embeddings, of which some have no direction",
            next_action="give at least one row; leave out rows that could not be embedded",
        )
    return np.asarray(rows / length, dtype=np.float32)


def _nearest(rows: NDArray[np.float32], reference: NDArray[np.float32], *, same: bool) -> Vector:
    """Distance from each row to its nearest reference row; to its nearest other one where both are the same rows."""
    best = np.empty(len(rows))
    for start in range(0, len(rows), _BLOCK // 4):
        cosine = rows[start : start + _BLOCK // 4] @ reference.T
        if same:
            at = np.arange(len(cosine))
            cosine[at, start + at] = -1.0
        best[start : start + len(cosine)] = cosine.max(axis=1)
    return np.sqrt(np.maximum(2.0 - 2.0 * best, 0.0))


def _epochs(daily: ArrayLike, days: int) -> Vector:
    """Sums over whole epochs of days; what is left at the end waits."""
    found = np.asarray(daily, dtype=np.float64)
    if days < 1 or found.ndim < 1:
        raise MeasureError("a share is read from counts of whole days", next_action="give one count a day")
    whole = found.shape[-1] // days
    return np.asarray(found[..., : whole * days].reshape(*found.shape[:-1], whole, days).sum(axis=-1))


def _mmd2(ss: Any, tt: Any, st: Any, n: Any, m: Any) -> Any:
    """Unbiased squared distance from the products of two sums of unit features."""
    return (ss - n) / (n * (n - 1)) + (tt - m) / (m * (m - 1)) - 2 * st / (n * m)
