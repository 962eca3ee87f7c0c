"""`status --short` and `status --check`: how the watch stands, for a prompt and for CI, without a look at the runs."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import click

from overproof.cli.door import Door

CODES = {"fine": 0, "open": 1, "blind": 2}
COLOURS = {"fine": "green", "open": "yellow", "blind": "red"}


def brief(door: Door, *, line: bool, check: bool) -> int:
    """
    Say how the watch stands.

    Args:
        door: how to talk.
        line: one line and no more.
        check: the exit code tells.

    Returns: 0; with `check` 0 fine, 1 something is open, 2 the watch doesn't run or is blind.
    """
    from overproof.cli.watch_page import standing_body, standing_lines
    from overproof.store.project_store import open_store
    from overproof.watch.standing import short, standing_of

    project = door.load()
    with open_store(project.root) as store:
        found = standing_of(store, project, now=datetime.now(UTC))
    if line and not door.as_json:
        click.secho(short(found), fg=COLOURS[found.state] if sys.stdout.isatty() else None)
    else:
        body = {"task": found.task, "stage": found.stage, "release": found.release_id, "short": short(found), **standing_body(found)}
        door.emit(body, *(list(standing_lines(found)) or ["nothing serves, and nothing was watched yet"]))
    return CODES[found.state] if check else 0
