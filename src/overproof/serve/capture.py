"""
From an event loop to the disk: a bounded queue, one writer thread, group commit.

The gateway has it in a process beside it (`keeping.py`). The loop only appends to a queue; reading, redaction and JSON are the writer's. The loop alone counts what it drops, the
writer alone what it gives up, so that neither waits for the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import msgspec

from overproof.data import Skipped, TrafficRecord
from overproof.errors import DataError, StoreError
from overproof.importers.rows import ID_CHARS
from overproof.privacy.redact import Redactor
from overproof.serve.rows import Row, aside, record_of, writable
from overproof.store.added import Addition
from overproof.store.captured import Drop, Feedback, FeedbackKind, Kept, Key, is_away, is_broken, is_full
from overproof.store.decisions import now
from overproof.store.money import Prices
from overproof.store.project_store import Store

__all__ = ["Capture", "Row", "read_feedback"]

State = Literal["open", "refusing", "read-only", "closed"]
Mode = Literal["group", "before_ack", "off"]
Said = Literal["kept", "unknown", "refused"]
"""What became of feedback; "unknown": there is no row of that request."""

MOST_BYTES = 64 * 1024 * 1024
DRAW_FROM = 0.8
"""Share of the queue above which rows are drawn."""
LEAST_CHANCE = 0.05
WINDOW_S, WINDOW_APART_S = 0.005, 0.02
"""So long a row waits for others to share a commit with."""
GROUP_ROWS = 500
GROUP_BYTES = 4 * 1024 * 1024
PROBE_S = 5.0
AGAIN_S = 0.25
BREATH_ROWS, BREATH_S = 8, 50e-6
"""After so many rows the writer lets the event loop run; it would get its turn by itself after 5 ms only."""
TICK_S = 1.0
"""Counts without rows are committed this often."""
COMMENT = 4_000
LABEL = 16_384
REFUSED: Mapping[State, Drop] = {"refusing": "disk full", "read-only": "disk error", "closed": "closed"}

Usage = tuple[str, str, str]
"""Task, route, and "input" or "output" tokens, "cost" and "avoided" in USD, "priced" answers."""
_Future = asyncio.Future[bool]


@dataclass(kw_only=True, slots=True, eq=False)
class _Entry:
    """What waits: a row, or words of feedback."""

    row: Row | None
    weight: float = 1.0
    size: int = 0
    words: Sequence[Feedback] = ()
    future: _Future | None = None
    kept: Kept | None = None
    """The row as it may be written, once the writer has read it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Tried:
    """A commit that a server was asked for, and then was away: it may have been made."""

    once: Addition
    dropped: Mapping[Key, int]
    entries: Sequence[_Entry]


class Capture:
    """
    What a gateway keeps of its requests. Made and used on the event loop's thread; starts its writer at once.

    Args:
        store: the project's store.
        redactor: by the project's policy; used by the writer alone.
        mode: "off" keeps nothing; the others differ in which method the gateway calls.
        queue_records: rows that may wait; 64 MiB is the other limit.
        prices: of the teacher, for the cost of each answer.
        probe_s: seconds between tries while the disk is full.
        apart: nobody's answers are made in this process: the writer needs not pause for them, and rows wait a little longer
            for others, since a commit of twenty costs each row half as much again as one of a hundred.
    """

    def __init__(
        self, store: Store, *, redactor: Redactor, mode: Mode = "group", queue_records: int = 10_000, prices: Prices | None = None,
        probe_s: float = PROBE_S, apart: bool = False,
    ) -> None:  # fmt: skip
        self.mode = mode
        self.state: State = "open"
        self.fault = ""
        """What the disk, or the database, last said; empty while all is well."""
        self._log, self._redactor, self._prices, self._probe_s = store.captured, redactor, prices, probe_s
        self._breath_s, self._window_s = (0.0, WINDOW_APART_S) if apart else (BREATH_S, WINDOW_S)
        self._most = queue_records
        self._queue: deque[_Entry] = deque()
        self._chance: Callable[[], float] = random.random
        self._put_rows = self._put_bytes = 0  # the loop's
        self._done_rows = self._done_bytes = 0  # the writer's
        self._loop_drops: dict[Key, int] = {}  # the loop's
        self._writer_drops: Counter[Key] = Counter()  # the writer's
        self._told: Mapping[Key, int] = {}  # drops that are committed
        self._batch: list[_Entry] = []
        self._id, self._number = secrets.token_hex(8), 0
        self._tried: _Tried | None = None
        self._wake = threading.Event()
        self.written = 0
        """Rows that are durable."""
        self.usage: defaultdict[Usage, float] = defaultdict(float)
        """Tokens and USD of the rows that were read."""
        self._idle = False
        self.away = False
        """Whether the store's server could not be reached at the last try."""
        self._closing = self._lost = False
        self._give_up_at = float("inf")
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)
        self._thread.start()

    def put(self, row: Row) -> bool:
        """
        Keep a row with one of the next commits; never waits.

        Args:
            row: as served.

        Returns: False where it was dropped, which is counted.
        """
        return self.offer(row, None)

    async def put_durable(self, row: Row) -> bool:
        """
        Keep a row before its answer is sent.

        Args:
            row: as served.

        Returns: True once it is durable; False where it was dropped, which is counted: the answer goes out all the same.
        """
        future = asyncio.get_running_loop().create_future()
        return await future if self.offer(row, future) else False

    async def feedback(self, words: Sequence[Feedback]) -> Said:
        """
        Keep what was said of one request, in the order of the queue: a row that still waits is known.

        Args:
            words: from `read_feedback`.

        Returns: what became of it; "kept" is durable.
        """
        future = self.offer_words(words)
        if future is None:
            return "refused"
        try:
            return "kept" if await future else "unknown"
        except StoreError:
            return "refused"

    def offer_words(self, words: Sequence[Feedback]) -> _Future | None:
        """
        As `feedback`, without waiting.

        Args:
            words: from `read_feedback`.

        Returns: to be True where the request is known; None where nothing is taken now.
        """
        if self.state != "open" or self.waiting >= self._most:
            return None
        future: _Future = asyncio.get_running_loop().create_future()
        self._append(_Entry(row=None, words=words, future=future))
        return future

    def lost(self, key: Key) -> None:
        """
        Count a row that was dropped before it came here.

        Args:
            key: its task, slice and the reason.
        """
        self._loop_drops[key] = self._loop_drops.get(key, 0) + 1

    def follow(self) -> None:
        """Nothing to hear of: the writer is a thread of this process."""

    @property
    def waiting(self) -> int:
        """Rows that are not durable yet."""
        return self._put_rows - self._done_rows

    @property
    def waiting_bytes(self) -> int:
        """Their size."""
        return self._put_bytes - self._done_bytes

    @property
    def dropped(self) -> Mapping[Key, int]:
        """(task, slice, reason) to the rows that this process dropped."""
        return dict(sorted((Counter(self._loop_drops) + Counter(dict(self._writer_drops))).items()))

    async def close(self, within_s: float = 20.0) -> bool:
        """
        Commit all that waits and end the writer; call it when no request is left.

        Args:
            within_s: how long a disk that takes nothing is tried.

        Returns: False where rows that had been taken were given up, which `dropped` tells.
        """
        self._give_up_at = time.monotonic() + within_s
        self._closing = True
        self._wake.set()
        await asyncio.to_thread(self._thread.join)
        return not self._lost

    def offer(self, row: Row, future: _Future | None) -> bool:
        """
        As `put` and `put_durable`, without waiting.

        Args:
            row: as served.
            future: told whether the row is durable; None where nobody asks.

        Returns: False where it was dropped, which is counted; then the future is told nothing.
        """
        if self.mode == "off":
            return False
        if self.state != "open" or self._closing:
            return self._drop(row, REFUSED.get(self.state, "closed"))
        if self.away and future is not None:
            return self._drop(row, "store busy")  # its answer goes out now, not when the next try has failed
        size = row.size
        fill = max((self._put_rows - self._done_rows) / self._most, (self._put_bytes - self._done_bytes + size) / MOST_BYTES)
        weight = 1.0
        if fill >= DRAW_FROM:
            if fill >= 1.0:
                return self._drop(row, "queue full")
            chance = max(LEAST_CHANCE, (1.0 - fill) / (1.0 - DRAW_FROM))
            if future is None:  # whoever waits for the disk is slowed down by it already
                if self._chance() >= chance:
                    return self._drop(row, "drawn")
                weight = 1.0 / chance
        self._append(_Entry(row=row, weight=weight, size=size, future=future))
        return True

    def _append(self, entry: _Entry) -> None:
        self._put_rows += 1
        self._put_bytes += entry.size
        self._queue.append(entry)
        if self._idle:  # else the writer looks at the queue again before it sleeps
            self._wake.set()

    def _drop(self, row: Row, why: Drop) -> bool:
        self.lost((row.served.task, row.served.slice, why))
        return False

    # --- the writer's thread ---

    def _run(self) -> None:
        while True:
            closing = self._closing  # before the commit, so that what was dropped until then is in it
            self._rest()
            if not self._batch:
                self._load()
            if self.state == "read-only":
                self._give_up("disk error")
            else:
                self._commit()
            if closing and self._batch and time.monotonic() > self._give_up_at:
                self._give_up("disk full" if self.state == "refusing" else "store busy")
            if closing and not self._batch and not self._queue:
                self.state = "closed"
                return

    def _rest(self) -> None:
        """Until there is something to do: rows, counts once a second, or another try."""
        if self._batch or self.state == "refusing":
            if self._closing:
                time.sleep(AGAIN_S)
            else:
                self._wake.wait(self._probe_s if self.state == "refusing" else AGAIN_S)
                self._wake.clear()
        elif not self._queue and not self._closing:
            self._idle = True
            if not self._queue and not self._closing:  # again, now that whoever comes next would wake us
                self._wake.wait(TICK_S)
            self._idle = False
            self._wake.clear()
            if self._queue and self._queue[0].future is None and not self._closing:
                time.sleep(self._window_s)

    def _load(self) -> None:
        size = 0
        while self._queue and len(self._batch) < GROUP_ROWS and size < GROUP_BYTES:
            entry = self._queue.popleft()
            size += entry.size
            entry.kept = None if entry.row is None else self._read(entry.row, entry.weight)
            if entry.row is not None and entry.kept is None:
                _settle(entry.future, False)
                self._done([entry])
                continue
            self._batch.append(entry)
            if self._breath_s and len(self._batch) % BREATH_ROWS == 0:
                time.sleep(self._breath_s)

    def _read(self, row: Row, weight: float) -> Kept | None:
        how = row.served
        found: TrafficRecord | Skipped | None
        try:
            record = record_of(row, weight=weight, prices=self._prices)
            self._count(record)
            found = writable(record, self._redactor)
        except Exception as error:  # noqa: BLE001 - callers send what they like, and the next row must not suffer from it
            found = self._aside(row, error)
        return None if found is None else Kept(row=found, task=how.task, slice=how.slice)

    def _count(self, record: TrafficRecord) -> None:
        """Tokens and money; what an answer of the student saved is what the teacher's cost so far, on average."""
        how, answer, usage = record.served, record.completion, self.usage
        if how is None or answer is None:
            return
        for kind, n in (("input", answer.tokens_in), ("output", answer.tokens_out)):
            if n:
                usage[how.task, how.route, kind] += n * how.weight
        if how.route == "teacher" and answer.cost_usd is not None:
            usage[how.task, how.route, "cost"] += answer.cost_usd * how.weight
            usage[how.task, how.route, "priced"] += how.weight
        elif how.route == "student" and (priced := usage[how.task, "teacher", "priced"]):
            usage[how.task, how.route, "avoided"] += usage[how.task, "teacher", "cost"] / priced * how.weight

    def _aside(self, row: Row, error: Exception) -> TrafficRecord | Skipped | None:
        try:
            return aside(row, error, self._redactor)
        except Exception as again:  # noqa: BLE001 - as above; nothing is written unredacted
            self.fault = f"a row can't be written: {type(again).__name__}"
            self._writer_drops[row.served.task, row.served.slice, "unwritable"] += 1
            return None

    def _commit(self) -> None:
        try:
            self._learn()
        except Exception as error:  # noqa: BLE001 - as below
            self._failed(error)
            return
        dropped = Counter(dict(self._loop_drops)) + self._writer_drops  # the loop adds to its own meanwhile
        fresh = {key: n - self._told.get(key, 0) for key, n in dropped.items() if n > self._told.get(key, 0)}
        kept = [entry.kept for entry in self._batch if entry.kept is not None]
        words = [entry for entry in self._batch if entry.row is None]
        if kept or fresh or words or self.away:
            self._number += 1
            tried = _Tried(once=Addition(writer=self._id, number=self._number), dropped=dropped, entries=tuple(self._batch))
            try:
                known = self._log.commit(kept, fresh, [self._clean(entry.words) for entry in words], tried.once)
            except Exception as error:  # noqa: BLE001 - this thread may not end: counts and feedback depend on it
                self._tried = tried if isinstance(error, StoreError) and is_away(error) else None
                self._failed(error)
                return
            for entry, there in zip(words, known, strict=True):
                _settle(entry.future, there)
        self._told = dropped
        if self.away:
            self.away, self.fault = False, ""
        for entry in self._batch:
            if entry.row is not None:
                _settle(entry.future, True)
        self.written += len(kept)
        self._done(self._batch)
        self._batch = []
        if self.state == "refusing":
            self.state, self.fault = "open", ""

    def _learn(self) -> None:
        """Whether the last commit was made although its answer was lost: neither its rows nor its counts may be told again."""
        tried = self._tried
        if tried is not None and self._log.made(tried.once):
            there = [entry for entry in tried.entries if entry.kept is not None]
            for how in (entry.row.served for entry in there if entry.row is not None and entry.future is not None):
                self._writer_drops[how.task, how.slice, "store busy"] -= 1  # whoever waited was told no, and it is in the log
            again = [entry for entry in self._batch if entry in tried.entries]
            self._batch = [entry for entry in self._batch if entry not in tried.entries]
            self._told = tried.dropped
            self.written += len(there)
            self._done(again)
        self._tried = None

    def _clean(self, words: Sequence[Feedback]) -> list[Feedback]:
        return [one if one.kind == "rating" else replace(one, value=self._redactor.answer(one.value)) for one in words]

    def _failed(self, error: Exception) -> None:
        self.fault = str(error)
        if is_broken(error):
            self.state = "read-only"
            self._log.broke()
            self._give_up("disk error")
        elif isinstance(error, StoreError):
            full, self.away = is_full(error), is_away(error)
            if full:
                self.state = "refusing"
            queued = [self._queue.popleft() for _ in range(len(self._queue))]  # the loop only appends
            self._queue.extendleft(entry for entry in reversed(queued) if entry.future is None)
            awaited = [entry for entry in (*self._batch, *queued) if entry.future is not None]
            self._batch = [entry for entry in self._batch if entry.future is None]  # nobody waits: they are tried again
            self._lose(awaited, "disk full" if full else "store busy")
        else:
            self._give_up("unwritable")

    def _give_up(self, why: Drop) -> None:
        self._lost = self._lost or bool(self._batch)
        self._lose(self._batch, why)
        self._batch = []

    def _lose(self, entries: Sequence[_Entry], why: Drop) -> None:
        for entry in entries:
            if entry.row is not None:
                self._writer_drops[entry.row.served.task, entry.row.served.slice, why] += 1
            _settle(entry.future, StoreError(self.fault, next_action="try again later") if entry.row is None else False)
        self._done(entries)

    def _done(self, entries: Sequence[_Entry]) -> None:
        self._done_rows += len(entries)
        self._done_bytes += sum(entry.size for entry in entries)


class _Posted(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /overproof/v1/feedback`."""

    request_id: str
    label: str | dict[str, object] | None = None
    rating: float | None = None
    comment: str | None = None


_posted = msgspec.json.Decoder(_Posted).decode


def read_feedback(raw: bytes, *, key: str) -> list[Feedback]:
    """
    The words of one posted feedback.

    Args:
        raw: the body: request_id, and one or more of label, rating, comment.
        key: id of the caller's key.

    Returns: one entry for each word.
    Raises: DataError for anything else; its `what` may be shown to the caller.
    """
    todo = 'post {"request_id": "…", "label" or "rating" or "comment": …}'
    try:
        posted = _posted(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"feedback can't be read: {error}", next_action=todo) from error
    label = posted.label if posted.label is None or isinstance(posted.label, str) else msgspec.json.encode(posted.label).decode()
    rating = posted.rating
    if rating is not None and not (0.0 <= rating <= 1.0 or rating == -1.0):
        raise DataError(f"rating is {rating!r}, expected a number in [0, 1], or -1", next_action=todo)
    if not posted.request_id or len(posted.request_id) > ID_CHARS:
        raise DataError("request_id is empty or too long", next_action="take it from the header x-overproof-request-id")
    for name, text, most in (("label", label, LABEL), ("comment", posted.comment, COMMENT)):
        if text is not None and not (text.strip() and len(text) <= most):
            raise DataError(f"{name} is empty or longer than {most:,} characters", next_action=todo)
    said: list[tuple[FeedbackKind, str | None]] = [
        ("label", label), ("rating", None if rating is None else f"{rating:g}"), ("comment", posted.comment),
    ]  # fmt: skip
    at = now()
    words = [Feedback(request_id=posted.request_id, at=at, key=key, kind=kind, value=text) for kind, text in said if text is not None]
    if not words:
        raise DataError("feedback says nothing", next_action=todo)
    return words


def _settle(future: _Future | None, result: bool | StoreError) -> None:  # noqa: FBT001 - it is the result itself
    """Hand a result to whoever waits for it on the loop; nobody may be left."""
    if future is None:
        return

    def tell() -> None:
        if not future.done():
            future.set_exception(result) if isinstance(result, StoreError) else future.set_result(result)

    with contextlib.suppress(RuntimeError):  # the loop is closed
        future.get_loop().call_soon_threadsafe(tell)
