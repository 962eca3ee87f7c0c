"""Monitoring: what the watch found of the release that serves, and what people decide about it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any, Final

from overproof.errors import DataError
from overproof.web.render import part
from overproof.web.view import Ask, Data, Page, Reply, View
from overproof.web.views.traffic import SAID as REASONS
from overproof.web.watch_model import SAID, SHARES, DayWay, Monitoring, SliceError, read_watch

CHART_TOP, CHART_BOTTOM = 8, 132
"""Pixels of a chart's drawing."""
TICKS: Final = (0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Ends that an axis may have."""
NEXT: Final = {
    "re-distil": "overproof watch --once --refresh   or   overproof refresh", "roll-back": "The slice, or all, is given back to the teacher by the next pass.",
    "hold": "The rollout stays where it is until the cause is gone.", "alarm": "Nothing follows by itself.",
}  # fmt: skip


def watch(ask: Ask) -> Reply:
    """The page."""
    found = read_watch(ask.place, now=ask.now)
    said_open = _count(found)
    values = {
        "found": found, "drawings": [chart(one) for one in found.errors], "bars": bars(found), "costs": costs(found.escalation.days), "said": SAID,
        "shares": SHARES, "reasons": REASONS, "next": NEXT, "base": f"/ui/{part(ask.place.name)}", "may": ask.may("promote"), "open": said_open,
    }  # fmt: skip
    return Page(template="watch.html", title="Monitoring", values=values, live={"open": said_open})


def _count(found: Monitoring) -> str:
    parts = [f"{n} {word}{'s' if n != 1 else ''}" for n, word in ((len(found.alarms), "alarm"), (len(found.triggers), "trigger"), (len(found.holds), "hold")) if n]
    return ", ".join(parts) or "nothing"


# -- drawings ---------------------------------------------------------------------------------------------------------


def chart(one: SliceError) -> dict[str, Any]:
    """
    Places of a rate over time: x in percent of the width, y in pixels.

    Args:
        one: a slice's signal.

    Returns: band, line, bar, alarms and axis, for the template; no band for fewer than one point.
    """
    points, bar = one.points, one.reading.reference or 0.0
    need = max([bar * 1.2, *(p.high for p in points[len(points) // 4 :])], default=bar)  # the first days' intervals reach to 1
    top = next(t for t in TICKS if t >= min(1.0, need))
    first, last = (points[0].day, points[-1].day) if points else (date.min, date.min)
    wide = max(1, (last - first).days)

    def x(day: date) -> float:
        return 8.0 + 88.0 * (day - first).days / wide if last > first else 52.0

    def y(value: float) -> float:
        return CHART_BOTTOM - (CHART_BOTTOM - CHART_TOP) * min(1.0, value / top)

    steps = [{"x": x(p.day), "y": y(p.value), "low": y(p.low), "high": y(p.high), "of": p} for p in points]
    return {
        "of": one, "steps": steps, "bar": y(bar), "zero": y(0.0), "ticks": [(y(top * part), top * part) for part in (0.0, 0.5, 1.0)],
        "alarms": [(x(day), day) for day in one.alarms if points and first <= day <= last], "first": first, "last": last,
    }  # fmt: skip


def bars(found: Monitoring) -> dict[str, Any]:
    """Places of the share of escalated requests by day, one row for all and one for each reason, on one scale."""
    days, every = found.escalation.days, found.escalation
    shares = {"": [d.escalated / d.requests if d.requests else 0.0 for d in days]}
    shares |= {reason: [d.reasons.get(reason, 0.0) / d.requests if d.requests else 0.0 for d in days] for reason in every.reasons}
    top = max((max(row, default=0.0) for row in shares.values()), default=0.0) or 1.0
    total = sum(d.requests for d in days)
    rows = [
        {"reason": reason, "share": sum(d.escalated if not reason else d.reasons.get(reason, 0.0) for d in days) / total if total else None, "bars": _columns(row, top),
         "worst": max(zip(row, days, strict=True), key=lambda pair: pair[0], default=None), "top": top}
        for reason, row in shares.items()
    ]  # fmt: skip
    return {"rows": rows, "days": days}


def costs(days: Sequence[DayWay]) -> dict[str, Any]:
    """Places of the costs by day."""
    kinds = {"teacher’s answers to callers": [d.usd for d in days], "audits": [d.audits_usd for d in days], "canary prompts": [d.canaries_usd for d in days]}
    return {"rows": [{"kind": kind, "usd": sum(row), "bars": _columns(row, max(row, default=0.0) or 1.0), "top": max(row, default=0.0)} for kind, row in kinds.items()]}


def _columns(row: Sequence[float], top: float) -> list[dict[str, float]]:
    wide = 100.0 / max(1, len(row))
    return [{"x": at * wide, "w": 0.8 * wide, "h": 28.0 * value / top} for at, value in enumerate(row) if value > 0]


# -- what people decide -------------------------------------------------------------------------------------------------


def close(ask: Ask) -> Reply:
    """Close an alarm."""
    alarm, (by, why) = ask.said("alarm", needed="name the alarm"), _who(ask)
    if not ask.place.store.watching.close_alarm(alarm, by=by, why=why, at=ask.now):
        raise DataError(f"alarm {alarm!r} is not open", next_action="load the page again")
    return Data(value={"said": "The alarm is closed; a hold that it caused ends with the next pass."})


def dismiss(ask: Ask) -> Reply:
    """Dismiss a trigger."""
    trigger, (by, why) = ask.said("trigger", needed="name the trigger"), _who(ask)
    if not ask.place.store.watching.end_trigger(trigger, state="dismissed", outcome=f"{by}: {why}", at=ask.now):
        raise DataError(f"trigger {trigger!r} is not open", next_action="load the page again")
    return Data(value={"said": "The trigger is dismissed."})


def unhold(ask: Ask) -> Reply:
    """Let the rollout go on, whatever holds it."""
    by, why = _who(ask)
    if not ask.place.store.watching.release_hold(ask.place.name, by=by, why=why, at=ask.now):
        raise DataError("nothing holds the rollout", next_action="load the page again")
    return Data(value={"said": "The rollout may go on."})


def _who(ask: Ask) -> tuple[str, str]:
    by = ask.said("by", most=100, needed="say who decides")
    return (f"{by} (key {ask.caller.id})" if ask.caller.id else by), ask.said("why", needed="give the reason: it goes into the log of decisions")


VIEWS = (
    View(path="/{task}/watch", answer=watch, nav="Monitoring"),
    View(path="/{task}/watch/close", answer=close, method="POST", scope="promote"),
    View(path="/{task}/watch/dismiss", answer=dismiss, method="POST", scope="promote"),
    View(path="/{task}/watch/unhold", answer=unhold, method="POST", scope="promote"),
)
