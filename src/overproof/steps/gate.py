"""The ship decision: a table of checks over the evidence, and the only maker of a release."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from overproof.errors import DataError, OverproofError
from overproof.evidence import CandidateReport, Figure, Finding, Outcome, Refusal, Release, SliceReport
from overproof.evidence.figures import Verdict
from overproof.steps.certificates import (
    certified_parts,
    differences,
    fresh_draw,
    other_words,
    part_words,
    report_differences,
    uses_of,
    walk_words,
)
from overproof.steps.challenge import challenge_answer
from overproof.steps.clear import shortfalls
from overproof.steps.collect import DataEvidence, Evidence
from overproof.steps.comparisons import baseline_answer, teacher_answer
from overproof.steps.evaluate import served_cost_usd_per_1000, teacher_of
from overproof.steps.flips import flip_answers
from overproof.steps.groups import gap_answers
from overproof.steps.headlines import refused, said, shipped
from overproof.steps.match_checks import off_share, theatre
from overproof.steps.probe_checks import CHECKED
from overproof.steps.size_verdict import smaller_answer
from overproof.steps.text_judge import judged_answer
from overproof.store.artifacts import Step
from overproof.store.codec import encode
from overproof.students.bundle import load_bundle
from overproof.task import Bar

T = TypeVar("T")

HALF = 0.5
DECIDABLE_N = 5  # with fewer rows even all right answers can't show "right more than half the time": .5^5 < .05 < .5^4
REVIEW_DAYS = range(7, 181)  # governance: a review less often than twice a year is no review
ORDER: dict[Outcome, int] = {"fail": 0, "not-run": 1, "waived": 2, "pass": 3}


@dataclass(frozen=True, kw_only=True, slots=True)
class GateRecipe:
    """Bars and people that the checks hold the evidence against."""

    task: str
    """The task's name."""
    owner: str
    """The person who answers for the student; never a team alias."""
    deputy: str
    """Who answers when the owner is away; another person."""
    review_every_days: int
    """Days until the release has to be looked at again."""
    today: str
    """ISO date of the decision."""
    student_kind: str = "classifier"
    """What is built, in the words of the terms record."""
    distribution: str = "internal"
    """Where it will run, in the words of the terms record."""
    teacher_right_at_least: float = 0.9
    """Least share of the teacher's labels that must be right against gold."""
    distance_at_most: float = 0.1
    """Largest total variation distance between live traffic and prompt set, in [0, 1]."""
    familiar_at_most: float = 0.2
    """Largest share of sealed rows that say in the same words what a training row says."""
    uses_at_most: int = 3
    """How often one set of sealed rows may be opened."""
    gap_at_most: float | None = None
    """Tolerance between declared groups; None: gaps are reported, no check asks for them."""
    swaps: bool = False
    """Whether swapped terms must change few answers."""
    written: bool = False
    """Whether the owner set bars within written answers: on fields, or on similarity."""
    judged: Bar | None = None
    """The owner's bar on what a judge of texts says."""
    sizing: bool = False
    """Whether further fits compared the sizes."""
    challenged: bool = False
    """Whether a serving release has to be held up to."""
    probes: tuple[str, ...] = ()
    """Ids of the probe checks that are asked for; see `steps.probe_checks`."""
    ece_at_most: float | None = None
    """Advisory: a calibration error above it is said, and never refuses."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One row of the gate's table."""

    id: str
    """For example "G08"."""
    title: str
    """What is asked, as a statement that should hold."""
    check: Callable[[Evidence, GateRecipe], Iterator[Finding]]
    """Yields at least one finding."""
    reads: tuple[str, ...]
    """Names in `Evidence.digests` of what the check rests on."""
    waivable: bool = False
    """False for what no reason excuses."""


def gate(evidence: Evidence, recipe: GateRecipe) -> Release | Refusal:
    """
    Run every check; a release only if each of them passes.

    Args:
        evidence: from `collect`.
        recipe: bars and people.

    Returns: the release, or the refusal with failing findings first.
    """
    findings = run_checks(evidence, recipe)
    report, bundle = evidence.report, evidence.bundle
    if report is None or bundle is None or not ships(findings, table=table_of(recipe)):
        return Refusal(task=recipe.task, findings=findings, headline=refused(evidence, findings))
    due = dt.date.fromisoformat(recipe.today) + dt.timedelta(days=recipe.review_every_days)
    found = Release(
        id="",
        task=recipe.task,
        findings=findings,
        headline=shipped(report),
        candidate=report.chosen,
        bundle=bundle,
        certificate=report.certificate,
        owner=recipe.owner,
        review_due=due.isoformat(),
    )
    return replace(found, id=encode(found).digest[:16])  # a second look may end in the same files, and is another release


def run_checks(evidence: Evidence, recipe: GateRecipe) -> tuple[Finding, ...]:
    """
    Findings of every row of `CHECKS`, the ones that stop a release first.

    Args:
        evidence: from `collect`.
        recipe: bars and people.

    Returns: at least one finding per check. A check that can't run, or breaks, is "not-run" and says why.
    """
    found = [f for row in table_of(recipe) for f in _run(row, evidence, recipe)]
    return tuple(sorted(found, key=lambda f: (ORDER[f.outcome], f.waivable, f.id)))


def table_of(recipe: GateRecipe) -> tuple[Row, ...]:
    """
    The checks of a project: the table, and what its owner asked for besides.

    Args:
        recipe: with the fairness and sizing settings.

    Returns: at least `CHECKS`; a check that nobody asked for is left out, since it could only pass for nothing.
    """
    asked = {"F01": recipe.gap_at_most is not None, "F02": recipe.swaps, "R01": recipe.written, "R02": recipe.judged is not None, "S01": recipe.sizing, "C01": recipe.challenged, **{name: name in recipe.probes for name, _, _ in CHECKED}}
    return (*CHECKS, *(row for row in ASKED if asked[row.id]))


def ships(findings: tuple[Finding, ...], *, table: tuple[Row, ...] | None = None) -> bool:
    """
    The decision and nothing else.

    Args:
        findings: of all checks.
        table: from `table_of`; None for `CHECKS`.

    Returns: True iff every check of the table reported and every finding passes or is waived.
    """
    reported = {f.id for f in findings}
    return all(row.id in reported for row in (table or CHECKS)) and all(f.outcome in ("pass", "waived") for f in findings)


def _run(row: Row, evidence: Evidence, recipe: GateRecipe) -> list[Finding]:
    try:
        found = list(row.check(evidence, recipe)) or [
            _finding(row.id, "not-run", "the check reported nothing", "report this as a defect of overproof")
        ]
    except OverproofError as error:
        found = [_finding(row.id, "not-run", error.what, error.next_action)]
    except Exception as error:  # noqa: BLE001 - a broken check must block the release, not the report
        reason = f"the check broke: {type(error).__name__}: {error}"
        found = [_finding(row.id, "not-run", reason, "report this as a defect of overproof, with this line")]
    rests_on = {name: evidence.digests[name] for name in row.reads if name in evidence.digests}
    return [replace(f, evidence=rests_on) for f in found]


def _finding(
    check: str, outcome: Outcome, reason: str, next_action: str = "", *, figure: Figure | None = None, where: SliceReport | None = None
) -> Finding:
    row = next(r for r in (*CHECKS, *ASKED) if r.id == check)
    return Finding(
        id=check,
        title=row.title,
        outcome=outcome,
        slice=where.slice if where is not None else None,
        value=figure.value if figure is not None else None,
        # the bound that decided: what is missed for certain lies under its upper end, everything else is held by the lower
        bound=None if figure is None else figure.high if figure.verdict == "fail" else figure.low,
        bar=figure.bar if figure is not None else None,
        n=figure.n if figure is not None else None,
        reason=reason,
        next_action=next_action,
        waivable=row.waivable and not (where is not None and where.critical),
    )


def _need(value: T | None, what: str) -> T:
    if value is None:
        raise DataError(f"there is no {what}", next_action="run `overproof run`, which makes it")
    return value


def _chosen(evidence: Evidence) -> CandidateReport:
    report = _need(evidence.report, "evaluation report")
    return next(c for c in report.candidates if c.name == report.chosen)


def _data(evidence: Evidence) -> DataEvidence:
    return _need(evidence.data, "summary of rows, teacher and terms")


def _judged(check: str, where: SliceReport, figure: Figure, subject: str) -> Finding:
    """A figure against its bar, with what would change an unwelcome answer."""
    name = "all traffic" if where.slice == "all" else f"slice {where.slice!r}"
    bar = "no bar" if figure.bar is None else f"the bar is {figure.bar:.1%}"
    rows = "more requests" if where.slice == "all" else f"more {where.slice!r} requests"
    if figure.verdict == "pass":
        return _finding(check, "pass", f"{name}: {subject} {said(figure)}, {bar}", figure=figure, where=where)
    if figure.verdict == "fail":
        reason = f"{name}: {subject} {said(figure)}: all of the interval lies below the bar of {figure.bar:.1%}"
        todo = f"look at the disagreements on {name}, teach {rows} of that kind, or lower the bar with a reason"
        return _finding(check, "fail", reason, todo, figure=figure, where=where)
    reason = f"{name}: {subject} {said(figure)}, {bar}: not enough data to tell"
    count = f"about {figure.rows_needed:,} " if figure.rows_needed else ""
    todo = f"collect {count}{rows}, or lower the bar with a reason"
    return _finding(check, "not-run", reason, todo, figure=figure, where=where)


def _terms(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    data = _data(evidence)
    clearance = data.clearance
    wrong = []
    if data.clearance_id != clearance.id:
        wrong.append(f"the answers carry clearance {data.clearance_id[:12]!r}, the run has {clearance.id[:12]!r}")
    wrong += shortfalls(clearance, today=recipe.today, student_kind=recipe.student_kind, distribution=recipe.distribution)
    for member in data.committee.members if data.committee is not None else ():
        if member.clearance.pin != member.pin:
            wrong.append(f"the committee's {member.name!r} answered under a clearance for another teacher")
        if member.clearance.expires is not None and member.clearance.expires < recipe.today:
            wrong.append(f"the attestation of the committee's {member.name!r} ran out on {member.clearance.expires}")
    if wrong:
        yield _finding("G01", "fail", "; ".join(wrong), "renew the attestation in the terms record, then run again")
        return
    until = f"until {clearance.expires}" if clearance.expires else "without an end date"
    who = f"{clearance.attested_by} attested on {clearance.attested_on} for {clearance.registry_id}"
    yield _finding("G01", "pass", f"{who} ({clearance.posture}), {until}; this is not legal advice")


def _pinned(data: DataEvidence) -> set[str]:
    """The models that may have answered: the teacher's, and those of a committee."""
    return {data.pin.model} | ({m.pin.model for m in data.committee.members} if data.committee is not None else set())


def _pin(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    del recipe
    data = _data(evidence)
    pin = data.pin
    mend = "pin the exact model in [teacher] and label again"
    if pin != data.clearance.pin:
        yield _finding("G02", "fail", f"answers are from {pin.model!r}, cleared was {data.clearance.pin.model!r}", mend)
    elif not data.models:
        yield _finding("G02", "not-run", "no usable answer names the model that gave it", mend)
    elif set(data.models) - _pinned(data) or (data.committee is None and set(data.models) != {pin.model}):
        names = ", ".join(f"{name!r} {n:,}" for name, n in data.models.items())
        yield _finding("G02", "fail", f"pinned is {pin.model!r}, the answers came from {names}", mend)
    else:
        count = f"all {sum(data.models.values()):,} answers"
        yield _finding("G02", "pass", f"{count} came from {pin.model!r}, revision {pin.revision[:16]!r}")


def _leak(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    data = _data(evidence)
    if not data.leaks:
        yield _finding("G03", "not-run", "no leakage check ran", "run the prompt-set step again")
        return
    straddling = {name: n for name, n in data.leaks.items() if n}
    if straddling:
        what = ", ".join(f"{name}: {n:,} rows" for name, n in straddling.items())
        yield _finding("G03", "fail", f"rows straddle two splits ({what})", "build the prompt set again")
        return
    report = _need(evidence.report, "evaluation report")
    use, fresh = uses_of(report), fresh_draw(report)
    if use > recipe.uses_at_most:
        reason = f"the sealed rows were opened {use} times, the most is {recipe.uses_at_most}"
        yield _finding("G03", "fail", reason, f"{fresh}; that restarts the count")
        return
    checks = ", ".join(data.leaks)
    advice = f"; {fresh}" if use >= recipe.uses_at_most else ""
    yield _finding("G03", "pass", f"no row straddles two splits ({checks}); sealed rows opened {use} time(s){advice}")


def _match(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    data = _data(evidence)
    at_most = recipe.distance_at_most
    if not data.match:
        todo = "import traffic with at least one attribute (channel, tier, language), or name them in [promptset] match"
        yield _finding("G04", "not-run", "no attribute to compare live traffic and prompt set by", todo)
        return
    yield from (_finding("G04", one.outcome, one.reason, one.todo) for one in off_share(data.shares))
    n = max(m.n_set for m in data.match)
    where = f"total variation distance {data.distance:.3f} over {len(data.match)} segments, at most {at_most:.3f}"
    missing = [f"{m.attribute}={m.value}" for m in data.match if m.n_set == 0 and m.live_share >= at_most / 10]
    if data.distance > at_most or missing:
        absent = f"; without a row: {', '.join(missing)}" if missing else ""
        todo = "raise [promptset] requests or match by these attributes, and build the prompt set again"
        yield _finding("G04", "fail", f"{where}{absent} (largest segment: n = {n:,})", todo)
    else:
        yield _finding("G04", "pass", where)


def _theatre(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    data = _data(evidence)
    found = theatre(data.familiar, data.rows.get("test", 0), at_most=recipe.familiar_at_most)
    yield _finding("G21", found.outcome, found.reason, found.todo)


def _teacher(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    report, chosen = _need(evidence.report, "evaluation report"), _chosen(evidence)
    whole = chosen.slices[0].teacher_accuracy
    if whole is None or whole.n == 0:
        todo = "have a person answer at least 100 of the newest requests, and import them with the true label as gold"
        yield _finding("G05", "not-run", "no sealed row has a true label, so the teacher is unproven", todo)
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
            yield _finding("G05", "fail", reason, todo, figure=_against_half(figure, "fail"), where=weak)
        elif figure.n >= DECIDABLE_N:
            likely.append(f"{weak.slice!r} {figure.good} of {figure.n}")
    if likely:
        reason = f"the teacher is probably wrong more than half the time, too few rows to tell: {', '.join(likely)}"
        yield _finding("G05", "not-run", reason, "have a person answer more requests with these labels")
    for where in chosen.slices:
        recall = where.teacher_accuracy
        if where.kind == "label" and where.critical and recall is not None and recall.bar is not None:
            yield _judged("G05", where, recall, "the teacher finds the true label on")


def _teacher_overall(whole: Figure, recipe: GateRecipe) -> Finding:
    least = recipe.teacher_right_at_least
    head = f"the teacher's labels are right on {said(whole)}, at least {least:.1%} is asked"
    if whole.low >= least:
        return _finding("G05", "pass", head, figure=whole)
    if whole.high < least:
        todo = "mend the prompt, take several samples on hard rows, or use a better teacher: a student inherits errors"
        return _finding("G05", "fail", head, todo, figure=whole)
    return _finding("G05", "not-run", f"{head}: not enough data to tell", "add true labels to more rows", figure=whole)


def _against_half(figure: Figure, verdict: Verdict) -> Figure:
    return replace(figure, bar=HALF, verdict=verdict)


def _baselines(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    del recipe
    report, chosen = _need(evidence.report, "evaluation report"), _chosen(evidence)
    baselines = [c for c in report.candidates if c.kind == "baseline"]
    teacher = teacher_of(report)
    if not baselines or teacher is None:
        lacking = "baseline" if not baselines else "teacher"
        todo = "let the built-in baselines and the teacher through the same evaluation as the students, and run again"
        yield _finding("G06", "not-run", f"no {lacking} was measured on the sealed rows", todo)
        return
    served = served_cost_usd_per_1000(report)
    price = f"{_dollars(served, evidence)} for {chosen.name}" if served is not None else "an unknown price"
    if report.cheaper is not None:
        other = next(c for c in report.candidates if c.name == report.cheaper)
        reason = f"{other.name} clears every bar at {_dollars(other.cost_usd_per_1000, evidence)}, against {price}"
        yield _finding("G06", "fail", reason, f"don't distil: serve {other.name}, or raise the bars with a reason")
    elif served is not None and served >= teacher.cost_usd_per_1000:
        reason = f"the teacher alone costs {_dollars(teacher.cost_usd_per_1000, evidence)}, against {price}"
        yield _finding("G06", "fail", reason, "don't distil: keep the teacher, or find where more can be kept")
    elif served is None:
        reason = f"{len(baselines)} baselines ran and none clears every bar; the teacher's price is not known"
        yield _finding("G06", "pass", f"{reason}, so nothing is said about money")
    else:
        alone = _dollars(teacher.cost_usd_per_1000, evidence)
        reason = f"none of {len(baselines)} baselines clears every bar at less; {price}, against {alone} for the teacher"
        yield _finding("G06", "pass", reason)


def _dollars(per_1000: float, evidence: Evidence) -> str:
    text = f"{per_1000:.4g} USD per 1,000"
    if evidence.requests_per_month:
        text += f" ({per_1000 * evidence.requests_per_month / 1000:,.2f} USD a month)"
    return text


def _sizes(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    del recipe
    students = [t for t in evidence.trained if t.kind == "student"]
    sizes = {t.size_bytes for t in students}
    named = ", ".join(f"{t.name} {t.size_bytes / 1e6:.1f} MB" for t in students) or "none"
    if len(sizes) < 2:
        todo = "add a second [[student]] of another size: one size shows no trade-off"
        yield _finding("G07", "not-run", f"{len(sizes)} student size(s) trained ({named})", todo)
    elif len({t.rows for t in students}) > 1:
        yield _finding("G07", "fail", f"sizes were trained on different rows ({named})", "train all on the same rows")
    else:
        yield _finding("G07", "pass", f"{len(sizes)} student sizes on the same {students[0].rows:,} rows: {named}")


def _bars(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    del recipe
    found = False
    for where in _chosen(evidence).slices:
        for figure, subject in (
            (where.served_accuracy, "the served answer is right on"),
            (where.served_fidelity, "the served answer agrees with the teacher on"),
        ):
            if figure is None or figure.bar is None or (where.slice == "all" and figure.metric == "fidelity"):
                continue  # fidelity over all traffic is G09
            found = True
            yield _judged("G08", where, figure, subject)
    if not found:
        yield _finding("G08", "pass", "the project names no slice and no accuracy bar: only fidelity over all is judged")


def _fidelity(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    del recipe
    whole = _chosen(evidence).slices[0]
    figure = whole.served_fidelity
    if figure is None or figure.bar is None:
        yield _finding("G09", "not-run", "no fidelity bar is set", "set fidelity in [bars]", figure=figure, where=whole)
        return
    yield _judged("G09", whole, figure, "the served answer agrees with the teacher on")


def _threshold(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    report, chosen = _need(evidence.report, "evaluation report"), _chosen(evidence)
    certificate, whole = report.certificate, chosen.slices[0]
    if certificate.expires < recipe.today:
        yield _finding("G10", "fail", f"the certificate ran out on {certificate.expires}", "run on newer traffic")
        return
    if wrong := (differences(certificate) or report_differences(report)):
        yield _finding("G10", "fail", f"the certificate contradicts its counts: {wrong[0]}", "run again")
        return
    certified = certified_parts(certificate)
    if not certified:
        needed = [s.rows_needed for s in certificate.slices if s.rows_needed]
        outcome: Outcome = "fail" if all(s.verdict == "fail" for s in certificate.slices) else "not-run"
        reason = f"no slice could be certified at {1 - certificate.delta_spent:.1%} confidence: the student keeps nothing"
        more = f"collect about {min(needed):,} more sealed rows, " if needed else ""
        dial = "raise [serve] wrong_when_served" if certificate.supports == "G2" else "lower [serve] accuracy_when_confident"
        todo = f"{more}use a better student, or {dial} with a reason"
        yield _finding("G10", outcome, reason, todo, figure=whole.kept)
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
    yield _finding("G10", "pass", f"{parts}{rest}{said_too}{advice}", figure=whole.kept)


def _not_worse(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    del recipe
    found = teacher_answer(_need(evidence.report, "evaluation report"))
    yield _finding("N01", found.outcome, found.reason, found.todo)


def _better(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    del recipe
    found = baseline_answer(_need(evidence.report, "evaluation report"))
    yield _finding("N02", found.outcome, found.reason, found.todo)


def _gaps(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    found = _need(evidence.groups, "comparison of groups")
    if not found.judged or found.tolerance != recipe.gap_at_most:
        raise DataError("the groups were compared under another tolerance", next_action="run `overproof run` again")
    for answer in gap_answers(found):
        yield _finding("F01", answer.outcome, answer.reason, answer.todo)


def _flips(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    del recipe
    for answer in flip_answers(_need(evidence.flips, "measurement of swapped terms")):
        yield _finding("F02", answer.outcome, answer.reason, answer.todo)


def _within(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    del recipe
    report = _need(_need(evidence.report, "evaluation report").written, "figure within written answers")
    outcomes: dict[Verdict, Outcome] = {"pass": "pass", "fail": "fail", "undecided": "not-run"}
    for one in report.judged:
        seen, outcome = one.estimate, outcomes[one.verdict]
        value = "nothing to measure" if seen.value is None else f"{seen.value:.1%} ({seen.low:.1%} to {seen.high:.1%})"
        reason = f"as served {one.metric} is {value} on {seen.n:,} judging rows with a true answer, at least {one.bar:.1%} is asked"
        todo = {"pass": "", "fail": "keep less, use a better student, or lower the bar with a reason"}.get(outcome, "add true answers to more of the newest rows")
        found = _finding("R01", outcome, reason + (": not enough data to tell" if outcome == "not-run" else ""), todo)
        bound = seen.high if outcome == "fail" else seen.low
        yield replace(found, value=seen.value, bound=bound, bar=one.bar, n=seen.n)


def _by_judge(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    share, bar = _need(evidence.judged, "word of the judge"), _need(recipe.judged, "bar on the judge's word")
    found = judged_answer(share, bar)
    bound = share.high if found.outcome == "fail" else share.low
    said_so = _finding("R02", found.outcome, found.reason, found.todo)
    yield replace(said_so, value=share.value, bound=bound, bar=bar.at_least, n=share.n)


def _says(check: str, *found: Any) -> Iterator[Finding]:
    yield from (_finding(check, one.outcome, one.reason, one.todo) for one in found)


def _probed(check: str) -> Callable[[Evidence, GateRecipe], Iterator[Finding]]:
    said = next(answers for name, _, answers in CHECKED if name == check)
    return lambda e, _: _says(check, *said(_need(e.probes, "report of the probes")))


def _owner(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    del evidence
    if not recipe.owner.strip():
        yield _finding("G17", "fail", "nobody owns this student", "name a person in [owner] name")
    elif not recipe.deputy.strip() or recipe.deputy.strip().casefold() == recipe.owner.strip().casefold():
        yield _finding("G17", "fail", f"{recipe.owner!r} has no deputy", "name another person in [owner] deputy")
    elif recipe.review_every_days not in REVIEW_DAYS:
        reason = f"reviews every {recipe.review_every_days} days; asked are 7 to 180"
        yield _finding("G17", "fail", reason, "set [owner] review_every between 7d and 180d")
    else:
        yield _finding("G17", "pass", f"{recipe.owner}, deputy {recipe.deputy}, every {recipe.review_every_days} days")


def _integrity(evidence: Evidence, recipe: GateRecipe) -> Iterator[Finding]:
    del recipe
    folder, report = _need(evidence.bundle, "release bundle"), _need(evidence.report, "evaluation report")
    try:
        card = load_bundle(folder.path).card
    except DataError as error:  # a missing extra is no fault of the bundle: it goes up, and the check is not run
        what = error.what.replace(str(folder.path), "bundle")
        yield _finding("G22", "fail", f"the bundle doesn't load: {what}", error.next_action)
        return
    stated = {t.slice.name: t.threshold for t in card.thresholds if t.threshold is not None}
    certified = {s.slice: s.threshold for s in report.certificate.slices if s.threshold is not None}
    told = (card.candidate, card.plan_hash, card.expires, stated)
    if told != (report.chosen, report.certificate.plan_hash, report.certificate.expires, certified):
        yield _finding("G22", "fail", "the bundle was not packed from this report and certificate", "pack again")
        return
    done = "every file has its digest, the self-test reproduces, thresholds are the certified ones"
    yield _finding("G22", "pass", f"{done}; bundle {folder.digest[:12]!r}")


CHECKS: tuple[Row, ...] = (
    Row(id="G01", title="Terms of the teacher", check=_terms, reads=("clearance", "answers")),
    Row(id="G02", title="Teacher pinned", check=_pin, reads=("clearance", "answers")),
    Row(id="G03", title="No leak between splits", check=_leak, reads=("prompts", "plan")),
    Row(id="G04", title="Prompt set matches the traffic", check=_match, reads=("traffic", "prompts"), waivable=True),
    Row(id="G21", title="Test rows are no copies of training rows", check=_theatre, reads=("prompts",), waivable=True),
    Row(id="G05", title="Teacher’s labels are right", check=_teacher, reads=("labelled", "report"), waivable=True),
    Row(id="G06", title="No cheaper way clears the bars", check=_baselines, reads=("report",), waivable=True),
    Row(id="G07", title="Two student sizes compared", check=_sizes, reads=("trained",), waivable=True),
    Row(id="G08", title="Bars per slice, as served", check=_bars, reads=("report",), waivable=True),
    Row(id="G09", title="Agreement with the teacher, as served", check=_fidelity, reads=("report",), waivable=True),
    Row(id="G10", title="Certified threshold", check=_threshold, reads=("plan", "report")),
    Row(id="G17", title="Owner and review", check=_owner, reads=()),
    Row(id="G22", title="Bundle is whole", check=_integrity, reads=("bundle",)),
    Row(id="N01", title="Not worse than the teacher, as served", check=_not_worse, reads=("report",), waivable=True),
    Row(id="N02", title="Better than doing nothing", check=_better, reads=("report",), waivable=True),
)

ASKED: tuple[Row, ...] = (
    Row(id="F01", title="Gaps between groups, as served", check=_gaps, reads=("report", "groups"), waivable=True),
    Row(id="R01", title="Bars within written answers, as served", check=_within, reads=("report",), waivable=True),
    Row(id="R02", title="Served texts do what is asked, by a calibrated judge", check=_by_judge, reads=("report", "judged"), waivable=True),
    Row(id="F02", title="Swapped terms change no answer", check=_flips, reads=("bundle", "flips"), waivable=True),
    Row(id="C01", title="Holds up against the serving release", check=lambda e, _: _says("C01", challenge_answer(e.challenge)), reads=("report", "challenge")),
    Row(id="S01", title="No smaller student does as well", check=lambda e, _: _says("S01", smaller_answer(e.sizing)), reads=("sizes", "plan"), waivable=True),
    *(Row(id=name, title=title, check=_probed(name), reads=("bundle", "probes"), waivable=True) for name, title, _ in CHECKED),
)
"""Checks that run only where the project file asks for them."""


GATE = Step(name="gate", version=7, fn=gate)
