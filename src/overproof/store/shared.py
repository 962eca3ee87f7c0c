"""The bucket's end of an erasure: what other machines put there is read, and what has to go is removed for good."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from overproof.store.bucket import BucketAway
from overproof.store.objects import Objects, made_by


class Shared:
    """
    The shared files of a store; does nothing where it has none.

    Args:
        objects: of the store.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects, self._bucket = objects, objects.bucket

    def bring_records(self) -> None:
        """
        Bring the records of steps that other machines made: they say what was asked, and what was made of it.

        Raises: BucketAway, also where it is empty though there is something to share.
        """
        if self._bucket is None:
            return
        self._objects.learn()
        here = self._objects.records()
        there = list(self._bucket.names("steps/"))
        if here and not there:  # a disk that is not mounted is an empty folder
            raise BucketAway(
                "what is shared can't be seen: there is nothing where [objects] points to, and records of steps are here; nothing was erased",
                next_action="mount or reach it and run again; where nothing was ever shared, run `overproof store push` first or take [objects] out of store.toml",
            )
        for key in there:
            self._objects.noted(self._objects.home / key)

    def keys(self) -> Iterator[str]:
        """Every object there, with what a kill left half written."""
        if self._bucket is not None:
            yield from self._bucket.names("objects/")

    def is_here(self, key: str) -> bool:
        """Whether this machine has the same object: it is read here then."""
        return (self._objects.home / key).is_file()

    def blocks(self, key: str) -> Iterator[bytes]:
        """An object in pieces; none for one that went meanwhile."""
        assert self._bucket is not None
        try:
            yield from self._bucket.get(key)
        except FileNotFoundError:
            return

    def remove(self, digests: Collection[str], keys: Collection[str] = ()) -> None:
        """
        Remove values and folders there, records that name them first; the rest is found again after a kill.

        Args:
            digests: of values and folders.
            keys: of single objects.

        Raises: BucketAway.
        """
        if self._bucket is None:
            return
        gone = set(digests)
        for path, row in self._objects.records().items():
            if gone & made_by(row):
                self._bucket.remove(path.relative_to(self._objects.home).as_posix())
        for digest in sorted(gone):
            place = f"objects/{digest[:2]}/{digest}"
            for key in (f"{place}.tree", f"{place}.value", *self._bucket.names(f"{place}/")):
                self._bucket.remove(key)
        for key in keys:
            self._bucket.remove(key)
