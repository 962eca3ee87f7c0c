"""What the log of decisions says about runs, and which day it is for a project."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Literal

from overproof.evidence import Release
from overproof.settings import Owner
from overproof.store.decisions import Decision
from overproof.store.project_store import Store

ReviewWord = Literal["current", "due", "overdue", "lapsed"]
REVIEW = "review"
"""Kind of the decision by which an owner signs a release off for another while."""
DUE_DAYS = 14
"""So long before its day a review is due."""
LAPSE_DAYS = 30
"""Overdue for longer than this, a review has lapsed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """A finished run as the decision log holds it."""

    id: str
    at: str
    """ISO 8601 in UTC."""
    outcome: str
    """"release" or "refusal"."""
    headline: str
    digests: Mapping[str, str]
    """Name of a result to its digest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReviewState:
    """Where the owner's review of a release stands."""

    word: ReviewWord
    due: str
    """ISO date."""
    why: str
    """One sentence."""
    lapses: str
    """The first ISO date on which it has lapsed, if nobody signs."""


def runs_of(store: Store) -> list[RunRecord]:
    """
    Every run that reached a verdict, oldest first.

    Args:
        store: the project's store.

    Returns: one record for each distinct outcome.
    """
    return [
        RunRecord(id=d.subject, at=d.at, outcome=d.body["outcome"], headline=d.body["headline"], digests=d.body["digests"])
        for d in store.decisions.read()
        if d.kind == "gate"
    ]


def today_of(store: Store) -> date:
    """
    The later of the wall clock and the newest decision: setting a clock back renews nothing.

    Args:
        store: the project's store.

    Returns: the day that decisions are made on, in UTC.
    """
    newest = max((d.at[:10] for d in store.decisions.read()), default="")
    return max(datetime.now(UTC).date(), date.fromisoformat(newest) if newest else date.min)


def clock_of(store: Store, now: datetime) -> datetime:
    """
    The time that duties are judged by: the later of `now` and the newest decision, so that a clock that was set back renews nothing.

    Args:
        store: the project's store.
        now: in UTC.

    Returns: a time in UTC.
    """
    newest = max((d.at for d in store.decisions.read()), default="")
    return max(now, datetime.fromisoformat(newest)) if newest else now


def review_state(release: Release, decisions: Iterable[Decision], owner: Owner | None, now: datetime) -> ReviewState:
    """
    Where the owner's review stands: current, due 14 days before its day, overdue after it, lapsed after 30 days more.

    Args:
        release: the one that serves.
        decisions: the log of decisions, oldest first.
        owner: as the project file names them now.
        now: from `clock_of`.

    Returns: the state. An owner who has never signed this release, and did not when it was made, is overdue at once.
    """
    signed = [d for d in decisions if d.kind == REVIEW and d.subject == release.id]
    due = date.fromisoformat(signed[-1].body["next_due"] if signed else release.review_due)
    waived = min((f.waiver for f in release.findings if f.waiver is not None), key=lambda w: w.until, default=None)
    if waived is not None and (ends := date.fromisoformat(waived.until)) < due:
        due = ends  # no signature renews a waiver: another release has to stand without it
    today, lapses = now.date(), due + timedelta(days=LAPSE_DAYS + 1)
    late = (today - due).days
    known = [release.owner, *(str(d.body["reviewer"]) for d in signed)]
    word: ReviewWord = "lapsed" if late > LAPSE_DAYS else "overdue" if late > 0 else "due" if -late <= DUE_DAYS else "current"
    said = f"the review of release {release.id} "
    if late > 0:
        ago = f"{due.isoformat()}, {late} day{'s' if late != 1 else ''} ago"
        ran_out = waived is not None and waived.until == due.isoformat()
        why = f"the waiver of {waived.check} under which release {release.id} ships ran out on {ago}" if waived and ran_out else said + f"was due on {ago}"
    elif owner is None:
        word, why = "overdue", f"nobody is named as the owner of release {release.id}"
    elif not any(owner.name.casefold() == name.partition(" <")[0].casefold() for name in known):
        word, why = "overdue", f"{owner.name} is named as owner and has signed no review of release {release.id}"
    else:
        why = said + f"is due on {due.isoformat()}"
    return ReviewState(word=word, due=due.isoformat(), why=why, lapses=lapses.isoformat())
