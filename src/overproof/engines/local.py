"""Shards one after the other, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from overproof.progress import track


class LocalEngine:
    """See `Engine`."""

    apart = False
    shards = 1

    def each(self, fn: Callable[[Any, Any], Any], shards: Sequence[Any], *, shared: Any = None, what: str) -> Iterator[Any]:
        """See `Engine.each`."""
        for shard in track(shards, what, total=len(shards)) if len(shards) > 1 else shards:
            yield fn(shared, shard)

    def caller(self, build: Callable[[Mapping[str, Any]], Any], given: Mapping[str, Any]) -> Any:
        """See `Engine.caller`."""
        return build(given)

    def close(self) -> None:
        """Nothing to let go."""
