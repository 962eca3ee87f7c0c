"""Too little memory in the middle of a run: what is said, what is kept, and how the next run goes on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.faults.hungry import HOW
from tests.flows.conftest import make_project, rows

from overproof.errors import OutOfMemory
from overproof.steps.train import StudentRecipe, train
from overproof.store.project_store import open_store
from overproof.testing import tiny_train_set


class Endless:
    """A part whose first allocation is more than any machine has."""

    def __init__(self, *, labels, tune=None, seed=0):
        self.labels = labels

    def fit(self, train, *, workdir):
        import numpy as np

        np.ones(1 << 62, dtype=np.uint8)


class Said(Endless):
    """As torch says it."""

    def fit(self, train, *, workdir):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 68719476736 bytes.")


@pytest.mark.parametrize(("part", "options", "word"), [("Endless", {"tune": {"batch": 32}}, "its batch to 16"), ("Said", {}, "a smaller batch")])
def test_a_student_for_which_memory_is_too_little_is_named_with_what_to_do(tmp_path, part, options, word):
    """The allocation fails; the error names the student and half of its batch, and nobody trains another one instead."""
    with pytest.raises(OutOfMemory, match="'big'") as caught:
        train(tiny_train_set(), StudentRecipe(name="big", use=f"{__name__}:{part}", options=options), workdir=tmp_path)
    assert word in caught.value.next_action


def run(root, how):
    """`overproof run` to the end of training, in a process of its own."""
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "overproof.cli", "run", "--project", str(root), "--to", "train"]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": path, HOW: how}, capture_output=True, text=True, check=False)


def steps(root):
    """What each step gave that holds no measured times; each of it can be read."""
    with open_store(root) as store:
        found = sorted((path.parent.name, json.loads(path.read_bytes())["output"]) for path in (store.home / "steps").rglob("*.json"))
        for _, digest in found:
            store.objects.get_value(digest)
    return [one for one in found if not one[0].startswith("predict-")]


@pytest.mark.slow
@pytest.mark.parametrize(("how", "code"), [("limit", 4), ("kill", -9)])
def test_a_run_that_memory_ends_keeps_what_was_finished_and_the_next_one_goes_on(tmp_path, how, code):
    """Under RLIMIT_AS, and under SIGKILL as the kernel's killer sends it: nothing half written, and the end is that of an undisturbed run."""
    roots = []
    for name in ("easy", "calm"):
        (tmp_path / name).mkdir()
        root = make_project(tmp_path / name / "easy", rows(120))
        text = (root / "overproof.toml").read_text().replace('use = "ngram.v1"', 'use = "tests.faults.hungry:Hungry"\nbatch = 64')
        (root / "overproof.toml").write_text(text)
        terms = (root / "terms.toml").read_text()
        (root / "terms.toml").write_text(terms.replace('"classifier"', '"generative"'))  # what a part of one's own may be
        roots.append(root)
    ended = run(roots[0], how)
    assert ended.returncode == code, ended.stderr
    assert "half" not in [path.name for path in roots[0].rglob("*") if "tmp" not in str(path.relative_to(roots[0]))]
    if how == "limit":
        assert "'small'" in ended.stderr
        assert "batch to 32" in ended.stderr
    kept = steps(roots[0])
    assert [name for name, _ in kept].count("train") == 1  # the candidate before it
    for root in roots:
        done = run(root, "")
        assert done.returncode == 0, done.stderr
    assert steps(roots[0]) == steps(roots[1])
    assert set(kept) < set(steps(roots[1]))
