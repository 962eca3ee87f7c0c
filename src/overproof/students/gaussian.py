"""How far a request is from every label's training rows, in units of their spread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from overproof.errors import DataError
from overproof.students.files import AGAIN, read_arrays, write_arrays
from overproof.students.seen import GAUSSIAN

NAMES = ("turn", "means", "centre", "spread")
LEAST = 1e-9  # a direction without any spread tells nothing; it is floored so that no distance is infinite


class Gaussian:
    """
    One normal distribution a label, all with the same covariance, beside one for all rows.

    Args:
        arrays: "turn" (d, d) maps features to axes of unit spread within a label, "means" (k, d) and "centre" (1, d) are there,
            "spread" (1, d) is the variance of all rows along each axis.
    """

    def __init__(self, arrays: dict[str, NDArray[np.float32]]) -> None:
        self._stored = arrays
        # Single precision would tell a row alone from the same row in a block.
        self._turn, self._means, self._centre, self._spread = (arrays[n].astype(np.float64) for n in NAMES)

    @classmethod
    def of(cls, features: NDArray[Any], targets: NDArray[np.int64]) -> Gaussian:
        """
        Fit both.

        Args:
            features: shape (n, d), finite, n >= 2.
            targets: shape (n,), the label of each row.

        Returns: the distributions; the covariances are shrunk, so that fewer rows than dimensions are enough.
        """
        from sklearn.covariance import ledoit_wolf

        x = np.asarray(features, dtype=np.float64)
        known = np.unique(targets)
        means = np.stack([x[targets == label].mean(axis=0) for label in known])
        within, _ = ledoit_wolf(x - means[np.searchsorted(known, targets)], assume_centered=True)
        centre = x.mean(axis=0)
        whole, _ = ledoit_wolf(x - centre, assume_centered=True)
        values, axes = np.linalg.eigh(within)
        unit = (axes / np.sqrt(np.maximum(values, LEAST * values[-1]))).T
        spread, turned = np.linalg.eigh(unit @ whole @ unit.T)
        turn = turned.T @ unit
        arrays = {"turn": turn, "means": means @ turn.T, "centre": (turn @ centre)[None], "spread": np.maximum(spread, LEAST)[None]}
        return cls({name: value.astype(np.float32) for name, value in arrays.items()})

    def save(self, folder: Path) -> None:
        """
        Write the numbers.

        Args:
            folder: the student's folder.
        """
        write_arrays(folder / GAUSSIAN, self._stored)

    @classmethod
    def load(cls, folder: Path, *, width: int) -> Gaussian | None:
        """
        Read what `save` wrote.

        Args:
            folder: the student's folder.
            width: features of a row.

        Returns: the distributions; None where the file was left out.
        Raises: DataError for numbers of other shapes.
        """
        if not (folder / GAUSSIAN).exists():
            return None
        found = read_arrays(folder / GAUSSIAN, dict.fromkeys(NAMES, 2))
        shapes = {name: array.shape for name, array in found.items()}
        expected = {"turn": (width, width), "means": (len(found["means"]), width), "centre": (1, width), "spread": (1, width)}
        if shapes != expected or not len(found["means"]) or bool((found["spread"] <= 0).any()):
            raise DataError(f"{GAUSSIAN} has shapes {shapes}, expected {expected} and a spread above 0", next_action=AGAIN)
        return cls({name: array.astype(np.float32) for name, array in found.items()})

    def columns(self, features: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
        """
        Distances as out-of-scope scores.

        Args:
            features: shape (n, d) of the requests.

        Returns: "mahalanobis" (Lee et al. 2018, arXiv:1807.03888, equation 2: squared, to the nearest label) and
            "relative_mahalanobis" (Ren et al. 2021, arXiv:2106.09022, equation 3: less the one to all rows), shape (n,) each.
        """
        turned = features.astype(np.float64) @ self._turn.T
        far = (turned**2).sum(axis=1, keepdims=True) - 2.0 * turned @ self._means.T + (self._means**2).sum(axis=1)
        near, whole = far.min(axis=1), ((turned - self._centre) ** 2 / self._spread).sum(axis=1)
        return {"mahalanobis": np.maximum(near, 0.0), "relative_mahalanobis": near - whole}
