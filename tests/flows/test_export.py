"""A runtime is chosen on the road, shown in the dossier, and taken out with the release or beside it."""

import json

import pytest
from tests.flows.walked import run
from tests.students.tiny import write_tiny

from overproof.cli import main
from overproof.cli.parts import check_parts
from overproof.errors import ProjectError
from overproof.evidence import Release
from overproof.pipeline import distil
from overproof.project import load_project
from overproof.store.project_store import open_store
from overproof.students.bundle import load_bundle
from overproof.students.runtimes import RUNTIMES
from overproof.students.weights import sha256_of


def said(capsys, *words, code=0):
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    assert left.value.code == code
    return capsys.readouterr().out


def test_the_runtime_is_chosen_shown_and_exported(make, tmp_path, capsys, monkeypatch):
    """Two runtimes by name are two exports of one fit; the release and another candidate come out as folders."""
    easy = make.project(tmp_path / "easy", make.rows(1550))  # 310 calibration rows: enough for parity
    weights = sha256_of(write_tiny(easy / "tiny") / "model.safetensors")
    with (easy / "terms.toml").open("a") as file:
        file.write(f'[[base]]\nsha256 = "{weights}"\nregistry_id = "apache-2.0-weights"\nread_on = 2026-01-02\n')
    with (easy / "overproof.toml").open("a") as file:
        file.write('\n[[student]]\nuse = "encoder.v1"\nweights = "folder:tiny"\nruntime = "onnx-fp32"\n')
    with open_store(easy) as store:
        first = distil(store, load_project(easy), to="train")
        (exported,) = first.artifacts["exports"].value
    assert (exported.report.candidate, exported.report.runtime, exported.report.n) == ("encoder.v1", "onnx-fp32", 310)
    other = run(easy, 'student.3.runtime="auto"')
    assert isinstance(other.verdict, Release), other.verdict.headline
    steps = {e.step: e.action for e in other.events if e.subject in ("encoder.v1", "") and e.step in ("train", "export")}
    assert steps == {"train": "reuse", "export": "run"}
    (report,) = other.artifacts["evidence"].value.exports
    assert [one.runtime for one in report.tried] == list(RUNTIMES)
    trained = {one.name: one for one in other.artifacts["evidence"].value.trained}
    assert trained["encoder.v1"].runtime == report.runtime
    page = other.dossier_path.read_text(encoding="utf-8")
    assert "What runs encoder.v1" in page
    assert "onnx-blocks8" in page
    assert {e.action for e in run(easy, 'student.3.runtime="auto"').events} == {"reuse"}

    monkeypatch.chdir(easy)
    told = json.loads(said(capsys, "export", "--to", tmp_path / "out", "--json"))
    assert told["certified"] is True
    bundle = load_bundle(tmp_path / "out" / "bundle")
    assert bundle.card.candidate == told["candidate"] == other.verdict.candidate
    said(capsys, "export", "--to", tmp_path / "out", code=2)
    told = json.loads(said(capsys, "export", "--candidate", "encoder.v1", "--to", tmp_path / "bare", "--json"))
    assert told["install"].startswith("overproof[encoder")
    bare = load_bundle(tmp_path / "bare" / "bundle")
    answer = bare.answer({"text": "invoice charged refund"})
    assert (answer.value, answer.cause) == (None, "uncertified")
    assert answer.guess in bare.card.labels
    assert "Not certified" in (tmp_path / "bare" / "README.md").read_text()
    said(capsys, "export", "--candidate", "nobody", "--to", tmp_path / "none", code=2)
    assert not (tmp_path / "none").exists()

    assert not isinstance(run(easy, "bars.fidelity=0.9999").verdict, Release)
    assert "there is no release to export" in said(capsys, "export", "--to", tmp_path / "refused", "--json", code=2)
    assert not (tmp_path / "refused").exists()
    said(capsys, "export", other.run_id, "--to", tmp_path / "earlier")
    assert load_bundle(tmp_path / "earlier" / "bundle").card == bundle.card


def test_a_misspelt_runtime_is_found_before_anything_runs(easy):
    """The project file is refused with the nearest name; a right one is an option that the part takes, where it has runtimes."""
    with (easy / "overproof.toml").open("a") as file:
        file.write('\n[[student]]\nuse = "encoder.v1"\nweights = "folder:tiny"\nruntime = "onnx-blocks"\n')
    with pytest.raises(ProjectError, match="Did you mean 'onnx-blocks8'"):
        load_project(easy)
    (fault,) = check_parts(load_project(easy, overrides=('student.3.runtime="auto"', 'student.1.runtime="auto"')))
    assert fault.startswith("[[student]] 'linear.v1': unknown option 'runtime'")
