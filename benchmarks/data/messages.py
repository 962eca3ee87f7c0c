"""Short messages with planted near-duplicates, seeded: any number of rows, written as they are drawn."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TextIO

PLANTED = 0.3
"""Share of rows that are an edit of an earlier row."""
SESSIONS = 0.5
"""Share of rows that belong to a session."""
CLOSE = 0.8
"""Least Jaccard similarity of a planted pair."""
START = datetime(2025, 3, 1, tzinfo=UTC)
SYLLABLES = [a + b for a in "bcdfghjklmnprstvwz" for b in ("a", "e", "i", "o", "u", "an", "er", "il", "on", "ut")]
CHANNELS, TIERS, LANGUAGES = ("email", "chat", "phone", "app"), ("guest", "plus", "business"), ("en", "de", "es")
RECENT = 5_000  # edits are drawn from so many earlier originals: memory stays bounded


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One drawn row."""

    text: str
    original: int
    """Position of the row that this one is an edit of; -1 for an original."""


def vocabulary(size: int = 8_000) -> list[str]:
    """Made-up words of two to four syllables, each once."""
    rng = random.Random(0)
    found: dict[str, None] = {}
    while len(found) < size:
        found["".join(rng.choices(SYLLABLES, k=rng.choice((2, 2, 3, 4))))] = None
    return list(found)


def messages(n: int, seed: int = 0) -> Iterator[Message]:
    """
    Rows that speak like one inbox: 6 to 28 words, common words far more common than rare ones, half of them opening
    with one of 400 stock phrases; three in ten are edits of an earlier row that leave `CLOSE` or more of it.

    An edit changes one word where there are at least 12 distinct ones, else case, marks or one letter of a long text.
    """
    rng = random.Random(seed)
    words = vocabulary()
    cumulative, total = [], 0.0
    for rank in range(len(words)):
        total += 1.0 / (rank + 8)
        cumulative.append(total)
    stock = [" ".join(rng.choices(words, cum_weights=cumulative, k=rng.randint(3, 7))) for _ in range(400)]
    recent: list[tuple[int, str]] = []
    for i in range(n):
        if recent and rng.random() < PLANTED:
            at, text = recent[rng.randrange(len(recent))]
            yield Message(text=_edited(text, rng, words), original=at)
            continue
        body = " ".join(rng.choices(words, cum_weights=cumulative, k=rng.randint(6, 24)))
        text = f"{rng.choice(stock)} {body}" if rng.random() < 0.5 else body
        if len(recent) < RECENT:
            recent.append((i, text))
        else:
            recent[rng.randrange(RECENT)] = (i, text)
        yield Message(text=text, original=-1)


def _edited(text: str, rng: random.Random, words: list[str]) -> str:
    parts = text.split()
    if len(set(parts)) >= 12 and rng.random() < 0.8:
        parts[rng.randrange(len(parts))] = rng.choice(words)
        return " ".join(parts)
    kind = rng.randrange(3)
    if kind == 0:
        return text.capitalize() + rng.choice((".", "!", " ??", " ..."))
    if kind == 1:
        return text.upper().replace(" ", "  ", 1)
    at = rng.randrange(1, len(text) - 1)  # one letter less
    return text[:at] + text[at + 1 :]


def write_log(path: Path, n: int, seed: int = 0) -> None:
    """The rows as a JSONL log with time, session and three attributes, as an importer reads it."""
    rng = random.Random(seed + 1)
    with path.open("w", encoding="utf-8") as out:
        for i, message in enumerate(messages(n, seed)):
            _line(out, i, message, rng)


def _line(out: TextIO, i: int, message: Message, rng: random.Random) -> None:
    row = {
        "id": f"r{i}",
        "ts": (START + timedelta(seconds=30 * i)).isoformat(),
        "text": message.text,
        "session": f"s{i // 4}" if rng.random() < SESSIONS else None,
        "channel": rng.choices(CHANNELS, (5, 3, 1, 1))[0],
        "tier": rng.choices(TIERS, (7, 2, 1))[0],
        "language": rng.choices(LANGUAGES, (8, 1, 1))[0],
    }
    out.write(json.dumps({k: v for k, v in row.items() if v is not None}) + "\n")
