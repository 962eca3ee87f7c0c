"""What is asked of a gateway itself, over HTTP at a real process: feedback, status, moves, models, health, figures."""

import contextlib
import json
import re
import sqlite3
import time

import pytest
from tests.serve.test_capture_faults import tiny_disk
from tests.serve.whole import TEXTS, Teacher, project, put_at, release, serving

from overproof.data import REASONS, STAGES
from overproof.store.keys import SCOPES
from overproof.store.project_store import open_store

FEEDBACK, STATUS, PROMOTE, ROLLBACK = (f"/overproof/v1/{name}" for name in ("feedback", "status", "promote", "rollback"))


@pytest.fixture(scope="module")
def teacher():
    one = Teacher()
    yield one
    one.close()


@pytest.fixture(scope="module")
def two(teacher, tmp_path_factory):
    """Two projects behind one gateway, each with keys; the first one has a release in shadow."""
    root = tmp_path_factory.mktemp("two")
    first, second = project(root / "a", teacher.url), project(root / "b", teacher.url, task="other")
    release(first, "r1")
    put_at(first, "r1", "shadow")
    keys = {}
    for name, folder in (("a", first), ("b", second)):
        with open_store(folder) as store:
            keys |= {f"{name} {scope}": store.keys.add(scope, [scope]).secret for scope in SCOPES}
    with serving(first, "--also", str(second)) as gateway:
        gateway.keys, gateway.folder = keys, first
        yield gateway


@pytest.fixture(autouse=True)
def well(teacher):
    teacher.mode = ""


def figures(gateway, key):
    """Name with its labels to the value."""
    got = gateway.ask("GET", "/metrics", key=key)
    assert got.status == 200
    found = {}
    for line in got.body.decode().splitlines():
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            found[name] = float(value)
    return found


def words(folder):
    """Feedback as stored."""
    with sqlite3.connect(folder / ".overproof" / "traffic.db") as db:
        return [tuple(row) for row in db.execute("SELECT request_id, key, kind, value FROM feedback")]


def test_feedback_is_known_as_soon_as_the_answer_is_out_and_is_kept(two):
    """Right after the answer, while its row still waits for the shadow's look; also for another project's row; stored with the caller's key."""
    key = two.keys["a invoke"]
    told = two.chat(TEXTS[0], key=key)
    assert told.headers["x-overproof-stage"] == "shadow"
    said = two.ask("POST", FEEDBACK, {"request_id": told.id, "label": "billing", "rating": 0.5, "comment": "fine"}, key=key)
    assert (said.status, said.body) == (200, {"request_id": told.id})
    elsewhere = two.ask("POST", "/v1/chat/completions", {"model": "overproof/other", "messages": [{"role": "user", "content": "x"}]}, key=key)
    assert elsewhere.headers["x-overproof-task"] == "other"
    time.sleep(1.2)  # long after
    assert two.ask("POST", FEEDBACK, {"request_id": elsewhere.id, "rating": -1}, key=two.keys["b invoke"]).status == 200
    assert {row[2:] for row in words(two.folder) if row[0] == told.id} == {("label", "billing"), ("rating", "0.5"), ("comment", "fine")}
    assert {row[1] for row in words(two.folder)} == {key[3:11]}
    assert [row[0] for row in words(two.folder.parent / "b")] == [elsewhere.id]


@pytest.mark.parametrize(("body", "status"), [
    ({"request_id": "req_unknown", "rating": 1}, 404), ({"request_id": "x"}, 400), ({"request_id": "x", "rating": 2}, 400), ({"rating": 1}, 400),
    ({"request_id": "x", "label": " "}, 400), ({"request_id": "x", "good": True}, 400), (b"{", 400), (b"\xff", 400), (b"[" * 5000, 400), (b'{"request_id":"\xff","rating":1}', 400),
])  # fmt: skip
def test_feedback_of_nobodys_answer_and_what_is_no_feedback_are_refused(two, body, status):
    """404 and 400, in the API's form; nothing is stored."""
    before = words(two.folder)
    got = two.ask("POST", FEEDBACK, body, key=two.keys["a invoke"])
    assert got.status == status
    assert set(got.body["error"]) == {"message", "type", "param", "code"}
    assert words(two.folder) == before


def test_moves_take_the_scope_and_a_key_of_the_project(two):
    """Another scope 403, another project's key 404, without evidence 409, with a reason 200; who did it is on record."""
    move = {"task": "routing", "by": "Dana"}
    for path in (PROMOTE, ROLLBACK):
        for scope in ("invoke", "read", "review"):
            assert two.ask("POST", path, move, key=two.keys[f"a {scope}"]).status == 403
        assert two.ask("POST", path, move).status == 401
        for scope in ("promote", "admin"):
            assert two.ask("POST", path, move, key=two.keys[f"b {scope}"]).status == 404
        for wrong in ({"task": "routing"}, {**move, "by": " "}, {**move, "x": 1}, b"[]", {**move, "task": 1}):
            assert two.ask("POST", path, wrong, key=two.keys["a promote"]).status == 400
        assert two.ask("POST", path, {**move, "task": "nothing"}, key=two.keys["a promote"]).status == 404
    key = two.keys["a promote"]
    held = two.ask("POST", PROMOTE, move, key=key)
    assert held.status == 409
    assert two.ask("POST", PROMOTE, {**move, "to": "the moon"}, key=key).status == 409
    assert two.ask("POST", PROMOTE, {**move, "force": True}, key=key).status == 400
    assert two.ask("POST", ROLLBACK, {**move, "force": True}, key=key).status == 400
    gone = two.ask("POST", PROMOTE, {**move, "to": "full", "force": True, "why": "a test"}, key=key)
    assert (gone.status, gone.body) == (200, {"task": "routing", "stage": "full"})
    seen = status_of(two, "routing")
    assert (seen["stage"], seen["by"]) == ("full", f"Dana (key {key[3:11]})")
    until(lambda: two.chat(TEXTS[0], key=two.keys["a invoke"]).headers["x-overproof-route"] == "student")
    back = two.ask("POST", ROLLBACK, {**move, "why": "enough"}, key=key)
    assert (back.status, back.body) == (200, {"task": "routing", "stage": "teacher-only"})
    assert two.ask("POST", ROLLBACK, move, key=key).status == 409
    until(lambda: two.chat(TEXTS[0], key=two.keys["a invoke"]).headers["x-overproof-reason"] == "no_release")
    assert status_of(two, "routing")["why"] == "enough"


def until(holds, within_s=20.0):
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def status_of(gateway, task, key="a read"):
    got = gateway.ask("GET", STATUS, key=gateway.keys[key])
    assert got.status == 200
    json.dumps(got.body, allow_nan=False)
    return next(one for one in got.body["tasks"] if one["task"] == task)


def test_status_says_where_each_task_stands(two):
    """The task of the key's own project, with what it waits for."""
    assert status_of(two, "other", key="b read")["stage"] == "teacher-only"
    seen = status_of(two, "routing")
    assert seen["stage"] in STAGES
    assert seen["capture"]["served"] >= seen["capture"]["captured"]
    assert seen["problems"] == []


def test_names_of_models_are_ours_and_the_upstreams(two, teacher):
    """Merged while it says them, packed or not; ours alone while it is down, fails or talks nonsense; others are looked up there."""
    key = two.keys["a invoke"]
    ours = ["overproof/routing", "overproof/other"]
    listed = two.ask("GET", "/v1/models", key=key, Accept_Encoding="gzip", If_None_Match='"x"')
    assert [one["id"] for one in listed.body["data"]] == [*ours, "big"]
    assert b"accept-encoding: gzip" not in teacher.asked[-1][2].lower()
    assert b"if-none-match" not in teacher.asked[-1][2].lower()
    assert key.encode() not in teacher.asked[-1][2]
    assert two.ask("GET", "/v1/models/overproof%2Frouting", key=key).body["id"] == "overproof/routing"
    assert two.ask("GET", "/v1/models/big", key=key).body["id"] == "big"
    missing = two.ask("GET", "/v1/models/none", key=key)
    assert (missing.status, missing.body["error"]["code"]) == (404, "unknown_url")
    for mode in ("down", "500", "garbage"):
        teacher.mode = mode
        listed = two.ask("GET", "/v1/models", key=key)
        assert (listed.status, [one["id"] for one in listed.body["data"]]) == (200, ours)
    for mode, status in (("401", 401), ("403", 403)):  # a key that the upstream refuses is not told that all is well
        teacher.mode = mode
        refused = two.ask("GET", "/v1/models", key=key)
        assert (refused.status, refused.body["error"]["code"]) == (status, "refused")
    assert two.ask("GET", "/v1/models/overproof/other", key=key).status == 200
    teacher.mode = "down"
    assert two.ask("GET", "/v1/models/big", key=key).status == 502


def test_figures_agree_with_the_log_and_labels_are_from_closed_sets(two):
    """After N calls of every kind: requests counted = rows + drops = rows of the store; no label has a caller's word."""
    key = two.keys["a invoke"]
    time.sleep(1.2)  # rows of earlier calls may still wait for a shadow that was ended
    before = figures(two, two.keys["a read"])
    n = 40
    for i in range(n):
        kind = i % 4
        if kind == 0:
            two.chat(TEXTS[i % len(TEXTS)], key=key)
        elif kind == 1:
            two.ask("POST", "/v1/chat/completions", {"model": "overproof/other", "messages": [{"role": "user", "content": f"secret-{i}"}], "stream": True}, key=key)
        elif kind == 2:
            two.ask("POST", "/v1/completions", {"model": f"secret-{i}", "prompt": "x"}, key=key, x_overproof_attr_tier=f"secret-{i}")
        else:
            two.ask("POST", f"/v1/secret-{i}", {}, key=key)
    until(lambda: sum(growth(before, figures(two, two.keys["a read"]), "overproof_captured_total").values()) >= n)
    after = figures(two, two.keys["a read"])
    assert sum(growth(before, after, "overproof_requests_total").values()) == n
    assert sum(growth(before, after, "overproof_captured_total").values()) == n
    assert not growth(before, after, "overproof_capture_dropped_total")
    total = sum(value for name, value in after.items() if name.startswith("overproof_captured_total"))
    logged = 0
    for one, reader in (("routing", "a read"), ("other", "b read")):
        health = status_of(two, one, key=reader)["capture"]
        assert health["served"] == health["captured"] + health["dropped"]
        logged += health["captured"]
    assert logged == total
    shown = "\n".join(after)
    assert "secret" not in shown
    allowed = {"route": {"student", "teacher"}, "reason": {*REASONS}, "stage": {*STAGES}, "task": {"routing", "other", "unmatched"}, "slice": {"paying", "other"}}
    for label, value in re.findall(r'(\w+)="([^"]*)"', shown):
        assert value in allowed.get(label, {value})


def growth(before, after, family):
    return {name: value - before.get(name, 0) for name, value in after.items() if name.startswith(family) and value > before.get(name, 0)}


def test_a_full_disk_is_told_feedback_is_refused_and_answers_go_on(tmp_path, teacher):
    """Ready while all is well; degraded, still 200, while the log takes nothing: calls are answered and counted as dropped; then ready again."""
    with tiny_disk(tmp_path / "disk", "6m"):
        folder = project(tmp_path / "disk" / "p", teacher.url)
        with serving(folder) as gateway:
            assert gateway.ask("GET", "/healthz").body == {"status": "alive"}
            ready = gateway.ask("GET", "/readyz")
            assert (ready.status, ready.body) == (200, {"status": "ready", "problems": []})
            known = gateway.chat(TEXTS[0]).id
            ballast = tmp_path / "disk" / "ballast"
            with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * 65_536)
            until(lambda: gateway.chat("long " * 2_000).status == 200 and gateway.ask("GET", "/readyz").body["status"] == "degraded", 60)
            told = gateway.ask("GET", "/readyz")
            assert told.status == 200
            assert "the log is refusing" in " ".join(told.body["problems"])
            refused = gateway.ask("POST", FEEDBACK, {"request_id": known, "rating": 1})
            assert (refused.status, refused.headers["retry-after"], refused.body["error"]["type"]) == (503, "5", "server_error")
            assert gateway.chat(TEXTS[1]).status == 200
            assert gateway.ask("GET", "/healthz").status == 200
            assert growth({}, figures(gateway, ""), 'overproof_capture_dropped_total{reason="disk full"')
            ballast.unlink()
            until(lambda: gateway.ask("GET", "/readyz").body["status"] == "ready", 60)
            assert gateway.ask("POST", FEEDBACK, {"request_id": known, "rating": 1}).status == 200
            shown = figures(gateway, "")
        assert gateway.said == ""
    asked = sum(growth({}, shown, "overproof_requests_total").values())
    kept = sum(sum(growth({}, shown, name).values()) for name in ("overproof_captured_total", "overproof_capture_dropped_total"))
    assert asked == kept
