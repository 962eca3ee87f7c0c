import numpy as np
import pytest

from overproof.errors import DataError
from overproof.measure.scope import auroc
from overproof.students.files import write_arrays
from overproof.students.gaussian import Gaussian


@pytest.fixture(scope="module")
def world():
    """Three labels along one axis, with far more spread along another that says nothing."""
    rng = np.random.default_rng(0)
    spread = np.array([1.0, 30.0, 1.0, 1.0, 0.5])
    targets = rng.integers(0, 3, 600)
    means = np.zeros((3, 5))
    means[:, 0] = [0.0, 8.0, 16.0]
    return rng.normal(size=(600, 5)) * spread + means[targets], targets, means, spread


def test_distances_are_those_of_the_definition(world):
    """Squared Mahalanobis distance to the nearest label under the shared covariance; less the one to all rows."""
    from sklearn.covariance import ledoit_wolf

    x, targets, *_ = world
    asked = np.random.default_rng(1).normal(size=(20, 5)).astype(np.float32) * 10
    means = np.stack([x[targets == label].mean(axis=0) for label in range(3)])
    inverse = np.linalg.inv(ledoit_wolf(x - means[targets], assume_centered=True)[0])
    whole = np.linalg.inv(ledoit_wolf(x - x.mean(axis=0), assume_centered=True)[0])
    near = np.min([np.einsum("nd,de,ne->n", asked - m, inverse, asked - m) for m in means], axis=0)
    far = asked - x.mean(axis=0)
    found = Gaussian.of(x, targets).columns(asked)
    assert found["mahalanobis"] == pytest.approx(near, rel=1e-3)
    assert found["relative_mahalanobis"] == pytest.approx(near - np.einsum("nd,de,ne->n", far, whole, far), rel=1e-3, abs=1e-2)


def test_it_sees_what_lies_off_the_labels_where_plain_distance_does_not(world):
    """Rows six spreads off in a quiet direction stand out; the noisy direction hides them from a Euclidean distance."""
    x, targets, means, spread = world
    rng = np.random.default_rng(2)
    own = rng.normal(size=(300, 5)) * spread + means[rng.integers(0, 3, 300)]
    foreign = own + np.array([0, 0, 6.0, 0, 0])
    rows, outside = np.concatenate([own, foreign]), np.repeat([False, True], 300)
    scores = Gaussian.of(x, targets).columns(rows.astype(np.float32))
    plain = np.min([np.linalg.norm(rows - m, axis=1) for m in means], axis=0)
    assert auroc(scores["mahalanobis"], outside) > 0.95 > 0.7 > auroc(plain, outside)


def test_fewer_rows_than_dimensions_are_enough_and_a_row_reads_alike_alone_and_in_a_block(tmp_path):
    """Shrinkage keeps the covariance usable; what was saved gives the same numbers, row by row too."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(12, 40))
    made = Gaussian.of(x, np.repeat([0, 4], 6))
    made.save(tmp_path)
    loaded = Gaussian.load(tmp_path, width=40)
    asked = rng.normal(size=(9, 40)).astype(np.float32)
    block = loaded.columns(asked)
    for name, column in made.columns(asked).items():
        assert np.isfinite(column).all()
        assert (column == block[name]).all()
        alone = [loaded.columns(asked[i : i + 1])[name][0] for i in range(9)]
        assert block[name] == pytest.approx(alone, rel=1e-12)


def test_numbers_of_another_shape_are_refused(tmp_path):
    """A file that belongs to another student loads nothing; a missing one is no student's fault."""
    assert Gaussian.load(tmp_path, width=3) is None
    Gaussian.of(np.eye(3), np.array([0, 1, 1])).save(tmp_path)
    with pytest.raises(DataError, match="expected"):
        Gaussian.load(tmp_path, width=4)
    write_arrays(tmp_path / "gaussian.npz", {"turn": np.eye(3), "means": np.eye(3), "centre": np.ones((1, 3)), "spread": np.zeros((1, 3))})
    with pytest.raises(DataError, match="above 0"):
        Gaussian.load(tmp_path, width=3)
