"""
Ray with two workers beside this process alone: the same bytes, with a worker killed too, and how much sooner.

Near-duplicate sketches, two encoders and a linear student fitted, and their answers to other rows, all by the package's own
steps: python -m benchmarks.engines.ray --data FOLDER. FOLDER holds banking77.jsonl.gz; without it, the messages of
the built-in demo are used, written in several ways until there are enough. Every process, also the one alone, has one thread
(OMP_NUM_THREADS=1, which the encoder's library is given too): one process against two. The clock starts before Ray does.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import itertools
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from overproof.data import CalibrationSet, Example, Request, TestSet, TrainSet
from overproof.engines import Engine, cut, engine_of
from overproof.evidence import Trained
from overproof.measure.leakage import clusters
from overproof.measure.minhash import SketchPair, joined
from overproof.steps.parcel import unpacked
from overproof.steps.predict import PredictRecipe, predict_dev, predict_test
from overproof.steps.promptset import sketch_apart
from overproof.steps.train import Apart, StudentRecipe, fit_apart, train

MOST, LEAST_S, WORKERS = 0.65, 60.0, 2
CANDIDATES = (
    StudentRecipe(name="encoder", use="encoder.v1", options={"c": 0.03}),
    StudentRecipe(name="encoder, weaker penalty", use="encoder.v1", options={"c": 0.1}),
    StudentRecipe(name="n-grams", use="linear.v1"),
)
PRICE = PredictRecipe(cost_usd_per_cpu_hour=0.04)


def messages(data: Path | None, n: int) -> list[tuple[str, str]]:
    """So many texts with their labels."""
    if data is not None:
        with gzip.open(data / "banking77.jsonl.gz", "rt", encoding="utf-8") as file:
            found = [(row["text"], row["teacher_label"]) for row in map(json.loads, file) if row.get("teacher_label")]
    else:
        inbox = resources.files("overproof") / "inbox"
        said = {row["id"]: row["output"] for row in map(json.loads, (inbox / "answers.jsonl").read_text("utf-8").splitlines())}
        found = [(row["text"], said[row["id"]]) for row in map(json.loads, (inbox / "messages.jsonl").read_text("utf-8").splitlines()) if row["id"] in said]
    random.Random(1).shuffle(found)  # the file may be in the order of its labels
    return [(f"{text} ({at // len(found)})" if at >= len(found) else text, label) for at, (text, label) in zip(range(n), itertools.cycle(found), strict=False)]


def sets(rows: list[tuple[str, str]], train_rows: int) -> tuple[TrainSet, CalibrationSet, TestSet]:
    """The first to learn from, the others to answer."""
    examples = [Example(request=Request(id=str(i), fields={"text": text}), target=label) for i, (text, label) in enumerate(rows)]
    known = {e.target for e in examples[:train_rows]}
    other = [e for e in examples[train_rows:] if e.target in known]
    labels, half = tuple(sorted(known)), len(other) // 2
    return (
        TrainSet(examples=tuple(examples[:train_rows]), labels=labels),
        CalibrationSet(examples=tuple(other[:half]), labels=labels),
        TestSet(examples=tuple(other[half:]), labels=labels),
    )


def digest_of(folders: list[Path], near: bytes) -> str:
    """Of all that was made; neither times nor places are in it."""
    whole = hashlib.sha256(near)
    for root in folders:
        for path in sorted(one for one in root.rglob("*") if one.is_file()):
            whole.update(path.relative_to(root).as_posix().encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


def sketched(engine: Engine, texts: Any) -> SketchPair:
    """As the prompt set has them made."""
    shards = cut(texts, engine.shards)
    return joined(engine.each(sketch_apart, shards, what="near-duplicates"), [len(one) for one in shards])


def work(engine: Engine, rows: list[tuple[str, str]], train_rows: int, scratch: Path, stage: dict[str, str]) -> str:
    """All of it; the digest."""
    learn, held, sealed = sets(rows, train_rows)
    stage["now"] = "sketching"
    texts = [f"{text} {other}" for text, _ in rows for other in ("", "please", "thank you very much")]
    near = clusters(texts, sketched=partial(sketched, engine)).near
    stage["now"] = "fitting"
    made: list[Trained | None] = [None] * len(CANDIDATES)
    if engine.apart:
        given = Apart(rows=learn, engine=engine)
        for at, one in enumerate(engine.each(fit_apart, CANDIDATES, shared=given, what="fitting candidates")):
            made[at] = unpacked(one, scratch / f"made-{at}")
    folders = []
    for at, recipe in enumerate(CANDIDATES):
        places = [scratch / f"{at}-{what}" for what in ("fit", "dev", "test")]
        for place in places:
            place.mkdir()
        trained = train(learn, recipe, workdir=places[0], made=made[at], engine=engine)
        stage["now"] = "answering"
        dev = predict_dev(trained, held, PRICE, workdir=places[1], engine=engine)
        test = predict_test(trained, sealed, PRICE, workdir=places[2], engine=engine)
        folders += [trained.folder.path, dev.folder.path, test.folder.path]
    return digest_of(folders, near.tobytes())


def started(shared: None, shard: int) -> int:
    """Nothing; that a worker is there."""
    del shared
    return shard


def busy_workers() -> list[int]:
    """Processes of this one's Ray that are in a shard."""
    parents: dict[int, int] = {}
    busy = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            parents[int(path.name)] = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if (path / "cmdline").read_bytes().startswith(b"ray::_work"):
                busy.append(int(path.name))

    def ours(pid: int) -> bool:
        while pid > 1 and pid != os.getpid():
            pid = parents.get(pid, 0)
        return pid == os.getpid()

    return [pid for pid in busy if ours(pid)]


def killing(stage: dict[str, str], killed: list[str], over: threading.Event) -> None:
    """One worker while candidates are fitted and one while rows are answered, each a second into a shard."""
    for when in ("fitting", "answering"):
        while not over.wait(0.2):
            if stage.get("now") == when and (first := busy_workers()) and not over.wait(1.0) and (still := sorted({*first} & {*busy_workers()})):
                os.kill(still[-1], signal.SIGKILL)
                killed.append(when)
                break


def alone(given: argparse.Namespace) -> int:
    """One run, in a process of its own."""
    rows, stage, killed, over = messages(given.data, given.rows + given.answers), {}, [], threading.Event()
    began = time.perf_counter()
    engine = engine_of("local" if given.one == "local" else "ray", workers=WORKERS, address="")
    killer = threading.Thread(target=killing, args=(stage, killed, over))
    list(engine.each(started, list(range(WORKERS)), what="starting"))
    start = time.perf_counter() - began
    if given.one == "killed":
        killer.start()
    with tempfile.TemporaryDirectory() as scratch:
        digest = work(engine, rows, given.rows, Path(scratch), stage)
        took = time.perf_counter() - began
    over.set()
    engine.close()
    print(json.dumps({"engine": given.one, "wall_s": took, "start_s": start, "cpu_s": time.process_time(), "digest": digest, "killed": killed}))
    return 0


def run(given: argparse.Namespace, which: str) -> dict[str, Any]:
    """The same in a process of its own, so that none finds anything loaded."""
    command = [sys.executable, "-m", "benchmarks.engines.ray", "--one", which, "--rows", str(given.rows), "--answers", str(given.answers)]
    command += ["--data", str(given.data)] if given.data else []
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run(command, env={**os.environ, **one_thread}, stdout=subprocess.PIPE, check=True, cwd=Path(__file__).parents[2])
    found: dict[str, Any] = json.loads(done.stdout.decode().splitlines()[-1])
    print(f"{which}: {found['wall_s']:.1f} s", file=sys.stderr)
    return found


def main() -> int:
    """Print a JSON line and a table; 1 where a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=lambda text: Path(text).resolve(), help="folder that holds banking77.jsonl.gz")
    parser.add_argument("--rows", type=int, default=5_000, help="training rows")
    parser.add_argument("--answers", type=int, default=30_000, help="further rows, which are answered; with fewer, Ray's start and loading weigh more")
    parser.add_argument("--pairs", type=int, default=2, help="runs of each kind; the quickest of each counts")
    parser.add_argument("--one", choices=("local", "ray", "killed"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        return alone(given)
    runs = [run(given, which) for _ in range(given.pairs) for which in ("local", "ray")]
    killed = run(given, "killed")
    local, ray = (min((r for r in runs if r["engine"] == which), key=lambda r: r["wall_s"]) for which in ("local", "ray"))
    ratio, without = ray["wall_s"] / local["wall_s"], (ray["wall_s"] - ray["start_s"]) / local["wall_s"]
    equal = len({one["digest"] for one in (*runs, killed)}) == 1
    enough, quick, hit = local["wall_s"] >= LEAST_S, ratio <= MOST, killed["killed"] == ["fitting", "answering"]
    print(json.dumps({"rows": given.rows, "answers": given.answers, "ratio": round(ratio, 3), "without start": round(without, 3), "equal": equal, "killed": killed["killed"], "runs": [*runs, killed]}))
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {given.rows:,} training rows, {given.answers:,} answered; one thread a process")
    print("| engine | wall | of it Ray's start | beside local | without start | digest |")
    print("|---|---|---|---|---|---|")
    print(f"| local, 1 process | {local['wall_s']:.1f} s | | 1 | 1 | {local['digest'][:12]} |")
    print(f"| Ray, {WORKERS} workers | {ray['wall_s']:.1f} s | {ray['start_s']:.1f} s | {ratio:.2f} | {without:.2f} | {ray['digest'][:12]} |")
    print(f"| Ray, a worker killed while {' and while '.join(killed['killed']) or 'nothing'} | {killed['wall_s']:.1f} s | {killed['start_s']:.1f} s | | | {killed['digest'][:12]} |")
    for wrong, what in ((not equal, "digests differ"), (not enough, f"less than {LEAST_S:.0f} s of work: take more --rows"), (not quick, f"over {MOST} of local"), (not hit, "no worker was killed in time")):
        if wrong:
            print(what)
    return 0 if equal and enough and quick and hit else 1


if __name__ == "__main__":
    sys.exit(main())
