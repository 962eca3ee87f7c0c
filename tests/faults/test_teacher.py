"""A teacher in trouble, over real HTTP; `make bench-reliability` asks for 10,000 faulty answers."""

import json
import os
import urllib.request

import pytest
from benchmarks.reliability import teacher

from overproof.testing import MODEL, Faults, FaultTeacher

ANSWERS = int(os.environ.get("OVERPROOF_ANSWERS", "10500"))
slow = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.mark.parametrize("n", [240, pytest.param(ANSWERS, marks=slow)])
def test_no_faulty_answer_is_accepted_and_every_sound_one_is(n):
    """Each fault in turn, for labels and for records; the same server's sound answers pass, so that refusing all is no way out."""
    tried, taken = teacher.accepted(n, timeout_s=0.5)
    print(dict(tried))
    assert taken == {"ok": tried["ok"]}
    assert len(tried) >= 29
    assert min(tried.values()) > 0


@pytest.mark.parametrize("rows", [300, pytest.param(10_000, marks=slow)])
def test_a_run_outlives_a_tenth_of_faults_with_few_extra_calls(rows):
    """Every label is right; hardly a row is dropped, for bad answers three times in a row; the wire carries at most 1.15 requests for each; the books hold every call."""
    run = teacher.outlived(rows, seed=1)
    print(run)
    assert (run["in the ledger"], run["bad labels"]) == (run["labels"], 0)
    assert run["labels"] >= 0.998 * rows
    assert run["faults"] > 0.05 * rows
    assert run["wire per label"] <= teacher.MOST_WIRE
    assert run["calls in the books"] == run["wire requests"]


@pytest.mark.parametrize("fault", teacher.HALTS)
def test_a_run_halts_where_going_on_would_mix_teachers_or_wait_for_ever(fault):
    """What it had stays; nothing is added."""
    found = teacher.halted(fault)
    assert found["labels"] == found["good"]
    assert found["ended"] == ("another teacher" if fault.startswith(("wrong_model", "other_")) else "stopped")


def streamed(server: FaultTeacher) -> str:
    body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    asked = urllib.request.Request(f"{server.base_url}/chat/completions", data=json.dumps(body).encode())
    with urllib.request.urlopen(asked, timeout=5) as response:
        return response.read().decode()


def test_it_streams_and_leaves_the_end_out_where_that_is_the_fault():
    """A stream that ends cleanly without saying so is what tempts a reader most."""
    with FaultTeacher(lambda _: "billing", faults=Faults(script=("ok", "no_done")), fingerprint="fp_1") as server:
        whole, open_ended = streamed(server), streamed(server)
    events = [json.loads(line[6:]) for line in whole.split("\n\n") if line.startswith("data: {")]
    assert "".join(e["choices"][0]["delta"].get("content", "") for e in events) == "billing"
    assert (events[-1]["choices"][0]["finish_reason"], events[0]["system_fingerprint"]) == ("stop", "fp_1")
    assert whole.endswith("data: [DONE]\n\n")
    assert "bil" in open_ended
    assert "[DONE]" not in open_ended
    assert '"stop"' not in open_ended


def test_a_swapped_model_keeps_its_id_and_answers_otherwise():
    """No single answer shows it; rounds of canary prompts do (tests/steps/test_canaries.py)."""
    with FaultTeacher(lambda _: "a", other=lambda _: "b", faults=Faults(swapped_after=2)) as server:
        said = []
        for _ in range(4):
            body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}).encode()
            with urllib.request.urlopen(urllib.request.Request(f"{server.base_url}/chat/completions", data=body), timeout=5) as response:
                answer = json.load(response)
            said.append((answer["model"], answer["choices"][0]["message"]["content"]))
        assert server.stats.fates == {"ok": 2, "swapped": 2}
    assert said == [(MODEL, "a")] * 2 + [(MODEL, "b")] * 2
