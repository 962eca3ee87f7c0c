"""The logistic regression that the linear and the encoder student share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from overproof.data import TrainSet
from overproof.errors import DataError
from overproof.progress import track
from overproof.students import ABSENT_LOGIT

# Past this the fit is limited by the optimiser, not by the data; 50 to 100 iterations are usual.
MAX_ITERATIONS = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearMap:
    """Features to logits: `features @ weight.T + bias`."""

    weight: NDArray[np.float64]
    """Shape (k, d); zero in the rows of labels that no training row has."""
    bias: NDArray[np.float64]
    """Shape (k,)."""

    @classmethod
    def absent(cls, k: int, d: int) -> LinearMap:
        """
        The map before any label has rows: weights 0, biases `ABSENT_LOGIT`.

        Args:
            k: labels.
            d: features.

        Returns: arrays to be filled in.
        """
        return cls(weight=np.zeros((k, d)), bias=np.full(k, ABSENT_LOGIT))


def targets(train: TrainSet) -> NDArray[np.int64]:
    """
    Column of each row's target.

    Args:
        train: the rows.

    Returns: shape (n,).
    Raises: DataError for a target outside the labels, or fewer than two different ones.
    """
    at = {label: i for i, label in enumerate(train.labels)}
    unknown = sorted({example.target for example in train.examples} - set(at))
    if unknown:
        raise DataError(
            f"training targets {unknown[:5]!r} are not among the {len(at)} labels",
            next_action="filter the labels before training, see label_set.v1",
        )
    found = np.array([at[example.target] for example in train.examples], dtype=np.int64)
    if len(np.unique(found)) < 2:
        raise DataError(
            f"the {len(found)} training rows have {len(np.unique(found))} different labels, at least 2 are needed",
            next_action="collect more traffic, or look at what the teacher answers",
        )
    return found


def weights(train: TrainSet) -> NDArray[np.float64]:
    """
    Weight of each row, scaled to mean 1.

    Args:
        train: the rows.

    Returns: shape (n,).
    Raises: DataError for a negative or non-finite weight, or none above zero.
    """
    found = np.array([example.weight for example in train.examples], dtype=np.float64)
    if not np.isfinite(found).all() or (found < 0).any() or not found.any():
        raise DataError(
            "the training rows' weights must be finite, at least 0, and not all 0",
            next_action="look at how the prompt set was weighted",
        )
    scaled: NDArray[np.float64] = found / found.mean()
    return scaled


def fit_logistic(features: Any, train: TrainSet, *, c: float, tolerance: float) -> LinearMap:
    """
    Weighted multinomial logistic regression with an L2 penalty.

    Args:
        features: shape (n, d), dense or scipy CSR.
        train: the rows, in the same order.
        c: inverse strength of the penalty, above 0.
        tolerance: the optimiser stops at this size of the gradient.

    Returns: the map; logits of labels with training rows sum to 0, those of the others are `ABSENT_LOGIT`.
    Raises: DataError, see `targets` and `weights`.
    """
    from sklearn.linear_model import LogisticRegression

    y, row_weights = targets(train), weights(train)
    model = LogisticRegression(C=c, tol=tolerance, max_iter=MAX_ITERATIONS)
    for _ in track([model], "fitting logistic regression", total=1):
        model.fit(features, y, sample_weight=row_weights)
    coefficients, intercepts = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn keeps one row, for the second class against the first
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercepts = np.concatenate([-intercepts, intercepts]) / 2
    found = LinearMap.absent(len(train.labels), coefficients.shape[1])
    # Softmax doesn't see a shift that all labels share; without it the best logit of a row is never below 0,
    # which is what ABSENT_LOGIT relies on.
    found.weight[model.classes_] = coefficients - coefficients.mean(axis=0)
    found.bias[model.classes_] = intercepts - intercepts.mean()
    return found
