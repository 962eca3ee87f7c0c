"""From the traffic window to three sets of requests that match it and that share nothing."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from overproof.data import (
    FEEDBACK,
    MixDistance,
    PromptRow,
    PromptSet,
    Request,
    Traffic,
    TrafficRecord,
    digest_of,
    named,
)
from overproof.engines import Engine, cut
from overproof.engines.local import LocalEngine
from overproof.errors import DataError
from overproof.measure.leakage import clusters, nearest_similarity, normalised, sketched_here
from overproof.measure.minhash import SketchPair, joined
from overproof.measure.mixes import Margin, like_groups, points, raked
from overproof.measure.slices import hash_unit, one_per_session, segments, share_table, total_variation
from overproof.steps.boost import MOST_OF_TRAINING, boosted, enlarged, membership
from overproof.steps.capture import instant
from overproof.steps.chains import giant_notes, linked
from overproof.steps.matching import LIKE, View, found_gaps, slice_shares, view_distance
from overproof.store.artifacts import Step
from overproof.task import Slice

K = TypeVar("K")
HERE = LocalEngine()
SPREAD_FROM = 20_000
SHARD = 50_000  # texts at most: their sketches are what this process holds beside those it keeps
"""Rows from which on their sketches are worth a way to the workers: here, that many take two seconds."""
LEAST_ROWS = 50
"""Fewer rows than this can't feed three sets, let alone a verdict."""
SHOWN_VALUES = 12
"""An attribute of more values is not a segment to show unasked."""
WEIGHT_FACTOR = 4.0
"""Most that a training row's weight is raised or lowered to match the live shares; more would let a few rows rule."""
SPLITS = ("train", "calibration", "test")
LENGTH = "text length"
LENGTH_EDGES = (0.2, 0.4, 0.6, 0.8)  # fifths: fine enough to see a shift, each with many rows


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptSetRecipe:
    """How rows are chosen and split."""

    requests: int | None = None
    """The most rows over all splits; None takes all."""
    seed: int = 0
    """Seed of every draw."""
    test_share: float = 0.2
    """Share of the rows that is sealed, in (0, 1)."""
    calibration_share: float = 0.2
    """Share of the rows for temperature, choice and plan, in (0, 1); with a declared split that names no calibration
    rows, the share of its training rows."""
    split: str = "time"
    """"time": the newest rows are test, those before calibration, the others train. "attribute:NAME": the rows say it
    themselves, as train, calibration or test."""
    match: tuple[str, ...] = ()
    """Attributes whose joint shares are to match the live traffic."""
    near_duplicates: bool = True
    """Find near-duplicates, not only equal texts."""
    clusters: int = 20
    """Groups of like messages whose shares are to match the live traffic as well; 0: none."""
    critical: tuple[Slice, ...] = ()
    """Slices that must not lack rows: drawn beyond their share where they are rare. Weights undo it in training;
    in the test set the extra rows count in their slice alone."""
    floors: Mapping[str, int] = field(default_factory=dict)
    """Name of a critical slice to the test rows that its bars take."""
    on_leak: Literal["drop", "flag", "refuse"] = "drop"
    """A training row that is the same request as a calibration or test row: is left out, stays and counts as a leak,
    or stops the run. Calibration rows against test rows likewise."""


@dataclass(kw_only=True, slots=True)
class _Board:
    """The rows of the window and what has become of each so far."""

    rows: Sequence[TrafficRecord]
    recipe: PromptSetRecipe
    exact: Sequence[int]
    near: Sequence[int]
    segment: Sequence[tuple[str, ...]]
    """Joint values of the `match` attributes."""
    like: NDArray[np.int64]
    """Group of like messages of each row."""
    inside: Mapping[str, NDArray[np.bool_]]
    """Critical slice to its rows."""
    linked: NDArray[np.int64]
    """Rows of one number are joined by chains of sessions and repeated requests."""
    fate: list[str]
    """Empty until the row has found its place."""
    plain: list[int] = field(default_factory=list)
    """What a draw without matching would have taken."""
    extra: dict[int, tuple[str, ...]] = field(default_factory=dict)
    """Boosted test rows and the slice that they were drawn for."""
    notes: list[str] = field(default_factory=list)

    def session(self, i: int) -> str | None:
        return self.rows[i].request.session

    def identity(self, i: int) -> str:
        return self.rows[i].request.id

    def stratum(self, i: int) -> tuple[str, ...]:
        """What has to have its live share: the named attributes and the critical slices, jointly."""
        return (*self.segment[i], *(name for name, rows in self.inside.items() if rows[i]))

    def keep(self, pool: Iterable[int], fate: str, test: Callable[[int], bool]) -> list[int]:
        """The rows of the pool that pass; the others have met their fate."""
        kept = []
        for i in pool:
            if test(i):
                kept.append(i)
            else:
                self.fate[i] = fate
        return kept


def promptset(traffic: Traffic, recipe: PromptSetRecipe, *, engine: Engine = HERE) -> PromptSet:
    """
    Choose and split the requests that a run works on.

    Test rows are drawn first and stay as traffic falls, one per session. What shares a near-duplicate group or a
    session with them leaves the calibration and training rows; what shares one with calibration rows leaves training.
    So the certificate's rows stay a fair draw of the newest traffic, and the price is paid in training rows. Among
    training rows, duplicates become one row whose weight says how many requests it stands for.

    Args:
        traffic: the window, oldest row first.
        recipe: sizes, split, attributes to match, seed.
        engine: where texts are sketched to find near-duplicates.

    Returns: three sets without a common group or session, the funnel in which every row of the window is counted, and
        how far the chosen rows are from the live mix.
    Raises: DataError for an empty or too small window, repeated ids, an unknown split, a split that comes out empty.
    """
    rows = sorted(traffic.records, key=lambda record: instant(record.request.at))
    _check(rows, recipe)
    board = _board(rows, recipe, engine)
    pools = _by_time(board) if recipe.split == "time" else _by_attribute(board)
    sizes = _sizes(pools, recipe.requests)
    test = _sealed(board, "test", pools["test"], sizes["test"], {})
    sizes["train"] = max(1, sizes["train"] - len(board.extra))  # boosted rows are labelled too
    calibration = _sealed(board, "calibration", pools["calibration"], sizes["calibration"], {"test": test})
    train, weights = _train(board, pools["train"], sizes["train"], {"calibration": calibration, "test": test})
    chosen = {"train": train, "calibration": calibration, "test": test}
    for split, found in chosen.items():
        _not_empty(split, found, pools)
        for i in found:
            board.fate[i] = f"in {split}"
    return _assembled(board, chosen, weights)


def sketch_apart(shared: None, texts: Sequence[str]) -> SketchPair:
    """One shard of texts, in a worker."""
    del shared
    return sketched_here(texts)


def _board(rows: Sequence[TrafficRecord], recipe: PromptSetRecipe, engine: Engine) -> _Board:
    def apart(texts: Sequence[str]) -> SketchPair:
        shards = cut(texts, engine.shards, most=SHARD)
        return joined(engine.each(sketch_apart, shards, what="near-duplicates"), [len(one) for one in shards])

    spread = engine.apart and len(rows) >= SPREAD_FROM
    groups = clusters([row.request.text for row in rows], near=recipe.near_duplicates, sketched=apart if spread else None)
    requests = [row.request for row in rows]
    chains = linked(groups.near, [one.session for one in requests])
    board = _Board(
        rows=rows,
        recipe=recipe,
        exact=groups.exact.tolist(),
        near=groups.near.tolist(),
        segment=_shared(segments(requests, recipe.match)),
        like=_like(rows, groups.near, recipe),
        inside=membership(recipe.critical, requests),
        linked=chains.group,
        fate=[""] * len(rows),
    )
    board.notes += giant_notes(groups.near, chains, [one.text for one in requests])
    return board


def _shared(found: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Equal tuples as one object: a million rows have a handful of segments."""
    known: dict[tuple[str, ...], tuple[str, ...]] = {}
    return [known.setdefault(one, one) for one in found]


def _like(rows: Sequence[TrafficRecord], near: NDArray[np.int64], recipe: PromptSetRecipe) -> NDArray[np.int64]:
    """The group of like messages of each row; near-duplicates are in one."""
    k = min(recipe.clusters, len(rows) // LEAST_ROWS)
    if k < 2:
        return np.zeros(len(rows), dtype=np.int64)
    _, first, place = np.unique(near, return_index=True, return_inverse=True)
    vectors = points([normalised(rows[i].request.text) for i in first.tolist()])
    return like_groups(vectors, k, seed=recipe.seed)[place]


def _check(rows: Sequence[TrafficRecord], recipe: PromptSetRecipe) -> None:
    if not rows:
        raise DataError("the traffic window has no rows", next_action="import a log, or widen [traffic] window")
    if len(rows) < LEAST_ROWS:
        raise DataError(
            f"the traffic window has {len(rows)} usable rows, at least {LEAST_ROWS} are needed",
            next_action="collect more traffic, or widen [traffic] window",
        )
    twice, times = Counter(row.request.id for row in rows).most_common(1)[0]
    if times > 1:
        raise DataError(f"request id {twice!r} occurs {times} times", next_action="import the log with unique ids")
    shares = (recipe.test_share, recipe.calibration_share)
    if min(shares) <= 0 or sum(shares) >= 1:
        raise DataError(
            f"test_share {shares[0]} and calibration_share {shares[1]} leave no rows for one of the three sets",
            next_action="give two positive shares that sum to less than 1",
        )


def _by_time(board: _Board) -> dict[str, list[int]]:
    n, timed = len(board.rows), sum(row.request.at is not None for row in board.rows)
    if timed == 0:
        board.notes.append("The log has no times: the splits follow its order, and newer means later in the log.")
    elif timed < n:
        board.notes.append(f"{n - timed} rows without a time count as the oldest.")
    test = max(1, round(n * board.recipe.test_share))
    calibration = max(1, round(n * board.recipe.calibration_share))
    cut = n - test - calibration
    return {
        "train": list(range(cut)),
        "calibration": list(range(cut, n - test)),
        "test": list(range(n - test, n)),
    }


def _by_attribute(board: _Board) -> dict[str, list[int]]:
    kind, _, name = board.recipe.split.partition(":")
    if kind != "attribute" or not name:
        raise DataError(
            f"split {board.recipe.split!r} is unknown", next_action='write "time" or "attribute:NAME" in [promptset]'
        )
    said = [row.request.attributes.get(name) for row in board.rows]
    if all(value is None for value in said):
        known = sorted({key for row in board.rows for key in row.request.attributes})
        raise DataError(
            f"no row has the attribute {name!r} that [promptset] split names; attributes: {', '.join(known) or 'none'}",
            next_action="name one of them, or import the column",
        )
    pools = {split: [i for i, value in enumerate(said) if value == split] for split in SPLITS}
    others = board.keep(range(len(said)), "no split declared", lambda i: said[i] in SPLITS)
    if len(others) < len(said):
        odd = sorted({str(value) for value in said if value not in SPLITS})[:5]
        board.notes.append(
            f"{len(said) - len(others)} rows are in no split: {name} is {', '.join(odd)}, not train, calibration or test."
        )
    if not pools["calibration"]:
        salt, share = f"{board.recipe.seed}:calibration", board.recipe.calibration_share
        whole = _group_names(board, board.near)
        held = {i for i in pools["train"] if hash_unit(board.session(i) or whole[board.near[i]], salt) < share}
        pools["calibration"] = sorted(held)
        pools["train"] = [i for i in pools["train"] if i not in held]
        board.notes.append(f"Calibration rows are a seeded {share:.0%} of the declared training rows.")
    return pools


def _group_names(board: _Board, groups: Iterable[int]) -> dict[int, str]:
    """A name for each of these near-duplicate groups that depends on its texts only."""
    least: dict[int, str] = {}
    wanted = set(groups)
    for i, row in enumerate(board.rows):
        if board.near[i] not in wanted:
            continue
        text = normalised(row.request.text)
        least[board.near[i]] = min(least.get(board.near[i], text), text)
    return {group: f"g{digest_of(text)[:12]}" for group, text in least.items()}


def _sizes(pools: Mapping[str, Sequence[int]], requests: int | None) -> dict[str, int]:
    total = sum(map(len, pools.values()))
    budget = total if requests is None else min(requests, total)
    sizes = {split: round(budget * len(pools[split]) / max(1, total)) for split in ("calibration", "test")}
    return {"train": budget - sum(sizes.values()), **sizes}


def _apart(board: _Board, split: str, pool: Sequence[int], later: Mapping[str, Sequence[int]]) -> list[int]:
    """The rows of the pool that share no group and no session with the rows already drawn for later splits."""
    kept = list(pool)
    for other, rows in later.items():
        groups = {board.near[i] for i in rows}
        sessions = {board.session(i) for i in rows} - {None}
        before = len(kept)
        if board.recipe.on_leak != "flag":
            kept = board.keep(kept, f"{split}: same request as a {other} row", lambda i, g=groups: board.near[i] not in g)  # type: ignore[misc]  # bound now, called now
        if board.recipe.on_leak == "refuse" and len(kept) < before:
            raise DataError(
                f"{before - len(kept)} {split} rows are near-duplicates of {other} rows",
                next_action='take them out of the log, or write on_leak = "drop" in [promptset]',
            )
        if len(kept) < before:
            board.notes.append(
                f"{before - len(kept)} of {before} {split} rows are the same request as a {other} row and were left out."
            )
        kept = board.keep(kept, f"{split}: same session as a {other} row", lambda i, s=sessions: board.session(i) not in s)  # type: ignore[misc]  # bound now, called now
        if board.recipe.on_leak != "flag":
            chains = {board.linked[i] for i in rows}
            kept = board.keep(kept, f"{split}: joined to a {other} row by a chain of sessions and repeats", lambda i, c=chains: board.linked[i] not in c)  # type: ignore[misc]  # bound now, called now
    return kept


def _sealed(
    board: _Board, split: str, pool: Sequence[int], size: int, later: Mapping[str, Sequence[int]]
) -> list[int]:
    kept = _apart(board, split, pool, later)
    salt = f"{board.recipe.seed}:{split}:session"
    drawn = one_per_session([board.session(i) for i in kept], [board.identity(i) for i in kept], salt)
    single = {i for i, one in zip(kept, drawn, strict=True) if one}
    kept = board.keep(kept, f"{split}: another request of a drawn session", single.__contains__)
    taken = _pick(board, split, kept, size)
    if split == "test":
        floors = board.recipe.floors
        salt, most = f"{board.recipe.seed}:boost", int(MOST_OF_TRAINING * size)
        board.extra |= boosted(kept, taken, board.inside, floors, identity=board.identity, salt=salt, most=most)
    every = {*taken, *board.extra} if split == "test" else set(taken)
    return board.keep(kept, f"{split}: not drawn", every.__contains__)


def _train(
    board: _Board, pool: Sequence[int], size: int, later: Mapping[str, Sequence[int]]
) -> tuple[list[int], list[float]]:
    kept = _apart(board, "train", pool, later)
    members: dict[tuple[int, tuple[str, ...]], list[int]] = {}
    for i in kept:
        members.setdefault((board.near[i], board.segment[i]), []).append(i)
    stands_for: dict[int, int] = {}
    for group in members.values():
        # Prefer a row that somebody answered; then the oldest, so that the choice doesn't depend on the log's order.
        head = min(group, key=lambda i: (board.rows[i].completion is None, board.rows[i].gold is None, i))
        stands_for[head] = len(group)
        for i in group:
            same = "exact duplicate" if board.exact[i] == board.exact[head] else "near-duplicate"
            board.fate[i] = "" if i == head else f"train: {same}, counted in another row's weight"
    pool_heads = sorted(stands_for)
    taken = _pick(board, "train", pool_heads, size)
    rare = {name: board.recipe.floors.get(name, 0) for name in board.inside}
    taken = enlarged(pool_heads, taken, board.inside, rare, identity=board.identity, salt=f"{board.recipe.seed}:train:rare")
    drawn = board.keep(pool_heads, "train: not drawn", set(taken).__contains__)
    return drawn, _weights(board, drawn, stands_for, pool)


def _pick(board: _Board, split: str, pool: Sequence[int], size: int) -> list[int]:
    """A seeded draw with the pool's own shares of what is matched; beside it, the plain draw that it is compared with."""
    salt = f"{board.recipe.seed}:{split}"
    if size >= len(pool):
        board.plain += pool
        return list(pool)
    order = {i: hash_unit(board.identity(i), salt) for i in pool}
    board.plain += sorted(pool, key=lambda i: (order[i], i))[:size]
    outer: dict[tuple[str, ...], dict[int, list[int]]] = {}
    for i in sorted(pool, key=lambda i: (order[i], i)):
        outer.setdefault(board.stratum(i), {}).setdefault(int(board.like[i]), []).append(i)
    # attributes first: they are what was asked for, and groups of like messages share what each of them gets
    quotas = _quotas(size, {key: sum(map(len, groups.values())) for key, groups in outer.items()})
    return [
        i
        for key, groups in outer.items()
        for like, quota in _quotas(quotas[key], {like: len(rows) for like, rows in groups.items()}).items()
        for i in groups[like][:quota]
    ]


def _quotas(size: int, counts: Mapping[K, int]) -> dict[K, int]:
    """The size shared out in proportion to the counts, by largest remainders."""
    total = sum(counts.values())
    exact = {key: size * n / total for key, n in counts.items()}
    quota = {key: int(value) for key, value in exact.items()}
    spare = size - sum(quota.values())
    for key in sorted(exact, key=lambda key: (quota[key] - exact[key], str(key)))[:spare]:
        quota[key] += 1
    return quota


def _weights(board: _Board, drawn: Sequence[int], stands_for: Mapping[int, int], pool: Sequence[int]) -> list[float]:
    """Multiplicity, times what brings groups of like messages and strata back to their shares of the pool; mean 1."""
    if not drawn:
        return []
    places: dict[tuple[str, ...], int] = {}
    stratum = {i: places.setdefault(board.stratum(i), len(places)) for i in pool}
    base = np.array([stands_for[i] for i in drawn], dtype=np.float64)
    margins = [
        Margin(live=board.like[list(pool)], chosen=board.like[list(drawn)]),
        Margin(live=np.array([stratum[i] for i in pool]), chosen=np.array([stratum[i] for i in drawn])),
    ]
    rare = np.array([any(rows[i] for rows in board.inside.values()) for i in drawn])
    # a rare slice was drawn beyond its share, and all of that has to be undone
    factor = np.clip(raked(base, margins) / base, np.where(rare, 0.0, 1 / WEIGHT_FACTOR), WEIGHT_FACTOR)
    weights = base * factor
    return [float(weight) for weight in weights / weights.mean()]


def _not_empty(split: str, found: Sequence[int], pools: Mapping[str, Sequence[int]]) -> None:
    if not found:
        raise DataError(
            f"no {split} rows are left: {len(pools[split])} were meant for it, and each shares a session or a text "
            "with a row that is tested later, or the split names none",
            next_action="collect more traffic, or check [promptset] split and the session column",
        )


def _assembled(board: _Board, chosen: Mapping[str, Sequence[int]], weights: Sequence[float]) -> PromptSet:
    texts = {split: [board.rows[i].request.text for i in rows] for split, rows in chosen.items()}
    names = _group_names(board, (board.near[i] for rows in chosen.values() for i in rows))
    sets: dict[str, tuple[PromptRow, ...]] = {}
    for split, rows in chosen.items():
        near = None if split == "train" else nearest_similarity(texts["train"], texts[split])
        sets[split] = tuple(
            PromptRow(
                request=board.rows[i].request,
                weight=weights[at] if split == "train" else 1.0,
                group=names[board.near[i]],
                recorded=board.rows[i].completion,
                gold=board.rows[i].gold if proves or split == "train" else None,
                gold_from=board.rows[i].gold_from if proves or split == "train" else "log",
                near_train=None if near is None else round(float(near[at]), 6),
                boost=board.extra.get(i, ()) if split == "test" else (),
            )
            for at, i in enumerate(rows)
            for proves in (board.rows[i].gold_from != FEEDBACK,)  # else it trains, and never meets a certificate
        )
    fair = [i for split in SPLITS for i in chosen[split] if i not in board.extra]  # boosted rows are no draw of the traffic
    everything = [row for split in SPLITS for row in sets[split] if not row.boost]
    weights = [row.weight for row in everything]
    live, chosen_requests = [row.request for row in board.rows], [row.request for row in everything]
    attributes = board.recipe.match or _shown(board)
    if not attributes:  # a log without attributes can still be compared by how long its messages are
        edges = np.quantile([len(one.text) for one in live], LENGTH_EDGES).tolist()
        live, chosen_requests = _by_length(live, edges), _by_length(chosen_requests, edges)
        attributes = (LENGTH,)
    match = share_table(live, chosen_requests, weights, attributes)
    views = [attributes] if board.recipe.match else [(a,) for a in attributes]
    for one in match:
        if one.n_live >= LEAST_ROWS and not 0.8 <= one.set_share / one.live_share <= 1.25:
            board.notes.append(
                f"{one.attribute} = {one.value}: {one.live_share:.1%} of the live traffic, {one.set_share:.1%} of the set."
            )
    return PromptSet(
        train=sets["train"],
        calibration=sets["calibration"],
        test=sets["test"],
        funnel=_funnel(board),
        match=match,
        distance=_distance(live, chosen_requests, weights, views),
        leaks=leaks(sets["train"], sets["calibration"], sets["test"], by_time=board.recipe.split == "time"),
        notes=tuple(board.notes),
        distances=_distances(board, live, views, fair, weights),
        shares=slice_shares(board.inside, chosen["train"], [row.weight for row in sets["train"]]),
        **_gaps(board, chosen),
        left_rows=named((fate, board.identity(i)) for i, fate in enumerate(board.fate) if not fate.startswith("in ")),
    )


def _distances(
    board: _Board, live: Sequence[Request], views: Sequence[Sequence[str]], fair: Sequence[int], weights: Sequence[float]
) -> tuple[MixDistance, ...]:
    """By each view of the attributes, and by groups of like messages where there are any."""
    found = [View.of(" × ".join(view), segments(live, view)) for view in views]
    if len(np.unique(board.like)) > 1:
        found.append(View(name=LIKE, index=board.like))
    return tuple(view_distance(view, plain=board.plain, chosen=fair, weights=weights) for view in found)


def _gaps(board: _Board, chosen: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Messages unlike all of training, looked for among rows that are not sealed and don't repeat a sealed one."""
    sealed = {board.near[i] for i in chosen["test"]}
    open_rows = [i for i in range(len(board.rows)) if board.near[i] not in sealed]
    texts = lambda rows: [board.rows[i].request.text for i in rows]  # noqa: E731 - read below, twice
    gaps, n = found_gaps(chosen["train"], open_rows, texts, seed=board.recipe.seed)
    return {"gaps": gaps, "gap_rows": n}


def _shown(board: _Board) -> tuple[str, ...]:
    """Attributes that cut the traffic into a few segments, where the recipe names none."""
    values: dict[str, set[str]] = {}
    for row in board.rows:
        for name, value in row.request.attributes.items():
            values.setdefault(name, set()).add(value)
    declared = board.recipe.split.removeprefix("attribute:")
    return tuple(sorted(n for n, found in values.items() if 2 <= len(found) <= SHOWN_VALUES and n != declared))


def _by_length(requests: Sequence[Request], edges: Sequence[float]) -> list[Request]:
    """The requests with their length as their only attribute, in words such as "27 to 41 characters"."""
    cuts = sorted({int(edge) for edge in edges})
    names = [f"up to {cuts[0]} characters", *(f"{a + 1} to {b}" for a, b in pairwise(cuts)), f"over {cuts[-1]}"]
    return [replace(one, attributes={LENGTH: names[bisect_left(cuts, len(one.text))]}) for one in requests]


def _distance(
    live: Sequence[Request], chosen: Sequence[Request], weights: Sequence[float], views: Sequence[Sequence[str]]
) -> float:
    """Over the joint segments that the recipe names; else the largest over the attributes that are shown."""
    found = [0.0]
    for view in views:
        counts = Counter(segments(live, view))
        mass: Counter[tuple[str, ...]] = Counter()
        for segment, weight in zip(segments(chosen, view), weights, strict=True):
            mass[segment] += weight  # type: ignore[assignment]  # Counter adds floats too
        keys = sorted(counts)
        found.append(total_variation(np.array([counts[k] for k in keys]), np.array([mass[k] for k in keys])))
    return max(found)


def _funnel(board: _Board) -> dict[str, int]:
    counts = Counter(board.fate)
    if "" in counts:
        raise AssertionError(f"{counts['']} rows of the window have no place in the funnel")
    ended = [f"in {split}" for split in SPLITS]
    order = [*sorted(set(counts) - set(ended)), *ended]
    return {"rows read": len(board.rows), **{fate: counts[fate] for fate in order}}


def leaks(
    train: Sequence[PromptRow], calibration: Sequence[PromptRow], test: Sequence[PromptRow], *, by_time: bool
) -> dict[str, int]:
    """
    Count the rows that straddle splits, from the finished sets alone.

    Args:
        train: training rows.
        calibration: calibration rows.
        test: test rows.
        by_time: whether every training row has to be older than every later one, and so on.

    Returns: check name to the number of earlier rows that share something with a later split; zero in a sound set.
    """
    keys: dict[str, Callable[[PromptRow], str | None]] = {
        "exact text": lambda row: normalised(row.request.text),
        "near-duplicate": lambda row: row.group,
        "session": lambda row: row.request.session,
    }
    found = {}
    for name, key in keys.items():
        sealed = {key(row) for row in test} - {None}
        held = {key(row) for row in calibration} - {None}
        found[name] = sum(key(row) in sealed | held for row in train) + sum(key(row) in sealed for row in calibration)
    found["supplement outside training"] = sum(row.origin != "traffic" for row in (*calibration, *test))
    if by_time:
        found["time order"] = _newer(train, (*calibration, *test)) + _newer(calibration, test)
    return found


def _newer(earlier: Sequence[PromptRow], later: Sequence[PromptRow]) -> int:
    first = min((instant(row.request.at) for row in later if row.request.at), default=None)
    return 0 if first is None else sum(instant(row.request.at) > first for row in earlier)


PROMPTSET = Step(name="promptset", version=3, fn=promptset)
