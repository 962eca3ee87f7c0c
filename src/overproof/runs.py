"""What the log of decisions says about runs, and which day it is for a project."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime

from overproof.store.project_store import Store


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
