"""Files and folders that are whole or not there: a kill leaves nothing half under a name that people read."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
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


@contextlib.contextmanager
def whole_folder(to: Path) -> Iterator[Path]:
    """
    A folder beside the one that is wanted, which takes its name when it is full; what an earlier call left there when it was killed goes first.

    Args:
        to: where the folder belongs: missing, or empty.

    Returns: for the block: the folder to fill; after an error it is gone.
    Raises: OSError as the system says it, also where `to` holds something by then.
    """
    start = f".{to.name}.part-"
    to.parent.mkdir(parents=True, exist_ok=True)
    for left in to.parent.iterdir():
        if left.name.startswith(start):
            _clear(left)
    part = Path(tempfile.mkdtemp(prefix=start, dir=to.parent))
    held = os.open(part, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)  # as long as somebody fills it
        yield part
        part.chmod(0o755)
        part.rename(to)
        sync_folder(to.parent)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    finally:
        os.close(held)


def _clear(left: Path) -> None:
    try:
        held = os.open(left, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(left, ignore_errors=True)
    except BlockingIOError:
        return
    finally:
        os.close(held)


def sync_folder(path: Path) -> None:
    """
    Make the names in a folder durable.

    Args:
        path: an existing folder.

    Raises: OSError as the system says it.
    """
    held = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(held)
    finally:
        os.close(held)
