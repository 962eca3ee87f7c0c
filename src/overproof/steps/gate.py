"""The ship decision: a table of checks over the evidence, and the only maker of a release."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

from overproof.errors import OverproofError
from overproof.evidence import Finding, Outcome, Refusal, Release
from overproof.steps.checks import asked, audits, keepers, origin, student
from overproof.steps.checks.own import own_rows
from overproof.steps.checks.table import GateRecipe, Row, WatchPlan, finding
from overproof.steps.checks.waiving import waived_by
from overproof.steps.collect import Evidence
from overproof.steps.headlines import refused, said, shipped, under_waivers
from overproof.steps.probe_checks import CHECKED
from overproof.store.artifacts import Step
from overproof.store.codec import encode

__all__ = ["ASKED", "CHECKS", "GATE", "GateRecipe", "Row", "WatchPlan", "gate", "run_checks", "said", "ships", "table_of"]

ORDER: dict[Outcome, int] = {"fail": 0, "not-run": 1, "waived": 2, "pass": 3}
SAYS = ("fail", "not-run", "pass")  # a check has no other words: "waived" is for people

CHECKS: tuple[Row, ...] = (
    Row(id="G01", title="Terms of the teacher", check=origin.terms, reads=("clearance", "answers")),
    Row(id="G02", title="Teacher pinned", check=origin.pin, reads=("clearance", "answers")),
    Row(id="G03", title="No leak between splits", check=origin.leak, reads=("prompts", "plan")),
    Row(id="G04", title="Prompt set matches the traffic", check=origin.match, reads=("traffic", "prompts"), waivable=True),
    Row(id="G21", title="Test rows are no copies of training rows", check=origin.copies, reads=("prompts",), waivable=True),
    Row(id="G05", title="Teacher’s labels are right", check=origin.teacher, reads=("labelled", "report"), waivable=True),
    Row(id="G06", title="No cheaper way clears the bars", check=student.baselines, reads=("report",), waivable=True),
    Row(id="G07", title="Two student sizes compared", check=student.sizes, reads=("trained",), waivable=True),
    Row(id="G08", title="Bars per slice, as served", check=student.bars, reads=("report",), waivable=True),
    Row(id="G09", title="Agreement with the teacher, as served", check=student.fidelity, reads=("report",), waivable=True),
    Row(id="G10", title="Certified threshold", check=student.threshold, reads=("plan", "report")),
    Row(id="M01", title="Audits would see a broken slice", check=audits.audits, reads=("report", "summary"), waivable=True),
    Row(id="G16", title="Something starts the next distillation", check=keepers.trigger, reads=()),
    Row(id="G17", title="Owner and review", check=keepers.owner, reads=()),
    Row(id="G22", title="Bundle is whole", check=student.integrity, reads=("bundle",)),
    Row(id="N01", title="Not worse than the teacher, as served", check=student.not_worse, reads=("report",), waivable=True),
    Row(id="N02", title="Better than doing nothing", check=student.better, reads=("report",), waivable=True),
)

ASKED: tuple[Row, ...] = (
    Row(id="F01", title="Gaps between groups, as served", check=asked.gaps, reads=("report", "groups"), waivable=True, when=lambda r: r.gap_at_most is not None),
    Row(id="R01", title="Bars within written answers, as served", check=asked.within, reads=("report",), waivable=True, when=lambda r: r.written),
    Row(id="R02", title="Served texts do what is asked, by a calibrated judge", check=asked.by_judge, reads=("report", "judged"), waivable=True, when=lambda r: r.judged is not None),
    Row(id="F02", title="Swapped terms change no answer", check=asked.flips, reads=("bundle", "flips"), waivable=True, when=lambda r: r.swaps),
    Row(id="C01", title="Holds up against the serving release", check=asked.challenged, reads=("report", "challenge"), when=lambda r: r.challenged),
    Row(id="S01", title="No smaller student does as well", check=asked.smaller, reads=("sizes", "plan"), waivable=True, when=lambda r: r.sizing),
    Row(id="S02", title="No rare or critical case is lost to a larger student", check=asked.cases, reads=("compression", "report"), waivable=True, when=lambda r: r.cases),
    Row(id="W01", title="Known mistakes of the teacher are gone", check=asked.weaknesses, reads=("bundle", "register"), waivable=True, when=lambda r: r.weaknesses),
    *(Row(id=name, title=title, check=asked.probed(name), reads=("bundle", "probes"), waivable=True, when=lambda r, name=name: name in r.probes) for name, title, _ in CHECKED),  # type: ignore[misc] # bound by its default
    Row(id="G14", title="Looked at in the shadow before it answers", check=keepers.shadow, reads=(), waivable=True, when=lambda r: r.stage != "shadow"),
    Row(id="G18", title="Personal data redacted before others get the student", check=keepers.privacy, reads=(), waivable=True, when=lambda r: r.distribution != "internal"),
)
"""Checks that a kind, a distribution, a stage or a declaration of the project file adds to `CHECKS`."""


def gate(evidence: Evidence, recipe: GateRecipe) -> Release | Refusal:
    """
    Run every check; a release only if each of them passes or is waived.

    Args:
        evidence: from `collect`.
        recipe: bars, people and waivers.

    Returns: the release, waived findings first, or the refusal with failing findings first.
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
        headline=under_waivers(findings) + shipped(report),
        candidate=report.chosen,
        bundle=bundle,
        certificate=report.certificate,
        owner=recipe.owner,
        review_due=due.isoformat(),
    )
    return replace(found, id=encode(found).digest[:16])  # a second look may end in the same files, and is another release


def run_checks(evidence: Evidence, recipe: GateRecipe) -> tuple[Finding, ...]:
    """
    Findings of every row of the table, the ones that stop a release first.

    Args:
        evidence: from `collect`.
        recipe: bars, people and waivers.

    Returns: at least one finding per check. A check that can't run, or breaks, is "not-run" and says why.
    """
    found = [f for row in table_of(recipe) for f in _run(row, evidence, recipe)]
    plan = evidence.report.certificate.plan_hash if evidence.report is not None else ""
    found = waived_by(found, plan=plan, waivers=recipe.waivers, ran_out=recipe.ran_out)
    return tuple(sorted(found, key=lambda f: (ORDER[f.outcome], f.waivable, f.id)))


def table_of(recipe: GateRecipe) -> tuple[Row, ...]:
    """
    The checks of a project: the table, what its kind, distribution and stage add, and the owner's own. Nobody takes one away.

    Args:
        recipe: of the project.

    Returns: at least `CHECKS`; a check that could only pass for nothing is left out.
    """
    return (*(row for row in (*CHECKS, *ASKED) if row.when(recipe)), *own_rows(recipe.own))


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
    defect = "report this as a defect of overproof" if row not in own_rows(recipe.own) else "mend the check"
    try:
        found = list(row.check(evidence, recipe)) or [finding("not-run", "the check reported nothing", defect)]
        if odd := [f.outcome for f in found if f.outcome not in SAYS]:
            found = [finding("not-run", f"the check said {odd[0]!r}; it may say {', '.join(SAYS)}", defect)]
    except OverproofError as error:
        found = [finding("not-run", error.what, error.next_action)]
    except Exception as error:  # noqa: BLE001 - a broken check must block the release, not the report
        found = [finding("not-run", f"the check broke: {type(error).__name__}: {error}", f"{defect}, with this line")]
    rests_on = {name: evidence.digests[name] for name in row.reads if name in evidence.digests}
    return [
        replace(f, id=row.id, title=row.title, evidence=rests_on, waivable=row.waivable and f.waivable, waiver=None) for f in found
    ]


GATE = Step(name="gate", version=8, fn=gate)
