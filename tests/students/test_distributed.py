import json
import os
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
