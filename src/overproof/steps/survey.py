"""A few numbers about the rows that later recipes need, so that nothing has to load the rows again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from overproof.data import Example, Labelled, Traffic, digest_of
from overproof.steps.capture import instant
from overproof.store.artifacts import Step

DAYS_PER_MONTH = 365.25 / 12


@dataclass(frozen=True, kw_only=True, slots=True)
class SurveyRecipe:
    """What to look for."""

    attributes: tuple[str, ...] = ()
    """Attributes that the project file cuts into one slice per value."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """Counts and names, no text."""

    values: Mapping[str, tuple[str, ...]]
    """Attribute to the values that the labelled rows have, sorted."""
    n_test: int
    """Sealed rows."""
    sealed_digest: str
    """Which requests are sealed: the same ones under another teacher or filter are still the same rows."""
    window: tuple[str | None, str | None]
    """First and last time of the traffic."""
    requests_per_month: float | None
    """Measured from the traffic's times; None where it has none, or less than a day of them."""
    n_test_gold: int = 0
    """Sealed rows with a true label."""
    sealed_rows: tuple[str, ...] = ()
    """Hashes of the sealed requests' ids, sorted: the ledger recognises rows that were opened before."""
    sealed_labels: tuple[str, ...] = ()
    """Hashes of each sealed row with each label that it has, sorted: another label is other evidence."""


def survey(traffic: Traffic, labelled: Labelled, recipe: SurveyRecipe) -> Survey:
    """
    Count what recipes of later steps need.

    Args:
        traffic: the window of the log.
        labelled: the three sets.
        recipe: attributes to list the values of.

    Returns: the survey.
    """
    examples = (*labelled.train.examples, *labelled.calibration.examples, *labelled.test.examples)
    found: dict[str, set[str]] = {name: set() for name in recipe.attributes}
    for example in examples:
        for name, values in found.items():
            if name in example.request.attributes:
                values.add(example.request.attributes[name])
    return Survey(
        values={name: tuple(sorted(values)) for name, values in found.items()},
        n_test=len(labelled.test.examples),
        sealed_digest=digest_of(sorted(e.request.id for e in labelled.test.examples)),
        window=traffic.window,
        requests_per_month=_per_month(traffic),
        n_test_gold=sum(e.gold is not None for e in labelled.test.examples),
        sealed_rows=tuple(sorted(row_hash(e.request.id) for e in labelled.test.examples)),
        sealed_labels=tuple(sorted(h for e in labelled.test.examples for h in label_hashes(e))),
    )


def row_hash(request_id: str) -> str:
    """
    What the ledger keeps of a sealed row.

    Args:
        request_id: the request's id in the log.

    Returns: 32 hexadecimal digits that say nothing about the request.
    """
    return hashlib.sha256(f"sealed row {request_id}".encode("utf-8", "surrogatepass")).hexdigest()[:32]


def label_hashes(example: Example) -> tuple[str, ...]:
    """
    What the ledger of looks keeps of a sealed row's labels.

    Args:
        example: a sealed row.

    Returns: one hash for the teacher's label, one more where the true label is known.
    """
    kinds = [("teacher", example.target), *([("gold", example.gold)] if example.gold is not None else [])]
    return tuple(row_hash(f"{kind} {label} {example.request.id}") for kind, label in kinds)


def _per_month(traffic: Traffic) -> float | None:
    times: list[datetime] = [instant(r.request.at) for r in traffic.records if r.request.at is not None]
    if len(times) < len(traffic.records) or not times:
        return None
    days = (max(times) - min(times)).total_seconds() / 86_400
    return len(times) / days * DAYS_PER_MONTH if days >= 1 else None


SURVEY = Step(name="survey", version=3, fn=survey)
