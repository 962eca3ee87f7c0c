"""The gateway end to end: who answers at each stage and why, what is counted and logged, and the way back."""

import gzip
import json
import socket
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from tests.serve.gateways import CHAT, SURE, chat, command, content, place, running, until
from tests.serve.packing import pack

from overproof.evidence import ScopeRule
from overproof.serve.rollout import compare_by
from overproof.serve.router import arm
from overproof.store.project_store import open_store
from overproof.students.bundle import MANIFEST, manifest_of
from overproof.students.card import RELEASE, read_card, write_card

UNSURE, FOREIGN = "hello", "注文をキャンセル"
FRENCH, PLUS = {"x-overproof-attr-language": "fr"}, {"x-overproof-attr-tier": "plus"}
RARELY = "compare = 0.000001"


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed") / "b"
    pack(folder, scope=(ScopeRule(score="unknown_share", threshold=0.9),))
    return folder


@pytest.fixture(scope="module")
def full(tmp_path_factory, packed):
    """A release that answers everybody."""
    with running(tmp_path_factory.mktemp("full"), packed, stage="full", serve=RARELY) as one:
        yield one


def agrees(answer, row):
    """Headers and log say the same of one request."""
    how, kept = answer.how, row.served
    assert (how["route"], how["reason"], answer.status) == (kept.route, kept.reason, kept.status)
    assert how.get("task", "") == kept.task
    assert not kept.task or how["stage"] == kept.stage
    assert not kept.release or how["release"] == kept.release
    if "slice" in how:
        assert (how["slice"], how["confidence"]) == (kept.slice, f"{kept.confidence:.4f}")


def counts(gateway, epoch):
    """What all gateways have written under an epoch, by slice."""
    with open_store(gateway.folder) as store:
        return {name: sum(slots[1:], slots[0]) for name, slots in store.rollouts.counts(epoch).items()}


# -- stages ------------------------------------------------------------------------------------------------------------


def test_without_a_release_the_teacher_answers_and_the_row_says_so(tmp_path):
    """No release: the teacher's answer, reason no_release; the log knows the task."""
    with running(tmp_path) as one:
        got = one.ask(SURE[0])
        assert (got.how["reason"], content(got)) == ("no_release", "delivery")
        row = one.row(got)
        agrees(got, row)
        assert (row.served.task, row.served.stage, row.request.fields, row.completion.text) == ("routing", "teacher-only", {"text": SURE[0]}, "delivery")
        assert (row.completion.tokens_in, row.completion.tokens_out, row.served.overhead_s < row.served.latency_s) == (5, 1, True)


def test_in_shadow_the_answer_is_the_teachers_and_the_row_has_the_students_word(tmp_path, packed):
    """Shadow: bytes of the teacher; guess, confidence and kept in the log; compared under the right epoch and slice."""
    with running(tmp_path, packed, stage="shadow") as one:
        epoch = one.current.position.epoch
        until(lambda: one.current.shadow.state == "running")  # before anybody asks: the first row has its word too
        one.stub.say = lambda text: "login" if text == SURE[1] else "delivery"
        asked = [(SURE[0], {}), (SURE[1], {}), (SURE[0], PLUS), (SURE[0], FRENCH), (UNSURE, {})]
        got = [one.ask(text, headers) for text, headers in asked]
        assert [answer.body for answer in got] == one.stub.sent
        rows = [one.row(answer) for answer in got]
        for answer, row in zip(got, rows, strict=True):
            agrees(answer, row)
            assert (row.served.route, row.served.reason, row.served.guess, row.served.release) == ("teacher", "stage", "delivery", "r1")
            assert "confidence" not in answer.how  # nobody had looked yet
        assert [(row.served.slice, row.served.kept) for row in rows] == [
            ("other", True), ("other", True), ("paying", True), ("french", False), ("other", False),
        ]  # fmt: skip
        assert rows[0].served.confidence > 0.9 > 0.5 > rows[4].served.confidence
        until(lambda: counts(one, epoch).get("") and counts(one, epoch)[""].requests == 5)
        seen = counts(one, epoch)
        assert (seen["other"].requests, seen["other"].compared, seen["other"].disagreed, seen["other"].kept) == (3, 2, 1, 2)
        assert (seen["paying"].compared, seen["paying"].disagreed, seen["french"].compared) == (1, 0, 0)
        assert seen[""].faults == 0


def test_a_canary_is_sticky_keeps_its_share_and_compares_as_drawn(tmp_path, packed):
    """400 callers: each in the arm that its session says, always; teacher's arm looked at for nothing, student's compared by chance."""
    with running(tmp_path, packed, stage="canary", share=0.3, serve="compare = 0.5") as one:
        epoch = one.current.position.epoch
        one.current.pool._in_line_s = 1.0  # so that the pool is always idle, however slow this machine is
        calls = [(SURE[i % 4], {}, {"user": f"u{i}"}) for i in range(400)]
        got = one.asks(calls)
        drawn = [arm(f"u{i}", "r1") < 0.3 for i in range(400)]
        assert 90 <= sum(drawn) <= 150
        assert [(a.how["route"], a.how["reason"]) for a in got] == [("student", "confident") if own else ("teacher", "stage") for own in drawn]
        assert [a.how["route"] for a in one.asks(calls[:40])] == [a.how["route"] for a in got[:40]]
        until(lambda: one.station.capture.written == 440)
        rows = one.rows()
        for answer in got:
            row = rows[answer.id]
            agrees(answer, row)
            assert (row.served.guess, row.served.kept) == ("delivery", True)
            assert row.completion.text == "delivery"
        state = one.station.state(one.current.position)
        mine = [i for i, row in rows.items() if row.served.route == "student"]
        audits = sum(compare_by(state, i, by_student=True, critical=False, share=0.5) == "drawn" for i in mine)
        assert 0 < audits < len(mine)
        until(lambda: one.stub.count == 440 - len(mine) + audits)
        wanted = (440, 440 - len(mine) + audits)  # counts are written once a second
        until(lambda: (found := counts(one, epoch).get("other")) is not None and (found.requests, found.compared) == wanted)
        seen = counts(one, epoch)["other"]
        assert (seen.by_student, seen.by_teacher, seen.disagreed, seen.faults) == (len(mine), 440 - len(mine), 0, 0)


def test_at_full_the_student_answers_streams_too(full):
    """Whole and as events; the row marks the answer as the student's own, which costs nothing and is no label."""
    whole, streamed = full.ask(SURE[0]), full.ask(SURE[0], stream=True)
    assert [content(one) for one in (whole, streamed)] == ["delivery"] * 2
    assert streamed.body.endswith(b"data: [DONE]\n\n")
    for one in (whole, streamed):
        row = full.row(one)
        agrees(one, row)
        assert (row.completion.reason, row.completion.cost_usd, row.served.streamed) == ("answered by the student", 0.0, one is streamed)
    assert full.stub.count == 0 or all(SURE[0].encode() not in body for _, body in full.stub.heard)


def test_moves_by_the_command_line_take_effect_while_it_runs(tmp_path, packed):
    """promote and rollback are followed within two seconds; a request after it is answered by the new stage."""
    with running(tmp_path, packed) as one:
        assert one.ask(SURE[0]).how["reason"] == "no_release"
        for stage, reason in (("shadow", "stage"), ("canary", None), ("full", "confident")):
            assert command(one.folder, "promote", "--force", "--why", "a test", "--by", "Dana").code == 0
            one.at(stage, within_s=2)
            assert reason in (None, one.ask(SURE[0]).how["reason"])
        assert command(one.folder, "rollback", "--why", "enough", "--by", "Dana").code == 0
        one.at("teacher-only", within_s=2)
        assert one.ask(SURE[0]).how["reason"] == "no_release"
        status = one.json("/overproof/v1/status")["tasks"][0]
        assert (status["stage"], status["why"], status["loaded"], status["by"]) == ("teacher-only", "enough", None, "Dana")
        time.sleep(1.2)
        events = one.json("/overproof/v1/status")["tasks"][0]["events"]
        assert [event["what"] for event in events] == ["serving"] * 3 + ["withdrawn"]
        assert events[-1]["why"] == "enough"


@pytest.mark.parametrize(("stage", "after"), [("shadow", "canary"), ("canary", "full")])
def test_a_stage_ends_by_itself_once_time_and_evidence_are_there(tmp_path, packed, stage, after):
    """Its hour is over and calls come in: while a bar is open it holds and says so; with the last one met it moves, as the gateway, with its evidence."""
    with running(tmp_path, packed, serve='promote = "by-evidence"\nerrors_above = 0.2\ncompare = 0.9') as one:
        before = place(one.folder, stage, ago_s=3700)
        one.at(stage)
        if one.current.shadow is not None:
            until(lambda: one.current.shadow.state == "running")
        one.asks([(SURE[i % 4], {}, {"user": f"a{i}"}) for i in range(100)])
        until(lambda: (found := counts(one, before.epoch).get("other")) is not None and found.requests == 100)
        time.sleep(1.2)
        status = one.json("/overproof/v1/status")["tasks"][0]
        assert (status["stage"], status["next"], "slice 'paying'" in status["waits_for"]) == (stage, "canary 50%" if after == "canary" else "full", True)
        sent = 0
        while one.current.position.stage == stage and sent < 1500:
            one.asks([(SURE[i % 4], PLUS if i % 2 else {}, {"user": f"b{sent + i}"}) for i in range(50)])
            sent += 50
            time.sleep(0.1)
        one.at(after)
        status = one.json("/overproof/v1/status")["tasks"][0]
        assert (status["stage"], status["by"], status["why"]) == (after, "gateway", "time and evidence are there: every bar is surely met")
        with open_store(one.folder) as store:
            last = list(store.decisions.read())[-1]
            assert (last.actor, last.body["from"], last.body["to"], store.decisions.verify() > 0) == ("gateway", stage, after, True)
        bars = {bar["bar"]: bar for bar in last.body["counts"]["bars"]}
        assert all(bar["n"] >= 30 and (bar["upper"] <= bar["at_most"] or name == "failures of the arms") for name, bar in bars.items())
        assert len(bars) == (4 if stage == "shadow" else 5)
        if after == "canary":  # whose own hour has only begun
            one.asks([(SURE[i % 4], PLUS if i % 2 else {}, {"user": f"c{i}"}) for i in range(50)])
            time.sleep(1.2)
            waits = one.json("/overproof/v1/status")["tasks"][0]
            assert waits["stage"] == "canary"


def test_a_critical_slice_that_goes_bad_rolls_the_release_back_by_itself(tmp_path, packed):
    """A teacher who disagrees in a critical slice ends the canary; status, decisions and events say why."""
    with running(tmp_path, packed, stage="canary", share=1.0, serve=RARELY) as one:
        one.stub.say = lambda text: "login"
        sent = 0
        while one.current.position.stage == "canary" and sent < 400:
            one.asks([(SURE[i % 4], PLUS, {}) for i in range(5)])
            sent += 5
            time.sleep(0.05)
        one.at("teacher-only", within_s=3)
        assert sent < 200
        status = one.json("/overproof/v1/status")["tasks"][0]
        assert (status["stage"], status["by"]) == ("teacher-only", "gateway")
        assert "slice 'paying'" in status["why"]
        assert status["events"][-1]["what"] == "withdrawn"
        assert "slice 'paying'" in status["events"][-1]["why"]
        with open_store(one.folder) as store:
            last = list(store.decisions.read())[-1]
        assert (last.kind, last.actor, last.subject, last.body["to"]) == ("rollout", "gateway", "r1", "teacher-only")
        assert "slice 'paying'" in last.body["why"]
        assert one.ask(SURE[0], PLUS).how["reason"] == "no_release"


FORM = {"type": "json_schema", "json_schema": {"name": "desk", "schema": {
    "type": "object", "properties": {"label": {"enum": ["Delivery"]}}, "required": ["label"], "additionalProperties": False,
}}}  # fmt: skip


def test_a_student_whose_answers_miss_the_asked_form_goes_back_by_the_arms(tmp_path, packed):
    """Callers get the teacher's answer, which agrees; the student's arm needed it each time, and the release is rolled back for that."""
    with running(tmp_path, packed, stage="canary", serve=RARELY) as one:
        one.stub.say = lambda text: '{"label": "Delivery"}'
        epoch, sent, seen = one.current.position.epoch, 0, set()
        while one.current.position.stage == "canary" and sent < 400:
            got = one.asks([(SURE[i % 4], {}, {"user": f"u{sent + i}", "response_format": FORM}) for i in range(10)])
            seen |= {(a.how["route"], a.how["reason"]) for a in got if "stage" in a.how and a.how["stage"] == "canary"}
            sent += 10
            time.sleep(0.05)
        one.at("teacher-only", within_s=3)
        assert seen == {("teacher", "unsupported"), ("teacher", "stage")}
        status = one.json("/overproof/v1/status")["tasks"][0]
        assert (status["stage"], status["by"]) == ("teacher-only", "gateway")
        assert status["why"].startswith("failures of the arms: the student's arm fails more often")
        found = counts(one, epoch)["other"]
        assert found.student_failed == found.by_student > 10
        assert (found.teacher_failed, found.disagreed, found.faults) == (0, 0, 0)


@pytest.mark.parametrize("mode", ["answer", "500", "cut", "down"])
def test_arms_that_fail_alike_are_no_reason_to_go_back(tmp_path, packed, mode):
    """The teacher misses the form as often, or gives nothing: its arm counts that by the same rule, and the release stays."""
    with running(tmp_path, packed, stage="canary", serve=RARELY) as one:
        one.stub.say = lambda text: "delivery"  # a label, but not in the asked form
        one.stub.mode = mode
        if mode == "down":
            one.stub.stop()
        one.current.pool._in_line_s = 1.0  # so that the pool is always idle, however slow this machine is
        epoch, asked = one.current.position.epoch, [arm(f"u{i}", "r1") < 0.5 for i in range(120)]
        got = one.asks([(SURE[i % 4], {}, {"user": f"u{i}", "response_format": FORM}) for i in range(120)])
        assert {a.status for a in got} <= {200, 500, 502, 503}
        until(lambda: (found := counts(one, epoch).get("other")) is not None and found.requests == 120)
        found = counts(one, epoch)["other"]
        assert (found.by_student, found.student_failed) == (sum(asked), sum(asked))
        assert (found.by_teacher, found.teacher_failed) == (120 - sum(asked), 120 - sum(asked))
        time.sleep(1.2)
        assert one.current.position.stage == "canary"


def test_slices_that_a_release_lost_before_its_rollback_are_no_news_for_ever(tmp_path, packed):
    """A suspension outlives the rollback in the store; the gateway says once that the release was withdrawn."""
    with running(tmp_path, packed, stage="canary") as one:
        with open_store(one.folder) as store:
            store.rollouts.suspend(store.rollouts.current("routing"), {"other": "bad"}, by="gateway", evidence={}, at=time.time())
        until(lambda: one.current.position.suspended == {"other"})
        got = one.asks([(SURE[0], {}, {"user": f"u{i}"}) for i in range(20)])
        assert {a.how["reason"] for a in got} == {"slice_not_certified", "stage"}
        place(one.folder, "teacher-only")
        one.at("teacher-only")
        time.sleep(1.3)
        assert [event.what for event in one.station.live.events] == ["serving", "withdrawn"]


# -- reasons -----------------------------------------------------------------------------------------------------------

TOOLS = {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}
SAID = [
    ("confident", SURE[0], {}, {}), ("below_threshold", UNSURE, {}, {}), ("out_of_scope", FOREIGN, {}, {}),
    ("slice_not_certified", SURE[0], FRENCH, {}), ("forced", SURE[0], {"x-overproof-route": "teacher"}, {}),
    ("unsupported", SURE[0], {}, TOOLS), ("unsupported", SURE[0], {}, {"n": 2}), ("unsupported", SURE[0], {}, {"logprobs": True}),
    ("unsupported", SURE[0], {}, {"max_tokens": 1}), ("forced", SURE[0], {"x-overproof-route": "student"}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "text", "headers", "more"), SAID)
def test_every_reason_is_in_the_headers_and_the_row(full, reason, text, headers, more):
    """Each reason can be had over HTTP, from the model it stands for, and log and headers agree."""
    full.stub.reset()
    got = full.ask(text, headers, **more)
    row = full.row(got)
    agrees(got, row)
    by = "student" if reason == "confident" or headers == {"x-overproof-route": "student"} else "teacher"
    assert (got.how["reason"], got.how["route"], full.stub.count) == (reason, by, int(by == "teacher"))
    if by == "teacher":
        assert got.body == full.stub.sent[0]
        assert json.loads(full.stub.heard[0][1]) == chat(text, **more)
    assert (row.served.guess is None) == (reason in ("unsupported", "forced") and "max_tokens" not in more and by == "teacher")


def test_the_student_too_late_or_at_fault_leaves_it_to_the_teacher(tmp_path, packed):
    """Raising, late, hung: the teacher answers in time with the reason; after five in a row nobody asks the student."""
    with running(tmp_path, packed, stage="full", serve=RARELY, gateway="workers = 2") as one:
        pool = one.current.pool
        one.station.project = replace(one.station.project, gateway=replace(one.station.project.gateway, deadline_s=0.2))
        good, pool._in_line_s = pool.bundle.answers, 0.0
        gate = threading.Event()
        pool.bundle.answers = lambda requests: gate.wait(20) and good(requests)
        slow = [one.ask(SURE[0]) for _ in range(2)]
        gate.set()
        assert [(a.status, a.how["reason"], a.body in one.stub.sent) for a in slow] == [(200, "deadline", True)] * 2
        agrees(slow[0], one.row(slow[0]))
        until(lambda: pool.alive == 2 and pool.idle)
        pool.bundle.answers = lambda requests: 1 / 0
        before = pool._breaker.opened
        bad = [one.ask(SURE[0]) for _ in range(8)]
        assert {(a.status, a.how["reason"]) for a in bad} == {(200, "student_error")}
        assert (pool._breaker.opened, before) == (1, 0)
        row = one.row(bad[-1])
        agrees(bad[-1], row)
        assert row.served.release == ""  # it was not asked
        assert one.metric('overproof_breaker_open{target="student"}') == 1


def test_an_ended_certificate_gives_every_request_to_the_teacher(tmp_path):
    """Expired, and packed to refuse then: reason expired."""
    folder = tmp_path / "b"
    pack(folder)
    write_card(folder / RELEASE, replace(read_card(folder / RELEASE), expires="2020-01-01", on_expiry="refuse"))
    (folder / MANIFEST).unlink()
    (folder / MANIFEST).write_text(json.dumps(manifest_of(folder)))
    with running(tmp_path, folder, stage="full") as one:
        got = one.ask(SURE[0])
        assert (got.how["reason"], got.body) == ("expired", one.stub.sent[0])
        agrees(got, one.row(got))


def test_the_student_can_be_forced_in_shadow_and_nothing_is_counted(tmp_path, packed):
    """Whoever may promote gets the student's answer from the shadow's process, where it covers the request."""
    with running(tmp_path, packed, stage="shadow") as one:
        epoch = one.current.position.epoch
        one.ask(UNSURE)
        until(lambda: one.current.shadow.answered)
        forced = {"x-overproof-route": "student"}
        got, unsure = one.ask(SURE[0], forced), one.ask(UNSURE, forced)
        assert (got.how["route"], got.how["reason"], content(got)) == ("student", "forced", "delivery")
        assert (unsure.how["route"], unsure.how["reason"]) == ("teacher", "below_threshold")
        for answer in (got, unsure):
            agrees(answer, one.row(answer))
        until(lambda: counts(one, epoch))
        time.sleep(1.2)
        seen = counts(one, epoch)[""]
        assert (seen.requests, seen.faults, seen.compared) == (1, 0, 0)


def test_a_body_that_is_refused_goes_nowhere_and_is_counted(full):
    """400 in the API's form: no row, no upstream, one count."""
    full.stub.reset()
    before, rows = full.metric("overproof_requests_total{"), len(full.rows())
    for raw in (b"{", b"[]", b'{"model": "a", "model": "b"}'):
        got = full.request(CHAT, raw)
        assert (got.status, json.loads(got.body)["error"]["type"]) == (400, "invalid_request_error")
    assert (full.stub.count, full.metric("overproof_requests_total{") - before, len(full.rows())) == (0, 3, rows)


def test_a_call_of_a_task_asks_for_what_the_log_can_read_and_is_compared(tmp_path, packed):
    """Clients offer br and zstd: an upstream that would use them is asked for gzip, its bytes go on, the row has the text; nobody's call is as sent."""
    offered = {"accept-encoding": "br, zstd, gzip, deflate"}
    with running(tmp_path, packed, stage="shadow") as one:
        one.stub.pack = True
        epoch = one.current.position.epoch
        until(lambda: one.current.shadow.state == "running")
        got, only = one.ask(SURE[0], offered), one.ask(SURE[1], {"accept-encoding": "br"})
        assert (got.headers["content-encoding"], content(SimpleNamespace(headers=got.headers, body=gzip.decompress(got.body)))) == ("gzip", "delivery")
        assert ("content-encoding" in only.headers, content(only)) == (False, "delivery")
        one.request("/v1/embeddings", {"input": "x"}, offered)
        asked = [next(line for line in head.split(b"\r\n") if line.startswith(b"accept-encoding")) for head, _ in one.stub.heard]
        assert asked == [b"accept-encoding: gzip, deflate", b"accept-encoding: identity", b"accept-encoding: br, zstd, gzip, deflate"]
        assert [one.row(answer).completion.text for answer in (got, only)] == ["delivery"] * 2
        until(lambda: (found := counts(one, epoch).get("other")) is not None and found.compared == 2)


def test_what_is_nobodys_passes_untouched(full):
    """Unmatched: request and response as sent, byte for byte and header by header but for those of a connection."""
    full.stub.reset()
    body = b'{ "input":"x" ,\t"model":"embed",  "odd": 1.50e3, "\xc3\xa9": "\\u00e9" }'
    lines = [b"POST /v1/embeddings?a=1&b=%20 HTTP/1.1", b"Host: 127.0.0.1", b"Content-Type: application/json", b"Authorization: Bearer sk-theirs",
             b"X-Odd:  two words", b"OpenAI-Beta: assistants=v2", b"User-Agent: odd/1", b"x-overproof-attr-tier: plus", b"Connection: close",
             b"Content-Length: %d" % len(body)]  # fmt: skip
    with socket.create_connection(("127.0.0.1", full.port), timeout=10) as line:
        line.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        got = b""
        while data := line.recv(65536):
            got += data
    (head, heard), = full.stub.heard
    first, *rest = head.split(b"\r\n")
    assert (first, heard) == (b"POST /v1/embeddings?a=1&b=%20 HTTP/1.1", body)
    passed = [b"content-type: application/json", b"authorization: Bearer sk-theirs", b"x-odd: two words", b"openai-beta: assistants=v2", b"user-agent: odd/1"]
    assert rest == [b"host: 127.0.0.1:%d" % full.stub.port, *passed, b"content-length: %d" % len(body)]
    top, _, answered = got.partition(b"\r\n\r\n")
    status, *headers = top.split(b"\r\n")
    assert (status, answered) == (b"HTTP/1.1 200 OK", full.stub.sent[0])
    theirs = [one for one in headers if not one.lower().startswith((b"x-overproof-", b"connection:", b"date:"))]
    assert theirs == [b"content-type: application/json", b"x-stub: yes", b"openai-version: 2020-10-01", b"content-length: %d" % len(answered)]
    own = {one.partition(b": ")[0]: one.partition(b": ")[2].decode() for one in headers if one.startswith(b"x-overproof-")}
    row = full.row(own[b"x-overproof-request-id"])
    assert (own[b"x-overproof-reason"], row.served.reason, row.served.task, row.served.status) == ("unmatched", "unmatched", "", 200)


def test_each_post_leaves_one_row_and_one_count(full):
    """A mix of everything: as many rows as posts, none twice; the metrics count the same."""
    before, counted = len(full.rows()), full.metric("overproof_requests_total{")
    for i in range(5):
        for _, text, headers, more in SAID:
            full.ask(text, headers, **more, stream=bool(i % 2))
        full.request("/v1/embeddings", {"input": "x"})
    until(lambda: len(full.rows()) - before == 55)
    assert full.metric("overproof_requests_total{") - counted == 55
    health = full.json("/overproof/v1/status")["tasks"][0]["capture"]
    assert (health["served"], health["captured"], health["dropped"]) == (len(full.rows()), len(full.rows()), 0)
