"""The client to the upstream, against real servers on loopback that misbehave."""

import asyncio
import socket
import ssl
import subprocess
import sys
import threading
import time

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.serve.misbehaving import Heard, chunked, saying, sized, take, upstream

from overproof.errors import TeacherError
from overproof.serve import upstream as module
from overproof.serve.connection import HIGH_BYTES, UpstreamError
from overproof.serve.leaving import Leaving
from overproof.serve.upstream import Upstream

POST = ("POST", "/v1/chat/completions")
LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


def run(job, loop_factory=asyncio.new_event_loop):
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(asyncio.wait_for(job, 20))


def to(heard: Heard, **more) -> Upstream:
    return Upstream(heard.url, **{"allow_private": True, "timeout_s": 5.0, **more})


async def fetch(client: Upstream, *, method="POST", path="/v1/chat/completions", headers=(), body=b"{}", **more):
    reply = await client.send(method, path, headers, body, **more)
    return reply, await reply.read()


async def fault_of(job) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await job
    return caught.value


def ask(handler, loop_factory=asyncio.new_event_loop, **more):
    """One request to a server, on a fresh client."""

    async def job():
        async with upstream(handler) as heard:
            client = to(heard)
            try:
                return heard, *(await fetch(client, **more))
            finally:
                await client.close()

    return run(job(), loop_factory)


def fails(handler, loop_factory=asyncio.new_event_loop, options=(), **more):
    async def job():
        async with upstream(handler) as heard:
            client = to(heard, **dict(options))
            try:
                return heard, await fault_of(fetch(client, **more))
            finally:
                await client.close()

    return run(job(), loop_factory)


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_bytes_pass_both_ways_as_they_are(loop_factory) -> None:
    """Body and headers arrive byte for byte; those of the connection stay behind, on both event loops."""
    answer = sized(b'{"a": 1}', b"X-Request-ID: 7", b"x-twice: 1", b"x-twice: 2", b"connection: keep-alive, x-hop", b"x-hop: 1", b"keep-alive: timeout=9")
    heard, reply, body = ask(
        saying(answer, keep=True), loop_factory, body=b'{"model" : "m"}\xff',
        headers=[(b"content-type", b"application/json"), (b"accept-encoding", b"br"), (b"openai-beta", b"x=1"), (b"authorization", b"Bearer sk-1")],
    )  # fmt: skip
    assert (reply.status, reply.complete, body) == (200, True, b'{"a": 1}')
    assert reply.headers == [
        (b"content-type", b"application/json"), (b"content-length", b"8"), (b"x-request-id", b"7"), (b"x-twice", b"1"), (b"x-twice", b"2"),
    ]  # fmt: skip
    head, _, sent = heard.requests[0].partition(b"\r\n\r\n")
    assert sent == b'{"model" : "m"}\xff'
    assert head.split(b"\r\n") == [
        b"POST /v1/chat/completions HTTP/1.1", b"host: 127.0.0.1:%d" % heard.port, b"content-type: application/json",
        b"accept-encoding: br", b"openai-beta: x=1", b"authorization: Bearer sk-1", b"content-length: 16",
    ]  # fmt: skip


def test_what_is_not_the_upstreams_business_stays_here() -> None:
    """Hop-by-hop headers, those that Connection names, cookies, our own, the browser's and proxies' are left out."""
    private = [
        b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"proxy-authorization", b"host", b"content-length",
        b"expect", b"cookie", b"origin", b"referer", b"x-overproof-attr-tier", b"X-Overproof-Key", b"x-forwarded-for", b"forwarded", b"x-real-ip",
        b"sec-fetch-site", b"x y", b"bad:name", b"transfer-encoding ", b"",
    ]  # fmt: skip
    headers = [(name, b"keep-alive, x-mine" if name == b"connection" else b"1") for name in private]
    heard, _, _ = ask(saying(sized(b"{}"), keep=True), headers=[(b"x-mine", b"1"), *headers, (b"x-stays", b"1")])
    names = [line.split(b":")[0] for line in heard.requests[0].partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]]
    assert names == [b"host", b"x-stays", b"content-length"]


@pytest.mark.parametrize("more", [{"api_key": "sk-ours"}, {"pass_authorization": False}, {}])
def test_the_callers_key_never_goes_on_where_ours_does_or_where_it_is_one_of_ours(more) -> None:
    """With a key for the upstream, the caller's is replaced; with keys of our own, it is dropped; a key of ours is, whatever the case."""

    async def job():
        async with upstream(saying(sized(b"{}"), keep=True)) as heard:
            client = to(heard, **more)
            for name in (b"authorization", b"Authorization", b"AUTHORIZATION"):
                await fetch(client, headers=[(name, b"Bearer op_secret")])
            await client.close()
            return heard

    heard = run(job())
    for request in heard.requests:
        assert b"op_secret" not in request
        assert (b"authorization: Bearer sk-ours\r\n" in request) == ("api_key" in more)


@given(name=st.binary(max_size=12), value=st.binary(max_size=20), path=st.text(st.characters(max_codepoint=300), max_size=12))
@settings(max_examples=150, deadline=None)
def test_no_header_and_no_path_can_write_a_further_line(name, value, path) -> None:
    """Whatever is passed in, the head holds the lines that were meant, or nothing is sent."""
    client = Upstream("http://127.0.0.1:9/v1", allow_private=True, timeout_s=1)
    try:
        head = client._head("POST", "/v1/" + path, [(name, value), (b"x-after", b"1")], 2)
    except UpstreamError:
        return
    assert head.endswith(b"\r\n\r\n")
    lines = head[:-4].split(b"\r\n")
    assert b"\n" not in b"".join(lines)
    assert b"\r" not in b"".join(lines)
    assert b"\0" not in head
    assert len(lines) in (4, 5)
    assert lines[0].count(b" ") == 2
    assert [line for line in lines if line.lower().startswith((b"content-length", b"transfer-encoding", b"host"))] == [lines[1], lines[-1]]


@pytest.mark.parametrize(
    "path",
    ["/v1/../admin", "/v1/%2e%2e/admin", "/v1/.%2E/x", "/v1/a/..", "/v1//x", "/v1/a\\..\\b", "/v1/a%2fb", "/v1/a b", "/v1/é", "v1/x", "/v1/x#y", "/v1/x\r\nHost: y", ""],
)
def test_a_path_cannot_climb_out_of_the_base_url(path) -> None:
    """Dot segments in any spelling are refused before anything is sent."""
    client = Upstream("https://api.example.com/v1", allow_private=False, timeout_s=1)
    error = run(fault_of(client.send("POST", path, [], b"")))
    assert (error.kind, error.sent) == ("refused", False)


@pytest.mark.parametrize(
    ("base", "path", "target"),
    [
        ("/v1", "/v1/models?a=%2e%2e&b=//", b"/v1/models?a=%2e%2e&b=//"), ("/openai/v1/", "/v1/chat/completions", b"/openai/v1/chat/completions"),
        ("", "/v1/x", b"/x"), ("/v1", "/v1beta/x", b"/v1/v1beta/x"), ("/v1", "/v1?x", b"/v1?x"), ("", "/v1", b"/"),
    ],
)  # fmt: skip
def test_the_callers_v1_stands_for_the_path_of_the_base_url(base, path, target) -> None:
    """The path below /v1 is joined to the base URL, query untouched."""
    client = Upstream("https://api.example.com" + base, allow_private=False, timeout_s=1)
    assert client._target(path) == target


def test_an_unknown_method_is_not_sent() -> None:
    """CONNECT, TRACE and invented ones are refused."""
    client = Upstream("https://api.example.com/v1", allow_private=False, timeout_s=1)
    for method in ("CONNECT", "TRACE", "GET / HTTP/1.1\r\nx", "get"):
        assert run(fault_of(client.send(method, "/v1/x", [], b""))).kind == "refused"


# bodies


WHOLE = {
    "length": sized(b"hello"),
    "empty": sized(b""),
    "chunked": chunked(b"he", b"l", b"lo"),
    "trailers": chunked(b"hello", end=False) + b"0\r\nx-evil: 1\r\n\r\n",
    "till close": b"HTTP/1.1 200 OK\r\ncontent-type: a/b\r\n\r\nhello",
    "http 1.0": b"HTTP/1.0 200 OK\r\n\r\nhello",
    "continue": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + sized(b"hello"),
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "error": sized(b"no", status=b"500 Oops"),
}


@pytest.mark.parametrize("loop_factory", LOOPS)
@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize("name", WHOLE)
def test_every_framing_is_read_whole_however_it_is_cut_into_packets(name, size, loop_factory) -> None:
    """Length, chunks, close, informational answers: in one packet or trickling byte by byte."""
    raw = WHOLE[name]

    async def trickle(heard, reader, writer):
        while request := await take(reader):
            heard.requests.append(request)
            for at in range(0, len(raw), size):
                writer.write(raw[at : at + size])
                await asyncio.sleep(0)
            if name in ("till close", "http 1.0"):
                return

    _, reply, body = ask(trickle, loop_factory)
    assert reply.complete
    assert body == {"empty": b"", "no content": b"", "error": b"no"}.get(name, b"hello")
    assert not [name for name, _ in reply.headers if name in (b"x-evil", b"link", b"transfer-encoding")]


@pytest.mark.parametrize("loop_factory", LOOPS)
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("raw", [WHOLE["length"], WHOLE["chunked"], WHOLE["continue"]], ids=["length", "chunked", "continue"])
def test_a_body_cut_at_any_byte_is_an_error_and_never_an_end(raw, reset, loop_factory) -> None:
    """At each byte of head and body: closed or reset, the reply is "cut", not complete, and was not asked for twice."""

    async def job():
        at = 0

        async def cut(heard, reader, writer):
            heard.requests.append(await take(reader))
            writer.write(raw[:at])
            if reset:
                await writer.drain()
                await asyncio.sleep(0.001)
                writer.transport.abort()

        async with upstream(cut) as heard:
            client = to(heard)
            for at in range(len(raw)):  # read by `cut`
                error = await fault_of(fetch(client))
                assert (error.kind, error.sent) == ("cut", True), at
            await client.close()
            assert len(heard.requests) == len(raw)

    run(job(), loop_factory)


def test_what_came_before_the_cut_is_delivered_and_the_reply_stays_incomplete() -> None:
    """The chunks that came are read, then the iterator raises instead of ending."""

    async def job():
        async with upstream(saying(chunked(b"one", b"two", end=False))) as heard:
            client = to(heard)
            reply = await client.send(*POST, [], b"{}")
            got = b""
            with pytest.raises(UpstreamError):  # noqa: PT012  # it is the loop that raises
                async for chunk in reply.body():
                    got += chunk
            await client.close()
            return got, reply.complete

    assert run(job()) == (b"onetwo", False)


BAD = {
    "not http": b"SSH-2.0-OpenSSH\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
    "length and chunks": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "negative length": b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
    "bad chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n",
    "space before colon": b"HTTP/1.1 200 OK\r\ncontent-length : 5\r\n\r\nhello",
    "switching": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    "huge head": b"HTTP/1.1 200 OK\r\n" + b"".join(b"x-%d: %s\r\n" % (i, b"a" * 1000) for i in range(70)) + b"\r\n",
    "endless header": b"HTTP/1.1 200 OK\r\nx: " + b"a" * 300_000,
    "status 99": b"HTTP/1.1 099 Odd\r\ncontent-length: 0\r\n\r\n",
    "status 999": b"HTTP/1.1 999 Odd\r\ncontent-length: 0\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_proper_http_is_refused(name) -> None:
    """Wrong framing, heads over 64 KiB, protocol switches."""
    _, error = fails(saying(BAD[name]))
    assert (error.kind, error.sent) == ("protocol", True)


def test_a_redirect_is_handed_on_and_not_followed() -> None:
    """The other host hears nothing."""

    async def job():
        async with upstream(saying(sized(b"{}"))) as other, upstream(saying(sized(b"", b"location: " + other.url.encode(), status=b"302 Found"))) as heard:
            client = to(heard)
            reply, _ = await fetch(client)
            await client.close()
            return reply, other

    reply, other = run(job())
    assert reply.status == 302
    assert (b"location", other.url.encode()) in reply.headers
    assert not other.connections


def test_an_answer_to_head_has_no_body_and_ends() -> None:
    """Its length speaks of a body that doesn't come."""
    _, reply, body = ask(saying(sized(b"", length=500), keep=True), method="HEAD", body=b"")
    assert (reply.complete, body) == (True, b"")


def test_a_body_that_is_too_long_to_be_read_is_refused() -> None:
    """`read` keeps its bound, whatever the upstream sends."""

    async def job():
        async with upstream(saying(chunked(*[b"x" * 1000] * 50))) as heard:
            client = to(heard)
            reply = await client.send(*POST, [], b"{}")
            return await fault_of(reply.read(most_bytes=10_000))

    assert run(job()).kind == "protocol"


# time


async def silent(heard, reader, writer):
    heard.requests.append(await take(reader))
    await heard.until_gone(reader)


def test_no_answer_and_a_trickled_answer_end_at_the_deadline_and_the_upstream_is_let_go() -> None:
    """One deadline over the whole exchange: silence and one byte at a time both end in "timeout"."""

    async def trickle(heard, reader, writer):
        heard.requests.append(await take(reader))
        writer.write(chunked(b"x", end=False))
        try:
            while not writer.transport.is_closing():
                writer.write(b"1\r\nx\r\n")
                await writer.drain()
                await asyncio.sleep(0.01)
        finally:
            heard.gone.set()

    async def job(handler):
        async with upstream(handler) as heard:
            client = to(heard, timeout_s=0.2)
            error = await fault_of(fetch(client))
            await asyncio.wait_for(heard.gone.wait(), 5)
            assert not client.connections
            return error

    for handler in (silent, trickle):
        error = run(job(handler))
        assert (error.kind, error.sent) == ("timeout", True)


def test_the_first_byte_has_its_own_deadline_within_the_whole() -> None:
    """No head within `first_byte_s` fails at once; a head in time leaves the whole deadline to the body."""
    _, error = fails(silent, options={"timeout_s": 10, "first_byte_s": 0.1})
    assert error.kind == "timeout"

    async def slow_body(heard, reader, writer):
        await take(reader)
        writer.write(chunked(b"a", end=False))
        await asyncio.sleep(0.4)
        writer.write(b"1\r\nb\r\n0\r\n\r\n")

    async def job():
        async with upstream(slow_body) as heard:
            client = to(heard, first_byte_s=0.2)
            found = await fetch(client)
            await client.close()
            return found[1]

    assert run(job()) == b"ab"


def test_who_cannot_be_reached_was_not_asked() -> None:
    """A refused connection and an unknown name are "connect" faults with nothing sent."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for url in (f"http://127.0.0.1:{port}/v1", "http://no-such-host.invalid/v1"):
        error = run(fault_of(Upstream(url, allow_private=True, timeout_s=2).send(*POST, [], b"{}")))
        assert (error.kind, error.sent) == ("connect", False)


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_a_caller_who_leaves_closes_the_upstreams_connection(loop_factory) -> None:
    """While the head is awaited, and in the middle of a body."""

    async def started(heard, reader, writer):
        heard.requests.append(await take(reader))
        writer.write(chunked(b"x", end=False))
        await heard.until_gone(reader)

    async def job(handler):
        left = asyncio.Event()

        async def receive():
            await left.wait()
            return {"type": "http.disconnect"}

        async with upstream(handler) as heard:
            client = to(heard)
            leaving = Leaving(receive, after_s=0)
            asking = asyncio.create_task(fault_of(fetch(client, leaving=leaving)))
            await heard.came(1)
            left.set()
            error = await asking
            await asyncio.wait_for(heard.gone.wait(), 5)
            leaving.close()
            assert leaving.gone
            return error.kind

    assert [run(job(handler), loop_factory) for handler in (silent, started)] == ["left", "left"]


def test_a_cancelled_request_closes_its_connection() -> None:
    """Nobody keeps working for a task that is gone."""

    async def job():
        async with upstream(silent) as heard:
            client = to(heard)
            asking = asyncio.create_task(client.send(*POST, [], b"{}"))
            await heard.came(1)
            asking.cancel()
            await asyncio.wait_for(heard.gone.wait(), 5)
            return client.connections

    assert run(job()) == 0


# kept connections


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_connections_are_used_again_one_exchange_at_a_time(loop_factory) -> None:
    """Ten in turn share one connection; ten at once have ten, and each gets its own answer."""

    async def echo(heard, reader, writer):
        while request := await take(reader):
            heard.requests.append(request)
            await asyncio.sleep(0.005)
            writer.write(sized(request.partition(b"\r\n\r\n")[2]))

    async def job():
        async with upstream(echo) as heard:
            client = to(heard)
            for i in range(10):
                assert (await fetch(client, body=b"%d" % i))[1] == b"%d" % i
            assert heard.connections == 1
            found = await asyncio.gather(*(fetch(client, body=b"%d" % i) for i in range(10)))
            assert [body for _, body in found] == [b"%d" % i for i in range(10)]
            assert heard.connections == 10
            await client.close()
            assert client.connections == 0

    run(job(), loop_factory)


@pytest.mark.parametrize(
    "raw",
    [
        sized(b"{}", b"connection: close"), sized(b"{}") + b"junk", sized(b"{}") + sized(b"poison"), b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        sized(b"{}", b"keep-alive: timeout=1"),
    ],
    ids=["close", "junk", "second answer", "http 1.0", "server about to close"],
)  # fmt: skip
def test_a_connection_with_anything_odd_behind_its_answer_is_not_used_again(raw) -> None:
    """An answer that nobody asked for is never taken for the next request's."""

    async def job():
        async with upstream(saying(raw, keep=True)) as heard:
            client = to(heard)
            bodies = [(await fetch(client))[1] for _ in range(3)]
            await client.close()
            return bodies, heard.connections

    assert run(job()) == ([b"{}"] * 3, 3)


def test_an_answer_that_comes_late_to_an_idle_connection_is_never_the_next_ones() -> None:
    """Bytes on an idle connection close it."""

    async def poison(heard, reader, writer):
        while await take(reader):
            writer.write(sized(b"{}"))
            await asyncio.sleep(0.02)
            writer.write(sized(b"poison"))

    async def job():
        async with upstream(poison) as heard:
            client = to(heard)
            bodies = []
            for _ in range(3):
                bodies.append((await fetch(client))[1])
                await asyncio.sleep(0.05)
            await client.close()
            return bodies, heard.connections

    assert run(job()) == ([b"{}"] * 3, 3)


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_a_kept_connection_that_the_upstream_closed_is_not_written_to(loop_factory) -> None:
    """Even where the loop hasn't read the end yet: the kernel is asked first, so a POST goes out on a fresh connection."""

    with socket.create_server(("127.0.0.1", 0)) as server:
        requests = []

        def serve() -> None:
            for _ in range(5):
                connection, _ = server.accept()
                with connection:
                    requests.append(connection.recv(65_536))
                    connection.sendall(sized(b"{}"))  # and keeps nothing, without saying so

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()

        async def job():
            client = to(Heard(server.getsockname()[1]))
            for _ in range(5):
                await fetch(client)
                time.sleep(0.05)  # noqa: ASYNC251  # the end arrives while the loop can't read it
            await client.close()

        run(job(), loop_factory)
        thread.join(5)
        assert len(requests) == 5


@pytest.mark.parametrize(("method", "requests", "kind"), [("POST", 2, "cut"), ("GET", 3, None), ("DELETE", 2, "cut")])
def test_only_what_has_no_effect_is_asked_again_and_only_once(method, requests, kind) -> None:
    """A kept connection that dies under a request: GET is repeated on a fresh one; a POST may have been billed."""

    async def dies_second(heard, reader, writer):
        first = heard.connections == 1
        while request := await take(reader):
            heard.requests.append(request)
            if first and len(heard.requests) == 2:
                return
            writer.write(sized(b"{}"))

    async def job():
        async with upstream(dies_second) as heard:
            client = to(heard)
            await fetch(client, method="GET", body=b"", path="/v1/models")
            try:
                await fetch(client, method=method, body=b"", path="/v1/models")
            except UpstreamError as error:
                return len(heard.requests), error.kind
            finally:
                await client.close()
            return len(heard.requests), None

    assert run(job()) == (requests, kind)


def test_a_repeated_get_that_dies_again_is_not_repeated_once_more() -> None:
    """One repetition is all there is."""

    async def dies_always(heard, reader, writer):
        while request := await take(reader):
            heard.requests.append(request)
            if len(heard.requests) > 1:
                return
            writer.write(sized(b"{}"))

    async def job():
        async with upstream(dies_always) as heard:
            client = to(heard)
            await fetch(client, method="GET", body=b"")
            error = await fault_of(fetch(client, method="GET", body=b""))
            await client.close()
            return error.kind, len(heard.requests)

    assert run(job()) == ("cut", 3)


def test_a_body_without_a_frame_that_was_given_up_is_never_complete() -> None:
    """The connection that we close ourselves is no end of the answer."""

    async def stuck(heard, reader, writer):
        await take(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        await heard.until_gone(reader)

    async def job():
        async with upstream(stuck) as heard:
            client = to(heard)
            reply = await client.send(*POST, [], b"{}")
            await reply.close()
            await asyncio.sleep(0.05)
            return reply.complete

    assert run(job()) is False


def test_a_get_whose_fresh_connection_dies_is_not_repeated() -> None:
    """One try on a fresh connection is all there is."""
    heard, error = fails(saying(b""), method="GET", body=b"")
    assert (len(heard.requests), error.kind) == (1, "cut")


def test_idle_connections_go_after_a_while_and_are_bounded(monkeypatch) -> None:
    """No more than the bound is kept; what is kept is closed when it is old."""
    monkeypatch.setattr(module, "IDLE_S", 0.1)
    monkeypatch.setattr(module, "MOST_IDLE", 3)

    async def slow(heard, reader, writer):
        while await take(reader):
            await asyncio.sleep(0.02)
            writer.write(sized(b"{}"))

    async def job():
        async with upstream(slow) as heard:
            client = to(heard)
            await asyncio.gather(*(fetch(client) for _ in range(8)))
            await asyncio.sleep(0.01)
            kept = client.connections
            await asyncio.sleep(0.4)
            return kept, client.connections

    assert run(job()) == (3, 0)


def test_too_many_connections_are_refused_before_anything_is_sent(monkeypatch) -> None:
    """The bound on open connections holds."""
    monkeypatch.setattr(module, "MOST_OPEN", 2)

    async def job():
        async with upstream(silent) as heard:
            client = to(heard)
            tasks = [asyncio.create_task(fault_of(fetch(client))) for _ in range(3)]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            error = done.pop().result()
            await heard.came(2)
            await client.close()
            await asyncio.gather(*tasks)
            return error, len(heard.requests)

    error, requests = run(job())
    assert (error.kind, error.sent, requests) == ("busy", False, 2)


# back-pressure


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_a_slow_reader_bounds_memory_and_gets_every_byte(loop_factory) -> None:
    """40 MiB from an upstream as fast as it can: what waits here stays near the bound, and the upstream is made to wait."""
    piece, count = bytes(range(256)) * 256, 640

    async def flood(heard, reader, writer):
        await take(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (len(piece) * count))
        for _ in range(count):
            writer.write(piece)
            await writer.drain()
            heard.requests.append(b"")

    async def job():
        async with upstream(flood) as heard:
            client = to(heard, timeout_s=15)
            reply = await client.send(*POST, [], b"{}")
            await asyncio.sleep(0.2)
            assert len(heard.requests) < count / 2  # kernel buffers hold the rest, not we
            most = got = 0
            async for chunk in reply.body():
                assert chunk == (piece * (len(chunk) // len(piece) + 2))[got % 256 : got % 256 + len(chunk)]
                got += len(chunk)
                await asyncio.sleep(0)
                most = max(most, reply.held_bytes, len(chunk))
            await client.close()
            assert got == len(piece) * count
            assert most <= 3 * HIGH_BYTES

    run(job(), loop_factory)


def test_a_long_request_is_sent_whole_and_an_early_answer_to_it_ends_the_connection() -> None:
    """8 MiB arrive byte for byte; a 413 before the end leaves a connection that isn't used again."""
    heard, _, _ = ask(saying(sized(b"{}"), keep=True), body=b"x" * 8_388_608)
    assert heard.requests[0].endswith(b"x" * 8_388_608)

    async def early(heard, reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(sized(b"{}", status=b"413 Too Large"))
        await writer.drain()
        await asyncio.sleep(0.3)

    async def job():
        async with upstream(early) as heard:
            client = to(heard)
            statuses = [(await fetch(client, body=b"x" * 30_000_000))[0].status for _ in range(2)]
            await client.close()
            return statuses, heard.connections

    assert run(job()) == ([413, 413], 2)


# addresses and TLS


def test_a_name_that_resolves_inwards_is_refused_without_a_connection(monkeypatch) -> None:
    """One private address among public ones refuses the name; the name is looked up once, and the checked address is dialled."""
    dialled = []

    async def job(addresses):
        loop = asyncio.get_running_loop()

        async def getaddrinfo(host, port, **_):
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in addresses]

        async def create_connection(factory, **given):
            dialled.append((given["host"], given["flags"], given["server_hostname"]))
            raise ConnectionRefusedError

        monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
        monkeypatch.setattr(loop, "create_connection", create_connection)
        return await fault_of(Upstream("https://api.example.com/v1", allow_private=False, timeout_s=2).send(*POST, [], b"{}"))

    assert run(job(["8.8.8.8", "169.254.169.254"])).kind == "connect"
    assert dialled == []
    assert run(job(["8.8.8.8", "9.9.9.9"])).kind == "connect"
    assert dialled == [(one, socket.AI_NUMERICHOST, "api.example.com") for one in ("8.8.8.8", "9.9.9.9")]


@pytest.mark.parametrize("url", ["http://api.example.com/v1", "https://127.0.0.1/v1", "https://me:pw@api.example.com/v1", "https://2130706433/v1"])
def test_a_base_url_that_may_not_be_asked_is_refused_at_once(url) -> None:
    """The message names the gateway's own setting and repeats no password."""
    with pytest.raises(TeacherError, match=r"\[gateway\] upstream") as caught:
        Upstream(url, allow_private=False, timeout_s=1)
    assert "pw" not in str(caught.value)


def test_a_key_with_a_line_break_is_refused_and_not_repeated() -> None:
    """A key from the environment can't write headers."""
    with pytest.raises(TeacherError) as caught:
        Upstream("https://api.example.com/v1", allow_private=False, timeout_s=1, api_key="sk-1\r\nx: y")
    assert "sk-1" not in str(caught.value)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A certificate authority and certificates for two names, made on the spot."""
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*args: str) -> None:
        subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True)

    new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    openssl(*new, "-subj", "/CN=test authority", "-keyout", "ca.key", "-out", "ca.pem", "-addext", "keyUsage=critical,keyCertSign")
    for name in ("localhost", "elsewhere.example"):
        openssl(
            *new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem", "-CA", "ca.pem", "-CAkey", "ca.key",
            "-addext", f"subjectAltName=DNS:{name}", "-addext", "basicConstraints=critical,CA:false", "-addext", "authorityKeyIdentifier=keyid",
        )  # fmt: skip
    return folder


def over_tls(authority, name, monkeypatch, loop_factory, *, trusted=True):
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(authority / f"{name}.pem", authority / f"{name}.key")
    names = []
    server.sni_callback = lambda _, asked, __: names.append(asked)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority / "ca.pem"))

    async def job():
        async with upstream(saying(sized(b'{"tls": true}'), keep=True), tls=server) as heard:
            client = Upstream(f"https://localhost:{heard.port}/v1", allow_private=True, timeout_s=5)
            bodies = [(await fetch(client))[1] for _ in range(3)]
            await client.close()
            return bodies, heard

    return run(job(), loop_factory), names


@pytest.mark.parametrize("loop_factory", LOOPS)
def test_tls_with_a_private_authority_in_ssl_cert_file(authority, monkeypatch, loop_factory) -> None:
    """The chain is checked against SSL_CERT_FILE, the name is sent, and the connection is kept."""
    (bodies, heard), names = over_tls(authority, "localhost", monkeypatch, loop_factory)
    assert bodies == [b'{"tls": true}'] * 3
    assert heard.connections == 1
    assert names == ["localhost"]


@pytest.mark.parametrize(("name", "trusted"), [("localhost", False), ("elsewhere.example", True)])
def test_an_unknown_authority_and_a_foreign_name_get_no_request(authority, monkeypatch, name, trusted) -> None:
    """Neither is asked, and the key is not shown to them."""
    with pytest.raises(UpstreamError) as caught:
        over_tls(authority, name, monkeypatch, asyncio.new_event_loop, trusted=trusted)
    assert (caught.value.kind, caught.value.sent) == ("connect", False)


def test_a_proxy_in_the_environment_is_not_used(monkeypatch) -> None:
    """The upstream is what the project file says."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert ask(saying(sized(b"{}"), keep=True))[2] == b"{}"


def test_the_gateways_client_needs_no_extra_of_the_teachers() -> None:
    """Neither aiohttp nor another client is loaded."""
    code = "import sys, overproof.serve.upstream, overproof.serve.relay; print({'aiohttp','httpx','requests','uvicorn'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"
