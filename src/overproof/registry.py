"""Part names to classes: entry points, or "module:function" of the user's own."""

from __future__ import annotations

import difflib
import importlib
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from overproof.errors import MissingExtra, RegistryError

KINDS = ("teachers", "students", "verifiers", "importers", "checks")


@cache
def _points(kind: str) -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=f"overproof.{kind}"))  # reads the metadata of every installed package


def names(kind: str) -> list[str]:
    """
    Names of the parts of a kind, sorted.

    Args:
        kind: one of `KINDS`.

    Returns: registered names, built in and of other installed packages.
    """
    return sorted({point.name for point in _points(kind)})


def suggest(name: str, known: list[str]) -> str:
    """
    The sentence that helps after a wrong name.

    Args:
        name: what was written.
        known: what could have been written.

    Returns: "Available: …" and, where one is close, "Did you mean …?".
    """
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"Available: {', '.join(known) or 'none'}.{hint}"


def resolve(kind: str, name: str) -> Any:
    """
    The class or function that a part name stands for.

    Args:
        kind: one of `KINDS`.
        name: a registered name such as "encoder.v1", or "module:function".

    Returns: the object, imported.
    Raises: RegistryError for an unknown name or a module that can't be imported; MissingExtra where the part's
        packages are not installed.
    """
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise RegistryError(
                f"{name!r} can't be loaded: {error}",
                next_action=f"put {module}.py beside overproof.toml and define {attribute} in it",
            ) from error
    for point in _points(kind):
        if point.name == name:
            try:
                return point.load()
            except MissingExtra:
                raise
            except ImportError as error:
                raise RegistryError(
                    f"part {name!r} can't be imported: {error}", next_action="install what it names, or drop the part"
                ) from error
    raise RegistryError(
        f"no part named {name!r} among {kind}. {suggest(name, names(kind))}",
        next_action="use one of the names above",
    )
