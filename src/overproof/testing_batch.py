"""
A provider on loopback with batch endpoints: OpenAI's files and batches, Anthropic's messages and message batches.

`python -m overproof.testing_batch --labels a,b` runs it by itself; GET /batch_stats says what it has seen.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from overproof.testing_faults import MODEL, OK, UNBILLED, Faults, FaultTeacher, hashed_labels, serve_alone


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchFaults:
    """How batches go wrong."""

    polls: int = 2
    """Looks at a batch until it has ended."""
    again_s: float | None = None
    """`Retry-After` of a look at a batch that still runs; None says nothing, and askers take their own time."""
    rates: Mapping[str, float] = field(default_factory=dict)
    """Fate of a row to probability: "expired", "missing", "errored", "wrong_label", "length", "garbled"."""
    once: bool = True
    """A row that failed is answered the next time."""
    create_cut: int = 0
    """So many times the batch is made, but the answer that names it never arrives."""
    create_busy: int = 0
    """So many times nothing is made and the answer is 503."""
    wrong_order: bool = True
    """Results come in another order than the rows went in."""
    seed: int = 0
    requests_per_minute: float | None = None
    """Of single requests: a bucket of so many a minute, said in rate-limit headers; over it 429. It holds a second's worth."""
    said: bool = True
    """Whether the headers say so."""


class BatchProvider(FaultTeacher):
    """
    A `FaultTeacher` with batch endpoints and the Messages API.

    Args:
        answer: the last message's text to the answer.
        faults: of single requests.
        batch: of batches.
        model: the model id that it serves.
        port: 0 takes a free one.
    """

    def __init__(
        self,
        answer: Callable[[str], str],
        *,
        faults: Faults | None = None,
        batch: BatchFaults | None = None,
        model: str = MODEL,
        port: int = 0,
    ) -> None:
        super().__init__(answer, faults=faults, model=model, port=port)
        self.batch = batch or BatchFaults()
        self.asked_rows: Counter[str] = Counter()
        """Content of a row to how often it came in."""
        self.answered_rows: Counter[str] = Counter()
        """Content of a row to how often it was answered, and so billed."""
        self.bodies: list[dict[str, Any]] = []
        """Bodies of single messages, as they came."""
        self.system = ""
        """`system_fingerprint` of single chat completions; may change while it runs."""
        self.chance: Callable[[str], float] | None = None
        """The last message's text to the chance that single chat completions give their answer, as logprobs."""
        self._files: dict[str, bytes] = {}
        self._made: dict[str, dict[str, Any]] = {}
        self._creates = 0
        self._bucket = (1.0, time.monotonic())

    def batch_stats(self) -> dict[str, Any]:
        """Counts so far."""
        return {
            "batches": len(self._made),
            "rows": sum(self.asked_rows.values()),
            "most_per_row": max(self.asked_rows.values(), default=0),
            "answered": sum(self.answered_rows.values()),
            "most_answered": max(self.answered_rows.values(), default=0),
        }

    def _special(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> bytes | None:
        path, _, _query = path.partition("?")
        if (method, path) == ("GET", "/batch_stats"):
            return _json(self.batch_stats())
        if (method, path) == ("POST", "/v1/chat/completions") and (self.system or self.chance):
            return self._chat(body)
        if (method, path) == ("POST", "/v1/messages"):
            return self._message(headers, body)
        if (method, path) == ("POST", "/v1/files"):
            name = f"file-{len(self._files)}"
            self._files[name] = _form_file(body)
            return _json({"id": name, "object": "file", "purpose": "batch"})
        if path.startswith("/v1/files/") and path.endswith("/content"):
            found = self._files.get(path.split("/")[3])
            return _json({"error": {"message": "no such file"}}, 404) if found is None else _raw(found)
        for home, make, show in (
            ("/v1/batches", self._openai_batch, _openai_shape),
            ("/v1/messages/batches", self._anthropic_batch, _anthropic_shape),
        ):
            if (method, path) == ("POST", home):
                return self._create(make, show, body)
            mine = [b for b in self._made.values() if b["home"] == home]
            if (method, path) == ("GET", home):
                return _json({"data": [show(b) for b in reversed(mine)], "has_more": False})
            if method == "GET" and path.startswith(home + "/"):
                name, _, rest = path[len(home) + 1 :].partition("/")
                return self._show(self._made.get(name), show, results=rest == "results")
        return None

    def _admitted(self) -> bool:
        limit = self.batch.requests_per_minute
        if limit is None:
            return True
        left, then = self._bucket
        now = time.monotonic()
        left = min(max(1.0, limit / 60), left + (now - then) * limit / 60)
        self._bucket = (left - (left >= 1), now)
        self._extra = self._limit_headers(limit) if self.batch.said else ""
        return left >= 1

    def _limit_headers(self, limit: float) -> str:
        left = int(self._bucket[0])
        reset = f"{max(0.0, limit / 60 - left) / (limit / 60):.3f}s"
        return "".join(
            f"x-ratelimit-{what}-requests: {value}\r\n"
            for what, value in (("limit", f"{limit:g}"), ("remaining", left), ("reset", reset))
        )

    def _show(self, batch: dict[str, Any] | None, show: Callable[[dict[str, Any]], Any], *, results: bool) -> bytes:
        if batch is None:
            return _json({"error": {"message": "no such batch"}}, 404)
        if results:
            return _raw(self._files[batch["output"]])
        batch["polls"] += 1
        if batch["polls"] >= self.batch.polls and not batch["ended"]:
            self._work(batch)
        wait = self.batch.again_s
        return _json(show(batch), 200, "" if wait is None or batch["ended"] else f"retry-after: {wait:g}\r\n")

    def _create(
        self,
        make: Callable[[dict[str, Any]], dict[str, Any]],
        show: Callable[[dict[str, Any]], Any],
        body: bytes,
    ) -> bytes:
        self._creates += 1
        if self._creates <= self.batch.create_busy:
            return _json({"error": {"message": "planted 503"}}, 503)
        batch = make(json.loads(body))
        batch |= {"id": f"batch_{len(self._made)}", "polls": 0, "ended": False, "at": time.time(), "counts": Counter()}
        self._made[batch["id"]] = batch
        for _, request in batch["rows"]:
            self.asked_rows[_content(request)] += 1
        if self._creates <= self.batch.create_busy + self.batch.create_cut:
            return b""
        return _json(show(batch))

    def _openai_batch(self, said: dict[str, Any]) -> dict[str, Any]:
        lines = [json.loads(line) for line in self._files[said["input_file_id"]].splitlines() if line.strip()]
        rows = [(line["custom_id"], line["body"]) for line in lines]
        return {"home": "/v1/batches", "rows": rows, "metadata": said.get("metadata", {})}

    def _anthropic_batch(self, said: dict[str, Any]) -> dict[str, Any]:
        rows = [(entry["custom_id"], entry["params"]) for entry in said["requests"]]
        return {"home": "/v1/messages/batches", "rows": rows}

    def _work(self, batch: dict[str, Any]) -> None:
        good: list[str] = []
        bad: list[str] = []
        for custom_id, request in batch["rows"]:
            fate = self._row_fate(request)
            batch["counts"][fate] += 1
            if fate not in ("expired", "missing", "errored"):
                self.answered_rows[_content(request)] += 1
            if fate == "missing":
                continue
            line = _openai_line if batch["home"] == "/v1/batches" else _anthropic_line
            text = line(custom_id, fate, request, self._answer(_asked(request)))
            (bad if fate in ("expired", "errored") else good).append(text)
        if self.batch.wrong_order:
            random.Random(self.batch.seed).shuffle(good)  # noqa: S311 - not a secret
        split = batch["home"] == "/v1/batches"
        batch["output"], batch["error"] = f"file-out-{batch['id']}", f"file-err-{batch['id']}"
        self._files[batch["output"]] = "\n".join(good if split else [*bad, *good]).encode()
        self._files[batch["error"]] = "\n".join(bad).encode()
        batch["ended"] = True

    def _row_fate(self, request: dict[str, Any]) -> str:
        key = _content(request)
        turn = self.asked_rows[key]
        if self.batch.once and turn > 1:
            return OK
        draw = random.Random(f"{self.batch.seed}:{key}:{turn}").random()  # noqa: S311 - not a secret
        for fate, rate in self.batch.rates.items():
            draw -= rate
            if draw < 0:
                return fate
        return OK

    def _chat(self, body: bytes) -> bytes:
        said = json.loads(body)
        self._fates[OK] += 1
        text = _asked(said)
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": self._answer(text)}}
        if said.get("logprobs") and self.chance is not None:
            choice["logprobs"] = {"content": [{"token": self._answer(text), "logprob": math.log(self.chance(text))}]}
        usage = {"prompt_tokens": 40, "completion_tokens": 3}
        return _json({"model": said["model"], "choices": [choice], "usage": usage, "system_fingerprint": self.system or None})

    def _message(self, headers: Mapping[str, str], body: bytes) -> bytes:
        given = headers.get("x-api-key", "")
        fate = self._fate("/v1/chat/completions", f"Bearer {given}", body)
        self._fates[fate] += 1
        if fate in UNBILLED and fate[:3].isdigit():
            status = 529 if fate == "500" else int(fate[:3])
            kind = {429: "rate_limit_error", 529: "overloaded_error"}.get(status, "invalid_request_error")
            error = {"type": "error", "error": {"type": kind, "message": f"planted {status}, key {given}"}}
            extra = f"retry-after: {self.faults.retry_after_s:g}\r\n" if status == 429 else ""
            return _json(error, status, extra)
        said = json.loads(body)
        self.bodies.append(said)
        message = _anthropic_message(fate, said, self._answer(_asked(said)), cached=len(self.bodies) > 1)
        if fate == "wrong_model":
            message["model"] += "-other"
        raw = json.dumps(message).encode()
        extra = (
            "request-id: req_fault\r\nanthropic-ratelimit-requests-limit: 1000\r\nanthropic-ratelimit-requests-remaining: 999\r\n"
            "anthropic-ratelimit-requests-reset: 2026-01-01T00:00:00Z\r\n"
        )
        if fate.startswith("cut"):
            return _raw(raw, extra)[:-20]
        return _raw(raw, extra)


def _content(request: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


def _asked(request: dict[str, Any]) -> str:
    return str(request["messages"][-1]["content"])


def _said(fate: str, answer: str) -> str:
    return f"zz-{answer}-zz" if fate == "wrong_label" else answer


def _openai_line(custom_id: str, fate: str, request: dict[str, Any], answer: str) -> str:
    if fate == "expired":
        error = {"code": "batch_expired", "message": "This request could not be executed before the completion window expired."}
        return json.dumps({"id": "batch_req", "custom_id": custom_id, "response": None, "error": error})
    if fate == "errored":
        response = {"status_code": 500, "request_id": "r", "body": {"error": {"message": "planted"}}}
        return json.dumps({"id": "batch_req", "custom_id": custom_id, "response": response, "error": None})
    if fate == "garbled":
        return '{"custom_id": "' + custom_id
    message = {"role": "assistant", "content": _said(fate, answer)}
    body = {
        "model": request["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": "length" if fate == "length" else "stop"}],
        "usage": {"prompt_tokens": 40, "completion_tokens": 3},
        "system_fingerprint": "fp_batch",
    }
    response = {"status_code": 200, "request_id": "r", "body": body}
    return json.dumps({"id": "batch_req", "custom_id": custom_id, "response": response, "error": None})


def _anthropic_line(custom_id: str, fate: str, request: dict[str, Any], answer: str) -> str:
    if fate == "expired":
        return json.dumps({"custom_id": custom_id, "result": {"type": "expired"}})
    if fate == "errored":
        error = {"type": "error", "error": {"type": "api_error", "message": "planted"}}
        return json.dumps({"custom_id": custom_id, "result": {"type": "errored", "error": error}})
    if fate == "garbled":
        return '{"custom_id": "' + custom_id
    message = _anthropic_message(fate, request, answer, cached=False)
    return json.dumps({"custom_id": custom_id, "result": {"type": "succeeded", "message": message}})


def _anthropic_message(fate: str, request: dict[str, Any], answer: str, *, cached: bool) -> dict[str, Any]:
    marked = any("cache_control" in block for block in request.get("system", []))
    usage = {"input_tokens": 20, "output_tokens": 3, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}
    if marked:
        usage["cache_read_input_tokens" if cached else "cache_creation_input_tokens"] = 30
    stop = {"length": "max_tokens", "refusal": "refusal", "tool_call": "tool_use", "no_finish": None}.get(fate, "end_turn")
    return {
        "id": "msg_fault",
        "type": "message",
        "role": "assistant",
        "model": request["model"],
        "content": [] if fate == "empty" else [{"type": "text", "text": _said(fate, answer)}],
        "stop_reason": stop,
        "usage": usage,
    }


def _openai_shape(batch: dict[str, Any]) -> dict[str, Any]:
    said = {"id": batch["id"], "object": "batch", "status": "in_progress", "metadata": batch["metadata"]}
    if batch["ended"]:
        status = "expired" if batch["counts"]["expired"] else "completed"
        said |= {"status": status, "output_file_id": batch["output"], "error_file_id": batch["error"]}
    return said


def _anthropic_shape(batch: dict[str, Any]) -> dict[str, Any]:
    rows = len(batch["rows"])
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(batch["at"]))
    ended = batch["ended"]
    counts = {"processing": 0 if ended else rows, "succeeded": rows if ended else 0, "errored": 0, "canceled": 0, "expired": 0}
    status = "ended" if ended else "in_progress"
    return {"id": batch["id"], "type": "message_batch", "processing_status": status, "request_counts": counts,
            "created_at": moment, "results_url": "http://127.0.0.1:1/elsewhere"}  # fmt: skip


def _form_file(body: bytes) -> bytes:
    boundary = body.split(b"\r\n", 1)[0]
    part = next(p for p in body.split(boundary) if b'name="file"' in p[:500])
    return part.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n")


def _json(said: Any, status: int = 200, extra: str = "") -> bytes:
    return _raw(json.dumps(said).encode(), extra, status)


def _raw(body: bytes, extra: str = "", status: int = 200) -> bytes:
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{extra}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def main(arguments: Sequence[str] | None = None) -> None:
    """
    Run a `BatchProvider` by itself; it prints one JSON line with its port.

    Args:
        arguments: the command line; `--help` lists them.
    """
    parser = argparse.ArgumentParser(prog="python -m overproof.testing_batch", description=BatchProvider.__doc__)
    parser.add_argument("--labels", required=True, help="labels to answer with, separated by commas")
    parser.add_argument("--rate", action="append", default=[], metavar="FATE=P", help="fate of a row in a batch")
    parser.add_argument("--requests-per-minute", type=float, default=None)
    parser.add_argument("--polls", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args(arguments)
    rates = {name: float(rate) for name, _, rate in (pair.partition("=") for pair in given.rate)}
    batch = BatchFaults(polls=given.polls, rates=rates, seed=given.seed, requests_per_minute=given.requests_per_minute)
    server = BatchProvider(hashed_labels(given.labels.split(",")), batch=batch, model=given.model, port=given.port)
    serve_alone(server)


if __name__ == "__main__":
    main()
