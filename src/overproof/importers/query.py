"""
Rows of a query: DuckDB (a database file, or files that the query names) and Postgres.

Source: DuckDB documentation, "Securing DuckDB"; psycopg 3 documentation, "Server-side cursors"; libpq, "Connection URIs".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit, urlunsplit

from overproof.data import Skipped, TrafficRecord
from overproof.errors import DataError, MissingExtra
from overproof.importers import ColumnMapping, Notes, Reading
from overproof.importers.calls import CallImporter
from overproof.importers.duck import BLOCK, database, fetched
from overproof.importers.objects import Row
from overproof.importers.rows import BadRow, ColumnReader, skipped
from overproof.progress import track
from overproof.registry import resolve

DUCKDB = "duckdb:"
POSTGRES = ("postgres://", "postgresql://")


def is_database(text: str) -> bool:
    """
    Whether an argument names a database instead of a file.

    Args:
        text: as the user wrote it.

    Returns: True for "duckdb:…" and "postgresql://…".
    """
    return text.startswith((DUCKDB, *POSTGRES))


def from_query(source: str, query: str, mapping: ColumnMapping, *, folder: Path, use: str | None = None) -> Reading:
    """
    The rows of a query, read in blocks from a connection that can't write.

    Args:
        source: "duckdb:FILE"; "duckdb:" for a query over files below `folder`; "postgresql://USER@HOST/DATABASE", the
            password in PGPASSWORD or ~/.pgpass.
        query: one SELECT.
        mapping: which column is what.
        folder: all that a query over files may read.
        use: a vendor's importer for rows in its shape, for example "litellm.v1"; None takes plain columns.

    Returns: rows and notes.
    Raises: DataError for a source or query that can't be used; MissingExtra without the Postgres driver.
    """
    name = shown(source)
    found = _duckdb(source.removeprefix(DUCKDB), query, folder) if source.startswith(DUCKDB) else _postgres(source, query)
    if use is None or use.partition(".")[0] in ("jsonl", "csv", "parquet"):
        notes = Notes()
        rows = _plain(found, mapping, name, notes)
    else:
        importer = resolve("importers", use)()
        if not isinstance(importer, CallImporter):
            raise DataError(f"{use} reads files, not rows of a query", next_action="leave --format out and map the columns")
        notes = importer.notes
        whole = (Row(number=i, value=row, raw=repr(row)[:8000]) for i, row in enumerate(found, start=1))
        rows = importer.take(whole, mapping, Path(name))
    return Reading(rows=track(rows, f"import {name}"), notes=notes)


def shown(source: str) -> str:
    """
    A database's name for messages and for the log: no user, no password, no address.

    Args:
        source: as the user wrote it.

    Returns: for example "duckdb:logs.duckdb" or "postgresql:shop".
    """
    if source.startswith(DUCKDB):
        return f"duckdb:{Path(source.removeprefix(DUCKDB)).name}"
    return f"postgresql:{urlsplit(source).path.strip('/')}"


def _plain(found: Iterator[Mapping[str, Any]], mapping: ColumnMapping, name: str, notes: Notes) -> Iterator[TrafficRecord | Skipped]:
    reader = ColumnReader(mapping=mapping, source=f"{name} (query)", notes=notes)
    for number, row in enumerate(found, start=1):
        try:
            record: TrafficRecord | Skipped = reader.record(row, number)
        except BadRow as error:
            record = skipped(Path(name), number, str(error), repr(row))
        yield record
    reader.check(Path(name))


def _duckdb(name: str, query: str, folder: Path) -> Iterator[dict[str, Any]]:
    if name and not Path(name).is_file():
        raise DataError(f"no file {name}", next_action="write duckdb:FILE, or duckdb: for a query over files")
    return _duckdb_rows(name, query, folder)


def _duckdb_rows(name: str, query: str, folder: Path) -> Iterator[dict[str, Any]]:
    with database(name, folder) as connection:
        yield from fetched(connection.execute(query))


def _postgres(source: str, query: str) -> Iterator[dict[str, Any]]:
    try:
        import psycopg
    except ImportError as error:
        raise MissingExtra("reading Postgres", extra="postgres") from error
    address = urlsplit(source)
    if address.password or "password" in parse_qs(address.query):
        raise DataError(
            "a password on the command line is kept in shell histories and seen by every process",
            next_action="put it into PGPASSWORD or ~/.pgpass",
        )
    return _postgres_rows(psycopg, urlunsplit(address), query)


def _postgres_rows(psycopg: Any, address: str, query: str) -> Iterator[dict[str, Any]]:
    try:
        with psycopg.connect(address, connect_timeout=10) as connection:
            connection.read_only = True
            # A named cursor stays on the server: rows come in blocks, whatever the size of the result.
            with connection.cursor(name="overproof_import") as cursor:
                cursor.itersize = BLOCK
                cursor.execute(query)
                yield from fetched(cursor)
    except psycopg.Error as error:
        what = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{shown(address)}: {what}", next_action="look at the address, the rights and --query") from error
