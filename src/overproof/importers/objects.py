"""Rows as plain objects, whatever holds them: JSON lines, one array, a document with an array in it, CSV, Parquet."""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from overproof.data import Skipped
from overproof.errors import DataError
from overproof.importers.duck import parquet_rows
from overproof.importers.files import bare_name, opened
from overproof.importers.rows import (
    BOM,
    LINE_CAP,
    BadRow,
    Line,
    first_object,
    lines,
    no_surrogate,
    parse_object,
    skipped,
)

RAW_LINES = 8
"""So many lines of a broken CSV row are kept for the reader."""
CHUNK = 256 * 1024
_SPACE = re.compile(r"[\s]*")
_LENIENT = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str)
"""Only finds where a value ends; `parse_object` then reads it strictly."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One object of a file."""

    number: int | str
    """Line, or place in the array, from 1; "3.2" is the second entry of a document on line 3."""
    value: dict[str, Any]
    raw: bytes | str
    """As found, for `Skipped`."""


def objects(path: Path, *, under: Sequence[str] = ()) -> Iterator[Row | Skipped]:
    """
    The objects of a JSON, CSV or Parquet file, one at a time.

    Args:
        path: the file, packed or not.
        under: keys below which a document keeps its rows, for example {"data": [...]}.

    Returns: rows in file order; a row that can't be read is a `Skipped`. CSV rows have texts; empty cells are None.
    Raises: DataError for a file, or an array, that can't be read to its end.
    """
    name = bare_name(path)
    if name.endswith(".parquet"):
        for number, row in enumerate(parquet_rows(path), start=1):
            yield Row(number=number, value=row, raw=repr(row))
        return
    if name.endswith((".csv", ".tsv")):
        yield from csv_rows(path)
        return
    if _is_lines(path, name):
        for line in lines(path):
            yield from [line] if isinstance(line, Skipped) else _of_line(path, line, under)
        return
    with opened(path) as handle:
        for number, text in enumerate(_elements(path, handle, under), start=1):
            yield _strict(path, number, text.encode("utf-8", "surrogateescape"))


def _is_lines(path: Path, name: str) -> bool:
    """Whether each line is an object of its own; a document's first line isn't complete."""
    named = name.endswith((".jsonl", ".ndjson"))
    with opened(path) as handle:
        head = handle.read(CHUNK).removeprefix(BOM)
        start = head.lstrip()[:1]
        if start == b"[":  # a line of an array that ends there is a bad line, an array over lines is a document
            first, end, _ = head.lstrip().partition(b"\n")
            return named and bool(end) and first.rstrip().endswith(b"]")
        if start != b"{" or named:
            return True
    with opened(path) as handle:
        first = b""
        while not first.strip() and (line := handle.readline(LINE_CAP)):
            first = line.removeprefix(BOM)
        second = handle.readline(LINE_CAP).lstrip()[:1] if first.endswith(b"\n") else b""
    if second == b"{":
        return True
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return False
    return True


def _of_line(path: Path, line: Line, under: Sequence[str]) -> Iterator[Row | Skipped]:
    row = _strict(path, line.number, line.data)
    inner = next((row.value[key] for key in under if isinstance(row.value.get(key), list)), None) if isinstance(row, Row) else None
    if inner is None or not isinstance(row, Row):
        yield row
        return
    for place, one in enumerate(inner, start=1):
        if isinstance(one, dict):
            yield Row(number=f"{line.number}.{place}", value=one, raw=json.dumps(one, default=str)[:4000])
        else:
            yield skipped(path, f"{line.number}.{place}", f"an entry is a {type(one).__name__}, expected an object", repr(one))


def _strict(path: Path, number: int, data: bytes) -> Row | Skipped:
    try:
        return Row(number=number, value=parse_object(data), raw=data)
    except BadRow as error:
        return skipped(path, number, str(error), data)


class _Text:
    """A window on a long text: grows by reading on, shrinks by moving past what was taken."""

    def __init__(self, path: Path, handle: IO[bytes]) -> None:
        self._path, self._handle = path, handle
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._ended = False
        self.text, self.at = "", 0
        self._more(CHUNK)
        self.text = self.text.removeprefix("\ufeff")

    def _more(self, size: int) -> bool:
        data = self._handle.read(size)
        self._ended = not data
        self.text = self.text[self.at :] + self._decoder.decode(data, final=self._ended)
        self.at = 0
        return bool(data)

    def peek(self) -> str:
        """The next character that isn't white space; empty at the end."""
        while True:
            found = _SPACE.match(self.text, self.at)
            self.at = found.end() if found else self.at
            if self.at < len(self.text):
                return self.text[self.at]
            if not self._more(CHUNK):
                return ""

    def take(self, mark: str) -> None:
        """Move past a character that must be there."""
        if (got := self.peek()) != mark:
            raise self.broken(f"expected {mark!r}, got {got!r}" if got else "it ends too early")
        self.at += 1

    def value(self) -> str:
        """The next JSON value as text."""
        self.peek()
        size = CHUNK
        while True:
            try:
                _, end = _LENIENT.raw_decode(self.text, self.at)
            except RecursionError as error:
                raise self.broken("it is nested too deeply") from error
            except ValueError as error:
                end, fault = None, str(error)
            # A number at the window's end may go on behind it.
            if end is not None and (end < len(self.text) or self._ended):
                found = self.text[self.at : end]
                self.at = end
                return found
            if len(self.text) - self.at > LINE_CAP:
                raise self.broken(f"an entry is longer than {LINE_CAP} characters, or not JSON")
            if not self._more(size) and end is None:
                raise self.broken(fault)
            size *= 2  # so that a long entry is not begun again too often

    def broken(self, why: str) -> DataError:
        """What is said where nothing after a place can be read."""
        return DataError(
            f"{self._path.name!r} is no complete JSON: {why}; found {self.text[self.at : self.at + 60]!r}",
            next_action="fetch the file again; the rows before that place were read, nothing after it was",
        )


def _elements(path: Path, handle: IO[bytes], under: Sequence[str]) -> Iterator[str]:
    """The entries of an array, of the arrays under the keys of a document, or the document itself."""
    text = _Text(path, handle)
    if text.peek() == "[":
        yield from _array(text)
    elif text.peek() == "{":
        yield from _document(text, under)
    if text.peek():
        raise text.broken("something follows after its end")


def _array(text: _Text) -> Iterator[str]:
    text.take("[")
    while text.peek() != "]":
        yield text.value()
        if text.peek() != "]":
            text.take(",")
    text.take("]")


def _document(text: _Text, under: Sequence[str]) -> Iterator[str]:
    """An object with an array of rows under a key gives these; one without is a row itself."""
    rest: list[str] = []
    streamed = False
    text.take("{")
    while text.peek() != "}":
        key = text.value()
        text.take(":")
        if key.strip('"') in under and text.peek() == "[":
            streamed = True
            yield from _array(text)
        elif not streamed:
            rest.append(f"{key}:{text.value()}")
            if sum(map(len, rest)) > LINE_CAP:
                raise text.broken(f"a document without rows under {list(under)!r} is longer than {LINE_CAP} characters")
        else:
            text.value()
        if text.peek() != "}":
            text.take(",")
    text.take("}")
    if not streamed:
        yield "{" + ",".join(rest) + "}"


def first_row(head: bytes, name: str, under: Sequence[str] = ()) -> Mapping[str, Any]:
    """
    The first row in the head of a file, by which an importer knows its own.

    Args:
        head: the file's first bytes, unpacked.
        name: its name without the packing.
        under: keys below which a document keeps its rows.

    Returns: the row; empty where the head holds none that is complete.
    """
    text = head.removeprefix(BOM).decode("utf-8", "replace").lstrip()
    if name.endswith((".csv", ".tsv")):
        rows = csv.reader(text.splitlines(keepends=True), delimiter="\t" if name.endswith(".tsv") else ",")
        try:
            return dict(zip(next(rows, []), next(rows, []), strict=False))
        except csv.Error:
            return {}
    row = first_object(head)
    if row is None and text[:1] in ("[", "{"):
        keys = "|".join(map(re.escape, under))
        at = re.match(r"\[\s*", text) or (re.search(rf'"(?:{keys})"\s*:\s*\[\s*', text) if under else None)
        row = _decoded(text, at.end()) if at else _decoded(text, 0)
    inner = next((row[key] for key in under if isinstance(row.get(key), list)), None) if row else None
    row = inner[0] if inner else row
    return row if isinstance(row, dict) else {}


def _decoded(text: str, at: int) -> dict[str, Any] | None:
    try:
        value, _ = _LENIENT.raw_decode(text, at)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def csv_rows(path: Path) -> Iterator[Row | Skipped]:
    """
    The rows of a file with a header line and comma-, semicolon- or tab-separated values (RFC 4180).

    Args:
        path: the file, packed or not.

    Returns: rows of texts, None for an empty cell.
    Raises: DataError for a header with empty or repeated names.
    """
    csv.field_size_limit(LINE_CAP)  # the module's only setting is global; a higher cap harms no other reader
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
            result: Row | Skipped = _csv_row(header, cells, feed)
        except StopIteration:
            break
        except (csv.Error, BadRow) as error:
            result = skipped(path, feed.start, str(error), "\n".join(feed.taken))
        yield from feed.skipped()
        yield result
    yield from feed.skipped()


def _csv_row(header: list[str], cells: list[str], feed: _CsvFeed) -> Row:
    if feed.torn:
        raise BadRow("a line inside the row is too long")
    if len(cells) != len(header):
        raise BadRow(f"{len(cells)} cells, expected {len(header)}")
    no_surrogate("".join(cells), "not UTF-8")
    value: dict[str, Any] = {name: cell or None for name, cell in zip(header, cells, strict=True)}
    return Row(number=feed.start, value=value, raw="\n".join(feed.taken))


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
