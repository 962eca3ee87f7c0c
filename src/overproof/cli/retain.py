"""`overproof retain`: one pass of [privacy.retention], for cron."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from overproof.cli.door import Door, verb
from overproof.errors import EXIT_PASS


@click.command(short_help="End the time of old rows, as [privacy.retention] says.")
@verb
def retain(door: Door) -> int:
    """Blank or remove what has been kept for as long as [privacy.retention] says; a pass with nothing to do changes nothing."""
    from overproof.retention import retain as make_pass
    from overproof.store.project_store import open_store

    project = door.load()
    with open_store(project.root) as store:
        done = make_pass(store, project, now=datetime.now(UTC))
    lines = [f"over ({kind}): {n:,}" for kind, n in sorted(done.counts.items())] or ["nothing is over"]
    if done.kept_for_a_release:
        lines.append(f"{done.kept_for_a_release:,} artifacts are over and stay: a serving release stands on them")
    if done.undated:
        lines.append(f"{done.undated:,} rows of the log have no time; nothing says when theirs is over")
    door.emit(done, *lines)
    return EXIT_PASS
