"""The optional tier for names and places: Presidio over spaCy; slow, and never as sure as a checksum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from overproof.errors import DataError, MissingExtra
from overproof.privacy.found import Found

KINDS = {"PERSON": "person", "LOCATION": "location"}


class PresidioTier:
    """
    Finds names of people and places with `presidio-analyzer`.

    Args:
        wanted: "person", "location" or both.
        language: two letters; one model reads all texts of a project.
        least: least score that counts, in [0, 1].

    Raises: MissingExtra where Presidio is not installed; DataError where it has no model for the language.
    """

    def __init__(self, wanted: Sequence[str], *, language: str = "en", least: float = 0.5) -> None:
        try:
            from presidio_analyzer import AnalyzerEngine
        except ImportError as error:
            raise MissingExtra("[privacy] redact = person, location", extra="privacy") from error
        self._kinds = [kind for kind, name in KINDS.items() if name in wanted]
        self._language = language
        self._least = least
        try:
            self._engine: Any = AnalyzerEngine(supported_languages=[language])
        except (OSError, ValueError, SystemExit) as error:
            raise DataError(
                f"Presidio has no model for language {language!r}",
                next_action=f"install a spaCy model for {language!r}, or take person and location out of [privacy] redact",
            ) from error

    def find(self, text: str) -> Sequence[Found]:
        """Names and places of one text."""
        results = self._engine.analyze(text=text, language=self._language, entities=self._kinds, score_threshold=self._least)
        return [
            Found(name=KINDS[one.entity_type], start=one.start, end=one.end, canonical=text[one.start : one.end].casefold())
            for one in sorted(results, key=lambda one: (-one.score, one.start))
        ]
