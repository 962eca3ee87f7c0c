"""How the gateway answered a request: the words that log, headers, metrics and rollout share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Route = Literal["student", "teacher"]
Reason = Literal[
    "confident", "below_threshold", "out_of_scope", "mixed", "slice_not_certified", "stage", "student_error", "deadline", "forced",
    "no_release", "unmatched", "unsupported", "expired", "outage",
]  # fmt: skip
"""Why a route was taken. "stage": the rollout gives this request to the teacher; "unsupported": the call asks for something
that a student can't give (tools, several answers, token probabilities); "outage": the student answered since the teacher
could not, and the owner's policy allows it."""
Stage = Literal["teacher-only", "shadow", "canary", "full"]
"""Where the rollout of a task stands."""
REASONS: tuple[Reason, ...] = get_args(Reason)
STAGES: tuple[Stage, ...] = get_args(Stage)
BY_STUDENT = "answered by the student"
"""`Completion.reason` of a student's own answer: it may never become a label."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """What the gateway did with one request; stands beside request and completion in the traffic log."""

    route: Route
    reason: Reason
    stage: Stage
    """Of the task, when the request came."""
    endpoint: str
    """Path that was called, without query."""
    status: int
    """HTTP status of the answer; 499 where the caller left, 0 where nothing was sent."""
    latency_s: float
    """From the request's last byte to the answer's last byte."""
    overhead_s: float
    """Share of `latency_s` that was neither the teacher's nor the student's."""
    first_byte_s: float | None = None
    """From the request's last byte to the answer's first one; None where nothing was sent."""
    streamed: bool = False
    task: str = ""
    """Empty where no task was recognised."""
    release: str = ""
    """Release that was asked, in shadow too; empty where none was."""
    slice: str = ""
    """Certification slice of the release."""
    guess: str | None = None
    """What the student says, served or not; None where it was not asked or has no answer."""
    confidence: float | None = None
    """Its calibrated confidence, in [0, 1]."""
    kept: bool = False
    """Whether the student would answer by its threshold, whatever the stage."""
    key: str = ""
    """Id of the caller's key, never the key; empty without authentication."""
    weight: float = 1.0
    """How many requests this row stands for, where the queue was nearly full and rows were drawn."""
    truncated: bool = False
    """Whether a field was too long to be stored whole; such a row is in no prompt set."""
    degraded: bool = False
    """Whether the student stood in for a teacher that could not be reached."""
    asked: str = ""
    """What the call asked beyond its input, see `call_digest`: messages and parameters. Empty where the teacher did not answer, where
    it can't be read, or where the input was redacted, so that the log holds another question."""
