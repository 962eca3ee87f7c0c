"""What each rule of the filter did, and what is known about whether it was right."""

from overproof.data import CalibrationSet, Dropped, Example, Labelled, Request, TestSet, TrainSet
from overproof.steps.filter_report import rules_of


def dropped(rule: str, target: str, gold: str | None, split: str = "train") -> Dropped:
    request = Request(id=f"{rule}-{target}-{gold}", fields={"text": "some words"})
    return Dropped(request=request, split=split, by=rule, reason="r", text="t", target=target, gold=gold)


def labelled(*rows: Dropped, kept: int = 10) -> Labelled:
    examples = tuple(Example(request=Request(id=str(i), fields={"text": "x"}), target="a") for i in range(kept))
    return Labelled(
        train=TrainSet(examples=examples, labels=("a", "b")),
        calibration=CalibrationSet(examples=(), labels=("a", "b")),
        test=TestSet(examples=(), labels=("a", "b")),
        dropped=rows,
        counts={},
    )


def test_each_rule_says_how_many_it_dropped_and_how_many_of_them_were_wrong() -> None:
    """Counted on training rows that had a label; the share has an exact interval and an n."""
    rows = [dropped("regex.v1", "a", "b")] * 30 + [dropped("regex.v1", "a", "a")] * 10 + [dropped("conflict", "a", None)]
    first, second = rules_of(labelled(*rows, dropped("regex.v1", "a", "b", "test"), dropped("teach", "", "b")))
    assert (first.rule, first.rows, first.of, first.wrong.good, first.wrong.n) == ("regex.v1", 40, 51, 30, 40)
    assert first.wrong.low < 0.75 < first.wrong.high
    assert "75% of those with a true label were wrong" in first.words
    assert (second.rule, second.wrong) == ("conflict", None)
    assert "not known: review 1 of them" in second.words


def test_few_reviewed_rows_are_not_enough_to_praise_a_rule() -> None:
    """Below thirty reviewed rows the sentence asks for more."""
    (found,) = rules_of(labelled(*[dropped("regex.v1", "a", "b")] * 5, *[dropped("regex.v1", "a", None)] * 95))
    assert "too few to tell, review 25 more" in found.words
