"""Tables: JSON lines, CSV and Parquet, one row per request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from overproof.data import Skipped, TrafficRecord
from overproof.importers import ColumnMapping, Notes
from overproof.importers.duck import parquet_rows
from overproof.importers.objects import Row, csv_rows, objects
from overproof.importers.rows import BOM, BadRow, ColumnReader, first_object, skipped


class JsonLines:
    """One JSON object per line; also an array of objects, or a document that holds one under "data", "rows" or "items"."""

    known_by = "a JSON object on each line, of no known vendor"

    def __init__(self) -> None:
        self.notes = Notes()

    def sniff(self, head: bytes, name: str) -> float:
        """How sure: an object on the first line; see `Importer.sniff`."""
        if first_object(head) is not None:
            return 0.8
        start = head.removeprefix(BOM).lstrip()[:1]
        named = name.endswith((".jsonl", ".ndjson"))
        return 0.7 if (named and start == b"{") or (name.endswith(".json") and start in (b"[", b"{")) else 0.0

    def read(self, path: Path, mapping: ColumnMapping) -> Iterator[TrafficRecord | Skipped]:
        """The rows; see `Importer.read`."""
        reader = ColumnReader(mapping=mapping, source=f"{path.name} (jsonl.v1)", notes=self.notes)
        yield from _records(path, objects(path, under=("data", "rows", "items")), reader)


class Csv:
    """Comma-, semicolon- or tab-separated values with a header line (RFC 4180)."""

    known_by = "a header line with separators"

    def __init__(self) -> None:
        self.notes = Notes()

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
        reader = ColumnReader(mapping=mapping, source=f"{path.name} (csv.v1)", notes=self.notes)
        yield from _records(path, csv_rows(path), reader)


class Parquet:
    """Parquet files, read by DuckDB with every door but the one folder shut."""

    known_by = "the Parquet mark, and columns of no known vendor"

    def __init__(self) -> None:
        self.notes = Notes()

    def sniff(self, head: bytes, name: str) -> float:
        """How sure: the magic bytes; see `Importer.sniff`."""
        del name
        return 0.9 if head.startswith(b"PAR1") else 0.0

    def read(self, path: Path, mapping: ColumnMapping) -> Iterator[TrafficRecord | Skipped]:
        """The rows; see `Importer.read`. Lines are row numbers from 1."""
        rows = (Row(number=number, value=row, raw=repr(row)) for number, row in enumerate(parquet_rows(path), start=1))
        yield from _records(path, rows, ColumnReader(mapping=mapping, source=f"{path.name} (parquet.v1)", notes=self.notes))


def _records(path: Path, rows: Iterable[Row | Skipped], reader: ColumnReader) -> Iterator[TrafficRecord | Skipped]:
    """What the mapping makes of rows; at the end it says which columns nobody had."""
    for found in rows:
        if isinstance(found, Skipped):
            yield found
            continue
        try:
            record: TrafficRecord | Skipped = reader.record(found.value, found.number)
        except BadRow as error:
            record = skipped(path, found.number, str(error), found.raw)
        yield record
    reader.check(path)
