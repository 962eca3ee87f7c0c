import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from overproof.data import Example, Request, TrainSet
from overproof.errors import DataError, NotYetError
from overproof.evidence import (
    Calibration,
    CalibrationGap,
    Calibrator,
    CandidateReport,
    Certificate,
    Confidence,
    EvalReport,
    Figure,
    Reliability,
    SliceCertificate,
)
from overproof.steps.pack import PackRecipe, pack
from overproof.steps.train import StudentRecipe, train
from overproof.students.bundle import load_bundle
from overproof.task import Slice

MESSAGES = json.loads((Path(__file__).parents[1] / "students" / "messages.json").read_text(encoding="utf-8"))
LABELS = ("billing", "delivery", "login", "praise")
SLICES = (
    Slice(name="paying", where=(("tier", ("plus", "business")),)),
    Slice(name="praises", where=(("label", ("praise",)),)),
    Slice(name="german", where=(("language", ("de",)),)),
)
RECIPE = PackRecipe(task="routing", input=("subject", "body"), slices=SLICES)


def fit(use, folder):
    examples = tuple(
        Example(request=Request(id=str(i), fields={"subject": "", "body": text}), target=label)
        for i, (label, _, text) in enumerate(MESSAGES)
    )
    rows = TrainSet(examples=examples, labels=LABELS)
    return train(rows, StudentRecipe(name="small", use=use), workdir=folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return fit("linear.v1", tmp_path_factory.mktemp("trained"))


def figure(metric):
    return Figure(metric=metric, value=0.9, low=0.8, high=0.95, level=0.95, method="clopper-pearson", n=100, good=90)


def certified(name, threshold):
    return SliceCertificate(
        slice=name, alpha=0.05, delta=0.05, threshold=threshold, n=100, kept=80, wrong=1, upper=0.04,
        keep_share=figure("kept"), verdict="pass" if threshold is not None else "undecided",
    )


def report_of(*slices, chosen="small", temperature=1.7, confidence=None):
    gap = CalibrationGap(value=0.02, low=0.01, high=0.05, level=0.95, method="bootstrap", n=100, noise=0.02)
    seen = Reliability(slice="all", brier=0.1, log_loss=0.4, ece=gap)
    how = confidence or Confidence(everywhere=Calibrator(method="temperature", temperature=temperature))
    calibration = Calibration(
        name="small", confidence=how, reason="few rows", losses=(), before=seen, after=seen, slices=(), scope=None,
        n=100, fidelity=figure("fidelity"), accuracy=None,
    )
    candidate = CandidateReport(
        name="small", kind="student", size_bytes=1, parameters=1, latency_s=0.001, latency_p95_s=0.002,
        cost_usd_per_1000=0.01, calibration=calibration, ece_test=None, reliability_before=(), reliability_after=(),
        slices=(), clears_bars="pass", margin=0.01,
    )
    certificate = Certificate(
        plan_hash="a" * 64, sealed_digest="b" * 64, label_kind="teacher:big", use_k=1, delta_spent=0.05, slices=slices,
        assumptions=(), window=(None, None), expires="2030-01-01",
    )
    return EvalReport(
        candidates=(candidate,), chosen=chosen, reason="smallest", certificate=certificate, n_test=100, n_gold=0,
        weak_labels=(), disagreements=(), cheaper=None,
    )


def test_the_bundle_serves_the_certified_thresholds(trained, tmp_path):
    """What is packed loads with the certificate's thresholds, the fitted temperature and the project's slices."""
    report = report_of(certified("paying", 0.5), certified("german", None), certified("other", 0.4))
    bundle = load_bundle(pack(trained, report, RECIPE, workdir=tmp_path).path)
    assert [(t.slice.name, t.threshold) for t in bundle.card.thresholds] == [
        ("paying", 0.5), ("german", None), ("other", 0.4),
    ]
    assert (bundle.card.confidence.everywhere.temperature, bundle.card.label_kind, bundle.card.task) == (1.7, "teacher:big", "routing")
    sure = {"subject": "parcel", "body": "where is my parcel? tracking has not moved, the package is lost"}
    assert bundle.answer(sure, {"tier": "plus"}).value == "delivery"
    assert bundle.answer(sure, {"language": "de"}).route == "teacher"
    assert bundle.answer(sure).slice == "other"


def test_a_slice_that_nobody_certified_goes_to_the_teacher(trained, tmp_path):
    """A slice of the project without a certificate keeps its place: its requests don't slide into a later slice."""
    report = report_of(certified("other", -1.0))
    bundle = load_bundle(pack(trained, report, RECIPE, workdir=tmp_path).path)
    answer = bundle.answer({"subject": "", "body": "mein Konto ist gesperrt"}, {"language": "de"})
    assert (answer.route, answer.slice, answer.value) == ("teacher", "german", None)


def test_no_certificate_for_the_rest_means_the_teacher(trained, tmp_path):
    """A certificate without "other" gives the rest no threshold at all."""
    bundle = load_bundle(pack(trained, report_of(certified("paying", 0.1)), RECIPE, workdir=tmp_path).path)
    assert bundle.answer({"subject": "", "body": "thanks"}).route == "teacher"


def test_the_bundle_holds_data_only_and_no_customer_text(trained, tmp_path):
    """Only JSON, NPZ and ONNX files, 32 self-test rows, and none of the training messages in any file."""
    folder = pack(trained, report_of(certified("other", 0.4)), RECIPE, workdir=tmp_path).path
    files = [p for p in folder.rglob("*") if p.is_file()]
    assert {p.suffix for p in files} <= {".json", ".npz", ".onnx"}
    assert len(load_bundle(folder).card.selftest) == 32
    everything = b"\n".join(p.read_bytes() for p in files).decode("utf-8", "replace")
    assert not [text for _, _, text in MESSAGES if len(text) > 12 and text in everything]


def test_packing_twice_gives_the_same_bytes(trained, tmp_path):
    """The bundle's bytes depend on its inputs only."""
    found = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        folder = pack(trained, report_of(certified("other", 0.4)), RECIPE, workdir=tmp_path / name).path
        found.append({p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()})
    assert found[0] == found[1]


def test_only_the_chosen_candidate_is_packed(trained, tmp_path):
    """A candidate that the report didn't choose is refused: nothing is certified for it."""
    with pytest.raises(DataError, match="chose 'large'"):
        pack(trained, report_of(chosen="large"), RECIPE, workdir=tmp_path)


def test_an_uncalibrated_candidate_is_not_packed(trained, tmp_path):
    """Without a temperature the thresholds mean nothing, so there is no bundle."""
    report = report_of()
    report = replace(report, candidates=(replace(report.candidates[0], calibration=None),))
    with pytest.raises(DataError, match="no calibration"):
        pack(trained, report, RECIPE, workdir=tmp_path)


def test_a_certificate_for_other_slices_is_refused(trained, tmp_path):
    """A slice that the certificate knows and the project doesn't is refused by name."""
    with pytest.raises(DataError, match="'vip'"):
        pack(trained, report_of(certified("vip", 0.5)), RECIPE, workdir=tmp_path)


def test_a_slice_cut_by_a_function_is_refused(trained, tmp_path):
    """Code doesn't travel in a bundle; the error says what to do instead."""
    recipe = replace(RECIPE, slices=(Slice(name="long", function="checks:long"),))
    with pytest.raises(NotYetError, match="checks:long"):
        pack(trained, report_of(), recipe, workdir=tmp_path)


def test_a_student_named_by_module_is_refused(trained, tmp_path):
    """A student that only this project's folder knows can't be loaded by a server, so it isn't packed."""
    with pytest.raises(NotYetError, match="mine:Student"):
        pack(replace(trained, use="mine:Student"), report_of(), RECIPE, workdir=tmp_path)


def test_a_pickle_among_the_students_files_is_refused(trained, tmp_path):
    """A plug-in that leaves a pickle behind gets no bundle."""
    (trained.folder.path / "extra.pkl").write_bytes(b"\x80\x04K\x01.")
    try:
        with pytest.raises(DataError, match=r"extra\.pkl"):
            pack(trained, report_of(certified("other", 0.4)), RECIPE, workdir=tmp_path)
    finally:
        (trained.folder.path / "extra.pkl").unlink()


@pytest.mark.parametrize(("use", "allowed"), [("linear.v1", set()), ("encoder.v1", {"onnxruntime", "tokenizers"})])
def test_the_documented_script_serves_a_bundle(use, allowed, tmp_path):
    """The lines of docs/bundle.md answer from a packed bundle, and import no library of the training side."""
    text = (Path(__file__).parents[2] / "docs" / "bundle.md").read_text(encoding="utf-8")
    script = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    assert len(script.splitlines()) <= 10
    (tmp_path / "fit").mkdir()
    pack(fit(use, tmp_path / "fit"), report_of(certified("paying", 0.3)), RECIPE, workdir=tmp_path)
    heavy = ("sklearn", "scipy", "onnx", "torch", "safetensors", "pydantic", "duckdb", "onnxruntime", "tokenizers")
    script += f"\nimport sys; print(sorted(m for m in {heavy!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    answer, modules = done.stdout.splitlines()
    assert re.fullmatch(r"delivery 0\.\d+", answer)
    assert modules == str(sorted(allowed))
