"""Records and texts are counted as a person would count them, and no interval is surer than its documents allow."""

import itertools
import json
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from overproof.errors import MeasureError
from overproof.measure import records
from overproof.outputs import Field, Fields, Text, chrf

KIND = Fields(fields=(Field(name="who", optional=True), Field(name="sum", type="number", optional=True)))
RECORDS = st.fixed_dictionaries({"who": st.sampled_from([None, "Ann", "ann ", "Bo"]), "sum": st.sampled_from([None, 1, 1.0, 2.5])})
ROWS = st.lists(st.tuples(st.none() | RECORDS, RECORDS), min_size=1, max_size=12)


def same(left, right):
    return left.strip().casefold() == right.strip().casefold() if isinstance(left, str) else Decimal(str(left)) == Decimal(str(right))


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_precision_recall_and_f1_are_those_counted_value_by_value(rows):
    """Oracle: plain loops over documents and fields; null against null is in no count but the one of sameness."""
    answers = [None if ours is None else KIND.parse(json.dumps(ours)) for ours, _ in rows]
    truths = [KIND.parse(json.dumps(theirs)) for _, theirs in rows]
    found = records.field_scores(KIND, answers, truths)
    hits, given, wanted = 0, 0, 0
    for at, name in enumerate(("who", "sum")):
        hit = gave = want = 0
        for ours, theirs in rows:
            left, right = (ours or {}).get(name), theirs[name]
            gave, want = gave + (left is not None), want + (right is not None)
            hit += left is not None and right is not None and same(left, right)
        one = found.fields[at]
        assert (one.name, one.precision.good, one.precision.n, one.recall.n) == (name, hit, gave, want)
        assert one.f1.value == (pytest.approx(2 * hit / (gave + want)) if gave + want else None)
        hits, given, wanted = hits + hit, given + gave, wanted + want
    if given + wanted:
        assert found.f1.value == pytest.approx(2 * hits / (given + wanted))
        assert found.f1.low <= found.f1.value <= found.f1.high
    else:
        assert (found.f1.value, found.f1.low, found.f1.high) == (None, 0.0, 1.0)
    assert found.precision.value == (pytest.approx(hits / given) if given else None)
    whole = sum(
        ours is not None and all((a is None and b is None) or (a is not None and b is not None and same(a, b)) for a, b in ((ours[k], theirs[k]) for k in theirs))
        for ours, theirs in rows
    )
    assert (found.exact.good, found.exact.n, found.n) == (whole, len(rows), len(rows))


def test_no_answer_is_a_wrong_record_even_where_nothing_was_wanted():
    """A student that says nothing gives no field; the whole of it is wrong all the same."""
    empty = KIND.write({})
    found = records.field_scores(KIND, [None, empty], [empty, empty])
    assert (found.exact.good, found.exact.n, found.f1.value) == (1, 2, None)
    assert found.fields[0].same.good == 2


def test_ten_right_documents_do_not_prove_that_all_are():
    """The bootstrap of F1 would say [1, 1] here; the interval stays open below and gets shorter with more documents."""
    record = KIND.write({"who": "Ann", "sum": Decimal(3)})
    few, many = (records.field_scores(KIND, [record] * n, [record] * n).f1 for n in (10, 200))
    assert few.value == many.value == 1.0
    assert few.low < 0.75 < 0.97 < many.low
    assert few.high == many.high == 1.0


@pytest.mark.parametrize(("n", "fields", "good"), [(25, 3, 0.9), (80, 4, 0.8), (80, 1, 0.97)])
def test_the_interval_holds_the_true_f1_at_least_as_often_as_it_says(n, fields, good):
    """Made-up documents of which some are bad throughout, so that fields of one document are far from independent."""
    rng = np.random.default_rng(7)

    def documents(rows):
        chance = np.where(rng.random((rows, 1)) < 0.15, 0.2, good)
        want, right = rng.random((rows, fields)) < 0.7, rng.random((rows, fields)) < chance
        give = np.where(right, want, rng.random((rows, fields)) < 0.5)
        return (want & give & right).sum(1) / fields, (want.sum(1) + give.sum(1)) / 2 / fields

    part, whole = documents(200_000)
    truth = part.sum() / whole.sum()
    found = [records.ratio_interval(*documents(n), draws=4, seed=seed) for seed in range(200)]
    assert sum(one.low <= truth <= one.high for one in found) >= 185  # 95 % of 200, less three standard deviations
    # Not by being empty talk: within twice of what a normal approximation with known variance would say.
    spread = np.std([a.sum() / b.sum() for a, b in (documents(n) for _ in range(300))])
    assert np.mean([one.high - one.low for one in found]) < 2 * 3.92 * spread


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30), st.integers(0, 5))
@example([(5e-324, 1.0)], 0)
def test_the_interval_holds_its_own_share_and_turns_round_with_it(rows, seed):
    """Whatever the numbers: inside [0, 1], around the share seen, and mirrored for the share that is missing."""
    whole = np.array([max(row) for row in rows])
    part = np.array([min(row) for row in rows])
    found = records.ratio_interval(part, whole, seed=seed)
    other = records.ratio_interval(np.maximum(whole - part, 0), whole, seed=seed)
    assert 0 <= found.low <= found.high <= 1
    if whole.any():
        assert found.low - 1e-9 <= part.sum() / whole.sum() <= found.high + 1e-9
        assert (other.low, other.high) == (pytest.approx(1 - found.high, abs=1e-5), pytest.approx(1 - found.low, abs=1e-5))


def longest(left, right):
    """All subsequences of the shorter one, tried from the longest."""
    for size in range(len(left), -1, -1):
        for pick in itertools.combinations(left, size):
            rest = iter(right)
            if all(word in rest for word in pick):
                return size
    raise AssertionError


WORDS = st.lists(st.sampled_from(["a", "b", "c"]), max_size=7)


@given(WORDS, WORDS)
def test_rouge_l_is_the_longest_common_subsequence_of_words(left, right):
    """Oracle: every subsequence is tried."""
    found = records.rouge_l(" ".join(left), " ".join(right).upper())
    wanted = 2 * longest(left, right) / (len(left) + len(right)) if left and right else float(left == right)
    assert found == pytest.approx(wanted)


def test_texts_are_means_over_documents_and_silence_counts_as_nothing_alike():
    """The task's own similarity decides sameness; ROUGE-L and chrF stand beside it, against the reference."""
    kind = Text(same_at=0.9)
    answers, truths = ["The parcel is late.", "no", None], ["the  parcel is LATE.", "yes, of course", "ok"]
    found = records.text_scores(kind, answers, truths)
    assert (found.same.good, found.same.n, found.n) == (1, 3, 3)
    assert found.similarity.value == pytest.approx((1 + kind.similarity("no", "yes, of course")) / 3)
    assert found.chrf.value == pytest.approx((chrf(answers[0], truths[0]) + chrf("no", "yes, of course")) / 3)
    assert found.rouge_l.value == pytest.approx(1 / 3)
    assert found.similarity.low < found.similarity.value < found.similarity.high


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: records.field_scores(KIND, [None], []),
        lambda: records.text_scores(Text(), ["a"], []),
        lambda: records.field_scores(KIND, ["no record"], [KIND.write({})]),
        lambda: records.field_scores(KIND, ['{"who": ["Ann"]}'], [KIND.write({})]),
        lambda: records.ratio_interval([0.5], [0.4]),
        lambda: records.ratio_interval([float("nan")], [1.0]),
        lambda: records.ratio_interval([0.5], [1.0], level=1.0),
    ],
)
def test_what_can_not_be_counted_is_refused_with_a_next_action(wrong):
    """Columns that don't match, records that are none, numbers outside their range."""
    with pytest.raises(MeasureError) as caught:
        wrong()
    assert caught.value.next_action
