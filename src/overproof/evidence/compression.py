"""Where rare and critical cases break on the ladder of sizes, seen on calibration rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from overproof.evidence.figures import Figure

Kept = Literal["top", "whole", "broken", "can't tell"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rung:
    """One student on one case."""

    name: str
    size_bytes: int
    right: Figure
    """Share of the case's calibration rows that it answers rightly, alone: by the true label where known, else the teacher's."""
    state: Kept
    """"broken": some larger student is right more often by more than the loss, for certain; "whole": none can be; "top": none is larger."""
    lost_to: str = ""
    """The larger student that it loses most to; empty for "top"."""
    lost: float = 0.0
    """Share right of that student minus its own, in [-1, 1]."""
    low: float = 0.0
    """Paired interval of `lost`, at the level of all comparisons together."""
    high: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A critical slice or a rare label across the ladder."""

    name: str
    """Of the slice, or the label."""
    kind: Literal["critical", "rare"]
    n: int
    """Calibration rows."""
    rungs: tuple[Rung, ...]
    """Smallest first."""
    breaks_at: str
    """The largest student that breaks; empty where none does for certain."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Compression:
    """All cases of a run."""

    cases: tuple[Case, ...]
    n: int
    """Calibration rows."""
    loss: float
    """From which loss on a case breaks."""
    level: float
    """Of each paired interval, so that all of them hold together at 95 %."""
