"""What each rule of the filter did: rows dropped, and how many of them were truly wrong."""

from __future__ import annotations

from dataclasses import dataclass

from overproof.data import Dropped, Labelled
from overproof.evidence import Figure
from overproof.measure.intervals import figure
from overproof.steps.answers import same_answer

ENOUGH = 30
"""Reviewed rows of a rule below which its precision is not worth a sentence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RuleReport:
    """One rule on the training rows."""

    rule: str
    """Part name, "module:function", or "conflict" for near-duplicates that disagree."""
    rows: int
    """Training rows that it dropped."""
    of: int
    """Training rows that had a label."""
    wrong: Figure | None
    """Of the dropped rows with a true label: the share whose label was wrong; None where no row has one."""
    example: str
    """Text of one dropped row, at most 200 characters."""

    @property
    def words(self) -> str:
        """One sentence for the reader who wonders whether the rule does any good."""
        did = f"{self.rule} dropped {self.rows:,} of {self.of:,} training rows"
        known = self.wrong.n if self.wrong is not None else 0
        if self.wrong is None or self.wrong.value is None:
            return f"{did}; whether their labels were wrong is not known: review {min(ENOUGH, self.rows)} of them"
        said = f"{did}; {self.wrong.value:.0%} of those with a true label were wrong ({self.wrong.low:.0%} to {self.wrong.high:.0%}, n = {known:,})"
        more = min(ENOUGH, self.rows) - known
        return f"{said}; too few to tell, review {more} more" if more > 0 else said


def rules_of(labelled: Labelled) -> tuple[RuleReport, ...]:
    """
    Every rule that dropped a training row for its label.

    Args:
        labelled: the filter's result.

    Returns: one report for each rule, the one with most rows first. Rows without any label are no rule's doing.
    """
    by_rule: dict[str, list[Dropped]] = {}
    for row in labelled.dropped:
        if row.split == "train" and row.target:
            by_rule.setdefault(row.by, []).append(row)
    of = len(labelled.train.examples) + sum(len(rows) for rows in by_rule.values())
    found = []
    for rule, rows in by_rule.items():
        known = [r for r in rows if r.gold is not None]
        wrong = sum(r.gold is not None and not same_answer(labelled.train.output, r.target, r.gold) for r in known)
        found.append(
            RuleReport(
                rule=rule, rows=len(rows), of=of, example=rows[0].request.text[:200],
                wrong=figure(wrong, len(known), metric="wrong") if known else None,
            )
        )
    return tuple(sorted(found, key=lambda r: (-r.rows, r.rule)))
