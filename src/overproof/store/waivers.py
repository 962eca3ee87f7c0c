"""Waivers in the log of decisions: signed by two, bound to a plan, never renewed for the same evidence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields

from overproof.errors import DataError
from overproof.evidence.waivers import MOST_LIVE, Waiver, in_force, waiver_problems
from overproof.store.decisions import Decision, Decisions

KIND = "waiver"


@dataclass(frozen=True, kw_only=True, slots=True)
class Waivers:
    """The waivers of one plan on one day."""

    live: tuple[Waiver, ...]
    """In force, oldest first, the first few of them; no more have an effect."""
    ran_out: tuple[Waiver, ...]
    """Their day has passed."""


def give_waiver(decisions: Decisions, waiver: Waiver) -> Decision:
    """
    Put a waiver on record.

    Args:
        decisions: the log.
        waiver: given today.

    Returns: the entry.
    Raises: DataError for an unsound one, for a fourth that would be in force at once, and for a second one of the same check
        and plan: a renewal needs new evidence.
    """
    wrong = list(waiver_problems(waiver))
    if wrong:
        raise DataError(f"the waiver of {waiver.check} can't be given: {'; '.join(wrong)}", next_action="mend that and say it again")
    known = list(_all(decisions, waiver.plan))
    again = [one for one in known if one.check == waiver.check]
    if again:
        raise DataError(
            f"{waiver.check} was waived for this plan until {again[0].until} by {again[0].by} and {again[0].second}",
            next_action="mend what the check finds; another waiver needs new evidence, so another run",
        )
    live = [one for one in known if in_force(one, waiver.given)]
    if len(live) >= MOST_LIVE:
        names = ", ".join(one.check for one in live)
        raise DataError(f"{len(live)} waivers are in force for this plan ({names}), and there are no more", next_action="mend one of them")
    return decisions.append(KIND, actor=waiver.by, subject=waiver.check, body=asdict(waiver))


def waivers_of(decisions: Decisions, plan: str, *, today: str) -> Waivers:
    """
    The waivers of a plan on a day.

    Args:
        decisions: the log.
        plan: digest of the plan.
        today: ISO date; from `runs.today_of`, so that a clock that was set back renews nothing.

    Returns: those in force, and those that ran out.
    """
    known = list(_all(decisions, plan))
    live = [one for one in known if in_force(one, today)][:MOST_LIVE]
    return Waivers(live=tuple(live), ran_out=tuple(one for one in known if one.until < today))


def _all(decisions: Decisions, plan: str) -> Iterator[Waiver]:
    names = {field.name for field in fields(Waiver)}
    for one in decisions.read():
        if one.kind == KIND and one.body.get("plan") == plan and set(one.body) == names:
            yield Waiver(**{name: str(one.body[name]) for name in names})
