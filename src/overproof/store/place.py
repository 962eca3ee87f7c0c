"""Where a project's store lives, as `.overproof/store.toml` says: databases in files or in Postgres, artifacts here or shared."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tomllib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from overproof.errors import DataError
from overproof.store.local import Db, Role

NAME: Final = "store.toml"
_SCHEMA: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Remote:
    """A store on a server."""

    dsn_env: str
    """Environment variable that says how to connect: a password belongs in no file of the project."""
    schema: str
    """What the names of its two schemas begin with."""

    def dsn(self) -> str:
        """How to connect. Raises DataError where the variable is empty."""
        found = os.environ.get(self.dsn_env, "")
        if not found:
            raise DataError(f"the store is on Postgres, and {self.dsn_env} is empty", next_action=f"set {self.dsn_env} to the server's address, as in postgresql://user@host/db")
        return found


def remote_of(home: Path) -> Remote | None:
    """
    Where the databases are.

    Args:
        home: the `.overproof` folder.

    Returns: the server's; None where they are files.
    Raises: DataError for a file that says neither.
    """
    table = _said(home).get("postgres")
    if table is None:
        return None
    if not isinstance(table, dict) or set(table) != {"dsn_env", "schema"} or not _SCHEMA.fullmatch(str(table["schema"])):
        raise DataError(f"{NAME}: [postgres] with dsn_env and schema (small letters, digits, _) was expected", next_action="write it with `overproof store move`")
    return Remote(dsn_env=str(table["dsn_env"]), schema=str(table["schema"]))


def objects_of(home: Path) -> str:
    """
    Where the artifacts are shared.

    Args:
        home: the `.overproof` folder.

    Returns: the address; empty where they are here alone.
    Raises: DataError for a file that says neither.
    """
    table = _said(home).get("objects")
    if table is None:
        return ""
    if not isinstance(table, dict) or set(table) != {"url"} or not isinstance(table["url"], str) or not table["url"].isprintable():
        raise DataError(f"{NAME}: [objects] with url was expected", next_action='write url = "s3://bucket/prefix" or "file:///folder"')
    return table["url"]


def _said(home: Path) -> dict[str, Any]:
    try:
        said: dict[str, Any] = tomllib.loads((home / NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"{NAME} can't be read: {error}", next_action="mend it, or restore it from a backup") from error
    if not said or set(said) - {"postgres", "objects"}:
        raise DataError(f"{NAME}: [postgres] with dsn_env and schema, or [objects] with url, was expected", next_action="mend it, or write it with `overproof store move`")
    return said


def put_remote(home: Path, remote: Remote | None) -> None:
    """
    Say where the databases are from now on; whole or not at all.

    Args:
        home: the `.overproof` folder.
        remote: the server's; None for files.

    Raises: DataError for a name that no schema can have.
    """
    shared = objects_of(home)
    if remote is None and not shared:
        with contextlib.suppress(FileNotFoundError):
            (home / NAME).unlink()
        return
    if remote is not None and not _SCHEMA.fullmatch(remote.schema):
        raise DataError(f"schema {remote.schema!r}: small letters, digits and _ were expected, a letter first, at most 40", next_action="choose another name")
    text = f'[postgres]\ndsn_env = "{remote.dsn_env}"\nschema = "{remote.schema}"\n' if remote else ""
    text += f"[objects]\nurl = {json.dumps(shared, ensure_ascii=False)}\n" if shared else ""
    unfinished = home / f"{NAME}.tmp"
    with unfinished.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(home / NAME)


def open_db(home: Path, name: str, scripts: Sequence[str], remote: Remote | None) -> Db:
    """
    A database of the project.

    Args:
        home: the `.overproof` folder.
        name: "traffic" or "project".
        scripts: its schema, one for each version.
        remote: the server, or None for files.

    Returns: the database, at the newest schema.
    Raises: what `Db` and `PgDb` raise.
    """
    if remote is None:
        return Db(home / f"{name}.db", scripts)
    from overproof.store.remote import PgDb

    return PgDb(remote.dsn(), f"{remote.schema}_{name}", scripts)


def role_on(
    home: Path, name: str, db: Callable[[], Db], remote: Remote | None, *, beside: Callable[[], Db] | None = None
) -> AbstractContextManager[Any]:
    """The right to be the only process of a kind: on this machine, or on all that share the server; `beside` is used with it."""
    if remote is None:
        return Role(home, name, db)
    from overproof.store.remote import PgDb, PgRole

    found = db()
    assert isinstance(found, PgDb)
    return PgRole(found, name, beside=beside)
