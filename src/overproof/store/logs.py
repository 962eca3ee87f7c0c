"""Append-only logs: the traffic that runs work on, and the decisions that people made."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any

from overproof import progress
from overproof.data import (
    FEEDBACK,
    Completion,
    Request,
    Served,
    Skipped,
    ToolCall,
    TrafficRecord,
    Turn,
)
from overproof.errors import StoreError
from overproof.store.graves import Graves
from overproof.store.local import Db
from overproof.store.sql import Connection

SHARED = 10_000  # different attribute mappings that are kept at a time
BATCH = 1_000  # rows in one transaction: a commit costs about 9 ms whatever its size
_COMPLETION_FIELDS = tuple(f.name for f in fields(Completion))
_SERVED_FIELDS = tuple((f.name, f.default) for f in fields(Served))
_IN_ORDER = "at_us IS NULL, at_us, seq"
_INSERT = "INSERT INTO record(id, digest, at_us, source, body) VALUES(?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_KEEP_ASIDE = "INSERT INTO conflict(id, digest, source, reason, body) VALUES(?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_KEEP_SKIPPED = "INSERT INTO skipped(place, reason, raw, source) VALUES(?, ?, ?, ?) ON CONFLICT DO NOTHING"
_PUT_META = "INSERT INTO meta VALUES(?, ?) ON CONFLICT(name) DO UPDATE SET value=excluded.value"


_dumps = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


@dataclass(frozen=True, kw_only=True, slots=True)
class AppendReport:
    """What one import did; every row is in exactly one count."""

    added: int = 0
    """New rows."""
    already_there: int = 0
    """Rows that were in the log with the same content."""
    skipped: int = 0
    """Rows that could not be read; kept aside with their reasons."""
    conflicts: int = 0
    """Rows whose id is in the log with other content; kept aside, the log has what came first."""
    replaced: int = 0
    """With `replace`: rows that took the place of others with the same id; those are kept aside."""
    erased: int = 0
    """Rows that were erased or have run out of their time; they don't come back."""

    @property
    def total(self) -> int:
        """Rows that were offered."""
        return self.added + self.already_there + self.skipped + self.conflicts + self.replaced + self.erased


@dataclass(frozen=True, kw_only=True, slots=True)
class LogVersion:
    """A moment of the log: while it's equal, the log is unchanged."""

    epoch: int
    """Raised whenever a row is replaced."""
    last_seq: int
    """Number of the newest row; 0 for an empty log."""
    feedback: int = 0
    """Number of the newest label that came in as feedback; 0 where there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LogCounts:
    """How much the log holds."""

    records: int
    skipped: Mapping[str, int]
    """Reason to rows."""
    conflicts: int


@dataclass(frozen=True, kw_only=True, slots=True)
class AnsweredBy:
    """A model that answered, as the provider named it."""

    since: str
    """When it was seen first, ISO 8601 in UTC."""
    model: str
    fingerprint: str
    """Empty where the provider names none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Line:
    """A record as the database holds it."""

    id: str
    digest: str
    at_us: int | None
    body: str


class TrafficLog:
    """
    The requests that were served, with the answers where they are known.

    Args:
        db: the open `traffic.db`.
        graves: knows rows that must not come back.
    """

    def __init__(self, db: Db, graves: Graves | None = None) -> None:
        self._db, self._graves = db, graves

    def append(
        self, records: Iterable[TrafficRecord | Skipped], source: str, *, replace: bool = False
    ) -> AppendReport:
        """
        Add rows; those that are there already add nothing.

        Durable in batches: after a kill, importing the same file again adds the rest.

        Args:
            records: what an importer yields.
            source: where they come from, for rows that don't say themselves.
            replace: let a row take the place of one with the same id and other content.

        Returns: what became of every row.
        Raises: StoreError where the log can't be written.
        """
        counts = dict.fromkeys((f.name for f in fields(AppendReport)), 0)
        rows = iter(progress.track(records, "importing"))
        while batch := list(itertools.islice(rows, BATCH)):
            for name, count in self._append_batch(batch, source, replace=replace).items():
                counts[name] += count
        return AppendReport(**counts)

    def version(self) -> LogVersion:
        """The log's present moment, cheap."""
        ((epoch, last, feedback),) = self._db.rows(
            "SELECT (SELECT value FROM meta WHERE name='epoch'), (SELECT coalesce(max(seq), 0) FROM record), "
            "(SELECT coalesce(max(seq), 0) FROM feedback WHERE kind='label')"
        )
        return LogVersion(epoch=int(epoch), last_seq=last, feedback=feedback)

    def known_digest(self, version: LogVersion | None = None) -> str:
        """What `snapshot_digest` remembers of this moment, without reading a row; empty where it would have to read them all."""
        key = _moment(version or self.version())
        for (known,) in self._db.rows("SELECT value FROM meta WHERE name='snapshot'"):
            moment, _, digest = known.partition(" ")
            if moment == key:
                return str(digest)
        return ""

    def snapshot_digest(self, version: LogVersion | None = None) -> str:
        """
        SHA-256 over all rows in reading order; remembered while the log is unchanged.

        Args:
            version: the moment that is meant; now by default.

        Returns: 64 hexadecimal digits, equal for equal content however it was imported.
        """
        version = version or self.version()
        if found := self.known_digest(version):
            return found
        key = _moment(version)
        whole = hashlib.sha256()
        query = f"SELECT digest, source FROM record WHERE seq<=? ORDER BY {_IN_ORDER}"  # noqa: S608 - a constant
        for digest, source in self._db.stream(query, (version.last_seq,)):
            whole.update(f"{digest} {source}\n".encode())
        for identity, label in sorted(self._labels(version).items()):
            whole.update(json.dumps([FEEDBACK, identity, label]).encode() + b"\n")
        with self._db.write() as connection:
            connection.execute(_PUT_META, ("snapshot", f"{key} {whole.hexdigest()}"))
        return whole.hexdigest()

    def read(self, version: LogVersion | None = None, *, context: bool = False) -> Iterator[TrafficRecord]:
        """
        All rows in order of time, then of arrival; rows without a time last. A row without a true label gets the one that
        was given as feedback, marked as such.

        Args:
            version: the moment that is meant, so that the rows are those of its `snapshot_digest`; now by default.
            context: with the turns and tool calls of each row, which no run needs in memory.

        Returns: the rows, lazily, from one moment.
        Raises: StoreError where rows of that moment have been replaced since.
        """
        version = version or self.version()
        query = f"SELECT body, source FROM record WHERE seq<=? ORDER BY {_IN_ORDER}"  # noqa: S608 - a constant
        shared, labels = _Shared(), self._labels(version)
        for body, source in self._db.stream(query, (version.last_seq,)):
            record = _record_of(body, source, context=context, shared=shared)
            if labels and record.gold is None and (label := labels.get(record.request.id)) is not None:
                record = replace(record, gold=label, gold_from=FEEDBACK)
            yield record
        if self.version().epoch != version.epoch:
            raise StoreError(
                "rows of the traffic log were replaced while it was read", next_action="run again"
            )

    def between(self, start: datetime, end: datetime) -> Iterator[TrafficRecord]:
        """
        The rows of a span of time, in its order, without contexts.

        Args:
            start: first moment, in UTC.
            end: first moment after it.

        Returns: the rows, lazily.
        """
        shared, query = _Shared(), (
            "SELECT body, source FROM record WHERE at_us IS NULL = 0 AND at_us>=? AND at_us<? ORDER BY at_us, seq"
        )
        for body, source in self._db.stream(query, tuple(_microseconds(one.isoformat()) for one in (start, end))):
            yield _record_of(body, source, context=False, shared=shared)

    def find(self, ids: Iterable[str]) -> list[TrafficRecord]:
        """
        Rows by their ids.

        Args:
            ids: of requests; what is not in the log is left out.

        Returns: the rows, in the order of `ids`, without context.
        """
        shared = _Shared()
        return [
            _record_of(body, source, context=False, shared=shared)
            for identity in ids
            for body, source in self._db.rows("SELECT body, source FROM record WHERE id=?", (identity,))
        ]

    def numbered(self, numbers: Iterable[int]) -> list[TrafficRecord]:
        """
        Rows by their numbers in the log.

        Args:
            numbers: what is not in the log is left out.

        Returns: the rows, in the order of `numbers`, without context.
        """
        shared = _Shared()
        return [
            _record_of(body, source, context=False, shared=shared)
            for number in numbers
            for body, source in self._db.rows("SELECT body, source FROM record WHERE seq=?", (number,))
        ]

    def whole(self, request_id: str) -> TrafficRecord | None:
        """One row with all that the log holds of it, turns and tool calls included; None where there is none of this id."""
        found = self._db.rows("SELECT body, source FROM record WHERE id=?", (request_id,))
        return _record_of(*found[0], context=True, shared=_Shared()) if found else None

    def answered_by(self, task: str, *, since: float) -> list[AnsweredBy]:
        """
        Models and fingerprints of the teacher's own answers through the gateway, in the order in which they were first seen.

        Args:
            task: name of the task.
            since: seconds since 1970; earlier rows are not looked at.

        Returns: one entry for each pair.
        """
        query = """SELECT min(at_us), coalesce(body ->> '$.completion.model', '') AS model,
            coalesce(body ->> '$.completion.fingerprint', '') AS mark FROM record
            WHERE (at_us IS NULL) = 0 AND at_us >= ? AND body ->> '$.served.route' = 'teacher' AND body ->> '$.served.task' = ?
            AND body ->> '$.completion.finish' = 'stop' GROUP BY model, mark ORDER BY min(at_us)"""
        rows = self._db.rows(query, (round(since * 1e6), task))
        first = [datetime.fromtimestamp(row[0] / 1e6, UTC).isoformat(timespec="seconds") for row in rows]
        return [AnsweredBy(since=at, model=model, fingerprint=mark) for at, (_, model, mark) in zip(first, rows, strict=True)]

    def first_asked(self, release_id: str) -> datetime | None:
        """
        When a release was first asked, in shadow too; reads the whole log.

        Args:
            release_id: which.

        Returns: the time of the request; None where it never was.
        """
        query = "SELECT min(at_us) FROM record WHERE at_us IS NULL = 0 AND json_extract(body, '$.served.release')=?"
        ((at_us,),) = self._db.rows(query, (release_id,))
        return None if at_us is None else datetime.fromtimestamp(at_us / 1_000_000, UTC)

    def skipped(self) -> Iterator[Skipped]:
        """Rows that could not be read, as they came."""
        for place, reason, raw in self._db.stream("SELECT place, reason, raw FROM skipped ORDER BY seq"):
            yield Skipped(where=place, reason=reason, raw=raw)

    def conflicts(self) -> Iterator[TrafficRecord]:
        """Rows that were kept aside, since the log has their id with other content."""
        for body, source in self._db.stream("SELECT body, source FROM conflict ORDER BY seq"):
            yield _record_of(body, source, context=True, shared=_Shared())

    def counts(self) -> LogCounts:
        """How many rows there are of each sort."""
        ((records, conflicts),) = self._db.rows(
            "SELECT (SELECT count(*) FROM record), (SELECT count(*) FROM conflict)"
        )
        reasons = self._db.rows(
            "SELECT reason, count(*) AS n FROM skipped GROUP BY reason ORDER BY n DESC, reason"
        )
        return LogCounts(records=records, conflicts=conflicts, skipped={str(r): int(n) for r, n in reasons})

    def _append_batch(
        self, batch: list[TrafficRecord | Skipped], source: str, *, replace: bool
    ) -> dict[str, int]:
        counts = dict.fromkeys((f.name for f in fields(AppendReport)), 0)
        with self._db.write() as connection:
            for item in batch:
                counts[self.put(connection, item, source, replace=replace)] += 1
            if counts["replaced"]:
                connection.execute("UPDATE meta SET value=CAST(value AS INTEGER)+1 WHERE name='epoch'")
        return counts

    def put(self, connection: Connection, item: TrafficRecord | Skipped, source: str, *, replace: bool = False) -> str:
        """
        Add one row within a transaction of this log's database.

        Args:
            connection: from the transaction.
            item: the row.
            source: where it comes from, if it doesn't say itself.
            replace: see `append`.

        Returns: the count of `AppendReport` that it belongs to.
        """
        line = _line_of(item) if isinstance(item, TrafficRecord) else item
        digest = "" if isinstance(line, Skipped) else line.digest
        if self._graves is not None and self._graves.hold(connection, item, digest, imported=source != "gateway"):
            return "erased"
        if isinstance(line, Skipped):
            row = tuple(_storable(text) for text in (line.where, line.reason, line.raw[:2000], source))
            connection.execute(_KEEP_SKIPPED, row)
            return "skipped"
        origin = item.source if isinstance(item, TrafficRecord) and item.source else source
        return self._put(connection, line, _storable(origin), replace=replace)

    def put_made(self, connection: Connection, items: Sequence[TrafficRecord | Skipped], source: str) -> list[str]:
        """
        As `put`, for many rows whose ids we made ourselves: a server takes all new ones in one go.

        Args:
            connection: from the transaction.
            items: the rows.
            source: where they come from.

        Returns: for each row what `put` returns.
        """
        lines = [_line_of(one) if isinstance(one, TrafficRecord) else one for one in items]
        ids = json.dumps([one.id for one in lines if isinstance(one, _Line)])
        taken = {one for (one,) in connection.execute("SELECT id FROM record WHERE id IN (SELECT value FROM json_each(?))", (ids,))}
        fresh: dict[str, tuple[str, str, int | None, str, str]] = {}
        ways: list[str] = []
        for item, line in zip(items, lines, strict=True):
            new = isinstance(line, _Line) and line.id not in taken and line.id not in fresh
            if new and isinstance(line, _Line) and isinstance(item, TrafficRecord):
                fresh[line.id] = (line.id, line.digest, line.at_us, _storable(item.source or source), line.body)
            ways.append("added" if new else "")
        if fresh:
            connection.executemany(_INSERT, fresh.values())
        return [way or self.put(connection, item, source) for way, item in zip(ways, items, strict=True)]

    def _labels(self, version: LogVersion) -> dict[str, str]:
        """Request id to the label that all who gave feedback on it agree on; of one caller the last word counts."""
        if not version.feedback:
            return {}
        said: dict[str, dict[str, str]] = {}
        query = "SELECT request_id, key, value FROM feedback WHERE kind='label' AND seq<=? ORDER BY seq"
        for identity, key, label in self._db.stream(query, (version.feedback,)):
            said.setdefault(identity, {})[key] = label
        agreed = {identity: set(words.values()) for identity, words in said.items()}
        return {identity: labels.pop() for identity, labels in agreed.items() if len(labels) == 1}

    def _put(self, connection: Connection, line: _Line, origin: str, *, replace: bool) -> str:
        connection.execute(_INSERT, (line.id, line.digest, line.at_us, origin, line.body))
        if connection.changes():
            return "added"
        query = "SELECT digest, source, body FROM record WHERE id=?"
        ((digest, source, body),) = connection.execute(query, (line.id,)).fetchall()
        if digest == line.digest:
            return "already_there"
        if not replace:
            aside = (line.id, line.digest, origin, "another row with this id came first", line.body)
            connection.execute(_KEEP_ASIDE, aside)
            return "conflicts"
        connection.execute(_KEEP_ASIDE, (line.id, digest, source, "replaced by a later import", body))
        connection.execute("DELETE FROM conflict WHERE id=? AND digest=?", (line.id, line.digest))
        connection.execute(
            "UPDATE record SET digest=?, at_us=?, source=?, body=? WHERE id=?",
            (line.digest, line.at_us, origin, line.body, line.id),
        )
        return "replaced"


def _line_of(record: TrafficRecord) -> _Line | Skipped:
    request, completion = record.request, record.completion
    body: dict[str, Any] = {
        "id": request.id,
        "fields": dict(request.fields),
        "at": request.at,
        "attributes": dict(request.attributes),
        "session": request.session,
        "completion": None if completion is None else {n: getattr(completion, n) for n in _COMPLETION_FIELDS},
        "gold": record.gold,
        **({} if record.gold_from == "log" else {"gold_from": record.gold_from}),  # older rows keep their digest
    }
    if record.context or record.calls:  # absent otherwise: rows without them keep the digest that they always had
        body["context"] = [
            {"role": turn.role, "text": turn.text, "calls": [_call(one) for one in turn.calls], "call_id": turn.call_id} for turn in record.context
        ]
        body["calls"] = [_call(one) for one in record.calls]
    if record.served is not None:
        how = record.served
        body["served"] = {name: value for name, default in _SERVED_FIELDS if (value := getattr(how, name)) != default}
    try:
        text = _storable_json(_dumps(body))
        key = request.id.encode().decode()
        at_us = None if request.at is None else _microseconds(request.at)
    except (ValueError, TypeError) as error:
        return Skipped(
            where=f"{record.source} {request.id!r}", reason=f"can't be stored: {error}", raw=repr(body)[:2000]
        )
    return _Line(id=key, digest=hashlib.sha256(text.encode()).hexdigest(), at_us=at_us, body=text)


def _call(call: ToolCall) -> dict[str, str]:
    return {"name": call.name, "arguments": call.arguments, "id": call.id}


class _Shared:
    """One object for what many rows say alike: it halves the memory of a log of a million short messages."""

    def __init__(self) -> None:
        self._attributes: dict[tuple[tuple[str, str], ...], Mapping[str, str]] = {}
        self._said: dict[str, Turn] = {}

    def attributes(self, found: dict[str, str]) -> Mapping[str, str]:
        """An equal mapping, the same one for equal ones; keys and values are few, so their strings are shared too."""
        key = tuple(found.items())
        known = self._attributes.get(key)
        if known is None:
            if len(self._attributes) >= SHARED:  # an attribute that is new in every row must not fill the memory
                self._attributes.clear()
            known = {sys.intern(name): value for name, value in found.items()}
            self._attributes[key] = known
        return known

    def turn(self, row: Mapping[str, Any]) -> Turn:
        """A turn; a prompt that stands in front of every message is one object."""
        if row["role"] != "system":
            return _turn_of(row)
        if len(self._said) >= SHARED:
            self._said.clear()
        return self._said.setdefault(row["text"], _turn_of(row))


def _record_of(body: str, source: str, *, context: bool, shared: _Shared) -> TrafficRecord:
    row = json.loads(body)
    completion = row["completion"]
    return TrafficRecord(
        request=Request(
            id=row["id"],
            fields={sys.intern(name): text for name, text in row["fields"].items()},
            at=row["at"],
            attributes=shared.attributes(row["attributes"]),
            session=row["session"],
        ),
        completion=None if completion is None else Completion(**completion),
        gold=row["gold"],
        gold_from=row.get("gold_from", "log"),
        source=sys.intern(source),
        context=tuple(map(shared.turn, row.get("context", ()))) if context else (),
        calls=tuple(ToolCall(**call) for call in row.get("calls", ())) if context else (),
        served=Served(**row["served"]) if "served" in row else None,
    )


def _turn_of(row: Mapping[str, Any]) -> Turn:
    return Turn(**{**row, "calls": tuple(ToolCall(**call) for call in row["calls"])})


def _microseconds(at: str) -> int:
    moment = datetime.fromisoformat(at)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _storable(text: str) -> str:
    """Lone surrogates can't be UTF-8; they are spelled out."""
    return text.encode("utf-8", "backslashreplace").decode()


def _storable_json(text: str) -> str:
    r"""As `_storable`; inside JSON the spelling \ud800 means the very character."""
    return text if text.isascii() else re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)


def _moment(version: LogVersion) -> str:
    return f"{version.epoch}/{version.last_seq}" + (f"/{version.feedback}" if version.feedback else "")
