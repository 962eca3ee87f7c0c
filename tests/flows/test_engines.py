"""The road with its heavy steps on Ray: real workers, real HTTP, the same bytes."""

import shutil

import pytest
from tests.flows.test_endpoint import TEACHER, read, serving, with_endpoint

from overproof.pipeline import distil
from overproof.project import load_project
from overproof.store.project_store import open_store

pytest.importorskip("ray")


def walk(root, engine):
    """All candidates fitted and asked; what they are, and what the ledger counted."""
    with open_store(root) as store:
        result = distil(store, load_project(root, overrides=(f'run.engine="{engine}"', "run.workers=2")), to="train")
        fitted = {e.subject: e.digest for e in result.events if e.step == "train"}
        asked = [store.memo().stored("scores", e.digest).value for e in result.events if e.step in ("predict-dev", "predict-test")]
        answers = result.artifacts["answers"].value
        said = [c.value for split in (answers.train, answers.calibration, answers.test) for row in split for c in row.completions]
        return fitted, [(s.name, s.folder.digest) for s in asked], said, store.ledger.counts().labels


@pytest.mark.slow  # its parts are in tests/engines
def test_ray_and_this_process_give_the_same_bytes(make, tmp_path) -> None:
    """Labels, students and scores by digest, with a teacher behind HTTP that workers call; every label is paid once."""
    easy, other = tmp_path / "easy", tmp_path / "other"
    shutil.copytree(make.project(easy, make.rows(300)), other)
    with serving(read, model=TEACHER) as server:
        here, first = walk(with_endpoint(easy, server.port), "local"), server.stats.wire
        there, both = walk(with_endpoint(other, server.port), "ray"), server.stats.wire
    assert there == here
    assert both == 2 * first > 600
