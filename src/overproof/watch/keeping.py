"""The retention policy, once a day with the watch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime

from overproof.errors import RoleTaken
from overproof.project import Project
from overproof.retention import Retained, retain
from overproof.store.project_store import Store

WAITS_DAYS = 2
"""Days without a pass after which a run that is always at work is no excuse any more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """What today's pass came to."""

    done: Retained | None = None
    """None where nothing was due, or a run is at work."""
    notes: tuple[str, ...] = ()


def keep_today(store: Store, project: Project, *, now: datetime) -> Kept:
    """
    Apply [privacy.retention] where the last pass of the watch has not done it today.

    Args:
        store: the project's store.
        project: says how long what is kept.
        now: in UTC.

    Returns: what was over; a note where a run is at work, and the next pass has to do it.
    Raises: RoleTaken where runs have been at work for two days; StoreError where a database stays in use.
    """
    last = store.watching.last_pass(project.task.name)
    day = now.date()
    if not any(asdict(project.privacy.retention).values()) or (last is not None and last.retained_on >= day.isoformat()):
        return Kept()
    try:
        done = retain(store, project, now=now)
    except RoleTaken:
        since = last.retained_on if last is not None else ""
        if since and (day - day.fromisoformat(since)).days > WAITS_DAYS:
            raise
        return Kept(notes=("retention waits: a run is at work; the next pass of the watch applies it",))
    return Kept(done=done, notes=_notes(done))


def _notes(done: Retained) -> tuple[str, ...]:
    found = []
    if done.kept_for_a_release:
        found.append(f"{done.kept_for_a_release:,} artifacts are over and stay: a serving release stands on them")
    if done.undated:
        found.append(f"{done.undated:,} rows of the log have no time; nothing says when theirs is over")
    return tuple(found)
