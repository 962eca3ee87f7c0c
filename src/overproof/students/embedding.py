"""Texts through an encoder's graph, in passes that are the same wherever they run: here, or cut over workers."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from overproof.errors import DataError, MissingExtra
from overproof.progress import track
from overproof.students.files import AGAIN, MAX_TABLE_BYTES
from overproof.students.runtimes import BATCH, FP32, MODEL, Runtime, Session, open_session

TOKENIZER = "tokenizer.json"
PASSES = 256  # at most in a shard: 8,192 rows, whose numbers are what is held beside the whole


class Over(Protocol):
    """What cuts work over workers; see `engines.Engine`."""

    apart: bool
    shards: int

    def each(self, fn: Callable[[Any, Any], Any], shards: Sequence[Any], *, shared: Any = None, what: str) -> Iterator[Any]:
        """One result a shard, in order."""


@runtime_checkable
class Spreads(Protocol):
    """A student whose fit can give shards of itself away."""

    over: Over | None
    """Where they go; None does all in this process. It never changes what is learned."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pass:
    """Texts that go through the graph together, the longest first."""

    rows: NDArray[np.int64]
    """Their positions."""
    ids: NDArray[np.int32]
    """Shape (n, length), padded."""
    sizes: NDArray[np.int64]
    """Tokens of each."""


class Tokens:
    """
    Texts as token ids, in passes.

    Args:
        tokenizer: its file.
        max_tokens: longer texts are cut.
        pad: id of padding.
        runtime: what runs the passes.
    """

    def __init__(self, tokenizer: Path, *, max_tokens: int, pad: int, runtime: Runtime = FP32) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise MissingExtra("encoder.v1", extra="encoder") from error
        if tokenizer.stat().st_size > MAX_TABLE_BYTES:
            raise DataError(f"{TOKENIZER} has over {MAX_TABLE_BYTES} bytes", next_action=AGAIN)
        try:
            self._tokenizer = Tokenizer.from_str(tokenizer.read_text(encoding="utf-8"))
        except Exception as error:  # the library raises bare exceptions of its own
            raise DataError(f"{TOKENIZER} can't be loaded: {error}", next_action=AGAIN) from error
        # The file may ask for padding to a fixed length; ours is by batch.
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)
        self._pad, self._runtime, self._most = pad, runtime, min(BATCH, runtime.together)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Padded lengths when alone, in tokens."""
        return [self._length(self._tokenizer.encode(text).ids) for text in texts]

    def alone(self, text: str) -> Pass:
        """The common case of serving: no order to find."""
        return self._padded([0], [self._tokenizer.encode(text).ids])

    def passes(self, texts: Sequence[str]) -> list[Pass]:
        """All of them, longest first, so that a pass holds texts of like length; a text's numbers depend on its pass."""
        tokens = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        order = sorted(range(len(tokens)), key=lambda i: (-len(tokens[i]), i))
        alike = [list(rows) for _, rows in itertools.groupby(order, lambda i: 0 if self._runtime.padding else self._length(tokens[i]))]
        groups = (rows[start : start + self._most] for rows in alike for start in range(0, len(rows), self._most))
        return [self._padded(rows, [tokens[i] for i in rows]) for rows in groups]

    def _length(self, tokens: Sequence[int]) -> int:
        return -(-len(tokens) // self._runtime.multiple) * self._runtime.multiple

    def _padded(self, rows: Sequence[int], tokens: Sequence[list[int]]) -> Pass:
        ids = np.full((len(tokens), self._length(tokens[0])), self._pad, dtype=np.int32)
        for at, one in enumerate(tokens):
            ids[at, : len(one)] = one
        return Pass(rows=np.array(rows, dtype=np.int64), ids=ids, sizes=np.array([len(one) for one in tokens], dtype=np.int64))


class Graph:
    """
    A graph that is opened where it first runs; until then it can travel.

    Args:
        model: an ONNX model in the form that the runtime reads.
        threads: most threads of one pass; they change no bit of what comes out.
        runtime: what runs it.
    """

    def __init__(self, model: bytes, *, threads: int, runtime: Runtime = FP32) -> None:
        # as an array, which processes on one machine share without a copy
        self._model: NDArray[np.uint8] | None = np.frombuffer(model, dtype=np.uint8)
        self._threads, self.runtime = threads, runtime
        self._session: Session | None = None

    def opened(self) -> Self:
        """
        It, ready to run.

        Raises: DataError for a graph that is none or has other inputs, and where this processor can't run it; MissingExtra.
        """
        if self._model is not None:
            self._session = open_session(self._model.tobytes(), self.runtime, threads=self._threads)
            self._model = None
        return self

    @property
    def outputs(self) -> Mapping[str, int | None]:
        """Name to columns, in the graph's order; None where the graph doesn't say."""
        self.opened()
        assert self._session is not None
        return self._session.outputs

    def run(self, one: Pass, widths: Mapping[str, int]) -> list[NDArray[np.float32]]:
        """Some outputs of one pass, shape (n, width) each, in the order of the pass."""
        self.opened()
        assert self._session is not None
        mask = (np.arange(one.ids.shape[1]) < one.sizes[:, None]).astype(np.int64)
        outs = self._session.run(list(widths), one.ids.astype(np.int64), mask)
        for out, width in zip(outs, widths.values(), strict=True):
            if out.shape != (len(one.rows), width):
                raise DataError(f"{MODEL} answers with shape {out.shape}, expected {width} columns", next_action=AGAIN)
        return outs


def embed(tokens: Tokens, model: bytes, texts: Sequence[str], *, width: int, over: Over | None = None) -> NDArray[np.float32]:
    """
    The first output of a graph for many texts.

    Args:
        tokens: makes the passes.
        model: a graph without a head.
        texts: any number.
        width: columns of its first output.
        over: where passes run; None for here.

    Returns: shape (n, width), one array that is filled as shards come; the same bits over any workers, because the passes are.
    Raises: DataError; MissingExtra.
    """
    found, passes = np.empty((len(texts), width), dtype=np.float32), tokens.passes(texts)
    shards: list[Sequence[Pass]]
    parts: Iterator[NDArray[np.float32]]
    if over is None or not over.apart:
        graph, shards = Graph(model, threads=min(2, threads_allowed())), [[one] for one in passes]
        parts = (run_passes(graph, some) for some in track(shards, "embedding", total=len(shards)))
    else:
        graph, shards = Graph(model, threads=1), even(passes, over.shards)  # a worker has one core
        parts = over.each(run_passes, shards, shared=graph, what="embedding")
    for shard, part in zip(shards, parts, strict=True):
        found[np.concatenate([one.rows for one in shard])] = part
    return found


def run_passes(graph: Graph, passes: Sequence[Pass]) -> NDArray[np.float32]:
    """
    The first output of some passes.

    Args:
        graph: any.
        passes: at least one.

    Returns: their rows one under the other, in the order of the passes.
    """
    name, width = next(iter(graph.outputs.items()))
    assert width is not None
    return np.concatenate([graph.run(one, {name: width})[0] for one in passes])


def even(passes: Sequence[Pass], shards: int) -> list[Sequence[Pass]]:
    """
    Passes in shards of nearly the same work.

    Args:
        passes: in order.
        shards: at least so many, where there are as many passes.

    Returns: shards that make the passes again when joined, each of `PASSES` at most.
    """
    work = np.cumsum([one.ids.size for one in passes], dtype=np.int64)
    count = min(max(1, shards), len(passes))
    edges = np.searchsorted(work, work[-1] * np.arange(1, count) // count, side="right") if count else np.empty(0, dtype=np.int64)
    bounds = [0, *edges.tolist(), len(passes)]
    found = (passes[a:b] for a, b in itertools.pairwise(bounds))
    return [some[at : at + PASSES] for some in found for at in range(0, len(some), PASSES)]


def threads_allowed() -> int:
    """
    Threads that this process may use.

    Returns: `OMP_NUM_THREADS` where it is set, which the graph's library doesn't look at by itself; else the cores.
    """
    said = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, int(said)) if said.isdigit() else os.cpu_count() or 1
