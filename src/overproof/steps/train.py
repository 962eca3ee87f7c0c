"""Fit one candidate on the training rows."""

from __future__ import annotations

import contextlib
import inspect
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from overproof.data import Folder, TrainSet
from overproof.engines import Engine
from overproof.engines.local import LocalEngine
from overproof.errors import DataError, OutOfMemory
from overproof.evidence import Trained
from overproof.steps.parcel import Parcel, packed
from overproof.store.artifacts import Step
from overproof.students import Generator, Student
from overproof.students.checkpoints import Resumes
from overproof.students.embedding import Spreads
from overproof.students.files import folder_size
from overproof.students.mixture import Mixture
from overproof.students.parts import options_of, part_of

HERE = LocalEngine()
_NO_MEMORY = ("can't allocate memory", "out of memory", "bad_alloc")
"""What libraries say that raise no MemoryError: torch, CUDA, C++."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentRecipe:
    """Which candidate to fit, and how."""

    name: str
    """Shown name, unique in the run."""
    use: str
    """Part name, or "module:Class"."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the part, what JSON can say."""
    seed: int = 0
    kind: Literal["student", "baseline"] = "student"


def train(
    rows: TrainSet, recipe: StudentRecipe, *, workdir: Path, made: Trained | None = None, checkpoints: Path | None = None, engine: Engine = HERE
) -> Trained:
    """
    Fit one candidate.

    Args:
        rows: training rows with at least two different targets.
        recipe: which candidate.
        workdir: an empty folder; the candidate's files stay in it.
        made: the candidate as a worker has fitted it already, see `fit_apart`; its folder is moved.
        checkpoints: folder that outlives a kill, where a long training leaves its state; changes no result.
        engine: where a part cuts its own work over workers, if it can.

    Returns: the candidate with its files.
    Raises: DataError where the rows can't teach, or the part doesn't know an option; OutOfMemory where the machine has too
        little; what the part raises.
    """
    if made is not None:
        shutil.move(made.folder.path, workdir / "student")
        return replace(made, folder=Folder(path=workdir / "student"))
    found = sorted({example.target for example in rows.examples})
    if len(found) < 2:
        raise DataError(
            f"{recipe.name!r} can't be fitted: {len(rows.examples)} training rows with {len(found)} different {'labels' if rows.output is None else 'answers'} "
            f"({', '.join(repr(one[:80]) for one in found) or 'none'}), at least 2 are needed",
            next_action="collect more traffic, or look at what the teacher answers and what the filter drops",
        )
    student = _make(rows, recipe)
    if isinstance(student, Resumes):
        student.checkpoints = checkpoints
    if isinstance(student, Spreads):
        student.over = engine
    folder = workdir / "student"
    folder.mkdir()
    with _within_memory(recipe):
        student.fit(rows, workdir=folder)
    if rows.output is None and recipe.kind == "student":
        Mixture.of(rows).save(folder)
    return Trained(
        name=recipe.name,
        use=recipe.use,
        kind=recipe.kind,
        folder=Folder(path=folder),
        size_bytes=folder_size(folder),
        parameters=student.parameters,
        rows=len(rows.examples),
        seed=recipe.seed,
        options={key: value if isinstance(value, str) else json.dumps(value) for key, value in recipe.options.items()},
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Apart:
    """What candidates are fitted on in workers."""

    rows: TrainSet
    engine: Engine
    """The one that fits them."""


def fit_apart(given: Apart, recipe: StudentRecipe) -> Parcel:
    """
    Fit one candidate wherever this runs.

    Args:
        given: rows, and the engine for shards of a fit: what it embeds goes to all workers, while this one waits.
        recipe: see `train`.

    Returns: the candidate with its files.
    Raises: see `train`.
    """
    with tempfile.TemporaryDirectory() as folder:
        return packed(train(given.rows, recipe, workdir=Path(folder), engine=given.engine))


@contextlib.contextmanager
def _within_memory(recipe: StudentRecipe) -> Iterator[None]:
    """
    An allocation that failed, with what to do about it.

    Nothing is tried with half the batch here: another batch is another student, and which one it is must not hang on the machine.
    """
    try:
        yield
    except Exception as error:
        if not (isinstance(error, MemoryError) or any(word in str(error) for word in _NO_MEMORY)):
            raise
        batch = next((table["batch"] for table in (recipe.options, *recipe.options.values()) if isinstance(table, Mapping) and "batch" in table), None)
        half = f"set its batch to {max(1, int(batch) // 2)}, half of now" if batch else 'give it a smaller batch or tune = "frozen", where it has them'
        raise OutOfMemory(
            f"student {recipe.name!r} ({recipe.use}) was not fitted: the memory of this machine or process is not enough; the candidates before it are kept",
            next_action=f"{half}, or take it out of the project file, or give more memory; then run again",
        ) from error


def _make(rows: TrainSet, recipe: StudentRecipe) -> Student | Generator:
    cls = part_of(recipe.use, rows.output)
    what = {"labels": rows.labels} if rows.output is None else {"output": rows.output}
    arguments = {**recipe.options, **what, "seed": recipe.seed}
    try:
        inspect.signature(cls).bind(**arguments)
    except TypeError as error:
        known = sorted({*(options_of(cls) or ())} - {*what, "seed"})
        raise DataError(
            f"student {recipe.name!r} ({recipe.use}): {error}; its options are {', '.join(known) or 'none'}",
            next_action="mend the student's table in the project file",
        ) from error
    student: Student | Generator = cls(**arguments)
    return student


TRAIN = Step(name="train", version=5, fn=train, workdir=True)
