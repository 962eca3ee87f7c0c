import json
import subprocess
import sys

import numpy as np
import pytest
from tests.students.tiny import write_short_vocabulary

from overproof.data import Request
from overproof.errors import DataError
from overproof.students import ABSENT_LOGIT, static
from overproof.students.static import StaticStudent, distil
from overproof.students.weights import locate
from overproof.testing import student_conformance


@pytest.fixture(scope="module")
def weights(messages, tmp_path_factory):
    texts = [text for _, _, text in messages]
    return write_short_vocabulary(tmp_path_factory.mktemp("base") / "short", [*texts, "shipment still missing", "package money the colour color"])


@pytest.fixture(scope="module")
def fitted(weights, train_set, tmp_path_factory):
    folder = tmp_path_factory.mktemp("static")
    student = StaticStudent(labels=train_set.labels, weights=weights)
    student.fit(train_set, workdir=folder)
    return student, folder


def of(*texts):
    return [Request(id=str(i), fields={"text": t}) for i, t in enumerate(texts)]


def test_it_keeps_the_promises_of_a_student(weights, tmp_path):
    """The conformance suite that plug-ins run."""
    student_conformance(lambda labels: StaticStudent(labels=labels, seed=2, weights=weights), workdir=tmp_path)


def test_the_table_is_the_encoders(weights):
    """A token's vector is what the encoder says of the text that is this token, its marks included; one reading serves many."""
    from tokenizers import Tokenizer

    from overproof.students.reading import read_texts

    files = locate("m", weights, sha256="")
    table = distil(files.folder, sha256=files.sha256)
    vocabulary = Tokenizer.from_file(str(files.folder / "tokenizer.json")).get_vocab()
    said = read_texts(["package", "money"], reading="encoder", options={"weights": weights})[:, :384]
    np.testing.assert_allclose(table[[vocabulary["package"], vocabulary["money"]]], said, atol=1e-5)
    assert distil(files.folder, sha256=files.sha256) is table


def test_it_reads_meaning(fitted):
    """Words that no training row has go to the label whose words mean the same."""
    student, _ = fitted
    assert student.labels[int(student.logits(of("shipment still missing")).argmax())] == "delivery"


def test_words_that_mean_nothing_weigh_little():
    """Common words are scaled down: of 30,522 tokens in the order of frequency "the", the 1,997th, loses a third of its length."""
    vectors = np.random.default_rng(0).normal(0, 1, (30522, 8)).astype(np.float32)
    scale = np.linalg.norm(static._table_of(vectors, dimensions=8), axis=1) / np.linalg.norm(vectors - vectors.mean(axis=0), axis=1)
    assert 0.6 < scale[1996] < 0.7
    assert (np.diff(scale[::100]) > 0).all()


def test_a_loaded_folder_answers_alike(fitted):
    """The saved folder gives the fitted student's answers and holds four plain files; a text without tokens has one too."""
    student, folder = fitted
    asked = of("my parcel is lost", "", "refund " * 4000)
    again = StaticStudent.load(folder)
    np.testing.assert_array_equal(again.logits(asked), student.logits(asked))
    assert sorted(p.name for p in folder.iterdir()) == ["neighbours.npz", "student.json", "tokenizer.json", "weights.npz"]
    assert again.parameters == student.parameters == len(again._model.table) * 256 + 5 * 257
    seen = again.look(asked)
    assert set(seen.columns) == {"nearest_1", "nearest_10"}
    assert np.isfinite(seen.columns["nearest_1"]).all()


def test_training_the_table_is_kept_where_held_out_rows_say_so(weights, messages, of_rows, tmp_path, monkeypatch):
    """What is told apart only by a word the encoder takes for the same is learned by the trained table alone."""
    pairs = [(("billing", "login")[i % 2], "en", f"{('colour', 'color')[i % 2]} {messages[i % len(messages)][2]}") for i in range(240)]
    rows = of_rows(pairs, labels=("billing", "login", "never_seen"))
    student = StaticStudent(labels=rows.labels, weights=weights)
    student.fit(rows, workdir=tmp_path)
    facts = json.loads((tmp_path / "student.json").read_text())["facts"]
    assert facts["held_out_rows"] == 24
    kept, tuned = facts["held_out_agreement"]
    assert facts["tuned"] == (tuned > kept)
    best = student.logits([e.request for e in rows.examples])
    assert (best[:, 2] - best.max(axis=1) <= ABSENT_LOGIT).all()
    frozen = StaticStudent(labels=rows.labels, weights=weights, tune=False)
    (tmp_path / "frozen").mkdir()
    frozen.fit(rows, workdir=tmp_path / "frozen")

    def right(model):
        said = model.logits([e.request for e in rows.examples]).argmax(axis=1)
        return np.mean([rows.labels[i] == e.target for i, e in zip(said, rows.examples, strict=True)])

    assert right(student) >= right(frozen)
    monkeypatch.setattr(static, "TABLE_RATE", 50.0)  # a training that ruins the table is not kept
    (tmp_path / "ruined").mkdir()
    StaticStudent(labels=rows.labels, weights=weights).fit(rows, workdir=tmp_path / "ruined")
    assert not json.loads((tmp_path / "ruined" / "student.json").read_text())["facts"]["tuned"]


def test_the_gradient_is_the_losses(of_rows):
    """Training goes down the loss's slope and leaves words alone that no text has."""
    rows = of_rows([(("billing", "login", "praise")[i % 3], "en", "x") for i in range(90)], labels=("billing", "login", "praise", "z"))
    from scipy.sparse import csr_matrix

    rng = np.random.default_rng(0)
    words = np.array([[i % 3, 3 + rng.integers(4)] for i in range(90)])
    bags = csr_matrix((np.full(180, 0.5), words.ravel(), np.arange(0, 181, 2)), shape=(90, 8))
    start = static._head(bags, rng.normal(0, 1, (8, 4)).astype(np.float32), rows, c=0.01)
    tuned = static._tune(bags, start, rows, seed=0)

    def loss(model):
        logits = model.logits(bags @ model.table)
        y = np.arange(90) % 3
        return -(logits[np.arange(90), y] - np.log(np.exp(logits).sum(axis=1))).mean()

    assert loss(tuned) < 0.9 * loss(start)
    np.testing.assert_array_equal(tuned.table[7], start.table[7])  # no text has it


def test_serving_needs_numpy_and_a_tokenizer_only(fitted):
    """Loading and answering import no ONNX runtime, scikit-learn, scipy, safetensors or torch."""
    _, folder = fitted
    code = (
        "import sys; from pathlib import Path; from overproof.data import Request;"
        "from overproof.students.static import StaticStudent;"
        "StaticStudent.load(Path(sys.argv[1])).look([Request(id='', fields={'t': 'hola'})]);"
        "print([m for m in ('onnxruntime', 'onnx', 'sklearn', 'scipy', 'safetensors', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_table_of_another_tokenizer_is_refused(fitted, tmp_path):
    """A folder whose table has another number of rows than its tokenizer has tokens does not load."""
    import shutil

    from overproof.students.files import read_arrays, write_arrays

    shutil.copytree(fitted[1], tmp_path / "s")
    arrays = read_arrays(tmp_path / "s" / "weights.npz", {"table": 2, "weight": 2, "bias": 1})
    write_arrays(tmp_path / "s" / "weights.npz", {**arrays, "table": arrays["table"][:-1]})
    with pytest.raises(DataError, match=f"for {len(arrays['table'])} tokens"):
        StaticStudent.load(tmp_path / "s")
    (tmp_path / "s" / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match="can't be loaded"):
        StaticStudent.load(tmp_path / "s")
