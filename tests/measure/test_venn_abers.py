import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from overproof.errors import MeasureError
from overproof.measure.venn_abers import fit_venn_abers, places

ROWS = st.lists(st.tuples(st.integers(0, 12).map(lambda v: v / 10), st.booleans()), min_size=1, max_size=40)


def brute(scores, right, asked, outcome):
    """Isotonic regression of the rows and the asked one, as the definition says."""
    s, y = np.append(scores, asked), np.append(right, outcome).astype(float)
    return float(IsotonicRegression().fit(s, y).predict([asked])[0])


@settings(deadline=None)  # the first call loads scikit-learn
@given(ROWS, st.lists(st.integers(-3, 33).map(lambda v: v / 20), min_size=1, max_size=8))
def test_both_chances_are_those_of_the_definition(rows, asked):
    """At, between and beyond the calibration scores, ties included."""
    scores, right = np.array([s for s, _ in rows]), np.array([r for _, r in rows])
    found = fit_venn_abers(scores, right)
    for score in asked:
        at = int(places(found.edges, [score])[0])
        assert found.low[at] == pytest.approx(brute(scores, right, score, False), abs=1e-9)
        assert found.high[at] == pytest.approx(brute(scores, right, score, True), abs=1e-9)


@settings(deadline=None)
@given(ROWS)
def test_it_never_falls_and_is_never_certain(rows):
    """A surer score has no lower chance; 0 and 1 are never stated; the two chances enclose the merged one."""
    found = fit_venn_abers([s for s, _ in rows], [r for _, r in rows])
    assert (np.diff(found.merged) >= -1e-12).all()
    assert ((found.merged > 0) & (found.merged < 1)).all()
    assert (found.low <= found.merged + 1e-12).all()
    assert (found.merged <= found.high + 1e-12).all()
    assert found.low.size == found.high.size == 2 * found.edges.size + 1


def test_one_of_the_two_chances_is_calibrated():
    """Of 600 fresh worlds of 30 rows, the chance that belongs to what happened is right on average at every level."""
    rng = np.random.default_rng(0)
    stated, came = [], []
    for _ in range(600):
        s = rng.random(31)
        y = rng.random(31) < s**2  # scores that overstate
        found = fit_venn_abers(s[:30], y[:30])
        at = places(found.edges, s[30:])[0]
        stated.append(found.high[at] if y[30] else found.low[at])
        came.append(y[30])
    stated, came = np.array(stated), np.array(came)
    for low, high in ((0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.01)):
        part = (stated >= low) & (stated < high)
        error = stated[part].mean() - came[part].mean()
        assert abs(error) < 4 * np.sqrt(0.25 / part.sum())


def test_a_score_that_is_none_is_refused():
    """NaN has no place among scores."""
    with pytest.raises(MeasureError, match="finite"):
        fit_venn_abers([np.nan], [True])
