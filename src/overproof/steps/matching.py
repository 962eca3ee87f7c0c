"""How the prompt set compares with the live traffic: distances with intervals, shares of critical slices, gaps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from overproof.data import Gap, MixDistance, SliceShare
from overproof.measure.intervals import cp_interval
from overproof.measure.leakage import coverage_gaps, normalised
from overproof.measure.mixes import effective_rows, mix_distance, points, share_ratio

LIKE = "groups of like messages"
COMPARED = 4_000
"""Rows on either side that gaps are looked for among: the comparison is quadratic."""
MOST_GAPS = 10
LEAST_GAP = 2  # one odd message is no gap
TEXT_CHARS = 300


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """One way to cut the window into segments."""

    name: str
    index: NDArray[np.int64]
    """Shape (n,): segment of each row of the window."""

    @classmethod
    def of(cls, name: str, segments: Sequence[tuple[str, ...]]) -> View:
        """The view by joint attribute values."""
        place: dict[tuple[str, ...], int] = {}
        index = np.fromiter((place.setdefault(one, len(place)) for one in segments), dtype=np.int64, count=len(segments))
        return cls(name=name, index=index)


def view_distance(view: View, *, plain: Sequence[int], chosen: Sequence[int], weights: Sequence[float]) -> MixDistance:
    """
    How far a plain draw and the matched set are from the live mix.

    Args:
        view: the segments.
        plain: rows of a draw of the same size without strata and weights.
        chosen: rows of the set, boosted ones left out.
        weights: one for each of them.

    Returns: both distances with their intervals.
    """
    count = int(view.index.max(initial=0)) + 1
    before = mix_distance(view.index, view.index[list(plain)], np.ones(len(plain)), segments=count)
    after = mix_distance(view.index, view.index[list(chosen)], np.asarray(weights, dtype=float), segments=count)
    return MixDistance(
        view=view.name, segments=count,
        before=before.value, before_low=before.low, before_high=before.high,
        after=after.value, after_low=after.low, after_high=after.high,
        n_live=len(view.index), n_set=len(chosen),
    )  # fmt: skip


def slice_shares(
    inside: Mapping[str, NDArray[np.bool_]], train: Sequence[int], weights: Sequence[float]
) -> tuple[SliceShare, ...]:
    """
    Each critical slice's weighted share of training over its share of the window.

    Args:
        inside: critical slice to its rows of the window.
        train: training rows.
        weights: one for each of them.

    Returns: a three-valued answer for each slice.
    """
    found, m = [], effective_rows(weights)
    for name, rows in inside.items():
        mine = rows[list(train)]
        share = float(np.asarray(weights)[mine].sum()) / sum(weights)
        ratio = share_ratio(share * m, m, int(rows.sum()), len(rows))
        found.append(
            SliceShare(
                slice=name, ratio=ratio.value, low=ratio.low, high=ratio.high if math.isfinite(ratio.high) else None,
                verdict=ratio.verdict, n_set=int(mine.sum()), n_live=int(rows.sum()),
            )
        )
    return tuple(found)


def found_gaps(
    train: Sequence[int], live: Sequence[int], texts: Callable[[Sequence[int]], list[str]], *, seed: int
) -> tuple[tuple[Gap, ...], int]:
    """
    Groups of live messages that are like each other and unlike all of training.

    Args:
        train: training rows.
        live: rows that may be shown.
        texts: rows to their texts.
        seed: of the draw where there are more than can be compared.

    Returns: the gaps by falling share, and the number of live rows that were compared.
    """
    rng = np.random.default_rng(seed)
    known, asked = (_some(rows, rng) for rows in (train, live))
    if len(known) < 2 or not asked:
        return (), 0
    words = texts(asked)
    vectors = points([normalised(text) for text in words], seed=seed)
    mine = points([normalised(text) for text in texts(known)], seed=seed)
    full = np.linalg.norm(vectors, axis=1) > 0  # a text without a word has no direction
    said = np.flatnonzero(full)
    mine = mine[np.linalg.norm(mine, axis=1) > 0]
    if len(mine) < 2 or not len(said):
        return (), 0
    n = len(asked)
    gaps: list[Gap] = []
    for gap in coverage_gaps(mine, vectors[said]).gaps:
        if len(gap.rows) < LEAST_GAP or len(gaps) == MOST_GAPS:
            continue
        between = cp_interval(len(gap.rows), n)
        shown = tuple(words[said[i]][:TEXT_CHARS] for i in gap.examples)
        gaps.append(Gap(share=len(gap.rows) / n, low=between.low, high=between.high, rows=len(gap.rows), examples=shown))
    return tuple(gaps), n


def _some(rows: Sequence[int], rng: np.random.Generator) -> list[int]:
    if len(rows) <= COMPARED:
        return list(rows)
    return np.asarray(rows)[np.sort(rng.permutation(len(rows))[:COMPARED])].tolist()  # type: ignore[no-any-return]  # numpy's own type
