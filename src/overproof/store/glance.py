"""Short looks at the traffic log for pages: each one is an index's work, however long the log is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from overproof.data import Skipped
from overproof.store.local import Db

DAY_US: Final = 86_400_000_000
MOST_COUNTED: Final = 100_000
"""A busy log's newest rows are enough to tell its volume, and are read in a moment."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DaysCounted:
    """Rows of the log's last days."""

    rows: int
    days: float
    """Fewer than asked for where the log is younger, or has more rows than are counted."""
    until: datetime
    """The newest row."""


class Glance:
    """
    What pages ask of the traffic log.

    Args:
        db: the open `traffic.db`.
    """

    def __init__(self, db: Db) -> None:
        self._db = db

    def skipped_for(self, reason: str, *, first: int, most: int) -> list[Skipped]:
        """
        Some of the rows that could not be read, in the order in which they came.

        Args:
            reason: why.
            first: how many to pass over.
            most: how many to bring.

        Returns: the rows.
        """
        rows = self._db.rows("SELECT place, raw FROM skipped WHERE reason=? ORDER BY seq LIMIT ? OFFSET ?", (reason, most, first))
        return [Skipped(where=place, reason=reason, raw=raw) for place, raw in rows]

    def skipped_reasons(self) -> Mapping[str, int]:
        """Why rows could not be read, to how many; the hundred most frequent, those first."""
        found = self._db.rows("SELECT reason, count(*) AS n FROM skipped GROUP BY reason ORDER BY n DESC, reason LIMIT 100")
        return {str(reason): int(n) for reason, n in found}

    def last_days(self, days: int) -> DaysCounted | None:
        """
        How much traffic there was of late.

        Args:
            days: length of the span that ends with the newest row.

        Returns: rows, and the days that they are of; None for a log without times.
        """
        ((first,),) = self._db.rows("SELECT min(at_us) FROM record WHERE (at_us IS NULL) = 0")
        ((last,),) = self._db.rows("SELECT max(at_us) FROM record WHERE (at_us IS NULL) = 0")
        if last is None:
            return None
        since = max(first, last - days * DAY_US)
        for (oldest,) in self._db.rows("SELECT at_us FROM record WHERE (at_us IS NULL) = 0 ORDER BY at_us DESC LIMIT 1 OFFSET ?", (MOST_COUNTED,)):
            since = max(since, oldest + 1)
        ((n,),) = self._db.rows("SELECT count(*) FROM record WHERE (at_us IS NULL) = 0 AND at_us >= ?", (since,))
        return DaysCounted(rows=n, days=(last - since) / DAY_US, until=datetime.fromtimestamp(last / 1_000_000, UTC))
