"""Files that are whole or not there: a kill leaves no half text under a name that people read."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, data: bytes | str) -> None:
    """
    Write a file beside its name, then put it there; what stood there stays until then.

    Args:
        path: in a folder that is there.
        data: bytes, or text for UTF-8.

    Raises: OSError as the system says it.
    """
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        file.write(data.encode("utf-8") if isinstance(data, str) else data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
