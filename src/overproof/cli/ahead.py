"""What lies ahead, in a terminal: more rows, money, the next use of the sealed rows, the certificate's end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from overproof.evidence import EvalReport


def outlook_page(report: EvalReport) -> Iterator[Any]:
    """
    What more sealed rows would bring.

    Args:
        report: the evaluation.

    Returns: a table and sentences; nothing where the report has no outlook.
    """
    from rich.markup import escape

    from overproof.cli.tables import grid, percent
    from overproof.steps.ahead import outlook_lines

    ahead = report.outlook
    if ahead is None:
        return
    table = grid(f"What {escape(report.chosen)} would keep with more sealed rows", "sealed rows", "that choose", "keeps about",
                 "chance to keep any", right=range(4))  # fmt: skip
    for row in ahead.more:
        times = "as now" if row.times == 1 else f"{row.times} x"
        table.add_row(times, f"{row.rows:,}", percent(row.keep), percent(row.chance))
    table.note = f"a forecast from n = {ahead.n:,} calibration rows, off by a third either way where they are few; no promise"
    yield table
    yield from (escape(line) for line in outlook_lines(report))
    yield ""


def after_end(ends: str, on_expiry: str) -> str:
    """
    What happens after a certificate's end, beside the warning that it ends.

    Args:
        ends: of `tables.expiry_words`; may be empty.
        on_expiry: "refuse" or "warn".

    Returns: the warning with what follows from it; empty where there is none.
    """
    if not ends:
        return ""
    then = "the bundle goes on and warns" if on_expiry == "warn" else "everything goes to the teacher"
    return f"{ends}; after the end {then}"
