"""
A teacher in trouble: no faulty answer becomes a label, a run outlives a tenth of faults, and halts where another teacher answers.

Real HTTP to `overproof.testing.FaultTeacher`, our own teacher part, verifier and ledger:
python -m benchmarks.reliability.teacher --answers 10000 --rows 2000 --seed 1.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from overproof.data import Request, TeacherPin
from overproof.errors import PinMismatch, TeacherError
from overproof.outputs import Field, Fields
from overproof.store.labels import LedgeredTeacher
from overproof.store.money import Prices
from overproof.store.project_store import open_store
from overproof.task import Classes, Task
from overproof.teachers.openai import OpenAIOptions, OpenAITeacher
from overproof.testing import FAULTS, MODEL, Faults, FaultTeacher, hashed_labels

LABELS = ("billing", "bug", "how-to", "other")
LABEL = hashed_labels(LABELS)
HUGE = 8
"""Answers of 9 MB each are tried only so often."""
OUTLIVED = (
    "429", "500", "hang", "slow", "cut", "cut_chunked", "cut_unframed", "bad_json", "duplicate_key", "wrong_label", "wrong_schema",
    "refusal", "length", "filtered", "no_finish", "no_done", "tool_call", "empty", "no_choices", "error_200",
)  # fmt: skip
"""What a run goes on after; the others stop it, or are the request's own fault."""
HALTS = ("401", "402", "redirect", "429_absurd", "wrong_model", "other_fingerprint")
MOST_WIRE = 1.15


def record_of(text: str) -> str:
    """The right answer of the second task."""
    return json.dumps({"topic": LABEL(text), "number": len(text)})


TASKS: dict[str, tuple[Task, Callable[[str], str]]] = {
    "label": (Task(name="l", input=("text",), output=Classes(labels=LABELS), prompt="One label."), LABEL),
    "record": (
        Task(
            name="r", input=("text",), prompt="One record.",
            output=Fields(fields=(Field(name="topic", type="choice", values=LABELS), Field(name="number", type="number"))),
        ),
        record_of,
    ),
}  # fmt: skip


def request(number: int) -> Request:
    return Request(id=f"r{number}", fields={"text": f"message {number} {hashlib.sha256(str(number).encode()).hexdigest()}"})


def asked_of(server: FaultTeacher, task: Task, timeout_s: float) -> OpenAITeacher:
    options = OpenAIOptions(model=MODEL, base_url=server.base_url, allow_private=True, timeout_s=timeout_s, fingerprint="fp_1")
    return OpenAITeacher(task=task, options=options)


def accepted(answers: int, *, timeout_s: float = 1.0, concurrency: int = 32) -> tuple[Counter[str], Counter[str]]:
    """
    Answers that are all faulty, every fault in turn, for both tasks.

    Returns: how often each fault was tried, and how often its answer was accepted. "ok" is no fault: all of these must be.
    """
    tried: Counter[str] = Counter()
    bad: Counter[str] = Counter()
    kinds = ("ok", *FAULTS, "other_fingerprint")
    each = -(-answers // (len(kinds) * len(TASKS)))
    for task, answer in TASKS.values():
        for fault in kinds:
            n = min(each, HUGE) if fault == "huge" else each
            with FaultTeacher(answer, faults=Faults(rates={} if fault == "ok" else {fault: 1.0}, slow_byte_s=0.1), fingerprint="fp_1") as server:
                teacher = asked_of(server, task, timeout_s)
                todo = iter(range(n))

                async def work(teacher: OpenAITeacher, todo: Any, fault: str) -> None:
                    for number in todo:
                        outcome = await teacher.attempt(request(number), sample_index=0)
                        bad[fault] += outcome.kind == "ok" or (outcome.completion is not None and outcome.completion.value is not None)

                async def go(teacher: OpenAITeacher, todo: Any, fault: str) -> None:
                    await asyncio.gather(*(work(teacher, todo, fault) for _ in range(concurrency)))
                    await teacher.close()

                asyncio.run(go(teacher, todo, fault))
                tried[fault] += server.stats.fates[fault]
    return tried, +bad


def outlived(rows: int, seed: int, *, share: float = 0.1, timeout_s: float = 1.0, concurrency: int = 32) -> dict[str, Any]:
    """A run through the ledger while a share of all wire requests fails, in every way that a run outlives."""
    task, answer = TASKS["record"]
    faults = Faults(rates=dict.fromkeys(OUTLIVED, share / len(OUTLIVED)), seed=seed, retry_after_s=0.05, slow_byte_s=0.1)
    got: dict[int, Any] = {}
    with tempfile.TemporaryDirectory() as root, FaultTeacher(answer, faults=faults, fingerprint="fp_1") as server, open_store(Path(root)) as store:
        with store.role("run"):
            store.ledger.open_run("r", cap_usd=1e3)
            ledgered = ledgered_of(store, asked_of(server, task, timeout_s), task)
            todo = iter(range(rows))

            async def work() -> None:
                for number in todo:
                    (got[number],) = await ledgered.sample(request(number), n=1)

            async def go() -> None:
                try:
                    await asyncio.gather(*(work() for _ in range(concurrency)))
                finally:
                    await ledgered.close()

            asyncio.run(go())
        stats, counts = server.stats, store.ledger.counts()
    wrong = sum(one.value is not None and one.value != task.output.parse(answer(str(request(n).fields["text"]))) for n, one in got.items())
    useful = sum(one.value is not None for one in got.values())
    return {
        "rows": rows, "labels": useful, "bad labels": wrong, "wire requests": stats.wire, "faults": stats.wire - stats.fates["ok"],
        "kinds of fault": len(stats.fates) - 1, "wire per label": stats.wire / max(1, useful), "in the ledger": counts.labels,
        "calls in the books": sum(counts.attempts.values()),
    }  # fmt: skip


def ledgered_of(store: Any, teacher: OpenAITeacher, task: Task) -> LedgeredTeacher:
    pin = TeacherPin(use="openai.v1", provider="local", model=MODEL, revision="1", prompt_digest=task.prompt_digest)
    prices = Prices(usd_per_million_in=1.0, usd_per_million_out=1.0)
    return LedgeredTeacher(teacher, store.ledger, pin=pin, prices=prices, clearance_id="c", run_id="r")


def halted(fault: str, *, good: int = 5) -> dict[str, Any]:
    """A run that gets some good answers, and then only this fault: it stops, with what it had."""
    task, answer = TASKS["label"]
    faults = Faults(script=("ok",) * good, rates={fault: 1.0})
    with tempfile.TemporaryDirectory() as root, FaultTeacher(answer, faults=faults, fingerprint="fp_1") as server, open_store(Path(root)) as store:
        with store.role("run"):
            store.ledger.open_run("r", cap_usd=1e3)
            ledgered = ledgered_of(store, asked_of(server, task, 5.0), task)

            async def go() -> str:
                try:
                    for number in range(2 * good):
                        await ledgered.sample(request(number), n=1)
                except TeacherError as error:
                    return "another teacher" if isinstance(error, PinMismatch) else "stopped"
                finally:
                    await ledgered.close()
                return "went on"

            ended = asyncio.run(go())
        return {"ended": ended, "labels": store.ledger.counts().labels, "wire": server.stats.wire, "good": good}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    tried, taken = accepted(given.answers)
    good, bad = tried.pop("ok"), Counter({fault: n for fault, n in taken.items() if fault != "ok"})
    run = outlived(given.rows, given.seed)
    stops = {fault: halted(fault) for fault in HALTS}
    mixed = sum(one["labels"] - one["good"] for one in stops.values())
    halts = all(one["ended"] != "went on" for one in stops.values())
    print(json.dumps({"seed": given.seed, "faulty answers": tried.total(), "kinds": len(tried), "accepted": bad.total(), "sound answers": good, "of them accepted": taken["ok"], "run": run,
                      "halts": {fault: one["ended"] for fault, one in stops.items()}, "rows mixed": mixed}))  # fmt: skip
    holds = not bad and taken["ok"] == good and run["bad labels"] == 0 and 0.998 * run["rows"] <= run["labels"] == run["in the ledger"] and halts and mixed == 0
    return int(not (holds and run["wire per label"] <= MOST_WIRE))


if __name__ == "__main__":
    sys.exit(main())
