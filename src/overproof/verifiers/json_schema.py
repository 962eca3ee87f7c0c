"""The part of JSON Schema that flat answers need: texts, numbers, null, and one object of such values."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from overproof.errors import DataError

# With bool named before int: to Python a truth value is a number, to JSON it is none.
TYPES: Mapping[str, Callable[[Any], bool]] = {
    "string": lambda v: isinstance(v, str),
    "number": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
    "integer": lambda v: isinstance(v, int | float) and not isinstance(v, bool) and v == int(v),
    "null": lambda v: v is None,
    "object": lambda v: isinstance(v, dict),
}
WORDS = ("type", "enum", "const", "pattern", "minLength", "maxLength", "minimum", "maximum", "format")
OBJECT_WORDS = ("properties", "required", "additionalProperties")


def checked(schema: Mapping[str, Any], *, where: str = "schema") -> None:
    """
    Refuse a schema that can't be checked whole: a rule that is not checked must not look checked.

    Args:
        schema: as the user wrote it.
        where: its place, for the message.

    Raises: DataError.
    """
    known = (*WORDS, *OBJECT_WORDS)
    unknown = sorted(set(schema) - set(known))
    types = schema.get("type", "string")
    strange = [one for one in (types if isinstance(types, list) else [types]) if one not in TYPES]
    if unknown or strange or not schema or schema.get("format", "date") != "date":
        wrong = unknown or strange or [schema.get("format", "an empty schema")]
        raise DataError(
            f"schema.v1 can't check {wrong!r} in {where}; it knows {', '.join(known)}, the types {', '.join(TYPES)} and the format date",
            next_action='use those words, or check the rest in a function: use = "module:function"',
        )
    try:
        re.compile(schema.get("pattern", ""))
    except (re.error, TypeError) as error:
        raise DataError(f"schema.v1: pattern {schema['pattern']!r} is no regular expression: {error}", next_action="mend the pattern") from error
    for name, one in schema.get("properties", {}).items():
        checked(one, where=f"{where}.{name}")


def broken(schema: Mapping[str, Any], value: Any, *, where: str = "") -> Iterator[str]:
    """
    The words of a schema that a value breaks.

    Args:
        schema: one that `checked` passed.
        value: what JSON can say.
        where: the field; empty for the whole.

    Returns: for example "pattern", or "total: minimum".
    """
    types, text, number = schema.get("type"), isinstance(value, str), TYPES["number"](value)
    rules = {
        "type": types is None or any(TYPES[one](value) for one in (types if isinstance(types, list) else [types])),
        "enum": value in schema.get("enum", [value]),
        "const": value == schema.get("const", value),
        "pattern": not text or re.search(schema.get("pattern", ""), value) is not None,
        "minLength": not text or len(value) >= schema.get("minLength", 0),
        "maxLength": not text or len(value) <= schema.get("maxLength", len(value)),
        "minimum": not number or value >= schema.get("minimum", value),
        "maximum": not number or value <= schema.get("maximum", value),
        "format": not text or "format" not in schema or _date(value),
    }
    if isinstance(value, dict):
        rules["required"] = set(schema.get("required", ())) <= set(value)
        rules["additionalProperties"] = schema.get("additionalProperties", True) is not False or set(value) <= set(schema.get("properties", {}))
    yield from (f"{where}: {word}" if where else word for word, holds in rules.items() if not holds)
    for name, one in schema.get("properties", {}).items() if isinstance(value, dict) else ():
        if name in value:
            yield from broken(one, value[name], where=f"{where}.{name}" if where else name)


def _date(text: str) -> bool:
    try:
        return dt.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False
