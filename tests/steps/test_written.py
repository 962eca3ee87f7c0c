"""Records and texts in the single steps: what counts as the same, what is never kept, and how sure an answer is."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overproof.data import (
    Answered,
    Answers,
    CalibrationSet,
    Completion,
    Example,
    Folder,
    PromptRow,
    PromptSet,
    Request,
    TeacherPin,
    TestSet,
    TrainSet,
)
from overproof.errors import DataError
from overproof.evidence import CandidateReport, Confidence, Scores, SliceReport
from overproof.measure.intervals import figure
from overproof.measure.reading import field_chances, stated_confidence
from overproof.measure.records import ratio_interval
from overproof.measure.sequences import AS_IT_CAME, choose_sequence_calibrator
from overproof.outputs import Field, Fields, Text
from overproof.steps.answers import GOLDS, NEITHER, TEACHERS, answer_code, answers_of, gold_code
from overproof.steps.baseline import AskRecipe, ShotsRecipe, ask_dev, write_prompt
from overproof.steps.calibrate import CalibrateRecipe, calibrate, columns_of, reading_of, sheet_of
from overproof.steps.ceiling import CeilingRecipe, ceiling
from overproof.steps.committee import DisputedRecipe, disputed
from overproof.steps.field_confidence import FIELDS, field_calibrators, field_table
from overproof.steps.filter import FilterRecipe, VerifierSpec, filter_labels
from overproof.steps.predict import PredictRecipe, predict_dev, teacher_scores
from overproof.steps.records_report import judge_within, judged_candidates, written_report
from overproof.steps.sheet import STRANGE, UNKNOWN
from overproof.steps.slice_reports import Sealed
from overproof.steps.train import StudentRecipe, train
from overproof.store.labels import LedgeredTeacher
from overproof.store.project_store import open_store
from overproof.task import Bar, Task
from overproof.teachers.recorded import RecordedOptions, RecordedTeacher

KIND = Fields(fields=(Field(name="who"), Field(name="sum", type="number", optional=True)))
SHORT = Text(same_at=0.7)
PIN = TeacherPin(use="recorded.v1", provider="p", model="m", revision="r")
PRICE = PredictRecipe(cost_usd_per_cpu_hour=0.05)


def record(who: str, total: float | None = None) -> str:
    return KIND.write({"who": who, "sum": None if total is None else KIND.fields[1].read(total)})


def example(name: str, target: str, gold: str | None = None, text: str = "") -> Example:
    return Example(request=Request(id=name, fields={"text": text or name}), target=target, gold=gold, cost_usd=0.1, latency_s=1.0)


def answered(name: str, *texts: str, kind=KIND, text: str = "", group: str = "") -> Answered:
    said = tuple(Completion(text=t, value=kind.parse(t), model="m") for t in texts)
    row = PromptRow(request=Request(id=name, fields={"text": text or f"message {name}"}), weight=1.0, group=group or name)
    return Answered(row=row, completions=said)


def labelled(*rows: Answered, kind=KIND, **more):
    spare = (answered("spare", '{"who": "x"}' if kind is KIND else "spare answer", kind=kind),)
    return filter_labels(
        Answers(train=rows, calibration=spare, test=spare, pin=PIN, clearance_id="c", spent_usd=0.0),
        FilterRecipe(labels=(), output=kind, **more),
    )


def test_samples_that_say_the_same_vote_together() -> None:
    """Two spellings of one record outvote a third that comes first, and the sets know what their answers are."""
    row = answered("a", '{"who": "Bo"}', '{"who": "ACME", "sum": 1}', '{"who": "acme", "sum": 1.0}')
    found = labelled(row)
    assert found.train.examples[0].target == record("ACME", 1)
    assert found.train.examples[0].agreement == pytest.approx(2 / 3)
    assert (found.train.labels, found.train.output, found.test.output) == ((), KIND, KIND)


def test_of_documents_that_look_alike_only_the_same_text_can_contradict() -> None:
    """Two invoices that differ in a figure have two records; one text with two records is dropped on both sides."""
    long = "invoice of acme for paper and pens and ink to be paid by bank within thirty days in full, number"
    alike = [answered(f"n{i}", f'{{"who": "acme", "sum": {i}}}', text=f"{long} {i}", group="g") for i in range(4)]
    same = [answered(f"s{i}", f'{{"who": "acme", "sum": {i}}}', text="the same text", group="h") for i in range(2)]
    found = labelled(*alike, *same)
    assert {e.request.id for e in found.train.examples} == {"n0", "n1", "n2", "n3"}


def test_an_answer_for_other_fields_is_no_answer() -> None:
    """What was bought before a field was added doesn't pass as a record of the task as it is now."""
    row = answered("a", '{"who": "Bo"}', '{"who": "Bo", "sum": 2}')
    old = Completion(text='{"who": "Bo"}', value='{"who": "Bo"}', model="m")
    found = labelled(Answered(row=row.row, completions=(old, row.completions[1])))
    assert found.train.examples[0].target == record("Bo", 2)


@pytest.mark.parametrize(("use", "options", "kept"), [
    ("schema.v1", {"schema": {"type": "object", "properties": {"sum": {"type": ["number", "null"], "minimum": 0}}, "required": ["sum"]}}, {"b", "c", "d"}),
    ("schema.v1", {}, {"a", "b", "c", "d"}),
    ("grounding.v1", {}, {"a", "b", "d"}),
    ("grounding.v1", {"fields": ["sum"]}, {"a", "b", "c", "d"}),
    ("regex.v1", {"pattern": '"sum": null', "on": "target", "must": "not match"}, {"a", "b", "c"}),
    ("agreement.v1", {"min": 0.9}, {"a", "b", "d"}),
])  # fmt: skip
def test_verifiers_read_the_record_and_not_its_spelling(use, options, kept) -> None:
    """Schema, grounding, patterns and agreement work on canonical values."""
    rows = (
        answered("a", '```json\n{"who": "Bo", "sum": -1}\n```', text="bo owes -1"), answered("b", '{"who": "BO", "sum": "5.0"}', text="bo paid 5"),
        answered("c", '```json\n{"who": "Ann", "sum": 5}\n```', '{"who": "Bo", "sum": 5}', text="somebody paid 5"), answered("d", '{"who": "Cy"}', text="cy is here"),
    )  # fmt: skip
    found = labelled(*rows, verifiers=(VerifierSpec(use=use, options=options),))
    assert {e.request.id for e in found.train.examples} == kept


@pytest.mark.parametrize(("use", "options", "words"), [
    ("label_set.v1", {}, "answers are labels"), ("schema.v1", {"schema": {"anyOf": []}}, "can't check"),
    ("schema.v1", {"schema": {"properties": {"who": {"uniqueItems": True}}}}, "schema.who"), ("schema.v1", {"schema": {"type": "array"}}, "array"),
])  # fmt: skip
def test_a_rule_that_can_not_be_checked_is_refused(use, options, words) -> None:
    """A rule that is not checked must not look checked."""
    with pytest.raises(DataError, match=words):
        labelled(answered("a", '{"who": "Bo"}'), verifiers=(VerifierSpec(use=use, options=options),))


def test_a_users_own_check_gets_the_output_kind_in_its_own_process(tmp_path, monkeypatch) -> None:
    """A class of the user's is made with the record's fields, in order."""
    code = "class Only:\n def __init__(self, *, output):\n  self.names = [f.name for f in output.fields]\n def judge(self, request, completions, target):\n  return self.names == ['who', 'sum'] and 'Bo' in target\n"
    (tmp_path / "own_check.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    found = labelled(answered("a", '{"who": "Bo"}'), answered("b", '{"who": "Cy"}'), verifiers=(VerifierSpec(use="own_check:Only"),))
    assert [e.request.id for e in found.train.examples] == ["a"]


def test_teachers_that_say_the_same_do_not_disagree_and_a_teacher_agrees_with_itself() -> None:
    """Spelling neither makes a dispute nor lowers the ceiling."""
    rows = [answered("a", '{"who": "Bo"}', '{"who": "BO"}'), answered("b", '{"who": "Bo"}', '{"who": "Cy"}')]
    other = [answered("a", '{"who": "Cy"}', '{"who": "bo"}', '{"who": "BO"}'), answered("b", '{"who": "Cy"}')]
    both = tuple(Answers(train=tuple(r), calibration=(), test=(), pin=PIN, clearance_id="c", spent_usd=0.0) for r in (rows, other))
    prompts = PromptSet(train=tuple(r.row for r in rows), calibration=(), test=(), funnel={}, match=(), distance=0.0, leaks={})
    assert [r.request.id for r in disputed(prompts, both, DisputedRecipe(output=KIND)).train] == ["b"]
    assert ceiling(both[0], CeilingRecipe(samples=2, output=KIND)).agreement.good == 1
    assert ceiling(both[0], CeilingRecipe(samples=2)).agreement.good == 0


TEXTS = ("refund the order", "refund the orders", "Refund the order!", "find the parcel", "refund the order now", "refund the order now today")


def test_a_code_is_never_kinder_than_the_comparison_that_it_stands_for() -> None:
    """By the codes an answer is right, by the teacher or by gold, only where it equals that text; the teacher's own is exact."""
    for answer, target, gold in itertools.product((None, *TEXTS), TEXTS, (None, *TEXTS)):
        row = example("a", target, gold)
        code, true = answer_code(answer, row, SHORT), gold_code(row, SHORT)
        if code == TEACHERS:
            assert SHORT.equal(answer, target)
        if gold is not None and code == true:
            assert SHORT.equal(answer, gold)
        assert (true == TEACHERS) == (gold is not None and SHORT.equal(gold, target))
        if gold is None and answer is not None:
            assert (code == TEACHERS) == SHORT.equal(answer, target)


@given(st.none() | st.sampled_from("abA"), st.sampled_from("abA"), st.none() | st.sampled_from("abA"))
def test_for_records_the_codes_say_exactly_what_the_comparisons_say(answer, target, gold) -> None:
    """Equality of records is an equivalence, so nothing is lost."""
    row = example("a", record(target), gold and record(gold))
    said = answer and record(answer)
    code, true = answer_code(said, row, KIND), gold_code(row, KIND)
    assert (code == TEACHERS) == (said is not None and KIND.equal(said, row.target))
    if gold:
        assert (code == true) == (said is not None and KIND.equal(said, row.gold))


def test_a_true_answer_that_is_no_record_makes_every_answer_wrong() -> None:
    """It is known, and nothing equals it."""
    rows = TestSet(examples=(example("a", record("Bo"), "nonsense"), example("b", record("Bo")), example("c", record("Bo"), record("BO"))), labels=(), output=KIND)
    sheet = sheet_of(rows)
    assert sheet.gold.tolist() == [STRANGE, UNKNOWN, TEACHERS]
    assert sheet.has_gold.tolist() == [True, False, True]
    assert answer_code(record("Bo"), rows.examples[0], KIND) == TEACHERS
    assert answer_code(record("Cy"), example("d", record("Bo"), record("Cy")), KIND) == GOLDS
    assert answer_code(None, rows.examples[1], KIND) == NEITHER


def orders(n: int, *, seed: int = 0) -> tuple[Example, ...]:
    draw = np.random.default_rng(seed)
    names = ["ann", "bo", "cy"]
    rows = [(names[draw.integers(3)], int(draw.integers(1, 4))) for _ in range(n)]
    return tuple(example(f"{seed}-{i}", record(w, s), record(w, s), text=f"{w} owes {s} since day {i}") for i, (w, s) in enumerate(rows))


@pytest.mark.parametrize("use", ["nearest.v1", "majority.v1"])
def test_baselines_that_copy_answer_in_records_and_load_again(use, tmp_path) -> None:
    """Fit, predict through the steps, and the same answers from the loaded files; only what was fitted for these fields may answer."""
    rows, dev = TrainSet(examples=orders(60), labels=(), output=KIND), CalibrationSet(examples=orders(30, seed=1), labels=(), output=KIND)
    (tmp_path / "fit").mkdir()
    fitted = train(rows, StudentRecipe(name="b", use=use, kind="baseline"), workdir=tmp_path / "fit")
    (tmp_path / "dev").mkdir()
    scores = predict_dev(fitted, dev, PRICE, workdir=tmp_path / "dev")
    said = answers_of(scores, dev)
    assert all(KIND.parse(one) == one for one in said)
    right = sum(KIND.equal(a, e.target) for a, e in zip(said, dev.examples, strict=True))
    assert right > 15 if use == "nearest.v1" else len(set(said)) == 1
    found = calibrate(scores, dev, CalibrateRecipe())
    assert found.fidelity.good == right
    assert found.confidence.everywhere.inputs == ("sequence",)
    other = CalibrationSet(examples=dev.examples, labels=(), output=Fields(fields=KIND.fields[::-1]))
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match="other answers"):
        predict_dev(fitted, other, PRICE, workdir=tmp_path / "other")
    with pytest.raises(DataError, match="gives no answers of the kind 'fields'"):
        train(rows, StudentRecipe(name="b", use="linear.v1"), workdir=tmp_path)


def written_scores(root, rows, answers, columns) -> Scores:
    root.mkdir()
    (root / "answers.json").write_text(json.dumps(answers))
    for name, column in columns.items():
        np.save(root / f"column-{name}.npy", np.asarray(column, dtype=np.float64))
    return Scores(name="s", kind="student", folder=Folder(path=root), n=len(answers), latency_s=0, latency_p95_s=0, cost_usd_per_1000=0, size_bytes=1, parameters=1)


def test_a_row_without_an_answer_is_never_kept_and_never_right(tmp_path) -> None:
    """However sure the generator says it is: no confidence, no code of anybody's."""
    dev = CalibrationSet(examples=orders(40), labels=(), output=KIND)
    answers = [None if i % 4 == 0 else e.target for i, e in enumerate(dev.examples)]
    scores = written_scores(tmp_path / "s", dev, answers, {"sequence": np.full(40, 9.0)})
    how = calibrate(scores, dev, CalibrateRecipe())
    reading = reading_of(scores, dev, how.confidence)
    assert np.isnan(reading.score).tolist() == [a is None for a in answers]
    assert (reading.answer == NEITHER).tolist() == [a is None for a in answers]
    assert (how.fidelity.good, how.fidelity.n) == (30, 40)
    with pytest.raises(DataError, match="answered none of 40"):
        calibrate(written_scores(tmp_path / "t", dev, [None] * 40, {"sequence": np.zeros(40)}), dev, CalibrateRecipe())
    with pytest.raises(DataError, match="not those of these 40 rows"):
        answers_of(written_scores(tmp_path / "u", dev, answers[1:], {"sequence": np.zeros(39)}), dev)


def test_the_teacher_is_right_by_its_own_answers(tmp_path) -> None:
    """As a candidate it agrees with itself on every row, at the price and latency that it had."""
    dev = CalibrationSet(examples=orders(10), labels=(), output=KIND)
    scores = teacher_scores(dev, PRICE, workdir=tmp_path)
    assert reading_of(scores, dev, 1.0).answer.tolist() == [TEACHERS] * 10
    assert scores.cost_usd_per_1000 == pytest.approx(100)


def test_few_rows_make_no_steep_confidence_and_a_head_has_to_earn_its_place() -> None:
    """Four rows that happen to be sorted say little; a column that tells right from wrong wins, one of noise doesn't."""
    few = choose_sequence_calibrator({"sequence": [3.0, 2.0, -2.0, -3.0]}, [True, True, False, False])
    stated = stated_confidence(few.calibrator, np.zeros((2, 0)), {"sequence": np.array([3.0, -3.0])})
    assert 0.5 < stated[0] < 0.7
    draw = np.random.default_rng(0)
    right = draw.random(900) < 0.7
    score, told, noise = draw.normal(right * 1.0), draw.normal(right * 3.0), draw.normal(size=900)
    assert choose_sequence_calibrator({"sequence": score, "told": told}, right).calibrator.method == "head"
    assert choose_sequence_calibrator({"sequence": score, "noise": noise}, right).calibrator.method == "platt"
    assert choose_sequence_calibrator({"sequence": score[:200], "told": told[:200]}, right[:200]).calibrator.method == "platt"


def test_an_endpoint_is_scored_by_what_it_says_and_its_examples_keep_their_braces(tmp_path) -> None:
    """A recorded small model in other spelling is right; its shots show records as they are, and open no place to fill in."""
    dev = CalibrationSet(examples=orders(6), labels=(), output=KIND)
    lines = [{"id": e.request.id, "output": e.target.upper().replace('"WHO"', '"who"').replace('"SUM"', '"sum"') if i else "no idea"} for i, e in enumerate(dev.examples)]
    (tmp_path / "said.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    task = Task(name="t", input=("text",), output=KIND, prompt="Extract.")
    teacher = RecordedTeacher(task=task, options=RecordedOptions(path=str(tmp_path / "said.jsonl"), model="m"))
    with open_store(tmp_path) as store, store.role("run"):
        store.ledger.open_run("r", cap_usd=1.0)
        asked = LedgeredTeacher(teacher, store.ledger, pin=PIN, prices=None, clearance_id="c", run_id="r")
        scores = ask_dev(dev, AskRecipe(name="small", pin=PIN), teacher=asked, workdir=tmp_path)
    assert reading_of(scores, dev, 1.0).answer.tolist() == [NEITHER, *[TEACHERS] * 5]
    rows = TrainSet(examples=(example("a", record("Bo", 2), text="put {text} here"), example("b", record("Cy"))), labels=(), output=KIND)
    prompt = write_prompt(rows, ShotsRecipe(prompt="Extract.", shots=2))
    assert '{"who": "Bo", "sum": 2}' in prompt
    assert "{text}" not in prompt


@pytest.mark.parametrize(("wrong", "bar", "verdict"), [(0, 0.9, "pass"), (60, 0.9, "fail"), (22, 0.9, "undecided")])
def test_a_field_bar_is_judged_by_an_interval_that_holds_at_every_n(wrong, bar, verdict) -> None:
    """Far above it passes, far below it fails, near it nobody can tell; too few rows never pass."""
    truths = [record("bo", i) for i in range(200)]
    answers = [record("bo", i + 1000) if i < wrong else t for i, t in enumerate(truths)]
    [one] = judge_within(KIND, (answers, truths), (Bar(metric="f1 sum", at_least=bar),), 0.05)
    assert (one.verdict, one.estimate.value) == (verdict, pytest.approx(1 - wrong / 200))
    [few] = judge_within(KIND, (answers, truths), (Bar(metric="f1 sum", at_least=0.01, min_n=300),), 0.05)
    assert few.verdict == "undecided"
    hits = np.array([i >= wrong for i in range(200)], dtype=float)
    assert one.estimate.low == pytest.approx(ratio_interval(hits, np.ones(200), level=0.9).low)


def test_a_similarity_bar_counts_a_missing_answer_as_nothing_alike() -> None:
    """Mean similarity over all documents, silent ones included."""
    truths = ["refund the order"] * 100
    [one] = judge_within(SHORT, ([None] * 20 + truths[20:], truths), (Bar(metric="similarity", at_least=0.95),), 0.05)
    assert (one.verdict, one.estimate.value) == ("fail", pytest.approx(0.8))


def opened(rows: TestSet) -> Sealed:
    return Sealed(sheet=sheet_of(rows), groups=(), judge=np.arange(len(rows.examples)) % 2 == 0, delta=0.05, level=0.95)


def test_as_served_the_teacher_answers_where_the_student_is_not_kept(tmp_path) -> None:
    """Student alone, as served and teacher differ, on judging rows alone, and a strange true answer is left out and counted."""
    rows = TestSet(examples=(example("x", record("bo", 1), "nonsense"), *orders(199)), labels=(), output=KIND)
    answers = [e.target if i % 4 else record("nobody") for i, e in enumerate(rows.examples)]  # wrong on every second judging row
    scores = written_scores(tmp_path / "s", rows, answers, {"sequence": np.zeros(200)})
    kept = np.array([i % 4 != 0 for i in range(200)])
    bars = (Bar(metric="field_f1", at_least=0.9),)
    report = written_report(scores, rows, opened(rows), kept, bars)
    f1 = {(s.who, s.against): round(s.records.f1.value, 3) for s in report.scores}
    assert f1["served", "gold"] == f1["teacher", "gold"] == f1["served", "teacher"] == 1.0
    assert f1["student", "gold"] < 0.6
    assert (report.strange, report.scores[0].records.n, report.judged[0].verdict) == (1, 99, "pass")
    alone = written_report(scores, rows, opened(rows), np.ones(200, dtype=bool), bars)
    assert alone.judged[0].verdict == "fail"


def test_a_baseline_that_misses_a_field_bar_is_not_enough(tmp_path) -> None:
    """It may clear the bars on whole answers: the bars within them count for the verdict on it, too."""
    rows = TestSet(examples=orders(200), labels=(), output=KIND)
    bars = (Bar(metric="f1 sum", at_least=0.97),)
    bad = written_scores(tmp_path / "bad", rows, [record("ann", 1)] * 200, {"sequence": np.zeros(200)})
    good = written_scores(tmp_path / "good", rows, [e.target for e in rows.examples], {"sequence": np.zeros(200)})
    report = written_report(good, rows, opened(rows), np.ones(200, dtype=bool), bars)
    figures = {"slice": "all", "kind": "all", "critical": False, "n": 200, "fidelity": figure(200, 200, metric="fidelity"), "accuracy": None,
               "teacher_accuracy": None, "served_fidelity": None, "served_accuracy": None, "kept": None, "two_by_two": None}
    made = CandidateReport(
        name="bad", kind="baseline", size_bytes=1, parameters=1, latency_s=0, latency_p95_s=0, cost_usd_per_1000=0, calibration=None, ece_test=None,
        reliability_before=(), reliability_after=(), slices=(SliceReport(**figures),), clears_bars="pass", margin=None,
    )  # fmt: skip
    both = (made, replace(made, name="good"), replace(made, name="good", clears_bars="undecided"))
    found = judged_candidates(both, report, {"bad": bad, "good": good}, rows, opened(rows), bars=bars)
    assert [c.clears_bars for c in found] == ["fail", "pass", "undecided"]


ODDS = st.lists(st.tuples(st.floats(-40, 40), st.booleans()), min_size=1, max_size=60)


def field_scores_of(root, rows, answers, odds) -> Scores:
    """Scores as `predict` leaves them, with the generator's log-odds of its fields."""
    found = written_scores(root, rows, answers, {"sequence": np.zeros(len(answers)), "gap": np.arange(len(answers)) / 7.0})
    np.save(root / FIELDS, field_table(rows.output, odds))
    return found


def overconfident(n, seed):
    """A generator that states 0.98 for every sum and gives the teacher's in six of ten rows, and that never states how sure it is of who."""
    rows, draw = orders(n, seed=seed), np.random.default_rng(seed)
    right = draw.random(n) < 0.6
    answers = [e.target if ok else record(KIND.values(e.target)["who"], 999_999) for e, ok in zip(rows, right, strict=True)]
    return rows, answers, [{"sum": 3.9 + 0.1 * float(draw.standard_normal())} for _ in range(n)]


def test_a_field_has_a_reading_of_its_own_that_no_other_reading_sees(tmp_path) -> None:
    """An overconfident field is read down to what it is worth; whole records are read as if no field had been scored."""
    rows, answers, odds = overconfident(400, 1)
    dev = CalibrationSet(examples=rows, labels=(), output=KIND)
    scores = field_scores_of(tmp_path / "dev", dev, answers, odds)
    how = calibrate(scores, dev, CalibrateRecipe()).confidence
    assert [(one.field, one.calibrator.n) for one in how.fields] == [("sum", 400)]
    assert field_chances(how, "sum", np.array([3.9]))[0] == pytest.approx(0.6, abs=0.06)
    assert field_chances(how, "who", np.array([2.0]))[0] == pytest.approx(0.881, abs=0.001)  # as stated: nothing was fitted
    assert set(columns_of(scores)) == {"sequence", "gap"}
    bare = written_scores(tmp_path / "bare", dev, answers, {"sequence": np.zeros(400), "gap": np.arange(400) / 7.0})
    assert replace(how, fields=()) == calibrate(bare, dev, CalibrateRecipe()).confidence
    sealed, said, sure = overconfident(400, 2)
    test = TestSet(examples=sealed, labels=(), output=KIND)
    report = written_report(field_scores_of(tmp_path / "test", test, said, sure), test, opened(test), np.ones(400, dtype=bool), (), how=how)
    [one] = report.fields
    assert (one.read.slice, one.read.ece.n, one.fitted_on) == ("sum", 200, 400)
    assert one.raw.brier > 0.35 > 0.26 > one.read.brier
    assert one.raw.ece.value > 0.3 > 0.2 > one.read.ece.value


def test_field_scores_of_other_rows_are_refused(tmp_path) -> None:
    """A table of another shape says nothing of these rows."""
    rows, answers, odds = overconfident(30, 1)
    dev = CalibrationSet(examples=rows, labels=(), output=KIND)
    with pytest.raises(DataError, match="field scores"):
        calibrate(field_scores_of(tmp_path / "s", dev, answers, odds[:20]), dev, CalibrateRecipe())


@given(ODDS)
def test_a_field_is_read_as_a_chance_whatever_was_seen(tmp_path_factory, seen) -> None:
    """In (0, 1) and finite, one row or many, right or wrong throughout; rows without an answer or a score teach nothing."""
    rows = tuple(example(f"o{i}", record("ann", i)) for i in range(len(seen) + 2))
    dev = CalibrationSet(examples=rows, labels=(), output=KIND)
    answers = [e.target if ok else record("ann", -1) for e, (_, ok) in zip(rows, seen, strict=False)] + [None, rows[-1].target]
    scores = field_scores_of(tmp_path_factory.mktemp("f") / "s", dev, answers, [{"sum": odds} for odds, _ in seen] + [{}, {}])
    [one] = field_calibrators(scores, dev)
    assert one.calibrator.n == len(seen)
    read = field_chances(Confidence(everywhere=AS_IT_CAME, fields=(one,)), "sum", np.linspace(-40, 40, 9))
    assert ((read >= 0) & (read <= 1)).all()
    fitted = field_chances(Confidence(everywhere=AS_IT_CAME, fields=(one,)), "sum", np.array([odds for odds, _ in seen]))
    assert 0 < fitted.min() <= fitted.max() < 1
