"""`overproof demo`: the bundled inbox from traffic to verdict, as a user would see it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from overproof.cli import main
from overproof.cli.bundled import make_demo
from overproof.errors import DataError
from overproof.project import load_project
from overproof.store.project_store import open_store


def overproof(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "overproof.cli", *words], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("demo") / "inbox"
    # fewer terms, short texts, one runtime: a minute less of fitting and reading; how the fastest of six is chosen has tests of its own
    quick = ("student.1.c=10.0", "student.1.max_terms=4000", "student.2.max_tokens=10", "student.2.runtime=onnx-fp32")
    return folder, overproof("demo", str(folder), *(word for one in quick for word in ("--set", one)))


def test_the_demo_tells_its_story_and_ends_well(demo) -> None:
    """Funnel, slices that passed and that didn't, what would mend them, where the dossier is; exit 0."""
    folder, done = demo
    assert done.returncode == 0, done.stderr
    for words in ("rows read", "english", "safety reports", "not enough data", "REFUSED", "collect about", "dossier:", "next:"):
        assert words in done.stdout, words
    assert (folder / "dossier" / "index.html").is_file()
    assert max(map(len, done.stdout.splitlines())) <= 100  # 80 columns, but for paths that can't be broken


def test_the_critical_slice_decides_the_demo(demo) -> None:
    """Safety reports are too few to prove anything, so nothing ships, however good the average is."""
    folder, _ = demo
    facts = json.loads((folder / "dossier" / "dossier.json").read_text(encoding="utf-8"))
    assert facts["verdict"] == "refusal"
    critical = [f for f in facts["decision"]["findings"] if f["slice"] == "safety reports"]
    assert {f["outcome"] for f in critical} == {"not-run"}
    whole = next(f for f in facts["decision"]["findings"] if f["id"] == "G09")
    assert whole["outcome"] == "pass"


def test_the_first_reading_alone_would_have_taught_a_blind_spot(demo) -> None:
    """The demo takes a third reading wherever one smells danger: more samples on those rows, and only there."""
    folder, _ = demo
    from overproof.pipeline import load_run

    with open_store(folder) as store:
        answers = load_run(store).artifacts["answers"].value
    rows = (*answers.train, *answers.calibration, *answers.test)
    third = [a for a in rows if len(a.completions) == 3]
    assert all(any(c.value == "safety_report" for c in a.completions) or len({c.value for c in a.completions}) > 1 for a in third)
    assert 0 < len(third) < len(rows) / 10


def test_a_demo_folder_is_used_again_and_a_strange_one_is_left_alone(demo, tmp_path) -> None:
    """Making the demo twice adds no row; a folder with other things in it is not touched."""
    folder, _ = demo
    again = tmp_path / "again"
    shutil.copytree(folder, again)
    make_demo(again)
    with open_store(again) as store:
        assert store.traffic.counts().records == 2000
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "thesis.tex").write_text("do not lose me")
    with pytest.raises(DataError, match="not empty"):
        make_demo(strange)
    assert [p.name for p in strange.iterdir()] == ["thesis.tex"]


def test_status_show_and_diff_work_on_the_demo(demo) -> None:
    """Each verb prints something about the run, as text and as JSON."""
    folder, _ = demo
    for words in (("status",), ("show", "report"), ("show", "certificate"), ("show", "calibration"), ("show", "verdict"), ("show", "prompts"), ("diff", "r1", "r1")):
        text = CliRunner().invoke(main, [*words, "--project", str(folder)])
        assert text.exit_code == 0, text.output
        assert text.stdout.strip()
        body = CliRunner().invoke(main, [*words, "--project", str(folder), "--json"])
        assert json.loads(body.stdout)


def test_the_bundled_project_is_clean() -> None:
    """The package's own project file passes its own check."""
    from importlib.resources import as_file, files

    with as_file(files("overproof") / "inbox") as folder:
        project = load_project(folder / "overproof.toml")
    assert len(project.task.output.labels) == 15
    assert project.owner is not None


def test_a_full_disk_is_said_and_a_run_with_room_goes_on(make, tmp_path) -> None:
    """On a volume too small for the run: exit 4, "the disk is full", and the same command finishes once there is room."""
    volume = tmp_path / "volume"
    volume.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2500k", "tmpfs", str(volume)], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("mounting a small tmpfs needs privileges that this machine doesn't give")
    try:
        root = make.project(volume / "easy")
        cut = overproof("run", "--project", str(root))
        assert cut.returncode == 4, cut.stdout + cut.stderr
        assert "full" in cut.stderr
        assert "next:" in cut.stderr
        subprocess.run(["mount", "-o", "remount,size=200m", str(volume)], check=True)
        done = overproof("run", "--project", str(root))
        assert done.returncode == 0, done.stderr
        assert "reused" in done.stdout
    finally:
        subprocess.run(["umount", "-l", str(volume)], check=True)
