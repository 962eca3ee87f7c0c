"""A judge of texts: the served answers that it reads, what people are asked about them, and the share that comes of both."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from overproof.data import Answers, CalibrationSet, Example, PromptRow, PromptSet, Request, TestSet
from overproof.errors import DataError
from overproof.evidence import EvalReport, JudgedShare, Outcome, Plan, Scores, Verdict
from overproof.measure.slices import NO_FUNCTIONS, OTHER, Functions, split_hash
from overproof.measure.text_judge import LEAST_KNOWN, judged_share, judged_verdict
from overproof.steps.answers import answers_of
from overproof.steps.boost import drawn_for
from overproof.steps.calibrate import reading_of, slice_names
from overproof.steps.certificates import kept_by
from overproof.steps.comparisons import Answer
from overproof.steps.plan import certified_by
from overproof.steps.provenance import require_provable
from overproof.steps.queues import Asked
from overproof.steps.reviewing import settle
from overproof.store.artifacts import Step
from overproof.store.reviews import JUDGED, Reviews
from overproof.task import ANSWER, REFERENCE, RIGHT, Bar, Slice


@dataclass(frozen=True, kw_only=True, slots=True)
class TextDocketRecipe:
    """How many answers a judge reads."""

    most: int = 400
    seed: int = 0
    slices: tuple[Slice, ...] = ()
    """The project's slices, whose thresholds route requests."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TextDocket:
    """Rows drawn by chance, each with the reference and the answer under judgement."""

    prompts: PromptSet
    """As the judge gets them; those without an answer are left out."""
    draw: tuple[str, ...]
    """Ids in the order of the draw, rows without an answer among them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TextJudgeRecipe:
    """How the judge's words are read."""

    delta: float = 0.05
    """Chance that the interval lies above the truth, over all numbers of answers that people may have read; as often below it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TakeTexts:
    """Nothing to choose."""


def served_docket(
    plan: Plan, report: EvalReport, scores: tuple[Scores, ...], rows: TestSet, recipe: TextDocketRecipe,
    *, functions: Functions = NO_FUNCTIONS,
) -> TextDocket:
    """
    Draw from the answers that the student serves on the rows that judge the bars; what goes to the teacher is left out.

    Args:
        plan: fixed before unsealing.
        report: the evaluation under that plan, with its thresholds.
        scores: of the sealed rows.
        rows: sealed rows, opened by the evaluation.
        recipe: how many.
        functions: "module:function" to the function, for slices that equality can't say.

    Returns: the docket.
    """
    routed = certified_by(recipe.slices, one_for_all=plan.guarantee == "budget" and plan.moved == "alone")
    names = slice_names(rows, routed, functions)
    chosen = next(s for s in scores if s.name == plan.chosen)
    column = np.array(names, dtype=object)
    reading = reading_of(chosen, rows, plan.confidence, slices=names)
    kept = kept_by(report.certificate, reading, {name: column == name for name in (*(s.name for s in routed), OTHER)})
    fresh = ~split_hash([e.request.id for e in rows.examples], plan.salt, plan.certify_share) & drawn_for(rows, "")
    places, said = np.flatnonzero(kept & fresh).tolist(), answers_of(chosen, rows)
    return text_docket(replace(rows, examples=tuple(rows.examples[i] for i in places)), [said[i] for i in places], recipe)


def take_texts(docket: TextDocket, recipe: TakeTexts) -> PromptSet:
    """The rows for the judge, by themselves."""
    del recipe
    return docket.prompts


def text_docket(rows: CalibrationSet | TestSet, answers: Sequence[str | None], recipe: TextDocketRecipe) -> TextDocket:
    """
    Draw the answers that a judge reads.

    Args:
        rows: with the references: the true answer where it is known, else the teacher's. Rows beyond the fair draw are left out.
        answers: one for each row, None where there is none.
        recipe: how many.

    Returns: the docket; its order is chance alone, so that its first rows are a sample of the others.
    Raises: DataError for another number of answers; MeasureError for rows that were picked for looking wrong.
    """
    if len(answers) != len(rows.examples):
        raise DataError(f"{len(answers)} answers to {len(rows.examples)} rows", next_action="pass them in the order of the set")
    require_provable(rows.examples)
    fair = [(e, a) for e, a in zip(rows.examples, answers, strict=True) if not e.boost]
    drawn = sorted(fair, key=lambda pair: hashlib.sha256(f"text judge {recipe.seed} {pair[0].request.digest}".encode()).hexdigest())[: recipe.most]
    made = tuple(_row(example, answer) for example, answer in drawn if answer is not None)
    empty = PromptSet(train=made, calibration=(), test=(), funnel={}, match=(), distance=0.0, leaks={})
    return TextDocket(prompts=empty, draw=tuple(example.request.id for example, _ in drawn))


def people_asked(docket: TextDocket) -> tuple[Asked, ...]:
    """
    The same rows for people, who say right or wrong; a sheet and the review log take them as they are.

    Args:
        docket: from `text_docket`.

    Returns: in the order of the draw, which people should follow from its start.
    """
    rows = {row.request.id: row.request for row in docket.prompts.train}
    drawn = (rows[name] for name in docket.draw if name in rows)
    return tuple(
        Asked(digest=JUDGED + r.digest, request_id=r.id, text=_shown(r), queue="audit", split="test", place=at) for at, r in enumerate(drawn)
    )


def judge_texts(docket: TextDocket, answers: Answers, words: Reviews, recipe: TextJudgeRecipe) -> JudgedShare:
    """
    What the judge's words are worth, and what they come to.

    Args:
        docket: what was asked.
        answers: the judge's; an answer that it gave no word on counts as not right, for people's rows alike.
        words: all that people said; words on other rows are passed over.
        recipe: how it is read.

    Returns: the share of right answers. People's words count from the start of the draw up to the first answer that none of
        them settled, so that which answers are known is left to chance even where some words are older than others; and only at
        50 answers, 100, 200 and so on, or all, each with its part of `delta`, so that reading on until the bar is met gains
        nothing. A row without an answer is wrong, for the judge as for people.
    """
    said = {a.row.request.id: a.completions[0].value == RIGHT for a in answers.train if a.completions}
    settled = settle(words).settled
    asked = {one.request_id: one.digest for one in people_asked(docket)}
    spoken = [False if name not in asked else settled[asked[name]].label == RIGHT if asked[name] in settled else None for name in docket.draw]
    reach = next((at for at, word in enumerate(spoken) if word is None), len(spoken))
    looks = looks_of(len(spoken))
    counted = max((n for n in looks if n <= reach), default=0)
    known = [word if at < counted else None for at, word in enumerate(spoken)]
    return judged_share([said.get(name, False) for name in docket.draw], known, level=1.0 - 2.0 * recipe.delta / len(looks))


def looks_of(n: int) -> tuple[int, ...]:
    """
    At how many of the first answers people's words count.

    Args:
        n: answers drawn.

    Returns: 50, 100, 200, … below n, and n; ascending.
    """
    found = [n]
    at = LEAST_KNOWN
    while at < n:
        found.append(at)
        at *= 2
    return tuple(sorted(found))


def judged_answer(share: JudgedShare, bar: Bar) -> Answer:
    """
    What the gate says of the judge's share.

    Args:
        share: from `judge_texts`.
        bar: of the owner.

    Returns: pass or fail only from a calibrated judge; else not-run, with what it takes.
    """
    outcomes: dict[Verdict, Outcome] = {"pass": "pass", "fail": "fail", "undecided": "not-run"}
    outcome = outcomes[judged_verdict(share, bar.at_least) if share.n >= bar.min_n else "undecided"]
    reason = f"the student's served answers: {share.words}; at least {bar.at_least:.1%} is asked"
    if outcome == "pass":
        return Answer(outcome=outcome, reason=reason)
    if outcome == "fail":
        return Answer(outcome=outcome, reason=reason, todo="keep less, use a better student, or lower the bar with a reason")
    if share.n == 0:
        todo = "let the student serve some answers: a better one, more sealed rows or a lower dial in [serve]"
    else:
        todo = "overproof review --queue judge, then run again" if share.n > share.n_known else "import more traffic, then run again"
    return Answer(outcome=outcome, reason=f"{reason}: not enough data to tell", todo=todo)


def _shown(request: Request) -> str:
    message = "\n\n".join(text for name, text in request.fields.items() if name not in (REFERENCE, ANSWER))
    return f"{message}\n\n[reference] {request.fields[REFERENCE]}\n[answer] {request.fields[ANSWER]}"


def _row(example: Example, answer: str) -> PromptRow:
    reference = example.target if example.gold is None else example.gold
    fields = {**example.request.fields, REFERENCE: reference, ANSWER: answer}
    return PromptRow(request=replace(example.request, fields=fields), weight=1.0, group=example.request.id)


TEXT_DOCKET = Step(name="text_docket", version=2, fn=served_docket)
TAKE_TEXTS = Step(name="take_texts", version=1, fn=take_texts)
JUDGE_TEXTS = Step(name="judge_texts", version=2, fn=judge_texts)
