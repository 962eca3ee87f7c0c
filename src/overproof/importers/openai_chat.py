"""Chat logs: request and response pairs, input and output pairs, fine-tuning files; one JSON object per line."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overproof.data import Completeness, Completion, Request, Skipped, TrafficRecord
from overproof.importers import ColumnMapping
from overproof.importers.rows import (
    ATTRIBUTE_CHARS,
    BadRow,
    ColumnReader,
    finish_of,
    first_object,
    lines,
    made_id,
    moment,
    number,
    parse_object,
    scalar_text,
    skipped,
)

HISTORY = "history"
"""An input field of this name takes the turns before the last user message; else they are only counted."""
CALL_KEYS = frozenset({"request", "response", "input", "output", "messages", "tools", "functions"})
PAIRS = (("request", "response"), ("input", "output"))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Call:
    """One chat call, whatever the log's shape."""

    body: Mapping[str, Any]
    """The chat request: messages, model, …"""
    messages: Sequence[Mapping[str, Any]]
    """Without the answer."""
    answer: Mapping[str, Any] | None
    """A chat completion object, or a bare message; None where the log holds requests only."""


class OpenAIChat:
    """
    Logs of an OpenAI-compatible chat API.

    The variable part of a call becomes the input fields: taken apart by the task's prompt where that has places for
    fields, else the last user message. A call whose prompt is another task's is skipped with that reason.
    """

    def sniff(self, head: bytes, name: str) -> float:
        """How sure: the keys of the first object; see `Importer.sniff`."""
        del name
        row = first_object(head)
        if row is None:  # the first line may be longer than the head
            start = head[:400].lstrip()
            return 0.75 if start.startswith(b"{") and b'"messages"' in start else 0.0
        try:
            messages = _call_of(row).messages
        except BadRow:
            return 0.0
        bare = all(not isinstance(row.get(key), dict | list) for key in CALL_KEYS)
        return 0.5 if bare or not messages else 0.95  # {"input": "text", …} is a plain table as well

    def read(self, path: Path, mapping: ColumnMapping) -> Iterator[TrafficRecord | Skipped]:
        """The calls; see `Importer.read`."""
        reader = ColumnReader(mapping=mapping, source=f"{path.name} (openai_chat.v1)")
        taker = _taker(mapping)
        for line in lines(path):
            if isinstance(line, Skipped):
                yield line
                continue
            try:
                record: TrafficRecord | Skipped = _record(parse_object(line.data), line.number, reader, taker)
            except BadRow as error:
                record = skipped(path, line.number, str(error), line.data)
            yield record
        reader.check(path)


def _record(row: Mapping[str, Any], line: int, reader: ColumnReader, take: _Take) -> TrafficRecord:
    reader.rows += 1
    call = _call_of(row)
    fields = take(call.messages)
    answer = call.answer or {}
    at = reader.column("at", row)
    at = moment(answer.get("created") if at is None else at)
    identity = reader.column("id", row)
    identity = answer.get("id") if identity is None else identity
    session = reader.column("session", row)
    return TrafficRecord(
        request=Request(
            id=scalar_text(identity) or made_id(fields, at, line),
            fields=fields,
            at=at,
            attributes=_attributes(row, call, reader),
            session=scalar_text(call.body.get("user") if session is None else session) or None,
        ),
        completion=None if call.answer is None else _completion(row, call, reader),
        gold=reader.gold(row),
        source=reader.source,
    )


def _call_of(row: Mapping[str, Any]) -> _Call:
    for asked, said in PAIRS:
        if asked not in row:
            continue
        body = _opened(row[asked])
        body = {"messages": body} if isinstance(body, list) else body
        if isinstance(body, str):
            body = {"messages": [{"role": "user", "content": body}]}
        if isinstance(body, dict) and "messages" in body:
            return _Call(body=body, messages=_messages(body["messages"]), answer=_answer_of(_opened(row.get(said))))
    if "messages" in row:
        messages = _messages(row["messages"])
        last = messages[-1] if messages else {}
        if last.get("role") == "assistant":
            return _Call(body=row, messages=messages[:-1], answer=last)
        return _Call(body=row, messages=messages, answer=None)
    raise BadRow(f"no chat call: expected request and response, input and output, or messages; keys: {sorted(row)!r}"[:500])


def _opened(value: Any) -> Any:
    """Some logs keep request and response as JSON text."""
    if isinstance(value, str) and value.lstrip()[:1] == "{" and ('"messages"' in value or '"choices"' in value):
        return parse_object(value.encode("utf-8", "surrogatepass"))
    return value


def _answer_of(value: Any) -> Mapping[str, Any] | None:
    if value is None or isinstance(value, dict):
        return value
    if isinstance(value, str):
        return {"role": "assistant", "content": value}
    raise BadRow(f"the answer is a {type(value).__name__}, expected a chat completion, a message or text")


def _messages(value: Any) -> list[Mapping[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise BadRow("messages is not a list of objects")
    return value


def _text(message: Mapping[str, Any]) -> str:
    """The text of a message; its content is text, null, or a list of parts."""
    content = message.get("content")
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise BadRow(f"message content is a {type(content).__name__}, expected text or parts")
    texts = []
    for part in content:
        text = part.get("text") if isinstance(part, dict) else None
        if not isinstance(text, str):
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            raise BadRow(f"message content has a part of type {kind!r}; only text can be read")
        texts.append(text)
    return "\n".join(texts)


def _completion(row: Mapping[str, Any], call: _Call, reader: ColumnReader) -> Completion:
    answer = call.answer or {}
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    message = choice.get("message", {}) if choices is not None else answer
    message = message if isinstance(message, dict) else {}
    usage = answer.get("usage") if isinstance(answer.get("usage"), dict) else {}
    reason, finish = _verdict(answer, choice, message, said=choices is not None)
    milliseconds = number(reader.column("latency_ms", row), "latency_ms")
    seconds = number(reader.column("latency_s", row), "latency_s")
    tokens_in, tokens_out = (
        number(usage.get(key) if usage else reader.column(role, row), role)
        for key, role in (("prompt_tokens", "tokens_in"), ("completion_tokens", "tokens_out"))
    )
    model = answer.get("model") or call.body.get("model") or reader.column("model", row)
    return Completion(
        text=_text(message),
        value=None,
        model=scalar_text(model) or "",
        finish=finish,
        tokens_in=None if tokens_in is None else int(tokens_in),
        tokens_out=None if tokens_out is None else int(tokens_out),
        latency_s=seconds if milliseconds is None else milliseconds / 1_000,
        cost_usd=number(reader.column("cost_usd", row), "cost_usd"),
        reason=reason,
    )


def _verdict(
    answer: Mapping[str, Any], choice: Mapping[str, Any], message: Mapping[str, Any], *, said: bool
) -> tuple[str | None, Completeness]:
    """Why the answer can't be a label, or None; and how it ended. `said`: the log holds whole completions."""
    if answer.get("error") is not None:
        return "the call failed", "error"
    # A stored completion whose finish_reason is null is a stream that was cut; a bare message just doesn't say.
    word = choice.get("finish_reason")
    finish: Completeness = "error" if said and word is None else finish_of(word)
    if message.get("refusal"):
        return "the model refused", "filtered"
    if message.get("tool_calls") or message.get("function_call"):
        return "the model called a tool instead of answering", "error"
    if message.get("weight") == 0:
        return "the file gives the answer weight 0", finish
    if finish not in ("stop", "unknown"):
        return f"finish_reason is {word!r}, not 'stop'"[:200], finish
    return None if _text(message).strip() else "the answer is empty", finish


def _attributes(row: Mapping[str, Any], call: _Call, reader: ColumnReader) -> dict[str, str]:
    found: dict[str, str] = {}
    if reader.mapping.attributes is None:
        for nested in (call.body.get("metadata"), row.get("metadata"), row.get("tags")):
            if isinstance(nested, dict):
                pairs = [(str(name), scalar_text(value)) for name, value in nested.items()]
                found |= {name: text for name, text in pairs if text and len(text) <= ATTRIBUTE_CHARS}
    if system := _system(call.messages):
        found["system_prompt"] = _digest(system)
    found["turns"] = str(sum(one.get("role") == "user" for one in call.messages))
    if reader.mapping.attributes is None:
        row = {name: value for name, value in row.items() if name not in CALL_KEYS}
    return found | reader.attributes(row)


def _system(messages: Sequence[Mapping[str, Any]]) -> str:
    return "\n".join(_text(one) for one in messages if one.get("role") in ("system", "developer"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:12]


def system_prompt_of(path: Path, digest: str) -> str | None:
    """
    The system prompt behind the attribute of a row, which holds its digest only.

    Args:
        path: a chat log; any other file has none.
        digest: the attribute "system_prompt".

    Returns: the text as the log has it, not redacted; None where no call of the file has it.
    """
    for line in lines(path):
        if not isinstance(line, Skipped):
            try:
                text = _system(_call_of(parse_object(line.data)).messages)
            except BadRow:
                continue
            if text and _digest(text) == digest:
                return text
    return None


_Take = Callable[[Sequence[Mapping[str, Any]]], dict[str, str]]


def _taker(mapping: ColumnMapping) -> _Take:
    """How the messages of a call become input fields: the inverse of how a teacher's prompt is filled."""
    names = [name for name in mapping.fields if name != HISTORY]
    places = [name for name in names if "{" + name + "}" in mapping.prompt]
    rest = [name for name in names if name not in places]
    form = _Form.of(mapping.prompt, places, open_end=bool(rest)) if places else None

    def take(messages: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        last = max((i for i, one in enumerate(messages) if one.get("role") == "user"), default=None)
        if last is None:
            raise BadRow("no user message")
        text, found = _text(messages[last]), dict[str, str]()
        if form is not None:
            found, text = form.apart(text)
        if rest:
            found |= _unjoined(text, rest)
        if HISTORY in mapping.fields:
            earlier = [one for one in messages[:last] if one.get("role") not in ("system", "developer")]
            found[HISTORY] = "\n".join(f"{one.get('role')}: {_text(one)}" for one in earlier)
        return {name: found[name] for name in mapping.fields}

    return take


@dataclass(frozen=True, kw_only=True, slots=True)
class _Form:
    """A prompt with places, cut into what is fixed and what varies."""

    fixed: tuple[str, ...]
    """One more than places: before the first, between, after the last."""
    places: tuple[str, ...]
    open_end: bool
    """Whether further fields follow the filled prompt after a blank line."""

    @classmethod
    def of(cls, prompt: str, names: Sequence[str], *, open_end: bool) -> _Form:
        pieces = re.split("{(" + "|".join(map(re.escape, names)) + ")}", prompt.strip())
        return cls(fixed=tuple(pieces[::2]), places=tuple(pieces[1::2]), open_end=open_end)

    def apart(self, text: str) -> tuple[dict[str, str], str]:
        """The fields of a filled prompt and what follows it; one pass, since callers choose the text."""
        text = text.strip()
        found: dict[str, str] = {}
        fits, start = text.startswith(self.fixed[0]), len(self.fixed[0])
        for i, name in enumerate(self.places):
            fixed = self.fixed[i + 1]
            if i + 1 < len(self.places):
                end = text.find(fixed, start)
            elif self.open_end:
                end = text.find(fixed + "\n\n", start)
            else:
                end = len(text) - len(fixed) if text.endswith(fixed) else -1
            value = text[start:end]
            fits = fits and end >= start and found.setdefault(name, value) == value
            start = end + len(fixed)
        if not fits:
            raise BadRow("the user message doesn't fit the task's prompt: another task's call?")
        return found, text[start + 2 :]


def _unjoined(text: str, names: Sequence[str]) -> dict[str, str]:
    """Several fields in one message: a JSON object with their names, else parts between blank lines, the last open."""
    if len(names) == 1:
        return {names[0]: text}
    if text.lstrip().startswith("{"):
        try:
            value = json.loads(text)
        except ValueError:
            value = None
        if isinstance(value, dict) and all(isinstance(value.get(name), str) for name in names):
            return {name: value[name] for name in names}
    parts = text.split("\n\n", len(names) - 1)
    if len(parts) != len(names):
        raise BadRow(f"the user message has {len(parts)} parts between blank lines, expected {list(names)!r}")
    return dict(zip(names, parts, strict=True))
