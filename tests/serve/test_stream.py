"""What a response that passes by says, whatever its bytes are and however they are split."""

import gzip
import json
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overproof.outputs import Classes
from overproof.serve.stream import MOST_BYTES, MOST_LINE, Summary

SSE = [(b"content-type", b"text/event-stream; charset=utf-8")]
JSON = [(b"content-type", b"application/json")]


def event(**chunk) -> bytes:
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def piece(text=None, *, finish=None, index=0, **delta) -> dict:
    return {"index": index, "delta": {**({} if text is None else {"content": text}), **delta}, "finish_reason": finish}


def part(*args, **kwargs) -> bytes:
    return event(id="c1", model="m-1", system_fingerprint="fp", choices=[piece(*args, **kwargs)])


DONE = b"data: [DONE]\n\n"
USAGE = event(model="m-1", choices=[], usage={"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}})
GOOD = part("", role="assistant") + part("Zü") + b": ping\n\n" + part("rich") + part(finish="stop") + USAGE + DONE


def chat(content="Zürich", *, finish="stop", choices=1, **message) -> bytes:
    one = {"index": 0, "message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}
    return json.dumps({"id": "c1", "model": "m-1", "choices": [one] * choices, "usage": {"prompt_tokens": 9, "completion_tokens": 2}}).encode()


def read(body: bytes, headers=SSE, *, status=200, whole=True, cuts=(), secret="") -> Summary:
    summary = Summary(status, headers, secret=secret)
    at = 0
    for cut in sorted(min(c, len(body)) for c in cuts):
        summary.feed(body[at:cut])
        at = cut
    summary.feed(body[at:])
    summary.end(whole=whole)
    return summary


def facts(summary: Summary) -> tuple:
    return (
        summary.completion(), summary.complete, summary.calls, summary.done, summary.ended, summary.begun, summary.failed,
        summary.finish_reason, summary.model, summary.tokens_in, summary.tokens_out,
    )  # fmt: skip


def test_a_stream_adds_up_to_its_answer() -> None:
    """Text, model, fingerprint, usage and end; nothing speaks against a label."""
    said = read(GOOD)
    found = said.completion(output=Classes(labels=("Zürich", "Bern")), latency_s=0.5, cost_usd=0.1)
    assert said.complete
    assert (found.text, found.value, found.model, found.fingerprint, found.finish, found.reason) == ("Zürich", "Zürich", "m-1", "fp", "stop", None)
    assert (found.tokens_in, found.tokens_out, found.tokens_cached, found.latency_s, found.cost_usd) == (9, 2, 4, 0.5, 0.1)


def test_a_json_body_says_the_same() -> None:
    """Chat, and the older completions."""
    found = read(chat(), JSON)
    assert found.complete
    assert (found.completion().text, found.completion().reason, found.tokens_out) == ("Zürich", None, 2)
    old = json.dumps({"model": "m-1", "choices": [{"index": 0, "text": "Bern", "finish_reason": "stop", "logprobs": None}]}).encode()
    assert (read(old, JSON).completion().text, read(old, JSON).completion().reason) == ("Bern", None)
    streamed = event(model="m-1", choices=[{"index": 0, "text": "Be", "finish_reason": None}]) + event(
        model="m-1", choices=[{"index": 0, "text": "rn", "finish_reason": "stop"}]
    )
    assert (read(streamed + DONE).completion().text, read(streamed + DONE).completion().reason) == ("Bern", None)


TWO = event(model="m-1", choices=[piece("a"), piece("b", index=1)]) + event(model="m-1", choices=[piece(finish="stop"), piece(finish="stop", index=1)])
CALL = [{"index": 0, "id": "t1", "function": {"name": "look", "arguments": '{"q"'}}]
MORE = [{"index": 0, "function": {"arguments": ": 1}"}}]
NEVER = {
    "no [DONE]": (SSE, 200, part("a", finish="stop"), "without [DONE]"),
    "no finish": (SSE, 200, part("a") + DONE, "without a finish_reason"),
    "nothing": (SSE, 200, b"", "no choices"),
    "only [DONE]": (SSE, 200, DONE, "no choices"),
    "error event": (SSE, 200, part("a") + event(error={"message": "overloaded"}) + DONE, "overloaded"),
    "bad event": (SSE, 200, part("a") + b"data: {oops\n\n" + part(finish="stop") + DONE, "not a chunk"),
    "wrong type": (SSE, 200, part("a") + event(choices=[{"delta": {"content": 5}}]) + part(finish="stop") + DONE, "not a chunk"),
    "length": (SSE, 200, part("a", finish="length") + DONE, "'length'"),
    "filtered": (SSE, 200, part("a", finish="content_filter") + DONE, "'content_filter'"),
    "refusal": (SSE, 200, part(refusal="I can't") + part(finish="stop") + DONE, "refused"),
    "tool call": (SSE, 200, part(tool_calls=CALL) + part(tool_calls=MORE, finish="stop") + DONE, "tool"),
    "empty": (SSE, 200, part(" ") + part(finish="stop") + DONE, "empty"),
    "two choices": (SSE, 200, TWO + DONE, "2 choices"),
    "text after the end": (SSE, 200, part("a", finish="stop") + part("b") + DONE, "after its end"),
    "text after [DONE]": (SSE, 200, part("a", finish="stop") + DONE + part("b"), "after its end"),
    "other events": (SSE, 200, b"event: response.created\n" + event(type="response.created"), "no choices"),
    "half json": (JSON, 200, chat()[:-3], "not JSON"),
    "json error": (JSON, 200, b'{"model": "m", "error": {"message": "overloaded"}}', "overloaded"),
    "http error": (JSON, 429, b'{"error": {"message": "slow down"}}', "HTTP 429: slow down"),
    "json length": (JSON, 200, chat(finish="length"), "'length'"),
    "json refusal": (JSON, 200, chat(None, refusal="no"), "refused"),
    "json tool": (JSON, 200, chat(None, tool_calls=[{"id": "t", "function": {"name": "n", "arguments": "{}"}}]), "tool"),
    "json empty": (JSON, 200, chat(""), "empty"),
    "json two": (JSON, 200, chat(choices=2), "2 choices"),
    "json twice": (JSON, 200, chat()[:-1] + b', "model": "x"}', "twice"),
    "not an answer": (JSON, 200, b'{"model": "m", "data": [1]}', "no choices"),
    "a list": (JSON, 200, b"[1]", "not a JSON object"),
    "brotli": ([*JSON, (b"content-encoding", b"br")], 200, chat(), "'br'"),
    "two codings": ([*SSE, (b"content-encoding", b"gzip, br")], 200, GOOD, "not read"),
    "not gzip": ([*JSON, (b"content-encoding", b"gzip")], 200, chat(), "not gzip"),
    "half gzip": ([*JSON, (b"content-encoding", b"gzip")], 200, gzip.compress(chat())[:-6], "not whole gzip"),
    "half gzip stream": ([*SSE, (b"content-encoding", b"gzip")], 200, gzip.compress(GOOD)[:-6], "not whole gzip"),
}


@pytest.mark.parametrize("name", NEVER)
def test_what_can_never_be_a_label_says_why(name) -> None:
    """Every answer that is not a whole, plain, unrefused one carries a reason."""
    headers, status, body, why = NEVER[name]
    found = read(body, headers, status=status).completion(output=Classes(labels=("a", "Zürich")))
    assert why in (found.reason or "")
    assert found.value is None


@given(st.integers(0, len(GOOD)))
def test_a_stream_cut_at_any_byte_is_no_label_and_not_complete(at) -> None:
    """By its framing; and by its content too, up to the last marker, where the framing knows no better."""
    cut = read(GOOD[:at], whole=False)
    assert not cut.complete
    assert cut.completion().reason == "the answer was cut short"
    assert cut.completion().finish == "error"
    softly = read(GOOD[:at], whole=True)
    assert softly.complete == (at >= len(GOOD) - 2)
    assert (softly.completion().reason is None) == softly.complete


@given(st.integers(0, len(chat()) - 1))
def test_a_body_cut_at_any_byte_is_no_label_and_not_complete(at) -> None:
    """The same for JSON."""
    for whole in (True, False):
        assert not read(chat()[:at], JSON, whole=whole).complete
        assert read(chat()[:at], JSON, whole=whole).completion().reason


EVENTS = st.sampled_from(
    [
        part("a"), part("é"), part("\n\n"), part(finish="stop"), part(finish="length"), DONE, USAGE, b": c\n\n", b"\xef\xbb\xbf", b"\n", b"\r", b"\r\n",
        part("x").replace(b"\n", b"\r\n"), part("y").replace(b"\n", b"\r"), b'data: {"choices":\ndata: []}\n\n', b"event: x\nid: 1\ndata:\n\n",
        event(error={"message": "e"}), part(tool_calls=CALL), part(tool_calls=MORE), part(refusal="r"), b"data: nope\n\n", b"data: [1]\n\n", TWO,
        part("z")[:-1], b"data", b"retry: 5\n",
    ]
)  # fmt: skip


@given(st.lists(EVENTS, max_size=10).map(b"".join), st.lists(st.integers(0, 2000), max_size=12), st.booleans(), st.booleans())
@settings(max_examples=150)
def test_where_the_bytes_are_split_changes_nothing(body, cuts, whole, zipped) -> None:
    """Any split of any stream, compressed or not, gives the same summary as one piece, and as one byte at a time."""
    headers = [*SSE, (b"content-encoding", b"gzip")] if zipped else SSE
    body = gzip.compress(body) if zipped else body
    once = facts(read(body, headers, whole=whole))
    assert facts(read(body, headers, whole=whole, cuts=cuts)) == once
    assert facts(read(body, headers, whole=whole, cuts=range(len(body)))) == once


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["choices", "delta", "message", "content", "index", "error", "usage", "model", "tool_calls", "function",
                                       "arguments", "id", "finish_reason", "refusal", "text", "logprobs", "prompt_tokens", "x"]), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip


@given(
    st.one_of(st.binary(max_size=200), VALUES.map(lambda v: json.dumps(v).encode()), VALUES.map(lambda v: b"data: " + json.dumps(v).encode() + b"\n\n")),
    st.sampled_from([SSE, JSON, [], [(b"content-type", b"\xff")]]),
    st.sampled_from([b"", b"gzip", b"deflate", b"br", b"\xff, x"]),
    st.sampled_from([200, 204, 302, 500]),
    st.booleans(),
)  # fmt: skip
@settings(max_examples=120)
def test_garbage_is_summed_up_without_an_exception_and_is_no_label(body, headers, encoding, status, whole) -> None:
    """Random bytes and random JSON in every place: never an exception, never a label."""
    found = read(body, [*headers, (b"content-encoding", encoding)], status=status, whole=whole)
    facts(found)
    assert found.completion(output=Classes(labels=("a", "b"))).reason
    found.feed(b"more")
    found.end(whole=True)


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"error":' * 5000, b'{"usage":' + b"9" * 10_000 + b"}", b'{"model":"\\ud800"}'])
def test_json_that_breaks_readers_is_no_label(body) -> None:
    """Nested too deeply, numbers too long, half characters."""
    for headers, raw in ((JSON, body), (SSE, b"data: " + body + b"\n\n")):
        assert read(raw, headers).completion().reason


def test_memory_is_bounded() -> None:
    """A body, a line, or what a small body unpacks to, beyond the bounds is not kept."""
    summary = Summary(200, JSON)
    for _ in range(40):
        summary.feed(b"x" * (MOST_BYTES // 20))
    assert len(summary._raw) == 0
    summary.end(whole=True)
    assert "longer than" in (summary.completion().reason or "")
    line = read(b"data: " + b"x" * (MOST_LINE + 1) + b"\n\n" + GOOD)
    assert "longer than" in (line.completion().reason or "")
    bomb = gzip.compress(b"\0" * (MOST_BYTES * 9))
    for headers in (SSE, JSON):
        summary = read(bomb, [*headers, (b"content-encoding", b"gzip")])
        assert "longer than" in (summary.completion().reason or "")
        assert len(summary._raw) < 2_000_000


def test_compressed_bodies_are_read_from_a_copy() -> None:
    """gzip and zlib, plain and streamed."""
    for encoding, pack in ((b"gzip", gzip.compress), (b"deflate", zlib.compress)):
        for headers, body in ((SSE, GOOD), (JSON, chat())):
            found = read(pack(body), [*headers, (b"content-encoding", encoding)], cuts=(1, 5, 30))
            assert (found.completion().text, found.completion().reason, found.encoded) == ("Zürich", None, True)


def test_tool_calls_are_put_together() -> None:
    """Name and arguments, streamed in pieces or whole."""
    streamed = read(part(tool_calls=CALL) + part(tool_calls=MORE, finish="tool_calls") + DONE)
    whole = read(chat(None, finish="tool_calls", tool_calls=[{"id": "t1", "function": {"name": "look", "arguments": '{"q": 1}'}}]), JSON)
    for found in (streamed, whole):
        assert [(one.id, one.name, one.arguments) for one in found.calls] == [("t1", "look", '{"q": 1}')]


def test_the_upstreams_key_is_taken_out_of_what_is_kept() -> None:
    """A provider that echoes the key in a text or an error does not get it into the log."""
    for body, headers, status in ((GOOD.replace(b"rich", b"SeCret9"), SSE, 200), (chat("my SeCret9"), JSON, 200), (b'{"error": "bad key SeCret9"}', JSON, 401)):
        assert "SeCret9" not in repr(read(body, headers, status=status, secret="SeCret9").completion())
    assert "SeCret9" not in read(part("a") + event(error={"message": "SeCret9"}), secret="SeCret9").failed
