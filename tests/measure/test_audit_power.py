"""The power of a plan of audits holds against the alarm itself, simulated."""

from datetime import date

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overproof.errors import MeasureError
from overproof.measure.audit_power import audits_to_see, draws_of, power_to_see, stream_weights
from overproof.measure.audited import Counted, Draw, day_gain
from overproof.measure.monitor import (
    AuditDay,
    AuditDesign,
    alarm_level,
    audit_probability,
    fold_days,
    increment,
)

BAR, RATE, DELTA, WEIGHT = 0.05, 0.15, 0.05, 0.125


def test_the_stated_power_is_a_lower_bound_of_the_alarms_own() -> None:
    """After 40 good days with audits that are needed for 80%, at least 80% of 400 simulated alarms go off in 20 days."""
    needed = audits_to_see(RATE, BAR, delta=DELTA, weight=WEIGHT)
    daily = -(-needed // 20)
    rng = np.random.default_rng(5)
    wrong = np.concatenate([rng.binomial(daily, 0.03, (400, 40)), rng.binomial(daily, RATE, (400, 20))], axis=1)
    log_e = fold_days(increment(wrong, daily, BAR), "life")
    level = alarm_level(DELTA, weight=WEIGHT)
    assert np.mean((log_e >= level).any(axis=1)) >= power_to_see(20 * daily, RATE, BAR, delta=DELTA, weight=WEIGHT) - 0.03
    assert np.mean((log_e[:, :40] >= level).any(axis=1)) <= DELTA * WEIGHT + 0.01
    assert needed < 400, "a bound that asks for very many audits would hold as well"


def test_leaning_audits_are_worth_at_least_what_is_said_of_them() -> None:
    """Weighted audits by the design, wrong answers at all confidences alike: the alarm sees the break with the stated power."""
    design, kept, days = AuditDesign(rate=0.01, pi_min=0.005, floor_per_day=25), 10_000.0, 20
    draws = draws_of(kept, design=design)
    assert draws.even < draws.per_day
    low, high = (audit_probability(c, kept_per_day=kept, design=design) for c in (0.0, 1.0))
    stated = power_to_see(int(draws.even * days), 0.10, BAR, delta=DELTA, weight=WEIGHT)
    assert stated > 0.8
    rng = np.random.default_rng(3)
    seen = 0
    for _ in range(120):
        gains = []
        for day in range(days):
            rows = ((high, int(kept * 0.9)), (low, int(kept * 0.1)))
            audits = [rng.binomial(n, pi) for pi, n in rows]
            wrong = tuple((pi, int(rng.binomial(a, 0.10))) for (pi, _), a in zip(rows, audits, strict=True))
            row = AuditDay(day=date(2025, 3, day + 1), requests=int(kept), audited=sum(audits), unlabelled=0, wrong_by_pi=wrong)
            gains.append(day_gain(Counted(row=row, draw=Draw(low=high, high=low)), BAR))
        seen += bool((fold_days(np.array(gains), "life") >= alarm_level(DELTA, weight=WEIGHT)).any())
    assert seen / 120 >= min(stated, 0.9) - 0.05


@given(n=st.integers(0, 5_000), more=st.integers(1, 500), bar=st.floats(0.01, 0.2), up=st.floats(1.2, 4.0))
def test_power_is_a_probability_and_grows_with_the_break(n, more, bar, up) -> None:
    """Between 0 and 1; a worse break is seen no less often, and a smaller part of the error budget no more often."""
    rate = min(bar * up, 0.9)
    one = power_to_see(n, rate, bar, delta=DELTA)
    assert 0.0 <= one <= 1.0
    assert power_to_see(n, (1 + rate) / 2, bar, delta=DELTA) >= one - 1e-9
    assert power_to_see(n, rate, bar, delta=DELTA, weight=0.1) <= one + 1e-9
    del more


@given(bar=st.floats(0.01, 0.2), up=st.floats(2.0, 4.0), power=st.floats(0.5, 0.95))
def test_the_number_of_audits_has_the_power_that_was_asked(bar, up, power) -> None:
    """The number found reaches it, and half of it does not."""
    rate = min(bar * up, 0.9)
    n = audits_to_see(rate, bar, delta=DELTA, power=power)
    assert power_to_see(n, rate, bar, delta=DELTA) >= power
    assert power_to_see(n // 2, rate, bar, delta=DELTA) < power


def test_bad_values_are_refused_and_a_break_within_the_bar_is_none() -> None:
    """A rate up to the bar is no break."""
    for bad in ({"rate": 0.05, "bar": 0.05}, {"rate": 0.2, "bar": 0.0}, {"rate": 1.2, "bar": 0.1}):
        with pytest.raises(MeasureError):
            power_to_see(10, delta=DELTA, **bad)
    with pytest.raises(MeasureError):
        audits_to_see(0.2, 0.1, delta=DELTA, power=1.0)
    assert audits_to_see(0.0500001, 0.05, delta=DELTA) is None


@given(st.dictionaries(st.text(min_size=1, max_size=3), st.floats(0, 10), min_size=1, max_size=6).filter(lambda d: "*" not in d))
def test_the_streams_share_the_budget_and_none_is_starved(weights) -> None:
    """Parts sum to one; each slice has at least a fifth of an equal share."""
    found = stream_weights(weights, whole="*")
    assert sum(found.values()) == pytest.approx(1.0)
    assert min(found.values()) >= 0.2 / (len(weights) + 1) - 1e-9
