"""Temperature against the teacher's labels."""

import dataclasses

import numpy as np
import pytest

from overproof.errors import DataError
from overproof.steps.calibrate import STRANGE, UNKNOWN, CalibrateRecipe, calibrate, logits_of, read, sheet_of


def test_a_too_sure_candidate_gets_a_temperature_that_mends_it(world) -> None:
    """Scores three times too sharp get a temperature near three, and stated confidence meets agreement."""
    rows = world.calibration(2_000)
    found = calibrate(world.scores("s", rows, sharp=3.0), rows, CalibrateRecipe())
    assert found.temperature == pytest.approx(3.0, rel=0.2)
    assert found.ece_after < found.ece_before / 3
    assert found.ece_after < 0.03
    assert found.after.log_loss < found.before.log_loss
    assert found.after.brier < found.before.brier


def test_agreement_is_with_the_teacher_and_accuracy_with_gold_only(world) -> None:
    """Fidelity counts every row against the teacher's label; accuracy only rows with a true label, against that."""
    rows = world.calibration(1_000, gold=0.3, teacher=0.6)
    scores = world.scores("s", rows, error=0.05)
    found = calibrate(scores, rows, CalibrateRecipe())
    answer = read(logits_of(scores, rows), 1.0).answer
    said = [rows.labels[i] for i in answer]
    known = [(a, e.gold) for a, e in zip(said, rows.examples, strict=True) if e.gold is not None]
    assert found.fidelity.good == sum(a == e.target for a, e in zip(said, rows.examples, strict=True))
    assert (found.fidelity.n, found.accuracy.n) == (1_000, len(known))
    assert found.accuracy.good == sum(a == g for a, g in known)
    assert found.accuracy.high < found.fidelity.low


def test_without_gold_there_is_no_accuracy(world) -> None:
    """No true label, no accuracy: agreement never stands in for it."""
    rows = world.calibration(200, gold=0.0)
    assert calibrate(world.scores("s", rows), rows, CalibrateRecipe()).accuracy is None


def test_the_answer_does_not_depend_on_the_temperature(world) -> None:
    """A temperature moves confidence, never the answer."""
    rows = world.calibration(300)
    logits = logits_of(world.scores("s", rows), rows)
    assert (read(logits, 0.3).answer == read(logits, 20.0).answer).all()


def test_scores_of_other_rows_are_refused(world) -> None:
    """Scores whose shape is not that of the rows never reach a figure."""
    scores = world.scores("s", world.calibration(50))
    with pytest.raises(DataError, match="shape"):
        calibrate(scores, world.calibration(51), CalibrateRecipe())


def test_a_candidate_that_gives_no_numbers_is_refused(world) -> None:
    """NaN on calibration rows names how many rows, instead of a temperature."""
    rows = world.calibration(50)
    scores = world.scores("s", rows)
    path = scores.folder.path / "logits.npy"
    broken = np.load(path)
    broken[3] = np.nan
    np.save(path, broken)
    with pytest.raises(DataError, match="1 of 50"):
        calibrate(scores, rows, CalibrateRecipe())
    assert np.isnan(read(logits_of(scores, rows), 1.0).confidence[3])


def test_true_labels_outside_the_task_count_as_wrong_answers(world) -> None:
    """A true label that no answer can be is known, and no column equals it."""
    rows = world.calibration(3)
    first = dataclasses.replace(rows.examples[0], gold="something new")
    second = dataclasses.replace(rows.examples[1], gold=None)
    sheet = sheet_of(dataclasses.replace(rows, examples=(first, second, rows.examples[2])))
    assert sheet.gold[:2].tolist() == [STRANGE, UNKNOWN]
    assert sheet.has_gold.tolist() == [True, False, True]


def test_an_empty_set_and_a_foreign_label_are_refused(world) -> None:
    """Nothing to calibrate on is an error that says so."""
    rows = world.calibration(3)
    with pytest.raises(DataError, match="no rows"):
        sheet_of(dataclasses.replace(rows, examples=()))
    with pytest.raises(DataError, match="outside the task"):
        sheet_of(dataclasses.replace(rows, labels=("a", "b")))
