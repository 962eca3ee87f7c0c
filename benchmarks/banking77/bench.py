"""The real run: 13,083 recorded answers of a real LLM teacher through `overproof import` and `overproof run`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PROGRAM = [sys.executable, "-m", "overproof.cli"]
REPEATS = 5  # unchanged runs that are timed
MARKS = ("<!-- table -->", "<!-- /table -->")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds banking77.jsonl.gz")
    parser.add_argument("--out", type=Path, default=Path("bench-out/banking77"), help="project folder, made anew")
    parser.add_argument("--write", action="store_true", help="put the table into this folder's README")
    given = parser.parse_args()
    recording = given.data / "banking77.jsonl.gz"
    if not recording.is_file():
        sys.exit(f"no file {recording}: give the folder of the Banking77 recording with --data (or DATA= to make bench)")
    shutil.rmtree(given.out, ignore_errors=True)
    shutil.copytree(HERE, given.out, ignore=shutil.ignore_patterns("*.py", "README.md", "__pycache__"))
    call(given.out, "import", str(recording.resolve()))
    first, first_s = call(given.out, "run")
    unchanged = [timed(given.out) for _ in range(REPEATS)]
    executed = [e for e in call(given.out, "run")[0]["steps"] if e["action"] == "run"]
    same_rows = reference_rows(given.out.with_name(given.out.name + "-reference-rows"), recording)
    table = render(first, first_s, sorted(unchanged), len(executed), same_rows)
    print(table)
    if given.write:
        readme = HERE / "README.md"
        head, _, rest = readme.read_text().partition(MARKS[0])
        readme.write_text(f"{head}{MARKS[0]}\n{table}\n{MARKS[1]}{rest.partition(MARKS[1])[2]}")


def reference_rows(project: Path, recording: Path) -> dict[str, Any]:
    """The candidates fitted on (nearly) all 10,003 training rows, near-duplicates of sealed rows included, as the reference was."""
    shutil.rmtree(project, ignore_errors=True)
    shutil.copytree(HERE, project, ignore=shutil.ignore_patterns("*.py", "README.md", "__pycache__"))
    call(project, "import", str(recording.resolve()))
    body, _ = call(project, "run", "--to", "evaluate", "--set", "promptset.near_duplicates=false", "--set", "promptset.calibration_share=0.01")
    return body


def timed(project: Path) -> float:
    """Wall seconds of a whole `overproof run`, its page written to a pipe."""
    began = time.perf_counter()
    subprocess.run([*PROGRAM, "run", "--project", str(project)], stdout=subprocess.PIPE, check=False)
    return time.perf_counter() - began


def call(project: Path, *words: str) -> tuple[dict[str, Any], float]:
    """One verb as a user calls it; its JSON and its wall time in seconds."""
    began = time.perf_counter()
    done = subprocess.run([*PROGRAM, *words, "--project", str(project), "--json"], stdout=subprocess.PIPE, check=False)
    seconds = time.perf_counter() - began
    if done.returncode not in (0, 1):  # 1 is a refusal: a result
        sys.exit(f"overproof {words[0]} ended with {done.returncode}: {done.stdout.decode()}")
    return json.loads(done.stdout), seconds


def render(body: dict[str, Any], first_s: float, unchanged_s: list[float], executed: int, same_rows: dict[str, Any]) -> str:
    """The table of the README."""
    by_name = {c["name"]: c for c in body["candidates"]}

    def whole(name: str) -> dict[str, Any]:
        return by_name[name]["slices"][0]

    wide = {c["name"]: c["slices"][0] for c in same_rows["candidates"]}
    linear, encoder, teacher, chosen = whole("linear.v1"), whole("encoder.v1"), whole("teacher"), whole(body["chosen"])
    served, kept = chosen["served_fidelity"], chosen["kept"]
    rows = json.loads((Path(body["dossier"]).parent / "dossier.json").read_text())["evidence"]
    no_label = 3080 - teacher["accuracy"]["n"]
    right = teacher["accuracy"]["good"]
    weak = rows["report"]["weak_labels"]
    sure = [w for w in weak if w["teacher_accuracy"]["high"] < 0.5]
    slices = body["certificate"]["slices"]
    lines = [
        f"Machine: {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}. Intervals are exact (Clopper-Pearson), two-sided at the level that is named.",
        "",
        "| | reference | this run | fitted on the reference's rows |",
        "|---|---|---|---|",
        f"| teacher accuracy against gold | 75.8 | {100 * right / 3080:.1f} of 3,080 ({no_label} answers name no label and count as wrong); {said(teacher['accuracy'])} | |",
        f"| `linear.v1` accuracy vs gold | 73.9 | {said(linear['accuracy'])} | {said(wide['linear.v1']['accuracy'])} |",
        f"| `linear.v1` agreement with the teacher | 86.0 | {said(linear['fidelity'])} | {said(wide['linear.v1']['fidelity'])} |",
        f"| `encoder.v1` frozen, accuracy vs gold | 76.2 | {said(encoder['accuracy'])} | {said(wide['encoder.v1']['accuracy'])} |",
        f"| `encoder.v1` frozen, agreement with the teacher | 88.2 | {said(encoder['fidelity'])} | {said(wide['encoder.v1']['fidelity'])} |",
        f"| hybrid agreement ({body['chosen']} where confident, else the teacher), on rows that chose no threshold | 97.6, no guarantee | {said(served)}; bar {100 * served['bar']:.0f}: {served['verdict']} | |",
        f"| share escalated to the teacher | 23.7 | {100 * (1 - kept['value']):.1f} ({100 * (1 - kept['high']):.1f} to {100 * (1 - kept['low']):.1f}, n = {kept['n']:,}) | |",
        *(
            f"| certified: wrong among kept, slice {s['slice']!r} | - | at most {100 * s['upper']:.1f} % ({s['wrong']} of {s['kept']:,}), bar {100 * s['alpha']:.0f} %: {s['verdict']} | |"
            for s in slices
        ),
        f"| intents where the teacher is wrong more than half the time | 13 of 77 | {len(weak)} of 77 listed first, {len(sure)} of them beyond doubt at this n | |",
        f"| verdict | not a clean ship | {body['verdict']}: {body['headline']} | |",
        f"| first run | - | {first_s:.0f} s | |",
        f"| unchanged `overproof run` (median of {len(unchanged_s)}, whole process) | < 1 s, no step | {unchanged_s[len(unchanged_s) // 2]:.2f} s ({unchanged_s[0]:.2f} to {unchanged_s[-1]:.2f}), {executed} steps executed | |",
        "",
        "| candidate | accuracy | agreement | p50 ms | USD per 1,000 | MB |",
        "|---|---|---|---|---|---|",
        *(
            f"| {c['name']} | {said(c['slices'][0]['accuracy'])} | {said(c['slices'][0]['fidelity'])} | {1000 * c['latency_s']:.2f} | {c['cost_usd_per_1000']:.2g} | {c['size_bytes'] / 1e6:.1f} |"
            for c in body["candidates"]
        ),
    ]
    return "\n".join(lines)


def said(figure: dict[str, Any]) -> str:
    """A figure with its interval and n, in percent."""
    return f"{100 * figure['value']:.1f} ({100 * figure['low']:.1f} to {100 * figure['high']:.1f} at {100 * figure['level']:.0f} %, n = {figure['n']:,})"


if __name__ == "__main__":
    main()
