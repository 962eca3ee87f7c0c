"""Served system against teacher, student against the best do-nothing baseline: exact paired tests, and their words."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from overproof.evidence import Comparison, EvalReport, Outcome
from overproof.measure.intervals import min_rows
from overproof.measure.paired import PairedTest, noninferiority, noninferiority_rows, superiority

OUTCOMES: dict[str, Outcome] = {"pass": "pass", "fail": "fail", "undecided": "not-run"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a gate check says of a comparison."""

    outcome: Outcome
    reason: str
    todo: str = ""


def against_teacher(
    ours_wrong: NDArray[np.bool_], teacher_wrong: NDArray[np.bool_], *, teacher: str, margin: float, delta: float
) -> Comparison:
    """
    Test that the system as served is wrong at most a margin more often than the teacher alone.

    Args:
        ours_wrong: shape (n,), judging rows with gold; rows that the teacher serves are wrong where it is.
        teacher_wrong: shape (n,), the same rows.
        teacher: its name.
        margin: fixed in the plan, in (0, 1).
        delta: admitted chance of a false pass.

    Returns: the comparison.
    """
    b, c = int((ours_wrong & ~teacher_wrong).sum()), int((teacher_wrong & ~ours_wrong).sum())
    return _said(noninferiority(b, c, len(ours_wrong), margin=margin, d=delta), against=teacher, label_kind="gold")


def against_baseline(
    ours_wrong: NDArray[np.bool_], other_wrong: NDArray[np.bool_], *, baseline: str, label_kind: str, delta: float
) -> Comparison:
    """
    Test that the student alone is wrong less often than a baseline.

    Args:
        ours_wrong: shape (n,), judging rows.
        other_wrong: shape (n,), the same rows.
        baseline: its name.
        label_kind: what "wrong" is counted against.
        delta: admitted chance of a false pass.

    Returns: the comparison.
    """
    b, c = int((ours_wrong & ~other_wrong).sum()), int((other_wrong & ~ours_wrong).sum())
    test = superiority(b, c, d=delta, n=len(ours_wrong))
    return _said(test, against=baseline, label_kind=label_kind)


def _said(test: PairedTest, *, against: str, label_kind: str) -> Comparison:
    return Comparison(
        against=against,
        label_kind=label_kind,
        b=test.b,
        c=test.c,
        n=test.n,
        margin=test.margin,
        p=test.p,
        delta=test.delta,
        verdict=test.verdict,
        rows_needed=test.rows_needed,
        method=test.method,
    )


def comparison_differences(stated: Comparison) -> tuple[str, ...]:
    """
    Rebuild a paired test from its counts.

    Args:
        stated: as the report holds it.

    Returns: one sentence for each difference; empty where p and verdict follow from b, c and n.
    """
    again = (
        noninferiority(stated.b, stated.c, stated.n, margin=stated.margin, d=stated.delta)
        if stated.margin > 0
        else superiority(stated.b, stated.c, d=stated.delta, n=stated.n)
    )
    where = f"{stated.method} against {stated.against!r}"
    found = []
    if not math.isclose(stated.p, again.p, rel_tol=1e-6, abs_tol=1e-12):
        found.append(f"{where}: p is stated as {stated.p!r}, its counts give {again.p!r}")
    if stated.verdict != again.verdict:
        found.append(f"{where}: verdict is stated as {stated.verdict!r}, its counts give {again.verdict!r}")
    return tuple(found)


def counts_words(found: Comparison) -> str:
    """
    A comparison's counts and p.

    Args:
        found: any comparison.

    Returns: for example "b = 3 only ours wrong, c = 5 only the teacher wrong, n = 812, p = 0.0012".
    """
    return (
        f"b = {found.b:,} only ours wrong, c = {found.c:,} only {found.against} wrong, n = {found.n:,}, "
        f"p = {found.p:.2g} (at most {found.delta:.2g} passes)"
    )


def teacher_answer(report: EvalReport) -> Answer:
    """
    The gate's word on non-inferiority.

    Args:
        report: any report.

    Returns: pass, fail, or not-run with the rows that it takes.
    """
    found, delta = report.noninferiority, report.certificate.delta_spent
    if found is None and report.margin_from and report.n_gold:
        todo = "set [proof] margin with a reason, or serve that baseline"
        return Answer(outcome="not-run", reason=f"no margin to test against: {report.margin_from}", todo=todo)
    if found is None or found.n == 0:
        least = min_rows(0.01, delta)
        todo = f"have a person answer at least {least:,} of the newest requests, and import them as gold"
        return Answer(outcome="not-run", reason="no judging row has a true label, so nobody can tell", todo=todo)
    points = f"{100 * found.margin:.2g} point(s)"
    words = counts_words(found)
    if found.verdict == "pass":
        reason = f"as served it is wrong at most {points} more often than {found.against}: {words}; {report.margin_from}"
        return Answer(outcome="pass", reason=reason)
    if found.verdict == "fail":
        reason = f"as served it is wrong over {points} more often than {found.against}: {words}; {report.margin_from}"
        return Answer(outcome="fail", reason=reason, todo="keep less: raise [serve] accuracy_when_confident, or use a better student")
    reason = f"not shown that it is wrong at most {points} more often than {found.against}: {words}; {report.margin_from}"
    if found.rows_needed is not None:
        todo = f"add true labels to about {found.rows_needed:,} more judging rows"
    else:
        even = noninferiority_rows(found.margin, found.delta, *[max(found.c, 0.5) / found.n] * 2)
        more = f" (one as good as the teacher needs about {even:,} rows)" if even is not None else ""
        todo = f"no number of rows would show it at the rates seen{more}: keep less, or use a better student"
    return Answer(outcome="not-run", reason=reason, todo=todo)


def baseline_answer(report: EvalReport) -> Answer:
    """
    The gate's word on superiority over the best do-nothing baseline.

    Args:
        report: any report.

    Returns: pass, fail, or not-run with what would decide it.
    """
    found = report.superiority
    if found is None:
        return Answer(
            outcome="not-run",
            reason="no do-nothing baseline was compared on the judging rows",
            todo="let the built-in baselines through the same evaluation as the students, and run again",
        )
    verb = "is right" if found.label_kind == "gold" else "agrees with the teacher"
    head = {
        "pass": f"{report.chosen} {verb} more often than the best do-nothing baseline",
        "fail": f"{report.chosen} {verb} less often than the best do-nothing baseline",
        "undecided": f"not shown that {report.chosen} {verb} more often than the best do-nothing baseline",
    }[found.verdict]
    todo = ""
    if found.verdict == "fail":
        todo = f"don't distil: use {found.against}, or train a better student"
    elif found.verdict == "undecided":
        rows = superiority_rows(found)
        more = f"add about {rows:,} judging rows" if rows is not None else "no number of rows would show it at these rates"
        todo = f"{more}; or use {found.against}, which costs less"
    return Answer(outcome=OUTCOMES[found.verdict], reason=f"{head}: {counts_words(found)}", todo=todo)


def superiority_rows(found: Comparison) -> int | None:
    """
    About how many more rows would show superiority at the rates seen.

    Args:
        found: an undecided comparison without margin.

    Returns: rows beside those that there are; None where ours was not better on these rows, or a million don't do.
    """
    if found.c <= found.b:
        return None
    share, discordant = found.c / (found.b + found.c), found.b + found.c
    z, beta = _normal_quantile(1.0 - found.delta), _normal_quantile(0.8)
    pairs = ((z + 2.0 * beta * math.sqrt(share * (1.0 - share))) / (2.0 * share - 1.0)) ** 2
    pairs = max(pairs, min_rows(0.5, found.delta))
    rows = math.ceil(pairs * found.n / discordant) - found.n
    return max(1, rows) if rows <= 1_000_000 else None


def _normal_quantile(p: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(p)
