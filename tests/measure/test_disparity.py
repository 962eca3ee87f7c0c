"""Ratios are fairlearn's with bounds that hold; a gap beyond the teacher's is shown, and evening one out is no crime."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overproof.errors import MeasureError
from overproof.measure.disparity import amplification, rate_ratio
from overproof.measure.groups import GroupCount
from overproof.measure.intervals import cp_lower, cp_upper
from overproof.measure.paired import difference_bounds, noninferiority


def counts(*pairs):
    return [GroupCount(name=f"g{i}", k=k, n=n) for i, (k, n) in enumerate(pairs)]


def test_the_ratio_is_the_lowest_rate_over_the_highest_as_worked_by_hand():
    """A group of 40 % beside groups of 50 % and 80 %: one half; nothing counted, or no rows: no ratio and no verdict."""
    found = rate_ratio(counts((40, 100), (50, 100), (80, 100)), bar=0.8, d=0.05)
    assert (found.ratio, found.lowest, found.highest, found.verdict) == (0.5, "g0", "g2", "fail")
    assert found.low == pytest.approx(cp_lower(40, 100, 0.025) / cp_upper(80, 100, 0.025))
    assert found.high == pytest.approx(cp_upper(40, 100, 0.05 / 6) / cp_lower(80, 100, 0.05 / 6))
    for pairs in (((0, 500), (0, 500)), ((400, 500), (0, 0))):
        empty = rate_ratio(counts(*pairs), bar=0.8, d=0.05)
        assert (empty.ratio, empty.verdict) == (None, "undecided")
        assert 0.0 <= empty.low <= empty.high <= 1.0


def test_the_ratios_are_those_of_fairlearn():
    """Demographic parity, equalized odds, and the ratio of a frame of errors."""
    metrics = pytest.importorskip("fairlearn.metrics")
    rng = np.random.default_rng(0)
    group, true = rng.choice(["a", "b", "c"], 400), rng.random(400) < 0.5
    said = np.where(rng.random(400) < 0.2, ~true, true)

    def ours(column, among):
        return rate_ratio([GroupCount(name=g, k=int((column & among & (group == g)).sum()), n=int((among & (group == g)).sum())) for g in "abc"], bar=0.8, d=0.05).ratio

    every = np.ones(400, dtype=bool)
    assert ours(said, every) == pytest.approx(metrics.demographic_parity_ratio(true, said, sensitive_features=group))
    assert min(ours(said, true), ours(said, ~true)) == pytest.approx(metrics.equalized_odds_ratio(true, said, sensitive_features=group))
    frame = metrics.MetricFrame(metrics=lambda a, b: float(np.mean(a != b)), y_true=true, y_pred=said, sensitive_features=group)
    assert ours(said != true, every) == pytest.approx(frame.ratio())


def test_a_ratio_at_the_bar_passes_no_more_often_than_it_may_where_the_plain_ratio_passes_half_the_time():
    """Rates of 40 % and 50 %, bar 0.8: the seen ratio is at or above it in about half of the runs, ours passes in at most 5 %."""
    rng, plain, passes, fails = np.random.default_rng(0), 0, 0, 0
    for _ in range(400):
        a, b = rng.binomial(400, 0.4), rng.binomial(400, 0.5)
        found = rate_ratio(counts((int(a), 400), (int(b), 400)), bar=0.8, d=0.05)
        plain += found.ratio >= 0.8
        passes, fails = passes + (found.verdict == "pass"), fails + (found.verdict == "fail")
    assert plain > 150
    assert passes <= 20
    assert fails <= 20


@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 60), st.floats(0.01, 0.2))
@settings(max_examples=10)
def test_paired_bounds_stand_where_the_exact_test_does(b, c, rest, d):
    """Above the upper bound the test rejects; the bounds hold what was seen, and change sides with the counts."""
    n = b + c + rest
    both, turned = difference_bounds(b, c, n, d=d), difference_bounds(c, b, n, d=d)
    assert -1.0 <= both.low <= (b - c) / n <= both.high <= 1.0
    assert (both.low, both.high) == (-turned.high, -turned.low)
    if 0.001 < both.high < 0.95:
        assert noninferiority(b, c, n, margin=both.high, d=d).verdict == "pass"
        inside = both.high - 0.2 * (both.high - (b - c) / n)
        if inside > 0.001:
            assert noninferiority(b, c, n, margin=inside, d=d).verdict != "pass"


@pytest.mark.parametrize(("p", "q"), [(0.0, 0.3), (0.1, 0.1), (0.3, 0.05), (0.02, 0.4)])
def test_paired_bounds_miss_the_truth_no_more_often_than_they_may(p, q):
    """Every outcome of ten rows, weighted by its chance: exact, for positive and for negative differences."""
    from math import comb

    missed = 0.0
    for b in range(11):
        for c in range(11 - b):
            chance = comb(10, b) * comb(10 - b, c) * p**b * q**c * (1 - p - q) ** (10 - b - c)
            if chance > 1e-9:
                missed += chance * (difference_bounds(b, c, 10, d=0.1).high < p - q)
    assert missed <= 0.1


def rows(*sides):
    """(rows, wrong student, wrong teacher, wrong both) of each group."""
    names, student, teacher = [], [], []
    for i, (n, only_s, only_t, both) in enumerate(sides):
        names += [f"g{i}"] * n
        student += [True] * (only_s + both) + [False] * (n - only_s - both)
        teacher += [False] * only_s + [True] * (both + only_t) + [False] * (n - only_s - both - only_t)
    return names, student, teacher


def test_what_the_student_adds_is_told_from_what_it_inherits():
    """The teacher's own gap of 15 points is none of the student's; 12 points on top are."""
    copied = amplification(*rows((1000, 0, 0, 150), (1000, 0, 0, 0)), bar=0.02, d=0.05)
    assert (copied.verdict, copied.pairs[0].amplified) == ("pass", pytest.approx(0.0))
    assert copied.pairs[0].student == copied.pairs[0].teacher == pytest.approx(0.15)
    worse = amplification(*rows((1000, 120, 0, 150), (1000, 0, 0, 0)), bar=0.01, d=0.05)
    assert (worse.verdict, worse.pairs[0].group, worse.pairs[0].amplified) == ("fail", "g0", pytest.approx(0.12))
    assert worse.pairs[0].low < 0.12 < worse.pairs[0].high
    assert amplification(*rows((30, 1, 0, 2), (30, 0, 0, 0)), bar=0.01, d=0.05).verdict == "undecided"


def test_a_gap_that_is_evened_out_is_not_blamed_and_one_that_is_turned_round_is():
    """The teacher errs on g1; a student that errs alike on both amplifies nothing, one that errs on g0 instead does."""
    even = amplification(*rows((1000, 100, 0, 0), (1000, 0, 0, 100)), bar=0.07, d=0.05)
    assert even.verdict == "pass"
    assert even.pairs[0].amplified == pytest.approx(0.0)
    turned = amplification(*rows((1000, 100, 0, 0), (1000, 0, 100, 0)), bar=0.03, d=0.05)
    assert (turned.verdict, turned.pairs[0].group) == ("fail", "g0")
    assert turned.pairs[0].amplified == pytest.approx(0.1)


@pytest.mark.slow
def test_a_gap_amplified_by_the_bar_passes_no_more_often_than_it_may():
    """Teacher and student agree but for 5 points of the student's own in one group; bar 5 points, 150 runs."""
    rng, passes, naive = np.random.default_rng(1), 0, 0
    for _ in range(150):
        one, two = rng.binomial(300, 0.06), rng.binomial(300, 0.01)
        found = amplification(*rows((300, int(one), 0, 10), (300, int(two), 0, 10)), bar=0.05, d=0.1)
        passes += found.verdict == "pass"
        naive += found.pairs[0].amplified <= 0.05
    assert naive > 50
    assert passes / 150 <= 0.1


def test_what_cant_be_compared_is_refused():
    """One group, unequal columns, a bar out of range."""
    for call in (
        lambda: rate_ratio(counts((1, 2)), bar=0.8, d=0.05),
        lambda: rate_ratio(counts((1, 2), (1, 2)), bar=0.0, d=0.05),
        lambda: amplification(["a", "a"], [True, False], [True, False], bar=0.1, d=0.05),
        lambda: amplification(["a", "b"], [True], [True, False], bar=0.1, d=0.05),
    ):
        with pytest.raises(MeasureError):
            call()
