"""Which training texts are made alike: what is held out to judge a round must not be a copy of what is learned."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

ALIKE = 0.5  # Jaccard similarity of the words that texts share with others
COMMON = 0.01  # a word in fewer texts than this says nothing about how a text is made
_WORD = re.compile(r"[^\W\d_]{2,}")


def groups_of(texts: Sequence[str]) -> list[int]:
    """
    Put texts that use the same words, names and numbers apart, into one group.

    Args:
        texts: any number.

    Returns: a group number each; a text joins the first group whose first text it is like.
    """
    words = [{word.casefold() for word in _WORD.findall(text)} for text in texts]
    count = Counter(word for one in words for word in one)
    least = max(2.0, COMMON * len(texts))
    frames = [frozenset(word for word in one if count[word] >= least) for one in words]
    leaders: list[frozenset[str]] = []
    found = []
    for frame in frames:
        shared = (at for at, leader in enumerate(leaders) if len(frame & leader) >= ALIKE * len(frame | leader))
        place = next(shared, len(leaders))
        if place == len(leaders):
            leaders.append(frame)
        found.append(place)
    return found


def held_out(texts: Sequence[str], *, share: float, seed: int) -> list[int]:
    """
    Rows to judge by, whole groups of them.

    Args:
        texts: the training texts.
        share: of the rows, at most.
        seed: of the choice.

    Returns: places of the rows, in order; empty where no group is small enough, or for fewer than 40 texts.
    """
    if share <= 0 or len(texts) < 40:
        return []
    groups = np.array(groups_of(texts))
    sizes = Counter(groups.tolist())
    order = np.random.default_rng(seed).permutation(sorted(sizes))
    out: set[int] = set()
    taken = 0
    for group in order.tolist():
        if taken + sizes[group] <= share * len(texts):
            out.add(group)
            taken += sizes[group]
    return np.flatnonzero(np.isin(groups, sorted(out))).tolist()
