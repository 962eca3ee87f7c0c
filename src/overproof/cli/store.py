"""The verb for where a project's store lives."""

from __future__ import annotations

from pathlib import Path

import click

from overproof.cli.door import Door, verb
from overproof.errors import EXIT_PASS


@click.command(short_help="Say what the store holds; move it to Postgres and back; share its artifacts.")
@click.argument("action", type=click.Choice(["check", "move", "push", "new-secret"]))
@click.option("--to", type=click.Choice(["postgres", "files"]), default=None, help="With move: where to.")
@click.option("--dsn-env", default="OVERPROOF_DSN", show_default=True, help="Environment variable that holds the server's address.")
@click.option("--schema", default="overproof", show_default=True, help="What the names of its two schemas begin with.")
@click.option("--by", default="", metavar="NAME", help="With new-secret: who decides.")
@click.option("--why", default="", metavar="TEXT", help="With new-secret: why, for the log of decisions.")
@verb
def store(door: Door, action: str, *, to: str | None, dsn_env: str, schema: str, **said: str) -> int:
    """
    Count and digest every table, move all rows to another engine (what was there before stays as it was), share artifacts that were made before,
    or begin with another secret for surrogates.
    """
    from rich.table import Table

    from overproof.errors import DataError
    from overproof.store.move import digests_of, move
    from overproof.store.place import Remote, remote_of

    root = door.load().root
    if action == "push":
        from overproof.store.project_store import open_store

        with open_store(root) as opened, opened.role("run"):  # no erasure meanwhile
            opened.signatures.take_in()
            shared = opened.objects.push_all()
        door.emit({"shared": shared}, f"{shared:,} values, folders and records of steps are shared")
        return EXIT_PASS
    if action == "new-secret":
        return _new_secret(door, root, **said)
    if action == "move":
        if to is None:
            raise DataError("where to?", next_action="give --to postgres or --to files")
        found = move(root, Remote(dsn_env=dsn_env, schema=schema) if to == "postgres" else None)
    else:
        home = root / ".overproof"
        found = digests_of(home, remote_of(home))
    table = Table("table", "rows", "digest", title=f"{'moved to' if action == 'move' else 'the store is in'} {to or ('postgres' if remote_of(root / '.overproof') else 'files')}")
    for one in found:
        table.add_row(one.table, f"{one.rows:,}", one.digest[:16])
    door.emit([*found], table)
    return EXIT_PASS


def _new_secret(door: Door, root: Path, *, by: str, why: str) -> int:
    from overproof.errors import DataError
    from overproof.project import is_person
    from overproof.store.project_store import open_store

    if (reason := is_person(by, "x@x.xx")) or not why.strip():
        raise DataError(f"--by: {reason}" if reason else "--why is empty", next_action="say who decides, and why: it goes into the log of decisions")
    with open_store(root) as opened, opened.role("watch"), opened.role("run"):
        mark = opened.new_secret(by=by, why=why)
    door.emit({"fingerprint": mark}, f"new secret {mark}: known people get other surrogates, and rows that were erased are not known again; bring it to every machine")
    return EXIT_PASS
