"""Planned looks at sealed rows: what identifies a plan, which labels each look saw, and what it counted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from overproof.errors import StoreError
from overproof.store.decisions import now
from overproof.store.local import Db

if TYPE_CHECKING:  # as in releases.py
    from overproof.evidence import Certificate, LookCounts

Seen: TypeAlias = "Mapping[str, Mapping[str, tuple[LookCounts, ...]]]"
"""Label kind to certification slice to what each look so far saw."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """A plan that admits the evidence there is: as a look that was taken, or as the next one."""

    plan_hash: str
    sealed_digest: str
    """Of its first look; the ledger counts its uses under it."""
    look: int
    """Which look this evidence is, from 1."""
    taken: bool
    """True where that look is on record."""
    facts: Mapping[str, Any]
    """What the plan was made from besides what identifies it, as `take` got it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """One look at the sealed rows of one plan."""

    look: int
    """From 1."""
    at: str
    """When it was taken, ISO 8601 in UTC."""
    earlier: Seen
    """What the looks before it counted; a look whose counts were never stored is there with no rows."""


class Looks:
    """
    The ledger of looks.

    Args:
        db: the open `project.db`.
    """

    def __init__(self, db: Db) -> None:
        self._db = db

    def admits(self, anchor: str, labels: Sequence[str]) -> Planned | None:
        """
        The newest plan of an anchor that these labels continue.

        Args:
            anchor: digest of what identifies a plan: student, calibration, grids' rows, bars, dials; not the sealed rows.
            labels: hashes of every sealed row with each of its labels.

        Returns: the plan with the look that these labels are; None where nothing was planned, the planned looks are used
            up, or a label that an earlier look saw is missing or changed.
        """
        known = self._db.rows(
            "SELECT plan_hash, sealed_digest, looks, facts FROM planned WHERE anchor=? ORDER BY at DESC, rowid DESC", (anchor,)
        )
        evidence = _evidence(labels)
        for plan_hash, sealed_digest, looks, facts in known:
            taken = self._db.rows("SELECT look FROM look WHERE plan_hash=? AND evidence=?", (plan_hash, evidence))
            if taken:
                return Planned(
                    plan_hash=plan_hash, sealed_digest=sealed_digest, look=taken[0][0], taken=True, facts=json.loads(facts)
                )
            done = self._done(plan_hash)
            if done < looks and self._contained(plan_hash, labels):
                return Planned(
                    plan_hash=plan_hash, sealed_digest=sealed_digest, look=done + 1, taken=False, facts=json.loads(facts)
                )
        return None

    def take(
        self, plan_hash: str, labels: Sequence[str], *, anchor: str, sealed_digest: str, looks: int, facts: Mapping[str, Any], by: str
    ) -> Look:
        """
        Put a look on record before its labels are read: a crash after it costs a look, never gives one away.

        Args:
            plan_hash: digest of the plan, as in the ledger of uses.
            labels: hashes of every sealed row with each of its labels.
            anchor: see `admits`.
            sealed_digest: which rows there are now.
            looks: planned looks.
            facts: what the plan was made from besides its anchor; kept with the first look.
            by: who asks.

        Returns: the look; the earlier one where these labels had been looked at under this plan.
        Raises: StoreError where the planned looks are used up, or an earlier look saw a label that is gone.
        """
        evidence = _evidence(labels)
        told = json.dumps(facts)  # in the order given: the plan's bytes, and so its digest, depend on it
        with self._db.write() as connection:
            connection.execute(
                "INSERT INTO planned VALUES(?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (plan_hash, anchor, sealed_digest, looks, told, now()),
            )
            known = list(connection.execute("SELECT look, at FROM look WHERE plan_hash=? AND evidence=?", (plan_hash, evidence)))
            if known:
                number, at = known[0]
            else:
                planned = connection.execute("SELECT looks FROM planned WHERE plan_hash=?", (plan_hash,)).get
                number, at = 1 + connection.execute("SELECT count(*) FROM look WHERE plan_hash=?", (plan_hash,)).get, now()
                before = {row for (row,) in connection.execute("SELECT row FROM look_row WHERE plan_hash=?", (plan_hash,))}
                if number > planned or not before <= set(labels):
                    raise StoreError(
                        f"look {number} at this plan's sealed rows is not one of the {planned} planned ones, or a label is gone",
                        next_action="run again: the next plan is a new use of the sealed rows",
                    )
                connection.execute(
                    "INSERT INTO look(plan_hash, look, sealed_digest, evidence, at, by) VALUES(?, ?, ?, ?, ?, ?)",
                    (plan_hash, number, sealed_digest, evidence, at, by),
                )
                connection.executemany(
                    "INSERT INTO look_row VALUES(?, ?, ?)", [(plan_hash, row, number) for row in set(labels) - before]
                )
        return Look(look=number, at=at, earlier=self._earlier(plan_hash, number))

    def keep(self, plan_hash: str, look: int, certificates: Sequence[Certificate]) -> None:
        """
        Keep what a look counted, for the looks after it; kept once.

        Args:
            plan_hash: the plan.
            look: which look, from 1.
            certificates: of every label kind.
        """
        body = {c.label_kind: {s.slice: {"n": s.n, "counts": s.counts} for s in c.slices} for c in certificates}
        with self._db.write() as connection:
            connection.execute(
                "UPDATE look SET counts=? WHERE plan_hash=? AND look=? AND counts=''", (json.dumps(body), plan_hash, look)
            )

    def _done(self, plan_hash: str) -> int:
        return int(self._db.rows("SELECT count(*) FROM look WHERE plan_hash=?", (plan_hash,))[0][0])

    def _contained(self, plan_hash: str, labels: Sequence[str]) -> bool:
        """Whether every label that earlier looks saw is there and the same."""
        return {row for (row,) in self._db.rows("SELECT row FROM look_row WHERE plan_hash=?", (plan_hash,))} <= set(labels)

    def _earlier(self, plan_hash: str, look: int) -> Seen:
        """Counts of the looks before one; zeros, which pass nothing, for a look that was never evaluated."""
        from overproof.evidence import LookCounts

        rows = self._db.rows("SELECT counts FROM look WHERE plan_hash=? AND look<? ORDER BY look", (plan_hash, look))
        bodies: list[dict[str, Any]] = [json.loads(text) if text else {} for (text,) in rows]
        shapes = {
            (kind, name): len(one["counts"]) for body in bodies for kind, slices in body.items() for name, one in slices.items()
        }
        found: dict[str, dict[str, tuple[LookCounts, ...]]] = {}
        for (kind, name), points in shapes.items():
            seen: list[LookCounts] = []
            for body in bodies:
                one = body.get(kind, {}).get(name)
                counts = tuple((w, k) for w, k in one["counts"]) if one else ((0, 0),) * points
                seen.append(seen[-1] if one is None and seen else LookCounts(n=one["n"] if one else 0, counts=counts))
            found.setdefault(kind, {})[name] = tuple(seen)
        return found


def _evidence(labels: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(sorted(labels)).encode()).hexdigest()
