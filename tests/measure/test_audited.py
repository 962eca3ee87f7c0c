"""The share of wrong answers from audits: estimate, interval, first day."""

from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overproof.errors import MeasureError
from overproof.measure.audited import Counted, Draw, audit_bets, audited_rate, day_gain, since_when
from overproof.measure.intervals import cp_upper
from overproof.measure.monitor import AuditDay, fold_days

DAY_0 = date(2026, 1, 1)
PI, SHARE = np.array([0.03, 0.3]), np.array([0.9, 0.1])
DRAW = Draw(low=0.03, high=0.3)


def days(rates, *, n=400, seed=0):
    """Days of n requests: a tenth of low confidence, audited ten times as often, where three in four mistakes lie."""
    rng = np.random.default_rng(seed)
    made = []
    for i, rate in enumerate(rates):
        group = rng.multinomial(n, SHARE)
        audited = rng.binomial(group, PI)
        wrong = rng.binomial(audited, np.minimum(1.0, rate * np.array([0.25 / 0.9, 7.5])))
        counts = tuple((float(p), int(k)) for p, k in zip(PI, wrong, strict=True) if k)
        row = AuditDay(day=DAY_0 + timedelta(days=i), requests=n, audited=int(audited.sum()), unlabelled=0, wrong_by_pi=counts)
        made.append(Counted(row=row, draw=DRAW))
    return made


@pytest.mark.parametrize("rate", [0.02, 0.08])
def test_the_interval_holds_the_rate_at_every_look_while_the_usual_one_loses_it(rate) -> None:
    runs, looks = 150, (2, 4, 7, 12, 20, 30)
    ours = naive = 0
    for seed in range(runs):
        made = days([rate] * looks[-1], seed=seed)
        found = [audited_rate(made[:n], 0.1) for n in looks]
        ours += any(not one.low <= rate <= one.high for one in found)
        naive += any(not cp_upper(one.wrong, one.audits, 0.05) >= rate >= 1 - cp_upper(one.audits - one.wrong, one.audits, 0.05) for one in found)
    assert ours <= 0.1 * runs + 3 * (0.1 * 0.9 * runs) ** 0.5
    assert naive > 0.9 * runs  # unequal audits read as a plain sample


def test_the_interval_narrows_to_the_rate_and_the_estimate_is_unbiased() -> None:
    found = [audited_rate(days([0.05] * 60, n=1000, seed=seed), 0.05) for seed in range(40)]
    values = np.array([one.value for one in found])
    assert abs(values.mean() - 0.05) < 3 * values.std() / 40**0.5
    assert all(one.low < one.value < one.high and one.high - one.low < 0.05 for one in found)


@given(k=st.integers(0, 30), more=st.integers(0, 300), pi=st.sampled_from([0.05, 0.5, 1.0]), bar=st.floats(0.01, 0.4))
def test_a_plain_sample_counts_its_audits_whatever_their_probability(k, more, pi, bar) -> None:
    row = AuditDay(day=DAY_0, requests=3 * (k + more), audited=k + more, unlabelled=0, wrong_by_pi=((pi, k),) if k else ())
    day = Counted(row=row, draw=Draw(low=pi, high=pi))
    bet = audit_bets(bar, day.draw)
    assert np.allclose(day_gain(day, bar), k * np.log(1 + bet * (1 - bar)) + more * np.log(1 - bet * bar))
    if k + more:
        rate = audited_rate([day], 0.05)
        assert rate.value == k / (k + more)
        assert rate.low <= rate.value <= rate.high


def test_a_row_that_stands_for_many_counts_for_no_more_than_the_rarest_audit() -> None:
    def gain(pi):
        row = AuditDay(day=DAY_0, requests=400, audited=20, unlabelled=0, wrong_by_pi=((pi, 4),))
        return day_gain(Counted(row=row, draw=DRAW), 0.05)

    assert np.array_equal(gain(0.001), gain(0.03))
    assert (gain(0.001) > gain(0.3)).all()
    bet = audit_bets(0.05, DRAW)
    assert np.allclose(gain(0.03), 396 * np.log(1 - bet * 0.05) + 4 * np.log(1 + bet * (1 / 0.03 - 0.05)))


@given(bar=st.floats(0.001, 0.6), low=st.floats(0.001, 1.0), more=st.floats(0.0, 1.0))
def test_no_bet_can_lose_everything_and_none_expects_to_win_at_the_bar(bar, low, more) -> None:
    draw = Draw(low=low, high=low + more * (1.0 - low))
    bet = audit_bets(bar, draw)
    assert len(bet) == 12
    assert (bet > 0).all()
    assert (np.diff(bet) >= 0).all()
    assert (bet * bar < 1).all()
    for pi in (1.0,) if draw.even else (draw.low, draw.high):  # one request: found wrong with probability pi x bar
        found, not_found = (AuditDay(day=DAY_0, requests=1, audited=1, unlabelled=0, wrong_by_pi=seen) for seen in (((pi, 1),), ()))
        after = [np.exp(day_gain(Counted(row=row, draw=draw), bar)) for row in (found, not_found)]
        assert np.allclose(pi * bar * after[0] + (1 - pi * bar) * after[1], 1.0)


def test_the_life_alarm_at_the_bar_is_as_rare_as_promised_over_two_lives() -> None:
    rng = np.random.default_rng(7)
    runs, n = 600, 180
    bet = audit_bets(0.05, Draw(low=1.0, high=1.0))
    wrong = rng.binomial(40, 0.05, size=(runs, n))[..., None]
    gains = wrong * np.log1p(bet * 0.95) + (40 - wrong) * np.log1p(-bet * 0.05)
    assert (fold_days(gains, "life") >= np.log(20)).any(axis=1).mean() <= 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5
    start = fold_days(np.zeros((4000, 12)), "life")
    assert np.allclose(start, 0.0)  # what is bet and what is left always make one


def test_the_first_day_of_trouble_is_found_with_those_that_fit_nearly_as_well() -> None:
    hits = near = 0
    for seed in range(40):
        made = days([0.02] * 30 + [0.2] * 8, seed=seed)
        since = since_when([day_gain(day, 0.05) for day in made])
        hits += since.earliest <= 30 <= since.latest
        near += abs(since.first - 30) <= 2
        assert since.earliest <= since.first <= since.latest < 38
    assert hits >= 34
    assert near >= 34


def test_what_cannot_be_read_is_refused() -> None:
    with pytest.raises(MeasureError, match="no requests"):
        audited_rate([], 0.05)
    with pytest.raises(MeasureError, match="shape"):
        since_when([])


def test_each_end_of_the_interval_is_where_half_of_the_chance_is_used_up() -> None:
    row = AuditDay(day=DAY_0, requests=4000, audited=300, unlabelled=0, wrong_by_pi=((0.05, 8), (0.5, 20)))
    rate = audited_rate([Counted(row=row, draw=Draw(low=0.05, high=0.5))], 0.1)
    for end, bets in ((rate.low, np.geomspace(0.05 * 0.05, 0.98, 24)), (rate.high, -np.geomspace(0.01, 0.98, 24) * 0.05)):
        wealth = (1 - bets * end) ** 3972 * (1 + bets * (20 - end)) ** 8 * (1 + bets * (2 - end)) ** 20
        assert wealth.mean() == pytest.approx(2 / 0.1, rel=1e-4)
