"""What a packed student does with spoiled, padded, attacked and foreign texts, beside its teacher."""

from __future__ import annotations

from dataclasses import dataclass

from overproof.evidence.figures import Figure


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherSide:
    """The teacher on identical inputs; "wrong" is: right before, wrong after."""

    n: int
    """Source rows on which both were asked."""
    wrong: Figure
    """Share of them that the spoiling turns wrong for the teacher."""
    alone: Figure
    """The same for the student, whatever it would keep."""
    kept: Figure
    """The same for the student, counted only where it answers itself."""
    alone_only: int
    """Rows that only the student gets wrong."""
    kept_only: int
    """The same, counted only where the student answers itself."""
    teacher_only: int
    """Rows that only the teacher gets wrong: what the student did not take over."""
    teacher_over_kept: int
    """Rows that the teacher gets wrong, and the student doesn't get wrong by itself."""
    low: float
    high: float
    """95% interval of student minus teacher, the student counted where it answers itself; Tango's score test."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeCell:
    """One perturbation on one slice. Every count is of source rows."""

    probe: str
    kind: str
    shape: str
    """"same": the answer must not change; "change": it must change or lose confidence; "away": there is no right answer."""
    slice: str
    """"all" for all of them."""
    critical: bool
    n: int
    """Rows that the perturbation applies to."""
    clean: Figure
    """Right as the text came."""
    right: Figure
    """As asked by `shape`, afterwards, the student alone."""
    flipped: Figure
    """Another answer than before, the student alone."""
    broken: Figure
    """Attack success before routing: of the rows that were right, those that are wrong afterwards."""
    through: Figure
    """Attack success after routing: of the rows that were right, those wrong afterwards and answered by the student."""
    confident: Figure
    """Of all rows, those wrong afterwards and answered by the student."""
    worse: int
    """Right before, wrong after."""
    better: int
    """Wrong before, right after."""
    routed_before: int
    """Rows that go to the teacher as they came."""
    routed: int
    """Rows that go to the teacher afterwards."""
    newly_routed: int
    no_longer_routed: int
    steady: int
    """Rows of which the student reads the same text as before."""
    into: str = ""
    """The answer that most wrong ones fall into, where the student answers itself; empty where none does, and for written answers."""
    teacher: TeacherSide | None = None
    """None where the teacher was not asked."""

    @property
    def caught(self) -> float | None:
        """Of the answers that were right and are wrong now, the share that goes to the teacher; None where there are none."""
        return 1.0 - self.through.good / self.broken.good if self.broken.good else None


@dataclass(frozen=True, kw_only=True, slots=True)
class GreedyCell:
    """An attacker who sees confidence and may ask so many times about each row."""

    slice: str
    critical: bool
    n: int
    """Rows that were right as they came."""
    calls: float
    """Mean number of questions a row."""
    most: int
    """Questions that a row may cost."""
    flipped: Figure
    """Of the n, those whose answer is changed."""
    through: Figure
    """Of the n, those with a wrong answer that the student gives itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GreedyDuel:
    """The same attack on the new student and on the release that serves, on the rows that both get right as they came."""

    release: str
    """Id of the serving one."""
    slice: str
    n: int
    champion: Figure
    """Rows that the serving one then answers wrongly itself."""
    challenger: Figure
    worse: int
    """Rows on which only the new one does."""
    better: int
    """Rows on which only the serving one does."""
    low: float
    high: float
    """95% interval of new minus serving; Tango's score test."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TriggerCell:
    """One rare word of the training rows, put behind held-out rows of other labels."""

    examples: tuple[str, ...]
    """The word; kept out of what travels with a bundle."""
    label: str
    z: float
    """How much more often than chance the word goes with the label in training."""
    flipped: Figure
    """Of the rows of other labels, those that now get the label."""
    through: Figure
    """Of the same, those that the student answers so itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseResult:
    """One named group of the owner's own cases."""

    name: str
    kind: str
    """"case": minimum functionality; "weakness": what the teacher is known to get wrong."""
    n: int
    wrong: int
    """Answers that are not the right one, the student alone."""
    served_wrong: int
    """The same, where the student answers itself."""
    routed: int
    """Cases that go to the teacher."""
    inherited: int = 0
    """Of a weakness: cases with the teacher's own wrong answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeReport:
    """Everything that was tried on the bundle as it will serve."""

    rows: int
    """Source rows, one a session: calibration rows, which taught the student nothing. Sealed rows are never read for it."""
    truth: str
    """"gold" where every row has a true answer, "teacher" where none has, else "gold or teacher"."""
    cells: tuple[ProbeCell, ...]
    greedy: tuple[GreedyCell, ...] = ()
    triggers: tuple[TriggerCell, ...] = ()
    """The strongest first."""
    cases: tuple[CaseResult, ...] = ()
    empty_answered: int = 0
    """Texts that say nothing and get an answer of the student all the same."""
    empty: int = 0
    """Texts that say nothing."""
    teacher_asked: int = 0
    """Spoiled texts that the teacher was asked about."""
    teacher_note: str = ""
    """Why it was not asked; empty where it was."""
    delta: float = 0.05
    """Chance of a false pass of each bar."""
    watched: bool = False
    """True where nobody asked for more: a few perturbations on a few rows, which refuse nothing."""
    duels: tuple[GreedyDuel, ...] = ()
    """The attack against the serving release; empty where none serves."""
    duel_note: str = ""
    """Why there is none although one serves."""

    def cell(self, probe: str, where: str = "all") -> ProbeCell | None:
        """One cell; None where there is none."""
        return next((one for one in self.cells if (one.probe, one.slice) == (probe, where)), None)
