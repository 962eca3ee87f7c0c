"""Several teachers, one label: where they disagree, who decides, and how often each was followed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from overproof.data import Answered, Answers, Clearance, Committee, Member, PromptSet
from overproof.errors import DataError
from overproof.measure.judges import dawid_skene, panel_posterior
from overproof.measure.labels import agreement
from overproof.outputs import Fields, Text, alike
from overproof.store.artifacts import Step

Rule = Literal["majority", "dawid-skene"]
SPLITS = ("train", "calibration", "test")


@dataclass(frozen=True, kw_only=True, slots=True)
class DisputedRecipe:
    """A row is disputed where the voters' labels differ, or one has none."""

    output: Fields | Text | None = None
    """See `CommitteeRecipe.output`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CommitteeRecipe:
    """How the answers become one label."""

    rule: Rule
    """"majority", or "dawid-skene", which weighs each voter by how it errs beside the others."""
    names: tuple[str, ...]
    """Of the voters, [teacher] first, and of the arbiter at the end if there is one."""
    labels: tuple[str, ...]
    """The task's labels, in its order."""
    arbiter: bool = False
    """Whether the last one is an arbiter: where it gave a label, that stands."""
    output: Fields | Text | None = None
    """What the answers are where they are no labels; then only "majority" is a rule."""


def disputed(prompts: PromptSet, voters: tuple[Answers, ...], recipe: DisputedRecipe) -> PromptSet:
    """
    The rows on which the voters don't all give the same label.

    Args:
        prompts: the rows.
        voters: what each teacher said about them.
        recipe: nothing.

    Returns: the prompt set with those rows only.
    """
    kept = {}
    for split in SPLITS:
        kept[split] = tuple(
            row
            for row, *said in zip(getattr(prompts, split), *(getattr(a, split) for a in voters), strict=True)
            if len(set(own := _labels(said, recipe.output))) > 1 or own[0] is None
        )
    return replace(prompts, train=kept["train"], calibration=kept["calibration"], test=kept["test"])


def decide(teachers: tuple[Answers, ...], clearances: tuple[Clearance, ...], recipe: CommitteeRecipe) -> Answers:
    """
    One label for each row from all teachers, with ties and overruled majorities counted.

    Args:
        teachers: the voters' answers, then the arbiter's if there is one.
        clearances: one for each teacher, in the same order.
        recipe: rule, names and labels.

    Returns: answers that carry the decided label and every teacher's completions, the first teacher's first.
    Raises: DataError for lists that don't fit together.
    """
    if not len(teachers) == len(clearances) == len(recipe.names):
        raise DataError(
            f"{len(teachers)} teachers, {len(clearances)} clearances and {len(recipe.names)} names",
            next_action="report this",
        )
    voters = teachers[:-1] if recipe.arbiter else teachers
    last = teachers[-1] if recipe.arbiter else None
    tables = {split: _table(split, voters) for split in SPLITS}
    words = {a.row.request.id: a for split in SPLITS for a in getattr(last, split)} if last is not None else {}
    weighed = _weighed([row for split in SPLITS for row in tables[split]], recipe)
    counts: Counter[str] = Counter()
    followed: Counter[int] = Counter()
    answered: Counter[int] = Counter()
    out: dict[str, tuple[Answered, ...]] = {}
    place = 0
    for split in SPLITS:
        rows = []
        for said in tables[split]:
            arbiter = words.get(said[0].row.request.id)
            every = [*said, *([arbiter] if arbiter is not None else [])]
            own = _labels(every, recipe.output)
            word = own.pop() if arbiter is not None else None
            label = _decide(own, word, weighed[place] if weighed else None, counts)
            place += 1
            for number, one in enumerate([*own, word] if arbiter is not None else own):
                answered[number] += one is not None
                followed[number] += label is not None and one == label
            rows.append(_joined(every, label))
        out[split] = tuple(rows)
    members = tuple(
        Member(
            name=name, pin=teacher.pin, clearance=clearance, arbiter=teacher is last,
            answered=answered[number], agreed=followed[number], spent_usd=teacher.spent_usd,
        )
        for number, (name, teacher, clearance) in enumerate(zip(recipe.names, teachers, clearances, strict=True))
    )  # fmt: skip
    report = Committee(
        rule=recipe.rule, members=members, rows=counts["rows"], unanimous=counts["unanimous"], tied=counts["tied"],
        arbitrated=counts["arbitrated"], overruled=counts["overruled"],
    )  # fmt: skip
    return replace(
        teachers[0],
        train=out["train"],
        calibration=out["calibration"],
        test=out["test"],
        spent_usd=sum(t.spent_usd for t in teachers),
        committee=report,
    )


def _decide(said: Sequence[str | None], word: str | None, weighed: str | None, counts: Counter[str]) -> str | None:
    votes = [label for label in said if label is not None]
    if not votes and word is None:
        return None
    counts["rows"] += 1
    plain = agreement(votes) if votes else None
    if plain is not None and plain.share == 1.0 and len(votes) == len(said):
        counts["unanimous"] += 1
    if plain is not None and len(plain.tied) > 1:
        counts["tied"] += 1
    label = weighed or (plain.value if plain is not None else None)
    if word is not None:
        counts["arbitrated"] += 1
        label = word
    if plain is not None and label not in plain.tied:
        counts["overruled"] += 1
    return label


def _joined(every: Sequence[Answered], label: str | None) -> Answered:
    completions = tuple(c for one in every for c in one.completions)
    if not completions:
        return every[0]
    return Answered(row=every[0].row, completions=completions, decided=label)


def _table(split: str, voters: Sequence[Answers]) -> list[tuple[Answered, ...]]:
    columns = [getattr(one, split) for one in voters]
    rows = list(zip(*columns, strict=True))
    if any(len({one.row.request.id for one in row}) != 1 for row in rows):
        raise DataError(f"the teachers of {split} were asked about different rows", next_action="report this")
    return rows


def _weighed(rows: Sequence[Sequence[Answered]], recipe: CommitteeRecipe) -> list[str | None]:
    """The label by Dawid and Skene's model of each row, None where nobody answered; empty for the majority rule."""
    if recipe.rule == "majority" or not rows:
        return []
    column = {label: place for place, label in enumerate(recipe.labels)}
    said = np.array([[column.get(one or "", -1) for one in _labels(row)] for row in rows], dtype=np.int64)
    some = [bool((row >= 0).any()) for row in said]
    if not any(some):
        return [None] * len(rows)
    best = panel_posterior(dawid_skene(said[some], len(recipe.labels)), said).argmax(axis=1)
    return [recipe.labels[int(best[i])] if some[i] else None for i in range(len(rows))]


def _labels(every: Sequence[Answered], output: Fields | Text | None = None) -> list[str | None]:
    """Each teacher's own label: what most of its samples say, the first among equals; None where it gave none."""
    samples = [alike(output, [c.value for c in one.completions if c.value is not None and not c.reason]) for one in every]
    own = [agreement(values).value if values else None for values in samples]
    like = iter(alike(output, [label for label in own if label is not None]))
    return [None if label is None else next(like) for label in own]


DISPUTED = Step(name="disputed", version=1, fn=disputed)
DECIDE = Step(name="decide", version=1, fn=decide)
