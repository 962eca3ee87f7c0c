"""For plug-in authors: the promises of a student that writes records or texts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from overproof.data import Example, Request, TrainSet
from overproof.outputs import Field, Fields, Text
from overproof.students import Generated, Generator

CLOSE = 1e-3  # two runs of one network on other batches differ by rounding, in log-odds
DATA = {".json", ".npz", ".onnx", ".gguf"}

TINY_RECORDS = Fields(fields=(Field(name="item"), Field(name="count", type="number"), Field(name="day", type="date", optional=True)))
"""What `tiny_records` holds."""


def tiny_records(*, rows: int = 36) -> TrainSet:
    """
    Orders and their records, enough for a test.

    Args:
        rows: how many.

    Returns: the set; in every third row no day is given.
    """
    items = ("lamp", "desk", "chair", "mug")
    found = []
    for i in range(rows):
        item, count, day = items[i % 4], 2 + i % 7, f"2026-03-{1 + i % 28:02}"
        text = f"Please send {count} of item: {item}" + (f"\nby {day}, thanks" if i % 3 else "\nthanks")
        value = TINY_RECORDS.write({"item": item, "count": count, "day": day if i % 3 else None})
        found.append(Example(request=Request(id=str(i), fields={"text": text}), target=TINY_RECORDS.parse(value)))
    return TrainSet(examples=tuple(found), labels=(), output=TINY_RECORDS)


def generator_conformance(
    make: Callable[[Fields | Text], Generator], *, train: TrainSet, workdir: Path, least_right: float = 0.0
) -> None:
    """
    Check the promises of a generator.

    Args:
        make: a new generator for this output kind, always with the same seed.
        train: tens of rows with an output kind; `tiny_records` where nothing else is at hand.
        workdir: an empty folder for its files.
        least_right: share of its own training rows that it must answer right.

    Raises: AssertionError that names the broken promise.
    """
    output = train.output
    _promise(output is not None, "the training set names its output kind")
    assert output is not None
    requests = [example.request for example in train.examples]
    pair = [make(output), make(output)]
    for place, generator in enumerate(pair):
        (workdir / str(place)).mkdir(parents=True)
        generator.fit(train, workdir=workdir / str(place))
    answers = list(pair[0].generate(requests))
    _check_answers(answers, len(requests), output)
    _promise(answers == list(pair[1].generate(requests)), "the same rows and seed give the same generator")
    _promise(list(pair[0].generate([])) == [], "no requests give no answers")
    _alike(list(pair[0].generate(requests[::-1]))[::-1], answers, "an answer doesn't depend on the order of the requests")
    alone = [pair[0].generate([request])[0] for request in requests]
    _alike(alone, answers, "an answer doesn't depend on its neighbours in the batch")
    right = sum(a.value is not None and output.equal(a.value, e.target) for a, e in zip(answers, train.examples, strict=True))
    _promise(right >= least_right * len(requests), f"at least {least_right:.0%} of its own training rows are right")
    hostile = [Request(id=str(i), fields={"text": text}) for i, text in enumerate(("", "\x00", "\ud800", "🙂" * 5000, "a 1 " * 2000, '{"'))]
    odd = list(pair[0].generate(hostile))
    _check_answers(odd, len(hostile), output)
    _promise({frozenset(a.columns) for a in (*answers, *odd)} == {frozenset(answers[0].columns)}, "every answer has the same columns")
    _promise(pair[0].parameters > 0, "a fitted generator counts its learned numbers")
    files = [path for path in (workdir / "0").rglob("*") if path.is_file()]
    _promise(bool(files) and {path.suffix for path in files} <= DATA, f"fit leaves files of {', '.join(sorted(DATA))} only")
    _promise(not [path for path in files if path.read_bytes()[:1] == b"\x80"], "no file is a pickle")
    loaded = type(pair[0]).load(workdir / "0")
    _promise(list(loaded.generate([*requests, *hostile])) == [*answers, *odd], "a loaded generator answers as the fitted one")
    _promise(loaded.output == output and loaded.kind == pair[0].kind, "a loaded generator knows what it is")
    _promise(loaded.parameters == pair[0].parameters, "a loaded generator counts its learned numbers")


def _promise(held: bool, words: str) -> None:  # noqa: FBT001 - reads as a sentence where it is used
    if not held:
        raise AssertionError(f"broken promise: {words}")


def _check_answers(answers: Sequence[Generated], n: int, output: Fields | Text) -> None:
    _promise(len(answers) == n, "there is one answer to each request")
    for one in answers:
        _promise(one.value is None or output.parse(one.value) == one.value, "an answer is in canonical form, or None")
        numbers = [one.score, *one.columns.values(), *one.fields.values()]
        _promise(all(math.isfinite(number) for number in numbers), "scores and columns are finite")
        names = {field.name for field in output.fields} if isinstance(output, Fields) else set()
        _promise(set(one.fields) <= names, "`fields` scores the record's fields and nothing else")


def _alike(left: Sequence[Generated], right: Sequence[Generated], words: str) -> None:
    _promise([one.value for one in left] == [one.value for one in right], words)
    _promise(all(abs(a.score - b.score) <= CLOSE for a, b in zip(left, right, strict=True)), words)
