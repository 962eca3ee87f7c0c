"""Retention: what is over is blanked or goes, by bytes; what is not stays; a second pass does nothing."""

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from overproof.cli import main
from overproof.cli.intake import take
from overproof.data import Completion, Request, Served, ToolCall, TrafficRecord, Turn
from overproof.pipeline import distil
from overproof.project import load_project
from overproof.retention import retain
from overproof.store.aging import EXPIRED, blanked
from overproof.store.captured import Feedback, Kept
from overproof.store.project_store import open_store

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
