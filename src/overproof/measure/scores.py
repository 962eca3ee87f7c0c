"""How often two columns of labels agree. Accuracy is against gold only; agreement with the teacher is fidelity."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from overproof.errors import MeasureError
from overproof.evidence import Figure, TwoByTwo
from overproof.measure.intervals import figure


@dataclass(frozen=True, kw_only=True, slots=True)
class Confusion:
    """How often each label was answered where each label was right."""

    labels: tuple[str, ...]
    """Order of rows and columns."""
    counts: tuple[tuple[int, ...], ...]
    """Row: the right label; column: the answer."""
    n: int
    """All counted rows."""
    elsewhere: int
    """Rows left out because the answer is none of the labels; they are wrong answers."""


def _same_length(left: Sequence[object], right: Sequence[object]) -> None:
    if len(left) != len(right):
        raise MeasureError(
            f"both columns must have one row for each request, got {len(left)} and {len(right)}",
            next_action="pass them in the order of one set",
        )


def accuracy(answers: Sequence[str | None], gold: Sequence[str | None], *, level: float = 0.95) -> Figure:
    """
    Share of answers that are true, over the rows whose truth is known.

    Args:
        answers: one label for each row; None is a wrong answer.
        gold: the true label, None where nobody knows it: such rows are left out.
        level: confidence of the interval, in (0, 1).

    Returns: a figure with metric "accuracy"; value None where no row has gold.
    Raises: MeasureError for columns of different length.
    Source: Clopper and Pearson 1934, Biometrika 26, for the interval.

    >>> accuracy(["a", "b", "b"], ["a", "a", None]).value
    0.5
    """
    _same_length(answers, gold)
    known = [(a, g) for a, g in zip(answers, gold, strict=True) if g is not None]
    return figure(sum(a == g for a, g in known), len(known), metric="accuracy", level=level)


def fidelity(answers: Sequence[str | None], teacher: Sequence[str | None], *, level: float = 0.95) -> Figure:
    """
    Share of answers that are the teacher's; it says nothing about truth.

    Args:
        answers: one label for each row; None is a disagreement.
        teacher: the teacher's label, None where it gave none: such rows are left out.
        level: confidence of the interval, in (0, 1).

    Returns: a figure with metric "fidelity"; value None where the teacher answered no row.
    Raises: MeasureError for columns of different length.
    Source: Clopper and Pearson 1934, Biometrika 26, for the interval.

    >>> fidelity(["a", "b"], ["a", "b"]).value
    1.0
    """
    _same_length(answers, teacher)
    known = [(a, t) for a, t in zip(answers, teacher, strict=True) if t is not None]
    return figure(sum(a == t for a, t in known), len(known), metric="fidelity", level=level)


def confusion(answers: Sequence[str | None], right: Sequence[str | None], labels: Sequence[str]) -> Confusion:
    """
    Counts of answers by right label.

    Args:
        answers: one label for each row.
        right: the label to compare with; rows with None are left out.
        labels: the k labels of the task, in its order.

    Returns: a table of shape (k, k); n counts the rows in it.
    Raises: MeasureError for columns of different length, repeated labels, or a right label that is no label.
    Source: counting.

    >>> confusion(["a", "b", "b"], ["a", "a", "b"], ["a", "b"]).counts
    ((1, 1), (0, 1))
    """
    _same_length(answers, right)
    names = set(labels)
    strangers = sorted({r for r in right if r is not None and r not in names})
    if len(names) < len(labels) or strangers:
        raise MeasureError(
            f"right labels must be among {len(labels)} different labels, got also {strangers[:5]!r}",
            next_action="pass the labels of the task",
        )
    seen = Counter((r, a) for a, r in zip(answers, right, strict=True) if r is not None)
    table = tuple(tuple(seen[r, a] for a in labels) for r in labels)
    inside = sum(map(sum, table))
    return Confusion(labels=tuple(labels), counts=table, n=inside, elsewhere=sum(seen.values()) - inside)


def macro_f1(
    answers: Sequence[str | None], right: Sequence[str | None], labels: Sequence[str]
) -> float | None:
    """
    Mean over labels of how well each one is found; for display, it has no exact bound.

    Args:
        answers: one label for each row.
        right: the label to compare with; rows with None are left out.
        labels: the labels of the task; those that occur in neither column are left out of the mean.

    Returns: a fraction in [0, 1]; None where no row can be compared.
    Raises: MeasureError for columns of different length, repeated labels, or a right label that is no label.
    Source: mean over labels of 2 TP / (2 TP + FP + FN); Opitz and Burst 2019, arXiv:1911.03347, "averaged F1".

    >>> round(macro_f1(["a", "b", "b"], ["a", "a", "b"], ["a", "b", "never"]), 4)
    0.6667
    """
    confusion(answers, right, labels)  # refuses columns that can't be compared
    pairs = [(a, r) for a, r in zip(answers, right, strict=True) if r is not None]
    hits = Counter(r for a, r in pairs if a == r)
    given, wanted = Counter(a for a, _ in pairs), Counter(r for _, r in pairs)
    scores = [2 * hits[x] / (given[x] + wanted[x]) for x in labels if given[x] + wanted[x]]
    return sum(scores) / len(scores) if scores else None


def two_by_two(
    answers: Sequence[str | None], teacher: Sequence[str | None], gold: Sequence[str | None]
) -> TwoByTwo:
    """
    Where the teacher is right or wrong against where the student follows it.

    Args:
        answers: the student's label for each row.
        teacher: the teacher's label for each row.
        gold: the true label, None where nobody knows it: such rows are left out.

    Returns: four counts over the rows with gold.
    Raises: MeasureError for columns of different length.
    Source: counting.

    >>> two_by_two(["a", "b", "a"], ["a", "a", "b"], ["a", "a", None])
    TwoByTwo(right_agree=1, right_differ=1, wrong_agree=0, wrong_differ=0)
    """
    _same_length(answers, teacher)
    _same_length(answers, gold)
    known = [row for row in zip(answers, teacher, gold, strict=True) if row[2] is not None]
    seen = Counter((t == g, a == t) for a, t, g in known)
    return TwoByTwo(
        right_agree=seen[True, True],
        right_differ=seen[True, False],
        wrong_agree=seen[False, True],
        wrong_differ=seen[False, False],
    )
