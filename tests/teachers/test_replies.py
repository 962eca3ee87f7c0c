"""Reading replies strictly: statuses, `Retry-After`, provider messages and bodies that two readers could read twice."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overproof.teachers.replies import Reply, provider_message, read_reply, retry_after_s, status_kind

GOOD = {
    "model": "m-1", "choices": [{"finish_reason": "stop", "message": {"content": "billing"}}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1},
}


def body(**changes: object) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def choice(**changes: object) -> bytes:
    return body(choices=[{**GOOD["choices"][0], **changes}])


def test_a_complete_body_is_read() -> None:
    """Text, model and usage come out, without a reason."""
    answer = read_reply(body())
    assert (answer.text, answer.reason, answer.model, answer.tokens_in, answer.tokens_out) == ("billing", "", "m-1", 3, 1)


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        (b"", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"\xff\xfe{}", "UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (body()[:-1], "not JSON"),
        (body() + body(), "not JSON"),
        (body().replace(b'"model"', b'"model": "m-1", "model"', 1), "twice"),
        (body().replace(b"3", b"NaN"), "NaN"),
        (body(error={"message": "overloaded"}), "200 with an error: overloaded"),
        (body(model=None), "no model"),
        (body(choices=[]), "no choices"),
        (body(choices={"0": 1}), "no choices"),
        (choice(finish_reason="length"), "length"),
        (choice(finish_reason=None), "None"),
        (choice(finish_reason="stop_sequence"), "stop_sequence"),
        (choice(message={"content": "billing", "refusal": "no"}), "refused"),
        (choice(message={"content": "billing", "tool_calls": [{}]}), "tool"),
        (choice(message={"content": ["billing"]}), "no text"),
        (choice(message=None), "no text"),
        (choice(message={"content": "\n\t "}), "empty"),
    ],
)
def test_a_doubtful_body_gets_a_reason(raw: bytes, word: str) -> None:
    """Each way of being incomplete or ambiguous is told apart."""
    assert word in read_reply(raw).reason


@given(st.integers(0, len(body()) - 1))
def test_no_proper_prefix_of_a_body_is_an_answer(size: int) -> None:
    """A body cut anywhere is never read as complete."""
    assert read_reply(body()[:size]).reason


@given(st.binary(max_size=300))
def test_noise_is_never_an_answer_and_never_an_exception(noise: bytes) -> None:
    """Random bytes are rejected with a reason."""
    assert read_reply(noise).reason


def test_odd_usage_is_unknown_not_wrong() -> None:
    """Negative, boolean and textual token counts are no counts."""
    answer = read_reply(body(usage={"prompt_tokens": True, "completion_tokens": -4}))
    assert (answer.tokens_in, answer.tokens_out, answer.reason) == (None, None, "")


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None), ("7", 7.0), (" 2.5 ", 2.5), ("-3", None), ("soon", None), ("1e9", None), ("", None),
        ("Thu, 01 Jan 2026 00:01:30 GMT", 90.0), ("Thu, 01 Jan 2020 00:00:00 GMT", 0.0),
    ],
)
def test_retry_after_is_read_as_seconds_or_date(header: str | None, seconds: float | None) -> None:
    """Delta seconds and HTTP dates become seconds that are never negative; anything else is no advice."""
    assert retry_after_s(header, now=datetime(2026, 1, 1, tzinfo=UTC)) == seconds


def test_statuses_map_to_kinds() -> None:
    """The table of the retry layer, and an empty account that says 429 for ever."""
    def kind(status: int, raw: bytes = b"") -> str:
        return status_kind(Reply(status=status, body=raw, retry_after=None, request_id=None))

    assert {kind(s) for s in (408, 425, 429, 500, 502, 503, 529)} == {"transient"}
    assert {kind(s) for s in (400, 404, 413, 422, 201, 418)} == {"permanent"}
    assert {kind(s) for s in (401, 402, 403, 301, 307)} == {"fatal"}
    assert kind(429, b'{"error": {"code": "insufficient_quota"}}') == "fatal"


def test_provider_messages_are_short_printable_and_without_keys() -> None:
    """The provider's own words are shown, but no control character, no length and no key gets through."""
    raw = json.dumps({"error": {"message": "bad\x1b[31m key sk-live-abcdef123456 or tok_77\r\n" + "x" * 500}}).encode()
    said = provider_message(raw, secret="tok_77")
    assert said.startswith("bad [31m key [key] or [key]")
    assert len(said) <= 200
    assert said.isprintable()
    assert provider_message(b"") == "no message"
    assert provider_message(b"<html>gateway timeout</html>") == "<html>gateway timeout</html>"
