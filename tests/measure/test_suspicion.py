"""Out-of-fold means out of fold, and confident errors are rows on which a model firmly believes in another label."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overproof.errors import MeasureError
from overproof.measure.suspicion import OutOfFold, confident_errors, out_of_fold


def world(n=240, k=4, seed=0, spread=0.7):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, k, n)
    return np.eye(k, k + 2)[truth] * 4 + rng.normal(size=(n, k + 2)) * spread, truth


def test_planted_errors_are_found_and_right_labels_left_alone() -> None:
    """Of 24 wrong labels among 240 at least 18 are marked, with at most 3 false ones."""
    x, truth = world()
    given_labels = truth.copy()
    given_labels[:24] = (truth[:24] + 1) % 4
    found = out_of_fold(x, given_labels, classes=4, folds=5, group=range(240))
    marked = confident_errors(found, given_labels)
    assert found.judged.all()
    assert marked[:24].sum() >= 18
    assert marked[24:].sum() <= 3


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 59), st.integers(1, 3), st.integers(0, 5))
def test_no_row_is_judged_by_a_model_that_saw_its_label_or_its_twins(row, turn, seed) -> None:
    """Changing a row's label moves neither its own probabilities nor those of the rows of its group."""
    x, truth = world(n=120)
    group = [i // 2 for i in range(120)]  # pairs
    before = out_of_fold(x, truth, classes=4, folds=4, group=group, seed=seed)
    changed = truth.copy()
    changed[2 * row] = (truth[2 * row] + turn) % 4
    after = out_of_fold(x, changed, classes=4, folds=4, group=group, seed=seed)
    pair = [2 * row, 2 * row + 1]
    if after.judged[pair].all() and before.judged[pair].all():
        assert np.array_equal(before.chance[pair], after.chance[pair])
    assert not np.array_equal(before.chance, after.chance)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(1, 40))
def test_marks_obey_their_definition(seed, k, n) -> None:
    """A marked row was judged and has another label at or above that label's mean self-confidence, above its own."""
    rng = np.random.default_rng(seed)
    chance = rng.dirichlet(np.ones(k), n)
    label, judged = rng.integers(0, k, n), rng.random(n) < 0.8
    marked = confident_errors(OutOfFold(chance=chance, judged=judged), label)
    for i in range(n):
        firm = []
        for j in range(k):
            own = [chance[r, j] for r in range(n) if judged[r] and label[r] == j]
            if own and chance[i, j] >= np.mean(own) - 1e-12:
                firm.append((chance[i, j], j))
        expected = bool(judged[i] and firm and max(firm)[1] != label[i])
        assert marked[i] == expected


def test_a_label_that_the_models_hardly_saw_is_not_judged() -> None:
    """Silence about a label of two rows is no suspicion."""
    x, truth = world(n=100, k=3)
    truth[:2], x[:2] = 3, x[50]
    found = out_of_fold(x, truth, classes=4, folds=5, group=range(100))
    assert not found.judged[:2].any()
    assert not confident_errors(found, truth)[:2].any()
    assert found.judged[2:].all()


def test_one_label_or_one_group_judges_nothing_and_nonsense_is_refused() -> None:
    """Nothing to compare with gives no marks, never an error in the numbers."""
    x, _ = world(n=20)
    alone = out_of_fold(x, np.zeros(20, dtype=int), classes=2, folds=5, group=range(20))
    assert not alone.judged.any()
    assert not confident_errors(alone, np.zeros(20, dtype=int)).any()
    assert not out_of_fold(x, np.arange(20) % 2, classes=2, folds=5, group=[0] * 20).judged.any()
    for labels, folds in (([0, 1], 5), ([0] * 20, 1), ([9] * 20, 5), ([0.5] * 20, 5)):
        with pytest.raises(MeasureError):
            out_of_fold(x, labels, classes=2, folds=folds, group=range(20))
    with pytest.raises(MeasureError):
        confident_errors(alone, [0])
