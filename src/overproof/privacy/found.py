"""What a finder of entities hands over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """One entity in a text."""

    name: str
    """What it is, for example "card"."""
    start: int
    """First character, counted in the original text."""
    end: int
    """One past the last."""
    canonical: str
    """The entity in one spelling, so that two spellings get one surrogate."""


class Tier(Protocol):
    """A finder of names and places, for what no pattern can tell."""

    def find(self, text: str) -> Sequence[Found]:
        """Entities of one text."""
