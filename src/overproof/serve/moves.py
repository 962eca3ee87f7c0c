"""What people do to a rollout: take it on, take it back, and see where it stands and what it waits for."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from overproof.data import Hold, Occasion, PlannedStage, RolloutState, planned_stages
from overproof.errors import DataError, StoreError
from overproof.evidence import Release
from overproof.project import Project
from overproof.serve.rollout import (
    BarState,
    Decision,
    Evidence,
    RolloutPlan,
    bars_of,
    decide,
    next_stage,
    rollout_plan,
)
from overproof.settings import critical_slices
from overproof.store.project_store import Store

LOOK = "look at `overproof status`"
OWED: tuple[Occasion, ...] = ("review_overdue", "attestation_expired")
"""What people owe: a rollout that is held for it goes on once they have done it, and for no reason before."""
SEEN: tuple[Occasion, ...] = ("drift", "bar", "starved")
"""What was seen of one release."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RolloutView:
    """Where a rollout stands, for people."""

    state: RolloutState
    decision: Decision
    bars: tuple[BarState, ...]
    """Empty while the teacher answers alone."""
    after: PlannedStage | None
    """The next stage; None at the end, or without a release to take on."""
    candidate: str | None
    """A release that waits to be taken to its first stage."""
    suspended: Mapping[str, str]
    """Slice to the reason."""
    holds: tuple[Hold, ...] = ()
    """What keeps it from going on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Promotion:
    """What came of asking for the next stage."""

    moved: bool
    state: RolloutState
    to: PlannedStage | None
    why: str
    """Why it was done, or why not."""


def plan_of(store: Store, project: Project) -> Callable[[str], RolloutPlan]:
    """
    How a gateway finds out what a release is held to.

    Args:
        store: the project's store.
        project: the loaded project.

    Returns: a function of the release id.
    """

    def found(release_id: str) -> RolloutPlan:
        release = store.releases.get(release_id)
        if release is None:
            raise StoreError(f"release {release_id!r} is not in the store", next_action="run `overproof rollback`")
        names = [part.slice for part in release.certificate.slices]
        return rollout_plan(project.serve, release.certificate, critical=critical_slices(project.slices, names))

    return found


def view(store: Store, project: Project, *, now: float | None = None) -> RolloutView:
    """
    Where the rollout stands and what it waits for.

    Args:
        store: the project's store.
        project: the loaded project.
        now: seconds since 1970; the clock's where None, the server's where the store is on one.

    Returns: the view.
    """
    now = store.rollouts.time(time.time() if now is None else now)
    state = store.rollouts.current(project.task.name)
    candidate, holds = newest_candidate(store, state), tuple(store.watching.holds(state.task))
    if state.release_id is None:
        after = rollout_stages(project)[0] if candidate else None
        return RolloutView(
            state=state, decision=Decision(move="hold", why=state.why or "no release was taken to a stage"), bars=(), after=after,
            candidate=candidate, suspended={}, holds=holds,
        )  # fmt: skip
    plan, evidence = plan_of(store, project)(state.release_id), _evidence(store, state)
    return RolloutView(
        state=state, decision=decide(plan, state, evidence, now), bars=bars_of(plan, state, evidence), after=next_stage(plan, state),
        candidate=candidate, suspended=store.rollouts.suspensions(state.release_id),
        holds=holds,
    )  # fmt: skip


def promote(
    store: Store, project: Project, *, by: str, release_id: str = "", to: str = "", force: str = "", now: float | None = None
) -> Promotion:
    """
    Take the serving release to its next stage, or a candidate to its first one.

    Args:
        store: the project's store.
        project: the loaded project.
        by: who asks.
        release_id: which release; the serving one that is not yet at full, else the newest candidate, where empty.
        to: the stage as the file names it ("shadow", "canary 5%", "full"); the next one where empty.
        force: a reason to go there without the evidence; recorded. Against an alarm there is none.
        now: seconds since 1970; the clock's where None, the server's where the store is on one.

    Returns: what came of it.
    Raises: DataError for an unknown release or stage, where there is nothing to take on, or for a release without the signature that
        the project asks for.
    """
    now = store.rollouts.time(time.time() if now is None else now)
    state = store.rollouts.current(project.task.name)
    serving = state.release_id if state.stage != "full" else None
    name = release_id or serving or newest_candidate(store, state)
    release = store.releases.get(name) if name else None
    if release is None:
        raise DataError(
            f"release {name!r} is unknown" if name else "there is no release to take on", next_action=f"{LOOK}; `overproof run` makes one"
        )
    store.signatures.check(release.id, release.bundle.path)  # no reason given with --force stands in for a signature
    plan = plan_of(store, project)(release.id)
    going_on = release.id == state.release_id
    asked = replace(plan, by_evidence=True)
    decision = decide(asked, state, _evidence(store, state), now) if going_on else first_stage(store, asked, release, now)
    ordinary = next_stage(plan, state) if going_on else plan.stages[0]
    target = _named(plan, to) if to else ordinary
    if target is None or (going_on and target.share == state.share and target.stage == state.stage):
        raise DataError(f"release {release.id!r} is at {state.stage} already", next_action=LOOK)
    proven = decision.move == "promote" and decision.to == target
    if held := held_by(store, state.task, release.id, force=force):
        return Promotion(moved=False, state=state, to=target, why=held)
    if decision.breach or not (proven or force):
        why = decision.why if decision.breach or target == ordinary else f"{target.name} is not the next stage"
        return Promotion(moved=False, state=state, to=target, why=why)
    why = decision.why if proven else f"forced: {force} (evidence: {decision.why})"
    facts = {**(decision.evidence or {}), "forced": not proven}
    if passed := held_by(store, state.task, release.id):
        why, facts = f"{why}; forced: {force}; {passed}" if proven else f"{why}; {passed}", {**facts, "forced": True, "held": passed}
    after = _done(store, state, release.id, target, by=by, why=why, evidence=facts, at=now)
    return Promotion(moved=True, state=after, to=target, why=why)


def rollback(store: Store, project: Project, *, by: str, why: str = "", now: float | None = None) -> RolloutState:
    """
    Give all requests to the teacher, at once and from any stage; asks for no evidence.

    Args:
        store: the project's store.
        project: the loaded project.
        by: who asks.
        why: in a few words.
        now: seconds since 1970; the clock's where None.

    Returns: the new state.
    Raises: DataError where the teacher answers alone already.
    """
    now = time.time() if now is None else now
    state = store.rollouts.give_back(project.task.name, by=by, why=why or "rolled back by hand", evidence={"by_hand": True}, at=now)
    if state is None:
        raise DataError("the teacher answers alone already: there is nothing to roll back", next_action=LOOK)
    return state


def rollout_stages(project: Project) -> tuple[PlannedStage, ...]:
    """
    The way to full.

    Args:
        project: the loaded project.

    Returns: its stages.
    """
    return planned_stages(project.serve.stages)


def held_by(store: Store, task: str, release_id: str, *, force: str = "") -> str:
    """
    Why a release may not go on.

    Args:
        store: the project's store.
        task: name of the task.
        release_id: which one; what was seen of another release does not hold it, or nothing could ever take that one's place.
        force: a reason passes what the watch has seen, and not what people owe.

    Returns: in a few words; empty where nothing holds it.
    """
    holds = store.watching.holds(task)
    if not holds:
        return ""
    about = {one.id: one for one in store.watching.triggers(task, open_only=False)}
    owed = tuple(f"{name}-" for name in OWED)
    binding = [
        one for one in holds
        if (not force or one.trigger.startswith(owed))
        and ((cause := about.get(one.trigger)) is None or cause.occasion not in SEEN or cause.release_id in ("", release_id))
    ]  # fmt: skip
    return "; ".join(f"held since {_day(one.since)} by {one.by}: {one.why}" for one in binding)


def _evidence(store: Store, state: RolloutState) -> Evidence:
    return Evidence(slots=store.rollouts.counts(state.epoch), newest=store.rollouts.newest(state.epoch))


def newest_candidate(store: Store, state: RolloutState) -> str | None:
    """
    The newest release of the task that was never taken to a stage.

    Args:
        store: the project's store.
        state: of the task.

    Returns: its id; None where none waits.
    """
    last: dict[str, str] = {}
    for entry in store.releases.history():
        if entry.task == state.task:
            last.pop(entry.release_id, None)
            last[entry.release_id] = entry.stage
    waiting = [name for name, stage in last.items() if stage == "candidate"]
    return waiting[-1] if waiting else None


def first_stage(store: Store, plan: RolloutPlan, release: Release, now: float) -> Decision:
    """
    Whether a release may go to its first stage: once, with its certificate for evidence.

    Args:
        store: the project's store.
        plan: what the release is held to; from `plan_of`.
        release: that passed the gate.
        now: seconds since 1970.

    Returns: "promote", or "hold" with the reason.
    """
    seen = [entry.stage for entry in store.releases.history() if entry.release_id == release.id]
    parts = release.certificate.slices
    facts = {
        "plan_hash": release.certificate.plan_hash, "sealed_digest": release.certificate.sealed_digest,
        "slices": [{"slice": p.slice, "n": p.n, "kept": p.kept, "wrong": p.wrong, "upper": p.upper} for p in parts],
    }  # fmt: skip
    day = _day(now)
    problem = ""
    if seen and seen[-1] != "candidate":
        problem = f"release {release.id!r} was {seen[-1]} before; coming back takes a new certificate"
    elif day > plan.expires:
        problem = f"its certificate ended on {plan.expires}"
    elif not plan.slices:
        problem = "no slice has a certified threshold: the student would answer nothing"
    why = problem or "the gate passed it"
    return Decision(move="hold" if problem else "promote", why=why, to=plan.stages[0], evidence=facts)


def _named(plan: RolloutPlan, to: str) -> PlannedStage:
    found = [s for s in plan.stages if to in (s.name, s.stage)]
    if len(found) != 1:
        names = ", ".join(repr(s.name) for s in plan.stages)
        raise DataError(f"{to!r} is not one stage of [serve] stages", next_action=f"name one of {names}")
    return found[0]


def _done(
    store: Store, state: RolloutState, release_id: str, to: PlannedStage, *, by: str, why: str, evidence: Mapping[str, Any], at: float
) -> RolloutState:
    after = store.rollouts.move(
        state, release_id=release_id, stage=to.stage, share=to.share, by=by, why=why, evidence=evidence, at=at
    )
    if after is None:
        raise StoreError("the rollout was moved by somebody else at the same time; nothing was done", next_action=LOOK)
    return after


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(at))
