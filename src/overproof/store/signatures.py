"""Signatures of releases beside the store, and the word on whether a release may be believed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from overproof.errors import StoreError
from overproof.signatures import TRUSTED, check_bundle, check_signature, signer, trusted_keys

FOLDER, MANIFEST = "signatures", "bundle/manifest.json"
UNSIGNED = f"not signed: there is no {TRUSTED}, so nobody asks for it"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sealing:
    """How far a bundle may be believed."""

    words: str
    """Who signed it, or that nobody asks."""
    manifest: str
    """SHA-256 of the signed `manifest.json`, which pins every file of the bundle; empty where nobody asks."""


class Signatures:
    """
    One file for each signed release.

    Args:
        root: the project's folder, which holds `trusted_keys.toml` where signatures are asked for.
        home: the store's folder.
    """

    def __init__(self, root: Path, home: Path) -> None:
        self._root, self._folder = root, home / FOLDER

    def put(self, release_id: str, raw: bytes) -> None:
        """Keep a release's signature, whole; an earlier one is replaced."""
        self._folder.mkdir(exist_ok=True)
        path = self._path(release_id)
        part = path.with_suffix(f".{os.getpid()}.part")
        try:
            with part.open("wb") as file:
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def get(self, release_id: str) -> bytes | None:
        """The signature of a release; None where it has none."""
        try:
            return self._path(release_id).read_bytes()
        except FileNotFoundError:
            return None

    def check(self, release_id: str, bundle: Path, *, day: date | None = None) -> Sealing:
        """
        Refuse a bundle that no trusted key has signed, where the project trusts any.

        Args:
            release_id: of the release.
            bundle: its folder.
            day: on which the key has to hold; today where None.

        Returns: who signed it, and what to pin.
        Raises: DataError where a trusted key is configured and none of them signed exactly these files.
        """
        trusted = trusted_keys(self._root)
        if trusted is None:
            return Sealing(words=UNSIGNED, manifest="")
        raw, what = self.get(release_id), f"release {release_id!r}"
        signed = check_signature(raw, trusted, day or datetime.now(UTC).date(), what=what)
        check_bundle(bundle, signed, what=what)
        who = signer(raw or b"", trusted)
        return Sealing(words=f"signed by {who.person}" if who else "signed", manifest=signed[MANIFEST])

    def _path(self, release_id: str) -> Path:
        if not release_id.replace("-", "").replace("_", "").replace(".", "").isalnum() or release_id.startswith("."):
            raise StoreError(f"release {release_id!r} has no name for a file", next_action="run `overproof status` for the releases that there are")
        return self._folder / f"{release_id}.sig"
