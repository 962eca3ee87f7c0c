"""What the teacher said to callers, as labels: whole answers of the pinned model to requests of the task, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, replace

from overproof.data import Answered, Answers, Completion, NextSet, PromptSet, TrafficRecord
from overproof.errors import DataError
from overproof.outputs import Output
from overproof.store.artifacts import Step

OK_STATUS = 200
PASSED_ON = frozenset({"below_threshold", "out_of_scope", "mixed", "slice_not_certified", "student_error", "deadline"})
"""Reasons for which a request that the student could have had went to the teacher."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TakeRecipe:
    """Nothing to choose."""


def teachers_answer(record: TrafficRecord, *, task: str, model: str, output: Output) -> Completion | None:
    """
    The label that a captured request brings along.

    Args:
        record: a row of the log.
        task: the task's name.
        model: the pinned teacher, exactly.
        output: what an answer is.

    Returns: the teacher's answer with its parsed value; None where the student answered, where the answer was cut, refused or
        failed, where another model gave it, where it asks for a tool, or where it is no answer of the task.
    """
    how, said = record.served, record.completion
    if how is None or said is None or how.route != "teacher" or how.task != task or how.status != OK_STATUS:
        return None
    whole = said.finish == "stop" and said.reason is None and not how.truncated and not record.calls
    if not whole or said.model != model:
        return None
    try:
        return replace(said, value=output.parse(said.text))
    except DataError:
        return None


def escalated(record: TrafficRecord, *, task: str) -> bool:
    """
    Whether the student had the request and passed it on.

    Args:
        record: a row of the log.
        task: the task's name.

    Returns: True iff it was the student's to answer and the teacher did.
    """
    how = record.served
    return how is not None and how.task == task and how.route == "teacher" and how.reason in PASSED_ON


def take_prompts(following: NextSet, recipe: TakeRecipe) -> PromptSet:
    """The next prompt set by itself, so that what stands on it doesn't change with the reasons."""
    del recipe
    return following.prompts


def take_asked(following: NextSet, recipe: TakeRecipe) -> PromptSet:
    """The rows that the teacher is asked about: all but those that it has answered to a caller."""
    del recipe
    prompts = following.prompts
    return replace(prompts, train=tuple(row for row in prompts.train if row.request.id not in following.served))


def add_served(answers: Answers, following: NextSet, recipe: TakeRecipe) -> Answers:
    """
    Put the answers that callers got beside those that were asked for.

    Args:
        answers: to `take_asked`.
        following: the next prompt set.
        recipe: nothing.

    Returns: answers to all of its rows, in order; calibration and sealed rows have none that came through a caller. What is
        spent doesn't change: the callers have paid.
    """
    del recipe
    asked = {one.row.request.id: one for one in answers.train}
    train = tuple(
        asked.get(row.request.id) or Answered(row=row, completions=(replace(following.served[row.request.id], cost_usd=0.0),))
        for row in following.prompts.train
    )
    return replace(answers, train=train)


TAKE_PROMPTS = Step(name="take-prompts", version=1, fn=take_prompts)
TAKE_ASKED = Step(name="take-asked", version=1, fn=take_asked)
ADD_SERVED = Step(name="add-served", version=1, fn=add_served)
