"""Power cuts over a recording of the stores' real system calls; `make bench-reliability` makes 10,000 of them."""

import os
import random
import shutil
import sys
from pathlib import Path

import pytest
from benchmarks.reliability import power
from benchmarks.reliability.disk import Disk, record

from overproof.store.local import Db
from overproof.store.schema import TRAFFIC_SCHEMA

CUTS = int(os.environ.get("OVERPROOF_CUTS", "2000"))
strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace records the system calls")


@strace
@pytest.mark.parametrize("n", [40, pytest.param(CUTS, marks=[pytest.mark.slow, pytest.mark.timeout(7200)])])
def test_a_power_cut_loses_nothing_that_was_acknowledged_and_tears_nothing(n):
    """Rows, labels, reviews, decisions, artifacts, the secret: there, whole, and every database sound."""
    seed = 7
    wrong, cases, _ = power.campaign(n, seed)
    print(f"seed {seed}, {dict(wrong)}")
    assert not cases
    assert wrong == {"cuts": n}


@strace
@pytest.mark.parametrize("mode", ["no fsync", "normal"])
def test_the_cuts_find_a_store_that_does_not_sync(mode):
    """Without fsync of files, or with the faster setting of SQLite, acknowledged rows are lost: the test can fail."""
    wrong, _, _ = power.campaign(30, 3, mode)
    assert wrong["rows lost"] > 0


@strace
def test_a_folder_that_was_never_synced_loses_its_name_and_a_file_its_end(tmp_path):
    """The model itself: what is synced stays, what is not may go, sector by sector and name by name."""
    code = (
        "import os, sys; r = sys.argv[1]; h = os.open(r + '/a', os.O_CREAT | os.O_RDWR); os.write(h, b'x' * 1000); os.fsync(h)\n"
        "d = os.open(r, os.O_RDONLY); os.fsync(d); os.pwrite(h, b'y' * 1000, 0); os.mkdir(r + '/b'); os.write(1, b'said\\n')"
    )
    (tmp_path / "root").mkdir()
    ops = record([sys.executable, "-c", code, str(tmp_path / "root")], tmp_path / "root")
    disk = Disk(ops)
    disk.advance(len(ops))
    assert disk.said == ["said"]
    left = set()
    for seed in range(60):
        place = tmp_path / str(seed)
        disk.cut(random.Random(seed), place)
        left.add(((place / "a").read_bytes(), (place / "b").exists()))
    assert {there for _, there in left} == {True, False}
    ends = {text for text, _ in left}
    assert ends == {b"x" * 1000, b"y" * 1000, b"y" * 512 + b"x" * 488, b"x" * 512 + b"y" * 488}


def test_a_journal_that_a_cut_left_beside_a_fresh_log_is_rolled_back(tmp_path):
    """The switch to the write-ahead log, cut between two names: the file opens, and takes rows."""
    made = Db(tmp_path / "whole.db", TRAFFIC_SCHEMA[:0])
    made.close()
    page = (tmp_path / "whole.db").read_bytes()[:4096]
    header = bytes.fromhex("d9d505f920a163d7") + (0).to_bytes(4, "big") + bytes(4) + (0).to_bytes(4, "big") + (512).to_bytes(4, "big") + (4096).to_bytes(4, "big")
    broken = tmp_path / "a.db"
    broken.write_bytes(page)
    Path(f"{broken}-journal").write_bytes(header.ljust(512, b"\0"))
    Path(f"{broken}-wal").write_bytes(b"\0" * 32)
    db = Db(broken, TRAFFIC_SCHEMA)
    assert db.check() == []
    assert db.rows("SELECT count(*) FROM record") == [(0,)]
    db.close()
