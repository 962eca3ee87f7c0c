"""
The way to the teacher: one base URL from the project file, kept connections, bytes in and bytes out.

An own small client, since the hop is what a pass-through costs: on the same machine an asyncio client on httptools took 37 µs
of CPU a request, aiohttp 136 to 200, httpx 1,550 and more (see docs on performance). It follows no redirect, reads no proxy
from the environment, keeps no cookies and never asks twice for what may have been billed.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import Sequence
from urllib.parse import urlsplit

from overproof.address import check_base_url, is_public
from overproof.errors import TeacherError
from overproof.serve.connection import HOP_BY_HOP, Connection, Reply, UpstreamError, fault
from overproof.serve.leaving import Leaving

CONNECT_S = 10.0
"""Longest time to connect, over all addresses of the name."""
IDLE_S = 4.0
"""An idle connection is not used for longer: the shortest common patience of servers is 5 s."""
MOST_IDLE = 128
MOST_OPEN = 1024
"""Connections to one upstream; below the usual limit of open files."""
REMEMBERED = 512
"""Header names and paths whose treatment is remembered."""

TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
NOT_FORWARDED = HOP_BY_HOP | {
    b"host", b"content-length", b"expect", b"cookie", b"origin", b"referer", b"forwarded", b"via", b"x-real-ip",
    b"accept-charset", b"alt-used", b"http2-settings",
}  # fmt: skip
"""Of the caller's connection, of its browser, or of the network inside: none of the upstream's business."""
NOT_FORWARDED_PREFIXES = (b"x-overproof-", b"x-forwarded-", b"sec-", b"access-control-", b"proxy-")
AGAIN = ("GET", "HEAD", "OPTIONS")
METHODS = frozenset(("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"))
_OURS = re.compile(rb"(?i)\s*bearer\s+op_")  # a key of ours; the first may be made while the gateway runs
_DOTS = re.compile(r"(?i)(?:^|[/\\])(?:\.|%2e){1,2}(?:[/\\]|$)|\\|%5c|%2f|%00|//")


class Upstream:
    """
    The connections to one upstream. Belongs to one event loop.

    Args:
        base_url: with its `/v1`, from the project file.
        allow_private: admit plain http and addresses of this machine or the local network.
        timeout_s: deadline of one exchange, from connecting to the last byte.
        api_key: sent as bearer token in place of the caller's Authorization; empty sends the caller's.
        first_byte_s: deadline for the head of the answer, within `timeout_s`; None for no other.
        pass_authorization: whether the caller's Authorization goes on where no `api_key` is set; False where it is a key of ours.
        tls: for a private certificate authority; the system's (and SSL_CERT_FILE) where None.

    Raises: TeacherError for a base URL that may not be asked, or a key that no header can hold.
    """

    def __init__(
        self,
        base_url: str,
        *,
        allow_private: bool,
        timeout_s: float,
        api_key: str = "",
        first_byte_s: float | None = None,
        pass_authorization: bool = True,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        check_base_url(base_url, allow_private=allow_private, where="[gateway] upstream")
        if api_key and not re.fullmatch(r"[\x21-\x7e]+", api_key):  # a line break here would write further headers
            raise TeacherError("the upstream's key holds characters that no header may hold", next_action="set the key again without them")
        parts = urlsplit(base_url)
        assert parts.hostname is not None
        self.host = parts.hostname
        """Name or address, without port."""
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        self._prefix = parts.path.rstrip("/").encode()
        self._allow_private, self._timeout_s, self._first_byte_s = allow_private, timeout_s, first_byte_s
        self._tls = (tls or _context()) if parts.scheme == "https" else None
        name = f"[{self.host}]" if ":" in self.host else self.host
        shown = name if parts.port is None or parts.port == (443 if self._tls else 80) else f"{name}:{parts.port}"
        self._fixed = b" HTTP/1.1\r\nhost: " + shown.encode()
        if api_key:
            self._fixed += b"\r\nauthorization: Bearer " + api_key.encode()
        self._fixed_lines = self._fixed.count(b"\n")
        self._drops = {b"authorization": True} if api_key or not pass_authorization else {}
        self._known: dict[bytes, bool] = dict(self._drops)
        self._targets: dict[str, bytes] = {}
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._connecting = 0
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def connections(self) -> int:
        """Connections that are open."""
        return len(self._open)

    async def send(
        self,
        method: str,
        path: str,
        headers: Sequence[tuple[bytes, bytes]],
        body: bytes,
        *,
        leaving: Leaving | None = None,
    ) -> Reply:
        """
        Make one request.

        Args:
            method: in capitals.
            path: as the caller wrote it, with query: `/v1/chat/completions`; its `/v1` stands for the base URL's path.
            headers: the caller's; those of its connection, its browser and our own are left out.
            body: byte for byte.
            leaving: tells that the caller has gone, which closes the connection.

        Returns: the reply, with status and headers; its body follows.
        Raises: UpstreamError; `sent` says whether the upstream may have seen the request. A POST is never sent twice.
        """
        head = self._head(method, path, headers, len(body))
        loop = asyncio.get_running_loop()
        until = loop.time() + self._timeout_s
        wire = self._take(loop)
        again = wire is not None and method in AGAIN
        while True:
            if wire is None:
                wire = await self._connect(loop, until)
            if leaving is not None and leaving.gone:
                self._freed(wire)
                raise fault("left", "the caller left before the request was sent", sent=False)
            reply = wire.ask(method, head, body)
            self._limit(reply, loop.time(), until)
            if leaving is not None:
                leaving.then(reply.leave)
            try:
                await reply.wait_head()
            except UpstreamError as error:
                # RFC 9110 §9.2.2: only what has no effect may be repeated, and only where the old connection gave no byte
                if error.kind != "cut" or wire.heard or not again:
                    raise
                again, wire = False, None
                continue
            except BaseException:
                await reply.close()
                raise
            if self._first_byte_s is not None:
                reply.expire_at(until, self._timeout_s)
            return reply

    async def close(self) -> None:
        """Close all connections; exchanges under way end as cut."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        self._idle.clear()
        for wire in tuple(self._open):
            wire.abort()
        await asyncio.sleep(0)

    def _limit(self, reply: Reply, now: float, until: float) -> None:
        first = self._first_byte_s
        if first is not None and now + first < until:
            reply.expire_at(now + first, first)
        else:
            reply.expire_at(until, self._timeout_s)

    # request heads

    def _head(
        self, method: str, path: str, headers: Sequence[tuple[bytes, bytes]], length: int, named: frozenset[bytes] = frozenset()
    ) -> bytes:
        if method not in METHODS:
            raise fault("refused", f"the method {method[:20]!r} is not passed on", sent=False)
        parts = [method.encode() + b" " + self._target(path) + self._fixed]
        known = self._known
        for name, value in headers:
            drop = known.get(name)
            if drop is None:
                drop = self._judge(name)
            if not drop:
                if (not named or name.lower() not in named) and not (b"op_" in value and _OURS.match(value)):
                    parts.append(name + b": " + value)
            elif not named and name in (b"connection", b"Connection") and value.lower() not in (b"keep-alive", b"close"):
                return self._head(method, path, headers, length, _named(headers))  # it names others that stay here
        if length or method not in AGAIN:
            parts.append(b"content-length: %d" % length)
        parts.append(b"\r\n")
        head = b"\r\n".join(parts)
        lines = len(parts) + self._fixed_lines
        # as many line breaks as lines were written: none came in with a value
        if head.count(b"\n") != lines or head.count(b"\r") != lines or b"\0" in head:
            raise fault("refused", "a header holds a line break or a zero byte", sent=False)
        return head

    def _judge(self, name: bytes) -> bool:
        """Whether a header is left out; names that are none are, too."""
        low = name.lower()
        drop = low in NOT_FORWARDED or low in self._drops or low.startswith(NOT_FORWARDED_PREFIXES) or TOKEN.fullmatch(low) is None
        if len(self._known) >= REMEMBERED:
            self._known = dict(self._drops)  # names are the caller's choice, memory is ours
        self._known[name] = drop
        return drop

    def _target(self, path: str) -> bytes:
        found = self._targets.get(path)
        if found is None:
            if not re.fullmatch(r"/[!-~]{0,8000}", path) or "#" in path or _DOTS.search(path.partition("?")[0]):
                raise fault("refused", "the path is not one that can be passed on", sent=False)
            below = path[3:] if path == "/v1" or path.startswith(("/v1/", "/v1?")) else path
            found = self._prefix + below.encode()
            found = found if found.startswith(b"/") else b"/" + found
            if len(self._targets) >= REMEMBERED:
                self._targets.clear()
            self._targets[path] = found
        return found

    # connections

    def _take(self, loop: asyncio.AbstractEventLoop) -> Connection | None:
        """The most recently used idle connection that still stands."""
        while self._idle:
            wire = self._idle.pop()
            if wire.idle_until > loop.time() and wire.is_live():
                return wire
            wire.abort()
        return None

    def _freed(self, wire: Connection) -> None:
        loop = asyncio.get_running_loop()
        keeps = IDLE_S if wire.server_keeps_s is None else min(IDLE_S, wire.server_keeps_s - 1)
        if self._closed or keeps <= 0 or len(self._idle) >= MOST_IDLE:
            wire.abort()
            return
        wire.idle_until = loop.time() + keeps
        self._idle.append(wire)
        if self._sweeper is None:
            self._sweeper = loop.call_later(IDLE_S, self._sweep)

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now, self._sweeper = loop.time(), None
        for wire in [one for one in self._idle if one.idle_until <= now]:
            self._idle.remove(wire)
            wire.abort()
        if self._idle:
            self._sweeper = loop.call_later(IDLE_S, self._sweep)

    def _lost(self, wire: Connection) -> None:
        self._open.discard(wire)
        if wire in self._idle:
            self._idle.remove(wire)

    async def _connect(self, loop: asyncio.AbstractEventLoop, until: float) -> Connection:
        if self._closed:
            raise fault("busy", "the gateway is closing", sent=False)
        if len(self._open) + self._connecting >= MOST_OPEN:
            raise fault("busy", f"{MOST_OPEN} connections to the upstream are open", sent=False)
        self._connecting += 1
        try:
            async with asyncio.timeout_at(min(until, loop.time() + CONNECT_S)):
                wire = await self._reach(loop)
        except TimeoutError as error:
            raise fault("connect", f"{self.host!r} was not reached in time", sent=False) from error
        except OSError as error:  # ssl.SSLError is one
            reason = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else type(error).__name__
            raise fault("connect", f"{self.host!r} was not reached: {reason}", sent=False) from error
        finally:
            self._connecting -= 1
        if self._closed:  # in the meantime
            wire.abort()
            raise fault("busy", "the gateway is closing", sent=False)
        return wire

    async def _reach(self, loop: asyncio.AbstractEventLoop) -> Connection:
        addresses = await self._addresses(loop)
        failure: OSError = OSError("the name has no address")
        for address in addresses:
            try:
                async with asyncio.timeout(CONNECT_S / len(addresses)):  # a dead address must not eat the others' time
                    _, wire = await loop.create_connection(
                        lambda: Connection(loop, made=self._open.add, freed=self._freed, lost=self._lost),
                        host=address, port=self.port, flags=socket.AI_NUMERICHOST,
                        ssl=self._tls, server_hostname=self.host.rstrip(".") if self._tls else None,
                    )  # fmt: skip
            except ssl.SSLError:
                raise  # another address would not be more trustworthy
            except OSError as error:  # TimeoutError is one
                failure = error
            else:
                return wire
        raise failure

    async def _addresses(self, loop: asyncio.AbstractEventLoop) -> list[str]:
        """Addresses to connect to, each of them checked; the name is not looked up again after the check."""
        try:
            found = [str(ipaddress.ip_address(self.host))]
        except ValueError:
            known = await loop.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
            found = list(dict.fromkeys(str(one[4][0]) for one in known))
        if not self._allow_private and not all(is_public(one) for one in found):
            raise fault(
                "connect", f"{self.host!r} resolves to a private address; set [gateway] allow_private = true if that is meant", sent=False,
            )  # fmt: skip
        return found


def _named(headers: Sequence[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """Names that Connection headers make hop-by-hop."""
    values = [value.lower() for name, value in headers if name.lower() == b"connection"]
    return frozenset(one.strip() for one in b",".join(values).split(b","))


def _context() -> ssl.SSLContext:
    context = ssl.create_default_context()  # the system's authorities; OpenSSL reads SSL_CERT_FILE
    context.set_alpn_protocols(["http/1.1"])
    return context
