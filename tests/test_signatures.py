"""Signatures and their one-file verifier: what `cryptography` says, without it; and nothing that was changed passes."""

import base64
import json
import random
import re
import stat
import subprocess
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from overproof import verify
from overproof.errors import DataError
from overproof.signatures import check_bundle, check_signature, make_key, sign_folder, trust_key, trusted_keys
from overproof.store.decided import extract
from overproof.store.decisions import Decision

DAY = date(2026, 2, 1)
WORD = st.text(max_size=12)


def pem_of(key):
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


@given(secret=st.integers(1, verify.N - 1), message=st.binary(max_size=200), at=st.integers(0, 10_000), bit=st.integers(0, 7))
@settings(max_examples=60, deadline=None)
def test_it_agrees_with_the_library_on_good_and_changed_signatures(secret, message, at, bit):
    """Every good signature holds; with one bit of the signature changed, both say the same."""
    key = ec.derive_private_key(secret, ec.SECP256R1())
    good = key.sign(message, ec.ECDSA(hashes.SHA256()))
    assert verify.ecdsa_holds(pem_of(key), good, message)
    assert not verify.ecdsa_holds(pem_of(key), good, message + b"x")
    changed = bytearray(good)
    changed[at % len(good)] ^= 1 << bit
    try:
        key.public_key().verify(bytes(changed), message, ec.ECDSA(hashes.SHA256()))
        theirs = True
    except InvalidSignature:
        theirs = False
    assert verify.ecdsa_holds(pem_of(key), bytes(changed), message) == theirs


@pytest.mark.parametrize("r", [0, 1, verify.N, verify.N + 1, 2**256 - 1])
@pytest.mark.parametrize("s", [0, 1, verify.N])
def test_numbers_out_of_range_hold_nothing(r, s):
    """The signature of zeros, which broken verifiers take, is none."""
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

    assert not verify.ecdsa_holds(pem_of(ec.generate_private_key(ec.SECP256R1())), encode_dss_signature(r, s), b"x")


@pytest.mark.parametrize("curve", [ec.SECP256K1(), ec.SECP384R1()])
def test_a_key_of_another_curve_is_refused(curve):
    """Also one whose points are as long."""
    with pytest.raises(ValueError, match="P-256"):
        verify.public_point(pem_of(ec.generate_private_key(curve)))


def test_a_point_off_the_curve_is_refused():
    """A key whose numbers fit no point could be anybody's."""
    pem = pem_of(ec.generate_private_key(ec.SECP256R1()))
    raw = bytearray(base64.b64decode("".join(pem.splitlines()[1:-1])))
    raw[-1] ^= 1
    body = base64.encodebytes(bytes(raw)).decode()
    with pytest.raises(ValueError, match="P-256"):
        verify.public_point(f"-----BEGIN PUBLIC KEY-----\n{body}-----END PUBLIC KEY-----\n")


@pytest.fixture
def made(tmp_path):
    """A project, a key beside it, and a signed folder."""
    project, folder = tmp_path / "project", tmp_path / "release"
    project.mkdir()
    (folder / "bundle").mkdir(parents=True)
    (folder / "bundle" / "manifest.json").write_text("[]")
    (folder / "card.md").write_text("# card")
    make_key(tmp_path / "key.pem", project=project)
    trust_key(project, tmp_path / "key.pem.pub", person="Dana Ruiz", since=DAY, until=date(2026, 3, 1))
    raw = sign_folder(folder, tmp_path / "key.pem", name="x")
    return project, folder, raw


def test_a_signature_holds_for_its_days_and_its_bytes(made):
    """From the first day to the last, over exactly these files."""
    project, folder, raw = made
    keys = trusted_keys(project)
    signed = check_signature(raw, keys, DAY, what="r")
    assert set(signed) == {"bundle/manifest.json", "card.md"}
    check_bundle(folder / "bundle", signed, what="r")
    for day in (date(2026, 1, 31), date(2026, 3, 2)):
        with pytest.raises(DataError, match="no trusted key holds"):
            check_signature(raw, keys, day, what="r")
    (folder / "bundle" / "release.sig").write_text("x")
    with pytest.raises(DataError, match=r"not signed: bundle/release\.sig"):
        check_bundle(folder / "bundle", signed, what="r")


def test_no_changed_byte_of_a_signature_passes(made):
    """Each byte in turn, changed to a seeded other one."""
    project, _, raw = made
    keys, draw = trusted_keys(project), random.Random(3)
    for at in range(len(raw)):
        changed = bytearray(raw)
        changed[at] ^= draw.randint(1, 255)
        with pytest.raises(DataError):
            check_signature(bytes(changed), keys, DAY, what="r")


@pytest.mark.parametrize(
    "text", ["", "key = []", "x = 1", "[[key]]\nid = 'a'", "not toml", "[[key]]\nid='a'\nperson='b'\nfrom=2026-01-01\npublic='c'", "key = 3"]
)
def test_a_malformed_list_of_keys_opens_no_door(tmp_path, text):
    """A file that names nobody is an error, never the same as no file."""
    (tmp_path / "trusted_keys.toml").write_text(text)
    with pytest.raises(DataError):
        trusted_keys(tmp_path)


def test_no_file_asks_for_nothing_and_a_dangling_link_is_an_error(tmp_path):
    """Only where nothing stands there is nothing asked."""
    assert trusted_keys(tmp_path) is None
    (tmp_path / "trusted_keys.toml").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match="link to nothing"):
        trusted_keys(tmp_path)


def test_a_private_key_is_whole_private_and_never_overwritten(made, tmp_path):
    """PKCS#8, mode 0600, readable by the library."""
    path = tmp_path / "key.pem"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().startswith("-----BEGIN PRIVATE KEY-----")
    with pytest.raises(DataError, match="already"):
        make_key(path, project=tmp_path / "project")
    with pytest.raises(DataError, match="in the project"):
        make_key(tmp_path / "elsewhere" / ".." / "project" / "k", project=tmp_path / "project")


def test_the_statement_is_that_of_open_model_signing(made):
    """Names, algorithm and the digest over all digests, as the published format has them; `model_signing verify key` takes it."""
    _, folder, raw = made
    body = json.loads(raw)
    statement = json.loads(base64.b64decode(body["dsseEnvelope"]["payload"]))
    assert statement["predicateType"] == "https://model_signing/signature/v1.0"
    names = [one["name"] for one in statement["predicate"]["resources"]]
    assert names == sorted(names)
    assert statement["predicate"]["serialization"]["ignore_paths"] == []
    assert verify.files_of(str(folder)) == {one["name"]: one["digest"] for one in statement["predicate"]["resources"]}


def test_the_verifier_is_one_short_file_of_the_standard_library():
    """At most 310 lines; it imports nothing but the standard library, and no syntax of a Python after 3.9."""
    import ast

    text = Path(verify.__file__).read_text()
    assert len(text.splitlines()) <= 310
    tree = ast.parse(text, feature_version=(3, 9))
    tops = {alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    tops |= {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert tops <= set(sys.stdlib_module_names)
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Match)]
    done = subprocess.run([sys.executable, "-I", "-S", verify.__file__, "--help"], capture_output=True, text=True, check=True)
    assert "signed release folder" in done.stdout


@st.composite
def chains(draw):
    """A random log: kinds, people and subjects in any script, gaps in the numbers, days that don't go back."""
    seqs = sorted(draw(st.sets(st.integers(1, 99), min_size=2, max_size=9)))
    days = sorted(draw(st.lists(st.dates(date(2026, 1, 1), date(2027, 1, 1)), min_size=len(seqs), max_size=len(seqs))))
    return extract(
        Decision(seq=seq, at=f"{day}T00:00:00+00:00", kind=draw(WORD), actor=draw(WORD), subject=draw(WORD), body={"why": draw(WORD)}, prev="", digest="")
        for seq, day in zip(seqs, days, strict=True)
    )


def told_line(folder, made, lines) -> int | None:
    """The line that the verifier names; None where it finds nothing."""
    (folder / verify.DECISIONS).write_bytes(b"".join(lines))
    try:
        assert verify.check_decisions(str(folder), {"decisions": made.named}) == len(made.lines)
    except ValueError as error:
        return int(re.search(r"line (\d+)", str(error)).group(1))
    return None


@given(made=chains(), draw=st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_every_change_of_a_chain_of_decisions_is_found_at_its_line(tmp_path_factory, made, draw):
    """Each line in turn is changed, dropped, moved, said twice, cut off with all that follow: the line, or the next one, is named."""
    folder, lines = tmp_path_factory.getbasetemp(), [line + b"\n" for line in made.lines]
    assert told_line(folder, made, lines) is None
    for at in range(len(lines)):
        raw = bytearray(lines[at])
        raw[draw.randrange(len(raw))] ^= draw.randint(1, 255)
        assert told_line(folder, made, [*lines[:at], bytes(raw), *lines[at + 1 :]]) in (at + 1, at + 2), "flipped"
        assert told_line(folder, made, lines[:at] + lines[at + 1 :]) in (at, at + 1), "dropped"
        assert told_line(folder, made, lines[:at]) == at, "cut off"
        assert told_line(folder, made, lines[: at + 1] + lines[at:]) == at + 2, "twice"
        assert told_line(folder, made, [*lines[:at], lines[at][: draw.randrange(1, len(lines[at]))], *([] if at + 1 == len(lines) else lines[at + 1 :])]) in (at + 1, at), "half a line"
        other = draw.randrange(len(lines))
        if other != at:
            moved = list(lines)
            moved[at], moved[other] = moved[other], moved[at]
            assert told_line(folder, made, moved) == min(at, other) + 1, "swapped"
    assert told_line(folder, made, [*lines, lines[-1].replace(b'"prev":"', b'"prev":"0')]) == len(lines) + 1
    assert told_line(folder, made, [*lines, b"x"]) == len(lines) + 1, "trailing bytes"
    longer = extract_more(made)
    assert told_line(folder, made, [line + b"\n" for line in longer]) == len(lines) + 1, "one more that fits"


def extract_more(made) -> list[bytes]:
    last = json.loads(made.lines[-1])
    return [*made.lines, json.dumps({**last, "seq": last["seq"] + 1, "prev": made.head}, separators=(",", ":")).encode()]


@pytest.mark.parametrize("back", [{"seq": 3}, {"seq": 2}, {"at": "2026-01-01"}])
def test_a_chain_whose_numbers_or_days_go_back_is_none(tmp_path, back):
    """However well it is chained and named."""
    one = Decision(seq=3, at="2026-02-01", kind="gate", actor="Dana", subject="r1", body={}, prev="", digest="")
    made = extract([one, replace(one, **{"seq": 4, **back})])
    assert told_line(tmp_path, made, [line + b"\n" for line in made.lines]) == 2


@pytest.mark.parametrize(
    "line", [b"[]", b"3", b"null", b'"x"', b"{}", b"[" * 100_000, b"\xff\xfe", b"\0", b'{"seq":true}', b"", b'{"seq":1e999}', b" " * 70 * 2**20]
)
def test_what_is_no_decision_is_refused_without_a_crash(tmp_path, line):
    """Other values, depth, bytes of no text, sizes: always a ValueError."""
    (tmp_path / verify.DECISIONS).write_bytes(line + b"\n")
    with pytest.raises(ValueError, match=r"decisions\.jsonl"):
        verify.check_decisions(str(tmp_path), {"decisions": {"head": "", "n": 1}})
