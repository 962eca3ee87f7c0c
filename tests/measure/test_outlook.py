"""Prices and prospects that are shown before anybody pays: what more rows keep, what another use costs."""

import numpy as np
import pytest

from overproof.errors import MeasureError
from overproof.measure import outlook as ol
from overproof.measure.certify import grid_counts, grid_of, ledger_delta, plan_start, walk
from overproof.measure.intervals import figure, p_pass

BAR, DELTA = 0.05, 0.1


@pytest.mark.parametrize(
    ("weight", "published"), [(1.0, (69, 96, 111, 131, 158)), (0.125, (109, 136, 152, 172, 199))]
)
def test_the_price_of_reuse_is_that_of_the_published_table(weight, published):
    """Uses 1, 2, 3, 5, 10 at a 5% bar; one row fewer can't pass."""
    for k, rows in zip((1, 2, 3, 5, 10), published, strict=True):
        assert ol.rows_for_reuse(BAR, 0.05, k, weight=weight) == rows
        assert p_pass(0, rows, BAR) <= ledger_delta(0.05, k) * weight < p_pass(0, rows - 1, BAR)


def calibrated(rng, n):
    scores = rng.beta(6, 1, n)
    return scores, rng.random(n) < 1 - scores


def told_and_kept(n, seed, trials=60):
    """The outlook from one set of 4,000 calibration rows, and what its plan then keeps on fresh rows."""
    rng = np.random.default_rng([seed, n])
    scores, wrong = calibrated(rng, 4000)
    grid = grid_of(scores)
    dev = grid_counts(scores, wrong, grid)
    told = ol.keep_with_more_rows(dev, 4000, alpha=BAR, d=DELTA, rows=(n,))[0]
    start, kept, some = plan_start(dev, BAR, factor=n / 4000), 0.0, 0
    for _ in range(trials):
        counts = grid_counts(*calibrated(rng, n), grid)
        last = walk(counts, BAR, DELTA, start)
        some += last is not None
        kept += 0.0 if last is None else counts[last][1] / n
    return told.keep, kept / trials, told.chance, some / trials


@pytest.mark.parametrize("n", [500, 1000, 4000])
def test_the_outlook_is_about_what_is_then_kept(n):
    """Mean over twelve plans: the share kept within .05 of what was foretold, the chance of any within .12."""
    keep, kept, chance, some = np.mean([told_and_kept(n, seed) for seed in range(12)], axis=0)
    assert keep == pytest.approx(kept, abs=0.05)
    assert chance == pytest.approx(some, abs=0.12)


def test_more_rows_keep_more_and_hopeless_students_keep_nothing():
    """The outlook rises with the rows; over the bar at every point it stays near nothing however many rows there are."""
    rng = np.random.default_rng(8)
    scores, wrong = calibrated(rng, 4000)
    dev = grid_counts(scores, wrong, grid_of(scores))
    keeps = [
        one.keep
        for one in ol.keep_with_more_rows(dev, 4000, alpha=BAR, d=DELTA, rows=(50, 300, 1000, 10_000))
    ]
    assert keeps == sorted(keeps)
    assert keeps[0] < 0.1
    assert keeps[-1] > 0.4
    hopeless = ((20, 100), (200, 1000))
    assert all(
        o.keep < 1e-3 for o in ol.keep_with_more_rows(hopeless, 1000, alpha=BAR, d=DELTA, rows=(500, 5000))
    )


def test_what_lies_behind_a_point_that_fails_is_not_counted_on():
    """A clean point after a hopeless one is never reached by the walk, so it keeps nothing."""
    wall = ((0, 300), (290, 600), (290, 20_000))
    told = ol.keep_with_more_rows(wall, 20_000, alpha=BAR, d=DELTA, rows=(400,))[0]
    assert ol.plan_start(wall, BAR, factor=400 / 20_000) == 2
    behind = ((0, 6_000), (2_000, 8_000), (2_000, 50_000))
    assert ol.keep_with_more_rows(behind, 50_000, alpha=0.045, d=DELTA, rows=(4_000,))[0].keep < 0.2
    assert told.keep > 0.9


def test_savings_carry_the_interval_of_the_kept_share():
    """Money at both ends; a student that costs more is a loss, with its ends in order; no rows, no estimate."""
    kept = figure(300, 500, metric="kept")
    gain = ol.saving(kept, 1000, teacher_usd=0.02, student_usd=0.001, audit_usd=2.0)
    assert gain.value_usd == pytest.approx(0.6 * 19 - 2)
    assert gain.low_usd == pytest.approx(kept.low * 19 - 2)
    assert gain.high_usd == pytest.approx(kept.high * 19 - 2)
    loss = ol.saving(kept, 1000, teacher_usd=0.001, student_usd=0.02)
    assert loss.low_usd < loss.value_usd < loss.high_usd < 0
    assert ol.saving(figure(0, 0, metric="kept"), 10, teacher_usd=1.0, student_usd=0.0).value_usd is None


@pytest.mark.parametrize(
    "call",
    [
        lambda: ol.rows_for_reuse(BAR, 0.05, 0),
        lambda: ol.rows_for_reuse(BAR, 0.05, 1, weight=0.0),
        lambda: ol.rows_for_reuse(0.0, 0.05, 1),
        lambda: ol.keep_with_more_rows((), 10, alpha=BAR, d=DELTA, rows=(5,)),
        lambda: ol.keep_with_more_rows(((0, 20),), 10, alpha=BAR, d=DELTA, rows=(5,)),
        lambda: ol.keep_with_more_rows(((0, 10),), 10, alpha=BAR, d=DELTA, rows=(0,)),
        lambda: ol.saving(figure(1, 2, metric="kept"), -1, teacher_usd=1.0, student_usd=0.0),
        lambda: ol.saving(figure(1, 2, metric="kept"), 1, teacher_usd=-1.0, student_usd=0.0),
    ],
)
def test_prospects_without_rows_or_with_negative_costs_are_refused(call):
    """An error that says what to do."""
    with pytest.raises(MeasureError) as caught:
        call()
    assert caught.value.next_action
