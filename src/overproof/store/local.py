"""SQLite through apsw: durable transactions, versioned schemas, one process per role."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import apsw

from overproof.errors import CorruptArtifact, RoleTaken, StoreError
from overproof.store.sql import Connection, Row

APPLICATION_ID = 0x4F565250  # "OVRP"
NETWORK_FILE_SYSTEMS = ("nfs", "cifs", "smb", "9p", "afs", "ceph", "gluster", "lustre", "fuse.")
_WAIT_S = 5.0
_FULL = "free some space on the disk, then run again: what was acknowledged is kept"
_WRITABLE = "make the project's folder writable, or work on a copy of it"

_PRAGMAS = (
    ("foreign_keys", "ON"),
    ("trusted_schema", "OFF"),
    ("cell_size_check", "ON"),
    ("mmap_size", 0),
    ("cache_size", -32_768),  # KiB, as far as they are used: with the 2 MiB of SQLite itself, inserts into a large log read their index pages anew
    ("synchronous", "FULL"),  # with NORMAL, power cuts lost acknowledged rows in more than half of the trials
    ("fullfsync", "ON"),
    ("checkpoint_fullfsync", "ON"),
    ("secure_delete", "ON"),
    ("wal_autocheckpoint", 1000),  # pages
    ("journal_size_limit", 67_108_864),  # bytes
)

def wal_is_safe(version: Sequence[int]) -> bool:
    """
    Whether an SQLite engine is free of the WAL-reset race, by which a committed transaction could be lost.

    Args:
        version: (major, minor, patch) of the loaded engine.

    Returns: True iff write-ahead logging may be used.
    """
    v = tuple(version)
    fixed_before = (v[:2] == (3, 50) and v[2] >= 7) or (v[:2] == (3, 44) and v[2] >= 6)
    return v < (3, 7, 0) or v >= (3, 51, 3) or fixed_before


def engine_version() -> str:
    """Version of the SQLite engine that is loaded, for `status` and the dossier."""
    return str(apsw.sqlite_lib_version())


class Db:
    """
    One database file: every write is a durable transaction of its own.

    Args:
        path: the file; made, with its folder, where missing.
        schema: one script for each schema version, oldest first; the file's `user_version` says how many ran.

    Raises: StoreError for a newer schema (nothing is changed), a network file system, a file that can't be opened;
        CorruptArtifact for a file that is not a database.
    """

    patience_s = 0.0
    """How long a server that is away is waited for; a file is there or not."""

    def __init__(self, path: Path, schema: Sequence[str]) -> None:
        self.path = path.absolute()
        self._lock = threading.RLock()
        self._read_lock = threading.Lock()
        self._reader: apsw.Connection | None = None
        self._fence: tuple[str, int] | None = None
        self._broken = False
        with self.clear_errors():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _refuse_network(self.path.parent)
            _refuse_newer(self.path, len(schema))
            self._connection = _connect(self.path)
            self._migrate(schema)

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """
        A write transaction: durable when the block has ended, undone when it raises.

        Returns: the connection to execute on.
        Raises: StoreError for a full disk, a read-only file, another process that holds the lock too long, or a
            role that was taken over.
        """
        with self._lock, self.clear_errors():
            if self._broken:
                raise StoreError(
                    f"{self.path.name} had a write error; it takes no more writes in this process",
                    next_action="check the disk, then start again",
                )
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self.check_fence(self._connection)
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """All rows of a short read of what is committed; never waits for a writer of this process."""
        with self._read_lock, self.clear_errors():
            if self._reader is None:
                self._reader = _connect(self.path, flags=apsw.SQLITE_OPEN_READONLY)
            return list(self._reader.execute(sql, values))

    def stream(self, sql: str, values: Sequence[Any] = ()) -> Iterator[Row]:
        """The rows of a long read, from one moment's snapshot, without holding up writers."""
        with self.clear_errors():
            connection = _connect(self.path, flags=apsw.SQLITE_OPEN_READONLY)
            try:
                yield from connection.execute(sql, values)
            finally:
                connection.close()

    def time(self, at: float) -> float:
        """`at`, or the server's time in seconds since 1970: one clock for all who share the store."""
        return at

    def fence(self, role: str, token: int) -> None:
        """From now on every write first checks that this process still holds the role."""
        self._fence = (role, token)

    @property
    def fenced(self) -> tuple[str, int] | None:
        """The role and token that writes of this handle are made under."""
        return self._fence

    def unfence(self) -> None:
        """Writes check no role any more."""
        self._fence = None

    def holds(self, role: str) -> bool:
        """True iff writes of this handle are made under the role."""
        return self._fence is not None and self._fence[0] == role

    def forget(self) -> None:
        """Leave nothing of deleted rows: free pages are zeroed as they come, the log is emptied here; StoreError where it stays in use."""
        until = time.monotonic() + _WAIT_S
        with self._lock, self._read_lock, self.clear_errors():
            if self._reader is not None:
                self._reader.close()
                self._reader = None
            while next(iter(self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")))[0]:
                if time.monotonic() > until:
                    raise StoreError(
                        f"another process reads or writes {self.path.name} all the time; its log still holds what was deleted",
                        next_action="stop the gateway and the watch for a moment, then run again",
                    )
                time.sleep(0.05)

    def copy_to(self, target: Path) -> None:
        """Copy what is committed at one moment into a new file, while others write."""
        with self.clear_errors():
            source, copy = _connect(self.path, flags=apsw.SQLITE_OPEN_READONLY), apsw.Connection(str(target))
            try:
                with copy.backup("main", source, "main") as backup:
                    backup.step()  # all pages under one read lock: one moment
                copy.pragma("journal_mode", "DELETE")
            finally:
                copy.close()
                source.close()

    def check(self) -> list[str]:
        """What SQLite's own integrity check finds; empty where the file is sound."""
        found = [str(row[0]) for row in self.rows("PRAGMA integrity_check")]
        return [] if found == ["ok"] else found

    def counted(self, table: str, column: str) -> None:
        """Rows came with numbers of their own: count on behind them. SQLite does so by itself."""

    def close(self) -> None:
        """Close the file; what was committed is there."""
        with self._lock, self._read_lock:
            if self._reader is not None:
                self._reader.close()
            self._connection.close()  # last, since the last one to close tidies the log up

    def check_fence(self, connection: Connection) -> None:
        """Refuse a write under a role that another process has taken over; asked inside the transaction. Raises StoreError."""
        if self._fence is None:
            return
        if not list(connection.execute("SELECT 1 FROM role WHERE name=? AND token=?", self._fence)):
            raise StoreError(
                f"another process has taken over the role {self._fence[0]!r} of this project",
                next_action="stop this process; the other one goes on",
            )

    def _migrate(self, schema: Sequence[str]) -> None:
        if _version_of(self._connection) >= len(schema):
            return
        if before := _version_of(self._connection):
            self._back_up(before)
        with self.write() as connection:
            done = _version_of(self._connection)  # again, now that nobody else can write
            for script in schema[done:]:
                connection.execute(script)
            if done < len(schema):
                connection.execute(f"PRAGMA user_version={len(schema)}")
                found = [row[0] for row in connection.execute("PRAGMA integrity_check")]
                if found != ["ok"]:
                    raise CorruptArtifact(
                        f"{self.path.name} is damaged: {found[0]}; it was left as it was",
                        next_action="restore it from a backup",
                    )

    def _back_up(self, version: int) -> None:
        target = self.path.with_name(f"{self.path.name}.v{version}.bak")
        unfinished = target.with_name(f"{target.name}.tmp")
        unfinished.unlink(missing_ok=True)
        copy = apsw.Connection(str(unfinished))
        try:
            with copy.backup("main", self._connection, "main") as backup:
                backup.step()
        finally:
            copy.close()
        unfinished.rename(target)

    @contextlib.contextmanager
    def clear_errors(self) -> Iterator[None]:
        """What SQLite and the disk say, in our words."""
        name = self.path.name
        try:
            yield
        except apsw.FullError as error:
            raise StoreError(
                f"the disk under {name} is full; nothing was written", next_action=_FULL
            ) from error
        except (apsw.ReadOnlyError, apsw.CantOpenError, apsw.PermissionsError) as error:
            raise StoreError(f"{name} can't be opened for writing: {error}", next_action=_WRITABLE) from error
        except (apsw.BusyError, apsw.LockedError) as error:
            raise StoreError(
                f"another process has been writing to {name} for over {_WAIT_S:g} seconds",
                next_action="wait for it, then run again",
            ) from error
        except (apsw.NotADBError, apsw.CorruptError) as error:
            raise CorruptArtifact(
                f"{name} is damaged: {error}",
                next_action=f"restore {name} from a backup, or move it away to start anew",
            ) from error
        except apsw.IOError as error:
            # After a failed write or fsync nobody knows what is on the disk: trying again could report false success.
            self._broken = True
            raise StoreError(
                f"{name} can't be written: {error}", next_action="check the disk, then start again"
            ) from error
        except OSError as error:
            raise StoreError(f"{name}: {error.strerror or error}", next_action=_WRITABLE) from error


class Role:
    """
    The right to be the only process of its kind on a project; use as a context manager.

    The kernel frees the lock when the process dies; the token lets the database refuse a holder that was stopped and
    taken over.

    Args:
        home: the `.overproof` folder.
        name: "run", "serve", "watch" or "web".
        db: database whose writes are fenced while the role is held.
    """

    def __init__(self, home: Path, name: str, db: Callable[[], Db]) -> None:
        self._path = home / f"{name}.lock"
        self._name = name
        self._db = db
        self._handle = -1
        self._outer: tuple[str, int] | None = None

    def __enter__(self) -> Self:
        try:
            handle = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreError(f"{self._path.name}: {error.strerror}", next_action=_WRITABLE) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(handle, 64, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(handle)
            raise RoleTaken(
                f"another `overproof {self._name}` (process {holder}) is working on this project",
                next_action="wait until it has finished, or end that process",
            ) from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        self._handle = handle
        try:
            self._take_token()
        except BaseException:
            self._free()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._db().unfence()
        if self._outer is not None:  # the watch is also the run while it buys
            self._db().fence(*self._outer)
        self._free()

    def _take_token(self) -> None:
        db = self._db()
        self._outer = db.fenced
        with db.write() as connection:
            sql = """INSERT INTO role VALUES(?, 1) ON CONFLICT(name) DO UPDATE SET token=role.token+1 RETURNING token"""
            token = connection.execute(sql, (self._name,)).get
        db.fence(self._name, token)

    def _free(self) -> None:
        os.close(self._handle)
        self._handle = -1


def file_system_of(path: Path) -> str:
    """
    Type of the file system that holds a path, for example "ext4".

    Args:
        path: an existing path.

    Returns: the type as the kernel names it; "" where it can't be told (not Linux).
    """
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        real = path.resolve()
    except OSError:
        return ""
    best, kind = "", ""
    for line in lines:
        left, _, right = line.partition(" - ")
        point = left.split(" ")[4].replace("\\040", " ")
        if real.is_relative_to(point) and len(point) >= len(best):
            best, kind = point, right.split(" ")[0]
    return kind


def _refuse_network(folder: Path) -> None:
    kind = file_system_of(folder)
    if kind.startswith(NETWORK_FILE_SYSTEMS):
        raise StoreError(
            f"the project lies on a network file system ({kind}), where SQLite can lose committed rows",
            next_action="keep the project on a local disk",
        )


def _refuse_newer(path: Path, known: int) -> None:
    """Look at the version before opening for writing, since even opening could change bytes."""
    if not path.exists() or path.stat().st_size < 100:  # bytes of SQLite's header
        return
    with path.open("rb") as file:
        header = file.read(100)
    if not header.startswith(b"SQLite format 3\0"):
        return  # opening it will say what is wrong
    found = int.from_bytes(header[60:64], "big")  # user_version, https://sqlite.org/fileformat.html
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            connection.set_busy_timeout(int(_WAIT_S * 1000))
            with contextlib.suppress(apsw.ReadOnlyError):  # a power cut left a journal to be rolled back, which takes writing
                found = _version_of(connection)
        finally:
            connection.close()
    if found > known:
        raise StoreError(
            f"{path.name} was written by a newer version (schema {found}, this one knows {known}); it was not touched",
            next_action="pip install --upgrade overproof",
        )


def _version_of(connection: apsw.Connection) -> int:
    return int(connection.pragma("user_version"))


def _connect(
    path: Path, *, flags: int = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
) -> apsw.Connection:
    connection = apsw.Connection(str(path), flags=flags)
    try:
        connection.set_busy_timeout(int(_WAIT_S * 1000))
        for name, value in _PRAGMAS:
            connection.pragma(name, value)
        if flags & apsw.SQLITE_OPEN_READWRITE:
            if wal_is_safe([int(part) for part in engine_version().split(".")]):
                _set_wal(connection)
            else:
                connection.pragma("journal_mode", "DELETE")
                warnings.warn(
                    f"SQLite {engine_version()} can lose rows in WAL mode; using the slower rollback journal",
                    RuntimeWarning,
                    stacklevel=2,
                )
            if connection.pragma("application_id") != APPLICATION_ID:
                connection.pragma("application_id", APPLICATION_ID)
    except BaseException:
        connection.close()
        raise
    return connection


def _set_wal(connection: apsw.Connection) -> None:
    """SQLite's own waiting doesn't cover the change of journal mode, which another process may be making as well."""
    until = time.monotonic() + _WAIT_S
    while True:
        try:
            connection.pragma("journal_mode", "WAL")
        except apsw.BusyError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)
        else:
            return
