"""The verb that shows it all on bundled data."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from overproof.cli.door import Door, console_on, verb
from overproof.errors import EXIT_PASS


@click.command(short_help="Walk the whole road on bundled data.")
@click.argument("folder", type=click.Path(path_type=Path), default=Path("overproof-demo"))
@click.option("--loop", "looped", is_flag=True, help="Go on: serve the later quarter, watch it, and mend what it breaks.")
@verb
def demo(door: Door, folder: Path, *, looped: bool) -> int:
    """Put the bundled shop inbox into FOLDER and distil it: traffic, verdict, dossier; no key and no network.

    Ends with exit code 0 whatever the verdict: it shows one, it decides nothing. With --loop it serves the later quarter, in
    which the world changes, watches it, distils again, and ends with 0 where that mended it.
    """
    if looped:
        from overproof.cli.loop import loop

        return loop(door, folder)
    from overproof.cli.bundled import make_demo
    from overproof.cli.walk import walk
    from overproof.project import load_project

    project = load_project(make_demo(folder), overrides=door.overrides)
    told = console_on(sys.stderr if door.as_json else sys.stdout)
    told.print(
        "Northlane sells home gadgets. A large model sorts its inbox today: can a small one take over?\n"
        f"2,000 messages of an ordinary quarter, four languages, 15 queues, one of them critical. Project: {folder}\n"
    )
    walk(door, project, to=None)
    told.print(f"[bold]next:[/] read the dossier, change {folder}/overproof.toml, then `overproof run --project {folder}`")
    return EXIT_PASS  # a refusal is what the demo is there to show
