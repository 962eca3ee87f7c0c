"""Content-addressed files under `.overproof`: written whole or not at all, verified before use."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast

from overproof import progress
from overproof.data import Folder, digest_of
from overproof.errors import CorruptArtifact, DataError, StoreError
from overproof.store.bucket import Bucket
from overproof.store.codec import Written, read, write
from overproof.whole import sync_folder

_BLOCK = 1 << 20
_SMALL = 1 << 24  # bytes of a value that is put together in memory
_SHOW_PROGRESS_ABOVE = (
    200_000_000  # bytes; hashing runs at about 1 GB/s, so this is where two seconds come near
)


class Objects:
    """
    The files of one project's store.

    A value lies in `objects/aa/DIGEST.value`; a folder in `objects/aa/DIGEST/` with its list of files in
    `objects/aa/DIGEST.tree`, which is written last: no list, no folder.

    Args:
        home: the `.overproof` folder; made on the first write.
        bucket: what several machines share: all that is put here goes there as well, and what is missing here is fetched.
        buried: gives what erasures on any machine took away, behind a number: pairs of number and digest.
    """

    def __init__(self, home: Path, bucket: Bucket | None = None, *, buried: Callable[[int], Sequence[Sequence[Any]]] | None = None) -> None:
        self.home = home.absolute()
        self._bucket, self._pushed = bucket, set[str]()
        self._buried, self._learnt = buried, -1
        self._scratch: Path | None = None
        self._lock = -1
        self._verified: set[str] = set()

    @property
    def bucket(self) -> Bucket | None:
        """What several machines share; None where the files are here alone."""
        return self._bucket

    def learn(self) -> None:
        """
        Drop what has been erased on any machine since this one last looked, once: the same bytes made anew from rows that are there may stay.

        Comes before anything is handed on, fetched, or found by a step.
        """
        if self._buried is None:
            return
        note = self.home / "tmp" / "buried"  # in no backup: a restored project looks at everything again
        if self._learnt < 0:
            self._learnt = int(note.read_text()) if note.exists() else 0
        if fresh := self._buried(self._learnt):
            self.drop(str(row[1]) for row in fresh)
            if any(not row[1] for row in fresh):  # rows went as well: an index of them is made again, a copy from before a migration is of no more use
                for path in [*self.home.glob("search*"), *self.home.glob("*.bak")]:
                    path.unlink(missing_ok=True)
            self._learnt = int(fresh[-1][0])
            self.write_whole(note, [str(self._learnt).encode()])

    def records(self, step: str = "*") -> dict[Path, Mapping[str, Any]]:
        """The records of steps that are here and can be read."""
        found = {}
        for path in sorted(self.home.glob(f"steps/{step}/*.json")):
            with contextlib.suppress(OSError, ValueError):
                found[path] = json.loads(path.read_bytes())
        return found

    def drop(self, digests: Iterable[str]) -> None:
        """Remove values and folders here; the records that name them go first, so that no later run believes in them."""
        gone = {one for one in digests if one}
        for path, row in self.records().items():
            if gone & made_by(row):
                path.unlink(missing_ok=True)
        for digest in gone:
            self._tree_list(digest).unlink(missing_ok=True)
            self.value_path(digest).unlink(missing_ok=True)
            shutil.rmtree(self._tree_list(digest).with_suffix(""), ignore_errors=True)
        self._verified -= gone

    def value_path(self, digest: str) -> Path:
        """Where the bytes of a value with this digest are or would be."""
        return self.home / "objects" / digest[:2] / f"{digest}.value"

    def has_value(self, digest: str) -> bool:
        """True iff the value is there (its bytes are checked when they are read)."""
        return self._is_there(self.value_path(digest))

    def has_tree(self, digest: str) -> bool:
        """True iff the folder is there whole (its files are checked when they are first used)."""
        return self._is_there(self._tree_list(digest))

    def is_here(self, digest: str) -> bool:
        """True iff this machine has the value or the folder."""
        return self.value_path(digest).exists() or self._tree_list(digest).exists()

    def put(self, value: Any) -> Written:
        """
        Store a value under the digest of its bytes; a large one goes to the disk piece by piece.

        Args:
            value: see `codec.encode`.

        Returns: digest and references; the bytes are in the store.
        Raises: StoreError for what can't be stored, and where there is no room.
        """
        place = self.scratch()
        with tempfile.SpooledTemporaryFile(_SMALL, dir=str(place)) as body:
            with _clear_errors(place):
                written = write(value, cast("IO[bytes]", body), keep=self.keep)
            self._put(written.digest, written.blocks())
        return written

    def put_value(self, digest: str, data: bytes) -> Path:
        """Store bytes under their digest; does nothing where they are there already."""
        return self._put(digest, [data])

    @contextlib.contextmanager
    def open_value(self, digest: str) -> Iterator[IO[bytes]]:
        """
        A value's file, verified.

        Args:
            digest: SHA-256 of the bytes.

        Returns: it, open at its beginning.
        Raises: CorruptArtifact where it is missing or differs.
        """
        path = self.value_path(digest)
        if not path.exists():
            self.learn()
            self._fetch_value(path, digest)
        try:
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    raise self._corrupt(path, "doesn't have the digest that its name says")
                file.seek(0)
                yield file
        except FileNotFoundError as error:
            raise self._corrupt(path, "is missing") from error
        except OSError as error:
            raise self._corrupt(path, f"can't be read: {error.strerror}") from error

    def value(self, digest: str, *, where: str) -> Any:
        """
        A stored value.

        Args:
            digest: SHA-256 of its bytes.
            where: name for messages.

        Returns: the value; its bytes are never in memory whole.
        Raises: CorruptArtifact where they are missing or differ; StoreError where a class has changed since.
        """
        with self.open_value(digest) as file:
            return read(file, find=self.find, where=where)

    def get_value(self, digest: str) -> bytes:
        """The bytes of a value, verified; CorruptArtifact where they are missing or differ."""
        with self.open_value(digest) as file:
            return file.read()

    def keep(self, folder: Folder) -> str:
        """
        Take a folder's files into the store.

        Args:
            folder: with a digest that the store has, nothing happens; else the files are moved (from the session's
                own scratch space) or copied (from anywhere else).

        Returns: the tree digest.
        Raises: StoreError for a missing folder, a link or a special file; CorruptArtifact where the folder names a
            digest that its files don't have.
        """
        self.learn()
        if folder.digest and self.has_tree(folder.digest):
            self._push_tree(folder.digest)
            return folder.digest
        files = _files_of(folder.path)
        rows = [_row_of(folder.path, name) for name in _shown(files, folder.path, "storing files")]
        digest = digest_of(rows)
        if folder.digest and folder.digest != digest:
            raise self._corrupt(folder.path, f"has digest {digest[:12]}, expected {folder.digest[:12]}")
        if not self._tree_list(digest).exists():
            self._move_in(folder.path, rows, digest)
        self._push_tree(digest)
        return digest

    def find(self, digest: str) -> Path:
        """
        The folder with this tree digest, every file verified the first time in this process.

        Args:
            digest: tree digest.

        Returns: absolute path.
        Raises: CorruptArtifact where a file is missing, added, or has another size or SHA-256.
        """
        self.learn()
        place = self.home / "objects" / digest[:2] / digest
        if digest in self._verified:
            return place
        if not self._tree_list(digest).exists():
            self._fetch_tree(digest)
        try:
            rows = json.loads(self._tree_list(digest).read_bytes())
            listed = digest_of(rows) == digest
        except (OSError, ValueError, TypeError):
            listed = False
        if not listed:
            raise self._corrupt(self._tree_list(digest), "is missing or damaged")
        try:
            there = _files_of(place)
        except StoreError as error:
            raise self._corrupt(place, "is damaged") from error
        if there != [row[0] for row in rows]:
            raise self._corrupt(place, "has files missing or added")
        for row in rows:
            if (place / row[0]).stat().st_size != row[1]:
                raise self._corrupt(place / row[0], f"doesn't have {row[1]} bytes")
        for name, row in zip(_shown(there, place, "checking files"), rows, strict=True):
            if _row_of(place, name) != row:
                raise self._corrupt(place / name, "doesn't have the SHA-256 that was recorded")
        self._verified.add(digest)
        return place

    def write_whole(self, path: Path, data: Iterable[bytes]) -> None:
        """Write a read-only file so that a reader sees all of it or none, also after a power cut."""
        scratch = self.scratch() / uuid.uuid4().hex
        with _clear_errors(path):
            with scratch.open("wb") as file:
                file.writelines(data)
                file.flush()
                os.fsync(file.fileno())
                os.fchmod(file.fileno(), 0o444)
            _make_folder(path.parent, self.home)
            scratch.rename(path)
            sync_folder(path.parent)

    def note(self, path: Path, data: bytes) -> None:
        """Record that a step is done: here last, so that what is recorded here is shared already."""
        if self._bucket is not None:
            self._bucket.put_new(self._key(path), data)
        self.write_whole(path, [data])

    def noted(self, path: Path) -> bool:
        """Whether there is such a record; one that another machine made is brought here."""
        self.learn()
        if not path.exists() and self._bucket is not None:
            with contextlib.suppress(FileNotFoundError):
                self.write_whole(path, [b"".join(self._bucket.get(self._key(path)))])
        return path.exists()

    def push_all(self) -> int:
        """
        Share what was made before there was a bucket, records of steps last.

        Returns: how many values, folders and records are shared now.
        Raises: DataError without a bucket; StoreError where it can't be reached.
        """
        if self._bucket is None:
            raise DataError("store.toml names no [objects]", next_action='write [objects] with url = "s3://bucket/prefix" or "file:///folder" into .overproof/store.toml')
        self.learn()
        trees, values, records = (sorted(self.home.glob(one)) for one in ("objects/*/*.tree", "objects/*/*.value", "steps/*/*.json"))
        for path in progress.track([*trees, *values, *records], "sharing", total=len(trees) + len(values) + len(records)):
            if path.suffix == ".tree":
                self.find(path.stem)  # what is damaged here is not handed on
                self._push_tree(path.stem, mend=True)
            else:
                if path.suffix == ".value":
                    self.get_value(path.stem)
                self._push(path)
        return len(trees) + len(values) + len(records)

    @property
    def checkpoints(self) -> Path:
        """Folder for the state of long trainings: it outlives a kill, and each training removes its own when it is done."""
        return self.home / "checkpoints"

    def scratch(self) -> Path:
        """The session's own folder for unfinished files; a kill leaves it behind, the next session sweeps it."""
        if self._scratch is None:
            place = self.home / "tmp"
            with _clear_errors(place):
                place.mkdir(parents=True, exist_ok=True)
                name = self._take_name(place)
                (place / name).mkdir()
            self._scratch = place / name
        return self._scratch

    def sweep(self) -> int:
        """Remove what killed sessions left unfinished; returns how many were removed."""
        swept = 0
        place = self.home / "tmp"
        names = sorted(p.stem for p in place.glob("*.lock")) if place.exists() else []
        for name in names:
            lock = place / f"{name}.lock"
            with contextlib.suppress(OSError):
                handle = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _remove(place / name)
                    lock.unlink()
                    swept += 1
                finally:
                    os.close(handle)
        return swept

    def close(self) -> None:
        """Remove this session's scratch space."""
        if self._scratch is not None:
            _remove(self._scratch)
            self._scratch.with_name(f"{self._scratch.name}.lock").unlink(missing_ok=True)
            os.close(self._lock)
            self._scratch = None

    def _tree_list(self, digest: str) -> Path:
        return self.home / "objects" / digest[:2] / f"{digest}.tree"

    def _key(self, path: Path) -> str:
        return path.relative_to(self.home).as_posix()

    def _is_there(self, path: Path) -> bool:
        return path.exists() or (self._bucket is not None and self._bucket.has(self._key(path)))

    def _put(self, digest: str, data: Iterable[bytes]) -> Path:
        self.learn()
        path = self.value_path(digest)
        if not path.exists():
            self.write_whole(path, data)
        self._push(path)
        return path

    def _push(self, path: Path) -> None:
        if self._bucket is not None and (key := self._key(path)) not in self._pushed:
            self._bucket.put_new(key, path)
            self._pushed.add(key)

    def _push_tree(self, digest: str, *, mend: bool = False) -> None:
        listed = self._tree_list(digest)
        if self._bucket is None or self._key(listed) in self._pushed or not listed.exists():
            return
        if mend or not self._bucket.has(self._key(listed)):
            for name, *_ in json.loads(listed.read_bytes()):
                self._bucket.put_new(self._key(listed.with_suffix("") / name), listed.with_suffix("") / name)
        self._push(listed)

    def _fetch_value(self, path: Path, digest: str) -> None:
        if self._bucket is None:
            return
        with contextlib.suppress(FileNotFoundError):
            data = b"".join(self._bucket.get(self._key(path)))
            if hashlib.sha256(data).hexdigest() != digest:
                raise self._foreign(path, "doesn't have the digest that its name says")
            self.write_whole(path, [data])

    def _fetch_tree(self, digest: str) -> None:
        """Bring a folder here, every file checked before any of it is in its place."""
        if self._bucket is None:
            return
        listed = self._tree_list(digest)
        try:
            rows = json.loads(b"".join(self._bucket.get(self._key(listed))))
            if digest_of(rows) != digest:
                raise self._foreign(listed, "doesn't have the digest that its name says")
        except FileNotFoundError:
            return  # nobody has it: said by who asked
        except ValueError as error:
            raise self._foreign(listed, "can't be read") from error
        stage = self.scratch() / uuid.uuid4().hex
        for name, *known in progress.track(rows, "fetching files", total=len(rows)):
            target = stage / name
            if not target.resolve().is_relative_to(stage):
                raise self._foreign(listed, f"names {name!r}, which lies outside")
            with _clear_errors(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as file:
                    try:
                        for piece in self._bucket.get(self._key(listed.with_suffix("") / name)):
                            file.write(piece)
                    except FileNotFoundError as error:
                        raise self._foreign(listed.with_suffix("") / name, "is missing") from error
            if _row_of(stage, name)[1:] != known:
                raise self._foreign(listed.with_suffix("") / name, f"doesn't have the {known[0]} bytes and SHA-256 that were recorded")
        self._move_in(stage, rows, digest)
        _remove(stage)

    def _foreign(self, path: Path, what: str) -> CorruptArtifact:
        return CorruptArtifact(f"the shared object {self._key(path)!r} {what}; it is not used", next_action="delete it there, then run `overproof store push` on a machine that has it")

    def _take_name(self, place: Path) -> str:
        """Lock a fresh name; the lock comes before the folder, so that no sweep can meet the folder unlocked."""
        while True:
            name = uuid.uuid4().hex
            self._lock = os.open(place / f"{name}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            if os.fstat(self._lock).st_nlink:  # else a sweep met the file between its creation and the lock
                return name
            os.close(self._lock)

    def tree_digest(self, folder: Folder) -> str:
        """The digest that `keep` would give, without storing anything."""
        return folder.digest or digest_of([_row_of(folder.path, name) for name in _files_of(folder.path)])

    def _move_in(self, source: Path, rows: Sequence[Sequence[Any]], digest: str) -> None:
        own = source.absolute().is_relative_to(self.scratch())
        stage = self.scratch() / uuid.uuid4().hex
        place = self.home / "objects" / digest[:2] / digest
        with _clear_errors(place):
            stage.mkdir()
            for name, *_ in rows:
                target = stage / name
                target.parent.mkdir(parents=True, exist_ok=True)
                if own:
                    (source / name).rename(target)
                else:
                    shutil.copyfile(source / name, target)
                _sync_file(target)
            for folder in [p for p in stage.rglob("*") if p.is_dir()] + [stage]:
                sync_folder(folder)
            _make_folder(place.parent, self.home)
            _remove(place)  # without its list it's the leftover of a kill
            stage.rename(place)
            sync_folder(place.parent)
        self.write_whole(self._tree_list(digest), [json.dumps(rows).encode()])
        if not own:  # a copied file may have changed under the hash
            self.find(digest)
        self._verified.add(digest)

    def _corrupt(self, path: Path, what: str) -> CorruptArtifact:
        root = self.home / "objects"
        if not path.is_relative_to(root):
            return CorruptArtifact(f"{str(path)!r} {what}; it is not used", next_action="run again")
        prefix, name = path.relative_to(root).parts[:2]
        shown = path.relative_to(self.home.parent)
        drop = f"{self.home.name}/objects/{prefix}/{name.partition('.')[0]}*"
        return CorruptArtifact(
            f"{str(shown)!r} {what}; it is not used",
            next_action=f"delete it (rm -rf {drop}), then run again: the step that made it is repeated",
        )


def made_by(row: Mapping[str, Any]) -> set[str]:
    """
    What a step left, by its record.

    Args:
        row: the record.

    Returns: digests of its value and of the folders in it.
    """
    return {str(row.get("output")), *map(str, row.get("folders") or ())}


def _files_of(folder: Path) -> list[str]:
    """Relative names of all files, sorted; only plain files and folders are admitted."""
    try:
        mode = folder.lstat().st_mode
    except OSError as error:
        raise StoreError(
            f"folder {str(folder)!r} can't be read: {error.strerror}",
            next_action="run again; if it stays, report it",
        ) from error
    if not stat.S_ISDIR(mode):
        raise StoreError(
            f"{str(folder)!r} is not a folder", next_action="let the step return a Folder of files"
        )
    names: list[str] = []
    for path in folder.rglob("*"):
        kind = path.lstat().st_mode
        if stat.S_ISREG(kind):
            names.append(path.relative_to(folder).as_posix())
        elif not stat.S_ISDIR(kind):
            raise StoreError(
                f"{str(path)!r} is a link or a special file; only plain files can be stored",
                next_action="write a plain file instead",
            )
    return sorted(names)


def _row_of(folder: Path, name: str) -> list[Any]:
    """[relative name, size in bytes, SHA-256]."""
    digest = hashlib.sha256()
    size = 0
    with (folder / name).open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            size += len(block)
    return [name, size, digest.hexdigest()]


def _shown(names: list[str], folder: Path, what: str) -> Iterator[str]:
    heavy = sum((folder / name).stat().st_size for name in names) > _SHOW_PROGRESS_ABOVE
    return progress.track(names, what, total=len(names)) if heavy else iter(names)


def _sync_file(path: Path) -> None:
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
        os.fchmod(handle, 0o444)
    finally:
        os.close(handle)


def _make_folder(path: Path, home: Path) -> None:
    if path.is_dir():
        return
    path.mkdir(parents=True, exist_ok=True)
    for folder in (path.parent, *path.parent.parents):
        sync_folder(folder)
        if folder == home:
            break


def _remove(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)


@contextlib.contextmanager
def _clear_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{str(path)!r} can't be written: {error.strerror or error}",
            next_action="free some space or make the folder writable, then run again: finished steps are kept",
        ) from error
