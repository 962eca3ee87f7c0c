"""Certified thresholds against thresholds picked from the observed error: how often is the result over its bar?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from benchmarks.proof.rows import ProofRow, alone, counted, percent, reached, span
from benchmarks.proof.worlds import (
    AT_THE_BAR,
    CALIBRATED,
    EIGHT,
    EIGHT_SHARES,
    OVERCONFIDENT,
    WORLDS,
    Rows,
    World,
    draw,
    truth,
)

from overproof.evidence import SlicePlan
from overproof.measure.certify import (
    Counts,
    certify_budget,
    certify_slices,
    grid_counts,
    grid_of,
    plan_slice,
    split_delta,
    walk,
)
from overproof.measure.intervals import min_rows
from overproof.measure.paths import certify_path, plan_path

BAR, DELTA, BUDGET = 0.05, 0.10, 0.03
SIZES = (100, 300, 500, 1_000, 2_000, 5_000)
EIGHT_ROWS = 8_000
PATH_ROWS = 2_000


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What happened in one world at one size."""

    world: str
    n: int
    over: int
    """Runs in which the certified threshold is truly over the bar."""
    naive: int
    """The same for the loosest threshold whose observed error is within the bar."""
    keep: float
    """Mean share kept, runs with nothing certified included."""
    keep_strict: float
    """The same where the walk starts at the strictest threshold that has rows enough to pass at all."""


def naive_threshold(counts: Counts, grid: Sequence[float]) -> float | None:
    """What people do: the loosest threshold whose observed error on held-out rows is within the bar."""
    return next(
        (t for t, (k, m) in zip(reversed(grid), reversed(counts), strict=True) if m and k <= BAR * m), None
    )


def planned(world: World, rng: np.random.Generator, n: int, *, weight: float = 1.0) -> SlicePlan:
    """A plan from twice as many calibration rows as there will be sealed rows."""
    dev = draw(world, rng, 2 * n)
    return plan_slice(world.name, dev.scores, dev.wrong, alpha=BAR, weight=weight, n_sealed=n)


def shares_of(plan: SlicePlan) -> list[float]:
    """About what each point of a planned grid keeps: it has one point for each 2 %."""
    return [(j + 1) / len(plan.grid) for j in range(len(plan.grid))]


def cell(world: World, n: int, trials: int, seed: int) -> Cell:
    """Plan, certify and choose naively on the same rows, again and again."""
    rng = np.random.default_rng([seed, n, WORLDS.index(world)])
    known = truth(world)
    over = naive_over = 0
    keep = strict = 0.0
    for _ in range(trials):
        plan = planned(world, rng, n)
        sealed = draw(world, rng, n)
        done = certify_slices([plan], {plan.slice: sealed.scores}, {plan.slice: sealed.wrong}, DELTA)[0]
        if done.threshold is not None:
            at = known.at(done.threshold)
            over += at.error > BAR
            keep += at.keep
        able = (j for j, share in enumerate(shares_of(plan)) if share * n >= min_rows(BAR, DELTA))
        first = walk(done.counts, BAR, DELTA, next(able, len(plan.grid) - 1))
        strict += 0.0 if first is None else known.at(plan.grid[first]).keep
        naive = naive_threshold(done.counts, plan.grid)
        naive_over += naive is not None and known.at(naive).error > BAR
    return Cell(
        world=world.name, n=n, over=over, naive=naive_over, keep=keep / trials, keep_strict=strict / trials
    )


def thresholds(trials: int, seed: int) -> list[ProofRow]:
    """Five kinds of student at six sizes; and what is kept at 1,000 rows."""
    cells = [cell(world, n, trials, seed) for world in WORLDS for n in SIZES]
    worst = max(cells, key=lambda one: one.over)
    ordinary = [c.naive / trials for c in cells if c.world in {CALIBRATED.name, OVERCONFIDENT.name}]
    at_bar = [c.naive / trials for c in cells if c.world == AT_THE_BAR.name]
    kept = next(c for c in cells if c.world == CALIBRATED.name and c.n == 1_000)
    oracle = truth(CALIBRATED).oracle(BAR).keep
    return [
        ProofRow(
            claim="certified threshold, bar 5 %, delta 10 %: truly over its bar, worst of 5 students × n 100–5,000",
            naive=f"{span(ordinary)} (calibrated, overconfident); {span(at_bar)} where the student sits at the bar",
            reach="≤ 10 %",
            measured=f"{counted(worst.over, trials)}: {worst.world}, n = {worst.n:,}",
            holds=reached(worst.over / trials, DELTA, trials) and max(at_bar) > 0.6 and max(ordinary) > 0.3,
            n_trials=trials,
        ),
        ProofRow(
            claim="traffic kept at n = 1,000 by a calibrated student, bar 5 %",
            naive=f"{kept.keep_strict:.2f} when the walk starts at the strictest threshold that can pass at all",
            reach="≥ .29",
            measured=f"{kept.keep:.2f} (mean of {trials:,} runs; who knows the truth keeps {oracle:.2f})",
            holds=kept.keep >= (0.29 if trials >= 2_000 else 0.25) and kept.keep > kept.keep_strict,
            n_trials=trials,
        ),
    ]


def eight_slices(trials: int, seed: int) -> ProofRow:
    """Eight slices of different students and sizes: is any one of them over its bar?"""
    rng = np.random.default_rng([seed, 8])
    names = [f"{i}" for i in range(8)]
    shares = dict(zip(names, EIGHT_SHARES, strict=True))
    ours = each = naive = 0
    for _ in range(trials):
        sealed: dict[str, Rows] = {}
        plans = []
        for name, world in zip(names, EIGHT, strict=True):
            n = round(EIGHT_ROWS * shares[name])
            plans.append(replace(planned(world, rng, n), slice=name))
            sealed[name] = draw(world, rng, n)
        weights = split_delta(shares, {plan.slice: plan.dev_keep for plan in plans})
        plans = [replace(plan, weight=weights[plan.slice]) for plan in plans]
        done = certify_slices(
            plans, {k: r.scores for k, r in sealed.items()}, {k: r.wrong for k, r in sealed.items()}, DELTA
        )
        bad = own = picked = False
        for plan, part, world in zip(plans, done, EIGHT, strict=True):
            known = truth(world)
            bad |= part.threshold is not None and known.at(part.threshold).error > BAR
            last = walk(part.counts, BAR, DELTA, plan.start)
            own |= last is not None and known.at(plan.grid[last]).error > BAR
            loosest = naive_threshold(part.counts, plan.grid)
            picked |= loosest is not None and known.at(loosest).error > BAR
        ours, each, naive = ours + bad, each + own, naive + picked
    return ProofRow(
        claim=f"8 slices, {EIGHT_ROWS:,} sealed rows, slice-by-slice: some slice truly over its bar",
        naive=f"{percent(naive / trials)}; {percent(each / trials)} with the exact test at full delta for each slice",
        reach="≤ 10 %",
        measured=counted(ours, trials),
        holds=reached(ours / trials, DELTA, trials) and naive / trials > 0.9,
        n_trials=trials,
    )


def all_or_nothing(trials: int, seed: int) -> ProofRow:
    """Eight slices along one path at the full delta, against eight walks at the full delta."""
    rng = np.random.default_rng([seed, 88])
    names = [f"{i}" for i in range(8)]
    known, n = truth(CALIBRATED), PATH_ROWS
    over = shipped = each = split = 0
    for _ in range(trials):
        dev = {name: draw(CALIBRATED, rng, 2 * n) for name in names}
        sealed = {name: draw(CALIBRATED, rng, n) for name in names}
        path = plan_path(
            {k: r.scores for k, r in dev.items()},
            {k: r.wrong for k, r in dev.items()},
            alphas=dict.fromkeys(names, BAR),
            n_sealed=dict.fromkeys(names, n),
        )
        done = certify_path(
            path,
            {k: r.scores for k, r in sealed.items()},
            {k: r.wrong for k, r in sealed.items()},
            alphas=dict.fromkeys(names, BAR),
            delta=DELTA,
        )
        shipped += done.verdict == "pass"
        over += any(
            part.threshold is not None and known.at(part.threshold).error > BAR for part in done.slices
        )
        apart = [_apart(dev[name], sealed[name], DELTA) for name in names]
        each += all(t is not None for t in apart) and any(
            t is not None and known.at(t).error > BAR for t in apart
        )
        split += all(_apart(dev[name], sealed[name], DELTA / 8) is not None for name in names)
    return ProofRow(
        claim=f"8 slices, all or nothing, {PATH_ROWS:,} sealed rows each: shipped with some slice truly over its bar",
        naive=f"{percent(each / trials)} with every slice's own walk at full delta, where all certify",
        reach="≤ 10 %, and ships ≥ 85 %",
        measured=f"{counted(over, trials)}; ships {percent(shipped / trials)} (delta split in 8: {percent(split / trials)})",
        holds=reached(over / trials, DELTA, trials)
        and shipped / trials >= (0.85 if trials >= 2_000 else 0.7),
        n_trials=trials,
    )


def _apart(dev: Rows, sealed: Rows, d: float) -> float | None:
    plan = plan_slice("s", dev.scores, dev.wrong, alpha=BAR, weight=1.0, n_sealed=sealed.scores.size)
    last = walk(grid_counts(sealed.scores, sealed.wrong, plan.grid), BAR, d, plan.start)
    return None if last is None else plan.grid[last]


def budget(trials: int, seed: int) -> ProofRow:
    """Kept and wrong over all requests: no multiplicity is due, and 200 rows are enough to say something."""
    ours, naive = [], []
    for world in (CALIBRATED, OVERCONFIDENT, AT_THE_BAR):
        rng = np.random.default_rng([seed, 3, WORLDS.index(world)])
        grid = grid_of(draw(world, rng, 20_000).scores)
        true = {t: (at := truth(world).at(t)).error * at.keep for t in grid}
        for n in (200, 1_000):
            over = loose = 0
            for _ in range(trials):
                rows = draw(world, rng, n)
                done = certify_budget(rows.scores, rows.wrong, grid, budget=BUDGET, delta=DELTA)
                over += done.threshold is not None and true[done.threshold] > BUDGET
                fits = [
                    t
                    for t, (k, _) in zip(grid, grid_counts(rows.scores, rows.wrong, grid), strict=True)
                    if k <= BUDGET * n
                ]
                loose += bool(fits) and true[fits[-1]] > BUDGET
            ours.append(over)
            naive.append(loose / trials)
    return ProofRow(
        claim="budget: kept and wrong within 3 % of all requests, n = 200 and 1,000, 3 students, worst: truly over",
        naive=span(naive),
        reach="≤ 10 %",
        measured=counted(max(ours), trials),
        holds=reached(max(ours) / trials, DELTA, trials) and max(naive) > 0.3,
        n_trials=trials,
    )


def rows(trials: int, seed: int) -> list[ProofRow]:
    """All proofs about certified thresholds."""
    return [
        *thresholds(trials, seed),
        eight_slices(trials, seed),
        all_or_nothing(trials, seed),
        budget(trials, seed),
    ]


if __name__ == "__main__":
    alone(rows)
