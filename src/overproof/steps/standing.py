"""Everything that could serve, side by side: good enough or not, latency, money a month, and when distilling pays back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from overproof.evidence import (
    CandidateReport,
    EvalReport,
    Figure,
    OneOff,
    Span,
    Standing,
    StandingReport,
)
from overproof.steps.collect import DataEvidence
from overproof.steps.evaluate import teacher_of
from overproof.steps.optimise import Optimised
from overproof.store.artifacts import Step

THOUSAND = 1000
LEAST_USD = 1e-6  # a month; what the ledger can't count is no saving
UNKNOWN = Span(value=None, low=None, high=None)


@dataclass(frozen=True, kw_only=True, slots=True)
class WeighRecipe:
    """Volume, and what the run can't measure."""

    requests_per_month: float | None
    """None where not known; then nothing is said by the month."""
    cpu_usd_per_hour: float
    """Price of one core."""
    training_s: float | None
    """Processor seconds of the chosen student's training; None where not on record."""
    review_usd: float = 0.0
    """What reviews cost, as the project file says."""
    other_usd: float = 0.0
    """Anything else that is paid once, as the project file says."""


def weigh(
    report: EvalReport, data: DataEvidence, searches: tuple[Optimised, ...], recipe: WeighRecipe
) -> StandingReport:
    """
    Put the chosen student as served beside every other way to serve.

    Args:
        report: the evaluation on sealed rows.
        data: who gave the labels, and what they cost.
        searches: prompt searches of baselines.
        recipe: volume and prices.

    Returns: rows in the order served, students, baselines, teacher; what isn't known is None and concludes nothing.
    """
    once, spent = one_off(data, recipe), {one.search.name: one.search.cost_usd for one in searches}
    chosen, teacher = next(c for c in report.candidates if c.name == report.chosen), teacher_of(report)
    alone = _price(teacher)
    rows = [_served(chosen, alone, once.usd, recipe)]
    for c in sorted(report.candidates, key=lambda c: ("student", "baseline", "teacher").index(c.kind)):
        price = _price(c)
        rows.append(_standing(c, Span(value=price, low=price, high=price), alone, spent.get(c.name, 0.0), recipe))
    made = StandingReport(
        rows=tuple(rows),
        requests_per_month=recipe.requests_per_month,
        once=once,
        searches=tuple(one.search for one in searches),
        enough=report.cheaper or "",
        words=(),
    )
    return StandingReport(
        rows=made.rows, requests_per_month=made.requests_per_month, once=once, searches=made.searches,
        enough=made.enough, words=tuple(_words(made, report.chosen)),
    )  # fmt: skip


def one_off(data: DataEvidence, recipe: WeighRecipe) -> OneOff:
    """
    What distilling costs once.

    Args:
        data: who gave the labels, and what they cost.
        recipe: training time, reviews and the rest.

    Returns: the parts of the sum.
    """
    brought = data.pin.use.startswith("recorded.")
    return OneOff(
        labels_usd=0.0 if brought else data.spent_usd,
        labels_from="the traffic brought the answers" if brought else f"answers of {data.pin.model}",
        review_usd=recipe.review_usd,
        training_usd=(recipe.training_s or 0.0) * recipe.cpu_usd_per_hour / 3600,
        training_s=recipe.training_s,
        other_usd=recipe.other_usd,
    )


def payback(once_usd: float, saved: Span) -> Span:
    """
    Months until what is saved has paid for what was spent.

    Args:
        once_usd: what it takes once.
        saved: a month, with its interval.

    Returns: the shortest at the largest saving; None where the saving isn't above zero, which is never, or isn't known.
    """

    def months(usd: float | None) -> float | None:
        return once_usd / usd if usd is not None and usd >= LEAST_USD else None

    return Span(value=months(saved.value), low=months(saved.high), high=months(saved.low))


def _price(candidate: CandidateReport | None) -> float | None:
    """USD per 1,000, where anybody measured it. A teacher without a price has 0, which is no price."""
    if candidate is None or (candidate.kind == "teacher" and candidate.cost_usd_per_1000 <= 0):
        return None
    return candidate.cost_usd_per_1000 if candidate.cost_n or candidate.cost_usd_per_1000 > 0 else None


def _served(chosen: CandidateReport, alone: float | None, once_usd: float, recipe: WeighRecipe) -> Standing:
    kept, own = chosen.slices[0].kept, _price(chosen)
    price = UNKNOWN
    if kept is not None and kept.value is not None and alone is not None and own is not None:
        value, low, high = (own + (1.0 - share) * alone for share in (kept.value, kept.high, kept.low))
        price = Span(value=value, low=low, high=high)
    return _standing(chosen, price, alone, once_usd, recipe, served=True)


def _standing(
    c: CandidateReport, price: Span, alone: float | None, once_usd: float, recipe: WeighRecipe, *, served: bool = False
) -> Standing:
    thousands = recipe.requests_per_month / THOUSAND if recipe.requests_per_month else None
    month, saved = UNKNOWN, UNKNOWN
    if thousands is not None and price.value is not None and price.low is not None and price.high is not None:
        month = Span(value=price.value * thousands, low=price.low * thousands, high=price.high * thousands)
        # A student alone has no teacher behind it and a teacher saves nothing against itself: nobody would serve them so.
        if alone is not None and (served or c.kind == "baseline"):
            saved = Span(
                value=(alone - price.value) * thousands, low=(alone - price.high) * thousands, high=(alone - price.low) * thousands
            )
    alike = {"student": "student alone, for comparison", "teacher": "teacher", "baseline": c.role or "built-in baseline"}
    return Standing(
        name=f"{c.name} as served" if served else c.name,
        kind=c.kind,
        role="student, with the teacher behind it" if served else alike[c.kind],
        clears_bars=c.clears_bars if served or c.kind != "student" else "undecided",
        latency_s=c.latency_s,
        latency_p95_s=c.latency_p95_s,
        latency_n=c.latency_n,
        usd_per_1000=price.value,
        usd_per_month=month,
        saved_per_month=saved,
        once_usd=once_usd,
        payback_months=payback(once_usd, saved),
    )


def _words(made: StandingReport, chosen: str) -> Iterator[str]:
    served, once = made.rows[0], made.once
    by = {row.name: row for row in made.rows[1:]}
    if made.enough:
        other = by[made.enough]
        yield (
            f"doing nothing is enough: {other.name} ({other.role}) clears every bar at {_usd(other)}, against {_usd(served)} for"
            f" {chosen} as served"
        )
    else:
        dear = [row for row in by.values() if row.kind == "baseline" and row.clears_bars == "pass"]
        yield from (f"{row.name} ({row.role}) clears every bar too, at {_usd(row)}, {_against(row, served)}" for row in dear)
    time = "" if once.training_s is None else f", {once.training_s:,.0f} s of processor time"
    parts = (
        f"labels {once.labels_usd:,.2f} ({once.labels_from}), reviews {once.review_usd:,.2f}, training {once.training_usd:,.4f}{time},"
        f" other {once.other_usd:,.2f}"
    )
    saved, months = served.saved_per_month, served.payback_months
    costs = f"distilling costs {once.usd:,.2f} USD once ({parts})"
    if saved.value is None or saved.low is None or saved.high is None:
        lacking = "volume" if made.requests_per_month is None else "teacher's price or the kept share"
        yield f"{costs}; when it pays back isn't known, for want of the {lacking}"
    elif months.value is None:
        best = "" if months.low is None else f", at the best {_months(months.low)}"
        yield f"{costs} and never pays back: as served it saves {saved.value:,.2f} USD a month ({saved.low:,.2f} to {saved.high:,.2f}){best}"
    else:
        yield (
            f"{costs} and saves {saved.value:,.2f} USD a month ({saved.low:,.2f} to {saved.high:,.2f} at the ends of the kept share's"
            f" interval; volume and prices as they stand): pays back in {_months(months.value)}"
            f" ({_months(months.low)} to {_months(months.high)})"
        )
    yield from (search.words for search in made.searches)


def _against(row: Standing, served: Standing) -> str:
    if row.usd_per_1000 is None or served.usd_per_1000 is None:
        return "so that nobody knows which is cheaper"
    return f"against {_usd(served)} for {served.name}"


def _usd(row: Standing) -> str:
    if row.usd_per_1000 is None:
        return "an unknown price"
    month = "" if row.usd_per_month.value is None else f", {row.usd_per_month.value:,.2f} a month"
    return f"{row.usd_per_1000:.4g} USD per 1,000{month}"


def _months(value: float | None) -> str:
    if value is None:
        return "never"
    return f"{value:,.1f} months" if value >= 1 or value == 0 else f"{value * 30:,.1f} days"


def slice_columns(report: EvalReport, *, most: int = 12) -> list[tuple[str, dict[str, Figure]]]:
    """
    Each candidate's agreement with the teacher, or accuracy for the teacher itself, slice by slice.

    Args:
        report: the evaluation.
        most: slices to list; the first is all traffic.

    Returns: slice and, by candidate, its figure; labels are no part of it.
    """
    names = [s.slice for s in report.candidates[0].slices if s.kind != "label"][:most]
    found = []
    for name in names:
        row: dict[str, Figure] = {}
        for c in report.candidates:
            one = next((s for s in c.slices if s.slice == name and s.kind != "label"), None)
            if one is not None:
                shown = one.accuracy if c.kind == "teacher" else one.fidelity
                row |= {c.name: shown} if shown is not None else {}
        found.append((name, row))
    return found


WEIGH = Step(name="weigh", version=1, fn=weigh)
