"""Training texts said anew: other layouts, spellings and slips, so that a student learns what is said and not where it stood."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import numpy as np

from overproof.outputs import Fields
from overproof.students.spans.pages import fold
from overproof.students.spans.values import Spelled, dates_in, numbers_in

OFTEN, SELDOM = 0.5, 0.25  # chance of a change to a text; chosen once, on rows that no test reads
SLIP = 0.04  # chance of a slip in a word
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_LABELLED = re.compile(r"^[\W_]*[^\W\d].{0,40}?(?::|  | = ).*\S", re.DOTALL)
_SEPARATOR = re.compile(r"(?<=\w) ?(?::|=) +|(?<=[^\W\d])  (?=\S)")
_SEPARATORS = (": ", "  ", " - ", " = ", " : ", " ")


def said_anew(text: str, record: Mapping[str, Any], *, output: Fields, rng: np.random.Generator) -> tuple[str, dict[str, Any]]:
    """
    Another text that says the same record.

    Args:
        text: a training text.
        record: its values, as `Fields.values` gives them.
        output: the fields.
        rng: source of chance.

    Returns: the text and its record; codes may have other letters and digits in both.
    """
    text, values = fold(text), dict(record)
    if rng.random() < OFTEN:
        text, values = _other_codes(text, values, output, rng)
    if rng.random() < SELDOM:
        text = _other_dates(text, rng)
    if rng.random() < SELDOM:
        text = _other_numbers(text, rng)
    kept = [str(values[field.name]) for field in output.fields if field.type == "text" and values.get(field.name) is not None]
    if rng.random() < OFTEN:
        text = _said_once_less(text, kept, rng)
    if rng.random() < OFTEN:
        text = _slips(text, kept, rng)
    blocks = [_other_layout(block.split("\n"), rng) for block in text.split("\n\n")]
    return "\n\n".join(blocks), values


def _other_codes(text: str, values: dict[str, Any], output: Fields, rng: np.random.Generator) -> tuple[str, dict[str, Any]]:
    """Digits for digits, and capitals for capitals, in every text value with digits, wherever it stands."""
    for field in output.fields:
        value = values.get(field.name)
        if field.type != "text" or value is None or len(value) < 4 or not any(c.isdigit() for c in value):
            continue
        new = "".join(str(rng.integers(10)) if c.isdecimal() else chr(65 + int(rng.integers(26))) if "A" <= c <= "Z" and rng.random() < OFTEN else c for c in value)
        if value in text:
            text, values[field.name] = text.replace(value, new), new
    return text, values


def _said_once_less(text: str, kept: list[str], rng: np.random.Generator) -> str:
    """Without one of the lines that name a text value which another line names too: a heading must not be all that is looked at."""
    lines = text.split("\n")
    for value in kept:
        named = [at for at, line in enumerate(lines) if value in line and not line.startswith(">")]
        bare = [at for at in named if not any(c.isdigit() for c in _without(lines[at], kept))]  # a line with a number may be needed
        if len(named) > 1 and bare and rng.random() < OFTEN:
            at = bare[int(rng.integers(len(bare)))]
            rest = [line for place, line in enumerate(lines) if place != at]
            if all(other not in lines[at] or any(other in line and not line.startswith(">") for line in rest) for other in kept):
                lines = rest
    return "\n".join(lines)


def _without(line: str, kept: list[str]) -> str:
    for value in kept:
        line = line.replace(value, "")
    return line


def _put(text: str, changes: list[tuple[int, int, str]]) -> str:
    end = len(text) + 1
    for start, stop, new in sorted(changes, reverse=True):
        if stop <= end:
            text, end = text[:start] + new + text[stop:], start
    return text


def _other_dates(text: str, rng: np.random.Generator) -> str:
    found = list(dates_in(text))
    if not all(one.sure for one in found):
        return text  # which day is meant only the rest of the text says
    form = int(rng.integers(7))
    marked = any(int(one.value[8:]) > 12 for one in found)
    if form in (5, 6) and not marked:
        form = 0
    return _put(text, [(one.start, one.end, _date(one, form)) for one in found])


def _date(one: Spelled, form: int) -> str:
    day = dt.date.fromisoformat(one.value)
    month = MONTHS[day.month - 1]
    return (
        one.value, f"{day.day:02}.{day.month:02}.{day.year}", f"{day.day} {month} {day.year}", f"{month} {day.day}, {day.year}",
        f"{day.day:02}-{month[:3]}-{day.year}", f"{day.month:02}/{day.day:02}/{day.year}", f"{day.day:02}/{day.month:02}/{day.year}",
    )[form]  # fmt: skip


def _other_numbers(text: str, rng: np.random.Generator) -> str:
    """All amounts with two decimals in one other notation; a text with one that can be read two ways stays."""
    found = [one for one in numbers_in(text) if one.end - one.start > 3 and text[one.end - 3] in ".,"]
    group, mark = ((",", "."), (".", ","), (" ", ","), ("", "."), ("", ","))[int(rng.integers(5))]
    dates = {c for one in dates_in(text) for c in range(one.start, one.end)}
    longest: dict[int, Spelled] = {}
    for one in found:
        if one.start not in dates and (one.end not in longest or one.start < longest[one.end].start):
            longest[one.end] = one
    amounts = [one for one in longest.values() if one.sure or " " in text[one.start : one.end]]
    spelled = [(one.start, one.end, f"{abs(Decimal(one.value)):,.2f}".replace(",", "\0").replace(".", mark).replace("\0", group)) for one in amounts]
    return _put(text, spelled)


def _slips(text: str, kept: list[str], rng: np.random.Generator) -> str:
    """Two letters change places in a few words that are no part of an answer."""
    safe = {c for value in kept for found in re.finditer(re.escape(value), text) for c in range(*found.span())}
    safe |= {c for one in dates_in(text) for c in range(one.start, one.end)}
    changes = []
    for found in re.finditer(r"[^\W\d_]{4,}", text):
        if rng.random() < SLIP and found.start() not in safe:
            at = int(rng.integers(1, len(found[0]) - 1))
            word = found[0]
            changes.append((found.start(), found.end(), word[:at] + word[at + 1] + word[at] + word[at + 2 :]))
    return _put(text, changes)


def _other_layout(lines: list[str], rng: np.random.Generator) -> str:
    """Labelled lines of one block in another order, with other separators, or in one line."""
    places = [at for at, line in enumerate(lines) if _LABELLED.match(line) and not line.startswith(">")]
    if len(places) > 1 and rng.random() < OFTEN:
        moved = [lines[int(at)] for at in rng.permutation(places)]
        for at, line in zip(places, moved, strict=True):
            lines[at] = line
    if places and rng.random() < SELDOM:
        new = _SEPARATORS[int(rng.integers(len(_SEPARATORS)))]
        for at in places:
            lines[at] = _SEPARATOR.sub(new, lines[at], count=1)
    if len(places) == len(lines) > 1 and rng.random() < SELDOM:
        return (" | ", ", ", "; ", "  ")[int(rng.integers(4))].join(lines)
    return "\n".join(lines)
