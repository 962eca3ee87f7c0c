"""The whole road on Postgres, as on files: what doesn't hold measured times has the same digest."""

import os

import pytest
from tests.postgres import running

from overproof.pipeline import distil
from overproof.project import load_project
from overproof.runs import runs_of
from overproof.store.place import Remote, put_remote
from overproof.store.project_store import HOME, open_store

TIMED = {"standing", "dossier", "plan", "verdict", "report", "evidence"}  # two runs on files differ in these as well


def digests(root):
    """What a run on this folder's store came to, by name."""
    with open_store(root) as store:
        verdict = distil(store, load_project(root)).verdict
        return type(verdict).__name__, {name: digest for name, digest in runs_of(store)[-1].digests.items() if name not in TIMED}, store.traffic.snapshot_digest()


def test_the_same_run_on_both_engines_has_the_same_digests(tmp_path, maker):
    """Log, prompt set, labels, filter, training rows, students: byte for byte; and the same verdict."""
    found = maker.rows(900)
    for name in ("files", "server"):
        (tmp_path / name).mkdir()
    here, there = maker.project(tmp_path / "files" / "easy", found), tmp_path / "server" / "easy"
    with running() as server:
        os.environ["OVERPROOF_BOTH"] = server.dsn
        try:
            (there / HOME).mkdir(parents=True)
            put_remote(there / HOME, Remote(dsn_env="OVERPROOF_BOTH", schema="easy"))
            maker.project(there, found)
            on_files, on_server = digests(here), digests(there)
        finally:
            del os.environ["OVERPROOF_BOTH"]
    assert not (there / HOME / "traffic.db").exists()
    assert on_files[0] == on_server[0]
    assert on_files[2] == on_server[2]
    differ = {name for name in on_files[1] if on_files[1][name] != on_server[1].get(name)}
    assert not differ
    assert len(on_files[1]) > 5


def test_without_a_server_nothing_here_is_tried(monkeypatch):
    """A skip is said, never a pass."""
    monkeypatch.setattr("tests.postgres.server_folder", lambda: None)
    with pytest.raises(pytest.skip.Exception, match="no Postgres"), running():
        pass
