"""What the rollout page reads: the way to full, what the next stage still needs, and who moved what when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from overproof.data import ALL, Hold, PlannedStage, RolloutState, planned_stages
from overproof.errors import CorruptArtifact, OverproofError
from overproof.project import Project
from overproof.serve import moves
from overproof.serve.moves import RolloutView
from overproof.serve.rollout import BarState
from overproof.store.decisions import Decision
from overproof.store.rollout import Moved
from overproof.web.place import Place

KINDS: Final = frozenset({"rollout", "suspension", "hold", "hold-released", "trigger", "alarm-closed", "review", "gate", "refresh", "waiver"})
"""Decisions that belong to the story of a release."""
MOST: Final = 100
"""Newest entries of the history on the page."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One stop on the way to full."""

    name: str
    least_s: float
    """How long it lasts at least; 0 where nobody asks."""
    here: bool
    word: str
    """"passed", "skipped" where the release was taken past it, "here", or empty for what is to come."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """One bar of the present stage, with its words."""

    state: BarState
    name: str
    tone: str
    word: str
    """What it says now: met, alarm, or what is missing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Option:
    """A move forward that somebody may ask for."""

    release: str
    to: str
    """Name of the stage."""
    replaces: str
    """The release whose place it takes; empty where it takes none."""
    ready: bool
    """Whether time and evidence are there."""
    why: str
    """Why, or what is missing."""
    others: tuple[str, ...]
    """Later stages, which nobody may go to without a reason."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One entry of the history."""

    at: str
    """ISO 8601."""
    what: str
    by: str
    why: str
    number: int
    """In the log of decisions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Staging:
    """Where a rollout stands."""

    view: RolloutView
    state: RolloutState
    stage: str
    """As the project file writes it."""
    student: str
    """The candidate's name behind the release; empty where nothing serves."""
    steps: tuple[Step, ...]
    bars: tuple[Bar, ...]
    over_at: float | None
    """When the stage has lasted long enough; None where it has no such time."""
    newest: float | None
    """When the last answer was compared, Unix time."""
    options: tuple[Option, ...]
    suspended: Mapping[str, str]
    holds: tuple[Hold, ...]
    moves: tuple[Line, ...]
    """Newest first."""
    decisions: tuple[Line, ...]
    """Newest first, at most `MOST`."""
    chain: str
    """What checking the chain of decisions has shown."""
    whole: bool
    """Whether it holds."""


def read_rollout(place: Place, project: Project, *, now: float) -> Staging:
    """
    Where a task's rollout stands.

    Args:
        place: the task.
        project: its file, as it is now.
        now: Unix time.

    Returns: stage, evidence, what may be done, history.
    Raises: StoreError where the release that serves is not in the store.
    """
    store = place.store
    seen = moves.view(store, project, now=now)
    state, log = seen.state, list(store.decisions.read())
    try:
        chain, whole = f"the chain of all {store.decisions.verify():,} decisions holds: none was changed, removed or put in", True
    except CorruptArtifact as problem:
        chain, whole = f"{problem.what}; {problem.next_action}", False
    stages, history = planned_stages(project.serve.stages), store.rollouts.history(place.name)
    release = place.release(state.release_id) if state.release_id is not None else None
    present = next((one for one in stages if one.stage == state.stage and one.share == state.share), None)
    return Staging(
        view=seen, state=state, stage=_name(state), student=release.candidate if release is not None else "", steps=_steps(stages, state, history),
        bars=tuple(_bar(one) for one in seen.bars), over_at=state.since + present.least_s if present is not None and present.least_s else None,
        newest=store.rollouts.newest(state.epoch) if state.release_id is not None else None, options=_options(place, project, seen, now),
        suspended=seen.suspended, holds=seen.holds, moves=_moves(history), decisions=tuple(_line(one) for one in reversed(log) if one.kind in KINDS)[:MOST],
        chain=chain, whole=whole,
    )  # fmt: skip


def _name(state: RolloutState) -> str:
    return f"canary {100 * state.share:g}%" if state.stage == "canary" else state.stage


def _steps(stages: tuple[PlannedStage, ...], state: RolloutState, history: list[Moved]) -> tuple[Step, ...]:
    """A stage counts as passed only where this very release was there."""
    been = {(one.stage, one.share) for one in history if one.release_id == state.release_id}

    def step(one: PlannedStage) -> Step:
        here = state.release_id is not None and (one.stage, one.share) == (state.stage, state.share)
        behind = state.release_id is not None and one.share < state.share
        word = "here" if here else "passed" if behind and (one.stage, one.share) in been else "skipped" if behind else ""
        return Step(name=one.name, least_s=one.least_s, here=here, word=word)

    found = [step(one) for one in stages]
    if state.release_id is not None and not any(one.here for one in found):  # the file has changed since
        own = Step(name=_name(state), least_s=0.0, here=True, word="here")
        found.insert(sum(one.share < state.share for one in stages), own)
    alone = state.release_id is None
    return (Step(name="teacher-only", least_s=0.0, here=alone, word="here" if alone else ""), *found)


def _bar(one: BarState) -> Bar:
    name = {ALL: {"overall": "all slices together", "faults": "no answer in time and form", "arms": "student's failures against the teacher's"}.get(one.kind, one.name)}.get(one.slice, one.slice)
    if one.alarm:
        return Bar(state=one, name=name, tone="fail", word="alarm: surely broken")
    if one.passed:
        return Bar(state=one, name=name, tone="pass", word="met")
    more = one.requests_to_go
    wait = "not at this rate" if more is None else f"about {more:,} more requests"
    return Bar(state=one, name=name, tone="open", word=f"{one.missing}; {wait}" if one.missing else f"not proven; {wait}")


def _options(place: Place, project: Project, seen: RolloutView, now: float) -> tuple[Option, ...]:
    found, state, stages = [], seen.state, planned_stages(project.serve.stages)
    if state.release_id is not None and seen.after is not None:
        held = moves.held_by(place.store, state.task, state.release_id)
        ready = (seen.decision.ready or seen.decision.move == "promote") and not held
        later = tuple(one.name for one in stages if one.share > seen.after.share)
        found.append(Option(release=state.release_id, to=seen.after.name, replaces="", ready=ready, why=held or seen.decision.why, others=later))
    if seen.candidate is not None:
        ready, why = _first(place, project, seen.candidate, now)
        later = tuple(one.name for one in stages[1:])
        found.append(Option(release=seen.candidate, to=stages[0].name, replaces=state.release_id or "", ready=ready, why=why, others=later))
    return tuple(found)


def _first(place: Place, project: Project, release_id: str, now: float) -> tuple[bool, str]:
    """Whether a candidate may begin, and why, or why not."""
    try:
        release, plan = place.release(release_id), moves.plan_of(place.store, project)(release_id)
        if release is None:
            return False, "it is not in the store"
        place.store.signatures.check(release.id, release.bundle.path)
    except OverproofError as problem:
        return False, problem.what
    held, decision = moves.held_by(place.store, place.name, release_id), moves.first_stage(place.store, plan, release, now)
    return decision.move == "promote" and not held, held or decision.why


def _moves(history: list[Moved]) -> tuple[Line, ...]:
    lines: list[Line] = []
    before, former = "teacher-only", ""
    for one in history:
        stage = f"canary {100 * one.share:g}%" if one.stage == "canary" else one.stage
        at = datetime.fromtimestamp(one.since, UTC).isoformat()
        went = f"in the place of {former}, at {stage}" if former and former != one.release_id and before != "teacher-only" else f"{before} → {stage}"
        lines.append(Line(at=at, what=f"{one.release_id}: {went}", by=one.by, why=one.why, number=one.decision))
        before, former = stage, one.release_id
    return tuple(reversed(lines))[:MOST]


def _line(one: Decision) -> Line:
    body = one.body
    said = {
        "rollout": f"{body.get('from')} → {body.get('to')}", "gate": f"run {one.subject}: {body.get('outcome')}", "suspension": f"slice {body.get('slice')!r} suspended",
        "hold": "rollout held", "hold-released": "hold ended", "trigger": f"{str(body.get('occasion')).replace('_', ' ')}: {body.get('state')}",
        "alarm-closed": "alarm closed", "review": "release reviewed", "refresh": "distilled again", "waiver": f"{one.subject} waived",
    }  # fmt: skip
    why = body.get("why") or body.get("headline") or body.get("outcome") or body.get("reason") or ""
    return Line(at=one.at, what=said[one.kind], by=one.actor, why=str(why), number=one.seq)
