"""A project's databases from files to Postgres and back: every row, counted and digested on both sides before anything changes."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from overproof.errors import DataError, StoreError
from overproof.progress import track
from overproof.store.local import Db
from overproof.store.place import Remote, open_db, put_remote, remote_of, role_on
from overproof.store.schema import PROJECT_SCHEMA, TRAFFIC_SCHEMA
from overproof.store.signatures import Signatures
from overproof.store.sql import Row

SCHEMAS: Final = {"project": PROJECT_SCHEMA, "traffic": TRAFFIC_SCHEMA}
ROLES: Final = ("run", "serve", "watch", "web")
BLOCK: Final = 500
_TABLE: Final = re.compile(r"CREATE TABLE (\w+)\(\s*(\w+) (INTEGER PRIMARY KEY\b)?")
DERIVED: Final = frozenset({"served_day"})  # kept by triggers from the rows that are moved
_TOP: Final = 1 << 256


@dataclass(frozen=True, kw_only=True, slots=True)
class TableDigest:
    """One table's rows, whatever their order."""

    table: str
    """With its database, as in "traffic.record"."""
    rows: int
    digest: str
    """Sum of the SHA-256 of each row, modulo 2 to the 256, in hex: the same for the same rows on any engine."""


def digests_of(home: Path, remote: Remote | None) -> tuple[TableDigest, ...]:
    """
    What a store's databases hold.

    Args:
        home: the `.overproof` folder.
        remote: where they are; None for files.

    Returns: one entry for each table, in the schema's order.
    Raises: what `open_db` raises.
    """
    found = []
    for name, scripts in SCHEMAS.items():
        with _opened(home, name, scripts, remote) as db:
            for table, _ in tables(scripts):
                total = n = 0
                for row in db.stream(f"SELECT * FROM {table}"):  # noqa: S608 - a name of our own schema
                    total, n = (total + _hash(row)) % _TOP, n + 1
                found.append(TableDigest(table=f"{name}.{table}", rows=n, digest=f"{total:064x}"))
    return tuple(found)


def move(root: Path, to: Remote | None) -> tuple[TableDigest, ...]:
    """
    Copy the databases, compare, and only then work on the copy; what was there before stays as it is.

    Args:
        root: the project's folder; nothing else may work on it meanwhile.
        to: the server; None for files.

    Returns: what was moved.
    Raises: DataError where the project is there already, or the target holds rows; StoreError where another process works on
        the project, or what arrived differs.
    """
    home = root.absolute() / ".overproof"
    before = remote_of(home)
    if before == to:
        raise DataError("the store is there already", next_action="nothing is to be done")
    with contextlib.ExitStack() as held:
        db = held.enter_context(_opened(home, "project", PROJECT_SCHEMA, before))
        Signatures(root, home, lambda: db).take_in()
        for role in ROLES:
            held.enter_context(role_on(home, role, lambda: db, before))
        for name, scripts in SCHEMAS.items():
            with _opened(home, name, scripts, before) as source, _opened(home, name, scripts, to) as target:
                _refuse_rows(target, name, scripts)
                for table, identity in track(tables(scripts), f"moving {name}"):
                    _copy(source, target, table, identity=identity)
        there, here = digests_of(home, to), digests_of(home, before)
        if there != here:
            wrong = next(one.table for one, other in zip(there, here, strict=True) if one != other)
            raise StoreError(f"{wrong} arrived with other rows; the store stays where it was", next_action="empty the target and move again; report it where it happens twice")
        put_remote(home, to)
    return there


def tables(scripts: Sequence[str]) -> list[tuple[str, str]]:
    """Names of a schema's tables, those that others refer to first, each with its identity column or nothing."""
    return [(name, column if identity else "") for script in scripts for name, column, identity in _TABLE.findall(script) if name not in DERIVED]


@contextlib.contextmanager
def _opened(home: Path, name: str, scripts: Sequence[str], remote: Remote | None) -> Iterator[Db]:
    db = open_db(home, name, scripts, remote)
    try:
        yield db
    finally:
        db.close()


def _refuse_rows(target: Db, name: str, scripts: Sequence[str]) -> None:
    for table, _ in tables(scripts):
        allowed = 1 if table == "meta" else 0  # its epoch comes with the schema
        if len(target.rows(f"SELECT 1 FROM {table} LIMIT 2")) > allowed:  # noqa: S608
            raise DataError(f"{name}.{table} of the target holds rows already", next_action="give another schema, or move the old files away")


def _copy(source: Db, target: Db, table: str, *, identity: str) -> None:
    rows = source.stream(f"SELECT * FROM {table}")  # noqa: S608
    first = True
    while block := list(islice(rows, BLOCK)):
        with target.write() as connection:
            if first:
                connection.execute("DELETE FROM meta" if table == "meta" else "SELECT 1")
            places = ", ".join("?" * len(block[0]))
            connection.executemany(f"INSERT INTO {table} VALUES({places})", block)
        first = False
    target.counted(table, identity)


def _hash(row: Row) -> int:
    said = "\x1f".join(_word(value) for value in row)
    return int.from_bytes(hashlib.sha256(said.encode("utf-8", "surrogatepass")).digest(), "big")


def _word(value: Any) -> str:
    if isinstance(value, bytes | memoryview):
        return f"b{bytes(value).hex()}"
    if isinstance(value, float):
        return f"f{value.hex()}"
    return "n" if value is None else f"{type(value).__name__[0]}{value}"
