"""Reported slices of the sealed rows: which rows each holds, what is asked there, and one candidate's figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from overproof.data import TestSet
from overproof.evidence import Figure, SliceReport, Verdict
from overproof.measure.intervals import figure, judge
from overproof.measure.leakage import novelty_bins
from overproof.measure.scores import two_by_two
from overproof.measure.slices import Functions, assign
from overproof.steps.boost import drawn_for
from overproof.steps.calibrate import Reading, Sheet
from overproof.steps.plan import bars_of, least_familiar, near_under
from overproof.task import Bar, Slice

Mask = NDArray[np.bool_]
SliceKind = Literal["all", "attribute", "label", "novelty"]


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
    base: Mask | None = None
    """The fair draw: rows that speak for all traffic; None: all. The others count in the slices they were drawn for."""

    @property
    def fair(self) -> Mask:
        """Shape (n,): the fair draw."""
        return np.ones(len(self.judge), dtype=bool) if self.base is None else self.base

    def budget(self, metric: str) -> float:
        """The error budget of a metric: gold has a ledger of its own."""
        return self.delta if metric == "fidelity" or self.delta_gold is None else self.delta_gold


def groups_of(
    rows: TestSet,
    slices: Sequence[Slice],
    bars: tuple[Bar, ...],
    functions: Functions,
    *,
    novelty_below: float | None = None,
) -> tuple[Group, ...]:
    """
    Everything that is reported apart: all rows, named slices, familiarity, each label.

    Args:
        rows: sealed rows.
        slices: in file order.
        bars: overall ones.
        functions: "module:function" to the function, for slices that equality can't say.
        novelty_below: edge of the least familiar slice, which has the overall bars and is critical; None: no such slice.

    Returns: "all" first. A row's label is the true one where known, else the teacher's.
    """
    n = len(rows.examples)
    labels = [e.target if e.gold is None else e.gold for e in rows.examples]
    member = assign(slices, [e.request for e in rows.examples], labels, functions=functions)
    found = [_group("all", "all", np.ones(n, dtype=bool), bars)]
    for i, one in enumerate(slices):
        kind: SliceKind = "label" if one.reads_label else "attribute"
        found.append(_group(one.name, kind, member[:, i], bars_of(one.bars, bars), critical=one.critical))
    near = np.array([np.nan if e.near_train is None else e.near_train for e in rows.examples])
    if not np.isnan(near).all():
        if novelty_below is not None:
            found.append(_group(least_familiar(novelty_below), "novelty", near_under(near, novelty_below), bars, critical=True))
        bins = novelty_bins(near)
        found += [
            _group(f"familiarity {name}", "novelty", bins.index == i, ())
            for i, name in enumerate(bins.names)
            if novelty_below is None or f"familiarity {name}" != least_familiar(novelty_below)
        ]
    named = {one.where for one in slices}
    column = np.array(labels)
    found += [
        _group(label, "label", column == label, ())
        for label in rows.labels
        if (("label", (label,)),) not in named  # the project's own slice says the same, with bars
    ]
    found = [replace(g, mask=g.mask & drawn_for(rows, g.name)) for g in found]
    return tuple(g for g in found if g.mask.any() or g.kind in ("all", "attribute") or g.bars)


def _group(name: str, kind: SliceKind, mask: Mask, bars: tuple[Bar, ...], *, critical: bool = False) -> Group:
    return Group(name=name, kind=kind, critical=critical, mask=mask, bars={b.metric: b for b in bars})


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
