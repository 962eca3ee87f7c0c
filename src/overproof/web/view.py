"""The words of the pages' table: what is asked, what is answered, and what stands at which path."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qsl

from overproof.errors import DataError
from overproof.serve.keys import Caller
from overproof.store.keys import Scope
from overproof.web.place import Place

MOST_CHARS = 500
"""Longest value in a query that a view gets to see."""


class NotHere(DataError):
    """Nothing of this name; the page says 404."""


class Query:
    """
    What follows the question mark, read with bounds: a page's address is anybody's text.

    Args:
        raw: as it came.
    """

    def __init__(self, raw: bytes) -> None:
        pairs = parse_qsl(raw.decode("ascii", "replace"), keep_blank_values=False, max_num_fields=50, errors="replace") if raw.count(b"&") < 50 else []
        self.given: Mapping[str, str] = {name: value[:MOST_CHARS] for name, value in pairs}

    def text(self, name: str, default: str = "") -> str:
        """A value as it is, cut to `MOST_CHARS`."""
        return self.given.get(name, default).strip()

    def one_of(self, name: str, options: Sequence[str], default: str = "") -> str:
        """A value of a known set; the default for any other."""
        found = self.given.get(name, default)
        return found if found in options else default

    def whole(self, name: str, default: int, *, least: int, most: int) -> int:
        """A whole number, brought within bounds; the default where it is none."""
        found = self.given.get(name, "")
        return min(max(int(found), least), most) if found.isascii() and found.lstrip("-").isdigit() and len(found) < 12 else default

    def number(self, name: str, default: float, *, least: float, most: float) -> float:
        """A number, brought within bounds; the default where it is none."""
        try:
            found = float(self.given.get(name, ""))
        except ValueError:
            return default
        return min(max(found, least), most) if math.isfinite(found) else default


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """One request to a view."""

    places: tuple[Place, ...]
    """The tasks that the caller may see."""
    params: Mapping[str, str]
    """Parts of the path in braces, decoded."""
    query: Query
    caller: Caller
    now: float
    """Unix time."""
    body: Mapping[str, Any] = field(default_factory=dict)
    """The JSON object of a POST."""

    @property
    def place(self) -> Place:
        """The task that the path names. Raises NotHere where there is none of this name that the caller may see."""
        for one in self.places:
            if one.name == self.params.get("task"):
                return one
        raise NotHere(f"there is no task {self.params.get('task', '')[:100]!r} here", next_action="choose one on the overview")

    def may(self, scope: Scope) -> bool:
        """Whether the caller's key allows it: what isn't allowed is not offered."""
        return scope in self.caller.scopes

    def said(self, name: str, *, most: int = MOST_CHARS, needed: str = "") -> str:
        """
        A text of the body.

        Args:
            name: of the field.
            most: characters.
            needed: what to ask for where it is missing; empty where it may be.

        Returns: the text without outer space.
        Raises: DataError where it is no text, too long, or needed and missing.
        """
        found = self.body.get(name, "")
        if not isinstance(found, str) or len(found) > most:
            raise DataError(f"{name}: a text of at most {most} characters was expected", next_action="mend it and send it again")
        if needed and not found.strip():
            raise DataError(f"{name} is missing", next_action=needed)
        return found.strip()


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """A page to render."""

    template: str
    title: str
    values: Mapping[str, Any]
    """For the template; all that comes from traffic, models or files is escaped there."""
    live: Mapping[str, str] = field(default_factory=dict)
    """What changes while somebody looks: `data-live` names in the page to their text. The page asks for it every few seconds."""
    status: int = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """JSON for the page's own script."""

    value: Any
    status: int = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Download:
    """A file to keep: never shown in the browser."""

    name: str
    body: bytes
    kind: str = "application/octet-stream"


@dataclass(frozen=True, kw_only=True, slots=True)
class Go:
    """Somewhere else."""

    to: str
    """A path of ours, quoted."""


Reply = Page | Data | Download | Go


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """One method on one path."""

    path: str
    """Below `/ui`; parts in braces stand for one part each."""
    answer: Callable[[Ask], Reply]
    """Reads the store and answers; runs in a thread of its own and may block."""
    method: Literal["GET", "POST"] = "GET"
    scope: Scope = "read"
    """What a key must allow."""
    page: bool = True
    """Whether it can be looked at by itself: False for data, for files, and for what wants a query."""
    nav: str = ""
    """Its name in the menu of a task; empty where it is not in it."""
