"""What the watch keeps: plans, audits, days, alarms, triggers, holds, notices; each write whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from overproof.data import (
    Alarm,
    Audit,
    AuditPlan,
    AuditSource,
    AuditState,
    Hold,
    Signal,
    Trigger,
    WatchReport,
)
from overproof.errors import StoreError
from overproof.store.codec import decode, encode
from overproof.store.decisions import decide_on
from overproof.store.local import Db
from overproof.store.sql import Connection, Row

if TYPE_CHECKING:  # it brings numpy, which most commands do without
    from overproof.measure.monitor import AuditDay

T = TypeVar("T")
MICRO = 1_000_000
_AUDIT = "release_id, request_id, source, day, slice, pi, said, confidence, state, truth, wrong, reason, cost_micro"
_MONITOR_DAY = """INSERT INTO monitor_day VALUES(?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT(release_id, slice, signal, day) DO UPDATE SET
    requests=excluded.requests, audited=excluded.audited, unlabelled=excluded.unlabelled, wrong_by_pi=excluded.wrong_by_pi"""
_FIRST_HOLDS = "ON CONFLICT DO NOTHING"  # unlike OR IGNORE it lets no row fall away that breaks another rule
_HOLD = "task, since, by, why, cause"


@dataclass(frozen=True, kw_only=True, slots=True)
class Notice:
    """Something that people are told."""

    id: str
    task: str
    kind: str
    """For example "alarm" or "summary"."""
    body: Mapping[str, Any]
    at: float
    """Seconds since 1970."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """A notice that has not reached a channel yet."""

    notice: Notice
    channel: str
    tries: int
    """So far."""
    fault: str = ""
    """Of the last try."""


def watch_budget(month: str) -> str:
    """
    Name of the budget that everything shares which the watch buys in a month.

    Args:
        month: as in "2026-11".

    Returns: its name in the label ledger; people see it where the budget is used up.
    """
    return f"[watch] usd_per_month of {month}"


class Watching:
    """
    The record of the watch.

    Args:
        db: the open `project.db`.
    """

    def __init__(self, db: Db) -> None:
        self._db = db

    def plan(self, release_id: str, day: str) -> AuditPlan | None:
        """How a release's requests are drawn on a day; None where that was never written down."""
        found = self._db.rows("SELECT body FROM audit_plan WHERE release_id=? AND day=?", (release_id, day))
        return _value(found[0][0], AuditPlan) if found else None

    def note_plan(self, plan: AuditPlan) -> AuditPlan:
        """
        Write a plan down; durable on return.

        Args:
            plan: of a release and a day.

        Returns: the plan that holds, which is the first that was written.
        """
        with self._db.write() as connection:
            row = (plan.release_id, plan.day, _text(plan))
            connection.execute(f"INSERT INTO audit_plan VALUES(?, ?, ?) {_FIRST_HOLDS}", row)
        held = self.plan(plan.release_id, plan.day)
        return plan if held is None else held

    def note_audits(self, audits: Sequence[Audit], *, at: float) -> int:
        """
        Keep what was drawn; all of it or none, durable on return. What is known already stays as it is.

        Args:
            audits: one for each request and source.
            at: seconds since 1970.

        Returns: how many were new.
        """
        added = 0
        sql = f"INSERT INTO audit({_AUDIT}, at) VALUES({'?, ' * 13}?) {_FIRST_HOLDS}"
        with self._db.write() as connection:
            for audit in audits:
                connection.execute(sql, (*_audit_row(audit), at))
                added += connection.changes()
        return added

    def settle(self, audits: Sequence[Audit]) -> None:
        """
        Write what became of audits: state, truth, wrong, reason and cost; all of it or none, durable on return.

        Only those that are still due change: a word that comes after the deadline must not change a day that has been read.

        Args:
            audits: as they are now.

        Raises: StoreError for an audit that was never drawn; nothing is written.
        """
        key = "release_id=? AND request_id=? AND source=?"
        sql = f"UPDATE audit SET state=?, truth=?, wrong=?, reason=?, cost_micro=? WHERE {key} AND state='due'"  # noqa: S608
        with self._db.write() as connection:
            for audit in audits:
                row = _audit_row(audit)
                connection.execute(sql, (*row[8:], *row[:3]))
                if not connection.changes() and not _first(connection, f"SELECT 1 FROM audit WHERE {key}", row[:3]):  # noqa: S608
                    raise StoreError(
                        f"request {audit.request_id!r} of release {audit.release_id!r} was never drawn for a {audit.source}",
                        next_action="note the audit before settling it",
                    )

    def audits(self, release_id: str, *, day: str | None = None, state: AuditState | None = None) -> list[Audit]:
        """
        What was drawn, by day, request and source.

        Args:
            release_id: of which release.
            day: of this day alone.
            state: in this state alone.

        Returns: the audits.
        """
        query = f"""SELECT {_AUDIT} FROM audit WHERE release_id=?1 AND (?2 IS NULL OR day=?2) AND (?3 IS NULL OR state=?3)
            ORDER BY day, request_id, source"""  # noqa: S608 - constants
        return [_audit(row) for row in self._db.rows(query, (release_id, day, state))]

    def found_wrong(self) -> list[str]:
        """Ids of requests on which an audit found the student wrong, all releases together."""
        return [name for (name,) in self._db.rows("SELECT request_id FROM audit WHERE wrong=1 ORDER BY request_id")]

    def of_request(self, release_id: str, request_id: str) -> list[tuple[Audit, float]]:
        """The audits of one request under a release, each with when it was drawn, in seconds since 1970."""
        query = f"SELECT {_AUDIT}, at FROM audit WHERE release_id=? AND request_id=? ORDER BY source"  # noqa: S608 - constants
        return [(_audit(row[:-1]), float(row[-1])) for row in self._db.rows(query, (release_id, request_id))]

    def daily_usd(self, *, since: str) -> list[tuple[str, int, float]]:
        """Day, audits with a word, and what they cost, of all releases from a day on, in order."""
        query = """SELECT day, count(*), sum(cost_micro) FROM audit WHERE release_id IN (SELECT id FROM release) AND day>=?
            AND state <> 'due' GROUP BY day ORDER BY day"""
        return [(day, int(n), micro / MICRO) for day, n, micro in self._db.rows(query, (since,))]

    def without_word(self, release_id: str) -> dict[tuple[str, AuditSource], int]:
        """Audits of a release that have no word, by day and source; 0 where all have one."""
        query = "SELECT day, source, sum(state <> 'labelled') FROM audit WHERE release_id=? GROUP BY day, source"
        return {(day, source): int(n) for day, source, n in self._db.rows(query, (release_id,))}

    def audited_releases(self) -> list[str]:
        """Releases with audits that are due."""
        return [name for (name,) in self._db.rows("SELECT DISTINCT release_id FROM audit WHERE state='due' ORDER BY 1")]

    def spent_usd(self, month: str) -> float:
        """What the audits of a month cost, all releases together; the month as in "2026-11"."""
        ((micro,),) = self._db.rows("SELECT coalesce(sum(cost_micro), 0) FROM audit WHERE substr(day, 1, 7)=?", (month,))
        return float(micro) / MICRO

    def charged_usd(self, month: str) -> float:
        """What the watch has bought in a month, and has set aside for calls in flight; retries, canary prompts and lost calls included."""
        sql = "SELECT coalesce(sum(held_micro + spent_micro), 0) FROM budget WHERE name=?"
        ((micro,),) = self._db.rows(sql, (watch_budget(month),))
        return float(micro) / MICRO

    def usual_cost_usd(self) -> float | None:
        """The mean price of the newest 1,000 answers that the teacher was paid for; None where there is none."""
        sql = "SELECT avg(cost_micro) FROM (SELECT cost_micro FROM attempt WHERE state IN ('ok', 'bad') ORDER BY id DESC LIMIT 1000)"
        ((micro,),) = self._db.rows(sql)
        return None if micro is None else float(micro) / MICRO

    def note_days(self, release_id: str, slice_name: str, signal: Signal, days: Sequence[AuditDay]) -> None:
        """
        Keep the counts of days, in the place of earlier ones of the same days; all or none, durable on return.

        Args:
            release_id: of which release.
            slice_name: of which slice.
            signal: what was counted.
            days: the counts.
        """
        with self._db.write() as connection:
            for day in days:
                row = (
                    release_id, slice_name, signal, day.day.isoformat(), day.requests, day.audited, day.unlabelled,
                    json.dumps(day.wrong_by_pi),
                )  # fmt: skip
                connection.execute(_MONITOR_DAY, row)

    def days(self, release_id: str) -> dict[tuple[str, Signal], list[AuditDay]]:
        """The counted days of a release by slice and signal, in order."""
        from datetime import date

        from overproof.measure.monitor import AuditDay

        columns = "slice, signal, day, requests, audited, unlabelled, wrong_by_pi"
        query = f"SELECT {columns} FROM monitor_day WHERE release_id=? ORDER BY slice, signal, day"  # noqa: S608 - constants
        found: dict[tuple[str, Signal], list[AuditDay]] = {}
        for name, signal, day, requests, audited, unlabelled, wrong in self._db.rows(query, (release_id,)):
            pairs = tuple((float(pi), int(count)) for pi, count in json.loads(wrong))
            made = AuditDay(
                day=date.fromisoformat(day), requests=requests, audited=audited, unlabelled=unlabelled, wrong_by_pi=pairs
            )
            found.setdefault((name, signal), []).append(made)
        return found

    def note_drift(self, release_id: str, slice_name: str, day: str, body: bytes) -> None:
        """Keep the sketch of a day of a slice, in the place of an earlier one; durable on return."""
        with self._db.write() as connection:
            connection.execute("INSERT INTO drift_day VALUES(?, ?, ?, ?) ON CONFLICT(release_id, slice, day) DO UPDATE SET body=excluded.body", (release_id, slice_name, day, body))

    def drift_days(self, release_id: str) -> dict[tuple[str, str], bytes]:
        """The sketches of a release by slice and day."""
        query = "SELECT slice, day, body FROM drift_day WHERE release_id=? ORDER BY slice, day"
        return {(name, day): bytes(body) for name, day, body in self._db.rows(query, (release_id,))}

    def raise_alarm(self, alarm: Alarm, *, at: float) -> bool:
        """
        Keep an alarm; durable on return.

        Args:
            alarm: what is wrong.
            at: seconds since 1970.

        Returns: False where it is known already, open or closed, and nothing was written.
        """
        sql = f"INSERT INTO alarm(id, task, release_id, at, body) VALUES(?, ?, ?, ?, ?) {_FIRST_HOLDS}"
        with self._db.write() as connection:
            connection.execute(sql, (alarm.id, alarm.task, alarm.release_id, at, _text(alarm)))
            return bool(connection.changes())

    def close_alarm(self, alarm_id: str, *, by: str, why: str, at: float) -> bool:
        """
        Close an alarm; durable on return, with its entry in the decisions log.

        Args:
            alarm_id: which one.
            by: who closes it.
            why: in a few words.
            at: seconds since 1970.

        Returns: False where no such alarm is open.
        """
        with self._db.write() as connection:
            sql = "UPDATE alarm SET closed=?, closed_by=?, closed_why=? WHERE id=? AND closed IS NULL RETURNING task"
            found: list[Row] = connection.execute(sql, (at, by, why, alarm_id)).fetchall()
            if found:
                decide_on(connection, "alarm-closed", actor=by, subject=alarm_id, body={"task": found[0][0], "why": why})
            return bool(found)

    def alarms(self, task: str, *, open_only: bool = True) -> list[Alarm]:
        """The alarms of a task, oldest first; closed ones only where asked for."""
        query = "SELECT body FROM alarm WHERE task=?1 AND (?2 = 0 OR closed IS NULL) ORDER BY at, id"
        return [_value(body, Alarm) for (body,) in self._db.rows(query, (task, int(open_only)))]

    def open_trigger(self, trigger: Trigger, *, at: float) -> bool:
        """
        Keep a trigger; durable on return.

        Args:
            trigger: why something has to happen.
            at: seconds since 1970.

        Returns: False where it is known already, whatever its state, and nothing was written.
        """
        sql = f"INSERT INTO watch_trigger VALUES(?, ?, ?, ?, ?, ?, NULL) {_FIRST_HOLDS}"
        with self._db.write() as connection:
            row = (trigger.id, trigger.task, at, _text(trigger), trigger.state, trigger.outcome)
            connection.execute(sql, row)
            return bool(connection.changes())

    def end_trigger(self, trigger_id: str, *, state: Literal["done", "dismissed"], outcome: str, at: float) -> bool:
        """
        End a trigger; durable on return, with its entry in the decisions log.

        Args:
            trigger_id: which one.
            state: whether it was dealt with.
            outcome: what was done, or who dismissed it and why.
            at: seconds since 1970.

        Returns: False where no such trigger is open.
        """
        with self._db.write() as connection:
            sql = "UPDATE watch_trigger SET state=?, outcome=?, ended=? WHERE id=? AND state='open' RETURNING task, body"
            found: list[Row] = connection.execute(sql, (state, outcome, at, trigger_id)).fetchall()
            for task, body in found:
                trigger = _value(body, Trigger)
                said = {"task": task, "occasion": trigger.occasion, "act": trigger.act, "state": state, "outcome": outcome}
                decide_on(connection, "trigger", actor="watch", subject=trigger.release_id or task, body=said)
            return bool(found)

    def triggers(self, task: str, *, open_only: bool = True) -> list[Trigger]:
        """The triggers of a task as they stand, oldest first; ended ones only where asked for."""
        query = "SELECT body, state, outcome FROM watch_trigger WHERE task=?1 AND (?2 = 0 OR state='open') ORDER BY at, id"
        rows = self._db.rows(query, (task, int(open_only)))
        return [replace(_value(body, Trigger), state=state, outcome=outcome) for body, state, outcome in rows]

    def hold(self, task: str, *, by: str, why: str, cause: str, at: float) -> bool:
        """
        Keep a rollout where it is; durable on return, with its entry in the decisions log.

        Args:
            task: whose rollout.
            by: who decided.
            why: in a few words.
            cause: id of the trigger; empty where a person decided.
            at: seconds since 1970.

        Returns: False where it is held for this cause already.
        """
        with self._db.write() as connection:
            if _first(connection, "SELECT 1 FROM held_rollout WHERE task=? AND cause=? AND ended IS NULL", (task, cause)):
                return False
            connection.execute(f"INSERT INTO held_rollout({_HOLD}) VALUES(?, ?, ?, ?, ?)", (task, at, by, why, cause))
            decide_on(connection, "hold", actor=by, subject=task, body={"why": why, "trigger": cause})
            return True

    def release_hold(self, task: str, *, by: str, why: str, at: float, cause: str | None = None) -> int:
        """
        Let a rollout go on; durable on return, with its entry in the decisions log.

        Args:
            task: whose rollout.
            by: who decided.
            why: in a few words.
            at: seconds since 1970.
            cause: the trigger whose hold alone ends; None for all.

        Returns: how many holds ended; 0 where it was not held.
        """
        with self._db.write() as connection:
            sql = """UPDATE held_rollout SET ended=?, ended_by=?, ended_why=? WHERE task=? AND ended IS NULL
                AND (?5 IS NULL OR cause=?5) RETURNING cause"""
            ended: list[Row] = connection.execute(sql, (at, by, why, task, cause)).fetchall()
            if ended:
                body = {"why": why, "triggers": [cause for (cause,) in ended if cause]}
                decide_on(connection, "hold-released", actor=by, subject=task, body=body)
            return len(ended)

    def lifted(self, task: str) -> dict[str, str]:
        """Triggers whose holds have ended, with who ended the last of each."""
        query = "SELECT cause, ended_by FROM held_rollout WHERE task=? AND ended IS NOT NULL ORDER BY seq"
        return dict(self._db.rows(query, (task,)))

    def holds(self, task: str) -> list[Hold]:
        """What holds a rollout, oldest first."""
        query = f"SELECT {_HOLD} FROM held_rollout WHERE task=? AND ended IS NULL ORDER BY seq"  # noqa: S608 - constants
        return [Hold(task=name, since=since, by=by, why=why, trigger=cause) for name, since, by, why, cause in self._db.rows(query, (task,))]

    def note(
        self, notice_id: str, task: str, *, kind: str, body: Mapping[str, Any], channels: Sequence[str], at: float
    ) -> bool:
        """
        Keep a notice and where it has to go; durable on return.

        Args:
            notice_id: the same for the same thing, so that nobody is told twice.
            task: whose.
            kind: a word for the sort of notice.
            body: particulars that JSON can say.
            channels: where it has to go; it is due there at once.
            at: seconds since 1970.

        Returns: False where it is known already, and nothing was written.
        """
        with self._db.write() as connection:
            row = (notice_id, task, at, kind, json.dumps(dict(body), allow_nan=False))
            connection.execute(f"INSERT INTO notice VALUES(?, ?, ?, ?, ?) {_FIRST_HOLDS}", row)
            if not connection.changes():
                return False
            for channel in dict.fromkeys(channels):
                connection.execute("INSERT INTO delivery VALUES(?, ?, 0, ?, NULL, '')", (notice_id, channel, at))
            return True

    def due(self, now: float) -> list[Delivery]:
        """What has to be delivered by now, oldest first; what was given up is not among it."""
        query = """SELECT n.id, n.task, n.kind, n.body, n.at, d.channel, d.tries, d.fault FROM delivery d JOIN notice n ON n.id = d.notice
            WHERE d.done IS NULL AND d.next_at <= ? ORDER BY n.at, n.id, d.channel"""
        return [
            Delivery(notice=_notice(row[:5]), channel=row[5], tries=row[6], fault=row[7]) for row in self._db.rows(query, (now,))
        ]

    def delivered(self, notice_id: str, channel: str, *, at: float) -> None:
        """A notice has reached a channel; durable on return."""
        sql = "UPDATE delivery SET done=?, tries=tries+1, fault='' WHERE notice=? AND channel=? AND done IS NULL"
        with self._db.write() as connection:
            connection.execute(sql, (at, notice_id, channel))

    def failed(self, notice_id: str, channel: str, *, fault: str, next_at: float | None) -> None:
        """
        A notice has not reached a channel; durable on return.

        Args:
            notice_id: which notice.
            channel: which channel.
            fault: what went wrong.
            next_at: when to try again, in seconds since 1970; None to give up.
        """
        sql = "UPDATE delivery SET tries=tries+1, fault=?, next_at=? WHERE notice=? AND channel=? AND done IS NULL"
        with self._db.write() as connection:
            connection.execute(sql, (fault, next_at, notice_id, channel))

    def notices(self, task: str, *, since: float = 0.0) -> list[Notice]:
        """The notices of a task from a time on, oldest first."""
        query = "SELECT id, task, kind, body, at FROM notice WHERE task=? AND at >= ? ORDER BY at, id"
        return [_notice(row) for row in self._db.rows(query, (task, since))]

    def newest_notices(self, task: str, most: int) -> list[Notice]:
        """The newest notices of a task, newest first."""
        query = "SELECT id, task, kind, body, at FROM notice WHERE task=? ORDER BY at DESC, id LIMIT ?"
        return [_notice(row) for row in self._db.rows(query, (task, most))]

    def note_pass(self, report: WatchReport, *, at: float) -> None:
        """Keep what the last pass found, in the place of the one before; durable on return."""
        with self._db.write() as connection:
            connection.execute("INSERT INTO watch_pass VALUES(?, ?, ?) ON CONFLICT(task) DO UPDATE SET at=excluded.at, body=excluded.body", (report.task, at, _text(report)))

    def last_pass(self, task: str) -> WatchReport | None:
        """What the last pass found; None before the first."""
        found = self._db.rows("SELECT body FROM watch_pass WHERE task=?", (task,))
        return _value(found[0][0], WatchReport) if found else None


def _text(value: object) -> str:
    """As text that SQLite takes: half a character pair, which no UTF-8 has, is replaced."""
    return encode(value).data.decode("utf-8", "replace")


def _value(body: str, kind: type[T]) -> T:
    value = decode(body.encode(), find=_no_folder, where=f"a stored {kind.__name__}")
    if not isinstance(value, kind):
        raise StoreError(f"a stored {kind.__name__} is a {type(value).__name__}", next_action="restore project.db from a backup")
    return value


def _no_folder(digest: str) -> Path:
    raise StoreError(f"the record of the watch names a folder, {digest[:12]}", next_action="restore project.db from a backup")


def _first(connection: Connection, sql: str, values: Sequence[Any]) -> Row | None:
    found: list[Row] = connection.execute(sql, values).fetchall()
    return found[0] if found else None


def _audit_row(audit: Audit) -> Row:
    wrong = None if audit.wrong is None else int(audit.wrong)
    return (
        audit.release_id, audit.request_id, audit.source, audit.day, audit.slice, audit.pi, audit.said, audit.confidence,
        audit.state, audit.truth, wrong, audit.reason, round(audit.cost_usd * MICRO),
    )  # fmt: skip


def _audit(row: Row) -> Audit:
    *known, wrong, reason, micro = row
    names = _AUDIT.split(", ")[:10]
    values = dict(zip(names, known, strict=True))
    return Audit(**values, wrong=None if wrong is None else bool(wrong), reason=reason, cost_usd=micro / MICRO)


def _notice(row: Row) -> Notice:
    notice_id, task, kind, body, at = row
    return Notice(id=notice_id, task=task, kind=kind, body=json.loads(body), at=at)
