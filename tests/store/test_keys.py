"""Stored keys: whole or not at all, revoked for good, and useless to whoever reads them."""

import hashlib

import apsw
import pytest

from overproof.errors import DataError
from overproof.store import keys as module
from overproof.store.local import Db
from overproof.store.project_store import open_store
from overproof.store.schema import PROJECT_SCHEMA


def test_a_key_has_256_bits_and_only_its_hash_is_kept(tmp_path):
    """`op_` and 43 characters; the file has id and SHA-256."""
    with open_store(tmp_path) as store:
        made = store.keys.add("app", ["invoke"])
        assert len(made.secret) == 46
        assert made.secret.startswith("op_" + made.key.id)
        assert store.keys.all() == (made.key,)
        assert made.key.digest == hashlib.sha256(made.secret.encode()).digest()
    for path in (tmp_path / ".overproof").iterdir():
        if path.is_file():
            assert made.secret[3 + module.ID_LENGTH :].encode() not in path.read_bytes()


def test_an_id_that_is_taken_or_awkward_is_drawn_again(tmp_path, monkeypatch):
    """Ids are unique and never start like an option."""
    with open_store(tmp_path) as store:
        first = store.keys.add("a", ["invoke"])
        draws = iter(["-" * 43, first.secret[3:11] + "b" * 35, "c" * 43])
        monkeypatch.setattr(module.secrets, "token_urlsafe", lambda _: next(draws))
        assert store.keys.add("b", ["invoke"]).secret == "op_" + "c" * 43
        assert [key.name for key in store.keys.all()] == ["a", "b"]


@pytest.mark.parametrize(("name", "scopes", "days"), [
    (" ", ["invoke"], None), ("a", [], None), ("a", ["invoke", "root"], None), ("a", ["read"], 0), ("a", ["read"], float("nan")), ("a", ["read"], float("inf")),
])  # fmt: skip
def test_a_key_that_makes_no_sense_is_not_made(tmp_path, name, scopes, days):
    """Nothing is written."""
    with open_store(tmp_path) as store:
        with pytest.raises(DataError):
            store.keys.add(name, scopes, days=days)
        assert store.keys.all() == ()


def test_a_key_is_revoked_once_and_for_good(tmp_path):
    """The moment stays the first one; the database itself lets nobody undo, widen or delete a key."""
    with open_store(tmp_path) as store:
        made = store.keys.add("a", ["invoke"])
        gone = store.keys.revoke("op_" + made.key.id)
        assert gone.revoked is not None
        assert store.keys.revoke(made.secret) == gone
        with pytest.raises(DataError, match="no key"):
            store.keys.revoke("nobody")
    connection = apsw.Connection(str(tmp_path / ".overproof" / "project.db"))
    for sql in ("UPDATE api_key SET revoked=NULL", "UPDATE api_key SET scopes='admin'", "UPDATE api_key SET expires=NULL", "DELETE FROM api_key"):
        with pytest.raises(apsw.ConstraintError):
            connection.execute(sql)
    connection.close()


def test_a_store_of_the_version_before_gets_the_table(tmp_path):
    """What was in it stays, and the version before this one lies beside it."""
    old = Db(tmp_path / ".overproof" / "project.db", PROJECT_SCHEMA[:5])
    with old.write() as connection:
        connection.execute("INSERT INTO role VALUES('run', 7)")
    old.close()
    with open_store(tmp_path) as store:
        store.keys.add("a", ["invoke"])
    after = Db(tmp_path / ".overproof" / "project.db", PROJECT_SCHEMA)
    assert after.rows("SELECT token FROM role") == [(7,)]
    after.close()
    assert (tmp_path / ".overproof" / "project.db.v5.bak").exists()
