import numpy as np
import pytest

from overproof.errors import MeasureError
from overproof.measure.clusters import GRAMS, gram_places, gram_vectors, new_clusters, usual_distance


def around(rng, centres, rows, spread=0.5):
    found = centres[rng.integers(len(centres), size=rows)] + spread * rng.normal(size=(rows, centres.shape[1]))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def centres():
    rng = np.random.default_rng(9)
    found = rng.normal(size=(12, 16))
    return found / np.linalg.norm(found, axis=1, keepdims=True) * 2


def test_the_same_mix_of_topics_has_no_new_cluster(centres):
    """At level 0.1 at most about one look in ten names a group where nothing changed."""
    rng = np.random.default_rng(0)
    named = 0
    for _ in range(40):
        usual = around(rng, centres, 500)
        radii = [usual_distance(usual, quantile=0.5), usual_distance(usual, quantile=0.95)]
        named += bool(new_clusters(around(rng, centres, 120), usual, radii=radii, tolerance=1.0, level=0.1))
    assert named <= 8


def test_a_tenth_of_new_content_is_one_group_of_its_own_rows(centres):
    """Twenty of two hundred messages come from elsewhere: they are found together, with few others."""
    rng = np.random.default_rng(1)
    usual, elsewhere = around(rng, centres, 800), -centres[:1]
    live = np.vstack([around(rng, centres, 180), around(rng, elsewhere, 20, spread=0.2)])
    found = new_clusters(live, usual, radii=[usual_distance(usual), usual_distance(usual, quantile=0.95)], tolerance=1.25, level=0.003)
    assert found
    assert set(found[0].rows) <= set(range(180, 200))
    assert len(found[0].rows) >= 15
    assert found[0].k_reference == 0


def test_a_known_topic_that_gets_denser_is_found_too(centres):
    """A group need not be far from all that is known: five times as many of one topic is new as well."""
    rng = np.random.default_rng(2)
    usual = around(rng, centres, 1_000, spread=0.2)
    live = np.vstack([around(rng, centres, 200, spread=0.2), around(rng, centres[:1], 80, spread=0.2)])
    found = new_clusters(live, usual, radii=[usual_distance(usual, quantile=0.95)], tolerance=1.25, level=0.003)
    assert found
    inside = np.concatenate([one.rows for one in found])
    assert (inside >= 200).mean() > 0.7


def test_hashed_texts_say_whether_they_are_alike():
    """The same words in another order are one direction; an empty text has none."""
    a, b, c, nothing = gram_vectors(["the battery gets hot", "hot gets the battery", "where is my parcel", " "])
    assert a @ b > 0.9 > a @ c
    assert not nothing.any()
    assert [len(one) > 0 and one.max() < GRAMS for one in gram_places(["battery", "parcel"])] == [True, True]


def test_rows_of_another_kind_are_refused():
    """Vectors of two models don't compare."""
    with pytest.raises(MeasureError, match="one kind"):
        new_clusters(np.ones((4, 3), np.float32), np.ones((4, 2), np.float32), radii=[0.5], tolerance=1.25, level=0.01)
