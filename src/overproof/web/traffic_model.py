"""What the traffic pages show: rows that were looked for, and one request's whole story."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from overproof.data import Answered, Audit, AuditPlan, Completion, Dropped, Example, TrafficRecord
from overproof.errors import OverproofError
from overproof.runs import RunRecord
from overproof.store.captured import Feedback
from overproof.store.reviews import Review
from overproof.store.search import Caught, Hit, Wanted
from overproof.web.catching_up import follow
from overproof.web.place import KEPT_RUNS, Place

ROWS: Final = 50
CUT: Final = 300
BUDGET_S: Final = 0.4
STORY_S: Final = 0.2
_known: dict[tuple[str, str], Future[Mapping[str, RowInRun]]] = {}
_lock = threading.Lock()
_reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="runs")
"""A run of many rows takes seconds to read: no page waits for that."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One row of the list."""

    hit: Hit
    id: str
    text: str
    """Cut."""
    answer: str
    """What was served, or the log's own answer; empty where there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choices:
    """What can be filtered by: what the log has, the most frequent first."""

    routes: tuple[str, ...]
    reasons: tuple[str, ...]
    slices: tuple[str, ...]
    releases: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrafficList:
    """One page of rows."""

    lines: tuple[Line, ...]
    older: int | None
    tired: bool
    """The time was up; there may be more from `older` on."""
    reached: datetime | None
    caught: Caught
    choices: Choices


@dataclass(frozen=True, kw_only=True, slots=True)
class RowInRun:
    """What a run did with a request."""

    split: str
    """"train", "calibration" or "test"; of a test row nothing further is told: it stays sealed."""
    answered: Answered | None
    """What the teacher said, as the ledger holds it."""
    example: Example | None
    """As the students saw it; None where it was dropped."""
    dropped: Dropped | None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPart:
    """One run in a request's story."""

    run: RunRecord
    row: RowInRun | None
    """None where the run did not choose it: a duplicate, not drawn, or newer than the run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditPart:
    """One audit in a request's story."""

    audit: Audit
    drawn: float
    """Seconds since 1970."""
    plan: AuditPlan | None
    deadline: str
    """How long a word is waited for, as in [watch]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Story:
    """All that is known of one request."""

    record: TrafficRecord
    runs: tuple[RunPart, ...]
    """Newest first."""
    unread: int
    """Runs that are still being read: a later look has them."""
    earlier: int
    """Runs that are older than the ones that are looked at."""
    reviews: tuple[Review, ...]
    audits: tuple[AuditPart, ...]
    feedback: tuple[Feedback, ...]


def read_traffic(place: Place, wanted: Wanted, *, before: int | None = None) -> TrafficList:
    """
    Look for rows.

    Args:
        place: the task.
        wanted: which rows.
        before: where the page before ended.

    Returns: a page of rows, newest first.
    """
    caught = follow(place)
    hits = place.store.search.find(wanted, before=before, rows=ROWS, budget_s=BUDGET_S)
    lines = [
        Line(hit=hit, id=one.request.id, text=one.request.text[: CUT + 1], answer=_answer(one.completion)[: CUT + 1])
        for hit in hits.rows
        for one in place.store.traffic.numbered([hit.seq])
    ]
    return TrafficList(lines=tuple(lines), older=hits.older, tired=hits.tired, reached=hits.reached, caught=caught, choices=_choices(place))


def is_request(place: Place, text: str) -> bool:
    """Whether a text is the id of a request of the log."""
    return bool(text) and " " not in text and bool(place.store.traffic.find([text]))


def read_story(place: Place, request_id: str, *, budget_s: float = STORY_S) -> Story | None:
    """
    All that is known of one request.

    Args:
        place: the task.
        request_id: its id.
        budget_s: for reading runs that nobody has read before; what takes longer goes on, and a later look has it.

    Returns: its story; None where the log has no such request.
    """
    store = place.store
    record = store.traffic.whole(request_id)
    if record is None:
        return None
    every, until, parts = place.runs()[::-1], time.monotonic() + budget_s, []
    begun = [(run, _begun(place, run.id)) for run in every[:KEPT_RUNS]]
    for run, rows in begun:
        with contextlib.suppress(TimeoutError):
            parts.append(RunPart(run=run, row=rows.result(timeout=max(0.0, until - time.monotonic())).get(request_id)))
    release = record.served.release if record.served is not None else ""
    audits = [
        AuditPart(audit=audit, drawn=drawn, plan=store.watching.plan(release, audit.day), deadline=place.project.watch.deadline)
        for audit, drawn in (store.watching.of_request(release, request_id) if release else [])
    ]
    return Story(
        record=record, runs=tuple(parts), unread=len(begun) - len(parts), earlier=len(every[KEPT_RUNS:]),
        reviews=tuple(store.reviews.on_row(record.request.digest)), audits=tuple(audits), feedback=tuple(store.captured.feedback_on(request_id)),
    )  # fmt: skip


def moment(text: str, *, end: bool = False) -> datetime | None:
    """
    A day as somebody typed it.

    Args:
        text: ISO date.
        end: the first moment after it, instead of its first one.

    Returns: in UTC; None for anything else.
    """
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
        return day + timedelta(days=1) if end else day
    except (ValueError, OverflowError):  # the last day that there is has no day after it
        return None


def _answer(completion: Completion | None) -> str:
    return "" if completion is None else completion.value or completion.text


def _choices(place: Place) -> Choices:
    ways = sorted(place.store.search.ways(), key=lambda way: -way.requests)
    slices = dict.fromkeys(way.slice for way in ways if way.slice)
    return Choices(
        routes=tuple(dict.fromkeys(way.route for way in ways)), reasons=tuple(dict.fromkeys(way.reason for way in ways if way.reason)),
        slices=tuple(slices), releases=tuple(dict.fromkeys(way.release for way in ways if way.release)),
    )  # fmt: skip


def _begun(place: Place, run_id: str) -> Future[Mapping[str, RowInRun]]:
    """The rows of a run by request, once they are read; a run never changes."""
    key = (str(place.root), run_id)
    with _lock:
        found = _known.get(key)
        if found is None:
            while len(_known) >= 2 * KEPT_RUNS:
                _known.pop(next(iter(_known)))
            found = _known[key] = _reader.submit(_read_rows, place, run_id)
        return found


def _read_rows(place: Place, run_id: str) -> Mapping[str, RowInRun]:
    try:
        run = place.run(run_id)
        if run is None:
            return {}
        answers, labels = (run.artifacts[name].value for name in ("answers", "labels"))
    except (KeyError, OverproofError):  # made by an earlier version, or swept away
        return {}
    dropped = {(one.split, one.request.id): one for one in labels.dropped}
    found: dict[str, RowInRun] = {}
    for split in ("train", "calibration", "test"):
        examples = {one.request.id: one for one in getattr(labels, split).examples}
        for one in getattr(answers, split):
            name = one.row.request.id
            if split == "test":
                found[name] = RowInRun(split=split, answered=None, example=None, dropped=None)
            else:
                found[name] = RowInRun(split=split, answered=one, example=examples.get(name), dropped=dropped.get((split, name)))
    return found
