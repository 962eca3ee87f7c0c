"""Files as they come: folders and patterns spelled out, gzip and zstd unpacked while they are read."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from overproof.errors import DataError, MissingExtra

GZIP_RATIO_CAP = 200
GZIP_FREE_BYTES = 1024 * 1024
"""So much may come out of any packed file: ratios of tiny files say nothing."""
_ZSTD_BITE = 1024
"""Packed bytes unpacked at once: at the format's highest ratio some 32 MB."""
PACKED = (".gz", ".zst")
KINDS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
"""What a folder is searched for, packed or not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """The files that some paths mean."""

    files: tuple[Path, ...]
    """In the order of the paths; inside a folder by name."""
    passed: tuple[Path, ...]
    """Files of a folder that are no logs by their name."""


def bare_name(path: Path) -> str:
    """
    A file's name without the ending of its packing.

    Args:
        path: the file.

    Returns: for example "may.jsonl" for "may.jsonl.gz".
    """
    return path.stem if path.suffix in PACKED else path.name


def expand(paths: Sequence[Path]) -> Found:
    """
    Files, folders and patterns as the files that they mean.

    Args:
        paths: a file, a folder (searched to the bottom, hidden names left out), or a pattern with * ? [.

    Returns: the files, each once.
    Raises: DataError for a path that means no file.
    """
    files: dict[Path, None] = {}
    passed: list[Path] = []
    for path in paths:
        if path.is_file():
            found = [path]
        elif path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and not _hidden(p.relative_to(path)))
            found = [p for p in inside if Path(bare_name(p)).suffix in KINDS]
            passed += [p for p in inside if Path(bare_name(p)).suffix not in KINDS]
        else:
            found = sorted(p for p in _matching(path) if p.is_file())
        if not found:
            raise DataError(
                f"no file {path}" if not path.is_dir() else f"folder {path} holds no log ({', '.join(KINDS)}, packed or not)",
                next_action="look at the path; name the file itself where its ending is another",
            )
        files |= dict.fromkeys(found)
    return Found(files=tuple(files), passed=tuple(passed))


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _matching(path: Path) -> Iterator[Path]:
    if not any(mark in str(path) for mark in "*?["):
        return iter(())
    return Path(path.anchor).glob(str(path.relative_to(path.anchor))) if path.is_absolute() else Path().glob(str(path))


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """
    A file's bytes, unpacked where its name ends in ".gz" or ".zst".

    Args:
        path: the file.

    Returns: a stream that refuses to unpack to more than `GZIP_RATIO_CAP` times the file's size.
    Raises: DataError for a file that can't be read to its end; MissingExtra for zstd without its package.
    """
    damage: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error)
    if path.suffix == ".zst":
        try:
            import zstandard
        except ImportError as error:
            raise MissingExtra(f"reading {path.name!r}", extra="zstd") from error
        damage = (*damage, zstandard.ZstdError)
    try:
        with path.open("rb") as plain:
            if path.suffix not in PACKED:
                yield plain
                return
            budget = max(GZIP_FREE_BYTES, GZIP_RATIO_CAP * path.stat().st_size)
            raw = (
                cast("IO[bytes]", gzip.GzipFile(fileobj=plain))
                if path.suffix == ".gz"
                else cast("IO[bytes]", _Frames(plain, zstandard.ZstdDecompressor().decompressobj))
            )
            yield cast("IO[bytes]", io.BufferedReader(_Rationed(path, raw, budget), 256 * 1024))
    except damage as error:
        raise DataError(
            f"{path.name!r} can't be read to its end: {error}", next_action="fetch the file again; nothing after it counts"
        ) from error


class _Frames:
    """Unpacks zstd frame after frame; the library's own reader takes a file that was cut for one that ended."""

    def __init__(self, plain: IO[bytes], begin: Callable[[], Any]) -> None:
        self._plain, self._begin = plain, begin
        self._frame: Any = None
        self._out = b""

    def read(self, size: int) -> bytes:
        while not self._out:
            data = self._plain.read(_ZSTD_BITE)
            if not data:
                if self._frame is not None:
                    raise EOFError("it ends inside a zstd frame")
                return b""
            while data:
                self._frame = self._frame or self._begin()
                self._out += self._frame.decompress(data)
                data = self._frame.unused_data if self._frame.eof else b""
                self._frame = None if self._frame.eof else self._frame
        taken, self._out = self._out[:size], self._out[size:]
        return taken


class _Rationed(io.RawIOBase):
    """Counts what comes out of a packed file, so that a bomb is stopped before memory or time are spent on it."""

    def __init__(self, path: Path, raw: IO[bytes], budget: int) -> None:
        self._path, self._raw, self._left = path, raw, budget

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast("bytearray", buffer))
        data = self._raw.read(len(view))
        self._left -= len(data)
        if self._left < 0:
            raise DataError(
                f"{self._path.name!r} unpacks to more than {GZIP_RATIO_CAP} times its size",
                next_action="unpack it yourself if you trust it, and import the plain file",
            )
        view[: len(data)] = data
        return len(data)
