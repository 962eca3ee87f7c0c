"""
Traces: one span for a request, one below it for the call to the upstream. Never a word of what was asked or answered.

Without the extra `otel`, or without an address to send to, everything here does nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from overproof.data import Served
from overproof.serve import semconv as names
from overproof.serve.connection import UpstreamError
from overproof.serve.stream import Summary

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.trace import Span, Tracer

Headers = Sequence[tuple[bytes, bytes]]
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
CARRIED = (b"traceparent", b"tracestate")
CLOSE_S = 5.0
"""How long the last spans may take on their way; a collector that is down must not hold up a restart."""
_LOG = logging.getLogger("overproof.serve.telemetry")


class Call:
    """The call to the upstream, where nobody traces it."""

    __slots__ = ()

    def headers(self, headers: Headers) -> Headers:
        """
        The headers to send on.

        Args:
            headers: the caller's.

        Returns: with the trace that this call belongs to; untouched where there is none of ours, so that the caller's goes on.
        """
        return headers

    def end(self, *, status: int = 0, summary: Summary | None = None, first_byte_s: float | None = None, error: UpstreamError | None = None) -> None:
        """
        The call is over.

        Args:
            status: of the upstream's answer; 0 where none came.
            summary: what it said; figures and names are taken from it, no text.
            first_byte_s: from the call to the first byte of the answer.
            error: why there is no whole answer.
        """


class Trace:
    """A request, where nobody traces it."""

    __slots__ = ()

    def upstream(self, *, path: str, model: str, host: str, port: int, streamed: bool = False) -> Call:
        """
        The call to the upstream begins.

        Args:
            path: endpoint, without query.
            model: that the caller asks for.
            host: the upstream's name.
            port: its port.
            streamed: whether a stream is asked for.

        Returns: the call, to be ended.
        """
        del path, model, host, port, streamed
        return NO_CALL

    def end(self, served: Served) -> None:
        """
        The request has been answered.

        Args:
            served: how.
        """


class Telemetry:
    """Where nobody traces; `telemetry` makes the one that does."""

    __slots__ = ()
    active = False
    """Whether spans go anywhere."""

    def request(self, *, method: str, route: str, headers: Headers) -> Trace:
        """
        A request has come.

        Args:
            method: its method.
            route: the route table's path, not the caller's.
            headers: the caller's; its `traceparent` is honoured.

        Returns: the trace, to be ended.
        """
        del method, route, headers
        return NO_TRACE

    async def close(self) -> None:
        """Send what is left."""


NO_CALL, NO_TRACE = Call(), Trace()


def telemetry(*, endpoint: str = "", environ: Mapping[str, str] = os.environ, processor: SpanProcessor | None = None) -> Telemetry:
    """
    The tracing that is asked for.

    Args:
        endpoint: base address of an OTLP/HTTP collector; the standard variables' where empty.
        environ: where those are looked up.
        processor: takes the spans in place of an exporter.

    Returns: tracing; or one that does nothing, where no address is set or the extra is not installed.
    """
    if processor is None and not endpoint and not any(environ.get(name) for name in ENDPOINTS):
        return Telemetry()
    try:
        return _Tracing(_processor(endpoint) if processor is None else processor, environ)
    except ModuleNotFoundError:
        _LOG.warning("an address for traces is set, but the extra is not installed: pip install 'overproof[otel]'")
        return Telemetry()


def _processor(endpoint: str) -> SpanProcessor:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    # its queue is bounded, and its own thread does the sending
    return BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint.rstrip("/") + "/v1/traces") if endpoint else OTLPSpanExporter())


class _Tracing(Telemetry):
    __slots__ = ("_propagator", "_provider", "_tracer")
    active = True

    def __init__(self, processor: SpanProcessor, environ: Mapping[str, str]) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        named = environ.get("OTEL_SERVICE_NAME") or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
        self._provider = TracerProvider(resource=Resource.create({} if named else {"service.name": "overproof"}), shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("overproof.serve", schema_url=names.SCHEMA_URL)
        self._propagator = TraceContextTextMapPropagator()

    def request(self, *, method: str, route: str, headers: Headers) -> Trace:
        from opentelemetry.trace import SpanKind

        carrier = {name.decode(): value.decode("latin-1") for name, value in headers if name in CARRIED}
        context = self._propagator.extract(carrier) if carrier else None
        span = self._tracer.start_span(
            f"{method} {route}", context=context, kind=SpanKind.SERVER, attributes={names.METHOD: method, names.HTTP_ROUTE: route}
        )
        return _Trace(self._tracer, span, self._propagator)

    async def close(self) -> None:
        closing = asyncio.get_running_loop().run_in_executor(None, self._provider.shutdown)
        await asyncio.wait([closing], timeout=CLOSE_S)


class _Trace(Trace):
    __slots__ = ("_propagator", "_span", "_tracer")

    def __init__(self, tracer: Tracer, span: Span, propagator: Any) -> None:
        self._tracer, self._span, self._propagator = tracer, span, propagator

    def upstream(self, *, path: str, model: str, host: str, port: int, streamed: bool = False) -> Call:
        from opentelemetry.trace import SpanKind, set_span_in_context

        operation = names.OPERATIONS.get(path)
        found: dict[str, Any] = {names.PROVIDER: "openai", names.SERVER_ADDRESS: host, names.SERVER_PORT: port}
        if operation:
            found[names.OPERATION] = operation
        if model:
            found[names.REQUEST_MODEL] = model[:200]
        if streamed:
            found[names.REQUEST_STREAM] = True
        name = f"{operation} {model[:200]}".strip() if operation else "upstream"
        span = self._tracer.start_span(name, context=set_span_in_context(self._span), kind=SpanKind.CLIENT, attributes=found)
        return _Call(span, self._propagator)

    def end(self, served: Served) -> None:
        found: dict[str, Any] = {
            names.STATUS: served.status, names.TASK: served.task, names.ROUTE: served.route, names.REASON: served.reason,
            names.RELEASE: served.release, names.STAGE: served.stage, names.CONFIDENCE: served.confidence, names.SLICE: served.slice,
        }  # fmt: skip
        self._span.set_attributes({name: value for name, value in found.items() if value not in ("", None)})
        _ended(self._span, str(served.status) if served.status >= 500 or served.status == 0 else "")


class _Call(Call):
    __slots__ = ("_propagator", "_span")

    def __init__(self, span: Span, propagator: Any) -> None:
        self._span, self._propagator = span, propagator

    def headers(self, headers: Headers) -> Headers:
        from opentelemetry.trace import set_span_in_context

        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, context=set_span_in_context(self._span))
        ours = [(name.encode(), value.encode("latin-1")) for name, value in carrier.items()]
        return [*(one for one in headers if one[0] not in CARRIED), *ours]

    def end(self, *, status: int = 0, summary: Summary | None = None, first_byte_s: float | None = None, error: UpstreamError | None = None) -> None:
        found: dict[str, Any] = {names.STATUS: status or None, names.FIRST_CHUNK: first_byte_s}
        if summary is not None:
            found |= {
                names.RESPONSE_MODEL: summary.model[:200], names.INPUT_TOKENS: summary.tokens_in, names.OUTPUT_TOKENS: summary.tokens_out,
                names.FINISH_REASONS: [summary.finish_reason[:40]] if summary.finish_reason else None,
            }  # fmt: skip
        self._span.set_attributes({name: value for name, value in found.items() if value not in ("", None)})
        failed = "stream_error" if summary is not None and summary.failed else ""
        _ended(self._span, error.kind if error is not None else str(status) if not 0 < status < 400 else failed)


def _ended(span: Span, failed: str) -> None:
    from opentelemetry.trace import StatusCode

    if failed:
        span.set_attribute(names.ERROR_TYPE, failed)
        span.set_status(StatusCode.ERROR)  # without a text: it could hold somebody's words
    span.end()
