"""Answer a set's requests with one candidate, and time it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from overproof.data import CalibrationSet, Example, Folder, Request, TestSet
from overproof.engines import Engine, cut
from overproof.engines.local import LocalEngine
from overproof.errors import DataError
from overproof.evidence import Scores, Trained
from overproof.outputs import Fields, Text
from overproof.progress import track
from overproof.steps.parcel import answer_shard, answered_alone, look, packed, write
from overproof.steps.streamed import LOGITS, save_seen, save_written
from overproof.store.artifacts import Step
from overproof.students import ABSENT_LOGIT, Generator, Student
from overproof.students.generated import SEQUENCE, Written
from overproof.students.mixture import Mixture
from overproof.students.parts import load_part
from overproof.students.seen import look_at

TIMED = 100  # requests answered alone; enough for a median, and for a 95th percentile as a rough figure
WARM_UP = 5
SHARD = 10_000  # rows at most: their logits are what this process holds at one time
HERE = LocalEngine()
CERTAIN = 30.0  # log-odds of an answer that is right by definition


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictRecipe:
    """What an answer costs."""

    cost_usd_per_cpu_hour: float
    """Price of one core for one hour."""


def predict_dev(
    trained: Trained, rows: CalibrationSet, recipe: PredictRecipe, *, workdir: Path, engine: Engine = HERE
) -> Scores:
    """
    A candidate's scores on the calibration rows.

    Args:
        trained: the candidate.
        rows: calibration rows, at least one.
        recipe: prices.
        workdir: gets `logits.npy`.
        engine: where the rows are answered; the scores are the same.

    Returns: scores in the order of the rows.
    Raises: DataError.
    """
    return _predict(trained, rows, recipe, workdir, engine)


def predict_test(
    trained: Trained, rows: TestSet, recipe: PredictRecipe, *, workdir: Path, engine: Engine = HERE
) -> Scores:
    """
    A candidate's scores on the sealed rows; reads their requests, never their labels.

    Args:
        trained: the candidate.
        rows: sealed rows, at least one.
        recipe: prices.
        workdir: gets `logits.npy`.
        engine: where the rows are answered; the scores are the same.

    Returns: scores in the order of the rows.
    Raises: DataError.
    """
    return _predict(trained, rows, recipe, workdir, engine)


def teacher_scores(rows: CalibrationSet | TestSet, recipe: PredictRecipe, *, workdir: Path) -> Scores:
    """
    The teacher as a candidate: certain of its own labels, with the latency and the cost that it had.

    Args:
        rows: calibration or sealed rows, at least one.
        recipe: not used; the teacher's cost is what was paid for its answers.
        workdir: gets `logits.npy`.

    Returns: scores whose `latency_n` and `cost_n` say on how many rows those figures rest.
    Raises: DataError.
    """
    del recipe
    _require_rows("teacher", rows.examples)
    if rows.output is not None:
        sure = {SEQUENCE: np.full(len(rows.examples), CERTAIN)}
        said = Written(values=tuple(e.target for e in rows.examples), columns=sure, fields=())
        return _teachers(rows, save_written([said], workdir, n=len(rows.examples), output=rows.output))
    at = {label: i for i, label in enumerate(rows.labels)}
    logits = np.full((len(rows.examples), len(rows.labels)), ABSENT_LOGIT, dtype=np.float32)
    for i, example in enumerate(rows.examples):
        if example.target not in at:
            raise DataError(
                f"request {example.request.id!r}: target {example.target!r} is not among the labels",
                next_action="filter the labels first, see label_set.v1",
            )
        logits[i, at[example.target]] = 0
    folder = workdir / "scores"
    folder.mkdir()
    np.save(folder / LOGITS, logits, allow_pickle=False)
    return _teachers(rows, Folder(path=folder))


def _teachers(rows: CalibrationSet | TestSet, folder: Folder) -> Scores:
    latencies = [e.latency_s for e in rows.examples if e.latency_s is not None]
    costs = [e.cost_usd for e in rows.examples if e.cost_usd is not None]
    return Scores(
        name="teacher",
        kind="teacher",
        folder=folder,
        n=len(rows.examples),
        latency_s=float(np.median(latencies)) if latencies else 0.0,
        latency_p95_s=float(np.quantile(latencies, 0.95)) if latencies else 0.0,
        cost_usd_per_1000=1000 * float(np.mean(costs)) if costs else 0.0,
        size_bytes=0,
        parameters=0,
        latency_n=len(latencies),
        cost_n=len(costs),
    )


def _require_rows(name: str, examples: Sequence[Example]) -> None:
    if not examples:
        raise DataError(
            f"{name!r} was given no rows to answer",
            next_action="collect more traffic, or give the split a larger share",
        )


def _predict(
    trained: Trained, rows: CalibrationSet | TestSet, recipe: PredictRecipe, workdir: Path, engine: Engine
) -> Scores:
    examples, labels = rows.examples, rows.labels
    _require_rows(trained.name, examples)
    if rows.output is not None:
        return _written(trained, rows, rows.output, recipe, workdir, engine)
    student: Student = load_part(trained.use, trained.folder.path, None)
    mixture = Mixture.load(trained.folder.path)
    if tuple(student.labels) != labels:
        raise DataError(
            f"candidate {trained.name!r} was fitted for other labels than these rows have",
            next_action="train it again on the current task",
        )
    requests = [example.request for example in examples]
    here = partial(look, student, requests, alone=answered_alone(trained), mixture=mixture)
    parts = _parts(trained, None, requests, engine, here)
    folder = save_seen(parts, workdir, shape=(len(requests), len(labels)), trained=trained)
    return _scores(trained, folder, len(requests), _time_alone(lambda some: look_at(student, some, mixture), requests), recipe)


def _parts(
    trained: Trained, output: Fields | Text | None, requests: Sequence[Request], engine: Engine, here: Callable[[], Any]
) -> Iterator[Any]:
    """The answers shard by shard, or in one piece where they are made here."""
    if not engine.apart:
        yield here()
        return
    shards = cut(requests, engine.shards, most=SHARD) if answered_alone(trained) else [requests]
    yield from engine.each(answer_shard, shards, shared=packed(trained, output), what="answering in shards")


def _written(  # noqa: PLR0917 - the other half of `_predict`
    trained: Trained, rows: CalibrationSet | TestSet, output: Fields | Text, recipe: PredictRecipe, workdir: Path, engine: Engine
) -> Scores:
    writer: Generator = load_part(trained.use, trained.folder.path, output)
    if writer.output != output:
        raise DataError(
            f"candidate {trained.name!r} was fitted for other answers than these rows have",
            next_action="train it again on the current task",
        )
    requests = [example.request for example in rows.examples]
    here = partial(write, writer, output, requests, alone=answered_alone(trained))
    folder = save_written(_parts(trained, output, requests, engine, here), workdir, n=len(requests), output=output)
    return _scores(trained, folder, len(requests), _time_alone(writer.generate, requests), recipe)


def _scores(trained: Trained, folder: Folder, n: int, seconds: Sequence[float], recipe: PredictRecipe) -> Scores:
    median = float(np.median(seconds))
    return Scores(
        name=trained.name,
        kind=trained.kind,
        folder=folder,
        n=n,
        latency_s=median,
        latency_p95_s=float(np.quantile(seconds, 0.95)),
        cost_usd_per_1000=median * recipe.cost_usd_per_cpu_hour / 3600 * 1000,
        size_bytes=trained.size_bytes,
        parameters=trained.parameters,
        latency_n=len(seconds),
        cost_n=len(seconds),
    )


def _time_alone(answer: Callable[[Sequence[Request]], object], requests: Sequence[Request]) -> list[float]:
    """Seconds for one request at a time, spread over the rows, after a warm-up."""
    count = min(TIMED, len(requests))
    chosen = [requests[i * len(requests) // count] for i in range(count)]
    for request in chosen[:WARM_UP]:
        answer([request])
    seconds = []
    for request in track(chosen, "timing single answers", total=count):
        start = time.perf_counter()
        answer([request])
        seconds.append(time.perf_counter() - start)
    return seconds


PREDICT_DEV = Step(name="predict-dev", version=5, fn=predict_dev, workdir=True)
PREDICT_TEST = Step(name="predict-test", version=5, fn=predict_test, workdir=True)
TEACHER_SCORES = Step(name="teacher-scores", version=1, fn=teacher_scores, workdir=True)
