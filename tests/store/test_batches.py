"""Batches behind the ledger, against a real server with both providers' endpoints: matched by name, sent once, half price."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from overproof.data import Request, TeacherPin
from overproof.errors import BudgetExceeded, TeacherError
from overproof.store.batches import BatchedTeacher, BatchHabits
from overproof.store.money import Prices
from overproof.store.project_store import open_store
from overproof.task import Classes, Task
from overproof.teachers.anthropic import AnthropicOptions, AnthropicTeacher
from overproof.teachers.openai import OpenAIOptions, OpenAITeacher
from overproof.testing import MODEL, hashed_labels
from overproof.testing_batch import BatchFaults, BatchProvider

LABELS = ("billing", "bug", "safety")
TASK = Task(name="routing", input=("text",), output=Classes(labels=LABELS), prompt="Answer with one label.")
ANSWER = hashed_labels(LABELS)
REQUESTS = [Request(id=f"r{i}", fields={"text": f"message {i}"}) for i in range(40)]
FAST = BatchHabits(gather_s=0.02, poll_s=0.02, settle_s=0.2)
KINDS = {"openai.v1": (OpenAITeacher, OpenAIOptions), "anthropic.v1": (AnthropicTeacher, AnthropicOptions)}


def teacher_of(use: str, base_url: str):
    part, options = KINDS[use]
    return part(
        task=TASK,
        options=options(
            model=MODEL, base_url=base_url, allow_private=True, price_in_usd_per_million=0.5, price_out_usd_per_million=2.0
        ),
    )


def wrapped(store, use: str, base_url: str, habits: BatchHabits = FAST) -> BatchedTeacher:
    pin = TeacherPin(use=use, provider="test", model=MODEL, revision="1", prompt_digest=TASK.prompt_digest)
    return BatchedTeacher(
        teacher_of(use, base_url), store.ledger, pin=pin, clearance_id="c1", run_id="r1", habits=habits,
        prices=Prices(usd_per_million_in=0.5, usd_per_million_out=2.0, usd_per_million_dearest=0.625),
    )


def ask_all(root: Path, use: str, base_url: str, *, n: int = 1, cap_usd: float = 10.0, habits: BatchHabits = FAST):
    root.mkdir(exist_ok=True)
    with open_store(root) as store, store.role("run"):
        store.ledger.open_run("r1", cap_usd=cap_usd)
        teacher = wrapped(store, use, base_url, habits)

        async def go():
            try:
                return await asyncio.wait_for(asyncio.gather(*(teacher.sample(r, n=n) for r in REQUESTS)), 60)
            finally:
                await teacher.close()

        return asyncio.run(go()), store.ledger.counts()


@pytest.mark.parametrize("use", KINDS)
def test_one_batch_answers_every_row_whatever_the_order(tmp_path: Path, use: str) -> None:
    """Forty rows and two samples are one batch; each row gets its own answer; nothing stays held."""
    with BatchProvider(ANSWER) as server:
        answers, counts = ask_all(tmp_path, use, server.base_url, n=2)
        stats = server.batch_stats()
    for request, found in zip(REQUESTS, answers, strict=True):
        assert [c.value for c in found] == [ANSWER(request.text)] * 2
    assert (stats["batches"], stats["rows"], counts.labels, counts.held_usd) == (1, 80, 80, 0.0)
    assert counts.attempts == {"ok": 80}


@pytest.mark.parametrize("use", KINDS)
def test_only_the_rows_that_a_batch_left_out_are_sent_again(tmp_path: Path, use: str) -> None:
    """Expired, missing, refused, cut and garbled rows go into the next batch; answered ones never do."""
    rates = {"expired": 0.15, "missing": 0.1, "errored": 0.1, "wrong_label": 0.1, "length": 0.1, "garbled": 0.05}
    with BatchProvider(ANSWER, batch=BatchFaults(rates=rates, seed=3)) as server:
        answers, counts = ask_all(tmp_path, use, server.base_url)
        stats = server.batch_stats()
    assert all(found[0].value == ANSWER(r.text) for r, found in zip(REQUESTS, answers, strict=True))
    assert counts.labels == 40
    assert stats["batches"] == 2
    assert 5 < stats["rows"] - 40 < 40
    assert stats["most_per_row"] == 2
    assert counts.held_usd == 0.0


@pytest.mark.parametrize("use", KINDS)
def test_a_row_without_a_result_is_charged_at_its_most(tmp_path: Path, use: str) -> None:
    """Nobody can say whether it was answered and billed, so the ledger holds more than the answers cost."""
    with BatchProvider(ANSWER, batch=BatchFaults(rates={"missing": 0.5}, seed=3)) as server:
        answers, counts = ask_all(tmp_path, use, server.base_url)
    answered = sum(found[0].cost_usd for found in answers)
    assert counts.spent_usd > answered * 1.01


@pytest.mark.parametrize("use", KINDS)
@pytest.mark.parametrize("fault", [{"create_cut": 1}, {"create_busy": 2}])
def test_a_batch_whose_making_went_unheard_is_found_and_not_made_twice(tmp_path: Path, use: str, fault: dict) -> None:
    """The answer to the making is lost, or the provider is busy: there is one batch in the end."""
    if use == "anthropic.v1":  # without metadata only an ended batch can be told; here it ends at the first look
        fault = {**fault, "polls": 1}
    with BatchProvider(ANSWER, batch=BatchFaults(**fault)) as server:
        answers, _ = ask_all(tmp_path, use, server.base_url)
        stats = server.batch_stats()
    assert all(found[0].value for found in answers)
    assert (stats["batches"], stats["most_per_row"]) == (1, 1)


def test_a_cap_that_does_not_cover_the_batch_sends_none_of_it(tmp_path: Path) -> None:
    """All rows are reserved or none."""
    with BatchProvider(ANSWER) as server:
        with pytest.raises(BudgetExceeded):
            ask_all(tmp_path, "openai.v1", server.base_url, cap_usd=0.0005)
        assert server.batch_stats()["batches"] == 0
    with open_store(tmp_path) as store:
        assert (store.ledger.counts().held_usd, store.ledger.counts().spent_usd) == (0.0, 0.0)


@pytest.mark.parametrize("use", KINDS)
def test_the_providers_word_on_when_to_look_again_comes_before_our_habit(tmp_path: Path, use: str) -> None:
    """It asks for a twentieth of a second; by our own habit nobody would look for eleven days."""
    with BatchProvider(ANSWER, batch=BatchFaults(polls=3, again_s=0.05)) as server:
        answers, _ = ask_all(tmp_path, use, server.base_url, habits=BatchHabits(gather_s=0.02, poll_s=1e6))
    assert [found[0].value for found in answers] == [ANSWER(request.text) for request in REQUESTS]


def test_a_refused_batch_stops_the_run_and_frees_the_money(tmp_path: Path) -> None:
    """A provider without batch endpoints says 404: an error for the user, nothing held, nothing charged."""
    with BatchProvider(ANSWER) as server, pytest.raises(TeacherError, match="404"):
        ask_all(tmp_path, "openai.v1", server.base_url.replace("/v1", "/v2"))
    with open_store(tmp_path) as store:
        counts = store.ledger.counts()
        assert (counts.held_usd, counts.spent_usd, counts.attempts) == (0.0, 0.0, {"transient": 40})


@pytest.mark.parametrize("use", KINDS)
def test_killed_at_any_moment_no_row_is_sent_or_billed_twice(tmp_path: Path, use: str) -> None:
    """kill -9 while a batch is planned, handed in, waited for or read; the next process finishes the same batch."""
    with BatchProvider(ANSWER, batch=BatchFaults(polls=8)) as server:
        for turn in range(6):
            root = tmp_path / f"{use}-{turn}"
            root.mkdir()
            before = server.batch_stats()
            process = subprocess.Popen(
                [sys.executable, __file__, str(root), use, server.base_url], env=os.environ, stdout=subprocess.PIPE
            )
            assert process.stdout is not None
            process.stdout.readline()  # its first question is on its way
            time.sleep(0.02 + 0.06 * turn)
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stdout.close()
            answers, counts = ask_all(root, use, server.base_url)
            assert all(found[0].value == ANSWER(r.text) for r, found in zip(REQUESTS, answers, strict=True))
            after = server.batch_stats()
            assert (counts.labels, counts.held_usd) == (40, 0.0)
            assert after["answered"] - before["answered"] == 40, f"turn {turn}"
            assert after["rows"] - before["rows"] == 40, f"turn {turn}"


def main() -> None:
    """What the killed process does."""
    root, use, base_url = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    sys.stdout.write("go\n")
    sys.stdout.flush()
    json.dumps(len(ask_all(root, use, base_url)[0]))


if __name__ == "__main__":
    main()
