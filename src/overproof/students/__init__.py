"""Students: small models that learn a teacher's labels, and the baselines that they have to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from overproof.data import Request, TrainSet
from overproof.outputs import Fields, Text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# A label that no training row has gets this logit, thirty below the level at or under the row's best: its
# probability is under 1e-13, and the log-loss of a row that does carry it stays finite.
ABSENT_LOGIT = -30.0


class Student(Protocol):
    """
    A model that is fitted once and then answers in batches.

    It is made with `labels` (the task's labels in order), `seed` and its own options, all of them keyword
    arguments that JSON can say; `train` of `steps` calls it so.
    """

    kind: str
    """Part name that loads the folder again, for example "linear.v1"."""
    labels: tuple[str, ...]
    """Columns of `logits`."""
    parameters: int
    """Learned numbers, frozen ones included; 0 before `fit`."""

    def fit(self, train: TrainSet, *, workdir: Path) -> None:
        """
        Learn from the rows, and leave every file that answering needs in `workdir`.

        Args:
            train: examples with targets out of its labels; `Example.weight` weighs a row.
            workdir: an empty folder; nothing in it may be a pickle.
        """

    def logits(self, requests: Sequence[Request]) -> NDArray[np.float32]:
        """
        Score every label for every request.

        Args:
            requests: any number, in any order.

        Returns: shape (n, k), log-probabilities up to a constant per row, columns in the order of `labels`.
        """

    @classmethod
    def load(cls, folder: Path) -> Self:
        """
        The student whose files `fit` left in a folder; needs no training extras.

        Args:
            folder: what `fit` was given as `workdir`, or a copy.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class Generated:
    """What a generator says to one request."""

    value: str | None
    """The answer in the output kind's canonical form; None where it has none, which counts as wrong."""
    score: float
    """Raw log-odds that the answer is right, finite, the higher the surer; a reading fitted on calibration rows makes it a confidence."""
    columns: Mapping[str, float] = field(default_factory=dict)
    """Further finite numbers that a reading may use, the same names for every request of one generator."""
    fields: Mapping[str, float] = field(default_factory=dict)
    """For records: each field's own raw log-odds."""


class Generator(Protocol):
    """
    A model that writes records or texts.

    It is made with `output`, `seed` and its own options, all of them keyword arguments, as a `Student` is with `labels`.
    """

    kind: str
    """Part name that loads the folder again, for example "span.v1"."""
    output: Fields | Text
    """What its answers are."""
    parameters: int
    """Learned numbers, frozen ones included; 0 before `fit`."""

    def fit(self, train: TrainSet, *, workdir: Path) -> None:
        """
        Learn from the rows, and leave every file that answering needs in `workdir`; see `Student.fit`.

        Args:
            train: examples whose targets are canonical answers of its output kind.
            workdir: an empty folder; nothing in it may be a pickle.
        """

    def generate(self, requests: Sequence[Request]) -> Sequence[Generated]:
        """
        Answer requests; the same request gives the same answer whatever stands beside it.

        Args:
            requests: any number, in any order.

        Returns: one each, in order.
        """

    @classmethod
    def load(cls, folder: Path) -> Self:
        """
        The generator whose files `fit` left in a folder; needs no training extras.

        Args:
            folder: what `fit` was given as `workdir`, or a copy.
        """
