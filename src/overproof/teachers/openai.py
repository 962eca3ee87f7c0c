"""Any API that speaks OpenAI chat completions, as a hosted teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from overproof.data import Request
from overproof.errors import MissingExtra
from overproof.teachers import messages_for
from overproof.teachers.replies import Answer, read_reply

try:
    from overproof.teachers.batch_openai import OpenAIBatches
    from overproof.teachers.hosted import HostedTeacher
    from overproof.teachers.wire import CHUNK_BYTES, MAX_BODY_BYTES, Pricing, Wire
except (ModuleNotFoundError, MissingExtra) as error:
    raise MissingExtra("openai.v1", extra="teach") from error

__all__ = ["CHUNK_BYTES", "MAX_BODY_BYTES", "OpenAIOptions", "OpenAITeacher"]


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
    price_cached_usd_per_million: float | None = None
    """Price of a million prompt tokens that the provider reads from its cache; as any other where absent."""
    logprobs: bool = False
    """Ask for token probabilities, so that unsure answers can be asked again."""
    timeout_s: float = 60.0
    """Deadline of one attempt from connecting to the last byte."""
    allow_private: bool = False
    """Admit plain http and addresses of this machine or the local network, for self-hosted models."""


class OpenAITeacher(HostedTeacher[OpenAIOptions, OpenAIBatches]):
    """
    One model behind an OpenAI-compatible API.

    Args:
        task: prompt and labels.
        options: see `OpenAIOptions`.

    Raises: TeacherError for a base URL that is not admitted, or options that can't be sent.
    """

    Options: ClassVar[type[OpenAIOptions]] = OpenAIOptions
    path = "/chat/completions"
    limits_prefix = "x-ratelimit-"
    reserved = frozenset({"model", "messages", "stream", "n", "stream_options"})
    tokens_per_message = 16

    @property
    def parameters(self) -> dict[str, float | int | str]:
        """Everything in the request body besides model and messages: the pin's sampling parameters."""
        options = self._options
        found: dict[str, float | int | str] = {options.max_tokens_field: options.max_tokens, **options.extra}
        if options.temperature is not None:
            found["temperature"] = options.temperature
        if options.logprobs:
            found["logprobs"] = True
        if options.seed is not None:
            found["seed"] = options.seed
        return dict(sorted(found.items()))

    def batch_line(self, custom_id: str, request: Request, *, sample_index: int) -> bytes:
        """One request as a line of a batch; see `BatchCaller`."""
        return self._batches.line(custom_id, self._fields(request, sample_index))

    async def submit(self, lines: Sequence[bytes], *, tag: str) -> str:
        """Hand a batch in; see `BatchCaller`."""
        return await self._batches.submit(lines, tag=tag, key=self._needed_key())

    async def find(self, tag: str, *, rows: int, since: float) -> str | None:
        """The batch that carries this tag; see `BatchCaller`."""
        del rows, since
        return await self._batches.find(tag, key=self._needed_key())

    def _priced(self, options: OpenAIOptions) -> Pricing:
        return Pricing(
            usd_in=options.price_in_usd_per_million,
            usd_out=options.price_out_usd_per_million,
            usd_cached=options.price_cached_usd_per_million,
        )

    def _batching(self, wire: Wire, base: str) -> OpenAIBatches:
        return OpenAIBatches(wire=wire, base=base)

    def _headers(self, key: str) -> dict[str, str]:
        found = {"Content-Type": "application/json", "Accept": "application/json"}
        return found | ({"Authorization": f"Bearer {key}"} if key else {})

    def _read(self, body: bytes, *, secret: str) -> Answer:
        return read_reply(body, secret=secret)

    def _fields(self, request: Request, sample_index: int) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._options.model,
            "messages": [{"role": m.role, "content": m.content} for m in messages_for(self._task, request)],
            "stream": False,
            **self.parameters,
        }
        if self._options.seed is not None:
            body["seed"] = self._options.seed + sample_index
        return body

    def _foreign(self, answer: Answer) -> str:
        """A pinned fingerprint counts as much as the model's name."""
        pinned = self._options.fingerprint
        foreign = super()._foreign(answer)
        if not foreign and pinned and answer.model and answer.fingerprint != pinned:
            return f"fingerprint {answer.fingerprint!r} answered, pinned is {pinned!r}"
        return foreign
