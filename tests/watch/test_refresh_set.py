"""The next prompt set: what failed trains and never proves, chance alone chooses what proves, and nobody can fill it."""

import random
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.steps.made_traffic import START, VOCABULARY, text, traffic_of

from overproof.data import Completion, Failed, Request, Served, TrafficRecord
from overproof.errors import DataError
from overproof.measure.leakage import clusters
from overproof.outputs import Classes
from overproof.steps.capture import LogSnapshot
from overproof.steps.promptset import SPLITS, PromptSetRecipe, promptset
from overproof.steps.refresh import RefreshRecipe, refresh
from overproof.steps.survey import row_hash

OUTPUT = Classes(labels=("good", "bad"))
MODEL = "big-2026-01-01"
SINCE = (START + timedelta(days=10)).isoformat()
RECIPE = RefreshRecipe(task="t", release_id="r1", model=MODEL, output=OUTPUT, since=SINCE, until="2100-01-01T00:00:00Z", rows=150, match=("tier",))
TIERS = {"guest": 0.7, "plus": 0.3}


def new_row(i, body, *, passed_on=False, key="", user=None, tier="guest", answer="good", model=MODEL, **how):
    served = Served(
        **{"route": "teacher" if passed_on else "student", "reason": "below_threshold" if passed_on else "confident", "stage": "full",
           "endpoint": "/v1/chat/completions", "status": 200, "latency_s": 0.1, "overhead_s": 0.0, "task": "t", "release": "r1", "key": key, **how}
    )  # fmt: skip
    at = (START + timedelta(days=11, minutes=i)).isoformat()
    request = Request(id=f"n{i}", fields={"text": body}, at=at, attributes={"tier": tier, **({"user": user} if user else {})})
    return TrafficRecord(request=request, completion=Completion(text=answer, value=None, model=model), served=served)


def live_rows(n=400, seed=0, *, passed_on=0.25, keys=0, users=0):
    rng = random.Random(seed)
    found = []
    for i in range(n):
        sender = {"key": f"k{rng.randrange(keys)}" if keys else "", "user": f"u{rng.randrange(users)}" if users else None}
        found.append(new_row(i, text(rng), passed_on=rng.random() < passed_on, tier=rng.choices(*zip(*TIERS.items(), strict=True))[0], **sender))
    return found


@pytest.fixture(scope="module")
def reference():
    rng = random.Random(77)
    rows = [
        TrafficRecord(request=Request(id=f"o{i}", fields={"text": text(rng)}, at=(START + timedelta(minutes=i)).isoformat(),
                                      attributes={"tier": rng.choices(*zip(*TIERS.items(), strict=True))[0]}))
        for i in range(300)
    ]  # fmt: skip
    return promptset(traffic_of(rows), PromptSetRecipe(match=("tier",)))


def following(reference, live, failed=None, **changes):
    bare = [replace(r, completion=None if r.served.route == "student" else r.completion, served=None) for r in live]
    return refresh(traffic_of(bare), LogSnapshot(records=tuple(live)), reference, failed or Failed(), replace(RECIPE, **changes))


def split_of(found):
    return {row.request.id: split for split in SPLITS for row in getattr(found.prompts, split)}


def new_training(found):
    return [row for row in found.prompts.train if found.why[row.request.id] != "reference"]


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 1000), st.floats(0.05, 0.8), st.sampled_from([0, 30]), st.sampled_from([60, 150, 2000]))
def test_every_row_has_its_reason_and_nothing_straddles(reference, seed, share, users, rows):
    """Rows of the release stay where they were; what was picked is in training alone; each row is counted once."""
    live = live_rows(250, seed, passed_on=share, users=users)
    found = following(reference, live, Failed(named={"n3": "audit", "n8": "cluster"}), seed=seed, rows=rows)
    places = split_of(found)
    assert set(places) == set(found.why)
    assert {places[i] for i, why in found.why.items() if why in ("audit", "cluster", "escalated")} <= {"train"}
    assert not any(found.prompts.leaks.values())
    assert sum(found.counts.values()) == len(places)
    assert {r.request.id for r in reference.test} <= {r.request.id for r in found.prompts.test}
    funnel = dict(found.prompts.funnel)
    assert funnel.pop("rows read") == sum(funnel.values()) == 300 - (reference.funnel["rows read"] - sum(len(getattr(reference, s)) for s in SPLITS)) + 250
    assert set(found.served) <= {i for i, split in places.items() if split == "train"}
    bought = [i for i, why in found.why.items() if why != "reference" and i not in found.served]
    assert len(bought) <= max(min(100, rows), round(250 / 3) + 1)
    assert following(reference, live, Failed(named={"n3": "audit", "n8": "cluster"}), seed=seed, rows=rows) == found


def test_whether_a_row_failed_plays_no_part_in_what_proves(reference):
    """The draw of sealed and calibration rows is the same whatever the student and the audits said of them."""
    calm, stormy = live_rows(passed_on=0.0), live_rows(passed_on=0.9)
    one = following(reference, calm)
    other = following(reference, stormy, Failed(named={f"n{i}": "audit" for i in range(0, 400, 3)}))
    for split in ("test", "calibration"):
        assert [r.request.id for r in getattr(one.prompts, split)] == [r.request.id for r in getattr(other.prompts, split)]
    assert other.fresh
    assert len(other.fresh) == sum(r.request.id.startswith("n") for r in other.prompts.test)


def test_only_whole_answers_of_the_pinned_teacher_to_this_task_are_learned_from(reference):
    """Not the student's, not cut, refused or failed ones, no other model's or task's, none that a caller marked as wrong."""
    rng = random.Random(5)
    odd = [
        new_row(1000, text(rng)), new_row(1001, text(rng), passed_on=True, model="other"), new_row(1002, text(rng), passed_on=True, task="u"),
        new_row(1003, text(rng), passed_on=True, status=500), new_row(1004, text(rng), passed_on=True, truncated=True),
        new_row(1005, text(rng), passed_on=True, answer="neither nor"), new_row(1008, text(rng), passed_on=True),
    ]  # fmt: skip
    cut = new_row(1006, text(rng), passed_on=True)
    refused = new_row(1007, text(rng), passed_on=True)
    odd += [replace(cut, completion=replace(cut.completion, finish="length")), replace(refused, completion=replace(refused.completion, reason="cut"))]
    fine = [new_row(2000 + i, text(rng), passed_on=True, answer=" BAD. " if i % 2 else "bad") for i in range(40)]
    found = following(reference, [*live_rows(100, passed_on=0), *odd, *fine], Failed(wrong=("n1008",)))
    assert len(found.served) > 15
    assert set(found.served) <= {r.request.id for r in fine}
    assert {one.value for one in found.served.values()} == {"bad"}
    assert found.served == following(reference, [*live_rows(100, passed_on=0), *odd, *fine], Failed(wrong=("n1008",))).served
    assert not following(reference, [*live_rows(100, passed_on=0), *fine], learn_served=False).served


@pytest.mark.parametrize("keys", [0, 40])
def test_a_flood_of_one_sender_fills_no_more_than_its_share(reference, keys):
    """Of all escalations 40 % are one key's, or one user's where there are no keys; by count and by weight it gets 5 %."""
    rng = random.Random(1)
    honest = live_rows(400, 1, passed_on=0.25, keys=keys, users=0 if keys else 60)
    many = round(sum(r.served.route == "teacher" for r in honest) * 2 / 3)
    who = {"key": "flood"} if keys else {"user": "flood"}
    flood = [new_row(5000 + i, text(rng), passed_on=True, answer="bad", **who) for i in range(many)]
    found = following(reference, [*honest, *flood], rows=400)
    new = new_training(found)
    planted = [r for r in new if int(r.request.id[1:]) >= 5000]
    assert len(new) > 60
    assert 1 <= len(planted) <= 0.05 * len(new)
    assert sum(r.weight for r in planted) <= 0.05 * sum(r.weight for r in new) + 1e-9
    assert found.capped["too many of one sender"] > 30
    senders = Counter((r.request.attributes["user"] if not keys else next(x.served.key for x in [*honest, *flood] if x.request.id == r.request.id)) for r in new)
    assert max(senders.values()) <= max(1, 0.05 * len(new))
    assert sum(int(i[1:]) >= 5000 for i in following(reference, [*honest, *flood], rows=400, per_principal=1.0).served) > 30  # the cap it was


def test_a_few_keys_are_applications_whose_users_count(reference):
    """With three keys a cap of 5 % would leave nothing; each user of each key stands for itself."""
    found = following(reference, live_rows(400, keys=3, users=80))
    assert len(new_training(found)) > 60
    assert not any("Nobody knows who sent" in note for note in found.prompts.notes)
    assert any("Nobody knows who sent" in note for note in following(reference, live_rows(400)).prompts.notes)


def test_a_flood_of_near_duplicates_gets_three_rows(reference):
    """From as many users as you like."""
    rng = random.Random(2)
    words = text(rng, 40).split()
    flood = []
    for i in range(120):
        own = list(words)
        own[rng.randrange(40)] = rng.choice(VOCABULARY)
        flood.append(new_row(5000 + i, " ".join(own), passed_on=True, user=f"v{i}"))
    assert len(set(clusters([r.request.text for r in flood]).near.tolist())) < 3
    found = following(reference, [*live_rows(300, 3, users=100), *flood], rows=400)
    planted = [r for r in new_training(found) if int(r.request.id[1:]) >= 5000]
    assert len(planted) <= 3
    assert found.capped.get("too many near-duplicates", 0) > 80 or "new: shares a text or a session with a row that proves" in found.prompts.funnel


def test_what_was_picked_does_not_move_the_mix(reference):
    """All that failed is of one tier with 30 % of the traffic: training stays within the bound of it, by weights or by taking less."""
    live = [replace(r, served=replace(r.served, route="teacher", reason="below_threshold")) if r.request.attributes["tier"] == "plus" else r
            for r in live_rows(400, 4, passed_on=0)]  # fmt: skip
    found = following(reference, live, rows=400)
    assert found.counts["train: escalated"] > 30
    tiers = Counter()
    for row in found.prompts.train:
        tiers[row.request.attributes["tier"]] += row.weight
    live_share = sum(r.request.attributes["tier"] == "plus" for r in live) / len(live)
    assert abs(tiers["plus"] / sum(tiers.values()) - live_share) <= 0.05
    assert all(one.after <= 0.05 + 1e-9 or one.view != "tier" for one in found.prompts.distances)
    assert np.mean([r.weight for r in found.prompts.train]) == pytest.approx(1.0)


def test_rows_that_chance_drew_stand_for_more_than_themselves(reference):
    """Escalated rows are all there and others a few of many: by weight the others come back towards their live share."""
    live = live_rows(400, 6, passed_on=0.25)
    found = following(reference, live)
    failed = {r.request.id for r in live if r.served.route == "teacher"}
    new = new_training(found)
    share = sum(r.weight for r in new if r.request.id in failed) / sum(r.weight for r in new)
    raw = sum(r.request.id in failed for r in new) / len(new)
    assert raw > 0.5
    assert len(failed) / 400 <= share <= raw - 0.1


def test_worn_rows_retire_and_none_comes_back(reference):
    """They neither prove nor train, and rows that were opened meanwhile are not drawn."""
    live = live_rows(400, 8)
    first = following(reference, live)
    opened = [r.request.id for r in (*reference.test, *first.prompts.test)]
    second = following(reference, live, Failed(worn=tuple(row_hash(i) for i in opened)))
    assert not {r.request.id for r in second.prompts.test} & set(opened)
    assert not {r.request.id for r in reference.test} & set(second.why)
    assert len(second.prompts.test) > 40


def test_unlike_rows_are_found_and_taken(reference):
    """Twenty messages of words that training has never seen are picked although nobody named them."""
    rng = random.Random(9)
    odd = [new_row(7000 + i, " ".join(rng.choice(["volcano", "lava", "ash", "crater", "magma"]) for _ in range(9)) + f" x{i}") for i in range(20)]
    found = following(reference, [*live_rows(300, 9), *odd], per_group=20)
    why = Counter(found.why.get(f"n{7000 + i}", "") for i in range(20))
    assert why["cluster"] >= 5


def test_too_little_traffic_is_said(reference):
    """Forty rows make no refresh; rows of the future belong to the next one."""
    with pytest.raises(DataError, match="40 requests of the task came since release r1"):
        following(reference, live_rows(40))
    with pytest.raises(DataError, match="0 requests"):
        following(reference, live_rows(300), until=SINCE)
