"""What people said is the true label of a row: append-only, one line a word, nothing ever overwritten."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from overproof.errors import StoreError
from overproof.store.decisions import now
from overproof.store.local import Db

Queue = Literal["audit", "fix"]
Kind = Literal["review", "adjudication", "withdrawn"]
JUDGED = "judged "
"""Before the digest of a word on an answer, right or wrong: it says nothing of what the row's true answer is."""

LIVE = "live "
"""Before the digest of a word on an audited live request: it counts for the audit, and for no set of rows that a run has drawn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Review:
    """One person's word on one row."""

    digest: str
    """Digest of the request's fields: the word holds for every row with the same content. After `JUDGED`: of message, reference and answer; after `LIVE`: of a live request's fields."""
    request_id: str
    """The row that was shown."""
    label: str
    """The true label; empty where an earlier word is withdrawn."""
    reviewer: str
    """Who said so."""
    queue: Queue
    """"audit": chance chose the row, so that its label may prove something; "fix": it was picked for looking wrong."""
    kind: Kind = "review"
    """"adjudication" ends a conflict between reviewers; "withdrawn" takes the reviewer's earlier word back."""
    blind: bool = True
    """True where the reviewer saw neither the teacher's nor the student's answer."""
    seconds: float | None = None
    """How long it took, where somebody measured it."""
    at: str = ""
    """ISO 8601 in UTC; set by the store."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reviews:
    """All words at one moment, oldest first; withdrawn ones and what they withdrew are left out."""

    rows: tuple[Review, ...]


_COLUMNS = "digest, request_id, label, reviewer, queue, kind, blind, seconds, at"
_INSERT = f"INSERT INTO review({_COLUMNS}) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)"


class ReviewLog:
    """
    The reviews of a project.

    Args:
        db: the open `project.db`.
    """

    def __init__(self, db: Db) -> None:
        self._db = db

    def append(self, reviews: Iterable[Review]) -> int:
        """
        Add words; all of them or none, durable on return. The same word again from the same person adds nothing.

        Args:
            reviews: what was said; `at` is set here.

        Returns: how many were new.
        Raises: StoreError for a word without label, row or reviewer, or of an unknown queue or kind; nothing is added.
        """
        asked = list(reviews)
        for review in asked:
            _check(review)
        added = 0
        with self._db.write() as connection:
            for r in asked:
                last = connection.execute(
                    "SELECT label, kind FROM review WHERE digest=? AND reviewer=? AND queue=? ORDER BY seq DESC LIMIT 1",
                    (r.digest, r.reviewer, r.queue),
                ).fetchall()
                if last == [(r.label, r.kind)]:
                    continue
                values = (r.digest, r.request_id, r.label, r.reviewer, r.queue, r.kind, int(r.blind), r.seconds, now())
                connection.execute(_INSERT, values)
                added += 1
        return added

    def live(self, *, judged: bool = False, audited: bool = False) -> Reviews:
        """
        The last word of each person on each row and queue, in the order in which they were said.

        Args:
            judged: words on judged answers, instead of on rows.
            audited: words on audited live requests, instead of on rows.

        Returns: the words.
        """
        query = f"""SELECT {_COLUMNS} FROM review r WHERE seq = (
            SELECT max(seq) FROM review WHERE digest=r.digest AND reviewer=r.reviewer AND queue=r.queue)
            AND kind <> 'withdrawn' ORDER BY seq"""  # noqa: S608 - a constant
        words = (_review(row) for row in self._db.rows(query))
        wanted = (judged, audited)
        return Reviews(rows=tuple(word for word in words if (word.digest.startswith(JUDGED), word.digest.startswith(LIVE)) == wanted))

    def on_row(self, digest: str) -> Sequence[Review]:
        """Every word on a request's content, as a row of a run or as an audited live request; withdrawn ones included, oldest first."""
        query = f"SELECT {_COLUMNS} FROM review WHERE digest IN (?, ?) ORDER BY seq"  # noqa: S608 - a constant
        return [_review(row) for row in self._db.rows(query, (digest, LIVE + digest))]

    def history(self) -> Sequence[Review]:
        """Every word ever said, withdrawn ones included, oldest first."""
        query = f"SELECT {_COLUMNS} FROM review ORDER BY seq"  # noqa: S608 - a constant
        return [_review(row) for row in self._db.rows(query)]


def _check(review: Review) -> None:
    known = review.queue in get_args(Queue) and review.kind in get_args(Kind)
    bad_time = review.seconds is not None and not (math.isfinite(review.seconds) and review.seconds >= 0)
    said = bool(review.label) == (review.kind != "withdrawn")
    if not (known and said and review.digest and review.reviewer.strip()) or bad_time:
        raise StoreError(
            f"a review of row {review.request_id!r} can't be kept: {review!r}",
            next_action="name a row, a label, a person and one of the queues audit and fix",
        )


def _review(row: Sequence[object]) -> Review:
    values = dict(zip(_COLUMNS.split(", "), row, strict=True))
    return Review(**{**values, "blind": bool(values["blind"])})  # type: ignore[arg-type]
