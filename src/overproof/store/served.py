"""What was served, day by day: sums that the traffic log keeps as rows come, so that nobody has to read a million rows for them."""

from __future__ import annotations

from dataclasses import dataclass

from overproof.store.local import Db
from overproof.store.served_schema import SUMS


@dataclass(frozen=True, kw_only=True, slots=True)
class ServedSum:
    """What came to one place in one month."""

    month: str
    """For example "2026-03", in UTC; empty for rows without a time."""
    release_id: str
    """That was asked, in shadow too; empty where none was."""
    slice: str
    """Certification slice of the release; empty where there is none."""
    route: str
    """"student" or "teacher"; "outage" where the student stood in for a teacher that could not be reached."""
    rows: int
    """Of the log."""
    requests: float
    """That these rows stand for; more than the rows where the log's queue was nearly full."""
    priced: int
    """Rows whose answer has a price."""
    weight: float
    """Requests that the priced rows stand for."""
    usd: float
    """What these requests cost."""
    usd2: float
    """Sum of the squares of their prices."""


class ServedDays:
    """
    The sums of what was served.

    Args:
        db: the open `traffic.db`.
    """

    def __init__(self, db: Db) -> None:
        self._db = db

    def months(self, task: str) -> list[ServedSum]:
        """
        All that was served of a task.

        Args:
            task: its name.

        Returns: sums by month, release, slice and route, oldest first.
        """
        query = f"""SELECT substr(day, 1, 7) AS month, release_id, slice, route, {", ".join(f"sum({name})" for name in SUMS)} FROM served_day
            WHERE task=? GROUP BY month, release_id, slice, route HAVING sum(rows) > 0 ORDER BY month, release_id, slice, route"""  # noqa: S608 - constants
        names = ("month", "release_id", "slice", "route", *SUMS)
        return [ServedSum(**dict(zip(names, row, strict=True))) for row in self._db.rows(query, (task,))]
