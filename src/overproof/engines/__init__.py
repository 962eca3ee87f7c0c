"""Engines: where shards of heavy work run, on this machine or on many, with the same results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Protocol


class Engine(Protocol):
    """Runs plain functions over shards; what it is asked to run must be importable wherever it runs."""

    apart: bool
    """True where shards run in other processes, which share no memory and perhaps no disk with this one."""
    shards: int
    """How many parts work should be cut into."""

    def each(self, fn: Callable[[Any, Any], Any], shards: Sequence[Any], *, shared: Any = None, what: str) -> Iterator[Any]:
        """
        Run one function over all shards, and give each result away as soon as it is its turn.

        What comes is not kept: whoever takes one result after the other needs memory for one, and workers are only so far
        ahead of that. The engine itself may travel in `shared`, so that a shard can cut its own work over all workers.

        Args:
            fn: at the top of an importable module; takes `shared` and one shard, and must give the same result when it is
                called again: a shard whose worker dies is run once more.
            shards: values that pickle can say.
            shared: one value for all of them; a worker gets it once, and keeps what a function leaves in it.
            what: for the progress bar.

        Returns: one result a shard, in their order; nothing runs before the first is asked for.
        Raises: what `fn` raises; StoreError where workers keep dying.
        """

    def caller(self, build: Callable[[Mapping[str, Any]], Any], given: Mapping[str, Any]) -> Any:
        """
        A teacher whose wire calls run where shards run; retries, ledger and money stay with the caller.

        Args:
            build: at the top of an importable module; makes the teacher.
            given: what it needs, in plain values.

        Returns: what `build` makes, or one that passes `attempt` on; a worker that dies makes a transient failure.
        """

    def close(self) -> None:
        """Let the workers go; harmless twice."""


def cut(rows: Sequence[Any], shards: int, *, most: int = 0) -> list[Sequence[Any]]:
    """
    Rows in shards of nearly the same size.

    Args:
        rows: in order.
        shards: how many, at least 1; fewer where there are fewer rows.
        most: rows of a shard, where the results of a shard of any size would be too much at one time; 0 for no limit.

    Returns: shards that make the rows again when joined; none for no rows.
    """
    count = min(max(1, shards, -(-len(rows) // most) if most else 0), len(rows))
    edges = [len(rows) * i // count for i in range(count + 1)] if count else [0]
    return [rows[a:b] for a, b in pairwise(edges)]


def engine_of(use: str, *, workers: int, address: str) -> Engine:
    """
    The engine that the project file names.

    Args:
        use: "local" or "ray".
        workers: processes, where this machine starts them.
        address: of a running Ray cluster; empty to start one here.

    Returns: the engine; nothing is started before it is used.
    """
    if use == "ray":
        from overproof.engines.ray import RayEngine

        return RayEngine(workers=workers, address=address)
    from overproof.engines.local import LocalEngine

    return LocalEngine()
