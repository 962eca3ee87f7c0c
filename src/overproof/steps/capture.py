"""From the traffic log to the immutable window that a run works on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from overproof.data import Traffic, TrafficRecord
from overproof.errors import DataError
from overproof.store.artifacts import Step


@dataclass(frozen=True, kw_only=True, slots=True)
class LogSnapshot:
    """All rows of the traffic log, in the log's own order."""

    records: tuple[TrafficRecord, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptureRecipe:
    """Which part of the log a run works on."""

    fields: tuple[str, ...]
    """The task's input fields, in their order."""
    window_days: float | None = None
    """Rows older than so many days before the newest one stay out; None takes the whole log."""


def capture(log: LogSnapshot, recipe: CaptureRecipe) -> Traffic:
    """
    Take the window of the log, oldest row first, with exactly the task's input fields.

    Args:
        log: the log's rows.
        recipe: fields and window.

    Returns: the snapshot; rows that can't be used are counted by reason, never dropped silently. Rows without a time
        come first, in the log's order, because nothing says that they are new.
    Raises: DataError for an empty log, a window over a log without times, or no row that holds the input fields.
    """
    if not log.records:
        raise DataError("the traffic log is empty", next_action="run `overproof import FILES`, or capture traffic")
    left_out: Counter[str] = Counter()
    kept: list[TrafficRecord] = []
    since = _since(log, recipe)
    for record in log.records:
        reason = _why_not(record, recipe, since)
        if reason:
            left_out[reason] += 1
        else:
            kept.append(_trimmed(record, recipe.fields))
    if not kept:
        worst = ", ".join(f"{reason}: {n}" for reason, n in left_out.most_common())
        raise DataError(
            f"none of the {len(log.records)} rows of the log can be used ({worst})",
            next_action="compare [task] input with the columns that were imported, and the window with the log",
        )
    kept.sort(key=lambda record: instant(record.request.at))  # stable: rows of one time stay in the log's order
    times = [record.request.at for record in kept if record.request.at]
    window = (times[0], times[-1]) if times else (None, None)
    return Traffic(records=tuple(kept), window=window, left_out=_in_order(left_out))


def instant(at: str | None) -> datetime:
    """
    A request's time for comparing.

    Args:
        at: ISO 8601, UTC where it names no zone; None sorts before every time.

    Returns: a time in UTC.
    """
    if at is None:
        return datetime.min.replace(tzinfo=UTC)
    when = datetime.fromisoformat(at)
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)


def _since(log: LogSnapshot, recipe: CaptureRecipe) -> datetime | None:
    if recipe.window_days is None:
        return None
    newest = max((instant(record.request.at) for record in log.records if record.request.at), default=None)
    if newest is None:
        raise DataError(
            f"a window of {recipe.window_days:g} days is asked for, but no row of the log has a time",
            next_action="import with the time column mapped, or take `window` out of [traffic]",
        )
    return newest - timedelta(days=recipe.window_days)


def _why_not(record: TrafficRecord, recipe: CaptureRecipe, since: datetime | None) -> str:
    request = record.request
    missing = [name for name in recipe.fields if name not in request.fields]
    if missing:
        return f"input field {missing[0]!r} is missing"
    if not any(request.fields[name].strip() for name in recipe.fields):
        return "no input text"
    if since is not None and request.at is None:
        return "no time, so not known to be in the window"
    return "before the window" if since is not None and instant(request.at) < since else ""


def _trimmed(record: TrafficRecord, fields: tuple[str, ...]) -> TrafficRecord:
    if tuple(record.request.fields) == fields:
        return record
    return replace(record, request=replace(record.request, fields={name: record.request.fields[name] for name in fields}))


def _in_order(counts: Counter[str]) -> Mapping[str, int]:
    return dict(sorted(counts.items()))


CAPTURE = Step(name="capture", version=1, fn=capture)
