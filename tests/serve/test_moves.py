"""Moves on a real store: two gateways agree, people need evidence or a reason, and everything is on record."""

import itertools
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.serve.packing import gated

from overproof.cli import main
from overproof.data import ALL, StageCounts
from overproof.errors import DataError, StoreError
from overproof.project import load_project
from overproof.serve import moves
from overproof.serve.evidence import Tally, Tick
from overproof.serve.rollout import bars_of
from overproof.store.local import Db
from overproof.store.project_store import open_store
from overproof.store.rollout import SLOT
from overproof.store.schema import PROJECT_SCHEMA

DAY = 86_400.0
START = 2_000 * DAY
FILE = """
[task]
name = "t"
input = ["text"]
output = {{ classes = ["a", "b"] }}
prompt = "task.md"
[owner]
name = "Dana Ruiz"
email = "dana@shop.example"
[teacher]
use = "recorded.v1"
model = "big-2025-06-01"
path = "r.jsonl"
terms = "terms.toml"
[traffic]
source = "log"
[bars]
fidelity = 0.9
[[slice]]
name = "vip"
where = {{ tier = "plus" }}
critical = true
[[student]]
use = "linear.v1"
[serve]
accuracy_when_confident = 0.95
stages = ["shadow 1h", "canary 20% 1h", "full"]
promote = "{promote}"
"""


def release(store, name="r1", *, expires="2999-01-01"):
    """A release as the gate makes one, with two certified slices, recorded as a candidate."""
    folder = store.root / f"made-{name}"
    folder.mkdir(exist_ok=True)
    (folder / "weights").write_text(name)
    return gated(store, folder, {"vip": 0.5, "other": 0.5}, name=name, task="t", ends=expires)


def write_project(folder: Path, promote="by-evidence"):
    (folder / "task.md").write_text("Sort {text} into a or b.")
    (folder / "overproof.toml").write_text(FILE.format(promote=promote))
    (folder / "r.jsonl").write_text("")
    (folder / "terms.toml").write_text("")
    return folder


@pytest.fixture
def project(tmp_path):
    return load_project(write_project(tmp_path))


@pytest.fixture
def store(project):
    with open_store(project.root) as opened:
        release(opened)
        yield opened


class Gateway:
    """What the gateway does with requests, without a network."""

    def __init__(self, store, project, clock):
        self.tally = Tally(["vip"])
        self.tick = Tick(store, "t", moves.plan_of(store, project), self.tally, clock=clock)

    def see(self, state, name, n, *, wrong=0, faults=0, arms=True):
        for i in range(n):
            arm = ("student" if i % 5 == 0 else "teacher") if arms and state.stage == "canary" else ""
            self.tally.request(state.epoch, name, kept=i >= faults, fault=i < faults, arm=arm)
            if i >= faults:
                self.tally.comparison(state.epoch, name, agreed=i >= wrong + faults, by="drawn")


def at_shadow(store, project, now=START):
    return moves.promote(store, project, by="Dana", now=now).state


def test_the_whole_way_and_back_is_on_record(store, project):
    """Shadow, canary and full by evidence, then a breach: each move is in history, stages, and the chain with its evidence."""
    now = [START]
    gate = Gateway(store, project, lambda: now[0])
    state = at_shadow(store, project)
    assert (state.stage, state.by, store.releases.current().id) == ("shadow", "Dana", "r1")
    assert gate.tick.run() == state  # no evidence: held
    for stage in ("canary", "full"):
        now[0] += 3_700
        for name in ("vip", "other"):
            gate.see(state, name, 1_500, wrong=15)
        state = gate.tick.run()
        assert state.stage == stage
    gate.see(state, "vip", 300, wrong=90)
    gate.see(state, "other", 3_000, wrong=30)
    state = gate.tick.run()
    assert (state.stage, state.suspended) == ("full", {"vip"})
    gate.see(state, "other", 2_000, faults=400)
    state = gate.tick.run()
    assert (state.stage, state.release_id, state.last_release, store.releases.current()) == ("teacher-only", None, "r1", None)
    history = store.rollouts.history("t")
    assert [m.stage for m in history] == ["shadow", "canary", "full", "teacher-only"]
    kinds = [(d.kind, d.body.get("to"), d.body["evidence"]) for d in store.decisions.read()]
    assert [k for k, _, _ in kinds] == ["rollout"] * 3 + ["suspension", "rollout"]
    assert [m.evidence for m in history] == [e for k, _, e in kinds if k == "rollout"]
    assert store.decisions.verify() == 5
    assert [e.stage for e in store.releases.history()] == ["candidate", "shadow", "canary", "full", "rolled-back"]


def test_people_need_the_evidence_or_a_reason_and_an_alarm_has_no_reason(store, project):
    """Without evidence a promotion is refused and nothing moves; with a reason it goes and says so; never over an alarm."""
    state = at_shadow(store, project)
    refused = moves.promote(store, project, by="Dana", now=START + 7_200)
    assert (refused.moved, refused.state, refused.to.name) == (False, state, "canary 20%")
    assert "evidence is missing" in refused.why
    assert moves.promote(store, project, by="Dana", to="full", now=START + 7_200).moved is False
    forced = moves.promote(store, project, by="Dana", force="a launch", now=START + 7_200)
    assert (forced.moved, forced.state.stage, forced.state.share) == (True, "canary", 0.2)
    assert store.rollouts.history("t")[-1].body["forced"] is True
    store.rollouts.add({(forced.state.epoch, "vip"): StageCounts(requests=300, asked=300, kept=300, compared=300, disagreed=90)}, at=START)
    assert moves.promote(store, project, by="Dana", force="please", now=START + 7_300).moved is False
    with pytest.raises(DataError, match="not one stage"):
        moves.promote(store, project, by="Dana", to="half")
    assert moves.rollback(store, project, by="Dana", why="enough").stage == "teacher-only"
    with pytest.raises(DataError, match="alone already"):
        moves.rollback(store, project, by="Dana")
    with pytest.raises(DataError, match="no release to take on"):
        moves.promote(store, project, by="Dana")
    again = moves.promote(store, project, by="Dana", release_id="r1")
    assert (again.moved, "rolled-back before" in again.why) == (False, True)


def test_an_expired_release_and_one_of_another_task_go_nowhere(store, project):
    """A candidate whose certificate has ended is refused; a foreign release can't be moved at all."""
    release(store, "old", expires="1971-01-01")
    assert "ended on 1971" in moves.promote(store, project, by="Dana", release_id="old").why
    state = replace(store.rollouts.current("t"), task="elsewhere")
    with pytest.raises(StoreError, match="of the task 't'"):
        store.rollouts.move(state, release_id="r1", stage="shadow", share=0.0, by="x", why="", evidence={}, at=0.0)
    assert store.rollouts.history("t") == store.rollouts.history("elsewhere") == []


def test_a_new_release_takes_the_place_of_the_one_before(store, project):
    """The one before serves no more, also when the new one is rolled back; its suspended slices stay its own."""
    state = at_shadow(store, project)
    assert store.rollouts.suspend(state, {"vip": "bad"}, by="x", evidence={}, at=START) == ("vip",)
    assert store.rollouts.suspend(state, {"vip": "bad"}, by="y", evidence={}, at=START) == ()
    release(store, "r2")
    second = moves.promote(store, project, by="Dana", release_id="r2", now=START).state
    assert (second.release_id, second.suspended) == ("r2", frozenset())
    assert store.rollouts.suspend(state, {"other": "late"}, by="x", evidence={}, at=START) == ()
    moves.rollback(store, project, by="Dana")
    assert store.releases.current() is None


def test_a_move_decided_on_an_old_state_is_not_made(store, project):
    """Of two moves on one state the first is made and the second is nothing: no entry, no stage, no decision."""
    state = at_shadow(store, project)
    first = store.rollouts.move(state, release_id="r1", stage="canary", share=0.2, by="a", why="", evidence={}, at=START)
    assert first.epoch > state.epoch
    assert store.rollouts.move(state, release_id="r1", stage="full", share=1.0, by="b", why="", evidence={}, at=START) is None
    assert [m.by for m in store.rollouts.history("t")] == ["Dana", "a"]
    assert store.decisions.verify() == 2


def test_counts_of_two_gateways_add_and_full_slots_stay(store, project):
    """Sums are exact however they are split; a slot that is full never changes, so a reader needs the open ones only."""
    state = at_shadow(store, project)
    known, whole = None, StageCounts()
    with open_store(store.root) as other:
        for i in range(9):
            part = StageCounts(requests=70 + i, asked=70, kept=60, compared=50, disagreed=i)
            (store if i % 2 else other).rollouts.add({(state.epoch, "vip"): part, (state.epoch, "other"): part}, at=START + i)
            whole = whole + part
            known = store.rollouts.counts(state.epoch, known)
            assert known == other.rollouts.counts(state.epoch)
    slots = known["vip"]
    assert sum(slots, StageCounts()) == whole
    assert sum(known[ALL], StageCounts()) == whole + whole
    assert [s.compared for s in slots] == [SLOT, SLOT, 50]
    assert store.rollouts.newest(state.epoch) == START + 8
    store.rollouts.add({(state.epoch, "vip"): StageCounts(requests=1)}, at=START + 99)
    assert store.rollouts.newest(state.epoch) == START + 8  # a request without a comparison is no evidence


def test_counts_that_cannot_be_written_are_kept(store, project, monkeypatch):
    """A disk that is full loses no count: the next round writes them."""
    state = at_shadow(store, project)
    gate = Gateway(store, project, lambda: START)
    gate.see(state, "vip", 40, wrong=2)
    with monkeypatch.context() as broken:
        def full(*_args, **_kwargs):
            raise StoreError("the disk is full", next_action="free some")

        broken.setattr(type(store.rollouts), "add", full)
        with pytest.raises(StoreError):
            gate.tick.run()
    gate.see(state, "vip", 10)
    gate.tick.run()
    assert store.rollouts.counts(state.epoch)["vip"][0].compared == 50


def test_only_a_critical_slices_error_asks_for_a_decision_at_once():
    """Agreement, and errors elsewhere, wait for the next second; nothing is counted without a stage."""
    tally = Tally(["vip"])
    said = [tally.comparison(1, name, agreed=ok, by="drawn") for name, ok in (("vip", True), ("vip", False), ("other", False))]
    assert said == [False, True, False]
    assert tally.comparison(1, "vip", agreed=False, by="") is False
    tally.request(0, "vip")
    assert {key: c.compared for key, c in tally.take().items()} == {(1, "vip"): 2, (1, "other"): 1}
    assert tally.take() == {}


PROGRAM = """
import sys
from pathlib import Path
from overproof.project import load_project
from overproof.serve import moves
from overproof.serve.evidence import Tally, Tick
from overproof.store.project_store import open_store
project = load_project(Path(sys.argv[1]))
with open_store(project.root) as store:
    tally = Tally(["vip"])
    tick = Tick(store, "t", moves.plan_of(store, project), tally, clock=lambda: float(sys.argv[2]))
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(60):
        state = store.rollouts.current("t")
        if state.release_id is None:
            break
        for i in range(20):
            tally.request(state.epoch, "vip", kept=True, arm="teacher")
            tally.comparison(state.epoch, "vip", agreed=i >= 8, by="drawn")
        state = tick.run()
    print(state.stage, state.epoch, flush=True)
"""


def test_two_gateways_on_one_store_agree_and_a_decision_is_made_once(store, project):
    """Two processes see a critical slice break in canary: both end with the teacher, by one rollback on both's counts."""
    at_shadow(store, project)
    canary = moves.promote(store, project, by="Dana", force="test", now=START).state
    both = [
        subprocess.Popen([sys.executable, "-c", PROGRAM, str(project.root), str(START + 60)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for one in both:
        assert one.stdout.readline() == "ready\n"
    for one in both:
        one.stdin.write("go\n")
        one.stdin.flush()
    ended = [one.communicate(timeout=60)[0] for one in both]
    state = store.rollouts.current("t")
    assert ended == [f"teacher-only {state.epoch}\n"] * 2
    assert [m.stage for m in store.rollouts.history("t")] == ["shadow", "canary", "teacher-only"]
    assert store.decisions.verify() == 3
    seen = sum(store.rollouts.counts(canary.epoch)["vip"], StageCounts())
    assert (seen.requests % 20, seen.disagreed) == (0, seen.requests * 8 // 20)


def test_an_older_project_db_gets_the_new_tables_and_keeps_its_rows(tmp_path):
    """A database of the version before is migrated beside a backup; its stages are there and the rollout starts empty."""
    at = next(i for i, script in enumerate(PROJECT_SCHEMA) if "CREATE TABLE rollout(" in script)
    home = tmp_path / ".overproof"
    home.mkdir()
    old = Db(home / "project.db", PROJECT_SCHEMA[:at])
    with old.write() as connection:
        connection.execute("INSERT INTO release VALUES('r0', 't', 'd', x'00')")
        connection.execute("INSERT INTO release_stage(release_id, stage, at, by, why) VALUES('r0', 'full', 'now', 'x', '')")
    old.close()
    with open_store(tmp_path) as store:
        assert [e.stage for e in store.releases.history()] == ["full"]
        assert store.rollouts.current("t").stage == "teacher-only"
        assert (home / f"project.db.v{at}.bak").exists()


def call(*args):
    return CliRunner().invoke(main, [str(a) for a in args])


def test_the_verbs_move_the_release_and_status_says_what_it_waits_for(tmp_path):
    """promote, rollback and status in words and as JSON; a refusal is exit code 1, a forced move needs a reason."""
    folder = write_project(tmp_path, "by-hand")
    with open_store(folder) as store:
        release(store)
    here = ("--project", folder)
    body = json.loads(call("status", *here, "--json").stdout)
    assert (body["rollout"]["stage"], body["rollout"]["candidate"], body["rollout"]["next"]) == ("teacher-only", "r1", "shadow")
    done = call("promote", *here, "--by", "Dana")
    assert (done.exit_code, "is at shadow" in done.output) == (0, True)
    assert call("promote", *here).exit_code == 1
    assert call("promote", *here, "--force").exit_code == 2
    with open_store(folder) as store:
        epoch = store.rollouts.current("t").epoch
        part = StageCounts(requests=900, asked=900, kept=800, compared=800, disagreed=8, drawn=800, drawn_wrong=8)
        store.rollouts.add({(epoch, "vip"): part, (epoch, "other"): replace(part, disagreed=30, drawn_wrong=30)}, at=START)
    told = call("status", *here).output
    assert all(words in told for words in ("shadow", "slice 'vip'", "more requests"))
    assert json.loads(call("status", *here, "--json").stdout)["rollout"]["bars"][0]["n"] == 800
    assert call("promote", *here, "--force", "--why", "a launch", "--by", "Dana").exit_code == 0
    back = call("rollback", *here, "--why", "enough", "--by", "Dana", "--json")
    assert (back.exit_code, json.loads(back.stdout)["stage"]) == (0, "teacher-only")
    with open_store(folder) as store:
        assert [(m.stage, m.by) for m in store.rollouts.history("t")] == [("shadow", "Dana"), ("canary", "Dana"), ("teacher-only", "Dana")]


class Rollout(RuleBasedStateMachine):
    """Two gateways, a person and a clock that jumps, in any order, on one store."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.project = load_project(write_project(Path(self.folder.name)))
        self.stores = [open_store(self.project.root) for _ in range(2)]
        release(self.stores[0])
        self.now, self.seen, self.moved = START, 0, 0
        self.gates = [Gateway(store, self.project, lambda: self.now) for store in self.stores]

    @property
    def state(self):
        return self.stores[0].rollouts.current("t")

    @rule(jump=st.sampled_from([-40 * DAY, -60.0, 1.0, 4_000.0, 3 * DAY, 50 * DAY]))
    def clock(self, jump):
        self.now += jump

    @precondition(lambda self: self.state.release_id is not None)
    @rule(gate=st.integers(0, 1), n=st.sampled_from([0, 40, 2_000]), bad=st.sampled_from([0.0, 0.01, 0.5]), only=st.booleans())
    def traffic(self, gate, n, bad, only):
        for name in ("vip",) if only else ("vip", "other"):
            self.gates[gate].see(self.state, name, n, wrong=round(n * bad))

    @rule(gate=st.integers(0, 1))
    def tick(self, gate):
        before = self.state
        after = self.gates[gate].tick.run()
        decision = self.gates[gate].tick.last
        if after.share > before.share:
            assert decision.move == "promote"
            self.proven(before)

    @rule(force=st.sampled_from(["", "", "a reason"]), gate=st.integers(0, 1))
    def promote(self, force, gate):
        before = self.state
        if before.last_release is not None and before.release_id is None:
            return  # what was rolled back needs a new certificate
        if before.stage == "full":
            return
        done = moves.promote(self.stores[gate], self.project, by="Dana", force=force, now=self.now)
        if done.moved and before.release_id is not None and not self.stores[0].rollouts.history("t")[-1].body["forced"]:
            self.proven(before)

    def proven(self, before):
        plan = moves.plan_of(self.stores[0], self.project)("r1")
        bars = bars_of(plan, before, moves._evidence(self.stores[1], before))
        assert self.now - before.since >= 3_600
        assert all(b.passed and not b.alarm for b in bars)

    @precondition(lambda self: self.state.release_id is not None)
    @rule(gate=st.integers(0, 1))
    def rollback(self, gate):
        assert moves.rollback(self.stores[gate], self.project, by="Dana", now=self.now).stage == "teacher-only"

    @invariant()
    def both_agree_and_all_is_recorded(self):
        first, second = (store.rollouts.current("t") for store in self.stores)
        assert first == second
        history = self.stores[0].rollouts.history("t")
        decisions = {d.seq: d for d in self.stores[0].decisions.read()}
        assert [(decisions[m.decision].body["to"], decisions[m.decision].body["evidence"]) for m in history] == [
            (m.stage, m.evidence) for m in history
        ]
        stages = ["teacher-only", *(m.stage for m in history)]
        assert all(decisions[m.decision].body["from"] == a for a, m in zip(stages, history, strict=False))
        assert all(a.epoch < b.epoch for a, b in itertools.pairwise(history))
        assert self.stores[0].decisions.verify() == len(decisions)

    def teardown(self):
        for store in self.stores:
            store.close()
        self.folder.cleanup()


Rollout.TestCase.settings = settings(
    max_examples=8, stateful_step_count=12, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
TestRollout = Rollout.TestCase
