"""Which score tells requests of intents that nobody trained on from the task's own: Banking77 with some intents held out."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import random
import sys
import tempfile
from pathlib import Path

import numpy as np

from overproof.data import Example, Request, TrainSet
from overproof.measure.reading import OF_LOGITS, column_of
from overproof.measure.scope import auroc_interval, fpr_at_tpr
from overproof.students.encoder import EncoderStudent
from overproof.students.linear import LinearStudent


def main() -> int:
    """Print the table: mean over draws of the held-out intents, and the interval of the first draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds banking77/")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--held-out", type=int, default=15, help="intents that are foreign")
    given = parser.parse_args()
    rows = [json.loads(line) for line in gzip.decompress((given.data / "banking77" / "banking77.jsonl.gz").read_bytes()).splitlines()]
    intents = sorted({row["gold"] for row in rows})
    test = [row for row in rows if row["split"] == "test"]
    asked = [Request(id=row["id"], fields={"text": row["text"]}) for row in test]
    found: dict[tuple[str, str], list[tuple[float, float, float, float]]] = {}
    for draw in range(given.draws):
        foreign = set(random.Random(draw).sample(intents, given.held_out))
        labels = tuple(one for one in intents if one not in foreign)
        train = TrainSet(examples=tuple(Example(request=Request(id=r["id"], fields={"text": r["text"]}), target=r["gold"]) for r in rows if r["split"] == "train" and r["gold"] not in foreign), labels=labels)
        outside = np.array([row["gold"] in foreign for row in test])
        for student in (LinearStudent(labels=labels), EncoderStudent(labels=labels)):
            with tempfile.TemporaryDirectory() as folder:
                student.fit(train, workdir=Path(folder))
                seen = student.look(asked)
            logits = np.asarray(seen.logits, dtype=np.float64)
            for name in (*OF_LOGITS, *seen.columns):
                score = column_of(name, logits, seen.columns)
                interval = auroc_interval(score, outside)
                found.setdefault((student.kind, name), []).append((interval.value, interval.low, interval.high, fpr_at_tpr(score, outside)))
    print(f"Banking77, {given.held_out} of {len(intents)} intents held out, {given.draws} draws, n = {len(test):,} test rows each.")
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}\n")
    print("| student | score | AUROC, mean ± sd over draws | 95 % interval of draw 0 | own requests routed where 95 % of the foreign are |\n|---|---|---|---|---|")
    for (kind, name), values in sorted(found.items(), key=lambda item: (item[0][0], -np.mean([v[0] for v in item[1]]))):
        means = [v[0] for v in values]
        print(f"| {kind} | {name} | {np.mean(means):.3f} ± {np.std(means, ddof=1) if len(means) > 1 else 0:.3f} | {values[0][1]:.3f} to {values[0][2]:.3f} | {np.mean([v[3] for v in values]):.1%} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
