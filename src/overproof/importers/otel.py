"""
OpenTelemetry spans of model calls, as OTLP JSON (one export request per line, an array, or one document).

Source: OpenTelemetry "Semantic conventions for generative AI" 1.41 (spans, events, gen-ai-input-messages.json) and up to
1.36 (gen_ai.user.message, gen_ai.choice); OpenLLMetry's gen_ai.prompt.N and gen_ai.completion.N; OpenInference's
llm.input_messages.N; "OTLP/HTTP JSON encoding".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from overproof.importers import ColumnMapping
from overproof.importers.bodies import Answer
from overproof.importers.calls import Call, CallImporter, Passed
from overproof.importers.objects import first_row
from overproof.importers.rows import BadRow, scalar_text
from overproof.importers.turns import Said, as_answer, opened, turns_in, turns_of

OPERATIONS = ("chat", "text_completion", "generate_content")
DETAILS = "gen_ai.client.inference.operation.details"
_NUMBERED = re.compile(r"(gen_ai\.prompt|gen_ai\.completion|llm\.input_messages|llm\.output_messages)\.(\d+)\.(?:message\.)?(.+)")
_QUESTIONS = ("gen_ai.prompt", "llm.input_messages")
_READ = (
    "gen_ai.", "llm.", "input.", "output.", "session.id", "user.id", "openinference.span.kind", "server.", "error.", "traceloop.",
)  # fmt: skip


class OtelSpans(CallImporter):
    """Spans with the content of their messages; spans without it are named, not guessed."""

    name = "otel.v1"
    known_by = "OTLP JSON with resourceSpans"
    under = ("resourceSpans", "resource_spans")
    understood = frozenset({"resource", "scopeSpans", "scope_spans", "instrumentationLibrarySpans", "schemaUrl"})

    def sniff(self, head: bytes, name: str) -> float:
        """How sure: spans below resources; see `Importer.sniff`."""
        row = first_row(head, name, self.under)
        marked = b'"resourceSpans"' in head[:2000] or b'"resource_spans"' in head[:2000]
        return 0.98 if "scopeSpans" in row or "scope_spans" in row else 0.9 if marked else 0.0

    def calls(self, row: Mapping[str, Any], mapping: ColumnMapping) -> Iterator[Call | Passed | BadRow]:
        """Every model call below a resource; see `CallImporter.calls`."""
        del mapping
        resource = _attributes(row.get("resource"))
        for scope in row.get("scopeSpans") or row.get("scope_spans") or row.get("instrumentationLibrarySpans") or ():
            for span in scope.get("spans", ()) if isinstance(scope, Mapping) else ():
                try:
                    yield self._call(span, resource)
                except BadRow as error:
                    yield BadRow(f"span {span.get('spanId', span.get('span_id'))!r}: {error}")

    def _call(self, span: Any, resource: Mapping[str, Any]) -> Call | Passed:
        if not isinstance(span, Mapping):
            raise BadRow("a span is no object")
        found = _attributes(span)
        if not _is_call(found):
            return Passed(why="a span that is no model call")
        events = [(str(one.get("name")), _attributes(one)) for one in span.get("events") or () if isinstance(one, Mapping)]
        for name, more in events:
            if name == DETAILS:
                found = {**more, **found}
        for name in found:
            if not name.startswith(_READ):
                self.notes.ignored[name] += 1
        talk = _conversation(found, events)
        answer: Answer | None = None
        status = span.get("status")
        failed = isinstance(status, Mapping) and status.get("code") in (2, "STATUS_CODE_ERROR")
        why = f"the span ended in an error: {found.get('error.type') or 'unnamed'}" if failed or found.get("error.type") else ""
        start, end = (_nanoseconds(span, key) for key in ("startTimeUnixNano", "endTimeUnixNano"))
        if talk.said is not None or why:
            answer = Answer(
                said=talk.said, finish=_finish(found) or talk.finish, failed=why[:200], tokens_in=_first(found, *_TOKENS_IN),
                tokens_out=_first(found, *_TOKENS_OUT), model=_first(found, "gen_ai.response.model", "llm.response.model_name"),
            )  # fmt: skip
        return Call(
            messages=talk.asked,
            answer=answer,
            id=_first(found, "gen_ai.response.id") or span.get("spanId") or span.get("span_id"),
            at=start,
            session=_first(found, "gen_ai.conversation.id", "session.id", "traceloop.association.properties.session_id", "user.id"),
            model=_first(found, "gen_ai.request.model", "llm.model_name", "llm.request.model_name"),
            latency_s=(end - start) / 1e9 if start and end and end >= start else None,
            cost_usd=_first(found, "llm.cost.total", "gen_ai.usage.cost"),
            attributes={"service": resource.get("service.name"), "environment": resource.get("deployment.environment.name")},
        )


_TOKENS_IN = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.usage.prompt_tokens", "llm.token_count.prompt")
_TOKENS_OUT = (
    "gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.usage.completion_tokens", "llm.token_count.completion",
)  # fmt: skip


def _first(found: Mapping[str, Any], *names: str) -> Any:
    return next((found[name] for name in names if found.get(name) is not None), None)


def _nanoseconds(span: Mapping[str, Any], name: str) -> int | None:
    other = re.sub("(?<!^)(?=[A-Z])", "_", name).lower()
    value = scalar_text(span.get(name, span.get(other)))
    if value is None:
        return None
    if not value.isdigit():
        raise BadRow(f"{name} is {value!r}, expected nanoseconds"[:200])
    return int(value)


def _is_call(found: Mapping[str, Any]) -> bool:
    kind = found.get("openinference.span.kind")
    operation = found.get("gen_ai.operation.name") or found.get("llm.request.type")
    if kind is not None:
        return bool(kind == "LLM")
    if operation is not None:
        return operation in (*OPERATIONS, "completion")
    return any(name.startswith(("gen_ai.prompt.", "gen_ai.request.", "llm.input_messages.")) for name in found)


def _attributes(holder: Any) -> dict[str, Any]:
    listed = holder.get("attributes") if isinstance(holder, Mapping) else None
    if isinstance(listed, Mapping):
        return dict(listed)
    pairs = [(one.get("key"), _value(one.get("value"))) for one in listed or () if isinstance(one, Mapping)]
    return {str(key): value for key, value in pairs}


def _value(value: Any) -> Any:
    """OTLP wraps each value in its type: {"stringValue": ...}, {"intValue": "12"}, {"arrayValue": {"values": [...]}}."""
    if not isinstance(value, Mapping) or len(value) != 1:
        return value
    ((kind, inner),) = value.items()
    if kind == "intValue":
        return int(inner) if str(inner).lstrip("-").isdigit() else inner
    if kind == "arrayValue":
        return [_value(one) for one in (inner or {}).get("values", ())]
    if kind == "kvlistValue":
        return {str(one.get("key")): _value(one.get("value")) for one in (inner or {}).get("values", ())}
    return inner


@dataclass(frozen=True, kw_only=True, slots=True)
class _Talk:
    asked: list[Said]
    said: Said | None
    finish: Any = None


def _conversation(found: Mapping[str, Any], events: list[tuple[str, dict[str, Any]]]) -> _Talk:
    system = opened(found.get("gen_ai.system_instructions"))
    first = turns_in({"role": "system", "parts": system}) if isinstance(system, list) else turns_of(system, role="system") if system else []
    asked, said = opened(found.get("gen_ai.input.messages")), opened(found.get("gen_ai.output.messages"))
    if asked is not None:
        return _Talk(asked=first + turns_of(asked), said=as_answer(turns_of(said, role="assistant")) if said is not None else None)
    numbered = _numbered(found)
    if any(numbered.values()):
        question = [turn for key in _QUESTIONS for one in numbered.get(key, []) for turn in turns_in(one)]
        reply = [turn for key, list_ in numbered.items() if key not in _QUESTIONS for one in list_ for turn in turns_in(one, role="assistant")]
        return _Talk(asked=first + question, said=as_answer(reply))
    old = [(name, more) for name, more in events if name.startswith("gen_ai.")]
    question, reply, finish = [], [], None
    for name, more in old:
        body = {key.removeprefix("gen_ai.event."): opened(value) for key, value in more.items()}
        if name == "gen_ai.choice":
            finish = body.get("finish_reason") or finish
            message = body.get("message")
            reply += turns_in(message if isinstance(message, Mapping) else body, role="assistant")
        elif name.endswith(".message"):
            question += turns_in(body, role=name.split(".")[1])
        elif name == "gen_ai.content.prompt":
            question += turns_of(more.get("gen_ai.prompt"))
        elif name == "gen_ai.content.completion":
            reply += turns_of(more.get("gen_ai.completion"), role="assistant")
    whole = _first(found, "gen_ai.prompt", "input.value")
    if not question and whole is not None:
        question = turns_of(_messages_in(whole))
        ended = _first(found, "gen_ai.completion", "output.value")
        reply = turns_of(_messages_in(ended), role="assistant") if ended is not None else []
    if not question:
        raise BadRow("the span holds no content; message content is opt-in where the spans are made")
    return _Talk(asked=first + question, said=as_answer(reply), finish=finish)


def _messages_in(value: Any) -> Any:
    value = opened(value)
    return value["messages"] if isinstance(value, Mapping) and "messages" in value else value


def _numbered(found: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Flattened lists: gen_ai.prompt.0.role, llm.input_messages.0.message.content, … as messages again."""
    gathered: dict[str, dict[int, dict[str, Any]]] = {}
    for name, value in found.items():
        if at := _NUMBERED.fullmatch(name):
            key = at[3]
            one = gathered.setdefault(at[1], {}).setdefault(int(at[2]), {})
            if key.startswith("tool_calls."):
                _, place, *path = key.split(".")
                call = one.setdefault("tool_calls", {}).setdefault(place, {})
                call[path[-1]] = value
            elif key.startswith("contents.") and key.endswith(".text"):
                one.setdefault("content", []).append({"type": "text", "text": value})
            else:
                one[key] = opened(value) if key == "content" else value
    for list_ in gathered.values():
        for one in list_.values():
            if isinstance(one.get("tool_calls"), dict):
                one["tool_calls"] = [one["tool_calls"][place] for place in sorted(one["tool_calls"])]
    return {key: [list_[i] for i in sorted(list_)] for key, list_ in gathered.items()}


def _finish(found: Mapping[str, Any]) -> Any:
    listed = opened(found.get("gen_ai.response.finish_reasons"))
    if isinstance(listed, list) and listed:
        return listed[0]
    said = opened(found.get("gen_ai.output.messages"))
    if isinstance(said, list) and said and isinstance(said[0], Mapping) and said[0].get("finish_reason"):
        return said[0]["finish_reason"]
    return _first(found, "gen_ai.completion.0.finish_reason", "llm.finish_reason")
