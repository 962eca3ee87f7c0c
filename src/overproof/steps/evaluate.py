"""Open the sealed rows once: certify thresholds, judge the bars as served, and report every candidate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from overproof.data import CalibrationSet, TestSet
from overproof.errors import DataError
from overproof.evidence import (
    Calibration,
    CandidateReport,
    Comparison,
    Disagreement,
    EvalReport,
    Figure,
    Plan,
    Scores,
    SliceReport,
    Verdict,
)
from overproof.measure.calibration import expected_calibration_error, reliability_curve
from overproof.measure.certify import ledger_delta
from overproof.measure.intervals import figure, judge
from overproof.measure.leakage import novelty_bins
from overproof.measure.scores import two_by_two
from overproof.measure.slices import NO_FUNCTIONS, OTHER, Functions, assign, split_hash
from overproof.steps.calibrate import (
    CalibrateRecipe,
    Reading,
    Sheet,
    reading_of,
    reliabilities,
    sheet_of,
    slice_names,
)
from overproof.steps.certificates import GOLD, Place, certify, kept_by
from overproof.steps.comparisons import against_baseline, against_teacher
from overproof.steps.plan import bars_of, certified_by, least_familiar, near_under
from overproof.store.artifacts import Step
from overproof.task import Bar, Slice

Mask = NDArray[np.bool_]
SliceKind = Literal["all", "attribute", "label", "novelty"]
HALF = 0.5
TEXT_CHARS = 600  # as much of a request as a person reads in a list


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyRecipe:
    """How much of the calibration rows a reader is shown."""

    most: int = 60
    """Disagreements to list."""
    slices: tuple[Slice, ...] = ()
    """The slices that thresholds are certified for; see `plan.certified_by`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """What the report takes from the calibration rows."""

    calibrations: tuple[Calibration, ...]
    """One per calibrated candidate."""
    disagreements: tuple[Disagreement, ...]
    """Of the chosen candidate, worst first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateRecipe:
    """Bars, and where this use of the sealed rows stands in the ledger."""

    use_k: int
    """Which use of these sealed rows this is under the plan's label kind, from 1."""
    plan_hash: str
    """Digest of the plan that the ledger holds."""
    sealed_digest: str
    """Digest of the sealed rows."""
    bars: tuple[Bar, ...]
    """Overall bars."""
    slices: tuple[Slice, ...]
    """In file order."""
    window: tuple[str | None, str | None]
    """First and last time of the traffic."""
    expires: str
    """ISO date of the certificate's end."""
    bins: int = 15
    """Bins of the reliability curves."""
    level: float = 0.95
    """Confidence of intervals without a bar."""
    uses: Mapping[str, int] = field(default_factory=dict)
    """Label kind to its own count in the ledger; `use_k` for kinds that are not named."""

    def delta(self, plan: Plan, label_kind: str) -> float:
        """The error budget that this use has under a label kind."""
        return ledger_delta(plan.delta, self.uses.get(label_kind, self.use_k))


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """One reported slice: which rows, and what is asked there."""

    name: str
    kind: SliceKind
    critical: bool
    mask: Mask
    bars: Mapping[str, Bar]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sealed:
    """The sealed rows, opened."""

    sheet: Sheet
    groups: tuple[Group, ...]
    judge: Mask
    """Rows that judge the bars; the others chose the thresholds."""
    delta: float
    """Error budget of this use for agreement with the teacher."""
    level: float
    delta_gold: float | None = None
    """Error budget of this use for accuracy; None: the same."""

    def budget(self, metric: str) -> float:
        """The error budget of a metric: gold has a ledger of its own."""
        return self.delta if metric == "fidelity" or self.delta_gold is None else self.delta_gold


def study(
    plan: Plan,
    calibrations: tuple[Calibration, ...],
    scores: tuple[Scores, ...],
    rows: CalibrationSet,
    recipe: StudyRecipe,
    *,
    functions: Functions = NO_FUNCTIONS,
) -> Study:
    """
    Where the chosen candidate and the teacher differ, on rows that may be shown.

    Args:
        plan: names the chosen candidate.
        calibrations: of every calibrated candidate.
        scores: of the calibration rows.
        rows: calibration rows; sealed ones are never listed.
        recipe: how many to list.
        functions: "module:function" to the function, for slices that equality can't say.

    Returns: disagreements, first those where the teacher is right by gold, then by the student's confidence in
        its other answer.
    """
    chosen = _named(scores, plan.chosen)
    reading = reading_of(chosen, rows, plan.confidence, slices=slice_names(rows, recipe.slices, functions))
    sheet = sheet_of(rows)
    differ = np.flatnonzero(reading.answer != sheet.target)

    def badness(i: int) -> tuple[int, float, int]:
        gold, sure = sheet.gold[i], float(np.nan_to_num(reading.confidence[i]))
        rank = 0 if gold == sheet.target[i] else 2 if gold == reading.answer[i] else 1
        return rank, -sure, i

    shown = sorted((int(i) for i in differ), key=badness)[: recipe.most]
    return Study(
        calibrations=calibrations,
        disagreements=tuple(
            Disagreement(
                request_id=rows.examples[i].request.id,
                text=rows.examples[i].request.text[:TEXT_CHARS],
                teacher=rows.examples[i].target,
                student=rows.labels[int(reading.answer[i])],
                confidence=float(np.nan_to_num(reading.confidence[i])),
                gold=rows.examples[i].gold,
            )
            for i in shown
        ),
    )


def evaluate(
    plan: Plan,
    study: Study,
    scores: tuple[Scores, ...],
    rows: TestSet,
    recipe: EvaluateRecipe,
    *,
    functions: Functions = NO_FUNCTIONS,
) -> EvalReport:
    """
    Certify the chosen candidate's thresholds on one part of the sealed rows, and judge the bars on the other.

    Args:
        plan: fixed before; its hash is in the ledger.
        study: what the calibration rows showed.
        scores: of the sealed rows, every candidate and the teacher.
        rows: sealed rows.
        recipe: bars and ledger position.
        functions: "module:function" to the function, for slices that equality can't say.

    Returns: the report. Bars of the chosen candidate are judged as served, on rows that chose nothing; figures of
        the other candidates are for comparison and no part of the certificate.
    """
    sealed = _opened(plan, rows, recipe, functions)
    sheet = sealed.sheet
    routed = certified_by(recipe.slices, budget=plan.guarantee == "budget")
    names = slice_names(rows, routed, functions)
    chosen = reading_of(_named(scores, plan.chosen), rows, plan.confidence, slices=names)
    cells = {one: np.array(names, dtype=object) == one for one in (*(s.name for s in routed), OTHER)}
    walked = {n: m & ~sealed.judge for n, m in cells.items()}
    first, *rest = (
        certify(plan, chosen, sheet, walked, _place(plan, recipe, kind), label_kind=kind)
        for kind in (plan.label_kind, plan.other_label) if kind
    )
    kept = kept_by(first, chosen, cells)
    candidates = _reports(plan, study, scores, rows, sealed=sealed, kept=kept, names=names, bins=recipe.bins)
    best = next(c for c in candidates if c.name == plan.chosen)
    report = EvalReport(
        candidates=candidates,
        chosen=plan.chosen,
        reason=plan.reason,
        certificate=first,
        n_test=len(sheet.target),
        n_gold=int(sheet.has_gold.sum()),
        weak_labels=weak_labels(best),
        disagreements=study.disagreements,
        cheaper=None,
        other=rest[0] if rest else None,
        truth_note=plan.truth_note,
        noninferiority=_not_worse(plan, chosen, sealed, kept),
        superiority=_better(plan, chosen, scores, rows, sealed),
        margin_from=plan.margin_from,
    )
    return _with_cheaper(report)


def teacher_kind(plan: Plan) -> str:
    """
    The label kind of the teacher's answers in a plan.

    Args:
        plan: any plan.

    Returns: for example "teacher:big-2026-05-01".
    """
    return plan.other_label if plan.label_kind == GOLD else plan.label_kind


def _opened(plan: Plan, rows: TestSet, recipe: EvaluateRecipe, functions: Functions) -> Sealed:
    return Sealed(
        sheet=sheet_of(rows),
        groups=groups_of(rows, recipe, functions, novelty_below=plan.novelty_below),
        judge=~split_hash([e.request.id for e in rows.examples], plan.salt, plan.certify_share),
        delta=recipe.delta(plan, teacher_kind(plan)),
        level=recipe.level,
        delta_gold=recipe.delta(plan, GOLD),
    )


def _place(plan: Plan, recipe: EvaluateRecipe, label_kind: str) -> Place:
    return Place(
        plan_hash=recipe.plan_hash,
        sealed_digest=recipe.sealed_digest,
        use_k=recipe.uses.get(label_kind, recipe.use_k),
        delta=recipe.delta(plan, label_kind),
        window=recipe.window,
        expires=recipe.expires,
    )


def _not_worse(plan: Plan, reading: Reading, sealed: Sealed, kept: Mask) -> Comparison | None:
    """The system as served against the teacher, on judging rows with gold."""
    sheet, fresh = sealed.sheet, sealed.judge & sealed.sheet.has_gold
    if not plan.margin or not fresh.any():
        return None
    served = np.where(kept, reading.answer, sheet.target)
    return against_teacher(
        (served != sheet.gold)[fresh],
        (sheet.target != sheet.gold)[fresh],
        teacher="the teacher",
        margin=plan.margin,
        delta=sealed.budget("accuracy"),
    )


def _better(
    plan: Plan, reading: Reading, scores: tuple[Scores, ...], rows: TestSet, sealed: Sealed
) -> Comparison | None:
    """The student alone against the best baseline of the calibration rows: by gold where a certificate of it is planned."""
    if not plan.baseline:
        return None
    gold = GOLD in (plan.label_kind, plan.other_label)
    truth = sealed.sheet.gold if gold else sealed.sheet.target
    fresh = sealed.judge & sealed.sheet.has_gold if gold else sealed.judge
    other = reading_of(_named(scores, plan.baseline), rows, 1.0)
    return against_baseline(
        (reading.answer != truth)[fresh],
        (other.answer != truth)[fresh],
        baseline=plan.baseline,
        label_kind=GOLD if gold else teacher_kind(plan),
        delta=sealed.budget("accuracy" if gold else "fidelity"),
    )


def _reports(
    plan: Plan,
    study: Study,
    scores: tuple[Scores, ...],
    rows: TestSet,
    *,
    sealed: Sealed,
    kept: Mask,
    names: tuple[str, ...],
    bins: int,
) -> tuple[CandidateReport, ...]:
    by_name = {c.name: c for c in study.calibrations}
    # a false "this baseline is enough" has the whole budget, so each baseline gets its part
    parts = max(1, sum(s.kind == "baseline" for s in scores))
    alone = replace(sealed, delta=sealed.budget("fidelity") / parts, delta_gold=sealed.budget("accuracy") / parts)

    def report(s: Scores) -> CandidateReport:
        calibration = by_name.get(s.name)
        before = reading_of(s, rows, 1.0)
        after = before if calibration is None else reading_of(s, rows, calibration.confidence, slices=names)
        found = report_candidate(
            s, before, after, calibration, alone if s.kind == "baseline" else sealed,
            bins=bins, kept=kept if s.name == plan.chosen else None,
        )  # fmt: skip
        if s.name != plan.chosen:
            return found
        showing = CalibrateRecipe(bins=bins, level=sealed.level)
        routed = figure(int(after.foreign.sum()), len(names), metric="out_of_scope", level=sealed.level)
        return replace(
            found,
            reliability=reliabilities(after, sealed.sheet.target, names, plan.confidence, showing),
            out_of_scope=routed if plan.confidence.scope else None,
        )

    return tuple(report(s) for s in scores)


def groups_of(
    rows: TestSet, recipe: EvaluateRecipe, functions: Functions, *, novelty_below: float | None = None
) -> tuple[Group, ...]:
    """
    Everything that is reported apart: all rows, named slices, familiarity, each label.

    Args:
        rows: sealed rows.
        recipe: slices and bars.
        functions: see `evaluate`.
        novelty_below: edge of the least familiar slice, which has the overall bars and is critical; None: no such slice.

    Returns: "all" first. A row's label is the true one where known, else the teacher's.
    """
    n = len(rows.examples)
    labels = [e.target if e.gold is None else e.gold for e in rows.examples]
    member = assign(recipe.slices, [e.request for e in rows.examples], labels, functions=functions)
    found = [_group("all", "all", np.ones(n, dtype=bool), recipe.bars)]
    for i, one in enumerate(recipe.slices):
        kind: SliceKind = "label" if one.reads_label else "attribute"
        found.append(_group(one.name, kind, member[:, i], bars_of(one.bars, recipe.bars), critical=one.critical))
    near = np.array([np.nan if e.near_train is None else e.near_train for e in rows.examples])
    if not np.isnan(near).all():
        if novelty_below is not None:
            found.append(_group(least_familiar(novelty_below), "novelty", near_under(near, novelty_below), recipe.bars, critical=True))
        bins = novelty_bins(near)
        found += [
            _group(f"familiarity {name}", "novelty", bins.index == i, ())
            for i, name in enumerate(bins.names)
            if novelty_below is None or f"familiarity {name}" != least_familiar(novelty_below)
        ]
    named = {one.where for one in recipe.slices}
    column = np.array(labels)
    found += [
        _group(label, "label", column == label, ())
        for label in rows.labels
        if (("label", (label,)),) not in named  # the project's own slice says the same, with bars
    ]
    return tuple(g for g in found if g.mask.any() or g.kind in ("all", "attribute") or g.bars)


def _group(name: str, kind: SliceKind, mask: Mask, bars: tuple[Bar, ...], *, critical: bool = False) -> Group:
    return Group(name=name, kind=kind, critical=critical, mask=mask, bars={b.metric: b for b in bars})


def report_candidate(
    scores: Scores,
    before: Reading,
    after: Reading,
    calibration: Calibration | None,
    sealed: Sealed,
    *,
    bins: int,
    kept: Mask | None,
) -> CandidateReport:
    """
    One candidate on every group.

    Args:
        scores: size, cost, latency.
        before: its sealed answers, read as they came.
        after: the same, as calibrated.
        calibration: of the calibration rows; None where it has none.
        sealed: the opened rows.
        bins: of the reliability curves.
        kept: the rows that it answers as served; None for candidates that are not chosen, which are judged alone.

    Returns: the report; "clears_bars" is judged as served where `kept` is given, else for the candidate alone.
    """
    right = after.answer == sealed.sheet.target
    sound = ~np.isnan(after.confidence)
    bins = min(bins, max(1, int(sound.sum())))
    slices = tuple(report_slice(group, after, sealed, kept) for group in sealed.groups)
    judged = [f for s in slices for f in bars_judged(s, served=kept is not None)]
    return CandidateReport(
        name=scores.name,
        kind=scores.kind,
        size_bytes=scores.size_bytes,
        parameters=scores.parameters,
        latency_s=scores.latency_s,
        latency_p95_s=scores.latency_p95_s,
        cost_usd_per_1000=scores.cost_usd_per_1000,
        calibration=calibration,
        ece_test=expected_calibration_error(after.confidence[sound], right[sound], bins=bins) if sound.any() else None,
        reliability_before=reliability_curve(before.confidence[sound], right[sound], bins=bins) if sound.any() else (),
        reliability_after=reliability_curve(after.confidence[sound], right[sound], bins=bins) if sound.any() else (),
        slices=slices,
        clears_bars=overall([f.verdict for f in judged]),
        latency_n=scores.latency_n,
        cost_n=scores.cost_n,
        margin=min((f.low - f.bar for f in judged if f.bar is not None), default=None),
    )


def bars_judged(report: SliceReport, *, served: bool) -> list[Figure]:
    """
    The figures of a slice that have a bar.

    Args:
        report: one slice.
        served: as served, or the candidate alone.

    Returns: accuracy and fidelity, where a bar is set.
    """
    both = (report.served_accuracy, report.served_fidelity) if served else (report.accuracy, report.fidelity)
    return [f for f in both if f is not None and f.bar is not None]


def overall(verdicts: list[Verdict | None]) -> Verdict:
    """
    All bars at once.

    Args:
        verdicts: of every bar.

    Returns: "fail" if one fails, "pass" if there is at least one and all pass, else "undecided".
    """
    if "fail" in verdicts:
        return "fail"
    return "pass" if verdicts and all(v == "pass" for v in verdicts) else "undecided"


def report_slice(group: Group, reading: Reading, sealed: Sealed, kept: Mask | None) -> SliceReport:
    """
    One candidate on one group.

    Args:
        group: rows and bars.
        reading: the candidate's sealed answers.
        sealed: the opened rows.
        kept: rows that the candidate answers as served, or None.

    Returns: figures with intervals. Alone on all sealed rows; as served on the rows that judge.
    """
    sheet, alone = sealed.sheet, kept is None
    known = group.mask & sheet.has_gold
    served = np.where(kept, reading.answer, sheet.target) if kept is not None else None
    fresh, fresh_known = group.mask & sealed.judge, known & sealed.judge
    asked = group.bars
    teacher_bar = asked.get("accuracy") if group.critical and group.kind == "label" else None
    wants_accuracy = bool(known.any()) or "accuracy" in asked

    def measured(metric: str, hit: Mask, mask: Mask, bar: Bar | None) -> Figure:
        good, n = int(hit[mask].sum()), int(mask.sum())
        if bar is None:
            return figure(good, n, metric=metric, level=sealed.level)
        delta = sealed.budget(metric)
        level = 1 - 2 * delta  # so that the interval's lower end meets the bar exactly where the test passes
        return judge(good, n, bar.at_least, delta, level=level, metric=metric, min_n=bar.min_n)

    agrees, true = reading.answer == sheet.target, reading.answer == sheet.gold
    return SliceReport(
        slice=group.name,
        kind=group.kind,
        critical=group.critical,
        n=int(group.mask.sum()),
        fidelity=measured("fidelity", agrees, group.mask, asked.get("fidelity") if alone else None),
        accuracy=measured("accuracy", true, known, asked.get("accuracy") if alone else None) if wants_accuracy else None,
        teacher_accuracy=(
            measured("accuracy", sheet.target == sheet.gold, known, teacher_bar) if wants_accuracy else None
        ),
        served_fidelity=(
            measured("fidelity", served == sheet.target, fresh, asked.get("fidelity")) if served is not None else None
        ),
        served_accuracy=(
            measured("accuracy", served == sheet.gold, fresh_known, asked.get("accuracy"))
            if served is not None and wants_accuracy
            else None
        ),
        kept=measured("kept", kept, fresh, None) if kept is not None else None,
        two_by_two=(
            two_by_two(_text(reading.answer[known]), _text(sheet.target[known]), _text(sheet.gold[known]))
            if known.any()
            else None
        ),
    )


def _text(columns: NDArray[np.int64]) -> list[str]:
    return [str(c) for c in columns.tolist()]


def weak_labels(chosen: CandidateReport) -> tuple[SliceReport, ...]:
    """
    Labels on which the teacher is wrong more often than right, against gold.

    Args:
        chosen: the chosen candidate's report; it holds every label.

    Returns: worst first. The interval says whether it is shown (its upper end lies under one half) or likely.
    """
    weak = [
        s
        for s in chosen.slices
        if s.kind == "label" and s.teacher_accuracy is not None and (s.teacher_accuracy.value or 0.0) < HALF
        and s.teacher_accuracy.n > 0
    ]
    return tuple(sorted(weak, key=lambda s: (s.teacher_accuracy.value, -s.n, s.slice)))  # type: ignore[union-attr]


def teacher_of(report: EvalReport) -> CandidateReport | None:
    """
    The teacher among the candidates.

    Args:
        report: any report.

    Returns: its report, or None.
    """
    return next((c for c in report.candidates if c.kind == "teacher"), None)


def served_cost_usd_per_1000(report: EvalReport) -> float | None:
    """
    What 1,000 requests cost as served: the student reads all of them, the teacher answers what it doesn't keep.

    Args:
        report: with the chosen candidate and the teacher.

    Returns: USD; None where the teacher's price is not known.
    """
    chosen = next(c for c in report.candidates if c.name == report.chosen)
    teacher, kept = teacher_of(report), chosen.slices[0].kept
    if teacher is None or teacher.cost_usd_per_1000 <= 0 or kept is None or kept.value is None:
        return None
    return chosen.cost_usd_per_1000 + (1.0 - kept.value) * teacher.cost_usd_per_1000


def _with_cheaper(report: EvalReport) -> EvalReport:
    chosen = next(c for c in report.candidates if c.name == report.chosen)
    served = served_cost_usd_per_1000(report)
    ceiling = chosen.cost_usd_per_1000 if served is None else served
    enough = [
        c for c in report.candidates
        if c.kind == "baseline" and c.clears_bars == "pass" and c.cost_usd_per_1000 < ceiling
    ]
    if not enough:
        return report
    return replace(report, cheaper=min(enough, key=lambda c: c.cost_usd_per_1000).name)


def _named(scores: tuple[Scores, ...], name: str) -> Scores:
    for one in scores:
        if one.name == name:
            return one
    raise DataError(
        f"no scores of {name!r}; there are {sorted(s.name for s in scores)!r}",
        next_action="predict these rows with the chosen candidate",
    )


STUDY = Step(name="study", version=2, fn=study)
EVALUATE = Step(name="evaluate", version=3, fn=evaluate)
