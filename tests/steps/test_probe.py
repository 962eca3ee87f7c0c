"""Probes of a packed student: counts are those of the bundle, the teacher stands beside, and too few rows never pass."""

import asyncio
from dataclasses import replace

import pytest

from overproof.data import CalibrationSet, Clearance, Completion, Example, Request, TeacherPin, TrainSet
from overproof.errors import DataError
from overproof.evidence import Calibrator, Confidence, ScopeRule
from overproof.evidence.probes import TeacherSide
from overproof.measure.intervals import figure
from overproof.measure.perturb import SHIPPED, Given, perturb, words_of
from overproof.outputs import Classes
from overproof.steps.pack import PackRecipe, pack
from overproof.steps.probe import ProbeRecipe, probe
from overproof.steps.probe_cases import Case, read_cases, spelled_out, weakness_cases
from overproof.steps.probe_checks import BARS, CHECKED, judged, share_caught
from overproof.steps.train import StudentRecipe, train
from overproof.students.bundle import load_bundle
from overproof.task import Slice

LABELS = ("billing", "bug", "how-to", "refund", "safety", "other")
WORDS = {"billing": "billing please", "bug": "bug please", "how-to": "how to please",
         "refund": "refund please", "safety": "safety please", "other": "other please"}
PIN = TeacherPin(use="openai.v1", provider="p", model="m", revision="r", base_url="", parameters={}, prompt_digest="d")
BUSINESS = Slice(name="business", where=(("tier", ("business",)),), critical=True)


@pytest.fixture(scope="module")
def world(tmp_path_factory, make_world):
    """A packed student that answers everything, its training rows, and calibration rows."""
    root = tmp_path_factory.mktemp("probes")
    report = make_world(root).report()
    whole = replace(report.certificate.slices[-1], slice="other", threshold=-1.0)
    report = replace(report, certificate=replace(report.certificate, slices=(whole,)))
    plain = Confidence(everywhere=Calibrator(method="temperature"))
    rows = tuple(Example(request=Request(id=f"t{i}", fields={"body": f"{words} number {i}"}), target=label)
                 for i, (label, words) in enumerate(list(WORDS.items()) * 20))
    taught = TrainSet(examples=rows, labels=LABELS)
    found = {}
    # 1.5: above what the rows as they came have, so that the rule costs nothing here
    watched = replace(plain, mixed=(ScopeRule(score="two_answers", threshold=1.5), ScopeRule(score="repetition", threshold=1.0)))
    for kind, edge in (("keeps all", -1.0), ("keeps none", 1.0), ("watches", -1.0)):
        folder = root / kind.replace(" ", "-")
        (folder / "train").mkdir(parents=True)
        (folder / "pack").mkdir()
        how = watched if kind == "watches" else plain
        unrouted = [replace(c, calibration=c.calibration and replace(c.calibration, confidence=how)) for c in report.candidates]
        said = replace(report, candidates=tuple(unrouted), certificate=replace(report.certificate, slices=(replace(whole, threshold=edge),)))
        fitted = train(taught, StudentRecipe(name="large", use="linear.v1"), workdir=folder / "train")
        found[kind] = pack(fitted, said, PackRecipe(task="t", input=("body",)), workdir=folder / "pack")
    return found, taught


def asked(n, **more):
    labels = list(WORDS)
    return CalibrationSet(labels=LABELS, examples=tuple(
        Example(request=Request(id=f"q{i}", fields={"body": f"{WORDS[labels[i % 6]]} {i}"}, attributes={"tier": "business" if i % 4 == 0 else "plus"}),
                target=labels[i % 6], **more) for i in range(n)))  # fmt: skip


def cleared():
    return Clearance(
        id="c", pin=PIN, registry_id="r", registry_digest="0", posture="no-restriction-found", cited=(), obligations=(), attested_by="a",
        attested_on="2026-01-01", expires=None, statement="", student_kind="classifier", distribution="internal",
    )  # fmt: skip


class Teacher:
    """Says the label whose words come first; obeys an instruction where it is told to."""

    def __init__(self, *, obeys):
        self.obeys, self.seen, self.closed = obeys, [], 0

    async def sample(self, request, *, n, recorded=None):
        assert (n, recorded) == (1, None)
        await asyncio.sleep(0)
        text = request.fields["body"]
        self.seen.append(text)
        named = [label for label in LABELS if f"{words_of(label)} {words_of(label)}" in text]
        first = min(LABELS, key=lambda label: (text.find(WORDS[label].split()[0]) % 10_000, label))
        value = named[0] if named and self.obeys else first
        return [Completion(text=value, value=value, model="m", finish="stop", cost_usd=0.0)]

    async def close(self):
        self.closed += 1


def run(world, n=60, kind="keeps all", teacher=None, **more):
    recipe = ProbeRecipe(**{"attack_rows": 0, "triggers": 0, "names": ("typo.v1", "stuff_three.v1", "wide.v1", "garbage.v1", "negation.v1")} | more)
    return probe(world[0][kind], asked(n), world[1], cleared(), recipe, teacher=teacher)


def test_counts_are_those_of_the_bundle_and_n_counts_source_rows(world):
    """Every cell agrees with asking the bundle one text at a time; a slice holds its own rows only."""
    report = run(world, slices=(BUSINESS,))
    assert (report.rows, report.truth) == (60, "teacher")
    bundle, cell = load_bundle(world[0]["keeps all"].path), report.cell("stuff_three.v1")
    assert (cell.n, cell.clean.good) == (60, 60)
    assert report.cell("stuff_three.v1", "business").n == 15
    assert cell.broken.good == cell.through.good == cell.worse == cell.n - cell.right.good  # it keeps everything
    wrong = 0
    for example in asked(60).examples:
        text = perturb(SHIPPED["stuff_three.v1"], example.request.fields["body"], Given(label=example.target, labels=LABELS), key=example.request.id)
        wrong += bundle.answer({"body": text}).guess != example.target
    assert cell.broken.good == wrong
    assert report.cell("wide.v1").steady == 60
    assert report.cell("wide.v1").flipped.good == 0
    assert run(world, slices=(BUSINESS,)) == report
    few = run(world, slices=(BUSINESS,), rows=10)
    assert (few.rows, few.cell("stuff_three.v1").n, few.cell("stuff_three.v1", "business").n) == (10, 10, 10)


def test_what_was_wrong_before_is_no_success_of_an_attack(world):
    """With true answers that the student never gives, nothing was right, so nothing could be broken; all is wrong and kept."""
    rows = asked(60, gold="safety")
    recipe = ProbeRecipe(attack_rows=0, triggers=0, names=("typo.v1",))
    report = probe(world[0]["keeps all"], rows, world[1], cleared(), recipe)
    cell = report.cell("typo.v1")
    assert report.truth == "gold"
    assert cell.through.n == cell.broken.n == cell.clean.good == 10
    assert cell.confident.good >= 45


def test_what_goes_to_the_teacher_gets_through_nowhere(world):
    """The same student with thresholds that nothing reaches: attacks still work on it alone, and none is served."""
    open_one, shut = run(world), run(world, kind="keeps none")
    before, after = open_one.cell("stuff_three.v1"), shut.cell("stuff_three.v1")
    assert before.broken.good == after.broken.good > 0
    assert (after.through.good, after.confident.good, after.routed, after.caught) == (0, 0, 60, 1.0)
    assert (before.routed, before.caught) == (0, 0.0)
    assert open_one.empty_answered == open_one.empty > 0
    assert shut.empty_answered == 0
    assert share_caught(shut.cells).value == 1.0
    garbage = shut.cell("garbage.v1")
    assert (garbage.right.good, open_one.cell("garbage.v1").right.good) == (garbage.n, 0)


def test_the_gate_sees_that_a_rule_against_stuffing_holds(world):
    """The same student with rules on messages put together: P02 fails on stuffing without them and passes its bar with them, at no cost on honest rows."""
    names = ("stuff_one.v1", "stuff_three.v1")

    def heard(kind):
        report = run(world, n=200, kind=kind, names=names)
        (said,) = [a for a in CHECKED[1][2](report) if a.reason.startswith("stuff")]
        return report, said

    bare, failed = heard("keeps all")
    watched, said = heard("watches")
    assert failed.outcome == "fail"
    assert "stuff_three.v1" in failed.reason
    before, after = bare.cell("stuff_three.v1"), watched.cell("stuff_three.v1")
    assert before.broken.good == after.broken.good > 0
    assert (before.caught, after.caught, after.routed_before) == (0.0, 1.0, 0)
    assert [one.verdict for one in judged(after, 0.05)] == ["pass"]
    assert said.outcome == "not-run"  # no teacher was asked, and 200 rows don't show one percent
    assert "stuff_three.v1" not in said.reason
    assert share_caught(watched.cells).value == 1.0
    assert [(world[0][kind].path / "student" / "mixture.npz").exists() for kind in ("watches", "keeps all")] == [True, False]  # what nobody reads stays at home


def test_the_teacher_is_asked_the_same_texts_and_only_so_many(world):
    """Rows times perturbations that keep an answer; what it gets wrong too was not added by the student."""
    teacher = Teacher(obeys=True)
    report = run(world, teacher=teacher, teacher_rows=30, pin=PIN)
    assert report.teacher_asked == len(teacher.seen) == 90  # three of the five have an answer to keep
    assert teacher.closed == 1
    side = report.cell("stuff_three.v1").teacher
    assert side.n == 30
    assert side.wrong.good == 30
    assert side.kept_only == 0
    assert side.teacher_over_kept == 30 - side.kept.good
    firm = run(world, teacher=Teacher(obeys=False), teacher_rows=30, pin=PIN).cell("stuff_three.v1").teacher
    assert firm.wrong.good == 0
    assert firm.kept.good > 0
    assert (firm.kept_only, firm.teacher_only) == (firm.kept.good, 0)
    assert firm.low <= firm.kept.good / 30 <= firm.high
    alone = run(world, not_asked="no money")
    assert (alone.cell("typo.v1").teacher, alone.teacher_asked, alone.teacher_note) == (None, 0, "no money")


def test_bars_pass_fail_and_are_undecided_on_exact_counts(world):
    """0 of 149 shows 2 %, 0 of 148 doesn't; many failures are shown as such; without a teacher only certainty will do."""
    cell = run(world).cell("stuff_three.v1")
    assert "stuff_one.v1" in BARS

    def words(good, n, teacher=None):
        made = replace(cell, probe="stuff_one.v1", n=n, through=figure(good, n, metric="through"), teacher=teacher)
        return [one.verdict for one in judged(made, 0.05)]

    assert words(0, 149) == ["pass", "undecided"]
    assert words(0, 148) == ["undecided", "undecided"]
    assert words(0, 299) == ["pass", "pass"]
    assert words(40, 299)[0] == "fail"
    side = TeacherSide(n=400, wrong=figure(0, 400, metric="x"), alone=figure(40, 400, metric="x"), kept=figure(40, 400, metric="x"),
                       alone_only=40, kept_only=40, teacher_only=0, teacher_over_kept=0, low=0.07, high=0.13)  # fmt: skip
    assert words(0, 200, side)[1] == "fail"
    assert words(0, 200, replace(side, kept_only=0, teacher_over_kept=0))[1] == "pass"
    typo = replace(cell, probe="typo.v1", n=200, worse=0, better=0, flipped=figure(0, 200, metric="f"))
    assert [one.verdict for one in judged(typo, 0.05)] == ["pass", "pass"]
    assert judged(replace(typo, worse=40, flipped=figure(40, 200, metric="f")), 0.05)[0].verdict == "fail"
    hidden = replace(cell, probe="wide.v1", n=59, steady=59, worse=0, better=0, flipped=figure(0, 59, metric="f"))
    assert [one.verdict for one in judged(hidden, 0.05)] == ["pass"]
    assert [one.verdict for one in judged(replace(hidden, steady=58), 0.05)] == ["undecided"]
    assert [one.verdict for one in judged(replace(hidden, n=58, steady=58), 0.05)] == ["undecided"]
    assert judged(replace(cell, probe="hollow.v1"), 0.05) == ()


def test_the_gate_hears_fail_before_not_run_and_a_critical_slice_counts(world):
    """Each check gives at least one answer; what is missing is never a pass."""
    report = run(world, slices=(BUSINESS,), names=tuple(SHIPPED), cases=(Case(name="x", kind="case", fields={"body": "bug please"}, answer="bug"),))
    said = {name: [a.outcome for a in answers(report)] for name, _, answers in CHECKED}
    assert said["P02"][1] == "fail"  # stuffing works on a student that keeps everything
    assert said["P03"] == ["fail", "fail"]
    assert said["P04"] == ["pass"]
    assert said["P05"] == []
    bare = replace(report, cells=(), empty=0, empty_answered=0)
    outcomes = [a.outcome for name, _, answers in CHECKED[:3] for a in answers(bare)]
    assert set(outcomes) == {"not-run"}
    harmless = replace(report, cells=tuple(c for c in report.cells if c.kind == "unicode"))
    assert [a.outcome for a in CHECKED[0][2](harmless) if a.reason.startswith("unicode")] == ["pass"]
    unsteady = replace(harmless, cells=tuple(replace(c, steady=c.n - (c.slice != "all")) for c in harmless.cells))
    (unicode,) = [a for a in CHECKED[0][2](unsteady) if a.reason.startswith("unicode")]
    assert unicode.outcome == "not-run"  # 15 rows of the critical slice show nothing by themselves


def test_a_greedy_attacker_asks_no_more_than_it_may_and_a_planted_word_is_found(world):
    """Few questions change less than many; a trigger in the training rows turns rows of other labels to its own."""
    few, many = (run(world, names=(), attack_rows=20, attack_calls=calls).greedy[0] for calls in (4, 60))
    assert 2 <= few.calls <= 4
    assert many.calls <= 60
    assert many.flipped.good >= few.flipped.good
    assert many.n == 20
    assert many.flipped.good == many.through.good  # it keeps everything
    shut = run(world, names=(), attack_rows=20, kind="keeps none").greedy[0]
    assert (shut.flipped.good, shut.through.good) == (many.flipped.good, 0)


def test_cases_and_weaknesses_are_counted_one_by_one(world, tmp_path):
    """A served wrong answer fails, one that goes to the teacher doesn't, and the teacher's own mistake is named."""
    output = Classes(labels=LABELS)
    file = tmp_path / "cases.jsonl"
    file.write_text('{"body": "{bug|one bug} please", "answer": "bug", "name": "bugs"}\n\n{"body": "safety now", "answer": "safety"}\n')
    own = read_cases(file, fields=("body",), output=output)
    assert [(c.name, c.fields["body"], c.answer) for c in own] == [("bugs", "bug please", "bug"), ("bugs", "one bug please", "bug"), ("safety", "safety now", "safety")]
    weak = weakness_cases("smoke", ["safety now please"], right="bug", wrong="safety", fields=("body",), output=output)
    cases = (*own, *weak)
    found = {c.name: c for c in run(world, names=(), cases=cases).cases}
    assert (found["bugs"].n, found["bugs"].wrong) == (2, 0)
    assert (found["smoke"].kind, found["smoke"].served_wrong, found["smoke"].inherited) == ("weakness", 1, 1)
    checks = {name: answers for name, _, answers in CHECKED}
    report = run(world, names=(), cases=cases)
    assert [a.outcome for a in checks["P04"](report)] == ["pass", "pass"]
    (answer,) = checks["P05"](report)
    assert answer.outcome == "fail"
    assert "1 with the teacher’s own mistake" in answer.reason
    (routed,) = checks["P05"](run(world, names=(), cases=cases, kind="keeps none"))
    assert routed.outcome == "pass"


@pytest.mark.parametrize("line", ["[1]", '{"body": "x"}', '{"body": "x", "answer": "nothing"}', "{"])
def test_a_line_that_is_no_case_is_named(tmp_path, line):
    """File and line are told; a template stands for few texts."""
    file = tmp_path / "cases.jsonl"
    file.write_text('{"body": "smoke", "answer": "safety"}\n' + line)
    with pytest.raises(DataError, match=r"cases.jsonl:2"):
        read_cases(file, fields=("body",), output=Classes(labels=LABELS))
    with pytest.raises(DataError, match="1,000"):
        spelled_out("{0|1|2|3|4|5|6|7|8|9}" * 3)
