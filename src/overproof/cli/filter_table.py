"""`overproof show filter`: each rule, what it dropped, and whether it was right to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overproof.cli.door import Door

if TYPE_CHECKING:
    from overproof.data import Labelled
    from overproof.steps.judge import JudgeReport


def emit_rules(door: Door, labelled: Labelled, judge: JudgeReport | None = None) -> None:
    """
    Print the rules of a run's filter.

    Args:
        door: where to.
        labelled: the filter's result.
        judge: what [judge] said; None where the project names none.
    """
    from rich.markup import escape

    from overproof.cli.judge_page import judge_lines
    from overproof.cli.tables import grid
    from overproof.steps.filter_report import rules_of

    rules = rules_of(labelled)
    table = grid("Rules of the filter, on training rows", "rule", "dropped", "of", "truly wrong", "for example", right=(1, 2))
    for one in rules:
        figure = one.wrong
        wrong = "not known" if figure is None or figure.value is None else f"{figure.value:.0%} ({figure.low:.0%} to {figure.high:.0%}, n = {figure.n:,})"
        table.add_row(escape(one.rule), f"{one.rows:,}", f"{one.of:,}", wrong, escape(one.example[:60]))
    lines = [escape(one.words) for one in rules] or ["no rule dropped a row"]
    pages = judge_lines(judge)
    door.emit({"rules": rules, "judge": judge}, table, *lines, *pages, "dropping is not assumed to help: `overproof ablate` trains with and without each rule")
