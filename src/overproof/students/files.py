"""Reading and writing the files of a fitted student: JSON and plain arrays, nothing that could run code."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from overproof.errors import DataError

# A settings file is small, a vocabulary or a tokenizer of 200,000 entries is not.
MAX_SETTINGS_BYTES = 4 * 2**20
MAX_TABLE_BYTES = 64 * 2**20
AGAIN = "fetch or train the student again; these files were changed or cut off"


def write_json(path: Path, value: Any) -> None:
    """
    Write a JSON value, the same bytes for the same value.

    Args:
        path: the file.
        value: what JSON can say.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
    path.write_text(text + "\n", encoding="utf-8", newline="\n")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


def read_json(path: Path, *, max_bytes: int = MAX_SETTINGS_BYTES) -> Any:
    """
    Read a JSON file of bounded size.

    Args:
        path: the file.
        max_bytes: larger files are refused unread.

    Returns: the value; NaN and infinity are refused.
    Raises: DataError.
    """
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise DataError(f"{path.name} has {size} bytes, at most {max_bytes} are read", next_action=AGAIN)
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path.name} can't be read: {error}", next_action=AGAIN) from error


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """
    Write named arrays as an uncompressed NPZ, the same bytes for the same arrays.

    Args:
        path: the file, ending in ".npz".
        arrays: name to numeric array.
    """
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **dict(arrays))


def read_arrays(path: Path, expected: Mapping[str, int]) -> dict[str, NDArray[Any]]:
    """
    Read named numeric arrays, and nothing else, from an uncompressed NPZ.

    Args:
        path: the file.
        expected: name to number of dimensions.

    Returns: name to array, all finite.
    Raises: DataError for pickles, compressed entries, headers that claim more than the file holds, other names.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if sorted(e.filename for e in entries) != sorted(f"{name}.npy" for name in expected):
                raise DataError(f"{path.name} holds other arrays than {sorted(expected)!r}", next_action=AGAIN)
            arrays = {}
            for entry in entries:
                name = entry.filename.removesuffix(".npy")
                _check_header(archive, entry, dimensions=expected[name])
                with archive.open(entry) as file:
                    arrays[name] = np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{path.name} can't be read: {error}", next_action=AGAIN) from error
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise DataError(f"{path.name}: array {name!r} holds NaN or infinity", next_action=AGAIN)
    return arrays


def _check_header(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, *, dimensions: int) -> None:
    """Refuse an array before memory is taken for it."""
    if entry.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{entry.filename} is compressed")
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"{entry.filename} has array format {version}")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        rest = entry.file_size - file.tell()
    if len(shape) != dimensions or dtype.kind not in "fi" or math.prod(shape) * dtype.itemsize != rest:
        raise ValueError(f"{entry.filename} has shape {shape}, type {dtype} and {rest} bytes")


def folder_size(folder: Path) -> int:
    """
    Bytes of all files under a folder.

    Args:
        folder: an existing folder.

    Returns: bytes.
    """
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
