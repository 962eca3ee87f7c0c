import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overproof.errors import MeasureError
from overproof.measure.drift import FAST, SLOW, ShareLane
from overproof.measure.shares import ShareBounds, read_lane, share_bounds, would_see

WEEK = np.array([1.12, 1.1, 1.08, 1.06, 1.04, 0.8, 0.8])  # busy days ask otherwise than week-ends do, by 1.4


def worlds(seed, *, streams, days, share, per_day=120, m=600, swing=WEEK, shift=None):
    """A reference and live counts of streams that don't drift, or do from a day on."""
    rng = np.random.default_rng(seed)
    known = rng.binomial(m, share, streams)
    totals = rng.poisson(per_day, (streams, days))
    chance = np.clip(share * np.resize(swing, days) / swing.mean(), 0, 1)[None].repeat(streams, 0)
    if shift is not None:
        chance[:, shift[0] :] *= shift[1]
    return known, rng.binomial(totals, chance), totals


def pages(known, k, n, *, m=600, weight=None):
    streams = len(k)
    d = 0.05 / (2 * streams)
    found = []
    for lane in (SLOW, FAST):
        bounds = [share_bounds(int(one), m, tolerance=lane.tolerance, d=d) for one in known]
        weights = [(weight or 1 / streams) / 2] * streams
        found += read_lane(k, n, bounds, lane=lane, weights=weights, falls=[True] * streams).pages
    return found


@pytest.mark.parametrize(("share", "per_day"), [(0.05, 120), (0.2, 400), (0.01, 30)])
def test_a_year_without_drift_pages_no_oftener_than_claimed(share, per_day):
    """One page a year in the mean over all streams is claimed, under a weekly swing, with a reference of 600 rows."""
    years = [pages(*worlds(seed, streams=20, days=364, share=share, per_day=per_day)) for seed in range(12)]
    assert sum(len(one) for one in years) <= 12


def test_the_bar_of_a_small_reference_is_its_own_interval():
    """Twelve rows say little: nothing within what they admit is drift, and a large reference leaves the tolerance."""
    small, large = share_bounds(1, 12, tolerance=1.25, d=0.001), share_bounds(5_000, 100_000, tolerance=1.25, d=0.001)
    assert small.high > 0.4
    assert small.low < 0.001
    assert large == ShareBounds(low=0.04, high=0.0625)


def test_a_doubled_share_is_found_and_dated():
    """From day 60 on the share is twice what it was: the page says so within a month, and since about when."""
    found = pages(*worlds(3, streams=8, days=90, share=0.06, m=3_000, shift=(60, 2.0)), m=3_000)
    first = {}
    for page in found:
        first.setdefault(page.stream, page)
    assert set(first) == set(range(8))
    assert all(page.up for page in first.values())
    assert max(page.at for page in first.values()) <= 90
    assert min(page.since for page in first.values()) >= 50


def test_a_share_that_falls_is_found_where_falls_are_read():
    """Down to a third: a page downwards; none where only rises are asked for."""
    known, k, n = worlds(5, streams=1, days=84, share=0.3, shift=(42, 1 / 3))
    bounds = [share_bounds(int(known[0]), 600, tolerance=1.25, d=0.001)]
    falls, rises = (read_lane(k, n, bounds, lane=SLOW, weights=[1.0], falls=[read]) for read in (True, False))
    assert falls.pages
    assert not falls.pages[0].up
    assert not rises.pages


def test_after_a_page_the_stream_starts_afresh():
    """A share that stays high pages again later, dated after the first page."""
    found = read_lane([[5] * 7 + [40] * 30], [[100] * 37], [ShareBounds(low=0.02, high=0.1)], lane=FAST, weights=[1.0], falls=[False]).pages
    assert len(found) > 1
    assert all(later.since > earlier.at for earlier, later in itertools.pairwise(found))


@given(st.integers(0, 60), st.integers(1, 400), st.floats(1.05, 3.0), st.floats(1e-5, 0.4))
@settings(max_examples=60, deadline=None)
def test_bounds_hold_the_reference_share(k, m, tolerance, d):
    """Whatever the counts, the share that was seen lies within its own bounds."""
    k = min(k, m)
    found = share_bounds(k, m, tolerance=tolerance, d=d)
    assert 0.0 <= found.low <= max(k / m, 1e-6)
    assert min(k / m, 1 - 1e-6) <= found.high <= 1.0


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(9, 40)), min_size=7, max_size=30))
@settings(max_examples=30, deadline=None)
def test_streams_do_not_touch_each_other(days):
    """The reading of a stream is the same alone and beside another one."""
    k, n = [a for a, _ in days], [b for _, b in days]
    bounds, lane = ShareBounds(low=0.02, high=0.15), ShareLane(days=1, tolerance=2.0, mean_epochs=100)
    alone = read_lane([k], [n], [bounds], lane=lane, weights=[0.5], falls=[True])
    both = read_lane([[30] * len(k), k], [[40] * len(k), n], [bounds, bounds], lane=lane, weights=[0.5, 0.5], falls=[True, True])
    assert both.log_e[1] == pytest.approx(alone.log_e[0])
    assert [(p.at, p.since) for p in both.pages if p.stream == 1] == [(p.at, p.since) for p in alone.pages]


def test_quiet_means_nothing_where_a_doubling_could_not_show():
    """Forty rows at 5 % can't page at level 8; two thousand can; a bound at one never can."""
    assert not would_see(40, 0.05, level=8.0)
    assert would_see(2_000, 0.05, level=8.0)
    assert not would_see(10**6, 1.0, level=8.0)


def test_what_does_not_fit_is_refused():
    """Bounds, weights and counts are one for each stream."""
    with pytest.raises(MeasureError, match="don't fit"):
        read_lane([[1, 2]], [[3, 4]], [], lane=FAST, weights=[1.0], falls=[True])
    with pytest.raises(MeasureError, match="no bounds"):
        share_bounds(5, 3, tolerance=1.25, d=0.1)
