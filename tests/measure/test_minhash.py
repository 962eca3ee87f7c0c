"""Candidates: every planted pair is found, unlike texts are never joined, memory per text is what the text says."""

import random
import re

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from overproof.measure.leakage import clusters, near_duplicate, normalised
from overproof.measure.minhash import flattened, root_of, sketch, words_of

WORDS = [a + b + c for a in "bdfgk" for b in "aeiou" for c in ("lmo", "nto", "rsa", "pti", "zzu")]


def test_planted_edits_are_found_and_nothing_else_is_joined():
    """Of 600 one-word edits in 2,000 messages all are found, and every group is a chain of verified pairs."""
    rng = random.Random(0)
    originals = [" ".join(rng.choices(WORDS, k=rng.randint(13, 24))) for _ in range(1_400)]
    edits = []
    for text in originals[:600]:
        parts = text.split()
        parts[rng.randrange(len(parts))] = "edited"
        edits.append(" ".join(parts))
    texts = [*originals, *edits]
    found = clusters(texts).near
    close = [i for i in range(600) if near_duplicate(originals[i], edits[i])]
    assert len(close) > 550
    assert all(found[i] == found[1_400 + i] for i in close)
    for group in np.unique(found):
        members = np.flatnonzero(found == group).tolist()
        joined, rest = {members[0]}, set(members[1:])
        while more := {i for i in rest if any(near_duplicate(texts[i], texts[j]) for j in joined)}:
            joined |= more
            rest -= more
        assert not rest


def test_a_hot_template_is_one_group_and_hides_no_other():
    """Among 3,000 fillings of one long template, an edited pair of another text is still found."""
    template = " ".join(WORDS[:30])
    pair = [" ".join(WORDS[40:60]), " ".join([*WORDS[40:59], "other"])]
    found = clusters([*(f"{template} {i}" for i in range(3_000)), *pair]).near
    assert len(set(found[:3_000])) == 1
    assert found[3_000] == found[3_001] != found[0]


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=30))
def test_the_fast_way_to_words_is_the_slow_way(text):
    """Whatever the text: plain splitting is taken only where it gives the same words."""
    folded = normalised(text)
    assert words_of(folded) == re.findall(r"\w+", folded)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=12), min_size=2, max_size=30))
def test_any_texts_can_be_sketched(texts):
    """Empty texts, single characters, emoji and surrogates included; equal trigrams give equal signatures."""
    folded = [normalised(text) for text in texts]
    found = sketch([*folded, folded[0]], long_from=12, short_below=18).short
    assert len(found.rows) == len(texts) + 1
    assert (found.marks[0] == found.marks[-1]).all()
    assert (found.bands[:, 0] == found.bands[:, -1]).all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=30))
def test_the_forest_flattens_to_its_roots(pairs):
    """However it grew, `flattened` and `root_of` agree."""
    forest = np.arange(20)
    for a, b in pairs:
        one, two = root_of(forest, a), root_of(forest, b)
        forest[max(one, two)] = min(one, two)
    assert flattened(forest).tolist() == [root_of(forest, i) for i in range(20)]
