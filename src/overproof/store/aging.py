"""Rows whose time has run out: words become a marker, digests and counts stay; what went is counted in the transaction in which it goes."""

from __future__ import annotations

import json
import uuid
import zlib
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from overproof.data import Alarm, digest_of
from overproof.store.codec import decode, encode
from overproof.store.decisions import Decision, decide_on
from overproof.store.local import Db
from overproof.store.sql import Connection, Row

EXPIRED = "[expired]"
KIND = "retention"
"""Of the decision that a pass leaves."""
ARTIFACT = "artifact:"
"""Begins the kind under which an artifact is noted before it goes."""
_BATCH = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class Cutoffs:
    """The first moment that is still kept, of each kind; None keeps all."""

    text: datetime | None = None
    answers: datetime | None = None
    context: datetime | None = None
    attributes: datetime | None = None
    key: datetime | None = None
    feedback: datetime | None = None
    rejected: datetime | None = None
    examples: datetime | None = None
    artifacts: datetime | None = None


def cutoffs(days: Mapping[str, int | None], now: datetime) -> Cutoffs:
    """
    When each kind's time ends.

    Args:
        days: kind to the days that it is kept.
        now: in UTC.

    Returns: the moments.
    """
    return Cutoffs(**{kind: now - timedelta(days=n) for kind, n in days.items() if n is not None})


class Aging:
    """
    The databases' end of a pass.

    Args:
        traffic: the open `traffic.db`.
        project: the open `project.db`.
    """

    def __init__(self, traffic: Db, project: Db) -> None:
        self._traffic, self._project, self._pass = traffic, project, ""

    def begin(self) -> None:
        """Begin a pass, or take up the one that was cut off, with the counts of what it did."""
        done = {json.loads(body).get("pass") for (body,) in self._project.rows("SELECT body FROM decision WHERE kind=?", (KIND,))}
        known = {name for db, table in self._tables for (name,) in db.rows(f"SELECT DISTINCT pass FROM {table}")}  # noqa: S608 - constants
        for name in known & done:
            self._clear(name)
        self._pass = min(known - done, default=uuid.uuid4().hex)

    def end(self, *, task: str, body: Mapping[str, Any]) -> Decision:
        """The pass's entry in the decisions log; one transaction with the end of its notes."""
        with self._project.write() as connection:
            decision = decide_on(connection, KIND, actor="retention", subject=task, body={"pass": self._pass, **body})
            connection.execute("DELETE FROM retaining WHERE pass=?", (self._pass,))
        self._clear(self._pass)
        return decision

    def counts(self) -> Counter[str]:
        """What the pass took away so far, also before it was cut off; artifacts are noted before they go."""
        found: Counter[str] = Counter()
        for db, table in self._tables:
            found.update(dict(db.rows(f"SELECT kind, n FROM {table} WHERE pass=?", (self._pass,))))  # noqa: S608 - constants
        return found

    def note_artifacts(self, digests: Collection[str], *, rows: bool) -> None:
        """Note artifacts that are about to go, and tell every machine on this store; `rows`: that rows went, too."""
        with self._project.write() as connection:
            for digest in sorted(digests):
                connection.execute("INSERT INTO retaining VALUES(?, ?, 1) ON CONFLICT DO NOTHING", (self._pass, ARTIFACT + digest))
            for digest in [*([""] if rows else []), *sorted(digests)]:
                connection.execute("INSERT INTO buried(digest) VALUES(?)", (digest,))

    @property
    def _tables(self) -> tuple[tuple[Db, str], ...]:
        return ((self._traffic, "retained"), (self._project, "retaining"))

    def _clear(self, name: str) -> None:
        for db, table in self._tables:
            with db.write() as connection:
                connection.execute(f"DELETE FROM {table} WHERE pass=?", (name,))  # noqa: S608 - constants

    def _count(self, connection: Connection, table: str, counts: Mapping[str, int]) -> None:
        for kind, n in counts.items():
            sql = f"INSERT INTO {table} VALUES(?, ?, ?) ON CONFLICT(pass, kind) DO UPDATE SET n={table}.n+excluded.n"
            if n:
                connection.execute(sql, (self._pass, kind, n))

    def age_log(self, ends: Cutoffs) -> None:
        """Blank what is over in the traffic log; a row whose text is over leaves the log that runs read."""
        first = max((one for one in (ends.text, ends.answers, ends.context, ends.attributes, ends.key) if one is not None), default=None)
        if first is None:
            return
        for table in ("record", "expired"):
            seq = ""
            while rows := self._traffic.rows(
                f"SELECT id, digest, at_us, source, body FROM {table} WHERE at_us < ? AND id > ? ORDER BY id LIMIT {_BATCH}",  # noqa: S608 - constants
                (round(first.timestamp() * 1e6), seq),
            ):
                self._age_rows(table, rows, ends)
                seq = rows[-1][0]
        if ends.text is not None:
            self._age_aside(ends.text)

    def age_words(self, ends: Cutoffs) -> None:
        """Blank comments of callers, answers that became no label, and examples in alarms and sketches of drift."""
        if ends.feedback is not None:
            with self._traffic.write() as connection:
                sql = "UPDATE feedback SET value=? WHERE kind='comment' AND at < ? AND value NOT IN ('[erased]', '[expired]')"
                connection.execute(sql, (EXPIRED, ends.feedback.isoformat()))
                self._count(connection, "retained", {"comments": connection.changes()})
        counts: Counter[str] = Counter()
        with self._project.write() as connection:
            if ends.rejected is not None and (upto := _aged(connection, ends.rejected)):
                connection.execute("UPDATE attempt SET answer=NULL WHERE id<=? AND answer IS NOT NULL", (upto,))
                counts["rejected answers"] += connection.changes()
            if ends.examples is not None:
                self._examples(connection, ends.examples, counts)
            self._count(connection, "retaining", counts)

    def mark(self, at: datetime) -> None:
        """Note how far the tables without a time of their own reach now: what is there has come by then."""
        for db, kind, query in ((self._project, "attempt", "SELECT coalesce(max(id), 0) FROM attempt"), (self._traffic, "skipped", "SELECT coalesce(max(seq), 0) FROM skipped")):
            ((upto,),) = db.rows(query)
            with self._project.write() as connection:
                connection.execute("INSERT INTO aged VALUES(?, ?, ?) ON CONFLICT DO NOTHING", (kind, upto, at.isoformat()))

    def undated(self) -> int:
        """Rows of the log without a time: nothing says when theirs is over."""
        return int(self._traffic.rows("SELECT count(*) FROM record WHERE at_us IS NULL")[0][0])

    def forget(self) -> None:
        """Leave nothing of what was blanked in either file or its log."""
        self._traffic.forget()
        self._project.forget()

    def _age_rows(self, table: str, rows: list[Row], ends: Cutoffs) -> None:
        counts: Counter[str] = Counter()
        with self._traffic.write() as connection:
            moved = False
            for identity, digest, at_us, source, body in rows:
                row = json.loads(body)
                over = {kind for kind in ("text", "answers", "context", "attributes", "key") if (end := getattr(ends, kind)) is not None and at_us < end.timestamp() * 1e6}
                new = blanked(row, over)
                if new == row:
                    continue
                moved = True
                text = json.dumps(new, ensure_ascii=False, separators=(",", ":"))
                counts.update(kind for kind in over if blanked(row, {kind}) != row)
                if table == "expired":
                    connection.execute("UPDATE expired SET body=? WHERE id=?", (text, identity))
                    continue
                kept = text if "text" in over else json.dumps(blanked(row, {"text", "attributes", "key"}), ensure_ascii=False, separators=(",", ":"))
                sql = "INSERT INTO expired VALUES(?, ?, ?, ?, ?) ON CONFLICT(id) DO UPDATE SET body=excluded.body"
                connection.execute(sql, (identity, digest, at_us, source, kept))
                if "text" in over:
                    connection.execute("DELETE FROM record WHERE id=?", (identity,))
                else:
                    connection.execute("UPDATE record SET body=?, digest=? WHERE id=?", (text, digest_of(new), identity))
            self._count(connection, "retained", counts)
            if moved and table == "record":
                connection.execute("UPDATE meta SET value=CAST(CAST(value AS INTEGER)+1 AS TEXT) WHERE name='epoch'")
                connection.execute("DELETE FROM meta WHERE name='snapshot'")

    def _age_aside(self, end: datetime) -> None:
        counts: Counter[str] = Counter()
        upto = self._project.rows("SELECT coalesce(max(upto), 0) FROM aged WHERE kind='skipped' AND at < ?", (end.isoformat(),))[0][0]
        with self._traffic.write() as connection:
            connection.execute("DELETE FROM skipped WHERE seq<=?", (upto,))
            counts["skipped rows"] += connection.changes()
            aside: list[Row] = connection.execute("SELECT seq, body FROM conflict").fetchall()
            for seq, body in aside:
                at = json.loads(body)["at"]
                if at is not None and at < end.isoformat():
                    connection.execute("DELETE FROM conflict WHERE seq=?", (seq,))
                    counts["conflicting rows"] += 1
            self._count(connection, "retained", counts)

    def _examples(self, connection: Connection, end: datetime, counts: Counter[str]) -> None:
        alarms: list[Row] = connection.execute("SELECT id, body FROM alarm WHERE at < ?", (end.timestamp(),)).fetchall()
        for identity, body in alarms:
            alarm = decode(body.encode(), find=_nowhere, where="an alarm")
            if isinstance(alarm, Alarm) and alarm.examples:
                bare = encode(replace(alarm, examples=())).data.decode("utf-8", "replace")
                connection.execute("UPDATE alarm SET body=? WHERE id=?", (bare, identity))
                counts["alarms' examples"] += 1
        sketches: list[Row] = connection.execute("SELECT release_id, slice, day, body FROM drift_day WHERE day < ?", (end.date().isoformat(),)).fetchall()
        for release, piece, day, raw in sketches:
            sketch = json.loads(zlib.decompress(bytes(raw)).decode("utf-8", "surrogatepass"))
            shown = [name for name in ("shown", "word_ids", "samples") if isinstance(sketch, dict) and sketch.get(name)]
            if shown:
                bare_sketch = {name: (type(value)() if name in shown else value) for name, value in sketch.items()}
                packed = zlib.compress(json.dumps(bare_sketch, ensure_ascii=False).encode("utf-8", "surrogatepass"))
                connection.execute("UPDATE drift_day SET body=? WHERE release_id=? AND slice=? AND day=?", (packed, release, piece, day))
                counts["drift examples"] += 1


def blanked(row: Mapping[str, Any], over: set[str]) -> dict[str, Any]:
    """
    A row of the log with a marker in the place of what is over.

    Args:
        row: the stored body.
        over: "text" (which takes answers and context with it), "answers", "context", "attributes", "key".

    Returns: the new body; equal to the old one where nothing changes.
    """
    new = dict(row)
    over = over | ({"answers", "context"} if "text" in over else set())
    if "text" in over:
        new["fields"] = dict.fromkeys(row["fields"], EXPIRED)
    if "answers" in over:
        if row["completion"] is not None:
            new["completion"] = {**row["completion"], "text": EXPIRED, "value": None}
        new["gold"] = None
        if "served" in row:
            new["served"] = {name: value for name, value in row["served"].items() if name != "guess"}
    if "context" in over and "context" in row:
        new["context"], new["calls"] = [], []
    if "attributes" in over:
        new["attributes"], new["session"] = dict.fromkeys(row["attributes"], EXPIRED), None
    if "key" in over and "served" in new:
        new["served"] = {name: value for name, value in new["served"].items() if name != "key"}
    if new != row:
        new["over"] = sorted(over.union(row.get("over", ())))
    return new


def _aged(connection: Connection, end: datetime) -> int:
    """The newest call that a pass before the end had seen."""
    found: list[Row] = connection.execute("SELECT coalesce(max(upto), 0) FROM aged WHERE kind='attempt' AND at < ?", (end.isoformat(),)).fetchall()
    return int(found[0][0])


def _nowhere(digest: str) -> Any:
    raise KeyError(digest)
