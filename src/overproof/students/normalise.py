"""The one text normaliser that every student applies, when it learns and when it answers."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from overproof.data import Request

# A change of what `normalise` returns is a new name: folders say which one they were fitted with.
NORMALISER = "nfkc.v1"


@lru_cache(maxsize=4096)
def _mark(character: str) -> str:
    if character.isspace():
        return " "
    # Cc and Cf: control, zero-width, bidirectional and tag characters, invisible to a reader and free for an
    # attacker. Cs: half a surrogate pair, which no tokenizer accepts.
    return "" if unicodedata.category(character) in ("Cc", "Cf", "Cs") else character


def normalise(text: str) -> str:
    """
    Fold spellings that look alike to a reader: NFKC, invisible characters out, white space to single spaces.

    Args:
        text: any text, lone surrogates included.

    Returns: the folded text; folding it again changes nothing.
    """
    if not (text.isascii() and text.isprintable()):
        text = unicodedata.normalize("NFKC", "".join(map(_mark, text)))
    return " ".join(text.split())


def text_of(request: Request) -> str:
    """
    What a student reads of a request.

    Args:
        request: any request.

    Returns: all fields in their own order, joined and normalised.
    """
    return normalise(request.text)
