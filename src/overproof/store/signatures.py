"""Signatures of releases in the store, and the word on whether a release may be believed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from overproof.signatures import TRUSTED, check_bundle, check_signature, signer, trusted_keys
from overproof.store.local import Db

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
    One signature for each signed release, where the releases are: machines that share those share these.

    Args:
        root: the project's folder, which holds `trusted_keys.toml` where signatures are asked for.
        home: the store's folder; earlier versions kept a file for each signature there.
        db: gives the open `project.db`.
    """

    def __init__(self, root: Path, home: Path, db: Callable[[], Db]) -> None:
        self._root, self._folder, self._db = root, home / FOLDER, db

    def put(self, release_id: str, raw: bytes) -> None:
        """Keep a release's signature; an earlier one is replaced."""
        with self._db().write() as connection:
            connection.execute("INSERT INTO signature VALUES(?, ?) ON CONFLICT(release_id) DO UPDATE SET raw=excluded.raw", (release_id, raw))

    def get(self, release_id: str) -> bytes | None:
        """The signature of a release; None where it has none."""
        found = self._db().rows("SELECT raw FROM signature WHERE release_id=?", (release_id,))
        if not found and any(path.stem == release_id for path in self._folder.glob("*.sig")):
            self.take_in()
            return self.get(release_id)
        return bytes(found[0][0]) if found else None

    def take_in(self) -> int:
        """Take signatures that lie in files into the store; returns how many."""
        paths = sorted(self._folder.glob("*.sig"))
        for path in paths:
            if not self._db().rows("SELECT 1 FROM signature WHERE release_id=?", (path.stem,)):
                self.put(path.stem, path.read_bytes())
            path.unlink()
        return len(paths)

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
