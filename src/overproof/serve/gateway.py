"""A model's call from the request's last byte to the answer's last byte, and what happens behind it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import msgspec

from overproof.data import BY_STUDENT, Completion, Served
from overproof.serve.acked import Acked
from overproof.serve.admission import Incoming
from overproof.serve.arms import teacher_failed
from overproof.serve.asgi import JSON, Headers, Refusal, Send, answer
from overproof.serve.connection import FaultKind, Reply, UpstreamError
from overproof.serve.leaving import Leaving
from overproof.serve.live import Current
from overproof.serve.metrics import Metrics
from overproof.serve.packing import readable
from overproof.serve.pool import Fault, Look
from overproof.serve.relay import Relayed, relay
from overproof.serve.rollout import Compare, compare_by
from overproof.serve.router import (
    Routed,
    Shown,
    Situation,
    arm,
    before,
    forced_of,
    headers_of,
    route,
    shadowed,
)
from overproof.serve.rows import Row
from overproof.serve.shadow import LOOKS, ask, look_after
from overproof.serve.shapes import BadCall, Call, content_of, read_call, reply, stream, unsupported
from overproof.serve.station import Station
from overproof.serve.stream import Summary
from overproof.serve.tasks import Recognised, Tasks, attributes_of, session_of
from overproof.serve.telemetry import Telemetry, Trace
from overproof.students.bundle import Answer

EVENTS: Headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
LOOK_S = 1.0
"""So long a row waits for the student's word from the shadow before it goes into the log without."""
KEPT_BYTES = 8 * 1024 * 1024
MOST_AUDITS = 64
"""Comparisons under way at once; a slow upstream must not fill memory and connections with more."""
_STATUS: Mapping[FaultKind, int] = {"timeout": 504, "refused": 400, "left": 499, "busy": 503}
_FAULTS: tuple[FaultKind, ...] = ("connect", "timeout", "cut", "protocol", "refused")
"""What counts as an error of the upstream."""
OURS: tuple[FaultKind, ...] = ("left", "refused", "busy")
"""Faults that say nothing of the upstream."""
UNMATCHED = Routed(route="teacher", reason="unmatched")


class Kept(Summary):
    """A summary that keeps the bytes besides, for the log."""

    def __init__(self, status: int, headers: Headers) -> None:
        super().__init__(status, headers)
        self.chunks: list[bytes] = []
        self._room = KEPT_BYTES

    def feed(self, chunk: bytes) -> None:
        """Take a piece of the body."""
        self._room -= len(chunk)
        if self._room >= 0:
            self.chunks.append(chunk)
        super().feed(chunk)

    @property
    def fits(self) -> bool:
        """Whether all of it was kept."""
        return self._room >= 0


class Exchange:
    """One call and all that is known of it; lives as long as somebody works on it."""

    __slots__ = (
        "attributes", "began", "body", "call", "current", "enter", "failed", "headers", "id", "logged", "look", "now", "recognised", "request", "row", "sent_at",
        "session", "station", "trace", "unfit",
    )  # fmt: skip

    def __init__(self, request: Incoming, station: Station, trace: Trace) -> None:
        self.id = station.new_id()
        self.request, self.station, self.trace = request, station, trace
        self.began, self.enter = request.arrived, station.clock()
        self.call: Call | None = None
        self.recognised: Recognised | None = None
        self.current: Current = station.live.current
        self.attributes: Mapping[str, str] = {}
        self.session: str | None = None
        self.now = Situation(matched=False)
        self.look: Look | None = None
        self.unfit = self.failed = False
        self.body, self.headers = request.body, request.raw_headers
        self.sent_at = 0.0
        self.row: Row | None = None
        self.logged = False

    @property
    def asked(self) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """What a student sees."""
        assert self.recognised is not None
        return self.recognised.fields, self.attributes

    @property
    def epoch(self) -> int:
        """Of the rollout's state when the request came; 0 where nothing is counted."""
        position = self.current.position
        return position.epoch if position.release is not None and self.recognised is not None else 0

    @property
    def drawn(self) -> Literal["", "student", "teacher"]:
        """In a canary, for which arm the caller was."""
        now = self.now
        return "" if now.stage != "canary" else "student" if now.arm < now.share else "teacher"

    def routed(self) -> Routed | None:
        """Who answers as far as it is known; None where the student has to be asked first."""
        if self.look is None:
            return before(self.now)
        said = self.look.answer
        suspended = said is not None and said.slice in self.current.position.suspended
        return route(self.now, cause=None if said is None else said.cause, fault=self.look.fault, suspended=suspended, unfit=self.unfit)


class Gateway:
    """
    The calls to models. Belongs to one event loop.

    Args:
        stations: one for each project; the first takes what no task is recognised in.
        tasks: of the same projects.
        metrics: where to count.
        telemetry: where to trace.
    """

    def __init__(self, stations: Sequence[Station], tasks: Tasks, *, metrics: Metrics, telemetry: Telemetry) -> None:
        self._home = stations[0]
        self._stations = {one.name: one for one in stations}
        self._tasks, self._metrics, self._telemetry = tasks, metrics, telemetry
        self._behind: set[asyncio.Task[None]] = set()
        self._waiting: dict[str, tuple[Exchange, asyncio.TimerHandle]] = {}
        """Rows that wait for the student's word, by request."""

    async def call(self, request: Incoming, send: Send) -> None:
        """
        A chat completion or an older completion.

        Args:
            request: as it came.
            send: the way back.
        """
        path = request.path.decode("ascii")
        trace = self._telemetry.request(method="POST", route=path, headers=request.raw_headers)
        one = Exchange(request, self._home, trace)
        try:
            try:
                self._read(one, path)
            except BadCall as error:
                await answer(send, error.body, status=error.status)
                said = self._served(one, UNMATCHED, error.status, time.perf_counter() - one.began, None)
                self._count(one, UNMATCHED, str(error.status), said)
                trace.end(said)
                return
            routed = one.routed()
            if routed is None:
                routed = await self._ask(one)
            if routed.route == "student" and await self._by_student(one, routed, send):
                return
            await self._by_teacher(one, routed, send)
        except BaseException:
            self._broken(one)
            raise

    async def passed(self, request: Incoming, send: Send) -> None:
        """Anything else: to the upstream and back, byte for byte."""
        trace = self._telemetry.request(method=request.method, route=request.endpoint.path if request.endpoint else "", headers=request.raw_headers)
        one = Exchange(request, self._home, trace)
        try:
            await self._by_teacher(one, UNMATCHED, send)
        except BaseException:
            self._broken(one)
            raise

    def _read(self, one: Exchange, path: str) -> None:
        request = one.request
        call = read_call(path, request.body)
        recognised = self._tasks.recognise(call)
        forced = forced_of(request.raw_headers, request.caller.scopes)
        one.call, one.recognised = call, recognised
        one.attributes = attributes_of(request.raw_headers, call, recognised)
        if recognised is None:
            return
        one.body, one.headers = recognised.upstream_body(request.body), readable(request.raw_headers)
        one.station = station = self._stations[recognised.task]
        one.session = session_of(station.project.gateway.session, request.raw_headers, call)
        one.current = current = station.live.current
        position, card = current.position, current.card
        release = position.release
        one.now = Situation(
            released=release is not None, stage=position.stage, share=position.share, forced=forced,
            arm=arm(one.session or one.id, release) if release is not None and position.stage == "canary" else 1.0,
            unsupported=bool(recognised.unseen or unsupported(call, station.output)),
            expired=card is not None and card.on_expiry == "refuse" and bool(card.ended()),
            student_down=current.pool is not None and current.pool.resting,
            teacher_down=station.breaker.retry_after_s > 0, stand_in=station.project.serve.on_outage == "student",
        )  # fmt: skip

    async def _ask(self, one: Exchange) -> Routed:
        """Ask the student and settle the route."""
        pool = one.current.pool
        if pool is None:  # forced in shadow: what has not proven itself runs in no process of ours
            one.look = await ask(one.current.shadow, one.id, one.asked, deadline_s=one.station.project.gateway.deadline_s)
        else:
            fields, attributes = one.asked
            one.look = await pool.look(fields, attributes, deadline_s=one.station.project.gateway.deadline_s)
        if one.look.answer is not None and one.look.answer.value is not None:
            assert one.call is not None
            found = content_of(one.call, one.station.output, one.look.answer.value)
            one.unfit, one.failed = bool(found.problem), found.off_form
        routed = one.routed()
        assert routed is not None
        return routed

    # -- the student answers ---------------------------------------------------------------------------------------

    async def _by_student(self, one: Exchange, routed: Routed, send: Send) -> bool:
        """Send the student's answer."""
        look, call, station = one.look, one.call, one.station
        assert look is not None
        assert look.answer is not None
        assert call is not None
        said = look.answer
        assert said.value is not None
        model = call.model or station.name
        content = content_of(call, station.output, said.value)
        headers = self._headers(one, routed)
        made = {"model": model, "request_id": one.id, "created": int(one.enter)}
        if call.streamed:
            body = b"".join(stream(call, content.text, **made))  # type: ignore[arg-type] # as named
            head = [*EVENTS, *headers]
        else:
            body = reply(call, content.text, **made)  # type: ignore[arg-type] # as named
            head = [*JSON, *headers]
        done = time.perf_counter()
        completion = Completion(
            text=content.text, value=said.value, model=f"{station.name}@{one.current.position.release}", reason=BY_STUDENT,
            latency_s=done - one.began, cost_usd=0.0,
        )  # fmt: skip
        row = self._row(one, routed, status=200, done=done, first_s=done - one.began, answer=completion)
        await self._keep(one, row)
        await answer(send, body, headers=head)
        self._count(one, routed, "200", row.served)
        self._tally(one, routed, said)
        one.trace.end(row.served)
        by = self._comparing(one, said, by_student=True)
        if by and not routed.degraded and len(self._behind) < MOST_AUDITS:
            self._later(self._audit(one, said, by))
        return True

    async def _audit(self, one: Exchange, said: Answer, by: Compare) -> None:
        """Ask the teacher about an answer that the student has given already."""
        station = one.station
        ticket = station.breaker.admit()
        if not ticket:
            return
        try:
            got = await station.upstream.send("POST", self._target(one), one.headers, one.body)
            summary = Summary(got.status, got.headers)
            try:
                async for chunk in got.body():
                    summary.feed(chunk)
            finally:
                await got.close()
        except UpstreamError as error:
            self._failed(one, error)
            if error.kind not in OURS:
                station.breaker.record(ticket, fault=True)
            return
        station.breaker.record(ticket, fault=got.status >= 500)
        summary.end(whole=True)
        self._compare(one, said, summary, by)

    # -- the teacher answers ---------------------------------------------------------------------------------------

    async def _by_teacher(self, one: Exchange, routed: Routed, send: Send) -> None:
        station, request = one.station, one.request
        ticket = station.breaker.admit()
        leaving = Leaving(request.receive)
        try:
            if not ticket:
                await self._without(one, send, None)
                return
            one.sent_at = time.perf_counter()
            call = None
            try:
                model = one.call.model if one.call is not None else ""
                call = one.trace.upstream(path=self._target(one), model=model, host=station.upstream.host, port=station.upstream.port)
                sent = await station.upstream.send(
                    request.method, self._target(one), call.headers(one.headers), one.body, leaving=leaving
                )
                down = sent.status >= 500
                if down and one.recognised is not None and await self._stand_in(one, send):
                    await sent.close()
                    call.end(status=sent.status)
                    station.breaker.record(ticket, fault=True)
                    return
                summary = Kept(sent.status, sent.headers)
                done = await relay(sent, self._way(one, routed, sent, summary, send), headers=self._headers(one, routed), summary=summary, leaving=leaving)
            except UpstreamError as error:
                call.end(error=error) if call is not None else None
                self._failed(one, error)
                if error.kind not in OURS:
                    station.breaker.record(ticket, fault=True)
                await self._without(one, send, error)
                return
            call.end(status=sent.status, summary=summary)
            if done.fault != "left":
                station.breaker.record(ticket, fault=down or not done.complete)
            await self._answered(one, routed, sent, summary, done)
        finally:
            leaving.close()

    def _way(self, one: Exchange, routed: Routed, sent: Reply, summary: Kept, send: Send) -> Send:
        """The way back; where rows come before answers, one on which the end waits for the row."""
        if one.station.project.gateway.capture != "before_ack" or one.request.method != "POST":
            return send
        return Acked(send, summary, lambda: self._durable(one, routed, sent, summary))

    async def _durable(self, one: Exchange, routed: Routed, sent: Reply, summary: Kept) -> None:
        done = time.perf_counter()
        await self._keep(one, self._teacher_row(one, routed, sent, summary, done, complete=True))

    async def _answered(self, one: Exchange, routed: Routed, sent: Reply, summary: Kept, done: Relayed) -> None:
        """The answer is out: log it, count it, and let the student look at it."""
        end = time.perf_counter()
        status = sent.status if done.complete or done.fault != "left" else 499
        first = None if done.first_byte_at is None else max(0.0, done.first_byte_at - asyncio.get_running_loop().time() + end - one.began)
        row = self._teacher_row(one, routed, sent, summary, end, complete=done.complete, status=status, first_s=first)
        self._count(one, routed, str(status), row.served)
        one.trace.end(row.served)
        one.row = one.row or row
        if one.drawn == "teacher" and done.fault != "left":
            one.failed = teacher_failed(one.call, summary, whole=done.complete)
        fine = done.complete and sent.status == 200
        if (fine or one.failed) and one.recognised is not None and shadowed(one.now, routed) and self._look(one, summary):
            return
        self._tally(one, routed, None if one.look is None else one.look.answer)
        await self._keep(one, row)

    def _look(self, one: Exchange, summary: Summary) -> bool:
        """Have the student look at what the teacher answered; the row waits for its word, for a moment."""
        loop = asyncio.get_running_loop()
        station = one.station
        def then(said: Answer | None, fault: Fault) -> None:
            # In the shadow's thread, or on the loop: what costs time here costs nobody's answer there.
            try:
                loop.call_soon_threadsafe(self._looked, one, said, fault, summary)
            except RuntimeError:  # the loop has ended
                return

        looks = look_after(one.current.pool, one.current.shadow, one.id, one.asked, then, deadline_s=station.project.gateway.deadline_s)
        if looks and not one.logged:
            self._waiting[one.id] = (one, loop.call_later(LOOK_S, self._log, one))
        return looks

    def _looked(self, one: Exchange, said: Answer | None, fault: Fault, summary: Summary) -> None:
        row = one.row
        one.look = Look(answer=said, fault=fault, latency_s=0.0)
        if row is not None and not one.logged:
            look = self._served(one, Routed(route="teacher", reason="stage"), row.served.status, row.served.latency_s, row.served.first_byte_s)
            row.served = replace(look, overhead_s=row.served.overhead_s)
            self._log(one)
        self._tally(one, Routed(route="teacher", reason="stage"), said)
        if said is not None:
            by = self._comparing(one, said, by_student=False)
            if by:
                self._compare(one, said, summary, by)

    def write(self, request_id: str) -> None:
        """
        Let a row that waits for the shadow's word wait no longer: somebody asks for it.

        Args:
            request_id: any text.
        """
        if (waits := self._waiting.get(request_id)) is not None:
            self._log(waits[0])

    def _log(self, one: Exchange) -> None:
        if (waits := self._waiting.pop(one.id, None)) is not None:
            waits[1].cancel()
        if not one.logged and one.row is not None:
            one.logged = True
            one.station.capture.put(one.row)

    async def _keep(self, one: Exchange, row: Row) -> None:
        """Into the log, once; where rows come before answers, durable on return."""
        if one.logged or one.request.method != "POST":
            return
        one.row, one.logged = row, True
        if one.station.project.gateway.capture == "before_ack":
            await one.station.capture.put_durable(row)
        else:
            one.station.capture.put(row)

    def _broken(self, one: Exchange) -> None:
        """Cut at the end of a drain, or failed by a fault of ours: there is a row and a count all the same."""
        if one.logged or one.id in self._waiting:
            return
        if one.row is not None:
            self._log(one)
            return
        routed = UNMATCHED if one.recognised is None else one.routed() or Routed(route="teacher", reason="student_error")
        if routed.route == "student":
            routed = Routed(route="teacher", reason="student_error")
        status = 500
        row = self._row(one, routed, status=status, done=time.perf_counter(), complete=False)
        one.row = row
        if one.request.method == "POST":
            self._log(one)
        self._count(one, routed, str(status), row.served)
        one.trace.end(row.served)

    async def _stand_in(self, one: Exchange, send: Send) -> bool:
        """Let a certified student answer in place of a teacher that can't be reached, where the owner allows it."""
        if one.call is None or one.recognised is None or not one.now.stand_in:
            return False
        one.now = msgspec.structs.replace(one.now, teacher_down=True)
        routed = one.routed()
        if routed is None:
            routed = await self._ask(one)
        return routed.route == "student" and await self._by_student(one, routed, send)

    async def _without(self, one: Exchange, send: Send, error: UpstreamError | None) -> None:
        """The teacher gave nothing: the student stands in, or the caller is told."""
        if (error is None or error.kind not in ("left", "refused")) and await self._stand_in(one, send):
            return
        routed = one.routed() or UNMATCHED
        if routed.route == "student":
            routed = Routed(route="teacher", reason="student_error")
        status = 503 if error is None else _STATUS.get(error.kind, 502)
        code = "upstream_resting" if error is None else f"upstream_{error.kind}"
        message = "The upstream keeps failing and is not asked for a while." if error is None else "The upstream gave no answer."
        more = [(b"retry-after", str(max(1, round(one.station.breaker.retry_after_s))).encode())] if status == 503 else []
        done = time.perf_counter()
        row = self._row(one, routed, status=status, done=done, complete=False)
        await self._keep(one, row)
        self._count(one, routed, str(status), row.served)
        one.trace.end(row.served)
        if status != 499:
            await Refusal(status, message, code=code, headers=[*more, *self._headers(one, routed)]).send(send)
        if one.drawn == "teacher":
            one.failed = status not in (400, 499)
        if not (routed.reason == "stage" and one.failed and self._look(one, Summary(status, ()))):
            self._tally(one, routed, None if one.look is None else one.look.answer)

    # -- words, counts, rows ---------------------------------------------------------------------------------------

    def _target(self, one: Exchange) -> str:
        request = one.request
        path = request.path.decode("ascii")
        return f"{path}?{request.query.decode('latin-1')}" if request.query else path

    def _headers(self, one: Exchange, routed: Routed) -> Headers:
        position, said = one.current.position, None if one.look is None else one.look.answer
        if one.recognised is None:
            return headers_of(routed, Shown(request_id=one.id))
        return headers_of(routed, Shown(
            request_id=one.id, task=one.recognised.task, stage=position.stage, release=position.release or "",
            slice="" if said is None else said.slice, confidence=None if said is None else said.confidence, review=one.station.review_word,
        ))  # fmt: skip

    def _served(self, one: Exchange, routed: Routed, status: int, latency_s: float, first_s: float | None) -> Served:
        position, look = one.current.position, one.look
        said = None if look is None else look.answer
        matched = one.recognised is not None and bool(one.recognised.fields)
        student_s = 0.0 if look is None or routed.reason == "stage" else look.latency_s
        return Served(
            route=routed.route, reason=routed.reason, stage=position.stage if matched else "teacher-only",
            endpoint=one.request.path.decode("ascii"), status=status, latency_s=latency_s,
            overhead_s=max(0.0, latency_s - (one.began + latency_s - one.sent_at if one.sent_at else 0.0) - student_s), first_byte_s=first_s,
            streamed=one.call is not None and one.call.streamed, task=one.station.name if matched else "",
            release=(position.release or "") if matched and look is not None else "", slice="" if said is None else said.slice,
            guess=None if said is None else said.guess, confidence=None if said is None else said.confidence,
            kept=said is not None and said.value is not None, key=one.request.caller.id, degraded=routed.degraded,
        )  # fmt: skip

    def _row(
        self, one: Exchange, routed: Routed, *, status: int, done: float, first_s: float | None = None, complete: bool = True,
        answer: Completion | None = None,
    ) -> Row:  # fmt: skip
        fields = one.recognised.fields or None if one.recognised is not None else None
        return Row(
            id=one.id, at=one.enter, served=self._served(one, routed, status, done - one.began, first_s), request=one.request.body,
            complete=complete, fields=fields, attributes=one.attributes, session=one.session, answer=answer,
        )  # fmt: skip

    def _teacher_row(
        self, one: Exchange, routed: Routed, sent: Reply, summary: Kept, done: float, *, complete: bool, status: int = 0,
        first_s: float | None = None,
    ) -> Row:  # fmt: skip
        row = self._row(one, routed, status=status or sent.status, done=done, first_s=first_s, complete=complete and summary.fits)
        row.response = summary.chunks
        row.encoding = next((v.decode("latin-1") for k, v in sent.headers if k == b"content-encoding"), "")
        return row

    def _count(self, one: Exchange, routed: Routed, status: str, served: Served) -> None:
        task, metrics = served.task, self._metrics
        metrics.add("overproof_requests_total", 1, task, routed.route, routed.reason, served.stage, status)
        metrics.observe("overproof_request_duration_seconds", served.latency_s, task, routed.route)
        metrics.observe("overproof_gateway_overhead_seconds", served.overhead_s, task)
        if one.look is not None and routed.reason != "stage":
            metrics.observe("overproof_student_duration_seconds", one.look.latency_s, task)
        if served.confidence is not None:
            metrics.observe("overproof_confidence", served.confidence, task, served.slice)

    def _failed(self, one: Exchange, error: UpstreamError) -> None:
        if error.kind in _FAULTS:
            self._metrics.add("overproof_upstream_errors_total", 1, one.station.name, error.kind)

    def _tally(self, one: Exchange, routed: Routed, said: Answer | None) -> None:
        """Count a request for the rollout."""
        position = one.current.position
        # whoever forces a route picks the requests, and may be after a rollback
        if not one.epoch or one.now.forced or (said is not None and said.slice in position.suspended):
            return
        look = one.look
        kept = said is not None and said.value is not None
        one.station.tally.request(
            one.epoch, "" if said is None else said.slice, asked=look is not None, kept=kept,
            fault=look is not None and bool(look.fault), arm=one.drawn if kept else "",
            failed=one.failed or routed.degraded,
        )  # fmt: skip

    def _comparing(self, one: Exchange, said: Answer, *, by_student: bool) -> Compare:
        if said.value is None or not one.epoch or said.slice in one.current.position.suspended or one.now.forced:
            return ""
        state = one.station.state(one.current.position)
        serve = one.station.project.serve
        return compare_by(state, one.id, by_student=by_student, critical=said.slice in one.station.tally.critical, share=serve.compare)

    def _compare(self, one: Exchange, said: Answer, summary: Summary, by: Compare) -> None:
        """Hold a kept answer against the teacher's; an answer of the teacher's that is none says nothing."""
        output = one.station.output
        value = summary.completion(output=output).value
        if value is None or said.value is None:
            return
        agreed = output.equal(said.value, value)
        self._metrics.add("overproof_live_checked_total", 1, one.station.name, said.slice)
        one.station.compared(one.epoch, said.slice, agreed=agreed, by=by)

    def _later(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._behind.add(task)
        task.add_done_callback(self._behind.discard)

    async def settle(self, within_s: float = 5.0) -> None:
        """
        Wait for what runs behind answers that are out.

        Args:
            within_s: the longest.
        """
        loop = asyncio.get_running_loop()
        if work := {*self._behind, *(task for task in LOOKS if task.get_loop() is loop)}:
            _, late = await asyncio.wait(work, timeout=within_s)
            for task in late:
                task.cancel()
        while self._waiting:  # noqa: ASYNC110 - each for `LOOK_S` at most
            await asyncio.sleep(0.01)
