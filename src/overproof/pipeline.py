"""distil(): the whole offline road from the traffic log to a release or a refusal, top to bottom."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import overproof
from overproof import registry
from overproof.asking import Buyer
from overproof.data import CalibrationSet, Labelled, TestSet, TrainSet, digest_of
from overproof.errors import DataError, TermsError
from overproof.evidence import Calibration, EvalReport, Plan, Refusal, Release, Scores, Trained
from overproof.project import Project
from overproof.settings import Part, expand_slices
from overproof.steps.baseline import ASK_DEV, ASK_TEST, SHOTS, AskRecipe, ShotsRecipe
from overproof.steps.calibrate import CALIBRATE, CalibrateRecipe
from overproof.steps.capture import CAPTURE, CaptureRecipe, LogSnapshot
from overproof.steps.certificates import GOLD
from overproof.steps.clear import CLEAR, ClearRecipe, decisive_day, student_kind
from overproof.steps.collect import COLLECT, SUMMARISE, CollectRecipe, SummariseRecipe
from overproof.steps.dossier import DOSSIER, REVIEWED_DOSSIER, DossierRecipe
from overproof.steps.evaluate import EVALUATE, STUDY, EvaluateRecipe, StudyRecipe, teacher_kind
from overproof.steps.filter import (
    FILTER,
    TAKE_CALIBRATION,
    TAKE_TEST,
    TAKE_TRAIN,
    FilterRecipe,
    NoRecipe,
    verifier_spec,
)
from overproof.steps.gate import GATE, GateRecipe
from overproof.steps.mend import (
    FEATURES,
    MEND,
    TAKE_LABELLED,
    FeaturesRecipe,
    MendRecipe,
    TakeRecipe,
)
from overproof.steps.pack import PACK, PackRecipe
from overproof.steps.plan import PLAN, PlanRecipe
from overproof.steps.predict import PREDICT_DEV, PREDICT_TEST, TEACHER_SCORES, PredictRecipe
from overproof.steps.promptset import PROMPTSET, PromptSetRecipe
from overproof.steps.survey import SURVEY, Survey, SurveyRecipe
from overproof.steps.teach import TEACH, TeachRecipe
from overproof.steps.teacher_errors import TEACHER_ERRORS, TeacherErrorsRecipe
from overproof.steps.terms import Terms, read_terms
from overproof.steps.train import TRAIN, StudentRecipe
from overproof.store.artifacts import Artifact, Memo, NotBuilt, StepEvent
from overproof.store.project_store import Store
from overproof.store.releases import Unsealed
from overproof.students.weights import pinned
from overproof.task import Slice

STAGES = ("capture", "promptset", "clear", "teach", "filter", "train", "calibrate", "evaluate", "gate")
CERTIFICATE_DAYS = 90  # statistics: what was proven on one window says nothing about traffic a quarter later


@dataclass(frozen=True, kw_only=True, slots=True)
class RunResult:
    """What a run came to."""

    run_id: str
    """Names the run in `show` and `diff`; empty for a run that stopped before the gate."""
    verdict: Release | Refusal | None
    """None where the run stopped before the gate."""
    dossier_path: Path | None
    """The dossier's page."""
    events: tuple[StepEvent, ...]
    """What was run and what was reused."""
    artifacts: Mapping[str, Artifact[Any]]
    """Name to result; values load when they are asked for."""


@dataclass(kw_only=True, slots=True)
class _Candidates:
    """Everything that may answer, fitted and asked."""

    trained: dict[str, Artifact[Trained]] = field(default_factory=dict)
    """Name to weights; names are known without reading a byte of them."""
    dev: list[Artifact[Scores]] = field(default_factory=list)
    test: list[Artifact[Scores]] = field(default_factory=list)
    calibrations: list[Artifact[Calibration]] = field(default_factory=list)


def distil(
    store: Store, project: Project, *, to: str | None = None, on_event: Callable[[StepEvent], None] | None = None
) -> RunResult:
    """
    Do what is missing, up to a stage or to the verdict.

    Args:
        store: the project's store.
        project: the checked project file.
        to: one of `STAGES`; None goes to the verdict.
        on_event: called at the start and the end of each step.

    Returns: verdict, dossier and everything in between.
    Raises: DataError for an unknown stage; whatever a step raises. What was finished before stays and is reused.
    """
    last = to or STAGES[-1]
    if last not in STAGES:
        raise DataError(f"no stage {last!r}. {registry.suggest(last, list(STAGES))}", next_action="use one of these with --to")
    with store.role("run"):
        memo = store.memo(on_event=on_event)
        road = Road(store, project, memo)
        for stage in road.walk():
            if stage == last:
                break
        return road.result()


def status(store: Store, project: Project) -> tuple[StepEvent, ...]:
    """
    What the next run would do, and why; runs and writes nothing.

    Args:
        store: the project's store.
        project: the checked project file.

    Returns: an event per step: "reuse", "stale" with the reason, or "waits" for an earlier one.
    """
    memo = store.memo(dry=True)
    try:
        for _ in Road(store, project, memo).walk():
            pass
    except NotBuilt:  # the rest of the road depends on values that only a run can make
        pass
    return tuple(memo.events)


class Road:
    """
    The stages in order; each yields its name when it is done.

    Args:
        store: where logs, ledgers and releases are.
        project: what the user's file says.
        memo: runs or reuses each step; a dry one only says which.
    """

    def __init__(self, store: Store, project: Project, memo: Memo) -> None:
        self.store = store
        self.project = project
        self.memo = memo
        self.today = today_of(store)
        self.buyer = Buyer(store=store, project=project, today=self.today)
        self.artifacts: dict[str, Artifact[Any]] = {}
        if str(project.root) not in sys.path:  # "module:function" of the project file lies beside it
            sys.path.insert(0, str(project.root))

    def walk(self) -> Iterator[str]:
        """Yield each stage of `STAGES` once its results are there."""
        p, run, kept = self.project, self.memo.run, self.artifacts
        log = self._log()
        window = p.traffic.window_days
        kept["traffic"] = traffic = run(CAPTURE, log, recipe=CaptureRecipe(fields=p.task.input, window_days=window))
        yield "capture"
        kept["prompts"] = prompts = run(PROMPTSET, traffic, recipe=_promptset_recipe(p))
        yield "promptset"
        terms = self._terms()
        kept["clearance"] = clearance = run(CLEAR, self.memo.source("terms", terms), recipe=self._clear_recipe(terms))
        yield "clear"
        teacher = self.buyer.teacher(clearance)
        recipe = self._teach_recipe()
        kept["answers"] = answers = run(
            TEACH, prompts, clearance, recipe=recipe, teacher=teacher, concurrency=p.teacher.concurrency
        )
        yield "teach"
        specs = tuple(verifier_spec(v.use, v.options) for v in p.verifiers)
        filtering = FilterRecipe(labels=p.task.output.labels, verifiers=specs)
        attributes = tuple(dict.fromkeys(s.by for s in p.slices if s.by is not None))
        labelled = run(FILTER, answers, recipe=filtering)
        kept["labels"] = labelled = self._reviewed(labelled, attributes)
        surveyed = run(SURVEY, traffic, labelled, recipe=SurveyRecipe(attributes=attributes))
        kept["summary"] = data = run(SUMMARISE, prompts, clearance, answers, labelled, recipe=SummariseRecipe())
        train_rows = run(TAKE_TRAIN, labelled, recipe=NoRecipe())
        dev_rows = run(TAKE_CALIBRATION, labelled, recipe=NoRecipe())
        test_rows = run(TAKE_TEST, labelled, recipe=NoRecipe())
        yield "filter"
        candidates = _Candidates()
        for part in (*p.students, *p.baselines):
            self._candidate(part, candidates, train_rows, dev_rows, test_rows)
        candidates.test.append(run(TEACHER_SCORES, test_rows, recipe=self._predict_recipe()))
        yield "train"
        for scores in candidates.dev:
            candidates.calibrations.append(run(CALIBRATE, scores, dev_rows, recipe=CalibrateRecipe()))
        yield "calibrate"
        kept["report"] = report = self._evaluate(candidates, dev_rows, test_rows, surveyed)
        yield "evaluate"
        chosen = candidates.trained[report.value.chosen]
        budget = p.serve.wrong_when_served is not None  # one threshold for all traffic
        slices = () if budget else self._slices(surveyed.value)
        bundle = run(PACK, chosen, report, recipe=PackRecipe(task=p.task.name, input=p.task.input, slices=slices))
        volume = p.serve.requests_per_month or surveyed.value.requests_per_month
        digests = {name: artifact.digest for name, artifact in kept.items()}
        collecting = CollectRecipe(requests_per_month=volume, digests=digests)
        kept["evidence"] = evidence = run(
            COLLECT, data, self.memo.gather(list(candidates.trained.values())), report, bundle, recipe=collecting
        )
        kept["verdict"] = verdict = run(GATE, evidence, recipe=self._gate_recipe(report.value))
        writing = DossierRecipe(today=_decided(report.value).isoformat(), version=overproof.__version__)
        if "teacher" in kept:  # people have reviewed rows
            kept["dossier"] = run(REVIEWED_DOSSIER, evidence, verdict, kept["teacher"], recipe=writing)
        else:
            kept["dossier"] = run(DOSSIER, evidence, verdict, recipe=writing)
        yield "gate"

    def _reviewed(self, labelled: Artifact[Labelled], attributes: tuple[str, ...]) -> Artifact[Labelled]:
        """The rows after people's reviews; the same rows, and no work, where there are none."""
        reviews = self.store.reviews.live()
        if not reviews.rows:
            return labelled
        run, kept = self.memo.run, self.artifacts
        kept["filtered"], kept["features"] = labelled, run(FEATURES, labelled, recipe=features_recipe(self.project))
        words = self.memo.source("reviews", reviews)
        relabel = MendRecipe(relabel=self.project.promptset.mend)
        kept["mended"] = mended = run(MEND, labelled, kept["features"], words, recipe=relabel)
        recipe = TeacherErrorsRecipe(attributes=attributes)
        kept["teacher"] = run(TEACHER_ERRORS, labelled, mended, recipe=recipe)
        return run(TAKE_LABELLED, mended, recipe=TakeRecipe())

    def result(self) -> RunResult:
        """What the stages walked so far came to; a verdict is put on record once."""
        verdict = self.artifacts["verdict"].value if "verdict" in self.artifacts else None
        folder = self.artifacts["dossier"].value.path if "dossier" in self.artifacts else None
        return RunResult(
            run_id=self._record(verdict) if verdict is not None else "",
            verdict=verdict,
            dossier_path=folder / "index.html" if folder is not None else None,
            events=tuple(self.memo.events),
            artifacts=dict(self.artifacts),
        )

    def _log(self) -> Artifact[LogSnapshot]:
        """The log as it is now: an import that runs meanwhile belongs to the next run."""
        log, now = self.store.traffic, self.store.traffic.version()
        return self.memo.lazy("log", log.snapshot_digest(now), lambda: LogSnapshot(records=tuple(log.read(now))))

    def _terms(self) -> Terms:
        named = self.project.teacher.terms
        if not named:
            raise TermsError(
                "[teacher] names no terms record: nobody has vouched for the use of this teacher's answers",
                next_action='write terms = "terms/teacher.toml"; `overproof init` shows the form',
            )
        return read_terms(self.project.root / named, base_url=self.project.teacher.base_url)

    def _clear_recipe(self, terms: Terms) -> ClearRecipe:
        p = self.project
        kind = student_kind([s.use for s in p.students])
        return ClearRecipe(
            pin=p.pin,
            student_kind=kind,
            distribution=p.teacher.distribution,
            today=decisive_day(terms, self.today.isoformat()),
        )

    def _teach_recipe(self) -> TeachRecipe:
        t, labels = self.project.teacher, set(self.project.task.output.labels)
        by_label = [Slice(name=n, where=(("label", (n,)),)) for n in t.extra_on if n in labels]
        named = [s for s in expand_slices(self.project.slices, {}) if s.name in t.extra_on and s.name not in labels]
        unknown = sorted(set(t.extra_on) - {s.name for s in (*by_label, *named)})
        if unknown:
            known = registry.suggest(unknown[0], sorted(labels | {s.name for s in expand_slices(self.project.slices, {})}))
            raise DataError(f"[teacher] extra_on names {unknown[0]!r}. {known}", next_action="name a label or a [[slice]]")
        return TeachRecipe(
            pin=self.project.pin, samples=t.samples, hard_samples=t.hard_samples or 0, extra_on=(*by_label, *named)
        )

    def _slices(self, survey: Survey) -> tuple[Slice, ...]:
        return expand_slices(self.project.slices, survey.values)

    def _functions(self, slices: Sequence[Slice]) -> Mapping[str, Any]:
        return {s.function: registry.resolve("slices", s.function) for s in slices if s.function is not None}

    def _predict_recipe(self) -> PredictRecipe:
        return PredictRecipe(cost_usd_per_cpu_hour=self.project.serve.cpu_usd_per_hour)

    def _candidate(
        self,
        part: Part,
        into: _Candidates,
        train_rows: Artifact[TrainSet],
        dev_rows: Artifact[CalibrationSet],
        test_rows: Artifact[TestSet],
    ) -> None:
        """Fit one student or baseline, or ask one endpoint, on the same rows as all others."""
        p, run = self.project, self.memo.run
        if part.use in registry.names("teachers"):
            shots = int(part.options.get("shots", 0))
            prompt = run(
                SHOTS, train_rows, recipe=ShotsRecipe(prompt=p.task.prompt, shots=shots, seed=p.promptset.seed)
            )
            pin = self.buyer.baseline_pin(part, prompt.digest)
            asked, recipe = self.buyer.baseline(part, pin, prompt), AskRecipe(name=part.name, pin=pin)
            into.dev.append(run(ASK_DEV, dev_rows, recipe=recipe, teacher=asked))
            into.test.append(run(ASK_TEST, test_rows, recipe=recipe, teacher=asked))
            return
        fitted = run(
            TRAIN,
            train_rows,
            recipe=StudentRecipe(
                name=part.name,
                use=part.use,
                options=pinned(part.options, root=p.root),
                seed=p.promptset.seed,
                kind="student" if part in p.students else "baseline",
            ),
        )
        into.trained[part.name] = fitted
        into.dev.append(run(PREDICT_DEV, fitted, dev_rows, recipe=self._predict_recipe()))
        into.test.append(run(PREDICT_TEST, fitted, test_rows, recipe=self._predict_recipe()))

    def _evaluate(
        self,
        candidates: _Candidates,
        dev_rows: Artifact[CalibrationSet],
        test_rows: Artifact[TestSet],
        surveyed: Artifact[Survey],
    ) -> Artifact[EvalReport]:
        """Fix the plan on calibration rows, count the use of the sealed rows, and only then read their labels."""
        p, memo, found = self.project, self.memo, surveyed.value
        slices = self._slices(found)
        functions = self._functions(slices)
        calibrations, dev = memo.gather(candidates.calibrations), memo.gather(candidates.dev)
        plan = memo.run(
            PLAN,
            calibrations,
            dev,
            dev_rows,
            recipe=PlanRecipe(
                bars=p.bars.bars,
                slices=slices,
                accuracy_when_confident=p.serve.kept_right,
                wrong_when_served=p.serve.wrong_when_served,
                n_sealed=found.n_test,
                n_sealed_gold=found.n_test_gold,
                teacher=p.pin.model or p.pin.revision,
                label=p.proof.label,
                delta=p.proof.delta,
                certify_share=p.proof.certify_share,
                margin=p.proof.margin,
                novelty=p.proof.novelty,
                digests=self._fixed(candidates, slices, found),
            ),
            functions=functions,
        )
        study = memo.run(STUDY, plan, calibrations, dev, dev_rows, recipe=StudyRecipe())
        opened = self._unseal(plan, found)
        use = opened[plan.value.label_kind]
        end = date.fromisoformat(use.at[:10]) + timedelta(days=CERTIFICATE_DAYS)
        recipe = EvaluateRecipe(
            use_k=use.k,
            uses={kind: one.k for kind, one in opened.items()},
            plan_hash=plan.digest,
            sealed_digest=found.sealed_digest,
            bars=p.bars.bars,
            slices=slices,
            window=found.window,
            expires=end.isoformat(),
        )
        return memo.run(
            EVALUATE, plan, study, memo.gather(candidates.test), test_rows, recipe=recipe, functions=functions
        )

    def _fixed(self, candidates: _Candidates, slices: Sequence[Slice], found: Survey) -> dict[str, str]:
        """Digests of everything that is fixed before a sealed label is read; the plan's hash covers them."""
        p = self.project
        named = {
            "calibration": [c.digest for c in candidates.calibrations],
            "bars": [(b.metric, b.at_least, b.min_n) for b in p.bars.bars],
            "slices": [repr(one) for one in slices],
            "decoding": dict(p.pin.parameters),
            "dials": [p.serve.kept_right, p.serve.wrong_when_served, p.proof.delta, p.proof.certify_share],
            "window": list(found.window),
        }
        weights = {f"weights {name}": fitted.digest for name, fitted in candidates.trained.items()}
        digests = {name: digest_of(value) for name, value in named.items()}
        return {**weights, **p.digests, "prompt": p.task.prompt_digest, **digests, "sealed": found.sealed_digest}

    def _unseal(self, plan: Artifact[Plan], found: Survey) -> dict[str, Unsealed]:
        """Count this plan once for each kind of label that it will read: the teacher's always, gold where there is any."""
        p = self.project
        kinds = [teacher_kind(plan.value), *([GOLD] if found.n_test_gold or plan.value.label_kind == GOLD else [])]
        return {
            kind: self.store.releases.unseal(
                found.sealed_digest,
                label_kind=kind,
                plan_hash=plan.digest,
                delta=p.proof.delta,
                by=p.owner.name if p.owner else "nobody named",
                rows=found.sealed_rows,
            )
            for kind in kinds
        }

    def _gate_recipe(self, report: EvalReport) -> GateRecipe:
        p, owner = self.project, self.project.owner
        return GateRecipe(
            task=p.task.name,
            owner=owner.name if owner else "",
            deputy=owner.deputy if owner else "",
            review_every_days=owner.review_days if owner else 0,
            today=_decided(report).isoformat(),
            student_kind=student_kind([s.use for s in p.students]),
            distribution=p.teacher.distribution,
            ece_at_most=p.bars.ece,
        )

    def _record(self, verdict: Release | Refusal) -> str:
        """The run's id: a new entry of the decision log only where the outcome is new."""
        digests = {name: artifact.digest for name, artifact in self.artifacts.items()}
        runs = runs_of(self.store)
        if runs and runs[-1].digests == digests:
            return runs[-1].id
        if isinstance(verdict, Release):
            self.store.releases.record(verdict, stage="candidate", by=verdict.owner, why="the gate passed it")
        outcome = "release" if isinstance(verdict, Release) else "refusal"
        body = {"outcome": outcome, "headline": verdict.headline, "digests": digests}
        name = f"r{len(runs) + 1}"
        actor = self.project.owner.name if self.project.owner else "nobody named"
        self.store.decisions.append("gate", actor=actor, subject=name, body=body)
        return name


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """A finished run as the decision log holds it."""

    id: str
    at: str
    """ISO 8601 in UTC."""
    outcome: str
    """"release" or "refusal"."""
    headline: str
    digests: Mapping[str, str]
    """Name of a result to its digest."""


def runs_of(store: Store) -> list[RunRecord]:
    """
    Every run that reached a verdict, oldest first.

    Args:
        store: the project's store.

    Returns: one record for each distinct outcome.
    """
    return [
        RunRecord(id=d.subject, at=d.at, outcome=d.body["outcome"], headline=d.body["headline"], digests=d.body["digests"])
        for d in store.decisions.read()
        if d.kind == "gate"
    ]


def load_run(store: Store, run_id: str | None = None) -> RunResult:
    """
    The results of an earlier run.

    Args:
        store: the project's store.
        run_id: as `status` lists it; None for the newest.

    Returns: the run, its values loaded when they are asked for.
    Raises: DataError where there is no such run.
    """
    runs = runs_of(store)
    found = runs[-1:] if run_id is None else [r for r in runs if r.id == run_id]
    if not found:
        known = registry.suggest(run_id or "", [r.id for r in runs])
        raise DataError(f"no run {run_id or ''!r}. {known}", next_action="do one with `overproof run`")
    memo = store.memo()
    artifacts = {name: memo.stored(name, digest) for name, digest in found[0].digests.items()}
    return RunResult(
        run_id=found[0].id,
        verdict=artifacts["verdict"].value,
        dossier_path=artifacts["dossier"].value.path / "index.html",
        events=(),
        artifacts=artifacts,
    )


def today_of(store: Store) -> date:
    """
    The later of the wall clock and the newest decision: setting a clock back renews nothing.

    Args:
        store: the project's store.

    Returns: the day that decisions are made on, in UTC.
    """
    newest = max((d.at[:10] for d in store.decisions.read()), default="")
    return max(datetime.now(UTC).date(), date.fromisoformat(newest) if newest else date.min)


def _decided(report: EvalReport) -> date:
    """The day on which the sealed rows were opened for this plan: a repeated run decides nothing anew."""
    return date.fromisoformat(report.certificate.expires) - timedelta(days=CERTIFICATE_DAYS)


def features_recipe(project: Project) -> FeaturesRecipe:
    """
    How rows are read for mending: as the project's first encoder.v1 reads, else by n-grams.

    Args:
        project: the checked project file.

    Returns: the recipe, the encoder's weights named by content.
    """
    encoders = [s for s in project.students if s.use == "encoder.v1"]
    if not encoders:
        return FeaturesRecipe(reading="ngrams", seed=project.promptset.seed)
    options = pinned(encoders[0].options, root=project.root)
    used = {k: v for k, v in options.items() if k in ("model", "weights", "sha256", "max_tokens")}
    return FeaturesRecipe(reading="encoder", options=used)


def _promptset_recipe(project: Project) -> PromptSetRecipe:
    table = project.promptset
    return PromptSetRecipe(
        requests=table.requests,
        seed=table.seed,
        test_share=table.test_share,
        calibration_share=table.calibration_share,
        split=table.split,
        match=table.match,
        near_duplicates=table.near_duplicates,
    )
