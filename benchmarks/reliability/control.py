# ruff: noqa: SLF001 - it looks into the store as nobody else may
"""
The control plane under seeded chaos, on a virtual clock: python -m benchmarks.reliability.control --seeds 10000 --first 0.

One project, its real store, three gateways with their real tallies and ticks, label runs behind the real ledger, people who promote
and roll back. Processes die, stop and wake up again, clocks jump, evidence is lost, late or impossible, gateways are cut off. What is
played is the outside alone: time, the provider, the requests and what the student says to them. A seed is the whole story: the same
one gives the same moves (`--first SEED --seeds 1 --story` tells it).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

from overproof.data import Completion, Folder, Outcome, Request, RolloutState, StageCounts, TeacherPin
from overproof.errors import OverproofError, StoreError, TeacherError
from overproof.evidence import Certificate, Release, SliceCertificate
from overproof.measure.intervals import confidence_sequence, figure, min_rows
from overproof.project import Project, load_project
from overproof.serve import moves, router
from overproof.serve.evidence import GATEWAY, Tally, Tick
from overproof.serve.rollout import LEAST_SERVED, PASS_DELTA
from overproof.store.labels import LedgeredTeacher
from overproof.store.local import Role
from overproof.store.money import Prices
from overproof.store.pacing import Manners
from overproof.store.project_store import Store, open_store

DAY = 86_400.0
START = 20_000 * DAY
STEPS = 60
GATEWAYS = 3
EXPIRES = "2024-10-15"  # 11 days after START: some stories outlive the certificate
CERTIFIED, UNCERTIFIED = ("vip", "other"), "odd"
RELEASES = ("r1", "r2")
LABELS = 25
KEYS: dict[str, str] = {}
"""Name of a label to its key in the ledger."""
FILE = """
[task]
name = "t"
input = ["text"]
output = { classes = ["a", "b"] }
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
where = { tier = "plus" }
critical = true
[[student]]
use = "linear.v1"
[serve]
accuracy_when_confident = 0.95
stages = ["shadow 1h", "canary 20% 1h", "full"]
promote = "by-evidence"
"""


class Killed(BaseException):
    """The process is gone."""


class Broken(AssertionError):
    """An invariant doesn't hold."""


@contextmanager
def template() -> Iterator[tuple[Path, Project]]:
    """A project with two certified releases, to be copied for each seed."""
    with tempfile.TemporaryDirectory(dir=fast()) as name:
        root = Path(name) / "project"
        root.mkdir()
        for path, text in {"task.md": "Sort {text} into a or b.", "overproof.toml": FILE, "r.jsonl": "", "terms.toml": ""}.items():
            (root / path).write_text(text)
        with open_store(root) as store:
            for number, release_id in enumerate(RELEASES):
                folder = root / f"made-{release_id}"
                folder.mkdir()
                (folder / "weights").write_text(release_id)
                store.releases.record(release(store, release_id, folder, expires=EXPIRES if number else "2999-01-01"), by="gate")
        yield root, load_project(root)


def release(store: Store, release_id: str, folder: Path, *, expires: str) -> Release:
    """As the gate makes one; the student may not answer in the last slice."""
    parts = tuple(
        SliceCertificate(
            slice=name, alpha=0.05, delta=0.02, threshold=None if name == UNCERTIFIED else 0.5, n=400, kept=300, wrong=3, upper=0.04,
            keep_share=figure(300, 400, metric="kept"), verdict="undecided" if name == UNCERTIFIED else "pass",
        )
        for name in (*CERTIFIED, UNCERTIFIED)
    )  # fmt: skip
    certificate = Certificate(
        plan_hash="p", sealed_digest="s", label_kind="teacher:big", use_k=1, delta_spent=0.05, slices=parts, assumptions=(),
        window=(None, None), expires=expires, supports="G4",
    )  # fmt: skip
    bundle = store.memo().source("bundle", Folder(path=folder)).value
    return Release(
        id=release_id, task="t", findings=(), headline="h", candidate="small", bundle=bundle, certificate=certificate, owner="Dana Ruiz",
        review_due="2999-01-01",
    )  # fmt: skip


def fast() -> str | None:
    """Where files cost no waiting."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


class Provider:
    """A provider that keeps its own books, and sometimes is the last thing that a process sees."""

    free = False

    def __init__(self, world: World) -> None:
        self._world = world

    async def attempt(self, request: Request, *, sample_index: int, recorded: Completion | None = None) -> Outcome:
        del sample_index, recorded
        world, rng = self._world, self._world.rng
        if request.id in world.answers:
            raise Broken(f"label {request.id} was there and is paid for again")
        await asyncio.sleep(0)
        fate = rng.choices(("ok", "transient", "bad", "killed", "lost"), (80, 8, 5, 2, 2))[0]
        if fate == "killed":  # before the request left
            raise Killed
        world.bill[request.id] += fate != "transient"
        for _ in range(rng.randrange(3)):
            await asyncio.sleep(0)
        if fate == "lost":  # billed, and the answer never arrives
            raise Killed
        if fate == "transient":
            return _outcome("transient", None, 500)
        value = f"answer to {request.id}" if fate == "ok" else None
        answer = Completion(text="x", value=value, model="m", cost_usd=0.001, reason="" if value else "cut")
        return _outcome(fate, answer, 200)

    def worst_case_tokens(self, request: Request) -> Any:
        del request
        return _Bound

    async def close(self) -> None:
        return None


class _Bound:
    tokens_in, tokens_out = 2_000, 0


def _outcome(kind: Any, answer: Completion | None, status: int) -> Outcome:
    return Outcome(
        kind=kind, completion=answer, reason="" if kind == "ok" else kind, http_status=status, retry_after_s=None, fingerprint=None,
        request_id=None,
    )  # fmt: skip


@dataclass
class Gateway:
    """One gateway process: its handle on the store, what it counts, and what it last heard of the rollout."""

    store: Store
    tally: Tally
    tick: Tick
    state: RolloutState
    skew: float = 0.0
    cut_off: bool = False
    new: Counter[tuple[int, str]] = field(default_factory=Counter)
    """Comparisons that were counted and not written yet."""


@dataclass
class Run:
    """One label run: a process with a handle, the role, and its number."""

    store: Store
    role: Role
    name: str


class World:
    """
    One story.

    Args:
        root: a copy of the template.
        project: of the template.
        seed: of everything.
    """

    def __init__(self, root: Path, project: Project, seed: int) -> None:
        self.root, self.project, self.rng = root, project, random.Random(seed)
        self.time = START
        self.story: list[str] = []
        self.answers: dict[str, str] = {}
        """Labels that were acknowledged."""
        self.bill: Counter[str] = Counter()
        self.written: Counter[tuple[int, str]] = Counter()
        """Comparisons that a gateway was told are durable."""
        self.spoiled: set[int] = set()
        """Epochs into which impossible counts were written."""
        self.truth = {name: self.rng.choice((0.002, 0.004, 0.01, 0.15)) for name in RELEASES}
        self.seen: Counter[str] = Counter()
        self.deciders: dict[int, float] = {}
        """Epoch of a gateway's promotion to the clock that it was decided by."""
        self.runs = 0
        self.judged = 0
        self.asleep: Run | None = None
        self.gateways = [self.gateway() for _ in range(GATEWAYS)]

    # -- what happens --

    def play(self) -> None:
        """All of it, with the invariants after each step."""
        weights: dict[Callable[[], None], int] = {
            self.traffic: 30, self.look: 30, self.pass_time: 14, self.person: 8, self.label: 10, self.crash: 5, self.cut: 5, self.jump: 4,
            self.wake: 5, self.impossible: 1,
        }  # fmt: skip
        try:
            moves.promote(self.gateways[0].store, self.project, by="Dana", release_id=self.rng.choice(RELEASES), now=self.time)
            for _ in range(STEPS):
                (one,) = self.rng.choices(list(weights), list(weights.values()))
                self.story.append(one.__name__)
                one()
                self.check(labels=one in (self.label, self.wake))
            self.label(quiet=True)
            self.check(labels=True, end=True)
        finally:
            for gate in self.gateways:
                gate.store.close()
            if self.asleep is not None:
                self.end(self.asleep)

    def gateway(self) -> Gateway:
        store, tally = open_store(self.root), Tally(["vip"])
        gate = Gateway(store, tally, None, store.rollouts.current("t"))  # type: ignore[arg-type] - it follows
        gate.tick = Tick(store, "t", moves.plan_of(store, self.project), tally, clock=lambda: self.time + gate.skew)
        return gate

    def pick(self) -> Gateway:
        return self.rng.choice(self.gateways)

    def traffic(self) -> None:
        """Requests at one gateway: a few are routed one by one, the rest is counted as the gateway counts."""
        gate = self.pick()
        state = gate.state
        for _ in range(5):
            self.route(gate, self.rng.choice((*CERTIFIED, UNCERTIFIED)))
        if state.release_id is None:
            return
        for name in CERTIFIED:
            n = self.rng.randrange(3_000)
            wrong = sum(self.rng.random() < self.truth[state.release_id] for _ in range(min(n, 200))) * max(1, n // 200)
            wrong = min(wrong, n)
            arms = n // 5 if state.stage == "canary" else 0
            new = StageCounts(
                requests=n, asked=n, kept=n, compared=n, disagreed=wrong, drawn=n, drawn_wrong=wrong, by_student=arms,
                by_teacher=n - arms if arms else 0,
            )  # fmt: skip
            row = gate.tally._row(state.epoch, name)
            row[:] = map(sum, zip(row, astuple(new), strict=True))
            gate.new[state.epoch, name] += n

    def route(self, gate: Gateway, piece: str) -> None:
        """One request, by the router; the student itself is played: sure in certified slices, and honest about the other."""
        state = gate.state
        now = router.Situation(
            released=state.release_id is not None, stage=state.stage, share=state.share, arm=self.rng.random(),
            teacher_down=self.rng.random() < 0.1, stand_in=self.rng.random() < 0.5,
        )  # fmt: skip
        cause = "uncertified" if piece == UNCERTIFIED else "confident"
        routed = router.route(now, cause=cause, suspended=piece in state.suspended)  # type: ignore[arg-type]
        self.seen[f"answered by the {routed.route}"] += 1
        if routed.route != "student":
            return
        moved = {m.epoch: m for m in gate.store.rollouts.history("t")}.get(state.epoch)
        known = moved is not None and (moved.release_id, moved.stage, moved.share) == (state.release_id, state.stage, state.share)
        if not known or state.stage not in ("canary", "full") or piece == UNCERTIFIED or state.release_id not in RELEASES:
            raise Broken(f"a student that nobody has released answered {piece} in {state}")
        heard = set(gate.store.rollouts.suspensions(state.release_id)) if not gate.cut_off else set()
        if piece in state.suspended or (piece in heard and gate.tick.last is not None and piece in (gate.tick.last.slices or {})):
            raise Broken(f"the suspended slice {piece} was answered by the student")

    def look(self) -> None:
        """One gateway writes what it counted, reads what all counted, decides."""
        gate = self.pick()
        if gate.cut_off:
            return
        at = self.time + gate.skew
        before = gate.store.rollouts.current("t")
        gate.state = gate.tick.run()
        self.written.update(gate.new)
        gate.new.clear()
        now = gate.store.rollouts.current("t")
        if (gate.state.epoch, gate.state.stage, gate.state.suspended) != (now.epoch, now.stage, now.suspended):
            raise Broken("a gateway goes on in another state than it has just read")
        if now.epoch != before.epoch:
            self.deciders[now.epoch] = at
            self.seen["moves by gateways"] += 1

    def pass_time(self) -> None:
        self.time += self.rng.choice((10.0, 600.0, 3_700.0, 3_700.0, 3_700.0, DAY, 2.5 * DAY))

    def person(self) -> None:
        """Somebody promotes, forces, or rolls back; a refusal is an answer too."""
        store, rng = self.pick().store, self.rng
        with suppress(OverproofError):
            if rng.random() < 0.2:
                moves.rollback(store, self.project, by="Dana", now=self.time)
            else:
                force = "a launch" if rng.random() < 0.3 else ""
                moves.promote(store, self.project, by="Dana", release_id=rng.choice(("", *RELEASES)), force=force, now=self.time)

    def crash(self) -> None:
        """A gateway dies; what it hadn't written is gone, and a new one takes its place."""
        at = self.rng.randrange(GATEWAYS)
        self.gateways[at].store.close()
        self.gateways[at] = self.gateway()
        self.seen["gateways killed"] += 1

    def cut(self) -> None:
        """A gateway loses the store for a while, or has it again."""
        gate = self.pick()
        gate.cut_off = not gate.cut_off and self.rng.random() < 0.5

    def jump(self) -> None:
        """A clock jumps by days, or is put right."""
        self.pick().skew = self.rng.choice((0.0, 0.0, -2 * DAY, 2 * DAY, 3_600.0, -3_600.0))

    def impossible(self) -> None:
        """A gateway counts what can't be: evidence of nothing, as long as this stage lasts."""
        gate = self.pick()
        state = gate.store.rollouts.current("t")
        if state.release_id is None:
            return
        counts = StageCounts(requests=5, asked=5, kept=5, compared=5, disagreed=10**9)
        gate.store.rollouts.add({(state.epoch, "other"): counts}, at=self.time)
        self.written[state.epoch, "other"] += 5
        self.spoiled.add(state.epoch)

    def label(self, *, quiet: bool = False) -> None:
        """A run buys a few labels; it may be killed, or stop in the middle and be taken over."""
        if self.asleep is not None and self.asleep.role._handle >= 0:
            self.asleep.role._free()  # what a take-over does first: the holder doesn't answer any more
        self.runs += 1
        store = open_store(self.root)
        run = Run(store, store.role("run"), f"run-{self.runs}")
        run.role.__enter__()
        cap = 0.004 * self.rng.randrange(2, 30) if not quiet else 1e3
        store.ledger.open_run(run.name, cap_usd=cap)
        if store.ledger.counts().held_usd:
            raise Broken("money stays set aside after a run was opened")
        names = [f"k{self.rng.randrange(LABELS)}" for _ in range(0 if quiet else 4)]
        self.buy(run, names)
        if not quiet and self.asleep is None and self.rng.random() < 0.4:
            self.asleep = run  # stopped, not dead: it still believes that it holds the role
        else:
            self.end(run)

    def buy(self, run: Run, names: list[str]) -> None:
        async def one(teacher: LedgeredTeacher, name: str) -> None:
            (answer,) = await teacher.sample(Request(id=name, fields={"text": name}), n=1)
            if answer.value is not None:
                self.answers[name] = str(answer.value)

        async def go() -> None:
            teacher = self.teacher(run)
            await asyncio.gather(*(one(teacher, name) for name in names))

        try:
            asyncio.run(go())
        except Killed:
            self.seen["runs killed in a call"] += 1
        except TeacherError:  # BudgetExceeded is one
            self.seen["runs that stopped by themselves"] += 1

    def teacher(self, run: Run) -> LedgeredTeacher:
        async def sleep(seconds: float) -> None:
            self.time += seconds

        pin = TeacherPin(use="t", provider="p", model="m", revision="r")
        prices = Prices(usd_per_million_in=1.0, usd_per_million_out=0.0)
        made = LedgeredTeacher(
            Provider(self), run.store.ledger, pin=pin, prices=prices, clearance_id="c", run_id=run.name,
            pace=Manners(sleep=sleep, clock=lambda: self.time),
        )  # fmt: skip
        made._random = self.rng
        return made

    def wake(self) -> None:
        """A run that was stopped wakes up after another one has taken over: it may write nothing."""
        run, self.asleep = self.asleep, None
        if run is None:
            return
        ((newest,),) = run.store._project_db.rows("SELECT token FROM role WHERE name='run'")
        fenced = run.store._project_db.fenced
        if fenced is not None and fenced[1] != newest:
            self.seen["stale runs woken"] += 1
            before = self.books(run.store)
            with suppress(StoreError):
                number = run.store.ledger.reserve(f"stale {run.name}", run_id=run.name, max_micro=1)
                raise Broken(f"a run whose role was taken over reserved call {number}")
            with suppress(StoreError):
                run.store.decisions.append("k", actor=run.name, subject="stale", body={})
                raise Broken("a run whose role was taken over wrote a decision")
            if self.books(run.store) != before:
                raise Broken("a run whose role was taken over changed the books")
        self.end(run)

    def end(self, run: Run) -> None:
        if run.role._handle >= 0:
            run.role._free()
        run.store.close()

    def books(self, store: Store) -> list[Any]:
        tables = ("attempt", "label", "budget", "decision")
        return [store._project_db.rows(f"SELECT * FROM {name}") for name in tables]

    # -- what must hold --

    def check(self, *, labels: bool = False, end: bool = False) -> None:
        """Every invariant that the last step may have touched; at the end all of them, and the chain of decisions."""
        store = self.gateways[0].store
        if labels:
            self.labels_hold(store)
        self.moves_hold(store)
        found: Counter[tuple[int, str]] = Counter()
        for epoch, name, n in store._project_db.rows("SELECT epoch, slice, sum(compared) FROM stage_count WHERE slice<>'' GROUP BY 1, 2"):
            found[int(epoch), str(name)] = int(n)
        if +found != +self.written:
            raise Broken(f"the store counts {dict(found)}, the gateways were told {dict(self.written)}")
        if end:
            store.decisions.verify()
            if store.ledger.counts().held_usd != 0:
                raise Broken("money stays set aside")

    def labels_hold(self, store: Store) -> None:
        if not KEYS:
            key_of = self.teacher(Run(store, None, "check")).key_of  # type: ignore[arg-type]
            KEYS.update({name: key_of(Request(id=name, fields={"text": name}), 0) for name in (f"k{i}" for i in range(LABELS))})
        tried: Counter[str] = Counter()
        good: Counter[str] = Counter()
        for key, state in store._project_db.rows("SELECT key, state FROM attempt"):
            tried[key] += 1
            good[key] += state == "ok"
        for name, value in self.answers.items():
            answer = store.ledger.get(KEYS[name])
            if answer is None or answer.value != value:
                raise Broken(f"label {name} was acknowledged and is {answer}")
        for name, billed in self.bill.items():
            key = KEYS[name]
            if good[key] > 1 or tried[key] < billed:
                raise Broken(f"{name}: billed {billed} times, {tried[key]} calls in the books, {good[key]} of them labels")
        counts = store.ledger.counts()
        if counts.spent_usd + counts.held_usd < 0.001 * self.bill.total() - 1e-9:
            raise Broken(f"the books say {counts.spent_usd}, the bill {0.001 * self.bill.total()}")

    def moves_hold(self, store: Store) -> None:
        history = store.rollouts.history("t")
        for number, move in enumerate(history[self.judged :], self.judged + 1):
            before = history[number - 2] if number > 1 else None
            (made,) = store._project_db.rows("SELECT body FROM decision WHERE seq=? AND kind='rollout'", (move.decision,)) or [("{}",)]
            body = json.loads(made[0])
            if move.epoch != number or body.get("evidence") != move.evidence or body.get("to") != move.stage:
                raise Broken(f"move {number} has no decision of its own")
            if (body["from"], body["from_share"]) != ((before.stage, before.share) if before else ("teacher-only", 0.0)):
                raise Broken(f"move {number} was decided on {body['from']}, and the rollout was elsewhere")
            if move.by == GATEWAY and move.stage != "teacher-only":
                self.earned(store, before, move)
        self.judged = len(history)

    def earned(self, store: Store, before: Any, move: Any) -> None:
        """A promotion without a person: time, every bar of every slice, and no more rows than gateways have counted."""
        rows = {row["bar"]: row for row in move.body["bars"]}
        suspended = {
            name for name, seq in store._project_db.rows("SELECT slice, decision FROM suspended_slice WHERE release_id=?", (move.release_id,))
            if seq < move.decision
        }  # fmt: skip
        wanted = {f"slice {name!r}" for name in CERTIFIED if name not in suspended} | {"all slices", "faults"}
        if before is None or before.epoch in self.spoiled or not wanted <= set(rows):
            raise Broken(f"move {move.epoch} to {move.stage}: no evidence for {sorted(wanted - set(rows))}")
        for name in wanted:
            n, wrong, bar = rows[name]["n"], rows[name]["wrong"], rows[name]["at_most"]
            if n < min_rows(bar, PASS_DELTA) or confidence_sequence(wrong, n, PASS_DELTA).high > bar:
                raise Broken(f"move {move.epoch} to {move.stage}: {name} has {wrong} wrong of {n}, held to {bar}")
        if before.stage == "canary" and rows["failures of the arms"]["n"] < LEAST_SERVED:
            raise Broken(f"move {move.epoch}: the student's arm answered {rows['failures of the arms']['n']} requests")
        for name in CERTIFIED:
            told = rows.get(f"slice {name!r}", {"n": 0})["n"]
            if told > self.written[before.epoch, name] + sum(g.new[before.epoch, name] for g in self.gateways):
                raise Broken(f"move {move.epoch} rests on {told} rows of {name}, and so many never were")
        at = self.deciders.get(move.epoch, move.since)
        if at - before.since < 3_600.0 or time.strftime("%Y-%m-%d", time.gmtime(at)) > self.expires(move.release_id):
            raise Broken(f"move {move.epoch} to {move.stage} came too early, or after the certificate")
        self.seen[f"promotions to {move.stage}, held against the evidence"] += 1

    def expires(self, release_id: str) -> str:
        return EXPIRES if release_id == RELEASES[1] else "2999-01-01"


@contextmanager
def one_thread() -> Iterator[None]:
    """The group commit's thread becomes a call, so that a seed gives the same order each time."""

    async def inline(call: Callable[..., Any], *args: Any, **more: Any) -> Any:
        return call(*args, **more)

    before, asyncio.to_thread = asyncio.to_thread, inline  # type: ignore[assignment]
    try:
        yield
    finally:
        asyncio.to_thread = before


def campaign(seeds: range, *, to_the_end: bool = True) -> tuple[list[str], Counter[str]]:
    """
    Play every seed, or up to the first that breaks something.

    Returns: what broke, each with its seed; and what happened how often.
    """
    broken: list[str] = []
    seen: Counter[str] = Counter()
    with template() as (made, project), one_thread():
        for seed in seeds:
            with tempfile.TemporaryDirectory(dir=fast()) as name:
                root = Path(name) / "project"
                shutil.copytree(made, root)
                world = World(root, project, seed)
                try:
                    world.play()
                except Exception as error:
                    broken.append(f"seed {seed}, step {len(world.story)} ({world.story[-1] if world.story else 'start'}): {type(error).__name__}: {error}")
                seen += world.seen
            if broken and not to_the_end:
                break
    return broken, seen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    given = parser.parse_args()
    broken, seen = campaign(range(given.first, given.first + given.seeds))
    print(json.dumps({"seeds": given.seeds, "first": given.first, "steps": STEPS, "broken": len(broken), **dict(sorted(seen.items()))}))
    print(*broken[:10], sep="\n")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
