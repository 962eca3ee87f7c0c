"""Choice between candidates and the plan of the thresholds, on calibration rows."""

import dataclasses

import numpy as np
import pytest

from overproof.errors import DataError
from overproof.measure.certify import KEEP_ALL
from overproof.steps.calibrate import CalibrateRecipe, calibrate, sheet_of
from overproof.steps.choice import Expectation, choose, reason_of
from overproof.steps.plan import (
    Baseline,
    PlanRecipe,
    bars_of,
    best_baseline,
    make_plan,
    margin_of,
    novelty_edge,
    within_budget,
)
from overproof.task import Bar, Slice

BARS = (Bar(metric="fidelity", at_least=0.9),)
BUSINESS = Slice(name="business", where=(("tier", ("business",)),))
SAFETY = Slice(name="safety-label", where=(("label", ("safety",)),))


def recipe(**more) -> PlanRecipe:
    base = {"bars": BARS, "slices": (BUSINESS,), "accuracy_when_confident": 0.95, "n_sealed": 2_000, "teacher": "big"}
    return PlanRecipe(**(base | more))


def planned(world, candidates, rows, **more):
    scores = tuple(world.scores(name, rows, **options) for name, options in candidates.items())
    cals = tuple(calibrate(s, rows, CalibrateRecipe()) for s in scores)
    return make_plan(cals, scores, rows, recipe(**more))


def expectation(name, **more) -> Expectation:
    base = {"name": name, "size_bytes": 10, "plans": (), "fidelity": 0.9, "kept": 0.5, "clears": True, "misses": 0, "spoils": 0, "margin": 0.01, "missed": "",
            "cost": 1.0, "bill": 2.0, "priced": True}
    return Expectation(**(base | more))


def test_the_student_with_the_lowest_bill_as_served_is_chosen(world) -> None:
    """Of two that clear the bars, the one that keeps more costs less as served, and wins though it is larger."""
    rows = world.calibration(2_000)
    plan = planned(world, {"small": {"error": 0.3, "size": 1_000}, "large": {"error": 0.06, "size": 90_000_000}}, rows)
    assert plan.chosen == "large"
    assert "small would keep" in plan.reason


def test_the_smaller_student_is_chosen_where_bills_are_equal(world) -> None:
    """Equal quality: the smaller one."""
    rows = world.calibration(2_000)
    plan = planned(world, {n: {"error": 0.05, "size": z, "seed": 1} for n, z in (("large", 90_000_000), ("small", 1_000))}, rows)
    assert plan.chosen == "small"


def test_a_hundredth_of_the_teachers_bill_buys_no_larger_student() -> None:
    """The larger one has to save more than one percent of the teacher's bill."""
    large, small = expectation("large", size_bytes=100, cost=1.0), expectation("small", size_bytes=1, cost=1.015)
    assert choose([large, small]).name == "small"
    assert choose([large, expectation("small", size_bytes=1, cost=1.03)]).name == "large"


def test_the_start_is_planned_for_as_many_sealed_rows_as_there_are(world) -> None:
    """Few sealed rows must keep a larger share to have enough kept rows: the walk starts looser."""
    rows = world.calibration(2_000)
    few, many = (planned(world, {"s": {"error": 0.1}}, rows, n_sealed=n, slices=()).slices[0] for n in (200, 20_000))
    assert few.grid == many.grid
    assert few.start > many.start


def test_baselines_are_never_chosen(world) -> None:
    """A perfect baseline is for comparison; the plan takes a student."""
    rows = world.calibration(1_000)
    candidates = {"lookup": {"kind": "baseline", "error": 0.001}, "student": {"error": 0.2}}
    assert planned(world, candidates, rows).chosen == "student"


def test_if_none_clears_the_bars_the_nearest_one_is_chosen_and_the_reason_says_so() -> None:
    """The plan never pretends: the sentence says that no student is expected to pass."""
    far, near = expectation("far", clears=False, misses=3, spoils=3, cost=0.1), expectation("near", clears=False, misses=1, spoils=1)
    assert choose([far, near]).name == "near"
    useless = expectation("useless", clears=False, misses=0, spoils=0, kept=0.0)
    assert choose([useless, near]).name == "near"
    assert "no student is expected to clear every bar" in reason_of(near, [far, near], n=10)


def test_a_student_that_would_keep_nothing_does_not_clear_the_bars(world) -> None:
    """Everything sent to the teacher agrees with the teacher; that is no success of the student."""
    plan = planned(world, {"bad": {"error": 0.8}}, world.calibration(1_000), n_sealed=2_000)
    assert "no student is expected to keep any answer" in plan.reason


def test_every_certification_slice_has_a_plan_and_the_budget_is_split(world) -> None:
    """Slices of attributes and "other" have grids that end in keep-all, weights sum to one; label slices have none."""
    plan = planned(world, {"s": {}}, world.calibration(1_000), slices=(BUSINESS, SAFETY))
    assert [p.slice for p in plan.slices] == ["business", "other"]
    assert sum(p.weight for p in plan.slices) == pytest.approx(1.0)
    assert all(p.grid[-1] == KEEP_ALL and p.alpha == pytest.approx(0.05) for p in plan.slices)
    assert plan.slices[0].dev_n + plan.slices[1].dev_n == 1_000
    assert plan.slices[1].weight > plan.slices[0].weight


def test_a_slice_that_no_calibration_row_is_in_keeps_a_share_of_the_budget(world) -> None:
    """A rare slice is planned with the one point that keeps everything, never dropped silently."""
    nobody = Slice(name="nobody", where=(("tier", ("gold",)),))
    plan = planned(world, {"s": {}}, world.calibration(500), slices=(nobody,))
    assert plan.slices[0].grid == (KEEP_ALL,)
    assert plan.slices[0].dev_n == 0
    assert plan.slices[0].weight > 0


def test_the_label_kind_names_the_teacher_unless_gold_is_asked_for(world) -> None:
    """Agreement is certified against a named teacher; truth only against gold, and only if there is some."""
    rows = world.calibration(400, gold=0.5)
    assert planned(world, {"s": {}}, rows).label_kind == "teacher:big"
    gold = planned(world, {"s": {}}, rows, label="gold")
    assert gold.label_kind == "gold"
    assert sum(p.dev_n for p in gold.slices) == sum(e.gold is not None for e in rows.examples)
    with pytest.raises(DataError, match="no calibration row has a true label"):
        planned(world, {"s": {}}, world.calibration(400, gold=0.0), label="gold")


def test_the_same_rows_give_the_same_plan(world) -> None:
    """The plan is a value: its digest can stand in the ledger."""
    rows = world.calibration(500)
    assert planned(world, {"s": {}}, rows) == planned(world, {"s": {}}, rows)


def test_a_slice_takes_the_overall_bar_for_what_it_does_not_name() -> None:
    """A slice's own bar replaces the overall one of that metric and no other."""
    overall = (Bar(metric="fidelity", at_least=0.9), Bar(metric="accuracy", at_least=0.8))
    own = (Bar(metric="accuracy", at_least=0.95),)
    assert {b.metric: b.at_least for b in bars_of(own, overall)} == {"accuracy": 0.95, "fidelity": 0.9}


def test_no_student_is_an_error(world) -> None:
    """Baselines alone can't be released."""
    rows = world.calibration(100)
    with pytest.raises(DataError, match="no calibrated student"):
        planned(world, {"b": {"kind": "baseline"}}, rows)


TWO = {"student": {"error": 0.06}, "majority": {"kind": "baseline", "error": 0.7}}


def test_both_certificates_are_planned_on_the_same_grid_before_a_sealed_label_is_read(world) -> None:
    """With enough true labels the plan holds grids for agreement and for correctness, whichever ships."""
    rows = world.calibration(1_000)
    fidelity = planned(world, TWO, rows, n_sealed_gold=2_000)
    truth = planned(world, TWO, rows, n_sealed_gold=2_000, label="gold")
    assert (fidelity.label_kind, fidelity.other_label, fidelity.truth_note) == ("teacher:big", "gold", "")
    assert (truth.label_kind, truth.other_label) == ("gold", "teacher:big")
    assert [p.grid for p in fidelity.slices] == [p.grid for p in fidelity.other_slices]
    assert fidelity.slices == truth.other_slices


@pytest.mark.parametrize(("gold", "words"), [(0, "no sealed row has"), (50, "50 of 2,000 sealed rows have")])
def test_without_enough_gold_only_agreement_is_planned_and_a_sentence_says_what_is_missing(world, gold, words) -> None:
    """69 rows without an error pass a bar of 5% at the first use, and half of the rows choose thresholds: 138."""
    plan = planned(world, TWO, world.calibration(1_000), n_sealed_gold=gold)
    assert (plan.other_label, plan.other_slices) == ("", ())
    assert "agreement with the teacher, not correctness" in plan.truth_note
    assert words in plan.truth_note
    assert "takes at least 138" in plan.truth_note


def test_the_margin_is_a_point_or_half_of_what_the_teacher_adds(world) -> None:
    """A baseline near the teacher shrinks it, one as good leaves none, and the project file overrides it."""
    rows = world.calibration(2_000, teacher=0.9)
    sheet = sheet_of(rows)
    teacher = int((sheet.target == sheet.gold).sum())

    def margin(right, **more):
        return margin_of(recipe(**more), sheet, Baseline(name="b", right=right))

    assert margin(teacher - 900).value == 0.01
    assert margin(teacher - 20).value == pytest.approx(0.005)
    assert "half of what the teacher adds" in margin(teacher - 20).why
    assert margin(teacher).value == margin(teacher + 5).value == 0.0
    assert "nothing" in margin(teacher).why
    assert margin(teacher, margin=0.02).value == 0.02
    both = tuple(world.scores(n, rows, kind="baseline", error=e) for n, e in (("good", 0.1), ("bad", 0.7)))
    assert best_baseline(both, rows, sheet).name == "good"


def test_the_least_familiar_slice_ends_where_its_bars_can_pass() -> None:
    """The first bins are taken together until the judging rows could hold the bars; without similarities there is none."""
    near = np.repeat([0.1, 0.35, 0.45, 0.9], [20, 30, 100, 850])
    gold = np.ones(1_000, dtype=bool)
    assert novelty_edge(near, gold, recipe(n_sealed=2_000)) == 0.4
    assert novelty_edge(near, gold, recipe(n_sealed=20_000)) == 0.3
    assert novelty_edge(near, gold, recipe(n_sealed=500)) == 0.5
    assert novelty_edge(near, gold, recipe(n_sealed=60)) == 1.0
    assert novelty_edge(near, gold, recipe(novelty=False)) is None
    assert novelty_edge(np.full(10, np.nan), gold[:10], recipe()) is None


def test_a_budget_is_one_threshold_for_all_traffic_and_excludes_the_other_dial(world) -> None:
    """Kept and wrong among all: one part, walked from the strictest point; both dials at once are refused."""
    rows = world.calibration(1_000)
    plan = planned(world, TWO, rows, accuracy_when_confident=None, wrong_when_served=0.03)
    assert plan.guarantee == "budget"
    assert [(p.slice, p.alpha, p.weight, p.start) for p in plan.slices] == [("other", 0.03, 1.0, 0)]
    with pytest.raises(DataError, match="exactly one"):
        planned(world, TWO, rows, wrong_when_served=0.03)
    with pytest.raises(DataError, match="exactly one"):
        planned(world, TWO, rows, accuracy_when_confident=None)
    assert within_budget(((0, 50), (2, 100), (40, 200)), 200, 0.05, 0.05) == 1
    assert within_budget(((40, 50),), 200, 0.05, 0.05) is None


def test_a_bar_that_only_lacks_rows_does_not_favour_the_student_that_keeps_less() -> None:
    """Where none clears every bar and none spoils one, the cheaper one as served is chosen, though more is undecided."""
    careful = expectation("careful", clears=False, misses=1, spoils=0, kept=0.1, cost=1.8)
    useful = expectation("useful", clears=False, misses=2, spoils=0, kept=0.6, cost=0.8)
    assert choose([careful, useful]).name == "useful"
    assert choose([careful, dataclasses.replace(useful, spoils=1)]).name == "careful"
