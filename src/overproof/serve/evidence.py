"""From single requests to decisions: what one gateway counts, and the tick that decides on what all of them counted."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Literal

from overproof.data import RolloutState, StageCounts
from overproof.data.rollout import COUNTS
from overproof.measure.slices import OTHER
from overproof.serve.moves import held_by
from overproof.serve.rollout import Compare, Decision, Evidence, RolloutPlan, breach, decide
from overproof.store.added import Addition
from overproof.store.project_store import Store
from overproof.store.rollout import Slots

GATEWAY = "gateway"  # who moves where nobody does
_AT = {name: at for at, name in enumerate(COUNTS)}
_REQUESTS, _ASKED, _FAULTS, _KEPT = (_AT[name] for name in ("requests", "asked", "faults", "kept"))
_COMPARED, _DISAGREED, _DRAWN, _DRAWN_WRONG = (_AT[n] for n in ("compared", "disagreed", "drawn", "drawn_wrong"))
_ARMS = {"student": (_AT["by_student"], _AT["student_failed"]), "teacher": (_AT["by_teacher"], _AT["teacher_failed"])}


class Tally:
    """
    What one gateway has counted since it last wrote: plain integers, safe between the loop and the writer's thread.

    Args:
        critical: names of critical slices, whose errors are looked at as soon as they are seen.
    """

    def __init__(self, critical: Collection[str] = ()) -> None:
        self.critical = frozenset(critical)
        self._rows: dict[tuple[int, str], list[int]] = {}
        self._lock = threading.Lock()

    def request(
        self, epoch: int, slice_name: str, *, asked: bool = True, kept: bool = False, fault: bool = False,
        arm: Literal["", "student", "teacher"] = "", failed: bool = False,
    ) -> None:  # fmt: skip
        """
        Count a request for which a release stands, once its answer was sent.

        Args:
            epoch: of the state when the request came; 0 is not counted.
            slice_name: its certification slice; "" where the student gave none.
            asked: whether the student was asked.
            kept: whether it was sure enough to answer.
            fault: whether it was asked and gave no answer in time and form.
            arm: for a kept one in canary, who was drawn to answer.
            failed: whether the arm's own model gave nothing usable: no answer, an error, or not the asked form.
        """
        if not epoch:
            return
        with self._lock:
            row = self._row(epoch, slice_name)
            row[_REQUESTS] += 1
            if asked:
                row[_ASKED] += 1
                row[_FAULTS] += fault
                row[_KEPT] += kept
            if arm and kept:
                whole, bad = _ARMS[arm]
                row[whole] += 1
                row[bad] += failed

    def comparison(self, epoch: int, slice_name: str, *, agreed: bool, by: Compare) -> bool:
        """
        Count a kept answer that the teacher's was held against; the request itself was counted before.

        Args:
            epoch: of the state when the request came.
            slice_name: as for the request.
            agreed: whether the two are the same answer.
            by: what `rollout.compare_by` said.

        Returns: whether a decision should be looked for now, not at the next second.
        """
        if not epoch or not by:
            return False
        with self._lock:
            row = self._row(epoch, slice_name)
            row[_COMPARED] += 1
            row[_DISAGREED] += not agreed
            if by == "drawn":
                row[_DRAWN] += 1
                row[_DRAWN_WRONG] += not agreed
        return not agreed and slice_name in self.critical

    def take(self) -> dict[tuple[int, str], StageCounts]:
        """What is new since the last call."""
        with self._lock:
            rows, self._rows = self._rows, {}
        return {key: StageCounts(**dict(zip(COUNTS, row, strict=True))) for key, row in rows.items()}

    def _row(self, epoch: int, slice_name: str) -> list[int]:
        return self._rows.setdefault((epoch, slice_name or OTHER), [0] * len(COUNTS))


class Tick:
    """
    Writes what was counted, reads what all gateways counted, decides, and does it. For a thread that may wait for the disk.

    Args:
        store: the project's store.
        task: name of the task.
        plan_of: release id to what it is held to; see `serve.moves.plan_of`.
        tally: of this gateway.
        clock: seconds since 1970.
        former: the state that requests are answered by, where that is an older one since the store's can't be loaded; else None.
    """

    def __init__(
        self, store: Store, task: str, plan_of: Callable[[str], RolloutPlan], tally: Tally, *, clock: Callable[[], float] = time.time,
        former: Callable[[], RolloutState | None] = lambda: None,
    ) -> None:  # fmt: skip
        self._store, self._task, self._plan_of, self._tally, self._clock, self._former = store, task, plan_of, tally, clock, former
        self._id, self._number = secrets.token_hex(8), 0
        self._trying: Mapping[tuple[int, str], StageCounts] = {}
        self._blind_since = 0.0
        self._plans: dict[str, RolloutPlan] = {}
        self._slots: dict[int, Slots] = {}
        self.last: Decision | None = None
        """The newest decision, for metrics and `status`."""

    def run(self) -> RolloutState:
        """
        One round. Evidence that can't be read or written is missing: the release goes back once that lasts as long as a hold may.

        Returns: the state after it.
        Raises: StoreError where the store can't be read or written; counts are kept for the next round.
        """
        try:
            state = self._round()
        except Exception as error:
            self.last, self._blind_since = None, self._blind_since or self._clock()
            with contextlib.suppress(Exception):  # whoever can't read the state either stops by the age of its last word
                self._give_back(f"{type(error).__name__}: {error}"[:300])
            raise
        self._blind_since = 0.0
        return state

    def _give_back(self, fault: str) -> None:
        """Where the student answered unwatched for too long."""
        rollouts, now = self._store.rollouts, self._clock()
        state = rollouts.current(self._task)
        if state.release_id is None or now - self._blind_since <= self._plan(state.release_id).hold_s:
            return
        why = "held too long: its evidence can't be read or written"
        rollouts.give_back(self._task, by=GATEWAY, why=why, evidence={"fault": fault}, at=now)

    def _round(self) -> RolloutState:
        self.flush()
        rollouts = self._store.rollouts
        state = rollouts.current(self._task)
        if state.release_id is None:
            self.last = None
            return state
        now = rollouts.time(self._clock())
        if (former := self._former()) is not None and former.epoch != state.epoch and self._watch(former, state, now):
            return rollouts.current(self._task)
        plan = self._plan(state.release_id)
        found = decide(plan, state, self._evidence(state), now)
        if found.move == "promote":  # never on counts that this process alone remembers
            self._slots = {}
            found = decide(plan, state, self._evidence(state), now)
        if found.move == "promote" and (held := held_by(self._store, self._task, state.release_id)):
            found = replace(found, move="hold", why=held)
        self.last = found
        facts = self.last.evidence or {}
        if self.last.move == "suspend-slice":
            rollouts.suspend(state, self.last.slices or {}, by=GATEWAY, evidence=facts, at=now)
        elif self.last.move == "roll-back":
            back = replace(state, stage="teacher-only", share=0.0)
            self._move(state, back, facts, now)
        elif self.last.move == "promote" and self.last.to is not None:
            self._move(state, replace(state, stage=self.last.to.stage, share=self.last.to.share), facts, now)
        return state if self.last.move == "hold" else rollouts.current(self._task)

    def _plan(self, release_id: str) -> RolloutPlan:
        if release_id not in self._plans:
            self._plans = {**dict(list(self._plans.items())[-1:]), release_id: self._plan_of(release_id)}
        return self._plans[release_id]

    def _watch(self, former: RolloutState, state: RolloutState, now: float) -> bool:
        """Hold what answers in place of a refused release to its own bars; whether the state was moved."""
        if former.release_id is None:
            return False
        rollouts = self._store.rollouts
        seen = Evidence(slots=rollouts.counts(former.epoch), newest=rollouts.newest(former.epoch))
        found = breach(self._plan(former.release_id), former, seen)
        if found is None:
            return False
        facts = found.evidence or {}
        if former.release_id != state.release_id:  # nobody would look at its other slices either: all of it goes
            rollouts.withdraw(former, by=GATEWAY, why=found.why, evidence=facts)
            return False
        self.last = found
        if found.move == "suspend-slice":
            rollouts.suspend(state, found.slices or {}, by=GATEWAY, evidence=facts, at=now)
        else:
            self._move(state, replace(state, stage="teacher-only", share=0.0), facts, now)
        return True

    def flush(self) -> None:
        """Write what was counted; durable on return. What was tried and not heard of goes first, as it was: it may be there."""
        for _ in range(2):
            if not self._trying:
                self._trying = self._tally.take()
                self._number += 1
            if not self._trying:
                return
            self._store.rollouts.add(self._trying, at=self._clock(), once=Addition(writer=self._id, number=self._number))
            self._trying = {}

    def _evidence(self, state: RolloutState) -> Evidence:
        rollouts = self._store.rollouts
        slots = rollouts.counts(state.epoch, self._slots.get(state.epoch))
        self._slots = {state.epoch: slots}
        return Evidence(slots=slots, newest=rollouts.newest(state.epoch))

    def _move(self, state: RolloutState, to: RolloutState, facts: Mapping[str, object], now: float) -> None:
        assert state.release_id is not None
        assert self.last is not None
        self._store.rollouts.move(
            state, release_id=state.release_id, stage=to.stage, share=to.share, by=GATEWAY, why=self.last.why, evidence=facts, at=now
        )
