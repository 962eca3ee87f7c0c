"""The queue between the gateway and the disk: nothing waits for it, nothing is lost unseen, and what was counted adds up."""

import asyncio
import json
import threading
import time
from collections import Counter
from dataclasses import replace

import apsw
import pytest

from overproof.data import BY_STUDENT, Completion, Served
from overproof.errors import CorruptArtifact, DataError
from overproof.privacy.redact import Policy, Redactor
from overproof.serve import capture as module
from overproof.serve.capture import Capture, Row, read_feedback
from overproof.store.captured import BROKEN, CAPTURED, CaptureLog, SliceHealth
from overproof.store.local import Db
from overproof.store.logs import TrafficLog
from overproof.store.money import Prices
from overproof.store.project_store import open_store
from overproof.store.schema import TRAFFIC_SCHEMA

REDACTOR = Redactor(Policy(), key=b"k" * 32)


def served(**more):
    given = {"route": "teacher", "reason": "stage", "stage": "teacher-only", "endpoint": "/v1/chat/completions", "status": 200,
             "latency_s": 0.5, "overhead_s": 0.001, "task": "inbox", "slice": "tier=gold"}  # fmt: skip
    return Served(**{**given, **more})


def row(number, *, text=None, said="bug", how=None, **more):
    body = {"model": "m", "messages": [{"role": "system", "content": "Sort."}, {"role": "user", "content": text or f"message {number}"}]}
    reply = {"model": "m-1", "choices": [{"message": {"role": "assistant", "content": said}, "finish_reason": "stop"}],
             "usage": {"prompt_tokens": 10, "completion_tokens": 2}}  # fmt: skip
    given = {"id": f"req-{number}", "at": 1_700_000_000.0 + number, "served": how or served(), "request": json.dumps(body).encode(),
             "response": json.dumps(reply).encode(), "fields": {"text": text or f"message {number}"}}  # fmt: skip
    return Row(**{**given, **more})


@pytest.fixture
def store(tmp_path):
    with open_store(tmp_path) as opened:
        yield opened


def counts_of(store):
    return {(s.task, s.slice): {"captured": s.captured, "aside": s.aside, **s.dropped} for s in store.captured.health().slices}


def hold(capture):
    """Keep the writer from the disk; returns what lets it go."""
    gate, real = threading.Event(), capture._log.commit

    def held(*args):
        gate.wait()
        return real(*args)

    capture._log.commit = held
    return gate.set


def test_a_row_is_in_the_log_with_how_it_was_served_tokens_and_cost(store):
    """What the caller asked and got, and everything that the gateway knows of it."""

    async def go():
        capture = Capture(store, redactor=REDACTOR, prices=Prices(usd_per_million_in=1.0, usd_per_million_out=10.0))
        assert capture.put(row(1, attributes={"tier": "gold"}, session="s"))
        assert await capture.close()
        assert capture.state == "closed"

    asyncio.run(go())
    (record,) = store.traffic.read(context=True)
    assert replace(record.served, asked="") == served()
    assert record.served.asked
    assert record.request.id == "req-1"
    assert record.request.at == "2023-11-14T22:13:21.000000Z"
    assert record.request.fields == {"text": "message 1"}
    assert record.request.session == "s"
    assert record.request.attributes["tier"] == "gold"
    assert record.source == "gateway"
    done = record.completion
    assert (done.text, done.model, done.finish, done.tokens_in, done.tokens_out, done.latency_s) == ("bug", "m-1", "stop", 10, 2, 0.5)
    assert done.cost_usd == pytest.approx(30e-6)
    assert [turn.role for turn in record.context] == ["system"]
    assert counts_of(store) == {("inbox", "tier=gold"): {"captured": 1, "aside": 0}}


def test_put_never_waits_for_a_disk_that_hangs_and_the_burst_is_counted_exactly(store):
    """Ten times the queue while nothing is written: each request is captured, drawn or refused, and the sums are exact."""
    n, kept = 2_000, 0

    async def go():
        nonlocal kept
        capture = Capture(store, redactor=REDACTOR, queue_records=200)
        release = hold(capture)
        for number in range(n):
            kept += capture.put(row(number, how=served(slice=f"s{number % 3}")))
        assert capture.waiting <= 200
        assert sum(capture.dropped.values()) == n - kept
        release()
        assert await capture.close()

    asyncio.run(go())
    health = store.captured.health()
    assert health.served == n
    assert health.captured == kept == store.traffic.counts().records
    assert health.dropped == n - kept
    dropped = Counter()
    for one in health.slices:
        assert one.served == len([i for i in range(n) if f"s{i % 3}" == one.slice])
        dropped.update(one.dropped)
    assert set(dropped) == {"drawn", "queue full"}
    assert len(health.alarms) == 3
    assert "queue full" in health.alarms[0]
    assert f"{n:,} requests" in health.line


def test_drawn_rows_stand_for_those_that_were_not(store):
    """Above 80 % full a row's weight is one over its chance, so that the weights sum to the requests offered, on average."""
    import random

    rng, sums = random.Random(5), []

    class Still:  # a writer that has not come to it yet
        def start(self):
            pass

    async def once():
        capture = Capture(store, redactor=REDACTOR, queue_records=100)
        await capture.close()
        capture.state, capture._closing, capture._chance = "open", False, rng.random
        capture._put_rows = capture._done_rows = 0
        n = 110
        for number in range(n):
            capture.put(row(number))
        sums.append((sum(entry.weight for entry in capture._queue) + sum(v for k, v in capture.dropped.items() if k[2] == "queue full"), n))
        weights = [entry.weight for entry in capture._queue]
        assert weights[:80] == [1.0] * 80
        assert max(weights[80:]) > 1.0

    async def go():
        for _ in range(60):
            await once()

    asyncio.run(go())
    mean = sum(a for a, _ in sums) / len(sums)
    assert mean == pytest.approx(110, abs=2.5)


def test_weights_reach_the_log(store):
    """Each row of the log says how many requests it stands for: one over the chance that it had when it came."""

    async def go():
        capture = Capture(store, redactor=REDACTOR, queue_records=100)
        release = hold(capture)
        capture._chance = lambda: 0.0  # every draw is won
        assert all(capture.put(row(number)) for number in range(100))
        assert not capture.put(row(100))
        release()
        assert await capture.close()

    asyncio.run(go())
    weights = {record.request.id: record.served.weight for record in store.traffic.read()}
    assert weights == pytest.approx({f"req-{n}": 1.0 if n <= 80 else 20 / (100 - n) for n in range(100)})
    assert counts_of(store)["inbox", "tier=gold"] == {"captured": 100, "aside": 0, "queue full": 1}


def test_before_ack_is_durable_when_it_returns(store):
    """The row is read back through another connection before the writer is closed."""

    async def go():
        capture = Capture(store, redactor=REDACTOR, mode="before_ack")
        assert await capture.put_durable(row(1))
        other = apsw.Connection(str(store.home / "traffic.db"), flags=apsw.SQLITE_OPEN_READONLY)
        assert other.execute("SELECT id FROM record").fetchall() == [("req-1",)]
        other.close()
        done = await asyncio.gather(*(capture.put_durable(row(i)) for i in range(2, 40)))
        assert all(done)
        await capture.close()

    asyncio.run(go())
    assert store.traffic.counts().records == 39


def test_off_keeps_nothing_and_counts_nothing(store):
    async def go():
        capture = Capture(store, redactor=REDACTOR, mode="off")
        assert not capture.put(row(1))
        await capture.close()

    asyncio.run(go())
    assert store.traffic.counts().records == 0
    assert store.captured.health().served == 0


def test_a_row_after_the_end_is_dropped_and_said(store):
    async def go():
        capture = Capture(store, redactor=REDACTOR)
        await capture.close()
        assert not capture.put(row(1))
        assert not await capture.put_durable(row(2))
        assert capture.dropped == {("inbox", "tier=gold", "closed"): 2}

    asyncio.run(go())


class Faulty:
    """A log whose disk fails for a while."""

    def __init__(self, log, error):
        self._log, self.error, self.noted = log, error, False

    def commit(self, *args):
        if self.error is not None:
            raise self.error
        return self._log.commit(*args)

    def made(self, once):
        if self.error is not None:
            raise self.error
        return self._log.made(once)

    def broke(self):
        self.noted = True


def storage_error(cause):
    from overproof.errors import StoreError

    error = StoreError("no", next_action="wait")
    error.__cause__ = cause
    return error


async def until(true, *, within_s=20.0):
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)


def test_a_full_disk_refuses_rows_counts_them_and_resumes_by_itself(store):
    """What was taken before is tried again; what comes meanwhile is a counted drop; who waits for durability is told no."""

    async def go():
        capture = Capture(store, redactor=REDACTOR, probe_s=0.02)
        capture._log = faulty = Faulty(store.captured, storage_error(apsw.FullError("full")))
        assert capture.put(row(1))
        await until(lambda: capture.state == "refusing")
        assert capture.fault
        assert not capture.put(row(2))
        assert not await capture.put_durable(row(3))
        assert await capture.feedback(read_feedback(b'{"request_id": "req-1", "rating": 1}', key="")) == "refused"
        faulty.error = None
        await until(lambda: capture.state == "open")
        assert capture.put(row(4))
        assert await capture.put_durable(row(5))
        await capture.close()

    asyncio.run(go())
    assert [record.request.id for record in store.traffic.read()] == ["req-1", "req-4", "req-5"]
    assert counts_of(store) == {("inbox", "tier=gold"): {"captured": 3, "aside": 0, "disk full": 2}}


def test_while_the_stores_server_is_away_nobody_waits_for_the_next_try(store):
    """The first one learns of it; then durable rows are counted at once, others wait, and all is well by itself afterwards."""
    psycopg = pytest.importorskip("psycopg", reason="needs the extra postgres")

    async def go():
        capture = Capture(store, redactor=REDACTOR)
        capture._log = faulty = Faulty(store.captured, storage_error(psycopg.OperationalError("connection refused")))
        assert not await capture.put_durable(row(1))
        assert capture.away
        future = asyncio.get_running_loop().create_future()
        assert not capture.offer(row(2), future)
        assert capture.put(row(3))
        faulty.error = None
        await until(lambda: not capture.away)
        assert not capture.fault
        assert await capture.put_durable(row(4))
        await capture.close()

    asyncio.run(go())
    assert [record.request.id for record in store.traffic.read()] == ["req-3", "req-4"]
    assert counts_of(store) == {("inbox", "tier=gold"): {"captured": 2, "aside": 0, "store busy": 2}}


class Unheard(Faulty):
    """A server that makes a commit, or doesn't, and is away before it says so."""

    def __init__(self, log, error, *, makes):
        super().__init__(log, error)
        self.makes = makes

    def commit(self, *args):
        if self.error is not None and self.makes:
            self.makes = False
            self._log.commit(*args)
        return super().commit(*args)


@pytest.mark.parametrize("makes", [True, False])
def test_a_commit_that_nobody_heard_of_is_counted_once_whether_it_was_made_or_not(store, makes):
    """Drops and rows of the unheard commit are there once, and who waited for a row that is in the log is no drop."""
    psycopg = pytest.importorskip("psycopg", reason="needs the extra postgres")

    async def go():
        capture = Capture(store, redactor=REDACTOR)
        capture._log = log = Unheard(store.captured, storage_error(psycopg.OperationalError("the connection is lost")), makes=makes)
        capture.lost(("inbox", "tier=gold", "queue full"))
        waits = asyncio.ensure_future(capture.put_durable(row(1)))
        assert capture.put(row(2))
        assert await waits is False
        await until(lambda: capture.away)
        assert capture.put(row(3))
        log.error = None
        await until(lambda: not capture.away and not capture.waiting)
        assert await capture.put_durable(row(4))
        assert await capture.close()
        assert capture.written == len(list(store.traffic.read()))

    asyncio.run(go())
    there = {"req-1"} if makes else set()
    assert {record.request.id for record in store.traffic.read()} == there | {"req-2", "req-3", "req-4"}
    (found,) = counts_of(store).values()
    assert {k: n for k, n in found.items() if n} == {"captured": 3 + len(there), "queue full": 1, **({} if makes else {"store busy": 1})}


def test_who_waits_for_a_disk_that_turns_out_full_is_told_so_at_once(store):
    async def go():
        capture = Capture(store, redactor=REDACTOR, probe_s=0.02)
        capture._log = faulty = Faulty(store.captured, storage_error(apsw.FullError("full")))
        assert not await capture.put_durable(row(1))
        faulty.error = None
        await until(lambda: capture.state == "open")
        await capture.close()

    asyncio.run(go())
    assert counts_of(store) == {("inbox", "tier=gold"): {"captured": 0, "aside": 0, "disk full": 1}}


def test_after_a_write_error_nothing_is_tried_again_until_the_file_was_checked(store):
    """Read-only for good; the note makes the next start look at the file first."""

    async def go():
        capture = Capture(store, redactor=REDACTOR)
        capture._log = faulty = Faulty(store.captured, storage_error(apsw.IOError("fsync")))
        assert not await capture.put_durable(row(1))
        assert capture.state == "read-only"
        faulty.error = None
        assert not capture.put(row(2))
        assert faulty.noted
        assert not await capture.close()
        assert capture.dropped == {("inbox", "tier=gold", "disk error"): 2}

    asyncio.run(go())
    assert store.traffic.counts().records == 0


def test_the_note_of_a_write_error_makes_the_next_start_check_the_file(tmp_path):
    with open_store(tmp_path) as store:
        store.traffic.append([], "x")
        store.captured.broke()
        assert (store.home / BROKEN).exists()
    with open_store(tmp_path) as store:
        assert store.captured is not None
        assert not (store.home / BROKEN).exists()
        store.captured.broke()
        db = Db(tmp_path / ".overproof" / "traffic.db", TRAFFIC_SCHEMA)
        db.check = lambda: ["row 1 missing from index"]
        with pytest.raises(CorruptArtifact, match="row 1 missing"):
            CaptureLog(TrafficLog(db), db, store.home)
        db.close()


def test_a_database_that_is_busy_for_long_loses_no_row(store):
    """Whoever waits is told no; the others are written once the lock is free."""

    async def go():
        capture = Capture(store, redactor=REDACTOR)
        capture._log = faulty = Faulty(store.captured, storage_error(apsw.BusyError("locked")))
        capture.put(row(1))
        assert not await capture.put_durable(row(2))
        assert capture.state == "open"
        faulty.error = None
        assert await capture.close()

    asyncio.run(go())
    assert counts_of(store) == {("inbox", "tier=gold"): {"captured": 1, "aside": 0, "store busy": 1}}


def test_closing_gives_a_full_disk_up_after_a_while(store):
    async def go():
        capture = Capture(store, redactor=REDACTOR, probe_s=0.02)
        capture._log = Faulty(store.captured, storage_error(apsw.FullError("full")))
        capture.put(row(1))
        assert not await capture.close(within_s=0.0)
        assert capture.dropped == {("inbox", "tier=gold", "disk full"): 1}

    asyncio.run(go())


def test_a_row_that_nobody_can_read_is_kept_aside_redacted(store, monkeypatch):
    """An error while reading costs that row its place in the log, and no other row anything."""
    real = module.record_of

    def odd(one, **more):
        if one.id == "req-1":
            raise ValueError("maria@example.com is odd")
        return real(one, **more)

    monkeypatch.setattr(module, "record_of", odd)

    async def go():
        capture = Capture(store, redactor=REDACTOR)
        capture.put(row(1, text="write to maria@example.com"))
        capture.put(row(2))
        await capture.close()

    asyncio.run(go())
    (aside,) = store.traffic.skipped()
    assert "maria@example.com" not in aside.raw + aside.reason
    assert "EMAIL" in aside.reason
    assert [record.request.id for record in store.traffic.read()] == ["req-2"]
    assert counts_of(store) == {("inbox", "tier=gold"): {"captured": 1, "aside": 1}}


def test_a_row_that_can_t_be_redacted_is_not_written_at_all(store):
    class Broken(Redactor):
        def text(self, text, *, escaped=False):
            raise RuntimeError("no")

    async def go():
        capture = Capture(store, redactor=Broken(Policy(), key=b"k" * 32))
        capture.put(row(1, text="secret 4111 1111 1111 1111"))
        assert not await capture.put_durable(row(2))
        await capture.close()

    asyncio.run(go())
    assert counts_of(store) == {("inbox", "tier=gold"): {"captured": 0, "aside": 0, "unwritable": 2}}
    assert store.traffic.counts().records == 0


def test_counters_survive_a_restart(tmp_path):
    async def go(store, n):
        capture = Capture(store, redactor=REDACTOR, queue_records=100)
        release = hold(capture)
        for number in range(n, n + 300):
            capture.put(row(number))
        release()
        await capture.close()

    for n in (0, 1_000):
        with open_store(tmp_path) as store:
            asyncio.run(go(store, n))
    with open_store(tmp_path) as store:
        health = store.captured.health()
        assert health.served == 600
        assert health.captured == store.traffic.counts().records


def test_single_lost_rows_don_t_alarm():
    """One in a hundred does."""
    assert SliceHealth(task="t", slice="", captured=1_000, aside=0, dropped={"queue full": 1}).alarm == ""
    assert "t: 11 of 1,011" in SliceHealth(task="t", slice="", captured=1_000, aside=0, dropped={"queue full": 11}).alarm
    assert SliceHealth(task="t", slice="", captured=10, aside=0, dropped={"drawn": 50}).alarm == ""


def test_the_health_of_some_days_leaves_older_ones_out(store):
    from datetime import UTC, datetime, timedelta

    store.captured.commit([], {("t", "", "queue full"): 3})
    today = datetime.now(UTC).date()
    assert store.captured.health(days=1, today=today).dropped == 3
    assert store.captured.health(days=1, today=today + timedelta(days=2)).dropped == 0


# --- feedback ---


def posted(**words):
    return json.dumps({"request_id": "req-1", **words}).encode()


def test_feedback_for_a_row_that_still_waits_is_accepted_and_for_a_stranger_is_not(store):
    """The queue is in order: the row is durable before what is said of it."""

    async def go():
        capture = Capture(store, redactor=REDACTOR)
        release = hold(capture)
        capture.put(row(1))
        late = asyncio.ensure_future(capture.feedback(read_feedback(posted(label="bug", comment="ask maria@example.com"), key="k1")))
        await asyncio.sleep(0)
        release()
        assert await late == "kept"
        assert await capture.feedback(read_feedback(b'{"request_id": "req-9", "rating": -1}', key="k1")) == "unknown"
        await capture.close()

    asyncio.run(go())
    words = store.captured.feedback()
    assert [(w.request_id, w.key, w.kind) for w in words] == [("req-1", "k1", "label"), ("req-1", "k1", "comment")]
    assert "maria@example.com" not in words[1].value
    assert "<EMAIL_" in words[1].value
    with pytest.raises(apsw.ConstraintError, match="append-only"), store.captured._db.write() as connection:
        connection.execute("DELETE FROM feedback")


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b"{", posted(), posted(rating=2), posted(rating=-0.5), posted(label=""), posted(label=5), posted(comment="x" * 5_000),
     posted(label="bug", extra=1), b'{"label": "bug"}', json.dumps({"request_id": "", "label": "x"}).encode(), b'{"request_id":' + b"[" * 5_000,
     b'{"request_id": "r", "rating": NaN}', b'{"request_id": "r", "rating": true}'],
)  # fmt: skip
def test_feedback_of_another_shape_is_refused_with_a_reason(raw):
    with pytest.raises(DataError):
        read_feedback(raw, key="")


def test_a_label_joins_the_row_at_reading_and_changes_the_snapshot(store):
    """Comments and ratings change nothing; of one caller the last word counts; callers who differ say nothing."""

    async def go(*bodies):
        capture = Capture(store, redactor=REDACTOR)
        for number in (1, 2):
            capture.put(row(number))
        for key, body in bodies:
            assert await capture.feedback(read_feedback(body, key=key)) == "kept"
        await capture.close()

    asyncio.run(go())
    before = store.traffic.version(), store.traffic.snapshot_digest()
    asyncio.run(go(("a", posted(rating=0.5, comment="so so"))))
    assert (store.traffic.version(), store.traffic.snapshot_digest()) == before
    asyncio.run(go(("a", posted(label="bug")), ("a", posted(label="billing"))))
    version, digest = store.traffic.version(), store.traffic.snapshot_digest()
    assert digest != before[1]
    labels = {record.request.id: (record.gold, record.gold_from) for record in store.traffic.read()}
    assert labels == {"req-1": ("billing", "feedback"), "req-2": (None, "log")}
    asyncio.run(go(("b", posted(label="bug"))))
    assert next(iter(store.traffic.read())).gold is None
    assert next(iter(store.traffic.read(version))).gold == "billing"  # as of that moment
    assert store.traffic.snapshot_digest(version) == digest


def test_the_student_s_answer_is_marked_whatever_it_says(store):
    async def go():
        capture = Capture(store, redactor=REDACTOR)
        how = served(route="student", reason="confident", stage="full", guess="bug", confidence=0.9, kept=True)
        capture.put(row(1, how=how))
        capture.put(row(2, how=how, response=b"", answer=Completion(text="bug", value="bug", model="overproof/inbox")))
        await capture.close()

    asyncio.run(go())
    assert [record.completion.reason for record in store.traffic.read()] == [BY_STUDENT] * 2
    assert store.captured.health().slices[0].captured == 2
    assert CAPTURED == "captured"
