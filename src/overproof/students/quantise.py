"""An ONNX graph with 8-bit weights: the same nodes and names, with the large constants rounded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from overproof.errors import MissingExtra
from overproof.students.runtimes import Form

BLOCK = 128  # inputs that share a scale in the form "blocks": half the time of 32 for a tenth more error
LEAST_ROWS = 512  # a smaller table is not worth rounding


def rewritten(model: bytes, form: Form) -> bytes:
    """
    Round the constant matrices and the word table of a graph to 8 bits; everything else stays in float32.

    The word table gets a scale for each row. The matrices get, by form: "channels" a scale for each output, and
    activations rounded with one scale a pass (DynamicQuantizeLinear, MatMulInteger); "blocks" a scale for each 128
    inputs of an output, and activations rounded by ONNX Runtime in the same blocks (MatMulNBits); "weights" a scale
    for each output, and activations as the runtime likes (DequantizeLinear before MatMul, which OpenVINO reads as
    compressed weights).

    Args:
        model: an ONNX model in float32.
        form: see above.

    Returns: the rewritten model, the same bytes for the same input. The head (a Gemm) is left alone: it is small,
        and its rows differ most in size.
    Raises: MissingExtra without onnx.
    """
    try:
        import onnx
        from onnx import helper, numpy_helper
    except ImportError as error:
        raise MissingExtra("encoder.v1", extra="train") from error
    graph = onnx.load_model_from_string(model)
    found = {tensor.name: tensor for tensor in graph.graph.initializer}
    constants: dict[str, NDArray[Any]] = {}
    nodes = []
    for node in graph.graph.node:
        source = {"MatMul": 1, "Gather": 0}.get(node.op_type)
        tensor = found.get(node.input[source]) if source is not None else None
        fits = tensor is not None and tensor.data_type == 1 and len(tensor.dims) == 2
        if tensor is None or not fits or (node.op_type == "Gather" and tensor.dims[0] < LEAST_ROWS):
            nodes.append(node)
            continue
        weight = numpy_helper.to_array(tensor)
        del found[tensor.name]
        make = _table if node.op_type == "Gather" else {"channels": _channels, "blocks": _blocks, "weights": _weights}[form]
        nodes += [helper.make_node(kind, inputs, outputs, name=outputs[0], **rest)
                  for kind, inputs, outputs, rest in make(node, weight, constants)]  # fmt: skip
    del graph.graph.node[:], graph.graph.initializer[:]
    graph.graph.node.extend(nodes)
    graph.graph.initializer.extend(found.values())
    graph.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    if form == "blocks":
        graph.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    data: bytes = graph.SerializeToString(deterministic=True)
    return data


_Nodes = Iterator[tuple[str, list[str], list[str], dict[str, Any]]]


def _scales(weight: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    # Not 1 where all is 0: kernels are off by a millionth of the scale, zeros included.
    return np.asarray(np.maximum(np.abs(weight).max(axis=axis, keepdims=True) / 127, 1e-12), dtype=np.float32)


def _table(node: Any, weight: NDArray[np.float32], constants: dict[str, NDArray[Any]]) -> _Nodes:
    name, ids, out = node.input[0], node.input[1], node.output[0]
    scale = _scales(weight, 1)
    constants |= {f"{name}.q": np.rint(weight / scale).astype(np.int8), f"{name}.s": scale}
    yield "Gather", [f"{name}.q", ids], [f"{out}.q"], {}
    yield "Gather", [f"{name}.s", ids], [f"{out}.s"], {}
    yield "Cast", [f"{out}.q"], [f"{out}.f"], {"to": 1}
    yield "Mul", [f"{out}.f", f"{out}.s"], [out], {}


def _channels(node: Any, weight: NDArray[np.float32], constants: dict[str, NDArray[Any]]) -> _Nodes:
    x, name, out = node.input[0], node.input[1], node.output[0]
    scale = _scales(weight, 0)
    constants |= {f"{name}.q": np.rint(weight / scale).astype(np.int8), f"{name}.s": scale[0]}
    yield "DynamicQuantizeLinear", [x], [f"{out}.xq", f"{out}.xs", f"{out}.xz"], {}
    yield "MatMulInteger", [f"{out}.xq", f"{name}.q", f"{out}.xz"], [f"{out}.i"], {}
    yield "Cast", [f"{out}.i"], [f"{out}.f"], {"to": 1}
    yield "Mul", [f"{out}.xs", f"{name}.s"], [f"{out}.s"], {}
    yield "Mul", [f"{out}.f", f"{out}.s"], [out], {}


def _blocks(node: Any, weight: NDArray[np.float32], constants: dict[str, NDArray[Any]]) -> _Nodes:
    x, name, out = node.input[0], node.input[1], node.output[0]
    inputs, outputs = weight.shape
    blocks = -(-inputs // BLOCK)
    padded = np.zeros((outputs, blocks * BLOCK), dtype=np.float32)
    padded[:, :inputs] = weight.T
    cut = padded.reshape(outputs, blocks, BLOCK)
    scale = _scales(cut, 2)
    # Stored without a sign: 128 is zero.
    constants |= {f"{name}.q": (np.rint(cut / scale) + 128).astype(np.uint8), f"{name}.s": scale[:, :, 0]}
    size = {"K": inputs, "N": outputs, "bits": 8, "block_size": BLOCK, "accuracy_level": 4}
    yield "MatMulNBits", [x, f"{name}.q", f"{name}.s"], [out], {"domain": "com.microsoft", **size}


def _weights(node: Any, weight: NDArray[np.float32], constants: dict[str, NDArray[Any]]) -> _Nodes:
    x, name, out = node.input[0], node.input[1], node.output[0]
    scale = _scales(weight, 0)
    constants |= {f"{name}.q": np.rint(weight / scale).astype(np.int8), f"{name}.s": scale[0]}
    yield "DequantizeLinear", [f"{name}.q", f"{name}.s"], [name], {"axis": 1}
    yield "MatMul", [x, name], [out], {}
