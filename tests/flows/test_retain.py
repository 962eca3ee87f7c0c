"""Retention: what is over is blanked or goes, by bytes; what is not stays; a second pass does nothing."""

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.watch.projects import parts

from overproof.cli import main
from overproof.cli.intake import take
from overproof.cli.watch_page import report_page
from overproof.data import Completion, Request, Served, ToolCall, TrafficRecord, Turn
from overproof.pipeline import distil
from overproof.project import load_project
from overproof.retention import retain
from overproof.store import aging
from overproof.store.aging import EXPIRED, blanked
from overproof.store.captured import Feedback, Kept
from overproof.store.local import Db
from overproof.store.place import NAME
from overproof.store.project_store import HOME, open_store
from overproof.watch.parts import REAL
from overproof.watch.turn import watch_once

NOW = datetime(2026, 12, 1, tzinfo=UTC)
DAYS = {"text": 60, "answers": 20, "context": 10, "attributes": 40, "key": 5, "feedback": 30, "artifacts": 7}


def row(number: int, day: str) -> TrafficRecord:
    served = Served(route="teacher", reason="shadow", stage="shadow", endpoint="/v1", status=200, latency_s=0.1, overhead_s=0.0, task="easy", key=f"key-{number}-of-somebody")
    return TrafficRecord(
        request=Request(id=f"g{number}", fields={"text": f"a message {number} that is quite its own"}, at=f"{day}T00:00:00+00:00", attributes={"tier": f"tier {number} of one"}),
        completion=Completion(text=f"an answer {number} as it came", value="how to", model="m"),
        context=(Turn(role="user", text=f"an earlier turn {number}"),), calls=(ToolCall(name="f", arguments=f"{{argument {number}}}"),), served=served,
    )  # fmt: skip


def with_policy(root: Path, days: dict[str, int]) -> Path:
    with (root / "overproof.toml").open("a") as file:
        file.write("[privacy.retention]\n" + "".join(f"{name} = {n}\n" for name, n in days.items()))
    return root


def held(root: Path, text: str) -> bool:
    return any(text.encode() in path.read_bytes() for path in (root / ".overproof").rglob("*") if path.is_file())


@pytest.fixture
def kept(make, tmp_path: Path) -> Path:
    """Five rows: of today, 8, 25, 50 and 90 days old; and an older one of a file."""
    root = with_policy(make.project(tmp_path / "kept", make.rows(1)), DAYS)
    days = ["2026-12-01", "2026-11-23", "2026-11-06", "2026-10-12", "2026-09-02"]
    with open_store(root) as store:
        words = [[Feedback(request_id=f"g{i}", at=f"{day}T00:00:00+00:00", key="k", kind="comment", value=f"a comment on {i}")] for i, day in enumerate(days)]
        store.captured.commit([Kept(row=row(i, day), task="easy", slice="") for i, day in enumerate(days)], {}, words)
    return root


def test_each_field_goes_when_its_own_time_is_over(kept: Path) -> None:
    """By bytes on disk: key after 5 days, context 10, answer 20, comment 30, attributes 40, message 60."""
    project = load_project(kept)
    with open_store(kept) as store:
        done = retain(store, project, now=NOW)
        over = {"message": 4, "answer": 2, "turn": 2, "argument": 2, "comment on": 3, "key-": 1, "tier ": 3}
        tests = {
            "message": "a message {}", "answer": "an answer {}", "turn": "an earlier turn {}", "argument": "{{argument {}", "comment on": "a comment on {}",
            "key-": "key-{}-of", "tier ": "tier {} of",
        }  # fmt: skip
        for name, first in over.items():
            assert [held(kept, tests[name].format(i)) for i in range(5)] == [i < first for i in range(5)], name
        assert done.counts == {"text": 2, "answers": 4, "context": 3, "attributes": 3, "key": 4, "comments": 2}
        rows = list(store.traffic.read(context=True))
        assert [one.request.id for one in rows] == ["g3", "g2", "g1", "g0"], "a row without its message is no row to learn from"
        assert rows[0].completion is not None
        assert (rows[0].completion.text, rows[0].completion.value, rows[0].completion.model) == (EXPIRED, None, "m")
        assert store.traffic.counts().records == 4


def test_a_second_pass_does_nothing_and_an_import_brings_nothing_back(kept: Path) -> None:
    """One entry of the decisions log; the same rows again are known, with their first digests."""
    project = load_project(kept)
    with open_store(kept) as store:
        assert retain(store, project, now=NOW).decision > 0
        entries, digest = store.decisions.verify(), store.traffic.snapshot_digest()
        assert retain(store, project, now=NOW).decision == 0
        assert (store.decisions.verify(), store.traffic.snapshot_digest()) == (entries, digest)
        again = store.traffic.append([row(4, "2026-09-02"), row(2, "2026-11-06")], "again")
        assert again.added == again.conflicts == 0
        assert not held(kept, "a message 4")


KILLS = int(os.environ.get("OVERPROOF_RETAIN_KILLS", "6"))
SEED = int(os.environ.get("OVERPROOF_SEED", "10"))


def stored(root: Path, shared: Path) -> list[Path]:
    """Three old artifacts that nobody needs, here and shared, and a new one."""
    (root / HOME / NAME).write_text(f'[objects]\nurl = "{shared.as_uri()}"\n')
    with open_store(root) as store:
        for at in range(4):
            data = f"artifact {at}".encode()
            path = store.objects.put_value(hashlib.sha256(data).hexdigest(), data)
            os.utime(path, (0, 0) if at else (NOW.timestamp(), NOW.timestamp()))
    return list(shared.glob("objects/*/*.value"))


def dies_in(root: Path, at: int) -> bool:
    """Make a pass in a process that dies after the at-th transaction or before the at-th removal; whether it died."""
    if child := os.fork():
        return os.waitpid(child, 0)[1] != 0
    calls, write, unlink = iter(range(1, 1 << 30)), Db.write, Path.unlink

    @contextlib.contextmanager
    def written(self: Db):
        with write(self) as connection:
            yield connection
        if next(calls) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    def unlinked(self: Path, missing_ok: bool = False) -> None:
        if next(calls) == at:
            os.kill(os.getpid(), signal.SIGKILL)
        unlink(self, missing_ok=missing_ok)

    Db.write, Path.unlink, aging._BATCH = written, unlinked, 2
    with open_store(root) as store:
        retain(store, load_project(root), now=NOW)
    os._exit(0)


def test_a_pass_that_is_killed_anywhere_is_counted_in_the_log_of_decisions(kept: Path, tmp_path: Path) -> None:
    """Killed twice and then finished: what the entries count is what an undisturbed pass counts, and what is really gone."""
    shared = tmp_path / "shared"
    assert len(stored(kept, shared)) == 4
    draw, points = random.Random(SEED), 1
    whole = shutil.copytree(kept, tmp_path / "whole")
    shutil.copytree(shared, tmp_path / "shared0")
    while dies_in(shutil.copytree(kept, tmp_path / f"probe{points}"), points) and KILLS > 6:
        points += 1
    points = max(points, 24)
    shutil.rmtree(shared)
    shutil.copytree(tmp_path / "shared0", shared)
    with open_store(whole) as store:
        expected = retain(store, load_project(whole), now=NOW).counts
    assert (expected["artifacts"], expected["text"]) == (3, 2)
    kills = 0
    for number in range(KILLS):
        shutil.rmtree(shared)
        shutil.copytree(tmp_path / "shared0", shared)
        root = shutil.copytree(kept, tmp_path / "victim")
        died = [dies_in(root, draw.randint(1, points)) for _ in range(2)]
        kills += sum(died)
        with open_store(root) as store:
            retain(store, load_project(root), now=NOW)
            entries = [one.body["counts"] for one in store.decisions.read() if one.kind == "retention"]
            assert sum(map(Counter, entries), Counter()) == expected, (SEED, number, died)
            assert store.traffic.counts().records == 6 - expected["text"]
        assert len(list(shared.glob("objects/*/*.value"))) == len(list((root / HOME).glob("objects/*/*.value"))) == 1
        assert not held(root, "a message 4")
        shutil.rmtree(root)
    print(f"seed {SEED}: {kills} kills over {points} points")
    assert kills > KILLS / 2


def test_the_watch_applies_the_policy_once_a_day(kept: Path) -> None:
    """Its counts are in the report and on the page; the next pass of the day leaves it, the next day's doesn't, and a run at work puts it off."""
    project, real = load_project(kept), parts(retention=REAL.retention)
    with open_store(kept) as store:
        first = watch_once(store, project, now=NOW, parts=real)
        assert (first.retained_on, first.retained) == ("2026-12-01", {"text": 2, "answers": 4, "context": 3, "attributes": 3, "key": 4, "comments": 2})
        assert any("retention: applied on 2026-12-01; over then: 4 answers" in str(line) for line in report_page(first))
        later = watch_once(store, project, now=NOW + timedelta(hours=20), parts=real)
        assert (later.retained_on, later.retained) == (first.retained_on, first.retained)
        with open_store(kept) as busy, busy.role("run"):
            waits = watch_once(store, project, now=NOW + timedelta(days=1), parts=real)
        assert (waits.retained_on, waits.notes, waits.blind) == ("2026-12-01", ("retention waits: a run is at work; the next pass of the watch applies it",), ())
        done = watch_once(store, project, now=NOW + timedelta(days=3), parts=real)
        assert (done.retained_on, done.retained) == ("2026-12-04", {"context": 1})
        with open_store(kept) as busy, busy.role("run"):
            assert watch_once(store, project, now=NOW + timedelta(days=9), parts=real).blind == ("retention",)
        assert [one.kind for one in store.decisions.read()].count("retention") == 2


def test_a_row_that_lost_a_part_is_another_row_to_a_run(make, tmp_path: Path) -> None:
    """Answers that are over change the log's digest, so that no run reuses what it made of them."""
    root = with_policy(make.project(tmp_path / "part", make.rows(1)), {"answers": 20})
    with open_store(root) as store:
        before = store.traffic.snapshot_digest()
        assert retain(store, load_project(root), now=NOW).counts == {"answers": 1}
        assert store.traffic.snapshot_digest() != before
        assert store.traffic.counts().records == 1


def test_old_artifacts_go_but_not_what_a_release_stands_on(ran: Path) -> None:
    """After the window the run's own results stay, the rest goes, and the project still runs."""
    with_policy(ran, {"artifacts": 7})
    before = time.time() - 30 * 86_400
    for path in (ran / ".overproof").rglob("*"):
        if path.is_file():
            os.utime(path, (before, before))
    project = load_project(ran)
    with open_store(ran) as store:
        values = len(list((ran / ".overproof" / "objects").glob("*/*.value")))
        done = retain(store, project, now=datetime.now(UTC))
        left = len(list((ran / ".overproof" / "objects").glob("*/*.value")))
        assert 0 < left < values
        assert done.counts["artifacts"] > 0
        assert done.kept_for_a_release > 0
        run = next(one for one in store.decisions.read() if one.kind == "gate")
        assert all(store.objects.has_value(digest) for digest in run.body["digests"].values())
        distil(store, project, to="filter")


def test_the_verb_says_what_it_did(make, tmp_path: Path) -> None:
    """`overproof retain --json`; without a policy nothing is over."""
    root = make.project(tmp_path / "easy", make.rows(60))
    none = CliRunner().invoke(main, ["retain", "--project", str(root), "--json"])
    assert (none.exit_code, json.loads(none.stdout)["counts"]) == (0, {})
    with_policy(root, {"text": 1})
    done = CliRunner().invoke(main, ["retain", "--project", str(root), "--json"])
    assert json.loads(done.stdout)["counts"]["text"] == 60
    with open_store(root) as store:
        assert take(store, load_project(root), [root / "log.jsonl"])[0]["added"] == 0


def test_blanking_is_idempotent() -> None:
    """A blanked row is as it is after another blanking."""
    whole = {"id": "a", "fields": {"t": "x"}, "at": None, "attributes": {"a": "b"}, "session": "s", "completion": None, "gold": "g", "context": [1], "calls": [2]}
    once = blanked(whole, {"text", "attributes", "key"})
    assert blanked(once, {"text", "attributes", "key"}) == once
    assert blanked(whole, set()) == whole
