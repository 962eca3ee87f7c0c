"""The threshold explorer's table: what each planned threshold would keep, how wrong it may be, and what it would cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from overproof.evidence import Certificate, EvalReport, Plan, SliceCertificate
from overproof.measure.intervals import cp_interval, cp_upper
from overproof.steps.certificates import GOLD
from overproof.steps.evaluate import teacher_of
from overproof.store.glance import MOST_COUNTED
from overproof.web.place import Place

MOST_STEPS: Final = 200
LEVEL: Final = 0.95
DAYS: Final = 30
EVERYWHERE: Final = ""
"""Name of the view in which all slices move."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """A share with its interval at `LEVEL`."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Stop:
    """One place of a threshold, and what the sealed rows that choose thresholds say of it."""

    threshold: float | None
    """The student answers at or above it; None: it answers nothing, or each slice has its own. Below 0 it answers everything."""
    n: int
    kept: int
    wrong: int
    share: Share
    """Kept of the rows that move."""
    upper: float | None
    """Upper bound of the error for this place alone, as if it had been the only one looked at; None where nothing is kept."""
    certified: float | None
    """What the certificate says of the plan's own place: the error is at most this. None anywhere else, where nothing is certified."""
    total: Share
    """Kept of all traffic, the slices that don't move at the plan's thresholds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Move:
    """What can be moved: a slice's threshold, or all of them."""

    name: str
    """Of the slice; `EVERYWHERE` for all."""
    stops: tuple[Stop, ...]
    """From nothing kept to everything kept."""
    planned: int
    """Where the plan's own thresholds are; 0, nothing kept, where none was certified."""
    alpha: float
    """The most of the error that the plan admits; the largest of the slices' where all move."""
    level: float
    """Confidence of the bounds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Volume:
    """Requests a month, and where the figure comes from."""

    requests: float | None
    words: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Explorer:
    """Everything that the page moves."""

    by: str
    """"teacher" or "gold": what an answer has to equal."""
    of_all: bool
    """The error is a share of all requests (a budget), not of the kept ones."""
    moves: tuple[Move, ...]
    """All together first, where there are several slices."""
    student_usd: float
    """Per 1,000 requests, all of which the student reads."""
    teacher_usd: float | None
    """Per 1,000 requests that it answers; None where not known."""
    method: str
    """How the share of all traffic is counted."""

    def month(self, stop: Stop | None, volume: float | None) -> Share | None:
        """What a month costs at a stop in USD, or with the teacher alone; None where price or volume are not known."""
        if self.teacher_usd is None or volume is None:
            return None
        per = volume / 1000
        if stop is None:
            return Share(value=per * self.teacher_usd, low=per * self.teacher_usd, high=per * self.teacher_usd)
        cost = [per * (self.student_usd + (1 - kept) * self.teacher_usd) for kept in (stop.total.value, stop.total.high, stop.total.low)]
        return Share(value=cost[0], low=cost[1], high=cost[2])


def explorer_of(report: EvalReport, plan: Plan, *, by: str = "", boosted: Mapping[str, int] | None = None) -> Explorer:
    """
    The table, from a certificate's own counts: no sealed row is read for it.

    Args:
        report: of a run.
        plan: the run's plan.
        by: "gold" or "teacher" for that certificate, where there are two; else the one that the release stands on.
        boosted: critical slices to sealed rows drawn beyond their share; they don't count as traffic.

    Returns: the table.
    """
    both = [one for one in (report.certificate, report.other) if one is not None]
    certificate = next((one for one in both if by and (one.label_kind == GOLD) is (by == "gold")), both[0])
    parts = [part for part in certificate.slices if part.grid]
    weights = {one.slice: one.dev_n for one in plan.slices} if boosted else {}
    totals = _Totals(parts, weights, joint=certificate.moved == "cost")
    moves = [_slice_move(part, certificate, totals, at) for at, part in enumerate(parts)]
    if len(parts) > 1:
        moves.insert(0, _all_move(parts, certificate, totals))
    chosen, teacher = next(c for c in report.candidates if c.name == report.chosen), teacher_of(report)
    return Explorer(
        by="gold" if certificate.label_kind == GOLD else "teacher",
        of_all=certificate.supports == "G2",
        moves=tuple(moves),
        student_usd=chosen.cost_usd_per_1000,
        teacher_usd=teacher.cost_usd_per_1000 if teacher is not None and teacher.cost_usd_per_1000 > 0 else None,
        method=totals.method,
    )


class _Totals:
    """Shares of all traffic for one place in each slice's grid; -1 keeps nothing there."""

    def __init__(self, parts: Sequence[SliceCertificate], weights: Mapping[str, int], *, joint: bool) -> None:
        self._parts = parts
        known = sum(weights.get(one.slice, 0) for one in parts)
        self._weights = [weights.get(one.slice, 0) / known for one in parts] if known else []
        places = [_place(one) for one in parts]
        self.planned = [max(places)] * len(parts) if joint and parts else places  # on that path a slice without a threshold stands at the same step
        self.method = "each slice by its share of the calibration rows, Clopper-Pearson ends of all slices at once" if known else "Clopper-Pearson"

    def at(self, places: Sequence[int]) -> Share:
        kept = [_counts(one, place)[1] for one, place in zip(self._parts, places, strict=True)]
        if not self._weights:
            return _share(sum(kept), sum(one.n for one in self._parts))
        level = 1 - (1 - LEVEL) / len(self._parts)
        found = [_share(k, one.n, level=level) for k, one in zip(kept, self._parts, strict=True)]
        value, low, high = (sum(w * getattr(one, end) for w, one in zip(self._weights, found, strict=True)) for end in ("value", "low", "high"))
        return Share(value=value, low=low, high=high)


def _share(k: int, n: int, *, level: float = LEVEL) -> Share:
    if n == 0:
        return Share(value=0.0, low=0.0, high=1.0)
    ends = cp_interval(k, n, level=level)
    return Share(value=k / n, low=ends.low, high=ends.high)


def _counts(part: SliceCertificate, place: int) -> tuple[int, int]:
    return part.counts[place] if place >= 0 else (0, 0)


def _place(part: SliceCertificate) -> int:
    """Where the plan's own threshold is in the grid; -1 where the slice stays with the teacher."""
    return -1 if part.threshold is None else min(range(len(part.grid)), key=lambda j: abs(part.grid[j] - (part.threshold or 0.0)))


def _slice_move(part: SliceCertificate, certificate: Certificate, totals: _Totals, at: int) -> Move:
    of_all, planned = certificate.supports == "G2", totals.planned[at]
    delta = part.delta if part.delta > 0 else certificate.delta_spent
    stated = part.alpha if certificate.moved != "cost" else None  # along that path the certificate is of all slices together
    stops = []
    for place in range(-1, len(part.grid)):
        wrong, kept = _counts(part, place)
        stops.append(
            Stop(
                threshold=part.grid[place] if place >= 0 else None, n=part.n, kept=kept, wrong=wrong, share=_share(kept, part.n),
                upper=cp_upper(wrong, part.n if of_all else kept, delta) if kept else None, certified=stated if kept and place == planned else None,
                total=totals.at([*totals.planned[:at], place, *totals.planned[at + 1 :]]),
            )
        )  # fmt: skip
    return Move(name=part.slice, stops=tuple(stops), planned=planned + 1, alpha=part.alpha, level=1 - delta)


def _all_move(parts: Sequence[SliceCertificate], certificate: Certificate, totals: _Totals) -> Move:
    """Every slice at one threshold, and each at its own as planned; or all at one step of the path that they follow together."""
    ways: list[tuple[float | None, list[int]]]
    if certificate.moved != "alone":
        ways = [(None, [place] * len(parts)) for place in range(min(len(one.grid) for one in parts))]
    else:
        wanted = _thinned(sorted({t for one in parts for t in one.grid}, reverse=True))
        ways = [(t, [sum(own >= t for own in one.grid) - 1 for one in parts]) for t in wanted]
    stated = max([one.alpha for one in parts if one.threshold is not None], default=None)

    def stop(threshold: float | None, places: Sequence[int]) -> Stop:
        pairs = [_counts(one, place) for one, place in zip(parts, places, strict=True)]
        wrong, kept, n = sum(w for w, _ in pairs), sum(k for _, k in pairs), sum(one.n for one in parts)
        own = all(place == was or k == 0 > was for place, was, (_, k) in zip(places, totals.planned, pairs, strict=True))
        return Stop(
            threshold=threshold, n=n, kept=kept, wrong=wrong, share=_share(kept, n), total=totals.at(places), certified=stated if kept and own else None,
            upper=cp_upper(wrong, n if certificate.supports == "G2" else kept, certificate.delta_spent) if kept else None,
        )  # fmt: skip

    stops = [stop(None, [-1] * len(parts)), *(stop(t, places) for t, places in ways)]
    if certificate.moved == "alone" and stated is not None and not any(one.certified for one in stops):
        mine = stop(None, totals.planned)
        stops.insert(sum(one.kept <= mine.kept for one in stops), mine)
    planned = next((at for at, one in enumerate(stops) if one.certified), 0)
    return Move(name=EVERYWHERE, stops=tuple(stops), planned=planned, alpha=max(one.alpha for one in parts), level=1 - certificate.delta_spent)


def _thinned(values: list[float]) -> list[float]:
    """At most `MOST_STEPS`, spread evenly, both ends among them."""
    if len(values) <= MOST_STEPS:
        return values
    return [values[round(i * (len(values) - 1) / (MOST_STEPS - 1))] for i in range(MOST_STEPS)]


def table_of(found: Explorer) -> dict[str, Any]:
    """
    The table for the page's script: numbers alone.

    Args:
        found: the explorer.

    Returns: JSON values; a stop is a list in the order of `FIELDS`.
    """

    def plain(stop: Stop) -> list[Any]:
        row = [stop.threshold, stop.n, stop.kept, stop.wrong, *_ends(stop.share), stop.upper, stop.certified, *_ends(stop.total)]
        return [round(value, 7) if isinstance(value, float) else value for value in row]

    moves = [{"name": one.name, "planned": one.planned, "alpha": one.alpha, "level": one.level, "stops": [plain(stop) for stop in one.stops]} for one in found.moves]
    return {"of_all": found.of_all, "student": found.student_usd, "teacher": found.teacher_usd, "moves": moves}


def _ends(share: Share) -> tuple[float, float, float]:
    return share.value, share.low, share.high


def volume_of(place: Place, requests_per_month: float | None) -> Volume:
    """
    Requests a month, as the log's last days say.

    Args:
        place: the task.
        requests_per_month: what the run went by; for a log of less than a day or without times.

    Returns: the figure with its origin in words.
    """
    seen = place.store.glance.last_days(DAYS)
    if seen is None or seen.days <= 0 or (seen.days < 1 and seen.rows < MOST_COUNTED // 2):
        return Volume(requests=requests_per_month, words="as the run measured it" if requests_per_month else "the log has no times, so no volume is known")
    if seen.days >= DAYS:
        return Volume(requests=float(seen.rows), words=f"requests of the {DAYS} days up to {seen.until:%Y-%m-%d}")
    return Volume(requests=seen.rows / seen.days * DAYS, words=f"from {seen.rows:,} requests in {seen.days:.3g} days up to {seen.until:%Y-%m-%d}")
