"""Chosen requests, and how they compare with the live traffic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from overproof.data.traffic import Completion, Request


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptRow:
    """One chosen request with its weight and its place in the near-duplicate grouping."""

    request: Request
    weight: float
    """How many requests of the live traffic the row stands for, relative to the others; mean 1."""
    group: str
    """Near-duplicate group and session: rows of one group are in one split."""
    recorded: Completion | None = None
    """What the log holds as the served answer, for teachers that replay a log."""
    gold: str | None = None
    """The true answer, where known."""
    near_train: float | None = None
    """For calibration and test rows: similarity in [0, 1] to the nearest training row."""
    gold_from: str = "log"
    """See `Example.gold_from`."""
    origin: Literal["traffic", "supplement"] = "traffic"
    """"supplement": written by hand or by a machine, for training alone."""
    boost: tuple[str, ...] = ()
    """Critical slices that a test row was drawn for beyond the fair draw; it counts in these alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MixDistance:
    """How far the set's mix is from the live one by one view, for a plain draw and for the set as matched."""

    view: str
    """For example "tier × language" or "groups of like messages"."""
    segments: int
    before: float
    """Total variation distance of a plain draw of the same size without weights, in [0, 1]."""
    before_low: float
    before_high: float
    after: float
    """The same for the set as drawn and weighted."""
    after_low: float
    after_high: float
    """Ends of intervals at `level`."""
    n_live: int
    n_set: int
    level: float = 0.95
    method: str = "Weissman radius, effective rows"


@dataclass(frozen=True, kw_only=True, slots=True)
class SliceShare:
    """A critical slice's share of the training rows over its share of the live traffic."""

    slice: str
    ratio: float | None
    """None where the slice has no live row."""
    low: float
    high: float | None
    """Ends of the interval at `level`; None: no upper end."""
    verdict: Literal["pass", "fail", "undecided"]
    """Passes where all of the interval lies in [0.8, 1.25]."""
    n_set: int
    """Training rows in the slice, each once."""
    n_live: int
    level: float = 0.95
    method: str = "clopper-pearson, effective rows"


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """Live messages that are like each other and unlike all of training: the next ones to ask the teacher about."""

    share: float
    """Of the compared live rows, in [0, 1]."""
    low: float
    high: float
    """Clopper-Pearson interval at 95 %, for a group that was found on the same rows: a hint, no test."""
    rows: int
    examples: tuple[str, ...]
    """Up to five messages, the middle one first; none of them is sealed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SliceMatch:
    """How one segment's share in the prompt set compares with its share in the live traffic."""

    attribute: str
    value: str
    live_share: float
    """Fraction of the live rows, in [0, 1]."""
    set_share: float
    """Weighted fraction of the prompt set, in [0, 1]."""
    n_live: int
    n_set: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptSet:
    """Requests sampled to match the live traffic, already split by group and time."""

    train: tuple[PromptRow, ...]
    calibration: tuple[PromptRow, ...]
    test: tuple[PromptRow, ...]
    funnel: Mapping[str, int]
    """Ordered: rows read, exact duplicates, near-duplicates, …, rows in each split. Every row is in one of them."""
    match: tuple[SliceMatch, ...]
    """Per attribute value, live against set."""
    distance: float
    """Total variation distance between live and set over all segments, in [0, 1]."""
    leaks: Mapping[str, int]
    """Check name to the number of rows that straddle two splits; all zero in a sound set."""
    notes: tuple[str, ...] = ()
    """What a reader of the report should know, one sentence each."""
    distances: tuple[MixDistance, ...] = ()
    """Per view, before and after matching."""
    shares: tuple[SliceShare, ...] = ()
    """Per critical slice."""
    gaps: tuple[Gap, ...] = ()
    """By falling share of traffic."""
    gap_rows: int = 0
    """Live rows that gaps were looked for among."""
    left_rows: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Entry of the funnel to ids of rows that ended there without being chosen; see `Traffic.left_rows`."""
