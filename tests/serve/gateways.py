"""Whole gateways in front of an upstream with switches: real sockets, a real release, a real store."""

import asyncio
import contextlib
import gzip
import http.client
import json
import re
import shutil
import socket
import struct
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

from click.testing import CliRunner
from tests.serve.misbehaving import take
from tests.serve.packing import LABELS, ROWS, gated

from overproof.cli import main
from overproof.privacy.redact import redactor_of
from overproof.project import load_project
from overproof.serve import server
from overproof.serve.app import App
from overproof.serve.capture import Capture
from overproof.serve.keeping import LogProcess
from overproof.store.project_store import open_store

PROMPT = "You sort the mail of a web shop into billing, delivery and login. Answer with one word."
SURE = [text for label, text in ROWS if label == "delivery"]
CHAT = "/v1/chat/completions"
FILE = """
[task]
name = "{name}"
input = ["text"]
output = {{ classes = ["billing", "delivery", "login"] }}
prompt = "task.md"
[owner]
name = "Dana Ruiz"
email = "dana@shop.example"
[teacher]
use = "recorded.v1"
model = "big-2025-06-01"
path = "r.jsonl"
terms = "terms.toml"
[traffic]
source = "log"
[bars]
fidelity = 0.9
[[slice]]
name = "paying"
where = {{ tier = ["plus", "business"] }}
critical = true
[[slice]]
name = "french"
where = {{ language = "fr" }}
[[student]]
use = "linear.v1"
[serve]
accuracy_when_confident = 0.95
stages = ["shadow 1h", "canary 50% 1h", "full"]
{serve}
[gateway]
upstream = "{upstream}"
allow_private = true
deadline_s = 1.0
{gateway}
"""


class Stub:
    """An upstream on loopback: answers as `say` says, or misbehaves as `mode` says; keeps every request."""

    def __init__(self):
        self.mode = "answer"
        """answer, 500, hang, hang-stream, cut, cut-stream, garbage, odd."""
        self.say = lambda text: next((label for label, known in ROWS if known == text), "delivery")
        self.heard, self.sent, self.pack = [], [], False
        self.gone = threading.Event()
        self._writers = set()
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def count(self):
        return len(self.heard)

    def reset(self):
        self.mode = "answer"
        self.heard.clear()
        self.sent.clear()
        self.gone.clear()

    async def _serve(self, reader, writer):
        self._writers.add(writer)
        with contextlib.suppress(ConnectionError):
            while raw := await take(reader):
                head, _, body = raw.partition(b"\r\n\r\n")
                self.heard.append((head, body))
                if not await getattr(self, "_" + self.mode.replace("-", "_"), self._answer)(reader, writer, body):
                    break
        self._writers.discard(writer)
        writer.close()

    def _body(self, body):
        try:
            asked = json.loads(body or b"{}")
        except ValueError:
            asked = {}
        text = str(asked.get("messages", [{}])[-1].get("content", "")) if isinstance(asked, dict) else ""
        word = self.say(text)
        if not (isinstance(asked, dict) and asked.get("stream")):
            choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": word}}
            usage = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
            return False, [json.dumps({"id": "c1", "object": "chat.completion", "created": 1, "model": "big", "choices": [choice], "usage": usage}).encode()]
        deltas = [({"role": "assistant", "content": ""}, None), ({"content": word[:3]}, None), ({"content": word[3:]}, None), ({}, "stop")]
        made = [{"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "big", "choices": [{"index": 0, "delta": d, "finish_reason": f}]} for d, f in deltas]
        return True, [*(b"data: " + json.dumps(one).encode() + b"\n\n" for one in made), b"data: [DONE]\n\n"]

    async def _answer(self, reader, writer, body):
        streamed, parts = self._body(body)
        self.sent.append(b"".join(parts))
        if streamed:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-stub: yes\r\ntransfer-encoding: chunked\r\n\r\n")
            for part in [*parts, b""]:
                writer.write(b"%x\r\n%s\r\n" % (len(part), part))
        else:
            how, raw = self._packed(parts[0])
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-stub: yes\r\nopenai-version: 2020-10-01\r\n%scontent-length: %d\r\n\r\n%s" % (how, len(raw), raw))
        return True

    def _packed(self, raw):
        """As providers choose: the best that the caller offers, best first."""
        offered = re.search(rb"(?mi)^accept-encoding: *(.*?)\r?$", self.heard[-1][0])
        names = offered[1].split(b", ") if offered and self.pack else []
        if b"br" in names:
            return b"content-encoding: br\r\n", b"\x0b" + raw  # nobody here reads it
        return (b"content-encoding: gzip\r\n", gzip.compress(raw)) if b"gzip" in names else (b"", raw)

    async def _500(self, reader, writer, body):
        said = b'{"error": {"message": "overloaded", "type": "server_error"}}'
        writer.write(b"HTTP/1.1 500 Oops\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(said), said))
        return True

    async def _hang(self, reader, writer, body):
        with contextlib.suppress(ConnectionError):
            while await reader.read(65536):
                pass
        self.gone.set()
        return False

    async def _hang_stream(self, reader, writer, body):
        part = self._body(json.dumps({"stream": True}).encode())[1][1]
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(part), part))
        return await self._hang(reader, writer, body)

    async def _cut(self, reader, writer, body):
        said = self._body(b"{}")[1][0]
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(said) + 10, said))
        return False

    async def _cut_stream(self, reader, writer, body):
        said = b"".join(self._body(json.dumps({"stream": True}).encode())[1][:3])
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(said), said))
        await writer.drain()
        await asyncio.sleep(0.05)
        return False

    async def _garbage(self, reader, writer, body):
        writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
        return False

    def stop(self):
        """The port is closed, and so is every connection."""
        if self._loop.is_closed():
            return

        async def end():
            self._server.close()
            for writer in self._writers:
                writer.transport.abort()
            for task in (rest := asyncio.all_tasks() - {asyncio.current_task()}):
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)

        with contextlib.suppress(Exception):
            asyncio.run_coroutine_threadsafe(end(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()


def write_project(folder, upstream, *, name="routing", serve="", gateway="", prompt=PROMPT):
    """A project file and what it names."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "task.md").write_text(prompt)
    (folder / "r.jsonl").write_text("")
    (folder / "terms.toml").write_text("")
    (folder / "overproof.toml").write_text(FILE.format(name=name, upstream=upstream, serve=serve, gateway=gateway))
    return folder


def in_thread(keeping):
    """A log whose writer is a thread of the test's own process, where its disk can be made to fail."""
    store = open_store(Path(keeping.root))
    redactor = redactor_of(keeping.privacy, key=store.secret, keep=keeping.labels)
    return Capture(store, redactor=redactor, mode=keeping.mode, queue_records=keeping.queue_records, prices=keeping.prices)


def record(folder, packed, name="r1"):
    """A release of the bundle in `packed`, as the gate makes one, recorded as a candidate."""
    with open_store(folder) as store:
        copied = store.root / f"made-{name}"
        shutil.copytree(packed, copied)
        return gated(store, copied, {"paying": 0.5, "french": None, "other": 0.5}, name=name).bundle


def place(folder, stage, share=None, name="r1", ago_s=0.0):
    """Put the rollout somewhere, whatever the evidence; on record as done so long ago."""
    with open_store(folder) as store:
        before = store.rollouts.current("routing")
        share = {"shadow": 0.0, "full": 1.0, "teacher-only": 0.0}.get(stage, 0.5) if share is None else share
        return store.rollouts.move(before, release_id=name, stage=stage, share=share, by="Dana", why="a test", evidence={}, at=time.time() - ago_s)


class _Quiet(server._Server):
    """Without signals, which belong to the main thread."""

    def __init__(self, config, app, drain_s, on_started):
        super().__init__(config, app, drain_s, on_started)
        app.server = self

    @contextlib.contextmanager
    def capture_signals(self):
        yield


class Gateway:
    """`overproof serve` in a thread, with callers' ends and a look at the log."""

    def __init__(self, *folders, drain_s=5.0, keep=LogProcess, clock=time.time):
        self.folder, self.folders, self.app, self.port, self._keep, self._clock = folders[0], folders, None, 0, keep, clock
        self._ready, self._drain_s, self._failed = threading.Event(), drain_s, None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(60)
        if self._failed:
            raise self._failed

    def _run(self):
        try:
            self.app = App([load_project(one / "overproof.toml") for one in self.folders], host="127.0.0.1", keep=self._keep, clock=self._clock)
            self.app.load()
            with patch.object(server, "_Server", _Quiet):
                server.serve(self.app, host="127.0.0.1", port=0, on_started=self._started, drain_s=self._drain_s)
        except BaseException as error:  # said to the test
            self._failed = error
            self._ready.set()

    def _started(self, port):
        self.app.follow()
        self.port = port
        self.loop = asyncio.get_running_loop()
        self._ready.set()

    @property
    def station(self):
        return self.app.stations[0]

    @property
    def current(self):
        return self.station.live.current

    def on_loop(self, function):
        """Run something in the event loop's thread."""

        async def run():
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(10)

    def at(self, stage, share=None, *, within_s=10):
        """Wait until requests are answered by the rules of a stage."""
        until(lambda: self.current.position.stage == stage and (share is None or self.current.position.share == share), within_s)

    def request(self, path, body=None, headers=(), *, method=None):
        """One request on a connection of its own."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
        try:
            raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            line.request(method or ("GET" if body is None else "POST"), path, raw, {"content-type": "application/json", **dict(headers)})
            got = line.getresponse()
            heads = {k.lower(): v for k, v in got.getheaders()}
            try:
                said, whole = got.read(), True
            except (http.client.IncompleteRead, ConnectionError) as error:
                said, whole = getattr(error, "partial", b""), False
        finally:
            line.close()
        how = {k.removeprefix("x-overproof-"): v for k, v in heads.items() if k.startswith("x-overproof-")}
        return SimpleNamespace(status=got.status, headers=heads, body=said, whole=whole, how=how, id=how.get("request-id", ""))

    def ask(self, text, headers=(), **more):
        """One call of the task, known by its prompt."""
        return self.request(CHAT, chat(text, **more), headers)

    def asks(self, calls):
        """Many calls over one connection: (text, headers, more) each."""
        line, found = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15), []
        for text, headers, more in calls:
            line.request("POST", CHAT, json.dumps(chat(text, **more)).encode(), {"content-type": "application/json", **headers})
            got = line.getresponse()
            how = {k.lower().removeprefix("x-overproof-"): v for k, v in got.getheaders() if k.lower().startswith("x-overproof-")}
            try:
                said = got.read()
            except (http.client.IncompleteRead, ConnectionError) as error:
                said = getattr(error, "partial", b"")
                line.close()
            found.append(SimpleNamespace(status=got.status, how=how, id=how.get("request-id", ""), body=said))
        line.close()
        return found

    def json(self, path):
        return json.loads(self.request(path).body)

    def metric(self, start):
        """Sum of the metrics' lines that begin so."""
        lines = self.request("/metrics").body.decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(start))

    def rows(self, at=0):
        with open_store(self.folders[at]) as store:
            return {one.request.id: one for one in store.traffic.read()}

    def row(self, one, within_s=5):
        """The row of an answer, once it is there."""
        request_id = one if isinstance(one, str) else one.id
        return until(lambda: self.rows().get(request_id), within_s)

    def stop(self):
        if self._thread.is_alive():
            self.app.server.should_exit = True
        self._thread.join(30)
        assert not self._thread.is_alive()

    def leave_mid_stream(self, text="where is my parcel"):
        """Read the first bytes of a streamed answer, then reset the connection."""
        raw = json.dumps(chat(text, stream=True)).encode()
        line = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        line.sendall(b"POST %s HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (CHAT.encode(), len(raw), raw))
        got = line.recv(65536)
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        line.close()
        return got


def chat(text, **more):
    """A call's body."""
    return {"model": "big", "messages": [{"role": "system", "content": PROMPT}, {"role": "user", "content": text}], **more}


def until(look, within_s=10):
    """Look again and again; what was found, which is true."""
    end = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < end, "it did not come in time"
        time.sleep(0.02)
    return found


def content(answer):
    """The text of an answer, streamed or not."""
    if answer.headers["content-type"].startswith("text/event-stream"):
        events = [json.loads(line[6:]) for line in answer.body.split(b"\n\n") if line.startswith(b"data: {")]
        return "".join(one["choices"][0]["delta"].get("content") or "" for one in events if one.get("choices"))
    return json.loads(answer.body)["choices"][0]["message"]["content"]


def command(folder, *words):
    """A verb of the command line."""
    done = CliRunner().invoke(main, [*words, "--project", str(folder)], catch_exceptions=False)
    return SimpleNamespace(code=done.exit_code, said=done.output)


@contextlib.contextmanager
def running(root: Path, packed=None, *, stage="", share=None, serve="", gateway="", stub=None, keep=LogProcess, clock=time.time):
    """A project at a stage, its upstream, and the gateway between them."""
    with contextlib.ExitStack() as stack:
        if stub is None:
            stub = Stub()
            stack.callback(stub.stop)
        folder = write_project(root / "p", stub.url, serve=serve, gateway=gateway)
        if packed:
            record(folder, packed)
        if stage:
            place(folder, stage, share)
        one = Gateway(folder, keep=keep, clock=clock)
        stack.callback(one.stop)
        one.stub = stub
        if stage:
            one.at(stage)
        yield one


__all__ = ["CHAT", "LABELS", "PROMPT", "ROWS", "SURE", "Gateway", "Stub", "chat", "command", "content", "in_thread", "place", "record", "running", "until", "write_project"]
