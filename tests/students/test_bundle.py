import hashlib
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from overproof.errors import DataError, OverproofError
from overproof.evidence import Calibrator
from overproof.measure import calibration
from overproof.measure.reading import stated_confidence
from overproof.students.bundle import load_bundle, verify_files
from overproof.students.linear import LinearStudent
from overproof.students.seen import Seen

PLUS = [["tier", ["plus", "business"]]]


@pytest.fixture(scope="module")
def packed(train_set, tmp_path_factory):
    """A bundle written by hand, file by file, as the format is described; `steps.pack` has its own tests."""
    folder = tmp_path_factory.mktemp("packed")
    (folder / "student").mkdir()
    student = LinearStudent(labels=train_set.labels)
    student.fit(train_set, workdir=folder / "student")
    texts = ["where is my parcel", "gracias", "Passwort"]
    rows = [{"text": text} for text in texts]
    found = calibration.probabilities(student.logits(_requests(rows)).astype(float), 2.0)
    card = {
        "format": "overproof.bundle.v1",
        "normaliser": "nfkc.v1",
        "task": "routing",
        "input": ["text"],
        "labels": list(train_set.labels),
        "candidate": "small",
        "use": "linear.v1",
        "temperature": 2.0,
        "slices": [
            {"name": "paying", "where": PLUS, "threshold": 0.35},
            {"name": "french", "where": [["language", ["fr"]]], "threshold": None},
            {"name": "other", "where": [], "threshold": -1.0},
        ],
        "label_kind": "gold",
        "plan_hash": "0" * 64,
        "expires": "2030-01-01",
        "selftest": [
            {"fields": f, "label": train_set.labels[int(p.argmax())], "probability": float(p.max())}
            for f, p in zip(rows, found, strict=True)
        ],
    }
    (folder / "release.json").write_text(json.dumps(card))
    seal(folder)
    return folder


def _requests(rows):
    from overproof.data import Request

    return [Request(id="", fields=row) for row in rows]


def seal(folder):
    """Write a manifest that fits the files as they are, as an attacker who rewrites a bundle would."""
    (folder / "manifest.json").unlink(missing_ok=True)
    entries = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        data = path.read_bytes()
        name = path.relative_to(folder).as_posix()
        entries.append({"path": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()})
    (folder / "manifest.json").write_text(json.dumps(entries))


@pytest.fixture
def copy(packed, tmp_path):
    return shutil.copytree(packed, tmp_path / "bundle")


def edit(path, change):
    raw = json.loads(path.read_text())
    path.write_text(json.dumps(change(raw) or raw))


def test_it_answers_where_the_threshold_allows(packed):
    """A confident request of a slice with a threshold gets the student's label, with the reason."""
    answer = load_bundle(packed).answer({"text": "where is my parcel? tracking has not moved"}, {"tier": "plus"})
    assert (answer.value, answer.route, answer.slice) == ("delivery", "student", "paying")
    assert answer.confidence >= 0.35
    assert ">= 0.3500" in answer.reason


def test_it_leaves_the_rest_to_the_teacher(packed):
    """Below the threshold, or in a slice that nobody certified, there is no value, only a guess."""
    bundle = load_bundle(packed)
    unsure = bundle.answer({"text": "qwertz"}, {"tier": "business"})
    assert (unsure.value, unsure.route) == (None, "teacher")
    assert "< 0.3500" in unsure.reason
    french = bundle.answer({"text": "où est mon colis ?"}, {"language": "fr"})
    assert (french.value, french.route, french.guess) == (None, "teacher", "delivery")
    assert "no threshold is certified" in french.reason


def test_the_first_slice_that_admits_a_request_counts(packed):
    """Slices are tried in their order; what none admits is "other", and -1 keeps everything."""
    bundle = load_bundle(packed)
    assert bundle.answer({"text": "merci"}, {"tier": "plus", "language": "fr"}).slice == "paying"
    other = bundle.answer({"text": "qwertz"}, {"tier": "guest"})
    assert (other.slice, other.route) == ("other", "student")


@pytest.mark.parametrize("fields", [{}, {"body": "x"}, {"text": "x", "more": "y"}, {"text": 3}])
def test_other_fields_are_refused(packed, fields):
    """A request with missing, extra or non-text fields is an error, never an answer to half a request."""
    with pytest.raises(DataError, match="takes the text fields 'text'"):
        load_bundle(packed).answer(fields)


def test_probabilities_are_the_measured_ones():
    """Confidence is computed exactly as the thresholds' own confidence was."""
    logits = np.random.default_rng(0).normal(0, 8, (200, 7)).astype(np.float32).astype(float)
    for temperature in (0.3, 1.0, 2.5):
        how = Calibrator(method="temperature", temperature=temperature)
        expected = calibration.probabilities(logits, temperature).max(axis=1)
        np.testing.assert_allclose(stated_confidence(how, logits, {}), expected, rtol=0, atol=2e-12)


def test_loading_imports_no_training_library(packed):
    """The loader pulls numpy and nothing heavier for a linear student: no sklearn, scipy, onnx, torch."""
    code = (
        "import sys; from overproof.students.bundle import load_bundle;"
        "before = set(sys.modules); load_bundle(sys.argv[1]).answer({'text': 'hola'});"
        "print([m for m in ('sklearn', 'scipy', 'onnx', 'onnxruntime', 'torch', 'pydantic', 'duckdb') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(packed)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_pinned_manifest_pins_everything(copy):
    """With the manifest's digest from elsewhere, even a bundle that was rewritten and resealed is refused."""
    pinned = hashlib.sha256((copy / "manifest.json").read_bytes()).hexdigest()
    load_bundle(copy, manifest_sha256=pinned)
    edit(copy / "release.json", lambda card: card.update(temperature=2.001))
    seal(copy)
    load_bundle(copy)
    with pytest.raises(DataError, match="another SHA-256"):
        load_bundle(copy, manifest_sha256=pinned)


def _swap(name, data):
    return lambda folder: (folder / name).write_bytes(data)


def _flip_bit(folder):
    data = bytearray((folder / "student/weights.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "student/weights.npz").write_bytes(data)


def _listed(**change):
    def apply(folder):
        edit(folder / "manifest.json", lambda entries: [{**entries[0], **change}, *entries[1:]])

    return apply


def _add_listed(path):
    def apply(folder):
        edit(folder / "manifest.json", lambda entries: [*entries, {**entries[0], "path": path}])

    return apply


def _link(folder):
    (folder / "student/weights.npz").rename(folder.parent / "weights.npz")
    (folder / "student/weights.npz").symlink_to(folder.parent / "weights.npz")


def _link_folder(folder):
    (folder / "student").rename(folder.parent / "elsewhere")
    (folder / "student").symlink_to(folder.parent / "elsewhere")


def _many(folder):
    for i in range(70):
        (folder / f"{i}.json").write_text("{}")


TAMPERED = {
    "one bit": (_flip_bit, "is not the file"),
    "another size": (_listed(size=1), "is not the file"),
    "another digest": (_listed(sha256="0" * 64), "is not the file"),
    "extra file": (_swap("student/extra.json", b"{}"), "not in manifest.json"),
    "missing file": (lambda f: (f / "student/weights.npz").unlink(), "missing"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "is no bundle"),
    "no card": (lambda f: (f / "release.json").unlink(), "is no bundle"),
    "link": (_link, "is a link"),
    "linked folder": (_link_folder, "is a link"),
    "pipe": (lambda f: os.mkfifo(f / "pipe.json"), "no plain file"),
    "absolute path": (_listed(path="/etc/passwd"), "not a relative path"),
    "path upwards": (_add_listed("../outside.json"), "leaves its folder"),
    "path upwards inside": (_add_listed("student/../../outside.json"), "leaves its folder"),
    "backslash": (_add_listed("..\\outside.json"), "not a relative path"),
    "pickle in the list": (_add_listed("student/model.pkl"), "may be in a bundle"),
    "library in the list": (_add_listed("student/op.so"), "may be in a bundle"),
    "twice": (lambda f: edit(f / "manifest.json", lambda entries: [*entries, entries[0]]), "twice"),
    "more than 64 files": (_many, "more than 64"),
    "list of nothing": (_swap("manifest.json", b"[{}]"), "malformed"),
    "size as text": (_listed(size="12"), "malformed"),
    "size true": (_listed(size=True), "malformed"),
    "manifest no JSON": (_swap("manifest.json", b"{"), "can't be read"),
    "manifest too large": (_swap("manifest.json", b" " * (5 * 2**20)), "at most"),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_a_changed_bundle_is_refused(copy, what):
    """Every difference between the files and the manifest, and every path or link that leaves the bundle, is refused."""
    change, message = TAMPERED[what]
    change(copy)
    with pytest.raises(DataError, match=message):
        load_bundle(copy)


def _card(**change):
    return lambda folder: edit(folder / "release.json", lambda card: card.update(change))


def _settings(**change):
    return lambda folder: edit(folder / "student/student.json", lambda raw: raw.update(change))


OTHER = {"name": "other", "where": [], "threshold": 0.5}
HOSTILE = {
    "code by module": (_card(use="os:system"), "names code by module"),
    "unknown part": (_card(use="nope.v1"), "no part named"),
    "another kind's files": (_card(use="ngram.v1"), "kind is"),
    "unknown format": (_card(format="overproof.bundle.v9"), "not known here"),
    "unknown normaliser": (_card(normaliser="none"), "not known here"),
    "temperature 0": (_card(temperature=0), "not a number from"),
    "temperature text": (_card(temperature="2"), "not a number from"),
    "threshold 2": (_card(slices=[{**OTHER, "threshold": 2}]), "not a number from"),
    "no rest": (_card(slices=[{"name": "x", "where": PLUS, "threshold": 0.5}]), "end in 'other'"),
    "no slices": (_card(slices=[]), "end in 'other'"),
    "rest that admits some": (_card(slices=[{**OTHER, "where": PLUS}]), "end in 'other'"),
    "slice by label": (_card(slices=[{**OTHER, "name": "x", "where": [["label", ["a"]]]}, OTHER]), "routed by the label"),
    "slice twice": (_card(slices=[OTHER, OTHER]), "different names"),
    "other labels": (_card(labels=["a", "b"], selftest=[]), "different labels"),
    "labels twice": (_card(labels=["a", "a"]), "must be different"),
    "input as text": (_card(input="text"), "not a list"),
    "no task": (_card(task=None), "not a text"),
    "card is a list": (_swap("release.json", b"[]"), "malformed"),
    "card has NaN": (_swap("release.json", b'{"temperature": NaN}'), "can't be read"),
    "self-test label": (_card(selftest=[{"fields": {"text": "x"}, "label": "z", "probability": 1}]), "none of the task's"),
    "self-test fields": (_card(selftest=[{"fields": {"y": "x"}, "label": "login", "probability": 1}]), "takes the text"),
    "pickled array": (
        lambda f: np.savez(f / "student/weights.npz", weight=np.array([{}]), bias=np.zeros(5), idf=np.zeros(1)),
        "weights.npz",
    ),
    "weights of another shape": (
        lambda f: np.savez(f / "student/weights.npz", weight=np.zeros((3, 5)), bias=np.zeros(5), idf=np.zeros(3)),
        "columns",
    ),
    "settings of another student": (_settings(kind="encoder.v1"), "kind is"),
    "unknown option": (_settings(options={"evil": 1}), "options don't fit"),
    "option out of range": (_settings(options={"c": -1}), "student option 'c'"),
    "facts missing": (_settings(facts=None), "facts"),
    "vocabulary empty": (_swap("student/vocabulary.json", b"{}"), "vocabulary"),
    "vocabulary of another kind": (
        _swap("student/vocabulary.json", b'{"blocks":[{"analyzer":"x","low":1,"high":2,"terms":[]}]}'),
        "vocabulary",
    ),
}


CALIBRATOR = {
    "method": "temperature", "temperature": 2.0, "inputs": [], "mean": [], "scale": [], "weight": [], "stated": [],
    "observed": [], "n": 9,
}  # fmt: skip


def second(everywhere=None, own=(), scope=()):
    """A card of the present format."""
    reading = {"everywhere": CALIBRATOR | (everywhere or {}), "own": list(own), "scope": list(scope)}
    return lambda card: card.update(format="overproof.bundle.v2", confidence=reading)


def test_both_formats_are_read_alike(packed, copy):
    """A card of version 1 and the same as version 2 give the same answer; version 1 has no out-of-scope rule."""
    edit(copy / "release.json", second())
    seal(copy)
    fields = {"text": "where is my parcel? tracking has not moved"}
    old, new = load_bundle(packed), load_bundle(copy)
    assert old.answer(fields, {"tier": "plus"}) == new.answer(fields, {"tier": "plus"})
    assert old.card.confidence.scope == ()


def test_an_out_of_scope_rule_is_looked_at_before_the_threshold(copy):
    """Text of unknown letters goes to the teacher even where the slice keeps everything, and says why."""
    edit(copy / "release.json", second(scope=[{"score": "unknown_share", "threshold": 0.9}]))
    seal(copy)
    bundle = load_bundle(copy)
    foreign, own = bundle.answer({"text": "注文をキャンセル"}), bundle.answer({"text": "where is my parcel"})
    assert (foreign.route, foreign.cause, foreign.value) == ("teacher", "out_of_scope", None)
    assert foreign.reason.startswith("out_of_scope")
    assert (own.route, own.cause) == ("student", "confident")


BAD_READINGS = {
    "unknown method": (second({"method": "magic"}), "not known here"),
    "weights without inputs": (second({"weight": [1.0, 2.0]}), "belong together"),
    "scale of zero": (second({"method": "platt", "inputs": ["log_odds"], "mean": [0], "scale": [0], "weight": [1, 0]}), "belong together"),
    "steps that fall": (second({"method": "isotonic", "stated": [0.5, 0.2], "observed": [0.1, 0.2]}), "belong together"),
    "accuracy above one": (second({"method": "isotonic", "stated": [0.2, 0.5], "observed": [0.1, 1.2]}), "not its own|not its|its own"),
    "a place too few": (second({"method": "venn-abers", "stated": [0.2, 0.5], "observed": [0.1, 0.2, 0.3, 0.4]}), "belong together"),
    "slice that is not there": (second(own=[{"slice": "vip", "calibrator": CALIBRATOR}]), "slice that is not there"),
    "threshold that is text": (second(scope=[{"score": "energy", "threshold": "high"}]), "not a number"),
    "score that the student has not": (second(scope=[{"score": "nearest_1", "threshold": 1.0}]), "nearest_1"),
    "no reading at all": (lambda card: card.update(format="overproof.bundle.v2"), "malformed"),
}


@pytest.mark.parametrize("what", BAD_READINGS)
def test_a_card_with_a_malformed_reading_is_refused(copy, what):
    """Numbers that don't belong together, or a rule that this student can't be read by, load nothing."""
    change, message = BAD_READINGS[what]
    edit(copy / "release.json", change)
    seal(copy)
    with pytest.raises(OverproofError, match=message):
        load_bundle(copy)


@pytest.mark.parametrize("what", HOSTILE)
def test_a_resealed_hostile_bundle_is_refused(copy, what):
    """A bundle whose manifest fits but whose content is malformed, out of range or asks for code is refused."""
    change, message = HOSTILE[what]
    change(copy)
    seal(copy)
    with pytest.raises(OverproofError, match=message):
        load_bundle(copy)


def test_the_self_test_catches_a_machine_that_answers_differently(copy, monkeypatch):
    """Intact files on a runtime that computes something else are refused."""
    load_bundle(copy)
    real = LinearStudent.look

    def other(self, requests):
        seen = real(self, requests)
        return Seen(logits=seen.logits * np.float32(1.2), columns=seen.columns)

    monkeypatch.setattr(LinearStudent, "look", other)
    with pytest.raises(DataError, match="self-test"):
        load_bundle(copy)


def test_verification_reads_no_content(copy):
    """Files are checked without parsing them."""
    (copy / "student/weights.npz").write_bytes(b"\x80\x04K\x01.")
    seal(copy)
    verify_files(copy)


@pytest.mark.parametrize(("mode", "route"), [("refuse", "teacher"), ("warn", "student"), (None, "teacher")])
def test_after_its_certificate_has_ended_a_bundle_leaves_everything_to_the_teacher_unless_it_warns(copy, mode, route):
    """The last day still holds; a bundle that says nothing about it refuses; loading an ended one warns."""
    from datetime import date

    edit(copy / "release.json", lambda raw: {**raw, **({"on_expiry": mode} if mode else {})})
    seal(copy)
    bundle, asked = load_bundle(copy), ({"text": "where is my parcel? tracking has not moved"}, {"tier": "plus"})
    assert bundle.answer(*asked, today=date(2030, 1, 1)).route == "student"
    after = bundle.answer(*asked, today=date(2030, 1, 2))
    assert (after.route, after.value is None) == (route, route == "teacher")
    assert "the certificate ended on 2030-01-01" in after.reason
    edit(copy / "release.json", lambda raw: {**raw, "expires": "2020-01-01"})
    seal(copy)
    with pytest.warns(RuntimeWarning, match="ended on 2020-01-01"):
        assert load_bundle(copy).answer(*asked).route == route


@pytest.mark.parametrize("change", [{"expires": "some day"}, {"on_expiry": "ignore"}])
def test_an_end_that_is_no_day_is_malformed(copy, change):
    """A date that can't be read would never be reached."""
    edit(copy / "release.json", lambda raw: {**raw, **change})
    seal(copy)
    with pytest.raises(DataError, match="malformed"):
        load_bundle(copy)


def test_no_changed_byte_of_any_file_loads(packed, copy):
    """A seeded sample of single bytes over all files, and the manifest's last line end as a space, a tab and a carriage return."""
    import random

    from overproof.students.bundle import manifest_of
    from overproof.students.files import write_json

    (copy / "manifest.json").unlink()
    write_json(copy / "manifest.json", manifest_of(copy))
    load_bundle(copy)
    draw, files = random.Random(5), {path: path.read_bytes() for path in sorted(copy.rglob("*")) if path.is_file()}
    places = [(path, draw.randrange(len(files[path]))) for path in draw.choices(list(files), k=60)]
    places += [(copy / "manifest.json", len(files[copy / "manifest.json"]) - 1)]
    for path, at in places:
        for value in {draw.randrange(256), 0x20, 9, 13} - {files[path][at]}:
            changed = bytearray(files[path])
            changed[at] = value
            path.write_bytes(bytes(changed))
            with pytest.raises(OverproofError):
                load_bundle(copy)
        path.write_bytes(files[path])
    load_bundle(copy)


def test_a_line_end_of_the_manifest_is_a_byte_too(copy):
    """The same entries in another spelling are another manifest: what a digest or a signature is over has one spelling."""
    text = (copy / "manifest.json").read_text()
    for other in (text + " ", " " + text, text.replace(": ", ":", 1), text + "\n"):
        (copy / "manifest.json").write_text(other)
        with pytest.raises(DataError, match="not spelled"):
            load_bundle(copy)
