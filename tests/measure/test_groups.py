"""Group gaps carry exact bounds for every choice of pair, and noise of the wording is not blamed on an attribute."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overproof.errors import MeasureError
from overproof.measure import groups as gr
from overproof.measure.intervals import cp_interval, cp_lower, cp_upper
from overproof.measure.paired import noninferiority


def counts(*pairs):
    return [gr.GroupCount(name=f"g{i}", k=k, n=n) for i, (k, n) in enumerate(pairs)]


@given(st.integers(0, 60), st.integers(0, 60))
def test_a_pairs_p_value_is_the_level_at_which_its_bound_meets_the_tolerance(k1, k2):
    """Pass of a lone pair at p, not below it; both directions of evidence never at once."""
    gaps = gr.group_gaps(counts((k1, 60), (k2, 60)), tolerance=0.1, d=0.1)
    for pair in gaps.pairs:
        a, b = (k1, k2) if pair.group == "g0" else (k2, k1)
        if 1e-12 < pair.p_within < 0.999:
            level = pair.p_within * 1.0001
            assert cp_upper(a, 60, level / 2) - cp_lower(b, 60, level / 2) <= 0.1
            level = pair.p_within * 0.999
            assert cp_upper(a, 60, level / 2) - cp_lower(b, 60, level / 2) > 0.1
        assert min(pair.p_within, pair.p_beyond) > 0.05 or max(pair.p_within, pair.p_beyond) > 0.5
        assert pair.low <= (a - b) / 60 <= pair.high


def test_rates_carry_their_exact_interval_and_an_empty_group_decides_nothing():
    """No rows: rate unknown, interval everything, its pairs undecided, and it is never the best."""
    gaps = gr.group_gaps(counts((5, 100), (0, 0)), tolerance=0.1, d=0.05)
    both = cp_interval(5, 100, level=0.95)
    assert (gaps.rates[0].low, gaps.rates[0].high) == (both.low, both.high)
    assert (gaps.rates[1].rate, gaps.rates[1].low, gaps.rates[1].high) == (None, 0.0, 1.0)
    assert gaps.best == "g0"
    assert {pair.verdict for pair in gaps.pairs} == {"undecided"}
    assert gaps.verdict == "undecided"


def test_all_pairs_must_pass_and_one_failure_fails():
    """Three-valued, as every bar."""
    assert gr.group_gaps(counts((20, 2000), (22, 2000), (18, 2000)), tolerance=0.02, d=0.05).verdict == "pass"
    assert gr.group_gaps(counts((20, 2000), (300, 2000), (18, 2000)), tolerance=0.02, d=0.05).verdict == "fail"
    assert gr.group_gaps(counts((2, 100), (4, 100)), tolerance=0.02, d=0.05).verdict == "undecided"


def test_of_many_equal_groups_none_is_shown_to_be_beyond_the_tolerance_while_picking_the_extremes_shows_one():
    """Eight equal groups at 10%, tolerance 0: a false gap in at most 5% of runs; the naive test of worst against best more."""
    rng = np.random.default_rng(0)
    trials, ours, naive = 300, 0, 0
    for _ in range(trials):
        k = rng.binomial(200, 0.1, 8)
        ours += gr.group_gaps(counts(*((int(x), 200) for x in k)), tolerance=0.0, d=0.05).verdict == "fail"
        spread = np.sqrt((k.max() * (200 - k.max()) + k.min() * (200 - k.min())) / 200**3)
        naive += (k.max() - k.min()) / 200 > 1.645 * spread
    assert ours / trials <= 0.05
    assert naive / trials > 0.3


def test_holm_is_the_step_down_rule():
    """By hand, and all-or-none borders count as shown."""
    assert gr.holm([0.04, 0.01, 0.2], d=0.05).tolist() == [False, True, False]
    assert gr.holm([0.02, 0.01], d=0.04).tolist() == [True, True]
    assert gr.holm([0.03, 0.03], d=0.05).tolist() == [False, False]
    assert gr.holm([], d=0.05).tolist() == []
    with pytest.raises(MeasureError):
        gr.holm([1.2], d=0.05)


def columns(group_sizes, student, teacher):
    names = [name for name, n in group_sizes for _ in range(n)]
    return names, np.asarray(student, dtype=bool), np.asarray(teacher, dtype=bool)


def test_a_gap_that_the_teacher_has_too_is_inherited_and_one_that_it_has_not_is_introduced():
    """The same rows wrong for both: inherited. Wrong for the student alone: introduced. Part of each: both."""
    n = 600
    base = np.zeros(n, dtype=bool)
    bad = np.arange(n) < 150
    worse = np.arange(n) < 240
    for student, teacher, wanted in (
        (bad, bad, "inherited"),
        (bad, base, "introduced"),
        (worse, bad, "inherited and introduced"),
        (base, bad, "no gap shown"),
    ):
        found = gr.inherited_or_introduced(
            ["a"] * n + ["b"] * n, np.concatenate([base, student]), np.concatenate([base, teacher]), tolerance=0.05, d=0.05
        )
        assert [g.origin for g in found.groups] == ["no gap shown", wanted]
        assert found.groups[1].student_only == int((student & ~teacher).sum())
        assert found.groups[1].teacher_only == int((teacher & ~student).sum())


def test_a_gap_whose_origin_the_rows_dont_show_is_undecided():
    """The student's gap is shown, the teacher's not, and the difference could be chance."""
    n = 100
    student = np.concatenate([np.zeros(n, bool), np.arange(n) < 22])
    teacher = np.concatenate([np.zeros(n, bool), np.arange(n) < 17])
    found = gr.inherited_or_introduced(["a"] * n + ["b"] * n, student, teacher, tolerance=0.08, d=0.05)
    assert found.student.verdict == "fail"
    assert found.groups[1].origin == "undecided"


def test_no_flip_in_299_pairs_certifies_one_percent_where_a_bootstrap_certifies_anything():
    """298 don't; the bootstrap interval of zero flips is [0, 0] from the first row on."""
    assert gr.flip_certificate(np.zeros(299, bool), bar=0.01, d=0.05).verdict == "pass"
    short = gr.flip_certificate(np.zeros(298, bool), bar=0.01, d=0.05)
    assert short.verdict == "undecided"
    assert short.flips.rows_needed >= 1
    few = np.zeros(10, bool)
    assert np.random.default_rng(0).choice(few, (1000, 10)).mean(axis=1).max() == 0.0
    assert gr.flip_certificate(few, bar=0.01, d=0.05).verdict == "undecided"


def test_flips_no_more_frequent_than_the_placebos_are_noise_and_more_frequent_ones_are_not():
    """4% under both: undecided instead of fail. 15% against 4%: fail, beyond noise."""
    noise = np.arange(1000) < 40
    same = gr.flip_certificate(noise, bar=0.01, d=0.05, placebo=noise)
    assert (same.verdict, same.beyond_noise) == ("undecided", False)
    assert gr.flip_certificate(noise, bar=0.01, d=0.05).verdict == "fail"
    real = gr.flip_certificate(np.arange(1000) < 150, bar=0.01, d=0.05, placebo=noise)
    assert (real.verdict, real.beyond_noise) == ("fail", True)
    calm = gr.flip_certificate(np.zeros(1000, bool), bar=0.01, d=0.05, placebo=noise)
    assert calm.verdict == "pass"


def test_flips_are_compared_with_the_teachers_on_the_same_pairs():
    """It is the exact paired test on the discordant pairs."""
    student, teacher = np.arange(500) < 10, (np.arange(500) >= 5) & (np.arange(500) < 17)
    found = gr.flip_certificate(student, bar=0.05, d=0.05, teacher_flipped=teacher, margin=0.02)
    assert found.against_teacher == noninferiority(5, 7, 500, margin=0.02, d=0.05)


def test_counts_of_flips_are_not_mistaken_for_answers():
    """Only True and False; the teacher's column must fit."""
    with pytest.raises(MeasureError):
        gr.flip_certificate([0, 3, 1], bar=0.01, d=0.05)
    with pytest.raises(MeasureError):
        gr.flip_certificate([True], bar=0.01, d=0.05, teacher_flipped=[True, False])
    with pytest.raises(MeasureError):
        gr.group_gaps(counts((1, 10)), tolerance=0.1, d=0.05)
    with pytest.raises(MeasureError):
        gr.inherited_or_introduced(["a", "b"], [True], [True], tolerance=0.1, d=0.05)
