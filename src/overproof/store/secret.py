"""The project's secret: what makes surrogates that nobody outside can turn back."""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
from pathlib import Path

from overproof.errors import CorruptArtifact, DataError, StoreError
from overproof.store.decisions import decide_on
from overproof.store.local import Db

NAME = "surrogates.key"
LENGTH = 32
VARIABLE = "OVERPROOF_SURROGATES_KEY"
"""Environment variable that gives the secret in place of the file: 64 hexadecimal digits."""
KIND = "secret"
"""Of the decision that a new one leaves."""


def agreed_secret(home: Path, db: Db) -> bytes:
    """
    The secret, from the environment or the file, where it is the one that the store was written with.

    Rows that two machines write under two secrets would have two surrogates for one person, and an erasure would know half of them.

    Args:
        home: the `.overproof` folder.
        db: the open `project.db`; it keeps a fingerprint, which tells nobody the secret.

    Returns: 32 bytes; made, with their fingerprint, where the store has none yet.
    Raises: StoreError for another secret than the store's, or none where it has one; DataError for a variable that holds no secret.
    """
    known = db.rows("SELECT fingerprint FROM secret WHERE name=?", (NAME,))
    given = os.environ.get(VARIABLE, "")
    if not given and known and not (home / NAME).exists():
        raise StoreError(f"{NAME} is not here, and the store was written with one ({known[0][0]})", next_action=_BRING)
    secret = _of_environment(given) if given else project_secret(home)
    mark = fingerprint(secret)
    if not known:
        with db.write() as connection:
            connection.execute("INSERT INTO secret VALUES(?, ?) ON CONFLICT DO NOTHING", (NAME, mark))
        known = db.rows("SELECT fingerprint FROM secret WHERE name=?", (NAME,))
    if known[0][0] != mark:
        where = VARIABLE if given else NAME
        raise StoreError(f"{where} is another secret ({mark}) than the one that the store was written with ({known[0][0]}); nothing was written under it", next_action=_BRING)
    return secret


def new_secret(home: Path, db: Db, *, by: str, why: str) -> str:
    """
    Begin anew with another secret: known people get other surrogates, and rows that were erased are not known again.

    Args:
        home: the `.overproof` folder.
        db: the open `project.db`.
        by: who decides.
        why: for the log of decisions.

    Returns: the new secret's fingerprint.
    Raises: DataError where the secret comes from the environment.
    """
    if os.environ.get(VARIABLE):
        raise DataError(f"the secret comes from {VARIABLE}", next_action="unset it first; give the new file's digits there afterwards")
    with db.write() as connection:  # first: after a kill the file that is left is the secret that counts
        connection.execute("DELETE FROM secret WHERE name=?", (NAME,))
    with contextlib.suppress(FileNotFoundError):
        (home / NAME).unlink()
    mark = fingerprint(agreed_secret(home, db))
    with db.write() as connection:
        decide_on(connection, KIND, actor=by, subject=mark, body={"why": why})
    return mark


def fingerprint(secret: bytes) -> str:
    """
    What tells two secrets apart.

    Args:
        secret: 32 random bytes, so that the hash tells nobody which.

    Returns: 16 hexadecimal digits.
    """
    return hmac.digest(secret, b"overproof fingerprint", "sha256").hex()[:16]


def _of_environment(given: str) -> bytes:
    try:
        secret = bytes.fromhex(given.strip())
    except ValueError:
        secret = b""
    if len(secret) != LENGTH:
        raise DataError(f"{VARIABLE} doesn't hold {2 * LENGTH} hexadecimal digits", next_action=f"give what `xxd -p -c 64 .overproof/{NAME}` prints on a machine that has it")
    return secret


_BRING = (
    f"copy .overproof/{NAME} from a machine that has the right one, or give it in {VARIABLE}; where it was given up on purpose: "
    "`overproof store new-secret --by NAME --why TEXT`"
)


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
