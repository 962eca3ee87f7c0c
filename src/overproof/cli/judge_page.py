"""The judge in a terminal: what it is asked and costs, and what it said."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from overproof.project import Project
    from overproof.steps.judge import JudgeReport

CHARACTERS_PER_TOKEN = 4  # as for the teacher
LONGEST_LABEL = 80


def judge_cost(project: Project, rows: int, characters: float) -> dict[str, Any] | None:
    """
    What asking the judge costs at most, before the label cache takes its share.

    Args:
        project: the checked project file.
        rows: that the next run works on.
        characters: of a message, on average.

    Returns: calls and USD; None without a judge.
    """
    table = project.judge
    if not table.use:
        return None
    share = project.promptset
    train = math.ceil(rows * (1 - share.test_share - share.calibration_share))
    calls = min(table.most, math.ceil(table.share * train))
    low, high = table.price_in_usd_per_million, table.price_out_usd_per_million
    if low is None or high is None:
        return {"calls": calls, "usd": 0.0, "how": "recorded answers cost nothing"}
    tokens = (len(project.judge_task.prompt) + characters + LONGEST_LABEL) / CHARACTERS_PER_TOKEN
    factor = table.price_batch_factor if table.mode == "batch" else 1.0
    usd = factor * calls * (tokens * low + table.max_tokens * high) / 1e6
    how = f"{calls} calls x about {tokens:.0f} tokens in, at most {table.max_tokens} out; cached answers cost nothing"
    return {"calls": calls, "usd": round(usd, 4), "how": how}


def cost_line(cost: Mapping[str, Any] | None) -> Iterator[str]:
    """The price of the judge's calls, under that of the teacher's."""
    if cost is not None:
        yield f"  judge      at most {cost['usd']:.2f} USD: {cost['how']}"


def judge_lines(report: JudgeReport | None) -> Iterator[str]:
    """
    What the judge did, one line a sentence.

    Args:
        report: of the run; None without a judge.

    Returns: lines for the terminal.
    """
    from rich.markup import escape

    if report is not None:
        yield from (escape(line) for line in report.words)
