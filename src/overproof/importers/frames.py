"""Prompts taken apart: the frame that all calls share, and the variable parts that become input fields."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from overproof.errors import DataError

LEAST_FIT = 0.95
"""A learned frame has to fit so much of the sample."""
LEAST_SAMPLE = 20
"""Fewer prompts share words by chance."""
_MARKS = frozenset("\n\t:<>|#{}[]=\"'`*-")
"""A separator between two parts carries one of these; plain words that many messages share are content."""
_LEAST_SEPARATOR = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """A prompt with places, cut into what is fixed and what varies."""

    fixed: tuple[str, ...]
    """One more than places: before the first, between, after the last."""
    places: tuple[str, ...]
    """Input field names in the order of their places."""
    open_end: bool = False
    """Whether further fields follow the filled prompt after a blank line."""

    @classmethod
    def of(cls, template: str, names: Sequence[str], *, open_end: bool = False) -> Frame:
        """
        The frame that a template describes.

        Args:
            template: text with `{name}` where a field goes; other braces are plain text.
            names: the fields that have a place in it.
            open_end: whether further fields follow after a blank line.

        Returns: the frame.
        """
        pieces = re.split("{(" + "|".join(map(re.escape, names)) + ")}", template.strip())
        return cls(fixed=tuple(pieces[::2]), places=tuple(pieces[1::2]), open_end=open_end)

    @property
    def template(self) -> str:
        """The frame as one text with `{name}` at its places."""
        places = (f"{{{name}}}" for name in self.places)
        return "".join(a + b for a, b in itertools.zip_longest(self.fixed, places, fillvalue=""))

    def apart(self, text: str) -> tuple[dict[str, str], str] | None:
        """
        The fields of a filled prompt and what follows it; one pass, since callers choose the text.

        Args:
            text: a whole message.

        Returns: field to text, and the rest; None where the text doesn't fit.
        """
        text = text.strip()
        found: dict[str, str] = {}
        fits, start = text.startswith(self.fixed[0]), len(self.fixed[0])
        for i, name in enumerate(self.places):
            fixed = self.fixed[i + 1]
            if i + 1 < len(self.places):
                end = text.find(fixed, start)
            elif self.open_end:
                end = text.find(fixed + "\n\n", start)
            else:
                end = len(text) - len(fixed) if text.endswith(fixed) else -1
            value = text[start:end]
            fits = fits and end >= start and found.setdefault(name, value) == value
            start = end + len(fixed)
        return (found, text[start + 2 :]) if fits else None


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnedFrame:
    """A frame that was found in a sample of prompts, with what speaks for it."""

    frame: Frame
    n: int
    """Prompts in the sample."""
    fitting: int
    """How many of them the frame takes apart."""
    examples: tuple[dict[str, str], ...]
    """The fields of three prompts, spread over the sample."""
    by_name: bool
    """True where the words before each place name the field; else places take the fields in the task's order."""


def declared(template: str, fields: Sequence[str]) -> Frame:
    """
    The frame of a template that the user wrote.

    Args:
        template: text with `{field}` once or more for each field.
        fields: the task's input fields, all of which need a place.

    Returns: the frame.
    Raises: DataError where a field has no place, or two places touch.
    """
    missing = [name for name in fields if "{" + name + "}" not in template]
    if missing:
        raise DataError(
            f"the template has no place {{{missing[0]}}}", next_action="write {field} for each input field of the task"
        )
    frame = Frame.of(template, fields)
    if "" in frame.fixed[1:-1]:
        raise DataError(
            "two places of the template touch; nothing says where one field ends", next_action="put fixed text between them"
        )
    return frame


def learn(texts: Sequence[str], fields: Sequence[str]) -> LearnedFrame:
    """
    The fixed frame that nearly all prompts share.

    Args:
        texts: whole prompts, at least `LEAST_SAMPLE`.
        fields: the task's input fields; the frame must have as many variable parts.

    Returns: the frame, and how much of the sample it fits.
    Raises: DataError where there are too few prompts, no frame, another number of variable parts, or less than
        `LEAST_FIT` of the sample fits.
    """
    texts = [text.strip() for text in texts]
    if len(texts) < LEAST_SAMPLE:
        raise DataError(
            f"{len(texts)} prompts are too few to learn a frame from; {LEAST_SAMPLE} are needed",
            next_action="write the template yourself: [traffic] template, or --template",
        )
    pieces = _pieces(texts)
    names, by_name = _named(pieces, fields)
    frame = Frame(fixed=tuple(pieces), places=tuple(names))
    shown = frame.template
    if not any(pieces):
        raise _refusal("the prompts share no fixed text, so the whole message is the input", shown)
    if len(pieces) - 1 != len(fields):
        raise _refusal(f"the frame has {len(pieces) - 1} variable parts, the task has {len(fields)} input fields", shown)
    if any("{" + name + "}" in piece for name in fields for piece in pieces):
        raise _refusal("the fixed text itself holds a place's name in braces", shown)
    parts = [taken[0] for text in texts if (taken := frame.apart(text)) is not None]
    if len(parts) < LEAST_FIT * len(texts):
        raise _refusal(f"only {len(parts)} of {len(texts)} prompts fit the frame, {LEAST_FIT:.0%} are needed", shown)
    spread = tuple(dict.fromkeys((0, len(parts) // 2, len(parts) - 1)))
    return LearnedFrame(
        frame=frame, n=len(texts), fitting=len(parts), by_name=by_name, examples=tuple(parts[i] for i in spread)
    )


def _refusal(why: str, template: str) -> DataError:
    shown = json.dumps(template[:600], ensure_ascii=False)
    return DataError(
        f"no template learned: {why}; found: {shown}", next_action="write it yourself: [traffic] template, or --template"
    )


def _pieces(texts: Sequence[str]) -> list[str]:
    """Fixed texts around and between the variable parts; one more than there are parts."""
    need = math.ceil(LEAST_FIT * len(texts))
    head = _snapped(_shared(texts, need, lambda text, i: text[i] if i < len(text) else ""), keep_end=True)
    inner = [text[len(head) :] for text in texts if text.startswith(head)]
    tail = _shared(inner, need, lambda text, i: text[-1 - i] if i < len(text) else "")[::-1]
    tail = _snapped(tail, keep_end=False)
    middles = [text[: len(text) - len(tail)] for text in inner if text.endswith(tail)]
    return [head, *_separators(middles, need), tail]


def _shared(texts: Sequence[str], need: int, at: Callable[[str, int], str]) -> str:
    """The longest text that `need` of the texts begin with, character by character with the majority."""
    shared: list[str] = []
    alive = list(texts)
    while len(alive) >= need:
        mark, count = Counter(at(text, len(shared)) for text in alive).most_common(1)[0]
        if not mark or count < need:
            break
        alive = [text for text in alive if at(text, len(shared)) == mark]
        shared.append(mark)
    return "".join(shared)


def _snapped(text: str, *, keep_end: bool) -> str:
    """Back to the last border of a word: letters that inputs happen to share are not the frame's."""
    if keep_end:
        return re.sub(r"\w+$", "", text)
    return re.sub(r"^\w+", "", text)


def _separators(middles: Sequence[str], need: int) -> list[str]:
    """Texts between the variable parts that nearly all hold once, in order."""
    if len(middles) < need or not middles:
        return []
    probe = sorted(middles, key=len)[len(middles) // 20]  # short texts have few candidates; the very shortest may be odd
    best = ""
    for start in range(len(probe)):
        end = start + max(len(best) + 1, _LEAST_SEPARATOR)
        while end <= len(probe) and _held(probe[start:end], middles, need):
            end += 1  # a longer text is held by fewer, so the longest one is found by growing
        piece = _trimmed_separator(probe[start : end - 1])
        if len(piece) > len(best) and _MARKS & set(piece) and _held(piece, middles, need, once=True):
            best = piece
    if not best:
        return []
    cut = [text.partition(best) for text in middles if text.count(best) == 1]
    left = _separators([a for a, _, _ in cut], need)
    right = _separators([b for _, _, b in cut], need)
    return [*left, best, *right]


def _held(piece: str, middles: Sequence[str], need: int, *, once: bool = False) -> bool:
    missing = len(middles) - need
    for text in middles:
        missing -= (text.count(piece) != 1) if once else (piece not in text)
        if missing < 0:
            return False
    return True


def _trimmed_separator(piece: str) -> str:
    """Without parts of words at its ends that the inputs happen to share."""
    trimmed = re.sub(r"\w+$", "", piece)
    return trimmed if len(trimmed) >= _LEAST_SEPARATOR else ""


def _named(pieces: Sequence[str], fields: Sequence[str]) -> tuple[list[str], bool]:
    """A field for each place: by the word before it where all are found, else in the task's order."""
    lasts = [(re.findall(r"\w+", piece.casefold()) or [""])[-1] for piece in pieces[:-1]]
    table = {name.casefold(): name for name in fields}
    if len(lasts) == len(fields) and sorted(lasts) == sorted(table):
        return [table[word] for word in lasts], True
    extra = [f"part_{i + 1}" for i in range(len(fields), len(pieces) - 1)]
    return [*fields[: len(pieces) - 1], *extra], False
