"""
A critical slice of 3 % that goes bad in canary: how soon the release goes back, and how often a good one does.

Every run goes through the real state machine, the real counts and a real store, with no network: requests are drawn,
counted in a gateway's tally, and the tick decides. Beside it, in the same runs, a guard that looks at the average alone,
with all of the false-alarm chance to itself. Exits with 1 where a claim fails.

    python benchmarks/gateway/canary.py [--runs 200] [--requests 20000] [--seed 1]
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from overproof.data import Folder, RolloutState, planned_stages
from overproof.evidence import Certificate, Release
from overproof.measure.intervals import cp_interval
from overproof.measure.monitor import alarm_level, fold_restart, increment
from overproof.serve.evidence import Tally, Tick
from overproof.serve.rollout import DELTA, RolloutPlan, SliceBar, compare_by
from overproof.store.project_store import Store, open_store

SHARES = {"vip": 0.03, "a": 0.3, "b": 0.25, "c": 0.2, "d": 0.12, "e": 0.06, "f": 0.03, "other": 0.01}
NAMES = tuple(SHARES)
BAR, USUAL, BAD, KEEP, CANARY, COMPARE = 0.05, 0.03, 0.2, 0.85, 0.05, 0.1
TICK = 500  # requests between two ticks, where no critical error asks for one: a second at 500 requests/s
WITHIN, FOUND, FALSE = 500, 0.95, 0.05
PLAN = RolloutPlan(
    stages=planned_stages(("shadow 7d", "canary 5% 30d", "full")), overall=BAR, faults=0.01, hold_s=30 * 86_400.0,
    slices=tuple(SliceBar(slice=name, bar=BAR, critical=name == "vip") for name in NAMES),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """How one run ended."""

    ours: int | None
    """Requests of the slice from the break to the rollback; None without one."""
    early: bool
    """Whether anything was rolled back or suspended while all was well."""
    average: bool
    """Whether a guard of the average alarmed, shown all answers up to `WITHIN` requests of the slice after the break."""


def enter(store: Store, name: str) -> RolloutState:
    """A release of its own at canary, evidence from nothing."""
    made = store.root / "bundle"
    made.mkdir(exist_ok=True)
    (made / "weights").write_text("w")
    certificate = Certificate(plan_hash="p", sealed_digest="s", label_kind="teacher:x", use_k=1, delta_spent=0.05, slices=(),
                              assumptions=(), window=(None, None), expires="2999-01-01")  # fmt: skip
    bundle = store.memo().source("bundle", Folder(path=made)).value
    release = Release(id=name, task="t", findings=(), headline="", candidate="c", bundle=bundle, certificate=certificate, owner="o",
                      review_due="2999-01-01")  # fmt: skip
    store.releases.record(release, by="gate")
    at = store.rollouts.move(
        store.rollouts.current("t"), release_id=name, stage="canary", share=CANARY, by="bench", why="", evidence={}, at=0.0
    )
    assert at is not None
    return at


def one_run(store: Store, name: str, rng: np.random.Generator, requests: int, breaks: int | None) -> Run:
    """
    One canary.

    Args:
        store: used again; each run is a stage of its own.
        name: of its release.
        rng: seeded.
        requests: how many before it ends well.
        breaks: after how many the slice goes bad; None for a healthy run.
    """
    state, tally = enter(store, name), Tally(["vip"])
    tick = Tick(store, "t", lambda _: PLAN, tally, clock=lambda: 60.0)
    slices = rng.choice(len(NAMES), size=requests, p=list(SHARES.values()))
    kept, chance, arm = rng.random(requests) < KEEP, rng.random(requests), rng.random(requests) < CANARY
    vip = slices == NAMES.index("vip")
    wrong = chance < np.where(vip & (np.arange(requests) >= (requests if breaks is None else breaks)), BAD, USUAL)
    average = _average(wrong, kept, vip, breaks)
    seen = 0
    for i in range(requests):
        where, keep = NAMES[slices[i]], bool(kept[i])
        seen += breaks is not None and i >= breaks and bool(vip[i])
        tally.request(state.epoch, where, kept=keep, arm=("student" if arm[i] else "teacher") if keep else "")
        look = False
        if keep:
            by = compare_by(state, f"{state.epoch}-{i}", by_student=bool(arm[i]), critical=bool(vip[i]), share=COMPARE)
            look = tally.comparison(state.epoch, where, agreed=not wrong[i], by=by)
        if look or (i + 1) % TICK == 0:
            after = tick.run()
            well = breaks is None or i < breaks
            if after.release_id is None or (after.suspended and well):
                return Run(ours=None if well else seen, early=well, average=average)
    return Run(ours=None, early=False, average=average)


def _average(wrong: np.ndarray, kept: np.ndarray, vip: np.ndarray, breaks: int | None) -> bool:
    """A guard that sees the average alone, of every kept answer, with all of delta; read after each 200."""
    end = len(wrong) if breaks is None else breaks + int(np.searchsorted(vip[breaks:].cumsum(), WITHIN)) + 1
    bad, fold = wrong[:end][kept[:end]], None
    for at in range(0, len(bad), 200):
        part = bad[at : at + 200]
        fold = fold_restart(fold, increment(int(part.sum()), len(part), BAR))
        if fold.log_e >= alarm_level(DELTA):
            return True
    return False


def main() -> int:
    """Run, print the table, and say by the exit code whether the claims hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    # the average guard is given as long as ours may take: 500 requests of a slice of 3 %
    more = int(2 * WITHIN / SHARES["vip"])
    broken, healthy = [], []
    with tempfile.TemporaryDirectory() as folder, open_store(Path(folder)) as store:
        for run in range(args.runs):
            rng = np.random.default_rng([args.seed, run])
            spell = int(rng.integers(0, args.requests))
            broken.append(one_run(store, f"broken-{run}", rng, spell + more, spell))
            healthy.append(one_run(store, f"healthy-{run}", rng, args.requests, None))
            if sys.stderr.isatty():
                print(f"\r{run + 1}/{args.runs}", end="", file=sys.stderr)
    n = args.runs
    hit = [r.ours for r in broken if r.ours is not None]
    in_time, false = sum(x <= WITHIN for x in hit), sum(r.early for r in healthy)
    early, seen = sum(r.early for r in broken), sum(r.average for r in broken)
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, seed {args.seed}, {n} runs of each sort\n")
    print("| claim | n | found | 95 % interval | bar | holds |\n|---|---|---|---|---|---|")
    rows = [
        (f"bad slice rolled back within {WITHIN} of its requests", in_time, f">= {FOUND:.0%}", in_time / n >= FOUND),
        (f"false rollbacks or suspensions over {args.requests:,} good requests", false, f"<= {FALSE:.0%}", false / n <= FALSE),
        ("the same before the break", early, f"<= {FALSE:.0%}", early / n <= FALSE),
        ("a guard of the average alarms on the same broken runs", seen, "-", True),
    ]
    for text, k, bar, holds in rows:
        both = cp_interval(k, n)
        print(f"| {text} | {n} | {k} ({k / n:.1%}) | {both.low:.1%}-{both.high:.1%} | {bar} | {'yes' if holds else 'NO'} |")
    if hit:
        q = np.quantile(hit, [0.5, 0.95, 1.0])
        print(f"\nrequests of the slice from the break to the rollback: median {q[0]:.0f}, 95 % {q[1]:.0f}, most {q[2]:.0f}")
    return 0 if all(row[3] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
