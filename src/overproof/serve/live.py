"""Which release answers a task right now: follows the store, and swaps one pointer once the next release has proven itself."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from overproof.data import Stage
from overproof.errors import OverproofError, StoreError
from overproof.serve.breaker import Breaker
from overproof.serve.pool import Pool
from overproof.serve.shadow import Shadow
from overproof.store.releases import SERVING, Releases
from overproof.store.rollout import took_place_of
from overproof.store.signatures import Sealing
from overproof.students.bundle import MANIFEST, load_bundle, verify_files
from overproof.students.card import RELEASE, Card, read_card
from overproof.students.weights import sha256_of

POLL_S = 0.5
AGAIN_S = 30.0  # a release that was refused is tried again so often: a disk may be mended
LINGER_S = 2.0  # between the swap and the end of the old pool: whoever holds it still gets an answer
EVENTS = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class Position:
    """Where the rollout of a task stands, as the store has it."""

    release: str | None
    """None: teacher only."""
    stage: Stage
    share: float = 1.0
    """Share of the traffic that the student may answer, in [0, 1]."""
    suspended: frozenset[str] = frozenset()
    """Slices that the teacher answers whatever the student says."""
    epoch: int = 0
    """Of the rollout's state, see `RolloutState`; counts of requests go under it."""
    why: str = field(default="", compare=False)
    """Of the last move; shown, and nothing else."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Current:
    """What the gateway needs of a task for one request; never changes, a new one takes its place."""

    position: Position
    """Of the release that is loaded; with release None and the stage "teacher-only" where none is."""
    pool: Pool | None = None
    """Asks the student in canary and full; None in shadow, so that a release that has not proven itself can't end this process."""
    shadow: Shadow | None = None
    """Asks it in shadow and canary."""
    card: Card | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something that happened to a task's release."""

    at: str
    """ISO 8601 in UTC."""
    what: str
    """"serving", "refused", "withdrawn", "store"."""
    release: str
    """Empty where it is about none."""
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Loading:
    """How releases are loaded."""

    workers: int = 2
    """Threads of a pool."""
    shadow_mb: int = 1024
    """Memory of a shadow process."""
    breaker: Callable[[], Breaker] | None = None
    """Makes the breaker of a pool."""
    linger_s: float = LINGER_S
    """See `LINGER_S`."""


TEACHER_ONLY = Current(position=Position(release=None, stage="teacher-only", share=0.0))


class Live:
    """
    One task's current release.

    Args:
        task: its name; a release for another one is refused.
        releases: the project's.
        position: where the rollout stands; by default the newest release whose last stage is shadow, canary or full.
        loading: how to load.
        poll_s: how often the store is looked at.
        seal: refuses a bundle that nobody signed, where signatures are asked for; see `Signatures.check`.
        stale_s: so old may the store's last word be; then the teacher answers everything until there is another.
    """

    def __init__(
        self, task: str, releases: Releases, *, position: Callable[[], Position] | None = None, loading: Loading | None = None, poll_s: float = POLL_S,
        seal: Callable[[str, Path], Sealing] | None = None, stale_s: float = math.inf,
    ) -> None:
        self._current, self._stale_s = TEACHER_ONLY, stale_s
        self.events: deque[Event] = deque(maxlen=EVENTS)
        self.polled_at: float | None = None
        """`time.monotonic` of the last look at the store that succeeded, when it began."""
        self.refused = ""
        """Why the release that should serve does not; empty where it does."""
        self.seal = ""
        """Who signed the release that is loaded, or that nobody asks."""
        self._sealed = seal
        self._task, self._releases, self._position = task, releases, position or self._newest
        self._loading, self._poll_s = loading or Loading(), poll_s
        self._tried: tuple[str, float] | None = None
        self._stop, self._looked = threading.Event(), threading.Event()
        self._retiring: list[threading.Thread] = []
        self._thread: threading.Thread | None = None

    @property
    def current(self) -> Current:
        """Read it once for each request. Nobody knows what was taken back since the store's last word, so it holds for a while only."""
        return TEACHER_ONLY if self.stale else self._current

    @property
    def stale(self) -> bool:
        """Whether the store's last word is too old to act on; asked here, since the thread that follows may hang in a dead connection."""
        return self.polled_at is not None and time.monotonic() - self.polled_at > self._stale_s

    def start(self, *, wait_s: float = 60.0) -> bool:
        """
        Begin to follow the store, in a thread.

        Args:
            wait_s: how long to wait for the first look, in which a release is loaded; 0 doesn't wait.

        Returns: whether the first look has ended.
        """
        self._thread = threading.Thread(target=self._follow, name="live", daemon=True)
        self._thread.start()
        return self._looked.wait(wait_s)

    def close(self) -> None:
        """Stop following, end pool and shadow. Blocks, for a few seconds at most."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(5)
        old, self._current = self._current, TEACHER_ONLY
        self._end(old)
        for one in self._retiring:
            one.join(5)

    def check(self) -> None:
        """Look at the store once, and load or withdraw what it asks for; never raises for what is wrong with a release."""
        try:
            began = time.monotonic()
            wanted = self._position()
            if wanted.release is None or wanted.stage == "teacher-only":
                wanted = replace(TEACHER_ONLY.position, why=wanted.why)  # slices that a former release had suspended are no change
            self._go(wanted)
            self.polled_at = began
        except StoreError as error:
            if not self.events or self.events[-1].why != str(error):
                self._event("store", "", str(error))

    def _follow(self) -> None:
        while not self._stop.is_set():
            try:
                self.check()
            except Exception as error:  # noqa: BLE001 - a thread that dies here would serve the old release for ever, in silence
                self._event("store", "", f"{type(error).__name__}: {error}"[:500])
            self._looked.set()
            self._stop.wait(self._poll_s)

    def _newest(self) -> Position:
        last: dict[str, str] = {}
        for entry in self._releases.history():
            last.pop(entry.release_id, None)
            last[entry.release_id] = entry.stage
        serving = [(name, stage) for name, stage in last.items() if stage in SERVING]
        if not serving:
            return TEACHER_ONLY.position
        name, stage = serving[-1]
        # without a rollout's word on the share, a canary answers nobody
        return Position(release=name, stage=stage, share=1.0 if stage == "full" else 0.0)  # type: ignore[arg-type]  # SERVING are stages

    def _go(self, wanted: Position) -> None:
        now = self._current.position
        if wanted == now:
            self.refused, self._tried = "", None
            return
        if wanted.release is None:
            self._swap(TEACHER_ONLY)
            self.refused = ""
            self._event("withdrawn", now.release or "", wanted.why or "no release is to serve")
            return
        if wanted.release == now.release and wanted.stage == now.stage:
            self._current = replace(self._current, position=wanted)
            return
        key = f"{wanted.release} {wanted.stage}"
        if self._tried is not None and self._tried[0] == key and time.monotonic() - self._tried[1] < AGAIN_S:
            self._keep_or_withdraw(wanted)
            return
        try:
            found = self._load(wanted)
        except Exception as error:  # noqa: BLE001 - a broken bundle may break a library in any way
            why = str(error) if isinstance(error, OverproofError) else f"{type(error).__name__}: {error}"[:500]
            if why != self.refused or self._tried is None or self._tried[0] != key:
                self._event("refused", wanted.release, why)
            self.refused, self._tried = why, (key, time.monotonic())
            self._keep_or_withdraw(wanted)
            return
        self._swap(found)
        self.refused, self._tried = "", None
        self._event("serving", wanted.release, wanted.stage)

    def _keep_or_withdraw(self, wanted: Position) -> None:
        """
        The last good release stays, unless it was rolled back itself.

        Where the release is the same one and only its new stage can't be loaded, it stays in the stage that it had.
        """
        now = self._current.position
        if now.release is None or now.release == wanted.release:
            if now.release is not None and now.suspended != wanted.suspended:
                self._current = replace(self._current, position=replace(now, suspended=wanted.suspended))
            return
        history = self._releases.history()
        last = next((entry for entry in reversed(history) if entry.release_id == now.release), None)
        replaced = last is not None and last.why in {took_place_of(entry.release_id) for entry in history}
        if last is None or not (last.stage in SERVING or replaced):
            self._swap(TEACHER_ONLY)
            self._event("withdrawn", now.release, "it was rolled back, and what should follow it was refused")

    def _load(self, wanted: Position) -> Current:
        """Beside what serves: verified, loaded, self-tested, measured."""
        assert wanted.release is not None
        release = self._releases.get(wanted.release)  # compares every byte with the digest in the store
        if release is None:
            raise StoreError(f"release {wanted.release!r} is not in the store", next_action="run `overproof status`")
        folder = release.bundle.path
        sealed = self._sealed(release.id, folder) if self._sealed is not None else None
        pinned = (sealed.manifest if sealed else "") or sha256_of(folder / MANIFEST)
        verify_files(folder, manifest_sha256=pinned)
        old = self._current if self._current.position.release == wanted.release else TEACHER_ONLY
        pool, shadow, card = old.pool, old.shadow, old.card or read_card(folder / RELEASE)
        if card.task != self._task:
            raise StoreError(f"release {release.id!r} answers task {card.task!r}, expected {self._task!r}", next_action="release it in its own project")
        if wanted.stage in ("canary", "full"):
            if pool is None:
                how = self._loading
                bundle = load_bundle(folder, manifest_sha256=pinned, streams=how.workers)
                pool = Pool(bundle, workers=how.workers, breaker=how.breaker() if how.breaker else None)
        else:
            pool = None
        if wanted.stage == "full":
            shadow = None
        elif shadow is None:
            shadow = Shadow(folder, manifest_sha256=pinned, memory_mb=self._loading.shadow_mb)
        self.seal = sealed.words if sealed else ""
        return Current(position=wanted, pool=pool, shadow=shadow, card=card)

    def _swap(self, new: Current) -> None:
        old, self._current = self._current, new
        gone = replace(old, pool=None if old.pool is new.pool else old.pool, shadow=None if old.shadow is new.shadow else old.shadow)
        if gone.pool is not None or gone.shadow is not None:
            self._retiring = [one for one in self._retiring if one.is_alive()]
            thread = threading.Thread(target=self._retire, args=(gone,), name="retiring", daemon=True)
            self._retiring.append(thread)
            thread.start()

    def _retire(self, old: Current) -> None:
        self._stop.wait(self._loading.linger_s)
        self._end(old)

    def _end(self, old: Current) -> None:
        if old.pool is not None:
            old.pool.close()
        if old.shadow is not None:
            old.shadow.close()

    def _event(self, what: str, release: str, why: str) -> None:
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self.events.append(Event(at=at, what=what, release=release, why=why))

