"""
What rows cost, from 100,000 to a million: python -m benchmarks.scale.rows [--sizes 100000,300000,1000000] [--walked WALKED].

A chat log is made (120 days, 6 to 28 words a message, three in ten rows an edit or a repeat of an earlier one, half of them in a
session, answers in the response), and every verb that reads it whole runs over it in a process of its own: import, prompt set with
near-duplicates, the reports, discover, backup, erase, retain. With WALKED (`overproof demo --loop WALKED`) the dashboard's queries
run over as many captured rows. Ends non-zero where CPU seconds grow faster than the rows + 10 %, a process takes more than 2 GiB, or
a page more than 1 s. A verb's start is in its seconds; verbs below START_S are mostly that.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.data.messages import messages
from benchmarks.web.million import DAYS, Timed, filled

GROWTH, MEMORY_MIB, START_S, GOAL_S = 1.10, 2048, 3.0, 1.0
SUBJECT = "u0"
LABELS = ("account", "billing", "bug", "delivery", "other", "refund")
PROJECT = f"""
[task]
name = "scale"
input = ["text"]
output = {{ classes = {json.dumps(LABELS)} }}
prompt = "prompt.md"
[traffic]
columns = {{ attributes = "channel,tier,language" }}
[promptset]
requests = 20000
match = ["channel", "language"]
[privacy.retention]
context = {DAYS // 2}
[teacher]
use = "recorded.v1"
model = "m-2026-01-01"
[[verify]]
use = "label_set.v1"
[bars]
fidelity = 0.9
[[student]]
use = "linear.v1"
"""
VERBS: Mapping[str, Sequence[str]] = {
    "import": ("import", "../log.jsonl"),
    "prompt set": ("run", "--to", "promptset"),
    "report: the log": ("show", "traffic"),
    "report: the prompt set": ("run", "--to", "promptset"),
    "report: status": ("status",),
    "discover": ("discover",),
    "backup": ("backup", "../backup"),
    "erase": ("erase", "--subject", SUBJECT, "--by", "Robin Vale", "--why", "a benchmark"),
    "retain": ("retain",),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """One verb at one size."""

    cpu_s: float
    """Of the process and its children."""
    wall_s: float
    peak_mib: float
    code: int


def main() -> int:
    """Measure each size, print the table, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=lambda text: sorted(map(int, text.split(","))), default=[100_000, 1_000_000])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--walked", type=Path, help="a walked loop; without it no page is asked")
    parser.add_argument("--draws", type=int, default=7)
    given = parser.parse_args()
    costs, pages = dict[int, dict[str, Cost]](), dict[int, list[Timed]]()
    for n in given.sizes:
        with tempfile.TemporaryDirectory() as name:
            costs[n] = verbs(Path(name), n, given.seed)
        if given.walked:
            with tempfile.TemporaryDirectory() as name:
                pages[n] = list(filled(Path(name) / "project", given.walked, n, given.draws))
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    print(f"\n{machine}; load {os.getloadavg()[0]:.1f} at the end; seed {given.seed}; one run each, no interval.\n")
    held = _verbs_table(costs)
    return int(not (_pages_table(pages) and held))


def write_log(path: Path, n: int, seed: int) -> None:
    """A chat log as a team would have kept it; a repeat has the label of its original, and comes with its own id, user and day."""
    draw, start = random.Random(seed + 1), datetime.now(UTC) - timedelta(days=DAYS)
    with path.open("w", encoding="utf-8") as out:
        for i, message in enumerate(messages(n, seed)):
            label = LABELS[(i if message.original < 0 else message.original) % len(LABELS)]
            turns = [{"role": "system", "content": "You route messages sent to an online shop. " * 8}, {"role": "user", "content": message.text}]
            reply = {
                "id": f"chatcmpl-{draw.getrandbits(120):030x}", "created": int((start + timedelta(days=DAYS * i / n)).timestamp()),
                "model": "m-2026-01-01", "choices": [{"index": 0, "message": {"role": "assistant", "content": label}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 90 + len(message.text) // 4, "completion_tokens": 2},
            }  # fmt: skip
            row = {
                "request": {"messages": turns}, "response": reply, "channel": draw.choices(("email", "chat", "phone", "app"), (5, 3, 1, 1))[0],
                "tier": draw.choices(("guest", "plus", "business"), (7, 2, 1))[0], "language": draw.choices(("en", "de", "es"), (8, 1, 1))[0],
                **({"user_id": f"u{i // 4}"} if draw.random() < 0.5 else {}),
            }  # fmt: skip
            out.write(json.dumps(row) + "\n")


def verbs(folder: Path, n: int, seed: int) -> dict[str, Cost]:
    """Every verb over one log."""
    home = folder / "project"
    home.mkdir()
    (home / "overproof.toml").write_text(PROJECT)
    (home / "prompt.md").write_text("Route the message.")
    write_log(folder / "log.jsonl", n, seed)
    found = {}
    for what, words in VERBS.items():
        found[what] = cost([sys.executable, "-m", "overproof.cli", *words], home)
        print(f"{n:,}: {what}: {found[what]}", file=sys.stderr, flush=True)
    return found


def cost(command: Sequence[str], home: Path) -> Cost:
    """Run a command to its end."""
    began = time.monotonic()
    with (home.parent / "said.txt").open("w") as said, subprocess.Popen(command, cwd=home, stdout=said, stderr=said) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        print((home.parent / "said.txt").read_text()[-2000:], file=sys.stderr)
    return Cost(cpu_s=used.ru_utime + used.ru_stime, wall_s=time.monotonic() - began, peak_mib=used.ru_maxrss / 1024, code=process.returncode)


def _verbs_table(costs: Mapping[int, Mapping[str, Cost]]) -> bool:
    sizes = list(costs)
    print("| what | " + " | ".join(f"{n:,} rows: CPU s, wall s, peak MiB" for n in sizes) + " | CPU, times linear | |")
    print("|---|" + "--:|" * (len(sizes) + 1) + "---|")
    whole = True
    for what in VERBS:
        each = [costs[n][what] for n in sizes]
        small, large = each[0], each[-1]
        ratio = large.cpu_s / small.cpu_s / (sizes[-1] / sizes[0])
        held = ratio <= GROWTH and max(one.peak_mib for one in each) <= MEMORY_MIB and not any(one.code for one in each)
        whole = whole and held
        cells = " | ".join(f"{one.cpu_s:.1f}, {one.wall_s:.0f}, {one.peak_mib:,.0f}" for one in each)
        words = "FAILS" if not held else "holds" if large.cpu_s > START_S else "holds; mostly its start"
        print(f"| {what} | {cells} | {ratio:.2f} | {words} |")
    return whole


def _pages_table(pages: Mapping[int, Sequence[Timed]]) -> bool:
    if not pages:
        print("\nNo page was asked: --walked names a project for them.")
        return True
    print("\n| slowest pages | rows | n | max, ms | goal, ms | |\n|---|--:|--:|--:|--:|---|")
    for n, timed in pages.items():
        for one in sorted(timed, key=lambda one: -max(one.seconds))[:5]:
            words = "holds" if one.status == 200 and max(one.seconds) <= GOAL_S else f"FAILS ({one.status})"
            print(f"| `{one.asked}` | {n:,} | {len(one.seconds)} | {1e3 * max(one.seconds):.0f} | {1e3 * GOAL_S:.0f} | {words} |")
        print(f"| all {len(timed)} addresses | {n:,} | {sum(len(one.seconds) for one in timed)} | {1e3 * max(max(one.seconds) for one in timed):.0f} | {1e3 * GOAL_S:.0f} | |")
    return all(one.status == 200 and max(one.seconds) <= GOAL_S for timed in pages.values() for one in timed)


if __name__ == "__main__":
    sys.exit(main())
