"""What people owe a release: the owner's review, and attestations that still cover what is done with the teacher's answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

from overproof.asking import clear_recipe, honoured, terms_of
from overproof.data import Clearance
from overproof.errors import OverproofError, TermsError
from overproof.evidence import Release
from overproof.project import Project
from overproof.runs import DUE_DAYS, ReviewState, clock_of, review_state
from overproof.settings import TeacherTable
from overproof.steps.clear import clear
from overproof.store.project_store import Store
from overproof.watch.reference import reference_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Attested:
    """Whether a terms record still covers one teacher's answers."""

    who: str
    """The table of the project file, for example "[teacher]"."""
    record: str
    """Name of the record; empty where it can't be read."""
    expires: str
    """ISO date; empty where it has no end."""
    word: Literal["current", "due", "expired"]
    """"due": it ends within 14 days."""
    why: str
    """One sentence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Duties:
    """Where people stand with what they owe."""

    review: ReviewState | None
    """None where nothing serves: there is nothing to review."""
    attestations: tuple[Attested, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What people should be told now: all that isn't current."""
        review = (self.review.why,) if self.review is not None and self.review.word != "current" else ()
        return (*review, *(one.why for one in self.attestations if one.word != "current"))


def duties_of(store: Store, project: Project, *, release: Release | None, now: datetime) -> Duties:
    """
    Look at everything that people owe; writes nothing.

    Args:
        store: the project's store.
        project: the loaded project.
        release: the one that serves; None where none does.
        now: in UTC; a clock that was set back counts for nothing, see `runs.clock_of`.

    Returns: where they stand.
    """
    clock = clock_of(store, now)
    review = None if release is None else review_state(release, store.decisions.read(), project.owner, clock)
    asked = [project.teacher, *project.committee]
    found = [_attested(store, project, table, clock.date(), project_release=release if table is project.teacher else None) for table in asked]
    return Duties(review=review, attestations=tuple(found))


def attestation(clearance: Clearance, today: date, *, who: str = "[teacher]") -> Attested:
    """
    Where a clearance stands.

    Args:
        clearance: as minted from the record.
        today: from `runs.clock_of`.
        who: for words.

    Returns: the state.
    """
    ends = clearance.expires or ""
    left = (date.fromisoformat(ends) - today).days if ends else None
    named = f"the attestation {clearance.record!r} of {who}"
    if left is None:
        return Attested(who=who, record=clearance.record, expires="", word="current", why=f"{named} has no end")
    if left < 0:
        return Attested(who=who, record=clearance.record, expires=ends, word="expired", why=f"{named} ran out on {ends}")
    word: Literal["current", "due"] = "due" if left <= DUE_DAYS else "current"
    return Attested(who=who, record=clearance.record, expires=ends, word=word, why=f"{named} ends on {ends}, in {left} days")


def _attested(store: Store, project: Project, table: TeacherTable, today: date, *, project_release: Release | None) -> Attested:
    who = "[teacher]" if table is project.teacher else f"[[committee]] {table.model!r}"
    try:
        terms = terms_of(project, table)
    except TermsError as error:
        return Attested(who=who, record="", expires="", word="expired", why=f"{who}: {error.what}")
    record = terms.attestation
    try:
        present = clear(terms, clear_recipe(project, terms, today.isoformat(), table))
    except TermsError as error:
        over = bool(record.expires) and record.expires < today.isoformat()
        why = f"the attestation {record.id!r} of {who} ran out on {record.expires}" if over else f"{who}: {error.what}"
        return Attested(who=who, record=record.id, expires=record.expires, word="expired", why=why)
    found = attestation(present, today, who=who)
    return _lineage(store, project_release, present, today) or found


def _lineage(store: Store, release: Release | None, present: Clearance, today: date) -> Attested | None:
    """What the release learned under: an attestation of its own that ran out and that the present record doesn't take over."""
    then = None if release is None else _clearance_of(store, release)
    if then is None or then.record == present.record or then.id in honoured(store, present) or then.record in honoured(store, present):
        return None
    own = attestation(then, today, who="the release's labels")
    return own if own.word == "expired" else None


def _clearance_of(store: Store, release: Release) -> Clearance | None:
    try:
        found = reference_of(store, release).artifact("clearance").value
    except OverproofError:  # made elsewhere: what it learned under is not known here
        return None
    return found if isinstance(found, Clearance) else None
