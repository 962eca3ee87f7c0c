"""From answers to labels: one target per row, bad rows out with a reason, every row accounted for."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from overproof import registry
from overproof.data import (
    FEEDBACK,
    Answered,
    Answers,
    CalibrationSet,
    Completion,
    Dropped,
    Example,
    Labelled,
    TestSet,
    TrainSet,
)
from overproof.errors import DataError
from overproof.measure.leakage import clusters
from overproof.outputs import alike
from overproof.progress import track
from overproof.store.artifacts import Step
from overproof.store.labels import SET_ASIDE
from overproof.task import Classes, Fields, Output, Text
from overproof.verifiers import Verifier
from overproof.verifiers.confined import Confined

KEPT = "kept"
NO_ANSWER = "no answer"
NO_LABEL = "no answer is a label"
CONFLICT = "near-duplicates disagree"
CONFLICT_RULE = "conflict"


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifierSpec:
    """One `[[verify]]` table."""

    use: str
    """Part name, or "module:function"."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The verifier's options."""
    source_digest: str = ""
    """SHA-256 of the user's module, so that an edited check is another recipe; empty for named parts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FilterRecipe:
    """What a label must survive."""

    labels: tuple[str, ...]
    """The task's labels, in its order."""
    verifiers: tuple[VerifierSpec, ...] = ()
    """In order; the first that objects names the reason."""
    unknown_is_complete: bool = True
    """Whether an answer whose end nobody wrote down may be a label."""
    output: Fields | Text | None = None
    """What the answers are where they are no labels."""

    @property
    def kind(self) -> Output:
        """What an answer is."""
        return self.output or Classes(labels=self.labels)


@dataclass(frozen=True, kw_only=True, slots=True)
class NoRecipe:
    """For steps that have nothing to decide."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    answered: Answered
    example: Example


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sorted:
    examples: tuple[Example, ...]
    dropped: tuple[Dropped, ...]
    counts: Mapping[str, int]


def verifier_spec(use: str, options: Mapping[str, Any]) -> VerifierSpec:
    """
    The recipe entry for one `[[verify]]` table.

    Args:
        use: part name, or "module:function".
        options: the verifier's options.

    Returns: the entry, with the digest of the user's module where there is one.
    """
    if ":" not in use:
        return VerifierSpec(use=use, options=options)
    try:
        found = importlib.util.find_spec(use.partition(":")[0])  # found, not run: it runs in a process of its own
    except (ImportError, ValueError):
        found = None
    source = Path(found.origin).read_bytes() if found is not None and found.origin else b""
    return VerifierSpec(use=use, options=options, source_digest=hashlib.sha256(source).hexdigest())


def filter_labels(answers: Answers, recipe: FilterRecipe) -> Labelled:
    """
    Choose one label per row and leave out what should not be learned from.

    Verifiers and near-duplicate conflicts drop training rows only. Calibration and test rows leave only where no
    answer is a label: taking the hard ones out would flatter every figure.

    Args:
        answers: the teacher's samples.
        recipe: labels and verifiers.

    Returns: the three sets, what was dropped, and counts in which every row is in exactly one entry.
    Raises: DataError where a split comes out empty, or a verifier can't be made or crashes.
    """
    output, labels, kind = recipe.kind, recipe.labels, recipe.output
    with contextlib.ExitStack() as stack:
        verifiers = []
        for spec in recipe.verifiers:
            made = _make(spec, output)
            stack.callback(getattr(made, "close", _nothing))
            verifiers.append((spec.use, made))
        train = _sort("train", answers.train, recipe, output, verifiers)
        calibration = _sort("calibration", answers.calibration, recipe, output, verifiers)
        test = _sort("test", answers.test, recipe, output, verifiers)
    return Labelled(
        train=TrainSet(examples=train.examples, labels=labels, output=kind),
        calibration=CalibrationSet(examples=calibration.examples, labels=labels, output=kind),
        test=TestSet(examples=test.examples, labels=labels, output=kind),
        dropped=(*train.dropped, *calibration.dropped, *test.dropped),
        counts={**train.counts, **calibration.counts, **test.counts},
    )


def _nothing() -> None:
    """What most verifiers have to do at the end."""


def _make(spec: VerifierSpec, output: Output) -> Verifier:
    made: Verifier
    try:
        if ":" in spec.use:
            made = Confined(output=output, function=spec.use, **spec.options)
        else:
            made = registry.resolve("verifiers", spec.use)(output=output, **spec.options)
    except TypeError as error:
        raise DataError(
            f"[[verify]] use = {spec.use!r} can't take the options {dict(spec.options)!r}: {error}",
            next_action=f"look up the options of {spec.use}, and mend the table",
        ) from error
    return made


def _sort(
    split: str,
    rows: Sequence[Answered],
    recipe: FilterRecipe,
    output: Output,
    verifiers: Sequence[tuple[str, Verifier]],
) -> _Sorted:
    strict = split == "train"
    counts: Counter[str] = Counter()
    dropped: list[Dropped] = []
    labelled: list[_Row] = []

    def drop(row: Answered, by: str, reason: str, count_as: str, target: str = "") -> None:
        text = row.completions[0].text[:500] if row.completions else ""
        dropped.append(
            Dropped(
                request=row.row.request, split=split, by=by, reason=reason, text=text, target=target,
                gold=None if row.row.gold_from == FEEDBACK else _gold(row.row.gold, output), weight=row.row.weight,
            )
        )
        counts[f"{split}: {count_as}"] += 1

    for row in track(rows, f"labels of the {split} rows", total=len(rows)):
        example = _example(row, recipe, output)
        if example is not None:
            labelled.append(_Row(answered=row, example=example))
        elif not row.completions:
            drop(row, "teach", row.reason or NO_ANSWER, SET_ASIDE if row.reason == SET_ASIDE else NO_ANSWER)
        else:
            reason = next((c.reason for c in row.completions if c.reason), NO_LABEL)
            drop(row, "filter", reason, NO_LABEL)
    objections = _objections(labelled, verifiers, recipe.output)
    kept: list[Example] = []
    for one, objection in zip(labelled, objections, strict=True):
        if objection is None:
            kept.append(one.example)
            counts[f"{split}: {KEPT}"] += 1
        elif strict:
            drop(one.answered, objection.by, objection.reason, objection.count_as, one.example.target)
        else:
            kept.append(one.example)
            counts[f"{split}: {KEPT}, though {objection.count_as}"] += 1
    assert sum(counts.values()) == len(rows)
    assert len(kept) + len(dropped) == len(rows)
    if not kept:
        raise _empty(split, len(rows), counts)
    return _Sorted(examples=tuple(kept), dropped=tuple(dropped), counts=dict(sorted(counts.items())))


def _empty(split: str, n: int, counts: Mapping[str, int]) -> DataError:
    why = "; ".join(f"{count} {reason.partition(': ')[2]}" for reason, count in Counter(counts).most_common(3))
    return DataError(
        f"none of the {n} rows of the {split} split has a label that can be used: {why or 'there are no rows'}",
        next_action="look at the teacher's answers and at [task] output, then run again",
    )


def _example(answered: Answered, recipe: FilterRecipe, output: Output) -> Example | None:
    """The row with a committee's label, or that of most samples; the first sample's among those that tie."""
    usable = [c for c in answered.completions if _usable(c, recipe, output)]
    said = alike(recipe.output, [c.value for c in usable if c.value is not None])
    votes = Counter(said)
    if not votes:
        return None
    most = max(votes.values())
    target = next(value for value in said if votes[value] == most)
    decided = alike(recipe.output, [*votes, answered.decided])[-1] if answered.decided else ""
    if decided in votes:
        target, most = decided, votes[decided]
    row = answered.row
    return Example(
        request=row.request,
        target=target,
        weight=row.weight,
        agreement=most / len(answered.completions),
        samples=len(answered.completions),
        gold=_gold(row.gold, output),
        gold_from=row.gold_from,
        near_train=row.near_train,
        boost=row.boost,
        latency_s=next((c.latency_s for c in usable if c.latency_s is not None), None),
        cost_usd=next((c.cost_usd for c in usable if c.cost_usd is not None), None),
    )


def _usable(completion: Completion, recipe: FilterRecipe, output: Output) -> bool:
    complete = completion.finish == "stop" or (completion.finish == "unknown" and recipe.unknown_is_complete)
    if recipe.output is None:
        return complete and not completion.reason and completion.value in recipe.labels
    # what was redacted, or bought for other fields, may be no record of this task any more
    return complete and not completion.reason and completion.value is not None and _gold(completion.value, output) == completion.value


def _gold(gold: str | None, output: Output) -> str | None:
    """The gold in the task's spelling; one that is no label stays as it is, and no answer is right there."""
    if gold is None:
        return None
    try:
        return output.parse(gold)
    except DataError:
        return gold


@dataclass(frozen=True, kw_only=True, slots=True)
class _Objection:
    by: str
    reason: str
    count_as: str


def _objections(
    rows: Sequence[_Row], verifiers: Sequence[tuple[str, Verifier]], output: Fields | Text | None
) -> list[_Objection | None]:
    """Why each row should not be learned from: verifiers first; a row that they reject has no say on its like."""
    found = [_objection(row, verifiers) for row in rows]
    accepted = [place for place, objection in enumerate(found) if objection is None]
    for loser in _losers([rows[place] for place in accepted], output):
        found[accepted[loser]] = _Objection(by=CONFLICT_RULE, reason=CONFLICT, count_as=CONFLICT)
    return found


def _objection(row: _Row, verifiers: Sequence[tuple[str, Verifier]]) -> _Objection | None:
    for use, verifier in verifiers:
        judgement = verifier.judge(row.answered.row.request, row.answered.completions, row.example.target)
        if not judgement.keep:
            # a user's reasons may name the row, and would make a count of one each
            count_as = use if ":" in use else f"{use}: {judgement.reason}"
            return _Objection(by=use, reason=judgement.reason, count_as=count_as)
    return None


def _losers(rows: Sequence[_Row], output: Fields | Text | None) -> set[int]:
    """
    Places of rows that a near-duplicate contradicts: the minority of each cluster, all of it where there is a tie.

    A group also joins the rows of one session, which may well differ, so near-duplicates are looked for within it.
    Two documents that differ in a figure alone have two records, so for what is no label only the same text counts.
    """
    groups: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault(row.answered.row.group, []).append(place)
    losers: set[int] = set()
    for places in groups.values():
        if len({rows[p].example.target for p in places}) < 2:
            continue
        texts = [rows[p].example.request.text for p in places]
        near = clusters(texts).near.tolist() if output is None else [" ".join(text.casefold().split()) for text in texts]
        for cluster in set(near):
            members = [p for p, number in zip(places, near, strict=True) if number == cluster]
            said = dict(zip(members, alike(output, [rows[p].example.target for p in members]), strict=True))
            votes = Counter(said.values()).most_common()
            tie = len(votes) > 1 and votes[0][1] == votes[1][1]
            losers |= {p for p in members if tie or said[p] != votes[0][0]}
    return losers


def take_train(labelled: Labelled, recipe: NoRecipe) -> TrainSet:
    """The training rows by themselves, so that students depend on nothing else."""
    del recipe
    return labelled.train


def take_calibration(labelled: Labelled, recipe: NoRecipe) -> CalibrationSet:
    """The calibration rows by themselves."""
    del recipe
    return labelled.calibration


def take_test(labelled: Labelled, recipe: NoRecipe) -> TestSet:
    """The sealed rows by themselves; their digest names them in the ledger."""
    del recipe
    return labelled.test


FILTER = Step(name="filter", version=2, fn=filter_labels)
TAKE_TRAIN = Step(name="take_train", version=1, fn=take_train)
TAKE_CALIBRATION = Step(name="take_calibration", version=1, fn=take_calibration)
TAKE_TEST = Step(name="take_test", version=1, fn=take_test)
