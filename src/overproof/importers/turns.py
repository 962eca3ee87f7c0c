"""Messages of every vendor as one kind of turn: chat messages, content blocks, message parts, serialised LangChain messages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from overproof.data import ToolCall, Turn
from overproof.importers.rows import BadRow, parse_object

ROLES: Mapping[str, str] = {
    "human": "user", "ai": "assistant", "model": "assistant", "developer": "system", "function": "tool", "aimessagechunk": "assistant",
    "humanmessage": "user", "aimessage": "assistant", "systemmessage": "system", "toolmessage": "tool", "functionmessage": "tool",
}  # fmt: skip
_PLAIN = frozenset({"system", "user", "assistant"})
_TEXTS = ("text", "input_text", "output_text", "summary_text")
_THOUGHTS = ("thinking", "redacted_thinking", "reasoning", "reasoning_content", "reasoningContent", "cachePoint")
"""Parts that are neither input nor answer; left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """A turn, and what of it could not be read as text."""

    turn: Turn
    unread: tuple[str, ...] = ()
    """Kinds of its parts that aren't text, for example "image_url"."""
    refused: bool = False
    """The message is the model's refusal."""

    @property
    def text(self) -> str:
        """Its text, all of it."""
        if self.unread:
            raise BadRow(f"message content has a part of type {self.unread[0]!r}; only text can be read")
        return self.turn.text


def opened(value: Any) -> Any:
    """
    A value that some logs keep as JSON text.

    Args:
        value: anything; text that begins with a bracket is parsed.

    Returns: what the text says, or the value as it is where it's no JSON.
    """
    if not isinstance(value, str) or value.lstrip()[:1] not in ("{", "["):
        return value
    try:
        return parse_object(b'{"it":' + value.encode("utf-8", "surrogatepass") + b"}")["it"]
    except BadRow:
        return value


def said(role: str, text: str) -> Said:
    """
    A plain turn.

    Args:
        role: who speaks.
        text: what.

    Returns: the turn.
    """
    return Said(turn=Turn(role=ROLES.get(role.casefold(), role), text=text))


def turns_of(messages: Any, *, role: str = "user") -> list[Said]:
    """
    The turns of a list of messages.

    Args:
        messages: messages of any vendor; text stands for one message; a list of one list is opened.
        role: of a message that doesn't say.

    Returns: in order; a message that carries results of tools beside text becomes several turns.
    Raises: BadRow for anything else.
    """
    messages = opened(messages)
    if isinstance(messages, str):
        return [said(role, messages)]
    if isinstance(messages, dict):
        messages = [messages]
    if isinstance(messages, list) and len(messages) == 1 and isinstance(messages[0], list):
        messages = messages[0]  # LangChain keeps batches of one
    if not isinstance(messages, list) or not all(isinstance(one, dict) for one in messages):
        raise BadRow("messages is not a list of objects")
    return [turn for one in messages for turn in turns_in(one, role=role)]


def turns_in(message: Mapping[str, Any], *, role: str = "user") -> list[Said]:
    """
    The turns of one message.

    Args:
        message: a message of any vendor.
        role: where the message doesn't say.

    Returns: results of tools first, then the message itself where it says anything.
    Raises: BadRow where its content is neither text nor parts.
    """
    if len(message) == 2 and message.get("role") in _PLAIN and isinstance(message.get("content"), str):
        return [Said(turn=Turn(role=message["role"], text=message["content"]))]  # nearly all messages of most logs
    message = _unwrapped(message)
    kind = str(message.get("type") or "")
    if kind in ("function_call", "function_call_output", "reasoning") and "role" not in message:  # items of the Responses API
        return _item(kind, message)
    named = str(message.get("role") or (kind if kind in ROLES or kind in ("system", "tool") else role))
    speaker = ROLES.get(named.casefold(), named.casefold())
    content = message["parts"] if "content" not in message and "parts" in message else message.get("content")
    reading = _Parts()
    reading.take(content)
    calls = [*reading.calls, *_calls_of(message)]
    refused = reading.refused or bool(message.get("refusal"))
    call_id = str(message.get("tool_call_id") or "")
    main = Said(
        turn=Turn(role=speaker, text="\n".join(reading.texts), calls=tuple(calls), call_id=call_id),
        unread=tuple(reading.unread),
        refused=refused,
    )
    bare = reading.results and not reading.texts and not calls and not reading.unread
    return [*reading.results, *([] if bare else [main])]


def _unwrapped(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """LangChain's messages inside their envelopes: {"id": [..., "HumanMessage"], "kwargs": {...}}, {"type", "data"}."""
    inner = message.get("kwargs")
    if isinstance(inner, dict):
        path = message.get("id")
        name = str(path[-1]) if isinstance(path, list) and path else ""
        return {"role": ROLES.get(name.casefold(), str(inner.get("role") or inner.get("type") or "user")), **_roleless(inner)}
    inner = message.get("data")
    if isinstance(inner, dict) and "content" in inner:
        return {"role": str(message.get("type") or "user"), **_roleless(inner)}
    inner = message.get("message")
    if isinstance(inner, dict) and "content" not in message and "role" not in message:
        return _unwrapped(inner)
    return message


def _roleless(inner: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in inner.items() if key not in ("role", "type")}


def _item(kind: str, item: Mapping[str, Any]) -> list[Said]:
    if kind == "function_call":
        call = _call(item.get("name"), item.get("arguments"), item.get("call_id") or item.get("id"))
        return [Said(turn=Turn(role="assistant", text="", calls=(call,)))]
    if kind == "reasoning":
        return []
    return [_result(item.get("output"), item.get("call_id"))]


def _call(name: Any, arguments: Any, identity: Any) -> ToolCall:
    text = arguments if isinstance(arguments, str) else json.dumps({} if arguments is None else arguments, ensure_ascii=False, default=str)
    return ToolCall(name=str(name or ""), arguments=text, id=str(identity or ""))


def _result(content: Any, identity: Any) -> Said:
    reading = _Parts()
    if isinstance(content, str | list) or content is None:
        try:
            reading.take(content)
        except BadRow:
            reading.texts = [json.dumps(content, ensure_ascii=False, default=str)]
    else:
        reading.texts = [json.dumps(content, ensure_ascii=False, default=str)]
    return Said(turn=Turn(role="tool", text="\n".join(reading.texts), call_id=str(identity or "")), unread=tuple(reading.unread))


def _calls_of(message: Mapping[str, Any]) -> list[ToolCall]:
    found: list[ToolCall] = []
    listed = message.get("tool_calls")
    extra = message.get("additional_kwargs")
    if not listed and isinstance(extra, dict):
        listed = extra.get("tool_calls")
    for one in listed if isinstance(listed, list) else []:
        if isinstance(one, dict):
            function = one.get("function") if isinstance(one.get("function"), dict) else one
            assert isinstance(function, dict)
            found.append(_call(function.get("name"), function.get("arguments", function.get("args")), one.get("id")))
    old = message.get("function_call")
    if isinstance(old, dict):
        found.append(_call(old.get("name"), old.get("arguments"), ""))
    return found


class _Parts:
    """Reads the content of one message."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.calls: list[ToolCall] = []
        self.results: list[Said] = []
        self.unread: list[str] = []
        self.refused = False

    def take(self, content: Any) -> None:
        if content is None:
            return
        if isinstance(content, str):
            self.texts.append(content)
            return
        if isinstance(content, dict):
            content = [content]
        if not isinstance(content, Sequence) or isinstance(content, bytes):
            raise BadRow(f"message content is a {type(content).__name__}, expected text or parts")
        for part in content:
            if isinstance(part, str):
                self.texts.append(part)
            elif isinstance(part, dict):
                self._part(part)
            else:
                self._odd(type(part).__name__)

    def _odd(self, kind: str) -> None:
        self.unread.append(kind)
        self.texts.append(f"[{kind}]")

    def _part(self, part: Mapping[str, Any]) -> None:
        kind = str(part.get("type") or next(iter(part), ""))
        inner = part.get(kind)
        fields = inner if isinstance(inner, dict) else part
        text = part.get("text", part.get("content") if kind == "text" else None)
        if kind in _TEXTS and isinstance(text, str):
            self.texts.append(text)
        elif kind in ("tool_use", "tool_call", "toolUse", "functionCall", "function_call"):
            arguments = next((fields[key] for key in ("input", "arguments", "args") if key in fields), None)
            self.calls.append(_call(fields.get("name"), arguments, fields.get("id") or fields.get("toolUseId")))
        elif kind in ("tool_result", "tool_call_response", "toolResult", "functionResponse"):
            content = next((fields[key] for key in ("content", "response", "result") if key in fields), None)
            self.results.append(_result(content, fields.get("tool_use_id") or fields.get("toolUseId") or fields.get("id")))
        elif kind == "refusal":
            self.refused = True
        elif kind not in _THOUGHTS:
            self._odd(kind)


def as_answer(turns: Sequence[Said]) -> Said | None:
    """
    One answer out of what a model sent.

    Args:
        turns: of one response.

    Returns: texts and tool calls of its assistant turns together; None where there is none.
    """
    own = [one for one in turns if one.turn.role != "tool"]
    if not own:
        return None
    if len(own) == 1 and own[0].turn.role == "assistant":
        return own[0]
    texts = [one.turn.text for one in own if one.turn.text]
    calls = tuple(call for one in own for call in one.turn.calls)
    turn = replace(own[0].turn, role="assistant", text="\n".join(texts), calls=calls)
    return Said(turn=turn, unread=tuple(kind for one in own for kind in one.unread), refused=any(one.refused for one in own))
