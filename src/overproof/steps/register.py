"""The teacher's known mistakes, as reviews found them, put to the student that would serve."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from overproof.data import Example, Folder, Labelled
from overproof.evidence import Outcome
from overproof.measure.intervals import cp_lower, cp_upper
from overproof.progress import track
from overproof.steps.answers import same_answer
from overproof.steps.comparisons import Answer
from overproof.steps.reviewing import Settled, settle
from overproof.store.artifacts import Step
from overproof.store.reviews import Reviews
from overproof.students.bundle import load_bundle

BATCH = 256
DELTA = 0.05
LEAST = 5  # below, all right answers can't show "more often than not": .5^5 < .05 < .5^4
SHOWN = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """Right answers on a part of the register."""

    right: int
    n: int
    kept_wrong: int
    """Wrong ones that the student would give itself; the others go to the teacher, who is wrong there."""

    @property
    def low(self) -> float:
        """Lower bound of the share right at 0.95, by Clopper-Pearson."""
        return cp_lower(self.right, self.n, DELTA) if self.n else 0.0

    @property
    def high(self) -> float:
        """Upper bound at 0.95."""
        return cp_upper(self.right, self.n, DELTA) if self.n else 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Mistake:
    """One kind of mistake: what the teacher says where another answer is true."""

    said: str
    true: str
    right: int
    """Rows of this kind on which the student says what is true."""
    n: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Register:
    """Rows that people reviewed and on which the teacher is wrong; sealed rows are never among them."""

    every: Share
    """All of them."""
    unseen: Share
    """Those that the student was not trained on."""
    mistakes: tuple[Mistake, ...]
    """Most frequent first; answers that are no labels are not told apart."""
    rows: tuple[str, ...]
    """Ids of the requests, in order, to find them again."""
    repeated: int
    """Rows on which the student makes the teacher's own mistake."""

    @property
    def decidable(self) -> bool:
        """Whether there are enough of them to ask for anything."""
        return self.every.n >= LEAST


@dataclass(frozen=True, kw_only=True, slots=True)
class RegisterRecipe:
    """Nothing to choose."""


def ask_register(bundle: Folder, labelled: Labelled, reviews: Reviews, recipe: RegisterRecipe) -> Register:
    """
    Ask the packed student what reviews found the teacher wrong on.

    Args:
        bundle: the packed student.
        labelled: the filter's result, whose targets are the teacher's answers.
        reviews: all words that hold; rows on which people differ are left out.
        recipe: nothing to choose.

    Returns: counts and ids.
    """
    del recipe
    settled, output = settle(reviews).settled, labelled.train.output
    splits = (("train", labelled.train.examples), ("calibration", labelled.calibration.examples))
    known: list[tuple[str, Example, Settled]] = []
    for split, examples in splits:
        for example in examples:
            one = settled.get(example.request.digest)
            if one is not None and not same_answer(output, example.target, one.label):
                known.append((split, example, one))
    served = load_bundle(bundle.path)
    said = [
        answer
        for at in track(range(0, len(known), BATCH), "known mistakes of the teacher", total=-(-len(known) // BATCH))
        for answer in served.answers([example.request for _, example, _ in known[at : at + BATCH]])
    ]
    guesses, kept = [a.guess for a in said], [a.value is not None for a in said]
    right = [guess is not None and same_answer(output, guess, one.label) for guess, (_, _, one) in zip(guesses, known, strict=True)]
    kinds: Counter[tuple[str, str]] = Counter()
    mended: Counter[tuple[str, str]] = Counter()
    for good, (_, example, one) in zip(right, known, strict=True):
        kind = (example.target, one.label) if output is None else ("", "")
        kinds[kind] += 1
        mended[kind] += good
    unseen = [i for i, (split, _, _) in enumerate(known) if split != "train"]
    return Register(
        every=_share(right, kept, range(len(known))),
        unseen=_share(right, kept, unseen),
        mistakes=tuple(
            Mistake(said=a, true=b, right=mended[a, b], n=n) for (a, b), n in sorted(kinds.items(), key=lambda pair: (-pair[1], pair[0]))
        ),
        rows=tuple(example.request.id for _, example, _ in known),
        repeated=sum(g is not None and same_answer(output, g, e.target) for g, (_, e, _) in zip(guesses, known, strict=True)),
    )


def _share(right: list[bool], kept: list[bool], rows: range | list[int]) -> Share:
    return Share(right=sum(right[i] for i in rows), n=len(rows), kept_wrong=sum(kept[i] and not right[i] for i in rows))


def register_answer(register: Register, *, at_least: float) -> Answer:
    """
    The gate's word on the register.

    Args:
        register: from `ask_register`.
        at_least: share of right answers that is asked, in (0, 1).

    Returns: pass where the lower bound over all rows reaches it, and over the rows that the student was not trained on
        where there are enough of these; fail where an upper bound misses it; else not-run.
    """
    every, unseen = register.every, register.unseen
    parts = [every, *([unseen] if unseen.n >= LEAST else [])]
    words = f"of {every.n:,} rows on which reviews found the teacher wrong the student is right on {_said(every)}"
    trained = every.n - unseen.n
    if trained:
        words += f"; {trained:,} of them it was trained on, corrected, on the {unseen.n:,} others it is right on {_said(unseen)}"
    words += f"; it repeats the teacher’s mistake on {register.repeated:,} and would itself answer {every.kept_wrong:,} of them wrongly"
    left = [f"{m.said!r} for {m.true!r} {m.n - m.right} of {m.n}" for m in register.mistakes if m.said and m.right < m.n]
    words += f"; left: {', '.join(left[:SHOWN])}" if left else ""
    words += f"; at least {at_least:.0%} is asked"
    todo = "review more rows of these kinds (`overproof review --queue fix`), so that the next student learns what is true"
    outcome: Outcome = "pass"
    if any(part.high < at_least for part in parts):
        outcome = "fail"
    elif not register.decidable or any(part.low < at_least for part in parts):
        outcome, words = "not-run", f"{words}: not enough data to tell"
    return Answer(outcome=outcome, reason=words, todo="" if outcome == "pass" else todo)


def _said(part: Share) -> str:
    return f"{part.right:,} ({part.low:.1%} to {part.high:.1%} at 95% each, n = {part.n:,})" if part.n else "none (n = 0)"


REGISTER = Step(name="register", version=1, fn=ask_register)
