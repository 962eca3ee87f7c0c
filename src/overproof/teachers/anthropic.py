"""Anthropic's Messages API and its message batches: one request, one deadline, and a strict reading of the answer."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from overproof.data import BatchResult, BatchState, Completion, Outcome, Request
from overproof.errors import MissingExtra, TeacherError
from overproof.task import Task
from overproof.teachers import TokenBound, messages_for
from overproof.teachers.replies import (
    Reply,
    judged,
    provider_message,
    read_message,
    retry_after_s,
    status_kind,
)

try:
    from overproof.teachers.address import check_base_url
    from overproof.teachers.batch_anthropic import AnthropicBatches
    from overproof.teachers.wire import MAX_BODY_BYTES, Pricing, Wire, key_in
except (ModuleNotFoundError, MissingExtra) as error:
    raise MissingExtra("anthropic.v1", extra="teach") from error

VERSION = "2023-06-01"
CACHE_WRITE_FACTOR = 1.25  # what the provider asks for writing to its five-minute cache, relative to plain input
# Byte-level tokenizers never make more tokens than bytes; the rest is what chat templates add.
TOKENS_PER_MESSAGE = 32
RESERVED_FIELDS = frozenset({"model", "messages", "system", "stream", "max_tokens", "tools", "tool_choice"})


@dataclass(frozen=True, kw_only=True, slots=True)
class AnthropicOptions:
    """What `[teacher]` may say for anthropic.v1."""

    model: str
    """Exact model id; an answer that comes with another id stops the run."""
    base_url: str = "https://api.anthropic.com/v1"
    """Where `/messages` lives."""
    api_key_env: str | None = None
    """Environment variable that holds the key. None sends none: a key goes only where its owner said so."""
    temperature: float | None = 0.0
    """None leaves it out, for models that refuse it."""
    max_tokens: int = 64
    """Cap of the answer; an answer that reaches it is never a label."""
    cache: bool = True
    """Mark the instructions as cacheable: they stand first and are the same for every request."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further body fields, verbatim, for example `thinking`."""
    price_in_usd_per_million: float | None = None
    """Price of a million prompt tokens."""
    price_out_usd_per_million: float | None = None
    """Price of a million answer tokens."""
    price_cached_usd_per_million: float | None = None
    """Price of a million prompt tokens that the provider reads from its cache; as any other where absent."""
    price_cache_write_usd_per_million: float | None = None
    """Price of a million prompt tokens written to the cache; 1.25 times the price of prompt tokens where absent."""
    timeout_s: float = 60.0
    """Deadline of one attempt from connecting to the last byte."""
    allow_private: bool = False
    """Admit plain http and addresses of this machine or the local network."""


class AnthropicTeacher:
    """
    One model behind Anthropic's Messages API.

    Args:
        task: prompt and labels.
        options: see `AnthropicOptions`.

    Raises: TeacherError for a base URL that is not admitted, or options that can't be sent.
    """

    Options: ClassVar[type[AnthropicOptions]] = AnthropicOptions
    free = False

    def __init__(self, *, task: Task, options: AnthropicOptions) -> None:
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
        self._base = options.base_url.rstrip("/")
        self._wire = Wire(
            allow_private=options.allow_private, timeout_s=options.timeout_s, limits_prefix="anthropic-ratelimit-"
        )
        plain, write = options.price_in_usd_per_million, options.price_cache_write_usd_per_million
        if write is None and plain is not None:
            write = plain * CACHE_WRITE_FACTOR
        self._pricing = Pricing(
            usd_in=plain,
            usd_out=options.price_out_usd_per_million,
            usd_cached=options.price_cached_usd_per_million,
            usd_cache_write=write,
        )
        self._batches = AnthropicBatches(wire=self._wire, base=self._base)

    @property
    def parameters(self) -> dict[str, float | int | str]:
        """Everything in the request body besides model and messages: the pin's sampling parameters."""
        options = self._options
        extra = {k: v if isinstance(v, str | int | float) else json.dumps(v, sort_keys=True) for k, v in options.extra.items()}
        found: dict[str, float | int | str] = {"max_tokens": options.max_tokens, **extra}
        if options.temperature is not None:
            found["temperature"] = options.temperature
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
        del recorded, sample_index
        key = key_in(self._options.api_key_env)
        if isinstance(key, Outcome):
            return key
        started = time.perf_counter()
        data = json.dumps(self._body(request)).encode("ascii")
        reply = await self._wire.send("POST", f"{self._base}/messages", headers=headers_with(key), data=data)
        if isinstance(reply, Outcome):
            return reply
        found = self._judge(reply, key=key)
        if found.completion is None:
            return found
        return replace(found, completion=replace(found.completion, latency_s=time.perf_counter() - started))

    async def close(self) -> None:
        """Close the connections; the next attempt opens new ones."""
        await self._wire.close()

    def batch_line(self, custom_id: str, request: Request, *, sample_index: int) -> bytes:
        """One request as an entry of a batch; see `BatchCaller`."""
        del sample_index
        return json.dumps({"custom_id": custom_id, "params": self._body(request)}).encode("ascii")

    async def submit(self, lines: Sequence[bytes], *, tag: str) -> str:
        """Hand a batch in; see `BatchCaller`. The custom ids carry the tag, since this API keeps no metadata."""
        del tag
        return await self._batches.submit(lines, key=self._needed_key())

    async def find(self, tag: str, *, rows: int, since: float) -> str | None:
        """The batch whose rows carry this tag; see `BatchCaller`."""
        return await self._batches.find(tag, rows=rows, since=since, key=self._needed_key())

    async def poll(self, batch_id: str) -> BatchState:
        """How a batch stands; see `BatchCaller`."""
        return await self._batches.poll(batch_id, key=self._needed_key())

    async def fetch(self, state: BatchState) -> Sequence[BatchResult]:
        """What became of each row; see `BatchCaller`."""
        key = self._needed_key()
        replies = await self._batches.fetch(state, key=key)
        return [
            BatchResult(custom_id=name, outcome=said if isinstance(said, Outcome) else self._judge(said, key=key))
            for name, said in replies
        ]

    def _needed_key(self) -> str:
        key = key_in(self._options.api_key_env)
        if isinstance(key, Outcome):
            raise TeacherError(key.reason, next_action="set the variable that [teacher] api_key_env names")
        return key

    def _body(self, request: Request) -> dict[str, Any]:
        messages = messages_for(self._task, request)
        options = self._options
        body: dict[str, Any] = {
            "model": options.model,
            "max_tokens": options.max_tokens,
            **({} if options.temperature is None else {"temperature": options.temperature}),
            **options.extra,
        }
        static = [m.content for m in messages if m.role == "system"]
        if static:
            block: dict[str, Any] = {"type": "text", "text": "\n\n".join(static)}
            # The cache covers all that stands before the mark, so what is the same for every row has to come first.
            body["system"] = [block | {"cache_control": {"type": "ephemeral"}}] if options.cache else [block]
        body["messages"] = [{"role": m.role, "content": m.content} for m in messages if m.role != "system"]
        return body

    def _judge(self, reply: Reply, *, key: str) -> Outcome:
        heard = Outcome(
            kind="bad",
            completion=None,
            reason=f"the answer is larger than {MAX_BODY_BYTES} bytes",
            http_status=reply.status,
            retry_after_s=retry_after_s(reply.retry_after),
            fingerprint=None,
            request_id=reply.request_id,
            limits=reply.limits,
        )
        if len(reply.body) > MAX_BODY_BYTES:
            return heard
        if reply.status != 200:  # 529, "overloaded", is transient as every 5xx
            said = provider_message(reply.body, secret=key)
            if reply.status == 401 and not key:
                said += "; no key was sent, since [teacher] api_key_env names none"
            return replace(heard, kind=status_kind(reply), reason=f"HTTP {reply.status}: {said}")
        answer = read_message(reply.body, secret=key)
        pinned, foreign = self._options.model, ""
        if answer.model is not None and answer.model != pinned:
            foreign = f"model {answer.model[:80]!r} answered, pinned is {pinned!r}"
        cost = self._pricing.cost_usd(
            answer.tokens_in, answer.tokens_out, cached=answer.tokens_cached, written=answer.tokens_written
        )
        return judged(answer, heard, output=self._task.output, foreign=foreign, pinned=pinned, cost_usd=cost)


def headers_with(key: str) -> dict[str, str]:
    """
    The headers of every request.

    Args:
        key: the API key, or empty.

    Returns: name to value.
    """
    found = {"Content-Type": "application/json", "Accept": "application/json", "anthropic-version": VERSION}
    return found | ({"x-api-key": key} if key else {})
