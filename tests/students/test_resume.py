"""A generator's training survives a kill: the same bytes, fewer steps, and never another training's state."""

import contextlib
import signal
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256

import pytest
from tests.students.resuming import CAUSAL, base_of, make, rows_of, steps_of

from overproof.errors import DataError
from overproof.students import checkpoints
from overproof.students.checkpoints import Checkpoint
from overproof.students.spans import fitting
from overproof.students.spans.training import train

KINDS = ["span.v1", "causal.v1"]


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    return {kind: base_of(kind, tmp_path_factory.mktemp("base")) for kind in KINDS}


def fit(kind, base, folder, kept, *, rows=None, **options):
    folder.mkdir()
    generator = make(kind, base, **options)
    generator.checkpoints = kept
    steps = steps_of(lambda: generator.fit(rows or rows_of(kind), workdir=folder))
    return generator, steps


@pytest.fixture(scope="module")
def calm(bases, tmp_path_factory):
    """For each kind, what an undisturbed training leaves and how many steps it runs."""
    found = {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp("calm") / "student"
        found[kind] = (folder, fit(kind, bases[kind], folder, None)[1])
    return found


def equal(one, other):
    return {p.name: p.read_bytes() for p in one.iterdir()} == {p.name: p.read_bytes() for p in other.iterdir()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_training_goes_on_where_it_was(bases, calm, kind, tmp_path):
    """Killed inside an epoch and run again, the files equal those of an undisturbed run to the byte, and fewer steps are run."""
    undisturbed, all_steps = calm[kind]
    kept, killed = tmp_path / "kept", tmp_path / "killed"
    killed.mkdir()
    command = [sys.executable, "-m", "tests.students.resuming", kind, bases[kind], str(kept), str(killed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        for line in child.stdout:
            if line == "step 13\n":
                child.send_signal(signal.SIGKILL)
                break
    assert child.returncode == -signal.SIGKILL
    assert not (killed / "student.json").exists()
    assert [p.suffix for p in kept.iterdir() if p.suffix != ".tmp"] == [".safetensors"]
    generator, steps = fit(kind, bases[kind], tmp_path / "again", kept)
    assert 12 <= generator.resumed_at < all_steps
    assert steps == all_steps - generator.resumed_at
    assert equal(undisturbed, tmp_path / "again")
    assert not [p for p in kept.iterdir() if p.suffix != ".tmp"]


class Stopped(Exception):
    pass


def stop_at(monkeypatch, step):
    """Saves after every step, and the training dies right after one of them."""
    monkeypatch.setattr(checkpoints, "EVERY_S", 0.0)
    real, count = Checkpoint.save, [0]

    def save(self, arrays, facts):
        real(self, arrays, facts)
        count[0] += 1
        if count[0] == step:
            raise Stopped

    monkeypatch.setattr(Checkpoint, "save", save)


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_same_training_is_taken_up(bases, calm, kind, tmp_path, monkeypatch):
    """A state of other rows, another seed or another option is left alone, and so is a torn one of the same training."""
    with monkeypatch.context() as patched:
        stop_at(patched, 3)
        with pytest.raises(Stopped):
            fit(kind, bases[kind], tmp_path / "stopped", tmp_path / "kept")
    (state,) = (tmp_path / "kept").iterdir()
    rows = rows_of(kind)
    heavier = replace(rows, examples=(replace(rows.examples[0], weight=2.0), *rows.examples[1:]))
    option = {"rate": 1e-3} if kind == "span.v1" else {"training": {**CAUSAL, "rate": 0.01}}
    short = {"views": 40, "rounds": 2} if kind == "span.v1" else {"training": {**CAUSAL, "epochs": 1}}
    for at, (given, options) in enumerate([(heavier, {}), (rows, {"seed": 4}), (rows, option), (rows, short)]):
        with monkeypatch.context() as patched:
            stop_at(patched, 1)
            with pytest.raises(Stopped):
                fit(kind, bases[kind], tmp_path / f"other{at}", tmp_path / "kept", rows=given, **options)
        assert len(list((tmp_path / "kept").iterdir())) == at + 2
    state.write_bytes(state.read_bytes()[:-100])
    torn, steps = fit(kind, bases[kind], tmp_path / "torn", tmp_path / "kept")
    undisturbed, all_steps = calm[kind]
    assert (torn.resumed_at, steps) == (0, all_steps)
    assert equal(undisturbed, tmp_path / "torn")
    assert not state.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_that_stops_after_its_last_step_is_not_run_again(bases, calm, kind, tmp_path, monkeypatch):
    """Where what follows the training fails, its state stays, and the next run trains nothing; the bytes are the same."""
    undisturbed, all_steps = calm[kind]
    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "EVERY_S", 0.0)
        patched.setattr("overproof.students." + ("span" if kind == "span.v1" else "causal") + ".write_generator", _fail)
        with pytest.raises(Stopped):
            fit(kind, bases[kind], tmp_path / "stopped", tmp_path / "kept")
    generator, steps = fit(kind, bases[kind], tmp_path / "again", tmp_path / "kept")
    assert (generator.resumed_at, steps) == (all_steps, 0)
    assert equal(undisturbed, tmp_path / "again")


def _fail(*args, **kwargs):
    raise Stopped


def test_a_training_that_was_stopped_early_stays_stopped(bases, tmp_path, monkeypatch):
    """A state that was saved when patience ended trains no further step: answers without sense are soon learned no better."""
    rows = rows_of("causal.v1")
    rows = replace(rows, examples=tuple(replace(e, target=sha256(e.request.id.encode()).hexdigest()[:8]) for e in rows.examples))
    given = {"rows": rows, "training": {**CAUSAL, "rate": 0.05, "patience": 1, "epochs": 40}}
    _, stopped_at = fit("causal.v1", bases["causal.v1"], tmp_path / "calm", None, **given)
    assert stopped_at < 40 * 7
    monkeypatch.setattr(checkpoints, "EVERY_S", 0.0)
    with monkeypatch.context() as patched:
        patched.setattr("overproof.students.causal.write_generator", _fail)
        with pytest.raises(Stopped):
            fit("causal.v1", bases["causal.v1"], tmp_path / "stopped", tmp_path / "kept", **given)
    generator, steps = fit("causal.v1", bases["causal.v1"], tmp_path / "again", tmp_path / "kept", **given)
    assert (generator.resumed_at, steps) == (stopped_at, 0)
    assert equal(tmp_path / "calm", tmp_path / "again")


def test_the_best_round_is_kept_over_a_kill(bases, tmp_path, monkeypatch):
    """Where a round before the kill was judged the best, its weights are the student's after it."""
    found = {}
    for name, stop in (("calm", 10**6), ("stopped", 16), ("again", 10**6)):
        scores = [0.1, 0.9, 0.2, 0.1][2 if name == "again" else 0 :]
        with monkeypatch.context() as patched:
            stop_at(patched, stop)
            patched.setattr(fitting, "train", lambda *a, scores=scores, **given: train(*a, **{**given, "check": lambda model: scores.pop(0)}))
            with contextlib.suppress(Stopped):
                found[name], _ = fit("span.v1", bases["span.v1"], tmp_path / name, None if name == "calm" else tmp_path / "kept")
    assert "stopped" not in found
    assert found["again"].resumed_at == 14  # in the third round of five steps
    assert found["again"].facts["round"] == 2
    assert equal(tmp_path / "calm", tmp_path / "again")


def test_a_training_that_ran_away_is_said(bases, tmp_path):
    """Weights too large for the file's numbers are an error with a way out, not an answer."""
    with pytest.raises(DataError, match="no numbers") as caught:
        fit("causal.v1", bases["causal.v1"], tmp_path / "wild", None, training={**CAUSAL, "rate": 0.9})
    assert "rate" in caught.value.next_action
