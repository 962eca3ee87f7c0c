"""The project's secret: what makes surrogates that nobody outside can turn back."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from overproof.errors import CorruptArtifact, StoreError

NAME = "surrogates.key"
LENGTH = 32


def project_secret(home: Path) -> bytes:
    """
    The project's secret, made at the first call; readable by its owner only.

    Args:
        home: the `.overproof` folder.

    Returns: 32 bytes, the same ones ever after.
    Raises: StoreError where it can't be read or written; CorruptArtifact where it has another length.
    """
    path = home / NAME
    try:
        if not path.exists():
            _make(path)
        key = path.read_bytes()
    except OSError as error:
        raise StoreError(
            f"{NAME} can't be read or written: {error.strerror}", next_action="make the project's folder yours to read and write"
        ) from error
    if len(key) != LENGTH:
        raise CorruptArtifact(
            f"{NAME} has {len(key)} bytes, expected {LENGTH}",
            next_action="restore it from a backup; with a new one, known entities get other surrogates",
        )
    return key


def _make(path: Path) -> None:
    """Whole or not at all, and never over another process's: a link fails where the name is taken."""
    part = path.with_name(f"{NAME}.{os.getpid()}.{secrets.token_hex(4)}.part")
    handle = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(LENGTH))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(part, path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        part.unlink(missing_ok=True)
