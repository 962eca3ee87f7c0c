"""
Records and texts against the truth. Fields of one document stand or fall together, so every interval here counts documents.

A share of sums over documents (F1, micro precision, a mean) gets a betting interval, which holds at every n and is never
empty of doubt: a bootstrap says [1, 1] after ten right documents. Counts that are binomial get Clopper-Pearson.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from overproof.errors import MeasureError
from overproof.evidence import Estimate, FieldScore, RecordScores, TextScores
from overproof.measure.intervals import Interval, figure
from overproof.outputs import Fields, Text, chrf

BETTING = "betting over documents"
MOST_STAKE = 0.9  # of what a bet can lose: any share under 1 keeps the capital above zero
TINY = 2.3e-308  # a candidate below the smallest normal float sets no limit
DRAWS = 16
_STEPS = 24  # halvings: ends exact to 6e-8
Floats = NDArray[np.float64]


def ratio_interval(part: ArrayLike, whole: ArrayLike, *, level: float = 0.95, draws: int = DRAWS, seed: int = 0) -> Interval:
    """
    Two-sided interval of E[part] / E[whole] from independent documents, at every n and for any distribution.

    Args:
        part: shape (n,), 0 <= part <= whole.
        whole: shape (n,), at most 1; all ones for the mean of `part`.
        level: confidence, in (0, 1); each end takes half of what is left.
        draws: orders of the documents that the bets are averaged over; more make the ends depend less on the seed.
        seed: of the orders.

    Returns: the ends; [0, 1] where nothing was there to be counted.
    Raises: MeasureError for other shapes, values outside their range, level outside (0, 1) or draws < 1.
    Source: Waudby-Smith and Ramdas 2024, JRSS B 86, 1-27, section 4 (betting, bets for a fixed n), on part - t * whole for
        each candidate t (Fieller 1954); the capital is averaged over orders, which keeps its mean, so Markov's
        inequality bounds the chance of a miss.

    >>> found = ratio_interval([1.0] * 99 + [0.0], [1.0] * 100)
    >>> round(found.low, 3), round(found.high, 3)
    (0.935, 1.0)
    """
    a, b = (np.asarray(values, dtype=np.float64) for values in (part, whole))
    if a.ndim != 1 or a.shape != b.shape or not bool(np.all((a >= 0) & (a <= b) & (b <= 1))):
        raise MeasureError(
            f"a share of sums takes two rows of numbers with 0 <= part <= whole <= 1, got shapes {a.shape!r} and {b.shape!r}",
            next_action="divide both by the most that a document can bring",
        )
    if not 0.0 < level < 1.0 or draws < 1:
        raise MeasureError(f"level {level!r} with {draws!r} draws", next_action="pass a level in (0, 1) and at least one draw")
    if not b.any():
        return Interval(low=0.0, high=1.0)
    order = np.random.default_rng(seed).permuted(np.tile(np.arange(a.size), (draws, 1)), axis=1)
    d = (1.0 - level) / 2.0
    return Interval(low=_lower(a[order], b[order], d), high=1.0 - _lower((b - a)[order], b[order], d))


def _lower(a: Floats, b: Floats, d: float) -> float:
    """Largest share that the bets don't rule out from below; shape (draws, n)."""
    n = a.shape[1]
    before = np.arange(n)
    # What is bet on a document may rest on earlier ones alone.
    share = (np.cumsum(a, axis=1) - a + 0.5) / (np.cumsum(b, axis=1) - b + 1.0)
    moved = (a - share * b) ** 2
    variance = (0.25 + np.cumsum(moved, axis=1) - moved) / (before + 1.0)
    stake = np.sqrt(2.0 * np.log(1.0 / d) / (n * variance))

    def ruled_out(t: float) -> bool:
        gains = np.log1p(np.minimum(stake, MOST_STAKE / max(t, TINY)) * (a - t * b)).sum(axis=1)
        top = float(gains.max())
        return bool(top + np.log(np.mean(np.exp(gains - top))) >= -np.log(d))

    low, high = 0.0, float(a[0].sum() / b[0].sum())  # the capital falls as t rises
    if not high:
        return 0.0
    for _ in range(_STEPS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if ruled_out(middle) else (low, middle)
    return low


def field_scores(
    kind: Fields, answers: Sequence[str | None], truths: Sequence[str], *, level: float = 0.95, draws: int = DRAWS, seed: int = 0
) -> RecordScores:
    """
    Precision, recall and F1 of each field and of all together; null means that a field is not given.

    Args:
        kind: the fields.
        answers: canonical records, None where there is no answer: it gives no field.
        truths: canonical records, one for each answer.
        level: confidence of each interval by itself.
        draws: see `ratio_interval`.
        seed: see `ratio_interval`.

    Returns: the figures. A value given counts as a hit where both values are equal; null and null count as neither. A wrong
        value is one given and one wanted, so it costs twice.
    Raises: MeasureError for columns of different length or a record that is not canonical.
    Source: slot F1 as in Makhoul et al. 1999, "Performance measures for information extraction"; `ratio_interval` for sums
        over documents, Clopper and Pearson 1934 for counts that are binomial.

    >>> from overproof.outputs import Field
    >>> kind = Fields(fields=(Field(name="a", optional=True),))
    >>> found = field_scores(kind, ['{"a": "x"}', '{"a": null}'], ['{"a": "x"}', '{"a": "y"}'])
    >>> found.fields[0].precision.value, found.fields[0].recall.value, round(found.f1.value, 3), found.exact.good
    (1.0, 0.5, 0.667, 1)
    """
    _paired(answers, truths)
    hits, given, wanted = _slots(kind, answers, truths)
    n, k = hits.shape
    share = partial(_share, level=level, draws=draws, seed=seed)
    fields = []
    for at, one in enumerate(kind.fields):
        hit, ours, theirs = hits[:, at], given[:, at], wanted[:, at]
        fields.append(
            FieldScore(
                name=one.name,
                precision=figure(int(hit.sum()), int(ours.sum()), metric="precision", level=level),
                recall=figure(int(hit.sum()), int(theirs.sum()), metric="recall", level=level),
                f1=share("f1", hit, (ours + theirs) / 2.0),
                same=figure(int((hit + (1 - ours) * (1 - theirs)).sum()), n, metric="same", level=level),
            )
        )
    hit, ours, theirs = (table.sum(axis=1) / k for table in (hits, given, wanted))
    right = sum(answer is not None and kind.equal(answer, truth) for answer, truth in zip(answers, truths, strict=True))
    return RecordScores(
        fields=tuple(fields),
        precision=share("precision", hit, ours),
        recall=share("recall", hit, theirs),
        f1=share("f1", hit, (ours + theirs) / 2.0),
        exact=figure(right, n, metric="exact", level=level),
        n=n,
    )


def text_scores(
    kind: Text, answers: Sequence[str | None], truths: Sequence[str], *, level: float = 0.95, draws: int = DRAWS, seed: int = 0
) -> TextScores:
    """
    How close texts come to reference texts; closeness is not quality, which takes a judge (`measure.text_judge`).

    Args:
        kind: the task's own similarity.
        answers: texts, None where there is no answer: its similarity is 0.
        truths: the references, one for each answer.
        level: confidence of each interval by itself.
        draws: see `ratio_interval`.
        seed: see `ratio_interval`.

    Returns: the figures.
    Raises: MeasureError for columns of different length.
    Source: chrF of Popović 2015, ROUGE-L of Lin 2004; means with `ratio_interval`.

    >>> found = text_scores(Text(), ["a red door", None], ["a red door", "two cats"])
    >>> found.similarity.value, found.same.good, found.rouge_l.value, found.n
    (0.5, 1, 0.5, 2)
    """
    _paired(answers, truths)
    pairs = list(zip(answers, truths, strict=True))
    ones = np.ones(len(pairs))
    share = partial(_share, level=level, draws=draws, seed=seed)
    alike, words, grams = (
        np.array([0.0 if ours is None else min(1.0, of(ours, theirs)) for ours, theirs in pairs])
        for of in (kind.similarity, rouge_l, chrf)
    )
    same = sum(ours is not None and kind.equal(ours, theirs) for ours, theirs in pairs)
    return TextScores(
        similarity=share("similarity", alike, ones),
        same=figure(same, len(pairs), metric="same", level=level),
        rouge_l=share("rouge_l", words, ones),
        chrf=share("chrf", grams, ones),
        n=len(pairs),
    )


def rouge_l(answer: str, reference: str) -> float:
    """
    F-measure of the longest common subsequence of words, case and punctuation apart.

    Args:
        answer: the text that is judged.
        reference: what it is compared with.

    Returns: in [0, 1]; 1 where neither has a word.
    Raises: nothing.
    Source: Lin 2004, "ROUGE: a package for automatic evaluation of summaries", equation 4 with equal weights; the subsequence
        by bit vectors, Hyyrö 2004.

    >>> round(rouge_l("the cat sat", "The cat lay down."), 3)
    0.571
    """
    ours, theirs = (re.findall(r"\w+", text.casefold()) for text in (answer, reference))
    if not ours or not theirs:
        return float(ours == theirs)
    places: dict[str, int] = {}
    for at, word in enumerate(theirs):
        places[word] = places.get(word, 0) | 1 << at
    full = (1 << len(theirs)) - 1
    row = full
    for word in ours:
        here = row & places.get(word, 0)
        row = ((row + here) | (row - here)) & full
    return 2.0 * (len(theirs) - row.bit_count()) / (len(ours) + len(theirs))


def _paired(answers: Sequence[object], truths: Sequence[object]) -> None:
    if len(answers) != len(truths):
        raise MeasureError(
            f"both columns must have one row for each document, got {len(answers)} and {len(truths)}",
            next_action="pass them in the order of one set",
        )


def _share(metric: str, part: Floats, whole: Floats, *, level: float, draws: int, seed: int) -> Estimate:
    ends = ratio_interval(part, whole, level=level, draws=draws, seed=seed)
    value = float(part.sum() / whole.sum()) if whole.any() else None
    return Estimate(metric=metric, value=value, low=ends.low, high=ends.high, level=level, method=BETTING, n=len(part))


def _slots(kind: Fields, answers: Sequence[str | None], truths: Sequence[str]) -> tuple[Floats, Floats, Floats]:
    """Hits, values given, values wanted: shape (n, fields) each."""
    table = np.zeros((3, len(truths), len(kind.fields)))
    for row, (answer, truth) in enumerate(zip(answers, truths, strict=True)):
        ours, theirs = {} if answer is None else _values(kind, answer), _values(kind, truth)
        for at, one in enumerate(kind.fields):
            left, right = ours.get(one.name), theirs.get(one.name)
            hit = left is not None and right is not None and one.equal(left, right)
            table[:, row, at] = hit, left is not None, right is not None
    return table[0], table[1], table[2]


def _values(kind: Fields, canonical: str) -> dict[str, Any]:
    try:
        found = kind.values(canonical)
        if all(value is None or isinstance(value, str | Decimal) for value in found.values()):
            return found
    except (TypeError, ValueError):
        pass
    raise MeasureError(f"{canonical[:80]!r} is no record", next_action="pass what `Fields.parse` returned")
