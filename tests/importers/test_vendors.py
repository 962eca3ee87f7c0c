"""Every vendor's log: the same call comes out the same, traps are named, and each importer knows its own files."""

import csv
import gzip
import importlib
import io
import json
import sys
import tomllib
from pathlib import Path

import pytest

from overproof.data import Skipped, ToolCall, TrafficRecord, Turn
from overproof.errors import DataError
from overproof.importers import ColumnMapping, Reading
from overproof.importers.anthropic import AnthropicMessages
from overproof.importers.batch import AnthropicBatch, OpenAIBatch
from overproof.importers.bedrock import Bedrock
from overproof.importers.duck import first_row_as_json
from overproof.importers.helicone import Helicone
from overproof.importers.langfuse import Langfuse
from overproof.importers.langsmith import LangSmith
from overproof.importers.litellm import LiteLLM
from overproof.importers.openai_chat import OpenAIChat
from overproof.importers.otel import OtelSpans
from overproof.testing import importer_conformance

sys.path.insert(0, str(Path(__file__).parent))
import vendors as v

TEXT = ColumnMapping(fields=("text",))
CONTEXT = (
    Turn(role="system", text=v.SYSTEM),
    Turn(role="user", text="Hi"),
    Turn(role="assistant", text="Hello"),
)
TITAN = v.BEDROCK | {
    "operation": "InvokeModel",
    "input": {"inputBodyJson": v.claude_request(), "inputTokenCount": 12},
    "output": {"outputTokenCount": 1, "outputBodyJson": v.claude()},
}
STREAM = v.BEDROCK | {
    "operation": "ConverseStream",
    "output": {
        "outputTokenCount": 1,
        "outputBodyJson": [
            {"messageStart": {"role": "assistant"}},
            {"contentBlockDelta": {"delta": {"text": "b"}, "contentBlockIndex": 0}},
            {"contentBlockDelta": {"delta": {"text": "ug"}, "contentBlockIndex": 0}},
            {"messageStop": {"stopReason": "end_turn"}}, {"metadata": {"usage": {"inputTokens": 12, "outputTokens": 1}}},
        ],
    },
}  # fmt: skip
WATCH = {"timestamp": 1777888800000, "message": json.dumps(v.BEDROCK), "ingestionTime": 1}
CAMEL = {
    "id": "o", "traceId": "t", "type": "GENERATION", "startTime": "2026-05-04T10:00:00.000Z", "endTime": "2026-05-04T10:00:00.400Z",
    "input": {"messages": v.MESSAGES}, "output": v.chat(), "model": v.MODEL, "sessionId": "s1", "usage": {"input": 12, "output": 1},
    "calculatedTotalCost": 0.5, "metadata": {"tier": "plus"},
}  # fmt: skip
MODERN = v.LANGSMITH | {"inputs": {"messages": v.MESSAGES}, "outputs": v.chat()}
RESPONSES = {
    "request": {"model": "big", "instructions": v.SYSTEM, "input": [*v.EARLIER, {"role": "user", "content": [{"type": "input_text", "text": v.QUESTION}]}]},
    "response": {
        "id": "resp_1", "created_at": v.START_S, "model": v.MODEL, "status": "completed", "usage": {"input_tokens": 12, "output_tokens": 1},
        "output": [{"type": "reasoning", "summary": []}, {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "bug"}]}],
    },
    "user_id": "s1", "latency_ms": 400,
}  # fmt: skip
STORED = v.chat() | {"messages": {"object": "list", "data": v.MESSAGES}, "metadata": {"tier": "plus"}, "user_id": "s1", "latency_ms": 400}
CLAUDE = {"request": v.claude_request(), "response": v.claude(), "timestamp": v.AT, "latency_ms": 400}

CASES = {
    "openai pair": (OpenAIChat, {"request": {"messages": v.MESSAGES}, "response": v.chat(), "user_id": "s1", "latency_ms": 400}),
    "openai stored": (OpenAIChat, STORED),
    "openai responses": (OpenAIChat, RESPONSES),
    "anthropic": (AnthropicMessages, CLAUDE),
    "otel 1.41": (OtelSpans, v.traces(v.span(v.OTEL_NEW))),
    "otel details event": (
        OtelSpans,
        v.traces(v.span(v.COMMON | v.USAGE, events=[("gen_ai.client.inference.operation.details", v.OTEL_NEW)])),
    ),
    "otel numbered": (OtelSpans, v.traces(v.span(v.OTEL_NUMBERED))),
    "otel events": (OtelSpans, v.traces(v.span(v.COMMON | v.USAGE, events=v.OTEL_EVENTS))),
    "openinference": (OtelSpans, v.traces(v.span(v.OPENINFERENCE))),
    "langfuse": (Langfuse, v.LANGFUSE),
    "langfuse api": (Langfuse, CAMEL),
    "langsmith langchain": (LangSmith, v.LANGSMITH),
    "langsmith openai": (LangSmith, MODERN),
    "helicone": (Helicone, v.HELICONE),
    "litellm payload": (LiteLLM, v.LITELLM),
    "litellm table": (LiteLLM, v.SPEND),
    "bedrock converse": (Bedrock, v.BEDROCK),
    "bedrock claude": (Bedrock, TITAN),
    "bedrock stream": (Bedrock, STREAM),
    "bedrock cloudwatch": (Bedrock, WATCH),
}
NO_LATENCY = {"bedrock claude", "bedrock stream"}
NO_SESSION = {name for name in CASES if name.startswith("bedrock")}
COSTS = {name for name in CASES if name.startswith(("langfuse", "langsmith", "helicone", "litellm"))}
TAGGED = COSTS - {"litellm table"} | {name for name in CASES if name.startswith("bedrock")} | {"openai stored"}


def written(tmp_path, rows, name="log.jsonl"):
    path = tmp_path / name
    data = "\n".join(json.dumps(row) for row in rows).encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def read(importer, path, mapping=TEXT):
    return list(importer.read(path, mapping))


def one(tmp_path, kind, row, mapping=TEXT):
    rows = read(kind(), written(tmp_path, [row]), mapping)
    assert len(rows) == 1
    return rows[0]


@pytest.mark.parametrize("case", CASES)
def test_the_same_call_comes_out_the_same_from_every_log(tmp_path, case):
    """Question, system prompt, earlier turns, answer, model, tokens, time, latency, session and cost land in their places."""
    kind, row = CASES[case]
    record = one(tmp_path, kind, row)
    assert isinstance(record, TrafficRecord), record
    assert record.request.fields == {"text": v.QUESTION}
    assert record.context == CONTEXT
    said = record.completion
    told = "unknown" if case == "langfuse" else "stop"  # a bare message does not say how it ended
    assert (said.text, said.finish, said.reason) == ("bug", told, None)
    assert (said.model, said.tokens_in, said.tokens_out) == (v.MODEL, 12, 1)
    assert record.request.at == v.AT
    assert said.latency_s == (None if case in NO_LATENCY else pytest.approx(0.4, abs=1e-3))
    assert record.request.session == (None if case in NO_SESSION else "s1")
    assert said.cost_usd == (0.5 if case in COSTS else None)
    assert record.request.attributes.get("tier") == ("plus" if case in TAGGED else None)
    assert record.request.attributes["turns"] == "2"
    assert len(record.request.attributes["system_prompt"]) == 12


def entry_points():
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    listed = tomllib.loads(text)["project"]["entry-points"]["overproof.importers"]
    return {name: getattr(importlib.import_module(at.partition(":")[0]), at.partition(":")[2]) for name, at in listed.items()}


@pytest.mark.parametrize("case", CASES)
def test_each_importer_knows_its_own_log_among_all(tmp_path, case):
    """Whatever the container, the highest score is the right importer's, and says by what."""
    kind, row = CASES[case]
    wrapped = json.dumps({"object": "list", "data": [row]}, indent=1) if "otel" not in case and kind is not Bedrock else json.dumps(row, indent=1)
    heads = {"a.jsonl": json.dumps(row) + "\n", "a.json": f"[\n{json.dumps(row)},\n{json.dumps(row)}]", "b.json": wrapped}
    if case == "openinference":
        del heads["a.json"]
    for name, head in heads.items():
        scores = {one: cls().sniff(head.encode(), name) for one, cls in entry_points().items()}
        best = max(scores, key=lambda one: (scores[one], one))
        assert entry_points()[best] is kind, (name, scores)
        assert scores[best] >= 0.6
    assert kind.known_by


@pytest.mark.parametrize("case", CASES)
def test_every_importer_keeps_the_promises_of_its_kind(tmp_path, case):
    """Damaged files are skipped rows or a DataError, ids are unique, the same file gives the same rows."""
    kind, row = CASES[case]
    other = json.loads(json.dumps(row).replace(v.QUESTION, "My parcel is late.").replace("eee19b7ec3c1b174", "aaa19b7ec3c1b174"))
    for key in ("id", "request_id", "requestId"):
        if key in other:
            other[key] = "another"
    if "message" in other:
        other["message"] = other["message"].replace("req-1", "req-2")
    if kind in (OpenAIChat, AnthropicMessages) and "response" in other:
        other["response"]["id"] = "another"
    sample = written(tmp_path, [row, other], "good.jsonl")
    importer_conformance(kind, sample=sample, mapping=TEXT, workdir=tmp_path)


@pytest.mark.parametrize("case", ["langfuse", "helicone", "litellm table"])
def test_csv_exports_hold_json_in_their_cells(tmp_path, case):
    """The same row as CSV, with objects written as JSON text, gives the same record."""
    kind, row = CASES[case]
    text = io.StringIO()
    sheet = csv.DictWriter(text, list(row))
    sheet.writeheader()
    sheet.writerow({k: json.dumps(x) if isinstance(x, dict | list) else "" if x is None else x for k, x in row.items()})
    path = tmp_path / "export.csv"
    path.write_text(text.getvalue())
    assert kind().sniff(path.read_bytes(), path.name) > 0.9
    (record,) = read(kind(), path)
    plain = one(tmp_path, kind, row)
    assert (record.request, record.completion, record.context) == (plain.request, plain.completion, plain.context)


@pytest.mark.parametrize("case", ["langfuse", "langsmith openai"])
def test_parquet_exports_are_read_and_known(tmp_path, case):
    """Blob exports come as Parquet, with JSON as text in the cells."""
    import duckdb

    kind, row = CASES[case]
    flat = written(tmp_path, [{k: json.dumps(x) if isinstance(x, dict | list) else x for k, x in row.items()}])
    path = tmp_path / "export.parquet"
    duckdb.sql(f"COPY (SELECT * FROM read_json('{flat}', format='newline_delimited')) TO '{path}' (FORMAT parquet)")
    assert kind().sniff(first_row_as_json(path), "export.parquet.jsonl") > 0.9
    (record,) = read(kind(), path)
    assert record.request.fields == {"text": v.QUESTION}
    assert record.request.at == v.AT
    assert record.completion.text == "bug"


FAILURES = {
    "otel error": (OtelSpans, v.traces(v.span(v.OTEL_NEW | {"error.type": "timeout"}, status={"code": 2})), "timeout"),
    "langfuse error": (Langfuse, v.LANGFUSE | {"level": "ERROR", "status_message": "overloaded"}, "overloaded"),
    "langsmith error": (LangSmith, v.LANGSMITH | {"error": "RateLimitError", "outputs": None}, "RateLimitError"),
    "helicone status": (Helicone, v.HELICONE | {"response_status": 429}, "429"),
    "litellm failure": (LiteLLM, v.LITELLM | {"status": "failure", "error_str": "boom", "response": {}}, "boom"),
    "bedrock error": (Bedrock, v.BEDROCK | {"errorCode": "ThrottlingException", "output": {}}, "Throttling"),
    "bedrock cut": (Bedrock, STREAM | {"output": {"outputBodyJson": STREAM["output"]["outputBodyJson"][:2]}}, "None"),
    "claude cut short": (AnthropicMessages, CLAUDE | {"response": v.claude(stop="max_tokens")}, "max_tokens"),
    "claude refusal": (AnthropicMessages, CLAUDE | {"response": v.claude(stop="refusal")}, "refusal"),
    "otel length": (OtelSpans, v.traces(v.span(v.OTEL_NUMBERED | {"gen_ai.completion.0.finish_reason": "length"})), "length"),
    "helicone cut": (Helicone, v.HELICONE | {"response_body": v.chat(finish=None)}, "None"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_failed_or_cut_answer_is_traffic_but_no_label(tmp_path, case):
    """The request stays, the completion says why it can't be learned from."""
    kind, row, word = FAILURES[case]
    record = one(tmp_path, kind, row)
    assert record.request.fields == {"text": v.QUESTION}
    assert word in record.completion.reason
    assert record.completion.finish != "stop"


UNREADABLE = {
    "otel no content": (OtelSpans, v.traces(v.span(v.COMMON | v.USAGE)), "opt-in"),
    "langfuse no input": (Langfuse, v.LANGFUSE | {"input": ""}, "no input"),
    "langsmith no messages": (LangSmith, v.LANGSMITH | {"inputs": {"x": 1}}, "neither messages nor prompts"),
    "helicone no body": (Helicone, v.HELICONE | {"request_body": None, "signed_body_url": "https://x"}, "--include-body"),
    "litellm no prompts": (LiteLLM, v.SPEND | {"proxy_server_request": "{}"}, "store_prompts_in_spend_logs"),
    "bedrock in s3": (Bedrock, v.BEDROCK | {"input": {"inputBodyS3Path": "s3://b/k"}}, "s3://b/k"),
    "stored without messages": (OpenAIChat, v.chat(), "/messages"),
    "an image": (AnthropicMessages, CLAUDE | {"request": {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}}, "'image'"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_a_log_does_not_hold_is_said_with_the_remedy(tmp_path, case):
    """Content that was never logged, or lies elsewhere, is a skipped row that names where to switch it on."""
    kind, row, word = UNREADABLE[case]
    skipped = one(tmp_path, kind, row)
    assert isinstance(skipped, Skipped)
    assert word in skipped.reason
    assert skipped.where.startswith("log.jsonl:1")


def test_entries_that_are_no_calls_are_counted_and_fields_that_are_not_understood_are_named(tmp_path):
    """Spans, chains, embeddings and strange fields appear in the notes, not in the log and not nowhere."""
    cases = [
        (Langfuse, v.LANGFUSE | {"type": "SPAN"}, "an observation of type SPAN"),
        (LangSmith, v.LANGSMITH | {"run_type": "chain"}, "a run of type chain"),
        (LiteLLM, v.LITELLM | {"call_type": "aembedding"}, "a call of type aembedding"),
        (Bedrock, v.BEDROCK | {"operation": "InvokeGuardrail"}, "an operation InvokeGuardrail"),
        (OtelSpans, v.traces(v.span({"http.route": "/"})), "a span that is no model call"),
    ]
    for kind, row, why in cases:
        importer = kind()
        assert read(importer, written(tmp_path, [row, row])) == []
        assert importer.notes.passed == {why: 2}
    for kind, row in (CASES["langfuse"], CASES["langsmith openai"], CASES["helicone"], CASES["litellm payload"], CASES["bedrock converse"]):
        importer = kind()
        read(importer, written(tmp_path, [row | {"brand_new": {"a": 1}}]))
        assert importer.notes.ignored == {"brand_new": 1}
        importer = kind()
        read(importer, written(tmp_path, [row]))
        assert not importer.notes.ignored
    importer = OtelSpans()
    read(importer, written(tmp_path, [v.traces(v.span(v.OTEL_NEW | {"my.own": 1}))]))
    assert importer.notes.ignored == {"my.own": 1}


def test_one_bad_span_does_not_take_the_others_with_it(tmp_path):
    """A document of several spans gives each its own fate."""
    spans = [v.span(v.OTEL_NEW), v.span(v.COMMON), v.span(v.OTEL_NEW) | {"startTimeUnixNano": "soon"}, v.span(v.OTEL_NEW | {"gen_ai.response.id": "2"})]
    rows = read(OtelSpans(), written(tmp_path, [v.traces(*spans)]))
    assert [isinstance(row, TrafficRecord) for row in rows] == [True, False, False, True]
    assert len({row.where for row in rows if isinstance(row, Skipped)}) == 2


TOOLS = [
    {"role": "user", "content": v.QUESTION},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"id": 7}'}}]},
    {"role": "tool", "tool_call_id": "c1", "content": "blocked"},
]
CLAUDE_TOOLS = [
    {"role": "user", "content": v.QUESTION},
    {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "look", "input": {"id": 7}}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "blocked"}]}]},
]
CONVERSE_TOOLS = [
    {"role": "user", "content": [{"text": v.QUESTION}]},
    {"role": "assistant", "content": [{"toolUse": {"toolUseId": "c1", "name": "look", "input": {"id": 7}}}]},
    {"role": "user", "content": [{"toolResult": {"toolUseId": "c1", "content": [{"text": "blocked"}]}}]},
]
OTEL_TOOLS = [
    {"role": "user", "parts": [{"type": "text", "content": v.QUESTION}]},
    {"role": "assistant", "parts": [{"type": "tool_call", "id": "c1", "name": "look", "arguments": {"id": 7}}]},
    {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "result": "blocked"}]},
]


@pytest.mark.parametrize(("kind", "row"), [
    (OpenAIChat, {"request": {"messages": TOOLS}, "response": v.chat()}),
    (AnthropicMessages, {"request": {"messages": CLAUDE_TOOLS}, "response": v.claude()}),
    (Bedrock, v.BEDROCK | {"input": {"inputBodyJson": {"messages": CONVERSE_TOOLS}}}),
    (OtelSpans, v.traces(v.span({k: x for k, x in v.OTEL_NEW.items() if "system_in" not in k} | {"gen_ai.input.messages": json.dumps(OTEL_TOOLS)}))),
])  # fmt: skip
def test_tool_calls_and_their_results_are_kept(tmp_path, kind, row):
    """The question is the input; what was called and what came back stay beside it, and the row says that the answer rests on it."""
    record = one(tmp_path, kind, row)
    assert record.request.fields == {"text": v.QUESTION}
    asked, answered = record.context
    assert (asked.role, answered.role, answered.text, answered.call_id) == ("assistant", "tool", "blocked", "c1")
    (call,) = asked.calls
    assert (call.name, json.loads(call.arguments), call.id) == ("look", {"id": 7}, "c1")
    assert record.request.attributes["tool_results"] == "1"
    assert record.completion.text == "bug"


def test_an_answer_that_calls_a_tool_is_kept_and_is_no_label(tmp_path):
    """Whose answer is a tool call is traffic with the call beside it."""
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    rows = [
        (OpenAIChat, {"request": {"messages": v.MESSAGES}, "response": v.chat(None, "tool_calls", tool_calls=[call])}),
        (AnthropicMessages, CLAUDE | {"response": v.claude([{"type": "tool_use", "id": "c1", "name": "look", "input": {}}], "tool_use")}),
    ]
    for kind, row in rows:
        record = one(tmp_path, kind, row)
        assert record.calls == (ToolCall(name="look", arguments="{}", id="c1"),)
        assert "called a tool" in record.completion.reason


def test_batch_results_are_joined_with_their_requests_whatever_the_order(tmp_path):
    """Results come unordered; each finds its own request, and failures and strangers are named."""
    bodies = {f"c{i}": {"model": "big", "messages": [{"role": "user", "content": f"question {i}"}]} for i in range(4)}
    openai_in = written(tmp_path, [{"custom_id": k, "method": "POST", "url": "/v1/chat/completions", "body": b} for k, b in bodies.items()], "in.jsonl")
    lines = [
        {"id": "b2", "custom_id": "c2", "response": {"status_code": 200, "request_id": "r", "body": v.chat()}, "error": None},
        {"id": "b0", "custom_id": "c0", "response": {"status_code": 429, "body": {"error": {"message": "slow"}}}, "error": None},
        {"id": "b1", "custom_id": "c1", "response": None, "error": {"code": "batch_expired"}},
        {"id": "b9", "custom_id": "stranger", "response": {"status_code": 200, "body": v.chat()}, "error": None},
    ]
    out = written(tmp_path, lines, "out.jsonl")
    good, limited, expired, stranger = read(OpenAIBatch(), out, ColumnMapping(fields=("text",), inputs=openai_in))
    assert (good.request.id, good.request.fields["text"], good.completion.text, good.completion.reason) == ("c2", "question 2", "bug", None)
    assert (limited.request.fields["text"], "429" in limited.completion.reason) == ("question 0", True)
    assert (expired.request.fields["text"], "batch_expired" in expired.completion.reason) == ("question 1", True)
    assert "stranger" in stranger.reason
    asked = read(OpenAIBatch(), openai_in)
    assert [row.request.fields["text"] for row in asked] == [f"question {i}" for i in range(4)]
    assert all(row.completion is None for row in asked)

    claude_in = written(tmp_path, [{"custom_id": k, "params": b | {"system": "S"}} for k, b in bodies.items()], "cin.jsonl")
    results = [
        {"custom_id": "c3", "result": {"type": "succeeded", "message": v.claude()}},
        {"custom_id": "c1", "result": {"type": "expired"}},
    ]
    done, late = read(AnthropicBatch(), written(tmp_path, results, "cout.jsonl"), ColumnMapping(fields=("text",), inputs=claude_in))
    assert (done.request.fields["text"], done.completion.text, done.completion.tokens_in) == ("question 3", "bug", 12)
    assert "expired" in late.completion.reason
    assert OpenAIBatch().sniff(out.read_bytes(), "out.jsonl") > 0.9
    assert AnthropicBatch().sniff((tmp_path / "cout.jsonl").read_bytes(), "cout.jsonl") > 0.9
    with pytest.raises(DataError, match="answers only"):
        read(OpenAIBatch(), out)
    with pytest.raises(DataError, match="no request"):
        read(OpenAIBatch(), out, ColumnMapping(fields=("text",), inputs=written(tmp_path, [{"a": 1}], "none.jsonl")))


def test_a_mapping_reaches_into_a_vendors_row(tmp_path):
    """Gold, session or time can be named by a dotted path over what the vendor's format says."""
    mapping = ColumnMapping(fields=("text",), columns={"gold": "metadata.requester_metadata.queue", "session": "trace_id"})
    row = v.LITELLM | {"metadata": {"requester_metadata": {"queue": "billing"}}}
    record = one(tmp_path, LiteLLM, row, mapping)
    assert (record.gold, record.request.session) == ("billing", "t")
    with pytest.raises(DataError, match="no row has the mapped column"):
        read(LiteLLM(), written(tmp_path, [v.LITELLM]), ColumnMapping(fields=("text",), columns={"gold": "metadata.nope"}))


def test_reading_hands_the_notes_over_with_the_rows(tmp_path):
    """The summary's notes belong to the file that was read and fill up with it."""
    from overproof.importers import reading

    path = written(tmp_path, [v.LANGFUSE, v.LANGFUSE | {"type": "EVENT"}])
    found = reading(path, TEXT, use="overproof.importers.langfuse:Langfuse")
    assert isinstance(found, Reading)
    assert not found.notes.passed
    assert len(list(found.rows)) == 1
    assert found.notes.passed == {"an observation of type EVENT": 1}


ODD = [None, 5, -1.5, True, "", "text", "{", [], [1], {}, {"a": 1}, [[]], [{}], "[{}]", '{"messages": 1}']


def paths_in(value, path=()):
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from paths_in(inner, (*path, key))


def planted(value, path, odd):
    if not path:
        return odd
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = planted(value[path[0]], path[1:], odd)
    return copy


@pytest.mark.parametrize("case", CASES)
def test_no_odd_value_anywhere_stops_an_import(tmp_path, case):
    """Any value of a row replaced by one of another kind: the row is read or kept aside, and the row after it is read."""
    kind, row = CASES[case]
    places = [path for path in paths_in(row) if path]
    rows = [planted(row, path, ODD[(i * 7 + j) % len(ODD)]) for i, path in enumerate(places) for j in range(4)]
    found = read(kind(), written(tmp_path, [*rows, row]))
    assert isinstance(found[-1], TrafficRecord)
    for one_of in found:
        assert isinstance(one_of, TrafficRecord | Skipped)
        if isinstance(one_of, TrafficRecord):
            json.dumps([dict(one_of.request.fields), dict(one_of.request.attributes)])
            assert all(isinstance(text, str) for text in one_of.request.attributes.values())
            assert one_of.completion is None or isinstance(one_of.completion.text, str)
