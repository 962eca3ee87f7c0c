"""The judge on the road: cleared under its own terms, asked behind the one ledger, measured before it may drop a row."""

from __future__ import annotations

from overproof.asking import Buyer, clear_recipe, terms_of
from overproof.data import Clearance, Labelled, PromptSet
from overproof.errors import TermsError
from overproof.privacy.redact import policy_digest
from overproof.project import Project
from overproof.recipes import features_recipe
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
from overproof.steps.teach import TEACH, TeachRecipe
from overproof.steps.terms import Terms
from overproof.store.artifacts import Artifact, Memo

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
            f"{project.judge.terms}: role is {terms.attestation.role!r}, but [judge] uses the model as a judge of labels",
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

        Returns: the rows and the report; None without a judge.
        """
        if self.clearance is None:
            return None
        p, run, table = self.project, self.memo.run, self.project.judge
        features = run(FEATURES, filtered, recipe=features_recipe(p))
        choosing = DocketRecipe(share=table.share, most=table.most, seed=p.promptset.seed)
        found = run(DOCKET, filtered, reviewed, features, recipe=choosing)
        rows: Artifact[PromptSet] = run(TAKE_DOCKET, found, recipe=TakeDocket())
        asking = TeachRecipe(pin=p.pin_of(table), privacy=policy_digest(p.privacy))
        at_once = table.most if table.mode == "batch" else table.concurrency
        teacher = self.buyer.member(table, self.clearance)
        answers = run(TEACH, rows, self.clearance, recipe=asking, teacher=teacher, concurrency=at_once)
        return run(JUDGE, reviewed, found, answers, recipe=JudgeRecipe(judge=table.model, may=table.may))

    def rows(self, judged: Artifact[Judged]) -> Artifact[Labelled]:
        """The rows by themselves."""
        return self.memo.run(TAKE_JUDGED, judged, recipe=TakeDocket())


