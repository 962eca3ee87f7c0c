"""Reviews change exactly what they may: gold by chance only, targets of training rows, and others only with proof."""

from dataclasses import replace

import numpy as np
import pytest

from overproof.data import CalibrationSet, Example, Folder, Labelled, Request, TestSet, TrainSet
from overproof.evidence import Figure
from overproof.steps.mend import (
    FEATURES_FILE,
    FeaturesRecipe,
    MendRecipe,
    mend,
    read_features,
)
from overproof.steps.reviewing import settle
from overproof.steps.teacher_errors import TeacherErrorsRecipe, teacher_errors
from overproof.store.reviews import Review, Reviews

LABELS = ("a", "b", "c", "d")


def rows(split, n, seed, *, fooled):
    """Rows of four kinds; the teacher calls all of kind d by the name of c where it is fooled. Truth is in the session."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, n)
    found = []
    for i, t in enumerate(truth):
        said = LABELS[2] if fooled and t == 3 else LABELS[t]
        request = Request(id=f"{split}{i}", fields={"text": f"{split} {i}"}, session=LABELS[t], attributes={"tier": "x" if i % 2 else "y"})
        found.append(Example(request=request, target=said))
    return tuple(found)


def truth_of(example):
    return example.request.session


@pytest.fixture
def world(tmp_path):
    def make(*, fooled=True):
        train = rows("train", 500, 0, fooled=fooled)
        points = np.random.default_rng(1).normal(size=(500, 6)) + 4 * np.eye(4, 6)[[LABELS.index(truth_of(e)) for e in train]]
        np.save(tmp_path / FEATURES_FILE, points.astype(np.float32))
        labelled = Labelled(
            train=TrainSet(examples=train, labels=LABELS),
            calibration=CalibrationSet(examples=rows("cal", 60, 2, fooled=fooled), labels=LABELS),
            test=TestSet(examples=rows("test", 60, 3, fooled=fooled), labels=LABELS), dropped=(), counts={},
        )  # fmt: skip
        return labelled, Folder(path=tmp_path)

    return make


def word(example, label=None, *, queue="audit", reviewer="Ana", **more):
    return Review(
        digest=example.request.digest, request_id=example.request.id, label=label or truth_of(example), reviewer=reviewer, queue=queue, **more
    )


def words(*found):
    return Reviews(rows=tuple(found))


def test_unreviewed_rows_are_relabelled_where_the_teacher_is_surely_fooled(world) -> None:
    """80 audited rows mend the rows that nobody saw; calibration and sealed rows are untouched; the account adds up."""
    labelled, features = world()
    found = mend(labelled, features, words(*(word(e) for e in labelled.train.examples[:80])), MendRecipe())
    assert found.check.helped
    assert found.check.n == 80
    rest = found.labelled.train.examples[80:]
    assert np.mean([e.target == truth_of(e) for e in rest]) > 0.95
    assert all(e.gold is None for e in rest)
    assert found.counts["train: relabelled by what reviews taught"] == sum(e.label_from == "mended" for e in rest)
    assert sum(n for _, _, n in found.changes) == sum(e.label_from == "mended" for e in rest)
    assert found.changes[0][:2] == ("c", "d")
    assert [s.label for s in found.suspects] == ["d"]
    assert found.labelled.calibration == labelled.calibration
    assert found.labelled.test == labelled.test


def test_a_teacher_that_is_right_is_left_alone(world) -> None:
    """Without mistakes there is nothing to gain, so no unreviewed row changes, weights included."""
    labelled, features = world(fooled=False)
    found = mend(labelled, features, words(*(word(e) for e in labelled.train.examples[:80])), MendRecipe())
    assert not found.check.helped
    assert found.labelled.train.examples[80:] == labelled.train.examples[80:]


def test_rows_that_were_picked_do_not_count_in_the_check(world) -> None:
    """Reviews of the fix queue alone relabel nothing: they were picked where the teacher looked wrong."""
    labelled, features = world()
    picked = [e for e in labelled.train.examples if truth_of(e) in ("d", "a")][:120]
    found = mend(labelled, features, words(*(word(e, queue="fix") for e in picked)), MendRecipe())
    assert (found.check.n, found.check.helped) == (0, False)
    changed = [e for e in found.labelled.train.examples if e.label_from != "teacher"]
    assert {e.label_from for e in changed} == {"review-fix"}
    assert all(e.gold is None for e in changed)
    assert all(e.target == truth_of(e) for e in changed)


def test_a_picked_row_never_becomes_gold_outside_training(world) -> None:
    """Even where a fix review meets a calibration or sealed row; and a sealed row must have been reviewed blind."""
    labelled, features = world()
    cal, sealed = labelled.calibration.examples, labelled.test.examples
    reviews = words(word(cal[0], queue="fix"), word(sealed[0], queue="fix"), word(sealed[1], blind=False), word(sealed[2]), word(cal[1]))
    found = mend(labelled, features, reviews, MendRecipe())
    golds = {e.request.id: e.gold for e in (*found.labelled.calibration.examples, *found.labelled.test.examples) if e.gold}
    assert golds == {"test2": truth_of(sealed[2]), "cal1": truth_of(cal[1])}
    assert found.counts["test: review of the fix queue, or not blind, ignored"] == 2
    assert [e.target for e in found.labelled.test.examples] == [e.target for e in sealed]


def test_relabelling_can_be_switched_off(world) -> None:
    """Then reviewed rows change and nothing else."""
    labelled, features = world()
    found = mend(labelled, features, words(*(word(e) for e in labelled.train.examples[:80])), MendRecipe(relabel=False))
    assert found.check is None
    assert found.labelled.train.examples[80:] == labelled.train.examples[80:]


def test_words_settle_by_adjudication_agreement_or_majority(world) -> None:
    """Two that differ settle nothing; a third makes a majority; a named last word ends all."""
    e = world()[0].train.examples[0]
    two = (word(e, "a"), word(e, "b", reviewer="Bo"))
    assert [c.words for c in settle(words(*two)).conflicts] == [{"Ana": "a", "Bo": "b"}]
    assert settle(words(*two, word(e, "b", reviewer="Cy"))).settled[e.request.digest].label == "b"
    assert settle(words(*two, word(e, "c", reviewer="Cy"))).settled == {}
    ended = settle(words(*two, word(e, "a", reviewer="Cy", kind="adjudication")))
    assert ended.settled[e.request.digest].label == "a"
    assert (ended.agreement.n, ended.agreement.good) == (1, 0)


def test_the_report_counts_what_chance_has_chosen_and_nothing_else(world) -> None:
    """Figures hold audited rows; picked and sealed ones are in none; a systematic pair is named with its bound."""
    labelled, features = world()
    audit = labelled.train.examples[:80]
    picked = [e for e in labelled.train.examples[80:] if truth_of(e) == "d"][:20]
    reviews = words(*(word(e) for e in (*audit, *labelled.test.examples)), *(word(e, queue="fix") for e in picked))
    found = teacher_errors(labelled, mend(labelled, features, reviews, MendRecipe()), TeacherErrorsRecipe(attributes=("tier",)))
    wrong = sum(e.target != truth_of(e) for e in audit)
    assert (found.overall.n, found.overall.good) == (80, wrong)
    assert isinstance(found.overall, Figure)
    assert found.labels[0].label == "d"
    assert found.labels[0].missed.value == 1.0
    (pair,) = found.confusions
    assert (pair.said, pair.true, pair.rows, pair.systematic) == ("c", "d", wrong, True)
    assert len(pair.examples) == 3
    assert sum(f.n for f in found.segments.values()) == 80


def test_a_picked_row_whose_truth_the_log_knew_still_counts(world) -> None:
    """Leaving out rows that looked wrong would flatter the teacher."""
    labelled, features = world()
    known = tuple(replace(e, gold=truth_of(e)) for e in labelled.train.examples)
    labelled = replace(labelled, train=TrainSet(examples=known, labels=LABELS))
    picked = words(*(word(e, queue="fix") for e in known if truth_of(e) == "d"))
    found = teacher_errors(labelled, mend(labelled, features, picked, MendRecipe()), TeacherErrorsRecipe())
    assert (found.overall.n, found.overall.good) == (500, len(picked.rows))


def test_no_gold_is_not_a_clean_teacher(world) -> None:
    """Nothing reviewed by chance: no figure, and the report says so."""
    labelled, features = world()
    found = teacher_errors(labelled, mend(labelled, features, words(), MendRecipe()), TeacherErrorsRecipe())
    assert (found.overall.value, found.overall.low, found.overall.high) == (None, 0, 1)
    assert "no row has a true label" in found.notes[0]


def test_texts_become_numbers_the_same_each_time(world, tmp_path) -> None:
    """N-grams need no extra; the same texts give the same bytes."""
    labelled, _ = world()
    found = []
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        folder = read_features(labelled, FeaturesRecipe(), workdir=tmp_path / name)
        found.append((folder.path / FEATURES_FILE).read_bytes())
    assert found[0] == found[1]


def test_rows_that_differ_are_refused(world) -> None:
    """A report on other rows than those that were mended would be false."""
    labelled, features = world()
    mended = mend(labelled, features, words(), MendRecipe())
    other = replace(labelled, train=TrainSet(examples=labelled.train.examples[1:], labels=LABELS))
    with pytest.raises(Exception, match="differ"):
        teacher_errors(other, mended, TeacherErrorsRecipe())
