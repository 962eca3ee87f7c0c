"""Choose the candidate and fix every threshold grid on calibration rows, before a sealed label is read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from overproof.data import CalibrationSet
from overproof.errors import DataError
from overproof.evidence import Calibration, Figure, Moved, Plan, Scores, SlicePlan
from overproof.measure.certify import grid_counts, grid_of, ledger_delta, plan_slice, split_delta, walk
from overproof.measure.intervals import cp_upper, judge, min_rows
from overproof.measure.leakage import NOVELTY_EDGES
from overproof.measure.looks import look_shares
from overproof.measure.slices import NO_FUNCTIONS, OTHER, Functions, assign, partition
from overproof.steps.calibrate import Reading, Sheet, reading_of, sheet_of, slice_names
from overproof.steps.choice import Expectation, by_size, choose, reason_of
from overproof.steps.joint import expected_thresholds, plan_all, plan_cost
from overproof.store.artifacts import Step
from overproof.task import Bar, Slice

HALF = 0.5
POINT = 0.01  # the most that the served system may be worse than the teacher, unless the owner says otherwise

@dataclass(frozen=True, kw_only=True, slots=True)
class PlanRecipe:
    """What the owner asks for, and what is fixed elsewhere and named here by digest."""

    bars: tuple[Bar, ...]
    """Overall bars."""
    slices: tuple[Slice, ...]
    """In file order."""
    accuracy_when_confident: float | None = None
    """Least share of right answers among those that the student keeps, in (0, 1)."""
    wrong_when_served: float | None = None
    """The other dial: largest share of all requests that are kept and wrong, in (0, 1). One of both is set."""
    n_sealed: int
    """Sealed rows; their number is no secret, their labels are."""
    teacher: str
    """The teacher's model id, for the name of the label kind."""
    label: Literal["teacher", "gold"] = "teacher"
    """What "right" means in the certificate."""
    delta: float = 0.05
    """Error budget of these sealed rows over all uses."""
    certify_share: float = 0.5
    """Share of sealed rows that choose thresholds; the others judge the bars."""
    salt: str = "overproof"
    """Seed of that split."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """Names to digests of what is fixed: weights, calibration, prompt, decoding, bars, slices."""
    n_sealed_gold: int = 0
    """Sealed rows with a true label."""
    margin: float | None = None
    """How much more often than the teacher the served system may be wrong; None: from the calibration rows."""
    novelty: bool = True
    """Whether the least familiar rows are a critical slice with the overall bars."""
    ship: Literal["partial", "all"] = "partial"
    """Whether a slice that can't be certified holds up the others."""
    by_cost: bool = False
    """With `wrong_when_served`: thresholds of slices move in the order of money saved per error."""
    looks: int = 1
    """Looks planned at the sealed rows; they share the error budget of one use."""
    spread: Mapping[str, float] = field(default_factory=dict)
    """Student to the standard deviation of its kept share over seeds, where seeds were tried."""
    seeds: int = 1
    """Seeds that were tried."""

    @property
    def moved(self) -> Moved:
        """How thresholds of slices move."""
        if self.wrong_when_served is not None:
            return "cost" if self.by_cost else "alone"
        return "all" if self.ship == "all" else "alone"

    @property
    def first_delta(self) -> float:
        """The error budget to plan with: a first use of the sealed rows, at its last look."""
        return ledger_delta(self.delta, 1) * look_shares(self.looks)[-1]

    @property
    def alpha(self) -> float:
        """The largest share of wrong answers: among kept, or kept and wrong among all."""
        return 1.0 - (self.accuracy_when_confident or 0.0) if self.wrong_when_served is None else self.wrong_when_served

    @property
    def one_for_all(self) -> bool:
        """A budget is of all traffic: one threshold, unless slices share it by cost."""
        return self.wrong_when_served is not None and self.moved == "alone"

    @property
    def teacher_kind(self) -> str:
        """The label kind of the teacher's answers."""
        return f"teacher:{self.teacher}"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Dev:
    """The calibration rows, cut into slices."""

    sheet: Sheet
    truth: NDArray[np.int64]
    """The labels that the certificate speaks of."""
    known: NDArray[np.bool_]
    """Rows that have such a label."""
    cells: Mapping[str, NDArray[np.bool_]]
    """Certification slices: disjoint masks."""
    members: Mapping[str, NDArray[np.bool_]]
    """Reporting slices and "all": masks that may overlap."""
    teacher_cost: float | None
    """USD per 1,000."""
    novelty_below: float | None
    """Edge of the least familiar slice, see `novelty_edge`."""
    prices: NDArray[np.float64]
    """What the teacher asked for each row, NaN where not known."""


def make_plan(
    calibrations: tuple[Calibration, ...],
    scores: tuple[Scores, ...],
    rows: CalibrationSet,
    recipe: PlanRecipe,
    *,
    functions: Functions = NO_FUNCTIONS,
) -> Plan:
    """
    Choose on calibration rows, and fix grids, starts and shares of the error budget.

    Args:
        calibrations: one per candidate that has scores of kind "student"; others are ignored.
        scores: of the calibration rows.
        rows: calibration rows.
        recipe: bars, slices, budget.
        functions: "module:function" to the function, for slices that equality can't say.

    Returns: the plan. The chosen candidate is the one of kind "student" that is cheapest as served among those
        expected to clear every bar (the smaller one where costs are equal), else the one nearest to its bars.
    Raises: DataError where no student was calibrated, or gold is asked for and the rows have too little.
    """
    if (recipe.accuracy_when_confident is None) == (recipe.wrong_when_served is None):
        raise DataError(
            "exactly one of accuracy_when_confident and wrong_when_served sets the thresholds",
            next_action="write one of them in [serve]",
        )
    dev = _dev(rows, recipe, functions)
    by_name = {c.name: c for c in calibrations}
    students = [s for s in scores if s.kind == "student" and s.name in by_name]
    if not students:
        raise DataError("no calibrated student to choose from", next_action="add a [[student]] to the project file")
    names = slice_names(rows, certified_by(recipe.slices, one_for_all=recipe.one_for_all), functions)
    readings = {s.name: reading_of(s, rows, by_name[s.name].confidence, slices=names) for s in students}
    best = choose(expected := [_expect(s, readings[s.name], dev, recipe) for s in students], recipe.spread)
    second = _second(recipe, dev, rows, functions)
    protected = best_baseline(scores, rows, dev.sheet)
    margin = margin_of(recipe, dev.sheet, protected)
    return Plan(
        chosen=best.name,
        reason=reason_of(best, expected, n=len(rows.examples), spread=recipe.spread, seeds=recipe.seeds),
        label_kind="gold" if recipe.label == "gold" else recipe.teacher_kind,
        delta=recipe.delta,
        slices=best.plans,
        certify_share=recipe.certify_share,
        salt=recipe.salt,
        confidence=by_name[best.name].confidence,
        digests=dict(recipe.digests),
        guarantee="kept" if recipe.wrong_when_served is None else "budget",
        other_label=second.label,
        other_slices=_other_slices(best, readings[best.name], second),
        truth_note=second.note,
        margin=margin.value,
        margin_from=margin.why,
        baseline=protected.name,
        novelty_below=dev.novelty_below,
        moved=recipe.moved,
        left_out=() if recipe.moved == "alone" else tuple(sorted(set(dev.cells) - {p.slice for p in best.plans})),
        looks=recipe.looks, expected=by_size(expected),
    )


def certified_by(slices: tuple[Slice, ...], *, one_for_all: bool) -> tuple[Slice, ...]:
    """
    The slices that get a threshold of their own, and may get a calibrator of their own.

    Args:
        slices: of the project, in file order.
        one_for_all: one threshold serves all traffic, as under a budget that slices don't share by cost.

    Returns: none, or those that a router can know.
    """
    return () if one_for_all else tuple(one for one in slices if not one.reads_label)


def _other_slices(best: Expectation, reading: Reading, second: _Second) -> tuple[SlicePlan, ...]:
    """Thresholds that move together are judged under the other label kind at the points of the same path."""
    if second.dev is None:
        return ()
    return plan_slices(reading, second.dev, second.recipe) if second.recipe.moved == "alone" else best.plans


@dataclass(frozen=True, kw_only=True, slots=True)
class _Second:
    """The label kind that the thresholds are not shipped under."""

    recipe: PlanRecipe
    label: str = ""
    dev: _Dev | None = None
    note: str = ""


def _second(recipe: PlanRecipe, dev: _Dev, rows: CalibrationSet, functions: Functions) -> _Second:
    if recipe.label == "gold":
        turned = replace(recipe, label="teacher")
        return _Second(recipe=turned, label=recipe.teacher_kind, dev=_dev(rows, turned, functions))
    turned = replace(recipe, label="gold")
    needed = math.ceil(min_rows(recipe.alpha, recipe.first_delta) / recipe.certify_share)
    only = "what is certified is agreement with the teacher, not correctness"
    if recipe.n_sealed_gold < needed:
        have = f"{recipe.n_sealed_gold:,} of {recipe.n_sealed:,} sealed rows have" if recipe.n_sealed_gold else "no sealed row has"
        return _Second(recipe=turned, note=f"{only}: {have} a true label, correctness takes at least {needed:,}")
    if not dev.sheet.has_gold.any():
        return _Second(recipe=turned, note=f"{only}: no calibration row has a true label to plan thresholds by")
    return _Second(recipe=turned, label="gold", dev=_dev(rows, turned, functions))


@dataclass(frozen=True, kw_only=True, slots=True)
class Baseline:
    """The do-nothing baseline that the student has to beat."""

    name: str
    """Empty where there is none."""
    right: int
    """Right answers on calibration rows with gold."""


def best_baseline(scores: tuple[Scores, ...], rows: CalibrationSet, sheet: Sheet) -> Baseline:
    """
    The best baseline of the calibration rows: against gold where there is gold, else against the teacher.

    Args:
        scores: of the calibration rows.
        rows: calibration rows.
        sheet: their labels.

    Returns: its name and its right answers.
    """
    known = sheet.has_gold
    found = []
    for one in scores:
        if one.kind == "baseline":
            answer = reading_of(one, rows, 1.0).answer
            right = int((answer == sheet.gold)[known].sum())
            found.append((right, int((answer == sheet.target).sum()), one.name))
    best = max(found, default=(0, 0, ""))
    return Baseline(name=best[2], right=best[0])


@dataclass(frozen=True, kw_only=True, slots=True)
class Margin:
    """How much worse than the teacher the served system may be, and why so much."""

    value: float
    """A share of all requests; 0 where the baseline leaves nothing to protect."""
    why: str


def margin_of(recipe: PlanRecipe, sheet: Sheet, best: Baseline) -> Margin:
    """
    The margin: one point, or half of what the teacher is better by than the best baseline, whichever is less.

    Args:
        recipe: [proof] margin overrides it.
        sheet: calibration labels.
        best: the best baseline.

    Returns: the margin, fixed before any sealed label is read.
    """
    if recipe.margin is not None:
        return Margin(value=recipe.margin, why=f"margin {recipe.margin:.2%} as [proof] margin says")
    n = int(sheet.has_gold.sum())
    if n == 0 or not best.name:
        return Margin(value=POINT, why="margin of one point; no true label among the calibration rows to set it by")
    teacher = int((sheet.target == sheet.gold)[sheet.has_gold].sum())
    half = HALF * (teacher - best.right) / n
    seen = f"the teacher is right on {teacher:,}, {best.name} on {best.right:,} of {n:,} calibration rows"
    if half <= 0.0:
        return Margin(value=0.0, why=f"{seen}: nothing that the teacher adds is left to protect")
    if half < POINT:
        return Margin(value=half, why=f"margin {half:.2%}, half of what the teacher adds: {seen}")
    return Margin(value=POINT, why=f"margin of one point: {seen}")


def novelty_edge(near: NDArray[np.float64], gold: NDArray[np.bool_], recipe: PlanRecipe) -> float | None:
    """
    Where the least familiar slice ends: the first bins together that could pass their bars on the judging rows.

    Args:
        near: shape (n,), similarity of each calibration row to its nearest training row, NaN where unknown.
        gold: shape (n,), rows with a true label.
        recipe: bars, budget, number of sealed rows.

    Returns: an edge of the novelty bins, or 1.0 for all rows; None where it is not asked for or not known.
    """
    if not recipe.novelty or np.isnan(near).all():
        return None
    scale = recipe.n_sealed * (1.0 - recipe.certify_share) / len(near)
    delta = recipe.first_delta
    asked = [bar for bar in recipe.bars if 0.0 < bar.at_least < 1.0]
    for edge in NOVELTY_EDGES[1:]:
        under = near_under(near, edge)
        rows = [scale * float((under if bar.metric == "fidelity" else under & gold).sum()) for bar in asked]
        if under.any() and all(
            n >= max(bar.min_n, min_rows(1.0 - bar.at_least, delta)) for n, bar in zip(rows, asked, strict=True)
        ):
            return edge
    return 1.0


def near_under(near: NDArray[np.float64], edge: float) -> NDArray[np.bool_]:
    """
    Rows less similar to training than an edge.

    Args:
        near: shape (n,), similarity in [0, 1], NaN where unknown.
        edge: 1.0 admits every known row.

    Returns: shape (n,), False where unknown.
    """
    return ~np.isnan(near) if edge >= 1.0 else near < edge


def least_familiar(edge: float) -> str:
    """
    Name of the least familiar slice.

    Args:
        edge: where it ends.

    Returns: for example "familiarity 0.0-0.4".
    """
    return f"familiarity 0.0-{edge:.1f}"


def _dev(rows: CalibrationSet, recipe: PlanRecipe, functions: Functions) -> _Dev:
    sheet = sheet_of(rows)
    truth = sheet.gold if recipe.label == "gold" else sheet.target
    known = sheet.has_gold if recipe.label == "gold" else np.ones(len(truth), dtype=bool)
    if not known.any():
        raise DataError(
            "the certificate is asked for against gold, but no calibration row has a true label",
            next_action='import true labels, or set [proof] label = "teacher"',
        )
    requests = [e.request for e in rows.examples]
    labels = [e.target if e.gold is None else e.gold for e in rows.examples]
    routed = certified_by(recipe.slices, one_for_all=recipe.one_for_all)
    part = partition(routed, requests, functions=functions)
    member = assign(recipe.slices, requests, labels, functions=functions)
    prices = [e.cost_usd for e in rows.examples if e.cost_usd is not None]
    near = np.array([np.nan if e.near_train is None else e.near_train for e in rows.examples])
    edge = novelty_edge(near, sheet.has_gold, recipe)
    unfamiliar = {} if edge is None else {least_familiar(edge): near_under(near, edge)}
    return _Dev(
        sheet=sheet,
        truth=truth,
        known=known,
        cells={name: part.index == i for i, name in enumerate(part.names)},
        members={"all": np.ones(len(truth), dtype=bool)} | {s.name: member[:, i] for i, s in enumerate(recipe.slices)} | unfamiliar,
        novelty_below=edge,
        prices=np.array([np.nan if e.cost_usd is None else e.cost_usd for e in rows.examples]),
        teacher_cost=1000 * sum(prices) / len(prices) if prices else None,
    )


def plan_slices(reading: Reading, dev: _Dev, recipe: PlanRecipe) -> tuple[SlicePlan, ...]:
    """
    Grid, start and share of the error budget for every certification slice.

    Args:
        reading: a candidate's calibration answers.
        dev: the calibration rows, cut into slices.
        recipe: bars and budget.

    Returns: one plan per slice that has calibration rows, weights summing to 1.
    """
    alpha = recipe.alpha
    wrong = reading.answer != dev.truth
    n = len(wrong)
    counting = {name: mask & dev.known for name, mask in dev.cells.items()}
    if recipe.moved == "all":
        return plan_all(reading.confidence, wrong, counting, alpha=alpha, factor=recipe.n_sealed * recipe.certify_share / n)
    if recipe.moved == "cost":
        return plan_cost(reading.confidence, wrong, counting, prices=dev.prices, alpha=alpha)

    def one(name: str, weight: float) -> SlicePlan:
        mask = dev.cells[name]
        counted = mask & dev.known
        sealed = recipe.n_sealed * recipe.certify_share * float(counted.sum()) / n
        return plan_slice(
            name,
            reading.score[counted],
            wrong[counted],
            alpha=alpha,
            weight=weight,
            n_sealed=round(sealed),
            grid=grid_of(reading.score[mask]) if mask.any() else None,  # the same for every kind of label
        )

    if recipe.wrong_when_served is not None:
        counted = dev.cells[OTHER] & dev.known
        planned = replace(one(OTHER, 1.0), start=0)  # from the strictest: the loss only grows, so nothing is spent
        kept = reading.score[counted] >= planned.grid[0]
        share, bad = (float(kept.mean()), float(wrong[counted][kept].mean())) if kept.any() else (0.0, 1.0)
        return (replace(planned, dev_keep=share, dev_error=bad),)
    first = {name: one(name, 1.0) for name in dev.cells}
    weights = split_delta(
        {name: float(dev.cells[name].mean()) for name in first}, {name: p.dev_keep for name, p in first.items()}
    )
    return tuple(one(name, weight) for name, weight in weights.items())


def _thresholds(plans: tuple[SlicePlan, ...], reading: Reading, dev: _Dev, recipe: PlanRecipe) -> NDArray[np.bool_]:
    """Calibration rows that the student would keep, if the sealed rows look like these."""
    wrong = reading.answer != dev.truth
    kept = np.zeros(len(wrong), dtype=bool)
    factor = recipe.n_sealed * recipe.certify_share / len(wrong)
    if recipe.moved != "alone":
        counting = {name: mask & dev.known for name, mask in dev.cells.items()}
        found = expected_thresholds(
            plans, reading.confidence, wrong, counting, factor=factor, delta=recipe.first_delta, budget=recipe.moved == "cost"
        )
        for name, threshold in found.items():
            kept |= dev.cells[name] & (reading.confidence >= threshold)
        return kept
    for plan in plans:
        mask = dev.cells[plan.slice]
        counted = mask & dev.known
        counts = tuple(
            (round(k * factor), round(m * factor))
            for k, m in grid_counts(reading.score[counted], wrong[counted], plan.grid)
        )
        delta = recipe.first_delta * plan.weight
        if recipe.wrong_when_served is None:
            last = walk(counts, plan.alpha, delta, plan.start)
        else:
            last = within_budget(counts, round(factor * int(counted.sum())), plan.alpha, delta)
        if last is not None:
            kept |= mask & (reading.score >= plan.grid[last])
    return kept


def within_budget(counts: tuple[tuple[int, int], ...], n: int, budget: float, delta: float) -> int | None:
    """
    The loosest grid point before the first whose bound on kept and wrong leaves the budget.

    Args:
        counts: (wrong, kept) at each grid point.
        n: all rows.
        budget: largest share of all rows.
        delta: error probability.

    Returns: its position, or None where the strictest one is over already.
    """
    last = None
    for j, (wrong, _) in enumerate(counts):
        if cp_upper(min(wrong, n), n, delta) > budget:
            break
        last = j
    return last


def _expect(scores: Scores, reading: Reading, dev: _Dev, recipe: PlanRecipe) -> Expectation:
    plans = plan_slices(reading, dev, recipe)
    kept = _thresholds(plans, reading, dev, recipe)
    served = np.where(kept, reading.answer, dev.sheet.target)
    judging = recipe.n_sealed * (1.0 - recipe.certify_share) / len(served)
    worst, missed, misses, spoils = 1.0, "", 0, 0
    delta = recipe.first_delta

    def expect(right: NDArray[np.bool_], bar: Bar) -> Figure:
        good, n = (round(judging * int(count)) for count in (right.sum(), len(right)))
        return judge(good, max(good, n), bar.at_least, delta, level=1 - 2 * delta, metric=bar.metric, min_n=bar.min_n)

    by_slice = {s.name: s for s in recipe.slices}
    for name, mask in dev.members.items():
        own = by_slice[name].bars if name in by_slice else ()
        for bar in bars_of(own, recipe.bars):
            truth = dev.sheet.target if bar.metric == "fidelity" else dev.sheet.gold
            rows = mask if bar.metric == "fidelity" else mask & dev.sheet.has_gold
            found = expect((served == truth)[rows], bar)
            misses += found.verdict != "pass"
            spoils += found.verdict == "fail" and expect((dev.sheet.target == truth)[rows], bar).verdict == "pass"
            if found.n and found.low - bar.at_least < worst:  # a slice without rows tells no candidate from another
                worst, missed = found.low - bar.at_least, f"{bar.metric} on {name!r}"
    share = float(kept.mean())
    escalated = 1.0 - share
    price = dev.teacher_cost
    return Expectation(
        name=scores.name,
        size_bytes=scores.size_bytes,
        plans=plans,
        fidelity=float((reading.answer == dev.sheet.target).mean()),
        kept=share,
        clears=bool(kept.any()) and misses == 0,
        misses=misses,
        spoils=spoils,
        margin=worst,
        missed=missed,
        cost=escalated if price is None else scores.cost_usd_per_1000 + escalated * price,
        bill=1.0 if price is None else price,
        priced=price is not None,
    )


def bars_of(own: tuple[Bar, ...], overall: tuple[Bar, ...]) -> tuple[Bar, ...]:
    """
    The bars that hold on a slice: its own, and the overall ones for metrics that it doesn't name.

    Args:
        own: bars of the slice.
        overall: bars of the project.

    Returns: one bar per metric.
    """
    named = {bar.metric for bar in own}
    return own + tuple(bar for bar in overall if bar.metric not in named)


PLAN = Step(name="plan", version=5, fn=make_plan)
