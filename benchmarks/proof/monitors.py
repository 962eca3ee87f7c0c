"""Audit monitors against usual practice, simulated: python -m benchmarks.proof.monitors --trials 2000."""

from __future__ import annotations

import math
from datetime import date, timedelta
from functools import cache

import numpy as np
from benchmarks.proof.rows import ProofRow, alone, counted, percent, reached
from scipy.special import bdtrc, logsumexp

from overproof.measure import intervals
from overproof.measure import monitor as mo

BAR, LEVEL, AUDITS = 0.05, 0.05, 5000
A_DAY, WINDOW, BLOCK = 200, 350, 100
DAY_0 = date(2025, 3, 1)
KEPT = np.array([180_000, 20_000])  # high and low confidence, as in the worlds of the spec
PI = np.array([0.006, 0.046])


@cache
def mixture_edge() -> np.ndarray:
    """At each number of audits, the fewest wrong ones at which the monitor alarms."""
    n, k = np.arange(1, AUDITS + 1)[:, None], np.arange(450)
    found = np.empty(AUDITS, dtype=np.int64)
    wrong, right = mo.increment(1, 1, BAR), mo.increment(0, 1, BAR)
    for start in range(0, AUDITS, 250):
        state = k[None, :, None] * wrong + (n[start : start + 250] - k)[..., None] * right
        found[start : start + 250] = (logsumexp(state, axis=2) - math.log(12) >= mo.alarm_level(LEVEL)).argmax(axis=1)
    return found


@cache
def exact_edge() -> np.ndarray:
    """The same for the exact one-sided test that was made to be read once."""
    n, k = np.arange(1, AUDITS + 1)[:, None], np.arange(450)
    tail = np.where(k > n, 0.0, np.where(k == 0, 1.0, bdtrc(np.maximum(k - 1, 0), n, BAR)))
    return (tail <= LEVEL).argmax(axis=1)


def peeking(trials: int, rng: np.random.Generator) -> ProofRow:
    """Error exactly at the bar, a look after each of 5,000 audits."""
    n = np.arange(1, AUDITS + 1)
    ours, exact = mixture_edge(), exact_edge()
    alarms = {name: np.zeros(trials, dtype=bool) for name in ("exact", "z", "rolling", "ours", "life")}
    for start in range(0, trials, BLOCK):
        wrong = rng.random((min(BLOCK, trials - start), AUDITS)) < BAR
        k, at = wrong.cumsum(axis=1), slice(start, start + len(wrong))
        alarms["ours"][at] = (k >= ours).any(axis=1)
        alarms["exact"][at] = (k >= exact).any(axis=1)
        z = (k / n - BAR) / np.sqrt(BAR * (1 - BAR) / n)
        alarms["z"][at] = (z[:, 29:] > 1.645).any(axis=1)
        inside = k[:, WINDOW - 1 :] - np.pad(k, ((0, 0), (1, 0)))[:, : AUDITS - WINDOW + 1]
        daily = inside[:, ::A_DAY]
        alarms["rolling"][at] = (bdtrc(daily - 1, WINDOW, BAR) <= LEVEL).any(axis=1)
        by_day = wrong.reshape(len(wrong), -1, A_DAY).sum(axis=2)
        alarms["life"][at] = (
            mo.fold_days(mo.increment(by_day, A_DAY, BAR), "restart") >= mo.alarm_level(LEVEL)
        ).any(axis=1)
    worst = max(alarms["ours"].mean(), alarms["life"].mean())
    return ProofRow(
        claim="false alarms of the audit monitor, a look after each of 5,000 audits, error at the bar",
        naive=f"exact test {percent(alarms['exact'].mean())}, z {percent(alarms['z'].mean())}, "
        f"rolling window {percent(alarms['rolling'].mean())}",
        reach="≤ 5 %",
        measured=f"{counted(int(alarms['ours'].sum()), trials)}; life alarm read daily {percent(alarms['life'].mean())}",
        holds=bool(reached(worst, LEVEL, trials) and min(alarms[x].mean() for x in ("exact", "z", "rolling")) > 0.2),
        n_trials=trials,
    )


def wrong_first(trials: int, rng: np.random.Generator) -> ProofRow:
    """Wrong answers are labelled on their day, right ones up to five days later; error at the bar."""
    days = AUDITS // A_DAY
    by_day = rng.binomial(A_DAY, BAR, size=(trials, days))
    late = rng.integers(1, 6, size=(trials, days))
    before = by_day.cumsum(axis=1) - by_day
    # As labels come: the look after a day's wrong answers, all right ones of earlier days being in.
    k, n = before + by_day, np.arange(days) * A_DAY + by_day
    naive = (n > 0) & (k >= mixture_edge()[np.maximum(n, 1) - 1])
    # By whole days: `settled` lets a day in when its last label is there.
    ours, early = np.zeros(trials, dtype=bool), 0
    for run in range(trials):
        now, after = None, None
        for evening in range(1, days + 8):
            rows = [
                mo.AuditDay(
                    day=DAY_0 + timedelta(days=d), requests=A_DAY, audited=A_DAY,
                    unlabelled=int(A_DAY - by_day[run, d]) if evening <= d + late[run, d] else 0,
                    wrong_by_pi=((1.0, int(by_day[run, d])),),
                )
                for d in range(max(0, evening - 9), min(days, evening))
            ]
            for row in mo.settled(rows, today=DAY_0 + timedelta(days=evening), after=after).ready:
                early += row.unlabelled
                now, after = mo.fold_mixture(now, mo.increment(row.wrong, row.audited, BAR)), row.day
                ours[run] |= now.log_e >= mo.alarm_level(LEVEL)
        assert now is not None
        assert now.day == days
    return ProofRow(
        claim="false alarms when the wrong labels of a day arrive first, error at the bar",
        naive=f"the same monitor without the closed-days rule {percent(naive.any(axis=1).mean())}",
        reach="≤ 5 %",
        measured=counted(int(ours.sum()), ours.size),
        holds=bool(reached(ours.mean(), LEVEL, trials) and naive.any(axis=1).mean() > 0.9 and not early),
        n_trials=trials,
    )


def weighted(trials: int, rng: np.random.Generator) -> list[ProofRow]:
    """About 2,000 of 200,000 requests are audited, more often at low confidence; read on 20 days."""
    days = 20

    def run(rates: tuple[float, float], low: float | None) -> np.ndarray:
        wrong = rng.binomial(KEPT // days, PI * np.array(rates), size=(trials, days, 2))
        bet = mo.bets(BAR, pi_min=0.005) if low is None else np.geomspace(low, 0.98 / BAR, 12)
        quiet = (KEPT.sum() // days - wrong.sum(axis=2))[..., None] * np.log1p(-bet * BAR)
        gains = quiet + sum(wrong[..., i, None] * np.log1p(bet * (1 / PI[i] - BAR)) for i in range(2))
        return (mo.fold_days(gains, "mixture") >= mo.alarm_level(LEVEL)).any(axis=1)

    audited = rng.binomial(KEPT // days, PI, size=(trials, days, 2))
    seen = rng.binomial(audited, [0.02, 0.32]).sum(axis=2)
    plain = mo.fold_days(mo.increment(seen, audited.sum(axis=2), BAR), "mixture") >= mo.alarm_level(LEVEL)
    ours, found, missed = run((0.02, 0.32), None), run((0.0722, 0.25), None), run((0.0722, 0.25), 0.02 / BAR)
    return [
        ProofRow(
            claim="false alarms when low-confidence answers are audited more often, error at the bar",
            naive=f"unweighted {percent(plain.any(axis=1).mean())}",
            reach="≤ 5 %",
            measured=counted(int(ours.sum()), ours.size),
            holds=bool(reached(ours.mean(), LEVEL, trials) and plain.any(axis=1).mean() > 0.5),
            n_trials=trials,
        ),
        ProofRow(
            claim="found within 2,000 weighted audits: high-confidence answers broke, error 9 % where 5 % is allowed",
            naive=f"lowest bet of a plain monitor {percent(missed.mean())}",
            reach="≥ 90 %",
            measured=counted(int(found.sum()), found.size),
            holds=bool(found.mean() >= 0.9 and missed.mean() < 0.2),
            n_trials=trials,
        ),
    ]


def canary(trials: int, rng: np.random.Generator) -> ProofRow:
    """A tenth of 20,000 requests to the student, both arms fail 3 %, a look every 200 requests."""
    unit = [mo.canary_increment(*seen, 1, share=0.1) for seen in ((1, 0), (0, 1), (0, 0))]
    n_a = rng.binomial(200, 0.1, size=(trials, 100))
    a, b = rng.binomial(n_a, 0.03), rng.binomial(200 - n_a, 0.03)
    gains = a[..., None] * unit[0] + b[..., None] * unit[1] + (200 - a - b)[..., None] * unit[2]
    ours = (mo.fold_days(gains, "mixture") >= mo.alarm_level(LEVEL)).any(axis=1)
    a, b, n_a = a.cumsum(axis=1), b.cumsum(axis=1), n_a.cumsum(axis=1)
    n_b = 200 * np.arange(1, 101) - n_a
    pooled = (a + b) / (n_a + n_b)
    spread = np.sqrt(np.maximum(pooled * (1 - pooled) * (1 / np.maximum(n_a, 1) + 1 / n_b), 1e-12))
    z = ((a / np.maximum(n_a, 1) - b / n_b) / spread > 1.645).any(axis=1)
    return ProofRow(
        claim="false alarms of the canary comparison, equal failure rates, 100 looks",
        naive=f"z-test {percent(z.mean())}",
        reach="≤ 5 %",
        measured=counted(int(ours.sum()), ours.size),
        holds=bool(reached(ours.mean(), LEVEL, trials) and z.mean() > 0.2),
        n_trials=trials,
    )


def delay(trials: int, rng: np.random.Generator) -> ProofRow:
    """Good at 3 % for 6,000 audits, then 10 %; 50 audits a day, read daily."""
    a_day, good = 50, 120
    wrong = rng.binomial(a_day, np.r_[np.full(good, 0.03), np.full(120, 0.1)], size=(trials, good + 120))
    gains = mo.increment(wrong, a_day, BAR)

    def audits(rule: mo.Rule, level: float) -> float:
        loud = mo.fold_days(gains, rule)[:, good:] >= level
        return float(np.median(np.where(loud.any(axis=1), a_day * (loud.argmax(axis=1) + 1), 99_999)))

    life, pager = audits("restart", mo.alarm_level(LEVEL)), audits("pager", mo.pager_level(365))
    naive = audits("mixture", mo.alarm_level(LEVEL))
    return ProofRow(
        claim="audits until a release that goes from 3 % to 10 % alarms at a bar of 5 %, after a good spell (median)",
        naive=f"since launch {naive:,.0f}",
        reach="≤ 700 life alarm, ≤ 450 pager",
        measured=f"life alarm {life:,.0f}, pager {pager:,.0f}",
        holds=bool(life <= 700 and pager <= 450 and naive > 2 * life),
        n_trials=trials,
    )


def charts(trials: int, rng: np.random.Generator) -> ProofRow:
    """A rate of 5 % drawn with its interval at 40 looks over 5,000 audits: does the band ever leave the truth?"""

    @cache
    def outside(k: int, n: int) -> list[bool]:
        both = intervals.confidence_sequence(k, n, LEVEL), intervals.cp_interval(k, n)
        return [not one.low <= BAR <= one.high for one in both]

    looks = np.unique(np.geomspace(20, AUDITS, 40).astype(int))
    steps = rng.binomial(np.diff(looks, prepend=0), BAR, size=(trials, len(looks))).cumsum(axis=1)
    missed = np.array([[outside(int(k), int(n)) for k, n in zip(run, looks, strict=True)] for run in steps])
    ours, naive = missed.any(axis=1).T
    return ProofRow(
        claim="the band of a chart ever leaves the truth, 40 looks over 5,000 audits, 95 % band",
        naive=f"exact interval at each look {percent(naive.mean())}",
        reach="≤ 5 %",
        measured=counted(int(ours.sum()), ours.size),
        holds=bool(reached(ours.mean(), LEVEL, trials) and naive.mean() > 0.15),
        n_trials=trials,
    )


def shards(n: int, rng: np.random.Generator) -> ProofRow:
    """A million audits counted by 64 workers in random order against one count."""
    pi = np.array([0.005, 0.01, 0.05, 1.0])
    which, wrong, owner = rng.integers(0, 4, n), rng.random(n) < BAR, rng.integers(0, 64, n)

    def day(of: np.ndarray) -> mo.AuditDay:
        count = np.bincount(which[of & wrong], minlength=4)
        size = int(of.sum())
        by_pi = tuple(zip(pi.tolist(), count.tolist(), strict=True))
        return mo.AuditDay(day=DAY_0, requests=size, audited=size, unlabelled=0, wrong_by_pi=by_pi)

    def gain(row: mo.AuditDay) -> np.ndarray:
        return mo.weighted_increment(dict(row.wrong_by_pi), row.requests, BAR, pi_min=0.005)

    whole, parts = day(np.ones(n, dtype=bool)), [day(owner == worker) for worker in rng.permutation(64)]
    exact = mo.merged(parts) == mo.merged([whole])
    error = float(np.max(np.abs(sum(map(gain, parts)) / gain(whole) - 1.0)))
    return ProofRow(
        claim=f"monitor at {n:,} audits: 64 shards against one count",
        naive="-",
        reach="integers equal, state to 1e-9",
        measured=f"integers {'equal' if exact else 'differ'}, state to {error:.0e} (relative)",
        holds=bool(exact and error <= 1e-9),
        n_trials=1,
    )


def rows(trials: int, seed: int) -> list[ProofRow]:
    """All claims about monitors."""
    rng = np.random.default_rng(seed)
    return [
        peeking(trials, rng), wrong_first(trials, rng), *weighted(trials, rng), canary(trials, rng),
        delay(trials, rng), charts(trials, rng), shards(1_000_000, rng),
    ]


if __name__ == "__main__":
    alone(rows)
