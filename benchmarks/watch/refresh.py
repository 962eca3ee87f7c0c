"""
What a refresh saves: rows labelled and quality, against labelling all rows again, old and new.

The Northlane inbox's first quarter trains a linear student; it serves the second one, in which products, prices and languages
have changed, and passes on what it is unsure of. `steps.refresh` makes the next prompt set. Both students that come of it (one
from the refresh, one from every new row) answer rows of the second quarter that neither has seen; gold says who is right.

    python benchmarks/watch/refresh.py --data PATH [--seeds 10]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from overproof.data import (
    Completion,
    Example,
    Failed,
    PromptRow,
    Request,
    Served,
    Traffic,
    TrafficRecord,
    TrainSet,
)
from overproof.measure.paired import difference_interval
from overproof.measure.scope import softmax_rows
from overproof.outputs import Classes
from overproof.steps.capture import LogSnapshot
from overproof.steps.promptset import PromptSetRecipe, promptset
from overproof.steps.refresh import RefreshRecipe, refresh
from overproof.students.linear import LinearStudent

MODEL, TASK = "northlane-readers-2025-11-15", "inbox"
HELD_OUT = 0.4
"""Of the second quarter: rows that only judge."""
AUDITED = 0.05
"""Of the student's answers; the wrong ones are named to the refresh."""
ADMITTED = 0.1
"""Wrong among kept, on calibration rows, at the champion's threshold."""
MOST_ROWS, MOST_POINTS = 1 / 3, 0.5


@dataclass(frozen=True, kw_only=True)
class Row:
    request: Request
    gold: str
    label: str
    quarter: int


@dataclass(frozen=True, kw_only=True)
class Outcome:
    new: int
    asked: int
    served: int
    n: int
    before: int
    refreshed: int
    everything: int
    unproven: int
    only_all: int
    """Held-out rows that only the student of all rows gets right."""
    only_refresh: int
    why: Counter[str]


def read(folder: Path) -> list[Row]:
    """The inbox, each message with the teacher's first reading."""
    said = {}
    for line in (folder / "answers.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["sample"] == 1:
            said[row["id"]] = row["output"].strip()
    rows = []
    for line in (folder / "messages.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        attributes = {name: row[name] for name in ("channel", "tier", "language")}
        request = Request(id=row["id"], fields={"text": row["text"]}, at=row["ts"], attributes=attributes)
        rows.append(Row(request=request, gold=row["queue"], label=said[row["id"]], quarter=row["quarter"]))
    return sorted(rows, key=lambda row: row.request.at or "")


def fitted(rows: list[tuple[PromptRow, str]], labels: tuple[str, ...], seed: int) -> LinearStudent:
    """A linear student of labelled rows."""
    student = LinearStudent(labels=labels, seed=seed)
    examples = tuple(Example(request=row.request, target=label, weight=row.weight) for row, label in rows)
    with tempfile.TemporaryDirectory() as scratch:
        student.fit(TrainSet(examples=examples, labels=labels), workdir=Path(scratch))
    return student


def answers(student: LinearStudent, requests: list[Request], labels: tuple[str, ...]) -> tuple[list[str], np.ndarray]:
    """What it says, and how sure it is."""
    logits = np.asarray(student.logits(requests), dtype=np.float64)
    return [labels[at] for at in logits.argmax(axis=1)], softmax_rows(logits).max(axis=1)


def threshold(sure: np.ndarray, right: np.ndarray) -> float:
    """The least at which the kept rows are right often enough."""
    order = np.argsort(-sure)
    errors = np.cumsum(~right[order]) / np.arange(1, len(order) + 1)
    good = np.flatnonzero(errors <= ADMITTED)
    return float(sure[order[good[-1]]]) if len(good) else 2.0


def once(rows: list[Row], seed: int, share: float) -> Outcome:
    """One world: which rows are held out, drawn and audited."""
    labels = tuple(sorted({row.gold for row in rows}))
    known = {row.request.id: row for row in rows}
    draw = random.Random(seed)
    first, second = ([row for row in rows if row.quarter == q] for q in (1, 2))
    judging = set(draw.sample([row.request.id for row in second], round(HELD_OUT * len(second))))
    live = [row for row in second if row.request.id not in judging]
    log = tuple(TrafficRecord(request=row.request) for row in first)
    reference = promptset(Traffic(records=log, window=(None, None), left_out={}), PromptSetRecipe(seed=seed, match=("language",)))
    label = lambda row: (row, known[row.request.id].label)  # noqa: E731 - used five times below
    champion = fitted([label(row) for row in reference.train], labels, seed)
    dev = [row.request for row in reference.calibration]
    said, sure = answers(champion, dev, labels)
    bar = threshold(sure, np.array([known[r.id].label == one for r, one in zip(dev, said, strict=True)]))
    said, sure = answers(champion, [row.request for row in live], labels)
    captured, named = [], {}
    for row, one, chance in zip(live, said, sure, strict=True):
        kept = bool(chance >= bar)
        how = Served(
            route="student" if kept else "teacher", reason="confident" if kept else "below_threshold", stage="full", status=200, task=TASK,
            endpoint="/v1/chat/completions", latency_s=0.1, overhead_s=0.0, release="r1", guess=one, confidence=float(chance), kept=kept,
        )  # fmt: skip
        answer = Completion(text=one if kept else row.label, value=None, model=MODEL)
        captured.append(TrafficRecord(request=row.request, completion=answer, served=how))
        if kept and draw.random() < AUDITED and one != row.label:
            named[row.request.id] = "audit"
    snapshot = LogSnapshot(records=(*log, *captured))
    traffic = Traffic(records=(*log, *(replace(r, completion=None, served=None) for r in captured)), window=(None, None), left_out={})
    recipe = RefreshRecipe(
        task=TASK, release_id="r1", model=MODEL, output=Classes(labels=labels), since=first[-1].request.at, until="2100-01-01T00:00:00Z",
        match=("language",), seed=seed, share=share,
    )  # fmt: skip
    following = refresh(traffic, snapshot, reference, Failed(named=named, bought=tuple(named)), recipe)
    before = {row.request.id for row in (*reference.train, *reference.calibration, *reference.test)}
    new = {row.request.id for row in (*following.prompts.train, *following.prompts.calibration, *following.prompts.test)} - before
    refreshed = fitted([label(row) for row in following.prompts.train], labels, seed)
    proving = {row.request.id for row in (*following.prompts.calibration, *following.prompts.test)}
    all_rows = [PromptRow(request=row.request, weight=1.0, group="") for row in live]
    spared = [row for row in all_rows if row.request.id not in proving]  # whoever labels all has to prove it on some, too
    everything = fitted([label(row) for row in (*reference.train, *spared)], labels, seed)
    unproven = fitted([label(row) for row in (*reference.train, *all_rows)], labels, seed)
    held = [row for row in second if row.request.id in judging]
    gold = np.array([row.gold for row in held])
    right = [np.array(answers(one, [row.request for row in held], labels)[0]) == gold for one in (champion, refreshed, everything, unproven)]
    return Outcome(
        new=len(live), asked=len(new - set(following.served)), served=len(following.served), n=len(held),
        before=int(right[0].sum()), refreshed=int(right[1].sum()), everything=int(right[2].sum()), unproven=int(right[3].sum()),
        only_all=int((right[2] & ~right[1]).sum()), only_refresh=int((right[1] & ~right[2]).sum()),
        why=Counter(following.counts),
    )  # fmt: skip


def main() -> int:
    """Print the table; 1 where a claim doesn't hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with inbox/")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--share", type=float, default=0.6, help="most of the new rows that the refresh labels")
    given = parser.parse_args()
    rows = read(given.data / "inbox")
    found = [once(rows, seed, given.share) for seed in range(given.seeds)]
    n = sum(one.n for one in found)
    first = sum(one.quarter == 1 for one in rows)
    share = max(one.asked / (first + one.new) for one in found)
    points = [100 * (one.refreshed - one.everything) / one.n for one in found]
    lost = statistics.fmean(points)
    apart = difference_interval(sum(o.only_all for o in found), sum(o.only_refresh for o in found), n)
    spread = statistics.stdev(points) if len(points) > 1 else float("nan")
    mean = lambda name: statistics.fmean(getattr(one, name) for one in found)  # noqa: E731
    print(f"The inbox's later quarter, linear student, {given.seeds} seeds; {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}\n")
    print("| | rows labelled anew | of the new rows | right by gold, held-out rows of the later quarter |")
    print("|---|---|---|---|")
    print(f"| before | 0 | 0 % | {100 * sum(o.before for o in found) / n:.1f} % |")
    print(f"| all relabelled, the same rows set aside to prove | {mean('new'):.0f} | 100 % | {100 * sum(o.everything for o in found) / n:.1f} % |")
    print(f"| all relabelled, and none set aside to prove | {mean('new'):.0f} | 100 % | {100 * sum(o.unproven for o in found) / n:.1f} % |")
    print(f"| refresh | {mean('asked'):.0f} (+ {mean('served'):.0f} that callers' answers brought) | {100 * mean('asked') / mean('new'):.0f} % | {100 * sum(o.refreshed for o in found) / n:.1f} % |")
    print(
        f"\nrefresh minus all: {lost:+.2f} points, sd over seeds {spread:.2f}, n = {found[0].n} held-out rows a seed; pooled paired 95 % interval "
        f"{100 * -apart.low:+.2f} to {100 * -apart.high:+.2f} (seeds share messages, so it is a guide); at least {-MOST_POINTS} is claimed"
    )
    whole = first + mean("new")
    print(f"labelled: {mean('asked') / mean('new'):.0%} of the new rows, {mean('asked') / whole:.1%} of all rows in the log, which a naive refresh labels again; at most a third is claimed")
    print("rows of the first seed: " + ", ".join(f"{name} {k}" for name, k in found[0].why.items()))
    good = share <= MOST_ROWS + 0.005 and lost >= -MOST_POINTS
    print("holds" if good else "DOES NOT HOLD")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
