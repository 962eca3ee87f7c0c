"""Word and character n-grams: one analyzer and one TF-IDF for fitting and for answering."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from overproof.errors import DataError
from overproof.progress import track
from overproof.students.files import AGAIN, MAX_TABLE_BYTES, read_json, write_json

Analyzer = Literal["word", "char_wb"]
VOCABULARY = "vocabulary.json"
_WORD = re.compile(r"\b\w+\b")


def grams(text: str, analyzer: Analyzer, low: int, high: int) -> list[str]:
    """
    The n-grams of a text, in scikit-learn's own order and number.

    Args:
        text: lower-cased text.
        analyzer: "word" (runs of word characters, joined by a space) or "char_wb" (characters inside a word with a
            space on either side).
        low: smallest n, at least 1.
        high: largest n.

    Returns: every occurrence.
    """
    if analyzer == "word":
        words: list[str] = _WORD.findall(text)
        found = list(words) if low == 1 else []
        for n in range(max(low, 2), min(high, len(words)) + 1):
            found += [" ".join(words[i : i + n]) for i in range(len(words) - n + 1)]
        return found
    found = []
    for bare in text.split():
        word = f" {bare} "
        for n in range(low, high + 1):
            if n >= len(word):
                found.append(word)
                break
            found += [word[i : i + n] for i in range(len(word) - n + 1)]
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """Which n-grams a block of features counts."""

    analyzer: Analyzer
    low: int
    """Smallest n."""
    high: int
    """Largest n."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SparseRow:
    """The features of one text."""

    indices: NDArray[np.int64]
    """Columns, shape (m,), each once."""
    values: NDArray[np.float64]
    """Shape (m,)."""
    unknown: float = 1.0
    """Share of the text's character n-grams (or words, where there are no others) that no training text had; 1 for none."""


class NgramTable:
    """
    Terms to columns, with their inverse document frequencies.

    Args:
        shapes: one block of columns each.
        terms: the terms of each block, in column order.
        idf: shape (columns,), over all blocks.
    """

    def __init__(self, shapes: Sequence[Shape], terms: Sequence[Sequence[str]], idf: NDArray[np.float64]) -> None:
        self.shapes = tuple(shapes)
        self.terms = tuple(tuple(block) for block in terms)
        self.idf = idf
        self.columns = sum(len(block) for block in self.terms)
        kinds = [shape.analyzer for shape in self.shapes]
        self._watched = kinds.index("char_wb") if "char_wb" in kinds else 0  # noise is made of known letters, not words
        self._index: list[dict[str, int]] = []
        start = 0
        for block in self.terms:
            self._index.append({term: start + i for i, term in enumerate(block)})
            start += len(block)

    def counts(self, text: str) -> list[Counter[int]]:
        """
        How often each known term occurs.

        Args:
            text: normalised text.

        Returns: for each block, column to count.
        """
        found = self._every(text)
        for block in found:
            block.pop(None, None)
        return found

    def _every(self, text: str) -> list[Counter[Any]]:
        """The counts, with all unknown terms together under None."""
        lowered = text.lower()
        return [
            Counter(map(index.get, grams(lowered, shape.analyzer, shape.low, shape.high)))
            for shape, index in zip(self.shapes, self._index, strict=True)
        ]

    def encode(self, text: str) -> SparseRow:
        """
        TF-IDF with sublinear counts; each block has length 1, or 0 where no term is known.

        Args:
            text: normalised text.

        Returns: the row.
        """
        indices, values = [], []
        blocks = self._every(text)
        watched = blocks[self._watched]
        total = sum(watched.values())
        unknown = watched[None] / total if total else 1.0
        for block in blocks:
            block.pop(None, None)
            at = np.fromiter(block.keys(), dtype=np.int64, count=len(block))
            value = (1 + np.log(np.fromiter(block.values(), dtype=np.float64, count=len(block)))) * self.idf[at]
            norm = np.sqrt(value @ value)
            indices.append(at)
            values.append(value / norm if norm > 0 else value)
        return SparseRow(indices=np.concatenate(indices), values=np.concatenate(values), unknown=unknown)

    def matrix(self, texts: Sequence[str]) -> Any:
        """
        All texts as one matrix, for fitting.

        Args:
            texts: normalised texts.

        Returns: scipy CSR matrix, shape (n, columns), float64.
        """
        from scipy.sparse import csr_matrix

        rows = [self.encode(text) for text in track(texts, "counting n-grams", total=len(texts))]
        ends = np.cumsum([0, *(len(row.indices) for row in rows)])
        values = np.concatenate([row.values for row in rows])
        indices = np.concatenate([row.indices for row in rows])
        made = csr_matrix((values, indices, ends), shape=(len(rows), self.columns))
        made.sort_indices()
        return made

    def save(self, folder: Path) -> None:
        """
        Write the terms; `idf` goes with the caller's arrays.

        Args:
            folder: an existing folder.
        """
        blocks = [
            {"analyzer": s.analyzer, "low": s.low, "high": s.high, "terms": list(t)}
            for s, t in zip(self.shapes, self.terms, strict=True)
        ]
        write_json(folder / VOCABULARY, {"format": "overproof.vocabulary.v1", "blocks": blocks})

    @classmethod
    def load(cls, folder: Path, idf: NDArray[np.float64]) -> NgramTable:
        """
        Read what `save` wrote.

        Args:
            folder: the student's folder.
            idf: shape (columns,).

        Returns: the table.
        Raises: DataError.
        """
        raw = read_json(folder / VOCABULARY, max_bytes=MAX_TABLE_BYTES)
        try:
            shapes = [_shape_of(block) for block in raw["blocks"]]
            table = cls(shapes, [[str(term) for term in block["terms"]] for block in raw["blocks"]], idf)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{VOCABULARY} is not a vocabulary: {error}", next_action=AGAIN) from error
        if table.columns != len(idf):
            raise DataError(f"{VOCABULARY} has {table.columns} terms for {len(idf)} columns", next_action=AGAIN)
        return table


def _shape_of(raw: Any) -> Shape:
    shape = Shape(analyzer=raw["analyzer"], low=int(raw["low"]), high=int(raw["high"]))
    if shape.analyzer not in ("word", "char_wb") or not 1 <= shape.low <= shape.high <= 10:
        raise ValueError(f"no such n-grams: {shape}")
    return shape


def learn(texts: Sequence[str], shapes: Iterable[Shape], *, min_df: int, max_terms: int) -> NgramTable:
    """
    Collect the terms of a training set.

    Args:
        texts: normalised texts, at least one.
        shapes: the blocks.
        min_df: terms of fewer texts are left out, unless a block would stay empty.
        max_terms: the most frequent terms are kept, this many for each block.

    Returns: the table; idf is ln((1 + n) / (1 + df)) + 1.
    """
    shapes = tuple(shapes)
    terms, idf = [], []
    for shape in shapes:
        seen: Counter[str] = Counter()
        for text in track(texts, f"collecting {shape.analyzer} n-grams", total=len(texts)):
            seen.update(set(grams(text.lower(), shape.analyzer, shape.low, shape.high)))
        often = [term for term, df in seen.items() if df >= min_df] or list(seen)
        kept = sorted(sorted(often, key=lambda term: (-seen[term], term))[:max_terms])
        terms.append(kept)
        idf.append(np.log((1 + len(texts)) / (1 + np.array([seen[t] for t in kept], dtype=np.float64))) + 1)
    return NgramTable(shapes, terms, np.concatenate(idf))
