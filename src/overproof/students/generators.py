"""`student.json` of a generator: the output kind in the place of labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from overproof.errors import DataError
from overproof.outputs import Fields, Text, kind_of, output_of
from overproof.students.files import AGAIN, read_json, write_json
from overproof.students.normalise import NORMALISER
from overproof.students.settings import SETTINGS

FORMAT = "overproof.generator.v1"


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneratorSettings:
    """A fitted generator's description."""

    output: Fields | Text
    options: Mapping[str, Any]
    """Keyword arguments that make the generator again, `output` apart."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the kind wrote about its own files."""


def write_generator(folder: Path, *, kind: str, output: Fields | Text, options: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """
    Write `student.json`.

    Args:
        folder: the generator's folder.
        kind: part name.
        output: what its answers are.
        options: its keyword arguments, `output` apart.
        facts: see `GeneratorSettings.facts`.
    """
    # A list keeps the order of the fields, which the file's sorted keys would lose.
    (name, form), = kind_of(output).items()
    value = {"format": FORMAT, "kind": kind, "normaliser": NORMALISER, "output": [name, list(form.items())], "options": dict(options), "facts": dict(facts)}
    write_json(folder / SETTINGS, value)


def read_generator(folder: Path, *, kind: str) -> GeneratorSettings:
    """
    Read `student.json`.

    Args:
        folder: the generator's folder.
        kind: the part name that must have written it.

    Returns: the description.
    Raises: DataError for another kind, another normaliser, or a file that is none of ours.
    """
    raw = read_json(folder / SETTINGS)
    for key, value in {"format": FORMAT, "kind": kind, "normaliser": NORMALISER}.items():
        got = raw.get(key) if isinstance(raw, dict) else None
        if got != value:
            raise DataError(f"{SETTINGS}: {key} is {got!r}, expected {value!r}", next_action=AGAIN)
    try:
        name, form = raw["output"]
        output = output_of({name: dict(form)})
        options, facts = dict(raw["options"]), dict(raw["facts"])
    except (KeyError, TypeError, ValueError, DataError) as error:
        raise DataError(f"{SETTINGS} is malformed: {error}", next_action=AGAIN) from error
    if not isinstance(output, Fields | Text):
        raise DataError(f"{SETTINGS}: a generator writes records or texts", next_action=AGAIN)
    return GeneratorSettings(output=output, options=options, facts=facts)
