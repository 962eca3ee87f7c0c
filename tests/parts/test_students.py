"""Every registered student and baseline through one suite."""

import json
from pathlib import Path

import numpy as np
import pytest
from tests.students.tiny import write_tiny

from overproof.data import Example, Request, TrainSet
from overproof.registry import names, resolve
from overproof.students import ABSENT_LOGIT

MESSAGES = json.loads((Path(__file__).parents[1] / "students" / "messages.json").read_text(encoding="utf-8"))
LABELS = ("login", "never_seen", "praise", "billing", "delivery")
ODD = ["", " ", "?", "😡😡", "\u200b", "x" * 5000, "where is my parcel", "中文", "\ud83d", "a\x00b", "merci " * 300]
ODD.append(" ".join(text for _, _, text in MESSAGES) * 5)  # words of all labels in one text


def train_set():
    examples = tuple(
        Example(request=Request(id=str(i), fields={"text": text}), target=label)
        for i, (label, _, text) in enumerate(MESSAGES)
    )
    return TrainSet(examples=examples, labels=LABELS)


def odd_requests():
    return [Request(id=str(i), fields={"text": text}) for i, text in enumerate(ODD)]


def choosers():
    """Parts that choose a label; those that write an answer have a suite of their own."""
    return [name for name in names("students") if not hasattr(resolve("students", name), "generate")]


@pytest.fixture(scope="module", params=choosers())
def part(request, tmp_path_factory):
    cls = resolve("students", request.param)
    options = {}
    if request.param in ("static.v1", "encoder.v1"):  # tests of their own read with a real encoder, which takes seconds for each
        options["weights"] = f"folder:{write_tiny(tmp_path_factory.mktemp('tiny') / 'encoder')}"
    student = cls(labels=LABELS, seed=3, **options)
    folder = tmp_path_factory.mktemp("part")
    student.fit(train_set(), workdir=folder)
    return request.param, cls, student, folder


def test_built_in_parts_are_registered():
    """The students and baselines of the package are found by name."""
    assert {"linear.v1", "encoder.v1", "majority.v1", "nearest.v1", "ngram.v1"} <= set(names("students"))


def test_it_says_what_it_is(part):
    """A part knows its name, its labels and how many numbers it learned."""
    name, _, student, _ = part
    assert student.kind == name
    assert tuple(student.labels) == LABELS
    assert student.parameters > 0


def test_any_text_gets_finite_float32_logits(part):
    """Empty, endless, broken or foreign text gets one finite row with a column for each label."""
    _, _, student, _ = part
    logits = student.logits(odd_requests())
    assert logits.shape == (len(ODD), 5)
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()
    assert student.logits([]).shape == (0, 5)


def test_a_label_without_rows_is_never_chosen(part):
    """A label that training never saw stays thirty below the best one, on any text."""
    _, _, student, _ = part
    logits = student.logits(odd_requests() + [e.request for e in train_set().examples])
    gap = logits[:, LABELS.index("never_seen")] - logits.max(axis=1)
    assert (gap <= ABSENT_LOGIT + 4).all()  # 4: log of a share, where logits are log-probabilities


def test_the_folder_is_all_it_takes(part):
    """A copy of the folder answers the same, with the same labels and parameters."""
    _, cls, student, folder = part
    again = cls.load(folder)
    np.testing.assert_array_equal(again.logits(odd_requests()), student.logits(odd_requests()))
    assert (tuple(again.labels), again.parameters) == (LABELS, student.parameters)


def test_the_files_are_data(part):
    """Nothing in the folder is a pickle or code."""
    _, _, _, folder = part
    assert {p.suffix for p in folder.iterdir()} <= {".json", ".npz", ".onnx"}
    assert not [p for p in folder.iterdir() if p.read_bytes()[:2] == b"\x80\x04"]


def test_order_and_company_do_not_matter(part):
    """A request's scores are its own: alone, reversed or in a crowd they agree within 1e-4."""
    _, _, student, _ = part
    requests = odd_requests()
    together = student.logits(requests)
    np.testing.assert_allclose(student.logits(requests[::-1])[::-1], together, atol=1e-4)
    np.testing.assert_allclose(np.concatenate([student.logits([r]) for r in requests]), together, atol=1e-4)


def test_spelling_that_looks_the_same_is_the_same(part):
    """Zero-width characters and full-width letters don't change the answer."""
    _, _, student, _ = part
    plain = Request(id="1", fields={"text": "where is my parcel"})
    tricky = Request(id="2", fields={"text": "ｗhere  is\u200b my par\u200dcel\ufeff"})
    np.testing.assert_array_equal(student.logits([plain]), student.logits([tricky]))
