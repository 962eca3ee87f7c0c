"""Choose the candidate and fix every threshold grid on calibration rows, before a sealed label is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from overproof.data import CalibrationSet
from overproof.errors import DataError
from overproof.evidence import Calibration, Plan, Scores, SlicePlan
from overproof.measure.certify import grid_counts, ledger_delta, plan_slice, split_delta, walk
from overproof.measure.intervals import judge
from overproof.measure.slices import NO_FUNCTIONS, Functions, assign, partition
from overproof.steps.calibrate import Reading, Sheet, logits_of, read, sheet_of
from overproof.store.artifacts import Step
from overproof.task import Bar, Slice

SAME_BILL = 0.01  # a hundredth of the teacher's bill is not worth a larger student; the kept share is no better known

@dataclass(frozen=True, kw_only=True, slots=True)
class PlanRecipe:
    """What the owner asks for, and what is fixed elsewhere and named here by digest."""

    bars: tuple[Bar, ...]
    """Overall bars."""
    slices: tuple[Slice, ...]
    """In file order."""
    accuracy_when_confident: float
    """Least share of right answers among those that the student keeps, in (0, 1)."""
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
    """Names to digests of what is fixed: weights, calibration, prompt, bars."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Expectation:
    """What a candidate is expected to do as served, seen from the calibration rows."""

    name: str
    size_bytes: int
    plans: tuple[SlicePlan, ...]
    fidelity: float
    """Agreement with the teacher, alone."""
    kept: float
    """Share of the calibration rows that it would answer itself."""
    clears: bool
    """True iff every bar would be passed with as many rows as will judge it."""
    misses: int
    """Bars that would not be passed."""
    margin: float
    """Least distance of a lower bound from its bar; negative where one would be missed."""
    missed: str
    """The bar with the least margin, in words."""
    cost: float
    """USD per 1,000 as served; the teacher's share of the answers where prices are not known."""
    bill: float
    """What the teacher alone costs, in the same unit."""
    priced: bool
    """True iff both are money."""


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
    dev = _dev(rows, recipe, functions)
    by_name = {c.name: c for c in calibrations}
    students = [s for s in scores if s.kind == "student" and s.name in by_name]
    if not students:
        raise DataError("no calibrated student to choose from", next_action="add a [[student]] to the project file")
    expected = [_expect(s, read(logits_of(s, rows), by_name[s.name].temperature), dev, recipe) for s in students]
    best = choose(expected)
    return Plan(
        chosen=best.name,
        reason=reason_of(best, expected, n=len(rows.examples)),
        label_kind="gold" if recipe.label == "gold" else f"teacher:{recipe.teacher}",
        delta=recipe.delta,
        slices=best.plans,
        certify_share=recipe.certify_share,
        salt=recipe.salt,
        temperature=by_name[best.name].temperature,
        digests=dict(recipe.digests),
    )


def choose(expected: list[Expectation]) -> Expectation:
    """
    The candidate that may be released.

    Args:
        expected: at least one.

    Returns: the cheapest as served of those that clear every bar, the smaller one where costs differ by under
        a hundredth of the teacher's bill; where none clears them, of those that keep anything
        the one that misses the fewest, then the cheapest.
    """
    good = [e for e in expected if e.clears]
    if not good:
        # one that keeps nothing is as good as the teacher on every bar, and of no use
        return max(expected, key=lambda e: (e.kept > 0, -e.misses, -e.cost, e.fidelity, -e.size_bytes))
    least = min(e.cost for e in good)
    return min((e for e in good if e.cost <= least + SAME_BILL * e.bill), key=lambda e: (e.size_bytes, e.cost))


def reason_of(best: Expectation, expected: list[Expectation], *, n: int) -> str:
    """
    Why this candidate, in one sentence.

    Args:
        best: the chosen one.
        expected: all of them.
        n: calibration rows.

    Returns: a sentence with the figures that decided.
    """
    good = [e for e in expected if e.clears]
    seen = f"on {n:,} calibration rows"
    if not good and best.kept <= 0:
        return f"{seen} no student is expected to keep any answer; {best.name} agrees most or costs least of them"
    if not good:
        return (
            f"{seen} no student is expected to clear every bar; {best.name}, keeping {best.kept:.1%}, is nearest: "
            f"it would miss {best.misses} (worst: {best.missed}, lower bound {100 * best.margin:+.1f} points from the bar)"
        )
    bill = f"{best.cost:.4g} USD per 1,000" if best.priced else f"{best.cost:.1%} of requests to the teacher"
    others = "; ".join(
        f"{e.name} would keep {e.kept:.1%}" + ("" if e.clears else " and miss a bar")
        for e in expected
        if e is not best
    )
    return (
        f"{seen} {best.name} is expected to clear every bar and to keep {best.kept:.1%}, the lowest bill as served "
        f"({bill}) of {len(good)} such student(s)" + (f"; {others}" if others else "")
    )


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
    part = partition(recipe.slices, requests, functions=functions)
    member = assign(recipe.slices, requests, labels, functions=functions)
    prices = [e.cost_usd for e in rows.examples if e.cost_usd is not None]
    return _Dev(
        sheet=sheet,
        truth=truth,
        known=known,
        cells={name: part.index == i for i, name in enumerate(part.names)},
        members={"all": np.ones(len(truth), dtype=bool)} | {s.name: member[:, i] for i, s in enumerate(recipe.slices)},
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
    alpha = 1.0 - recipe.accuracy_when_confident
    wrong = reading.answer != dev.truth
    n = len(wrong)

    def one(name: str, weight: float) -> SlicePlan:
        mask = dev.cells[name]
        counted = mask & dev.known
        sealed = recipe.n_sealed * recipe.certify_share * float(counted.sum()) / n
        return plan_slice(
            name,
            reading.confidence[counted],
            wrong[counted],
            alpha=alpha,
            weight=weight,
            n_sealed=round(sealed),
        )

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
    for plan in plans:
        mask = dev.cells[plan.slice]
        counted = mask & dev.known
        counts = tuple(
            (round(k * factor), round(m * factor))
            for k, m in grid_counts(reading.confidence[counted], wrong[counted], plan.grid)
        )
        last = walk(counts, plan.alpha, ledger_delta(recipe.delta, 1) * plan.weight, plan.start)
        if last is not None:
            kept |= mask & (reading.confidence >= plan.grid[last])
    return kept


def _expect(scores: Scores, reading: Reading, dev: _Dev, recipe: PlanRecipe) -> Expectation:
    plans = plan_slices(reading, dev, recipe)
    kept = _thresholds(plans, reading, dev, recipe)
    served = np.where(kept, reading.answer, dev.sheet.target)
    judging = recipe.n_sealed * (1.0 - recipe.certify_share) / len(served)
    worst, missed, misses = 1.0, "", 0
    by_slice = {s.name: s for s in recipe.slices}
    for name, mask in dev.members.items():
        own = by_slice[name].bars if name in by_slice else ()
        for bar in bars_of(own, recipe.bars):
            truth = dev.sheet.target if bar.metric == "fidelity" else dev.sheet.gold
            rows = mask if bar.metric == "fidelity" else mask & dev.sheet.has_gold
            good = round(judging * int((served == truth)[rows].sum()))
            n = max(good, round(judging * int(rows.sum())))
            delta = ledger_delta(recipe.delta, 1)
            found = judge(good, n, bar.at_least, delta, level=1 - 2 * delta, metric=bar.metric, min_n=bar.min_n)
            misses += found.verdict != "pass"
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


PLAN = Step(name="plan", version=1, fn=make_plan)
