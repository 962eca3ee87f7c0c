#!/usr/bin/env python3
"""
Check a signed release folder, with nothing but Python 3.9 or newer.

python verify.py [FOLDER] --key PUBLIC.pem [--signature FILE] [--at YYYY-MM-DD]

The folder is the one that this file lies in where none is given. Take this file, and the public key, from a place that
you trust: a copy that came with a forged release would say whatever its maker likes. Exit code: 0 all is as it was
signed and still valid, 1 something is not, 2 something can't be read.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hashlib
import json
import os
import re
import stat
import sys
from datetime import datetime, timezone
from typing import Any

SIGNATURE = "release.sig"
MEDIA = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://model_signing/signature/v1.0"
MOST_BYTES = 4 * 2**20
WORDS = ("pass", "fail", "waived", "not-run")
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"

# NIST P-256: y^2 = x^3 - 3x + b over the field of P elements, base point of order N
P = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
    1,
)
SPKI = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")  # "a point of P-256 follows"


def public_point(pem: str) -> tuple[int, int, int]:
    """The point of a public key; ValueError for anything but an uncompressed one on P-256."""
    body = re.fullmatch(r"-----BEGIN PUBLIC KEY-----\n([A-Za-z0-9+/=\n]+)\n-----END PUBLIC KEY-----\n?", pem)
    raw = base64.b64decode(body.group(1).replace("\n", ""), validate=True) if body else b""
    x, y = int.from_bytes(raw[27:59], "big"), int.from_bytes(raw[59:], "big")
    if len(raw) != 91 or raw[:26] != SPKI or raw[26] != 4 or max(x, y) >= P or (y * y - (x * x - 3) * x - B) % P:
        raise ValueError("the key is no public P-256 key in PEM")
    return x, y, 1


def key_id(pem: str) -> str:
    """SHA-256 of the PEM, as the signature's hint has it."""
    return hashlib.sha256(pem.encode()).hexdigest()


def _double(a: tuple[int, int, int]) -> tuple[int, int, int]:
    x, y, z = a
    if not y or not z:
        return 0, 1, 0
    yy, zz = y * y % P, z * z % P
    s, m = 4 * x * yy % P, 3 * (x - zz) * (x + zz) % P
    x3 = (m * m - 2 * s) % P
    return x3, (m * (s - x3) - 8 * yy * yy) % P, 2 * y * z % P


def _add(a: tuple[int, int, int], b: tuple[int, int, int]) -> tuple[int, int, int]:
    if not a[2] or not b[2]:
        return b if not a[2] else a
    aa, bb = a[2] * a[2] % P, b[2] * b[2] % P
    u1, u2, s1, s2 = a[0] * bb % P, b[0] * aa % P, a[1] * bb * b[2] % P, b[1] * aa * a[2] % P
    if u1 == u2:
        return _double(a) if s1 == s2 else (0, 1, 0)
    h, r = (u2 - u1) % P, (s2 - s1) % P
    hh = h * h % P
    hhh, v = h * hh % P, u1 * hh % P
    x3 = (r * r - hhh - 2 * v) % P
    return x3, (r * (v - x3) - s1 * hhh) % P, h * a[2] * b[2] % P


def ecdsa_holds(pem: str, signature: bytes, message: bytes) -> bool:
    """Whether an ECDSA P-256 / SHA-256 signature (DER) is that key's over the message."""
    point, parts = public_point(pem), _der(signature)
    if parts is None or not all(0 < one < N for one in parts):
        return False
    r, s = parts
    w = pow(s, -1, N)
    one, two = int.from_bytes(hashlib.sha256(message).digest(), "big") * w % N, r * w % N
    both, found = _add(G, point), (0, 1, 0)
    for bit in range(255, -1, -1):
        found = _double(found)
        take = (one >> bit & 1, two >> bit & 1)
        if take != (0, 0):
            found = _add(found, both if take == (1, 1) else G if take[0] else point)
    if not found[2]:
        return False
    inverse = pow(found[2], -1, P)
    return found[0] * inverse * inverse % P % N == r


def _der(raw: bytes) -> list[int] | None:
    """The two numbers of a signature, in the one way that DER allows."""
    if len(raw) < 8 or raw[0] != 0x30 or raw[1] != len(raw) - 2 or raw[1] > 127:
        return None
    found, at = [], 2
    while at + 2 <= len(raw):
        size = raw[at + 1]
        body = raw[at + 2 : at + 2 + size]
        if raw[at] != 2 or not body or len(body) != size or body[0] > 127 or (size > 1 and body[0] == 0 and body[1] < 128):
            return None
        found.append(int.from_bytes(body, "big"))
        at += 2 + size
    return found if at == len(raw) and len(found) == 2 else None


def envelope(payload: bytes) -> bytes:
    """What is signed: DSSE's encoding of type and payload."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD), PAYLOAD.encode(), len(payload), payload)


def signed_files(raw: bytes, pem: str) -> dict[str, str]:
    """Path to SHA-256 of every signed file; ValueError unless this key signed them."""
    try:
        bundle = json.loads(raw)
        material, dsse = bundle["verificationMaterial"], bundle["dsseEnvelope"]
        (one,) = dsse["signatures"]
        payload, signature = (base64.b64decode(text, validate=True) for text in (dsse["payload"], one["sig"]))
        same = base64.b64encode(payload).decode() == dsse["payload"] and base64.b64encode(signature).decode() == one["sig"]
        known = set(bundle) == {"mediaType", "verificationMaterial", "dsseEnvelope"} and set(material) <= {"publicKey", "tlogEntries"}
        known = known and set(dsse) == {"payload", "payloadType", "signatures"} and set(one) <= {"sig", "keyid"}
        hint = set(material["publicKey"]) == {"hint"} and material["publicKey"]["hint"] == key_id(pem)
        types = bundle["mediaType"] == MEDIA and dsse["payloadType"] == PAYLOAD and not one.get("keyid") and not material.get("tlogEntries")
    except (KeyError, TypeError, ValueError, RecursionError, binascii.Error) as error:
        raise ValueError("the signature can't be read: %s" % error) from error
    if not (same and known and hint and types):
        raise ValueError("the signature is of another kind, or of another key than the one given")
    if not ecdsa_holds(pem, signature, envelope(payload)):
        raise ValueError("the signature is not this key's over this statement")
    return resources(payload)


def resources(payload: bytes) -> dict[str, str]:
    """Path to SHA-256 of every file that a statement names; ValueError for any other kind of statement."""
    try:
        statement = json.loads(payload)
        predicate, (subject,) = statement["predicate"], statement["subject"]
        how, listed = predicate["serialization"], predicate["resources"]
        found = {one["name"]: one["digest"] for one in listed}
        sums = b"".join(bytes.fromhex(one["digest"]) for one in listed)
        fits = statement["_type"] == STATEMENT and statement["predicateType"] == PREDICATE and how["method"] == "files"
        fits = fits and how["hash_type"] == "sha256" and not how["allow_symlinks"] and all(one["algorithm"] == "sha256" for one in listed)
        fits = fits and len(found) == len(listed)  # a list of ignored paths may be there: here nothing is ignored
        fits = fits and subject["digest"]["sha256"] == hashlib.sha256(sums).hexdigest()
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError("the statement can't be read: %s" % error) from error
    if not fits:
        raise ValueError("the statement is not one over whole files by SHA-256")
    return found


def files_of(folder: str) -> dict[str, str]:
    """Path to SHA-256 of every file under a folder, but for the signature; ValueError for links and what is no file."""
    found, pending = {}, [folder]
    while pending:
        for entry in os.scandir(pending.pop()):
            mode, path = entry.stat(follow_symlinks=False).st_mode, os.path.relpath(entry.path, folder).replace(os.sep, "/")
            if stat.S_ISDIR(mode):
                pending.append(entry.path)
            elif not stat.S_ISREG(mode):
                raise ValueError("%r is a link or no plain file" % path)
            elif path != SIGNATURE:
                found[path] = file_sha256(entry.path)
    return found


def file_sha256(path: str) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def compare(found: dict[str, str], signed: dict[str, str]) -> None:
    """ValueError unless both are the same files with the same content."""
    for what, names in (("not signed", set(found) - set(signed)), ("missing", set(signed) - set(found))):
        if names:
            raise ValueError("files %s: %s" % (what, ", ".join(sorted(names)[:3])))
    changed = sorted(name for name in found if found[name] != signed[name])
    if changed:
        raise ValueError("changed since it was signed: %s" % ", ".join(changed[:3]))


def figure_rows(dossier: dict[str, Any]) -> list[str]:
    """The rows of the model card's table of figures, from the dossier alone: every figure with n and its interval."""
    report, rows = dossier["evidence"].get("report"), []
    for one in (report or {}).get("candidates", []):
        for where in one["slices"] if one["name"] == report["chosen"] else []:
            for name in ("accuracy", "fidelity", "served_accuracy", "served_fidelity", "kept"):
                f = where.get(name)
                if f:
                    value, bar = ("-" if f[key] is None else "%.4f" % f[key] for key in ("value", "bar"))
                    mark = " (critical)" if where["critical"] else ""
                    slice_name = str(where["slice"]).replace("|", "/").replace("\n", " ")
                    cells = (slice_name + mark, name, value, "%.4f-%.4f" % (f["low"], f["high"]), "%g" % f["level"], f["method"], f["n"], bar, f["verdict"] or "-")
                    rows.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return rows


def read_json(folder: str, name: str) -> Any:
    """A JSON file of bounded size."""
    path = os.path.join(folder, name)
    if os.path.getsize(path) > 16 * MOST_BYTES:
        raise ValueError("%s is too large" % name)
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def check_manifest(folder: str, signed: dict[str, str]) -> None:
    """The bundle's own manifest lists exactly what was signed."""
    listed = {"bundle/" + one["path"]: one["sha256"] for one in read_json(folder, "bundle/manifest.json")}
    compare(listed, {name: value for name, value in signed.items() if name.startswith("bundle/") and name != "bundle/manifest.json"})


def check_findings(dossier: dict[str, Any], day: str) -> None:
    """A release, every finding passed, or waived by a waiver that still runs."""
    findings = dossier["decision"]["findings"]
    if dossier["verdict"] != "release" or not findings:
        raise ValueError("the dossier is not that of a release")
    for one in findings:
        word, until = one["outcome"], (one.get("waiver") or {}).get("until", "")
        if word not in WORDS or word in ("fail", "not-run") or (word == "waived" and until < day):
            raise ValueError("%s %r is %s on %s" % (one["id"], one["title"], word if word != "waived" else "waived no longer", day))


def check_card(folder: str, dossier: dict[str, Any]) -> None:
    """The card's figures are the dossier's, row by row."""
    with open(os.path.join(folder, "MODEL_CARD.md"), encoding="utf-8") as file:
        body = file.read().split(BEGIN)[1].split(END)[0]
    rows = [line for line in body.splitlines() if line.startswith("| ") and not line.startswith("| Slice |")]
    if rows != figure_rows(dossier) or not rows:
        raise ValueError("the model card has other figures than the dossier")


def check_days(folder: str, dossier: dict[str, Any], day: str) -> None:
    """Review and certificate have not run out."""
    for what, last in (("the owner's review", dossier["decision"]["review_due"]), ("the certificate", read_json(folder, "bundle/release.json")["expires"])):
        if last < day:
            raise ValueError("%s ran out on %s" % (what, last))


def main(given: list[str]) -> int:
    """Run all checks; print one line each."""
    parser = argparse.ArgumentParser(description="Check a signed release folder.")
    parser.add_argument("folder", nargs="?", default=os.path.dirname(os.path.abspath(__file__)))
    parser.add_argument("--key", required=True, help="the signer's public key, from a place that you trust")
    parser.add_argument("--signature", help="release.sig in the folder where absent")
    parser.add_argument("--at", default=datetime.now(timezone.utc).date().isoformat(), help="the day to check for")
    asked = parser.parse_args(given)
    folder, day = asked.folder, asked.at
    try:
        with open(asked.key, encoding="ascii") as file:
            pem = file.read()
        with open(asked.signature or os.path.join(folder, SIGNATURE), "rb") as raw:
            signature = raw.read(MOST_BYTES)
        public_point(pem)
    except (OSError, ValueError) as error:
        print("can't be read: %s" % error)
        return 2
    try:
        signed = signed_files(signature, pem)
        print("ok      the signature is that of key %s" % key_id(pem)[:16])
        compare(files_of(folder), signed)
        print("ok      all %d files are as they were signed, none is missing, none is extra" % len(signed))
        dossier = read_json(folder, "dossier.json")
        check_manifest(folder, signed)
        check_findings(dossier, day)
        print("ok      a release; no check failed or was left out")
        check_card(folder, dossier)
        print("ok      the model card's figures are the dossier's")
        check_days(folder, dossier, day)
        print("ok      review and certificate hold on %s" % day)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        print("REFUSED %s" % (error if isinstance(error, ValueError) else "%s: %s" % (type(error).__name__, error)))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
