"""The process that writes the log: takes rows from the gateway, says what is durable, ends when it is told or left alone."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections import deque
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from overproof.errors import OverproofError, StoreError
from overproof.privacy.redact import redactor_of
from overproof.serve.capture import Capture, State
from overproof.serve.keeping import End, Keeping, PutDrop, PutWords, Told, Word, framed, unframed
from overproof.store.captured import is_away
from overproof.store.project_store import Store

TELL_S = 0.01
"""How soon what has become durable is said."""
LEFT_S = 20.0
"""How long a disk that takes nothing is tried once the gateway is gone."""
_word = msgspec.msgpack.Decoder(Word).decode


class Keeper(asyncio.Protocol):
    """The child's end. The first message says what it has to know."""

    def __init__(self) -> None:
        self.ended = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None
        self._store: Store | None = None
        self._capture: Capture | None = None
        self._held = bytearray()
        self._queued: deque[int] = deque()
        """Numbers of what is in the queue, in its order."""
        self._taken = self._popped = 0
        self._settled: list[tuple[int, str]] = []
        self._work: set[asyncio.Task[None]] = set()
        self._telling: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The gateway's end is there."""
        self._transport = transport  # type: ignore[assignment] # a stream's

    def data_received(self, data: bytes) -> None:
        """Messages, or parts of them."""
        self._held += data
        for body in unframed(self._held):
            if self._capture is not None:
                self._take(_word(body))
                continue
            try:
                self._open(msgspec.msgpack.decode(body, type=Keeping))
            except OverproofError as error:  # the disk is full, for example: the gateway tries again later
                assert self._transport is not None
                state: State = "open" if isinstance(error, StoreError) and is_away(error) else "refusing"
                self._transport.write(framed(Told(0, 0, state, error.what, 0, [], [], [], unopened=True)))
                self._transport.close()
                return
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(TELL_S, self._tell)

    def connection_lost(self, exc: Exception | None) -> None:
        """The gateway is gone: what it has handed over is committed all the same."""
        del exc
        self._start(self._end(LEFT_S))

    def _open(self, known: Keeping) -> None:
        self._store = Store(Path(known.root))
        redactor = redactor_of(known.privacy, key=self._store.secret, keep=known.labels)
        self._capture = Capture(
            self._store, redactor=redactor, mode=known.mode, queue_records=known.queue_records, prices=known.prices, apart=True
        )

    def _take(self, word: Word) -> None:
        capture = self._capture
        assert capture is not None
        if isinstance(word, End):
            self._start(self._end(word.within_s))
            return
        self._taken = word.seq
        if isinstance(word, PutDrop):
            capture.lost(word.key)
            return
        future = None
        if isinstance(word, PutWords):
            future = capture.offer_words(word.words)
            taken = future is not None
        else:
            future = asyncio.get_running_loop().create_future() if word.durable else None
            taken = capture.offer(word.row, future)
        if taken:
            self._queued.append(word.seq)
        elif future is not None or isinstance(word, PutWords):
            self._settle(word.seq, "refused")
        if taken and future is not None:
            self._start(self._told_of(word.seq, future, no="unknown" if isinstance(word, PutWords) else "refused"))

    async def _told_of(self, seq: int, future: asyncio.Future[bool], *, no: str) -> None:
        try:
            self._settle(seq, "kept" if await future else no)
        except StoreError:
            self._settle(seq, "refused")

    def _settle(self, seq: int, word: str) -> None:
        self._settled.append((seq, word))
        if self._telling is not None:
            self._telling.cancel()
        self._tell()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _end(self, within_s: float) -> None:
        if self._capture is not None and self._capture.state != "closed":
            kept = await self._capture.close(within_s)
            self._tell(lost=not kept)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.close()  # what was told goes out first
        if self._store is not None:
            self._store.close()
            self._store = None
        if not self.ended.done():
            self.ended.set_result(None)

    def _tell(self, *, lost: bool = False) -> None:
        capture, transport = self._capture, self._transport
        self._telling = None
        if capture is None or transport is None or transport.is_closing():
            return
        waiting = capture.waiting
        while len(self._queued) > waiting:
            self._queued.popleft()
        done = self._queued[0] - 1 if self._queued else self._taken
        settled, self._settled = self._settled, []
        transport.write(framed(Told(
            done, self._taken, capture.state, capture.fault, capture.written, list(capture.dropped.items()), list(capture.usage.items()), settled, lost,
        )))  # fmt: skip
        if self._queued or capture.state != "open" or capture.away:
            self._telling = asyncio.get_running_loop().call_later(TELL_S, self._tell)


async def main(descriptor: int) -> None:
    """Serve one gateway until it is gone."""
    end = socket.socket(fileno=descriptor)
    end.setblocking(False)
    loop = asyncio.get_running_loop()
    _, keeper = await loop.create_connection(Keeper, sock=end)
    await keeper.ended
    while keeper._work - {asyncio.current_task()}:  # noqa: SLF001, ASYNC110 - its own module
        await asyncio.sleep(0.01)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # a service manager asks the whole group; the gateway says when all is in
    uvloop.run(main(int(sys.argv[1])))
