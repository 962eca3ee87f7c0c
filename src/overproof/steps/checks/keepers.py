"""Checks of what comes after the release: who answers for it, who gets it, and what starts the next one."""

from __future__ import annotations

from collections.abc import Iterator

from overproof.evidence import Finding
from overproof.steps.checks.table import GateRecipe, finding, need
from overproof.steps.collect import Evidence

REVIEW_DAYS = range(7, 181)  # governance: a review less often than twice a year is no review


def owner(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    """A person answers for the release, another one stands in, and a review has its day."""
    del evidence
    if not recipe.owner.strip():
        yield finding("fail", "nobody owns this student", "name a person in [owner] name")
    elif not recipe.deputy.strip() or recipe.deputy.strip().casefold() == recipe.owner.strip().casefold():
        yield finding("fail", f"{recipe.owner!r} has no deputy", "name another person in [owner] deputy")
    elif recipe.review_every_days not in REVIEW_DAYS:
        reason = f"reviews every {recipe.review_every_days} days; asked are 7 to 180"
        yield finding("fail", reason, "set [owner] review_every between 7d and 180d")
    else:
        yield finding("pass", f"{recipe.owner}, deputy {recipe.deputy}, every {recipe.review_every_days} days")


def shadow(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    """A release is compared with the teacher on live requests before anybody gets its answers."""
    del evidence
    todo = 'begin [serve] stages with "shadow 7d"'
    yield finding("fail", f"the first stage is {recipe.stage!r}: it would answer before anybody has compared it on live requests", todo)


def privacy(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    """Weights and answers that leave the house were learned from redacted rows."""
    del evidence
    if recipe.redacted:
        yield finding("pass", f"personal data is redacted before rows are kept; the student is {recipe.distribution}")
    else:
        reason = f"[privacy] mode is off and the student is {recipe.distribution}: it may hand out what it has seen"
        yield finding("fail", reason, 'set [privacy] mode to "surrogate" or "mask", and import the traffic again')


def trigger(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    """The next distillation has an occasion, and that occasion can be seen."""
    del evidence
    plan = need(recipe.watch, "plan of how the release is watched")
    if not plan.drift:
        yield finding("fail", "no drift detector is on: [watch] drift is empty", "list detectors in [watch] drift; all are on by default")
    seen = {"drift": True, "bar": True, "teacher_changed": plan.canaries, "teacher_ends": True}
    named = [one for one in plan.redistil_on if one in seen]
    real = [one for one in named if seen[one]]
    if not real:
        blind = f"; {', '.join(named)} can't be seen, since what looks for it is off" if named else ""
        reason = f"no occasion of [watch.on] starts a re-distillation{blind}"
        yield finding("fail", reason, 'write drift = "re-distil" in [watch.on], and leave [watch] drift and canaries on')
    else:
        yield finding("pass", f"re-distillation starts on {', '.join(real)}; {len(plan.drift)} drift detectors are on")
