"""Mistakes in the user's file as lines for people: table, key, what was found, what is asked."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from overproof import registry

PATTERNS = {r"^[a-z]{2}$": 'write a language as "en"', r"^\d+d$": 'write days as "30d"', r"^(time|attribute:.+)$": 'write "time" or "attribute:NAME"',
            r"^[a-z0-9][a-z0-9-]*$": "write lower-case letters, digits and dashes"}  # fmt: skip


def lines_of(errors: Sequence[Mapping[str, Any]], kind: type, where: str) -> list[str]:
    """
    What the validator found, in our words.

    Args:
        errors: as pydantic lists them.
        kind: the dataclass of the table, for suggestions.
        where: the table as the file writes it, for example "[serve]".

    Returns: one line per key.
    """
    known = [f.name for f in dataclasses.fields(kind)]
    lines: dict[str, str] = {}
    for item in errors:
        key = str(item["loc"][0]) if item["loc"] else ""
        if item["type"] == "literal_error" and len(item["loc"]) > 1 and isinstance(item["loc"][1], str):
            place, line = _in_mapping(item, where)  # one line for each of its keys
            lines.setdefault(place, line)
            continue
        got = f"{where}: {key} = {item['input']!r}; "
        texts = {
            "unexpected_keyword_argument": f"{where}: unknown key {key!r}. {registry.suggest(key, known)}",
            "missing": f"{where}: key {key!r} is missing",
            "string_pattern_mismatch": got + PATTERNS.get(item.get("ctx", {}).get("pattern", ""), "has another form"),
        }
        line = texts.get(item["type"], got + item["msg"].replace("Input should", "should"))
        lines.setdefault(key, line)  # a union reports one mistake once per member
    return list(lines.values())


def _in_mapping(item: Mapping[str, Any], where: str) -> list[str]:
    """A key or a value of a table in a table that is none of the words admitted there, and the line that says so."""
    table, key, *rest = (str(part) for part in item["loc"])
    words = re.findall(r"'([^']*)'", item["ctx"]["expected"])
    suggestion = registry.suggest(str(item["input"]), words)
    if rest:
        return [f"{table}.{key}.key", f"{where}: {table} has no {key!r}. {suggestion}"]
    return [f"{table}.{key}", f"{where}: {table}.{key} = {item['input']!r}. {suggestion}"]
