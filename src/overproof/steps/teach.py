"""Ask the teacher about every row of the prompt set: the one step that may reach the network."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from overproof import registry
from overproof.data import Answered, Answers, Clearance, Completion, PromptRow, PromptSet, Request, TeacherPin
from overproof.errors import DataError, NotCleared
from overproof.measure.labels import samples_wanted
from overproof.measure.slices import Functions, assign
from overproof.progress import reporter
from overproof.store.artifacts import Step
from overproof.task import Slice


class Sampler(Protocol):
    """A teacher with retries, cache and ledger round it; see `store.labels.LedgeredTeacher`."""

    async def sample(
        self, request: Request, *, n: int, recorded: Completion | None = None
    ) -> Sequence[Completion]:
        """Samples 0 to n - 1 in order; those that are settled already are not bought again."""

    async def close(self) -> None:
        """Let go of connections."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TeachRecipe:
    """What decides the answers; how many are asked for at once doesn't."""

    pin: TeacherPin
    """The teacher that may answer."""
    samples: int = 1
    """Samples of every row."""
    hard_samples: int = 0
    """Samples in all of a row on which the first ones differ, or that falls in `extra_on`; 0 takes no more."""
    privacy: str = ""
    """Digest of the policy by which answers are redacted before they are kept; empty for the usual one."""
    extra_on: tuple[Slice, ...] = ()
    """Slices that always take `hard_samples`; one on `label` counts as soon as any first sample names the label."""


def teach(
    prompts: PromptSet,
    clearance: Clearance,
    recipe: TeachRecipe,
    *,
    teacher: Sampler,
    concurrency: int = 16,
    grace_s: float = 10.0,
) -> Answers:
    """
    Collect the teacher's samples for all rows of all splits.

    Args:
        prompts: the rows.
        clearance: the permission; its pin must be the recipe's.
        recipe: pin and number of samples.
        teacher: answers, and keeps what it answered.
        concurrency: rows in flight at once.
        grace_s: after a failure or an interrupt, seconds that calls in flight get to finish, since they are paid for.

    Returns: the answers; a row on which every try failed has no completions, and the reason.
    Raises: NotCleared if the clearance is for another teacher; TeacherError where the teacher stops the run;
        KeyboardInterrupt after calls in flight were settled.
    """
    _check(clearance, recipe, concurrency)
    rows = (*prompts.train, *prompts.calibration, *prompts.test)
    answered = asyncio.run(_ask_all(rows, recipe, teacher, concurrency=concurrency, grace_s=grace_s))
    first, second = len(prompts.train), len(prompts.train) + len(prompts.calibration)
    return Answers(
        train=answered[:first],
        calibration=answered[first:second],
        test=answered[second:],
        pin=recipe.pin,
        clearance_id=clearance.id,
        spent_usd=sum(c.cost_usd or 0.0 for a in answered for c in a.completions),
    )


def _check(clearance: Clearance, recipe: TeachRecipe, concurrency: int) -> None:
    if clearance.pin != recipe.pin:
        raise NotCleared(
            f"the clearance is for {clearance.pin.model!r} of {clearance.pin.provider!r}"
            f" (revision {clearance.pin.revision!r}), the run asks {recipe.pin.model!r} of {recipe.pin.provider!r}"
            f" (revision {recipe.pin.revision!r}) or asks it in another way",
            next_action="clear the terms for the teacher that the project pins",
        )
    if recipe.samples < 1 or recipe.hard_samples < 0 or concurrency < 1:
        raise DataError(
            f"[teacher] samples {recipe.samples}, hard_samples {recipe.hard_samples}, concurrency {concurrency}:"
            " the first and the last must be at least 1",
            next_action="mend [teacher]",
        )


async def _ask_all(
    rows: Sequence[PromptRow], recipe: TeachRecipe, teacher: Sampler, *, concurrency: int, grace_s: float
) -> tuple[Answered, ...]:
    answered: list[Answered | None] = [None] * len(rows)
    functions = {f: registry.resolve("slices", f) for part in recipe.extra_on if (f := part.function) is not None}
    queue = iter(range(len(rows)))
    advance = reporter.get().start("teacher answers", len(rows))
    stop = asyncio.Event()

    async def work() -> None:
        for place in _until(stop, queue):
            answered[place] = await _ask(rows[place], recipe, teacher, functions)
            advance(1)

    tasks = [asyncio.create_task(work()) for _ in range(min(concurrency, len(rows)))]
    try:
        if tasks:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:  # reached by an interrupt too, which cancels the wait above
        stop.set()
        running = [task for task in tasks if not task.done()]
        if running:
            await asyncio.wait(running, timeout=grace_s)
        for task in running:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await teacher.close()
        advance(-1)
    failures = [error for task in tasks if not task.cancelled() and (error := task.exception())]
    if failures:
        raise failures[0]
    return tuple(a for a in answered if a is not None)


def _until(stop: asyncio.Event, queue: Iterator[int]) -> Iterator[int]:
    while not stop.is_set() and (place := next(queue, None)) is not None:
        yield place


async def _ask(row: PromptRow, recipe: TeachRecipe, teacher: Sampler, functions: Functions) -> Answered:
    found = await teacher.sample(row.request, n=recipe.samples, recorded=row.recorded)
    if recipe.hard_samples > recipe.samples and _is_hard(row.request, found, recipe, functions):
        found = await teacher.sample(row.request, n=recipe.hard_samples, recorded=row.recorded)
    said = tuple(c for c in found if c.value is not None or c.text)
    if said:
        return Answered(row=row, completions=said)
    reasons = [c.reason for c in found if c.reason]
    return Answered(row=row, completions=(), reason=reasons[0] if reasons else "the teacher gave no answer")


def _is_hard(request: Request, found: Sequence[Completion], recipe: TeachRecipe, functions: Functions) -> bool:
    values = [c.value or "" for c in found]
    if recipe.samples > 1 and samples_wanted(values, first=recipe.samples, most=recipe.hard_samples):
        return True
    return bool(assign(recipe.extra_on, [request] * len(values), values, functions=functions).any())


TEACH = Step(name="teach", version=1, fn=teach)
