"""One task's side of the gateway: its project, its upstream, its release, what it keeps and what it counts."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from secrets import token_hex

from overproof.data import RolloutState
from overproof.errors import OverproofError, ProjectError
from overproof.evidence import Release
from overproof.outputs import Output
from overproof.project import Project
from overproof.runs import ReviewState, clock_of, review_state
from overproof.serve.breaker import Breaker
from overproof.serve.evidence import Tally, Tick
from overproof.serve.keeping import Keeping, Log, LogProcess
from overproof.serve.live import Live, Loading, Position
from overproof.serve.moves import plan_of
from overproof.serve.upstream import Upstream
from overproof.settings import critical_slices
from overproof.store.money import Prices
from overproof.store.project_store import Store

_log = logging.getLogger(__name__)
TICK_S = 1.0
REVIEW_S = 60.0  # a review is a matter of days
END_S = 5.0
OPENAI = "https://api.openai.com/v1"


def request_id() -> str:
    """
    A new id, which nobody can guess: who knows it may post feedback on the request.

    It begins with the second, so that the log's index of ids stays together.
    """
    return f"req_{int(time.time()):08x}{token_hex(8)}"


class Station:
    """
    What the gateway has of one project. `start` and `close` block; the rest is for the event loop's thread.

    Args:
        project: the loaded project.
        store: its store.
        keyed: whether callers name themselves with keys of ours, which then never go upstream.
        keep: makes what writes the log.
        clock: says when a request comes and how old evidence is, in seconds since 1970; a rehearsal lives in other days.
        ids: makes the ids of requests; a rehearsal has the same ones each time.

    Raises: ProjectError where the upstream's key is named and not there; TeacherError for an upstream that may not be asked.
    """

    def __init__(
        self, project: Project, store: Store, *, keyed: bool, keep: Callable[[Keeping], Log] = LogProcess,
        clock: Callable[[], float] = time.time, ids: Callable[[], str] = request_id,
    ) -> None:  # fmt: skip
        now = time.monotonic
        table = project.gateway
        self.project, self.store = project, store
        self.name, self.clock, self.new_id = project.task.name, clock, ids
        self.output: Output = project.task.output
        self.upstream = Upstream(
            table.upstream or project.teacher.base_url or OPENAI,
            allow_private=table.allow_private or (not table.upstream and bool(project.teacher.options.get("allow_private"))),
            timeout_s=table.timeout_s,
            api_key=_key(project),
            pass_authorization=not keyed,
        )
        self.breaker = Breaker.for_upstream(clock=now)
        self.prices = _prices(project)
        keeping = Keeping(
            root=str(store.root), privacy=project.privacy, labels=tuple(project.task.output.labels), mode=table.capture,
            queue_records=table.queue_records, prices=self.prices,
        )  # fmt: skip
        assert store.captured is not None  # a file that is damaged since a write error is found before anything is served
        if project.privacy.mode == "surrogate":
            store.secret()  # made now, not when the disk may be full
        self.capture = keep(keeping)
        self.tally = Tally(critical_slices(project.slices, [one.name for one in project.slices]))
        self.review: ReviewState | None = None
        """Of the release that serves; None where none does."""
        self._serving: Release | None = None
        self._reviewed_at = -REVIEW_S
        self.trouble = ""
        """Why the rollout can't be followed now; empty where it can."""
        loading = Loading(workers=table.workers, shadow_mb=table.shadow_mb, breaker=lambda: Breaker.for_student(clock=now))
        self.live = Live(self.name, store.releases, position=self._position, loading=loading, seal=store.signatures.check, stale_s=table.stale_s)
        self.tick = Tick(store, self.name, plan_of(store, project), self.tally, former=self._former, clock=clock)
        self._wake, self._end = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._follow, name=f"rollout-{self.name}", daemon=True)

    def start(self) -> None:
        """Load the release that serves, and follow the rollout from now on."""
        self.live.start()
        self._thread.start()

    def compared(self, epoch: int, slice_name: str, *, agreed: bool, by: str) -> None:
        """
        Count a comparison; an error in a critical slice is looked at now.

        Args:
            epoch: of the state when the request came.
            slice_name: its certification slice.
            agreed: whether student and teacher say the same.
            by: see `rollout.compare_by`.
        """
        if self.tally.comparison(epoch, slice_name, agreed=agreed, by=by):  # type: ignore[arg-type] # its own words
            self._wake.set()

    def state(self, position: Position) -> RolloutState:
        """
        The rollout as one request saw it.

        Args:
            position: of the request.

        Returns: the state, without who and why.
        """
        return RolloutState(
            task=self.name, stage=position.stage, release_id=position.release, share=position.share, suspended=position.suspended,
            epoch=position.epoch,
        )  # fmt: skip

    def _former(self) -> RolloutState | None:
        """By what requests are answered while the release or stage that the store names is refused."""
        return self.state(self.live.current.position) if self.live.refused else None

    def _position(self) -> Position:
        state: RolloutState = self.store.rollouts.current(self.name)
        return Position(
            release=state.release_id, stage=state.stage, share=state.share, suspended=state.suspended,
            epoch=state.epoch if state.release_id else 0, why=state.why,
        )  # fmt: skip

    def _follow(self) -> None:
        while not self._end.is_set():
            self._wake.wait(TICK_S)
            self._wake.clear()
            try:
                state = self.tick.run()
                self._look_at_review(state.release_id)
                self.trouble = ""
            except OverproofError as error:
                self.trouble = error.what
            except Exception as error:  # noqa: BLE001 - a thread that dies here would leave a bad release where it is, in silence
                self.trouble = f"{type(error).__name__}: {error}"[:300]

    def _look_at_review(self, release_id: str | None) -> None:
        moved = release_id != (None if self._serving is None else self._serving.id)
        if not moved and time.monotonic() - self._reviewed_at < REVIEW_S:
            return
        if moved:  # reading one verifies its bundle, which is too much for every minute
            self._serving = None if release_id is None else self.store.releases.get(release_id)
        known, clock = self._serving, clock_of(self.store, datetime.now(UTC))
        self.review = None if known is None else review_state(known, self.store.decisions.read(), self.project.owner, clock)
        self._reviewed_at = time.monotonic()

    @property
    def review_word(self) -> str:
        """Where the owner's review stands, in one word; empty where nothing serves."""
        return "" if self.review is None else self.review.word

    async def close(self) -> None:
        """Commit what was captured and counted, end the student."""
        if not await self.capture.close():
            _log.error("%s: not all rows came into the log: %s waited, dropped were %s. %s", self.name, self.capture.waiting, dict(self.capture.dropped), self.capture.fault)
        await asyncio.to_thread(self._stop)
        await self.upstream.close()

    def _stop(self) -> None:
        self._end.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(END_S)
        self.live.close()
        try:
            self.tick.flush()
        except Exception as error:  # noqa: BLE001 - what comes after this has to be closed as well
            self.trouble = str(error)[:300]

    @property
    def shadow_silent(self) -> bool:
        """Whether requests are offered to the shadow, and none was answered for a while."""
        shadow = self.live.current.shadow
        return shadow is not None and shadow.silent(time.monotonic())

    @property
    def problems(self) -> list[str]:
        """What keeps the task from being served as it should be, one sentence each."""
        found = [f"{self.name}: {text}" for text in (self.live.refused, self.trouble, self.capture.fault) if text]
        if self.capture.state != "open":
            found.append(f"{self.name}: the log is {self.capture.state}")
        if self.live.polled_at is None and self.live.events:
            found.append(f"{self.name}: the store was never read since the start, the teacher answers everything")
        if self.live.stale:
            found.append(f"{self.name}: the store can't be read for over {self.project.gateway.stale_s:g} s, the teacher answers everything")
        if self.shadow_silent:
            shadow = self.live.current.shadow
            found.append(f"{self.name}: the shadow student has stopped answering{f' ({shadow.why})' if shadow and shadow.why else ''}")
        return found


def _key(project: Project) -> str:
    name = project.gateway.api_key_env
    if not name:
        return ""
    key = os.environ.get(name, "").strip()
    if not key:
        raise ProjectError([f"[gateway] api_key_env: the environment variable {name!r} is not set"], file=project.file)
    return key


def _prices(project: Project) -> Prices | None:
    table = project.teacher
    if table.price_in_usd_per_million is None or table.price_out_usd_per_million is None:
        return None
    return Prices(usd_per_million_in=table.price_in_usd_per_million, usd_per_million_out=table.price_out_usd_per_million)
