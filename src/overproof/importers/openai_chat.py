"""
Logs of OpenAI-compatible APIs: request and response pairs, stored completions, fine-tuning files.

Source: OpenAI API reference, "Chat Completions" (the object, stored completions and their messages), "Responses" and
"Fine-tuning: preparing your dataset", as of 2026.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from overproof.importers import GUESSES, ColumnMapping
from overproof.importers.bodies import Answer, answered, asked
from overproof.importers.calls import Call, CallImporter
from overproof.importers.objects import first_row
from overproof.importers.rows import BadRow
from overproof.importers.turns import Said, as_answer, opened, turns_in, turns_of

CALL_KEYS = frozenset({"request", "response", "input", "output", "messages", "tools", "functions"})
PAIRS = (("request", "response"), ("input", "output"))
PARAMETERS = frozenset({
    "temperature", "top_p", "max_tokens", "max_completion_tokens", "n", "seed", "stop", "stream", "stream_options", "tool_choice",
    "parallel_tool_calls", "response_format", "logprobs", "top_logprobs", "presence_penalty", "frequency_penalty", "logit_bias",
    "metadata", "tags", "choices", "usage", "object", "system_fingerprint", "service_tier", "created", "user", "store",
    "reasoning_effort", "function_call", "input_user", "request_id",
})  # fmt: skip


class OpenAIChat(CallImporter):
    """Calls of an OpenAI-compatible chat API, in the shapes in which teams keep them."""

    name = "openai_chat.v1"
    known_by = "chat messages, or request and response of a chat API"
    under = ("data",)
    understood = CALL_KEYS | PARAMETERS | {name for guesses in GUESSES.values() for name in guesses}
    scalars = True

    def sniff(self, head: bytes, name: str) -> float:
        """How sure: the keys of the first object; see `Importer.sniff`."""
        row = first_row(head, name, self.under)
        if not row:  # the first line may be longer than the head
            start = head[:400].lstrip()
            return 0.75 if start.startswith(b"{") and b'"messages"' in start else 0.0
        try:
            call = _call_of(row)
        except BadRow:
            return 0.0
        bare = all(not isinstance(row.get(key), dict | list) for key in CALL_KEYS)
        return 0.5 if bare or not call.messages else 0.94  # {"input": "text", …} is a plain table as well

    def calls(self, row: Mapping[str, Any], mapping: ColumnMapping) -> Iterator[Call]:
        """The one call of a row; see `CallImporter.calls`."""
        call = _call_of(row)
        found = {role: _guessed(role, row, mapping) for role in ("id", "at", "session", "model", "latency_s", "latency_ms", "cost_usd")}
        body = opened(next((row[asked] for asked, _ in PAIRS if isinstance(opened(row.get(asked)), dict)), row))
        user = body.get("user") if isinstance(body, dict) else None
        answer = call.answer
        milliseconds = found["latency_ms"]
        yield Call(
            messages=call.messages,
            answer=answer,
            id=found["id"],
            at=found["at"],
            session=user if found["session"] is None else found["session"],
            model=(body.get("model") if isinstance(body, dict) else None) or found["model"],
            finish=_guessed("finish", row, mapping),
            tokens_in=_guessed("tokens_in", row, mapping),
            tokens_out=_guessed("tokens_out", row, mapping),
            latency_s=found["latency_s"] if milliseconds is None else _thousandth(milliseconds),
            cost_usd=found["cost_usd"],
            attributes=_tags(body, row),
        )


def _guessed(role: str, row: Mapping[str, Any], mapping: ColumnMapping) -> Any:
    if role in mapping.columns:
        return None  # the column is looked up where the record is made
    return next((row[name] for name in GUESSES[role] if row.get(name) is not None), None)


def _thousandth(milliseconds: Any) -> Any:
    try:
        return float(milliseconds) / 1_000
    except (TypeError, ValueError):
        raise BadRow(f"latency_ms is {milliseconds!r}, expected a non-negative number"[:200]) from None


def _tags(body: Any, row: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for nested in (body.get("metadata") if isinstance(body, dict) else None, row.get("metadata"), row.get("tags")):
        found |= nested if isinstance(nested, dict) else {}
    return found


def _call_of(row: Mapping[str, Any]) -> Call:
    for question, reply in PAIRS:
        if question not in row:
            continue
        body = opened(row[question])
        body = {"messages": body} if isinstance(body, list | str) else body
        turns = asked(body) if isinstance(body, dict) else None
        if turns is not None:
            return Call(messages=turns, answer=answered(row.get(reply)))
    if "messages" in row:
        return _listed(row)
    if "choices" in row:
        raise BadRow("a stored completion without its messages; fetch /v1/chat/completions/{id}/messages into the key messages")
    raise BadRow(f"no chat call: expected request and response, input and output, or messages; keys: {sorted(row)!r}"[:500])


def _listed(row: Mapping[str, Any]) -> Call:
    """A stored completion with its messages, or a file of messages whose last one may be the answer."""
    listed = opened(row["messages"])
    if "choices" in row:
        listed = listed.get("data") if isinstance(listed, dict) else listed  # the list object of the API
        return Call(messages=turns_of(listed), answer=answered({k: v for k, v in row.items() if k != "messages"}))
    turns: list[Said] = turns_of(listed)
    if turns and turns[-1].turn.role == "assistant" and isinstance(listed, list):
        final = listed[-1]
        barred = "the file gives the answer weight 0" if final.get("weight") == 0 else ""
        answer = Answer(said=as_answer(turns_in(final, role="assistant")), barred=barred, finish=final.get("finish_reason"))
        return Call(messages=turns[:-1], answer=answer)
    return Call(messages=turns, answer=None)
