"""Fit students on less data and with other seeds, to see what size, rows and luck each are worth; no sealed row is read."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from overproof.data import CalibrationSet, Example, TrainSet
from overproof.engines import Engine
from overproof.errors import DataError
from overproof.evidence import Budget, Figure, Pair, Seeds, Size, Sizes, Trained
from overproof.measure.intervals import figure
from overproof.measure.learning import kept_in_hindsight, learning_curve
from overproof.measure.paired import difference_interval
from overproof.registry import resolve
from overproof.steps.train import HERE, StudentRecipe, train
from overproof.store.artifacts import Step

LEADING = 2  # students that are fitted with several seeds
PROBE = 150  # training rows on which a fit shows whether it draws anything at random
PROBE_ANSWERS = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class FitRecipe:
    """One further fit of a student, and the rows that it answers."""

    student: StudentRecipe
    """With the seed of this fit."""
    share: float = 1.0
    """Of the training rows."""
    most: int = 0
    """The most training rows; 0 for no limit."""
    draw: int = 0
    """Which draw of the rows; shares of one draw are nested."""
    rows: int = 1000
    """The most calibration rows that it answers."""
    sample: int = 0
    """Training rows that it answers."""

    @property
    def name(self) -> str:
        """For the line that tells what runs."""
        part = f"first {self.most:,} rows" if self.most else f"{self.share:.0%} of the rows, draw {self.draw}"
        return f"{self.student.name} ({part}, seed {self.student.seed})"


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """What a further fit answered."""

    rows: int
    """Training rows."""
    wrong: str
    """"1" for each calibration row on which it differs from the teacher, else "0"; in the order of `drawn`."""
    score: tuple[float, ...]
    """How sure it was of each answer, the higher the surer."""
    train_wrong: str
    """The same on a sample of its own training rows; empty where none was asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SizingRecipe:
    """What is compared."""

    students: tuple[StudentRecipe, ...]
    """As they are fitted for the line-up."""
    budgets: tuple[float, ...]
    """Shares of the training rows, ascending to 1."""
    seeds: int
    """Seeds of the two leading students."""
    rows: int
    """The most calibration rows."""
    alpha: float
    """The dial: largest share of wrong answers among kept ones, or among all."""
    of_all: bool
    """Whether the dial counts among all requests."""


def drawn(n: int, count: int, *, draw: int) -> NDArray[np.int64]:
    """
    Rows by chance alone; a larger count of the same draw holds the smaller one.

    Args:
        n: rows that there are.
        count: how many to take.
        draw: seed of the order.

    Returns: positions, ascending.
    """
    return np.sort(np.random.default_rng([17, draw]).permutation(n)[:count])


def fit_part(rows: TrainSet, calibration: CalibrationSet, recipe: FitRecipe, *, workdir: Path, engine: Engine = HERE) -> Fit:
    """
    Fit a student on part of the training rows, and let it answer calibration rows.

    Args:
        rows: all training rows.
        calibration: calibration rows.
        recipe: which student and which part.
        workdir: for its files, which nobody keeps.
        engine: see `train`.

    Returns: right and wrong.
    Raises: DataError where so few rows can't teach.
    """
    count = math.ceil(recipe.share * len(rows.examples))
    count = min(count, recipe.most or count)
    part = replace(rows, examples=tuple(rows.examples[i] for i in drawn(len(rows.examples), count, draw=recipe.draw)))
    return _answered(train(part, recipe.student, workdir=workdir, engine=engine), part, calibration, recipe)


def fit_whole(trained: Trained, rows: TrainSet, calibration: CalibrationSet, recipe: FitRecipe) -> Fit:
    """
    The student that may ship, as it answers the same rows.

    Args:
        trained: fitted on all training rows.
        rows: these training rows.
        calibration: calibration rows.
        recipe: how many rows it answers.

    Returns: right and wrong.
    """
    return _answered(trained, rows, calibration, recipe)


def _answered(trained: Trained, rows: TrainSet, calibration: CalibrationSet, recipe: FitRecipe) -> Fit:
    student = resolve("students", trained.use).load(trained.folder.path)
    asked = [calibration.examples[i] for i in drawn(len(calibration.examples), recipe.rows, draw=0)]
    wrong, score = _answers(student, asked, calibration)
    own = [rows.examples[i] for i in drawn(len(rows.examples), recipe.sample, draw=1)]
    train_wrong = _answers(student, own, calibration)[0] if own else ""
    return Fit(rows=len(rows.examples), wrong=wrong, score=score, train_wrong=train_wrong)


def _answers(student: Any, examples: Sequence[Example], rows: CalibrationSet) -> tuple[str, tuple[float, ...]]:
    """Wrong answers as text, and scores; batches will do: nothing here is certified."""
    requests = [example.request for example in examples]
    if rows.output is not None:
        said = student.generate(requests)
        bad = [g.value is None or not rows.output.equal(g.value, e.target) for g, e in zip(said, examples, strict=True)]
        sure = [float(g.score) for g in said]
    else:
        logits = np.asarray(student.logits(requests), dtype=np.float64)
        at = {label: i for i, label in enumerate(rows.labels)}
        bad = [int(row.argmax()) != at[e.target] for row, e in zip(logits, examples, strict=True)]
        top = logits.max(axis=1)
        sure = list(top - np.log(np.exp(logits - top[:, None]).sum(axis=1)) - top)  # log of the largest probability
    return "".join("1" if one else "0" for one in bad), tuple(round(float(s), 6) for s in sure)


def compare_sizes(
    rows: TrainSet, calibration: CalibrationSet, trained: tuple[Trained, ...], recipe: SizingRecipe, *,
    fit: Callable[[FitRecipe], Fit], whole: Callable[[Trained, FitRecipe], Fit],
) -> Sizes:
    """
    Learning curves of all students, and seeds of the leading ones.

    Args:
        rows: training rows.
        calibration: calibration rows.
        trained: the line-up; baselines are left out.
        recipe: students, budgets, seeds.
        fit: does `fit_part`, each result kept so that a killed run repeats none.
        whole: does `fit_whole`.

    Returns: sizes, smallest first, and pairs of students.
    """
    del rows  # read by the fits; here they count in the result's identity
    students = sorted((t for t in trained if t.kind == "student"), key=lambda t: (t.size_bytes, t.name))
    recipes = {s.name: s for s in recipe.students}
    n = min(recipe.rows, len(calibration.examples))
    ask = {t.name: FitRecipe(student=recipes[t.name], rows=recipe.rows, sample=recipe.rows // 2) for t in students}
    full = {t.name: whole(t, ask[t.name]) for t in students}
    leading = sorted(students, key=lambda t: (full[t.name].wrong.count("1"), t.size_bytes))[:LEADING]
    examples = [calibration.examples[i] for i in drawn(len(calibration.examples), recipe.rows, draw=0)]
    sizes: list[Size] = []
    again: dict[str, list[Fit]] = {}
    for one in students:
        leads = recipe.seeds > 1 and one in leading
        fits = _Fits(fit, replace(ask[one.name], sample=0), seeds=recipe.seeds if leads else 1)
        again[one.name] = fits.seeds(full[one.name])
        sizes.append(_size(one, again[one.name], fits, examples, recipe))
    tried = {s.name: recipe.seeds for s in sizes if s.seeds.random is not None}
    pairs = [_pair(*two, full, again, tried) for two in _pairs(students, full)]
    return Sizes(sizes=tuple(sizes), pairs=tuple(pairs), n=n)


class _Fits:
    """Further fits of one student; one that can't be made leaves a note."""

    def __init__(self, fit: Callable[[FitRecipe], Fit], recipe: FitRecipe, *, seeds: int) -> None:
        self._fit, self._recipe, self._seeds = fit, recipe, seeds
        self.notes: list[str] = []
        self.random: bool | None = None

    def _at(self, seed: int) -> FitRecipe:
        student = self._recipe.student
        return replace(self._recipe, student=replace(student, seed=student.seed + seed))

    def part(self, share: float, *, draw: int = 0) -> Fit | None:
        """One budget; further draws go with further seeds."""
        try:
            return self._fit(replace(self._at(draw), share=share, draw=draw))
        except DataError as error:
            self.notes.append(f"{share:.0%} of the rows: {error.what}")
            return None

    def draws(self, share: float) -> list[Fit]:
        """As many draws of one budget as there are seeds."""
        return [fit for draw in range(self._seeds) if (fit := self.part(share, draw=draw)) is not None]

    def seeds(self, shipped: Fit) -> list[Fit]:
        """Fits on all rows, the shipped one first; a student whose fit draws nothing at random is fitted once."""
        if self._seeds < 2:
            return [shipped]
        try:
            first, second = (self._fit(replace(self._at(seed), most=PROBE, rows=PROBE_ANSWERS)) for seed in (0, 1))
            self.random = first != second
        except DataError:
            self.random = True  # so few rows can't teach: nothing is known, so seeds are tried
        return [shipped, *(self._fit(self._at(seed)) for seed in range(1, self._seeds))] if self.random else [shipped]


def _size(trained: Trained, again: list[Fit], fits: _Fits, examples: Sequence[Example], recipe: SizingRecipe) -> Size:
    full = again[0]
    several: dict[float, list[Fit]] = {}
    for at, share in enumerate(recipe.budgets[:-1]):
        several[share] = fits.draws(share) if at == 0 else [f for f in (fits.part(share),) if f is not None]
    known = {share: made for share, made in several.items() if made} | {1.0: [full]}
    rows = [made[0].rows for made in known.values()]
    redrawn = [float(_bits(f.wrong).mean()) for f in next(iter(known.values()))]
    curve = learning_curve(rows, [np.mean([_bits(f.wrong) for f in made], axis=0) for made in known.values()], redrawn=redrawn)
    wrong = _bits(full.wrong)
    doubted = [e.agreement < 1.0 for e, bad in zip(examples, wrong, strict=True) if bad and e.samples > 1]
    own = full.train_wrong
    return Size(
        name=trained.name, use=trained.use, size_bytes=trained.size_bytes, parameters=trained.parameters,
        budgets=_budgets(known),
        curve=curve,
        train_error=figure(own.count("1"), len(own), metric="error"),
        contested=figure(sum(doubted), len(doubted), metric="contested"),
        seeds=_seeds(again, recipe, random=fits.random),
        notes=tuple(fits.notes),
    )  # fmt: skip


def _budgets(known: dict[float, list[Fit]]) -> tuple[Budget, ...]:
    found: list[Budget] = []
    before: NDArray[np.bool_] | None = None
    for share, made in known.items():
        wrong = _bits(made[0].wrong)
        one = Budget(share=share, rows=made[0].rows, error=_error(wrong), draws=len(made))
        if before is not None:
            between = difference_interval(int((before & ~wrong).sum()), int((wrong & ~before).sum()), len(wrong))
            one = replace(one, bought=float(before.mean() - wrong.mean()), bought_low=between.low, bought_high=between.high)
        found.append(one)
        before = wrong
    return tuple(found)


def _seeds(fits: list[Fit], recipe: SizingRecipe, *, random: bool | None) -> Seeds:
    errors = [float(_bits(f.wrong).mean()) for f in fits]
    kept = [kept_in_hindsight(_bits(f.wrong), f.score, alpha=recipe.alpha, of_all=recipe.of_all) for f in fits]
    return Seeds(errors=tuple(errors), kept=tuple(kept), error_sd=_sd(errors), kept_sd=_sd(kept), random=random)


def _pairs(students: Sequence[Trained], full: dict[str, Fit]) -> list[tuple[str, str]]:
    """Each student against the one with the lowest error, the smaller where two are equal."""
    order = sorted(students, key=lambda t: (full[t.name].wrong.count("1"), t.size_bytes))
    return [(order[0].name, other.name) for other in order[1:]]


def _pair(first: str, second: str, full: dict[str, Fit], again: dict[str, list[Fit]], tried: dict[str, int]) -> Pair:
    ours, theirs = _bits(full[first].wrong), _bits(full[second].wrong)
    between = difference_interval(int((theirs & ~ours).sum()), int((ours & ~theirs).sum()), len(ours))
    seeds = min(tried.get(first, 1), tried.get(second, 1))
    spreads = [_sd([float(_bits(f.wrong).mean()) for f in again[name]]) for name in (first, second)]
    spread = math.hypot(*spreads) if seeds > 1 else None
    difference = float(theirs.mean() - ours.mean())
    return Pair(
        first=first, second=second, difference=difference, low=between.low, high=between.high, level=0.95, n=len(ours),
        seed_sd=spread, seeds=seeds, better=between.low > 0.0 and difference > (spread or 0.0),
    )  # fmt: skip


def _bits(text: str) -> NDArray[np.bool_]:
    return np.array([c == "1" for c in text], dtype=bool)


def _error(wrong: NDArray[np.bool_]) -> Figure:
    return figure(int(wrong.sum()), len(wrong), metric="error")


def _sd(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


FIT_PART = Step(name="fit-part", version=1, fn=fit_part, workdir=True)
FIT_WHOLE = Step(name="fit-whole", version=1, fn=fit_whole)
SIZES = Step(name="sizes", version=1, fn=compare_sizes)
