"""Recordings of a teacher in the format of any importer, turned into answers that `recorded.v1` replays."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from overproof.data import Completion, Request, Skipped
from overproof.errors import DataError
from overproof.importers import ColumnMapping, head_of, pick, read_file
from overproof.project import files_of
from overproof.task import Task


def imported_answers(
    path: str,
    *,
    task: Task,
    use: str,
    columns: Mapping[str, str],
    redact: Callable[[Request], Request],
) -> Mapping[str, tuple[Completion, ...]] | None:
    """
    The answers of a recording that is a log of some kind.

    A row is found by what was asked, since ids of two systems have nothing to do with each other; several answers to
    the same request are its samples, in file order.

    Args:
        path: a file, or several by a pattern.
        task: input fields and prompt.
        use: an importer's name; empty where the files say it themselves.
        columns: role or input field to column.
        redact: what the log's requests went through when they came in, so that both say the same.

    Returns: digest of a request's fields to its answers; None where `recorded.v1` reads the file itself.
    Raises: DataError for a file that can't be read, or files without any answer.
    """
    files = files_of(Path(path))
    if not use and len(files) == 1 and _is_own(files[0]):
        return None
    mapping = ColumnMapping(fields=task.input, columns=columns, prompt=task.prompt)
    found: dict[str, list[Completion]] = {}
    skipped: list[Skipped] = []
    for file in files:
        for record in read_file(file, mapping, use=use or None):
            if isinstance(record, Skipped):
                skipped.append(record)
            elif record.completion is not None:
                found.setdefault(redact(record.request).digest, []).append(record.completion)
    if not found:
        why = f"; {skipped[0].where}: {skipped[0].reason}" if skipped else ""
        raise DataError(
            f"the recording {Path(path).name!r} holds no answer{why}",
            next_action="name its columns in [teacher.options] columns, or its importer as `format`",
        )
    return {digest: tuple(said) for digest, said in found.items()}


def _is_own(path: Path) -> bool:
    """Lines with `id` and `output`, or anything that no importer knows: the part itself says what is wrong with that."""
    try:
        first = next((line for line in head_of(path).splitlines() if line.strip()), b"")
        said = json.loads(first)
    except (ValueError, DataError):
        said = None
    if isinstance(said, dict) and "id" in said and "output" in said:
        return True
    try:
        pick(path)
    except DataError:
        return True
    return False
