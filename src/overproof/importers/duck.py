"""DuckDB with every door shut but the one that is asked for: Parquet files, and queries of the user's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from overproof.errors import DataError, MissingExtra

BLOCK = 1_000


def parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    """
    The rows of a Parquet file, in order and in bounded memory.

    Args:
        path: the file; not packed, and without * ? [ in its name.

    Returns: column to value, lazily.
    Raises: DataError for a file that can't be read; MissingExtra without DuckDB.
    """
    duckdb = _library(f"reading {path.name!r}")
    path = path.absolute()
    if path.suffix in (".gz", ".zst") or any(mark in path.name for mark in "*?["):
        raise DataError(
            f"{path.name!r}: Parquet files are read as they are, and * ? [ in a name mean many files",
            next_action="unpack or rename the file",
        )
    connection = duckdb.connect(":memory:")
    try:
        shut(connection, path.parent)
        yield from fetched(connection.execute("SELECT * FROM read_parquet(?)", [str(path)]))
    except duckdb.Error as error:
        raise DataError(
            f"{path.name!r} can't be read as Parquet: {str(error).splitlines()[0]}",
            next_action="check the file; it may be cut off",
        ) from error
    finally:
        connection.close()


def first_row_as_json(path: Path) -> bytes:
    """
    The first row of a Parquet file as one line of JSON, for importers that know a log by its names.

    Args:
        path: the file.

    Returns: the line; empty where there is no row, or the file can't be read.
    Raises: MissingExtra without DuckDB.
    """
    rows = parquet_rows(path)
    try:
        row = next(rows, None)
    except DataError:
        return b""
    finally:
        getattr(rows, "close", lambda: None)()
    return b"" if row is None else json.dumps(row, default=str).encode()


@contextmanager
def database(name: str, folder: Path) -> Iterator[Any]:
    """
    A connection that may read one database file, or files of one folder.

    Args:
        name: path of a DuckDB file, opened read-only; "" for a database in memory.
        folder: what a query over files may read; everything else is refused.

    Returns: the connection, locked down.
    Raises: DataError where the file can't be opened; MissingExtra without DuckDB.
    """
    duckdb = _library("a query with duckdb:")
    try:
        connection = duckdb.connect(name or ":memory:", read_only=bool(name))
    except duckdb.Error as error:
        raise DataError(
            f"DuckDB can't open {name!r}: {str(error).splitlines()[0]}", next_action="look at the path; another process may hold it"
        ) from error
    try:
        shut(connection, folder)
        yield connection
    except duckdb.Error as error:
        raise DataError(f"the query failed: {str(error).splitlines()[0]}", next_action="mend --query") from error
    finally:
        connection.close()


def fetched(cursor: Any) -> Iterator[dict[str, Any]]:
    """
    The rows of a cursor, block by block.

    Args:
        cursor: with `description` and `fetchmany`.

    Returns: column to value, lazily.
    """
    names = [column[0] for column in cursor.description or ()]
    while block := cursor.fetchmany(BLOCK):
        for cells in block:
            yield dict(zip(names, cells, strict=True))


def shut(connection: Any, folder: Path) -> None:
    """
    No extension is fetched, no file outside the folder is read, no setting can be changed back.

    Args:
        connection: a DuckDB connection.
        folder: the one that stays open.
    """
    quoted = str(folder.absolute()).replace("'", "''")
    connection.execute("SET autoinstall_known_extensions=false")
    connection.execute("SET autoload_known_extensions=false")
    connection.execute("SET enable_progress_bar=false")  # it writes to stdout, which belongs to the caller
    connection.execute("SET enable_external_file_cache=false")
    connection.execute("SET memory_limit='512MB'")
    connection.execute("SET threads=1")
    connection.execute("SET preserve_insertion_order=true")
    connection.execute(f"SET allowed_directories=['{quoted}/']")
    connection.execute("SET enable_external_access=false")
    connection.execute("SET lock_configuration=true")


def _library(part: str) -> Any:
    try:
        import duckdb
    except ImportError as error:
        raise MissingExtra(part, extra="duckdb") from error
    return duckdb
