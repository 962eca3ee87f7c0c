"""Certificates of slices that move together, and of several looks: what counts alone say, and what an edit changes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overproof.evidence import LookCounts, SlicePlan
from overproof.measure.certify import certify_budget, grid_counts
from overproof.measure.looks import look_shares
from overproof.measure.paths import certify_path
from overproof.steps.certificates import (
    certified_parts,
    differences,
    other_words,
    report_differences,
    walk_words,
)
from overproof.steps.joint import counts_on, path_of, plan_all
from overproof.steps.walks import Walk, opened, settle

ALL = {"ship": "all", "accuracy_when_confident": 0.8}
COST = {"accuracy_when_confident": None, "wrong_when_served": 0.05, "by_cost": True}
LOOKS = {"looks": 3, "accuracy_when_confident": 0.88}


def forged(certificate, **changes):
    """The certificate with another statement about a slice that passed."""
    name = certified_parts(certificate)[0].slice
    return replace(certificate, slices=tuple(replace(s, **changes) if s.slice == name else s for s in certificate.slices))


@pytest.mark.parametrize("dial", [ALL, COST, LOOKS], ids=["all", "cost", "looks"])
def test_a_joint_certificate_follows_from_its_counts_and_says_how_it_was_made(world, dial) -> None:
    """It is certified, recomputes without a difference, covers itself, and words name the way."""
    report = world.report(plan_more=dial)
    assert certified_parts(report.certificate)
    assert differences(report.certificate) == ()
    assert report_differences(report) == ()
    assert walk_words(report.certificate)
    assert "certificate of correctness" in other_words(report)
    assert report.outlook.more[0].keep > 0


@pytest.mark.parametrize("changes", [
    {"upper": 0.0001}, {"threshold": -0.5}, {"wrong": 0, "kept": 1}, {"delta": 0.2}, {"verdict": "undecided"}, {"passed_at": 2},
    {"counts": ((5, 4),)}, {"alpha": 0.001}, {"earlier": (LookCounts(n=9, counts=((0, 1),)),)},
])  # fmt: skip
@pytest.mark.parametrize("dial", [ALL, COST, LOOKS], ids=["all", "cost", "looks"])
def test_an_edited_joint_certificate_is_found(world, dial, changes) -> None:
    """Each figure edited by hand alone is a difference."""
    assert differences(forged(world.report(plan_more=dial).certificate, **changes))


def test_all_slices_have_the_whole_budget_or_nothing_is_kept(world) -> None:
    """One slice over its bar holds up the others; a partial ship keeps the rest."""
    report = world.report(plan_more=ALL)
    assert {s.delta for s in report.certificate.slices} == {report.certificate.delta_spent}
    assert len({s.threshold is None for s in report.certificate.slices}) == 1
    bad = {"small": {"error": 0.6}, "large": {"error": 0.5, "sharp": 1.0}}
    nothing = world.report(plan_more=ALL, candidates=bad, n=300).certificate
    assert certified_parts(nothing) == []
    assert differences(nothing) == ()


@pytest.mark.parametrize("look", [1, 2, 3])
def test_bars_and_paired_tests_get_the_part_of_the_budget_that_belongs_to_the_look(world, look) -> None:
    """Judged anew at each look, so the deltas of all looks sum to that of the use."""
    report = world.report(plan_more=LOOKS, look=look)
    whole = next(c for c in report.candidates if c.name == report.chosen).slices[0]
    assert whole.served_fidelity.delta == pytest.approx(report.certificate.delta_spent * look_shares(3)[look - 1])
    assert report.noninferiority.delta == whole.served_accuracy.delta
    assert report.certificate.look == look


def test_what_passed_at_an_early_look_stays_passed(world) -> None:
    """A later look at which the counts got worse keeps the threshold, with the bound of the look at which it passed."""
    first = world.report(plan_more=LOOKS).certificate
    earlier = {s.slice: (LookCounts(n=s.n, counts=s.counts),) for s in first.slices}
    worse = tuple(
        replace(s, earlier=earlier[s.slice], n=2 * s.n, counts=tuple((w + k // 2, 2 * k) for w, k in s.counts)) for s in first.slices
    )
    now = settle(worse, Walk(moved="alone", budget=False, delta=first.delta_spent, looks=3))
    for old, new in zip(first.slices, now, strict=True):
        assert (new.threshold, new.wrong, new.kept, new.upper, new.passed_at) == (old.threshold, old.wrong, old.kept, old.upper, 1)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([60, 300, 900]), st.floats(0.05, 1.5))
def test_settling_from_counts_is_what_the_proven_certifiers_give(seed, n, slope) -> None:
    """All or none equals `certify_path`, one budget equals `certify_budget`, on the same rows."""
    rng = np.random.default_rng(seed)
    scores, cell = rng.beta(6, 1, n), rng.integers(0, 2, n)
    wrong = rng.random(n) < np.clip(slope * (1 - scores), 0, 1)
    cells = {"a": cell == 0, "b": cell == 1}
    plans = plan_all(scores, wrong, cells, alpha=0.05, factor=1.0)
    fresh = rng.beta(6, 1, n)
    bad = rng.random(n) < np.clip(slope * (1 - fresh), 0, 1)
    path = path_of(plans)
    parts = [opened(p, counts_on(path, p.slice, fresh[cells[p.slice]], bad[cells[p.slice]]), int(cells[p.slice].sum()), ()) for p in plans]
    found = settle(parts, Walk(moved="all", budget=False, delta=0.05, looks=1))
    rows = {p.slice: cells[p.slice] for p in plans}
    asked = certify_path(path, {k: fresh[m] for k, m in rows.items()}, {k: bad[m] for k, m in rows.items()},
                         alphas=dict.fromkeys(rows, 0.05), delta=0.05)  # fmt: skip
    key = ("threshold", "kept", "wrong", "upper", "verdict", "delta", "rows_needed")
    assert [[getattr(s, k) for k in key] for s in found] == [[getattr(s, k) for k in key] for s in asked.slices]
    grid = (0.95, 0.8, -1.0)
    plan = SlicePlan(slice="other", alpha=0.05, weight=1.0, grid=grid, start=0, dev_n=n, dev_keep=0.1, dev_error=0.0)
    one = settle([opened(plan, grid_counts(fresh, bad, grid), n, ())], Walk(moved="alone", budget=True, delta=0.05, looks=1))[0]
    same = certify_budget(fresh, bad, grid, budget=0.05, delta=0.05)
    assert (one.threshold, one.kept, one.wrong, one.verdict) == (same.threshold, same.kept, same.wrong, same.verdict)
