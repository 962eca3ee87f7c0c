"""A bundle of a generator serves canonical records and texts under thresholds, and trusts neither its card nor its generator."""

import copy
import dataclasses
import importlib
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overproof import registry
from overproof.data import Example, Folder, Request, TrainSet
from overproof.errors import DataError, MeasureError, OverproofError
from overproof.evidence import (
    Calibration,
    CalibrationGap,
    Calibrator,
    CandidateReport,
    Certificate,
    Confidence,
    EvalReport,
    FieldCalibrator,
    Reliability,
    ScopeRule,
    SliceCertificate,
    Trained,
)
from overproof.measure.intervals import figure
from overproof.measure.reading import read_columns
from overproof.outputs import Classes, Field, Fields, Text
from overproof.steps.pack import PackRecipe, pack
from overproof.students import Generated
from overproof.students.bundle import load_bundle, manifest_of
from overproof.students.card import read_card, write_card
from overproof.students.files import write_json
from overproof.students.generated import rendered, write_answers
from overproof.task import Slice

RECORD = Fields(fields=(Field(name="sum", type="number", optional=True), Field(name="order", optional=True), Field(name="tone", type="choice", values=("calm", "angry"))))
SHORT = Text(same_at=0.9)
ROWS = (
    ("please refund order 77 over 12.50", '{"sum": 12.5, "order": "77", "tone": "calm"}', "Refund 77."),
    ("where is parcel 991 now", '{"sum": null, "order": "991", "tone": "calm"}', "Find 991."),
    ("WORST SHOP EVER give me my 40 back", '{"sum": 40, "order": null, "tone": "angry"}', "Refund 40, upset."),
    ("thanks it works", '{"sum": null, "order": null, "tone": "calm"}', "Thanks."),
)
READING = Confidence(
    everywhere=Calibrator(method="head", inputs=("gap", "sequence"), mean=(0.2, 0.0), scale=(0.3, 2.0), weight=(0.1, 3.0, 0.5), n=50),
    scope=(ScopeRule(score="gap", threshold=1.5),),
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """copy.v1 as a package that is installed: a module and the metadata that names it."""
    site = tmp_path_factory.mktemp("site")
    shutil.copy(Path(__file__).with_name("copying.py"), site / "copying.py")
    (site / "copying-1.0.dist-info").mkdir()
    (site / "copying-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: copying\nVersion: 1.0\n")
    (site / "copying-1.0.dist-info" / "entry_points.txt").write_text("[overproof.students]\ncopy.v1 = copying:CopyGenerator\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        importlib.invalidate_caches()
        registry._points.cache_clear()
        yield registry.resolve("students", "copy.v1")
    registry._points.cache_clear()


def report_of(thresholds):
    gap = CalibrationGap(value=0.02, low=0.01, high=0.05, level=0.95, method="bootstrap", n=100, noise=0.02)
    seen = Reliability(slice="all", brier=0.1, log_loss=0.4, ece=gap)
    kept = figure(90, 100, metric="kept")
    calibration = Calibration(
        name="small", confidence=READING, reason="few rows", losses=(), before=seen, after=seen, slices=(), scope=None, n=100,
        fidelity=kept, accuracy=None,
    )
    candidate = CandidateReport(
        name="small", kind="student", size_bytes=1, parameters=0, latency_s=0.001, latency_p95_s=0.002, cost_usd_per_1000=0.01,
        calibration=calibration, ece_test=None, reliability_before=(), reliability_after=(), slices=(), clears_bars="pass", margin=0.01,
    )
    slices = tuple(
        SliceCertificate(
            slice=name, alpha=0.05, delta=0.05, threshold=value, n=100, kept=80, wrong=1, upper=0.04, keep_share=kept, verdict="pass"
        )
        for name, value in thresholds.items()
    )
    certificate = Certificate(
        plan_hash="a" * 64, sealed_digest="b" * 64, label_kind="teacher:big", use_k=1, delta_spent=0.05, slices=slices, assumptions=(),
        window=(None, None), expires="2060-01-01",
    )
    return EvalReport(
        candidates=(candidate,), chosen="small", reason="smallest", certificate=certificate, n_test=100, n_gold=0, weak_labels=(),
        disagreements=(), cheaper=None,
    )


def packed(installed, output, folder, **thresholds):
    examples = tuple(
        Example(request=Request(id=str(i), fields={"text": text}), target=record if output is RECORD else short)
        for i, (text, record, short) in enumerate(ROWS)
    )
    student, files = installed(output=output), folder / "fitted"
    files.mkdir()
    student.fit(TrainSet(examples=examples, labels=()), workdir=files)
    trained = Trained(name="small", use="copy.v1", kind="student", folder=Folder(path=files), size_bytes=1, parameters=0, rows=4, seed=0)
    recipe = PackRecipe(task="orders", input=("text",), slices=(Slice(name="vip", where=(("tier", ("vip",)),)),), output=output)
    return pack(trained, report_of(thresholds or {"vip": None, "other": 0.5}), recipe, workdir=folder).path


@pytest.fixture(scope="module")
def records(installed, tmp_path_factory):
    return packed(installed, RECORD, tmp_path_factory.mktemp("records"))


def test_a_bundle_of_a_generator_answers_with_canonical_records_and_says_why(records):
    """Confident, unsure, uncertified and foreign requests take the routes that they take with labels."""
    bundle = load_bundle(records)
    sure = bundle.answer({"text": "Please refund order 77 over 12.50"})
    assert (sure.route, sure.cause, sure.value) == ("student", "confident", ROWS[0][1])
    assert sure.confidence >= 0.5
    assert set(sure.fields) == {"order", "sum", "tone"}
    assert all(0 < chance < 1 for chance in sure.fields.values())
    unsure = bundle.answer({"text": "refund what everybody wants from the people there"})
    assert (unsure.route, unsure.cause, unsure.value, unsure.guess) == ("teacher", "unsure", None, ROWS[0][1])
    assert bundle.answer({"text": ROWS[0][0]}, {"tier": "vip"}).cause == "uncertified"
    tuned = dataclasses.replace(READING, scope=(ScopeRule(score="gap", threshold=-1.0),))
    bundle.card = dataclasses.replace(bundle.card, confidence=tuned)
    assert bundle.answer({"text": ROWS[0][0]}).cause == "out_of_scope"


def test_a_field_is_read_by_its_own_calibrator_and_an_older_card_by_what_the_student_states(records, tmp_path):
    """The card carries the reading through the file; a card without any loads and gives the student's own chances."""
    card, asked = load_bundle(records).card, {"text": ROWS[0][0]}
    assert "fields" not in json.loads((records / "release.json").read_text())["confidence"]
    stated = load_bundle(records).answer(asked).fields
    own = FieldCalibrator(field="sum", calibrator=Calibrator(method="platt", inputs=("odds",), mean=(0.0,), scale=(1.0,), weight=(0.5, -2.0), n=9))
    folder = shutil.copytree(records, tmp_path / "bundle")
    write_card(folder / "release.json", dataclasses.replace(card, confidence=dataclasses.replace(card.confidence, fields=(own,))))
    (folder / "manifest.json").unlink()
    write_json(folder / "manifest.json", manifest_of(folder))
    read = load_bundle(folder).answer(asked)
    odds = math.log(stated["sum"] / (1 - stated["sum"]))
    assert read.fields["sum"] == pytest.approx(1 / (1 + math.exp(2.0 - 0.5 * odds)))
    assert {**read.fields, "sum": 0} == {**stated, "sum": 0}
    assert read.confidence == load_bundle(records).answer(asked).confidence


def test_where_the_student_has_no_answer_the_teacher_gives_it_even_if_everything_may_be_kept(installed, tmp_path):
    """No answer has no confidence, and a threshold that keeps all keeps no silence."""
    bundle = load_bundle(packed(installed, RECORD, tmp_path, other=-1.0))
    asked = [Request(id="a", fields={"text": "qwertz"}), Request(id="b", fields={"text": ROWS[1][0]})]
    silent = bundle.answer(asked[0].fields)
    assert (silent.route, silent.guess, silent.confidence, silent.reason) == ("teacher", None, 0.0, "the student has no answer")
    assert bundle.decide(asked) == (None, ROWS[1][1])


def test_texts_are_packed_and_served_like_records(installed, tmp_path):
    """The card keeps what counts as the same text; the self-test compares by it."""
    folder = packed(installed, SHORT, tmp_path)
    bundle = load_bundle(folder)
    assert bundle.card.output == SHORT
    assert bundle.answer({"text": ROWS[3][0]}).value == "Thanks."
    assert len(bundle.card.selftest) == 8
    assert all(text not in (folder / "release.json").read_text() for text, *_ in ROWS)


@pytest.mark.parametrize("what", ["value", "confidence"])
def test_the_self_test_catches_another_record_and_another_confidence(records, tmp_path, installed, monkeypatch, what):
    """A generator that writes something else on this machine, or is as sure of it as it was not, is refused."""
    load_bundle(records)
    real = installed.generate

    def other(self, requests):
        change = {"value": '{"sum": null, "order": "0", "tone": "calm"}'} if what == "value" else {}
        return [dataclasses.replace(one, score=one.score + (what == "confidence"), **change) for one in real(self, requests)]

    monkeypatch.setattr(installed, "generate", other)
    with pytest.raises(DataError, match="self-test"):
        load_bundle(records)


def paths(value, at=()):
    """Every place in a JSON value."""
    yield at
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from paths(one, (*at, key))


JUNK = st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=4), st.just([]), st.just({}), st.just(["x"]), st.just({"x": 1}))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_corrupted_card_is_refused_or_says_just_what_it_says(records, tmp_path, data):
    """Any place of the card replaced, dropped or added to: an error in our own words, or a card without a word passed over."""
    raw = json.loads((records / "release.json").read_text())
    bad = copy.deepcopy(raw)
    place = data.draw(st.sampled_from(list(paths(raw))[1:]))
    holder = bad
    for key in place[:-1]:
        holder = holder[key]
    action = data.draw(st.sampled_from(["replace", "drop", "add"]))
    if action == "replace":
        holder[place[-1]] = data.draw(JUNK)
    elif action == "drop":
        del holder[place[-1]]
    elif isinstance(holder, dict):
        holder["surplus"] = data.draw(JUNK)
    else:
        holder.append(data.draw(JUNK))
    path = tmp_path / "release.json"
    write_json(path, bad)
    try:
        card = read_card(path)
    except DataError:
        return
    write_card(tmp_path / "again.json", card)
    assert json.loads((tmp_path / "again.json").read_text()) == bad


SUM = {"field": "sum", "calibrator": {**dataclasses.asdict(READING.everywhere), "method": "platt", "inputs": ["odds"], "mean": [0.0], "scale": [1.0], "weight": [0.5, -2.0]}}
HOSTILE = {
    "a field that is not there": (lambda c: c["confidence"].update(fields=[{**SUM, "field": "colour"}]), "readings of fields"),
    "a field read twice": (lambda c: c["confidence"].update(fields=[SUM, SUM]), "readings of fields"),
    "a field read by the whole": (lambda c: c["confidence"].update(fields=[{**SUM, "calibrator": c["confidence"]["everywhere"]}]), "log-odds of it alone"),
    "no field, said aloud": (lambda c: c["confidence"].update(fields=[]), "malformed"),
    "another output": (lambda c: c.update(output=[["text", {"metric": "chrf", "same_at": 0.9, "max_chars": 50}]], selftest=[]), "different outputs"),
    "labels for records": (lambda c: c.update(output=[["classes", ["a", "b"]]], selftest=[]), "different labels"),
    "a temperature": (lambda c: c["confidence"].update(everywhere={**c["confidence"]["everywhere"], "method": "temperature", "inputs": [], "mean": [], "scale": [], "weight": []}), "reads label scores"),
    "log-odds of labels": (lambda c: c["confidence"]["everywhere"].update(inputs=["log_odds", "sequence"]), "reads label scores"),
    "a scope rule on logits": (lambda c: c["confidence"].update(scope=[{"score": "energy", "threshold": 1.0}]), "reads label scores"),
    "a column that is not there": (lambda c: c["confidence"]["everywhere"].update(inputs=["nope", "sequence"]), "no column"),
    "a record that is none": (lambda c: c["selftest"][0].update(value='{"order": 3}'), "none of the task's"),
    "a record written otherwise": (lambda c: c["selftest"][0].update(value='{"sum":null,"order":"1","tone":"calm"}'), "none of the task's"),
    "many self-tests": (lambda c: c.update(selftest=c["selftest"] * 9), "more than 64"),
    "version 2": (lambda c: c.update(format="overproof.bundle.v2"), "malformed"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_card_loads_nothing(records, tmp_path, what):
    """Another kind, a reading that would call every answer certain, self-tests that are no answers."""
    change, message = HOSTILE[what]
    folder = shutil.copytree(records, tmp_path / "bundle")
    card = json.loads((folder / "release.json").read_text())
    change(card)
    write_json(folder / "release.json", card)
    (folder / "manifest.json").unlink()
    write_json(folder / "manifest.json", manifest_of(folder))
    with pytest.raises(OverproofError, match=message):
        load_bundle(folder)


GOOD = Generated(value=ROWS[0][1], score=1.0, columns={"gap": 0.1}, fields={"sum": 2.0})
BAD = {
    "no number": dataclasses.replace(GOOD, score=float("nan")),
    "endless field": dataclasses.replace(GOOD, fields={"sum": float("inf")}),
    "not canonical": dataclasses.replace(GOOD, value=ROWS[0][1].replace("12.5", "12.50")),
    "no text": dataclasses.replace(GOOD, value=7),
    "other columns": dataclasses.replace(GOOD, columns={}),
    "a column of ours": dataclasses.replace(GOOD, columns={"gap": 0.1, "sequence": 3.0}),
    "unknown field": dataclasses.replace(GOOD, fields={"colour": 0.0}),
}


@pytest.mark.parametrize("what", BAD)
def test_what_a_generator_may_not_say_is_never_served(what):
    """One bad answer among good ones stops the batch with the generator's name."""

    class Odd:
        kind = "odd.v1"

        def generate(self, requests):
            return [GOOD, BAD[what]]

    with pytest.raises(DataError, match=r"odd\.v1"):
        write_answers(Odd(), RECORD, [Request(id="a", fields={"text": "x"})] * 2)


def test_too_few_answers_are_refused_and_good_ones_become_columns(installed):
    """Columns keep the order of the requests; "sequence" is the score."""

    class Short:
        kind = "short.v1"

        def generate(self, requests):
            return [GOOD]

    asked = [Request(id="a", fields={"text": "x"})]
    with pytest.raises(DataError, match="1 answers to 2"):
        write_answers(Short(), RECORD, asked * 2)
    found = write_answers(Short(), RECORD, asked)
    assert (found.values, found.columns["sequence"].tolist(), found.columns["gap"].tolist()) == ((ROWS[0][1],), [1.0], [0.1])
    assert found.fields == ({"sum": 2.0},)


def test_written_answers_are_never_read_by_the_softmax_of_nothing():
    """A temperature on one column of logits would call every answer certain."""
    with pytest.raises(MeasureError, match="reads label scores"):
        read_columns(Confidence(everywhere=Calibrator(method="temperature")), {"sequence": np.zeros(3)})
    with pytest.raises(MeasureError, match="by columns"):
        read_columns(READING, {})


def test_an_answer_leaves_in_the_shape_of_its_kind():
    """JSON for records, plain text for texts and labels; what is no answer of the task does not leave."""
    assert (rendered(RECORD, ROWS[0][1]).media_type, rendered(RECORD, ROWS[0][1]).content) == ("application/json", ROWS[0][1])
    assert rendered(SHORT, "Thanks.").media_type == "text/plain"
    assert rendered(Classes(labels=("a", "b")), "a").content == "a"
    with pytest.raises(DataError):
        rendered(RECORD, "{}")
