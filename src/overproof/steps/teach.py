"""Ask the teacher about every row of the prompt set: the one step that may reach the network."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from overproof import registry
from overproof.data import (
    Answered,
    Answers,
    Asking,
    CanaryRound,
    Clearance,
    Completion,
    PromptRow,
    PromptSet,
    Repeat,
    Request,
    TeacherPin,
)
from overproof.errors import DataError, NotCleared
from overproof.measure.labels import agreement, samples_wanted
from overproof.measure.slices import Functions, assign
from overproof.outputs import alike
from overproof.progress import reporter
from overproof.store.artifacts import Step
from overproof.task import Fields, Slice, Text


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
    extra_below: float | None = None
    """A row takes `hard_samples` too where the teacher gives its first answer less than this chance."""
    samples_by: tuple[tuple[Slice, int], ...] = ()
    """Slices with another number of first samples; the first that a row falls in holds."""
    repeat: int = 0
    """Random rows that are asked a second time, to see how often the teacher agrees with itself."""
    seed: int = 0
    """Chooses those rows."""
    output: Fields | Text | None = None
    """What the answers are where they are no labels: it says which of them count as the same."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asked:
    answered: Answered
    repeat: Repeat | None = None
    extra: int = 0
    why: str = ""
    changed: bool = False
    beside_usd: float = 0.0
    """What the second answer cost where it is no sample of the row."""


def teach(
    prompts: PromptSet,
    clearance: Clearance,
    recipe: TeachRecipe,
    *,
    teacher: Sampler,
    concurrency: int = 16,
    grace_s: float = 10.0,
    watch: Callable[[], Awaitable[CanaryRound]] | None = None,
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
        watch: re-asks the canary prompts before anything else, and raises where that has to stop the run.

    Returns: the answers; a row on which every try failed has no completions, and the reason.
    Raises: NotCleared if the clearance is for another teacher; TeacherError where the teacher stops the run;
        KeyboardInterrupt after calls in flight were settled.
    """
    _check(clearance, recipe, concurrency)
    rows = (*prompts.train, *prompts.calibration, *prompts.test)
    rounds: list[CanaryRound] = []

    async def ask() -> tuple[_Asked, ...]:
        if watch is not None and rows:
            try:
                rounds.append(await watch())
            except BaseException:
                await teacher.close()
                raise
        return await _ask_all(rows, recipe, teacher, concurrency=concurrency, grace_s=grace_s)

    asked = asyncio.run(ask())
    answered = tuple(one.answered for one in asked)
    first, second = len(prompts.train), len(prompts.train) + len(prompts.calibration)
    return Answers(
        train=answered[:first],
        calibration=answered[first:second],
        test=answered[second:],
        pin=recipe.pin,
        clearance_id=clearance.id,
        spent_usd=sum(c.cost_usd or 0.0 for a in answered for c in a.completions) + sum(a.beside_usd for a in asked),
        asking=_asking(asked, rounds[0] if rounds else None),
    )


def _asking(asked: Sequence[_Asked], canaries: CanaryRound | None) -> Asking:
    said = [c for one in asked for c in one.answered.completions if c.value is not None]
    return Asking(
        repeats=tuple(one.repeat for one in asked if one.repeat is not None),
        extra_bought=sum(one.extra for one in asked),
        extra_rows=sum(one.extra > 0 for one in asked),
        extra_changed=sum(one.changed for one in asked),
        extra_reasons=dict(sorted(Counter(one.why for one in asked if one.extra).items())),
        fingerprints=dict(sorted(Counter(c.fingerprint or "" for c in said).items())),
        canaries=canaries,
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
) -> tuple[_Asked, ...]:
    answered: list[_Asked | None] = [None] * len(rows)
    named = (*recipe.extra_on, *(part for part, _ in recipe.samples_by))
    functions = {f: registry.resolve("slices", f) for part in named if (f := part.function) is not None}
    twice = _twice(rows, recipe)
    queue = iter(range(len(rows)))
    advance = reporter.get().start("teacher answers", len(rows))
    stop = asyncio.Event()

    async def work() -> None:
        for place in _until(stop, queue):
            answered[place] = await _ask(rows[place], recipe, teacher, functions, twice=place in twice)
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


def _twice(rows: Sequence[PromptRow], recipe: TeachRecipe) -> set[int]:
    """Places of the rows to ask twice: drawn by a hash, so that a resumed run draws the same ones."""
    if not recipe.repeat:
        return set()

    def draw(place: int) -> bytes:
        return hashlib.sha256(f"{recipe.seed} asked twice {rows[place].request.digest} {place}".encode()).digest()

    return set(sorted(range(len(rows)), key=draw)[: recipe.repeat])


async def _ask(
    row: PromptRow, recipe: TeachRecipe, teacher: Sampler, functions: Functions, *, twice: bool
) -> _Asked:
    first = _first_samples(row.request, recipe, functions)
    both = await teacher.sample(row.request, n=max(first, 2) if twice else first, recorded=row.recorded)
    found, why = list(both[:first]), ""
    if recipe.hard_samples > first:
        why = _why_hard(row.request, found, recipe, functions)
    before = _majority(found, recipe)
    if why:
        found = list(await teacher.sample(row.request, n=recipe.hard_samples, recorded=row.recorded))
    said = tuple(c for c in found if c.value is not None or c.text)
    reasons = [c.reason for c in found if c.reason]
    repeat = None
    if twice and both[0].value is not None and both[1].value is not None:
        one, other = alike(recipe.output, [both[0].value, both[1].value])
        repeat = Repeat(request_id=row.request.id, first=one, second=other)
    return _Asked(
        answered=Answered(
            row=row, completions=said, reason="" if said else reasons[0] if reasons else "the teacher gave no answer"
        ),
        repeat=repeat,
        extra=len(found) - first,
        why=why,
        changed=bool(why) and _majority(found, recipe) != before,
        beside_usd=sum(c.cost_usd or 0.0 for c in both[len(found) :]),
    )


def _majority(found: Sequence[Completion], recipe: TeachRecipe) -> str | None:
    values = alike(recipe.output, [c.value for c in found if c.value is not None])
    return agreement(values).value if values else None


def _first_samples(request: Request, recipe: TeachRecipe, functions: Functions) -> int:
    for part, number in recipe.samples_by:
        if bool(assign((part,), [request], [""], functions=functions).any()):
            return number
    return recipe.samples


def _why_hard(request: Request, found: Sequence[Completion], recipe: TeachRecipe, functions: Functions) -> str:
    said = [c.value or "" for c in found]
    values = said if "" in said else alike(recipe.output, said)  # what is no answer has no like
    if len(values) > 1 and samples_wanted(values, first=len(values), most=recipe.hard_samples):
        return "the first samples differ"
    if bool(assign(recipe.extra_on, [request] * len(values), values, functions=functions).any()):
        return "named in extra_on"
    chance = found[0].probability
    unsure = recipe.extra_below is not None and chance is not None and chance < recipe.extra_below
    return "the teacher was unsure" if unsure else ""


TEACH = Step(name="teach", version=2, fn=teach)
