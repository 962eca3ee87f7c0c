"""What `show groups` and `show flips` print: gaps between groups, and answers that change with a swapped term."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from overproof.cli.tables import WORDS, Sheet, grid, percent
from overproof.errors import DataError

if TYPE_CHECKING:
    from overproof.measure.groups import GroupGaps
    from overproof.pipeline import RunResult
    from overproof.steps.flips import FlipReport, SwapResult
    from overproof.steps.groups import AttributeGaps, GroupReport

ASK = {"groups": "name attributes in [fairness] groups", "flips": 'set [fairness] swaps = "built-in"'}


def page(what: str, found: Any, result: RunResult) -> Iterator[Any]:
    """
    The value to print as JSON, then what a terminal shows.

    Args:
        what: "groups" or "flips".
        found: the run's result; None where the project doesn't ask for it.
        result: the run, for the gate's word.

    Returns: the value first.
    Raises: DataError where there is nothing to show.
    """
    if found is None:
        raise DataError(f"the run compared no {what}", next_action=f"{ASK[what]}, then run `overproof run`")
    yield found
    yield from groups_page(found) if what == "groups" else flips_page(found)
    checks = ("F01", "F03", "F04") if what == "groups" else ("F02", "F04")
    for finding in result.verdict.findings if result.verdict is not None else ():
        if finding.id in checks:
            yield f"{WORDS[finding.outcome]} {finding.id} {escape(finding.reason)}"


def groups_page(report: GroupReport) -> Iterator[Any]:
    """
    Every attribute's groups, and whose a gap is.

    Args:
        report: from the run.

    Returns: tables and sentences.
    """
    yield f"intervals are exact, at {1 - report.delta:.1%}, each for itself; {report.method} for the verdicts"
    for one in report.attributes:
        yield _errors(one, report)
        yield _routes(one)
        yield _ratios(one)
        yield _amplified(one)
        if one.absent:
            yield f"  without a judging row that has a true label: {escape(', '.join(one.absent))}"
        more = f"; about {one.rows_needed} more rows with true labels" if one.rows_needed else ""
        yield f"  wrong answers within {percent(report.tolerance)} between any two groups: {WORDS[one.verdict]}{more}"
        yield ""
    if not report.judged:
        yield "no tolerance is set, so nothing refuses: set \\[fairness] tolerance for the gate to judge it"


def _errors(one: AttributeGaps, report: GroupReport) -> Sheet:
    table = grid(f"{escape(one.attribute)}: wrong answers as served by {escape(report.candidate)}, {one.n_gold} judging rows with gold",
                 "group", "served", "interval", "teacher", "interval", "n", "only served", "only teacher", "origin", right=range(1, 8))  # fmt: skip
    if one.error is not None:
        for origin, ours, other in zip(one.error.groups, one.error.student.rates, one.error.teacher.rates, strict=True):
            table.add_row(escape(origin.group), percent(ours.rate), _span(ours), percent(other.rate), _span(other), str(ours.n),
                          str(origin.student_only), str(origin.teacher_only), origin.origin)  # fmt: skip
    return table


def _routes(one: AttributeGaps) -> Sheet:
    kinds: list[tuple[str, GroupGaps | None]] = [("to teacher", one.fallback), ("differs", one.differ)]
    kinds += [(f"gets {s.label}", s.served) for s in one.selected]
    there = [(name, gaps) for name, gaps in kinds if gaps is not None]
    heads = [head for name, _ in there for head in (escape(name), "interval")]
    table = grid("  shown, not judged", "group", *heads, "n", right=range(1, len(heads) + 2))
    for place, rate in enumerate(there[0][1].rates if there else ()):
        cells = [cell for _, gaps in there for cell in (percent(gaps.rates[place].rate), _span(gaps.rates[place]))]
        table.add_row(escape(rate.name), *cells, str(rate.n))
    return table


def _ratios(one: AttributeGaps) -> Sheet:
    table = grid("  lowest rate over highest, 1 where all are alike", "rate", "ratio", "bounds", "lowest", "highest", "verdict", right=(1, 2))
    for named in one.ratios:
        r = named.found
        word = f"{WORDS[r.verdict]} at least {r.bar:.2g}" if named.judged else "shown"
        table.add_row(escape(named.name), "-" if r.ratio is None else f"{r.ratio:.2f}", f"{r.low:.2f}-{r.high:.2f}", escape(r.lowest), escape(r.highest), word)
    return table


def _amplified(one: AttributeGaps) -> Sheet:
    table = grid("  gaps beyond the teacher's, in points: the most amplified pair", "rate", "pair", "served", "teacher", "beyond", "bounds", "n", "verdict",
                 right=range(2, 7))  # fmt: skip
    for named in one.amplified:
        if named.found is None:
            table.add_row(escape(named.name), "not measured", "", "", "", "", "", "")
            continue
        worst = named.found.pairs[0]
        figures = ["-" if x is None else f"{100 * x:+.1f}" for x in (worst.student, worst.teacher, worst.amplified)]
        word = f"{WORDS[named.found.verdict]} at most {100 * named.found.bar:.2g}" if named.judged else "shown"
        table.add_row(escape(named.name), escape(f"{worst.group} against {worst.than}"), *figures, f"{100 * worst.low:+.1f} to {100 * worst.high:+.1f}",
                      str(named.found.n), word)  # fmt: skip
    return table


def _span(rate: Any) -> str:
    return f"{100 * rate.low:.1f}-{100 * rate.high:.1f}"


def flips_page(report: FlipReport) -> Iterator[Any]:
    """
    Every swap list.

    Args:
        report: from the run.

    Returns: a table.
    """
    table = grid(f"Answers that change with a swapped term, at most {report.at_most:.2%} of the pairs",
                 "list", "pairs", "in place", "answer", "route", "to teacher", "placebo", "beyond teacher's", "verdict", right=range(1, 8))  # fmt: skip
    for one in report.lists:
        placebo = one.cautious.placebo
        noise = "-" if placebo is None else f"{placebo.n - placebo.good}/{placebo.n}"
        table.add_row(escape(one.name), str(one.pairs), str(one.in_place), str(one.changed), str(one.rerouted),
                      str(one.to_teacher), noise, _beyond(one), WORDS[one.verdict])  # fmt: skip
    table.note = "route: one side goes to the teacher; counted as changed for a pass, as unchanged for a fail"
    yield table


def _beyond(one: SwapResult) -> str:
    seen = one.beyond
    if seen is None:
        return "not measured"
    return f"{100 * (seen.served - seen.teacher) / seen.n:+.1f} ({100 * seen.low:+.1f} to {100 * seen.high:+.1f}) n={seen.n}"
