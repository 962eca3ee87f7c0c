"""
What the gateway is held against, on the same stack (uvicorn, httptools, uvloop), without capture, keys, routing or counters.

python benchmarks/gateway/bare.py --upstream http://127.0.0.1:PORT/v1      passes everything on, with the gateway's own client
python benchmarks/gateway/bare.py --bundle FOLDER --field text             answers in line with a released student, one at a time
"""

from __future__ import annotations

import argparse
import socket
import sys
from typing import Any

import uvicorn


async def read(receive: Any) -> bytes:
    """The request's body."""
    message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body"):
        message = await receive()
        body += message.get("body", b"")
    return body


class PassThrough:
    """Bytes in, bytes out."""

    def __init__(self, base_url: str) -> None:
        self.base_url, self.upstream = base_url, None

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if self.upstream is None:
            from overproof.serve.upstream import Upstream

            self.upstream = Upstream(self.base_url, allow_private=True, timeout_s=60)
        reply = await self.upstream.send(scope["method"], scope["path"], scope["headers"], await read(receive))
        await send({"type": "http.response.start", "status": reply.status, "headers": reply.headers})
        held = b""
        async for chunk in reply.body():
            if held:
                await send({"type": "http.response.body", "body": held, "more_body": True})
            held = chunk
        await send({"type": "http.response.body", "body": held})


class InLine:
    """A student on the loop, one request at a time."""

    def __init__(self, folder: str, field: str) -> None:
        from overproof.serve.shapes import read_call, reply
        from overproof.students.bundle import load_bundle

        self.bundle, self.field, self.read_call, self.reply = load_bundle(folder), field, read_call, reply

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        call = self.read_call(scope["path"], await read(receive))
        answer = self.bundle.answer({self.field: call.body["messages"][-1]["content"]})
        body = self.reply(call, answer.value or answer.guess, model=call.model, request_id="bench", created=0)
        head = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": body})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstream", default="", help="base URL, with its /v1")
    parser.add_argument("--bundle", default="", help="folder of a release")
    parser.add_argument("--field", default="text", help="input field that the last message is")
    given = parser.parse_args()
    app = InLine(given.bundle, given.field) if given.bundle else PassThrough(given.upstream)
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listener.setblocking(False)
    config = uvicorn.Config(
        app, http="httptools", ws="none", loop="uvloop", lifespan="off", interface="asgi3", proxy_headers=False, server_header=False,
        access_log=False, log_config=None, log_level="critical", timeout_keep_alive=75,
    )  # fmt: skip
    print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    uvicorn.Server(config).run(sockets=[listener])
    return 0


if __name__ == "__main__":
    sys.exit(main())
