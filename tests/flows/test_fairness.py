"""Groups and swapped terms on the whole road: asked for in the project file, measured, shown, judged by the gate."""

import json

import pytest

from overproof.cli import main
from overproof.cli.intake import take
from overproof.errors import DataError, MeasureError
from overproof.evidence import Release
from overproof.pipeline import distil
from overproof.project import load_project
from overproof.store.project_store import open_store

ASKED = (
    'fairness.groups=["tier"]', "fairness.tolerance=0.2", 'fairness.selected=["how to"]', 'fairness.swaps="built-in"',
    "fairness.flips_at_most=0.05",
)


def run(root, *overrides, to=None):
    with open_store(root) as store:
        result = distil(store, load_project(root, overrides=overrides), to=to)
        for artifact in result.artifacts.values():
            assert artifact.value is not None
        return result


def shown(capsys, *words):
    with pytest.raises(SystemExit) as left:
        main(list(words))
    assert left.value.code == 0
    return capsys.readouterr().out


def test_groups_and_swaps_are_judged_shown_and_reused(fitted, monkeypatch, capsys):
    """The release stands on both checks, a misspelt attribute opens no sealed row, and a second run repeats nothing."""
    with pytest.raises(DataError, match="'teir' has 0 values"):
        run(fitted, 'fairness.groups=["teir"]')
    result = run(fitted, *ASKED)
    assert isinstance(result.verdict, Release), result.verdict.headline
    found = {f.id: f.outcome for f in result.verdict.findings}
    assert (found["F01"], found["F02"]) == ("pass", "pass")
    groups = result.artifacts["groups"].value
    assert [a.attribute for a in groups.attributes] == ["tier"]
    assert {r.name for r in groups.attributes[0].error.student.rates} == {"free", "pro"}
    assert groups.delta == result.artifacts["report"].value.other.delta_spent
    with open_store(fitted) as store:
        assert store.releases.latest().id == result.verdict.id
        assert result.artifacts["report"].value.certificate.use_k == 1
    page = result.dossier_path.read_text(encoding="utf-8")
    assert "Groups and swapped terms" in page
    assert "first names by gender" in page
    assert {e.action for e in run(fitted, *ASKED).events} == {"reuse"}
    monkeypatch.chdir(fitted)
    for what, word in (("groups", "tier"), ("flips", "nationalities")):
        assert word in shown(capsys, "show", what)
        assert json.loads(shown(capsys, "show", what, "--json"))


def test_true_labels_that_were_picked_by_suspicion_keep_their_mark_from_the_file_to_the_refusal(make, tmp_path):
    """Import, log, prompt set and filter carry it; the first step that would count such a label stops."""
    rows = make.rows(200, seed=1)
    for i, row in enumerate(rows):
        row |= {"id": f"x{i}", "chosen": "review-fix" if 80 <= i < 120 else "log"}
    root = make.project(tmp_path / "p", make.rows(20))
    project = load_project(root, overrides=['traffic.columns={gold="truth", gold_from="chosen"}'])
    with open_store(root) as store:
        take(store, project, [make.write_log(root / "more.jsonl", rows)])
    with pytest.raises(MeasureError, match="picked for looking wrong"):
        run(root, to="calibrate")
