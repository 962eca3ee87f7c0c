"""Certificates on rows that can be counted by hand: on each limit and beside it, and what is said where something doesn't belong together."""

import math
from dataclasses import asdict, replace

import numpy as np
import pytest

from overproof.errors import MeasureError
from overproof.evidence import Certificate, SliceCertificate, SlicePlan
from overproof.measure import certify as ct
from overproof.measure.intervals import cp_upper, expected_rate, figure, min_rows, p_pass, rows_needed

TWO = (0.5, -1.0)


def plan(name="a", weight=1.0, *, alpha=0.05, grid=TWO, start=0, **more) -> SlicePlan:
    return SlicePlan(**({"slice": name, "alpha": alpha, "weight": weight, "grid": grid, "start": start, "dev_n": 200, "dev_keep": 0.5, "dev_error": 0.01} | more))


def rows(high: int, low: int = 0, *, wrong_high: int = 0, wrong_low: int = 0):
    """Confidences and errors of `high` rows above and `low` rows below one half."""
    return [0.9] * high + [0.1] * low, [i < wrong_high for i in range(high)] + [i < wrong_low for i in range(low)]


def one(done_of: SlicePlan, scores, wrong, delta=0.05) -> SliceCertificate:
    return ct.certify_slices([done_of], {done_of.slice: scores}, {done_of.slice: wrong}, delta)[0]


def whole(*slices, delta=0.05) -> Certificate:
    return Certificate(plan_hash="p", sealed_digest="s", label_kind="gold", use_k=1, delta_spent=delta, slices=slices, assumptions=(),
                       window=(None, None), expires="2030-01-01")  # fmt: skip


ONCE = "plan every certification slice before unsealing"
FALLING = "make it with `grid_of`"
WEIGHTS = "make them with `split_delta`"
REFUSED = {
    "no points": (lambda: ct.grid_of([0.2], points=0), "a grid needs at least one point, got 0", "ask for 50 points"),
    "a logit": (lambda: ct.grid_of([1.2, 0.3]), "confidences are one row of numbers in [0, 1], got shape (2,)", "turn logits into probabilities first"),
    "two rows": (lambda: ct.grid_of([[0.2, 0.3]]), "confidences are one row of numbers in [0, 1], got shape (1, 2)", "turn logits into probabilities first"),
    "two shapes": (lambda: ct.grid_counts([0.5], [True, False], TWO), "scores and wrong must have one shape, got (1,) and (2,)", "pass both for the same rows"),
    "level grid": (lambda: ct.grid_counts([0.5], [True], (0.5, 0.5)), "a grid is a strictly falling list of thresholds, got [0.5, 0.5]…", FALLING),
    "rising grid": (lambda: ct.grid_counts([0.5], [True], (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)),
                    "a grid is a strictly falling list of thresholds, got [0.1, 0.2, 0.3, 0.4, 0.5]…", FALLING),
    "no start": (lambda: ct.plan_start((), 0.05, factor=0.5), "a start needs grid points and factor > 0, got 0 points, factor 0.5",
                 "pass the counts of calibration rows, and how many sealed rows there are for each of them"),
    "off the grid": (lambda: ct.walk(((0, 1),), 0.05, 0.05, 1), "the walk must start on the grid, got 1 of 1 points", "take the start from the plan that the grid belongs to"),
    "before the grid": (lambda: ct.walk(((0, 1),), 0.05, 0.05, -1), "the walk must start on the grid, got -1 of 1 points", "take the start from the plan that the grid belongs to"),
    "no plans": (lambda: ct.certify_slices([], {}, {}, 0.05), "plans must name each slice once, got []; scored but unplanned: []", ONCE),
    "twice": (lambda: ct.certify_slices([plan("a", 0.5), plan("a", 0.5)], {}, {}, 0.05), "plans must name each slice once, got ['a', 'a']; scored but unplanned: []", ONCE),
    "scored, unplanned": (lambda: ct.certify_slices([plan()], {"b": [0.5]}, {}, 0.05), "plans must name each slice once, got ['a']; scored but unplanned: ['b']", ONCE),
    "wrong, unplanned": (lambda: ct.certify_slices([plan()], {}, {"c": [True]}, 0.05), "plans must name each slice once, got ['a']; scored but unplanned: ['c']", ONCE),
    "half the weight": (lambda: ct.certify_slices([plan("a", 0.5)], {}, {}, 0.05), "weights are shares of delta and sum to 1, got 0.5", WEIGHTS),
    "less than no weight": (lambda: ct.certify_slices([plan("a", 1.5), plan("b", -0.5)], {}, {}, 0.05), "weights are shares of delta and sum to 1, got 1.0", WEIGHTS),
    "budget of percents": (lambda: ct.certify_budget([0.5], [True], TWO, budget=1.5, delta=0.05), "a budget lies in [0, 1], got 1.5", "pass a share of all requests"),
    "no shares": (lambda: ct.split_delta({}, {}), "shares and keeps must name the same slices, got [] and []", "pass both for every certification slice"),
    "other shares": (lambda: ct.split_delta({"b": 1.0, "a": 0.0}, {"c": 1.0}), "shares and keeps must name the same slices, got ['a', 'b'] and ['c']", "pass both for every certification slice"),
    "no use": (lambda: ct.ledger_delta(0.05, 0), "a ledger entry needs k >= 1 and delta in (0, 1), got k=0, delta=0.05", "take k from the ledger of the sealed rows"),
    "no delta": (lambda: ct.ledger_delta(0.0, 1), "a ledger entry needs k >= 1 and delta in (0, 1), got k=1, delta=0.0", "take k from the ledger of the sealed rows"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_belong_together_is_refused_in_words(name):
    """What was got, and what to do."""
    call, what, next_action = REFUSED[name]
    with pytest.raises(MeasureError) as caught:
        call()
    assert (caught.value.what, caught.value.next_action) == (what, next_action)


def test_a_grid_keeps_even_shares_rounded_up_and_takes_any_numbers():
    """Each of its points keeps a further share of the reference rows; fifty of them where nobody says."""
    reference = [i / 100 for i in range(100)]
    assert ct.grid_of(reference, points=4) == (0.75, 0.5, 0.25, -1.0)
    assert ct.grid_of([0.1, 0.2, 0.3, 0.4, 0.5], points=2) == (0.3, -1.0)  # three of five: at least a half
    assert ct.grid_of(reference, points=1) == (-1.0,)
    assert ct.grid_of(["0.5", "0.25"], points=2) == (0.5, -1.0)
    assert len(ct.grid_of([i / 1_000 for i in range(1_000)])) == 50
    assert ct.grid_of([math.nan], points=3) == (-1.0,)


def test_counts_take_numbers_in_any_form():
    """Texts of numbers are numbers; a threshold keeps what is on it."""
    assert ct.grid_counts(["0.5", "0.4"], [False, True], ["0.5", "-1"]) == ((0, 1), (1, 2))
    assert ct.grid_counts([0.5, math.nan], [True, True], TWO) == ((1, 1), (1, 1))


def test_the_first_of_equal_starts_is_planned_and_rows_are_scaled():
    """Three of a thousand calibration rows, a tenth as many sealed ones."""
    assert ct.plan_start(((0, 0), (0, 0)), 0.05, factor=1.0) == 0
    assert ct.plan_start(((0, 10), (4, 100), (4, 200)), 0.05, factor=0.1) == 2
    assert ct.plan_start(((0, 10), (4, 100), (4, 200)), 0.05, factor=1e-3) == 0


def test_a_plan_says_what_calibration_rows_showed():
    """On the grid that was given, or one of its own; with no calibration row it is the point that keeps all, and nothing is known."""
    scores, wrong = rows(90, 10, wrong_high=9)
    made = ct.plan_slice("s", scores, wrong, alpha=0.2, weight=0.5, n_sealed=200, grid=[0.5, -1.0])
    assert asdict(made) == asdict(plan("s", 0.5, alpha=0.2, start=1, dev_n=100, dev_keep=1.0, dev_error=0.09))
    assert ct.plan_slice("s", scores, wrong, alpha=0.2, weight=0.5, n_sealed=200).grid == (0.9, 0.1, -1.0)
    strict = ct.plan_slice("s", *rows(60, 40, wrong_high=3, wrong_low=40), alpha=0.2, weight=1.0, n_sealed=100, grid=TWO)
    assert (strict.start, strict.dev_keep, strict.dev_error) == (0, 0.6, 0.05)
    empty = ct.plan_slice("s", [], [], alpha=0.05, weight=1.0, n_sealed=10, grid=(0.9, 0.5, -1.0))
    assert (empty.start, empty.dev_n, empty.dev_keep, empty.dev_error) == (2, 0, 0.0, 1.0)
    none_sealed = ct.plan_slice("s", *rows(60, 40), alpha=0.5, weight=1.0, n_sealed=0, grid=TWO)
    assert none_sealed.start == 0  # as if one row were sealed


def test_a_point_that_is_passed_exactly_is_passed():
    """The test's level belongs to the pass, with the walk and with a budget."""
    counts = ((1, 100), (2, 120))
    level = p_pass(2, 120, 0.05)
    assert level > p_pass(1, 100, 0.05)
    assert ct.walk(counts, 0.05, level, 0) == 1
    assert ct.walk(counts, 0.05, level - 1e-12, 0) == 0
    assert ct.walk(counts, 0.05, 1e-9, 0) is None
    scores, wrong = rows(50, 50, wrong_high=1)
    budget = cp_upper(1, 100, 0.05)
    assert ct.certify_budget(scores, wrong, TWO, budget=budget, delta=0.05).threshold == -1.0
    assert ct.certify_budget(scores, wrong, TWO, budget=budget - 1e-9, delta=0.05).threshold is None


def test_a_budget_certificate_says_all_that_it_rests_on():
    """Certified: threshold, counts of the last point that passes, bound over all rows; not certified: nothing kept, and why."""
    scores, wrong = rows(100, 100, wrong_high=2, wrong_low=40)
    found = ct.certify_budget(scores, wrong, TWO, budget=0.05, delta=0.1)
    assert asdict(found) == {
        "budget": 0.05, "delta": 0.1, "threshold": 0.5, "n": 200, "kept": 100, "wrong": 2, "upper": cp_upper(2, 200, 0.1),
        "keep_share": asdict(figure(100, 200, metric="kept")), "verdict": "pass",
    }  # fmt: skip
    refused = ct.certify_budget(*rows(150, 50, wrong_high=120), TWO, budget=0.05, delta=0.1)
    assert (refused.threshold, refused.kept, refused.wrong, refused.verdict) == (None, 0, 0, "fail")
    unsure = ct.certify_budget(*rows(10, 10, wrong_low=9), TWO, budget=0.05, delta=0.1)
    assert (unsure.threshold, unsure.verdict) == (None, "undecided")  # judged at the strictest point, where nothing is wrong
    assert ct.certify_budget(scores, wrong, TWO, budget=1.0, delta=0.1).threshold == -1.0
    assert ct.certify_budget(scores, wrong, TWO, budget=0.0, delta=0.1).verdict == "fail"


def test_an_uncertified_slice_says_nothing_beyond_its_counts():
    """No threshold, nothing kept, a bound of one; before the test it has no share of the error budget."""
    before = ct.nothing_kept("a", 10, ((0, 5), (1, 10)), alpha=0.05, grid=[0.5, -1.0])
    assert asdict(before) == asdict(SliceCertificate(
        slice="a", alpha=0.05, delta=0.0, threshold=None, n=10, kept=0, wrong=0, upper=1.0, keep_share=figure(0, 10, metric="kept"),
        verdict="undecided", counts=((0, 5), (1, 10)), grid=TWO, start=0, weight=1.0))  # fmt: skip
    after = one(plan(), *rows(20, 20))
    assert replace(after, rows_needed=None) == replace(before, n=40, counts=((0, 20), (0, 40)), keep_share=figure(0, 40, metric="kept"), delta=0.05)
    worse = one(plan(), *rows(100, wrong_high=50))
    assert (worse.verdict, worse.threshold, worse.kept, worse.wrong, worse.upper, worse.rows_needed) == ("fail", None, 0, 0, 1.0, None)


def test_a_certified_slice_says_its_bound_at_its_own_share_of_the_budget():
    """Counts, bound and share kept are those of the last point that passes; rows that would have been needed are no matter."""
    done = one(plan(), *rows(200, 100, wrong_high=2, wrong_low=50))
    assert (done.threshold, done.kept, done.wrong, done.delta, done.verdict, done.rows_needed) == (0.5, 200, 2, 0.05, "pass", None)
    assert done.upper == cp_upper(2, 200, 0.05)
    assert done.keep_share == figure(200, 300, metric="kept")
    assert one(plan(start=1), *rows(200, 100)).threshold == -1.0


def test_a_slice_without_weight_waits_for_another_that_is_settled():
    """With no share it is not tested; once the other has reached its last point it gets all of the budget."""
    plans = [plan("a", 1.0), plan("b", 0.0)]
    good, small = rows(300), rows(10)
    both = ct.certify_slices(plans, {"a": good[0], "b": small[0]}, {"a": good[1], "b": small[1]}, 0.05)
    assert [(s.slice, s.threshold, s.delta, s.verdict) for s in both] == [("a", -1.0, 0.05, "pass"), ("b", None, 0.0, "undecided")]
    assert both[1].rows_needed is None
    assert ct.recompute(whole(*both)) == ()
    held = ct.certify_slices(plans, {"a": small[0], "b": good[0]}, {"a": small[1], "b": good[1]}, 0.05)
    assert [(s.threshold, s.delta, s.kept) for s in held] == [(None, 0.05, 0), (None, 0.0, 0)]


def test_a_settled_slice_hands_its_share_on_and_another_does_not():
    """Forty rows are too few at half of the error budget; seventy suffice at all of it."""
    plans = [plan("a", 0.5), plan("b", 0.5)]
    seventy = rows(62)
    assert min_rows(0.05, 0.05) == 59
    for first, deltas in ((rows(300), (0.025, 0.05)), (rows(300, 30, wrong_low=30), (0.025, 0.025))):
        done = ct.certify_slices(plans, {"a": first[0], "b": seventy[0]}, {"a": first[1], "b": seventy[1]}, 0.05)
        assert tuple(s.delta for s in done) == deltas
        assert (done[1].threshold is not None) == (deltas[1] == 0.05)


@pytest.mark.parametrize(
    ("more", "scores", "rate"),
    [
        ({}, rows(20), max(expected_rate(1, 100, 0.05), 0.0)),
        ({"dev_error": 0.02}, rows(20), max(expected_rate(2, 100, 0.05), 0.0)),
        ({"dev_error": 0.0}, rows(50, wrong_high=2), 0.04),
        ({"dev_keep": 0.25}, rows(20), expected_rate(0, 50, 0.05)),
        ({"dev_keep": 0.0}, rows(20), expected_rate(0, 0, 0.05)),
        ({}, rows(0, 30), expected_rate(1, 100, 0.05)),
    ],
)
def test_an_undecided_slice_says_how_many_more_rows_it_takes(more, scores, rate):
    """As many as the worse of the two error rates asks, over the share of rows that is kept, less what is there."""
    planned = plan(**more)
    done = one(planned, *scores)
    kept = rows_needed(0.05, rate, 0.05)
    assert done.verdict == "undecided"
    expected = None if kept is None else math.ceil(max(kept, min_rows(0.05, 0.05)) / (planned.dev_keep or 1.0)) - done.n
    assert done.rows_needed == expected
    assert expected is None or expected > 20


def test_where_rows_would_do_already_one_more_is_asked():
    """Bad luck on many rows: the rate seen before would have passed with fewer."""
    done = one(plan(dev_keep=1.0, dev_error=0.0, dev_n=10_000), *rows(59, 1_000, wrong_high=1))
    assert done.verdict == "undecided"
    assert done.rows_needed == 1


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_bar_that_nothing_or_everything_meets_names_no_rows(alpha):
    """No error admitted can never be shown; all admitted is shown by any row."""
    done = one(plan(alpha=alpha), *rows(30))
    assert done.rows_needed is None
    assert done.verdict == ("pass" if alpha else "undecided")
    assert one(plan(alpha=alpha), [], []).rows_needed is None


def test_the_error_budget_is_split_by_what_would_move():
    """Nine tenths of the traffic at half kept against a tenth at a tenth; a slice that moves nothing has a quarter of an even share."""
    assert ct.split_delta({"a": 0.9, "b": 0.1}, {"a": 0.5, "b": 0.5}) == pytest.approx({"a": 0.9 / 1.025, "b": 0.125 / 1.025})
    assert ct.split_delta({"a": 0.6, "b": 0.4}, {"a": 0.5, "b": 0.5}) == pytest.approx({"a": 0.6, "b": 0.4})
    assert ct.split_delta({"a": 0.6, "b": 0.4}, {"a": 0.0, "b": 0.0}) == {"a": 0.5, "b": 0.5}
    assert ct.split_delta({"a": 0.5, "b": 0.5}, {"a": -1.0, "b": 1.0}) == pytest.approx({"a": 0.125 / 1.125, "b": 1.0 / 1.125})
    assert ct.split_delta({"a": 0.02}, {"a": 0.9}) == {"a": 1.0}


def test_uses_of_sealed_rows_spend_all_of_the_budget_and_no_more():
    """Six over pi squared, then a quarter, then a ninth of it."""
    first = 0.05 * 6 / math.pi**2
    assert [ct.ledger_delta(0.05, k) for k in (1, 2, 3)] == pytest.approx([first, first / 4, first / 9])
    assert math.fsum(ct.ledger_delta(0.05, k) for k in range(1, 20_000)) == pytest.approx(0.05, rel=1e-4)


HONEST = one(plan(), *rows(200, 100, wrong_high=2, wrong_low=50))
JOIN = "slice 'a': grid, counts and start don't belong together"
GROW = "slice 'a': counts must grow along the grid with wrong <= kept"
FORGED = {
    "no slices": ((), ("the certificate has no slices",)),
    "half the weight": ((replace(HONEST, weight=0.5),), ("the weights of the slices sum to 0.5, not to 1",)),
    "a little more weight": ((replace(HONEST, weight=1.0 + 1e-8),), ("the weights of the slices sum to 1.00000001, not to 1",)),
    "weight within rounding": ((replace(HONEST, weight=1.0 + 5e-10),), ()),
    "counts without grid": ((replace(HONEST, grid=(), counts=()),), (JOIN,)),
    "a count too few": ((replace(HONEST, counts=HONEST.counts[:1]),), (JOIN,)),
    "a start behind the end": ((replace(HONEST, start=2),), (JOIN,)),
    "a start before the beginning": ((replace(HONEST, start=-1),), (JOIN,)),
    "more wrong than kept": ((replace(HONEST, counts=((3, 2), (52, 300))),), (GROW,)),
    "fewer wrong": ((replace(HONEST, counts=((2, 200), (1, 300))),), (GROW,)),
    "fewer kept": ((replace(HONEST, counts=((2, 200), (2, 199))),), (GROW,)),
    "less than none": ((replace(HONEST, counts=((-1, 200), (2, 300))),), (GROW,)),
    "more kept than rows": ((replace(HONEST, n=299),), ("slice 'a': more rows kept than there are",)),
    "two faults": ((replace(HONEST, n=299, start=5),), (JOIN, "slice 'a': more rows kept than there are")),
    "a lower bound": ((replace(HONEST, upper=0.01),), (f"slice 'a': upper is stated as 0.01, its counts give {HONEST.upper!r}",)),
    "another level": ((replace(HONEST, keep_share=figure(200, 300, metric="kept", level=0.9)),), ()),
    "another metric": ((replace(HONEST, keep_share=replace(HONEST.keep_share, metric="served")),), ()),
    "another share": ((replace(HONEST, keep_share=replace(HONEST.keep_share, value=0.9)),), (f"slice 'a': keep_share.value is stated as 0.9, its counts give {200 / 300!r}",)),
    "nothing wrong, nothing kept": ((one(plan(), [], []),), ()),
    "wrong to the last": ((one(plan(), *rows(30, wrong_high=30)),), ()),
    "rows that keep nobody": ((one(plan(), *rows(0, 30)),), ()),
    "a bound within rounding": ((replace(HONEST, upper=HONEST.upper * (1 + 5e-10)),), ()),
    "a bound beyond rounding": ((replace(HONEST, upper=HONEST.upper * (1 + 5e-9)),), None),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGED)
def test_a_certificate_is_taken_apart_in_words(name):
    """Each number that its counts don't give is named with both values; rounding is no forgery."""
    slices, lines = FORGED[name]
    found = ct.recompute(whole(*slices))
    assert found == lines if lines is not None else len(found) == 1


def test_every_slice_is_rebuilt_from_its_own_counts():
    """Threshold and verdict that a certificate states play no part in it."""
    two = [plan("a", 0.5), plan("b", 0.5)]
    scores, wrong = {"a": [0.9] * 300, "b": [0.9] * 62}, {"a": [False] * 300, "b": [False] * 62}
    honest = ct.certify_slices(two, scores, wrong, 0.05)
    assert ct.recompute(whole(*honest)) == ()
    held = ct.certify_slices(two, scores | {"a": [0.9] * 10}, wrong | {"a": [False] * 10}, 0.05)
    told = replace(held[0], threshold=-1.0)  # as if it had been settled, so that its share were handed on
    assert any("threshold is stated as -1.0" in line for line in ct.recompute(whole(told, held[1])))
    assert np.isclose(sum(s.weight for s in honest), 1.0)
