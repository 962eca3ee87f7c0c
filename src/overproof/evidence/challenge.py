"""The serving student and the one that wants its place, on the same rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from overproof.evidence.figures import Figure, Verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class Duel:
    """Champion and challenger on one slice of one set of rows; both answer every row, whatever they would keep."""

    rows: Literal["sealed", "fresh"]
    """"sealed": all sealed rows of the next prompt set; "fresh": those of them that are of the traffic since the release."""
    slice: str
    """"all" for all of them."""
    critical: bool
    asked: Literal["not worse", "better", "nothing"]
    """What has to be shown; "nothing": shown for reading, but a shown loss on a critical slice still refuses."""
    champion: Figure
    """Share that the serving student gets right."""
    challenger: Figure
    b: int
    """Rows on which only the challenger is wrong."""
    c: int
    """Rows on which only the champion is wrong."""
    n: int
    low: float
    high: float
    """95% interval of challenger minus champion, as a share of the rows; Tango's score test."""
    margin: float
    """How much worse the challenger may be; 0 where it has to be better."""
    p: float
    delta: float
    """Chance of a false pass that the test admits."""
    verdict: Verdict
    """Undecided is never a pass."""
    rows_needed: int | None
    """About how many more rows would pass at the rates seen; None if none would."""
    champion_kept: int
    """Rows that each would answer by itself when it serves."""
    challenger_kept: int
    method: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Challenge:
    """Whether a new student may take the serving one's place."""

    champion: str
    """Id of the serving release."""
    label_kind: str
    """What is held to be right: "gold" where every sealed row has a true label, else "teacher"."""
    duels: tuple[Duel, ...]
    """All that was compared, what must be shown first."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """See `NextSet`."""
    capped: Mapping[str, int] = field(default_factory=dict)
    """See `NextSet`."""

    @property
    def held(self) -> tuple[Duel, ...]:
        """What stands against the challenger: asked and not shown, or shown to be worse on a critical slice or on the whole."""
        return tuple(d for d in self.duels if (d.verdict != "pass" if d.asked != "nothing" else d.verdict == "fail" and d.critical))

    @property
    def passed(self) -> bool:
        """True iff nothing stands against it, and something was compared."""
        return bool(self.duels) and not self.held
