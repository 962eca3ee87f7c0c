"""What the prompt set says of itself: distances before and after, gaps that are shown, chains, theatre."""

import random

import numpy as np
import pytest
from tests.steps.made_traffic import record, text, traffic_of, world

from overproof.measure.leakage import clusters
from overproof.steps.chains import giant_notes, linked
from overproof.steps.match_checks import theatre
from overproof.steps.matching import LIKE
from overproof.steps.promptset import PromptSetRecipe, promptset


def two_topics(n=2_000, seed=0):
    """Traffic of two topics with words of their own; the second is a tenth of it."""
    rng = random.Random(seed)
    words = {"card": [f"card{i}" for i in range(60)], "parcel": [f"parcel{i}" for i in range(60)]}
    records = []
    for i in range(n):
        topic = "parcel" if rng.random() < 0.1 else "card"
        records.append(record(i, " ".join(rng.choices(words[topic], k=14)), minutes=i, channel=rng.choice(["a", "b"])))
    return traffic_of(records)


def test_matching_brings_the_set_nearer_to_the_live_mix():
    """Over four seeds the matched set is nearer than a plain draw by groups of like messages and by attribute."""
    traffic, before, after = two_topics(800), {LIKE: [], "channel": []}, {LIKE: [], "channel": []}
    for seed in range(4):
        found = promptset(traffic, PromptSetRecipe(requests=150, match=("channel",), seed=seed, clusters=4))
        for one in found.distances:
            before[one.view].append(one.before)
            after[one.view].append(one.after)
            assert one.after_low <= one.after <= one.after_high
            assert one.n_live == 800
    for view, plain in before.items():
        assert np.mean(after[view]) < 0.7 * np.mean(plain)


def test_gaps_show_messages_that_training_lacks_and_no_sealed_one():
    """A topic that appears after the training period is listed with examples; none of them is a test row's text."""
    rng = random.Random(1)
    records = [record(i, text(rng), minutes=i) for i in range(1_000)]
    for i in range(650, 1_000, 4):
        records[i] = record(i, " ".join(f"mug{rng.randrange(15)}" for _ in range(14)), minutes=i)
    found = promptset(traffic_of(records), PromptSetRecipe())
    first = found.gaps[0]
    assert all("mug" in example for example in first.examples)
    assert 1 < len(first.examples) <= 5
    assert first.low < first.share < first.high
    sealed = {row.request.text for row in found.test}
    assert not any(example in sealed for gap in found.gaps for example in gap.examples)
    assert found.gap_rows <= 800


@pytest.mark.parametrize("seed", range(5))
def test_no_chain_of_sessions_and_repeats_crosses_splits(seed):
    """Rows joined by any chain that isn't giant are in one split, and the funnel still counts every row once."""
    traffic = world(300, seed)
    found = promptset(traffic, PromptSetRecipe())
    assert sum(k for name, k in found.funnel.items() if name != "rows read") == 300
    rows = [r.request for r in traffic.records]
    joined = linked(clusters([r.text for r in rows]).near, [r.session for r in rows])
    place = {r.id: int(joined.group[i]) for i, r in enumerate(rows)}
    splits = {"train": found.train, "calibration": found.calibration, "test": found.test}
    seen = {split: {place[row.request.id] for row in one} for split, one in splits.items()}
    assert not seen["train"] & (seen["calibration"] | seen["test"])
    assert not seen["calibration"] & seen["test"]


def test_a_giant_chain_is_taken_apart_and_reported():
    """Sessions that all say thanks are one chain: each row stands alone in it, and the reader is told."""
    near = np.array([0 if i % 2 else i + 1 for i in range(400)])
    sessions = [f"s{i // 2}" for i in range(400)]
    found = linked(near, sessions)
    assert found.giants == (400,)
    assert len(set(found.group.tolist())) == 400
    notes = giant_notes(near, found, ["thanks"] * 400)
    assert any("400 of 400" in note for note in notes)
    assert any("200 of 400 rows ('thanks'" in note for note in notes)
    short = linked(np.arange(6), ["a", "a", None, "b", "b", None])
    assert short.group.tolist() == [0, 0, 2, 3, 3, 5]
    assert short.giants == ()


def test_theatre_is_three_valued():
    """Few copies pass, many fail, and too few rows to tell is no pass but says how many more it takes."""
    assert theatre(0, 400, at_most=0.2).outcome == "pass"
    assert theatre(200, 400, at_most=0.2).outcome == "fail"
    small = theatre(1, 10, at_most=0.2)
    assert small.outcome == "not-run"
    assert "more rows" in small.todo
    assert theatre(0, 0, at_most=0.2).outcome == "not-run"
