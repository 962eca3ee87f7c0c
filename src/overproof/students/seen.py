"""One look of a student at requests: its logits, and how foreign they look by its own features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from overproof.data import Request
from overproof.students.normalise import NORMALISER

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from overproof.students import Student

NEIGHBOURS, GAUSSIAN, MIXTURE = "neighbours.npz", "gaussian.npz", "mixture.npz"
TWO_ANSWERS, REPETITION = "two_answers", "repetition"
READ_BY = {NEIGHBOURS: "nearest_", GAUSSIAN: "mahalanobis", MIXTURE: TWO_ANSWERS}
"""Files that only scores with this in their name read; a bundle leaves them out where no rule uses such a score."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What one pass over requests gives."""

    logits: NDArray[np.float32]
    """Shape (n, k), see `Student.logits`."""
    columns: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """Scores by name that send a request to the teacher, shape (n,) each, the higher, the stranger; empty where it has none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Batching:
    """How a student's requests go together when it serves."""

    together: int = 1
    """Most requests in one pass; 1 where a pass of many is no faster, or says something else than many passes."""
    padding: float = 0.0
    """Most share of a pass that may be padding, in [0, 1)."""


@runtime_checkable
class Batches(Protocol):
    """A student that is faster with several requests in one pass."""

    batching: Batching

    def sizes(self, requests: Sequence[Request]) -> Sequence[int]:
        """
        How long requests are, in the student's own unit.

        Args:
            requests: any number.

        Returns: one length each; a pass costs its longest length times its requests.
        """


@runtime_checkable
class Features(Protocol):
    """A student that reads a request into a vector of its own before it answers."""

    def features(self, requests: Sequence[Request]) -> NDArray[np.float32] | None:
        """
        Where requests lie for the student.

        Args:
            requests: any number.

        Returns: shape (n, d); None where this one's files give no such vectors.
        """


@runtime_checkable
class Looks(Protocol):
    """A student that gives out-of-scope scores of its own in the pass that makes the logits."""

    def look(self, requests: Sequence[Request]) -> Seen:
        """
        Score requests.

        Args:
            requests: any number.

        Returns: logits and further columns.
        """


class Beside(Protocol):
    """What scores requests beside a student, whichever it is; see `mixture.Mixture`."""

    def columns(self, requests: Sequence[Request], normaliser: str) -> Mapping[str, NDArray[np.float64]]:
        """
        Score requests.

        Args:
            requests: any number.
            normaliser: that of the student.

        Returns: shape (n,) each, by name.
        """


def look_at(student: Student, requests: Sequence[Request], mixture: Beside | None = None) -> Seen:
    """
    What a student says to requests, with the columns that it may have.

    Args:
        student: any student.
        requests: any number.
        mixture: looks whether a message is put together of several; None where nobody asks.

    Returns: its logits, its own out-of-scope scores where it has such, and those of the mixture.
    """
    seen = student.look(requests) if isinstance(student, Looks) else Seen(logits=student.logits(requests))
    if mixture is None:
        return seen
    return replace(seen, columns={**seen.columns, **mixture.columns(requests, getattr(student, "normaliser", NORMALISER))})
