"""Runtimes: each answers like the fitted student, alone as in company, and none loads what it can't run."""

import json
import shutil
from typing import get_args

import numpy as np
import pytest
from tests.students.tiny import write_tiny

from overproof.data import Request
from overproof.errors import DataError, MissingExtra
from overproof.settings import RUNTIMES as NAMES
from overproof.students import runtimes
from overproof.students.encoder import EncoderStudent
from overproof.students.quantise import Form
from overproof.students.runtimes import AUTO, FP32, RUNTIMES, runtime_of, why_not

HERE = [name for name, one in RUNTIMES.items() if not why_not(one)]
TEXTS = ["my parcel is lost", "", "ok", "refund " * 90, "passwort 😡", "thanks a lot for the quick help", "ok"]
ASKED = [Request(id=str(i), fields={"text": text}) for i, text in enumerate(TEXTS)]
# How far a logit may be from float32: rounding of weights and activations, none for the same arithmetic.
OFF = {"onnx-fp32": 0.0, "openvino-fp32": 1e-3, "openvino-bf16": 0.5}


@pytest.fixture(scope="module")
def fitted(train_set, tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny")
    weights = write_tiny(root / "weights")
    student = EncoderStudent(labels=train_set.labels, weights=f"folder:{weights}", c=1.0)
    (root / "student").mkdir()
    student.fit(train_set, workdir=root / "student")
    return root / "student"


@pytest.fixture(scope="module", params=HERE)
def form(request, fitted, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    EncoderStudent.exported(fitted, request.param, into=folder)
    return folder


def name_of(folder):
    return json.loads((folder / "student.json").read_text())["facts"]["runtime"]


def test_it_answers_like_the_fitted_student(form, fitted):
    """Within the runtime's own rounding the logits are those of float32, and features come with them."""
    whole, student = EncoderStudent.load(fitted).look(ASKED), EncoderStudent.load(form)
    seen = student.look(ASKED)
    spread = whole.logits.max(axis=1) - whole.logits.min(axis=1)
    off = np.abs(seen.logits - whole.logits).max()
    assert off <= OFF.get(name_of(form), 0.25 * spread.max())
    assert set(seen.columns) == set(whole.columns) == {"nearest_1", "nearest_10", "mahalanobis", "relative_mahalanobis"}
    assert student.parameters == EncoderStudent.load(fitted).parameters
    np.testing.assert_array_equal(student.logits(ASKED), seen.logits)
    assert student.logits([]).shape == (0, 5)


def test_a_row_answers_as_it_does_alone(form):
    """Whatever stands beside it; where numbers are rounded to 8 bits, to the last bit."""
    student = EncoderStudent.load(form)
    alone = np.concatenate([student.logits([one]) for one in ASKED])
    exact = RUNTIMES[name_of(form)].form is not None
    np.testing.assert_allclose(student.logits(ASKED), alone, rtol=0, atol=0 if exact else 0.05 if "bf16" in name_of(form) else 1e-4)


def test_eight_bits_take_a_third_of_the_bytes_or_less(form, fitted):
    """The graph shrinks where it is rounded; the tokenizer and the features are the fitted ones."""
    ratio = (form / "model.onnx").stat().st_size / (fitted / "model.onnx").stat().st_size
    assert ratio < 1 / 3 if RUNTIMES[name_of(form)].form else ratio == 1
    for name in ("tokenizer.json", "neighbours.npz"):
        assert (form / name).read_bytes() == (fitted / name).read_bytes()


def test_a_folder_of_before_is_read_in_float32(fitted):
    """A folder that names no runtime, as fits leave it, is run by ONNX Runtime."""
    assert "runtime" not in json.loads((fitted / "student.json").read_text())["facts"]
    assert EncoderStudent.load(fitted)._runner.runtime is FP32


@pytest.mark.parametrize("name", ["onnx-int4", "", None, 3, "../model"])
def test_an_unknown_runtime_is_refused(fitted, tmp_path, name):
    """The folder's own word for its runtime is one of the known names, or nothing is loaded."""
    copy = shutil.copytree(fitted, tmp_path / "copy")
    raw = json.loads((copy / "student.json").read_text())
    raw["facts"]["runtime"] = name
    (copy / "student.json").write_text(json.dumps(raw))
    with pytest.raises(DataError, match="no runtime named"):
        EncoderStudent.load(copy)


@pytest.mark.parametrize("name", [n for n in HERE if n.startswith("openvino")] or ["onnx-fp32"])
def test_no_runtime_reads_another_file(fitted, tmp_path, name):
    """A graph that points to tensors elsewhere is refused before a library sees it."""
    import onnx

    copy = shutil.copytree(fitted, tmp_path / "copy")
    EncoderStudent.exported(fitted, name, into=copy)
    graph = onnx.load_model_from_string((copy / "model.onnx").read_bytes())
    tensor = graph.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    (copy / "model.onnx").write_bytes(graph.SerializeToString())
    with pytest.raises(DataError, match="another file"):
        EncoderStudent.load(copy)


@pytest.mark.skipif("openvino-bf16" not in HERE, reason="this processor has no bf16")
def test_bf16_is_refused_where_the_processor_has_none(fitted, tmp_path, monkeypatch):
    """OpenVINO would go on in float32, with other scores than were certified; loading says so instead."""
    EncoderStudent.exported(fitted, "openvino-bf16", into=tmp_path)

    class Core(type(runtimes._core())):  # the real library; only what it says of the processor is replaced
        def get_property(self, *asked):
            return ["FP32", "INT8"] if asked == ("CPU", "OPTIMIZATION_CAPABILITIES") else super().get_property(*asked)

    monkeypatch.setattr(runtimes, "_core", Core)
    with pytest.raises(DataError, match="no bf16 arithmetic"):
        EncoderStudent.load(tmp_path)


def test_a_missing_library_is_named(fitted, tmp_path, monkeypatch):
    """A server without openvino is told which extra brings it."""
    import sys

    EncoderStudent.exported(fitted, "openvino-fp32", into=tmp_path)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtra) as caught:
        EncoderStudent.load(tmp_path)
    assert "overproof[openvino]" in caught.value.next_action


def test_the_names_are_those_of_the_project_file():
    """The project file admits exactly the runtimes that there are, and "auto"."""
    assert (AUTO, *RUNTIMES) == NAMES
    assert {one.form for one in RUNTIMES.values()} == {None, *get_args(Form)}
    assert runtime_of("onnx-int8").extras == ()
    assert runtime_of("openvino-int8").extras == ("openvino",)
