"""The verb that signs releases and says whose signatures count."""

from __future__ import annotations

import tempfile
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from overproof.cli.door import Door, verb
from overproof.errors import EXIT_PASS, DataError

if TYPE_CHECKING:
    from overproof.project import Project

USAGE = "overproof sign new-key FILE | trust FILE.pub --person NAME [--days N] | release [RUN] --key FILE | list"


@click.command(short_help="Sign a release; say whose signatures count.")
@click.argument("action", type=click.Choice(["new-key", "trust", "release", "list"]))
@click.argument("what", default="")
@click.option("--key", type=click.Path(path_type=Path), default=None, help="release: the private key, kept outside the project.")
@click.option("--person", default="", help="trust: who holds the private half.")
@click.option("--days", type=click.IntRange(min=1), default=None, help="trust: for how long; without an end where absent.")
@verb
def sign(door: Door, action: str, what: str, **given: Any) -> int:
    """Sign releases with an offline ECDSA P-256 key (OpenSSF Model Signing v1).

    Once `trusted_keys.toml` stands beside the project file, no release that none of its keys signed is served, promoted or
    exported, --force or not. A release is signed as `overproof export` writes it: bundle, papers and verify.py.
    """
    key, person, days = given["key"], given["person"], given["days"]
    wanted = {"new-key": bool(what), "trust": bool(what and person), "release": key is not None, "list": not what}[action]
    if not wanted or (key is not None and action != "release") or ((person or days) and action != "trust"):
        raise DataError(f"`sign {action}` doesn't go with what was given", next_action=USAGE)
    project = door.load()
    if action == "new-key":
        return _new_key(door, project, Path(what))
    if action == "trust":
        return _trust(door, project, Path(what), person=person, days=days)
    return _release(door, project, what or None, key=key) if action == "release" else _list(door, project)


def _new_key(door: Door, project: Project, path: Path) -> int:
    from overproof.signatures import make_key
    from overproof.verify import key_id

    made = key_id(make_key(path, project=project.root))
    public = f"{path}.pub"
    door.emit({"id": made, "private": str(path), "public": public}, f"key {made[:16]}; keep it offline and let nobody else read it:", path, f"next: overproof sign trust {public} --person NAME")
    return EXIT_PASS


def _trust(door: Door, project: Project, path: Path, *, person: str, days: int | None) -> int:
    from rich.markup import escape

    from overproof.runs import today_of
    from overproof.signatures import TRUSTED, trust_key
    from overproof.store.project_store import open_store

    with open_store(project.root) as store:
        since = today_of(store)
        one = trust_key(project.root, path, person=person, since=since, until=since + timedelta(days=days) if days else None)
        store.decisions.append("key trusted", actor=one.person, subject=one.id, body={"from": one.since, "until": one.until})
    end = f"until {one.until}" if one.until else "with no end"
    door.emit(
        {"id": one.id, "person": one.person, "from": one.since, "until": one.until or None},
        f"{TRUSTED}: key {one.id[:16]} of {escape(one.person)} from {one.since}, {end}; releases without a trusted signature no longer serve",
    )
    return EXIT_PASS


def _release(door: Door, project: Project, run_id: str | None, *, key: Path) -> int:
    from overproof.cli.export import decided_so_far, write_release
    from overproof.evidence import Release
    from overproof.pipeline import load_run
    from overproof.signatures import sign_folder, signed_as
    from overproof.store.project_store import open_store

    if not (project.root / ".overproof").is_dir():
        raise DataError("the project has no store yet", next_action="run `overproof run` first")
    if key.resolve().is_relative_to(project.root.resolve()):
        raise DataError(f"{str(key)!r} lies in the project", next_action="move the private key out: whoever may write the project must not be able to sign it")
    with open_store(project.root) as store, tempfile.TemporaryDirectory() as scratch:
        result = load_run(store, run_id)
        if not isinstance(result.verdict, Release):
            raise DataError(f"run {result.run_id} was refused: there is no release to sign", next_action="read `overproof show verdict`")
        folder, release = Path(scratch) / "release", result.verdict
        decided = decided_so_far(store, result, signed=False)
        write_release(result, folder, decided=decided)
        raw = sign_folder(folder, key, name=f"{release.task}-{release.id}")
        signed_as(raw, folder)
        store.signatures.put(release.id, raw)
        by = _hint(raw)
        store.decisions.append("signed", actor=by[:16], subject=release.id, body={"key": by, "decisions": decided.named})
    door.emit({"release": release.id, "key": by, "bytes": len(raw)}, f"release {release.id} is signed with key {by[:16]}", "next: overproof export --to FOLDER, or overproof promote")
    return EXIT_PASS


def _list(door: Door, project: Project) -> int:
    from rich.markup import escape

    from overproof.cli.tables import grid
    from overproof.signatures import trusted_keys
    from overproof.store.signatures import UNSIGNED

    found = trusted_keys(project.root)
    table = grid("Trusted keys", "id", "person", "from", "until", "today")
    today = date.today()  # noqa: DTZ011 - the reader's own day
    for one in found or ():
        table.add_row(one.id[:16], escape(one.person), one.since, one.until or "-", "holds" if one.holds(today) else "[red]not trusted[/]")
    body = [{"id": one.id, "person": one.person, "from": one.since, "until": one.until or None} for one in found or ()]
    door.emit(body, *([table] if found else [UNSIGNED]))
    return EXIT_PASS


def _hint(raw: bytes) -> str:
    import json

    return str(json.loads(raw)["verificationMaterial"]["publicKey"]["hint"])
