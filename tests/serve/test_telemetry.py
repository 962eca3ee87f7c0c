"""Traces: what is in them, what never is, and that nothing happens unless somebody asks."""

import asyncio
import gzip
import json
import subprocess
import sys

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from tests.serve.misbehaving import sized, take, upstream

from overproof.data import Served
from overproof.serve import telemetry as module
from overproof.serve.connection import fault
from overproof.serve.stream import Summary
from overproof.serve.telemetry import Telemetry, telemetry

CALLER = [(b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), (b"tracestate", b"a=1"), (b"x", b"y")]
SECRET = "the customer's words"


def served(**more) -> Served:
    usual = {"route": "teacher", "reason": "below_threshold", "stage": "canary", "endpoint": "/v1/chat/completions", "status": 200, "latency_s": 0.1, "overhead_s": 0.001}
    return Served(**{**usual, "task": "inbox", "release": "r1", "slice": "gold", "confidence": 0.4, "guess": SECRET, **more})


def said() -> Summary:
    body = {"model": "m-2", "choices": [{"message": {"content": SECRET}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 9, "completion_tokens": 2}}
    summary = Summary(200, [(b"content-type", b"application/json")])
    summary.feed(json.dumps(body).encode())
    summary.end(whole=True)
    return summary


def one_request(tracing: Telemetry, *, error=None, status=200, headers=CALLER):
    trace = tracing.request(method="POST", route="/v1/chat/completions", headers=headers)
    call = trace.upstream(path="/v1/chat/completions", model="m-1", host="api.example.com", port=443, streamed=True)
    passed = call.headers(headers)
    call.end(status=0 if error else status, summary=None if error else said(), first_byte_s=0.02, error=error)
    trace.end(served(status=502 if error else status))
    return passed


def spans_of(**more):
    memory = InMemorySpanExporter()
    tracing = telemetry(processor=SimpleSpanProcessor(memory), environ={})
    passed = one_request(tracing, **more)
    asyncio.run(tracing.close())
    client, server = memory.get_finished_spans()
    return passed, client, server


def test_a_request_leaves_two_spans_in_the_callers_trace() -> None:
    """Names, kinds, parents and attributes are the conventions'; the upstream is told the trace of its own call."""
    passed, client, server = spans_of()
    assert (server.name, server.kind, server.parent.span_id) == ("POST /v1/chat/completions", SpanKind.SERVER, 0xB7AD6B7169203331)
    assert (client.name, client.kind, client.parent.span_id) == ("chat m-1", SpanKind.CLIENT, server.context.span_id)
    assert client.context.trace_id == server.context.trace_id == 0x0AF7651916CD43DD8448EB211C80319C
    assert dict(client.attributes) == {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "m-1", "gen_ai.request.stream": True,
        "gen_ai.response.model": "m-2", "gen_ai.response.finish_reasons": ("stop",), "gen_ai.response.time_to_first_chunk": 0.02,
        "gen_ai.usage.input_tokens": 9, "gen_ai.usage.output_tokens": 2, "server.address": "api.example.com", "server.port": 443,
        "http.response.status_code": 200,
    }  # fmt: skip
    assert dict(server.attributes) == {
        "http.request.method": "POST", "http.route": "/v1/chat/completions", "http.response.status_code": 200, "overproof.task": "inbox",
        "overproof.route": "teacher", "overproof.reason": "below_threshold", "overproof.release": "r1", "overproof.stage": "canary",
        "overproof.confidence": 0.4, "overproof.slice": "gold",
    }  # fmt: skip
    assert server.resource.attributes["service.name"] == "overproof"
    assert dict(passed) == {b"x": b"y", b"tracestate": b"a=1", b"traceparent": b"00-%032x-%016x-01" % (client.context.trace_id, client.context.span_id)}
    assert SECRET not in client.to_json() + server.to_json()


def test_the_names_are_those_of_the_package_of_conventions() -> None:
    """Where OpenTelemetry's own package has a name, ours is the same."""
    from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as theirs

    from overproof.serve import semconv as ours

    known = {value for name, value in vars(theirs).items() if name.isupper()}
    mine = {value for name, value in vars(ours).items() if name.isupper() and str(value).startswith("gen_ai.")}
    assert len(mine) == 9
    assert mine <= known


def test_what_failed_says_how_and_nothing_else() -> None:
    """A fault's kind, a status; no message, which could hold somebody's words."""
    _, client, server = spans_of(error=fault("cut", SECRET, sent=True))
    assert (client.attributes["error.type"], client.status.status_code, client.status.description) == ("cut", StatusCode.ERROR, None)
    assert (server.attributes["error.type"], server.status.status_code) == ("502", StatusCode.ERROR)
    assert SECRET not in client.to_json() + server.to_json()
    _, client, server = spans_of(status=429)
    assert client.attributes["error.type"] == "429"
    assert server.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("headers", [[], [(b"traceparent", b"garbage\xff")], [(b"traceparent", b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01")]])
def test_a_caller_without_a_proper_trace_begins_a_new_one(headers) -> None:
    """Garbage is neither honoured nor passed on."""
    passed, client, server = spans_of(headers=headers)
    assert server.parent is None
    assert [name for name, _ in passed] == [b"traceparent"]
    assert passed[0][1].startswith(b"00-%032x-%016x-0" % (client.context.trace_id, client.context.span_id))


def test_a_trace_that_is_not_sampled_stays_so() -> None:
    """The caller's decision is honoured: no span is kept, and the flag goes on."""
    memory = InMemorySpanExporter()
    tracing = telemetry(processor=SimpleSpanProcessor(memory), environ={})
    passed = one_request(tracing, headers=[(b"traceparent", CALLER[0][1][:-2] + b"00")])
    assert memory.get_finished_spans() == ()
    assert dict(passed)[b"traceparent"].endswith(b"-00")


def test_without_an_address_nothing_happens_and_the_callers_trace_goes_on() -> None:
    """The very same headers, and not one module of OpenTelemetry loaded."""
    tracing = telemetry(environ={})
    assert not tracing.active
    assert one_request(tracing) is CALLER
    asyncio.run(tracing.close())
    code = "import sys; from overproof.serve.telemetry import telemetry; telemetry(environ={}); print([m for m in sys.modules if 'opentelemetry' in m])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_without_the_extra_nothing_happens_either(monkeypatch, caplog) -> None:
    """It is said once, and requests are served."""
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    tracing = telemetry(environ={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"})
    assert not tracing.active
    assert "overproof[otel]" in caplog.text


def receive(monkeypatch, *, by_setting: bool):
    """One request, traced to a collector on loopback that reads OTLP over HTTP."""
    got = []

    async def collector(heard, reader, writer):
        while request := await take(reader):
            got.append(request)
            writer.write(sized(b"", status=b"200 OK"))
            await writer.drain()

    async def job():
        async with upstream(collector) as heard:
            address = f"http://127.0.0.1:{heard.port}"
            if not by_setting:
                monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
            tracing = await asyncio.to_thread(lambda: telemetry(endpoint=address) if by_setting else telemetry())
            one_request(tracing)
            await tracing.close()

    asyncio.run(job())
    return got


@pytest.mark.parametrize("by_setting", [True, False])
def test_spans_reach_a_collector_over_http(monkeypatch, by_setting) -> None:
    """A real OTLP receiver reads both spans; the address comes from the setting or the standard variable."""
    (request,) = receive(monkeypatch, by_setting=by_setting)
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/traces HTTP/1.1")
    found = ExportTraceServiceRequest.FromString(gzip.decompress(body) if b"content-encoding: gzip" in head.lower() else body)
    scope = found.resource_spans[0].scope_spans[0]
    assert sorted(span.name for span in scope.spans) == ["POST /v1/chat/completions", "chat m-1"]
    assert scope.schema_url.endswith("1.41.0")
    assert SECRET.encode() not in found.SerializeToString()


def test_a_collector_that_hangs_does_not_hold_up_the_end(monkeypatch) -> None:
    """Closing waits for a bounded time."""
    monkeypatch.setattr(module, "CLOSE_S", 0.2)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")

    async def hang(heard, reader, writer):
        await heard.until_gone(reader)

    async def job():
        async with upstream(hang) as heard:
            tracing = telemetry(endpoint=f"http://127.0.0.1:{heard.port}")
            one_request(tracing)
            await tracing.close()
            return "closed"

    assert asyncio.run(job()) == "closed"
