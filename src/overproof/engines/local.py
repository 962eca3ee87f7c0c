"""Shards one after the other, in this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from overproof.progress import track


class LocalEngine:
    """See `Engine`."""

    apart = False
    shards = 1

    def map(self, fn: Callable[[Any, Any], Any], shards: Sequence[Any], *, shared: Any = None, what: str) -> list[Any]:
        """See `Engine.map`."""
        each = track(shards, what, total=len(shards)) if len(shards) > 1 else shards
        return [fn(shared, shard) for shard in each]

    def caller(self, build: Callable[[Mapping[str, Any]], Any], given: Mapping[str, Any]) -> Any:
        """See `Engine.caller`."""
        return build(given)

    def close(self) -> None:
        """Nothing to let go."""
