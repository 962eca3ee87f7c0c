"""
A teacher that misbehaves on purpose, to rehearse an outage with: a real HTTP server on loopback.

Use it from `overproof.testing`; `python -m overproof.testing --labels a,b --rate 429=.05` runs it by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

from overproof.errors import DataError

MODEL = "fault-teacher-2026-01-01"
OK = "ok"
UNBILLED = ("400", "401", "402", "404", "429", "429_absurd", "500", "redirect", "error_200")
BILLED = (
    "hang", "slow", "cut", "cut_chunked", "cut_unframed", "bad_json", "duplicate_key", "huge", "wrong_label", "refusal",
    "length", "filtered", "no_finish", "tool_call", "empty", "no_choices", "wrong_model", "wrong_schema", "no_done",
)
FAULTS = (*UNBILLED, *BILLED)
"""Every fault that `Faults` may name; the billed ones cost the caller money, as they do at real providers."""
SILENT = ("swapped", "other_fingerprint")
"""What no single answer shows: another model under the same id, or another system behind it. The answer is whole and valid."""
ABSURD_S = 31_536_000
"""What "429_absurd" asks the caller to wait: a year."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Faults:
    """How a `FaultTeacher` misbehaves."""

    rates: Mapping[str, float] = field(default_factory=dict)
    """Fault to probability, drawn anew for each wire request."""
    script: tuple[str, ...] = ()
    """Fates of the first wire requests, in order of arrival: faults or "ok"; the rates apply after them."""
    seed: int = 0
    """The n-th request with the same body meets the same fate under the same seed, whatever the order."""
    latency_s: float = 0.0
    """Seconds before every answer."""
    hang_s: float = 3600.0
    """Seconds that "hang" holds the line."""
    slow_byte_s: float = 0.05
    """Seconds between two bytes of "slow"."""
    retry_after_s: float = 1.0
    """What "429" and the rate limit ask the caller to wait."""
    requests_per_s: float | None = None
    """Over so many requests within a second the rest get 429; None sets no limit."""
    swapped_after: int | None = None
    """From this wire request on every good answer is `other`'s, under the same id; None never."""
    api_key: str | None = None
    """Bearer key that callers must send; None asks for none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FaultStats:
    """What a `FaultTeacher` has seen."""

    wire: int
    """Requests that arrived whole."""
    billed: int
    """Requests that a provider would have charged for."""
    max_in_flight: int
    """Most requests that were open at one time."""
    fates: Mapping[str, int]
    """Fault, or "ok", to requests."""


def hashed_labels(labels: Sequence[str]) -> Callable[[str], str]:
    """
    An answer function that gives each text some label, always the same one.

    Args:
        labels: what may be answered.

    Returns: text to label.
    """
    return lambda text: labels[int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:4], "big") % len(labels)]


class FaultTeacher:
    """
    A chat-completions server on loopback that fails as real ones do. Use it as a context manager.

    Args:
        answer: the last message's text to the answer.
        faults: how it misbehaves; not at all by default.
        model: the model id that it serves.
        port: 0 takes a free one.
        other: what answers once the model was swapped; a label right for another text by default.
        fingerprint: `system_fingerprint` of its answers; None leaves it out.

    Raises: DataError for a fault that doesn't exist, or rates that don't fit into 1.
    """

    def __init__(
        self, answer: Callable[[str], str], *, faults: Faults | None = None, model: str = MODEL, port: int = 0,
        other: Callable[[str], str] | None = None, fingerprint: str | None = None,
    ) -> None:  # fmt: skip
        self.faults = faults or Faults()
        unknown = sorted({*self.faults.rates, *self.faults.script} - {*FAULTS, *SILENT, OK})
        total = sum(self.faults.rates.values())
        if unknown or total > 1 or min(self.faults.rates.values(), default=0) < 0:
            raise DataError(
                f"faults {unknown!r} don't exist, or the rates don't fit into 1 (sum {total:g})",
                next_action=f"use some of {', '.join((*FAULTS, *SILENT))}",
            )
        self.model, self.port = model, port
        self._answer = answer
        self._other = other or (lambda text: answer(f"another model reads {text}"))
        self._fingerprint = fingerprint
        self._fates: Counter[str] = Counter()
        self._asked: Counter[str] = Counter()
        self._recent: list[float] = []
        self._extra = ""  # further headers, line by line
        self._in_flight = 0
        self._max_in_flight = 0
        self._connections: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()

    @property
    def base_url(self) -> str:
        """What a teacher's `base_url` must be."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def stats(self) -> FaultStats:
        """Counts so far."""
        fates = dict(self._fates)
        return FaultStats(
            wire=sum(fates.values()),
            billed=sum(count for fate, count in fates.items() if fate not in UNBILLED),
            max_in_flight=self._max_in_flight,
            fates=fates,
        )

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=lambda: asyncio.run(self.serve()), daemon=True)
        self._thread.start()
        if not self._ready.wait(10):
            raise DataError("the fault teacher didn't start within 10 s", next_action="look for a port that is taken")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        assert self._stop is not None
        assert self._thread is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def serve(self, *, on_ready: Callable[[], None] = lambda: None) -> None:
        """
        Serve until stopped, in the running loop.

        Args:
            on_ready: called once `port` is settled.
        """
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._loop.add_signal_handler(number, self._stop.set)
        self._ready.set()
        on_ready()
        await self._stop.wait()
        server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while await self._exchange(reader, writer):
                pass
        except (OSError, EOFError, asyncio.CancelledError):
            pass  # the caller hung up, or the server stops
        finally:
            self._connections.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; True iff the connection stays open."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, path, *_ = head.split(" ", 2)
        pairs = (line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        headers = {name.lower(): value for name, value in pairs}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        if method == "GET" and path == "/stats":
            found = self.stats
            said = {"wire": found.wire, "billed": found.billed, "max_in_flight": found.max_in_flight, "fates": found.fates}
            writer.write(_response(200, said))
            await writer.drain()
            return True
        if (special := self._special(method, path, headers, body)) is not None:
            writer.write(special)
            await writer.drain()
            return bool(special)
        self._in_flight += 1
        self._max_in_flight = max(self._max_in_flight, self._in_flight)
        try:
            fate = self._fate(path, headers.get("authorization", ""), body)
            self._fates[fate] += 1
            if self.faults.latency_s:
                await asyncio.sleep(self.faults.latency_s)
            if fate in UNBILLED and fate != "error_200":
                writer.write(_refusal(fate, self.faults.retry_after_s, headers.get("authorization", ""), self._extra))
                await writer.drain()
                return True
            return await self._send(fate, body, reader, writer)
        finally:
            self._in_flight -= 1

    def _fate(self, path: str, authorization: str, body: bytes) -> str:
        arrived = sum(self._fates.values())
        if path != "/v1/chat/completions":
            return "404"
        if self.faults.api_key is not None and authorization != f"Bearer {self.faults.api_key}":
            return "401"
        if self.faults.requests_per_s is not None:
            now = time.monotonic()
            self._recent = [t for t in self._recent if t > now - 1]
            if len(self._recent) >= self.faults.requests_per_s:
                return "429"
            self._recent.append(now)
        if not self._admitted():
            return "429"
        if arrived < len(self.faults.script):
            return self.faults.script[arrived]
        key = hashlib.sha256(body).hexdigest()
        self._asked[key] += 1
        draw = random.Random(f"{self.faults.seed}:{key}:{self._asked[key]}").random()  # noqa: S311 - not a secret
        for fault, rate in self.faults.rates.items():
            draw -= rate
            if draw < 0:
                return fault
        return "swapped" if self.faults.swapped_after is not None and arrived >= self.faults.swapped_after else OK

    def _special(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> bytes | None:
        """A response of another kind, empty to hang up; None for a chat completion. See `testing_batch`."""

    def _admitted(self) -> bool:
        return True

    async def _send(
        self, fate: str, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        if fate == "hang":
            with suppress(TimeoutError):
                await asyncio.wait_for(reader.read(1), self.faults.hang_s)
            return False
        said = (self._other if fate == "swapped" else self._answer)(_last_text(body))
        fingerprint = f"{self._fingerprint or 'fp'}-other" if fate == "other_fingerprint" else self._fingerprint
        raw = _answer_body(fate, said, self.model, body, fingerprint)
        if fate == "no_done" or (_streams(body) and fate not in ("slow", "cut_unframed")):
            return await _send_events(fate, raw, writer)
        half = raw[: len(raw) // 2]
        if fate == "slow":
            writer.write(_head(200, len(raw)))
            for place in range(len(raw)):
                writer.write(raw[place : place + 1])
                await writer.drain()
                await asyncio.sleep(self.faults.slow_byte_s)
        elif fate == "cut":
            writer.write(_head(200, len(raw)) + half)
        elif fate == "cut_chunked":
            writer.write(_head(200, None) + f"{len(half):x}\r\n".encode() + half + b"\r\n")
        elif fate == "cut_unframed":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n" + half)
        else:
            writer.write(_head(200, len(raw), self._extra) + raw)
        await writer.drain()
        return not fate.startswith("cut")


def _last_text(body: bytes) -> str:
    try:
        return str(json.loads(body)["messages"][-1]["content"])
    except (ValueError, KeyError, IndexError, TypeError):
        return ""


def _streams(body: bytes) -> bool:
    try:
        return json.loads(body).get("stream") is True
    except (ValueError, AttributeError):
        return False


async def _send_events(fate: str, raw: bytes, writer: asyncio.StreamWriter) -> bool:
    """The answer as server-sent events; "no_done" ends cleanly before the end is said, "cut" and "cut_chunked" break off."""
    events = _events(raw)
    if fate == "no_done":
        events = events[:-2]
    cut = fate.startswith("cut")
    head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nx-request-id: fault\r\nTransfer-Encoding: chunked\r\n\r\n"
    writer.write(head.encode())
    for event in events[: len(events) // 2] if cut else events:
        writer.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
        await writer.drain()
    if not cut:
        writer.write(b"0\r\n\r\n")
        await writer.drain()
    return not cut


def _events(raw: bytes) -> list[bytes]:
    """The events of an answer: its text in three pieces, why it ended, and that it did; one alone where it is no answer."""
    try:
        said = json.loads(raw)
        choice = said["choices"][0]
    except (ValueError, LookupError):
        return [b"data: " + raw + b"\n\n", b"data: [DONE]\n\n"]
    text, frame = choice["message"]["content"], {key: said[key] for key in said if key not in ("choices", "usage", "object")}
    third = -(-len(text) // 3)
    more = {key: value for key, value in choice["message"].items() if key not in ("role", "content")}
    deltas: list[tuple[dict[str, Any], str | None]] = [({"role": "assistant", "content": ""}, None)]
    deltas += [({"content": text[at : at + third], **(more if at == 0 else {})}, None) for at in range(0, len(text), third or 1)]
    deltas.append(({}, choice["finish_reason"]))
    chunks = [
        {**frame, "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": why}]} for delta, why in deltas
    ]
    return [*(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks), b"data: [DONE]\n\n"]


def _head(status: int, length: int | None, extra: str = "") -> bytes:
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nx-request-id: fault\r\n{extra}{framing}\r\n\r\n".encode()


def _response(status: int, said: Mapping[str, Any], extra: str = "") -> bytes:
    raw = json.dumps(said).encode()
    return _head(status, len(raw), extra) + raw


def _refusal(fate: str, retry_after_s: float, authorization: str, limits: str = "") -> bytes:
    if fate == "redirect":
        return _response(307, {}, "Location: http://127.0.0.1:1/elsewhere\r\n")
    waits = {"429": retry_after_s, "429_absurd": ABSURD_S}
    extra = f"Retry-After: {waits[fate]:.15g}\r\n{limits}" if fate in waits else limits
    return _response(int(fate[:3]), {"error": {"message": f"planted {fate}, incorrect key: {authorization}"}}, extra)


def _answer_body(fate: str, label: str, model: str, asked: bytes, fingerprint: str | None = None) -> bytes:
    """A 200 body; every faulty one still carries the right label somewhere, since that is what tempts a reader."""
    message: dict[str, Any] = {"role": "assistant", "content": label}
    finish: str | None = "stop"
    match fate:
        case "bad_json":
            return b'{"choices": [{"message": {"content": "' + label.encode() + b'"}, "finish_reason": "stop"}'
        case "wrong_label":
            message["content"] = f"zz-{label}-zz"
        case "wrong_schema":
            message["content"] = _other_schema(label)
        case "refusal":
            message["refusal"] = "I can't help with that."
        case "tool_call":
            message["tool_calls"] = [{"id": "t", "type": "function", "function": {"name": label, "arguments": "{}"}}]
        case "empty":
            message["content"] = " \n"
        case "length" | "filtered":
            finish = {"length": "length", "filtered": "content_filter"}[fate]
        case "no_finish":
            finish = None
        case "huge":
            message["padding"] = "x" * (9 * 1024 * 1024)
        case _:
            pass
    said: dict[str, Any] = {
        "id": "chatcmpl-fault",
        "object": "chat.completion",
        "model": f"{model}-other" if fate == "wrong_model" else model,
        "choices": [] if fate == "no_choices" else [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": len(asked) // 8 + 1, "completion_tokens": len(label) // 4 + 1},
    }
    if fingerprint is not None:
        said["system_fingerprint"] = fingerprint
    if fate == "error_200":
        said["error"] = {"message": "planted error in a 200"}
    raw = json.dumps(said).encode()
    if fate == "duplicate_key":
        return raw.replace(b'"content":', b'"content": "another", "content":', 1)
    return raw


def _other_schema(answer: str) -> str:
    """The same answer in a form that nobody asked for: a record with a key that isn't there, a label within a record."""
    try:
        record = json.loads(answer)
    except ValueError:
        record = None
    return json.dumps({**record, "and_more": "x"} if isinstance(record, dict) else {"answer": answer, "sure": True})


def serve_alone(server: FaultTeacher) -> None:
    """
    Serve until the process is ended; one JSON line says where.

    Args:
        server: not started yet.
    """

    def ready() -> None:
        sys.stdout.write(json.dumps({"port": server.port, "base_url": server.base_url, "model": server.model}) + "\n")
        sys.stdout.flush()

    asyncio.run(server.serve(on_ready=ready))


def main(arguments: Sequence[str] | None = None) -> None:
    """
    Run a `FaultTeacher` by itself; it prints one JSON line with its port, and counts at GET /stats.

    Args:
        arguments: the command line; `--help` lists them.
    """
    parser = argparse.ArgumentParser(prog="python -m overproof.testing", description=FaultTeacher.__doc__)
    parser.add_argument("--labels", required=True, help="labels to answer with, separated by commas")
    parser.add_argument("--rate", action="append", default=[], metavar="FAULT=P", help=f"one of {', '.join((*FAULTS, *SILENT))}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--latency-s", type=float, default=0.0)
    parser.add_argument("--retry-after-s", type=float, default=1.0)
    parser.add_argument("--swapped-after", type=int, default=None, help="wire requests, after which another model answers under the same id")
    parser.add_argument("--requests-per-s", type=float, default=None)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args(arguments)
    faults = Faults(
        rates={name: float(rate) for name, _, rate in (pair.partition("=") for pair in given.rate)},
        seed=given.seed,
        latency_s=given.latency_s,
        retry_after_s=given.retry_after_s,
        requests_per_s=given.requests_per_s,
        swapped_after=given.swapped_after,
    )
    server = FaultTeacher(hashed_labels(given.labels.split(",")), faults=faults, model=given.model, port=given.port)
    serve_alone(server)


if __name__ == "__main__":
    main()
