"""A fitted candidate's files as bytes, for engines whose workers don't see this disk."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from overproof.data import Folder, Request
from overproof.evidence import Trained
from overproof.progress import track
from overproof.registry import resolve
from overproof.students import Student
from overproof.students.seen import Seen, look_at


@dataclass(frozen=True, kw_only=True, slots=True)
class Parcel:
    """A candidate that can travel."""

    trained: Trained
    """Its folder is where it was packed."""
    files: Mapping[str, bytes]
    """Path inside the folder to bytes."""


def packed(trained: Trained) -> Parcel:
    """
    A candidate with its files.

    Args:
        trained: any.

    Returns: the parcel.
    """
    root = trained.folder.path
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
    return Parcel(trained=trained, files=files)


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
        (into / name).write_bytes(data)
    return replace(parcel.trained, folder=Folder(path=into))


def answer_shard(parcel: Parcel, requests: Sequence[Request]) -> Seen:
    """
    What a candidate says to some requests, wherever this runs.

    Args:
        parcel: the candidate.
        requests: at least one.

    Returns: see `look`.
    """
    with tempfile.TemporaryDirectory() as folder:
        there = unpacked(parcel, Path(folder) / "student")
        return look(resolve("students", there.use).load(there.folder.path), requests, alone=there.kind == "student")


def look(student: Student, requests: Sequence[Request], *, alone: bool) -> Seen:
    """
    What a student says, each request by itself for what may be served.

    A batch pads, which moves an encoder's logits in the sixth digit, and a served confidence has to be the certified one.

    Args:
        student: a loaded one.
        requests: at least one.
        alone: False where nobody will serve it, so that batches do no harm.

    Returns: one row a request.
    """
    if not alone:
        return look_at(student, requests)
    return joined([look_at(student, [request]) for request in track(requests, "answering one by one", total=len(requests))])


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
