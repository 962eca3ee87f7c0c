"""Tables: JSON lines, CSV and Parquet, one row per request."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from overproof.data import Skipped, TrafficRecord
from overproof.errors import DataError
from overproof.importers import ColumnMapping
from overproof.importers.rows import (
    BOM,
    LINE_CAP,
    BadRow,
    ColumnReader,
    Line,
    first_object,
    lines,
    no_surrogate,
    parse_object,
    skipped,
)

RAW_LINES = 8
"""So many lines of a broken CSV row are kept for the reader."""


class JsonLines:
    """One JSON object per line."""

    def sniff(self, head: bytes, name: str) -> float:
        """How sure: an object on the first line; see `Importer.sniff`."""
        if first_object(head) is not None:
            return 0.8
        named = name.endswith((".jsonl", ".ndjson"))
        return 0.7 if named and head.removeprefix(BOM).lstrip().startswith(b"{") else 0.0

    def read(self, path: Path, mapping: ColumnMapping) -> Iterator[TrafficRecord | Skipped]:
        """The rows; see `Importer.read`."""
        reader = ColumnReader(mapping=mapping, source=f"{path.name} (jsonl.v1)")
        for line in lines(path):
            if isinstance(line, Skipped):
                yield line
                continue
            try:
                record: TrafficRecord | Skipped = reader.record(parse_object(line.data), line.number)
            except BadRow as error:
                record = skipped(path, line.number, str(error), line.data)
            yield record
        reader.check(path)


class Csv:
    """Comma-, semicolon- or tab-separated values with a header line (RFC 4180)."""

    def sniff(self, head: bytes, name: str) -> float:
        """How sure: the name, and a header with a delimiter; see `Importer.sniff`."""
        first = head.removeprefix(BOM).splitlines()[0] if head.strip() else b""
        named = name.endswith((".csv", ".tsv"))
        plain = b"\0" not in first and not first.lstrip().startswith((b"{", b"["))
        if not plain:
            return 0.0
        return 0.9 if named else 0.3 * any(mark in first for mark in (b",", b";", b"\t"))

    def read(self, path: Path, mapping: ColumnMapping) -> Iterator[TrafficRecord | Skipped]:
        """The rows; see `Importer.read`. A column that the header lacks is a DataError."""
        csv.field_size_limit(LINE_CAP)  # the module's only setting is global; a higher cap harms no other reader
        reader = ColumnReader(mapping=mapping, source=f"{path.name} (csv.v1)")
        feed = _CsvFeed(path)
        header: list[str] | None = None
        rows = csv.reader(feed, delimiter=feed.delimiter(), strict=True)
        while True:
            feed.next_row()
            try:
                cells = next(rows)
                if not cells:
                    continue
                if header is None:
                    header = _checked_header(path, cells)
                    continue
                result: TrafficRecord | Skipped = self._row(header, cells, reader, feed)
            except StopIteration:
                break
            except (csv.Error, BadRow) as error:
                result = skipped(path, feed.start, str(error), "\n".join(feed.taken))
            yield from feed.skipped()
            yield result
        yield from feed.skipped()
        reader.check(path)

    def _row(self, header: list[str], cells: list[str], reader: ColumnReader, feed: _CsvFeed) -> TrafficRecord:
        if feed.torn:
            raise BadRow("a line inside the row is too long")
        if len(cells) != len(header):
            raise BadRow(f"{len(cells)} cells, expected {len(header)}")
        no_surrogate("".join(cells), "not UTF-8")
        row: dict[str, Any] = {name: cell or None for name, cell in zip(header, cells, strict=True)}
        return reader.record(row, feed.start)


def _checked_header(path: Path, cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    if len(set(names)) != len(names) or "" in names:
        raise DataError(
            f"{path.name!r}: the header {names!r} has an empty or repeated column name",
            next_action="give each column a name of its own",
        )
    return names


class _CsvFeed:
    """Feeds decoded lines to `csv.reader` and remembers what the current row was made of."""

    def __init__(self, path: Path) -> None:
        self._lines = lines(path, blank=True)
        self._ahead: list[Line | Skipped] = []
        self._aside: list[Skipped] = []
        self.next_row()

    def next_row(self) -> None:
        """Forget the row before."""
        self.taken: list[str] = []
        self.start = 0
        self.torn = False

    def delimiter(self) -> str:
        """The mark that the header uses most."""
        first = next(self._lines, None)
        if first is None:
            return ","
        self._ahead.append(first)
        head = first.data.decode("utf-8", "replace") if isinstance(first, Line) else ""
        return max(",;\t", key=head.count)

    def skipped(self) -> Iterator[Skipped]:
        """Lines that were too long, since the last call."""
        aside, self._aside = self._aside, []
        yield from aside

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while True:
            line = self._ahead.pop() if self._ahead else next(self._lines)
            if isinstance(line, Skipped):
                self._aside.append(line)
                self.torn = bool(self.taken)
                continue
            self.start = self.start or line.number
            # Bytes that are not UTF-8 travel as surrogates, so that the row is told apart without losing its place.
            text = line.data.decode("utf-8", "surrogateescape")
            if len(self.taken) < RAW_LINES:
                self.taken.append(text)
            return text + "\n"


class Parquet:
    """Parquet files, read by DuckDB with every door but the one folder shut."""

    def sniff(self, head: bytes, name: str) -> float:
        """How sure: the magic bytes; see `Importer.sniff`."""
        del name
        return 1.0 if head.startswith(b"PAR1") else 0.0

    def read(self, path: Path, mapping: ColumnMapping) -> Iterator[TrafficRecord | Skipped]:
        """The rows; see `Importer.read`. Lines are row numbers from 1."""
        import duckdb

        path = path.absolute()
        if path.suffix == ".gz" or any(mark in path.name for mark in "*?["):
            raise DataError(
                f"{path.name!r}: Parquet files are read as they are, and * ? [ in a name mean many files",
                next_action="unpack or rename the file",
            )
        reader = ColumnReader(mapping=mapping, source=f"{path.name} (parquet.v1)")
        connection = duckdb.connect(":memory:")
        try:
            _lock_down(connection, path.parent)
            cursor = connection.execute("SELECT * FROM read_parquet(?)", [str(path)])
            names = [column[0] for column in cursor.description]
            number = 0
            while block := cursor.fetchmany(1_000):
                for cells in block:
                    number += 1
                    row = dict(zip(names, cells, strict=True))
                    try:
                        record: TrafficRecord | Skipped = reader.record(row, number)
                    except BadRow as error:
                        record = skipped(path, number, str(error), repr(row))
                    yield record
        except duckdb.Error as error:
            raise DataError(
                f"{path.name!r} can't be read as Parquet: {str(error).splitlines()[0]}",
                next_action="check the file; it may be cut off",
            ) from error
        finally:
            connection.close()
        reader.check(path)


def _lock_down(connection: Any, folder: Path) -> None:
    """No extension is fetched, no file outside the folder is read, no setting can be changed back."""
    quoted = str(folder).replace("'", "''")
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
