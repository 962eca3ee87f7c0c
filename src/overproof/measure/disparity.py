"""Ratios of rates between groups, and gaps of a student beyond its teacher's on the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from overproof.errors import MeasureError
from overproof.evidence import Verdict
from overproof.measure.groups import GroupCount, GroupRate
from overproof.measure.intervals import cp_interval, cp_lower, cp_upper
from overproof.measure.paired import difference_bounds


@dataclass(frozen=True, kw_only=True, slots=True)
class RateRatio:
    """The lowest rate of any group over the highest: 1 where all are alike."""

    rates: tuple[GroupRate, ...]
    """One for each group, in the order given."""
    ratio: float | None
    """Of the rates seen; None where a group has no rows, or nothing counts in any."""
    low: float
    """Lower bound at d, whichever groups are the lowest and the highest."""
    high: float
    """Upper bound at d, over all pairs."""
    lowest: str
    """The group with the lowest rate seen, for display."""
    highest: str
    """The group with the highest."""
    bar: float
    """What the ratio is held against."""
    delta: float
    """Chance of a false pass, and of a false fail."""
    verdict: Verdict
    """Pass iff every ordered pair is shown to reach the bar; fail iff one is shown to miss it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AmplifiedPair:
    """How much more often than its teacher a student gives one group the short end, against another."""

    group: str
    """The one whose rate may have grown."""
    than: str
    """The one that it is compared with."""
    student: float | None
    """Gap of the student: its rate in `group` minus that in `than`; None where one has no rows."""
    teacher: float | None
    """The teacher's on the same rows."""
    amplified: float | None
    """Student minus teacher; the student's own gap where the teacher's is to the other group's cost."""
    low: float
    """Lower bound at d, of this pair alone."""
    high: float
    """Upper bound at d, of this pair alone."""
    verdict: Verdict
    """Pass where the upper bound is within the bar; fail where it is shown to be beyond, over all pairs together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Amplification:
    """Every group against every other, student minus teacher."""

    pairs: tuple[AmplifiedPair, ...]
    """Every ordered pair, the most amplified first."""
    bar: float
    """How much a gap may grow."""
    n: int
    """Rows, each answered by both."""
    delta: float
    """Chance of a false pass over all pairs together, and of a false fail."""
    verdict: Verdict
    """Pass iff every pair passes; fail iff one fails."""


def rate_ratio(groups: Sequence[GroupCount], *, bar: float, d: float) -> RateRatio:
    """
    Judge that no group's rate is a small part of another's.

    Args:
        groups: at least two with different names; their rows are independent and don't overlap.
        bar: least ratio of any rate to any other, in (0, 1]; 0.8 is the rule of four fifths.
        d: admitted chance of a false pass (all pairs must pass, so it is that of each), in (0, 1).

    Returns: fairlearn's ratio "between groups" with exact bounds. Nothing is shown of a group without rows.
    Raises: MeasureError for fewer than two groups, repeated names, impossible counts or fractions out of range.
    Source: two Clopper-Pearson bounds at d/2 each for a pair; for the upper bound at d/2K each for K groups. Intersection
        of the pairs' tests: Berger 1982, Technometrics 24.

    >>> found = rate_ratio([GroupCount(name="a", k=480, n=1000), GroupCount(name="b", k=500, n=1000)], bar=0.8, d=0.05)
    >>> round(found.ratio, 2), round(found.low, 2), found.verdict
    (0.96, 0.84, 'pass')
    """
    _names([g.name for g in groups])
    _fraction("a bar on a ratio", bar, top=True)
    _fraction("d", d)
    pairs, every = d / 2.0, d / (2.0 * len(groups))
    low = min(cp_lower(a.k, a.n, pairs) / _some(cp_upper(b.k, b.n, pairs)) for a in groups for b in groups if a is not b)
    upper = (cp_upper(a.k, a.n, every) / _some(cp_lower(b.k, b.n, every)) for a in groups for b in groups if a is not b)
    high = min(1.0, *upper)
    seen = [g.k / g.n if g.n else None for g in groups]
    known = [rate for rate in seen if rate is not None]
    top = max(known, default=0.0)
    whole = len(known) == len(seen) and top > 0.0
    verdict: Verdict = "pass" if low >= bar else "fail" if high < bar else "undecided"
    order = sorted((rate, g.name) for rate, g in zip(seen, groups, strict=True) if rate is not None) or [(0.0, groups[0].name)]
    return RateRatio(
        rates=tuple(_rate(g, d) for g in groups), ratio=min(known) / top if whole else None, low=min(low, 1.0), high=high,
        lowest=order[0][1], highest=order[-1][1], bar=bar, delta=d, verdict=verdict,
    )  # fmt: skip


def amplification(
    groups: Sequence[str], student: ArrayLike, teacher: ArrayLike, *, bar: float, d: float
) -> Amplification:
    """
    Judge that a student's gaps between groups are at most a little larger than its teacher's.

    Args:
        groups: n group names, one a row.
        student: shape (n,), bool: what is counted holds of the student, for example that it is wrong.
        teacher: shape (n,), bool: it holds of the teacher on the same row.
        bar: how much a gap may grow, in [0, 1).
        d: admitted chance of a false pass (all pairs must pass), and as much of any false fail, in (0, 1).

    Returns: every ordered pair. A teacher that puts the other group at a disadvantage gives the student no room to turn
        it round, and none to be blamed for evening it out: there the student's own gap counts.
    Raises: MeasureError for columns of different length, fewer than two groups, or fractions out of range.
    Source: within each group the exact paired bounds of `difference_bounds`, which are independent between groups, at d/4
        each; the student's own gap by Clopper-Pearson at d/4 each. A fail at d/2K each for K groups.

    >>> names, teacher = ["a"] * 800 + ["b"] * 800, [False] * 1600
    >>> found = amplification(names, [False] * 800 + [True] * 120 + [False] * 680, teacher, bar=0.05, d=0.05)
    >>> found.pairs[0].group, round(found.pairs[0].amplified, 2), found.verdict
    ('b', 0.15, 'fail')
    """
    one, two, label = np.asarray(student, dtype=bool), np.asarray(teacher, dtype=bool), np.asarray(groups, dtype=object)
    if one.ndim != 1 or not one.shape == two.shape == label.shape:
        raise MeasureError(
            f"one group and two outcomes a row, got {label.shape!r}, {one.shape!r}, {two.shape!r}",
            next_action="pass all three for the same rows",
        )
    names = list(dict.fromkeys(groups))
    _names(names)
    _fraction("a bar on amplification", bar, bottom=True)
    _fraction("d", d)
    sides = {name: _Side.of(one[label == name], two[label == name]) for name in names}
    loose = {name: side.bounds(d / 4.0) for name, side in sides.items()}
    found = [_pair(g, h, sides, loose, bar) for g in names for h in names if g != h]
    if any(pair.low > bar for pair in found):
        strict = {name: side.bounds(d / (2.0 * len(names))) for name, side in sides.items()}
        failed = {(g, h) for g in names for h in names if g != h and _low(g, h, strict) > bar}
    else:
        failed = set()
    pairs = tuple(
        pair if pair.verdict == "pass" or (pair.group, pair.than) not in failed else replace(pair, verdict="fail")
        for pair in sorted(found, key=lambda pair: -2.0 if pair.amplified is None else -pair.amplified)
    )
    words = {pair.verdict for pair in pairs}
    return Amplification(
        pairs=pairs, bar=bar, n=int(one.size), delta=d,
        verdict="fail" if "fail" in words else "pass" if words == {"pass"} else "undecided",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class _Bounds:
    more_low: float
    more_high: float
    """Of student minus teacher."""
    own_low: float
    own_high: float
    """Of the student."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Side:
    n: int
    student: int
    teacher: int
    b: int
    c: int

    @classmethod
    def of(cls, one: NDArray[np.bool_], two: NDArray[np.bool_]) -> _Side:
        return cls(n=one.size, student=int(one.sum()), teacher=int(two.sum()), b=int((one & ~two).sum()), c=int((two & ~one).sum()))

    def bounds(self, level: float) -> _Bounds:
        both = difference_bounds(self.b, self.c, self.n, d=level)
        own_low, own_high = cp_lower(self.student, self.n, level), cp_upper(self.student, self.n, level)
        return _Bounds(more_low=both.low, more_high=both.high, own_low=own_low, own_high=own_high)


def _pair(g: str, h: str, sides: dict[str, _Side], loose: dict[str, _Bounds], bar: float) -> AmplifiedPair:
    a, b = sides[g], sides[h]
    ours, theirs = a.student / a.n - b.student / b.n, a.teacher / a.n - b.teacher / b.n
    high = min(loose[g].more_high - loose[h].more_low, loose[g].own_high - loose[h].own_low)
    return AmplifiedPair(
        group=g, than=h, student=ours, teacher=theirs, amplified=ours - max(theirs, 0.0), low=_low(g, h, loose), high=high,
        verdict="pass" if high <= bar else "undecided",
    )  # fmt: skip


def _low(g: str, h: str, bounds: dict[str, _Bounds]) -> float:
    return min(bounds[g].more_low - bounds[h].more_high, bounds[g].own_low - bounds[h].own_high)


def _rate(group: GroupCount, d: float) -> GroupRate:
    both = cp_interval(group.k, group.n, level=1.0 - d)
    return GroupRate(name=group.name, k=group.k, n=group.n, rate=group.k / group.n if group.n else None, low=both.low, high=both.high)


def _some(value: float) -> float:
    """A rate that may be 0 bounds no ratio from above."""
    return value or float(np.finfo(np.float64).tiny)


def _names(names: Sequence[str]) -> None:
    if len(names) < 2 or len(set(names)) < len(names):
        raise MeasureError(
            f"two groups with different names are compared, got {list(names)!r}", next_action="declare an attribute with two values or more"
        )


def _fraction(what: str, value: float, *, bottom: bool = False, top: bool = False) -> None:
    if not (0.0 < value < 1.0 or (bottom and value == 0.0) or (top and value == 1.0)):
        raise MeasureError(f"{what} lies between 0 and 1, got {value!r}", next_action="pass a fraction")
