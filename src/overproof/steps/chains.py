"""Rows that belong together: chains of sessions and repeated requests, and groups too large to be split around."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from overproof.measure.minhash import flattened, root_of

GIANT_SHARE = 0.02
"""A chain that holds more of the traffic than this says nothing about its ends: "thanks" joins every session."""
LEAST_GIANT = 20
SHOWN = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Linked:
    """Connected components over sessions and near-duplicate groups."""

    group: NDArray[np.int64]
    """Shape (n,): rows of one number are kept in one split. In a giant chain each row stands alone, and near-duplicate
    groups and sessions are kept apart by themselves."""
    giants: tuple[int, ...]
    """Sizes of the chains that were too long, largest first."""


def linked(near: NDArray[np.int64], sessions: Sequence[str | None]) -> Linked:
    """
    Join rows that share a session or a near-duplicate group, transitively.

    Args:
        near: shape (n,), near-duplicate group of each row.
        sessions: n session keys; None stands alone.

    Returns: the components, with giant ones taken apart again and reported.
    """
    n = len(near)
    parent = np.arange(n, dtype=np.int64)
    first: dict[str, int] = {}
    _, place = np.unique(near, return_inverse=True)
    head = np.full(int(place.max(initial=-1)) + 1, n, dtype=np.int64)
    np.minimum.at(head, place, np.arange(n))
    parent[:] = head[place]
    for i, session in enumerate(sessions):
        if session is None:
            continue
        one, two = root_of(parent, i), root_of(parent, first.setdefault(session, i))
        parent[max(one, two)] = min(one, two)
    group = flattened(parent)
    sizes = np.bincount(group, minlength=n)
    both = _joins_several(group, near)
    giant = both & (sizes[group] > max(LEAST_GIANT, GIANT_SHARE * n))
    giants = sorted((int(sizes[g]) for g in np.unique(group[giant])), reverse=True)
    return Linked(group=np.where(giant, n + np.arange(n), group), giants=tuple(giants))


def _joins_several(group: NDArray[np.int64], near: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True for rows of components that hold more than one near-duplicate group."""
    other = near != near[group]  # a component's root is one of its own rows
    mixed = np.zeros(len(group), dtype=bool)
    mixed[group[other]] = True
    return mixed[group]


def giant_notes(near: NDArray[np.int64], joined: Linked, texts: Sequence[str]) -> list[str]:
    """
    What the report's reader should know about groups that are too large.

    Args:
        near: shape (n,), near-duplicate group of each row.
        joined: from `linked`.
        texts: n texts.

    Returns: a sentence for each kind of giant.
    """
    n, notes = len(near), []
    if joined.giants:
        notes.append(
            f"{len(joined.giants)} chains of sessions and repeated requests hold more than {GIANT_SHARE:.0%} of the rows "
            f"(largest: {joined.giants[0]:,} of {n:,}): within them sessions and near-duplicates are kept apart each "
            "by itself, not along the chain."
        )
    groups, first, sizes = np.unique(near, return_index=True, return_counts=True)
    if len(groups) and n > LEAST_GIANT and sizes.max() > max(LEAST_GIANT, 5 * GIANT_SHARE * n):
        worst = int(sizes.argmax())
        notes.append(
            f"One near-duplicate group holds {int(sizes[worst]):,} of {n:,} rows ({texts[int(first[worst])][:SHOWN]!r} …): "
            "it can only be in one split. If that is a template, import its variable part alone."
        )
    return notes
