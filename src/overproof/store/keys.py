"""Keys of the gateway's callers: what is stored lets nobody call."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from overproof.errors import DataError, StoreError
from overproof.store.local import Db

Scope = Literal["invoke", "read", "review", "promote", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
PREFIX = "op_"
SECRET_BYTES = 32  # 43 characters of base64url
MOST_DAYS = 3650
SEEN_AGAIN_S, SEEN_LONG_S = 3_600.0, 86_400.0
"""How often the copy for a start without the server is written anew, and how old it may be then: a key may be revoked since."""
ID_LENGTH = 8
"""Characters of the secret that name a key; the other 35 (210 bits) are nowhere but with the caller."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ApiKey:
    """What is known of a key; never the key."""

    id: str
    """Its first characters after `op_`: by these people tell keys apart."""
    digest: bytes
    """SHA-256 of the whole key: 256 random bits need no slow hash."""
    name: str
    """Whose or what for, in people's words."""
    scopes: frozenset[Scope]
    """What it may do; "admin" includes all."""
    created: float
    """Unix time, as the others."""
    expires: float | None = None
    """None for never."""
    revoked: float | None = None
    """None while it holds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NewKey:
    """A key at its birth, the one moment at which it can be read."""

    secret: str
    """The key itself."""
    key: ApiKey
    """What is stored."""


def id_of(secret: str) -> str:
    """
    The public part of a key.

    Args:
        secret: the key.

    Returns: its id.
    """
    return secret[len(PREFIX) : len(PREFIX) + ID_LENGTH]


class ApiKeys:
    """
    The keys of a project.

    Args:
        db: the open `project.db`.
        seen: file beside a store on a server that holds what was read last; None for none.
    """

    def __init__(self, db: Db, seen: Path | None = None) -> None:
        self._db, self._seen = db, seen
        self._written: tuple[list[Any], float] | None = None

    def add(self, name: str, scopes: Collection[Scope], *, days: float | None = None) -> NewKey:
        """
        Make a key; durable on return.

        Args:
            name: whose or what for.
            scopes: what it may do.
            days: until it expires; never where absent.

        Returns: the key, to be shown once.
        Raises: DataError without a name or scope, for an unknown scope, or for an end in the past.
        """
        unknown = set(scopes) - set(SCOPES)
        if not name.strip() or not scopes or unknown or (days is not None and not 0 < days <= MOST_DAYS):
            raise DataError(
                f"a key can't be made with name {name!r}, scopes {sorted(scopes)}, days {days}",
                next_action=f"give it a name, one or more of {', '.join(SCOPES)}, and at most {MOST_DAYS} days",
            )
        found = time.time()
        while True:
            secret = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
            key = ApiKey(
                id=id_of(secret), digest=hashlib.sha256(secret.encode()).digest(), name=name.strip(), scopes=frozenset(scopes),
                created=found, expires=None if days is None else found + days * 86_400,
            )  # fmt: skip
            if not key.id.isalnum():  # "-" in front would read as an option on a command line
                continue
            with self._db.write() as connection:
                values = (key.id, key.digest, key.name, " ".join(sorted(key.scopes)), key.created, key.expires)
                sql = "INSERT INTO api_key VALUES(?, ?, ?, ?, ?, ?, NULL) ON CONFLICT(id) DO NOTHING RETURNING id"
                if connection.execute(sql, values).fetchall():
                    return NewKey(secret=secret, key=key)

    def revoke(self, key_id: str) -> ApiKey:
        """
        End a key for good; durable on return. A key that is revoked already stays as it is.

        Args:
            key_id: its id, with or without `op_` before it.

        Returns: the key as it is now.
        Raises: DataError where there is none of this id.
        """
        key_id = key_id.removeprefix(PREFIX)[:ID_LENGTH]
        with self._db.write() as connection:
            connection.execute("UPDATE api_key SET revoked=? WHERE id=? AND revoked IS NULL", (time.time(), key_id))
        for key in self.all():
            if key.id == key_id:
                return key
        raise DataError(f"there is no key {key_id!r}", next_action="see `overproof keys list`")

    def all(self) -> tuple[ApiKey, ...]:
        """Every key that ever was, oldest first."""
        rows = self._db.rows("SELECT id, digest, name, scopes, created, expires, revoked FROM api_key ORDER BY created, id")
        self._copy([[i, d.hex(), *rest] for i, d, *rest in rows])
        return _keys(rows)

    def last_seen(self) -> tuple[ApiKey, ...]:
        """
        The keys as this machine last read them, for a start while the server is away.

        Returns: what `all` gave then, at most a day ago.
        Raises: StoreError where there is no such copy, a damaged or an old one: who may call is not known then.
        """
        try:
            said = json.loads((self._seen or Path()).read_bytes())
            body = said["body"]
            whole = hashlib.sha256(body.encode()).hexdigest() == said["sha256"]
            at, rows = json.loads(body)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            whole, at, rows = False, 0.0, []
        if not whole or not -60.0 <= time.time() - at <= SEEN_LONG_S:
            raise StoreError(
                "the store's server is away, and this machine has no copy of the callers' keys from the last day",
                next_action="start again once the server can be reached",
            )
        return _keys([(i, bytes.fromhex(d), *rest) for i, d, *rest in rows])

    def _copy(self, rows: list[Any]) -> None:
        if self._seen is None or (self._written is not None and self._written[0] == rows and time.time() - self._written[1] < SEEN_AGAIN_S):
            return
        at = time.time()
        body = json.dumps([at, rows])
        unfinished = self._seen.with_name(f"{self._seen.name}.{os.getpid()}.tmp")
        try:
            unfinished.write_text(json.dumps({"sha256": hashlib.sha256(body.encode()).hexdigest(), "body": body}), encoding="utf-8")
            unfinished.chmod(0o600)
            unfinished.replace(self._seen)
        except OSError:  # the store itself answers: nobody waits for a copy
            return
        self._written = (rows, at)


def _keys(rows: Collection[Any]) -> tuple[ApiKey, ...]:
    return tuple(ApiKey(id=i, digest=d, name=n, scopes=frozenset(s.split()), created=c, expires=e, revoked=r) for i, d, n, s, c, e, r in rows)
