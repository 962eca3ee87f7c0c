"""Precision and recall of the redaction by category, its speed, and the answers that it flips."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import random
import sys
import time
from importlib.resources import files
from pathlib import Path

from overproof.data import Example, Request, TrainSet
from overproof.measure.intervals import cp_interval
from overproof.privacy.redact import Policy, Redactor
from overproof.privacy.score import Scored, read_cases, score
from overproof.steps.redaction_flips import redaction_flips

CASES = Path(__file__).parents[2] / "tests" / "privacy" / "pii_cases.jsonl"
LEAST_RECALL, LEAST_PRECISION, MOST_ALARMS, MOST_FLIPS = 0.9, 0.9, 0.03, 0.01
PIECES = ("a", "1", "1 ", "a.", "-", "a@", "1 (", "eyJ.", "a_", "+1 ", ":a", "AB12 ")
"""Texts of one of these hold whole runs of what a pattern may begin with."""
MOST_GROWTH = 8.0
"""Of the time when such a text becomes four times as long: 4 is linear, 16 quadratic."""
LEAST_ROWS_PER_S = 20_000  # 1,000,000 messages in under a minute, whatever the machine does besides


def share(k: int, n: int) -> str:
    if not n:
        return "no rows"
    both = cp_interval(k, n)
    return f"{100 * k / n:5.1f} % ({k} of {n}; 95 %: {100 * both.low:.1f} to {100 * both.high:.1f})"


def table(found: Scored) -> bool:
    fine = True
    print("| category | recall | precision |\n|---|---|---|")
    for one in found.types:
        print(f"| {one.category} | {share(one.found, one.expected)} | {share(one.right, one.claimed)} |")
        fine &= one.found >= LEAST_RECALL * one.expected and one.right >= LEAST_PRECISION * one.claimed
    print(f"\nlook-alikes with a false alarm: {share(found.false_alarms, found.negatives)}")
    for line in (*found.missed, *found.alarms):
        print(f"  {line}")
    return fine and found.false_alarms <= MOST_ALARMS * found.negatives


def inbox() -> list[Example]:
    rows = map(json.loads, (files("overproof") / "inbox" / "messages.jsonl").read_text(encoding="utf-8").splitlines())
    return [Example(request=Request(id=r["id"], fields={"text": r["text"]}), target=r["queue"]) for r in rows if r["quarter"] == 1]


def banking77(folder: Path) -> list[Example]:
    file = "banking77.jsonl.gz"
    with gzip.open(folder / file if (folder / file).exists() else folder / "banking77" / file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [
        Example(request=Request(id=str(r["id"]), fields={"text": r["text"]}), target=r["teacher_label"])
        for r in rows if r["teacher_label"]
    ]  # fmt: skip


def salted(rows: list[Example], every: int, seed: int) -> list[Example]:
    """The same rows with an entity of the case file behind each n-th: what a log looks like that nobody cleaned."""
    draw = random.Random(seed)
    entities = [value for case in read_cases(CASES) for _, value in case.entities if len(value) < 60]
    out = []
    for i, one in enumerate(rows):
        text = one.request.fields["text"] + (f" ({draw.choice(entities)})" if i % every == 0 else "")
        out.append(Example(request=Request(id=one.request.id, fields={"text": text}), target=one.target))
    return out


def flips(name: str, rows: list[Example]) -> bool:
    cut = int(0.8 * len(rows))
    train = TrainSet(examples=tuple(rows[:cut]), labels=tuple(sorted({r.target for r in rows})))
    found = redaction_flips(train, rows[cut:], Redactor(Policy(), key=b"flips" * 8).text)
    print(f"\n{name}: {len(rows[:cut])} rows learned, {len(rows[cut:])} asked, linear.v1")
    for key in ("touched", "flipped", "flipped_of_touched", "flipped_both", "accuracy_raw", "accuracy_redacted"):
        one = getattr(found, key)
        print(f"  {key:20} {share(one.good, one.n)}")
    return "salted" in name or found.flipped.good <= MOST_FLIPS * found.flipped.n


def speed(name: str, texts: list[str]) -> bool:
    redactor = Redactor(Policy(), key=b"speed" * 8)
    began = time.process_time()
    for text in texts:
        redactor.text(text)
    rate = len(texts) / (time.process_time() - began)
    print(f"{name}: {rate:,.0f} texts a second of processor time, n = {len(texts)}, mean {sum(map(len, texts)) / len(texts):.0f} characters")
    return rate >= LEAST_ROWS_PER_S


def growth() -> bool:
    """Patterns are bounded: the time of a long text of one kind grows with its length, not with the square of it."""
    worst, of = 0.0, ""
    for piece in PIECES:
        least = []
        for n in (16_000, 64_000):
            text, costs = piece * (n // len(piece)), []
            for _ in range(3):
                began = time.process_time()
                Redactor(Policy(), key=b"speed" * 8).text(text)
                costs.append(time.process_time() - began)
            least.append(min(costs))
        if least[1] > 0.02 and least[1] / least[0] > worst:  # below that the clock is what is measured
            worst, of = least[1] / least[0], piece
    print(f"time of 64,000 characters over that of 16,000, worst of {len(PIECES)} kinds, least of 3 runs: {worst:.1f} ({of!r})")
    return worst <= MOST_GROWTH


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flips", action="store_true", help="fit students with and without redaction")
    parser.add_argument("--data", type=Path, help="folder with banking77.jsonl.gz, or with a folder banking77 that has it")
    parser.add_argument("--rows", type=int, default=100_000, help="texts for the speed figure")
    given = parser.parse_args()
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}\n")
    cases = read_cases(CASES)
    fine = table(score(cases))
    pool = [one.request.fields["text"] for one in (banking77(given.data) if given.data else inbox())]
    print()
    fine &= speed("messages", [pool[i % len(pool)] + " " * (i // len(pool)) for i in range(given.rows)])
    speed("texts with entities", [case.text + " " * i for i in range(20) for case in cases if case.entities])  # none twice: it would be remembered
    fine &= growth()
    if given.flips:
        sets = {"bundled inbox": inbox()} | ({"Banking77": banking77(given.data)} if given.data else {})
        for name, rows in sets.items():
            fine &= flips(name, rows)
            fine &= flips(f"{name}, salted with an entity in every fifth row", salted(rows, 5, 7))
    print("\nholds" if fine else "\nDOES NOT HOLD")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
