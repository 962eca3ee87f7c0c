"""An index beside the traffic log, for people who look for rows: it follows the log, and can always be made anew."""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from overproof.errors import CorruptArtifact, OverproofError
from overproof.store.local import Db
from overproof.store.sql import Row
from overproof.task import Output

T = TypeVar("T")
BATCH: Final = 2_000
"""Rows in one transaction: an index that is killed loses no more work than this."""
SLOT_US: Final = 15_625
"""Rows are numbered by time, in 64ths of a second; those of one moment take the free numbers behind it."""
WINDOW: Final = 50_000
"""Rows that one look goes through before it asks how late it is."""
SEARCH_SCHEMA: Final = (
    """
    CREATE TABLE entry(
        n INTEGER PRIMARY KEY, seq INTEGER NOT NULL UNIQUE, at_us INTEGER, route TEXT NOT NULL, reason TEXT NOT NULL,
        slice TEXT NOT NULL, release TEXT NOT NULL, confidence REAL, differs INTEGER) STRICT;
    CREATE INDEX entry_of_route ON entry(route, reason);
    CREATE INDEX entry_of_slice ON entry(slice);
    CREATE INDEX entry_of_release ON entry(release);
    CREATE INDEX entry_differs ON entry(differs) WHERE differs = 1;
    CREATE VIRTUAL TABLE words USING fts5(text, content='', tokenize="unicode61 remove_diacritics 2");
    INSERT INTO words(words, rank) VALUES('hashsize', 16777216);
    CREATE TABLE daily(
        day TEXT NOT NULL, route TEXT NOT NULL, reason TEXT NOT NULL, slice TEXT NOT NULL, release TEXT NOT NULL,
        requests REAL NOT NULL, usd REAL NOT NULL, PRIMARY KEY(day, route, reason, slice, release)) STRICT, WITHOUT ROWID;
    CREATE TABLE meta(name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
    """,
)
_PUT_META = "INSERT INTO meta VALUES(?, ?) ON CONFLICT(name) DO UPDATE SET value=excluded.value"
_ENTRY = "INSERT INTO entry VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)"
_DAILY = """INSERT INTO daily VALUES(?, ?, ?, ?, ?, ?, ?) ON CONFLICT(day, route, reason, slice, release)
    DO UPDATE SET requests=requests+excluded.requests, usd=usd+excluded.usd"""
_COLUMNS = "e.n, e.seq, e.at_us, e.route, e.reason, e.slice, e.release, e.confidence, e.differs"
_TOGETHER = re.compile("([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff])")  # scripts without spaces: each sign is a word of its own
_LONE = re.compile(r"\\u(?=[dD][89a-fA-F])")  # half a surrogate pair, the only one that a row's text spells: no index takes it
_ASKED = re.compile(r'"([^"]*)"?|(\S+)')
_WORD = re.compile(r"\w+")
LEAST_BEGIN: Final = 3
MOST_WORDS: Final = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """Which rows somebody looks for; what is empty or None leaves open."""

    text: str = ""
    """Words that all have to be there; "in quotes" one behind the other; begin* for words that begin so."""
    route: str = ""
    """"student", "teacher", or "imported" for rows that no gateway served."""
    reason: str = ""
    slice: str = ""
    release: str = ""
    low: float | None = None
    """Least confidence of the student."""
    high: float | None = None
    """Largest."""
    differs: bool = False
    """Only rows on which student and teacher differ, or an audit found the student wrong."""
    since: datetime | None = None
    until: datetime | None = None
    """First moment that is too late."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hit:
    """One row that was found."""

    n: int
    """Its place in time."""
    seq: int
    """Its number in the log."""
    at: datetime | None
    route: str
    reason: str
    slice: str
    release: str
    confidence: float | None
    differs: bool | None
    """None where nobody compared."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hits:
    """One page of rows, newest first."""

    rows: tuple[Hit, ...]
    older: int | None
    """Where to go on; None where there is no more."""
    tired: bool = False
    """The time was up before the page was full: there may be more from `older` on."""
    reached: datetime | None = None
    """Where it stopped then."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Caught:
    """How far the index follows the log."""

    done: int
    """The last row that is in it."""
    rows: int
    """The last row of the log."""

    @property
    def behind(self) -> int:
        """Rows that are not in it yet."""
        return max(0, self.rows - self.done)


@dataclass(frozen=True, kw_only=True, slots=True)
class DayCount:
    """The requests of one day that took one way."""

    day: str
    """ISO date in UTC; empty where rows have no time."""
    route: str
    reason: str
    slice: str
    release: str
    requests: float
    """Weights included."""
    usd: float
    """What their answers cost."""


class SearchIndex:
    """
    Rows by words, route, slice, confidence and day. The file follows the log in steps; whoever comes first does the work, and what
    is damaged or belongs to another log is made anew. Nobody who writes the log knows of it.

    Args:
        home: the `.overproof` folder.
        traffic: the open `traffic.db`.
    """

    def __init__(self, home: Path, traffic: Db) -> None:
        self._path, self._lock = home / "search.db", home / "search.lock"
        self._traffic = traffic
        self._opened: Db | None = None

    def caught(self) -> Caught:
        """How far it is; cheap."""
        ((last,),) = self._traffic.rows("SELECT coalesce(max(seq), 0) FROM record")
        return Caught(done=min(self._safe(lambda db: _cursor(db)[0]), last), rows=last)

    def catch_up(self, output: Output, *, wrong: Callable[[], Sequence[str]], most: int | None = None) -> int:
        """
        Take rows of the log in; what is taken in is durable in batches.

        Args:
            output: of the task: it says which answers are the same.
            wrong: ids of requests on which an audit found the student wrong, asked where the index has its turn.
            most: rows at most; None for all there are.

        Returns: how many were taken in; 0 too where another process is at it.
        """
        with self._turn() as mine:
            return self._safe(lambda db: self._follow(db, output, wrong, most)) if mine else 0

    def find(self, wanted: Wanted, *, before: int | None = None, rows: int = 50, budget_s: float = 0.4) -> Hits:
        """
        Rows, newest first; rows without a time last.

        Args:
            wanted: which.
            before: `older` of the page before; None for the newest.
            rows: of a page.
            budget_s: after so long it stops where it is and says so.

        Returns: a page.
        """
        until = time.monotonic() + budget_s
        return self._safe(lambda db: _look(db, wanted, before, rows, until))

    def daily(self, *, since: str = "") -> list[DayCount]:
        """Requests and costs by day and way, from a day on, in order."""
        query = "SELECT day, route, reason, slice, release, requests, usd FROM daily WHERE day>=? ORDER BY day"
        names = ("day", "route", "reason", "slice", "release", "requests", "usd")
        return self._safe(lambda db: [DayCount(**dict(zip(names, row, strict=True))) for row in db.rows(query, (since,))])

    def ways(self) -> list[DayCount]:
        """Requests by way over all days."""
        query = "SELECT '', route, reason, slice, release, sum(requests), sum(usd) FROM daily GROUP BY route, reason, slice, release"
        names = ("day", "route", "reason", "slice", "release", "requests", "usd")
        return self._safe(lambda db: [DayCount(**dict(zip(names, row, strict=True))) for row in db.rows(query)])

    def last_day(self) -> str:
        """The newest day with a row, ISO date; empty where there is none."""
        return self._safe(lambda db: str(db.rows("SELECT coalesce(max(day), '') FROM daily")[0][0]))

    def close(self) -> None:
        """Close the file."""
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    # -- following the log -------------------------------------------------------------------------------------

    def _follow(self, db: Db, output: Output, wrong: Callable[[], Sequence[str]], most: int | None) -> int:
        done, digest, epoch = _cursor(db)
        ((now,),) = self._traffic.rows("SELECT value FROM meta WHERE name='epoch'")
        known = self._traffic.rows("SELECT digest FROM record WHERE seq=?", (done,)) if done else [(digest,)]
        if (done and int(now) != epoch) or known != [(digest,)]:  # rows were replaced, or this is another log
            _empty(db)
            done = 0
        taken = 0
        while most is None or taken < most:
            query = "SELECT seq, digest, at_us, json_remove(body, '$.context', '$.calls') FROM record WHERE seq>? ORDER BY seq LIMIT ?"
            batch = self._traffic.rows(query, (done, min(BATCH, BATCH if most is None else most - taken)))
            if not batch:
                break
            _take(db, batch, output, epoch=int(now))
            taken, done = taken + len(batch), batch[-1][0]
        self._mark(db, wrong)
        return taken

    def _mark(self, db: Db, wrong: Callable[[], Sequence[str]]) -> None:
        """Audits come days after their rows."""
        found = wrong()
        known = db.rows("SELECT value FROM meta WHERE name='wrong'")
        moment = f"{len(found)} {_cursor(db)[0]}"
        if not found or known == [(moment,)]:
            return
        seqs = [seq for name in found for (seq,) in self._traffic.rows("SELECT seq FROM record WHERE id=?", (name,))]
        with db.write() as connection:
            connection.executemany("UPDATE entry SET differs=1 WHERE seq=? AND differs IS NOT 1", [(seq,) for seq in seqs])
            connection.execute(_PUT_META, ("wrong", moment))

    @contextmanager
    def _turn(self) -> Iterator[bool]:
        """Whether nobody else is at it; the kernel ends a killed one's turn."""
        handle = os.open(self._lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
            else:
                yield True
        finally:
            os.close(handle)

    def _safe(self, work: Callable[[Db], T]) -> T:
        """What is damaged is thrown away: all of it stands in the log."""
        try:
            return work(self._db())
        except CorruptArtifact:
            self.close()
            for end in ("", "-wal", "-shm"):
                self._path.with_name(self._path.name + end).unlink(missing_ok=True)
            return work(self._db())

    def _db(self) -> Db:
        if self._opened is None:
            self._opened = Db(self._path, SEARCH_SCHEMA)
        return self._opened


def _cursor(db: Db) -> tuple[int, str, int]:
    """Last row that was taken in, its digest, the log's epoch then."""
    for (text,) in db.rows("SELECT value FROM meta WHERE name='cursor'"):
        seq, digest, epoch = json.loads(text)
        return seq, digest, epoch
    return 0, "", 0


def _empty(db: Db) -> None:
    with db.write() as connection:
        connection.execute("INSERT INTO words(words) VALUES('delete-all')")
        connection.execute("DELETE FROM entry; DELETE FROM daily; DELETE FROM meta")


def _take(db: Db, batch: Sequence[Row], output: Output, *, epoch: int) -> None:
    days: dict[tuple[str, ...], list[float]] = defaultdict(lambda: [0.0, 0.0])
    entries, texts = [], []
    spilled: dict[int, int] = {}
    taken = _taken(db, batch)
    for seq, _, at_us, body in batch:
        row = json.loads(_LONE.sub("/u", body))
        served, completion = row.get("served") or {}, row.get("completion") or {}
        n = place = seq if at_us is None else at_us // SLOT_US
        if n in taken:
            n = _free(db, taken, max(n, spilled.get(place, n)))
            spilled[place] = n
        taken.add(n)
        route = served.get("route", "imported")
        way = (route, served.get("reason", ""), served.get("slice", ""), served.get("release", ""))
        confidence = served.get("confidence")
        entries.append((n, seq, at_us, *way, None if confidence is None else float(confidence), _differs(served, completion, output)))
        texts.append((n, _TOGETHER.sub(r" \1 ", "\n".join(row["fields"].values()))))
        day = "" if at_us is None else datetime.fromtimestamp(at_us // 1_000_000, UTC).date().isoformat()
        weight = float(served.get("weight", 1.0))
        count = days[day, *way]
        count[0] += weight
        count[1] += weight * float(completion.get("cost_usd") or 0.0) if served else 0.0
    with db.write() as connection:
        connection.executemany(_ENTRY, entries)
        connection.executemany("INSERT INTO words(rowid, text) VALUES(?, ?)", texts)
        connection.executemany(_DAILY, [(*key, *count) for key, count in days.items()])
        connection.execute(_PUT_META, ("cursor", json.dumps([batch[-1][0], batch[-1][1], epoch])))


def _taken(db: Db, batch: Sequence[Row]) -> set[int]:
    """Numbers that these rows would like and others have."""
    wanted = [seq if at_us is None else at_us // SLOT_US for seq, _, at_us, _ in batch]
    return {n for (n,) in db.rows("SELECT n FROM entry WHERE n IN (SELECT value FROM json_each(?))", (json.dumps(wanted),))}


def _free(db: Db, taken: set[int], n: int) -> int:
    """A number behind: steps grow, so that a million rows of one moment find theirs too."""
    step = 1
    while True:
        n += step
        if n not in taken and not db.rows("SELECT 1 FROM entry WHERE n=?", (n,)):
            return n
        step = min(2 * step, 1 << 20)


def _differs(served: dict[str, Any], completion: dict[str, Any], output: Output) -> int | None:
    """Whether the student would have said something else than the teacher did; None where one of them said nothing."""
    guess, text = served.get("guess"), completion.get("value") or completion.get("text")
    if guess is None or not text or served.get("route") != "teacher":
        return None
    try:
        return int(not output.equal(guess, output.parse(text)))
    except OverproofError:  # an answer off the form compares with nothing
        return None


# -- looking -------------------------------------------------------------------------------------------------------


def asked_words(text: str) -> str:
    """
    What somebody typed as a question that the index takes: no sign of it is a command.

    Args:
        text: as typed.

    Returns: the expression; empty where it holds no word.
    """
    found = []
    for quoted, bare in _ASKED.findall(text):
        words = _WORD.findall(_TOGETHER.sub(r" \1 ", quoted or bare))
        if not words:
            continue
        begins = bare.endswith("*") and len(words[-1]) >= LEAST_BEGIN
        found.append(f'"{" ".join(words)}"{"*" if begins else ""}')
    return " AND ".join(found[:MOST_WORDS])


def _look(db: Db, wanted: Wanted, before: int | None, most: int, until: float) -> Hits:
    expression = asked_words(wanted.text)
    if wanted.text.strip() and not expression:
        return Hits(rows=(), older=None)
    test, values = _test(wanted)
    top = min((1 << 62) if before is None else before, (1 << 62) if wanted.until is None else _place(wanted.until))
    floor = 0 if wanted.since is None else _place(wanted.since)
    if expression:
        return _by_words(db, expression, (test, values), (top, floor), most=most, until=until)
    found: list[Hit] = []
    while top > floor:
        edge = db.rows("SELECT n FROM entry WHERE n<? ORDER BY n DESC LIMIT 1 OFFSET ?", (top, WINDOW))
        low = max(floor, edge[0][0] if edge else floor)
        query = f"SELECT {_COLUMNS} FROM entry e WHERE e.n<? AND e.n>=? AND {test} ORDER BY e.n DESC LIMIT ?"  # noqa: S608 - tests are constants
        found += [_hit(row) for row in db.rows(query, (top, low, *values, most + 1 - len(found)))]
        if len(found) > most:
            return Hits(rows=tuple(found[:most]), older=found[most - 1].n)
        top = low
        if edge and low > floor and time.monotonic() > until:
            return Hits(rows=tuple(found), older=low, tired=True, reached=_moment(low))
    return Hits(rows=tuple(found), older=None)


def _by_words(db: Db, expression: str, test: tuple[str, Sequence[Any]], ends: tuple[int, int], *, most: int, until: float) -> Hits:
    """The rows with the words one by one, the newest first."""
    found: list[Hit] = []
    query = f"""SELECT {_COLUMNS}, ({test[0]}) FROM words w CROSS JOIN entry e ON e.n = w.rowid
        WHERE words MATCH ? AND w.rowid < ? AND w.rowid >= ? ORDER BY w.rowid DESC"""  # noqa: S608 - tests are constants
    rows = db.stream(query, (*test[1], expression, *ends))
    for at, (*row, fits) in enumerate(rows):
        if fits:
            if len(found) == most:
                return Hits(rows=tuple(found), older=found[-1].n)
            found.append(_hit(row))
        if at % 200 == 199 and time.monotonic() > until:
            return Hits(rows=tuple(found), older=row[0], tired=True, reached=_moment(row[0]))
    return Hits(rows=tuple(found), older=None)


def _test(wanted: Wanted) -> tuple[str, list[Any]]:
    parts, values = ["1"], []
    for name in ("route", "reason", "slice", "release"):
        if value := getattr(wanted, name):
            parts.append(f"e.{name}=?")
            values.append(value)
    for sign, end in ((">=", wanted.low), ("<=", wanted.high)):
        if end is not None:
            parts.append(f"e.confidence{sign}?")
            values.append(end)
    if wanted.differs:
        parts.append("e.differs=1")
    return " AND ".join(parts), values


def _hit(row: Sequence[Any]) -> Hit:
    n, seq, at_us, route, reason, piece, release, confidence, differs = row
    return Hit(
        n=n, seq=seq, at=None if at_us is None else datetime.fromtimestamp(at_us / 1e6, UTC), route=route, reason=reason, slice=piece,
        release=release, confidence=confidence, differs=None if differs is None else bool(differs),
    )  # fmt: skip


def _place(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000) // SLOT_US


def _moment(n: int) -> datetime | None:
    return datetime.fromtimestamp(n * SLOT_US / 1e6, UTC) if n > 1 << 32 else None


