"""
For plug-in authors and for rehearsals: a teacher that misbehaves on purpose, and the promises of each kind of part.

`FaultTeacher` is a real HTTP server on loopback; `python -m overproof.testing --labels a,b` runs it by itself.
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
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from overproof.data import Completion, Example, Judgement, Outcome, Request, Skipped, TrafficRecord, TrainSet
from overproof.errors import DataError

if TYPE_CHECKING:
    from overproof.importers import ColumnMapping, Importer
    from overproof.students import Student
    from overproof.teachers import Teacher
    from overproof.verifiers import Verifier

MODEL = "fault-teacher-2026-01-01"
OK = "ok"
UNBILLED = ("400", "401", "402", "404", "429", "500", "redirect", "error_200")
BILLED = (
    "hang", "slow", "cut", "cut_chunked", "cut_unframed", "bad_json", "duplicate_key", "huge", "wrong_label", "refusal",
    "length", "filtered", "no_finish", "tool_call", "empty", "no_choices", "wrong_model",
)
FAULTS = (*UNBILLED, *BILLED)
"""Every fault that `Faults` may name; the billed ones cost the caller money, as they do at real providers."""


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

    Raises: DataError for a fault that doesn't exist, or rates that don't fit into 1.
    """

    def __init__(
        self, answer: Callable[[str], str], *, faults: Faults | None = None, model: str = MODEL, port: int = 0
    ) -> None:
        self.faults = faults or Faults()
        unknown = sorted({*self.faults.rates, *self.faults.script} - {*FAULTS, OK})
        total = sum(self.faults.rates.values())
        if unknown or total > 1 or min(self.faults.rates.values(), default=0) < 0:
            raise DataError(
                f"faults {unknown!r} don't exist, or the rates don't fit into 1 (sum {total:g})",
                next_action=f"use some of {', '.join(FAULTS)}",
            )
        self.model, self.port = model, port
        self._answer = answer
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
            billed=sum(count for fate, count in fates.items() if fate == OK or fate in BILLED),
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
        return OK

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
        raw = _answer_body(fate, self._answer(_last_text(body)), self.model, body)
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


def _head(status: int, length: int | None, extra: str = "") -> bytes:
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nx-request-id: fault\r\n{extra}{framing}\r\n\r\n".encode()


def _response(status: int, said: Mapping[str, Any], extra: str = "") -> bytes:
    raw = json.dumps(said).encode()
    return _head(status, len(raw), extra) + raw


def _refusal(fate: str, retry_after_s: float, authorization: str, limits: str = "") -> bytes:
    if fate == "redirect":
        return _response(307, {}, "Location: http://127.0.0.1:1/elsewhere\r\n")
    extra = f"Retry-After: {retry_after_s:g}\r\n{limits}" if fate == "429" else limits
    return _response(int(fate), {"error": {"message": f"planted {fate}, incorrect key: {authorization}"}}, extra)


def _answer_body(fate: str, label: str, model: str, asked: bytes) -> bytes:
    """A 200 body; every faulty one still carries the right label somewhere, since that is what tempts a reader."""
    message: dict[str, Any] = {"role": "assistant", "content": label}
    finish: str | None = "stop"
    match fate:
        case "bad_json":
            return b'{"choices": [{"message": {"content": "' + label.encode() + b'"}, "finish_reason": "stop"}'
        case "wrong_label":
            message["content"] = f"zz-{label}-zz"
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
    if fate == "error_200":
        said["error"] = {"message": "planted error in a 200"}
    raw = json.dumps(said).encode()
    if fate == "duplicate_key":
        return raw.replace(b'"content":', b'"content": "another", "content":', 1)
    return raw


# ---- what each kind of part promises ---------------------------------------------------------------------------


def _promise(held: bool, words: str) -> None:  # noqa: FBT001 - reads as a sentence where it is used
    if not held:
        raise AssertionError(f"broken promise: {words}")


def check_outcome(outcome: Outcome, labels: Sequence[str]) -> None:
    """
    Check that an outcome says what happened without contradicting itself.

    Args:
        outcome: what `attempt` returned.
        labels: the task's labels.

    Raises: AssertionError that names the broken promise.
    """
    _promise(isinstance(outcome, Outcome), "attempt returns an Outcome")
    found = outcome.completion
    if outcome.kind == "ok":
        _promise(found is not None and found.value in labels, "an ok outcome carries one of the labels")
        assert found is not None
        _promise(found.finish in ("stop", "unknown"), "an ok answer ended by itself")
        _promise(not outcome.reason and not found.reason, "an ok outcome has no reason")
        _promise(bool(found.model), "an answer names its model")
    else:
        _promise(bool(outcome.reason), "an outcome that is not ok says why")
        if found is not None:
            _promise(found.value is None and bool(found.reason), "a rejected answer has a reason and no value")
    if found is not None:
        amounts = (found.tokens_in, found.tokens_out, found.latency_s, found.cost_usd)
        _promise(all(a is None or a >= 0 for a in amounts), "no count, time or cost is negative")


def teacher_conformance(
    make: Callable[[], Teacher], *, requests: Sequence[Request], labels: Sequence[str]
) -> None:
    """
    Check the promises of a teacher.

    Args:
        make: a new teacher.
        requests: inputs of which at least one can be answered.
        labels: the task's labels.

    Raises: AssertionError that names the broken promise.
    """
    asyncio.run(_teacher_conformance(make(), requests, labels))


async def _teacher_conformance(teacher: Teacher, requests: Sequence[Request], labels: Sequence[str]) -> None:
    names = list(requests[0].fields)
    recorded = Completion(text=labels[0], value=None, model="recorded", finish="stop")
    hostile = [
        Request(id=f"hostile-{place}", fields=dict.fromkeys(names, text))
        for place, text in enumerate(("", "\ud800", "{text} {" + names[0] + "}", "a\r\nb\x00", "x" * 100_000))
    ]
    _promise(isinstance(teacher.free, bool), "`free` is True or False")
    good = 0
    for request in (*requests, *hostile, Request(id="no-fields", fields={})):
        bound = teacher.worst_case_tokens(request)
        _promise(bound.tokens_in >= 0 and bound.tokens_out >= 0, "token bounds are not negative")
        _promise(teacher.free or bound.tokens_out > 0, "an answer that costs money has a bound above 0")
        for index, given in ((0, None), (1, None), (0, recorded)):
            try:
                outcome = await teacher.attempt(request, sample_index=index, recorded=given)
            except Exception as error:
                raise AssertionError(f"broken promise: attempt never raises, got {error!r} on {request.id!r}") from error
            check_outcome(outcome, labels)
            found = outcome.completion
            if found is not None and not teacher.free:
                _promise((found.tokens_in or 0) <= bound.tokens_in, "tokens_in never exceeds its bound")
                _promise((found.tokens_out or 0) <= bound.tokens_out, "tokens_out never exceeds its bound")
            good += outcome.kind == "ok" and request in requests
    _promise(good > 0, "at least one of the given requests is answered")
    await teacher.close()
    await teacher.close()
    check_outcome(await teacher.attempt(requests[0], sample_index=0, recorded=recorded), labels)
    await teacher.close()


def verifier_conformance(make: Callable[[], Verifier], *, labels: Sequence[str]) -> None:
    """
    Check the promises of a verifier.

    Args:
        make: a new verifier.
        labels: the task's labels.

    Raises: AssertionError that names the broken promise.
    """
    one, other = make(), make()
    request = Request(id="r", fields={"text": "Where is my order? \ud800 {text} 🙂"})
    given = [Completion(text=label, value=label, model="m") for label in labels]
    failed = Completion(text="no label at all", value=None, model="m", finish="length", reason="cut")
    for completions in ([], [failed], given[:1], given, [*given, failed], [*given[:1] * 3, failed]):
        for target in labels:
            before = list(completions)
            try:
                said = one.judge(request, completions, target)
            except Exception as error:
                raise AssertionError(f"broken promise: judge never raises on a label, got {error!r}") from error
            _promise(isinstance(said, Judgement), "judge returns a Judgement")
            _promise(said.keep or bool(said.reason), "a rejection has a reason")
            _promise(said.score is None or 0 <= said.score <= 1, "a score lies in [0, 1]")
            _promise(completions == before, "judge leaves its arguments alone")
            again = (one.judge(request, completions, target), other.judge(request, completions, target))
            _promise(again == (said, said), "the same arguments give the same judgement")


def importer_conformance(
    make: Callable[[], Importer], *, sample: Path, mapping: ColumnMapping, workdir: Path
) -> None:
    """
    Check the promises of an importer.

    Args:
        make: a new importer.
        sample: a file of its kind with two rows or more, uncompressed.
        mapping: fits the sample.
        workdir: an empty folder for damaged copies of the sample.

    Raises: AssertionError that names the broken promise.
    """
    good = sample.read_bytes()
    for head in (good[:65536], b"", b"\xff" * 100, b"{", b"[" * 5000):
        _promise(0 <= make().sniff(head, sample.name) <= 1, "sniff returns a fraction in [0, 1]")
    rows = list(make().read(sample, mapping))
    records = [row for row in rows if isinstance(row, TrafficRecord)]
    _promise(len(records) > 1, "the rows of a sound file are read")
    _promise(len({record.request.id for record in records}) == len(records), "ids are unique in a file")
    _promise(all(set(r.request.fields) <= set(mapping.fields) for r in records), "only the task's fields are fields")
    _promise(list(make().read(sample, mapping)) == rows, "the same file gives the same rows")
    draw = random.Random(0)  # noqa: S311 - the same damage every time
    for turn in range(40):
        damaged = bytearray(good[: draw.randrange(len(good))] if turn % 2 else good)
        for _ in range(min(turn, len(damaged))):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        path = workdir / f"{turn}-{sample.name}"
        path.write_bytes(damaged)
        try:
            found = list(make().read(path, mapping))
        except DataError:
            continue
        except Exception as error:
            raise AssertionError(f"broken promise: a damaged file is Skipped rows or a DataError, got {error!r}") from error
        for row in found:
            _promise(isinstance(row, TrafficRecord | Skipped), "read yields records and skipped rows")
            if isinstance(row, Skipped):
                _promise(bool(row.where and row.reason) and len(row.raw) <= 2000, "a skipped row says where and why")


def tiny_train_set(*, copies: int = 8) -> TrainSet:
    """
    A training set small enough for a test: three labels that have rows, and one that has none.

    Args:
        copies: rows for each label.

    Returns: the set.
    """
    words = {"refund": "money back please", "delivery": "where is my parcel", "login": "forgot my password again"}
    tails = ("now", "today", "thanks", "für mich", "otra vez", "merci", "🙂", "!!", "asap", "hello", "order 12", "…")
    rows = [
        Example(request=Request(id=f"{label}-{i}", fields={"text": f"{words[label]} {tails[i % len(tails)]}"}), target=label)
        for i in range(copies)
        for label in words
    ]
    return TrainSet(examples=tuple(rows), labels=("delivery", "login", "never", "refund"))


def student_conformance(make: Callable[[tuple[str, ...]], Student], *, workdir: Path) -> None:
    """
    Check the promises of a student.

    Args:
        make: a new student for these labels, always with the same seed.
        workdir: an empty folder for its files.

    Raises: AssertionError that names the broken promise.
    """
    import numpy as np

    train = tiny_train_set()
    requests = [example.request for example in train.examples]
    students = [make(train.labels), make(train.labels)]
    for place, student in enumerate(students):
        (workdir / str(place)).mkdir(parents=True)
        student.fit(train, workdir=workdir / str(place))
    logits = students[0].logits(requests)
    _promise(students[0].labels == train.labels, "`labels` are the columns, in the task's order")
    _promise(logits.shape == (len(requests), len(train.labels)), "logits have shape (n, k)")
    _promise(logits.dtype == np.float32, "logits are float32")
    _promise(bool(np.isfinite(logits).all()), "logits are finite")
    _promise(np.array_equal(logits, students[1].logits(requests)), "the same rows and seed give the same student")
    _promise(students[0].logits([]).shape == (0, len(train.labels)), "no requests give no rows")
    backwards = students[0].logits(requests[::-1])[::-1]
    alone = np.concatenate([students[0].logits([request]) for request in requests])
    _promise(bool(np.allclose(logits, backwards, atol=1e-4)), "an answer doesn't depend on the order of the requests")
    _promise(bool(np.allclose(logits, alone, atol=1e-4)), "an answer doesn't depend on its neighbours in the batch")
    answers = [train.labels[i] for i in logits.argmax(axis=1)]
    right = sum(answer == example.target for answer, example in zip(answers, train.examples, strict=True))
    _promise("never" not in answers, "a label without training rows is not answered")
    _promise(right >= len(requests) // 3, "on its own training rows it is no worse than the most frequent label")
    hostile = [Request(id=str(i), fields={"text": text}) for i, text in enumerate(("", "\x00", "🙂" * 5000, "zzzz"))]
    _promise(bool(np.isfinite(students[0].logits(hostile)).all()), "odd texts get finite logits")
    _promise(students[0].parameters > 0, "a fitted student counts its learned numbers")
    files = [path for path in (workdir / "0").rglob("*") if path.is_file()]
    _promise(bool(files), "fit leaves its files in workdir")
    _promise(not [p for p in files if p.suffix in {".pkl", ".pickle", ".joblib", ".pt"}], "no file is a pickle")
    loaded = type(students[0]).load(workdir / "0")
    _promise(np.allclose(loaded.logits(requests), logits, atol=1e-5), "a loaded student answers as the fitted one")
    _promise(loaded.labels == train.labels, "a loaded student knows its labels")
    _promise(loaded.parameters == students[0].parameters, "a loaded student counts its learned numbers")


def main(arguments: Sequence[str] | None = None) -> None:
    """
    Run a `FaultTeacher` by itself; it prints one JSON line with its port, and counts at GET /stats.

    Args:
        arguments: the command line; `--help` lists them.
    """
    parser = argparse.ArgumentParser(prog="python -m overproof.testing", description=FaultTeacher.__doc__)
    parser.add_argument("--labels", required=True, help="labels to answer with, separated by commas")
    parser.add_argument("--rate", action="append", default=[], metavar="FAULT=P", help=f"one of {', '.join(FAULTS)}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--latency-s", type=float, default=0.0)
    parser.add_argument("--retry-after-s", type=float, default=1.0)
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
    )
    server = FaultTeacher(hashed_labels(given.labels.split(",")), faults=faults, model=given.model, port=given.port)

    def ready() -> None:
        sys.stdout.write(json.dumps({"port": server.port, "base_url": server.base_url, "model": server.model}) + "\n")
        sys.stdout.flush()

    asyncio.run(server.serve(on_ready=ready))


if __name__ == "__main__":
    main()
