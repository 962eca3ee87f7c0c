"""Several samples of one teacher: a label that the teacher doesn't repeat is not learned from."""

from __future__ import annotations

from collections.abc import Sequence

from overproof.data import Completion, Judgement, Request
from overproof.errors import DataError
from overproof.task import Output


class Agreement:
    """
    Keeps rows whose samples agree. Agreement is confidence about the teacher, never about the truth.

    Args:
        output: what an answer is.
        min: least share of the row's samples that gave the target, in (0, 1].

    Raises: DataError for a share outside (0, 1].
    """

    def __init__(self, *, output: Output, min: float = 0.6) -> None:  # noqa: A002 - the user's word in the file
        if isinstance(min, bool) or not 0 < min <= 1:
            raise DataError(
                f"agreement.v1: min = {min!r} is not in (0, 1]", next_action="give min a share such as 0.6"
            )
        self._output = output
        self._least = min

    def judge(self, request: Request, completions: Sequence[Completion], target: str) -> Judgement:
        """Compare the share of samples that gave the target with the least share; see `Verifier`."""
        del request
        agree = sum(c.value is not None and self._output.equal(c.value, target) for c in completions)
        if not completions:
            return Judgement(keep=False, reason="no samples")
        share = agree / len(completions)
        if share >= self._least:
            return Judgement(keep=True, score=share)
        return Judgement(keep=False, reason=f"samples agree on less than {self._least:g}", score=share)
