"""What is usual for a release: how its student sees the prompt set that it was made from. Live traffic is held against it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray

from overproof.data import ALL, Folder, PromptRow, PromptSet, Request
from overproof.measure.clusters import GRAMS, gram_places, gram_vectors, usual_distance
from overproof.measure.drift import FarReference, SketchPlan, far, far_reference, sketch_plan
from overproof.measure.slices import hash_unit
from overproof.measure.words import WordCounts, count_words
from overproof.store.artifacts import Step
from overproof.students.bundle import Bundle, load_bundle

OWN, GRAM = "the student's own features", "hashed n-grams"
LEAST = 20
"""Rows below which no distance is usual."""
UNSEEN_QUANTILE = 0.9
BATCH = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class UsualRecipe:
    """How much of the prompt set is kept."""

    most: int = 4_000
    """Rows to be near to, and rows to compare with, chosen by a hash of their ids."""
    words: int = 100_000
    """Words of a slice, the commonest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """Requests as vectors."""

    kind: str
    """`OWN` or `GRAM`."""
    rows: NDArray[np.float32]
    """Shape (n, d), of length 1, or 0 where a text has no direction."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldRow:
    """A calibration or test row, which nothing was fitted on, as the student sees it."""

    slice: str
    at: str | None
    guess: str | None
    """None where the student has no answer, and for written answers."""
    cause: str
    """As in `students.bundle.Answer`."""
    confidence: float
    far: bool
    """Farther from all training rows than 95 % of those are from each other."""
    unseen: bool
    """With more n-grams that training lacks than 90 % of the training rows bring."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Usual:
    """The reference as the watch reads it."""

    slices: tuple[str, ...]
    """Certification slices, `other` last."""
    labels: tuple[str, ...]
    """Empty for written answers."""
    vectors: str
    """What the vectors are: `OWN` or `GRAM`."""
    width: int
    near: bytes
    """Training rows as float16, (a, width), of length 1."""
    near_slices: tuple[str, ...]
    held_vectors: bytes
    """Held rows likewise."""
    held: tuple[HeldRow, ...]
    radius: float | None
    """Of the near ones; None for fewer than 20 training rows."""
    reach: float
    """Of a group of messages."""
    grams: bytes
    """Which hashed n-grams training has, one bit each."""
    unseen_limit: int
    words: Mapping[str, WordCounts]
    """By slice, over all rows."""

    def near_rows(self) -> NDArray[np.float32]:
        """Shape (a, width)."""
        return _floats(self.near, self.width)

    def held_rows(self) -> NDArray[np.float32]:
        """Shape (held, width)."""
        return _floats(self.held_vectors, self.width)

    def compared(self, name: str) -> NDArray[np.float32]:
        """
        Rows that live ones of a slice (`ALL` for all) are compared with by density: where the student's own features could
        be sharper on rows that it was fitted on, those are left out.
        """
        held = np.array([name in (ALL, row.slice) for row in self.held], dtype=np.bool_)
        if self.vectors == OWN:
            return self.held_rows()[held]
        near = np.array([name in (ALL, one) for one in self.near_slices], dtype=np.bool_)
        return np.vstack([self.held_rows()[held], self.near_rows()[near]])

    def far_rule(self) -> FarReference | None:
        """What tells far rows; None where nothing does."""
        if self.radius is None:
            return None
        return FarReference(rows=self.near_rows(), radius=self.radius, share=0.05)

    def plan(self) -> SketchPlan | None:
        """The projection of this release's sketches; None for too few different rows."""
        rows = self.near_rows()
        return sketch_plan(rows) if len(rows) >= LEAST and len(np.unique(rows, axis=0)) > 1 else None

    def seen_grams(self) -> NDArray[np.bool_]:
        """Shape (`GRAMS`,)."""
        return np.unpackbits(np.frombuffer(self.grams, dtype=np.uint8))[:GRAMS].astype(np.bool_)


def usual(prompts: PromptSet, bundle: Folder, recipe: UsualRecipe) -> Usual:
    """
    Look at the prompt set with the released student.

    Args:
        prompts: what the release was trained, calibrated and tested on.
        bundle: the release's bundle.
        recipe: how much is kept.

    Returns: the reference. Shares come from calibration and test rows, on which nothing was fitted; rows that were
        written, or drawn for a critical slice beyond the fair draw, are in none of them.
    Raises: DataError as `load_bundle`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a certificate that has ended changes nothing here
        asked = load_bundle(bundle.path)
    fair = [row for row in (*prompts.calibration, *prompts.test) if row.origin == "traffic" and not row.boost]
    learned = _some([row for row in prompts.train if row.origin == "traffic"], recipe.most)
    rows = _some(fair, recipe.most)
    placed = placed_by(asked, [row.request for row in learned])
    near, held = placed.rows, placed_by(asked, [row.request for row in rows]).rows
    whole = np.linalg.norm(near, axis=1) > 0
    rule = far_reference(np.unique(near[whole], axis=0)) if len(np.unique(near[whole], axis=0)) >= LEAST else None
    places = gram_places([row.request.text for row in learned])
    often = np.bincount(np.concatenate(places), minlength=GRAMS) if places else np.zeros(GRAMS, dtype=np.int64)
    own = [int((often[one] <= 1).sum()) for one in places]
    limit = int(np.quantile(own, UNSEEN_QUANTILE)) if own else 0
    known = often > 0
    new = unseen([row.request.text for row in rows], known)
    answers = [one for at in range(0, len(rows), BATCH) for one in asked.answers([row.request for row in rows[at : at + BATCH]], today=date.min)]
    away = is_far(held, rule)
    labels = tuple(asked.card.output.labels)
    everything = (*learned, *fair)
    return Usual(
        slices=tuple(one.slice.name for one in asked.card.thresholds), labels=labels, vectors=placed.kind, width=near.shape[1],
        near=near.astype(np.float16).tobytes(), near_slices=tuple(asked.slices_of([row.request for row in learned])), held_vectors=held.astype(np.float16).tobytes(),
        held=tuple(
            HeldRow(
                slice=answer.slice, at=row.request.at, guess=answer.guess if labels else None,
                cause=answer.cause, confidence=round(answer.confidence, 6), far=bool(away[at]), unseen=bool(new[at] > limit),
            )
            for at, (row, answer) in enumerate(zip(rows, answers, strict=True))
        ),
        radius=rule.radius if rule is not None else None,
        reach=usual_distance(near[whole]) if whole.sum() >= 2 else 1.0,
        grams=np.packbits(known).tobytes(), unseen_limit=limit, words=_words(asked, everything, recipe.words),
    )  # fmt: skip


def placed_by(bundle: Bundle, requests: Sequence[Request]) -> Placed:
    """
    Requests as vectors of length 1, or 0: the student's own, else of hashed n-grams.

    Args:
        bundle: the released student.
        requests: any number.

    Returns: one vector each.
    """
    found = [bundle.features(requests[at : at + BATCH]) for at in range(0, len(requests), BATCH)]
    own = [one for one in found if one is not None]
    if not own:
        return Placed(kind=GRAM, rows=gram_vectors([one.text for one in requests]))
    rows = np.vstack(own)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return Placed(kind=OWN, rows=np.asarray(rows / np.where(length > 0, length, 1.0), dtype=np.float32))


def is_far(vectors: NDArray[np.float32], rule: FarReference | None) -> NDArray[np.bool_]:
    """
    Which rows are far; those without a direction are not looked at.

    Args:
        vectors: from `placed_by`.
        rule: `Usual.far_rule`.

    Returns: shape (n,).
    """
    found = np.zeros(len(vectors), dtype=np.bool_)
    full = np.linalg.norm(vectors, axis=1) > 0
    if rule is not None and full.any():
        found[full] = far(vectors[full], rule)
    return found


def unseen(texts: Sequence[str], known: NDArray[np.bool_]) -> list[int]:
    """
    How many different n-grams of each text training lacks.

    Args:
        texts: as they came.
        known: `Usual.seen_grams`.

    Returns: one number each.
    """
    return [int((~known[one]).sum()) for one in gram_places(texts)]


def _some(rows: Sequence[PromptRow], most: int) -> list[PromptRow]:
    if len(rows) <= most:
        return list(rows)
    chosen = sorted(range(len(rows)), key=lambda at: hash_unit(rows[at].request.id, "usual"))[:most]
    return [rows[at] for at in sorted(chosen)]


def _words(bundle: Bundle, rows: Sequence[PromptRow], most: int) -> dict[str, WordCounts]:
    names = bundle.slices_of([row.request for row in rows])
    found = {}
    for name in (one.slice.name for one in bundle.card.thresholds):
        counted = count_words(row.request.text for row, mine in zip(rows, names, strict=True) if mine == name)
        commonest = sorted(counted.counts.items(), key=lambda item: (-item[1], item[0]))[:most]
        found[name] = WordCounts(rows=counted.rows, counts=dict(sorted(commonest)))
    return found


def _floats(raw: bytes, width: int) -> NDArray[np.float32]:
    return np.frombuffer(raw, dtype=np.float16).reshape(-1, max(1, width)).astype(np.float32)


USUAL = Step(name="usual", version=1, fn=usual)
