"""Whether a message is put together: words of two answers in it, or the same words again and again; beside any student of labels."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from overproof.data import Request, TrainSet
from overproof.errors import DataError
from overproof.students.files import AGAIN, read_arrays, write_arrays
from overproof.students.normalise import NORMALISER, text_of
from overproof.students.seen import MIXTURE, REPETITION, TWO_ANSWERS

SCORES = (TWO_ANSWERS, REPETITION)
"""Columns that it brings, the higher, the more put together."""
LETTERS = "\u3040-\u30ff\u3400-\u9fff"
# scripts that put no spaces are read letter by letter
WORD = re.compile(f"[{LETTERS}]|[^\\W{LETTERS}]+")
MOST_WORDS, LEAST_TEXTS = 20_000, 2  # a word of one text may be a name, and the table leaves in a bundle
MOST_LABELS = 10_000
SMOOTHING = 0.3  # .02 to 1 differ by less than two points of what is caught, on messages of 77 labels
CUTS = 64  # a longer message is cut at as many places, evenly
WINDOW, SHORT = 8, 4  # words in which one comes again; shorter words come again in any text


class Mixture:
    """
    How likely each word is in the messages of each label, as a naive Bayes classifier has it.

    Args:
        words: shape (v,), CRC-32 of the words, rising: no word itself is kept.
        table: shape (v, k), log-probability of each word under each label that has training rows.
    """

    def __init__(self, words: NDArray[np.int64], table: NDArray[np.float32]) -> None:
        self._words, self._table = words, table
        self._row = {int(word): at for at, word in enumerate(words)}

    @classmethod
    def of(cls, train: TrainSet) -> Mixture:
        """
        Count the words of the training rows.

        Args:
            train: examples with at least two different targets.

        Returns: the table; a word counts once a message.
        """
        labels = {label: at for at, label in enumerate(sorted({example.target for example in train.examples}))}
        texts = [({*map(_key, _words(text_of(example.request)))}, labels[example.target]) for example in train.examples]
        often = Counter(word for words, _ in texts for word in words)
        kept = [word for word, n in often.most_common(MOST_WORDS) if n >= LEAST_TEXTS]
        known = np.array(sorted(kept), dtype=np.int64)
        row = {int(word): at for at, word in enumerate(known)}
        counts = np.full((len(known), len(labels)), SMOOTHING)
        for words, label in texts:
            counts[[row[word] for word in words if word in row], label] += 1.0
        return cls(known, np.log(counts / np.maximum(counts.sum(axis=0), SMOOTHING)).astype(np.float32))

    def save(self, folder: Path) -> None:
        """
        Write the table.

        Args:
            folder: the student's folder.
        """
        write_arrays(folder / MIXTURE, {"words": self._words, "table": self._table})

    @classmethod
    def load(cls, folder: Path) -> Mixture | None:
        """
        Read what `save` wrote.

        Args:
            folder: the student's folder.

        Returns: the table; None where the file was left out.
        Raises: DataError for arrays that don't fit.
        """
        if not (folder / MIXTURE).exists():
            return None
        found = read_arrays(folder / MIXTURE, {"words": 1, "table": 2})
        words, table = found["words"].astype(np.int64), found["table"].astype(np.float32)
        fits = len(words) == len(table) <= MOST_WORDS and 0 < table.shape[1] <= MOST_LABELS and bool((np.diff(words) > 0).all())
        if not fits or not bool(np.isfinite(table).all()):
            raise DataError(f"{MIXTURE}: words of shape {words.shape} with a table of shape {table.shape} can't be read", next_action=AGAIN)
        return cls(words, table)

    def columns(self, requests: Sequence[Request], normaliser: str = NORMALISER) -> Mapping[str, NDArray[np.float64]]:
        """
        Score requests.

        Args:
            requests: any number.
            normaliser: that of the student.

        Returns: shape (n,) each, by the names in `SCORES`.
        """
        found = np.empty((2, len(requests)))
        for at, request in enumerate(requests):
            words = _words(text_of(request, normaliser))
            found[0, at], found[1, at] = self._two_answers(words), _repetition(words)
        return dict(zip(SCORES, found, strict=True))

    def _two_answers(self, words: Sequence[str]) -> float:
        """Nats by which the message is likelier as two pieces, each of its own label, than as one of a single label."""
        rows = [at for at in map(self._row.get, map(_key, words)) if at is not None]
        if len(rows) < 2:
            return 0.0
        pieces = self._table.take(rows, axis=0)
        if len(rows) > CUTS:
            pieces = np.add.reduceat(pieces, np.unique(np.linspace(0, len(rows), CUTS, endpoint=False).astype(np.int64)), axis=0)
        upto = np.add.accumulate(pieces, axis=0)
        whole, first = upto[-1], upto[:-1]
        apart = np.maximum.reduce(first, axis=1) + np.maximum.reduce(whole - first, axis=1)
        return float(np.maximum.reduce(apart) - np.maximum.reduce(whole))


def _words(text: str) -> list[str]:
    return WORD.findall(text.lower())


def _key(word: str) -> int:
    return crc32(word.encode("utf-8", "replace"))


def _repetition(words: Sequence[str]) -> float:
    """Most words within a stretch of eight that were said in the eight before them."""
    last: dict[str, int] = {}
    again: list[int] = []
    for at, word in enumerate(words):
        if len(word) >= SHORT:
            if at - last.get(word, -WINDOW) < WINDOW:
                again.append(at)
            last[word] = at
    most = first = 0
    for count, at in enumerate(again, start=1):
        while again[first] <= at - WINDOW:
            first += 1
        most = max(most, count - first)
    return float(most)
