"""Requests, what was served for them, and the log that both stand in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from overproof.data.served import Served

Completeness = Literal["stop", "length", "filtered", "error", "unknown"]
def digest_of(value: Any) -> str:
    """
    SHA-256 of a JSON value in one canonical spelling (sorted keys, UTF-8, no spaces).

    Args:
        value: strings, finite numbers, booleans, None, lists, tuples, string-keyed mappings.

    Returns: 64 hexadecimal digits.
    Raises: ValueError for NaN or infinity, TypeError for anything else that JSON can't say.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class Folder:
    """A folder of files inside an artifact: weights, a tokenizer, a report."""

    path: Path = field(compare=False)
    """Where the files are now; absolute once the store has them."""
    digest: str = ""
    """SHA-256 over (relative path, size, SHA-256) of every file; empty until the store has them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One production input."""

    id: str
    """Unique within the traffic log."""
    fields: Mapping[str, str]
    """Input field name to text."""
    at: str | None = None
    """When it arrived, ISO 8601 in UTC; None where the log doesn't say."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """What slices are cut by: tier, language, channel, …"""
    session: str | None = None
    """Session, thread or user that the request belongs to; rows of one session are not independent."""

    @property
    def text(self) -> str:
        """All fields, joined by a blank line in their own order."""
        return "\n\n".join(self.fields.values())

    @property
    def digest(self) -> str:
        """SHA-256 of the fields alone: two requests with the same content have the same digest."""
        return digest_of(dict(self.fields))


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """One answer of a model."""

    text: str
    """Raw answer."""
    value: str | None
    """Parsed answer; None where `text` doesn't parse."""
    model: str
    """The model id that the answer came with; empty where nobody wrote it down."""
    finish: Completeness = "stop"
    """Only "stop" may become a label; a log that doesn't say is "unknown" and is treated as the log's owner says."""
    tokens_in: int | None = None
    """Prompt tokens."""
    tokens_out: int | None = None
    """Answer tokens."""
    latency_s: float | None = None
    """Seconds from request to complete answer."""
    cost_usd: float | None = None
    """What this one answer cost."""
    reason: str | None = None
    """Why the answer can't be a label; None where it can."""
    tokens_cached: int | None = None
    """How many of the prompt tokens the provider read from its cache."""
    probability: float | None = None
    """The chance that the model itself gave this answer, from its token probabilities, in [0, 1]."""
    fingerprint: str | None = None
    """The provider's fingerprint of the system that answered."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolCall:
    """A model's wish to run a tool instead of, or before, answering."""

    name: str
    arguments: str
    """JSON text, as the model wrote it."""
    id: str = ""
    """What the tool's result refers to; empty where the log has none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One message of a conversation."""

    role: str
    """"system", "user", "assistant" or "tool"."""
    text: str
    """Its text; parts that aren't text stand as their kind in brackets."""
    calls: tuple[ToolCall, ...] = ()
    """Tools that the message asks for."""
    call_id: str = ""
    """For a tool's result: the call that it answers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrafficRecord:
    """One row of the traffic log: the request and what was served for it."""

    request: Request
    completion: Completion | None = None
    """What the caller got; None where the log holds inputs only."""
    gold: str | None = None
    """The true answer where somebody knows it; never shown to a teacher or a student."""
    source: str = ""
    """Where the row came from: file and format."""
    gold_from: str = "log"
    """See `Example.gold_from`."""
    context: tuple[Turn, ...] = ()
    """What the model saw beside the fields, in order: system prompt, other turns, tool results. Kept in the log for
    people; runs read without it, since a student sees the fields only."""
    calls: tuple[ToolCall, ...] = ()
    """Tools that the answer called."""
    served: Served | None = None
    """How the gateway answered; None for imported rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Skipped:
    """One input row that could not be read; it is counted and kept aside, never dropped silently."""

    where: str
    """File and line, for example "logs/may.jsonl:12"."""
    reason: str
    """What was wrong with it."""
    raw: str
    """The row as found, at most 2,000 characters."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Traffic:
    """An immutable snapshot of the log window that a run works on, oldest first."""

    records: tuple[TrafficRecord, ...]
    window: tuple[str | None, str | None]
    """First and last time in the snapshot, ISO 8601; None where the log has no times."""
    left_out: Mapping[str, int]
    """Reason to count: rows of the log that are not in the snapshot."""
    left_rows: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Reason to ids of such rows, at most `MOST_NAMED` each."""


MOST_NAMED = 1000
"""So many rows that were left out for one reason are named; all are counted."""


def named(fates: Iterable[tuple[str, str]]) -> Mapping[str, tuple[str, ...]]:
    """
    Which rows met which fate.

    Args:
        fates: pairs of a fate and a row's id.

    Returns: fate to the first `MOST_NAMED` ids, in order of the fates' names.
    """
    found: dict[str, list[str]] = {}
    for fate, identity in fates:
        ids = found.setdefault(fate, [])
        if len(ids) < MOST_NAMED:
            ids.append(identity)
    return {fate: tuple(found[fate]) for fate in sorted(found)}


FEEDBACK = "feedback"
"""Mark of a label that a caller posted: who complains is not drawn by chance, so it proves nothing."""
GOLD_SOURCES = ("log", "review-audit", "review-fix", FEEDBACK)
"""Who chose the rows that have a true label: see `Example.gold_from`."""
