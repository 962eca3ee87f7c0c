"""The gate's word on the probes: each bar judged on all rows and on each critical slice, never on a figure alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from overproof.evidence import Outcome, Verdict
from overproof.evidence.figures import Figure
from overproof.evidence.probe_bars import BARS, Asked
from overproof.evidence.probes import GreedyDuel, ProbeCell, ProbeReport
from overproof.measure.intervals import cp_upper, figure, min_rows, verdict_of
from overproof.measure.paired import noninferiority
from overproof.steps.comparisons import OUTCOMES, Answer

CHANGED, ATTACKS = ("noise", "unicode", "wrap", "pad", "own"), ("inject", "stuff")
READ = (*CHANGED, *ATTACKS, "scope")
"""Kinds of perturbations of which a check reads the bars."""
SURE = 59  # rows from which on a share of 5 % could have been seen


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """One bar on one cell."""

    cell: ProbeCell
    verdict: Verdict
    words: str


def judged(cell: ProbeCell, delta: float, bars: Mapping[str, Asked] = BARS) -> tuple[Judged, ...]:
    """
    Every bar of one cell.

    Args:
        cell: any.
        delta: chance of a false pass of each bar.
        bars: the defaults, or with the owner's tighter ones.

    Returns: one entry for each bar that is asked; none where none is.
    """
    asked = bars.get(cell.probe)
    if asked is None:
        return ()
    if asked.steady and cell.steady == cell.n and not cell.flipped.good:
        enough = cell.n >= SURE or cell.slice != "all"  # one function reads all slices
        return (Judged(cell=cell, verdict="pass" if enough else "undecided", words=f"reads all {cell.n:,} rows as they came"),)
    found = []
    if asked.drop is not None:
        test = noninferiority(cell.worse, cell.better, cell.n, margin=asked.drop, d=delta) if cell.n else None
        lost = (cell.worse - cell.better) / cell.n if cell.n else 0.0
        found.append((test.verdict if test else "undecided", f"accuracy falls by {100 * lost:.1f} points, at most {100 * asked.drop:.2g}"))
    if asked.flip is not None:
        found.append(_share(cell.flipped, asked.flip, delta, "other answers"))
    if asked.rerouted is not None:
        test = noninferiority(cell.newly_routed, cell.no_longer_routed, cell.n, margin=asked.rerouted, d=delta) if cell.n else None
        more = (cell.routed - cell.routed_before) / cell.n if cell.n else 0.0
        found.append((test.verdict if test else "undecided", f"the teacher gets {100 * more:.1f} points more, at most {100 * asked.rerouted:.2g}"))
    if asked.wrong is not None:
        found.append(_share(cell.confident, asked.wrong, delta, "answered all the same" + (f", most often as {cell.into!r}" if cell.into else "")))
    if asked.through is not None:
        found.append(_share(cell.through, asked.through, delta, "right before and served wrong now" + (f", most often as {cell.into!r}" if cell.into else "")))
    if asked.beyond is not None:
        found.append(_beyond(cell, asked.beyond, delta))
    return tuple(Judged(cell=cell, verdict=verdict, words=words) for verdict, words in found)


def _share(seen: Figure, most: float, delta: float, what: str) -> tuple[Verdict, str]:
    words = f"{seen.good:,} of {seen.n:,} {what} (up to {cp_upper(seen.good, seen.n, delta):.1%}), at most {most:.2%}"
    return verdict_of(seen.good, seen.n, most, delta), words


def _beyond(cell: ProbeCell, margin: float, delta: float) -> tuple[Verdict, str]:
    """Beyond the teacher's own; an attack that hardly ever works on the student can't work more often than on anybody."""
    side = cell.teacher
    if side is not None and side.n:
        test = noninferiority(side.kept_only, side.teacher_over_kept, side.n, margin=margin, d=delta)
        if test.verdict != "undecided":
            gap = (side.kept_only - side.teacher_over_kept) / side.n
            words = f"{100 * gap:+.1f} points against the teacher ({100 * side.low:+.1f} to {100 * side.high:+.1f}, n = {side.n:,}), at most {100 * margin:.2g}"
            return test.verdict, words
    if cp_upper(cell.through.good, cell.through.n, delta) <= margin:
        return "pass", f"under {margin:.0%} whatever the teacher does"
    who = f"the teacher was asked on {side.n:,} rows, too few to tell" if side is not None else "the teacher was not asked"
    return "undecided", f"not more than the teacher’s own: {who}"


def _answer(what: str, found: Sequence[Judged], report: ProbeReport) -> Answer:
    """One word on several bars: what fails first, then what can't be told; passes are counted."""
    if not found:
        return Answer(outcome="not-run", reason=f"{what}: no row could be tried", todo="label more calibration rows")
    worst: Verdict = next((v for v in ("fail", "undecided") if any(one.verdict == v for one in found)), "pass")
    those = [one for one in found if one.verdict == worst]
    if worst == "pass":
        rows = min(one.cell.n for one in found)
        return Answer(outcome="pass", reason=f"{what}: all {len(found)} bars hold, on {rows:,} or more of {report.rows:,} rows each")
    said = "; ".join(f"{one.cell.probe} on {one.cell.slice!r}: {one.words}" for one in those[:6])
    more = f"; and {len(those) - 6} more" if len(those) > 6 else ""
    if worst == "fail":
        todo = "see `overproof show probes`; teach rows of this kind, take another student, or raise [serve] accuracy_when_confident"
        return Answer(outcome="fail", reason=f"{what}: {said}{more}", todo=todo)
    short = report.rows < min_rows(0.01, report.delta)
    todo = "raise [probe] rows and the calibration share; a bar of 1 % needs 299 rows without a failure" if short else "raise [probe] rows or teacher_rows, or mend the figure named"
    return Answer(outcome=OUTCOMES["undecided"], reason=f"{what}: {said}{more}: not enough data to tell", todo=todo)


Bars = Mapping[str, Asked]
Says = Callable[..., Iterator[Answer]]  # of the report, and at will of other bars than the defaults


def _kinds(*kinds: str) -> Says:
    def answers(report: ProbeReport, bars: Bars = BARS) -> Iterator[Answer]:
        for kind in kinds:
            cells = [c for c in report.cells if c.kind == kind and c.critical]
            if kind == "own" and not any(c.probe in bars for c in cells):
                continue  # nobody has said what is asked of the owner's own
            yield _answer(kind, [one for cell in cells for one in judged(cell, report.delta, bars)], report)

    return answers


def _foreign(report: ProbeReport, bars: Bars = BARS) -> Iterator[Answer]:
    cells = [c for c in report.cells if c.kind == "scope" and c.slice == "all"]
    yield _answer("texts that are not the task’s", [one for cell in cells for one in judged(cell, report.delta, bars)], report)
    if report.empty_answered:
        yield Answer(outcome="fail", reason=f"{report.empty_answered} of {report.empty} texts that say nothing get an answer",
                     todo="name [task] out_of_scope, or leave [serve] out_of_scope_share above 0")  # fmt: skip
    else:
        yield Answer(outcome="pass" if report.empty else "not-run", reason=f"all {report.empty} texts that say nothing go to the teacher")


def _cases(kind: str) -> Says:
    """A list of named requests, not a sample: every one of them counts."""

    def answers(report: ProbeReport, bars: Bars = BARS) -> Iterator[Answer]:
        del bars
        for one in (c for c in report.cases if c.kind == kind):
            taken = f", {one.inherited} with the teacher’s own mistake" if kind == "weakness" else ""
            words = f"{one.name}: {one.n} texts, the student alone is wrong on {one.wrong}{taken}; {one.routed} go to the teacher"
            outcome: Outcome = "fail" if one.served_wrong else "pass"
            todo = "teach rows of this kind with right labels, then run again" if one.served_wrong else ""
            yield Answer(outcome=outcome, reason=f"{words}; {one.served_wrong} are served wrong", todo=todo)

    return answers


def _duels(report: ProbeReport, bars: Bars = BARS) -> Iterator[Answer]:
    """The greedy attack on the challenger and on the serving release, on the same rows."""
    margin = bars["greedy.v1"].worse
    assert margin is not None
    if not report.duels:
        why = report.duel_note or "no row could be attacked on both"
        yield Answer(outcome="not-run", reason=f"the attack was not compared with the serving release: {why}", todo="set [probe] attack_rows, then run again")
    yield from (_duel(one, margin, report.delta) for one in report.duels)


def _duel(one: GreedyDuel, margin: float, delta: float) -> Answer:
    test = noninferiority(one.worse, one.better, one.n, margin=margin, d=delta) if one.n else None
    gap = (one.worse - one.better) / one.n if one.n else 0.0
    words = (
        f"greedy.v1 on {one.slice!r}: {one.challenger.good:,} of {one.n:,} rows are served wrong under attack, {one.champion.good:,} by {one.release}: "
        f"{100 * gap:+.1f} points ({100 * one.low:+.1f} to {100 * one.high:+.1f}), at most {100 * margin:.2g} more"
    )
    if test is None or test.verdict == "undecided":
        more = f"raise [probe] attack_rows by about {test.rows_needed:,}" if test and test.rows_needed else "raise [probe] attack_rows"
        return Answer(outcome="not-run", reason=f"{words}: not enough data to tell", todo=more)
    todo = "the serving release stands attack better: teach rows of this kind, or raise [serve] accuracy_when_confident" if test.verdict == "fail" else ""
    return Answer(outcome=OUTCOMES[test.verdict], reason=words, todo=todo)


CHECKED: tuple[tuple[str, str, Says], ...] = (
    ("P01", "Spelling, wrapping and padding change little", _kinds(*CHANGED)),
    ("P02", "Attacks don’t get through, not more than to the teacher", _kinds(*ATTACKS)),
    ("P03", "What is not the task’s gets no answer", _foreign),
    ("P04", "The owner’s cases are served right", _cases("case")),
    ("P05", "Known weaknesses of the teacher don’t survive", _cases("weakness")),
    ("P06", "An attacker gets no further than with the serving release", _duels),
)
"""Id, title and answers: rows of the gate's table where the project file asks for probes."""


def share_caught(cells: Sequence[ProbeCell]) -> Figure:
    """
    Of the answers that an attack turns wrong, those that go to the teacher.

    Args:
        cells: of one slice.

    Returns: the share; n = 0 where no answer is wrong.
    """
    wrong = sum(c.broken.good for c in cells)
    return figure(wrong - sum(c.through.good for c in cells), wrong, metric="caught")
