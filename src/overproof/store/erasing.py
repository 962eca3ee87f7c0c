"""What the two databases hold of a subject, and its going: every change a transaction, every count kept until the proof is written."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from overproof.data import digest_of
from overproof.store.adopted import WHY as ADOPTED
from overproof.store.decisions import Decision, decide_on
from overproof.store.local import Db
from overproof.store.reviews import JUDGED, LIVE
from overproof.store.sql import Connection, Row
from overproof.store.traces import Finder, Trace, Tracer

ERASED = "[erased]"
KIND = "erasure"
"""Of the decision that proves it."""
_BATCH = 500
_NAMED = 6
"""Characters from which a name is looked for in rows that could not be read."""
_LONG = 24
"""Characters from which an answer is looked for as a text of its own; labels are shorter."""
_BODIES = (("alarm", "id"), ("watch_trigger", "id"), ("notice", "id"), ("watch_pass", "task"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """Whose rows."""

    values: frozenset[str] = frozenset()
    """What the rows say of the subject; more than one spelling where redaction replaces it."""
    column: str = ""
    """The attribute that says so, or "session"; empty for any of them."""
    ids: frozenset[str] = frozenset()
    """Of requests."""
    mentions: bool = False
    """Rows whose texts name the subject as well."""

    @property
    def said(self) -> str:
        """A canonical text, for its keyed hash."""
        return digest_of([sorted(self.values), self.column, sorted(self.ids), self.mentions])

    def owns(self, row: Mapping[str, Any]) -> bool:
        """Whether a row of the traffic log is the subject's."""
        if row["id"] in self.ids:
            return True
        named = {**row["attributes"], "session": row["session"]}
        if self.values & ({named.get(self.column)} if self.column else set(named.values())):
            return True
        return self.mentions and any(value in text for text in texts_of(row) for value in self.values)


@dataclass(frozen=True, kw_only=True, slots=True)
class Grip:
    """What is known of a subject's rows while they are still there."""

    mark: str
    """Keyed hash of the subject."""
    ids: frozenset[str]
    rows: tuple[Mapping[str, Any], ...]
    """Bodies of the rows."""
    digests: frozenset[str]
    """Of the rows' fields, where no other row has the same."""
    traces: Mapping[str, frozenset[Trace]]
    """Piece to its spellings, without pieces that rows of others hold as well."""
    shared: int
    """Pieces that rows of others hold as well: not theirs alone, and not looked for."""
    short: int
    """Texts too short to be looked for; they go with their rows."""
    skipped: tuple[int, ...]
    """Numbers of rows that could not be read, and are the subject's."""
    stones: frozenset[str]
    """Keyed hashes by which a later import knows the rows."""


class Erasing:
    """
    The databases' end of an erasure.

    Args:
        traffic: the open `traffic.db`.
        project: the open `project.db`.
        tracer: of the project.
    """

    def __init__(self, traffic: Db, project: Db, tracer: Tracer) -> None:
        self._traffic, self._project, self.tracer = traffic, project, tracer

    def grip(self, subject: Subject, *, known: Collection[str] = ()) -> Grip:
        """
        Everything that a subject's rows hold, and what of it nobody else's do.

        Args:
            subject: whose rows.
            known: texts that are nobody's: the task's labels.

        Returns: what the other methods need.
        """
        own = [row for row, _ in self._bodies() if subject.owns(row)]
        ids = frozenset(row["id"] for row in own)
        texts = {text for row in own for text in texts_of(row)} | {text for row in own for text in _answers_of(row)} | subject.values
        texts -= set(known)
        groups = {self.tracer.of_bytes(piece_mark(group)): group for text in texts for group in self.tracer.pieces(text)}
        shared = self._said_elsewhere(groups, lambda row: row["id"] not in ids)
        for piece in shared:
            del groups[piece]
        for one in ids:
            if group := self.tracer.identity(one):
                groups[self.tracer.of_bytes(piece_mark(group))] = group
        digests = {digest_of(dict(row["fields"])) for row in own}
        digests -= {digest for row, _ in self._bodies() if row["id"] not in ids and (digest := digest_of(dict(row["fields"]))) in digests}
        finder = Finder(self.tracer, (one for group in groups.values() for one in group))
        skipped = self._skipped(finder, subject)
        raws = {raw for _, raw in skipped}
        return Grip(
            mark=self.tracer.mark("subject", subject.said), ids=ids, rows=tuple(own), digests=frozenset(digests), traces=groups,
            shared=len(shared), skipped=tuple(seq for seq, _ in skipped), short=sum(not self.tracer.pieces(text) for text in texts),
            stones=frozenset(self.tracer.mark(kind, one) for kind, some in (("id", ids), ("row", digests), ("raw", raws)) for one in some),
        )  # fmt: skip

    def pending(self, mark: str) -> dict[str, int]:
        """Place to rows of an erasure that was begun and has no proof yet."""
        return dict(self._project.rows("SELECT place, n FROM erasing WHERE subject=? ORDER BY place", (mark,)))

    def note(self, mark: str, places: Mapping[str, int]) -> None:
        """Keep counts that would be lost with a kill; what is noted stays as it was noted first."""
        with self._project.write() as connection:
            for place, n in places.items():
                connection.execute("INSERT INTO erasing VALUES(?, ?, ?) ON CONFLICT DO NOTHING", (mark, place, n))

    def bury(self, mark: str, places: Mapping[str, int], digests: Iterable[str]) -> None:
        """Note counts, and make known to every machine on this store which artifacts are gone; one transaction, before any of them goes."""
        with self._project.write() as connection:
            for place, n in places.items():
                connection.execute("INSERT INTO erasing VALUES(?, ?, ?) ON CONFLICT DO NOTHING", (mark, place, n))
            for digest in ("", *sorted(digests)):  # the empty one says that there was an erasure
                connection.execute("INSERT INTO buried(digest) VALUES(?)", (digest,))

    def backups(self) -> list[tuple[str, str]]:
        """Folder and time of every backup that was made of this project."""
        return [(target, at) for target, at in self._project.rows("SELECT target, at FROM backup ORDER BY at, target")]

    def set_stones(self, grip: Grip) -> None:
        """Make the rows known for good, by keyed hashes alone; durable on return."""
        with self._traffic.write() as connection:
            for stone in grip.stones:
                connection.execute("INSERT INTO erased VALUES(?) ON CONFLICT DO NOTHING", (stone,))
            rows = [(grip.mark, piece, one.mark, one.size, one.prefix) for piece, group in grip.traces.items() for one in group]
            for row in rows:
                connection.execute("INSERT INTO trace VALUES(?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", row)

    def traces(self, mark: str | None = None) -> dict[str, set[Trace]]:
        """Piece to spellings of what was erased: of one subject, or of all."""
        query = "SELECT piece, mark, size, prefix FROM trace WHERE ?1 IS NULL OR subject=?1 ORDER BY piece, mark"
        found: dict[str, set[Trace]] = {}
        for piece, one, size, prefix in self._traffic.rows(query, (mark,)):
            found.setdefault(piece, set()).add(Trace(mark=one, size=size, prefix=prefix))
        return found

    def said_again(self, groups: Mapping[str, Collection[Trace]]) -> set[str]:
        """Pieces that rows of the log hold now."""
        return self._said_elsewhere(groups, lambda _: True)

    def opened(self, hashes: Iterable[str]) -> int:
        """How many rows the ledger of sealed rows knows, by the hashes of their ids; they stay there, so that it goes on counting."""
        return sum(bool(self._project.rows("SELECT 1 FROM sealed_row WHERE row=? LIMIT 1", (one,))) for one in hashes)

    def sweep_project(self, grip: Grip, *, keys: Iterable[str]) -> None:
        """
        Take everything out of `project.db` that is about the rows, in one transaction, and count it.

        Args:
            grip: the rows.
            keys: the ledger's keys of their labels.
        """
        finder = Finder(self.tracer, (one for group in grip.traces.values() for one in group))
        counts: Counter[str] = Counter()
        with self._project.write() as connection:
            self._labels(connection, grip, set(keys), finder, counts)
            self._reviews(connection, grip, finder, counts)
            self._audits(connection, grip, finder, counts)
            for table, key in _BODIES:
                rows: list[Row] = connection.execute(f"SELECT {key}, body FROM {table}").fetchall()  # noqa: S608 - constants
                for name, body in rows:
                    if (clean := finder.cleaned(body, grip.ids, ERASED)) != body:
                        connection.execute(f"UPDATE {table} SET body=? WHERE {key}=?", (clean, name))  # noqa: S608 - constants
                        counts[table] += 1
            for pin, prompts, number, body in _all(connection, "SELECT pin, prompts, round, body FROM teacher_round"):
                if (clean := finder.cleaned(body, grip.ids, ERASED)) != body:
                    connection.execute("UPDATE teacher_round SET body=? WHERE pin=? AND prompts=? AND round=?", (clean, pin, prompts, number))
                    counts["teacher_round"] += 1
            for release, piece, day, raw in _all(connection, "SELECT release_id, slice, day, body FROM drift_day"):
                if (packed := _drift(bytes(raw), grip.ids, finder)) is not None:
                    connection.execute("UPDATE drift_day SET body=? WHERE release_id=? AND slice=? AND day=?", (packed, release, piece, day))
                    counts["drift_day"] += 1
            _add(connection, grip.mark, counts)

    def sweep_traffic(self, grip: Grip) -> None:
        """Take the rows out of `traffic.db`, in one transaction; their counts must have been noted before."""
        with self._traffic.write() as connection:
            for identity in grip.ids:
                for table in ("record", "conflict", "expired"):
                    connection.execute(f"DELETE FROM {table} WHERE id=?", (identity,))  # noqa: S608 - constants
                gone = (ERASED, f"erased {self.tracer.mark('id', identity)[:32]}", identity)
                connection.execute("UPDATE feedback SET value=?, request_id=?, key='' WHERE request_id=?", gone)
            for seq in grip.skipped:
                connection.execute("DELETE FROM skipped WHERE seq=?", (seq,))
            connection.execute("UPDATE meta SET value=CAST(CAST(value AS INTEGER)+1 AS TEXT) WHERE name='epoch'")
            connection.execute("DELETE FROM meta WHERE name='snapshot'")

    def traffic_counts(self, grip: Grip) -> dict[str, int]:
        """Table of `traffic.db` to rows that are about to go."""
        counts = {"skipped": len(grip.skipped)}
        for table, column in (("record", "id"), ("conflict", "id"), ("expired", "id"), ("feedback", "request_id")):
            query = f"SELECT count(*) FROM {table} WHERE {column}=?"  # noqa: S608 - constants
            counts[table] = sum(self._traffic.rows(query, (one,))[0][0] for one in grip.ids)
        return counts

    def forget(self) -> None:
        """Leave nothing of what was deleted in either file or its log."""
        self._traffic.forget()
        self._project.forget()

    def prove(self, mark: str, *, actor: str, body: Mapping[str, Any]) -> Decision:
        """The proof's entry in the decisions log, with the end of what was pending; one transaction."""
        with self._project.write() as connection:
            decision = decide_on(connection, KIND, actor=actor, subject=mark, body=body)
            connection.execute("DELETE FROM erasing WHERE subject=?", (mark,))
        return decision

    def _bodies(self) -> Iterator[tuple[dict[str, Any], str]]:
        for table in ("record", "conflict", "expired"):
            for (body,) in self._traffic.stream(f"SELECT body FROM {table}"):  # noqa: S608 - constants
                yield json.loads(body), body

    def _said_elsewhere(self, groups: Mapping[str, Collection[Trace]], other: Callable[[Mapping[str, Any]], bool]) -> set[str]:
        finder = Finder(self.tracer, (one for group in groups.values() for one in group))
        pieces: dict[str, set[str]] = {}
        for piece, group in groups.items():
            for one in group:
                pieces.setdefault(one.mark, set()).add(piece)
        found: set[str] = set()
        batch: list[str] = []
        for row, body in self._bodies():
            if other(row):
                batch.append(body)
            if len(batch) == _BATCH:
                found.update(finder.find_text("\n".join(batch)))
                batch.clear()
        found.update(finder.find_text("\n".join(batch)))
        return {piece for mark in found for piece in pieces[mark]}

    def _skipped(self, finder: Finder, subject: Subject) -> list[tuple[int, str]]:
        """Rows that could not be read, and hold a trace or name the subject: number and raw text."""
        named = [one for one in {*subject.values, *subject.ids} if len(one) >= _NAMED]
        found = []
        for seq, *texts in self._traffic.stream("SELECT seq, place, reason, raw FROM skipped"):
            if any(finder.find_text(text) for text in texts) or any(one in text for one in named for text in texts):
                found.append((seq, texts[-1]))
        return found

    def _labels(self, connection: Connection, grip: Grip, keys: set[str], finder: Finder, counts: Counter[str]) -> None:
        adopted: list[Row] = connection.execute("SELECT key, provider_request_id FROM attempt WHERE reason=?", (ADOPTED,)).fetchall()
        keys |= {key for key, request in adopted if request in grip.ids}
        keys |= {key for key, said in _all(connection, "SELECT key, completion FROM label") if finder.find_text(said)}
        rejected = [key for key, said in _all(connection, "SELECT key, answer FROM attempt WHERE answer IS NOT NULL") if finder.find_text(said)]
        for key in keys:
            connection.execute("DELETE FROM label WHERE key=?", (key,))
            counts["label"] += connection.changes()
        for key in keys.union(rejected):
            sql = "UPDATE attempt SET key=?, answer=NULL, provider_request_id=NULL WHERE key=? AND state <> 'reserved'"
            connection.execute(sql, (f"erased {self.tracer.mark('key', key)[:32]}", key))
            counts["attempt"] += connection.changes()

    def _reviews(self, connection: Connection, grip: Grip, finder: Finder, counts: Counter[str]) -> None:
        for seq, digest, identity, label in _all(connection, "SELECT seq, digest, request_id, label FROM review"):
            content = digest.removeprefix(JUDGED).removeprefix(LIVE)
            if identity in grip.ids or content in grip.digests or finder.find_text(label):
                sql = "UPDATE review SET digest=?, request_id='erased', label='', kind='withdrawn' WHERE seq=?"
                connection.execute(sql, (f"erased {self.tracer.mark('row', digest)[:32]}", seq))
                counts["review"] += 1

    def _audits(self, connection: Connection, grip: Grip, finder: Finder, counts: Counter[str]) -> None:
        rows = _all(connection, "SELECT release_id, request_id, source, said, truth, state, reason FROM audit")
        for release, identity, source, *texts in rows:
            said, truth, state, reason = texts
            if identity not in grip.ids and not any(finder.find_text(text) for text in (said, truth or "", reason)):
                continue
            new = f"erased {self.tracer.mark('id', identity)[:32]}" if identity in grip.ids else identity
            said, truth = (ERASED if text and len(text) >= _LONG else text for text in (said, truth))
            late = state == "due"
            connection.execute(
                "UPDATE audit SET request_id=?, said=?, truth=?, state=?, reason=? WHERE release_id=? AND request_id=? AND source=?",
                (new, said, truth, "barred" if late else state, "the request was erased", release, identity, source),
            )
            counts["audit"] += 1


def piece_mark(group: Iterable[Trace]) -> bytes:
    """What names a piece: its spellings."""
    return "".join(sorted(one.mark for one in group)).encode()


def texts_of(row: Mapping[str, Any]) -> Iterator[str]:
    """What a row of the traffic log holds of somebody's own words."""
    yield from row["fields"].values()
    for turn in row.get("context", ()):
        yield turn["text"]
        yield from (call["arguments"] for call in turn["calls"])
    yield from (call["arguments"] for call in row.get("calls", ()))


def _answers_of(row: Mapping[str, Any]) -> Iterator[str]:
    """Answers that are texts; a label is nobody's."""
    completion = row["completion"] or {}
    for text in (completion.get("text"), completion.get("value"), row["gold"], row.get("served", {}).get("guess")):
        if text and len(text) >= _LONG:
            yield text


def _drift(raw: bytes, ids: frozenset[str], finder: Finder) -> bytes | None:
    """The sketch of a day without the rows' ids, and without words that they alone said; None where nothing changes."""
    body = json.loads(zlib.decompress(raw).decode("utf-8", "surrogatepass"))
    if not isinstance(body, dict):
        return None
    gone = {word for word, by in (body.get("word_ids") or {}).items() if by and ids.issuperset(by)}
    gone |= {word for word in body.get("words") or {} if finder.find_text(word)}
    for name in ("words", "word_ids", "shown"):
        if isinstance(body.get(name), dict):
            body[name] = {word: value for word, value in body[name].items() if word not in gone}
    clean = finder.cleaned(before := json.dumps(body, ensure_ascii=False, separators=(",", ":")), ids, ERASED)
    if not gone and clean == before:
        return None
    return zlib.compress(clean.encode("utf-8", "surrogatepass"))


def _all(connection: Connection, query: str) -> list[Row]:
    found: list[Row] = connection.execute(query).fetchall()
    return found


def _add(connection: Connection, mark: str, counts: Mapping[str, int]) -> None:
    for place, n in counts.items():
        sql = "INSERT INTO erasing VALUES(?, ?, ?) ON CONFLICT(subject, place) DO UPDATE SET n=erasing.n+excluded.n"
        connection.execute(sql, (mark, place, n))

