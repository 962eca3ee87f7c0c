"""`overproof erase`: a subject's rows and all that was made of them go, with a proof; every byte is read for what may be left."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from overproof.cli.door import Door, verb
from overproof.errors import EXIT_PASS, EXIT_REFUSED, DataError

if TYPE_CHECKING:
    from overproof.erasure import Checked, Erasure

_SHOWN = 20


@click.command(short_help="Erase a person's rows and all that was made of them; prove it.")
@click.option("--subject", default="", metavar="VALUE", help="What an attribute or the session says of the person.")
@click.option("--column", default="", metavar="NAME", help='The attribute, or "session"; any of them where not given.')
@click.option("--ids", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A file with one request id a line.")
@click.option("--mentions", is_flag=True, help="Rows whose texts contain VALUE as well.")
@click.option("--by", default="", metavar="NAME", help="Who asks.")
@click.option("--why", default="", metavar="TEXT", help="Why, for the proof.")
@click.option("--check", "only_check", is_flag=True, help="Erase nothing; read every byte for what was erased before.")
@verb
def erase(door: Door, subject: str, **given: object) -> int:
    """Erase the rows of VALUE, or of the ids in a file, from log, ledger, reviews, audits and artifacts; then look for them in every byte."""
    from overproof.erasure import check, nobody, spelled
    from overproof.erasure import erase as erase_now
    from overproof.project import is_person
    from overproof.store.erasing import Subject
    from overproof.store.project_store import open_store

    project = door.load()
    with open_store(project.root) as store:
        if given["only_check"]:
            found = check(store, project.root)
            door.emit(found, *_told_check(found))
            return EXIT_PASS if found.clean else EXIT_REFUSED
        listed = given["ids"]
        ids = listed.read_text(encoding="utf-8").splitlines() if isinstance(listed, Path) else []
        whose = Subject(
            values=frozenset({subject} if subject else ()), column=str(given["column"]), ids=frozenset(filter(None, map(str.strip, ids))),
            mentions=bool(given["mentions"]),
        )  # fmt: skip
        nobody(whose)
        if reason := is_person(str(given["by"]), "x@x.xx"):
            raise DataError(f"--by: {reason}", next_action="name who asks for it")
        if not str(given["why"]).strip():
            raise DataError("--why is empty; a proof says why", next_action='add --why "asked for it on 2 March"')
        done = erase_now(store, project, spelled(store, project, whose), by=str(given["by"]), why=str(given["why"]))
    door.emit(done, *_told(done))
    return EXIT_PASS if done.checked.clean else EXIT_REFUSED


def _told(done: Erasure) -> list[str]:
    from rich.markup import escape

    if not done.decision:
        return ["no row of this subject is here; nothing was changed", *_told_check(done.checked)]
    lines = [f"erased ({place}): {n:,}" for place, n in sorted(done.counts.items())]
    lines += [f"[yellow]release {name}[/] was trained on {n:,} of these rows; its weights can't forget, only the next training leaves them out" for name, n in done.releases.items()]
    if done.shared or done.short:
        lines.append(f"not looked for: {done.shared:,} pieces that rows of others hold as well, {done.short:,} texts of under 12 characters")
    lines += [f"not reached: the backup of {at[:16]} in {escape(folder)}; make a new one, then delete that" for folder, at in done.backups.items()]
    return [*lines, f"proof: entry {done.decision} of the decisions log, subject {done.subject[:16]}…", *_told_check(done.checked)]


def _told_check(found: Checked) -> list[str]:
    from rich.markup import escape

    again = f"; {found.said_again:,} more stand in rows that came later" if found.said_again else ""
    lines = [f"{found.files:,} files read for {found.pieces:,} pieces of erased texts{again}: " + ("[green]none found[/]" if found.clean else f"[bold red]found in {len(found.hits):,}[/]")]
    lines += [f"  {escape(name)}: {n:,} places" for name, n in list(found.hits.items())[:_SHOWN]]
    if any(not name.startswith((".overproof/", "shared ")) for name in found.hits):
        lines.append("next: files outside .overproof are yours; delete or mend them, then `overproof erase --check`")
    return lines
