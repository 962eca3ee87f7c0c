"""The process: listens, hands connections to uvicorn, and leaves without losing a request."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import signal
import socket
import struct
from collections.abc import Callable, Generator, Sequence
from types import FrameType
from typing import Any, Final, Protocol

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from overproof.errors import StoreError
from overproof.serve.asgi import HttpScope, Receive, Refusal, Send
from overproof.serve.guard import HEAD_TOO_LARGE, MALFORMED, MAX_HEADER_BYTES

DRAIN_S: Final = 20.0
LAME_S: Final = 0.5
"""Between the signal and the end of idle connections: callers hear "connection: close" with their next answer and go elsewhere."""
IDLE_S: Final = 75  # longer than clients' pools keep connections, so that it is they who close them
BACKLOG: Final = 2048
TURNS: Final = 10
"""So often the queue of a listener that is about to close is looked at; handshakes that have begun still end in it."""

SO_ATTACH_FILTER: Final = 26
NO_SYN: Final = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))
"""Classic BPF, of the kernel's filter.h: load the TCP flags; where SYN is set, drop; else keep all bytes."""


class Served(Protocol):
    """What the server runs."""

    async def __call__(self, scope: HttpScope, receive: Receive, send: Send) -> None:
        """One request."""

    async def close(self) -> None:
        """Called once the last request is answered: commit what is queued."""


class _State(ServerState):
    """What all connections share."""

    draining = False


class GatewayProtocol(HttpToolsProtocol):
    """uvicorn's, but headers without an end fill no memory, and what can't be parsed is refused in the API's form."""

    _head = _came = 0
    """Bytes that came since the request began, while its headers are not complete; -1 once they are."""

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        self._came = len(data)
        if self._head >= 0:
            self._head += self._came
        super().data_received(data)
        if self._head > 2 * MAX_HEADER_BYTES and not self.transport.is_closing():  # below that the guard says so, and can keep to the request's order
            self.send_400_response("")

    def on_message_begin(self) -> None:
        """A new request."""
        self._head = self._came
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A request begins; of a gateway that is about to end it is the last one on its connection."""
        super().on_headers_complete()
        self._head = -1
        if self.server_state.draining:  # type: ignore[attr-defined] # a _State here
            self.cycle.keep_alive = False

    def send_400_response(self, msg: str) -> None:
        """The parser gave up; in the middle of an answer, all that can be done is to close."""
        del msg
        cycle: Any = self.cycle  # None before the first request
        if cycle is None or not cycle.response_started or cycle.response_complete:
            refusal: Refusal = HEAD_TOO_LARGE if self._head > 2 * MAX_HEADER_BYTES else MALFORMED
            lines = [b"HTTP/1.1 %d %s\r\n" % (refusal.status, b"Bad Request" if refusal is MALFORMED else b"Request Header Fields Too Large")]
            lines += [name + b": " + value + b"\r\n" for name, value in refusal.head]
            self.transport.write(b"".join(lines) + b"\r\n" + refusal.body)
        self.transport.close()


def serve(
    app: Served, *, host: str, port: int, on_started: Callable[[int], None] | None = None, reuse_port: bool = False, drain_s: float = DRAIN_S
) -> None:
    """
    Serve until SIGTERM or SIGINT; blocks, and must be called in the main thread.

    The signal ends accepting; what is in flight is answered, for at most `drain_s`; then `app.close()` is awaited. A second
    signal waits for nothing but `app.close()`.

    Args:
        app: the ASGI application, guard and all.
        host: address to listen at.
        port: 0 takes a free one.
        on_started: called with the port, in the running loop, once connections are accepted: the place to start tasks.
        reuse_port: let another process listen at the same port, for a restart that nobody notices.
        drain_s: the longest to wait for answers that are under way.

    Raises: StoreError where the address can't be listened at.
    """
    listener = listen(host, port, reuse_port=reuse_port)
    config = uvicorn.Config(
        app, http=GatewayProtocol, ws="none", loop="uvloop", lifespan="off", interface="asgi3", proxy_headers=False, server_header=False,
        date_header=False, access_log=False, log_config=None, log_level="critical", backlog=BACKLOG, timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=None,
    )  # fmt: skip
    server = _Server(config, app, drain_s, on_started)
    server.run(sockets=[listener])


def listen(host: str, port: int, *, reuse_port: bool = False) -> socket.socket:
    """
    A listening socket.

    Args:
        host: address.
        port: 0 takes a free one.
        reuse_port: share the port with other processes that ask for the same.

    Returns: the socket, which already queues connections.
    Raises: StoreError where the address is taken, not this machine's, or not allowed.
    """
    host = host.strip("[]")
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        found = socket.socket(family, kind, number)
    except OSError as error:
        raise _unheard(host, port, error) from error
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        found.bind(address)
        found.listen(BACKLOG)
        found.setblocking(False)
    except OSError as error:
        found.close()
        raise _unheard(host, port, error) from error
    return found


def _refuse_new(sock: socket.socket) -> None:
    """
    Let the kernel begin no more connections for a listener, and finish those that it has begun.

    A filter drops first packets: their senders try again after a second, at whoever listens by then. Where there are no
    such filters, an empty backlog lets one at a time still in, and closing may reset that one.
    """
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in NO_SYN))
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", len(NO_SYN), ctypes.addressof(code)))
    except OSError:
        sock.listen(0)


def _unheard(host: str, port: int, error: OSError) -> StoreError:
    return StoreError(
        f"[gateway] can't listen at {host!r}, port {port}: {error.strerror or error}",
        next_action="choose another host or port, or end the process that has it",
    )


class _Server(uvicorn.Server):
    """uvicorn's, but with an orderly end."""

    def __init__(self, config: uvicorn.Config, app: Served, drain_s: float, on_started: Callable[[int], None] | None) -> None:
        super().__init__(config)
        self.server_state: _State = _State()
        self._app = app
        self._drain_s = drain_s
        self._on_started = on_started

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Without raising the signal again at the end: a drained gateway ends with 0."""
        before = {sig: signal.signal(sig, self.handle_exit) for sig in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal asks, the second one hurries."""
        del sig, frame
        self.force_exit = self.should_exit
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Say so once connections are accepted."""
        await super().startup(sockets)
        if self._on_started is not None and sockets:
            self._on_started(sockets[0].getsockname()[1])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept what is queued and no more, answer what is under way, then close the application."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._drain_s
        self.server_state.draining = True
        await self._take_all(sockets or ())
        for server in self.servers:
            server.close()
        for sock in sockets or ():
            sock.close()
        try:
            lame = min(loop.time() + LAME_S, end)
            while loop.time() < end and self.server_state.connections and not self.force_exit:
                if loop.time() >= lame:
                    for connection in tuple(self.server_state.connections):
                        connection.shutdown()
                await asyncio.sleep(0.02)
            await self._cut()
        finally:
            await self._app.close()

    async def _take_all(self, sockets: Sequence[socket.socket]) -> None:
        """
        Connections that the kernel has accepted for us would be reset by closing; it is told to accept no more.

        The loop still accepts as well, of the same queue, and only its next turns tell us. Closing the server before that
        loses connections: asyncio drops one whose server is closed when it gets to it, and leaves its caller to wait. So the
        loop gets its turns first, and the server is closed in the same turn in which nothing was found any more.
        """
        for sock in sockets:
            _refuse_new(sock)
        for _ in range(TURNS):
            await asyncio.sleep(0.02)
            if not sum([await self._take_queued(sock) for sock in sockets]):
                return

    async def _take_queued(self, sock: socket.socket) -> int:
        """Accept what is queued; without a wait where that is nothing."""
        loop = asyncio.get_running_loop()
        taken = 0
        while True:
            try:
                connection, _ = sock.accept()
            except ConnectionAbortedError:
                continue
            except OSError:  # nothing left, as a rule
                return taken
            taken += 1
            connection.setblocking(False)
            await loop.connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> GatewayProtocol:
        return GatewayProtocol(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    async def _cut(self) -> None:
        """What is still there is cut, visibly: an answer without its end is no answer."""
        left = tuple(self.server_state.tasks)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=1.0)
        for connection in tuple(self.server_state.connections):
            connection.transport.abort()

