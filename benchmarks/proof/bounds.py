"""What the rows must be for a bound to hold: independent, and labelled with the truth; and the primitives themselves."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import scipy.stats
from benchmarks.proof.rows import ProofRow, alone, counted, percent, reached
from benchmarks.proof.worlds import WORLDS, draw
from mapie.risk_control.fwer_control import FWERFixedSequenceTesting
from mapie.risk_control.methods import compute_hoeffding_bentkus_p_value

from overproof.measure.certify import grid_counts, grid_of, walk
from overproof.measure.intervals import cp_lower, cp_upper, gate_power, judge, p_pass
from overproof.measure.paired import noninferiority, superiority, tango_score
from overproof.measure.slices import one_per_session

LEVEL = 0.05
TOLERANCE = 1e-9


def sessions(trials: int, seed: int) -> ProofRow:
    """Sixty bursty sessions whose requests go wrong together."""
    rng = np.random.default_rng([seed, 60])
    error, icc, count = 0.04, 0.6, 60
    strength = 1.0 / icc - 1.0
    naive = ours = 0
    for trial in range(trials):
        sizes = 1 + rng.poisson(9, count)
        rates = rng.beta(error * strength, (1 - error) * strength, count)
        session = np.repeat(np.arange(count), sizes)
        wrong = rng.random(session.size) < rates[session]
        naive += cp_upper(int(wrong.sum()), wrong.size, LEVEL) < error
        keys, ids = [str(s) for s in session], [str(i) for i in range(session.size)]
        drawn = one_per_session(keys, ids, str(trial))
        ours += cp_upper(int(wrong[drawn].sum()), int(drawn.sum()), LEVEL) < error
    return ProofRow(
        claim="bursty sessions (60, mean 10 requests, correlation .6): the 95 % bound lies below the truth",
        naive=f"{percent(naive / trials)} over all requests",
        reach="≤ 5 %",
        measured=f"{counted(ours, trials)}, one request per session",
        holds=reached(ours / trials, LEVEL, trials) and naive / trials > 0.15,
        n_trials=trials,
    )


def teacher_labels(trials: int, seed: int, *, teacher_wrong: float, student_wrong: float) -> ProofRow:
    """The student copies 60 % of its teacher's errors, and no teacher label can show them."""
    rng = np.random.default_rng([seed, round(1000 * teacher_wrong)])
    copied, n = 0.6, 10_000
    shares = [
        teacher_wrong * copied,  # both wrong, agreeing: invisible
        teacher_wrong * (1 - copied) * student_wrong,  # wrong in its own way where the teacher is wrong too
        teacher_wrong * (1 - copied) * (1 - student_wrong),  # right where the teacher is wrong
        (1 - teacher_wrong) * student_wrong,
    ]
    truth = shares[0] + shares[1] + shares[3]
    cells = rng.multinomial(n, [*shares, 1 - sum(shares)], size=trials)
    differs = cells[:, 1] + cells[:, 2] + cells[:, 3]
    naive = sum(cp_upper(int(k), n, LEVEL) < truth for k in differs)
    bar = 0.90
    without = judge(0, 0, bar, LEVEL, metric="accuracy")  # no gold row: nothing is known about the truth
    needed = without.rows_needed or 0
    gold = rng.binomial(needed, truth, size=trials)
    ours = sum(cp_upper(int(k), needed, LEVEL) < truth for k in gold)
    return ProofRow(
        claim=f"bound on correctness from {n:,} teacher labels that are {100 * teacher_wrong:g} % wrong: below the truth",
        naive=percent(naive / trials),
        reach="≤ 5 % with gold rows; without them undecided, and it says how many",
        measured=f"{counted(ours, trials)} with gold; without: {without.verdict}, needs {needed:,} gold rows for a bar of 90 %",
        holds=without.verdict == "undecided"
        and needed > 0
        and reached(ours / trials, LEVEL, trials)
        and naive / trials > 0.3,
        n_trials=trials,
    )


def exact_tail(k: int, n: int, rate: Fraction) -> float:
    """P(Bin(n, rate) <= k) with integers, no special function."""
    return float(sum(math.comb(n, i) * rate**i * (1 - rate) ** (n - i) for i in range(k + 1)))


def brute_p(b: int, c: int, n: int, margin: float) -> float:
    """The non-inferiority p-value by listing every outcome."""
    seen = tango_score(b, c, n, margin)
    ordered = [
        (x, y) for x in range(n + 1) for y in range(n + 1 - x) if tango_score(x, y, n, margin) <= seen + 1e-12
    ]
    x, y = np.array(ordered).T
    low, high = cp_lower(c, n, 5e-5), min(cp_upper(c, n, 5e-5), (1 - margin) / 2)
    worst = 0.0
    for q in np.geomspace(min(max(low, 1e-7), high), high, 60):
        chance = scipy.stats.multinomial.pmf(
            np.stack([x, y, n - x - y], axis=1), n, [q + margin, q, max(0.0, 1 - 2 * q - margin)]
        )
        worst = max(worst, float(chance.sum()))
    return min(1.0, 1e-4 + 1e-12 + worst)


def primitives(trials: int, seed: int) -> ProofRow:
    """Random cells: SciPy's distributions, exact fractions, full enumeration, MAPIE."""
    rng = np.random.default_rng([seed, 9])
    gaps: list[float] = []
    for _ in range(trials):
        n = int(rng.integers(1, 400))
        k, d, alpha = (
            int(rng.integers(0, n + 1)),
            float(rng.uniform(1e-3, 0.5)),
            float(rng.uniform(0.005, 0.5)),
        )
        upper = 1.0 if k == n else float(scipy.stats.beta.ppf(1 - d, k + 1, n - k))
        lower = 0.0 if k == 0 else float(scipy.stats.beta.ppf(d, k, n - k + 1))
        gaps += [abs(cp_upper(k, n, d) - upper), abs(cp_lower(k, n, d) - lower)]
        gaps.append(abs(p_pass(k, n, alpha) - float(scipy.stats.binom.cdf(k, n, alpha))))
        b, c = int(rng.integers(0, 60)), int(rng.integers(1, 60))
        gaps.append(abs(superiority(b, c, d=0.05).p - scipy.stats.binomtest(c, b + c, 0.5, "greater").pvalue))
    for _ in range(max(10, trials // 40)):
        n = int(rng.integers(2, 60))
        k, rate = int(rng.integers(0, n)), Fraction(int(rng.integers(1, 100)), 200)
        gaps.append(abs(p_pass(k, n, float(rate)) - exact_tail(k, n, rate)))
        alpha, d = 0.2, 0.1
        power = sum(
            float(scipy.stats.binom.pmf(i, n, float(rate))) for i in range(n) if cp_upper(i, n, d) <= alpha
        )
        if all(abs(p_pass(i, n, alpha) - d) > TOLERANCE for i in range(n)):
            gaps.append(abs(gate_power(n, float(rate), alpha, d) - power))
    for _ in range(max(3, trials // 200)):
        n = int(rng.integers(10, 45))
        b, c = int(rng.integers(0, 5)), int(rng.integers(0, 5))
        gaps.append(abs(noninferiority(b, c, n, margin=0.05, d=0.1).p - brute_p(b, c, n, 0.05)))
    theirs, equal, walks = mapie_cells(max(5, trials // 20), seed)
    return ProofRow(
        claim="primitives equal SciPy's distributions, exact fractions, full enumeration, and MAPIE where it is exact",
        naive="–",
        reach="within 1e-9",
        measured=f"largest gap {max(gaps):.0e} in {len(gaps):,} comparisons; MAPIE's p-value equal in {percent(equal)} "
        f"of cells, larger in the others, never smaller (worst {theirs:.0e}); {walks:,} walks end at the same threshold",
        holds=max(gaps) <= TOLERANCE and theirs <= TOLERANCE and equal > 0.5,
        n_trials=trials,
    )


def mapie_cells(worlds: int, seed: int) -> tuple[float, float, int]:
    """By how much MAPIE's p-value is ever below ours, how often equal, and how many walks agree (all, or it raises)."""
    rng = np.random.default_rng([seed, 10])
    below, same, cells = 0.0, 0, 0
    for i in range(worlds):
        world, alpha, d = (
            WORLDS[i % len(WORLDS)],
            float(rng.uniform(0.02, 0.2)),
            float(rng.uniform(0.02, 0.2)),
        )
        rows = draw(world, rng, int(rng.integers(200, 1_500)))
        counts = [pair for pair in grid_counts(rows.scores, rows.wrong, grid_of(rows.scores)) if pair[1]]
        k, m = np.array(counts, dtype=float).T
        ours = np.array([p_pass(*pair, alpha) for pair in counts])
        mapie = compute_hoeffding_bentkus_p_value(k / m, m, alpha, binary=True)[:, 0]
        some = k < m
        below = max(below, float(np.max(ours[some] - mapie[some])))
        same += int((np.abs(ours - mapie)[some] <= TOLERANCE).sum())
        cells += int(some.sum())
        certified = FWERFixedSequenceTesting(n_starts=1).run(ours, d)
        last = walk(tuple(counts), alpha, d, 0)
        if (int(certified[-1]) if len(certified) else None) != last:
            raise AssertionError(f"MAPIE's fixed sequence ends at {certified}, ours at {last}")
    return below, same / cells, worlds


def rows(trials: int, seed: int) -> list[ProofRow]:
    """All proofs about rows, labels and primitives."""
    return [
        sessions(trials, seed),
        teacher_labels(trials, seed, teacher_wrong=0.05, student_wrong=0.045),
        teacher_labels(trials, seed, teacher_wrong=0.015, student_wrong=0.052),
        primitives(trials, seed),
    ]


if __name__ == "__main__":
    alone(rows)
