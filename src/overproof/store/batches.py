"""A provider's batch API behind the ledger: half the price, hours later, and a killed run finds its batch again."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from overproof.data import BatchResult, BatchState, Completion, Outcome, Request
from overproof.errors import TeacherBusy, TeacherError
from overproof.store.labels import TRANSIENT_TRIES, Caller, LedgeredTeacher, Settlement
from overproof.store.sql import Connection

T = TypeVar("T")

_PLAN = "INSERT INTO batch VALUES(?, ?, NULL, ?, 'planned')"
_ROW = "INSERT INTO batch_row VALUES(?, ?)"
_OPEN = "UPDATE batch SET provider_id=?, state='open' WHERE tag=?"
_END = "UPDATE batch SET state=? WHERE tag=?"
_UNFINISHED = "SELECT tag, provider_id, at FROM batch WHERE pin=? AND state IN ('planned', 'open') ORDER BY at"
_ROWS = """
    SELECT a.id, a.key, a.max_micro FROM batch_row r JOIN attempt a ON a.id=r.attempt
    WHERE r.tag=? AND a.state='reserved' ORDER BY a.id"""


class BatchCaller(Caller, Protocol):
    """A teacher that can also be asked in batches. Its calls raise TeacherBusy where a later try may succeed."""

    def batch_line(self, custom_id: str, request: Request, *, sample_index: int) -> bytes:
        """One request as the provider wants it in a batch."""

    async def submit(self, lines: Sequence[bytes], *, tag: str) -> str:
        """Hand a batch in under our tag; the provider's id of it."""

    async def find(self, tag: str, *, rows: int, since: float) -> str | None:
        """The id of the batch that was handed in under this tag, if the provider has it."""

    async def poll(self, batch_id: str) -> BatchState:
        """How a batch stands."""

    async def fetch(self, state: BatchState) -> Sequence[BatchResult]:
        """What became of each row of an ended batch, in any order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchHabits:
    """How batches are made and looked after; none of it changes an answer."""

    most_rows: int = 50_000
    """Providers admit 50,000 to 100,000."""
    most_bytes: int = 100_000_000
    """Of all lines together; providers admit 200 MB."""
    gather_s: float = 0.25
    """A batch is closed once so long nothing was added to it."""
    poll_s: float = 30.0
    """Between two looks at a running batch."""
    settle_s: float = 60.0
    """After a crash: a batch that the provider doesn't list so long after it was planned was never handed in."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Wanted:
    key: str
    request: Request
    index: int
    answer: asyncio.Future[Outcome]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    key: str
    max_micro: int


class BatchedTeacher(LedgeredTeacher):
    """
    A teacher that is asked through its provider's batch API; everything else is as with `LedgeredTeacher`.

    All rows of a batch are reserved in one transaction with our tag before anything is sent, and settled in one
    transaction that closes the batch: whenever the process dies, the next one finds the batch by its id or its tag,
    and no row is sent twice. Rows that the batch left out or let expire go into the next batch.

    Args:
        teacher: see `BatchCaller`.
        habits: sizes and waiting times.
        given: as for `LedgeredTeacher`; prices are those of the batch API.
    """

    _teacher: BatchCaller

    def __init__(self, teacher: BatchCaller, *args: object, habits: BatchHabits | None = None, **given: object) -> None:
        super().__init__(teacher, *args, **given)  # type: ignore[arg-type]
        self._habits = habits or BatchHabits()
        self._wanted: list[_Wanted] = []
        self._collector: asyncio.Task[None] | None = None
        self._resumed: asyncio.Task[None] | None = None

    async def sample(
        self, request: Request, *, n: int, recorded: Completion | None = None
    ) -> Sequence[Completion]:
        """The teacher's first n answers; all that are missing go into one batch. See `LedgeredTeacher`."""
        if self._resumed is None:
            self._resumed = asyncio.create_task(self._resume())
        await asyncio.shield(self._resumed)
        return await asyncio.gather(*(self._one(request, index, recorded) for index in range(n)))

    async def _attempt(self, key: str, request: Request, index: int) -> Outcome:
        self._most(request)  # without a price nothing is queued
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._wanted.append(_Wanted(key=key, request=request, index=index, answer=answer))
        if self._collector is None or self._collector.done():
            self._collector = asyncio.create_task(self._collect())
        return await answer

    async def _pause(self, outcome: Outcome, tries: int) -> None:
        """The next batch takes its time anyway; pauses of many lengths would only tear it into small ones."""

    async def _collect(self) -> None:
        while self._wanted:
            size = -1
            while size != len(self._wanted):
                size = len(self._wanted)
                await self._sleep(self._habits.gather_s)
            chunk = self._take()
            try:
                await self._round(chunk)
            except BaseException as error:
                for one in (*chunk, *self._wanted):
                    if not one.answer.done():
                        one.answer.cancel() if isinstance(error, asyncio.CancelledError) else one.answer.set_exception(error)
                self._wanted.clear()
                if not isinstance(error, Exception):
                    raise
                return

    def _take(self) -> list[_Wanted]:
        size, rows = 0, 0
        for one in self._wanted[: self._habits.most_rows]:
            size += len(self._teacher.batch_line("x" * 40, one.request, sample_index=one.index)) + 1
            if rows and size > self._habits.most_bytes:
                break
            rows += 1
        chunk, self._wanted = self._wanted[:rows], self._wanted[rows:]
        return chunk

    async def _round(self, chunk: Sequence[_Wanted]) -> None:
        tag = "op" + uuid.uuid4().hex[:20]
        at = time.time()

        def plan(connection: Connection) -> list[int]:
            connection.execute(_PLAN, (tag, self._pin_digest, at))
            numbers = []
            for one in chunk:
                number = self._ledger.reserve_in(
                    connection, one.key, run_id=self._run_id, max_micro=self._most(one.request)
                )
                connection.execute(_ROW, (number, tag))
                numbers.append(number)
            return numbers

        numbers = await self._ledger.group.write(plan)  # all of it, or none where the cap doesn't leave so much
        lines = [
            self._teacher.batch_line(_name(tag, number), one.request, sample_index=one.index)
            for number, one in zip(numbers, chunk, strict=True)
        ]
        batch_id = await self._hand_in(tag, lines, at)
        outcomes = await self._finish(tag, batch_id)
        for number, one in zip(numbers, chunk, strict=True):
            if not one.answer.done():
                one.answer.set_result(outcomes[number])

    async def _hand_in(self, tag: str, lines: Sequence[bytes], at: float) -> str:
        sure = True

        async def once() -> str:
            nonlocal sure
            # A request that failed may have arrived all the same: before another one, look.
            found = None if sure else await self._teacher.find(tag, rows=len(lines), since=at)
            sure = False
            return found or await self._teacher.submit(lines, tag=tag)

        try:
            batch_id = await self._persist(once)
        except TeacherBusy:
            raise  # it may be there: the next run looks for it before anything else
        except TeacherError:
            await self._settle(tag, {}, state="gone", otherwise=_never("the provider refused the batch"))
            raise
        await self._ledger.group.write(lambda connection: connection.execute(_OPEN, (batch_id, tag)).fetchall())
        return batch_id

    async def _resume(self) -> None:
        """Finish what an earlier process has handed in, before anything is asked."""
        for tag, batch_id, at in self._ledger.rows(_UNFINISHED, (self._pin_digest,)):
            rows = len(self._rows_of(tag))
            found = batch_id or await self._persist(lambda t=tag, r=rows, a=at: self._teacher.find(t, rows=r, since=a))  # type: ignore[misc]
            if found is None and (young := at + self._habits.settle_s - time.time()) > 0:
                await self._sleep(min(young, self._habits.settle_s))
                found = await self._persist(lambda t=tag, r=rows, a=at: self._teacher.find(t, rows=r, since=a))  # type: ignore[misc]
            if found is None:
                await self._settle(tag, {}, state="gone", otherwise=_never("the batch was never handed in"))
                continue
            await self._ledger.group.write(lambda c, f=found, t=tag: c.execute(_OPEN, (f, t)).fetchall())  # type: ignore[misc]
            await self._finish(tag, found)

    async def _finish(self, tag: str, batch_id: str) -> dict[int, Outcome]:
        """Wait for a batch, settle every row of it, and close it."""
        while (state := await self._persist(lambda: self._teacher.poll(batch_id))).status == "running":
            await self._sleep(state.retry_after_s or self._habits.poll_s)
        if state.status == "failed":
            await self._settle(tag, {}, state="gone", otherwise=_never(f"the batch failed: {state.reason}"))
            raise TeacherError(
                f"the provider refused the batch {batch_id!r}: {state.reason}",
                next_action="mend [teacher], then run again: answers that are paid for are kept",
            )
        results = await self._persist(lambda: self._teacher.fetch(state))
        found: dict[str, Outcome] = {}
        for result in results:
            found.setdefault(result.custom_id, result.outcome)
        # Nobody can say whether a row without a line was answered and billed: the most that it can cost is charged.
        missing = replace(_never("the batch's results leave this row out"), sent=True)
        return await self._settle(tag, found, state="closed", otherwise=missing)

    async def _settle(
        self, tag: str, found: Mapping[str, Outcome], *, state: str, otherwise: Outcome
    ) -> dict[int, Outcome]:
        rows = self._rows_of(tag)
        settlements: list[Settlement] = []
        outcomes: dict[int, Outcome] = {}
        for number, row in rows.items():
            outcome = found.get(_name(tag, number), otherwise)
            settlement = self._settlement(number, outcome, self._cost(outcome, row.max_micro))
            settlements.append(settlement)
            outcomes[number] = replace(outcome, completion=settlement.completion)

        def settle(connection: Connection) -> None:
            for settlement in settlements:
                self._ledger.settle_in(connection, settlement)
            connection.execute(_END, (state, tag))

        await self._ledger.group.write(settle)
        for settlement in settlements:
            most = rows[settlement.attempt].max_micro
            if settlement.cost_micro > most:
                raise TeacherError(
                    f"a call cost ${settlement.cost_micro / 1e6:.6f}, more than its upper bound ${most / 1e6:.6f}:"
                    " the cap can't be kept",
                    next_action="correct the prices and max_tokens in [teacher]",
                )
        for outcome in outcomes.values():
            self._same_system(outcome)
        return outcomes

    def _rows_of(self, tag: str) -> dict[int, _Row]:
        return {number: _Row(key=key, max_micro=most) for number, key, most in self._ledger.rows(_ROWS, (tag,))}

    async def _persist(self, call: Callable[[], Awaitable[T]]) -> T:
        """The one layer of retries for what surrounds a batch."""
        tries = 0
        while True:
            try:
                return await call()
            except TeacherBusy as error:
                tries += 1
                if tries >= TRANSIENT_TRIES:
                    raise
                await self._sleep(error.retry_after_s or self._random.uniform(0.0, 0.5 * 2**tries))


def _name(tag: str, number: int) -> str:
    """What a row is called at the provider: unique over all batches, and it carries the tag."""
    return f"{tag}-{number}"


def _never(reason: str) -> Outcome:
    return Outcome(
        kind="transient", completion=None, reason=reason, http_status=None,
        retry_after_s=None, fingerprint=None, request_id=None, sent=False,
    )
