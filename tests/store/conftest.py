"""The tests of the store on Postgres, where OVERPROOF_TEST_DSN names a server: each folder gets schemas of its own there."""

import hashlib
import os

import pytest

from overproof.store import place, project_store

DSN = "OVERPROOF_TEST_DSN"


OF_THE_FILE = {  # they look into SQLite's own file, or hold what is SQLite's alone; test_remote.py has their like
    "test_keys.py": ["revoked_once"], "test_logs.py": ["through_the_database", "tampered", "forged", "first_schema"], "test_reviews.py": ["neither_changed"],
    "test_looks.py": ["older_schema"], "test_releases.py": ["older_schema"], "test_watch.py": ["write_that_fails"], "test_local.py": [""], "test_batches.py": ["killed_at"],
    "test_glance.py": ["from_the_index"],
}  # fmt: skip


def pytest_collection_modifyitems(items):
    if os.environ.get(DSN):
        for item in items:
            if any(part in item.name for part in OF_THE_FILE.get(item.path.name, ())):
                item.add_marker(pytest.mark.skip(reason="about SQLite's file"))


@pytest.fixture(autouse=True)
def on_postgres(monkeypatch, tmp_path):
    if not os.environ.get(DSN):
        return

    def remote(home):
        if not (home / place.NAME).exists():
            home.mkdir(exist_ok=True)
            place.put_remote(home, place.Remote(dsn_env=DSN, schema=f"t{hashlib.sha256(str(home).encode()).hexdigest()[:16]}"))
        return place.remote_of(home)  # a file, so that child processes of a test find the same server

    remote(tmp_path / project_store.HOME)
    monkeypatch.setattr(project_store, "remote_of", remote)
