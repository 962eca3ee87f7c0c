"""Banking77: does dropping the rows that a model doubts help the student? By gold, on the test rows, paired."""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import platform
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from overproof.data import Example, Request, TrainSet
from overproof.measure.intervals import cp_interval
from overproof.measure.leakage import clusters
from overproof.measure.paired import difference_interval, superiority
from overproof.measure.suspicion import confident_errors, out_of_fold
from overproof.students.logistic import fit_logistic
from overproof.students.reading import read_texts

C = 0.03  # of encoder.v1
FOLDS = 5
DELTA = 0.05
REFERENCE = "earlier reference: 76.9 with all rows, 76.1 without out-of-fold disagreement (frozen encoder; its folds and its fit are not on record)"


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """The recording: columns of labels, and texts as numbers."""

    labels: tuple[str, ...]
    texts: tuple[str, ...]
    x: NDArray[np.float32]
    said: NDArray[np.int64]
    gold: NDArray[np.int64]
    x_test: NDArray[np.float32]
    gold_test: NDArray[np.int64]


def read(data: Path, cache: Path) -> World:
    """The recording under `data`; training rows whose answer is no label are left out, as the filter does."""
    raw = (data / "banking77.jsonl.gz").read_bytes()
    rows = [json.loads(line) for line in gzip.decompress(raw).decode("utf-8").splitlines()]
    labels = tuple(sorted({r["gold"] for r in rows}))
    at = {label: i for i, label in enumerate(labels)}
    train = [r for r in rows if r["split"] == "train" and r["teacher_label"] in at]
    test = [r for r in rows if r["split"] == "test"]
    kept = cache / f"banking77-{hashlib.sha256(raw).hexdigest()[:16]}.npy"
    if not kept.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(f".{os.getpid()}.npy")
        np.save(part, read_texts([r["text"] for r in train + test], reading="encoder", options={}))
        part.replace(kept)
    x = np.load(kept, allow_pickle=False)
    return World(
        labels=labels, texts=tuple(r["text"] for r in train), x=x[: len(train)], x_test=x[len(train) :],
        said=np.array([at[r["teacher_label"]] for r in train]), gold=np.array([at[r["gold"]] for r in train]),
        gold_test=np.array([at[r["gold"]] for r in test]),
    )  # fmt: skip


def right(world: World, keep: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which test rows encoder.v1's head gets right when it is fitted on the kept rows with the teacher's labels."""
    x, blank = world.x[keep].astype(np.float64), Request(id="", fields={})
    examples = tuple(Example(request=blank, target=world.labels[t]) for t in world.said[keep].tolist())
    centre, spread = x.mean(axis=0), x.std(axis=0) + 1e-6
    head = fit_logistic((x - centre) / spread, TrainSet(examples=examples, labels=world.labels), c=C, tolerance=1e-4)
    scores = ((world.x_test - centre) / spread) @ head.weight.T + head.bias
    return np.asarray(scores.argmax(axis=1) == world.gold_test)


def share(name: str, good: int, n: int) -> str:
    """A share in percent with its exact 95 % interval and n."""
    bounds = cp_interval(good, n)
    return f"{name:<44} {100 * good / n:5.1f}  [{100 * bounds.low:.1f}, {100 * bounds.high:.1f}] n={n:,}"


def judge(world: World, base: NDArray[np.bool_], marked: NDArray[np.bool_], name: str, tests: int) -> list[str]:
    """Print one rule: how far its marks are right, and the student without the marked rows; what is broken."""
    wrong = world.said != world.gold
    hits, rows = int(wrong[marked].sum()), int(marked.sum())
    print(f"\n{name}: {rows:,} rows marked")
    print(share("  of them the teacher's label is wrong", hits, rows))
    print(share("  of all wrong labels marked", hits, int(wrong.sum())))
    ours = right(world, ~marked)
    b, c = int((~ours & base).sum()), int((ours & ~base).sum())
    test = superiority(b, c, d=DELTA / tests / 2, n=ours.size)
    gap = difference_interval(c, b, ours.size, level=1 - DELTA / tests)
    verdict = {"pass": "helps", "fail": "hurts", "undecided": "can't tell"}[test.verdict]
    print(share("  student without them", int(ours.sum()), ours.size))
    print(
        f"  gain {100 * (c - b) / ours.size:+.1f} points [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}] at {1 - DELTA / tests:.1%}, n={ours.size:,}, "
        f"only without them right {c}, only with them right {b}, exact McNemar: dropping {verdict}"
    )
    meant = cp_interval(hits, rows).low > cp_interval(int(wrong.sum()), wrong.size).high
    return [] if meant else [f"{name}: marked rows are not wrong more often than others"]


def main() -> int:
    """Print the table; 0 where marked rows are wrong more often than others. Whether dropping helps is shown, not assumed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with banking77.jsonl.gz")
    parser.add_argument("--seeds", type=int, default=3, help="cuts into folds")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "overproof-benchmarks", help="keeps the embeddings")
    given = parser.parse_args()
    began = time.monotonic()
    world = read(given.data, given.cache)
    n, tests = len(world.said), 3 * given.seeds  # all verdicts share DELTA
    print(
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}; {n:,} training rows, "
        f"{len(world.gold_test):,} test rows, {FOLDS} folds, {given.seeds} seeds; {tests} verdicts share a chance of {DELTA} of a false one"
    )
    groups = clusters(list(world.texts)).near.tolist()
    print(share("teacher's label wrong, all training rows", int((world.said != world.gold).sum()), n))
    base = right(world, np.ones(n, dtype=bool))
    print(share("student, nothing dropped", int(base.sum()), base.size))
    broken = []
    for seed in range(given.seeds):
        for kind, group in (("near-duplicates together", groups), ("near-duplicates torn apart", range(n))):
            found = out_of_fold(world.x, world.said, classes=len(world.labels), folds=FOLDS, group=group, seed=seed)
            if group is groups:
                broken += judge(world, base, confident_errors(found, world.said), f"suspicion.v1, {kind}, seed {seed}", tests)
            differs = found.judged & (found.chance.argmax(axis=1) != world.said)
            broken += judge(world, base, differs, f"plain out-of-fold disagreement, {kind}, seed {seed}", tests)
    print(f"\n{REFERENCE}\n{time.monotonic() - began:.0f} s")
    print("\n".join(f"BROKEN: {line}" for line in broken) or "what this benchmark checks holds: marked rows are wrong more often than others")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
