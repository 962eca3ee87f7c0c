"""A subject is erased from a whole project: by bytes on disk, with a proof, through a kill, and a later import brings nothing back."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from overproof import erasure
from overproof.cli import main
from overproof.cli.intake import take
from overproof.data import (
    Alarm,
    Audit,
    Completion,
    ExampleShown,
    Request,
    Served,
    Skipped,
    TrafficRecord,
    digest_of,
)
from overproof.erasure import erase, erasures, spelled
from overproof.errors import StoreError
from overproof.pipeline import distil
from overproof.project import load_project
from overproof.runs import runs_of
from overproof.store.backup import back_up
from overproof.store.bucket import BucketAway, FolderBucket, bucket_of
from overproof.store.captured import Feedback, Kept
from overproof.store.erasing import Subject
from overproof.store.labels import Settlement, label_key
from overproof.store.move import move
from overproof.store.objects import Objects
from overproof.store.place import NAME, Remote
from overproof.store.project_store import HOME, open_store
from overproof.store.reviews import Review

CALLER = "customer-7f3a-planted"
SAID = "my neighbour Q{} keeps a purple giraffe called Wumpel-{} on the roof since april"


def own_rows(root: Path, at: slice = slice(0, 300, 50)) -> list[dict]:
    return [json.loads(line) for line in (root / "log.jsonl").read_text().splitlines()][at]


def lived_in(root: Path) -> list[str]:
    """Served traffic, feedback, reviews, audits, an alarm, a notice, skipped and conflicting rows; returns the texts that have to go."""
    texts = [SAID.format(i, i) for i in range(4)]
    with open_store(root) as store:
        served = Served(route="teacher", reason="shadow", stage="shadow", endpoint="/v1", status=200, latency_s=0.1, overhead_s=0.0, task="easy")
        rows = [
            TrafficRecord(
                request=Request(id=f"gateway-{i}", fields={"text": text}, at=f"2026-03-0{i + 1}T00:00:00Z", attributes={"customer": CALLER, "tier": "pro"}),
                completion=Completion(text="HOW TO", value="how to", model="m"), served=served,
            )
            for i, text in enumerate(texts)
        ]  # fmt: skip
        other = TrafficRecord(request=Request(id="gateway-x", fields={"text": "quite another request of somebody else"}, attributes={"customer": "b"}))
        skipped = Skipped(where="line 3", reason="no id", raw=json.dumps({"text": texts[0], "customer": CALLER}))
        again = TrafficRecord(request=Request(id="gateway-1", fields={"text": texts[1] + " or may"}, attributes={"customer": CALLER}))
        said = Feedback(request_id="gateway-0", at="2026-03-04T00:00:00Z", key="k", kind="comment", value=f"wrong: {texts[0]}")
        store.captured.commit([Kept(row=row, task="easy", slice="pro") for row in (*rows, other, skipped, again)], {}, [[said]])
        store.reviews.append([
            Review(digest=rows[0].request.digest, request_id="gateway-0", label="how to", reviewer="Dana", queue="audit"),
            Review(digest=other.request.digest, request_id="gateway-x", label="how to", reviewer="Dana", queue="audit"),
        ])  # fmt: skip
        shown = ExampleShown(request_id="gateway-2", text=texts[2][:300], said="how to")
        alarm = Alarm(
            id="a1", task="easy", release_id="r", slice="pro", signal="agreement", at="2026-03-05", since="2026-03-01", kind="page", value=0.5,
            low=0.4, high=0.6, reference=0.9, n=3, words="fewer right", examples=(shown,),
        )  # fmt: skip
        store.watching.raise_alarm(alarm, at=1.0)
        store.watching.note_audits([Audit(release_id="r", request_id="gateway-3", day="2026-03-04", slice="pro", source="person", pi=0.5, said="how to", confidence=0.9)], at=1.0)
        store.watching.note("n1", "easy", kind="alarm", body={"text": texts[3], "who": "gateway-3"}, channels=(), at=1.0)
    return texts


def bought(root: Path, rows: list[dict]) -> None:
    """Put answers for some rows into the ledger, as a teacher that is paid would."""
    project = load_project(root)
    with open_store(root) as store, store.role("run"):
        store.ledger.open_run("r", cap_usd=1.0)
        form = digest_of(project.task.output.json_schema())
        for row in rows:
            key = label_key(project.pin, form, Request(id="any", fields={"text": row["text"]}))
            said = Completion(text="HOW TO", value="how to", model="m")
            number = store.ledger.reserve(key, run_id="r", max_micro=5)
            store.ledger.settle(Settlement(attempt=number, state="ok", cost_micro=3, clearance_id="c", completion=said, request_id="req-1"))


def residue(root: Path, texts: list[str]) -> list[str]:
    """Files that hold one of the texts, or a tell-tale half of one, byte by byte."""
    needles = [n.encode() for text in texts for n in (text, text[: len(text) // 2], text[len(text) // 2 :])]
    return [str(path) for path in root.rglob("*") if path.is_file() and any(n in path.read_bytes() for n in needles)]


def share(root: Path, place: Path) -> Path:
    """Give a project a shared folder, with all that is in it."""
    (root / HOME / NAME).write_text(f'[objects]\nurl = "{place.as_uri()}"\n')
    with open_store(root) as store:
        store.objects.push_all()
    return place


def made_elsewhere(root: Path, text: str) -> None:
    """An artifact that holds a text is taken away here, as if another machine had made it: it is in the shared folder alone."""
    with open_store(root) as store:
        found = {row["output"] for row in store.objects.records().values() if text.encode() in store.objects.get_value(row["output"])}
        found -= set(runs_of(store)[-1].digests.values())  # the erasure itself looks into those
        store.objects.drop([min(found)])


@contextlib.contextmanager
def kept_on(engine: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], bytes]]:
    """Move the databases to an engine; gives what a dump of the server holds."""
    if engine == "files":
        yield lambda: b""
        return
    from tests.postgres import running  # here: this file is a program as well

    with running() as server:
        monkeypatch.setenv("OVERPROOF_ERASED", server.dsn)
        move(root, Remote(dsn_env="OVERPROOF_ERASED", schema="erased"))
        for path in (root / HOME).glob("*.db*"):  # as docs/store.md says: they hold what they held
            path.unlink()
        yield lambda: subprocess.run([f"{server._bins}/pg_dump", "-d", server.dsn], capture_output=True, check=True).stdout


@pytest.mark.parametrize("engine", ["files", pytest.param("postgres", marks=pytest.mark.slow)])
def test_nothing_of_a_subject_is_left_in_any_byte(ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    """Run, served traffic, review, shared folder, second machine, server: after the erasure a plain search finds neither texts nor the caller; the rest is whole."""
    texts = lived_in(ran)
    trained = own_rows(ran)
    bought(ran, [*trained, own_rows(ran)[0] | {"text": "a row of somebody else that was asked about"}])
    ids = ran / "ids.txt"
    ids.write_text("\n".join(row["id"] for row in trained))
    project = load_project(ran)
    words = [*texts, *(row["text"] for row in trained)]
    assert residue(ran, words), "the plant must be there first"
    (ran / "log.jsonl").rename(ran.parent / "log.jsonl")  # the user's own file
    with open_store(ran) as store:
        kept = back_up(store, tmp_path / "backup")
    place = share(ran, tmp_path / "shared")
    other = shutil.copytree(ran, tmp_path / "other")
    made_elsewhere(ran, trained[0]["text"])
    assert residue(place, words), "there as well"
    with kept_on(engine, ran, monkeypatch) as dump, open_store(ran) as store:
        before = store.traffic.counts().records
        labels = store.ledger.counts().labels
        first = erase(store, project, spelled(store, project, Subject(values=frozenset({CALLER}), column="customer")), by="Dana Ruiz", why="asked")
        whose = Subject(ids=frozenset(row["id"] for row in trained))
        second = erase(store, project, spelled(store, project, whose), by="Dana Ruiz", why="asked")
        ids.unlink()
        assert residue(ran, [*words, CALLER]) == []
        assert residue(place, [*words, CALLER]) == []
        assert not any(word.encode() in dump() for word in [*words, CALLER])
        assert first.checked.clean, first.checked.hits
        assert second.checked.clean, second.checked.hits
        assert first.counts["record"] == 4
        assert first.counts["conflict"] == first.counts["skipped"] == first.counts["feedback"] == first.counts["review"] == 1
        assert [(one.request_id[:7], one.state) for one in store.watching.audits("r")] == [("erased ", "barred")]
        assert first.counts["alarm"] == first.counts["notice"] == 1
        assert second.counts["record"] == len(trained)
        assert second.counts["shared artifact"] > second.counts["artifact"] > 3
        assert second.counts["label"] == labels - store.ledger.counts().labels == len(trained)
        assert store.ledger.counts().labels == 1
        assert store.ledger.counts().spent_usd == pytest.approx(3e-6 * (len(trained) + 1))
        assert store.traffic.counts().records == before - 4 - len(trained)
        assert [one.request_id for one in store.reviews.live().rows] == ["gateway-x"]
        assert store.decisions.verify() >= 2
        assert [one["counts"] for one in erasures(store)] == [dict(first.counts), dict(second.counts)]
        assert second.backups == erasures(store)[1]["backups_not_reached"] == {kept.target: kept.at}
        assert residue(tmp_path / "backup", texts), "named in the proof, and not reached"
        released = [run for run in store.decisions.read() if run.kind == "gate" and run.body["outcome"] == "release"]
        assert bool(second.releases) == bool(released)
        if released:
            assert sum(second.releases.values()) <= len(trained)
            assert any(note.kind == "erasure" for note in store.watching.notices("easy"))
        assert residue(other / HOME / "objects", words), "the second machine has not looked yet"
        elsewhere = Objects(other / HOME, bucket_of(place.as_uri()), buried=store.buried)
        assert elsewhere.push_all() > 0
        assert residue(other / HOME / "objects", words) == residue(other / HOME / "steps", words) == residue(place, words) == []


def test_a_shared_folder_that_is_away_is_said_and_the_same_call_goes_on(fitted: Path, tmp_path: Path) -> None:
    """From the start, and from its third removal on: exit code 4, no row gone, no proof; then once through, with the counts of both."""
    gone = own_rows(fitted, slice(0, 120, 30))
    (fitted / "log.jsonl").unlink()
    ids = tmp_path / "ids.txt"
    ids.write_text("\n".join(row["id"] for row in gone))
    place = share(fitted, tmp_path / "shared")
    words = ["erase", "--project", str(fitted), "--ids", str(ids), "--by", "Dana Ruiz", "--why", "asked", "--json"]
    place.rename(tmp_path / "away")
    away = CliRunner().invoke(main, words)
    (tmp_path / "away").rename(place)
    left = iter(range(2))
    real = FolderBucket.remove

    def fails(self: FolderBucket, key: str) -> None:
        if next(left, None) is None:
            raise BucketAway("the network is gone", next_action="wait")
        real(self, key)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FolderBucket, "remove", fails)
        cut = CliRunner().invoke(main, words)
    assert [(one.exit_code, "shared" in one.output or "network" in one.output) for one in (away, cut)] == [(4, True)] * 2
    with open_store(fitted) as store:
        assert {one.request.id for one in store.traffic.read()} >= {row["id"] for row in gone}
        assert not erasures(store)
    there = json.loads(CliRunner().invoke(main, words).stdout)
    assert residue(place, [row["text"] for row in gone]) == residue(fitted, [row["text"] for row in gone]) == []
    assert there["counts"]["record"] == len(gone)
    assert there["counts"]["shared artifact"] == there["counts"]["artifact"] > 1


def test_a_later_import_brings_nothing_back(ran: Path) -> None:
    """The same file again adds no erased row, under its id or under another."""
    project, gone = load_project(ran), own_rows(ran)
    with open_store(ran) as store:
        erase(store, project, Subject(ids=frozenset(row["id"] for row in gone)), by="Dana Ruiz", why="asked")
        count = store.traffic.counts().records
        (report,) = take(store, project, [ran / "log.jsonl"])
        assert (report["added"], report["erased"]) == (0, len(gone))
        renamed = ran / "renamed.jsonl"
        renamed.write_text("".join(json.dumps({**row, "id": f"new-{row['id']}"}) + "\n" for row in gone))
        (report,) = take(store, project, [renamed])
        assert (report["added"], report["erased"]) == (0, len(gone))
        assert store.traffic.counts().records == count


def test_the_next_run_learns_from_the_rest(ran: Path) -> None:
    """After an erasure the road is walked again without the rows, and no answer is bought that is still there."""
    project, gone = load_project(ran), own_rows(ran, slice(100, 103))
    with open_store(ran) as store:
        erase(store, project, Subject(ids=frozenset(row["id"] for row in gone)), by="Dana Ruiz", why="asked")
        result = distil(store, project, to="filter")
        rows = result.artifacts["labels"].value
        seen = {one.request.id for part in (rows.train, rows.calibration, rows.test) for one in part.examples}
        assert len(seen) > 500
        assert not seen & {row["id"] for row in gone}


def test_the_check_finds_what_a_copy_brought_back(ran: Path) -> None:
    """`erase --check` names a file of the user's that still holds the text, and one that came back into the store; exit code 1."""
    row = own_rows(ran)[0]
    run = CliRunner().invoke
    ids = ran / "ids.txt"
    ids.write_text(row["id"])
    done = run(main, ["erase", "--project", str(ran), "--ids", str(ids), "--by", "Dana Ruiz", "--why", "asked", "--json"])
    assert done.exit_code == 1, done.output
    assert "log.jsonl" in json.loads(done.stdout)["checked"]["hits"]
    (ran / "log.jsonl").unlink()
    ids.unlink()
    assert run(main, ["erase", "--project", str(ran), "--check"]).exit_code == 0
    (ran / ".overproof" / "left.json").write_text(json.dumps({"excerpt": row["text"][:85]}))
    found = run(main, ["erase", "--project", str(ran), "--check"])
    assert found.exit_code == 1
    assert ".overproof/left.json" in found.output


@pytest.mark.parametrize("stage", ["set_stones", "bury", "sweep_project", "remove", "_drop", "sweep_traffic", "forget", "check"])
def test_a_kill_in_the_middle_is_made_good_by_the_same_call(fitted: Path, stage: str) -> None:
    """Killed with -9 just after a stage, the erasure is finished by calling it again, and its proof has all the counts."""
    gone = own_rows(fitted, slice(0, 120, 30))
    bought(fitted, gone)
    (fitted / "log.jsonl").unlink()
    place = share(fitted, fitted.parent / "shared")
    killed = subprocess.run([sys.executable, __file__, str(fitted), stage, *(row["id"] for row in gone)], check=False, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert killed.returncode == -signal.SIGKILL
    project = load_project(fitted)
    with open_store(fitted) as store:
        done = erase(store, project, Subject(ids=frozenset(row["id"] for row in gone)), by="Dana Ruiz", why="asked")
        assert residue(fitted, [row["text"] for row in gone]) == residue(place, [row["text"] for row in gone]) == []
        assert done.checked.clean
        assert done.counts["shared artifact"] == done.counts["artifact"]
        assert done.counts["record"] == done.counts["label"] == len(gone)
        assert done.counts["artifact"] > 1
        assert len(erasures(store)) == 1


@pytest.mark.slow
def test_kills_at_random_moments_lose_nothing_of_the_proof(template: Path, tmp_path: Path) -> None:
    """kill -9 anywhere, any number of times, then once through: no byte left, the counts are those of an undisturbed erasure."""
    seed, kills = int(os.environ.get("OVERPROOF_SEED", "10")), int(os.environ.get("OVERPROOF_ERASE_KILLS", "40"))
    print(f"seed {seed}, {kills} kills")
    draw, expected, killed = random.Random(seed), None, 0
    while killed < kills:
        root = shutil.copytree(template / "calibrate", tmp_path / "victim")
        gone = own_rows(root, slice(0, 120, 30))
        bought(root, gone)
        (root / "log.jsonl").unlink()
        for _ in range(draw.randrange(4) if expected else 0):
            child = subprocess.Popen([sys.executable, __file__, str(root), "ready", *(row["id"] for row in gone)], stdout=subprocess.PIPE)
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(draw.uniform(0, 1.5))
            child.kill()
            child.communicate()
            killed += child.returncode == -signal.SIGKILL
        with open_store(root) as store:
            erase(store, load_project(root), Subject(ids=frozenset(row["id"] for row in gone)), by="Dana Ruiz", why="asked")
            proof = erasures(store)[0]
        assert residue(root, [row["text"] for row in gone]) == []
        expected = expected or proof["counts"]
        assert proof["counts"] == expected
        assert proof["hits"] == 0
        shutil.rmtree(root)


def test_nobody_is_not_everybody() -> None:
    """An empty subject is refused."""
    with pytest.raises(StoreError):
        erasure.nobody(Subject())
    with pytest.raises(StoreError):
        erasure.nobody(Subject(values=frozenset({" "})))


def die_after(owner: object, name: str) -> None:
    """Make a function kill its process at its end."""
    real = getattr(owner, name)

    def last(*args: object, **named: object) -> object:
        real(*args, **named)
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)

    setattr(owner, name, last)


if __name__ == "__main__":
    from overproof.store.erasing import Erasing
    from overproof.store.shared import Shared

    folder, after, *names = sys.argv[1:]
    if after == "ready":
        print("ready", flush=True)
    else:
        die_after(next(one for one in (Erasing, Shared, erasure) if hasattr(one, after)), after)
    with open_store(Path(folder)) as opened:
        erase(opened, load_project(Path(folder)), Subject(ids=frozenset(names)), by="Dana Ruiz", why="asked")
