"""Paired tests hold their size exactly, and the textbook shortcut beside them does not."""

import functools
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, multinomial

from overproof.errors import MeasureError
from overproof.measure import paired as pr
from overproof.measure.intervals import cp_lower, cp_upper

MARGIN = 0.01


@functools.cache
def table(n, most):
    """p for every (b, c) up to `most` each."""
    return np.array(
        [[pr.noninferiority(b, c, n, margin=MARGIN, d=0.05).p for c in range(most)] for b in range(most)]
    )


def chance_of(n, most, rate_b, rate_c):
    b, c = np.meshgrid(np.arange(most), np.arange(most), indexing="ij")
    rows = np.stack([b, c, n - b - c], axis=-1)
    return multinomial.pmf(rows, n, [rate_b, rate_c, 1 - rate_b - rate_c])


@pytest.mark.parametrize(("n", "most"), [(50, 16), (100, 20)])
@pytest.mark.parametrize("d", [0.05, 0.1])
def test_a_student_at_the_margin_passes_at_most_as_often_as_stated(n, most, d):
    """Enumeration over outcomes and nuisance rates: the size is within the level and not needlessly small."""
    sizes = []
    for rate in np.geomspace(0.0005, 0.05, 25):
        chance = chance_of(n, most, rate + MARGIN, rate)
        sizes.append(chance[table(n, most) <= d].sum() + (1 - chance.sum()))
    assert max(sizes) <= d
    assert max(sizes) > 0.8 * d


def test_the_same_enumeration_sees_that_a_wald_test_is_wrong():
    """At n=100 with rare disagreement the Wald test passes about a third of students at the margin (nominal 10%)."""
    n, most = 100, 20
    b, c = np.meshgrid(np.arange(most), np.arange(most), indexing="ij")
    spread = np.sqrt(np.maximum(b + c - (b - c) ** 2 / n, 1e-12)) / n
    wald = (b - c) / n + 1.2816 * spread <= MARGIN
    assert chance_of(n, most, 0.002 + MARGIN, 0.002)[wald].sum() > 0.25
    assert chance_of(n, most, 0.002 + MARGIN, 0.002)[table(n, most) <= 0.1].sum() <= 0.1


def brute_p(b, c, n, margin):
    """The published formula, summed over every pair of counts."""
    seen = pr.tango_score(b, c, n, margin)
    low, high = cp_lower(c, n, 5e-5), min(cp_upper(c, n, 5e-5), (1 - margin) / 2)
    region = [
        (x, y)
        for x in range(n + 1)
        for y in range(n + 1 - x)
        if pr.tango_score(x, y, n, margin) <= seen + 1e-12
    ]
    rows = np.array([(x, y, n - x - y) for x, y in region])
    rates = np.geomspace(max(low, 1e-7), high, 60)
    return 1e-4 + max(multinomial.pmf(rows, n, [q + margin, q, 1 - 2 * q - margin]).sum() for q in rates)


@pytest.mark.parametrize("margin", [0.01, 0.05, 0.3])
@pytest.mark.parametrize(
    ("b", "c", "n"), [(0, 0, 12), (1, 0, 20), (0, 5, 20), (4, 4, 25), (9, 2, 25), (12, 13, 25)]
)
def test_the_p_value_is_the_one_of_plain_enumeration(b, c, n, margin):
    """The conditional-binomial shortcut and the bisection over the score change nothing."""
    ours = pr.noninferiority(b, c, n, margin=margin, d=0.05).p
    assert ours == pytest.approx(min(1.0, brute_p(b, c, n, margin)), rel=1e-6, abs=1e-9)


@given(st.integers(1, 60), st.floats(0.002, 0.4), st.data())
@settings(max_examples=80, deadline=None)
def test_the_score_grows_with_the_students_own_errors(n, margin, data):
    """For each c the score is monotone in b: what the bisection relies on."""
    c = data.draw(st.integers(0, n))
    scores = [pr.tango_score(b, c, n, margin) for b in range(n - c + 1)]
    assert all(x <= y + 1e-9 for x, y in itertools.pairwise(scores))


@pytest.mark.parametrize(("b", "c", "n", "margin"), [(5, 3, 100, 0.01), (0, 4, 60, 0.1), (20, 1, 80, -0.05)])
def test_the_score_is_taken_at_the_most_likely_nuisance_rate(b, c, n, margin):
    """Its closed form agrees with a direct maximisation of the likelihood under the margin."""
    rates = np.linspace(max(0, -margin) + 1e-9, (1 - margin) / 2 - 1e-9, 400_001)
    logs = b * np.log(rates + margin) + c * np.log(rates) + (n - b - c) * np.log(1 - 2 * rates - margin)
    best = rates[np.argmax(logs)]
    direct = (b - c - n * margin) / math.sqrt(n * (2 * best + margin * (1 - margin)))
    assert pr.tango_score(b, c, n, margin) == pytest.approx(direct, abs=2e-3)


@given(st.integers(0, 12), st.integers(0, 12), st.integers(60, 400))
@settings(max_examples=40, deadline=None)
def test_more_errors_of_the_student_never_help_it(b, c, n):
    """p grows with b; verdict and p agree."""
    first, worse = (pr.noninferiority(x, c, n, margin=0.02, d=0.05) for x in (b, b + 1))
    assert first.p <= worse.p + 1e-9
    for test in (first, worse):
        assert (test.verdict == "pass") == (test.p <= 0.05)


def test_verdicts_have_three_values_and_name_the_rows():
    """Clearly good passes, clearly worse fails, too few rows are undecided with a number; no rows never pass."""
    assert pr.noninferiority(10, 10, 3000, margin=0.01, d=0.05).verdict == "pass"
    worse = pr.noninferiority(120, 10, 1000, margin=0.01, d=0.05)
    assert (worse.verdict, worse.rows_needed) == ("fail", None)
    few = pr.noninferiority(2, 2, 200, margin=0.01, d=0.05)
    assert few.verdict == "undecided"
    assert few.rows_needed == pr.noninferiority_rows(0.01, 0.05, 0.01, 0.01) - 200
    at_worst = pr.noninferiority(6, 2, 200, margin=0.01, d=0.05)
    assert (at_worst.verdict, at_worst.rows_needed) == ("undecided", None)
    none = pr.noninferiority(0, 0, 0, margin=0.01, d=0.05)
    assert (none.verdict, none.p, none.difference) == ("undecided", 1.0, None)
    assert pr.noninferiority(0, 0, 50, margin=0.01, d=0.05).rows_needed > 0


def test_a_fail_is_false_at_most_as_often_as_stated():
    """Enumeration: a student within the margin is failed with probability at most d."""
    n, most = 100, 24
    verdicts = np.array(
        [[pr.noninferiority(b, c, n, margin=MARGIN, d=0.1).verdict for c in range(most)] for b in range(most)]
    )
    for rate in (0.005, 0.02, 0.05):
        assert chance_of(n, most, rate + MARGIN, rate)[verdicts == "fail"].sum() <= 0.1


def test_above_twenty_thousand_rows_the_score_test_takes_over():
    """It is named, and close to the exact one below the border."""
    large = pr.noninferiority(420, 380, 20_001, margin=0.005, d=0.05)
    exact = pr.noninferiority(420, 380, 20_000, margin=0.005, d=0.05)
    assert (large.method, exact.method) == ("tango score", "tango, exact over the nuisance range")
    assert large.p == pytest.approx(exact.p, abs=0.005)


@pytest.mark.parametrize(
    ("margin", "rate_b", "rate_c", "published"),
    [
        (0.01, 0.01, 0.01, 1237),
        (0.01, 0.03, 0.03, 3710),
        (0.01, 0.06, 0.06, 7419),
        (0.02, 0.03, 0.03, 928),
        (0.01, 0.015, 0.01, 6177),
    ],
)
def test_the_rows_for_a_margin_are_those_of_the_published_table(margin, rate_b, rate_c, published):
    """What users see before they set a margin."""
    assert pr.noninferiority_rows(margin, 0.05, rate_b, rate_c) == pytest.approx(published, abs=2)


def test_the_rows_for_a_margin_give_about_the_power_that_they_promise():
    """Simulated at the stated rates: near 80%; a student worse by the margin has no number."""
    rows = pr.noninferiority_rows(0.02, 0.05, 0.03, 0.03)
    drawn = np.random.default_rng(8).multinomial(rows, [0.03, 0.03, 0.94], size=150)
    passes = [
        pr.noninferiority(int(b), int(c), rows, margin=0.02, d=0.05).verdict == "pass" for b, c, _ in drawn
    ]
    assert np.mean(passes) == pytest.approx(0.8, abs=0.1)
    assert pr.noninferiority_rows(0.01, 0.05, 0.03, 0.02) is None


@given(st.integers(0, 60), st.integers(0, 60))
@settings(deadline=None)
def test_superiority_is_the_exact_sign_test(b, c):
    """Oracle: scipy's binomial test on the discordant rows."""
    test = pr.superiority(b, c, d=0.05)
    expected = binomtest(c, b + c, 0.5, alternative="greater").pvalue if b + c else 1.0
    assert test.p == pytest.approx(expected, rel=1e-9)
    assert (test.verdict == "pass") == (test.p <= 0.05)
    assert not (test.verdict == "fail" and c >= b)


@pytest.mark.parametrize("n", [5, 20, 101])
def test_two_equal_candidates_are_told_apart_at_most_as_often_as_stated(n):
    """Enumeration over the discordant rows."""
    verdicts = np.array([pr.superiority(b, n - b, d=0.05).verdict for b in range(n + 1)])
    chance = binom.pmf(np.arange(n + 1), n, 0.5)
    assert chance[verdicts == "pass"].sum() <= 0.05
    assert chance[verdicts == "fail"].sum() <= 0.05


@given(st.integers(0, 30), st.integers(0, 30), st.integers(60, 500))
@settings(max_examples=50, deadline=None)
def test_the_interval_of_a_difference_contains_it_and_mirrors(b, c, n):
    """Swapping the two turns the interval round."""
    ours, theirs = pr.difference_interval(b, c, n), pr.difference_interval(c, b, n)
    assert ours.low <= (b - c) / n <= ours.high
    assert (ours.low, ours.high) == pytest.approx((-theirs.high, -theirs.low), abs=1e-9)


def test_the_interval_of_a_difference_covers():
    """Enumeration at n=100: about the nominal share of outcomes has the truth inside."""
    n, most, rate_b, rate_c = 100, 25, 0.06, 0.03
    both = [[pr.difference_interval(b, c, n) for c in range(most)] for b in range(most)]
    inside = np.array([[i.low <= rate_b - rate_c <= i.high for i in row] for row in both])
    assert chance_of(n, most, rate_b, rate_c)[inside].sum() == pytest.approx(0.95, abs=0.015)
    assert pr.difference_interval(0, 0, 0).low == -1.0


@pytest.mark.parametrize(
    "call",
    [
        lambda: pr.noninferiority(3, 3, 5, margin=0.01, d=0.05),
        lambda: pr.noninferiority(-1, 3, 5, margin=0.01, d=0.05),
        lambda: pr.noninferiority(1, 1, 50, margin=0.0, d=0.05),
        lambda: pr.noninferiority(1, 1, 50, margin=1, d=0.05),
        lambda: pr.noninferiority(1, 1, 50, margin=0.01, d=5),
        lambda: pr.noninferiority_rows(0.01, 0.05, 0.9, 0.9),
        lambda: pr.superiority(3, 3, d=0.05, n=4),
        lambda: pr.tango_score(0, 0, 0, 0.01),
        lambda: pr.difference_interval(1, 1, 10, level=95),
    ],
)
def test_impossible_pairs_are_refused(call):
    """Counts that don't fit together and percentages raise, with a next action."""
    with pytest.raises(MeasureError) as caught:
        call()
    assert caught.value.next_action
