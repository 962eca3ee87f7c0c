"""A captured call and the import of the same call from a log are the same row; what can't be read is still a row."""

import gzip
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overproof.data import Completion, Served, ToolCall
from overproof.importers import ColumnMapping, read_file
from overproof.importers.calls import taker
from overproof.importers.turns import turns_of
from overproof.privacy.redact import Policy, Redactor
from overproof.serve.rows import CUT, LONGEST, TOO_LONG, Row, record_of, writable

REDACTOR = Redactor(Policy(), key=b"k" * 32)
MAPPING = ColumnMapping(fields=("subject", "body"), prompt="Subject: {subject}\nBody: {body}\nLabel:")
HOW = Served(route="teacher", reason="stage", stage="teacher-only", endpoint="/v1/chat/completions", status=200, latency_s=0.25, overhead_s=0.001)


def asking(*earlier, subject="It broke", body="Since noon", **more):
    last = {"role": "user", "content": f"Subject: {subject}\nBody: {body}\nLabel:"}
    return {"model": "big", "messages": [{"role": "system", "content": "Sort."}, *earlier, last], **more}


def reply(text="bug", finish="stop", **message):
    return {"id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000, "model": "big-2026",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}],
            "usage": {"prompt_tokens": 40, "completion_tokens": 3, "total_tokens": 43}}  # fmt: skip


def events(body, *, done=True, finish=True):
    """A response as its stream, one chunk for each character."""
    text, choice = body["choices"][0]["message"]["content"], body["choices"][0]
    head = {k: body[k] for k in ("id", "created", "model")}
    deltas = [{"role": "assistant", "content": ""}, *({"content": c} for c in text)]
    chunks = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    if finish:
        chunks.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]})
    chunks.append({**head, "choices": [], "usage": body["usage"]})
    return "".join(f"data: {json.dumps(c)}\n\n" for c in chunks).encode() + (b"data: [DONE]\n\n" if done else b"")


def captured(request, response, **more):
    raw = json.dumps(request).encode()
    given = {"id": "req-1", "at": 1_700_000_000.0, "served": HOW, "request": raw, "response": response,
             "fields": taker(MAPPING)(turns_of(request["messages"])).fields, "session": request.get("user")}  # fmt: skip
    return record_of(Row(**{**given, **more}))


def imported(tmp_path, request, response):
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps({"request": request, "response": response, "latency_s": 0.25}) + "\n")
    (record,) = read_file(path, MAPPING)
    return record


TOOL = {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"n": 1}'}}]}
CALLS = [
    (asking(), reply()),
    (asking(user="u-7", metadata={"tier": "gold", "label": "bug", "deep": {"x": 1}, "long": "y" * 300}), reply()),
    (asking({"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}), reply("größer: ünï \U0001f600")),
    (asking({"role": "user", "content": "look it up"}, TOOL, {"role": "tool", "tool_call_id": "c1", "content": "42"}), reply()),
    (asking(), reply("cut off", finish="length")),
    (asking(), reply("", finish="content_filter")),
    (asking(), reply(None, finish="tool_calls", tool_calls=TOOL["tool_calls"])),
    (asking(), reply(None, refusal="I can't")),
    (asking(), {"error": {"message": "no"}}),
]


@pytest.mark.parametrize(("request_body", "response_body"), CALLS)
def test_capture_and_import_give_the_same_row(tmp_path, request_body, response_body):
    """Fields, attributes, session, context, tool calls and the answer with its verdict; id, time and source are each one's own."""
    ours, theirs = captured(request_body, json.dumps(response_body).encode()), imported(tmp_path, request_body, response_body)
    assert ours.request.fields == theirs.request.fields
    assert ours.request.attributes == theirs.request.attributes
    assert ours.request.session == theirs.request.session
    assert ours.context == theirs.context
    assert ours.calls == theirs.calls
    assert ours.completion == theirs.completion
    assert replace(ours.served, asked="") == HOW


@pytest.mark.parametrize("body", [reply(), reply("two\nlines, ünï \U0001f600"), reply("long", finish="length")])
def test_a_stream_gives_the_row_that_the_whole_answer_gives(body):
    """In one piece, and in pieces that cut through characters."""
    whole, stream = captured(asking(), json.dumps(body).encode()), events(body)
    streamed = replace(HOW, streamed=True)
    for response in (stream, [stream[i : i + 7] for i in range(0, len(stream), 7)]):
        assert captured(asking(), response, served=streamed).completion == whole.completion


@pytest.mark.parametrize(
    ("response", "complete"),
    [(events(reply(), finish=False, done=False), False), (events(reply(), finish=False), True), (events(reply()), False),
     (events(reply())[:60], False), (json.dumps(reply()).encode()[:50], False), (json.dumps(reply()).encode(), False),
     (b'data: {"error": {"message": "overloaded"}}\n\n', True), (b"\x00\xff", True), (b"", True)],
)  # fmt: skip
def test_an_answer_that_was_cut_or_failed_can_t_become_a_label(response, complete):
    done = captured(asking(), response, complete=complete).completion
    assert done.finish == "error"
    assert done.reason


def test_the_first_of_several_streamed_answers_is_the_answer():
    """Chunks of the second must not be woven into the first."""
    chunks = [(0, "b"), (1, "X"), (0, "ug"), (1, "Y")]
    lines = [{"model": "m", "choices": [{"index": i, "delta": {"content": text}, "finish_reason": None}]} for i, text in chunks]
    lines += [{"model": "m", "choices": [{"index": i, "delta": {}, "finish_reason": "stop"}]} for i in (1, 0)]
    raw = "".join(f"data: {json.dumps(one)}\n\n" for one in lines).encode()
    done = captured(asking(), raw, served=replace(HOW, streamed=True)).completion
    assert (done.text, done.finish, done.reason) == ("bug", "stop", None)


def test_legacy_completions_are_read_whole_and_streamed():
    chunks = [{"model": "m", "choices": [{"text": text, "index": 0, "finish_reason": end}]} for text, end in (("b", None), ("ug", "stop"))]
    raw = "".join(f"data: {json.dumps(one)}\n\n" for one in chunks).encode() + b"data: [DONE]\n\n"
    body = json.dumps({"model": "m", "prompt": "hello"}).encode()
    whole = json.dumps({"model": "m", "choices": [{"text": "bug", "index": 0, "finish_reason": "stop"}]}).encode()
    found = [record_of(Row(id="a", at=0.0, served=HOW, request=body, response=response)) for response in (raw, whole)]
    assert [r.completion.text for r in found] == ["bug", "bug"]
    assert [r.completion.reason for r in found] == [None, None]
    assert found[0].request.fields == {"text": "hello"}


def test_a_packed_answer_is_unpacked_and_an_unknown_packing_is_no_label():
    raw = json.dumps(reply()).encode()
    assert captured(asking(), gzip.compress(raw), encoding="gzip").completion.text == "bug"
    odd = captured(asking(), b"\x1b\x00", encoding="br").completion
    assert (odd.text, odd.finish) == ("", "error")
    bomb = gzip.compress(b" " * 40_000_000)
    assert captured(asking(), bomb, encoding="gzip").completion.finish == "error"


@pytest.mark.parametrize("status", [400, 401, 429, 500, 503])
def test_an_error_is_a_row_that_says_so(status):
    done = captured(asking(), b"<html>no</html>", served=replace(HOW, status=status)).completion
    assert (done.finish, done.reason) == ("error", f"HTTP {status}")


def test_a_caller_who_left_and_an_answer_that_never_came_are_told():
    assert captured(asking(), b"", served=replace(HOW, status=0)).completion.reason == "nothing was sent"
    assert captured(asking(), events(reply(), done=False), complete=False, served=replace(HOW, status=499)).completion.reason == "HTTP 499"
    assert captured(asking(), events(reply()), complete=False).completion.reason == CUT


def test_what_is_not_recognised_has_the_text_that_discover_reads():
    raw = json.dumps(asking(subject="A")).encode()
    record = record_of(Row(id="x", at=0.0, served=replace(HOW, reason="unmatched"), request=raw, response=json.dumps(reply()).encode()))
    assert record.request.fields == {"text": "Subject: A\nBody: Since noon\nLabel:"}
    assert [turn.role for turn in record.context] == ["system"]
    embedding = record_of(Row(id="y", at=0.0, served=HOW, request=b'{"model": "e", "input": "some text"}', response=b'{"data": []}'))
    assert embedding.request.fields == {"text": "some text"}
    assert embedding.completion.reason


@settings(deadline=None)
@given(st.binary(max_size=200), st.binary(max_size=200), st.booleans(), st.booleans())
def test_no_bytes_whatever_break_the_reading(request, response, complete, streamed):
    """A row that can be written comes of everything."""
    row = Row(id="x", at=0.0, served=replace(HOW, streamed=streamed), request=request, response=response, complete=complete)
    writable(record_of(row), REDACTOR)


JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["messages", "role", "content", "choices", "message", "delta", "metadata", "usage", "text", "error", "prompt_tokens"]),
        inner, max_size=4), max_leaves=12,
)  # fmt: skip


@settings(deadline=None)
@given(JSONISH, JSONISH, st.booleans())
def test_no_json_whatever_breaks_the_reading(request, response, streamed):
    """Well-formed bodies of shapes that nobody foresaw."""
    raw = json.dumps(response).encode()
    row = Row(id="x", at=0.0, served=replace(HOW, streamed=streamed), request=json.dumps(request).encode(),
              response=b"data: " + raw + b"\n\n" if streamed else raw)  # fmt: skip
    writable(record_of(row), REDACTOR)


def test_long_texts_are_cut_marked_and_leave_no_half_of_a_secret():
    """A field that was cut marks the row; an answer that was cut is no label; entities across the edge are gone whole."""
    key = "sk-proj-" + "a1B2" * 40
    text = "x " * (LONGEST // 2 - 40) + key + " tail " * 3_000
    record = captured(asking(body=text), json.dumps(reply(text)).encode(), fields={"subject": "s", "body": text})
    done = writable(record, REDACTOR)
    assert done.served.truncated
    assert len(done.request.fields["body"]) <= LONGEST + 1
    assert done.request.fields["subject"] == "s"
    assert (done.completion.finish, done.completion.reason) == ("length", TOO_LONG)
    assert "a1B2a1B2" not in repr(done)
    short = writable(captured(asking(), json.dumps(reply()).encode()), REDACTOR)
    assert not short.served.truncated


def test_the_id_stays_and_everything_else_is_redacted():
    """An id of digits alone looks like a number of somebody's; feedback has to find it all the same."""
    how = replace(HOW, endpoint="/v1/files/maria@example.com", guess="mail maria@example.com", slice="by=maria@example.com")
    row = Row(id="030-1234-5678", at=0.0, served=how, request=json.dumps(asking(body="maria@example.com")).encode(),
              response=json.dumps(reply("to maria@example.com")).encode(), attributes={"from": "maria@example.com"},
              session="maria@example.com", fields={"subject": "s", "body": "maria@example.com"})  # fmt: skip
    done = writable(record_of(row), REDACTOR)
    assert done.request.id == "030-1234-5678"
    assert "maria@" not in repr(done)
    assert done.served.guess.startswith("mail <EMAIL_")


def test_what_the_gateway_knows_of_the_answer_needs_no_reading():
    """The student's answer comes as it is; tool calls of nobody."""
    given = Completion(text="bug", value="bug", model="overproof/inbox", cost_usd=0.0)
    record = captured(asking(), b"data: garbage", answer=given, served=replace(HOW, route="student"))
    assert replace(record.completion, reason=None) == given
    assert record.calls == ()
    assert ToolCall(name="a", arguments="{}") not in record.calls
