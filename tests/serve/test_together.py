"""Several gateways on one store: real processes, a real server, one of them cut off from it for a while."""

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tests.postgres import Wire, running
from tests.serve.test_capture import counts_of, row
from tests.serve.test_keeping import keeping
from tests.serve.test_moves import DAY, write_project
from tests.serve.test_moves import Gateway as Counting
from tests.serve.test_moves import release as release_of
from tests.serve.whole import TEXTS, Gateway, Teacher, project, put_at, release

from overproof.data import ALL, StageCounts
from overproof.errors import StoreError
from overproof.project import load_project
from overproof.serve import moves
from overproof.serve.capture import read_feedback
from overproof.serve.evidence import Tally, Tick
from overproof.serve.keeping import LogProcess
from overproof.store import remote
from overproof.store.place import NAME, Remote, put_remote
from overproof.store.project_store import open_store
from overproof.store.secret import NAME as SECRET

DSN = "OVERPROOF_TOGETHER"


@pytest.fixture(scope="module")
def server():
    with running() as found:
        os.environ[DSN] = found.dsn
        yield found
        del os.environ[DSN]


@pytest.fixture
def wire(server):
    one = Wire(server)
    yield one
    one.close()


@pytest.fixture
def teacher():
    one = Teacher()
    yield one
    one.close()


def shared(folder, teacher, *, gateway=""):
    """A project whose store is on the server, with a release that serves."""
    project(folder, teacher.url, gateway=gateway)
    (folder / ".overproof").mkdir()
    put_remote(folder / ".overproof", Remote(dsn_env=DSN, schema=f"t{abs(hash(str(folder)))}"[:30]))
    release(folder, "r1")
    put_at(folder, "r1", "full")
    return folder


def through(wire, folder):
    """A gateway whose way to the store is that wire."""
    direct, os.environ[DSN] = os.environ[DSN], wire.dsn
    try:
        return Gateway(folder)
    finally:
        os.environ[DSN] = direct


def until(holds, within_s=30.0):
    end = time.monotonic() + within_s
    while not (found := holds()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def by(gateway, ids, n=1):
    """Who answers, after so many calls; the ids of the answers are kept."""
    for at in range(n):
        got = gateway.chat(TEXTS[at % len(TEXTS)])
        assert got.status == 200, got.body
        ids.append(got.id)
    return got.headers.get("x-overproof-release") or "teacher"


def made(folder):
    folder.mkdir()
    return folder


def given_back(folder):
    """Tried again where a writer that was cut off in a transaction still has its turn."""

    def tried():
        with contextlib.suppress(StoreError), open_store(folder) as store:
            return moves.rollback(store, load_project(folder), by="Dana", why="a test") or True

    until(tried)


@pytest.mark.parametrize("how", [pytest.param("cut", marks=pytest.mark.slow), "hang"])
def test_gateways_share_one_truth_and_one_that_is_cut_off_ends_with_the_teacher(tmp_path, server, wire, teacher, how):
    """A rollback reaches all; who can't hear of it goes on for `stale_s`, then asks the teacher only; every row is in one log at the end."""
    folder = shared(tmp_path / "p", teacher, gateway="stale_s = 3")
    near, far, ids = Gateway(folder), through(wire, folder), []
    try:
        assert by(near, ids, 12) == by(far, ids, 12) == "r1"
        with open_store(folder) as store:
            epoch = store.rollouts.current("routing").epoch
            until(lambda: sum(part.requests for part in store.rollouts.counts(epoch).get(ALL, ())) == 24)
        given_back(folder)
        until(lambda: by(near, ids) == "teacher")
        until(lambda: by(far, ids) == "teacher")
        put_at(folder, "r1", "full")
        until(lambda: by(near, ids) == "r1")
        until(lambda: by(far, ids) == "r1")
        getattr(wire, how)()
        assert by(far, ids) == "r1"
        given_back(folder)
        until(lambda: by(near, ids) == "teacher")
        until(lambda: by(far, ids) == "teacher")
        assert "the teacher answers everything" in str(far.ask("GET", "/readyz").body)
        assert by(far, ids, 5) == "teacher"
        wire.mend()
        time.sleep(1.0)
        assert by(far, ids) == "teacher"  # it has heard of the rollback
        put_at(folder, "r1", "full")
        until(lambda: by(far, ids) == "r1")
    finally:
        assert (near.stop(), far.stop()) == (0, 0)
    with open_store(folder) as store:
        assert {row.request.id for row in store.traffic.read()} == set(ids)
        health = store.captured.health()
        assert (health.captured, health.dropped) == (len(ids), 0)


@pytest.mark.slow
def test_rows_that_must_be_durable_are_counted_where_the_store_is_away(tmp_path, server, wire, teacher):
    """With "before_ack" the answer goes out all the same, and log and counts tell of every request once the store is back."""
    folder = shared(tmp_path / "p", teacher, gateway='capture = "before_ack"')
    one, kept, lost = through(wire, folder), [], []
    try:
        by(one, kept, 5)
        wire.cut()
        by(one, lost, 5)
        wire.mend()
        until(lambda: "busy" not in str(one.ask("GET", "/readyz").body) and one.ask("GET", "/readyz").body["status"] == "ready")
        by(one, kept, 5)
    finally:
        assert one.stop() == 0
    with open_store(folder) as store:
        assert {row.request.id for row in store.traffic.read()} == set(kept)
        health = store.captured.health()
        assert (health.captured, health.dropped) == (10, 5)


def test_a_writer_that_starts_while_the_store_is_away_gives_up_no_row(tmp_path, server, wire, monkeypatch):
    """What waits is written once the store is back, even if the gateway ends meanwhile; who would wait for the disk is told at once, and counted."""
    (tmp_path / ".overproof").mkdir()
    put_remote(tmp_path / ".overproof", Remote(dsn_env=DSN, schema=f"t{abs(hash(str(tmp_path)))}"[:30]))
    with open_store(tmp_path) as store:
        store.secret()
        monkeypatch.setenv(DSN, wire.dsn)

        async def go():
            wire.cut()
            log = LogProcess(keeping(store))
            early = asyncio.create_task(log.put_durable(row(0)))
            assert all(log.put(row(number)) for number in range(1, 6))
            assert not await early
            assert "Postgres" in log.fault
            assert not await log.put_durable(row(6))
            assert await log.feedback(read_feedback(b'{"request_id": "req-1", "rating": 1}', key="")) == "refused"
            assert (log.put(row(7)), log.state, log.dropped) == (True, "open", {("inbox", "tier=gold", "store busy"): 2})
            asyncio.get_running_loop().call_later(0.5, wire.mend)
            assert await log.close()

        asyncio.run(go())
        assert {record.request.id for record in store.traffic.read()} == {f"req-{number}" for number in (1, 2, 3, 4, 5, 7)}
        assert counts_of(store) == {("inbox", "tier=gold"): {"captured": 6, "aside": 0, "store busy": 2}}


def test_a_second_machine_serves_the_release_that_the_first_one_made(tmp_path, server, teacher):
    """With the rows on a server and the artifacts in a shared folder, the project's file and store.toml and surrogates.key are all that a machine needs: with another secret it is refused."""
    first, second = tmp_path / "a", tmp_path / "b"
    where = Remote(dsn_env=DSN, schema=f"t{abs(hash(str(first)))}"[:30])
    for folder in (first, second):
        project(folder, teacher.url)
        (folder / ".overproof").mkdir()
        (folder / ".overproof" / NAME).write_text(f'[objects]\nurl = "{(tmp_path / "shared").as_uri()}"\n')
        put_remote(folder / ".overproof", where)
    release(first, "r1")
    put_at(first, "r1", "full")
    with open_store(first) as here:
        here.secret()
        here.signatures.put("r1", b"signed")
    (second / ".overproof" / SECRET).write_bytes(bytes(32))
    refused = subprocess.run([sys.executable, "-m", "overproof.cli", "serve", "--project", str(second), "--port", "0"], capture_output=True, text=True, check=False, timeout=60)
    assert (refused.returncode, "surrogates.key is another secret" in refused.stderr) == (4, True), refused.stderr
    shutil.copyfile(first / ".overproof" / SECRET, second / ".overproof" / SECRET)
    one, ids = Gateway(second), []
    try:
        assert by(one, ids, 3) == "r1"
    finally:
        assert one.stop() == 0
    with open_store(first) as here, open_store(second) as there:
        assert here.releases.get("r1") == replace(there.releases.get("r1"), bundle=here.releases.get("r1").bundle)
        assert there.signatures.get("r1") == b"signed"
        assert here.releases.get("r1").bundle.digest == there.releases.get("r1").bundle.digest
    said = subprocess.run([sys.executable, "-m", "overproof.cli", "status", "--project", str(second), "--json"], capture_output=True, text=True, check=False)
    assert "r1" in said.stdout, said.stderr


@pytest.mark.slow
def test_a_gateway_that_starts_while_the_server_is_away_asks_the_teacher_until_it_is_back(tmp_path, server, wire, teacher):
    """It knows its callers by the copy of their keys, keeps the rows, serves no student, and joins by itself; without the copy it doesn't start."""
    folder = shared(tmp_path / "p", teacher)
    with open_store(folder) as store:
        secret = store.keys.add("me", scopes={"invoke"}).secret
    wire.cut()
    (seen := folder / ".overproof" / "keys.seen").unlink(missing_ok=True)
    with pytest.raises(RuntimeError, match="no copy of the callers' keys"):
        through(wire, folder)
    wire.mend()
    assert through(wire, folder).stop() == 0
    assert secret[8:] not in seen.read_text()
    assert seen.stat().st_mode & 0o777 == 0o600
    wire.cut()
    one, ids = through(wire, folder), []
    try:
        for _ in range(5):
            got = one.chat(TEXTS[0], key=secret)
            assert (got.status, got.headers.get("x-overproof-release")) == (200, None)
            ids.append(got.id)
        assert one.chat(TEXTS[0]).status == one.chat(TEXTS[0], key="op_" + "x" * 43).status == 401
        assert "the teacher answers everything" in str(one.ask("GET", "/readyz").body)
        wire.mend()

        def joined():
            got = one.chat(TEXTS[0], key=secret)
            ids.append(got.id)
            return got.headers.get("x-overproof-release") == "r1"

        until(joined)
    finally:
        assert one.stop() == 0
    with open_store(folder) as store:
        assert {row.request.id for row in store.traffic.read()} == set(ids)
        assert (store.captured.health().captured, store.captured.health().dropped) == (len(ids), 0)


def test_a_writer_that_falls_silent_in_a_transaction_blocks_the_others_for_a_while_only(tmp_path, server, wire, teacher, monkeypatch):
    """The server ends it and undoes what it began; itself it is told so."""
    folder = shared(tmp_path / "p", teacher)
    monkeypatch.setattr(remote, "SILENT_S", 1.0)

    def silent(store, far, epoch):
        with far._project_db.write() as connection:
            connection.execute("DELETE FROM stage_count")
            wire.hang()
            store.rollouts.add({(epoch, "paying"): StageCounts(requests=3)}, at=1.0)
            wire.mend()
            connection.execute("DELETE FROM stage_count")

    with open_store(folder) as store:
        epoch = store.rollouts.current("routing").epoch
        monkeypatch.setenv(DSN, wire.dsn)
        with open_store(folder) as far, pytest.raises(StoreError, match="Postgres, schema"):  # told why, or only that the connection ended
            silent(store, far, epoch)
        assert sum(part.requests for part in store.rollouts.counts(epoch)["paying"]) == 3


def test_counts_whose_commit_nobody_heard_of_are_added_once(tmp_path, server, wire, teacher, monkeypatch):
    """The server says afterwards whether a transaction was made."""
    folder = shared(tmp_path / "p", teacher)
    monkeypatch.setenv(DSN, wire.dsn)
    with open_store(folder) as store:
        store.rollouts.add({(1, "paying"): StageCounts(requests=3)}, at=1.0)
        wire.lose_commit = True
        store.rollouts.add({(1, "paying"): StageCounts(requests=4)}, at=1.0)
        assert not wire.lose_commit
        assert [part.requests for part in store.rollouts.counts(1)["paying"]] == [7]


@pytest.mark.parametrize("how", [True, "on the way"])
def test_counts_are_added_once_where_the_server_stays_away_right_at_the_commit(tmp_path, server, wire, teacher, monkeypatch, how):
    """Nobody can be asked whether it was made: the same counts are tried again under the same number, and new ones after them."""
    folder = shared(tmp_path / "p", teacher)
    monkeypatch.setenv(DSN, wire.dsn)
    monkeypatch.setattr(remote, "WAIT_S", 0.3)
    tally = Tally()
    with open_store(folder) as store:
        tick = Tick(store, "routing", moves.plan_of(store, load_project(folder)), tally)
        tick.run()
        tally.request(1, "paying")
        wire.lose_commit, wire.then = how, "cut"
        for _ in range(2):
            with pytest.raises(StoreError, match="Postgres"):
                tick.flush()
        tally.request(1, "paying")
        wire.then = "open"
        wire.mend()
        tick.flush()
        tick.flush()
        assert [part.requests for part in store.rollouts.counts(1)["paying"]] == [2]


def test_a_stage_is_as_old_as_the_stores_clock_says(tmp_path, server, monkeypatch):
    """A gateway, or a person, whose clock is two days ahead promotes nothing, and one whose clock is behind makes no stage older; on files the same clock would."""
    found = {}
    for name in ("files", "server"):
        checked = load_project(write_project(made(tmp_path / name)))
        if name == "server":
            (checked.root / ".overproof").mkdir()
            put_remote(checked.root / ".overproof", Remote(dsn_env=DSN, schema="clocks"))
        with open_store(checked.root) as store:
            release_of(store)
            moves.promote(store, checked, by="Dana", now=time.time() - 2 * DAY if name == "server" else None)
            ahead = Counting(store, checked, lambda: time.time() + 2 * DAY)
            state = store.rollouts.current("t")
            for piece in ("vip", "other"):
                ahead.see(state, piece, 1_500, wrong=15)
            found[name] = ahead.tick.run().stage, moves.promote(store, checked, by="Dana", now=time.time() + 2 * DAY).moved
            assert name == "files" or abs(state.since - time.time()) < 3600
    assert found == {"files": ("canary", False), "server": ("shadow", False)}


@pytest.mark.slow
def test_of_three_gateways_under_load_one_is_killed_again_and_again(server):
    """Only requests in flight fail, and every answered row is in the log; OVERPROOF_SWEEP_SECONDS makes it longer."""
    script = Path(__file__).parents[2] / "benchmarks/reliability/gateways.py"
    how_long = os.environ.get("OVERPROOF_SWEEP_SECONDS", "20")
    done = subprocess.run([sys.executable, str(script), "--seconds", how_long, "--every", "4"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
