"""Rounded graphs: how far off they may be, and what they leave alone."""

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from overproof.students.quantise import LEAST_ROWS, rewritten

FORMS = ("channels", "blocks", "weights")


def graph_of(weight, *, rows=LEAST_ROWS, bias=None):
    """ids → word table → MatMul with a constant → Gemm with a constant."""
    inputs, outputs = weight.shape
    rng = np.random.default_rng(1)
    tensors = {
        "words": rng.normal(0, 1, (rows, inputs)).astype(np.float32),
        "w": weight,
        "head": rng.normal(0, 1, (3, outputs)).astype(np.float32),
        "bias": np.zeros(3, np.float32) if bias is None else bias,
    }
    nodes = [
        helper.make_node("Gather", ["words", "ids"], ["x"], name="x"),
        helper.make_node("MatMul", ["x", "w"], ["y"], name="y"),
        helper.make_node("Gemm", ["y", "head", "bias"], ["logits"], name="logits", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", k]) for name, k in (("y", outputs), ("logits", 3), ("x", inputs))],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 9
    return model.SerializeToString(), tensors


def answer(model, ids):
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(["x", "y", "logits"], {"ids": ids})


@settings(max_examples=8, deadline=None)
@given(
    form=st.sampled_from(FORMS), inputs=st.integers(1, 300), outputs=st.integers(1, 40),
    spread=st.floats(0.1, 3.0), seed=st.integers(0, 99),
)  # fmt: skip
def test_rounding_is_off_by_no_more_than_its_steps(form, inputs, outputs, spread, seed):
    """For any shape, uneven scales and a column of zeros included, each product is within the sum of half steps."""
    rng = np.random.default_rng(seed)
    weight = (rng.normal(0, 1, (inputs, outputs)) * np.exp(rng.normal(0, spread, outputs))).astype(np.float32)
    weight[:, 0] = 0
    model, tensors = graph_of(weight)
    ids = np.arange(LEAST_ROWS - 8, LEAST_ROWS)
    x, y, _ = answer(rewritten(model, form), ids)
    table = tensors["words"][ids]
    assert np.all(np.abs(x - table) <= np.abs(table).max(axis=1, keepdims=True) / 254 + 1e-5)
    step_w = np.abs(weight).max(axis=0) / 127  # of a whole column; a block's is no larger
    step_x = (x.max() - x.min()) / 255 if form == "channels" else np.abs(x).max() / 127
    step_x = 0.0 if form == "weights" else max(step_x, np.abs(x).max() / 255)
    most = np.abs(x).sum(axis=1)[:, None] * step_w / 2 + step_x * (np.abs(weight).sum(axis=0) + inputs * step_w)
    assert np.all(np.abs(y - x @ weight) <= most + 1e-4 * (1 + np.abs(x) @ np.abs(weight)))


@pytest.mark.parametrize("form", FORMS)
def test_the_head_and_small_tables_stay_as_they_are(form):
    """The last layer is exact for what comes in, and a table of few rows is looked up unrounded."""
    rng = np.random.default_rng(0)
    model, tensors = graph_of(rng.normal(0, 1, (64, 8)).astype(np.float32), rows=LEAST_ROWS - 1)
    found = rewritten(model, form)
    x, y, logits = answer(found, np.arange(8))
    np.testing.assert_array_equal(x, tensors["words"][:8])
    np.testing.assert_allclose(logits, y @ tensors["head"].T, rtol=1e-4, atol=1e-4)
    assert found == rewritten(model, form)
    names = {one.name: one.data_type for one in onnx.load_model_from_string(found).graph.initializer}
    assert names["head"] == names["words"] == 1
    assert names["w.q"] in (2, 3)
    assert "w" not in names


@pytest.mark.parametrize("form", FORMS)
def test_rounding_costs_about_a_hundredth(form):
    """On even weights the products are off by under 1.5 % of their size: less than one step off zero would cost."""
    weight = np.random.default_rng(3).normal(0, 1, (256, 64)).astype(np.float32)
    model, tensors = graph_of(weight)
    ids = np.arange(LEAST_ROWS)
    x, y, _ = answer(rewritten(model, form), ids)
    exact = tensors["words"][ids] @ weight
    assert np.linalg.norm(y - exact) < 0.015 * np.linalg.norm(exact)
    assert np.linalg.norm(x - tensors["words"]) < 0.01 * np.linalg.norm(x)
