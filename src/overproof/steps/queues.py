"""Which rows to review next: the audit queue by chance, the fix queue by what a person's word is worst needed for."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from overproof.data import Example, Labelled, PromptSet
from overproof.errors import DataError
from overproof.measure.mending import LEAST_REVIEWED, review_order
from overproof.steps.mend import Learned
from overproof.steps.reviewing import AUDIT, FIX, Outcome
from overproof.store.reviews import Queue, Reviews

Split = Literal["train", "calibration", "test", "live"]
"""Rows of a run's prompt set, or audited answers of the release that serves."""
CLOSE = 0.1
"""Below this lead the two likeliest answers are as good as even."""
SPLITS: tuple[Split, ...] = ("train", "calibration", "test")


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """One row for a person to label. It carries no model's answer: whoever reviews a drawn row is blind to it."""

    digest: str
    request_id: str
    text: str
    queue: Queue
    split: Split
    place: int = 0
    """Place in the draw of its split, from 0; rows of the fix queue were not drawn."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """What the log says of the request: tier, language, channel, …"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reason:
    """Why a row of the fix queue is asked. It names no answer: whoever reads it is still blind."""

    wrong: int
    """Of the reviewed training rows on which the teacher says what it says here: those on which it was wrong."""
    reviewed: int
    """Those rows."""
    lead: float
    """Lead of the likeliest answer over the next, by the model that reviews teach, in [0, 1]; 0 is as doubtful as can be."""
    pending: bool
    """The teacher's label has a slice that failed or is undecided."""
    marked: bool
    """A model of the other rows contradicts the teacher."""
    weight: float
    """Requests of the log that the row stands for."""

    @property
    def words(self) -> str:
        """For the reviewer."""
        said = [f"{self.wrong} of {self.reviewed} reviewed rows on which the teacher says the same were wrong" if self.reviewed else "no row on which the teacher says the same is reviewed yet"]
        said.append("what reviews taught can hardly choose between two answers" if self.lead < CLOSE else f"what reviews taught leans to one answer by {100 * self.lead:.0f} points")
        said += ["its label is undecided or failed in the last run"] * self.pending + ["a model of the other rows contradicts the teacher"] * self.marked
        return "; ".join([*said, *([f"it stands for {self.weight:.0f} requests"] if self.weight >= 2 else [])])


def audit_queue(labelled: Labelled, reviews: Reviews, *, split: Split, seed: int, reviewer: str = "") -> tuple[Asked, ...]:
    """
    Rows in an order that chance has fixed, so that those reviewed so far are a plain random sample of the split.

    Args:
        labelled: the three sets.
        reviews: rows that this reviewer has spoken on, or anyone where none is named, are left out.
        split: whose rows.
        seed: of the draw.
        reviewer: lets a second person review the same rows from the same start.

    Returns: the rest of the draw, one row for each content.
    """
    rows = {e.request.digest: e for e in reversed(_examples(labelled, split))}
    done = {r.digest for r in reviews.rows if r.queue == AUDIT and reviewer in ("", r.reviewer)}
    drawn = sorted(rows, key=lambda digest: hashlib.sha256(f"audit {seed} {digest}".encode()).hexdigest())
    return tuple(_asked(rows[d], AUDIT, split, place) for place, d in enumerate(drawn) if d not in done)


def fix_queue(
    labelled: Labelled, prompts: PromptSet, learned: Learned | None, outcome: Outcome, pending: Sequence[str] = (),
    *, marked: Collection[str] = (),
) -> tuple[Asked, ...]:
    """
    Training rows by falling worth of a person's word, one for each near-duplicate group.

    Args:
        labelled: the filter's result.
        prompts: for the groups.
        learned: what reviewed rows taught so far.
        outcome: settled rows and conflicts; neither comes again.
        pending: labels whose slice is undecided or failed in the last run; they count double.

        marked: digests of suspicious rows; they count double as well.

    Returns: the queue.
    Raises: DataError where too few rows are reviewed to know what is worth a look.
    """
    if learned is None:
        raise DataError(
            f"the fix queue needs at least {LEAST_REVIEWED} reviewed training rows with two labels, to know where to look",
            next_action=f"review {LEAST_REVIEWED} or more rows first: overproof review --queue audit",
        )
    examples = labelled.train.examples
    groups: Mapping[str, str] = {row.request.id: row.group for row in prompts.train}
    order = review_order(
        learned.posterior,
        learned.reviewed,
        weight=np.array([e.weight for e in examples]),
        pending=np.array([e.target in pending or e.request.digest in marked for e in examples], dtype=bool),
        cluster=[groups.get(e.request.id, e.request.id) for e in examples],
    )
    open_rows = {c.digest for c in outcome.conflicts}
    return tuple(_asked(examples[i], FIX, "train") for i in order.tolist() if examples[i].request.digest not in open_rows)


def fix_reasons(
    labelled: Labelled, learned: Learned, outcome: Outcome, pending: Sequence[str] = (), *, marked: Collection[str] = ()
) -> dict[str, Reason]:
    """
    Why each training row stands where it stands in the fix queue.

    Args:
        labelled: the filter's result.
        learned: what reviewed rows taught so far.
        outcome: settled rows.
        pending: as given to `fix_queue`.
        marked: as given to `fix_queue`.

    Returns: a reason for each digest.
    """
    examples = labelled.train.examples
    settled = [(e.target, e.target != outcome.settled[e.request.digest].label) for e in examples if e.request.digest in outcome.settled]
    reviewed, wrong = Counter(said for said, _ in settled), Counter(said for said, bad in settled if bad)
    lead = learned.posterior.lead.tolist()
    return {
        e.request.digest: Reason(
            wrong=wrong[e.target], reviewed=reviewed[e.target], lead=lead[i], pending=e.target in pending,
            marked=e.request.digest in marked, weight=e.weight,
        )
        for i, e in enumerate(examples)
    }  # fmt: skip


def _examples(labelled: Labelled, split: Split) -> tuple[Example, ...]:
    if split == "train":
        return labelled.train.examples
    return labelled.calibration.examples if split == "calibration" else labelled.test.examples


def _asked(example: Example, queue: Queue, split: Split, place: int = 0) -> Asked:
    request = example.request
    return Asked(
        digest=request.digest, request_id=request.id, text=request.text, queue=queue, split=split, place=place,
        attributes=request.attributes,
    )  # fmt: skip
