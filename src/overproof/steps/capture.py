"""From the traffic log to the immutable window that a run works on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from overproof.data import BY_STUDENT, Traffic, TrafficRecord, named
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
    task: str = ""
    """The task's name; rows that the gateway captured for another one, or for none, stay out."""


TRUNCATED = "a field was too long to be stored whole"
THIN = "dropped while the gateway's queue was nearly full; rows drawn for them count once"


def capture(log: LogSnapshot, recipe: CaptureRecipe) -> Traffic:
    """
    Take the window of the log, oldest row first, with exactly the task's input fields.

    Args:
        log: the log's rows.
        recipe: fields and window.

    Returns: the snapshot; rows that can't be used are counted by reason, never dropped silently. Rows without a time
        come first, in the log's order, because nothing says that they are new. A row that the student answered is an
        unanswered request here: what it said must never become a label.
    Raises: DataError for an empty log, a window over a log without times, or no row that holds the input fields.
    """
    if not log.records:
        raise DataError("the traffic log is empty", next_action="run `overproof import FILES`, or capture traffic")
    left_out: Counter[str] = Counter()
    kept: list[TrafficRecord] = []
    out: list[tuple[str, str]] = []
    since = _since(log, recipe)
    stood_for = 0.0
    for record in log.records:
        reason = _why_not(record, recipe, since)
        if reason:
            left_out[reason] += 1
            out.append((reason, record.request.id))
        else:
            kept.append(_trimmed(record, recipe.fields))
            stood_for += record.served.weight - 1.0 if record.served else 0.0
    if not kept:
        worst = ", ".join(f"{reason}: {n}" for reason, n in left_out.most_common())
        raise DataError(
            f"none of the {len(log.records)} rows of the log can be used ({worst})",
            next_action="compare [task] input with the columns that were imported, and the window with the log",
        )
    kept.sort(key=lambda record: instant(record.request.at))  # stable: rows of one time stay in the log's order
    if round(stood_for):
        left_out[THIN] = round(stood_for)
    times = [record.request.at for record in kept if record.request.at]
    window = (times[0], times[-1]) if times else (None, None)
    return Traffic(records=tuple(kept), window=window, left_out=_in_order(left_out), left_rows=named(out))


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


def foreign(record: TrafficRecord, task: str) -> str:
    """
    Why a row that the gateway captured is none of a task's.

    Args:
        record: a row of the log.
        task: the task's name.

    Returns: the reason; empty for the task's own rows and for imported ones.
    """
    if record.served is None or record.served.task == task:
        return ""
    return "captured for another task" if record.served.task else "captured, but no task was recognised"


def _why_not(record: TrafficRecord, recipe: CaptureRecipe, since: datetime | None) -> str:
    request = record.request
    if record.served is not None and (why := foreign(record, recipe.task) or (TRUNCATED if record.served.truncated else "")):
        return why
    missing = [name for name in recipe.fields if name not in request.fields]
    if missing:
        return f"input field {missing[0]!r} is missing"
    if not any(request.fields[name].strip() for name in recipe.fields):
        return "no input text"
    if since is not None and request.at is None:
        return "no time, so not known to be in the window"
    return "before the window" if since is not None and instant(request.at) < since else ""


def _trimmed(record: TrafficRecord, fields: tuple[str, ...]) -> TrafficRecord:
    if record.completion is not None and record.completion.reason == BY_STUDENT:
        record = replace(record, completion=None)
    if record.served is not None:
        record = replace(record, served=None)  # how it was served decides nothing from here on
    if tuple(record.request.fields) == fields:
        return record
    return replace(record, request=replace(record.request, fields={name: record.request.fields[name] for name in fields}))


def _in_order(counts: Counter[str]) -> Mapping[str, int]:
    return dict(sorted(counts.items()))


CAPTURE = Step(name="capture", version=3, fn=capture)
