"""Checks of the student as served: bars, certificate, baselines, sizes, bundle."""

from __future__ import annotations

from collections.abc import Iterator

from overproof.errors import DataError
from overproof.evidence import Finding, Outcome
from overproof.steps.certificates import (
    certified_parts,
    differences,
    other_words,
    part_words,
    report_differences,
    walk_words,
)
from overproof.steps.checks.table import GateRecipe, chosen_of, finding, judged, need
from overproof.steps.collect import Evidence
from overproof.steps.comparisons import baseline_answer, teacher_answer
from overproof.steps.evaluate import served_cost_usd_per_1000, teacher_of
from overproof.students.bundle import load_bundle


def baselines(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    """Nothing that costs less clears the bars."""
    del recipe
    report, chosen = need(evidence.report, "evaluation report"), chosen_of(evidence)
    baselines = [c for c in report.candidates if c.kind == "baseline"]
    teacher = teacher_of(report)
    if not baselines or teacher is None:
        lacking = "baseline" if not baselines else "teacher"
        todo = "let the built-in baselines and the teacher through the same evaluation as the students, and run again"
        yield finding("not-run", f"no {lacking} was measured on the sealed rows", todo)
        return
    served = served_cost_usd_per_1000(report)
    price = f"{_dollars(served, evidence)} for {chosen.name}" if served is not None else "an unknown price"
    if report.cheaper is not None:
        other = next(c for c in report.candidates if c.name == report.cheaper)
        reason = f"{other.name} clears every bar at {_dollars(other.cost_usd_per_1000, evidence)}, against {price}"
        yield finding("fail", reason, f"don't distil: serve {other.name}, or raise the bars with a reason")
    elif served is not None and served >= teacher.cost_usd_per_1000:
        reason = f"the teacher alone costs {_dollars(teacher.cost_usd_per_1000, evidence)}, against {price}"
        yield finding("fail", reason, "don't distil: keep the teacher, or find where more can be kept")
    elif served is None:
        reason = f"{len(baselines)} baselines ran and none clears every bar; the teacher's price is not known"
        yield finding("pass", f"{reason}, so nothing is said about money")
    else:
        alone = _dollars(teacher.cost_usd_per_1000, evidence)
        reason = f"none of {len(baselines)} baselines clears every bar at less; {price}, against {alone} for the teacher"
        yield finding("pass", reason)


def _dollars(per_1000: float, evidence: Evidence) -> str:
    text = f"{per_1000:.4g} USD per 1,000"
    if evidence.requests_per_month:
        text += f" ({per_1000 * evidence.requests_per_month / 1000:,.2f} USD a month)"
    return text


def sizes(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    """Two sizes on the same rows, so that there is a trade-off to look at."""
    del recipe
    students = [t for t in evidence.trained if t.kind == "student"]
    sizes = {t.size_bytes for t in students}
    named = ", ".join(f"{t.name} {t.size_bytes / 1e6:.1f} MB" for t in students) or "none"
    if len(sizes) < 2:
        todo = "add a second [[student]] of another size: one size shows no trade-off"
        yield finding("not-run", f"{len(sizes)} student size(s) trained ({named})", todo)
    elif len({t.rows for t in students}) > 1:
        yield finding("fail", f"sizes were trained on different rows ({named})", "train all on the same rows")
    else:
        yield finding("pass", f"{len(sizes)} student sizes on the same {students[0].rows:,} rows: {named}")


def bars(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    """Every bar on every slice, as served."""
    del recipe
    found = False
    for where in chosen_of(evidence).slices:
        for figure, subject in (
            (where.served_accuracy, "the served answer is right on"),
            (where.served_fidelity, "the served answer agrees with the teacher on"),
        ):
            if figure is None or figure.bar is None or (where.slice == "all" and figure.metric == "fidelity"):
                continue  # fidelity over all traffic is G09
            found = True
            yield judged(where, figure, subject)
    if not found:
        yield finding("pass", "the project names no slice and no accuracy bar: only fidelity over all is judged")


def fidelity(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    """Agreement with the teacher over all traffic, as served."""
    del recipe
    whole = chosen_of(evidence).slices[0]
    figure = whole.served_fidelity
    if figure is None or figure.bar is None:
        yield finding("not-run", "no fidelity bar is set", "set fidelity in [bars]", figure=figure, where=whole)
        return
    yield judged(whole, figure, "the served answer agrees with the teacher on")


def threshold(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    """The certificate holds, follows from its counts and lets the student answer something."""
    report, chosen = need(evidence.report, "evaluation report"), chosen_of(evidence)
    certificate, whole = report.certificate, chosen.slices[0]
    if certificate.expires < recipe.today:
        yield finding("fail", f"the certificate ran out on {certificate.expires}", "run on newer traffic")
        return
    if wrong := (differences(certificate) or report_differences(report)):
        yield finding("fail", f"the certificate contradicts its counts: {wrong[0]}", "run again")
        return
    certified = certified_parts(certificate)
    if not certified:
        needed = [s.rows_needed for s in certificate.slices if s.rows_needed]
        outcome: Outcome = "fail" if all(s.verdict == "fail" for s in certificate.slices) else "not-run"
        reason = f"no slice could be certified at {1 - certificate.delta_spent:.1%} confidence: the student keeps nothing"
        more = f"collect about {min(needed):,} more sealed rows, " if needed else ""
        dial = "raise [serve] wrong_when_served" if certificate.supports == "G2" else "lower [serve] accuracy_when_confident"
        todo = f"{more}use a better student, or {dial} with a reason"
        yield finding(outcome, reason, todo, figure=whole.kept)
        return
    parts = "; ".join(part_words(s, certificate) for s in certified)
    beside = other_words(report)
    stays = [s.slice for s in certificate.slices if s not in certified]
    rest = f"; stays with the teacher: {', '.join(stays)}" if stays else ""
    advice = ""
    if recipe.ece_at_most is not None and chosen.ece_test is not None and chosen.ece_test > recipe.ece_at_most:
        advice = f"; advisory: calibration error {chosen.ece_test:.3f} is above {recipe.ece_at_most:.3f}"
    beside = " ".join(word for word in (walk_words(certificate), beside) if word)
    said_too = f"; {beside}" if beside else ""
    yield finding("pass", f"{parts}{rest}{said_too}{advice}", figure=whole.kept)


def not_worse(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    """The system as served is hardly more often wrong than the teacher."""
    del recipe
    found = teacher_answer(need(evidence.report, "evaluation report"))
    yield finding(found.outcome, found.reason, found.todo)


def better(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    """The student alone beats the best do-nothing baseline."""
    del recipe
    found = baseline_answer(need(evidence.report, "evaluation report"))
    yield finding(found.outcome, found.reason, found.todo)


def integrity(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    """The bundle loads, and is the one that the report and the certificate are of."""
    del recipe
    folder, report = need(evidence.bundle, "release bundle"), need(evidence.report, "evaluation report")
    try:
        card = load_bundle(folder.path).card
    except DataError as error:  # a missing extra is no fault of the bundle: it goes up, and the check is not run
        what = error.what.replace(str(folder.path), "bundle")
        yield finding("fail", f"the bundle doesn't load: {what}", error.next_action)
        return
    stated = {t.slice.name: t.threshold for t in card.thresholds if t.threshold is not None}
    certified = {s.slice: s.threshold for s in report.certificate.slices if s.threshold is not None}
    told = (card.candidate, card.plan_hash, card.expires, stated)
    if told != (report.chosen, report.certificate.plan_hash, report.certificate.expires, certified):
        yield finding("fail", "the bundle was not packed from this report and certificate", "pack again")
        return
    done = "every file has its digest, the self-test reproduces, thresholds are the certified ones"
    yield finding("pass", f"{done}; bundle {folder.digest[:12]!r}")
