"""Where a killed training is taken up again: one file of arrays, replaced whole, removed when the student is done."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from overproof.errors import StoreError

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
