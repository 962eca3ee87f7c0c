"""Progress as an ambient hook: steps say how far they are, the door decides how that looks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Protocol, TypeVar

T = TypeVar("T")


class Reporter(Protocol):
    """What a door implements to show progress."""

    def start(self, what: str, total: int | None) -> Callable[[int], None]:
        """Begin a bar; the returned function advances it by so many units, and ends it when given -1."""


class Silent:
    """The default: shows nothing."""

    def start(self, what: str, total: int | None) -> Callable[[int], None]:
        """Begin nothing."""
        del what, total
        return lambda _: None


reporter: ContextVar[Reporter] = ContextVar("overproof_progress", default=Silent())  # noqa: B039 - stateless


def track(items: Iterable[T], what: str, *, total: int | None = None) -> Iterator[T]:
    """
    Yield `items` and report each one.

    Args:
        items: what is worked through.
        what: a few words for the bar, for example "near-duplicates".
        total: how many there are, where that is known.

    Returns: the same items, lazily.
    """
    advance = reporter.get().start(what, total)
    try:
        for item in items:
            yield item
            advance(1)
    finally:
        advance(-1)
