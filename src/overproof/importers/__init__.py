"""Logs that a team already has, read row by row: the protocol, the column mapping, and the choice by content."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from overproof.data import Skipped, TrafficRecord
from overproof.errors import DataError
from overproof.progress import track
from overproof.registry import names, resolve, suggest

HEAD_BYTES = 64 * 1024
LEAST_SCORE = 0.6
"""Below this no importer is sure enough to be taken without being named."""

GUESSES: Mapping[str, tuple[str, ...]] = {
    "id": ("id", "request_id"),
    "at": ("ts", "timestamp", "at", "created_at"),
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


class Importer(Protocol):
    """Reads one kind of log. A class without arguments, registered under `overproof.importers`; no store or network."""

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


def head_of(path: Path) -> bytes:
    """
    The first bytes of a file, decompressed where its name ends in ".gz".

    Args:
        path: the file.

    Returns: at most `HEAD_BYTES` bytes.
    Raises: DataError if the file can't be read.
    """
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rb") as packed:
                return packed.read(HEAD_BYTES)
        with path.open("rb") as plain:
            return plain.read(HEAD_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path.name!r} can't be read: {error}", next_action="check the file's name and bytes") from error


def pick(path: Path) -> str:
    """
    The importer that knows a file best, by its content.

    Args:
        path: the file.

    Returns: a registered name, for example "jsonl.v1".
    Raises: DataError where none is sure, or the file is empty.
    """
    head = head_of(path)
    if not head.strip():
        raise DataError(f"{path.name!r} is empty", next_action="name a file with rows")
    name = path.name.removesuffix(".gz")
    scores = {one: float(resolve("importers", one)().sniff(head, name)) for one in names("importers")}
    best = max(scores, key=lambda one: (scores[one], one), default="")
    if not best or scores[best] < LEAST_SCORE:
        raise DataError(
            f"{path.name!r} looks like none of the known logs: {', '.join(names('importers'))}",
            next_action="name the format, or turn the file into JSON lines",
        )
    return best


def read_file(path: Path, mapping: ColumnMapping, *, use: str | None = None) -> Iterator[TrafficRecord | Skipped]:
    """
    The rows of one log file, whatever its format.

    Args:
        path: the file, plain or .gz.
        mapping: which column is what.
        use: an importer's name; None picks one by the file's content.

    Returns: records and skipped rows in file order, lazily.
    Raises: DataError as `pick` and the importer do; RegistryError for an unknown name.
    """
    importer: Importer = resolve("importers", use or pick(path))()
    return track(importer.read(path, mapping), f"import {path.name}")
