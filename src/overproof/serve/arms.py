"""When an arm of a canary has failed: its own model gave the caller nothing usable in the form that was asked for."""

from __future__ import annotations

from overproof.serve.shapes import Call, off_form
from overproof.serve.stream import Summary

BUSY = 429


def teacher_failed(call: Call | None, summary: Summary, *, whole: bool) -> bool:
    """
    Whether the teacher's answer is one that its caller can't use; for the student `shapes.content_of` says so by the same rule.

    Args:
        call: the request.
        summary: of the answer, which has ended.
        whole: whether it came whole, and in time.

    Returns: True for none, a cut one, a 429 or 5xx, and text that misses the asked form. What a 4xx says is about the request,
        and an answer that can't be read here is taken for a good one.
    """
    if not whole or summary.status == BUSY or summary.status >= 500:
        return True
    if summary.status != 200 or call is None or "response_format" not in call.body:
        return False
    return bool(summary.failed) or (summary.complete and bool(off_form(call, summary.completion().text)))
