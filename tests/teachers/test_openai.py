"""The OpenAI-compatible teacher against a real server on loopback: what is a label, what is not, and what leaks."""

import asyncio
import json
import logging
import subprocess
import sys
import time

import pytest

from overproof.data import Outcome, Request
from overproof.errors import TeacherError
from overproof.task import Classes, Task
from overproof.teachers import messages_for
from overproof.teachers.openai import CHUNK_BYTES, MAX_BODY_BYTES, OpenAIOptions, OpenAITeacher
from overproof.testing import BILLED, FAULTS, MODEL, Faults, FaultTeacher, check_outcome

LABELS = ("billing", "bug")
TASK = Task(name="routing", input=("text",), output=Classes(labels=LABELS), prompt="Answer with one label.")
SECRET = "sk-canary-5f2c9a77d1"


def ask(server: FaultTeacher, *, times: int = 1, text: str = "I was charged twice", **options: object) -> list[Outcome]:
    settings = {"model": MODEL, "api_key_env": None, "allow_private": True, "timeout_s": 5.0, **options}
    teacher = OpenAITeacher(task=TASK, options=OpenAIOptions(base_url=server.base_url, **settings))

    async def run() -> list[Outcome]:
        request = Request(id="r", fields={"text": text})
        found = [await teacher.attempt(request, sample_index=i) for i in range(times)]
        await teacher.close()
        return found

    return asyncio.run(run())


def served(fault: str = "ok", **faults: object) -> FaultTeacher:
    return FaultTeacher(lambda _: "billing", faults=Faults(script=(fault,) * 50, **faults))


def test_a_good_answer_becomes_a_label_with_its_usage_time_and_cost() -> None:
    """The answer is parsed and carries tokens, latency and what it cost at the given prices."""
    with served() as server:
        (outcome,) = ask(server, price_in_usd_per_million=2.0, price_out_usd_per_million=8.0)
    found = outcome.completion
    assert (outcome.kind, found.value, found.text, found.model, found.finish) == ("ok", "billing", "billing", MODEL, "stop")
    assert found.tokens_in > 0
    assert found.tokens_out > 0
    assert found.cost_usd == pytest.approx((found.tokens_in * 2 + found.tokens_out * 8) / 1e6)
    assert 0 < found.latency_s < 5
    assert outcome.request_id == "fault"


def test_reading_stops_at_the_size_cap() -> None:
    """Of a 9 MiB body no more than the cap and one chunk is held, and the reason says so."""
    with served("huge") as server:
        teacher = OpenAITeacher(
            task=TASK,
            options=OpenAIOptions(model=MODEL, api_key_env=None, base_url=server.base_url, allow_private=True),
        )

        async def run() -> tuple[int, Outcome]:
            request = Request(id="r", fields={"text": "a"})
            reply = await teacher._send(teacher._body(request, 0), "")
            outcome = await teacher.attempt(request, sample_index=0)
            await teacher.close()
            return len(reply.body), outcome

        size, outcome = asyncio.run(run())
    assert MAX_BODY_BYTES < size <= MAX_BODY_BYTES + CHUNK_BYTES
    assert outcome.reason == f"the answer is larger than {MAX_BODY_BYTES} bytes"


def test_without_prices_the_cost_is_unknown_rather_than_zero() -> None:
    """No price means no figure."""
    with served() as server:
        (outcome,) = ask(server, price_in_usd_per_million=2.0)
    assert outcome.completion.cost_usd is None


@pytest.mark.parametrize("fault", FAULTS)
def test_no_fault_ever_becomes_a_label(fault: str) -> None:
    """Every fault the server knows ends as a reasoned outcome without a value, though most bodies hold a right label."""
    with served(fault, hang_s=60, slow_byte_s=0.05) as server:
        (outcome,) = ask(server, timeout_s=0.6)
    check_outcome(outcome, LABELS)
    assert outcome.kind != "ok"
    assert outcome.completion is None or outcome.completion.value is None


KINDS = {
    "400": "permanent", "404": "permanent", "401": "fatal", "402": "fatal", "redirect": "fatal", "429": "transient", "429_absurd": "transient",
    "500": "transient", "hang": "transient", "slow": "transient", "cut": "transient", "cut_chunked": "transient",
    "wrong_model": "fatal",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_has_the_kind_that_the_retry_layer_needs(fault: str) -> None:
    """Transport and overload are transient, refusals of the request permanent, accounts and pins fatal, the rest bad."""
    with served(fault, hang_s=60) as server:
        (outcome,) = ask(server, timeout_s=0.6)
    assert outcome.kind == KINDS.get(fault, "bad"), outcome.reason


def test_ten_percent_faults_of_every_kind_leave_only_right_labels() -> None:
    """Under a random mix of all billed faults, whatever is accepted is exactly what the model said when it was well."""
    rates = {fault: 0.035 for fault in FAULTS if fault not in ("hang", "slow", "huge")}
    with FaultTeacher(lambda _: "billing", faults=Faults(rates=rates, seed=3)) as server:
        outcomes = ask(server, times=400)
        stats = server.stats
    accepted = [o for o in outcomes if o.kind == "ok"]
    assert len(accepted) == stats.fates["ok"] > 20
    assert {o.completion.value for o in accepted} == {"billing"}
    assert stats.wire == 400
    assert len(stats.fates) >= 18


def test_the_deadline_is_on_the_whole_answer_not_on_silence() -> None:
    """A body that trickles a byte every 50 ms fails at the deadline although the line is never silent for long."""
    with served("slow", slow_byte_s=0.05) as server:
        began = time.monotonic()
        (outcome,) = ask(server, timeout_s=1.0)
        took = time.monotonic() - began
    assert outcome.kind == "transient"
    assert "1 s" in outcome.reason
    assert 0.9 < took < 10  # the whole body takes longer


def test_retry_after_surfaces() -> None:
    """What a 429 asks us to wait reaches the retry layer as seconds."""
    with served("429", retry_after_s=17) as server:
        (outcome,) = ask(server)
    assert (outcome.kind, outcome.http_status, outcome.retry_after_s) == ("transient", 429, 17.0)


def test_one_attempt_is_one_wire_request() -> None:
    """Nothing below the ledger repeats a request, whatever happened to it."""
    for fault in ("500", "cut", "429", "bad_json", "redirect"):
        with served(fault) as server:
            ask(server, times=3)
            assert server.stats.wire == 3


def test_a_billed_bad_answer_keeps_its_usage() -> None:
    """The ledger can settle an answer that was refused as a label at what it really cost."""
    for fault in sorted({"length", "refusal", "wrong_label", "empty", "wrong_model"} & set(BILLED)):
        with served(fault) as server:
            (outcome,) = ask(server, price_in_usd_per_million=1.0, price_out_usd_per_million=1.0)
        assert outcome.completion.cost_usd > 0, fault


def test_another_model_is_fatal_and_named() -> None:
    """An answer of a model that is not pinned stops the run, and the outcome says which model it was."""
    with served("wrong_model") as server:
        (outcome,) = ask(server)
    assert outcome.kind == "fatal"
    assert outcome.completion.model == f"{MODEL}-other"
    assert f"{MODEL}-other" in outcome.reason


def test_a_pinned_fingerprint_must_come_back() -> None:
    """A server without the pinned fingerprint is another teacher."""
    with served() as server:
        (outcome,) = ask(server, fingerprint="fp_1")
    assert outcome.kind == "fatal"


def test_a_server_that_is_not_there_is_transient_and_was_not_billed() -> None:
    """A refused connection is worth another try, and certainly sent nothing."""
    with served() as server:
        pass
    (outcome,) = ask(server)
    assert (outcome.kind, outcome.sent) == ("transient", False)


def test_the_request_carries_key_prompt_text_and_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key goes into the header, and a wrong one is fatal."""
    monkeypatch.setenv("OP_TEST_KEY", SECRET)
    with served(api_key=SECRET) as server:
        (outcome,) = ask(server, api_key_env="OP_TEST_KEY")
        assert outcome.kind == "ok"
        monkeypatch.setenv("OP_TEST_KEY", "sk-wrong-000000")
        (outcome,) = ask(server, api_key_env="OP_TEST_KEY")
        assert outcome.kind == "fatal"


def test_no_key_is_sent_unless_the_owner_names_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that lies in the environment for another provider stays there, and a refusal says what is missing."""
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    with served(api_key=SECRET) as server:
        teacher = OpenAITeacher(
            task=TASK, options=OpenAIOptions(model=MODEL, base_url=server.base_url, allow_private=True)
        )

        async def run() -> Outcome:
            try:
                return await teacher.attempt(Request(id="r", fields={"text": "a"}), sample_index=0)
            finally:
                await teacher.close()

        outcome = asyncio.run(run())
    assert outcome.kind == "fatal"
    assert "api_key_env" in outcome.reason


@pytest.mark.parametrize("value", ["", "  ", "sk-a\r\nX-Evil: 1", "sk-ключ"])
def test_a_missing_or_malformed_key_stops_before_the_wire(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """Nothing is sent, and the message names the variable but not its value."""
    monkeypatch.setenv("OP_TEST_KEY", value)
    with served() as server:
        (outcome,) = ask(server, api_key_env="OP_TEST_KEY")
        assert server.stats.wire == 0
    assert (outcome.kind, outcome.sent) == ("fatal", False)
    assert "OP_TEST_KEY" in outcome.reason
    assert not value.strip() or value.strip() not in outcome.reason


def test_no_secret_reaches_an_outcome_a_log_or_a_repr(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever fails, at debug level and with a provider that echoes it, the key appears nowhere."""
    monkeypatch.setenv("OP_TEST_KEY", SECRET)
    caplog.set_level(logging.DEBUG)
    seen = []
    for fault in FAULTS:
        server = FaultTeacher(lambda _: f"Incorrect API key: {SECRET}", faults=Faults(script=(fault,), hang_s=9))
        with server:
            seen += [repr(o) for o in ask(server, api_key_env="OP_TEST_KEY", timeout_s=0.4)]
    teacher = OpenAITeacher(task=TASK, options=OpenAIOptions(model=MODEL, api_key_env="OP_TEST_KEY"))
    text = "\n".join([*seen, caplog.text, repr(teacher), repr(vars(teacher))])
    assert SECRET not in text
    assert "[key]" in text


def test_what_is_sent_is_all_in_the_pin_parameters() -> None:
    """Every body field besides model, messages and stream is in `parameters`, so that the cache key holds it."""
    with served() as server:
        teacher = OpenAITeacher(
            task=TASK,
            options=OpenAIOptions(
                model=MODEL, base_url=server.base_url, allow_private=True, temperature=0.7, seed=5, max_tokens=9,
                max_tokens_field="max_completion_tokens", extra={"reasoning_effort": "low"},
            ),
        )
        bodies = [json.loads(teacher._body(Request(id="r", fields={"text": "a"}), i)) for i in (0, 2)]
    assert [b.pop("seed") for b in bodies] == [5, 7]
    assert bodies[0] == bodies[1]
    assert set(bodies[0]) - {"model", "messages", "stream"} | {"seed"} == set(teacher.parameters)
    assert teacher.parameters == {
        "max_completion_tokens": 9, "reasoning_effort": "low", "seed": 5, "temperature": 0.7,
    }


@pytest.mark.parametrize("options", [{"extra": {"model": "x"}}, {"timeout_s": 0}, {"max_tokens": 0}])
def test_options_that_can_not_be_sent_are_refused(options: dict) -> None:
    """A clash with what the package sets, or a deadline of nothing, is an error at once."""
    with pytest.raises(TeacherError):
        OpenAITeacher(task=TASK, options=OpenAIOptions(model=MODEL, **options))


def test_a_teacher_survives_a_new_event_loop() -> None:
    """Runs in two loops one after the other both get answers: connections belong to a loop."""
    with served() as server:
        teacher = OpenAITeacher(
            task=TASK,
            options=OpenAIOptions(model=MODEL, api_key_env=None, base_url=server.base_url, allow_private=True),
        )

        async def once() -> Outcome:
            try:
                return await teacher.attempt(Request(id="r", fields={"text": "a"}), sample_index=0)
            finally:
                await teacher.close()

        assert [asyncio.run(once()).kind for _ in range(2)] == ["ok", "ok"]


def rendered(prompt: str, **fields: str) -> list[tuple[str, str]]:
    task = Task(name="t", input=tuple(fields), output=Classes(labels=LABELS), prompt=prompt)
    return [(m.role, m.content) for m in messages_for(task, Request(id="r", fields=fields))]


def test_a_prompt_without_places_is_the_system_message() -> None:
    """The fields then follow as the user's message, in the task's order."""
    assert rendered("Route this.", subject="Hi", body="No") == [("system", "Route this."), ("user", "Hi\n\nNo")]


def test_places_are_filled_once_and_no_field_is_lost() -> None:
    """A caller's text that looks like a place stays text, other braces stay, unnamed fields follow."""
    assert rendered('Route {subject}, {body} as {"label": 1}.', subject="{body}", body="{subject}", note="N") == [
        ("user", 'Route {body}, {subject} as {"label": 1}.\n\nN')
    ]


def test_without_the_extra_the_error_names_what_to_install() -> None:
    """Where the HTTP client is missing, asking for the part says which extra brings it."""
    code = (
        "import sys; sys.modules['aiohttp'] = None\n"
        "from overproof import errors, registry\n"
        "try: registry.resolve('teachers', 'openai.v1')\n"
        "except errors.MissingExtra as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'overproof[teach]'" in done.stdout
