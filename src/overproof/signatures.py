"""Signatures over release folders: keys that stay outside the project, and the keys that a project trusts."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import tomllib
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from overproof.errors import DataError, MissingExtra
from overproof.verify import (
    MEDIA,
    PAYLOAD,
    PREDICATE,
    SIGNATURE,
    STATEMENT,
    envelope,
    key_id,
    public_point,
    signed_files,
)
from overproof.whole import write_whole

TRUSTED = "trusted_keys.toml"
BUNDLE = "bundle/"
EMPTY = "# Public keys whose releases this project serves, promotes and exports. With this file here, no unsigned release is.\n"
MEND = f"mend {TRUSTED} by hand, or take the key in again with `overproof sign trust`"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrustedKey:
    """A public key, and for how long it is believed."""

    id: str
    """SHA-256 of the PEM."""
    person: str
    """Who holds the private half."""
    since: str
    """ISO date, the first day."""
    until: str
    """ISO date, the last day; empty for no end."""
    public: str
    """PEM."""

    def holds(self, day: date) -> bool:
        """Whether the key is believed on a day."""
        return self.since <= day.isoformat() and (not self.until or day.isoformat() <= self.until)


def make_key(path: Path, *, project: Path) -> str:
    """
    Make a private P-256 key (PKCS#8, mode 0600) and, beside it, its public half with the ending ".pub".

    Args:
        path: the new file; neither it nor PATH.pub may be there.
        project: the project's folder, which keys must stay out of.

    Returns: the public key in PEM.
    Raises: DataError for a path in the project or one that is taken; MissingExtra.
    """
    ec, serialization = _library()
    path = path.expanduser().absolute()
    if path.resolve().is_relative_to(project.resolve()):
        raise DataError(f"{str(path)!r} lies in the project", next_action="keep the private key elsewhere: whoever may write the project must not be able to sign it")
    public = path.with_name(f"{path.name}.pub")
    if path.exists() or path.is_symlink() or public.exists():
        raise DataError(f"{str(path)!r} or its .pub is there already", next_action="name a new file; keys are never overwritten")
    key = ec.generate_private_key(ec.SECP256R1())
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    pem = _public_of(key)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with os.fdopen(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.write(secret)
            file.flush()
            os.fsync(file.fileno())
        os.link(part, path)  # fails where somebody took the name meanwhile
    finally:
        part.unlink(missing_ok=True)
    write_whole(public, pem)
    return pem


def sign_folder(folder: Path, key: Path, *, name: str) -> bytes:
    """
    Sign every file of a folder: OpenSSF Model Signing v1, a sigstore bundle with a DSSE envelope.

    Args:
        folder: what is signed; `release.sig` in it is left out.
        key: a private P-256 key, PKCS#8, that only its owner may read.
        name: what the statement calls it.

    Returns: the signature file's bytes.
    Raises: DataError for a key of another kind or that others may read; MissingExtra.
    """
    from overproof.verify import files_of

    private = _private(key)
    try:
        found = sorted(files_of(str(folder)).items())
    except ValueError as error:
        raise DataError(str(error), next_action="sign plain files only") from error
    statement = {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": hashlib.sha256(b"".join(bytes.fromhex(d) for _, d in found)).hexdigest()}}],
        "predicateType": PREDICATE,
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": []},
            "resources": [{"name": path, "algorithm": "sha256", "digest": digest} for path, digest in found],
        },
    }
    payload = json.dumps(statement, separators=(",", ":"), ensure_ascii=False).encode()
    ec, _ = _library()
    from cryptography.hazmat.primitives.hashes import SHA256

    signature: bytes = private.sign(envelope(payload), ec.ECDSA(SHA256()))
    pem = _public_of(private)
    body = {
        "mediaType": MEDIA,
        "verificationMaterial": {"publicKey": {"hint": key_id(pem)}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(), "payloadType": PAYLOAD,
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
        },
    }  # fmt: skip
    raw = json.dumps(body, separators=(",", ":")).encode()
    signed_files(raw, pem)  # what can't be verified is not handed out
    return raw


def trusted_keys(root: Path) -> tuple[TrustedKey, ...] | None:
    """
    The keys that a project trusts.

    Args:
        root: the project's folder.

    Returns: the keys; None where `trusted_keys.toml` is not there, so that nobody asks for signatures.
    Raises: DataError for a file that is malformed or names no key: it never opens the door.
    """
    path = root / TRUSTED
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if path.is_symlink():
            raise DataError(f"{TRUSTED} is a link to nothing", next_action=MEND) from None
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{TRUSTED} can't be read: {error}", next_action=MEND) from error
    try:
        found = tuple(_trusted(one) for one in raw["key"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{TRUSTED} is malformed: {error}", next_action=MEND) from error
    if not found or set(raw) != {"key"}:
        raise DataError(f"{TRUSTED} must hold [[key]] tables and nothing else", next_action=MEND)
    return found


def _trusted(raw: dict[str, Any]) -> TrustedKey:
    if not set(raw) <= {"id", "person", "from", "until", "public"}:
        raise ValueError(f"a key has id, person, from, until and public, not {sorted(raw)!r}")
    public_point(raw["public"])
    days = [date.fromisoformat(str(raw[name])).isoformat() if raw.get(name) else "" for name in ("from", "until")]
    if raw["id"] != key_id(raw["public"]) or not str(raw["person"]).strip() or not days[0]:
        raise ValueError("a key needs the id of its own public half, a person and a first day")
    return TrustedKey(id=raw["id"], person=str(raw["person"]), since=days[0], until=days[1], public=raw["public"])


def trust_key(root: Path, public: Path, *, person: str, since: date, until: date | None = None) -> TrustedKey:
    """
    Take a public key into `trusted_keys.toml`; from then on only signed releases serve.

    Args:
        root: the project's folder.
        public: a PEM file.
        person: who holds the private half.
        since: the first day.
        until: the last day; None for no end.

    Returns: the key.
    Raises: DataError for a key that can't be read or is there already.
    """
    try:
        pem = public.read_text(encoding="ascii")
        public_point(pem)
    except (OSError, ValueError) as error:
        raise DataError(f"{str(public)!r}: {error}", next_action="give the .pub file that `overproof sign new-key` wrote") from error
    if not person.strip():
        raise DataError("a key is somebody's", next_action='say whose: --person "Your Name"')
    one = TrustedKey(id=key_id(pem), person=person.strip(), since=since.isoformat(), until=until.isoformat() if until else "", public=pem)
    if one.id in {known.id for known in trusted_keys(root) or ()}:
        raise DataError(f"key {one.id[:16]} is trusted already", next_action=f"edit its days in {TRUSTED}")
    path = root / TRUSTED
    before = path.read_text(encoding="utf-8") if path.exists() else EMPTY
    lines = [f"{name} = {json.dumps(value)}" for name, value in (("id", one.id), ("person", one.person), ("from", one.since), ("until", one.until)) if value]
    write_whole(path, "\n".join([before.rstrip("\n"), "", "[[key]]", *lines, f'public = """\n{pem}"""', ""]))
    return one


def check_signature(raw: bytes | None, trusted: tuple[TrustedKey, ...], day: date, *, what: str) -> dict[str, str]:
    """
    The files that a trusted key signed.

    Args:
        raw: the signature file; None where there is none.
        trusted: the keys to believe.
        day: on which they have to hold.
        what: the release, for messages.

    Returns: path to SHA-256.
    Raises: DataError where it is missing, of another key, or says nothing of these.
    """
    refused = "have it signed by a trusted key (`overproof sign release`); never serve it unsigned where signatures are asked for"
    if raw is None:
        raise DataError(f"{what} is not signed, and {TRUSTED} asks for it", next_action=refused)
    why = "no trusted key holds today"
    for key in trusted:
        if key.holds(day):
            try:
                return signed_files(raw, key.public)
            except ValueError as error:
                why = str(error)
    raise DataError(f"the signature of {what} is none of a trusted key: {why}", next_action=refused)


def signer(raw: bytes, trusted: tuple[TrustedKey, ...]) -> TrustedKey | None:
    """
    Whose signature it is.

    Args:
        raw: the signature file, checked.
        trusted: the keys.

    Returns: the key that its hint names; None for none of these.
    """
    hint = str(json.loads(raw)["verificationMaterial"]["publicKey"]["hint"])
    return next((key for key in trusted if key.id == hint), None)


def check_bundle(folder: Path, signed: dict[str, str], *, what: str) -> None:
    """
    Compare a bundle's files with those that were signed under `bundle/`.

    Args:
        folder: the bundle.
        signed: see `check_signature`.
        what: the release, for messages.

    Raises: DataError.
    """
    from overproof.verify import compare, files_of

    try:
        found = {f"{BUNDLE}{name}": digest for name, digest in files_of(str(folder)).items()}
        if (folder / SIGNATURE).exists():
            found[f"{BUNDLE}{SIGNATURE}"] = ""  # left out of a release folder's files; a bundle has none
        compare(found, {name: digest for name, digest in signed.items() if name.startswith(BUNDLE)})
    except (OSError, ValueError) as error:
        raise DataError(f"{what} is not the one that was signed: {error}", next_action="fetch it again from where it was released, or sign this one") from error


def signed_as(raw: bytes, folder: Path) -> None:
    """
    Compare a release folder with what its signature says it is over; whose signature that is has been looked at before.

    Args:
        raw: the signature file.
        folder: the release folder, papers included.

    Raises: DataError.
    """
    from overproof.verify import compare, files_of, resources

    try:
        compare(files_of(str(folder)), resources(base64.b64decode(json.loads(raw)["dsseEnvelope"]["payload"])))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"the signature is over another folder than this one: {error}", next_action="sign it again with `overproof sign release`") from error


def _private(path: Path) -> Any:
    ec, serialization = _library()
    if path.is_file() and path.stat().st_mode & 0o077:
        raise DataError(f"{str(path)!r} may be read by others than its owner", next_action=f"chmod 600 {path}, and think about who may have read it")
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{str(path)!r} is no private key that can be read: {error}", next_action="give one that `overproof sign new-key` made") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise DataError(f"{str(path)!r} is no P-256 key", next_action="give one that `overproof sign new-key` made")
    return key


def _public_of(key: Any) -> str:
    _, serialization = _library()
    pem: bytes = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return pem.decode("ascii")


def _library() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise MissingExtra("signing a release", extra="sign") from error
    return ec, serialization
