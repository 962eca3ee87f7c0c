"""A path of threshold vectors is certified as a whole at the full budget, and moves the slice with the most room first."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overproof.errors import MeasureError
from overproof.measure import paths as pt
from overproof.measure.certify import certify_budget, grid_counts
from overproof.measure.intervals import cp_lower, cp_upper, k_star, p_pass

BAR, DELTA = 0.05, 0.1
NAMES = ("a", "b", "c")


def rows_of(rng, n, slope):
    scores = rng.beta(6, 1, n)
    return scores, rng.random(n) < np.clip(slope * (1 - scores), 0, 1)


def three(seed, n=1500, slopes=(0.2, 1.0, 1.3)):
    """Scores and errors of three slices, the first with the most room."""
    rng = np.random.default_rng(seed)
    drawn = {name: rows_of(rng, n, slope) for name, slope in zip(NAMES, slopes, strict=True)}
    return {k: v[0] for k, v in drawn.items()}, {k: v[1] for k, v in drawn.items()}


def planned(seed=1, **kwargs):
    alphas, sealed = dict.fromkeys(NAMES, BAR), dict.fromkeys(NAMES, 1500)
    return pt.plan_path(*three(seed, 3000, **kwargs), alphas=alphas, n_sealed=sealed)


def test_a_path_falls_in_every_slice_and_ends_with_everything():
    """No threshold rises along it, and the slice with room reaches the end before the tight one does."""
    path = planned()
    columns = list(zip(*path.vectors, strict=True))
    assert all(x >= y for column in columns for x, y in itertools.pairwise(column))
    assert path.vectors[-1] == (-1.0, -1.0, -1.0)
    assert len(set(path.vectors)) == len(path.vectors)
    assert columns[0].index(-1.0) < columns[2].index(-1.0)


def test_all_slices_pass_at_the_certified_point_or_none_is_kept():
    """Counts, bound and share of each slice belong to the point; the next point fails for the binding requirement."""
    path = planned()
    scores, wrong = three(2)
    done = pt.certify_path(path, scores, wrong, alphas=dict.fromkeys(NAMES, BAR), delta=DELTA)
    assert done.verdict == "pass"
    for part in done.slices:
        kept = scores[part.slice] >= part.threshold
        assert (part.kept, part.wrong) == (int(kept.sum()), int(wrong[part.slice][kept].sum()))
        assert part.upper == cp_upper(part.wrong, part.kept, DELTA) <= BAR
    assert done.p == max(p_pass(part.wrong, part.kept, BAR) for part in done.slices) <= DELTA
    nxt = {part.slice: p_pass(*part.counts[done.point + 1], BAR) for part in done.slices}
    assert nxt[done.binding] == max(nxt.values()) > DELTA
    spoiled = wrong | {"c": np.ones(1500, dtype=bool)}
    none = pt.certify_path(path, scores, spoiled, alphas=dict.fromkeys(NAMES, BAR), delta=DELTA)
    assert (none.point, none.verdict, none.binding) == (None, "fail", "c")
    assert all((part.threshold, part.kept, part.upper) == (None, 0, 1.0) for part in none.slices)
    assert [part.verdict for part in none.slices] == ["undecided", "undecided", "fail"]


def test_one_slice_at_the_bar_ships_at_most_as_often_as_stated_without_a_correction():
    """Seven perfect slices don't help the eighth: its own chance to pass is all there is, exactly."""
    n = 200
    most = k_star(n, BAR, DELTA)
    names = [f"{i}" for i in range(8)]
    path = pt.ThresholdPath(slices=tuple(names), vectors=((-1.0,) * 8,))
    clean = {name: [0.9] * n for name in names}
    for bad, shipped in ((most, True), (most + 1, False)):
        wrong = {name: [False] * n for name in names} | {"7": [True] * bad + [False] * (n - bad)}
        done = pt.certify_path(path, clean, wrong, alphas=dict.fromkeys(names, BAR), delta=DELTA)
        assert (done.verdict == "pass") == shipped
    assert p_pass(most, n, BAR) <= DELTA


def test_a_further_requirement_stops_the_walk():
    """Its p-value at a point counts like a slice's; after a failure no later point is reached."""
    path = planned()
    scores, wrong = three(2)
    alphas = dict.fromkeys(NAMES, BAR)
    free = pt.certify_path(path, scores, wrong, alphas=alphas, delta=DELTA)
    assert free.point > 3
    also = [0.01] * 3 + [0.5] + [0.0] * (len(path.vectors) - 4)
    held = pt.certify_path(path, scores, wrong, alphas=alphas, delta=DELTA, also=also)
    assert (held.point, held.binding) == (2, "also")


def test_an_undecided_path_names_the_rows_of_each_slice_that_is_short():
    """Thirty clean rows can't pass 5%; the slice that has enough asks for none."""
    path = pt.ThresholdPath(slices=("few", "many"), vectors=((-1.0, -1.0),))
    done = pt.certify_path(
        path,
        {"few": [0.9] * 30, "many": [0.9] * 300},
        {"few": [False] * 30, "many": [False] * 300},
        alphas={"few": BAR, "many": BAR},
        delta=DELTA,
    )
    assert (done.verdict, done.binding) == ("undecided", "few")
    assert done.slices[0].rows_needed > 0
    assert done.slices[1].rows_needed is None


def test_a_slice_is_called_failed_only_where_that_survives_the_number_of_slices():
    """Sixteen of 200 wrong at a 5% bar: over it at the full budget, not at an eighth of it."""
    assert cp_lower(16, 200, DELTA) > BAR > cp_lower(16, 200, DELTA / 8)
    names = [f"{i}" for i in range(8)]
    wrong = {name: [False] * 200 for name in names} | {"7": [True] * 16 + [False] * 184}
    path = pt.ThresholdPath(slices=tuple(names), vectors=((-1.0,) * 8,))
    rows = {name: [0.9] * 200 for name in names}
    assert (
        pt.certify_path(path, rows, wrong, alphas=dict.fromkeys(names, BAR), delta=DELTA).verdict
        == "undecided"
    )
    alone = pt.ThresholdPath(slices=("7",), vectors=((-1.0,),))
    one = pt.certify_path(alone, {"7": [0.9] * 200}, {"7": wrong["7"]}, alphas={"7": BAR}, delta=DELTA)
    assert one.verdict == "fail"


UNIT = st.floats(0, 1)


@given(st.lists(UNIT, min_size=1, max_size=6), st.lists(UNIT | st.just(float("nan")), max_size=20))
def test_a_position_keeps_a_row_at_exactly_the_points_whose_threshold_it_reaches(thresholds, scores):
    """At every point of the path, by position or by threshold, the same rows are kept."""
    falling = sorted(thresholds, reverse=True)
    path = pt.ThresholdPath(slices=("a",), vectors=tuple((t,) for t in falling))
    at = pt.position(path, "a", scores)
    for point, (mark, threshold) in enumerate(zip(pt.position_grid(path), falling, strict=True)):
        assert (at >= mark).tolist() == [s >= threshold for s in scores]
        assert pt.thresholds_at(path, mark) == {"a": falling[point]}


def test_a_cost_path_saves_more_than_one_threshold_for_all_within_the_same_errors():
    """Slices whose answers save more, or err less, are kept first: at equal errors at least as much money."""
    rng = np.random.default_rng(4)
    scores = {"cheap": rng.beta(6, 1, 4000), "dear": rng.beta(6, 1, 4000)}
    risk = {name: 1 - s for name, s in scores.items()}
    saving = {"cheap": 0.001, "dear": 0.01}
    path = pt.plan_cost_path(scores, risk, saving_usd=saving)

    def outcome(thresholds):
        kept = {name: scores[name] >= thresholds[name] for name in scores}
        money = sum(saving[name] * kept[name].sum() for name in scores)
        return money, sum(risk[name][kept[name]].sum() for name in scores)

    ours = [outcome(dict(zip(path.slices, vector, strict=True))) for vector in path.vectors]
    assert ours == sorted(ours)
    for t in np.quantile(scores["cheap"], [0.8, 0.5, 0.2]):
        money, errors = outcome({"cheap": t, "dear": t})
        assert max(m for m, e in ours if e <= errors) > (1.1 if t > 0.85 else 1.0) * money


def test_a_cost_path_is_certified_by_its_position_under_one_budget():
    """Kept and wrong over both slices stays within the budget at the certified thresholds, and not at the next."""
    rng = np.random.default_rng(5)
    dev, sealed = (
        {name: rows_of(rng, 2000, slope) for name, slope in (("a", 0.3), ("b", 1.0))} for _ in range(2)
    )
    path = pt.plan_cost_path(
        {k: v[0] for k, v in dev.items()},
        {k: v[1] for k, v in dev.items()},
        saving_usd={"a": 0.01, "b": 0.01},
    )
    at = np.concatenate([pt.position(path, name, sealed[name][0]) for name in path.slices])
    wrong = np.concatenate([sealed[name][1] for name in path.slices])
    grid = pt.position_grid(path)
    done = certify_budget(at, wrong, grid, budget=0.03, delta=DELTA)
    cut = pt.thresholds_at(path, done.threshold)
    kept_wrong = sum(
        int((sealed[n][1] & (sealed[n][0] >= (2.0 if t is None else t))).sum()) for n, t in cut.items()
    )
    assert kept_wrong == done.wrong
    assert cp_upper(kept_wrong, 4000, DELTA) <= 0.03
    counts = grid_counts(at, wrong, grid)
    assert cp_upper(counts[grid.index(done.threshold) + 1][0], 4000, DELTA) > 0.03
    assert pt.thresholds_at(path, None) == {"a": None, "b": None}


def test_a_slice_that_saves_nothing_is_never_kept():
    """A student that costs as much as its teacher stays at home."""
    path = pt.plan_cost_path(
        {"a": [0.9, 0.5], "b": [0.9, 0.5]},
        {"a": [0, 1], "b": [0, 0]},
        saving_usd={"a": 0.01, "b": 0.0},
        points=2,
    )
    assert {vector[1] for vector in path.vectors} == {pt.KEEP_NONE}
    assert pt.thresholds_at(path, 1.0)["b"] is None


ONE = pt.ThresholdPath(slices=("a",), vectors=((0.5,),))
GOOD = {"a": [0.9]}


@pytest.mark.parametrize(
    "call",
    [
        lambda: pt.plan_path({}, {}, alphas={}, n_sealed={}),
        lambda: pt.plan_path(GOOD, {"b": [True]}, alphas={"a": BAR}, n_sealed={"a": 1}),
        lambda: pt.plan_path({"a": []}, {"a": []}, alphas={"a": BAR}, n_sealed={"a": 1}),
        lambda: pt.plan_cost_path(GOOD, {"a": [2.0]}, saving_usd={"a": 1.0}),
        lambda: pt.plan_cost_path(GOOD, {"a": [0.1, 0.2]}, saving_usd={"a": 1.0}),
        lambda: pt.plan_cost_path(GOOD, {"a": [0.1]}, saving_usd={"a": 0.0}),
        lambda: pt.position(ONE, "b", [0.5]),
        lambda: pt.position(ONE, "a", [5.0]),
        lambda: pt.position(pt.ThresholdPath(slices=("a",), vectors=((0.5,), (0.6,))), "a", [0.5]),
        lambda: pt.thresholds_at(ONE, 0.3),
        lambda: pt.certify_path(ONE, {"b": [0.9]}, {"b": [True]}, alphas={"b": BAR}, delta=0.1),
        lambda: pt.certify_path(ONE, GOOD, {"a": [True]}, alphas={"a": BAR}, delta=10),
        lambda: pt.certify_path(ONE, GOOD, {"a": [True]}, alphas={"a": BAR}, delta=0.1, also=(0.1, 0.2)),
        lambda: pt.certify_path(ONE, GOOD, {"a": [True]}, alphas={"a": BAR}, delta=0.1, also=(float("nan"),)),
    ],
)
def test_paths_that_do_not_belong_to_the_rows_are_refused(call):
    """Unknown slices, rising thresholds, p-values that are none: an error that says what to do."""
    with pytest.raises(MeasureError) as caught:
        call()
    assert caught.value.next_action
