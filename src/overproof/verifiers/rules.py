"""Verifiers by rule: the label set, a pattern, a JSON Schema."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from overproof import registry
from overproof.data import Completion, Judgement, Request
from overproof.errors import DataError
from overproof.task import Classes, Fields, Output
from overproof.verifiers.json_schema import broken, checked

KEEP = Judgement(keep=True)


class LabelSet:
    """
    Keeps rows whose target is one of the labels, or of the named few of them.

    Args:
        output: what an answer is.
        labels: the labels to admit; all of the task's where not given.

    Raises: DataError for a label that the task doesn't have.
    """

    def __init__(self, *, output: Output, labels: Sequence[str] | None = None) -> None:
        if not isinstance(output, Classes):
            raise DataError("label_set.v1 is for tasks whose answers are labels", next_action="take it out; records and texts are checked as they are parsed")
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
        output: what an answer is.
        pattern: searched anywhere in the text; anchor it with ^ and $ where needed.
        on: which text: "answer" (raw, of the first sample that gave the target), "target", or "input".
        must: "match" or "not match".

    Raises: DataError for a pattern that can't be compiled, or another word in `on` or `must`.
    """

    def __init__(
        self,
        *,
        output: Output,
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
    Keeps rows whose target fits a JSON Schema, of the words in `verifiers.json_schema`; a record is checked as the object it is.

    Args:
        output: what an answer is.
        schema: the schema; the task's own where not given.

    Raises: DataError for a schema with other words: a rule that is not checked must not look checked.
    """

    def __init__(self, *, output: Output, schema: Mapping[str, Any] | None = None) -> None:
        self._schema = dict(schema if schema is not None else output.json_schema())
        self._object = isinstance(output, Fields)
        checked(self._schema)

    def judge(self, request: Request, completions: Sequence[Completion], target: str) -> Judgement:
        """Check the target against every word of the schema; see `Verifier`."""
        del request, completions
        found = list(broken(self._schema, json.loads(target) if self._object else target))
        return Judgement(keep=False, reason=f"the target breaks {', '.join(found)}"[:200]) if found else KEEP
