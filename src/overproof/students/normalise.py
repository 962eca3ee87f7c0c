"""The one text normaliser that every student applies, when it learns and when it answers."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

from overproof.data import Request
from overproof.errors import DataError
from overproof.students.lookalikes import LOOSE, STRICT

# A change of what `normalise` returns is a new name: folders say which one they were fitted with.
NORMALISER = "nfkc.v2"
WORD = re.compile(r"(?:[^\W\d_]|[\u0300-\u036f])+")
# Struck through, ringed, boxed: no language writes so, and every letter of a text can be given one.
OVERLAYS = re.compile("[\u0334-\u0338\u0489\u20d0-\u20ff]")
# Vietnamese and Yoruba put two marks on a Latin letter, old Greek three on a Greek one; more hide the letter.
MARKS = "[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\ufe20-\ufe2f]"
PILE = re.compile(f"(?<=[A-Za-z]){MARKS}{{3,}}|{MARKS}{{4,}}")
SUSPECT = re.compile(f"[{''.join(LOOSE)}]")
SCRIPTS = {"LATIN": "latin", "CYRILLIC": "cyrillic", "GREEK": "greek", "ARMENIAN": "armenian", "CHEROKEE": "cherokee"}


@lru_cache(maxsize=4096)
def _mark(character: str) -> str:
    if character.isspace():
        return " "
    # Cc and Cf: control, zero-width, bidirectional and tag characters, invisible to a reader and free for an
    # attacker. Cs: half a surrogate pair, which no tokenizer accepts.
    return "" if unicodedata.category(character) in ("Cc", "Cf", "Cs") else character


@lru_cache(maxsize=4096)
def _script(character: str) -> str:
    if not character.isalpha():
        return ""
    return SCRIPTS.get(unicodedata.name(character, "OTHER").split()[0], "other")


def _latin(word: str, table: dict[str, str]) -> str:
    return "".join(table.get(character, character) for character in word)


def _unmask(text: str) -> str:
    """
    Look-alikes of Latin letters as the letters that a reader sees.

    A word that mixes scripts is folded, since no language writes one. A word of look-alikes alone is folded in a text with
    Latin letters, unless a letter that is nobody's double shows that its script is spoken there; in a text without either only
    if nothing in it could be anything else.
    """

    def mixed(found: re.Match[str]) -> str:
        word = found[0]
        return _latin(word, LOOSE) if len({_script(character) for character in word} - {""}) > 1 else word

    text = WORD.sub(mixed, text)
    letters = [character for character in text if character.isalpha()]
    plain = {_script(letter) for letter in letters if letter not in LOOSE}
    if "latin" not in plain:
        return _latin(text, STRICT) if not plain and all(letter in STRICT for letter in letters) else text

    def disguised(found: re.Match[str]) -> str:
        word = found[0]
        masked = all(c in LOOSE or not c.isalpha() for c in word) and not plain & {_script(c) for c in word}
        return _latin(word, LOOSE) if masked else word

    return WORD.sub(disguised, text)


def _fold_1(text: str) -> str:
    if not (text.isascii() and text.isprintable()):
        text = unicodedata.normalize("NFKC", "".join(map(_mark, text)))
    return " ".join(text.split())


def _fold_2(text: str) -> str:
    if text.isascii() and text.isprintable():
        return " ".join(text.split())
    apart = unicodedata.normalize("NFKD", "".join(map(_mark, text)))
    text = unicodedata.normalize("NFKC", PILE.sub("", OVERLAYS.sub("", apart)))
    if SUSPECT.search(text):
        text = unicodedata.normalize("NFKC", _unmask(text))
    return " ".join(text.split())


NORMALISERS: dict[str, Callable[[str], str]] = {"nfkc.v1": _fold_1, "nfkc.v2": _fold_2}


def normalise(text: str, name: str = NORMALISER) -> str:
    """
    Fold spellings that look alike to a reader.

    NFKC, invisible characters out, piles of combining marks out, letters of other scripts that stand for Latin ones to those,
    white space to single spaces.

    Args:
        text: any text, lone surrogates included.
        name: which of `NORMALISERS`; a student that was fitted with an older one goes on with it.

    Returns: the folded text; folding it again changes nothing.
    Raises: DataError for a name that there is not.
    """
    if name not in NORMALISERS:
        raise DataError(f"no normaliser {name!r}; there are {', '.join(NORMALISERS)}", next_action="use the version of overproof that fitted the student, or a newer one")
    return NORMALISERS[name](text)


def text_of(request: Request, name: str = NORMALISER) -> str:
    """
    What a student reads of a request.

    Args:
        request: any request.
        name: see `normalise`.

    Returns: all fields in their own order, joined and normalised.
    """
    return normalise(request.text, name)
