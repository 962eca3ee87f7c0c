"""What was tried to run a candidate, and what it came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from overproof.evidence.figures import Figure, Trained


@dataclass(frozen=True, kw_only=True, slots=True)
class RuntimeTried:
    """One runtime: its figures on this machine, and its parity with the candidate as fitted."""

    runtime: str
    """For example "onnx-fp32"."""
    passed: bool
    """Whether it may be released; True for the form that the candidate was fitted in."""
    reason: str
    """Why, in a clause."""
    size_bytes: int = 0
    """All files of the candidate in this form; 0 where it was not written."""
    load_s: float | None = None
    """Seconds from files to the first answer in a fresh process, libraries included; None where nobody measured."""
    peak_bytes: int | None = None
    """Most memory of that process, Python included."""
    latency_s: float | None = None
    """Median seconds for one message of 16 tokens, on one thread, tokenising included."""
    latency_n: int = 0
    """Messages that the median rests on."""
    per_second: float | None = None
    """Messages of 16 tokens a second, 32 given at once, on one thread."""
    agreement: Figure | None = None
    """Share of calibration rows that get the same answer as in float32."""
    lost: int | None = None
    """Of these rows, those that agree with their label in float32 alone; None where nobody compared."""
    won: int | None = None
    """Those that agree with it in this form alone."""
    loss_low: float | None = None
    """Lower end of the 95 % interval (Tango) of (lost - won) / n: the agreement that the form costs, as a share of rows."""
    loss_high: float | None = None
    """Upper end."""
    shift_p99: float | None = None
    """99th percentile, over the same rows, of how far confidence is off (softmax, before calibration)."""
    shift_max: float | None = None
    """The most that it is off."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportReport:
    """How the runtime of one candidate was chosen."""

    candidate: str
    """Its shown name."""
    asked: str
    """What the project file says; "auto" leaves it to these figures."""
    runtime: str
    """The one that was taken; everything that follows, the certificate included, rests on its answers."""
    reason: str
    """Why, one sentence."""
    n: int
    """Calibration rows that parity was tested on."""
    tried: tuple[RuntimeTried, ...]
    """Simplest first."""
    machine: Mapping[str, str] = field(default_factory=dict)
    """Processor family, its arithmetic, and versions of the libraries that timed; no name of a machine."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """A candidate in the form that it is released in."""

    trained: Trained
    """Its files and size are those of the runtime taken."""
    report: ExportReport
