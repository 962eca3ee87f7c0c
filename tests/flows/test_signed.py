"""A release with its papers, signed by a key from outside: who trusts a key serves, promotes and exports nothing else."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import apsw
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from overproof.cli import main
from overproof.data import Folder
from overproof.errors import DataError
from overproof.evidence import Refusal
from overproof.pipeline import distil, load_run
from overproof.project import load_project
from overproof.serve import moves
from overproof.serve.live import Live
from overproof.steps.bom import files_of
from overproof.store.project_store import open_store
from overproof.verify import BEGIN, END, figure_rows


def call(root, *words, code=0):
    with pytest.raises(SystemExit) as left:
        main([*map(str, words), "--project", str(root)])
    assert left.value.code == code


@pytest.fixture(scope="module")
def signed(template, tmp_path_factory):
    """A project that trusts one key and has signed its release with it, the key beside the project, and the exported folder."""
    place = tmp_path_factory.mktemp("signed")
    root = shutil.copytree(template / "gate", place / "project")
    call(root, "sign", "new-key", place / "key.pem")
    call(root, "sign", "trust", place / "key.pem.pub", "--person", "Dana Ruiz")
    call(root, "sign", "release", "--key", place / "key.pem")
    call(root, "export", "--to", place / "out")
    return place


def bare(*words):
    """Another interpreter that sees no site packages and nothing of ours."""
    return subprocess.run([sys.executable, "-I", "-S", *map(str, words)], capture_output=True, text=True, check=False)


def told(folder, key, *more):
    done = bare(folder / "verify.py", "--key", key, *more)
    return done.returncode, done.stdout


def test_the_exported_folder_proves_itself_on_a_bare_python(signed):
    """Signature, files, manifest, findings, card and days all hold, with the standard library alone."""
    code, out = told(signed / "out", f"{signed / 'key.pem'}.pub")
    assert (code, out.count("ok ")) == (0, 6), out
    assert (signed / "key.pem").stat().st_mode & 0o777 == 0o600
    names = {path.name for path in (signed / "out").iterdir()}
    assert names == {
        "bundle", "README.md", "serve.txt", "verify.py", "release.sig", "dossier.json", "MODEL_CARD.md", "DATA_CARD.md",
        "summary.html", "bom.cdx.json", "provenance.intoto.jsonl", "decisions.jsonl",
    }  # fmt: skip


def test_the_decisions_about_a_release_leave_with_it_as_they_were_signed(signed, tmp_path, capsys):
    """Clearance and gate are in the signed extract; what comes later is in the store, and leaves once it is signed again."""
    lines = [json.loads(line) for line in (signed / "out" / "decisions.jsonl").read_text().splitlines()]
    assert [one["kind"] for one in lines] == ["clearance", "gate"]
    root = shutil.copytree(signed / "project", tmp_path / "project")
    with open_store(root) as store:
        release = load_run(store).verdict
        bodies = {d.seq: d.body for d in store.decisions.read()}
        assert moves.promote(store, load_project(root), by="Dana").moved
    assert [one["body_sha256"] for one in lines] == [hashlib.sha256(json.dumps(bodies[one["seq"]]).encode()).hexdigest() for one in lines]
    capsys.readouterr()
    call(root, "show", "decisions", release.id, "--json")
    told_now = json.loads(capsys.readouterr().out)
    assert [one["kind"] for one in told_now["decisions"]] == ["clearance", "gate", "signed", "rollout"]
    assert told_now["extract"]["n"] == 4
    call(root, "export", "--to", tmp_path / "same")
    assert (tmp_path / "same" / "decisions.jsonl").read_bytes() == (signed / "out" / "decisions.jsonl").read_bytes()
    call(root, "sign", "release", "--key", signed / "key.pem")
    call(root, "export", "--to", tmp_path / "later")
    assert [json.loads(line)["kind"] for line in (tmp_path / "later" / "decisions.jsonl").read_text().splitlines()] == ["clearance", "gate", "signed", "rollout"]
    assert told(tmp_path / "later", f"{signed / 'key.pem'}.pub")[0] == 0


def test_a_log_that_was_changed_is_shown_and_handed_out_to_nobody(signed, tmp_path, capsys):
    """A row edited past SQLite's triggers is named; neither show, export nor sign goes on."""
    root = shutil.copytree(signed / "project", tmp_path / "project")
    base = apsw.Connection(str(root / ".overproof" / "project.db"))
    base.execute("DROP TRIGGER decision_stays; UPDATE decision SET actor='Mallory' WHERE kind='gate'")
    base.close()
    for words in (("show", "decisions"), ("export", "--to", tmp_path / "out"), ("sign", "release", "--key", signed / "key.pem")):
        with pytest.raises(SystemExit) as left:
            main([*map(str, words), "--project", str(root)])
        assert left.value.code not in (0, None)
        assert "doesn't fit the chain" in "".join(capsys.readouterr())
    assert not (tmp_path / "out").exists()
    call(root, "show", "verdict", "r1", code=2)
    call(signed / "project", "show", "decisions", "nobody", code=2)


def _other_key(folder, place):
    call(place / "project", "sign", "new-key", folder.parent / "other.pem")
    return folder.parent / "other.pem.pub"


def _figure(folder):
    card = folder / "MODEL_CARD.md"
    card.write_text(re.sub(r"(?m)^(\| all \| fidelity \|) [0-9.]+", r"\1 0.1234", card.read_text()))


def _dossier(change):
    def apply(folder):
        values = json.loads((folder / "dossier.json").read_text())
        change(values)
        (folder / "dossier.json").write_text(json.dumps(values))

    return apply


CHANGED = {
    "a byte of the card": (lambda f: (f / "MODEL_CARD.md").write_bytes((f / "MODEL_CARD.md").read_bytes().replace(b"released", b"Released", 1) + b"x"), "changed since"),
    "an extra file": (lambda f: (f / ".gitignore").write_text("x"), "not signed: .gitignore"),
    "a missing paper": (lambda f: (f / "bom.cdx.json").unlink(), "missing: bom.cdx.json"),
    "a link": (lambda f: (f / "l").symlink_to("/etc/passwd"), "is a link"),
    "a file of the bundle": (lambda f: (f / "bundle/release.json").write_text("{}"), "changed since"),
    "a cut signature": (lambda f: (f / "release.sig").write_bytes((f / "release.sig").read_bytes()[:-9]), "can't be read"),
}


@pytest.mark.parametrize("what", CHANGED)
def test_a_changed_folder_is_refused(signed, tmp_path, what):
    """Whatever is changed, added or taken away after signing is named."""
    change, words = CHANGED[what]
    folder = shutil.copytree(signed / "out", tmp_path / "out")
    change(folder)
    code, out = told(folder, f"{signed / 'key.pem'}.pub")
    assert code == 1
    assert words in out


def _not_run(values):
    values["decision"]["findings"][0]["outcome"] = "not-run"


def _waived(values):
    values["decision"]["findings"][0]["outcome"] = "waived"
    values["decision"]["findings"][0]["waiver"] = {"until": "2000-01-01"}


def _line(change):
    def apply(folder):
        path = folder / "decisions.jsonl"
        path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))

    return apply


RESIGNED = {
    "an actor of the first decision": (_line(lambda rows: [rows[0].replace(b"Dana", b"Dora"), *rows[1:]]), [], "line 2 of decisions.jsonl doesn't follow from line 1"),
    "the last decision cut off": (_line(lambda rows: rows[:-1]), [], "line 1, the last of decisions.jsonl"),
    "no decisions": (_line(lambda _: []), [], "line 0, the last of decisions.jsonl"),
    "decisions without a head": (_dossier(lambda v: v.pop("decisions")), [], "KeyError"),
    "a check that was not run": (_dossier(_not_run), [], "is not-run"),
    "a waiver that ran out": (_dossier(_waived), [], "waived no longer"),
    "a refusal": (_dossier(lambda v: v.update(verdict="refusal")), [], "not that of a release"),
    "other figures on the card": (_figure, [], "other figures"),
    "another manifest": (lambda f: (f / "bundle/manifest.json").write_text("[]"), [], "files missing: bundle/release.json"),
    "a day after the review": (lambda _: None, ["--at", "2990-01-01"], "ran out on"),
}


@pytest.mark.parametrize("what", RESIGNED)
def test_a_signature_does_not_make_a_folder_sound(signed, tmp_path, what):
    """What the key's holder should not have signed is refused all the same."""
    from overproof.signatures import sign_folder

    change, more, words = RESIGNED[what]
    folder = shutil.copytree(signed / "out", tmp_path / "out")
    change(folder)
    (folder / "release.sig").write_bytes(sign_folder(folder, signed / "key.pem", name="x"))
    code, out = told(folder, f"{signed / 'key.pem'}.pub", *more)
    assert code == 1, out
    assert words in out


def test_another_key_is_refused_and_none_at_all_is_said(signed, tmp_path):
    """The right signature under the wrong key is 1; a key that can't be read is 2."""
    assert told(signed / "out", _other_key(tmp_path / "x", signed))[0] == 1
    assert told(signed / "out", tmp_path / "none")[0] == 2


def test_without_a_trusted_key_everything_works_and_says_so(template, tmp_path, capsys):
    """Nobody asks: export and promote go through, and the words say that nothing is signed."""
    root = shutil.copytree(template / "gate", tmp_path / "project")
    call(root, "export", "--to", tmp_path / "out")
    assert "not signed" in capsys.readouterr().out
    assert not (tmp_path / "out" / "release.sig").exists()
    with open_store(root) as store:
        assert moves.promote(store, load_project(root), by="Dana").moved


def test_with_a_trusted_key_an_unsigned_release_goes_nowhere(template, signed, tmp_path):
    """Promote, with force too, export and the gateway's load refuse; after signing, and only then, they go through."""
    root = shutil.copytree(template / "gate", tmp_path / "project")
    shutil.copy(signed / "project" / "trusted_keys.toml", root)
    call(root, "export", "--to", tmp_path / "out", code=2)
    call(root, "promote", "--force", "--why", "in a hurry", "--to", "full", code=2)
    assert not (tmp_path / "out").exists()
    call(root, "sign", "release", "--key", signed / "key.pem")
    with open_store(root) as store:
        release = load_run(store).verdict
        assert moves.promote(store, load_project(root), by="Dana", to="full", force="tested").moved
        live = Live(release.task, store.releases, seal=store.signatures.check)
        live.check()
        assert (live.current.position.release, live.seal) == (release.id, "signed by Dana Ruiz")
        live.close()


def _stranger(root, signed):
    shutil.copy(signed / "key.pem", root.parent / "stranger")
    call(root, "sign", "new-key", root.parent / "other.pem")
    (root / "trusted_keys.toml").unlink()
    call(root, "sign", "trust", root.parent / "other.pem.pub", "--person", "Sam")


def _unsigned(root, signed):
    del signed
    with contextlib.closing(apsw.Connection(str(root / ".overproof" / "project.db"))) as connection:
        connection.execute("DELETE FROM signature")


def _no_keys(root, signed):
    del signed
    (root / "trusted_keys.toml").write_text("")


def _run_out(root, signed):
    del signed
    text = (root / "trusted_keys.toml").read_text()
    (root / "trusted_keys.toml").write_text(text.replace("\npublic", '\nuntil = "2020-01-01"\npublic'))


@pytest.mark.parametrize("change", [_stranger, _unsigned, _no_keys, _run_out])
def test_the_last_good_release_goes_on_where_the_next_is_not_trusted(signed, tmp_path, change):
    """A gateway that follows the store keeps what it has, and says why it refuses what it should load."""
    root = shutil.copytree(signed / "project", tmp_path / "project")
    with open_store(root) as store:
        release = load_run(store).verdict
        store.releases.record(release, stage="full", by="Dana")
        live = Live(release.task, store.releases, seal=store.signatures.check)
        live.check()
        assert live.current.pool is not None
        from dataclasses import replace

        later = replace(release, id="later")
        store.signatures.put("later", store.signatures.get(release.id))
        change(root, signed)
        store.releases.record(later, stage="full", by="Dana")
        live.check()
        assert (live.current.position.release, live.events[-1].what) == (release.id, "refused")
        assert live.current.pool.healthy
        live.close()


def test_a_bundle_of_other_bytes_does_not_pass_under_a_good_signature(signed, tmp_path):
    """The signature of one release laid beside another one's bundle is refused."""
    root = shutil.copytree(signed / "project", tmp_path / "project")
    with open_store(root) as store:
        release = load_run(store).verdict
        other = shutil.copytree(release.bundle.path, tmp_path / "other")
        for path in [other, *other.rglob("*")]:
            os.chmod(path, 0o755 if path.is_dir() else 0o644)  # noqa: PTH101
        (other / "release.json").write_bytes((other / "release.json").read_bytes() + b" ")
        with pytest.raises(DataError, match="not the one that was signed"):
            store.signatures.check(release.id, other)


def test_keys_stay_out_of_the_project_and_of_others_sight(signed, tmp_path):
    """No private key is made in the project, used from there, or used where others may read it; none is overwritten."""
    root = signed / "project"
    call(root, "sign", "new-key", root / "key.pem", code=2)
    call(root, "sign", "new-key", signed / "key.pem", code=2)
    open_key = shutil.copy(signed / "key.pem", tmp_path / "open.pem")
    Path(open_key).chmod(0o644)
    call(root, "sign", "release", "--key", open_key, code=2)
    inside = shutil.copytree(root, tmp_path / "copy")
    shutil.copy(signed / "key.pem", inside / "key.pem")
    call(inside, "sign", "release", "--key", inside / "key.pem", code=2)


def test_the_bill_of_materials_is_strictly_cyclonedx(signed):
    """The strict validator finds nothing; an unknown key it would find. Every file of the bundle is listed by digest."""
    text = (signed / "out" / "bom.cdx.json").read_text()
    check = JsonStrictValidator(SchemaVersion.V1_6)
    assert check.validate_str(text) is None
    assert check.validate_str(text.replace('"bomFormat"', '"surprise": 1, "bomFormat"', 1)) is not None
    raw = json.loads(text)
    hashes = {one["name"]: one["hashes"][0]["content"] for one in raw["components"] if one["type"] == "file"}
    assert hashes == files_of(signed / "out" / "bundle")
    libraries = {one["name"] for one in raw["components"] if one["type"] == "library"}
    assert {"overproof", "numpy", "click"} <= libraries
    assert not {"pytest", "torch", "ray"} & libraries
    assert raw["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]


def test_provenance_says_what_was_made_from_what(signed):
    """Subjects are the bundle's files; the rows, the labels, the plan and the prompt are named by the digests of the store."""
    statement = json.loads((signed / "out" / "provenance.intoto.jsonl").read_text())
    assert {one["name"]: one["digest"]["sha256"] for one in statement["subject"]} == files_of(signed / "out" / "bundle")
    built = statement["predicate"]["buildDefinition"]
    named = {one["name"]: one["digest"]["sha256"] for one in built["resolvedDependencies"]}
    with open_store(signed / "project") as store:
        result = load_run(store)
        for name in ("prompts", "labels", "plan"):
            assert named[f"artifact:{name}"] == result.artifacts[name].digest
        pin = result.artifacts["evidence"].value.data.pin
    assert named["teacher-prompt"] == pin.prompt_digest
    assert (built["externalParameters"]["teacher"]["model"], built["internalParameters"]["seed"] is not None) == (pin.model, True)


def test_the_card_has_every_figure_with_n_and_interval(signed):
    """Front matter that a hub reads, the dossier's own figures, the owner and the review on the first screen."""
    card = (signed / "out" / "MODEL_CARD.md").read_text()
    dossier = json.loads((signed / "out" / "dossier.json").read_text())
    front = dict(line.split(": ", 1) for line in card.split("---\n")[1].splitlines())
    index = json.loads(front["model-index"])
    assert index[0]["results"][0]["metrics"]
    assert "95% interval" in index[0]["results"][0]["metrics"][0]["name"]
    rows = [line for line in card.split(BEGIN)[1].split(END)[0].splitlines() if line.startswith("| ")][1:]
    assert rows == figure_rows(dossier)
    assert all(len(row.split(" | ")) == 9 for row in rows)
    first = "\n".join(card.splitlines()[:32])
    assert "No check was waived, failed or left out" in first
    assert dossier["decision"]["owner"].split(" <")[0] in first
    assert dossier["decision"]["review_due"] in first
    data = (signed / "out" / "DATA_CARD.md").read_text()
    assert f"| train | {dossier['evidence']['data']['rows']['train']} |" in data
    page = (signed / "out" / "summary.html").read_text()
    assert "Released" in page
    assert "<script" not in page


def test_a_later_release_says_what_changed(ran):
    """The second release names the first, slice by slice; an unchanged run writes nothing anew; the first one says that it is the first."""
    with open_store(ran) as store:
        first = load_run(store).verdict
        folder = load_run(store).dossier_path.parent
        assert "This is the first release." in (folder / "MODEL_CARD.md").read_text()
        again = distil(store, load_project(ran))
        assert {one.action for one in again.events} == {"reuse"}
        later = distil(store, load_project(ran, overrides=("bars.min_n=1",)))
        assert not isinstance(later.verdict, Refusal), later.verdict.headline
        assert later.verdict.id != first.id
        changes = json.loads((later.dossier_path.parent / "changes.json").read_text())
        assert changes["since"] == first.id
        assert {one["word"] for one in changes["figures"]} == {"no clear difference"}
        whole = changes["shared"]["slices"][0]
        assert (whole["slice"], whole["n"]) == ("all", len(later.artifacts["labels"].value.test.examples))
        assert whole["before"] == whole["after"] == next(c for c in later.artifacts["report"].value.candidates if c.name == "linear.v1").slices[0].accuracy.value
        assert {one["word"] for one in changes["shared"]["slices"]} == {"no clear difference"}
        assert [changes[name] for name in ("labels", "candidates")] == [{"added": [], "lost": []}] * 2
        assert f"Since release {first.id}" in later.dossier_path.read_text()
        assert f"## Since release {first.id}" in (later.dossier_path.parent / "MODEL_CARD.md").read_text()
        assert {one.action for one in distil(store, load_project(ran, overrides=("bars.min_n=1",))).events} == {"reuse"}
        assert isinstance(later.artifacts["dossier"].value, Folder)
