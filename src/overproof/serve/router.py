"""Who answers a request, and why: pure, so that every combination can be tried."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from functools import lru_cache
from hashlib import blake2b
from typing import Literal
from urllib.parse import quote

import msgspec

from overproof.data import Reason, Route, Stage
from overproof.serve.shapes import BadCall

ROUTE_HEADER = b"x-overproof-route"
Forced = Literal["", "teacher", "student"]
Cause = Literal["confident", "unsure", "uncertified", "out_of_scope", "mixed", "expired"]
"""`students.bundle.Answer.cause`."""
Fault = Literal["deadline", "student_error", "busy"]
"""`serve.pool.Look.fault`."""
_SERVING: tuple[Stage, ...] = ("canary", "full")
_BY_CAUSE: dict[Cause, Reason] = {
    "unsure": "below_threshold", "uncertified": "slice_not_certified", "out_of_scope": "out_of_scope", "mixed": "mixed", "expired": "expired",
}  # fmt: skip
_BY_FAULT: dict[Fault, Reason] = {"deadline": "deadline", "busy": "deadline", "student_error": "student_error"}
_VALUE_CHARS = 200


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a request before the student has looked at it."""

    matched: bool = True
    """A task was recognised."""
    released: bool = False
    """The task has a release that passed its checks."""
    stage: Stage = "teacher-only"
    share: float = 0.0
    """Share of the callers that the student answers in canary, in [0, 1]."""
    arm: float = 1.0
    """Where this caller stands, in [0, 1); see `arm`."""
    forced: Forced = ""
    """See `forced_of`."""
    unsupported: bool = False
    """The call asks for what a student can't give."""
    expired: bool = False
    """The certificate has ended, and the release says to refuse then."""
    student_down: bool = False
    """The student's breaker is open."""
    teacher_down: bool = False
    """The upstream's breaker is open, or it was tried for this very request and sent nothing."""
    stand_in: bool = False
    """`[serve] on_outage = "student"`."""


class Routed(msgspec.Struct, frozen=True, kw_only=True):
    """Who answers, and why."""

    route: Route
    reason: Reason
    degraded: bool = False
    """The student stands in for a teacher that can't be reached."""


_TEACHER: dict[Reason, Routed] = {
    reason: Routed(route="teacher", reason=reason)
    for reason in (
        "unmatched", "forced", "no_release", "unsupported", "expired", "student_error", "stage", "deadline", "below_threshold",
        "slice_not_certified", "out_of_scope", "mixed",
    )
}  # fmt: skip
_CONFIDENT = Routed(route="student", reason="confident")
_FORCED = Routed(route="student", reason="forced")
_STAND_IN = Routed(route="student", reason="outage", degraded=True)


def before(now: Situation) -> Routed | None:
    """
    Whether the route is settled before the student is asked.

    Args:
        now: what is known.

    Returns: the teacher's route; None where the student has to be asked first.
    """
    if not now.matched:
        return _TEACHER["unmatched"]
    if now.forced == "teacher":
        return _TEACHER["forced"]
    if not now.released:
        return _TEACHER["no_release"]
    if now.unsupported:
        return _TEACHER["unsupported"]
    if now.expired:
        return _TEACHER["expired"]
    if now.student_down:
        return _TEACHER["student_error"]
    if now.forced == "student" or _in_arm(now) or _may_stand_in(now):
        return None
    return _TEACHER["stage"]


def route(now: Situation, *, cause: Cause | None, fault: Fault | Literal[""] = "", suspended: bool = False, unfit: bool = False) -> Routed:
    """
    Who answers.

    Args:
        now: what was known before; where that settled the route, the rest changes nothing.
        cause: of the student's answer; None where it gave none.
        fault: why it gave none.
        suspended: the answer's slice was suspended by the rollout.
        unfit: the answer can't be given in the form that was asked for; see `shapes.content_of`.

    Returns: route and reason, the same for the same arguments.
    """
    settled = before(now)
    if settled is not None:
        return settled
    if fault or cause is None:
        return _TEACHER[_BY_FAULT[fault or "student_error"]]
    if cause != "confident":
        return _TEACHER[_BY_CAUSE[cause]]
    if suspended:
        return _TEACHER["slice_not_certified"]
    if unfit:
        return _TEACHER["unsupported"]
    if now.forced == "student":
        return _FORCED
    return _CONFIDENT if _in_arm(now) else _STAND_IN


def shadowed(now: Situation, routed: Routed) -> bool:
    """
    Whether the student is asked after the teacher's answer was sent, to be compared with it.

    Args:
        now: what was known.
        routed: how it was answered.

    Returns: True where the stage alone kept the student from answering.
    """
    return routed.reason == "stage" and now.stage != "teacher-only"


def _in_arm(now: Situation) -> bool:
    return now.stage == "full" or (now.stage == "canary" and now.arm < now.share)


def _may_stand_in(now: Situation) -> bool:
    """Only a release that answers callers already: one in shadow, or rolled back, has not earned it."""
    return now.teacher_down and now.stand_in and now.stage in _SERVING


def arm(key: str, salt: str) -> float:
    """
    Where a caller stands among all callers; the same in every process, another with the next release.

    Args:
        key: session, or the request's id where it has none.
        salt: of the release.

    Returns: uniform in [0, 1).
    """
    secret = blake2b(salt.encode("utf-8", "replace")).digest()
    digest = blake2b(key.encode("utf-8", "replace"), key=secret, digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53  # 53 bits: no rounding up to 1


def forced_of(headers: Iterable[tuple[bytes, bytes]], scopes: Collection[str]) -> Forced:
    """
    The route that a caller asks for.

    Args:
        headers: names in lower case.
        scopes: of the caller's key.

    Returns: the route; empty where none is asked for.
    Raises: BadCall for another word (400), and for the student without the scope `promote` (403).
    """
    for name, value in headers:
        if name == ROUTE_HEADER:
            if value == b"teacher":
                return "teacher"
            if value != b"student":
                raise BadCall("the header x-overproof-route has an unknown value", next_action="send teacher or student", param="x-overproof-route")
            if "promote" not in scopes:
                raise BadCall("this key may not force the student", next_action="use a key with the scope promote", status=403, param="x-overproof-route")
            return "student"
    return ""


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller is told beside route and reason; empty values are left out."""

    request_id: str
    task: str = ""
    stage: str = ""
    release: str = ""
    slice: str = ""
    confidence: float | None = None
    review: str = ""
    """Where the owner's review stands; said once it is overdue."""


def headers_of(routed: Routed, shown: Shown) -> list[tuple[bytes, bytes]]:
    """
    The headers that say how a request was answered.

    Args:
        routed: who answered, and why.
        shown: the rest.

    Returns: names and values; what a header can't carry is percent-encoded UTF-8.
    """
    found = [
        (b"x-overproof-request-id", _value(shown.request_id)),
        (ROUTE_HEADER, routed.route.encode()),
        (b"x-overproof-reason", routed.reason.encode()),
    ]
    for name, text in ((b"x-overproof-task", shown.task), (b"x-overproof-stage", shown.stage), (b"x-overproof-release", shown.release), (b"x-overproof-slice", shown.slice)):
        if text:
            found.append((name, _kept(text)))
    if shown.confidence is not None and math.isfinite(shown.confidence):
        found.append((b"x-overproof-confidence", b"%.4f" % shown.confidence))
    if shown.review in ("overdue", "lapsed"):
        found.append((b"x-overproof-review", shown.review.encode()))
    if routed.degraded:
        found.append((b"x-overproof-degraded", b"true"))
    return found


def _value(text: str) -> bytes:
    if text.isascii() and text.isprintable() and "%" not in text and text == text.strip() and len(text) <= _VALUE_CHARS:
        return text.encode()
    return quote(text[:_VALUE_CHARS].encode("utf-8", "replace"), safe=" !#$&'()*+,/:;=?@[]^`{|}").strip().encode()


_kept = lru_cache(maxsize=1024)(_value)  # tasks, stages, releases and slices are few; request ids are not
