"""Alarms that may be read at any time rarely cry wolf, see real change, and add up in any order."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import binom

from overproof.errors import MeasureError
from overproof.measure import monitor as mo

BAR = 0.05


def log_e_paths(wrong):
    """Evidence after every audit of a monitor that bets since launch; shape of `wrong` (paths, audits)."""
    right_gain, wrong_gain = mo.increment(0, 1, BAR), mo.increment(1, 1, BAR)
    k = wrong.cumsum(axis=1)
    n = np.arange(1, wrong.shape[1] + 1)
    state = k[..., None] * wrong_gain + (n - k)[..., None] * right_gain
    return logsumexp(state, axis=2) - math.log(12)


def test_a_monitor_read_after_every_audit_keeps_its_promise_where_a_plain_test_does_not():
    """At the bar, 2,000 audits: false alarms within 5%; an exact test at each audit alarms in over a fifth of runs."""
    wrong = np.random.default_rng(1).random((400, 2000)) < BAR
    assert (log_e_paths(wrong) >= mo.alarm_level(0.05)).any(axis=1).mean() <= 0.05
    k, n = wrong.cumsum(axis=1), np.arange(1, 2001)
    assert (binom.sf(k - 1, n, BAR) <= 0.05).any(axis=1).mean() > 0.2


@given(st.lists(st.booleans(), max_size=60), st.floats(0.01, 0.5))
@settings(max_examples=60, deadline=None)
def test_counts_are_enough(audits, bar):
    """The sum over single audits, in any order, is the increment of the counts."""
    bet = mo.bets(bar)
    single = sum((np.log(1 + bet * (z - bar)) for z in audits), np.zeros(12))
    assert np.allclose(single, mo.increment(sum(audits), len(audits), bar), atol=1e-9)


@given(st.dictionaries(st.sampled_from([0.02, 0.1, 0.5, 1.0]), st.integers(0, 5)), st.integers(20, 200))
@settings(max_examples=60, deadline=None)
def test_a_weighted_day_is_the_sum_over_all_its_requests(wrong_by_pi, requests):
    """Requests that were not audited, or audited and right, count as zero loss, exactly."""
    bet = mo.bets(BAR, pi_min=0.02)
    losses = [1 / pi for pi, count in wrong_by_pi.items() for _ in range(count)]
    losses += [0.0] * (requests - len(losses))
    single = sum(np.log(1 + bet * (z - BAR)) for z in losses)
    assert np.allclose(single, mo.weighted_increment(wrong_by_pi, requests, BAR, pi_min=0.02), atol=1e-9)
    assert mo.weighted_mean(wrong_by_pi, requests) == pytest.approx(sum(losses) / requests)


def days(rates, per_day, seed):
    return np.random.default_rng(seed).binomial(per_day, rates)


def first_alarm(fold, counts, per_day, level):
    """The day of the first alarm, None where there is none."""
    now = None
    for day, wrong in enumerate(counts, start=1):
        now = fold(now, mo.increment(int(wrong), per_day, BAR))
        if now.log_e >= level:
            return day
    return None


def test_a_life_alarm_at_the_bar_stays_quiet():
    """A year at exactly the bar, 50 audits a day: at most 5% of releases ever alarm."""
    alarms = [
        first_alarm(mo.fold_restart, days(np.full(365, BAR), 50, seed), 50, mo.alarm_level(0.05))
        for seed in range(40)
    ]
    assert np.mean([day is not None for day in alarms]) <= 0.05


def test_a_good_spell_does_not_slow_a_restarting_alarm():
    """Good for 120 days, then 15%: the restarting folds find it in days, the one since launch in weeks."""
    rates = np.r_[np.full(120, 0.03), np.full(120, 0.15)]

    def delay(fold, level):
        found = [first_alarm(fold, days(rates, 50, seed), 50, level) for seed in range(15)]
        return np.median([(day or 10_000) - 120 for day in found])

    life, since_launch = (
        delay(mo.fold_restart, mo.alarm_level(0.05)),
        delay(mo.fold_mixture, mo.alarm_level(0.05)),
    )
    assert 0 < delay(mo.fold_pager, math.log(365)) <= life <= 10
    assert since_launch > 3 * life


@pytest.mark.parametrize("fold", [mo.fold_restart, mo.fold_pager, mo.fold_mixture])
def test_evidence_is_fair_at_the_bar(fold):
    """Enumeration over two days: expected evidence is 1 for alarms, and 1 a day for the pager."""
    n, expected = 3, 0.0
    chance = binom.pmf(np.arange(n + 1), n, BAR)
    for first, p in enumerate(chance):
        for second, q in enumerate(chance):
            after = fold(fold(None, mo.increment(first, n, BAR)), mo.increment(second, n, BAR))
            expected += p * q * math.exp(after.log_e)
    assert expected == pytest.approx(2.0 if fold is mo.fold_pager else 1.0)
    assert after.day == 2


def test_the_lowest_bet_must_fit_the_audit_design():
    """9% where 5% is allowed, 1% audited: found with the grid for weighted audits, missed with the plain one."""
    rng = np.random.default_rng(3)
    caught = missed = 0
    for _ in range(40):
        wrong = {0.01: int(rng.binomial(200_000, 0.09 * 0.01))}
        caught += mo.fold_mixture(None, mo.weighted_increment(wrong, 200_000, BAR, pi_min=0.01)).log_e >= 3
        plain = mo.bets(BAR)
        gains = wrong[0.01] * np.log1p(plain * (100 - BAR)) + (200_000 - wrong[0.01]) * np.log1p(-plain * BAR)
        missed += logsumexp(gains) - math.log(12) < 3
    assert caught >= 36
    assert missed >= 36


@pytest.mark.parametrize(
    "call",
    [
        lambda: mo.bets(0.0),
        lambda: mo.bets(0.05, pi_min=0.0),
        lambda: mo.increment(3, 2, BAR),
        lambda: mo.weighted_increment({0.001: 1}, 100, BAR, pi_min=0.01),
        lambda: mo.weighted_increment({math.nan: 1}, 100, BAR, pi_min=0.01),
        lambda: mo.weighted_increment({0.5: 200}, 100, BAR, pi_min=0.01),
        lambda: mo.weighted_mean({0.0: 1}, 100),
        lambda: mo.weighted_mean({}, 0),
        lambda: mo.fold_restart(None, [0.0] * 11),
        lambda: mo.fold_pager(None, [math.nan] * 12),
        lambda: mo.alarm_level(0.05, weight=0.0),
    ],
)
def test_audits_without_their_probability_are_refused(call):
    """A missing probability is an error, not a default; so are impossible counts."""
    with pytest.raises(MeasureError) as caught:
        call()
    assert caught.value.next_action
