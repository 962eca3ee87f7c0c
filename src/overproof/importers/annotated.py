"""What goes to an annotation tool and comes back from it, whatever the tool."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from overproof.errors import DataError

QUESTION = "label"
"""Name of the question, or control, that holds the word."""
MOST_BYTES = 200_000_000
BLIND = "overproof_blind"
AGAIN = "export the file again from the tool and import that"


@dataclass(frozen=True, kw_only=True, slots=True)
class Ticket:
    """One row for people to annotate."""

    digest: str
    request_id: str
    text: str
    queue: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    guess: str = ""
    """A model's answer to show; empty keeps the person blind."""
    model: str = ""
    """Who gave it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Word:
    """One person's word as the tool wrote it down."""

    digest: str
    text: str
    """As the tool has it: one that differs from ours is another row."""
    queue: str
    label: str
    reviewer: str
    seconds: float | None = None
    blind: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotated:
    """A file of a tool, read."""

    words: tuple[Word, ...]
    skipped: Mapping[str, int]
    """Why an annotation is no word, to how many."""
    rows: int
    """Rows in the file, with a word or without."""


class Reading:
    """
    Words and what was skipped, while a file is read.

    Args:
        rows: in the file.
    """

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._words: list[Word] = []
        self._skipped: Counter[str] = Counter()

    def add(self, word: Word) -> None:
        """A word."""
        self._words.append(word)

    def skip(self, why: str) -> None:
        """An annotation that is none."""
        self._skipped[why] += 1

    def done(self) -> Annotated:
        """All of it."""
        return Annotated(words=tuple(self._words), skipped=dict(sorted(self._skipped.items())), rows=self._rows)


def objects(data: bytes, tool: str) -> list[dict[str, Any]]:
    """
    The rows of a tool's JSON file.

    Args:
        data: of the file.
        tool: its name, for messages.

    Returns: the objects of the list.
    Raises: DataError where the file is too large or no list of objects.
    """
    if len(data) > MOST_BYTES:
        raise DataError(f"the file is larger than {MOST_BYTES} bytes", next_action="split it")
    try:
        found = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"this is no JSON file of {tool}: {error}"[:300], next_action=AGAIN) from error
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise DataError(f"a file of {tool} is a list of objects, and this is none", next_action=AGAIN)
    return found


def pretty(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows as one JSON list, a line each."""
    return ("[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n").encode("utf-8", "backslashreplace")


def text_of(value: Any) -> str:
    """A text where there is one; anything else counts as none."""
    return value if isinstance(value, str) else ""


def seconds_of(value: Any) -> float | None:
    """A length of time where there is a sound one."""
    sound = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    return float(value) if sound else None
