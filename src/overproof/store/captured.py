"""What the gateway writes into `traffic.db`: rows with their counters in one transaction, and feedback that came later."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Literal

import apsw

from overproof.data import Skipped, TrafficRecord
from overproof.errors import CorruptArtifact, StoreError
from overproof.store.added import Addition, made, note
from overproof.store.local import Db
from overproof.store.logs import TrafficLog
from overproof.store.sql import Connection

Drop = Literal["drawn", "queue full", "disk full", "disk error", "store busy", "unwritable", "closed"]
"""Why a row was not kept. "drawn": the queue was nearly full, and rows with a weight stand for it; "unwritable": redaction
failed on it, and nothing is written unredacted."""
FeedbackKind = Literal["label", "rating", "comment"]
Key = tuple[str, str, str]
"""Task, slice, outcome."""
SOURCE = "gateway"
CAPTURED, ASIDE = "captured", "kept aside"
"""A row of the log; a row that could not be read, or whose id was there: kept beside the log."""
ALARM_SHARE = 0.01
"""So many rows lost without a trace, of a slice's, raise the alarm; single ones are counted and shown."""
BROKEN = "traffic.broken"
_COUNT = """INSERT INTO capture_count VALUES(?, ?, ?, ?, ?)
    ON CONFLICT(day, task, slice, outcome) DO UPDATE SET n=capture_count.n+excluded.n"""
_FEEDBACK = "INSERT INTO feedback(request_id, at, key, kind, value) VALUES(?, ?, ?, ?, ?)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Feedback:
    """What somebody says later of an answer."""

    request_id: str
    """The gateway's id of the request."""
    at: str
    """ISO 8601 in UTC."""
    key: str
    """Id of the caller's key; empty without authentication."""
    kind: FeedbackKind
    value: str
    """A label, a comment, or a rating as a number's text: in [0, 1], or -1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """A row as it may be written: read, redacted, or a row that could not be read."""

    row: TrafficRecord | Skipped
    task: str
    slice: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SliceHealth:
    """What became of the requests of one slice."""

    task: str
    """Empty for requests of no known task."""
    slice: str
    captured: int
    aside: int
    """Kept beside the log, since they could not be read or their id was there."""
    dropped: Mapping[str, int]
    """Reason (a `Drop`) to requests."""

    @property
    def served(self) -> int:
        """All requests that were offered to the log."""
        return self.captured + self.aside + sum(self.dropped.values())

    @property
    def lost(self) -> int:
        """Dropped ones for which no weighted row stands."""
        return sum(n for reason, n in self.dropped.items() if reason != "drawn")

    @property
    def alarm(self) -> str:
        """Why somebody should look; empty where nobody has to."""
        if self.lost == 0 or self.lost < ALARM_SHARE * self.served:
            return ""
        why = ", ".join(f"{reason}: {n:,}" for reason, n in sorted(self.dropped.items()) if reason != "drawn")
        where = " / ".join(part for part in (self.task or "no task", self.slice) if part)
        return f"{where}: {self.lost:,} of {self.served:,} requests are not in the log ({why})"


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptureHealth:
    """What became of all requests; `served = captured + aside + dropped`, exactly."""

    slices: tuple[SliceHealth, ...]

    @property
    def served(self) -> int:
        """Requests that were offered to the log."""
        return sum(one.served for one in self.slices)

    @property
    def captured(self) -> int:
        """Rows in the log."""
        return sum(one.captured for one in self.slices)

    @property
    def dropped(self) -> int:
        """Requests without a row."""
        return sum(sum(one.dropped.values()) for one in self.slices)

    @property
    def alarms(self) -> tuple[str, ...]:
        """One sentence for each slice that loses rows."""
        return tuple(one.alarm for one in self.slices if one.alarm)

    @property
    def line(self) -> str:
        """For `status`."""
        aside = sum(one.aside for one in self.slices)
        drawn = sum(one.dropped.get("drawn", 0) for one in self.slices)
        said = f"capture: {self.served:,} requests, {self.captured:,} in the log"
        said += f", {aside:,} kept aside" if aside else ""
        return said + (f", {self.dropped:,} dropped ({drawn:,} of them stood for by weighted rows)" if self.dropped else "")


class CaptureLog:
    """
    The writing end of the gateway.

    Args:
        log: the traffic log.
        db: its database.
        home: the `.overproof` folder, where a note of a write error stays over a restart.

    Raises: CorruptArtifact where the last gateway met a write error and the file is damaged since.
    """

    def __init__(self, log: TrafficLog, db: Db, home: Path) -> None:
        self._log, self._db, self._note = log, db, home / BROKEN
        if self._note.exists():
            if found := db.check():
                raise CorruptArtifact(
                    f"{db.path.name} is damaged since a write error: {found[0]}", next_action="restore it from a backup"
                )
            self._note.unlink()

    def commit(
        self, rows: Sequence[Kept], dropped: Mapping[Key, int], feedback: Sequence[Sequence[Feedback]] = (), once: Addition | None = None
    ) -> list[bool]:
        """
        Write rows, what was dropped since, and feedback, all or nothing; durable on return.

        Args:
            rows: in the order in which they were served.
            dropped: rows that are not kept, since the last commit that worked.
            feedback: words that belong together; those of a row of the same commit are in time.
            once: which of the writer's commits it is, to be asked for with `made`.

        Returns: for each entry of `feedback` whether its request is known; nothing is written for one that isn't.
        Raises: StoreError where nothing could be written.
        """
        with self._db.write() as connection:
            if once is not None:
                note(connection, once)
            counts: Counter[Key] = Counter(dropped)
            for kept, came in zip(rows, self._log.put_made(connection, [one.row for one in rows], SOURCE), strict=True):
                if came != "already_there":  # a writer that was killed had it committed, and had not said so
                    counts[kept.task, kept.slice, CAPTURED if came == "added" else ASIDE] += 1
            today = datetime.now(UTC).date().isoformat()
            for (task, piece, outcome), n in counts.items():
                if n:
                    connection.execute(_COUNT, (today, task, piece, outcome, n))
            return [self._put_words(connection, words) for words in feedback]

    def made(self, once: Addition) -> bool:
        """
        Whether a commit that nobody heard of was made.

        Args:
            once: as given to `commit`.

        Returns: True iff all of it is there.
        Raises: StoreError where nobody can say.
        """
        with self._db.write() as connection:
            return made(connection, once)

    def broke(self) -> None:
        """Note that a write failed in a way that leaves the file in doubt: the next start checks it first."""
        try:
            self._note.write_text("a write failed; the file is checked at the next start\n", encoding="utf-8")
        except OSError:  # the disk that failed may not take the note either
            return

    def feedback(self) -> list[Feedback]:
        """All feedback, oldest first."""
        rows = self._db.rows("SELECT request_id, at, key, kind, value FROM feedback ORDER BY seq")
        return [Feedback(request_id=a, at=b, key=c, kind=d, value=e) for a, b, c, d, e in rows]

    def feedback_on(self, request_id: str) -> list[Feedback]:
        """Feedback on one request, oldest first."""
        query = "SELECT request_id, at, key, kind, value FROM feedback WHERE request_id=? ORDER BY seq"
        return [Feedback(request_id=a, at=b, key=c, kind=d, value=e) for a, b, c, d, e in self._db.rows(query, (request_id,))]

    def health(self, *, days: int | None = None, today: date | None = None) -> CaptureHealth:
        """
        What was captured and dropped, by task and slice.

        Args:
            days: the last so many days, today included; all where None.
            today: in UTC; the clock's day where None.

        Returns: one entry for each slice that had a request.
        """
        last = today or datetime.now(UTC).date()
        since = "" if days is None else (last - timedelta(days=days - 1)).isoformat()
        query = "SELECT task, slice, outcome, sum(n) FROM capture_count WHERE day>=? GROUP BY task, slice, outcome"
        found: dict[tuple[str, str], dict[str, int]] = {}
        for task, piece, outcome, n in self._db.rows(query, (since,)):
            found.setdefault((task, piece), {})[outcome] = n
        return CaptureHealth(slices=tuple(
            SliceHealth(task=task, slice=piece, captured=n.pop(CAPTURED, 0), aside=n.pop(ASIDE, 0), dropped=n)
            for (task, piece), n in sorted(found.items())
        ))  # fmt: skip

    def _put_words(self, connection: Connection, words: Sequence[Feedback]) -> bool:
        for one in words:
            if not list(connection.execute("SELECT 1 FROM record WHERE id=?", (one.request_id,))):
                return False
            connection.execute(_FEEDBACK, (one.request_id, one.at, one.key, one.kind, one.value))
        return True


PG_DISK_FULL = "53100"


def is_full(error: StoreError) -> bool:
    """Whether a write failed for want of space alone: nothing is in doubt, and it may be tried again."""
    return isinstance(error.__cause__, apsw.FullError) or getattr(error.__cause__, "sqlstate", "") == PG_DISK_FULL


def is_away(error: StoreError) -> bool:
    """Whether the server of the store can't be reached: whoever waits for a row to be durable need not wait for the next one to fail."""
    return type(error.__cause__).__module__.startswith("psycopg") and (getattr(error.__cause__, "sqlstate", None) or "08")[:2] in ("08", "57")


def is_broken(error: Exception) -> bool:
    """Whether a write failed in a way after which nobody knows what is on the disk: never to be tried again."""
    return isinstance(error, CorruptArtifact) or isinstance(error.__cause__, apsw.IOError)
