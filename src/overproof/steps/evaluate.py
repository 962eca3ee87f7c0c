"""Open the sealed rows once: certify thresholds, judge the bars as served, and report every candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from overproof.data import CalibrationSet, TestSet
from overproof.errors import DataError
from overproof.evidence import (
    Calibration,
    CandidateReport,
    Comparison,
    Disagreement,
    EvalReport,
    LookCounts,
    Plan,
    Scores,
    SliceReport,
)
from overproof.measure.calibration import expected_calibration_error, reliability_curve
from overproof.measure.certify import ledger_delta
from overproof.measure.intervals import figure
from overproof.measure.looks import look_shares
from overproof.measure.slices import NO_FUNCTIONS, OTHER, Functions, split_hash
from overproof.steps.ahead import DevCounts, dev_counts, outlook_of
from overproof.steps.answers import answers_of
from overproof.steps.boost import drawn_for
from overproof.steps.calibrate import (
    CalibrateRecipe,
    Reading,
    reading_of,
    reliabilities,
    sheet_of,
    slice_names,
)
from overproof.steps.certificates import GOLD, Place, certify, kept_by
from overproof.steps.comparisons import against_baseline, against_teacher
from overproof.steps.plan import certified_by
from overproof.steps.records_report import judged_candidates, written_report
from overproof.steps.slice_reports import Mask, Sealed, bars_judged, groups_of, overall, report_slice
from overproof.store.artifacts import Step
from overproof.task import Bar, Slice

HALF = 0.5
TEXT_CHARS = 600  # as much of a request as a person reads in a list


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyRecipe:
    """How much of the calibration rows a reader is shown."""

    most: int = 60
    """Disagreements to list."""
    slices: tuple[Slice, ...] | None = None
    """The slices that thresholds are certified for, to count the chosen candidate by; None counts nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """What the report takes from the calibration rows."""

    calibrations: tuple[Calibration, ...]
    """One per calibrated candidate."""
    disagreements: tuple[Disagreement, ...]
    """Of the chosen candidate, worst first."""
    dev: tuple[DevCounts, ...] = ()
    """Of the chosen candidate, one per certification slice."""


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
    look: int = 1
    """Which planned look at these rows this is, from 1."""
    earlier: Mapping[str, Mapping[str, tuple[LookCounts, ...]]] = field(default_factory=dict)
    """Label kind to certification slice to what earlier looks saw, as the ledger kept it."""
    requests_per_month: float | None = None
    """Traffic volume, for money; None where not known."""
    decided: str = ""
    """ISO date of the look."""
    written: tuple[Bar, ...] = ()
    """Bars within written answers, see `BarsTable.written`."""
    by_judge: bool = False
    """Whether a judge of texts has a bar of its own: it reads the chosen candidate's answers later, and nobody else's."""

    def delta(self, plan: Plan, label_kind: str) -> float:
        """The error budget that this use has under a label kind."""
        return ledger_delta(plan.delta, self.uses.get(label_kind, self.use_k))

    def now(self, plan: Plan, label_kind: str) -> float:
        """The part of it that this look has: bars and paired tests are judged anew at every look."""
        return self.delta(plan, label_kind) * look_shares(plan.looks)[self.look - 1]


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
        recipe: how many to list, and the slices.
        functions: "module:function" to the function, for slices that equality can't say.

    Returns: disagreements, first those where the teacher is right by gold, then by the student's confidence in
        its other answer.
    """
    chosen = _named(scores, plan.chosen)
    names = slice_names(rows, recipe.slices or (), functions)
    reading = reading_of(chosen, rows, plan.confidence, slices=names)
    sheet = sheet_of(rows)
    differ = np.flatnonzero(reading.answer != sheet.target)

    def badness(i: int) -> tuple[int, float, int]:
        gold, sure = sheet.gold[i], float(np.nan_to_num(reading.confidence[i]))
        rank = 0 if gold == sheet.target[i] else 2 if gold == reading.answer[i] else 1
        return rank, -sure, i

    shown = sorted((int(i) for i in differ), key=badness)[: recipe.most]
    written = answers_of(chosen, rows) if rows.output is not None else ()
    said = [one or "(no answer)" for one in written] if written else [rows.labels[int(i)] for i in reading.answer]
    cells = None if recipe.slices is None else _cells(names, recipe.slices)
    return Study(
        calibrations=calibrations,
        dev=() if cells is None else dev_counts(plan, reading, sheet, cells),
        disagreements=tuple(
            Disagreement(
                request_id=rows.examples[i].request.id,
                text=rows.examples[i].request.text[:TEXT_CHARS],
                teacher=rows.examples[i].target,
                student=said[i],
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
    routed = certified_by(recipe.slices, one_for_all=plan.guarantee == "budget" and plan.moved == "alone")
    names = slice_names(rows, routed, functions)
    chosen = reading_of(_named(scores, plan.chosen), rows, plan.confidence, slices=names)
    cells = _cells(names, routed)
    walked = {n: m & ~sealed.judge & drawn_for(rows, n) for n, m in cells.items()}
    first, *rest = (
        certify(plan, chosen, sheet, walked, _place(plan, recipe, kind), label_kind=kind)
        for kind in (plan.label_kind, plan.other_label) if kind
    )
    kept = kept_by(first, chosen, cells)
    candidates = _reports(plan, study, scores, rows, sealed=sealed, kept=kept, names=names, bins=recipe.bins)
    written = written_report(_named(scores, plan.chosen), rows, sealed, kept, recipe.written, how=plan.confidence)
    candidates = judged_candidates(candidates, written, {s.name: s for s in scores}, rows, sealed, bars=recipe.written)
    if recipe.by_judge:
        candidates = tuple(replace(c, clears_bars=overall([c.clears_bars, "undecided"])) for c in candidates)
    best = next(c for c in candidates if c.name == plan.chosen)
    report = EvalReport(
        candidates=candidates,
        chosen=plan.chosen,
        reason=plan.reason,
        certificate=first,
        n_test=len(sheet.target), n_gold=int(sheet.has_gold.sum()),
        weak_labels=weak_labels(best), disagreements=study.disagreements, cheaper=None,
        other=rest[0] if rest else None,
        truth_note=plan.truth_note,
        noninferiority=_not_worse(plan, chosen, sealed, kept),
        superiority=_better(plan, chosen, scores, rows, sealed),
        margin_from=plan.margin_from, decided=recipe.decided, written=written,
    )
    return _with_outlook(_with_cheaper(report), plan, study, recipe)


def _with_outlook(report: EvalReport, plan: Plan, study: Study, recipe: EvaluateRecipe) -> EvalReport:
    if not study.dev:
        return report
    return replace(report, outlook=outlook_of(report, plan, study.dev, requests_per_month=recipe.requests_per_month))


def teacher_kind(plan: Plan) -> str:
    """
    The label kind of the teacher's answers in a plan.

    Args:
        plan: any plan.

    Returns: for example "teacher:big-2026-05-01".
    """
    return plan.other_label if plan.label_kind == GOLD else plan.label_kind


def _cells(names: Sequence[str], routed: Sequence[Slice]) -> dict[str, Mask]:
    column = np.array(names, dtype=object)
    return {one: column == one for one in (*(s.name for s in routed), OTHER)}


def _opened(plan: Plan, rows: TestSet, recipe: EvaluateRecipe, functions: Functions) -> Sealed:
    return Sealed(
        sheet=sheet_of(rows),
        groups=groups_of(rows, recipe.slices, recipe.bars, functions, novelty_below=plan.novelty_below),
        judge=~split_hash([e.request.id for e in rows.examples], plan.salt, plan.certify_share),
        delta=recipe.now(plan, teacher_kind(plan)),
        level=recipe.level,
        delta_gold=recipe.now(plan, GOLD),
        base=drawn_for(rows, ""),
    )


def _place(plan: Plan, recipe: EvaluateRecipe, label_kind: str) -> Place:
    return Place(
        plan_hash=recipe.plan_hash,
        sealed_digest=recipe.sealed_digest,
        use_k=recipe.uses.get(label_kind, recipe.use_k),
        delta=recipe.delta(plan, label_kind),
        window=recipe.window,
        expires=recipe.expires,
        look=recipe.look,
        earlier=recipe.earlier.get(label_kind, {}),
    )


def _not_worse(plan: Plan, reading: Reading, sealed: Sealed, kept: Mask) -> Comparison | None:
    """The system as served against the teacher, on judging rows with gold."""
    sheet, fresh = sealed.sheet, sealed.judge & sealed.fair & sealed.sheet.has_gold
    if not plan.margin or not fresh.any():
        return None
    served = np.where(kept, reading.answer, sheet.target)
    ours, theirs, delta = (served != sheet.gold)[fresh], (sheet.target != sheet.gold)[fresh], sealed.budget("accuracy")
    return against_teacher(ours, theirs, teacher="the teacher", margin=plan.margin, delta=delta)


def _better(
    plan: Plan, reading: Reading, scores: tuple[Scores, ...], rows: TestSet, sealed: Sealed
) -> Comparison | None:
    """The student alone against the best baseline of the calibration rows: by gold where a certificate of it is planned."""
    if not plan.baseline:
        return None
    gold = GOLD in (plan.label_kind, plan.other_label)
    truth = sealed.sheet.gold if gold else sealed.sheet.target
    fresh = sealed.judge & sealed.fair & (sealed.sheet.has_gold if gold else True)
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
        fair = sealed.fair
        routed = figure(int((after.foreign & ~after.mixed & fair).sum()), int(fair.sum()), metric="out_of_scope", level=sealed.level)
        mixed = figure(int((after.mixed & fair).sum()), int(fair.sum()), metric="mixed", level=sealed.level)
        return replace(
            found,
            reliability=reliabilities(after, sealed.sheet.target, names, plan.confidence, showing),
            out_of_scope=routed if plan.confidence.scope else None,
            mixed=mixed if plan.confidence.mixed else None,
        )

    return tuple(report(s) for s in scores)


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
    sound = ~np.isnan(after.confidence) & sealed.fair
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
        role=scores.role,
        margin=min((f.low - f.bar for f in judged if f.bar is not None), default=None),
    )


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
        # a cost of 0 that nobody measured is no low cost
        if c.kind == "baseline" and c.clears_bars == "pass" and c.cost_n and c.cost_usd_per_1000 <= ceiling
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
EVALUATE = Step(name="evaluate", version=6, fn=evaluate)
