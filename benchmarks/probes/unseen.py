"""Stuffing that the gate does not ask for: at the front, with fillers, shuffled, and the words that tell a class best."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from overproof.measure.perturb import Given

TELLING = Path(__file__).with_name("telling.json")  # label to its words, written beside this file before a run


def front(text: str, given: Given, rng: Random) -> str:
    """A wrong label three times, before the message."""
    return " ".join([*[_wrong(given, rng)] * 3, text])


def fillers(text: str, given: Given, rng: Random) -> str:
    """A wrong label three times, in sentences."""
    wrong = _wrong(given, rng)
    return f"{text} Also {wrong}, I mean {wrong}. It is about {wrong}!"


def shuffled(text: str, given: Given, rng: Random) -> str:
    """The words of a wrong label three times, in any order."""
    words = _wrong(given, rng).split() * 3
    rng.shuffle(words)
    return " ".join([text, *words])


def telling(text: str, given: Given, rng: Random) -> str:
    """The four words that tell a wrong class best in the training rows, once each."""
    found = json.loads(TELLING.read_text(encoding="utf-8"))
    return " ".join([text, *found[rng.choice([one for one in sorted(found) if one != given.label])]])


def _wrong(given: Given, rng: Random) -> str:
    return rng.choice([one for one in given.labels if one != given.label]).replace("_", " ").replace("-", " ")
