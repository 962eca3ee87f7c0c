"""What sizes of student were compared on calibration rows, and what limits each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from overproof.evidence.figures import Figure

LimitKind = Literal["none", "capacity", "data", "labels", "can't tell"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Gain:
    """What more rows of the same kind would buy."""

    times: float
    """Training rows, relative to those that there are; at most 4."""
    value: float
    """Middle of what is believable: error now minus error then, in [0, 1]; below 0 where the next fit may be unlucky."""
    low: float
    """Lower end, at the curve's level."""
    high: float
    """Upper end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Believed:
    """The curve's band at one number of training rows."""

    rows: float
    low: float
    middle: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """Error = a + b n^-c over the training rows n, as far as the budgets tell it."""

    gains: tuple[Gain, ...]
    """At twice and at four times the rows; empty where nothing can be told."""
    band: tuple[Believed, ...]
    """From the smallest budget to four times the rows; empty where nothing can be told."""
    level: float
    """Of the intervals."""
    n: int
    """Calibration rows that each budget was judged on."""
    draws: int
    """Fits on rows drawn anew that the spread of a fit rests on; below 2 it is assumed."""
    method: str
    why: str = ""
    """Why nothing can be told; else empty."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """A student fitted on part of the training rows."""

    share: float
    """Of the training rows."""
    rows: int
    error: Figure
    """Share of calibration rows on which it differs from the teacher; the first draw where there were several."""
    draws: int
    """Fits on that many rows, each drawn anew."""
    bought: float | None = None
    """Error of the next smaller budget minus this one's, on the same rows; None for the smallest."""
    bought_low: float | None = None
    """Lower end of the paired interval at the figure's level."""
    bought_high: float | None = None
    """Upper end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seeds:
    """One student fitted on all training rows with several seeds; the first one is the one that may ship."""

    errors: tuple[float, ...]
    """Error on calibration rows, one for each seed, the shipped one first."""
    kept: tuple[float, ...]
    """Share of the calibration rows that could be kept under the dial, with the best threshold in hindsight."""
    error_sd: float
    """Standard deviation over seeds; 0 where the fit draws nothing at random or has one seed."""
    kept_sd: float
    random: bool | None
    """Whether another seed gives other answers; None where nobody looked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """One student: how its error falls with rows, what limits it, what seeds change."""

    name: str
    use: str
    size_bytes: int
    parameters: int
    budgets: tuple[Budget, ...]
    """From the smallest to all rows."""
    curve: Curve
    train_error: Figure
    """Error on rows that it was fitted on, a seeded sample."""
    contested: Figure
    """Share of its wrong calibration rows on which the teacher's own samples differ; n = 0 where none has two samples."""
    seeds: Seeds
    notes: tuple[str, ...] = ()
    """Fits that were not possible, and why."""

    @property
    def error(self) -> Figure:
        """On calibration rows, fitted on all rows."""
        return self.budgets[-1].error


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Two students on the same calibration rows, and what seeds alone would change."""

    first: str
    """The one with the lower error."""
    second: str
    difference: float
    """Error of the second minus error of the first."""
    low: float
    """Paired interval at `level`."""
    high: float
    level: float
    n: int
    seed_sd: float | None
    """Standard deviation of the difference over seeds; None where not both have two seeds."""
    seeds: int
    """Seeds of each; 1 where not both were fitted again."""
    better: bool
    """The interval leaves out 0, and the difference is more than seeds change."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """All students of a run, smallest first."""

    sizes: tuple[Size, ...]
    pairs: tuple[Pair, ...]
    n: int
    """Calibration rows that were scored."""

    def spread(self) -> dict[str, float]:
        """Name to standard deviation of the kept share over seeds, for those that were fitted more than once."""
        return {s.name: s.seeds.kept_sd for s in self.sizes if len(s.seeds.errors) > 1 or s.seeds.random is False}


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """What a student was expected to do as served when the plan was made, from calibration rows."""

    name: str
    size_bytes: int
    kept: float
    """Share that it would answer itself."""
    cost: float
    """As served, in the plan's unit."""
    bill: float
    """What the teacher alone costs, in the same unit."""
    clears: bool
    """Whether it was expected to clear every bar."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SizeVerdict:
    """What limits one student, in a word and in a sentence."""

    name: str
    limit: LimitKind
    why: str
    too_small: bool
    """Neither loss nor data will mend it: capacity limits it, and the bar is out of the curve's reach."""
    twice: str
    """What twice the rows would buy, in words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizing:
    """The sizing verdict."""

    sizes: Sizes
    students: tuple[SizeVerdict, ...]
    """In the order of `sizes`."""
    expected: tuple[Expected, ...]
    """Of all students, as the plan saw them."""
    chosen: str
    smallest: str
    """The smallest student that is expected to clear every bar as served; empty where none is."""
    headline: str
    next_candidate: str
    """What to try next, in words."""
