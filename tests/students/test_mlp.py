"""encoder.v1 with a layered head and with n-grams beside it, on a small random encoder and on real rows."""

import numpy as np
import pytest
from tests.students.tiny import write_tiny

from overproof.data import Request
from overproof.errors import DataError
from overproof.students import ABSENT_LOGIT, mlp
from overproof.students.encoder import WORDS, EncoderStudent
from overproof.students.linear import LinearStudent
from overproof.students.logistic import fit_logistic

ASKED = [Request(id=str(i), fields={"text": t}) for i, t in enumerate(["my parcel is lost", "", "refund " * 400, "passwort 😡"])]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return f"folder:{write_tiny(tmp_path_factory.mktemp('base') / 'tiny')}"


def made(weights, train_set, folder, **options):
    folder.mkdir()
    student = EncoderStudent(labels=train_set.labels, model="tiny", weights=weights, **options)
    student.fit(train_set, workdir=folder)
    return student


def log_softmax(logits):
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


@pytest.fixture(scope="module")
def layered(weights, train_set, tmp_path_factory):
    folder = tmp_path_factory.mktemp("layered") / "student"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlp, "LEAST_STEPS", 150)
        return made(weights, train_set, folder, head="mlp", words=0.3), folder


def test_a_layered_head_learns_what_no_line_can_separate(of_rows, monkeypatch):
    """Rows of an exclusive-or, which logistic regression can't tell apart, come back with their targets."""
    rng = np.random.default_rng(0)
    features = rng.choice([-1.0, 1.0], (600, 2)).astype(np.float32)
    labels = ["same" if a == b else "other" for a, b in features]
    train = of_rows([(label, "en", "x") for label in labels], labels=("same", "other"))
    noisy = np.hstack([np.repeat(features, 8, axis=1), 0.1 * rng.normal(size=(600, 4))]).astype(np.float32)
    right = np.array([train.labels.index(label) for label in labels])
    line = fit_logistic(noisy, train, c=1.0, tolerance=1e-4)
    assert np.mean((noisy @ line.weight.T + line.bias).argmax(axis=1) == right) < 0.8
    monkeypatch.setattr(mlp, "LEAST_STEPS", 300)
    head = mlp.fit_mlp(noisy, train, seed=0, units=128)
    assert np.mean(mlp.answer(head, noisy).argmax(axis=1) == right) > 0.97


def test_a_seed_gives_the_same_head_and_leaves_the_callers_chance_alone(of_rows, monkeypatch):
    """Two fits with one seed agree to the byte, another seed differs, and torch's own generator goes on undisturbed."""
    import torch

    monkeypatch.setattr(mlp, "LEAST_STEPS", 0)
    train = of_rows([(label, "en", "x") for label in ("a", "b") * 40], labels=("a", "b"))
    features = np.random.default_rng(0).normal(size=(80, 6)).astype(np.float32)
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    one, two, other = (mlp.fit_mlp(features, train, seed=seed, units=8).weight for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    assert one.tobytes() == two.tobytes() != other.tobytes()


def test_the_graph_says_what_head_and_ngrams_say(layered, train_set):
    """The loaded folder's answers are the weighted log-probabilities of the graph and of the linear student beside it."""
    student, folder = layered
    again = EncoderStudent.load(folder)
    got = again.logits(ASKED)
    np.testing.assert_array_equal(got, student.logits(ASKED))
    graph = again._runner.run([r.fields["text"] for r in ASKED], width=len(again.labels), what="x")
    beside = LinearStudent.load(folder / WORDS).logits(ASKED)
    expected = 0.7 * log_softmax(graph) + 0.3 * log_softmax(beside)
    np.testing.assert_allclose(log_softmax(got), log_softmax(expected), atol=1e-3)
    np.testing.assert_array_equal(again.look(ASKED).logits, got)
    assert got[:, train_set.labels.index("never_seen")].max() <= ABSENT_LOGIT / 2
    assert again.parameters == student.parameters > LinearStudent.load(folder / WORDS).parameters


def test_one_message_answers_as_among_others(layered):
    """Padding beside longer messages changes no answer by more than a ten-thousandth."""
    student, _ = layered
    alone = np.concatenate([student.logits([request]) for request in ASKED])
    np.testing.assert_allclose(student.logits(ASKED), alone, atol=1e-4)


def test_it_learns_the_rows(layered, train_set):
    """Even a random encoder with a layered head and n-grams gives the training rows their targets."""
    best = layered[0].logits([e.request for e in train_set.examples]).argmax(axis=1)
    assert np.mean([train_set.labels[i] == e.target for i, e in zip(best, train_set.examples, strict=True)]) > 0.95


def test_it_can_be_exported_for_another_runtime(layered, tmp_path):
    """The eight-bit form keeps head and n-grams and changes few answers."""
    student, folder = layered
    EncoderStudent.exported(folder, "onnx-blocks8", into=tmp_path / "out")
    again = EncoderStudent.load(tmp_path / "out")
    assert np.abs(again.logits(ASKED) - student.logits(ASKED)).max() < 1.0


@pytest.mark.parametrize("options", [{"head": "deep"}, {"head": "mlp", "tune": "full"}, {"words": 0.95}, {"words": -0.1}, {"wrods": 0.3}])
def test_options_that_do_not_go_together_are_refused(options, train_set):
    """An unknown head, a layered one on a tuned encoder, a share outside its range and a misspelt name are told before any work."""
    with pytest.raises(DataError, match=r"'(head|words|wrods)'"):
        EncoderStudent(labels=train_set.labels, **options)
