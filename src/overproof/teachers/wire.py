"""One HTTP request within one deadline: keys, connections, and what a failure means. No retries."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from overproof.address import PrivateAddress
from overproof.data import Outcome
from overproof.errors import MissingExtra
from overproof.teachers.replies import Kind, Reply, limits_of

try:
    import aiohttp

    from overproof.teachers.resolver import CheckedResolver
except ModuleNotFoundError as error:
    raise MissingExtra("openai.v1 and anthropic.v1", extra="teach") from error

MAX_BODY_BYTES = 8 * 1024 * 1024
CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Pricing:
    """What a part charges for one answer; None where nobody wrote the price down."""

    usd_in: float | None
    """A million prompt tokens."""
    usd_out: float | None
    """A million answer tokens."""
    usd_cached: float | None = None
    """A million prompt tokens read from the provider's cache; None: as any other."""
    usd_cache_write: float | None = None
    """A million prompt tokens written to the provider's cache; None: as any other."""

    def cost_usd(
        self, tokens_in: int | None, tokens_out: int | None, *, cached: int = 0, written: int = 0
    ) -> float | None:
        """
        The price of one answer.

        Args:
            tokens_in: all prompt tokens, cached ones included.
            tokens_out: answer tokens.
            cached: prompt tokens read from the cache.
            written: prompt tokens written to it.

        Returns: US dollars; None where a count or a price is missing.
        """
        if tokens_in is None or tokens_out is None or self.usd_in is None or self.usd_out is None:
            return None
        low = self.usd_in if self.usd_cached is None else self.usd_cached
        high = self.usd_in if self.usd_cache_write is None else self.usd_cache_write
        plain = max(0, tokens_in - cached - written)
        return (plain * self.usd_in + cached * low + written * high + tokens_out * self.usd_out) / 1e6


class Wire:
    """
    The connections of one teacher.

    Args:
        allow_private: admit private addresses.
        timeout_s: deadline of one request, from connecting to the last byte.
        limits_prefix: what the provider's rate-limit headers begin with.
    """

    def __init__(self, *, allow_private: bool, timeout_s: float, limits_prefix: str) -> None:
        self._allow_private = allow_private
        self._timeout_s = timeout_s
        self._prefix = limits_prefix
        self._session: aiohttp.ClientSession | None = None

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        data: bytes | aiohttp.FormData | None = None,
        most_bytes: int = MAX_BODY_BYTES,
    ) -> Reply | Outcome:
        """
        Make one request.

        Args:
            method: "GET" or "POST".
            url: the whole address.
            headers: of this request.
            data: the body.
            most_bytes: a longer answer is cut there, one byte over.

        Returns: the reply; or the outcome of a request that got none.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._once(method, url, headers, data, most_bytes)
        except TimeoutError:
            return failed("transient", f"no complete answer within {self._timeout_s:g} s", sent=True)
        except aiohttp.InvalidURL:
            return failed("fatal", "base_url is not a URL that can be asked", sent=False)
        except aiohttp.ClientError as error:
            if isinstance(_root(error), PrivateAddress):
                return failed("fatal", str(_root(error)), sent=False)
            reached = not isinstance(error, aiohttp.ClientConnectorError)
            return failed("transient", f"the connection failed: {type(error).__name__}", sent=reached)

    async def _once(
        self, method: str, url: str, headers: Mapping[str, str], data: bytes | aiohttp.FormData | None, most_bytes: int
    ) -> Reply:
        session = self._open()
        async with session.request(method, url, data=data, headers=headers, allow_redirects=False) as response:
            received = bytearray()
            async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                received += chunk
                if len(received) > most_bytes:
                    break
            said = {name.lower(): value for name, value in response.headers.items()}
            return Reply(
                status=response.status,
                body=bytes(received),
                retry_after=said.get("retry-after"),
                request_id=said.get("x-request-id") or said.get("request-id"),
                limits=limits_of(said, prefix=self._prefix),
            )

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            resolver = CheckedResolver(allow_private=self._allow_private)
            self._session = aiohttp.ClientSession(
                # limit=0: how many run at once is settled by who calls, or waiting would eat the deadline
                connector=aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
                trust_env=False,
            )
        return self._session

    async def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


def key_in(name: str | None) -> str | Outcome:
    """
    The API key that an environment variable holds.

    Args:
        name: the variable; None sends no key.

    Returns: the key, empty for none; or a fatal outcome that says what is wrong with the variable.
    """
    if not name:
        return ""
    key = os.environ.get(name, "").strip()
    if not key:
        return failed("fatal", f"the environment variable {name!r} is not set", sent=False)
    if not re.fullmatch(r"[\x21-\x7e]+", key):  # a line break here would write further headers
        return failed("fatal", f"the environment variable {name!r} holds characters that no header may hold", sent=False)
    return key


def failed(kind: Kind, reason: str, *, sent: bool) -> Outcome:
    """
    An outcome without an answer.

    Args:
        kind: what it means for the run.
        reason: why there is none.
        sent: whether the request may have reached the provider.

    Returns: the outcome.
    """
    return Outcome(
        kind=kind, completion=None, reason=reason, http_status=None,
        retry_after_s=None, fingerprint=None, request_id=None, sent=sent,
    )


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error
