"""Handing answers on through a real server: what is cut never looks like an end."""

import asyncio
import contextlib
import itertools
import json
import zlib

import openai
import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.serve.misbehaving import chunked, saying, sized, take, upstream

from overproof.serve.connection import HIGH_BYTES, UpstreamError
from overproof.serve.leaving import Leaving
from overproof.serve.relay import WAIT_BYTES, relay
from overproof.serve.stream import Summary
from overproof.serve.upstream import Upstream


def event(text=None, finish=None) -> bytes:
    delta = {"content": text} if text is not None else {}
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


STREAM = [event("Zü"), event("rich"), event(finish="stop"), b"data: [DONE]\n\n"]


class Gateway:
    """A pass-through of nothing but these parts, under uvicorn."""

    def __init__(self, base_url: str) -> None:
        self.client = Upstream(base_url, allow_private=True, timeout_s=5)
        self.relayed, self.summaries, self.faults = [], [], []
        self.left = asyncio.Event()
        self.port = 0

    async def __call__(self, scope, receive, send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        leaving = Leaving(receive, after_s=0.01)
        try:
            reply = await self.client.send(scope["method"], scope["raw_path"].decode(), scope["headers"], body, leaving=leaving)
            summary = Summary(reply.status, reply.headers)
            self.summaries.append(summary)
            self.relayed.append(await relay(reply, send, headers=[(b"x-overproof-route", b"teacher")], summary=summary, leaving=leaving))
        except UpstreamError as error:
            self.faults.append(error.kind)
            if error.kind == "left":
                return
            await send({"type": "http.response.start", "status": 502, "headers": [(b"content-length", b"3")]})
            await send({"type": "http.response.body", "body": b"bad"})
        finally:
            leaving.close()
            if leaving.gone:
                self.left.set()


@contextlib.asynccontextmanager
async def gateway(base_url: str, *, loop_http="httptools"):
    app = Gateway(base_url)
    config = uvicorn.Config(app, host="127.0.0.1", port=0, http=loop_http, log_level="critical", lifespan="off", server_header=False, date_header=False)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110  # uvicorn has no event for it
        await asyncio.sleep(0.005)
    app.port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield app
    finally:
        server.should_exit = server.force_exit = True
        await serving
        await app.client.close()


def run(job):
    return asyncio.run(asyncio.wait_for(job, 20))


async def raw(port: int, request=b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}") -> bytes:
    """Everything that the gateway sends until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    found = b""
    with contextlib.suppress(ConnectionError):
        while more := await reader.read(65_536):
            found += more
    writer.close()
    return found


def through(handler):
    async def job():
        async with upstream(handler) as heard, gateway(heard.url) as app:
            return await raw(app.port), app

    found, app = run(job())
    head, _, body = found.partition(b"\r\n\r\n")
    return head, body, app


def unchunked(body: bytes) -> tuple[bytes, bool]:
    """The body, and whether it ended as chunks should."""
    found = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        if int(size, 16) == 0:
            return found, True
        found, body = found + body[: int(size, 16)], body[int(size, 16) + 2 :]
    return found, False


def test_a_stream_passes_byte_for_byte_with_its_end() -> None:
    """Also its comments and odd line ends, and what follows nothing."""
    odd = [b": hello\r\n\r\n", *STREAM[:2], b"event: x\r\ndata: {}\r\n\r\n", *STREAM[2:], b": no empty line"]
    head, body, app = through(saying(chunked(*odd)))
    assert unchunked(body) == (b"".join(odd), True)
    assert b"x-overproof-route: teacher" in head
    assert app.relayed[0].complete
    assert app.summaries[0].complete
    assert app.summaries[0].completion().reason is None


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("missing", [1, 2, 3, 4])
def test_a_stream_that_is_cut_ends_in_an_error_event_and_a_broken_connection(missing, reset) -> None:
    """No [DONE] of ours, no end of the body, and no label; also where all events came and the end of the framing didn't."""
    kept = STREAM[: len(STREAM) + 1 - missing]
    _, body, app = through(saying(chunked(*kept, end=False), reset=reset))
    found, ended = unchunked(body)
    assert found.startswith(b"".join(kept))
    error = json.loads(found[len(b"".join(kept)) :].removeprefix(b"data: "))
    assert error["error"]["code"] == "upstream_cut"
    assert not ended
    assert (app.relayed[0].complete, app.relayed[0].fault) == (False, "cut")
    assert app.summaries[0].completion().reason == "the answer was cut short"


def test_an_event_that_is_cut_in_the_middle_is_held_back() -> None:
    """At any byte of it: the error event never lands inside another one, and every event that the caller sees can be read."""

    async def job(at):
        sent = []

        async def send(message):
            sent.append(message)

        async with upstream(saying(chunked(STREAM[0], STREAM[1][:at] or b"\n", end=False))) as heard:
            client = Upstream(heard.url, allow_private=True, timeout_s=5)
            found = await relay(await client.send("POST", "/v1/x", [], b""), send)
            await client.close()
            return found, sent

    for at in range(len(STREAM[1])):
        found, sent = run(job(at))
        assert not found.complete
        assert all(message.get("more_body", True) for message in sent)
        events = b"".join(message.get("body", b"") for message in sent).strip().split(b"\n\n")
        assert [list(json.loads(one.strip().removeprefix(b"data: "))) for one in events] == [list(json.loads(STREAM[0][6:])), ["error"]]


def test_a_stream_with_a_proper_frame_but_no_end_of_its_own_is_cut_all_the_same() -> None:
    """Something between here and the model closed it politely."""
    _, body, app = through(saying(chunked(*STREAM[:2])))
    found, ended = unchunked(body)
    assert b"upstream_cut" in found
    assert b"[DONE]" not in found
    assert not ended
    assert not app.relayed[0].complete


@pytest.mark.parametrize("events", [[b"event: response.created\ndata: {}\n\n"], [event("a"), b'data: {"error": {"message": "busy"}}\n\n'], STREAM[:3]])
def test_streams_that_end_in_their_own_way_pass_as_they_are(events) -> None:
    """Other APIs' events, an error that the upstream itself told, a server that writes no [DONE]."""
    _, body, app = through(saying(chunked(*events)))
    assert unchunked(body) == (b"".join(events), True)
    assert app.relayed[0].complete
    assert app.summaries[0].completion().reason


def test_a_stream_that_is_closed_without_a_frame_needs_its_own_end() -> None:
    """Without length and chunks a closed connection proves nothing; [DONE] does."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
    for events, complete in ((STREAM, True), (STREAM[:2], False)):
        _, _, app = through(saying(head + b"".join(events)))
        assert app.relayed[0].complete == complete


def test_the_openai_client_gets_an_error_and_never_a_short_answer() -> None:
    """The real client, reading a stream that is cut."""

    async def job():
        async with (
            upstream(saying(chunked(*STREAM[:2], end=False))) as heard,
            gateway(heard.url) as app,
            openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{app.port}/v1", api_key="x", max_retries=0) as client,
        ):
            text = ""
            with pytest.raises(openai.APIError, match="broke off"):  # noqa: PT012  # it is the loop that raises
                async for chunk in await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "?"}], stream=True):
                    text += chunk.choices[0].delta.content or ""
            return text

    assert run(job()) == "Zürich"


@pytest.mark.parametrize("raw_answer", [sized(b'{"a": 1', length=50), chunked(b'{"a"', kind=b"application/json", end=False)], ids=["length", "chunked"])
def test_a_short_body_that_is_cut_becomes_a_proper_error(raw_answer) -> None:
    """Nothing had been sent, so the caller gets a status instead of half an answer."""
    head, body, app = through(saying(raw_answer))
    assert (head.split()[1], body, app.faults) == (b"502", b"bad", ["cut"])
    assert not app.summaries[0].complete
    assert app.summaries[0].completion().reason == "the answer was cut short"


def test_a_long_body_that_is_cut_is_broken_off() -> None:
    """More was sent than could be held back: the connection ends before the length is reached, with no error text in the body."""
    long = b"x" * (WAIT_BYTES * 2)
    _, body, app = through(saying(sized(long, length=len(long) + 1)))
    assert body == long[: len(body)]
    assert (app.relayed[0].complete, app.relayed[0].fault) == (False, "cut")
    _, body, app = through(saying(sized(long)))
    assert body == long
    assert app.relayed[0].complete


def test_a_compressed_stream_that_is_cut_gets_no_plain_text_put_into_it() -> None:
    """The caller's decoder would choke on it; the broken connection says enough."""
    packer = zlib.compressobj(wbits=31)
    packed = packer.compress(b"".join(STREAM[:2])) + packer.flush(zlib.Z_SYNC_FLUSH)
    answer = chunked(packed, end=False).replace(b"\r\n", b"\r\ncontent-encoding: gzip\r\n", 1)
    _, body, app = through(saying(answer))
    assert unchunked(body) == (packed, False)
    assert app.summaries[0].completion().text == "Zürich"
    assert app.summaries[0].completion().reason == "the answer was cut short"


def test_a_caller_who_leaves_stops_the_upstream() -> None:
    """Before the answer began, and in the middle of it."""

    async def job(first: bytes):
        async def stuck(heard, reader, writer):
            heard.requests.append(await take(reader))
            writer.write(first)
            await heard.until_gone(reader)

        async with upstream(stuck) as heard, gateway(heard.url) as app:
            reader, writer = await asyncio.open_connection("127.0.0.1", app.port)
            writer.write(b"POST /v1/x HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{}")
            if first:
                await reader.readuntil(b"rich")
            else:
                await asyncio.sleep(0.1)
            writer.close()
            await asyncio.wait_for(heard.gone.wait(), 5)
            await asyncio.wait_for(app.left.wait(), 5)
            return app

    app = run(job(b""))
    assert app.faults == ["left"]
    app = run(job(chunked(*STREAM[:2], end=False)))
    assert (app.relayed[0].complete, app.relayed[0].fault) == (False, "left")


def test_a_caller_who_reads_slowly_holds_the_upstream_back() -> None:
    """Of 64 MiB little more than the buffers leaves the upstream while the caller reads nothing."""
    piece, count = b"x" * 65_536, 1024
    written = []

    async def flood(heard, reader, writer):
        await take(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % (len(piece) * count))
        for _ in range(count):
            writer.write(piece)
            await writer.drain()
            written.append(1)

    async def job():
        async with upstream(flood) as heard, gateway(heard.url) as app:
            reader, writer = await asyncio.open_connection("127.0.0.1", app.port)
            writer.write(b"POST /v1/x HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}")
            await asyncio.sleep(0.5)
            early = len(written)
            got = 0
            while more := await reader.read(1 << 20):
                got += len(more)
            writer.close()
            return early, got

    early, got = run(job())
    assert early * len(piece) < 24 * 1024 * 1024 + 4 * HIGH_BYTES
    assert got > len(piece) * count


@given(st.lists(st.sampled_from([*STREAM, b": c\r\n\r\n", b"data: x\r\rdata: y\n", b"\n", b"\r", b"data"]), max_size=8).map(b"".join), st.lists(st.integers(0, 800), max_size=8))
@settings(max_examples=60, deadline=None)
def test_holding_back_half_events_loses_and_changes_nothing(body, cuts) -> None:
    """What is sent is what came, however it was split."""
    from overproof.serve.relay import _Way

    async def job():
        sent = []

        async def send(message):
            sent.append(message)

        way = _Way(send, Summary(200, [(b"content-type", b"text/event-stream")]))
        edges = [0, *sorted(min(c, len(body)) for c in cuts), len(body)]
        for a, b in itertools.pairwise(edges):
            await way.pass_on(body[a:b])
        await way.last(way.take_held())
        return b"".join(m["body"] for m in sent), sent[-1]["more_body"]

    assert asyncio.run(job()) == (body, False)
