"""What `show sizes` prints: sizes, learning curves, seeds, and what limits each student."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.markup import escape

from overproof.cli.tables import grid, interval, percent
from overproof.evidence import Size, Sizing
from overproof.steps.size_verdict import pair_words


def sizes_page(sizing: Sizing) -> Iterator[Any]:
    """
    The sizing verdict for a terminal.

    Args:
        sizing: of a run.

    Returns: tables and sentences.
    """
    sizes = sizing.sizes
    yield f"[bold]{escape(sizing.headline)}[/]"
    if sizing.next_candidate:
        yield f"[bold]to try next:[/] {escape(sizing.next_candidate)}"
    table = grid("Students by size, each alone", "", "MB", "error", "95%", "own rows", "over seeds", right=(1, 2, 4))
    for size in sizes.sizes:
        name = ("[bold]> [/]" if size.name == sizing.chosen else "  ") + escape(size.name)
        table.add_row(name, f"{size.size_bytes / 1e6:.1f}", percent(size.error.value), interval(size.error),
                      percent(size.train_error.value), seeds_words(size))  # fmt: skip
    table.note = f"error: share of {sizes.n:,} calibration rows on which it differs from the teacher; own rows: of rows that it was fitted on"
    yield table
    curve = grid("Learning curves", "", "rows", "error", "95%", "bought", "95%", "fits", right=(1, 2, 4, 6))
    for size in sizes.sizes:
        for at, one in enumerate(size.budgets):
            name = "" if at else escape(size.name)
            bought = ["", ""] if one.bought is None or one.bought_low is None or one.bought_high is None else [
                f"{100 * one.bought:+.1f}", f"{100 * one.bought_low:+.1f} to {100 * one.bought_high:+.1f}"]  # fmt: skip
            curve.add_row(name, f"{one.rows:,}", percent(one.error.value), interval(one.error), *bought, str(one.draws))
    curve.note = "bought: points of error less than with the rows before, on the same calibration rows"
    yield curve
    for verdict, size in zip(sizing.students, sizes.sizes, strict=True):
        yield f"[bold]{escape(verdict.name)}[/] is limited by: {escape(verdict.limit)}; {escape(verdict.why)}"
        yield f"  twice the rows would buy: {escape(verdict.twice)}"
        yield from (f"  not fitted: {escape(note)}" for note in size.notes)
    yield from (escape(pair_words(pair)) for pair in sizes.pairs)


def seeds_words(size: Size) -> str:
    """
    What seeds change.

    Args:
        size: one student.

    Returns: for example "±0.4 points, n = 3".
    """
    if size.seeds.random is None:
        return "not tried"
    if not size.seeds.random:
        return "no change"
    return f"±{100 * size.seeds.error_sd:.1f} points, n = {len(size.seeds.errors)}"
