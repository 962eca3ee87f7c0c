"""What a prompt search tried, and where everything that could serve stands in money."""

from __future__ import annotations

from dataclasses import dataclass

from overproof.evidence.figures import CandidateKind, Figure, Verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One prompt of a search."""

    name: str
    """Instructions and examples, for example "plain + nearest 8"."""
    agreement: Figure
    """With the labels of the training rows that it was asked about; no part of any certificate."""
    calls: int
    """Questions asked with it."""
    cost_usd: float
    """What their answers cost, by bill or by machine time."""
    out_after: int | None
    """Round after which it was given up, from 1; None for the chosen one and those that it beat in the last round."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptSearch:
    """A bounded search for a better prompt."""

    name: str
    """Of the baseline."""
    chosen: str
    """The best trial; the project's own prompt where no other was better on the same rows."""
    trials: tuple[Trial, ...]
    """In the order in which they entered; the first is the project's own prompt."""
    calls: int
    """Questions asked, never more than `cap`."""
    cap: int
    cost_usd: float
    n_shown: int
    """Training rows that examples came from."""
    n_scored: int
    """Training rows that trials were scored on; none of them is ever shown."""
    p: float | None
    """Chance of the chosen prompt's lead over the project's own if it were no better; None where it is that prompt."""

    @property
    def words(self) -> str:
        """The search in one sentence."""
        by = {trial.name: trial.agreement for trial in self.trials}
        first, best = self.trials[0].agreement, by[self.chosen]
        what = f"{len(self.trials)} prompts tried with {self.calls:,} of {self.cap:,} questions for {self.cost_usd:.4f} USD"
        if self.p is None:
            return f"{self.name}: {what}; none was better than the project's own"
        lead = f"{best.good} of {best.n} against {first.good} of {first.n} with the project's own prompt, p = {self.p:.2g}"
        return f"{self.name}: {what}; {self.chosen!r} was best on training rows ({lead}, the best of several and so too rosy)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """A best estimate with its ends; None is "never" or "not known", as the field that holds it says."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """One way to serve: what it is, whether it is good enough, what it costs."""

    name: str
    """For example "linear.v1 as served"."""
    kind: CandidateKind
    role: str
    """In words: "student as served", "small model, asked", "quantised teacher", …"""
    clears_bars: Verdict
    """Of the teacher: always "pass" on agreement, so it is the word on its accuracy bars."""
    latency_s: float
    latency_p95_s: float
    latency_n: int
    """0: nobody measured it."""
    usd_per_1000: float | None
    """None where not known; nothing is concluded from it then."""
    usd_per_month: Span
    """None where price or volume are not known."""
    saved_per_month: Span
    """Against the teacher alone; negative is a loss."""
    once_usd: float
    """What it takes to get there: labels, reviews, training, prompt search."""
    payback_months: Span
    """`once_usd` over `saved_per_month`; None is "never", and "not known" where the saving isn't."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OneOff:
    """What distilling costs once."""

    labels_usd: float
    """Bought for this project; 0 for answers that the traffic brought."""
    labels_from: str
    """Where that figure comes from, in words."""
    review_usd: float
    training_usd: float
    training_s: float | None
    """Processor seconds of the chosen student's training; None where not measured, and then no part of the sum."""
    other_usd: float

    @property
    def usd(self) -> float:
        """All together."""
        return self.labels_usd + self.review_usd + self.training_usd + self.other_usd


@dataclass(frozen=True, kw_only=True, slots=True)
class StandingReport:
    """All ways to serve side by side, and what the money says."""

    rows: tuple[Standing, ...]
    """The chosen student as served, other students, baselines, the teacher."""
    requests_per_month: float | None
    """None where not known."""
    once: OneOff
    searches: tuple[PromptSearch, ...]
    enough: str
    """The do-nothing baseline that clears every bar at lower or equal cost; empty where there is none."""
    words: tuple[str, ...]
    """Sentences, the most important first."""
