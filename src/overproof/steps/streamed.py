"""Scores and answers written down part by part, as they come from the workers: the same bytes as in one go."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from overproof.data import Folder
from overproof.errors import DataError
from overproof.evidence import Trained
from overproof.outputs import Fields
from overproof.steps.answers import ANSWERS
from overproof.steps.field_confidence import FIELDS, field_table
from overproof.students.generated import Written
from overproof.students.seen import Seen

LOGITS = "logits.npy"
COLUMN = "column-"
"""Start of the file name of an out-of-scope score that the candidate brings itself."""


class _Array:
    """A `.npy` file that grows at its end."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> None:
        self._path, self._shape, self._dtype, self._n = path, shape, dtype, 0
        self._file: Any = None

    def add(self, part: NDArray[Any]) -> None:
        self._n += len(part)
        if part.shape == self._shape:  # whole at once: in whichever order of axes it came
            np.save(self._path, part, allow_pickle=False)
            return
        if self._file is None:
            self._file = self._path.open("wb")
            facts = {"descr": np.lib.format.dtype_to_descr(np.dtype(self._dtype)), "fortran_order": False, "shape": self._shape}
            np.lib.format.write_array_header_1_0(self._file, facts)
        self._file.write(np.ascontiguousarray(part, dtype=self._dtype).tobytes())

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


@contextmanager
def _columns(folder: Path, n: int) -> Iterator[Any]:
    """A function that takes the columns of one part."""
    files: dict[str, _Array] = {}

    def add(columns: Any, rows: int) -> None:
        if files and set(files) != set(columns):
            raise DataError("a candidate gives other columns from request to request", next_action="mend the part")
        for name, column in columns.items():
            if column.shape != (rows,) or not np.isfinite(column).all():
                raise DataError(
                    f"column {name!r} of a candidate has shape {column.shape} or NaN, expected {rows} numbers",
                    next_action="mend the part: it gives one finite number a request",
                )
            files.setdefault(name, _Array(folder / f"{COLUMN}{name}.npy", (n,), column.dtype.type)).add(column)

    try:
        yield add
    finally:
        for one in files.values():
            one.close()


def save_seen(parts: Iterable[Seen], workdir: Path, *, shape: tuple[int, int], trained: Trained) -> Folder:
    """
    Write `logits.npy` and the columns.

    Args:
        parts: of consecutive rows; each is let go before the next is asked for.
        workdir: gets a folder `scores`.
        shape: rows and labels in all.
        trained: who answered.

    Returns: the folder.
    Raises: DataError for logits of another shape, or numbers that are not finite.
    """
    folder, n = workdir / "scores", 0
    folder.mkdir()
    logits = _Array(folder / LOGITS, shape, np.float32)
    with ExitStack() as open_files:
        open_files.callback(logits.close)
        add_columns = open_files.enter_context(_columns(folder, shape[0]))
        for part in parts:
            some = np.asarray(part.logits, dtype=np.float32)
            n += len(some)
            if some.shape[1:] != shape[1:] or not np.isfinite(some).all():
                raise _unfit(trained, some.shape, shape)
            logits.add(some)
            add_columns(part.columns, len(some))
            del part, some
    if n != shape[0]:
        raise _unfit(trained, (n, *shape[1:]), shape)
    return Folder(path=folder)


def _unfit(trained: Trained, got: tuple[int, ...], shape: tuple[int, int]) -> DataError:
    return DataError(
        f"candidate {trained.name!r} ({trained.use}) answered with shape {got} or with NaN, expected finite {shape}",
        next_action="mend the part: logits must be finite, one column for each label",
    )


def save_written(parts: Iterable[Written], workdir: Path, *, n: int, output: Any) -> Folder:
    """
    Write `answers.json`, the columns, and of records the log-odds of fields where there are any.

    Args:
        parts: of consecutive rows; each is let go before the next is asked for.
        workdir: gets a folder `scores`.
        n: rows in all.
        output: what answers are.

    Returns: the folder.
    Raises: DataError for numbers that are not finite, and columns that differ from part to part.
    """
    folder, done = workdir / "scores", 0
    folder.mkdir()
    table = _Array(folder / FIELDS, (n, len(output.fields)), np.float64) if isinstance(output, Fields) else None
    scored = False
    with ExitStack() as open_files:
        file = open_files.enter_context((folder / ANSWERS).open("w", encoding="utf-8"))
        add_columns = open_files.enter_context(_columns(folder, n))
        file.write("[")
        for part in parts:
            file.write(", " * (done > 0) + _inside(part.values))
            add_columns(part.columns, len(part.values))
            done += len(part.values)
            if table is not None and part.fields:
                open_files.callback(table.close)
                odds = field_table(output, part.fields)
                scored |= not np.isnan(odds).all()
                table.add(odds)
            del part
        file.write("]")
    if not scored:
        (folder / FIELDS).unlink(missing_ok=True)
    if done != n:
        raise DataError(f"{done} answers to {n} requests", next_action="mend the part: it gives one answer a request")
    return Folder(path=folder)


def _inside(values: Sequence[str | None]) -> str:
    return json.dumps(list(values), ensure_ascii=False)[1:-1]
