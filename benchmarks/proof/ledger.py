"""Sealed rows that are used again: twenty candidates, and "collect more and try again until it passes"."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from benchmarks.proof.rows import ProofRow, alone, counted, percent, reached
from benchmarks.proof.worlds import AT_THE_BAR, CALIBRATED, OVERCONFIDENT, World, draw, truth

from overproof.measure.certify import grid_counts, ledger_delta, plan_slice
from overproof.measure.intervals import k_star, p_pass
from overproof.measure.looks import SliceLook, certify_looks, look_rows, look_shares

BAR, DELTA = 0.05, 0.10
CANDIDATES, ROWS = 20, 1_000
RETRY_EVERY, RETRY_ROWS = 100, 5_000


@cache
def most(n: int, d: float) -> int:
    """Most wrong of n that pass the bar."""
    return k_star(n, BAR, d)


def candidates(trials: int, seed: int) -> ProofRow:
    """Each candidate sits at the bar, so each pass is a false one."""
    rng = np.random.default_rng([seed, 20])
    wrong = rng.binomial(ROWS, BAR + 1e-9, size=(trials, CANDIDATES))
    point = int((wrong <= BAR * ROWS).any(axis=1).sum())
    exact = int((wrong <= most(ROWS, DELTA)).any(axis=1).sum())
    admitted = np.array([most(ROWS, ledger_delta(DELTA, k)) for k in range(1, CANDIDATES + 1)])
    ours = int((wrong <= admitted).any(axis=1).sum())
    none = math.prod(1.0 - p_pass(int(k), ROWS, BAR) for k in admitted)  # independent candidates: exact
    return ProofRow(
        claim="20 retrained candidates at the bar against one sealed set: at least one false pass",
        naive=f"{percent(exact / trials)} with an exact test each; {percent(point / trials)} by observed error",
        reach="≤ 10 %",
        measured=f"{counted(ours, trials)}; exactly {percent(1 - none)} by enumeration",
        holds=reached(ours / trials, DELTA, trials) and 1 - none <= DELTA and exact / trials > 0.6,
        n_trials=trials,
    )


def retry_passes(wrong: np.ndarray) -> bool:
    """The naive way: the exact test at full delta after each further hundred rows, until it passes."""
    seen = np.cumsum(wrong[:RETRY_ROWS])
    return any(seen[n - 1] <= most(n, DELTA) for n in range(RETRY_EVERY, RETRY_ROWS + 1, RETRY_EVERY))


def retry(trials: int, seed: int) -> ProofRow:
    """Planned looks against trying again, at the bar; and what the looks keep of students that deserve it."""
    at_bar = [looked(AT_THE_BAR, seed, i) for i in range(trials)]
    ours = sum(one is not None for one in at_bar)
    rng = np.random.default_rng([seed, 31])
    naive = sum(retry_passes(rng.random(RETRY_ROWS) < BAR) for _ in range(trials))
    some = max(20, trials // 10)
    kept = {
        world.name: sum(
            0.0 if t is None else truth(world).at(t).keep
            for t in (looked(world, seed, i) for i in range(some))
        )
        / some
        for world in (CALIBRATED, OVERCONFIDENT)
    }
    return ProofRow(
        claim='"collect and retry until it passes", a student at the bar: a false pass at any time',
        naive=f"{percent(naive / trials)} (exact test every {RETRY_EVERY} rows up to {RETRY_ROWS:,})",
        reach="≤ 10 %",
        measured=f"{counted(ours, trials)}, 6 planned looks up to {look_rows()[-1]:,} rows; these keep "
        f"{kept[CALIBRATED.name]:.2f} (calibrated) and {kept[OVERCONFIDENT.name]:.2f} (overconfident; {some} runs each)",
        holds=reached(ours / trials, DELTA, trials)
        and naive / trials > 0.2
        and kept[OVERCONFIDENT.name] >= 0.35,
        n_trials=trials,
    )


def looked(world: World, seed: int, trial: int) -> float | None:
    """The threshold certified after all planned looks, each a fresh look at all rows so far."""
    rng = np.random.default_rng([seed, 30, trial, int(1000 * world.error(np.array([0.5]))[0])])
    sizes = look_rows()
    dev = draw(world, rng, 2 * sizes[-1])
    plan = plan_slice("s", dev.scores, dev.wrong, alpha=BAR, weight=1.0, n_sealed=sizes[-1])
    rows = draw(world, rng, sizes[-1])
    looks = [SliceLook(n=n, counts=grid_counts(rows.scores[:n], rows.wrong[:n], plan.grid)) for n in sizes]
    done = certify_looks([plan], {"s": looks}, DELTA, shares=look_shares(len(sizes)))[0]
    if done.threshold is not None and p_pass(done.wrong, done.kept, BAR) > DELTA:
        raise AssertionError("a certified look must pass at its own level")
    return done.threshold


def rows(trials: int, seed: int) -> list[ProofRow]:
    """All proofs about using sealed rows again."""
    return [candidates(trials, seed), retry(trials, seed)]


if __name__ == "__main__":
    alone(rows)
