"""The folder that serves by itself: whole or not there, and true about what it holds."""

import re
import shutil
import subprocess
import sys

import pytest
from tests.steps.test_pack import RECIPE, certified, fit, report_of
from tests.students.tiny import write_tiny

from overproof.errors import DataError
from overproof.students.bundle import load_bundle
from overproof.students.encoder import EncoderStudent
from overproof.students.standalone import requirement, write_standalone


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    from overproof.steps.pack import pack

    folder = tmp_path_factory.mktemp("packed")
    (folder / "fit").mkdir()
    report = report_of(certified("paying", 0.3), certified("other", None))
    return pack(fit("linear.v1", folder / "fit"), report, RECIPE, workdir=folder).path


def test_the_page_says_what_to_install_and_its_code_runs(bundle, tmp_path):
    """Bundle, install line and page are there; the page's code answers with the manifest's digest pinned."""
    to = tmp_path / "new" / "folder"
    write_standalone(bundle, to, version="1.2.3", figures={"size": "1.0 MB"})
    assert sorted(p.name for p in to.iterdir()) == ["README.md", "bundle", "serve.txt"]
    assert (to / "serve.txt").read_text() == "overproof==1.2.3\n"
    page = (to / "README.md").read_text()
    assert "Released; the certificate (teacher:big) holds until 2030-01-01." in page
    assert "| size | 1.0 MB |" in page
    (script,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", script], cwd=to, capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] in ("student", "teacher")
    assert [p.name for p in to.parent.iterdir()] == ["folder"]
    assert to.stat().st_mode & 0o777 == 0o755


def test_a_folder_that_holds_something_is_left_alone(bundle, tmp_path):
    """Nothing is overwritten: neither a folder with a file, nor a file, nor what a link leads to; an empty folder is fine."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    for name in ("full", "file", "link"):
        with pytest.raises(DataError, match="not empty"):
            write_standalone(bundle, tmp_path / name, version="1", figures={})
    assert (tmp_path / "full" / "mine.txt").read_text() == (tmp_path / "file").read_text() == "mine"
    assert not any((tmp_path / "empty").iterdir())
    write_standalone(bundle, tmp_path / "empty", version="1", figures={})
    load_bundle(tmp_path / "empty" / "bundle")


def test_a_disk_that_fills_up_leaves_nothing(bundle, tmp_path):
    """Where a write fails half way, here at the system's limit, the folder isn't there, nor any part of it."""
    code = (
        "import resource, sys; from pathlib import Path; from overproof.students.standalone import write_standalone;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096));"
        "write_standalone(Path(sys.argv[1]), Path(sys.argv[2]), version='1', figures={})"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", code, str(bundle), str(tmp_path / "to")], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "File too large" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_changed_bundle_is_not_handed_on(bundle, tmp_path):
    """A file that isn't the manifest's stops the export, and nothing is left."""
    copy = shutil.copytree(bundle, tmp_path / "copy")
    with (copy / "student" / "weights.npz").open("ab") as file:
        file.write(b"x")
    with pytest.raises(DataError, match="is not the file"):
        write_standalone(copy, tmp_path / "to", version="1", figures={})
    assert [p.name for p in tmp_path.iterdir()] == ["copy"]


def test_an_encoder_says_which_libraries_it_needs(bundle, train_set, tmp_path):
    """The line for pip names the extra of the student and that of its runtime."""
    student = EncoderStudent(labels=train_set.labels, weights=f"folder:{write_tiny(tmp_path / 'weights')}")
    (tmp_path / "fit").mkdir()
    student.fit(train_set, workdir=tmp_path / "fit")
    for runtime, extras in (("onnx-blocks8", "[encoder]"), ("openvino-int8", "[encoder,openvino]")):
        folder = tmp_path / runtime
        EncoderStudent.exported(tmp_path / "fit", runtime, into=folder / "student")
        card = (bundle / "release.json").read_text().replace('"use":"linear.v1"', '"use":"encoder.v1"')
        (folder / "release.json").write_text(card)
        assert requirement(folder, version="1.0") == f"overproof{extras}==1.0"
