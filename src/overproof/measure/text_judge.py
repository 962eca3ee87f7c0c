"""A judge of texts as a metric: calibrated on people's words first, corrected for its errors, or not used at all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from overproof.errors import MeasureError
from overproof.evidence import JudgedShare, Verdict
from overproof.measure.intervals import Interval, cp_interval, cp_lower, cp_upper, figure
from overproof.measure.records import ratio_interval

LEAST_KNOWN = 50
"""Answers with a person's word before a judge is looked at."""
FOR_THE_SHARE = 0.3  # of the judged interval's error; the rest is for its distance from people's words
LEAST_EACH = 10
"""Of them at least so many that people call right, and so many that they call wrong."""


def judged_share(said: Sequence[bool], known: Sequence[bool | None], *, level: float = 0.95) -> JudgedShare:
    """
    Share of right answers among texts that a judge read, corrected for its own errors.

    Args:
        said: shape (n,), True where the judge calls the answer right; an answer that it did not judge is False in all rows alike.
        known: shape (n,), a person's word, None where there is none; which rows have one was left to chance.
        level: confidence of the interval, in (0, 1).

    Returns: the share; without a value, and with the interval [0, 1], until the judge is calibrated.
    Raises: MeasureError for columns of different length or level outside (0, 1).
    Source: what both of two intervals hold, each with half of the error: Clopper and Pearson 1934 on people's words alone, and
        prediction-powered inference (Angelopoulos et al. 2023, Science 382) by exact bounds: Clopper-Pearson on the judge's
        share, `records.ratio_interval` on people's word less the judge's. Rogan and Gladen 1978 holds too, but its interval
        was two to five times as wide here, since it doesn't use that people's rows are a sample of the judge's.

    >>> found = judged_share([True] * 360 + [False] * 40, ([True] * 90 + [None] * 270) + ([False] * 20 + [None] * 20))
    >>> found.calibrated, round(found.value, 3), round(found.low, 2), round(found.high, 2)
    (True, 0.893, 0.81, 0.89)
    """
    if len(said) != len(known):
        raise MeasureError(f"{len(said)} words of the judge, {len(known)} places for people's", next_action="pass one of each a row")
    wrong = [not word for word, truth in zip(said, known, strict=True) if truth is False]
    right = [word for word, truth in zip(said, known, strict=True) if truth is True]
    n, n_known = len(said), len(wrong) + len(right)
    why = _why_not(wrong, right, (1.0 - level) / 2.0)
    low, high, value = 0.0, 1.0, None
    if not why:
        ends = _both(said, known, 1.0 - level)
        shift = sum(float(truth) - float(word) for word, truth in zip(said, known, strict=True) if truth is not None) / n_known
        if ends.low <= ends.high:
            low, high = ends.low, ends.high
            value = min(high, max(low, sum(said) / n + shift))
        else:
            why = "people's words and the judge's can't be of the same answers: were people's rows left to chance?"
    return JudgedShare(
        value=value, low=low, high=high, level=level, n=n, n_known=n_known,
        seen=figure(sum(said), n, metric="judged right", level=level),
        catches=figure(sum(wrong), len(wrong), metric="sensitivity", level=level),
        spares=figure(sum(right), len(right), metric="specificity", level=level),
        by_people=figure(len(right), n_known, metric="right", level=level),
        calibrated=not why, why=why,
    )  # fmt: skip


def judged_verdict(share: JudgedShare, at_least: float) -> Verdict:
    """
    What a bar on the share of right answers comes to.

    Args:
        share: from `judged_share`.
        at_least: the bar, in [0, 1].

    Returns: pass or fail only where the whole interval of a calibrated judge lies on one side; else undecided.
    Raises: MeasureError for a bar outside [0, 1].
    Source: both ends of the interval as one-sided tests.

    >>> judged_verdict(judged_share([True] * 500, [None] * 500), 0.5)
    'undecided'
    """
    if not 0.0 <= at_least <= 1.0:
        raise MeasureError(f"a bar lies in [0, 1], got {at_least!r}", next_action="pass a fraction, not a percentage")
    if not share.calibrated:
        return "undecided"
    return "pass" if share.low >= at_least else "fail" if share.high < at_least else "undecided"


def _both(said: Sequence[bool], known: Sequence[bool | None], miss: float) -> Interval:
    pairs = [(word, truth) for word, truth in zip(said, known, strict=True) if truth is not None]
    people = cp_interval(sum(truth for _, truth in pairs), len(pairs), level=1.0 - miss / 2.0)
    all_said = cp_interval(sum(said), len(said), level=1.0 - miss / 2.0 * FOR_THE_SHARE)
    gap = np.array([(1.0 + truth - word) / 2.0 for word, truth in pairs])
    shift = ratio_interval(gap, np.ones(len(pairs)), level=1.0 - miss / 2.0 * (1.0 - FOR_THE_SHARE))
    return Interval(
        low=max(people.low, all_said.low + 2.0 * shift.low - 1.0), high=min(people.high, all_said.high + 2.0 * shift.high - 1.0)
    )


def _why_not(wrong: Sequence[bool], right: Sequence[bool], d: float) -> str:
    n = len(wrong) + len(right)
    if n < LEAST_KNOWN or min(len(wrong), len(right)) < LEAST_EACH:
        return (
            f"people spoke on {n} answers and call {len(right)} right and {len(wrong)} wrong; "
            f"it takes {LEAST_KNOWN}, at least {LEAST_EACH} of each"
        )
    if cp_lower(sum(wrong), len(wrong), d) <= cp_upper(len(right) - sum(right), len(right), d):
        return "it is not shown to object to wrong answers more often than to right ones"
    return ""
