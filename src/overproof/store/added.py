"""Additions that are made once: one whose commit nobody heard of is tried again, and seen to be there already."""

from __future__ import annotations

from dataclasses import dataclass

from overproof.store.sql import Connection

TABLE = "CREATE TABLE added(writer TEXT PRIMARY KEY, number INTEGER NOT NULL) STRICT, WITHOUT ROWID;"
"""One row a writer. A server that stays away right at a commit tells nobody whether it was made; its own rows do, later."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Addition:
    """One of the additions that a writer makes, one after the other."""

    writer: str
    """An id that no other writer has, nor the same one after a restart."""
    number: int
    """From 1; the next one is tried only once it is known what became of this one."""


def made(connection: Connection, one: Addition) -> bool:
    """
    Whether an addition is there.

    Args:
        connection: in a write transaction, so that no commit is under way.
        one: the addition.

    Returns: True iff it was committed.
    """
    found = connection.execute("SELECT number FROM added WHERE writer=?", (one.writer,)).get
    return found is not None and int(found) >= one.number


def note(connection: Connection, one: Addition) -> None:
    """
    Say with the addition, in its transaction, that it is made.

    Args:
        connection: in the transaction.
        one: the addition.
    """
    connection.execute("INSERT INTO added VALUES(?, ?) ON CONFLICT(writer) DO UPDATE SET number=excluded.number", (one.writer, one.number))
