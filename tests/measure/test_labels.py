"""Samples are counted with their ties shown, and planted label errors rise to the top of the rank."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overproof.errors import MeasureError
from overproof.measure import labels as lb


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=12))
def test_the_majority_is_the_most_frequent_answer_and_the_earliest_among_equals(values):
    """Share, sample count and every tied answer are on the result."""
    got = lb.agreement(values)
    most = max(values.count(v) for v in values)
    assert got.value == next(v for v in values if values.count(v) == most)
    assert got.share == most / len(values)
    assert got.samples == len(values)
    assert set(got.tied) == {v for v in values if values.count(v) == most}
    assert got.tied[0] == got.value


def test_no_samples_are_no_label():
    """There is nothing to agree on."""
    with pytest.raises(MeasureError):
        lb.agreement([])


def test_planted_errors_come_first():
    """5% random label errors under a fair model: most of the first rows are planted ones, far above chance."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 6, 2000)
    logits = rng.normal(0, 1, (2000, 6))
    logits[np.arange(2000), truth] += 4
    chance = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    planted = rng.choice(2000, 100, replace=False)
    given_labels = truth.copy()
    given_labels[planted] = (truth[planted] + rng.integers(1, 6, 100)) % 6
    found = lb.suspicion_rank(chance, given_labels)
    assert np.isin(found[:100], planted).mean() > 0.6
    assert np.isin(rng.permutation(2000)[:100], planted).mean() < 0.2
    assert sorted(found) == list(range(2000))


def test_ties_go_to_the_larger_lead_and_then_to_the_earlier_row():
    """Same probability of the given label: the row with one strong rival is more suspicious."""
    chance = [[0.2, 0.4, 0.4], [0.2, 0.8, 0.0], [0.2, 0.8, 0.0]]
    assert lb.suspicion_rank(chance, [0, 0, 0]).tolist() == [1, 2, 0]
    assert lb.suspicion_rank(np.zeros((0, 3)), np.zeros(0, int)).tolist() == []


@pytest.mark.parametrize(
    ("chance", "given_labels"),
    [([[0.5, 0.5]], [2]), ([[0.5, 0.5]], [0, 1]), ([[0.5, np.nan]], [0]), ([0.5], [0])],
)
def test_a_rank_needs_a_probability_for_each_given_label(chance, given_labels):
    """Anything else raises."""
    with pytest.raises(MeasureError):
        lb.suspicion_rank(chance, given_labels)
