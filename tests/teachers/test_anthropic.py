"""The Messages API against a real server: what is sent, what is read, what it costs, what each failure means."""

import asyncio
import json

import pytest

from overproof.data import Request
from overproof.errors import TeacherError
from overproof.task import Classes, Task
from overproof.teachers.anthropic import AnthropicOptions, AnthropicTeacher
from overproof.teachers.replies import limits_of, read_message
from overproof.testing import MODEL, Faults, FaultTeacher, hashed_labels, teacher_conformance
from overproof.testing_batch import BatchProvider

LABELS = ("billing", "bug")
TASK = Task(name="t", input=("text",), output=Classes(labels=LABELS), prompt="Answer with one label.")
REQUEST = Request(id="r", fields={"text": "hello"})
ANSWER = hashed_labels(LABELS)
PRICES = {"price_in_usd_per_million": 1.0, "price_out_usd_per_million": 5.0, "price_cached_usd_per_million": 0.1}


def teacher(server: FaultTeacher, **options) -> AnthropicTeacher:
    given = {"model": MODEL, "base_url": server.base_url, "allow_private": True, "timeout_s": 1.0, **options}
    return AnthropicTeacher(task=TASK, options=AnthropicOptions(**given))


def outcomes(asked: AnthropicTeacher, n: int = 1):
    async def go():
        found = [await asked.attempt(REQUEST, sample_index=i) for i in range(n)]
        await asked.close()
        return found

    return asyncio.run(go())


def test_it_keeps_the_promises_of_a_teacher() -> None:
    """The conformance suite, with faults."""
    with BatchProvider(ANSWER, faults=Faults(rates={"500": 0.1, "length": 0.1, "cut": 0.1}, seed=1)) as server:
        teacher_conformance(
            lambda: teacher(server), requests=[Request(id=str(i), fields={"text": str(i)}) for i in range(3)], labels=LABELS
        )


def test_the_instructions_come_first_and_are_marked_for_the_cache() -> None:
    """System block with the mark, the message alone after it; the second answer is priced as read from the cache."""
    with BatchProvider(ANSWER) as server:
        first, second = outcomes(teacher(server, **PRICES), 2)
        body = server.bodies[0]
    assert body["system"] == [{"type": "text", "text": TASK.prompt, "cache_control": {"type": "ephemeral"}}]
    assert body["messages"] == [{"role": "user", "content": "hello"}]
    assert (body["max_tokens"], body["temperature"], body["model"]) == (64, 0.0, MODEL)
    assert first.completion.tokens_in == second.completion.tokens_in == 50
    assert first.completion.cost_usd == pytest.approx((20 * 1.0 + 30 * 1.25 + 3 * 5) / 1e6)
    assert second.completion.cost_usd == pytest.approx((20 * 1.0 + 30 * 0.1 + 3 * 5) / 1e6)
    assert second.completion.tokens_cached == 30
    assert first.limits.requests_per_minute == 1000


def test_without_the_cache_nothing_is_marked() -> None:
    """cache = false sends plain instructions."""
    with BatchProvider(ANSWER) as server:
        outcomes(teacher(server, cache=False))
        assert "cache_control" not in json.dumps(server.bodies[0])


@pytest.mark.parametrize(
    ("fate", "kind"),
    [("ok", "ok"), ("length", "bad"), ("refusal", "bad"), ("tool_call", "bad"), ("no_finish", "bad"), ("empty", "bad"),
     ("wrong_label", "bad"), ("wrong_model", "fatal"), ("429", "transient"), ("500", "transient"), ("cut", "transient"),
     ("400", "permanent"), ("401", "fatal"), ("402", "fatal")],
)  # fmt: skip
def test_every_end_of_an_answer_has_its_meaning(fate: str, kind: str) -> None:
    """Only a complete answer with a label is ok; 529 is worth another try, 401 is not."""
    with BatchProvider(ANSWER, faults=Faults(script=(fate,))) as server:
        (found,) = outcomes(teacher(server))
    assert found.kind == kind, found.reason
    assert (found.completion is not None and found.completion.value is not None) == (kind == "ok")
    if fate == "500":
        assert found.http_status == 529
    if fate == "429":
        assert found.retry_after_s == 1.0


def test_the_key_goes_in_its_own_header_and_is_never_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """x-api-key carries it; an error that echoes it is cleaned."""
    monkeypatch.setenv("OP_KEY", "sk-ant-secret-000000000000")
    with BatchProvider(ANSWER, faults=Faults(api_key="sk-ant-secret-000000000000", script=("400",))) as server:
        found = outcomes(teacher(server, api_key_env="OP_KEY"), 2)
    assert [f.kind for f in found] == ["permanent", "ok"]
    assert "secret" not in found[0].reason


def test_what_cannot_be_sent_is_refused() -> None:
    """A field that the package sets, or a base URL inside the network."""
    with pytest.raises(TeacherError, match="extra"):
        AnthropicTeacher(task=TASK, options=AnthropicOptions(model=MODEL, extra={"messages": []}))
    with pytest.raises(TeacherError):
        AnthropicTeacher(task=TASK, options=AnthropicOptions(model=MODEL, base_url="http://127.0.0.1/v1"))


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"type":"error","error":{"message":"x"}}', b'{"content":"bug"}', b'{"content":[1]}'])
def test_doubtful_bodies_are_reasons(body: bytes) -> None:
    """Nothing is read into what isn't there."""
    assert read_message(body).reason


def test_rate_limit_headers_of_both_providers_are_read() -> None:
    """Durations, moments and numbers; headers of others say nothing."""
    ours = {"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m1.5s"}
    found = limits_of(ours, prefix="x-ratelimit-")
    assert (found.requests_per_minute, found.requests_left, found.requests_reset_s) == (60, 0, 61.5)
    theirs = {"anthropic-ratelimit-tokens-limit": "80000", "anthropic-ratelimit-tokens-reset": "2000-01-01T00:00:00Z"}
    found = limits_of(theirs, prefix="anthropic-ratelimit-")
    assert (found.tokens_per_minute, found.tokens_reset_s) == (80000, 0.0)
    assert limits_of(theirs, prefix="x-ratelimit-") is None
    assert limits_of({"x-ratelimit-reset-requests": "soon"}, prefix="x-ratelimit-") is None
