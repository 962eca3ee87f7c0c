"""More rows of rare critical slices: for the test set beside the fair draw, for training with weights that undo it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from overproof.data import Request, TestSet
from overproof.measure.slices import assign, hash_unit
from overproof.task import Slice

MOST_OF_TRAINING = 0.25
"""Most rows beyond their share, over all critical slices, as a part of the rows of the split."""


def membership(critical: Sequence[Slice], requests: Sequence[Request]) -> dict[str, NDArray[np.bool_]]:
    """
    Which rows are in which critical slice.

    Args:
        critical: slices that read attributes alone.
        requests: n requests.

    Returns: name to shape (n,), bool.
    """
    if not critical:
        return {}
    found = assign(critical, requests)
    return {one.name: np.ascontiguousarray(found[:, k]) for k, one in enumerate(critical)}


def boosted(
    pool: Sequence[int],
    taken: Sequence[int],
    inside: Mapping[str, NDArray[np.bool_]],
    floors: Mapping[str, int],
    *,
    identity: Callable[[int], str],
    salt: str,
    most: int,
) -> dict[int, tuple[str, ...]]:
    """
    Extra test rows for critical slices below their floor: a uniform draw among the slice's rows that were not taken.

    Args:
        pool: rows that may be test rows.
        taken: the fair draw.
        inside: critical slice to its rows.
        floors: slice to the rows wanted.
        identity: row to its request's id.
        salt: seed.
        most: extra rows over all slices.

    Returns: row to the slices that it was drawn for. Given one of them, base and extra rows together are a uniform
        draw of it, since what is left after a uniform draw is uniform; elsewhere they would be none. Each slice draws
        from all of its rows, so that no other slice's draw bends it.
    """
    found: dict[int, tuple[str, ...]] = {}
    base = set(taken)
    for name, rows in inside.items():
        have = sum(bool(rows[i]) for i in base)
        left = [i for i in pool if rows[i] and i not in base]
        wanted = min(max(0, floors.get(name, 0) - have), most - len(found))
        order = {i: hash_unit(identity(i), f"{salt}:{name}") for i in left}
        for i in sorted(left, key=lambda i: (order[i], i))[:wanted]:
            found[i] = (*found.get(i, ()), name)
    return found


def enlarged(
    pool: Sequence[int],
    taken: Sequence[int],
    inside: Mapping[str, NDArray[np.bool_]],
    floors: Mapping[str, int],
    *,
    identity: Callable[[int], str],
    salt: str,
) -> list[int]:
    """
    A training draw of the same size in which rare critical slices have up to their floor of rows.

    Args:
        pool: rows that may be drawn.
        taken: the matched draw.
        inside: critical slice to its rows.
        floors: slice to the rows wanted.
        identity: row to its request's id.
        salt: seed.

    Returns: the draw; rows of no critical slice make room, at most a quarter of them all.
    """
    base = set(taken)
    room = int(MOST_OF_TRAINING * len(taken))
    more: list[int] = []
    for name, rows in inside.items():
        have = sum(bool(rows[i]) for i in (*base, *more))
        left = [i for i in pool if rows[i] and i not in base and i not in more]
        wanted = min(max(0, floors.get(name, 0) - have), room - len(more))
        more += sorted(left, key=lambda i: (hash_unit(identity(i), f"{salt}:{name}"), i))[:wanted]
    if not more:
        return list(taken)
    common = [i for i in taken if not any(rows[i] for rows in inside.values())]
    leave = set(sorted(common, key=lambda i: (hash_unit(identity(i), f"{salt}:room"), i))[: len(more)])
    return sorted((base - leave) | set(more[: len(leave)]))


def drawn_for(rows: TestSet, name: str) -> NDArray[np.bool_]:
    """
    The sealed rows that are a fair draw of a slice.

    Args:
        rows: sealed rows.
        name: a slice; empty for all traffic.

    Returns: shape (n,): the fair draw of the traffic, and what was drawn for this slice beyond it.
    """
    return np.array([not e.boost or name in e.boost for e in rows.examples], dtype=bool)
