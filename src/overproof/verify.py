#!/usr/bin/env python3
"""
Check a signed release folder, with nothing but Python 3.9 or newer.

python verify.py [FOLDER] --key PUBLIC.pem [--signature FILE] [--at YYYY-MM-DD]

FOLDER is where this file lies, if not given. Take this file and the key from a place that you trust: a copy that came with
a forged release would say whatever its maker likes. Exit code: 0 all as signed and still valid, 1 not so, 2 can't be read.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import re
import stat
import sys
from datetime import datetime, timezone
from typing import Any, Iterator, Optional, Tuple

SIGNATURE, DECISIONS, PAYLOAD = "release.sig", "decisions.jsonl", "application/vnd.in-toto+json"
MEDIA = "application/vnd.dev.sigstore.bundle.v0.3+json"
STATEMENT, PREDICATE = "https://in-toto.io/Statement/v1", "https://model_signing/signature/v1.0"
MOST_BYTES = 4 * 2**20
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
KEYS = {"seq": int, "at": str, "kind": str, "actor": str, "subject": str, "body_sha256": str, "prev": str}

# NIST P-256: y^2 = x^3 - 3x + b over the field of P elements, base point G of order N; None is the point at infinity
P = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
G = (0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296, 0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5)
SPKI = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")  # "a point of P-256 follows"
Point = Optional[Tuple[int, int]]


def public_point(pem: str) -> Point:
    """The point of a public key; ValueError for anything but an uncompressed one on P-256."""
    body = re.fullmatch(r"-----BEGIN PUBLIC KEY-----\n([A-Za-z0-9+/=\n]+)\n-----END PUBLIC KEY-----\n?", pem)
    raw = base64.b64decode(body.group(1).replace("\n", ""), validate=True) if body else b""
    x, y = int.from_bytes(raw[27:59], "big"), int.from_bytes(raw[59:], "big")
    if len(raw) != 91 or raw[:26] != SPKI or raw[26] != 4 or max(x, y) >= P or (y * y - (x * x - 3) * x - B) % P:
        raise ValueError("the key is no public P-256 key in PEM")
    return x, y


def key_id(pem: str) -> str:
    """SHA-256 of the PEM, as the signature's hint has it."""
    return hashlib.sha256(pem.encode()).hexdigest()


def _add(a: Point, b: Point) -> Point:
    if a is None or b is None:
        return b if a is None else a
    if a[0] == b[0] and (a[1] + b[1]) % P == 0:
        return None
    over, under = (3 * (a[0] * a[0] - 1), 2 * a[1]) if a == b else (b[1] - a[1], b[0] - a[0])
    slope = over * pow(under, -1, P) % P
    x = (slope * slope - a[0] - b[0]) % P
    return x, (slope * (a[0] - x) - a[1]) % P


def ecdsa_holds(pem: str, signature: bytes, message: bytes) -> bool:
    """Whether an ECDSA P-256 / SHA-256 signature (DER) is that key's over the message."""
    point, parts = public_point(pem), _der(signature)
    if parts is None or not all(0 < one < N for one in parts):
        return False
    r, w = parts[0], pow(parts[1], -1, N)
    one, two = int.from_bytes(hashlib.sha256(message).digest(), "big") * w % N, r * w % N
    take: Tuple[Point, ...] = (None, G, point, _add(G, point))
    found: Point = None
    for bit in range(255, -1, -1):
        found = _add(_add(found, found), take[(one >> bit & 1) + 2 * (two >> bit & 1)])
    return found is not None and found[0] % N == r


def _der(raw: bytes) -> list[int] | None:
    """The two numbers of a signature, in the one way that DER allows: read, then written again."""
    cut = 4 + int.from_bytes(raw[3:4], "big")
    found = [int.from_bytes(part, "big") for part in (raw[4:cut], raw[cut + 2 :])]
    parts = [one.to_bytes(one.bit_length() // 8 + 1, "big") for one in found]
    body = b"".join(bytes((2, len(part))) + part for part in parts) if len(raw) <= 72 else b""
    return found if raw == bytes((0x30, len(body))) + body else None


def envelope(payload: bytes) -> bytes:
    """What is signed: DSSE's encoding of type and payload."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD), PAYLOAD.encode(), len(payload), payload)


def signed_files(raw: bytes, pem: str) -> dict[str, str]:
    """Path to SHA-256 of every signed file; ValueError unless this key signed them."""
    try:
        bundle = json.loads(raw)
        (one,) = bundle["dsseEnvelope"]["signatures"]
        payload, signature = (base64.b64decode(text, validate=True) for text in (bundle["dsseEnvelope"]["payload"], one["sig"]))
        one["keyid"] = one.get("keyid") or ""  # these two may be left out, or be empty, and nothing else
        bundle["verificationMaterial"]["tlogEntries"] = bundle["verificationMaterial"].get("tlogEntries") or []
        dsse = {"payload": base64.b64encode(payload).decode(), "payloadType": PAYLOAD, "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}]}
        known = {"mediaType": MEDIA, "verificationMaterial": {"publicKey": {"hint": key_id(pem)}, "tlogEntries": []}, "dsseEnvelope": dsse}
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError("the signature can't be read: %s" % error) from error
    if bundle != known:
        raise ValueError("the signature is of another kind, or of another key than the one given")
    if not ecdsa_holds(pem, signature, envelope(payload)):
        raise ValueError("the signature is not this key's over this statement")
    return resources(payload)


def resources(payload: bytes) -> dict[str, str]:
    """Path to SHA-256 of every file that a statement names; ValueError for any other kind of statement."""
    try:
        statement = json.loads(payload)
        (subject,), how, listed = statement["subject"], statement["predicate"]["serialization"], statement["predicate"]["resources"]
        found = {one["name"]: one["digest"] for one in listed if one["algorithm"] == "sha256"}
        digest = hashlib.sha256(b"".join(bytes.fromhex(one["digest"]) for one in listed)).hexdigest()
        fits = (statement["_type"], statement["predicateType"], how["method"], how["hash_type"]) == (STATEMENT, PREDICATE, "files", "sha256")
        fits = fits and not how["allow_symlinks"] and len(found) == len(listed) and subject["digest"]["sha256"] == digest  # nothing is ignored here
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError("the statement can't be read: %s" % error) from error
    if fits:
        return found
    raise ValueError("the statement is not one over whole files by SHA-256")


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
                digest = hashlib.sha256()
                with open(entry.path, "rb") as file:
                    while block := file.read(1 << 20):
                        digest.update(block)
                found[path] = digest.hexdigest()
    return found


def compare(found: dict[str, str], signed: dict[str, str]) -> None:
    """ValueError unless both are the same files with the same content."""
    changed = {name for name in found if found[name] != signed.get(name)}
    for what, names in (("not signed", set(found) - set(signed)), ("missing", set(signed) - set(found)), ("changed since they were signed", changed)):
        if names:
            raise ValueError("files %s: %s" % (what, ", ".join(sorted(names)[:3])))


def figure_rows(dossier: dict[str, Any]) -> list[str]:
    """The rows of the model card's table of figures, from the dossier alone: every figure with n and its interval."""
    report, rows = dossier["evidence"].get("report"), []
    for one in (report or {}).get("candidates", []):
        for where in one["slices"] if one["name"] == report["chosen"] else []:
            for name in ("accuracy", "fidelity", "served_accuracy", "served_fidelity", "kept"):
                if f := where.get(name):
                    value, bar = ("-" if f[key] is None else "%.4f" % f[key] for key in ("value", "bar"))
                    where_name = str(where["slice"]).replace("|", "/").replace("\n", " ") + (" (critical)" if where["critical"] else "")
                    cells = (where_name, name, value, "%.4f-%.4f" % (f["low"], f["high"]), "%g" % f["level"], f["method"], f["n"], bar, f["verdict"] or "-")
                    rows.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return rows


def read(folder: str, name: str) -> bytes:
    """The bytes of a file of bounded size."""
    if os.path.getsize(os.path.join(folder, name)) > 16 * MOST_BYTES:
        raise ValueError("%s is too large" % name)
    with open(os.path.join(folder, name), "rb") as file:
        return file.read()


def check_decisions(folder: str, dossier: dict[str, Any]) -> int:
    """How many decisions there are: each line names the SHA-256 of the line before, the dossier that of the last one."""
    (*lines, rest), prev, seq, at = read(folder, DECISIONS).split(b"\n"), "", 0, ""
    for number, line in enumerate(lines, 1):
        try:
            one = json.loads(line.decode("utf-8"))
            fits = {name: type(value) for name, value in one.items()} == KEYS and one["seq"] > seq and one["at"] >= at
        except (AttributeError, ValueError, RecursionError):
            fits = False
        if not fits:
            raise ValueError("line %d of %s is no decision, or not in its order" % (number, DECISIONS))
        if one["prev"] != prev:
            raise ValueError("line %d of %s doesn't follow from %s: one was changed or moved, or some are gone" % (number, DECISIONS, "line %d" % (number - 1) if number > 1 else "the start"))
        prev, seq, at = hashlib.sha256(line).hexdigest(), one["seq"], one["at"]
    if rest or not lines or dossier["decisions"] != {"head": prev, "n": len(lines)}:
        raise ValueError("line %d, the last of %s, is not the last decision that the dossier names" % (len(lines) + bool(rest), DECISIONS))
    return len(lines)


def checked(folder: str, signature: bytes, pem: str, day: str) -> Iterator[str]:
    """Each check in turn: what it found to be so; ValueError for the first that finds otherwise."""
    signed = signed_files(signature, pem)
    yield "the signature is that of key %s" % key_id(pem)[:16]
    compare(files_of(folder), signed)
    listed = {"bundle/" + one["path"]: one["sha256"] for one in json.loads(read(folder, "bundle/manifest.json"))}
    compare(listed, {name: value for name, value in signed.items() if name.startswith("bundle/") and name != "bundle/manifest.json"})
    yield "all %d files are as they were signed, none is missing, none is extra" % len(signed)
    dossier = json.loads(read(folder, "dossier.json"))
    if dossier["verdict"] != "release" or not dossier["decision"]["findings"]:
        raise ValueError("the dossier is not that of a release")
    for one in dossier["decision"]["findings"]:
        word, until = one["outcome"], (one.get("waiver") or {}).get("until", "")
        if word not in ("pass", "waived") or (word == "waived" and until < day):
            raise ValueError("%s %r is %s on %s" % (one["id"], one["title"], word if word != "waived" else "waived no longer", day))
    yield "a release; no check failed or was left out"
    yield "the %d decisions follow from one another, up to the last one that the dossier names" % check_decisions(folder, dossier)
    table = read(folder, "MODEL_CARD.md").decode("utf-8").split(BEGIN)[1].split(END)[0]
    rows = [line for line in table.splitlines() if line.startswith("| ") and not line.startswith("| Slice |")]
    if rows != figure_rows(dossier) or not rows:
        raise ValueError("the model card has other figures than the dossier")
    yield "the model card's figures are the dossier's"
    for what, last in (("the owner's review", dossier["decision"]["review_due"]), ("the certificate", json.loads(read(folder, "bundle/release.json"))["expires"])):
        if last < day:
            raise ValueError("%s ran out on %s" % (what, last))
    yield "review and certificate hold on %s" % day


def main(given: list[str]) -> int:
    """Run all checks; print one line each."""
    parser = argparse.ArgumentParser(description="Check a signed release folder.")
    parser.add_argument("folder", nargs="?", default=os.path.dirname(os.path.abspath(__file__)))
    parser.add_argument("--key", required=True, help="the signer's public key, from a place that you trust")
    parser.add_argument("--signature", help="release.sig in the folder where absent")
    parser.add_argument("--at", default=datetime.now(timezone.utc).date().isoformat(), help="the day to check for")
    asked = parser.parse_args(given)
    try:
        with open(asked.key, encoding="ascii") as file, open(asked.signature or os.path.join(asked.folder, SIGNATURE), "rb") as raw:
            pem, signature = file.read(), raw.read(MOST_BYTES)
        public_point(pem)
    except (OSError, ValueError) as error:
        print("can't be read: %s" % error)
        return 2
    try:
        for words in checked(asked.folder, signature, pem, asked.at):
            print("ok      %s" % words)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        print("REFUSED %s" % (error if isinstance(error, ValueError) else "%s: %s" % (type(error).__name__, error)))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
