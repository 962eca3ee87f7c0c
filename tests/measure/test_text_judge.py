"""A judge of texts is a metric only where people's words show what it errs; else it says so and decides nothing."""

import numpy as np
import pytest

from overproof.errors import MeasureError
from overproof.measure.text_judge import judged_share, judged_verdict


def world(rng, *, n=500, known=120, share=0.8, catches=0.85, spares=0.9):
    """Answers of which `share` is right, a judge that errs, and people who never do on the first ones of the draw."""
    truth = rng.random(n) < share
    said = np.where(truth, rng.random(n) < spares, rng.random(n) >= catches)
    return said.tolist(), [bool(t) if at < known else None for at, t in enumerate(truth)]


@pytest.mark.parametrize(("share", "catches", "spares"), [(0.8, 0.85, 0.9), (0.6, 0.7, 0.95), (0.9, 0.95, 0.7)])
def test_the_corrected_interval_holds_the_truth_where_the_judges_own_share_does_not(share, catches, spares) -> None:
    """200 worlds: the interval misses in fewer than 5 %, is no wider than a fifth more than people's own, and the judge's is mostly wrong."""
    rng = np.random.default_rng(3)
    found = [judged_share(*world(rng, share=share, catches=catches, spares=spares)) for _ in range(200)]
    sure = [one for one in found if one.calibrated]
    assert len(sure) > 140
    assert sum(not one.low <= share <= one.high for one in sure) <= 8
    assert np.mean([one.high - one.low for one in sure]) < 1.2 * np.mean([one.by_people.high - one.by_people.low for one in sure])
    assert sum(not one.seen.low <= share <= one.seen.high for one in found) > 120


def test_a_good_judge_that_reads_much_more_than_people_do_narrows_the_interval() -> None:
    """12,000 answers judged, 300 by people: clearly narrower than people's words alone, and still true."""
    rng = np.random.default_rng(5)
    found = [judged_share(*world(rng, n=12000, known=300, catches=0.98, spares=0.99)) for _ in range(30)]
    assert sum(not one.low <= 0.8 <= one.high for one in found) <= 3
    assert np.mean([one.high - one.low for one in found]) < 0.85 * np.mean([one.by_people.high - one.by_people.low for one in found])


def test_people_who_were_shown_the_worst_rows_alone_are_found_out() -> None:
    """Words that can't be a sample of the judged rows give no figure."""
    found = judged_share([True] * 2000 + [False] * 100, [None] * 1990 + [True] * 10 + [False] * 100)
    assert not found.calibrated
    assert "left to chance" in found.why


@pytest.mark.parametrize(
    ("said", "known", "why"),
    [
        ([True] * 300, [None] * 300, "people spoke on 0"),
        ([True] * 300, [True] * 49 + [None] * 251, "people spoke on 49"),
        ([True] * 30 + [False] * 12, [True] * 30 + [False] * 12, "people spoke on 42"),
        ([True] * 191 + [False] * 9, [True] * 191 + [False] * 9, "191 right and 9 wrong"),
        ([True] * 200, [True, False] * 50 + [None] * 100, "not shown to object to wrong answers more often"),
        ([False] * 200, [True, False] * 50 + [None] * 100, "not shown to object to wrong answers more often"),
        ([True, False] * 100, [False, True] * 50 + [None] * 100, "not shown to object to wrong answers more often"),
    ],
)
def test_a_judge_that_is_not_calibrated_has_no_value_and_passes_no_bar(said, known, why) -> None:
    """Too few words, one kind alone, a judge that always says the same, one that says the opposite."""
    found = judged_share(said, known)
    assert (found.calibrated, found.value, found.low, found.high) == (False, None, 0.0, 1.0)
    assert why in found.why
    assert found.words.startswith("judge not calibrated")
    assert [judged_verdict(found, bar) for bar in (0.0, 0.5, 1.0)] == ["undecided"] * 3


def test_a_bar_is_decided_only_where_the_whole_interval_lies_on_one_side() -> None:
    """Pass below the interval, fail above it, undecided inside; a mean that is above the bar does not do."""
    rng = np.random.default_rng(1)
    found = judged_share(*world(rng, n=2000, known=500, catches=0.97, spares=0.97))
    assert found.low < found.value < found.high
    bars = (found.low - 0.01, found.low + 0.01, found.value - 0.001, found.high + 0.01)
    assert [judged_verdict(found, bar) for bar in bars] == ["pass", "undecided", "undecided", "fail"]
    assert f"{found.value:.1%}" in found.words


def test_what_does_not_fit_is_refused() -> None:
    """Columns of another length, and a bar in per cent."""
    with pytest.raises(MeasureError):
        judged_share([True], [])
    with pytest.raises(MeasureError):
        judged_verdict(judged_share([True], [None]), 80)
