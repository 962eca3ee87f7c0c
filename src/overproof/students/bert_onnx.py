"""An ONNX graph for a BERT encoder, written straight from its safetensors file: no torch, the same bytes each time."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from overproof.errors import DataError, MissingExtra

if TYPE_CHECKING:
    import onnx

Weights = Mapping[str, NDArray[np.float32]]
Pooling = Literal["mean", "mean_max"]

OPSET = 20  # the first with Gelu as one operator; ONNX Runtime has it since 1.17
IR_VERSION = 9  # what goes with opset 20; the library's default would shut out older runtimes
MASKED = -1e9  # added to the attention score of padding: exp() of it is 0 in float32


@dataclass(frozen=True, kw_only=True, slots=True)
class BertConfig:
    """The shape of a BERT encoder, as its `config.json` gives it."""

    layers: int
    heads: int
    hidden: int
    max_positions: int
    layer_norm_eps: float
    pad_token_id: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """A classifier on the pooled embedding: linear, or with one layer between."""

    weight: NDArray[np.float32]
    """Shape (k, width of the embedding), or of the layer between."""
    bias: NDArray[np.float32]
    """Shape (k,)."""
    inner_weight: NDArray[np.float32] | None = None
    """Shape (units, width of the embedding); a GELU follows. None for a linear head."""
    inner_bias: NDArray[np.float32] | None = None
    """Shape (units,)."""


def read_config(path: Path) -> BertConfig:
    """
    Read an encoder's `config.json`.

    Args:
        path: the file.

    Returns: the shape.
    Raises: DataError for another architecture, or for a variant that the graph does not express.
    """
    raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    expected = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
    for key, value in expected.items():
        got = raw.get(key, None if key == "model_type" else value)
        if got != value:
            raise DataError(
                f"{path.name}: {key} is {got!r}, expected {value!r}",
                next_action="take an encoder of the BERT architecture, such as all-MiniLM-L6-v2",
            )
    return BertConfig(
        layers=int(raw["num_hidden_layers"]),
        heads=int(raw["num_attention_heads"]),
        hidden=int(raw["hidden_size"]),
        max_positions=int(raw["max_position_embeddings"]),
        layer_norm_eps=float(raw.get("layer_norm_eps", 1e-12)),
        pad_token_id=int(raw.get("pad_token_id", 0)),
    )


def read_weights(path: Path) -> dict[str, NDArray[np.float32]]:
    """
    Read an encoder's `model.safetensors` as float32, names without a leading "bert.".

    Args:
        path: the file.

    Returns: tensor name to array; integer tensors (position ids) are left out.
    Raises: MissingExtra without safetensors; DataError for a file that is none or holds another number format.
    """
    try:
        import safetensors
        from safetensors.numpy import load_file
    except ImportError as error:
        raise MissingExtra("encoder.v1", extra="train") from error
    try:
        tensors = load_file(path)
    except (safetensors.SafetensorError, OSError, TypeError, KeyError) as error:
        raise DataError(
            f"{path.name} can't be read as safetensors of float16 or float32: {error}",
            next_action="fetch the encoder again, or take one that is stored in float32",
        ) from error
    return {
        name.removeprefix("bert."): np.ascontiguousarray(value, dtype=np.float32)
        for name, value in tensors.items()
        if value.dtype in (np.float16, np.float32)
    }


class _Graph:
    """Collects nodes and initialisers; `add` returns the name of the new tensor."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.nodes: list[Any] = []
        self.tensors: dict[str, NDArray[Any]] = {}

    def add(self, operator: str, *inputs: str, name: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: Any, kind: Any = np.int64) -> str:
        self.tensors.setdefault(name, np.array(value, dtype=kind, order="C"))
        return name

    def take(self, name: str) -> NDArray[np.float32]:
        if name not in self.weights:
            raise DataError(
                f"the encoder's weights have no tensor {name!r}",
                next_action="check that model.safetensors and config.json belong to one BERT encoder",
            )
        return self.weights[name]

    def dense(self, x: str, names: list[str], *, name: str) -> str:
        """One matrix product for the layers in `names` side by side; torch keeps (out, in), ONNX wants (in, out)."""
        weight = np.concatenate([self.take(f"{n}.weight") for n in names]).T
        bias = np.concatenate([self.take(f"{n}.bias") for n in names])
        product = self.add("MatMul", x, self.constant(f"{name}.w", weight, np.float32), name=f"{name}.product")
        return self.add("Add", product, self.constant(f"{name}.b", bias, np.float32), name=name)

    def norm(self, x: str, source: str, eps: float, *, name: str) -> str:
        scale = self.constant(f"{name}.scale", self.take(f"{source}.weight"), np.float32)
        shift = self.constant(f"{name}.shift", self.take(f"{source}.bias"), np.float32)
        return self.add("LayerNormalization", x, scale, shift, name=name, axis=-1, epsilon=eps)


def _embeddings(g: _Graph, config: BertConfig) -> str:
    words = g.constant("words", g.take("embeddings.word_embeddings.weight"), np.float32)
    # Every token of a single text has type 0, so that row is added to the positions once and for all.
    places = g.take("embeddings.position_embeddings.weight") + g.take("embeddings.token_type_embeddings.weight")[0]
    table = g.constant("places", places, np.float32)
    length = g.add("Shape", "input_ids", name="length", start=1, end=2)
    here = g.add("Slice", table, g.constant("zero", [0]), length, g.constant("zero", [0]), name="here")
    added = g.add("Add", g.add("Gather", words, "input_ids", name="looked_up"), here, name="embedded")
    return g.norm(added, "embeddings.LayerNorm", config.layer_norm_eps, name="embeddings")


def _layer(g: _Graph, x: str, config: BertConfig, at: int) -> str:
    source, p = f"encoder.layer.{at}", f"layer{at}"
    size = config.hidden // config.heads
    parts = [f"{source}.attention.self.{part}" for part in ("query", "key", "value")]
    split = g.constant("split_heads", [0, 0, 3, config.heads, size])
    # (batch, length, 3, heads, size) to three tensors of (batch, heads, length, size)
    packed = g.add("Reshape", g.dense(x, parts, name=f"{p}.qkv"), split, name=f"{p}.packed")
    turned = g.add("Transpose", packed, name=f"{p}.turned", perm=[2, 0, 3, 1, 4])
    q, k, v = (
        g.add("Gather", turned, g.constant(f"part{i}", i), name=f"{p}.{part}", axis=0) for i, part in enumerate("qkv")
    )
    scaled = g.add("Mul", q, g.constant("scale", 1 / math.sqrt(size), np.float32), name=f"{p}.scaled")
    keys = g.add("Transpose", k, name=f"{p}.keys", perm=[0, 1, 3, 2])
    scores = g.add("Add", g.add("MatMul", scaled, keys, name=f"{p}.raw"), "mask_bias", name=f"{p}.scores")
    mixed = g.add("MatMul", g.add("Softmax", scores, name=f"{p}.shares", axis=-1), v, name=f"{p}.mixed")
    joined = g.add(
        "Reshape",
        g.add("Transpose", mixed, name=f"{p}.back", perm=[0, 2, 1, 3]),
        g.constant("join_heads", [0, 0, config.hidden]),
        name=f"{p}.joined",
    )
    attended = g.dense(joined, [f"{source}.attention.output.dense"], name=f"{p}.attended")
    x = g.norm(
        g.add("Add", attended, x, name=f"{p}.residual"),
        f"{source}.attention.output.LayerNorm",
        config.layer_norm_eps,
        name=f"{p}.attention",
    )
    wide = g.add("Gelu", g.dense(x, [f"{source}.intermediate.dense"], name=f"{p}.wide"), name=f"{p}.gelu")
    narrow = g.dense(wide, [f"{source}.output.dense"], name=f"{p}.narrow")
    summed = g.add("Add", narrow, x, name=f"{p}.sum")
    return g.norm(summed, f"{source}.output.LayerNorm", config.layer_norm_eps, name=f"{p}.out")


def _mask_bias(g: _Graph) -> None:
    g.add("Cast", "attention_mask", name="mask", to=1)
    hidden = g.add("Sub", g.constant("one", 1.0, np.float32), "mask", name="hidden")
    bias = g.add("Mul", hidden, g.constant("masked", MASKED, np.float32), name="flat_bias")
    g.add("Unsqueeze", bias, g.constant("middle", [1, 2]), name="mask_bias")


def _pool(g: _Graph, x: str, pooling: Pooling, *, name: str = "embedding") -> str:
    p = "" if name == "embedding" else f"{name}."
    mask = g.add("Unsqueeze", "mask", g.constant("last", [-1]), name=f"{p}column")
    length = g.constant("axis_1", [1])
    total = g.add("ReduceSum", g.add("Mul", x, mask, name=f"{p}kept"), length, name=f"{p}total", keepdims=0)
    count = g.add("ReduceSum", "mask", length, name=f"{p}tokens", keepdims=1)
    mean = g.add("Div", total, count, name=f"{p}mean")
    norm = g.add("ReduceL2", mean, length, name=f"{p}norm", keepdims=1)
    floor = g.add("Max", norm, g.constant("least_norm", 1e-12, np.float32), name=f"{p}safe_norm")
    if pooling == "mean":
        return g.add("Div", mean, floor, name=name)
    unit = g.add("Div", mean, floor, name=f"{p}unit_mean")
    seen = g.add("Cast", mask, name=f"{p}seen", to=9)
    least = g.constant("below_all", MASKED, np.float32)
    most = g.add("ReduceMax", g.add("Where", seen, x, least, name=f"{p}shown"), length, name=f"{p}largest", keepdims=0)
    return g.add("Concat", unit, most, name=name, axis=1)


def _classify(g: _Graph, x: str, head: Head) -> str:
    if head.inner_weight is not None and head.inner_bias is not None:
        weight = g.constant("head.inner.weight", head.inner_weight, np.float32)
        bias = g.constant("head.inner.bias", head.inner_bias, np.float32)
        x = g.add("Gelu", g.add("Gemm", x, weight, bias, name="head.wide", transB=1), name="head.inner")
    weight = g.constant("head.weight", head.weight, np.float32)
    return g.add("Gemm", x, weight, g.constant("head.bias", head.bias, np.float32), name="logits", transB=1)


def width_of(config: BertConfig, pooling: Pooling) -> int:
    """
    Columns of the embedding.

    Args:
        config: the encoder's shape.
        pooling: see `build`.

    Returns: the count.
    """
    return config.hidden * (1 if pooling == "mean" else 2)


def build(
    config: BertConfig, weights: Weights, *, pooling: Pooling = "mean", head: Head | None = None, levels: int = 1
) -> onnx.ModelProto:
    """
    The encoder as an ONNX model: token ids and mask in; pooled embedding, and with a head the logits, out.

    Args:
        config: the encoder's shape.
        weights: its tensors, see `read_weights`.
        pooling: "mean" is the mean over the tokens, scaled to length 1; "mean_max" appends each dimension's maximum.
        head: a classifier on the embedding; without one the embedding alone comes out.
        levels: the head reads the embeddings of so many upper layers side by side, the last one first; without a head
            they come out so, as `levels`.

    Returns: a model with inputs `input_ids` and `attention_mask`, int64, shape (n, length), at least one mask bit
        set in each row, and the outputs `logits` (n, k), where there is a head, and `embedding`, float32.
    Raises: MissingExtra without onnx; DataError where a tensor is missing.
    """
    g, layers = _encoder(config, weights)
    width = width_of(config, pooling)
    output = _pool(g, layers[-1], pooling)
    outputs = {output: width}
    if levels > 1:
        lower = [_pool(g, layers[-1 - i], pooling, name=f"level{i}") for i in range(1, levels)]
        output = g.add("Concat", output, *lower, name="levels", axis=1)
        outputs = {output: levels * width, **outputs}
    if head is not None:
        outputs = {_classify(g, output, head): len(head.bias), "embedding": width}
    return _model(g, {name: ["n", width] for name, width in outputs.items()})


def build_tokens(config: BertConfig, weights: Weights, head: Head) -> onnx.ModelProto:
    """
    The encoder as an ONNX model that scores every token: token ids and mask in, scores out.

    Args:
        config: the encoder's shape.
        weights: its tensors, see `read_weights`.
        head: a linear layer on each token's last hidden state.

    Returns: a model with the inputs of `build` and one output `tokens`, float32, shape (n, length, k).
    Raises: MissingExtra without onnx; DataError where a tensor is missing.
    """
    g, layers = _encoder(config, weights)
    product = g.add("MatMul", layers[-1], g.constant("head.weight", head.weight.T, np.float32), name="head.product")
    output = g.add("Add", product, g.constant("head.bias", head.bias, np.float32), name="tokens")
    return _model(g, {output: ["n", "length", len(head.bias)]})


def _encoder(config: BertConfig, weights: Weights) -> tuple[_Graph, list[str]]:
    """The graph, and the name of each layer's hidden state."""
    try:
        import onnx  # noqa: F401 - said here, before minutes of work
    except ImportError as error:
        raise MissingExtra("encoder.v1", extra="train") from error
    g = _Graph(weights)
    _mask_bias(g)
    states = [_embeddings(g, config)]
    for at in range(config.layers):
        states.append(_layer(g, states[-1], config, at))
    return g, states[1:]


def _model(g: _Graph, outputs: Mapping[str, list[Any]]) -> onnx.ModelProto:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    tokens = ["input_ids", "attention_mask"]
    graph = helper.make_graph(
        g.nodes,
        "encoder",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "length"]) for name in tokens],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in g.tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="overproof")
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model)
    return model


def count_parameters(model: onnx.ModelProto) -> int:
    """
    How many numbers a model's float tensors hold.

    Args:
        model: an ONNX model.

    Returns: the count, frozen ones included.
    """
    return sum(math.prod(tensor.dims) for tensor in model.graph.initializer if tensor.data_type == 1)
