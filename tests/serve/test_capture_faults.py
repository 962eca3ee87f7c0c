"""Capture under kill -9 and on a full disk; and no planted secret is in any byte that it wrote, also after a crash."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from overproof.data import Served
from overproof.privacy.redact import Policy, Redactor
from overproof.serve.capture import Capture, Row, read_feedback
from overproof.store.project_store import open_store

HERE = Path(__file__)
KILLS = 3
HOW = Served(route="teacher", reason="stage", stage="teacher-only", endpoint="/v1/chat/completions", status=200, latency_s=0.1, overhead_s=0.001, task="t")


def call(number, text="hello"):
    request = {"model": "m", "messages": [{"role": "user", "content": f"{text} {number}"}]}
    response = {"model": "m", "choices": [{"message": {"role": "assistant", "content": "bug"}, "finish_reason": "stop"}]}
    return Row(id=f"req-{number}", at=1.7e9 + number, served=HOW, request=json.dumps(request).encode(),
               response=json.dumps(response).encode(), fields={"text": f"{text} {number}"})  # fmt: skip


def redactor(store):
    return Redactor(Policy(), key=store.secret())


# --- what the killed processes do (this file is run as a script by them) ---


def note(root, text):
    with (root / "acks.txt").open("ab", buffering=0) as file:
        file.write(f"{text}\n".encode())


async def work(root, mode):
    """Capture for ever, from the first free number; a number is noted once the call has returned."""
    with open_store(root) as store:
        number = store.traffic.counts().records + 100_000 * len(list(root.glob("run-*")))
        (root / f"run-{number}").touch()
        capture = Capture(store, redactor=redactor(store), mode=mode, queue_records=2_000)
        print("READY", flush=True)
        while True:
            if mode == "before_ack":
                done = await asyncio.gather(*(capture.put_durable(call(number + i)) for i in range(8)))
                assert all(done)
                for i in range(8):
                    note(root, number + i)
                number += 8
            else:
                assert capture.put(call(number))
                if number % 20 == 0:
                    note(root, f"{number} {time.monotonic()}")
                number += 1
                await asyncio.sleep(0.0005)


async def leak(root):
    """Capture the rows of a file, secrets in every place, and die in the middle of a commit."""
    rows = json.loads((root.parent / "rows.json").read_text())
    with open_store(root) as store:
        capture = Capture(store, redactor=redactor(store))
        real, left = store.captured._log.put_made, 6

        def dying(connection, items, source):
            nonlocal left
            left -= len(items)
            found = real(connection, items, source)
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        for i, one in enumerate(rows):
            capture.put(Row(**{**one, "served": Served(**one["served"]), "request": one["request"].encode(), "response": one["response"].encode()}))
            if i % 7 == 0:
                await asyncio.sleep(0.02)
            if i == len(rows) // 2:
                await capture.feedback(read_feedback(json.dumps({"request_id": rows[0]["id"], "comment": one["session"]}).encode(), key=""))
                store.captured._log.put_made = dying
        await capture.close()


# --- the campaign ---


def start(job, root):
    process = subprocess.Popen([sys.executable, str(HERE), job, str(root)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"READY\n", process.stderr.read().decode()
    return process


def test_what_was_acknowledged_before_a_kill_is_there(tmp_path):
    """In before_ack nothing that returned is lost, and the counters say exactly what the log holds."""
    rng = random.Random(1)
    for _ in range(KILLS):
        process = start("before_ack", tmp_path)
        time.sleep(rng.uniform(0.1, 0.5))
        process.kill()
        process.communicate()
        acks = {f"req-{line}" for line in (tmp_path / "acks.txt").read_text().split()} if (tmp_path / "acks.txt").exists() else set()
        with open_store(tmp_path) as store:
            assert store.traffic._db.check() == []
            assert acks <= {record.request.id for record in store.traffic.read()}
            assert store.captured.health().captured == store.traffic.counts().records
            assert store.captured.health().dropped == 0
    assert len(acks) >= 8 * KILLS


def test_a_kill_in_group_mode_loses_the_end_of_the_queue_and_nothing_before(tmp_path):
    """What is there is a gapless beginning of what was put; the counters fit."""
    for _ in range(2):
        process = start("group", tmp_path)
        time.sleep(1.0)
        process.kill()
        process.communicate()
        with open_store(tmp_path) as store:
            numbers = sorted(int(record.request.id[4:]) for record in store.traffic.read())
            assert store.captured.health().captured == len(numbers)
        starts = sorted(int(path.name[4:]) for path in tmp_path.glob("run-*"))
        for begin in starts:
            own = [n for n in numbers if begin <= n < begin + 100_000]
            assert own == list(range(begin, begin + len(own)))
    assert len(numbers) > 20


@contextmanager
def tiny_disk(place, size):
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_fills_up_stops_the_log_alone_and_it_goes_on_by_itself(tmp_path):
    """Rows are refused and counted while it is full; after tidying the sums are exact and nothing taken is missing."""
    with tiny_disk(tmp_path / "disk", "3m"):
        root = tmp_path / "disk"
        ballast = root / "ballast"
        offered = taken = 0

        async def go():
            nonlocal offered, taken
            with open_store(root) as store:
                store.secret()
                ballast.write_bytes(b"x" * 1_000_000)
                capture = Capture(store, redactor=redactor(store), probe_s=0.05)
                end = time.monotonic() + 60
                while capture.state == "open":
                    assert time.monotonic() < end
                    taken += capture.put(call(offered, "long " * 200))
                    offered += 1
                    await asyncio.sleep(0.0005)
                assert capture.state == "refusing", capture.fault
                for _ in range(50):
                    assert not capture.put(call(offered))
                    offered += 1
                ballast.unlink()
                while capture.state != "open":
                    assert time.monotonic() < end, capture.fault
                    await asyncio.sleep(0.01)
                taken += capture.put(call(offered))
                offered += 1
                assert await capture.close()
                health = store.captured.health()
                assert health.served == offered
                assert health.captured == taken == store.traffic.counts().records
                assert health.slices[0].dropped["disk full"] >= 50
                assert store.traffic._db.check() == []

        asyncio.run(go())


def planted_rows(values, words_for):
    rows = []
    for i, value in enumerate(values):
        said, how = words_for(value), {}
        text, answer, attributes, session, response = f"message {i}", "bug", {}, "s", None
        place = i % 7
        if place == 0:
            text = f"{text} {said}"
        elif place == 1:
            answer = json.dumps({"label": "bug", "why": said}, ensure_ascii=i % 2 == 0)
        elif place == 2:
            attributes = {"note": said[:190]}  # from a header
        elif place == 3:
            session = said
        elif place == 4:
            response = json.dumps({"error": {"message": said}})
        elif place == 5:
            how = {"guess": said, "endpoint": f"/v1/chat/completions/{said}"}
        request = json.dumps({"model": said if place == 6 else "m", "metadata": {"from": said[:190]}, "user": said, "messages": [
            {"role": "system", "content": f"Help. {said}"}, {"role": "user", "content": text}]}, ensure_ascii=i % 3 == 0)  # fmt: skip
        if i % 11 == 10:
            request = request[:-1] + ", broken"
        reply = json.dumps({"model": "m", "choices": [{"message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}]})
        served = {**{name: getattr(HOW, name) for name in ("route", "reason", "stage", "endpoint", "status", "latency_s", "overhead_s", "task")}, **how}
        if response:
            served["status"] = 400
        rows.append({"id": f"req-{i}", "at": 1.7e9 + i, "served": served, "request": request, "response": response or reply,
                     "fields": {"text": text} if i % 2 else None, "attributes": attributes, "session": session})  # fmt: skip
    return rows


def test_planted_secrets_are_in_no_byte_after_a_crash_in_the_middle_of_a_commit(tmp_path):
    """Fifty, in bodies, headers, errors, sessions, feedback; the write-ahead log is looked through as well, and the search finds what is there."""
    from benchmarks.data.leaks import planted, search, words_for

    values = planted(50)
    assert len(values) == 50
    rows = planted_rows(values, words_for)
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    root = tmp_path / "project"
    root.mkdir()
    done = subprocess.run([sys.executable, "-X", "dev", str(HERE), "leak", str(root)], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert (root / ".overproof" / "traffic.db-wal").stat().st_size > 0
    said = {"standard output": done.stdout, "standard error": done.stderr}
    assert search(root, said, values) == []
    for value, one in zip(values, rows, strict=True):
        assert search(tmp_path / "nowhere", {"request": one["request"].encode()}, [value]), "not planted"
    with open_store(root) as store:
        found = list(store.traffic.read())
        assert len(found) >= 20
        assert store.captured.health().served == len(found)
        assert store.captured.feedback()


if __name__ == "__main__":
    job, folder = sys.argv[1], Path(sys.argv[2])
    asyncio.run(leak(folder) if job == "leak" else work(folder, job))
