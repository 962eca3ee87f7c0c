"""What reviews change: gold on drawn rows, targets of training rows, and what reviewed rows teach about the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from overproof.data import Example, Folder, Labelled, TrainSet
from overproof.measure.intervals import cp_lower
from overproof.measure.mending import LEAST_REVIEWED, Posterior, mended_posterior, share_believed
from overproof.steps.answers import same_answer
from overproof.steps.reviewing import AUDIT, Outcome, settle
from overproof.store.artifacts import Step
from overproof.store.reviews import Reviews
from overproof.students.reading import read_texts

FEATURES_FILE = "features.npy"
MENDED = "mended"
DELTA = 0.05  # chance of believing in a mending that does not help
BUDGETS = (100, 200, 500, 1000, 2000)
HALF = 0.5
LEAST_ROWS = 5  # rows that seem to have a label before the label can be flagged


@dataclass(frozen=True, kw_only=True, slots=True)
class FeaturesRecipe:
    """How the training rows' texts are read."""

    reading: Literal["encoder", "ngrams"] = "ngrams"
    """"encoder" where a student of the project is encoder.v1."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The encoder's options."""
    seed: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class MendRecipe:
    """What reviews may change."""

    relabel: bool = True
    """Whether unreviewed training rows may get another target; only where a check on audited rows shows that it helps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOut:
    """Whether relabelling helps, on audited training rows that the model did not see."""

    n: int
    """Audited training rows; chance chose them."""
    gained: int
    """Rows on which the teacher is wrong and the relabelling right."""
    lost: int
    """Rows on which the teacher is right and the relabelling wrong."""
    low: float
    """Lower bound at 0.95 of gained / (gained + lost), by Clopper-Pearson."""
    helped: bool
    """True iff the bound is above one half: an exact sign test."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Suspect:
    """
    A label on which the teacher seems to fail more often than not: the expected share of its rows on which the teacher
    says so, by calibrated chances, is below one half. An estimate by a model, no proof.
    """

    label: str
    share_right: float
    """That expected share; reviewed rows count as reviewed."""
    rows: int
    """Training rows that seem to have the label."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Buy:
    """What so many more reviews would bring, by the model's own estimate."""

    reviews: int
    corrected: float
    """Expected wrong targets among the training rows that these reviews would correct."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mended:
    """The three sets after reviews, and an account of every change."""

    labelled: Labelled
    counts: Mapping[str, int]
    """What happened to how many rows."""
    changes: tuple[tuple[str, str, int], ...]
    """(teacher's label, new target, rows) of unreviewed training rows, most frequent first."""
    check: HeldOut | None
    """None where nothing was learned from reviews."""
    suspects: tuple[Suspect, ...] = ()
    buys: tuple[Buy, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Learned:
    """What reviewed training rows say about all training rows."""

    posterior: Posterior
    reviewed: NDArray[np.int64]
    """Places of the reviewed rows."""
    said: NDArray[np.int64]
    """Column of the teacher's label of every row."""


def read_features(labelled: Labelled, recipe: FeaturesRecipe, *, workdir: Path) -> Folder:
    """
    The training rows' texts as numbers, read once.

    Args:
        labelled: the filter's result; its training rows alone are read.
        recipe: how.
        workdir: a fresh folder.

    Returns: a folder with `features.npy`.
    """
    texts = [e.request.text for e in labelled.train.examples]
    target = workdir / "features"
    target.mkdir()
    np.save(target / FEATURES_FILE, read_texts(texts, reading=recipe.reading, options=recipe.options, seed=recipe.seed))
    return Folder(path=target)


def load_features(folder: Folder) -> NDArray[np.float64]:
    """What `read_features` wrote."""
    found: NDArray[np.float64] = np.load(folder.path / FEATURES_FILE, allow_pickle=False).astype(np.float64)
    return found


def learn(train: TrainSet, features: NDArray[np.float64], outcome: Outcome) -> Learned | None:
    """
    Learn what is true where the teacher says what.

    Args:
        train: training rows with the teacher's labels.
        features: of their texts, in the same order.
        outcome: what the reviewers settled on.

    Returns: probabilities for all rows; None where there are too few reviewed training rows.
    """
    at = {label: i for i, label in enumerate(train.labels)}
    settled = [outcome.settled.get(e.request.digest) for e in train.examples]
    reviewed = [i for i, one in enumerate(settled) if one is not None and one.label in at]
    truth = [at[one.label] for one in settled if one is not None and one.label in at]
    if len(reviewed) < LEAST_REVIEWED or len(set(truth)) < 2:
        return None
    said = np.array([at[e.target] for e in train.examples], dtype=np.int64)
    rows = np.array(reviewed, dtype=np.int64)
    posterior = mended_posterior(features, said, rows, np.array(truth), classes=len(at))
    return Learned(posterior=posterior, reviewed=rows, said=said)


def mend(labelled: Labelled, features: Folder, reviews: Reviews, recipe: MendRecipe) -> Mended:
    """
    Put what people said into the rows.

    Audited rows: gold, whatever their split. Rows of the fix queue: training targets, and nothing else; one that lies
    in calibration or among the sealed rows is ignored and counted. Targets of calibration and sealed rows stay the
    teacher's. Unreviewed training rows are relabelled only where the held-out check says that it helps.

    Args:
        labelled: the filter's result.
        features: of the training rows.
        reviews: all words that hold.
        recipe: what may change.

    Returns: the sets, and an account of every change.
    """
    outcome = settle(reviews)
    counts: Counter[str] = Counter({"reviewers differ, row left alone": len(outcome.conflicts)})
    train = _targets(labelled.train, outcome, counts)
    written = labelled.train.output is not None  # what is right elsewhere can be learned of labels, not of records or texts
    learned = learn(labelled.train, load_features(features), outcome) if recipe.relabel and not written else None
    check, notes = None, ["answers are no labels: reviews correct the rows that they are of and teach nothing about others"] if written else []
    suspects: tuple[Suspect, ...] = ()
    buys: tuple[Buy, ...] = ()
    if learned is not None:
        check = held_out(labelled.train, learned, outcome)
        suspects, buys = _suspects(labelled.train.labels, learned), _buys(learned)
        if check.helped:
            train = _relabelled(train, labelled.train.labels, learned, counts)
        notes.append(_said(check))
    return Mended(
        labelled=replace(
            labelled,
            train=replace(labelled.train, examples=tuple(train)),
            calibration=replace(labelled.calibration, examples=_gold("calibration", labelled.calibration.examples, outcome, counts)),
            test=replace(labelled.test, examples=_gold("test", labelled.test.examples, outcome, counts)),
        ),
        counts=dict(sorted(counts.items())),
        changes=_changes(labelled.train.examples, train),
        check=check,
        suspects=suspects,
        buys=buys,
        notes=tuple(notes),
    )


def _targets(train: TrainSet, outcome: Outcome, counts: Counter[str]) -> list[Example]:
    found = []
    for example in train.examples:
        one = outcome.settled.get(example.request.digest)
        if one is None:
            found.append(example)
            continue
        counts["train: reviewed, " + ("confirmed" if same_answer(train.output, one.label, example.target) else "corrected")] += 1
        gold = one.label if one.queue == AUDIT else example.gold
        source = f"review-{one.queue}"
        found.append(replace(example, target=one.label, gold=gold, agreement=1.0, label_from=source))
    return found


def _gold(split: str, examples: Sequence[Example], outcome: Outcome, counts: Counter[str]) -> tuple[Example, ...]:
    found = []
    for example in examples:
        one = outcome.settled.get(example.request.digest)
        if one is None:
            found.append(example)
        elif one.queue != AUDIT or (split == "test" and not one.blind):
            counts[f"{split}: review of the fix queue, or not blind, ignored"] += 1
            found.append(example)
        else:
            counts[f"{split}: gold from the audit queue"] += 1
            found.append(replace(example, gold=one.label, gold_from="review-audit"))
    return tuple(found)


def held_out(train: TrainSet, learned: Learned, outcome: Outcome) -> HeldOut:
    """
    Compare relabelling with the teacher on audited rows, each relabelled by a model that did not see it.

    Args:
        train: training rows with the teacher's labels.
        learned: from `learn`.
        outcome: what the reviewers settled on.

    Returns: counts, and whether an exact sign test at 0.05 says that it helps.
    """
    n = gained = lost = 0
    for place, guess in zip(learned.reviewed.tolist(), learned.posterior.held_out.tolist(), strict=True):
        example = train.examples[place]
        one = outcome.settled[example.request.digest]
        if one.queue != AUDIT:  # picked for looking wrong: such rows would flatter the relabelling
            continue
        n += 1
        gained += example.target != one.label == train.labels[guess]
        lost += example.target == one.label != train.labels[guess]
    low = cp_lower(gained, gained + lost, DELTA) if gained + lost else 0.0
    return HeldOut(n=n, gained=gained, lost=lost, low=low, helped=low > HALF)


def _relabelled(
    train: Sequence[Example], labels: Sequence[str], learned: Learned, counts: Counter[str]
) -> list[Example]:
    known = set(learned.reviewed.tolist())
    chance = learned.posterior.chance
    found = []
    for place, example in enumerate(train):
        if place in known:
            found.append(example)
            continue
        best = int(chance[place].argmax())
        sure = float(chance[place, best])
        changed = labels[best] != example.target
        counts["train: relabelled by what reviews taught"] += changed
        source = MENDED if changed else example.label_from
        found.append(replace(example, target=labels[best], weight=example.weight * sure, label_from=source))
    return found


def _changes(before: Sequence[Example], after: Sequence[Example]) -> tuple[tuple[str, str, int], ...]:
    pairs = zip(before, after, strict=True)
    found = Counter((a.target, b.target) for a, b in pairs if b.label_from == MENDED)
    return tuple((old, new, n) for (old, new), n in sorted(found.items(), key=lambda c: (-c[1], c[0])))


def _suspects(labels: Sequence[str], learned: Learned) -> tuple[Suspect, ...]:
    chance = learned.posterior.chance
    share = share_believed(chance, learned.said)
    rows = np.bincount(chance.argmax(axis=1), minlength=len(labels))
    found = [
        Suspect(label=labels[i], share_right=float(share[i]), rows=int(rows[i]))
        for i in range(len(labels))
        if rows[i] >= LEAST_ROWS and share[i] < HALF
    ]
    return tuple(sorted(found, key=lambda s: (s.share_right, s.label)))


def _buys(learned: Learned) -> tuple[Buy, ...]:
    """Expected wrong targets of the mended rows, the least certain first."""
    doubt = 1.0 - learned.posterior.chance.max(axis=1)
    doubt[learned.reviewed] = 0.0
    gain = np.cumsum(np.sort(doubt)[::-1])
    left = len(doubt) - len(learned.reviewed)
    return tuple(Buy(reviews=n, corrected=float(gain[n - 1])) for n in BUDGETS if n <= left)


def _said(check: HeldOut) -> str:
    head = f"on {check.n} audited training rows relabelling mends {check.gained} of the teacher's mistakes and makes {check.lost}"
    if check.helped:
        return f"{head}: unreviewed training rows are relabelled"
    return f"{head}: not enough to believe in it, so only reviewed rows change"


def take_labelled(mended: Mended, recipe: TakeRecipe) -> Labelled:
    """The three sets by themselves."""
    del recipe
    return mended.labelled


@dataclass(frozen=True, kw_only=True, slots=True)
class TakeRecipe:
    """Nothing to choose."""


FEATURES = Step(name="features", version=1, fn=read_features, workdir=True)
MEND = Step(name="mend", version=1, fn=mend)
TAKE_LABELLED = Step(name="take_labelled", version=1, fn=take_labelled)
