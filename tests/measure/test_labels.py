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


def test_a_request_gets_two_samples_and_more_only_where_they_differ():
    """Never more than five, and none once the first two agree."""
    assert lb.samples_wanted([]) == 2
    assert lb.samples_wanted(["a"]) == 1
    assert lb.samples_wanted(["a", "a"]) == 0
    assert lb.samples_wanted(["a", "b"]) == 3
    assert lb.samples_wanted(["a", "b", "a"]) == 2
    assert lb.samples_wanted(["a", "b", "a", "a", "a"]) == 0
    assert lb.samples_wanted(["a", "a", "b"]) == 0
    assert lb.samples_wanted(["a", "a"], first=3, most=3) == 1
    with pytest.raises(MeasureError):
        lb.samples_wanted([], first=1)
    with pytest.raises(MeasureError):
        lb.samples_wanted([], first=4, most=3)


@given(st.lists(st.lists(st.sampled_from("ab"), min_size=5, max_size=5), min_size=1, max_size=30))
def test_the_priced_calls_are_the_calls_that_the_plan_makes(rows):
    """Expected calls at the observed share of differing pairs, exactly."""
    calls = 0
    for row in rows:
        taken = 0
        while more := lb.samples_wanted(row[:taken]):
            taken += more
        calls += taken
    differ = sum(row[0] != row[1] for row in rows) / len(rows)
    assert lb.expected_calls(differ) == pytest.approx(calls / len(rows))
    with pytest.raises(MeasureError):
        lb.expected_calls(18.0)


def test_the_fix_queue_ranks_by_doubt_traffic_and_urgency_and_shows_each_near_duplicate_once():
    """Undecided slices count double; of a cluster the most useful row stands for all."""
    order = lb.fix_order([0.2, 0.2, 0.5, 0.9, 0.1], [0.1, 0.3, 0.3, 0.9, 0.1], [1, 0, 1, 0, 0], [0, 1, 2, 3, 0])
    # worth: .16, .24, .30, .09, .09 (same cluster as row 0)
    assert order.tolist() == [2, 1, 0, 3]
    assert lb.fix_order([], [], [], []).tolist() == []
    for bad in (([1.2], [0.1], [0], [0]), ([float("nan")], [0.1], [0], [0]), ([0.5], [0.1, 0.2], [0], [0])):
        with pytest.raises(MeasureError):
            lb.fix_order(*bad)


def test_the_audit_queue_closes_old_days_first_and_feeds_the_slice_that_lacks_most():
    """Within a day by the slice's deficit, within a slice by the draw; never by what the student thinks."""
    assert lb.audit_order([3, 1, 1, 2], [9, -4, 2, 0], [0, 1, 2, 3]).tolist() == [2, 1, 3, 0]
    assert lb.audit_order([1, 1, 1], [0, 0, 0], [2, 0, 1]).tolist() == [1, 2, 0]
    for bad in (([1], [1, 2], [1]), ([float("nan")], [1], [1])):
        with pytest.raises(MeasureError):
            lb.audit_order(*bad)


def test_a_label_of_the_fix_queue_never_reaches_a_certificate_or_monitor():
    """One among many drawn ones is enough to refuse, and so is a label of unknown origin."""
    drawn = [lb.DrawnLabel(row=f"r{i}", label="a", chance=0.01) for i in range(3)]
    assert lb.provable(drawn) == tuple(drawn)
    with pytest.raises(MeasureError, match="looking wrong"):
        lb.provable([*drawn, lb.SuspectLabel(row="x", label="b", worth=0.4)])
    with pytest.raises(MeasureError):
        lb.provable([*drawn, {"row": "x", "label": "b", "chance": 0.01}])
    with pytest.raises(MeasureError, match="two labels"):
        lb.provable([*drawn, drawn[0]])


@pytest.mark.parametrize("chance", [0.0, -0.1, 1.1, float("nan")])
def test_a_drawn_label_knows_the_chance_of_its_draw(chance):
    """Without it nothing can be weighed."""
    with pytest.raises(MeasureError):
        lb.DrawnLabel(row="r", label="a", chance=chance)


def test_labels_picked_for_looking_wrong_would_lie_about_the_error():
    """5% errors: the fix queue's first 100 rows say most are wrong; drawn rows say 5%. That is why the door is shut."""
    rng = np.random.default_rng(6)
    wrong = rng.random(4000) < 0.05
    chance = np.where(wrong, rng.beta(1, 6, 4000), rng.beta(6, 1, 4000))
    picked = lb.fix_order(chance, np.full(4000, 0.5), np.zeros(4000), range(4000))[:100]
    assert wrong[picked].mean() > 0.5
    assert wrong[rng.choice(4000, 1000, replace=False)].mean() < 0.08
