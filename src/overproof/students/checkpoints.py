"""Where a killed training is taken up again: one file of arrays, replaced whole, removed when the student is done."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from overproof.errors import StoreError

if TYPE_CHECKING:
    import torch

EVERY_S = 60.0
EPOCH_S = 15.0  # an epoch's end was judged already, so it is worth a state sooner; not every second, since a state may have 100 MB
KEEP_S = 14 * 24 * 3600.0  # a checkpoint that nobody came back for in two weeks belongs to a recipe that has changed


@runtime_checkable
class Resumes(Protocol):
    """A student whose training survives a kill."""

    checkpoints: Path | None
    """Folder that outlives the process; None keeps nothing. It never changes what is learned."""


class Checkpoint:
    """
    The state of one training.

    Args:
        folder: of all checkpoints; made on the first save.
        key: SHA-256 of all that the training depends on; another key is another training.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.path = folder / f"{key}.safetensors"
        self._saved = time.monotonic()

    @classmethod
    def of(cls, folder: Path, what: object) -> Self:
        """
        The state of the training that depends on these things.

        Args:
            folder: see `Checkpoint`.
            what: all of them, what JSON can say; the versions of the libraries that compute come in by themselves.

        Returns: where it is kept.
        """
        versions = {}
        for name in ("overproof", "torch", "transformers", "peft"):
            with contextlib.suppress(metadata.PackageNotFoundError):
                versions[name] = metadata.version(name)
        return cls(folder, hashlib.sha256(json.dumps([versions, what]).encode()).hexdigest())

    def due(self, *, epoch_end: bool = False) -> bool:
        """
        Whether it is time to save.

        Args:
            epoch_end: true where an epoch has just ended.

        Returns: true if the last state is old enough.
        """
        return time.monotonic() - self._saved >= min(EVERY_S, EPOCH_S if epoch_end else EVERY_S)

    def save(self, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> None:
        """
        Replace the state, whole or not at all.

        Args:
            arrays: name to array.
            facts: what JSON can say.

        Raises: StoreError where the disk refuses.
        """
        from safetensors.numpy import save_file

        scratch = self.path.with_suffix(f".{os.getpid()}.tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._tidy()
            save_file({n: np.ascontiguousarray(a) for n, a in arrays.items()}, scratch, {"facts": json.dumps(facts)})
            with scratch.open("rb") as file:
                os.fsync(file.fileno())
            scratch.replace(self.path)
            self._saved = time.monotonic()
        except OSError as error:
            raise StoreError(
                f"the state of the training can't be written to {self.path.parent.name!r}: {error}",
                next_action="make room on the disk, then run again: the last whole state is taken up",
            ) from error

    def load(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]] | None:
        """The last state; None where there is none, or it can't be read, and the training starts over."""
        import safetensors

        try:
            with safetensors.safe_open(self.path, framework="numpy") as file:
                facts = json.loads(file.metadata()["facts"])
                return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118 - not a mapping
        except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError):
            return None

    def clear(self) -> None:
        """Remove the state: the student is done."""
        self.path.unlink(missing_ok=True)

    def _tidy(self) -> None:
        for path in self.path.parent.iterdir():
            with contextlib.suppress(OSError):
                if path != self.path and time.time() - path.stat().st_mtime > KEEP_S:
                    path.unlink()


def state_of(learned: Mapping[str, torch.Tensor], optimiser: torch.optim.Optimizer) -> dict[str, NDArray[Any]]:
    """
    What is learned, with the optimiser's moments.

    Args:
        learned: name to parameter.
        optimiser: Adam, or one of its kind.

    Returns: arrays for `Checkpoint.save`, which may share memory with the parameters.
    """
    found = {f"learned.{name}": value.detach().cpu().numpy() for name, value in learned.items()}
    for name, value in learned.items():
        found |= {f"{part}.{name}": moment.cpu().numpy() for part, moment in optimiser.state.get(value, {}).items()}
    return found


def restore(learned: Mapping[str, torch.Tensor], optimiser: torch.optim.Optimizer, arrays: Mapping[str, NDArray[Any]]) -> None:
    """
    Put back what `state_of` gave.

    Args:
        learned: the same names and shapes.
        optimiser: new, of the same kind.
        arrays: from `Checkpoint.load`.
    """
    import torch

    copy_into(learned, arrays, "learned")
    for name, value in learned.items():
        if f"step.{name}" in arrays:  # a parameter that no row has touched yet has no moments
            moments = {part: torch.empty_like(value) for part in ("exp_avg", "exp_avg_sq")}
            for part, moment in moments.items():
                copy_into({name: moment}, arrays, part)
            optimiser.state[value] = {"step": torch.tensor(float(arrays[f"step.{name}"].item())), **moments}


def copy_into(tensors: Mapping[str, torch.Tensor], arrays: Mapping[str, NDArray[Any]], group: str) -> None:
    """
    Overwrite tensors with the arrays of one group; they stay where torch has put them, since sums may depend on alignment.

    Args:
        tensors: by name.
        arrays: by group and name.
        group: for example "best".
    """
    import torch

    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(torch.from_numpy(arrays[f"{group}.{name}"].copy()).reshape(tensor.shape))
