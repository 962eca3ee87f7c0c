"""The sizing verdict in words: the smallest student that clears the bars, what limits each, what to try next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from overproof.evidence import Expected, Figure, Outcome, Pair, Plan, Size, Sizes, SizeVerdict, Sizing
from overproof.measure.intervals import figure
from overproof.measure.learning import limit_of, out_of_reach
from overproof.steps.choice import SAME_BILL, seed_spread
from overproof.steps.collect import Evidence
from overproof.store.artifacts import Step
from overproof.task import Bar

LITTLE = 0.01  # a gain under a point is nobody's reason to label twice as many rows
FULL = '"encoder.v1" with tune = "full"'
LADDERS: Mapping[str, tuple[str, ...]] = {
    "classes": ("linear.v1", "static.v1", "encoder.v1", FULL, 'a larger encoder for "encoder.v1"'),
    "fields": ("span.v1", "causal.v1", 'a larger base for "causal.v1"'),
    "text": ("causal.v1", 'a larger base for "causal.v1"'),
}
"""What to try, from small to large; the last rungs are settings of the part before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VerdictRecipe:
    """What the verdict holds the sizes against."""

    bars: tuple[Bar, ...]
    """Overall bars."""
    tried: tuple[str, ...]
    """Rungs of the ladder that the project has, see `rung_of`."""
    known: tuple[str, ...]
    """Students that are installed."""
    kind: str = "classes"
    """Which ladder."""
    samples: int = 1
    """First answers of the teacher on each row; with several the labels are no single answers."""


def rung_of(use: str, options: Mapping[str, object]) -> str:
    """
    Where a student stands on the ladder.

    Args:
        use: part name.
        options: of the part.

    Returns: a rung, or the part's name where it is on none.
    """
    tuned = use == "encoder.v1" and str(options.get("tune", "frozen")) != "frozen"
    return FULL if tuned else use


def next_rung(tried: Sequence[str], known: Sequence[str], *, kind: str = "classes", above: str = "") -> str:
    """
    The next student to try.

    Args:
        tried: rungs that were tried.
        known: parts that are installed; others are never proposed.
        kind: which ladder.
        above: look only above this rung; empty for all.

    Returns: a rung as it is called in the project file, or an empty text where the ladder ends.
    """
    ladder = LADDERS[kind]
    start = ladder.index(above) + 1 if above in ladder else 0
    for rung in ladder[start:]:
        part = next((name for name in ladder if f'"{name}"' in rung), rung)
        if rung not in tried and part in known:
            return rung
    return ""


def size_verdict(evidence: Evidence, sizes: Sizes, plan: Plan, recipe: VerdictRecipe) -> Evidence:
    """
    Add the sizing verdict to the evidence.

    Args:
        evidence: with the teacher's agreement with itself, where it was measured.
        sizes: what was measured on calibration rows.
        plan: what each student was expected to do as served.
        recipe: bars and ladder.

    Returns: the evidence with `sizing`.
    """
    noise = _noise(evidence, recipe)
    beaten = {pair.second for pair in sizes.pairs if pair.better}
    clears = {e.name for e in plan.expected if e.clears}
    told = tuple(_told(size, noise, recipe, beaten=size.name in beaten, clears=size.name in clears) for size in sizes.sizes)
    smallest = next((e.name for e in plan.expected if e.clears), "")
    sizing = Sizing(
        sizes=sizes, students=told, expected=plan.expected, chosen=plan.chosen, smallest=smallest,
        headline=_headline(plan, smallest, told), next_candidate=_next(plan, smallest, told, sizes, recipe),
    )  # fmt: skip
    return replace(evidence, sizing=sizing)


def _noise(evidence: Evidence, recipe: VerdictRecipe) -> Figure | None:
    """How often two answers of the teacher differ; says nothing of labels that several answers or teachers decided."""
    found = evidence.data.ceiling if evidence.data is not None else None
    if found is None or found.committee or recipe.samples > 1 or not found.agreement.n:
        return None
    return figure(found.agreement.n - found.agreement.good, found.agreement.n, metric="self-disagreement")


def _told(size: Size, noise: Figure | None, recipe: VerdictRecipe, *, beaten: bool, clears: bool) -> SizeVerdict:
    limit = limit_of(size.train_error, size.error, size.curve, noise=noise, contested=size.contested, beaten=beaten)
    bar = next((b for b in recipe.bars if b.metric == "fidelity"), None)
    far = bar is not None and out_of_reach(size.error, size.curve, at_most=1.0 - bar.at_least)
    too_small = limit.kind == "capacity" and far and not clears
    why = limit.why
    if too_small and bar is not None:
        best = max(0.0, size.error.low - size.curve.gains[-1].high)
        why += (
            f"; with four times the rows it would still err on at least {best:.1%} by itself, the bar admits "
            f"{1 - bar.at_least:.1%}: too small, no loss or data will mend it"
        )
    return SizeVerdict(name=size.name, limit=limit.kind, why=why, too_small=too_small, twice=_twice(size))


def _twice(size: Size) -> str:
    if not size.curve.gains:
        return f"can't tell: {size.curve.why}"
    gain = size.curve.gains[0]
    range_ = f"{100 * gain.low:+.1f} to {100 * gain.high:+.1f} points, {size.curve.level:.0%} interval, n = {size.curve.n:,}"
    if gain.low > 0.0:
        return f"about {100 * gain.value:.1f} points of agreement ({range_})"
    return f"can't tell, little at most ({range_})" if gain.high < LITTLE else f"can't tell ({range_})"


def _headline(plan: Plan, smallest: str, told: Sequence[SizeVerdict]) -> str:
    small = [v.name for v in told if v.too_small]
    beside = f" {', '.join(small)}: too small, no loss or data will mend it." if small else ""
    if len(told) < 2:
        return f"One size was tried ({plan.chosen}): nobody can say whether a smaller one would do, or a larger one do better.{beside}"
    if not smallest:
        return f"None of {len(told)} students is expected to clear every bar; {plan.chosen} is nearest.{beside}"
    if smallest == plan.chosen:
        return f"{plan.chosen} is the smallest of {len(told)} students that is expected to clear every bar as served.{beside}"
    return (
        f"{smallest} is the smallest of {len(told)} students that is expected to clear every bar as served; {plan.chosen} "
        f"costs less as served by more than seeds or a hundredth of the bill explain.{beside}"
    )


def _next(plan: Plan, smallest: str, told: Sequence[SizeVerdict], sizes: Sizes, recipe: VerdictRecipe) -> str:
    chosen = next((v for v in told if v.name == plan.chosen), None)
    use = next((s.use for s in sizes.sizes if s.name == plan.chosen), "")
    rungs = [rung for rung in recipe.tried if rung == use or f'"{use}"' in rung]
    up = next_rung(recipe.tried, recipe.known, kind=recipe.kind, above=rungs[-1] if rungs else "")
    anything = next_rung(recipe.tried, recipe.known, kind=recipe.kind)
    if smallest:
        ladder = LADDERS[recipe.kind]
        lower = anything in ladder and use in ladder and ladder.index(anything) < ladder.index(use)
        if lower:
            return f"{anything}: it is smaller than {plan.chosen}, and nobody knows whether it would do"
        return "nothing: a larger student is not needed" if len(told) > 1 else f"{anything}: the gate asks for two sizes" if anything else ""
    if chosen is not None and chosen.limit == "labels":
        return "better labels, no larger student: ask the teacher several times on hard rows, or mend its prompt"
    if chosen is not None and chosen.limit == "data":
        return "more training rows of the same kind" + (f"; beside it {up}, which may need fewer" if up else "")
    return up or "the ladder ends here: a larger base than these parts know, or easier bars with a reason"


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What the gate's check says."""

    outcome: Outcome
    reason: str
    todo: str = ""


def smaller_answer(sizing: Sizing | None) -> Answer:
    """
    The gate's word on size: no smaller student does as well as the one that is to ship.

    Args:
        sizing: the verdict; None where nothing was compared.

    Returns: pass, fail where a smaller one that clears the bars ties with it, not-run where there is nothing to compare.
    """
    if sizing is None or len(sizing.expected) < 2:
        return Answer(outcome="not-run", reason="fewer than two students were compared", todo="add a second [[student]] of another size")
    chosen = next((e for e in sizing.expected if e.name == sizing.chosen), None)
    if chosen is None:
        return Answer(outcome="not-run", reason=f"nothing is known of {sizing.chosen} on calibration rows", todo="run `overproof run` again")
    spread = sizing.sizes.spread()
    tied = [e for e in sizing.expected if e.size_bytes < chosen.size_bytes and e.clears and ties(e, chosen, spread)]
    seeds = _seeds_words(sizing.sizes.pairs)
    if tied and chosen.clears:
        least = min(tied, key=lambda e: e.size_bytes)
        reason = f"{least.name} clears every bar at the same cost ({least.cost:.4g} against {chosen.cost:.4g}), and is smaller{seeds}"
        return Answer(outcome="fail", reason=reason, todo=f"serve {least.name}: run again, or take {chosen.name} out")
    return Answer(outcome="pass", reason=f"{sizing.headline[:-1]}{seeds}")


def ties(one: Expected, other: Expected, spread: Mapping[str, float]) -> bool:
    """
    Whether seeds or a hundredth of the bill explain the difference in cost.

    Args:
        one: a student.
        other: another one.
        spread: see `choice.choose`.

    Returns: True where the first is no dearer than that.
    """
    return one.cost <= other.cost + other.bill * max(SAME_BILL, seed_spread(one.name, other.name, spread))


def _seeds_words(pairs: Sequence[Pair]) -> str:
    told = [pair_words(pair) for pair in pairs]
    return "; " + "; ".join(told) if told else ""


def pair_words(pair: Pair) -> str:
    """
    Two students and what seeds change, in words.

    Args:
        pair: any pair.

    Returns: for example "encoder.v1 errs 2.1 points less than linear.v1 (+0.4 to +3.8, n = 1,000; 3 seeds: 0.5 points)".
    """
    unmoved = "seeds change nothing" if pair.seed_sd == 0.0 else ""
    spread = unmoved or f"seeds change it by {100 * pair.seed_sd:.1f} points (sd, {pair.seeds} seeds)" if pair.seed_sd is not None else "no seeds tried"
    tie = "" if pair.better else ": a tie"
    return (
        f"{pair.first} errs {100 * pair.difference:.1f} points less than {pair.second} ({100 * pair.low:+.1f} to "
        f"{100 * pair.high:+.1f}, n = {pair.n:,}; {spread}){tie}"
    )


SIZE_VERDICT = Step(name="size-verdict", version=1, fn=size_verdict)
