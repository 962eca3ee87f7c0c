"""Rounds of canary prompts: how often each set was asked, and whether its answers had changed."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass

from overproof.data import CanaryRound
from overproof.store.local import Db
from overproof.store.logs import AnsweredBy


@dataclass(frozen=True, kw_only=True, slots=True)
class AskedRound:
    """One round that the watch has asked."""

    number: int
    """Counted from 0 over all rounds of these prompts."""
    at: float
    """Seconds since 1970."""
    answers: tuple[str, ...]
    """One for each prompt, in the prompts' order."""
    cost_usd: float = 0.0


class CanaryRounds:
    """
    Finished rounds, in order.

    Args:
        db: the open `project.db`.
    """

    def __init__(self, db: Db) -> None:
        self._db = db

    def canary_rounds(self, pin: str, prompts: str) -> list[bool]:
        """
        Whether each finished round was an alarm.

        Args:
            pin: digest of who is asked and how.
            prompts: digest of the prompts.

        Returns: one entry for each round, from 0.
        """
        query = "SELECT alarm FROM canary_round WHERE pin=? AND prompts=? ORDER BY round"
        return [bool(row[0]) for row in self._db.rows(query, (pin, prompts))]

    def note_canaries(self, pin: str, prompts: str, found: CanaryRound) -> None:
        """
        Keep a finished round; durable on return.

        Args:
            pin: digest of who is asked and how.
            prompts: digest of the prompts.
            found: the round.
        """
        row = (pin, prompts, found.round, found.n, found.differ, int(found.alarm))
        with self._db.write() as connection:
            connection.execute("INSERT INTO canary_round VALUES(?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", row)

    def asked_rounds(self, pin: str, prompts: str) -> list[AskedRound]:
        """
        The rounds that the watch has asked.

        Args:
            pin: digest of who is asked and how.
            prompts: digest of the prompts.

        Returns: one entry for each round, from 0.
        """
        rows = self._db.rows("SELECT body FROM teacher_round WHERE pin=? AND prompts=? ORDER BY round", (pin, prompts))
        found = [json.loads(body) for (body,) in rows]
        return [AskedRound(**{**one, "answers": tuple(one["answers"])}) for one in found]

    def newest_rounds(self, most: int) -> list[tuple[str, AskedRound]]:
        """The newest rounds of the watch, whoever was asked, each with the digest of its prompts; newest first."""
        rows = self._db.rows("SELECT prompts, body FROM teacher_round ORDER BY at DESC, round DESC LIMIT ?", (most,))
        found = [(prompts, json.loads(body)) for prompts, body in rows]
        return [(prompts, AskedRound(**{**one, "answers": tuple(one["answers"])})) for prompts, one in found]

    def answering_now(self, newest: int = 500) -> Sequence[AnsweredBy]:
        """Models and fingerprints of the newest bought answers, the newest first; the time is the day of the run."""
        query = """SELECT min(substr(run_id, 1, 10)), coalesce(model, ''), coalesce(fingerprint, '') FROM
            (SELECT * FROM attempt ORDER BY id DESC LIMIT ?) WHERE state='ok' GROUP BY 2, 3 ORDER BY max(id) DESC"""
        return [AnsweredBy(since=day, model=model, fingerprint=mark) for day, model, mark in self._db.rows(query, (newest,))]

    def note_round(self, pin: str, prompts: str, asked: AskedRound) -> None:
        """
        Keep a round of the watch; durable on return.

        Args:
            pin: digest of who is asked and how.
            prompts: digest of the prompts.
            asked: the round.
        """
        row = (pin, prompts, asked.number, asked.at, round(asked.cost_usd * 1e6), json.dumps(asdict(asked)))
        with self._db.write() as connection:
            connection.execute("INSERT INTO teacher_round VALUES(?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", row)

    def spent_usd(self, month: str) -> float:
        """What the watch's rounds of a month cost, all teachers together; the month as in "2026-11"."""
        query = "SELECT coalesce(sum(cost_micro), 0) FROM teacher_round WHERE strftime('%Y-%m', at, 'unixepoch')=?"
        ((micro,),) = self._db.rows(query, (month,))
        return float(micro) / 1e6

    def accepted_at(self, task: str) -> float:
        """When a person last closed an alarm about canary prompts, in seconds since 1970: rounds from then on have a new reference; 0 for never."""
        query = "SELECT coalesce(max(closed), 0) FROM alarm WHERE task=? AND substr(id, 1, 9) = 'canaries-'"
        ((at,),) = self._db.rows(query, (task,))
        return float(at)

    def answered_by(self, clearances: Collection[str]) -> Sequence[AnsweredBy]:
        """
        Models and fingerprints of the labels that were bought, in the order in which they were first seen.

        Args:
            clearances: ids of the permissions that they were bought under.

        Returns: one entry for each pair; its time is the day of the run.
        """
        query = """SELECT min(substr(a.run_id, 1, 10)), coalesce(a.model, json_extract(l.completion, '$.model'), '') AS model,
            coalesce(a.fingerprint, '') AS mark FROM label l JOIN attempt a ON a.id = l.attempt
            WHERE l.clearance_id IN (SELECT value FROM json_each(?)) GROUP BY model, mark ORDER BY min(a.id)"""
        rows = self._db.rows(query, (json.dumps(sorted(clearances)),))
        return [AnsweredBy(since=day, model=model, fingerprint=mark) for day, model, mark in rows]
