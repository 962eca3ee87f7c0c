"""`student.json`: what every fitted student's folder says about itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from overproof.errors import DataError
from overproof.students.files import AGAIN, read_json, write_json
from overproof.students.normalise import NORMALISER, NORMALISERS


class _Remade(Protocol):
    normaliser: str


S = TypeVar("S", bound=_Remade)
SETTINGS = "student.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """A fitted student's description."""

    labels: tuple[str, ...]
    """Columns of its logits."""
    options: Mapping[str, Any]
    """Keyword arguments that make the student again."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the kind wrote about its own files, for example the encoder's digest."""
    normaliser: str = NORMALISER
    """How its texts were folded when it was fitted; it goes on with that one."""


def write_settings(
    folder: Path,
    *,
    kind: str,
    labels: Sequence[str],
    options: Mapping[str, Any],
    facts: Mapping[str, Any] | None = None,
    normaliser: str = NORMALISER,
) -> None:
    """
    Write `student.json`.

    Args:
        folder: the student's folder.
        kind: part name.
        labels: columns of its logits.
        options: its keyword arguments.
        facts: see `Settings.facts`.
        normaliser: see `Settings.normaliser`.
    """
    value = {
        "format": "overproof.student.v1",
        "kind": kind,
        "labels": list(labels),
        "normaliser": normaliser,
        "options": dict(options),
        "facts": dict(facts or {}),
    }
    write_json(folder / SETTINGS, value)


def read_settings(folder: Path, *, kind: str) -> Settings:
    """
    Read `student.json`.

    Args:
        folder: the student's folder.
        kind: the part name that must have written it.

    Returns: the description.
    Raises: DataError for another kind, another normaliser, or a file that is none of ours.
    """
    raw = read_json(folder / SETTINGS)
    expected = {"format": ("overproof.student.v1",), "kind": (kind,), "normaliser": tuple(NORMALISERS)}
    for key, values in expected.items():
        got = raw.get(key) if isinstance(raw, dict) else None
        if got not in values:
            raise DataError(f"{SETTINGS}: {key} is {got!r}, expected {' or '.join(map(repr, values))}", next_action=AGAIN)
    labels, options, facts = raw.get("labels"), raw.get("options"), raw.get("facts")
    sound = isinstance(labels, list) and all(isinstance(label, str) for label in labels)
    if not (sound and len(set(labels)) == len(labels) >= 2 and isinstance(options, dict) and isinstance(facts, dict)):
        raise DataError(f"{SETTINGS}: labels, options or facts are missing or malformed", next_action=AGAIN)
    return Settings(labels=tuple(labels), options=options, facts=facts, normaliser=raw["normaliser"])


def number(name: str, value: Any, *, least: float, most: float = float("inf")) -> Any:
    """
    Check one numeric option.

    Args:
        name: the option.
        value: what the user gave.
        least: smallest value admitted.
        most: largest value admitted.

    Returns: the value.
    Raises: DataError.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        bound = f"at least {least:g}" + ("" if most == float("inf") else f" and at most {most:g}")
        raise DataError(
            f"student option {name!r}: got {value!r}, expected a number of {bound}",
            next_action=f"mend {name} in the student's table",
        )
    return value


def span(name: str, value: Sequence[int]) -> tuple[int, int]:
    """
    Check an option that is a smallest and a largest n.

    Args:
        name: the option.
        value: what the user gave.

    Returns: both.
    Raises: DataError.
    """
    sound = isinstance(value, list | tuple) and len(value) == 2 and all(type(n) is int for n in value)
    if not sound or not 1 <= value[0] <= value[1] <= 10:
        raise DataError(
            f"student option {name!r}: got {value!r}, expected [smallest, largest] within 1 to 10",
            next_action=f"mend {name} in the student's table",
        )
    return value[0], value[1]


def remake(cls: Callable[..., S], settings: Settings) -> S:
    """
    Make a student again from its description.

    Args:
        cls: its class.
        settings: what `read_settings` found.

    Returns: the student, not yet fitted.
    Raises: DataError for options that the class doesn't know.
    """
    try:
        made = cls(labels=settings.labels, **settings.options)
    except TypeError as error:
        raise DataError(f"{SETTINGS}: options don't fit: {error}", next_action=AGAIN) from error
    made.normaliser = settings.normaliser
    return made
