"""Logs that a team already has, read row by row: the protocol, the column mapping, and the choice by content."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from overproof.data import Skipped, TrafficRecord
from overproof.errors import DataError
from overproof.importers.files import bare_name, opened
from overproof.progress import track
from overproof.registry import names, resolve, suggest

HEAD_BYTES = 64 * 1024
LEAST_SCORE = 0.6
"""Below this no importer is sure enough to be taken without being named."""

GUESSES: Mapping[str, tuple[str, ...]] = {
    "id": ("id", "request_id"),
    "at": ("ts", "timestamp", "at", "created_at"),
    "prompt": ("prompt", "input", "message", "text"),
    "output": ("output", "completion", "answer", "teacher_output"),
    "gold": (),
    "gold_from": (),
    "session": ("session", "session_id", "thread_id", "conversation_id", "user_id"),
    "model": ("model",),
    "finish": ("finish", "finish_reason"),
    "latency_s": ("latency_s",),
    "latency_ms": ("latency_ms",),
    "tokens_in": ("tokens_in", "prompt_tokens", "input_tokens"),
    "tokens_out": ("tokens_out", "completion_tokens", "output_tokens"),
    "cost_usd": ("cost_usd",),
}
"""Role to the column names that are taken for it where the mapping says nothing. Gold is never guessed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ColumnMapping:
    """Which column of a log is what."""

    fields: tuple[str, ...]
    """The task's input fields; a column of the same name is that field unless `columns` says otherwise."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Role (a key of `GUESSES`) or input field to column name; a dotted path such as "request.body" goes into
    nested objects."""
    attributes: tuple[str, ...] | None = None
    """Columns that become attributes; None takes every other scalar column that is short and not the label."""
    prompt: str = ""
    """The task's prompt, by which chat logs are taken apart: `{field}` marks an input field."""
    template: str = ""
    """The frame of the logged prompts, with `{field}` for every input field; it goes before `prompt`, and takes the
    column "prompt" of a table apart."""
    inputs: Path | None = None
    """For answers of a batch: the file of requests that they belong to."""
    records: bool = False
    """The task's answers are records: a true answer may be an object of its own and not only text."""

    def __post_init__(self) -> None:
        if not self.fields:
            raise DataError("the mapping names no input field", next_action="name the task's input fields")
        known = [*self.fields, *GUESSES]
        for role in self.columns:
            if role not in known:
                raise DataError(
                    f"a column is mapped to {role!r}, which is neither an input field nor a role. "
                    f"{suggest(role, sorted(known))}",
                    next_action="use one of the names above",
                )


@dataclass(frozen=True, kw_only=True, slots=True)
class Notes:
    """What an importer says about a file beside its rows; filled while the file is read."""

    ignored: Counter[str] = field(default_factory=Counter)
    """Field that was not understood, to the number of rows that have it."""
    passed: Counter[str] = field(default_factory=Counter)
    """Why an entry is no model call of its own (a tool's span, a score), to the number of such entries."""


class Importer(Protocol):
    """
    Reads one kind of log. A class without arguments, registered under `overproof.importers`; no store or network.

    An importer may have `notes: Notes`, which is shown after the file, and `known_by: str`, a few words on what it
    recognizes a file by.
    """

    def sniff(self, head: bytes, name: str) -> float:
        """
        How sure the importer is that a file is its own.

        Args:
            head: the first bytes, at most `HEAD_BYTES`, decompressed.
            name: the file's name without ".gz".

        Returns: a fraction in [0, 1].
        """

    def read(self, path: Path, mapping: ColumnMapping) -> Iterator[TrafficRecord | Skipped]:
        """
        The rows of a file, one at a time, in bounded memory.

        Args:
            path: the file.
            mapping: which column is what.

        Returns: a record per row; a row that can't be read is a `Skipped`, never an exception.
        Raises: DataError where the file as a whole can't be read, or a mapped column is in no row.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class Guess:
    """The importer that knows a file best."""

    name: str
    """For example "jsonl.v1"."""
    score: float
    """How sure it is, in [0, 1]."""
    reason: str
    """What it recognized the file by."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """One file being read."""

    rows: Iterator[TrafficRecord | Skipped]
    """Records and skipped rows in file order, lazily."""
    notes: Notes
    """Complete once `rows` is exhausted."""


def head_of(path: Path) -> bytes:
    """
    The first bytes of a file, unpacked where its name ends in ".gz" or ".zst".

    Args:
        path: the file.

    Returns: at most `HEAD_BYTES` bytes.
    Raises: DataError if the file can't be read.
    """
    with opened(path) as handle:
        return handle.read(HEAD_BYTES)


def guess(path: Path) -> Guess:
    """
    The importer that knows a file best, by its content, and why.

    Args:
        path: the file.

    Returns: name, score and reason.
    Raises: DataError where none is sure, or the file is empty.
    """
    head, name = head_of(path), bare_name(path)
    if not head.strip():
        raise DataError(f"{path.name!r} is empty", next_action="name a file with rows")
    heads = [(head, name)]
    if head.startswith(b"PAR1"):  # vendors export Parquet too: they know their columns by the first row
        from overproof.importers.duck import first_row_as_json

        heads.append((first_row_as_json(path), name + ".jsonl"))
    found: list[Guess] = []
    for one in names("importers"):
        importer = resolve("importers", one)()
        score = max(float(importer.sniff(data, known)) for data, known in heads)
        found.append(Guess(name=one, score=score, reason=getattr(importer, "known_by", "its content")))
    best = max(found, key=lambda one: (one.score, one.name), default=None)
    if best is None or best.score < LEAST_SCORE:
        raise DataError(
            f"{path.name!r} looks like none of the known logs: {', '.join(names('importers'))}",
            next_action="name the format, or turn the file into JSON lines",
        )
    return best


def pick(path: Path) -> str:
    """
    The name of the importer that knows a file best; see `guess`.

    Args:
        path: the file.

    Returns: a registered name, for example "jsonl.v1".
    Raises: DataError where none is sure, or the file is empty.
    """
    return guess(path).name


def reading(path: Path, mapping: ColumnMapping, *, use: str | None = None) -> Reading:
    """
    One log file, whatever its format, with what its importer says beside the rows.

    Args:
        path: the file, plain, .gz or .zst.
        mapping: which column is what.
        use: an importer's name; None picks one by the file's content.

    Returns: rows and notes.
    Raises: DataError as `pick` and the importer do; RegistryError for an unknown name.
    """
    importer: Importer = resolve("importers", use or pick(path))()
    notes = getattr(importer, "notes", None) or Notes()
    return Reading(rows=track(importer.read(path, mapping), f"import {path.name}"), notes=notes)


def read_file(path: Path, mapping: ColumnMapping, *, use: str | None = None) -> Iterator[TrafficRecord | Skipped]:
    """
    The rows of one log file, whatever its format.

    Args:
        path: the file, plain, .gz or .zst.
        mapping: which column is what.
        use: an importer's name; None picks one by the file's content.

    Returns: records and skipped rows in file order, lazily.
    Raises: DataError as `pick` and the importer do; RegistryError for an unknown name.
    """
    return reading(path, mapping, use=use).rows
