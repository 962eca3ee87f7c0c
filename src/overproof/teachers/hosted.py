"""What every hosted API has in common: one request, one deadline, one strict judgement of what came back."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from overproof.address import check_base_url
from overproof.data import BatchResult, BatchState, Completion, Outcome, Request
from overproof.errors import TeacherError
from overproof.task import Task
from overproof.teachers import TokenBound, messages_for
from overproof.teachers.batch import Batches
from overproof.teachers.replies import (
    Answer,
    Reply,
    judged,
    provider_message,
    retry_after_s,
    status_kind,
)
from overproof.teachers.wire import MAX_BODY_BYTES, Pricing, Wire, key_in


class HostedOptions(Protocol):
    """What `[teacher]` says for any hosted API."""

    @property
    def model(self) -> str:
        """Exact model id."""

    @property
    def base_url(self) -> str:
        """Where the API lives."""

    @property
    def api_key_env(self) -> str | None:
        """Environment variable that holds the key."""

    @property
    def max_tokens(self) -> int:
        """Cap of the answer."""

    @property
    def extra(self) -> Mapping[str, Any]:
        """Further body fields."""

    @property
    def timeout_s(self) -> float:
        """Deadline of one attempt."""

    @property
    def allow_private(self) -> bool:
        """Admit private addresses."""


OptionsT = TypeVar("OptionsT", bound=HostedOptions)
BatchesT = TypeVar("BatchesT", bound=Batches)


class HostedTeacher(ABC, Generic[OptionsT, BatchesT]):
    """
    One model behind a hosted API.

    Args:
        task: prompt and labels.
        options: of the API.

    Raises: TeacherError for a base URL that is not admitted, or options that can't be sent.
    """

    free = False
    path: ClassVar[str]
    """Of one call, below the base URL."""
    limits_prefix: ClassVar[str]
    """What the provider's rate-limit headers begin with."""
    reserved: ClassVar[frozenset[str]]
    """Body fields that `extra` may not set."""
    tokens_per_message: ClassVar[int]
    """Byte-level tokenizers never make more tokens than bytes; this is what chat templates add."""

    def __init__(self, *, task: Task, options: OptionsT) -> None:
        check_base_url(options.base_url, allow_private=options.allow_private)
        clash = sorted(self.reserved & set(options.extra))
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
            allow_private=options.allow_private, timeout_s=options.timeout_s, limits_prefix=self.limits_prefix
        )
        self._pricing = self._priced(options)
        self._batches = self._batching(self._wire, self._base)

    @property
    @abstractmethod
    def parameters(self) -> dict[str, float | int | str]:
        """Everything in the request body besides model and messages: the pin's sampling parameters."""

    @abstractmethod
    def _priced(self, options: OptionsT) -> Pricing:
        """The prices of an answer."""

    @abstractmethod
    def _batching(self, wire: Wire, base: str) -> BatchesT:
        """The API's batch endpoints."""

    @abstractmethod
    def _fields(self, request: Request, sample_index: int) -> dict[str, Any]:
        """The body of one call."""

    @abstractmethod
    def _headers(self, key: str) -> dict[str, str]:
        """The headers of one call."""

    @abstractmethod
    def _read(self, body: bytes, *, secret: str) -> Answer:
        """The body of a 200 response."""

    def worst_case_tokens(self, request: Request) -> TokenBound:
        """Bound what one attempt can be billed for; see `Teacher`."""
        messages = messages_for(self._task, request)
        size = sum(len(m.content.encode("utf-8", "surrogatepass")) + self.tokens_per_message for m in messages)
        return TokenBound(tokens_in=size + self.tokens_per_message, tokens_out=self._options.max_tokens)

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
        return json.dumps(self._fields(request, sample_index)).encode("ascii")

    async def _send(self, body: bytes, key: str) -> Reply | Outcome:
        return await self._wire.send("POST", f"{self._base}{self.path}", headers=self._headers(key), data=body)

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
        answer = self._read(reply.body, secret=key)
        cost = self._pricing.cost_usd(
            answer.tokens_in, answer.tokens_out, cached=answer.tokens_cached, written=answer.tokens_written
        )
        return judged(
            answer, heard, output=self._task.output, foreign=self._foreign(answer), pinned=self._options.model, cost_usd=cost
        )

    def _foreign(self, answer: Answer) -> str:
        """Why the answer is not the pinned teacher's, good or bad as it may be; empty where it is."""
        if answer.model is not None and answer.model != self._options.model:
            return f"model {answer.model[:80]!r} answered, pinned is {self._options.model!r}"
        return ""
