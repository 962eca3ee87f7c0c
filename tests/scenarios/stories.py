"""What the stories share: a plain pipeline as people build it, projects to tell them in, and checks that can be taken away."""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
from click.testing import CliRunner
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from tests.flows.conftest import FILLER, PROJECT, WORDS, make_project

from overproof.cli import main
from overproof.evidence import Release
from overproof.pipeline import load_run
from overproof.project import load_project
from overproof.recipes import gate_recipe
from overproof.steps import gate as gate_module
from overproof.steps.gate import gate
from overproof.store.project_store import open_store
from overproof.students.bundle import load_bundle

BILL, BUG, HOW = WORDS
SMOKE = "smoke alarm"
FUMES = ["smoke", "burning", "fumes", "overheats", "sparks", "melted"]
FOUR = ("{labels}", json.dumps([*WORDS, SMOKE], ensure_ascii=False))
NO_SLICE = ('[[slice]]\nname = "pro"\nwhere = {{ tier = "pro" }}\n', "")


def smaller(terms: int, low: int, high: int) -> tuple[str, str]:
    """The project's second student: a linear one that may learn so many n-grams of characters and as many words."""
    return 'use = "ngram.v1"\nname = "small"', f'use = "linear.v1"\nname = "small"\nword_ngrams = [1, 1]\nchar_ngrams = [{low}, {high}]\nmax_terms = {terms}'


def easier(right: float, accuracy: float, margin: float) -> tuple[tuple[str, str], ...]:
    """Lower bars, for tasks on which nobody is that good."""
    return (
        ("accuracy_when_confident = 0.9", f"accuracy_when_confident = {right}"), ("fidelity = 0.9", f"fidelity = {right}"),
        ("accuracy = 0.85", f"accuracy = {accuracy}"), ("margin = 0.05", f"margin = {margin}"),
    )  # fmt: skip
CONFIDENT = 0.9
ENOUGH = 0.85
WITHOUT_SIZING = ("seeds = 1\nbudgets = [1.0]", "budgets = []")


class Plain:
    """Train on what is at hand, ship on accuracy, one threshold for all."""

    def __init__(self, found: list[dict], *, ngrams=(2, 5), terms=None) -> None:
        order = random.Random(0).sample(found, len(found))
        cut = len(order) * 4 // 5
        self._terms = TfidfVectorizer(analyzer="char_wb", ngram_range=ngrams, max_features=terms, sublinear_tf=True)
        self._model = LogisticRegression(C=30.0, max_iter=300)
        self._model.fit(self._terms.fit_transform([row["text"] for row in order[:cut]]), [said(row) for row in order[:cut]])
        self.accuracy = self.right(order[cut:], said)

    @property
    def ships(self) -> bool:
        """On one number."""
        return self.accuracy >= ENOUGH

    def answers(self, texts: list[str]) -> list[tuple[str, bool]]:
        """Label, and whether it is served without asking anybody."""
        chances = self._model.predict_proba(self._terms.transform(texts))
        return [(str(self._model.classes_[int(row.argmax())]), bool(row.max() >= CONFIDENT)) for row in chances]

    def right(self, found: list[dict], truth) -> float:
        return float(np.mean([label == truth(row) for (label, _), row in zip(self.answers([r["text"] for r in found]), found, strict=True)]))


def said(row: dict) -> str:
    """The teacher's label of a row: what is at hand."""
    return next((label for label in (*WORDS, SMOKE) if label.upper() == row["output"]), row["output"])


def message(draw: random.Random, words: list[str], *, own: int = 4, others: list[str] = (), noise: int = 0) -> str:
    """As the rows of the flows: stems that end in noise, some of them of another label, among small words."""
    stems = draw.sample(words, own) + [draw.choice(others) for _ in range(noise)]
    found = [stem + "".join(draw.choices("aeiou", k=4)) for stem in stems] + draw.sample(FILLER, 12)
    draw.shuffle(found)
    return " ".join(found)


def project(root: Path, found: list[dict], *changes: tuple[str, str], more: str = "") -> Path:
    """The flows' easy project with another log; changes of the file's text, which must apply; further tables at its end."""
    with patch("tests.flows.conftest.PROJECT", _changed(changes, more)):
        return make_project(root, found)


def _changed(changes, more: str) -> str:
    text = PROJECT
    for before, after in (WITHOUT_SIZING, *changes):
        assert before in text, before
        text = text.replace(before, after)
    return text + more


@dataclass(frozen=True)
class Told:
    """A run as its owner sees it: exit code, verdict, and what the gate read."""

    root: Path
    code: int
    said: str
    verdict: object
    evidence: object
    recipe: object
    artifacts: dict

    @property
    def stops(self) -> dict[str, str]:
        """Check to reason, of all that doesn't pass."""
        return {f.id: f.reason for f in self.verdict.findings if f.outcome != "pass"}

    @property
    def failed(self) -> set[str]:
        """Checks that surely fail; the others of `stops` can't be decided."""
        return {f.id for f in self.verdict.findings if f.outcome == "fail"}

    def ships_without(self, *checks: str) -> bool:
        """Whether the gate would have released on the same evidence, had it no such check."""
        left = {name: tuple(row for row in getattr(gate_module, name) if row.id not in checks) for name in ("CHECKS", "ASKED")}
        with patch.multiple(gate_module, **left):
            return isinstance(gate(self.evidence, self.recipe), Release)

    @property
    def bundle(self):
        """What would be served."""
        return load_bundle(self.evidence.bundle.path)


def run(root: Path, *overrides: str) -> Told:
    """`overproof run`, and what it left in the store."""
    code, said = command(root, "run", *(word for one in overrides for word in ("--set", one)))
    with open_store(root) as store:
        kept = load_run(store).artifacts
        values = {name: kept[name].value for name in ("verdict", "evidence", "report", "labels", "prompts")}
    evidence = values["evidence"]
    recipe = gate_recipe(load_project(root, overrides=overrides), values["report"], cases=evidence.compression is not None)
    return Told(root=root, code=code, said=said, verdict=values["verdict"], evidence=evidence, recipe=recipe, artifacts=values)


def command(root: Path, *words: str) -> tuple[int, str]:
    """Exit code and words of a verb."""
    done = CliRunner().invoke(main, [*words, "--project", str(root)])
    return done.exit_code, " ".join(done.output.split())
