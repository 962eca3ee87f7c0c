"""A teacher that changes in silence, seen by canary prompts: python -m benchmarks.watch.teacher --data FOLDER [--runs N]."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from overproof.data import Answered, Answers, Completion, PromptRow, Request
from overproof.measure.intervals import cp_interval
from overproof.measure.rounds import read_rounds
from overproof.watch.teacher import DRAWN, FALSE_EVERY_DAYS, REFERENCE_ROUNDS, chosen

QUIET, DAYS, CALLS = 10, 30, 400
Round = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class World:
    """How an unchanged teacher answers its canary prompts: the answers of each, with their chances."""

    name: str
    choices: tuple[tuple[str, ...], ...]
    chances: tuple[tuple[float, ...], ...]
    labels: tuple[str, ...]

    def rounds(self, rng: np.random.Generator, n: int, *, turned: np.ndarray | None = None) -> list[Round]:
        """Rounds of answers; the turned prompts get another label, as steadily as they got theirs."""
        columns = []
        for i, (said, chance) in enumerate(zip(self.choices, self.chances, strict=True)):
            drawn = rng.choice(len(said), size=n, p=chance)
            usual = said[int(np.argmax(chance))]
            other = self.labels[(self.labels.index(usual) + 1) % len(self.labels)]
            columns.append([other if turned is not None and turned[i] and said[k] == usual else said[k] for k in drawn])
        return [tuple(row) for row in zip(*columns, strict=True)]


def inbox(folder: Path) -> World:
    """The recorded teacher of the inbox: each message's three independent answers, and the prompts that the watch would take."""
    said: dict[str, list[str]] = {}
    for line in (folder / "answers.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        said.setdefault(row["id"], []).append(row["output"])
    rows = tuple(
        Answered(
            row=PromptRow(request=Request(id=name, fields={"id": name}), weight=1.0, group=name),
            completions=tuple(Completion(text=one, value=one, model="recorded") for one in answers),
        )
        for name, answers in said.items()
    )
    empty: Answers = Answers(train=rows, calibration=(), test=(), pin=None, clearance_id="", spent_usd=0.0)  # type: ignore[arg-type]
    canaries = chosen(empty, salt="benchmark")
    assert canaries is not None
    names = [one.id for one in canaries.prompts]
    labels = tuple(sorted({one for answers in said.values() for one in answers}))
    choices = tuple(tuple(dict.fromkeys(said[name])) for name in names)
    chances = tuple(tuple(said[name].count(one) / len(said[name]) for one in of) for name, of in zip(names, choices, strict=True))
    return World(name=f"recorded inbox, {DRAWN} drawn + {len(names) - DRAWN} disputed", choices=choices, chances=chances, labels=labels)


def made(name: str, flicker: Sequence[float]) -> World:
    """Prompts that waver between two labels, each with its own chance of the rarer one."""
    return World(
        name=name, choices=(("a", "b"),) * len(flicker), chances=tuple((1.0 - f, f) for f in flicker), labels=("a", "b", "c"),
    )  # fmt: skip


Rule = Callable[[list[Round], list[Round]], list[bool]]


def ours(reference: list[Round], after: list[Round]) -> list[bool]:
    """As `overproof watch` reads them, one round a day."""
    return [one.alarm for one in read_rounds(reference, after, mean_rounds=FALSE_EVERY_DAYS)]


def any_differs(reference: list[Round], after: list[Round]) -> list[bool]:
    """An alert whenever an answer is not the one that was kept."""
    return [one != reference[0] for one in after]


def tenth_differs(reference: list[Round], after: list[Round]) -> list[bool]:
    """An alert when more than a tenth of the answers are not those that were kept."""
    return [sum(a != b for a, b in zip(one, reference[0], strict=True)) > len(one) / 10 for one in after]


RULES: dict[str, Rule] = {"any answer differs": any_differs, "over 10 % differ": tenth_differs, "ours": ours}


def false_alarms(world: World, rule: Rule, runs: int, seed: int) -> float:
    """Alarms in 30 daily rounds of an unchanged teacher, on average; after one the rule begins anew."""
    rng, total = np.random.default_rng(seed), 0
    for _ in range(runs):
        reference, after = world.rounds(rng, REFERENCE_ROUNDS), world.rounds(rng, DAYS)
        while after:
            alarms = rule(reference, after)
            if True not in alarms:
                break
            total += 1
            after = after[alarms.index(True) + 1 :]
    return total / runs


def calls(world: World, rule: Rule, runs: int, seed: int, share: float) -> list[float]:
    """Canary calls from the change to the alarm, 30 rounds at most; runs with a false alarm before it are left out."""
    rng, found = np.random.default_rng(seed), []
    n = len(world.choices)
    for _ in range(runs):
        turned = rng.random(n) < share
        reference = world.rounds(rng, REFERENCE_ROUNDS)
        alarms = rule(reference, [*world.rounds(rng, QUIET), *world.rounds(rng, DAYS, turned=turned)])
        first = alarms.index(True) if True in alarms else -1
        if not 0 <= first < QUIET:
            found.append(float(n * (first - QUIET + 1)) if first >= 0 else float("inf"))
    return found


def main() -> int:
    """Print the table; 1 where a claim doesn't hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds inbox/")
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    worlds = [
        inbox(given.data / "inbox" if (given.data / "inbox").is_dir() else given.data),
        made("temperature 0, 0.1 % noise", [0.001] * 50),
        made("2 % noise everywhere", [0.02] * 50),
        made("half steady, half wavering by 5-50 %", [*[0.003] * 25, *rng.uniform(0.05, 0.5, 25)]),
    ]
    print(f"{given.runs} runs each; 50 prompts or so a day, {REFERENCE_ROUNDS} reference rounds; {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}\n")
    print("| world | rule | false alarms in 30 days | 5 % of answers differ: median calls | seen within 400 calls | 20 %: median calls |")
    print("|---|---|---|---|---|---|")
    holds = True
    for world in worlds:
        for name, rule in RULES.items():
            false = false_alarms(world, rule, given.runs, given.seed + 1)
            small, large = (calls(world, rule, given.runs, given.seed + 2, share) for share in (0.05, 0.2))
            middle, much = (float(np.median(part)) if part else float("nan") for part in (small, large))
            hits = sum(one <= CALLS for one in small)
            seen = cp_interval(hits, len(small)) if small else None
            told = "no run without an earlier false alarm" if seen is None else f"{100 * hits / len(small):.0f} % [{100 * seen.low:.0f}, {100 * seen.high:.0f}] of {len(small)}"
            print(f"| {world.name} | {name} | {false:.2f} | {_said(middle)} | {told} | {_said(much)} |", flush=True)
            if name == "ours":
                holds = holds and false <= 1.0 and middle <= CALLS
    blind = 0.95 ** len(worlds[1].choices)
    print(f"\nIn {100 * blind:.0f} % of such changes none of 50 prompts is among the 5 %: no rule can see these.")
    print("Nothing asked, as is usual: a silent change is never seen.")
    print(f"{'holds' if holds else 'FAILS'}: at most {CALLS} calls in the median and at most 1 false alarm in 30 days, in every world")
    return int(not holds)


def _said(figure: float) -> str:
    return "-" if np.isnan(figure) else "not seen" if np.isinf(figure) else f"{figure:.0f}"


if __name__ == "__main__":
    sys.exit(main())
