"""JSON Schemas that callers send: compiled once, refused where checking an answer against one could cost more than it may."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast
from urllib.parse import unquote

import msgspec

MAX_BYTES = 64 * 1024
DEPTH_CAP = 32
MAX_WORK = 10_000
"""Subschemas that one value may be held against, references followed: thirty that each name the next one twice are 2**30."""
MAX_PATTERNS = 32
"""Each is compiled on the event loop."""
_PATTERN_BYTES = 256 * 1024
_KEPT = 256
_PASSED_OVER = frozenset({
    "$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor", "unevaluatedProperties", "unevaluatedItems",
})  # fmt: skip
"""Words that send a reader elsewhere, or over the same ground again."""


class Checker(msgspec.Struct, frozen=True, kw_only=True):
    """A compiled schema, or why there is none."""

    problem: str = ""
    """One phrase that ends "a schema that …"; empty where answers can be checked."""
    check: Callable[[Any], bool] | None = None

    def admits(self, value: Any) -> bool:
        """Whether a value, as JSON gives it, fits; nothing does where there is a problem."""
        return self.check is not None and self.check(value)


class _TooMuch(ValueError):
    """Why a schema isn't compiled."""


def checker(schema: dict[str, Any]) -> Checker:
    """
    How to check answers against a schema.

    Args:
        schema: as a caller sent it.

    Returns: the compiled schema, from the last `_KEPT` ones where it is among them. References go nowhere but into it.
    """
    try:
        raw = msgspec.json.encode(schema)
    except (OverflowError, TypeError, ValueError, RecursionError):
        return Checker(problem="can't be read")
    return Checker(problem=f"is longer than {MAX_BYTES} bytes") if len(raw) > MAX_BYTES else _compiled(raw)


@lru_cache(maxsize=_KEPT)
def _compiled(raw: bytes) -> Checker:
    import jsonschema_rs as library

    schema = msgspec.json.decode(raw)
    try:
        if _Walk(schema).work(schema, depth=1) > MAX_WORK:
            return Checker(problem="takes too long to check")
        patterns = library.RegexOptions(size_limit=_PATTERN_BYTES, dfa_size_limit=_PATTERN_BYTES)  # linear time, whatever the pattern
        found = library.Draft202012Validator(schema, retriever=_refuse, pattern_options=patterns)
    except _TooMuch as problem:
        return Checker(problem=str(problem))
    except (ValueError, TypeError, RecursionError):  # the library's ValidationError and ReferencingError are ValueErrors
        return Checker(problem="can't be compiled")
    return Checker(check=found.is_valid)


def _refuse(uri: str) -> Any:
    raise ValueError(f"a caller's schema names the address {uri!r:.80}")


class _Walk:
    """Goes through a schema, following references, and counts."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._known: dict[str, int] = {}
        self._open: set[str] = set()
        self._patterns = 0

    def work(self, node: Any, *, depth: int) -> int:
        """How many subschemas there are below a node, each as often as it is reached."""
        if depth > DEPTH_CAP:
            raise _TooMuch(f"is nested deeper than {DEPTH_CAP} levels")
        if isinstance(node, list):
            return sum(self.work(one, depth=depth + 1) for one in node)
        if not isinstance(node, dict):
            return 0
        if not _PASSED_OVER.isdisjoint(node):
            raise _TooMuch("uses words that are passed over here")
        own = node.get("patternProperties")
        self._patterns += isinstance(node.get("pattern"), str) + (len(own) if isinstance(own, dict) else 0)
        if self._patterns > MAX_PATTERNS:
            raise _TooMuch(f"has more than {MAX_PATTERNS} patterns")
        below = sum(self.work(value, depth=depth + 1) for key, value in node.items() if key not in ("$ref", "$defs", "definitions"))
        for key in ("$defs", "definitions"):  # reached by reference alone, but read and compiled in any case
            self.work(node.get(key), depth=depth + 1)
        reference = node.get("$ref")
        return 1 + below + (self._target(reference) if isinstance(reference, str) else 0)

    def _target(self, reference: str) -> int:
        if reference in self._open:
            raise _TooMuch("refers to itself")
        if reference not in self._known:
            self._open.add(reference)
            self._known[reference] = self.work(self._found(reference), depth=1)
            self._open.discard(reference)
        return self._known[reference]

    def _found(self, reference: str) -> Any:
        if not reference.startswith("#/"):
            raise _TooMuch("refers to something outside")
        node = self._root
        for step in unquote(reference[2:]).split("/"):
            key = step.replace("~1", "/").replace("~0", "~")
            node = cast("dict[str, Any]", node).get(key) if isinstance(node, dict) else None
        if node is None:
            raise _TooMuch("refers to something that isn't there")
        return node
