"""Every route with every kind of wrong key, from the table itself: nothing gets through, and the right key does."""

import json
import time

import pytest
from tests.serve.whole import project, serving

from overproof.serve.keys import FOLLOW_S
from overproof.serve.routes import ENDPOINTS
from overproof.store.keys import SCOPES
from overproof.store.project_store import open_store

WRONG = {
    "no key": 401, "garbage": 401, "another scheme": 401, "a key nobody made": 401, "expired": 401, "revoked": 401, "wrong scope": 403,
    "in the query": 400, "in a cookie": 401,
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A project with all kinds of keys, and the folder."""
    folder = tmp_path_factory.mktemp("project")
    with open_store(folder) as store:
        keys = {scope: store.keys.add(scope, [scope]).secret for scope in SCOPES}
        for scope in SCOPES:
            keys[f"all but {scope}"] = store.keys.add("x", [s for s in SCOPES if s not in (scope, "admin")]).secret
        keys["revoked"] = store.keys.add("gone", SCOPES)
        store.keys.revoke(keys["revoked"].key.id)
        keys["revoked"] = keys["revoked"].secret
        keys["expired"] = store.keys.add("old", SCOPES, days=1e-9).secret
    return folder, keys


@pytest.fixture(scope="module")
def guarded(made):
    from tests.serve.conftest import Running

    running = Running(made[0])
    yield running
    running.stop()


def asked(endpoint, *lines, query=""):
    path = endpoint.path.replace("{model}", "gpt-x").replace("{path}", "files/f1")
    body = b"{}" if endpoint.method in ("POST", "PUT", "PATCH") else b""
    head = f"{endpoint.method} {path}{query} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
    return (head + "".join(f"{line}\r\n" for line in lines) + "\r\n").encode() + body


def request_with(endpoint, kind, keys):
    right = keys[endpoint.scope] if endpoint.scope != "public" else keys["admin"]
    missing = keys.get(f"all but {endpoint.scope}", "")
    return {
        "no key": asked(endpoint),
        "garbage": asked(endpoint, "Authorization: \x01\x02 op_".replace("\x01\x02", "~~")),
        "another scheme": asked(endpoint, f"Authorization: Basic {right}"),
        "a key nobody made": asked(endpoint, f"Authorization: Bearer op_{'a' * 43}"),
        "expired": asked(endpoint, f"Authorization: Bearer {keys['expired']}"),
        "revoked": asked(endpoint, f"Authorization: Bearer {keys['revoked']}"),
        "wrong scope": asked(endpoint, f"Authorization: Bearer {missing}"),
        "in the query": asked(endpoint, query=f"?key={right}"),
        "in a cookie": asked(endpoint, f"Cookie: key={right}"),
    }[kind]


def status_of(answer):
    return int(answer.split(b" ")[1])


def test_every_route_declares_a_scope():
    """A scope that exists, or the word public; and public are only those that give nothing away."""
    assert all(endpoint.scope in (*SCOPES, "public") for endpoint in ENDPOINTS)
    assert {e.path for e in ENDPOINTS if e.scope == "public"} == {"/healthz", "/readyz", "/openapi.json"}
    assert {e.scope for e in ENDPOINTS if "promote" in e.path or "rollback" in e.path} == {"promote"}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("endpoint", [e for e in ENDPOINTS if e.scope != "public"], ids=lambda e: f"{e.method} {e.path}")
def test_a_wrong_key_gets_nowhere(guarded, made, endpoint, kind):
    """401 or 403 in the API's form, for every route and every kind; no handler's word is in the answer."""
    answer = guarded.raw(request_with(endpoint, kind, made[1]))
    assert status_of(answer) == WRONG[kind]
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"]
    assert b"handler" not in answer
    assert made[1]["admin"].encode() not in answer


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda e: f"{e.method} {e.path}")
def test_the_right_key_and_admin_get_through(guarded, made, endpoint):
    """So that the refusals above are the keys' doing."""
    for scope in {endpoint.scope, "admin"}:
        key = made[1].get(scope)
        answer = guarded.raw(asked(endpoint, *([f"Authorization: Bearer {key}"] if key else [])))
        assert status_of(answer) == (500 if endpoint.handler in ("status", "feedback") else 200)


@pytest.mark.parametrize("path", ["/v1/models/../../metrics", "/v1/%2e%2e/metrics", "/v1//metrics", "/metrics/", "/METRICS", "/v1/models/x/../../../metrics"])
def test_no_spelling_of_a_path_turns_one_scope_into_another(guarded, made, path):
    """A key that may invoke reads no metrics, however it spells them: scope and route come from the same bytes."""
    sent = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {made[1]['invoke']}\r\n\r\n"
    answer = guarded.raw(sent.encode())
    assert status_of(answer) in (400, 404)


def test_a_key_sees_the_status_of_its_own_project_alone(tmp_path):
    """Two projects behind one gateway, each with a key for each scope: who may read the status reads their own task's, and no other."""
    folders = {task: project(tmp_path / task, "http://127.0.0.1:9/v1", task=task) for task in ("routing", "other")}
    keys = {}
    for task, folder in folders.items():
        with open_store(folder) as store:
            keys |= {(task, scope): store.keys.add(scope, [scope]).secret for scope in SCOPES}
    with serving(folders["routing"], "--also", str(folders["other"])) as gateway:
        for (task, scope), secret in keys.items():
            got = gateway.ask("GET", "/overproof/v1/status", key=secret)
            if scope in ("read", "admin"):
                assert [one["task"] for one in got.body["tasks"]] == [task]
            else:
                assert got.status == 403


def test_new_and_revoked_keys_count_within_a_second_and_without_a_restart(start, tmp_path):
    """The second process that writes is the one that people use; the gateway follows."""
    models = next(e for e in ENDPOINTS if e.path == "/v1/models")
    gateway = start(tmp_path)
    assert status_of(gateway.raw(asked(models))) == 200
    with open_store(tmp_path) as store:

        def soon(sent, status):
            until = time.monotonic() + 20 * FOLLOW_S  # generous: the machine may be busy, and each second is asserted nowhere
            while status_of(gateway.raw(sent)) != status:
                assert time.monotonic() < until
            return True

        key = store.keys.add("app", ["invoke"])
        with_key = asked(models, f"Authorization: Bearer {key.secret}")
        assert soon(asked(models), 401)
        assert soon(with_key, 200)
        store.keys.revoke(key.key.id)
        assert soon(with_key, 401)
    assert key.secret not in gateway.stop()
    assert FOLLOW_S <= 0.5
