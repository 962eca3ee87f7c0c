"""Rounds of the same questions: whether the one who answers has changed, read after each round."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from overproof.errors import MeasureError
from overproof.measure.intervals import cp_upper, p_pass
from overproof.measure.monitor import fold_days, increment, pager_level

NOISE_DELTA = 0.05  # chance that the noise of all questions together is more than its bound
QUESTION_DELTA = 0.2  # the same for one question: the mean over questions forgives a few
CHANGED = 0.9  # how often a question whose answer has changed is bet to differ


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundRead:
    """One round after the reference rounds, and what it and those before it say."""

    n: int
    """Questions."""
    differ: int
    """Answers that are not the usual one of the reference rounds."""
    noise: float
    """Upper bound of the share that differs when nothing has changed."""
    alarm_at: int
    """From so many different answers on, this round alone is an alarm."""
    log_e: float
    """Log evidence of a change over all rounds so far; an alarm at `level`."""
    level: float
    """Where that is an alarm, by the mean time to a false one."""
    since: int
    """Round from which on the evidence for a change is largest, counted from 0 after the reference."""

    @property
    def alarm(self) -> bool:
        """Whether this round, or all of them together, can't be noise."""
        return self.differ >= self.alarm_at or self.log_e >= self.level


def usual(reference: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """
    The answer that each question got most often.

    Args:
        reference: rounds, each with one answer to each question in the same order.

    Returns: one answer for each question; of equally frequent ones the first that was given.
    Raises: MeasureError for no round, or rounds of different length.
    Source: the mode: a single answer to a question on which the teacher wavers would differ for ever.

    >>> usual([["a", "x"], ["b", "x"], ["a", "y"]])
    ('a', 'x')
    """
    if not reference or len({len(one) for one in reference}) != 1:
        raise MeasureError("reference rounds of one length are needed", next_action="ask the same questions in each round")
    return tuple(Counter(column).most_common(1)[0][0] for column in zip(*reference, strict=True))


def least_alarm(n: int, noise: float, chance: float) -> int:
    """
    The fewest different answers in one round that noise doesn't explain.

    Args:
        n: questions, at least 1.
        noise: chance that an answer differs when nothing has changed, on average over the questions.
        chance: of a false alarm in a round, in (0, 1).

    Returns: smallest c with P(Binomial(n, noise) >= c) at most `chance`; n + 1 where there is none.
    Raises: MeasureError as `p_pass`.
    Source: exact binomial tail; questions that waver unequally differ less often by many (Hoeffding 1956).

    >>> least_alarm(50, 0.02, 1 / 30), least_alarm(50, 0.05, 1 / 30)
    (4, 7)
    """
    if noise >= 1:
        return n + 1
    return next((c for c in range(1, n + 1) if 1.0 - p_pass(c - 1, n, noise) <= chance), n + 1)


def read_rounds(reference: Sequence[Sequence[str]], rounds: Sequence[Sequence[str]], *, mean_rounds: float) -> tuple[RoundRead, ...]:
    """
    What each round says, in order: many answers that differ at once, or a few that go on differing.

    Half the false alarms are for single rounds, by the binomial tail. The other half are for all rounds together: the mean
    of two e-detectors, one over all answers with the bound of the noise as its bar, and one over single questions, each
    with a bound of its own, that bets on the same question differing again and again.

    Args:
        reference: rounds from before, two at least, with one answer to each question.
        rounds: later rounds, with the same questions in the same order.
        mean_rounds: least mean number of rounds between two false alarms, at least 1.

    Returns: one reading for each of `rounds`; after an alarm the later ones still read on.
    Raises: MeasureError for rounds of different length, no question, or too few reference rounds.
    Source: Shiryaev-Roberts e-detectors, Shin, Ramdas and Rinaldo 2022, arXiv:2203.03532; a mean of e-detectors is one.

    >>> same, other = ["a"] * 40, ["a"] * 38 + ["b"] * 2
    >>> [one.alarm for one in read_rounds([same] * 10, [same, *[other] * 6], mean_rounds=90)]
    [False, False, False, False, True, True, True]
    """
    base = usual(reference)
    n = len(base)
    if n == 0 or len(reference) < 2 or any(len(one) != n for one in rounds):
        raise MeasureError(
            f"{len(reference)} reference rounds of {n} questions can't be compared with rounds of {sorted({len(r) for r in rounds})}",
            next_action="ask the same questions in each round, and at least two reference rounds",
        )
    if not rounds:
        return ()
    before, after = (np.array([[a != b for a, b in zip(one, base, strict=True)] for one in part]) for part in (reference, rounds))
    noise = _bound(int(before.sum()), before.size, NOISE_DELTA)
    own = np.array([_bound(int(k), len(before), QUESTION_DELTA) for k in before.sum(axis=0)])
    level, differ = pager_level(max(1.0, mean_rounds), weight=0.5), after.sum(axis=1)
    together = increment(differ, n, noise)
    bet = np.maximum(CHANGED, own)
    single = np.where(after, np.log(bet / own), np.log1p(-bet) - np.log1p(-own))
    log_e = _mean(fold_days(together, "pager"), _detector(single))
    alarm_at = least_alarm(n, noise, 0.5 / max(1.0, mean_rounds))
    found = []
    for t in range(len(after)):
        starts = _mean(_lme(_tails(together[: t + 1])), _lme(_tails(single[: t + 1])))
        found.append(
            RoundRead(n=n, differ=int(differ[t]), noise=noise, alarm_at=alarm_at, log_e=float(log_e[t]), level=level, since=int(np.argmax(starts)))
        )
    return tuple(found)


@lru_cache(maxsize=4096)
def _bound(k: int, n: int, delta: float) -> float:
    return min(cp_upper(k, n, delta), 0.98)  # above it nothing could be seen, and a bar below 1 is asked for


def _detector(gains: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log of the mean, over questions, of a Shiryaev-Roberts statistic after each round."""
    state = np.full(gains.shape[1], -np.inf)
    found = []
    for gain in gains:
        state = np.logaddexp(state, 0.0) + gain
        found.append(float(_lme(state)))
    return np.array(found)


def _tails(gains: NDArray[np.float64]) -> NDArray[np.float64]:
    """From each round to the last one: what a bet that began there would have won."""
    return np.asarray(gains[::-1].cumsum(axis=0)[::-1])


def _lme(values: NDArray[np.float64]) -> NDArray[np.float64]:
    most = values.max(axis=-1, keepdims=True)
    return np.asarray(most[..., 0] + np.log(np.exp(values - most).mean(axis=-1)))


def _mean(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.logaddexp(one, other) - np.log(2.0))
