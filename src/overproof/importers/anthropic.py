"""
Logs of Anthropic's Messages API: request and response pairs.

Source: Claude API reference, "Create a Message" (body and response, stop reasons, usage), as of 2026.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from overproof.importers import GUESSES, ColumnMapping
from overproof.importers.bodies import answered, asked, streamed
from overproof.importers.calls import Call, CallImporter
from overproof.importers.objects import first_row
from overproof.importers.rows import BadRow
from overproof.importers.turns import opened

PAIRS = (("request", "response"), ("params", "message"), ("input", "output"))


class AnthropicMessages(CallImporter):
    """Pairs of a Messages request and the Message that came back; a streamed answer may be the list of its events."""

    name = "anthropic.v1"
    known_by = "request and response of Anthropic's Messages API"
    under = ("data",)
    understood = frozenset({*(key for pair in PAIRS for key in pair), "type", "metadata", *(n for g in GUESSES.values() for n in g)})
    scalars = True

    def sniff(self, head: bytes, name: str) -> float:
        """How sure: a message with a stop reason; see `Importer.sniff`."""
        row = first_row(head, name, self.under)
        for question, reply in PAIRS:
            body, said = opened(row.get(question)), opened(row.get(reply))
            if isinstance(body, dict) and "messages" in body and isinstance(said, dict):
                return 0.97 if "stop_reason" in said and "content" in said else 0.0
        return 0.0

    def calls(self, row: Mapping[str, Any], mapping: ColumnMapping) -> Iterator[Call]:
        """The one call of a row; see `CallImporter.calls`."""
        pair = next((one for one in PAIRS if one[0] in row), None)
        body = opened(row[pair[0]]) if pair else None
        turns = asked(body) if isinstance(body, Mapping) else None
        if pair is None or turns is None or not isinstance(body, Mapping):
            raise BadRow(f"no call: expected request and response with messages; keys: {sorted(row)!r}"[:500])
        reply = opened(row.get(pair[1]))
        answer = answered(streamed(reply) if isinstance(reply, list) else reply)
        metadata = body.get("metadata")
        user = metadata.get("user_id") if isinstance(metadata, Mapping) else None
        found = {
            role: next((row[name] for name in GUESSES[role] if row.get(name) is not None), None)
            for role in ("id", "at", "session", "latency_s", "latency_ms", "cost_usd")
            if role not in mapping.columns
        }
        milliseconds = found.get("latency_ms")
        tags = row.get("metadata")
        yield Call(
            messages=turns, answer=answer, id=found.get("id"), at=found.get("at"), model=body.get("model"),
            session=user if found.get("session") is None else found["session"],
            latency_s=milliseconds / 1_000 if isinstance(milliseconds, int | float) else found.get("latency_s"),
            cost_usd=found.get("cost_usd"), attributes=tags if isinstance(tags, Mapping) else {},
        )  # fmt: skip
