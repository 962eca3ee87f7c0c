"""What the evaluation's page knows beyond the report: the student's answers to calibration rows, where they may be shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from overproof.data import CalibrationSet
from overproof.evidence import CandidateReport, Confidence, EvalReport, Figure, Plan, Scores
from overproof.measure.intervals import figure
from overproof.measure.slices import OTHER
from overproof.pipeline import RunResult
from overproof.recipes import routed_slices
from overproof.steps.answers import answers_of
from overproof.steps.calibrate import Reading, reading_of, sheet_of, slice_names
from overproof.steps.evaluate import TEXT_CHARS
from overproof.web.place import Place

Right = Literal["teacher", "student", "neither", "unknown"]
RIGHT: Final[tuple[Right, ...]] = ("teacher", "student", "neither", "unknown")
MOST_PAIRS: Final = 12
GRID_LABELS: Final = 30
"""More labels than this are no grid that anybody reads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Differing:
    """One calibration row on which student and teacher differ."""

    id: str
    text: str
    teacher: str
    student: str
    gold: str | None
    confidence: float | None
    """None where nothing can be read."""
    slice: str
    """Its certification slice; empty where not known."""
    right: Right
    """Who says what the true label says."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """What the teacher calls one thing and the student another."""

    teacher: str
    student: str
    share: Figure
    """Of the calibration rows with the teacher's label."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """A candidate on all calibration rows."""

    n: int
    differing: tuple[Differing, ...]
    """The teacher right first, then by falling confidence."""
    labels: tuple[str, ...]
    """The task's; empty for written answers."""
    counts: Mapping[tuple[str, str], int]
    """(teacher's, student's) label to rows; empty for written answers."""
    slices: tuple[str, ...]
    """Certification slices that the rows are in."""
    whole: bool
    """False where only the listed disagreements of the report are known."""

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """The most confused ones first."""
        of = Counter[str]()
        for (teacher, _), n in self.counts.items():
            of[teacher] += n
        found = [(n, pair) for pair, n in self.counts.items() if pair[0] != pair[1]]
        most = sorted(found, key=lambda one: (-one[0], one[1]))[:MOST_PAIRS]
        return tuple(Pair(teacher=t, student=s, share=figure(n, of[t], metric="confused")) for n, (t, s) in most)


def candidate_of(report: EvalReport, name: str) -> CandidateReport:
    """
    The candidate that a page is about.

    Args:
        report: of a run.
        name: any text.

    Returns: the one of this name; the chosen one where there is none.
    """
    by_name = {one.name: one for one in report.candidates}
    return by_name.get(name, by_name[report.chosen])


def answered(place: Place, run: RunResult, name: str) -> Answered | None:
    """
    What a candidate answered on the calibration rows of a run. Sealed rows are never shown.

    Args:
        place: the task.
        run: any run.
        name: of the candidate.

    Returns: the answers; for the chosen one at least the disagreements that its report lists; None where the run has kept nothing.
    """
    report: EvalReport = run.artifacts["report"].value
    plan: Plan = run.artifacts["plan"].value
    rows, scores = _kept(place, run, plan, name)
    if rows is not None and scores is not None:
        names = _slices(place, run, rows, plan)
        how = _how(report, plan, name)
        if names is not None or not how.own:
            names = names or ("",) * len(rows.examples)  # not known, and nothing depends on it
            return _compared(rows, scores, reading_of(scores, rows, how, slices=names), names)
    return _listed(report) if name == report.chosen else None


def _kept(place: Place, run: RunResult, plan: Plan, name: str) -> tuple[CalibrationSet | None, Scores | None]:
    """The rows and scores that the run's plan was made from, by the digests of what they were made of."""
    memo, weights = place.store.memo(), plan.digests.get(f"weights {name}")
    rows = memo.made_of("take_calibration", run.artifacts["labels"].digest)
    if rows is None or weights is None:
        return None, None
    scores = memo.made_of("predict-dev", weights, rows.digest)
    return rows.value, scores.value if scores is not None else None


def _how(report: EvalReport, plan: Plan, name: str) -> Confidence:
    """How the plan read the chosen one; others as they were calibrated, or as they came."""
    found = next(one for one in report.candidates if one.name == name).calibration
    return plan.confidence if name == plan.chosen or found is None else found.confidence


def _slices(place: Place, run: RunResult, rows: CalibrationSet, plan: Plan) -> tuple[str, ...] | None:
    """The certification slice of each row; None where they are cut otherwise now, or by a function of the owner's."""
    surveyed = place.store.memo().made_of("survey", run.artifacts["traffic"].digest, run.artifacts["labels"].digest)
    if surveyed is None:
        return None
    routed = routed_slices(place.project, surveyed.value)
    if any(one.function for one in routed) or {OTHER, *(one.name for one in routed)} != {OTHER, *(one.slice for one in plan.slices)}:
        return None
    return slice_names(rows, routed, {})


def _compared(rows: CalibrationSet, scores: Scores, reading: Reading, names: Sequence[str]) -> Answered:
    sheet = sheet_of(rows)
    written = answers_of(scores, rows) if rows.output is not None else ()
    said = [one or "(no answer)" for one in written] if written else [rows.labels[int(i)] for i in reading.answer]
    found = []
    for i in np.flatnonzero(reading.answer != sheet.target).tolist():
        example, sure = rows.examples[i], float(reading.confidence[i])
        gold, right = sheet.gold[i], "neither"
        if not sheet.has_gold[i]:
            right = "unknown"
        elif gold in (sheet.target[i], reading.answer[i]):
            right = "teacher" if gold == sheet.target[i] else "student"
        found.append(
            Differing(
                id=example.request.id, text=example.request.text[:TEXT_CHARS], teacher=example.target, student=said[i], gold=example.gold,
                confidence=None if np.isnan(sure) else sure, slice=names[i], right=right,  # type: ignore[arg-type]  # one of four words
            )
        )  # fmt: skip
    return Answered(
        n=len(rows.examples), differing=_worst_first(found), labels=rows.labels if rows.output is None else (),
        counts=Counter(zip((e.target for e in rows.examples), said, strict=True)) if rows.output is None else {},
        slices=tuple(sorted(set(names) - {""})), whole=True,
    )  # fmt: skip


def _worst_first(found: Sequence[Differing]) -> tuple[Differing, ...]:
    rank = {"teacher": 0, "neither": 1, "unknown": 1, "student": 2}
    return tuple(sorted(found, key=lambda one: (rank[one.right], -(one.confidence or 0.0), one.id)))


def _listed(report: EvalReport) -> Answered:
    """What the report itself lists, where the scores are gone."""
    def right(teacher: str, student: str, gold: str | None) -> Right:
        return "unknown" if gold is None else "teacher" if gold == teacher else "student" if gold == student else "neither"

    found = [
        Differing(id=d.request_id, text=d.text, teacher=d.teacher, student=d.student, gold=d.gold, confidence=d.confidence, slice="", right=right(d.teacher, d.student, d.gold))
        for d in report.disagreements
    ]
    return Answered(n=0, differing=tuple(found), labels=(), counts={}, slices=(), whole=False)


def chosen_rows(found: Answered, *, teacher: str, student: str, where: str, right: str, text: str) -> tuple[Differing, ...]:
    """
    The disagreements that a reader asks for.

    Args:
        found: all of them.
        teacher: the teacher's answer; any where empty.
        student: the student's.
        where: the certification slice.
        right: who is right.
        text: letters of the message.

    Returns: in the order of `found`.
    """
    wanted = text.casefold()
    return tuple(
        one for one in found.differing
        if (not teacher or one.teacher == teacher) and (not student or one.student == student) and (not where or one.slice == where)
        and (not right or one.right == right) and (not wanted or wanted in one.text.casefold())
    )  # fmt: skip
