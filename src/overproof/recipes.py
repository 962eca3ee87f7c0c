"""From the user's file to the recipe of each step: what it says, in the words that the step takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from overproof import registry
from overproof.data import planned_stages
from overproof.errors import DataError
from overproof.evidence import EvalReport
from overproof.measure.intervals import rows_needed
from overproof.measure.perturb import SHIPPED
from overproof.privacy.redact import policy_digest
from overproof.project import Project
from overproof.project_outputs import kind_name
from overproof.settings import Part, expand_slices
from overproof.settings_watch import ON
from overproof.steps.calibrate import CalibrateRecipe
from overproof.steps.checks.table import GateRecipe, OwnCheck, WatchPlan
from overproof.steps.clear import student_kind
from overproof.steps.disparities import DisparityBars
from overproof.steps.export import ExportRecipe, exporter
from overproof.steps.filter import verifier_spec
from overproof.steps.flips import BUILT_IN, FlipRecipe, read_swaps
from overproof.steps.groups import GroupRecipe
from overproof.steps.mend import FeaturesRecipe
from overproof.steps.plan import PlanRecipe, certified_by
from overproof.steps.predict import PredictRecipe
from overproof.steps.probe import ProbeRecipe
from overproof.steps.probe_cases import Case, read_cases, weakness_cases
from overproof.steps.probe_checks import CHECKED, READ
from overproof.steps.promptset import PromptSetRecipe
from overproof.steps.size_verdict import VerdictRecipe, rung_of
from overproof.steps.sizing import SizingRecipe
from overproof.steps.standing import WeighRecipe
from overproof.steps.survey import Survey
from overproof.steps.teach import TeachRecipe
from overproof.steps.train import StudentRecipe
from overproof.store.waivers import Waivers
from overproof.students.runtimes import AUTO
from overproof.students.weights import pinned
from overproof.task import Slice


def teach_recipe(project: Project) -> TeachRecipe:
    """
    What the teacher is asked, and how often.

    Args:
        project: the checked project file.

    Returns: the recipe.
    Raises: DataError where `extra_on` names nothing that there is.
    """
    t, labels = project.teacher, set(project.task.output.labels)
    by_label = [Slice(name=n, where=(("label", (n,)),)) for n in t.extra_on if n in labels]
    slices = expand_slices(project.slices, {})
    named = [s for s in slices if s.name in t.extra_on and s.name not in labels]
    unknown = sorted(set(t.extra_on) - {s.name for s in (*by_label, *named)})
    if unknown:
        known = registry.suggest(unknown[0], sorted(labels | {s.name for s in expand_slices(project.slices, {})}))
        raise DataError(f"[teacher] extra_on names {unknown[0]!r}. {known}", next_action="name a label or a [[slice]]")
    return TeachRecipe(
        pin=project.pin, samples=t.samples, hard_samples=t.hard_samples or 0, extra_on=(*by_label, *named),
        privacy=policy_digest(project.privacy),
        extra_below=t.extra_below,
        samples_by=tuple((s, t.samples_by[s.name]) for s in slices if s.name in t.samples_by),
        repeat=t.repeat if t.samples == 1 else 0, seed=project.promptset.seed, output=project.task.written,
    )  # fmt: skip


def slices_of(project: Project, survey: Survey) -> tuple[Slice, ...]:
    """
    All slices of a project, with one for each value that the data has where the file says `by`.

    Args:
        project: the checked project file.
        survey: what the labelled rows hold.

    Returns: in file order.
    """
    return expand_slices(project.slices, survey.values)


def functions_of(slices: Sequence[Slice]) -> Mapping[str, Any]:
    """
    The functions that slices are cut by.

    Args:
        slices: any.

    Returns: "module:function" to the function.
    Raises: RegistryError for one that can't be loaded.
    """
    return {s.function: registry.resolve("slices", s.function) for s in slices if s.function is not None}


def routed_slices(project: Project, survey: Survey) -> tuple[Slice, ...]:
    """
    The slices that get a threshold of their own.

    Args:
        project: the checked project file.
        survey: what the labelled rows hold.

    Returns: see `steps.plan.certified_by`.
    """
    p = project
    return certified_by(slices_of(p, survey), one_for_all=p.serve.wrong_when_served is not None and not p.proof.by_cost)


def calibrate_recipe(project: Project, survey: Survey) -> CalibrateRecipe:
    """
    How confidence is read.

    Args:
        project: the checked project file.
        survey: what the labelled rows hold.

    Returns: the recipe.
    """
    return CalibrateRecipe(
        slices=routed_slices(project, survey),
        out_of_scope=project.task.out_of_scope,
        scope_share=project.serve.out_of_scope_share,
        mixed_share=project.serve.mixed_share,
    )


def predict_recipe(project: Project) -> PredictRecipe:
    """
    What answering costs.

    Args:
        project: the checked project file.

    Returns: the recipe.
    """
    return PredictRecipe(cost_usd_per_cpu_hour=project.serve.cpu_usd_per_hour)

GLANCE = (
    "typo.v1", "upper.v1", "doubles_all.v1", "invisible.v1", "json.v1", "story.v1", "polite.v1", "instruction.v1", "stuff_one.v1", "stuff_three.v1",
    "foreign.v1", "garbage.v1",
)  # fmt: skip
"""What is tried where nobody asks for more: one or two of each kind."""
GLANCE_ROWS = 60  # from 59 on a share of 5 % could have been seen


def weigh_recipe(project: Project, requests_per_month: float | None, training_s: float | None) -> WeighRecipe:
    """
    What money is counted by.

    Args:
        project: the checked project file.
        requests_per_month: as configured or measured; None where not known.
        training_s: processor seconds of the chosen student's training.

    Returns: the recipe.
    """
    costs = project.costs
    return WeighRecipe(
        requests_per_month=requests_per_month,
        cpu_usd_per_hour=project.serve.cpu_usd_per_hour,
        training_s=training_s,
        review_usd=costs.review_hours * costs.review_usd_per_hour,
        other_usd=costs.other_usd,
    )


def group_recipe(
    project: Project, groups: Mapping[str, tuple[str, ...]], slices: tuple[Slice, ...], *, use_k: int
) -> GroupRecipe:
    """
    Which groups are compared.

    Args:
        project: the checked project file.
        groups: attribute to its values.
        slices: of the project.
        use_k: which use of the sealed gold labels this is.

    Returns: the recipe.
    """
    table = project.fairness
    return GroupRecipe(
        values=groups, tolerance=table.tolerance, selected=table.selected, slices=slices, use_k=use_k,
        bars=disparity_bars(project),
    )  # fmt: skip


def disparity_bars(project: Project) -> DisparityBars:
    """
    The owner's bars on ratios, and on gaps beyond the teacher's.

    Args:
        project: the checked project file.

    Returns: [fairness] in the words of the step.
    """
    table = project.fairness
    return DisparityBars(selection=table.selection_ratio, error=table.error_ratio, amplified=table.amplified)


def plan_recipe(project: Project, slices: tuple[Slice, ...], facts: Mapping[str, Any]) -> PlanRecipe:
    """
    What is fixed before a sealed label is read.

    Args:
        project: the checked project file.
        slices: of the project.
        facts: "n_sealed", "n_sealed_gold" and "digests"; "spread" where seeds were tried.

    Returns: the recipe.
    """
    p = project
    return PlanRecipe(
        bars=p.bars.bars,
        slices=slices,
        accuracy_when_confident=p.serve.kept_right,
        wrong_when_served=p.serve.wrong_when_served,
        n_sealed=facts["n_sealed"],
        n_sealed_gold=facts["n_sealed_gold"],
        teacher=p.pin.model or p.pin.revision,
        label=p.proof.label,
        delta=p.proof.delta,
        certify_share=p.proof.certify_share,
        margin=p.proof.margin,
        novelty=p.proof.novelty,
        digests=facts["digests"],
        ship=p.proof.ship,
        by_cost=p.proof.by_cost,
        looks=p.proof.looks,
        spread=facts.get("spread", {}),
        seeds=p.sizing.seeds,
    )


def flip_recipe(project: Project) -> FlipRecipe:
    """
    Which terms are swapped.

    Args:
        project: the checked project file.

    Returns: the recipe.
    Raises: DataError for a list that can't be read.
    """
    p = project
    file = None if p.fairness.swaps == BUILT_IN else p.root / p.fairness.swaps
    return FlipRecipe(lists=read_swaps(file), at_most=p.fairness.flips_at_most, delta=p.proof.delta)


def gate_recipe(
    project: Project, report: EvalReport, *, challenged: bool = False, cases: bool = False, weaknesses: bool = False, duelled: bool = False,
    waivers: Waivers | None = None,
) -> GateRecipe:  # fmt: skip
    """
    What the gate asks.

    Args:
        project: the checked project file.
        report: the evaluation, which says on which day it was decided.
        challenged: whether a serving release has to be held up to.
        cases: whether there are rare or critical cases to compare sizes on.
        weaknesses: whether reviews found enough mistakes of the teacher to ask the student about.
        duelled: whether another release answers callers, to compare the greedy attack with.
        waivers: of this plan, on the day of the run.

    Returns: the recipe.
    """
    p, owner = project, project.owner
    return GateRecipe(
        task=p.task.name,
        owner=owner.name if owner else "",
        deputy=owner.deputy if owner else "",
        review_every_days=owner.review_days if owner else 0,
        today=decided(report).isoformat(),
        student_kind=student_kind([s.use for s in p.students], written=p.task.written is not None),
        distribution=p.teacher.distribution,
        ece_at_most=p.bars.ece,
        gap_at_most=p.fairness.tolerance,
        swaps=bool(p.fairness.swaps),
        disparity=disparity_bars(p),
        written=bool(p.bars.written),
        judged=p.bars.by_judge,
        sizing=bool(p.sizing.budgets),
        challenged=challenged,
        probes=probe_checks(p, duelled=duelled),
        watched=probe_checks(p, duelled=duelled, asked=False),
        probe_bars=p.probe.own_bars,
        cases=cases,
        stage=planned_stages(p.serve.stages)[0].stage,
        redacted=p.privacy.mode != "off",
        weaknesses=weaknesses,
        weaknesses_right=p.gate.weaknesses_right,
        watch=watch_plan(p),
        breaks_from=p.gate.breaks_from,
        own=tuple(OwnCheck(use=one, source_digest=verifier_spec(one, {}).source_digest) for one in p.gate.checks),
        waivers=waivers.live if waivers else (),
        ran_out=waivers.ran_out if waivers else (),
    )


def watch_plan(project: Project) -> WatchPlan:
    """
    What the gate asks about how a release would be watched.

    Args:
        project: the checked project file.

    Returns: [watch] in the gate's words.
    """
    w, dials = project.watch, project.serve
    return WatchPlan(
        redistil_on=tuple(sorted(occasion for occasion in ON if w.act(occasion) == "re-distil")),
        drift=w.drift, canaries=w.canaries != "off", audit_rate=w.audit_rate, floor_per_day=w.floor_per_day,
        critical_boost=w.critical_boost, audits_per_day=w.audits_per_day, usd_per_month=w.usd_per_month,
        false_alarms=w.false_alarms, ask=w.ask, person_share=w.person_share, deadline_days=int(w.deadline[:-1]),
        overall_bar=dials.overall_bar,
    )  # fmt: skip


def probe_checks(project: Project, *, duelled: bool = False, asked: bool = True) -> tuple[str, ...]:
    """
    Which checks of the probes are asked for.

    Args:
        project: the checked project file.
        duelled: whether another release answers callers.
        asked: False for those that are shown and refuse nothing.

    Returns: ids of those with something to judge. What the owner wrote down by name is asked wherever probes may refuse, with the
        few that are always watched too.
    """
    table = project.probe
    there = {"P04": bool(table.cases), "P05": bool(table.weaknesses), "P06": duelled}
    known = [name for name, _, _ in CHECKED if there.get(name, True)] if table.use != "off" else []
    named = {"gate": known, "watch": [name for name in known if name in ("P04", "P05")]}.get(table.use, [])
    return tuple(name for name in known if (name in named) is asked)


def probe_recipe(project: Project, slices: tuple[Slice, ...]) -> ProbeRecipe:
    """
    What is tried on the packed student.

    Args:
        project: the checked project file.
        slices: of the project.

    Returns: the recipe.
    Raises: DataError for cases that can't be read.
    """
    p, table = project, project.probe
    read = [*(name for name, one in SHIPPED.items() if one.kind in READ), *table.extra, "greedy.v1"]
    if strange := [one for one in table.bars if one not in read]:
        raise DataError(f"[probe] bars: no check reads a bar of {strange[0]!r}. {registry.suggest(strange[0], read)}", next_action="mend [probe] bars")
    if table.use == "watch":
        return _glance(p)
    recorded = p.teacher.use == "recorded.v1"
    why = "the teacher is a recording, which holds no answer to a spoiled text" if recorded else "[probe] teacher_rows is 0"
    rows = 0 if recorded else table.teacher_rows
    return ProbeRecipe(
        slices=slices, rows=table.rows, names=(*(SHIPPED if p.task.written is None else _wordless()), *table.extra),
        sources={name: verifier_spec(name, {}).source_digest for name in table.extra},
        attack_rows=table.attack_rows, attack_calls=table.attack_calls, triggers=table.triggers, cases=_owners_cases(p),
        out_of_scope=p.task.out_of_scope, teacher_rows=rows, not_asked="" if rows else why, pin=p.pin if rows else None,
        delta=p.proof.delta, seed=table.seed,
    )  # fmt: skip


def _glance(p: Project) -> ProbeRecipe:
    """Seconds, not minutes: a dossier is never silent, and nobody waits for it. Slices, attacks and the teacher are for those who ask."""
    table, wordless = p.probe, _wordless()
    return ProbeRecipe(
        rows=min(table.rows, GLANCE_ROWS), names=(*(n for n in GLANCE if p.task.written is None or n in wordless), *table.extra),
        sources={name: verifier_spec(name, {}).source_digest for name in table.extra}, attack_rows=0, triggers=0, cases=_owners_cases(p),
        out_of_scope=p.task.out_of_scope, not_asked='[probe] use is "watch"', delta=p.proof.delta, seed=table.seed, watched=True,
    )  # fmt: skip


def _wordless() -> tuple[str, ...]:
    """Written answers have no labels to inject or to stuff."""
    return tuple(name for name, one in SHIPPED.items() if one.kind not in ("inject", "stuff"))


def _owners_cases(p: Project) -> tuple[Case, ...]:
    fields, output = p.task.input, p.task.output
    own = read_cases(p.root / p.probe.cases, fields=fields, output=output) if p.probe.cases else ()
    known = [weakness_cases(w.name, w.texts, right=w.right, wrong=w.wrong, fields=fields, output=output) for w in p.probe.weaknesses]
    return (*own, *(case for cases in known for case in cases))


def decided(report: EvalReport) -> date:
    """
    The day of this look at the sealed rows: a repeated run decides nothing anew.

    Args:
        report: any report.

    Returns: the day.
    """
    return date.fromisoformat(report.decided)


def student_recipe(project: Project, part: Part) -> StudentRecipe:
    """
    How one student or baseline is fitted.

    Args:
        project: the checked project file.
        part: one of its students or baselines.

    Returns: the recipe, files named by content.
    """
    options = {key: value for key, value in part.options.items() if key != "runtime" or exporter(part.use) is None}
    return StudentRecipe(
        name=part.name, use=part.use, options=pinned(options, root=project.root), seed=project.promptset.seed,
        kind="student" if part in project.students else "baseline",
    )  # fmt: skip


def export_recipe(part: Part) -> ExportRecipe:
    """
    What shall run one student or baseline.

    Args:
        part: one that has runtimes to choose from.

    Returns: the recipe.
    """
    return ExportRecipe(runtime=str(part.options.get("runtime", AUTO)))


def sizing_recipe(project: Project) -> SizingRecipe:
    """
    Which further fits compare the sizes.

    Args:
        project: the checked project file.

    Returns: the recipe.
    """
    p, table = project, project.sizing
    kept = p.serve.wrong_when_served is None
    return SizingRecipe(
        students=tuple(student_recipe(p, part) for part in p.students),
        budgets=table.budgets, seeds=table.seeds, rows=table.rows,
        alpha=1.0 - (p.serve.kept_right or 0.0) if kept else p.serve.wrong_when_served or 0.0, of_all=not kept,
    )  # fmt: skip


def verdict_recipe(project: Project) -> VerdictRecipe:
    """
    What the sizing verdict holds the sizes against.

    Args:
        project: the checked project file.

    Returns: the recipe.
    """
    p = project
    return VerdictRecipe(
        bars=p.bars.bars,
        tried=tuple(rung_of(s.use, s.options) for s in p.students),
        known=tuple(registry.names("students")),
        kind=kind_name(p.task.output),
        samples=p.teacher.samples,
    )


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


def promptset_recipe(project: Project) -> PromptSetRecipe:
    """
    How rows are chosen and split.

    Args:
        project: the checked project file.

    Returns: the recipe.
    """
    table = project.promptset
    critical = rare_slices(project) if table.boost else ()
    return PromptSetRecipe(
        requests=table.requests,
        seed=table.seed,
        test_share=table.test_share,
        calibration_share=table.calibration_share,
        split=table.split,
        match=table.match,
        near_duplicates=bool(table.near_duplicates),
        clusters=table.clusters,
        critical=critical,
        floors={one.name: _floor(one, project) for one in critical},
    )


def rare_slices(project: Project) -> tuple[Slice, ...]:
    """
    Critical slices of which more rows can be drawn: those that the request's attributes tell before any label.

    Args:
        project: the checked project file.

    Returns: in file order; slices by label, by function, or one for each value of an attribute are none of them.
    """
    named = expand_slices(project.slices, {})
    return tuple(s for s in named if s.critical and s.where and s.function is None and not s.reads_label)


def _floor(one: Slice, project: Project) -> int:
    """Test rows with which a student of half the admitted error clears the slice's bars, most often."""
    bars = {bar.metric: bar for bar in (*project.bars.bars, *one.bars)}.values()
    needed = [rows_needed(1 - b.at_least, (1 - b.at_least) / 2, project.proof.delta) for b in bars if b.at_least < 1]
    rows = max([*(n or 0 for n in needed), *(b.min_n for b in bars)], default=0)
    return math.ceil(rows / (1 - project.proof.certify_share))
