"""Ratios and amplification on sealed rows: counts of a plain loop, the teacher's gap taken out, and lack of rows never passes."""

from dataclasses import replace

import pytest
from tests.steps.test_groups import RECIPE, SALT, SHARE, compare, rows_of

from overproof.errors import DataError
from overproof.measure.slices import hash_unit
from overproof.steps.checks import asked
from overproof.steps.checks.table import GateRecipe
from overproof.steps.collect import Evidence
from overproof.steps.disparities import DisparityBars, amplification_answers, ratio_answers

BARS = DisparityBars(selection=0.7, error=0.5, amplified=0.05)
JUDGED = replace(RECIPE, bars=BARS)
GATE = GateRecipe(task="t", owner="o", deputy="d", review_every_days=90, today="2026-01-01", disparity=BARS)


def test_ratios_and_gaps_are_those_of_a_plain_loop_over_the_judging_rows(tmp_path):
    """Errors, and the share that is served a label, where it is right and where it is wrong; the teacher on the same rows."""
    rows, answers = rows_of(1500, student={"free": 0.05, "pro": 0.2}, teacher={"free": 0.02, "pro": 0.1})
    (one,) = compare(tmp_path, rows, answers, recipe=JUDGED).attributes
    judging = [(e, a) for e, a in zip(rows.examples, answers, strict=True) if hash_unit(e.request.id, SALT) >= SHARE]

    def share(tier, counts, among=lambda e: True):
        there = [(e, a) for e, a in judging if e.request.attributes["tier"] == tier and among(e)]
        return sum(counts(e, a) for e, a in there) / len(there)

    wrong = {t: share(t, lambda e, a: a != e.gold) for t in ("free", "pro")}
    theirs = {t: share(t, lambda e, a: e.target != e.gold) for t in ("free", "pro")}
    by_kind = {r.kind: r.found for r in one.ratios}
    assert by_kind["error"].ratio == pytest.approx(wrong["free"] / wrong["pro"])
    for kind, among in (("selection", lambda e: True), ("right", lambda e: e.gold == "bug"), ("false alarm", lambda e: e.gold != "bug")):
        rates = [share(t, lambda e, a: a == "bug", among) for t in ("free", "pro")]
        assert by_kind[kind].ratio == pytest.approx(min(rates) / max(rates)), kind
    worst = one.amplified[0].found.pairs[0]
    assert (one.amplified[0].kind, worst.group, worst.than) == ("error", "pro", "free")
    assert worst.amplified == pytest.approx((wrong["pro"] - wrong["free"]) - (theirs["pro"] - theirs["free"]))
    assert one.amplified[1].found.n == len(judging)


@pytest.mark.parametrize(
    ("student", "n", "outcomes"),
    [
        ({"free": 0.02, "pro": 0.3}, 2400, ("fail", "fail")),
        ("copies", 2400, ("fail", "pass")),  # the teacher's own gap: unequal, and not amplified
        ({"free": 0.02, "pro": 0.02}, 60, ("not-run", "not-run")),
    ],
)
def test_the_gate_tells_an_added_gap_from_an_inherited_one_and_from_lack_of_rows(tmp_path, student, n, outcomes):
    """F03 asks whether groups fare alike, F04 whether the student made it worse."""
    rows, answers = rows_of(n, student=student, teacher={"free": 0.02, "pro": 0.15})
    evidence = Evidence(groups=compare(tmp_path, rows, answers, recipe=replace(JUDGED, selected=())))
    found = [next(iter(check(evidence, GATE))) for check in (asked.ratios, asked.amplified)]
    assert tuple(f.outcome for f in found) == outcomes
    assert ("not enough data" in found[1].reason) == (outcomes[1] == "not-run")
    assert all(f.next_action for f in found if f.outcome != "pass")


def test_alike_groups_pass_the_bar_on_selection(tmp_path):
    """One row for the errors that have no bar here, one for the label that has."""
    rows, answers = rows_of(3000, student="copies", teacher={"free": 0.02, "pro": 0.02})
    evidence = Evidence(groups=compare(tmp_path, rows, answers, recipe=replace(JUDGED, bars=replace(BARS, error=None))))
    (found,) = asked.ratios(evidence, replace(GATE, disparity=replace(BARS, error=None)))
    assert (found.outcome, "served 'bug'" in found.reason) == ("pass", True)


def test_other_bars_than_those_measured_under_and_absent_groups_never_pass(tmp_path):
    """A report of other bars is no evidence; of a group without true labels nothing is shown."""
    good = {"free": 0.02, "pro": 0.02, "vip": 0.02}
    rows, answers = rows_of(3600, student="copies", teacher=good, gold=lambda i, tier: tier != "vip", attributes=tuple(good))
    report = compare(tmp_path, rows, answers, recipe=replace(JUDGED, values={"tier": tuple(good)}, selected=()))
    for check in (asked.ratios, asked.amplified):
        with pytest.raises(DataError, match="other bars"):
            list(check(Evidence(groups=report), replace(GATE, disparity=replace(BARS, amplified=0.2))))
    (one,) = report.attributes
    assert [a.outcome for a in ratio_answers("tier", one.ratios)] == ["not-run"]
    (answer,) = amplification_answers("tier", one.amplified)
    assert answer.outcome == "not-run"
    assert "'vip'" in answer.reason
    unasked = compare(tmp_path, rows, answers, recipe=replace(RECIPE, selected=())).attributes[0]
    assert list(ratio_answers("tier", unasked.ratios)) == list(amplification_answers("tier", unasked.amplified)) == []


def test_without_true_labels_errors_are_open_and_selected_labels_are_still_compared(tmp_path):
    """Who gets a label needs no gold; who is served wrong does."""
    good = {"free": 0.02, "pro": 0.02}
    rows, answers = rows_of(3000, student="copies", teacher=good, gold=lambda i, tier: False)
    (one,) = compare(tmp_path, rows, answers, recipe=JUDGED).attributes
    assert [a.outcome for a in amplification_answers("tier", one.amplified)] == ["not-run", "pass"]
    assert [a.outcome for a in ratio_answers("tier", one.ratios)] == ["not-run", "pass"]
