"""Small released bundles, packed as `steps.pack` does it."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path

from tests.students.tiny import write_tiny

from overproof.data import Example, Folder, Request, TrainSet
from overproof.evidence import Calibrator, Certificate, Confidence, Release, ScopeRule, SliceCertificate
from overproof.measure.intervals import figure
from overproof.outputs import Classes
from overproof.students.bundle import MANIFEST, STUDENT, Bundle, manifest_of
from overproof.students.card import RELEASE, Card, Threshold, write_card
from overproof.students.encoder import EncoderStudent
from overproof.students.linear import LinearStudent
from overproof.students.weights import sha256_of
from overproof.task import Slice

LABELS = ("billing", "delivery", "login")
ROWS = [
    (label, f"{opening} {text} {closing}".strip())
    for label, text in [
        ("billing", "I was charged twice for my order"), ("billing", "the invoice shows a wrong amount"), ("billing", "refund me for the subscription"),
        ("delivery", "where is my parcel"), ("delivery", "the package has not arrived yet"), ("delivery", "tracking says it is lost"),
        ("login", "I can't log in to my account"), ("login", "my password does not work"), ("login", "reset the two factor code"),
    ]
    for opening in ("", "hello there,")
    for closing in ("", "please help me as soon as you can, it is really urgent by now")
]  # fmt: skip
PAYING = Slice(name="paying", where=(("tier", ("plus", "business")),))
FRENCH = Slice(name="french", where=(("language", ("fr",)),))


def pack(
    folder: Path, kind: str = "linear", *, runtime: str = "", seed: int = 0, least: float = 0.4,
    scope: tuple[ScopeRule, ...] = (), how: Calibrator | None = None,
) -> str:  # fmt: skip
    """A bundle in `folder`, of a linear student or of a random encoder of two layers; says the SHA-256 of its manifest."""
    rows = ROWS[seed:] + ROWS[:seed]
    examples = tuple(Example(request=Request(id=str(i), fields={"text": text}), target=label) for i, (label, text) in enumerate(rows[: len(rows) - seed]))
    train = TrainSet(examples=examples, labels=LABELS)
    with tempfile.TemporaryDirectory() as scratch:
        cls = LinearStudent if kind == "linear" else EncoderStudent
        options = {"weights": f"folder:{write_tiny(Path(scratch) / 'tiny')}", "c": 1.0} if kind == "encoder" else {}
        student = cls(labels=LABELS, **options)
        fitted = Path(scratch) / "fitted" if runtime else folder / STUDENT
        fitted.mkdir(parents=True)
        student.fit(train, workdir=fitted)
        if runtime:
            (folder / STUDENT).mkdir(parents=True)
            cls.exported(fitted, runtime, into=folder / STUDENT)
            student = cls.load(folder / STUDENT)
    other = Slice(name="other", where=())
    card = Card(
        task="routing", input=("text",), output=Classes(labels=LABELS), candidate="small", use=student.kind,
        confidence=Confidence(everywhere=how or Calibrator(method="temperature"), scope=scope),
        thresholds=(Threshold(slice=PAYING, threshold=least), Threshold(slice=FRENCH, threshold=None), Threshold(slice=other, threshold=0.5)),
        label_kind="gold", plan_hash="0" * 64, expires="2099-01-01", selftest=(),
    )  # fmt: skip
    card = replace(card, selftest=Bundle(card, student).probe([text for _, text in ROWS[:8]]))
    write_card(folder / RELEASE, card)
    (folder / MANIFEST).write_text(json.dumps(manifest_of(folder)))
    return sha256_of(folder / MANIFEST)


def gated(store, folder: Path, thresholds, *, name="r1", task="routing", alpha=0.05, ends="2999-01-01", due="2999-01-01"):
    """A release of the files in `folder` as the gate makes one, recorded as a candidate; a slice without a threshold stays with the teacher."""
    parts = tuple(
        SliceCertificate(slice=one, alpha=alpha, delta=0.02, threshold=threshold, n=400, kept=300, wrong=3, upper=0.04,
                         keep_share=figure(300, 400, metric="kept"), verdict="pass")
        for one, threshold in thresholds.items()
    )  # fmt: skip
    certificate = Certificate(
        plan_hash="p", sealed_digest="s", label_kind="teacher:big", use_k=1, delta_spent=0.05, slices=parts, assumptions=(),
        window=(None, None), expires=ends, supports="G4",
    )  # fmt: skip
    bundle = store.memo().source("bundle", Folder(path=folder)).value
    made = Release(id=name, task=task, findings=(), headline="h", candidate="small", bundle=bundle, certificate=certificate, owner="Dana Ruiz",
                   review_due=due)  # fmt: skip
    store.releases.record(made, stage="candidate", by="gate")
    return made
