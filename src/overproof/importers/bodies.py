"""Requests and responses of the providers' own APIs, in whatever log they lie: chat, messages, responses, Converse, Titan, Gemini."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from overproof.data import Completeness
from overproof.importers.rows import BadRow, finish_of
from overproof.importers.turns import Said, as_answer, opened, said, turns_in, turns_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a response says; figures are as found and checked by whoever makes the record."""

    said: Said | None
    """None where the response holds no message."""
    finish: Any = None
    """The log's own word for how it ended."""
    told: bool = False
    """Whether the log says how answers end, so that a missing word means a stream that was cut."""
    failed: str = ""
    """Why the call failed; empty where it didn't."""
    barred: str = ""
    """Another reason why the answer can't be a label."""
    id: Any = None
    at: Any = None
    model: Any = None
    tokens_in: Any = None
    tokens_out: Any = None
    fingerprint: Any = None
    """The provider's mark of the system that answered."""

    def verdict(self) -> Verdict:
        """Whether the answer may become a label."""
        if self.failed:
            return Verdict(reason=self.failed, finish="error")
        finish: Completeness = "error" if self.told and not self.finish else finish_of(self.finish)
        if self.said is not None and self.said.refused:
            return Verdict(reason="the model refused", finish="filtered")
        if self.said is not None and self.said.turn.calls:
            return Verdict(reason="the model called a tool instead of answering", finish="error")
        if self.barred:
            return Verdict(reason=self.barred, finish=finish)
        if finish not in ("stop", "unknown"):
            return Verdict(reason=f"finish_reason is {self.finish!r}, not 'stop'"[:200], finish=finish)
        if self.said is not None and self.said.unread:
            return Verdict(reason=f"the answer has a part of type {self.said.unread[0]!r}"[:200], finish=finish)
        empty = self.said is None or not self.said.turn.text.strip()
        return Verdict(reason="the answer is empty" if empty else None, finish=finish)


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """How an answer ended, and why it can't be a label."""

    reason: str | None
    finish: Completeness


def asked(body: Mapping[str, Any]) -> list[Said] | None:
    """
    The turns that a request sends.

    Args:
        body: a request of a provider's API.

    Returns: system prompt first; None where the body is no such request.
    Raises: BadRow where its messages can't be read.
    """
    system = body.get("system", body.get("instructions", body.get("systemInstruction", body.get("system_instruction"))))
    first = [replace(one, turn=replace(one.turn, role="system")) for one in turns_of(_blocks(system), role="system")] if system else []
    for key in ("messages", "contents"):
        if key in body:
            if isinstance(opened(body[key]), str):
                raise BadRow(f"{key} is not a list of objects")
            return first + turns_of(body[key])
    if "input" in body and isinstance(opened(body["input"]), str | list):
        return first + turns_of(body["input"])
    for key in ("prompt", "inputText"):
        if isinstance(body.get(key), str):
            return [*first, said("user", body[key])]
    return None


def _blocks(system: Any) -> Any:
    """A system prompt given as blocks is one message, not several."""
    system = opened(system)
    return {"role": "system", "content": system} if isinstance(system, list) else system


def answered(body: Any) -> Answer | None:
    """
    What a response says.

    Args:
        body: a response of a provider's API, a bare message, or text.

    Returns: the answer; None where there is none.
    Raises: BadRow for a body that is nothing of the kind.
    """
    body = opened(body)
    if body is None:
        return None
    if isinstance(body, str):
        return Answer(said=said("assistant", body))
    if isinstance(body, list) and len(body) == 1 and isinstance(body[0], dict):
        body = body[0]
    if not isinstance(body, dict):
        raise BadRow(f"the answer is a {type(body).__name__}, expected a chat completion, a message or text")
    usage = body.get("usage") or body.get("usageMetadata")
    common = _figures(body, usage if isinstance(usage, dict) else {})
    if body.get("error") is not None:
        return replace(common, failed="the call failed")
    for shape in (_choices, _converse, _responses, _titan, _gemini):
        if (found := shape(body, common)) is not None:
            return found
    if "stop_reason" in body or body.get("type") == "message":
        return replace(common, said=as_answer(turns_in(body, role="assistant")), finish=body.get("stop_reason"), told=True)
    barred = "the file gives the answer weight 0" if body.get("weight") == 0 else ""
    return replace(
        common, said=as_answer(turns_in(body, role="assistant")), finish=body.get("finish_reason"), barred=barred
    )


def _figures(body: Mapping[str, Any], usage: Mapping[str, Any]) -> Answer:
    tokens_in = _first(usage, "prompt_tokens", "input_tokens", "inputTokens", "promptTokenCount")
    cached = [usage.get(key) for key in ("cache_read_input_tokens", "cache_creation_input_tokens")]
    if isinstance(tokens_in, int) and "input_tokens" in usage:  # Anthropic counts cached tokens beside, others inside
        tokens_in += sum(one for one in cached if isinstance(one, int))
    return Answer(
        said=None,
        fingerprint=body.get("system_fingerprint"),
        id=body.get("id"),
        at=_first(body, "created", "created_at", "createdAt"),
        model=_first(body, "model", "modelVersion"),
        tokens_in=tokens_in,
        tokens_out=_first(usage, "completion_tokens", "output_tokens", "outputTokens", "candidatesTokenCount"),
    )


def _first(body: Mapping[str, Any], *keys: str) -> Any:
    return next((body[key] for key in keys if body.get(key) is not None), None)


def _choices(body: Mapping[str, Any], common: Answer) -> Answer | None:
    if "choices" not in body:
        return None
    listed = body["choices"]
    choice = listed[0] if isinstance(listed, list) and listed and isinstance(listed[0], dict) else {}
    message = choice.get("message")
    if not isinstance(message, dict):
        message = {"content": choice.get("text")}
    return replace(
        common, said=as_answer(turns_in(message, role="assistant")), finish=choice.get("finish_reason"), told=True
    )


def _converse(body: Mapping[str, Any], common: Answer) -> Answer | None:
    output = body.get("output")
    if not isinstance(output, dict) or not isinstance(output.get("message"), dict):
        return None
    return replace(
        common, said=as_answer(turns_in(output["message"], role="assistant")), finish=body.get("stopReason"), told=True
    )


def _responses(body: Mapping[str, Any], common: Answer) -> Answer | None:
    output = body.get("output")
    if not isinstance(output, list):
        return None
    details = body.get("incomplete_details")
    why = details.get("reason") if isinstance(details, dict) else None
    return replace(common, said=as_answer(turns_of(output, role="assistant")), finish=why or body.get("status"), told=True)


def _titan(body: Mapping[str, Any], common: Answer) -> Answer | None:
    results = body.get("results")
    if isinstance(results, list) and results and isinstance(results[0], dict) and "outputText" in results[0]:
        first = results[0]
        return replace(
            common, said=said("assistant", str(first["outputText"])), finish=first.get("completionReason"), told=True,
            tokens_in=body.get("inputTextTokenCount"), tokens_out=first.get("tokenCount"),
        )  # fmt: skip
    if isinstance(body.get("generation"), str):  # Llama on Bedrock
        return replace(
            common, said=said("assistant", body["generation"]), finish=body.get("stop_reason"), told=True,
            tokens_in=body.get("prompt_token_count"), tokens_out=body.get("generation_token_count"),
        )  # fmt: skip
    return None


def _gemini(body: Mapping[str, Any], common: Answer) -> Answer | None:
    listed = body.get("candidates")
    if not isinstance(listed, list):
        return None
    first = listed[0] if listed and isinstance(listed[0], dict) else {}
    content = first.get("content")
    turns = turns_in(content, role="assistant") if isinstance(content, dict) else []
    return replace(common, said=as_answer(turns), finish=first.get("finishReason"), told=True)


def streamed(chunks: Sequence[Any]) -> dict[str, Any]:
    """
    The message that a stream of events adds up to.

    Args:
        chunks: events of Anthropic's messages API, of Converse, or chat completion chunks, in order.

    Returns: a response as if it had not been streamed; without a reason to end where the stream was cut.
    Raises: BadRow where no event is known.
    """
    texts: list[str] = []
    finish, usage, known, tool = None, dict[str, Any](), False, False
    for one in chunks:
        if not isinstance(one, dict):
            continue
        delta = one.get("delta")
        choice = one["choices"][0] if isinstance(one.get("choices"), list) and one["choices"] else None
        for part in (delta, _dig(one, "contentBlockDelta", "delta"), _dig(choice, "delta")):
            if isinstance(part, dict):
                known = True
                texts += [part[key] for key in ("text", "content") if isinstance(part.get(key), str)]
                finish = part.get("stop_reason") or finish
                tool = tool or "partial_json" in part or "toolUse" in part or bool(part.get("tool_calls"))
        finish = _dig(one, "messageStop", "stopReason") or _dig(choice, "finish_reason") or finish
        for more in (one.get("usage"), _dig(one, "message", "usage"), _dig(one, "metadata", "usage")):
            usage |= {k: v for k, v in more.items() if v is not None} if isinstance(more, dict) else {}
    if not known:
        raise BadRow("the streamed answer has no event of a known kind")
    calls = [{"function": {"name": "", "arguments": "{}"}}] if tool else None
    message = {"role": "assistant", "content": "".join(texts), "tool_calls": calls}
    return {"choices": [{"message": message, "finish_reason": finish}], "usage": usage}


def _dig(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
