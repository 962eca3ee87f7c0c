"""How many samples a label takes, how far they agree, which labels deserve a second look, and what each may prove."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from overproof.errors import MeasureError
from overproof.evidence import Figure

FIRST_SAMPLES = 2
MOST_SAMPLES = 5
"""With a teacher that is right nine times in ten: 2.6 calls a row for what a majority of 5 gives in 5."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """What several samples say together. It measures the teacher's certainty, never truth."""

    value: str
    """The most frequent answer; the earliest sample among equals."""
    share: float
    """Share of the samples that gave `value`, in (0, 1]."""
    samples: int
    """How many samples there are."""
    tied: tuple[str, ...]
    """Every answer as frequent as `value`, `value` first; one entry where there is no tie."""


def agreement(values: Sequence[str]) -> Agreement:
    """
    The majority answer of several samples, with ties shown.

    Args:
        values: parsed answers to one request, in the order of the samples; at least one.

    Returns: the majority with its share.
    Raises: MeasureError for no samples.
    Source: plurality vote, as in Wang et al. 2022, arXiv:2203.11171 (self-consistency).

    >>> agreement(["bug", "billing", "billing", "bug", "other"])
    Agreement(value='bug', share=0.4, samples=5, tied=('bug', 'billing'))
    """
    if not values:
        raise MeasureError(
            "no samples to agree", next_action="leave out requests that the teacher did not answer"
        )
    counts = Counter(values)  # keeps the order of first occurrence
    most = max(counts.values())
    tied = tuple(value for value, count in counts.items() if count == most)
    return Agreement(value=tied[0], share=most / len(values), samples=len(values), tied=tied)


def suspicion_rank(probability: ArrayLike, given: ArrayLike) -> NDArray[np.int64]:
    """
    Rows in the order in which their labels deserve a second look.

    Args:
        probability: shape (n, k), class probabilities of a model that was not fitted on the row (out of fold).
        given: shape (n,), column of each row's given label.

    Returns: shape (n,), row numbers, most suspicious first: least probability of the given label, then the largest
        lead of the best other label, then the row's number.
    Raises: MeasureError for shapes that differ, NaN, or a label outside the columns.
    Source: Northcutt et al. 2021, arXiv:1911.00068 (self-confidence ranking; no thresholds).

    >>> suspicion_rank([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], [0, 0, 0]).tolist()
    [1, 2, 0]
    """
    chance = np.asarray(probability, dtype=np.float64)
    label = np.asarray(given)
    if chance.ndim != 2 or label.shape != chance.shape[:1] or bool(np.any(np.isnan(chance))):
        raise MeasureError(
            f"a rank needs probabilities (n, k) and labels (n,), got {chance.shape!r} and {label.shape!r}",
            next_action="pass both for the same rows",
        )
    if label.size == 0:
        return np.zeros(0, dtype=np.int64)
    if label.dtype.kind not in "iu" or int(label.min()) < 0 or int(label.max()) >= chance.shape[1]:
        raise MeasureError(
            f"a given label lies outside the {chance.shape[1]} columns",
            next_action="use the order of the columns",
        )
    rows = np.arange(label.size)
    own = chance[rows, label]
    others = chance.copy()
    others[rows, label] = -np.inf
    lead = others.max(axis=1) - own
    return np.lexsort((rows, -lead, own)).astype(np.int64)


def samples_wanted(values: Sequence[str], *, first: int = FIRST_SAMPLES, most: int = MOST_SAMPLES) -> int:
    """
    How many more samples of the teacher to ask for one request: two, and more only where they differ.

    Args:
        values: parsed answers so far, in the order of the samples; none at the start.
        first: samples that every request gets, at least 2.
        most: samples of a request whose first ones differ, at least `first`.

    Returns: a count of calls to make now; 0 where the first samples agree, or where there are `most`.
    Raises: MeasureError unless 2 <= first <= most.
    Source: ours. Agreement is the teacher's certainty: where it errs the same way each time, no sample shows it.

    >>> samples_wanted([]), samples_wanted(["bug", "bug"]), samples_wanted(["bug", "billing"])
    (2, 0, 3)
    """
    _samples(first, most)
    if len(values) < first:
        return first - len(values)
    return 0 if len(set(values[:first])) == 1 else max(0, most - len(values))


def agreement_ceiling(pairs: Figure) -> float:
    """
    The most that any student can agree with one sample of a teacher that doesn't always agree with itself.

    Args:
        pairs: share of rows on which two samples of the teacher are the same, with its interval.

    Returns: a fraction in [0, 1]: an upper limit at the confidence of the interval's upper end.
    Raises: nothing.
    Source: ours. With shares p of its answers on a row the teacher repeats itself with chance sum p^2, and a student
        that always gives the most frequent one is met with max p <= sqrt(sum p^2); the root's mean is at most the
        root of the mean (Jensen).

    >>> from overproof.measure.intervals import figure
    >>> round(agreement_ceiling(figure(900, 1000, metric="self-agreement")), 3)
    0.958
    """
    return float(np.sqrt(pairs.high))


def expected_calls(differ: float, *, first: int = FIRST_SAMPLES, most: int = MOST_SAMPLES) -> float:
    """
    Mean calls a row of the adaptive plan, to price it before it is bought.

    Args:
        differ: share of requests whose first samples differ, in [0, 1]; from a pilot.
        first: samples that every request gets, at least 2.
        most: samples of a request whose first ones differ, at least `first`.

    Returns: calls a row, between `first` and `most`.
    Raises: MeasureError for a share outside [0, 1], or unless 2 <= first <= most.
    Source: first + differ x (most - first).

    >>> round(expected_calls(0.2), 2)
    2.6
    """
    _samples(first, most)
    if not 0.0 <= differ <= 1.0:
        raise MeasureError(
            f"a share lies in [0, 1], got {differ!r}", next_action="pass a fraction, not a percentage"
        )
    return first + differ * (most - first)


def _samples(first: int, most: int) -> None:
    if not 2 <= first <= most:
        raise MeasureError(
            f"a plan has 2 <= first <= most samples, got {first!r} and {most!r}",
            next_action="start with at least two samples: one has nothing to agree with",
        )


def fix_order(
    probability: ArrayLike, traffic: ArrayLike, pending: ArrayLike, cluster: Sequence[Hashable]
) -> NDArray[np.int64]:
    """
    The fix queue: rows in the order in which a corrected label helps training most, one for each near-duplicate.

    Args:
        probability: shape (n,), out-of-fold probability of the given label, in [0, 1].
        traffic: shape (n,), share of live traffic of the row's slice, in [0, 1].
        pending: shape (n,), bool: the row's slice is undecided or failed.
        cluster: n cluster numbers, from `leakage.clusters`.

    Returns: shape (clusters,), row numbers by falling (1 - probability) x traffic x (2 if pending), the first row of
        each cluster by that order, earlier rows first among equals. Labels from here train; they prove nothing.
    Raises: MeasureError for columns of different length, NaN or a fraction outside [0, 1].
    Source: ours.

    >>> fix_order([0.9, 0.1, 0.2, 0.5], [0.5, 0.1, 0.1, 0.1], [False, False, False, True], [0, 1, 1, 2]).tolist()
    [3, 1, 0]
    """
    chance, share = np.asarray(probability, dtype=np.float64), np.asarray(traffic, dtype=np.float64)
    urgent = np.asarray(pending, dtype=bool)
    if chance.ndim != 1 or not chance.shape == share.shape == urgent.shape == (len(cluster),):
        raise MeasureError(
            f"the fix queue needs columns of one length, got {chance.shape!r}, {share.shape!r}, {urgent.shape!r} "
            f"and {len(cluster)} clusters",
            next_action="pass all four for the same rows",
        )
    for name, column in (("probability", chance), ("traffic", share)):
        if not bool(np.all((column >= 0.0) & (column <= 1.0))):
            raise MeasureError(f"a {name} lies outside [0, 1]", next_action="pass fractions, no NaN")
    worth = (1.0 - chance) * share * np.where(urgent, 2.0, 1.0)
    seen: set[Hashable] = set()
    order = []
    for row in np.lexsort((np.arange(worth.size), -worth)):
        if cluster[row] not in seen:
            seen.add(cluster[row])
            order.append(row)
    return np.asarray(order, dtype=np.int64)


def audit_order(day: ArrayLike, deficit: ArrayLike, drawn: ArrayLike) -> NDArray[np.int64]:
    """
    The audit queue: rows that chance has chosen, in the order in which their labels are due.

    Args:
        day: shape (n,), whole number of the day on which the row was drawn.
        deficit: shape (n,), labels that the row's slice still lacks to its floor; negative where it has more.
        drawn: shape (n,), whole number: the place of the row in the draw.

    Returns: shape (n,), row numbers: oldest day first, then the slice that lacks most, then the order of the draw.
        No score of the student plays a part: days must close whole, or the first labels are the wrong ones.
    Raises: MeasureError for columns of different length or NaN.
    Source: ours.

    >>> audit_order([2, 1, 1, 1], [9, 0, 5, 5], [0, 1, 3, 2]).tolist()
    [3, 2, 1, 0]
    """
    columns = [np.asarray(column, dtype=np.float64) for column in (day, deficit, drawn)]
    if columns[0].ndim != 1 or any(c.shape != columns[0].shape or bool(np.any(np.isnan(c))) for c in columns):
        raise MeasureError(
            f"the audit queue needs columns of one length, got {[c.shape for c in columns]!r}",
            next_action="pass all three for the same rows, no NaN",
        )
    return np.lexsort((columns[2], -columns[1], columns[0])).astype(np.int64)


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawnLabel:
    """A label of a row that chance has chosen, as the audit queue and the sealed draw do: it may prove something."""

    row: str
    """The request's id."""
    label: str
    """What the reviewer says."""
    chance: float
    """Chance with which the row was drawn, in (0, 1], fixed before anyone looked at the label."""

    def __post_init__(self) -> None:
        if not 0.0 < self.chance <= 1.0:
            raise MeasureError(
                f"row {self.row!r} was drawn with a chance of {self.chance!r}, which must lie in (0, 1]",
                next_action="take the chance from the draw's own record",
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class SuspectLabel:
    """A label of a row that was picked because it looked wrong, as the fix queue does: it may train, never prove."""

    row: str
    """The request's id."""
    label: str
    """What the reviewer says."""
    worth: float
    """Why it came early; see `fix_order`."""


def provable(labels: Sequence[DrawnLabel]) -> tuple[DrawnLabel, ...]:
    """
    The door to certificates and monitors: only labels of rows that chance has chosen pass.

    Args:
        labels: labels from the audit queue or the sealed draw, each row once.

    Returns: the same labels.
    Raises: MeasureError if one comes from the fix queue or from nowhere, or a row stands there twice.
    Source: Horvitz and Thompson 1952, JASA 47: a row whose chance of being drawn is unknown estimates nothing.

    >>> [found.label for found in provable([DrawnLabel(row="r1", label="bug", chance=0.01)])]
    ['bug']
    >>> provable([SuspectLabel(row="r2", label="bug", worth=0.7)])
    Traceback (most recent call last):
    ...
    overproof.errors.MeasureError: the label of row 'r2' can't prove anything: its row was picked for looking wrong
    Next: take labels of the audit queue or the sealed draw; use this one for training
    """
    rows: set[str] = set()
    for found in labels:
        if not isinstance(found, DrawnLabel):  # the type says so already; data from a file doesn't know the type
            row = getattr(found, "row", found)
            raise MeasureError(
                f"the label of row {row!r} can't prove anything: its row was picked for looking wrong",
                next_action="take labels of the audit queue or the sealed draw; use this one for training",
            )
        if found.row in rows:
            raise MeasureError(
                f"row {found.row!r} has two labels", next_action="let the reviewers settle on one before it counts"
            )
        rows.add(found.row)
    return tuple(labels)
