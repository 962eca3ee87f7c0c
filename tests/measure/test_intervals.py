"""Bounds miss no more often than they say, verdicts follow from bounds, and rows are counted exactly."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom, binomtest

from overproof.errors import MeasureError
from overproof.measure import intervals as iv

RATES = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.3, 0.5, 0.8, 0.97)


@st.composite
def counts(draw, most=3000):
    n = draw(st.integers(1, most))
    return draw(st.integers(0, n)), n


@pytest.mark.parametrize("n", [1, 2, 7, 30, 50, 100, 300])
@pytest.mark.parametrize("d", [0.01, 0.05, 0.1])
def test_an_exact_bound_misses_at_most_as_often_as_it_says(n, d):
    """Enumeration over all outcomes: the miss of each bound is at most d for every rate."""
    k = np.arange(n + 1)
    upper = np.array([iv.cp_upper(int(x), n, d) for x in k])
    lower = np.array([iv.cp_lower(int(x), n, d) for x in k])
    for rate in RATES:
        chance = binom.pmf(k, n, rate)
        assert chance[upper < rate].sum() <= d + 1e-12
        assert chance[lower > rate].sum() <= d + 1e-12


def test_the_same_enumeration_sees_that_a_wald_bound_misses():
    """The check can see a fault: Wald's 5% bound misses in more than a third of cases at n=50, rate 2%."""
    n, rate = 50, 0.02
    k = np.arange(n + 1)
    wald = k / n + 1.6449 * np.sqrt(k / n * (1 - k / n) / n)
    assert binom.pmf(k, n, rate)[wald < rate].sum() > 0.3


@given(counts(), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
@settings(max_examples=150, deadline=None)
def test_the_two_sided_interval_is_the_one_of_scipy(pair, level):
    """Agreement with an independent implementation of the same method."""
    k, n = pair
    theirs = binomtest(k, n).proportion_ci(confidence_level=level, method="exact")
    ours = iv.cp_interval(k, n, level=level)
    assert ours.low == pytest.approx(theirs.low, abs=1e-10)
    assert ours.high == pytest.approx(theirs.high, abs=1e-10)
    score = binomtest(k, n).proportion_ci(confidence_level=level, method="wilson")
    chart = iv.wilson(k, n, level=level)
    assert (chart.low, chart.high) == pytest.approx((score.low, score.high), abs=1e-10)


@given(counts(), st.floats(0.001, 0.999), st.floats(0.001, 0.5))
@settings(max_examples=300, deadline=None)
def test_the_p_value_and_the_bound_give_one_decision(pair, alpha, d):
    """p_pass <= d exactly where the upper bound is within the bar, and it is scipy's binomial tail."""
    k, n = pair
    p = iv.p_pass(k, n, alpha)
    assert p == pytest.approx(binom.cdf(k, n, alpha), rel=1e-6, abs=1e-200)
    bound = iv.cp_upper(k, n, d)
    if abs(bound - alpha) > 1e-9:
        assert (p <= d) == (bound <= alpha)


@given(counts(), st.floats(0.01, 0.3))
@settings(deadline=None)
def test_bounds_move_the_right_way(pair, d):
    """More wrong rows raise a bound, more right rows lower it, less risk widens it."""
    k, n = pair
    assert iv.cp_lower(k, n, d) <= k / n <= iv.cp_upper(k, n, d)
    assert iv.cp_upper(k, n, d) <= iv.cp_upper(min(k + 1, n), n, d)
    assert iv.cp_upper(k, n + 1, d) <= iv.cp_upper(k, n, d)
    assert iv.cp_upper(k, n, d / 2) >= iv.cp_upper(k, n, d)
    assert iv.cp_lower(k, n, d) == pytest.approx(1 - iv.cp_upper(n - k, n, d), abs=1e-12)


@pytest.mark.parametrize("alpha", [0.01, 0.02, 0.05, 0.2])
@pytest.mark.parametrize("n", [1, 20, 59, 150, 600])
def test_a_system_at_its_bar_passes_or_fails_falsely_at_most_as_often_as_stated(n, alpha):
    """Enumeration: just over the bar a pass, just within it a fail, each at most d."""
    d = 0.05
    verdicts = np.array([iv.verdict_of(k, n, alpha, d) for k in range(n + 1)])
    chance = binom.pmf(np.arange(n + 1), n, alpha)
    assert chance[verdicts == "pass"].sum() <= d
    assert chance[verdicts == "fail"].sum() <= d
    order = [v for i, v in enumerate(verdicts) if i == 0 or v != verdicts[i - 1]]
    assert order in (["pass", "undecided", "fail"], ["undecided", "fail"], ["undecided"])


def test_a_good_slice_of_400_rows_passes_about_four_times_in_five():
    """Half a 5% bar at n=400: 79% pass; the others are undecided, hardly any fails."""
    chance = binom.pmf(np.arange(401), 400, 0.025)
    verdicts = np.array([iv.judge(400 - k, 400, 0.95, 0.05).verdict for k in range(401)])
    assert chance[verdicts == "pass"].sum() == pytest.approx(0.79, abs=0.005)
    assert chance[verdicts == "pass"].sum() == pytest.approx(iv.gate_power(400, 0.025, 0.05, 0.05), abs=1e-9)
    assert chance[verdicts == "fail"].sum() < 0.001


def test_no_rows_and_too_few_rows_are_never_a_pass():
    """n = 0 is undecided whatever the bar, and so is a perfect score on fewer rows than the bar's minimum."""
    for at_least in (0.0, 0.5, 0.95, 1.0):
        nothing = iv.judge(0, 0, at_least, 0.05)
        assert (nothing.verdict, nothing.value, nothing.low, nothing.high) == ("undecided", None, 0.0, 1.0)
    assert iv.judge(58, 58, 0.95, 0.05).verdict == "undecided"
    assert iv.judge(59, 59, 0.95, 0.05).verdict == "pass"
    held = iv.judge(59, 59, 0.95, 0.05, min_n=200)
    assert (held.verdict, held.rows_needed) == ("undecided", 141)
    assert iv.judge(0, 59, 0.95, 0.05, min_n=200).verdict == "undecided"


def test_a_bar_of_everything_right_never_passes_and_fails_at_the_first_error():
    """No finite sample shows an error of zero; one error shows that it isn't zero."""
    clean = iv.judge(10_000, 10_000, 1.0, 0.05)
    assert (clean.verdict, clean.rows_needed) == ("undecided", None)
    assert iv.judge(9_999, 10_000, 1.0, 0.05).verdict == "fail"


def test_a_judged_figure_says_by_what_it_was_judged():
    """Bar, delta, level, method and n are on the figure."""
    shown = iv.judge(388, 400, 0.95, 0.02, metric="fidelity")
    assert (shown.metric, shown.bar, shown.delta, shown.level) == ("fidelity", 0.95, 0.02, 0.95)
    assert (shown.method, shown.n, shown.good, shown.value) == ("clopper-pearson", 400, 388, 0.97)
    plain = iv.figure(388, 400, metric="kept")
    assert (plain.bar, plain.verdict, plain.delta, plain.rows_needed) == (None, None, None, None)


@given(st.integers(0, 400), st.sampled_from([0.9, 0.95, 0.98]))
@settings(max_examples=60, deadline=None)
def test_the_rows_that_an_undecided_figure_asks_for_decide_at_the_same_rate(k, at_least):
    """With that many more rows at the seen rate the verdict is no longer undecided."""
    n = 400
    shown = iv.judge(n - k, n, at_least, 0.05)
    if shown.verdict != "undecided":
        assert shown.rows_needed is None
        return
    if shown.rows_needed is None:
        assert abs(k / n - (1 - at_least)) < 0.001
        return
    total = n + shown.rows_needed
    rate = iv.expected_rate(k, n, 1 - at_least)
    worse = math.ceil(rate * total) if rate > 1 - at_least else math.floor(rate * total)
    assert iv.judge(total - worse, total, at_least, 0.05).verdict == (
        "fail" if rate > 1 - at_least else "pass"
    )


@pytest.mark.parametrize("alpha", [0.01, 0.02, 0.05, 0.1, 0.5])
@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.7, 0.85])
@pytest.mark.parametrize("d", [0.05, 0.05 / 8])
def test_rows_needed_is_the_first_number_whose_power_holds(alpha, share, d):
    """Equal to the plain search that visits every n, with scipy's binomial."""
    rate, power = alpha * share, 0.8
    found = iv.rows_needed(alpha, rate, d, power)
    most = found + 12
    n = np.arange(1, most)
    k = binom.ppf(d, n, alpha)
    k = np.where(binom.cdf(k, n, alpha) <= d, k, k - 1)
    holds = binom.cdf(k, n, rate) >= power - 1e-12
    window = np.lib.stride_tricks.sliding_window_view(holds, 12).all(axis=1)
    assert found == n[: window.size][window][0]


@pytest.mark.parametrize(
    ("alpha", "rate", "d", "published"),
    [
        (0.05, 0.025, 0.05, 386),
        (0.02, 0.005, 0.05, 388),
        (0.1, 0.05, 0.05, 203),
        (0.05, 0.0125, 0.05 / 8, 272),
    ],
)
def test_rows_needed_gives_the_published_table(alpha, rate, d, published):
    """The table that users plan with."""
    assert iv.rows_needed(alpha, rate, d) == pytest.approx(published, abs=2)


def test_a_hopeless_rate_needs_no_number_of_rows():
    """At or over the bar, and within a hair of it, the answer is None, and quickly."""
    assert iv.rows_needed(0.05, 0.05, 0.05) is None
    assert iv.rows_needed(0.05, 0.0499, 0.05) is None


@given(st.floats(0.002, 1.0), st.floats(0.0001, 0.5))
@settings(deadline=None)
def test_min_rows_is_the_least_that_passes_without_an_error(alpha, d):
    """One row fewer can't pass."""
    n = iv.min_rows(alpha, d)
    assert iv.p_pass(0, n, alpha) <= d
    assert n == 1 or iv.p_pass(0, n - 1, alpha) > d


@given(st.integers(0, 500), st.floats(0.01, 0.6), st.floats(0.001, 0.3))
@settings(deadline=None)
def test_k_star_is_the_most_wrong_rows_that_still_pass(n, alpha, d):
    """One more wrong row does not pass."""
    k = iv.k_star(n, alpha, d)
    assert k == -1 or iv.p_pass(k, n, alpha) <= d
    assert iv.p_pass(k + 1, n, alpha) > d


def ever_missed(interval_of, rate, rows):
    """Exact chance that the rate leaves the interval at some look, by dynamic programming over (n, k)."""
    alive, missed = {0: 1.0}, 0.0
    for n in range(1, rows + 1):
        after = {}
        for k, chance in alive.items():
            after[k] = after.get(k, 0.0) + chance * (1 - rate)
            after[k + 1] = after.get(k + 1, 0.0) + chance * rate
        alive = {}
        for k, chance in after.items():
            both = interval_of(k, n)
            if both.low <= rate <= both.high:
                alive[k] = chance
            else:
                missed += chance
    return missed


@pytest.mark.parametrize("rate", [0.02, 0.3])
def test_a_confidence_sequence_may_be_looked_at_after_every_row(rate):
    """Its chance of ever missing is within d; the exact interval, looked at every row, misses far more often."""
    rows = 120
    assert ever_missed(lambda k, n: iv.confidence_sequence(k, n, 0.05), rate, rows) <= 0.05
    assert ever_missed(lambda k, n: iv.cp_interval(k, n, level=0.95), rate, rows) > 0.055


def test_a_confidence_sequence_contains_the_exact_interval():
    """Looking always costs width; the published example holds."""
    for k, n in ((0, 30), (3, 100), (50, 1000), (30, 30)):
        wide, narrow = iv.confidence_sequence(k, n, 0.05), iv.cp_interval(k, n, level=0.95)
        assert wide.low <= narrow.low
        assert narrow.high <= wide.high


def test_bounds_are_those_of_the_beta_quantile():
    """Oracle: scipy's beta distribution."""
    assert iv.cp_upper(7, 400, 0.01) == pytest.approx(beta.ppf(0.99, 8, 393), abs=1e-12)


@pytest.mark.parametrize(
    "call",
    [
        lambda: iv.cp_upper(3, 2, 0.05),
        lambda: iv.cp_upper(-1, 2, 0.05),
        lambda: iv.cp_lower(1, 2, 0.0),
        lambda: iv.judge(9, 10, 95.0, 0.05),
        lambda: iv.judge(9, 10, 0.95, 5),
        lambda: iv.cp_interval(1, 2, level=95),
        lambda: iv.p_pass(1, 2, float("nan")),
        lambda: iv.min_rows(0.0, 0.05),
        lambda: iv.rows_needed(0.05, -0.1, 0.05),
    ],
)
def test_impossible_numbers_are_refused_with_a_next_action(call):
    """Percentages, negative counts and NaN never become a bound."""
    with pytest.raises(MeasureError) as caught:
        call()
    assert caught.value.next_action
