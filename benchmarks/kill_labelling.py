"""kill -9 at random moments of a labelling run against a local HTTP teacher: what is lost, doubled, paid twice."""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from overproof.measure.intervals import cp_interval
from overproof.store.project_store import open_store

LABELS = ("billing", "bug", "how-to", "other")
CONCURRENCY = 16

PROJECT = """
[task]
name = "kills"
input = ["text"]
prompt = "prompt.md"
output = {{ classes = {labels} }}
[promptset]
near_duplicates = false
[teacher]
use = "openai.v1"
provider = "local"
model = "fault-teacher-2026-01-01"
base_url = "http://127.0.0.1:{port}/v1"
terms = "terms.toml"
budget_usd = 1000
price_in_usd_per_million = 1.0
price_out_usd_per_million = 1.0
concurrency = {concurrency}
repeat = 0
[teacher.options]
allow_private = true
[[student]]
use = "linear.v1"
[bars]
fidelity = 0.5
"""

TERMS = """
id = "kills-1"
registry_id = "own-answers"
registry_digest = "{digest}"
role = "teacher"
channel = "own"
contracting_party = "the benchmark"
account_or_contract = "a server of this repository on loopback"
statement = "The teacher is a test server of this repository that answers by a hash of the message; nobody's terms apply."
attested_on = 2026-01-02
[model]
provider = "local"
base_url = "http://127.0.0.1:{port}/v1"
model = "fault-teacher-2026-01-01"
revision = ""
[use]
student_kind = "classifier"
distribution = "internal"
purpose = "count what a kill costs"
[conditions]
written-by-a-provider-model = false
[attested_by]
name = "Robin Vale"
role = "maintainer"
email = "robin.vale@example.com"
[[document]]
key = "authorship"
url = ""
read_on = 2026-01-02
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--latency-s", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        teacher = subprocess.Popen(
            [sys.executable, "-m", "overproof.testing", "--labels", ",".join(LABELS), "--latency-s", str(given.latency_s),
             "--model", "fault-teacher-2026-01-01"],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            port = json.loads(teacher.stdout.readline())["port"]
            root = Path(name)
            write_project(root, port, given.rows)
            kills = campaign(root, port, given)
            report(root, port, given, kills)
        finally:
            teacher.terminate()
            teacher.wait()


def write_project(root: Path, port: int, rows: int) -> None:
    from overproof.steps.terms import read_entry

    text = PROJECT.format(labels=json.dumps(list(LABELS)), port=port, concurrency=CONCURRENCY)
    (root / "overproof.toml").write_text(text)
    (root / "prompt.md").write_text("Answer with one of: " + ", ".join(LABELS))
    (root / "terms.toml").write_text(TERMS.format(digest=read_entry("own-answers").digest, port=port))
    with (root / "log.jsonl").open("w") as file:
        for i in range(rows):
            file.write(json.dumps({"id": f"r{i}", "text": f"message {i} about thing {i * 7919 % 10007}"}) + "\n")
    subprocess.run([sys.executable, "-m", "overproof.cli", "import", str(root / "log.jsonl"), "--project", str(root)],
                   check=True, stdout=subprocess.DEVNULL)  # fmt: skip


def stats(port: int) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/stats", timeout=10) as reply:
        return json.load(reply)


def campaign(root: Path, port: int, given: argparse.Namespace) -> list[int]:
    """Kill the run at random moments, each with live traffic; billed calls that left no label, kill by kill."""
    draw = random.Random(given.seed)
    wasted = []
    for number in range(given.kills):
        before = stats(port)["billed"]
        labels_before = labels(root)
        run = start(root)
        while stats(port)["billed"] == before and run.poll() is None:
            time.sleep(0.005)
        time.sleep(draw.uniform(0.02, 0.4))
        if run.poll() is not None:
            sys.exit(f"the run ended before kill {number + 1}: give more --rows")
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
        time.sleep(2 * given.latency_s)  # the server finishes what it has received
        wasted.append(stats(port)["billed"] - before - (labels(root) - labels_before))
    return wasted


def start(root: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "overproof.cli", "run", "--to", "teach", "--project", str(root)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def labels(root: Path) -> int:
    with open_store(root) as store:
        return store.ledger.counts().labels


def report(root: Path, port: int, given: argparse.Namespace, wasted: list[int]) -> None:
    code = start(root).wait()
    with open_store(root) as store:
        counts, spent = store.ledger.counts(), store.ledger.spent_usd
    seen = stats(port)
    print(f"run to the end after {given.kills} kills: exit {code}")
    print(f"rows {given.rows}, labels {counts.labels}: lost {given.rows - counts.labels}")
    print(f"billed by the server {seen['billed']}, labels {counts.labels}: extra billed {seen['billed'] - counts.labels}")
    over = sum(w > CONCURRENCY for w in wasted)
    high = cp_interval(over, given.kills).high
    print(f"a kill that wastes more calls than were in flight: {over} of {given.kills}, at most {high:.2%} at 97.5 % (Clopper-Pearson)")
    print(f"extra billed per kill: mean {sum(wasted) / len(wasted):.1f}, most {max(wasted)}; calls in flight at most {CONCURRENCY}")
    print(f"ledger: {counts}; spent {spent:.6f} USD")
    print(f"seed {given.seed}; {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}")
    attempts = sum(counts.attempts.values())
    claims = {
        "0 labels lost": counts.labels >= given.rows,
        "0 labels doubled": counts.labels <= given.rows,
        "extra billed calls per kill never exceed the calls in flight": max(wasted) <= CONCURRENCY,
        "the ledger holds a charged attempt for each billed call": attempts >= seen["billed"] and counts.held_usd == 0,
    }
    for claim, holds in claims.items():
        print(f"{'holds' if holds else 'FAILS'}: {claim}")
    if not all(claims.values()) or code != 0:
        sys.exit(1)


if __name__ == "__main__":
    main()
