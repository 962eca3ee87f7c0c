"""Which release serves, at what stage, since when, by whom; and how often sealed rows were used."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from overproof.errors import StoreError
from overproof.store.codec import decode, encode
from overproof.store.decisions import now
from overproof.store.local import Db
from overproof.store.sql import Row

if TYPE_CHECKING:  # a gateway's log process opens a store as well, and reads no evidence
    from overproof.evidence import Release

Stage = Literal["candidate", "shadow", "canary", "full", "rolled-back"]
SERVING: tuple[Stage, ...] = ("shadow", "canary", "full")
FRESH = 0.1  # a set with more of its rows opened before is not a fresh draw


@dataclass(frozen=True, kw_only=True, slots=True)
class ReleaseEntry:
    """One change of a release's stage."""

    seq: int
    release_id: str
    task: str
    stage: Stage
    at: str
    """ISO 8601 in UTC."""
    by: str
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Unsealed:
    """One counted use of sealed rows."""

    k: int
    """Which use of these rows it is, from 1."""
    delta_k: float
    """The error budget of this use: delta * 6 / (pi^2 k^2), so that all uses together spend at most delta."""
    replay: bool
    """True where the same plan had been unsealed before: it spends nothing."""
    at: str
    """When this plan was first unsealed, ISO 8601 in UTC."""
    shared: float = 0.0
    """Share of these rows that earlier sets of sealed rows have opened under this label kind, in [0, 1]."""


class Releases:
    """
    Releases and their stages, and the ledger of sealed rows.

    Args:
        db: the open `project.db`.
        find: tree digest to the folder that holds its files.
    """

    def __init__(self, db: Db, find: Callable[[str], Path]) -> None:
        self._db = db
        self._find = find

    def record(self, release: Release, *, stage: Stage = "candidate", by: str, why: str = "") -> ReleaseEntry:
        """
        Put a release at a stage; durable on return.

        Args:
            release: as `steps.gate` made it, its bundle in the store.
            stage: where it is now.
            by: who decided.
            why: in a few words.

        Returns: the entry.
        Raises: StoreError for an unknown stage, or another release with the same id.
        """
        if stage not in get_args(Stage):
            raise StoreError(
                f"stage {stage!r} is unknown", next_action=f"use one of {', '.join(get_args(Stage))}"
            )
        encoded = encode(release)
        with self._db.write() as connection:
            connection.execute(
                "INSERT INTO release VALUES(?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (release.id, release.task, encoded.digest, encoded.data),
            )
            known = connection.execute("SELECT digest FROM release WHERE id=?", (release.id,)).get
            if known != encoded.digest:
                raise StoreError(
                    f"release {release.id!r} is recorded with other content",
                    next_action="give the new release an id of its own",
                )
            at = now()
            sql = "INSERT INTO release_stage(release_id, stage, at, by, why) VALUES(?, ?, ?, ?, ?) RETURNING seq"
            seq = connection.execute(sql, (release.id, stage, at, by, why)).get
        return ReleaseEntry(
            seq=seq, release_id=release.id, task=release.task, stage=stage, at=at, by=by, why=why
        )

    def current(self) -> Release | None:
        """The release that serves: the newest whose last stage is shadow, canary or full."""
        last: dict[str, Stage] = {}
        for entry in self.history():
            last.pop(entry.release_id, None)  # so that the order is that of the last change
            last[entry.release_id] = entry.stage
        serving = [name for name, stage in last.items() if stage in SERVING]
        return self.get(serving[-1]) if serving else None

    def latest(self) -> Release | None:
        """The release that was recorded last, whatever its stage."""
        rows = self._db.rows("SELECT release_id FROM release_stage ORDER BY seq DESC LIMIT 1")
        return self.get(rows[0][0]) if rows else None

    def get(self, release_id: str) -> Release | None:
        """The release with this id, its bundle verified; None where there is none."""
        rows = self._db.rows("SELECT body FROM release WHERE id=?", (release_id,))
        return (
            cast("Release", decode(rows[0][0], find=self._find, where=f"release {release_id}"))
            if rows
            else None
        )

    def history(self) -> Sequence[ReleaseEntry]:
        """All changes of stage, oldest first."""
        query = """
            SELECT s.seq, s.release_id, r.task, s.stage, s.at, s.by, s.why
            FROM release_stage s JOIN release r ON r.id = s.release_id ORDER BY s.seq"""
        names = ("seq", "release_id", "task", "stage", "at", "by", "why")
        return [ReleaseEntry(**dict(zip(names, row, strict=True))) for row in self._db.rows(query)]

    def unseal(
        self, sealed_digest: str, *, label_kind: str, plan_hash: str, delta: float, by: str, rows: Sequence[str]
    ) -> Unsealed:
        """
        Count a use of sealed rows, before their labels are read: a crash after it costs one use, never a free look.

        A set that shares more than a tenth of its rows with sets that were opened before is no fresh set: it goes on
        from their largest count. So does any set while an earlier one is on record without its rows.

        Args:
            sealed_digest: which rows.
            label_kind: "gold" or "teacher:<model>"; each has its own count.
            plan_hash: digest of everything that is fixed; an edited plan is a new use.
            delta: error budget of all uses together, in (0, 1).
            by: who asks.
            rows: hashes of the rows' ids, see `steps.survey.row_hash`.

        Returns: the use; the earlier one where this plan had been unsealed with the same delta.
        Raises: StoreError for a closed set, or the same plan with another delta.
        Source: statistics of repeated use of a holdout; sum of 6/(pi^2 k^2) over k is 1.
        """
        if not 0 < delta < 1:
            raise StoreError(f"delta {delta!r} is not in (0, 1)", next_action="mend [bars] delta")
        with self._db.write() as connection:
            connection.executemany(
                "INSERT INTO sealed_row VALUES(?, ?) ON CONFLICT DO NOTHING", [(row, sealed_digest) for row in rows]
            )
            found: list[Row] = connection.execute(
                "SELECT k, delta, delta_k, at FROM unsealing WHERE sealed_digest=? AND label_kind=? AND plan_hash=?",
                (sealed_digest, label_kind, plan_hash),
            ).fetchall()
            if found:
                k, before, delta_k, at = found[0]
                if before != delta:
                    raise StoreError(
                        f"this plan was unsealed with delta {before}, now {delta}",
                        next_action="make delta a part of the plan",
                    )
                return Unsealed(k=k, delta_k=delta_k, replay=True, at=at)
            closed = connection.execute(
                "SELECT closed_why FROM sealed_set WHERE sealed_digest=? AND closed_at IS NOT NULL",
                (sealed_digest,),
            ).fetchall()
            if closed:
                raise StoreError(
                    f"the sealed rows {sealed_digest[:12]} are closed: {closed[0][0]}",
                    next_action="draw a new sealed set from newer traffic",
                )
            before_k, shared = _used(connection, sealed_digest, label_kind)
            k = 1 + before_k
            delta_k = delta * 6 / (math.pi**2 * k**2)
            at = now()
            connection.execute(
                "INSERT INTO unsealing VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
                (sealed_digest, label_kind, k, plan_hash, delta, delta_k, at, by),
            )
        return Unsealed(k=k, delta_k=delta_k, replay=False, at=at, shared=shared)

    def known_use(self, sealed_digest: str, *, label_kind: str, plan_hash: str) -> Unsealed | None:
        """
        A use that is on record; writes nothing.

        Args:
            sealed_digest: which rows.
            label_kind: see `unseal`.
            plan_hash: see `unseal`.

        Returns: the use, or None where this plan has not opened these rows.
        """
        found = self._db.rows(
            "SELECT k, delta_k, at FROM unsealing WHERE sealed_digest=? AND label_kind=? AND plan_hash=?",
            (sealed_digest, label_kind, plan_hash),
        )
        return Unsealed(k=found[0][0], delta_k=found[0][1], replay=True, at=found[0][2]) if found else None

    def times_opened(self, rows: Sequence[str]) -> int:
        """
        How often rows were opened as part of sets that share so many of them that a new use goes on from their count.

        Args:
            rows: hashes of the rows' ids.

        Returns: the largest count over all label kinds; 0 for rows that are fresh.
        """
        opened: dict[str, int] = dict(self._db.rows("SELECT sealed_digest, max(k) FROM unsealing GROUP BY sealed_digest"))
        mine, shared = set(rows), dict.fromkeys(opened, 0)
        for row, one in self._db.stream("SELECT row, sealed_digest FROM sealed_row"):
            if row in mine and one in shared:
                shared[one] += 1
        return max((opened[one] for one, n in shared.items() if n > FRESH * len(mine)), default=0)

    def opened_rows(self) -> list[str]:
        """Hashes of all rows that were ever opened, sorted."""
        query = "SELECT DISTINCT row FROM sealed_row WHERE sealed_digest IN (SELECT sealed_digest FROM unsealing) ORDER BY 1"
        return [str(row) for (row,) in self._db.rows(query)]

    def close_sealed(self, sealed_digest: str, *, why: str) -> None:
        """No new plan may use these rows any more, for example because somebody has looked at them."""
        sql = "INSERT INTO sealed_set VALUES(?, ?, ?) ON CONFLICT DO NOTHING"
        with self._db.write() as connection:
            connection.execute(sql, (sealed_digest, now(), why))


def _used(connection: Any, sealed_digest: str, label_kind: str) -> tuple[int, float]:
    """The largest count that a new use of these rows goes on from, and the share of them that was opened before."""
    rows = connection.execute("SELECT count(*) FROM sealed_row WHERE sealed_digest=?", (sealed_digest,)).get
    opened = dict(
        connection.execute(
            "SELECT sealed_digest, max(k) FROM unsealing WHERE label_kind=? GROUP BY sealed_digest", (label_kind,)
        )
    )
    own = opened.pop(sealed_digest, 0)
    recorded = {one for (one,) in connection.execute("SELECT DISTINCT sealed_digest FROM sealed_row")}
    unknown = set(opened) - recorded  # of an older schema: nobody can say that these rows are others
    query = """
        SELECT mine.row, theirs.sealed_digest FROM sealed_row mine JOIN sealed_row theirs ON theirs.row = mine.row
        WHERE mine.sealed_digest = ?1 AND theirs.sealed_digest <> ?1"""
    pairs = [(row, one) for row, one in connection.execute(query, (sealed_digest,)) if one in opened]
    shared = len({row for row, _ in pairs}) / rows if rows else 0.0
    related = {one for _, one in pairs} if shared > FRESH else set()
    return max([own, *(opened[one] for one in related | unknown)]), shared
