"""The prompt set: nothing straddles, every row is counted, and it matches the traffic."""

import random
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.steps.made_traffic import START, VOCABULARY, text, traffic_of

from overproof.data import Completion, PromptRow, Request, TrafficRecord
from overproof.errors import DataError
from overproof.measure.leakage import normalised
from overproof.steps.promptset import SPLITS, PromptSetRecipe, leaks, promptset


def record(i, body, *, minutes=None, session=None, gold=None, **attributes):
    at = None if minutes is None else (START + timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z")
    request = Request(id=f"r{i}", fields={"text": body}, at=at, session=session, attributes=attributes)
    return TrafficRecord(request=request, gold=gold)


def world(n=400, seed=0, *, duplicates=0.3, sessions=0.3):
    """Traffic with repeated and edited texts, sessions, and two attributes."""
    rng = random.Random(seed)
    bodies, records = [], []
    for i in range(n):
        if bodies and rng.random() < duplicates:
            words = rng.choice(bodies).split()
            if rng.random() < 0.5:
                words[rng.randrange(len(words))] = rng.choice(VOCABULARY)
            body = " ".join(words)
        else:
            body = text(rng)
            bodies.append(body)
        session = f"s{rng.randrange(n // 4)}" if rng.random() < sessions else None
        tier = rng.choices(["guest", "plus", "business"], [6, 3, 1])[0]
        records.append(record(i, body, minutes=i, session=session, tier=tier, language=rng.choice(["en", "de"])))
    return traffic_of(records)


def sets(found):
    return {split: getattr(found, split) for split in SPLITS}


def ids(found):
    return {split: [row.request.id for row in rows] for split, rows in sets(found).items()}


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from([None, 60, 150, 10_000]),
    st.sampled_from([(), ("tier",), ("tier", "language")]),
    st.floats(0, 0.5),
    st.booleans(),
)
def test_nothing_straddles_and_every_row_is_counted(seed, requests, match, duplicates, near):
    """Whatever the traffic: no text, group or session is in two splits, and the funnel adds up to the window."""
    traffic = world(200, seed, duplicates=duplicates)
    recipe = PromptSetRecipe(requests=requests, match=match, seed=seed, near_duplicates=near)
    found = promptset(traffic, recipe)
    for key in (lambda r: r.group, lambda r: r.request.session, lambda r: normalised(r.request.text), lambda r: r.request.id):
        seen = [{key(row) for row in rows} - {None} for rows in sets(found).values()]
        assert not seen[0] & (seen[1] | seen[2])
        assert not seen[1] & seen[2]
    assert not any(found.leaks.values())
    funnel = dict(found.funnel)
    assert funnel.pop("rows read") == len(traffic.records) == sum(funnel.values())
    for split, rows in sets(found).items():
        assert funnel[f"in {split}"] == len(rows)
        assert sum(row.weight for row in rows) == pytest.approx(len(rows))
    if requests:
        assert sum(map(len, sets(found).values())) <= requests


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.randoms())
def test_the_order_of_the_window_does_not_matter(seed, rng):
    """Rows with times give the same set in any order, and the same set again."""
    traffic = world(150, seed)
    shuffled = list(traffic.records)
    rng.shuffle(shuffled)
    recipe = PromptSetRecipe(requests=100, match=("tier",), seed=3)
    assert promptset(traffic_of(shuffled), recipe) == promptset(traffic, recipe)
    assert ids(promptset(traffic, replace(recipe, seed=4))) != ids(promptset(traffic, recipe))


def test_test_rows_are_the_newest_and_stay_as_traffic_falls():
    """Every test row is newer than every other; a text that repeats in the test period repeats in the test set."""
    rng = random.Random(1)
    hot = text(rng)
    records = [record(i, hot if i % 10 == 0 else text(rng), minutes=i) for i in range(200)]
    found = promptset(traffic_of(records), PromptSetRecipe())
    assert ids(found)["test"] == [f"r{i}" for i in range(160, 200)]
    assert sum(row.request.text == hot for row in found.test) == 4
    assert not any(row.request.text == hot for row in (*found.train, *found.calibration))
    assert found.funnel["train: same request as a test row"] == 12
    assert found.funnel["calibration: same request as a test row"] == 4
    assert all(row.weight == 1 for row in found.test)


def test_near_duplicates_leave_training_not_the_test_set():
    """A one-word edit of a test row is not learned from; without near-duplicates it would be."""
    rng = random.Random(2)
    records = [record(i, text(rng), minutes=i) for i in range(100)]
    last = records[-1].request.fields["text"].split()
    records[5] = record(5, " ".join([*last[:-1], "changed"]), minutes=5)
    assert "r5" not in ids(promptset(traffic_of(records), PromptSetRecipe()))["train"]
    loose = promptset(traffic_of(records), PromptSetRecipe(near_duplicates=False))
    assert "r5" in ids(loose)["train"]
    row = next(row for row in loose.test if row.request.id == "r99")
    assert row.near_train > 0.8


def test_training_duplicates_become_one_weighted_row():
    """Ten equal requests are one training row that weighs ten times a single one; an answered row speaks for them."""
    rng = random.Random(3)
    records = [record(i, text(rng), minutes=i) for i in range(100)]
    body = records[0].request.fields["text"]
    for i in range(10):
        records[i] = record(i, body.upper() if i % 2 else body, minutes=i)
    answer = Completion(text="bug", value=None, model="m")
    records[4] = replace(records[4], completion=answer)
    found = promptset(traffic_of(records), PromptSetRecipe())
    row = next(row for row in found.train if row.request.id == "r4")
    single = next(row for row in found.train if row.request.id == "r20")
    assert row.weight == pytest.approx(10 * single.weight)
    assert row.recorded == answer
    assert found.funnel["train: exact duplicate, counted in another row's weight"] == 9


def test_one_request_of_a_session_is_tested():
    """Sealed and calibration rows are independent draws; a session of the test period is gone from training."""
    rng = random.Random(4)
    records = [record(i, text(rng), minutes=i, session=f"s{(i + 1) // 3}") for i in range(200)]
    found = promptset(traffic_of(records), PromptSetRecipe())
    for rows in (found.test, found.calibration):
        sessions = [row.request.session for row in rows]
        assert len(set(sessions)) == len(sessions)
    assert len({row.request.session for row in found.train}) < len(found.train)
    assert found.funnel["test: another request of a drawn session"] == 40 - len(found.test) > 0
    assert found.funnel["calibration: same session as a test row"] == 2  # s53 holds rows 158, 159 and 160
    assert found.funnel["train: same session as a calibration row"] > 0


def test_a_smaller_set_keeps_the_live_shares():
    """Drawn to a budget, the weighted set has the live mix of the named attributes, also where training lost rows."""
    rng = random.Random(5)
    records = []
    for i in range(3_000):
        tier = rng.choices(["guest", "plus", "business"], [80, 15, 5])[0]
        # Half of the plus rows repeat a text that is tested, so that training loses them.
        body = f"{text(random.Random(7))}" if tier == "plus" and rng.random() < 0.5 else text(rng)
        records.append(record(i, body, minutes=i, tier=tier))
    recipe = PromptSetRecipe(requests=600)
    plain, matched = promptset(traffic_of(records), recipe), promptset(traffic_of(records), replace(recipe, match=("tier",)))
    assert matched.distance < 0.02 < plain.distance
    shares = {one.value: one for one in matched.match}
    assert shares["business"].set_share == pytest.approx(shares["business"].live_share, abs=0.01)
    assert shares["plus"].n_live == sum(r.request.attributes["tier"] == "plus" for r in records)
    assert (len(matched.test), len(matched.calibration)) == (120, 120)


def test_a_declared_split_is_obeyed():
    """Rows go where they say; calibration is cut from training where nobody declared it; odd rows are counted out."""
    rng = random.Random(6)
    parts = ["train"] * 300 + ["test"] * 80 + ["holdout"] * 5
    records = [record(i, text(rng), part=part) for i, part in enumerate(parts)]
    body = records[310].request.fields["text"]
    records[0] = record(0, body + " x", part="train")
    found = promptset(traffic_of(records), PromptSetRecipe(split="attribute:part"))
    assert {row.request.attributes["part"] for row in found.test} == {"test"}
    assert {row.request.attributes["part"] for row in (*found.train, *found.calibration)} == {"train"}
    assert len(found.test) == 80
    assert 35 <= len(found.calibration) <= 85
    assert found.funnel["no split declared"] == 5
    assert "r0" not in ids(found)["train"] + ids(found)["calibration"]
    assert "time order" not in found.leaks
    assert any("holdout" in note for note in found.notes)
    declared = [record(i, text(rng), part=SPLITS[i % 3]) for i in range(90)]
    assert [len(rows) for rows in sets(promptset(traffic_of(declared), PromptSetRecipe(split="attribute:part"))).values()] == [30] * 3


def test_leaks_can_be_kept_and_counted_or_refused():
    """`flag` leaves the rows in place and counts them; `refuse` stops the run and says how many."""
    traffic = world(300, 8, duplicates=0.4, sessions=0)
    flagged = promptset(traffic, PromptSetRecipe(on_leak="flag"))
    assert flagged.leaks["near-duplicate"] > flagged.leaks["exact text"] > 0
    with pytest.raises(DataError, match="near-duplicates of test rows"):
        promptset(traffic, PromptSetRecipe(on_leak="refuse"))


def test_the_leak_check_sees_each_kind_of_leak():
    """The check works on the finished sets: a planted text, group, session or newer row is counted."""

    def row(i, body="x", *, group=None, session=None, minutes=0):
        made = record(i, body, minutes=minutes, session=session)
        return PromptRow(request=made.request, weight=1, group=group or f"g{i}")

    test = (row(1, "Hello", group="g", session="s", minutes=9),)
    sound = (row(2, "other", minutes=1),)
    assert set(leaks(sound, sound[:0], test, by_time=True).values()) == {0}
    planted = {
        "exact text": row(3, "hello "),
        "near-duplicate": row(4, group="g"),
        "session": row(5, session="s"),
        "time order": row(6, minutes=10),
    }
    for name, one in planted.items():
        assert leaks((one, *sound), (), test, by_time=True) == {**dict.fromkeys([*planted, "supplement outside training"], 0), name: 1}
        assert leaks((), (one,), test, by_time=True)[name] == 1


def test_a_log_without_times_is_split_in_its_order_and_says_so():
    """Row order stands in for time, and the report's reader is told."""
    rng = random.Random(9)
    found = promptset(traffic_of([record(i, text(rng)) for i in range(100)]), PromptSetRecipe())
    assert ids(found)["test"] == [f"r{i}" for i in range(80, 100)]
    assert any("no times" in note for note in found.notes)


@pytest.mark.parametrize(
    ("records", "recipe", "words"),
    [
        ([], PromptSetRecipe(), "no rows"),
        ([record(i, f"message number {i}") for i in range(49)], PromptSetRecipe(), "49 usable rows, at least 50"),
        ([record(i % 60, f"m{i}") for i in range(61)], PromptSetRecipe(), "'r0' occurs 2 times"),
        ([record(i, f"{i} m") for i in range(60)], PromptSetRecipe(split="attribute:part"), "no row has the attribute 'part'"),
        ([record(i, f"{i} m") for i in range(60)], PromptSetRecipe(split="random"), "'random' is unknown"),
        ([record(i, "the same") for i in range(60)], PromptSetRecipe(), "no train rows|no calibration rows"),
        ([record(i, f"{i} m", session="one") for i in range(60)], PromptSetRecipe(), "no calibration rows|no train rows"),
        ([record(i, f"{i} m") for i in range(60)], PromptSetRecipe(test_share=0.6, calibration_share=0.5), "leave no rows"),
    ],
)
def test_what_can_not_work_says_why(records, recipe, words):
    """Too little, too alike, or wrongly described traffic is an error with the reason."""
    with pytest.raises(DataError, match=words):
        promptset(traffic_of(records), recipe)


def test_every_count_is_in_the_funnel_in_order():
    """The funnel starts with the rows read and ends with the three sets."""
    found = promptset(world(300, 11), PromptSetRecipe(requests=120))
    names = list(found.funnel)
    assert names[0] == "rows read"
    assert names[-3:] == ["in train", "in calibration", "in test"]
    assert Counter(names).most_common(1)[0][1] == 1
