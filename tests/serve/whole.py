"""Whole gateways as people start them, an upstream on loopback, and projects with releases in their store."""

import asyncio
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from tests.serve.misbehaving import take
from tests.serve.packing import LABELS, ROWS, gated, pack

from overproof.serve import moves
from overproof.store.project_store import open_store

RIGHT = {text: label for label, text in ROWS}
TEXTS = list(RIGHT)
PROMPT = "Sort the message into billing, delivery or login."
FILE = """
[task]
name = "{task}"
input = ["text"]
output = {{ classes = ["billing", "delivery", "login"] }}
prompt = "task.md"
[owner]
name = "Dana Ruiz"
email = "dana@shop.example"
[teacher]
use = "openai.v1"
model = "big-2025-06-01"
base_url = "{upstream}"
budget_usd = 1
price_in_usd_per_million = 1.0
price_out_usd_per_million = 2.0
[traffic]
source = "log"
[bars]
fidelity = 0.9
[[slice]]
name = "paying"
where = {{ tier = ["plus", "business"] }}
critical = true
[[student]]
use = "linear.v1"
[serve]
accuracy_when_confident = 0.9
stages = ["shadow 1h", "canary 50% 1h", "full"]
compare = 0.01
[gateway]
allow_private = true
upstream = "{upstream}"
deadline_s = 5
{gateway}
"""


class Teacher:
    """An upstream in a thread: says the right label; `mode` makes it fail."""

    def __init__(self):
        self.mode, self.asked, self.wait_s = "", [], 0.0
        self._loop, self._ready = asyncio.new_event_loop(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.wait(10)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/v1"

    def _run(self):
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._line, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.05))
        self._loop.close()

    async def _line(self, reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            while request := await take(reader):
                await asyncio.sleep(self.wait_s)
                if self.mode == "down":
                    writer.transport.abort()
                    return
                writer.write(self._said(request))
                await writer.drain()
        writer.close()

    def _said(self, request):
        head, _, body = request.partition(b"\r\n\r\n")
        method, path, _ = head.split(b"\r\n")[0].decode().split(" ", 2)
        path = path.partition("?")[0]
        self.asked.append((method, path, head, body))
        if self.mode == "garbage":
            return _whole(b"\xff{", 200)
        if self.mode == "500":
            return _whole(b'{"error":{"message":"x","type":"server_error","param":null,"code":null}}', 500)
        if self.mode in ("401", "403"):
            return _whole({"error": {"message": "no", "type": "invalid_request_error", "param": None, "code": "refused"}}, int(self.mode))
        if path == "/v1/models":
            return _whole({"object": "list", "data": [{"id": "big", "object": "model", "created": 1, "owned_by": "them"}]})
        if path == "/v1/models/big":
            return _whole({"id": "big", "object": "model", "created": 1, "owned_by": "them"})
        if method != "POST" or path not in ("/v1/chat/completions", "/v1/completions", "/v1/embeddings"):
            return _whole({"error": {"message": "unknown", "type": "invalid_request_error", "param": None, "code": "unknown_url"}}, 404)
        if path == "/v1/embeddings":
            return _whole({"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}], "model": "e", "usage": {"prompt_tokens": 1, "total_tokens": 1}})
        try:
            return _answered(path, json.loads(body))
        except (TypeError, AttributeError, KeyError, ValueError):  # as callers of nonsense are told by any API
            return _whole({"error": {"message": "nonsense", "type": "invalid_request_error", "param": None, "code": None}}, 400)

    def close(self):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


def _answered(path, asked):
    text = next((one["content"] for one in reversed(asked.get("messages") or []) if isinstance(one, dict) and one.get("role") == "user"), "")
    label = RIGHT.get(text, LABELS[0]) if isinstance(text, str) else LABELS[0]
    chat = path.endswith("chat/completions")
    head = {"id": "c1", "created": 1, "model": "big"}
    if asked.get("stream"):
        kind = {"object": "chat.completion.chunk" if chat else "text_completion"}
        parts = [{"delta": {"role": "assistant", "content": label}} if chat else {"text": label}, {"delta": {}} if chat else {"text": ""}]
        events = [json.dumps({**head, **kind, "choices": [{"index": 0, **part, "finish_reason": "stop" if i else None}]}) for i, part in enumerate(parts)]
        return _whole("".join(f"data: {one}\n\n" for one in [*events, "[DONE]"]).encode(), 200, b"text/event-stream")
    said = {"message": {"role": "assistant", "content": label}} if chat else {"text": label}
    return _whole({
        **head, "object": "chat.completion" if chat else "text_completion", "choices": [{"index": 0, "finish_reason": "stop", **said}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6},
    })  # fmt: skip


def _whole(body, status=200, kind=b"application/json"):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return b"HTTP/1.1 %d X\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n%s" % (status, kind, len(raw), raw)


def project(folder, upstream, *, task="routing", gateway=""):
    """A project in `folder`; the gateway's own lines in `gateway`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "task.md").write_text(PROMPT if task == "routing" else f"{PROMPT} Task {task}.")
    (folder / "overproof.toml").write_text(FILE.format(task=task, upstream=upstream, gateway=gateway))
    return folder


def release(folder, name, *, seed=0, due="2999-01-01"):
    """A candidate in the project's store, with a linear student."""
    with tempfile.TemporaryDirectory() as scratch, open_store(folder) as store:
        pack(Path(scratch) / "b", seed=seed)
        kept = store.root / f"made-{name}"
        shutil.copytree(Path(scratch) / "b", kept)
        gated(store, kept, {"paying": 0.4, "other": 0.4}, name=name, alpha=0.1, due=due)


def put_at(folder, name, stage):
    """Take a release to a stage, as `overproof promote --force` does."""
    from overproof.project import load_project

    loaded = load_project(folder)
    with open_store(folder) as store:
        done = moves.promote(store, loaded, by="Dana", release_id=name, to=stage, force="for the test")
        assert done.moved, done.why


class Gateway:
    """`overproof serve` in a process of its own."""

    def __init__(self, folder, *options, port=0):
        command = [sys.executable, "-m", "overproof.cli", "serve", "--project", str(folder), "--port", str(port), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "NO_PROXY": "*"})
        line = self.process.stdout.readline().decode()
        found = re.search(r"listening on http://127\.0\.0\.1:(\d+)", line)
        if found is None:
            raise RuntimeError(line + self.process.stderr.read().decode())
        self.port = int(found[1])

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method, path, body=None, key="", **headers):
        """One request; status, headers, and the body read as JSON where it is that."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(line):
            head = {name.replace("_", "-"): value for name, value in headers.items()}
            head |= {"Authorization": f"Bearer {key}"} if key else {}
            head |= {"Content-Type": "application/json"} if body is not None else {}
            raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            line.request(method, path, body=raw, headers=head)
            got = line.getresponse()
            data = got.read()
            kind = got.headers.get("content-type", "")
            return Got(got.status, {k.lower(): v for k, v in got.headers.items()}, json.loads(data) if kind.startswith("application/json") and data else data)

    def chat(self, text, **more):
        key = more.pop("key", "")
        return self.ask("POST", "/v1/chat/completions", chat(text, **more), key=key)

    def stop(self, sig=signal.SIGTERM):
        """End it; its exit code and what it said on stderr."""
        if self.process.poll() is None:
            self.process.send_signal(sig)
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        for stream in (self.process.stdout, self.process.stderr):
            if not stream.closed:
                self.said = stream.read().decode() if stream is self.process.stderr else ""
                stream.close()
        return code


class Got:
    """An answer."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def id(self):
        return self.headers["x-overproof-request-id"]


def chat(text, **more):
    """The body of a call that the task is recognised in."""
    return {"model": "big", "messages": [{"role": "system", "content": PROMPT}, {"role": "user", "content": text}], **more}


@contextlib.contextmanager
def serving(folder, *options, port=0):
    """A gateway that ends with the block."""
    one = Gateway(folder, *options, port=port)
    try:
        yield one
    finally:
        one.stop()
