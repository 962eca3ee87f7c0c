"""
For plug-in authors and for rehearsals: a teacher that misbehaves on purpose, and the promises of each kind of part.

`FaultTeacher` is a real HTTP server on loopback; `python -m overproof.testing --labels a,b` runs it by itself.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from overproof.data import Completion, Example, Judgement, Outcome, Request, Skipped, TrafficRecord, TrainSet
from overproof.errors import DataError
from overproof.testing_faults import (
    BILLED,
    FAULTS,
    MODEL,
    OK,
    SILENT,
    UNBILLED,
    Faults,
    FaultStats,
    FaultTeacher,
    hashed_labels,
    main,
)

if TYPE_CHECKING:
    from overproof.importers import ColumnMapping, Importer
    from overproof.students import Student
    from overproof.teachers import Teacher
    from overproof.verifiers import Verifier

__all__ = [
    "BILLED", "FAULTS", "MODEL", "OK", "SILENT", "UNBILLED", "FaultStats", "FaultTeacher", "Faults", "check_outcome", "hashed_labels",
    "importer_conformance", "main", "student_conformance", "teacher_conformance", "tiny_train_set", "verifier_conformance",
]

# ---- what each kind of part promises ---------------------------------------------------------------------------


def _promise(held: bool, words: str) -> None:  # noqa: FBT001 - reads as a sentence where it is used
    if not held:
        raise AssertionError(f"broken promise: {words}")


def check_outcome(outcome: Outcome, labels: Sequence[str]) -> None:
    """
    Check that an outcome says what happened without contradicting itself.

    Args:
        outcome: what `attempt` returned.
        labels: the task's labels.

    Raises: AssertionError that names the broken promise.
    """
    _promise(isinstance(outcome, Outcome), "attempt returns an Outcome")
    found = outcome.completion
    if outcome.kind == "ok":
        _promise(found is not None and found.value in labels, "an ok outcome carries one of the labels")
        assert found is not None
        _promise(found.finish in ("stop", "unknown"), "an ok answer ended by itself")
        _promise(not outcome.reason and not found.reason, "an ok outcome has no reason")
        _promise(bool(found.model), "an answer names its model")
    else:
        _promise(bool(outcome.reason), "an outcome that is not ok says why")
        if found is not None:
            _promise(found.value is None and bool(found.reason), "a rejected answer has a reason and no value")
    if found is not None:
        amounts = (found.tokens_in, found.tokens_out, found.latency_s, found.cost_usd)
        _promise(all(a is None or a >= 0 for a in amounts), "no count, time or cost is negative")


def teacher_conformance(
    make: Callable[[], Teacher], *, requests: Sequence[Request], labels: Sequence[str]
) -> None:
    """
    Check the promises of a teacher.

    Args:
        make: a new teacher.
        requests: inputs of which at least one can be answered.
        labels: the task's labels.

    Raises: AssertionError that names the broken promise.
    """
    asyncio.run(_teacher_conformance(make(), requests, labels))


async def _teacher_conformance(teacher: Teacher, requests: Sequence[Request], labels: Sequence[str]) -> None:
    names = list(requests[0].fields)
    recorded = Completion(text=labels[0], value=None, model="recorded", finish="stop")
    hostile = [
        Request(id=f"hostile-{place}", fields=dict.fromkeys(names, text))
        for place, text in enumerate(("", "\ud800", "{text} {" + names[0] + "}", "a\r\nb\x00", "x" * 100_000))
    ]
    _promise(isinstance(teacher.free, bool), "`free` is True or False")
    good = 0
    for request in (*requests, *hostile, Request(id="no-fields", fields={})):
        bound = teacher.worst_case_tokens(request)
        _promise(bound.tokens_in >= 0 and bound.tokens_out >= 0, "token bounds are not negative")
        _promise(teacher.free or bound.tokens_out > 0, "an answer that costs money has a bound above 0")
        for index, given in ((0, None), (1, None), (0, recorded)):
            try:
                outcome = await teacher.attempt(request, sample_index=index, recorded=given)
            except Exception as error:
                raise AssertionError(f"broken promise: attempt never raises, got {error!r} on {request.id!r}") from error
            check_outcome(outcome, labels)
            found = outcome.completion
            if found is not None and not teacher.free:
                _promise((found.tokens_in or 0) <= bound.tokens_in, "tokens_in never exceeds its bound")
                _promise((found.tokens_out or 0) <= bound.tokens_out, "tokens_out never exceeds its bound")
            good += outcome.kind == "ok" and request in requests
    _promise(good > 0, "at least one of the given requests is answered")
    await teacher.close()
    await teacher.close()
    check_outcome(await teacher.attempt(requests[0], sample_index=0, recorded=recorded), labels)
    await teacher.close()


def verifier_conformance(make: Callable[[], Verifier], *, labels: Sequence[str]) -> None:
    """
    Check the promises of a verifier.

    Args:
        make: a new verifier.
        labels: the task's labels.

    Raises: AssertionError that names the broken promise.
    """
    one, other = make(), make()
    request = Request(id="r", fields={"text": "Where is my order? \ud800 {text} 🙂"})
    given = [Completion(text=label, value=label, model="m") for label in labels]
    failed = Completion(text="no label at all", value=None, model="m", finish="length", reason="cut")
    for completions in ([], [failed], given[:1], given, [*given, failed], [*given[:1] * 3, failed]):
        for target in labels:
            before = list(completions)
            try:
                said = one.judge(request, completions, target)
            except Exception as error:
                raise AssertionError(f"broken promise: judge never raises on a label, got {error!r}") from error
            _promise(isinstance(said, Judgement), "judge returns a Judgement")
            _promise(said.keep or bool(said.reason), "a rejection has a reason")
            _promise(said.score is None or 0 <= said.score <= 1, "a score lies in [0, 1]")
            _promise(completions == before, "judge leaves its arguments alone")
            again = (one.judge(request, completions, target), other.judge(request, completions, target))
            _promise(again == (said, said), "the same arguments give the same judgement")


def importer_conformance(
    make: Callable[[], Importer], *, sample: Path, mapping: ColumnMapping, workdir: Path
) -> None:
    """
    Check the promises of an importer.

    Args:
        make: a new importer.
        sample: a file of its kind with two rows or more, uncompressed.
        mapping: fits the sample.
        workdir: an empty folder for damaged copies of the sample.

    Raises: AssertionError that names the broken promise.
    """
    good = sample.read_bytes()
    for head in (good[:65536], b"", b"\xff" * 100, b"{", b"[" * 5000):
        _promise(0 <= make().sniff(head, sample.name) <= 1, "sniff returns a fraction in [0, 1]")
    rows = list(make().read(sample, mapping))
    records = [row for row in rows if isinstance(row, TrafficRecord)]
    _promise(len(records) > 1, "the rows of a sound file are read")
    _promise(len({record.request.id for record in records}) == len(records), "ids are unique in a file")
    _promise(all(set(r.request.fields) <= set(mapping.fields) for r in records), "only the task's fields are fields")
    _promise(list(make().read(sample, mapping)) == rows, "the same file gives the same rows")
    draw = random.Random(0)  # noqa: S311 - the same damage every time
    for turn in range(40):
        damaged = bytearray(good[: draw.randrange(len(good))] if turn % 2 else good)
        for _ in range(min(turn, len(damaged))):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        path = workdir / f"{turn}-{sample.name}"
        path.write_bytes(damaged)
        try:
            found = list(make().read(path, mapping))
        except DataError:
            continue
        except Exception as error:
            raise AssertionError(f"broken promise: a damaged file is Skipped rows or a DataError, got {error!r}") from error
        for row in found:
            _promise(isinstance(row, TrafficRecord | Skipped), "read yields records and skipped rows")
            if isinstance(row, Skipped):
                _promise(bool(row.where and row.reason) and len(row.raw) <= 2000, "a skipped row says where and why")


def tiny_train_set(*, copies: int = 8) -> TrainSet:
    """
    A training set small enough for a test: three labels that have rows, and one that has none.

    Args:
        copies: rows for each label.

    Returns: the set.
    """
    words = {"refund": "money back please", "delivery": "where is my parcel", "login": "forgot my password again"}
    tails = ("now", "today", "thanks", "für mich", "otra vez", "merci", "🙂", "!!", "asap", "hello", "order 12", "…")
    rows = [
        Example(request=Request(id=f"{label}-{i}", fields={"text": f"{words[label]} {tails[i % len(tails)]}"}), target=label)
        for i in range(copies)
        for label in words
    ]
    return TrainSet(examples=tuple(rows), labels=("delivery", "login", "never", "refund"))


def student_conformance(make: Callable[[tuple[str, ...]], Student], *, workdir: Path) -> None:
    """
    Check the promises of a student.

    Args:
        make: a new student for these labels, always with the same seed.
        workdir: an empty folder for its files.

    Raises: AssertionError that names the broken promise.
    """
    import numpy as np

    train = tiny_train_set()
    requests = [example.request for example in train.examples]
    students = [make(train.labels), make(train.labels)]
    for place, student in enumerate(students):
        (workdir / str(place)).mkdir(parents=True)
        student.fit(train, workdir=workdir / str(place))
    logits = students[0].logits(requests)
    _promise(students[0].labels == train.labels, "`labels` are the columns, in the task's order")
    _promise(logits.shape == (len(requests), len(train.labels)), "logits have shape (n, k)")
    _promise(logits.dtype == np.float32, "logits are float32")
    _promise(bool(np.isfinite(logits).all()), "logits are finite")
    _promise(np.array_equal(logits, students[1].logits(requests)), "the same rows and seed give the same student")
    _promise(students[0].logits([]).shape == (0, len(train.labels)), "no requests give no rows")
    backwards = students[0].logits(requests[::-1])[::-1]
    alone = np.concatenate([students[0].logits([request]) for request in requests])
    _promise(bool(np.allclose(logits, backwards, atol=1e-4)), "an answer doesn't depend on the order of the requests")
    _promise(bool(np.allclose(logits, alone, atol=1e-4)), "an answer doesn't depend on its neighbours in the batch")
    answers = [train.labels[i] for i in logits.argmax(axis=1)]
    right = sum(answer == example.target for answer, example in zip(answers, train.examples, strict=True))
    _promise("never" not in answers, "a label without training rows is not answered")
    _promise(right >= len(requests) // 3, "on its own training rows it is no worse than the most frequent label")
    hostile = [Request(id=str(i), fields={"text": text}) for i, text in enumerate(("", "\x00", "🙂" * 5000, "zzzz"))]
    _promise(bool(np.isfinite(students[0].logits(hostile)).all()), "odd texts get finite logits")
    _promise(students[0].parameters > 0, "a fitted student counts its learned numbers")
    files = [path for path in (workdir / "0").rglob("*") if path.is_file()]
    _promise(bool(files), "fit leaves its files in workdir")
    _promise(not [p for p in files if p.suffix in {".pkl", ".pickle", ".joblib", ".pt"}], "no file is a pickle")
    loaded = type(students[0]).load(workdir / "0")
    _promise(np.allclose(loaded.logits(requests), logits, atol=1e-5), "a loaded student answers as the fitted one")
    _promise(loaded.labels == train.labels, "a loaded student knows its labels")
    _promise(loaded.parameters == students[0].parameters, "a loaded student counts its learned numbers")


if __name__ == "__main__":
    main()
