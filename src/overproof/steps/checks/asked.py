"""Checks that run only where the project declares something that they look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from overproof.errors import DataError
from overproof.evidence import Finding, Outcome
from overproof.evidence.figures import Verdict
from overproof.evidence.probe_bars import tightened
from overproof.steps.challenge import challenge_answer
from overproof.steps.checks.table import GateRecipe, chosen_of, finding, need
from overproof.steps.collect import Evidence
from overproof.steps.comparisons import Answer
from overproof.steps.compression import compression_answers
from overproof.steps.disparities import amplification_answers, ratio_answers
from overproof.steps.flips import flip_answers
from overproof.steps.flips_beyond import beyond_answers
from overproof.steps.groups import gap_answers
from overproof.steps.probe_checks import CHECKED
from overproof.steps.register import register_answer
from overproof.steps.size_verdict import smaller_answer
from overproof.steps.text_judge import judged_answer


def gaps(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    """Groups are served alike, within the tolerance."""
    found = need(evidence.groups, "comparison of groups")
    if not found.judged or found.tolerance != recipe.gap_at_most:
        raise DataError("the groups were compared under another tolerance", next_action="run `overproof run` again")
    for answer in gap_answers(found):
        yield finding(answer.outcome, answer.reason, answer.todo)


def flips(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    """Swapped terms change few answers."""
    del recipe
    for answer in flip_answers(need(evidence.flips, "measurement of swapped terms")):
        yield finding(answer.outcome, answer.reason, answer.todo)


def ratios(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    """Lowest rate over highest, of wrong answers and of selected labels."""
    found = need(evidence.groups, "comparison of groups")
    if found.bars != recipe.disparity:
        raise DataError("the groups were compared under other bars", next_action="run `overproof run` again")
    for one in found.attributes:
        yield from map(_says, ratio_answers(one.attribute, one.ratios))


def amplified(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    """Gaps, and answers that change with a swapped term, beyond the teacher's own."""
    bar = need(recipe.disparity.amplified, "bar on amplification")
    if evidence.groups is not None:
        if evidence.groups.bars != recipe.disparity:
            raise DataError("the groups were compared under other bars", next_action="run `overproof run` again")
        for one in evidence.groups.attributes:
            yield from map(_says, amplification_answers(one.attribute, one.amplified))
    if recipe.swaps:
        yield from map(_says, beyond_answers(need(evidence.flips, "measurement of swapped terms"), bar))


def within(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    """Bars on fields, or on likeness, within written answers."""
    del recipe
    report = need(need(evidence.report, "evaluation report").written, "figure within written answers")
    outcomes: dict[Verdict, Outcome] = {"pass": "pass", "fail": "fail", "undecided": "not-run"}
    for one in report.judged:
        seen, outcome = one.estimate, outcomes[one.verdict]
        value = "nothing to measure" if seen.value is None else f"{seen.value:.1%} ({seen.low:.1%} to {seen.high:.1%})"
        reason = f"as served {one.metric} is {value} on {seen.n:,} judging rows with a true answer, at least {one.bar:.1%} is asked"
        todo = {"pass": "", "fail": "keep less, use a better student, or lower the bar with a reason"}.get(outcome, "add true answers to more of the newest rows")
        found = finding(outcome, reason + (": not enough data to tell" if outcome == "not-run" else ""), todo)
        bound = seen.high if outcome == "fail" else seen.low
        yield replace(found, value=seen.value, bound=bound, bar=one.bar, n=seen.n)


def by_judge(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    """What a calibrated judge says of the served texts."""
    share, bar = need(evidence.judged, "word of the judge"), need(recipe.judged, "bar on the judge's word")
    found = judged_answer(share, bar)
    bound = share.high if found.outcome == "fail" else share.low
    said_so = finding(found.outcome, found.reason, found.todo)
    yield replace(said_so, value=share.value, bound=bound, bar=bar.at_least, n=share.n)


def challenged(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    """The student against the serving release."""
    del recipe
    yield _says(challenge_answer(evidence.challenge))


def cases(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    """No rare or critical case is lost to a larger student."""
    del recipe
    found = need(evidence.compression, "comparison of rare and critical cases across the sizes")
    for answer in compression_answers(found, chosen_of(evidence)):
        yield _says(answer)


def probed(check: str) -> Callable[[Evidence, GateRecipe], Iterator[Finding]]:
    """One of the checks on spoiled, attacked and foreign texts."""
    answers = next(found for name, _, found in CHECKED if name == check)

    def said(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
        yield from map(_says, answers(need(evidence.probes, "report of the probes"), tightened(recipe.probe_bars)))

    return said


def smaller(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    """No smaller student does as well."""
    del recipe
    found = smaller_answer(evidence.sizing)
    yield finding(found.outcome, found.reason, found.todo)


def weaknesses(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    """Mistakes of the teacher that reviews found, asked of the student."""
    yield _says(register_answer(need(evidence.register, "register of the teacher's known mistakes"), at_least=recipe.weaknesses_right))


def _says(answer: Answer) -> Finding:
    return finding(answer.outcome, answer.reason, answer.todo)
