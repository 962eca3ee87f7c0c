"""Probes on the whole road: asked for in the project file, shown, judged by the gate, beside a teacher behind HTTP."""

import json

import pytest
from tests.flows.test_endpoint import TEACHER, read, serving, with_endpoint

from overproof.cli import main
from overproof.errors import ProjectError
from overproof.evidence import Refusal
from overproof.pipeline import distil
from overproof.project import load_project
from overproof.store.project_store import open_store

SMALL = ("probe.rows=40", "probe.attack_rows=4", "probe.triggers=3", "sizing.budgets=[]")


def run(root, *overrides):
    with open_store(root) as store:
        return distil(store, load_project(root, overrides=overrides))


def test_probes_are_judged_shown_and_reused_and_a_known_weakness_that_survives_refuses(fitted, monkeypatch, capsys):
    """Few rows never pass; a weakness of the teacher is judged by name; the dossier shows all but no word of a row."""
    weak = '[[probe.weaknesses]]\nname = "setup is a bug"\ntexts = ["the setup guide shows the steps to configure"]\nright = "bug report"\nwrong = "how to"\n'
    file = fitted / "overproof.toml"
    file.write_text(file.read_text() + f'\n[probe]\nuse = "gate"\n{weak}')
    result = run(fitted, *SMALL)
    assert isinstance(result.verdict, Refusal)
    found = {f.id: [] for f in result.verdict.findings}
    for finding in result.verdict.findings:
        found[finding.id].append(finding)
    assert "pass" not in {f.outcome for f in found["P02"]}
    (survived,) = found["P05"]
    assert "P04" not in found
    assert (survived.outcome == "fail") == (not survived.reason.endswith("0 are served wrong"))
    probes = result.artifacts["probes"].value
    assert "recording" in probes.teacher_note
    assert probes.cases[0].inherited == 1
    folder = result.dossier_path
    assert 'id="probes"' in folder.read_text(encoding="utf-8")
    facts = json.loads((folder.parent / "dossier.json").read_text(encoding="utf-8"))["evidence"]["probes"]
    assert facts["rows"] == probes.rows
    assert all("examples" not in one for one in facts["triggers"])
    assert {e.action for e in run(fitted, *SMALL).events} == {"reuse"}
    monkeypatch.chdir(fitted)
    with pytest.raises(SystemExit) as left:
        main(["show", "probes"])
    assert left.value.code == 0
    assert "typo.v1" in capsys.readouterr().out
    reported = run(fitted, *SMALL, 'probe.use="report"')
    assert not [f for f in reported.verdict.findings if f.id.startswith("P0")]


def test_the_teacher_behind_http_is_asked_spoiled_texts_once_through_the_ledger(easy):
    """Spoiled texts are bought like any label, and a second run buys none; the report holds both sides."""
    with serving(read, model=TEACHER) as server:
        root = with_endpoint(easy, server.port, more='\n[probe]\nuse = "report"\nteacher_rows = 3\n')
        probes = run(root, *SMALL).artifacts["probes"].value
        assert probes.teacher_asked > 60
        assert probes.teacher_note == ""
        side = probes.cell("instruction.v1").teacher
        assert side.n == 3
        wire = server.stats.wire
        again = run(root, *SMALL, "probe.triggers=2").artifacts["probes"].value
        assert again.cell("instruction.v1").teacher == side
        assert server.stats.wire == wire


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ('use = "gate"\nextra = ["typos"]', 'write "module:name"'),
        ('cases = "none.jsonl"', "none.jsonl"),
        ('use = "gate"\nweaknesses = [{ name = "a", texts = ["x"], right = "b", wrong = "b" }]', "right and wrong are the same"),
        ('weaknesses = [{ name = "a", texts = ["x"], right = "b" }]', "have no effect"),
        ('use = "always"', "use = 'always'"),
    ],
)
def test_mistakes_in_the_table_are_told(make, tmp_path, lines, told):
    """Each names the key."""
    root = make.project(tmp_path / "p", make.rows(20))
    file = root / "overproof.toml"
    file.write_text(file.read_text() + f"\n[probe]\n{lines}\n")
    with pytest.raises(ProjectError) as caught:
        load_project(root)
    assert told in str(caught.value)
