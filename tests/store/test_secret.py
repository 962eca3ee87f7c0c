"""One store, one secret: whoever comes with another is refused before it writes."""

import shutil

import pytest

from overproof.errors import DataError, StoreError
from overproof.store.project_store import HOME, open_store
from overproof.store.secret import NAME, VARIABLE, agreed_secret, fingerprint


def test_a_machine_with_another_secret_or_none_is_refused(tmp_path, monkeypatch):
    """The file or the variable gives the right one; what is refused makes no file and changes no fingerprint."""
    other = tmp_path / "other"
    other.mkdir()
    with open_store(tmp_path) as store:
        secret = store.secret()
        db = store._project_db
        with pytest.raises(StoreError, match=fingerprint(secret)):
            agreed_secret(other, db)
        assert not list(other.iterdir())
        monkeypatch.setenv(VARIABLE, secret.hex())
        assert agreed_secret(other, db) == secret
        for wrong in ("ab", secret.hex()[:-2], "x" * 64):
            monkeypatch.setenv(VARIABLE, wrong)
            with pytest.raises(DataError, match=VARIABLE):
                agreed_secret(other, db)
        monkeypatch.setenv(VARIABLE, bytes(32).hex())
        with pytest.raises(StoreError, match="another secret"):
            agreed_secret(other, db)
        monkeypatch.delenv(VARIABLE)
        (other / NAME).write_bytes(bytes(32))
        with pytest.raises(StoreError, match=f"{NAME} is another secret"):
            agreed_secret(other, db)
        shutil.copyfile(tmp_path / HOME / NAME, other / NAME)
        assert agreed_secret(other, db) == secret
    assert not [path for path in (tmp_path / HOME).rglob("*") if path.is_file() and path.name != NAME and secret in path.read_bytes()]


def test_a_secret_that_was_given_up_is_replaced_on_purpose_alone(tmp_path):
    """Deleting the file is not enough; `store new-secret` names who and why in the log of decisions."""
    with open_store(tmp_path) as store:
        secret = store.secret()
    (tmp_path / HOME / NAME).unlink()
    with open_store(tmp_path) as store, pytest.raises(StoreError, match="is not here"):
        store.secret()
    with open_store(tmp_path) as store:
        mark = store.new_secret(by="Dana Ruiz", why="the old one leaked")
        assert fingerprint(store.secret()) == mark != fingerprint(secret)
        (entry,) = store.decisions.read()
        assert (entry.kind, entry.actor, entry.subject, entry.body) == ("secret", "Dana Ruiz", mark, {"why": "the old one leaked"})


def test_signatures_lie_in_the_store_and_those_in_files_are_taken_in(tmp_path):
    """A file of an earlier version is found by its release, and is gone afterwards; a newer one in the store stays."""
    (tmp_path / HOME / "signatures").mkdir(parents=True)
    for name in ("r1", "r2"):
        (tmp_path / HOME / "signatures" / f"{name}.sig").write_bytes(f"old {name}".encode())
    with open_store(tmp_path) as store:
        store.signatures.put("r2", b"new r2")
        assert [store.signatures.get(name) for name in ("r1", "r2", "r3", "../r1")] == [b"old r1", b"new r2", None, None]
        store.signatures.put("r1", b"newer")
        assert store.signatures.get("r1") == b"newer"
    assert not list((tmp_path / HOME / "signatures").iterdir())
