"""Distances and shares hold their level; weights bring shares back; like texts are near."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overproof.errors import MeasureError
from overproof.measure.mixes import (
    Margin,
    distance_radius,
    effective_rows,
    like_groups,
    mix_distance,
    points,
    raked,
    share_ratio,
)
from overproof.measure.slices import total_variation


@pytest.mark.parametrize(("k", "n"), [(2, 60), (5, 400), (20, 2_000)])
def test_the_interval_of_a_distance_covers_the_true_one(k, n):
    """Over 400 seeded worlds the true distance lies in the 95 % interval in at least 95 % of them."""
    rng, held = np.random.default_rng(k), 0
    for _ in range(400):
        p, q = rng.dirichlet(np.ones(k)), rng.dirichlet(np.ones(k))
        live, chosen = rng.choice(k, 3 * n, p=p), rng.choice(k, n, p=q)
        found = mix_distance(live, chosen, np.ones(n), segments=k)
        held += found.low <= total_variation(p, q) <= found.high
    assert held >= 0.95 * 400


def test_a_share_passes_by_its_interval_and_small_numbers_never_do():
    """Equal shares pass with enough rows, stay undecided with few; a third of the share fails."""
    assert share_ratio(1_000, 10_000, 2_000, 20_000).verdict == "pass"
    assert share_ratio(10, 100, 20, 200).verdict == "undecided"
    assert share_ratio(100, 3_000, 2_000, 20_000).verdict == "fail"
    assert share_ratio(0, 100, 0, 100).value is None
    assert share_ratio(0, 100, 0, 100).verdict == "undecided"


def test_the_verdict_on_a_share_is_false_no_more_often_than_admitted():
    """With the true ratio just under 0.8, a pass comes in at most 5 % of 400 worlds."""
    rng = np.random.default_rng(1)
    passed = sum(
        share_ratio(rng.binomial(8_000, 0.1 * 0.79), 8_000, rng.binomial(40_000, 0.1), 40_000).verdict == "pass"
        for _ in range(400)
    )
    assert passed <= 20


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(20, 300))
def test_raked_weights_meet_the_last_margin(seed, k, m):
    """Whatever the draw: weights stay positive, keep their sum, and have the live shares among the segments seen."""
    rng = np.random.default_rng(seed)
    live, chosen = rng.integers(0, k, 500), rng.integers(0, k, m)
    other = Margin(live=rng.integers(0, 3, 500), chosen=rng.integers(0, 3, m))
    base = rng.integers(1, 5, m).astype(float)
    weights = raked(base, [other, Margin(live=live, chosen=chosen)])
    assert weights.min() > 0
    assert weights.sum() == pytest.approx(base.sum())
    seen = np.unique(chosen[np.isin(chosen, live)])
    wanted = np.bincount(live, minlength=k)[seen] / np.isin(live, seen).sum()
    assert np.bincount(chosen, weights=weights, minlength=k)[seen] / weights.sum() == pytest.approx(wanted)


def test_like_messages_share_a_group():
    """Two topics with words of their own come apart into two groups, the same ones again on a second run."""
    rng = np.random.default_rng(0)
    topics = [[f"{topic}{i}" for i in range(12)] for topic in ("card", "parcel")]
    texts = [" ".join(rng.choice(topics[i % 2], 8)) for i in range(200)]
    found = like_groups(points(texts), 2, seed=3)
    assert len(set(found[::2])) == len(set(found[1::2])) == 1
    assert found[0] != found[1]
    assert like_groups(points(texts), 2, seed=3).tolist() == found.tolist()


def test_what_has_no_answer_is_refused():
    """No rows, no weights, no groups: an error with the reason."""
    with pytest.raises(MeasureError, match="radius"):
        distance_radius(0, 10, 0.05)
    with pytest.raises(MeasureError, match="weights"):
        effective_rows([])
    with pytest.raises(MeasureError, match="groups"):
        like_groups(np.zeros((1, 2), dtype=np.float32), 0)
    with pytest.raises(MeasureError, match="both sides"):
        mix_distance(np.zeros(0, dtype=int), np.zeros(1, dtype=int), np.ones(1), segments=1)
    with pytest.raises(MeasureError, match="raking"):
        raked(np.zeros(1), [])
