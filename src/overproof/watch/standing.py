"""How the watch stands, for `status`, a shell prompt and CI: from the store alone, in milliseconds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from overproof.data import Hold, WatchReport
from overproof.project import Project
from overproof.runs import clock_of, review_state
from overproof.store.project_store import Store
from overproof.watch.notices import count
from overproof.watch.teacher import ends_of

STALE_H = 26.0  # a watch from cron runs once a day at least; two hours are for a pass that takes long
MANY_H = 96  # from here on days are easier to read
MOST_SHORT = 79


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """What somebody should know before they do anything else."""

    task: str
    stage: str
    release_id: str | None
    state: Literal["fine", "open", "blind"]
    """"blind": the watch doesn't run, or a part of it fails, while a release serves; "open": something asks for a decision."""
    problems: tuple[str, ...]
    """Why it is not fine, the worst first."""
    hours: float | None
    """Since the last pass; None before the first."""
    last: WatchReport | None
    alarms: int
    """Open ones, blindness left out."""
    triggers: int
    holds: tuple[Hold, ...]
    audits_due: int
    review: str
    """Where the owner's review stands; empty where nothing serves."""
    ends: tuple[str, ...]
    """Countdowns to a teacher's end of life that have begun."""
    notes: tuple[str, ...]
    """Of the last pass: countdowns, waiting days, an overspent cap."""


def standing_of(store: Store, project: Project, *, now: datetime) -> Standing:
    """
    How the watch of a project stands.

    Args:
        store: the project's store.
        project: the loaded project.
        now: the time, with its zone.

    Returns: its state, with the reasons.
    """
    task, watching = project.task.name, store.watching
    rollout, last = store.rollouts.current(task), watching.last_pass(task)
    serving = rollout.release_id is not None
    hours = None if last is None else max(0.0, (now.astimezone(UTC) - datetime.fromisoformat(last.at)).total_seconds() / 3600)
    alarms, triggers, holds = watching.alarms(task), watching.triggers(task), tuple(watching.holds(task))
    blind = [a.words for a in alarms if a.signal == "blind"]
    problems = []
    if serving and hours is None:
        problems.append("the watch has never run, while a release serves; start `overproof watch`")
    elif serving and hours is not None and hours > STALE_H:
        past = f"{hours:.0f} hours" if hours < MANY_H else f"{hours / 24:.0f} days"
        problems.append(f"the watch has not run for {past}, while a release serves; start `overproof watch`")
    problems += blind
    unseen = bool(problems)
    problems += [a.words for a in alarms if a.signal != "blind"]
    problems += [f"{t.occasion.replace('_', ' ')}: {t.why}" for t in triggers]
    clock = clock_of(store, now)
    release = store.releases.get(rollout.release_id) if rollout.release_id is not None else None
    review = review_state(release, store.decisions.read(), project.owner, clock) if release is not None else None
    problems += [review.why] if review is not None and review.word in ("overdue", "lapsed") else []
    ends = [one for one in ends_of(store, project, now=clock) if one.warn]
    problems += [one.words for one in ends if one.days_left < 0]
    problems += [f"the rollout is held by {h.by}: {h.why}" for h in holds]
    said = {*problems, *(one.words for one in ends), *([review.why] if review is not None else [])}
    return Standing(
        task=task, stage=rollout.stage, release_id=rollout.release_id, state="blind" if unseen else "open" if problems else "fine",
        problems=tuple(problems), hours=hours, last=last, alarms=len(alarms) - len(blind), triggers=len(triggers), holds=holds,
        audits_due=len(watching.audits(rollout.release_id, state="due")) if rollout.release_id is not None else 0,
        notes=tuple(n for n in (last.notes if last is not None else ()) if n not in said),
        review=f"{review.word}: {review.why}" if review is not None else "", ends=tuple(one.words for one in ends),
    )  # fmt: skip


def short(standing: Standing) -> str:
    """
    One line for a shell prompt.

    Args:
        standing: how it stands.

    Returns: under 80 characters, ASCII but for the task's name, which is: no line break, no colour.
    """
    ago = "never watched" if standing.hours is None else f"watched {_ago(standing.hours)} ago"
    said = [
        *(["BLIND"] if standing.state == "blind" else []),
        *([count(standing.alarms, "alarm")] if standing.alarms else []),
        *([count(standing.triggers, "trigger")] if standing.triggers else []),
        *(["held"] if standing.holds else []),
    ]  # fmt: skip
    rest = f" {standing.stage}: {', '.join(said) or 'fine'}, {ago}"
    return standing.task[: MOST_SHORT - len(rest)] + rest


def _ago(hours: float) -> str:
    if hours < 1:
        return f"{60 * hours:.0f}min"
    return f"{hours:.0f}h" if hours < 48 else f"{hours / 24:.0f}d"
