"""Run as a program: the way in of the gateway with handlers that say what reached them; prints its port."""

import asyncio
import json
import sys
from pathlib import Path

from overproof.serve.admission import Admission
from overproof.serve.asgi import answer
from overproof.serve.guard import Guard, limits_of
from overproof.serve.keys import Keyring
from overproof.serve.openapi import openapi
from overproof.serve.routes import ENDPOINTS
from overproof.serve.server import serve
from overproof.store.project_store import open_store


async def echo(request, send):
    await answer(send, json.dumps({
        "handler": request.endpoint.handler, "path": request.path.decode(), "params": dict(request.params), "caller": request.caller.id,
        "body": request.body.decode("latin-1")[:100], "length": len(request.body),
    }).encode())  # fmt: skip


async def slow(request, send):
    """Half of the answer, then a wait, then the rest."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    await send({"type": "http.response.body", "body": b"data: first\n\n", "more_body": True})
    await asyncio.sleep(float(request.query or b"0.3"))
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


async def broken(request, send):
    """Fails before or in the middle of its answer."""
    if request.query == b"late":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
    raise ValueError(request.body)


async def document(request, send):
    await answer(send, json.dumps(openapi()).encode())


HANDLERS = {one.handler: echo for one in ENDPOINTS} | {"completions": slow, "status": broken, "feedback": broken, "openapi": document}


class Way:
    """The application as the gateway will be: the guard around the way in, and an end."""

    def __init__(self, store, options):
        self.keyring = Keyring([store.keys])
        self.inner = Admission(HANDLERS, keyring=self.keyring, max_concurrent=options.get("most", 256))
        self.guard = Guard(self.inner, limits=limits_of("127.0.0.1", origins=["https://app.example.org"], hosts=["gw.example.org"]))
        self.closed = Path(options["closed"]) if "closed" in options else None
        self.task = None

    async def __call__(self, scope, receive, send):
        await self.guard(scope, receive, send)

    async def close(self):
        self.task.cancel()
        if self.closed:
            self.closed.write_text(f"{self.inner.in_flight} in flight")


def main(folder, options):
    with open_store(Path(folder)) as store:
        way = Way(store, options)

        def started(port):
            way.task = asyncio.get_running_loop().create_task(way.keyring.follow())
            print(port, flush=True)

        serve(way, host="127.0.0.1", port=options.get("port", 0), on_started=started, reuse_port="port" in options, drain_s=options.get("drain_s", 20.0))


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
