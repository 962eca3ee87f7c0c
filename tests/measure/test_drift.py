"""Drift signals see what they should, stay quiet where traffic only breathes, and never pass a verdict."""

import ast
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overproof.errors import MeasureError
from overproof.evidence import Figure
from overproof.measure import drift as dr

SOURCE = Path(dr.__file__).parents[1]


def kernel_mean(left, right, width):
    """Mean of the Gaussian kernel over all pairs, straight from its definition."""
    squares = ((left[:, None] - right[None]) ** 2).sum(axis=2)
    return np.exp(-squares / (2 * width**2))


def weeks_of(rng, totals=None):
    """Five weeks of seven days, alike but for noise between days; `totals` may set the last week's shift."""
    days = [
        [dr.Sketch(n=50, total=rng.normal(0, 1, 8) + (totals if week == 4 and totals is not None else 0))
         for _ in range(7)]
        for week in range(5)
    ]
    return dr.Weeks(reference=tuple(map(tuple, days[:4])), live=tuple(days[4]))


def test_the_sketch_is_the_direct_distance_of_its_features_and_near_the_kernels():
    """mmd2 of two sketches equals the pairwise form to 1e-6, and the exact Gaussian kernel's to .03."""
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(60, 5)), rng.normal(0.7, 1, size=(40, 5))
    plan = dr.sketch_plan(np.vstack([left, right]), seed=3)

    def features(rows):
        angle = rows.astype(np.float32) @ plan.weights
        return np.hstack([np.cos(angle), np.sin(angle)]).astype(np.float64) / np.sqrt(plan.weights.shape[1])

    def unbiased(ll, rr, lr):
        off = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (ll, rr)]
        return sum(off) - 2 * lr.mean()

    a, b = features(left), features(right)
    found = dr.mmd2(dr.sketch(left, plan), dr.sketch(right, plan))
    assert found == pytest.approx(unbiased(a @ a.T, b @ b.T, a @ b.T), abs=1e-6)
    exact = unbiased(*(kernel_mean(x, y, plan.width) for x, y in ((left, left), (right, right), (left, right))))
    assert found == pytest.approx(exact, abs=0.03)


@given(st.lists(st.integers(0, 400), max_size=6), st.randoms())
@settings(max_examples=20, deadline=None)
def test_a_sketch_adds_over_shards_in_any_order(cuts, rng):
    """However the rows are split and ordered, the count is exact and the sums agree to 1e-9."""
    rows = np.random.default_rng(5).normal(size=(400, 6)).astype(np.float32)
    plan = dr.sketch_plan(rows, features=16)
    parts = [dr.sketch(part, plan) for part in np.split(rows, sorted(cuts))]
    rng.shuffle(parts)
    whole, sum_of = dr.sketch(rows, plan), dr.added(parts)
    assert sum_of.n == whole.n == 400
    assert np.allclose(sum_of.total, whole.total, rtol=1e-9, atol=1e-9 * 400)


def test_blocks_of_rows_do_not_change_a_sketch(monkeypatch):
    """More rows than one block holds give the same sums."""
    rows = np.random.default_rng(5).normal(size=(100, 6))
    plan = dr.sketch_plan(rows, features=16)
    whole = dr.sketch(rows, plan)
    monkeypatch.setattr(dr, "_BLOCK", 7)
    assert np.allclose(dr.sketch(rows, plan).total, whole.total, rtol=1e-6)


def test_the_weekday_test_equals_the_slow_one_and_exchanges_days_within_their_weekday():
    """A swing between weekdays that repeats each week is no drift; a shifted week is; p matches a plain loop."""
    rng = np.random.default_rng(2)
    quiet = weeks_of(rng)
    swing = [np.full(8, 30.0 * (day >= 5)) for day in range(7)]
    swung = [
        tuple(dr.Sketch(n=one.n, total=one.total + swing[day]) for day, one in enumerate(week))
        for week in (*quiet.reference, quiet.live)
    ]
    weeks = dr.Weeks(reference=tuple(swung[:4]), live=swung[4])
    taken = np.random.default_rng(9).integers(0, 5, size=(100, 7))
    taken[0] = 4
    values = []
    for choice in taken:
        live = dr.added(swung[week][day] for day, week in enumerate(choice))
        rest = dr.added(swung[w][day] for day in range(7) for w in range(5) if w != choice[day])
        values.append(dr.mmd2(rest, live))
    assert dr.weekday_test(weeks, arrangements=99, seed=9) == np.mean(np.array(values) >= values[0] - 1e-12)
    assert dr.weekday_test(weeks, arrangements=500, seed=1) > 0.05
    assert dr.weekday_test(weeks_of(rng, totals=np.full(8, 5.0)), arrangements=500, seed=1) < 0.01


def test_the_weekly_page_allows_for_the_number_of_slices():
    """One shifted slice of three is found; its p-value is three times the single test's (Holm)."""
    rng = np.random.default_rng(4)
    slices = {"a": weeks_of(rng), "vip": weeks_of(rng, totals=np.full(8, 5.0)), "b": weeks_of(rng)}
    scores = dr.weekly_shift(slices, level=0.01, seed=3)
    assert [score.signal for score in scores] == ["mmd_sketch:a", "mmd_sketch:vip", "mmd_sketch:b"]
    assert [score.p_value <= 0.01 for score in scores] == [False, True, False]
    alone = dr.weekday_test(slices["vip"], arrangements=1500, seed=4)
    assert scores[1].p_value == pytest.approx(3 * alone)


def test_a_quarters_sketch_tests_spend_at_most_four_of_its_five_per_cent():
    """By the union bound, whatever the weeks have in common; the default level is the one that is counted."""
    assert 13 * dr.SKETCH_LEVEL <= 0.04
    weeks = {"a": weeks_of(np.random.default_rng(4))}
    assert dr.weekly_shift(weeks, seed=3) == dr.weekly_shift(weeks, level=dr.SKETCH_LEVEL, seed=3)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_holm_is_between_the_raw_values_and_bonferroni(p_values):
    """It keeps the order, never goes below a raw value, and the least is the least times the number of tests."""
    adjusted = dr.holm(p_values)
    assert np.all(adjusted >= np.array(p_values))
    assert np.all(adjusted <= np.minimum(1, len(p_values) * np.array(p_values)))
    assert adjusted.min() == pytest.approx(min(1.0, len(p_values) * min(p_values)))


@pytest.mark.parametrize("lane", [dr.SLOW, dr.FAST])
def test_a_share_is_read_both_ways_and_within_its_tolerance_it_stays_quiet(lane):
    """Double the tolerance up or down pages; a move just inside it does not in a quarter."""
    def pages(share):
        counts = np.random.default_rng(1).binomial(2000, share, size=91)
        found = dr.read_share(counts, np.full(91, 2000), 0.1, lane=lane)
        return [bool((side >= found.level).any()) for side in (found.up, found.down)]

    assert pages(0.1) == pages(0.1 * lane.tolerance * 0.98) == pages(0.1 / lane.tolerance * 1.02) == [False, False]
    assert pages(min(0.9, 0.1 * 2 * lane.tolerance)) == [True, False]
    assert pages(0.1 / (2 * lane.tolerance)) == [False, True]


def test_the_two_directions_of_a_share_split_its_weight():
    """One of eight shares, read up and down: sixteen streams of one promise."""
    found = dr.read_share([5] * 7, [100] * 7, 0.05, lane=dr.SLOW, weight=1 / 8)
    assert found.level == pytest.approx(np.log(52 * 16))


def test_a_week_that_is_not_over_is_not_read():
    """20 days are two readings of the slow lane; a share that can't rise by the tolerance is read downwards only."""
    found = dr.read_share([950] * 20, [1000] * 20, 0.95, lane=dr.SLOW)
    assert found.down.shape == (2,)
    assert np.all(np.isneginf(found.up))


def test_far_rows_are_those_of_new_content():
    """About 5% of usual rows are far, nearly all rows of a new topic are, and length does not matter."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 24))
    def rows(n):
        return centres[rng.integers(0, 3, n)] + 0.3 * rng.normal(size=(n, 24))

    reference = dr.far_reference(rows(1500))
    usual, new = rows(1500), centres[3] + 0.3 * rng.normal(size=(200, 24))
    score = dr.far_share(usual, reference)
    assert score.value == pytest.approx(score.reference, abs=0.02)
    assert score.reference == pytest.approx(0.05, abs=0.002)
    assert dr.far_share(new, reference).value > 0.95
    assert np.array_equal(dr.far(usual, reference), dr.far(1000 * usual, reference))


def test_ten_percent_of_new_content_pages_within_500_rows():
    """The far-share stream at tolerance 1.5, 100 rows a day: found in five days in most runs."""
    lane = dr.ShareLane(days=1, tolerance=1.5, mean_epochs=365)
    counts = np.random.default_rng(3).binomial(100, 0.05 * 0.9 + 0.1, size=(300, 5))
    assert dr.read_share(counts, np.full((300, 5), 100), 0.05, lane=lane).pages.any(axis=1).mean() > 0.5


@pytest.mark.parametrize("index", [dr.psi, dr.js])
def test_the_indices_are_near_zero_without_drift_at_any_number_of_rows(index):
    """From 100 rows the mean is within .01 of 0, while the plain index says .1 and more; a real change is seen."""
    rng = np.random.default_rng(7)
    reference = np.full(10, 2000)
    for n in (100, 1000):
        live = rng.multinomial(n, np.full(10, 0.1), size=600)
        assert abs(np.mean([index(one, reference).value for one in live])) < 0.01
    plain = np.mean([index(one, reference).value for one in rng.multinomial(30, np.full(10, 0.1), size=300)])
    assert plain < 0.05
    assert index([400] + [67] * 9, reference).value > 0.05


def test_means_of_confidence_say_what_they_are():
    """The mean confidence is compared, the label-free estimate stands alone, and neither pages."""
    assert dr.mean_confidence([0.5, 1.0], [0.9]).value == 0.75
    assert (dr.cbpe([0.5, 1.0]).value, dr.cbpe([0.5]).reference) == (0.75, None)
    assert {score.use for score in (dr.cbpe([0.5]), dr.mean_confidence([0.5], [0.9]))} == {"audit-rate"}


def test_no_verdict_can_stand_on_drift():
    """A drift score has no bar and no verdict, is no figure, and nothing that judges imports the module."""
    fields = {field.name for field in dataclasses.fields(dr.DriftScore)}
    assert not fields & {"bar", "verdict", "low", "high", "good"}
    assert not issubclass(dr.DriftScore, Figure)
    looked = 0
    judges = [SOURCE / "steps" / f"{name}.py" for name in ("gate", "evaluate", "calibrate", "plan")]
    judges += [SOURCE / "measure" / f"{name}.py" for name in ("certify", "intervals", "paired", "monitor")]
    for path in [*judges, *sorted((SOURCE / "evidence").glob("*.py"))]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                looked += 1
                assert "drift" not in (node.module or ""), path
                assert "drift" not in {alias.name for alias in node.names}, path
            elif isinstance(node, ast.Import):
                assert not [alias for alias in node.names if "drift" in alias.name], path
    assert looked > 30
    assert not [path for path in (SOURCE / "steps").rglob("*.py") if "cbpe" in path.read_text()]


PLAN = dr.SketchPlan(weights=np.ones((3, 2), dtype=np.float32), width=1.0)
DAY = dr.Sketch(n=1, total=np.ones(4))


@pytest.mark.parametrize(
    "call",
    [
        lambda: dr.mean_confidence([], [0.5]),
        lambda: dr.cbpe([1.1]),
        lambda: dr.cbpe([np.nan]),
        lambda: dr.psi([1, 2], [1, 2, 3]),
        lambda: dr.psi([0, 0], [1, 2]),
        lambda: dr.js([0.5, 0.5], [1, 2]),
        lambda: dr.far_reference(np.eye(10)),
        lambda: dr.far_reference(np.zeros((30, 4))),
        lambda: dr.far(np.ones((2, 3)), dr.far_reference(np.eye(30))),
        lambda: dr.far([], dr.far_reference(np.eye(30))),
        lambda: dr.read_share([5], [4], 0.1, lane=dr.FAST),
        lambda: dr.read_share([5], [10], 0.0, lane=dr.FAST),
        lambda: dr.read_share([5], [10], 0.1, lane=dr.ShareLane(days=1, tolerance=1.0, mean_epochs=9)),
        lambda: dr.read_share([5], [10], 0.1, lane=dr.ShareLane(days=0, tolerance=2.0, mean_epochs=9)),
        lambda: dr.sketch_plan(np.ones((5, 3))),
        lambda: dr.sketch(np.ones((5, 4)), PLAN),
        lambda: dr.sketch([[np.inf, 0, 0]], PLAN),
        lambda: dr.added([]),
        lambda: dr.mmd2(DAY, DAY),
        lambda: dr.weekday_test(dr.Weeks(reference=((DAY,) * 7,), live=(DAY,) * 6), arrangements=9, seed=0),
        lambda: dr.weekday_test(dr.Weeks(reference=((DAY,) * 7,), live=(DAY,) * 7), arrangements=0, seed=0),
        lambda: dr.weekly_shift({}),
        lambda: dr.holm([1.5]),
    ],
)
def test_readings_that_mean_nothing_are_refused(call):
    """Empty sides, other shapes, impossible counts and values outside their range name what to do."""
    with pytest.raises(MeasureError) as caught:
        call()
    assert caught.value.next_action
