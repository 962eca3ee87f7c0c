"""Alarms that may be read at any time rarely cry wolf, see real change, and add up in any order."""

import math
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import binom

from overproof.errors import MeasureError
from overproof.measure import monitor as mo

BAR = 0.05


DAY_0 = date(2025, 3, 1)


def audit_day(number, *, audited=100, unlabelled=0, wrong=0):
    return mo.AuditDay(
        day=DAY_0 + timedelta(days=number),
        requests=10 * audited,
        audited=audited,
        unlabelled=unlabelled,
        wrong_by_pi=((0.1, wrong),) if wrong else (),
    )


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


def first_alarms(rule, counts, per_day, level):
    """The day of the first alarm of each run, 10,000 where there is none; counts of shape (runs, days)."""
    loud = mo.fold_days(mo.increment(counts, per_day, BAR), rule) >= level
    return np.where(loud.any(axis=1), loud.argmax(axis=1) + 1, 10_000)


def test_a_life_alarm_at_the_bar_stays_quiet():
    """A year at exactly the bar, 50 audits a day: at most 5% of releases ever alarm; a pager would in a fifth."""
    counts = days(np.full((400, 365), BAR), 50, 7)
    assert np.mean(first_alarms("restart", counts, 50, mo.alarm_level(0.05)) <= 365) <= 0.05
    assert np.mean(first_alarms("pager", counts, 50, mo.alarm_level(0.05)) <= 365) > 0.2


def test_a_good_spell_does_not_slow_a_restarting_alarm():
    """Good for 120 days, then 15%: the restarting folds find it in days, the one since launch in weeks."""
    counts = days(np.tile(np.r_[np.full(120, 0.03), np.full(120, 0.15)], (60, 1)), 50, 11)
    life, since_launch, pager = (
        np.median(first_alarms(rule, counts, 50, level)) - 120
        for rule, level in (
            ("restart", mo.alarm_level(0.05)), ("mixture", mo.alarm_level(0.05)), ("pager", mo.pager_level(365))
        )
    )
    assert 0 < pager <= life <= 10
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
        lambda: mo.pager_level(0.5),
        lambda: mo.fold_days([0.0] * 12, "restart"),
        lambda: mo.fold_days([[math.inf] * 12], "pager"),
        lambda: mo.fold_restart(None, [[0.0] * 12]),
        lambda: mo.increment([1, 9], [5, 5], BAR),
        lambda: mo.canary_increment(1, 1, 1, share=0.1),
        lambda: mo.canary_increment(1, 1, 10, share=1.0),
        lambda: mo.canary_increment(1, 1, 10, share=0.1, margin=-0.1),
        lambda: mo.audit_probability(0.9, kept_per_day=100, design=mo.AuditDesign(pi_min=0.002)),
        lambda: mo.audit_probability(math.nan, kept_per_day=100, design=mo.AuditDesign()),
        lambda: mo.audit_probability(0.9, kept_per_day=100, design=mo.AuditDesign(), boost=0.5),
        lambda: mo.is_audited("a", "salt", 0.0),
        lambda: mo.merged([audit_day(0, audited=3, unlabelled=2, wrong=2)]),
        lambda: mo.merged([replace(audit_day(0), wrong_by_pi=((0.1, -1),))]),
        lambda: mo.settled([audit_day(0)], today=DAY_0, deadline_days=0),
    ],
)
def test_audits_without_their_probability_are_refused(call):
    """A missing probability is an error, not a default; so are impossible counts."""
    with pytest.raises(MeasureError) as caught:
        call()
    assert caught.value.next_action


pieces = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 5), st.sampled_from([0.01, 0.02, 0.5])),
    min_size=1, max_size=24,
)


@given(pieces, st.integers(1, 5), st.randoms())
@settings(max_examples=60, deadline=None)
def test_workers_and_shards_add_up_in_any_order(parts, workers, rng):
    """Rows of any number of workers, in any order, give the same integers exactly and the same wealth to 1e-9."""
    rows = [
        mo.AuditDay(
            day=DAY_0 + timedelta(days=day), requests=100 + extra, audited=20 + wrong, unlabelled=extra,
            wrong_by_pi=((pi, wrong),),
        )
        for day, wrong, extra, pi in parts
    ]
    shuffled = list(rows)
    rng.shuffle(shuffled)
    by_worker = [row for worker in range(workers) for row in mo.merged(shuffled[worker::workers])]
    rng.shuffle(by_worker)
    assert mo.merged(by_worker) == mo.merged(rows)
    assert sum(row.requests for row in mo.merged(rows)) == sum(row.requests for row in rows)

    def gain(row):
        return mo.weighted_increment(dict(row.wrong_by_pi), row.requests, BAR, pi_min=0.01)

    assert np.allclose(sum(map(gain, by_worker)), sum(map(gain, mo.merged(rows))), rtol=1e-9, atol=1e-9)


def test_a_record_folded_at_once_is_the_record_folded_day_by_day():
    """Each rule gives the same evidence for one stream and for many streams at a time."""
    wrong = np.random.default_rng(8).binomial(50, 0.06, size=(3, 20))
    for rule, fold in (("mixture", mo.fold_mixture), ("restart", mo.fold_restart), ("pager", mo.fold_pager)):
        at_once = mo.fold_days(mo.increment(wrong, 50, BAR), rule)
        for stream in range(3):
            now = None
            for number in range(20):
                now = fold(now, mo.increment(wrong[stream, number], 50, BAR))
                assert at_once[stream, number] == pytest.approx(now.log_e, abs=1e-9)


def test_a_day_enters_when_its_last_label_is_in_and_never_before_an_earlier_day():
    """Today never enters; a complete day waits for an incomplete one before it."""
    rows = [audit_day(0), audit_day(1, unlabelled=1), audit_day(2), audit_day(3)]
    found = mo.settled(rows, today=DAY_0 + timedelta(days=3))
    assert found.ready == (rows[0],)
    assert found.waiting == (rows[1].day, rows[2].day)
    assert found.starved == ()


@pytest.mark.parametrize(("unlabelled", "starved"), [(2, False), (3, True)])
def test_audits_past_their_deadline_count_as_right_and_starve_the_monitor_above_two_percent(unlabelled, starved):
    """On the seventh day it still waits; on the eighth the day enters with its unlabelled audits shown."""
    rows = [audit_day(0, unlabelled=unlabelled, wrong=4)]
    assert mo.settled(rows, today=DAY_0 + timedelta(days=7)).ready == ()
    found = mo.settled(rows, today=DAY_0 + timedelta(days=8))
    assert (found.ready[0].wrong, found.ready[0].audited, found.overdue) == (4, 100, unlabelled)
    assert bool(found.starved) is starved


def test_a_day_that_has_entered_never_enters_again():
    """A label that comes after the deadline changes nothing."""
    rows = [audit_day(0, wrong=9), audit_day(1)]
    assert mo.settled(rows, today=DAY_0 + timedelta(days=9), after=DAY_0).ready == (rows[1],)


def test_a_canary_read_a_hundred_times_keeps_its_promise_where_a_z_test_does_not():
    """Both arms fail 3%, read every 200 of 20,000 requests; a student that fails 9% is found."""
    rng, level = np.random.default_rng(4), mo.alarm_level(0.05)

    def first_reads(student_rate, runs=150):
        ours = rng.binomial(200, 0.1, size=(runs, 100))
        failed = rng.binomial(ours, student_rate), rng.binomial(200 - ours, 0.03)
        gains = [[mo.canary_increment(*day, 200, share=0.1) for day in zip(*run, strict=True)]
                 for run in zip(*failed, strict=True)]
        a, b, n_a = (x.cumsum(axis=1) for x in (*failed, ours))
        n_b = 200 * np.arange(1, 101) - n_a
        pooled = (a + b) / (n_a + n_b)
        z = (a / n_a - b / n_b) / np.sqrt(np.maximum(pooled * (1 - pooled) * (1 / n_a + 1 / n_b), 1e-12))
        return mo.fold_days(gains, "mixture") >= level, z > 1.645

    quiet, z = first_reads(0.03)
    assert quiet.any(axis=1).mean() <= 0.05
    assert z.any(axis=1).mean() > 0.2
    loud, _ = first_reads(0.09, runs=60)
    assert np.median(np.where(loud.any(axis=1), loud.argmax(axis=1), 999)) < 15


def test_the_canary_is_fair_at_its_margin():
    """Enumeration of one request: expected wealth of each bet is 1 when the difference equals the margin."""
    share, margin, teacher = 0.2, 0.05, 0.03
    student = teacher + margin
    chances = {(1, 0): share * student, (0, 1): (1 - share) * teacher}
    chances[0, 0] = 1 - sum(chances.values())
    mean = sum(p * np.exp(mo.canary_increment(*seen, 1, share=share, margin=margin)) for seen, p in chances.items())
    assert np.allclose(mean, 1.0)


def test_audit_probabilities_spend_the_rate_and_respect_the_floor():
    """Over a slice the mean is its rate; a small slice gets 25 audits a day; a page triples the rate."""
    design = mo.AuditDesign()
    for kept in (10, 26, 100, 2_000, 100_000):
        for boost in (1.0, 3.0):
            low, high = (mo.audit_probability(c, kept_per_day=kept, design=design, boost=boost) for c in (0.1, 0.9))
            assert 0.1 * low + 0.9 * high == pytest.approx(min(1.0, boost * max(0.01, 25 / kept)))
            assert low >= high >= design.pi_min
    drawn = np.mean([mo.is_audited(f"r{i}", "salt", 0.3) for i in range(4000)])
    assert abs(drawn - 0.3) < 0.03


def test_weighted_audits_read_the_truth_where_the_plain_mean_does_not():
    """Audits lean to low confidence: the plain mean says three times the truth, the weighted one is unbiased."""
    rng = np.random.default_rng(6)
    kept, pi, rate = np.array([180_000, 20_000]), np.array([0.006, 0.046]), np.array([0.02, 0.25])
    wrong, audited = rng.binomial(kept, pi * rate, size=(200, 2)), rng.binomial(kept, pi, size=(200, 2))
    truth = float((kept * rate).sum() / kept.sum())
    weighted = [mo.weighted_mean(dict(zip(pi, row, strict=True)), int(kept.sum())) for row in wrong]
    assert abs(np.mean(weighted) - truth) < 3 * np.std(weighted) / math.sqrt(200)
    assert np.mean(wrong.sum(axis=1) / audited.sum(axis=1)) > 2 * truth


def test_the_first_false_page_of_many_streams_is_as_rare_as_promised():
    """Eight streams at the bar, promised 20 days: ours wait that long on average; a daily test at 1/20 does not."""
    counts = np.random.default_rng(12).binomial(25, BAR, size=(300, 8, 250))

    def mean_days(loud):
        any_stream = loud.any(axis=1)
        return np.where(any_stream.any(axis=1), any_stream.argmax(axis=1) + 1, 250).mean()

    evidence = mo.fold_days(mo.increment(counts, 25, BAR), "pager")
    assert mean_days(evidence >= mo.pager_level(20, weight=1 / 8)) >= 20
    assert mean_days(binom.sf(counts - 1, 25, BAR) <= 1 / 20) < 12
    assert mo.pager_level(20, weight=1 / 8) == pytest.approx(math.log(160))
