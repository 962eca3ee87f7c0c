"""Canary prompts: the same questions asked again, to notice that a model changed under its name."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from overproof.data import CanaryRound, Completion, Request, digest_of
from overproof.errors import DataError, PinMismatch
from overproof.measure.intervals import cp_upper, p_pass
from overproof.measure.rounds import least_alarm

FIRST_INDEX = 1_000_000  # of samples that are canary rounds; labels never come so far
REFERENCE_ROUNDS = 3  # asked at the first run: the first sets the answers, the others show how much they flicker
MOST_ROUNDS = 20  # earlier clean rounds that the noise is estimated from
FALSE_ALARM = 1 / 30  # a round: about one false alarm a month where labelling runs daily
NOISE_DELTA = 0.05


class Numbered(Protocol):
    """A teacher whose answers have numbers, each bought once."""

    async def one(self, request: Request, index: int) -> Completion:
        """The answer with this number."""


class Rounds(Protocol):
    """Where earlier rounds are kept; see `store.labels.LabelLedger`."""

    def canary_rounds(self, pin: str, prompts: str) -> list[bool]:
        """Whether each finished round was an alarm, in order."""

    def note_canaries(self, pin: str, prompts: str, found: CanaryRound) -> None:
        """Keep a finished round."""


def read_canaries(path: Path, *, fields: Sequence[str]) -> tuple[Request, ...]:
    """
    The fixed prompts of a project.

    Args:
        path: JSON lines, each with the task's input fields.
        fields: names of those fields.

    Returns: one request a line.
    Raises: DataError for a line that is no prompt, or so few prompts that no change could ever be told from noise.
    """
    found = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"canaries {path.name!r} can't be read", next_action="mend [teacher] canaries") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            said = json.loads(line)
        except ValueError:
            said = None
        texts = {name: said.get(name) for name in fields} if isinstance(said, dict) else {}
        if not texts or not all(isinstance(text, str) for text in texts.values()):
            raise DataError(
                f"{path.name}:{number}: not one JSON object with {', '.join(fields)}",
                next_action="write each canary prompt as the task's input fields",
            )
        found.append(Request(id=f"canary-{number}", fields={name: str(text) for name, text in texts.items()}))
    few = len(found) == 0 or alarm_at(len(found), _noise(0, len(found) * (REFERENCE_ROUNDS - 1))) > len(found)
    if few:
        raise DataError(
            f"{path.name}: with {len(found)} canary prompts even a change of all answers could be noise",
            next_action="write more of them; 25 or more are worth their price",
        )
    return tuple(found)


async def ask_canaries(
    teacher: Numbered, rounds: Rounds, prompts: Sequence[Request], *, pin: str, model: str, stop: bool, at_once: int = 8
) -> CanaryRound:
    """
    Ask every prompt once more and compare with the reference by an exact test.

    Args:
        teacher: answers by number, each bought once.
        rounds: where rounds are kept.
        prompts: from `read_canaries`.
        pin: digest of who is asked and how; another one has a reference of its own.
        model: for messages.
        stop: raise where the answers changed by more than noise.
        at_once: prompts in flight.

    Returns: the round.
    Raises: PinMismatch for an alarm, where `stop`.
    """
    name = digest_of([p.digest for p in prompts])
    alarms = rounds.canary_rounds(pin, name)
    if not alarms:
        for number in range(REFERENCE_ROUNDS):
            await _round(teacher, prompts, number, at_once)
            rounds.note_canaries(pin, name, _blank(number))
        return _blank(REFERENCE_ROUNDS - 1)
    number = len(alarms)
    reference = await _round(teacher, prompts, 0, at_once)
    clean = [n for n in range(1, number) if not alarms[n]][:MOST_ROUNDS]
    earlier = [await _round(teacher, prompts, n, at_once) for n in clean]
    flicker = sum(a != b for answers in earlier for a, b in zip(reference, answers, strict=True))
    noise = _noise(flicker, len(earlier) * len(prompts))
    now = await _round(teacher, prompts, number, at_once)
    differ = sum(a != b for a, b in zip(reference, now, strict=True))
    n = len(prompts)
    found = CanaryRound(
        round=number, n=n, differ=differ, alarm_at=alarm_at(n, noise), noise=noise, p=_tail(differ, n, noise)
    )
    rounds.note_canaries(pin, name, found)
    if found.alarm and stop:
        raise PinMismatch(
            f"{differ} of {n} canary prompts get another answer from {model!r} than before; noise explains fewer than"
            f" {found.alarm_at} (chance {found.p:.2g} if nothing had changed)",
            next_action='ask the provider what changed and label anew under a new pin, or set on_canary = "report"',
        )
    return found


def alarm_at(n: int, noise: float) -> int:
    """
    The fewest different answers that noise doesn't explain.

    Args:
        n: prompts.
        noise: chance that one answer differs when nothing has changed.

    Returns: smallest c with P(Binomial(n, noise) >= c) at most 1/30; n + 1 where there is none.
    """
    return least_alarm(n, noise, FALSE_ALARM)


def _tail(c: int, n: int, noise: float) -> float:
    """P(Binomial(n, noise) >= c): one minus the chance of at most c - 1."""
    if c <= 0:
        return 1.0
    return 1.0 if noise >= 1 else max(0.0, 1.0 - p_pass(c - 1, n, noise))


def _noise(differ: int, n: int) -> float:
    return cp_upper(differ, n, NOISE_DELTA)


def _blank(number: int) -> CanaryRound:
    return CanaryRound(round=number, n=0, differ=0, alarm_at=1, noise=1.0, p=1.0)


async def _round(teacher: Numbered, prompts: Sequence[Request], number: int, at_once: int) -> list[str]:
    gate = asyncio.Semaphore(at_once)

    async def ask(prompt: Request) -> str:
        async with gate:
            found = await teacher.one(prompt, FIRST_INDEX + number)
            return found.value if found.value is not None else f"no label: {found.finish}"

    return await asyncio.gather(*(ask(prompt) for prompt in prompts))
