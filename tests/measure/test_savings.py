"""What avoided calls would have cost: the interval covers, sums hold, and too few prices say nothing."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overproof.errors import MeasureError
from overproof.measure.savings import LEAST_PRICED, Stratum, avoided


def stratum(prices, kept):
    """Requests of which these prices are known."""
    return Stratum(kept=kept, priced=len(prices), weight=float(len(prices)), usd=float(np.sum(prices)), usd2=float(np.sum(np.square(prices))))


STRATA = st.lists(
    st.builds(
        stratum, st.lists(st.floats(0.0001, 0.1), min_size=0, max_size=60), st.integers(0, 5_000),
    ), min_size=1, max_size=6,
)  # fmt: skip


@given(STRATA, st.floats(0.01, 1000.0))
def test_the_interval_holds_the_guess_and_prices_scale(strata, factor) -> None:
    """low <= guess <= high, from 0; prices that are all so many times higher give so many times as much."""
    found = avoided(strata)
    dearer = avoided([Stratum(kept=s.kept, priced=s.priced, weight=s.weight, usd=s.usd * factor, usd2=s.usd2 * factor**2) for s in strata])
    if found.usd is None:
        assert (found.low, found.high, dearer.usd) == (0.0, math.inf, None)
        assert sum(s.priced for s in strata) < LEAST_PRICED
        return
    assert 0.0 <= found.low <= found.usd + 1e-12 <= found.high + 2e-12
    assert dearer.usd == pytest.approx(factor * found.usd)
    assert dearer.high == pytest.approx(factor * found.high, rel=1e-6, abs=1e-9)


@given(st.integers(1, 10_000), st.floats(0.001, 5.0), st.integers(LEAST_PRICED, 500))
def test_one_price_for_all_leaves_no_doubt(kept, price, n) -> None:
    """Prices that never differ: the sum is that price times the requests, to the cent."""
    found = avoided([stratum([price] * n, kept)])
    assert found.usd == pytest.approx(kept * price)
    assert found.high - found.low <= 1e-5 * found.usd


@given(st.integers(0, LEAST_PRICED - 1))
def test_too_few_prices_say_nothing(n) -> None:
    """Under the least number of prices there is no figure; with no request to price it is nothing, whatever the prices."""
    assert avoided([stratum([0.01] * n, 7)]).usd is None
    assert avoided([stratum([0.01] * n, 0)]).usd == 0.0


@pytest.mark.parametrize("spread", [0.3, 1.0])
def test_the_interval_covers_what_the_calls_would_have_cost(spread) -> None:
    """
    Skewed prices, slices that differ in price and size, one of them with too few prices: of 600 worlds at least 91 % are covered at
    95 %, and a mean over all slices at once would be far off.
    """
    rng = np.random.default_rng(11)
    covered, naive = 0, 0
    for _ in range(600):
        truth, strata, known = 0.0, [], []
        for mean, priced, kept in ((0.001, 200, 3_000), (0.004, 60, 500), (0.002, 8, 0)):
            draw = rng.lognormal(math.log(mean) - spread**2 / 2, spread, priced + kept)
            strata.append(stratum(draw[:priced], kept))
            truth += float(draw[priced:].sum())
            known.extend(draw[:priced])
        found = avoided(strata)
        covered += found.low <= truth <= found.high
        pooled = avoided([stratum(np.asarray(known), 3_500)])
        naive += pooled.low <= truth <= pooled.high
    assert covered >= 0.91 * 600
    assert naive < covered


def test_sums_that_cannot_be_are_refused() -> None:
    """Negative sums, and a level that is none."""
    with pytest.raises(MeasureError):
        avoided([Stratum(kept=-1, priced=0, weight=0, usd=0, usd2=0)])
    with pytest.raises(MeasureError):
        avoided([], level=1.0)
