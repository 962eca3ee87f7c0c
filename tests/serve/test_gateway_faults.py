"""What goes wrong around the gateway reaches callers as an error or not at all, leaves one row, and never a label."""

import contextlib
import functools
import json
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor

import apsw
import pytest
from tests.serve.gateways import (
    CHAT,
    SURE,
    Gateway,
    Stub,
    chat,
    command,
    content,
    in_thread,
    place,
    record,
    running,
    until,
    write_project,
)
from tests.serve.packing import pack

from overproof.errors import StoreError
from overproof.serve import live
from overproof.serve.shadow import Shadow
from overproof.store.project_store import open_store

RARELY = "compare = 0.000001"
HERE = "tests.serve.odd_students"


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed") / "b"
    pack(folder)
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """No release, and an upstream that has one second."""
    with running(tmp_path_factory.mktemp("plain"), gateway="timeout_s = 1") as one:
        yield one


# -- the upstream ------------------------------------------------------------------------------------------------------

FAULTS = [("hang", 504, False), ("500", 500, False), ("cut", 502, False), ("garbage", 502, False), ("cut-stream", 200, True), ("hang-stream", 200, True)]


@pytest.mark.parametrize(("mode", "status", "streamed"), FAULTS)
def test_a_failing_upstream_is_an_error_and_no_label(plain, mode, status, streamed):
    """Hang, 5xx, garbage, a body or a stream that is cut: an error for the caller, one row without a label."""
    plain.stub.reset()
    plain.stub.mode = mode
    before = len(plain.rows())
    got = plain.ask(SURE[0], **({"stream": True} if streamed else {}))
    assert (got.status, got.whole) == (status, not streamed)
    if streamed:
        assert b'"error"' in got.body
        assert b"[DONE]" not in got.body
    else:
        assert json.loads(got.body)["error"]["message"]
    row = plain.row(got)
    assert (row.served.status, row.served.reason, len(plain.rows())) == (status, "no_release", before + 1)
    assert row.completion is None or (row.completion.value is None and row.completion.reason)


def test_a_caller_who_leaves_ends_the_upstreams_work_and_is_in_the_log(plain):
    """Mid-stream: the upstream's connection is closed at once; one row, 499, no label."""
    plain.stub.reset()
    plain.stub.mode = "hang-stream"
    known = set(plain.rows())
    assert b"data: " in plain.leave_mid_stream()
    assert plain.stub.gone.wait(0.9)
    new = until(lambda: set(plain.rows()) - known)
    time.sleep(0.3)
    assert set(plain.rows()) - known == new
    row = plain.rows()[new.pop()]
    assert (row.served.status, bool(row.completion.reason)) == (499, True)


def test_a_failure_of_ours_still_leaves_one_row(plain, monkeypatch):
    """An exception that nobody foresaw: 500 without its text, one row, one count."""
    plain.stub.reset()
    before, counted = len(plain.rows()), plain.metric("overproof_requests_total{")
    monkeypatch.setattr(plain.station.upstream, "send", lambda *_, **__: 1 / 0)
    got = plain.ask("my secret words")
    assert (got.status, b"secret" in got.body) == (500, False)
    until(lambda: len(plain.rows()) == before + 1)
    assert list(plain.rows().values())[-1].served.status == 500
    assert plain.metric("overproof_requests_total{") == counted + 1


def test_too_many_connections_are_told_to_come_again(plain, monkeypatch):
    """The limit of connections is the gateway's own affair: 503 and when to come again, not the caller's mistake."""
    plain.stub.reset()
    monkeypatch.setattr("overproof.serve.upstream.MOST_OPEN", 0)
    plain.on_loop(lambda: [wire.abort() for wire in tuple(plain.station.upstream._open)])
    until(lambda: not plain.station.upstream.connections)
    got = plain.ask(SURE[0])
    assert (got.status, int(got.headers["retry-after"]) >= 1) == (503, True)
    assert plain.row(got).served.status == 503


def test_with_both_down_callers_are_told_when_to_come_again_and_the_log_has_them(tmp_path, packed):
    """Teacher down and student at fault: 502, and 503 with Retry-After once the upstream rests; each is in the log."""
    with running(tmp_path, packed, stage="full", serve=RARELY + '\non_outage = "student"') as one:
        one.stub.stop()
        one.current.pool.bundle.answers = lambda requests: 1 / 0
        got = one.asks([(SURE[0], {}, {}) for _ in range(24)])
        assert [a.status for a in got] == [502] * 20 + [503] * 4
        last = one.ask(SURE[0])
        assert 1 <= int(last.headers["retry-after"]) <= 30
        rows = until(lambda: found if len(found := one.rows()) == 25 else None)
        assert [rows[a.id].served.status for a in got] == [a.status for a in got]
        assert {(a.how["route"], a.how["reason"]) for a in got} == {("teacher", "student_error")}


def test_a_certified_student_stands_in_where_the_owner_allows_it(tmp_path, packed):
    """Teacher's arm of a canary, teacher down: the student answers with the degraded header; unsure requests fail; its arm counts the teacher's failure."""
    with running(tmp_path, packed, stage="canary", share=0.0, serve=RARELY + '\non_outage = "student"') as one:
        epoch = one.current.position.epoch
        one.stub.mode = "500"
        first = one.ask(SURE[0])
        assert (first.how["route"], first.how["reason"], first.how["degraded"], content(first)) == ("student", "outage", "true", "delivery")
        one.stub.stop()
        got, unsure = one.ask(SURE[0], stream=True), one.ask("hello")
        assert (got.how["reason"], got.how["degraded"], content(got)) == ("outage", "true", "delivery")
        assert (unsure.status, unsure.how["route"]) == (502, "teacher")
        assert one.row(got).served.degraded
        with open_store(one.folder) as store:
            seen = until(lambda: (found := store.rollouts.counts(epoch).get("")) and found[0].requests == 3 and found[0])
        assert (seen.kept, seen.by_student, seen.by_teacher, seen.teacher_failed) == (2, 0, 2, 2)  # drawn for the teacher, who gave nothing


def test_without_leave_nobody_stands_in(tmp_path, packed):
    """on_outage is off by default: the caller gets the teacher's error."""
    with running(tmp_path, packed, stage="canary", share=0.0) as one:
        one.stub.mode = "500"
        got = one.ask(SURE[0])
        assert (got.status, got.how["route"], "degraded" in got.how) == (500, "teacher", False)


# -- releases and disk -------------------------------------------------------------------------------------------------


def test_a_release_with_a_flipped_byte_never_serves_and_the_last_good_one_stays(tmp_path, packed):
    """The next release is damaged on disk: the one before goes on answering, status says why, and nothing is a 500."""
    with running(tmp_path, packed, stage="full", serve=RARELY) as one:
        pack(tmp_path / "b2", seed=6)
        bundle = record(one.folder, tmp_path / "b2", "r2").path
        file = max(bundle.rglob("*.npz"), key=lambda path: path.stat().st_size)
        file.chmod(0o644)
        raw = bytearray(file.read_bytes())
        raw[len(raw) // 2] ^= 1
        file.write_bytes(raw)
        place(one.folder, "full", name="r2")
        until(lambda: one.station.live.refused)
        time.sleep(1.2)
        status = one.json("/overproof/v1/status")["tasks"][0]
        assert status["loaded"] == "r1"
        assert any("weights.npz" in text for text in status["problems"])
        assert ("refused", "r2") in [(event["what"], event["release"]) for event in status["events"]]
        got = one.ask(SURE[0])
        assert (got.status, got.how["route"], got.how["release"]) == (200, "student", "r1")
        assert one.json("/readyz")["status"] == "degraded"
        assert command(one.folder, "rollback", "--by", "Dana").code == 0
        one.at("teacher-only", within_s=2)


def test_who_has_never_read_its_store_is_not_ready_and_answers_all_the_same(tmp_path, packed):
    """Started while the rollout can't be read: 503 "starting", the teacher answers; readable again, the release is loaded and it is ready."""
    stub = Stub()
    folder = write_project(tmp_path / "p", stub.url, serve=RARELY)
    record(folder, packed)
    place(folder, "full")
    file = folder / ".overproof" / "project.db"

    def rename(old, new):
        with contextlib.closing(sqlite3.connect(file, timeout=20)) as db:
            db.execute(f"ALTER TABLE {old} RENAME TO {new}")

    rename("rollout", "away")
    one = Gateway(folder)
    try:
        told = one.request("/readyz")
        assert (told.status, json.loads(told.body)["status"]) == (503, "starting")
        assert one.request("/healthz").status == 200
        got = one.ask(SURE[0])
        assert (got.status, got.how["reason"]) == (200, "no_release")
        rename("away", "rollout")
        one.at("full")
        until(lambda: json.loads(one.request("/readyz").body) == {"status": "ready", "problems": []})
        assert one.request("/readyz").status == 200
        assert one.ask(SURE[0]).how["route"] == "student"
    finally:
        one.stop()
        stub.stop()


@pytest.mark.parametrize("stage", ["canary", "full"])
def test_a_release_that_goes_on_for_a_damaged_successor_is_held_to_its_own_bars(tmp_path, packed, stage):
    """The teacher stops agreeing with it: it is taken back, once, with the reason on record; the successor's state is untouched."""
    with running(tmp_path, packed, stage=stage, share=1.0 if stage == "full" else 0.9, serve="compare = 0.9") as one:
        pack(tmp_path / "b2", seed=6)
        bundle = record(one.folder, tmp_path / "b2", "r2").path
        flip = max(bundle.rglob("*.npz"), key=lambda path: path.stat().st_size)
        flip.chmod(0o644)
        flip.write_bytes(flip.read_bytes()[:-1])
        after = place(one.folder, stage, name="r2")
        until(lambda: one.station.live.refused)
        assert one.ask(SURE[0]).how["release"] == "r1"
        one.stub.say = lambda text: "login"
        sent = 0
        while one.current.position.release == "r1" and sent < 600:
            one.asks([(SURE[i % 4], {}, {"user": f"u{sent + i}"}) for i in range(10)])
            sent += 10
            time.sleep(0.05)
        assert one.current.position.release is None
        assert one.ask(SURE[0]).how["reason"] == "no_release"
        assert ("withdrawn", "r1") in [(event.what, event.release) for event in one.station.live.events]
        time.sleep(1.2)
        with open_store(one.folder) as store:
            moved = [entry for entry in store.decisions.read() if entry.actor == "gateway"]
            assert [(entry.subject, entry.body["from"], entry.body["to"]) for entry in moved] == [("r1", stage, "teacher-only")]
            assert "more than" in moved[0].body["why"]
            assert store.releases.history()[-1].why == moved[0].body["why"]
            assert store.rollouts.current("routing").epoch == after.epoch
            store.decisions.verify()


def test_a_stage_that_can_not_be_entered_leaves_the_bars_of_the_one_before(tmp_path, packed):
    """A release whose files broke after the shadow had them: it stays in shadow, its shadow's bars are judged, and it goes back."""
    with running(tmp_path, packed, stage="shadow") as one:
        until(lambda: one.current.shadow.state == "running")
        with open_store(one.folder) as store:
            flip = max(store.releases.get("r1").bundle.path.rglob("*.npz"), key=lambda path: path.stat().st_size)
        flip.chmod(0o644)
        flip.write_bytes(flip.read_bytes()[:-1])
        time.sleep(1.2)  # the tick has its plan
        place(one.folder, "canary")
        until(lambda: one.station.live.refused)
        one.stub.say = lambda text: "login"
        sent = 0
        while one.current.position.stage == "shadow" and sent < 600:
            one.asks([(SURE[i % 4], {}, {}) for i in range(10)])
            sent += 10
            time.sleep(0.05)
        one.at("teacher-only")
        status = one.json("/overproof/v1/status")["tasks"][0]
        assert (status["stage"], status["by"]) == ("teacher-only", "gateway")
        assert "more than" in status["why"]


def test_a_full_disk_stops_no_answer_and_is_said(tmp_path, packed):
    """Nothing can be written: answers go on, status and readiness say so, drops are counted; then it goes on by itself."""
    with running(tmp_path, packed, stage="full", serve=RARELY, keep=in_thread) as one:
        log = one.station.capture._log
        good = log.commit

        def full(*_):
            raise StoreError("the disk is full", next_action="tidy") from apsw.FullError("full")

        one.station.capture._probe_s = 0.2
        log.commit = full
        first = [one.ask(SURE[0]) for _ in range(3)]
        until(lambda: one.station.capture.state == "refusing")
        second = [one.ask("hello") for _ in range(3)]
        assert {a.status for a in first + second} == {200}
        ready = one.json("/readyz")
        assert (ready["status"], any("refusing" in text for text in ready["problems"])) == ("degraded", True)
        lost = one.metric('overproof_capture_dropped_total{reason="disk full"')
        assert 3 <= lost <= 5
        log.commit = good
        until(lambda: one.station.capture.state == "open" and len(one.rows()) == 6 - lost)
        with open_store(one.folder) as store:
            until(lambda: store.captured.health().dropped == lost)
            assert store.captured.health().served == 6


# -- shadow ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hangs", "crashes", "eats", "never"])
def test_a_shadow_student_can_not_hurt_and_its_silence_is_said(tmp_path, packed, monkeypatch, name):
    """It hangs, crashes, eats memory or doesn't load: every answer is the teacher's bytes; status and metrics say it is silent."""
    monkeypatch.setattr(live, "Shadow", functools.partial(Shadow, load=f"{HERE}:{name}", timeout_s=0.3))
    with running(tmp_path, packed, stage="shadow", gateway="shadow_mb = 256") as one:
        got = []
        for i in range(12):
            got.append(one.ask("now", stream=bool(i % 2)))
            time.sleep(0.02)
        assert [(a.status, a.whole, a.how["route"]) for a in got] == [(200, True, "teacher")] * 12
        assert [a.body for a in got] == one.stub.sent
        shadow = one.current.shadow
        until(lambda: shadow.faults, 20)
        assert shadow.answered == 0
        assert one.metric("overproof_shadow_silent{") == 0
        shadow._since -= 31  # as if it had been so for half a minute
        assert one.metric("overproof_shadow_silent{") == 1
        status = one.json("/overproof/v1/status")["tasks"][0]
        assert status["shadow"]["silent"]
        assert any("shadow" in text for text in status["problems"])
        rows = until(lambda: found if len(found := one.rows()) == 12 else None)
        assert {row.served.guess for row in rows.values()} == {None}


# -- the log, at the end and before the answer -------------------------------------------------------------------------


def test_the_end_loses_no_row_that_waits_for_the_shadow(tmp_path, packed, monkeypatch):
    """SIGTERM while rows wait for the student's word: they are in the log without it."""
    monkeypatch.setattr(live, "Shadow", functools.partial(Shadow, load=f"{HERE}:hangs"))
    with running(tmp_path, packed, stage="shadow") as one:
        got = one.asks([("now", {}, {}) for _ in range(5)])
        one.stop()
        assert set(one.rows()) == {a.id for a in got}


def test_what_the_end_cuts_is_in_the_log(tmp_path):
    """A call that is still under way when the drain ends: one row, cut, no label."""
    with running(tmp_path) as one, ThreadPoolExecutor(1) as pool:
        one.app.server._drain_s = 0.2
        one.stub.mode = "hang"
        asked = pool.submit(one.ask, SURE[0])
        until(lambda: one.stub.count)
        one.stop()
        assert asked.exception() is not None or asked.result().status == 500
        (row,) = one.rows().values()
        assert (row.served.status, row.completion is None or bool(row.completion.reason)) == (500, True)


def test_before_ack_the_row_is_there_before_the_answers_end(tmp_path, packed):
    """Student, teacher, streams, errors, cut streams: with the last byte at the caller, the row is in the store."""
    with running(tmp_path, packed, stage="full", serve=RARELY, gateway='capture = "before_ack"', keep=in_thread) as one:
        log = one.station.capture._log
        good = log.commit
        log.commit = lambda *given: time.sleep(0.25) or good(*given)
        modes = [("answer", SURE[0], False), ("answer", SURE[0], True), ("answer", "hello", False), ("answer", "hello", True),
                 ("500", "hello", False), ("cut", "hello", False), ("cut-stream", "hello", True)]  # fmt: skip
        for mode, text, streamed in modes:
            one.stub.mode = mode
            got = one.ask(text, **({"stream": True} if streamed else {}))
            assert got.id in one.rows(), (mode, text, streamed)
        assert len(one.rows()) == len(modes)


# -- several ----------------------------------------------------------------------------------------------------------


def test_two_gateways_on_one_store_agree_and_add_up(tmp_path, packed):
    """Both are at the new stage within two seconds, put a caller in the same arm, and their counts are one sum."""
    with running(tmp_path, packed, stage="shadow") as one:
        two = Gateway(one.folder)
        try:
            epoch = place(one.folder, "canary", 0.5).epoch
            one.at("canary", 0.5, within_s=2)
            two.at("canary", 0.5, within_s=2)
            calls = [(SURE[0], {}, {"user": f"u{i}"}) for i in range(30)]
            assert [a.how["route"] for a in one.asks(calls)] == [a.how["route"] for a in two.asks(calls)]
            with open_store(one.folder) as store:
                until(lambda: sum(slot.requests for slot in store.rollouts.counts(epoch).get("", ())) == 60)
            until(lambda: len(one.rows()) == 60)
        finally:
            two.stop()


def test_each_project_of_one_process_has_its_own_log_and_the_first_takes_the_rest(tmp_path):
    """--also: a call goes to its own task's log and upstream; what nobody knows, to the first."""
    stubs = [Stub(), Stub()]
    other = "You say whether a sentence about the weather is glad or sad, in one word of these two, please."
    folders = [write_project(tmp_path / "a", stubs[0].url), write_project(tmp_path / "b", stubs[1].url, name="mood", prompt=other)]
    one = Gateway(*folders)
    try:
        first, second = one.ask("one"), one.request(CHAT, chat("two") | {"messages": [{"role": "system", "content": other}, {"role": "user", "content": "two"}]})
        third = one.request("/v1/embeddings", {"input": "x"})
        named = one.request(CHAT, {"model": "overproof/mood", "messages": [{"role": "user", "content": "four"}]})
        assert [a.how.get("task") for a in (first, second, third, named)] == ["routing", "mood", None, "mood"]
        until(lambda: len(one.rows(0)) == 2 and len(one.rows(1)) == 2)
        assert set(one.rows(0)) == {first.id, third.id}
        assert [row.served.task for row in one.rows(1).values()] == ["mood", "mood"]
        assert [stub.count for stub in stubs] == [2, 2]
        assert [task["task"] for task in one.json("/overproof/v1/status")["tasks"]] == ["routing", "mood"]
    finally:
        one.stop()
        for stub in stubs:
            stub.stop()


def test_a_hanging_or_packed_list_of_models_costs_no_more_than_itself(plain, monkeypatch):
    """/v1/models names ours at once where the upstream hangs, and reads the upstream's without asking for compression."""
    plain.stub.reset()
    got = plain.request("/v1/models", headers={"accept-encoding": "gzip, br"})
    assert (got.status, b"accept-encoding" in plain.stub.heard[-1][0]) == (200, False)
    monkeypatch.setattr("overproof.serve.manage.MODELS_S", 0.2)
    plain.stub.mode = "hang"
    got = plain.json("/v1/models")
    assert [one["id"] for one in got["data"]] == ["overproof/routing"]
    assert plain.stub.gone.wait(2)
