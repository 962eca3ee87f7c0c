import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from overproof.errors import MeasureError
from overproof.measure.words import WordCounts, _tail, count_words, new_words, told_words


def traffic(rng, rows, *, vocabulary=3_000, length=12, news=0.0):
    """Counts of messages whose words are drawn as in a language: few common ones, many rare ones."""
    chance = 1.0 / np.arange(1, vocabulary + 1)
    chance /= chance.sum()
    counts: dict[str, int] = {}
    for _ in range(rows):
        words = {f"w{at}" for at in rng.choice(vocabulary, size=length, p=chance)}
        if rng.random() < news:
            words.add("akku")
        for word in words:
            counts[word] = counts.get(word, 0) + 1
    return WordCounts(rows=rows, counts=counts)


def test_words_that_are_not_new_are_rarely_named():
    """At level 0.1 no more than one week in ten names anything, over three slices of the same language."""
    rng = np.random.default_rng(0)
    usual = [traffic(rng, 500) for _ in range(3)]
    named = sum(bool(new_words([(traffic(rng, 80), one) for one in usual], tolerance=1.0, level=0.1)) for _ in range(40))
    assert named <= 8  # P(more) < 1 % at a rate of one in ten


def test_a_new_word_is_named_first():
    """One message in ten speaks of a new product: it is named, with its counts, and nothing else is."""
    rng = np.random.default_rng(1)
    live, usual = traffic(rng, 120, news=0.1), traffic(rng, 800)
    found = new_words([(live, usual)], tolerance=1.25, level=0.003)
    assert [one.word for one in found] == ["akku"]
    assert (found[0].k, found[0].n, found[0].k_reference, found[0].m_reference) == (live.counts["akku"], 120, 0, 800)


def test_the_slice_that_has_it_is_named():
    """The group tells in which pair of counts the word is new."""
    usual = WordCounts(rows=500, counts={"order": 100})
    pairs = [(WordCounts(rows=100, counts={"order": 22}), usual), (WordCounts(rows=100, counts={"order": 19, "akku": 9}), usual)]
    assert [(one.word, one.group) for one in new_words(pairs, tolerance=1.25, level=0.01)] == [("akku", 1)]


@given(st.integers(0, 30), st.integers(0, 60), st.floats(0.01, 0.9))
@settings(max_examples=80, deadline=None)
def test_the_tail_is_the_binomials(k, rest, q):
    """P(X >= k), exactly."""
    found = _tail(np.array([float(k)]), np.array([float(k + rest)]), q)[0]
    assert found == pytest.approx(scipy.stats.binom.sf(k - 1, k + rest, q), rel=1e-9, abs=1e-12)


def test_numbers_and_codes_are_no_words():
    """Order numbers are new every day and tell nothing."""
    assert told_words("Order NL-84713 for 12,99 € is lost, lost!") == {"order", "for", "lost"}
    assert count_words(["a b", ""]).rows == 2


def test_impossible_counts_are_refused():
    """More rows with a word than rows, or a level that is none."""
    with pytest.raises(MeasureError, match="more rows"):
        new_words([(WordCounts(rows=2, counts={"a": 3}), WordCounts(rows=5, counts={}))], tolerance=1.25, level=0.01)
    with pytest.raises(MeasureError, match="level"):
        new_words([], tolerance=1.25, level=0.0)
