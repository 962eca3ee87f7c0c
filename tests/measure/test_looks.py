"""Planned looks certify early without spending more than the budget, and what passed stays passed."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overproof.errors import MeasureError
from overproof.evidence import SlicePlan
from overproof.measure import looks as lk
from overproof.measure.intervals import cp_upper, k_star, min_rows, p_pass

BAR, DELTA = 0.05, 0.1


def plan_of(name="s", weight=1.0, *, grid=(0.5, -1.0), start=0):
    return SlicePlan(
        slice=name, alpha=BAR, weight=weight, grid=grid, start=start, dev_n=100, dev_keep=1.0, dev_error=0.0
    )


def seen(*pairs):
    """Looks at which every row is kept at the one point of the grid."""
    return [lk.SliceLook(n=n, counts=((k, n),)) for k, n in pairs]


def test_a_system_at_its_bar_passes_any_look_at_most_as_often_as_stated():
    """Exactly, by enumeration over the looks; testing each look at the full budget passes far more often."""
    rows = lk.look_rows(first=60, looks=4)
    shares, rows_so_far = lk.look_shares(4), []

    def ever(levels):
        """Chance that a system at the bar passes at some look: states are counts of wrong rows that never passed."""
        alive, passed, before = np.array([1.0]), 0.0, 0
        rows_so_far.clear()
        for n in rows:
            more = n - before
            step = [math.comb(more, k) * BAR**k * (1 - BAR) ** (more - k) for k in range(more + 1)]
            alive, before = np.convolve(alive, step), n
            rows_so_far.append(n)
            passes = [k for k in range(len(alive)) if alive[k] > 0.0 and now_passes(k, levels)]
            passed += float(alive[passes].sum())
            alive[passes] = 0.0
        return passed

    def now_passes(k, levels):
        """Whether k wrong at the latest look certify the only point; the looks before it failed with no more wrong."""
        failed = [min(k, k_star(n, BAR, d) + 1) for n, d in zip(rows_so_far[:-1], levels, strict=False)]
        history = [((bad, n),) for bad, n in zip([*failed, k], rows_so_far, strict=True)]
        return lk.walk_looks(history, BAR, levels, 0) is not None

    assert ever([DELTA * share for share in shares]) <= DELTA
    assert ever([DELTA] * 4) > 1.3 * DELTA


def test_what_passed_stays_passed():
    """A later look at which the point would fail does not take it back; the bound shown is the one it passed by."""
    early, late = (0, 250), (40, 500)
    done = lk.certify_looks(
        [plan_of(grid=(-1.0,))], {"s": seen(early, late)}, DELTA, shares=lk.look_shares(3)
    )[0]
    assert p_pass(*late, BAR) > DELTA
    assert (done.threshold, done.look, done.kept, done.wrong, done.verdict) == (-1.0, 1, 250, 0, "pass")
    assert done.upper == cp_upper(0, 250, DELTA * lk.look_shares(3)[0]) <= BAR
    assert done.keep_share.n == 500
    assert done.looks_left == 1


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 60)), min_size=1, max_size=6))
def test_thresholds_only_loosen_from_look_to_look(steps):
    """Another look never keeps less, whatever the rows say."""
    counts, looks = [(0, 0), (0, 0)], []
    for bad, good in steps:
        counts = [(k + bad // (2 - i), m + (bad + good) // (2 - i)) for i, (k, m) in enumerate(counts)]
        counts = [(min(k, m), m) for k, m in counts]
        looks.append(tuple(counts))
    deltas = [DELTA * share for share in lk.look_shares(6)]
    reached = [lk.walk_looks(looks[:i], BAR, deltas, 0) for i in range(len(looks) + 1)]
    kept = [-1 if at is None else at for at in reached]
    assert kept == sorted(kept)


def test_one_look_is_the_ordinary_walk():
    """With a single look the whole budget is its own."""
    assert lk.look_shares(1) == (1.0,)
    counts = ((0, 100), (1, 150), (30, 200))
    assert lk.walk_looks([counts], BAR, [0.05], 0) == 1
    assert lk.walk_looks([counts], BAR, [0.05], 2) is None


def test_shares_rise_and_sum_to_the_budget():
    """Half of the budget waits for the last look; the first rows of a look can still pass."""
    for looks in (1, 2, 6, 12):
        shares = lk.look_shares(looks)
        assert math.fsum(shares) == pytest.approx(1.0, abs=1e-12)
        assert list(shares) == sorted(shares)
    assert min_rows(BAR, DELTA * lk.look_shares(6)[0]) <= lk.look_rows()[0]


def test_slices_share_the_budget_and_a_missing_one_is_undecided():
    """Weights split delta; without a look nothing is kept; far over the bar is a fail."""
    plans = [
        plan_of("a", 0.5, grid=(-1.0,)),
        plan_of("b", 0.3, grid=(-1.0,)),
        plan_of("c", 0.2, grid=(-1.0,)),
    ]
    a, b, c = lk.certify_looks(
        plans, {"a": seen((0, 400)), "c": seen((200, 400))}, DELTA, shares=lk.look_shares(2)
    )
    assert (a.verdict, a.delta) == ("pass", pytest.approx(DELTA * 0.5))
    assert (b.verdict, b.threshold, b.keep_share.n, b.looks_left) == ("undecided", None, 0, 2)
    assert (c.verdict, c.threshold, c.kept, c.upper) == ("fail", None, 0, 1.0)


@pytest.mark.parametrize(
    "call",
    [
        lambda: lk.look_rows(first=0),
        lambda: lk.look_rows(looks=0),
        lambda: lk.look_shares(0),
        lambda: lk.walk_looks([((0, 10),), ((0, 20),)], BAR, [0.05], 0),
        lambda: lk.walk_looks([((0, 20),), ((0, 10),)], BAR, [0.02, 0.03], 0),
        lambda: lk.walk_looks([((3, 20),), ((2, 30),)], BAR, [0.02, 0.03], 0),
        lambda: lk.walk_looks([((0, 20),)], BAR, [0.05], 1),
        lambda: lk.certify_looks([], {}, DELTA, shares=(1.0,)),
        lambda: lk.certify_looks([plan_of(weight=0.5)], {}, DELTA, shares=(1.0,)),
        lambda: lk.certify_looks([plan_of()], {"other": []}, DELTA, shares=(1.0,)),
        lambda: lk.certify_looks([plan_of()], {}, DELTA, shares=(0.7, 0.7)),
        lambda: lk.certify_looks([plan_of()], {}, DELTA, shares=()),
        lambda: lk.certify_looks([plan_of()], {}, 5.0, shares=(1.0,)),
        lambda: lk.certify_looks([plan_of()], {"s": seen((0, 10))}, DELTA, shares=(1.0,)),
        lambda: lk.certify_looks(
            [replace(plan_of(), weight=2.0), replace(plan_of("t"), weight=-1.0)], {}, DELTA, shares=(1.0,)
        ),
    ],
)
def test_a_look_that_was_not_planned_is_refused(call):
    """More looks than planned, falling counts, budgets over 1: an error that says what to do."""
    with pytest.raises(MeasureError) as caught:
        call()
    assert caught.value.next_action
