"""Out-of-scope scores equal their formulas, and the choice on dev follows the AUROC."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from overproof.errors import MeasureError
from overproof.measure import scope as sc

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 3, (50, 6))


def test_every_score_is_higher_where_the_student_is_less_sure():
    """A flat row scores above a peaked one with each of the five."""
    flat_and_peaked = np.array([[0.1, 0.0, 0.0], [9.0, 0.0, 0.0]])
    scores = sc.scope_scores(flat_and_peaked)
    assert len(scores) == 5
    for name, score in scores.items():
        assert score[0] > score[1], name


def test_shifting_a_row_changes_only_the_scores_that_read_its_level():
    """Max logit and energy move by the constant; the others are of the probabilities."""
    before, after = sc.scope_scores(LOGITS), sc.scope_scores(LOGITS + 2.0)
    for name in ("entropy", "max_probability", "margin"):
        assert after[name] == pytest.approx(before[name], abs=1e-12)
    for name in ("max_logit", "energy"):
        assert after[name] == pytest.approx(before[name] - 2.0)


def test_the_listed_scores_are_their_formulas():
    """Two equal logits of 3: by hand."""
    found = {name: float(score[0]) for name, score in sc.scope_scores([[3.0, 3.0]]).items()}
    assert found == pytest.approx(
        {
            "max_logit": -3.0,
            "energy": -3.0 - np.log(2),
            "entropy": np.log(2),
            "max_probability": 0.5,
            "margin": 1.0,
        }
    )


def test_normalised_logits_offer_no_level_to_read():
    """Log-probabilities have energy 0: neither energy nor max logit is listed."""
    logs = LOGITS - np.log(np.exp(LOGITS).sum(axis=1, keepdims=True))
    assert set(sc.scope_scores(logs)) == {"entropy", "max_probability", "margin"}


@pytest.mark.parametrize("k", [1, 3, 10])
def test_the_nearest_distance_is_that_of_scikit_learn_on_unit_vectors(k, monkeypatch):
    """Length doesn't matter, direction does; more rows than one block."""
    monkeypatch.setattr(sc, "BLOCK", 4000)
    train, rows = RNG.normal(0, 1, (40, 5)), RNG.normal(0, 1, (600, 5))
    oracle = NearestNeighbors(n_neighbors=k).fit(sc.unit_rows(train))
    assert sc.nearest_distance(train * 7.0, rows, k=k) == pytest.approx(oracle.kneighbors(sc.unit_rows(rows))[0][:, -1])
    among = NearestNeighbors(n_neighbors=k).fit(sc.unit_rows(rows))
    assert sc.nearest_distance(rows, rows, k=k, itself=True) == pytest.approx(among.kneighbors()[0][:, -1])


def test_a_training_row_lies_at_distance_zero_of_training():
    """And in a set of one row no row has a neighbour."""
    train = RNG.normal(0, 1, (30, 384))
    assert sc.nearest_distance(train, train).max() == 0.0
    with pytest.raises(MeasureError):
        sc.nearest_distance(train[:1], train[:1], itself=True)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_auroc_is_that_of_scikit_learn_with_ties(rows):
    """Ties count half."""
    score, foreign = [float(s) for s, _ in rows], [f for _, f in rows]
    if len(set(foreign)) < 2:
        with pytest.raises(MeasureError):
            sc.auroc(score, foreign)
    else:
        assert sc.auroc(score, foreign) == pytest.approx(roc_auc_score(foreign, score))


def test_fpr_lets_the_wanted_share_of_the_own_rows_pass_and_no_more_than_it_must():
    """By hand: 95 of 100 own rows score at most .94."""
    own, foreign = np.arange(100) / 100, np.array([0.5, 0.94, 0.945, 2.0])
    score, kind = np.concatenate([own, foreign]), np.repeat([False, True], [100, 4])
    assert sc.fpr_at_tpr(score, kind) == 0.5
    assert sc.fpr_at_tpr(score, kind, tpr=1.0) == 0.75


def test_the_choice_is_the_largest_auroc_on_dev_and_ties_go_to_the_first_free_score():
    """The table shows all of them, the best first."""
    foreign = np.repeat([False, True], 30)
    good, poor = foreign + RNG.normal(0, 0.3, 60), RNG.normal(0, 1, 60)
    choice = sc.choose_score({"max_logit": poor, "nearest_1": good}, foreign)
    assert choice.name == "nearest_1"
    assert [s.name for s in choice.table] == ["nearest_1", "max_logit"]
    assert (choice.inside, choice.outside) == (30, 30)
    assert sc.choose_score({"margin": good, "energy": good}, foreign).name == "energy"


def test_with_hardly_any_foreign_row_nothing_is_compared():
    """Nineteen are too few: the default is taken and says why."""
    foreign = np.arange(100) < 19
    choice = sc.choose_score({"energy": RNG.normal(0, 1, 100), "margin": foreign.astype(float)}, foreign)
    assert choice.name == "energy"
    assert choice.table == ()
    assert "19 foreign" in choice.reason


@pytest.mark.parametrize("logits", [[[np.nan, 0.0]], [[np.inf, 0.0]], [0.0, 1.0], np.zeros((0, 3))])
def test_logits_that_are_none_are_refused(logits):
    """A diverged student isn't scored."""
    with pytest.raises(MeasureError):
        sc.scope_scores(logits)
