"""What asking the baselines will cost, before anybody is asked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from overproof.project import Project

CHARACTERS_PER_TOKEN = 4  # as for the teacher


def asked_cost(project: Project, rows: int, characters: float) -> list[dict[str, Any]]:
    """
    What asking the baselines costs at most, before the answers that are there already.

    Args:
        project: the checked project file.
        rows: that the next run works on.
        characters: of a message, on average.

    Returns: one entry for each [[baseline]] that is asked; USD is 0 for what runs on this machine.
    """
    from overproof import registry
    from overproof.asking import asks

    found = []
    for part in project.baselines:
        if not asks(part) or part.use == "recorded.v1":
            continue
        said, share = project.asked(part), project.promptset
        calls = sum(math.ceil(rows * s) for s in (share.calibration_share, share.test_share))
        searched = said.optimise.calls if said.optimise is not None and rows else 0
        shots = said.shots or (8 if searched else 0)
        labels = sum(map(len, project.task.output.labels)) if searched else 0
        tokens = (len(project.task.prompt) + labels + (shots + 1) * characters) / CHARACTERS_PER_TOKEN
        low, high = (part.options.get(f"price_{way}_usd_per_million") for way in ("in", "out"))
        most = int(part.options.get("max_tokens", 64))
        own = bool(getattr(registry.resolve("teachers", part.use), "own_machine", False))
        how = f"{calls} questions{f' and {searched} of the prompt search' if searched else ''} x about {tokens:.0f} tokens in"
        usd = 0.0
        if own:
            how += "; no bill, but processor time"
        elif low is None or high is None:
            how += "; its prices are missing, and without them it is not asked"
        else:
            usd = (calls + searched) * (tokens * low + most * high) / 1e6
            how += f", at most {most} out; answers that are there cost nothing"
        found.append({"name": part.name, "calls": calls + searched, "usd": round(usd, 4), "how": how})
    return found


def asked_lines(costs: list[Mapping[str, Any]]) -> Iterator[str]:
    """The price of asking the baselines, a line each."""
    from rich.markup import escape

    yield from (f"  baseline   {escape(one['name'])}: at most {one['usd']:.2f} USD: {escape(one['how'])}" for one in costs)
