"""distil(): the whole offline road from the traffic log to a release or a refusal, top to bottom."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NoReturn

import overproof
from overproof import registry
from overproof.about import about_of
from overproof.asking import Buyer, clear_recipe, terms_of
from overproof.data import (
    Answers,
    CalibrationSet,
    Clearance,
    Folder,
    Labelled,
    PromptSet,
    TestSet,
    Traffic,
    digest_of,
)
from overproof.engines import engine_of
from overproof.errors import DataError
from overproof.evidence import EvalReport, Plan, Refusal, Release
from overproof.importers import ColumnMapping, read_file
from overproof.judging import Judging
from overproof.learned import learned_rows
from overproof.lineup import Lineup
from overproof.outputs import Fields
from overproof.probing import Probing
from overproof.project import Project
from overproof.recipes import (
    calibrate_recipe,
    decided,
    functions_of,
    gate_recipe,
    group_recipe,
    plan_recipe,
    predict_recipe,
    promptset_recipe,
    routed_slices,
    slices_of,
    teach_recipe,
    verdict_recipe,
    weigh_recipe,
)
from overproof.runs import runs_of, today_of
from overproof.settings import TeacherTable
from overproof.steps.account import ACCOUNT
from overproof.steps.calibrate import CALIBRATE
from overproof.steps.capture import CAPTURE, CaptureRecipe, LogSnapshot
from overproof.steps.certificates import GOLD
from overproof.steps.clear import CLEAR, recheck, student_kind
from overproof.steps.collect import (
    ADD,
    ADD_EXPORTS,
    ADD_SUSPICION,
    COLLECT,
    SUMMARISE,
    AddRecipe,
    CollectRecipe,
    DataEvidence,
    SummariseRecipe,
)
from overproof.steps.committee import DECIDE, DISPUTED, CommitteeRecipe, DisputedRecipe
from overproof.steps.compression import COMPRESSION, CompressionRecipe
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
from overproof.steps.gate import GATE
from overproof.steps.groups import GROUPS, check_attributes
from overproof.steps.pack import PACK, PackRecipe
from overproof.steps.plan import PLAN
from overproof.steps.predict import TEACHER_SCORES
from overproof.steps.promptset import PROMPTSET
from overproof.steps.register import REGISTER, RegisterRecipe
from overproof.steps.size_verdict import SIZE_VERDICT
from overproof.steps.standing import WEIGH
from overproof.steps.supplement import SUPPLEMENT, SupplementRecipe, written
from overproof.steps.survey import SURVEY, Survey, SurveyRecipe
from overproof.steps.teach import TEACH, TeachRecipe
from overproof.store.artifacts import Artifact, Memo, NotBuilt, StepEvent
from overproof.store.looks import Look
from overproof.store.project_store import Store
from overproof.store.releases import Unsealed
from overproof.store.waivers import waivers_of
from overproof.task import Slice

STAGES = ("capture", "promptset", "clear", "teach", "filter", "train", "calibrate", "evaluate", "gate")
BATCH_ROWS = 1_000_000


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
        try:
            for stage in road.walk():
                if stage == last:
                    break
            return road.result()
        finally:
            road.engine.close()


def status(store: Store, project: Project) -> tuple[StepEvent, ...]:
    """
    What the next run would do, and why; runs and writes nothing.

    Args:
        store: the project's store.
        project: the checked project file.

    Returns: an event per step: "reuse", "stale" with the reason, or "waits" for an earlier one.
    """
    return tuple(look_ahead(store, project).memo.events)


def look_ahead(store: Store, project: Project, *, to: str | None = None) -> Road:
    """
    The road as far as earlier runs have built it; runs and writes nothing.

    Args:
        store: the project's store.
        project: the checked project file.
        to: one of `STAGES` to stop after; None for all.

    Returns: the road, its `artifacts` and `memo.events` as far as they go.
    """
    road = Road(store, project, store.memo(dry=True))
    try:
        for stage in road.walk():
            if stage == to:
                break
    except NotBuilt:  # the rest of the road depends on values that only a run can make
        pass
    return road


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
        self.engine = engine_of(project.run.engine, workers=project.run.workers, address=project.run.address)
        self.buyer = Buyer(store=store, project=project, today=self.today, engine=self.engine)
        self.judging = Judging(project, memo, self.buyer)
        self.artifacts: dict[str, Artifact[Any]] = {}
        if str(project.root) not in sys.path:  # "module:function" of the project file lies beside it
            sys.path.insert(0, str(project.root))

    def walk(self) -> Iterator[str]:
        """Yield each stage of `STAGES` once its results are there."""
        p, run, kept = self.project, self.memo.run, self.artifacts
        log = self._log()
        window = p.traffic.window_days
        kept["traffic"] = traffic = run(CAPTURE, log, recipe=CaptureRecipe(fields=p.task.input, window_days=window, task=p.task.name))
        yield "capture"
        kept["prompts"] = prompts = self._prompts(traffic)
        yield "promptset"
        kept["clearance"] = clearance = self._cleared(p.teacher)
        members, judges = [self._cleared(one) for one in p.committee], self.judging.cleared(self.today.isoformat())
        yield "clear"
        for one in (clearance, *members, *judges):
            self._recheck(one, "label")
        kept["answers"] = answers = self._asked(prompts, clearance, members)
        yield "teach"
        specs = tuple(verifier_spec(v.use, v.options) for v in p.verifiers)
        filtering = FilterRecipe(labels=p.task.output.labels, verifiers=specs, output=p.task.written)
        attributes = tuple(dict.fromkeys([*(s.by for s in p.slices if s.by is not None), *p.fairness.groups]))
        kept["labels"] = filtered = run(FILTER, answers, recipe=filtering)
        heed = self.store.traffic.version().feedback > 0
        learned = learned_rows(self.memo, p, self.store.reviews.live(), kept, attributes=attributes, heed=heed)
        kept["labels"] = labelled = self._judged(filtered, learned)
        kept["account"] = run(ACCOUNT, traffic, prompts, answers, labelled, recipe=NoRecipe())
        surveyed = run(SURVEY, traffic, labelled, recipe=SurveyRecipe(attributes=attributes))
        kept["summary"] = data = run(SUMMARISE, prompts, clearance, answers, labelled, recipe=SummariseRecipe(samples=p.teacher.samples))
        train_rows = run(TAKE_TRAIN, labelled, recipe=NoRecipe())
        dev_rows = run(TAKE_CALIBRATION, labelled, recipe=NoRecipe())
        test_rows = run(TAKE_TEST, labelled, recipe=NoRecipe())
        yield "filter"
        for one in (clearance, *members, *judges):
            self._recheck(one, "train")
        candidates = Lineup(p, self.memo, self.buyer, rows=(train_rows, dev_rows, test_rows), engine=self.engine)
        candidates.fit_ahead((*p.students, *p.baselines))
        for part in (*p.students, *p.baselines):
            candidates.add(part)
        if candidates.exported:
            kept["exports"] = self.memo.gather(candidates.exported)
        candidates.test.append(run(TEACHER_SCORES, test_rows, recipe=predict_recipe(self.project)))
        if p.sizing.budgets:
            kept["sizes"] = candidates.sizes()
        yield "train"
        reading = calibrate_recipe(p, surveyed.value)
        functions = functions_of(reading.slices)
        for scores in candidates.dev:
            candidates.calibrations.append(run(CALIBRATE, scores, dev_rows, recipe=reading, functions=functions))
        yield "calibrate"
        kept["report"] = report = self._evaluate(candidates, dev_rows, test_rows, surveyed)
        opened = self.memo.gather(candidates.test)
        words = self.store.reviews.live(judged=True)
        kept.update(self.judging.texts(kept["plan"], report, opened, test_rows, survey=surveyed.value, words=words))
        yield "evaluate"
        self._decide(data, candidates, report, surveyed.value, dev_rows)
        yield "gate"

    def _decide(
        self,
        data: Artifact[DataEvidence],
        candidates: Lineup,
        report: Artifact[EvalReport],
        survey: Survey,
        dev_rows: Artifact[CalibrationSet],
    ) -> None:
        """Pack the chosen candidate, put all evidence before the gate, and write down what it says."""
        p, run, kept = self.project, self.memo.run, self.artifacts
        chosen = candidates.trained[report.value.chosen]
        slices = routed_slices(p, survey)
        packing = PackRecipe(task=p.task.name, input=p.task.input, slices=slices, on_expiry=p.proof.on_expiry, output=p.task.written)
        bundle = run(PACK, chosen, report, recipe=packing)
        probing = Probing(self.store, p, self.memo, self.buyer)
        kept.update(probing.results(bundle, dev_rows, candidates.train_rows, kept["clearance"], survey))
        if "filtered" in kept and "mended" in kept:
            words = self.memo.source("reviews", self.store.reviews.live())
            kept["register"] = run(REGISTER, bundle, kept["filtered"], words, recipe=RegisterRecipe())
        self._challenge(bundle, report.value, survey)
        named = slices_of(p, survey)
        compared = run(COMPRESSION, self.memo.gather(candidates.dev), dev_rows, recipe=CompressionRecipe(slices=named), functions=functions_of(named))
        if compared.value.cases:
            kept["compression"] = compared
        volume = p.serve.requests_per_month or survey.requests_per_month
        weighing = weigh_recipe(p, volume, candidates.seconds[report.value.chosen])
        kept["standing"] = run(WEIGH, report, data, self.memo.gather(candidates.searches), recipe=weighing)
        digests = {name: artifact.digest for name, artifact in kept.items()}
        collecting = CollectRecipe(requests_per_month=volume, digests=digests)
        evidence = run(
            COLLECT, data, self.memo.gather(list(candidates.trained.values())), report, bundle, recipe=collecting
        )
        for name in ("groups", "flips", "judged", "standing", "challenge", "compression", "register", "probes"):
            if name in kept:
                evidence = run(ADD, evidence, kept[name], recipe=AddRecipe(to=name))
        for step, name, to in ((ADD_EXPORTS, "exports", "exports"), (ADD_SUSPICION, "suspicion", "data")):
            if name in kept:
                evidence = run(step, evidence, kept[name], recipe=AddRecipe(to=to))
        if "sizes" in kept:
            evidence = run(SIZE_VERDICT, evidence, kept["sizes"], kept["plan"], recipe=verdict_recipe(p))
        kept["evidence"] = evidence
        asking = gate_recipe(
            p, report.value, duelled=bool("probes" in kept and (kept["probes"].value.duels or kept["probes"].value.duel_note)), challenged="challenge" in kept, cases="compression" in kept, weaknesses="register" in kept and kept["register"].value.decidable,
            waivers=waivers_of(self.store.decisions, report.value.certificate.plan_hash, today=self.today.isoformat()),
        )  # fmt: skip
        kept["verdict"] = verdict = run(GATE, evidence, recipe=asking)
        about = about_of(p, self.store, self.memo, verdict.value, chosen.value.use, evidence=evidence, rows=candidates.test_rows, slices=named)
        writing = DossierRecipe(today=decided(report.value).isoformat(), version=overproof.__version__, about=about)
        if "teacher" in kept:  # people have reviewed rows
            kept["dossier"] = run(REVIEWED_DOSSIER, evidence, verdict, kept["teacher"], recipe=writing)
        else:
            kept["dossier"] = run(DOSSIER, evidence, verdict, recipe=writing)

    def _judged(self, filtered: Artifact[Labelled], labelled: Artifact[Labelled]) -> Artifact[Labelled]:
        """The rows after the judge's word; the same rows, and no work, where there is none."""
        if (judged := self.judging.judged(filtered, labelled)) is None:
            return labelled
        self.artifacts.update(filtered=filtered, judge=judged)
        return self.judging.rows(judged)

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

    def _recheck(self, clearance: Artifact[Clearance], scope: str) -> None:
        """A long run may outlive an attestation; a dry one does nothing that would have to be covered."""
        if not self.memo.dry:
            kind = student_kind([s.use for s in self.project.students], written=self.project.task.written is not None)
            recheck(
                clearance.value, scope=scope, today=today_of(self.store).isoformat(), student_kind=kind,
                distribution=self.project.teacher.distribution,
            )  # fmt: skip

    def _prompts(self, traffic: Artifact[Traffic]) -> Artifact[PromptSet]:
        """What is labelled; a refresh has another."""
        return self._supplemented(self.memo.run(PROMPTSET, traffic, recipe=promptset_recipe(self.project), engine=self.engine))

    def _challenge(self, bundle: Artifact[Folder], report: EvalReport, survey: Survey) -> None:
        """Put "challenge" beside the other results where a release has to be held up to; nothing on a first road."""

    def _supplemented(self, prompts: Artifact[PromptSet]) -> Artifact[PromptSet]:
        """With the written rows that the project names, if any."""
        p, table = self.project, self.project.promptset
        if not table.supplement:
            return prompts
        path = p.root / table.supplement
        # written rows have their input fields under the log's names, and none of its other columns
        columns = {role: column for role, column in p.traffic.columns.items() if role in p.task.input}
        mapping = ColumnMapping(fields=p.task.input, columns=columns, records=isinstance(p.task.output, Fields))
        extra = self.memo.source("supplement", written(table.supplement, read_file(path, mapping)))
        return self.memo.run(SUPPLEMENT, prompts, extra, recipe=SupplementRecipe(cap=table.supplement_cap))

    def _cleared(self, table: TeacherTable) -> Artifact[Clearance]:
        """The permission for one teacher's answers, each under terms of its own."""
        terms = terms_of(self.project, table)
        recipe = clear_recipe(self.project, terms, self.today.isoformat(), table)
        return self.memo.run(CLEAR, self.memo.source("terms", terms), recipe=recipe)

    def _asked(
        self, prompts: Artifact[PromptSet], clearance: Artifact[Clearance], members: Sequence[Artifact[Clearance]]
    ) -> Artifact[Answers]:
        """What the teacher says; with a committee what all of them came to."""
        p, run = self.project, self.memo.run
        teacher, recipe = self.buyer.teacher(clearance), teach_recipe(self.project)
        first = run(
            TEACH, prompts, clearance, recipe=recipe, teacher=teacher, concurrency=_at_once(p.teacher),
            watch=self.buyer.watch(teacher),
        )  # fmt: skip
        if not p.committee:
            return first

        def ask(place: int, rows: Artifact[PromptSet]) -> Artifact[Answers]:
            table = p.committee[place]
            one = TeachRecipe(pin=p.pin_of(table), samples=table.samples, output=p.task.written)
            asked = self.buyer.member(table, members[place])
            return run(TEACH, rows, members[place], recipe=one, teacher=asked, concurrency=_at_once(table))

        order = sorted(range(len(p.committee)), key=lambda place: p.committee[place].arbiter)
        arbiter = p.committee[order[-1]].arbiter
        said = [first, *(ask(i, prompts) for i in (order[:-1] if arbiter else order))]
        if arbiter:
            rows = run(DISPUTED, prompts, self.memo.gather(said), recipe=DisputedRecipe(output=p.task.written))
            said.append(ask(order[-1], rows))
        names = (p.teacher.model, *(p.committee[i].name for i in order))
        deciding = CommitteeRecipe(
            rule=p.teacher.agreement, names=names, labels=p.task.output.labels, arbiter=arbiter, output=p.task.written
        )
        return run(DECIDE, self.memo.gather(said), self.memo.gather([clearance, *(members[i] for i in order)]), recipe=deciding)

    def _evaluate(
        self,
        candidates: Lineup,
        dev_rows: Artifact[CalibrationSet],
        test_rows: Artifact[TestSet],
        surveyed: Artifact[Survey],
    ) -> Artifact[EvalReport]:
        """Fix the plan on calibration rows, count the use of the sealed rows, and only then read their labels."""
        p, memo, found = self.project, self.memo, surveyed.value
        slices = slices_of(p, found)
        functions = functions_of(slices)
        calibrations, dev = memo.gather(candidates.calibrations), memo.gather(candidates.dev)
        facts: dict[str, Any] = {"n_sealed": found.n_test, "n_sealed_gold": found.n_test_gold, "digests": self._fixed(candidates, slices, found)}
        if "sizes" in self.artifacts:
            facts["spread"] = self.artifacts["sizes"].value.spread()
        anchor = self._anchor(facts["digests"], [calibrations.digest, dev.digest, dev_rows.digest])
        planned = self.store.looks.admits(anchor, found.sealed_labels) if p.proof.looks > 1 else None
        facts = dict(planned.facts) if planned else facts  # a planned look stands on the plan as it was fixed
        plan = memo.run(
            PLAN,
            calibrations,
            dev,
            dev_rows,
            recipe=plan_recipe(p, slices, facts),
            functions=functions,
        )
        self.artifacts["plan"] = plan
        groups = check_attributes(p.fairness.groups, found.values)  # before anything is opened for them
        study = memo.run(STUDY, plan, calibrations, dev, dev_rows, recipe=StudyRecipe(slices=routed_slices(p, found)), functions=functions)
        first = planned.sealed_digest if planned and planned.plan_hash == plan.digest else found.sealed_digest
        opened = self._unseal(plan, found, first)
        use = opened[plan.value.label_kind]
        look = self._look(plan, found, anchor, facts, taken=planned is not None and planned.taken) if p.proof.looks > 1 else None
        end = date.fromisoformat(use.at[:10]) + timedelta(days=p.proof.expires_days)  # later labels make no row younger
        recipe = EvaluateRecipe(
            use_k=use.k,
            uses={kind: one.k for kind, one in opened.items()},
            plan_hash=plan.digest,
            sealed_digest=found.sealed_digest,
            bars=p.bars.bars,
            slices=slices,
            window=found.window,
            expires=end.isoformat(),
            look=look.look if look else 1,
            earlier=look.earlier if look else {},
            requests_per_month=p.serve.requests_per_month or found.requests_per_month,
            decided=(look.at if look else use.at)[:10],
            written=p.bars.written,
            by_judge=p.bars.by_judge is not None,
        )
        scores = memo.gather(candidates.test)
        report = memo.run(EVALUATE, plan, study, scores, test_rows, recipe=recipe, functions=functions)
        if groups:
            comparing = group_recipe(p, groups, slices, use_k=recipe.uses.get(GOLD, recipe.use_k))
            compared = memo.run(GROUPS, plan, report, scores, test_rows, recipe=comparing, functions=functions)
            self.artifacts["groups"] = compared
        if look is not None and not memo.dry:
            both = [c for c in (report.value.certificate, report.value.other) if c is not None]
            self.store.looks.keep(plan.digest, look.look, both)
        return report

    def _anchor(self, digests: Mapping[str, str], parts: Sequence[str]) -> str:
        """What identifies a plan whatever the sealed rows and their labels are: planned looks go on from it."""
        sealed = ("sealed", "window", "evidence", "recording")  # the recording grows with the rows; what was learned is in `parts`
        return digest_of([PLAN.version, *parts, {name: d for name, d in digests.items() if name not in sealed}])

    def _look(self, plan: Artifact[Plan], found: Survey, anchor: str, facts: Mapping[str, Any], *, taken: bool) -> Look:
        """Count a planned look before the labels are read; a dry memo only says that it is due."""
        if self.memo.dry and not taken:
            self._due("a planned look at the sealed rows")
        p = self.project
        return self.store.looks.take(
            plan.digest,
            found.sealed_labels,
            anchor=anchor,
            sealed_digest=found.sealed_digest,
            looks=p.proof.looks,
            facts=facts,
            by=p.owner.name if p.owner else "nobody named",
        )

    def _due(self, why: str) -> NoReturn:
        self.memo.events.append(StepEvent(step="evaluate", subject="", action="stale", seconds=0.0, why=why, digest=None))
        raise NotBuilt(f"evaluate is due: {why}", next_action="overproof run")

    def _fixed(self, candidates: Lineup, slices: Sequence[Slice], found: Survey) -> dict[str, str]:
        """Digests of everything that is fixed before a sealed label is read; the plan's hash covers them."""
        p = self.project
        named = {
            "calibration": [c.digest for c in candidates.calibrations],
            "bars": [(b.metric, b.at_least, b.min_n) for b in (*p.bars.bars, *p.bars.written)],
            "slices": [repr(one) for one in slices],
            "decoding": dict(p.pin.parameters),
            "dials": [p.serve.kept_right, p.serve.wrong_when_served, p.proof.delta, p.proof.certify_share,
                      p.proof.ship, p.proof.by_cost, p.proof.looks, p.proof.label, p.proof.margin, p.proof.novelty],
            "window": list(found.window),
            "evidence": list(found.sealed_labels),  # other labels of the same rows are another look, and an unplanned look is a use
        }
        if (bar := p.bars.by_judge) is not None:  # another judge is another try
            named["judged"] = [bar.at_least, bar.min_n, p.judge.most, repr(p.pin_of(p.judge))]
        if p.fairness.groups:
            named["fairness"] = p.fairness.fixed
        weights = {f"weights {name}": fitted.digest for name, fitted in candidates.trained.items()}
        digests = {name: digest_of(value) for name, value in named.items()}
        return {**weights, **p.digests, "prompt": p.task.prompt_digest, **digests, "sealed": found.sealed_digest}

    def _unseal(self, plan: Artifact[Plan], found: Survey, sealed_digest: str) -> dict[str, Unsealed]:
        """Count this plan once for each kind of label that it will read: the teacher's always, gold where there is any."""
        p = self.project
        kinds = [teacher_kind(plan.value), *([GOLD] if found.n_test_gold or plan.value.label_kind == GOLD else [])]
        if self.memo.dry:
            uses = {k: self.store.releases.known_use(sealed_digest, label_kind=k, plan_hash=plan.digest) for k in kinds}
            if None in uses.values():
                self._due("a new use of the sealed rows")
            return {kind: use for kind, use in uses.items() if use is not None}
        return {
            kind: self.store.releases.unseal(
                sealed_digest,
                label_kind=kind,
                plan_hash=plan.digest,
                delta=p.proof.delta,
                by=p.owner.name if p.owner else "nobody named",
                rows=found.sealed_rows,
            )
            for kind in kinds
        }

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


def _at_once(table: TeacherTable) -> int:
    """Rows in flight: a batch wants all of them at once."""
    return BATCH_ROWS if table.mode == "batch" else table.concurrency
