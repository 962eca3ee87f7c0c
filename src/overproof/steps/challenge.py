"""Champion against challenger on the same sealed rows: a release that serves gives way to nothing that is not shown to hold up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from overproof.data import ALL, Folder, NextSet, Request, TestSet
from overproof.errors import DataError
from overproof.evidence import Challenge, Duel, Release
from overproof.measure.intervals import figure
from overproof.measure.paired import difference_interval, noninferiority, superiority
from overproof.measure.slices import OTHER, assign
from overproof.registry import suggest
from overproof.steps.answers import same_answer
from overproof.steps.boost import drawn_for
from overproof.steps.certificates import GOLD
from overproof.steps.comparisons import OUTCOMES, Answer
from overproof.store.artifacts import Step
from overproof.students.bundle import Bundle, load_bundle
from overproof.task import Slice

WHOLE = "all"
BOTH: tuple[Literal["sealed", "fresh"], ...] = ("sealed", "fresh")
AT_ONCE = 256  # requests in one pass


@dataclass(frozen=True, kw_only=True, slots=True)
class ChallengeRecipe:
    """What the challenger has to show."""

    slices: tuple[Slice, ...] = ()
    """The project's slices: it has to be shown not worse on each critical one."""
    named: tuple[str, ...] = ()
    """Slices that the trigger named: it has to be shown better there."""
    margin: float = 0.02
    """How much worse it may be on the whole, as a share of all rows."""
    slice_margin: float = 0.05
    """How much worse it may be on a critical slice."""
    delta: float = 0.05
    """Admitted chance of a false pass on rows that nobody has opened before."""
    delta_k: float = 0.05
    """The same on all sealed rows, of which some were opened before: the share of this use."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Side:
    right: NDArray[np.bool_]
    kept: NDArray[np.bool_]


def challenge(
    champion: Release, bundle: Folder, rows: TestSet, following: NextSet, recipe: ChallengeRecipe,
    *, functions: Mapping[str, Any] | None = None,
) -> Challenge:  # fmt: skip
    """
    Compare the serving release with the packed challenger, both answering every sealed row alone.

    Thresholds play no part in it, so the rows that chose them may judge: what a student keeps is the certificate's matter,
    and is shown beside. Right is what gold says where each row has it, else what the teacher says.

    Args:
        champion: the serving release.
        bundle: the challenger.
        rows: the sealed rows of the next prompt set, opened for this plan.
        following: says which of them are fresh.
        recipe: margins and slices.
        functions: of slices that are cut by one.

    Returns: the comparisons: "not worse" on the whole of both sets of rows and on critical slices of the sealed rows, "better"
        on slices that were named.
    Raises: DataError where the champion answers another task, or a named slice isn't there.
    """
    requests = [example.request for example in rows.examples]
    gold = bool(rows.examples) and all(example.gold is not None for example in rows.examples)
    truth = [example.gold if gold and example.gold is not None else example.target for example in rows.examples]
    old, new = load_bundle(champion.bundle.path), load_bundle(bundle.path)
    if old.card.input != new.card.input:
        raise DataError(
            f"release {champion.id!r} reads {', '.join(old.card.input)}, the task now has {', '.join(new.card.input)}",
            next_action="the task has changed: make a release of its own with `overproof run`",
        )
    sides = [_side(one, requests, truth, rows) for one in (old, new)]
    inside = _inside(rows, requests, truth, recipe, functions or {})
    fresh = np.array([request.id in following.fresh for request in requests], dtype=bool)
    critical = {one.name for one in recipe.slices if one.critical}
    found = []
    for kind in BOTH:
        among = fresh if kind == "fresh" else np.ones(len(requests), dtype=bool)
        for name, members in inside.items():
            asked = _asked(kind, name, critical, recipe)
            part = members & among & drawn_for(rows, "" if name == WHOLE else name)
            found.append(_duel(kind, name, sides, part, asked=asked, critical=name == WHOLE or name in critical, recipe=recipe))
    found.sort(key=lambda duel: duel.asked == "nothing")
    return Challenge(
        champion=champion.id, label_kind=GOLD if gold else "teacher", duels=tuple(found),
        counts=following.counts, capped=following.capped,
    )  # fmt: skip


def _side(bundle: Bundle, requests: Sequence[Request], truth: Sequence[str], rows: TestSet) -> _Side:
    day = date.fromisoformat(bundle.card.expires)  # which of them would answer today is no question here
    said = [one for at in range(0, len(requests), AT_ONCE) for one in bundle.answers(requests[at : at + AT_ONCE], today=day)]
    right = [one.guess is not None and same_answer(rows.output, one.guess, true) for one, true in zip(said, truth, strict=True)]
    return _Side(right=np.array(right, dtype=bool), kept=np.array([one.value is not None for one in said], dtype=bool))


def _inside(
    rows: TestSet, requests: Sequence[Request], truth: Sequence[str], recipe: ChallengeRecipe, functions: Mapping[str, Any]
) -> dict[str, NDArray[np.bool_]]:
    """The whole, then each slice; the rest of the routed traffic only where it was named."""
    member = assign(recipe.slices, requests, truth if rows.output is None else [""] * len(truth), functions=functions)
    found: dict[str, NDArray[np.bool_]] = {WHOLE: np.ones(len(requests), dtype=bool), **{one.name: member[:, at] for at, one in enumerate(recipe.slices)}}
    if OTHER in recipe.named and OTHER not in found:
        routed = [at for at, one in enumerate(recipe.slices) if not one.reads_label]
        found[OTHER] = np.logical_not(member[:, routed].any(axis=1))
    unknown = sorted(set(recipe.named) - {*found, ALL})
    if unknown:
        raise DataError(f"no slice {unknown[0]!r}. {suggest(unknown[0], list(found))}", next_action="name slices of the project")
    return found


def _asked(kind: str, name: str, critical: set[str], recipe: ChallengeRecipe) -> Literal["not worse", "better", "nothing"]:
    if name in recipe.named or (name == WHOLE and ALL in recipe.named):
        return "better" if kind == "sealed" else "not worse" if name == WHOLE else "nothing"
    return "not worse" if name == WHOLE or (name in critical and kind == "sealed") else "nothing"


def _duel(
    kind: Literal["sealed", "fresh"], name: str, sides: Sequence[_Side], part: NDArray[np.bool_],
    *, asked: Literal["not worse", "better", "nothing"], critical: bool, recipe: ChallengeRecipe,
) -> Duel:  # fmt: skip
    old, new = sides
    n, delta = int(part.sum()), recipe.delta if kind == "fresh" else recipe.delta_k
    b, c = int((part & old.right & ~new.right).sum()), int((part & new.right & ~old.right).sum())
    margin = 0.0 if asked == "better" else recipe.margin if name == WHOLE else recipe.slice_margin
    test = superiority(b, c, d=delta, n=n) if asked == "better" else noninferiority(b, c, n, margin=margin, d=delta)
    off = difference_interval(b, c, n)  # of errors: the first's minus the second's
    return Duel(
        rows=kind, slice=name, critical=critical, asked=asked,
        champion=figure(int((part & old.right).sum()), n, metric="right"),
        challenger=figure(int((part & new.right).sum()), n, metric="right"),
        b=b, c=c, n=n, low=-off.high, high=-off.low, margin=margin, p=test.p, delta=delta, verdict=test.verdict,
        rows_needed=test.rows_needed, champion_kept=int((part & old.kept).sum()), challenger_kept=int((part & new.kept).sum()),
        method=test.method,
    )  # fmt: skip


def duel_words(duel: Duel) -> str:
    """
    One comparison in a sentence.

    Args:
        duel: any.

    Returns: for example "safety reports, sealed rows: 71.0% right, the champion 52.0% (b = 1 only the challenger wrong, …)".
    """
    shares = " ".join(
        "nobody answered a row" if one.value is None else f"{who} {one.value:.1%} right"
        for who, one in (("challenger", duel.challenger), ("against champion", duel.champion))
    )
    bar = "better" if duel.asked == "better" else f"at most {100 * duel.margin:.2g} point(s) worse"
    return (
        f"{duel.slice}, {duel.rows} rows: {shares} (b = {duel.b:,} only the challenger wrong, c = {duel.c:,} only the champion, "
        f"n = {duel.n:,}, p = {duel.p:.2g}, at most {duel.delta:.2g} shows that it is {bar})"
    )


def challenge_answer(found: Challenge | None) -> Answer:
    """
    The gate's word on a challenger.

    Args:
        found: the comparison; None where it was asked for and never made.

    Returns: pass; fail where something is shown to be worse; else not-run with the rows that would show it.
    """
    if found is None or not found.duels:
        return Answer(outcome="not-run", reason="the challenger was never compared with the serving release", todo="run `overproof refresh` again")
    if found.passed:
        asked = [d for d in found.duels if d.asked != "nothing"]
        reason = f"nowhere shown worse than {found.champion}, and not worse wherever it is asked: " + "; ".join(map(duel_words, asked))
        return Answer(outcome="pass", reason=reason)
    lost = [d for d in found.held if d.verdict == "fail"]
    reason = f"{'worse than' if lost else 'not shown to hold up against'} {found.champion}: " + "; ".join(map(duel_words, lost or found.held))
    if lost:
        return Answer(outcome=OUTCOMES["fail"], reason=reason, todo="the champion stays; label more of these requests, or use a better student")
    more = [f"{d.slice} about {d.rows_needed:,}" for d in found.held if d.rows_needed is not None]
    todo = f"seal more rows ({', '.join(more)}): raise [watch] refresh_rows, or wait for more traffic" if more else "no number of rows would show it at the rates seen: use a better student"
    return Answer(outcome=OUTCOMES["undecided"], reason=reason, todo=todo)


CHALLENGE = Step(name="challenge", version=1, fn=challenge)
