"""Learning curves: planted ones are found again, the interval covers, and the three limits are told apart."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overproof.errors import MeasureError
from overproof.measure.intervals import figure
from overproof.measure.learning import (
    kept_in_hindsight,
    learning_curve,
    limit_of,
    out_of_reach,
    redraw_variance,
)
from overproof.measure.paired import difference_interval

ROWS = (1_000, 2_000, 4_000)


def exact(errors, n=20_000):
    """Answers with exactly these errors, each budget wrong on rows that the smaller ones are wrong on, too."""
    return [np.arange(n) < round(n * e) for e in errors]


def planted(a, b, c, rows=ROWS):
    return [a + b * (m / rows[-1]) ** -c for m in rows]


@pytest.mark.parametrize(("a", "b", "c"), [(0.0, 0.2, 0.5), (0.05, 0.15, 1.0), (0.1, 0.1, 0.3), (0.0, 0.1, 0.1)])
def test_a_planted_curve_is_found_again(a, b, c) -> None:
    """From many rows without luck the gain of twice and of four times the rows lies inside, and the middle near it."""
    found = learning_curve(ROWS, exact(planted(a, b, c)), redrawn=[planted(a, b, c)[0]] * 100)
    for gain in found.gains:
        truth = b * (1 - gain.times**-c)
        assert gain.low <= truth <= gain.high
        assert abs(gain.value - truth) < 0.012
    assert found.gains[0].high - found.gains[0].low < 0.05


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 0.2), st.floats(0.01, 0.3), st.floats(0.1, 1.4), st.integers(200, 5_000))
def test_the_band_is_ordered_and_its_ends_are_errors(a, b, c, n) -> None:
    """low <= middle <= high in [0, 1] from the smallest budget to four times the rows, never farther; it falls."""
    found = learning_curve(ROWS, exact(planted(a, b, c), n))
    if not found.gains:
        assert found.why
        return
    assert [g.times for g in found.gains] == [2.0, 4.0]
    assert all(g.low <= g.value <= g.high for g in found.gains)
    assert all(0 <= p.low <= p.middle <= p.high <= 1 for p in found.band)
    assert found.band[0].rows == ROWS[0]
    assert math.isclose(found.band[-1].rows, 4 * ROWS[-1])
    assert found.band[-1].middle <= found.band[0].middle


def covered(trials: int, seed: int) -> list[tuple[bool, bool, bool]]:
    """
    Whether the intervals hold what another fit on twice and four times the rows would gain, over many worlds; and
    whether the naive one does, which expects of the next doubling what the last one bought.
    """
    rng, hits = np.random.default_rng(seed), []
    for _ in range(trials):
        n, draws = int(rng.choice([300, 1_000, 2_500])), int(rng.choice([1, 3]))
        a, b, c, luck = rng.choice([0.0, 0.05, 0.1]), rng.uniform(0.03, 0.2), rng.uniform(0.1, 1.2), rng.uniform(0.1, 0.6)

        def fitted(m, a=a, b=b, c=c, luck=luck):
            error = min(0.95, a + b * (m / ROWS[-1]) ** -c)
            return float(np.clip(error + luck * math.sqrt(error * (1 - error) / m) * rng.standard_normal(), 1e-4, 0.999))

        hard = rng.standard_normal(n)

        def answers(error, hard=hard, n=n):
            return math.sqrt(0.85) * hard + math.sqrt(0.15) * rng.standard_normal(n) < NormalDist().inv_cdf(error)

        truths = [fitted(m) for m in ROWS]
        wrong = [answers(e) for e in truths]
        first = [wrong[0], *(answers(fitted(ROWS[0])) for _ in range(draws - 1))]
        found = learning_curve(ROWS, [np.mean(first, axis=0), *wrong[1:]], redrawn=[w.mean() for w in first])
        if found.gains:
            last = difference_interval(int((wrong[1] & ~wrong[2]).sum()), int((wrong[2] & ~wrong[1]).sum()), n, level=0.9)
            gains = [truths[-1] - fitted(times * ROWS[-1]) for times in (2, 4)]
            held = [g.low <= gain <= g.high for g, gain in zip(found.gains, gains, strict=True)]
            hits.append((*held, last.low <= gains[0] <= last.high))
    return hits


def test_the_interval_covers_as_often_as_it_says() -> None:
    """120 worlds of random a, b, c, luck and rows: 90% intervals hold the truth at least as often, within chance."""
    hits = np.array(covered(120, seed=3))
    assert len(hits) >= 115
    assert (hits.mean(axis=0)[:2] > 0.9 - 3 * math.sqrt(0.09 / len(hits))).all(), hits.mean(axis=0)
    assert hits.mean(axis=0)[2] < 0.8, "a check that can't see the naive method's fault proves nothing"


@pytest.mark.slow
def test_the_interval_covers_as_often_as_it_says_in_many_worlds() -> None:
    """The same with 2,000 worlds."""
    hits = np.array(covered(2_000, seed=4))
    assert (hits.mean(axis=0)[:2] > 0.9 - 3 * math.sqrt(0.09 / len(hits))).all(), hits.mean(axis=0)


def test_what_can_not_be_told_is_not_told() -> None:
    """Two budgets, few calibration rows, or an error that rises for certain: no gain, and the reason."""
    assert "2 budget(s)" in learning_curve(ROWS[:2], exact([0.3, 0.2])).why
    assert "99 calibration rows" in learning_curve(ROWS, exact([0.3, 0.2, 0.15], 99)).why
    rising = learning_curve(ROWS, exact([0.1, 0.2, 0.3]), redrawn=[0.1] * 50)
    assert rising.gains == ()
    assert "doesn't fall" in rising.why


def test_budgets_that_make_no_curve_are_refused() -> None:
    """Descending budgets, or answers to different rows."""
    with pytest.raises(MeasureError):
        learning_curve(ROWS[::-1], exact([0.3, 0.2, 0.1]))
    with pytest.raises(MeasureError):
        learning_curve(ROWS, [*exact([0.3, 0.2]), np.zeros(7)])


def test_more_draws_outweigh_what_was_assumed() -> None:
    """The variance moves from the assumption to what was measured."""
    alone, few, many = (redraw_variance(0.2, 400, [0.2 + 0.05 * (-1) ** i for i in range(k)]) for k in (0, 3, 200))
    assert alone < few < many < 0.0026


def curve(errors, n=2_000):
    return learning_curve(ROWS, exact(errors, n), redrawn=[errors[0]] * 50)


def error(value, n=2_000):
    return figure(round(value * n), n, metric="error")


FLAT, FALLING = curve([0.305, 0.302, 0.30]), curve([0.42, 0.35, 0.30])
QUIET, NOISY = error(0.01, 300), error(0.4, 300)


def test_capacity_needs_a_high_training_error_a_flat_curve_and_labels_that_can_be_learned() -> None:
    """The same figures with noisy labels are "labels", without any word on them "can't tell"; a better student decides."""
    train, held = error(0.28), error(0.30)
    assert limit_of(train, held, FLAT, noise=QUIET).kind == "capacity"
    assert limit_of(train, held, FLAT, noise=NOISY).kind == "labels"
    assert limit_of(train, held, FLAT).kind == "can't tell"
    assert limit_of(train, held, FLAT, beaten=True).kind == "capacity"


def test_data_needs_a_low_training_error_and_a_falling_curve() -> None:
    """With a flat curve, or with no curve, nothing is claimed."""
    assert limit_of(error(0.02), error(0.30), FALLING, noise=QUIET).kind == "data"
    assert limit_of(error(0.02), error(0.30), FLAT, noise=QUIET).kind == "can't tell"
    assert limit_of(error(0.02), error(0.30), learning_curve(ROWS[:1], exact([0.3]))).kind == "can't tell"
    assert limit_of(figure(0, 0, metric="error"), error(0.30), FLAT, beaten=True).kind == "can't tell"  # no training row was read


def test_rows_that_the_teacher_itself_contests_are_labels() -> None:
    """Half of the wrong rows or more, shown by the interval."""
    assert limit_of(error(0.02), error(0.30), FALLING, contested=figure(150, 200, metric="contested")).kind == "labels"
    assert limit_of(error(0.02), error(0.30), FALLING, contested=figure(100, 200, metric="contested")).kind == "data"


def test_out_of_reach_is_a_claim_about_the_best_end() -> None:
    """Only where even the best end of both intervals stays above what is admitted; never without a curve."""
    held = error(0.30)
    assert out_of_reach(held, FLAT, at_most=0.1)
    assert not out_of_reach(held, FALLING, at_most=0.25)
    assert not out_of_reach(held, learning_curve(ROWS[:1], exact([0.3])), at_most=0.01)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=30), st.floats(0, 1), st.booleans())
def test_what_could_be_kept_is_the_best_threshold(rows, alpha, of_all) -> None:
    """Against a try of every threshold."""
    wrong, score = np.array([w for w, _ in rows]), np.array([s for _, s in rows])
    best = 0.0
    for threshold in set(score.tolist()):
        kept = score >= threshold
        if wrong[kept].sum() <= alpha * (len(rows) if of_all else kept.sum()):
            best = max(best, kept.mean())
    assert kept_in_hindsight(wrong, score, alpha=alpha, of_all=of_all) == pytest.approx(best)


def test_the_luck_of_a_draw_widens_the_interval_and_is_assumed_where_nobody_measured_it() -> None:
    """Fits that vary widen it; without further draws it is wider than for fits known not to vary."""
    errors = planted(0.05, 0.15, 0.5)
    widths = []
    for redrawn in ([errors[0]] * 80, [], [errors[0] + 0.04 * (-1) ** i for i in range(80)]):
        gain = learning_curve(ROWS, exact(errors), redrawn=redrawn).gains[0]
        widths.append(gain.high - gain.low)
    assert 1.15 * widths[0] < widths[1] < widths[2]
