"""The OpenAPI document of the gateway, made from the table of endpoints."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Final

from overproof.data import REASONS, STAGES
from overproof.importers.rows import ID_CHARS
from overproof.serve.capture import COMMENT, LABEL
from overproof.serve.router import ROUTE_HEADER
from overproof.serve.routes import ENDPOINTS, Endpoint
from overproof.serve.tasks import ATTRIBUTE_HEADER

Schema = dict[str, Any]

_TEXT: Final[Schema] = {"type": "string"}
_MAYBE: Final[Schema] = {"type": ["string", "null"]}
_NUMBER: Final[Schema] = {"type": "integer", "minimum": 0}
_SAID: Final[Schema] = {"pattern": r"\S"}  # more than white space
_PERSON: Final[Schema] = {**_TEXT, **_SAID, "description": "The person who decides."}


def _object(required: Sequence[str] = (), **properties: Schema) -> Schema:
    return {"type": "object", "required": list(required), "properties": properties} if required else {"type": "object", "properties": properties}


def _list(of: Schema) -> Schema:
    return {"type": "array", "items": of}


_USAGE: Final = _object(prompt_tokens=_NUMBER, completion_tokens=_NUMBER, total_tokens=_NUMBER)
_MODEL: Final = _object(("id", "object"), id=_TEXT, object={"const": "model"}, created={"type": "integer"}, owned_by=_TEXT)
_TURN: Final = _object(("role",), role=_TEXT, content={"type": ["string", "array", "null"]})

SCHEMAS: Final[dict[str, Schema]] = {
    "ChatRequest": _object(
        ("model", "messages"), model={**_TEXT, "minLength": 1}, messages={**_list(_TURN), "minItems": 1}, stream={"type": ["boolean", "null"]},
        user={"type": ["string", "null"]}, metadata={"type": ["object", "null"]}, response_format={"type": ["object", "null"]},
    ),
    "ChatCompletion": _object(
        ("id", "object", "choices"), id=_TEXT, object=_TEXT, created={"type": "integer"}, model=_TEXT, choices=_list({"type": "object"}), usage=_USAGE
    ),
    "CompletionRequest": _object(
        ("model", "prompt"), model={**_TEXT, "minLength": 1}, prompt={"type": ["string", "array"]}, stream={"type": ["boolean", "null"]},
    ),
    "Completion": _object(("id", "object", "choices"), id=_TEXT, object=_TEXT, model=_TEXT, choices=_list({"type": "object"}), usage=_USAGE),
    "EmbeddingRequest": _object(("model", "input"), model=_TEXT, input={"type": ["string", "array"]}),
    "Embeddings": _object(("object", "data"), object=_TEXT, data=_list({"type": "object"}), model=_TEXT, usage=_USAGE),
    "Models": _object(("object", "data"), object={"const": "list"}, data=_list(_MODEL)),
    "Model": _MODEL,
    "State": _object(("status",), status={"enum": ["alive", "ready", "degraded", "starting"]}, problems=_list(_TEXT)),
    "Document": {"type": "object"},
    "Feedback": _object(
        ("request_id",), request_id={**_TEXT, "minLength": 1, "description": "`x-overproof-request-id` of the answer.", "maxLength": ID_CHARS},
        label={"type": ["string", "object", "null"], **_SAID, "maxLength": LABEL, "description": "The right answer, in the task's form."},
        rating={"type": ["number", "null"], "anyOf": [{"type": "null"}, {"minimum": 0, "maximum": 1}, {"const": -1}], "description": "In [0, 1], or -1."},
        comment={**_MAYBE, **_SAID, "maxLength": COMMENT},
    ) | {
        "additionalProperties": False,
        "anyOf": [_object((name,), **{name: {"type": kind}}) for name, kind in (("label", ["string", "object"]), ("rating", "number"), ("comment", "string"))],
    },
    "Taken": _object(("request_id",), request_id=_TEXT),
    "Status": _object(("tasks",), tasks=_list(_object(
        ("task", "stage", "release", "share", "since", "by", "why", "suspended", "next", "waits_for", "candidate", "bars", "loaded", "problems", "events",
         "shadow", "capture"),
        task=_TEXT, stage={"enum": list(STAGES)}, release={**_MAYBE, "description": "Of the stage; null where the teacher answers alone."},
        share={"type": "number", "minimum": 0, "maximum": 1}, since={"type": ["number", "null"], "description": "Seconds since 1970."}, by=_TEXT, why=_TEXT,
        suspended={"type": "object", "additionalProperties": _TEXT, "description": "Slice to the reason."},
        next={**_MAYBE, "description": "Stage that comes next."}, waits_for=_TEXT, candidate={**_MAYBE, "description": "A release that waits for its first stage."},
        bars=_list({"type": "object"}), loaded={**_MAYBE, "description": "The release in this process."}, problems=_list(_TEXT),
        events=_list(_object(("at", "what", "release", "why"), at=_TEXT, what=_TEXT, release=_TEXT, why=_TEXT)), shadow={"type": ["object", "null"]},
        capture=_object(("served", "captured", "dropped", "alarms"), served=_NUMBER, captured=_NUMBER, dropped=_NUMBER, alarms=_list(_TEXT)),
    ))),
    "Promotion": _object(
        ("task", "by"), task={**_TEXT, "minLength": 1}, by=_PERSON, to={**_MAYBE, "description": "A stage as [serve] stages names it; the next one where absent."},
        why={**_MAYBE, "description": "With `force` the reason, which is recorded."}, force={"type": "boolean", "description": "Without the evidence; never against an alarm."},
    ) | {"additionalProperties": False, "anyOf": [_object(force={"const": False}), _object(("why",), why={**_TEXT, **_SAID})]},
    "Rollback": _object(("task", "by"), task={**_TEXT, "minLength": 1}, by=_PERSON, why=_MAYBE) | {"additionalProperties": False},
    "Moved": _object(("task", "stage"), task=_TEXT, stage={"enum": list(STAGES)}),
    "Error": _object(("error",), error=_object(
        ("message", "type", "code"), message=_TEXT, type=_TEXT, param={"type": ["string", "null"]}, code={"type": ["string", "integer", "null"]},
    )),
}  # fmt: skip

PROBLEMS: Final[dict[int, str]] = {
    400: "Not a valid request.", 401: "No valid key.", 403: "The key lacks the scope, or the page's origin may not call.",
    404: "There is none of this name.", 405: "Not this method.", 408: "The body came too slowly.", 409: "Not now; the message says why.",
    413: "The body is too long.", 415: "The body is not of a type that is accepted.", 421: "The Host header is not served here.",
    429: "Too many requests of this caller are in flight.", 431: "The headers are too large.", 500: "The gateway failed.",
    502: "The upstream failed or can't be reached.", 503: "Neither teacher nor student can answer now; Retry-After says when to try again.",
    504: "The upstream took too long.",
}  # fmt: skip
_WAY_IN: Final = (400, 405, 421, 431, 500)
_BODY: Final = (408, 413, 415)
_KEYED: Final = (401, 403, 429)
_UPSTREAM: Final = (404, 502, 503, 504)
_ROUTED: Final = ("chat", "completions")

SERVED_HEADERS: Final = {
    "x-overproof-request-id": "Id of this request in the log; feedback names it.",
    "x-overproof-route": "student or teacher.",
    "x-overproof-reason": f"Why this route was taken: {', '.join(REASONS)}.",
    "x-overproof-task": "The task that was recognised.",
    "x-overproof-stage": "Where the task's rollout stood.",
    "x-overproof-release": "The release that the task has.",
    "x-overproof-slice": "The certification slice, where the student was asked.",
    "x-overproof-confidence": "The student's calibrated confidence, where it was asked.",
    "x-overproof-degraded": "true where the student stands in for a teacher that can't be reached.",
}
_ALWAYS: Final = ("x-overproof-request-id", "x-overproof-route", "x-overproof-reason")
ASKED_HEADERS: Final[dict[str, Schema]] = {
    ROUTE_HEADER.decode(): {
        "description": "Who is to answer. The student only where its certificate covers the request, and for a key with the scope promote.",
        "schema": {"enum": ["teacher", "student"]},
    },
    f"{ATTRIBUTE_HEADER.decode()}NAME": {
        "description": "Any number of these: attribute NAME of the request, by which slices are cut.",
        "schema": {"type": "string", "pattern": r"^[!-~]{1,200}$"},
    },
}


def openapi(endpoints: Sequence[Endpoint] = ENDPOINTS, *, keyed: bool = True) -> dict[str, Any]:
    """
    What is served, for programs.

    Args:
        endpoints: the table.
        keyed: whether callers need keys, which they do once there is one.

    Returns: an OpenAPI 3.1 document.
    """
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, keyed=keyed)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "overproof gateway", "version": version("overproof"),
            "description": "OpenAI's API in front of a teacher and of the students distilled from it. Paths of /v1 that are not named go to the upstream.",
        },
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "`overproof keys add` makes one; scopes: invoke, read, review, promote, admin."}},
        },
    }  # fmt: skip


def _operation(endpoint: Endpoint, *, keyed: bool) -> dict[str, Any]:
    parameters: list[Schema] = []
    operation: dict[str, Any] = {
        "operationId": f"{endpoint.method.lower()}_{endpoint.handler}_{endpoint.path.strip('/').replace('/', '_').strip('{}')}",
        "summary": endpoint.summary,
        "security": [] if endpoint.scope == "public" or not keyed else [{"key": [endpoint.scope]}],
        "responses": _responses(endpoint),
    }
    _, _, name = endpoint.path.partition("{")
    if name:
        parameters.append({
            "name": name.rstrip("}"), "in": "path", "required": True, "schema": {"type": "string", "minLength": 1, "pattern": r"^[A-Za-z0-9_][A-Za-z0-9_-]*$"},
        })  # fmt: skip
    if endpoint.handler in _ROUTED:
        parameters += [{"name": header, "in": "header", "required": False, **said} for header, said in ASKED_HEADERS.items()]
    if parameters:
        operation["parameters"] = parameters
    if endpoint.request:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ref(endpoint.request)}}}
    elif endpoint.method in ("POST", "PUT", "PATCH"):
        kinds = ("application/json", "multipart/form-data", "application/octet-stream")
        operation["requestBody"] = {"required": False, "content": {kind: {} for kind in kinds}}
    return operation


def _responses(endpoint: Endpoint) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": _ref(endpoint.reply)} if endpoint.reply else {}}
    if endpoint.reply == "text":
        content = {"text/plain": {"schema": _TEXT}}
    elif endpoint.any_body:
        content["*/*"] = {}
    if endpoint.streams:
        content["text/event-stream"] = {"schema": {"description": "`data: {...}` events, ended by `data: [DONE]`."}}
    good: dict[str, Any] = {"description": "The answer.", "content": content}
    if endpoint.handler in _ROUTED:
        good["headers"] = {name: {"description": text, "required": name in _ALWAYS, "schema": _TEXT} for name, text in SERVED_HEADERS.items()}
    codes = {
        *_WAY_IN, *endpoint.problems, *(_BODY if endpoint.method in ("POST", "PUT", "PATCH") else ()),
        *(_KEYED if endpoint.scope != "public" else (403,)), *(_UPSTREAM if endpoint.upstream else ()),
    }  # fmt: skip
    error = {"application/json": {"schema": _ref("Error")}}
    found: dict[str, Any] = {"200": good, **{str(code): {"description": PROBLEMS[code], "content": error} for code in sorted(codes)}}
    for code in ("429", "503"):
        if code in found:
            found[code]["headers"] = {"retry-after": {"description": "Seconds.", "schema": _NUMBER}}
    if "ready" in endpoint.handler:
        found["503"] = {"description": "Not ready; the problems say why.", "content": {"application/json": {"schema": _ref("State")}}}
    if endpoint.upstream:
        found["default"] = {"description": "Whatever the upstream said, as it came.", "content": {"application/json": {}, "*/*": {}}}
    return found


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}
