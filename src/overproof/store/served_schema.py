"""The table of what was served, day by day, and the triggers that keep it: text alone, for `local`."""

from __future__ import annotations

import re
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
_ADD = "ON CONFLICT(day, task, release_id, slice, route) DO UPDATE SET " + ", ".join(f"{name}=served_day.{name}+excluded.{name}" for name in SUMS)


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


def json_of(text: str) -> str:
    """
    A row's text as JSON for a server: NUL and half a surrogate pair, which it refuses to read, are spelled with another slash.

    Args:
        text: a column.

    Returns: the expression. Whatever stands before the backslash, what comes out is JSON: of an escaped one it makes an escaped slash.
    """
    return f"regexp_replace({text}, '\\\\u(0000|[dD][89a-fA-F])', '/u\\1', 'g')::json"


def _pg(sql: str, which: str = "") -> str:
    """The same sums in Postgres' words; `which` row's text is cleaned once."""
    for old, new in _PG:
        sql = re.sub(old, new, sql)
    if not which:
        return sql.replace("body::json", json_of("body"))
    return sql.replace(f"{which}.body::json", "seen.body").replace(" WHERE ", f" FROM (SELECT {json_of(f'{which}.body')} AS body OFFSET 0) AS seen WHERE ")


_PG: Final = (
    (r"date\(([\w.]+) / 1000000, 'unixepoch'\)", r"to_char(to_timestamp(\1 / 1000000.0) AT TIME ZONE 'UTC', 'YYYY-MM-DD')"),
    (r"json_extract\(([\w.]+), '\$\.(\w+)\.(weight|cost_usd)'\)", r"round((\1::json #>> '{\2,\3}')::numeric, 40)::double precision"),  # a tiny one's square is an error there
    (r"json_extract\(([\w.]+), '\$\.(\w+)\.(\w+)'\)", r"(\1::json #>> '{\2,\3}')"),
    (r"json_type\(([\w.]+), '\$\.served'\) = 'object'", r"json_typeof(\1::json #> '{served}') = 'object'"),
    (r"iif\((.+?) IS NULL, 0\.0, (coalesce\(.+?, 1\.0\))\)", r"CASE WHEN \1 IS NULL THEN 0.0 ELSE \2 END"),
    (r"([-+]|sum)\(\((\S+(?: \S+)*?) IS NOT NULL\)\)", r"\1((\2 IS NOT NULL)::int)"),
)
_FUNCTION: Final = "CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body}; RETURN NULL; END $$; CREATE TRIGGER {name} AFTER {when} ON record FOR EACH ROW EXECUTE FUNCTION {name}();"
SERVED_POSTGRES: Final = "".join((
    SERVED_SCHEMA[: SERVED_SCHEMA.index(" STRICT, WITHOUT ROWID;")].replace("INTEGER", "BIGINT").replace("REAL", "DOUBLE PRECISION"), ";", _pg(_all()), ";",
    *(
        _FUNCTION.format(name=name, when=when, body="; ".join(_pg(_of(which, sign), which) for which, sign in parts))
        for name, when, parts in (
            ("served_added", "INSERT", (("NEW", "+"),)), ("served_changed", "UPDATE OF at_us, body", (("OLD", "-"), ("NEW", "+"))), ("served_gone", "DELETE", (("OLD", "-"),)),
        )
    ),
))  # fmt: skip
"""The same table and triggers for a server."""
