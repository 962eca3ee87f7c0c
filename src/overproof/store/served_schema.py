"""The table of what was served, day by day, and the triggers that keep it: text alone, for `local`."""

from __future__ import annotations

from typing import Final

_PICK = """SELECT coalesce(date({at} / 1000000, 'unixepoch'), ''), coalesce(json_extract({body}, '$.served.task'), ''),
        coalesce(json_extract({body}, '$.served.release'), ''), coalesce(json_extract({body}, '$.served.slice'), ''),
        CASE WHEN json_extract({body}, '$.served.reason') = 'outage' THEN 'outage' ELSE coalesce(json_extract({body}, '$.served.route'), '') END,
        {sums}"""
_WEIGHT = "coalesce(json_extract({body}, '$.served.weight'), 1.0)"
_USD = "json_extract({body}, '$.completion.cost_usd')"
_ONE = ("1", _WEIGHT, f"({_USD} IS NOT NULL)", f"iif({_USD} IS NULL, 0.0, {_WEIGHT})", f"coalesce({_WEIGHT} * {_USD}, 0.0)", f"coalesce({_WEIGHT} * {_USD} * {_USD}, 0.0)")
SUMS: Final = ("rows", "requests", "priced", "weight", "usd", "usd2")
_IS_SERVED = "json_type({body}, '$.served') = 'object'"
_ADD = "ON CONFLICT(day, task, release_id, slice, route) DO UPDATE SET " + ", ".join(f"{name}={name}+excluded.{name}" for name in SUMS)


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
