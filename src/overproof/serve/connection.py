"""One HTTP/1.1 connection to the upstream, and the reply that is read from it."""

from __future__ import annotations

import asyncio
import select
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Literal, cast

import httptools

from overproof.errors import TeacherError
from overproof.serve.timers import timers

FaultKind = Literal["connect", "timeout", "cut", "protocol", "refused", "busy", "left"]
HEAD_BYTES = 65_536
"""Longest head of a response, informational ones and trailers included."""
HIGH_BYTES = 262_144
"""Reading stops while this much of a body waits for a slow caller …"""
LOW_BYTES = 65_536
"""… and goes on below this."""
BODY_BYTES = 8 * 1024 * 1024
"""Longest body that `Reply.read` takes into memory, as for teachers."""
HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te", b"trailer",
     b"transfer-encoding", b"upgrade")
)  # fmt: skip
"""Fields of one connection, not of the message. Source: RFC 9110 §7.6.1."""
Headers = list[tuple[bytes, bytes]]


class UpstreamError(TeacherError):
    """
    The upstream gave no whole answer.

    Args:
        what: what happened; never holds a key or a body.
        next_action: what the owner of the gateway should do where it lasts.
        kind: "connect": nothing was reached; "timeout"; "cut": the connection ended early; "protocol": what came is not HTTP;
            "refused": by ourselves, before anything was sent; "busy": no connection was free; "left": the caller went away.
        sent: whether the upstream may have seen the request, and may bill it.
    """

    def __init__(self, what: str, *, next_action: str, kind: FaultKind, sent: bool) -> None:
        super().__init__(what, next_action=next_action)
        self.kind = kind
        self.sent = sent


def fault(kind: FaultKind, what: str, *, sent: bool) -> UpstreamError:
    """
    An error with the usual advice for its kind.

    Args:
        kind: see `UpstreamError`.
        what: what happened.
        sent: whether the upstream may have seen the request.

    Returns: the error, to be raised.
    """
    return UpstreamError(what, next_action=_ADVICE[kind], kind=kind, sent=sent)


_ADVICE: dict[FaultKind, str] = {
    "connect": "look at [gateway] upstream and at the way there; `curl` its address from this machine",
    "timeout": "ask again; raise [gateway] timeout_s if answers take that long",
    "cut": "ask again; the request may have been billed",
    "protocol": "look at what stands behind [gateway] upstream; it does not speak HTTP/1.1 as it should",
    "refused": "change the request; it was not sent on",
    "busy": "ask again in a moment; look at how long the upstream takes",
    "left": "nothing; the caller closed the connection",
}


class Reply:
    """
    One response, read as it comes: `async for chunk in reply.body()`; a body that is cut raises instead of ending.

    Args:
        wire: the connection that it comes over.
        loop: the running loop.
    """

    __slots__ = ("_chunks", "_error", "_held", "_loop", "_timer", "_timers", "_waiter", "_wire", "complete", "headers", "status")

    def __init__(self, wire: Connection, loop: asyncio.AbstractEventLoop) -> None:
        self.status = 0
        self.headers: Headers = []
        """As sent, in their order, without those of the connection itself; names in lower case."""
        self.complete = False
        """Whether the body came whole, as its framing says. Without a length and without chunks, whole means no more than
        that the connection was closed in good order."""
        self._wire: Connection | None = wire
        self._loop = loop
        self._chunks: deque[bytes] = deque()
        self._held = 0
        self._error: UpstreamError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timers, self._timer = timers(), 0

    def body(self) -> AsyncIterator[bytes]:
        """
        The body's bytes as they come, decoded from chunks and nothing else.

        Returns: an iterator that raises UpstreamError where the body is cut, times out or is badly framed.
        """
        return self

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self.complete:
                raise StopAsyncIteration
            await self._wait()
        chunks = self._chunks
        chunk = chunks.popleft() if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self._held = 0
        if self._wire is not None:
            self._wire.resume()
        return chunk

    async def read(self, *, most_bytes: int = BODY_BYTES) -> bytes:
        """
        The whole body.

        Args:
            most_bytes: a longer one is refused.

        Returns: its bytes.
        Raises: UpstreamError as `body`, and "protocol" for a body that is too long.
        """
        found, size = [], 0
        async for chunk in self:
            size += len(chunk)
            if size > most_bytes:
                await self.close()
                raise fault("protocol", f"the upstream's answer is longer than {most_bytes} bytes", sent=True)
            found.append(chunk)
        return b"".join(found)

    async def close(self) -> None:
        """Let go. Where the answer is not complete the connection is closed, so that the upstream can stop working."""
        self.leave()

    async def wait_head(self) -> None:
        """
        Wait for status and headers.

        Raises: UpstreamError where none come.
        """
        while not self.status:
            if self._error is not None:
                raise self._error
            await self._wait()

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # what the connection and the deadline call

    def expire_at(self, when: float, seconds: float) -> None:
        """
        Set the deadline; a former one is void.

        Args:
            when: on the loop's clock.
            seconds: how long that is, for the message.
        """
        if self._timer:
            self._timers.cancel(self._timer)
        self._timer = self._timers.at(when, self._expire, seconds) if self._wire is not None else 0

    def _expire(self, seconds: float) -> None:
        self.fail(fault("timeout", f"no complete answer from the upstream within {seconds:g} s", sent=True))

    def opened(self, status: int, headers: Headers) -> None:
        """Status and headers are there."""
        self.status, self.headers = status, headers
        self._wake()

    def took(self, chunk: bytes) -> bool:
        """A piece of the body is there; returns whether the connection should pause."""
        self._chunks.append(chunk)
        self._held += len(chunk)
        self._wake()
        return self._held > HIGH_BYTES

    def ended(self, error: UpstreamError | None) -> None:
        """Nothing more will come; without an error the body is whole. Only the first end counts."""
        if self._wire is None:
            return
        self._wire = None
        self.complete = error is None
        self._error = error
        if self._timer:
            self._timers.cancel(self._timer)
            self._timer = 0
        self._wake()

    def fail(self, error: UpstreamError) -> None:
        """End the exchange and close the connection; nothing where it has ended already."""
        wire = self._wire
        if wire is not None:
            self.ended(error)
            wire.abort()

    def leave(self) -> None:
        """The caller has gone; nothing where the exchange has ended."""
        self.fail(fault("left", "the caller left before the answer was whole", sent=True))

    @property
    def held_bytes(self) -> int:
        """How much of the body waits to be taken."""
        return self._held


class Connection(asyncio.Protocol):
    """
    One connection: one exchange at a time.

    Args:
        loop: the running loop.
        made: called once it is open.
        freed: called when an exchange has ended and another one may follow.
        lost: called once it is closed.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        made: Callable[[Connection], None],
        freed: Callable[[Connection], None],
        lost: Callable[[Connection], None],
    ) -> None:
        self._loop, self._made, self._freed, self._lost = loop, made, freed, lost
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._reply: Reply | None = None
        self._method = ""
        self._headers: Headers = []
        self._head_bytes = 0
        self._framed = self._till_close = self._keep = False
        self._done = False
        self._paused = False
        self._poll = select.poll()
        self.heard = False
        """Whether anything came back for the present request."""
        self.idle_until = 0.0
        """When it is too old to be used again, on the loop's clock."""
        self.server_keeps_s: float | None = None
        """How long the upstream says that it keeps an idle connection."""

    def ask(self, method: str, head: bytes, body: bytes) -> Reply:
        """
        Send a request.

        Args:
            method: its method, which decides whether a body follows the answer's head.
            head: request line and headers with the empty line.
            body: its bytes.

        Returns: the reply, of which nothing is there yet.
        """
        assert self._transport is not None
        reply = Reply(self, self._loop)
        self._reply, self._method = reply, method
        self._headers, self._head_bytes = [], 0
        self._till_close = self._done = self.heard = False
        if len(body) < HIGH_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))  # no copy of a long one
        return reply

    def is_live(self) -> bool:
        """
        Whether an idle connection can carry a request: the kernel says that the other side sent nothing, not even its end.

        The loop may not have come round to reading that end. Looking first means that a request is not written to a
        connection that is known to be closed, where nobody could tell whether it was processed.
        """
        return self._transport is not None and not self._transport.is_closing() and not self._poll.poll(0)

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def resume(self) -> None:
        """Read on, after the caller has taken what was held."""
        if self._paused and self._transport is not None and (self._reply is None or self._reply.held_bytes <= LOW_BYTES):
            self._paused = False
            self._transport.resume_reading()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's has no base class to check
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        self._made(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed, by whomever."""
        self._transport = self._parser = None
        reply, self._reply = self._reply, None
        if reply is not None:
            whole = self._till_close and reply.status and exc is None
            where = "in the middle of the answer" if reply.status else "before the answer began"
            reply.ended(None if whole else fault("cut", f"the upstream closed the connection {where}", sent=True))
        self._lost(self)

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        reply, parser = self._reply, self._parser
        if reply is None or parser is None:
            self.abort()  # nothing was asked: whatever this is must never be taken for the next answer
            return
        self.heard = True
        if not reply.status:
            self._head_bytes += len(data)
        try:
            parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._done:
                self._broken(f"the upstream's answer is not proper HTTP ({type(error).__name__})")
                return
            self._keep = False  # the answer is whole; what follows it is not looked at
        if self._done:
            self._finish()
        elif not reply.status and self._head_bytes > HEAD_BYTES:
            self._broken(f"the head of the upstream's answer is longer than {HEAD_BYTES} bytes")

    # httptools

    def on_message_begin(self) -> None:
        """A second answer right behind the first was never asked for."""
        if self._done:
            self._keep = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer, which is dropped."""
        if self._reply is not None and not self._reply.status and not self._done:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is there."""
        reply, parser = self._reply, self._parser
        if reply is None or parser is None or self._done or reply.status:
            return
        status = parser.get_status_code()
        if 100 <= status < 200:
            self._headers = []  # 100-continue and early hints; 101 raises HttpParserUpgrade
            return
        size = sum(len(name) + len(value) + 4 for name, value in self._headers)
        if size > HEAD_BYTES or not 200 <= status <= 599:
            raise ValueError  # becomes a parser error
        self._keep = parser.should_keep_alive()
        headers = self._forwarded()
        self._till_close = not self._framed and self._method != "HEAD" and status not in (204, 304)
        if self._method == "HEAD":
            self._done, self._keep = True, False  # the parser would wait for the body that the length speaks of
        reply.opened(status, headers)

    def on_body(self, chunk: bytes) -> None:
        """A piece of the body."""
        reply = self._reply
        if reply is None or self._done or not reply.status:
            return
        if reply.took(chunk) and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """The answer has ended, unless it was an informational one."""
        if self._reply is not None and self._reply.status:
            self._done = True

    def _forwarded(self) -> Headers:
        """The headers for the caller; notes on the way how the body is framed."""
        self._framed = False
        drop = HOP_BY_HOP
        for name, value in self._headers:
            if name in (b"content-length", b"transfer-encoding"):
                self._framed = True
            elif name == b"connection":
                drop = drop | {one.strip() for one in value.lower().split(b",")}
            elif name == b"keep-alive":
                self.server_keeps_s = _keeps_s(value)
        drop = drop - {b"content-length", b"content-type", b"content-encoding"}  # nobody takes the message apart this way
        return [(name, value) for name, value in self._headers if name not in drop]

    def _finish(self) -> None:
        reply, self._reply = self._reply, None
        transport = self._transport
        if self._paused:
            self._paused = False
            if transport is not None:
                transport.resume_reading()
        if reply is not None:
            reply.ended(None)
        # an answer that came before the whole request was taken leaves the rest of it on the wire
        if transport is None or not self._keep or transport.is_closing() or transport.get_write_buffer_size():
            self.abort()
        else:
            self._freed(self)

    def _broken(self, what: str) -> None:
        if self._reply is not None:
            reply, self._reply = self._reply, None
            reply.ended(fault("protocol", what, sent=True))
        self.abort()


def _keeps_s(value: bytes) -> float | None:
    for part in value.split(b","):
        name, _, amount = part.strip().partition(b"=")
        if name.lower() == b"timeout" and amount.isdigit() and len(amount) < 10:
            return float(amount)
    return None
