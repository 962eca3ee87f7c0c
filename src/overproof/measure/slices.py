"""Which rows belong to which slice, how two mixes of traffic compare, and seeded draws by hash."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from overproof.data import Request, SliceMatch
from overproof.errors import DataError, MeasureError
from overproof.task import Slice, normal_label

Functions = Mapping[str, Callable[[Request], bool]]
NO_FUNCTIONS: Functions = {}
OTHER = "other"
MISSING = "(none)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Partition:
    """Every row in exactly one certification slice."""

    names: tuple[str, ...]
    """Slice names in file order, then "other"."""
    index: NDArray[np.int64]
    """Shape (n,): position in `names` of each row's slice."""


def assign(
    slices: Sequence[Slice],
    requests: Sequence[Request],
    labels: Sequence[str] | None = None,
    *,
    functions: Functions = NO_FUNCTIONS,
) -> NDArray[np.bool_]:
    """
    Which rows are in which slice; slices may overlap.

    Args:
        slices: s slices.
        requests: n requests.
        labels: shape (n,), what the attribute `label` means; needed iff a slice reads it.
        functions: the "module:function" of each slice that names one, already resolved.

    Returns: shape (n, s), bool.
    Raises: MeasureError where a slice reads labels that are not given, or a function is not given; DataError where
        a user's function fails.
    Source: the house's own definition of a slice, see `overproof.task.Slice`.

    >>> vip = Slice(name="vip", where=(("tier", ("plus", "business")),))
    >>> rows = [Request(id="a", fields={}, attributes={"tier": "plus"}), Request(id="b", fields={})]
    >>> assign([vip], rows).tolist()
    [[True], [False]]
    """
    if labels is not None and len(labels) != len(requests):
        raise MeasureError(
            f"{len(labels)} labels for {len(requests)} requests", next_action="give one label per request, in order"
        )
    found = np.zeros((len(requests), len(slices)), dtype=bool)
    for column, one in enumerate(slices):
        test = _test_of(one, functions)
        admitted = _admitted_labels(one)
        if admitted is not None and labels is None:
            raise MeasureError(
                f"slice {one.name!r} reads the label, but no labels are given",
                next_action="give the labels, or cut the slice by an attribute of the request",
            )
        for row, request in enumerate(requests):
            if test(request):
                found[row, column] = admitted is None or (labels is not None and normal_label(labels[row]) in admitted)
    return found


def _admitted_labels(one: Slice) -> set[str] | None:
    wanted = [set(map(normal_label, values)) for key, values in one.where if key == "label"]
    return set.intersection(*wanted) if wanted else None


def _test_of(one: Slice, functions: Functions) -> Callable[[Request], bool]:
    where = [(key, frozenset(values)) for key, values in one.where if key != "label"]
    if one.function is not None and one.function not in functions:
        raise MeasureError(
            f"slice {one.name!r}: function {one.function!r} is not given",
            next_action="resolve it with overproof.registry.resolve and pass it in `functions`",
        )
    extra = functions[one.function] if one.function is not None else None

    def test(request: Request) -> bool:
        if not all(request.attributes.get(key) in values for key, values in where):
            return False
        if extra is None:
            return True
        try:
            return bool(extra(request))
        except Exception as error:
            raise DataError(
                f"slice {one.name!r}: {one.function} failed on request {request.id!r}: {error!r}",
                next_action=f"mend {one.function}; it must return True or False for every request",
            ) from error

    return test


def partition(
    slices: Sequence[Slice], requests: Sequence[Request], *, functions: Functions = NO_FUNCTIONS
) -> Partition:
    """
    Put every row into the first slice that admits it, in file order; the rest is "other".

    Args:
        slices: slices of the project; those that read the label are passed over, nothing can be routed by them.
        requests: n requests.
        functions: as in `assign`.

    Returns: names and shape (n,) positions.
    Raises: MeasureError for two slices of one name, or one called "other"; as `assign` otherwise.
    Source: one request must have one threshold, so certification slices are disjoint and known before any label.

    >>> plus = Slice(name="plus", where=(("tier", ("plus",)),))
    >>> rows = [Request(id="a", fields={}, attributes={"tier": "plus"}), Request(id="b", fields={})]
    >>> found = partition([plus], rows)
    >>> [found.names[i] for i in found.index]
    ['plus', 'other']
    """
    routable = [one for one in slices if not one.reads_label]
    names = (*(one.name for one in routable), OTHER)
    repeated = [name for name, times in Counter(names).items() if times > 1]
    if repeated:
        raise MeasureError(
            f"slice name {repeated[0]!r} is used twice ({OTHER!r} is taken: it holds what no slice admits)",
            next_action="rename one of the [[slice]] tables",
        )
    member = assign(routable, requests, functions=functions)
    rest = np.ones((len(requests), 1), dtype=bool)
    return Partition(names=names, index=np.hstack([member, rest]).argmax(axis=1))


def total_variation(left: NDArray[Any], right: NDArray[Any]) -> float:
    """
    How far two mixes are apart: the share of rows that would have to change segment.

    Args:
        left: shape (k,), non-negative weights or counts per segment; scaled to sum 1 here.
        right: shape (k,), the same segments.

    Returns: a fraction in [0, 1]; 0 means the same mix.
    Raises: MeasureError for different shapes, negative or non-finite weights, or a side that sums to 0.
    Source: Levin, Peres and Wilmer, Markov Chains and Mixing Times, section 4.1, equation 4.5.

    >>> round(total_variation(np.array([1, 1]), np.array([3, 1])), 2)
    0.25
    """
    p, q = np.asarray(left, dtype=float), np.asarray(right, dtype=float)
    sound = p.shape == q.shape and p.ndim == 1 and all(np.isfinite(v).all() and (v >= 0).all() for v in (p, q))
    if not sound or p.sum() <= 0 or q.sum() <= 0:
        raise MeasureError(
            f"total variation needs two non-negative vectors of one length, got {p.shape} and {q.shape}",
            next_action="give the same segments on both sides, at least one row each",
        )
    return float(min(1.0, 0.5 * np.abs(p / p.sum() - q / q.sum()).sum()))


def segments(requests: Sequence[Request], attributes: Sequence[str]) -> list[tuple[str, ...]]:
    """
    The joint attribute values of each row.

    Args:
        requests: n requests.
        attributes: names; an attribute that a row lacks counts as the value "(none)".

    Returns: n tuples, values in the order of `attributes`.
    Raises: nothing.
    Source: the house's own definition.

    >>> segments([Request(id="a", fields={}, attributes={"tier": "plus"})], ["tier", "language"])
    [('plus', '(none)')]
    """
    return [tuple(one.attributes.get(name, MISSING) for name in attributes) for one in requests]


def share_table(
    live: Sequence[Request], chosen: Sequence[Request], weights: Sequence[float], attributes: Sequence[str]
) -> tuple[SliceMatch, ...]:
    """
    Per attribute value, its share of the live traffic against its weighted share of a chosen set.

    Args:
        live: the live requests, at least one.
        chosen: the chosen requests.
        weights: shape (len(chosen),), non-negative.
        attributes: names, in the order wanted.

    Returns: one row per attribute and value, largest live share first.
    Raises: MeasureError for an empty side or a wrong number of weights.
    Source: the house's own definition.

    >>> row = Request(id="a", fields={}, attributes={"tier": "plus"})
    >>> [(m.value, m.live_share, m.set_share) for m in share_table([row], [row], [2.0], ["tier"])]
    [('plus', 1.0, 1.0)]
    """
    if not live or not chosen or len(weights) != len(chosen) or sum(weights) <= 0:
        raise MeasureError(
            f"shares need rows on both sides and one weight per row: {len(live)} live, {len(chosen)} chosen, "
            f"{len(weights)} weights",
            next_action="give at least one row on each side",
        )
    rows: list[SliceMatch] = []
    for name in attributes:
        n_live = Counter(one.attributes.get(name, MISSING) for one in live)
        n_set = Counter(one.attributes.get(name, MISSING) for one in chosen)
        mass: Counter[str] = Counter()
        for one, weight in zip(chosen, weights, strict=True):
            mass[one.attributes.get(name, MISSING)] += weight  # type: ignore[assignment]  # Counter adds floats too
        rows += [
            SliceMatch(
                attribute=name,
                value=value,
                live_share=n_live[value] / len(live),
                set_share=mass[value] / sum(weights),
                n_live=n_live[value],
                n_set=n_set[value],
            )
            for value in sorted(n_live | n_set, key=lambda value: (-n_live[value], value))
        ]
    return tuple(rows)


def hash_unit(key: str, salt: str) -> float:
    """
    A number in [0, 1) that depends on the key and the salt only.

    Args:
        key: for example a request id.
        salt: seed of this draw; two draws with different salts are independent.

    Returns: a fraction in [0, 1).
    Raises: nothing.
    Source: the first 53 bits of SHA-256, read as a binary fraction.

    >>> hash_unit("a", "s") == hash_unit("a", "s") != hash_unit("a", "t")
    True
    """
    data = f"{len(salt)}:{salt}{key}".encode("utf-8", "surrogatepass")
    return (int.from_bytes(hashlib.sha256(data).digest()[:8], "big") >> 11) / 2**53


def split_hash(ids: Sequence[str], salt: str, share: float) -> NDArray[np.bool_]:
    """
    A seeded split that no order of rows and no other row can change.

    Args:
        ids: n request ids.
        salt: seed of the split.
        share: chance of each row to be True, in [0, 1].

    Returns: shape (n,), bool; the share is met in expectation, each row on its own.
    Raises: MeasureError for a share outside [0, 1].
    Source: the house's own draw, see `hash_unit`.

    >>> split_hash(["a", "b"], "salt", 1.0).tolist()
    [True, True]
    """
    if not 0 <= share <= 1:
        raise MeasureError(f"share {share!r} is outside [0, 1]", next_action="give a fraction")
    return np.fromiter((hash_unit(one, salt) < share for one in ids), dtype=bool, count=len(ids))


def one_per_session(sessions: Sequence[str | None], ids: Sequence[str], salt: str) -> NDArray[np.bool_]:
    """
    Draw one row of each session, because rows of one session are not independent.

    Args:
        sessions: n session keys; None means that the row stands alone.
        ids: n request ids, unique.
        salt: seed of the draw.

    Returns: shape (n,), bool: True for the drawn rows and for all rows without a session.
    Raises: MeasureError for different lengths.
    Source: statistics of cluster sampling: one draw per cluster makes the exact binomial bound hold.

    >>> int(one_per_session(["s", "s", None], ["a", "b", "c"], "0").sum())
    2
    """
    if len(sessions) != len(ids):
        raise MeasureError(f"{len(sessions)} sessions for {len(ids)} ids", next_action="give one session per id")
    best: dict[str, tuple[float, str, int]] = {}
    for row, (session, one) in enumerate(zip(sessions, ids, strict=True)):
        if session is not None:
            key = (hash_unit(one, salt), one, row)
            best[session] = min(best.get(session, key), key)
    drawn = {row for _, _, row in best.values()}
    return np.fromiter(
        (session is None or row in drawn for row, session in enumerate(sessions)), dtype=bool, count=len(ids)
    )
