"""
Error exactly at the bar, 5,000 audits: how often does a monitor cry wolf?

Ours: the life alarm with a look after each audit; the same as the product reads it, once a day with unequal audits; nine streams
(eight slices and all traffic) that share the chance; and pages a year. Beside them what is commonly built: an exact test at 5 %
repeated after each audit, and a rolling window of 350 with such a test. Exits with 1 where a claim fails.

    python -m benchmarks.watch.false_alarms --data DATA [--runs 1000]
"""

from __future__ import annotations

import sys
from datetime import date, timedelta

import numpy as np
from benchmarks.watch.recorded import (
    BAR,
    DAY_0,
    DELTA,
    PAGE_DAYS,
    SLICES,
    Claim,
    Recorded,
    arguments,
    certificate,
    drawn,
    plan,
    project,
    recorded,
    share,
    stream,
    told,
)  # fmt: skip
from scipy.special import bdtrc

from overproof.measure.audited import Counted, Draw, day_gain
from overproof.measure.monitor import AuditDay, alarm_level, fold_days
from overproof.watch.monitors import PAGE_SHARE, Watched, read_stream, streams_of

AUDITS, WINDOW, LEAST, KEPT, DAYS = 5_000, 350, 30, 5_000, 100
END = date(2100, 1, 1)
BLOCK = 100


def every_look(runs: int, rng: np.random.Generator) -> dict[str, int]:
    """Runs with an alarm, a look after each audit."""
    one = [AuditDay(day=DAY_0, requests=1, audited=1, unlabelled=0, wrong_by_pi=counts) for counts in ((), ((1.0, 1),))]
    right, wrong = (day_gain(Counted(row=row, draw=Draw(low=1.0, high=1.0)), BAR) for row in one)
    n, found = np.arange(1, AUDITS + 1), {"ours": 0, "exact": 0, "rolling": 0}
    for start in range(0, runs, BLOCK):
        bad = rng.random((min(BLOCK, runs - start), AUDITS)) < BAR
        k = bad.cumsum(axis=1)
        found["ours"] += int((fold_days(np.where(bad[..., None], wrong, right), "life") >= alarm_level(DELTA)).any(axis=1).sum())
        found["exact"] += int(((k > 0) & (_tail(k, n) <= DELTA))[:, LEAST:].any(axis=1).sum())
        inside = k[:, WINDOW:] - k[:, :-WINDOW]
        found["rolling"] += int(((inside > 0) & (_tail(inside, WINDOW) <= DELTA)).any(axis=1).sum())
    return found


def _tail(k: np.ndarray, n: np.ndarray | int) -> np.ndarray:
    """Chance of so many wrong ones or more at the bar."""
    return np.asarray(bdtrc(np.maximum(k - 1, 0), n, BAR))


def alone(data: Recorded, rng: np.random.Generator, *, life: bool = True) -> Watched:
    """One stream, 100 days of about 50 audits, as the product draws and reads them."""
    days = drawn(data, rng, [BAR] * DAYS, kept=KEPT, design=data.design())
    return read_stream(stream(days), today=END, deadline_days=7, delta=DELTA if life else 1e-300, page_days=PAGE_DAYS)


def together(data: Recorded, rng: np.random.Generator) -> bool:
    """Whether any of nine streams raises a life alarm, every slice at the bar."""
    kept = {name: round(KEPT * part) for name, part in SLICES.items()}
    days = {name: drawn(data, rng, [BAR] * DAYS, kept=n, design=data.design()) for name, n in kept.items()}
    plans = {one: plan(data.design(), one, kept, {}) for one in (DAY_0 + timedelta(days=i) for i in range(DAYS))}
    streams = streams_of(PROJECT, certificate(), {(name, "disagreement"): [row for row, _ in rows] for name, rows in days.items()}, plans)
    read = [read_stream(one, today=END, deadline_days=7, delta=DELTA, page_days=PAGE_DAYS) for one in streams]
    return any(episode.kind == "life" for one in read for episode in one.episodes)


def main() -> int:
    """Run, print the table, and say by the exit code whether the claims hold."""
    args = arguments(__doc__, 1000)
    data, n = recorded(args), args.runs
    few = max(20, n // 5)
    looks = every_look(n, np.random.default_rng([args.seed, 0]))
    daily = sum(any(e.kind == "life" for e in alone(data, np.random.default_rng([args.seed, 1, i])).episodes) for i in range(n))
    shared = sum(together(data, np.random.default_rng([args.seed, 2, i])) for i in range(few))
    pages = sum(len(alone(data, np.random.default_rng([args.seed, 3, i]), life=False).episodes) for i in range(n))
    a_year = 365.0 * pages / (n * DAYS)
    most = 365.0 / PAGE_DAYS * PAGE_SHARE
    reach = f"<= {DELTA:.1%}"
    claims = [
        Claim(text="life alarm, a look after each audit", n=n, found=share(looks["ours"], n), reach=reach, holds=looks["ours"] <= DELTA * n),
        Claim(text="life alarm, read daily, unsure answers audited more often", n=n, found=share(daily, n), reach=reach, holds=daily <= DELTA * n),
        Claim(text="any life alarm of nine streams, 100 days", n=few, found=share(shared, few), reach=reach, holds=shared <= DELTA * few),
        Claim(text="pages a year, 100 days from the first one on", n=n, found=f"{pages} pages: {a_year:.2f} a year", reach=f"<= {most:.2f}", holds=a_year <= most),
        Claim(text="exact test at 5 %, repeated after each audit", n=n, found=share(looks["exact"], n)),
        Claim(text="rolling window of 350, exact test at 5 % after each audit", n=n, found=share(looks["rolling"], n)),
    ]  # fmt: skip
    return told("False alarms over 5,000 audits, error at the bar", data, args, claims)


PROJECT = project()

if __name__ == "__main__":
    sys.exit(main())
