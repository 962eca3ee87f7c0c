"""
The upstream that all contestants ask: one fixed chat completion, or the same as server-sent events where a stream is asked for.

python benchmarks/gateway/stub.py [--port 0] [--core N] [--label TEXT] [--delay-ms 0]

A bare protocol on uvloop and httptools, far cheaper than any gateway in front of it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from typing import Any

import httptools
import uvloop

MODEL = "stub-model"


def answers(label: str) -> tuple[bytes, bytes, bytes]:
    """A whole completion, the same as a stream, and the list of models; each with its head."""
    shared = {"id": "chatcmpl-stub", "created": 1_700_000_000, "model": MODEL}
    usage = {"prompt_tokens": 40, "completion_tokens": 4, "total_tokens": 44}
    message = {"role": "assistant", "content": label}
    whole = {**shared, "object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}
    deltas: list[dict[str, str]] = [{"role": "assistant", "content": ""}, *({"content": piece} for piece in label.partition("_") if piece), {}]
    events = []
    for delta in deltas:
        choice = {"index": 0, "delta": delta, "finish_reason": None if delta else "stop"}
        events.append(b"data: " + json.dumps({**shared, "object": "chat.completion.chunk", "choices": [choice]}).encode() + b"\n\n")
    events.append(b"data: [DONE]\n\n")
    stream = b"".join(b"%x\r\n%s\r\n" % (len(event), event) for event in events) + b"0\r\n\r\n"
    models = {"object": "list", "data": [{"id": MODEL, "object": "model", "created": 1_700_000_000, "owned_by": "stub"}]}
    return _headed(whole), b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n" + stream, _headed(models)


def _headed(body: object) -> bytes:
    raw = json.dumps(body).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(raw), raw)


class Stub(asyncio.Protocol):
    """One connection."""

    def __init__(self, found: tuple[bytes, bytes, bytes], delay_s: float) -> None:
        self.found, self.delay_s = found, delay_s
        self.parser = httptools.HttpRequestParser(self)
        self.body: list[bytes] = []
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.transport = None

    def on_body(self, body: bytes) -> None:
        self.body.append(body)

    def on_message_complete(self) -> None:
        body = b"".join(self.body)
        self.body.clear()
        whole, stream, models = self.found
        if self.parser.get_method() == b"GET":
            self.answer(models)
        else:
            found = stream if b'"stream": true' in body or b'"stream":true' in body else whole
            if self.delay_s:
                asyncio.get_running_loop().call_later(self.delay_s, self.answer, found)
            else:
                self.answer(found)

    def answer(self, found: bytes) -> None:
        if self.transport is not None:
            self.transport.write(found)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--core", type=int, default=None, help="processor to stay on")
    parser.add_argument("--label", default="activate_my_card", help="what it answers")
    parser.add_argument("--delay-ms", type=float, default=0.0, help="how long it thinks before it answers")
    given = parser.parse_args()
    if given.core is not None:
        os.sched_setaffinity(0, {given.core})
    found = answers(given.label)
    server = await asyncio.get_running_loop().create_server(lambda: Stub(found, given.delay_ms / 1e3), "127.0.0.1", given.port, backlog=1024)
    print(f"listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    try:
        uvloop.run(main())
    except KeyboardInterrupt:
        sys.exit(0)
