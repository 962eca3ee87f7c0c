"""Figures with intervals, fitted candidates and their scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from overproof.data import Folder

Verdict = Literal["pass", "fail", "undecided"]
Outcome = Literal["pass", "fail", "waived", "not-run"]
CandidateKind = Literal["student", "baseline", "teacher"]
@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A measured fraction with all that makes it trustworthy, and the bar that it is judged by."""

    metric: str
    """"accuracy", "fidelity", "kept", "kept_error", …"""
    value: float | None
    """Fraction in [0, 1]; None where n = 0."""
    low: float
    high: float
    """Two-sided interval at `level`; [0, 1] where n = 0."""
    level: float
    """Confidence of the interval, for example 0.95."""
    method: str
    """For example "clopper-pearson"."""
    n: int
    good: int
    """How many of the n count for the metric."""
    bar: float | None = None
    """The least value admitted, where there is a bar."""
    verdict: Verdict | None = None
    """None where there is no bar. Undecided is never a pass."""
    rows_needed: int | None = None
    """Where undecided: about how many more rows of this slice would decide it."""
    delta: float | None = None
    """Chance of a false pass that the verdict's one-sided test admits; None where there is no verdict."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """A fitted candidate: its files and its size."""

    name: str
    """Shown name, unique in the run, for example "encoder.v1"."""
    use: str
    """Part name that loads the folder again."""
    kind: CandidateKind
    folder: Folder
    """Everything that answering needs; no pickle."""
    size_bytes: int
    parameters: int
    """Learned numbers, frozen ones included."""
    rows: int
    """Training rows that were used."""
    seed: int
    options: Mapping[str, str] = field(default_factory=dict)
    runtime: str = ""
    """What runs it, where there is a choice; see `ExportReport`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """A candidate's answers to a list of requests, in the order of the set that they were made for."""

    name: str
    kind: CandidateKind
    folder: Folder
    """`logits.npy`, float32, shape (n, k), log-probabilities up to a constant per row, columns in label order; where answers
    are written, `answers.json` with one canonical answer or null a row, and the column "sequence"."""
    n: int
    latency_s: float
    """Median seconds for one request answered alone on one thread."""
    latency_p95_s: float
    cost_usd_per_1000: float
    size_bytes: int
    parameters: int
    latency_n: int = 0
    """Answers that the latencies rest on; 0: nobody measured them, and they are 0.0 for want of a figure."""
    cost_n: int = 0
    """Answers that the cost rests on; 0: not known, and 0.0 for want of a figure."""
    role: str = ""
    """What a baseline that is asked is, in words, for example "quantised teacher"; empty for all others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CurvePoint:
    """One bin of a reliability curve."""

    confidence: float
    accuracy: float
    n: int
