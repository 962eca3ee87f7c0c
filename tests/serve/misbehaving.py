"""Upstreams on loopback that behave as badly as a test asks: they write the bytes that they are given."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

Handler = Callable[["Heard", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Heard:
    """What reached the server."""

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.requests: list[bytes] = []
        self.connections = 0
        self.gone = asyncio.Event()
        """Set when a connection was closed by the other side while its handler waited in `until_gone`."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def came(self, count: int) -> None:
        """Wait until that many requests have come."""
        while len(self.requests) < count:  # noqa: ASYNC110  # handlers append to a plain list
            await asyncio.sleep(0.005)

    async def until_gone(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            while await reader.read(65_536):
                pass
        self.gone.set()


async def take(reader: asyncio.StreamReader) -> bytes:
    """One whole request; empty where the connection ends first."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        return head + await reader.readexactly(int(lines[0].split(b":")[1]) if lines else 0)
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


@contextlib.asynccontextmanager
async def upstream(handler: Handler, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Heard]:
    heard = Heard()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await handler(heard, reader, writer)
        writer.transport.abort() if writer.transport.is_closing() else writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    heard.port = server.sockets[0].getsockname()[1]
    try:
        yield heard
    finally:
        server.close()


def saying(*pieces: bytes, keep: bool = False, reset: bool = False) -> Handler:
    """Answer each request with these pieces, then close the connection, or keep it."""

    async def handler(heard: Heard, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await take(reader):
            heard.requests.append(request)
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                if len(pieces) > 1:
                    await asyncio.sleep(0.002)
            if reset:
                await asyncio.sleep(0.02)
                writer.transport.abort()
            if not keep:
                return

    return handler


def chunked(*parts: bytes, end: bool = True, kind: bytes = b"text/event-stream") -> bytes:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: " + kind + b"\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + (b"0\r\n\r\n" if end else b"")


def sized(body: bytes, *extra: bytes, status: bytes = b"200 OK", length: int | None = None) -> bytes:
    lines = [b"HTTP/1.1 " + status, b"content-type: application/json", b"content-length: %d" % (len(body) if length is None else length), *extra]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body
