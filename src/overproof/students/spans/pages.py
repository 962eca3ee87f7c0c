"""A text as tokens that keep its lines and columns: what an encoder reads, and which characters each token stands for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from overproof.students.normalise import normalise

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MARKS = ("[unused1]", "[unused2]", "[unused3]")
"""Tokens of the vocabulary that nobody uses: they stand for a line's end, a gap between columns, an empty line."""
LIKE = (";", "|", ";")
"""Tokens whose embedding the marks start from."""
MOST_TOKENS = 8192  # a text's further tokens are left out, and counted
LONGEST_WORD = 200  # characters; the rest of a longer word is not shown to the tokenizer
_RULE = re.compile(r"([^\w\s])\1{3,}")
_GAP = re.compile(r"\s{2,}|\t")
_WORD = re.compile(r"[€£¥₹]|[^\s€£¥₹]+")  # the tokenizer would glue these signs to the amount behind them


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """One text, folded and cut into tokens."""

    text: str
    """Lines end in a line feed, columns are two spaces apart, rules of repeated signs are one sign long."""
    tokens: NDArray[np.int64]
    """Shape (t,), vocabulary ids, without the first and last special token."""
    starts: NDArray[np.int64]
    """Shape (t,), first character of each token in `text`."""
    ends: NDArray[np.int64]
    """Shape (t,), one past its last character; as `starts` for marks."""
    cut: int = 0
    """Tokens that were left out at the end."""


def fold(text: str) -> str:
    """
    The text that is read: as `normalise` folds it, but lines and columns stay.

    Args:
        text: any text.

    Returns: lines without white space at their ends, never two empty ones in a row; folding it again changes nothing.
    """
    lines = ["  ".join(filter(None, (_RULE.sub(r"\1", normalise(part)) for part in _GAP.split(line)))) for line in text.splitlines()]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n")


class Reader:
    """
    Texts to pages, word by word: a word's pieces don't depend on its neighbours, so each word is cut once.

    Args:
        tokenizer: of a BERT encoder.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._known: dict[str, Any] = {}
        special = [tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]")]
        self.first, self.last = (int(found or 0) for found in special)
        found = [tokenizer.token_to_id(name) for name in MARKS]
        self.marks = tuple(self.last if one is None else int(one) for one in found)

    def read(self, texts: Sequence[str]) -> list[Page]:
        """
        Cut texts into tokens.

        Args:
            texts: any number.

        Returns: one page each.
        """
        folded = [fold(text) for text in texts]
        words = sorted({word[:LONGEST_WORD] for text in folded for word in _WORD.findall(text)} - set(self._known))
        if len(self._known) > 200_000:  # a bound on memory
            self._known.clear()
            words = sorted({word[:LONGEST_WORD] for text in folded for word in _WORD.findall(text)})
        encoded = self.tokenizer.encode_batch(words, add_special_tokens=False)
        self._known.update((word, (one.ids, one.offsets)) for word, one in zip(words, encoded, strict=True))
        return [self._page(text) for text in folded]

    def _page(self, text: str) -> Page:
        tokens: list[int] = []
        places: list[tuple[int, int]] = []
        end = 0
        for found in _WORD.finditer(text):
            between = text[end : found.start()]
            if end and between not in ("", " "):
                tokens.append(self.marks[2 if between.count("\n") > 1 else 0 if "\n" in between else 1])
                places.append((end, end))
            ids, offsets = self._known[found[0][:LONGEST_WORD]]
            tokens += ids
            places += [(found.start() + a, found.start() + b) for a, b in offsets]
            end = found.end()
        kept = np.array(places[:MOST_TOKENS], dtype=np.int64).reshape(-1, 2)
        cut = max(0, len(tokens) - MOST_TOKENS)
        return Page(text=text, tokens=np.array(tokens[:MOST_TOKENS], dtype=np.int64), starts=kept[:, 0], ends=kept[:, 1], cut=cut)


@dataclass(frozen=True, kw_only=True, slots=True)
class Windows:
    """Pages as the rows that an encoder takes."""

    rows: tuple[NDArray[np.int64], ...]
    """Token ids with first and last special token, one row a window."""
    page: NDArray[np.int64]
    """Shape (w,), whose page it is."""
    source: tuple[tuple[NDArray[np.int64], NDArray[np.int64]], ...]
    """For each page: the window and the place in it where each token has the most context around it."""


def windows_of(pages: Sequence[Page], *, first: int, last: int, size: int) -> Windows:
    """
    Cut pages into windows that overlap by a quarter, so that no token is left out.

    Args:
        pages: any number.
        first: id of the token that a row starts with.
        last: id of the token that it ends with.
        size: most tokens in a row, those two included.

    Returns: the rows.
    """
    rows: list[NDArray[np.int64]] = []
    owner: list[int] = []
    source = []
    inner = size - 2
    for at, page in enumerate(pages):
        t = len(page.tokens)
        step = max(1, inner - inner // 4)
        begins = [0] if t <= inner else [*range(0, t - inner, step), t - inner]
        room = np.full(t, -1, dtype=np.int64)
        window, place = np.zeros(t, dtype=np.int64), np.zeros(t, dtype=np.int64)
        for begin in begins:
            piece = page.tokens[begin : begin + inner]
            here = np.arange(len(piece))
            left = here if begin else np.full(len(piece), t)
            right = here[::-1] if begin + len(piece) < t else np.full(len(piece), t)
            better = np.flatnonzero(np.minimum(left, right) > room[begin : begin + len(piece)])
            room[begin + better] = np.minimum(left, right)[better]
            window[begin + better], place[begin + better] = len(rows), better + 1
            rows.append(np.concatenate([[first], piece, [last]]))
            owner.append(at)
        source.append((window, place))
    return Windows(rows=tuple(rows), page=np.array(owner, dtype=np.int64), source=tuple(source))
