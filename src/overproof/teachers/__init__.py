"""Teachers: one request in, one answer out. Retries, the cache and the ledger are somebody else's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from overproof.data import Completion, Outcome, Request
from overproof.task import Task


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenBound:
    """The most that one attempt can be billed for; what the ledger sets aside before the call."""

    tokens_in: int
    """Upper bound of the prompt tokens."""
    tokens_out: int
    """Upper bound of the answer tokens."""


class Teacher(Protocol):
    """
    What answers today. A class takes `task` and `options` (its own options dataclass, named `Options`).

    The conformance suite is `overproof.testing.teacher_conformance`.
    """

    free: bool
    """True where an answer costs nothing, so that no price and no budget are needed."""

    async def attempt(
        self, request: Request, *, sample_index: int, recorded: Completion | None = None
    ) -> Outcome:
        """
        Make exactly one wire request; whatever the provider does comes back as an `Outcome`, never as an exception.

        Args:
            request: what to ask.
            sample_index: which of several independent answers this is, from 0.
            recorded: what the traffic log holds as the served answer, for teachers that replay it.

        Returns: the outcome; its completion has a `value` iff the kind is "ok".
        """

    def worst_case_tokens(self, request: Request) -> TokenBound:
        """
        Bound what one attempt can be billed for.

        Args:
            request: what would be asked.

        Returns: upper bounds, never below what the provider then bills.
        """

    async def close(self) -> None:
        """Let go of connections; harmless twice, and the next attempt opens new ones."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One chat message."""

    role: Literal["system", "user"]
    content: str


def messages_for(task: Task, request: Request) -> tuple[Message, ...]:
    """
    The chat messages that ask the teacher about one request.

    Args:
        task: its prompt may hold `{field}` for input fields; other braces stay as they are.
        request: the fields; a field that the prompt doesn't name follows the prompt.

    Returns: a system and a user message; or one user message where the prompt has places for fields.
    """
    named = [name for name in task.input if "{" + name + "}" in task.prompt]
    rest = "\n\n".join(request.fields[name] for name in _field_names(task, request) if name not in named)
    if not named:
        return (Message(role="system", content=task.prompt), Message(role="user", content=rest))
    content = _fill(task.prompt, {name: request.fields.get(name, "") for name in named})
    return (Message(role="user", content=f"{content}\n\n{rest}" if rest else content),)


def _field_names(task: Task, request: Request) -> list[str]:
    return [name for name in task.input if name in request.fields]


def _fill(template: str, values: Mapping[str, str]) -> str:
    """Fill all places in one pass, so that `{field}` inside a caller's text stays text."""
    places = "|".join(re.escape(name) for name in values)
    return re.sub("{(" + places + ")}", lambda match: values[match[1]], template)
