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
    Write a file beside its name, then put it there; what stood there stays until then. Of several writers at once each writes whole, one after the other.

    Args:
        path: in a folder that is there.
        data: bytes, or text for UTF-8.

    Raises: OSError as the system says it.
    """
    part = path.with_name(f".{path.name}.part")  # one name, so that the next call takes what a killed one left
    while True:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o666), "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_at(part, file.fileno()):
                continue  # whoever had it put it in place while we waited
            file.truncate(0)
            file.write(data.encode("utf-8") if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
            part.replace(path)
            return


def _is_at(path: Path, held: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(held))
    except FileNotFoundError:
        return False


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
    part, held = _own_folder(start, to.parent)
    try:
        yield part
        part.chmod(0o755)
        part.rename(to)
        sync_folder(to.parent)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    finally:
        os.close(held)


def _own_folder(start: str, parent: Path) -> tuple[Path, int]:
    """A new folder and the lock on it, which says that somebody fills it; between the two, another call may take it for a killed one's."""
    while True:
        part = Path(tempfile.mkdtemp(prefix=start, dir=parent))
        with contextlib.suppress(FileNotFoundError):
            held = os.open(part, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(held, fcntl.LOCK_EX)
            if _is_at(part, held):
                return part, held
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
