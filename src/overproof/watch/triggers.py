"""What follows from alarms and duties: rules as data, and the acts that the owner allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from overproof.data import ALL, Act, Alarm, Occasion, Reading, Trigger, digest_of
from overproof.project import Project
from overproof.runs import clock_of
from overproof.store.project_store import Store
from overproof.watch.duties import Duties
from overproof.watch.teacher import OF_THE_TEACHER, TeacherState

WATCH = "watch"  # who acts where nobody does
REFRESH = "`overproof refresh` takes it"


@dataclass(frozen=True, kw_only=True, slots=True)
class Cause:
    """One thing that is so now, and from which something follows."""

    occasion: Occasion
    key: str
    """The same for the same thing: a trigger is opened once for it."""
    why: str
    act: Act
    release_id: str = ""
    slices: tuple[str, ...] = ()
    alarms: tuple[str, ...] = ()

    def id(self, task: str) -> str:
        """Of its trigger; begins with the occasion, so that a hold says what it is for."""
        return f"{self.occasion}-{digest_of([task, self.key])[:16]}"


def occasion_of(alarm: Alarm) -> Occasion:
    """
    What an alarm is an occasion of.

    Args:
        alarm: any.

    Returns: "bar" only for audited errors with the guarantee of a release's whole life: a page may be about nothing once a
        year, and takes no release back where the owner's rule speaks of bars.
    """
    if alarm.signal in OF_THE_TEACHER:
        return "teacher_changed"
    return "bar" if alarm.signal in ("disagreement", "error") and alarm.kind == "life" else "drift"


def causes(
    project: Project, *, alarms: Sequence[Alarm], duties: Duties, teacher: TeacherState, now: datetime, release_id: str = "",
    readings: Sequence[Reading] = (),
) -> tuple[Cause, ...]:  # fmt: skip
    """
    All that is so now; pure.

    Args:
        project: for [watch.on] and `on_lapse`.
        alarms: open ones.
        duties: of people.
        teacher: its alarms count as well, and its end.
        now: from `runs.clock_of`.
        release_id: of the release that serves; empty where none does.
        readings: those that are starved count.

    Returns: one cause for each thing.
    """
    rule, found = project.watch.act, []
    for one in {a.id: a for a in (*alarms, *teacher.alarms)}.values():
        occasion = occasion_of(one)
        found.append(Cause(
            occasion=occasion, key=one.id, why=one.words, act=rule(occasion), release_id=one.release_id, slices=(one.slice,), alarms=(one.id,),
        ))  # fmt: skip
    found += [
        Cause(occasion="teacher_ends", key=f"{end.model} {end.on}", why=end.words, act=rule("teacher_ends"), release_id=release_id)
        for end in teacher.ends
        if end.days_left < 0
    ]
    found += _people(project, duties, now, release_id)
    for one_reading in readings:
        if one_reading.state == "starved":
            where = f"slice {one_reading.slice!r}" if one_reading.slice != ALL else "all slices"
            why = f"{where}: too many audits ({one_reading.signal}) had no word in time, so that quiet says nothing"
            key = f"{one_reading.release_id} {one_reading.slice} {one_reading.signal} {one_reading.day[:7]}"
            found.append(Cause(occasion="starved", key=key, why=why, act=rule("starved"), release_id=one_reading.release_id, slices=(one_reading.slice,)))
    return tuple(found)


def _people(project: Project, duties: Duties, now: datetime, release_id: str) -> list[Cause]:
    rule, found, review = project.watch.act, [], duties.review
    if review is not None and review.word in ("overdue", "lapsed"):
        key = f"{release_id} {review.due}"
        found.append(Cause(occasion="review_overdue", key=key, why=review.why, act=rule("review_overdue"), release_id=release_id))
        if review.word == "lapsed":
            back = project.watch.on_lapse == "teacher"
            why = f"{review.why}: it has lapsed" + ("" if back else ", and the release serves on by [watch] on_lapse")
            daily = key + (" lapsed" if back else f" lapsed {now.date().isoformat()}")  # it serves on, and says so every day
            act: Act = "roll-back" if back else "alarm"
            found.append(Cause(occasion="review_overdue", key=daily, why=why, act=act, release_id=release_id))
    for one in duties.attestations:
        if one.word == "expired":
            key = f"{one.who} {one.record} {one.expires}"
            found.append(Cause(occasion="attestation_expired", key=key, why=one.why, act=rule("attestation_expired"), release_id=release_id))
            found.append(Cause(
                occasion="attestation_expired", key=f"{key} {now.date().isoformat()}", why=f"{one.why}; it is still so", act="alarm",
                release_id=release_id,
            ))  # fmt: skip
    return found


def fire(
    store: Store, project: Project, *, alarms: Sequence[Alarm], duties: Duties, teacher: TeacherState, now: datetime,
    readings: Sequence[Reading] = (), unseen: Sequence[Occasion] = (),
) -> tuple[Trigger, ...]:  # fmt: skip
    """
    Open a trigger for each cause, once; lift what was held for causes that are no more.

    Args:
        store: the project's store.
        project: the loaded project.
        alarms: of this pass; open ones in the store count as well.
        duties: from `duties_of`.
        teacher: from `watch_teacher`.
        now: in UTC.
        readings: of this pass.
        unseen: occasions that nobody looked at, since the part that sees them failed; what is held for them stays held.

    Returns: all open triggers, oldest first.
    """
    task, clock, watching = project.task.name, clock_of(store, now), store.watching
    for one in (*alarms, *teacher.alarms):
        watching.raise_alarm(one, at=now.timestamp())
    still = [a for a in watching.alarms(task) if a.signal != "blind"]  # nothing follows from what was not seen; without those that a person has closed
    release_id = store.rollouts.current(task).release_id or ""
    found = causes(
        project, alarms=still, duties=duties, teacher=replace(teacher, alarms=()), now=clock, release_id=release_id, readings=readings
    )
    for cause in found:
        why = f"{cause.why}; {REFRESH}" if cause.act == "re-distil" else cause.why
        made = Trigger(
            id=cause.id(task), task=task, occasion=cause.occasion, act=cause.act, at=clock.isoformat(timespec="seconds"), why=why,
            release_id=cause.release_id, slices=cause.slices, alarms=cause.alarms,
        )  # fmt: skip
        watching.open_trigger(made, at=now.timestamp())
    _keep_held(store, task, {cause.id(task): cause for cause in found}, unseen=unseen, at=now.timestamp())
    return tuple(watching.triggers(task))


def act(store: Store, project: Project, triggers: Sequence[Trigger], *, now: datetime) -> tuple[Trigger, ...]:
    """
    Do what the owner allows for each open trigger.

    Args:
        store: the project's store.
        project: the loaded project.
        triggers: from `fire`; those that are not open stay as they are.
        now: in UTC.

    Returns: the same triggers as they stand after it; one for a re-distillation stays open until that is done.
    """
    done = {"alarm": _told, "hold": _held, "roll-back": _rolled_back}
    found = []
    for one in triggers:
        if one.state == "open" and one.act in done:
            outcome = done[one.act](store, project, one, now.timestamp())
            if not outcome:  # it could not be done; the next pass tries again
                found.append(one)
                continue
            store.watching.end_trigger(one.id, state="done", outcome=outcome, at=now.timestamp())
            one = replace(one, state="done", outcome=outcome)  # noqa: PLW2901 - as it stands now
        found.append(one)
    return tuple(found)


def _told(store: Store, project: Project, trigger: Trigger, at: float) -> str:
    del store, project, trigger, at
    return "it is said, and nothing else follows"


def _held(store: Store, project: Project, trigger: Trigger, at: float) -> str:
    store.watching.hold(project.task.name, by=WATCH, why=trigger.why, cause=trigger.id, at=at)
    return "the rollout is held"


def _rolled_back(store: Store, project: Project, trigger: Trigger, at: float) -> str:
    """One slice goes to the teacher, or everything; a release that serves no more has nothing to give back."""
    rollouts, task = store.rollouts, project.task.name
    facts: Mapping[str, Any] = {"trigger": trigger.id, "occasion": trigger.occasion, "alarms": list(trigger.alarms)}
    slices = {name: trigger.why for name in trigger.slices if name != ALL}
    for _ in range(100):  # a gateway may move at the same moment
        state = rollouts.current(task)
        if state.release_id is None or (trigger.release_id and trigger.release_id != state.release_id):
            return f"release {trigger.release_id or state.last_release} serves no more"
        release = store.releases.get(state.release_id)
        routed = set() if release is None else {part.slice for part in release.certificate.slices}
        if not slices or ALL in trigger.slices or not set(slices) <= routed:  # what isn't routed by can't be given back alone
            rollouts.give_back(task, by=WATCH, why=trigger.why, evidence=facts, at=at)
            return "all requests go to the teacher"
        rollouts.suspend(state, slices, by=WATCH, evidence=facts, at=at)
        if set(slices) <= rollouts.current(task).suspended:
            return f"the teacher answers {', '.join(repr(name) for name in slices)}"
    return ""


def _keep_held(store: Store, task: str, present: Mapping[str, Cause], *, unseen: Sequence[Occasion], at: float) -> None:
    """
    A hold by the watch ends with its cause (a review signed, an attestation renewed, an alarm closed by a person) and comes
    back with it; one that a person has lifted stays lifted.
    """
    watching = store.watching
    held = {hold.trigger: hold for hold in watching.holds(task)}
    for trigger, hold in held.items():
        if hold.by == WATCH and trigger and trigger not in present and trigger.partition("-")[0] not in unseen:
            watching.release_hold(task, by=WATCH, why="its cause is no more", at=at, cause=trigger)
    for trigger, by in watching.lifted(task).items():
        if by == WATCH and trigger in present and trigger not in held:
            watching.hold(task, by=WATCH, why=present[trigger].why, cause=trigger, at=at)
