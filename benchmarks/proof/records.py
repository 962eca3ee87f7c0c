"""Figures of records and of judged texts: what an interval must count, and what a judge's own word is worth."""

from __future__ import annotations

import numpy as np
from benchmarks.proof.rows import ProofRow, alone, counted, percent, reached

from overproof.measure.intervals import cp_interval
from overproof.measure.records import ratio_interval
from overproof.measure.text_judge import judged_share

LEVEL = 0.05
BIG = 400_000


def documents(rng, n, *, fields, good, spoilt=0.12):
    """Hits, and values given or wanted halved, of n records; in a spoilt one (another layout) most fields go wrong together."""
    chance = np.where(rng.random((n, 1)) < spoilt, 0.15, good)
    want, right = rng.random((n, fields)) < 0.8, rng.random((n, fields)) < chance
    give = np.where(right, want, rng.random((n, fields)) < 0.6)
    return (want & give & right).sum(1), (want.sum(1) + give.sum(1)) / 2


def few_documents(trials: int, seed: int) -> ProofRow:
    """Thirty documents of a student that is nearly always right: the resamples have not seen its errors."""
    rng = np.random.default_rng([seed, 30])
    n, world = 30, {"fields": 5, "good": 0.995, "spoilt": 0.02}
    part, whole = documents(rng, BIG, **world)
    truth = part.sum() / whole.sum()
    naive = ours = 0
    for trial in range(trials):
        part, whole = documents(rng, n, **world)
        pick = rng.integers(0, n, (400, n))
        ends = np.quantile(part[pick].sum(1) / whole[pick].sum(1), [LEVEL / 2, 1 - LEVEL / 2])
        naive += not ends[0] <= truth <= ends[1]
        found = ratio_interval(part / 5, whole / 5, level=1 - LEVEL, draws=8, seed=trial)
        ours += not found.low <= truth <= found.high
    return ProofRow(
        claim="field F1 from 30 documents, five fields, 2 % of documents spoilt: the 95 % interval misses the truth",
        naive=f"{percent(naive / trials)} by the bootstrap over documents", reach="≤ 5 %", measured=f"{counted(ours, trials)}, betting over documents",
        holds=reached(ours / trials, LEVEL, trials) and naive / trials > 0.10, n_trials=trials,
    )  # fmt: skip


def together(trials: int, seed: int) -> ProofRow:
    """Two hundred documents whose fields fail together, counted value by value."""
    rng = np.random.default_rng([seed, 200])
    n, world = 200, {"fields": 8, "good": 0.98}
    part, whole = documents(rng, BIG, **world)
    truth = part.sum() / whole.sum()
    naive = ours = 0
    for trial in range(trials):
        part, whole = documents(rng, n, **world)
        ends = cp_interval(int(part.sum()), max(int(part.sum()), round(whole.sum())), level=1 - LEVEL)
        naive += not ends.low <= truth <= ends.high
        found = ratio_interval(part / 8, whole / 8, level=1 - LEVEL, draws=8, seed=trial)
        ours += not found.low <= truth <= found.high
    return ProofRow(
        claim="micro field F1 from 200 documents, eight fields that fail together: the 95 % interval misses the truth",
        naive=f"{percent(naive / trials)} by counting values as independent", reach="≤ 5 %", measured=f"{counted(ours, trials)}, betting over documents",
        holds=reached(ours / trials, LEVEL, trials) and naive / trials > 0.15, n_trials=trials,
    )  # fmt: skip


def judged_texts(trials: int, seed: int) -> ProofRow:
    """A judge that catches 85 % and spares 90 %, on 600 answers of which 150 were read by people."""
    rng = np.random.default_rng([seed, 600])
    share, n, people = 0.8, 600, 150
    naive = ours = silent = 0
    for _ in range(trials):
        truth = rng.random(n) < share
        said = np.where(truth, rng.random(n) < 0.9, rng.random(n) >= 0.85).tolist()
        found = judged_share(said, [bool(t) if at < people else None for at, t in enumerate(truth)], level=1 - LEVEL)
        naive += not found.seen.low <= share <= found.seen.high
        silent += not found.calibrated
        ours += found.calibrated and not found.low <= share <= found.high
    return ProofRow(
        claim="share of right texts by a judge (catches 85 %, spares 90 %; 600 judged, 150 by people): the 95 % interval misses the truth",
        naive=f"{percent(naive / trials)} by the judge's word", reach="≤ 5 %",
        measured=f"{counted(ours, trials)}, moved by people's words; not calibrated in {silent}",
        holds=reached(ours / trials, LEVEL, trials) and naive / trials > 0.50 and silent < trials / 10, n_trials=trials,
    )  # fmt: skip


def rows(trials: int, seed: int) -> list[ProofRow]:
    """Every claim of this file."""
    return [part(trials, seed) for part in (few_documents, together, judged_texts)]


if __name__ == "__main__":
    alone(rows)
