"""What `show probes` prints: spoiled, attacked and foreign texts, before and after routing, beside the teacher."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from overproof.cli.tables import WORDS, Sheet, grid, percent
from overproof.errors import DataError

if TYPE_CHECKING:
    from overproof.evidence.figures import Figure
    from overproof.evidence.probes import ProbeReport
    from overproof.pipeline import RunResult


def page(found: ProbeReport | None, result: RunResult) -> Iterator[Any]:
    """
    The value to print as JSON, then what a terminal shows.

    Args:
        found: the run's report; None where the project doesn't ask for it.
        result: the run, for the gate's word.

    Returns: the value first.
    Raises: DataError where there is nothing to show.
    """
    if found is None:
        raise DataError("the run tried no probes", next_action='set [probe] use to other than "off", then run `overproof run`')
    yield found
    asked = found.teacher_note or f"the teacher was asked about {found.teacher_asked:,} of the same texts"
    yield f"{found.rows:,} calibration rows, one a session; right is what {found.truth} says; {escape(asked)}"
    for where in dict.fromkeys(cell.slice for cell in found.cells):
        yield _cells(found, where)
    for one in found.greedy:
        yield (f"greedy, {escape(one.slice)}: {_said(one.flipped)} changed within {one.most} questions a row ({one.calls:.0f} on average); "
               f"{_said(one.through)} served wrong")  # fmt: skip
    for two in found.duels:
        yield (f"greedy, {escape(two.slice)}, beside {escape(two.release)}: {_said(two.challenger)} served wrong, {_said(two.champion)} by the serving release "
               f"({100 * two.low:+.1f} to {100 * two.high:+.1f} points)")  # fmt: skip
    if found.duel_note:
        yield f"greedy, not compared with the serving release: {escape(found.duel_note)}"
    for trigger in found.triggers[:3]:
        yield f"trigger {escape(repr(trigger.examples[0]))}: {_said(trigger.flipped)} turn to {escape(trigger.label)}, {_said(trigger.through)} as served"
    for case in found.cases:
        yield f"{case.kind} {escape(case.name)}: {case.wrong} of {case.n} wrong, {case.served_wrong} served wrong, {case.inherited} as the teacher is"
    for finding in (*result.verdict.findings, *result.verdict.watched) if result.verdict is not None else ():
        if finding.id.startswith("P0"):
            yield f"{WORDS[finding.outcome]} {finding.id} {escape(finding.reason)}"


def _cells(found: ProbeReport, where: str) -> Sheet:
    table = grid(f"Probes on {escape(where)}", "probe", "n", "as asked", "attack alone", "routed", "interval", "caught", "teacher", "falls into", right=range(1, 8))
    for cell in (c for c in found.cells if c.slice == where):
        side = "-" if cell.teacher is None else f"{percent(cell.teacher.wrong.value)} n={cell.teacher.n}"
        table.add_row(cell.probe, str(cell.n), percent(cell.right.value), percent(cell.broken.value), percent(cell.through.value),
                      f"{100 * cell.through.low:.1f}-{100 * cell.through.high:.1f}", percent(cell.caught), side, escape(cell.into))  # fmt: skip
    table.note = "attack: right before, wrong after; routed: the same where the student answers itself; caught: of these wrong ones, gone to the teacher"
    return table


def _said(one: Figure) -> str:
    return f"{percent(one.value)} ({100 * one.low:.1f}-{100 * one.high:.1f}, n = {one.n})"
