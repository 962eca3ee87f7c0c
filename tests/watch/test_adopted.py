"""An answer that a caller got is the project's own label only where it is the answer to the project's own question."""

import asyncio
import json
from dataclasses import replace

import pytest

from overproof.data import Completion, Served, TeacherPin, digest_of
from overproof.errors import StoreError
from overproof.privacy.redact import Policy, Redactor
from overproof.project import load_project
from overproof.refresh import _adoptable, _marked_wrong
from overproof.serve.rows import Row, record_of, writable
from overproof.store.adopted import Adopted
from overproof.store.captured import Feedback
from overproof.store.labels import LedgeredTeacher, label_key
from overproof.store.money import Prices
from overproof.store.project_store import open_store
from overproof.teachers.openai import OpenAIOptions, OpenAITeacher

PROJECT = """
[task]
name = "sorting"
input = ["text"]
prompt = "prompt.md"
output = { classes = ["good", "bad"] }
[teacher]
use = "openai.v1"
base_url = "https://api.example.com/v1"
model = "big-2026-01-01"
max_tokens = 8
budget_usd = 1.0
price_in_usd_per_million = 1.0
price_out_usd_per_million = 1.0
[[student]]
use = "linear.v1"
[bars]
fidelity = 0.9
"""
TEXT = "the parcel came late and open"
REDACTOR = Redactor(Policy(), key=b"k" * 32)
HOW = Served(route="teacher", reason="below_threshold", stage="full", endpoint="/v1/chat/completions", status=200, latency_s=0.1, overhead_s=0.0, task="sorting")


@pytest.fixture(params=["Sort the message. Answer good or bad.", "Is this good or bad?\n{text}\nOne word:"], ids=["system", "template"])
def project(tmp_path, request):
    (tmp_path / "overproof.toml").write_text(PROJECT)
    (tmp_path / "prompt.md").write_text(request.param)
    return load_project(tmp_path)


def body(project, text=TEXT):
    """What the project itself would send."""
    options = OpenAIOptions(model="big-2026-01-01", base_url="https://api.example.com/v1", max_tokens=8, temperature=project.teacher.temperature)
    request = record("{}", text=text).request
    return OpenAITeacher(task=project.task, options=options)._fields(request, 0)


def record(raw, *, text=TEXT, number=1, how=HOW, answer="bad"):
    reply = {"model": "big-2026-01-01", "choices": [{"message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}]}
    row = Row(id=f"req-{number}", at=1.77e9, served=how, request=raw.encode(), response=json.dumps(reply).encode(), fields={"text": text})
    return writable(record_of(row), REDACTOR)


def test_the_project_s_own_question_is_known_again(project):
    """Streamed or not, by whatever user: the messages and the parameters are those of the project."""
    for more in ({}, {"stream": True, "stream_options": {"include_usage": True}}, {"user": "u1", "metadata": {"tier": "plus"}}):
        (found,) = _adoptable(project, [record(json.dumps(body(project) | more))]).values()
        assert (found.answer.value, found.request_id) == ("bad", "req-1")


@pytest.mark.parametrize("more", [{"temperature": 0.7}, {"max_tokens": 64}, {"top_p": 0.5}, {"seed": 1}, {"tools": []}, {"n": 2}])
def test_other_parameters_are_another_question(project, more):
    """Such an answer never fills the cache."""
    assert not _adoptable(project, [record(json.dumps(body(project) | more))])


def test_another_prompt_text_or_place_is_another_question(project):
    """A word more, an earlier turn, a redacted input, the student's answer, another address: none of them is taken."""
    ours = body(project)
    last = ours["messages"][-1]
    longer = ours | {"messages": [*ours["messages"][:-1], last | {"content": last["content"] + " Think first."}]}
    turns = ours | {"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}, *ours["messages"]]}
    parts = ours | {"messages": [{"role": "user", "content": [{"type": "text", "text": TEXT}]}]}
    assert not _adoptable(project, [record(json.dumps(one)) for one in (longer, turns, parts)])
    private = "write to dana.ruiz@example.org about it"
    told = record(json.dumps(body(project, private)), text=private)
    assert "dana" not in told.request.fields["text"]
    assert told.served.asked == ""
    good = json.dumps(ours)
    assert not _adoptable(project, [record(good, how=replace(HOW, route="student"))])
    assert not _adoptable(project, [record(good, answer="neither")])
    elsewhere = replace(project, gateway=replace(project.gateway, upstream="https://other.example.com/v1"))
    assert _adoptable(project, [record(good)])
    assert not _adoptable(elsewhere, [record(good)])


def test_an_adopted_answer_is_in_the_ledger_at_no_cost_and_with_its_origin(tmp_path):
    """The teacher isn't asked again; a label that was bought stays; provenance names the call."""
    pin = TeacherPin(use="openai.v1", provider="p", model="big", revision="1", prompt_digest="d")
    request = record("{}").request
    key, said = label_key(pin, digest_of({}), request), Completion(text="BAD", value="bad", model="big", cost_usd=0.5)
    with open_store(tmp_path) as store, store.role("run"):
        store.ledger.open_run("r", cap_usd=0.0)
        one = Adopted(key=key, request_id="req-9", answer=said)
        assert store.adopted.put([one], run_id="refresh", clearance_id="c1") == 1
        assert store.adopted.put([replace(one, request_id="req-10", answer=replace(said, value="good"))], run_id="refresh", clearance_id="c1") == 0
        assert store.adopted.origins() == {key: "req-9"}
        assert store.ledger.under() == {"c1": 1}
        assert store.ledger.spent_usd == 0.0

        class Never:
            free = False

            async def attempt(self, *_, **__):
                raise AssertionError("nobody may be asked")

            async def close(self):
                pass

        prices = Prices(usd_per_million_in=1.0, usd_per_million_out=1.0)
        teacher = LedgeredTeacher(Never(), store.ledger, pin=pin, prices=prices, clearance_id="c1", run_id="r", output_digest=digest_of({}))
        (answer,) = asyncio.run(teacher.sample(request, n=1))
        assert (answer.value, answer.cost_usd) == ("bad", 0.0)
        store.ledger.honour({"another"})
        assert store.ledger.get(key).value is None  # the terms gate holds for it as for any label
        with pytest.raises(StoreError, match="has no value"):
            store.adopted.put([one, Adopted(key="k", request_id="x", answer=replace(said, value=None))], run_id="refresh", clearance_id="c1")


def test_what_a_caller_contradicts_or_rates_down_is_marked(tmp_path, project):
    """A label that agrees, a good rating and a comment mark nothing."""
    words = [("label", "GOOD"), ("label", "bad"), ("rating", "-1"), ("rating", "0.9"), ("comment", "bad!"), ("rating", "0.2")]
    rows = [record("{}", number=i) for i in range(len(words))]
    with open_store(tmp_path) as store:
        store.traffic.append(rows, "gateway")
        said = [[Feedback(request_id=f"req-{i}", at="2026-03-01T00:00:00Z", key="", kind=kind, value=value)] for i, (kind, value) in enumerate(words)]
        assert all(store.captured.commit([], {}, said))
        assert _marked_wrong(store, project, rows) == {"req-0", "req-2", "req-5"}
