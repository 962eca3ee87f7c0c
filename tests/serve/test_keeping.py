"""The log's writer in a process of its own: as exact as a thread, and what it has not said to be done outlives it."""

import asyncio
import os
import signal
import time

import pytest
from tests.serve.test_capture import counts_of, row, served

from overproof.serve.capture import read_feedback
from overproof.serve.keeping import Keeping, LogProcess, Told, framed, unframed
from overproof.settings import PrivacyTable
from overproof.store.money import Prices
from overproof.store.project_store import open_store

PRICES = Prices(usd_per_million_in=1.0, usd_per_million_out=10.0)


@pytest.fixture
def store(tmp_path):
    with open_store(tmp_path) as opened:
        opened.secret()
        yield opened


def keeping(store, **more):
    return Keeping(root=str(store.root), privacy=PrivacyTable(), labels=("bug",), prices=PRICES, **more)


async def until(true, *, within_s=30.0):
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


def test_rows_come_to_the_log_redacted_and_counted_with_their_tokens_and_money(store):
    """The child does what the thread does; what an answer of the student saved is the mean price of the teacher's."""

    async def go():
        log = LogProcess(keeping(store))
        assert log.put(row(1, text="write to maria@example.com", attributes={"tier": "gold"}))
        assert await log.put_durable(row(2))
        assert [record.request.id for record in store.traffic.read()] == ["req-1", "req-2"]
        assert log.put(row(3, how=served(route="student", reason="confident"), response=b"", answer=None))
        assert await log.feedback(read_feedback(b'{"request_id": "req-1", "rating": 1}', key="")) == "kept"
        assert await log.feedback(read_feedback(b'{"request_id": "req-9", "rating": 1}', key="")) == "unknown"
        assert await log.close()
        assert (log.state, log.waiting, log.waiting_bytes, log.written, log.fault) == ("closed", 0, 0, 3, "")
        assert log.usage["inbox", "teacher", "input"] == 20
        assert log.usage["inbox", "teacher", "cost"] == pytest.approx(60e-6)
        assert not log.put(row(4))
        assert log.dropped == {("inbox", "tier=gold", "closed"): 1}

    asyncio.run(go())
    first = next(iter(store.traffic.read()))
    assert "maria@example.com" not in first.request.fields["text"]
    assert first.request.attributes["tier"] == "gold"
    assert counts_of(store) == {("inbox", "tier=gold"): {"captured": 3, "aside": 0}}


def test_a_writer_that_is_killed_loses_no_row_and_counts_none_twice(store):
    """What was handed over and not said to be done goes to the next one; who waits for durability gets its word from that."""

    async def go():
        log = LogProcess(keeping(store))
        assert await log.put_durable(row(0))
        for number in range(1, 400):
            assert log.put(row(number))
            if number == 200:
                log._flush()
                await asyncio.sleep(0.005)  # some of it is in the log, some is not
                os.kill(log._child.pid, signal.SIGKILL)
        assert await log.put_durable(row(400))
        assert "SIGKILL" in log.fault or log.fault == ""
        assert await log.close()
        assert log.dropped == {}

    asyncio.run(go())
    assert sorted(int(record.request.id[4:]) for record in store.traffic.read()) == list(range(401))
    health = store.captured.health()
    assert (health.captured, health.dropped, sum(one.aside for one in health.slices)) == (401, 0, 0)


def test_a_row_that_comes_again_is_neither_written_nor_counted_again(store):
    """A writer that was killed between the commit and its word: the next one gets the row once more."""

    async def go():
        for _ in range(2):
            log = LogProcess(keeping(store))
            assert await log.put_durable(row(1))
            assert await log.close()

    asyncio.run(go())
    assert counts_of(store) == {("inbox", "tier=gold"): {"captured": 1, "aside": 0}}


def test_a_writer_that_hangs_delays_nobody_and_what_does_not_fit_is_counted(store):
    """With the child stopped, rows wait here up to the limit; the rest are drops, exactly; then all of it is committed."""

    async def go():
        log = LogProcess(keeping(store, queue_records=200))
        assert await log.put_durable(row(0))
        os.kill(log._child.pid, signal.SIGSTOP)
        began = time.monotonic()
        kept = sum(log.put(row(number)) for number in range(1, 1_001))
        assert time.monotonic() - began < 5
        assert kept <= 200
        assert log.waiting >= kept
        assert sum(log.dropped.values()) == 1_000 - kept
        os.kill(log._child.pid, signal.SIGCONT)
        await until(lambda: log.waiting == 0)
        assert sum(log.dropped.values()) + log.written == 1_001
        assert await log.close()
        return log.written

    written = asyncio.run(go())
    health = store.captured.health()
    assert health.served == 1_001
    assert health.captured == written == store.traffic.counts().records


def test_a_drop_behind_a_row_that_waits_for_the_disk_counts_once(store):
    """The child has counted it, and can't say that it is done: neither side counts it twice, nor does the next child."""

    async def go():
        log = LogProcess(keeping(store))
        assert await log.put_durable(row(0))
        os.kill(log._child.pid, signal.SIGSTOP)
        log.state = "refusing"
        assert not log.put(row(1))
        key = ("inbox", "tier=gold", "disk full")
        assert log.dropped == {key: 1}
        log._take(Told(1, log._seq, "refusing", "the disk is full", 1, [(key, 1)], [], []))  # a row before it is not done
        assert log.dropped == {key: 1}
        os.kill(log._child.pid, signal.SIGKILL)
        await until(lambda: log.waiting == 0)
        assert log.dropped == {key: 1}
        assert await log.close()

    asyncio.run(go())
    assert counts_of(store) == {("inbox", "tier=gold"): {"captured": 1, "aside": 0, "disk full": 1}}


def test_a_gateway_that_is_gone_leaves_its_rows_to_the_writer(store):
    """The socket ends without a word: what was handed over is committed before the child ends."""

    async def go():
        log = LogProcess(keeping(store))
        for number in range(50):
            log.put(row(number))
        log._flush()
        await asyncio.sleep(0.05)
        child = log._child
        log._closing = True  # nobody starts another one
        log._socket.close()
        assert await asyncio.to_thread(child.wait, 30) == 0

    asyncio.run(go())
    assert store.traffic.counts().records == 50


def test_off_starts_no_process(store):
    async def go():
        log = LogProcess(keeping(store, mode="off"))
        assert log._child is None
        assert not log.put(row(1))
        assert not await log.put_durable(row(1))
        assert await log.feedback(read_feedback(b'{"request_id": "req-1", "rating": 1}', key="")) == "refused"
        assert await log.close()

    asyncio.run(go())
    assert store.captured.health().served == 0


@pytest.mark.parametrize("cut", [1, 3, 4, 7, 100])
def test_messages_are_whole_however_they_are_split(cut):
    """Pieces of any length give the same messages, once each."""
    whole = b"".join(framed({"n": number, "text": "x" * number}) for number in range(20))
    held, found = bytearray(), []
    for at in range(0, len(whole), cut):
        held += whole[at : at + cut]
        found += unframed(held)
    assert not held
    assert b"".join(len(one).to_bytes(4, "little") + one for one in found) == whole
