"""Places where live rows lie denser than reference rows do, and texts as vectors that need no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy  # its submodules load on first use
from numpy.typing import NDArray

from overproof.errors import MeasureError
from overproof.measure.leakage import normalised

_BLOCK = 1024
_HASHED = 2**14
WIDTH = 256
GRAMS = 2**18
"""Places of hashed n-grams; a long reference of 100,000 different ones fills a third of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NewCluster:
    """Live rows near each other where the reference has too few."""

    rows: tuple[int, ...]
    """Live rows within the radius of the first one, nearest first."""
    k_reference: int
    """Reference rows within it."""
    p_value: float
    """Adjusted for all places that were tried."""


def gram_vectors(texts: Sequence[str], *, seed: int = 0) -> NDArray[np.float32]:
    """
    Texts as directions by their words and the pieces of their words.

    Args:
        texts: as they came.
        seed: of the projection.

    Returns: shape (n, 256), length 1, or 0 for an empty text.
    Raises: nothing.
    Source: Weinberger et al. 2009 (hashing), Johnson and Lindenstrauss 1984 (projection).

    >>> a, b, c = gram_vectors(["der akku wird heiß", "der akku glüht", "where is my parcel"])
    >>> bool(a @ b > a @ c)
    True
    """
    from sklearn.feature_extraction.text import HashingVectorizer

    words = [normalised(text) for text in texts]
    if not words:
        return np.zeros((0, WIDTH), dtype=np.float32)
    spread = _spread(seed)
    found = np.zeros((len(words), WIDTH), dtype=np.float32)
    for analyzer, span in (("word", (1, 1)), ("char_wb", (4, 4))):
        hashing = HashingVectorizer(analyzer=analyzer, ngram_range=span, n_features=_HASHED, norm="l2", alternate_sign=False, dtype=np.float32)
        for start in range(0, len(words), _BLOCK):
            found[start : start + _BLOCK] += np.asarray(hashing.transform(words[start : start + _BLOCK]) @ spread)
    length = np.linalg.norm(found, axis=1, keepdims=True)
    return np.asarray(found / np.where(length > 0, length, 1.0), dtype=np.float32)


@lru_cache(maxsize=1)
def _spread(seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((_HASHED, WIDTH)).astype(np.float32)


def gram_places(texts: Sequence[str]) -> list[NDArray[np.int64]]:
    """
    The hashed places of each text's n-grams: pieces of five characters within words.

    Args:
        texts: as they came.

    Returns: different places in [0, `GRAMS`), one array a text.
    Raises: nothing.
    Source: as `gram_vectors`.

    >>> len(gram_places(["akku"])[0])
    2
    """
    from sklearn.feature_extraction.text import HashingVectorizer

    if not texts:
        return []
    hashing = HashingVectorizer(analyzer="char_wb", ngram_range=(5, 5), n_features=GRAMS, norm=None, alternate_sign=False, binary=True)
    rows = hashing.transform([normalised(text) for text in texts])
    return [rows.indices[rows.indptr[at] : rows.indptr[at + 1]].astype(np.int64) for at in range(rows.shape[0])]


def usual_distance(vectors: NDArray[np.float32], *, quantile: float = 0.5) -> float:
    """
    How far a usual row is from its nearest neighbour.

    Args:
        vectors: shape (m, d), of length 1; at least two.
        quantile: of the distances.

    Returns: a distance.
    Raises: MeasureError for fewer rows.
    Source: see `measure.drift.far_reference`.

    >>> round(usual_distance(np.array([[1, 0], [0, 1]], dtype=np.float32)), 3)
    1.414
    """
    if len(vectors) < 2:
        raise MeasureError(f"{len(vectors)} rows have no neighbours", next_action="give at least two")
    best = np.empty(len(vectors))
    for start in range(0, len(vectors), _BLOCK):
        cosine = vectors[start : start + _BLOCK] @ vectors.T
        at = np.arange(len(cosine))
        cosine[at, start + at] = -1.0
        best[start : start + len(cosine)] = cosine.max(axis=1)
    return float(np.quantile(np.sqrt(np.maximum(2.0 - 2.0 * best, 0.0)), quantile))


def new_clusters(
    live: NDArray[np.float32], usual: NDArray[np.float32], *, radii: Sequence[float], tolerance: float, level: float, tries: int = 1
) -> tuple[NewCluster, ...]:
    """
    Groups of live rows where they lie denser than `tolerance` times the reference.

    Args:
        live: shape (n, d), of length 1, of independent rows: one of each conversation, no repeated texts.
        usual: shape (m, d), reference rows that nothing was fitted on.
        radii: of a group, one or more that are tried; see `usual_distance`.
        tolerance: factor, at least 1, by which a place may get denser.
        level: chance that any group is named without cause, in (0, 1), over `tries` calls like this one.
        tries: such calls that share the level.

    Returns: disjoint groups, the surest first.
    Raises: MeasureError for widths that differ, or a level, radii or a tolerance outside its range.
    Source: ours: about each live row the other live rows and the reference rows in reach are counted; given their sum,
        live ones are binomial where nothing changed (Przyborowski and Wilenski 1940, Biometrika 31). Bonferroni over
        middles and radii; groups are taken greedily as in Butina 1999.

    >>> rng = np.random.default_rng(0)
    >>> far = np.zeros((12, 8), dtype=np.float32); far[:, 7] = 1.0
    >>> rows = rng.normal(size=(400, 8)).astype(np.float32); rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    >>> [len(found.rows) for found in new_clusters(np.vstack([rows[:100], far]), rows[100:], radii=[0.3], tolerance=1.25, level=0.01)]
    [12]
    """
    if live.ndim != 2 or usual.ndim != 2 or live.shape[1] != usual.shape[1] or not (radii and min(radii) > 0 and tolerance >= 1 and 0 < level < 1 and tries >= 1):
        raise MeasureError(
            f"clusters compare rows of one kind, got {live.shape!r} and {usual.shape!r}, radii {list(radii)!r}, level {level!r}",
            next_action="make both with the same model",
        )
    n, m = len(live), len(usual)
    if n < 3 or m < 1:
        return ()
    q = tolerance * (n - 1) / (tolerance * (n - 1) + m)
    near = [1.0 - radius * radius / 2.0 - 1e-6 for radius in radii]  # for rows of length 1: this product or more
    mine, theirs = np.empty((len(near), n)), np.empty((len(near), n))
    for start in range(0, n, _BLOCK):
        part = live[start : start + _BLOCK]
        own, other = part @ live.T, part @ usual.T
        for at, least in enumerate(near):
            mine[at, start : start + _BLOCK] = (own >= least).sum(axis=1) - 1.0  # the middle itself is there by choice
            theirs[at, start : start + _BLOCK] = (other >= least).sum(axis=1)
    p = np.where(mine > 0, scipy.special.betainc(np.maximum(mine, 1.0), theirs + 1.0, q), 1.0) * n * len(near) * tries
    free, found = np.ones(n, dtype=bool), []
    for place in np.lexsort((np.arange(p.size), -mine.ravel(), p.ravel())):
        at, middle = divmod(int(place), n)
        if p[at, middle] > level:
            break
        product = live @ live[middle]
        inside = np.flatnonzero((product >= near[at]) & free)
        if not free[middle] or 2 * len(inside) < mine[at, middle]:
            continue  # mostly taken by a surer group
        order = inside[np.argsort(-product[inside], kind="stable")]
        rows = [middle, *(int(row) for row in order if row != middle)]
        found.append(NewCluster(rows=tuple(rows), k_reference=int(theirs[at, middle]), p_value=min(1.0, float(p[at, middle]))))
        free[inside] = False
    return tuple(found)
