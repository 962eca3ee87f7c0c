"""
A load generator in a process of its own, for requests of one line of a file each; prints one line of JSON.

python benchmarks/gateway/load.py --url http://127.0.0.1:4000 --bodies FILE [--connections 16]
    [--rate 1000] [--seconds 3] [--most 100000] [--warm 0.5] [--pid PID] [--core 1] [--header "authorization: Bearer …"]
    [--count x-overproof-route]

Closed loop: each connection asks again as soon as it is answered. With `--rate` an open loop: requests fall due at a fixed
rate whether or not the earlier ones are answered, on at most `--connections` of them, and the time from due to answered
counts, so that queueing is seen. What is sent in the first `--warm` seconds is not counted, nor are failures left out:
a refused connection, a cut or late answer and any status but 200 are each a failure. `--pid` names the server, whose
processor time is read from /proc over the counted part.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
from collections import Counter, deque
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import httptools
import uvloop

TICK_S = 0.001  # what the loop's timers can tell apart
PATIENCE_S = 30.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Processor time of a process with all its threads, without children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


class Caller(asyncio.Protocol):
    """One connection, opened again where the server ends it."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.parser: httptools.HttpResponseParser | None = None
        self.transport: Any = None
        self.asked_at: float | None = None
        """When the request under way fell due; None where none is."""

    def ask(self, at: float) -> None:
        self.asked_at = at
        if self.transport is None:
            self.load.keep(self.open())
        else:
            self.transport.write(self.load.next_request())

    async def open(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: self, self.load.host, self.load.port)
        except OSError as error:
            self.failed(type(error).__name__)
            return
        if self.transport is not None:
            self.transport.write(self.load.next_request())

    def connection_made(self, transport: Any) -> None:
        self.transport, self.parser = transport, httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        if self.parser is None:
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.drop()
            self.failed("no proper HTTP")

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self.asked_at is not None:
            self.failed("cut" if exc is None else f"cut: {type(exc).__name__}")
        else:
            self.load.idle_lost(self)

    def on_message_complete(self) -> None:
        parser = self.parser
        if parser is None or self.asked_at is None:
            return
        status, at, self.asked_at = parser.get_status_code(), self.asked_at, None
        if not parser.should_keep_alive():
            self.drop()
        self.load.done(self, at, "" if status == 200 else f"status {status}")

    def failed(self, why: str) -> None:
        if self.asked_at is not None:
            at, self.asked_at = self.asked_at, None
            self.load.done(self, at, why)

    def drop(self) -> None:
        transport, self.transport, self.parser = self.transport, None, None
        if transport is not None:
            transport.abort()


class CountingCaller(Caller):
    """Counts the values of one header, too."""

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == self.load.counted:
            self.load.values[value.decode("latin-1")] += 1


class Load:
    """What is asked, how often, and what came of it."""

    def __init__(self, given: argparse.Namespace) -> None:
        url = urlsplit(given.url)
        assert url.hostname is not None
        self.host, self.port = url.hostname, url.port or 80
        more = "".join(f"{line}\r\n" for line in given.header)
        head = f"POST {given.path} HTTP/1.1\r\nhost: {url.netloc}\r\ncontent-type: application/json\r\n{more}"
        lines = given.bodies.read_bytes().splitlines()
        self.requests = [head.encode() + b"content-length: %d\r\n\r\n%s" % (len(line), line) for line in lines]
        self.given, self.sent = given, 0
        self.counted = given.count.lower().encode()
        self.values: Counter[str] = Counter()
        self.took: list[float] = []
        self.late: list[float] = []
        self.failures: Counter[str] = Counter()
        self.free: list[Caller] = []
        self.callers: list[Caller] = []
        self.waiting: deque[float] = deque()
        self.under_way, self.issued, self.ended, self.began, self.cpu = 0, 0, False, 0.0, 0.0
        self.tasks: set[asyncio.Task[None]] = set()
        self.finished = asyncio.Event()

    def keep(self, work: object) -> None:
        task = asyncio.ensure_future(work)  # type: ignore[arg-type]
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def next_request(self) -> bytes:
        self.sent += 1
        return self.requests[self.sent % len(self.requests)]

    def may(self) -> bool:
        """Whether another request may fall due."""
        return not self.ended and self.issued < self.given.most

    def go(self, caller: Caller, at: float) -> None:
        self.under_way += 1
        caller.ask(at)

    def done(self, caller: Caller, at: float, why: str) -> None:
        now = perf_counter()
        self.under_way -= 1
        if why:
            self.failures[why] += 1
        elif self.began and at >= self.began and not self.ended:
            self.took.append(now - at)
        if self.given.rate:
            if self.waiting:
                self.go(caller, self.waiting.popleft())
            else:
                self.free.append(caller)
        elif why and caller.transport is None:  # a server that is gone must not be asked in a busy loop
            asyncio.get_running_loop().call_later(0.01, self.again, caller)
            return
        else:
            self.again(caller)
        self.look()

    def again(self, caller: Caller) -> None:
        if self.may():
            self.issued += 1
            self.go(caller, perf_counter())
        self.look()

    def idle_lost(self, caller: Caller) -> None:
        """The server closed a connection that nothing was asked on: no failure, it is opened again when it is needed."""

    def look(self) -> None:
        if not self.under_way and not self.waiting and not self.may():
            self.finished.set()

    def due(self, at: float) -> None:
        self.issued += 1
        if self.free:
            self.go(self.free.pop(), at)
        elif len(self.callers) < self.given.connections:
            self.go(self.caller(), at)
        else:
            self.waiting.append(at)

    def caller(self) -> Caller:
        made = (CountingCaller if self.counted else Caller)(self)
        self.callers.append(made)
        return made

    async def run(self) -> dict[str, object]:
        given, start = self.given, perf_counter()
        if given.rate:
            self.keep(self.tick(start))
        else:
            for _ in range(given.connections):
                if self.may():
                    self.again(self.caller())
        await self.until(start + given.warm)
        self.began, self.cpu = perf_counter(), cpu_s(given.pid) if given.pid else 0.0
        self.look()
        await self.until(self.began + given.seconds)
        self.ended, took_s = True, perf_counter() - self.began
        spent = cpu_s(given.pid) - self.cpu if given.pid else None
        unsent = len(self.waiting)
        self.waiting.clear()
        self.look()
        try:
            await asyncio.wait_for(self.finished.wait(), PATIENCE_S)
        except TimeoutError:
            self.failures["no answer"] += self.under_way
        for caller in self.callers:
            caller.drop()
        return self.report(took_s, spent, unsent)

    async def until(self, at: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.finished.wait(), max(0.0, at - perf_counter()))

    async def tick(self, start: float) -> None:
        rate, issued = self.given.rate, 0
        while self.may():
            await asyncio.sleep(TICK_S)
            now = perf_counter()
            while self.may() and start + issued / rate <= now:
                # From the tick on, not from the moment between two ticks: that would be our timer's delay, not the server's.
                # What is later than two ticks is queueing that this process caused, and is told.
                self.late.append(now - start - issued / rate)
                issued += 1
                self.due(now)
        self.look()

    def report(self, took_s: float, spent: float | None, unsent: int) -> dict[str, object]:
        took = sorted(self.took)

        def ms(share: float, of: list[float]) -> float | None:
            return round(1e3 * of[min(len(of) - 1, int(share * len(of)))], 4) if of else None

        return {
            "answered": len(took), "asked": self.issued, "sent": self.sent, "failed": sum(self.failures.values()), "failures": dict(self.failures),
            "unsent": unsent, "seconds": round(took_s, 3), "per_second": round(len(took) / took_s, 1), "p50_ms": ms(0.5, took), "p99_ms": ms(0.99, took),
            "cpu_us": round(1e6 * spent / len(took), 1) if spent is not None and took else None,
            "late_p99_ms": ms(0.99, sorted(self.late)), "values": dict(self.values),
        }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="of the server")
    parser.add_argument("--path", default="/v1/chat/completions")
    parser.add_argument("--bodies", type=Path, required=True, help="one JSON body a line, asked in turn")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--rate", type=float, default=0.0, help="requests a second, open loop; 0 for the closed one")
    parser.add_argument("--seconds", type=float, default=3.0, help="longest counted part")
    parser.add_argument("--most", type=int, default=1_000_000, help="most requests, the warm-up's included")
    parser.add_argument("--warm", type=float, default=0.5)
    parser.add_argument("--pid", type=int, default=0, help="the server")
    parser.add_argument("--core", type=int, default=None, help="processor to stay on")
    parser.add_argument("--header", action="append", default=[])
    parser.add_argument("--count", default="", help="header of the answers whose values are counted")
    given = parser.parse_args()
    if given.core is not None:
        os.sched_setaffinity(0, {given.core})

    async def run() -> dict[str, object]:
        return await Load(given).run()

    print(json.dumps(uvloop.run(run())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
