"""Student against teacher on the same rows: how often does a student that is worse by the whole margin pass?"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from benchmarks.proof.rows import ProofRow, alone, counted, percent, reached

from overproof.measure.paired import noninferiority, superiority

MARGIN, LEVEL = 0.01, 0.10
Z = 1.2815515655446004  # the normal quantile of 90 %


@cache
def ours_passes(b: int, c: int, n: int) -> bool:
    """Our exact test."""
    return noninferiority(b, c, n, margin=MARGIN, d=LEVEL).verdict == "pass"


def wald_passes(b: int, c: int, n: int) -> bool:
    """The textbook interval: difference plus z times its standard error."""
    difference = (b - c) / n
    return difference + Z * math.sqrt(max(0.0, (b + c) / n - difference**2) / n) <= MARGIN


def at_the_margin(trials: int, seed: int, *, n: int, rate_c: float) -> ProofRow:
    """Worse by exactly the margin: each pass is a false one."""
    rng = np.random.default_rng([seed, n, round(1e5 * rate_c)])
    pairs = rng.multinomial(n, [rate_c + MARGIN, rate_c, 1 - 2 * rate_c - MARGIN], size=trials)[
        :, :2
    ].tolist()
    ours = sum(ours_passes(b, c, n) for b, c in pairs)
    naive = sum(wald_passes(b, c, n) for b, c in pairs)
    small = n == 100 and rate_c < 0.005
    return ProofRow(
        claim=f"non-inferiority, worse by the whole margin of 1 point, n = {n:,}, P(c) = {rate_c:.1%}: passes".replace(
            "%", " %"
        ),
        naive=f"{percent(naive / trials)} (paired Wald)",
        reach="≤ 10.5 %",
        measured=counted(ours, trials),
        holds=reached(ours / trials, 0.105, trials) and (naive / trials > 0.2 or not small),
        n_trials=trials,
    )


def baseline(trials: int, seed: int) -> ProofRow:
    """A student exactly as good as the do-nothing baseline, 60 discordant rows on average."""
    rng = np.random.default_rng([seed, 77])
    n, level = 600, 0.05
    pairs = rng.multinomial(n, [0.05, 0.05, 0.9], size=trials)[:, :2].tolist()
    ours = sum(superiority(b, c, d=level, n=n).verdict == "pass" for b, c in pairs)
    naive = sum(c > b for b, c in pairs)
    return ProofRow(
        claim="student no better than the best do-nothing baseline: called better",
        naive=f"{percent(naive / trials)} by the higher observed score",
        reach="≤ 5 %",
        measured=counted(ours, trials),
        holds=reached(ours / trials, level, trials) and naive / trials > 0.3,
        n_trials=trials,
    )


def chosen(trials: int, seed: int, *, n: int) -> ProofRow:
    """
    A threshold picked because the served system passes there: tested on the rows that picked it, and on fresh ones.

    The student's own errors are confident ones, so the served system is worse than the teacher by more than the margin at
    every threshold; below that it errs as often as the teacher, on other rows. The loosest threshold that passes is
    taken, as anyone would, or else the strictest: every pass is a false one.
    """
    rng = np.random.default_rng([seed, n])
    keeps, c, worse = np.linspace(0.2, 1.0, 15), 0.02, 1.1 * MARGIN
    same = fresh = 0
    for _ in range(trials):
        # where in the order of confidence the discordant rows stand
        b_at = np.r_[rng.random(rng.binomial(n, c)), keeps[0] * rng.random(rng.binomial(n, worse))]
        c_at = rng.random(rng.binomial(n, c))
        passing = [k for k in keeps if ours_passes(int((b_at < k).sum()), int((c_at < k).sum()), n)]
        keep = max(passing, default=keeps[0])
        same += bool(passing)
        b, other, _ = rng.multinomial(n, [worse + c * keep, c * keep, 1 - 2 * c * keep - worse])
        fresh += ours_passes(int(b), int(other), n)
    return ProofRow(
        claim=f"a threshold chosen among 15 for being not worse by 1 point, truly worse by 1.1 at each, n = {n:,}: passes",
        naive=f"{percent(same / trials)} on the rows that chose it",
        reach="≤ 10 % on fresh rows",
        measured=counted(fresh, trials),
        holds=reached(fresh / trials, LEVEL, trials) and same / trials > 0.13,
        n_trials=trials,
    )


def rows(trials: int, seed: int) -> list[ProofRow]:
    """All paired proofs."""
    return [
        at_the_margin(trials, seed, n=100, rate_c=0.002),
        at_the_margin(trials, seed, n=300, rate_c=0.01),
        at_the_margin(trials, seed, n=1_000, rate_c=0.01),
        chosen(trials, seed, n=1_000),
        baseline(trials, seed),
    ]


if __name__ == "__main__":
    alone(rows)
