"""Handing the upstream's answer to the caller, byte for byte as it comes; what was cut never looks like an end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from overproof.serve.asgi import Send
from overproof.serve.connection import FaultKind, Reply, UpstreamError
from overproof.serve.leaving import Leaving
from overproof.serve.stream import Summary

WAIT_BYTES = 262_144
"""A body up to this length is sent once it is whole, so that one that is cut becomes a proper error."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Relayed:
    """What became of an answer on its way."""

    complete: bool
    """Whether the caller was sent the whole answer, with its end. Where not, nothing more may be sent to this caller: returning
    from the ASGI application makes the server close the connection without an end of the body."""
    fault: FaultKind | None = None
    """What went wrong; None for an answer that came whole."""
    first_byte_at: float | None = None
    """On the loop's clock; None where no byte of the body was sent."""
    body_bytes: int = 0
    """What was sent of the body."""


async def relay(
    reply: Reply,
    send: Send,
    *,
    headers: Sequence[tuple[bytes, bytes]] = (),
    summary: Summary | None = None,
    leaving: Leaving | None = None,
) -> Relayed:
    """
    Send a reply on.

    A stream that is cut, or that ends without saying that it does, is followed by one error event and then broken off,
    without `[DONE]`; a body that is not a stream, or is compressed, is just broken off. Reading goes no faster than `send`.

    Args:
        reply: from `Upstream.send`, body untouched.
        send: the caller's ASGI channel.
        headers: put behind the upstream's.
        summary: is fed, and told the end.
        leaving: closes the upstream's connection when the caller goes.

    Returns: how it ended.
    Raises: UpstreamError only where nothing has been sent yet, so that the caller can still be given a status.
    """
    found = summary or Summary(reply.status, reply.headers)
    start = {"type": "http.response.start", "status": reply.status, "headers": [*reply.headers, *headers]}
    way = _Way(send, found)
    try:
        if not found.streamed:
            short = await _short(reply, found)
            await send(start)
            if reply.complete and not reply.held_bytes:
                found.end(whole=True)
                return await way.last(short)
            await way.pass_on(short)
        else:
            await send(start)
        async for chunk in reply.body():
            found.feed(chunk)
            if leaving is not None and leaving.gone:
                await reply.close()
                return way.stopped("left")
            await way.pass_on(chunk)
    except UpstreamError as error:
        found.end(whole=False)
        if not way.started and not found.streamed:
            raise
        return await way.broken(error.kind)
    except BaseException:  # the caller's channel broke, or the request was cancelled: nobody reads on
        found.end(whole=False)
        await reply.close()
        raise
    found.end(whole=True)
    if found.streamed and found.begun and not found.ended and not found.failed:
        return await way.broken("cut")  # properly framed, and yet without an end: something in between lost the upstream
    return await way.last(way.take_held())


async def _short(reply: Reply, summary: Summary) -> bytes:
    """The body, or as much of it as is worth waiting for."""
    chunks, size = [], 0
    async for chunk in reply.body():
        summary.feed(chunk)
        chunks.append(chunk)
        size += len(chunk)
        if size > WAIT_BYTES:
            break
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


class _Way:
    """The caller's side: passes whole events of a stream on, so that an error event never lands inside another one."""

    def __init__(self, send: Send, summary: Summary) -> None:
        self._send, self._summary = send, summary
        self._events = summary.streamed and not summary.encoded
        self._held = b""
        self._first: float | None = None
        self._bytes = 0
        self.started = False

    async def pass_on(self, chunk: bytes) -> None:
        self.started = True
        if self._events:
            split = _whole_events(self._held + chunk)
            chunk, self._held = split.events, split.rest
        if chunk:
            await self._body(chunk, more=True)

    def take_held(self) -> bytes:
        held, self._held = self._held, b""
        return held

    async def last(self, chunk: bytes) -> Relayed:
        await self._body(chunk, more=False)
        return Relayed(complete=True, first_byte_at=self._first, body_bytes=self._bytes)

    async def broken(self, kind: FaultKind) -> Relayed:
        if self._events and kind != "left":
            await self._body(_error_event(kind), more=True)
        return self.stopped(kind)

    def stopped(self, kind: FaultKind) -> Relayed:
        self._summary.end(whole=False)
        return Relayed(complete=False, fault=kind, first_byte_at=self._first, body_bytes=self._bytes)

    async def _body(self, chunk: bytes, *, more: bool) -> None:
        if self._first is None and chunk:
            self._first = asyncio.get_running_loop().time()
        self._bytes += len(chunk)
        await self._send({"type": "http.response.body", "body": chunk, "more_body": more})


@dataclass(frozen=True, kw_only=True, slots=True)
class _Split:
    events: bytes
    rest: bytes


def _whole_events(data: bytes) -> _Split:
    """Cut behind the last empty line; an event without its end waits, unless it is very long."""
    if data.endswith(b"\n\n"):
        return _Split(events=data, rest=b"")
    at = data.rfind(b"\n\n") + 2
    if b"\r" in data:
        at = max([at, *(data.rfind(end) + len(end) for end in (b"\n\r\n", b"\r\r") if end in data)])
    if at < 2:
        at = len(data) if len(data) > WAIT_BYTES else 0
    return _Split(events=data[:at], rest=data[at:])


def _error_event(kind: FaultKind) -> bytes:
    said = {
        "timeout": "The upstream did not finish its answer in time.",
        "protocol": "The upstream's answer was not proper HTTP.",
    }.get(kind, "The upstream broke off its answer.")
    body = {"error": {"message": said, "type": "upstream_error", "param": None, "code": f"upstream_{kind}"}}
    return b"data: " + msgspec.json.encode(body) + b"\n\n"
