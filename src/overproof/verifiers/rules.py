"""Verifiers by rule: the label set, a pattern, a JSON Schema."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from overproof import registry
from overproof.data import Completion, Judgement, Request
from overproof.errors import DataError
from overproof.task import Classes

KEEP = Judgement(keep=True)
SCHEMA_WORDS = {"type", "enum", "const", "pattern", "minLength", "maxLength"}


class LabelSet:
    """
    Keeps rows whose target is one of the labels, or of the named few of them.

    Args:
        output: the task's labels.
        labels: the labels to admit; all of the task's where not given.

    Raises: DataError for a label that the task doesn't have.
    """

    def __init__(self, *, output: Classes, labels: Sequence[str] | None = None) -> None:
        unknown = [label for label in labels or () if label not in output.labels]
        if unknown:
            raise DataError(
                f"label_set.v1: {unknown!r} {registry.suggest(unknown[0], list(output.labels))}",
                next_action="name labels of [task] output.classes",
            )
        self._labels = frozenset(output.labels if labels is None else labels)

    def judge(self, request: Request, completions: Sequence[Completion], target: str) -> Judgement:
        """Look the target up; see `Verifier`."""
        del request, completions
        return KEEP if target in self._labels else Judgement(keep=False, reason="not in the label set")


class Regex:
    """
    Keeps rows whose raw first answer, target or input text matches a pattern, or doesn't.

    Args:
        output: the task's labels.
        pattern: searched anywhere in the text; anchor it with ^ and $ where needed.
        on: which text: "answer" (raw, of the first sample that gave the target), "target", or "input".
        must: "match" or "not match".

    Raises: DataError for a pattern that can't be compiled, or another word in `on` or `must`.
    """

    def __init__(
        self,
        *,
        output: Classes,
        pattern: str,
        on: Literal["answer", "target", "input"] = "answer",
        must: Literal["match", "not match"] = "match",
    ) -> None:
        try:
            self._pattern = re.compile(pattern)
        except re.error as error:
            raise DataError(
                f"regex.v1: pattern {pattern!r} is no regular expression: {error}", next_action="mend the pattern"
            ) from error
        if on not in ("answer", "target", "input") or must not in ("match", "not match"):
            raise DataError(
                f"regex.v1: on = {on!r}, must = {must!r}",
                next_action='use on = "answer", "target" or "input", and must = "match" or "not match"',
            )
        self._output = output
        self._on = on
        self._wanted = must == "match"

    def judge(self, request: Request, completions: Sequence[Completion], target: str) -> Judgement:
        """Search the pattern; see `Verifier`."""
        text = {"input": request.text, "target": target}.get(self._on)
        if text is None:
            gave = (c.text for c in completions if c.value is not None and self._output.equal(c.value, target))
            text = next(gave, "")
        if (self._pattern.search(text) is not None) == self._wanted:
            return KEEP
        said = "doesn't match" if self._wanted else "matches"
        return Judgement(keep=False, reason=f"{self._on} {said} {self._pattern.pattern!r}"[:200])


class Schema:
    """
    Keeps rows whose target fits a JSON Schema for a text: type, enum, const, pattern, minLength, maxLength.

    Args:
        output: the task's labels.
        schema: the schema; the task's own where not given.

    Raises: DataError for a schema with other words: a rule that is not checked must not look checked.
    """

    def __init__(self, *, output: Classes, schema: Mapping[str, Any] | None = None) -> None:
        self._schema = dict(schema if schema is not None else output.json_schema())
        unknown = sorted(set(self._schema) - SCHEMA_WORDS)
        if unknown or not self._schema:
            raise DataError(
                f"schema.v1 can't check {unknown!r}; it knows {', '.join(sorted(SCHEMA_WORDS))}",
                next_action='use those words, or check the rest in a function: use = "module:function"',
            )
        try:
            re.compile(self._schema.get("pattern", ""))
        except (re.error, TypeError) as error:
            raise DataError(
                f"schema.v1: pattern {self._schema['pattern']!r} is no regular expression: {error}",
                next_action="mend the pattern",
            ) from error

    def judge(self, request: Request, completions: Sequence[Completion], target: str) -> Judgement:
        """Check the target against every word of the schema; see `Verifier`."""
        del request, completions
        schema = self._schema
        broken = [
            word
            for word, holds in (
                ("type", schema.get("type", "string") == "string"),
                ("enum", target in schema.get("enum", [target])),
                ("const", target == schema.get("const", target)),
                ("pattern", re.search(schema.get("pattern", ""), target) is not None),
                ("minLength", len(target) >= schema.get("minLength", 0)),
                ("maxLength", len(target) <= schema.get("maxLength", len(target))),
            )
            if not holds
        ]
        return Judgement(keep=False, reason=f"the target breaks {', '.join(broken)}") if broken else KEEP
