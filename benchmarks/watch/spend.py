"""
What the same power on a rare slice costs: audits a day over all traffic, planned by slice or drawn alike from everything.

Eight slices, 5,000 kept answers a day; a slice of 3 % goes from 3 % to 15 % wrong after 30 good days. Power is the share of runs in
which it is named within 14 days. Both sides are read by the same monitors with the same share of the false-alarm chance; only the
draw differs. For each side a ladder of spends is simulated and the one with 90 % power read off between two rungs. "By slice" is
the product's plan: 1 % of all answers and a number a day for each slice, without and with the threefold rate of critical slices.
Exits with 1 where a claim fails.

    python -m benchmarks.watch.spend --data DATA [--runs 300]
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Sequence
from datetime import date

import numpy as np
from benchmarks.watch.recorded import (
    DELTA,
    PAGE_DAYS,
    SLICES,
    USUAL,
    Claim,
    Recorded,
    Seen,
    arguments,
    drawn,
    recorded,
    stream,
    told,
)

from overproof.measure.monitor import audit_probability
from overproof.watch.monitors import read_stream

KEPT, GOOD, WITHIN, BAD, POWER, WEIGHT = 5_000, 30, 14, 0.15, 0.9, 1 / 9
RARE = round(KEPT * SLICES["vip"])
FLOORS = (2, 4, 6, 8, 10, 13, 16, 20, 25, 32)
EVEN = (0.03, 0.05, 0.07, 0.09, 0.11, 0.13, 0.16, 0.2, 0.25)
Drawing = Callable[[np.random.Generator], list[Seen]]


def power(draw: Drawing, runs: int, seed: Sequence[int]) -> float:
    """Share of runs in which the slice is named in time."""
    found = 0
    for i in range(runs):
        read = read_stream(stream(draw(np.random.default_rng([*seed, i])), weight=WEIGHT), today=date(2100, 1, 1), deadline_days=7, delta=DELTA, page_days=PAGE_DAYS)
        found += any(GOOD <= one.at < GOOD + WITHIN for one in read.episodes)
    return found / runs


def by_slice(data: Recorded, floor: int, boost: float) -> tuple[float, Drawing]:
    """Audits a day over all slices, and the days of the rare one."""
    design = data.design(floor_per_day=floor)
    spend = 0.0
    for name, part in SLICES.items():
        kept = round(KEPT * part)
        pi = [audit_probability(sure, kept_per_day=kept, design=design, boost=boost if name == "vip" else 1.0) for sure in (0.0, 1.0)]
        spend += kept * (data.low_share * pi[0] + (1 - data.low_share) * pi[1])
    return spend, lambda rng: drawn(data, rng, [USUAL] * GOOD + [BAD] * WITHIN, kept=RARE, design=design, boost=boost)


def alike(data: Recorded, even: float) -> tuple[float, Drawing]:
    """The same, every answer with one probability."""
    return KEPT * even, lambda rng: drawn(data, rng, [USUAL] * GOOD + [BAD] * WITHIN, kept=RARE, design=None, even=even)


def needed(rungs: list[tuple[float, float]]) -> float:
    """The spend at which the power is reached, between the rungs; infinite where none reaches it."""
    for (below, weak), (above, strong) in itertools.pairwise(rungs):
        if weak < POWER <= strong:
            return below + (above - below) * (POWER - weak) / (strong - weak)
    return rungs[0][0] if rungs[0][1] >= POWER else float("inf")


def main() -> int:
    """Run, print the table, and say by the exit code whether the claims hold."""
    args = arguments(__doc__, 300)
    data = recorded(args)
    sides = {
        "drawn alike": [alike(data, one) for one in EVEN],
        "by slice": [by_slice(data, one, 1.0) for one in FLOORS],
        "by slice, critical ones three times as often": [by_slice(data, one, 3.0) for one in FLOORS],
    }
    found = {}
    for at, (name, ladder) in enumerate(sides.items()):
        rungs: list[tuple[float, float]] = []
        for step, (spend, draw) in enumerate(ladder):
            rungs.append((spend, power(draw, args.runs, [args.seed, at, step])))
            if rungs[-1][1] >= POWER:
                break
        found[name] = needed(rungs)
        print(f"{name}: " + ", ".join(f"{spend:.0f} a day {chance:.0%}" for spend, chance in rungs), file=sys.stderr)
    most = found["drawn alike"]
    claims = [Claim(text="audits a day, drawn alike from all traffic", n=args.runs, found=f"{most:.0f}")]
    for name, spend in found.items():
        if name != "drawn alike":
            holds = bool(np.isfinite(spend)) and spend <= most / 3
            claims.append(Claim(text=f"audits a day, {name}", n=args.runs, found=f"{spend:.0f}: {spend / most:.2f} of it", reach="<= 0.33", holds=holds))
    return told(f"Audits a day for {POWER:.0%} power on a slice of 3 % within {WITHIN} days", data, args, claims)


if __name__ == "__main__":
    sys.exit(main())
