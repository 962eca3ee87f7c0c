"""`overproof ablate`: whether each rule of the filter helps the student."""

from __future__ import annotations

import sys

import click

from overproof.cli.door import Door, console_on, verb
from overproof.errors import EXIT_PASS, DataError


@click.command(short_help="Train with and without each rule of the filter.")
@click.option("--student", default="", metavar="NAME", help="Which student to train; the cheapest of the file where absent.")
@verb
def ablate(door: Door, student: str) -> int:
    """Train the cheapest student with and without each rule, and compare on calibration rows; changes nothing."""
    from rich.markup import escape

    from overproof.ablation import ablate as work
    from overproof.cli.tables import grid, percent
    from overproof.cli.walk import Steps
    from overproof.store.project_store import open_store

    project = door.load()
    if not (project.root / ".overproof").is_dir():
        raise DataError("the project has no store yet", next_action="run `overproof import FILES` first")
    steps = Steps(console_on(sys.stderr if door.as_json else sys.stdout))
    with open_store(project.root) as store:
        found = work(store, project, student=student, on_event=steps.tell)
        steps.flush()
    table = grid(
        f"{escape(found.student)} with and without each rule, on calibration rows", "rule", "rows", "with", "without", "gain, points", "n", "p", "verdict",
        right=range(1, 7),
    )  # fmt: skip
    for one in found.effects:
        gain = "-" if one.gain is None else f"{100 * one.gain:+.1f} ({100 * one.low:+.1f} to {100 * one.high:+.1f})"
        table.add_row(
            escape(one.rule), f"{one.rows:,}", percent(one.with_rule.value), percent(one.without.value), gain, f"{one.n:,}", f"{one.p:.2g}", one.verdict,
        )  # fmt: skip
    body = {"ablation": found, "words": [one.words for one in found.effects]}
    if not found.effects:
        door.emit(body, f"no rule drops or changes one of the {found.rows:,} training rows: there is nothing to compare")
        return EXIT_PASS
    note = f"exact McNemar, a chance of {found.delta:g} that any of the verdicts is false; they speak of these fitted students. Nothing was changed"
    door.emit(body, table, *(escape(one.words) for one in found.effects), note)
    return EXIT_PASS
