"""The verb that takes logs which a user already has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from overproof import registry
from overproof.cli.door import Door, verb
from overproof.errors import EXIT_PASS, DataError

if TYPE_CHECKING:
    from overproof.importers import ColumnMapping
    from overproof.privacy.redact import Redactor
    from overproof.project import Project
    from overproof.store.project_store import Store


@click.command("import", short_help="Take logs in.")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILES...")
@click.option("--format", "format_name", default=None, help="Importer, for example jsonl.v1; sniffed where absent.")
@click.option("--map", "pairs", multiple=True, metavar="FIELD=COLUMN", help="Where a field is; repeat for several.")
@click.option("--replace", is_flag=True, help="Rows of a known id with other content take the old one's place.")
@verb
def import_files(door: Door, paths: tuple[Path, ...], format_name: str | None, pairs: tuple[str, ...], *, replace: bool) -> int:
    """Take FILES into the traffic log; a bad row is kept aside with its reason, and the same file twice adds nothing."""
    from overproof.store.project_store import open_store

    project = door.load()
    if missing := [str(p) for p in paths if not p.is_file()]:
        raise DataError(f"no file {', '.join(missing)}", next_action="look at the path; patterns are your shell's to expand")
    with open_store(project.root) as store:
        done = take(store, project, paths, format_name=format_name, pairs=pairs, replace=replace)
        counts = store.traffic.counts()
    body = {"files": done, "log": {"rows": counts.records, "skipped": counts.skipped, "conflicts": counts.conflicts}}
    from overproof.cli.tables import import_page

    door.emit(body, *import_page(body))
    return EXIT_PASS


def take(
    store: Store, project: Project, paths: Sequence[Path], *, format_name: str | None = None, pairs: Sequence[str] = (), replace: bool = False
) -> list[dict[str, Any]]:
    """
    Append files to the traffic log.

    Args:
        store: the project's store.
        project: names input fields and columns.
        paths: log files.
        format_name: an importer's name; sniffed where None.
        pairs: "field=column" over the file's own [traffic] columns.
        replace: rows of a known id with other content take the old one's place.

    Returns: per file its format and counts.
    Raises: DataError for a file or mapping that can't be used.
    """
    from overproof.importers import read_file

    mapping, redactor = _mapping(pairs, project), redactor_for(store, project)
    done = []
    for path in paths:
        name = _importer(path, format_name)
        before = redactor.counts.copy()
        rows = redactor.rows(read_file(path, mapping, use=name))
        report = store.traffic.append(rows, redactor.text(f"{path.name} ({name})"), replace=replace)
        replaced = dict(sorted((redactor.counts - before).items()))
        done.append({"file": path.name, "format": name, **asdict(report), "redacted": replaced})
    return done


def redactor_for(store: Store, project: Project) -> Redactor:
    """
    What stands between an importer and the log; a policy that is off or has changed goes into the decisions log.

    Args:
        store: holds the project's secret.
        project: says the policy in [privacy].

    Returns: the redactor.
    """
    from overproof.privacy.redact import Policy, redactor_of

    redactor = redactor_of(project.privacy, key=store.secret, keep=project.task.output.labels)
    known = Policy().digest
    for decision in store.decisions.read():
        known = decision.body["policy"] if decision.kind == "privacy" else known
    if known != redactor.policy.digest:
        table = project.privacy
        body = {"policy": redactor.policy.digest, "mode": table.mode, "redact": list(table.redact), "sessions": table.sessions,
                "reason": table.reason}  # fmt: skip
        actor = project.owner.name if project.owner else "nobody"
        store.decisions.append("privacy", actor=actor, subject="what is replaced before it is written", body=body)
    return redactor


def _importer(path: Path, format_name: str | None) -> str:
    from overproof.importers import pick

    if format_name is None:
        return pick(path)
    known = registry.names("importers")
    name = format_name if format_name in known or ":" in format_name else f"{format_name}.v1"
    if name not in known and ":" not in name:
        raise DataError(
            f"no importer named {format_name!r}. {registry.suggest(format_name, known)}", next_action="leave --format out to sniff"
        )
    return name


def _mapping(pairs: Sequence[str], project: Project) -> ColumnMapping:
    """The file's [traffic] columns, then --map over them; `attributes` takes a list with commas."""
    from overproof.importers import GUESSES, ColumnMapping

    fields = project.task.input
    known = sorted({*GUESSES, *fields, "attributes"})
    columns = dict(project.traffic.columns)
    for pair in pairs:
        key, equals, column = pair.partition("=")
        if not equals or not column or key not in known:
            raise DataError(
                f"--map {pair!r}: {registry.suggest(key, known)}", next_action="write --map FIELD=COLUMN, for example --map gold=queue"
            )
        columns[key] = column
    attributes = columns.pop("attributes", None)
    return ColumnMapping(
        fields=fields, columns=columns, attributes=tuple(attributes.split(",")) if attributes else None, prompt=project.task.prompt
    )
