import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from overproof.data import CalibrationSet, Example, Request, TestSet, TrainSet
from overproof.errors import DataError
from overproof.steps.predict import PredictRecipe, predict_dev, predict_test, teacher_scores
from overproof.steps.train import StudentRecipe, train

MESSAGES = json.loads((Path(__file__).parents[1] / "students" / "messages.json").read_text(encoding="utf-8"))
LABELS = ("billing", "delivery", "login", "praise")
RECIPE = PredictRecipe(cost_usd_per_cpu_hour=0.36)


def examples_of(messages, **more):
    return tuple(
        Example(request=Request(id=str(i), fields={"text": text}), target=label, **more)
        for i, (label, _, text) in enumerate(messages)
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    rows = TrainSet(examples=examples_of(MESSAGES), labels=LABELS)
    return train(rows, StudentRecipe(name="small", use="linear.v1"), workdir=tmp_path_factory.mktemp("trained"))


def test_scores_are_in_the_order_of_the_rows(trained, tmp_path):
    """Logits have one finite row for each example in the set's order, and one column for each label."""
    rows = TestSet(examples=examples_of(MESSAGES[::-1]), labels=LABELS)
    scores = predict_test(trained, rows, RECIPE, workdir=tmp_path)
    logits = np.load(scores.folder.path / "logits.npy", allow_pickle=False)
    assert logits.shape == (scores.n, 4) == (60, 4)
    assert logits.dtype == np.float32
    assert [LABELS[i] for i in logits.argmax(axis=1)] == [e.target for e in rows.examples]
    assert (scores.name, scores.kind, scores.size_bytes, scores.parameters) == (
        "small", "student", trained.size_bytes, trained.parameters,
    )


def test_dev_and_test_are_scored_alike(trained, tmp_path):
    """The same requests get the same scores as calibration rows and as sealed rows, whatever their labels."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    sealed = TestSet(examples=examples_of(MESSAGES), labels=LABELS)
    other = tuple(replace(e, target="login", gold="praise") for e in sealed.examples)
    first = predict_test(trained, sealed, RECIPE, workdir=tmp_path / "a")
    second = predict_dev(trained, CalibrationSet(examples=other, labels=LABELS), RECIPE, workdir=tmp_path / "b")
    assert (first.folder.path / "logits.npy").read_bytes() == (second.folder.path / "logits.npy").read_bytes()


def test_latency_and_cost_belong_together(trained, tmp_path):
    """Latency is measured on single requests, and the price is that time at the hourly rate."""
    rows = CalibrationSet(examples=examples_of(MESSAGES), labels=LABELS)
    scores = predict_dev(trained, rows, RECIPE, workdir=tmp_path)
    assert scores.latency_n == scores.cost_n == 60
    assert 0 < scores.latency_s <= scores.latency_p95_s
    assert scores.cost_usd_per_1000 == pytest.approx(scores.latency_s * 1e-4 * 1000)


def test_the_teacher_is_certain_of_its_labels(tmp_path):
    """The teacher as a candidate agrees with itself everywhere, with the median latency and mean cost it had."""
    rows = tuple(
        replace(e, latency_s=float(i), cost_usd=0.002 * (i % 2)) for i, e in enumerate(examples_of(MESSAGES[:11]))
    )
    scores = teacher_scores(TestSet(examples=(*rows, *examples_of(MESSAGES[11:13])), labels=LABELS), RECIPE, workdir=tmp_path)
    logits = np.load(scores.folder.path / "logits.npy")
    assert [LABELS[i] for i in logits.argmax(axis=1)] == [m[0] for m in MESSAGES[:13]]
    assert np.exp(logits).sum(axis=1) == pytest.approx(1)
    assert (scores.name, scores.kind) == ("teacher", "teacher")
    assert (scores.latency_s, scores.latency_n, scores.cost_n) == (5.0, 11, 11)
    assert scores.cost_usd_per_1000 == pytest.approx(1000 * 0.002 * 5 / 11)


def test_an_unknown_latency_is_said_to_be_unknown(tmp_path):
    """Where no row has a latency or a cost, the counts say so; nobody can take 0.0 for a measurement."""
    scores = teacher_scores(CalibrationSet(examples=examples_of(MESSAGES), labels=LABELS), RECIPE, workdir=tmp_path)
    assert (scores.latency_n, scores.cost_n) == (0, 0)


def test_no_rows_are_an_error(trained, tmp_path):
    """An empty set has no scores, for a student and for the teacher."""
    rows = CalibrationSet(examples=(), labels=LABELS)
    with pytest.raises(DataError, match="no rows"):
        predict_dev(trained, rows, RECIPE, workdir=tmp_path)
    with pytest.raises(DataError, match="no rows"):
        teacher_scores(rows, RECIPE, workdir=tmp_path)


def test_other_labels_are_an_error(trained, tmp_path):
    """A candidate of another label order never has its columns read under the wrong names."""
    rows = CalibrationSet(examples=examples_of(MESSAGES), labels=LABELS[::-1])
    with pytest.raises(DataError, match="other labels"):
        predict_dev(trained, rows, RECIPE, workdir=tmp_path)


class Broken:
    """A plug-in that answers with NaN."""

    labels = LABELS

    @classmethod
    def load(cls, folder):
        del folder
        return cls()

    def logits(self, requests):
        return np.full((len(requests), 4), np.nan, dtype=np.float32)


def test_a_part_that_answers_nan_is_refused(trained, tmp_path, monkeypatch):
    """NaN from a plug-in stops the run with the part's name, and never becomes a confidence."""
    monkeypatch.setattr("overproof.students.parts.resolve", lambda kind, name: Broken)
    with pytest.raises(DataError, match=r"'small' \(linear.v1\) answered with shape"):
        predict_dev(trained, CalibrationSet(examples=examples_of(MESSAGES), labels=LABELS), RECIPE, workdir=tmp_path)
