"""What reviewed rows teach about the others: it finds a systematic mistake, believes nothing it has not seen, and never peeks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overproof.errors import MeasureError
from overproof.measure.mending import (
    LEAST_REVIEWED,
    Posterior,
    mended_posterior,
    review_order,
    share_believed,
)


def world(seed, n=600, k=4, *, fooled=True):
    """Four clouds of points; the teacher calls all of cloud 3 by the name of 2, and is right elsewhere."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, k, n)
    x = rng.normal(size=(n, 8)) + 4 * np.eye(k, 8)[truth]
    said = np.where(truth == 3, 2, truth) if fooled else truth.copy()
    return x, said, truth


def lead_of(chance):
    top = np.sort(chance, axis=1)
    return top[:, -1] - top[:, -2]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_systematic_mistake_is_mended_from_a_tenth_of_the_rows(seed) -> None:
    """Rows that nobody reviewed get the true label though the teacher never says it."""
    x, said, truth = world(seed)
    rows = np.arange(80)
    found = mended_posterior(x, said, rows, truth[rows], classes=4)
    guess = found.chance.argmax(axis=1)
    assert (guess == truth)[80:].mean() > 0.95
    assert (said == truth)[80:].mean() < 0.8
    assert np.allclose(found.chance.sum(axis=1), 1)
    share = share_believed(found.chance, said)
    assert share[3] < 0.1
    assert min(share[:3]) > 0.9


def test_an_answer_that_nobody_looked_at_stands_and_is_looked_at_next() -> None:
    """Without reviewed rows of a label the teacher is believed on it, though reviews know only the other labels."""
    x, said, truth = world(3, fooled=False)
    rows = np.flatnonzero(truth != 1)[:90]
    found = mended_posterior(x, said, rows, truth[rows], classes=4)
    assert (found.chance.argmax(axis=1)[said == 1] == 1).mean() > 0.95
    none = np.zeros(len(said), dtype=bool)
    order = review_order(found, rows, weight=np.ones(len(said)), pending=none, cluster=range(len(said)))
    assert (said[order[:50]] == 1).mean() > (said == 1).mean()  # it stands, and that is why somebody should look


def test_reviews_outweigh_the_made_up_one() -> None:
    """A label whose every answer is wrong is no longer believed after fifteen reviews of it."""
    x, said, truth = world(6)
    said = np.where(said == 1, 0, np.where(said == 0, 1, said))  # the teacher swaps two names
    rows = np.concatenate([np.flatnonzero(truth == g)[:count] for g, count in ((0, 15), (1, 15), (2, 30), (3, 30))])
    found = mended_posterior(x, said, rows, truth[rows], classes=4)
    rest = np.setdiff1d(np.flatnonzero(truth < 2), rows)
    assert (found.chance.argmax(axis=1) == truth)[rest].mean() > 0.9


@pytest.mark.parametrize("seed", [0, 1])
def test_chances_of_rows_that_nobody_reviewed_are_calibrated(seed) -> None:
    """With many columns and few reviews the model is too sure of itself; its chances are not, and the shares follow."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, 3_000)
    x = rng.normal(size=(3_000, 64)) + 2 * np.eye(4, 64)[truth]
    said = np.where(rng.random(3_000) < 0.4, rng.integers(0, 4, 3_000), truth)
    rows = np.arange(300)
    found = mended_posterior(x, said, rows, truth[rows], classes=4)
    rest = found.chance[300:]
    assert abs(rest.max(axis=1).mean() - (rest.argmax(axis=1) == truth[300:]).mean()) < 0.05
    share = share_believed(found.chance, said)
    true = [(said[truth == g] == g).mean() for g in range(4)]
    assert np.abs(share - true).max() < 0.1


def test_a_teacher_with_one_answer_only_is_no_error() -> None:
    """All that it says is one label; what reviews say is learned from the text."""
    x, _, truth = world(7)
    rows = np.arange(100)
    found = mended_posterior(x, np.zeros(600, dtype=int), rows, truth[rows], classes=4)
    assert (found.chance.argmax(axis=1) == truth)[100:].mean() > 0.9


def test_a_fold_that_knows_one_label_only_says_that_label() -> None:
    """The teacher has one answer, and all but one review agree: the fold without that review has nothing to weigh."""
    x, _, _ = world(8)
    truth = (np.arange(60) == 0).astype(int)
    found = mended_posterior(x, np.zeros(600, dtype=int), np.arange(60), truth, classes=4)
    assert found.held_out[0] == 0
    assert np.isfinite(found.chance).all()


def test_held_out_guesses_do_not_see_their_own_review() -> None:
    """With reviews that are noise, held-out guesses are right by chance; a model that saw them would know them."""
    x, _, _ = world(4)
    rng = np.random.default_rng(0)
    noise, said = rng.integers(0, 4, 300), rng.integers(0, 4, 600)
    found = mended_posterior(x, said, np.arange(300), noise, classes=4)
    assert (found.held_out == noise).mean() < 0.4
    assert (found.chance[:300].argmax(axis=1) == noise).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.integers(0, 10_000))
def test_the_queue_holds_each_unreviewed_cluster_once_the_least_certain_first(n, seed) -> None:
    """Order is by lead, weight alike; reviewed clusters never come back."""
    rng = np.random.default_rng(seed)
    chance = rng.dirichlet(np.ones(3), n)
    cluster = rng.integers(0, n, n).tolist()
    reviewed = rng.choice(n, size=n // 3, replace=False)
    found = Posterior(chance=chance, lead=lead_of(chance), scale=1.0, held_out=np.zeros(len(reviewed), dtype=np.int64))
    order = review_order(found, reviewed, weight=np.ones(n), pending=np.zeros(n, dtype=bool), cluster=cluster)
    names = [cluster[i] for i in order]
    assert len(set(names)) == len(names)
    assert set(names) == set(cluster) - {cluster[i] for i in reviewed}
    top = np.sort(chance, axis=1)
    lead = (top[:, -1] - top[:, -2])[order]
    assert (np.diff(lead) >= -1e-12).all()


def test_traffic_and_open_slices_come_first() -> None:
    """Twice the traffic, or an undecided slice, outweighs a little less doubt."""
    chance = np.array([[0.6, 0.4], [0.65, 0.35], [0.65, 0.35]])
    found = Posterior(chance=chance, lead=lead_of(chance), scale=1.0, held_out=np.zeros(0, dtype=np.int64))
    none = np.zeros(0, dtype=np.int64)
    heavy = review_order(found, none, weight=[1, 2, 1], pending=[False] * 3, cluster=[0, 1, 2])
    assert heavy.tolist()[0] == 1
    urgent = review_order(found, none, weight=[1, 1, 1], pending=[False, False, True], cluster=[0, 1, 2])
    assert urgent.tolist()[0] == 2


def test_what_can_teach_nothing_is_refused() -> None:
    """Too few reviews, one label only, a row twice, shapes that differ."""
    x, said, truth = world(5)
    few, enough = np.arange(LEAST_REVIEWED - 1), np.arange(LEAST_REVIEWED)
    for rows, y, t in (
        (few, truth[few], said),
        (enough, np.zeros(len(enough), dtype=int), said),
        (np.zeros(60, dtype=int), truth[:60], said),
        (enough, truth[enough], said[:-1]),
        (enough, truth[enough] + 9, said),
    ):
        with pytest.raises(MeasureError):
            mended_posterior(x, t, rows, y, classes=4)
    with pytest.raises(MeasureError):
        mended_posterior(x * np.nan, said, enough, truth[enough], classes=4)
    with pytest.raises(MeasureError):
        share_believed(np.ones((3, 2)), [0, 1])
