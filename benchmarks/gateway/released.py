"""Students for the benchmarks: fitted, packed as a release is, and put at a stage of a project's rollout."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import rig

from overproof.data import CalibrationSet, Example, Folder, Request, TrainSet
from overproof.evidence import Calibrator, Certificate, Confidence, Release, SliceCertificate, Trained
from overproof.measure.intervals import figure
from overproof.measure.slices import OTHER
from overproof.outputs import Classes
from overproof.registry import resolve
from overproof.steps.export import ExportRecipe, export
from overproof.store.project_store import open_store
from overproof.students.bundle import MANIFEST, STUDENT, Bundle, manifest_of
from overproof.students.card import RELEASE, Card, Threshold, write_card
from overproof.students.seen import READ_BY
from overproof.task import Slice

PROBES = ("where is my card", "the rate of my transfer was wrong", "how do I change my PIN?", "ok", "my top-up failed twice, please help me as soon as you can")
# Made up: what is measured here is what a release costs. Without a certified slice the rollout would take it back at once.
EVERYTHING = SliceCertificate(
    slice=OTHER, alpha=0.05, delta=0.05, threshold=-1.0, n=1000, kept=1000, wrong=10, upper=0.02,
    keep_share=figure(1000, 1000, metric="kept"), verdict="pass",
)  # fmt: skip
CERTIFICATE = Certificate(
    plan_hash="0" * 64, sealed_digest="0" * 64, label_kind="gold", use_k=1, delta_spent=0.05, slices=(EVERYTHING,), assumptions=(),
    window=(None, None), expires="2999-01-01",
)  # fmt: skip


def examples(pairs: Sequence[tuple[str, str]]) -> tuple[Example, ...]:
    """Text and label, as training rows."""
    return tuple(Example(request=Request(id=str(i), fields={rig.FIELD: text}), target=label) for i, (text, label) in enumerate(pairs))


def linear(folder: Path, texts: Sequence[str], *, shift: int = 0) -> Path:
    """A bundle of a small student on made-up labels, which no two shifts share: quality plays no part here."""
    pairs = [(text, rig.LABELS[(i + shift) % len(rig.LABELS)]) for i, text in enumerate(texts)]
    student = resolve("students", "linear.v1")(labels=rig.LABELS)
    (folder / STUDENT).mkdir(parents=True)
    student.fit(TrainSet(examples=examples(pairs), labels=rig.LABELS), workdir=folder / STUDENT)
    return sealed(folder, student, rig.LABELS)


def encoder(folder: Path | str, data: Path | str, count: int | str) -> Path:
    """A bundle of encoder.v1 on recorded labels of Banking77, in the runtime that the export step takes."""
    folder, count, rows = Path(folder), int(count), rig.banking(Path(data))
    labels = tuple(sorted({row["teacher_label"] for row in rows}))
    found = examples([(row["text"], row["teacher_label"]) for row in rows if row["split"] == "train"])
    part, work = resolve("students", "encoder.v1"), folder.parent / "fitting"
    for name in ("fitted", "exported"):
        (work / name).mkdir(parents=True)
    student = part(labels=labels)
    student.fit(TrainSet(examples=found[:count], labels=labels), workdir=work / "fitted")
    trained = Trained(
        name="encoder.v1", use="encoder.v1", kind="student", folder=Folder(path=work / "fitted"), size_bytes=0,
        parameters=student.parameters, rows=count, seed=0,
    )  # fmt: skip
    made = export(trained, CalibrationSet(examples=found[count : count + 1000], labels=labels), ExportRecipe(), workdir=work / "exported")
    folder.mkdir(parents=True)
    shutil.move(made.trained.folder.path, folder / STUDENT)
    for unread in READ_BY:  # no rule here uses these scores, so a release leaves their files out
        (folder / STUDENT / unread).unlink(missing_ok=True)
    shutil.rmtree(work)
    return sealed(folder, part.load(folder / STUDENT), labels)


def sealed(folder: Path, student: Any, labels: Sequence[str]) -> Path:
    """Card and manifest beside the student: it keeps every request, so that each one is answered by it."""
    everything = Threshold(slice=Slice(name=OTHER, where=()), threshold=-1.0)
    card = Card(
        task=rig.TASK, input=(rig.FIELD,), output=Classes(labels=tuple(labels)), candidate="bench", use=student.kind,
        confidence=Confidence(everywhere=Calibrator(method="temperature")), thresholds=(everything,), label_kind="gold",
        plan_hash=CERTIFICATE.plan_hash, expires=CERTIFICATE.expires, selftest=(),
    )  # fmt: skip
    card = replace(card, selftest=Bundle(card, student).probe(PROBES))
    write_card(folder / RELEASE, card)
    (folder / MANIFEST).write_text(json.dumps(manifest_of(folder)))
    return folder


def release(project: Path, bundle: Path, name: str) -> None:
    """Record a bundle as a release of the project."""
    with open_store(project) as store:
        kept = store.memo().source(f"bundle-{name}", Folder(path=bundle)).value
        made = Release(
            id=name, task=rig.TASK, findings=(), headline="", candidate="bench", bundle=kept, certificate=CERTIFICATE, owner="Robin Vale",
            review_due="2999-01-01",
        )  # fmt: skip
        store.releases.record(made, by="gate")


def move(project: Path, name: str, stage: str, share: float = 1.0) -> None:
    """Put a release at a stage, whatever the evidence; a running gateway follows within a second."""
    with open_store(project) as store:
        for _ in range(20):  # a gateway may move it at the same moment
            before = store.rollouts.current(rig.TASK)
            if store.rollouts.move(before, release_id=name, stage=stage, share=share, by="bench", why="bench", evidence={}, at=time.time()):
                return
    raise rig.NotMeasured(f"release {name!r} could not be moved to {stage!r}")
