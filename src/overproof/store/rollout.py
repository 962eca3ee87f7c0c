"""Stages of a rollout and the counts they are judged by: one record for all gateways of a project."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any

from overproof.data import ALL, RolloutState, Stage, StageCounts, digest_of
from overproof.data.rollout import COUNTS
from overproof.errors import StoreError
from overproof.store.added import Addition, made, note
from overproof.store.decisions import decide_on, now
from overproof.store.local import Db
from overproof.store.sql import Connection, Row

SLOT = 200  # compared answers after which a slot is full: an alarm may start afresh at each slot
LOOKS = 5  # looks of the student, as a multiple of SLOT, after which a slot is full too
WIDEN = 1_000  # slots after which they get longer, so that a year's record stays short
Slots = Mapping[str, tuple[StageCounts, ...]]
"""Slice to its slots in order, the last one open; `ALL` counts all slices together."""
_STATE = "SELECT epoch, release_id, stage, share, since, by, why FROM rollout WHERE task=? ORDER BY epoch DESC LIMIT 1"
_ADD = (
    f"INSERT INTO stage_count(epoch, slice, slot, newest, {', '.join(COUNTS)}) VALUES(?, ?, ?, ?{', ?' * len(COUNTS)}) "
    "ON CONFLICT(epoch, slice, slot) DO UPDATE SET newest=CASE WHEN excluded.newest>stage_count.newest THEN excluded.newest ELSE stage_count.newest END, "
    + ", ".join(f"{name}=stage_count.{name}+excluded.{name}" for name in COUNTS)
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Moved:
    """One move of a rollout, as recorded."""

    epoch: int
    release_id: str
    stage: Stage
    share: float
    """Chance of a request to go to the student, in [0, 1]."""
    since: float
    """Seconds since 1970."""
    by: str
    why: str
    evidence: str
    """SHA-256 of `body`."""
    body: Mapping[str, Any]
    """What the move rests on."""
    decision: int
    """Its number in the decisions log."""


class Rollouts:
    """
    Where the rollout of each task stands. A move is made by whoever comes first, on the state that it was decided on.

    Args:
        db: the open `project.db`.
    """

    def __init__(self, db: Db) -> None:
        self._db = db

    def current(self, task: str) -> RolloutState:
        """
        Where a task stands; two short reads, to be polled.

        Args:
            task: name of the task.

        Returns: its state; "teacher-only" where nothing was ever rolled out.
        """
        found = self._db.rows(_STATE, (task,))
        if not found:
            return RolloutState(task=task)
        epoch, release_id, stage, share, since, by, why = found[0]
        slices = self._db.rows("SELECT slice FROM suspended_slice WHERE release_id=?", (release_id,))
        return RolloutState(
            task=task, stage=stage, release_id=None if stage == "teacher-only" else release_id, share=share, epoch=epoch,
            since=since, by=by, why=why, last_release=release_id, suspended=frozenset(name for (name,) in slices),
        )  # fmt: skip

    def history(self, task: str) -> list[Moved]:
        """Every move of a task, oldest first."""
        columns = "epoch, release_id, stage, share, since, by, why, evidence, body, decision"
        query = f"SELECT {columns} FROM rollout WHERE task=? ORDER BY epoch"  # noqa: S608 - constants
        names = columns.split(", ")
        rows = (dict(zip(names, row, strict=True)) for row in self._db.rows(query, (task,)))
        return [Moved(**{**row, "body": json.loads(row["body"])}) for row in rows]

    def suspensions(self, release_id: str) -> dict[str, str]:
        """Suspended slices of a release, each with the reason."""
        return dict(self._db.rows("SELECT slice, why FROM suspended_slice WHERE release_id=? ORDER BY slice", (release_id,)))

    def move(
        self, before: RolloutState, *, release_id: str, stage: Stage, share: float, by: str, why: str,
        evidence: Mapping[str, Any], at: float,
    ) -> RolloutState | None:  # fmt: skip
        """
        Go to another stage, if nobody has moved since; durable on return, with its entry in the decisions log.

        Args:
            before: the state that this was decided on.
            release_id: a recorded release.
            stage: where it goes; "teacher-only" is a rollback.
            share: chance of a request to go to the student there, in [0, 1].
            by: who decided.
            why: in a few words.
            evidence: what it rests on, as JSON can say it.
            at: seconds since 1970; see `time`.

        Returns: the new state; None where somebody else was first, and nothing was written.
        Raises: StoreError for an unknown release, or one of another task.
        """
        digest, at = digest_of(dict(evidence)), self._db.time(at)
        with self._db.write() as connection:
            if _epoch(connection, before.task) != before.epoch:
                return None
            task = connection.execute("SELECT task FROM release WHERE id=?", (release_id,)).get
            if task != before.task:
                raise StoreError(
                    f"release {release_id!r} is {'unknown' if task is None else f'of the task {task!r}'}",
                    next_action="take a release of this project: `overproof status` names them",
                )
            body = {
                "task": before.task, "release": release_id, "from": before.stage, "from_share": before.share, "to": stage,
                "share": share, "why": why, "evidence": digest, "counts": dict(evidence),
            }  # fmt: skip
            made = decide_on(connection, "rollout", actor=by, subject=release_id, body=body)
            columns = "task, release_id, stage, share, since, by, why, evidence, body, decision"
            connection.execute(
                f"INSERT INTO rollout({columns}) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (before.task, release_id, stage, share, at, by, why, digest, json.dumps(dict(evidence), allow_nan=False), made.seq),
            )
            _stages(connection, before, release_id, "rolled-back" if stage == "teacher-only" else stage, by=by, why=why)
        return self.current(before.task)

    def give_back(self, task: str, *, by: str, why: str, evidence: Mapping[str, Any], at: float) -> RolloutState | None:
        """
        Give all requests to the teacher, from whatever stage it is in; a gateway that moves at the same moment changes nothing.

        Args:
            task: name of the task.
            by: who decided.
            why: in a few words.
            evidence: what it rests on, as JSON can say it; epoch and stage are added.
            at: seconds since 1970.

        Returns: the new state; None where the teacher answers alone already.
        Raises: StoreError where others move without end.
        """
        for _ in range(100):
            state = self.current(task)
            if state.release_id is None:
                return None
            facts = {**evidence, "epoch": state.epoch, "stage": state.stage}
            moved = self.move(state, release_id=state.release_id, stage="teacher-only", share=0.0, by=by, why=why, evidence=facts, at=at)
            if moved is not None:
                return moved
        raise StoreError("the rollout moved each time that it was to be rolled back", next_action="run it again")

    def suspend(
        self, state: RolloutState, slices: Mapping[str, str], *, by: str, evidence: Mapping[str, Any], at: float
    ) -> tuple[str, ...]:
        """
        Send slices to the teacher for as long as this release lives; durable on return.

        Args:
            state: the state that this was decided on.
            slices: name to the reason.
            by: who decided.
            evidence: what it rests on, as JSON can say it.
            at: seconds since 1970.

        Returns: the slices that this call suspended; none where the stage has moved or others came first.
        """
        done, at = [], self._db.time(at)
        with self._db.write() as connection:
            if state.release_id is None or _epoch(connection, state.task) != state.epoch:
                return ()
            for name, why in slices.items():
                known = connection.execute(
                    "SELECT 1 FROM suspended_slice WHERE release_id=? AND slice=?", (state.release_id, name)
                ).get
                if known:
                    continue
                body = {
                    "task": state.task, "release": state.release_id, "slice": name, "stage": state.stage, "why": why,
                    "evidence": digest_of(dict(evidence)), "counts": dict(evidence),
                }  # fmt: skip
                made = decide_on(connection, "suspension", actor=by, subject=state.release_id, body=body)
                row = (state.release_id, name, at, by, why, made.seq)
                connection.execute("INSERT INTO suspended_slice VALUES(?, ?, ?, ?, ?, ?)", row)
                done.append(name)
        return tuple(done)

    def withdraw(self, former: RolloutState, *, by: str, why: str, evidence: Mapping[str, Any]) -> bool:
        """
        Take back a release whose place another one has taken that can't be loaded; durable on return.

        Args:
            former: the state in which it goes on to answer.
            by: who decided.
            why: in a few words.
            evidence: what it rests on, as JSON can say it.

        Returns: whether this call did it; False where it was taken back before.
        """
        with self._db.write() as connection:
            sql = "SELECT why FROM release_stage WHERE release_id=? ORDER BY seq DESC LIMIT 1"
            last = connection.execute(sql, (former.release_id,)).get
            successors = connection.execute("SELECT id FROM release WHERE task=?", (former.task,)).fetchall()
            if last is None or last not in {took_place_of(str(name)) for (name,) in successors}:
                return False
            body = {
                "task": former.task, "release": former.release_id, "from": former.stage, "from_share": former.share, "to": "teacher-only",
                "share": 0.0, "why": why, "evidence": digest_of(dict(evidence)), "counts": dict(evidence),
            }  # fmt: skip
            decide_on(connection, "rollout", actor=by, subject=str(former.release_id), body=body)
            sql = "INSERT INTO release_stage(release_id, stage, at, by, why) VALUES(?, 'rolled-back', ?, ?, ?)"
            connection.execute(sql, (former.release_id, now(), by, why))
        return True

    def time(self, at: float) -> float:
        """
        When it is, for all gateways alike: one whose clock runs ahead must not end a stage before its time.

        Args:
            at: seconds since 1970 as this process has them.

        Returns: the server's time where the store is on one; else `at`.
        """
        return self._db.time(at)

    def add(self, counts: Mapping[tuple[int, str], StageCounts], *, at: float, once: Addition | None = None) -> None:
        """
        Add what one gateway has seen; durable on return, all or nothing.

        A slot that is full takes no more: which slot a count goes to is settled before it is seen, so that an alarm may
        start afresh at each slot.

        Args:
            counts: (epoch, slice) to what is new; the sums under `ALL` are made here.
            at: seconds since 1970.
            once: which addition of this gateway's it is; one that is there already changes nothing.
        """
        whole: dict[tuple[int, str], StageCounts] = dict(counts)
        for (epoch, _), part in counts.items():
            whole[epoch, ALL] = whole.get((epoch, ALL), StageCounts()) + part
        at = self._db.time(at)
        with self._db.write() as connection:
            if once is not None:
                if made(connection, once):
                    return
                note(connection, once)
            for (epoch, name), part in whole.items():
                slot = _slot(connection, epoch, name)
                compared_at = at if part.compared else 0.0
                connection.execute(_ADD, (epoch, name, slot, compared_at, *astuple(part)))

    def counts(self, epoch: int, known: Slots | None = None) -> dict[str, tuple[StageCounts, ...]]:
        """
        What all gateways have seen since a move.

        Args:
            epoch: of the state.
            known: what an earlier call gave for it; its full slots are not read again.

        Returns: slots by slice.
        """
        if known is None:
            query = f"SELECT slice, slot, {', '.join(COUNTS)} FROM stage_count WHERE epoch=? ORDER BY slice, slot"  # noqa: S608
            rows = self._db.rows(query, (epoch,))
        else:
            query = f"""SELECT slice, slot, {', '.join(COUNTS)} FROM stage_count AS one WHERE epoch=?1 AND slot >= coalesce(
                (SELECT value FROM json_each(?2) WHERE key = one.slice), 1) ORDER BY slice, slot"""  # noqa: S608
            rows = self._db.rows(query, (epoch, json.dumps({name: len(slots) for name, slots in known.items()})))
        found = {name: slots[:-1] for name, slots in (known or {}).items()}
        for name, _, *numbers in rows:
            found[name] = (*found.get(name, ()), StageCounts(**dict(zip(COUNTS, numbers, strict=True))))
        return found

    def newest(self, epoch: int) -> float | None:
        """When the last comparison of a stage was counted, in seconds since 1970; None where none was."""
        ((at,),) = self._db.rows("SELECT max(newest) FROM stage_count WHERE epoch=? AND slice=?", (epoch, ALL))
        return float(at) if at else None


def took_place_of(release_id: str) -> str:
    """
    Why a release serves no more that was not found wanting.

    Args:
        release_id: the one that follows it.

    Returns: the words in the list of stages; a gateway that can't load the new one tells by them that the old one may go on.
    """
    return f"{release_id} took its place"


def _epoch(connection: Connection, task: str) -> int:
    found = connection.execute("SELECT max(epoch) FROM rollout WHERE task=?", (task,)).get
    return int(found or 0)


def _slot(connection: Connection, epoch: int, name: str) -> int:
    """The open slot of a slice, from 1."""
    sql = "SELECT slot, compared, asked FROM stage_count WHERE epoch=? AND slice=? ORDER BY slot DESC LIMIT 1"
    last: list[Row] = connection.execute(sql, (epoch, name)).fetchall()
    if not last:
        return 1
    slot, compared, asked = map(int, last[0])
    most = SLOT * max(1, slot // WIDEN)
    return slot + (compared >= most or asked >= LOOKS * most)


def _stages(connection: Connection, before: RolloutState, release_id: str, stage: str, *, by: str, why: str) -> None:
    """The move in the list of stages of releases; a release that another one takes the place of serves no more."""
    sql = "INSERT INTO release_stage(release_id, stage, at, by, why) VALUES(?, ?, ?, ?, ?)"
    if before.release_id is not None and before.release_id != release_id:
        connection.execute(sql, (before.release_id, "rolled-back", now(), by, took_place_of(release_id)))
    connection.execute(sql, (release_id, stage, now(), by, why))
