"""Postgres in the place of SQLite's files: the same statements, transactions and roles, for many machines on one truth."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from overproof.errors import MissingExtra, RoleTaken, StoreError
from overproof.store.dialect import REFUSE, script, statement
from overproof.store.local import Db
from overproof.store.sql import Row, Values

if TYPE_CHECKING:
    import psycopg

Found = TypeVar("Found")

WAIT_S: Final = 5.0
SILENT_S: Final = 20.0
"""How long a writer may say nothing in the middle of a transaction: with one that is cut off from the server all others would wait for hours."""
AGAIN_S: Final = 0.1
PATIENCE_S: Final = 30.0
"""So long a run, or a watch, waits for a server that is away, each time."""
STREAM_ROWS: Final = 2000
_MARK: Final = "\ue000"  # of the private use area: stands before a digit for itself and for NUL, which Postgres stores in no text
_OURS: Final = """INSERT INTO overproof_writer VALUES(%s, %s) ON CONFLICT(id) DO UPDATE SET number=excluded.number, at=now()
    RETURNING pg_advisory_xact_lock(%s)"""
_UP: Final = "see that the server runs and can be reached, then start again: what was acknowledged is kept"


class PgRows:
    """What a statement found, read whole."""

    __slots__ = ("_rows",)

    def __init__(self, rows: list[Row]) -> None:
        self._rows = rows

    @property
    def get(self) -> Any:
        """The first row's value, or that row where it has several; None where there is none."""
        if not self._rows:
            return None
        return self._rows[0][0] if len(self._rows[0]) == 1 else self._rows[0]

    def __iter__(self) -> Iterator[Row]:
        """The rows."""
        return iter(self._rows)

    def fetchall(self) -> list[Row]:
        """The rows."""
        return self._rows


class PgConnection:
    """
    A connection that takes the store's statements as they are written for SQLite.

    Args:
        inner: of psycopg, with values put in on this side: what is NULL needs no type then.
    """

    def __init__(self, inner: psycopg.Connection[Row]) -> None:
        self.inner = inner
        self._changed = 0
        self._points: list[Any] = []

    def execute(self, sql: str, values: Values = ()) -> PgRows:
        """Run one statement."""
        done = self.inner.execute(statement(sql).encode(), _given(values))
        self._changed = max(0, done.rowcount)
        return PgRows(done.fetchall() if done.description is not None else [])

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run one statement for each row, sent together."""
        with self.inner.cursor() as cursor:
            cursor.executemany(statement(sql).encode(), [_given(row) for row in rows])
            self._changed = max(0, cursor.rowcount)

    def changes(self) -> int:
        """Rows that the last statement changed."""
        return self._changed

    def __enter__(self) -> Self:
        """Begin a savepoint."""
        point = self.inner.transaction()
        point.__enter__()
        self._points.append(point)
        return self

    def __exit__(self, *failure: object) -> bool | None:
        """Keep what was done since, or undo it."""
        return bool(self._points.pop().__exit__(*failure))


class PgDb(Db):
    """
    One schema of a Postgres database in the place of a file.

    Writes take turns, as with a file: so each statement means there what it means here. Reads wait for nobody.

    Args:
        dsn: how to connect, as libpq takes it.
        name: of the schema.
        schema: one script for each version, oldest first, in SQLite's words.

    Raises: MissingExtra without psycopg; StoreError where the schema is a newer one, or the server refuses. One that is away is
        an error of the first use.
    """

    def __init__(self, dsn: str, name: str, schema: Sequence[str]) -> None:
        self.path = Path(name)  # for messages
        self._dsn, self._name, self._scripts = dsn, name, tuple(schema)
        self._lock, self._read_lock = threading.RLock(), threading.Lock()
        self._fence: tuple[str, int] | None = None
        self._turn = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
        self._writer: psycopg.Connection[Row] | None = None
        self._looker: psycopg.Connection[Row] | None = None
        self._id, self._number = secrets.token_hex(8), 0
        self._ready = False
        try:
            with self.clear_errors():
                self._made()
        except StoreError as error:
            if not _cut_off(error.__cause__):
                raise  # where the server is away, whoever needs it is told so, and a gateway waits for it

    @contextlib.contextmanager
    def write(self) -> Iterator[Any]:
        """A write transaction; see `Db.write`. One that can't begin waits for the server, one that is cut off inside is undone."""
        with self._lock, self.clear_errors():
            writer, over = self._patiently(self._began, self._writer), False
            connection = PgConnection(writer)
            try:
                self.check_fence(connection)
                yield connection
                over = True
                self._committed(writer.execute("COMMIT").statusmessage)
            except BaseException as error:
                if over and isinstance(error, _driver().OperationalError) and self._went_through():
                    return
                _undo(writer)
                raise

    def rows(self, sql: str, values: Values = ()) -> list[Row]:
        """All rows of a short read of what is committed; asked again where the connection breaks."""
        with self._read_lock, self.clear_errors():
            return self._patiently(lambda: self._looked(sql, values), self._looker)

    def stream(self, sql: str, values: Values = ()) -> Iterator[Row]:
        """The rows of a long read, from one moment's snapshot; few are in memory at a time."""
        with self.clear_errors():
            connection = self._patiently(self.connected, None)
            try:
                with connection.transaction(), connection.cursor(name="overproof") as cursor:
                    cursor.itersize = STREAM_ROWS
                    cursor.execute(statement(sql).encode(), _given(values))
                    yield from cursor
            finally:
                connection.close()

    def time(self, at: float) -> float:
        """The server's time, in seconds since 1970."""
        del at
        return float(self.rows("SELECT extract(epoch FROM clock_timestamp())")[0][0])

    def check(self) -> list[str]:
        """A server checks its own pages; what can be asked is whether the schema is there whole."""
        found = self.rows("SELECT version FROM overproof_schema")
        return [] if found == [(len(self._scripts),)] else [f"schema version {found} where {len(self._scripts)} is known"]

    def forget(self) -> None:
        """Leave nothing of deleted rows in the tables; the server's own write-ahead log and backups are its owner's business."""
        with self._lock, self.clear_errors():
            self._writer = self._live(self._writer)
            found = self._writer.execute("SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace AND relkind = 'r'", (self._name,)).fetchall()
            for (table,) in found:
                self._writer.execute(f'VACUUM FULL "{table}"'.encode())

    def copy_to(self, target: Path) -> None:
        """A server is backed up by its own tools. Raises StoreError."""
        del target
        raise StoreError(
            f"{self._name} is on Postgres, and `overproof backup` copies files",
            next_action=f"back it up with pg_dump --schema={self._name}, or move the store to files first: `overproof store move --to files`",
        )

    def counted(self, table: str, column: str) -> None:
        """Rows came with numbers of their own: count on behind them."""
        if column:
            with self.write() as connection:
                query = f"SELECT setval(pg_get_serial_sequence('{table}', '{column}'), coalesce(max({column}), 0) + 1, false) FROM {table}"  # noqa: S608
                connection.execute(query)

    def close(self) -> None:
        """Close the connections."""
        with self._lock, self._read_lock:
            for one in (self._writer, self._looker):
                if one is not None:
                    one.close()
            self._writer = self._looker = None

    def connected(self) -> psycopg.Connection[Row]:
        """A connection of its own, into the schema."""
        if not self._ready:
            self._made()
        return self._fresh()

    def _fresh(self) -> psycopg.Connection[Row]:
        made: psycopg.Connection[Row] = (driver := _driver()).connect(
            self._dsn, autocommit=True, connect_timeout=int(WAIT_S), cursor_factory=driver.ClientCursor, application_name=f"overproof {os.getpid()} on {socket.gethostname()}"[:60],
            keepalives_idle=10, keepalives_interval=5, keepalives_count=3, tcp_user_timeout=10_000, options=f"-c search_path={self._name} -c lock_timeout={int(WAIT_S * 1000)}",
        )  # fmt: skip
        for kind, loader in _loaders().items():
            made.adapters.register_loader(kind, loader)
        return made

    def _patiently(self, ask: Callable[[], Found], known: psycopg.Connection[Row] | None) -> Found:
        """Ask until `patience_s` is over; a known connection may have ended while nobody used it, which costs one more try."""
        until, again = time.monotonic() + self.patience_s, known is not None
        while True:
            try:
                return ask()
            except _driver().OperationalError as error:
                if not _cut_off(error) or not (again or time.monotonic() < until):
                    raise
            if not again:
                time.sleep(AGAIN_S)
            again = False

    def _looked(self, sql: str, values: Values) -> list[Row]:
        self._looker = self._live(self._looker)
        return list(PgConnection(self._looker).execute(sql, values))

    def _began(self) -> psycopg.Connection[Row]:
        """Our turn has come, and the transaction says which of ours it is."""
        writer = self._writer = self._live(self._writer)
        self._number += 1
        try:
            # "read committed": what comes after the lock sees what the last holder wrote
            writer.execute(f"BEGIN; SET LOCAL idle_in_transaction_session_timeout={int(SILENT_S * 1000)}".encode())
            writer.execute(_OURS, (self._id, self._number, self._turn))
        except BaseException:
            _undo(writer)
            raise
        return writer

    def _committed(self, word: str | None) -> None:
        """A transaction in which a statement failed, and nobody minded, is undone by its COMMIT without a word."""
        if word != "COMMIT":
            raise StoreError(f"{self._name}: a statement failed in the transaction; nothing was written", next_action="run again")

    def _went_through(self) -> bool:
        """
        Whether a commit whose answer was lost was made after all: what adds up must not be added twice.

        The server's own word on a transaction's number is none after a crash: it may have given the number away again.
        """
        driver, until = _driver(), time.monotonic() + max(WAIT_S, self.patience_s)
        while time.monotonic() < until:
            with contextlib.suppress(driver.OperationalError):
                self._writer = self._live(self._writer)
                with self._writer.transaction():
                    self._writer.execute("SELECT pg_advisory_xact_lock(%s)", (self._turn,))  # the old session may still be at it
                    found = self._writer.execute("SELECT number FROM overproof_writer WHERE id=%s", (self._id,)).fetchone()
                return bool(found and found[0] >= self._number)
            time.sleep(AGAIN_S)
        return False

    def _live(self, connection: psycopg.Connection[Row] | None) -> psycopg.Connection[Row]:
        return self.connected() if connection is None or connection.closed or connection.broken else connection

    def _made(self) -> None:
        """Bring the schema to the newest version, all or nothing."""
        connection = self._fresh()
        try:
            with connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(%s)", (self._turn,))
                connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{self._name}"'.encode())
                connection.execute(b"CREATE TABLE IF NOT EXISTS overproof_schema(version BIGINT NOT NULL)")
                connection.execute(b"CREATE TABLE IF NOT EXISTS overproof_writer(id TEXT PRIMARY KEY, number BIGINT NOT NULL, at TIMESTAMPTZ NOT NULL DEFAULT now())")
                connection.execute(b"DELETE FROM overproof_writer WHERE at < now() - interval '1 day'")  # who asks, asks within a minute
                found = connection.execute("SELECT version FROM overproof_schema").fetchone()
                done = int(found[0]) if found else 0
                if done > len(self._scripts):
                    raise StoreError(
                        f"{self._name} was written by a newer version (schema {done}, this one knows {len(self._scripts)}); it was not touched",
                        next_action="pip install --upgrade overproof",
                    )
                if done < len(self._scripts):
                    connection.execute(REFUSE.encode())
                    for one in self._scripts[done:]:
                        connection.execute(script(one).encode())
                    connection.execute(b"DELETE FROM overproof_schema")
                    connection.execute("INSERT INTO overproof_schema VALUES(%s)", (len(self._scripts),))
        finally:
            connection.close()
        self._ready = True

    @contextlib.contextmanager
    def clear_errors(self) -> Iterator[None]:
        """What the server says, in our words."""
        psycopg = _driver()
        try:
            yield
        except (psycopg.errors.DiskFull, psycopg.errors.InsufficientResources) as error:
            raise StoreError(f"the disk under {self._name} is full; nothing was written", next_action="free some space on the server, then run again") from error
        except psycopg.errors.LockNotAvailable as error:
            raise StoreError(f"another process has been writing to {self._name} for over {WAIT_S:g} seconds", next_action="wait for it, then run again") from error
        except psycopg.errors.IdleInTransactionSessionTimeout as error:
            raise StoreError(f"Postgres, schema {self._name}: nothing was heard of this process for {SILENT_S:g} seconds in the middle of a write, which is undone", next_action=_UP) from error
        except psycopg.OperationalError as error:
            raise StoreError(f"Postgres, schema {self._name}: {str(error).splitlines()[0] if str(error) else type(error).__name__}", next_action=_UP) from error


class PgRole:
    """
    The right to be the only process of its kind on a project, held by a session of the server: it ends with the process
    or with its connection, and the token lets the database refuse a holder that comes back.

    Args:
        db: whose writes are fenced while the role is held.
        name: "run", "serve", "watch" or "web".
        beside: another database that its holder works on; both wait for a server that is away.
    """

    def __init__(self, db: PgDb, name: str, *, beside: Callable[[], Db] | None = None) -> None:
        self._db, self._name, self._beside = db, name, beside
        self._key = int.from_bytes(hashlib.sha256(f"{db.path}\0role\0{name}".encode()).digest()[:8], "big", signed=True)
        self._session: psycopg.Connection[Row] | None = None
        self._outer: tuple[str, int] | None = None

    def __enter__(self) -> Self:
        db = self._db
        with db.clear_errors():
            session = db.connected()
            try:
                self._alone(session)
                self._outer = db.fenced
                with db.write() as connection:
                    sql = "INSERT INTO role VALUES(?, 1) ON CONFLICT(name) DO UPDATE SET token=role.token+1 RETURNING token"
                    token = connection.execute(sql, (self._name,)).get
                db.fence(self._name, token)
                self._be_patient(PATIENCE_S)
            except BaseException:
                session.close()
                raise
        self._session = session
        return self

    def __exit__(self, *_: object) -> None:
        self._db.unfence()
        if self._outer is not None:
            self._db.fence(*self._outer)
        else:
            self._be_patient(0.0)
        if self._session is not None:
            self._session.close()

    def _be_patient(self, seconds: float) -> None:
        for db in (self._db, *((self._beside(),) if self._beside else ())):
            db.patience_s = seconds

    def _alone(self, session: psycopg.Connection[Row]) -> None:
        got = session.execute("SELECT pg_try_advisory_lock(%s)", (self._key,)).fetchone()
        if not got or not got[0]:
            raise RoleTaken(f"another `overproof {self._name}` ({self._holder(session)}) is working on this project", next_action="wait until it has finished, or end that process")

    def _holder(self, session: psycopg.Connection[Row]) -> str:
        query = """SELECT a.application_name FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
            WHERE l.locktype = 'advisory' AND l.granted AND ((l.classid::bigint << 32) | l.objid::bigint) = %s"""
        found = session.execute(query.encode(), (self._key,)).fetchone()
        return str(found[0]) if found else "unknown"


def _driver() -> Any:
    try:
        import psycopg
    except ModuleNotFoundError as error:
        raise MissingExtra("a store on Postgres", extra="postgres") from error
    return psycopg


def _cut_off(error: BaseException | None) -> bool:
    """Whether the server is away or has ended the connection; nothing of an open transaction is left then."""
    return isinstance(error, _driver().OperationalError) and (getattr(error, "sqlstate", None) or "08").startswith(("08", "57P"))


def _undo(writer: psycopg.Connection[Row]) -> None:
    with contextlib.suppress(_driver().Error):
        writer.execute("ROLLBACK")


def _loaders() -> dict[str, Any]:
    """Sums of whole numbers come as `numeric`, and a text can hold no NUL there: both are turned back."""
    from psycopg.adapt import Loader

    class Number(Loader):
        def load(self, data: Any) -> int | float:
            found = Decimal(bytes(data).decode())
            return int(found) if found == found.to_integral_value() else float(found)

    class Text(Loader):
        def load(self, data: Any) -> str:
            found = bytes(data).decode()
            return found.replace(_MARK + "0", "\0").replace(_MARK + "1", _MARK) if _MARK in found else found

    return {"numeric": Number, "text": Text}


def _given(values: Values) -> dict[str, Any]:
    """Values by the names of their places; truth is a number, as SQLite has it, and NUL is spelled."""
    pairs = values.items() if isinstance(values, Mapping) else ((f"p{at}", one) for at, one in enumerate(values, 1))
    return {name: _plain(one) for name, one in pairs}


def _plain(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str) and ("\0" in value or _MARK in value):
        return value.replace(_MARK, _MARK + "1").replace("\0", _MARK + "0")
    return value.item() if hasattr(value, "item") else value
