"""A fitted candidate's files as bytes, for engines whose workers don't see this disk."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from overproof.data import Folder, Request
from overproof.errors import DataError
from overproof.evidence import Trained
from overproof.outputs import Fields, Text
from overproof.progress import track
from overproof.students import Generator, Student
from overproof.students.generated import Written, write_answers
from overproof.students.mixture import Mixture
from overproof.students.parts import load_part
from overproof.students.seen import Seen, look_at


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Parcel:
    """A candidate that can travel."""

    trained: Trained
    """Its folder is where it was packed."""
    files: Mapping[str, NDArray[np.uint8]]
    """Path inside the folder to bytes, as an array, which processes on one machine share without a copy."""
    output: Fields | Text | None = None
    """What its answers are; None for labels."""


def packed(trained: Trained, output: Fields | Text | None = None) -> Parcel:
    """
    A candidate with its files.

    Args:
        trained: any.
        output: what its answers are; None for labels.

    Returns: the parcel.
    """
    root = trained.folder.path
    files = {path.relative_to(root).as_posix(): np.fromfile(path, dtype=np.uint8) for path in sorted(root.rglob("*")) if path.is_file()}
    return Parcel(trained=trained, files=files, output=output)


def unpacked(parcel: Parcel, into: Path) -> Trained:
    """
    The candidate in a folder of this machine.

    Args:
        parcel: what `packed` made.
        into: a folder that is not there yet.

    Returns: the candidate, its files under `into`.
    """
    for name, data in parcel.files.items():
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        data.tofile(into / name)
    return replace(parcel.trained, folder=Folder(path=into))


def answer_shard(parcel: Parcel, requests: Sequence[Request]) -> Seen | Written:
    """
    What a candidate says to some requests, wherever this runs.

    Args:
        parcel: the candidate.
        requests: at least one.

    Returns: as `look` or `write`.
    """
    part, mixture = _loaded(parcel)
    alone = answered_alone(parcel.trained)
    return look(part, requests, alone=alone, mixture=mixture) if parcel.output is None else write(part, parcel.output, requests, alone=alone)


@lru_cache(maxsize=1)  # a worker answers many shards with one candidate; its folder would outlive a worker that is stopped
def _loaded(parcel: Parcel) -> tuple[Any, Mixture | None]:
    with tempfile.TemporaryDirectory() as folder:
        there = unpacked(parcel, Path(folder) / "student")
        return load_part(there.use, there.folder.path, parcel.output), Mixture.load(there.folder.path)


def answered_alone(trained: Trained) -> bool:
    """
    Whether each request is answered by itself, so that it makes no difference how rows are cut; see `look`.

    Args:
        trained: a candidate.

    Returns: True for what may be served; a baseline's rows must stay together.
    """
    return trained.kind == "student"


def look(student: Student, requests: Sequence[Request], *, alone: bool, mixture: Mixture | None = None) -> Seen:
    """
    What a student says, each request by itself for what may be served.

    A batch pads, which moves an encoder's logits in the sixth digit, and a served confidence has to be the certified one.

    Args:
        student: a loaded one.
        requests: at least one.
        alone: False where nobody will serve it, so that batches do no harm.
        mixture: that of its folder.

    Returns: one row a request.
    """
    return joined([look_at(student, some, mixture) for some in _groups(requests, alone=alone)])


def joined(parts: Sequence[Seen]) -> Seen:
    """
    Several looks as one.

    Args:
        parts: at least one, of the same student.

    Returns: their rows in order.
    """
    return Seen(
        logits=np.concatenate([one.logits for one in parts]),
        columns={name: np.concatenate([one.columns[name] for one in parts]) for name in parts[0].columns},
    )


def write(writer: Generator, output: Fields | Text, requests: Sequence[Request], *, alone: bool) -> Written:
    """
    What a generator says; see `look`.

    Args:
        writer: a loaded one.
        output: what its answers must be.
        requests: at least one.
        alone: see `look`.

    Returns: one answer a request.
    Raises: DataError for what can't be read; see `write_answers`.
    """
    return joined_written([write_answers(writer, output, some) for some in _groups(requests, alone=alone)])


def joined_written(parts: Sequence[Written]) -> Written:
    """
    Several generators' outputs as one.

    Args:
        parts: at least one, of the same generator.

    Returns: their answers in order.
    Raises: DataError where columns differ.
    """
    names = set(parts[0].columns)
    if any(set(one.columns) != names for one in parts):
        raise DataError("a candidate gives other columns from request to request", next_action="mend the part")
    return Written(
        values=tuple(value for one in parts for value in one.values),
        columns={name: np.concatenate([one.columns[name] for one in parts]) for name in sorted(names)},
        fields=tuple(odds for one in parts for odds in one.fields),
    )


def _groups(requests: Sequence[Request], *, alone: bool) -> Sequence[Sequence[Request]]:
    return [[request] for request in track(requests, "answering one by one", total=len(requests))] if alone else [requests]
