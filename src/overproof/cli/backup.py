"""`overproof backup` and `overproof restore`: a copy of a project while it runs, and the way back."""

from __future__ import annotations

from pathlib import Path

import click
from rich.markup import escape

from overproof.cli.door import Door, verb
from overproof.errors import EXIT_PASS


@click.command(short_help="Copy the project to a folder while it runs.")
@click.argument("to", type=click.Path(file_okay=False, path_type=Path))
@click.option("--since", type=click.Path(exists=True, file_okay=False, path_type=Path), default=None, help="An earlier backup on the same disk, which stays: what has not changed is linked.")
@verb
def backup(door: Door, to: Path, since: Path | None) -> int:
    """Copy databases, artifacts and project files to TO; a folder with an earlier backup gets only what is new."""
    from overproof.store.backup import back_up
    from overproof.store.project_store import open_store

    with open_store(door.root) as store:
        done = back_up(store, to, since=since)
    door.emit(
        done,
        f"{done.files:,} files, {done.bytes:,} bytes, {done.copied:,} of them new, {done.linked:,} linked; log of {done.records:,} rows {done.snapshot[:12]}, {done.decisions:,} decisions",
        *([f"[yellow]{done.mended:,} files of the earlier backup are damaged[/]; they were copied anew, here only"] if done.mended else []),
        f"next: `overproof restore {escape(str(to))} FOLDER` brings it back; who can read the folder can read the log and the project's secret",
    )
    return EXIT_PASS


@click.command(short_help="Bring a backup back; every digest is checked first.")
@click.argument("source", metavar="FROM", type=click.Path(file_okay=False, path_type=Path))
@click.argument("into", type=click.Path(file_okay=False, path_type=Path))
@verb
def restore(door: Door, source: Path, into: Path) -> int:
    """Check every file of the backup FROM against its digest, then make the project INTO from it."""
    from overproof.store.backup import restore as bring_back

    done = bring_back(source, into)
    door.emit(
        done,
        f"restored as of {done.at}: {done.files:,} files, log of {done.records:,} rows {done.snapshot[:12]}, chain of {done.decisions:,} decisions sound",
        f"next: `overproof status --project {escape(str(into))}`; a backup from before an erasure brings the rows back: erase again",
    )
    return EXIT_PASS
