"""Artifacts that several machines share: pushed once, fetched when missing, and never used where they differ."""

import hashlib
import http.client
import json
import os
import subprocess
import sys
import time

import pytest

from overproof.data import Folder
from overproof.errors import CorruptArtifact, DataError, StoreError
from overproof.store.bucket import BucketAway, bucket_of
from overproof.store.objects import Objects
from overproof.store.place import NAME, Remote, objects_of, put_remote, remote_of
from overproof.store.shared import Shared

VALUE = b"a value"
DIGEST = hashlib.sha256(VALUE).hexdigest()
MOTO = "OVERPROOF_MOTO"
"""Folder with `pip install --target FOLDER 'moto[server]'`, which stays out of the project's own environment."""


@pytest.fixture(scope="session")
def s3(tmp_path_factory):
    """The address of a bucket on a server of the tests' own."""
    pytest.importorskip("obstore", reason="needs the extra s3")
    where = os.environ.get(MOTO, "")
    if not where:
        pytest.skip(f"{MOTO} names no folder with moto: no S3-compatible server to test against")
    log = tmp_path_factory.mktemp("moto") / "log"
    with log.open("wb") as said:
        process = subprocess.Popen([sys.executable, "-m", "moto.server", "-p", "0"], env={**os.environ, "PYTHONPATH": where}, stdout=said, stderr=said)
    try:
        port, end = 0, time.monotonic() + 60
        while not port:
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)
            found = [line for line in log.read_text().splitlines() if "Running on" in line]
            port = int(found[0].rpartition(":")[2]) if found else 0
        for name, value in {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT": f"http://127.0.0.1:{port}", "NO_PROXY": "*"}.items():
            os.environ[name] = value
        line = http.client.HTTPConnection("127.0.0.1", port)
        line.request("PUT", "/models", headers={"Authorization": "AWS4-HMAC-SHA256 Credential=k/20200101/us-east-1/s3/aws4_request"})
        assert line.getresponse().status == 200
        yield "s3://models"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(params=["file", "s3"])
def url(request, tmp_path):
    """The same for a folder and for a bucket."""
    return (tmp_path / "shared").as_uri() if request.param == "file" else f"{request.getfixturevalue('s3')}/{tmp_path.name}"


def machine(tmp_path, name, url):
    return Objects(tmp_path / name / ".overproof", bucket_of(url))


def made(tmp_path, size=1_200_000):
    folder = tmp_path / "made"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "weights").write_bytes(os.urandom(size))
    (folder / "card.json").write_text("{}")
    return Folder(path=folder)


def test_what_one_machine_made_is_found_on_another_by_its_digest(tmp_path, url):
    """Values, folders and records of steps; the second time nothing is asked for."""
    a, b = machine(tmp_path, "a", url), machine(tmp_path, "b", url)
    tree = a.keep(made(tmp_path))
    a.put_value(DIGEST, VALUE)
    a.note(a.home / "steps/train/1.json", b"[1]")
    assert b.has_value(DIGEST)
    assert b.has_tree(tree)
    assert b.get_value(DIGEST) == VALUE
    assert b.tree_digest(Folder(path=b.find(tree))) == tree == a.keep(Folder(path=b.find(tree)))
    assert b.noted(b.home / "steps/train/1.json")
    assert (b.home / "steps/train/1.json").read_bytes() == b"[1]"
    assert not b.noted(b.home / "steps/train/2.json")
    assert not b.has_tree("0" * 64)
    with pytest.raises(CorruptArtifact, match="missing"):
        b.find("0" * 64)
    b._bucket = None
    assert b.get_value(DIGEST) == VALUE
    assert Objects(b.home).find(tree)


def test_an_object_is_written_once(tmp_path, url):
    """Whoever comes second changes nothing."""
    bucket = bucket_of(url)
    bucket.put_new("x/y", b"one")
    bucket.put_new("x/y", b"two")
    assert b"".join(bucket.get("x/y")) == b"one"
    with pytest.raises(FileNotFoundError):
        b"".join(bucket.get("x/z"))


def test_what_is_there_can_be_listed_and_removed(tmp_path, url):
    """All pages of it, nothing beside the prefix; a second removal does nothing."""
    bucket = bucket_of(url)
    for at in range(60):
        bucket.put_new(f"objects/aa/{at}.value", b"x")
    bucket.put_new("steps/a/1.json", b"{}")
    assert sorted(bucket.names("objects/")) == sorted(f"objects/aa/{at}.value" for at in range(60))
    assert list(bucket.names("steps/")) == ["steps/a/1.json"]
    assert list(bucket.names("nothing/")) == []
    for _ in range(2):
        bucket.remove("objects/aa/7.value")
    assert len(list(bucket.names("objects/"))) == 59
    assert not bucket.has("objects/aa/7.value")


def test_what_an_erasure_buried_leaves_another_machine_before_it_hands_it_on(tmp_path, url):
    """Value, folder and the records that name them, once: the same bytes made anew stay."""
    graves = []
    a, b = machine(tmp_path, "a", url), Objects(tmp_path / "b" / ".overproof", bucket_of(url), buried=lambda behind: graves[behind:])
    tree = a.keep(made(tmp_path))
    a.put_value(DIGEST, VALUE)
    a.note(a.home / "steps/train/1.json", json.dumps({"output": DIGEST, "folders": [tree]}).encode())
    assert (b.get_value(DIGEST), b.find(tree).exists(), b.noted(b.home / "steps/train/1.json")) == (VALUE, True, True)
    Shared(a).remove({DIGEST, tree}, {"objects/aa/.half.part"})
    assert list(bucket_of(url).names("objects/")) == list(bucket_of(url).names("steps/")) == []
    graves += [(1, ""), (2, DIGEST), (3, tree)]
    assert b.push_all() == 0
    assert not [path for path in b.home.rglob("*") if path.is_file() and path.parent.name != "tmp" and path.suffix != ".lock"]
    assert list(bucket_of(url).names("objects/")) == []
    b.put_value(DIGEST, VALUE)
    again = Objects(b.home, bucket_of(url), buried=lambda behind: graves[behind:])
    assert (again.push_all(), again.get_value(DIGEST)) == (1, VALUE)


def test_a_shared_folder_that_is_not_mounted_is_not_taken_for_an_empty_one(tmp_path):
    """Neither where it is missing, nor where the place to mount it is empty."""
    a = machine(tmp_path, "a", (tmp_path / "shared").as_uri())
    a.note(a.home / "steps/train/1.json", b"{}")
    Shared(a).bring_records()
    (tmp_path / "shared").rename(tmp_path / "elsewhere")
    with pytest.raises(BucketAway):
        Shared(a).bring_records()
    (tmp_path / "shared").mkdir()
    with pytest.raises(BucketAway, match="nothing was erased"):
        Shared(a).bring_records()


@pytest.mark.parametrize("which", ["deep/weights", "card.json", "list", "value", "gone"])
def test_a_damaged_shared_object_is_refused_and_nothing_of_it_stays(tmp_path, which):
    """Each kind of file, with one bit turned, or missing."""
    url, shared = (tmp_path / "shared").as_uri(), tmp_path / "shared"
    a, b = machine(tmp_path, "a", url), machine(tmp_path, "b", url)
    tree = a.keep(made(tmp_path))
    a.put_value(DIGEST, VALUE)
    names = {"list": f"{tree[:2]}/{tree}.tree", "value": f"{DIGEST[:2]}/{DIGEST}.value", "gone": f"{tree[:2]}/{tree}/card.json"}
    path = shared / "objects" / names.get(which, f"{tree[:2]}/{tree}/{which}")
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.unlink()
    if which != "gone":
        path.write_bytes(raw)
    with pytest.raises(CorruptArtifact, match="shared object"):
        b.get_value(DIGEST) if which == "value" else b.find(tree)
    assert not list((b.home / "objects").rglob("*.tree"))
    assert not list((b.home / "objects").rglob("*.value"))
    path.unlink(missing_ok=True)
    assert Objects(a.home, bucket_of(url)).push_all() == 2
    assert b.get_value(DIGEST) == VALUE
    assert b.find(tree)


def test_a_list_that_names_files_outside_is_refused(tmp_path):
    """Even where somebody has put its digest into the database."""
    from overproof.data import digest_of

    b = machine(tmp_path, "b", (tmp_path / "shared").as_uri())
    rows = [["../../evil", 1, hashlib.sha256(b"x").hexdigest()]]
    digest = digest_of(rows)
    bucket_of((tmp_path / "shared").as_uri()).put_new(f"objects/{digest[:2]}/{digest}.tree", json.dumps(rows).encode())
    with pytest.raises(CorruptArtifact, match="outside"):
        b.find(digest)


def test_a_push_that_is_killed_anywhere_leaves_no_list_without_its_files(tmp_path):
    """Each call that changes the shared folder is a place to die; the next session ends the push."""
    tree, at, died = Objects(tmp_path / "a" / ".overproof").keep(made(tmp_path, size=3_000)), 0, True
    while died:
        at, shared = at + 1, tmp_path / f"shared{at}"
        child = os.fork()
        if not child:
            _dies_at(at)
            machine(tmp_path, "a", shared.as_uri()).keep(Folder(path=tmp_path, digest=tree))
            os._exit(0)
        died = os.waitpid(child, 0)[1] != 0
        if list(shared.rglob("*.tree")):
            assert machine(tmp_path, f"b{at}", shared.as_uri()).find(tree)
        machine(tmp_path, "a", shared.as_uri()).keep(Folder(path=tmp_path, digest=tree))
        assert machine(tmp_path, f"c{at}", shared.as_uri()).find(tree)
    assert at > 15


def _dies_at(at):
    calls = iter(range(1, 1 << 30))

    def counted(real):
        def call(*args, **kwargs):
            if next(calls) == at:
                os._exit(9)
            return real(*args, **kwargs)

        return call

    for name in ("link", "fsync", "rename", "mkdir", "open", "unlink"):
        setattr(os, name, counted(getattr(os, name)))


def test_a_bucket_that_is_away_is_said_and_the_step_is_not_done(tmp_path, monkeypatch):
    """Nothing is recorded as done here that is not shared; what was made before stays."""
    (tmp_path / "shared").write_text("not a folder")
    a = machine(tmp_path, "a", (tmp_path / "shared").as_uri())
    with pytest.raises(StoreError, match="shared folder"):
        a.put_value(DIGEST, VALUE)
    with pytest.raises(StoreError, match="shared folder"):
        a.note(a.home / "steps/train/1.json", b"[1]")
    assert not (a.home / "steps").exists()
    (tmp_path / "shared").unlink()
    a.put_value(DIGEST, VALUE)
    assert bucket_of((tmp_path / "shared").as_uri()).has(f"objects/{DIGEST[:2]}/{DIGEST}.value")


def test_an_s3_service_that_is_away_is_said(monkeypatch):
    """In our words, and soon."""
    pytest.importorskip("obstore", reason="needs the extra s3")
    for name, value in {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_ENDPOINT": "http://127.0.0.1:9", "NO_PROXY": "*"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StoreError, match="s3://models"):
        bucket_of("s3://models/x").has("y")


def test_the_file_says_where_artifacts_are_shared_and_keeps_it_when_the_rows_move(tmp_path):
    """Either table alone, both, and nothing else."""
    (tmp_path / NAME).write_text('[objects]\nurl = "s3://models/x"\n')
    assert (remote_of(tmp_path), objects_of(tmp_path)) == (None, "s3://models/x")
    put_remote(tmp_path, Remote(dsn_env="D", schema="s"))
    assert (remote_of(tmp_path), objects_of(tmp_path)) == (Remote(dsn_env="D", schema="s"), "s3://models/x")
    put_remote(tmp_path, None)
    assert (remote_of(tmp_path), objects_of(tmp_path)) == (None, "s3://models/x")
    for text in ("", "x = 1", "[objects]\nurl = 1", '[objects]\nurl = "s3://b/c"\nkey = "no"'):
        (tmp_path / NAME).write_text(text)
        with pytest.raises(DataError):
            objects_of(tmp_path)
    for url in ("s3://", "s3://UPPER/x", "http://x/y", "file://host/x", "file:x", "/x", "s3://models/../x y"):
        with pytest.raises(DataError):
            bucket_of(url)


def test_what_was_made_before_is_shared_later(tmp_path):
    """`overproof store push`; what is damaged here is not handed on."""
    a = Objects(tmp_path / "a" / ".overproof")
    tree = a.keep(made(tmp_path))
    a.put_value(DIGEST, VALUE)
    a.note(a.home / "steps/train/1.json", b"[1]")
    with pytest.raises(DataError, match="objects"):
        a.push_all()
    url = (tmp_path / "shared").as_uri()
    assert Objects(a.home, bucket_of(url)).push_all() == 3
    b = machine(tmp_path, "b", url)
    assert (b.get_value(DIGEST), b.tree_digest(Folder(path=b.find(tree)))) == (VALUE, tree)
    a.value_path(DIGEST).chmod(0o644)
    a.value_path(DIGEST).write_bytes(b"other")
    with pytest.raises(CorruptArtifact):
        Objects(a.home, bucket_of((tmp_path / "other").as_uri())).push_all()
