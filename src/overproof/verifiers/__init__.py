"""Verifiers: should a student learn this label? A verifier is pure, and its reasons are counted in the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from overproof.data import Completion, Judgement, Request


class Verifier(Protocol):
    """
    A word on one row before it becomes a training row.

    A class takes `output` (the task's labels) and its options as keyword arguments that JSON can say. The
    conformance suite is `overproof.testing.verifier_conformance`.
    """

    def judge(self, request: Request, completions: Sequence[Completion], target: str) -> Judgement:
        """
        Keep the row, or say why not.

        Args:
            request: what the teacher was asked.
            completions: all its samples, in order.
            target: the label that the row would get.

        Returns: the judgement; a reason wherever the row is not kept. The same arguments give the same judgement.
        """
