"""What counts alone say of thresholds that move together, or that several planned looks have seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from overproof.evidence import Certificate, Figure, LookCounts, Moved, SliceCertificate, SlicePlan
from overproof.measure.certify import Counts
from overproof.measure.intervals import expected_rate, figure, rows_needed
from overproof.measure.looks import SliceLook, budget_looks, certify_looks, look_shares
from overproof.measure.paths import KEEP_NONE, settle_path

REBUILT = ("threshold", "verdict", "kept", "wrong", "delta", "upper", "passed_at")


@dataclass(frozen=True, kw_only=True, slots=True)
class Walk:
    """How the thresholds of one certificate were certified."""

    moved: Moved
    """Each slice by itself, all or none, or by cost."""
    budget: bool
    """Whether kept and wrong over all requests is bounded, else wrong among kept."""
    delta: float
    """Error budget of this use, all looks together."""
    looks: int
    """Looks planned."""

    @property
    def deltas(self) -> list[float]:
        """The error budget of each planned look."""
        return [self.delta * share for share in look_shares(self.looks)]


def is_joint(certificate: Certificate) -> bool:
    """
    Whether this room rebuilds the certificate: slices moved together, or more than one look was planned.

    Args:
        certificate: any certificate.

    Returns: False for one look at slices that moved by themselves.
    """
    return certificate.moved != "alone" or certificate.looks > 1


def opened(plan: SlicePlan, counts: Counts, n: int, earlier: tuple[LookCounts, ...]) -> SliceCertificate:
    """
    A slice before its test: counted, nothing kept.

    Args:
        plan: its grid and start.
        counts: (wrong, kept) at each grid point, all rows so far.
        n: rows so far.
        earlier: what earlier looks saw.

    Returns: the slice without a threshold.
    """
    return SliceCertificate(
        slice=plan.slice, alpha=plan.alpha, delta=0.0, threshold=None, n=n, kept=0, wrong=0, upper=1.0,
        keep_share=figure(0, n, metric="kept"), verdict="undecided", counts=counts, grid=plan.grid, start=plan.start,
        weight=plan.weight, earlier=earlier,
    )  # fmt: skip


def settle(parts: Sequence[SliceCertificate], walk: Walk) -> tuple[SliceCertificate, ...]:
    """
    The outcome for every slice from its counts, whatever else is stated.

    Args:
        parts: grids, starts, weights and counts of this look and of earlier ones.
        walk: how they were certified.

    Returns: one certificate for each part, in order.
    Raises: MeasureError where the numbers don't belong together.
    """
    if walk.budget:
        return _under_budget(parts, walk)
    if walk.moved == "all":
        return settle_path(parts, walk.deltas).slices
    plans = [
        SlicePlan(slice=p.slice, alpha=p.alpha, weight=p.weight, grid=p.grid, start=p.start, dev_n=0, dev_keep=0.0, dev_error=1.0)
        for p in parts
    ]
    found = certify_looks(plans, {p.slice: _looks(p) for p in parts}, walk.delta, shares=look_shares(walk.looks))
    return tuple(
        replace(
            part, delta=one.delta, threshold=one.threshold, kept=one.kept, wrong=one.wrong, upper=one.upper,
            keep_share=one.keep_share, verdict=one.verdict, passed_at=one.look or 1,
            rows_needed=_needed(part, walk) if one.verdict == "undecided" else None,
        )
        for part, one in zip(parts, found, strict=True)
    )  # fmt: skip


def _looks(part: SliceCertificate) -> list[SliceLook]:
    return [SliceLook(n=n, counts=counts) for n, counts in (*((e.n, e.counts) for e in part.earlier), (part.n, part.counts))]


def _needed(part: SliceCertificate, walk: Walk) -> int | None:
    """Rows that would pass at the next planned look, or at this one's level where none is left."""
    at = min(len(part.earlier) + 1, walk.looks - 1)
    d, (wrong, kept) = walk.deltas[at] * part.weight, part.counts[part.start]
    if not 0.0 < part.alpha < 1.0 or not 0.0 < d < 1.0 or not kept:
        return None
    total = rows_needed(part.alpha, expected_rate(wrong, kept, part.alpha), d)
    return None if total is None else max(1, math.ceil(total * part.n / kept) - part.n)


def _under_budget(parts: Sequence[SliceCertificate], walk: Walk) -> tuple[SliceCertificate, ...]:
    """One budget over all slices: the counts add, and every threshold stands at the same point."""
    by_part = [_looks(part) for part in parts]
    whole = [
        SliceLook(
            n=sum(look.n for look in looks),
            counts=tuple((sum(w for w, _ in pairs), sum(k for _, k in pairs)) for pairs in zip(*(look.counts for look in looks), strict=True)),
        )
        for looks in zip(*by_part, strict=True)
    ]
    found = budget_looks(whole, parts[0].alpha, walk.deltas)
    done = []
    for part, looks in zip(parts, by_part, strict=True):
        at, upper = found.point, found.upper if whole[-1].n else 1.0
        threshold = None if at is None or part.grid[at] >= KEEP_NONE else part.grid[at]
        wrong, kept = (0, 0) if at is None else looks[(found.look or 1) - 1].counts[at]
        share = figure(0 if at is None else part.counts[at][1], part.n, metric="kept")
        done.append(
            replace(
                part, delta=math.fsum(walk.deltas), threshold=threshold, kept=kept, wrong=wrong, upper=upper, keep_share=share,
                verdict=found.verdict, passed_at=found.look or 1, rows_needed=None,
            )
        )  # fmt: skip
    return tuple(done)


def walk_differences(certificate: Certificate) -> tuple[str, ...]:
    """
    Rebuild every bound and threshold of a joint certificate from its counts alone.

    Args:
        certificate: one that `is_joint`.

    Returns: one sentence for each difference; empty where the certificate says what its counts say.
    """
    parts = certificate.slices
    if not parts:
        return ("the certificate has no slices",)
    if not 1 <= certificate.look <= certificate.looks or any(len(p.earlier) + 1 != certificate.look for p in parts):
        return (f"look {certificate.look} of {certificate.looks} doesn't fit the looks that the slices have seen",)
    if problems := [line for part in parts for line in _problems(part)]:
        return tuple(problems)
    budget = certificate.supports == "G2"
    if len({len(p.grid) for p in parts}) > 1 and certificate.moved != "alone":
        return ("slices that move together have one number of points each",)
    if budget and (len({p.alpha for p in parts}) > 1 or (certificate.moved == "alone" and len(parts) > 1)):
        return ("a budget is one number for all traffic",)
    total = math.fsum(p.weight for p in parts)
    if certificate.moved == "alone" and abs(total - 1.0) > 1e-9:
        return (f"the weights of the slices sum to {total!r}, not to 1",)
    walk = Walk(moved=certificate.moved, budget=budget, delta=certificate.delta_spent, looks=certificate.looks)
    again = settle(parts, walk)
    return tuple(
        f"slice {old.slice!r}: {name} is stated as {getattr(old, name)!r}, its counts give {getattr(new, name)!r}"
        for old, new in zip(parts, again, strict=True)
        for name in (*REBUILT, "keep_share")
        if not _same(getattr(old, name), getattr(new, name))
    )


def _problems(part: SliceCertificate) -> list[str]:
    """What makes a slice's own numbers impossible."""
    found = []
    looks = _looks(part)
    if not part.grid or not 0 <= part.start < len(part.grid) or any(len(look.counts) != len(part.grid) for look in looks):
        return [f"slice {part.slice!r}: grid, counts and start don't belong together"]
    for look in looks:
        pairs = [(0, 0), *look.counts]
        if any(not (a <= c and b <= d and c <= d) for (a, b), (c, d) in pairwise(pairs)) or pairs[-1][1] > look.n:
            found.append(f"slice {part.slice!r}: counts must grow along the grid with wrong <= kept <= rows")
    for before, after in pairwise(looks):
        pairs_of = zip(before.counts, after.counts, strict=True)
        if before.n > after.n or any(a > b for old, new in pairs_of for a, b in zip(old, new, strict=True)):
            found.append(f"slice {part.slice!r}: a later look has fewer rows than the one before")
    return found


def _same(stated: object, given: object) -> bool:
    if isinstance(stated, float) and isinstance(given, float):
        return math.isclose(stated, given, rel_tol=1e-9, abs_tol=1e-12)
    if isinstance(stated, Figure) and isinstance(given, Figure):
        ends = _same(stated.low, given.low) and _same(stated.high, given.high) and _same(stated.value, given.value)
        return (stated.good, stated.n) == (given.good, given.n) and ends
    return stated == given
