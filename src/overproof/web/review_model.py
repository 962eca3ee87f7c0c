"""What the review desk's page shows beside the rows: who said what, what it changed, and what more would bring."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from overproof.desk import Desk
from overproof.errors import OverproofError
from overproof.evidence import Figure
from overproof.measure.intervals import figure
from overproof.pipeline import RunResult
from overproof.runs import RunRecord
from overproof.steps.answers import same_answer
from overproof.steps.queues import Split
from overproof.steps.reviewing import Conflict, Outcome
from overproof.steps.teacher_errors import LabelErrors, TeacherErrors
from overproof.store.reviews import Review
from overproof.web.desk_table import Prepared, Tables
from overproof.web.place import Place

POINTS: Final = 24
"""Places on the curve."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Person:
    """One reviewer."""

    name: str
    words: int
    seconds: float | None
    """Median time for a row, where it was measured."""
    shown: int
    """Words said with an answer of a model in sight."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """The teacher's share of wrong labels after so many reviewed rows that chance chose."""

    rows: int
    wrong: Figure


@dataclass(frozen=True, kw_only=True, slots=True)
class BeforeAfter:
    """The student of a run without reviews beside that of a run with them."""

    before: str
    """Ids of the runs."""
    after: str
    rows: int
    """Sealed rows, the same in both; 0 where they are not."""
    name: str
    figures: tuple[tuple[str, Figure | None, Figure | None], ...]
    """(what, before, after), of the student alone on all sealed rows."""
    changed: Mapping[str, int]
    """What the reviews changed in the run with them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReviewPage:
    """The page without its rows."""

    outcome: Outcome
    """Settled labels, conflicts and agreement."""
    people: tuple[Person, ...]
    drawn: int
    """Reviewed rows that chance chose."""
    picked: int
    """Reviewed rows of the fix queue."""
    fresh: int
    """Words since the last run: the next one uses them."""
    corrected: int
    """Training rows that the next run gives another label because somebody said so."""
    confirmed: int
    errors: TeacherErrors | None
    """None where there are no rows yet, or the answers are no labels."""
    labels: tuple[LabelErrors, ...]
    """Those with reviewed rows, the surest mistakes first."""
    curve: tuple[Step, ...]
    prepared: Prepared | None
    effect: BeforeAfter | None
    behind: str = ""
    problem: str = ""
    """Why there are no rows to review."""
    next_action: str = ""
    rest: Mapping[Split, int] = field(default_factory=dict)
    """Rows of each split; none where there are no rows to review."""
    waiting_live: int = 0
    """Audited live answers that wait for a person."""
    judged: int = 0
    """Served answers that a judge of texts and people are asked about."""


def read_review(place: Place, tables: Tables) -> ReviewPage:
    """
    What the desk has to show.

    Args:
        place: the task.
        tables: its desks.

    Returns: the page's values; a project without rows has a problem and what to do next.
    """
    store, runs = place.store, place.runs()
    words = store.reviews.live().rows
    live = tables.of("live")
    shared: dict[str, Any] = {
        "people": _people(store.reviews.live().rows, store.reviews.live(audited=True).rows, store.reviews.live(judged=True).rows),
        "fresh": sum(one.at > runs[-1].at for one in words) if runs else len(words), "effect": before_after(place, runs),
        "waiting_live": len(live.queue("audit", "live", "")),
    }  # fmt: skip
    try:
        desk = tables.desk()
    except OverproofError as problem:
        return ReviewPage(
            outcome=live.outcome, drawn=0, picked=0, corrected=0, confirmed=0, errors=None, labels=(), curve=(), prepared=None,
            problem=problem.what, next_action=problem.next_action, **shared,
        )  # fmt: skip
    outcome, errors = desk.outcome, tables.errors(desk)
    known = sorted((one for one in errors.labels if one.wrong_when_said.n), key=lambda one: (-one.wrong_when_said.low, -one.missed.low, -(one.wrong_when_said.value or 0), one.label))
    return ReviewPage(
        outcome=outcome, drawn=sum(s.queue == "audit" for s in outcome.settled.values()), picked=sum(s.queue == "fix" for s in outcome.settled.values()),
        corrected=errors.counts.get("train: reviewed, corrected", 0), confirmed=errors.counts.get("train: reviewed, confirmed", 0), errors=errors, labels=tuple(known), curve=curve(desk, words, outcome),
        prepared=tables.prepared(desk) if desk.output.labels else None, behind=desk.behind,
        rest=desk.sizes(), judged=_judged(desk), **shared,
    )  # fmt: skip


def curve(desk: Desk, words: Sequence[Review], outcome: Outcome) -> tuple[Step, ...]:
    """
    How the share of wrong labels became known, row by row.

    Args:
        desk: whose rows.
        words: oldest first.
        outcome: what they settled on.

    Returns: at most `POINTS` places; rows that chance chose alone, sealed ones left out.
    """
    said, output = desk.said(), desk.labelled.train.output
    order = dict.fromkeys(one.digest for one in words if one.queue == "audit")
    wrong = [
        not same_answer(output, outcome.settled[digest].label, said[digest])
        for digest in order if digest in said and digest in outcome.settled and outcome.settled[digest].queue == "audit"
    ]  # fmt: skip
    places = sorted({round((i + 1) * len(wrong) / POINTS) for i in range(POINTS)} - {0})
    return tuple(Step(rows=n, wrong=figure(sum(wrong[:n]), n, metric="error")) for n in places)


def before_after(place: Place, runs: Sequence[RunRecord]) -> BeforeAfter | None:
    """
    The newest run that used reviews beside the newest before it that did not.

    Args:
        place: the task.
        runs: oldest first.

    Returns: both, their figures only where both sealed the same rows; None where there are no two such runs.
    """
    reviewed = [i for i, one in enumerate(runs) if "mended" in one.digests or "teacher" in one.digests]
    plain = [i for i in range(reviewed[-1]) if i not in reviewed] if reviewed else []
    if not plain:
        return None
    first, second = place.run(runs[plain[-1]].id), place.run(runs[reviewed[-1]].id)
    if first is None or second is None:
        return None
    teacher = second.artifacts.get("teacher")
    changed: Mapping[str, int] = teacher.value.counts if teacher is not None else {}
    same, name, figures = _sealed(first) & _sealed(second), "", []
    alike = same == _sealed(first) == _sealed(second)
    if alike:
        old, new = first.artifacts["report"].value, second.artifacts["report"].value
        name = old.chosen if any(c.name == old.chosen for c in new.candidates) else new.chosen
        one = next((c.slices[0] for c in old.candidates if c.name == name), None)
        two = next((c.slices[0] for c in new.candidates if c.name == name), None)
        if one is not None and two is not None:
            figures = [("agreement with the teacher", one.fidelity, two.fidelity), ("right, against true labels", one.accuracy, two.accuracy)]
    return BeforeAfter(before=first.run_id, after=second.run_id, rows=len(same) if alike else 0, name=name, figures=tuple(figures), changed=changed)


def _sealed(run: RunResult) -> frozenset[str]:
    artifact = run.artifacts.get("labels")
    return frozenset(e.request.digest for e in artifact.value.test.examples) if artifact is not None else frozenset()


def _judged(desk: Desk) -> int:
    try:
        return len(desk.answers())
    except OverproofError:  # no run has asked a judge of texts
        return 0


def _people(*words: Sequence[Review]) -> tuple[Person, ...]:
    said: dict[str, list[Review]] = {}
    for one in (one for some in words for one in some):
        said.setdefault(one.reviewer, []).append(one)
    found = [
        Person(
            name=name, words=len(all_of), shown=sum(not one.blind for one in all_of),
            seconds=statistics.median(times) if (times := [one.seconds for one in all_of if one.seconds is not None]) else None,
        )
        for name, all_of in said.items()
    ]  # fmt: skip
    return tuple(sorted(found, key=lambda one: (-one.words, one.name)))


def conflict_words(one: Conflict) -> str:
    """Who says what of a row."""
    return " · ".join(f"{who}: {what}" for who, what in sorted(one.words.items()))
