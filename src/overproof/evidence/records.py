"""Figures of records and texts: what is counted within an answer, beside whether the whole of it is right."""

from __future__ import annotations

from dataclasses import dataclass

from overproof.evidence.figures import Figure


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """A measured quantity in [0, 1] that no single count can say, with its interval."""

    metric: str
    """"f1", "precision", "recall", "similarity", "rouge_l", "chrf"."""
    value: float | None
    """None where nothing was there to be measured."""
    low: float
    high: float
    """Two-sided interval at `level`; [0, 1] where there is no value."""
    level: float
    """Confidence of the interval, for example 0.95."""
    method: str
    """Name of the interval."""
    n: int
    """Documents; each counts as one independent draw, however many fields it has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldScore:
    """How well one field is found."""

    name: str
    precision: Figure
    """Of the values given: the share that is right. Its n counts values given."""
    recall: Figure
    """Of the values wanted: the share that was given right. Its n counts values wanted."""
    f1: Estimate
    """2 hits / (given + wanted); its n counts documents. None where the field was neither given nor wanted."""
    same: Figure
    """Documents on which both say the same, null and null included."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordScores:
    """Records against the truth, field by field and as a whole."""

    fields: tuple[FieldScore, ...]
    """In the order of the task."""
    precision: Estimate
    recall: Estimate
    f1: Estimate
    """Micro figures: all fields of all documents together."""
    exact: Figure
    """Documents on which every field is right: what thresholds are certified on."""
    n: int
    """Documents."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TextScores:
    """Texts against reference texts."""

    similarity: Estimate
    """Mean of the task's own similarity; an answer that is missing has 0."""
    same: Figure
    """Documents on which the similarity reaches the task's `same_at`: what thresholds are certified on."""
    rouge_l: Estimate
    """Mean ROUGE-L F-measure on words."""
    chrf: Estimate
    """Mean chrF2 against the reference."""
    n: int
    """Documents."""


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
