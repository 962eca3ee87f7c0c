"""The kill sweep over mutating verbs: small here; `make bench-reliability` kills at every call of every verb."""

import os
import resource
import shutil
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from benchmarks.reliability import verbs
from benchmarks.reliability.cases import CASES
from benchmarks.reliability.disk import record
from benchmarks.reliability.killed import (
    BOOKS,
    DOUBLED,
    LOST,
    STATE,
    TORN,
    WRONG,
    Kept,
    Look,
    Looker,
    compare,
    copy_into,
    torn,
)
from benchmarks.reliability.power import files_of

from overproof.cli import discover, review
from overproof.cli.bundled import make_demo
from overproof.signatures import make_key
from overproof.steps.queues import Asked
from overproof.store.project_store import open_store
from overproof.whole import write_whole

STEP = int(os.environ.get("OVERPROOF_VERBS_STEP", "40"))
strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace records the system calls")
ROWS = [Asked(digest="d1", request_id="r1", text="a long text to label", queue="audit", split="train")]
DOOR = SimpleNamespace(emit=lambda *_: None)


@contextmanager
def no_room():
    """No file may grow beyond one byte: what a process that dies while it writes leaves."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)



WRITERS = {
    "any text": lambda folder: write_whole(folder / "a.txt", "some text"),
    "discover --write": lambda folder: discover.write_project(folder / "new", SimpleNamespace(output={"classes": ["a", "b"]}, kind="classes")),
    "review --export": lambda folder: review._write(DOOR, None, ROWS, {"out": folder / "tasks.json", "form": "argilla", "queue": "audit"}),
    "review --export to a sheet": lambda folder: review._write(DOOR, None, ROWS, {"out": folder / "sheet.csv", "form": "csv", "reviewer": ""}),
    "sign new-key": lambda folder: make_key(folder / "key", project=folder / "elsewhere"),
    "demo": lambda folder: make_demo(folder / "shop"),
    "a store": lambda folder: open_store(folder).close(),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_write_that_is_cut_off_leaves_nothing_under_the_files_name(name, tmp_path):
    """Who looks afterwards finds no half file, and what looks for a file that is there finds none."""
    with no_room(), pytest.raises(Exception, match=r"File too large|can't be written"):
        WRITERS[name](tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file() and ".part" not in path.name] == []


def test_a_private_key_is_never_written_over_and_nobody_else_reads_it(tmp_path):
    """Also not where the name is taken between the look and the write."""
    make_key(tmp_path / "key", project=tmp_path / "p")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key", "key.pub"]


@strace
def test_init_is_sound_at_every_kill():
    """No half file under a name, whatever the call."""
    said: list[str] = []
    found = verbs.campaign(step=1, finish=0, seed=1, only=("init",), say=said.append)
    assert found["init"]["kills"] >= 10, said
    assert sum(found["init"][what] for what in (*WRONG, "not swept")) == 0, said


@strace
def test_files_of_child_processes_are_kept_apart(tmp_path):
    """A child has the same numbers for other files; a thread has the same for the same."""
    code = (
        "import os, subprocess, sys, threading\nhandle = os.open('mine', os.O_CREAT | os.O_WRONLY)\n"
        "child = f'import os; os.dup2(os.open(\"its\", os.O_CREAT | os.O_WRONLY), {handle}); os.write({handle}, b\"child\")'\n"
        "subprocess.run([sys.executable, '-c', child], check=True)\nos.write(handle, b'parent')\n"
        "worker = threading.Thread(target=os.write, args=(handle, b' and thread'))\nworker.start()\nworker.join()"
    )
    disk = Kept(ops := record([sys.executable, "-c", code], tmp_path))
    disk.advance(len(ops))
    assert files_of(copy_into(disk, tmp_path / "copy")) == {"mine": b"parent and thread", "its": b"child"}
    assert len(ops.ends) == 5


@strace
def test_the_sweep_finds_a_file_that_is_written_in_place_and_a_folder_that_is_half_there(tmp_path):
    """The looks themselves can fail."""
    (tmp_path / "a.txt").write_text("the old text")
    start = len(record(["true"], tmp_path))
    code = "with open('a.txt', 'wb', buffering=0) as file:\n    file.write(b'the ')\n    file.write(b'new')\nimport os\nos.mkdir('out')\n"
    code += "for name in 'xy':\n    open(f'out/{name}', 'w').close()"
    ops = record([sys.executable, "-c", code], tmp_path)
    disk, last = Kept(ops), Kept(ops)
    last.advance(len(ops))
    disk.advance(start)
    before, wrong = disk.signature(), []
    for at in ops.ends:
        disk.advance(at)
        wrong.append([where.split(":")[0] for _, where in torn(disk, disk.signature(), before, last.signature(), {"a.txt": b"the old text"}, {"a.txt": b"the new"}, ("out",))])
    assert wrong == [["a.txt"], ["a.txt"], [], [], ["out"], []]


def test_rows_that_are_gone_doubled_or_in_no_state_are_told_apart():
    """By table: labels and reviews are people's and the teacher's, the rest is the state."""
    from collections import Counter

    def held(**tables):
        return Look(tables={f"p.{name}": Counter(rows) for name, rows in tables.items()})

    before, after = held(label="a", alarm="x"), held(label="ab", alarm="y")
    assert compare(held(label="ab", alarm="x"), before, after) == []
    assert [what for what, _ in compare(held(label="b", alarm="x"), before, after)] == [LOST]
    assert [what for what, _ in compare(held(label="abb", alarm="x"), before, after)] == [DOUBLED]
    assert [what for what, _ in compare(held(label="a", alarm="z"), before, after)] == [STATE]


def test_books_that_show_fewer_calls_than_went_out_are_found(tmp_path):
    """The wire is counted outside of the process."""
    (tmp_path / "project").mkdir()
    with open_store(tmp_path / "project") as store:
        store.decisions.append("k", actor="a", subject="s", body={})
    looker = Looker(tmp_path)
    now = {str(path.relative_to(tmp_path)): (1, 1) for path in tmp_path.rglob("*") if path.is_file()}
    assert looker.look(tmp_path, now).faults == []
    looker.money = ["wire"]
    assert [what for what, _ in looker.look(tmp_path, now).faults] == [BOOKS]
    (tmp_path / "project" / ".overproof" / ".gitignore").write_text("")
    assert TORN in [what for what, _ in looker.look(tmp_path, now).faults]


@strace
@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_no_kill_of_any_verb_loses_doubles_or_tears():
    """Every OVERPROOF_VERBS_STEP-th call of each."""
    said: list[str] = []
    found = verbs.campaign(step=STEP, finish=1, seed=1, say=said.append)
    print(f"seed 1, step {STEP}", *said, sep="\n")
    assert len(found) == len(CASES)
    assert {name: {what: n for what, n in one.items() if what in (*WRONG, "not swept")} for name, one in found.items()} == {name: {} for name in found}
