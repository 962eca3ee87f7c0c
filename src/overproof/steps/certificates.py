"""Certificates: walked on the certify rows, checked from their own counts, said in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from overproof.evidence import Certificate, EvalReport, Figure, LookCounts, Plan, SliceCertificate, SlicePlan
from overproof.measure.certify import certify_budget, certify_slices, grid_counts, recompute
from overproof.measure.intervals import cp_upper, figure, verdict_of
from overproof.steps.calibrate import Reading, Sheet
from overproof.steps.comparisons import comparison_differences
from overproof.steps.joint import counts_on, path_of
from overproof.steps.walks import Walk, is_joint, opened, settle, walk_differences

Mask = NDArray[np.bool_]
GOLD = "gold"

ASSUMPTIONS = (
    "The sealed rows are an independent draw from the traffic of the window named, one request per session.",
    "Student, calibration, grids, slices and bars were fixed before any label of a sealed row was read.",
    "Labels are what this certificate names: gold, or the teacher's own answers.",
    "Earlier uses of these sealed rows showed verdicts and counts, never rows.",
    "Nothing is said about traffic that differs from that window; hence the end date.",
)
PARTLY_KNOWN = "The rows with a true label are a random part of the sealed rows; nobody chose which rows to answer."


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a certificate stands: which rows, which use of them, until when."""

    plan_hash: str
    """Digest of the plan that the ledger holds."""
    sealed_digest: str
    """Digest of the sealed rows."""
    use_k: int
    """Which use of these rows under this label kind, from 1."""
    delta: float
    """Error budget of this use."""
    window: tuple[str | None, str | None]
    """First and last time of the traffic."""
    expires: str
    """ISO date."""
    look: int = 1
    """Which planned look this is, from 1."""
    earlier: Mapping[str, tuple[LookCounts, ...]] = field(default_factory=dict)
    """Certification slice to what earlier looks saw under this label kind."""


def certify(
    plan: Plan,
    reading: Reading,
    sheet: Sheet,
    cells: Mapping[str, Mask],
    place: Place,
    *,
    label_kind: str,
) -> Certificate:
    """
    Walk the planned thresholds on the certify rows against one kind of label.

    Args:
        plan: grids, starts and shares of the budget.
        reading: the chosen candidate's sealed answers.
        sheet: sealed labels.
        cells: certification slice to its certify rows.
        place: ledger position, window, end date.
        label_kind: the plan's own, or its `other_label`.

    Returns: the certificate; slices without a threshold stay on the teacher.
    """
    gold = label_kind == GOLD
    truth = sheet.gold if gold else sheet.target
    plans = plan.slices if label_kind == plan.label_kind else plan.other_slices
    counted = {p.slice: cells[p.slice] & sheet.has_gold if gold else cells[p.slice] for p in plans}
    wrong = reading.answer != truth
    budget = plan.guarantee == "budget"
    scores = {name: reading.score[mask] for name, mask in counted.items()}
    errors = {name: wrong[mask] for name, mask in counted.items()}
    if plan.moved != "alone" or plan.looks > 1:
        parts = _walked(plan, plans, scores, errors, place)
    elif budget:
        parts = tuple(_budgeted(p, scores[p.slice], errors[p.slice], place.delta) for p in plans)
    else:
        parts = certify_slices(plans, scores, errors, place.delta)
    partly = gold and not bool(sheet.has_gold.all())
    return Certificate(
        plan_hash=place.plan_hash,
        sealed_digest=place.sealed_digest,
        label_kind=label_kind,
        use_k=place.use_k,
        delta_spent=place.delta,
        slices=parts,
        assumptions=(*ASSUMPTIONS, *((PARTLY_KNOWN,) if partly else ())),
        window=place.window,
        expires=place.expires,
        supports="G2" if budget else "G1" if gold else "G4",
        fixed=dict(plan.digests),
        moved=plan.moved,
        left_out=plan.left_out,
        look=place.look,
        looks=plan.looks,
    )


def _walked(
    plan: Plan,
    plans: Sequence[SlicePlan],
    scores: Mapping[str, NDArray[np.float64]],
    errors: Mapping[str, Mask],
    place: Place,
) -> tuple[SliceCertificate, ...]:
    """Slices that move together, or that are looked at more than once: counted here, settled from the counts alone."""
    path = path_of(plans) if plan.moved != "alone" else None
    parts = []
    for p in plans:
        at, bad = scores[p.slice], errors[p.slice]
        counts = grid_counts(at, bad, p.grid) if path is None else counts_on(path, p.slice, at, bad)
        unknown = (LookCounts(n=0, counts=((0, 0),) * len(p.grid)),) * (place.look - 1)  # a look that nobody kept passed nothing
        parts.append(opened(p, counts, len(at), place.earlier.get(p.slice, unknown)))
    walk = Walk(moved=plan.moved, budget=plan.guarantee == "budget", delta=place.delta, looks=plan.looks)
    return settle(parts, walk)


def _budgeted(plan: SlicePlan, scores: NDArray[np.float64], wrong: Mask, delta: float) -> SliceCertificate:
    """All traffic as one part: kept and wrong against all of its rows."""
    empty = len(scores) == 0
    counts = grid_counts(scores, wrong, plan.grid)
    found = certify_budget(scores, wrong, plan.grid, budget=plan.alpha, delta=delta)
    return SliceCertificate(
        slice=plan.slice,
        alpha=plan.alpha,
        delta=delta,
        threshold=found.threshold,
        n=found.n,
        kept=found.kept,
        wrong=found.wrong,
        upper=1.0 if empty else found.upper,
        keep_share=found.keep_share,
        verdict="undecided" if empty else found.verdict,
        counts=counts,
        grid=plan.grid,
        start=0,
        weight=1.0,
    )


def kept_by(certificate: Certificate, reading: Reading, cells: Mapping[str, Mask]) -> Mask:
    """
    The rows that the student answers as served.

    Args:
        certificate: a threshold per slice, or none.
        reading: the student's answers.
        cells: certification slice to its rows; disjoint.

    Returns: shape (n,); what is out of scope, or has no number for a confidence, is never kept.
    """
    kept = np.zeros(len(reading.answer), dtype=bool)
    for one in certificate.slices:
        if one.threshold is not None:
            kept |= cells[one.slice] & (reading.score >= one.threshold)  # NaN is not >= anything
    return kept


def differences(certificate: Certificate) -> tuple[str, ...]:
    """
    Rebuild every bound and threshold of a certificate of any guarantee from its counts alone.

    Args:
        certificate: with grid and counts.

    Returns: one sentence for each difference; empty where the certificate says what its counts say.
    """
    if is_joint(certificate):
        return walk_differences(certificate)
    if certificate.supports != "G2":
        return recompute(certificate)
    if len(certificate.slices) != 1:
        return (f"a budget is of all traffic; the certificate has {len(certificate.slices)} slices",)
    part, delta = certificate.slices[0], certificate.delta_spent
    pairs = [(0, 0), *part.counts]
    grows = all(a <= c and b <= d and c <= d for (a, b), (c, d) in pairwise(pairs))
    if not grows or not part.counts or len(part.counts) != len(part.grid) or part.counts[-1][1] > part.n:
        return ("the counts must grow along the grid, with wrong <= kept <= rows, one pair for each threshold",)
    last = -1
    while last + 1 < len(part.grid) and cp_upper(part.counts[last + 1][0], part.n, delta) <= part.alpha:
        last += 1
    wrong, kept = part.counts[last] if last >= 0 else (0, 0)
    again = {
        "delta": delta, "threshold": part.grid[last] if last >= 0 else None, "kept": kept, "wrong": wrong,
        "upper": cp_upper(wrong, part.n, delta), "keep_share": figure(kept, part.n, metric="kept"),
        "verdict": "pass" if last >= 0 else verdict_of(part.counts[0][0], part.n, part.alpha, delta),
    }  # fmt: skip
    return tuple(
        f"slice {part.slice!r}: {name} is stated as {getattr(part, name)!r}, its counts give {given!r}"
        for name, given in again.items()
        if not _same(getattr(part, name), given)
    )


def _same(stated: object, given: object) -> bool:
    if isinstance(stated, float) and isinstance(given, float):
        return math.isclose(stated, given, rel_tol=1e-9, abs_tol=1e-12)
    if isinstance(stated, Figure) and isinstance(given, Figure):
        return (stated.good, stated.n) == (given.good, given.n) and _same(stated.low, given.low)
    return stated == given


def figure_differences(figures: Sequence[Figure]) -> tuple[str, ...]:
    """
    Intervals that are not what their own counts give.

    Args:
        figures: of any metric.

    Returns: one sentence for each difference.
    """
    found = []
    for one in figures:
        again = figure(one.good, one.n, metric=one.metric, level=one.level)
        found += [
            f"{one.metric} {one.good} of {one.n}: {end} is stated as {getattr(one, end)!r}, the counts give {value!r}"
            for end, value in (("low", again.low), ("high", again.high))
            if not _same(getattr(one, end), value)
        ]
    return tuple(found)


def report_differences(report: EvalReport) -> tuple[str, ...]:
    """
    Rebuild everything that a report's verdict stands on, offline: certificates, intervals as served, paired tests.

    Args:
        report: any report.

    Returns: one sentence for each difference; empty where every number follows from its counts.
    """
    chosen = next(c for c in report.candidates if c.name == report.chosen)
    figures = [
        f for s in chosen.slices for f in (s.fidelity, s.accuracy, s.served_fidelity, s.served_accuracy, s.kept) if f
    ]
    both = [c for c in (report.certificate, report.other) if c is not None]
    tests = [t for t in (report.noninferiority, report.superiority) if t is not None]
    return (
        *(f"certificate ({c.label_kind}): {line}" for c in both for line in differences(c)),
        *figure_differences(figures),
        *(line for t in tests for line in comparison_differences(t)),
    )


def certified_parts(certificate: Certificate) -> list[SliceCertificate]:
    """
    What the student may answer.

    Args:
        certificate: any certificate.

    Returns: the parts that have a threshold and kept rows.
    """
    return [s for s in certificate.slices if s.threshold is not None and s.kept > 0]


def whole_traffic(certificate: Certificate) -> bool:
    """
    Whether one threshold holds for all traffic.

    Args:
        certificate: any certificate.

    Returns: True for a budget that was not spent slice by slice.
    """
    return certificate.supports == "G2" and certificate.moved != "cost"


def walk_words(certificate: Certificate) -> str:
    """
    How the thresholds moved, and which look this is.

    Args:
        certificate: any certificate.

    Returns: sentences; empty for one look at slices that moved by themselves.
    """
    said = []
    if certificate.moved == "all":
        said.append(
            f"All {len(certificate.slices)} certification slices or none: every one passed at one point of a path fixed "
            "before unsealing, or nothing ships; so the error budget is not split between them."
        )
    if certificate.moved == "cost":
        said.append(
            "One budget over all requests: thresholds of the slices moved in the order of money saved per expected error, "
            "fixed before unsealing; the bound is of all slices together."
        )
    if certificate.left_out:
        said.append(f"Left with the teacher for want of a calibration row: {', '.join(certificate.left_out)}.")
    if certificate.looks > 1:
        left = certificate.looks - certificate.look
        more = f"{left} more can follow on the same plan as labels arrive" if left else "another look is a new use of these rows"
        said.append(f"Look {certificate.look} of {certificate.looks} planned ones, which share the error budget; {more}.")
    return " ".join(said)


def part_words(part: SliceCertificate, certificate: Certificate) -> str:
    """
    One certified part in words that say what was counted, never more.

    Args:
        part: with a threshold.
        certificate: that it belongs to.

    Returns: a clause with counts, bound and bar.
    """
    what = "wrong against gold" if certificate.label_kind == GOLD else "unlike the teacher"
    tail = f"upper bound {part.upper:.1%}, bar {part.alpha:.1%}"
    if certificate.supports == "G2" and certificate.moved == "cost":
        return f"{part.slice}: {part.wrong} of {part.n:,} requests are kept and {what}; over all slices {tail}"
    if certificate.supports == "G2":
        return f"{part.wrong} of all {part.n:,} requests are kept and {what}, {tail}"
    return f"{part.slice}: {part.wrong} of {part.kept:,} kept are {what}, {tail}"


def other_words(report: EvalReport) -> str:
    """
    The second certificate in one sentence.

    Args:
        report: any report.

    Returns: what it says of the thresholds that are shipped, or why there is none.
    """
    if report.other is None:
        return report.truth_note
    kind = "correctness, against gold" if report.other.label_kind == GOLD else "agreement with the teacher"
    shipped = {s.slice: s.threshold for s in certified_parts(report.certificate)}
    covered = [s for s in report.other.slices if covers(s, shipped.get(s.slice))]
    if not shipped:
        return f"certificate of {kind}: nothing is kept, so nothing is said"
    if len(covered) == len(shipped):
        return f"certificate of {kind}: holds at every shipped threshold too"
    open_ = ", ".join(sorted(set(shipped) - {s.slice for s in covered}))
    needed = [s.rows_needed for s in report.other.slices if s.rows_needed and s.slice in shipped]
    more = f"; about {max(needed):,} more rows with such a label would decide" if needed else ""
    return f"certificate of {kind}: not shown at the shipped threshold of {open_}{more}"


def covers(part: SliceCertificate, threshold: float | None) -> bool:
    """
    Whether a threshold is among those that a certificate's walk has passed.

    Args:
        part: a certified slice, or one without a threshold.
        threshold: of the same grid; None: nothing is kept.

    Returns: True iff it lies between the start of the walk and its end: all those points hold at once.
    """
    if threshold is None or part.threshold is None or threshold not in part.grid:
        return False
    return part.start <= part.grid.index(threshold) <= part.grid.index(part.threshold)




def uses_of(report: EvalReport) -> int:
    """
    How worn the sealed rows are.

    Args:
        report: any report.

    Returns: the largest count of uses over both label kinds.
    """
    return max(c.use_k for c in (report.certificate, report.other) if c is not None)


def fresh_draw(report: EvalReport) -> str:
    """
    What to do about worn sealed rows, with its price.

    Args:
        report: any report.

    Returns: a clause: rows to draw (as many as there are, and what is still needed) and what the teacher asks for them.
    """
    needed = [s.rows_needed for s in report.certificate.slices if s.rows_needed]
    rows = report.n_test + max(needed, default=0)
    teacher = next((c for c in report.candidates if c.kind == "teacher"), None)
    price = teacher.cost_usd_per_1000 / 1000 if teacher is not None else 0.0
    cost = f"about {rows * price:,.2f} USD at {price:.2g} USD a label" if price > 0 else "at a price that is not known"
    return f"draw a fresh sealed set from newer traffic: {rows:,} rows, {cost}"
