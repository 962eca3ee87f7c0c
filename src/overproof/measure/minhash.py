"""Pairs of texts that may be near-duplicates: MinHash signatures, banded, one band at a time in bounded memory."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from overproof.progress import track

PERMUTATIONS = 120
BAND_ROWS = 5
"""24 bands of 5: a pair at .75 becomes a candidate with chance 1 - (1 - .75^5)^24 = .998, at .85 with 1 - 2e-6."""
WINDOW = 3
"""How many neighbours in a band's bucket are compared. All pairs of a hot bucket would be quadratic in its size;
neighbours are enough, since a bucket is ordered by its rows' next band, a pair meets in many bands, and groups are
joined transitively."""
PREFILTER = 0.15
"""Candidates whose signatures agree less than the threshold minus this are dropped before the exact comparison: over
three standard errors of a Jaccard estimate from 120 permutations."""
STEP = 2_000  # texts whose signatures exist as Python integers at one time
BLOCK = 200_000  # pairs at a time: 2 x 24 MB of signatures
_WORD = re.compile(r"\w+")
_MIX = np.uint64(0x9E3779B97F4A7C15)  # odd multipliers spread code points over 64 bits
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def words_of(text: str) -> list[str]:
    """
    The words of a text, in order.

    Args:
        text: a normalised text: single spaces, none at the ends.

    Returns: maximal runs of letters, digits and underscores.
    Raises: nothing.
    Source: the class of word characters of Unicode Technical Standard 18, as in Python's `re`.

    >>> words_of("where's my order"), words_of("my order")
    (['where', 's', 'my', 'order'], ['my', 'order'])
    """
    # most short messages are letters and spaces alone, and splitting those is six times faster
    return text.split(" ") if text.replace(" ", "").isalnum() else _WORD.findall(text)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sketches:
    """What is kept of each text's signature: enough to find candidates and to judge them roughly."""

    rows: NDArray[np.int64]
    """Shape (m,): positions of the texts that were sketched, rising."""
    bands: NDArray[np.uint32]
    """Shape (24, m): one hash of each band."""
    marks: NDArray[np.uint8]
    """Shape (m, 120): the low byte of each permutation's minimum. Unlike ones agree in 1 of 256 by chance."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SketchPair:
    """The two ways to look at texts: by words where they are long, by character trigrams where they are short."""

    long: Sketches
    """By words."""
    short: Sketches
    """By trigrams."""


def sketch(texts: Sequence[str], *, long_from: int, short_below: float) -> SketchPair:
    """
    Sketches of n texts; a text of medium length has one of each kind.

    Args:
        texts: normalised texts.
        long_from: distinct words from which on a text is compared by words.
        short_below: distinct words below which it is compared by trigrams.

    Returns: the sketches. Time and memory grow linearly: 216 bytes for each text and kind.
    Raises: nothing.
    Source: Broder 1997 (MinHash); the permutations are rensa's.

    >>> found = sketch(["hello there", "good morning"], long_from=12, short_below=18)
    >>> len(found.long.rows), len(found.short.rows)
    (0, 2)
    """
    long, short = _Collector(len(texts)), _Collector(len(texts))
    for start in track(range(0, len(texts), STEP), "near-duplicates", total=-(-len(texts) // STEP)):
        part = texts[start : start + STEP]
        words = [words_of(text) for text in part]
        sizes = np.fromiter((len(set(found)) for found in words), dtype=np.int64, count=len(part))
        wide, narrow = np.flatnonzero(sizes >= long_from), np.flatnonzero(sizes < short_below)
        if len(wide):
            long.add(wide + start, _by_word([words[i] for i in wide.tolist()]))
        if len(narrow):
            padded = [f" {' '.join(words[i])} " if words[i] else part[i] or " " for i in narrow.tolist()]
            short.add(narrow + start, _by_trigram(padded))
    return SketchPair(long=long.done(), short=short.done())


def joined(parts: Iterable[SketchPair], sizes: Sequence[int]) -> SketchPair:
    """
    Sketches of shards as those of all their texts: each text's depends on itself alone.

    Args:
        parts: of consecutive shards; each is let go before the next is asked for.
        sizes: texts of each.

    Returns: the sketches, with positions in the whole.
    Raises: nothing.
    Source: none; MinHash signatures are made text by text.

    >>> texts, how = ["where is my order", "good morning", "hello"], {"long_from": 12, "short_below": 18}
    >>> found = joined([sketch(texts[:2], **how), sketch(texts[2:], **how)], [2, 1])
    >>> np.array_equal(found.short.bands, sketch(texts, **how).short.bands), found.short.rows.tolist()
    (True, [0, 1, 2])
    """
    long, short = _Joiner(sum(sizes)), _Joiner(sum(sizes))
    source = iter(parts)
    for start in itertools.accumulate([0, *sizes[:-1]]):
        part = next(source)
        long.add(part.long, start)
        short.add(part.short, start)
        del part
    return SketchPair(long=long.done(), short=short.done())


class _Joiner:
    """Room for all texts, of which the system gives only what is written on."""

    def __init__(self, most: int) -> None:
        self._n = 0
        self._rows = np.empty(most, dtype=np.int64)
        self._bands = np.empty((PERMUTATIONS // BAND_ROWS, most), dtype=np.uint32)
        self._marks = np.empty((most, PERMUTATIONS), dtype=np.uint8)

    def add(self, part: Sketches, start: int) -> None:
        at = slice(self._n, self._n + len(part.rows))
        self._rows[at], self._bands[:, at], self._marks[at] = part.rows + start, part.bands, part.marks
        self._n = at.stop

    def done(self) -> Sketches:
        """Everything in one piece."""
        return Sketches(rows=self._rows[: self._n], bands=self._bands[:, : self._n], marks=self._marks[: self._n])


class _Collector:
    """
    Gathers sketches chunk by chunk, so that no full signature outlives its chunk.

    Args:
        most: texts at most. Room that is never filled is never touched, and so takes no memory.
    """

    def __init__(self, most: int) -> None:
        self._n = 0
        self._rows = np.empty(most, dtype=np.int64)
        self._bands = np.empty((PERMUTATIONS // BAND_ROWS, most), dtype=np.uint32)
        self._marks = np.empty((most, PERMUTATIONS), dtype=np.uint8)

    def add(self, rows: NDArray[np.int64], signatures: NDArray[np.uint32]) -> None:
        cut = signatures.reshape(len(signatures), -1, BAND_ROWS).astype(np.uint64)
        mixed = np.zeros(cut.shape[:2], dtype=np.uint64)
        for k in range(BAND_ROWS):
            mixed = (mixed ^ cut[:, :, k]) * _MIX
            mixed ^= mixed >> np.uint64(29)
        place = slice(self._n, self._n + len(rows))
        self._rows[place] = rows
        self._bands[:, place] = (mixed >> np.uint64(32)).T
        self._marks[place] = signatures & np.uint32(0xFF)  # the low byte
        self._n += len(rows)

    def done(self) -> Sketches:
        """Everything so far."""
        return Sketches(rows=self._rows[: self._n], bands=self._bands[:, : self._n], marks=self._marks[: self._n])


def _matrix(digests: object, n: int) -> NDArray[np.uint32]:
    flat = itertools.chain.from_iterable(digests.to_rows())  # type: ignore[attr-defined]  # rensa has no types
    return np.fromiter(flat, dtype=np.uint32, count=n * PERMUTATIONS).reshape(n, PERMUTATIONS)


def _by_word(words: list[list[str]]) -> NDArray[np.uint32]:
    import rensa

    found = rensa.RMinHash.digest_matrix_from_token_sets(words, num_perm=PERMUTATIONS, seed=1)
    return _matrix(found, len(words))


def _by_trigram(padded: list[str]) -> NDArray[np.uint32]:
    """Signatures over character trigrams, hashed for all texts at once."""
    import rensa

    code = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    sizes = np.fromiter((len(text) for text in padded), dtype=np.int64, count=len(padded))
    grams = np.maximum(sizes - 2, 1)  # a text of one or two characters is its own trigram
    offsets = np.concatenate([[0], np.cumsum(grams)])
    starts = np.cumsum(sizes) - sizes
    at = np.repeat(starts - offsets[:-1], grams) + np.arange(offsets[-1])
    last = np.repeat(starts + sizes - 1, grams)
    hashed = code[at] + _MIX
    for step, factor in ((1, _FIRST), (2, _SECOND)):
        inside = at + step <= last
        hashed = hashed * factor ^ np.where(inside, code[np.minimum(at + step, len(code) - 1)] + np.uint64(1), np.uint64(0))
        hashed ^= hashed >> np.uint64(31)
    hashed *= _MIX
    hashed ^= hashed >> np.uint64(32)
    found = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
        hashed, offsets.astype(np.uint64), num_perm=PERMUTATIONS, seed=1
    )
    return _matrix(found, len(padded))


def join_candidates(
    sketches: Sketches, parent: NDArray[np.int64], *, threshold: float, same: Callable[[int, int], bool]
) -> None:
    """
    Join the groups of every candidate pair that the exact comparison confirms.

    Args:
        sketches: of the texts to compare.
        parent: shape (n,), a union-find forest over all texts; changed in place. A root has the lowest position.
        threshold: Jaccard similarity that is looked for; candidates far below it are not compared.
        same: the exact comparison, by positions.

    Returns: nothing.
    Raises: nothing of its own.
    Source: Indyk and Motwani 1998 (banding); union-find by Tarjan 1975.

    >>> texts = ["where is my order", "where is my order?", "good morning"]
    >>> forest = np.arange(3)
    >>> found = sketch(texts, long_from=12, short_below=18).short
    >>> join_candidates(found, forest, threshold=0.8, same=lambda a, b: {a, b} == {0, 1})
    >>> forest.tolist()
    [0, 0, 2]
    """
    for left, right in _pairs_by_band(sketches):
        roots = flattened(parent)
        apart = roots[left] != roots[right]  # joined pairs need no comparison: a hot template stays fast
        for a, b in _alike(sketches, left[apart], right[apart], threshold - PREFILTER):
            one, two = root_of(parent, a), root_of(parent, b)
            if one != two and same(a, b):
                parent[max(one, two)] = min(one, two)
    parent[:] = flattened(parent)


def _pairs_by_band(sketches: Sketches) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """For each band, positions of rows that are neighbours in one of its buckets."""
    n, count = len(sketches.rows), len(sketches.bands)
    if n < 2:
        return
    # band hash, then as much of the next band's as fits beside the row's number: one plain sort does it all
    bits = np.uint64((n - 1).bit_length())
    low = np.uint64((1 << int(bits)) - 1)
    for k in range(count):
        near = sketches.bands[(k + 1) % count].astype(np.uint64) >> bits
        key = sketches.bands[k].astype(np.uint64) << np.uint64(32) | near << bits | np.arange(n, dtype=np.uint64)
        key.sort()
        bucket, at = (key >> np.uint64(32)).astype(np.uint32), (key & low).astype(np.int64)
        for gap in range(1, min(WINDOW, n - 1) + 1):
            meet = np.flatnonzero(bucket[gap:] == bucket[:-gap])
            yield sketches.rows[at[meet]], sketches.rows[at[meet + gap]]


def _alike(
    sketches: Sketches, left: NDArray[np.int64], right: NDArray[np.int64], floor: float
) -> Iterator[tuple[int, int]]:
    """The pairs whose signatures agree well enough to be worth the exact comparison."""
    for start in range(0, len(left), BLOCK):
        one, two = left[start : start + BLOCK], right[start : start + BLOCK]
        a, b = np.searchsorted(sketches.rows, one), np.searchsorted(sketches.rows, two)
        close = (sketches.marks[a] == sketches.marks[b]).mean(axis=1) >= floor
        yield from zip(one[close].tolist(), two[close].tolist(), strict=True)


def root_of(parent: NDArray[np.int64], i: int) -> int:
    """
    The root of a position in a union-find forest; shortens the way for the next time.

    Args:
        parent: shape (n,), changed in place.
        i: a position.

    Returns: the root's position.
    Raises: nothing.
    Source: Tarjan 1975, path halving.

    >>> root_of(np.array([0, 0, 1]), 2)
    0
    """
    while (up := int(parent[i])) != i:
        parent[i] = parent[up]
        i = int(parent[i])
    return i


def flattened(parent: NDArray[np.int64]) -> NDArray[np.int64]:
    """
    The root of every position.

    Args:
        parent: shape (n,), a union-find forest.

    Returns: shape (n,), a new array.
    Raises: nothing.
    Source: pointer doubling, JáJá 1992.

    >>> flattened(np.array([0, 0, 1])).tolist()
    [0, 0, 0]
    """
    roots = parent[parent]
    while not np.array_equal(up := roots[roots], roots):
        roots = up
    return roots
