"""Backup while others write, kill -9 in the middle, a torn or changed backup, and a restore that is equal to what was backed up."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from overproof.cli import main
from overproof.data import Folder, Request, TrafficRecord
from overproof.errors import CorruptArtifact, StoreError
from overproof.store.artifacts import Step
from overproof.store.backup import DATA, MANIFEST, back_up, restore
from overproof.store.project_store import open_store

KILLS = int(os.environ.get("OVERPROOF_BACKUP_KILLS", "3"))
SEED = int(os.environ.get("OVERPROOF_SEED", "10"))


def record(number: int) -> TrafficRecord:
    return TrafficRecord(request=Request(id=f"r{number}", fields={"text": f"text {number} " * 20}))


def make_folder(number: int, recipe: str, *, workdir: Path) -> tuple:
    """Two files, the same for the same number."""
    (workdir / "out").mkdir()
    for name in ("a.bin", "b.bin"):
        (workdir / "out" / name).write_bytes(f"{name} {number} ".encode() * 2_000)
    return (number, Folder(path=workdir / "out"))


STEP = Step(name="make", version=1, fn=make_folder, workdir=True)


def fill(root: Path, start: int, count: int) -> None:
    """Rows, artifacts, and decisions that name the artifacts, as a run makes them."""
    with open_store(root) as store:
        for number in range(start, start + count):
            store.traffic.append([record(number)], "test")
            memo = store.memo()
            made = memo.run(STEP, memo.source("n", number), recipe="r")
            store.decisions.append("gate", actor="t", subject=f"run-{number}", body={"digests": {"made": made.digest}})


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    (root / "overproof.toml").write_text("# the user's file\n")
    fill(root, 0, 5)
    return root


def whole(root: Path) -> int:
    """Every decision's artifact loads with its folder; returns how many there are."""
    with open_store(root) as store:
        entries = list(store.decisions.read())
        for entry in entries:
            value = store.memo().stored("made", entry.body["digests"]["made"]).value
            assert store.objects.find(value[1].digest)
        return len(entries)


def test_a_restored_project_is_the_one_that_was_backed_up(project: Path, tmp_path: Path) -> None:
    """Same log by digest, same decisions, same files; the second backup copies only what is new."""
    with open_store(project) as store:
        first = back_up(store, tmp_path / "b")
        digest = store.traffic.snapshot_digest()
    done = restore(tmp_path / "b", tmp_path / "again")
    assert (done.snapshot, done.records, done.decisions) == (digest, 5, 5)
    assert first.copied == first.files
    assert whole(tmp_path / "again") == 5
    assert (tmp_path / "again" / "overproof.toml").read_text() == "# the user's file\n"
    fill(project, 5, 1)
    with open_store(project) as store:
        second = back_up(store, tmp_path / "b")
    assert 0 < second.copied < first.files / 2
    assert restore(tmp_path / "b", tmp_path / "third").records == whole(tmp_path / "third") == 6


def test_a_backup_while_another_process_writes_refers_to_nothing_that_it_lacks(project: Path, tmp_path: Path) -> None:
    """Taken again and again under a writer: each is of one moment, its chain holds, every artifact that it names is there."""
    writer = subprocess.Popen([sys.executable, __file__, "write", str(project)])
    try:
        counts = []
        for number in range(4):
            with open_store(project) as store:
                made = back_up(store, tmp_path / "b")
            back = restore(tmp_path / "b", tmp_path / f"r{number}")
            assert back.snapshot == made.snapshot
            assert back.records >= whole(tmp_path / f"r{number}") == back.decisions
            counts.append(back.records)
            time.sleep(0.2)
        assert writer.poll() is None
    finally:
        writer.kill()
        writer.wait()
    assert counts[-1] > 5, "the writer must have written"


@pytest.mark.slow
def test_a_backup_under_a_gateway_and_a_run_is_of_one_moment(tmp_path: Path) -> None:
    """Both in processes of their own, with requests all the time: each backup restores with its digest, and every artifact that a run names is there."""
    from tests.flows.conftest import Maker  # here: this file is a program as well
    from tests.serve.whole import Gateway, Teacher

    root, teacher = Maker.project(tmp_path / "project"), Teacher()
    with (root / "overproof.toml").open("a") as file:
        file.write(f'[gateway]\nallow_private = true\nupstream = "{teacher.url}"\ncapture = "before_ack"\n')
    gateway, over, answered = Gateway(root), threading.Event(), []

    def call() -> None:
        while not over.is_set():
            answered.append(gateway.chat(f"please charge my card again {len(answered)}").status)

    caller = threading.Thread(target=call)
    run = subprocess.Popen([sys.executable, "-m", "overproof.cli", "run", "--project", str(root), "--json"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    caller.start()
    made = []
    try:
        while run.poll() is None or len(made) < 3:
            with open_store(root) as store:
                made.append(back_up(store, tmp_path / f"b{len(made)}", since=tmp_path / f"b{len(made) - 1}" if made else None))
            time.sleep(2.0)
    finally:
        over.set()
        caller.join(60)
        run.kill()
        run.wait()
        assert gateway.stop() == 0
        teacher.close()
    print(f"{len(made)} backups, {len(answered)} requests")
    assert set(answered) == {200}
    for at, one in enumerate(made):
        back = restore(tmp_path / f"b{at}", tmp_path / "back")
        assert (back.snapshot, back.records) == (one.snapshot, one.records)
        with open_store(tmp_path / "back") as store:
            for row in store.objects.records().values():
                with store.objects.open_value(row["output"]) as file:
                    assert file.read(1)
                assert all(store.objects.find(folder) for folder in row["folders"])
        shutil.rmtree(tmp_path / "back")
    assert made[-1].records > made[0].records
    assert run.returncode in (0, 1)


def test_a_backup_that_is_killed_is_refused_and_an_earlier_one_stands(project: Path, tmp_path: Path) -> None:
    """kill -9 at random moments: a first backup has no manifest and is refused; a later one leaves the earlier one whole."""
    draw = random.Random(SEED)
    print(f"seed {SEED}, {KILLS} kills")
    with open_store(project) as store:
        began = time.monotonic()
        back_up(store, tmp_path / "earlier")
        took = time.monotonic() - began
    fill(project, 5, 3)
    for number in range(KILLS):
        first = number % 2 == 0
        target = tmp_path / f"first{number}" if first else tmp_path / "earlier"
        child = subprocess.Popen([sys.executable, __file__, "backup", str(project), str(target)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        time.sleep(draw.uniform(0, took))
        child.send_signal(signal.SIGKILL)
        child.communicate()
        into = tmp_path / f"into{number}"
        if first and not (target / MANIFEST).exists():
            with pytest.raises(CorruptArtifact, match=MANIFEST):
                restore(target, into)
            assert not into.exists()
        else:
            assert restore(target, into).records in (5, 8)
            whole(into)
    with open_store(project) as store:
        back_up(store, tmp_path / "earlier")
    assert restore(tmp_path / "earlier", tmp_path / "last").records == 8
    assert not list((tmp_path / "earlier").glob(".part-*"))


def test_a_backup_since_another_shares_its_files_and_stands_alone(project: Path, tmp_path: Path) -> None:
    """What has not changed is one place on the disk; the earlier backup stays as it was, and each restores without the other."""
    first, second = tmp_path / "first", tmp_path / "second"
    with open_store(project) as store:
        back_up(store, first)
        names = {path.name: path.stat().st_ino for path in (first / DATA).glob("*/*")}
    fill(project, 5, 1)
    with open_store(project) as store:
        done = back_up(store, second, since=first)
        assert [folder for folder, _ in store.erasing.backups()] == [str(first), str(second)]
    shared = {path.name for path in (second / DATA).glob("*/*") if names.get(path.name) == path.stat().st_ino}
    assert done.linked == len(shared) > 10
    assert done.copied == len(list((second / DATA).glob("*/*"))) - len(shared)
    assert restore(first, tmp_path / "one").records == whole(tmp_path / "one") == 5
    shutil.rmtree(first)
    assert restore(second, tmp_path / "two").records == whole(tmp_path / "two") == 6
    with open_store(project) as store, pytest.raises(CorruptArtifact):
        back_up(store, tmp_path / "third", since=first)


@pytest.mark.parametrize("into", ["another", "the same"])
def test_what_has_rotted_in_an_earlier_backup_is_copied_anew(project: Path, tmp_path: Path, into: str) -> None:
    """One bit of a file that both would share: the new backup is whole, an earlier one of its own is refused."""
    first = tmp_path / "first"
    with open_store(project) as store:
        back_up(store, first)
        blob = max((first / DATA).glob("*/*"), key=lambda path: path.read_bytes().count(b"a.bin"))
        raw = bytearray(blob.read_bytes())
        raw[len(raw) // 2] ^= 1
        blob.write_bytes(raw)
        target = tmp_path / "second" if into == "another" else first
        done = back_up(store, target, since=first if into == "another" else None)
    assert done.mended == 1
    assert restore(target, tmp_path / "good").records == whole(tmp_path / "good") == 5
    if into == "another":
        with pytest.raises(CorruptArtifact):
            restore(first, tmp_path / "bad")


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "manifest", "row"])
def test_a_changed_backup_is_refused_before_anything_is_written(project: Path, tmp_path: Path, damage: str) -> None:
    """One byte in one file is enough."""
    with open_store(project) as store:
        back_up(store, tmp_path / "b")
    blob = max((tmp_path / "b" / DATA).glob("*/*"), key=lambda path: path.stat().st_size)
    manifest = tmp_path / "b" / MANIFEST
    if damage == "flip":
        raw = bytearray(blob.read_bytes())
        raw[len(raw) // 2] ^= 1
        blob.write_bytes(raw)
    elif damage == "cut":
        os.truncate(blob, blob.stat().st_size - 1)
    elif damage == "gone":
        blob.unlink()
    elif damage == "manifest":
        os.truncate(manifest, manifest.stat().st_size // 2)
    else:
        body = json.loads(manifest.read_text())
        body["files"][-1][0] = "../outside"
        manifest.write_text(json.dumps(body))
    with pytest.raises(CorruptArtifact):
        restore(tmp_path / "b", tmp_path / "into")
    assert not (tmp_path / "into").exists()


def test_neither_end_overwrites_what_is_something_else(project: Path, tmp_path: Path) -> None:
    """A folder with other files is no target, the project itself neither; a restore needs an empty folder."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear all")
    with open_store(project) as store:
        for target in (tmp_path / "full", project / "backup"):
            with pytest.raises(StoreError):
                back_up(store, target)
        back_up(store, tmp_path / "b")
    with pytest.raises(StoreError):
        restore(tmp_path / "b", tmp_path / "full")
    assert (tmp_path / "full" / "letter.txt").read_text() == "dear all"


def test_a_folder_beside_the_project_may_be_named_from_inside_it(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path with ".." is where it leads to, not where it begins; inside stays refused however it is spelled."""
    monkeypatch.chdir(project)
    with open_store(project) as store:
        assert back_up(store, Path("../beside")).target == str((tmp_path / "beside").resolve())
        with pytest.raises(StoreError, match="inside the project"):
            back_up(store, Path("../beside/..") / project.name / "copy")


def test_what_was_erased_leaves_the_next_backup(project: Path, tmp_path: Path) -> None:
    """Files that the project no longer has are taken out of the backup."""
    with open_store(project) as store:
        back_up(store, tmp_path / "b")
        shutil.rmtree(store.home / "objects")
        back_up(store, tmp_path / "b")
    assert not any(b"a.bin 3" in path.read_bytes() for path in (tmp_path / "b" / DATA).glob("*/*"))


def test_the_verbs_say_what_they_did(project: Path, tmp_path: Path) -> None:
    """`overproof backup` and `overproof restore`, with exit code 4 for a backup that was cut off."""
    run = CliRunner().invoke
    assert run(main, ["backup", "--project", str(project), str(tmp_path / "b"), "--json"]).exit_code == 0
    back = run(main, ["restore", str(tmp_path / "b"), str(tmp_path / "again"), "--json"])
    assert json.loads(back.stdout)["records"] == 5
    (tmp_path / "b" / MANIFEST).unlink()
    assert run(main, ["restore", str(tmp_path / "b"), str(tmp_path / "never")]).exit_code == 4


if __name__ == "__main__":
    what, place, *rest = sys.argv[1:]
    if what == "backup":
        with open_store(Path(place)) as opened:
            print("ready", flush=True)
            back_up(opened, Path(rest[0]))
    else:
        for at in range(100, 100_000):
            fill(Path(place), at, 1)
