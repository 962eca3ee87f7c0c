"""Posted labels change few training rows, in the task's own answers, and never what a person said."""

from overproof.data import CalibrationSet, Example, Labelled, Request, TestSet, TrainSet
from overproof.outputs import Field, Fields
from overproof.steps.heed import HeedRecipe, heed, take_heeded

LABELS = ("bug", "billing")


def example(number, gold=None, **more):
    given = {"request": Request(id=f"r{number}", fields={"text": f"t{number}"}), "target": "bug", "gold": gold,
             "gold_from": "feedback" if gold else "log", "agreement": 0.5}  # fmt: skip
    return Example(**{**given, **more})


def labelled(train, *, held=(), output=None):
    labels = () if output else LABELS
    sets = {"labels": labels, "output": output}
    return Labelled(train=TrainSet(examples=tuple(train), **sets), calibration=CalibrationSet(examples=tuple(held), **sets),
                    test=TestSet(examples=tuple(held), **sets), dropped=(), counts={"train: kept": len(train)})  # fmt: skip


def test_a_posted_label_takes_the_place_of_the_teacher_s_within_the_share():
    """One of a hundred; which one depends on ids alone, not on their order."""
    rows = [example(i, "billing" if i % 2 else None) for i in range(100)]
    done = heed(labelled(rows), HeedRecipe())
    changed = [e for e in done.labelled.train.examples if e.label_from == "feedback"]
    assert [(e.target, e.agreement) for e in changed] == [("billing", 1.0)]
    assert done.counts == {"feedback over the share that is believed, ignored": 49, "feedback, corrected": 1}
    back = heed(labelled(rows[::-1]), HeedRecipe())
    assert [e.request.id for e in back.labelled.train.examples if e.label_from == "feedback"] == [changed[0].request.id]
    assert take_heeded(done, HeedRecipe()) is done.labelled
    assert [e for e in done.labelled.train.examples if e.label_from != "feedback"] == [e for e in rows if e.request.id != changed[0].request.id]


def test_words_that_are_no_answer_and_rows_that_a_person_reviewed_are_left_alone():
    rows = [example(1, "nonsense"), example(2, "billing", label_from="review-fix"), example(3, "billing", gold_from="log")]
    done = heed(labelled(rows), HeedRecipe(at_most=1.0))
    assert list(done.labelled.train.examples) == rows
    assert done.counts == {"feedback that is no answer of the task, ignored": 1}


def test_calibration_and_sealed_rows_are_never_touched():
    held = [example(9, "billing")]
    done = heed(labelled([example(1, "billing")], held=held), HeedRecipe(at_most=1.0))
    assert list(done.labelled.calibration.examples) == list(done.labelled.test.examples) == held
    assert done.counts == {"feedback, corrected": 1}


def test_a_record_is_taken_in_the_task_s_spelling():
    """And counts as confirmed where it says the same."""
    output = Fields(fields=(Field(name="total", type="number"),))
    rows = [example(1, '{"total": 5.0}', target='{"total":5}'), example(2, "{}", target='{"total":5}')]
    done = heed(labelled(rows, output=output), HeedRecipe(at_most=1.0))
    assert done.counts == {"feedback that is no answer of the task, ignored": 1, "feedback, confirmed": 1}
