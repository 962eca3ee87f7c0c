# ruff: noqa: SLF001 - it looks into the store as nobody else may
"""
What a kill -9 leaves at each call of a recording, and what is wrong with it.

A kill between two calls leaves exactly what the calls before it made, since the kernel keeps it: so one recording holds every kill
point. What a look has found sound is not read again while not one byte of it has changed.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.reliability.disk import Disk, _apply, _File, _Folder, _set

from overproof.errors import OverproofError
from overproof.store.backup import MANIFEST, restore
from overproof.store.bucket import bucket_of
from overproof.store.local import Db
from overproof.store.objects import Objects
from overproof.store.project_store import HOME, Store, open_store

Signature = Mapping[str, tuple[int, int]]
LOST, DOUBLED, TORN = "labels lost", "labels duplicated", "artifacts torn"
UNSOUND, BOOKS, STATE, AGAIN = "databases or chains unsound", "books below the bill", "neither old nor new", "run again: another end"
WRONG = (LOST, DOUBLED, TORN, UNSOUND, BOOKS, STATE, AGAIN)
PEOPLES = ("label", "review")
COUNTERS = ("role", "budget", "attempt", "sqlite_sequence", "erasing", "stage_count", "capture_count", "served_day", "drift_day", "meta", "delivery")
"""Tables whose rows change on the way from the old state to the new one."""
ENDS = {
    "record": "id, digest", "label": "key", "review": "digest, reviewer, label, kind", "api_key": "name, revoked IS NULL", "release": "task",
    "rollout": "stage, share", "alarm": "id, closed IS NULL", "watch_trigger": "id, state", "held_rollout": "cause, ended IS NULL", "expired": "id",
    "audit": "request_id, source", "drift_day": "release_id, slice, day, body", "erased": "mark",
}  # fmt: skip
"""What two runs of a verb have in common, whatever the clock said."""


class Kept(Disk):
    """The disk of a machine that goes on: what a call did is there."""

    def __init__(self, ops: Sequence[Any]) -> None:
        super().__init__(ops)
        self.versions: Counter[int] = Counter()

    def _name(self, folder: int, name: str, number: int | None) -> None:
        node = self._nodes[folder]
        assert isinstance(node, _Folder)
        _set(node.durable, name, number)

    def _put(self, number: int, offset: int, data: bytes | None) -> None:
        node = self._nodes[number]
        assert isinstance(node, _File)
        _apply(node.durable, offset, data)
        self.versions[number] += 1

    def signature(self) -> dict[str, tuple[int, int]]:
        """Path of each file to what changes with its bytes."""
        found: dict[str, tuple[int, int]] = {}

        def walk(number: int, way: str) -> None:
            node = self._nodes[number]
            if isinstance(node, _File):
                found[way] = (number, self.versions[number])
                return
            for name, inner in node.durable.items():
                walk(inner, f"{way}/{name}" if way else name)

        walk(0, "")
        return found

    def bytes_of(self, number: int) -> bytes:
        """A file as it is now."""
        node = self._nodes[number]
        assert isinstance(node, _File)
        return bytes(node.durable)

    def write(self, into: Path) -> None:
        """Everything, below a folder that is there."""
        for name, number in self._folder(0).durable.items():
            self._out(number, into / name)

    def _folder(self, number: int) -> _Folder:
        node = self._nodes[number]
        assert isinstance(node, _Folder)
        return node

    def _out(self, number: int, into: Path) -> None:
        node = self._nodes[number]
        if isinstance(node, _File):
            into.write_bytes(node.durable)
            return
        into.mkdir()
        for name, inner in node.durable.items():
            self._out(inner, into / name)


@dataclass
class Look:
    """What a place holds: tables by project and name, and what is wrong."""

    tables: dict[str, Counter[Any]] = field(default_factory=dict)
    faults: list[tuple[str, str]] = field(default_factory=list)


class Looker:
    """
    Looks at a place with one or more projects.

    Args:
        place: where the recorded process worked; what names it names the copy from here on.
    """

    def __init__(self, place: Path) -> None:
        self._place = place
        self._sound: dict[str, Any] = {}
        self._said: dict[str, tuple[Any, Look]] = {}
        self.money: Sequence[str] = ()

    def look(self, root: Path, now: Signature) -> Look:
        """Everything at one kill point; `now` says what has changed since the last."""
        whole = Look()
        for name in sorted({way.split("/", 1)[0] for way in now if f"/{HOME}/" in way and not unfinished(way.split("/", 1)[0])}):
            files = {way: at for way, at in now.items() if way.startswith(f"{name}/{HOME}/")}
            self._redirect(root / name)
            one = self._project(root / name, name, files)
            whole.tables |= one.tables
            whole.faults += one.faults
        for way in now:
            if way.endswith(f"/{MANIFEST}"):
                self._once(whole, way, {w: at for w, at in now.items() if w.startswith(way.removesuffix(MANIFEST))}, lambda way=way: self._restored(root / way))
            if way.startswith("shared/") and way.endswith(".tree"):
                digest = way.rsplit("/", 1)[1].removesuffix(".tree")
                self._once(whole, way, {w: at for w, at in now.items() if digest in w}, lambda digest=digest: self._fetched(root, digest))
        return whole

    def _redirect(self, project: Path) -> None:
        """An address in a file of the store leads into the copy, never back."""
        said = project / HOME / "store.toml"
        if said.exists():
            said.write_text(said.read_text().replace(str(self._place), str(project.parent)))

    def _once(self, whole: Look, what: str, state: Any, check: Any) -> None:
        if self._sound.get(what) == state:
            return
        try:
            check()
            self._sound[what] = state
        except (OverproofError, ValueError, KeyError, OSError) as error:
            whole.faults.append((TORN, f"{what}: {type(error).__name__}: {error}"))

    def _project(self, root: Path, name: str, files: Signature) -> Look:
        found = Look()
        try:
            with open_store(root) as store:
                for db, more in ((store._traffic_db, lambda *_: None), (store._project_db, self._books)):
                    what = f"{name}/{HOME}/{db.path.name}"
                    state = {way: at for way, at in files.items() if way.startswith(what)}, len(self.money)
                    if (before := self._said.get(what)) is None or before[0] != state:
                        said = Look(tables={f"{name}.{table}": rows for table, rows in tables_of(db).items()}, faults=[(UNSOUND, f"{what}: {one}") for one in db.check()])
                        more(store, said)
                        before = self._said[what] = (state, said)
                    found.tables |= before[1].tables
                    found.faults += before[1].faults
                self._artifacts(store, name, files, found)
                ignored = store.home / ".gitignore"
                if not ignored.exists() or ignored.read_text() != "*\n":
                    found.faults.append((TORN, f"{name}: .gitignore of the store"))
        except (OverproofError, ValueError, KeyError) as error:
            found.faults.append((UNSOUND, f"{name}: {type(error).__name__}: {error}"))
        return found

    def _books(self, store: Store, found: Look) -> None:
        if store.decisions.verify() != len(list(store.decisions.read())):
            found.faults.append((UNSOUND, "the chain of decisions is shorter than the log"))
        tried = store._project_db.rows("SELECT count(*) FROM attempt")[0][0]
        if tried < len(self.money):
            found.faults.append((BOOKS, f"{len(self.money)} requests went out, {tried} are in the books"))
        with store.role("run"):
            store.ledger.open_run("after", cap_usd=1e6)
            counts = store.ledger.counts()
        if counts.held_usd:
            found.faults.append((BOOKS, f"{counts.held_usd} USD are set aside for ever"))
        if counts.labels > counts.attempts.get("ok", 0):
            found.faults.append((DOUBLED, f"{counts.labels} labels of {counts.attempts.get('ok', 0)} paid answers"))

    def _artifacts(self, store: Store, name: str, files: Signature, found: Look) -> None:
        by_digest: dict[str, dict[str, Any]] = {}
        for way, at in files.items():
            if f"/{HOME}/objects/" in way:
                digest = way.split(f"/{HOME}/objects/")[1].split("/")[1].split(".")[0]
                by_digest.setdefault(digest, {})[way] = at
        for path in (store.home / "steps").rglob("*.json"):
            row = json.loads(path.read_bytes())
            value, *folders = [row["output"], *row["folders"]]
            self._once(found, f"{name} value {value}", by_digest.get(value), lambda value=value: store.objects.get_value(value))
            for one in folders:
                self._once(found, f"{name} folder {one}", by_digest.get(one), lambda one=one: store.objects.find(one))

    def _restored(self, manifest: Path) -> None:
        with tempfile.TemporaryDirectory(dir=manifest.parents[1]) as scratch:
            restore(manifest.parent, Path(scratch) / "back")

    def _fetched(self, root: Path, digest: str) -> None:
        with tempfile.TemporaryDirectory(dir=root) as scratch:
            found = Objects(Path(scratch) / HOME, bucket_of((root / "shared").as_uri())).find(digest)
            assert found


def tables_of(db: Db) -> dict[str, Counter[Any]]:
    """Each table's rows."""
    names = [name for (name,) in db.rows("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {name: Counter(db.rows(f"SELECT * FROM {name}")) for name in names}


def ended_at(root: Path) -> dict[str, Any]:
    """Where a verb ended, without times and without what is made of measured ones."""
    found: dict[str, Any] = {}
    for home in sorted(home for home in root.glob(f"*/{HOME}") if not unfinished(home.parent.name)):
        with open_store(home.parent) as store:
            tables = {table: db for db in (store._traffic_db, store._project_db) for (table,) in db.rows("SELECT name FROM sqlite_master WHERE type = 'table'")}
            for table, columns in ENDS.items():
                found[f"{home.parent.name}.{table}"] = Counter(tables[table].rows(f"SELECT {columns} FROM {table}"))
    found["files"] = {str(way.relative_to(root)): way.read_bytes() for way in root.rglob("*") if way.is_file() and _theirs(str(way.relative_to(root)))}
    return found


MEASURED = ("dossier", "out", "back", "backup", "shared", "keys")
"""Folders whose files hold measured times, the moment or a new secret."""


def _theirs(way: str) -> bool:
    return not unfinished(way) and not any(part in (HOME, *MEASURED) for part in way.split("/"))


def unfinished(way: str) -> bool:
    """Whether a name says that the file or folder is not done."""
    return any(".part" in part or part.endswith(".tmp") for part in way.split("/"))


def compare(now: Look, before: Look, after: Look) -> list[tuple[str, str]]:
    """Each table holds what the old and the new state share, and nothing that neither has."""
    wrong = []
    for name in sorted({*now.tables, *before.tables}):
        table = name.split(".", 1)[1]
        if table in COUNTERS:
            continue
        held, old, new = (one.tables.get(name, Counter()) for one in (now, before, after))
        if held in (old, new):
            continue
        if not (old & new) <= held:
            wrong.append((LOST if table in PEOPLES else STATE, f"{name}: rows are gone"))
        if not held <= (old | new):
            wrong.append((DOUBLED if table in PEOPLES else STATE, f"{name}: {sum((held - (old | new)).values())} rows that neither state has"))
    return wrong


def torn(disk: Kept, now: Signature, before: Signature, after: Signature, old: Mapping[str, bytes], new: Mapping[str, bytes], whole: Sequence[str]) -> list[tuple[str, str]]:
    """Files of people that hold neither the old nor the new text, and folders that come whole or not at all."""
    wrong = []
    for way, at in now.items():
        if f"/{HOME}/" in way or unfinished(way) or at in (before.get(way), after.get(way)):
            continue
        if disk.bytes_of(at[0]) not in (old.get(way), new.get(way)):
            wrong.append((TORN, f"{way}: neither the old file nor the new one"))
    for folder in whole:
        there, want = ({way for way in one if way.startswith(f"{folder}/") and not way.endswith(("-wal", "-shm", ".lock"))} for one in (now, after))
        if there and there != want:
            wrong.append((TORN, f"{folder}: {len(there)} of {len(want)} files"))
    return wrong


def copy_into(disk: Kept, root: Path) -> Path:
    """A fresh copy of what is there now."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    disk.write(root)
    return root
