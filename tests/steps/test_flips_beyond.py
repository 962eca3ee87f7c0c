"""Flips beyond the teacher's: counted on identical pairs, known or bought through the ledger, else not measured."""

import asyncio
from dataclasses import replace

import pytest
from tests.steps.test_flips import NAMES, WORDS, bundles, calibration  # noqa: F401 - a fixture
from tests.steps.test_probe import PIN, cleared

from overproof.data import Completion
from overproof.steps.checks import asked
from overproof.steps.checks.table import GateRecipe
from overproof.steps.collect import Evidence
from overproof.steps.disparities import DisparityBars
from overproof.steps.flips import FlipRecipe, measure_flips
from overproof.steps.flips_beyond import BeyondRecipe, ask_teacher, beyond_answers

RECIPE = FlipRecipe(lists=(NAMES,))


class Teacher:
    """Answers by the words, or by the name."""

    def __init__(self, *, by_name):
        self.by_name, self.seen = by_name, []

    async def sample(self, request, *, n, recorded=None):
        await asyncio.sleep(0)
        text = request.fields["body"]
        self.seen.append(text)
        value = next(label for label, words in WORDS.items() if words in text)
        if self.by_name:
            value = "billing" if any(name in text for name in NAMES.groups["women"]) else "bug"
        return [Completion(text=value, value=value, model="m", finish="stop", cost_usd=0.0)]

    async def close(self):
        pass


def beside(bundle, n, teacher, pairs=10_000):
    rows = calibration(n)
    flips = measure_flips(bundle, rows, RECIPE)
    return ask_teacher(flips, bundle, rows, cleared(), BeyondRecipe(flips=RECIPE, pairs=pairs, pin=PIN), teacher=teacher)


def test_a_student_by_the_name_beyond_a_teacher_by_the_words_fails_and_beside_one_like_itself_passes(bundles):  # noqa: F811
    """The same flips are the student's own doing or its teacher's; every text is asked once."""
    words = Teacher(by_name=False)
    report = beside(bundles["biased"], 200, words)
    (one,) = report.lists
    assert (one.beyond.n, one.beyond.teacher) == (one.pairs, 0)
    assert one.beyond.served == one.changed > 150
    assert len(words.seen) == len(set(words.seen)) == 2 * one.pairs
    (answer,) = beyond_answers(report, 0.05)
    assert answer.outcome == "fail"
    same = beside(bundles["biased"], 200, Teacher(by_name=True))
    assert same.lists[0].beyond.only_served == 0
    (answer,) = beyond_answers(same, 0.05)
    assert answer.outcome == "pass"
    few = beside(bundles["biased"], 200, Teacher(by_name=True), pairs=20)
    assert few.lists[0].beyond.n == 20
    assert [a.outcome for a in beyond_answers(few, 0.01)] == ["not-run"]


def test_unasked_it_is_not_measured_and_only_a_student_that_hardly_flips_passes(bundles):  # noqa: F811
    """Whose answers never change exceeds nobody; the bound asks for rows enough."""
    assert beside(bundles["steady"], 20, None).lists[0].beyond is None
    said = {kind: next(beyond_answers(measure_flips(bundles[kind], calibration(n), RECIPE), 0.02)) for kind, n in (("steady", 250), ("biased", 200))}
    assert (said["steady"].outcome, said["biased"].outcome) == ("pass", "not-run")
    assert "not measured" in said["biased"].reason
    assert next(beyond_answers(measure_flips(bundles["steady"], calibration(60), RECIPE), 0.02)).outcome == "not-run"


@pytest.mark.parametrize(("kind", "outcome"), [("steady", "pass"), ("biased", "not-run")])
def test_the_gate_asks_swaps_too_where_a_bar_is_set(bundles, kind, outcome):  # noqa: F811
    """F04 without groups is about swaps alone."""
    recipe = GateRecipe(task="t", owner="o", deputy="d", review_every_days=9, today="2026-01-01", swaps=True, disparity=DisparityBars(amplified=0.02))
    evidence = Evidence(flips=measure_flips(bundles[kind], calibration(250), RECIPE))
    (found,) = asked.amplified(evidence, recipe)
    assert found.outcome == outcome
    assert list(asked.amplified(replace(evidence, flips=None), replace(recipe, swaps=False))) == []
