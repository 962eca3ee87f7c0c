"""Do-nothing baselines behind an endpoint: an off-the-shelf small model, asked with no examples or with a few."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from overproof.data import CalibrationSet, Completion, Example, Folder, TeacherPin, TestSet, TrainSet
from overproof.errors import TeacherError
from overproof.evidence import Scores
from overproof.progress import reporter
from overproof.steps.answers import save_answers
from overproof.steps.prompting import shots_of, spread, with_examples
from overproof.steps.streamed import COLUMN, LOGITS
from overproof.steps.teach import Sampler
from overproof.store.artifacts import Step
from overproof.students.generated import SEQUENCE

UNCHOSEN = -30.0  # log-probability of the labels that were not answered: most endpoints give one label and no more
BARELY = 1.001  # an answer stays the likeliest label, however little its model thinks of it


@dataclass(frozen=True, kw_only=True, slots=True)
class ShotsRecipe:
    """Which examples go into the prompt."""

    prompt: str
    """The task's instructions."""
    shots: int
    """Examples, spread over the labels; 0 asks without any."""
    seed: int = 0
    """Seed of the draw."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AskRecipe:
    """Who is asked."""

    name: str
    """Shown name of the candidate."""
    pin: TeacherPin
    """The exact model, with the digest of the prompt that it gets."""
    role: str = ""
    """What it is, in words."""


def write_prompt(rows: TrainSet, recipe: ShotsRecipe) -> str:
    """
    The instructions, followed by labelled examples from training rows.

    Args:
        rows: training rows; nothing else may be shown to a candidate.
        recipe: how many, and the seed.

    Returns: the prompt. Labels take turns, so that with few examples as many labels as possible are shown.
    """
    if rows.output is None:
        return with_examples(recipe.prompt, spread(rows.examples, recipe.shots, seed=recipe.seed))
    whole = sorted(rows.examples, key=lambda e: e.request.id)
    draw = random.Random(recipe.seed).sample(whole, min(recipe.shots, len(whole)))  # noqa: S311 - must repeat, no secret
    return with_examples(recipe.prompt, shots_of(draw))


def ask_dev(
    rows: CalibrationSet, recipe: AskRecipe, *, teacher: Sampler, workdir: Path, concurrency: int = 8
) -> Scores:
    """
    Ask the model about the calibration rows.

    Args:
        rows: calibration rows.
        recipe: who is asked.
        teacher: the endpoint with retries, cache and ledger round it.
        workdir: a fresh folder.
        concurrency: requests in flight.

    Returns: scores of kind "baseline"; an answer that names no label is scored as wrong.
    Raises: TeacherError where the endpoint stops the run, or no row was answered.
    """
    return _ask(rows, recipe, teacher, workdir, concurrency)


def ask_test(
    rows: TestSet, recipe: AskRecipe, *, teacher: Sampler, workdir: Path, concurrency: int = 8
) -> Scores:
    """
    Ask the model about the sealed rows; see `ask_dev`.

    Args:
        rows: sealed rows.
        recipe: who is asked.
        teacher: the endpoint with retries, cache and ledger round it.
        workdir: a fresh folder.
        concurrency: requests in flight.

    Returns: scores of kind "baseline".
    Raises: TeacherError where the endpoint stops the run, or no row was answered.
    """
    return _ask(rows, recipe, teacher, workdir, concurrency)


def _ask(
    rows: CalibrationSet | TestSet, recipe: AskRecipe, teacher: Sampler, workdir: Path, concurrency: int
) -> Scores:
    examples, labels = rows.examples, rows.labels
    answers = asyncio.run(_sample_all(examples, teacher, concurrency))
    if not any(a.value is not None for a in answers):
        raise TeacherError(
            f"baseline {recipe.name!r} answered none of {len(examples)} rows with a label ({answers[0].reason})",
            next_action="ask the endpoint by hand, or take the [[baseline]] out",
        )
    folder = workdir / "scores"
    folder.mkdir()
    if rows.output is not None:
        save_answers(folder, [a.value for a in answers])
        np.save(folder / f"{COLUMN}{SEQUENCE}.npy", _odds(answers), allow_pickle=False)
    else:
        np.save(folder / LOGITS, _one_hot(examples, answers, labels), allow_pickle=False)
    seconds = [a.latency_s for a in answers if a.latency_s is not None]
    costs = [a.cost_usd for a in answers if a.cost_usd is not None]
    return Scores(
        name=recipe.name,
        kind="baseline",
        folder=Folder(path=folder),
        n=len(examples),
        latency_s=float(np.median(seconds)) if seconds else 0.0,
        latency_p95_s=float(np.quantile(seconds, 0.95)) if seconds else 0.0,
        cost_usd_per_1000=float(np.mean(costs)) * 1000 if costs else 0.0,
        size_bytes=0,
        parameters=0,
        latency_n=len(seconds),
        cost_n=len(costs),
        role=recipe.role,
    )


def _one_hot(examples: Sequence[Example], answers: Sequence[Completion], labels: tuple[str, ...]) -> NDArray[np.float32]:
    column = {label: i for i, label in enumerate(labels)}
    logits = np.full((len(examples), len(labels)), UNCHOSEN, dtype=np.float32)
    for i, (example, answer) in enumerate(zip(examples, answers, strict=True)):
        said = column[answer.value if answer.value is not None else _wrong(example, labels)]
        if answer.value is not None and answer.probability is not None:
            sure = max(answer.probability, BARELY / len(labels))
            logits[i] = max(UNCHOSEN, math.log(max(1 - sure, 1e-13) / (len(labels) - 1)))
            logits[i, said] = math.log(sure)
        else:
            logits[i, said] = 0.0
    return logits


def _odds(answers: Sequence[Completion]) -> NDArray[np.float64]:
    """Log-odds of the chance that the endpoint gives its answers; all 0 where it names none for some of them."""
    chances = [a.probability for a in answers if a.value is not None]
    if not all(chances):
        return np.zeros(len(answers))
    sure = np.clip([a.probability or 0.5 for a in answers], 1e-12, 1 - 1e-12)
    return np.asarray(np.log(sure) - np.log1p(-sure), dtype=np.float64)


def _wrong(example: Example, labels: tuple[str, ...]) -> str:
    """A label that is neither the teacher's nor gold where there is one: an unusable answer never counts as right."""
    return next((x for x in labels if x not in (example.target, example.gold)), next(x for x in labels if x != example.target))


async def _sample_all(examples: Sequence[Example], teacher: Sampler, concurrency: int) -> list[Completion]:
    advance = reporter.get().start("baseline answers", len(examples))
    room = asyncio.Semaphore(concurrency)

    async def one(example: Example) -> Completion:
        async with room:
            found = await teacher.sample(example.request, n=1)
            advance(1)
            return found[0]

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(example)) for example in examples]
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None
    finally:
        await teacher.close()
        advance(-1)
    return [task.result() for task in tasks]


SHOTS = Step(name="shots", version=1, fn=write_prompt)
ASK_DEV = Step(name="ask-dev", version=2, fn=ask_dev, workdir=True)
ASK_TEST = Step(name="ask-test", version=2, fn=ask_test, workdir=True)
