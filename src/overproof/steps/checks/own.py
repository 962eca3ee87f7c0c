"""The owner's checks: functions of the evidence, by registered name or "module:function". They can only add."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from overproof.errors import DataError
from overproof.evidence import Finding
from overproof.registry import resolve
from overproof.steps.checks.table import GateRecipe, OwnCheck, Row, finding
from overproof.steps.collect import Evidence
from overproof.steps.comparisons import Answer


def own_rows(own: Sequence[OwnCheck]) -> tuple[Row, ...]:
    """
    Rows of the table for the owner's checks.

    Args:
        own: as the recipe names them.

    Returns: a row each; its id is the name, so that it can't stand in for a check of the table.
    """
    return tuple(Row(id=one.use, title=f"Own check {one.use}", check=_Own(one.use), reads=(), waivable=True) for one in own)


class _Own:
    """Loads the function when the check runs: one that is missing is a finding, not a crash of the run."""

    def __init__(self, use: str) -> None:
        self.use = use

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Own) and other.use == self.use

    def __hash__(self) -> int:
        return hash(self.use)

    def __call__(self, evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
        del recipe
        said: Any = resolve("checks", self.use)(evidence)
        for one in (said,) if isinstance(said, Answer | Finding) else said or ():
            if isinstance(one, Answer):
                yield finding(one.outcome, one.reason, one.todo)
            elif isinstance(one, Finding):
                yield one
            else:
                raise DataError(
                    f"{self.use} gave {type(one).__name__}", next_action="return an `Answer`, a `Finding`, or several of them"
                )
