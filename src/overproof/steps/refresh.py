"""The next prompt set: the release's own, what failed since, and a fair draw of today's traffic; bounded in size and in whom it trusts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from overproof.data import (
    FEEDBACK,
    PICKED,
    Completion,
    Failed,
    MixDistance,
    NextSet,
    PromptRow,
    PromptSet,
    Request,
    Traffic,
    TrafficRecord,
    Why,
    digest_of,
    named,
)
from overproof.errors import DataError
from overproof.measure.leakage import clusters, coverage_gaps, nearest_similarity, normalised
from overproof.measure.mixes import Margin, like_groups, mix_distance, points, raked
from overproof.measure.slices import assign, hash_unit, segments, share_table
from overproof.outputs import Output
from overproof.steps.capture import LogSnapshot, instant
from overproof.steps.matching import COMPARED, LEAST_GAP, LIKE
from overproof.steps.principals import Principals
from overproof.steps.promptset import LEAST_ROWS, SHOWN_VALUES, SPLITS, WEIGHT_FACTOR, leaks
from overproof.steps.served import escalated, teachers_answer
from overproof.steps.survey import row_hash
from overproof.store.artifacts import Step
from overproof.task import Slice

TEST_SHARE, CALIBRATION_SHARE = 0.4, 0.1
"""Of the rows that are labelled anew: proof takes most, since escalated requests train at no cost."""
WORN_TEST_SHARE = 0.6
"""Where the release's sealed rows are worn out, the new ones stand alone."""
LEAST_NEW = 100
"""A third of little traffic would prove nothing: so many rows are labelled even then."""
MIX_SHARE = 0.5
"""Of the training rows that are labelled anew, drawn from all of the traffic before any is picked."""
STANDS_FOR = 2.0
"""The most new requests that one new training row stands for; what fails teaches more than its share, so that not all is undone."""
PARTS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""How much of the weighting that matches the live mix is applied: the least that does."""
STEP_BACK = 0.8
"""Picked rows that move the mix too far are cut to this part, again and again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RefreshRecipe:
    """How the next prompt set is made."""

    task: str
    release_id: str
    model: str
    """The pinned teacher: only its answers to callers become labels."""
    output: Output
    since: str | None
    """End of the release's own traffic, ISO 8601; None where its log has no times."""
    until: str
    """Later requests belong to the next refresh."""
    rows: int = 2000
    """The most rows that are labelled anew, and the most that train on an answer to a caller."""
    share: float = 1 / 3
    """The most of the new traffic that is labelled anew, above `LEAST_NEW`."""
    per_principal: float = 0.05
    """The most of the new training rows that one key or user may have sent."""
    per_group: int = 3
    """The most new training rows out of one group of near-duplicates."""
    shift: float = 0.05
    """The most that training may be off the live mix by any view, as total variation; more only where fair rows alone are."""
    match: tuple[str, ...] = ()
    """Attributes whose joint shares match the live traffic; all with few values where empty."""
    critical: tuple[Slice, ...] = ()
    """Critical slices that the request itself tells."""
    clusters: int = 20
    """Groups of like messages whose shares match as well."""
    seed: int = 0
    learn_served: bool = True
    """Whether answers to callers become training rows; not with a committee, which decides as a whole."""


@dataclass(kw_only=True, slots=True)
class _Board:
    """Rows of the reference, then rows since the release, by number; and what became of each."""

    recipe: RefreshRecipe
    failed: Failed
    rows: list[PromptRow]
    old: Mapping[str, list[int]]
    """Split to rows of the reference."""
    live: list[int]
    near: list[int]
    weight: Mapping[int, float]
    """Requests that a live row stands for."""
    said: Mapping[int, Completion]
    """The teacher's answer to the caller, where it may be learned from."""
    passed_on: frozenset[int]
    key: Mapping[int, str]
    """Caller's key of a live row."""
    fate: dict[int, str] = field(default_factory=dict)
    capped: Counter[str] = field(default_factory=Counter)
    stands: dict[int, float] = field(default_factory=dict)
    """How many requests a new training row stands for by how it was drawn."""
    senders: Principals | None = None
    notes: list[str] = field(default_factory=list)

    def id(self, i: int) -> str:
        return self.rows[i].request.id

    def order(self, pool: Iterable[int], salt: str) -> list[int]:
        """By a seeded hash of the id: chance, and the same again under the same seed."""
        salt = f"{self.recipe.seed}:{self.recipe.release_id}:{salt}"
        return sorted(pool, key=lambda i: (hash_unit(self.id(i), salt), self.id(i)))

    def apart(self, pool: Iterable[int], later: Iterable[int]) -> tuple[list[int], list[int]]:
        """The pool's rows that share no text and no session with later ones, and those that do."""
        later = list(later)
        groups, sessions = {self.near[i] for i in later}, {self.rows[i].request.session for i in later} - {None}
        kept: list[int] = []
        shared: list[int] = []
        for i in pool:
            (shared if self.near[i] in groups or self.rows[i].request.session in sessions else kept).append(i)
        return kept, shared


def refresh(traffic: Traffic, log: LogSnapshot, reference: PromptSet, failed: Failed, recipe: RefreshRecipe) -> NextSet:
    """
    Make the next prompt set of a release.

    Rows that prove are the release's own, unless they are worn out, and a fair draw of the traffic since: what was picked for
    failing trains only. The draw comes first, so no row is kept from it for having failed.

    Args:
        traffic: the window, as the task reads it.
        log: the same rows as the gateway wrote them: who sent them, who answered.
        reference: the prompt set that the release was made from.
        failed: what is known beyond the log.
        recipe: sizes and caps.

    Returns: the three sets, each row with its reason, and what was capped.
    Raises: DataError where there is too little new traffic to draw from, or ids occur twice.
    """
    board = _board(traffic, log, reference, failed, recipe)
    budget = min(recipe.rows, len(board.live), max(LEAST_NEW, math.ceil(recipe.share * len(board.live))))
    worn = bool(failed.worn)
    old_test = [] if worn else board.old["test"]
    fresh_test = _proving(board, "test", round(budget * (WORN_TEST_SHARE if worn else TEST_SHARE)), beside=old_test, later=())
    test = [*old_test, *fresh_test]
    old_calibration, joined = board.apart(board.old["calibration"], test)
    fresh_calibration = _proving(board, "calibration", round(budget * CALIBRATION_SHARE), beside=old_calibration, later=test)
    calibration = [*old_calibration, *fresh_calibration]
    old_train, more = board.apart(board.old["train"], [*test, *calibration])
    board.fate |= dict.fromkeys([*joined, *more], "reference: shares a text or a session with a row that proves")
    if worn:
        board.fate |= dict.fromkeys(board.old["test"], "reference: sealed rows that are worn out")
    free, joined = board.apart((i for i in board.live if i not in board.fate), [*test, *calibration])
    board.fate |= dict.fromkeys(joined, "new: shares a text or a session with a row that proves")
    new, why = _learned(board, old_train, free, budget - len(fresh_test) - len(fresh_calibration))
    train = [*old_train, *new]
    for split, rows in (("train", train), ("calibration", calibration), ("test", test)):
        board.fate |= dict.fromkeys(rows, f"in {split}")
    drawn: dict[int, Why] = dict.fromkeys([*fresh_test, *fresh_calibration], "live mix")
    return _assembled(board, {"train": train, "calibration": calibration, "test": test}, {**drawn, **why}, old_train)


def _board(traffic: Traffic, log: LogSnapshot, reference: PromptSet, failed: Failed, recipe: RefreshRecipe) -> _Board:
    sets = {"train": reference.train, "calibration": reference.calibration, "test": reference.test}
    rows = [row for split in SPLITS for row in sets[split]]
    known = {row.request.id for row in rows}
    live = [record for record in traffic.records if record.request.id not in known and _new(record, recipe)]
    if len(live) < LEAST_ROWS:
        raise DataError(
            f"{len(live)} requests of the task came since release {recipe.release_id}, at least {LEAST_ROWS} are needed",
            next_action="wait for more traffic, or import it",
        )
    twice, times = Counter(record.request.id for record in live).most_common(1)[0]
    if times > 1:
        raise DataError(f"request id {twice!r} occurs {times} times", next_action="import the log with unique ids")
    old, at = {}, 0
    for split in SPLITS:
        old[split] = list(range(at, at + len(sets[split])))
        at += len(sets[split])
    place = {record.request.id: at + i for i, record in enumerate(live)}
    captured = {place[r.request.id]: r for r in log.records if r.request.id in place and r.served is not None}
    said = _said(captured, failed, recipe)
    return _Board(
        recipe=recipe, failed=failed, rows=[*rows, *(_row(record) for record in live)], old=old, live=sorted(place.values()),
        near=clusters([*(row.request.text for row in rows), *(r.request.text for r in live)]).near.tolist(), said=said,
        weight={i: r.served.weight for i, r in captured.items() if r.served is not None},
        passed_on=frozenset(i for i, r in captured.items() if escalated(r, task=recipe.task)),
        key={i: r.served.key for i, r in captured.items() if r.served is not None},
    )  # fmt: skip


def _new(record: TrafficRecord, recipe: RefreshRecipe) -> bool:
    at = record.request.at
    if at is None or recipe.since is None:
        return at is None or instant(at) <= instant(recipe.until)
    return instant(recipe.since) < instant(at) <= instant(recipe.until)


def _said(captured: Mapping[int, TrafficRecord], failed: Failed, recipe: RefreshRecipe) -> dict[int, Completion]:
    wrong, bought = set(failed.wrong), set(failed.bought)
    if not recipe.learn_served:
        return {}
    return {
        i: answer for i, record in captured.items()
        if record.request.id not in wrong and record.request.id not in bought
        and (answer := teachers_answer(record, task=recipe.task, model=recipe.model, output=recipe.output)) is not None
    }  # fmt: skip


def _row(record: TrafficRecord) -> PromptRow:
    return PromptRow(request=record.request, weight=1.0, group="", recorded=record.completion, gold=record.gold, gold_from=record.gold_from)


def _proving(board: _Board, split: str, size: int, *, beside: Sequence[int], later: Sequence[int]) -> list[int]:
    """A fair draw of the new rows, one a session; whether a row failed plays no part in it."""
    worn = set(board.failed.worn)
    pool, _ = board.apart((i for i in board.live if i not in board.fate), later)
    sessions = {board.rows[i].request.session for i in beside} - {None}
    taken: list[int] = []
    for i in board.order(pool, split):
        session = board.rows[i].request.session
        if len(taken) == size:
            break
        if session in sessions or (worn and row_hash(board.id(i)) in worn):
            continue
        taken.append(i)
        sessions |= {session} - {None}
    board.fate |= dict.fromkeys(taken, f"in {split}")
    return sorted(taken)


def _learned(board: _Board, old: Sequence[int], pool: Sequence[int], budget: int) -> tuple[list[int], dict[int, Why]]:
    """New training rows with their reasons: a fair part, then what failed, then more of the fair part; all under the caps."""
    recipe = board.recipe
    reason = _reasons(board, old, pool)
    costs = {i for i in pool if i not in board.said and board.id(i) not in board.failed.bought}
    by_chance = board.order(pool, "train")
    fair = [i for i in by_chance if i in costs][: int(MIX_SHARE * budget)]
    chosen = set(fair)
    failing = sorted((i for i in by_chance if i in reason and i not in chosen), key=lambda i: PICKED.index(reason[i]))
    rest = [i for i in by_chance if i not in reason and i not in chosen]
    why: dict[int, Why] = {**dict.fromkeys([*fair, *rest], "live mix"), **{i: reason[i] for i in failing}}
    principals = Principals.of(
        {i: board.rows[i].request for i in pool}, board.key, share=recipe.per_principal, notes=board.notes
    )
    limits = {"asked": budget, "served": recipe.rows}
    most, pool_at = len(failing), {i: at for at, i in enumerate([*old, *pool])}
    views = _views(board, list(pool_at))
    board.senders = principals
    while True:
        taken, capped = principals.capped(
            [*fair, *failing[:most], *rest], group=board.near, per_group=recipe.per_group, costs=costs, limits=limits
        )
        picked = sum(i in reason and i not in chosen for i in taken)
        plain = [i for i in taken if why[i] == "live mix"]
        _stand_for(board, taken, pool, reason)
        if not picked or _close(board, [*old, *taken], [*old, *plain], views, pool_at):
            break
        most = int(STEP_BACK * min(most, picked))
    board.capped.update(capped)
    if most < len(failing):
        board.capped["would move the training rows away from the live mix"] += len(failing) - most
    board.fate |= dict.fromkeys((i for i in pool if i not in set(taken)), "new: not taken")
    return taken, {i: why[i] for i in taken}


def _stand_for(board: _Board, taken: Sequence[int], pool: Sequence[int], reason: Mapping[int, Why]) -> None:
    """How many of the new requests each taken row stands for: those that failed and the others are drawn at rates of their own."""
    all_of, mine = (Counter(reason.get(i, "") for i in rows) for rows in (pool, taken))
    whole = len(board.live) / max(1, len(pool))
    board.stands = {i: min(STANDS_FOR, whole * all_of[one] / mine[one]) for i in taken for one in (reason.get(i, ""),)}


def _reasons(board: _Board, old: Sequence[int], pool: Sequence[int]) -> dict[int, Why]:
    found: dict[int, Why] = dict.fromkeys((i for i in pool if i in board.passed_on), "escalated")
    found |= dict.fromkeys(_unlike(board, old, pool), "cluster")
    return {**found, **{i: board.failed.named[board.id(i)] for i in pool if board.id(i) in board.failed.named}}


def _unlike(board: _Board, old: Sequence[int], pool: Sequence[int]) -> list[int]:
    """New rows that are like each other and unlike all of training."""
    known, asked = (board.order(rows, "gaps")[:COMPARED] for rows in (old, pool))
    if len(known) < 2 or not asked:
        return []
    mine, theirs = (points([normalised(board.rows[i].request.text) for i in rows], seed=board.recipe.seed) for rows in (known, asked))
    mine, said = mine[np.linalg.norm(mine, axis=1) > 0], np.flatnonzero(np.linalg.norm(theirs, axis=1) > 0)
    if len(mine) < 2 or not len(said):
        return []
    gaps = coverage_gaps(mine, theirs[said]).gaps
    return [asked[int(said[at])] for gap in gaps if len(gap.rows) >= LEAST_GAP for at in gap.rows]


@dataclass(frozen=True, kw_only=True, slots=True)
class _View:
    """One way to cut live and chosen rows."""

    name: str
    live: NDArray[np.int64]
    """A live row occurs as often as requests it stands for."""
    chosen: NDArray[np.int64]

    @property
    def count(self) -> int:
        return int(max(self.live.max(initial=0), self.chosen.max(initial=0))) + 1

    def of(self, places: Sequence[int]) -> _View:
        """With these of the chosen rows only."""
        return replace(self, chosen=self.chosen[list(places)])

    def distance(self, weights: NDArray[np.float64]) -> float:
        """Of the chosen rows from the live mix."""
        return mix_distance(self.live, self.chosen, weights, segments=self.count).value


def _views(board: _Board, chosen: Sequence[int]) -> list[_View]:
    """By the attributes, by groups of like messages, and by critical slices."""
    both = [*board.live, *chosen]
    requests = [board.rows[i].request for i in both]
    times = np.array([max(1, round(board.weight.get(i, 1.0))) for i in board.live])

    def view(name: str, index: NDArray[np.int64]) -> _View:
        return _View(name=name, live=np.repeat(index[: len(board.live)], times), chosen=index[len(board.live) :])

    def joint(keys: Sequence[object]) -> NDArray[np.int64]:
        places: dict[object, int] = {}
        return np.array([places.setdefault(key, len(places)) for key in keys], dtype=np.int64)

    shown = attributes_of([board.rows[i].request for i in board.live], board.recipe)
    cuts = [board.recipe.match] if board.recipe.match else [(name,) for name in shown]
    found = [view(" × ".join(cut), joint(segments(requests, cut))) for cut in cuts]
    k = min(board.recipe.clusters, len(board.live) // LEAST_ROWS)
    if k > 1:
        found.append(view(LIKE, like_groups(points([normalised(one.text) for one in requests]), k, seed=board.recipe.seed)))
    if board.recipe.critical:
        found.append(view("critical slices", joint([tuple(row) for row in assign(board.recipe.critical, requests).tolist()])))
    return found


def attributes_of(live: Sequence[Request], recipe: RefreshRecipe) -> tuple[str, ...]:
    """
    What live traffic and training are compared by.

    Args:
        live: the new requests.
        recipe: names some, or none.

    Returns: those of the recipe; else all that cut the traffic into a few segments.
    """
    values: dict[str, set[str]] = {}
    for request in live:
        for name, value in request.attributes.items():
            values.setdefault(name, set()).add(value)
    return recipe.match or tuple(sorted(name for name, found in values.items() if 2 <= len(found) <= SHOWN_VALUES))


def _weights(board: _Board, chosen: Sequence[int], views: Sequence[_View]) -> NDArray[np.float64]:
    """
    What each row stands for, times as little as brings each view within the bound: weights that jump about cost a student more
    than a mix that is nearly right. Mean 1.
    """
    base = np.array([board.rows[i].weight * board.stands.get(i, 1.0) * board.weight.get(i, 1.0) for i in chosen], dtype=np.float64)
    mixes = [one for one in views if one.name != LIKE]
    margins = [Margin(live=one.live, chosen=one.chosen) for one in mixes]
    whole = np.clip(raked(base, margins) / base, 1 / WEIGHT_FACTOR, WEIGHT_FACTOR) if margins else np.ones(len(base))
    weights = base
    for part in PARTS:
        weights = base * whole**part
        if board.senders is not None:  # the caps hold by weight as well as by count
            weights = board.senders.bounded(chosen, weights)
        if all(one.distance(weights) <= board.recipe.shift for one in mixes):
            break
    return np.asarray(weights / weights.mean(), dtype=np.float64)


def _close(
    board: _Board, chosen: Sequence[int], without: Sequence[int], views: Sequence[_View], at: Mapping[int, int]
) -> bool:
    """Whether training with the picked rows is as near to the live mix as is asked, or as it would be without them."""

    def distances(rows: Sequence[int]) -> list[float]:
        mine = [one.of([at[i] for i in rows]) for one in views]
        weights = _weights(board, rows, mine)
        return [one.distance(weights) for one in mine]

    pairs = zip(views, distances(chosen), distances(without), strict=True)
    return all(one.name == LIKE or a <= max(board.recipe.shift, b + 1e-9) for one, a, b in pairs)


def _assembled(
    board: _Board, chosen: Mapping[str, Sequence[int]], why: Mapping[int, Why], old_train: Sequence[int]
) -> NextSet:
    views = _views(board, chosen["train"])
    weights = _weights(board, chosen["train"], views)
    names = _group_names(board, chosen)
    train_texts = [board.rows[i].request.text for i in chosen["train"]]
    sets: dict[str, tuple[PromptRow, ...]] = {}
    for split, rows in chosen.items():
        near = None if split == "train" else nearest_similarity(train_texts, [board.rows[i].request.text for i in rows])
        sets[split] = tuple(
            replace(
                board.rows[i],
                weight=float(weights[at]) if split == "train" else 1.0,
                group=names[board.near[i]],
                near_train=None if near is None else round(float(near[at]), 6),
                gold=board.rows[i].gold if proves or split == "train" else None,
                gold_from=board.rows[i].gold_from if proves or split == "train" else "log",
            )
            for at, i in enumerate(rows)
            for proves in (board.rows[i].gold_from != FEEDBACK,)
        )
    reasons: dict[str, Why] = {board.id(i): why.get(i, "reference") for rows in chosen.values() for i in rows}
    counts = Counter(f"{split}: {reasons[board.id(i)]}" for split, rows in chosen.items() for i in rows)
    prompts = _prompts(board, sets, (views, weights), old_train, reasons)
    return NextSet(
        prompts=prompts, release_id=board.recipe.release_id, why=reasons, counts=dict(sorted(counts.items())),
        served={board.id(i): board.said[i] for i in chosen["train"] if i in board.said},
        capped=dict(sorted((+board.capped).items())), live=len(board.live),
    )  # fmt: skip


def _prompts(
    board: _Board, sets: Mapping[str, tuple[PromptRow, ...]], mix: tuple[Sequence[_View], NDArray[np.float64]],
    old_train: Sequence[int], reasons: Mapping[str, Why],
) -> PromptSet:  # fmt: skip
    views, weights = mix
    live = [board.rows[i].request for i in board.live]
    training = [row.request for row in sets["train"]]
    by = attributes_of(live, board.recipe)
    counts = Counter(board.fate.values())
    distances = tuple(_moved(one, weights, np.array([board.rows[i].weight for i in old_train])) for one in views)
    fresh = sum(reasons[row.request.id] == "live mix" for row in sets["test"])
    kept = len(sets["test"]) - fresh
    said = [f"{fresh} of the {fresh + kept} sealed rows are of the traffic since release {board.recipe.release_id}; the other {kept} were sealed for it."] if kept else []
    return PromptSet(
        train=sets["train"], calibration=sets["calibration"], test=sets["test"],
        funnel={"rows read": len(board.rows), **{fate: counts[fate] for fate in sorted(counts, key=lambda f: (f.startswith("in "), f))}},
        match=share_table(live, training, weights.tolist(), by) if by else (),
        distance=max((one.after for one in distances if one.view != LIKE), default=0.0),
        leaks=leaks(sets["train"], sets["calibration"], sets["test"], by_time=False),
        notes=(*said, "Live shares are those of the traffic since the release; they are compared with the training rows.", *board.notes),
        distances=distances,
        left_rows=named((fate, board.id(i)) for i, fate in board.fate.items() if not fate.startswith("in ")),
    )  # fmt: skip


def _moved(view: _View, weights: NDArray[np.float64], old: NDArray[np.float64]) -> MixDistance:
    """Before: the release's own training rows against today's traffic; they stand first among the chosen ones."""
    before = mix_distance(view.live, view.chosen[: len(old)], old, segments=view.count)
    after = mix_distance(view.live, view.chosen, weights, segments=view.count)
    return MixDistance(
        view=view.name, segments=view.count, before=before.value, before_low=before.low, before_high=before.high,
        after=after.value, after_low=after.low, after_high=after.high, n_live=len(view.live), n_set=len(view.chosen),
    )  # fmt: skip


def _group_names(board: _Board, chosen: Mapping[str, Sequence[int]]) -> dict[int, str]:
    """A name for each near-duplicate group that depends on its texts only."""
    wanted, least = {board.near[i] for rows in chosen.values() for i in rows}, dict[int, str]()
    for i, row in enumerate(board.rows):
        if board.near[i] in wanted:
            text = normalised(row.request.text)
            least[board.near[i]] = min(least.get(board.near[i], text), text)
    return {group: f"g{digest_of(text)[:12]}" for group, text in least.items()}


REFRESH = Step(name="refresh", version=2, fn=refresh)
