"""
Import, redaction, near-duplicates and matching at 100,000 and 1,000,000 short messages, with rensa alone on the same rows.

    python benchmarks/data/scale.py                  # 100,000 and 1,000,000
    python benchmarks/data/scale.py --rows 20000 100000

Each size runs in a process of its own, so that peak memory is its own. Returns 1 where a claim of `CLAIMS` doesn't hold.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from messages import CLOSE, Message, messages, write_log

from overproof.importers import ColumnMapping, read_file
from overproof.measure.intervals import cp_interval
from overproof.measure.leakage import LONG_WORDS, _trigrams, _words, clusters, jaccard, normalised
from overproof.privacy.redact import Policy, Redactor
from overproof.steps.capture import CaptureRecipe, LogSnapshot, capture
from overproof.steps.promptset import PromptSetRecipe, promptset
from overproof.store.project_store import open_store

REQUESTS = 20_000
CPU_RATIO, RECALL, WRONG, MEMORY_GIB, GROWTH = 2.0, 0.995, 0.005, 2.0, 1.1


def main() -> int:
    """Run the sizes, print the table, judge the claims."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--one", choices=["near", "whole"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps((near if args.one == "near" else whole)(args.rows[0], args.seed)))
        return 0
    found = {n: {part: _child(part, n, args.seed) for part in ("near", "whole")} for n in args.rows}
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    print(f"\n{machine}; load {os.getloadavg()[0]:.1f} at the end; rows of seed {args.seed}\n")
    for n, parts in found.items():
        _print(n, parts)
    return _judge(found)


def _child(part: str, n: int, seed: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--rows", str(n), "--seed", str(seed), "--one", part]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _cpu(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    return work(), time.process_time() - start


def near(n: int, seed: int) -> dict[str, Any]:
    """Near-duplicates alone, ours and rensa's, on the same rows in the same process."""
    rows = list(messages(n, seed))
    texts = [row.text for row in rows]
    dropped, rensa_cpu = _cpu(lambda: _rensa_alone(texts))
    found, our_cpu = _cpu(lambda: _ours(texts))
    planted = [i for i, row in enumerate(rows) if row.original >= 0 and _close(row, rows[row.original])]
    unique = [i for i, row in enumerate(rows) if row.original < 0]
    seen: set[int] = set()
    wrong = 0
    for i in unique:
        wrong += found[i] in seen
        seen.add(found[i])
    return {
        "rensa_cpu": rensa_cpu, "our_cpu": our_cpu, "planted": len(planted), "unique": len(unique),
        "found": sum(found[i] == found[rows[i].original] for i in planted), "wrong": wrong,
        "rensa_found": sum(dropped[i] for i in planted), "rensa_wrong": sum(dropped[i] for i in unique),
    }  # fmt: skip


def _ours(texts: list[str]) -> list[int]:
    groups: list[int] = clusters(texts).near.tolist()
    return groups


def _rensa_alone(texts: list[str]) -> list[bool]:
    """As its README shows it: words, 128 permutations, threshold 0.8, 16 bands, no verification."""
    import rensa

    index = rensa.RMinHashLSH(threshold=0.8, num_perm=128, num_bands=16)
    sketches = []
    for i, text in enumerate(texts):
        one = rensa.RMinHash(num_perm=128, seed=42)
        one.update(text.split())
        sketches.append(one)
        index.insert(i, one)
    return [any(j < i for j in index.query(one)) for i, one in enumerate(sketches)]


def _close(row: Message, original: Message) -> bool:
    """Planted pairs that count: Jaccard of .8 or more on words from 12 distinct ones on, else on trigrams."""
    one, two = normalised(row.text), normalised(original.text)
    pick = _words if min(len(_words(one)), len(_words(two))) >= LONG_WORDS else _trigrams
    return jaccard(pick(one), pick(two)) >= CLOSE


def whole(n: int, seed: int) -> dict[str, Any]:
    """From the file to the prompt set: import into the store with redaction, window, near-duplicates, matched draw of 20,000."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.jsonl"
        write_log(log, n, seed)
        mapping = ColumnMapping(fields=("text",), columns={"at": "ts", "session": "session"})
        start = time.process_time()
        with open_store(Path(folder)) as store:
            rows = Redactor(Policy(), key=b"a key of the benchmark" * 2).rows(read_file(log, mapping))
            added = store.traffic.append(rows, "log").added
            imported = time.process_time()
            snapshot = LogSnapshot(records=tuple(store.traffic.read()))
            traffic = capture(snapshot, CaptureRecipe(fields=("text",)))
            del snapshot
            recipe = PromptSetRecipe(requests=REQUESTS, match=("channel", "tier", "language"))
            found = promptset(traffic, recipe)
            end = time.process_time()
    if added != n:
        raise SystemExit(f"{added} of {n} rows were imported")
    counted = sum(k for name, k in found.funnel.items() if name != "rows read")
    return {
        "import_cpu": imported - start, "promptset_cpu": end - imported, "counted": counted, "leaks": sum(found.leaks.values()),
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "distances": [[d.view, d.before, d.before_low, d.before_high, d.after, d.after_low, d.after_high] for d in found.distances],
    }  # fmt: skip


def _share(k: int, n: int) -> str:
    between = cp_interval(k, n)
    return f"{k / n:.3%} ({between.low:.3%} to {between.high:.3%}, n = {n:,})"


def _print(n: int, parts: dict[str, Any]) -> None:
    a, b = parts["near"], parts["whole"]
    print(f"{n:,} messages")
    print(f"  near-duplicates, CPU      ours {a['our_cpu']:.1f} s, rensa alone {a['rensa_cpu']:.1f} s: {a['our_cpu'] / a['rensa_cpu']:.2f} x")
    print(f"  planted pairs found       ours {_share(a['found'], a['planted'])}; rensa alone {_share(a['rensa_found'], a['planted'])}")
    print(f"  unique messages joined    ours {_share(a['wrong'], a['unique'])}; rensa alone {_share(a['rensa_wrong'], a['unique'])}")
    print(f"  import with redaction + prompt set, CPU  {b['import_cpu']:.1f} s + {b['promptset_cpu']:.1f} s, peak {b['peak_gib']:.2f} GiB")
    for view, before, low, high, after, after_low, after_high in b["distances"]:
        print(f"  distance by {view}: plain {before:.3f} ({low:.3f} to {high:.3f}), matched {after:.3f} ({after_low:.3f} to {after_high:.3f})")


def _judge(found: dict[int, dict[str, Any]]) -> int:
    claims = {}
    for n, parts in found.items():
        a, b = parts["near"], parts["whole"]
        if n >= 1_000_000:  # rensa's candidates grow faster than the rows: below, its share of the work is another one
            claims[f"{n:,}: CPU at most {CPU_RATIO} x rensa alone"] = a["our_cpu"] <= CPU_RATIO * a["rensa_cpu"]
        claims[f"{n:,}: recall at least {RECALL:.1%}"] = cp_interval(a["found"], a["planted"]).low >= RECALL
        claims[f"{n:,}: at most {WRONG:.1%} of unique messages joined"] = cp_interval(a["wrong"], a["unique"]).high <= WRONG
        claims[f"{n:,}: peak memory at most {MEMORY_GIB:g} GiB"] = b["peak_gib"] <= MEMORY_GIB
        claims[f"{n:,}: every row counted once, no leak"] = b["counted"] == n and b["leaks"] == 0
    small, large = min(found), max(found)
    if small < large:
        took = {n: found[n]["whole"]["import_cpu"] + found[n]["whole"]["promptset_cpu"] for n in (small, large)}
        ratio = took[large] / took[small] / (large / small)
        claims[f"time grows at most linearly + 10 % ({ratio:.2f} x linear)"] = ratio <= GROWTH
    print()
    for claim, holds in claims.items():
        print(f"  {'holds' if holds else 'FAILS'}  {claim}")
    return 0 if all(claims.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
