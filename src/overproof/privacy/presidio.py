"""The optional tier for names and places: Presidio over spaCy; slow, and never as sure as a checksum."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Any

from overproof.errors import DataError, MissingExtra
from overproof.privacy.found import Found

KINDS = {"PERSON": "person", "LOCATION": "location"}
SIZES = ("lg", "md", "sm")
LABELS = {"PER": "PERSON", "PERSON": "PERSON", "LOC": "LOCATION", "GPE": "LOCATION", "FAC": "LOCATION"}
"""What spaCy's models call people and places, in Presidio's words."""
OTHERS = (
    "CARDINAL", "DATE", "EVENT", "LANGUAGE", "LAW", "MISC", "MONEY", "NORP", "ORDINAL", "ORG", "PERCENT", "PRODUCT",
    "QUANTITY", "TIME", "WORK_OF_ART",
)  # fmt: skip
"""What else they find; Presidio warns of each that nobody mentions."""


class PresidioTier:
    """
    Finds names of people and places with `presidio-analyzer`.

    Args:
        wanted: "person", "location" or both.
        language: two letters; one model reads all texts of a project.
        least: least score that counts, in [0, 1].

    Raises: MissingExtra where Presidio is not installed; DataError where no model for the language is. None is
        fetched: Presidio by itself would, in the middle of an import.
    """

    def __init__(self, wanted: Sequence[str], *, language: str = "en", least: float = 0.5) -> None:
        try:
            from presidio_analyzer import AnalyzerEngine
            from presidio_analyzer.nlp_engine import NlpEngineProvider
        except ImportError as error:
            raise MissingExtra("[privacy] redact = person, location", extra="privacy") from error
        self._kinds = [kind for kind, name in KINDS.items() if name in wanted]
        self._language = language
        self._least = least
        model = installed_model(language, [point.name for point in entry_points(group="spacy_models")])
        configuration = {
            "nlp_engine_name": "spacy",
            "models": [{"lang_code": language, "model_name": model}],
            "ner_model_configuration": {"model_to_presidio_entity_mapping": LABELS, "low_score_entity_names": [], "labels_to_ignore": OTHERS},
        }
        try:
            engine = NlpEngineProvider(nlp_configuration=configuration).create_engine()
            self._engine: Any = AnalyzerEngine(nlp_engine=engine, supported_languages=[language])
        except (OSError, ValueError, ImportError) as error:
            raise DataError(
                f"spaCy's model {model} can't be loaded",
                next_action="install the model's version that fits the installed spaCy",
            ) from error

    def find(self, text: str) -> Sequence[Found]:
        """Names and places of one text."""
        results = self._engine.analyze(text=text, language=self._language, entities=self._kinds, score_threshold=self._least)
        return [
            Found(name=KINDS[one.entity_type], start=one.start, end=one.end, canonical=text[one.start : one.end].casefold())
            for one in sorted(results, key=lambda one: (-one.score, one.start))
        ]


def installed_model(language: str, names: Sequence[str]) -> str:
    """
    Which of spaCy's installed models reads a language.

    Args:
        language: two letters.
        names: the installed models, for example "de_core_news_sm".

    Returns: the largest by name.
    Raises: DataError where there is none.
    """
    fits = sorted(name for name in names if name.startswith(f"{language}_"))
    if not fits:
        raise DataError(
            f"no model of spaCy for language {language!r} is installed",
            next_action=f"install one, or take person and location out of [privacy] redact; installed: {', '.join(sorted(names)) or 'none'}",
        )
    size = {name: min((i for i, word in enumerate(SIZES) if word in name.split("_")), default=len(SIZES)) for name in fits}
    return min(fits, key=lambda name: (size[name], name))
