"""
A good release goes from 3 % wrong to 10 % where 5 % is allowed: audits until the alarm.

A release of 90 days that is good for `GOOD` days. 5,000 kept answers a day, 1 % audited, read once a day as the product does. Ours
twice: with the audit design of the defaults (unsure answers more often) and with one probability for all. Beside it what is
commonly built: the share of wrong answers in the last 350 audits, an exact test at 5 % after each day; it promises nothing, and
the other script counts how often it cries wolf. Exits with 1 where a claim fails.

    python -m benchmarks.watch.delay --data DATA [--runs 400]
"""

from __future__ import annotations

import math
import sys
from datetime import date

import numpy as np
from benchmarks.watch.recorded import (
    BAR,
    DELTA,
    PAGE_DAYS,
    USUAL,
    Claim,
    Recorded,
    Seen,
    arguments,
    drawn,
    median,
    recorded,
    share,
    stream,
    told,
)
from scipy.special import bdtrc

from overproof.watch.monitors import read_stream

KEPT, GOOD, AFTER, BAD, WINDOW = 5_000, 45, 120, 0.10, 350
MEDIAN = 350


def delays(days: list[Seen]) -> dict[str, float]:
    """Audits from the break to the end of the day of each alarm; infinite without one, NaN where it came before the break."""
    audits = np.array([row.audited for row, _ in days])
    wrong = np.array([row.wrong for row, _ in days])
    first: dict[str, int | None] = {}
    for name, delta in (("both", DELTA), ("page", 1e-300)):  # a life alarm ends the pages: without one they are seen alone
        found = read_stream(stream(days), today=date(2100, 1, 1), deadline_days=7, delta=delta, page_days=PAGE_DAYS).episodes
        first[name] = min((one.at for one in found if one.last >= GOOD), default=None)
        first["life"] = first.get("life", next((one.at for one in found if one.kind == "life"), None))
    first["rolling window"] = rolling(wrong, audits)
    return {name: math.inf if at is None else math.nan if at < GOOD else float(audits[GOOD : at + 1].sum()) for name, at in first.items()}


def rolling(wrong: np.ndarray, audits: np.ndarray) -> int | None:
    """The first day from the break on with too many wrong ones among the last 350 audits, whole days."""
    for at in range(GOOD, len(wrong)):
        back = at
        while back > 0 and audits[back : at + 1].sum() < WINDOW:
            back -= 1
        k, n = int(wrong[back : at + 1].sum()), int(audits[back : at + 1].sum())
        if k and bdtrc(k - 1, n, BAR) <= 0.05:
            return at
    return None


def main() -> int:
    """Run, print the table, and say by the exit code whether the claims hold."""
    args = arguments(__doc__, 400)
    data = recorded(args)
    claims = []
    for label, even, anywhere in (("unsure answers audited more often", False, False), ("the same, faults anywhere", False, True), ("all audited alike", True, False)):
        runs = [delays(one_run(data, np.random.default_rng([args.seed, i]), even=even, anywhere=anywhere)) for i in range(args.runs)]
        for name in ("both", "page", "life"):
            values = [run[name] for run in runs if not math.isnan(run[name])]
            claimed = name == "both" and not anywhere
            claims.append(Claim(text=f"{name}; {label}", n=len(values), found=median(values), reach=f"<= {MEDIAN}" if claimed else "-",
                                holds=float(np.median(values)) <= MEDIAN if claimed else None))  # fmt: skip
        early = sum(math.isnan(run["life"]) for run in runs)
        claims.append(Claim(text=f"life alarm before the break; {label}", n=args.runs, found=share(early, args.runs), reach="<= 5.0%", holds=early <= DELTA * args.runs))
        if even:
            values = [run["rolling window"] for run in runs]
            claims.append(Claim(text="rolling window of 350, no guarantee; all audited alike", n=args.runs, found=median(values)))
    return told(f"3 % to 10 % after {GOOD} good days: audits to the alarm, median", data, args, claims)


def one_run(data: Recorded, rng: np.random.Generator, *, even: bool, anywhere: bool) -> list[Seen]:
    """The days of one release."""
    return drawn(data, rng, [USUAL] * GOOD + [BAD] * AFTER, kept=KEPT, design=None if even else data.design(), even=0.01, anywhere=anywhere)


if __name__ == "__main__":
    sys.exit(main())
