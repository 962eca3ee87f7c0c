"""Written answers (records, texts) as codes, so that whatever compares labels compares them too."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from overproof.data import CalibrationSet, Example, TestSet
from overproof.errors import DataError
from overproof.evidence import Scores
from overproof.outputs import Fields, Text

ANSWERS = "answers.json"
TEACHERS, GOLDS, NEITHER = 0, 1, 2
UNKNOWN = -1
"""Column of a true label that nobody gave."""
STRANGE = -2
"""Column of a true label that is none of the task's labels: every answer to that row is wrong."""


@lru_cache(maxsize=65_536)
def _equal(output: Fields | Text, left: str, right: str) -> bool:
    try:
        return output.equal(left, right)
    except (TypeError, ValueError):  # a true answer that is none of this task
        return False


def same_answer(output: Fields | Text | None, left: str, right: str) -> bool:
    """
    Whether two answers say the same.

    Args:
        output: what they are; None for labels.
        left: an answer.
        right: an answer; one that is none of the task's equals nothing but itself.

    Returns: True iff they count as one answer.
    """
    return left == right or (output is not None and _equal(output, left, right))


def gold_code(example: Example, output: Fields | Text) -> int:
    """
    What the true answer is beside the teacher's.

    Args:
        example: any row.
        output: what answers are.

    Returns: `TEACHERS` where both say the same, else `GOLDS`; `UNKNOWN` or `STRANGE` as in `steps.sheet`.
    """
    if example.gold is None:
        return UNKNOWN
    try:
        output.parse(example.gold)
    except DataError:
        return STRANGE
    return TEACHERS if same_answer(output, example.gold, example.target) else GOLDS


def answer_code(answer: str | None, example: Example, output: Fields | Text) -> int:
    """
    What an answer is beside the teacher's and the true one.

    Similarity of texts is no equivalence: an answer that is like the teacher's and unlike a true answer that the teacher's
    is like, or the reverse, counts as neither, since one code can't be right by one and wrong by the other.

    Args:
        answer: canonical, or None.
        example: the row.
        output: what answers are.

    Returns: `TEACHERS`, `GOLDS` (and not the teacher's), or `NEITHER`.
    """
    if answer is None:
        return NEITHER
    agrees, gold = same_answer(output, answer, example.target), gold_code(example, output)
    true = gold >= 0 and example.gold is not None and same_answer(output, answer, example.gold)
    if gold == TEACHERS:
        return TEACHERS if agrees and true else NEITHER
    return TEACHERS if agrees else GOLDS if true else NEITHER


def save_answers(folder: Path, answers: Sequence[str | None]) -> None:
    """
    Write `answers.json`.

    Args:
        folder: of the scores.
        answers: one a row.
    """
    (folder / ANSWERS).write_text(json.dumps(list(answers), ensure_ascii=False), encoding="utf-8")


def answers_of(scores: Scores, rows: CalibrationSet | TestSet) -> tuple[str | None, ...]:
    """
    A candidate's written answers to these rows.

    Args:
        scores: with `answers.json` in its folder.
        rows: the set that they were made for.

    Returns: canonical answers, None where it has none.
    Raises: DataError where they are not those of the rows.
    """
    found = json.loads((scores.folder.path / ANSWERS).read_text(encoding="utf-8"))
    sound = isinstance(found, list) and all(one is None or isinstance(one, str) for one in found)
    if not sound or len(found) != len(rows.examples):
        raise DataError(f"answers of {scores.name!r} are not those of these {len(rows.examples)} rows", next_action="predict these rows again")
    return tuple(found)


def codes_of(answers: Sequence[str | None], rows: CalibrationSet | TestSet, output: Fields | Text) -> NDArray[np.int64]:
    """
    Answers as codes.

    Args:
        answers: one a row.
        rows: the rows.
        output: what answers are.

    Returns: shape (n,), see `answer_code`.
    """
    return np.array([answer_code(a, e, output) for a, e in zip(answers, rows.examples, strict=True)], dtype=np.int64)
