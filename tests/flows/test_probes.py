"""Probes on the whole road: asked for in the project file, shown, judged by the gate, beside a teacher behind HTTP."""

import json

import pytest

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
    assert {"P01", "P02", "P03", "P05"} == {f.id for f in reported.verdict.watched}


def test_no_dossier_is_silent_about_robustness(ran, monkeypatch, capsys):
    """Where nobody asks, a few are tried, shown on the first screen and refuse nothing; a named weakness is asked all the same."""
    usual = run(ran)
    assert usual.verdict.watched
    assert not [f for f in usual.verdict.findings if f.id.startswith("P0")]
    probes = usual.artifacts["probes"].value
    assert (probes.watched, probes.rows, probes.greedy, probes.triggers) == (True, 60, (), ())
    first = usual.dossier_path.read_text(encoding="utf-8").partition("<nav")[0]
    assert "watched and refusing nothing" in first
    monkeypatch.chdir(ran)
    with pytest.raises(SystemExit):
        main(["show", "verdict"])
    assert "watched and refusing nothing" in " ".join(capsys.readouterr().out.split())
    off = run(ran, 'probe.use="off"')
    assert [f.id for f in off.verdict.watched] == ["P00"]
    assert "not probed" in off.dossier_path.read_text(encoding="utf-8").partition("<nav")[0]
    weak = run(ran, 'probe.weaknesses=[{name="w", texts=["the setup guide shows the steps to configure"], right="bug report", wrong="how to"}]')
    assert "P05" in {f.id for f in weak.verdict.findings}
    assert "P05" not in {f.id for f in weak.verdict.watched}


def test_a_release_that_answers_callers_is_attacked_beside_the_next_one(fitted):
    """Once one is served in full, the next student stands beside it on the same rows; the one that serves is not compared with itself."""
    task, shown = load_project(fitted).task.name, (*SMALL, 'probe.use="report"')
    first = run(fitted, *shown).verdict
    with open_store(fitted) as store:
        store.rollouts.move(store.rollouts.current(task), release_id=first.id, stage="full", share=1.0, by="Dana Ruiz", why="a test", evidence={}, at=1.0)
    same = run(fitted, *shown)
    assert {e.action for e in same.events} == {"reuse"}
    assert "P06" not in {f.id for f in same.verdict.watched}
    result = run(fitted, *SMALL, 'probe.use="gate"', "serve.accuracy_when_confident=0.92")
    (found,) = [f for f in result.verdict.findings if f.id == "P06" and "'all'" in f.reason]
    assert found.outcome != "pass"  # four rows
    assert first.id in found.reason
    assert {d.release for d in result.artifacts["probes"].value.duels} == {first.id}
    assert "The same attack on release" in result.dossier_path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ('use = "gate"\nextra = ["typos"]', 'write "module:name"'),
        ('cases = "none.jsonl"', "none.jsonl"),
        ('use = "gate"\nweaknesses = [{ name = "a", texts = ["x"], right = "b", wrong = "b" }]', "right and wrong are the same"),
        ('use = "off"\nweaknesses = [{ name = "a", texts = ["x"], right = "b" }]', "have no effect"),
        ('use = "always"', "use = 'always'"),
        ('use = "gate"\nbars = { "typo.v1" = { drop = 0.1 } }', "overproof waive P01"),
        ('use = "gate"\nbars = { "greedy.v1" = { worse = 0.1 } }', "overproof waive P06"),
        ('use = "gate"\nbars = { "typo.v1" = { worse = 0.01 } }', "asked of"),
        ('use = "gate"\nbars = { "typo.v1" = {} }', "asks nothing"),
        ('bars = { "typo.v1" = { drop = 0.01 } }', "refuse nothing"),
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
