"""Where several machines share a store's files: a bucket of an S3-compatible service, or a folder that all of them mount."""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import unquote, urlsplit

from overproof.errors import DataError, MissingExtra, StoreError
from overproof.whole import sync_folder

BLOCK: Final = 1 << 20
TRIES, TIMEOUT_S = 3, 60
_S3: Final = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[\w.=/-]+)?")
_UP: Final = "see that it can be reached and the credentials in the environment are right, then run again: finished steps are kept"


class BucketAway(StoreError):
    """What is shared can't be read or written now."""


class Bucket(Protocol):
    """Named bytes, each written once, whole or not at all."""

    def has(self, key: str) -> bool:
        """True iff there is such an object."""

    def put_new(self, key: str, source: bytes | Path) -> None:
        """Store an object; one that is there stays as it is."""

    def get(self, key: str) -> Iterator[bytes]:
        """An object in pieces; FileNotFoundError before the first one where there is none."""

    def names(self, prefix: str) -> Iterator[str]:
        """Keys of all objects under a prefix that ends at a slash."""

    def remove(self, key: str) -> None:
        """Take an object away for good; nothing happens where there is none."""


def bucket_of(url: str) -> Bucket:
    """
    The shared files that `store.toml` names.

    Args:
        url: "s3://bucket/prefix", or "file:///folder".

    Returns: the bucket; nothing is asked of it yet.
    Raises: DataError for another address; MissingExtra for S3 without its library.
    """
    parts = urlsplit(url)
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        return FolderBucket(Path(unquote(parts.path)))
    if _S3.fullmatch(url):
        return S3Bucket(url)
    raise DataError(f'[objects] url {url!r}: "s3://bucket/prefix" or "file:///folder" was expected', next_action="mend store.toml")


class FolderBucket:
    """
    A folder on a disk that all machines mount.

    Args:
        root: the folder; made with the first object.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def has(self, key: str) -> bool:
        """See `Bucket.has`."""
        with self._clear_errors():
            return (self._root / key).exists()

    def put_new(self, key: str, source: bytes | Path) -> None:
        """See `Bucket.put_new`; durable on return."""
        target = self._root / key
        with self._clear_errors():
            if target.exists():
                return
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(f".{uuid.uuid4().hex}.part")
            try:
                with part.open("wb") as file:
                    for piece in [source] if isinstance(source, bytes) else _pieces(source):
                        file.write(piece)
                    file.flush()
                    os.fsync(file.fileno())
                with contextlib.suppress(FileExistsError):
                    os.link(part, target)
            finally:
                part.unlink(missing_ok=True)
            sync_folder(target.parent)

    def get(self, key: str) -> Iterator[bytes]:
        """See `Bucket.get`."""
        with self._clear_errors():
            yield from _pieces(self._root / key)

    def names(self, prefix: str) -> Iterator[str]:
        """See `Bucket.names`."""
        for folder, _, files in os.walk(self._root / prefix, onerror=self._refuse):
            yield from (Path(folder, name).relative_to(self._root).as_posix() for name in sorted(files))

    def remove(self, key: str) -> None:
        """See `Bucket.remove`; durable on return."""
        target = self._root / key
        with self._clear_errors(), contextlib.suppress(FileNotFoundError):
            target.unlink()
            sync_folder(target.parent)

    def _refuse(self, error: OSError) -> None:
        """A folder that can't be read is not an empty one."""
        if not isinstance(error, FileNotFoundError) or not self._root.is_dir():
            raise BucketAway(f"shared folder {str(self._root)!r}: {error.strerror or error}", next_action=_UP) from error

    @contextlib.contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise BucketAway(f"shared folder {str(self._root)!r}: {error.strerror or error}", next_action=_UP) from error


class S3Bucket:
    """
    A bucket of an S3-compatible service; credentials, region and endpoint come from the environment (AWS_…).

    Args:
        url: "s3://bucket/prefix".

    Raises: MissingExtra without obstore.
    """

    def __init__(self, url: str) -> None:
        try:
            import obstore
            from obstore.store import from_url
        except ModuleNotFoundError as error:
            raise MissingExtra("artifacts in object storage", extra="s3") from error
        plain = any(os.environ.get(name, "").startswith("http://") for name in ("AWS_ENDPOINT", "AWS_ENDPOINT_URL"))  # said by the owner, so meant
        self._lib, self._url = obstore, url
        with self._clear_errors():
            self._store: Any = from_url(
                url, client_options={"timeout": timedelta(seconds=TIMEOUT_S), "connect_timeout": timedelta(seconds=5), "allow_http": plain},
                retry_config={"max_retries": TRIES, "retry_timeout": timedelta(seconds=TIMEOUT_S)},
            )  # fmt: skip

    def has(self, key: str) -> bool:
        """See `Bucket.has`."""
        with self._clear_errors():
            try:
                self._lib.head(self._store, key)
            except FileNotFoundError:
                return False
            return True

    def put_new(self, key: str, source: bytes | Path) -> None:
        """See `Bucket.put_new`. One request, since only that can be made create-only: a file is in memory while it is sent."""
        with self._clear_errors(), contextlib.suppress(self._lib.exceptions.AlreadyExistsError):
            self._lib.put(self._store, key, source, mode="create")

    def get(self, key: str) -> Iterator[bytes]:
        """See `Bucket.get`."""
        with self._clear_errors():
            for piece in self._lib.get(self._store, key).stream(min_chunk_size=BLOCK):
                yield bytes(piece)

    def names(self, prefix: str) -> Iterator[str]:
        """See `Bucket.names`."""
        with self._clear_errors():
            for batch in self._lib.list(self._store, prefix):
                yield from (str(one["path"]) for one in batch)

    def remove(self, key: str) -> None:
        """See `Bucket.remove`. A bucket that keeps old versions keeps this one as well."""
        with self._clear_errors(), contextlib.suppress(FileNotFoundError):
            self._lib.delete(self._store, key)

    @contextlib.contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except self._lib.exceptions.BaseError as error:
            raise BucketAway(f"{self._url}: {str(error).splitlines()[0][:300]}", next_action=_UP) from error


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(BLOCK):
            yield piece

