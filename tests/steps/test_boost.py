"""Rows beyond the fair draw: estimates stay unbiased, weights undo them, nothing is drawn twice."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from overproof.data import Example, Request, TestSet, Traffic, TrafficRecord
from overproof.steps.boost import boosted, drawn_for
from overproof.steps.promptset import PromptSetRecipe, promptset
from overproof.task import Slice

VIP = Slice(name="vip", where=(("tier", ("vip",)),), critical=True)


def draw(seed, floors):
    """4,000 rows, two overlapping rare slices with error rates of their own; a fair draw of 400 and the boost."""
    rng = np.random.default_rng(seed)
    one, two = rng.random(4_000) < 0.04, rng.random(4_000) < 0.06
    two |= one & (rng.random(4_000) < 0.5)  # they overlap more than by chance
    wrong = rng.random(4_000) < np.where(one & two, 0.5, np.where(one, 0.3, np.where(two, 0.2, 0.05)))
    taken = sorted(rng.permutation(4_000)[:400].tolist())
    inside = {"one": one, "two": two}
    extra = boosted(range(4_000), taken, inside, floors, identity=lambda i: f"{seed}:{i}", salt="s", most=400)
    examples = tuple(
        Example(request=Request(id=str(i), fields={}), target="a", boost=extra.get(i, ())) for i in [*taken, *sorted(extra)]
    )
    return inside, wrong, np.array([*taken, *sorted(extra)]), TestSet(examples=examples, labels=("a",)), extra


def test_boosted_estimates_are_unbiased_and_naive_ones_are_not():
    """Over 120 worlds the mean error of each slice and of all traffic is the true one; counting every row it is not."""
    off = {"one": [], "two": [], "": []}
    naive = []
    for seed in range(120):
        inside, wrong, rows, sealed, _ = draw(seed, {"one": 80, "two": 60})
        for name, seen in off.items():
            where = inside[name] if name else np.ones(4_000, dtype=bool)
            counted = rows[drawn_for(sealed, name) & where[rows]]
            seen.append(wrong[counted].mean() - wrong[where].mean())
        naive.append(wrong[rows].mean() - wrong.mean())
    for name, found in off.items():
        error = np.std(found) / np.sqrt(len(found))
        assert abs(np.mean(found)) < 4 * error, name
    assert np.mean(naive) > 0.02


def test_a_floor_is_reached_where_there_are_rows():
    """Each slice has its floor of rows, no row is drawn twice, and no row that was taken is drawn again."""
    inside, _, rows, sealed, extra = draw(0, {"one": 80, "two": 60})
    assert len(set(rows)) == len(rows)
    assert sum(drawn_for(sealed, "one") & inside["one"][rows]) == 80
    assert sum(drawn_for(sealed, "two") & inside["two"][rows]) == 60
    assert extra == draw(0, {"one": 80, "two": 60})[4]
    assert sum(not e.boost for e in sealed.examples) == 400


def world(n=3_000, share=0.02):
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(400)]
    records = []
    for i in range(n):
        tier = "vip" if rng.random() < share else "other"
        request = Request(
            id=f"r{i}", fields={"text": " ".join(rng.choice(words, 14))}, at=(datetime(2025, 3, 1, tzinfo=UTC) + timedelta(minutes=i)).isoformat(),
            attributes={"tier": tier},
        )  # fmt: skip
        records.append(TrafficRecord(request=request))
    return Traffic(records=tuple(records), window=(None, None), left_out={})


def test_a_rare_critical_slice_gets_rows_and_weights_undo_it_in_training():
    """Training and test have more vip rows than a plain draw; by weight, vip has its live share; the budget holds."""
    recipe = PromptSetRecipe(requests=500, clusters=0)
    plain = promptset(world(), recipe)
    more = promptset(world(), replace(recipe, critical=(VIP,), floors={"vip": 40}))

    def count(rows):
        return sum(row.request.attributes["tier"] == "vip" for row in rows)

    assert count(plain.train) < count(more.train)
    assert count(more.test) > count(plain.test)
    assert {row.boost for row in more.test} == {(), ("vip",)}
    assert all(row.request.attributes["tier"] == "vip" for row in more.test if row.boost)
    assert not any(row.boost for row in (*more.train, *more.calibration))
    assert len(more.train) + len(more.calibration) + len(more.test) <= 500
    assert sum(row.weight for row in more.train) == pytest.approx(len(more.train))
    share = sum(row.weight for row in more.train if row.request.attributes["tier"] == "vip") / len(more.train)
    live = count(world().records[:1_800]) / 1_800
    assert share == pytest.approx(live, rel=0.02)
    assert sum(k for name, k in more.funnel.items() if name != "rows read") == 3_000
    assert not any(more.leaks.values())
    (found,) = more.shares
    assert (found.slice, found.n_set) == ("vip", count(more.train))
