"""The verb that takes logs which a user already has."""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from overproof import registry
from overproof.cli.door import Door, verb
from overproof.errors import EXIT_PASS, DataError

if TYPE_CHECKING:
    from overproof.data import Skipped, TrafficRecord
    from overproof.importers import ColumnMapping, Reading
    from overproof.importers.frames import LearnedFrame
    from overproof.privacy.redact import Redactor
    from overproof.project import Project
    from overproof.store.project_store import Store

LEARN_FROM = 20_000
"""A frame is learned from a sample of so many first rows."""
LEARN_SAMPLE = 500
MOST_REASONS = 100
"""So many reasons are counted apart; what comes after is one count."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Intake:
    """How logs are read."""

    format_name: str | None = None
    """An importer's name; sniffed where None."""
    pairs: tuple[str, ...] = ()
    """"field=column" over the file's own [traffic] columns."""
    replace: bool = False
    """Rows of a known id with other content take the old one's place."""
    query: str | None = None
    """One SELECT, for sources that are databases."""
    template: str | None = None
    """Over the file's own [traffic] template."""
    inputs: Path | None = None
    """The requests that batch results belong to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Source:
    """One file or one query."""

    shown: str
    format: str
    why: str
    """What the format was recognized by; empty where it was named."""
    path: Path | None
    """None for a database."""
    text: str
    """As the user wrote it."""


@click.command("import", short_help="Take logs in.")
@click.argument("paths", nargs=-1, required=True, metavar="SOURCES...")
@click.option("--format", "format_name", default=None, help="Importer, for example langfuse.v1; sniffed where absent.")
@click.option("--map", "pairs", multiple=True, metavar="FIELD=COLUMN", help="Where a field is; repeat for several.")
@click.option("--query", default=None, metavar="SQL", help="One SELECT, for duckdb:FILE or postgresql://USER@HOST/DB.")
@click.option("--template", default=None, help="Frame of the logged prompts, with {field} for each input field.")
@click.option("--learn-template", "learn", is_flag=True, help="Find the frame that the logged prompts share.")
@click.option("--inputs", type=click.Path(path_type=Path), default=None, help="Requests that batch results belong to.")
@click.option("--replace", is_flag=True, help="Rows of a known id with other content take the old one's place.")
@verb
def import_files(
    door: Door, paths: tuple[str, ...], *, format_name: str | None, pairs: tuple[str, ...], query: str | None,
    template: str | None, inputs: Path | None, learn: bool, replace: bool,
) -> int:  # fmt: skip
    """
    Take SOURCES into the traffic log: files, folders, patterns, or a database with --query.

    A bad row is kept aside with its reason, and the same file twice adds nothing.
    """
    from overproof.importers.files import expand
    from overproof.importers.query import is_database
    from overproof.store.project_store import open_store

    project = door.load()
    intake = Intake(format_name=format_name, pairs=pairs, replace=replace, query=query, template=template, inputs=inputs)
    databases = [text for text in paths if is_database(text)]
    if bool(databases) != bool(query):
        raise DataError(
            "--query and a database go together", next_action='write overproof import duckdb:FILE --query "SELECT …"'
        )
    found = expand([Path(text) for text in paths if not is_database(text)])
    sources: list[str | Path] = [*found.files, *databases]
    body: dict[str, Any] = {}
    if learn:
        learned = learned_frame(project, sources, intake)
        intake = _with_template(intake, learned.frame.template)
        body["template"] = {"text": learned.frame.template, **asdict(learned)}
        del body["template"]["frame"]
    with open_store(project.root) as store:
        done = take(store, project, sources, intake=intake)
        counts = store.traffic.counts()
    body["files"] = done
    body["not_read"] = [str(path) for path in found.passed]
    body["log"] = {"rows": counts.records, "skipped": counts.skipped, "conflicts": counts.conflicts}
    from overproof.cli.tables import import_page

    door.emit(body, *import_page(body))
    return EXIT_PASS


def take(
    store: Store, project: Project, paths: Sequence[Path | str], *, intake: Intake | None = None
) -> list[dict[str, Any]]:
    """
    Append files, or the rows of a query, to the traffic log.

    Args:
        store: the project's store.
        project: names input fields, columns and the template.
        paths: log files, or databases as "duckdb:FILE" and "postgresql://…".
        intake: how they are read.

    Returns: per source its format, why it was taken for that, and what became of every row.
    Raises: DataError for a file or mapping that can't be used.
    """
    intake = intake or Intake()
    mapping, redactor = _mapping(project, intake), redactor_for(store, project)
    done = []
    for path in paths:
        source = _source(path, intake.format_name)
        reading = _reading(source, mapping, intake, project)
        reasons: Counter[str] = Counter()
        before = redactor.counts.copy()
        rows = redactor.rows(reading.rows)
        report = store.traffic.append(_counted(rows, reasons), redactor.text(f"{source.shown} ({source.format})"), replace=intake.replace)
        done.append({
            "file": source.shown, "format": source.format, "why": source.why, "read": report.total, **asdict(report),
            "reasons": dict(reasons.most_common()), "passed": dict(reading.notes.passed.most_common()),
            "ignored": dict(reading.notes.ignored.most_common()),
            "redacted": dict(sorted((redactor.counts - before).items())),
        })  # fmt: skip
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


def learned_frame(project: Project, paths: Sequence[Path | str], intake: Intake) -> LearnedFrame:
    """
    The frame that the prompts of some logs share.

    Args:
        project: names the input fields.
        paths: as `take` reads them.
        intake: how they are read.

    Returns: the frame, from a sample of the first `LEARN_FROM` rows.
    Raises: DataError where no frame fits nearly all of them.
    """
    from overproof.data import TrafficRecord
    from overproof.importers import GUESSES
    from overproof.importers.calls import HISTORY
    from overproof.importers.frames import learn

    mapping = _mapping(project, _with_template(intake, ""))
    whole = replace(  # one field that is the whole prompt
        mapping, fields=("message",), template="{message}", prompt="", attributes=None,
        columns={role: column for role, column in mapping.columns.items() if role in GUESSES},
    )  # fmt: skip

    def prompts() -> Iterator[str]:
        for path in paths:
            for row in _reading(_source(path, intake.format_name), whole, intake, project).rows:
                if isinstance(row, TrafficRecord):
                    yield row.request.fields["message"]

    texts = list(itertools.islice(prompts(), LEARN_FROM))
    draw = random.Random(0)  # noqa: S311 - the same sample every time
    sample = texts if len(texts) <= LEARN_SAMPLE else [texts[i] for i in sorted(draw.sample(range(len(texts)), LEARN_SAMPLE))]
    return learn(sample, [name for name in project.task.input if name != HISTORY])


def _with_template(intake: Intake, template: str) -> Intake:
    return replace(intake, template=template)


def _counted(rows: Iterable[TrafficRecord | Skipped], reasons: Counter[str]) -> Iterator[TrafficRecord | Skipped]:
    """Count why rows are kept aside; a reason's particulars in quotes and its figures don't make it another one."""
    from overproof.data import Skipped

    for row in rows:
        if isinstance(row, Skipped):
            kind = re.sub(r"'[^']*'|\"[^\"]*\"|\d+", "…", row.reason)
            reasons[kind if kind in reasons or len(reasons) < MOST_REASONS else "other reasons"] += 1
        yield row


def _source(path: Path | str, format_name: str | None) -> _Source:
    from overproof.importers import guess
    from overproof.importers.query import is_database, shown

    if isinstance(path, str) and is_database(path):
        return _Source(shown=shown(path), format=_named(format_name) or "query", why="", path=None, text=path)
    path = Path(path)
    named = _named(format_name)
    if named is not None:
        return _Source(shown=path.name, format=named, why="", path=path, text=str(path))
    found = guess(path)
    return _Source(shown=path.name, format=found.name, why=found.reason, path=path, text=str(path))


def _reading(source: _Source, mapping: ColumnMapping, intake: Intake, project: Project) -> Reading:
    from overproof.importers import reading
    from overproof.importers.query import from_query

    if source.path is not None:
        return reading(source.path, mapping, use=source.format)
    use = None if source.format == "query" else source.format
    return from_query(source.text, intake.query or "", mapping, folder=project.root.absolute(), use=use)


def _named(format_name: str | None) -> str | None:
    if format_name is None:
        return None
    known = registry.names("importers")
    name = format_name if format_name in known or ":" in format_name else f"{format_name}.v1"
    if name not in known and ":" not in name:
        raise DataError(
            f"no importer named {format_name!r}. {registry.suggest(format_name, known)}", next_action="leave --format out to sniff"
        )
    return name


def _mapping(project: Project, intake: Intake) -> ColumnMapping:
    """The file's [traffic] columns, then --map over them; `attributes` takes a list with commas."""
    from overproof.importers import GUESSES, ColumnMapping
    from overproof.outputs import Fields

    fields = project.task.input
    known = sorted({*GUESSES, *fields, "attributes"})
    columns = dict(project.traffic.columns)
    for pair in intake.pairs:
        key, equals, column = pair.partition("=")
        if not equals or not column or key not in known:
            raise DataError(
                f"--map {pair!r}: {registry.suggest(key, known)}", next_action="write --map FIELD=COLUMN, for example --map gold=queue"
            )
        columns[key] = column
    attributes = columns.pop("attributes", None)
    template = project.traffic.template if intake.template is None else intake.template
    return ColumnMapping(
        fields=fields, columns=columns, attributes=tuple(attributes.split(",")) if attributes else None,
        prompt=project.task.prompt, template=template, inputs=intake.inputs,
        records=isinstance(project.task.output, Fields),
    )  # fmt: skip

