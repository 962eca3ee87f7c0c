"""Slices: membership, partition, mixes, seeded draws."""

import doctest
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import overproof.measure.slices as room
from overproof.data import Request
from overproof.errors import DataError, MeasureError
from overproof.measure.slices import (
    assign,
    one_per_session,
    partition,
    segments,
    share_table,
    split_hash,
    total_variation,
)
from overproof.task import Slice


def request(i, **attributes):
    return Request(id=str(i), fields={"text": f"message {i}"}, attributes=attributes)


def test_doctests():
    """The examples in the docstrings hold."""
    assert doctest.testmod(room).failed == 0


def test_where_is_all_keys_and_any_value():
    """A row is in a slice iff each named attribute has one of its admitted values."""
    one = Slice(name="s", where=(("tier", ("plus", "business")), ("language", ("de",))))
    rows = [request(1, tier="plus", language="de"), request(2, tier="plus", language="en"), request(3, language="de")]
    assert assign([one], rows)[:, 0].tolist() == [True, False, False]


def test_label_slices_read_the_labels_and_only_then():
    """The attribute `label` means the label, folded as labels are; without labels it is an error, not an empty slice."""
    one = Slice(name="safety", where=(("label", ("safety_report",)), ("tier", ("plus",))))
    rows = [request(1, tier="plus"), request(2, tier="plus"), request(3, tier="guest")]
    labels = ["Safety report", "other", "safety_report"]
    assert assign([one], rows, labels)[:, 0].tolist() == [True, False, False]
    with pytest.raises(MeasureError, match="reads the label"):
        assign([one], rows)
    assert partition([one], rows).names == ("other",)


def test_functions_are_given_and_their_failures_name_the_row():
    """A user's function decides membership; where it fails, slice and request are named."""
    one = Slice(name="long", function="checks:long")
    rows = [request(1), request(22)]
    found = assign([one], rows, functions={"checks:long": lambda r: len(r.id) > 1})
    assert found[:, 0].tolist() == [False, True]
    with pytest.raises(MeasureError, match="checks:long"):
        assign([one], rows)
    with pytest.raises(DataError, match=r"'long'.*'1'"):
        assign([one], rows, functions={"checks:long": lambda r: r.missing})


def test_the_first_slice_that_matches_wins():
    """Certification slices are disjoint: file order decides, the rest is other."""
    slices = [Slice(name="de", where=(("language", ("de",)),)), Slice(name="plus", where=(("tier", ("plus",)),))]
    rows = [request(1, tier="plus", language="de"), request(2, tier="plus"), request(3)]
    found = partition(slices, rows)
    assert [found.names[i] for i in found.index] == ["de", "plus", "other"]
    with pytest.raises(MeasureError, match="'other'"):
        partition([Slice(name="other")], rows)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8).filter(any), st.data())
def test_total_variation_is_a_distance_and_agrees_with_the_largest_event(left, data):
    """It is symmetric, 0 on the same mix at any scale, and the largest difference over all sets of segments."""
    k = len(left)
    right = data.draw(st.lists(st.integers(0, 50), min_size=k, max_size=k).filter(any))
    p, q = np.array(left) / sum(left), np.array(right) / sum(right)
    events = [((p - q) * [bool(mask >> j & 1) for j in range(k)]).sum() for mask in range(2**k)]
    assert total_variation(np.array(left), np.array(right)) == pytest.approx(max(events))
    assert total_variation(np.array(left), np.array(left) * 3) == pytest.approx(0)


def test_total_variation_refuses_what_has_no_mix():
    """An empty side, other segments or negative weights are errors, not a distance of 0."""
    for left, right in (([0, 0], [1, 1]), ([1], [1, 1]), ([-1, 2], [1, 1]), ([np.nan, 1], [1, 1])):
        with pytest.raises(MeasureError):
            total_variation(np.array(left), np.array(right))


def test_shares_are_weighted_on_the_chosen_side_only():
    """Live rows count one each, chosen rows by weight, and a value that was not chosen shows as 0."""
    live = [request(i, tier="plus" if i < 3 else "guest") for i in range(10)]
    chosen = [request(20, tier="plus"), request(21, tier="gold")]
    table = {one.value: one for one in share_table(live, chosen, [3.0, 1.0], ["tier"])}
    assert (table["plus"].live_share, table["plus"].set_share) == (0.3, 0.75)
    assert (table["guest"].n_set, table["guest"].set_share, table["gold"].n_live) == (0, 0.0, 0)
    assert segments([request(1)], ["tier"]) == [("(none)",)]


def test_the_hash_split_meets_its_share_and_ignores_order_and_company():
    """Each row's side depends on its id and the salt alone, and the share comes out."""
    ids = [f"id{i}" for i in range(20_000)]
    side = split_hash(ids, "salt", 0.3)
    assert side.mean() == pytest.approx(0.3, abs=0.015)  # over four standard errors
    assert split_hash(ids[::-1][:500], "salt", 0.3).tolist() == side[::-1][:500].tolist()
    other = split_hash(ids, "pepper", 0.3)
    assert (side & other).mean() == pytest.approx(0.09, abs=0.01)


@given(st.lists(st.one_of(st.none(), st.sampled_from("abc")), max_size=30), st.randoms())
def test_one_row_of_each_session_is_drawn_whatever_the_order(sessions, rng):
    """Exactly one row per session, every row without one, and the same rows in another order."""
    ids = [str(i) for i in range(len(sessions))]
    kept = one_per_session(sessions, ids, "s")
    assert all(n == 1 for n in Counter(s for s, k in zip(sessions, kept, strict=True) if k and s).values())
    assert {s for s, k in zip(sessions, kept, strict=True) if k} == set(sessions)
    assert all(k for s, k in zip(sessions, kept, strict=True) if s is None)
    order = list(range(len(ids)))
    rng.shuffle(order)
    again = one_per_session([sessions[i] for i in order], [ids[i] for i in order], "s")
    assert again.tolist() == [kept[i] for i in order]


def test_the_draw_from_a_session_is_not_always_its_first_row():
    """Every position of a session has its chance, so that the draw is no sample of first messages."""
    sessions = [f"s{i // 4}" for i in range(4_000)]
    kept = one_per_session(sessions, [str(i) for i in range(4_000)], "x")
    share = np.bincount(np.flatnonzero(kept) % 4) / 1_000
    assert share == pytest.approx(np.full(4, 0.25), abs=0.06)
