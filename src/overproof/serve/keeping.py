"""The log's writer in a process of its own: what reading, redacting and committing cost is no answer's time."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from overproof.serve.capture import MOST_BYTES, REFUSED, Capture, Mode, Said, State, Usage
from overproof.serve.rows import Row
from overproof.settings import PrivacyTable
from overproof.store.captured import Feedback, Key
from overproof.store.money import Prices

WINDOW_S: Final = 0.005
"""So long a row waits for others to share a write with."""
READ_BYTES: Final = 262_144
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 30.0
END_S: Final = 5.0
START_S: Final = 35.0
"""A child that has said nothing yet may be slow for the machine's sake: that is no disk that takes nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Keeping:
    """What a writer has to know of its project."""

    root: str
    privacy: PrivacyTable
    labels: tuple[str, ...]
    """Never redacted."""
    mode: Mode = "group"
    queue_records: int = 10_000
    prices: Prices | None = None


class PutRow(msgspec.Struct, array_like=True, tag=0):
    """A row to be kept."""

    seq: int
    row: Row
    durable: bool


class PutWords(msgspec.Struct, array_like=True, tag=1):
    """Words of feedback."""

    seq: int
    words: list[Feedback]


class PutDrop(msgspec.Struct, array_like=True, tag=2):
    """A row that was not even handed over."""

    seq: int
    key: Key


class End(msgspec.Struct, array_like=True, tag=3):
    """Commit all and end."""

    within_s: float


Word = PutRow | PutWords | PutDrop | End


class Told(msgspec.Struct, array_like=True):
    """What the writer says."""

    done: int
    """All up to this number are committed, or counted as dropped."""
    taken: int
    """All up to this number have come; drops among them are in `dropped`, also those behind a row that waits for the disk."""
    state: State
    fault: str
    written: int
    dropped: list[tuple[Key, int]]
    usage: list[tuple[Usage, float]]
    settled: list[tuple[int, str]]
    """Number to what became of it, for those that somebody waits for: "kept", "unknown" or "refused"."""
    lost: bool = False
    """Whether rows that had been taken were given up."""
    unopened: bool = False
    """Whether the store could not be opened: the writer ends, and the next one tries."""


_encode = msgspec.msgpack.Encoder().encode
_told = msgspec.msgpack.Decoder(Told).decode
_word = msgspec.msgpack.Decoder(Word).decode


def framed(word: object) -> bytes:
    """A message with its length before it."""
    body = _encode(word)
    return len(body).to_bytes(4, "little") + body


def unframed(held: bytearray) -> list[bytes]:
    """The whole messages at the start of what has come, which are taken away."""
    found, at = [], 0
    while at + 4 <= len(held) and (end := at + 4 + int.from_bytes(held[at : at + 4], "little")) <= len(held):
        found.append(bytes(held[at + 4 : end]))
        at = end
    del held[:at]
    return found


def _sum(left: Mapping[Usage, float], right: Mapping[Usage, float]) -> Mapping[Usage, float]:
    return {key: left.get(key, 0.0) + right.get(key, 0.0) for key in {**left, **right}} if left else right


class LogProcess:
    """
    As `Capture`, with reading, redaction and commits in a child. Used on the event loop's thread.

    What the child has not said to be done stays here, and goes to the next one where a child ends: a row that is then
    there already is not written, nor counted, a second time.

    Args:
        keeping: what the child has to know.
    """

    def __init__(self, keeping: Keeping) -> None:
        self.mode = keeping.mode
        self.state: State = "open"
        self.fault = ""
        self.written = 0
        self.usage: Mapping[Usage, float] = {}
        self._keeping, self._most = keeping, keeping.queue_records
        self._seq = 0
        self._kept: deque[tuple[int, bytes]] = deque()
        """Number and frame of all that is not done."""
        self._drops: deque[tuple[int, Key]] = deque()
        self._bytes = 0
        self._futures: dict[int, asyncio.Future[str]] = {}
        self._out = bytearray()
        self._in = bytearray()
        self._timer: asyncio.Handle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._socket: socket.socket | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._wait_s = FIRST_WAIT_S
        self._told: Mapping[Key, int] = {}
        self._taken = 0
        self._before: Counter[Key] = Counter()  # of children that have ended
        self._before_written = 0
        self._before_usage: Mapping[Usage, float] = {}
        self._closing = self._lost = self._clogged = False
        self._unopened = self._heard = False
        self._give_up_at = float("inf")
        if self.mode != "off":
            self._start()

    def put(self, row: Row) -> bool:
        """
        Keep a row with one of the next commits; never waits.

        Args:
            row: as served.

        Returns: False where it was dropped, which is counted.
        """
        return self._enter(row, durable=False)

    async def put_durable(self, row: Row) -> bool:
        """
        Keep a row before its answer is sent.

        Args:
            row: as served.

        Returns: True once it is durable; False where it was dropped, which is counted: the answer goes out all the same.
        """
        if not self._enter(row, durable=True):
            return False
        return await self._awaited(self._seq) == "kept"

    async def feedback(self, words: Sequence[Feedback]) -> Said:
        """
        Keep what was said of one request, in the order of the queue: a row that still waits is known.

        Args:
            words: from `read_feedback`.

        Returns: what became of it; "kept" is durable.
        """
        if self.mode == "off" or self.state != "open" or self._unopened or self._closing or self.waiting >= self._most:
            return "refused"
        self._seq += 1
        self._hand_over(framed(PutWords(self._seq, list(words))), at_once=True)
        return await self._awaited(self._seq)  # type: ignore[return-value] # the child's own words

    @property
    def waiting(self) -> int:
        """Rows that are not durable yet."""
        return len(self._kept)

    @property
    def waiting_bytes(self) -> int:
        """Their size."""
        return self._bytes

    @property
    def dropped(self) -> Mapping[Key, int]:
        """(task, slice, reason) to the rows that this process dropped."""
        own = Counter(key for seq, key in self._drops if seq > self._taken)
        return dict(sorted((self._before + Counter(dict(self._told)) + own).items()))

    async def close(self, within_s: float = 20.0) -> bool:
        """
        Commit all that waits and end the writer; call it when no request is left.

        Args:
            within_s: how long a disk that takes nothing is tried.

        Returns: False where rows that had been taken were given up, which `dropped` tells.
        """
        self._closing, self._wait_s, self._give_up_at = True, FIRST_WAIT_S, time.monotonic() + within_s
        self._running()
        self._out += framed(End(within_s))
        self._flush()
        if self._child is None and self._kept:  # it could not open the store, or was killed: what it had not done is not given up
            self._start()
        while (self._child is not None or self._kept) and time.monotonic() < self._give_up_at + (END_S if self._heard else START_S):  # noqa: ASYNC110 - the child's last words come by the loop
            await asyncio.sleep(0.01)
        done = self._child is None and not self._kept and not self._lost
        self._stop()
        self.state = "closed"
        return done or self.mode == "off"

    def _enter(self, row: Row, *, durable: bool) -> bool:
        if self.mode == "off":
            return False
        if self.state != "open" or self._closing:
            return self._drop(row, REFUSED.get(self.state, "closed"))
        if self._unopened and durable:
            return self._drop(row, "store busy")  # its answer goes out now
        if len(self._kept) >= self._most or self._bytes >= MOST_BYTES:
            return self._drop(row, "queue full")
        self._seq += 1
        self._hand_over(framed(PutRow(self._seq, row, durable)), at_once=durable)
        return True

    def _drop(self, row: Row, why: str) -> bool:
        key = (row.served.task, row.served.slice, why)
        self._seq += 1
        self._drops.append((self._seq, key))
        self._hand_over(framed(PutDrop(self._seq, key)), at_once=False)
        return False

    def _hand_over(self, frame: bytes, *, at_once: bool) -> None:
        self._kept.append((self._seq, frame))
        self._bytes += len(frame)
        if self._socket is None:
            return  # the next child gets all of `_kept`
        self._out += frame
        if at_once:
            self._flush()
        elif self._timer is None and not self._clogged:
            self._timer = self._running().call_later(WINDOW_S, self._flush)

    def _awaited(self, seq: int) -> asyncio.Future[str]:
        future: asyncio.Future[str] = self._running().create_future()
        self._futures[seq] = future
        return future

    def follow(self) -> None:
        """Hear what the child says from now on; needs the running loop."""
        self._running()

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            if self._socket is not None:
                self._loop.add_reader(self._socket, self._hear)
        return self._loop

    # --- the child ---

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        command = [sys.executable, "-m", "overproof.serve.keeping_child", str(theirs.fileno())]
        try:
            self._child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=(theirs.fileno(),), env=environment,
                process_group=0,  # an interrupt at the terminal is for us; it ends when we say so, or are gone
            )  # fmt: skip
        except OSError as error:
            ours.close()
            self.fault = f"the log's writer can't be started: {error}"
            self._again()
            return
        finally:
            theirs.close()
        ours.setblocking(False)
        self._socket, self._heard = ours, False
        self._in.clear()
        self._out = bytearray(framed(self._keeping))
        for _, frame in self._kept:
            self._out += frame
        if self._closing:
            self._out += framed(End(max(0.0, self._give_up_at - time.monotonic())))
        if self._loop is not None:
            self._loop.add_reader(ours, self._hear)
        self._flush()

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._socket is None or not self._out:
            return
        try:
            sent = self._socket.send(self._out)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            return  # its end is heard
        del self._out[:sent]
        if bool(self._out) != self._clogged:
            self._clogged = not self._clogged
            if self._clogged:
                self._running().add_writer(self._socket, self._flush)
            else:
                self._running().remove_writer(self._socket)

    def _hear(self) -> None:
        assert self._socket is not None
        try:
            piece = self._socket.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            piece = b""
        if not piece:
            self._ended()
            return
        self._in += piece
        for body in unframed(self._in):
            self._take(_told(body))

    def _take(self, told: Told) -> None:
        self._wait_s, self._heard = FIRST_WAIT_S, True
        self._unopened = told.unopened
        if told.unopened:
            self._refuse()
        if not self._closing or told.state != "closed":
            self.state = told.state
        self.fault, self._lost = told.fault, self._lost or told.lost
        self.written = self._before_written + told.written
        self._told, self._taken = dict(told.dropped), told.taken
        self.usage = _sum(self._before_usage, dict(told.usage))
        while self._kept and self._kept[0][0] <= told.done:
            self._bytes -= len(self._kept.popleft()[1])
        while self._drops and self._drops[0][0] <= told.done:
            self._drops.popleft()
        for seq, word in told.settled:
            if (future := self._futures.pop(seq, None)) is not None and not future.done():
                future.set_result(word)

    def _ended(self) -> None:
        """It is gone: as told, or not."""
        child = self._child
        self._stop()
        if self._closing and not self._kept:
            return
        code = child.wait() if child is not None else 0  # its end of the socket is closed, so it is as good as dead
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        if not self._unopened:  # else it has said why
            self.fault = f"the log's writer ended ({how}) and is started again"
        self._before += Counter(dict(self._told)) - Counter(key for seq, key in self._drops if seq <= self._taken)  # the next one is told again
        self._taken = 0
        self._before_written, self._before_usage, self._told = self.written, self.usage, {}
        self._again()

    def _again(self) -> None:
        if self._loop is not None:
            self._loop.call_later(self._wait_s, self._start_again)
        self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)

    def _start_again(self) -> None:
        if self._child is None and (time.monotonic() < self._give_up_at if self._closing and self._kept else not self._closing):
            self._start()

    def _refuse(self) -> None:
        """Nobody waits for a store that may not be there for long: who waits is told, and what they waited for is dropped."""
        held, self._kept, self._bytes = self._kept, deque(), 0
        refused = []
        for seq, frame in held:
            if seq in self._futures:
                refused.append((self._futures.pop(seq), _word(frame[4:])))
            else:
                self._kept.append((seq, frame))
                self._bytes += len(frame)
        for future, word in refused:
            if isinstance(word, PutRow):
                self._drop(word.row, "store busy")
            if not future.done():
                future.set_result("refused")

    def _stop(self) -> None:
        child, self._child = self._child, None
        if self._socket is not None:
            if self._loop is not None:
                self._loop.remove_reader(self._socket)
                self._loop.remove_writer(self._socket)
            self._socket.close()
            self._socket = None
        self._clogged = False
        if child is not None and self._closing:
            try:
                child.wait(END_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


Log = LogProcess | Capture
"""What keeps the rows of a gateway: a process beside it, or a thread in it."""
