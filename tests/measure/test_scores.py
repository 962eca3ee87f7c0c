"""Agreement is counted over the rows that can be compared, and never named as truth."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, f1_score

from overproof.errors import MeasureError
from overproof.measure import scores as sc

LABELS = ["a", "b", "c"]
ROWS = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1, max_size=50)


def test_accuracy_is_against_gold_and_fidelity_against_the_teacher():
    """The two carry different names, and rows without gold are in neither's n by accident."""
    answers, teacher, gold = ["a", "b", "b", None], ["a", "b", "a", "a"], ["a", None, "b", "b"]
    true, faithful = sc.accuracy(answers, gold), sc.fidelity(answers, teacher)
    assert (true.metric, true.good, true.n) == ("accuracy", 2, 3)
    assert (faithful.metric, faithful.good, faithful.n) == ("fidelity", 2, 4)
    assert true.low < true.value < true.high


def test_without_gold_there_is_no_accuracy():
    """No value and the whole interval, not zero and not one."""
    shown = sc.accuracy(["a", "b"], [None, None])
    assert (shown.value, shown.low, shown.high, shown.n) == (None, 0.0, 1.0, 0)
    assert sc.macro_f1(["a"], [None], LABELS) is None


@given(ROWS)
def test_macro_f1_and_confusion_are_those_of_scikit_learn(rows):
    """Oracle: an independent implementation, over the labels that occur."""
    answers, right = map(list, zip(*rows, strict=True))
    assert sc.macro_f1(answers, right, LABELS) == pytest.approx(f1_score(right, answers, average="macro"))
    table = sc.confusion(answers, right, LABELS)
    assert [list(row) for row in table.counts] == confusion_matrix(right, answers, labels=LABELS).tolist()
    assert (table.n, table.elsewhere) == (len(rows), 0)


def test_answers_that_are_no_label_count_against_the_student():
    """They are wrong everywhere, and the confusion table says how many it can't show."""
    answers, right = ["a", None, "zebra"], ["a", "a", "b"]
    assert sc.accuracy(answers, right).good == 1
    assert sc.macro_f1(answers, right, LABELS) == pytest.approx((2 / 3 + 0) / 2)
    assert sc.confusion(answers, right, LABELS).elsewhere == 2


@given(st.lists(st.tuples(*[st.sampled_from(LABELS)] * 2, st.sampled_from([*LABELS, None])), max_size=60))
def test_the_two_by_two_splits_the_rows_with_gold(rows):
    """Four counts that sum to the rows with gold; a student that always agrees differs nowhere."""
    answers, teacher, gold = ([row[i] for row in rows] for i in range(3))
    table = sc.two_by_two(answers, teacher, gold)
    known = [row for row in rows if row[2] is not None]
    assert table.right_agree == sum(s == t == g for s, t, g in known)
    assert table.right_differ == sum(t == g != s for s, t, g in known)
    assert table.wrong_agree == sum(s == t != g for s, t, g in known)
    assert table.wrong_differ == sum(s != t and t != g for s, t, g in known)
    follower = sc.two_by_two(teacher, teacher, gold)
    assert follower.right_differ == follower.wrong_differ == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda: sc.accuracy(["a"], []),
        lambda: sc.fidelity([], ["a"]),
        lambda: sc.confusion(["a"], ["zebra"], LABELS),
        lambda: sc.confusion(["a"], ["a"], ["a", "a"]),
        lambda: sc.two_by_two(["a"], ["a"], []),
    ],
)
def test_columns_that_do_not_belong_together_are_refused(call):
    """Different lengths and unknown right labels raise."""
    with pytest.raises(MeasureError):
        call()
