"""What every request has to pass before anything reads it: sizes, host, path, origin, form and length of the body."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import chain
from typing import Final

from overproof.errors import DataError
from overproof.serve.asgi import App, Headers, HttpScope, Message, Receive, Refusal, Send

MAX_HEADER_BYTES: Final = 16_384
MAX_HEADERS: Final = 100
BODY_S: Final = 30.0  # for a body to arrive that doesn't come at once
KNOWN_HOSTS: Final = 64
LINGER_S: Final = 2.0  # how long the rest of a refused body is read, so that its sender gets to see the answer
HEADERS: Final = "overproof.headers"
"""Where the guard leaves the headers as a mapping, in the request's scope."""

_HOST = re.compile(rb"(?:\[[0-9a-f:]+\]|[a-z0-9.-]{1,253})(?::\d{1,5})?", re.IGNORECASE)
# Also what decodes to such a byte in a second round.
_PATH = re.compile(rb"/(?:[\w.~!$&'()*+,;=:@/-]|%(?!(?:25)*(?:2e|2f|5c|00))[0-9a-f]{2})*", re.IGNORECASE | re.ASCII)
_QUERY = re.compile(rb"[!-~]*")
_SLASH = re.compile(rb"%2f", re.IGNORECASE)
_KEY = re.compile(rb"op_[A-Za-z0-9_-]{43}")
_NAMES = re.compile(rb"[A-Za-z0-9-]+(?: ?, ?[A-Za-z0-9-]+)*")
_MODELS = b"/v1/models/"  # names of models have slashes in them, and clients quote these
_ONCE = frozenset({
    b"authorization", b"content-length", b"content-type", b"host", b"origin", b"sec-fetch-site", b"transfer-encoding",
})  # fmt: skip
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_FORMS = (b"multipart/form-data", b"application/octet-stream", b"application/x-protobuf")

HEAD_TOO_LARGE = Refusal(431, "The request's headers are too large.", code="headers_too_large", close=True)
MALFORMED = Refusal(400, "This is not a valid HTTP/1.1 request.", code="malformed_request", close=True)
TWO_LENGTHS = Refusal(400, "Content-Length and Transfer-Encoding exclude each other.", code="two_lengths", close=True)
TWICE = Refusal(400, "A header that may come once came twice.", code="repeated_header", close=True)
WRONG_HOST = Refusal(421, "The Host header is missing, repeated or not served here.", code="wrong_host", close=True)
BAD_PATH = Refusal(400, "The path or query has characters that are not accepted.", code="bad_path", close=True)
KEY_IN_URL = Refusal(400, "A key belongs in the Authorization header, never in a URL; revoke this one.", code="key_in_url", close=True)
FOREIGN = Refusal(403, "Web pages of this origin may not call.", code="origin_not_allowed", close=True)
WRONG_TYPE = Refusal(415, "The body has to be application/json.", code="unsupported_media_type", close=True)
TOO_LONG = Refusal(413, "The body is longer than accepted.", code="body_too_long", close=True)
TOO_SLOW = Refusal(408, "The body did not arrive in time.", code="body_too_slow", close=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What the guard lets through; made by `limits_of`."""

    hosts: frozenset[bytes]
    """Host names in lower case, with or without a port; one without stands for every port."""
    origins: frozenset[bytes] = frozenset()
    """Origins of web pages that may call."""
    max_body_bytes: int = 1_048_576
    max_header_bytes: int = MAX_HEADER_BYTES
    max_headers: int = MAX_HEADERS


class BodyTooLong(Exception):
    """More bytes came than the guard lets through."""


class BodyTooSlow(Exception):
    """The rest of a body did not come in time."""


def limits_of(host: str, *, hosts: Iterable[str] = (), origins: Iterable[str] = (), max_body_bytes: int = 1_048_576) -> Limits:
    """
    Limits for an address to listen at.

    Args:
        host: the address; requests may name it, and this machine's own names.
        hosts: further names that callers may use.
        origins: origins of web pages that may call.
        max_body_bytes: longest body.

    Returns: the limits; the address that a connection came in on is accepted as well, being a number and no name.
    Raises: DataError for a name that no Host header can have.
    """
    bare = host.strip("[]").lower()
    own = {f"[{bare}]" if ":" in bare else bare} - {"0.0.0.0", "[::]"}  # noqa: S104 - not bound to here, but left out: nobody's name
    named = {h.lower() for h in hosts} | own | {"localhost", "127.0.0.1", "[::1]"}
    found = frozenset(h.encode("ascii", "replace") for h in named)
    if wrong := sorted(h.decode() for h in found if not _HOST.fullmatch(h)):
        raise DataError(f"[gateway] hosts that no request can name: {wrong}", next_action="write them as in a URL, without scheme and path; xn--... where they are no ASCII")
    return Limits(hosts=found, origins=frozenset(o.lower().rstrip("/").encode() for o in origins), max_body_bytes=max_body_bytes)


class Guard:
    """
    A plain ASGI application around another one: what it lets through has one meaning only.

    Args:
        inner: what gets the requests; finds the headers as a mapping in the scope, under `HEADERS`.
        limits: what is let through.
    """

    def __init__(self, inner: App, *, limits: Limits) -> None:
        self._inner = inner
        self._limits = limits
        self._known: set[bytes] = set(limits.hosts)  # Host headers that were found fine, as they came

    async def __call__(self, scope: HttpScope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._inner(scope, receive, send)
            return
        raw: Headers = scope["headers"]
        headers = dict(raw)
        refusal = self._checked(scope, raw, headers)
        origin = headers.get(b"origin")
        if origin is not None and refusal is not FOREIGN and origin.lower() in self._limits.origins:
            if refusal is None and scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
                await _preflight(send, headers, origin)
                return
            send = _shared(send, origin)
        has_body = b"content-length" in headers or b"transfer-encoding" in headers
        if refusal is not None:
            await _refuse(refusal, receive, send, body=has_body)
            return
        scope[HEADERS] = headers
        counted = _Counted(receive, self._limits.max_body_bytes) if has_body else receive
        try:
            await self._inner(scope, counted, send)
        except BodyTooLong:
            await _refuse(TOO_LONG, receive, send, body=True)
        except BodyTooSlow:
            await TOO_SLOW.send(send)

    def _checked(self, scope: HttpScope, raw: Headers, headers: Mapping[bytes, bytes]) -> Refusal | None:
        limits = self._limits
        if len(raw) > limits.max_headers or len(b"".join(chain.from_iterable(raw))) + 4 * len(raw) > limits.max_header_bytes:
            return HEAD_TOO_LARGE
        if b"content-length" in headers and b"transfer-encoding" in headers:
            return TWO_LENGTHS
        if len(headers) != len(raw):
            names = [name for name, _ in raw if name in _ONCE]
            if names.count(b"host") > 1:
                return WRONG_HOST
            if len(names) != len(set(names)):
                return TWICE
        host = headers.get(b"host")
        if host is None or not (host in self._known or self._is_ours(host, scope)):
            return WRONG_HOST
        if (refusal := _path_refusal(scope["raw_path"], scope["query_string"])) is not None:
            return refusal
        return self._from_page(scope["method"], headers, host) or self._body_refusal(scope["method"], headers)

    def _is_ours(self, host: bytes, scope: HttpScope) -> bool:
        if not _HOST.fullmatch(host):
            return False
        low = host.lower()
        name = low if low.endswith(b"]") else low.rpartition(b":")[0] or low
        fine = low in self._limits.hosts or name in self._limits.hosts
        if not fine and (server := scope.get("server")) is not None:
            # A page that was rebound to this machine still names its own domain; a number can't be rebound.
            with contextlib.suppress(ValueError):
                fine = ip_address(name.decode().strip("[]")) == ip_address(server[0])
        if fine and len(self._known) < KNOWN_HOSTS:
            self._known.add(host)
        return fine

    def _from_page(self, method: str, headers: Mapping[bytes, bytes], host: bytes) -> Refusal | None:
        origin = headers.get(b"origin")
        if origin is not None:
            known = origin.lower()
            own = known.partition(b"://")
            fine = known in self._limits.origins or (own[0] in (b"http", b"https") and own[2] == host.lower())
            return None if fine else FOREIGN
        site = headers.get(b"sec-fetch-site")
        return FOREIGN if site is not None and method not in _READING and site not in (b"same-origin", b"none") else None

    def _body_refusal(self, method: str, headers: Mapping[bytes, bytes]) -> Refusal | None:
        length = headers.get(b"content-length")
        if length is not None and (not length.isdigit() or len(length) > 15 or int(length) > self._limits.max_body_bytes):
            return TOO_LONG
        if method in _READING or (length in (None, b"0") and b"transfer-encoding" not in headers):
            return None
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if kind == b"application/json":
            return None
        # Foreign pages were refused above; the two types that any page can send without asking are refused all the same.
        return None if kind in _FORMS else WRONG_TYPE


async def read_body(receive: Receive, *, seconds: float = BODY_S) -> bytes | None:
    """
    A request's whole body.

    Args:
        receive: of the request, as the guard hands it on.
        seconds: for a body that doesn't come at once.

    Returns: the bytes; None where the caller left before the last one, so that nothing may be forwarded.
    Raises: BodyTooLong, BodyTooSlow: the guard answers both.
    """
    message = await receive()
    if message["type"] != "http.request":
        return None
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        return body
    parts = [body]
    try:
        async with asyncio.timeout(seconds):  # costs more than a whole body that came at once
            while message.get("more_body", False):
                message = await receive()
                if message["type"] != "http.request":
                    return None
                parts.append(message.get("body", b""))
    except TimeoutError as error:
        raise BodyTooSlow from error
    return b"".join(parts)


class _Counted:
    """`receive` that ends a body which is longer than it may be."""

    __slots__ = ("_left", "_receive")

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive = receive
        self._left = most

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request" and self._left >= 0:
            self._left -= len(message.get("body", b""))
            if self._left < 0:
                raise BodyTooLong
        return message


def _path_refusal(path: bytes, query: bytes) -> Refusal | None:
    if b"%" in path and path.startswith(_MODELS):
        path = _SLASH.sub(b"/", path)
    if not _PATH.fullmatch(path) or b"//" in path or b".." in path or b"/./" in path or path.endswith(b"/."):
        return BAD_PATH
    if query or b"op_" in path:
        if not _QUERY.fullmatch(query):
            return BAD_PATH
        if _KEY.search(query) or _KEY.search(path):
            return KEY_IN_URL
    return None


def _shared(send: Send, origin: bytes) -> Send:
    """`send` whose answers the page may read, streamed ones as well."""
    allowed: Headers = [*_allowing(origin), (b"access-control-expose-headers", b"*")]

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [pair for pair in message.get("headers", ()) if not pair[0].lower().startswith(b"access-control-")]
            message = {"type": message["type"], "status": message["status"], "headers": kept + allowed}
        await send(message)

    return sent


def _allowing(origin: bytes) -> Headers:
    return [(b"access-control-allow-origin", origin), (b"vary", b"Origin")]


async def _preflight(send: Send, headers: Mapping[bytes, bytes], origin: bytes) -> None:
    head = [*_allowing(origin), (b"access-control-allow-methods", b"GET, POST, DELETE"), (b"access-control-max-age", b"600")]
    asked = headers.get(b"access-control-request-headers", b"")
    if _NAMES.fullmatch(asked):
        head.append((b"access-control-allow-headers", asked))
    if headers.get(b"access-control-request-private-network") == b"true":
        head.append((b"access-control-allow-private-network", b"true"))
    await send({"type": "http.response.start", "status": 204, "headers": head})
    await send({"type": "http.response.body", "body": b""})


async def _refuse(refusal: Refusal, receive: Receive, send: Send, *, body: bool) -> None:
    """Closing on bytes that nobody read would reset the connection, and their sender would never see the answer."""
    await refusal.send(send, more=body)
    if not body:
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while (await receive()).get("more_body", False):
                pass
    await send({"type": "http.response.body", "body": b""})
