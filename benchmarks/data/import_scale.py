"""
Import at scale: rows a second and peak memory of `overproof import` at 100,000 and 1,000,000 rows.

    python benchmarks/data/import_scale.py [--rows 100000 1000000] [--kinds jsonl array] [--data FOLDER]

Messages are drawn from a folder's `messages.jsonl` or `train.jsonl` (--data), else made. Each import runs in a process
of its own, into a project of its own, through the traffic log on disk. Returns 1 if memory grows with the rows.
"""

import argparse
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT_MIB = 512
"""No import needs more, whatever its size."""
GROWTH_MIB = 64
"""The most that ten times the rows may add: allocator noise, not rows."""
PROJECT = """
[task]
name = "scale"
input = ["text"]
output = {{ classes = ["bug", "billing"] }}
prompt = "prompt.md"
[teacher]
use = "recorded.v1"
model = "m-2026-01-01"
[bars]
fidelity = 0.9
[[student]]
use = "linear.v1"
"""


def messages(data):
    for name in ("messages.jsonl", "train.jsonl", "traffic.jsonl"):
        if data and (path := Path(data) / name).is_file():
            rows = [json.loads(line) for line in path.open(encoding="utf-8")]
            texts = [row.get("text") or row.get("body") or row.get("message") for row in rows]
            if all(texts):
                return texts
    words = ["my", "card", "does", "not", "work", "since", "I", "moved", "please", "help", "order", "refund", "twice", "late", "parcel", "account", "password", "fee"]
    draw = random.Random(0)
    return [" ".join(draw.choices(words, k=draw.randint(5, 40))) for _ in range(5_000)]


def row_of(i, texts):
    turns = [{"role": "system", "content": "Route the message."}, {"role": "user", "content": f"{texts[i % len(texts)]} ({i})"}]
    message = {"index": 0, "message": {"role": "assistant", "content": "bug"}, "finish_reason": "stop"}
    reply = {"id": f"c{i}", "created": 1_777_888_800 + i, "model": "m-2026-01-01", "choices": [message]}
    return {"request": {"messages": turns}, "response": reply, "user_id": f"u{i % 9999}"}


def write(path, n, kind, texts):
    with path.open("w", encoding="utf-8") as file:
        file.write("[" if kind == "array" else "")
        for i in range(n):
            file.write((", " if kind == "array" and i else "") + json.dumps(row_of(i, texts)) + ("" if kind == "array" else "\n"))
        file.write("]" if kind == "array" else "")


def one(path, folder):
    """In a process of its own: what the import took, and how much memory it ever held."""
    from overproof.cli.intake import Intake, take
    from overproof.project import load_project
    from overproof.store.project_store import open_store

    start, cpu = time.perf_counter(), time.process_time()
    with open_store(folder) as store:
        (report,) = take(store, load_project(folder), [path], intake=Intake(format_name="openai_chat.v1"))
    took, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"added": report["added"], "skipped": report["skipped"], "s": took, "cpu_s": cpu, "peak_mib": peak}))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--kinds", nargs="+", default=["jsonl", "array"], choices=["jsonl", "array"])
    parser.add_argument("--data", default="")
    parser.add_argument("--one", nargs=2, default=None, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        one(Path(args.one[0]), Path(args.one[1]))
        return 0
    texts, failed = messages(args.data), False
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}; one run each, no interval")
    print("| file | rows | MB | added | rows/s | CPU s | peak MiB |\n|---|---|---|---|---|---|---|")
    for kind in args.kinds:
        peaks = []
        for n in args.rows:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                (folder / "overproof.toml").write_text(PROJECT.format())
                (folder / "prompt.md").write_text("Route the message.")
                (folder / "none.jsonl").touch()
                path = folder / f"log.{'json' if kind == 'array' else 'jsonl'}"
                write(path, n, kind, texts)
                command = [sys.executable, __file__, "--one", str(path), str(folder)]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    print(done.stderr, file=sys.stderr)
                    return 1
                found = json.loads(done.stdout.splitlines()[-1])
                size = path.stat().st_size / 1e6
            print(f"| {kind} | {n:,} | {size:.0f} | {found['added']:,} | {n / found['s']:,.0f} | {found['cpu_s']:.0f} | {found['peak_mib']:.0f} |", flush=True)
            peaks.append(found["peak_mib"])
            failed = failed or found["added"] != n or found["peak_mib"] > LIMIT_MIB
        failed = failed or max(peaks) - min(peaks) > GROWTH_MIB
    print("does not hold" if failed else f"holds: all rows there, at most {LIMIT_MIB} MiB, and no growth over {GROWTH_MIB} MiB with the rows")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
