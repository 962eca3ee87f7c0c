"""A waiver: two people take a finding upon themselves, for a while, with a reason and something done instead."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass

REASON_CHARS = 40
CONTROL_CHARS = 20
MOST_DAYS = 30
MOST_LIVE = 3
"""Waivers in force at once for one plan; a fourth has no effect."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiver:
    """One check that need not pass for one plan, until a day."""

    check: str
    """Id of the check, for example "G07"."""
    plan: str
    """Digest of the plan, which covers weights, bars, slices and sealed rows: another student needs another waiver."""
    by: str
    """Who takes it upon himself or herself."""
    second: str
    """Another person who agrees."""
    reason: str
    """Why it may ship all the same."""
    control: str
    """What is done instead."""
    given: str
    """ISO date."""
    until: str
    """ISO date of the last day."""


def waiver_problems(waiver: Waiver) -> Iterator[str]:
    """
    What makes a waiver worth nothing.

    Args:
        waiver: as somebody wrote it.

    Returns: one line each; none for a sound one.
    """
    by, second = (" ".join(name.split()).casefold() for name in (waiver.by, waiver.second))
    if not by or not second or by == second:
        yield f"by {waiver.by!r} and second {waiver.second!r}: two persons are needed"
    for key, text, least in (("reason", waiver.reason, REASON_CHARS), ("control", waiver.control, CONTROL_CHARS)):
        length = len(" ".join(text.split()))
        if length < least:
            yield f"{key} has {length} characters; write at least {least}"
    if not waiver.check.strip() or not waiver.plan.strip():
        yield "it names no check or no plan"
    try:
        days = (dt.date.fromisoformat(waiver.until) - dt.date.fromisoformat(waiver.given)).days
    except ValueError:
        yield f"given {waiver.given!r}, until {waiver.until!r}: write dates as 2026-03-01"
        return
    if not 0 <= days <= MOST_DAYS:
        yield f"it would hold for {days} days; from 0 to {MOST_DAYS} are possible"


def in_force(waiver: Waiver, today: str) -> bool:
    """
    Whether a waiver counts on a day.

    Args:
        waiver: any.
        today: ISO date.

    Returns: True for a sound waiver from the day on which it was given to its last day.
    """
    return waiver.given <= today <= waiver.until and not list(waiver_problems(waiver))
