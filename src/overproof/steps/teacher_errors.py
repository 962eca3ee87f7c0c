"""Where the teacher is wrong: per label and segment with intervals, which labels it mixes up, and what reviews would buy."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from overproof.data import FEEDBACK, Example, Labelled
from overproof.errors import DataError
from overproof.evidence import Figure
from overproof.measure.intervals import cp_lower, figure
from overproof.outputs import Fields, Text
from overproof.steps.answers import same_answer
from overproof.steps.mend import Buy, HeldOut, Mended, Suspect
from overproof.store.artifacts import Step

EXAMPLES = 3
LONGEST = 200  # characters of an example
SYSTEMATIC = 0.05  # a pair is systematic where surely more than one in twenty answers of the label are this mistake
LEVEL = 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherErrorsRecipe:
    """What to cut by."""

    attributes: tuple[str, ...] = ()
    """Attributes whose values get a row of their own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelErrors:
    """One label: how often the teacher is wrong when it says it, and when it should have said it."""

    label: str
    wrong_when_said: Figure
    """Share of wrong answers among those that say this label."""
    missed: Figure
    """Share of the rows that truly have this label on which the teacher says another."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Confusion:
    """The teacher says one label where another is true."""

    said: str
    true: str
    rows: int
    of_said: int
    """Known rows on which the teacher says `said`."""
    low: float
    """Lower bound of rows / of_said; at 0.95 for all pairs together."""
    systematic: bool
    examples: tuple[str, ...]
    """Texts of training rows, cut to 200 characters."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherErrors:
    """The teacher-error report."""

    overall: Figure
    """Share of wrong answers, over rows with gold that nobody picked for looking wrong."""
    labels: tuple[LabelErrors, ...]
    """Most often missed first."""
    segments: Mapping[str, Figure]
    """"attribute=value" to the share of wrong answers."""
    confusions: tuple[Confusion, ...]
    """Most frequent first."""
    suspects: tuple[Suspect, ...]
    check: HeldOut | None
    buys: tuple[Buy, ...]
    counts: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def teacher_errors(before: Labelled, mended: Mended, recipe: TeacherErrorsRecipe) -> TeacherErrors:
    """
    Compare the teacher with gold on training and calibration rows; sealed rows are never read.

    Args:
        before: the filter's result, with the teacher's labels.
        mended: the same rows after reviews.
        recipe: what to cut by.

    Returns: figures with exact intervals; words of the fix queue are in none of them.
    Raises: DataError where the rows before and after are not the same.
    """
    said = {e.request.id: e.target for e in (*before.train.examples, *before.calibration.examples)}
    after = (*mended.labelled.train.examples, *mended.labelled.calibration.examples)
    if [e.request.id for e in after] != list(said):
        raise DataError("rows before and after mending differ", next_action="run again; this is a bug of overproof")
    known = [e for e in after if e.gold is not None and e.gold_from != FEEDBACK]  # mending makes no gold of picked rows; the log's own stays in
    train = {e.request.id for e in mended.labelled.train.examples}
    segments: dict[str, list[Example]] = defaultdict(list)
    for e in known:
        for name in recipe.attributes:
            if name in e.request.attributes:
                segments[f"{name}={e.request.attributes[name]}"].append(e)
    output = before.train.output
    overall = _wrong(known, said, output)
    notes = [] if known else ["no row has a true label yet: review rows of the audit queue first"]
    return TeacherErrors(
        overall=overall,
        labels=_labels(before.train.labels, known, said),
        segments={name: _wrong(rows, said, output) for name, rows in sorted(segments.items())},
        confusions=_confusions(known, said, train) if output is None else (),
        suspects=mended.suspects,
        check=mended.check,
        buys=mended.buys or _blind(overall),
        counts=mended.counts,
        notes=(*notes, *mended.notes),
    )


def _right(example: Example, said: Mapping[str, str], output: Fields | Text | None) -> bool:
    return example.gold is not None and same_answer(output, said[example.request.id], example.gold)


def _wrong(rows: Sequence[Example], said: Mapping[str, str], output: Fields | Text | None = None) -> Figure:
    return figure(sum(not _right(e, said, output) for e in rows), len(rows), metric="error", level=LEVEL)


def _labels(labels: Sequence[str], known: Sequence[Example], said: Mapping[str, str]) -> tuple[LabelErrors, ...]:
    told: dict[str, list[Example]] = defaultdict(list)
    true: dict[str, list[Example]] = defaultdict(list)
    for e in known:
        told[said[e.request.id]].append(e)
        true[e.gold or ""].append(e)
    found = [LabelErrors(label=label, wrong_when_said=_wrong(told[label], said), missed=_wrong(true[label], said)) for label in labels]
    return tuple(sorted(found, key=lambda one: (-one.missed.low, -(one.missed.value or 0.0), one.label)))


def _confusions(known: Sequence[Example], said: Mapping[str, str], train: set[str]) -> tuple[Confusion, ...]:
    of_said = Counter(said[e.request.id] for e in known)
    pairs: dict[tuple[str, str], list[Example]] = defaultdict(list)
    for e in known:
        if e.gold is not None and said[e.request.id] != e.gold:
            pairs[said[e.request.id], e.gold].append(e)
    found = []
    for (told, true), rows in pairs.items():
        low = cp_lower(len(rows), of_said[told], (1 - LEVEL) / len(pairs))
        texts = [e.request.text[:LONGEST] for e in rows if e.request.id in train][:EXAMPLES]
        found.append(
            Confusion(
                said=told, true=true, rows=len(rows), of_said=of_said[told], low=low,
                systematic=low > SYSTEMATIC, examples=tuple(texts),
            )
        )
    return tuple(sorted(found, key=lambda c: (-c.rows, c.said, c.true)))


def _blind(overall: Figure) -> tuple[Buy, ...]:
    """Before anything was learned, reviews find wrong labels at the teacher's own rate, at least at its lower bound."""
    return tuple(Buy(reviews=n, corrected=n * overall.low) for n in (100, 200, 500)) if overall.n else ()


TEACHER_ERRORS = Step(name="teacher_errors", version=1, fn=teacher_errors)
