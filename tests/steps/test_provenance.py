"""A label that was picked because it looked wrong trains, and enters no plan and no certificate."""

from dataclasses import replace

import pytest

from overproof.data import Answered, Answers, CalibrationSet, Completion, PromptRow, Request, TeacherPin
from overproof.errors import MeasureError
from overproof.measure.intervals import cp_interval
from overproof.steps.calibrate import CalibrateRecipe, calibrate, sheet_of
from overproof.steps.ceiling import CeilingRecipe, ceiling
from overproof.steps.plan import PlanRecipe, make_plan


def marked(rows, **mark):
    first, *rest = rows.examples
    return replace(rows, examples=(replace(first, **mark), *rest))


@pytest.mark.parametrize("mark", [{"label_from": "review-fix"}, {"gold_from": "review-fix"}, {"gold_from": "hearsay"}])
def test_a_label_of_the_fix_queue_is_refused_in_calibration_and_sealed_rows(world, mark):
    """The error names the row and says what the label is good for; a mark that nobody knows counts as picked."""
    for rows in (world.calibration(20), world.sealed(20)):
        assert len(sheet_of(rows).target) == 20
        with pytest.raises(MeasureError, match=rows.examples[0].request.id) as caught:
            sheet_of(marked(rows, **mark))
        assert "training" in caught.value.next_action


def test_no_plan_is_made_with_one(world):
    """The margin and the choice of the student rest on these labels too."""
    rows = world.calibration(400)
    scores = (world.scores("large", rows, error=0.06),)
    calibrations = (calibrate(scores[0], rows, CalibrateRecipe()),)
    recipe = PlanRecipe(bars=(), slices=(), accuracy_when_confident=0.95, n_sealed=400, teacher="big")
    assert make_plan(calibrations, scores, rows, recipe).chosen == "large"
    with pytest.raises(MeasureError, match="picked for looking wrong"):
        make_plan(calibrations, scores, marked(rows, gold_from="review-fix"), recipe)


def test_labels_of_the_audit_queue_and_of_the_log_prove(world):
    """Chance chose these rows, or nobody did."""
    rows = marked(marked(world.calibration(20), label_from="review-audit"), gold_from="review-audit")
    assert len(sheet_of(rows).target) == 20


def test_a_mark_on_a_row_without_gold_stops_nothing(world):
    """There is no label that it could speak of."""
    rows = CalibrationSet(examples=world.examples(20, seed=3, gold=0.0), labels=world.calibration(1).labels)
    assert not sheet_of(marked(rows, gold_from="review-fix")).has_gold.any()


def answered(i, *values, group=None):
    completions = tuple(Completion(text=v or "??", value=v, model="m") for v in values)
    row = PromptRow(request=Request(id=f"r{i}", fields={"body": f"m{i}"}), weight=1.0, group=group or f"g{i}")
    return Answered(row=row, completions=completions)


def test_the_teachers_agreement_with_itself_counts_the_first_two_samples_of_independent_rows():
    """Further samples were bought because the first differed; of near-duplicates one row counts."""
    rows = [answered(i, "bug", "bug") for i in range(17)]
    rows += [answered(17, "bug", "other", "bug"), answered(18, None, None), answered(19, "bug")]
    found = self_agreement(rows)
    both = cp_interval(17, 18)
    assert (found.good, found.n, found.low, found.high) == (17, 18, both.low, both.high)
    assert self_agreement([*rows, *(answered(i, "bug", "bug", group="g3") for i in range(30, 60))]).n == 18
    assert self_agreement([answered(1, "bug")]).n == 0


def self_agreement(rows):
    pin = TeacherPin(use="recorded.v1", provider="p", model="m", revision="1", prompt_digest="d")
    said = Answers(train=tuple(rows[:9]), calibration=(), test=tuple(rows[9:]), pin=pin, clearance_id="c", spent_usd=0.0)
    return ceiling(said, CeilingRecipe(samples=2)).agreement
