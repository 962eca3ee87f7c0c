"""How often the teacher agrees with itself, and so how often any student can agree with it."""

from __future__ import annotations

from dataclasses import dataclass

from overproof.data import Answers
from overproof.evidence import Figure
from overproof.measure.intervals import figure
from overproof.measure.labels import agreement_ceiling

EVERY_ROW = "the first two samples of every row"
SUBSET = "a random subset of the rows, asked twice"
NOWHERE = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class CeilingRecipe:
    """What counts as two independent answers."""

    samples: int = 1
    """First samples of every row; from two on they are compared, below that the rows that were asked twice."""
    level: float = 0.95
    """Of the interval."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ceiling:
    """The teacher against itself."""

    agreement: Figure
    """Share of rows on which two independent answers are the same; no rows where nobody asked twice."""
    at_most: float
    """No student agrees with one answer of this teacher more often, at the interval's level; 1 where not measured."""
    source: str
    """Which rows were compared; empty where none were."""

    @property
    def sentence(self) -> str:
        """The finding in words, for the report."""
        seen = self.agreement
        if seen.value is None:
            return "How often the teacher agrees with itself was not measured, so no ceiling is known."
        return (
            f"Asked twice, the teacher gives the same label on {seen.value:.1%} of the rows ({seen.low:.1%} to"
            f" {seen.high:.1%}, {seen.level:.0%} interval, n = {seen.n:,}; {self.source}): no student can agree with its"
            f" answers more often than {self.at_most:.1%}."
        )


def ceiling(answers: Answers, recipe: CeilingRecipe) -> Ceiling:
    """
    Compare pairs of independent answers.

    Rows that took further samples because they looked hard are no random sample, so only first samples or the random
    subset count.

    Args:
        answers: all that the teacher said.
        recipe: how many first samples there are.

    Returns: the figure with the ceiling that follows.
    """
    rows = (*answers.train, *answers.calibration, *answers.test)
    pairs = [(r.first, r.second) for r in answers.asking.repeats]
    source = SUBSET
    if recipe.samples >= 2 and answers.committee is None:
        source = EVERY_ROW
        both = [row.completions[:2] for row in rows if len(row.completions) >= 2]
        pairs = [(a.value, b.value) for a, b in both if a.value is not None and b.value is not None]
    good = sum(first == second for first, second in pairs)
    found = figure(good, len(pairs), metric="self-agreement", level=recipe.level)
    # The interval's upper end is one-sided at half of what the level leaves: more careful than it says.
    at_most = agreement_ceiling(found.high) if pairs else 1.0
    return Ceiling(agreement=found, at_most=at_most, source=source if pairs else NOWHERE)
