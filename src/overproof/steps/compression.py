"""Over-compression: rare and critical cases across the ladder of sizes, and the rung where each breaks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from overproof.data import CalibrationSet
from overproof.evidence import CandidateReport, Case, Compression, Figure, Kept, Rung, Scores, SliceReport
from overproof.measure.intervals import figure
from overproof.measure.paired import difference_interval
from overproof.measure.slices import NO_FUNCTIONS, Functions, assign
from overproof.steps.calibrate import reading_of
from overproof.steps.comparisons import Answer
from overproof.steps.sheet import sheet_of
from overproof.store.artifacts import Step
from overproof.task import Slice

Mask = NDArray[np.bool_]
RARE = 0.5  # of an even share: a label of which there is less is rare
DELTA = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class CompressionRecipe:
    """What is looked at, and what counts as broken."""

    slices: tuple[Slice, ...] = ()
    """The project's slices; critical ones are cases."""
    loss: float = 0.05
    """A student breaks on a case where a larger one is right more often by more than this, for certain."""


def compression(scores: tuple[Scores, ...], rows: CalibrationSet, recipe: CompressionRecipe, *, functions: Functions = NO_FUNCTIONS) -> Compression:
    """
    Hold each student against the larger ones, on the same rows of each case.

    Args:
        scores: of the calibration rows; baselines are left out.
        rows: calibration rows: sealed ones would be used up by looking at so many cases.
        recipe: slices and the loss.
        functions: "module:function" to the function, for slices that equality can't say.

    Returns: critical slices in file order, then rare labels, the rarest first; no case where there are fewer than two students.
    """
    ladder = sorted((s for s in scores if s.kind == "student"), key=lambda s: (s.size_bytes, s.name))
    found = list(_cases(rows, recipe.slices, functions)) if len(ladder) > 1 else []
    pairs = len(found) * len(ladder) * (len(ladder) - 1) // 2
    level = 1.0 - DELTA / max(1, pairs)
    sheet = sheet_of(rows)
    truth = np.where(sheet.has_gold, sheet.gold, sheet.target)
    right = [(s, reading_of(s, rows, 1.0).answer == truth) for s in ladder]
    cases = tuple(_case(case, mask, right, recipe.loss, level) for case, mask in found)
    return Compression(cases=cases, n=len(rows.examples), loss=recipe.loss, level=level)


def _cases(rows: CalibrationSet, slices: Sequence[Slice], functions: Functions) -> Iterator[tuple[Case, Mask]]:
    labels = [e.target if e.gold is None else e.gold for e in rows.examples]
    critical = [one for one in slices if one.critical]
    member = assign(critical, [e.request for e in rows.examples], labels, functions=functions)
    for i, one in enumerate(critical):
        if member[:, i].any():
            yield Case(name=one.name, kind="critical", n=int(member[:, i].sum()), rungs=(), breaks_at=""), member[:, i]
    column, known = np.array(labels), {one.where for one in critical}
    counts = {label: int((column == label).sum()) for label in rows.labels}
    most = RARE * len(labels) / max(1, len(rows.labels))
    for label in sorted(counts, key=lambda label: (counts[label], label)):
        if 0 < counts[label] <= most and (("label", (label,)),) not in known:
            yield Case(name=label, kind="rare", n=counts[label], rungs=(), breaks_at=""), column == label


def _case(case: Case, mask: Mask, right: Sequence[tuple[Scores, Mask]], loss: float, level: float) -> Case:
    rungs = tuple(_rung(one, hit[mask], [(s.name, h[mask]) for s, h in right[at + 1 :]], loss, level) for at, (one, hit) in enumerate(right))
    broken = [r.name for r in rungs if r.state == "broken"]
    return replace(case, rungs=rungs, breaks_at=broken[-1] if broken else "")


def _rung(one: Scores, hit: Mask, larger: Sequence[tuple[str, Mask]], loss: float, level: float) -> Rung:
    made = Rung(name=one.name, size_bytes=one.size_bytes, right=figure(int(hit.sum()), len(hit), metric="right"), state="top")
    against = []
    for name, other in larger:
        gained, lost = int((other & ~hit).sum()), int((hit & ~other).sum())
        between = difference_interval(gained, lost, len(hit), level=level)
        against.append(replace(made, lost_to=name, lost=(gained - lost) / len(hit), low=between.low, high=between.high))
    if not against:
        return made
    worst = max(against, key=lambda r: (r.low, r.lost))
    state: Kept = "broken" if worst.low > loss else "whole" if all(r.high <= loss for r in against) else "can't tell"
    return replace(worst, state=state)


def compression_answers(found: Compression, chosen: CandidateReport) -> tuple[Answer, ...]:
    """
    The gate's word: no case breaks on the student that is to ship, or what it gets wrong there is shown to be caught.

    Args:
        found: on calibration rows.
        chosen: its report, which says how each case does as served.

    Returns: a failure for each case that is broken and not caught, not-run for a critical one that can't be told; else one pass.
    """
    served = {s.slice: s for s in chosen.slices}
    wrong, caught, unsure = [], [], []
    for case in found.cases:
        rung = next((r for r in case.rungs if r.name == chosen.name), None)
        if rung is None or rung.state in ("top", "whole"):
            continue
        if (why := _caught(served.get(case.name), found.loss)) is not None:
            caught.append(f"{case.name!r} ({why})")
        elif rung.state == "broken":
            reason = f"{_words(case, rung)}; that the fallback catches it is not shown"
            wrong.append(Answer(outcome="fail", reason=reason, todo=f"serve {rung.lost_to}, or teach more {case.name!r} requests"))
        elif case.kind == "critical":
            todo = f"collect more {case.name!r} requests, or serve {rung.lost_to}"
            wrong.append(Answer(outcome="not-run", reason=f"{_words(case, rung)}: not enough data to tell", todo=todo))
        else:
            unsure.append(repr(case.name))
    if wrong:
        return tuple(wrong)
    aside = f"; caught as served: {', '.join(caught)}" if caught else ""
    aside += f"; too few rows to tell for the rare {', '.join(unsure)}" if unsure else ""
    return (Answer(outcome="pass", reason=f"of {len(found.cases)} critical and rare cases none is known to break at {chosen.name}{aside}"),)


def _words(case: Case, rung: Rung) -> str:
    kind = "critical slice" if case.kind == "critical" else "rare label"
    seen, pairs = rung.right, f"{100 * rung.low:+.1f} to {100 * rung.high:+.1f}"
    return (
        f"{kind} {case.name!r}: {rung.name} alone is right on {seen.value or 0.0:.1%} ({seen.low:.1%} to {seen.high:.1%}, n = {case.n:,}), "
        f"the larger {rung.lost_to} on {100 * rung.lost:.1f} points more ({pairs})" + (f"; it breaks at {case.breaks_at}" if case.breaks_at else "")
    )


def _caught(report: SliceReport | None, loss: float) -> str | None:
    """How what is served shows that the case is right all the same; None where it doesn't."""
    seen: Figure | None = None if report is None else report.served_accuracy if report.served_accuracy is not None else report.served_fidelity
    if seen is None or seen.value is None:
        return None
    if seen.verdict == "pass" or (seen.bar is None and seen.low >= 1.0 - loss):
        return f"{seen.value:.1%} right as served, {seen.low:.1%} at least, n = {seen.n:,}"
    return None


COMPRESSION = Step(name="compression", version=1, fn=compression)
