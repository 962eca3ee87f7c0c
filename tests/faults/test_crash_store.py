"""Kill -9 at random moments, full disks and read-only folders: what was acknowledged is there, nothing else is believed."""

import errno
import io
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from overproof.data import Folder, Request, TrafficRecord
from overproof.errors import CorruptArtifact, StoreError
from overproof.privacy.redact import Policy, Redactor
from overproof.store.local import Db
from overproof.store.project_store import open_store
from overproof.store.schema import PROJECT_SCHEMA, TRAFFIC_SCHEMA
from overproof.store.secret import NAME as SECRET
from overproof.store.secret import project_secret

HERE = Path(__file__)


# --- what the killed processes do (this file is run as a script by them) ---


def acknowledge(root: Path, text: str) -> None:
    """Note outside the store that a call has returned; one write call, so that a kill can't tear it."""
    with (root / "acks.txt").open("ab", buffering=0) as file:
        file.write(text.encode() + b"\n")


def work_artifacts(root: Path) -> None:
    """Make artifacts with folders, one after the other, from where the last process was killed."""
    from overproof.store.artifacts import Step

    step = Step(name="make", version=1, fn=make_folder, workdir=True)
    with open_store(root) as store, store.role("run"):
        ready()
        for number in range(10_000):
            memo = store.memo()
            artifact = memo.run(step, memo.source("n", number), recipe="r")
            acknowledge(root, f"{number} {artifact.digest}")


def make_folder(number: int, recipe: str, *, workdir: Path) -> tuple:
    """A folder of three files, the same for the same number."""
    (workdir / "out" / "sub").mkdir(parents=True)
    for name in ("a.bin", "b.bin", "sub/c.bin"):
        (workdir / "out" / name).write_bytes(f"{name} {number} ".encode() * 3_000)
    return (number, Folder(path=workdir / "out"))


def log_rows():
    """Rows of an endless import, always the same."""
    number = 0
    while True:
        yield TrafficRecord(request=Request(id=f"r{number}", fields={"text": f"text {number} " * 20}))
        number += 1


def work_log(root: Path) -> None:
    """Import the same endless file again and again; a row counts as acknowledged once its batch has returned."""
    from itertools import islice

    with open_store(root) as store:
        ready()
        rows = log_rows()
        done = 0
        while True:
            report = store.traffic.append(islice(rows, 200), "file")
            done += report.total
            acknowledge(root, str(done))


def work_decisions(root: Path) -> None:
    """Append decisions for ever."""
    with open_store(root) as store:
        ready()
        while True:
            acknowledge(root, store.decisions.append("k", actor="a", subject="s", body={"x": 1}).digest)


SHEET = 7  # words of one imported sheet


def sheet_of(number: int) -> list:
    """The words of one sheet, always the same for the same number; every third sheet takes the one before it back."""
    from overproof.store.reviews import Review

    back = number % 3 == 2
    rows = number - 1 if back else number
    return [
        Review(
            digest=f"row {rows}-{i}", request_id=f"r{rows}-{i}", label="" if back else f"label {i}", reviewer="Ana", queue="audit",
            kind="withdrawn" if back else "review",
        )
        for i in range(SHEET)
    ]  # fmt: skip


def work_reviews(root: Path) -> None:
    """Import one sheet after the other, from the first that is not in the store."""
    with open_store(root) as store:
        first = number = len(store.reviews.history()) // SHEET
        while True:
            store.reviews.append(sheet_of(number))
            acknowledge(root, str(number))
            if number == first:  # only now are kills kills of a store in use
                ready()
            number += 1


CONCURRENCY = 8
COST = 0.001


def work_labels(root: Path) -> None:
    """Label rows through the ledger with a provider that writes its own bill."""
    import asyncio

    from overproof.data import Completion, Outcome, TeacherPin
    from overproof.store.labels import LedgeredTeacher, Prices

    class Bound:
        tokens_in = 2_000
        tokens_out = 0

    class Provider:
        free = False

        asked = False

        async def attempt(self, request, *, sample_index, recorded=None):
            if not self.asked:  # only now are kills kills of live traffic
                self.asked = True
                ready()
            await asyncio.sleep(random.random() * 0.01)
            with (root / "bill.txt").open("ab", buffering=0) as file:
                file.write(f"{request.id}\n".encode())
            await asyncio.sleep(random.random() * 0.01)
            answer = Completion(text="a", value="a", model="m", cost_usd=COST)
            return Outcome(
                kind="ok", completion=answer, reason="", http_status=200, retry_after_s=None, fingerprint=None, request_id=None
            )

        def worst_case_tokens(self, request):
            return Bound()

        async def close(self):
            pass

    with open_store(root) as store, store.role("run"):
        store.ledger.open_run(str(os.getpid()), cap_usd=1e6)
        pin = TeacherPin(use="t", provider="p", model="m", revision="r")
        prices = Prices(usd_per_million_in=1.0, usd_per_million_out=0.0)
        teacher = LedgeredTeacher(Provider(), store.ledger, pin=pin, prices=prices, clearance_id="c", run_id="r")
        todo = iter(range(100_000))

        async def work():
            for number in todo:
                request = Request(id=f"r{number}", fields={"text": f"text {number}"})
                await teacher.sample(request, n=1)
                acknowledge(root, f"{number} {teacher.key_of(request, 0)}")

        async def go():
            await asyncio.gather(*(work() for _ in range(CONCURRENCY)))

        asyncio.run(go())


def work_migrate(root: Path) -> None:
    """Bring an old schema up to date, again and again from the same old file."""
    new = (*OLD, "ALTER TABLE t ADD COLUMN y TEXT", "CREATE TABLE u(z INTEGER) STRICT", "UPDATE t SET y='new'")
    ready()
    while True:
        Db(root / "a.db", new).close()
        for path in root.glob("a.db*"):
            path.unlink()
        shutil.copy(root / "old.db", root / "a.new")
        (root / "a.new").rename(root / "a.db")


OLD = ("CREATE TABLE t(x INTEGER) STRICT",)


def work_secret(root: Path) -> None:
    """Make the project's secret and be killed before, or torn in, the call whose number is in the file `at`."""
    from overproof.store import secret

    left = int((root / "at").read_text())

    def killed(call):
        def counted(*args, **more):
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **more)

        return counted

    class Torn(io.FileIO):
        def write(self, data):
            for i in range(0, len(data), 8):  # any of these may be the last
                killed(super().write)(bytes(data[i : i + 8]))
            return len(data)

    for name in ("open", "fsync", "link", "close", "unlink"):
        setattr(secret.os, name, killed(getattr(os, name)))
    secret.os.fdopen = Torn
    acknowledge(root, secret.project_secret(root).hex())


def ready() -> None:
    """Tell the test that the work has begun."""
    print("READY", flush=True)


# --- the campaign ---


def kill_at_random(job: str, root: Path, rng: random.Random, *, after: int = 0) -> None:
    """Start a worker, wait until it's at work, and where asked has acknowledged so much on a busy machine too; kill it at a random moment."""
    before = len(acks(root))
    process = subprocess.Popen([sys.executable, str(HERE), job, str(root)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"READY\n", process.stderr.read().decode()
        until = time.monotonic() + 60
        while len(acks(root)) - before < after and time.monotonic() < until:
            time.sleep(0.002)
        time.sleep(rng.uniform(0.005, 0.25))
        assert process.poll() is None, process.stderr.read().decode()
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


@pytest.fixture(params=[8, pytest.param(30, marks=pytest.mark.slow)])
def kills(request):
    return request.param


def acks(root: Path) -> list[str]:
    path = root / "acks.txt"
    return path.read_text().splitlines() if path.exists() else []


def test_killed_runs_leave_whole_artifacts_or_none(tmp_path, kills):
    """After each kill every acknowledged artifact loads and verifies, and unfinished ones are swept."""
    from overproof.store.artifacts import Step

    rng = random.Random(1)
    for _ in range(kills):
        kill_at_random("artifacts", tmp_path, rng, after=rng.choice((0, 3, 3)))
        with open_store(tmp_path) as store:
            assert list((store.home / "tmp").iterdir()) == []
            for line in acks(tmp_path)[-20:]:
                number, digest = line.split()
                memo = store.memo(dry=True)
                found = memo.run(
                    Step(name="make", version=1, fn=make_folder, workdir=True), memo.source("n", int(number)), recipe="r"
                )
                assert found.digest == digest
                assert found.value[0] == int(number)
                assert (found.value[1].path / "sub" / "c.bin").read_bytes() == f"sub/c.bin {number} ".encode() * 3_000
            for path in (store.home / "objects").rglob("*.tree"):
                store.objects.find(path.stem)
    assert len(acks(tmp_path)) > kills


def test_killed_imports_lose_no_acknowledged_row_and_double_none(tmp_path, kills):
    """After each kill the log is sound and holds exactly the first rows of the file, all acknowledged ones in it."""
    rng = random.Random(2)
    best = 0
    for _ in range(kills):
        kill_at_random("log", tmp_path, rng, after=rng.choice((0, 2)))
        best = max([best, *(int(line) for line in acks(tmp_path))])
        (tmp_path / "acks.txt").unlink(missing_ok=True)
        with open_store(tmp_path) as store:
            assert store.traffic._db.check() == []
            ids = [record.request.id for record in store.traffic.read()]
        assert ids == [f"r{i}" for i in range(len(ids))]
        assert len(ids) >= best
    assert best > 200


def test_killed_decisions_keep_their_chain(tmp_path, kills):
    """After each kill the chain verifies and ends at, or one after, the last acknowledged entry."""
    rng = random.Random(3)
    for _ in range(kills):
        kill_at_random("decisions", tmp_path, rng, after=rng.choice((0, 2, 2)))
        with open_store(tmp_path) as store:
            count = store.decisions.verify()
            digests = [d.digest for d in store.decisions.read()]
        known = set(acks(tmp_path))
        assert known <= set(digests)
        assert count - len(known) <= kills
    assert count > kills


def test_killed_reviews_keep_whole_sheets_and_every_acknowledged_word(tmp_path, kills):
    """After each kill the store holds the first sheets, whole, no word twice, and at most one beyond the last that returned."""
    from dataclasses import replace

    rng = random.Random(6)
    for _ in range(kills):
        kill_at_random("reviews", tmp_path, rng, after=1)
        with open_store(tmp_path) as store:
            assert store.reviews._db.check() == []
            words = [replace(word, at="") for word in store.reviews.history()]
            live = {word.digest for word in store.reviews.live().rows}
        sheets = [sheet_of(i) for i in range(len(words) // SHEET)]
        assert words == [word for sheet in sheets for word in sheet]
        assert len(sheets) - 1 - int(acks(tmp_path)[-1]) in (0, 1)
        back = {word.digest for sheet in sheets for word in sheet if word.kind == "withdrawn"}
        assert live == {word.digest for word in words} - back
    assert len(sheets) >= kills


def test_killed_labelling_loses_nothing_and_pays_at_most_what_was_in_flight(tmp_path, kills):
    """
    Over all kills: no acknowledged label is lost, none is there twice, calls billed twice are at most those in flight,
    and the books never show less than the provider's bill.
    """
    rng = random.Random(4)
    kills_in_flight = 0
    for _ in range(kills):
        kill_at_random("labels", tmp_path, rng)
        with open_store(tmp_path) as store, store.role("run"):
            in_flight = store.ledger.counts().attempts.get("reserved", 0)
            assert in_flight <= CONCURRENCY
            kills_in_flight += in_flight > 0
            assert store.ledger.open_run("check", cap_usd=1e6) == in_flight
            assert store.ledger._db.check() == []
            for line in acks(tmp_path)[-300:]:
                assert store.ledger.get(line.split()[1]) is not None
            counts = store.ledger.counts()
            bill = (tmp_path / "bill.txt").read_text().splitlines()
            assert counts.held_usd == 0
            assert counts.attempts["ok"] == counts.labels
            assert counts.spent_usd >= len(bill) * COST - 1e-9
            assert len(bill) - counts.labels <= counts.attempts.get("lost", 0)
    assert kills_in_flight >= kills / 2  # how many is chance and the machine; enough to have tried it
    extra = (len(bill) - counts.labels) / kills_in_flight
    assert extra <= CONCURRENCY
    assert len({line.split()[0] for line in acks(tmp_path)}) <= counts.labels
    print(json.dumps({"kills": kills, "in_flight": kills_in_flight, "labels": counts.labels, "extra_per_kill": extra}))


def test_killed_migrations_leave_the_old_or_the_new_schema(tmp_path, kills):
    """After each kill the file has either schema whole, with all its rows."""
    old = Db(tmp_path / "old.db", OLD)
    with old.write() as connection:
        connection.executemany("INSERT INTO t VALUES(?)", ((i,) for i in range(2_000)))
    old.close()
    shutil.copy(tmp_path / "old.db", tmp_path / "a.db")
    rng = random.Random(5)
    versions = set()
    for _ in range(kills):
        kill_at_random("migrate", tmp_path, rng)
        if not (tmp_path / "a.db").exists():  # killed while the worker put the old file back
            shutil.copy(tmp_path / "old.db", tmp_path / "a.db")
        db = Db(tmp_path / "a.db", (*OLD, "ALTER TABLE t ADD COLUMN y TEXT", "CREATE TABLE u(z INTEGER) STRICT", "UPDATE t SET y='new'"))
        versions.add(db.rows("PRAGMA user_version")[0][0])
        assert db.check() == []
        assert db.rows("SELECT count(*), count(y), min(x), max(x) FROM t") == [(2_000, 2_000, 0, 1_999)]
        db.close()
        for path in tmp_path.glob("a.*"):
            path.unlink()
        shutil.copy(tmp_path / "old.db", tmp_path / "a.db")
    assert versions == {4}


def test_a_kill_at_any_call_leaves_the_secret_whole_or_none_and_the_surrogates_stay(tmp_path):
    """Before each write, sync and link: what the next process finds is no key or a whole one, and then always the same."""
    whole = 0
    for at in range(1, 100):
        root = tmp_path / str(at)
        root.mkdir()
        (root / "at").write_text(str(at))
        done = subprocess.run([sys.executable, str(HERE), "secret", str(root)], check=False, capture_output=True)
        there = (root / SECRET).exists()
        kept = (root / SECRET).read_bytes() if there else None
        key = project_secret(root)
        assert len(key) == 32
        assert kept in (None, key)
        assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in root.glob(f"{SECRET}*"))
        assert project_secret(root) == key
        policy = Policy()
        texts = {Redactor(policy, key=project_secret(root)).text("mail maria@example.com") for _ in range(2)}
        assert len(texts) == 1
        whole += there
        if done.returncode == 0:
            assert acks(root) == [key.hex()]
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
    assert at >= 4 + 5  # four writes and the calls about them
    assert 2 <= whole < at - 4


def test_a_torn_or_empty_secret_is_refused_and_never_made_anew(tmp_path):
    """A new key in its place would part what belongs together without a word."""
    project_secret(tmp_path)
    for length in (0, 1, 31, 33):
        (tmp_path / SECRET).write_bytes(b"x" * length)
        with pytest.raises(CorruptArtifact, match=f"{length} bytes"):
            project_secret(tmp_path)
        assert (tmp_path / SECRET).read_bytes() == b"x" * length


def test_processes_that_make_the_secret_at_once_get_the_same(tmp_path):
    """The first link wins; the others read it."""
    code = "import sys; from pathlib import Path; from overproof.store.secret import project_secret; sys.stdin.read(1); print(project_secret(Path(sys.argv[1])).hex())"
    running = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(4)]
    for one in running:
        one.stdin.write(b"g")
        one.stdin.flush()
    keys = {one.communicate()[0].decode().strip() for one in running}
    assert keys == {project_secret(tmp_path).hex()}
    assert [path.name for path in tmp_path.iterdir()] == [SECRET]


def test_a_full_disk_leaves_no_secret_and_the_next_try_makes_one(tmp_path):
    """Said as a store error; nothing of the key stays, and nothing but space is needed to go on."""
    with tiny_disk(tmp_path / "disk", "64k"):
        root = tmp_path / "disk"
        with suppress_full():
            (root / "ballast").write_bytes(b"x" * 200_000)
        with pytest.raises(StoreError, match="No space"):
            project_secret(root)
        assert [path.name for path in root.iterdir()] == ["ballast"]
        (root / "ballast").unlink()
        assert project_secret(root) == project_secret(root)


@contextmanager
def tiny_disk(place: Path, size: str, *, options: str = ""):
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}{options}", "tmpfs", str(place)], check=False, capture_output=True)
    if done.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@contextmanager
def suppress_full():
    """The disk may be full when the step writes its own files, or when the store takes them."""
    try:
        yield
    except StoreError as error:
        if "free some space" not in error.next_action:
            raise
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


def test_a_full_disk_is_said_and_loses_nothing(tmp_path):
    """On a full disk the import stops with a clear error; what was acknowledged is there, and after tidying it goes on."""
    with tiny_disk(tmp_path / "disk", "3m"):
        root = tmp_path / "disk"
        acknowledged = 0

        def fill(store, rows):
            nonlocal acknowledged
            while True:
                acknowledged += store.traffic.append([next(rows) for _ in range(100)], "file").added

        with open_store(root) as store:
            ballast = root / "ballast"
            ballast.write_bytes(b"x" * 500_000)
            rows = log_rows()
            with pytest.raises(StoreError, match="full") as error:
                fill(store, rows)
            assert "free some space" in error.value.next_action
            assert acknowledged > 100
            ballast.unlink()
            assert store.traffic.append([next(rows)], "file").added == 1
        with open_store(root) as store:
            assert store.traffic._db.check() == []
            assert store.traffic.counts().records == acknowledged + 1


def test_a_full_disk_leaves_no_half_artifact(tmp_path):
    """A result that doesn't fit is refused, leaves nothing that could be found, and is made once there is room."""
    from overproof.store.artifacts import Step

    step = Step(name="make", version=1, fn=make_folder, workdir=True)
    with tiny_disk(tmp_path / "disk", "1m"):
        root = tmp_path / "disk"
        (root / "ballast").write_bytes(b"x" * 900_000)
        with open_store(root) as store:
            memo = store.memo()
            number = 0
            with suppress_full():
                for number in range(100):
                    memo.run(step, memo.source("n", number), recipe="r")
            assert number < 99
            assert list(store.objects.scratch().glob("make-*")) == []
            (root / "ballast").unlink()
            assert memo.run(step, memo.source("n", number), recipe="r").value[0] == number
            for path in (store.home / "objects").rglob("*.tree"):
                store.objects.find(path.stem)


def test_a_read_only_disk_is_said(tmp_path):
    """A project on a read-only disk ends in a clear error with an action, whichever part is used."""
    with tiny_disk(tmp_path / "disk", "2m"):
        root = tmp_path / "disk"
        with open_store(root) as store:
            store.traffic.append([next(log_rows())], "file")
            assert store.decisions.verify() == 0
        subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
        store = open_store(root)
        for use in (
            lambda: store.traffic.append([next(log_rows())], "f"),
            lambda: store.decisions.append("k", actor="a", subject="s", body={}),
            lambda: store.memo().source("n", 1),
            lambda: store.role("run").__enter__(),
        ):
            with pytest.raises(StoreError) as error:
                use()
            assert error.value.next_action
        for schema in (TRAFFIC_SCHEMA, PROJECT_SCHEMA):
            with pytest.raises(StoreError, match="writ"):
                Db(root / "sub" / "x.db", schema)


if __name__ == "__main__":
    {
        "artifacts": work_artifacts,
        "log": work_log,
        "decisions": work_decisions,
        "reviews": work_reviews,
        "labels": work_labels,
        "migrate": work_migrate,
        "secret": work_secret,
    }[sys.argv[1]](Path(sys.argv[2]))
