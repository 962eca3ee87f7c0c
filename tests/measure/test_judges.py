"""Judges are weighed by what gold shows of them, and a fallible judge proves no more than it can."""

import itertools

import numpy as np
import pytest
from scipy.special import logsumexp

from overproof.errors import MeasureError
from overproof.measure import judges as jd
from overproof.measure.intervals import cp_lower, cp_upper


def world(rng, n, k=4, right=(0.9, 0.6, 0.6)):
    truth = rng.integers(0, k, n)
    said = [np.where(rng.random(n) < p, truth, (truth + rng.integers(1, k, n)) % k) for p in right]
    return truth, np.stack(said, axis=1)


def test_em_finds_the_matrices_of_judges_that_err_independently():
    """Without gold, each judge's accuracy comes out within four points."""
    truth, said = world(np.random.default_rng(0), 4000)
    panel = jd.dawid_skene(said, 4)
    assert panel.matrix.sum(axis=2) == pytest.approx(np.ones((3, 4)))
    assert panel.prior.sum() == pytest.approx(1.0)
    for judge, right in enumerate((0.9, 0.6, 0.6)):
        assert np.trace(panel.matrix[judge]) / 4 == pytest.approx(right, abs=0.04)
    assert 1 <= panel.rounds <= 50
    assert np.mean(jd.panel_posterior(panel, said).argmax(axis=1) == truth) > 0.9


def test_em_is_the_textbook_iteration():
    """Equal to a plain loop over rows, judges and classes after the same number of rounds."""
    _, said = world(np.random.default_rng(1), 40, k=3)
    panel = jd.dawid_skene(said, 3)
    belief = np.array([[np.mean(row == c) for c in range(3)] for row in said])
    for _ in range(panel.rounds):
        matrix = np.full((3, 3, 3), 0.01)
        for i, j, t in itertools.product(range(40), range(3), range(3)):
            matrix[j, t, said[i, j]] += belief[i, t]
        matrix /= matrix.sum(axis=2, keepdims=True)
        prior = belief.sum(axis=0) + 0.01
        log = np.log(prior / prior.sum()) + sum(np.log(matrix[j][:, said[:, j]]).T for j in range(3))
        belief = np.exp(log - logsumexp(log, axis=1, keepdims=True))
    assert panel.matrix == pytest.approx(matrix, abs=1e-9)


def test_gold_matrices_are_counts_with_one_pseudo_row():
    """And silent judges count nowhere."""
    panel = jd.gold_panel([[0, -1], [1, 1], [1, 0], [0, 0]], [0, 0, 1, -1], 2)
    assert panel.matrix[0] == pytest.approx(np.array([[1.5, 1.5], [0.5, 1.5]]) / [[3.0], [2.0]])
    assert panel.matrix[1] == pytest.approx(np.array([[0.5, 1.5], [1.5, 0.5]]) / 2.0)
    assert panel.prior == pytest.approx([2.5 / 4, 1.5 / 4])


def test_each_gold_row_is_judged_without_itself():
    """The quick leave-one-out equals fitting on the other rows, silence included; it differs from the row's own fit."""
    rng = np.random.default_rng(2)
    truth, said = world(rng, 60, k=3, right=(0.7, 0.5))
    said[rng.random(said.shape) < 0.15] = -1
    slow = []
    for i in range(60):
        gold = truth.copy()
        gold[i] = -1
        panel = jd.gold_panel(said, gold, 3)
        even = jd.Panel(prior=jd.gold_panel(said, truth, 3).prior, matrix=panel.matrix, rounds=0)
        chance = jd.panel_posterior(even, said)[i]
        size, k = np.sum(truth == truth[i]), 3
        chance[truth[i]] *= (size - 1 + 1 / k) / (size + 1 / k)
        slow.append(chance.argmax())
    quick = jd._left_out(said, truth, 3)
    assert quick.tolist() == slow
    own = jd.panel_posterior(jd.gold_panel(said, truth, 3), said).argmax(axis=1)
    assert np.mean(quick == truth) < np.mean(own == truth)


def test_the_rule_follows_the_gold_that_there_is():
    """EM without gold, the best judge with little, matrices with 20 rows of the rarest class if they do no worse."""
    truth, said = world(np.random.default_rng(3), 600, right=(0.75, 0.65, 0.65, 0.65))
    none, few = np.full(600, -1), np.where(np.arange(600) < 40, truth, -1)
    assert jd.combine_judges(said, none, 4).method == "em"
    little = jd.combine_judges(said, few, 4)
    assert (little.method, little.judge) == ("best judge", 0)
    assert little.answer.tolist() == said[:, 0].tolist()
    much = jd.combine_judges(said, truth, 4)
    assert much.method == "gold matrices"
    assert much.judge is None
    assert much.probability.shape == (600, 4)


def test_nineteen_gold_rows_of_a_class_are_too_few_and_twenty_do():
    """A judge that always says the other class is perfect by its matrix, but only from 20 rows a class on."""
    truth = np.arange(40) % 2
    said = np.column_stack([np.where(np.arange(40) % 5 == 0, 1 - truth, truth), 1 - truth])
    assert jd.combine_judges(said[:39], truth[:39], 2).method == "best judge"
    found = jd.combine_judges(said, truth, 2)
    assert found.method == "gold matrices"
    assert found.answer.tolist() == truth.tolist()


def test_matrices_that_do_worse_on_left_out_gold_are_not_used():
    """A perfect judge among noise: weighing the noise could only lose."""
    rng = np.random.default_rng(4)
    truth = rng.integers(0, 3, 90)
    said = np.column_stack([truth, *rng.integers(0, 3, (25, 90))])
    assert jd._left_out(said, truth, 3).tolist() != truth.tolist()
    found = jd.combine_judges(said, truth, 3)
    assert (found.method, found.judge) == ("best judge", 0)


def test_rows_that_nobody_judged_have_no_answer():
    """Not the most frequent class by default."""
    truth, said = world(np.random.default_rng(5), 400, k=2)
    said[7] = -1
    for gold in (truth, np.full(400, -1)):
        assert jd.combine_judges(said, gold, 2).answer[7] == -1
    with pytest.raises(MeasureError, match="no answer"):
        jd.dawid_skene(said, 2)


def test_the_bound_of_a_judged_rate_is_the_formula_and_covers_what_judges_hide():
    """The judge's own rate is far below the truth; the corrected bound isn't, at any corner of the three rates."""
    bound = jd.judged_failure_bound(60, 2000, bad_caught=90, bad=150, good_blamed=6, good=600, d=0.05)
    q, tpr, fpr = cp_upper(60, 2000, 0.05 / 3), cp_lower(90, 150, 0.05 / 3), cp_lower(6, 600, 0.05 / 3)
    assert bound.upper == pytest.approx((q - fpr) / (tpr - fpr))
    assert bound.upper > bound.judged_upper
    for real_tpr, real_fpr, real_q in itertools.product((tpr, 0.7, 1.0), (fpr, 0.012), (q, 0.02)):
        assert (real_q - real_fpr) / (real_tpr - real_fpr) <= bound.upper + 1e-12


@pytest.mark.parametrize(
    "gold",
    [
        {"bad_caught": 1, "bad": 20, "good_blamed": 0, "good": 100},
        {"bad_caught": 0, "bad": 0, "good_blamed": 0, "good": 0},
        {"bad_caught": 90, "bad": 100, "good_blamed": 90, "good": 100},
    ],
)
def test_a_judge_that_can_prove_nothing_is_refused(gold):
    """It catches too little, was never checked, or contradicts its own gold: never a bound of 0 or 1 that looks real."""
    with pytest.raises(MeasureError):
        jd.judged_failure_bound(100, 1000, d=0.05, **gold)


@pytest.mark.parametrize(
    ("answers", "gold", "classes"),
    [([[0, 2]], [0], 2), ([[0, 1]], [2], 2), ([0, 1], [0], 2), ([[0, 1]], [0, 1], 2), ([[0.5, 1]], [0], 2), ([[0]], [0], 1)],
)
def test_answers_outside_the_classes_are_refused(answers, gold, classes):
    """Nothing is counted under the wrong name."""
    with pytest.raises(MeasureError):
        jd.combine_judges(answers, gold, classes)


@pytest.mark.parametrize(("share", "caught", "blamed"), [(0.05, 0.8, 0.05), (0.2, 0.9, 0.1), (0.5, 0.7, 0.2)])
def test_both_ends_of_the_judged_failure_rate_hold_and_contain_the_one_sided_bound(share, caught, blamed) -> None:
    """Fresh draws of all three counts: the interval misses the true rate in at most 5 %, and its upper end is the wider one."""
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(200):
        counts = {"bad_caught": rng.binomial(200, caught), "bad": 200, "good_blamed": rng.binomial(500, blamed), "good": 500}
        failed = rng.binomial(1500, share * caught + (1 - share) * blamed)
        found = jd.judged_failure_interval(failed, 1500, **counts)
        assert 0.0 <= found.low <= found.high <= 1.0
        assert found.high == pytest.approx(jd.judged_failure_bound(failed, 1500, **counts, d=0.025).upper, rel=1e-9)
        held += found.low <= share <= found.high
    assert held >= 190
    assert found.low > 0 or share < 0.1
