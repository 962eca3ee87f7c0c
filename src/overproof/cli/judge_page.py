"""The judge in a terminal: what it is asked and costs, and what it said."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from overproof.errors import DataError
from overproof.task import Text

if TYPE_CHECKING:
    from overproof.cli.door import Door
    from overproof.evidence import JudgedShare
    from overproof.project import Project
    from overproof.steps.judge import Judged, JudgeReport

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
    share, longest = project.promptset, LONGEST_LABEL
    if isinstance(project.task.output, Text):  # all judging rows, each with a reference and an answer
        sealed, part = rows * share.test_share, project.proof.certify_share
        calls = min(table.most, math.ceil(sealed * (1 - part) + 3 * math.sqrt(sealed * part * (1 - part))))  # each row by chance
        longest = 2 * CHARACTERS_PER_TOKEN * project.teacher.max_tokens
    else:
        train = math.ceil(rows * (1 - share.test_share - share.calibration_share))
        calls = min(table.most, math.ceil(table.share * train))
    low, high = table.price_in_usd_per_million, table.price_out_usd_per_million
    if low is None or high is None:
        return {"calls": calls, "usd": 0.0, "how": "recorded answers cost nothing"}
    tokens = (len(project.judge_task.prompt) + characters + longest) / CHARACTERS_PER_TOKEN
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


def judged_lines(share: JudgedShare | None) -> Iterator[str]:
    """
    What a judge of texts says of the student's served answers, one line a sentence.

    Args:
        share: of the run; None without a judge of texts.

    Returns: lines for the terminal.
    """
    from rich.markup import escape

    from overproof.cli.teacher_page import percent

    if share is None:
        return
    yield escape(f"served answers, {share.words}")
    for name, one in (
        ("called right by the judge", share.seen), ("called right by people", share.by_people),
        ("of what people call wrong, called wrong", share.catches), ("of what people call right, called right", share.spares),
    ):  # fmt: skip
        yield escape(f"  {name}: {percent(one)}")
    if share.n > share.n_known:
        yield f"people's words count on the first {share.n_known} of the draw; for more: `overproof review --queue judge`"


def emit_judge(door: Door, judged: Judged | None, share: JudgedShare | None) -> None:
    """
    What `show judge` prints.

    Args:
        door: how to talk.
        judged: of labels; None without.
        share: of texts; None without.

    Raises: DataError where the run had no judge.
    """
    if judged is None and share is None:
        raise DataError("the run asked no judge", next_action="write [judge] in the project file, then `overproof run`")
    report = judged.report if judged is not None else None
    door.emit(share if report is None else report, *judge_lines(report), *judged_lines(share))
