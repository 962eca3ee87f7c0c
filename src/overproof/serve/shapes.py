"""
The shapes of calls and answers: what a request asks for, whether a student can give it, and the bytes of its answer.

A request is read strictly (a key given twice could mean one thing here and another upstream) and never written again: what
goes upstream are the caller's own bytes.

Source: OpenAI API reference, "Chat Completions", "Completions" and "Streaming", as of 2026.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from overproof.errors import OverproofError
from overproof.importers.rows import BadRow, parse_object
from overproof.outputs import Classes, Fields, Output
from overproof.serve.asgi import error
from overproof.serve.schemas import checker

DEPTH_CAP = 32
BYTES_PER_TOKEN = 4
"""About what tokenizers make of English; used only to see whether an answer fits into `max_tokens`."""
DONE = b"data: [DONE]\n\n"
_ENCODE = msgspec.json.Encoder().encode
_NOTHING_BILLED = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


class BadCall(OverproofError):
    """
    A request that is answered with an error of ours, and goes nowhere.

    Args:
        what: what is wrong with it.
        next_action: what its sender should do.
        status: HTTP status of the answer.
        param: the part of the request that is wrong; empty where it is the whole.
    """

    def __init__(self, what: str, *, next_action: str, status: int = 400, param: str = "") -> None:
        super().__init__(what, next_action=next_action)
        self.status = status
        self.param = param

    @property
    def body(self) -> bytes:
        """The answer, in OpenAI's shape."""
        return error(self.status, f"{self.what}; {self.next_action}", param=self.param or None)


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One request to a model, as its sender wrote it."""

    path: str
    """That was called, without query."""
    chat: bool
    """False for the older completions, which take a prompt instead of messages."""
    body: dict[str, Any]
    """All of the request. Nothing but its being an object is sure."""

    @property
    def model(self) -> str:
        """The model asked for; empty where the request names none."""
        found = self.body.get("model")
        return found if isinstance(found, str) else ""

    @property
    def streamed(self) -> bool:
        """Whether the answer is wanted as events."""
        return bool(self.body.get("stream"))

    @property
    def usage_wanted(self) -> bool:
        """Whether the events end in one about tokens."""
        options = self.body.get("stream_options")
        return isinstance(options, dict) and bool(options.get("include_usage"))


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """A student's answer in the form that was asked for."""

    text: str
    """What to send; empty where there is a problem."""
    problem: str = ""
    """Why this answer can't be sent."""
    off_form: bool = False
    """Whether that is because it misses the asked form, and not because it would be cut."""


def read_call(path: str, raw: bytes) -> Call:
    """
    What a request says.

    Args:
        path: that was called, without query.
        raw: its body.

    Returns: the call. Whether it makes sense is for the model to say.
    Raises: BadCall for a body that is no JSON object, names a key twice or is nested deeper than `DEPTH_CAP`.
    """
    try:
        body = parse_object(raw, depth=DEPTH_CAP)
    except BadRow as problem:
        what = str(problem).replace("the line is", "it is")[:300]
        raise BadCall(f"the request's body can't be read: {what}", next_action="send one JSON object") from problem
    return Call(path=path, chat=path.endswith("/chat/completions"), body=body)


def _is(*values: Any) -> Callable[[Any], bool]:
    return lambda value: any(value == one and type(value) is type(one) for one in values)


def _empty(value: Any) -> bool:
    return not value


def _stops(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(one, str) for one in value))


def _positive(value: Any) -> bool:
    return type(value) is int and value > 0


_HARMLESS = frozenset({
    "model", "messages", "temperature", "top_p", "top_k", "min_p", "seed", "user", "metadata", "frequency_penalty", "presence_penalty",
    "repetition_penalty", "service_tier", "reasoning_effort", "verbosity", "prediction", "prompt_cache_key", "prompt_cache_retention",
    "safety_identifier", "parallel_tool_calls",
})  # fmt: skip
"""Parameters that change how a model comes to its answer, but not what an answer is."""
_ADMITTED: Mapping[str, Callable[[Any], bool]] = {
    "tools": _empty, "functions": _empty, "tool_choice": _is("none", "auto"), "function_call": _is("none", "auto"),
    "n": _is(1), "best_of": _is(1), "logprobs": _is(False), "top_logprobs": _is(0), "logit_bias": _empty, "modalities": _is(["text"]),
    "store": _is(False), "echo": _is(False), "suffix": _is(""), "prompt": lambda value: isinstance(value, str),
    "stream": lambda value: isinstance(value, bool), "stream_options": lambda value: isinstance(value, dict),
    "stop": _stops, "max_tokens": _positive, "max_completion_tokens": _positive, "response_format": lambda value: isinstance(value, dict),
}  # fmt: skip
"""Parameter to the values with which a student can still answer; of any other parameter nobody knows what it changes."""


def unsupported(call: Call, output: Output) -> str:
    """
    Why a student can't answer a call, whatever its answer would be.

    Args:
        call: the request.
        output: what the task's answers are.

    Returns: one phrase; empty where it can.
    """
    body = call.body
    for name, value in body.items():
        if name not in _HARMLESS and value is not None:
            admits = _ADMITTED.get(name)
            if admits is None or not admits(value):
                return f"asks for {name[:40]!r}"
    if body.keys() & {"messages", "prompt"} != {"messages" if call.chat else "prompt"}:
        return "asks with a prompt where messages belong, or with both"
    if body.get("stream_options") is not None and not call.streamed:
        return "asks for 'stream_options' without a stream"
    form = body.get("response_format")
    if form is None or form.get("type") == "text":
        return ""
    if form.get("type") == "json_object":
        return "asks for a JSON object, the answers are labels" if isinstance(output, Classes) else ""
    found = _schema_of(form)
    if found is None:
        return "asks for a response_format of an unknown type"
    check = checker(found)
    if check.problem:
        return f"asks for a schema that {check.problem}"
    if isinstance(output, Classes) and _wrapped(found, "") is None:
        return "asks for a schema in which a label has no one place"
    return ""


def content_of(call: Call, output: Output, value: str) -> Content:
    """
    A student's answer as the caller wants it: bare, or as JSON where the request has a schema.

    Args:
        call: a request of which `unsupported` says nothing.
        output: what the task's answers are.
        value: the student's canonical answer.

    Returns: what to send, or why this answer can't be sent: the schema refuses it, a stop text or `max_tokens` would cut it.
    """
    body, text = call.body, value
    form = body.get("response_format") or {}
    schema = _schema_of(form)
    if schema is not None and isinstance(output, Classes):
        text = _wrapped(schema, value) or ""
    if (schema is not None or not isinstance(output, Fields)) and (misses := off_form(call, text)):
        return Content(text="", problem=misses, off_form=True)
    stops = body.get("stop") or ()
    if any(stop and stop in text for stop in ((stops,) if isinstance(stops, str) else stops)):
        return Content(text="", problem="a stop text would cut the answer")
    limits = (body.get("max_tokens"), body.get("max_completion_tokens"))
    if any(limit is not None and tokens_of(text) > limit for limit in limits):
        return Content(text="", problem="max_tokens would cut the answer")
    return Content(text=text)


def off_form(call: Call, text: str) -> str:
    """
    How an answer, whoever gave it, misses the form that the call asks for.

    Args:
        call: the request.
        text: the answer's text.

    Returns: one phrase; empty where it fits, or no form was asked for. Nothing fits a schema that `unsupported` names.
    """
    form = call.body.get("response_format")
    if not isinstance(form, dict) or form.get("type") not in ("json_object", "json_schema"):
        return ""
    schema = _schema_of(form)
    try:
        said = msgspec.json.decode(text)
    except ValueError:
        return "the answer is no JSON"
    if schema is None:
        return "" if isinstance(said, dict) or form["type"] == "json_schema" else "the answer is no JSON object"
    return "" if checker(schema).admits(said) else "the answer doesn't fit the schema"


def _schema_of(form: Mapping[str, Any]) -> dict[str, Any] | None:
    named = form.get("json_schema")
    found = named.get("schema") if form.get("type") == "json_schema" and isinstance(named, dict) else None
    return found if isinstance(found, dict) else None


def _wrapped(schema: Mapping[str, Any], label: str) -> str | None:
    """A label as the one JSON value that a schema has a place for; `Classes.parse` reads these forms, and no others."""
    properties = schema.get("properties")
    if isinstance(properties, dict):
        return _ENCODE({next(iter(properties)): label}).decode() if len(properties) == 1 else None
    return _ENCODE(label).decode() if schema.get("type") == "string" or ("enum" in schema and "type" not in schema) else None


def tokens_of(text: str) -> int:
    """
    About how many tokens a text is.

    Args:
        text: any.

    Returns: its UTF-8 bytes by `BYTES_PER_TOKEN`, rounded up.
    """
    return -(-len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN)


def reply(call: Call, text: str, *, model: str, request_id: str, created: int) -> bytes:
    """
    A student's whole answer, as the API would give it.

    Args:
        call: the request.
        text: what `content_of` says.
        model: shown as the model that answered.
        request_id: shown as the answer's id.
        created: epoch seconds.

    Returns: JSON. Its usage is 0: no provider counted or billed a token.
    """
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "logprobs": None}
    if call.chat:
        choice["message"] = {"role": "assistant", "content": text, "refusal": None}
    else:
        choice["text"] = text
    return _ENCODE({
        "id": request_id, "object": "chat.completion" if call.chat else "text_completion", "created": created, "model": model,
        "choices": [choice], "usage": _NOTHING_BILLED,
    })  # fmt: skip


def stream(call: Call, text: str, *, model: str, request_id: str, created: int) -> list[bytes]:
    """
    A student's answer as server-sent events.

    Args:
        call: the request.
        text: what `content_of` says.
        model: shown as the model that answered.
        request_id: shown as the answer's id.
        created: epoch seconds.

    Returns: the events in order: role, text, end, usage where it was asked for, and `DONE`.
    """
    head: dict[str, Any] = {
        "id": request_id, "object": "chat.completion.chunk" if call.chat else "text_completion", "created": created, "model": model,
    }  # fmt: skip
    wanted = call.usage_wanted
    if wanted:
        head["usage"] = None  # all but the last event say that there is none yet
    parts: list[tuple[dict[str, Any], str | None]]
    if call.chat:
        opening = {"role": "assistant", "content": "", "refusal": None}
        parts = [({"delta": opening}, None), ({"delta": {"content": text}}, None), ({"delta": {}}, "stop")]
    else:
        parts = [({"text": text}, None), ({"text": ""}, "stop")]
    events = [
        _event(head | {"choices": [{"index": 0, **part, "logprobs": None, "finish_reason": finish}]}) for part, finish in parts
    ]
    if wanted:
        events.append(_event(head | {"choices": [], "usage": _NOTHING_BILLED}))
    return [*events, DONE]


def _event(value: Mapping[str, Any]) -> bytes:
    return b"data: " + _ENCODE(value) + b"\n\n"
