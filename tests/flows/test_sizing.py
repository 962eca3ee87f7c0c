"""Sizes, rows and seeds compared in a whole run: further fits, the verdict, the gate, the pages."""

import json

import pytest
from click.testing import CliRunner

from overproof.cli import main
from overproof.pipeline import distil
from overproof.project import load_project
from overproof.store.project_store import open_store


@pytest.fixture(scope="module")
def walked(tmp_path_factory, maker):
    """One run with further fits, and the same run again."""
    root = maker.project(tmp_path_factory.mktemp("sizing") / "easy")
    (root / "overproof.toml").write_text((root / "overproof.toml").read_text().replace("seeds = 1\nbudgets = [1.0]", "seeds = 2\nrows = 120"))
    found = []
    for _ in range(2):
        with open_store(root) as store:
            result = distil(store, load_project(root))
            values = {name: artifact.value for name, artifact in result.artifacts.items()}
            found.append((result, values))
    return root, found


def test_further_fits_are_made_once_and_an_unchanged_run_makes_one_look(walked) -> None:
    """Each fit is a step of its own the first time; the second run sees the result alone."""
    _, ((first, _), (second, _)) = walked
    made = [e for e in first.events if e.step == "fit-part" and e.action == "run"]
    assert len(made) >= 2 * 3
    assert [e.action for e in second.events if e.step in ("fit-part", "fit-whole", "sizes")] == ["reuse"]


def test_the_run_says_what_limits_each_size_and_reads_calibration_rows_alone(walked) -> None:
    """Error, budgets, seeds and verdict of both students, on as many calibration rows as were asked for."""
    _, ((_, values), _) = walked
    sizing = values["evidence"].sizing
    assert {s.name for s in sizing.sizes.sizes} == {"linear.v1", "small"}
    assert sizing.sizes.n == 120 == sizing.sizes.sizes[0].error.n
    assert [b.share for b in sizing.sizes.sizes[0].budgets] == [0.25, 0.5, 1.0]
    assert sizing.sizes.sizes[0].budgets[0].draws == 2
    assert all(s.seeds.random is False for s in sizing.sizes.sizes)  # neither fit draws anything
    assert sizing.smallest == sizing.chosen == "linear.v1"
    assert "smallest of 2 students" in sizing.headline
    assert "seeds change nothing" in values["report"].reason


def test_the_gate_and_the_dossier_carry_the_verdict(walked) -> None:
    """S01 passes with the pair in words; the page has a plot for each student and stays free of scripts."""
    _, ((result, values), _) = walked
    finding = next(f for f in result.verdict.findings if f.id == "S01")
    assert finding.outcome == "pass"
    assert "points less than small" in finding.reason
    page = result.dossier_path.read_text(encoding="utf-8")
    assert page.count("Learning curve of") == 2
    assert values["evidence"].sizing.headline in page
    facts = json.loads((result.dossier_path.parent / "dossier.json").read_text(encoding="utf-8"))
    assert facts["evidence"]["sizing"]["smallest"] == "linear.v1"


def test_show_sizes_prints_the_verdict_and_json(walked) -> None:
    """The page for people, and the same as values."""
    root, _ = walked
    shown = CliRunner().invoke(main, ["show", "sizes", "--project", str(root)])
    assert shown.exit_code == 0, shown.output
    assert "Learning curves" in shown.output
    assert "to try next:" in shown.output
    told = CliRunner().invoke(main, ["show", "sizes", "--json", "--project", str(root)])
    assert json.loads(told.stdout)["chosen"] == "linear.v1"


def test_sizing_that_is_off_is_neither_measured_nor_asked_for(fitted) -> None:
    """budgets = []: no further fit, no check that could only pass for nothing, and `show sizes` says how to turn it on."""
    with open_store(fitted) as store:
        result = distil(store, load_project(fitted, overrides=("sizing.budgets=[]",)))
    assert not [e for e in result.events if e.step in ("sizes", "fit-part")]
    assert "S01" not in {f.id for f in result.verdict.findings}
    shown = CliRunner().invoke(main, ["show", "sizes", "--project", str(fitted)])
    assert shown.exit_code == 2
    assert "[sizing] budgets" in shown.output


def test_check_says_that_one_student_is_too_few(easy) -> None:
    """With one [[student]] the gate will ask for a second size; `check` names the next rung."""
    text = (easy / "overproof.toml").read_text().replace('[[student]]\nuse = "ngram.v1"\nname = "small"\n', "")
    (easy / "overproof.toml").write_text(text)
    shown = CliRunner().invoke(main, ["check", "--project", str(easy)])
    assert "one student only" in shown.output
    told = CliRunner().invoke(main, ["check", "--json", "--project", str(easy)])
    assert json.loads(told.stdout)["next_size"] in ("static.v1", "encoder.v1")
