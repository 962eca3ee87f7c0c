"""The store on a real Postgres server: what holds of files holds there, and a project moves over and back with every row."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.postgres import running
from tests.store.conftest import DSN
from tests.store.test_local import holder
from tests.store.test_search import row

from overproof.errors import DataError, StoreError
from overproof.outputs import Classes
from overproof.store.dialect import script, statement
from overproof.store.move import digests_of, move
from overproof.store.place import NAME, Remote, put_remote, remote_of
from overproof.store.project_store import open_store
from overproof.store.remote import PgDb
from overproof.store.schema import PROJECT_SCHEMA, TRAFFIC_SCHEMA
from overproof.store.search import Wanted

HERE = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(DSN in os.environ, reason=f"has a server and stores of its own, and runs where {DSN} is not set")


@pytest.fixture(scope="module")
def server():
    with running() as found:
        os.environ["OVERPROOF_PG"] = found.dsn
        yield found
        del os.environ["OVERPROOF_PG"]


@pytest.fixture
def root(tmp_path, server):
    """A project's folder whose store is on the server."""
    home = tmp_path / ".overproof"
    home.mkdir()
    put_remote(home, Remote(dsn_env="OVERPROOF_PG", schema=f"s{abs(hash(str(tmp_path)))}"[:30]))
    return tmp_path


@pytest.mark.slow
def test_the_tests_of_the_store_pass_on_postgres(server):
    """The same tests, another engine: logs, ledger, batches, releases, looks, reviews, keys, watch."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/store", "-q", "-m", "not slow", "-n", "2", "--timeout", "120"], cwd=HERE, env={**os.environ, DSN: server.dsn}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-4000:]


def test_a_text_with_nul_half_a_pair_or_a_tiny_cost_is_logged_counted_and_found(root):
    """Postgres refuses to read such JSON, and to square such a number; a row that a stranger sent must not stop the log, nor any look at it."""
    texts = ["a\0 parcel", "b\ud800 parcel", r"c\u0000 \ud800 \ parcel", "d\\\0\\\ud800\\ parcel 😀"]
    with open_store(root) as store:
        rows = [row(at, text, minute=at) for at, text in enumerate(texts)]
        cheap = replace(rows[0], request=replace(rows[0].request, id="cheap"), completion=replace(rows[0].completion, cost_usd=1e-200))
        store.traffic.append([*rows, cheap], "test")
        assert [one.request.fields["text"] for one in store.traffic.read()][:1] == texts[:1]
        assert {one.request.fields["text"] for one in store.traffic.read()} == set(texts)
        assert [(one.rows, one.usd) for one in store.served.months("")] == [(5, 1.0)]
        assert store.search.catch_up(Classes(labels=("refund", "other")), wrong=list) == 5
        assert len(store.search.find(Wanted(text="parcel")).rows) == 5
        assert store.traffic.append([replace(rows[1], completion=replace(rows[1].completion, cost_usd=0.5))], "test", replace=True)
        assert [(one.rows, one.usd) for one in store.served.months("")] == [(5, 1.25)]
        assert store.traffic.first_asked("r1") == datetime(2026, 3, 1, tzinfo=UTC)
        assert store.traffic.answered_by("", since=0) == []


def test_decisions_reviews_and_keys_can_be_changed_by_nobody(root):
    """The server itself refuses to change what is append-only, as the file does."""
    import psycopg

    with open_store(root) as store:
        store.decisions.append("gate", actor="a", subject="s", body={"x": 1})
        store.keys.add("me", scopes={"read"})
        assert store.decisions.verify() == 1
    schema = f"{remote_of(root / '.overproof').schema}_project"
    for sql in ("UPDATE decision SET actor='Eve'", "DELETE FROM decision", "UPDATE api_key SET scopes='admin'", "DELETE FROM api_key"):
        with psycopg.connect(os.environ["OVERPROOF_PG"], options=f"-c search_path={schema}") as connection, pytest.raises(psycopg.errors.IntegrityConstraintViolation):
            connection.execute(sql)


def test_a_role_is_one_process_on_all_machines_and_ends_with_it(root):
    """A holder is named; killed, it frees the role at once; stopped, it keeps it."""
    process = holder(root)
    try:
        process.send_signal(signal.SIGSTOP)
        with open_store(root) as store:
            with pytest.raises(StoreError, match=rf"overproof {process.pid} on"), store.role("run"):
                pass
            with store.role("web"):
                pass
    finally:
        process.kill()
        process.communicate()
    with open_store(root) as store:
        for _ in range(50):
            with contextlib.suppress(StoreError), store.role("run"):
                return
    pytest.fail("the role was never free")


def test_a_holder_that_was_taken_over_can_write_nothing(server):
    """Once another process has the role, each write of the old holder fails before it changes anything."""
    old, new = (PgDb(server.dsn, "fenced", PROJECT_SCHEMA) for _ in range(2))
    with new.write() as connection:
        connection.execute("INSERT INTO role VALUES('run', 7)")
    old.fence("run", 6)
    with pytest.raises(StoreError, match="taken over"), old.write() as connection:
        connection.execute("INSERT INTO budget VALUES('x', 1, 0, 0)")
    assert new.rows("SELECT count(*) FROM budget") == [(0,)]
    old.close()
    new.close()


def test_writers_take_turns_and_none_sees_what_another_overwrites(root):
    """Eight processes append to one chain of decisions at once: every one is there, and the chain holds."""
    code = (
        "import sys; from pathlib import Path; from overproof.store.project_store import open_store\n"
        "s = open_store(Path(sys.argv[1])); [s.decisions.append('k', actor='a', subject='s', body={}) for _ in range(5)]; s.close()"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(root)], stderr=subprocess.PIPE) for _ in range(4)]
    assert [p.communicate()[1].decode() for p in processes] == [""] * 4
    with open_store(root) as store:
        assert store.decisions.verify() == 20


def test_a_server_that_restarts_loses_nothing_and_the_store_goes_on(root, server):
    """While it is down, writes and reads say so; once it is back the same handle works, and what was acknowledged is there."""
    with open_store(root) as store:
        store.decisions.append("one", actor="a", subject="s", body={})
        server.stop("immediate")  # as a crash
        with pytest.raises(StoreError, match="Postgres"):
            store.decisions.append("two", actor="a", subject="s", body={})
        with pytest.raises(StoreError, match="Postgres"):
            list(store.decisions.read())
        server.start()
        store.decisions.append("three", actor="a", subject="s", body={})
        assert [one.kind for one in store.decisions.read()] == ["one", "three"]


def test_sessions_that_end_cost_nothing_and_who_has_a_role_waits_for_a_restart(root, server):
    """A connection that ended while nobody used it is made anew; a run goes on once the server is back, and a write that was cut off inside is undone."""
    import psycopg

    with open_store(root) as store:
        store.decisions.append("one", actor="a", subject="s", body={})

        def end_all():
            with psycopg.connect(server.dsn, autocommit=True) as connection:
                connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")

        def cut_off_inside(store):
            with store._project_db.write() as connection:
                connection.execute("INSERT INTO budget VALUES('x', 1, 0, 0)")
                end_all()
                connection.execute("INSERT INTO budget VALUES('y', 1, 0, 0)")

        end_all()
        assert [one.kind for one in store.decisions.read()] == ["one"]
        store.decisions.append("two", actor="a", subject="s", body={})
        with store.role("run"):
            server.stop("immediate")
            later = threading.Timer(1.0, server.start)
            later.start()
            store.decisions.append("three", actor="a", subject="s", body={})
            later.join()
            with pytest.raises(StoreError, match="Postgres"):
                cut_off_inside(store)
        assert [one.kind for one in store.decisions.read()] == ["one", "two", "three"]
        assert store._project_db.rows("SELECT count(*) FROM budget") == [(0,)]


def test_a_newer_schema_is_refused_and_not_touched(server):
    """A server that a newer version wrote to keeps what it has."""
    PgDb(server.dsn, "newer", (*TRAFFIC_SCHEMA, "CREATE TABLE tomorrow(x INTEGER) STRICT;")).close()
    with pytest.raises(StoreError, match="newer version"):
        PgDb(server.dsn, "newer", TRAFFIC_SCHEMA)


def test_a_schema_that_grows_keeps_its_rows(server):
    """The next version's script runs once, over what is there."""
    first = PgDb(server.dsn, "grows", TRAFFIC_SCHEMA[:1])
    with first.write() as connection:
        connection.execute("INSERT INTO record(id, digest, at_us, source, body) VALUES('a', 'd', NULL, 's', '{}')")
    first.close()
    grown = PgDb(server.dsn, "grows", TRAFFIC_SCHEMA)
    assert grown.rows("SELECT id FROM record") == [("a",)]
    assert grown.rows("SELECT count(*) FROM feedback") == [(0,)]
    grown.close()


def test_texts_come_back_as_they_went_with_nul_and_marks_in_them(server):
    """A text that Postgres can't hold is spelled, and read as it was; numbers, bytes and truth keep their kinds."""
    db = PgDb(server.dsn, "texts", ("CREATE TABLE t(a TEXT, b BLOB, c REAL, d INTEGER) STRICT;",))
    rows = [("a\0b\ue000c\ue0000", b"\0\xff", 0.1, 7), (None, None, None, None), ("%s ? :name '", b"", 1e300, 2**60)]
    with db.write() as connection:
        connection.executemany("INSERT INTO t VALUES(?, ?, ?, ?)", rows)
        connection.execute("UPDATE t SET d=? WHERE d=7", (True,))
    assert db.rows("SELECT a, b, c, d FROM t WHERE d=1") == [(rows[0][0], b"\0\xff", 0.1, 1)]
    assert db.rows("SELECT sum(d) FROM t WHERE d=?", (2**60,)) == [(2**60,)]
    assert sorted(map(str, db.stream("SELECT a, b, c FROM t"))) == sorted(map(str, [one[:3] for one in rows]))
    db.close()


def test_what_fails_in_a_savepoint_undoes_only_its_own(server):
    """As with a file: the rest of the transaction stands."""
    db = PgDb(server.dsn, "points", ("CREATE TABLE t(a INTEGER PRIMARY KEY) STRICT;",))
    with db.write() as connection:
        connection.execute("INSERT INTO t VALUES(1)")
        with contextlib.suppress(Exception), connection:
            connection.execute("INSERT INTO t VALUES(2)")
            connection.execute("INSERT INTO t VALUES(1)")
        connection.execute("INSERT INTO t VALUES(3)")
    assert db.rows("SELECT a FROM t ORDER BY a") == [(1,), (3,)]
    db.close()


def test_every_statement_of_the_store_is_known_to_both_engines():
    """What differs between the engines is rewritten, places included."""
    assert statement("SELECT a FROM t WHERE b=? AND c='?' AND d=?1") == "SELECT a FROM t WHERE b=%(p1)s AND c='?' AND d=%(p1)s"
    assert statement("UPDATE t SET a=:m WHERE n LIKE '5%'") == "UPDATE t SET a=%(m)s WHERE n LIKE '5%%'"
    assert "#>> '{served,route}'" in statement("SELECT body ->> '$.served.route' FROM record")
    for one in (*PROJECT_SCHEMA, *TRAFFIC_SCHEMA):
        made = script(one)
        assert not [word for word in ("STRICT", "ROWID", "BLOB", " REAL", "RAISE(") if word in made]


def walked(root):
    """A store with something in many tables."""
    with open_store(root) as store:
        for number in range(30):
            store.decisions.append("k", actor="a\0", subject=str(number), body={"n": number})
        store.keys.add("me", scopes={"read"})
        from tests.store.test_logs import row

        store.traffic.append([row(number) for number in range(700)], source="test")
        return store.traffic.snapshot_digest()


def test_a_project_moves_to_postgres_and_back_with_equal_digests(tmp_path, server):
    """Every table has the same rows on both engines; the log's digest stays; numbers go on behind the last one; files stay as they were."""
    digest = walked(tmp_path)
    home = tmp_path / ".overproof"
    before = digests_of(home, None)
    there = move(tmp_path, Remote(dsn_env="OVERPROOF_PG", schema="moved"))
    assert there == digests_of(home, None)
    assert there[1:] == before[1:]  # to move, one has to be alone: that is counted
    assert (home / "traffic.db").exists()
    with open_store(tmp_path) as store:
        assert store.traffic.snapshot_digest() == digest
        store.decisions.append("k", actor="a", subject="next", body={})
        assert store.decisions.verify() == 31
    with pytest.raises(DataError, match="holds rows"):
        move(tmp_path, None)
    (home / "traffic.db").unlink()
    (home / "project.db").unlink()
    for left in home.glob("*.db-*"):
        left.unlink()
    back = move(tmp_path, None)
    assert not (home / NAME).exists()
    assert back == digests_of(home, None)
    with open_store(tmp_path) as store:
        assert (store.decisions.verify(), store.traffic.snapshot_digest()) == (31, digest)


def test_nothing_moves_while_somebody_works_on_the_project(tmp_path, server):
    """A held role refuses the move, and the store stays where it is."""
    walked(tmp_path)
    with open_store(tmp_path) as store, store.role("serve"), pytest.raises(StoreError, match="is working on this project"):
        move(tmp_path, Remote(dsn_env="OVERPROOF_PG", schema="busy"))
    assert remote_of(tmp_path / ".overproof") is None


def test_a_store_without_its_address_says_which_variable_is_empty(tmp_path, monkeypatch):
    """No file of the project holds a password; without the variable nothing is opened."""
    home = tmp_path / ".overproof"
    home.mkdir()
    put_remote(home, Remote(dsn_env="NOT_SET_HERE", schema="x"))
    with pytest.raises(DataError, match="NOT_SET_HERE is empty"):
        list(open_store(tmp_path).decisions.read())
    (home / NAME).write_text("[postgres]\nschema = 'Robert); DROP'\n")
    with pytest.raises(DataError, match="was expected"):
        open_store(tmp_path)
