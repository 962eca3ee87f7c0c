"""Where the rollout of a task stands, and what its gateways have counted: integers that add."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from itertools import pairwise
from typing import Self

from overproof.data.served import Stage

ALL = ""
"""Name under which all slices are counted together."""
_SECONDS = {"d": 86_400.0, "h": 3_600.0, "m": 60.0}


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedStage:
    """One stage on the way to full."""

    stage: Stage
    share: float
    """Chance of a request to go to the student, in [0, 1]."""
    least_s: float
    """How long it lasts at least."""

    @property
    def name(self) -> str:
        """As the project file writes it, without the time: "shadow", "canary 5%", "full"."""
        return f"{self.stage} {100 * self.share:g}%" if self.stage == "canary" else self.stage


@dataclass(frozen=True, kw_only=True, slots=True)
class StageCounts:
    """What was seen of one slice; counts of two gateways add."""

    requests: int = 0
    """Requests of the slice."""
    asked: int = 0
    """Of these, the student was asked."""
    faults: int = 0
    """Asked, and no answer in time and in the asked form."""
    kept: int = 0
    """Asked, and sure enough to answer whatever the stage."""
    compared: int = 0
    """Kept, and the teacher answered as well."""
    disagreed: int = 0
    """Compared, and the teacher said something else."""
    drawn: int = 0
    """Compared by a draw that is alike in all slices; a critical slice is compared more often than that."""
    drawn_wrong: int = 0
    """Drawn, and the teacher said something else."""
    by_student: int = 0
    """Kept, and drawn for the student by the canary's draw."""
    student_failed: int = 0
    """Of these, the student's answer missed the asked form, so that the teacher had to be asked after all."""
    by_teacher: int = 0
    """Kept, and left to the teacher by the canary's draw."""
    teacher_failed: int = 0
    """Of these, the teacher gave none, not in time, an error, or not the asked form."""

    def __add__(self, other: Self) -> Self:
        return type(self)(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    @property
    def sound(self) -> bool:
        """Whether the counts of a whole stage can be; what can't be is no evidence."""
        parts = (
            (self.asked, self.requests), (self.faults, self.asked), (self.kept, self.asked), (self.compared, self.kept),
            (self.disagreed, self.compared), (self.drawn, self.compared), (self.drawn_wrong, self.drawn),
            (self.drawn_wrong, self.disagreed), (self.by_student + self.by_teacher, self.kept),
            (self.student_failed, self.by_student), (self.teacher_failed, self.by_teacher),
        )  # fmt: skip
        whole = all(isinstance(n, int) and n >= 0 for n in astuple(self))
        return whole and all(part <= of for part, of in parts)


COUNTS = tuple(f.name for f in fields(StageCounts))


@dataclass(frozen=True, kw_only=True, slots=True)
class RolloutState:
    """Where the rollout of one task stands; the same for every gateway on the store."""

    task: str
    stage: Stage = "teacher-only"
    release_id: str | None = None
    """The release of the stage; None while the teacher answers alone."""
    share: float = 0.0
    """Chance of a request to go to the student, in [0, 1]."""
    suspended: frozenset[str] = frozenset()
    """Slices whose requests go to the teacher, whatever the stage."""
    epoch: int = 0
    """Rises with each move; evidence is counted from one to the next. 0: nothing was ever rolled out."""
    since: float = 0.0
    """When the stage began, in seconds since 1970."""
    by: str = ""
    """Who moved."""
    why: str = ""
    """In a few words."""
    last_release: str | None = None
    """The release of the newest move, also after a rollback."""


def seconds_of(text: str) -> float:
    """
    A time as the project file writes it.

    Args:
        text: for example "7d", "12h" or "30m".

    Returns: seconds.
    """
    return int(text[:-1]) * _SECONDS[text[-1]]


def planned_stages(texts: Sequence[str]) -> tuple[PlannedStage, ...]:
    """
    The way to full.

    Args:
        texts: [serve] stages, each of the form that `settings.STAGE_PATTERN` admits.

    Returns: one stage for each text.
    """
    found = []
    for text in texts:
        words = text.split()
        share = {"shadow": 0.0, "full": 1.0}.get(words[0])
        least = seconds_of(words[-1]) if re.fullmatch(r"\d+[dhm]", words[-1]) else 0.0
        stage: Stage = "shadow" if words[0] == "shadow" else "full" if words[0] == "full" else "canary"
        found.append(PlannedStage(stage=stage, share=float(words[1][:-1]) / 100 if share is None else share, least_s=least))
    return tuple(found)


def stage_problems(texts: Sequence[str]) -> list[str]:
    """
    What is wrong with the way to full.

    Args:
        texts: see `planned_stages`.

    Returns: one line for each mistake.
    """
    stages = planned_stages(texts)
    shares = [s.share for s in stages if s.stage == "canary"]
    rules = {
        "stages: shadow comes once at most, and first": any(s.stage == "shadow" for s in stages[1:]),
        "stages: the shares of canaries lie between 0% and 100% and rise": not all(0 < s < 1 for s in shares)
        or any(a >= b for a, b in pairwise(shares)),
        'stages: "full" is the last one, once': [s.stage for s in stages].count("full") != 1 or stages[-1].stage != "full",
    }
    return [text for text, broken in rules.items() if broken]
