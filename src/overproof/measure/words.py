"""Words that live traffic uses and the reference does not: exact tests, corrected for all the words that were looked at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import scipy  # its submodules load on first use
from numpy.typing import NDArray

from overproof.errors import MeasureError
from overproof.measure.leakage import normalised
from overproof.measure.minhash import words_of

RARE = 3
"""Reference rows with a word, up to which it still counts as new."""
SHORTEST = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class WordCounts:
    """In how many rows each word occurs."""

    rows: int
    """Independent rows that were counted."""
    counts: Mapping[str, int]
    """Word to rows with it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NewWord:
    """A word that is more frequent than chance explains."""

    word: str
    """Folded, as `told_words` gives it."""
    k: int
    """Live rows with it."""
    n: int
    """Live rows."""
    k_reference: int
    """Reference rows with it."""
    m_reference: int
    """Reference rows."""
    p_value: float
    """Adjusted for all tests."""
    group: int
    """Which of the pairs of counts it was found in."""


def told_words(text: str) -> set[str]:
    """
    The words of a text that can tell something: no numbers, no codes.

    Args:
        text: as it came.

    Returns: folded words of at least three letters.
    Raises: nothing.
    Source: order numbers and amounts are new every day.

    >>> sorted(told_words("Der Akku von NL-4711 ist warm"))
    ['akku', 'der', 'ist', 'von', 'warm']
    """
    return {word for word in words_of(normalised(text)) if len(word) >= SHORTEST and word.isalpha()}


def count_words(texts: Iterable[str]) -> WordCounts:
    """
    Count rows by word.

    Args:
        texts: one for each independent row.

    Returns: the counts.
    Raises: nothing.
    Source: a word said twice in one message is one message with the word.

    >>> count_words(["akku heiß", "akku akku"]).counts["akku"]
    2
    """
    counts: dict[str, int] = {}
    rows = 0
    for text in texts:
        rows += 1
        for word in told_words(text):
            counts[word] = counts.get(word, 0) + 1
    return WordCounts(rows=rows, counts=counts)


def new_words(pairs: Iterable[tuple[WordCounts, WordCounts]], *, tolerance: float, level: float) -> tuple[NewWord, ...]:
    """
    Words that are more frequent in live rows than `tolerance` times their rate in the reference, over several pairs.

    Args:
        pairs: live and reference counts, for example of each slice.
        tolerance: factor, at least 1, that a word's rate may rise by.
        level: chance that any word of any pair is named without cause, in (0, 1).

    Returns: words that at most `RARE` reference rows have, with adjusted p-values at most `level`, the surest first.
    Raises: MeasureError for a level or tolerance outside its range, or counts above their rows.
    Source: conditional test of two rates, Przyborowski and Wilenski 1940, Biometrika 31; for all words of both sides the
        correction of Tarone 1990, Biometrics 46: words too rare to ever be named cost nothing. It counts the frequent
        words too, so that leaving them out afterwards is no selection.

    >>> live, usual = WordCounts(rows=200, counts={"akku": 9, "the": 60}), WordCounts(rows=1000, counts={"the": 300})
    >>> [found.word for found in new_words([(live, usual)], tolerance=1.25, level=0.01)]
    ['akku']
    """
    if not (tolerance >= 1.0 and 0.0 < level < 1.0):
        raise MeasureError(f"tolerance {tolerance!r}, level {level!r}", next_action="give a factor from 1 and a level in (0, 1)")
    tested: list[tuple[int, str, int, int, WordCounts, WordCounts]] = []
    least, seen = [], []
    for group, (live, usual) in enumerate(pairs):
        if not live.rows or not usual.rows:
            continue
        words = list(live.counts.keys() | usual.counts.keys())
        k = np.array([live.counts.get(word, 0) for word in words], dtype=np.float64)
        j = np.array([usual.counts.get(word, 0) for word in words], dtype=np.float64)
        if words and (k.max() > live.rows or j.max() > usual.rows):
            raise MeasureError("a word occurs in more rows than there are", next_action="count each row once")
        q = tolerance * live.rows / (tolerance * live.rows + usual.rows)
        least.append((k + j) * np.log(q))
        seen.append(_tail(k, k + j, q))
        tested += [(group, word, int(a), int(b), live, usual) for word, a, b in zip(words, k, j, strict=True)]
    if not tested:
        return ()
    log_least, p = np.concatenate(least), np.concatenate(seen)
    factor = _tarone(log_least, level)
    found = [
        NewWord(word=word, k=k, n=live.rows, k_reference=j, m_reference=usual.rows, p_value=min(1.0, float(p[at]) * factor), group=group)
        for at, (group, word, k, j, live, usual) in enumerate(tested)
        if j <= RARE and k and log_least[at] <= np.log(level / factor) and p[at] * factor <= level
    ]
    return tuple(sorted(found, key=lambda one: (one.p_value, -one.k, one.word)))


def _tail(k: NDArray[np.float64], total: NDArray[np.float64], q: float) -> NDArray[np.float64]:
    """P(X >= k) for X binomial of total and q."""
    inner = np.where(k > 0, scipy.special.betainc(np.maximum(k, 1.0), np.maximum(total - k + 1.0, 1.0), q), 1.0)
    return np.asarray(inner, dtype=np.float64)


def _tarone(log_least: NDArray[np.float64], level: float) -> int:
    """The least K such that at most K tests could ever reach level / K."""
    ordered = np.sort(log_least)
    factor = 1
    while int(np.searchsorted(ordered, np.log(level / factor), side="right")) > factor:
        factor += 1
    return factor
