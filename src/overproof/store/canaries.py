"""Rounds of canary prompts: how often each set was asked, and whether its answers had changed."""

from __future__ import annotations

from overproof.data import CanaryRound
from overproof.store.local import Db


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
            connection.execute("INSERT OR IGNORE INTO canary_round VALUES(?, ?, ?, ?, ?, ?)", row)
