"""A copy of a project while it runs, and the way back: nothing is believed without its digest, and the list of digests comes last."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overproof.errors import CorruptArtifact, StoreError
from overproof.progress import track
from overproof.store.decisions import Decisions, now
from overproof.store.local import Db
from overproof.store.logs import TrafficLog
from overproof.store.project_store import HOME, Store
from overproof.store.schema import PROJECT_SCHEMA, TRAFFIC_SCHEMA
from overproof.whole import sync_folder, whole_folder

MANIFEST = "backup.json"
DATA = "data"
FORMAT = 1
_DATABASES = (("project.db", PROJECT_SCHEMA), ("traffic.db", TRAFFIC_SCHEMA))
_PASSING = ("tmp", "checkpoints")
"""Folders of the store that hold unfinished work only."""
_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class BackupReport:
    """What a backup came to."""

    target: str
    at: str
    """ISO 8601 in UTC."""
    files: int
    bytes: int
    copied: int
    """Files that an earlier backup, there or the one named, did not hold yet."""
    linked: int
    """Files that the backup named with `since` holds as well: one place on the disk, two names."""
    mended: int
    """Files that an earlier backup held damaged, and that were copied anew from the project."""
    snapshot: str
    """Digest of the traffic log in the copy."""
    records: int
    decisions: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RestoreReport:
    """What a restore came to."""

    into: str
    at: str
    """When the backup was made."""
    files: int
    bytes: int
    snapshot: str
    """Digest of the restored traffic log, computed anew; equal to the backup's."""
    records: int
    decisions: int
    """Entries of the decisions log; their chain was checked."""


def back_up(store: Store, target: Path, *, since: Path | None = None) -> BackupReport:
    """
    Copy a project while others work on it.

    The databases come first, `project.db` before `traffic.db`, each as it is at one moment; what they name was in the store
    before they named it, and lists are looked up before what they list: so the copy holds everything that it refers to.
    Files lie under their digests and are never overwritten; the manifest comes last, and until then an earlier backup stands.

    Args:
        store: the project's store.
        target: a folder; where it holds an earlier backup, only what is new is copied.
        since: folder of an earlier backup on the same disk, which stays: what has not changed is a second name for its file.

    Returns: what was copied.
    Raises: StoreError for a folder with other things in it, inside the project, or one that can't be written, and for a `since` that is
        the target or on another disk; CorruptArtifact for a database that is damaged, and a `since` that is no backup.
    """
    target = target.resolve()  # "../elsewhere" is not inside
    if target.is_relative_to(store.root.resolve()):
        raise StoreError("a backup inside the project would back itself up", next_action="name a folder elsewhere, on another disk if there is one")
    with _said(target):
        earlier, shelf = _admit(target), _Shelf(target, since)
        scratch = store.objects.scratch()
        facts: dict[str, Any] = {}
        rows: list[list[Any]] = []
        for name, schema in _DATABASES:
            copy = scratch / f"backup-{name}"  # on the project's own disk: the target may be where SQLite must not write
            store.copy_database(name, copy)
            facts |= _facts(copy, schema)
            rows.append([*shelf.keep(copy, f"{HOME}/{name}")[:3], 0o644])
            copy.unlink()
        for name in track(_names(store.root), "copying files"):
            try:
                rows.append(shelf.take(store.root / name, name, earlier.get(name)))
            except FileNotFoundError:  # it went meanwhile, and nothing in the databases needs it
                continue
        body = {"format": FORMAT, "at": now(), "files": rows, **facts}
        _write(target / MANIFEST, json.dumps({**body, "digest": _digest(body)}, indent=0).encode())
        _prune(target, {row[2] for row in rows})
    store.note_backup(str(target), body["at"])
    return BackupReport(
        target=str(target), at=body["at"], files=len(rows), bytes=sum(row[1] for row in rows), copied=shelf.copied, linked=shelf.linked, mended=len(shelf.rotten),
        snapshot=facts["snapshot"], records=facts["records"], decisions=facts["decisions"],
    )  # fmt: skip


def restore(source: Path, into: Path) -> RestoreReport:
    """
    Bring a backup back as a project; every digest is checked before the first byte is written, and again on what was written.

    Args:
        source: the backup's folder.
        into: a folder that is empty or missing.

    Returns: what was restored.
    Raises: CorruptArtifact for a backup that was cut off or changed; StoreError for a folder that holds something.
    """
    source, into = source.absolute(), into.absolute()
    body = _manifest(source)
    for _, size, digest, _ in track(body["files"], "checking the backup", total=len(body["files"])):
        _verify(_blob(source, digest), size, digest)
    if into.exists() and any(into.iterdir()):
        raise StoreError(f"{str(into)!r} is not empty; nothing was written", next_action="name an empty folder")
    with _said(into), whole_folder(into) as part:
        for name, size, digest, mode in track(body["files"], "restoring", total=len(body["files"])):
            _lay(_blob(source, digest), part / name, mode)
            _verify(part / name, size, digest)
    log = Db(into / HOME / "traffic.db", TRAFFIC_SCHEMA)
    book = Db(into / HOME / "project.db", PROJECT_SCHEMA)
    try:
        snapshot, decisions = TrafficLog(log).snapshot_digest(), Decisions(book).verify()
        if found := [*log.check(), *book.check()]:
            raise CorruptArtifact(f"the restored databases are damaged: {found[0]}", next_action="restore an earlier backup")
        if (snapshot, decisions) != (body["snapshot"], body["decisions"]):
            raise CorruptArtifact("the restored log is not the one that was backed up", next_action="restore an earlier backup")
        records = TrafficLog(log).counts().records
    finally:
        log.close()
        book.close()
    return RestoreReport(
        into=str(into), at=body["at"], files=len(body["files"]), bytes=sum(row[1] for row in body["files"]), snapshot=snapshot, records=records, decisions=decisions
    )


def _facts(path: Path, schema: Sequence[str]) -> dict[str, Any]:
    """What a copied database says of itself; a damaged one is no backup."""
    db = Db(path, schema)
    try:
        if found := db.check():
            raise CorruptArtifact(f"{path.name} is damaged: {found[0]}", next_action="restore an earlier backup; this one was not made")
        if schema is PROJECT_SCHEMA:
            return {"decisions": Decisions(db).verify()}
        log = TrafficLog(db)
        return {"snapshot": log.snapshot_digest(), "records": log.counts().records}
    finally:
        db.close()


def _names(root: Path) -> list[str]:
    """Every plain file of the project but databases, locks and unfinished work; what lists others is looked up before what it lists."""
    home = root / HOME
    lists = [path for pattern in ("steps/*/*.json", "objects/*/*.tree") for path in sorted(home.glob(pattern))]
    found = dict.fromkeys(path.relative_to(root).as_posix() for path in lists)
    for folder, names, files in os.walk(root):
        here = Path(folder)
        names[:] = sorted(one for one in names if not (here == home and one in _PASSING) and one != "__pycache__")
        for name in sorted(files):
            path = here / name
            passing = here == home and (".db" in name or name.endswith(".lock"))
            late = name.endswith(".tree") or (home / "steps") in path.parents  # not listed above: what it needs may have been missed
            if not passing and not late and path.is_file() and not path.is_symlink():
                found[path.relative_to(root).as_posix()] = None
    return list(found)


class _Shelf:
    """Where files lie under their digests; what an earlier backup holds whole is not copied again."""

    def __init__(self, target: Path, since: Path | None) -> None:
        self._target, self._since = target, since.absolute() if since is not None else None
        self._known: dict[str, Any] = {}
        self.copied = self.linked = 0
        self.rotten: set[str] = set()
        if self._since is not None:
            if self._since == target:
                raise StoreError("a backup can't be made since itself", next_action="leave --since away: the folder gets only what is new")
            self._known = {row[0]: row for row in _manifest(self._since)["files"]}
            if self._since.stat().st_dev != target.stat().st_dev:
                raise StoreError(f"{str(self._since)!r} is on another disk than {str(target)!r}; no file can have a name on both", next_action="leave --since away")

    def take(self, path: Path, name: str, known: Sequence[Any] | None) -> list[Any]:
        """A file's row of the manifest; an object's name is its digest, so that it is not read where a backup has it whole."""
        known = known or self._known.get(name)
        fixed = known is not None and name.startswith(f"{HOME}/objects/") and path.stat().st_size == known[1]
        if known is not None and fixed and self._held(known[2], known[1]):
            return list(known)
        return self.keep(path, name)

    def keep(self, path: Path, name: str) -> list[Any]:
        """Copy a file under its digest, durably, unless it is held."""
        found = path.stat()
        row: list[Any] = [name, found.st_size, _hash(path), stat.S_IMODE(found.st_mode)]
        if self._held(row[2], row[1]):
            return row
        part = self._target / f".part-{uuid.uuid4().hex}"
        with path.open("rb") as source, part.open("xb") as file:
            os.fchmod(file.fileno(), 0o600)
            shutil.copyfileobj(source, file, _BLOCK)
            file.flush()
            os.fsync(file.fileno())
        row[1:3] = part.stat().st_size, _hash(part)  # it may have changed since; what was copied is what counts
        to = self._place(row[2])
        part.replace(to)
        sync_folder(to.parent)
        self.copied += 1
        return row

    def _held(self, digest: str, size: int) -> bool:
        """Whether the target has the file whole, by a second name where the other backup has it. Read to the end: disks rot."""
        to = _blob(self._target, digest)
        if to.is_file():
            if _whole(to, size, digest):
                return True
            self.rotten.add(digest)  # the copy gets a place of its own: whoever shares the damaged one keeps it, and is refused
            return False
        if self._since is None or not (there := _blob(self._since, digest)).is_file():
            return False
        if not _whole(there, size, digest):
            self.rotten.add(digest)
            return False
        os.link(there, self._place(digest))
        sync_folder(to.parent)
        self.linked += 1
        return True

    def _place(self, digest: str) -> Path:
        to = _blob(self._target, digest)
        to.parent.mkdir(parents=True, exist_ok=True)
        return to


def _blob(target: Path, digest: str) -> Path:
    return target / DATA / digest[:2] / digest


def _lay(path: Path, to: Path, mode: int) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    with path.open("rb") as source, to.open("xb") as file:
        shutil.copyfileobj(source, file, _BLOCK)
        file.flush()
        os.fsync(file.fileno())
        os.fchmod(file.fileno(), mode)
    sync_folder(to.parent)


def _admit(target: Path) -> dict[str, Sequence[Any]]:
    """Make the folder where missing, sweep what a kill left, and give the rows of an earlier backup by name."""
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    strange = [one.name for one in target.iterdir() if one.name not in (MANIFEST, DATA) and not one.name.startswith(".part-")]
    if strange:
        raise StoreError(f"{str(target)!r} holds {strange[0]!r}, which is no backup; nothing was written", next_action="name an empty folder")
    for path in target.glob(".part-*"):
        path.unlink()
    try:
        return {row[0]: row for row in _manifest(target)["files"]}
    except CorruptArtifact:
        return {}


def _manifest(source: Path) -> Mapping[str, Any]:
    path = source / MANIFEST
    try:
        body = json.loads(path.read_bytes())
        digest = body.pop("digest")
        whole = body["format"] == FORMAT and _digest(body) == digest and all(_inside(row[0]) and row[2].isalnum() for row in body["files"])
    except FileNotFoundError as error:
        raise CorruptArtifact(
            f"{str(source)!r} has no {MANIFEST}: a backup was cut off there, or it is none; nothing was restored", next_action="take an earlier backup, or make a new one"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise CorruptArtifact(f"{str(path)!r} is damaged; nothing was restored", next_action="take an earlier backup") from error
    if not whole:
        raise CorruptArtifact(f"{str(path)!r} was changed, or is of another format; nothing was restored", next_action="take an earlier backup")
    return dict(body)


def _inside(name: str) -> bool:
    parts = Path(name).parts
    return bool(parts) and not Path(name).is_absolute() and ".." not in parts


def _whole(path: Path, size: int, digest: str) -> bool:
    return not path.is_symlink() and path.is_file() and path.stat().st_size == size and _hash(path) == digest


def _verify(path: Path, size: int, digest: str) -> None:
    if not _whole(path, size, digest):
        raise CorruptArtifact(f"{str(path)!r} is not what was backed up; nothing was restored", next_action="take an earlier backup, or make a new one")


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _prune(target: Path, kept: set[str]) -> None:
    """Files that the backup needs no more: what was erased must not live on here."""
    for path in (target / DATA).glob("*/*"):
        if path.name not in kept:
            path.unlink()


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(f".part-{uuid.uuid4().hex}")
    with part.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    sync_folder(path.parent)


class _said:  # noqa: N801 - reads as a phrase
    """A fault of the disk, in words."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise StoreError(f"{str(self._path)!r}: {error.strerror or error}", next_action="make room or make it writable, then run again") from error
