"""Near-duplicates, similarity to training rows, novelty bins."""

import doctest
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import overproof.measure.leakage as room
from overproof.errors import MeasureError
from overproof.measure.leakage import (
    clusters,
    coverage_gaps,
    near_duplicate,
    nearest_similarity,
    normalised,
    novelty_bins,
)

STEMS = ["order", "card", "parcel", "refund", "invoice", "account", "login", "charge", "driver", "voucher", "speaker"]


def world(n, seed=0, least=14, most=30):
    """Messages of random words, and one-word edits of the first half; no two originals are alike."""
    rng = random.Random(seed)
    vocabulary = [f"{stem}{chr(97 + i % 26)}{chr(97 + i // 26 % 26)}" for i in range(300) for stem in STEMS]
    texts = [" ".join(rng.sample(vocabulary, rng.randint(least, most))) for _ in range(n)]
    edits = []
    for text in texts[: n // 2]:
        words = text.split()
        at, kind = rng.randrange(len(words)), rng.randrange(3)
        words[at : at + 1] = ([rng.choice(vocabulary)], [], [words[at], rng.choice(vocabulary)])[kind]
        edits.append(" ".join(words))
    return texts, edits


def test_doctests():
    """The examples in the docstrings hold."""
    assert doctest.testmod(room).failed == 0


def test_planted_edits_are_found_and_unlike_rows_stay_apart():
    """Of one-word edits of messages with 14 words or more at least 99 % join their original, of unlike rows at most 0.5 %."""
    texts, edits = world(3_000)
    near = clusters(texts + edits).near
    assert np.mean([near[i] == near[len(texts) + i] for i in range(len(edits))]) >= 0.99
    originals = near[: len(texts)].tolist()
    assert sum(originals.count(g) > 1 for g in originals) / len(texts) <= 0.005


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("Where is my order?", "where  is my ORDER", True),
        ("where is my refund please", "where is my refnud please", False),
        ("my parcel was left at the wrong door today", "my parcel was left at the wrong doors today", True),
        ("I lost my card", "I lost my phone", False),
        ("why was my card declined", "why was my transfer declined", False),
        ("why was my top up by card declined this week", "why was my top up by transfer declined this week", False),
        ("hi", "hi!", True),
        ("hi", "ho", False),
        ("👍", "👎", False),
        ("カードを紛失しました助けてください", "カードを紛失しました助けてください。", True),
    ],
)
def test_short_requests_are_joined_by_spelling_not_by_one_word(left, right, same):
    """In a short request one other word is another request; marks, case and a letter are not."""
    near = clusters([left, right]).near
    assert (near[0] == near[1]) == same


def test_groups_agree_with_comparing_all_pairs():
    """Banding misses nothing: the groups are those of the verified relation over all pairs, on rows full of near-misses."""
    texts, edits = world(150, seed=3, least=8, most=16)
    chain, twice = edits, [" ".join([*text.split()[1:], "please"]) for text in edits]
    folded = sorted({normalised(t) for t in texts + chain + twice})
    parent = list(range(len(folded)))
    for i in range(len(folded)):
        for j in range(i):
            if near_duplicate(folded[i], folded[j]):
                old, new = parent[i], parent[j]
                parent = [new if p == old else p for p in parent]
    want = {frozenset(i for i, p in enumerate(parent) if p == q) for q in set(parent)}
    near = clusters(folded).near.tolist()
    assert {frozenset(i for i, p in enumerate(near) if p == q) for q in set(near)} == want
    assert len(want) < len(folded)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text("ab c", max_size=30), min_size=1, max_size=12), st.randoms())
def test_groups_do_not_depend_on_the_order(texts, rng):
    """The same texts in another order fall into the same groups, equal texts always into one."""
    order = list(range(len(texts)))
    rng.shuffle(order)
    first, again = clusters(texts), clusters([texts[i] for i in order])
    assert again.near.tolist() == [first.near[i] for i in order]
    for i, left in enumerate(texts):
        for j, right in enumerate(texts):
            assert (normalised(left) == normalised(right)) == (first.exact[i] == first.exact[j])
            assert first.exact[i] != first.exact[j] or first.near[i] == first.near[j]


def test_without_near_only_equal_texts_are_grouped():
    """`near=False` groups what is equal once normalised and nothing else."""
    found = clusters(["a long enough message here", "a long enough message here!", "A long enough message  here"], near=False)
    assert found.near[0] == found.near[2] != found.near[1]


def test_a_hot_template_stays_linear():
    """Thousands of fillings of one template become one group in seconds, not in a quadratic time."""
    texts = [f"order {i} please tell me now where it is i am waiting for many days thanks a lot" for i in range(8_000)]
    assert len(set(clusters(texts).near.tolist())) == 1


def test_nearest_similarity_agrees_with_a_plain_computation():
    """The cosine is that of TF-IDF weights from the training rows, over all words of both texts."""
    train = ["where is my order", "cancel my card", "my card my card"]
    others = ["is my zebra here", "cancel MY card", "nothing", ""]
    words = sorted({w for t in train + others for w in t.lower().split()})
    rarity = np.array([np.log(4 / (1 + sum(w in t.split() for t in train))) + 1 for w in words])

    def vector(text):
        v = np.array([text.lower().split().count(w) for w in words]) * rarity
        return v / (np.linalg.norm(v) or 1)

    want = [max(vector(o) @ vector(t) for t in train) for o in others]
    assert nearest_similarity(train, others) == pytest.approx(np.array(want))


def test_similarity_of_a_row_does_not_depend_on_its_company():
    """A row's familiarity is a fact about the row and the training rows."""
    train = ["alpha beta gamma", "delta epsilon"]
    alone = nearest_similarity(train, ["alpha delta omega"])
    assert nearest_similarity(train, ["omega"] * 300 + ["alpha delta omega"])[-1] == pytest.approx(alone[0])
    assert nearest_similarity(train, []).shape == (0,)
    with pytest.raises(MeasureError):
        nearest_similarity([], ["x"])


def test_novelty_bins_are_left_closed_and_unknown_stays_unknown():
    """An edge belongs to the bin above it, 1 to the last bin, NaN to none."""
    bins = novelty_bins(np.array([0.0, 0.3, 0.299, 0.8, 1.0, np.nan]))
    assert [bins.names[i] if i >= 0 else None for i in bins.index] == [
        "0.0-0.3", "0.3-0.4", "0.0-0.3", "0.8-1.0", "0.8-1.0", None,
    ]  # fmt: skip
    with pytest.raises(MeasureError):
        novelty_bins(np.array([1.2]))


def scattered(rng, centre, n, spread=0.05):
    return np.asarray(centre) + rng.normal(0, spread, (n, len(centre)))


def test_planted_holes_in_training_are_found_and_ranked_by_traffic():
    """Two topics that training never saw, the busier one first, with examples from its middle; known rows aren't in."""
    rng = np.random.default_rng(0)
    train = scattered(rng, [1, 0, 0, 0], 400)
    live = np.concatenate(
        [scattered(rng, [1, 0, 0, 0], 300), scattered(rng, [0, 1, 0, 0], 40, 0.01), scattered(rng, [0, 0, 1, 0], 60, 0.01)]
    )
    found = coverage_gaps(train, live)
    first, second = found.gaps[:2]
    assert set(first.rows) <= set(range(340, 400))
    assert set(second.rows) <= set(range(300, 340))
    assert len(first.rows) > 50
    assert len(second.rows) > 30
    assert len(first.examples) == 5
    assert set(first.examples) <= set(first.rows)
    assert found.far_share == pytest.approx(0.25, abs=0.04)
    assert sum(gap.share for gap in found.gaps) == pytest.approx(found.far_share)
    everything = sorted(row for gap in found.gaps for row in gap.rows)
    assert len(everything) == len(set(everything))
    weight = np.where((np.arange(400) >= 300) & (np.arange(400) < 340), 10.0, 1.0)
    assert set(coverage_gaps(train, live, traffic=weight).gaps[0].rows) <= set(range(300, 340))


def test_live_rows_like_training_rows_are_far_in_one_case_of_twenty():
    """The radius is the 95% quantile of each training row's distance to its nearest other one."""
    rng = np.random.default_rng(1)
    found = coverage_gaps(rng.normal(0, 1, (1500, 8)), rng.normal(0, 1, (3000, 8)))
    assert found.far_share == pytest.approx(0.05, abs=0.02)


def test_gaps_dont_depend_on_the_length_of_vectors_and_cover_more_than_one_block(monkeypatch):
    """600 far rows in one heap are one gap."""
    monkeypatch.setattr(room, "BLOCK", 6000)
    rng = np.random.default_rng(2)
    train = scattered(rng, [1, 0, 0], 100)
    live = scattered(rng, [0, 1, 0], 600, 0.001)
    found = coverage_gaps(train, live * rng.uniform(0.1, 9, (600, 1)))
    assert [len(gap.rows) for gap in found.gaps] == [600]
    assert found.far_share == pytest.approx(1.0)


def test_a_gap_is_grown_from_its_middle_not_from_its_edge():
    """Three far rows in a line, an end given first: one gap about the middle row instead of two."""
    angle = lambda values: np.column_stack([np.cos(values), np.sin(values)])  # noqa: E731
    found = coverage_gaps(angle(np.arange(10) / 10), angle(np.array([2.0, 2.16, 2.08])))
    assert found.radius == pytest.approx(0.1, abs=0.001)
    assert [gap.examples for gap in found.gaps] == [(2, 0, 1)] or [gap.examples for gap in found.gaps] == [(2, 1, 0)]


def test_coverage_needs_rows_of_one_encoder():
    """Two training rows, one live row, weights that count something."""
    for train, live, weight in (
        ([[1.0, 0.0]], [[1.0, 0.0]], None),
        ([[1.0, 0.0]] * 2, [[1.0, 0.0, 0.0]], None),
        ([[1.0, 0.0]] * 2, np.zeros((0, 2)), None),
        ([[1.0, 0.0]] * 2, [[1.0, 0.0]], [0.0]),
        ([[1.0, 0.0]] * 2, [[1.0, 0.0]], [1.0, 1.0]),
    ):
        with pytest.raises(MeasureError):
            coverage_gaps(train, live, traffic=weight)
