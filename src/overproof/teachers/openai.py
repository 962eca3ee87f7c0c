"""Any API that speaks OpenAI chat completions: one request, one deadline, and a strict reading of the answer."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from overproof.data import Completion, Outcome, Request
from overproof.errors import DataError, MissingExtra, TeacherError
from overproof.task import Task
from overproof.teachers import TokenBound, messages_for
from overproof.teachers.replies import Answer, Reply, provider_message, read_reply, retry_after_s, status_kind

try:
    import aiohttp

    from overproof.teachers.address import CheckedResolver, PrivateAddress, check_base_url
except ModuleNotFoundError as error:
    raise MissingExtra("openai.v1", extra="teach") from error

MAX_BODY_BYTES = 8 * 1024 * 1024
CHUNK_BYTES = 64 * 1024
# Byte-level tokenizers never make more tokens than bytes; the rest is what chat templates add.
TOKENS_PER_MESSAGE = 16
RESERVED_FIELDS = frozenset({"model", "messages", "stream", "n", "stream_options"})
Kind = Literal["ok", "bad", "transient", "permanent", "fatal"]


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenAIOptions:
    """What `[teacher]` may say for openai.v1."""

    model: str
    """Exact model id; an answer that comes with another id stops the run."""
    base_url: str = "https://api.openai.com/v1"
    """Where `/chat/completions` lives."""
    api_key_env: str | None = None
    """Environment variable that holds the key. None sends none: a key goes only where its owner said so."""
    temperature: float | None = 0.0
    """None leaves it out, for models that refuse it."""
    max_tokens: int = 64
    """Cap of the answer; an answer that reaches it is never a label."""
    max_tokens_field: str = "max_tokens"
    """"max_completion_tokens" for models that want that name."""
    seed: int | None = None
    """Sample i is asked with `seed` + i."""
    extra: Mapping[str, float | int | str] = field(default_factory=dict)
    """Further body fields, verbatim, for example `reasoning_effort`."""
    fingerprint: str | None = None
    """Pinned `system_fingerprint`; another one stops the run."""
    price_in_usd_per_million: float | None = None
    """Price of a million prompt tokens."""
    price_out_usd_per_million: float | None = None
    """Price of a million answer tokens."""
    timeout_s: float = 60.0
    """Deadline of one attempt from connecting to the last byte."""
    allow_private: bool = False
    """Admit plain http and addresses of this machine or the local network, for self-hosted models."""


class OpenAITeacher:
    """
    One model behind an OpenAI-compatible API.

    Args:
        task: prompt and labels.
        options: see `OpenAIOptions`.

    Raises: TeacherError for a base URL that is not admitted, or options that can't be sent.
    """

    Options: ClassVar[type[OpenAIOptions]] = OpenAIOptions
    free = False

    def __init__(self, *, task: Task, options: OpenAIOptions) -> None:
        check_base_url(options.base_url, allow_private=options.allow_private)
        clash = sorted(RESERVED_FIELDS & set(options.extra))
        if clash:
            raise TeacherError(
                f"[teacher] extra can't set {clash!r}: this package sets them", next_action="take them out of extra"
            )
        if options.timeout_s <= 0 or options.max_tokens < 1:
            raise TeacherError(
                f"[teacher] timeout_s {options.timeout_s!r} and max_tokens {options.max_tokens!r} must be positive",
                next_action="give both a positive value, or leave them out",
            )
        self._task = task
        self._options = options
        self._url = options.base_url.rstrip("/") + "/chat/completions"
        self._session: aiohttp.ClientSession | None = None

    @property
    def parameters(self) -> dict[str, float | int | str]:
        """Everything in the request body besides model and messages: the pin's sampling parameters."""
        options = self._options
        found: dict[str, float | int | str] = {options.max_tokens_field: options.max_tokens, **options.extra}
        if options.temperature is not None:
            found["temperature"] = options.temperature
        if options.seed is not None:
            found["seed"] = options.seed
        return dict(sorted(found.items()))

    def worst_case_tokens(self, request: Request) -> TokenBound:
        """Bound what one attempt can be billed for; see `Teacher`."""
        messages = messages_for(self._task, request)
        size = sum(len(m.content.encode("utf-8", "surrogatepass")) + TOKENS_PER_MESSAGE for m in messages)
        return TokenBound(tokens_in=size + TOKENS_PER_MESSAGE, tokens_out=self._options.max_tokens)

    async def attempt(
        self, request: Request, *, sample_index: int, recorded: Completion | None = None
    ) -> Outcome:
        """Make exactly one wire request; see `Teacher`. What a log holds is not looked at."""
        del recorded
        key = self._key()
        if isinstance(key, Outcome):
            return key
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._options.timeout_s):
                reply = await self._send(self._body(request, sample_index), key)
        except TimeoutError:
            return _failed("transient", f"no complete answer within {self._options.timeout_s:g} s", sent=True)
        except aiohttp.InvalidURL:
            return _failed("fatal", "base_url is not a URL that can be asked", sent=False)
        except aiohttp.ClientError as error:
            if isinstance(_root(error), PrivateAddress):
                return _failed("fatal", str(_root(error)), sent=False)
            reached = not isinstance(error, aiohttp.ClientConnectorError)
            return _failed("transient", f"the connection failed: {type(error).__name__}", sent=reached)
        return self._judge(reply, latency_s=time.perf_counter() - started, key=key)

    async def close(self) -> None:
        """Close the connections; the next attempt opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _key(self) -> str | Outcome:
        name = self._options.api_key_env
        if not name:
            return ""
        key = os.environ.get(name, "").strip()
        if not key:
            return _failed("fatal", f"the environment variable {name!r} is not set", sent=False)
        if not re.fullmatch(r"[\x21-\x7e]+", key):  # a line break here would write further headers
            return _failed("fatal", f"the environment variable {name!r} holds characters that no header may hold", sent=False)
        return key

    def _body(self, request: Request, sample_index: int) -> bytes:
        body: dict[str, Any] = {
            "model": self._options.model,
            "messages": [{"role": m.role, "content": m.content} for m in messages_for(self._task, request)],
            "stream": False,
            **self.parameters,
        }
        if self._options.seed is not None:
            body["seed"] = self._options.seed + sample_index
        return json.dumps(body).encode("ascii")

    async def _send(self, body: bytes, key: str) -> Reply:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        session = self._open_session()
        async with session.post(self._url, data=body, headers=headers, allow_redirects=False) as response:
            received = bytearray()
            async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                received += chunk
                if len(received) > MAX_BODY_BYTES:
                    break
            return Reply(
                status=response.status,
                body=bytes(received),
                retry_after=response.headers.get("Retry-After"),
                request_id=response.headers.get("x-request-id"),
            )

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            resolver = CheckedResolver(allow_private=self._options.allow_private)
            self._session = aiohttp.ClientSession(
                # limit=0: how many run at once is settled by who calls, or waiting would eat the deadline
                connector=aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
                trust_env=False,
            )
        return self._session

    def _judge(self, reply: Reply, *, latency_s: float, key: str) -> Outcome:
        heard = Outcome(
            kind="bad",
            completion=None,
            reason=f"the answer is larger than {MAX_BODY_BYTES} bytes",
            http_status=reply.status,
            retry_after_s=retry_after_s(reply.retry_after),
            fingerprint=None,
            request_id=reply.request_id,
        )
        if len(reply.body) > MAX_BODY_BYTES:
            return heard
        if reply.status != 200:
            said = provider_message(reply.body, secret=key)
            if reply.status == 401 and not key:
                said += "; no key was sent, since [teacher] api_key_env names none"
            return replace(heard, kind=status_kind(reply), reason=f"HTTP {reply.status}: {said}")
        answer = read_reply(reply.body, secret=key)
        foreign = self._foreign(answer)
        reason, value = foreign or answer.reason, None
        if not reason:
            try:
                value = self._task.output.parse(answer.text)
            except DataError as error:
                reason = error.what
        kind: Kind = "fatal" if foreign else "bad" if reason else "ok"
        completion = Completion(
            text=answer.text,
            value=value,
            model=answer.model or self._options.model,
            finish=answer.finish,
            tokens_in=answer.tokens_in,
            tokens_out=answer.tokens_out,
            latency_s=latency_s,
            cost_usd=self._cost(answer.tokens_in, answer.tokens_out),
            reason=reason or None,
        )
        return replace(heard, kind=kind, reason=reason, completion=completion, fingerprint=answer.fingerprint)

    def _foreign(self, answer: Answer) -> str:
        """Why the answer is not the pinned teacher's, good or bad as it may be; empty where it is."""
        options = self._options
        if answer.model is not None and answer.model != options.model:
            return f"model {answer.model[:80]!r} answered, pinned is {options.model!r}"
        if options.fingerprint and answer.model and answer.fingerprint != options.fingerprint:
            return f"fingerprint {answer.fingerprint!r} answered, pinned is {options.fingerprint!r}"
        return ""

    def _cost(self, tokens_in: int | None, tokens_out: int | None) -> float | None:
        prices = (self._options.price_in_usd_per_million, self._options.price_out_usd_per_million)
        if tokens_in is None or tokens_out is None or prices[0] is None or prices[1] is None:
            return None
        return (tokens_in * prices[0] + tokens_out * prices[1]) / 1e6


def _failed(kind: Kind, reason: str, *, sent: bool) -> Outcome:
    return Outcome(
        kind=kind, completion=None, reason=reason, http_status=None,
        retry_after_s=None, fingerprint=None, request_id=None, sent=sent,
    )


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error
