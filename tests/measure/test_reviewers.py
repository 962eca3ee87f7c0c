"""Agreement of two people beyond chance, with an interval that covers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overproof.errors import MeasureError
from overproof.measure.reviewers import cohen_kappa


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), max_size=60))
def test_kappa_is_symmetric_bounded_and_1_only_where_all_agree(pairs) -> None:
    """The value doesn't depend on who is first."""
    one, two = cohen_kappa([a for a, _ in pairs], [b for _, b in pairs]), cohen_kappa([b for _, b in pairs], [a for a, _ in pairs])
    assert one.same == two.same
    assert one.n == len(pairs)
    if one.value is None:
        assert len({x for pair in pairs for x in pair}) < 2
        return
    assert one.value == pytest.approx(two.value)
    assert one.low <= one.value <= one.high
    assert one.value <= 1.0 + 1e-12
    assert (one.value > 1 - 1e-9) == (one.same == one.n)


def test_the_interval_covers_the_true_kappa() -> None:
    """300 rows, people right 9 times in 10 on two labels: kappa is 0.64, and 95 % intervals hold it about 95 times in 100."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        truth = rng.integers(0, 2, 300)
        words = [np.where(rng.random(300) < 0.9, truth, 1 - truth).astype(str).tolist() for _ in range(2)]
        found = cohen_kappa(*words)
        hits += found.low <= 0.64 <= found.high
    assert 0.92 <= hits / 400 <= 0.98


def test_a_known_table_gives_the_published_variance() -> None:
    """Fleiss, Cohen and Everitt 1969, table 1: unweighted kappa .4286 with a standard error of .0538 on 200 rows."""
    table = [[53, 5, 2], [11, 14, 5], [1, 6, 3]]
    first = [str(i) for i, row in enumerate(table) for j, n in enumerate(row) for _ in range(2 * n)]
    second = [str(j) for i, row in enumerate(table) for j, n in enumerate(row) for _ in range(2 * n)]
    found = cohen_kappa(first, second)
    assert found.value == pytest.approx(0.4286, abs=5e-4)
    assert (found.high - found.low) / 2 / 1.96 == pytest.approx(0.0538, abs=2e-3)


def test_columns_of_different_length_are_refused() -> None:
    """Words that don't pair up measure nothing."""
    with pytest.raises(MeasureError):
        cohen_kappa(["a"], [])
