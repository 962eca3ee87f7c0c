"""A light search for a better prompt: instructions and examples, by successive halving, bounded in questions."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from overproof.data import Completion, Example, TeacherPin, TrainSet
from overproof.errors import DataError
from overproof.evidence import PromptSearch, Trial
from overproof.measure.intervals import figure
from overproof.measure.paired import superiority
from overproof.progress import reporter
from overproof.steps.prompting import (
    Prompting,
    alone,
    by_count,
    confusable,
    described,
    near,
    shots_of,
    spread,
    with_examples,
)
from overproof.steps.teach import Sampler
from overproof.store.artifacts import Step

FIRST_ROWS = 4  # fewer questions than these say nothing about a prompt
SHOTS = 8
LEAST_ROWS = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimiseRecipe:
    """Who is asked, and how much the search may ask."""

    name: str
    """Shown name of the baseline."""
    prompt: str
    """The task's instructions."""
    shots: int
    """Examples that candidates show; 0 for 8."""
    calls: int
    """The most questions."""
    seed: int
    """Of the rows and examples that are drawn."""
    pin: TeacherPin
    """The exact model; the digest of each prompt comes on top."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Optimised:
    """The prompt that won, and how."""

    prompting: Prompting
    search: PromptSearch


@dataclass(kw_only=True, slots=True)
class _Tried:
    """One candidate while the search runs."""

    name: str
    prompting: Prompting
    right: list[bool] = field(default_factory=list)
    cost_usd: float = 0.0
    out_after: int | None = None


def optimise(
    rows: TrainSet, recipe: OptimiseRecipe, *, asker: Callable[[Prompting], Sampler], concurrency: int = 8
) -> Optimised:
    """
    Try instructions and examples on training rows, and keep the best.

    Args:
        rows: training rows: one part of them is shown, another scores, and no other row is read.
        recipe: who is asked, and how often at most.
        asker: a prompt to the model that is asked with it, cache and ledger round it.
        concurrency: questions in flight.

    Returns: the prompt and the trials. An answer that is no label is wrong. The project's own prompt stays in to the end,
        and wins unless another one is right more often on the same rows.
    Raises: DataError with fewer than 20 rows or without labels; TeacherError where the endpoint stops the run.
    """
    if len(rows.examples) < LEAST_ROWS or not rows.labels:
        raise DataError(
            f"baseline {recipe.name!r}: a prompt search needs {LEAST_ROWS} labelled training rows, there are {len(rows.examples)}",
            next_action="collect more traffic, or take `optimise` out of the [[baseline]]",
        )
    shown, scored = _parts(rows.examples, recipe)
    tried = [_Tried(name=name, prompting=made) for name, made in candidates(shown, rows.labels, recipe)]
    tried = tried[: _field_size(recipe.calls, len(tried))]
    asyncio.run(_search(tried, scored, recipe, asker, concurrency))
    best = max(tried, key=lambda t: (t.out_after is None, sum(t.right), -tried.index(t)))
    plain = tried[0]
    b = sum(x and not y for x, y in zip(plain.right, best.right, strict=True))
    c = sum(y and not x for x, y in zip(plain.right, best.right, strict=True))
    search = PromptSearch(
        name=recipe.name,
        chosen=best.name,
        trials=tuple(
            Trial(
                name=t.name, agreement=figure(sum(t.right), len(t.right), metric="fidelity"), calls=len(t.right),
                cost_usd=t.cost_usd, out_after=t.out_after,
            )
            for t in tried
        ),
        calls=sum(len(t.right) for t in tried),
        cap=recipe.calls,
        cost_usd=sum(t.cost_usd for t in tried),
        n_shown=len(shown),
        n_scored=len(scored),
        p=None if best is plain else superiority(b, c, d=0.05, n=len(best.right)).p,
    )  # fmt: skip
    return Optimised(prompting=best.prompting, search=search)


def candidates(
    shown: Sequence[Example], labels: tuple[str, ...], recipe: OptimiseRecipe
) -> list[tuple[str, Prompting]]:
    """
    What is worth trying, the simplest and most promising first: a small search tries only the first ones.

    Args:
        shown: training rows that may be shown.
        labels: of the task.
        recipe: the instructions, the number of examples, the seed.

    Returns: name and prompt; the first is the task's own prompt as it stands.
    """
    count, pool = recipe.shots or SHOTS, shots_of(shown)
    words = {
        "plain": recipe.prompt,
        "label alone": alone(recipe.prompt, labels),
        "typical words": described(recipe.prompt, labels, shown),
        "rarest first": alone(recipe.prompt, by_count(labels, shown)),
    }
    sets = {
        f"spread {count}": spread(shown, count, seed=recipe.seed),
        f"spread {count} again": spread(shown, count, seed=recipe.seed + 1),
        f"confusable {count}": confusable(shown, count),
    }
    found = [(name, Prompting(text=text)) for name, text in words.items() if name != "rarest first"]
    for name in ("plain", "label alone", "typical words") if pool else ():
        found.append((f"{name} + nearest {count}", near(Prompting(text=words[name]), pool, count)))
        found += [(f"{name} + {kind}", Prompting(text=with_examples(words[name], shots))) for kind, shots in sets.items() if shots]
    found.append(("rarest first", Prompting(text=words["rarest first"])))
    order = sorted(range(len(found)), key=lambda i: ("again" in found[i][0], "confusable" in found[i][0], i))
    return list({found[i][1].digest: found[i] for i in reversed(order)}.values())[::-1]  # of equal prompts the first


def _parts(examples: Sequence[Example], recipe: OptimiseRecipe) -> tuple[list[Example], list[Example]]:
    """Rows to show and rows to score on; a text that scores is never shown, whatever its id."""
    order = sorted(examples, key=lambda e: e.request.id)
    random.Random(recipe.seed).shuffle(order)  # noqa: S311 - a draw that must repeat, no secret
    scored = order[: min(len(order) // 2, recipe.calls)]
    texts = {e.request.digest for e in scored}
    return [e for e in order[len(scored) :] if e.request.digest not in texts], scored


def _field_size(calls: int, most: int) -> int:
    """As many candidates as the first round can ask a few questions each."""
    fits = [n for n in range(2, most + 1) if calls // _rounds(n) // n >= FIRST_ROWS]
    return max(fits, default=2)


def _rounds(n: int) -> int:
    return max(1, math.ceil(math.log2(n)))


async def _search(
    tried: list[_Tried], scored: Sequence[Example], recipe: OptimiseRecipe, asker: Callable[[Prompting], Sampler], concurrency: int
) -> None:
    advance = reporter.get().start("prompt search", recipe.calls)
    samplers = {t.name: asker(t.prompting) for t in tried}
    rounds, left, alive = _rounds(len(tried)), recipe.calls, list(tried)
    try:
        for turn in range(1, rounds + 1):
            # What a round doesn't use, for want of whole rows, the next ones have.
            more = min(left // (rounds - turn + 1) // len(alive), len(scored) - len(alive[0].right))
            for one in alive:
                start = len(one.right)
                await _ask(one, scored[start : start + more], samplers[one.name], concurrency)
                left -= more
                advance(more)
            if turn < rounds:
                alive = _kept(alive, turn)
    finally:
        for sampler in samplers.values():
            await sampler.close()
        advance(-1)


def _kept(alive: list[_Tried], turn: int) -> list[_Tried]:
    """The better half on the same rows, ties by order; the project's own prompt stays to be compared with."""
    ranked = sorted(alive, key=lambda t: -sum(t.right))
    kept = ranked[: math.ceil(len(alive) / 2)]
    if alive[0] not in kept:
        kept[-1] = alive[0]
    for one in alive:
        if one not in kept:
            one.out_after = turn
    return [one for one in alive if one in kept]


async def _ask(one: _Tried, rows: Sequence[Example], sampler: Sampler, concurrency: int) -> None:
    room = asyncio.Semaphore(concurrency)

    async def ask(example: Example) -> Completion:
        async with room:
            return (await sampler.sample(example.request, n=1))[0]

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask(example)) for example in rows]
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None
    for example, task in zip(rows, tasks, strict=True):
        said = task.result()
        one.right.append(said.value == example.target)
        one.cost_usd += said.cost_usd or 0.0


OPTIMISE = Step(name="optimise", version=1, fn=optimise)
