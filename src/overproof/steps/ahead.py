"""What more sealed rows would bring to the chosen student, what it saves, and what the next use of the rows costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from overproof.evidence import (
    CandidateReport,
    Certificate,
    EvalReport,
    MoneySaved,
    MoreRows,
    NextUse,
    Outlook,
    Plan,
    SlicePlan,
)
from overproof.measure.certify import Counts, grid_counts
from overproof.measure.outlook import (
    KeepOutlook,
    keep_all_or_none,
    keep_with_more_rows,
    keep_within_budget,
    rows_for_reuse,
    saving,
)
from overproof.steps.calibrate import Reading, Sheet
from overproof.steps.joint import counts_on, path_of

TIMES = (1, 2, 4, 10)
THOUSAND = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class DevCounts:
    """What the calibration rows of one certification slice show of the chosen student."""

    slice: str
    n: int
    """Rows with a label of the kind that ships."""
    counts: Counts
    """(wrong, kept) at each point of the plan's grid."""


def dev_counts(plan: Plan, reading: Reading, sheet: Sheet, cells: Mapping[str, NDArray[np.bool_]]) -> tuple[DevCounts, ...]:
    """
    Count the chosen student's calibration rows at the planned thresholds.

    Args:
        plan: grids and label kind.
        reading: its answers to the calibration rows.
        sheet: their labels.
        cells: certification slice to its rows; disjoint.

    Returns: one entry for each planned slice.
    """
    gold = plan.label_kind == "gold"
    wrong = reading.answer != (sheet.gold if gold else sheet.target)
    path = path_of(plan.slices) if plan.moved != "alone" else None
    found = []
    for one in plan.slices:
        mask = cells[one.slice] & sheet.has_gold if gold else cells[one.slice]
        at, bad = reading.confidence[mask], wrong[mask]
        counts = grid_counts(at, bad, one.grid) if path is None else counts_on(path, one.slice, at, bad)
        found.append(DevCounts(slice=one.slice, n=int(mask.sum()), counts=counts))
    return tuple(found)


def outlook_of(report: EvalReport, plan: Plan, dev: Sequence[DevCounts], *, requests_per_month: float | None) -> Outlook:
    """
    Look ahead from calibration rows, and price what is there.

    Args:
        report: with the certificate that ships.
        plan: that it was certified under.
        dev: one entry for each planned slice.
        requests_per_month: traffic volume; None where not known.

    Returns: the outlook.
    """
    certificate = report.certificate
    chosen = next(c for c in report.candidates if c.name == report.chosen)
    teacher = next((c for c in report.candidates if c.kind == "teacher"), None)
    delta, k = plan.delta, certificate.use_k
    priced = teacher is not None and teacher.cost_usd_per_1000 > 0
    return Outlook(
        more=tuple(_more(plan.slices, dev, certificate, times) for times in TIMES),
        saved=_saved(chosen, teacher, requests_per_month) if teacher is not None and priced else None,
        next_use=tuple(
            NextUse(
                slice=p.slice,
                use_k=k + 1,
                rows=rows_for_reuse(p.alpha, delta, k + 1, weight=p.weight),
                now=rows_for_reuse(p.alpha, delta, k, weight=p.weight),
            )
            for p in plan.slices
            if p.weight > 0.0
        ),
        n=sum(one.n for one in dev),
    )


def _more(plans: Sequence[SlicePlan], dev: Sequence[DevCounts], certificate: Certificate, times: int) -> MoreRows:
    rows = {part.slice: part.n * times for part in certificate.slices}
    some = [(p, d) for p, d in zip(plans, dev, strict=True) if d.n and rows[p.slice]]
    total, seen = sum(rows.values()), sum(d.n for d in dev)
    if not some:
        return MoreRows(times=times, rows=total, keep=0.0, chance=0.0)
    delta = certificate.delta_spent
    if certificate.moved == "all":
        counts, sizes, alphas = [d.counts for _, d in some], [d.n for _, d in some], [p.alpha for p, _ in some]
        found = keep_all_or_none(counts, sizes, alphas=alphas, d=delta, factors=(total / seen,))[0]
    elif certificate.supports == "G2":
        whole = tuple((sum(w for w, _ in at), sum(k for _, k in at)) for at in zip(*(d.counts for _, d in some), strict=True))
        found = keep_within_budget(whole, seen, budget=plans[0].alpha, d=delta, rows=(total,))[0]
    else:
        each = [
            (d.n / seen, keep_with_more_rows(d.counts, d.n, alpha=p.alpha, d=delta * p.weight, rows=(rows[p.slice],))[0])
            for p, d in some
            if p.weight > 0.0
        ]
        found = KeepOutlook(
            rows=total,
            keep=sum(share * one.keep for share, one in each),
            chance=1.0 - math.prod(1.0 - one.chance for _, one in each),
        )
    return MoreRows(times=times, rows=total, keep=found.keep, chance=found.chance)


def _saved(chosen: CandidateReport, teacher: CandidateReport, requests_per_month: float | None) -> MoneySaved | None:
    kept = chosen.slices[0].kept
    if kept is None:
        return None
    monthly = requests_per_month is not None
    requests = round(requests_per_month) if requests_per_month is not None else THOUSAND
    found = saving(
        kept,
        requests,
        teacher_usd=teacher.cost_usd_per_1000 / THOUSAND,
        student_usd=0.0,
        audit_usd=requests * chosen.cost_usd_per_1000 / THOUSAND,  # the student reads every request, kept or not
    )
    return MoneySaved(
        value_usd=found.value_usd, low_usd=found.low_usd, high_usd=found.high_usd, requests=requests, monthly=monthly, n=kept.n
    )


def outlook_lines(report: EvalReport) -> tuple[str, ...]:
    """
    The outlook's money and its price of another use, in sentences.

    Args:
        report: any report.

    Returns: sentences; none where there is no outlook.
    """
    ahead = report.outlook
    if ahead is None:
        return ()
    lines = []
    if (saved := ahead.saved) is not None and saved.value_usd is not None:
        unit = f"a month ({saved.requests:,} requests)" if saved.monthly else f"for {saved.requests:,} requests"
        lines.append(
            f"saves {saved.value_usd:,.2f} USD {unit} against the teacher alone: {saved.low_usd:,.2f} to {saved.high_usd:,.2f} "
            f"at the ends of the kept share's interval (n = {saved.n:,}), prices as configured"
        )
    if ahead.next_use:
        worst = max(ahead.next_use, key=lambda one: one.rows)
        what = "rows" if report.certificate.supports == "G2" else "kept rows"
        lines.append(
            f"use {worst.use_k} of these sealed rows would take at least {worst.rows:,} {what} without an error "
            f"in {worst.slice!r}, this use takes {worst.now:,}; a true error above zero takes several times as many"
        )
    return tuple(lines)
