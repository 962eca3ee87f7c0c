"""Anthropic's Messages API and its message batches, as a hosted teacher."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from overproof.data import Request
from overproof.errors import MissingExtra
from overproof.teachers import messages_for
from overproof.teachers.replies import Answer, read_message

try:
    from overproof.teachers.batch_anthropic import AnthropicBatches, headers_with
    from overproof.teachers.hosted import HostedTeacher
    from overproof.teachers.wire import Pricing, Wire
except (ModuleNotFoundError, MissingExtra) as error:
    raise MissingExtra("anthropic.v1", extra="teach") from error

CACHE_WRITE_FACTOR = 1.25  # what the provider asks for writing to its five-minute cache, relative to plain input


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


class AnthropicTeacher(HostedTeacher[AnthropicOptions, AnthropicBatches]):
    """
    One model behind Anthropic's Messages API.

    Args:
        task: prompt and labels.
        options: see `AnthropicOptions`.

    Raises: TeacherError for a base URL that is not admitted, or options that can't be sent.
    """

    Options: ClassVar[type[AnthropicOptions]] = AnthropicOptions
    path = "/messages"
    limits_prefix = "anthropic-ratelimit-"
    reserved = frozenset({"model", "messages", "system", "stream", "max_tokens", "tools", "tool_choice"})
    tokens_per_message = 32

    @property
    def parameters(self) -> dict[str, float | int | str]:
        """Everything in the request body besides model and messages: the pin's sampling parameters."""
        options = self._options
        extra = {k: v if isinstance(v, str | int | float) else json.dumps(v, sort_keys=True) for k, v in options.extra.items()}
        found: dict[str, float | int | str] = {"max_tokens": options.max_tokens, **extra}
        if options.temperature is not None:
            found["temperature"] = options.temperature
        return dict(sorted(found.items()))

    def batch_line(self, custom_id: str, request: Request, *, sample_index: int) -> bytes:
        """One request as an entry of a batch; see `BatchCaller`."""
        return json.dumps({"custom_id": custom_id, "params": self._fields(request, sample_index)}).encode("ascii")

    async def submit(self, lines: Sequence[bytes], *, tag: str) -> str:
        """Hand a batch in; see `BatchCaller`. The custom ids carry the tag, since this API keeps no metadata."""
        del tag
        return await self._batches.submit(lines, key=self._needed_key())

    async def find(self, tag: str, *, rows: int, since: float) -> str | None:
        """The batch whose rows carry this tag; see `BatchCaller`."""
        return await self._batches.find(tag, rows=rows, since=since, key=self._needed_key())

    def _priced(self, options: AnthropicOptions) -> Pricing:
        plain, write = options.price_in_usd_per_million, options.price_cache_write_usd_per_million
        if write is None and plain is not None:
            write = plain * CACHE_WRITE_FACTOR
        return Pricing(
            usd_in=plain,
            usd_out=options.price_out_usd_per_million,
            usd_cached=options.price_cached_usd_per_million,
            usd_cache_write=write,
        )

    def _batching(self, wire: Wire, base: str) -> AnthropicBatches:
        return AnthropicBatches(wire=wire, base=base)

    def _headers(self, key: str) -> dict[str, str]:
        return headers_with(key) | {"Accept": "application/json"}

    def _read(self, body: bytes, *, secret: str) -> Answer:
        return read_message(body, secret=secret)

    def _fields(self, request: Request, sample_index: int) -> dict[str, Any]:
        del sample_index
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
