"""What `show sizes` prints: sizes, learning curves, seeds, what limits each student, and where rare and critical cases break."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.markup import escape

from overproof.cli.door import jsonable
from overproof.cli.tables import grid, interval, percent
from overproof.evidence import Compression, Size, Sizing
from overproof.steps.size_verdict import pair_words


def sizes_told(sizing: Sizing | None, cases: Compression | None) -> tuple[Any, ...]:
    """
    What there is of sizes, as values and for a terminal.

    Args:
        sizing: the verdict; None where [sizing] is off.
        cases: across the ladder; None where there is none.

    Returns: JSON's value first (the verdict's, with "cases" beside it), then tables and sentences.
    """
    told = {**(jsonable(sizing) if sizing is not None else {}), **({"cases": jsonable(cases)} if cases is not None else {})}
    return (told, *(sizes_page(sizing) if sizing is not None else ()), *(cases_page(cases) if cases is not None else ()))


def cases_page(found: Compression) -> Iterator[Any]:
    """
    Rare and critical cases across the ladder.

    Args:
        found: of a run.

    Returns: a table.
    """
    table = grid("Rare and critical cases by size", "case", "n", "student", "right", "95%", "lost to a larger one", "", right=(1, 3))
    for case in found.cases:
        for at, rung in enumerate(case.rungs):
            name, n = ("", "") if at else (f"{escape(case.name)} ({case.kind})", f"{case.n:,}")
            lost = f"{100 * rung.lost:+.1f} ({100 * rung.low:+.1f} to {100 * rung.high:+.1f})" if rung.lost_to else "-"
            state = "[bold red]breaks[/]" if rung.state == "broken" else rung.state
            table.add_row(name, n, escape(rung.name), percent(rung.right.value), interval(rung.right), lost, state)
    table.note = (
        f"right: on {found.n:,} calibration rows, each student alone; lost: points, paired, all intervals together at 95%; "
        f"it breaks where more than {100 * found.loss:g} points are lost for certain"
    )
    yield table


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
