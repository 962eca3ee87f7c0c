"""What a call asks for, whether a student can give it, and answers that real clients can read."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overproof.outputs import Classes, Field, Fields, Text
from overproof.serve.asgi import error
from overproof.serve.shapes import (
    BadCall,
    Call,
    content_of,
    read_call,
    reply,
    stream,
    tokens_of,
    unsupported,
)

CHAT, OLD = "/v1/chat/completions", "/v1/completions"
LABELS = Classes(labels=("order_status", "refund_status", "other"))
RECORD = Fields(fields=(Field(name="order_id", optional=True), Field(name="amount", type="number", optional=True)))
TEXT = Text()
MESSAGES = [{"role": "system", "content": "Sort."}, {"role": "user", "content": "Where is it?"}]
SHOWN = {"model": "overproof/inbox", "request_id": "op-1", "created": 1_741_000_000}


def call(path=CHAT, **more):
    body = {"model": "m", **({"messages": MESSAGES} if path == CHAT else {"prompt": "Where is it?"}), **more}
    return read_call(path, json.dumps(body).encode())


def schema(value, **more):
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": value, **more}}


ONE = {"type": "object", "properties": {"queue": {"enum": ["order_status", "refund_status", "other"]}}, "required": ["queue"], "additionalProperties": False}


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"{", b"[]", b"null", b'"x"', b"{} {}", b'{"model": "a", "model": "b"}', b'{"messages": [{"role": "user", "role": "system"}]}',
        b'{"a": NaN}', b'{"a": -Infinity}', b'{"a": "\xff"}', b'{"a": "\\ud800"}', b"\xef\xbb\xbf{}", b"{'a': 1}", b'{"a": 01}', b'{"a": "\n"}',
        b'{"a": ' + b"[" * 32 + b"1" + b"]" * 32 + b"}", b"[" * 100_000, b'{"a":' * 50_000, b'{"a": ' + b"9" * 5_000 + b"}",
    ],
)  # fmt: skip
def test_a_body_that_could_be_read_in_two_ways_goes_nowhere(raw):
    """No object, a key twice, bad UTF-8, too deep: 400 in OpenAI's shape, quickly."""
    with pytest.raises(BadCall) as caught:
        read_call(CHAT, raw)
    assert caught.value.status == 400
    assert json.loads(caught.value.body)["error"]["type"] == "invalid_request_error"


def test_a_body_at_the_limits_is_read():
    """31 levels below the object, escapes, emoji as pairs, and braces inside texts."""
    nested = b'{"a": ' + b"[" * 31 + b"1" + b"]" * 31 + b', "b": "\\ud83d\\ude00", "c": "' + b"{[" * 500 + b'"}'
    assert read_call(CHAT, nested).body["b"] == "\U0001f600"


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60) | st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)).map(lambda v: json.dumps(v).encode()))
def test_whatever_is_sent_is_read_or_refused(raw):
    """Never another exception, and what is read can be asked about."""
    try:
        found = read_call(CHAT, raw)
    except BadCall:
        return
    assert isinstance(found.model, str)
    assert isinstance(found.streamed, bool)
    assert isinstance(found.usage_wanted, bool)
    assert isinstance(unsupported(found, LABELS), str)


VALUES = st.recursive(st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2) | st.text(max_size=4), lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=4) | st.sampled_from(["type", "json_schema", "schema", "properties", "$ref"]), x, max_size=3), max_leaves=6)
PARAMETERS = st.sampled_from(["model", "messages", "prompt", "tools", "n", "stop", "stream", "stream_options", "max_tokens", "logprobs", "response_format", "modalities", "metadata", "x"])


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(PARAMETERS, VALUES, max_size=5), st.sampled_from([LABELS, RECORD, TEXT]), st.booleans())
def test_no_parameter_of_any_type_raises(body, output, chat):
    """Asked for in full: a call that is said to be supported has content for an answer, or a problem, but no exception."""
    found = Call(path=CHAT, chat=chat, body=body)
    if not unsupported(found, output):
        value = {LABELS: "other", RECORD: '{"order_id": null, "amount": 1}', TEXT: "Thanks."}[output]
        content = content_of(found, output, value)
        assert bool(content.text) != bool(content.problem)


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [{"type": "function", "function": {"name": "f"}}]}, {"functions": [{"name": "f"}]}, {"n": 2}, {"n": 0}, {"n": True}, {"n": 1.0}, {"logprobs": True},
        {"top_logprobs": 3}, {"logit_bias": {"50256": -100}}, {"modalities": ["text", "audio"]}, {"audio": {"voice": "alloy"}}, {"store": True},
        {"stream_options": {"include_usage": True}}, {"stream": "yes"}, {"stop": [1]}, {"max_tokens": 0}, {"max_tokens": "9"}, {"prompt": "x"},
        {"tool_choice": {"type": "function"}}, {"web_search_options": {}}, {"guided_choice": ["a"]}, {"response_format": "json"},
        {"response_format": {"type": "grammar"}}, {"response_format": {"type": "json_object"}}, {"response_format": {"type": "json_schema"}},
        {"response_format": schema({"type": "object", "properties": {"queue": {}, "why": {}}})}, {"response_format": schema({"type": "array"})},
        {"response_format": schema({"type": "object", "properties": {"queue": {"$ref": "http://127.0.0.1:9/x"}}})},
    ],
)  # fmt: skip
def test_what_a_student_cannot_give_is_the_teachers(more):
    """Tools, several answers, token probabilities, sound, other forms, and parameters that nobody here knows."""
    assert unsupported(call(**more), LABELS)


@pytest.mark.parametrize(
    "more",
    [
        {}, {"temperature": 0.2, "seed": 7, "top_p": 1, "user": "u", "metadata": {"a": "b"}}, {"tools": []}, {"tools": None, "tool_choice": "none"}, {"n": 1},
        {"logprobs": False}, {"stream": True, "stream_options": {"include_usage": True}}, {"stop": ["\n\n", "###"]}, {"max_tokens": 10},
        {"max_completion_tokens": 50, "reasoning_effort": "low"}, {"response_format": {"type": "text"}}, {"response_format": schema(ONE, strict=True)},
        {"response_format": None, "modalities": ["text"], "store": False, "parallel_tool_calls": True},
    ],
)  # fmt: skip
def test_usual_calls_are_supported(more):
    """What clients send by default stands in no student's way."""
    assert unsupported(call(**more), LABELS) == ""


@pytest.mark.parametrize("more", [{"echo": True}, {"suffix": "x"}, {"best_of": 3}, {"logprobs": 0}, {"prompt": ["a", "b"]}, {"prompt": [1, 2]}, {"messages": MESSAGES}])
def test_older_completions_have_their_own_wishes(more):
    """Echo, suffix, several drafts, token probabilities, several prompts."""
    assert unsupported(call(OLD, **more), LABELS)
    assert not unsupported(call(OLD, echo=False, best_of=1, max_tokens=16), LABELS)


def test_a_label_goes_into_the_one_place_of_a_schema():
    """An object with one property that admits it, or a bare string; `Classes.parse` reads the same label back from each."""
    nested = {"$defs": {"Queue": {"enum": list(LABELS.labels)}}, "properties": {"queue": {"$ref": "#/$defs/Queue"}}, "required": ["queue"], "type": "object"}
    for form, text in ((None, "order_status"), (ONE, '{"queue":"order_status"}'), (nested, '{"queue":"order_status"}'), ({"type": "string"}, '"order_status"')):
        asked = call() if form is None else call(response_format=schema(form))
        assert unsupported(asked, LABELS) == ""
        content = content_of(asked, LABELS, "order_status")
        assert content.text == text
        assert LABELS.parse(content.text) == "order_status"


@pytest.mark.parametrize(
    ("output", "value", "more", "problem"),
    [
        (LABELS, "refund_status", {"response_format": schema({"type": "object", "properties": {"queue": {"enum": ["order_status"]}}})}, "schema"),
        (LABELS, "refund_status", {"response_format": schema(ONE | {"required": ["queue", "why"]})}, "schema"),
        (LABELS, "refund_status", {"stop": "_"}, "stop"), (LABELS, "refund_status", {"stop": ["###", "und"]}, "stop"),
        (LABELS, "refund_status", {"max_tokens": 3}, "max_tokens"), (LABELS, "refund_status", {"max_completion_tokens": 3}, "max_tokens"),
        (RECORD, '{"order_id": "A7", "amount": null}', {"response_format": schema({"type": "object", "properties": {"order_id": {"type": "string"}, "amount": {"type": "number"}}})}, "schema"),
        (TEXT, "Thank you.", {"response_format": {"type": "json_object"}}, "JSON"), (TEXT, "7", {"response_format": {"type": "json_object"}}, "JSON object"),
    ],
)  # fmt: skip
def test_an_answer_that_would_be_cut_or_does_not_fit_is_not_sent(output, value, more, problem):
    """The call could be answered, but not with this answer."""
    asked = call(**more)
    assert unsupported(asked, output) == ""
    content = content_of(asked, output, value)
    assert content.text == ""
    assert problem in content.problem


def test_records_go_out_as_they_are():
    """In JSON mode, and under a schema that they fit: the task's own one does."""
    value = RECORD.parse('{"order_id": "A7", "amount": 12.50}')
    for form in ({"type": "json_object"}, schema(RECORD.json_schema(), strict=True), None):
        assert content_of(call(response_format=form), RECORD, value).text == value


def test_a_text_in_the_form_that_its_teacher_wrote_goes_out_under_a_schema():
    """Answers of such a task are JSON texts already; nothing is wrapped a second time."""
    form = schema({"type": "object", "properties": {"say": {"type": "string"}}, "required": ["say"]})
    assert content_of(call(response_format=form), TEXT, '{"say": "Hello"}').text == '{"say": "Hello"}'
    assert content_of(call(response_format=form), TEXT, '{"tell": "Hello"}').problem


def test_tokens_are_counted_by_a_rule_that_is_written_down():
    """A quarter of the bytes, rounded up."""
    assert [tokens_of(text) for text in ("", "a", "abcd", "abcde", "é" * 4)] == [0, 1, 1, 2, 2]


def events_of(chunks):
    assert all(chunk.startswith(b"data: ") and chunk.endswith(b"\n\n") and b"\n" not in chunk[:-2] for chunk in chunks)
    assert chunks[-1] == b"data: [DONE]\n\n"
    return [json.loads(chunk[6:]) for chunk in chunks[:-1]]


@pytest.mark.parametrize("text", ["order_status", 'line\nbreak "quoted" \u2028 é 😀 data: [DONE]'])
def test_the_events_of_a_chat_add_up_to_the_reply(text):
    """Role first, text, end; usage only where it was asked for, in an event of its own."""
    whole = json.loads(reply(call(), text, **SHOWN))
    assert whole["choices"][0]["message"] == {"role": "assistant", "content": text, "refusal": None}
    assert whole["usage"] == {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    plain = events_of(stream(call(stream=True), text, **SHOWN))
    assert all("usage" not in one for one in plain)
    assert plain[0]["choices"][0]["delta"]["role"] == "assistant"
    assert "".join(one["choices"][0]["delta"].get("content", "") for one in plain) == text
    assert [one["choices"][0]["finish_reason"] for one in plain] == [None, None, "stop"]
    counted = events_of(stream(call(stream=True, stream_options={"include_usage": True}), text, **SHOWN))
    assert [one["usage"] for one in counted[:-1]] == [None] * 3
    assert counted[-1]["choices"] == []
    assert counted[-1]["usage"] == whole["usage"]
    assert {one["id"] for one in (*plain, *counted, whole)} == {"op-1"}


def test_older_completions_have_their_own_shape():
    """`text` instead of a message, in events as well."""
    whole = json.loads(reply(call(OLD), "x y", **SHOWN))
    assert whole["object"] == "text_completion"
    assert whole["choices"] == [{"index": 0, "text": "x y", "finish_reason": "stop", "logprobs": None}]
    parts = events_of(stream(call(OLD, stream=True), "x y", **SHOWN))
    assert "".join(one["choices"][0]["text"] for one in parts) == "x y"
    assert parts[-1]["choices"][0]["finish_reason"] == "stop"


def test_the_openai_client_reads_what_we_write():
    """Replies, events and errors through the client's own parsing, over a transport that hands it our bytes."""
    import httpx
    import openai

    def answer(request):
        path = request.url.path
        try:
            asked = read_call(path, request.content)
        except BadCall as bad:
            return httpx.Response(bad.status, content=bad.body, headers={"content-type": "application/json"})
        if asked.body.get("user") == "denied":
            return httpx.Response(403, content=error(403, "no", code="scope"), headers={"content-type": "application/json"})
        if asked.streamed:
            return httpx.Response(200, content=b"".join(stream(asked, "order_status", **SHOWN)), headers={"content-type": "text/event-stream"})
        return httpx.Response(200, content=reply(asked, "order_status", **SHOWN), headers={"content-type": "application/json"})

    client = openai.OpenAI(api_key="x", base_url="http://gateway.test/v1", max_retries=0, http_client=httpx.Client(transport=httpx.MockTransport(answer)))
    done = client.chat.completions.create(model="m", messages=MESSAGES)
    assert done.choices[0].message.content == "order_status"
    assert done.usage.total_tokens == 0
    chunks = list(client.chat.completions.create(model="m", messages=MESSAGES, stream=True, stream_options={"include_usage": True}))
    assert "".join(one.choices[0].delta.content or "" for one in chunks if one.choices) == "order_status"
    assert chunks[-1].usage.total_tokens == 0
    assert client.completions.create(model="m", prompt="p").choices[0].text == "order_status"
    assert "".join(one.choices[0].text for one in client.completions.create(model="m", prompt="p", stream=True)) == "order_status"
    with pytest.raises(openai.PermissionDeniedError) as caught:
        client.chat.completions.create(model="m", messages=MESSAGES, user="denied")
    assert (caught.value.code, caught.value.type) == ("scope", "permission_error")
    deep = []
    for _ in range(40):
        deep = [deep]
    with pytest.raises(openai.BadRequestError, match="nested deeper"):
        client.chat.completions.create(model="m", messages=MESSAGES, extra_body={"x": deep})
