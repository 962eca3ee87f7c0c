"""Who calls: what the keyring says, how it follows the store, and the verb that makes keys."""

import json
import time
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from overproof.cli import main
from overproof.errors import DataError, StoreError
from overproof.serve.keys import Caller, Denied, Keyring, is_own, refuse_open_bind
from overproof.store.keys import SCOPES, ApiKeys
from overproof.store.project_store import open_store


class Clock:
    def __init__(self, now):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def keys(tmp_path):
    with open_store(tmp_path) as store:
        yield store.keys


def bearer(secret):
    return b"Bearer " + secret.encode()


def test_without_keys_anybody_on_this_machine_may_all(keys):
    """Day one needs no key; the first key ends that for good, also once it is revoked."""
    ring = Keyring([keys])
    assert ring.caller(None) == Caller("", frozenset(SCOPES))
    made = keys.add("app", ["invoke"])
    ring.reload()
    assert ring.caller(None).reason == "missing"
    keys.revoke(made.key.id)
    ring.reload()
    assert ring.caller(None).reason == "missing"
    assert Keyring([keys]).required


def test_a_key_is_its_caller_and_admin_is_all(keys):
    """Scopes are those of the key; the scheme's case doesn't matter; the key's store is named."""
    app, chief = keys.add("app", ["invoke", "read"]), keys.add("chief", ["admin"])
    ring = Keyring([keys])
    assert ring.caller(bearer(app.secret)) == Caller(app.key.id, frozenset({"invoke", "read"}), 0)
    assert ring.caller(b"bEARER " + app.secret.encode()).id == app.key.id
    assert ring.caller(bearer(chief.secret)).scopes == frozenset(SCOPES)


def test_keys_of_two_projects_stay_apart(tmp_path):
    """Both are known, each with its own project."""
    for name in "ab":
        (tmp_path / name).mkdir()
    with open_store(tmp_path / "a") as a, open_store(tmp_path / "b") as b:
        one, two = a.keys.add("one", ["promote"]), b.keys.add("two", ["promote"])
        ring = Keyring([a.keys, b.keys])
        assert [ring.caller(bearer(made.secret)).source for made in (one, two)] == [0, 1]


@given(st.binary(max_size=80))
def test_garbage_is_nobody(garbage):
    """Whatever stands in the header, it is a denial, and never an exception."""
    ring = RINGS["one"]
    for value in (garbage, b"Bearer " + garbage, b"Bearer op_" + garbage):
        assert isinstance(ring.caller(value), Denied)


@given(st.integers(0, 45), st.integers(1, 255))
def test_a_key_with_one_byte_changed_is_nobody(place, change):
    """Its public part right or not."""
    secret = bytearray(RINGS["secret"].encode())
    secret[place] ^= change
    assert isinstance(RINGS["one"].caller(b"Bearer " + bytes(secret)), Denied)


RINGS = {}


@pytest.fixture(autouse=True, scope="module")
def _ring(tmp_path_factory):
    with open_store(tmp_path_factory.mktemp("p")) as store:
        RINGS["secret"] = store.keys.add("app", ["invoke"]).secret
        RINGS["one"] = Keyring([store.keys])
        yield


def test_a_key_ends_when_it_was_said_and_a_clock_set_back_wakes_none(keys):
    """Expiry holds at the second; once the store has seen a later moment, an earlier clock changes nothing."""
    made = keys.add("app", ["invoke"], days=1)
    clock = Clock(made.key.expires - 1)
    ring = Keyring([keys], clock=clock)
    assert isinstance(ring.caller(bearer(made.secret)), Caller)
    clock.now += 1
    assert ring.caller(bearer(made.secret)).reason == "expired"
    other = keys.add("later", ["invoke"])
    with keys._db.write() as connection:  # as if the other key had been revoked two days later
        connection.execute("UPDATE api_key SET revoked=? WHERE id=?", (made.key.expires + 86_400, other.key.id))
    ring.reload()
    clock.now = made.key.created
    assert ring.caller(bearer(made.secret)).reason == "expired"


def test_what_denies_a_key_tells_the_caller_nothing(keys):
    """Unknown, expired and revoked read the same from outside."""
    revoked, expired = keys.add("a", ["invoke"]), keys.add("b", ["invoke"], days=1)
    keys.revoke(revoked.key.id)
    ring = Keyring([keys], clock=Clock(time.time() + 2 * 86_400))
    found = [ring.caller(bearer(secret)) for secret in (revoked.secret, expired.secret, "op_" + "a" * 43)]
    assert [denied.reason for denied in found] == ["revoked", "expired", "unknown"]
    assert len({denied.refusal.body for denied in found}) == 1


def test_a_store_that_can_not_be_read_leaves_the_keys_as_they_were(keys):
    """Known keys go on to work; nothing opens."""
    made = keys.add("app", ["invoke"])
    ring = Keyring([keys])
    keys._db.close()
    with pytest.raises(Exception):  # noqa: B017 - whatever the closed database says
        ring.reload()
    assert isinstance(ring.caller(bearer(made.secret)), Caller)
    assert isinstance(ring.caller(None), Denied)


@pytest.mark.parametrize(("host", "own"), [
    ("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("[::1]", True), ("localhost", True), ("LOCALHOST", True),
    ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("gw.example.org", False), ("localhost.evil.example", False), ("", False),
])  # fmt: skip
def test_listening_where_others_reach_needs_a_key(keys, host, own):
    """Only this machine's own addresses go without."""
    assert is_own(host) is own
    ring = Keyring([keys])
    if own:
        refuse_open_bind(host, ring)
        return
    with pytest.raises(DataError, match="there are no keys") as error:
        refuse_open_bind(host, ring)
    assert "overproof keys add" in error.value.next_action
    keys.add("app", ["invoke"])
    ring.reload()
    refuse_open_bind(host, ring)


PROJECT = """[task]
name = "sort"
input = ["text"]
output = { classes = ["a", "b"] }
prompt = "prompt.md"
[teacher]
use = "recorded.v1"
model = "readers-2025-06"
[[student]]
use = "linear.v1"
[bars]
fidelity = 0.9
"""


def call(folder, *args):
    return CliRunner().invoke(main, ["keys", *args, "--project", str(folder)])


def test_the_verb_shows_a_key_once_and_keeps_its_hash(tmp_path):
    """Add, list, revoke; the key stands in no file, and what was done stands among the decisions."""
    (tmp_path / "overproof.toml").write_text(PROJECT)
    (tmp_path / "prompt.md").write_text("Sort.")
    made = call(tmp_path, "add", "the shop's app", "--scope", "invoke", "--scope", "read", "--days", "90", "--json")
    assert made.exit_code == 0, made.output
    body = json.loads(made.stdout)
    assert body["key"].startswith("op_")
    assert len(body["key"]) == 46
    assert body["scopes"] == "invoke read"
    shown = call(tmp_path, "add", "another")
    secret = [line for line in shown.stdout.splitlines() if line.startswith("op_")]
    assert len(secret) == 1
    listed = call(tmp_path, "list")
    assert "the shop's app" in listed.stdout
    assert body["key"] not in listed.stdout
    done = call(tmp_path, "revoke", body["id"], "--json")
    assert json.loads(done.stdout)["revoked"]
    with open_store(tmp_path) as store:
        assert [d.kind for d in store.decisions.read()] == ["key added", "key added", "key revoked"]
        ring = Keyring([store.keys])
        assert ring.caller(bearer(body["key"])).reason == "revoked"
        assert ring.caller(bearer(secret[0])).scopes == {"invoke"}
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert body["key"].encode() not in path.read_bytes(), path


@pytest.mark.parametrize("args", [["add"], ["list", "x"], ["revoke"], ["revoke", "nobody"], ["revoke", "x", "--days", "3"], ["add", "x", "--days", "0"], ["add", "x", "--days", "nan"]])
def test_the_verb_refuses_what_makes_no_sense(tmp_path, args):
    """Exit code 2, with what to write instead; no key is made."""
    (tmp_path / "overproof.toml").write_text(PROJECT)
    (tmp_path / "prompt.md").write_text("Sort.")
    done = call(tmp_path, *args)
    assert done.exit_code == 2
    assert ("keys list" if args == ["revoke", "nobody"] else "days" if "add" in args else "revoke ID") in done.stderr
    with open_store(tmp_path) as store:
        assert store.keys.all() == ()


def test_where_the_server_is_away_the_callers_of_the_last_day_are_known_and_nobody_by_an_older_or_a_damaged_copy(tmp_path, monkeypatch):
    """The copy holds no key, lets the same callers in, and is refused once it is a day old, from tomorrow, changed or missing."""
    pytest.importorskip("psycopg", reason="needs the extra postgres")
    from overproof.store.remote import PgDb

    seen = tmp_path / "keys.seen"
    with open_store(tmp_path) as store:
        here = ApiKeys(store._project_db, seen)
        made = here.add("me", scopes={"invoke"})
        assert Keyring([here]).required
    away = ApiKeys(PgDb("postgresql://nobody@127.0.0.1:1/none", "x", ()), seen)
    ring = Keyring([away])
    assert ring.caller(b"Bearer " + made.secret.encode()).id == made.key.id
    assert isinstance(ring.caller(None), Denied)
    whole, today = seen.read_bytes(), time.time()
    assert made.secret.encode() not in whole
    for text, at in ((whole, today + 90_000), (whole, today - 3_600), (whole.replace(b"invoke", b"admin "), today), (b"", today)):
        seen.write_bytes(text)
        monkeypatch.setattr("overproof.store.keys.time", SimpleNamespace(time=lambda at=at: at))
        with pytest.raises(StoreError, match="no copy of the callers' keys"):
            Keyring([away])
