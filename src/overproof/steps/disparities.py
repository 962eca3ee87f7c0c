"""Ratios between groups, and gaps beyond the teacher's on the same rows; what the gate says of both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from overproof.measure.disparity import Amplification, AmplifiedPair, RateRatio, amplification, rate_ratio
from overproof.measure.groups import GroupCount
from overproof.steps.comparisons import OUTCOMES, Answer

Mask = NDArray[np.bool_]
FOUR_FIFTHS = 0.8  # what a ratio is read against where the owner sets no bar; then nothing refuses
BEYOND = 0.01  # the same of a gap beyond the teacher's
Kind = Literal["error", "selection", "right", "false alarm"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DisparityBars:
    """The owner's bars; None: reported only."""

    selection: float | None = None
    """Least ratio of the shares of a selected label."""
    error: float | None = None
    """Least ratio of the shares of wrong answers."""
    amplified: float | None = None
    """How much larger than the teacher's a gap may be."""

    @property
    def on_ratios(self) -> bool:
        """Whether any ratio is judged."""
        return self.selection is not None or self.error is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedRatio:
    """One rate, the lowest group's over the highest's."""

    kind: Kind
    """"error": wrong as served; "selection": served the label; "right" and "false alarm": the same of the rows that truly are of
    it, and of those that are not."""
    label: str
    """Empty for errors."""
    judged: bool
    """Whether the owner set a bar on it."""
    found: RateRatio

    @property
    def name(self) -> str:
        """In words."""
        return {"error": "served wrong", "selection": f"served {self.label!r}", "right": f"served {self.label!r} where it is right",
                "false alarm": f"served {self.label!r} where it is wrong"}[self.kind]  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedAmplification:
    """Student minus teacher in one rate."""

    kind: Literal["error", "selection"]
    label: str
    """Empty for errors."""
    judged: bool
    """Whether the owner set a bar."""
    absent: tuple[str, ...]
    """Groups of the traffic without a row to tell by: nothing is shown of them."""
    found: Amplification | None
    """None where fewer than two groups have rows."""

    @property
    def name(self) -> str:
        """In words."""
        return f"served {self.label!r}" if self.label else "served wrong"


def ratios(
    expected: Sequence[str], group: NDArray[np.object_], columns: Mapping[str, Mask], fresh: Mask, selected: Sequence[str],
    *, bars: DisparityBars, d: float,
) -> Iterator[NamedRatio]:  # fmt: skip
    """
    Every ratio of one attribute.

    Args:
        expected: its groups.
        group: of each row.
        columns: what holds of each row; see `steps.groups`.
        fresh: judging rows.
        selected: labels whose shares are compared.
        bars: of the owner.
        d: chance of a false pass of each.

    Returns: nothing where there are fewer than two groups.
    """
    if len(expected) < 2:
        return
    known = fresh & columns["known"]

    def one(column: Mask, among: Mask, bar: float | None) -> RateRatio:
        counts = [GroupCount(name=g, k=int((column & among & (group == g)).sum()), n=int((among & (group == g)).sum())) for g in expected]
        return rate_ratio(counts, bar=FOUR_FIFTHS if bar is None else bar, d=d)

    yield NamedRatio(kind="error", label="", judged=bars.error is not None, found=one(columns["wrong"], known, bars.error))
    for label in selected:
        served, true = columns[f"label {label}"], columns[f"true {label}"]
        yield NamedRatio(kind="selection", label=label, judged=bars.selection is not None, found=one(served, fresh, bars.selection))
        if known.any():
            yield NamedRatio(kind="right", label=label, judged=False, found=one(served, known & true, None))
            yield NamedRatio(kind="false alarm", label=label, judged=False, found=one(served, known & ~true, None))


def amplifications(
    expected: Sequence[str], group: NDArray[np.object_], columns: Mapping[str, Mask], fresh: Mask, selected: Sequence[str],
    *, bars: DisparityBars, d: float,
) -> Iterator[NamedAmplification]:  # fmt: skip
    """
    Gaps beyond the teacher's, of one attribute.

    Args:
        expected: see `ratios`.
        group: see `ratios`.
        columns: see `ratios`.
        fresh: see `ratios`.
        selected: see `ratios`.
        bars: see `ratios`.
        d: see `ratios`.

    Returns: wrong answers on rows with a true label, then each selected label on all judging rows.
    """
    bar = BEYOND if bars.amplified is None else bars.amplified
    for label in ("", *selected):
        among = fresh if label else fresh & columns["known"]
        ours, theirs = (columns[f"label {label}"], columns[f"teacher {label}"]) if label else (columns["wrong"], columns["teacher"])
        names = [str(g) for g in group[among]]
        absent = tuple(g for g in expected if g not in set(names))
        found = amplification(names, ours[among], theirs[among], bar=bar, d=d) if len(set(names)) > 1 else None
        if found is not None and absent and found.verdict == "pass":
            found = replace(found, verdict="undecided")
        yield NamedAmplification(
            kind="selection" if label else "error", label=label, judged=bars.amplified is not None, absent=absent, found=found
        )


def ratio_answers(attribute: str, found: Sequence[NamedRatio]) -> Iterator[Answer]:
    """
    The gate's word on the ratios of one attribute.

    Args:
        attribute: its name.
        found: all of them; those without a bar of the owner's say nothing.

    Returns: one answer each.
    """
    for one in found:
        if not one.judged:
            continue
        r = one.found
        seen = "no ratio" if r.ratio is None else f"ratio {r.ratio:.2f}"
        rates = {x.name: x for x in r.rates}
        who = ", ".join(
            f"{name!r} {'–' if rates[name].rate is None else format(rates[name].rate, '.1%')} (n = {rates[name].n:,})" for name in (r.lowest, r.highest)
        )
        words = f"{attribute}, {one.name}: {seen} ({r.low:.2f} to {r.high:.2f}), lowest and highest {who}; at least {r.bar:.2g} is asked"
        todo = {
            "pass": "",
            "fail": "look at both groups’ rows: teach more of the group that is served worse, or say in a waiver why they may differ",
            "undecided": "add judging rows" + (" with true labels" if one.kind == "error" else "") + f" of {', '.join(repr(x.name) for x in r.rates)}",
        }[r.verdict]
        yield Answer(outcome=OUTCOMES[r.verdict], reason=words + (": not enough data to tell" if r.verdict == "undecided" else ""), todo=todo)


def amplification_answers(attribute: str, found: Sequence[NamedAmplification]) -> Iterator[Answer]:
    """
    The gate's word on gaps beyond the teacher's.

    Args:
        attribute: its name.
        found: all of them; those without a bar of the owner's say nothing.

    Returns: one answer each.
    """
    for one in found:
        if not one.judged:
            continue
        if one.found is None:
            todo = "have a person answer at least 100 of the newest requests of each group, and import them as gold"
            yield Answer(outcome="not-run", reason=f"{attribute}, {one.name}: fewer than two groups have rows to tell by", todo=todo)
            continue
        worst = next((p for p in one.found.pairs if p.verdict == one.found.verdict), one.found.pairs[0])
        words = f"{attribute}, {pair_words(worst, one)}, at most {100 * one.found.bar:.2g} is asked (n = {one.found.n:,} rows, both on each)"
        if one.found.verdict == "undecided":
            lacking = f"; no row of {', '.join(map(repr, one.absent))}" if one.absent else ""
            yield Answer(outcome="not-run", reason=f"{words}{lacking}: not enough data to tell", todo="add judging rows of these groups")
        else:
            fails = one.found.verdict == "fail"
            todo = "teach more rows of this group, or keep less of it: the teacher doesn’t err so there" if fails else ""
            yield Answer(outcome=OUTCOMES[one.found.verdict], reason=words, todo=todo)


def pair_words(pair: AmplifiedPair, one: NamedAmplification) -> str:
    """
    One pair in words.

    Args:
        pair: of its pairs.
        one: where it stands.

    Returns: for example "served wrong, 'de' against 'en': student +8.0, teacher +2.0 points, beyond the teacher’s by +6.0 (+1.2 to +10.9)".
    """
    gaps = [f"{who} {100 * gap:+.1f}" for who, gap in (("student", pair.student), ("teacher", pair.teacher)) if gap is not None]
    more = "" if pair.amplified is None else f"{100 * pair.amplified:+.1f} "
    return f"{one.name}, {pair.group!r} against {pair.than!r}: {', '.join(gaps)} points, beyond the teacher’s by {more}({100 * pair.low:+.1f} to {100 * pair.high:+.1f})"
