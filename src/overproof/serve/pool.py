"""A released student in the gateway's process: one-thread workers that take what waits and put like lengths together."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from overproof.data import Request
from overproof.serve.breaker import Breaker
from overproof.students.bundle import Answer
from overproof.students.card import Card
from overproof.students.seen import Batching

MOST = 32  # requests that a worker takes at once; more cost padding and gain nothing
IN_LINE_S = 0.0003  # a hop to a thread and back costs about 0.1 ms, and its Python part runs under the same lock anyway
IN_LINE_CHARS = 2000  # a longer text goes to a worker however fast the student is: the loop must not wait for it
HUNG_S = 1.0  # a worker that has sat on one pass for so long counts as hung until it comes back
LATEST = 0.1  # weight of the last pass in the measured service time
ROUNDS = 5
SAME = 1e-5  # a confidence may differ so much between a batch and alone

Fault = Literal["", "deadline", "student_error", "busy"]
"""Why there is no answer. "busy": the student was not asked, since it could not have answered in time, or its breaker is open."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What a look at one request came to."""

    answer: Answer | None
    """None iff there is a fault."""
    fault: Fault
    latency_s: float
    """From the call to the answer, waiting included."""


class Answering(Protocol):
    """What a pool needs of a bundle."""

    card: Card
    batching: Batching

    def sizes(self, requests: Sequence[Request]) -> Sequence[int]:
        """Length of each request; see `Bundle.sizes`."""

    def answers(self, requests: Sequence[Request]) -> Sequence[Answer]:
        """One answer each; see `Bundle.answers`."""


class _Item:
    __slots__ = ("at", "due", "future", "loop", "request", "ticket", "timer")

    def __init__(self, request: Request, loop: asyncio.AbstractEventLoop, at: float, due: float, ticket: int) -> None:
        self.request, self.loop, self.at, self.due, self.ticket = request, loop, at, due, ticket
        self.future: asyncio.Future[Look] = loop.create_future()
        self.timer: asyncio.TimerHandle | None = None


class _Worker(threading.Thread):
    """Daemonic: a student that never returns must not keep the process alive."""

    def __init__(self, pool: Pool, number: int) -> None:
        super().__init__(name=f"student-{number}", daemon=True)
        self._pool, self.since = pool, 0.0
        self.start()

    def run(self) -> None:
        while items := self._pool._take():  # noqa: SLF001 - its own pool
            self.since = time.monotonic()
            try:
                self._pool._serve(items, self)  # noqa: SLF001
            finally:
                self.since = 0.0


class Pool:
    """
    Asks one student. Make it in a thread: it measures the student first.

    Args:
        bundle: a loaded bundle, or whatever answers as one.
        workers: threads; a student is asked from so many at the same time.
        breaker: asked before each request; none by default.
        in_line_s: a student whose request takes less is asked on the loop, without a thread; 0 never does. One that once takes
            longer than the deadline there is asked from threads for good: the loop can't be given back while it works.
        hung_s: see `HUNG_S`.
    """

    def __init__(
        self, bundle: Answering, *, workers: int = 2, breaker: Breaker | None = None, in_line_s: float = IN_LINE_S, hung_s: float = HUNG_S
    ) -> None:
        self.bundle = bundle
        self.service_s = 0.0
        """Measured time of one request, in a batch of those that wait."""
        self.batching = bundle.batching
        """How requests go together here: alone, where this machine gives another answer to a batch."""
        self._breaker, self._in_line_s, self._hung_s = breaker, in_line_s, hung_s
        self._labels = frozenset(bundle.card.labels) if bundle.card.labels else None
        self._waiting: deque[_Item] = deque()
        self._ready = threading.Condition()
        self._idle, self._closing = 0, False
        self._measure()
        self._workers = [_Worker(self, number) for number in range(workers)]

    def _measure(self) -> None:
        """How long a request takes, and whether a batch says what each says alone, on the rows of the self-test."""
        rows = [Request(id="", fields=row.fields) for row in self.bundle.card.selftest] or [Request(id="", fields=dict.fromkeys(self.bundle.card.input, ""))]
        taken = []
        for _ in range(ROUNDS):
            for row in rows[:4]:
                start = time.perf_counter()
                self.bundle.answers([row])
                taken.append(time.perf_counter() - start)
        self.service_s = sorted(taken)[len(taken) // 2]
        if self.batching.together > 1:
            alone = [self.bundle.answers([row])[0] for row in rows]
            for group in self._groups([*rows, *rows]):
                for at, got in zip(group, self.bundle.answers([rows[i % len(rows)] for i in group]), strict=True):
                    if got.guess != alone[at % len(rows)].guess or abs(got.confidence - alone[at % len(rows)].confidence) > SAME:
                        self.batching = Batching()
                        return

    @property
    def resting(self) -> bool:
        """Whether the breaker lets nobody ask now."""
        return self._breaker is not None and self._breaker.state != "closed" and self._breaker.retry_after_s > 0

    @property
    def waiting(self) -> int:
        """Requests that no worker has taken yet."""
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """Whether a worker is free and nothing waits, so that a look delays nobody."""
        return self._idle > 0 and not self._waiting and not self._closing

    @property
    def alive(self) -> int:
        """Workers that are not hung."""
        now = time.monotonic()
        return sum(not (0 < worker.since < now - self._hung_s) and worker.is_alive() for worker in self._workers)

    @property
    def healthy(self) -> bool:
        """False once closed, or with every worker hung."""
        return not self._closing and self.alive > 0

    def in_line(self, fields: Mapping[str, str]) -> bool:
        """Whether such a request is answered on the loop."""
        return self.service_s < self._in_line_s and sum(map(len, fields.values())) <= IN_LINE_CHARS

    async def look(self, fields: Mapping[str, str], attributes: Mapping[str, str], *, deadline_s: float) -> Look:
        """
        Ask the student.

        Args:
            fields: exactly the task's input fields.
            attributes: what slices are cut by.
            deadline_s: from now; a later result is dropped.

        Returns: its answer, or the fault; never raises for what a student does.
        """
        at = time.monotonic()
        ticket = 0
        if self._closing or self._too_late(deadline_s) or (self._breaker is not None and not (ticket := self._breaker.admit())):
            return Look(answer=None, fault="busy", latency_s=time.monotonic() - at)
        request = Request(id="", fields=fields, attributes=attributes)
        if self.in_line(fields):
            answer = self._answered([request])[0]
            took = time.monotonic() - at
            self.service_s += LATEST * (took - self.service_s)
            if took <= deadline_s:
                return self._settled(answer, at, ticket)
            self._in_line_s = 0.0
            if self._breaker is not None:
                self._breaker.record(ticket, fault=True)
            return Look(answer=None, fault="deadline", latency_s=took)
        loop = asyncio.get_running_loop()
        item = _Item(request, loop, at, at + deadline_s, ticket)
        item.timer = loop.call_later(deadline_s, self._expire, item)
        with self._ready:
            self._waiting.append(item)
            self._ready.notify()
        return await item.future

    def _too_late(self, deadline_s: float) -> bool:
        alive = self.alive if self._waiting else len(self._workers)
        if not alive or (self._waiting and len(self._waiting) * self.service_s > deadline_s * alive):
            return True
        return not self._idle and not self.alive  # every worker sits on something that does not end

    # -- on the loop -------------------------------------------------------------------------------------------

    def _expire(self, item: _Item) -> None:
        if item.timer is not None:
            item.timer = None
            look = Look(answer=None, fault="deadline", latency_s=time.monotonic() - item.at)
            if self._breaker is not None:
                self._breaker.record(item.ticket, fault=True)
            if not item.future.done():
                item.future.set_result(look)

    def _hand_back(self, items: Sequence[_Item], answers: Sequence[Answer | None]) -> None:
        for item, answer in zip(items, answers, strict=True):
            if item.timer is None:
                continue  # too late: the teacher has been asked
            item.timer.cancel()
            item.timer = None
            look = self._settled(answer, item.at, item.ticket)
            if not item.future.done():  # done where the caller left
                item.future.set_result(look)

    def _settled(self, answer: Answer | None, at: float, ticket: int) -> Look:
        if self._breaker is not None:
            self._breaker.record(ticket, fault=answer is None)
        return Look(answer=answer, fault="" if answer is not None else "student_error", latency_s=time.monotonic() - at)

    # -- in a worker -------------------------------------------------------------------------------------------

    def _take(self) -> list[_Item]:
        """What one worker does next: its share of what waits; empty once closed."""
        with self._ready:
            self._idle += 1
            while not self._waiting and not self._closing:
                self._ready.wait()
            share = -(-len(self._waiting) // self._idle)
            self._idle -= 1
            most = min(MOST, self.batching.together, share)
            return [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]

    def _serve(self, items: Sequence[_Item], worker: _Worker) -> None:
        now = time.monotonic()
        live = [item for item in items if item.due > now]
        requests = [item.request for item in live]
        for group in self._groups(requests):
            worker.since = time.monotonic()
            answers = self._answered([requests[i] for i in group])
            took = time.monotonic() - worker.since
            # one pass that got stuck says little about the next
            self.service_s += LATEST * (min(took / len(group), 10 * self.service_s) - self.service_s)
            by_loop: dict[asyncio.AbstractEventLoop, tuple[list[_Item], list[Answer | None]]] = {}
            for i, answer in zip(group, answers, strict=True):
                some = by_loop.setdefault(live[i].loop, ([], []))
                some[0].append(live[i])
                some[1].append(answer)
            for loop, some in by_loop.items():
                _call(loop, self._hand_back, *some)

    def _groups(self, requests: Sequence[Request]) -> list[list[int]]:
        """Positions that go together: at most so many, and so little padding, as the student's batching admits."""
        how = self.batching
        if len(requests) < 2 or how.together < 2:
            return [[i] for i in range(len(requests))]
        try:
            sizes = [max(1, size) for size in self.bundle.sizes(requests)]
        except Exception:  # noqa: BLE001 - whatever it is, each request finds out by itself
            return [[i] for i in range(len(requests))]
        groups: list[list[int]] = []
        filled = 0
        for i in sorted(range(len(sizes)), key=sizes.__getitem__, reverse=True):
            group = groups[-1] if groups else None
            if group is None or len(group) >= how.together or filled + sizes[i] < (1 - how.padding) * sizes[group[0]] * (len(group) + 1):
                groups.append([i])
                filled = sizes[i]
            else:
                group.append(i)
                filled += sizes[i]
        return groups

    def _answered(self, requests: Sequence[Request]) -> list[Answer | None]:
        """One each; None for a fault of the student's, which costs nobody beside it an answer."""
        try:
            found = list(self.bundle.answers(requests))
            if len(found) != len(requests):
                return [None] * len(requests)
        except Exception:  # noqa: BLE001 - a student may raise anything; it becomes the request's fault
            if len(requests) == 1:
                return [None]
            return [self._answered([one])[0] for one in requests]
        return [answer if sound(answer, self._labels) else None for answer in found]

    # -- from any thread ---------------------------------------------------------------------------------------

    def close(self, *, wait_s: float = 5.0) -> bool:
        """
        Take nothing new, finish what waits, end the workers. Blocks; a hung worker is left behind.

        Args:
            wait_s: the longest that all workers together get.

        Returns: whether all have ended.
        """
        with self._ready:
            self._closing = True
            self._ready.notify_all()
        until = time.monotonic() + wait_s
        for worker in self._workers:
            worker.join(max(0.0, until - time.monotonic()))
        return not any(worker.is_alive() for worker in self._workers)


def sound(answer: Any, labels: frozenset[str] | None) -> bool:
    """
    Whether something can be what a release's student says; its probabilities are the bundle's own softmax of finite scores.

    Args:
        answer: whatever came back.
        labels: the task's; None for records and texts, which the bundle checks.

    Returns: False for a confidence outside [0, 1], a foreign label, or a value where the teacher has to answer.
    """
    if not isinstance(answer, Answer) or not 0.0 <= answer.confidence <= 1.0:
        return False
    if labels is not None and answer.guess not in labels:
        return False
    return answer.guess is not None and answer.value == answer.guess if answer.route == "student" else answer.value is None


def _call(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *given: object) -> None:
    try:
        loop.call_soon_threadsafe(function, *given)
    except RuntimeError:  # the loop has been closed, so nobody waits
        return
