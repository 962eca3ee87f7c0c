"""Near-duplicate groups, similarity to the nearest training row, novelty bins, gaps in what training covers."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from overproof.errors import MeasureError
from overproof.measure.minhash import SketchPair, join_candidates, sketch, words_of
from overproof.measure.scope import BLOCK, nearest_distance, unit_rows
from overproof.progress import track

LONG_WORDS = 12
"""Distinct words from which on one changed word leaves the request the same. Below it, one word is often the whole
meaning: grouping one-word edits of all lengths put 17 % of the rows of Banking77 (77 intents, median 10 words) into
a group of another intent, against 0.3 % with this rule."""
LONG_JACCARD = 0.75
"""Least shared part of the distinct words of two long texts: one edit of 12 words gives 11/13 = .85 or more."""
SHORT_JACCARD = 0.8
"""Least shared part of the character trigrams where a text is short: spelling, spaces and marks, not other words."""
GAP_QUANTILE = 0.95
"""A live row lies in a gap if it is farther from training than 95 % of the training rows are from each other."""
GAP_EXAMPLES = 5
NOVELTY_EDGES = (0.0, 0.3, 0.4, 0.5, 0.6, 0.8)


@dataclass(frozen=True, kw_only=True, slots=True)
class Clusters:
    """Near-duplicate grouping of n texts."""

    exact: NDArray[np.int64]
    """Shape (n,): the same number iff the normalised texts are equal."""
    near: NDArray[np.int64]
    """Shape (n,): the same number iff a chain of near-duplicates joins the texts; coarser than `exact`."""


def normalised(text: str) -> str:
    """
    Fold what doesn't make a request another one: width, case, white space.

    Args:
        text: a request's text.

    Returns: NFKC, case-folded, runs of white space as one space, stripped.
    Raises: nothing.
    Source: Unicode Standard Annex 15 (NFKC).

    >>> normalised("  Where IS  my order ")
    'where is my order'
    """
    folded = text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.split())


def _words(text: str) -> frozenset[str]:
    return frozenset(words_of(text)) or frozenset([text])


def _trigrams(text: str) -> frozenset[str]:
    found = words_of(text)
    padded = f" {' '.join(found)} " if found else text
    return frozenset(padded[i : i + 3] for i in range(max(1, len(padded) - 2)))


def jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    """
    Shared part of two sets.

    Args:
        left: a set of tokens.
        right: a set of tokens.

    Returns: a fraction in [0, 1]; 1 for two empty sets.
    Raises: nothing.
    Source: Broder 1997, On the resemblance and containment of documents.

    >>> jaccard(frozenset("ab"), frozenset("bc")) == 1 / 3
    True
    """
    both = len(left | right)
    return len(left & right) / both if both else 1.0


def near_duplicate(left: str, right: str) -> bool:
    """
    True iff two texts are the same request for the purpose of keeping splits apart.

    Args:
        left: normalised text.
        right: normalised text.

    Returns: whether they share enough: words where both have at least `LONG_WORDS` distinct ones, else trigrams.
    Raises: nothing.
    Source: thresholds chosen on two real data sets, see `LONG_WORDS`.

    >>> near_duplicate("i lost my card", "i lost my card!"), near_duplicate("i lost my card", "i lost my phone")
    (True, False)
    """
    one, two = _words(left), _words(right)
    if min(len(one), len(two)) >= LONG_WORDS:
        return jaccard(one, two) >= LONG_JACCARD
    return jaccard(_trigrams(left), _trigrams(right)) >= SHORT_JACCARD


def sketched_here(texts: Sequence[str]) -> SketchPair:
    """
    Sketches of texts, as groups are found by.

    Args:
        texts: n normalised texts.

    Returns: the sketches.
    Raises: nothing.
    Source: Broder 1997 (MinHash).

    >>> len(sketched_here(["hello"]).short.rows)
    1
    """
    # At a trigram overlap of .8 the longer text has at most a quarter more trigrams than the shorter one.
    return sketch(texts, long_from=LONG_WORDS, short_below=1.5 * LONG_WORDS)


def clusters(texts: Sequence[str], *, near: bool = True, sketched: Callable[[Sequence[str]], SketchPair] | None = None) -> Clusters:
    """
    Group texts that are the same request: equal after normalising, or verified near-duplicates, transitively.

    Args:
        texts: n texts, raw.
        near: False groups equal texts only.
        sketched: what makes the sketches, where that is not to happen here; must say what `sketched_here` says.

    Returns: group numbers, shape (n,) each; they don't depend on the order of the texts except by name.
    Raises: nothing.
    Source: Broder 1997 (MinHash), Indyk and Motwani 1998 (banding); every candidate pair is verified by the exact
        Jaccard similarity, because unverified bands join unlike texts.

    >>> clusters(["Hello there", "hello  there", "goodbye"]).near.tolist()
    [1, 1, 0]
    """
    folded = [normalised(text) for text in texts]
    distinct = sorted(set(folded))
    place = {text: i for i, text in enumerate(distinct)}
    exact = np.fromiter((place[text] for text in folded), dtype=np.int64, count=len(folded))
    del folded, place  # at a million rows they weigh more than the signatures
    if not near or len(distinct) < 2:
        return Clusters(exact=exact, near=exact.copy())
    sketches = (sketched or sketched_here)(distinct)
    parent = np.arange(len(distinct), dtype=np.int64)
    for part, threshold in ((sketches.long, LONG_JACCARD), (sketches.short, SHORT_JACCARD)):
        join_candidates(
            part, parent, threshold=threshold, same=lambda a, b: near_duplicate(distinct[a], distinct[b])
        )
    return Clusters(exact=exact, near=parent[exact])


def nearest_similarity(train: Sequence[str], others: Sequence[str]) -> NDArray[np.float64]:
    """
    How familiar each text is: TF-IDF cosine of words to the nearest training text.

    Args:
        train: m training texts, at least one.
        others: n texts.

    Returns: shape (n,), in [0, 1]; it depends on the training texts and the text itself only. A word that training
        never saw counts in the text's length, so a text of new words is not familiar through its one known word.
    Raises: MeasureError without training texts.
    Source: Salton and Buckley 1988, term weighting; smoothed inverse document frequency as in scikit-learn.

    >>> nearest_similarity(["where is my order"], ["Where is my order", "zebra"]).round(3).tolist()
    [1.0, 0.0]
    """
    from scipy import sparse
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.preprocessing import normalize

    if not train:
        raise MeasureError("no training texts to compare with", next_action="give at least one training text")
    if not others:
        return np.zeros(0)
    counter = HashingVectorizer(
        tokenizer=words_of,
        token_pattern=None,
        preprocessor=normalised,
        norm=None,
        alternate_sign=False,
        n_features=2**20,
    )
    known = counter.transform(train)
    seen = np.bincount(known.indices, minlength=known.shape[1])
    rarity = sparse.diags(np.log((1 + len(train)) / (1 + seen)) + 1)
    columns = normalize(known @ rarity).T.tocsr()
    found = np.zeros(len(others))
    step = 256  # rows of the dense-ish product held at one time
    for start in track(range(0, len(others), step), "similarity to training rows", total=-(-len(others) // step)):
        rows = normalize(counter.transform(others[start : start + step]) @ rarity)
        found[start : start + rows.shape[0]] = (rows @ columns).max(axis=1).toarray().ravel()
    return np.asarray(np.clip(found, 0.0, 1.0))


@dataclass(frozen=True, kw_only=True, slots=True)
class NoveltyBins:
    """Rows by how familiar they are."""

    names: tuple[str, ...]
    """Least familiar first, for example "0.3-0.4"."""
    index: NDArray[np.int64]
    """Shape (n,): position in `names`; -1 where the similarity is not known (NaN)."""


def novelty_bins(similarity: NDArray[np.float64]) -> NoveltyBins:
    """
    The bin of each row on the novelty axis, least familiar first.

    Args:
        similarity: shape (n,), in [0, 1] or NaN, from `nearest_similarity`.

    Returns: bin names and shape (n,) positions.
    Raises: MeasureError for a similarity outside [0, 1].
    Source: the house's own bins: on CLINC150 accuracy rose from .73 in 0.3-0.4 to .99 above 0.8.

    >>> bins = novelty_bins(np.array([0.35, 0.99]))
    >>> [bins.names[i] for i in bins.index]
    ['0.3-0.4', '0.8-1.0']
    """
    values = np.asarray(similarity, dtype=float)
    known = ~np.isnan(values)
    if ((values[known] < 0) | (values[known] > 1)).any():
        raise MeasureError("a similarity lies outside [0, 1]", next_action="take it from nearest_similarity")
    names = tuple(f"{low:.1f}-{high:.1f}" for low, high in zip(NOVELTY_EDGES, (*NOVELTY_EDGES[1:], 1.0), strict=True))
    index = np.full(values.shape, -1, dtype=np.int64)
    index[known] = np.searchsorted(NOVELTY_EDGES, values[known], side="right") - 1
    return NoveltyBins(names=names, index=index)


@dataclass(frozen=True, kw_only=True, slots=True)
class CoverageGap:
    """Live rows that are like each other and unlike all of training."""

    rows: tuple[int, ...]
    """Their positions among the live rows, rising."""
    share: float
    """Their share of live traffic, in (0, 1]."""
    examples: tuple[int, ...]
    """Up to five of them: the middle one, then those nearest to it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Coverage:
    """What of the live traffic training doesn't cover."""

    radius: float
    """Distance beyond which a live row lies in a gap, in [0, 2]."""
    far_share: float
    """Share of live traffic beyond it, in [0, 1]; about .05 where live rows are like training rows."""
    gaps: tuple[CoverageGap, ...]
    """By falling share of traffic: the next rows to ask the teacher about."""


def coverage_gaps(train: ArrayLike, live: ArrayLike, *, traffic: ArrayLike | None = None) -> Coverage:
    """
    Groups of live rows that lie farther from training than training rows lie from each other.

    Args:
        train: shape (m, d), embeddings of training rows, m at least 2.
        live: shape (n, d), embeddings of live rows.
        traffic: shape (n,), how often each live row stands for a request, >= 0, not all 0; equal where not given.

    Returns: the gaps, ranked by traffic, with examples. Vectors count by direction only.
    Raises: MeasureError for shapes that don't fit, fewer than two training rows, no live row, NaN, infinity, or
        weights that are negative or all 0.
    Source: ours; greedy grouping about the row with most neighbours as in Butina 1999, Journal of Chemical
        Information and Computer Sciences 39. Time and memory grow with the number of far rows squared and linearly.

    >>> train = [[1.0, i / 100] for i in range(20)]
    >>> found = coverage_gaps(train, [[1.0, 0.1], [0.0, 1.0], [0.001, 1.0], [-1.0, 0.0]])
    >>> [(gap.rows, gap.share) for gap in found.gaps]
    [((1, 2), 0.5), ((3,), 0.25)]
    """
    known, asked = unit_rows(train), unit_rows(live)
    weight = np.ones(len(asked)) if traffic is None else np.asarray(traffic, dtype=np.float64)
    if len(known) < 2 or known.shape[1] != asked.shape[1] or weight.shape != (len(asked),):
        raise MeasureError(
            f"coverage compares rows of one encoder, got {known.shape!r}, {asked.shape!r}, weights {weight.shape!r}",
            next_action="pass two training rows or more and one weight for each live row",
        )
    total = float(weight.sum())
    if not (bool(np.all(weight >= 0.0)) and 0.0 < total < np.inf):
        raise MeasureError("traffic weights are at least 0 and not all 0", next_action="count requests for each row")
    weight = weight / total
    radius = float(np.quantile(nearest_distance(known, known, itself=True), GAP_QUANTILE))
    far = np.flatnonzero(nearest_distance(known, asked) > radius)
    gaps = [_gap(far[members], asked, weight) for members in _neighbourhoods(asked[far], radius)]
    gaps.sort(key=lambda gap: (-gap.share, gap.rows))
    return Coverage(radius=radius, far_share=float(weight[far].sum()), gaps=tuple(gaps))


def _gap(rows: NDArray[np.int64], points: NDArray[np.float64], weight: NDArray[np.float64]) -> CoverageGap:
    """A gap from its rows, the middle one first."""
    near = rows[np.argsort(-(points[rows] @ points[rows[0]]), kind="stable")]
    first = [int(rows[0]), *(int(row) for row in near if row != rows[0])]
    return CoverageGap(
        rows=tuple(sorted(first)), share=float(weight[rows].sum()), examples=tuple(first[:GAP_EXAMPLES])
    )


def _neighbourhoods(points: NDArray[np.float64], radius: float) -> Iterator[NDArray[np.int64]]:
    """Groups of points within a radius of their middle one, which comes first; the densest neighbourhood first."""
    step = max(1, BLOCK // max(1, len(points)))
    least = 1.0 - radius * radius / 2.0 - 1e-12  # for rows of length 1: this product or more is within the radius
    crowd = np.empty(len(points), dtype=np.int64)
    for start in track(range(0, len(points), step), "neighbours of far rows", total=-(-len(points) // step)):
        crowd[start : start + step] = (points[start : start + step] @ points.T >= least).sum(axis=1)
    free = np.ones(len(points), dtype=bool)
    for middle in np.lexsort((np.arange(len(points)), -crowd)):
        if free[middle]:
            rest = np.flatnonzero(free)
            near = rest[points[rest] @ points[middle] >= least]
            free[near] = False
            free[middle] = False
            yield np.concatenate([[middle], near[near != middle]]).astype(np.int64)
