"""Distance to the nearest training rows by a student's own features: how far a request is from all that it knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from overproof.errors import DataError
from overproof.students.files import AGAIN, read_arrays, write_arrays
from overproof.students.seen import NEIGHBOURS

MOST = 2_000  # rows that are kept: 6 MB of a small encoder's features, and about a millisecond a request


class Neighbours:
    """
    Features of training rows, each at length 1.

    Args:
        rows: shape (m, d), float32.
    """

    def __init__(self, rows: NDArray[np.float32]) -> None:
        self._rows = rows

    @classmethod
    def of(cls, features: NDArray[Any], *, seed: int) -> Neighbours:
        """
        A seeded draw of the training rows.

        Args:
            features: shape (n, d), finite, n >= 1.
            seed: of the draw.

        Returns: at most 2,000 of them, at length 1.
        """
        n = len(features)
        pick = np.sort(np.random.default_rng(seed).permutation(n)[:MOST])
        return cls(_unit(features[pick].astype(np.float64)).astype(np.float32))

    def save(self, folder: Path) -> None:
        """
        Write the rows.

        Args:
            folder: the student's folder.
        """
        write_arrays(folder / NEIGHBOURS, {"rows": self._rows})

    @classmethod
    def load(cls, folder: Path, *, width: int) -> Neighbours | None:
        """
        Read what `save` wrote.

        Args:
            folder: the student's folder.
            width: features of a row.

        Returns: the rows; None where the file was left out.
        Raises: DataError for another width.
        """
        if not (folder / NEIGHBOURS).exists():
            return None
        rows = read_arrays(folder / NEIGHBOURS, {"rows": 2})["rows"].astype(np.float32)
        if rows.shape[1] != width or not len(rows):
            raise DataError(f"{NEIGHBOURS} has shape {rows.shape}, expected {width} columns", next_action=AGAIN)
        return cls(rows)

    def columns(self, features: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
        """
        Distances as out-of-scope scores; equal to `measure.scope.nearest_distance`, without scipy.

        Args:
            features: shape (n, d) of the requests.

        Returns: "nearest_1", and "nearest_10" from ten rows on, shape (n,) each, in [0, 2].
        """
        near = _unit(features.astype(np.float64)).astype(np.float32) @ self._rows.T
        places = [k for k in (1, 10) if k <= len(self._rows)]
        found = np.partition(-near, [k - 1 for k in places], axis=1)
        return {f"nearest_{k}": np.sqrt(np.maximum(2.0 + 2.0 * found[:, k - 1].astype(np.float64), 0.0)) for k in places}


def _unit(values: NDArray[np.float64]) -> NDArray[np.float64]:
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.where(length > 0.0, length, 1.0), dtype=np.float64)
