"""What all importers share: bounded lines, strict JSON, times, and the way from columns to a record."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import IO, Any

from overproof.data import GOLD_SOURCES, Completeness, Completion, Request, Skipped, TrafficRecord, digest_of
from overproof.errors import DataError
from overproof.importers import GUESSES, ColumnMapping, Notes
from overproof.importers.files import opened
from overproof.importers.frames import Frame, declared

LINE_CAP = 8 * 1024 * 1024
DEPTH_CAP = 64
RAW_CHARS = 2_000
ATTRIBUTE_CHARS = 200
"""A longer text is content, not a segment to cut by."""
ID_CHARS = 200
LABEL_NAMES = frozenset({"gold", "label", "labels", "target", "expected", "truth", "teacher_label", "latency", "cost"})
"""Columns that are never taken for attributes unasked: a slice by the label could not be routed; figures aren't segments."""
BOM = b"\xef\xbb\xbf"
_RESERVED = LABEL_NAMES | {name for role, guesses in GUESSES.items() if role != "prompt" for name in guesses}
_FINISH: Mapping[str, Completeness] = {
    "stop": "stop", "end_turn": "stop", "stop_sequence": "stop", "complete": "stop", "finish": "stop", "completed": "stop",
    "length": "length", "max_tokens": "length", "max_output_tokens": "length", "model_context_window_exceeded": "length",
    "content_filter": "filtered", "filtered": "filtered", "content_filtered": "filtered", "refusal": "filtered",
    "guardrail_intervened": "filtered", "error": "error", "unknown": "unknown",
}  # fmt: skip


class BadRow(ValueError):
    """Why one row can't be read; importers turn it into a `Skipped`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One line of a file."""

    number: int
    """From 1."""
    data: bytes
    """Without the line's end and without a byte-order mark."""


def skipped(path: Path, number: int | str, reason: str, raw: bytes | str) -> Skipped:
    """
    A row that is kept aside.

    Args:
        path: the file.
        number: its line.
        reason: what was wrong.
        raw: the row as found; cut to `RAW_CHARS`.

    Returns: the value that stands for the row.
    """
    text = raw[: 4 * RAW_CHARS].decode("utf-8", "replace") if isinstance(raw, bytes) else raw
    text = text[:RAW_CHARS].encode("utf-8", "replace").decode()
    return Skipped(where=f"{path.name}:{number}", reason=reason, raw=text)


def lines(path: Path, *, blank: bool = False) -> Iterator[Line | Skipped]:
    """
    The lines of a file that may be packed.

    Args:
        path: the file.
        blank: whether blank lines count, as they do inside a quoted CSV cell.

    Returns: lines, and a `Skipped` for each one over `LINE_CAP`; memory stays bounded by the cap.
    Raises: DataError for a file that can't be read, a damaged or bomb-like .gz, or UTF-16.
    """
    with opened(path) as handle:
        yield from _lines_of(path, handle, blank=blank)


def _lines_of(path: Path, handle: IO[bytes], *, blank: bool) -> Iterator[Line | Skipped]:
    number = 0
    while data := handle.readline(LINE_CAP + 1):
        number += 1
        kept, cut = data, len(data) > LINE_CAP
        while len(data) > LINE_CAP and not data.endswith(b"\n"):
            data = handle.readline(LINE_CAP + 1)
        if number == 1:
            if kept[:2] in (b"\xff\xfe", b"\xfe\xff"):
                raise DataError(f"{path.name!r} is UTF-16", next_action="save it as UTF-8")
            kept = kept.removeprefix(BOM)
        if cut:
            yield skipped(path, number, f"line is longer than {LINE_CAP} bytes", kept)
        elif blank or kept.strip():
            yield Line(number=number, data=kept.rstrip(b"\r\n"))


def parse_object(data: bytes, *, depth: int = DEPTH_CAP) -> dict[str, Any]:
    """
    One JSON object, read strictly.

    Args:
        data: UTF-8 bytes.
        depth: most levels of nesting.

    Returns: the value, an object.
    Raises: BadRow for another kind of value, invalid UTF-8 or JSON, a key given twice, NaN, a lone surrogate, nesting over `depth`.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRow(f"not UTF-8 at byte {error.start}") from error
    try:
        value = _DECODER.decode(text)
    except RecursionError as error:
        raise BadRow(f"nested deeper than {depth} levels") from error
    except BadRow:
        raise
    except ValueError as error:
        raise BadRow(f"not JSON: {error}") from error
    if text.count("[") + text.count("{") > depth and _depth(value) > depth:
        raise BadRow(f"nested deeper than {depth} levels")
    if "\\ud" in text or "\\uD" in text:  # escapes of all surrogates begin so
        no_surrogate(json.dumps(value, ensure_ascii=False), "a lone surrogate can't be written as UTF-8")
    if not isinstance(value, dict):
        raise BadRow(f"the line is a {type(value).__name__}, expected an object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]  # set.add
        raise BadRow(f"key {twice!r} is given twice")
    return found


def _no_constant(word: str) -> Any:
    raise BadRow(f"{word} is not a JSON number")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)  # made once: a gateway reads with it too


def no_surrogate(text: str, reason: str) -> None:
    """
    Refuse text that can't be written as UTF-8.

    Args:
        text: text of a row.
        reason: what to say about it.

    Raises: BadRow with the reason.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadRow(reason) from error


def _depth(value: Any) -> int:
    level, found = [value], 0
    while level:
        found += 1
        level = [
            child
            for one in level
            if isinstance(one, dict | list)
            for child in (one.values() if isinstance(one, dict) else one)
        ]
    return found - 1


def moment(value: Any) -> str | None:
    """
    A log's time as ISO 8601 in UTC with microseconds, so that text order is time order.

    Args:
        value: None or "", epoch seconds, milli-, micro- or nanoseconds (told apart by magnitude), ISO text, datetime;
            text without a zone is UTC.

    Returns: for example "2025-03-02T04:28:26.000000Z"; None where there is none.
    Raises: BadRow for anything else, or a year outside 1990 to 2100.
    """
    if value is None or value == "":
        return None
    try:
        when = _datetime_of(value)
    except (ValueError, OverflowError, OSError) as error:
        raise BadRow(f"time {value!r} is neither an epoch nor ISO 8601"[:200]) from error
    when = when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    if not 1990 <= when.year <= 2100:
        raise BadRow(f"time {value!r} is in the year {when.year}; is the unit wrong?")
    return when.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _datetime_of(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, str):
        text = value.strip()
        # Eight digits are a calendar day (20250302), not an epoch in 1970.
        if len(text) == 8 or not text.replace(".", "", 1).lstrip("-").isdigit():
            return datetime.fromisoformat(text)
        value = float(text) if "." in text else int(text)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(value)  # noqa: TRY004 - told like any other unreadable time
    size = abs(value)
    unit = 1 if size < 1e11 else 10**3 if size < 1e14 else 10**6 if size < 1e17 else 10**9
    micro = value * 10**6 // unit if isinstance(value, int) else round(value * 1e6 / unit)
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micro)


def finish_of(value: Any) -> Completeness:
    """
    How an answer ended, from a log's own word.

    Args:
        value: for example "stop"; None or "" where the log doesn't say.

    Returns: "unknown" where it doesn't say, "error" for a word that no finished text answer carries.
    """
    if value is None or value == "":
        return "unknown"
    return _FINISH.get(str(value).lower(), "error")


def scalar_text(value: Any) -> str | None:
    """
    A scalar as text.

    Args:
        value: anything from a row.

    Returns: text; booleans as "true" and "false"; None for null, NaN, bytes and nested values.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float | date):
        return None if isinstance(value, float) and not math.isfinite(value) else str(value)
    return None if value is None or isinstance(value, bytes | list | dict | tuple) else str(value)


def number(value: Any, name: str) -> float | None:
    """
    A non-negative number of a row.

    Args:
        value: a number or its text; None or "" means that there is none.
        name: the column, for the reason.

    Returns: the number.
    Raises: BadRow for anything else.
    """
    if value is None or value == "":
        return None
    try:
        found = math.nan if isinstance(value, bool | list | dict) else float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not (math.isfinite(found) and found >= 0):
        raise BadRow(f"{name} is {value!r}, expected a non-negative number"[:200])
    return found


def made_id(fields: Mapping[str, str], at: str | None, line: int | str) -> str:
    """
    An id for a row that has none: the same file gives the same ids again.

    Args:
        fields: the input fields.
        at: the row's time.
        line: its line in the file.

    Returns: for example "row-3f6c1a2b9d04-17".
    """
    return f"row-{digest_of([dict(fields), at])[:12]}-{line}"


def dig(row: Mapping[str, Any], path: str) -> Any:
    """
    The value under a column name or a dotted path.

    Args:
        row: the row.
        path: a key, or keys joined by dots.

    Returns: the value; None where there is none.
    """
    if path in row:
        return row[path]
    value: Any = row
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    return value


@dataclass(kw_only=True, slots=True)
class ColumnReader:
    """Turns rows of named columns into records; remembers which mapped columns it has met."""

    mapping: ColumnMapping
    source: str
    """What goes into `TrafficRecord.source`."""
    met: set[str] = field(default_factory=set)
    rows: int = 0
    notes: Notes = field(default_factory=Notes)
    """Takes the names of columns that are left aside."""
    frame: Frame | None = None
    """Of `mapping.template`, where there is one."""

    def __post_init__(self) -> None:
        if self.mapping.template:
            self.frame = declared(self.mapping.template, self.mapping.fields)

    def column(self, role: str, row: Mapping[str, Any]) -> Any:
        """The value of a role or an input field; None where the row has none."""
        named = self.mapping.columns.get(role)
        if named is not None:
            value = dig(row, named)
            if value is not None or named in row:
                self.met.add(named)
            return value
        if role in self.mapping.fields:
            return row.get(role)
        return next((row[name] for name in GUESSES[role] if row.get(name) is not None), None)

    def record(self, row: Mapping[str, Any], line: int | str) -> TrafficRecord:
        """
        The record of one row.

        Args:
            row: column name to value.
            line: its line or position in the file.

        Returns: the record; the completion's `value` is left to whoever knows the task's labels.
        Raises: BadRow with the reason.
        """
        self.rows += 1
        fields = self._fields(row)
        at = moment(self.column("at", row))
        return TrafficRecord(
            request=Request(
                id=self._id(row) or made_id(fields, at, line),
                fields=fields,
                at=at,
                attributes=self.attributes(row),
                session=scalar_text(self.column("session", row)) or None,
            ),
            completion=self._completion(row),
            gold=self.gold(row),
            gold_from=self.gold_from(row),
            source=self.source,
        )

    def gold(self, row: Mapping[str, Any]) -> str | None:
        """The true answer, where the mapping names its column."""
        value = self.column("gold", row)
        if isinstance(value, dict) and self.mapping.records:
            return json.dumps(value, ensure_ascii=False, default=str)
        if isinstance(value, list | dict):
            raise BadRow("gold is a nested value, expected a label")
        return scalar_text(value) or None

    def gold_from(self, row: Mapping[str, Any]) -> str:
        """Who chose the row for a true label, where the mapping names its column."""
        mark = scalar_text(self.column("gold_from", row)) or GOLD_SOURCES[0]
        if mark not in GOLD_SOURCES:
            raise BadRow(f"gold_from is {mark[:40]!r}, expected one of {', '.join(GOLD_SOURCES)}")
        return mark

    def attributes(self, row: Mapping[str, Any]) -> dict[str, str]:
        """Short scalars that are neither fields nor roles, or exactly the columns that the mapping names."""
        wanted = self.mapping.attributes
        if wanted is None:
            taken = {*_RESERVED, *self.mapping.fields, *self.mapping.columns.values()}
            taken |= set(GUESSES["prompt"]) if self.frame is not None else set()
            found: dict[str, str] = {}
            for name, value in row.items():
                if name not in taken:
                    text = scalar_text(value)
                    if text and len(text) <= ATTRIBUTE_CHARS:
                        found[name] = text
                    elif value is not None and value != "":
                        self.notes.ignored[str(name)] += 1
                elif name in LABEL_NAMES and name not in self.mapping.columns.values() and name not in self.mapping.fields:
                    self.notes.ignored[name] += 1  # it may be the gold label: nobody said so
            return found
        pairs = [(name, scalar_text(dig(row, name))) for name in wanted]
        self.met |= {name for name, text in pairs if text is not None}
        return {name: text for name, text in pairs if text}

    def unmet(self) -> list[str]:
        """Columns that the mapping names and no row had: a misspelling, not a fact about the log."""
        named = {*self.mapping.columns.values(), *(self.mapping.attributes or ())}
        return sorted(named - self.met) if self.rows else []

    def check(self, path: Path) -> None:
        """Raise DataError if a mapped column was in no row of the file."""
        if unmet := self.unmet():
            raise DataError(
                f"{path.name!r}: no row has the mapped column {unmet[0]!r}",
                next_action="correct the mapping; the rows read so far were read without that column",
            )

    def _fields(self, row: Mapping[str, Any]) -> dict[str, str]:
        if self.frame is not None:
            return framed(self.frame, scalar_text(self.column("prompt", row)))
        found: dict[str, str] = {}
        values = {name: self.column(name, row) for name in self.mapping.fields}
        if all(value is None for value in values.values()):
            raise BadRow(f"none of the input fields {list(values)!r} is there; columns: {sorted(map(str, row))!r}"[:500])
        for name, value in values.items():
            text = "" if value is None else scalar_text(value)
            if text is None:
                raise BadRow(f"field {name!r} is {type(value).__name__}, expected text")
            found[name] = text
        return found

    def _id(self, row: Mapping[str, Any]) -> str:
        value = self.column("id", row)
        text = scalar_text(value)
        if value is not None and (text is None or isinstance(value, bool | float) or len(text) > ID_CHARS):
            raise BadRow(f"id is {value!r}, expected short text or a whole number"[:200])
        return text or ""

    def _completion(self, row: Mapping[str, Any]) -> Completion | None:
        answer = self.column("output", row)
        if answer is None:
            return None
        text = scalar_text(answer)
        if text is None:
            text = json.dumps(answer, ensure_ascii=False, default=str)
        finish = finish_of(self.column("finish", row))
        milliseconds = number(self.column("latency_ms", row), "latency_ms")
        tokens_in = number(self.column("tokens_in", row), "tokens_in")
        tokens_out = number(self.column("tokens_out", row), "tokens_out")
        return Completion(
            text=text,
            value=None,
            model=scalar_text(self.column("model", row)) or "",
            finish=finish,
            tokens_in=None if tokens_in is None else int(tokens_in),
            tokens_out=None if tokens_out is None else int(tokens_out),
            latency_s=(
                number(self.column("latency_s", row), "latency_s") if milliseconds is None else milliseconds / 1_000
            ),
            cost_usd=number(self.column("cost_usd", row), "cost_usd"),
            reason=None if finish in ("stop", "unknown") else f"the answer ended with {finish!r}",
        )


def framed(frame: Frame, text: str | None) -> dict[str, str]:
    """
    The fields of a whole prompt.

    Args:
        frame: of the declared or learned template.
        text: the prompt; None where the row has none.

    Returns: field to text.
    Raises: BadRow where there is no prompt, or it doesn't fit.
    """
    if text is None:
        raise BadRow("there is no prompt for the template to take apart; map its column: prompt=COLUMN")
    taken = frame.apart(text)
    if taken is None:
        raise BadRow("the prompt doesn't fit the template: another task's call?")
    return taken[0]


def first_object(head: bytes) -> Mapping[str, Any] | None:
    """
    The JSON object on the first line of a file's head.

    Args:
        head: a file's first bytes.

    Returns: the object; None where the first line isn't one.
    """
    for data in head.removeprefix(BOM).splitlines():
        if data.strip():
            try:
                return parse_object(data)
            except BadRow:
                return None
    return None
