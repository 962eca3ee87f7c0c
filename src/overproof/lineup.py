"""Everything that may answer, fitted and asked on the same rows: students, baselines, endpoints."""

from __future__ import annotations

from functools import partial

from overproof.asking import Buyer, asks
from overproof.data import CalibrationSet, TestSet, TrainSet
from overproof.evidence import Calibration, Scores, Trained
from overproof.project import Project
from overproof.recipes import predict_recipe, student_recipe
from overproof.settings import Part
from overproof.steps.baseline import ASK_DEV, ASK_TEST, SHOTS, AskRecipe, ShotsRecipe
from overproof.steps.optimise import OPTIMISE, Optimised, OptimiseRecipe
from overproof.steps.predict import PREDICT_DEV, PREDICT_TEST
from overproof.steps.prompting import Prompting
from overproof.steps.teach import Sampler
from overproof.steps.train import TRAIN
from overproof.store.artifacts import Artifact, Memo


class Lineup:
    """
    The candidates of one run.

    Args:
        project: the checked project file.
        memo: runs or reuses each step.
        buyer: makes endpoints that are paid for.
        rows: training, calibration and sealed rows.
    """

    def __init__(
        self,
        project: Project,
        memo: Memo,
        buyer: Buyer,
        *,
        rows: tuple[Artifact[TrainSet], Artifact[CalibrationSet], Artifact[TestSet]],
    ) -> None:
        self._project, self._memo, self._buyer = project, memo, buyer
        self.train_rows, self.dev_rows, self.test_rows = rows
        self.trained: dict[str, Artifact[Trained]] = {}
        self.dev: list[Artifact[Scores]] = []
        self.test: list[Artifact[Scores]] = []
        self.calibrations: list[Artifact[Calibration]] = []
        self.searches: list[Artifact[Optimised]] = []
        self.seconds: dict[str, float | None] = {}

    def add(self, part: Part) -> None:
        """
        Fit one student or baseline, or ask one endpoint.

        Args:
            part: its table in the project file.
        """
        if asks(part):
            self._ask(part)
            return
        p, run, recipe = self._project, self._memo.run, student_recipe(self._project, part)
        self.trained[part.name] = fitted = run(TRAIN, self.train_rows, recipe=recipe)
        self.seconds[part.name] = self._memo.cpu_seconds(TRAIN, self.train_rows, recipe=recipe)
        self.dev.append(run(PREDICT_DEV, fitted, self.dev_rows, recipe=predict_recipe(p)))
        self.test.append(run(PREDICT_TEST, fitted, self.test_rows, recipe=predict_recipe(p)))

    def _ask(self, part: Part) -> None:
        p, run, said = self._project, self._memo.run, self._project.asked(part)
        if said.optimise is not None:
            recipe = OptimiseRecipe(
                name=part.name, prompt=p.task.prompt, shots=said.shots, calls=said.optimise.calls,
                seed=said.optimise.seed, pin=self._buyer.baseline_pin(part, ""),
            )  # fmt: skip
            found = run(OPTIMISE, self.train_rows, recipe=recipe, asker=partial(self._asker, part))
            self.searches.append(found)
            digest, prompting = found.digest, lambda: found.value.prompting
        else:
            shots = ShotsRecipe(prompt=p.task.prompt, shots=said.shots, seed=p.promptset.seed)
            prompt = run(SHOTS, self.train_rows, recipe=shots)
            digest, prompting = prompt.digest, lambda: Prompting(text=prompt.value)
        pin = self._buyer.baseline_pin(part, digest)
        asked, asking = self._buyer.baseline(part, pin, prompting), AskRecipe(name=part.name, pin=pin, role=role_of(p, part))
        self.dev.append(run(ASK_DEV, self.dev_rows, recipe=asking, teacher=asked))
        self.test.append(run(ASK_TEST, self.test_rows, recipe=asking, teacher=asked))

    def _asker(self, part: Part, prompting: Prompting) -> Sampler:
        return self._buyer.baseline(part, self._buyer.baseline_pin(part, prompting.digest), lambda: prompting)


def role_of(project: Project, part: Part) -> str:
    """
    What a baseline that is asked is, in words.

    Args:
        project: the checked project file.
        part: its table.

    Returns: for example "quantised teacher" or "small model, 8 examples".
    """
    said = project.asked(part)
    searched = ", prompt searched" if said.optimise is not None else ""
    if said.of_teacher:
        return f"{'quantised teacher' if said.of_teacher == 'quantised' else 'cheaper model of the teacher’s family'}{searched}"
    shots = f", {said.shots} examples" if said.shots and not searched else ", no examples" if not searched else ""
    return f"off-the-shelf model{shots}{searched}"
