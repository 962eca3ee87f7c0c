"""Two certificates in their own words; every bound follows from counts."""

from dataclasses import replace

import pytest

from overproof.measure.certify import ledger_delta
from overproof.measure.intervals import cp_upper
from overproof.steps.certificates import (
    certified_parts,
    covers,
    differences,
    figure_differences,
    fresh_draw,
    other_words,
    part_words,
    report_differences,
    uses_of,
)

BUDGET = {"accuracy_when_confident": None, "wrong_when_served": 0.03}


def forged(certificate, **changes):
    """The certificate with another statement about a slice that passed."""
    name = certified_parts(certificate)[0].slice
    return replace(certificate, slices=tuple(replace(s, **changes) if s.slice == name else s for s in certificate.slices))


def test_agreement_and_correctness_are_two_certificates_with_their_own_labels_and_ledgers(world) -> None:
    """The teacher's certificate is G4, the one of gold G1; each spends its own use of the sealed rows."""
    report = world.report(teacher=0.9, uses={"teacher:big": 1, "gold": 2})
    assert (report.certificate.label_kind, report.certificate.supports) == ("teacher:big", "G4")
    assert (report.other.label_kind, report.other.supports) == ("gold", "G1")
    assert (report.certificate.use_k, report.other.use_k, uses_of(report)) == (1, 2, 2)
    assert report.other.delta_spent == pytest.approx(ledger_delta(0.05, 2))
    assert report.certificate.delta_spent == pytest.approx(ledger_delta(0.05, 1))
    assert report.certificate.plan_hash == report.other.plan_hash


def test_accuracy_is_judged_with_the_budget_of_gold_and_agreement_with_its_own(world) -> None:
    """A worn gold ledger makes the accuracy bars harder and leaves the fidelity bars alone."""
    whole = world.report(uses={"teacher:big": 1, "gold": 3}).candidates[1].slices[0]
    assert whole.served_fidelity.delta == pytest.approx(ledger_delta(0.05, 1))
    assert whole.served_accuracy.delta == pytest.approx(ledger_delta(0.05, 3))


def test_the_certificate_of_agreement_never_speaks_of_accuracy_or_right(world) -> None:
    """A teacher that is wrong on a tenth of the rows: agreement is certified, and correctness is not."""
    report = world.report(teacher=0.85)
    words = " ".join(part_words(s, report.certificate) for s in certified_parts(report.certificate))
    assert "unlike the teacher" in words
    assert not {"accuracy", "accurate", "right", "correct", "wrong"} & set(words.replace(",", " ").split())
    assert certified_parts(report.other) == []
    assert "not shown at the shipped threshold" in other_words(report)


def test_correctness_holds_at_the_shipped_thresholds_where_the_teacher_is_right(world) -> None:
    """With a perfect teacher both certificates count the same errors, and the second covers the shipped thresholds."""
    report = world.report(teacher=1.0)
    assert [s.counts for s in report.other.slices] == [s.counts for s in report.certificate.slices]
    assert "holds at every shipped threshold too" in other_words(report)


def test_without_gold_there_is_one_certificate_and_a_sentence(world) -> None:
    """Nothing about truth is certified, and the report says what it would take."""
    report = world.report(gold=0.0)
    assert report.other is None
    assert report.noninferiority is None
    assert "agreement with the teacher, not correctness: no sealed row has a true label" in other_words(report)


def test_shipping_under_gold_turns_the_two_round(world) -> None:
    """[proof] label = gold: thresholds come from the certificate of correctness, agreement stands beside it."""
    report = world.report(plan_more={"label": "gold"})
    assert (report.certificate.supports, report.other.supports) == ("G1", "G4")


def test_a_budget_certificate_bounds_kept_and_wrong_over_all_requests(world) -> None:
    """One threshold for all traffic; the bound is of all rows, and rebuilding it from counts finds no difference."""
    report = world.report(plan_more=BUDGET)
    part, *rest = report.certificate.slices
    assert rest == []
    assert (report.certificate.supports, part.slice) == ("G2", "other")
    assert part.threshold is not None
    assert part.upper == cp_upper(part.wrong, part.n, report.certificate.delta_spent) <= 0.03
    assert part.kept < part.n or part.threshold < 0
    assert "of all" in part_words(part, report.certificate)
    assert differences(report.certificate) == ()
    assert report_differences(report) == ()


@pytest.mark.parametrize("changes", [
    {"upper": 0.0001}, {"threshold": -1.0}, {"wrong": 0, "upper": 0.02}, {"delta": 0.2}, {"verdict": "undecided"},
    {"counts": ((5, 4),)}, {"alpha": 0.5},
])  # fmt: skip
@pytest.mark.parametrize("dial", [{}, BUDGET], ids=["kept", "budget"])
def test_a_certificate_that_contradicts_its_counts_is_found(world, dial, changes) -> None:
    """Each figure edited by hand alone is a difference, under both guarantees."""
    report = world.report(plan_more=dial)
    assert differences(report.certificate) == ()
    assert differences(forged(report.certificate, **changes))


def test_figures_and_paired_tests_are_rebuilt_too(world) -> None:
    """An interval or a p that doesn't follow from its counts is named."""
    report = world.report()
    assert report_differences(report) == ()
    figure = report.candidates[1].slices[0].served_fidelity
    assert figure_differences([figure]) == ()
    assert "low is stated" in figure_differences([replace(figure, low=figure.low + 0.01)])[0]
    assert any("p is stated" in d for d in report_differences(
        replace(report, noninferiority=replace(report.noninferiority, p=0.5))))
    assert any("verdict is stated" in d for d in report_differences(
        replace(report, superiority=replace(report.superiority, verdict="fail"))))


def test_only_points_between_start_and_end_of_the_walk_are_covered(world) -> None:
    """A stricter threshold than the start was never tested, and a looser one than the end did not pass."""
    part = certified_parts(world.report().certificate)[0]
    last = part.grid.index(part.threshold)
    covered = [i for i, threshold in enumerate(part.grid) if covers(part, threshold)]
    assert covered == list(range(part.start, last + 1))
    assert not covers(part, None)
    assert not covers(replace(part, threshold=None), part.grid[last])


def test_a_fresh_set_is_as_large_as_the_old_one_and_priced_by_the_teachers_labels(world) -> None:
    """2,000 rows and those still needed, at 2 USD per 1,000."""
    report = world.report()
    rows = 2_000 + max((s.rows_needed for s in report.certificate.slices if s.rows_needed), default=0)
    assert f"{rows:,} rows, about {0.002 * rows:.2f} USD at 0.002 USD a label" in fresh_draw(report)


def test_the_certificate_carries_what_was_fixed(world) -> None:
    """Digests of the plan stand on both certificates."""
    report = world.report(plan_more={"digests": {"prompt": "b" * 64}})
    assert report.certificate.fixed == report.other.fixed == {"prompt": "b" * 64}
