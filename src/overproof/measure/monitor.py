"""Alarms over audits of live answers that stay valid however often they are read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from overproof.errors import MeasureError
from overproof.measure.slices import hash_unit

_BETS = 12
_STARVED = 0.02  # above this share of a day's audits past their deadline, a quiet monitor says nothing
Vector = NDArray[np.float64]
_LIFE, _EARLY, _LATE = 90, 0.25, 0.05  # days of a usual life; weight of an early start, and of one after such a life
Rule = Literal["mixture", "restart", "life", "pager"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Fold:
    """Where a monitor stands after some settled days; the integers of the days are the record, this is derived."""

    day: int
    """How many days are in it."""
    state: tuple[float, ...]
    """Log wealth of each bet."""
    log_e: float
    """Log of the evidence against "the rate is within its bar"; an alarm compares it with `alarm_level`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditDesign:
    """How often served answers are audited: more where confidence is low, never too rarely where it is high."""

    rate: float = 0.01
    """Share of kept requests that are audited, in (0, 1]."""
    pi_min: float = 0.005
    """Least audit probability of any request, at least half of `rate`: rarer than that hides confident mistakes."""
    floor_per_day: int = 25
    """Audits a day that each slice gets, however little traffic it has."""
    low_below: float = 0.8
    """Confidence under which a kept request is audited more often."""
    low_share: float = 0.1
    """Share of kept requests under `low_below`, in (0, 1), as counted on calibration rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditDay:
    """One day of one signal in one slice, as counted by one worker or by all; these integers are the record."""

    day: date
    """The calendar day of the requests, not of their labels."""
    requests: int
    """All requests, audited or not."""
    audited: int
    """Requests that were drawn for an audit."""
    unlabelled: int
    """Audits whose label has not arrived."""
    wrong_by_pi: tuple[tuple[float, int], ...] = ()
    """(audit probability, labelled audits with it that were wrong), by rising probability."""

    @property
    def wrong(self) -> int:
        """Labelled audits that were wrong."""
        return sum(count for _, count in self.wrong_by_pi)


@dataclass(frozen=True, kw_only=True, slots=True)
class Settled:
    """Which days a monitor may read now."""

    ready: tuple[AuditDay, ...]
    """Days that enter, in calendar order; audits past their deadline count as right, which can only delay an alarm."""
    waiting: tuple[date, ...]
    """Closed days that wait for labels, or for an earlier day that does."""
    overdue: int
    """Audits of the ready days that were never labelled; show them."""
    starved: tuple[date, ...]
    """Ready days with more than 2 % of their audits overdue: quiet here is not green."""


def audit_probability(
    confidence: float, *, kept_per_day: float, design: AuditDesign, boost: float = 1.0
) -> float:
    """
    The chance that a kept request is audited; log it for every request, audited or not.

    Args:
        confidence: the student's calibrated confidence, in [0, 1].
        kept_per_day: kept requests of the slice on a usual day, from days that are over; at least 0.
        design: rates and floors.
        boost: multiplies the slice's rate, at least 1; 3 for the 14 days after a page.

    Returns: a probability in [design.pi_min, 1]; its mean over the slice is the slice's rate.
    Raises: MeasureError for a design that audits some requests too rarely, or a value outside its range.
    Source: Horvitz and Thompson 1952, JASA 47: any known probabilities give unbiased rates, so they may lean to
        where mistakes are likely; a lower limit keeps the weight 1 / pi of a rare find small.

    >>> design = AuditDesign()
    >>> [round(audit_probability(c, kept_per_day=100_000, design=design), 3) for c in (0.99, 0.5)]
    [0.005, 0.055]
    >>> audit_probability(0.5, kept_per_day=20, design=design)
    1.0
    """
    sound = 0.0 < design.rate <= 1.0 and 0.5 * design.rate <= design.pi_min <= design.rate
    if not (sound and 0.0 < design.low_share < 1.0 and design.floor_per_day >= 0):
        raise MeasureError(
            f"an audit design needs rate / 2 <= pi_min <= rate <= 1 and low_share in (0, 1), got {design!r}",
            next_action="raise pi_min: confident answers that break are found too late below half the rate",
        )
    if not (0.0 <= confidence <= 1.0 and 0.0 <= kept_per_day < math.inf and 1.0 <= boost < math.inf):
        raise MeasureError(
            f"confidence {confidence!r}, kept_per_day {kept_per_day!r}, boost {boost!r}",
            next_action="pass a confidence in [0, 1], a count of requests and a factor of at least 1",
        )
    floor = 1.0 if kept_per_day <= design.floor_per_day else design.floor_per_day / kept_per_day
    rate = min(1.0, boost * max(design.rate, floor))
    high = rate * design.pi_min / design.rate
    low = (rate - (1.0 - design.low_share) * high) / design.low_share
    if low > 1.0:  # the low-confidence rows can't take more: the others take the rest
        low, high = 1.0, (rate - design.low_share) / (1.0 - design.low_share)
    return min(1.0, low if confidence < design.low_below else max(high, design.pi_min))


def is_audited(request_id: str, salt: str, probability: float) -> bool:
    """
    Whether a request is audited: every worker says the same, with no state.

    Args:
        request_id: id of the request.
        salt: secret of the release, so that nobody can aim at unaudited ids.
        probability: what `audit_probability` gave, in (0, 1].

    Returns: True with that probability over ids.
    Raises: MeasureError for a probability outside (0, 1].
    Source: the house's own draw, see `overproof.measure.slices.hash_unit`.

    >>> is_audited("a", "salt", 1.0)
    True
    """
    if not 0.0 < probability <= 1.0:
        raise MeasureError(
            f"every request has an audit probability in (0, 1], got {probability!r}",
            next_action="make it with `audit_probability`; there is no default",
        )
    return hash_unit(request_id, salt) < probability


def bets(bar: float, *, pi_min: float | None = None) -> Vector:
    """
    The fixed bets of a monitor.

    Args:
        bar: the rate that is not to be exceeded, in (0, 1).
        pi_min: least audit probability of a weighted stream, in (0, 1]; None for plain audits.

    Returns: shape (12,), rising; each keeps wealth positive whatever is seen.
    Raises: MeasureError for a bar or a probability outside its range.
    Source: mixture over a geometric grid of bets, Waudby-Smith and Ramdas 2020, arXiv:2010.09686. The lowest bet must
        fit the largest value 1 / pi_min, or a real shift goes unseen.

    >>> bets(0.05).round(2).tolist()[::11]
    [0.4, 19.6]
    """
    if not 0.0 < bar < 1.0 or (pi_min is not None and not 0.0 < pi_min <= 1.0):
        raise MeasureError(
            f"a monitor needs a bar in (0, 1) and audit probabilities in (0, 1], got {bar!r} and {pi_min!r}",
            next_action="pass fractions",
        )
    low = 0.02 / bar if pi_min is None else 0.1 * pi_min
    return np.geomspace(low, 0.98 / bar, _BETS)


def increment(wrong: ArrayLike, n: ArrayLike, bar: float) -> Vector:
    """
    What n plain audits add to a monitor.

    Args:
        wrong: audited answers that were wrong, 0 <= wrong <= n; one count, or an array of them (days, streams).
        n: audited answers, of a shape that broadcasts with `wrong`.
        bar: the rate that is not to be exceeded, in (0, 1).

    Returns: shape (12,) for one count, else (..., 12): log wealth of each bet; increments of two workers add.
    Raises: MeasureError for impossible counts or a bar outside (0, 1).
    Source: sum of ln(1 + bet (Z - bar)) over the audits, Z in {0, 1}; arXiv:2010.09686.

    >>> bool(np.allclose(increment(3, 50, 0.05), increment(1, 20, 0.05) + increment(2, 30, 0.05)))
    True
    """
    k, of = (np.asarray(counts, dtype=np.float64)[..., None] for counts in (wrong, n))
    if not bool(np.all((k >= 0) & (k <= of) & np.isfinite(of))):
        raise MeasureError(
            f"audits must satisfy 0 <= wrong <= n, got {wrong!r} of {n!r}",
            next_action="count settled audits only",
        )
    bet = bets(bar)
    return np.asarray(k * np.log1p(bet * (1.0 - bar)) + (of - k) * np.log1p(-bet * bar))


def weighted_increment(
    wrong_by_pi: Mapping[float, int], requests: int, bar: float, *, pi_min: float
) -> Vector:
    """
    What a day of requests adds, where each was audited with its own known probability.

    Args:
        wrong_by_pi: audit probability to the number of audited wrong answers that had it.
        requests: all requests of the day, audited or not.
        bar: the rate that is not to be exceeded, in (0, 1).
        pi_min: least audit probability of the design, in (0, 1].

    Returns: shape (12,), log wealth of each bet; increments of two workers add.
    Raises: MeasureError for a probability below pi_min, missing or above 1, or more wrong answers than requests.
    Source: Z = 1{audited and wrong} / pi, of which every request has one (Horvitz and Thompson 1952, JASA 47);
        sum of ln(1 + bet (Z - bar)).

    >>> day = weighted_increment({0.01: 2, 0.05: 1}, 1000, 0.05, pi_min=0.01)
    >>> halves = [weighted_increment({0.01: 2}, 600, 0.05, pi_min=0.01),
    ...           weighted_increment({0.05: 1}, 400, 0.05, pi_min=0.01)]
    >>> bool(np.allclose(day, sum(halves)))
    True
    """
    wrong = _checked(wrong_by_pi, requests, pi_min)
    bet = bets(bar, pi_min=pi_min)
    quiet = (requests - wrong) * np.log1p(-bet * bar)
    seen = [count * np.log1p(bet * (1.0 / pi - bar)) for pi, count in wrong_by_pi.items()]
    return np.asarray(np.sum([quiet, *seen], axis=0))


def canary_increment(
    student_failed: int, teacher_failed: int, requests: int, *, share: float, margin: float = 0.0
) -> Vector:
    """
    What requests of a randomised canary add to the evidence that the student fails more often than the teacher.

    Args:
        student_failed: failures among the requests that the student answered.
        teacher_failed: failures among those that the teacher answered.
        requests: all requests of both arms.
        share: chance of each request to go to the student, in (0, 1), fixed beforehand.
        margin: difference of failure rates that is admitted, in [0, 1).

    Returns: shape (12,), log wealth of each bet; increments of two workers add; fold them with `fold_mixture`.
    Raises: MeasureError for impossible counts, or a share or margin outside its range.
    Source: Z = A Y / p - (1 - A) Y / (1 - p), whose mean is the difference (Horvitz and Thompson 1952, JASA 47);
        bets below 1 / (1 / (1 - p) + margin) keep wealth positive; arXiv:2010.09686.

    >>> day = canary_increment(30, 27, 1000, share=0.1)
    >>> fold_mixture(None, day).log_e > alarm_level(0.05)
    True
    """
    if not (0.0 < share < 1.0 and 0.0 <= margin < 1.0):
        raise MeasureError(
            f"a canary needs a share in (0, 1) and a margin in [0, 1), got {share!r} and {margin!r}",
            next_action="pass fractions; at share 1 there is no teacher arm to compare with",
        )
    if min(student_failed, teacher_failed) < 0 or student_failed + teacher_failed > requests:
        raise MeasureError(
            f"{student_failed} + {teacher_failed} failures of {requests} requests",
            next_action="count every request of both arms once",
        )
    largest = 1.0 / (1.0 / (1.0 - share) + margin)
    bet = np.geomspace(0.01 * largest, 0.98 * largest, _BETS)
    fine = (requests - student_failed - teacher_failed) * np.log1p(-bet * margin)
    ours = student_failed * np.log1p(bet * (1.0 / share - margin))
    theirs = teacher_failed * np.log1p(-bet * (1.0 / (1.0 - share) + margin))
    return np.asarray(fine + ours + theirs)


def weighted_mean(wrong_by_pi: Mapping[float, int], requests: int) -> float:
    """
    Estimated error rate of all requests from audits of unequal probability; for display.

    Args:
        wrong_by_pi: audit probability, in (0, 1], to the number of audited wrong answers that had it.
        requests: all requests, audited or not; at least 1.

    Returns: a rate >= 0; it is unbiased, so it may exceed 1 by chance.
    Raises: MeasureError for a probability outside (0, 1], or no requests.
    Source: Horvitz and Thompson 1952, JASA 47.

    >>> weighted_mean({0.5: 1, 0.1: 2}, 440)
    0.05
    """
    _checked(wrong_by_pi, requests, 0.0)
    if requests == 0:
        raise MeasureError("no requests have no error rate", next_action="wait for a settled day")
    return math.fsum(count / pi for pi, count in wrong_by_pi.items()) / requests


def fold_mixture(before: Fold | None, day: Sequence[float] | Vector) -> Fold:
    """
    Add a settled day to a monitor that bets since launch.

    Args:
        before: the monitor so far; None before the first day.
        day: shape (12,), the day's increment.

    Returns: the monitor with the day.
    Raises: MeasureError for an increment of another shape.
    Source: Ville's inequality for the mean of 12 wealth processes; arXiv:2010.09686.

    >>> fold_mixture(None, increment(40, 100, 0.05)).log_e > alarm_level(0.05)
    True
    """
    return _fold(before, day, "mixture")


def fold_restart(before: Fold | None, day: Sequence[float] | Vector) -> Fold:
    """
    Add a settled day to a life alarm: it may start betting on any day, so a good spell does not slow it down.

    Args:
        before: the monitor so far; None before the first day.
        day: shape (12,), the day's increment.

    Returns: the monitor with the day; ever reaching `alarm_level(delta)` has probability at most delta within the bar.
    Raises: MeasureError for an increment of another shape.
    Source: mixture over starting days with weights 1 / (d (d + 1)), Shin, Ramdas and Rinaldo 2022, arXiv:2203.03532.

    >>> fold_restart(None, increment(0, 25, 0.05)).log_e < 0
    True
    """
    return _fold(before, day, "restart")


def fold_pager(before: Fold | None, day: Sequence[float] | Vector) -> Fold:
    """
    Add a settled day to a pager: quicker than a life alarm, and it promises only that false pages are rare.

    Args:
        before: the monitor so far; None before the first day and after a page.
        day: shape (12,), the day's increment.

    Returns: the monitor with the day; the mean time to a false page at level ln(A) is at least A days.
    Raises: MeasureError for an increment of another shape.
    Source: Shiryaev-Roberts e-detector, Shin, Ramdas and Rinaldo 2022, arXiv:2203.03532.

    >>> fold_pager(None, increment(20, 25, 0.05)).log_e > math.log(365)
    True
    """
    return _fold(before, day, "pager")


def fold_days(increments: ArrayLike, rule: Rule) -> Vector:
    """
    Evidence after each day of many monitors at once, from their whole record.

    Args:
        increments: shape (..., days, 12), one increment a day.
        rule: "mixture", "restart" or "pager", as in the function `fold_` of that name; "life" is a restart whose starting
            days weigh about the same over 90 days, the usual life of a certificate: a late fault is found sooner.

    Returns: shape (..., days), `Fold.log_e` after each day.
    Raises: MeasureError for increments of another shape.
    Source: as the folds; the record of days is enough to draw the whole chart again.

    >>> fold_days([increment(0, 25, 0.05), increment(20, 25, 0.05)], "restart").round(2).tolist()
    [-0.55, 42.8]
    """
    gains = np.asarray(increments, dtype=np.float64)
    if gains.ndim < 2:
        raise MeasureError(
            f"a record has shape (..., days, {_BETS}), got {gains.shape!r}",
            next_action="stack the increments of the days",
        )
    state: Vector | None = None
    states = np.empty(gains.shape)
    for number in range(gains.shape[-2]):
        state = _step(state, gains[..., number, :], _start(rule, number + 1))
        states[..., number, :] = state
    return _log_e(states, rule, np.arange(1, gains.shape[-2] + 1))


def alarm_level(delta: float, *, weight: float = 1.0) -> float:
    """
    The log evidence at which a life alarm goes off.

    Args:
        delta: chance of a false alarm of all streams together, in (0, 1).
        weight: this stream's share of delta, in (0, 1].

    Returns: a number to compare `Fold.log_e` with; alarm iff it is reached.
    Raises: MeasureError for fractions outside their range.
    Source: Ville's inequality.

    >>> round(alarm_level(0.05), 3)
    2.996
    """
    if not (0.0 < delta < 1.0 and 0.0 < weight <= 1.0):
        raise MeasureError(
            f"an alarm needs delta in (0, 1) and weight in (0, 1], got {delta!r} and {weight!r}",
            next_action="pass fractions; the weights of all streams sum to 1",
        )
    return -math.log(delta * weight)


def pager_level(mean_days: float, *, weight: float = 1.0) -> float:
    """
    The log evidence at which a pager goes off.

    Args:
        mean_days: least mean time to a false page of all streams together, in days (or epochs, if one fold is one).
        weight: this stream's share, in (0, 1].

    Returns: a number to compare `Fold.log_e` with; page iff it is reached.
    Raises: MeasureError for a time below 1 or a weight outside its range.
    Source: Shin, Ramdas and Rinaldo 2022, arXiv:2203.03532: e-SR at level A has a mean run length of at least A.

    >>> round(pager_level(365, weight=1 / 8), 2)
    7.98
    """
    if not (mean_days >= 1.0 and math.isfinite(mean_days) and 0.0 < weight <= 1.0):
        raise MeasureError(
            f"a pager needs at least one day and a weight in (0, 1], got {mean_days!r} and {weight!r}",
            next_action="pass days, for example 365; the weights of all streams sum to 1",
        )
    return math.log(mean_days / weight)


def merged(rows: Iterable[AuditDay]) -> tuple[AuditDay, ...]:
    """
    Add the rows that several workers counted of the same days.

    Args:
        rows: rows of one release, slice and signal, in any order; several may be of the same day.

    Returns: one row a day, in calendar order; every number is the exact sum.
    Raises: MeasureError for counts that can't be.
    Source: the evidence is a function of integers that add, so workers and shards never need to talk.

    >>> half = AuditDay(day=date(2025, 3, 1), requests=500, audited=5, unlabelled=1, wrong_by_pi=((0.01, 1),))
    >>> both, = merged([half, half])
    >>> both.requests, both.wrong_by_pi
    (1000, ((0.01, 2),))
    """
    found = []
    for day, same in groupby(sorted(rows, key=lambda row: row.day), key=lambda row: row.day):
        group = list(same)
        wrong: Counter[float] = Counter()
        for row in group:
            least = min(row.unlabelled, *(count for _, count in row.wrong_by_pi), 0)
            if least < 0 or not row.unlabelled + row.wrong <= row.audited <= row.requests:
                raise MeasureError(
                    f"{row.day}: {row.wrong} wrong and {row.unlabelled} unlabelled of {row.audited} audits of "
                    f"{row.requests} requests",
                    next_action="count each request and each audit once, labels by the day of their request",
                )
            for pi, count in row.wrong_by_pi:
                wrong[pi] += count
        found.append(
            AuditDay(
                day=day,
                requests=sum(row.requests for row in group),
                audited=sum(row.audited for row in group),
                unlabelled=sum(row.unlabelled for row in group),
                wrong_by_pi=tuple(sorted(wrong.items())),
            )
        )
    return tuple(found)


def settled(
    rows: Iterable[AuditDay], *, today: date, deadline_days: int = 7, after: date | None = None
) -> Settled:
    """
    Which days may enter a monitor: closed, in calendar order, with every audit labelled or past its deadline.

    Args:
        rows: rows of one release, slice and signal, as in `merged`.
        today: the current day; it is never ready itself.
        deadline_days: how long a label is waited for, counted from the day of the request; at least 1.
        after: the last day that has entered already; it and earlier days are left out, whatever rows and labels
            came since.

    Returns: the days to fold now, in order, and what is missing.
    Raises: MeasureError as `merged`, or for a deadline below 1.
    Source: wrong answers tend to be labelled first, so a monitor that reads each label as it comes bets on the
        order of labelling; a day that enters whole has no order.

    >>> first = AuditDay(day=date(2025, 3, 1), requests=900, audited=9, unlabelled=2)
    >>> second = AuditDay(day=date(2025, 3, 2), requests=900, audited=9, unlabelled=0)
    >>> [str(day) for day in settled([first, second], today=date(2025, 3, 4)).waiting]
    ['2025-03-01', '2025-03-02']
    >>> late = settled([first, second], today=date(2025, 3, 9))
    >>> len(late.ready), late.overdue, [str(day) for day in late.starved]
    (2, 2, ['2025-03-01'])
    """
    if deadline_days < 1:
        raise MeasureError(f"a deadline of {deadline_days!r} days", next_action="wait at least one day for labels")
    closed = [row for row in merged(rows) if row.day < today and (after is None or row.day > after)]
    ready: list[AuditDay] = []
    for row in closed:
        if row.unlabelled and (today - row.day).days <= deadline_days:
            break
        ready.append(row)
    return Settled(
        ready=tuple(ready),
        waiting=tuple(row.day for row in closed[len(ready) :]),
        overdue=sum(row.unlabelled for row in ready),
        starved=tuple(row.day for row in ready if row.unlabelled > _STARVED * row.audited),
    )


def _start(rule: Rule, number: int) -> float | None:
    """Log weight of a fresh start on the day of that number; None where the only start is the launch."""
    if rule == "mixture":
        return None
    return 0.0 if rule == "pager" else math.log(float(_unbet(rule, number - 1) - _unbet(rule, number)))


def _unbet(rule: Rule, number: ArrayLike) -> Vector:
    """Wealth that a life alarm has not bet after so many days: what is left for later starts."""
    days = np.asarray(number, dtype=np.float64)
    if rule == "restart":
        return np.asarray(1.0 / (days + 1.0))
    most = 1.0 - _EARLY - _LATE
    late = np.where(days <= _LIFE, most * (1.0 - days / _LIFE) + _LATE, _LATE * _LIFE / np.maximum(days, 1.0))
    return np.asarray(_EARLY / (days + 1.0) + late)


def _step(state: Vector | None, gain: Vector, start: float | None) -> Vector:
    """The wealth of each bet after the day, a fresh start of weight exp(start) included."""
    if gain.shape[-1:] != (_BETS,) or not bool(np.all(np.isfinite(gain))):
        raise MeasureError(
            f"a day's increment has shape ({_BETS},) and is finite, got {gain.shape!r}",
            next_action="make it with `increment`",
        )
    if start is None:
        return gain if state is None else np.asarray(state + gain)
    return np.asarray(np.logaddexp(-np.inf if state is None else state, start) + gain)


def _log_e(state: Vector, rule: Rule, number: ArrayLike) -> Vector:
    """Log of the mean over the bets; a life alarm also holds the wealth that has not been bet yet."""
    mean = np.logaddexp.reduce(state, axis=-1) - math.log(_BETS)
    return np.asarray(np.logaddexp(mean, np.log(_unbet(rule, number))) if rule in {"restart", "life"} else mean)


def _fold(before: Fold | None, day: Sequence[float] | Vector, rule: Rule) -> Fold:
    gain = np.asarray(day, dtype=np.float64)
    if gain.ndim != 1:
        raise MeasureError(f"one day has one increment, got shape {gain.shape!r}", next_action="use `fold_days`")
    number = (before.day if before else 0) + 1
    state = _step(np.asarray(before.state) if before else None, gain, _start(rule, number))
    return Fold(day=number, state=tuple(state.tolist()), log_e=float(_log_e(state, rule, number)))


def _checked(wrong_by_pi: Mapping[float, int], requests: int, pi_min: float) -> int:
    """How many wrong answers there are, once every probability is known to be one."""
    for pi, count in wrong_by_pi.items():
        if not (0.0 < pi <= 1.0 and pi >= pi_min) or count < 0:
            raise MeasureError(
                f"every audit carries its probability in [{pi_min}, 1], got {pi!r} ({count!r} times)",
                next_action="log the audit probability of each request; there is no default",
            )
    wrong = sum(wrong_by_pi.values())
    if wrong > requests:
        raise MeasureError(f"{wrong} wrong answers of {requests} requests", next_action="count all requests")
    return wrong
