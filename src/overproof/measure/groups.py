"""Gaps between groups, whether a student inherits them from its teacher, and answers that flip with an attribute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from overproof.errors import MeasureError
from overproof.evidence import Figure, Verdict
from overproof.measure.intervals import cp_interval, cp_lower, cp_upper, judge
from overproof.measure.paired import PairedTest, noninferiority, superiority

Origin = Literal["no gap shown", "inherited", "introduced", "inherited and introduced", "undecided"]
_HALVINGS = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupCount:
    """One group of a declared attribute."""

    name: str
    """Its value, for example "en"."""
    k: int
    """Rows that count: wrong, selected, or sent to the teacher."""
    n: int
    """All rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupRate:
    """One group's rate."""

    name: str
    """Its value, for example "en"."""
    k: int
    """Rows that count."""
    n: int
    """All rows."""
    rate: float | None
    """k / n; None where n = 0."""
    low: float
    """Lower end of the exact two-sided interval."""
    high: float
    """Upper end of the exact two-sided interval."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupGap:
    """How much higher one group's rate is than another's."""

    group: str
    """The group whose rate may be too high."""
    than: str
    """The group that it is compared with."""
    gap: float | None
    """Rate of `group` minus rate of `than`; None where one of them has no rows."""
    low: float
    """Lower bound of the gap at d, of this pair alone."""
    high: float
    """Upper bound of the gap at d, of this pair alone."""
    p_within: float
    """Chance of evidence this good for "within the tolerance" if the gap were above it."""
    p_beyond: float
    """Chance of evidence this good for "beyond the tolerance" if the gap were within it."""
    verdict: Verdict
    """Pass or fail where shown after Holm's correction over all pairs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupGaps:
    """Every group against every other."""

    rates: tuple[GroupRate, ...]
    """One for each group, in the order given."""
    best: str
    """The group with the lowest rate seen; the first among equals. For display: the pairs cover every choice."""
    pairs: tuple[GroupGap, ...]
    """Every ordered pair, the largest gap first."""
    tolerance: float
    """How large a gap may be."""
    delta: float
    """Chance of any false pass, and of any false fail, over all pairs together."""
    verdict: Verdict
    """Pass iff every pair passes; fail iff one fails."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupOrigin:
    """Where one group's gap comes from."""

    group: str
    """The group."""
    origin: Origin
    """Inherited: the teacher shows the gap too. Introduced: the student errs more than the teacher in the group."""
    student_only: int
    """Rows of the group on which only the student is wrong."""
    teacher_only: int
    """Rows of the group on which only the teacher is wrong."""
    n: int
    """Rows of the group."""
    p: float
    """Exact one-sided McNemar p that the student errs more than the teacher in the group."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Origins:
    """A student's gaps beside its teacher's."""

    student: GroupGaps
    """The student's gaps."""
    teacher: GroupGaps
    """The teacher's on the same rows."""
    groups: tuple[GroupOrigin, ...]
    """One for each group, in the order of `student.rates`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FlipCertificate:
    """How often an answer changes when nothing but an attribute's term does."""

    flips: Figure
    """Share of pairs that keep their answer, judged by 1 - bar."""
    placebo: Figure | None
    """The same with a swap that can't matter (terms of one group); None where there was no placebo."""
    beyond_noise: bool | None
    """The attribute is shown to flip more answers than the placebo does; None without a placebo."""
    against_teacher: PairedTest | None
    """Non-inferiority to the teacher's flips on the same pairs; None where the teacher was not asked."""
    verdict: Verdict
    """Pass: few flips, shown. Fail: too many, shown, and with a placebo more than its noise. Else undecided."""


def group_gaps(groups: Sequence[GroupCount], *, tolerance: float, d: float) -> GroupGaps:
    """
    Judge that no group's rate is more than a tolerance above any other's.

    Args:
        groups: at least two groups with different names; their rows are independent and don't overlap.
        tolerance: how much higher a rate may be, in [0, 1).
        d: admitted chance of any false pass over all pairs (and as much of any false fail), in (0, 1).

    Returns: rates with exact intervals and every ordered pair's verdict. Since all pairs are covered, naming the best
        group after the fact costs nothing.
    Raises: MeasureError for fewer than two groups, repeated names, impossible counts or fractions out of range.
    Source: union of two Clopper-Pearson bounds at d/2 each, inverted to a p-value; Holm 1979, Scandinavian Journal of
        Statistics 6, over the K (K - 1) ordered pairs.

    >>> counts = [GroupCount(name="en", k=10, n=1000), GroupCount(name="de", k=80, n=400)]
    >>> gaps = group_gaps(counts, tolerance=0.05, d=0.05)
    >>> gaps.verdict, gaps.pairs[0].group, round(gaps.pairs[0].gap, 2), gaps.pairs[1].verdict
    ('fail', 'de', 0.19, 'pass')
    """
    if len(groups) < 2 or len({g.name for g in groups}) < len(groups):
        raise MeasureError(
            f"a gap needs two groups with different names, got {[g.name for g in groups]!r}",
            next_action="declare an attribute with two values or more",
        )
    if not 0.0 <= tolerance < 1.0:
        raise MeasureError(f"a tolerance lies in [0, 1), got {tolerance!r}", next_action="pass a fraction")
    rates = tuple(_rate(g, d) for g in groups)
    ordered = [(a, b) for a in groups for b in groups if a is not b]
    within = [_p_within(a, b, tolerance) for a, b in ordered]
    beyond = [_p_beyond(a, b, tolerance) for a, b in ordered]
    passed, failed = holm(within, d=d), holm(beyond, d=d)
    pairs = tuple(
        GroupGap(
            group=a.name,
            than=b.name,
            gap=a.k / a.n - b.k / b.n if a.n and b.n else None,
            low=cp_lower(a.k, a.n, d / 2.0) - cp_upper(b.k, b.n, d / 2.0),
            high=cp_upper(a.k, a.n, d / 2.0) - cp_lower(b.k, b.n, d / 2.0),
            p_within=within[i],
            p_beyond=beyond[i],
            verdict="pass" if passed[i] else "fail" if failed[i] else "undecided",
        )
        for i, (a, b) in enumerate(ordered)
    )
    verdicts = {pair.verdict for pair in pairs}
    known = [rate for rate in rates if rate.rate is not None] or list(rates)
    return GroupGaps(
        rates=rates,
        best=min(known, key=lambda rate: rate.rate or 0.0).name,
        pairs=tuple(sorted(pairs, key=lambda pair: -2.0 if pair.gap is None else -pair.gap)),
        tolerance=tolerance,
        delta=d,
        verdict="fail" if "fail" in verdicts else "pass" if verdicts == {"pass"} else "undecided",
    )


def holm(p: ArrayLike, *, d: float) -> NDArray[np.bool_]:
    """
    Which of several claims are shown, with a bound on the chance that any of them is false.

    Args:
        p: shape (m,), p-values in [0, 1].
        d: admitted chance of any false claim, in (0, 1).

    Returns: shape (m,), bool.
    Raises: MeasureError for another shape, a p-value outside [0, 1] or d outside (0, 1).
    Source: Holm 1979, Scandinavian Journal of Statistics 6, 65-70.

    >>> holm([0.01, 0.04, 0.03], d=0.05).tolist()
    [True, False, False]
    """
    value = np.asarray(p, dtype=np.float64)
    if value.ndim != 1 or not bool(np.all((value >= 0.0) & (value <= 1.0))) or not 0.0 < d < 1.0:
        raise MeasureError(
            f"Holm's rule needs a row of p-values in [0, 1] and d in (0, 1), got {value.shape!r} and {d!r}",
            next_action="pass p-values, no NaN",
        )
    order = np.argsort(value, kind="stable")
    ok = value[order] <= d / (value.size - np.arange(value.size))
    shown = np.zeros(value.size, dtype=bool)
    shown[order] = np.logical_and.accumulate(ok)
    return shown


def inherited_or_introduced(
    groups: Sequence[str], student_wrong: ArrayLike, teacher_wrong: ArrayLike, *, tolerance: float, d: float
) -> Origins:
    """
    Whether the student's gaps are its teacher's.

    Args:
        groups: n group names, one a row.
        student_wrong: shape (n,), bool, against gold.
        teacher_wrong: shape (n,), bool, against the same gold: without gold the teacher is never wrong.
        tolerance: how large a gap may be, in [0, 1).
        d: admitted chance of any false claim in each of the three families (student, teacher, pairs), in (0, 1).

    Returns: both tables of gaps, and each group's origin: "introduced" where the exact test shows more errors of the
        student than of the teacher inside the group, "inherited" where the teacher's gap is shown by itself.
    Raises: MeasureError for columns of different length, fewer than two groups, or fractions out of range.
    Source: McNemar 1947, Psychometrika 12, exact and one-sided inside each group; Holm 1979 over the groups.

    >>> names = ["a"] * 400 + ["b"] * 400
    >>> student = [False] * 400 + [True] * 120 + [False] * 280
    >>> found = inherited_or_introduced(names, student, student, tolerance=0.05, d=0.05)
    >>> [(g.group, g.origin) for g in found.groups]
    [('a', 'no gap shown'), ('b', 'inherited')]
    """
    one, two = np.asarray(student_wrong, dtype=bool), np.asarray(teacher_wrong, dtype=bool)
    label = np.asarray(groups, dtype=object)
    if one.ndim != 1 or not one.shape == two.shape == label.shape:
        raise MeasureError(
            f"one group and two outcomes a row, got {label.shape!r}, {one.shape!r}, {two.shape!r}",
            next_action="pass all three for the same rows",
        )
    names = list(dict.fromkeys(groups))
    rows = {name: label == name for name in names}
    student, teacher = (
        group_gaps(
            [GroupCount(name=name, k=int(wrong[rows[name]].sum()), n=int(rows[name].sum())) for name in names],
            tolerance=tolerance,
            d=d,
        )
        for wrong in (one, two)
    )
    only = {name: int((one & ~two)[rows[name]].sum()) for name in names}
    other = {name: int((two & ~one)[rows[name]].sum()) for name in names}
    p = [superiority(other[name], only[name], d=d).p for name in names]
    worse = holm(p, d=d)
    found = tuple(
        GroupOrigin(
            group=name,
            origin=_origin(_shown(student, name), _shown(teacher, name), worse=bool(worse[i])),
            student_only=only[name],
            teacher_only=other[name],
            n=int(rows[name].sum()),
            p=p[i],
        )
        for i, name in enumerate(names)
    )
    return Origins(student=student, teacher=teacher, groups=found)


def flip_certificate(
    flipped: ArrayLike,
    *,
    bar: float,
    d: float,
    placebo: ArrayLike | None = None,
    teacher_flipped: ArrayLike | None = None,
    margin: float = 0.01,
) -> FlipCertificate:
    """
    Judge how often answers change when nothing but an attribute's term does.

    Args:
        flipped: shape (n,), bool: the student's answer changed with the term; one independent pair a row.
        bar: admitted share of flips, in (0, 1).
        d: error probability of each claim, in (0, 1).
        placebo: shape (m,), bool: the same with swaps inside one group, on other pairs; None where not made.
        teacher_flipped: shape (n,), bool: the teacher's answer changed on the same pairs; None where not asked.
        margin: how many more flips than the teacher's are admitted, as a share of all pairs, in (0, 1).

    Returns: the certificate. It passes on the upper bound alone, and fails only if, where there is a placebo, the
        flips are shown to exceed the placebo's: otherwise what was measured is noise of the wording.
    Raises: MeasureError for columns that don't fit or fractions out of range.
    Source: Clopper and Pearson 1934, Biometrika 26; counterfactual token fairness, Garg et al. 2019,
        arXiv:1809.10610. Flips against placebo: two one-sided bounds at d/2.

    >>> flip_certificate([False] * 299, bar=0.01, d=0.05).verdict
    'pass'
    >>> flip_certificate([False] * 298, bar=0.01, d=0.05).verdict
    'undecided'
    """
    change = _bools("flipped", flipped)
    if not 0.0 < bar < 1.0:
        raise MeasureError(f"a bar on flips lies in (0, 1), got {bar!r}", next_action="pass a fraction")
    flips = _kept(change, bar, d, "kept under the swap")
    noise, beyond = None, None
    if placebo is not None:
        other = _bools("placebo", placebo)
        noise = _kept(other, bar, d, "kept under the placebo")
        low, high = cp_lower(int(change.sum()), change.size, d / 2.0), cp_upper(int(other.sum()), other.size, d / 2.0)
        beyond = low > high
    paired = None
    if teacher_flipped is not None:
        reference = _bools("teacher_flipped", teacher_flipped)
        if reference.shape != change.shape:
            raise MeasureError(
                f"the teacher answered {reference.size} pairs, the student {change.size}",
                next_action="pass both for the same pairs",
            )
        only, other_only = int((change & ~reference).sum()), int((reference & ~change).sum())
        paired = noninferiority(only, other_only, change.size, margin=margin, d=d)
    verdict: Verdict = flips.verdict or "undecided"
    if verdict == "fail" and beyond is False:
        verdict = "undecided"
    return FlipCertificate(
        flips=flips, placebo=noise, beyond_noise=beyond, against_teacher=paired, verdict=verdict
    )


def _rate(group: GroupCount, d: float) -> GroupRate:
    both = cp_interval(group.k, group.n, level=1.0 - d)
    rate = group.k / group.n if group.n else None
    return GroupRate(name=group.name, k=group.k, n=group.n, rate=rate, low=both.low, high=both.high)


def _p_within(a: GroupCount, b: GroupCount, tolerance: float) -> float:
    """Least d at which the upper bound of the gap is at most the tolerance; 1 where there is none."""
    return _least(lambda d: cp_upper(a.k, a.n, d / 2.0) - cp_lower(b.k, b.n, d / 2.0) <= tolerance)


def _p_beyond(a: GroupCount, b: GroupCount, tolerance: float) -> float:
    """Least d at which the lower bound of the gap is above the tolerance; 1 where there is none."""
    return _least(lambda d: cp_lower(a.k, a.n, d / 2.0) - cp_upper(b.k, b.n, d / 2.0) > tolerance)


def _least(holds: Callable[[float], bool]) -> float:
    """Bisection on a scale of logarithms; the answer is on the side where it holds."""
    low, high = -30.0, -1e-12
    if not holds(float(np.exp(high))):
        return 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        if holds(float(np.exp(middle))):
            high = middle
        else:
            low = middle
    return float(np.exp(high))


def _shown(gaps: GroupGaps, name: str) -> bool:
    return any(pair.group == name and pair.verdict == "fail" for pair in gaps.pairs)


def _origin(student: bool, teacher: bool, *, worse: bool) -> Origin:  # noqa: FBT001
    if not student:
        return "no gap shown"
    if teacher:
        return "inherited and introduced" if worse else "inherited"
    return "introduced" if worse else "undecided"


def _bools(name: str, values: ArrayLike) -> NDArray[np.bool_]:
    found = np.asarray(values)
    if found.ndim != 1 or (found.size and found.dtype.kind != "b"):
        raise MeasureError(
            f"{name} is one True or False for each pair, got {found.dtype} {found.shape!r}",
            next_action="compare the two answers of each pair first",
        )
    return found.astype(bool)


def _kept(flipped: NDArray[np.bool_], bar: float, d: float, metric: str) -> Figure:
    return judge(int((~flipped).sum()), int(flipped.size), 1.0 - bar, d, level=1.0 - d, metric=metric)
