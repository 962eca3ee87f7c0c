"""
A critical slice of 3 % breaks while the average holds: is it named, and after how many audits of the slice?

Eight slices, 5,000 kept answers a day, the audit design of the defaults (25 a day for each slice, three times the rate for the
critical one). All are 3 % wrong for 40 days; then the slice is 10, 15 or 20 % wrong, which lifts the average to 3.5 % at most,
far below the bar of 5 %. Beside ours a monitor of the average alone, with all of the false-alarm chance to itself and the same
number of audits over all traffic. Exits with 1 where a claim fails.

    python -m benchmarks.watch.slice --data DATA [--runs 200]
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
from benchmarks.watch.recorded import (
    DAY_0,
    DELTA,
    PAGE_DAYS,
    SLICES,
    USUAL,
    Claim,
    Recorded,
    arguments,
    certificate,
    drawn,
    median,
    plan,
    project,
    recorded,
    share,
    stream,
    told,
)  # fmt: skip

from overproof.watch.monitors import read_stream, streams_of

KEPT, GOOD, AFTER, BOOST, WITHIN, FOUND = 5_000, 40, 60, 3.0, 300, 0.95
BROKEN, CLAIMED = (0.10, 0.15, 0.20), 0.15
END = date(2100, 1, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What one run showed."""

    audits: float
    """Audits of the slice from the break to the end of the day on which it was named; infinite where it never was."""
    off: float
    """Days by which the named first day misses the true one; NaN where it was never named."""
    others: bool
    """Whether another slice, or all traffic, got a life alarm."""
    average: bool
    """Whether a monitor of the average alone alarmed at any time after the break."""


def one_run(data: Recorded, rng: np.random.Generator, bad: float) -> Run:
    """One release."""
    kept = {name: round(KEPT * part) for name, part in SLICES.items()}
    design, boosts = data.design(), {"vip": BOOST}
    rates = {name: [USUAL] * GOOD + [bad if name == "vip" else USUAL] * AFTER for name in SLICES}
    days = {name: drawn(data, rng, rates[name], kept=n, design=design, boost=boosts.get(name, 1.0)) for name, n in kept.items()}
    plans = {one: plan(design, one, kept, boosts) for one in (DAY_0 + timedelta(days=i) for i in range(GOOD + AFTER))}
    streams = streams_of(PROJECT, certificate(), {(name, "disagreement"): [row for row, _ in rows] for name, rows in days.items()}, plans)
    read = {one.slice: read_stream(one, today=END, deadline_days=7, delta=DELTA, page_days=PAGE_DAYS) for one in streams}
    named = min((e for e in read["vip"].episodes if e.at >= GOOD), key=lambda e: e.at, default=None)
    audits = [row.audited for row, _ in days["vip"]]
    spent = sum(row.audited for rows in days.values() for row, _ in rows) / (KEPT * (GOOD + AFTER))
    whole = [sum(rates[name][i] * n for name, n in kept.items()) / KEPT for i in range(GOOD + AFTER)]
    average = read_stream(stream(drawn(data, rng, whole, kept=KEPT, design=None, even=spent)), today=END, deadline_days=7, delta=DELTA, page_days=PAGE_DAYS)
    return Run(
        audits=math.inf if named is None else sum(audits[GOOD : named.at + 1]), off=math.nan if named is None else abs(named.since - GOOD),
        others=any(e.kind == "life" for name, one in read.items() if name != "vip" for e in one.episodes), average=bool(average.episodes),
    )  # fmt: skip


def main() -> int:
    """Run, print the table, and say by the exit code whether the claims hold."""
    args = arguments(__doc__, 200)
    data, n = recorded(args), args.runs
    claims = []
    for bad in BROKEN:
        runs = [one_run(data, np.random.default_rng([args.seed, int(100 * bad), i]), bad) for i in range(n)]
        in_time, others, average = (sum(map(test, runs)) for test in (lambda r: r.audits <= WITHIN, lambda r: r.others, lambda r: r.average))
        claimed = bad >= CLAIMED
        off = np.array([one.off for one in runs])
        text = f"slice breaks to {bad:.0%}"
        claims += [
            Claim(text=f"{text}: named within {WITHIN} of its audits", n=n, found=share(in_time, n), reach=f">= {FOUND:.0%}" if claimed else "-",
                  holds=in_time >= FOUND * n if claimed else None),
            Claim(text=f"{text}: its audits until it is named, median", n=n, found=median([one.audits for one in runs])),
            Claim(text=f"{text}: the named first day is at most 3 days off", n=int(np.isfinite(off).sum()), found=share(int((off <= 3).sum()), max(1, int(np.isfinite(off).sum())))),
            Claim(text=f"{text}: a life alarm for anything else", n=n, found=share(others, n), reach=f"<= {DELTA:.1%}", holds=others <= DELTA * n),
            Claim(text=f"{text}: seen within {AFTER} days by a monitor of the average alone", n=n, found=share(average, n)),
        ]  # fmt: skip
    return told("A slice of 3 % breaks while the average holds", data, args, claims)


PROJECT = project()

if __name__ == "__main__":
    sys.exit(main())
