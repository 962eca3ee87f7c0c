"""The judge on the road: cleared under its own terms, asked behind the one ledger, measured before its word counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from overproof.asking import Buyer, clear_recipe, terms_of
from overproof.data import Answers, Clearance, Labelled, PromptSet, TestSet
from overproof.errors import TermsError
from overproof.evidence import EvalReport, JudgedShare, Plan, Scores
from overproof.measure.certify import ledger_delta
from overproof.outputs import Text
from overproof.privacy.redact import policy_digest
from overproof.project import Project
from overproof.recipes import features_recipe, functions_of, slices_of
from overproof.steps.certificates import uses_of
from overproof.steps.clear import CLEAR
from overproof.steps.judge import (
    DOCKET,
    JUDGE,
    TAKE_DOCKET,
    TAKE_JUDGED,
    DocketRecipe,
    Judged,
    JudgeRecipe,
    TakeDocket,
)
from overproof.steps.mend import FEATURES
from overproof.steps.survey import Survey
from overproof.steps.teach import TEACH, TeachRecipe
from overproof.steps.terms import Terms
from overproof.steps.text_judge import (
    JUDGE_TEXTS,
    TAKE_TEXTS,
    TEXT_DOCKET,
    TakeTexts,
    TextDocket,
    TextDocketRecipe,
    TextJudgeRecipe,
)
from overproof.store.artifacts import Artifact, Memo
from overproof.store.reviews import Reviews

ROLE = "judge"


def judge_terms(project: Project) -> Terms:
    """
    The judge's terms record.

    Args:
        project: one that names a judge.

    Returns: input of the clear step.
    Raises: TermsError where there is none, or where it speaks of another role than a judge's.
    """
    terms = terms_of(project, project.judge)
    if terms.attestation.role != ROLE:
        raise TermsError(
            f"{project.judge.terms}: role is {terms.attestation.role!r}, but [judge] uses the model as a judge",
            next_action=f'write an attestation of its own with role = "{ROLE}"',
        )
    return terms


class Judging:
    """
    What a run does with the judge; nothing where the project names none.

    Args:
        project: the checked project file.
        memo: of the run.
        buyer: of the run.
    """

    def __init__(self, project: Project, memo: Memo, buyer: Buyer) -> None:
        self.project = project
        self.memo = memo
        self.buyer = buyer
        self.clearance: Artifact[Clearance] | None = None

    def cleared(self, today: str) -> tuple[Artifact[Clearance], ...]:
        """The permission for the judge's answers: one, or none without a judge."""
        if not self.project.judge.use:
            return ()
        terms = judge_terms(self.project)
        recipe = clear_recipe(self.project, terms, today, self.project.judge)
        self.clearance = self.memo.run(CLEAR, self.memo.source("judge's terms", terms), recipe=recipe)
        return (self.clearance,)

    def judged(self, filtered: Artifact[Labelled], reviewed: Artifact[Labelled]) -> Artifact[Judged] | None:
        """
        Ask, measure, and drop what may be dropped.

        Args:
            filtered: with the teacher's own labels.
            reviewed: after people's words; the same where there are none.

        Returns: the rows and the report; None without a judge of labels.
        """
        if self.clearance is None or isinstance(self.project.task.output, Text):
            return None
        p, run, table = self.project, self.memo.run, self.project.judge
        features = run(FEATURES, filtered, recipe=features_recipe(p))
        choosing = DocketRecipe(share=table.share, most=table.most, seed=p.promptset.seed)
        found = run(DOCKET, filtered, reviewed, features, recipe=choosing)
        answers = self._asked(run(TAKE_DOCKET, found, recipe=TakeDocket()), self.clearance)
        return run(JUDGE, reviewed, found, answers, recipe=JudgeRecipe(judge=table.model, may=table.may))

    def texts(
        self, plan: Artifact[Plan], report: Artifact[EvalReport], scores: Artifact[tuple[Scores, ...]], rows: Artifact[TestSet],
        *, survey: Survey, words: Reviews,
    ) -> Mapping[str, Artifact[Any]]:
        """
        Ask about the texts that the student serves, and hold the answers against people's words.

        Args:
            plan: fixed before the sealed rows were opened.
            report: the evaluation.
            scores: of the sealed rows.
            rows: sealed rows.
            survey: for the slices.
            words: of people, on judged answers.

        Returns: "text_docket", what was asked, and "judged", the share; empty without a judge of texts.
        """
        if self.clearance is None or not isinstance(self.project.task.output, Text):
            return {}
        p, run = self.project, self.memo.run
        slices = slices_of(p, survey)
        drawing = TextDocketRecipe(most=p.judge.most, seed=p.promptset.seed, slices=slices)
        docket: Artifact[TextDocket] = run(TEXT_DOCKET, plan, report, scores, rows, recipe=drawing, functions=functions_of(slices))
        answers = self._asked(run(TAKE_TEXTS, docket, recipe=TakeTexts()), self.clearance)
        spent = TextJudgeRecipe(delta=ledger_delta(plan.value.delta, uses_of(report.value)) / plan.value.looks)
        share: Artifact[JudgedShare] = run(JUDGE_TEXTS, docket, answers, self.memo.source("words on answers", words), recipe=spent)
        return {"text_docket": docket, "judged": share}

    def _asked(self, rows: Artifact[PromptSet], clearance: Artifact[Clearance]) -> Artifact[Answers]:
        p, table = self.project, self.project.judge
        asking = TeachRecipe(pin=p.pin_of(table), privacy=policy_digest(p.privacy))
        at_once = table.most if table.mode == "batch" else table.concurrency
        return self.memo.run(TEACH, rows, clearance, recipe=asking, teacher=self.buyer.member(table, clearance), concurrency=at_once)

    def rows(self, judged: Artifact[Judged]) -> Artifact[Labelled]:
        """The rows by themselves."""
        return self.memo.run(TAKE_JUDGED, judged, recipe=TakeDocket())


