"""The check of the monitoring plan: whether the audits that are planned could see a broken slice, and how many would."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from overproof.data import ALL
from overproof.evidence import CandidateReport, EvalReport, Finding, SliceCertificate
from overproof.measure.audit_power import Draws, audits_to_see, draws_of, power_to_see, stream_weights
from overproof.measure.monitor import AuditDesign
from overproof.steps.certificates import GOLD
from overproof.steps.checks.table import GateRecipe, WatchPlan, chosen_of, data_of, finding, need
from overproof.steps.collect import DataEvidence, Evidence
from overproof.steps.evaluate import teacher_of

DAYS_OF_A_MONTH = 365.25 / 12
POWER = 0.8
HALF = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampled:
    """One stream of audits as [watch] plans it."""

    slice: str
    """`ALL` for all traffic."""
    bar: float
    """Share of its answers that may be wrong."""
    kept_per_day: float
    """The student's answers."""
    per_day: float
    """Audits."""
    even: float
    """Of how many even ones they are worth."""
    weight: float
    """Of the chance of a false alarm."""


def audits(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    """Each critical slice, and all traffic, is audited often enough that a break is seen before the next review."""
    plan, data = need(recipe.watch, "plan of how the release is watched"), data_of(evidence)
    report, best = need(evidence.report, "evaluation report"), chosen_of(evidence)
    if not evidence.requests_per_month:
        todo = "set [serve] requests_per_month, or import a log with times"
        yield finding("not-run", "nobody knows how many requests there are in a month, so no plan of audits can be judged", todo)
        return
    streams = sampled(plan, report, best, data, requests_per_day=evidence.requests_per_month / DAYS_OF_A_MONTH)
    if not streams:
        yield finding("not-run", "the student answers nothing by itself, so there is nothing to audit", "see the finding on the certified threshold")
    for one in streams:
        yield _audited(one, plan, recipe)


def _audited(one: Sampled, plan: WatchPlan, recipe: GateRecipe) -> Finding:
    days = recipe.review_every_days - plan.deadline_days  # what is younger waits for its word
    name = "all traffic" if one.slice == ALL else f"critical slice {one.slice!r}"
    rate = max(recipe.breaks_from, min(2 * one.bar, (1 + one.bar) / 2))
    what = f"that {rate:.1%} of the answers are wrong where {one.bar:.1%} may be"
    needed = audits_to_see(rate, one.bar, delta=plan.false_alarms, weight=one.weight, power=POWER)
    if days < 1 or needed is None:
        return finding("fail", f"{name}: no number of audits before the next review shows {what}", "set [owner] review_every higher")
    have = int(one.even * days)
    power = power_to_see(have, rate, one.bar, delta=plan.false_alarms, weight=one.weight)
    asked = needed / days * one.per_day / one.even if one.even else 0.0  # as leaning draws
    head = f"{name}: {one.per_day:.1f} audits a day of {one.kept_per_day:,.0f} answers are planned"
    found = f"they see {what} within {days} days with a chance of at least {power:.0%} (n = {have:,})"
    if power >= POWER:
        return replace(finding("pass", f"{head}; {found}; {asked:.1f} a day would do"), n=have, value=power, bound=power, bar=POWER)
    if needed / days <= one.kept_per_day:
        knobs = "audit_rate, floor_per_day or critical_boost; audits_per_day and usd_per_month must admit it"
        todo = f"audit about {max(asked, needed / days):.0f} answers a day there: raise [watch] {knobs}"
    else:
        todo = (
            f"there are not {needed / days:.1f} answers a day to audit: keep {name} with the teacher, review less often, "
            "or raise [gate] breaks_from with a reason"
        )
    reason = f"{head}; {found}, and at least {POWER:.0%} is asked ({needed:,} even audits)"
    return replace(finding("fail", reason, todo), n=have, value=power, bound=power, bar=POWER)


def sampled(
    plan: WatchPlan, report: EvalReport, best: CandidateReport, data: DataEvidence, *, requests_per_day: float
) -> tuple[Sampled, ...]:
    """
    The streams that have to see a break: all traffic, and each critical slice in which the student answers by itself.

    Args:
        plan: [watch].
        report: with the certificate, whose slices the audits are drawn by.
        best: the chosen candidate.
        data: says which sealed rows are beyond a fair draw.
        requests_per_day: over all slices.

    Returns: all traffic first. Where the plan's caps on audits or money are lower than its rates, they are cut alike.
    """
    parts = [part for part in report.certificate.slices if part.threshold is not None]
    critical = {one.slice for one in best.slices if one.critical}
    design = AuditDesign(rate=plan.audit_rate, pi_min=plan.audit_rate / 2, floor_per_day=plan.floor_per_day)
    kept = {part.slice: requests_per_day * share * (part.keep_share.value or 0.0) for part, share in _shares(parts, best, data)}
    draws = {
        name: draws_of(many, design=design, boost=plan.critical_boost if name in critical else 1.0) for name, many in kept.items()
    }
    cut = _admitted(plan, report, sum(one.per_day for one in draws.values()))
    read = _read_by(plan, report) * cut
    weights = stream_weights({part.slice: part.weight for part in parts}, whole=ALL) if parts else {}
    signals = 2 if plan.ask == "both" else 1
    whole = Draws(per_day=sum(one.per_day for one in draws.values()), even=sum(one.even for one in draws.values()))
    bars = {part.slice: _bar(part, plan, report) for part in parts}
    found = [(ALL, plan.overall_bar, sum(kept.values()), whole)] if parts else []
    found += [(name, bars[name], kept[name], draws[name]) for name in kept if name in critical]
    return tuple(
        Sampled(slice=name, bar=bar, kept_per_day=many, per_day=one.per_day * read, even=one.even * read, weight=weights[name] / signals)
        for name, bar, many, one in found
    )


def _shares(parts: list[SliceCertificate], best: CandidateReport, data: DataEvidence) -> Iterator[tuple[SliceCertificate, float]]:
    """Each certified slice's share of the sealed rows of the fair draw; what no slice of the report is takes the rest."""
    fair = {one.slice: max(0, one.n - data.boosted.get(one.slice, 0)) for one in best.slices}
    total = best.slices[0].n - sum(data.boosted.values()) or 1
    left = max(0.0, 1.0 - sum(fair[part.slice] / total for part in parts if part.slice in fair))
    for part in parts:
        yield part, min(1.0, fair[part.slice] / total) if part.slice in fair else left


def _admitted(plan: WatchPlan, report: EvalReport, wanted: float) -> float:
    """The factor that the caps leave of the rates."""
    most, teacher = float(plan.audits_per_day), teacher_of(report)
    if plan.ask != "person" and teacher is not None and teacher.cost_usd_per_1000 > 0:
        most = min(most, plan.usd_per_month / DAYS_OF_A_MONTH / (teacher.cost_usd_per_1000 / 1000))
    return min(1.0, most / wanted) if wanted else 1.0


def _read_by(plan: WatchPlan, report: EvalReport) -> float:
    """The share of the audits that the certificate's own signal gets."""
    if plan.ask != "both":
        return 1.0
    return plan.person_share if report.certificate.label_kind == GOLD else 1.0 - plan.person_share


def _bar(part: SliceCertificate, plan: WatchPlan, report: EvalReport) -> float:
    """The certificate's own bar where the audits ask what it speaks of, else the overall one; a budget is a share of all requests."""
    gold = report.certificate.label_kind == GOLD
    if gold != (plan.ask == "person") and plan.ask != "both":
        return plan.overall_bar
    kept = part.keep_share.value if report.certificate.supports == "G2" else 1.0
    return min(HALF, part.alpha / kept) if kept else part.alpha
