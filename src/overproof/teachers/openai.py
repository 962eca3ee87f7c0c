"""Any API that speaks OpenAI chat completions: one request, one deadline, and a strict reading of the answer."""

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
    Answer,
    Reply,
    judged,
    provider_message,
    read_reply,
    retry_after_s,
    status_kind,
)

try:
    from overproof.teachers.address import check_base_url
    from overproof.teachers.batch_openai import OpenAIBatches
    from overproof.teachers.wire import CHUNK_BYTES, MAX_BODY_BYTES, Pricing, Wire, key_in
except (ModuleNotFoundError, MissingExtra) as error:
    raise MissingExtra("openai.v1", extra="teach") from error

__all__ = ["CHUNK_BYTES", "MAX_BODY_BYTES", "OpenAIOptions", "OpenAITeacher"]
# Byte-level tokenizers never make more tokens than bytes; the rest is what chat templates add.
TOKENS_PER_MESSAGE = 16
RESERVED_FIELDS = frozenset({"model", "messages", "stream", "n", "stream_options"})


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
        self._base = options.base_url.rstrip("/")
        self._wire = Wire(
            allow_private=options.allow_private, timeout_s=options.timeout_s, limits_prefix="x-ratelimit-"
        )
        self._pricing = Pricing(
            usd_in=options.price_in_usd_per_million,
            usd_out=options.price_out_usd_per_million,
            usd_cached=options.price_cached_usd_per_million,
        )
        self._batches = OpenAIBatches(wire=self._wire, base=self._base)

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
        key = key_in(self._options.api_key_env)
        if isinstance(key, Outcome):
            return key
        started = time.perf_counter()
        reply = await self._send(self._body(request, sample_index), key)
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
        """One request as a line of a batch; see `BatchCaller`."""
        return self._batches.line(custom_id, json.loads(self._body(request, sample_index)))

    async def submit(self, lines: Sequence[bytes], *, tag: str) -> str:
        """Hand a batch in; see `BatchCaller`."""
        return await self._batches.submit(lines, tag=tag, key=self._needed_key())

    async def find(self, tag: str, *, rows: int, since: float) -> str | None:
        """The batch that carries this tag; see `BatchCaller`."""
        del rows, since
        return await self._batches.find(tag, key=self._needed_key())

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

    async def _send(self, body: bytes, key: str) -> Reply | Outcome:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        return await self._wire.send("POST", f"{self._base}/chat/completions", headers=headers, data=body)

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
        if reply.status != 200:
            said = provider_message(reply.body, secret=key)
            if reply.status == 401 and not key:
                said += "; no key was sent, since [teacher] api_key_env names none"
            return replace(heard, kind=status_kind(reply), reason=f"HTTP {reply.status}: {said}")
        answer = read_reply(reply.body, secret=key)
        cost = self._pricing.cost_usd(answer.tokens_in, answer.tokens_out, cached=answer.tokens_cached)
        return judged(
            answer, heard, output=self._task.output, foreign=self._foreign(answer), pinned=self._options.model, cost_usd=cost
        )

    def _foreign(self, answer: Answer) -> str:
        """Why the answer is not the pinned teacher's, good or bad as it may be; empty where it is."""
        options = self._options
        if answer.model is not None and answer.model != options.model:
            return f"model {answer.model[:80]!r} answered, pinned is {options.model!r}"
        if options.fingerprint and answer.model and answer.fingerprint != options.fingerprint:
            return f"fingerprint {answer.fingerprint!r} answered, pinned is {options.fingerprint!r}"
        return ""
