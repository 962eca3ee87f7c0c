"""How well the detectors do on texts whose entities are known: counts, from which a caller makes intervals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from overproof.privacy.found import Found
from overproof.privacy.patterns import DETECTORS
from overproof.privacy.redact import Policy, Redactor

BREAK = "\u00b7"
"""Stands inside the made secrets of a case file, so that no scanner takes them for real ones; removed on reading."""
CATEGORY_OF = {d.name: d.category for d in DETECTORS}


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One text and all that should be found in it."""

    text: str
    """The message."""
    language: str
    """Two letters."""
    entities: tuple[tuple[str, str], ...]
    """(kind, the very characters) each; empty for a hard negative."""
    like: str = ""
    """For a hard negative: what it is instead."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TypeScore:
    """What was found of one category."""

    category: str
    """For example "phone"."""
    expected: int
    """Entities in the texts."""
    found: int
    """Of those, wholly replaced."""
    claimed: int
    """Spans that were given this category."""
    right: int
    """Of those, ones that touch an entity of this category."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """All categories, and what went wrong."""

    types: tuple[TypeScore, ...]
    """One for each category, in the detectors' order."""
    negatives: int
    """Texts without any entity."""
    false_alarms: int
    """Of those, texts in which something was found."""
    missed: tuple[str, ...]
    """"KIND: TEXT" for each entity that was not wholly replaced."""
    alarms: tuple[str, ...]
    """"KIND: FOUND in TEXT" for each span that is no entity."""


def read_cases(path: Path) -> list[Case]:
    """
    Cases from JSON lines of `text`, `lang`, `entities` (each `type` and `value`) and, for hard negatives, `like`.

    Args:
        path: the file.

    Returns: the cases.
    """
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        entities = tuple((one["type"], one["value"].replace(BREAK, "")) for one in row["entities"])
        text = row["text"].replace(BREAK, "")
        found.append(Case(text=text, language=row["lang"], entities=entities, like=row.get("like", "")))
    return found


def score(cases: Sequence[Case], *, redactor: Redactor | None = None) -> Scored:
    """
    Find everything in every text and compare.

    Args:
        cases: texts with their entities.
        redactor: whose detectors; all of the built-in ones where absent.

    Returns: counts by category. An entity counts as found only where all of its characters are replaced.
    """
    redactor = redactor or Redactor(Policy(mode="mask"))
    tally = {category: [0, 0, 0, 0] for category in dict.fromkeys(CATEGORY_OF.values())}
    missed, alarms, false_alarms = [], [], 0
    for case in cases:
        found = redactor.find(case.text)
        spans = []
        for kind, value in case.entities:
            start = case.text.index(value)
            spans.append((CATEGORY_OF[kind], start, start + len(value)))
            whole = any(one.start <= start and start + len(value) <= one.end for one in found)
            tally[CATEGORY_OF[kind]][0] += 1
            tally[CATEGORY_OF[kind]][1] += whole
            if not whole:
                missed.append(f"{kind}: {case.text}")
        for one in found:
            category = CATEGORY_OF[one.name]
            right = any(c == category and _touch(one, start, end) for c, start, end in spans)
            tally[category][2] += 1
            tally[category][3] += right
            if not right:
                alarms.append(f"{one.name}: {case.text[one.start : one.end]!r} in {case.text}")
        false_alarms += bool(found) and not case.entities
    return Scored(
        types=tuple(
            TypeScore(category=name, expected=n[0], found=n[1], claimed=n[2], right=n[3]) for name, n in tally.items()
        ),
        negatives=sum(not case.entities for case in cases),
        false_alarms=false_alarms,
        missed=tuple(missed),
        alarms=tuple(alarms),
    )


def _touch(one: Found, start: int, end: int) -> bool:
    return one.start < end and start < one.end
