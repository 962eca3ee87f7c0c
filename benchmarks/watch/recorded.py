"""
What the simulations draw from: Banking77's recorded teacher, and a student's answers beside it.

A linear student learns 5,000 rows of the recording from the teacher's answers; on the other rows its calibrated confidence and
whether it differs from the teacher are on record. Answers of at least `KEEP` confidence are kept. A day of traffic is a draw
with replacement from these kept rows in which the wrong ones have the share that the scenario says: their confidences stay
those on record, so that a fault shows where this student's faults do. In the "anywhere" scenario a fault falls on any kept row
alike, sure or not. Monitors see nothing of a row but its audit probability and whether it was wrong, so that counts are drawn
instead of rows, which is the same distribution.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import tempfile
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from overproof.data import AuditPlan, Example, Request, SliceDraw, TrainSet
from overproof.evidence import Certificate, SliceCertificate
from overproof.measure.audited import Draw
from overproof.measure.calibration import fit_temperature, probabilities
from overproof.measure.intervals import cp_interval, figure
from overproof.measure.monitor import AuditDay, AuditDesign, audit_probability
from overproof.project import Project, load_project
from overproof.students.linear import LinearStudent
from overproof.watch.monitors import Stream

DAY_0 = date(2026, 1, 1)
LEARNED, CALIBRATED, KEEP, LOW = 5_000, 1_000, 0.6, 0.8
BAR, USUAL, DELTA, PAGE_DAYS = 0.05, 0.03, 0.05, 365.0
SLICES = {"vip": 0.03, "a": 0.3, "b": 0.25, "c": 0.2, "d": 0.12, "e": 0.06, "f": 0.03, "other": 0.01}
_FILE = """
[task]
name = "banking"
input = ["text"]
output = { classes = ["a", "b"] }
prompt = "p.md"
[teacher]
use = "recorded.v1"
model = "m"
path = "r.jsonl"
terms = "t.toml"
[traffic]
source = "log"
[bars]
fidelity = 0.9
[serve]
fidelity_below = 0.95
[[student]]
use = "linear.v1"
"""
Seen = tuple[AuditDay, Draw]


@dataclass(frozen=True, kw_only=True, slots=False)
class Recorded:
    """The kept answers on record."""

    confidence: NDArray[np.float64]
    wrong: NDArray[np.bool_]
    """Whether the student differs from the teacher."""

    @cached_property
    def low(self) -> dict[bool, float]:
        """Share of low confidence among the wrong rows and among the right ones."""
        return {bad: float((self.confidence[self.wrong == bad] < LOW).mean()) for bad in (True, False)}

    @cached_property
    def low_share(self) -> float:
        """Share of low confidence among all of them, as counted beforehand."""
        return float((self.confidence < LOW).mean())

    def design(self, **more: float) -> AuditDesign:
        """The audit design of the defaults, with the share that this record shows."""
        return AuditDesign(low_share=self.low_share, low_below=LOW, **more)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """One line of a table."""

    text: str
    found: str
    n: int
    reach: str = "-"
    holds: bool | None = None
    """None where nothing is claimed."""


def arguments(text: str | None, runs: int) -> argparse.Namespace:
    """What every script takes."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds banking77/")
    parser.add_argument("--runs", type=int, default=runs)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--recorded", type=Path, help="where the student's answers are kept from script to script")
    return parser.parse_args()


def recorded(args: argparse.Namespace) -> Recorded:
    """The kept answers; a student is trained where they are not kept from another script."""
    if args.recorded is not None and args.recorded.exists():
        with np.load(args.recorded, allow_pickle=False) as kept:
            return Recorded(confidence=kept["confidence"], wrong=kept["wrong"])
    with gzip.open(args.data / "banking77" / "banking77.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [row for row in map(json.loads, lines) if row["teacher_label"] is not None]
    order = np.random.default_rng(0).permutation(len(rows))
    labels = tuple(sorted({row["teacher_label"] for row in rows}))
    examples = [Example(request=Request(id=rows[i]["id"], fields={"text": rows[i]["text"]}), target=rows[i]["teacher_label"]) for i in order]
    student = LinearStudent(labels=labels)
    with tempfile.TemporaryDirectory() as folder:
        student.fit(TrainSet(examples=tuple(examples[:LEARNED]), labels=labels), workdir=Path(folder))
    rest = examples[LEARNED:]
    logits = student.logits([one.request for one in rest])
    target = np.array([labels.index(one.target) for one in rest])
    chance = probabilities(logits, fit_temperature(logits[:CALIBRATED], target[:CALIBRATED]))[CALIBRATED:]
    confidence, wrong = chance.max(axis=1), chance.argmax(axis=1) != target[CALIBRATED:]
    kept = confidence >= KEEP
    if args.recorded is not None:
        np.savez(args.recorded, confidence=confidence[kept], wrong=wrong[kept])
    return Recorded(confidence=confidence[kept], wrong=wrong[kept])


def drawn(data: Recorded, rng: np.random.Generator, rates: list[float], *, kept: int, design: AuditDesign | None, boost: float = 1.0,
          even: float = 1.0, anywhere: bool = False) -> list[Seen]:  # fmt: skip
    """
    Days of one slice.

    Args:
        data: the record.
        rng: seeded.
        rates: share of wrong answers, one a day.
        kept: requests a day.
        design: how they are drawn; None for one probability for all, `even`.
        boost: factor on the slice's rate.
        even: see `design`.
        anywhere: whether faults fall on sure answers as on others.
    """
    pi = np.array([even, even] if design is None else
                  [audit_probability(sure, kept_per_day=kept, design=design, boost=boost) for sure in (0.0, 1.0)])  # fmt: skip
    low = {bad: data.low_share if anywhere else data.low[bad] for bad in (True, False)}
    found = []
    for i, rate in enumerate(rates):
        bad = int(rng.binomial(kept, rate))
        sizes = {b: rng.multinomial(n, [low[b], 1 - low[b]]) for b, n in ((True, bad), (False, kept - bad))}
        wrong, right = (rng.binomial(sizes[b], pi) for b in (True, False))
        counts: dict[float, int] = {}
        for p, k in zip(pi.tolist(), wrong.tolist(), strict=True):
            counts[p] = counts.get(p, 0) + k
        row = AuditDay(day=DAY_0 + timedelta(days=i), requests=kept, audited=int(wrong.sum() + right.sum()), unlabelled=0,
                       wrong_by_pi=tuple((p, k) for p, k in sorted(counts.items()) if k))  # fmt: skip
        found.append((row, Draw(low=float(pi.min()), high=float(pi.max()))))
    return found


def stream(days: list[Seen], *, weight: float = 1.0) -> Stream:
    """A stream alone at the bar."""
    return Stream(slice="s", signal="disagreement", bar=BAR, days=tuple(row for row, _ in days), draws={row.day: draw for row, draw in days}, weight=weight)


def certificate() -> Certificate:
    """Eight slices, each with the bar."""
    parts = tuple(SliceCertificate(slice=name, alpha=BAR, delta=0.02, threshold=KEEP, n=400, kept=300, wrong=3, upper=0.04,
                                   keep_share=figure(300, 400, metric="kept"), verdict="pass") for name in SLICES)  # fmt: skip
    return Certificate(plan_hash="p", sealed_digest="s", label_kind="teacher:m", use_k=1, delta_spent=0.05, slices=parts, assumptions=(),
                       window=(None, None), expires="2999-01-01", supports="G4")  # fmt: skip


def project() -> Project:
    """A project whose release is held to the bar, slice by slice and over all."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, text in {"overproof.toml": _FILE, "p.md": "Say a or b.", "r.jsonl": "", "t.toml": ""}.items():
            (root / name).write_text(text)
        return load_project(root / "overproof.toml")


def plan(design: AuditDesign, day: date, kept: dict[str, int], boosts: dict[str, float]) -> AuditPlan:
    """What the watch writes down before a day."""
    return AuditPlan(release_id="r", day=day.isoformat(), slices={name: SliceDraw(kept_per_day=n, boost=boosts.get(name, 1.0)) for name, n in kept.items()},
                     rate=design.rate, pi_min=design.pi_min, floor_per_day=design.floor_per_day, low_below=design.low_below, low_share=design.low_share)  # fmt: skip


def share(k: int, n: int) -> str:
    """A share of runs with its exact interval."""
    both = cp_interval(k, n)
    return f"{k} ({k / n:.1%}; {both.low:.1%}-{both.high:.1%})"


def median(values: list[float]) -> str:
    """The median, with an interval from the order statistics; runs that never alarmed count as infinitely long."""
    ordered = sorted(values)
    n = len(ordered)
    reach = 0.98 * n**0.5
    low, high = ordered[max(0, int(n / 2 - reach))], ordered[min(n - 1, int(n / 2 + reach))]
    return " ".join([_shown(float(np.median(ordered))), f"({_shown(low)}-{_shown(high)})"])


def told(title: str, data: Recorded, args: argparse.Namespace, claims: list[Claim]) -> int:
    """Print the table; 1 where a claim fails."""
    print(f"## {title}\n")
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, seed {args.seed}; {len(data.wrong):,} kept answers on record, "
          f"{data.wrong.mean():.1%} of them wrong, {data.low_share:.0%} of low confidence ({data.low[True]:.0%} of the wrong ones)\n")  # fmt: skip
    print("| | n | found (95 % interval) | reach | holds |\n|---|---|---|---|---|")
    for one in claims:
        print(f"| {one.text} | {one.n} | {one.found} | {one.reach} | {'-' if one.holds is None else 'yes' if one.holds else 'NO'} |")
    print()
    return int(any(one.holds is False for one in claims))


def _shown(value: float) -> str:
    return f"{value:,.0f}" if np.isfinite(value) else "never"
