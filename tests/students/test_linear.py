import json
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from scipy.sparse import hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from overproof.data import Request
from overproof.errors import DataError
from overproof.measure.calibration import probabilities
from overproof.students.linear import LinearStudent
from overproof.students.normalise import text_of

UNSEEN = ["wo bleibt das Paket 📦?", "ça marche pas, mot de passe", "REFUND me NOW!!", "ñandú", "", "🎉🎉", "a b c"]


def requests_of(texts):
    return [Request(id=str(i), fields={"text": text}) for i, text in enumerate(texts)]


@pytest.fixture(scope="module")
def fitted(train_set, tmp_path_factory):
    folder = tmp_path_factory.mktemp("linear")
    student = LinearStudent(labels=train_set.labels)
    student.fit(train_set, workdir=folder)
    return student, folder


def test_answers_equal_scikit_learns(fitted, train_set):
    """Without scikit-learn the student gives scikit-learn's probabilities within 1e-6 in four languages and emoji."""
    student, folder = fitted
    texts = [text_of(e.request) for e in train_set.examples]
    word = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b", sublinear_tf=True, min_df=2)
    char = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=2)
    features = hstack([word.fit_transform(texts), char.fit_transform(texts)]).tocsr()
    weight = np.array([e.weight for e in train_set.examples])
    reference = LogisticRegression(C=30.0, tol=1e-4, max_iter=1000)
    reference.fit(features, [e.target for e in train_set.examples], sample_weight=weight / weight.mean())
    asked = [e.request for e in train_set.examples] + requests_of(UNSEEN)
    asked_texts = [text_of(r) for r in asked]
    expected = reference.predict_proba(hstack([word.transform(asked_texts), char.transform(asked_texts)]))
    for answering in (student, LinearStudent.load(folder)):
        got = probabilities(answering.logits(asked), 1.0)
        np.testing.assert_allclose(got[:, :4], expected, atol=1e-6)


def test_it_learns_the_rows(fitted, train_set):
    """The training rows come back with their targets: the labels' columns are where the set says."""
    student, _ = fitted
    best = student.logits([e.request for e in train_set.examples]).argmax(axis=1)
    assert [train_set.labels[i] for i in best] == [e.target for e in train_set.examples]


def test_weights_count(of_rows):
    """A row of weight 9 outvotes a contradicting row of weight 1."""
    train = of_rows([["billing", "en", "same words"], ["login", "en", "same words"]], ("billing", "login"))
    light, heavy = train.examples
    for first, second, winner in ((9.0, 1.0, 0), (1.0, 9.0, 1)):
        rows = type(train)(
            examples=(_weighed(light, first), _weighed(heavy, second)),
            labels=train.labels,
        )
        student = LinearStudent(labels=rows.labels)
        logits = _fit_and_ask(student, rows)
        assert logits.argmax() == winner


def _weighed(example, weight):
    return type(example)(request=example.request, target=example.target, weight=weight)


def _fit_and_ask(student, rows):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        student.fit(rows, workdir=Path(folder))
    return student.logits([rows.examples[0].request])[0]


def test_two_labels_have_two_columns(of_rows, messages, tmp_path):
    """A binary task, where scikit-learn keeps one row of weights, gets a column for each label."""
    rows = [m for m in messages if m[0] in ("billing", "praise")]
    train = of_rows(rows, ("praise", "billing"))
    student = LinearStudent(labels=train.labels)
    student.fit(train, workdir=tmp_path)
    best = student.logits([e.request for e in train.examples]).argmax(axis=1)
    assert [train.labels[i] for i in best] == [e.target for e in train.examples]


def test_fits_are_byte_equal(train_set, fitted, tmp_path):
    """Two fits at different times leave the same bytes, so that the store recognises the result."""
    _, folder = fitted
    time.sleep(2.1)  # archive members carry times with a step of two seconds, if any
    LinearStudent(labels=train_set.labels).fit(train_set, workdir=tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {p.name: p.read_bytes() for p in folder.iterdir()}


def test_serving_needs_numpy_only(fitted):
    """Loading and answering import neither scikit-learn nor scipy."""
    _, folder = fitted
    code = (
        "import sys; from pathlib import Path; from overproof.data import Request;"
        "from overproof.students.linear import LinearStudent;"
        "LinearStudent.load(Path(sys.argv[1])).logits([Request(id='', fields={'t': 'hola 👋'})]);"
        "print([m for m in ('sklearn', 'scipy', 'onnx', 'onnxruntime') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("option", "value"),
    [("c", 0), ("c", "3"), ("c", True), ("min_df", 0), ("char_ngrams", [3, 2]), ("word_ngrams", [0, 1]), ("tolerance", 1)],
)
def test_options_out_of_range_are_named(option, value):
    """A wrong option is refused by name before any work is done."""
    with pytest.raises(DataError, match=option):
        LinearStudent(labels=("a", "b"), **{option: value})


def test_unknown_targets_are_refused(of_rows, tmp_path):
    """A target outside the task's labels is an error that names it."""
    train = of_rows([["billing", "en", "x"], ["sales", "en", "y"]])
    with pytest.raises(DataError, match="sales"):
        LinearStudent(labels=train.labels).fit(train, workdir=tmp_path)


def test_a_folder_fitted_with_the_first_normaliser_goes_on_with_it(fitted, tmp_path):
    """An older release reads look-alikes as it did when it was certified; a new one sees through them."""
    _, folder = fitted
    old = tmp_path / "old"
    shutil.copytree(folder, old)
    settings = json.loads((old / "student.json").read_text())
    (old / "student.json").write_text(json.dumps(settings | {"normaliser": "nfkc.v1"}))
    plain, masked = requests_of(["refund please", "rеfund рleаse"])
    new, before = LinearStudent.load(folder), LinearStudent.load(old)
    assert (new.logits([plain]) == new.logits([masked])).all()
    assert (before.logits([plain]) != before.logits([masked])).any()
    assert (before.logits([plain]) == new.logits([plain])).all()
    (old / "student.json").write_text(json.dumps(settings | {"normaliser": "nfkc.v9"}))
    with pytest.raises(DataError, match=r"nfkc\.v9"):
        LinearStudent.load(old)
