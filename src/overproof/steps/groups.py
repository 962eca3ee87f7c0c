"""Gaps between declared groups, as served: errors, who is sent to the teacher, and whose gaps they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from overproof.data import TestSet
from overproof.errors import DataError
from overproof.evidence import EvalReport, Outcome, Plan, Scores, Verdict
from overproof.measure.certify import ledger_delta
from overproof.measure.groups import (
    GroupCount,
    GroupGap,
    GroupGaps,
    Origins,
    group_gaps,
    inherited_or_introduced,
)
from overproof.measure.intervals import cp_lower, cp_upper
from overproof.measure.slices import MISSING, NO_FUNCTIONS, OTHER, Functions, split_hash
from overproof.steps.boost import drawn_for
from overproof.steps.calibrate import reading_of, slice_names
from overproof.steps.certificates import kept_by
from overproof.steps.comparisons import Answer
from overproof.steps.disparities import DisparityBars, NamedAmplification, NamedRatio, amplifications, ratios
from overproof.steps.plan import certified_by
from overproof.steps.sheet import sheet_of
from overproof.store.artifacts import Step
from overproof.task import Slice

Mask = NDArray[np.bool_]
TOLERANCE = 0.05  # what a gap is read against where the owner sets none; then nothing refuses
MOST_GROUPS = 12  # 132 ordered pairs: beyond that Holm's correction leaves nothing to show, and it is rather an id
MOST_FACTOR = 1_000


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupRecipe:
    """Which attributes are compared, and how large a gap may be; all of it is fixed before unsealing."""

    values: Mapping[str, tuple[str, ...]]
    """Attribute to the groups that the traffic has: one without a judging row leaves its attribute undecided."""
    tolerance: float | None = None
    """How much more often one group's answers may be wrong than another's; None: reported only."""
    selected: tuple[str, ...] = ()
    """Labels whose share in each group is reported."""
    slices: tuple[Slice, ...] = ()
    """The project's slices, whose thresholds route requests."""
    use_k: int = 1
    """Which use of the sealed rows' true labels this is: the same entry of the ledger as the evaluation's."""
    bars: DisparityBars = field(default_factory=DisparityBars)
    """On ratios, and on gaps beyond the teacher's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """How often each group gets one answer."""

    label: str
    """The answer."""
    served: GroupGaps
    """Share of each group that is served this answer; reported, never judged: groups may differ in what they ask."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AttributeGaps:
    """One declared attribute on the judging rows."""

    attribute: str
    n: int
    """Judging rows."""
    n_gold: int
    """Those with a true label, on which errors are counted."""
    error: Origins | None
    """Wrong answers as served and the teacher's on the same rows; None where fewer than two groups have true labels."""
    fallback: GroupGaps | None
    """Share sent to the teacher; None where fewer than two groups have a row."""
    differ: GroupGaps | None
    """Share served otherwise than the teacher would answer."""
    selected: tuple[Selection, ...]
    absent: tuple[str, ...]
    """Groups of the traffic without a judging row that has a true label: nothing is shown of them."""
    verdict: Verdict
    """Of the error gaps, within the tolerance; undecided while a group is absent."""
    rows_needed: int | None = None
    """Where undecided: about how many more rows with true labels would show it at the rates seen; None: none would."""
    ratios: tuple[NamedRatio, ...] = ()
    """Lowest rate over highest: wrong answers, selected labels, and these where they are right and where they are not."""
    amplified: tuple[NamedAmplification, ...] = ()
    """Gaps beyond the teacher's on the same rows: of wrong answers, and of selected labels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupReport:
    """Every declared attribute."""

    attributes: tuple[AttributeGaps, ...]
    tolerance: float
    judged: bool
    """True where the owner set the tolerance: then the gate asks for it."""
    delta: float
    """Chance of a false pass, for each attribute; releasing asks for all of them, so it is also that of a false release."""
    candidate: str
    bars: DisparityBars = field(default_factory=DisparityBars)
    method: str = field(default="Clopper-Pearson at half the level on either side, Holm over ordered pairs")


def check_attributes(names: Sequence[str], values: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """
    Refuse attributes that can't be compared, before the sealed rows are opened for them.

    Args:
        names: attributes of [fairness] groups.
        values: attribute to the values that the labelled rows have.

    Returns: the values of each name.
    Raises: DataError for an attribute with fewer than two values, or more than 12.
    """
    for name in names:
        found = len(values.get(name, ()))
        if not 2 <= found <= MOST_GROUPS:
            raise DataError(
                f"[fairness] groups: attribute {name!r} has {found} values in the labelled rows, "
                f"from 2 to {MOST_GROUPS} can be compared",
                next_action="name an attribute of the traffic that cuts it into a few groups (`overproof show traffic`)",
            )
    return {name: tuple(values[name]) for name in names}


def compare_groups(
    plan: Plan,
    report: EvalReport,
    scores: tuple[Scores, ...],
    rows: TestSet,
    recipe: GroupRecipe,
    *,
    functions: Functions = NO_FUNCTIONS,
) -> GroupReport:
    """
    Compare groups on the rows that judged the bars, at the thresholds that were minted on the others.

    Args:
        plan: fixed before unsealing.
        report: the evaluation under that plan, with its thresholds.
        scores: of the sealed rows.
        rows: sealed rows, opened by the evaluation; no other row is read here.
        recipe: attributes, tolerance, ledger position.
        functions: "module:function" to the function, for slices that equality can't say.

    Returns: gaps with exact intervals. Only errors against gold are judged: where there is no true label, agreement
        with the teacher would call a teacher's bias fair.
    """
    sheet, requests = sheet_of(rows), [e.request for e in rows.examples]
    fresh = ~split_hash([r.id for r in requests], plan.salt, plan.certify_share) & drawn_for(rows, "")
    routed = certified_by(recipe.slices, one_for_all=plan.guarantee == "budget" and plan.moved == "alone")
    names = slice_names(rows, routed, functions)
    reading = reading_of(next(s for s in scores if s.name == plan.chosen), rows, plan.confidence, slices=names)
    column = np.array(names, dtype=object)
    kept = kept_by(report.certificate, reading, {name: column == name for name in (*(s.name for s in routed), OTHER)})
    served = np.where(kept, reading.answer, sheet.target)
    delta = ledger_delta(plan.delta, recipe.use_k)
    tolerance = TOLERANCE if recipe.tolerance is None else recipe.tolerance
    columns = {
        "fallback": ~kept,
        "differ": served != sheet.target,
        "known": sheet.has_gold,
        "wrong": served != sheet.gold,
        "teacher": sheet.target != sheet.gold,
        **{f"label {one}": served == rows.labels.index(one) for one in recipe.selected},
        **{f"teacher {one}": sheet.target == rows.labels.index(one) for one in recipe.selected},
        **{f"true {one}": sheet.gold == rows.labels.index(one) for one in recipe.selected},
    }
    found = []
    for name, values in recipe.values.items():
        group = np.array([r.attributes.get(name, MISSING) for r in requests], dtype=object)
        one = _attribute(name, values, group, columns, fresh=fresh, tolerance=tolerance, d=delta)
        expected = [*values, *([MISSING] if MISSING in group[fresh] else [])]
        found.append(replace(
            one, ratios=tuple(ratios(expected, group, columns, fresh, recipe.selected, bars=recipe.bars, d=delta)),
            amplified=tuple(amplifications(expected, group, columns, fresh, recipe.selected, bars=recipe.bars, d=delta)),
        ))  # fmt: skip
    return GroupReport(
        attributes=tuple(found), tolerance=tolerance, judged=recipe.tolerance is not None, delta=delta, candidate=plan.chosen,
        bars=recipe.bars,
    )  # fmt: skip


def _attribute(
    name: str, values: Sequence[str], group: NDArray[np.object_], columns: Mapping[str, Mask],
    *, fresh: Mask, tolerance: float, d: float,
) -> AttributeGaps:
    known = fresh & columns["known"]
    expected = [*values, *([MISSING] if MISSING in group[fresh] else [])]
    absent = tuple(v for v in expected if not bool(np.any(known & (group == v))))

    def gaps(column: str) -> GroupGaps | None:
        there = [v for v in expected if bool(np.any(fresh & (group == v)))]
        counts = [
            GroupCount(name=v, k=int((columns[column] & fresh & (group == v)).sum()), n=int((fresh & (group == v)).sum()))
            for v in there
        ]
        return group_gaps(counts, tolerance=tolerance, d=d) if len(counts) > 1 else None

    labels = [str(g) for g in group[known]]
    origins = None
    if len(set(labels)) > 1:
        origins = inherited_or_introduced(
            labels, columns["wrong"][known], columns["teacher"][known], tolerance=tolerance, d=d
        )
    verdict: Verdict = "undecided" if origins is None else origins.student.verdict
    if absent and verdict == "pass":
        verdict = "undecided"
    more = _more_rows(origins.student) if origins is not None and verdict == "undecided" else None
    return AttributeGaps(
        attribute=name,
        n=int(fresh.sum()),
        n_gold=int(known.sum()),
        error=origins,
        fallback=gaps("fallback"),
        differ=gaps("differ"),
        selected=tuple(
            Selection(label=column.removeprefix("label "), served=found)
            for column in columns if column.startswith("label ") and (found := gaps(column)) is not None
        ),
        absent=absent,
        verdict=verdict,
        rows_needed=more,
    )


def _more_rows(gaps: GroupGaps) -> int | None:
    """Rows beside those there are at which every pair would pass by Bonferroni at the rates seen: a cautious count."""
    if any(rate.n == 0 or rate.rate is None for rate in gaps.rates):
        return None
    d = gaps.delta / len(gaps.pairs)

    def enough(factor: float) -> bool:
        # fractions of a row are rounded to the side that asks for more rows
        uppers = [cp_upper(math.ceil(r.k * factor), math.floor(r.n * factor), d / 2.0) for r in gaps.rates]
        lowers = [cp_lower(math.floor(r.k * factor), math.ceil(r.n * factor), d / 2.0) for r in gaps.rates]
        return all(
            u - low <= gaps.tolerance for i, u in enumerate(uppers) for j, low in enumerate(lowers) if i != j
        )

    high = 2.0
    while not enough(high):
        high *= 2.0
        if high > MOST_FACTOR:
            return None
    low = high / 2.0
    while high - low > 0.01 * high:
        middle = (low + high) / 2.0
        low, high = (low, middle) if enough(middle) else (middle, high)
    return max(1, math.ceil((high - 1.0) * sum(r.n for r in gaps.rates)))


def gap_words(pair: GroupGap, gaps: GroupGaps, what: str) -> str:
    """
    A gap in words.

    Args:
        pair: one of the pairs.
        gaps: where it stands.
        what: what the rate counts, for example "wrong".

    Returns: for example "'de' is wrong 12.0% (8.1% to 17.0%, n = 210), 'en' 4.0% (…): 8.0 points more, 2.1 to 14.2".
    """
    rates = {rate.name: rate for rate in gaps.rates}
    one, other = (
        f"{name!r} {'–' if rates[name].rate is None else format(rates[name].rate, '.1%')} "
        f"({rates[name].low:.1%} to {rates[name].high:.1%}, n = {rates[name].n:,})"
        for name in (pair.group, pair.than)
    )
    size = "unknown" if pair.gap is None else f"{100 * pair.gap:+.1f} points"
    return f"{what}: {one}, {other}: {size}, {100 * pair.low:+.1f} to {100 * pair.high:+.1f}"


def gap_answers(report: GroupReport) -> tuple[Answer, ...]:
    """
    The gate's word on each attribute.

    Args:
        report: with a tolerance of the owner's.

    Returns: one answer for each attribute.
    """
    return tuple(_answer(one, report) for one in report.attributes)


def _answer(one: AttributeGaps, report: GroupReport) -> Answer:
    limit = f"{100 * report.tolerance:.3g} point(s)"
    if one.error is None:
        todo = "have a person answer at least 100 of the newest requests of each group, and import them as gold"
        return Answer(
            outcome="not-run", reason=f"{one.attribute}: fewer than two groups have rows with true labels", todo=todo
        )
    gaps = one.error.student
    worst = next((p for p in gaps.pairs if p.verdict == one.verdict), gaps.pairs[0])
    words = gap_words(worst, gaps, "wrong as served")
    outcomes: dict[Verdict, Outcome] = {"pass": "pass", "fail": "fail", "undecided": "not-run"}
    outcome = outcomes[one.verdict]
    if one.verdict == "pass":
        return Answer(outcome=outcome, reason=f"{one.attribute}: no group is wrong over {limit} more often than another; {words}")
    if one.verdict == "fail":
        origin = next(o for o in one.error.groups if o.group == worst.group)
        whose = {
            "inherited": "the teacher shows the gap too: mend the prompt or the teacher for this group",
            "introduced": "the student errs more than the teacher there: teach more rows of this group, or keep less of it",
            "inherited and introduced": "the teacher shows a gap, and the student adds to it: mend the teacher first",
        }.get(origin.origin, "whose gap it is can't be told yet: teach more rows of this group, then look again")
        reason = f"{one.attribute}: a group is wrong over {limit} more often than another; {words}"
        return Answer(outcome=outcome, reason=f"{reason}; origin: {origin.origin}", todo=whose)
    lacking = f"; no judging row with a true label: {', '.join(map(repr, one.absent))}" if one.absent else ""
    reason = f"{one.attribute}: not enough data to tell whether a group is wrong over {limit} more often; {words}{lacking}"
    if one.absent:
        todo = f"add true labels for {', '.join(map(repr, one.absent))}"
    elif one.rows_needed is not None:
        todo = f"add true labels to about {one.rows_needed:,} more judging rows, in the same mix of groups"
    else:
        todo = "no number of rows would show it at the rates seen: teach more rows of the worse group"
    return Answer(outcome=outcome, reason=reason, todo=f"{todo}, or raise [fairness] tolerance with a reason")


GROUPS = Step(name="groups", version=2, fn=compare_groups)
