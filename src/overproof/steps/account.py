"""What became of every row of a run: how many each step let through, and which ones it left out, why and by whom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from overproof.data import MOST_NAMED, Answers, Dropped, Labelled, PromptSet, Traffic
from overproof.steps.capture import THIN
from overproof.steps.filter import NoRecipe
from overproof.store.artifacts import Step

Passage = Literal["capture", "prompts", "teach", "filter"]
TEXT_CHARS: Final = 400
MOST_REASONS: Final = 200
"""Reasons that name a row's own words come in any number; what is rarer than these is one reason."""
RARER = "rarer reasons"


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftRow:
    """One row that was left out."""

    id: str
    text: str = ""
    """The request; empty where the log has it."""
    answer: str = ""
    """What the teacher said."""
    label: str = ""
    """The label that it would have had."""
    reason: str = ""
    """Where it is more than that of the whole."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftOut:
    """Rows that one step left out for one reason."""

    at: Passage
    split: str
    """Empty where no split was chosen yet."""
    reason: str
    by: str
    """The step or verifier."""
    n: int
    rows: tuple[LeftRow, ...]
    """The first of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """From the log to three sets; small, however large the log was."""

    read: int
    """Rows of the log."""
    captured: int
    """Rows of the window."""
    chosen: int
    """Rows of the prompt set."""
    written: int
    """How many of them are no traffic."""
    answered: int
    """Rows with an answer of the teacher."""
    kept: Mapping[str, int]
    """Split to rows."""
    window: tuple[str | None, str | None]
    left: tuple[LeftOut, ...]
    """In the order of the road, the most rows first within a step."""


def account(traffic: Traffic, prompts: PromptSet, answers: Answers, labelled: Labelled, recipe: NoRecipe) -> Account:
    """
    Count the road from the log to the sets, and name what was left out on it.

    Args:
        traffic: the window.
        prompts: what was chosen of it.
        answers: what the teacher said.
        labelled: what stayed, at the end of all filters.
        recipe: nothing.

    Returns: the account.
    """
    del recipe
    every = (*prompts.train, *prompts.calibration, *prompts.test)
    asked = (*answers.train, *answers.calibration, *answers.test)
    window = [LeftOut(at="capture", split="", reason=reason, by="capture", n=n, rows=_ids(traffic.left_rows.get(reason, ()))) for reason, n in traffic.left_out.items()]
    chosen = []
    for fate, n in prompts.funnel.items():
        if fate != "rows read" and not fate.startswith("in "):
            split, _, reason = fate.rpartition(": ")
            chosen.append(LeftOut(at="prompts", split=split, reason=reason, by="promptset", n=n, rows=_ids(prompts.left_rows.get(fate, ()))))
    return Account(
        read=len(traffic.records) + sum(n for reason, n in traffic.left_out.items() if reason != THIN),
        captured=len(traffic.records),
        chosen=len(every),
        written=sum(row.origin != "traffic" for row in every),
        answered=sum(bool(row.completions) for row in asked),
        kept={"train": len(labelled.train.examples), "calibration": len(labelled.calibration.examples), "test": len(labelled.test.examples)},
        window=traffic.window,
        left=(*_most_first(window), *_most_first(chosen), *_most_first(_dropped("teach", labelled)), *_most_first(_dropped("filter", labelled))),
    )


def _most_first(found: Sequence[LeftOut] | Iterator[LeftOut]) -> list[LeftOut]:
    return sorted(found, key=lambda one: -one.n)


def _ids(ids: Sequence[str]) -> tuple[LeftRow, ...]:
    return tuple(LeftRow(id=one) for one in ids)


def _dropped(at: Passage, labelled: Labelled) -> Iterator[LeftOut]:
    groups: dict[tuple[str, str, str], list[Dropped]] = {}
    for one in labelled.dropped:
        if (one.by == "teach") is (at == "teach"):
            groups.setdefault((one.split, one.by, one.reason), []).append(one)
    rare: dict[tuple[str, str], list[Dropped]] = {}
    for place, ((split, by, reason), rows) in enumerate(sorted(groups.items(), key=lambda item: -len(item[1]))):
        if place < MOST_REASONS:
            yield _group(at, split, reason, by, rows)
        else:
            rare.setdefault((split, by), []).extend(rows)
    for (split, by), rows in rare.items():
        yield _group(at, split, RARER, by, rows)


def _group(at: Passage, split: str, reason: str, by: str, rows: Sequence[Dropped]) -> LeftOut:
    shown = tuple(
        LeftRow(id=one.request.id, text=one.request.text[:TEXT_CHARS], answer=one.text[:TEXT_CHARS], label=one.target[:TEXT_CHARS], reason=one.reason if reason == RARER else "")
        for one in rows[:MOST_NAMED]
    )
    return LeftOut(at=at, split=split, reason=reason, by=by, n=len(rows), rows=shown)


ACCOUNT = Step(name="account", version=1, fn=account)
