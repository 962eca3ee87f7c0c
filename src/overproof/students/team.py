"""The processes that train one student together: who takes which rows, and how their sums meet."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

from overproof.errors import DataError

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

F = TypeVar("F", np.float32, np.float64)


class Team:
    """
    Place of a process among those of a training; alone it is rank 0 of 1 and every sum is its own.

    Args:
        processes: as many as the training was asked to have; above 1 torch's process group must be there.

    Raises: DataError where the group has another size.
    """

    def __init__(self, processes: int) -> None:
        self.rank, self.size = 0, 1
        if processes > 1:
            from torch import distributed

            self.rank, self.size = distributed.get_rank(), distributed.get_world_size()
        if self.size != processes:
            raise DataError(
                f"{self.size} processes were started for a training with processes = {processes}",
                next_action="start as many as `tune` says, over all machines together, or change `processes`",
            )

    def share(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """
        Its own part of rows; the parts of all make the whole.

        Args:
            rows: the same in every process; where they are sorted by length, the parts are alike in work.
        """
        return rows[self.rank :: self.size]

    def add(self, value: torch.Tensor) -> None:
        """
        Replace a tensor by its sum over the processes.

        Args:
            value: of one shape in all of them; changed in place.
        """
        if self.size > 1:
            from torch import distributed

            distributed.all_reduce(value)

    def total(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """
        Sum of an array over the processes.

        Args:
            values: of one shape in all of them; may be changed.
        """
        import torch

        self.add(torch.from_numpy(values))
        return values

    def led(self, values: NDArray[F]) -> NDArray[F]:
        """
        What the first process has, in all.

        Args:
            values: of one shape in all of them; changed in place but in the first.
        """
        if self.size > 1:
            import torch
            from torch import distributed

            distributed.broadcast(torch.from_numpy(values), 0)
        return values

    def agree(self, *numbers: float) -> None:
        """
        Stop a training whose processes have drifted apart: their mean would be nobody's gradient.

        Args:
            numbers: that must be the same, to the bit, in every process.

        Raises: DataError.
        """
        mine = np.array(numbers, dtype=np.float64)
        first = self.led(mine.copy())
        apart = self.total(np.array([float(first.tobytes() != mine.tobytes())]))  # bytes: nan equals nan
        if apart[0]:
            raise DataError(
                f"{int(apart[0])} of {self.size} training processes have another state than the first",
                next_action="use machines with the same processor, torch and folder, or train with processes = 1",
            )
