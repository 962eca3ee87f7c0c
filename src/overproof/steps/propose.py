"""What `[task] output` may say of answers that are already there."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from overproof.errors import DataError
from overproof.measure.intervals import cp_lower
from overproof.outputs import Field, Fields, kind_of, normal_label, output_of

MOST_CHOICES = 20
SEEN = 0.9
"""Share of the later half's values that the earlier half had given, at the lower end of its interval, for a closed choice."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    """A first draft for the project file."""

    output: Mapping[str, Any] = field(default_factory=dict)
    """As `[task] output` takes it; empty where it can't say these answers."""
    problem: str = ""
    """Why it is empty."""


def propose(kind: str, answers: Sequence[str], labels: Sequence[str]) -> Proposal:
    """
    Say what answers are, in the words of the project file.

    Args:
        kind: "classes", "fields" or "text".
        answers: raw, in order of time; those that are no JSON object are passed over for "fields".
        labels: for "classes".

    Returns: the proposal. Of a field the type is the narrowest that every value fits; null is an answer where it was one.
    """
    if kind == "text":
        return Proposal(output={"text": {"same_at": 0.8}})
    try:
        if kind == "classes":
            return Proposal(output=kind_of(output_of({"classes": list(labels)})))
        records = [found for text in answers if isinstance(found := read_json(text), dict)]
        names = list(dict.fromkeys(name for record in records for name in record))
        return Proposal(output=kind_of(Fields(fields=tuple(_field(name, [one.get(name) for one in records]) for name in names))))
    except DataError as error:
        return Proposal(problem=f"the project file can't say these answers: {error.what}")


def read_json(text: str) -> Any:
    """
    The JSON of an answer, alone or in one fenced block.

    Args:
        text: raw.

    Returns: its value; None where it is no JSON.
    """
    try:
        return json.loads(re.sub(r"^```(?:json)?\s*|\s*```$", "", text.strip()))
    except (ValueError, RecursionError):
        return None


def _field(name: str, values: Sequence[Any]) -> Field:
    given = [value for value in values if value is not None and value != ""]
    optional = len(given) < len(values)
    if any(isinstance(value, list | dict | bool) for value in given):
        raise DataError(f"field {name!r} holds lists, objects or true and false", next_action="flatten it in the teacher's prompt")
    texts = [value for value in given if isinstance(value, str)]
    if given and not texts:
        return Field(name=name, type="number", optional=optional)
    if len(texts) < len(given):
        raise DataError(f"field {name!r} is a number here and a text there", next_action="settle it in the teacher's prompt")
    if texts and all(_fits(Field(name=name, type="date"), value) for value in texts):
        return Field(name=name, type="date", optional=optional)
    if choices := _choices(texts):
        return Field(name=name, type="choice", values=choices, optional=optional)
    return Field(name=name, optional=optional)


def _fits(one: Field, value: str) -> bool:
    try:
        return one.read(value) is not None
    except DataError:
        return False


def _choices(texts: Sequence[str]) -> tuple[str, ...]:
    """The values, the commonest first, where the set is shown to be closed."""
    spelled: dict[str, str] = {}
    for text in texts:
        spelled.setdefault(normal_label(text), text.strip())
    if not 2 <= len(spelled) <= MOST_CHOICES or "" in spelled:
        return ()
    half = len(texts) // 2
    before = {normal_label(text) for text in texts[:half]}
    later = [normal_label(text) in before for text in texts[half:]]
    if cp_lower(sum(later), len(later), 0.05) < SEEN:
        return ()
    counts = Counter(map(normal_label, texts))
    return tuple(spelled[one] for one, _ in counts.most_common())
