"""`overproof show filter`: each rule, what it dropped or marked, and whether it was right to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from overproof.cli.door import Door

if TYPE_CHECKING:
    from overproof.data import Labelled
    from overproof.evidence import Figure
    from overproof.pipeline import RunResult
    from overproof.steps.judge import JudgeReport
    from overproof.steps.suspicion import Suspicion

SOME = 20  # marked rows on a screen; --json has all


def emit_rules(
    door: Door, labelled: Labelled, suspicion: Suspicion | None = None, judge: JudgeReport | None = None
) -> None:
    """
    Print the rules of a run's filter.

    Args:
        door: where to.
        labelled: the rows that are learned from, and what was left out.
        suspicion: what suspicion.v1 marked; None where the project doesn't use it.
        judge: what [judge] said; None where the project names none.
    """
    from rich.markup import escape

    from overproof.cli.judge_page import judge_lines
    from overproof.cli.tables import grid
    from overproof.steps.filter_report import rules_of

    rules = rules_of(labelled)
    table = grid("Rules of the filter, on training rows", "rule", "dropped", "of", "truly wrong", "for example", right=(1, 2))
    for one in rules:
        table.add_row(escape(one.rule), f"{one.rows:,}", f"{one.of:,}", _wrong(one.wrong), escape(one.example[:60]))
    lines = [escape(one.words) for one in rules] or ["no rule dropped a row"]
    pages = list(_marked(suspicion)) if suspicion is not None else []
    note = "dropping is not assumed to help: `overproof ablate` trains with and without each rule"
    door.emit({"rules": rules, "suspicion": suspicion, "judge": judge}, table, *lines, *pages, *judge_lines(judge), note)


def filter_lines(result: RunResult) -> Iterator[str]:
    """
    What the filter did, a sentence for each rule, as the story of a run tells it.

    Args:
        result: of the pipeline.

    Returns: lines; none where no rule dropped or marked a row.
    """
    from rich.markup import escape

    data, suspicion = (result.artifacts.get(name) for name in ("summary", "suspicion"))
    lines = [*(data.value.filter_lines if data is not None else ()), *([suspicion.value.words] if suspicion is not None else ())]
    yield from (f"  {escape(line)}" for line in lines)


def _marked(suspicion: Suspicion) -> Iterator[Any]:
    from rich.markup import escape

    from overproof.cli.tables import grid

    yield ""
    yield escape(suspicion.words)
    if suspicion.marks:
        table = grid("Most suspicious first", "teacher says", "model says", "its chance", "message", right=(2,))
        for one in suspicion.marks[:SOME]:
            table.add_row(escape(one.target), escape(one.likely), f"{one.chance:.3f}", escape(one.text[:40]))
        yield table


def _wrong(figure: Figure | None) -> str:
    known = figure is not None and figure.value is not None
    return f"{figure.value:.0%} ({figure.low:.0%} to {figure.high:.0%}, n = {figure.n:,})" if figure is not None and known else "not known"
