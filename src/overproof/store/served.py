"""What was served, day by day: sums that the traffic log keeps as rows come, so that nobody has to read a million rows for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # which has the schema from here
    from overproof.store.local import Db

_PICK = """SELECT coalesce(date({at} / 1000000, 'unixepoch'), ''), coalesce(json_extract({body}, '$.served.task'), ''),
        coalesce(json_extract({body}, '$.served.release'), ''), coalesce(json_extract({body}, '$.served.slice'), ''),
        CASE WHEN json_extract({body}, '$.served.reason') = 'outage' THEN 'outage' ELSE coalesce(json_extract({body}, '$.served.route'), '') END,
        {sums}"""
_WEIGHT = "coalesce(json_extract({body}, '$.served.weight'), 1.0)"
_USD = "json_extract({body}, '$.completion.cost_usd')"
_ONE = ("1", _WEIGHT, f"({_USD} IS NOT NULL)", f"iif({_USD} IS NULL, 0.0, {_WEIGHT})", f"coalesce({_WEIGHT} * {_USD}, 0.0)", f"coalesce({_WEIGHT} * {_USD} * {_USD}, 0.0)")
_SUMS = ("rows", "requests", "priced", "weight", "usd", "usd2")
_IS_SERVED = "json_type({body}, '$.served') = 'object'"
_ADD = "ON CONFLICT(day, task, release_id, slice, route) DO UPDATE SET " + ", ".join(f"{name}={name}+excluded.{name}" for name in _SUMS)


def _of(which: str, sign: str) -> str:
    """One row's part of the sums, added or taken away."""
    picked = _PICK.replace("{sums}", ", ".join(f"{sign}({one})" for one in _ONE)) + f" WHERE {_IS_SERVED} {_ADD}"
    return "INSERT INTO served_day " + picked.replace("{at}", f"{which}.at_us").replace("{body}", f"{which}.body")


def _all() -> str:
    """The sums of all rows that are there."""
    picked = _PICK.replace("{sums}", ", ".join(f"sum({one})" for one in _ONE)) + f" FROM record WHERE {_IS_SERVED} GROUP BY 1, 2, 3, 4, 5"
    return "INSERT INTO served_day " + picked.replace("{at}", "at_us").replace("{body}", "body")


SERVED_SCHEMA: Final = f"""
    CREATE TABLE served_day(
        day TEXT NOT NULL, task TEXT NOT NULL, release_id TEXT NOT NULL, slice TEXT NOT NULL, route TEXT NOT NULL, rows INTEGER NOT NULL,
        requests REAL NOT NULL, priced INTEGER NOT NULL, weight REAL NOT NULL, usd REAL NOT NULL, usd2 REAL NOT NULL,
        PRIMARY KEY(day, task, release_id, slice, route)) STRICT, WITHOUT ROWID;
    {_all()};
    CREATE TRIGGER served_added AFTER INSERT ON record BEGIN {_of("NEW", "+")}; END;
    CREATE TRIGGER served_changed AFTER UPDATE OF at_us, body ON record BEGIN {_of("OLD", "-")}; {_of("NEW", "+")}; END;
    CREATE TRIGGER served_gone AFTER DELETE ON record BEGIN {_of("OLD", "-")}; END;
    """
"""Kept by triggers: whatever writes to the log, the sums are the sums of its rows."""


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
        query = f"""SELECT substr(day, 1, 7) AS month, release_id, slice, route, {", ".join(f"sum({name})" for name in _SUMS)} FROM served_day
            WHERE task=? GROUP BY month, release_id, slice, route HAVING sum(rows) > 0 ORDER BY month, release_id, slice, route"""  # noqa: S608 - constants
        names = ("month", "release_id", "slice", "route", *_SUMS)
        return [ServedSum(**dict(zip(names, row, strict=True))) for row in self._db.rows(query, (task,))]
