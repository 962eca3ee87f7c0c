"""Everything that may answer, fitted and asked on the same rows: students, baselines, endpoints."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from overproof.asking import Buyer, asks
from overproof.data import CalibrationSet, TestSet, TrainSet
from overproof.engines import Engine
from overproof.evidence import Calibration, Exported, Scores, Sizes, Trained
from overproof.project import Project
from overproof.recipes import export_recipe, predict_recipe, sizing_recipe, student_recipe
from overproof.settings import Part
from overproof.steps.baseline import ASK_DEV, ASK_TEST, SHOTS, AskRecipe, ShotsRecipe
from overproof.steps.export import EXPORT, TAKE_EXPORTED, NoRecipe, exporter
from overproof.steps.optimise import OPTIMISE, Optimised, OptimiseRecipe
from overproof.steps.parcel import unpacked
from overproof.steps.predict import PREDICT_DEV, PREDICT_TEST
from overproof.steps.prompting import Prompting
from overproof.steps.sizing import FIT_PART, FIT_WHOLE, SIZES, Fit, FitRecipe
from overproof.steps.teach import Sampler
from overproof.steps.train import TRAIN, Apart, fit_apart
from overproof.store.artifacts import Artifact, Memo


class Lineup:
    """
    The candidates of one run.

    Args:
        project: the checked project file.
        memo: runs or reuses each step.
        buyer: makes endpoints that are paid for.
        rows: training, calibration and sealed rows.
        engine: where candidates are fitted and rows answered.
    """

    def __init__(
        self,
        project: Project,
        memo: Memo,
        buyer: Buyer,
        *,
        rows: tuple[Artifact[TrainSet], Artifact[CalibrationSet], Artifact[TestSet]],
        engine: Engine,
    ) -> None:
        self._project, self._memo, self._buyer, self._engine = project, memo, buyer, engine
        self._made: dict[str, Trained] = {}
        self._scratch = TemporaryDirectory(prefix="overproof-fitted-")
        self.train_rows, self.dev_rows, self.test_rows = rows
        self.trained: dict[str, Artifact[Trained]] = {}
        self.exported: list[Artifact[Exported]] = []
        self.dev: list[Artifact[Scores]] = []
        self.test: list[Artifact[Scores]] = []
        self.calibrations: list[Artifact[Calibration]] = []
        self.searches: list[Artifact[Optimised]] = []
        self.seconds: dict[str, float | None] = {}

    def fit_ahead(self, parts: Sequence[Part]) -> None:
        """
        Fit those that have to be fitted all at once, where the engine has workers for it.

        Args:
            parts: their tables in the project file.
        """
        if not self._engine.apart:
            return
        recipes = [student_recipe(self._project, part) for part in parts if not asks(part)]
        due = [recipe for recipe in recipes if self._memo.due(TRAIN, self.train_rows, recipe=recipe)]
        if due:
            given = Apart(rows=self.train_rows.value, engine=self._engine)
            made = self._engine.each(fit_apart, due, shared=given, what="fitting candidates")
            for at, one in enumerate(made):  # to the disk at once: the files of all together may be large
                self._made[due[at].name] = unpacked(one, Path(self._scratch.name) / str(at))

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
        fitted = run(
            TRAIN, self.train_rows, recipe=recipe, made=self._made.pop(part.name, None),
            checkpoints=self._memo.objects.checkpoints, engine=self._engine,
        )  # fmt: skip
        self.seconds[part.name] = self._memo.cpu_seconds(TRAIN, self.train_rows, recipe=recipe)
        if exporter(part.use) is not None:  # what follows is measured on the files that will be served
            self.exported.append(run(EXPORT, fitted, self.dev_rows, recipe=export_recipe(part)))
            fitted = run(TAKE_EXPORTED, self.exported[-1], recipe=NoRecipe())
        self.trained[part.name] = fitted
        self.dev.append(run(PREDICT_DEV, fitted, self.dev_rows, recipe=predict_recipe(p), engine=self._engine))
        self.test.append(run(PREDICT_TEST, fitted, self.test_rows, recipe=predict_recipe(p), engine=self._engine))

    def sizes(self) -> Artifact[Sizes]:
        """
        Further fits on less data and with other seeds, each kept by itself; one look at the store where nothing changed.

        Returns: what sizes, rows and seeds are worth.
        """
        run, rows, dev = self._memo.run, self.train_rows, self.dev_rows
        students = [self.trained[part.name] for part in self._project.students]

        def whole(trained: Trained, recipe: FitRecipe) -> Fit:
            return run(FIT_WHOLE, self.trained[trained.name], rows, dev, recipe=recipe).value

        return run(
            SIZES, rows, dev, self._memo.gather(students), recipe=sizing_recipe(self._project),
            fit=lambda recipe: run(FIT_PART, rows, dev, recipe=recipe, engine=self._engine).value, whole=whole,
        )  # fmt: skip

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
