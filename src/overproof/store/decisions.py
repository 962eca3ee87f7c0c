"""The log of decisions: append-only, hash-chained."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from overproof.data import digest_of
from overproof.errors import CorruptArtifact
from overproof.store.local import Db
from overproof.store.sql import Connection, Row


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """One entry of the decisions log, chained to the one before."""

    seq: int
    """1, 2, 3, … without gaps."""
    at: str
    """ISO 8601 in UTC, never earlier than an entry before."""
    kind: str
    """For example "release" or "waiver"."""
    actor: str
    """Who decided."""
    subject: str
    """What it is about: a release, a task, a finding."""
    body: Mapping[str, Any]
    """The particulars, a JSON object."""
    prev: str
    """Digest of the entry before; empty for the first."""
    digest: str
    """SHA-256 over all of the above."""


class Decisions:
    """
    What people decided, and the gate with them: append-only, hash-chained.

    Args:
        db: the open `project.db`.
    """

    def __init__(self, db: Db) -> None:
        self._db = db

    def append(self, kind: str, *, actor: str, subject: str, body: Mapping[str, Any]) -> Decision:
        """
        Record a decision; durable on return.

        Args:
            kind: a word for the sort of decision.
            actor: who decided.
            subject: what it is about.
            body: particulars that JSON can say.

        Returns: the entry.
        """
        with self._db.write() as connection:
            return decide_on(connection, kind, actor=actor, subject=subject, body=body)

    def read(self) -> Iterator[Decision]:
        """All entries, oldest first."""
        query = "SELECT seq, at, kind, actor, subject, body, prev, digest FROM decision ORDER BY seq"
        for seq, at, kind, actor, subject, body, prev, digest in self._db.stream(query):
            yield Decision(
                seq=seq,
                at=at,
                kind=kind,
                actor=actor,
                subject=subject,
                body=json.loads(body),
                prev=prev,
                digest=digest,
            )

    def verify(self) -> int:
        """
        Check the whole chain: numbers, links and digests. Entries cut off at the end can't be seen from here.

        Returns: number of entries.
        Raises: CorruptArtifact that names the first entry that was changed, removed or put in.
        """
        prev, seq = "", 0
        for decision in self.read():
            row = asdict(decision)
            claimed = row.pop("digest")
            if decision.seq != seq + 1 or decision.prev != prev or digest_of(row) != claimed:
                raise CorruptArtifact(
                    f"decision {decision.seq} of {decision.at} doesn't fit the chain: it, or what came before, was changed",
                    next_action="compare project.db with a backup; don't release on this log",
                )
            prev, seq = claimed, decision.seq
        return seq


def decide_on(
    connection: Connection, kind: str, *, actor: str, subject: str, body: Mapping[str, Any]
) -> Decision:
    """
    Put an entry into the decisions log as a part of a larger transaction.

    Args:
        connection: of a write transaction on `project.db`.
        kind: a word for the sort of decision.
        actor: who decided.
        subject: what it is about.
        body: particulars that JSON can say.

    Returns: the entry; durable with the transaction.
    """
    last: list[Row] = connection.execute("SELECT seq, at, digest FROM decision ORDER BY seq DESC LIMIT 1").fetchall()
    seq, newest, prev = last[0] if last else (0, "", "")
    row = {
        "seq": seq + 1,
        "at": max(newest, now()),  # a clock that was set back must not put entries out of order
        "kind": kind,
        "actor": actor,
        "subject": subject,
        "body": json.loads(json.dumps(dict(body), allow_nan=False)),
        "prev": prev,
    }
    decision = Decision(**row, digest=digest_of(row))
    values = {**row, "body": json.dumps(row["body"], allow_nan=False), "digest": decision.digest}
    connection.execute(
        "INSERT INTO decision VALUES(:seq, :at, :kind, :actor, :subject, :body, :prev, :digest)", values
    )
    return decision


def now() -> str:
    """The present time, ISO 8601 in UTC, with microseconds so that texts sort as times do."""
    return datetime.now(UTC).isoformat(timespec="microseconds")
