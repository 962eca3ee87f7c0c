"""One spelling for what looks alike: full-width digits, invisible characters, dashes; with the way back to the original."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

_ODD = re.compile("[^\x00-\x7f\u00a1-\u00ac\u00ae-\u024f\u2018-\u201f\u2026\u20ac]")
"""Anything but ASCII, Latin letters and common punctuation may hide a digit, a space or nothing at all."""
_ESCAPE = re.compile(r'\\(?:u([0-9a-fA-F]{4})|([nrtbf"\\/]))')
_PLAIN = {"n": "\n", "r": "\r", "t": "\t", "b": " ", "f": " ", '"': '"', "\\": "\\", "/": "/"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Normal:
    """A text to search in, and where each of its characters comes from."""

    text: str
    """What the patterns see."""
    at: tuple[int, ...] | None
    """For each place in `text`, and for its end, the place in the original; None where they are the same."""

    def span(self, start: int, end: int) -> slice:
        """The original's part behind a part of the normalised text."""
        return slice(start, end) if self.at is None else slice(self.at[start], self.at[end])


def is_odd(text: str) -> bool:
    """Whether a text has characters that could hide something."""
    return not text.isascii() and _ODD.search(text) is not None


def normal(text: str, *, escaped: bool = False) -> Normal:
    r"""
    Fold what people and programs vary when they write the same digits.

    Args:
        text: the text as it came.
        escaped: read JSON escapes (\u0040, \n) as the characters that they stand for: a raw log line has them.

    Returns: the folded text with its way back.
    """
    if not is_odd(text) and not (escaped and "\\" in text):
        return Normal(text=text, at=None)
    out: list[str] = []
    at: list[int] = []
    place = 0
    while place < len(text):
        found = _ESCAPE.match(text, place) if escaped and text[place] == "\\" else None
        raw = (chr(int(found[1], 16)) if found[1] else _PLAIN[found[2]]) if found else text[place]
        for c in _fold(raw):
            out.append(c)
            at.append(place)
        place = found.end() if found else place + 1
    at.append(len(text))
    return Normal(text="".join(out), at=tuple(at))


@lru_cache(maxsize=4096)
def _fold(c: str) -> str:
    if c.isascii():
        return c
    kind = unicodedata.category(c)
    if kind in ("Cf", "Mn", "Me"):
        return "" if kind == "Cf" or c in "\ufe0e\ufe0f\u20e3" else c
    if kind == "Nd":
        return str(unicodedata.decimal(c))
    if kind == "Zs":
        return " "
    if kind == "Pd" or c == "\u2212":
        return "-"
    folded = unicodedata.normalize("NFKC", c)
    return folded if len(folded) == 1 else c
