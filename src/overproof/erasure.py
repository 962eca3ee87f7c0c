"""Erasing a subject from a whole project, and the proof of it: databases, artifacts, files, then every byte is read."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from overproof.data import Request, digest_of
from overproof.errors import OverproofError, StoreError
from overproof.progress import track
from overproof.project import Project
from overproof.runs import runs_of
from overproof.steps.survey import row_hash
from overproof.store.bucket import BucketAway
from overproof.store.erasing import KIND, Grip, Subject
from overproof.store.labels import label_key
from overproof.store.project_store import Store
from overproof.store.shared import Shared
from overproof.store.traces import Finder, files_under

SAMPLES = 32
"""Samples of one request that the ledger is asked for."""
_ARTIFACT, _SHARED, _TRAINED = "artifact:", "shared:", "trained:"
_KINDS = {_ARTIFACT: "artifact", _SHARED: "shared artifact"}
_SEALED = "sealed rows"
_OPEN = (".db", ".db-wal", ".db-shm")


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """What reading every byte came to."""

    files: int
    """Files that were read."""
    pieces: int
    """Pieces of erased texts that were looked for."""
    hits: Mapping[str, int]
    """File, relative to the project, or "shared " and the key of a shared object, to places in it; empty is what it should be."""
    said_again: int
    """Pieces that were not looked for, since rows of the log say them now."""

    @property
    def clean(self) -> bool:
        """True iff nothing was found."""
        return not self.hits


@dataclass(frozen=True, kw_only=True, slots=True)
class Erasure:
    """A finished erasure, as its proof says it."""

    subject: str
    """Keyed hash."""
    counts: Mapping[str, int]
    """Place to what went, or was blanked, there."""
    releases: Mapping[str, int]
    """Release to erased rows that it was trained on; its weights still are what they made them."""
    shared: int
    """Pieces of texts that others' rows hold as well; they were not looked for."""
    short: int
    """Texts too short to be looked for."""
    checked: Checked
    backups: Mapping[str, str]
    """Folder to time of the backups that `overproof backup` made of the project: an erasure reaches none of them."""
    decision: int
    """Number of the proof in the decisions log; 0 where there was nothing to erase."""


def spelled(store: Store, project: Project, subject: Subject) -> Subject:
    """
    A subject as the log may say it: redaction stands before the log.

    Args:
        store: holds the project's secret.
        project: says what is redacted.
        subject: as a person says it.

    Returns: the subject, with what redaction makes of its values and ids.
    """
    from overproof.privacy.redact import redactor_of

    redactor = redactor_of(project.privacy, key=store.secret)
    values = {*subject.values, *map(redactor.text, subject.values)}
    if project.privacy.sessions == "hash" and subject.column in ("", "session"):
        values |= {redactor.surrogate("session", one) for one in subject.values}
    return replace(subject, values=frozenset(values), ids=subject.ids | {redactor.text(one) for one in subject.ids})


def erase(store: Store, project: Project, subject: Subject, *, by: str, why: str) -> Erasure:
    """
    Erase a subject's rows and all that was made of them; after a kill, the same call finishes the work.

    The rows themselves go last, so that whatever else there is can be found again by them.

    Args:
        store: the project's store.
        project: the checked project file.
        subject: whose rows, from `spelled`.
        by: who asks.
        why: in a few words.

    Returns: the counts, and what a reading of every byte came to.
    Raises: StoreError where a run or a watch is at work, a database stays in use, or what is shared can't be reached.
    """
    with store.role("watch"), store.role("run"):
        erasing, shared = store.erasing, Shared(store.objects)
        shared.bring_records()  # before anything goes: what can't be reached now is looked at by the next call, with the rows still there
        grip = erasing.grip(subject, known=project.task.output.labels)
        begun = erasing.pending(grip.mark)
        if not grip.ids and not grip.skipped and not begun:
            return Erasure(subject=grip.mark, counts={}, releases={}, shared=0, short=0, checked=check(store, project.root, grip.mark), backups={}, decision=0)
        erasing.set_stones(grip)
        if grip.ids:
            erasing.note(grip.mark, {_TRAINED + name: n for name, n in _trained(store, grip.ids).items()})
        finder = Finder(erasing.tracer, (one for group in erasing.traces(grip.mark).values() for one in group))
        found = _artifacts(store, finder)
        there, halves = _shared_with(shared, finder, found)
        noted = {place.removeprefix(_SHARED) for place in begun if place.startswith(_SHARED)}  # by a call that was cut off
        there, halves = there | {one for one in noted if "/" not in one}, halves | {one for one in noted if "/" in one}
        erasing.bury(grip.mark, {_ARTIFACT + name: 1 for name in found} | {_SHARED + name: 1 for name in there | halves}, found | there)
        keys = _keys(store, project, grip)
        erasing.note(grip.mark, {_SEALED: erasing.opened(row_hash(one) for one in grip.ids)})
        erasing.sweep_project(grip, keys=keys)
        shared.remove(there, halves)
        _drop(store)
        _drop_files(store.home, finder)
        erasing.note(grip.mark, erasing.traffic_counts(grip))
        erasing.sweep_traffic(grip)
        erasing.forget()
        return _prove(store, project, grip, by=by, why=why)


def check(store: Store, root: Path, mark: str | None = None) -> Checked:
    """
    Read every byte under a project for what was erased.

    Args:
        store: the project's store.
        root: the project's folder.
        mark: keyed hash of one subject; all of them where None.

    Returns: where something was found.
    """
    erasing = store.erasing
    groups = erasing.traces(mark)
    again = erasing.said_again(groups)
    wanted = {piece: group for piece, group in groups.items() if piece not in again}
    finder = Finder(erasing.tracer, (one for group in wanted.values() for one in group))
    hits: dict[str, int] = {}
    files = list(files_under(root))
    for path in track(files, "reading every byte", total=len(files)):
        if found := finder.find_file(path):
            hits[path.relative_to(root).as_posix()] = sum(found.values())
    shared = Shared(store.objects)
    others = [key for key in shared.keys() if not shared.is_here(key)]  # noqa: SIM118 - no mapping
    for key in track(others, "reading what is shared", total=len(others)):
        if found := finder.find_blocks(shared.blocks(key)):
            hits[f"shared {key}"] = sum(found.values())
    return Checked(files=len(files) + len(others), pieces=len(wanted), hits=hits, said_again=len(again))


def erasures(store: Store) -> list[Mapping[str, Any]]:
    """The proofs so far, oldest first: number, time, who, and what the entry says."""
    return [{"seq": d.seq, "at": d.at, "by": d.actor, "subject": d.subject, **d.body} for d in store.decisions.read() if d.kind == KIND]


def _prove(store: Store, project: Project, grip: Grip, *, by: str, why: str) -> Erasure:
    erasing = store.erasing
    checked = check(store, project.root, grip.mark)
    noted = erasing.pending(grip.mark)
    releases = {place.removeprefix(_TRAINED): n for place, n in noted.items() if place.startswith(_TRAINED)}
    counts: Counter[str] = Counter()
    for place, n in noted.items():
        if not place.startswith(_TRAINED) and n:
            counts[_KINDS.get(place[: place.find(":") + 1], place)] += n
    outside = [name for name in checked.hits if not name.startswith((f"{store.home.name}/", "shared "))]
    backups = dict(erasing.backups())
    body = {
        "why": why, "counts": dict(counts), "releases": releases, "shared_pieces": grip.shared, "short_texts": grip.short,
        "files_read": checked.files, "pieces": checked.pieces, "hits": len(checked.hits), "hits_outside_the_store": len(outside),
        "backups_not_reached": backups, "traces": digest_of(sorted(erasing.traces(grip.mark))),
    }  # fmt: skip
    for release, n in releases.items():
        said = {"release": release, "rows": n, "what": f"release {release} was trained on {n:,} rows that are erased now; only a new training forgets them"}
        store.watching.note(
            digest_of([KIND, grip.mark, release])[:32], project.task.name, kind=KIND, body=said, channels=(), at=datetime.now(UTC).timestamp()
        )
    proof = erasing.prove(grip.mark, actor=by, body=body)
    return Erasure(
        subject=grip.mark, counts=dict(counts), releases=releases, shared=grip.shared, short=grip.short, checked=checked, backups=backups,
        decision=proof.seq,
    )


@contextlib.contextmanager
def _gone() -> Iterator[None]:
    """What can't be loaded any more is passed over; what can't be reached now is not."""
    try:
        yield
    except BucketAway:
        raise
    except OverproofError:
        return


def _trained(store: Store, ids: frozenset[str]) -> dict[str, int]:
    """Release to rows with these ids among those that it learned from; read from its run before that goes."""
    found: dict[str, int] = {}
    memo = store.memo(dry=True)
    for run in runs_of(store):
        if run.outcome != "release" or "labels" not in run.digests:
            continue
        with _gone():  # an earlier erasure has taken it away, and has said so
            release = memo.stored("verdict", run.digests["verdict"]).value.id
            rows = memo.stored("labels", run.digests["labels"]).value.train.examples
            if n := sum(one.request.id in ids for one in rows):
                found[release] = n
    return found


def _keys(store: Store, project: Project, grip: Grip) -> set[str]:
    """The ledger's keys of the rows, under every teacher that was ever cleared here."""
    memo, pins = store.memo(dry=True), {}
    for row in store.objects.records("clear").values():
        with _gone():
            pin = memo.stored("clear", row["output"]).value.pin
            pins[repr(pin)] = pin
    form = digest_of(project.task.output.json_schema())
    contents = set()
    for row in grip.rows:
        fields = row["fields"]
        for chosen in (fields, {name: fields[name] for name in project.task.input if name in fields}):
            if digest_of(dict(chosen)) in grip.digests or chosen is not fields:
                contents.add(tuple(chosen.items()))
    requests = [Request(id="", fields=dict(pairs)) for pairs in contents]
    return {label_key(pin, form, request, sample) for pin in pins.values() for request in requests for sample in range(SAMPLES)}


def _artifacts(store: Store, finder: Finder) -> set[str]:
    """Digests of the values and folders that hold a trace."""
    root = store.home / "objects"
    files = [path for path in files_under(root) if path.suffix != ".tree"] if root.exists() else []
    return {path.relative_to(root).parts[1].partition(".")[0] for path in track(files, "reading artifacts", total=len(files)) if finder.find_file(path)}


def _shared_with(shared: Shared, finder: Finder, found: set[str]) -> tuple[set[str], set[str]]:
    """Of what lies in the bucket: digests of artifacts that are known to go or hold a trace, and keys of half-written objects that do."""
    digests, halves = set[str](), set[str]()
    for key in track(shared.keys(), "reading what is shared"):
        digest = key.split("/")[2].partition(".")[0]
        if digest not in found and (shared.is_here(key) or not finder.find_blocks(shared.blocks(key))):
            continue
        (digests if digest else halves).add(digest or key)
    return digests, halves


def _drop(store: Store) -> None:
    """Remove the artifacts here, as every machine on this store does when it hears of it."""
    store.objects.learn()


def _drop_files(home: Path, finder: Finder) -> None:
    """Copies that are made again or are of no more use: search indexes, copies from before a migration, checkpoints with a trace."""
    for path in files_under(home):
        parts = path.relative_to(home).parts
        if parts[0] in ("objects", "steps"):
            continue
        passing = path.name.endswith(".bak") or path.name.startswith("search")
        if passing or (not path.name.endswith(_OPEN) and finder.find_file(path)):
            path.unlink(missing_ok=True)


def nobody(subject: Subject) -> None:
    """Raise StoreError for a subject that names nobody, or everybody."""
    if not subject.values and not subject.ids:
        raise StoreError("no subject was named", next_action="give --subject VALUE or --ids FILE")
    if any(not one.strip() for one in {*subject.values, *subject.ids}):
        raise StoreError("an empty subject would be everybody without one", next_action="give --subject VALUE or --ids FILE")
