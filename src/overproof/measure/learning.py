"""Learning curves: what more rows of the same kind would buy, and what limits a student."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from overproof.errors import MeasureError
from overproof.evidence import Believed, Curve, Figure, Gain, LimitKind

METHOD = "profile likelihood of a + b n^-c"
TIMES = (2.0, 4.0)
MOST_TIMES = 4.0  # two doublings: beyond them the exponent decides alone, and nobody knows it
LEAST_BUDGETS = 3  # a, b and c can't be told apart with fewer
LEAST_ROWS = 100  # calibration rows: below them the errors' normal approximation is no good
EXPONENTS = np.linspace(0.05, 1.5, 30)  # published learning curves lie in it: Hestness et al. 2017, Viering and Loog 2023
ERRORS, PARTS = np.linspace(-4.0, 4.0, 33), np.linspace(0.0, 1.0, 81)  # standard deviations; shares of the largest gain
MISFIT = 9.0  # a curve whose best fit is three standard deviations off is no curve of this kind
ASSUMED = 0.5  # spread of a fit's error over draws of its m rows, in units of sqrt(e (1 - e) / m)
ASSUMED_WEIGHT = 2.0  # how many draws the assumption counts for against measured ones

HALF = 0.5
FLAT = 0.15  # doubling the rows mends at most this share of the error: the curve is flat
FALLING = 0.05  # doubling the rows mends at least this share: the curve is falling
LEAST_WRONG = 10  # wrong calibration rows below which nothing is said about what limits


def learning_curve(
    rows: Sequence[int], wrong: Sequence[ArrayLike], *, redrawn: Sequence[float] = (), level: float = 0.9
) -> Curve:
    """
    What twice and four times the training rows would buy.

    Args:
        rows: training rows of each budget, ascending.
        wrong: for each budget shape (n,), bool or a share in [0, 1]: how often each calibration row was answered wrongly;
            the same rows for every budget.
        redrawn: errors of fits on as many rows as the smallest budget, each drawn anew; their spread is part of the
            interval. With fewer than two it is assumed, see `redraw_variance`.
        level: of the intervals, in (0, 1).

    Returns: gains and band; none of them, and the reason, with fewer than three budgets or 100 calibration rows, or where
        the errors follow no such curve. A gain is that of another fit: it holds the luck of its draw.
    Raises: MeasureError for budgets that don't ascend, or rows of different lengths.
    Source: ours; Gaussian likelihood of the budgets' errors with their paired covariance over calibration rows, profiled over
        a >= 0, b >= 0 and c in [0.05, 1.5]. Power laws: Hestness et al. 2017, arXiv:1712.00409; Viering and Loog 2023,
        arXiv:2103.10948.

    >>> errors = [0.30, 0.25, 0.21]
    >>> rows = [np.arange(1000) < 1000 * e for e in errors]
    >>> twice = learning_curve([500, 1000, 2000], rows).gains[0]
    >>> round(twice.low, 2), round(twice.value, 2), round(twice.high, 2)
    (0.01, 0.03, 0.04)
    """
    table = _table(rows, wrong)
    n, draws = table.shape[1], len(redrawn)

    def unknown(why: str) -> Curve:
        return Curve(gains=(), band=(), level=level, n=n, draws=draws, method=METHOD, why=why)

    if len(rows) < LEAST_BUDGETS:
        return unknown(f"{len(rows)} budget(s) of training rows, a curve takes {LEAST_BUDGETS}")
    if n < LEAST_ROWS:
        return unknown(f"{n} calibration rows, a curve takes {LEAST_ROWS}")
    errors = table.mean(axis=1)
    variance = redraw_variance(float(errors[0]), rows[0], redrawn)
    sizes = np.asarray(rows, dtype=np.float64)
    luck = variance * sizes[0] / sizes
    luck[0] /= max(1, draws)
    noise = np.atleast_2d(np.cov(table, bias=True)) / n + np.diag(luck + 1.0 / n**2)
    found = _believable(errors, sizes / sizes[-1], noise, z := NormalDist().inv_cdf(HALF + level / 2.0))
    if found is None:
        return unknown("the error doesn't fall as a power of the rows does")
    gains = []
    for times in TIMES:
        one = found.ends(found.gained(times))
        lucky = z * math.sqrt(luck[-1] * (1.0 + 1.0 / times))  # this fit's luck, and the next one's
        low, high = one.middle - math.hypot(one.middle - one.low, lucky), one.middle + math.hypot(one.high - one.middle, lucky)
        gains.append(Gain(times=times, value=one.middle, low=low, high=high))
    band = []
    for at in np.geomspace(sizes[0], MOST_TIMES * sizes[-1], 25):
        one = found.ends(np.clip(found.error - found.gained(at / sizes[-1]), 0.0, 1.0))
        band.append(Believed(rows=float(at), low=one.low, middle=one.middle, high=one.high))
    return Curve(gains=tuple(gains), band=tuple(band), level=level, n=n, draws=draws, method=METHOD)


def redraw_variance(error: float, rows: int, redrawn: Sequence[float]) -> float:
    """
    How much the error of a fit varies with the rows that it was given by chance.

    Args:
        error: of one fit, in [0, 1].
        rows: that each fit had, at least 1.
        redrawn: errors of fits on other rows of the same number; may be empty.

    Returns: a variance: what was measured, drawn towards an assumed one that counts as two draws.
    Raises: MeasureError for no rows or an error outside [0, 1].
    Source: ours; a scaled inverse chi-square prior with two degrees of freedom round error (1 - error) / (4 rows).

    >>> round(redraw_variance(0.2, 400, []) ** 0.5, 3), round(redraw_variance(0.2, 400, [0.2] * 20) ** 0.5, 4)
    (0.01, 0.0031)
    """
    if rows < 1 or not 0.0 <= error <= 1.0:
        raise MeasureError(f"no fit has {rows!r} rows and an error of {error!r}", next_action="pass rows, and a fraction")
    assumed = ASSUMED**2 * max(error * (1.0 - error), 1.0 / rows) / rows
    free = max(0, len(redrawn) - 1)
    measured = float(np.var(redrawn, ddof=1)) if free else 0.0
    return (ASSUMED_WEIGHT * assumed + free * measured) / (ASSUMED_WEIGHT + free)


def _table(rows: Sequence[int], wrong: Sequence[ArrayLike]) -> NDArray[np.float64]:
    columns = [np.asarray(one, dtype=np.float64) for one in wrong]
    ascending = all(a < b for a, b in itertools.pairwise(rows))
    if not rows or min(rows) < 1 or not ascending or len(columns) != len(rows) or len({c.shape for c in columns}) != 1:
        raise MeasureError(
            f"budgets {list(rows)!r} with {[c.shape for c in columns]!r} answers make no curve",
            next_action="pass ascending budgets, and the answers to the same calibration rows for each",
        )
    return np.stack(columns)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Curves:
    """Believable curves: error with all rows, gain of a doubling, exponent; the first fits best."""

    error: NDArray[np.float64]
    gain: NDArray[np.float64]
    exponent: NDArray[np.float64]

    def gained(self, times: float) -> NDArray[np.float64]:
        """Error with all rows minus error with `times` as many."""
        return self.gain * (1.0 - times**-self.exponent) / (1.0 - 2.0**-self.exponent)

    @staticmethod
    def ends(values: NDArray[np.float64]) -> Believed:
        """Least, best fitting and largest of some values, one for each curve."""
        return Believed(rows=0.0, low=float(values.min()), middle=float(values[0]), high=float(values.max()))


def _believable(
    errors: NDArray[np.float64], shares: NDArray[np.float64], noise: NDArray[np.float64], z: float
) -> _Curves | None:
    """
    Every curve on a grid that fits nearly as well as the best: none has a negative gain, or an asymptote below 0.

    A posterior would have to say how likely an asymptote of 0 is before any row was seen; flat priors make it so unlikely
    that their interval misses such curves (coverage down to .4 of .9), and many tasks have one.
    """
    precision = np.linalg.inv(noise)
    sd = math.sqrt(noise[-1, -1])
    c, e, part = np.meshgrid(EXPONENTS, np.clip(errors[-1] + sd * ERRORS, 0.0, 1.0), PARTS, indexing="ij")
    e, doubling = e.ravel(), (1.0 - 2.0**-c).ravel()
    c, g = c.ravel(), part.ravel() * e * doubling
    off = np.stack([errors[j] - e - g * (share**-c - 1.0) / doubling for j, share in enumerate(shares)])
    misfit = np.einsum("in,ij,jn->n", off, precision, off)
    best = float(misfit.min())
    if best > MISFIT:
        return None
    near = np.flatnonzero(misfit <= best + z * z)
    near = near[np.argsort(misfit[near], kind="stable")]
    return _Curves(error=e[near], gain=g[near], exponent=c[near])


@dataclass(frozen=True, kw_only=True, slots=True)
class Limit:
    """What keeps a student from doing better."""

    kind: LimitKind
    """In a word."""
    why: str
    """One clause with the figures that it rests on."""


def limit_of(
    train: Figure, held: Figure, curve: Curve, *, noise: Figure | None = None, contested: Figure | None = None,
    beaten: bool = False,
) -> Limit:
    """
    Capacity, data or labels: which of them limits a student.

    Args:
        train: error on rows that it was fitted on.
        held: error on calibration rows.
        curve: of the same student.
        noise: share of rows on which two independent answers of the teacher differ; None where nobody asked twice, or
            where the labels are no single answers.
        contested: share of its wrong calibration rows on which the teacher's own samples differ.
        beaten: another student is shown to be better on the same rows, so that the labels can be learned better.

    Returns: "labels" where the teacher's own doubt makes at least half of the error; "capacity" where the error is as high
        on rows that it was fitted on, more rows mend little, and it is known that labels aren't the reason; "data" where it
        knows its own rows at less than half the error and more rows mend it; "none" for no error; else "can't tell".
    Raises: nothing.
    Source: ours. With shares p of the teacher's answers on a row, two of them differ with chance d = 1 - sum p^2, and the best
        student is wrong with chance 1 - max p, which lies between d / 2 and d.

    >>> from overproof.measure.intervals import figure
    >>> rows = [np.arange(1000) < k for k in (505, 500, 495)]
    >>> curve = learning_curve([500, 1000, 2000], rows)
    >>> train, held = figure(480, 1000, metric="error"), figure(495, 1000, metric="error")
    >>> limit_of(train, held, curve, noise=figure(10, 500, metric="noise")).kind, limit_of(train, held, curve).kind
    ('capacity', "can't tell")
    """
    if held.good < LEAST_WRONG or held.value is None:
        kind: LimitKind = "none" if held.n >= LEAST_ROWS else "can't tell"
        return Limit(kind=kind, why=f"wrong on {held.good} of {held.n:,} calibration rows, too few to look for a reason")
    error, seen = held.value, f"error {_both(held)} on calibration rows, {_both(train)} on its own training rows"
    if contested is not None and contested.n >= LEAST_WRONG and contested.low >= HALF:
        return Limit(kind="labels", why=f"{seen}; on {contested.value:.0%} of the wrong rows (n = {contested.n:,}) the teacher's own samples differ")
    if noise is not None and noise.n and noise.low / 2.0 >= HALF * error:
        return Limit(kind="labels", why=f"{seen}; the teacher differs from itself on {_both(noise)}, and no student can follow that")
    if not curve.gains:
        return Limit(kind="can't tell", why=f"{seen}; no learning curve: {curve.why}")
    twice = curve.gains[0]
    flat, falling = twice.high <= FLAT * error, twice.low >= FALLING * error
    bought = f"twice the rows buy {100 * twice.low:+.1f} to {100 * twice.high:+.1f} points"
    high, low = train.n > 0 and train.low >= HALF * error, train.n > 0 and train.high <= HALF * error
    if high and flat:
        sound = noise is not None and noise.n > 0 and noise.high <= HALF * error
        if beaten or sound:
            how = "another student learns them better" if beaten else f"the teacher differs from itself on {_both(noise)} only"
            return Limit(kind="capacity", why=f"{seen}; {bought}; it isn't the labels: {how}")
        return Limit(kind="can't tell", why=f"{seen}; {bought}: too small, or the labels are noise; ask the teacher twice, or try the next size")
    if low and falling:
        return Limit(kind="data", why=f"{seen}; {bought}")
    return Limit(kind="can't tell", why=f"{seen}; {bought}")


def _both(figure: Figure | None) -> str:
    if figure is None or figure.value is None:
        return "not measured"
    return f"{figure.value:.1%} ({figure.low:.1%} to {figure.high:.1%}, n = {figure.n:,})"


def out_of_reach(held: Figure, curve: Curve, *, at_most: float) -> bool:
    """
    Whether four times the rows would leave the error above what is admitted, even at the best end of both intervals.

    Args:
        held: error on calibration rows.
        curve: of the same student.
        at_most: the admitted error, in [0, 1].

    Returns: False where nothing can be told: out of reach is a claim.
    Raises: nothing.
    Source: lower end of the error minus upper end of the gain at four times the rows.

    >>> from overproof.measure.intervals import figure
    >>> curve = learning_curve([500, 1000, 2000], [np.arange(1000) < k for k in (505, 500, 495)])
    >>> out_of_reach(figure(495, 1000, metric="error"), curve, at_most=0.1)
    True
    """
    return bool(curve.gains) and held.low - curve.gains[-1].high > at_most


def kept_in_hindsight(wrong: ArrayLike, score: ArrayLike, *, alpha: float, of_all: bool = False) -> float:
    """
    The largest share of rows that some threshold keeps with at most so many wrong among them.

    Args:
        wrong: shape (n,), bool.
        score: shape (n,), the higher the surer.
        alpha: largest share of wrong answers, in [0, 1].
        of_all: True: wrong and kept among all rows, not among the kept ones.

    Returns: a share in [0, 1]: the best that this draw of rows allows, for comparing fits, no promise.
    Raises: MeasureError for rows of different lengths.
    Source: definition.

    >>> kept_in_hindsight([False, False, True, False], [0.9, 0.8, 0.7, 0.6], alpha=0.25)
    1.0
    >>> kept_in_hindsight([False, False, True, True], [0.9, 0.8, 0.7, 0.6], alpha=0.25)
    0.5
    """
    bad, sure = np.asarray(wrong, dtype=bool), np.asarray(score, dtype=np.float64)
    if bad.shape != sure.shape or bad.ndim != 1:
        raise MeasureError(f"{bad.shape} answers and {sure.shape} scores", next_action="pass one score for each answer")
    if not len(bad):
        return 0.0
    order = np.argsort(-sure, kind="stable")
    count = np.arange(1, len(bad) + 1)
    ends = np.append(sure[order][1:] < sure[order][:-1], True)  # a threshold keeps all rows of one score or none
    good = ends & (np.cumsum(bad[order]) <= alpha * (len(bad) if of_all else count))
    return float(count[good].max() / len(bad)) if good.any() else 0.0
