"""Checks of where the labels come from: terms, teacher, splits, prompt set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from overproof.evidence import Figure, Finding
from overproof.evidence.figures import Verdict
from overproof.steps.certificates import fresh_draw, uses_of
from overproof.steps.checks.table import GateRecipe, chosen_of, data_of, finding, judged, need
from overproof.steps.clear import shortfalls
from overproof.steps.collect import DataEvidence, Evidence
from overproof.steps.headlines import said
from overproof.steps.match_checks import off_share, theatre

HALF = 0.5
DECIDABLE_N = 5  # with fewer rows even all right answers can't show "right more than half the time": .5^5 < .05 < .5^4


def terms(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    """The clearance covers what is done with the teacher’s answers, today."""
    data = data_of(evidence)
    clearance = data.clearance
    wrong = []
    if data.clearance_id != clearance.id:
        wrong.append(f"the answers carry clearance {data.clearance_id[:12]!r}, the run has {clearance.id[:12]!r}")
    wrong += shortfalls(
        clearance, today=recipe.today, student_kind=recipe.student_kind, distribution=recipe.distribution
    )
    for member in data.committee.members if data.committee is not None else ():
        if member.clearance.pin != member.pin:
            wrong.append(f"the committee's {member.name!r} answered under a clearance for another teacher")
        if member.clearance.expires is not None and member.clearance.expires < recipe.today:
            wrong.append(f"the attestation of the committee's {member.name!r} ran out on {member.clearance.expires}")
    if wrong:
        yield finding("fail", "; ".join(wrong), "renew the attestation in the terms record, then run again")
        return
    until = f"until {clearance.expires}" if clearance.expires else "without an end date"
    who = f"{clearance.attested_by} attested on {clearance.attested_on} for {clearance.registry_id}"
    yield finding("pass", f"{who} ({clearance.posture}), {until}; this is not legal advice")


def _pinned(data: DataEvidence) -> set[str]:
    """The models that may have answered: the teacher's, and those of a committee."""
    return {data.pin.model} | ({m.pin.model for m in data.committee.members} if data.committee is not None else set())


def pin(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    """All answers came from the model that is pinned and cleared."""
    del recipe
    data = data_of(evidence)
    pin = data.pin
    mend = "pin the exact model in [teacher] and label again"
    if pin != data.clearance.pin:
        yield finding("fail", f"answers are from {pin.model!r}, cleared was {data.clearance.pin.model!r}", mend)
    elif not data.models:
        yield finding("not-run", "no usable answer names the model that gave it", mend)
    elif set(data.models) - _pinned(data) or (data.committee is None and set(data.models) != {pin.model}):
        names = ", ".join(f"{name!r} {n:,}" for name, n in data.models.items())
        yield finding("fail", f"pinned is {pin.model!r}, the answers came from {names}", mend)
    else:
        count = f"all {sum(data.models.values()):,} answers"
        others = f", or from the committee's {', '.join(map(repr, sorted(set(data.models) - {pin.model})))}" if set(data.models) != {pin.model} else ""
        yield finding("pass", f"{count} came from {pin.model!r}, revision {pin.revision[:16]!r}{others}")


def leak(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    """No row straddles two splits, and the sealed rows were not opened too often."""
    data = data_of(evidence)
    if not data.leaks:
        yield finding("not-run", "no leakage check ran", "run the prompt-set step again")
        return
    straddling = {name: n for name, n in data.leaks.items() if n}
    if straddling:
        what = ", ".join(f"{name}: {n:,} rows" for name, n in straddling.items())
        yield finding("fail", f"rows straddle two splits ({what})", "build the prompt set again")
        return
    report = need(evidence.report, "evaluation report")
    use, fresh = uses_of(report), fresh_draw(report)
    if use > recipe.uses_at_most:
        reason = f"the sealed rows were opened {use} times, the most is {recipe.uses_at_most}"
        yield finding("fail", reason, f"{fresh}; that restarts the count")
        return
    checks = ", ".join(data.leaks)
    advice = f"; {fresh}" if use >= recipe.uses_at_most else ""
    yield finding("pass", f"no row straddles two splits ({checks}); sealed rows opened {use} time(s){advice}")


def match(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    """The prompt set looks like the live traffic."""
    data = data_of(evidence)
    at_most = recipe.distance_at_most
    if not data.match:
        todo = "import traffic with at least one attribute (channel, tier, language), or name them in [promptset] match"
        yield finding("not-run", "no attribute to compare live traffic and prompt set by", todo)
        return
    yield from (finding(one.outcome, one.reason, one.todo) for one in off_share(data.shares))
    n = max(m.n_set for m in data.match)
    where = f"total variation distance {data.distance:.3f} over {len(data.match)} segments, at most {at_most:.3f}"
    missing = [f"{m.attribute}={m.value}" for m in data.match if m.n_set == 0 and m.live_share >= at_most / 10]
    if data.distance > at_most or missing:
        absent = f"; without a row: {', '.join(missing)}" if missing else ""
        todo = "raise [promptset] requests or match by these attributes, and build the prompt set again"
        yield finding("fail", f"{where}{absent} (largest segment: n = {n:,})", todo)
    else:
        yield finding("pass", where)


def copies(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    """The sealed rows test more than memory."""
    data = data_of(evidence)
    found = theatre(data.familiar, data.rows.get("test", 0), at_most=recipe.familiar_at_most)
    yield finding(found.outcome, found.reason, found.todo)


def teacher(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    """What the student learns from is right."""
    report, chosen = need(evidence.report, "evaluation report"), chosen_of(evidence)
    whole = chosen.slices[0].teacher_accuracy
    if whole is None or whole.n == 0:
        todo = "have a person answer at least 100 of the newest requests, and import them with the true label as gold"
        yield finding("not-run", "no sealed row has a true label, so the teacher is unproven", todo)
        return
    yield _teacher_overall(whole, recipe)
    likely = []
    for weak in report.weak_labels:
        figure = weak.teacher_accuracy
        if figure is None or figure.n == 0:
            continue
        if figure.high < HALF:
            reason = f"label {weak.slice!r}: the teacher is right on {said(figure)}: wrong more than half the time"
            todo = f"rewrite the prompt where it speaks of {weak.slice!r}, take more samples or a better teacher there"
            yield finding("fail", reason, todo, figure=_against_half(figure, "fail"), where=weak)
        elif figure.n >= DECIDABLE_N:
            likely.append(f"{weak.slice!r} {figure.good} of {figure.n}")
    if likely:
        reason = f"the teacher is probably wrong more than half the time, too few rows to tell: {', '.join(likely)}"
        yield finding("not-run", reason, "have a person answer more requests with these labels")
    for where in chosen.slices:
        recall = where.teacher_accuracy
        if where.kind == "label" and where.critical and recall is not None and recall.bar is not None:
            yield judged(where, recall, "the teacher finds the true label on")


def _teacher_overall(whole: Figure, recipe: GateRecipe) -> Finding:
    least = recipe.teacher_right_at_least
    head = f"the teacher's labels are right on {said(whole)}, at least {least:.1%} is asked"
    if whole.low >= least:
        return finding("pass", head, figure=whole)
    if whole.high < least:
        todo = "mend the prompt, take several samples on hard rows, or use a better teacher: a student inherits errors"
        return finding("fail", head, todo, figure=whole)
    return finding("not-run", f"{head}: not enough data to tell", "add true labels to more rows", figure=whole)


def _against_half(figure: Figure, verdict: Verdict) -> Figure:
    return replace(figure, bar=HALF, verdict=verdict)
