"""Requests that share prompt, opening and answer shape: told apart by what they are about, where that is clear."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from overproof.evidence import Figure
from overproof.measure.intervals import figure
from overproof.measure.leakage import normalised

SAMPLE = 3_000
"""Different requests that the clusters are found on; the others go to the nearest centre."""
LEAST_TEXTS = 120
MOST_CLUSTERS = 6
TOPICS = 48
PIECE = 10_000
"""Requests whose words are held at a time."""
LEAST_ROWS = 30
JOINS = 0.05
"""Two clusters whose answers overlap by more than this are one task: its topics, its languages."""
LEAST_SAME = 0.95
"""Adjusted Rand index of the divisions that either half of the sample gives: below it a division is chance."""
MOST_SHARED = 0.02
"""Share of answers that belong to another part, at the upper end of its interval."""
MOST_COMMON = 0.95
"""A part with one answer more frequent than this is a label, not a task."""
SEED = 20_240_501
_WORD = re.compile(r"[^\W\d]+")
_NUMBERS = re.compile(r"\d+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """How a group of requests falls apart, or that it doesn't."""

    index: NDArray[np.int64]
    """Shape (n,): the part of each request; all 0 where the group stays one."""
    count: int
    """Parts; 1 where the group stays one."""
    shared: Figure | None
    """Share of answers that belong to another part, for the division that was taken."""
    why: str
    """What was found, for the report."""


def split_by_content(texts: Sequence[str], answers: Sequence[str]) -> Parts:
    """
    Divide requests into tasks by their words; the answers must agree.

    Topics are not tasks: a router's queues are topics, and so are the languages of its users. Clusters of words whose
    answers overlap are joined again. What then stands apart counts as tasks only where each gives several answers that
    the others don't give, and either half of the rows divides all rows in the same way.

    Args:
        texts: n requests.
        answers: n answers, folded; empty where a row has none.

    Returns: the parts of the division with the most parts; of several, the one from the fewest clusters.
    Raises: nothing.
    Source: ours; k-means (Lloyd 1982) on latent semantic dimensions (Deerwester et al. 1990), agreement of two
        divisions by Hubert and Arabie 1985.

    >>> split_by_content(["where is my order"], ["delivery"]).count
    1
    """
    folded = [normalised(text) for text in texts]
    distinct = sorted({_NUMBERS.sub("", text): text for text in folded}.values())  # a number is no content
    if len(distinct) < LEAST_TEXTS:
        return _one(texts, f"{len(distinct)} requests that differ in words are too few to look for tasks by content ({LEAST_TEXTS})")
    sample = distinct[:: math.ceil(len(distinct) / SAMPLE)]
    given = Counter(a for a in answers if a)
    if given and len(given) > len(distinct) / 2:  # nothing repeats, and words alone also tell languages apart
        return _one(texts, "answers don't repeat, so that nothing could confirm a division by content")
    space = _Space(sample)
    points, rows = space.points(sample), space.points(folded)
    best: Parts | None = None
    for k in range(2, MOST_CLUSTERS + 1):
        found = _divided(points, rows, answers, k)
        if found is not None and (best is None or found.count > best.count):
            best = found
    return best or _one(texts, f"no clear division by content ({len(sample)} different requests, up to {MOST_CLUSTERS} clusters)")


def _one(texts: Sequence[str], why: str) -> Parts:
    return Parts(index=np.zeros(len(texts), dtype=np.int64), count=1, shared=None, why=why)


class _Space:
    """Hashed words and word pairs without numbers, weighted by rarity, in a few dimensions."""

    def __init__(self, texts: Sequence[str]) -> None:
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

        self._hash = HashingVectorizer(
            tokenizer=_WORD.findall, token_pattern=None, ngram_range=(1, 2), n_features=2**15, alternate_sign=False, norm=None
        )
        counts = self._hash.transform(texts)
        self._rarity = TfidfTransformer(sublinear_tf=True).fit(counts)
        self._down = TruncatedSVD(TOPICS, n_iter=3, random_state=SEED).fit(self._rarity.transform(counts))

    def points(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Shape (n, topics), each of length 1; in pieces, since a row's words take ten times the memory of its point."""
        found = np.empty((len(texts), TOPICS), dtype=np.float32)
        for at in range(0, len(texts), PIECE):
            some = self._down.transform(self._rarity.transform(self._hash.transform(texts[at : at + PIECE])))
            found[at : at + PIECE] = some / np.maximum(np.linalg.norm(some, axis=1, keepdims=True), 1e-12)
        return found


def _divided(points: NDArray[np.float32], rows: NDArray[np.float32], answers: Sequence[str], k: int) -> Parts | None:
    """The division from k clusters, where it stands: of the whole sample, and of either half."""
    index = _joined(_clusters(points, rows, k), answers)
    count = int(index.max()) + 1
    if count < 2 or not all(_is_task(index == part, answers) for part in range(count)):
        return None
    shared = _shared(index, answers)
    if shared.high > MOST_SHARED:
        return None
    from sklearn.metrics import adjusted_rand_score

    one, two = (_joined(_clusters(points[start::2], rows, k), answers) for start in (0, 1))
    same = min(float(adjusted_rand_score(index, other)) for other in (one, two))
    if same < LEAST_SAME:
        return None
    why = (
        f"told apart by content: {shared.value or 0.0:.1%} of the answers belong to another part (n = {shared.n}, "
        f"{shared.level:.0%} {shared.low:.1%} to {shared.high:.1%}), halves of the sample agree to {same:.2f}"
    )
    return Parts(index=index, count=count, shared=shared, why=why)


def _clusters(points: NDArray[np.float32], rows: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    from sklearn.cluster import KMeans

    centres = np.asarray(KMeans(k, n_init=2, random_state=SEED).fit(points).cluster_centers_)
    return np.asarray(((centres**2).sum(axis=1) - 2 * (rows @ centres.T)).argmin(axis=1), dtype=np.int64)


def _joined(index: NDArray[np.int64], answers: Sequence[str]) -> NDArray[np.int64]:
    """Clusters whose answers overlap are one part; parts are numbered by their first row."""
    counts: dict[int, Counter[str]] = {int(c): Counter() for c in np.unique(index)}
    for cluster, answer in zip(index.tolist(), answers, strict=True):
        if answer:
            counts[cluster][answer] += 1
    part = {c: c for c in counts}
    for (one, left), (two, right) in combinations(sorted(counts.items()), 2):
        least = min(left.total(), right.total())
        if (left & right).total() > JOINS * least or least == 0:
            old, new = part[two], part[one]
            part = {c: new if p == old else p for c, p in part.items()}
    names: dict[int, int] = {}
    return np.array([names.setdefault(part[c], len(names)) for c in index.tolist()], dtype=np.int64)


def _is_task(inside: NDArray[np.bool_], answers: Sequence[str]) -> bool:
    counts = Counter(answers[i] for i in np.flatnonzero(inside).tolist() if answers[i])
    return counts.total() >= LEAST_ROWS and counts.most_common(1)[0][1] <= MOST_COMMON * counts.total()


def _shared(index: NDArray[np.int64], answers: Sequence[str]) -> Figure:
    """Answers that another part gives more often."""
    counts = Counter((a, p) for a, p in zip(answers, index.tolist(), strict=True) if a)
    most: Counter[str] = Counter()
    for (answer, _), n in counts.items():
        most[answer] = max(most[answer], n)
    n = counts.total()
    return figure(n - most.total(), n, metric="shared")
