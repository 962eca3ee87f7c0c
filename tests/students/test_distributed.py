import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tests.students.tiny import write_tiny

from overproof.errors import DataError, StoreError
from overproof.progress import reporter
from overproof.students import distributed
from overproof.students.checkpoints import Checkpoint
from overproof.students.encoder import EncoderStudent

TUNE = {"epochs": 2, "rate": 1e-3, "head_rate": 1e-2, "held_out": 0.4, "batch": 7, "dropout": 0.0, "precision": "float32"}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("small") / "encoder")


def student_of(small, rows, **tune):
    return EncoderStudent(labels=rows.labels, weights=f"folder:{small}", max_tokens=32, tune={**TUNE, **tune})


def fit(small, rows, folder, **tune):
    folder.mkdir()
    student = student_of(small, rows, **tune)
    student.fit(rows, workdir=folder)
    return student


def facts_of(folder):
    return json.loads((folder / "student.json").read_text())["facts"]["tuned"]


@pytest.fixture(scope="module")
def two(small, train_set, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two") / "student"
    return fit(small, train_set, folder, processes=2), folder


def test_two_processes_learn_what_one_learns(small, train_set, two, tmp_path):
    """Steps over shared batches, some smaller than the team, leave the same logits as one process to a thousandth."""
    alone = fit(small, train_set, tmp_path / "alone")
    start = fit(small, train_set, tmp_path / "start", epochs=1, rate=1e-8, head_rate=1e-8)
    requests = [e.request for e in train_set.examples]
    one, together = alone.logits(requests), two[0].logits(requests)
    np.testing.assert_allclose(together, one, atol=1e-3)
    assert np.abs(one - start.logits(requests)).max() > 0.05  # the steps moved it, so that equal means something
    assert facts_of(two[1]) == {**facts_of(tmp_path / "alone"), "processes": 2}


WORKER = """
import os, signal, sys, time
from pathlib import Path
import torch
from overproof.students import checkpoints, distributed, finetune

checkpoints.EVERY_S = 0.0
step = finetune._Training._step

def dies(self, rows, done):
    Path(__file__).with_name(f"seed.{{self.team.rank}}.{{self.at['step']}}").write_text(str(torch.initial_seed()))
    if self.at["step"] == {at} and self.team.rank == {rank}:
        {what}
    step(self, rows, done)

finetune._Training._step = dies
distributed.main(Path(sys.argv[1]), relay="relay" in sys.argv[2:])
"""
PARENT = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from conftest import make_train
from overproof.students import distributed
from overproof.students.encoder import EncoderStudent

rows = make_train(json.loads((Path(sys.argv[1]) / "messages.json").read_text(encoding="utf-8")))
distributed.WORKER = (sys.argv[2],)
student = EncoderStudent(labels=rows.labels, weights="folder:" + sys.argv[3], max_tokens=32, tune=json.loads(sys.argv[6]))
student.checkpoints = Path(sys.argv[5])
student.fit(rows, workdir=Path(sys.argv[4]))
"""


def worker(tmp_path, *, at, rank, what):
    path = tmp_path / "worker.py"
    path.write_text(WORKER.format(at=at, rank=rank, what=what))
    return path


def running(mark):
    """Processes whose command names a folder."""
    found = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in found if str(mark) in line]


def breaks(small, train_set, tmp_path, monkeypatch, *, what, error, said):
    """Process 1 does something at the fourth step; what the fit leaves then."""
    with monkeypatch.context() as patch:
        patch.setattr(distributed, "WORKER", (str(worker(tmp_path, at=3, rank=1, what=what)),))
        student = student_of(small, train_set, processes=2)
        student.checkpoints = tmp_path / "kept"
        (tmp_path / "s").mkdir()
        with pytest.raises(error, match=said):
            student.fit(train_set, workdir=tmp_path / "s")
    assert not list((tmp_path / "s").iterdir())
    assert [p.suffix for p in (tmp_path / "kept").iterdir() if p.suffix != ".tmp"] == [".safetensors"]
    assert not running(tmp_path)


@pytest.mark.slow
def test_a_process_that_dies_ends_the_fit_and_the_next_one_goes_on(small, train_set, two, tmp_path, monkeypatch):
    """The killed process is named; no student, no row and no process is left; run again, the student equals an undisturbed one to the byte."""
    said = r"process 1 of the 2 that train the encoder was ended by signal 9\n.*run again"
    breaks(small, train_set, tmp_path, monkeypatch, what="os.kill(os.getpid(), signal.SIGKILL)", error=StoreError, said=said)
    seeds = [path.read_text() for path in tmp_path.glob("seed.*")]
    assert len(set(seeds)) == len(seeds) >= 7  # no two processes drop the same states, nor two steps
    student, bars = student_of(small, train_set, processes=2), []
    student.checkpoints = tmp_path / "kept"

    class Bars:
        def start(self, what, total):
            bars.append([what, total, 0])
            return lambda n: bars[-1].__setitem__(2, bars[-1][2] + max(n, 0))

    (tmp_path / "again").mkdir()
    token = reporter.set(Bars())
    student.fit(train_set, workdir=tmp_path / "again")
    reporter.reset(token)
    steps = facts_of(two[1])["steps"]
    assert 0 < student.resumed_at < steps
    assert ["training the encoder", steps - student.resumed_at, steps - student.resumed_at] in bars
    for path in two[1].iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name
    assert not [p for p in student.checkpoints.iterdir() if p.suffix != ".tmp"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "error", "said"),
    [
        ("raise RuntimeError('no luck')", StoreError, r"process 1 of the 2 .* ended: RuntimeError: no luck"),
        ("next(iter(self.learned.values())).data.add_(1)", DataError, r"1 of 2 training processes have another state"),
    ],
)
def test_a_process_that_fails_or_drifts_ends_the_fit(small, train_set, tmp_path, monkeypatch, what, error, said):
    """The cause is said, not what the other process saw of it; weights that differ are never trained on."""
    breaks(small, train_set, tmp_path, monkeypatch, what=what, error=error, said=said)


@pytest.mark.slow
def test_a_killed_fit_takes_its_processes_along(small, tmp_path):
    """The parent killed, its processes end by themselves before they are done."""
    dead = tmp_path / "dead"
    waits = worker(tmp_path, at=5, rank=0, what=f"while not Path({str(dead)!r}).exists(): time.sleep(0.01)")
    tune, kept, folder = {**TUNE, "processes": 2}, tmp_path / "kept", tmp_path / "killed"
    folder.mkdir()
    command = [sys.executable, "-c", PARENT, str(Path(__file__).parent), str(waits), str(small), str(folder), str(kept), json.dumps(tune)]
    with subprocess.Popen(command) as child:
        while not list(kept.glob("*.safetensors")) and child.poll() is None:
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    dead.touch()
    ends = time.monotonic() + 60
    while running(tmp_path) and time.monotonic() < ends:
        time.sleep(0.1)
    assert not running(tmp_path)
    assert not list(folder.iterdir())
    (state,) = kept.glob("*.safetensors")
    assert Checkpoint(kept, state.stem).load()[1]["step"] < 12


@pytest.mark.slow
def test_two_launchers_train_as_over_two_machines(small, train_set, two, tmp_path, monkeypatch):
    """With torchrun's own variables set, the fit is one machine of two, and ends in the bytes of two processes on one, given as many threads."""
    import socket

    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # torchrun's own choice where it starts several on one machine

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in {"NNODES": "2", "NPROC_PER_NODE": "1", "RDZV_BACKEND": "c10d", "RDZV_ENDPOINT": f"127.0.0.1:{port}"}.items():
        monkeypatch.setenv(f"PET_{name}", value)
    kept = tmp_path / "kept"
    command = [sys.executable, "-m", "torch.distributed.run", "-m", "overproof.students.distributed", str(kept / distributed.SHARED)]
    with subprocess.Popen(command) as other:
        student = student_of(small, train_set, processes=2)
        student.checkpoints = kept
        (tmp_path / "s").mkdir()
        student.fit(train_set, workdir=tmp_path / "s")
    assert other.returncode == 0
    assert (tmp_path / "s" / "model.onnx").read_bytes() == (two[1] / "model.onnx").read_bytes()
    assert not list(kept.iterdir())


@pytest.mark.parametrize("processes", [0, 1.5, 8, True])
def test_a_number_of_processes_that_cannot_be_is_refused(processes):
    """Whole, at least one, and no more than the rows of a batch."""
    with pytest.raises(DataError, match="'processes'"):
        EncoderStudent(labels=("a", "b"), tune={**TUNE, "processes": processes})
