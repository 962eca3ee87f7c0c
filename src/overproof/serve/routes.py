"""The table of what is served where and who may; dispatch, documents and tests are all made from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import unquote

from overproof.store.keys import Scope


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """One method on one path."""

    method: str
    path: str
    """With at most one parameter, {name}, at the end; it stands for the whole rest, slashes included."""
    scope: Scope | Literal["public"]
    """What a key must allow; "public" needs none."""
    handler: str
    """Name under which `Admission` finds who answers."""
    summary: str
    """One line for people."""
    request: str = ""
    """Schema of the JSON body; empty where there is none or any is passed on."""
    reply: str = ""
    """Schema of a good answer; "text" for plain text."""
    upstream: bool = False
    """Whether the answer may be the upstream's own, with any status."""
    streams: bool = False
    """Whether the answer can be a stream of server-sent events."""
    problems: tuple[int, ...] = ()
    """Further statuses of its own, beside what the way in can answer."""

    @property
    def any_body(self) -> bool:
        """Whether bodies other than JSON are passed on."""
        return self.upstream and not self.request


def _passed(method: str) -> Endpoint:
    return Endpoint(
        method=method, path="/v1/{path}", scope="invoke", handler="passed", upstream=True, streams=True,
        summary="Anything else goes to the upstream and back, byte for byte.",
    )  # fmt: skip


ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    Endpoint(method="POST", path="/v1/chat/completions", scope="invoke", handler="chat", request="ChatRequest", reply="ChatCompletion",
             upstream=True, streams=True, summary="Answer a chat, by the teacher or by the student of the task."),
    Endpoint(method="POST", path="/v1/completions", scope="invoke", handler="completions", request="CompletionRequest", reply="Completion",
             upstream=True, streams=True, summary="Answer a prompt, by the teacher or by the student of the task."),
    Endpoint(method="POST", path="/v1/embeddings", scope="invoke", handler="passed", request="EmbeddingRequest", reply="Embeddings",
             upstream=True, summary="Embeddings of the upstream, passed through."),
    Endpoint(method="GET", path="/v1/models", scope="invoke", handler="models", reply="Models", upstream=True,
             summary="Names of tasks, and the upstream's models where it says them."),
    Endpoint(method="GET", path="/v1/models/{model}", scope="invoke", handler="model", reply="Model", upstream=True, problems=(404,),
             summary="One task or model."),
    *(_passed(method) for method in ("GET", "POST", "PUT", "PATCH", "DELETE")),
    Endpoint(method="GET", path="/healthz", scope="public", handler="health", reply="State", summary="Whether the process is alive."),
    Endpoint(method="GET", path="/readyz", scope="public", handler="ready", reply="State", problems=(503,),
             summary="Whether requests should be sent here; problems that leave the teacher's answers are said beside a 200."),
    Endpoint(method="GET", path="/openapi.json", scope="public", handler="openapi", reply="Document", summary="This document."),
    Endpoint(method="GET", path="/metrics", scope="read", handler="metrics", reply="text", summary="Figures in Prometheus' form."),
    Endpoint(method="POST", path="/overproof/v1/feedback", scope="invoke", handler="feedback", request="Feedback", reply="Taken", problems=(404, 503),
             summary="Say what was right, by the id of an earlier answer."),
    Endpoint(method="GET", path="/overproof/v1/status", scope="read", handler="status", reply="Status", summary="Where each task's rollout stands."),
    Endpoint(method="POST", path="/overproof/v1/promote", scope="promote", handler="promote", request="Promotion", reply="Moved", problems=(404, 409, 503),
             summary="Move a task to its next stage, where the evidence allows."),
    Endpoint(method="POST", path="/overproof/v1/rollback", scope="promote", handler="rollback", request="Rollback", reply="Moved", problems=(404, 409, 503),
             summary="Give a task back to the teacher at once."),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Match:
    """What a request asks for."""

    endpoint: Endpoint | None
    """None where nothing is served."""
    params: Mapping[str, str] = field(default_factory=dict)
    """The path's parameter, decoded."""
    allowed: tuple[str, ...] = ()
    """Methods that are served on this path, where this one is not."""


_NOTHING: Final = Match(None)


class Router:
    """
    From method and path to the endpoint; exact paths first, then the longest prefix.

    Args:
        endpoints: the table.
    """

    def __init__(self, endpoints: Sequence[Endpoint] = ENDPOINTS) -> None:
        self._exact: dict[str, dict[bytes, Match]] = {}
        self._prefixes: list[tuple[str, bytes, str, Endpoint]] = []
        for one in endpoints:
            start, mark, name = one.path.partition("{")
            if mark:
                self._prefixes.append((one.method, start.encode(), name.rstrip("}"), one))
            else:
                self._exact.setdefault(one.method, {})[one.path.encode()] = Match(one)
        self._prefixes.sort(key=lambda row: -len(row[1]))

    def match(self, method: str, path: bytes) -> Match:
        """
        Find the endpoint of a request.

        Args:
            method: in capitals; HEAD is answered as GET.
            path: as it came, not decoded, and let through by the guard: the same bytes that scopes are checked for.

        Returns: the match; without an endpoint it says which methods there are.
        """
        if method == "HEAD":
            method = "GET"
        found = self._exact.get(method, {}).get(path)
        if found is not None:
            return found
        allowed = [verb for verb, paths in self._exact.items() if path in paths]
        if not allowed:  # a path of the table is never passed on, whatever the method
            for verb, start, name, endpoint in self._prefixes:
                if path.startswith(start) and len(path) > len(start):
                    if verb == method:
                        return Match(endpoint, {name: unquote(path[len(start) :].decode("ascii"))})
                    allowed.append(verb)
        return Match(None, allowed=tuple(dict.fromkeys(allowed))) if allowed else _NOTHING
