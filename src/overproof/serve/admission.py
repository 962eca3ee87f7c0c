"""The way in, behind the guard: which endpoint, who calls, may they, is there room; then the body, then the handler."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from overproof.errors import DataError
from overproof.serve.asgi import Headers, HttpScope, Receive, Refusal, Send
from overproof.serve.guard import HEADERS, WRONG_TYPE, read_body
from overproof.serve.keys import Caller, Denied, Keyring
from overproof.serve.routes import ENDPOINTS, Match, Router
from overproof.store.keys import SCOPES

NOT_FOUND: Final = Refusal(404, "Nothing is served at this path.", code="not_found")
BUSY: Final = Refusal(
    429, "Too many requests of this caller are in flight; try again in a second.", code="too_many_in_flight",
    headers=[(b"retry-after", b"1")],
)  # fmt: skip
FAILED: Final = Refusal(500, "The gateway failed on this request.", code="gateway_error")
_FORBIDDEN: Final = {
    scope: Refusal(403, f"This key lacks the scope {scope!r}.", code="missing_scope") for scope in SCOPES
}
_NOBODY: Final = Caller("", frozenset())
_log = logging.getLogger(__name__)


class Incoming:
    """A request that was let in, with its whole body."""

    __slots__ = ("arrived", "body", "caller", "endpoint", "headers", "method", "params", "path", "query", "raw_headers", "receive")

    def __init__(self, scope: HttpScope, receive: Receive, match: Match, *, caller: Caller, body: bytes) -> None:
        self.arrived = time.perf_counter()
        """When the last byte had come."""
        self.method: str = scope["method"]
        self.path: bytes = scope["raw_path"]
        """As it came."""
        self.query: bytes = scope["query_string"]
        self.headers: Mapping[bytes, bytes] = scope[HEADERS]
        """By name, in lower case; of a repeated one the last."""
        self.raw_headers: Headers = scope["headers"]
        self.endpoint = match.endpoint
        self.params = match.params
        self.caller = caller
        self.body = body
        self.receive = receive
        """Nothing comes any more but the news that the caller left."""


Handler = Callable[[Incoming, Send], Awaitable[None]]


class Admission:
    """
    The ASGI application that the guard stands around.

    Args:
        handlers: by the names that the table gives; each sends one whole answer.
        keyring: who may call.
        router: of the table.
        max_concurrent: requests in flight of one key, or of all callers without keys.

    Raises: DataError where an endpoint has no handler.
    """

    def __init__(self, handlers: Mapping[str, Handler], *, keyring: Keyring, router: Router | None = None, max_concurrent: int = 256) -> None:
        if missing := {one.handler for one in ENDPOINTS} - set(handlers):
            raise DataError(f"endpoints without a handler: {sorted(missing)}", next_action="give one for each name in serve/routes.py")
        self._handlers = dict(handlers)
        self._keyring = keyring
        self._router = router or Router()
        self._most = max_concurrent
        self._flying: dict[tuple[int, str], int] = {}

    async def __call__(self, scope: HttpScope, receive: Receive, send: Send) -> None:
        """One request."""
        headers: Mapping[bytes, bytes] = scope[HEADERS]
        found = self._router.match(scope["method"], scope["raw_path"])
        endpoint = found.endpoint
        if endpoint is None:
            await (_not_allowed(found.allowed) if found.allowed else NOT_FOUND).send(send)
            return
        who: Caller | Denied = _NOBODY
        if endpoint.scope != "public":
            who = self._keyring.caller(headers.get(b"authorization"))
            if isinstance(who, Denied):
                await who.refusal.send(send)
                return
            if endpoint.scope not in who.scopes:
                await _FORBIDDEN[endpoint.scope].send(send)
                return
        assert isinstance(who, Caller)
        if not endpoint.any_body and headers.get(b"content-type", b"application/json")[:16].lower() != b"application/json" and scope["method"] == "POST":
            await WRONG_TYPE.send(send)
            return
        place = (who.source, who.id)
        flying = self._flying.get(place, 0)
        if flying >= self._most and endpoint.scope != "public":
            await BUSY.send(send)
            return
        self._flying[place] = flying + 1
        try:
            body = await read_body(receive)
            if body is not None:
                await self._handled(Incoming(scope, receive, found, caller=who, body=body), endpoint.handler, send)
        finally:
            left = self._flying[place] - 1
            if left:
                self._flying[place] = left
            else:
                del self._flying[place]

    @property
    def in_flight(self) -> int:
        """Requests that were let in and are not answered yet."""
        return sum(self._flying.values())

    async def _handled(self, request: Incoming, handler: str, send: Send) -> None:
        try:
            await self._handlers[handler](request, send)
        except Exception as error:  # noqa: BLE001 - one request's failure is an answer, not the end of others
            # Never the message: it may quote what the caller wrote.
            _log.error("%s failed: %s", handler, type(error).__name__)
            with contextlib.suppress(RuntimeError):  # part of an answer is out already: the server will cut the connection
                await FAILED.send(send)


def _not_allowed(methods: tuple[str, ...]) -> Refusal:
    return Refusal(405, "This method is not served at this path.", code="method_not_allowed", headers=[(b"allow", ", ".join(methods).encode())])
