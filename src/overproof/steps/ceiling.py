"""How often the teacher agrees with itself, and so how often any student can agree with it."""

from __future__ import annotations

from dataclasses import dataclass

from overproof.data import Answers
from overproof.evidence import Figure
from overproof.measure.intervals import figure
from overproof.measure.labels import agreement_ceiling
from overproof.measure.slices import one_per_session
from overproof.outputs import Fields, Text
from overproof.steps.answers import same_answer

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
    output: Fields | Text | None = None
    """What the answers are where they are no labels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ceiling:
    """The teacher against itself."""

    agreement: Figure
    """Share of rows on which two independent answers are the same; no rows where nobody asked twice."""
    at_most: float
    """No student agrees with one answer of this teacher more often, at the interval's level; 1 where not measured."""
    source: str
    """Which rows were compared; empty where none were."""
    committee: bool = False
    """Whether several teachers decided; one of them against itself sets no ceiling for their labels."""

    @property
    def sentence(self) -> str:
        """The finding in words, for the report."""
        seen = self.agreement
        if seen.value is None:
            return "How often the teacher agrees with itself was not measured, so no ceiling is known."
        who = "the first teacher" if self.committee else "the teacher"
        text = (
            f"Asked twice, {who} gives the same label on {seen.value:.1%} of the rows ({seen.low:.1%} to"
            f" {seen.high:.1%}, {seen.level:.0%} interval, n = {seen.n:,}; {self.source})"
        )
        if self.committee:
            return f"{text}; for the labels of the committee no ceiling follows."
        return f"{text}: no student can agree with its answers more often than {self.at_most:.1%}."


def ceiling(answers: Answers, recipe: CeilingRecipe) -> Ceiling:
    """
    Compare pairs of independent answers.

    Rows that took further samples because they looked hard are no random sample, so only first samples or the random
    subset count; of near-duplicates one row. A pair without two labels says nothing about labels and is left out.

    Args:
        answers: all that the teacher said.
        recipe: how many first samples there are.

    Returns: the figure with the ceiling that follows.
    """
    rows = (*answers.train, *answers.calibration, *answers.test)
    group = {row.row.request.id: row.row.group for row in rows}
    found = [(r.request_id, r.first, r.second) for r in answers.asking.repeats]
    source = SUBSET
    if recipe.samples >= 2 and answers.committee is None:
        source = EVERY_ROW
        both = [(row.row.request.id, row.completions[0].value, row.completions[1].value) for row in rows if len(row.completions) > 1]
        found = [(i, a, b) for i, a, b in both if a is not None and b is not None]
    ids = [i for i, _, _ in found]
    alone = one_per_session([group.get(i) for i in ids], ids, "self-agreement")
    pairs = [(first, second) for (_, first, second), ok in zip(found, alone, strict=True) if ok]
    good = sum(same_answer(recipe.output, first, second) for first, second in pairs)
    share = figure(good, len(pairs), metric="self-agreement", level=recipe.level)
    # The interval's upper end is one-sided at half of what the level leaves: more careful than it says.
    several = answers.committee is not None
    at_most = agreement_ceiling(share) if pairs and not several else 1.0
    return Ceiling(agreement=share, at_most=at_most, source=source if pairs else NOWHERE, committee=several)
