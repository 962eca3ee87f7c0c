"""A fitted temperature finds what was planted, and calibration figures agree with plain counting."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.metrics import log_loss as sklearn_log_loss

from overproof.errors import MeasureError
from overproof.measure import calibration as cal


def planted(temperature, n=4000, k=7, seed=0):
    """Logits whose labels are drawn at another temperature than 1."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (n, k))
    chance = softmax(logits / temperature, axis=1)
    return logits, (chance.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_fit_finds_a_planted_temperature(temperature):
    """Within eight percent on 4,000 rows, and it makes an overconfident student honest."""
    logits, target = planted(temperature)
    found = cal.fit_temperature(logits, target)
    assert found == pytest.approx(temperature, rel=0.08)
    raw, mended = cal.probabilities(logits, 1.0), cal.probabilities(logits, found)
    assert cal.log_loss(mended, target) <= cal.log_loss(raw, target) + 1e-9
    right = mended.argmax(axis=1) == target
    assert cal.expected_calibration_error(mended.max(axis=1), right) < 0.03
    if temperature != 1.0:
        assert cal.expected_calibration_error(raw.max(axis=1), right) > 0.05


def test_the_fit_is_the_least_surprise_of_all_temperatures():
    """No temperature on a fine grid is better, also with weights."""
    logits, target = planted(1.7, n=300)
    weight = np.random.default_rng(1).uniform(0, 3, 300)
    for w in (None, weight):
        best = cal.log_loss(cal.probabilities(logits, cal.fit_temperature(logits, target, w)), target, w)
        for t in np.exp(np.linspace(-4, 4, 400)):
            assert best <= cal.log_loss(cal.probabilities(logits, float(t)), target, w) + 1e-6


def test_a_weight_counts_like_a_repeated_row():
    """Weight 3 is the row three times; scale doesn't matter."""
    logits, target = planted(1.5, n=60)
    weight = np.arange(60) % 4
    again = np.repeat(np.arange(60), weight)
    assert cal.fit_temperature(logits, target, weight * 7.0) == pytest.approx(
        cal.fit_temperature(logits[again], target[again]), rel=1e-4
    )
    chance = cal.probabilities(logits, 1.0)
    for measure in (cal.log_loss, cal.brier):
        assert measure(chance, target, weight) == pytest.approx(measure(chance[again], target[again]))


def test_rows_that_are_all_right_or_hopeless_stay_inside_the_search():
    """The search is bounded: no temperature of zero or infinity."""
    logits = np.array([[5.0, 0.0]] * 20)
    assert math.exp(-4) <= cal.fit_temperature(logits, np.zeros(20, int)) < 0.2
    assert cal.fit_temperature(logits, np.ones(20, int)) == pytest.approx(math.exp(4), rel=1e-2)


def test_a_class_of_probability_zero_is_a_class_not_an_accident():
    """-inf logits give probability 0 and a large, finite loss, and the fit still ends."""
    logits = np.array([[0.0, -np.inf], [0.0, -np.inf], [0.0, 1.0]])
    chance = cal.probabilities(logits, 2.0)
    assert chance[0].tolist() == [1.0, 0.0]
    assert 100 < cal.log_loss(chance, [1, 0, 0]) < 1000
    assert math.exp(-4) <= cal.fit_temperature(logits, [1, 0, 0]) <= math.exp(4)


def test_one_impossible_label_does_not_decide_the_temperature():
    """A row whose label has probability 0 at every temperature leaves the fit where the other rows put it."""
    logits, target = planted(2.0, n=500, k=3)
    more = np.vstack([logits, [[0.0, 0.0, -np.inf]]])
    assert cal.fit_temperature(more, [*target, 2]) == pytest.approx(
        cal.fit_temperature(logits, target), rel=1e-3
    )


@given(st.floats(0.02, 50), st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_a_temperature_changes_confidence_and_never_the_answer(temperature, seed):
    """Rows sum to 1, the best class stays, and a shift of all logits of a row changes nothing."""
    logits = np.random.default_rng(seed).normal(0, 2, (20, 5)).astype(np.float32)
    chance = cal.probabilities(logits, temperature)
    assert np.allclose(chance.sum(axis=1), 1)
    assert (chance[np.arange(20), logits.argmax(axis=1)] == chance.max(axis=1)).all()
    assert np.allclose(chance, cal.probabilities(logits.astype(np.float64) + 500.0, temperature), atol=1e-9)


@given(st.integers(0, 10_000), st.integers(2, 6))
@settings(max_examples=40, deadline=None)
def test_losses_are_those_of_their_definitions(seed, k):
    """Oracles: scikit-learn for log-loss, a loop for Brier."""
    rng = np.random.default_rng(seed)
    chance = cal.probabilities(rng.normal(0, 2, (30, k)), 1.0)
    target = rng.integers(0, k, 30)
    assert cal.log_loss(chance, target) == pytest.approx(sklearn_log_loss(target, chance, labels=range(k)))
    loop = [
        sum((p - (j == t)) ** 2 for j, p in enumerate(row)) / 2 for row, t in zip(chance, target, strict=True)
    ]
    assert cal.brier(chance, target) == pytest.approx(np.mean(loop))
    assert 0 <= cal.brier(chance, target) <= 1
    assert cal.brier(np.eye(k)[target], target) == 0


ROWS = st.lists(
    st.tuples(st.floats(0, 1) | st.sampled_from([0.5, 1.0]), st.booleans()), min_size=5, max_size=80
)


@given(ROWS, st.integers(1, 5), st.randoms())
@settings(max_examples=150, deadline=None)
def test_a_reliability_curve_counts_every_row_once_in_any_order(rows, bins, random):
    """Counts sum to n, confidence rises, the weighted means are the overall means, and order doesn't matter."""
    confidence, right = zip(*rows, strict=True)
    curve = cal.reliability_curve(confidence, right, bins=bins)
    assert sum(p.n for p in curve) == len(rows)
    assert len(curve) <= bins
    assert all(a.confidence < b.confidence for a, b in itertools.pairwise(curve))
    assert sum(p.n * p.accuracy for p in curve) == pytest.approx(sum(right))
    assert sum(p.n * p.confidence for p in curve) == pytest.approx(sum(confidence))
    mixed = random.sample(rows, len(rows))
    again = cal.reliability_curve(*zip(*mixed, strict=True), bins=bins)
    assert [p.n for p in again] == [p.n for p in curve]
    error = cal.expected_calibration_error(confidence, right, bins=bins)
    assert error == pytest.approx(sum(p.n * abs(p.accuracy - p.confidence) for p in curve) / len(rows))
    assert abs(sum(right) - sum(confidence)) / len(rows) - 1e-9 <= error <= 1


def test_bins_hold_about_equally_many_rows():
    """1,500 different confidences in 15 bins are 100 each, however they are spread."""
    confidence = np.random.default_rng(0).beta(9, 0.7, 1500)
    assert {p.n for p in cal.reliability_curve(confidence, confidence > 0.5)} == {100}


@pytest.mark.parametrize(
    "call",
    [
        lambda: cal.probabilities([[1.0, np.nan]], 1.0),
        lambda: cal.probabilities([[1.0, np.inf]], 1.0),
        lambda: cal.probabilities([[-np.inf, -np.inf]], 1.0),
        lambda: cal.probabilities([1.0, 2.0], 1.0),
        lambda: cal.probabilities([[1.0, 2.0]], 0.0),
        lambda: cal.fit_temperature(np.zeros((0, 2)), []),
        lambda: cal.fit_temperature([[1.0, 2.0]], [2]),
        lambda: cal.fit_temperature([[1.0, 2.0]], [-1]),
        lambda: cal.fit_temperature([[1.0, 2.0]], [0.5]),
        lambda: cal.fit_temperature([[1.0, 2.0]], [0, 1]),
        lambda: cal.fit_temperature([[1.0, 2.0]], [0], [0.0]),
        lambda: cal.fit_temperature([[1.0, 2.0]], [0], [-1.0]),
        lambda: cal.log_loss([[1.5, -0.5]], [0]),
        lambda: cal.brier([[np.nan, 0.5]], [0]),
        lambda: cal.expected_calibration_error([0.5] * 14, [1] * 14),
        lambda: cal.expected_calibration_error([], []),
        lambda: cal.reliability_curve([0.5, 1.5], [1, 1], bins=1),
        lambda: cal.reliability_curve([0.5, 0.5], [1], bins=1),
    ],
)
def test_numbers_that_mean_nothing_are_refused(call):
    """NaN, no rows, columns that don't exist: an error with a next action, never a figure."""
    with pytest.raises(MeasureError) as caught:
        call()
    assert caught.value.next_action


def test_a_slice_is_read_at_its_own_temperature_only_with_three_hundred_rows():
    """At 299 it is read at the common one; at 300 its own is found."""
    hot, hot_target = planted(3.0, n=300, seed=3)
    cold, cold_target = planted(1.0, n=2000, seed=4)
    logits, target = np.concatenate([hot, cold]), np.concatenate([hot_target, cold_target])
    names = ["hot"] * 300 + ["cold"] * 2000
    cold_found, hot_found = cal.slice_temperatures(logits, target, names)
    assert (hot_found.name, hot_found.own, hot_found.n) == ("hot", True, 300)
    assert hot_found.temperature == pytest.approx(3.0, rel=0.25)
    assert cold_found.temperature == pytest.approx(1.0, rel=0.1)
    short = cal.slice_temperatures(logits[1:], target[1:], names[1:])[1]
    assert not short.own
    assert short.temperature == cal.fit_temperature(logits[1:], target[1:])
    with pytest.raises(MeasureError):
        cal.slice_temperatures(logits, target, names[1:])


def test_a_band_says_what_chance_alone_would_show():
    """A calibrated student of 300 rows lies near the noise, not near 0; an overconfident one far above it."""
    rng = np.random.default_rng(5)
    stated = rng.uniform(0.5, 1.0, 300)
    fair = cal.calibration_band(stated, rng.random(300) < stated, draws=200)
    assert 0.02 < fair.noise < 0.12
    assert abs(fair.value - fair.noise) < 0.03
    sure = cal.calibration_band(stated, rng.random(300) < stated - 0.25, draws=200)
    assert sure.low > 2 * sure.noise
    assert sure.low <= sure.value <= sure.high
    again = cal.calibration_band(stated, rng.random(300) < 2, draws=50, seed=9)
    assert again == cal.calibration_band(stated, np.ones(300, bool), draws=50, seed=9)
    with pytest.raises(MeasureError):
        cal.calibration_band(stated, stated > 0, draws=0)
