"""With against without: rows come back as they were, and the verdict says no more than the discordant rows show."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overproof.data import CalibrationSet, Dropped, Example, Folder, Labelled, Request, TestSet, TrainSet
from overproof.errors import DataError
from overproof.evidence import Scores
from overproof.steps.ablate import CompareRecipe, PutBackRecipe, UnmendRecipe, compare, put_back, unmend

LABELS = ("a", "b")


def row(i, target="a", **more):
    return Example(request=Request(id=str(i), fields={"text": f"t{i}"}), target=target, **more)


def labelled(train, dropped=()):
    return Labelled(
        train=TrainSet(examples=tuple(train), labels=LABELS), calibration=CalibrationSet(examples=(), labels=LABELS),
        test=TestSet(examples=(), labels=LABELS), dropped=tuple(dropped), counts={},
    )  # fmt: skip


def gone(i, by, split="train", target="b"):
    return Dropped(request=Request(id=f"d{i}", fields={"text": f"d{i}"}), split=split, by=by, reason="r", text="x", target=target, gold="a", weight=3.0)


@pytest.fixture
def scored(tmp_path):
    """Scores that answer right where the list says so; truth is always "a"."""

    def make(name, right):
        folder = tmp_path / f"{name}-{np.packbits(right).tobytes().hex()[:80]}-{len(right)}"
        folder.mkdir(exist_ok=True)
        np.save(folder / "logits.npy", np.array([[1.0, 0.0] if r else [0.0, 1.0] for r in right], dtype=np.float32))
        return Scores(
            name=name, kind="student", folder=Folder(path=folder), n=len(right), latency_s=0.1, latency_p95_s=0.1,
            cost_usd_per_1000=0.0, size_bytes=1, parameters=1,
        )  # fmt: skip

    return make


def effect(scored, first, second, rows, **more):
    return compare(scored("with", first), scored("without", second), CalibrationSet(examples=tuple(rows), labels=LABELS), CompareRecipe(**{"rule": "r", "rows": 5, "rules": 1, **more}))


def test_one_rules_rows_come_back_as_they_were_and_no_others() -> None:
    """Label, truth and weight of the row; rows without a label and rows of other splits stay out."""
    found = put_back(labelled([row(0)], [gone(1, "x"), gone(2, "y"), gone(3, "x", split="test"), gone(4, "x", target="")]), PutBackRecipe(rule="x"))
    assert [(e.request.id, e.target, e.gold, e.weight) for e in found.examples] == [("0", "a", None, 1.0), ("d1", "b", "a", 3.0)]


def test_unmending_gives_the_same_rows_with_their_first_labels() -> None:
    """Rows that were left out since stay out."""
    before = labelled([row(0), row(1), row(2, "b")])
    after = labelled([row(2, "a", weight=0.5, label_from="mended"), row(0)])
    assert unmend(after, before, UnmendRecipe()).examples == (before.train.examples[2], before.train.examples[0])


def test_verdicts_follow_the_discordant_rows(scored) -> None:
    """30 against 5 rows is a verdict, 20 against 15 is none; the interval is on the side of the verdict."""
    rows = [row(i, gold="a") for i in range(200)]
    base = [True] * 100 + [False] * 100
    up, down = [True] * 95 + [False] * 5 + [True] * 30 + [False] * 70, [True] * 70 + [False] * 30 + [True] * 5 + [False] * 95
    helps, hurts = effect(scored, up, base, rows), effect(scored, down, base, rows)
    assert (helps.verdict, hurts.verdict, helps.metric) == ("helps", "hurts", "accuracy")
    assert (helps.only_without_wrong, helps.only_with_wrong, helps.n) == (30, 5, 200)
    assert helps.low > 0 > hurts.high
    assert helps.gain == pytest.approx(0.125) == -hurts.gain
    assert (helps.with_rule.good, helps.without.good) == (125, 100)
    level = [True] * 85 + [False] * 15 + [True] * 20 + [False] * 80
    none = effect(scored, level, base, rows)
    assert none.verdict == "can't tell"
    assert none.low < 0 < none.high
    assert none.p > 0.4


def test_rules_that_are_judged_together_share_the_admitted_error(scored) -> None:
    """14 against 4 rows, p = .031: enough for one rule, too little for three."""
    rows = [row(i, gold="a") for i in range(100)]
    base, ours = [True] * 4 + [False] * 96, [False] * 4 + [True] * 14 + [False] * 82
    assert effect(scored, ours, base, rows).verdict == "helps"
    three = effect(scored, ours, base, rows, rules=3)
    assert three.verdict == "can't tell"
    assert three.level == pytest.approx(1 - 0.05 / 3)


def test_gold_and_the_teachers_label_are_never_mixed(scored) -> None:
    """From 30 rows of gold on gold alone counts; below, the teacher's label on all rows; mending waits for gold."""
    right = [True] * 100
    some = [row(i, gold="a" if i < 30 else None) for i in range(100)]
    few = [replace(e, gold=None) if i == 0 else e for i, e in enumerate(some)]
    picked = [replace(e, gold_from="review-fix") if i == 0 else e for i, e in enumerate(some)]
    assert (effect(scored, right, right, some).metric, effect(scored, right, right, some).n) == ("accuracy", 30)
    for rows in (few, picked):
        assert (effect(scored, right, right, rows).metric, effect(scored, right, right, rows).n) == ("fidelity", 100)
        waits = effect(scored, right, [False] * 100, rows, gold_only=True)
        assert (waits.n, waits.gain, waits.verdict, waits.low, waits.high) == (0, None, "can't tell", -1.0, 1.0)
        assert "are needed" in waits.words


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=30, max_size=120))
def test_swapping_the_two_students_turns_the_verdict_round(scored, pairs) -> None:
    """Nothing in the comparison favours the rule; a verdict's interval never reaches to the other side of nothing."""
    rows = [row(i, gold="a") for i in range(len(pairs))]
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    one, other = effect(scored, first, second, rows), effect(scored, second, first, rows)
    turned = {"helps": "hurts", "hurts": "helps", "can't tell": "can't tell"}
    assert other.verdict == turned[one.verdict]
    assert other.gain == pytest.approx(-one.gain)
    assert (other.low, other.high) == pytest.approx((-one.high, -one.low))
    assert one.p == pytest.approx(other.p)
    assert (one.verdict == "can't tell") == (one.p > one.delta)


def test_scores_of_other_rows_are_refused(scored) -> None:
    """A count on the wrong rows would be a false verdict."""
    with pytest.raises(DataError, match="scores of shape"):
        effect(scored, [True] * 3, [True] * 3, [row(i) for i in range(4)])
