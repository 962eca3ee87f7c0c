import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from overproof.data import Example, Request, TrainSet
from overproof.errors import DataError
from overproof.progress import reporter
from overproof.students import ABSENT_LOGIT, bert_onnx, checkpoints, finetune
from overproof.students.checkpoints import KEEP_S, Checkpoint
from overproof.students.encoder import EncoderStudent
from overproof.students.finetune import batches, hold_out, read_tuning, soft_targets
from overproof.students.logistic import targets

TUNE = {"layers": "full", "epochs": 6, "rate": 2e-3, "head_rate": 1e-2, "held_out": 0.0, "precision": "float32"}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A random encoder of two layers that reads with the real tokenizer: quality is not the point here."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    folder = tmp_path_factory.mktemp("small")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz")]
    tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.save(str(folder / "tokenizer.json"))
    d, wide = 16, 32
    config = {
        "model_type": "bert", "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": d, "intermediate_size": wide,
        "max_position_embeddings": 64, "vocab_size": len(words),
    }
    (folder / "config.json").write_text(json.dumps(config))
    rng = np.random.default_rng(0)
    shapes = {"embeddings.word_embeddings.weight": (len(words), d), "embeddings.position_embeddings.weight": (64, d), "embeddings.token_type_embeddings.weight": (2, d)}
    norms = ["embeddings.LayerNorm"]
    for at in range(2):
        p = f"encoder.layer.{at}"
        for name, shape in {"attention.self.query": (d, d), "attention.self.key": (d, d), "attention.self.value": (d, d), "attention.output.dense": (d, d), "intermediate.dense": (wide, d), "output.dense": (d, wide)}.items():
            shapes |= {f"{p}.{name}.weight": shape, f"{p}.{name}.bias": shape[:1]}
        norms += [f"{p}.attention.output.LayerNorm", f"{p}.output.LayerNorm"]
    tensors = {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    for name in norms:
        tensors |= {f"{name}.weight": np.ones(d, np.float32), f"{name}.bias": np.zeros(d, np.float32)}
    save_file(tensors, folder / "model.safetensors")
    return folder


def student_of(small, train_set, **tune):
    return EncoderStudent(labels=train_set.labels, weights=f"folder:{small}", max_tokens=32, tune={**TUNE, **tune})


def fit(small, train_set, folder, **tune):
    folder.mkdir()
    student = student_of(small, train_set, **tune)
    student.fit(train_set, workdir=folder)
    return student


def facts_of(folder):
    return json.loads((folder / "student.json").read_text())["facts"]["tuned"]


def loss_of(student, rows):
    logits = student.logits([e.request for e in rows.examples]).astype(float)
    spoken = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return -spoken[np.arange(len(rows.examples)), targets(rows)].mean()


def tensors_of(small, folder):
    import onnx

    graph = onnx.load(folder / "model.onnx").graph
    return {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}


@pytest.fixture(scope="module")
def full(small, train_set, tmp_path_factory):
    folder = tmp_path_factory.mktemp("full") / "student"
    return fit(small, train_set, folder), folder


def test_training_teaches_more_than_a_head(small, train_set, tmp_path):
    """Trained end to end, the encoder fits its rows better than a head on the encoder as it was."""
    student = fit(small, train_set, tmp_path / "s", epochs=40, smoothing=0.0, dropout=0.0)
    alone = EncoderStudent(labels=train_set.labels, weights=f"folder:{small}", max_tokens=32)
    (tmp_path / "alone").mkdir()
    alone.fit(train_set, workdir=tmp_path / "alone")
    assert loss_of(student, train_set) < 0.8 * loss_of(alone, train_set)


def test_the_same_seed_gives_the_same_bytes(small, train_set, full, tmp_path):
    """Two trainings with one seed agree in every file; another seed gives another student."""
    _, folder = full
    fit(small, train_set, tmp_path / "again")
    for path in folder.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()
    other = EncoderStudent(labels=train_set.labels, seed=1, weights=f"folder:{small}", max_tokens=32, tune=TUNE)
    (tmp_path / "other").mkdir()
    other.fit(train_set, workdir=tmp_path / "other")
    assert (tmp_path / "other" / "model.onnx").read_bytes() != (folder / "model.onnx").read_bytes()


def test_a_label_without_rows_is_never_chosen(train_set, full):
    """The label that no training row has stays thirty below the best one."""
    student, _ = full
    logits = student.logits([e.request for e in train_set.examples] + [Request(id="x", fields={"text": "zzz"})])
    assert (logits[:, train_set.labels.index("never_seen")] - logits.max(axis=1) <= ABSENT_LOGIT).all()


def test_only_the_upper_layers_move(small, train_set, full, tmp_path):
    """"top:1" leaves embeddings and the lower layer as the base has them and trains the upper one; "full" moves all."""
    fit(small, train_set, tmp_path / "top", layers="top:1")
    config = bert_onnx.read_config(small / "config.json")
    base = {t.name: t for t in bert_onnx.build(config, bert_onnx.read_weights(small / "model.safetensors"), pooling="mean_max").graph.initializer}
    top, whole = tensors_of(small, tmp_path / "top"), tensors_of(small, full[1])
    from onnx import numpy_helper

    moved = {n: not np.array_equal(numpy_helper.to_array(base[n]), top[n]) for n in base}
    assert not any(moved[n] for n in ("words", "places", "layer0.qkv.w", "layer0.narrow.w"))
    assert all(moved[n] for n in ("layer1.qkv.w", "layer1.narrow.w"))
    assert all(not np.array_equal(numpy_helper.to_array(base[n]), whole[n]) for n in ("words", "layer0.qkv.w", "layer1.qkv.w"))


def test_words_that_no_row_uses_stay(small, full):
    """Rows of the word table for tokens that never occur in training are the base's own."""
    words = bert_onnx.read_weights(small / "model.safetensors")["embeddings.word_embeddings.weight"]
    trained = tensors_of(small, full[1])["words"]
    assert np.array_equal(trained[0], words[0])  # [PAD]
    assert not np.array_equal(trained[2], words[2])  # [CLS] is in every row


def test_the_best_weights_are_kept(small, train_set, tmp_path, monkeypatch):
    """Held-out rows stop a training that no longer gains, and the folder says at which epoch it was best."""
    monkeypatch.setattr(finetune, "LEAST_HELD", 5)
    fit(small, train_set, tmp_path / "s", epochs=40, held_out=0.3, patience=2, rate=0.02)
    facts = facts_of(tmp_path / "s")
    assert facts["held_out_rows"] >= 5
    assert facts["epochs"] == facts["best_epoch"] + 2 < 40


@pytest.mark.parametrize("option", [{"loss": "generalised"}, {"average": 0.9}, {"precision": "bfloat16"}, {"precision": "auto"}])
def test_options_change_what_is_learned(small, train_set, full, tmp_path, option):
    """Another loss, a mean of weights or another number format still learns, and each is at work."""
    student = fit(small, train_set, tmp_path / "s", **option)
    if option != {"precision": "auto"}:  # which may come to float32
        assert (tmp_path / "s" / "model.onnx").read_bytes() != (full[1] / "model.onnx").read_bytes()
    assert facts_of(tmp_path / "s")["precision"] in ("float32", "bfloat16")
    assert loss_of(student, train_set) < np.log(4)


def test_the_generalised_loss_listens_less_to_wrong_labels():
    """A target that the student finds all but impossible pulls a tenth as hard as under cross-entropy, a likely one as hard."""
    import torch

    pull = {}
    for loss in ("cross_entropy", "generalised"):
        logits = torch.log(torch.tensor([[0.01, 0.99], [0.9, 0.1]])).requires_grad_()
        finetune.row_losses(logits, torch.tensor([[1.0, 0.0], [1.0, 0.0]]), loss).sum().backward()
        pull[loss] = logits.grad[:, 0].abs()
    wrong, likely = (pull["generalised"] / pull["cross_entropy"]).tolist()
    assert wrong == pytest.approx(0.01**0.7, rel=1e-3)
    assert likely == pytest.approx(0.9**0.7, rel=1e-3)


def test_a_graph_that_differs_is_refused(small, train_set, tmp_path, monkeypatch):
    """A trained encoder whose graph computes something else is never handed out."""
    right = finetune.finetune

    def wrong(*args, **kwargs):
        tuned = right(*args, **kwargs)
        tuned.tensors["encoder.layer.1.output.dense.bias"] = tuned.tensors["encoder.layer.1.output.dense.bias"] + np.arange(16, dtype=np.float32)
        return tuned

    monkeypatch.setattr("overproof.students.encoder.finetune", wrong)
    with pytest.raises(DataError, match="differs from the student as fitted"):
        fit(small, train_set, tmp_path / "s", epochs=1)


SCRIPT = """
import json, sys
from pathlib import Path
from overproof.data import Folder
from overproof.progress import reporter
from overproof.students import checkpoints, finetune
from overproof.students.encoder import EncoderStudent
sys.path.insert(0, sys.argv[1])
from conftest import make_train
checkpoints.EVERY_S, finetune.LEAST_HELD = 0.0, 5
rows = make_train(json.loads((Path(sys.argv[1]) / "messages.json").read_text(encoding="utf-8")))

class Tell:
    def start(self, what, total):
        count = [0]
        def advance(n):
            count[0] += n
            if what.startswith("training"):
                print("step", count[0], flush=True)
        return advance

reporter.set(Tell())
student = EncoderStudent(labels=rows.labels, weights="folder:" + sys.argv[2], max_tokens=32, tune=json.loads(sys.argv[5]))
student.checkpoints = Path(sys.argv[4])
student.fit(rows, workdir=Path(sys.argv[3]))
"""


def test_a_killed_training_goes_on_where_it_was(small, train_set, tmp_path, monkeypatch):
    """Killed in the middle and run again, the student equals an undisturbed one to the byte, and fewer steps are run."""
    monkeypatch.setattr(finetune, "LEAST_HELD", 5)
    tune = {**TUNE, "epochs": 6, "batch": 8, "average": 0.9, "held_out": 0.0}  # the last weights count: an early best one would hide a bad resume
    fit(small, train_set, tmp_path / "calm", **tune)
    kept, killed = tmp_path / "checkpoints", tmp_path / "killed"
    killed.mkdir()
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", SCRIPT, here, str(small), str(killed), str(kept), json.dumps(tune)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        for line in child.stdout:
            if line == "step 20\n":
                child.send_signal(signal.SIGKILL)
                break
    assert child.returncode == -signal.SIGKILL
    assert not list(killed.iterdir())
    assert [p.suffix for p in kept.iterdir() if p.suffix != ".tmp"] == [".safetensors"]
    (tmp_path / "again").mkdir()
    student = student_of(small, train_set, **tune)
    student.checkpoints = kept
    done = []

    class Count:
        def start(self, what, total):
            return lambda n: done.append(n) if what.startswith("training") and n > 0 else None

    token = reporter.set(Count())
    student.fit(train_set, workdir=tmp_path / "again")
    reporter.reset(token)
    assert 19 <= student.resumed_at < facts_of(tmp_path / "calm")["steps"]
    assert len(done) == facts_of(tmp_path / "calm")["steps"] - student.resumed_at
    for path in (tmp_path / "calm").iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name
    assert not [p for p in kept.iterdir() if p.suffix != ".tmp"]


def test_other_rows_are_another_training(small, train_set, tmp_path, monkeypatch):
    """A state that another recipe or other rows left is not taken up."""
    monkeypatch.setattr(checkpoints, "EVERY_S", 0.0)
    monkeypatch.setattr(Checkpoint, "clear", lambda self: None)
    for rows, tune in ((train_set, {}), (replace(train_set, examples=train_set.examples[1:]), {}), (train_set, {"smoothing": 0.2})):
        student = student_of(small, rows, epochs=2, **tune)
        student.checkpoints = tmp_path
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        student.fit(rows, workdir=folder)
        assert student.resumed_at == 0
    assert len(list(tmp_path.glob("*.safetensors"))) == 3


def test_a_damaged_state_starts_over(tmp_path):
    """Half a file, or one that is none, is no state; a whole one comes back, and old ones go."""
    old = tmp_path / "old.safetensors"
    old.write_bytes(b"x")
    os.utime(old, (time.time() - 2 * KEEP_S,) * 2)
    kept = Checkpoint(tmp_path, "k")
    assert kept.load() is None
    kept.save({"a": np.arange(3, dtype=np.float32)}, {"step": 7})
    arrays, facts = kept.load()
    assert (arrays["a"].tolist(), facts) == ([0, 1, 2], {"step": 7})
    assert not old.exists()
    kept.path.write_bytes(kept.path.read_bytes()[:-5])
    assert kept.load() is None
    kept.clear()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("tune", "said"),
    [
        ("some", "frozen, full or top:N"),
        ("top:0", "frozen, full or top:N"),
        ({"layers": "full", "epoch": 3}, "no field 'epoch'"),
        ({"loss": "hinge"}, "cross_entropy, generalised"),
        ({"epochs": 0}, "at least 1"),
        ({"dropout": 1.0}, "at most 0.9"),
    ],
)
def test_a_wrong_option_is_named(tune, said):
    """What `tune` can't be is refused before anything is read."""
    with pytest.raises(DataError, match=said):
        EncoderStudent(labels=("a", "b"), tune=tune)


def test_more_layers_than_there_are_is_refused(small, train_set, tmp_path):
    """"top:3" of an encoder with two layers names both numbers."""
    with pytest.raises(DataError, match=r"'top:3'.*this encoder's 2 layers"):
        fit(small, train_set, tmp_path / "s", layers="top:3")
    assert read_tuning("frozen") is None


def test_samples_make_soft_targets(of_rows):
    """Three samples of which two agree teach two thirds; one sample teaches one; smoothing is spread over labels with rows."""
    rows = of_rows([("billing", "en", "a"), ("login", "en", "b"), ("praise", "en", "c")])
    rows = replace(rows, examples=(replace(rows.examples[0], agreement=2 / 3, samples=3), *rows.examples[1:]))
    np.testing.assert_allclose(soft_targets(rows, smoothing=0.0), [[2 / 3, 1 / 6, 1 / 6], [0, 1, 0], [0, 0, 1]], rtol=1e-6)
    np.testing.assert_allclose(soft_targets(rows, smoothing=0.3)[1], [0.1, 0.8, 0.1], rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 70), min_size=1, max_size=300), st.integers(1, 40), st.integers(0, 9))
def test_each_row_is_in_one_batch_of_like_lengths(lengths, size, seed):
    """Every row is in exactly one batch, none is too large, and a seed gives one order."""
    found = batches(np.array(lengths), size=size, key=(seed, 1))
    assert sorted(np.concatenate(found).tolist()) == list(range(len(lengths)))
    assert max(map(len, found)) <= size
    again = batches(np.array(lengths), size=size, key=(seed, 1))
    assert all(np.array_equal(a, b) for a, b in zip(found, again, strict=True))
    padded = sum(len(b) * max(lengths[i] for i in b) for b in found)
    whole = sum(len(b) * max(lengths) for b in found)
    assert padded <= whole


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["billing"]), min_size=80, max_size=200), st.integers(0, 5))
def test_every_label_keeps_a_row_that_teaches(labels, seed):
    """Held-out rows never take a label's last row; under twenty of them none are held out."""
    request, known = Request(id="", fields={}), ("billing", "login", "praise")
    rows = TrainSet(examples=tuple(Example(request=request, target=t) for t in [*known, *labels]), labels=known)
    held = hold_out(rows, share=0.3, seed=seed)
    kept = {e.target for e, out in zip(rows.examples, held, strict=True) if not out}
    assert kept == {e.target for e in rows.examples}
    assert held.sum() == 0 or held.sum() >= finetune.LEAST_HELD
