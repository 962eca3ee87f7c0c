"""Choose what runs a fitted student: try each runtime, test its parity on calibration rows, take the fastest that passes."""

from __future__ import annotations

import platform
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from overproof.data import CalibrationSet, Example, Folder, Request
from overproof.errors import DataError, OverproofError
from overproof.evidence import Exported, ExportReport, RuntimeTried, Trained
from overproof.measure.intervals import cp_upper, figure
from overproof.measure.paired import difference_interval, noninferiority
from overproof.measure.scope import softmax_rows
from overproof.progress import track
from overproof.registry import resolve
from overproof.store.artifacts import Step
from overproof.students import Student
from overproof.students.files import folder_size
from overproof.students.runtimes import AUTO, BATCH, FP32, RUNTIMES, Runtime, arithmetic, runtime_of, why_not
from overproof.students.weigh import MESSAGE, weigh

# Rounding moves rows that were in doubt: about as many to their label as away from it, so what counts is the agreement
# that is lost, and the share that moves only tells whether it is still the same model. Thresholds, calibrator and
# certificate come later and from the exported file's own scores: a row that moves is no threat to the proof.
LOST, LOST_HIGH, MISS = 0.003, 0.01, 0.05
FLIPS, FLIPS_HIGH, SHIFT_P99 = 0.02, 0.035, 0.10
LEAST_ROWS, MOST_ROWS = 300, 1000  # fewer show no loss below LOST_HIGH even where nothing is lost: (1 - .01)^299 < .05
FASTER = 1.2  # timings of one runtime differ by about a tenth from run to run
ROUNDS, SINGLES = 5, 20


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportRecipe:
    """What the project file asks for."""

    runtime: str = AUTO
    """A name out of `students.runtimes`, or "auto"."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NoRecipe:
    """Nothing to choose."""


def exporter(use: str) -> Any | None:
    """
    The class behind a part name, where its students come in the form of several runtimes.

    Args:
        use: the part name.

    Returns: a class with `exported(folder, runtime, into=...)`; None for any other part.
    """
    found = resolve("students", use)
    return found if hasattr(found, "exported") else None


def export(trained: Trained, rows: CalibrationSet, recipe: ExportRecipe, *, workdir: Path) -> Exported:
    """
    Bring a candidate into the form that it will be released in.

    The choice rests on timings, so it may fall otherwise on another day or machine; it is made once, and written down
    with its figures. What follows is measured on the file that was taken.

    Args:
        trained: as fitted, in float32.
        rows: calibration rows; what the runtimes say to them is compared with their targets and with float32.
        recipe: what is asked for.
        workdir: gets the candidate's files for the runtime taken.

    Returns: the candidate and the table of what was tried.
    Raises: DataError where a runtime that was asked for by name can't run, fails parity, or can't be tested.
    """
    part = exporter(trained.use)
    if part is None:
        raise DataError(
            f"candidate {trained.name!r} ({trained.use}) has no runtimes to choose from",
            next_action="leave `runtime` out of its table",
        )
    step = max(1, -(-len(rows.examples) // MOST_ROWS))
    examples = rows.examples[::step]
    trial = _Trial(part, trained, examples, workdir)
    enough = len(examples) >= LEAST_ROWS
    for runtime in _wanted(recipe.runtime) if enough or recipe.runtime == FP32.name else [FP32]:
        trial.prepare(runtime)
    trial.clock()
    trial.compare()
    tried = tuple(trial.weighed(name) for name in trial.tried)
    few = "" if enough else f"not enough rows: parity needs {LEAST_ROWS} calibration rows, there are {len(examples)}"
    taken = _fastest(tried) if recipe.runtime == AUTO else _named(recipe.runtime, tried, few)
    reason = few or _reason(taken, tried, recipe.runtime)
    folder = trial.folder(taken.runtime).rename(workdir / "student")
    shutil.rmtree(workdir / "tried")  # hundreds of megabytes that nobody reads again
    report = ExportReport(
        candidate=trained.name, asked=recipe.runtime, runtime=taken.runtime, reason=reason, n=len(examples), tried=tried, machine=_machine(),
    )  # fmt: skip
    return Exported(
        trained=replace(trained, folder=Folder(path=folder), size_bytes=folder_size(folder), runtime=taken.runtime),
        report=report,
    )


def _wanted(asked: str) -> list[Runtime]:
    return list(RUNTIMES.values()) if asked == AUTO else list(dict.fromkeys((FP32, runtime_of(asked))))


class _Trial:
    """One candidate in all its forms, side by side."""

    def __init__(self, part: Any, trained: Trained, examples: Sequence[Example], workdir: Path) -> None:
        self._part, self._use, self._examples = part, trained.use, examples
        self._source, self._workdir = trained.folder.path, workdir
        self._students: dict[str, Student] = {}
        self.tried: dict[str, RuntimeTried] = {}

    def folder(self, name: str) -> Path:
        return self._workdir / "tried" / name

    def prepare(self, runtime: Runtime) -> None:
        """Write and load one form; what can't be had here is part of the table, not the end of the run."""
        reason = why_not(runtime)
        if not reason:
            folder = self.folder(runtime.name)
            folder.mkdir(parents=True)
            try:
                self._part.exported(self._source, runtime.name, into=folder)
                self._students[runtime.name] = self._part.load(folder)
            except OverproofError as error:
                if runtime is FP32:
                    raise
                reason = error.what
        self.tried[runtime.name] = RuntimeTried(runtime=runtime.name, passed=runtime is FP32, reason=reason or "as fitted")

    def clock(self) -> None:
        """Time all forms in turn, several times, so that a busy moment hits each of them."""
        one = [Request(id="", fields={"text": MESSAGE})]
        single: dict[str, list[float]] = {name: [] for name in self._students}
        bulk: dict[str, list[float]] = {name: [] for name in self._students}
        for at in track(range(-1, ROUNDS), "timing runtimes", total=ROUNDS + 1):
            for name, student in self._students.items():
                alone = [_seconds(student, one) for _ in range(SINGLES)]
                many = _seconds(student, one * BATCH)
                if at >= 0:  # the first round warms up
                    single[name] += alone
                    bulk[name].append(many)
        for name in self._students:
            self.tried[name] = replace(
                self.tried[name], latency_s=float(np.median(single[name])), latency_n=len(single[name]),
                per_second=BATCH / float(np.median(bulk[name])),
            )  # fmt: skip

    def compare(self) -> None:
        """Parity of each form with the one that was fitted, each row alone, as it is served."""
        first, requests = self._students[FP32.name], [example.request for example in self._examples]
        whole = _chances(first, requests)
        place = {label: at for at, label in enumerate(first.labels)}
        target = np.array([place.get(example.target, -1) for example in self._examples])
        for name, student in self._students.items():
            if name == FP32.name:
                continue
            chances = _chances(student, requests)
            if not np.isfinite(chances).all():
                self.tried[name] = replace(self.tried[name], passed=False, reason="it answers with NaN or infinity")
                continue
            self.tried[name] = _judged(self.tried[name], whole, chances, target)

    def weighed(self, name: str) -> RuntimeTried:
        """With size, load time and memory, where it could be loaded."""
        if name not in self._students:
            return self.tried[name]
        found = weigh(self._use, self.folder(name))
        return replace(
            self.tried[name], size_bytes=folder_size(self.folder(name)), load_s=found.load_s if found else None,
            peak_bytes=found.peak_bytes if found else None,
        )  # fmt: skip


def _judged(one: RuntimeTried, whole: NDArray[np.float64], chances: NDArray[np.float64], target: NDArray[np.int64]) -> RuntimeTried:
    """Whether a form is still the model that was fitted: chances of both, shape (n, k), and the labels' places."""
    n, before, after = len(target), whole.argmax(axis=1), chances.argmax(axis=1)
    flips = int((before != after).sum())
    lost, won = int(((before == target) & (after != target)).sum()), int(((before != target) & (after == target)).sum())
    shift = np.abs(chances.max(axis=1) - whole.max(axis=1))
    p99, high, loss = float(np.quantile(shift, 0.99)), cp_upper(flips, n, MISS), difference_interval(lost, won, n)
    faults = []
    if lost - won > LOST * n:
        faults.append(f"{lost - won} of {n} rows fewer agree with their label, at most {LOST:.1%} may")
    elif noninferiority(lost, won, n, margin=LOST_HIGH, d=MISS).verdict != "pass":
        faults.append(f"with {lost} answers lost and {won} won of {n} a loss of {LOST_HIGH:.1%} can't be ruled out")
    if flips > FLIPS * n:
        faults.append(f"{flips} of {n} rows get another answer, at most {FLIPS:.1%} may")
    elif high > FLIPS_HIGH:
        faults.append(f"up to {high:.1%} of rows may get another answer (95% bound), at most {FLIPS_HIGH:.1%} may")
    if p99 > SHIFT_P99:
        faults.append(f"confidence is off by {p99:.2f} (99th percentile), at most {SHIFT_P99} may be")
    return replace(
        one, passed=not faults, reason="; ".join(faults) or "parity holds", lost=lost, won=won, loss_low=loss.low, loss_high=loss.high,
        agreement=figure(n - flips, n, metric="agreement"), shift_p99=p99, shift_max=float(shift.max()),
    )  # fmt: skip


def _seconds(student: Student, requests: Sequence[Request]) -> float:
    start = time.perf_counter()
    student.logits(requests)
    return time.perf_counter() - start


def _chances(student: Student, requests: Sequence[Request]) -> NDArray[np.float64]:
    found = [student.logits([request]) for request in track(requests, "parity of runtimes", total=len(requests))]
    return softmax_rows(np.concatenate(found).astype(np.float64))


def _fastest(tried: Sequence[RuntimeTried]) -> RuntimeTried:
    """The fastest of those that passed; a simpler one stays unless another is clearly faster."""
    taken = tried[0]
    for one in tried[1:]:
        if one.passed and one.latency_s and taken.latency_s and one.latency_s * FASTER <= taken.latency_s:
            taken = one
    return taken


def _named(asked: str, tried: Sequence[RuntimeTried], few: str) -> RuntimeTried:
    found = next((one for one in tried if one.runtime == asked), None)
    if found is None or not found.passed:
        raise DataError(
            f"runtime {asked!r} can't be released: {found.reason if found else few}",
            next_action='write runtime = "auto" to take the fastest that holds, or runtime = "onnx-fp32"',
        )
    return found


def _reason(taken: RuntimeTried, tried: Sequence[RuntimeTried], asked: str) -> str:
    if asked != AUTO:
        return f"{asked} was asked for"
    first = tried[0]
    if taken is first:
        return f"none that holds parity is {FASTER} times as fast as {first.runtime}"
    times = (first.latency_s or 0.0) / (taken.latency_s or 1.0)
    return f"{taken.runtime} holds parity and answers a single message {times:.1f} times as fast as {first.runtime}"


def _machine() -> dict[str, str]:
    found = {"processor": platform.machine(), "arithmetic": arithmetic()}
    for name in ("onnxruntime", "openvino"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def take_exported(exported: Exported, recipe: NoRecipe) -> Trained:
    """
    The candidate alone: what rests on it changes with its files, not with their timings.

    Args:
        exported: from `export`.
        recipe: nothing to choose.

    Returns: the candidate.
    """
    del recipe
    return exported.trained


EXPORT = Step(name="export", version=2, fn=export, workdir=True)
TAKE_EXPORTED = Step(name="take-exported", version=1, fn=take_exported)
