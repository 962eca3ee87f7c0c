"""Evidence for every row of the gate's table, good, bad and lacking; what is said of each is in gate_words.json."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from tests.steps.test_gate import FAILING, MISSING, weak, with_data, with_report, with_slice

from overproof.data import Committee, Member, SliceShare
from overproof.evidence import (
    Case,
    Challenge,
    Compression,
    Curve,
    Duel,
    Expected,
    Rung,
    Seeds,
    Size,
    Sizes,
    Sizing,
)
from overproof.evidence.probes import CaseResult, GreedyDuel, ProbeCell, ProbeReport
from overproof.evidence.records import Estimate, WrittenBar, WrittenReport
from overproof.measure.disparity import amplification, rate_ratio
from overproof.measure.groups import GroupCount, flip_certificate, inherited_or_introduced
from overproof.measure.intervals import figure, judge
from overproof.measure.paired import noninferiority
from overproof.measure.text_judge import judged_share
from overproof.steps.checks.table import WatchPlan
from overproof.steps.collect import Evidence
from overproof.steps.disparities import DisparityBars, NamedAmplification, NamedRatio
from overproof.steps.flips import FlipReport, SwapResult
from overproof.steps.groups import AttributeGaps, GroupReport
from overproof.steps.register import Mistake, Register, Share
from overproof.task import Bar

Change = Callable[[Evidence], Evidence]


@dataclass(frozen=True, kw_only=True)
class GateCase:
    """One piece of evidence, and what the gate has to make of it."""

    check: str
    outcomes: tuple[str, ...]
    """Of all findings of the check, in the order in which they stand."""
    change: Change = lambda e: e
    asked: dict = field(default_factory=dict)


def case(check: str, outcomes: str, change: Change = lambda e: e, **asked) -> GateCase:
    return GateCase(check=check, outcomes=tuple(outcomes.split()), change=change, asked=asked)


def put(**more) -> Change:
    return lambda e: replace(e, **more)


def data(**more) -> Change:
    return lambda e: with_data(e, **more)


def report(**more) -> Change:
    return lambda e: with_report(e, **more)


def certificate(**more) -> Change:
    return lambda e: with_report(e, certificate=replace(e.report.certificate, **more))


def clearance(**more) -> Change:
    return lambda e: with_data(e, clearance=replace(e.data.clearance, **more))


def where(name, **more) -> Change:
    return lambda e: with_slice(e, name, **more)


def chosen(**more) -> Change:
    """The chosen candidate with something else."""
    return lambda e: with_report(e, candidates=tuple(replace(c, **more) if c.name == e.report.chosen else c for c in e.report.candidates))


def of_teacher(**more) -> Change:
    return lambda e: with_report(e, candidates=tuple(replace(c, **more) if c.kind == "teacher" else c for c in e.report.candidates))


def both(*changes: Change) -> Change:
    return lambda e: functools.reduce(lambda found, one: one(found), changes, e)


def parts(change: Callable) -> Change:
    """Every slice of the certificate with something else."""
    return lambda e: certificate(slices=tuple(change(s) for s in e.report.certificate.slices))(e)


def routed(e: Evidence) -> Evidence:
    """Every slice of the certificate is the student's, at six requests in ten."""
    return parts(lambda s: replace(s, threshold=s.threshold or 0.9, keep_share=replace(s.keep_share, value=0.6)))(e)


def nobody_kept(s):
    return replace(s, threshold=None, kept=0, wrong=0, upper=1.0, verdict="undecided", rows_needed=140)


# Certificates that say nothing beyond their counts: one slice, ten points wide.
def of_one(wrong: int, kept: int, n: int, *, alpha=0.05, supports="G1", **more) -> Change:
    from overproof.evidence import SlicePlan
    from overproof.measure.certify import certify_budget, certify_slices

    scores, bad = [0.9] * kept + [0.1] * (n - kept), [i < wrong for i in range(n)]
    plan = SlicePlan(slice="other", alpha=alpha, weight=1.0, grid=(0.5, -1.0), start=0, dev_n=200, dev_keep=0.5, dev_error=0.01)

    def changed(e: Evidence) -> Evidence:
        delta = e.report.certificate.delta_spent
        part = certify_slices([plan], {"other": scores}, {"other": bad}, delta)[0]
        if supports == "G2":
            found = certify_budget(scores, bad, plan.grid, budget=alpha, delta=delta)
            part = replace(part, threshold=found.threshold, kept=found.kept, wrong=found.wrong, upper=found.upper, verdict=found.verdict,
                           keep_share=found.keep_share, delta=delta)  # fmt: skip
        return both(certificate(slices=(part,), supports=supports, **more), report(other=None, truth_note=""))(e)

    return changed


def member(e: Evidence, name="second", **more) -> Member:
    pin = replace(e.data.pin, model="other-2026")
    made = {"name": name, "pin": pin, "clearance": replace(e.data.clearance, pin=pin), "arbiter": False, "answered": 10, "agreed": 9, "spent_usd": 1.0}
    return Member(**(made | more))


def committee(models=None, **more) -> Change:
    def changed(e: Evidence) -> Evidence:
        one = member(e)
        if more:
            one = replace(one, clearance=replace(one.clearance, **more))
        sat = Committee(rule="majority", members=(one,), rows=10, unanimous=9, tied=0, arbitrated=0, overruled=1)
        return with_data(e, committee=sat, models=models or {e.data.pin.model: 3_000, "other-2026": 3_000})

    return changed


def committee_of(*names: str) -> Change:
    def changed(e: Evidence) -> Evidence:
        members = tuple(member(e, name, pin=replace(e.data.pin, model=name), clearance=replace(e.data.clearance, pin=replace(e.data.pin, model=name))) for name in names)
        sat = Committee(rule="majority", members=members, rows=10, unanimous=9, tied=0, arbitrated=0, overruled=1)
        return with_data(e, committee=sat, models={e.data.pin.model: 10, **dict.fromkeys(names, 5)})

    return changed


# What the rows of ASKED read.
def gaps(*counts: GroupCount, tolerance=0.1, absent=(), more=None) -> GroupReport:
    if not counts:
        one = AttributeGaps(attribute="lang", n=10, n_gold=0, error=None, fallback=None, differ=None, selected=(), absent=("de", "en"), verdict="undecided")
    else:
        names = [one.name for one in counts for _ in range(one.n)]
        wrong = [i < one.k for one in counts for i in range(one.n)]
        error = inherited_or_introduced(names, wrong, [False] * len(names), tolerance=tolerance, d=0.05)
        one = AttributeGaps(attribute="lang", n=10, n_gold=10, error=error, fallback=None, differ=None, selected=(), absent=absent,
                            verdict=error.student.verdict, rows_needed=more)  # fmt: skip
    return GroupReport(attributes=(one,), tolerance=tolerance, judged=True, delta=0.05, candidate="large")


def group(name: str, k: int, n: int = 1_000) -> GroupCount:
    return GroupCount(name=name, k=k, n=n)


RATIOS, BEYOND = DisparityBars(error=0.5), DisparityBars(amplified=0.05)


def ratio(*counts: GroupCount) -> Change:
    """Groups of which so many are served wrong."""
    told = gaps(*counts)
    found = NamedRatio(kind="error", label="", judged=True, found=rate_ratio(counts, bar=0.5, d=0.05))
    return put(groups=replace(told, bars=RATIOS, attributes=(replace(told.attributes[0], ratios=(found,)),)))


def beyond(n: int, wrong: int, theirs: int = 0) -> Change:
    """Two groups of n; the student is wrong so often on the second, the teacher as often as it is."""
    names, none = ["de"] * n + ["en"] * n, [False] * n
    found = amplification(names, none + [i < wrong for i in range(n)], none + [i < theirs for i in range(n)], bar=0.05, d=0.05)
    told = gaps(group("de", 20), group("en", 22))
    one = NamedAmplification(kind="error", label="", judged=True, absent=(), found=found)
    return put(groups=replace(told, bars=BEYOND, attributes=(replace(told.attributes[0], amplified=(one,)),)))


def dueled(worse: int, better: int, n: int) -> Change:
    """The greedy attack on the challenger and on the serving release, on the same rows."""
    one = GreedyDuel(release="r0", slice="all", n=n, champion=figure(better, n, metric="t"), challenger=figure(worse, n, metric="t"),
                     worse=worse, better=better, low=-0.01, high=0.01)  # fmt: skip
    return probes(duels=(one,))


def swapped(changed: int, pairs: int, *, placebo=None, at_most=0.01) -> FlipReport:
    control = None if placebo is None else [i < placebo for i in range(pairs)]
    found = flip_certificate([i < changed for i in range(pairs)], bar=at_most, d=0.05, placebo=control)
    one = SwapResult(name="names", pairs=pairs, in_place=pairs, changed=changed, rerouted=0, to_teacher=0, cautious=found, certain=found,
                     against_teacher=None, verdict=found.verdict)  # fmt: skip
    return FlipReport(lists=(one,), at_most=at_most, delta=0.05)


def field_bars(*found: tuple[float | None, float, float, str]) -> Change:
    bars = tuple(
        WrittenBar(metric=f"fields.{i}", bar=0.9, delta=0.05, verdict=verdict,
                   estimate=Estimate(metric=f"fields.{i}", value=value, low=low, high=high, level=0.95, method="m", n=1_200))
        for i, (value, low, high, verdict) in enumerate(found)
    )  # fmt: skip
    return report(written=WrittenReport(scores=(), judged=bars))


def judges(right: int, wrong: int, unknown: int = 0):
    """A judge that is right on all that people looked at."""
    return judged_share([True] * right + [False] * wrong + [True] * unknown, [True] * right + [False] * wrong + [None] * unknown)


def duel(verdict: str, b: int, c: int, *, name="all", asked="not worse", needed=None) -> Duel:
    n = 800
    return Duel(rows="sealed", slice=name, critical=True, asked=asked, champion=figure(700 - c, n, metric="right"), challenger=figure(700 - b, n, metric="right"),
                b=b, c=c, n=n, low=-0.01, high=0.01, margin=0.02, p=noninferiority(b, c, n, margin=0.02, d=0.05).p, delta=0.05, verdict=verdict,
                rows_needed=needed, champion_kept=500, challenger_kept=510, method="sign test")  # fmt: skip


def challenge(*duels: Duel) -> Change:
    return put(challenge=Challenge(champion="r-1", label_kind="gold", duels=duels))


def sizes(chosen="large", **small) -> Sizing:
    rows = (Expected(**({"name": "small", "size_bytes": 1, "kept": 0.6, "cost": 0.45, "bill": 1.0, "clears": True} | small)),
            Expected(name="large", size_bytes=100, kept=0.6, cost=0.4, bill=1.0, clears=True))  # fmt: skip
    nothing = figure(0, 0, metric="error")
    curve = Curve(gains=(), band=(), level=0.9, n=0, draws=0, method="")
    seeds = Seeds(errors=(0.1, 0.1), kept=(0.5, 0.6), error_sd=0.0, kept_sd=0.02, random=True)
    made = tuple(Size(name=e.name, use=e.name, size_bytes=e.size_bytes, parameters=1, budgets=(), curve=curve, train_error=nothing, contested=nothing, seeds=seeds) for e in rows)
    return Sizing(sizes=Sizes(sizes=made, pairs=(), n=500), students=(), expected=rows, chosen=chosen, smallest="small", headline="Large is the smallest.", next_candidate="")


def rung(state: str) -> Compression:
    one = Rung(name="large", size_bytes=10, right=figure(20, 40, metric="right"), state=state, lost_to="huge", lost=0.3, low=0.1, high=0.5)
    return Compression(cases=(Case(name="business", kind="critical", n=40, rungs=(one,), breaks_at="large" if state == "broken" else ""),), n=400, loss=0.05, level=0.95)


UNSHOWN = where("business", served_accuracy=None, served_fidelity=None)


def register(right: int, n: int) -> Register:
    return Register(every=Share(right=right, n=n, kept_wrong=1), unseen=Share(right=0, n=0, kept_wrong=0),
                    mistakes=(Mistake(said="bug", true="refund", right=right, n=n),), rows=tuple(f"r{i}" for i in range(n)), repeated=n - right)  # fmt: skip


def cell(kind: str, probe: str, *, flipped=0, through=0, confident=0, worse=0, n=1_000) -> ProbeCell:
    seen = {name: figure(k, n, metric=name) for name, k in (("clean", n), ("right", n - worse), ("flipped", flipped), ("broken", worse), ("through", through), ("confident", confident))}
    return ProbeCell(probe=probe, kind=kind, shape="must not change", slice="all", critical=True, n=n, worse=worse, better=0, routed_before=0, routed=0,
                     newly_routed=0, no_longer_routed=0, steady=0, into="", teacher=None, **seen)  # fmt: skip


def probes(*cells: ProbeCell, cases=(), **more) -> Change:
    return put(probes=ProbeReport(**({"rows": 1_000, "truth": "gold", "cells": cells, "cases": tuple(cases)} | more)))


NOISE = ("noise", "unicode", "wrap", "pad")
NOISY = {"noise": "typo.v1", "unicode": "nfkd.v1", "wrap": "json.v1", "pad": "story.v1", "inject": "base64.v1", "stuff": "stuff_one.v1", "scope": "garbage.v1"}


def named(kind: str, wrong: int) -> CaseResult:
    return CaseResult(name="smoke", kind=kind, n=12, wrong=wrong, served_wrong=wrong, routed=3, inherited=wrong)


def asked_of(check: str) -> dict:
    return {"probes": (check,)}


IN_ALL = (cell(kind, NOISY[kind]) for kind in NOISE)
ASKED_CASES: dict[str, GateCase] = {
    "F01-alike": case("F01", "pass", put(groups=gaps(group("de", 20), group("en", 22))), gap_at_most=0.1),
    "F01-apart": case("F01", "fail", put(groups=gaps(group("de", 300), group("en", 20))), gap_at_most=0.1),
    "F01-few": case("F01", "not-run", put(groups=gaps(group("de", 3, 20), group("en", 1, 20), more=900)), gap_at_most=0.1),
    "F01-no-gold": case("F01", "not-run", put(groups=gaps()), gap_at_most=0.1),
    "F01-nothing": case("F01", "not-run", gap_at_most=0.1),
    "F01-another-tolerance": case("F01", "not-run", put(groups=gaps(group("de", 20), group("en", 22), tolerance=0.2)), gap_at_most=0.1),
    "F01-not-judged": case("F01", "not-run", put(groups=replace(gaps(group("de", 20), group("en", 22)), judged=False)), gap_at_most=0.1),
    "F02-steady": case("F02", "pass", put(flips=swapped(0, 1_000)), swaps=True),
    "F02-turns": case("F02", "fail", put(flips=swapped(100, 1_000, placebo=5)), swaps=True),
    "F02-few": case("F02", "not-run", put(flips=swapped(0, 100)), swaps=True),
    "F02-nothing": case("F02", "not-run", swaps=True),
    "F03-alike": case("F03", "pass", ratio(group("de", 500), group("en", 520)), disparity=RATIOS),
    "F03-apart": case("F03", "fail", ratio(group("de", 300), group("en", 20)), disparity=RATIOS),
    "F03-few": case("F03", "not-run", ratio(group("de", 3, 20), group("en", 4, 20)), disparity=RATIOS),
    "F03-other-bars": case("F03", "not-run", put(groups=gaps(group("de", 20), group("en", 22))), disparity=RATIOS),
    "F03-nothing": case("F03", "not-run", disparity=RATIOS),
    "F04-inherited": case("F04", "pass", beyond(2_000, 300, 300), disparity=BEYOND),
    "F04-added": case("F04", "fail", beyond(2_000, 300), disparity=BEYOND),
    "F04-few": case("F04", "not-run", beyond(20, 2), disparity=BEYOND),
    "F04-other-bars": case("F04", "not-run", put(groups=gaps(group("de", 20), group("en", 22))), disparity=BEYOND),
    "F04-nothing": case("F04", "not-run", swaps=True, disparity=BEYOND),
    "R01-three": case("R01", "fail not-run pass", field_bars((0.95, 0.93, 0.97, "pass"), (0.5, 0.47, 0.53, "fail"), (0.9, 0.88, 0.92, "undecided")), written=True),
    "R01-nobody": case("R01", "not-run", field_bars((None, 0.0, 1.0, "undecided")), written=True),
    "R01-nothing": case("R01", "not-run", written=True),
    "R01-no-report": case("R01", "not-run", put(report=None), written=True),
    "R02-right": case("R02", "pass", put(judged=judges(380, 20, 400)), judged=Bar(metric="text", at_least=0.9)),
    "R02-wrong": case("R02", "fail", put(judged=judges(200, 200)), judged=Bar(metric="text", at_least=0.9)),
    "R02-few": case("R02", "not-run", put(judged=judges(8, 2, 90)), judged=Bar(metric="text", at_least=0.9)),
    "R02-nothing": case("R02", "not-run", judged=Bar(metric="text", at_least=0.9)),
    "C01-holds": case("C01", "pass", challenge(duel("pass", 2, 9)), challenged=True),
    "C01-worse": case("C01", "fail", challenge(duel("pass", 2, 9), duel("fail", 40, 1, name="vip")), challenged=True),
    "C01-open": case("C01", "not-run", challenge(duel("undecided", 5, 5, name="vip", needed=700)), challenged=True),
    "C01-nothing": case("C01", "not-run", challenged=True),
    "S01-needed": case("S01", "pass", put(sizing=sizes()), sizing=True),
    "S01-smaller-ties": case("S01", "fail", put(sizing=sizes(cost=0.4)), sizing=True),
    "S01-gone": case("S01", "not-run", put(sizing=sizes(chosen="gone")), sizing=True),
    "S01-nothing": case("S01", "not-run", sizing=True),
    "S02-whole": case("S02", "pass", put(compression=rung("whole")), cases=True),
    "S02-breaks": case("S02", "fail", both(put(compression=rung("broken")), UNSHOWN), cases=True),
    "S02-caught": case("S02", "pass", put(compression=rung("broken")), cases=True),
    "S02-open": case("S02", "not-run", both(put(compression=rung("can't tell")), UNSHOWN), cases=True),
    "S02-nothing": case("S02", "not-run", cases=True),
    "W01-learned": case("W01", "pass", put(register=register(18, 20)), weaknesses=True),
    "W01-kept": case("W01", "fail", put(register=register(2, 20)), weaknesses=True),
    "W01-few": case("W01", "not-run", put(register=register(3, 4)), weaknesses=True),
    "W01-loosely": case("W01", "not-run", put(register=register(12, 20)), weaknesses=True),
    "W01-low-bar": case("W01", "pass", put(register=register(12, 20)), weaknesses=True, weaknesses_right=0.3),
    "W01-nothing": case("W01", "not-run", weaknesses=True),
    "P01-steady": case("P01", "pass pass pass pass", probes(*IN_ALL), **asked_of("P01")),
    "P01-spelling": case("P01", "fail not-run not-run not-run", probes(cell("noise", "typo.v1", flipped=200, worse=150)), **asked_of("P01")),
    "P01-nothing": case("P01", "not-run", **asked_of("P01")),
    "P02-safe": case("P02", "pass pass", probes(cell("inject", "base64.v1"), cell("stuff", "stuff_one.v1")), **asked_of("P02")),
    "P02-stuffed": case("P02", "fail pass", probes(cell("inject", "base64.v1"), cell("stuff", "stuff_one.v1", through=400, worse=400)), **asked_of("P02")),
    "P02-nothing": case("P02", "not-run", **asked_of("P02")),
    "P03-silent": case("P03", "pass pass", probes(cell("scope", "garbage.v1"), empty=20), **asked_of("P03")),
    "P03-answers": case("P03", "fail fail", probes(cell("scope", "garbage.v1", confident=900), empty=20, empty_answered=3), **asked_of("P03")),
    "P03-nothing": case("P03", "not-run", **asked_of("P03")),
    "P04-right": case("P04", "pass", probes(cases=[named("case", 0)]), **asked_of("P04")),
    "P04-wrong": case("P04", "fail", probes(cases=[named("case", 2)]), **asked_of("P04")),
    "P04-nothing": case("P04", "not-run", probes(), **asked_of("P04")),
    "P05-gone": case("P05", "pass", probes(cases=[named("weakness", 0)]), **asked_of("P05")),
    "P05-there": case("P05", "fail", probes(cases=[named("weakness", 2), named("case", 0)]), **asked_of("P05")),
    "P05-nothing": case("P05", "not-run", **asked_of("P05")),
    "P06-no-further": case("P06", "pass", dueled(1, 1, 400), **asked_of("P06")),
    "P06-further": case("P06", "fail", dueled(60, 2, 400), **asked_of("P06")),
    "P06-few": case("P06", "not-run", dueled(1, 1, 20), **asked_of("P06")),
    "P06-nothing": case("P06", "not-run", **asked_of("P06")),
    "G14-straight-to-callers": case("G14", "fail", stage="canary"),
    "G18-redacted": case("G18", "pass", distribution="hosted"),
    "G18-as-it-came": case("G18", "fail", distribution="hosted", redacted=False),
}  # fmt: skip
"""Of `gate.ASKED`."""


def without(kind: str) -> Change:
    return lambda e: with_report(e, candidates=tuple(c for c in e.report.candidates if c.kind != kind))


def only(name: str) -> Change:
    return lambda e: put(trained=tuple(t for t in e.trained if t.kind == "baseline" or t.name == name))(e)


def watch(**more) -> dict:
    return {"watch": WatchPlan(**more)}


def labelled(good: int, n: int, bar: float = 0.9, **more):
    return replace(weak("safety", good, n), critical=True, teacher_accuracy=judge(good, n, bar, 0.05), **more)


def with_label(one) -> Change:
    return lambda e: chosen(slices=(*next(c for c in e.report.candidates if c.name == e.report.chosen).slices, one))(e)


def share(verdict: str, **more) -> SliceShare:
    return SliceShare(**({"slice": "vip", "ratio": 0.4, "low": 0.3, "high": 0.5, "verdict": verdict, "n_set": 40, "n_live": 900} | more))


def sealed_uses(k: int) -> Change:
    return certificate(use_k=k)


def segment(**more) -> Change:
    return lambda e: with_data(e, match=(replace(e.data.match[0], **more), *e.data.match[1:]))


def broken_bundle(e: Evidence) -> Evidence:
    return replace(e, bundle=replace(e.bundle, path=e.bundle.path / "nowhere"))


EDGES: dict[str, GateCase] = {
    "G01-last-day": case("G01", "pass", today="2026-05-03"),
    "G01-no-end": case("G01", "pass", clearance(expires=None)),
    "G01-two-faults": case("G01", "fail", data(clearance_id="x" * 20), today="2026-05-04"),
    "G01-committee": case("G01", "pass", committee()),
    "G01-committee-other-pin": case("G01", "fail", lambda e: committee(pin=e.data.pin)(e)),
    "G01-committee-ran-out": case("G01", "fail", committee(expires="2026-02-09")),
    "G01-committee-last-day": case("G01", "pass", committee(expires="2026-02-10")),
    "G01-committee-no-end": case("G01", "pass", committee(expires=None)),
    "G02-committee": case("G02", "pass", committee()),
    "G02-one-of-a-committee": case("G02", "pass", committee(models={"other-2026": 5})),
    "G02-stranger-in-a-committee": case("G02", "fail", committee(models={"stranger": 1_500, "other-2026": 5})),
    "G02-another-model": case("G02", "fail", data(models={"big-mini": 1})),
    "G03-two-leaks": case("G03", "fail", data(leaks={"exact": 0, "session": 3, "near-duplicate": 1_200})),
    "G03-last-use": case("G03", "pass", sealed_uses(3)),
    "G03-second-use": case("G03", "pass", sealed_uses(2)),
    "G03-no-report": case("G03", "not-run", put(report=None)),
    "G04-just-near": case("G04", "pass", data(distance=0.1)),
    "G04-just-far": case("G04", "fail", data(distance=0.1001)),
    "G04-rare-segment-absent": case("G04", "pass", segment(n_set=0, live_share=0.0099)),
    "G04-segment-absent": case("G04", "fail", segment(n_set=0, live_share=0.01)),
    "G04-one-row-will-do": case("G04", "pass", segment(n_set=1)),
    "G04-two-segments-absent": case("G04", "fail", lambda e: with_data(e, match=tuple(replace(m, n_set=0) if m.value != "plus" else m for m in e.data.match))),
    "G04-share-undecided": case("G04", "pass", data(shares=(share("undecided"), share("pass")))),
    "G04-two-shares": case("G04", "fail fail pass", data(shares=(share("fail"), share("fail", slice="new", high=None)))),
    "G05-no-rows": case("G05", "not-run", where("all", teacher_accuracy=figure(0, 0, metric="accuracy"))),
    "G05-just-right": case("G05", "pass", where("all", teacher_accuracy=replace(figure(95, 100, metric="accuracy"), low=0.9))),
    "G05-undecided": case("G05", "not-run", where("all", teacher_accuracy=figure(90, 100, metric="accuracy"))),
    "G05-at-the-bar-from-below": case("G05", "not-run", where("all", teacher_accuracy=replace(figure(80, 100, metric="accuracy"), high=0.9))),
    "G05-half": case("G05", "not-run pass", report(weak_labels=(replace(weak("bug", 5, 40), teacher_accuracy=replace(figure(5, 40, metric="accuracy"), high=0.5)),))),
    "G05-labels": case("G05", "fail not-run pass", report(weak_labels=(
        replace(weak("none", 1, 9), teacher_accuracy=None), replace(weak("empty", 1, 9), teacher_accuracy=figure(0, 0, metric="accuracy")),
        weak("refund", 5, 40), weak("four", 1, 4), weak("five", 2, 5), weak("ten", 4, 10)))),
    "G05-critical-label-right": case("G05", "pass pass", with_label(labelled(60, 60))),
    "G05-critical-label-open": case("G05", "not-run pass", with_label(labelled(56, 60))),
    "G05-label-without-bar": case("G05", "pass", with_label(replace(labelled(30, 60), teacher_accuracy=figure(30, 60, metric="accuracy")))),
    "G05-label-not-critical": case("G05", "pass", with_label(replace(labelled(30, 60), critical=False))),
    "G05-label-unknown": case("G05", "pass", with_label(replace(labelled(30, 60), teacher_accuracy=None))),
    "G05-critical-slice": case("G05", "pass", with_label(replace(labelled(30, 60), kind="slice"))),
    "G06-no-teacher": case("G06", "not-run", without("teacher")),
    "G06-price-unknown": case("G06", "pass", of_teacher(cost_usd_per_1000=0.0)),
    "G06-price-unknown-and-cheaper": case("G06", "fail", both(of_teacher(cost_usd_per_1000=0.0), report(cheaper="majority"))),
    "G06-no-volume": case("G06", "pass", put(requests_per_month=None)),
    "G06-as-dear": case("G06", "fail", both(where("all", kept=figure(0, 100, metric="kept")), chosen(cost_usd_per_1000=0.0))),
    "G06-much-traffic": case("G06", "pass", put(requests_per_month=12_345_678.0)),
    "G07-one-size": case("G07", "not-run", lambda e: put(trained=tuple(replace(t, size_bytes=9) for t in e.trained))(e)),
    "G07-none": case("G07", "not-run", put(trained=())),
    "G07-baselines-are-no-sizes": case("G07", "not-run", only("large")),
    "G08-no-bars": case("G08", "pass", lambda e: chosen(slices=tuple(replace(s, served_accuracy=None, served_fidelity=None) for s in next(c for c in e.report.candidates if c.name == e.report.chosen).slices))(e)),
    "G08-no-bar-on-a-figure": case("G08", "pass", lambda e: chosen(slices=tuple(replace(s, served_accuracy=figure(9, 10, metric="accuracy"), served_fidelity=figure(9, 10, metric="fidelity")) for s in next(c for c in e.report.candidates if c.name == e.report.chosen).slices))(e)),
    "G08-undecided": case("G08", "not-run pass pass", where("business", served_fidelity=judge(93, 100, 0.9, 0.05, metric="fidelity"))),
    "G08-undecided-whole": case("G08", "not-run pass pass", where("all", served_accuracy=replace(judge(93, 100, 0.9, 0.05), rows_needed=None))),
    "G09-undecided": case("G09", "not-run", where("all", served_fidelity=judge(93, 100, 0.9, 0.05, metric="fidelity"))),
    "G09-no-bar": case("G09", "not-run", where("all", served_fidelity=figure(93, 100, metric="fidelity"))),
    "G10-last-day": case("G10", "pass", today="2126-06-01"),
    "G10-nothing-kept": case("G10", "not-run", of_one(0, 5, 20)),
    "G10-nothing-kept-budget": case("G10", "not-run", of_one(1, 5, 20, supports="G2")),
    "G10-wrong": case("G10", "fail", of_one(300, 500, 600)),
    "G10-one-slice": case("G10", "pass", of_one(2, 300, 600)),
    "G10-budget": case("G10", "pass", of_one(2, 300, 600, supports="G2")),
    "G10-advice": case("G10", "pass", chosen(ece_test=0.1201), ece_at_most=0.12),
    "G10-no-advice": case("G10", "pass", chosen(ece_test=0.12), ece_at_most=0.12),
    "G10-no-ece": case("G10", "pass", chosen(ece_test=None), ece_at_most=0.12),
    "G22-gone": case("G22", "fail", broken_bundle),
    "G22-other-student": case("G22", "fail", report(chosen="small")),
    "G22-other-end": case("G22", "fail", certificate(expires="2126-06-02")),
    "G22-other-threshold": case("G22", "fail", parts(lambda s: replace(s, threshold=0.123 if s.threshold is not None else None))),
    "G22-no-report": case("G22", "not-run", put(report=None)),
    "G16-none-named": case("G16", "fail", **watch(redistil_on=())),
    "G16-two-blind": case("G16", "pass", **watch(redistil_on=("teacher_changed", "teacher_ends", "bar"), canaries=False)),
    "G16-canaries": case("G16", "pass", **watch(redistil_on=("teacher_changed",), drift=("shares",))),
    "G16-no-plan": case("G16", "not-run", watch=None),
    "G17-week": case("G17", "pass", review_every_days=7),
    "G17-half-a-year": case("G17", "pass", review_every_days=180),
    "G17-six-days": case("G17", "fail", review_every_days=6),
    "G17-a-day-more": case("G17", "fail", review_every_days=181),
    "G17-spaces": case("G17", "fail", owner="Dana Ruiz ", deputy=" DANA RUIZ"),
    "M01-no-plan": case("M01", "not-run", watch=None),
    "M01-no-requests": case("M01", "not-run", put(requests_per_month=0.0)),
    "M01-routed": case("M01", "pass pass", routed),
    "M01-not-critical": case("M01", "pass", both(routed, where("business", critical=False))),
    "M01-nothing-kept": case("M01", "not-run", parts(nobody_kept)),
    "M01-few-requests": case("M01", "fail fail", both(routed, put(requests_per_month=300.0))),
    "M01-short-review": case("M01", "fail fail", routed, review_every_days=7),
    "M01-eight-days": case("M01", "pass pass", routed, review_every_days=8, breaks_from=0.4),
    "M01-fine-breaks": case("M01", "pass pass", routed, breaks_from=0.05),
    "M01-high-bar": case("M01", "fail fail", both(routed, parts(lambda s: replace(s, alpha=0.6))), watch=WatchPlan(overall_bar=0.7, audits_per_day=2)),
    "M01-capped": case("M01", "pass pass", routed, **watch(audits_per_day=20)),
    "M01-capped-low": case("M01", "fail fail", routed, **watch(audits_per_day=1)),
    "M01-money": case("M01", "fail pass", routed, **watch(usd_per_month=0.2)),
    "M01-people": case("M01", "pass pass", routed, **watch(ask="person", usd_per_month=0.01)),
    "M01-both": case("M01", "pass pass", routed, **watch(ask="both")),
    "M01-both-gold": case("M01", "pass pass", both(routed, certificate(label_kind="gold")), **watch(ask="both")),
    "M01-gold": case("M01", "pass pass", both(routed, certificate(label_kind="gold"))),
    "M01-gold-people": case("M01", "pass pass", both(routed, certificate(label_kind="gold")), **watch(ask="person")),
    "M01-boosted": case("M01", "pass pass", both(routed, data(boosted={"business": 100}))),
    "M01-even": case("M01", "pass pass", routed, **watch(critical_boost=1.0)),
    "M01-no-floor": case("M01", "pass pass", routed, **watch(floor_per_day=0, audit_rate=0.02)),
    "M01-budget": case("M01", "pass pass", both(routed, certificate(supports="G2"))),
    "M01-free-teacher": case("M01", "pass pass", both(routed, of_teacher(cost_usd_per_1000=0.0)), **watch(usd_per_month=0.01)),
    "M01-no-teacher": case("M01", "pass pass", both(routed, without("teacher")), **watch(usd_per_month=0.01)),
    "M01-careful": case("M01", "pass pass", routed, **watch(false_alarms=0.01)),
    **{f"{check}-no-report": case(check, "not-run", put(report=None)) for check in ("G05", "G06", "G09", "M01", "N01", "N02")},
    "G02-committee-of-three": case("G02", "pass", committee_of("third", "second")),
    "M01-part-of-no-slice": case("M01", "pass pass", both(routed, parts(lambda s: replace(s, slice="rest") if s.slice == "other" else s))),
    "N01-open": case("N01", "not-run", lambda e: with_report(e, noninferiority=replace(e.report.noninferiority, verdict="undecided", rows_needed=90))),
    "N02-open": case("N02", "not-run", lambda e: with_report(e, superiority=replace(e.report.superiority, b=4, c=6, verdict="undecided"))),
    "G21-few": case("G21", "not-run", lambda e: with_data(e, familiar=1, rows={**e.data.rows, "test": 10})),
    "G21-no-sealed-rows": case("G21", "not-run", data(rows={})),
}  # fmt: skip
"""On and beside the limits of each check."""

TABLE: dict[str, GateCase] = {
    **{f"failing {name}": GateCase(check=check, outcomes=("fail",), change=change, asked=asked) for name, (check, change, asked) in FAILING.items()},
    **{f"missing {check}": GateCase(check=check, outcomes=("not-run",), change=change) for check, change in MISSING.items() if change},
    **ASKED_CASES,
    **EDGES,
}
