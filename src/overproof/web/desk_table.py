"""The desks that pages are asked from: opened once for each state of the rows, slow work done aside and kept."""

from __future__ import annotations

import logging
import threading
import weakref
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from overproof.desk import Desk, FixQueue, open_desk, open_live_desk
from overproof.errors import DataError, OverproofError
from overproof.measure.mending import LEAST_REVIEWED
from overproof.project import Project
from overproof.steps.queues import Asked, Split
from overproof.steps.teacher_errors import TeacherErrors
from overproof.web.place import Place

Table = Literal["audit", "fix", "judge", "conflicts"]
TABLES: Final[tuple[Table, ...]] = ("audit", "fix", "judge", "conflicts")
ROWS: Final = ("train", "calibration", "sealed", "live")
ANEW: Final = 20
"""New words after which the fix queue is learned anew."""
REACH: Final = 200
"""Rows from the head of a queue that a person may speak on: further ones were not asked yet."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """Where the slow part stands."""

    queue: FixQueue | None
    """As last learned; None where it is not there yet."""
    working: bool
    """Whether it is being learned now."""
    problem: str = ""
    """Why it is not there; empty where it is, or where it is on its way."""


class Tables:
    """
    The desks of one place.

    Args:
        place: the task.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._lock = threading.Lock()
        self._opening = threading.Lock()
        self._desk: Desk | None = None
        self._prepared: tuple[tuple[str, ...], FixQueue] | None = None
        self._failed: tuple[tuple[str, ...], int, str] | None = None
        self._errors: tuple[tuple[Any, ...], TeacherErrors] | None = None
        self._worker: threading.Thread | None = None
        self.seen: set[tuple[str, str]] = set()
        """(reviewer, digest) of rows whose teacher's answer was sent to that person's browser: their word is not blind."""

    @property
    def project(self) -> Project:
        """The project file as the pages started with."""
        return self._place.project

    def desk(self) -> Desk:
        """The desk over the rows as they stand. Raises DataError where there are none yet."""
        with self._opening:
            self._desk = open_desk(self._place.store, self.project, known=self._desk)
            return self._desk

    def of(self, rows: str) -> Desk:
        """The desk for live answers, or for a run's rows."""
        return open_live_desk(self._place.store, self.project) if rows == "live" else self.desk()

    def queue(self, table: Table, rows: str, reviewer: str) -> tuple[Asked, ...]:
        """
        Rows that this person has not spoken on, in order.

        Args:
            table: which queue.
            rows: whose rows.
            reviewer: who is asked.

        Returns: the rows; none while the fix queue is not there yet.
        Raises: DataError where there is no such queue here.
        """
        desk = self.of(rows)
        if table == "conflicts":
            return desk.conflicts()
        if table == "judge":
            return desk.answers(reviewer)
        if table == "audit":
            return desk.queue("audit", split_of(rows), reviewer)
        if rows != "train" or not desk.output.labels:
            raise DataError("the fix queue is of training rows with labels alone: picked rows prove nothing", next_action="choose the audit queue")
        queue = self.prepared(desk).queue
        if queue is None:
            return ()
        outcome = desk.outcome
        known = set(outcome.settled) | {c.digest for c in outcome.conflicts}
        return tuple(row for row in queue.rows if row.digest not in known)

    def row(self, table: Table, rows: str, reviewer: str, digest: str) -> Asked:
        """
        A row that this person may speak on now: near the head of their queue, or one they have spoken on.

        Args:
            table: which queue.
            rows: whose rows.
            reviewer: who speaks.
            digest: of the row.

        Returns: the row as it was asked.
        Raises: DataError where it was not asked.
        """
        for one in self.queue(table, rows, reviewer)[:REACH]:
            if one.digest == digest:
                return one
        desk = self.of(rows)
        said = [r for r in self._place.store.reviews.live(judged=table == "judge", audited=rows == "live").rows if r.digest == digest and r.reviewer == reviewer]
        known = {one.digest: one for one in desk.answers()} if table == "judge" else desk.known()
        if not said or digest not in known:
            raise DataError("this row was not asked", next_action="load the page again")
        return replace(known[digest], queue=said[-1].queue)

    def errors(self, desk: Desk) -> TeacherErrors:
        """The teacher's errors by people's words so far, read again only when somebody has said something."""
        words = self._place.store.reviews.live().rows
        state = (desk.identity, len(words), words[-1].at if words else "")
        if self._errors is None or self._errors[0] != state:
            self._errors = (state, desk.errors_so_far())
        return self._errors[1]

    def prepared(self, desk: Desk | None = None) -> Prepared:
        """The fix queue as far as it is there; starts learning it where it is missing or has grown old."""
        desk = desk or self.desk()
        words = self._place.store.reviews.live().rows
        with self._lock:
            queue = self._prepared[1] if self._prepared is not None and self._prepared[0] == desk.identity else None
            working = self._worker is not None and self._worker.is_alive()
            failed = self._failed is not None and self._failed[:2] == (desk.identity, len(words))
            stale = queue is None or abs(len(words) - queue.words) >= ANEW
            if stale and not working and not failed and len(words) >= LEAST_REVIEWED:
                self._worker = threading.Thread(target=self._learn, args=(desk, len(words)), name="fix-queue", daemon=True)
                self._worker.start()
                working = True
        if queue is None and len(words) < LEAST_REVIEWED:
            return Prepared(queue=None, working=False, problem=f"{len(words)} of at least {LEAST_REVIEWED} words are there: review the audit queue of training rows first, so that they show where to look")
        return Prepared(queue=queue, working=working, problem=self._failed[2] if failed and self._failed is not None and not working else "")

    def _learn(self, desk: Desk, words: int) -> None:
        try:
            found = desk.fix()
        except OverproofError as problem:
            with self._lock:
                self._failed = (desk.identity, words, f"{problem.what}; {problem.next_action}")
        except Exception as error:  # noqa: BLE001 - said on the page; the pages go on
            _log.error("the fix queue failed: %s", type(error).__name__)
            with self._lock:
                self._failed = (desk.identity, words, "it could not be learned; the log says more")
        else:
            with self._lock:
                self._prepared, self._failed = (desk.identity, found), None


_TABLES: weakref.WeakKeyDictionary[Place, Tables] = weakref.WeakKeyDictionary()
_MAKING = threading.Lock()


def tables_of(place: Place) -> Tables:
    """The desks of a place, the same at each call."""
    with _MAKING:
        found = _TABLES.get(place)
        if found is None:
            found = _TABLES[place] = Tables(place)
        return found


def split_of(rows: str) -> Split:
    """The rows that a page, like the command line, calls sealed are the test split."""
    return {"train": "train", "calibration": "calibration", "sealed": "test", "live": "live"}[rows]  # type: ignore[return-value]
