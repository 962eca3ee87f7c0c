"""Which class a part name stands for, by what the answers are: some parts choose labels, some write."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from overproof.errors import DataError
from overproof.outputs import Fields, Text
from overproof.registry import resolve


def part_of(use: str, output: Fields | Text | None) -> Any:
    """
    The class of a part for one kind of answers.

    Args:
        use: part name, or "module:Class". A class whose `writer` names another one stands for both kinds.
        output: what the answers are; None for labels.

    Returns: a `Student` class for labels, else a `Generator` class.
    Raises: DataError where the part has none for such answers; what `registry.resolve` raises.
    """
    found = _class_of(use, output)
    takes = "labels" if output is None else "output"
    kind = "classes" if output is None else "fields" if isinstance(output, Fields) else "text"
    if takes not in inspect.signature(found).parameters or kind not in getattr(found, "kinds", (kind,)):
        raise DataError(f"{use} gives no answers of the kind {kind!r}", next_action="name another part, or change [task] output")
    return found


def options_of(made: Any) -> list[str] | None:
    """
    Names of the arguments that a part takes.

    Args:
        made: its class; one that takes whatever comes may list in `named` what that is.

    Returns: the names; None where it takes whatever comes and lists nothing.
    """
    takes = inspect.signature(made).parameters
    free = [name for name, one in takes.items() if one.kind is one.VAR_KEYWORD]
    named = getattr(made, "named", None)
    return None if free and named is None else sorted({*takes, *(named or ())} - {*free})


def _class_of(use: str, output: Fields | Text | None) -> Any:
    found = resolve("students", use)
    return resolve("students", found.writer) if output is not None and hasattr(found, "writer") else found


def load_part(use: str, folder: Path, output: Fields | Text | None) -> Any:
    """
    A fitted student or generator.

    Args:
        use: part name.
        folder: what its fit left.
        output: what answers are; None for labels.

    Returns: the student, or for written answers the generator; whoever asks checks what it was fitted for.
    """
    return _class_of(use, output).load(folder)
