"""The sealed rows, opened once: certificate, bars as served, every candidate."""

import dataclasses

import numpy as np
import pytest

from overproof.errors import DataError
from overproof.evidence import EvalReport
from overproof.measure.certify import KEEP_ALL, ledger_delta, recompute
from overproof.measure.slices import split_hash
from overproof.steps.calibrate import CalibrateRecipe, Reading, Sheet, calibrate, logits_of, read
from overproof.steps.evaluate import (
    EvaluateRecipe,
    StudyRecipe,
    evaluate,
    served_cost_usd_per_1000,
    study,
)
from overproof.steps.plan import PlanRecipe, make_plan
from overproof.steps.slice_reports import Group, Sealed, overall, report_slice
from overproof.task import Bar, Slice

BARS = (Bar(metric="fidelity", at_least=0.9), Bar(metric="accuracy", at_least=0.85))
BUSINESS = Slice(name="business", where=(("tier", ("business",)),), critical=True)
NOBODY = Slice(name="nobody", where=(("tier", ("gold",)),))
SAFETY = Slice(
    name="safety first", where=(("label", ("safety",)),), critical=True, bars=(Bar(metric="accuracy", at_least=0.9),)
)
CANDIDATES = {"small": {"error": 0.2, "size": 9_000}, "large": {"error": 0.06}, "majority": {"kind": "baseline", "error": 0.7}}


def walk_through(world, **more) -> EvalReport:
    return world.report(**more)


def candidate(report, name):
    return next(c for c in report.candidates if c.name == name)


def one(report, name, slice_name):
    return next(s for s in candidate(report, name).slices if s.slice == slice_name)


def test_a_good_student_is_certified_and_its_bars_pass_as_served(world) -> None:
    """A student with 6% disagreement keeps most of the traffic at a bar of 5% among kept, and every bar passes."""
    report = walk_through(world)
    assert report.chosen == "large"
    best = candidate(report, "large")
    assert best.clears_bars == "pass"
    assert best.margin > 0
    assert best.slices[0].kept.value > 0.5
    assert all(s.upper <= s.alpha for s in report.certificate.slices if s.threshold is not None)
    assert recompute(report.certificate) == ()


def test_bars_are_judged_only_on_rows_that_chose_no_threshold(world) -> None:
    """Rows that certify and rows that judge are disjoint and together all of them."""
    report = walk_through(world)
    sealed = world.sealed(2_000)
    certifying = int(split_hash([e.request.id for e in sealed.examples], "overproof", 0.5).sum())
    assert sum(s.n for s in report.certificate.slices) == certifying
    assert one(report, "large", "all").served_fidelity.n == 2_000 - certifying
    assert one(report, "large", "all").fidelity.n == 2_000


def test_as_served_means_student_over_the_threshold_and_teacher_elsewhere(world) -> None:
    """The served figures, recomputed by hand from thresholds, answers and the judging rows."""
    report = walk_through(world)
    sealed = world.sealed(2_000)
    scores = world.scores("large", sealed, error=0.06)
    reading = read(logits_of(scores, sealed), candidate(report, "large").calibration.temperature)
    threshold = {s.slice: s.threshold for s in report.certificate.slices}
    certifying = split_hash([e.request.id for e in sealed.examples], "overproof", 0.5)
    agree = right = n = 0
    for i, example in enumerate(sealed.examples):
        if certifying[i]:
            continue
        bound = threshold["business" if example.request.attributes["tier"] == "business" else "other"]
        own = bound is not None and reading.confidence[i] >= bound
        served = sealed.labels[reading.answer[i]] if own else example.target
        n, agree, right = n + 1, agree + (served == example.target), right + (served == example.gold)
    whole = one(report, "large", "all")
    assert (whole.served_fidelity.good, whole.served_accuracy.good, whole.served_fidelity.n) == (agree, right, n)


def test_a_bar_passes_exactly_where_its_interval_lies_at_or_above_it(world) -> None:
    """What is drawn is what is judged: low >= bar iff pass, high < bar iff fail."""
    report = walk_through(world, slices=(BUSINESS, NOBODY, SAFETY))
    figures = [f for c in report.candidates for s in c.slices
               for f in (s.fidelity, s.accuracy, s.served_fidelity, s.served_accuracy) if f and f.bar is not None and f.n]
    assert {f.verdict for f in figures} == {"pass", "fail", "undecided"}
    for f in figures:
        assert (f.verdict == "pass") == (f.low >= f.bar)
        assert (f.verdict == "fail") == (f.high < f.bar)


def test_the_drawn_interval_and_the_verdict_agree_at_every_count() -> None:
    """Row by row through the border between undecided and pass, at an uneven error budget."""
    n = 400
    bars = {"fidelity": Bar(metric="fidelity", at_least=0.9)}
    group = Group(name="all", kind="all", critical=False, mask=np.ones(n, dtype=bool), bars=bars)
    zeros = np.zeros(n, dtype=np.int64)
    sealed = Sealed(sheet=Sheet(target=zeros, gold=zeros), groups=(group,), judge=group.mask, delta=0.0001, level=0.95)
    seen = set()
    for wrong in range(90):
        answer = zeros.copy()
        answer[:wrong] = 1
        found = report_slice(group, Reading(answer=answer, confidence=np.ones(n), foreign=np.zeros(n, dtype=bool), mixed=np.zeros(n, dtype=bool)), sealed, None).fidelity
        assert (found.verdict == "pass") == (found.low >= 0.9)
        assert (found.verdict == "fail") == (found.high < 0.9)
        seen.add(found.verdict)
    assert seen == {"pass", "undecided", "fail"}


def test_too_few_rows_are_undecided_and_say_how_many_are_missing(world) -> None:
    """A critical slice of a handful of rows never passes, however good it looks."""
    report = walk_through(world, n=300)
    business = one(report, report.chosen, "business")
    assert business.served_fidelity.verdict == "undecided"
    assert business.served_fidelity.rows_needed > 0
    assert candidate(report, report.chosen).clears_bars != "pass"


def test_a_slice_that_never_occurs_is_reported_and_undecided(world) -> None:
    """No row, no verdict, and the whole is undecided with it."""
    report = walk_through(world, slices=(NOBODY,))
    nobody = one(report, "large", "nobody")
    assert (nobody.n, nobody.served_fidelity.verdict, nobody.served_fidelity.value) == (0, "undecided", None)
    assert candidate(report, "large").clears_bars == "undecided"


def test_an_accuracy_bar_without_gold_is_undecided(world) -> None:
    """Agreement with the teacher is never taken for accuracy."""
    report = walk_through(world, gold=0.0)
    whole = one(report, report.chosen, "all")
    assert whole.served_accuracy.verdict == "undecided"
    assert whole.served_fidelity.verdict == "pass"
    assert whole.two_by_two is None
    assert report.n_gold == 0


def test_labels_where_the_teacher_is_wrong_most_of_the_time_are_listed_worst_first(world) -> None:
    """A teacher that misses a label is found against gold, though every student agrees with it."""
    report = walk_through(world, teacher={"safety": 0.1, "refund": 0.35})
    assert [s.slice for s in report.weak_labels] == ["safety", "refund"]
    assert report.weak_labels[0].teacher_accuracy.high < 0.5


def test_a_label_slice_of_the_project_takes_the_place_of_its_label(world) -> None:
    """A critical label has the project's name, bars on the served answer, and a bar on the teacher's own recall."""
    report = walk_through(world, slices=(SAFETY,), teacher={"safety": 0.5})
    found = one(report, "large", "safety first")
    assert (found.kind, found.critical) == ("label", True)
    assert found.teacher_accuracy.bar == 0.9
    assert found.teacher_accuracy.verdict == "fail"
    assert "safety" not in {s.slice for s in candidate(report, "large").slices}


def test_familiarity_bins_come_least_familiar_first(world) -> None:
    """Novelty slices stand in order, and every row is in one; the critical one gathers the first of them."""
    found = [s for s in candidate(walk_through(world), "large").slices if s.kind == "novelty"]
    bins = [s for s in found if not s.critical]
    assert [s.slice for s in bins] == sorted(s.slice for s in bins)
    assert sum(s.n for s in bins) == 2_000


def test_the_four_counts_add_up(world) -> None:
    """Teacher right or wrong times student agrees or not: all rows with gold, once."""
    report = walk_through(world, gold=0.7)
    table = one(report, "large", "all").two_by_two
    total = table.right_agree + table.right_differ + table.wrong_agree + table.wrong_differ
    assert total == report.n_gold
    assert table.right_agree + table.wrong_agree <= one(report, "large", "all").fidelity.good


def test_a_baseline_that_clears_every_bar_for_less_is_named(world) -> None:
    """A rule that is good enough beats a student; one that is not, or is dearer, doesn't."""
    good = CANDIDATES | {"lookup": {"kind": "baseline", "error": 0.01, "cost": 0.0001}}
    assert walk_through(world, candidates=good).cheaper == "lookup"
    unread = walk_through(world, candidates=good, by_judge=True)  # a judge of texts reads no answer of its
    assert unread.cheaper is None
    assert {c.clears_bars for c in unread.candidates} <= {"fail", "undecided"}
    dear = CANDIDATES | {"lookup": {"kind": "baseline", "error": 0.01, "cost": 50.0}}
    assert walk_through(world, candidates=dear).cheaper is None
    assert walk_through(world).cheaper is None


def test_the_bill_as_served_has_the_student_on_all_and_the_teacher_on_the_rest(world) -> None:
    """USD per 1,000 = student + (1 - kept) x teacher; unknown where the teacher's price is."""
    report = walk_through(world)
    kept = one(report, "large", "all").kept.value
    assert served_cost_usd_per_1000(report) == pytest.approx(0.01 + (1 - kept) * 2.0)
    free = tuple(dataclasses.replace(c, cost_usd_per_1000=0.0) if c.kind == "teacher" else c for c in report.candidates)
    assert served_cost_usd_per_1000(dataclasses.replace(report, candidates=free)) is None


def test_a_later_use_of_the_same_rows_has_less_error_budget(world) -> None:
    """The third opening spends a ninth of the first one's budget, in certificate and bars alike."""
    report = walk_through(world, use_k=3)
    assert report.certificate.delta_spent == pytest.approx(ledger_delta(0.05, 3))
    assert one(report, "large", "all").served_fidelity.delta == pytest.approx(ledger_delta(0.05, 3))


def test_a_gold_certificate_counts_only_rows_with_gold(world) -> None:
    """Truth is certified where it is known."""
    report = walk_through(world, gold=0.5, teacher=0.7, plan_more={"label": "gold"})
    assert report.certificate.label_kind == "gold"
    sealed = world.sealed(2_000, gold=0.5, teacher=0.7)
    certifying = split_hash([e.request.id for e in sealed.examples], "overproof", 0.5)
    known = np.array([e.gold is not None for e in sealed.examples])
    assert sum(s.n for s in report.certificate.slices) == int((certifying & known).sum())
    scores = world.scores(report.chosen, sealed, **CANDIDATES[report.chosen])
    how = candidate(report, report.chosen).calibration.confidence
    reading = read(logits_of(scores, sealed), how, slices=["other"] * 2_000)
    said = [sealed.labels[i] for i in reading.answer]
    counted = certifying & known & ~reading.foreign
    assert reading.foreign.any()
    wrong = sum(a != e.gold for a, e, c in zip(said, sealed.examples, counted, strict=True) if c)
    assert sum(s.counts[-1][0] for s in report.certificate.slices) == wrong


def test_disagreements_come_from_calibration_rows_worst_first(world) -> None:
    """No sealed row is listed; teacher-right ones first, by confidence."""
    report = walk_through(world)
    assert report.disagreements
    assert all(d.request_id.startswith("r1-") and d.teacher != d.student for d in report.disagreements)
    right = [d for d in report.disagreements if d.gold == d.teacher]
    assert list(report.disagreements[: len(right)]) == right
    assert [d.confidence for d in right] == sorted((d.confidence for d in right), reverse=True)


def test_a_score_that_is_no_number_is_never_kept(world) -> None:
    """NaN confidence goes to the teacher, even where the slice keeps everything."""
    dev, sealed = world.calibration(2_000), world.sealed(2_000)
    dev_scores = (world.scores("s", dev, error=0.01),)
    calibrations = tuple(calibrate(s, dev, CalibrateRecipe()) for s in dev_scores)
    plan = make_plan(calibrations, dev_scores, dev,
                     PlanRecipe(bars=BARS, slices=(), accuracy_when_confident=0.9, n_sealed=2_000, teacher="big"))
    scores = world.scores("s", sealed, error=0.01)
    broken = np.load(scores.folder.path / "logits.npy")
    broken[::7] = np.nan
    np.save(scores.folder.path / "logits.npy", broken)
    recipe = EvaluateRecipe(use_k=1, plan_hash="p", sealed_digest="s", bars=BARS, slices=(), window=(None, None),
                            expires="2026-06-01")
    report = evaluate(plan, study(plan, calibrations, dev_scores, dev, StudyRecipe()), (scores,), sealed, recipe)
    whole = one(report, "s", "all")
    judging = ~split_hash([e.request.id for e in sealed.examples], "overproof", 0.5)
    sound = np.arange(2_000) % 7 != 0
    assert report.certificate.slices[0].threshold == KEEP_ALL
    foreign = read(np.load(scores.folder.path / "logits.npy"), plan.confidence).foreign
    assert whole.kept.good == int((judging & sound & ~foreign).sum())
    assert 0 < candidate(report, "s").out_of_scope.good == int(foreign.sum())


def test_latency_and_cost_keep_the_number_of_requests_that_they_rest_on(world) -> None:
    """No number without its n."""
    best = candidate(walk_through(world, n=300), "large")
    assert (best.latency_n, best.cost_n) == (100, 300)


def test_scores_of_the_chosen_candidate_must_be_there(world) -> None:
    """A plan for a candidate that was not predicted is an error that names it."""
    dev = world.calibration(200)
    scores = (world.scores("s", dev),)
    cals = (calibrate(scores[0], dev, CalibrateRecipe()),)
    plan = make_plan(cals, scores, dev, PlanRecipe(bars=BARS, slices=(), accuracy_when_confident=0.9, n_sealed=200, teacher="t"))
    with pytest.raises(DataError, match="no scores of 's'"):
        study(plan, cals, (world.scores("t", dev),), dev, StudyRecipe())


def test_no_bar_and_any_undecided_bar_are_never_a_pass() -> None:
    """Overall: fail beats all, pass needs at least one bar and all passing."""
    assert overall([]) == "undecided"
    assert overall(["pass", "undecided"]) == "undecided"
    assert overall(["undecided", "fail"]) == "fail"
    assert overall(["pass", "pass"]) == "pass"
