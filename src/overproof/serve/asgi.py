"""The few words of ASGI that the gateway uses, and how an error is said in OpenAI's form."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, MutableMapping
from email.utils import formatdate
from functools import lru_cache
from typing import Any

import msgspec

HttpScope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[HttpScope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

JSON: Headers = [(b"content-type", b"application/json")]
_ENCODE = msgspec.json.Encoder().encode
_KINDS = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


def error(status: int, message: str, *, kind: str = "", code: str | None = None, param: str | None = None) -> bytes:
    """
    An error as clients of the API read it.

    Args:
        status: HTTP status that it goes out with.
        message: for people.
        kind: OpenAI's `type`; by the status where empty.
        code: for programs.
        param: the part of the request that is wrong.

    Returns: JSON.
    """
    kind = kind or _KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
    clean = message.encode("utf-8", "replace").decode()
    return _ENCODE({"error": {"message": clean, "type": kind, "param": param, "code": code}})


@lru_cache(maxsize=1)
def _date(second: int) -> tuple[bytes, bytes]:
    """Of an answer of ours; the server adds none, since what is passed on has the upstream's."""
    return b"date", formatdate(second, usegmt=True).encode()


class Refusal:
    """
    An answer that is no, made once and sent many times.

    Args:
        status: HTTP status.
        message: one sentence for the caller's developer.
        code: a word that programs compare.
        kind: OpenAI's `type` of the error; by the status where empty.
        headers: further ones.
        close: whether the connection ends, as where the rest of a request is not read.
    """

    __slots__ = ("body", "code", "head", "status")

    def __init__(
        self, status: int, message: str, *, code: str, kind: str = "",
        headers: Headers | None = None, close: bool = False,
    ) -> None:  # fmt: skip
        self.status, self.code = status, code
        self.body = error(status, message, kind=kind, code=code)
        length = (b"content-length", str(len(self.body)).encode())
        self.head: Headers = [*JSON, length, *(headers or []), *([(b"connection", b"close")] if close else [])]

    async def send(self, send: Send, *, more: bool = False) -> None:
        """
        Answer with it.

        Args:
            send: of the request.
            more: leave the answer open, to read what the caller still sends.
        """
        await send({"type": "http.response.start", "status": self.status, "headers": [*self.head, _date(int(time.time()))]})
        await send({"type": "http.response.body", "body": self.body, "more_body": more})


async def answer(send: Send, body: bytes, *, status: int = 200, headers: Headers | None = None) -> None:
    """
    Send a whole answer.

    Args:
        send: of the request.
        body: its bytes.
        status: HTTP status.
        headers: `JSON` where absent; the length is added.
    """
    head = [*(JSON if headers is None else headers), (b"content-length", str(len(body)).encode()), _date(int(time.time()))]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})
