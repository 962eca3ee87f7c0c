"""What redaction costs: a student's answers on texts as they came and as they are kept."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from overproof.data import Example, Request, TrainSet
from overproof.evidence import Figure
from overproof.measure.intervals import figure
from overproof.measure.scores import accuracy
from overproof.registry import resolve


@dataclass(frozen=True, kw_only=True, slots=True)
class RedactionFlips:
    """The same rows, learned from and asked with and without redaction."""

    touched: Figure
    """Share of asked rows that redaction changes at all."""
    flipped: Figure
    """Share of all asked rows whose answer changes where only the question is redacted."""
    flipped_of_touched: Figure
    """The same among the rows that redaction changes; no n, no claim."""
    flipped_both: Figure
    """Share of asked rows whose answer changes where the training rows are redacted too, as they are in a project."""
    accuracy_raw: Figure
    """Answers equal to the target, everything as it came."""
    accuracy_redacted: Figure
    """The same with everything redacted."""


def redaction_flips(
    train: TrainSet, asked: Sequence[Example], redact: Callable[[str], str], *, use: str = "linear.v1", seed: int = 0
) -> RedactionFlips:
    """
    Fit one student on rows as they came and one on the redacted rows, and compare their answers.

    Args:
        train: rows to learn from, as they came.
        asked: other rows, with the answers that count as right.
        redact: what a project does to each text.
        use: a student part that needs no options.
        seed: of the fits.

    Returns: shares with exact intervals over the asked rows.
    Raises: what the student raises on rows that can't teach.
    """
    clean = replace(train, examples=tuple(_redacted(one, redact) for one in train.examples))
    after = [_redacted(one, redact) for one in asked]
    touched = [a.request.text != b.request.text for a, b in zip(asked, after, strict=True)]
    on_raw = _answers(train, [list(asked), after], use, seed)
    on_clean = _answers(clean, [after], use, seed)[0]
    changed = [a != b for a, b in zip(*on_raw, strict=True)]
    n, hit = len(asked), sum(touched)
    targets = [one.target for one in asked]
    return RedactionFlips(
        touched=figure(hit, n, metric="touched"),
        flipped=figure(sum(changed), n, metric="flipped"),
        flipped_of_touched=figure(sum(c and t for c, t in zip(changed, touched, strict=True)), hit, metric="flipped"),
        flipped_both=figure(sum(a != b for a, b in zip(on_raw[0], on_clean, strict=True)), n, metric="flipped"),
        accuracy_raw=accuracy(on_raw[0], targets),
        accuracy_redacted=accuracy(on_clean, targets),
    )


def _redacted(example: Example, redact: Callable[[str], str]) -> Example:
    fields = {name: redact(text) for name, text in example.request.fields.items()}
    return replace(example, request=Request(id=example.request.id, fields=fields))


def _answers(train: TrainSet, batches: Sequence[Sequence[Example]], use: str, seed: int) -> list[list[str]]:
    student = resolve("students", use)(labels=train.labels, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        student.fit(train, workdir=Path(folder))
        return [[train.labels[i] for i in student.logits([one.request for one in batch]).argmax(1)] for batch in batches]
