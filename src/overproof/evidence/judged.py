"""A judge's word as a figure, with what it was seen to err."""

from __future__ import annotations

from dataclasses import dataclass

from overproof.evidence.figures import Figure


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgedShare:
    """Share of right answers as a fallible judge sees it, corrected for what it was seen to err."""

    value: float | None
    """The corrected share; None while the judge is not calibrated."""
    low: float
    high: float
    """Two-sided interval at `level`, the doubt about the judge included; [0, 1] while it is not calibrated."""
    level: float
    n: int
    """Answers that were judged, drawn by chance."""
    n_known: int
    """Those of them on which a person spoke, in the order of the draw."""
    seen: Figure
    """What the judge calls right, uncorrected."""
    catches: Figure
    """Of the answers that people call wrong: the share that the judge calls wrong."""
    spares: Figure
    """Of the answers that people call right: the share that the judge calls right."""
    by_people: Figure
    """What people call right, without the judge."""
    calibrated: bool
    """False: nothing may rest on the judge's word."""
    why: str
    """Why it is not calibrated, with what it takes; empty where it is."""
    method: str = "people's words and the judge's share less its distance from them, both"

    @property
    def words(self) -> str:
        """One sentence for a reader."""
        if self.value is None:
            return f"judge not calibrated: {self.why}"
        return f"right as the judge sees it, corrected: {self.value:.1%} ({self.low:.1%} to {self.high:.1%}, n = {self.n:,} judged, {self.n_known:,} by people)"
