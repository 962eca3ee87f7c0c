"""Which runtime is released: the fastest whose answers hold, and float32 where nothing can be shown."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.students.tiny import write_tiny

from overproof.data import CalibrationSet, Example, Folder, Request, TrainSet
from overproof.errors import DataError
from overproof.evidence import RuntimeTried, Trained
from overproof.steps import export as step
from overproof.steps.export import FASTER, LEAST_ROWS, ExportRecipe, NoRecipe, export, exporter, take_exported
from overproof.students.encoder import EncoderStudent
from overproof.students.runtimes import FP32, RUNTIMES, why_not

LABELS = ("billing", "delivery", "login")
WORDS = {"billing": "invoice refund card payment", "delivery": "parcel courier tracking box", "login": "password account locked mail"}
# A form that answers otherwise, as a mistaken export would: the head's first two rows change places.
BROKEN = """
import onnx
from onnx import numpy_helper
from overproof.students.encoder import EncoderStudent


class Broken(EncoderStudent):
    @classmethod
    def exported(cls, folder, runtime, *, into):
        super().exported(folder, runtime, into=into)
        if runtime != "onnx-fp32":
            path = into / "model.onnx"
            graph = onnx.load_model_from_string(path.read_bytes())
            (head,) = [t for t in graph.graph.initializer if t.name == "head.weight"]
            head.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(head)[[1, 0, 2]], head.name))
            path.write_bytes(graph.SerializeToString())
"""


def rows(count, seed=0):
    rng = np.random.default_rng(seed)
    found = []
    for i in range(count):
        label = LABELS[i % 3]
        text = " ".join([*rng.choice(WORDS[label].split(), 4), rng.choice(["please", "my", "today"])])
        found.append(Example(request=Request(id=str(i), fields={"text": text}), target=label))
    return tuple(found)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("export")
    student = EncoderStudent(labels=LABELS, weights=f"folder:{write_tiny(root / 'weights')}")
    folder = root / "student"
    folder.mkdir()
    student.fit(TrainSet(examples=rows(60, seed=1), labels=LABELS), workdir=folder)
    return Trained(
        name="tiny", use="encoder.v1", kind="student", folder=Folder(path=folder), size_bytes=1, parameters=student.parameters,
        rows=60, seed=0,
    )  # fmt: skip


def made(trained, count, folder, runtime="auto"):
    folder.mkdir(exist_ok=True)
    return export(trained, CalibrationSet(examples=rows(count), labels=LABELS), ExportRecipe(runtime=runtime), workdir=folder)


def test_all_are_tried_and_the_one_taken_is_what_goes_on(trained, tmp_path):
    """The table has every runtime with figures and n; the files are the taken one's, by themselves."""
    found = made(trained, 210, tmp_path)
    report = found.report
    assert [one.runtime for one in report.tried] == list(RUNTIMES)
    assert report.n == 210
    for one in report.tried:
        if why_not(RUNTIMES[one.runtime]):
            assert (one.passed, one.latency_s) == (False, None)
            continue
        assert one.latency_s > 0
        assert one.load_s > 0
        assert one.per_second > 0
        assert 20e6 < one.peak_bytes < 1e9
        assert one.latency_n == step.ROUNDS * step.SINGLES
        if one.runtime != FP32.name:
            assert one.agreement.n == 210
            assert 0 <= one.shift_p99 <= one.shift_max
    (taken,) = [one for one in report.tried if one.runtime == report.runtime]
    assert taken.passed
    assert taken is report.tried[0] or taken.latency_s * FASTER <= report.tried[0].latency_s
    candidate = take_exported(found, NoRecipe())
    assert (candidate.runtime, candidate.size_bytes) == (taken.runtime, taken.size_bytes)
    assert replace(candidate, folder=trained.folder, size_bytes=1, runtime="") == trained
    assert [p.name for p in tmp_path.iterdir()] == [candidate.folder.path.name]
    assert EncoderStudent.load(candidate.folder.path)._runner._runtime.name == taken.runtime


def test_a_runtime_that_answers_otherwise_never_passes(trained, tmp_path, monkeypatch):
    """Forms with two labels swapped are out, whatever their speed, and the table says how many rows changed."""
    (tmp_path / "broken_part.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(step, "RUNTIMES", {n: RUNTIMES[n] for n in ("onnx-fp32", "onnx-blocks8", "onnx-int8")})
    monkeypatch.setattr(step, "FASTER", 0.0)  # any speed would do
    found = made(replace(trained, use="broken_part:Broken"), 201, tmp_path / "work")
    assert found.report.runtime == FP32.name
    for one in found.report.tried[1:]:
        assert not one.passed
        assert "rows get another answer" in one.reason
        assert one.agreement.value < 0.9
    with pytest.raises(DataError, match="rows get another answer"):
        made(replace(trained, use="broken_part:Broken"), 201, tmp_path / "again", runtime="onnx-blocks8")


def test_too_few_rows_leave_float32(trained, tmp_path):
    """One row short of the least, nothing else is even tried, and the report says why; by name it is refused."""
    found = made(trained, LEAST_ROWS - 1, tmp_path / "auto")
    assert [one.runtime for one in found.report.tried] == [found.report.runtime] == [FP32.name]
    assert "not enough rows: parity needs 200 calibration rows, there are 199" in found.report.reason
    with pytest.raises(DataError, match="not enough rows"):
        made(trained, LEAST_ROWS - 1, tmp_path / "named", runtime="onnx-blocks8")
    assert made(trained, 5, tmp_path / "plain", runtime="onnx-fp32").trained.runtime == FP32.name


def test_a_named_runtime_is_taken_if_it_holds(trained, tmp_path, monkeypatch):
    """Speed is not asked; parity and this processor are."""
    found = made(trained, 240, tmp_path / "named", runtime="onnx-blocks8")
    assert (found.trained.runtime, found.report.reason) == ("onnx-blocks8", "onnx-blocks8 was asked for")
    assert [one.runtime for one in found.report.tried] == [FP32.name, "onnx-blocks8"]
    monkeypatch.setattr(step, "why_not", lambda one: "" if one is FP32 else "it is not installed")
    with pytest.raises(DataError, match="can't be released: it is not installed"):
        made(trained, 201, tmp_path / "absent", runtime="openvino-fp32")


def test_a_part_without_runtimes_has_none_to_choose(trained, tmp_path):
    """linear.v1 comes in one form."""
    assert exporter("linear.v1") is None
    assert exporter("encoder.v1") is EncoderStudent
    with pytest.raises(DataError, match="no runtimes to choose from"):
        made(replace(trained, use="linear.v1"), 201, tmp_path)


def test_parity_is_tested_on_rows_from_the_whole_set(trained, tmp_path, monkeypatch):
    """Of more rows than are needed every second or third is taken, not the first ones."""
    monkeypatch.setattr(step, "MOST_ROWS", 100)
    monkeypatch.setattr(step, "LEAST_ROWS", 50)
    monkeypatch.setattr(step, "RUNTIMES", {n: RUNTIMES[n] for n in ("onnx-fp32", "onnx-blocks8")})
    seen = []
    honest = step._chances
    monkeypatch.setattr(step, "_chances", lambda student, asked: seen.append([r.id for r in asked]) or honest(student, asked))
    assert made(trained, 250, tmp_path).report.n == 84
    assert seen[0] == [str(i) for i in range(0, 250, 3)]


TRIED = st.builds(
    lambda name, passed, ms: RuntimeTried(runtime=name, passed=passed, reason="", latency_s=ms / 1000 if ms else None),
    name=st.text(min_size=1), passed=st.booleans(), ms=st.one_of(st.none(), st.floats(0.1, 50)),
)  # fmt: skip


@settings(max_examples=50)
@given(first=st.floats(0.1, 50), rest=st.lists(TRIED, max_size=6))
def test_a_simpler_runtime_stays_unless_another_is_clearly_faster(first, rest):
    """What is taken has passed; it is the first one or a fifth faster, and nothing that passed is faster by a fifth than it."""
    tried = [RuntimeTried(runtime="first", passed=True, reason="", latency_s=first / 1000), *rest]
    taken = step._fastest(tried)
    assert taken.passed
    assert taken is tried[0] or taken.latency_s * FASTER <= tried[0].latency_s
    after = tried[next(i for i, one in enumerate(tried) if one is taken) :]
    assert all(one.latency_s * FASTER > taken.latency_s for one in after[1:] if one.passed and one.latency_s)


def test_the_step_reads_no_label(trained, tmp_path):
    """Calibration rows with all their targets swapped give the same parity figures."""
    examples = tuple(replace(e, target="login") for e in rows(240))
    other = export(trained, CalibrationSet(examples=examples, labels=LABELS), ExportRecipe(runtime="onnx-blocks8"), workdir=Path(tmp_path))
    (tmp_path / "b").mkdir()
    plain = made(trained, 240, tmp_path / "b", runtime="onnx-blocks8")
    figures = [(one.agreement, one.shift_p99) for one in (*other.report.tried, *plain.report.tried)]
    assert figures[:2] == figures[2:]
