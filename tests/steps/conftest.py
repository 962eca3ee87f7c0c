"""A small made-up world: requests with attributes, a teacher with a blind spot, students whose confidence means something."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from overproof.data import (
    CalibrationSet,
    Clearance,
    Example,
    Folder,
    Request,
    SliceMatch,
    TeacherPin,
    TestSet,
    TrainSet,
    digest_of,
)
from overproof.evidence import EvalReport, Scores, Trained
from overproof.steps.calibrate import CalibrateRecipe, calibrate
from overproof.steps.collect import DataEvidence, Evidence
from overproof.steps.evaluate import EvaluateRecipe, StudyRecipe, evaluate, study
from overproof.steps.pack import PackRecipe, pack
from overproof.steps.plan import PlanRecipe, make_plan
from overproof.steps.train import StudentRecipe, train
from overproof.task import Bar, Slice

BARS = (Bar(metric="fidelity", at_least=0.9), Bar(metric="accuracy", at_least=0.85))
BUSINESS = Slice(name="business", where=(("tier", ("business",)),), critical=True)
CANDIDATES = {"small": {"error": 0.2, "size": 9_000}, "large": {"error": 0.06}, "majority": {"kind": "baseline", "error": 0.7}}
REPORTS: dict[str, EvalReport] = {}
SOUND: list[Evidence] = []
LABELS = ("billing", "bug", "how-to", "refund", "safety", "other")


@dataclass(frozen=True)
class World:
    """Makes rows and scores of them in a folder."""

    root: Path

    def examples(
        self, n: int, *, seed: int, gold: float = 1.0, teacher: Mapping[str, float] | float = 0.97
    ) -> tuple[Example, ...]:
        """`teacher` is the chance that the teacher is right, per true label or for all."""
        rng = np.random.default_rng(seed)
        rows = []
        for i in range(n):
            true = LABELS[int(rng.choice(6, p=[0.3, 0.2, 0.2, 0.15, 0.05, 0.1]))]
            right = teacher if isinstance(teacher, float) else teacher.get(true, 0.97)
            said = true if rng.random() < right else LABELS[(LABELS.index(true) + 1) % 6]
            attributes = {"tier": str(rng.choice(["guest", "plus", "business"], p=[0.6, 0.3, 0.1]))}
            rows.append(
                Example(
                    request=Request(id=f"r{seed}-{i}", fields={"body": f"message {i}"}, attributes=attributes),
                    target=said,
                    gold=true if rng.random() < gold else None,
                    near_train=float(rng.beta(4, 2)),
                    cost_usd=0.002,
                    latency_s=0.6,
                )
            )
        return tuple(rows)

    def calibration(self, n: int, *, seed: int = 1, **more: object) -> CalibrationSet:
        """Calibration rows."""
        return CalibrationSet(examples=self.examples(n, seed=seed, **more), labels=LABELS)  # type: ignore[arg-type]

    def sealed(self, n: int, *, seed: int = 2, **more: object) -> TestSet:
        """Sealed rows."""
        return TestSet(examples=self.examples(n, seed=seed, **more), labels=LABELS)  # type: ignore[arg-type]

    def scores(
        self, name: str, rows: CalibrationSet | TestSet, *, kind: str = "student", error: float = 0.1, cost: float = 0.01,
        size: int = 1_000_000, sharp: float = 3.0, seed: int | None = None,
    ) -> Scores:
        """A candidate wrong on about `error` of rows, mostly where its confidence is low; the scores are `sharp` times too sure."""
        n, k = len(rows.examples), len(rows.labels)
        rng = np.random.default_rng(sum(map(ord, name)) + n if seed is None else seed)
        target = np.array([LABELS.index(e.target) for e in rows.examples])
        if kind == "teacher":
            answer, sure = target, np.full(n, 1 - 1e-9)
        else:
            sure = 1 - rng.beta(1, 1 / error - 1, n) * 0.999 if error > 0 else np.full(n, 0.999)
            wrong = rng.random(n) > sure
            answer = np.where(wrong, (target + rng.integers(1, k, n)) % k, target)
        sure = np.clip(sure, 1 / k + 0.05, 1 - 1e-9)
        logits = np.zeros((n, k))
        logits[np.arange(n), answer] = np.log(sure / ((1 - sure) / (k - 1)))
        folder = self.root / f"{name}-{type(rows).__name__}-{n}"
        folder.mkdir(exist_ok=True)
        np.save(folder / "logits.npy", (logits * sharp).astype(np.float32))
        return Scores(
            name=name, kind=kind, folder=Folder(path=folder), n=n, latency_s=0.6 if kind == "teacher" else 0.004,
            latency_p95_s=1.2 if kind == "teacher" else 0.006, cost_usd_per_1000=cost,
            size_bytes=0 if kind == "teacher" else size, parameters=size // 4,
            latency_n=100, cost_n=n,
        )  # type: ignore[arg-type]

    def report(self, **asked) -> EvalReport:
        """Everything from calibration to the report, through the steps themselves; once in a process for the same wishes."""
        key = f"{type(self)} {sorted(asked.items())}"
        if key not in REPORTS:
            REPORTS[key] = self.made(**asked)
        return REPORTS[key]

    def made(self, *, n=2_000, gold=1.0, teacher=0.97, candidates=CANDIDATES, plan_more=None, **more) -> EvalReport:
        """`report`, made anew."""
        dev, sealed = self.calibration(n, gold=gold, teacher=teacher), self.sealed(n, gold=gold, teacher=teacher)
        slices, bars = more.pop("slices", (BUSINESS,)), more.pop("bars", BARS)
        dev_scores = tuple(self.scores(name, dev, **options) for name, options in candidates.items())
        calibrations = tuple(calibrate(s, dev, CalibrateRecipe()) for s in dev_scores)
        asked = {"bars": bars, "slices": slices, "accuracy_when_confident": 0.95, "n_sealed": n, "teacher": "big",
                 "margin": 0.1, "n_sealed_gold": sum(e.gold is not None for e in sealed.examples)}
        plan = make_plan(calibrations, dev_scores, dev, PlanRecipe(**(asked | (plan_more or {}))))
        scores = (
            *(self.scores(name, sealed, **options) for name, options in candidates.items()),
            self.scores("teacher", sealed, kind="teacher", cost=2.0),
        )
        seen = study(plan, calibrations, dev_scores, dev, StudyRecipe(slices=slices))
        place = {
            "use_k": 1, "plan_hash": digest_of(plan.chosen), "sealed_digest": "5" * 64, "bars": bars, "slices": slices,
            "window": ("2026-01-01", "2026-02-01"), "expires": "2126-06-01",
        }
        return evaluate(plan, seen, scores, sealed, EvaluateRecipe(**(place | more)))

    def evidence(self, report: EvalReport) -> Evidence:
        """Sound evidence round a report, without a bundle."""
        pin = TeacherPin(use="recorded.v1", provider="somebody", model="big-2026-05-01", revision="r" * 40,
                         parameters={"temperature": 0}, prompt_digest="b" * 64)
        clearance = Clearance(
            id="c" * 64, pin=pin, registry_id="own-answers", registry_digest="d" * 64, posture="no-restriction-found",
            cited=("House rules, 1.2: \u201canswers belong to who wrote them\u201d",), obligations=("notice-file",),
            attested_by="Dana Ruiz", attested_on="2026-02-02", expires="2026-05-03",
            statement="I read both documents and they leave these answers to us.", student_kind="classifier",
            distribution="internal",
        )
        data = DataEvidence(
            clearance=clearance, pin=pin, clearance_id=clearance.id, models={pin.model: 6_000}, spent_usd=12.5,
            funnel={"rows read": 9_000, "exact duplicates": 1_500, "near-duplicates": 700, "train": 2_800,
                    "calibration": 2_000, "test": 2_000},
            match=(
                SliceMatch(attribute="tier", value="guest", live_share=0.6, set_share=0.61, n_live=5_400, n_set=4_148),
                SliceMatch(attribute="tier", value="plus", live_share=0.3, set_share=0.29, n_live=2_700, n_set=1_972),
                SliceMatch(attribute="tier", value="business", live_share=0.1, set_share=0.1, n_live=900, n_set=680),
            ),
            distance=0.012, leaks={"exact": 0, "near-duplicate": 0, "session": 0},
            notes=("The newest two weeks are the sealed rows.",), labels=LABELS,
            counts={"train: kept": 2_790, "train: no label": 10}, rows={"train": 2_790, "calibration": 2_000, "test": 2_000},
        )
        trained = tuple(
            Trained(name=c.name, use=f"{c.name}.v1", kind=c.kind, folder=Folder(path=self.root, digest="f" * 64),
                    size_bytes=c.size_bytes, parameters=c.parameters, rows=2_790, seed=0)
            for c in report.candidates if c.kind != "teacher"
        )
        return Evidence(data=data, trained=trained, report=report, bundle=None, requests_per_month=90_000.0,
                        digests={"prompts": "a" * 64})


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A fresh world."""
    return World(tmp_path)


@pytest.fixture(scope="session")
def make_world() -> type[World]:
    """The class, for fixtures that live longer than a test."""
    return World


WORDS = {"billing": "invoice charged", "bug": "crash error", "how-to": "how do I", "refund": "money back",
         "safety": "smoke burning", "other": "hello there"}


@pytest.fixture(scope="session")
def sound(tmp_path_factory) -> Evidence:
    """Evidence of a run in which all is well, with a real bundle of a small trained student; once in a process."""
    if not SOUND:
        SOUND.append(sound_in(tmp_path_factory.mktemp("gate")))
    return SOUND[0]


def sound_in(root: Path) -> Evidence:
    """`sound`, made in a folder."""
    world = World(root)
    evidence = world.evidence(world.report())
    example = world.examples(1, seed=9)[0]
    rows = [
        replace(example, request=Request(id=f"t{i}", fields={"body": f"{WORDS[label]} number {i}"}), target=label)
        for i, label in itertools.product(range(6), WORDS)
    ]
    for folder in ("train", "pack"):
        (root / folder).mkdir()
    small = train(
        TrainSet(examples=tuple(rows), labels=tuple(WORDS)), StudentRecipe(name="large", use="linear.v1"),
        workdir=root / "train",
    )
    recipe = PackRecipe(task="ticket-routing", input=("body",), slices=(BUSINESS,))
    bundle = pack(small, evidence.report, recipe, workdir=root / "pack")
    return replace(evidence, bundle=replace(bundle, digest="b" * 64))
