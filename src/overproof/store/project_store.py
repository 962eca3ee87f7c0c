"""One project's store: everything under `PROJECT/.overproof` behind one handle."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from overproof.errors import StoreError
from overproof.store.adopted import Adoptions
from overproof.store.aging import Aging
from overproof.store.artifacts import Memo, StepEvent
from overproof.store.bucket import bucket_of
from overproof.store.canaries import CanaryRounds
from overproof.store.captured import CaptureLog
from overproof.store.decisions import Decisions
from overproof.store.glance import Glance
from overproof.store.graves import Graves
from overproof.store.keys import ApiKeys
from overproof.store.labels import LabelLedger
from overproof.store.local import Db
from overproof.store.logs import TrafficLog
from overproof.store.looks import Looks
from overproof.store.objects import Objects
from overproof.store.place import objects_of, open_db, remote_of, role_on
from overproof.store.releases import Releases
from overproof.store.reviews import ReviewLog
from overproof.store.rollout import Rollouts
from overproof.store.schema import PROJECT_SCHEMA, TRAFFIC_SCHEMA
from overproof.store.search import SearchIndex
from overproof.store.secret import agreed_secret, new_secret
from overproof.store.served import ServedDays
from overproof.store.signatures import Signatures
from overproof.store.sql import Row
from overproof.store.watch import Watching
from overproof.whole import sync_folder, write_whole

if TYPE_CHECKING:  # it needs NumPy, which opening a store does not
    from overproof.store.erasing import Erasing

HOME = ".overproof"


class Store:
    """
    Everything that a project keeps. Use as a context manager; databases open when they are first used.

    Args:
        root: the project's folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.home = self.root / HOME
        self.remote = remote_of(self.home)
        shared = objects_of(self.home)
        self.objects = Objects(self.home, bucket_of(shared) if shared else None, buried=self.buried)
        self.signatures = Signatures(self.root, self.home, lambda: self._project_db)
        self._secret = b""

    @cached_property
    def traffic(self) -> TrafficLog:
        """The traffic log."""
        return TrafficLog(self._traffic_db, Graves(self.secret))

    @cached_property
    def glance(self) -> Glance:
        """Short looks at the traffic log."""
        return Glance(self._traffic_db)

    @cached_property
    def search(self) -> SearchIndex:
        """Rows of the traffic log by words, ways and days."""
        return SearchIndex(self.home, self._traffic_db)

    @cached_property
    def captured(self) -> CaptureLog:
        """The gateway's end of the traffic log."""
        return CaptureLog(self.traffic, self._traffic_db, self.home)

    @cached_property
    def served(self) -> ServedDays:
        """What was served, day by day."""
        return ServedDays(self._traffic_db)

    @cached_property
    def ledger(self) -> LabelLedger:
        """The teacher's answers and what they cost."""
        return LabelLedger(self._project_db)

    @cached_property
    def adopted(self) -> Adoptions:
        """Answers that the teacher gave to callers, in the ledger."""
        return Adoptions(self._project_db)

    @cached_property
    def canaries(self) -> CanaryRounds:
        """Rounds of canary prompts."""
        return CanaryRounds(self._project_db)

    @cached_property
    def decisions(self) -> Decisions:
        """What people decided."""
        return Decisions(self._project_db)

    @cached_property
    def releases(self) -> Releases:
        """Which release serves, and the ledger of sealed rows."""
        return Releases(self._project_db, self.objects.find)

    @cached_property
    def rollouts(self) -> Rollouts:
        """Where each task's rollout stands, and the evidence for it."""
        return Rollouts(self._project_db)

    @cached_property
    def looks(self) -> Looks:
        """Planned looks at the sealed rows."""
        return Looks(self._project_db)

    @cached_property
    def erasing(self) -> Erasing:
        """What erases a subject from the databases."""
        from overproof.store.erasing import Erasing
        from overproof.store.traces import Tracer

        return Erasing(self._traffic_db, self._project_db, Tracer(self.secret()))

    @cached_property
    def aging(self) -> Aging:
        """What ends the time of old rows."""
        return Aging(self._traffic_db, self._project_db)

    def secret(self) -> bytes:
        """The project's own secret, made where missing; see `store.secret`."""
        self._secret = self._secret or agreed_secret(self.home, self._project_db)
        return self._secret

    def new_secret(self, *, by: str, why: str) -> str:
        """Begin with another secret; returns its fingerprint."""
        self._secret = b""
        return new_secret(self.home, self._project_db, by=by, why=why)

    @cached_property
    def reviews(self) -> ReviewLog:
        """What people said is the true label of a row."""
        return ReviewLog(self._project_db)

    @cached_property
    def keys(self) -> ApiKeys:
        """Keys with which callers of the gateway name themselves."""
        return ApiKeys(self._project_db, None if self.remote is None else self.home / "keys.seen")

    @cached_property
    def watching(self) -> Watching:
        """What is seen of a release while it serves."""
        return Watching(self._project_db)

    def memo(self, *, on_event: Callable[[StepEvent], None] | None = None, dry: bool = False) -> Memo:
        """
        A runner of steps over this store.

        Args:
            on_event: called at the start and the end of each step.
            dry: run and write nothing, only say what is stale and why.

        Returns: the runner.
        """
        return Memo(self.objects, on_event=on_event, dry=dry)

    def role(self, name: Literal["run", "serve", "watch", "web"]) -> AbstractContextManager[Any]:
        """
        The right to be the only process of this kind on the project, as a context manager. Who has it waits for a server that is away.

        Args:
            name: which kind.

        Returns: a context manager; entering it raises StoreError, with the holder's process id, where it's taken.
        """
        return role_on(self.home, name, lambda: self._project_db, self.remote, beside=lambda: self._traffic_db)

    def copy_database(self, name: str, target: Path) -> None:
        """Copy "traffic.db" or "project.db" as it is at one moment, while others write."""
        {"traffic.db": self._traffic_db, "project.db": self._project_db}[name].copy_to(target)

    def note_backup(self, target: str, at: str) -> None:
        """Keep where a backup was made and when: an erasure doesn't reach it, and says so."""
        with self._project_db.write() as connection:
            connection.execute("INSERT INTO backup VALUES(?, ?) ON CONFLICT(target) DO UPDATE SET at=excluded.at", (target, at))

    def close(self) -> None:
        """Close databases and remove scratch files."""
        if "search" in self.__dict__:
            self.__dict__.pop("search").close()
        for name in ("_traffic_db", "_project_db"):
            if name in self.__dict__:
                self.__dict__.pop(name).close()
        for name in ("traffic", "captured", "served", "glance", "ledger", "adopted", "canaries", "decisions", "releases", "rollouts", "looks", "reviews", "keys", "watching", "erasing", "aging"):
            self.__dict__.pop(name, None)
        self.objects.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def buried(self, behind: int) -> list[Row]:
        """Number and digest of what was erased on any machine, behind a number; an empty digest stands for rows."""
        return self._project_db.rows("SELECT seq, digest FROM buried WHERE seq > ? ORDER BY seq", (behind,))

    @cached_property
    def _traffic_db(self) -> Db:
        return open_db(self.home, "traffic", TRAFFIC_SCHEMA, self.remote)

    @cached_property
    def _project_db(self) -> Db:
        return open_db(self.home, "project", PROJECT_SCHEMA, self.remote)


def open_store(root: Path) -> Store:
    """
    Open a project's store; made where missing, and cleared of what killed runs left unfinished.

    Args:
        root: the project's folder, which must exist.

    Returns: the store.
    Raises: StoreError where the folder is missing or can't be written.
    """
    if not root.is_dir():
        raise StoreError(f"{str(root)!r} is not a folder", next_action="run `overproof init` there first")
    store = Store(root)
    try:
        store.home.mkdir(exist_ok=True)
        sync_folder(root)  # each time: a process that made it may have died before this
        ignore = store.home / ".gitignore"
        if not ignore.exists():  # a log of production traffic doesn't belong in a repository
            write_whole(ignore, "*\n")
        store.objects.sweep()
    except OSError as error:
        raise StoreError(
            f"{str(store.home)!r} can't be written: {error.strerror}",
            next_action="make the project's folder writable, or work on a copy of it",
        ) from error
    return store
