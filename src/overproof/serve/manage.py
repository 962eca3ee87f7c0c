"""What is asked of the gateway itself: health, figures, status, moves of the rollout, feedback, names of models."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import msgspec

from overproof.data import planned_stages
from overproof.errors import DataError, OverproofError
from overproof.serve import moves
from overproof.serve.admission import Incoming
from overproof.serve.asgi import Refusal, Send, answer, error
from overproof.serve.capture import read_feedback
from overproof.serve.connection import UpstreamError
from overproof.serve.gateway import Gateway
from overproof.serve.keys import Keyring
from overproof.serve.metrics import CONTENT_TYPE, Metrics
from overproof.serve.openapi import openapi
from overproof.serve.station import Station
from overproof.serve.tasks import Tasks

_encode = msgspec.json.Encoder(enc_hook=str).encode  # what is no number in JSON becomes null
_NOT_ON = frozenset({b"accept-encoding", b"if-none-match", b"if-modified-since", b"range"})  # the list is read here
_REFUSAL = frozenset({b"content-type", b"content-encoding", b"www-authenticate"})
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
MODELS_S = 10.0
_KEPT = {"kept": 200, "unknown": 404, "refused": 503}


class _Move(msgspec.Struct, forbid_unknown_fields=True):
    """Body of a promotion."""

    task: str
    by: str
    to: str | None = None
    why: str | None = None
    force: bool = False


class _Rollback(msgspec.Struct, forbid_unknown_fields=True):
    """Body of a rollback."""

    task: str
    by: str
    why: str | None = None


class _Models(msgspec.Struct):
    """What an upstream says of its models."""

    data: list[dict[str, Any]]


_move = msgspec.json.Decoder(_Move).decode
_back = msgspec.json.Decoder(_Rollback).decode
_models = msgspec.json.Decoder(_Models).decode


class Manage:
    """
    Everything beside the calls to models.

    Args:
        stations: one for each project.
        tasks: of the same.
        gateway: passes the upstream's own answers on.
        metrics: what it counts.
        keyring: says whether callers need keys.
    """

    def __init__(self, stations: Sequence[Station], tasks: Tasks, *, gateway: Gateway, metrics: Metrics, keyring: Keyring) -> None:
        self._stations, self._tasks, self._gateway, self._metrics = tuple(stations), tasks, gateway, metrics
        self._ours = {one["id"]: one for one in tasks.models()}
        self._told: dict[tuple[str, ...], float] = {}
        self._keyring = keyring
        self._documents = {keyed: _encode(openapi(keyed=keyed)) for keyed in (False, True)}

    async def health(self, request: Incoming, send: Send) -> None:
        """Whether the process answers."""
        del request
        await answer(send, b'{"status":"alive"}')

    async def ready(self, request: Incoming, send: Send) -> None:
        """
        Whether requests should be sent here.

        A full disk or a release that is refused is said, and the teacher's answers go on: not ready is only who has no
        release loaded that was serving.
        """
        del request
        problems = [text for one in self._stations for text in one.problems]
        lacking = [one.name for one in self._stations if one.live.polled_at is None]
        body = {"status": "starting" if lacking else "degraded" if problems else "ready", "problems": problems}
        await answer(send, _encode(body), status=503 if lacking else 200)

    async def document(self, request: Incoming, send: Send) -> None:
        """What is served, as OpenAPI."""
        del request
        await answer(send, self._documents[self._keyring.required])

    async def figures(self, request: Incoming, send: Send) -> None:
        """The metrics."""
        del request
        for one in self._stations:
            self._gauge(one)
        here, set_to = self._stations, self._metrics.set
        set_to("overproof_capture_queue_records", sum(one.capture.waiting for one in here))
        set_to("overproof_capture_queue_bytes", sum(one.capture.waiting_bytes for one in here))
        set_to("overproof_breaker_open", float(any(one.breaker.state == "open" for one in here)), "upstream")
        set_to("overproof_breaker_open", float(any(one.live.current.pool is not None and one.live.current.pool.resting for one in here)), "student")
        set_to("overproof_store_read_only", float(any(one.capture.state == "read-only" for one in here)), "traffic")
        await answer(send, self._metrics.render(), headers=[(b"content-type", CONTENT_TYPE.encode())])

    def _gauge(self, one: Station) -> None:
        metrics, current = self._metrics, one.live.current
        metrics.set("overproof_shadow_silent", float(one.shadow_silent), one.name)
        metrics.stage(one.name, current.position.stage, current.position.share)
        metrics.review(one.name, one.review_word, "" if one.review is None else one.review.due)
        card = current.card
        metrics.release(one.name, current.position.release or "", student=card.use if card else "", engine=card.candidate if card else "")
        self._grow("overproof_captured_total", one.capture.written, one.name)
        for (task, piece, why), n in one.capture.dropped.items():
            self._grow("overproof_capture_dropped_total", n, task, piece, why)
        for (task, route, kind), amount in one.capture.usage.items():
            if kind in ("input", "output"):
                self._grow("overproof_tokens_total", amount, task, route, kind)
            elif kind == "cost":
                self._grow("overproof_cost_usd_total", amount, task, route)
            elif kind == "avoided":
                self._grow("overproof_avoided_cost_usd_total", amount, task)

    def _grow(self, name: str, value: float, *labels: str) -> None:
        """Bring a counter up to a number that somebody else counts."""
        before = self._told.get((name, *labels), 0)
        if value > before:
            self._metrics.add(name, value - before, *labels)
            self._told[(name, *labels)] = value

    async def status(self, request: Incoming, send: Send) -> None:
        """Where the rollout of each task stands that the caller's key belongs to."""
        found = [await asyncio.to_thread(self._status, one) for one in self._of(request)]
        await answer(send, _encode({"tasks": found}))

    def _of(self, request: Incoming) -> list[Station]:
        """What the caller's key may see and move: its own project; without keys, all."""
        return [one for at, one in enumerate(self._stations) if not request.caller.id or at == request.caller.source]

    def _status(self, one: Station) -> dict[str, Any]:
        try:
            seen = moves.view(one.store, one.project)
        except OverproofError as problem:  # a release that is damaged, or a disk: the rest is still worth knowing
            return {"task": one.name, "problems": [*one.problems, f"{one.name}: {problem.what}"], **self._running(one)}
        state = seen.state
        health = one.store.captured.health()
        return {
            **self._running(one), "task": one.name, "stage": state.stage, "release": state.release_id, "share": state.share, "since": state.since, "by": state.by,
            "why": state.why, "suspended": dict(seen.suspended), "next": seen.after.name if seen.after else None, "waits_for": seen.decision.why,
            "candidate": seen.candidate, "bars": [asdict(bar) for bar in seen.bars],
            "problems": one.problems,
            "capture": {"served": health.served, "captured": health.captured, "dropped": health.dropped, "alarms": list(health.alarms)},
        }  # fmt: skip

    def _running(self, one: Station) -> dict[str, Any]:
        now = one.live.current.position
        return {"loaded": now.release, "loaded_stage": now.stage, "signature": one.live.seal, "events": [asdict(event) for event in list(one.live.events)], "shadow": _shadow(one)}

    async def promote(self, request: Incoming, send: Send) -> None:
        """Take a task one stage further, where the evidence allows."""
        await self._moved(request, send, forward=True)

    async def rollback(self, request: Incoming, send: Send) -> None:
        """Give a task back to the teacher."""
        await self._moved(request, send, forward=False)

    async def _moved(self, request: Incoming, send: Send, *, forward: bool) -> None:
        try:
            move = _move(request.body) if forward else _move_back(request.body)
        except _UNREADABLE as problem:
            await answer(send, error(400, f"the move can't be read: {problem}"), status=400)
            return
        mine = [one for one in self._of(request) if one.name == move.task]
        if not mine:
            await answer(send, error(404, f"there is no task {move.task[:100]!r} here"), status=404)
            return
        if not move.by.strip() or (move.force and not (move.why or "").strip()):
            await answer(send, error(400, "say who decides in `by`, and with `force` the reason in `why`"), status=400)
            return
        by = f"{move.by} (key {request.caller.id})" if request.caller.id else move.by
        try:
            status, body = await asyncio.to_thread(_go, mine[0], move, by, forward)
        except DataError as problem:
            await answer(send, error(409, f"{problem.what}; {problem.next_action}"), status=409)
        except OverproofError as problem:
            await answer(send, error(503, problem.what), status=503)
        else:
            await answer(send, body, status=status)

    async def feedback(self, request: Incoming, send: Send) -> None:
        """Keep what is said of an earlier answer."""
        try:
            words = read_feedback(request.body, key=request.caller.id)
        except DataError as problem:
            await answer(send, error(400, f"{problem.what}; {problem.next_action}"), status=400)
            return
        self._gateway.write(words[0].request_id)
        said = "unknown"
        for one in self._stations:
            said = await one.capture.feedback(words)
            if said != "unknown":
                break
        status = _KEPT[said]
        if status == 200:
            await answer(send, _encode({"request_id": words[0].request_id}))
        elif status == 404:
            await answer(send, error(404, "no answer with this request_id is in the log"), status=404)
        else:
            await Refusal(503, "The log takes nothing now; try again.", code="log_refuses", headers=[(b"retry-after", b"5")]).send(send)

    async def models(self, request: Incoming, send: Send) -> None:
        """Names of tasks, and the upstream's models where it says them; whom it refuses, it refuses here too."""
        home = self._stations[0]
        listed: Sequence[Any]
        try:
            async with asyncio.timeout(MODELS_S):
                found = await home.upstream.send("GET", "/v1/models", [pair for pair in request.raw_headers if pair[0] not in _NOT_ON], b"")
                try:
                    raw = await found.read()
                finally:
                    await found.close()
            if found.status in (401, 403):  # whoever asks to learn whether their key is good is told
                kept = [(name, value) for name, value in found.headers if name in _REFUSAL]
                await answer(send, raw, status=found.status, headers=kept)
                return
            listed = _models(raw).data if found.status == 200 else []
        except (UpstreamError, TimeoutError, *_UNREADABLE):
            listed = []  # ours are named all the same
        await answer(send, _encode({"object": "list", "data": [*self._ours.values(), *(one for one in listed if one.get("id") not in self._ours)]}))

    async def model(self, request: Incoming, send: Send) -> None:
        """One of ours, or the upstream's answer."""
        ours = self._ours.get(request.params["model"])
        if ours is not None:
            await answer(send, _encode(ours))
        else:
            await self._gateway.passed(request, send)


def _move_back(raw: bytes) -> _Move:
    said = _back(raw)
    return _Move(task=said.task, by=said.by, why=said.why)


def _go(one: Station, move: _Move, by: str, forward: bool) -> tuple[int, bytes]:  # noqa: FBT001
    if not forward:
        state = moves.rollback(one.store, one.project, by=by, why=move.why or "")
        return 200, _encode({"task": one.name, "stage": state.stage})
    stages = {stage.stage: stage.name for stage in planned_stages(one.project.serve.stages)}
    done = moves.promote(one.store, one.project, by=by, to=stages.get(move.to, move.to) if move.to else "", force=(move.why or "") if move.force else "")  # type: ignore[call-overload] # any text
    if not done.moved:
        return 409, error(409, done.why)
    return 200, _encode({"task": one.name, "stage": done.state.stage})


def _shadow(one: Station) -> dict[str, Any] | None:
    found = one.live.current.shadow
    if found is None:
        return None
    import time

    return {
        "state": found.state, "offered": found.offered, "answered": found.answered, "dropped": found.dropped,
        "silent": found.silent(time.monotonic()), "faults": dict(found.faults), "why": found.why,
    }  # fmt: skip
