"""The database wrapper: durable, versioned, one process per role, and clear when something is in the way."""

import hashlib
import os
import signal
import subprocess
import sys
import threading

import apsw
import pytest

from overproof.errors import CorruptArtifact, StoreError
from overproof.store import local
from overproof.store.local import Db, Role, wal_is_safe
from overproof.store.project_store import open_store
from overproof.store.schema import PROJECT_SCHEMA, TRAFFIC_SCHEMA

V1 = "CREATE TABLE t(x INTEGER) STRICT"
V2 = "ALTER TABLE t ADD COLUMN y TEXT"


def put(db, *numbers):
    with db.write() as connection:
        for number in numbers:
            connection.execute("INSERT INTO t(x) VALUES(?)", (number,))


def got(db):
    return [row[0] for row in db.rows("SELECT x FROM t ORDER BY x")]


@pytest.mark.parametrize(
    ("version", "safe"),
    [((3, 6, 23), True), ((3, 7, 0), False), ((3, 40, 1), False), ((3, 44, 5), False), ((3, 44, 6), True),
     ((3, 50, 6), False), ((3, 50, 7), True), ((3, 51, 2), False), ((3, 51, 3), True), ((3, 54, 1), True)],
)  # fmt: skip
def test_engines_with_the_wal_race_are_known(version, safe):
    """Write-ahead logging is used only with engines that don't lose committed rows."""
    assert wal_is_safe(version) is safe


@pytest.mark.parametrize("schema", [PROJECT_SCHEMA, TRAFFIC_SCHEMA])
def test_the_pragmas_are_in_force(tmp_path, schema):
    """Full synchronisation, foreign keys and the rest really hold on the connection, and all tables are STRICT."""
    db = Db(tmp_path / "a.db", schema)
    with db.write() as connection:
        seen = {name: connection.pragma(name) for name in ("synchronous", "foreign_keys", "secure_delete", "mmap_size")}
        assert connection.pragma("journal_mode") == "wal"
    assert seen == {"synchronous": 2, "foreign_keys": 1, "secure_delete": 1, "mmap_size": 0}
    assert db.rows("SELECT name FROM pragma_table_list WHERE strict=0 AND name NOT LIKE 'sqlite%'") == []
    assert db.check() == []
    db.close()


def test_an_unsafe_engine_falls_back_with_one_warning(tmp_path, monkeypatch):
    """With an unsafe engine the rollback journal is used and a warning says so; rows still survive."""
    monkeypatch.setattr(local, "engine_version", lambda: "3.40.1")
    with pytest.warns(RuntimeWarning, match=r"3\.40\.1"):
        db = Db(tmp_path / "a.db", (V1,))
    put(db, 1)
    with db.write() as connection:
        assert connection.pragma("journal_mode") == "delete"
    assert got(db) == [1]
    db.close()


def test_a_block_that_raises_changes_nothing(tmp_path):
    """A write block is all or nothing, and the next one works."""
    db = Db(tmp_path / "a.db", (V1,))

    def half():
        with db.write() as connection:
            connection.execute("INSERT INTO t(x) VALUES(1)")
            raise KeyError

    with pytest.raises(KeyError):
        half()
    put(db, 2)
    assert got(db) == [2]
    db.close()


def test_a_newer_schema_is_refused_without_changing_a_byte(tmp_path):
    """A database of a newer version is left exactly as it is, also when its newest rows are still in the log."""
    path = tmp_path / "a.db"
    newer = Db(path, (V1, V2, "CREATE TABLE u(z INTEGER) STRICT"))
    put(newer, 1)

    def state():
        return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in tmp_path.iterdir() if p.suffix != ".db-shm"}

    with_log = state()
    assert f"{path.name}-wal" in with_log
    with pytest.raises(StoreError, match="newer version") as error:
        Db(path, (V1,))
    assert "upgrade" in error.value.next_action
    assert state() == with_log
    newer.close()
    closed = state()
    with pytest.raises(StoreError, match="schema 3, this one knows 1"):
        Db(path, (V1,))
    assert state() == closed


def test_an_older_schema_is_migrated_with_a_backup(tmp_path):
    """Rows survive a migration, and the file as it was before lies beside it."""
    db = Db(tmp_path / "a.db", (V1,))
    put(db, 1, 2)
    db.close()
    db = Db(tmp_path / "a.db", (V1, V2))
    assert db.rows("SELECT x, y FROM t ORDER BY x") == [(1, None), (2, None)]
    db.close()
    (tmp_path / "a.db.v1.bak").rename(tmp_path / "old.db")
    old = Db(tmp_path / "old.db", (V1,))
    assert got(old) == [1, 2]
    old.close()


def test_a_migration_that_fails_changes_nothing(tmp_path):
    """A broken migration leaves schema and rows as they were."""
    db = Db(tmp_path / "a.db", (V1,))
    put(db, 1)
    db.close()
    with pytest.raises(apsw.SQLError):
        Db(tmp_path / "a.db", (V1, V2, "CREATE NONSENSE"))
    db = Db(tmp_path / "a.db", (V1,))
    assert [row[1] for row in db.rows("PRAGMA table_info(t)")] == ["x"]
    assert got(db) == [1]
    db.close()


def test_a_file_that_is_no_database_is_refused(tmp_path):
    """A file of other content raises CorruptArtifact and is not overwritten."""
    (tmp_path / "a.db").write_bytes(b"this is not a database" * 100)
    with pytest.raises(CorruptArtifact, match="damaged"):
        Db(tmp_path / "a.db", (V1,))
    assert (tmp_path / "a.db").read_bytes() == b"this is not a database" * 100


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs", "9p"])
def test_network_file_systems_are_refused(tmp_path, monkeypatch, kind):
    """On a network file system nothing is created, and the message says to use a local disk."""
    monkeypatch.setattr(local, "file_system_of", lambda _: kind)
    with pytest.raises(StoreError, match=kind) as error:
        Db(tmp_path / "a.db", (V1,))
    assert "local disk" in error.value.next_action
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_file_system_is_that_of_the_deepest_mount():
    """The kernel's own pseudo file systems are told apart from what lies above them."""
    from pathlib import Path

    assert local.file_system_of(Path("/proc")) == "proc"
    assert local.file_system_of(Path("/proc/self/fd")) == "proc"
    assert local.file_system_of(Path("/")) not in ("", "proc")


def test_another_writer_is_waited_for_and_then_named(tmp_path, monkeypatch):
    """A lock held by another process ends in a clear error, not in a hang or a raw exception."""
    db = Db(tmp_path / "a.db", (V1,))
    other = apsw.Connection(str(tmp_path / "a.db"))
    other.execute("BEGIN IMMEDIATE")
    db._connection.set_busy_timeout(100)
    with pytest.raises(StoreError, match="another process") as error:
        put(db, 1)
    assert "wait" in error.value.next_action
    other.execute("ROLLBACK")
    put(db, 2)
    assert got(db) == [2]
    other.close()
    db.close()


def test_threads_share_one_handle_without_mixing_transactions(tmp_path):
    """Four threads that write through one handle each commit whole blocks, and readers see whole blocks only."""
    db = Db(tmp_path / "a.db", (V1,))
    seen, stop = set(), threading.Event()

    def work(number):
        for _ in range(25):
            put(db, number, number)

    def watch():
        while not stop.is_set():
            seen.add(len(got(db)) % 2)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    reader = threading.Thread(target=watch)
    for thread in [reader, *threads]:
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    reader.join()
    assert len(got(db)) == 200
    assert seen == {0}
    db.close()


HOLD = """
import sys, time
from pathlib import Path
from overproof.store.project_store import open_store
with open_store(Path(sys.argv[1])) as store, store.role("run"):
    print("held", flush=True)
    time.sleep(60)
"""


def holder(root):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(root)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_run_on_a_project_is_told_who_holds_it(tmp_path):
    """Two runs at once: the second fails at once and names the first one's process; other roles are free."""
    process = holder(tmp_path)
    try:
        with open_store(tmp_path) as store:
            with pytest.raises(StoreError, match=rf"process {process.pid}\b"), store.role("run"):
                pass
            with store.role("web"):
                pass
    finally:
        process.kill()
        process.communicate()
    with open_store(tmp_path) as store, store.role("run"):
        pass


def test_a_killed_or_stopped_holder(tmp_path):
    """A stopped holder keeps its role, a killed one frees it at once."""
    process = holder(tmp_path)
    try:
        process.send_signal(signal.SIGSTOP)
        with open_store(tmp_path) as store:
            with pytest.raises(StoreError, match=str(process.pid)), store.role("run"):
                pass
            process.kill()
            process.wait()
            with store.role("run"):
                assert (tmp_path / ".overproof" / "run.lock").read_text() == f"{os.getpid()}\n"
    finally:
        process.kill()
        process.communicate()


def test_a_holder_that_was_taken_over_can_write_nothing(tmp_path):
    """Once another process has the role, each write of the old holder fails before it changes anything."""
    old = Db(tmp_path / "project.db", PROJECT_SCHEMA)
    new = Db(tmp_path / "project.db", PROJECT_SCHEMA)
    with Role(tmp_path, "run", lambda: old):
        with new.write() as connection:  # what a take-over does
            connection.execute("UPDATE role SET token=token+1 WHERE name='run'")
        with pytest.raises(StoreError, match="taken over"), old.write() as connection:
            connection.execute("INSERT INTO budget VALUES('x', 1, 0, 0)")
        assert new.rows("SELECT count(*) FROM budget") == [(0,)]
    old.close()
    new.close()


def test_two_processes_can_make_the_same_store_at_once(tmp_path):
    """Eight processes that open a fresh project together all succeed and agree on one schema."""
    code = (
        "import sys; from pathlib import Path; from overproof.store.project_store import open_store\n"
        "s = open_store(Path(sys.argv[1])); s.decisions.append('k', actor='a', subject='s', body={}); s.traffic.version(); s.close()"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.PIPE) for _ in range(8)]
    errors = [p.communicate()[1].decode() for p in processes]
    assert errors == [""] * 8
    with open_store(tmp_path) as store:
        assert store.decisions.verify() == 8


def test_a_long_read_sees_one_moment(tmp_path):
    """Rows that are committed while a stream is read are not in it, and the writer doesn't wait."""
    db = Db(tmp_path / "a.db", (V1,))
    put(db, *range(5))
    stream = db.stream("SELECT x FROM t ORDER BY x")
    assert next(stream)[0] == 0
    put(db, 99)  # had it to wait for its own thread, it would end in an error
    assert [row[0] for row in stream] == [1, 2, 3, 4]
    assert got(db)[-1] == 99
    db.close()
