"""When a release may go on, when it has to go back: a pure state machine over counts, with the clock as an argument."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal

from overproof.data import ALL, PlannedStage, RolloutState, StageCounts, digest_of, planned_stages, seconds_of
from overproof.errors import MeasureError
from overproof.evidence import Certificate
from overproof.measure.intervals import confidence_sequence, min_rows
from overproof.measure.monitor import Fold, alarm_level, canary_increment, fold_restart, increment
from overproof.measure.slices import hash_unit
from overproof.settings import ServeTable

DELTA = 0.05  # chance of any false alarm on the whole way of one release
PASS_DELTA = 0.05  # chance that a bar that is not met ever passes in one stage
LEAST_SERVED = 30  # requests of the student's arm before a canary has shown anything
STALE_S = 2 * 86_400.0  # evidence without a comparison for longer than this is old
IMPOSSIBLE = "the counts can't be"
FAR = 10_000_000  # rows beyond which nobody waits for a bound
_CHUNK = 64
SLICE_SHARE = 0.5  # of DELTA; the rest is for what concerns the whole release
Slots = Mapping[str, Sequence[StageCounts]]
Kind = Literal["slice", "overall", "faults", "arms"]
NAMES = {"overall": "all slices", "faults": "faults", "arms": "failures of the arms"}
Compare = Literal["", "drawn", "critical"]
"""Whether both models are asked: not; by the draw that is alike in all slices; only since the slice is critical."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SliceBar:
    """What one certification slice is held to."""

    slice: str
    bar: float
    """The most of the kept answers that may differ from the teacher's, in (0, 1)."""
    critical: bool = False
    """In canary its alarm rolls the whole release back."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RolloutPlan:
    """What a release has to show on its way; `rollout_plan` makes one."""

    stages: tuple[PlannedStage, ...]
    slices: tuple[SliceBar, ...]
    """Slices in which the student may answer."""
    overall: float
    """The most of all kept answers that may differ from the teacher's, in (0, 1)."""
    faults: float
    """The most of the looks that may end without an answer in time and form, in (0, 1)."""
    hold_s: float
    """How long evidence may be missing before the release goes back."""
    by_evidence: bool = False
    """Whether a stage ends by itself."""
    expires: str = "9999-12-31"
    """ISO date, the last day of the certificate: nothing is promoted after it."""
    delta: float = DELTA
    """Chance of any false alarm on the whole way."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """What all gateways have seen since the stage began."""

    slots: Slots
    """Slice to its slots in order; `ALL` counts all slices together."""
    newest: float | None = None
    """When the last comparison was counted, in seconds since 1970; None where none was."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BarState:
    """Where one bar of the present stage stands."""

    kind: Kind
    slice: str
    """`ALL` for what concerns the whole release."""
    n: int
    """Answers that count."""
    wrong: int
    bar: float
    """The most that the share of wrong ones may be; for arms the most by which the student's may fail more often."""
    least: int
    """Below so many answers nothing is decided."""
    log_e: float
    """Evidence that the bar is broken, as a logarithm."""
    alarm_at: float
    """The evidence at which that is certain enough."""
    critical: bool = False
    upper: float = 1.0
    """Upper bound of the share of wrong ones that may be read at any time, in [0, 1]; 1 where it was not asked for."""
    broken: str = ""
    """Why these counts are no evidence; empty where they are."""
    per_answer: float = 1.0
    """Requests for each answer that counts."""

    @property
    def name(self) -> str:
        """How people see it."""
        return f"slice {self.slice!r}" if self.kind == "slice" else NAMES[self.kind]

    @property
    def alarm(self) -> bool:
        """Whether the bar is surely broken."""
        return self.log_e >= self.alarm_at

    @property
    def missing(self) -> str:
        """What is missing to decide anything; empty where nothing is."""
        return self.broken or (f"{self.n} of {self.least} answers" if self.n < self.least else "")

    @property
    def passed(self) -> bool:
        """Whether the bar is surely met; of arms, whether there is enough to have raised an alarm."""
        return not self.missing and (self.kind == "arms" or self.upper <= self.bar)

    @property
    def requests_to_go(self) -> int | None:
        """About how many more requests it takes to pass if the rate stays as it is; None: not at this rate."""
        if self.passed:
            return 0
        rate = (self.wrong + 0.5) / (self.n + 1.0) if self.n < self.least else self.wrong / self.n
        if self.kind != "arms" and (rate >= self.bar or self.broken):
            return None
        needed: int | None = self.least
        if self.kind != "arms":
            needed = _first(lambda n: confidence_sequence(round(rate * n), n, PASS_DELTA).high <= self.bar, max(self.least, self.n))
        return None if needed is None else max(1, round((needed - self.n) * self.per_answer))


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What is to be done now."""

    move: Literal["hold", "promote", "roll-back", "suspend-slice"]
    why: str
    to: PlannedStage | None = None
    """The next stage, for a promotion; where `ready`, the one that a person may go to."""
    slices: Mapping[str, str] | None = None
    """Slices to suspend, each with the reason."""
    ready: bool = False
    """Whether time and evidence are there and only a person's word is missing."""
    breach: bool = False
    """Whether a bar is surely broken."""
    evidence: Mapping[str, Any] | None = None
    """What it rests on, as JSON can say it."""

    @property
    def evidence_digest(self) -> str:
        """SHA-256 of the evidence."""
        return digest_of(dict(self.evidence or {}))


def rollout_plan(serve: ServeTable, certificate: Certificate, *, critical: Collection[str] = ()) -> RolloutPlan:
    """
    What a release is held to on its way.

    Args:
        serve: [serve] of the project.
        certificate: of the release.
        critical: names of critical slices.

    Returns: the plan. A slice's bar is what its certificate says of disagreement with the teacher; where it speaks of
        truth instead, the overall bar.
    """
    overall = serve.overall_bar
    bars = []
    for part in certificate.slices:
        if part.threshold is None:
            continue
        bar = overall if certificate.label_kind == "gold" else certificate.kept_bar(part)
        bars.append(SliceBar(slice=part.slice, bar=bar, critical=part.slice in critical))
    if certificate.supports == "G2" and serve.fidelity_below is None and bars:
        overall = max(overall, *(one.bar for one in bars))
    return RolloutPlan(
        stages=planned_stages(serve.stages), slices=tuple(bars), overall=overall, faults=serve.errors_above,
        hold_s=seconds_of(serve.hold_deadline), by_evidence=serve.promote == "by-evidence", expires=certificate.expires,
    )  # fmt: skip


def compare_by(state: RolloutState, request_id: str, *, by_student: bool, critical: bool, share: float) -> Compare:
    """
    Whether a kept answer of the student is held against the teacher's; every gateway says the same.

    Args:
        state: when the request came.
        request_id: its id.
        by_student: whether the student's answer is served, so that the teacher would have to be asked besides.
        critical: whether its slice is critical.
        share: [serve] compare, in (0, 1].

    Returns: what to hand to `Tally.comparison`; "" where only one model is asked.
    """
    if not by_student or hash_unit(request_id, f"compare {state.release_id}") < share:
        return "drawn"
    return "critical" if critical and state.stage == "canary" else ""


def bars_of(plan: RolloutPlan, state: RolloutState, evidence: Evidence, *, bounds: bool = True) -> tuple[BarState, ...]:
    """
    Where every bar of the stage stands.

    Args:
        plan: what the release is held to.
        state: where it is.
        evidence: what was seen there.
        bounds: work out `upper` too, which promotions and people need, but alarms don't.

    Returns: the slices that are not suspended, then what concerns the whole release.
    """
    life = plan.delta / max(1, len(plan.stages))
    each = SLICE_SHARE / max(1, len(plan.slices))
    rest = (1.0 - SLICE_SHARE) / 3.0
    found = [
        _bar("slice", one, evidence, alarm_level(life, weight=each), bounds=bounds)
        for one in plan.slices
        if one.slice not in state.suspended
    ]
    whole: dict[Kind, float] = {"overall": plan.overall, "faults": plan.faults}
    if state.stage == "canary":
        whole["arms"] = state.share
    at = alarm_level(life, weight=rest)
    found += [_bar(kind, SliceBar(slice=ALL, bar=bar), evidence, at, bounds=bounds) for kind, bar in whole.items()]
    return tuple(found)


def decide(plan: RolloutPlan, state: RolloutState, evidence: Evidence, now: float) -> Decision:
    """
    What is to be done with a release: alarms first, then missing evidence, then the next stage.

    Args:
        plan: what the release is held to.
        state: where it is.
        evidence: what was seen there.
        now: seconds since 1970.

    Returns: the decision; anything that is not known to be good is "hold" at best.
    """
    if state.release_id is None:
        return Decision(move="hold", why="the teacher answers alone")
    over = now - state.since >= _present(plan, state).least_s
    bars = bars_of(plan, state, evidence, bounds=over)
    facts = evidence_of(state, bars, evidence)
    broken = _breach(state, bars, facts)
    if broken is not None:
        return broken
    if not any(one.kind == "slice" for one in bars):
        return Decision(move="roll-back", why="no slice is left in which the student may answer", evidence=facts)
    held = _held(plan, state, evidence, bars, now)
    if held is not None:
        return Decision(move=held.move, why=held.why, slices=held.slices, evidence=facts)
    after = next_stage(plan, state)
    if after is None:
        return Decision(move="hold", why="full is the last stage", evidence=facts)
    open_ = [one for one in bars if not one.passed]
    if not over or open_ or _day(now) > plan.expires:
        why = f"not proven yet: {', '.join(one.name for one in open_)}" if open_ else f"the certificate ended on {plan.expires}"
        why = why if over else f"{state.stage} lasts {_present(plan, state).least_s / 3600:g} hours at least"
        return Decision(move="hold", why=why, to=after, evidence=facts)
    why = "time and evidence are there: every bar is surely met"
    return Decision(move="promote" if plan.by_evidence else "hold", why=why, to=after, ready=True, evidence=facts)


def breach(plan: RolloutPlan, state: RolloutState, evidence: Evidence) -> Decision | None:
    """
    What has to be done with a release that goes on only since what should follow it can't be loaded: nothing but its alarms count.

    Args:
        plan: what the release is held to.
        state: where it was.
        evidence: what was seen there, and since.

    Returns: the decision; None where no bar is surely broken.
    """
    bars = bars_of(plan, state, evidence, bounds=False)
    return _breach(state, bars, evidence_of(state, bars, evidence))


def _breach(state: RolloutState, bars: Sequence[BarState], facts: Mapping[str, Any]) -> Decision | None:
    alarms = [one for one in bars if one.alarm]
    if not alarms:
        return None
    fatal = [one for one in alarms if one.slice == ALL or (one.critical and state.stage == "canary")]
    left = {one.slice for one in bars if one.kind == "slice"} - {one.slice for one in alarms}
    if fatal or not left:
        return Decision(move="roll-back", why=_words((fatal or alarms)[0]), breach=True, evidence=facts)
    slices = {one.slice: _words(one) for one in alarms}
    return Decision(move="suspend-slice", why=_words(alarms[0]), slices=slices, breach=True, evidence=facts)


def next_stage(plan: RolloutPlan, state: RolloutState) -> PlannedStage | None:
    """
    What comes after the present stage.

    Args:
        plan: with the stages.
        state: where the release is.

    Returns: the first stage of the plan with a larger share; the first of all for teacher-only; None at the end.
    """
    if state.stage == "teacher-only":
        return plan.stages[0]
    return next((s for s in plan.stages if s.share > state.share), None)


def evidence_of(state: RolloutState, bars: Sequence[BarState], evidence: Evidence) -> dict[str, Any]:
    """
    What a decision rests on, to be recorded with it.

    Args:
        state: where the release is.
        bars: see `bars_of`.
        evidence: what was seen.

    Returns: counts and bars as JSON can say them.
    """
    rows = [{"bar": b.name, "n": b.n, "wrong": b.wrong, "at_most": b.bar, "upper": _spelled(round(b.upper, 6)), "log_e": _spelled(round(b.log_e, 4)),
             "alarm_at": round(b.alarm_at, 4)} for b in bars]  # fmt: skip
    newest = None if evidence.newest is None else _spelled(evidence.newest)
    return {"epoch": state.epoch, "stage": state.stage, "share": state.share, "newest": newest, "bars": rows}


def _spelled(number: float) -> float | str:
    """What JSON has no number for is a word: a move that can't be recorded would not be made."""
    return number if math.isfinite(number) else str(number)


def _present(plan: RolloutPlan, state: RolloutState) -> PlannedStage:
    """The stage as planned; where the file has changed since, one of its own that lasts as long as the longest."""
    same = (s for s in plan.stages if s.stage == state.stage and s.share == state.share)
    longest = max(s.least_s for s in plan.stages)
    return next(same, PlannedStage(stage=state.stage, share=state.share, least_s=longest))


def _held(plan: RolloutPlan, state: RolloutState, evidence: Evidence, bars: Sequence[BarState], now: float) -> Decision | None:
    """What is missing, and what to do about it; None where nothing is."""
    last = state.since if evidence.newest is None else evidence.newest
    age = now - last
    late = now - state.since - _present(plan, state).least_s > plan.hold_s
    if not age >= -STALE_S:  # NaN too
        why = "the time of the last comparison can't be: some clock is days off"
        return Decision(move="roll-back" if late and state.stage != "full" else "hold", why=why)  # one bad clock takes no proven release back
    if age > STALE_S:
        why = f"no answer was compared for {age / 86_400:.1f} days"
        return Decision(move="roll-back" if age > plan.hold_s else "hold", why=why)
    short = [one for one in bars if one.missing]
    if state.stage == "full":  # nothing comes after it: what is rare goes on being watched
        short = [one for one in short if one.broken]
    if not short:
        return None
    why = "; ".join(f"{one.name}: {one.missing}" for one in short)
    if not late:
        return Decision(move="hold", why=f"evidence is missing: {why}")
    rare = {one.slice: f"held too long: {one.missing}" for one in short if one.kind == "slice" and not one.critical}
    if len(rare) < len(short) or len(rare) == sum(one.kind == "slice" for one in bars):
        return Decision(move="roll-back", why=f"held too long: {why}")
    return Decision(move="suspend-slice", why=f"held too long: {why}", slices=rare)


def _words(one: BarState) -> str:
    if one.kind == "arms":
        return f"{one.name}: the student's arm fails more often than the teacher's ({one.wrong} failures of {one.n})"
    return f"{one.name}: {one.wrong} wrong of {one.n}, more than {100 * one.bar:.3g}% for certain"


def _day(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).date().isoformat()


def _bar(kind: Kind, held: SliceBar, evidence: Evidence, alarm_at: float, *, bounds: bool) -> BarState:
    slots = tuple(evidence.slots.get(held.slice, ()))
    total = sum(slots, StageCounts())
    rows = tuple(_row(kind, one) for one in slots)
    wrong, n = sum(row[0] for row in rows), sum(row[1] for row in rows)
    share = held.bar if kind == "arms" else None  # what the two arms are told apart by; they have no bar but zero
    bar = held.bar if share is None else 0.0
    broken = "" if total.sound else IMPOSSIBLE
    log_e = 0.0
    try:
        log_e = _log_e(rows, bar, share)
    except MeasureError:
        broken = IMPOSSIBLE
    if broken:
        wrong = n = 0
    upper = confidence_sequence(wrong, n, PASS_DELTA).high if bounds and share is None and not broken else 1.0
    return BarState(
        kind=kind, slice=held.slice, n=n if share is None or broken else total.by_student, wrong=wrong, bar=bar,
        least=min_rows(bar, PASS_DELTA) if share is None else LEAST_SERVED, log_e=log_e, alarm_at=alarm_at,
        critical=held.critical, upper=upper, broken=broken, per_answer=total.requests / n if n else 1.0,
    )  # fmt: skip


def _row(kind: Kind, one: StageCounts) -> tuple[int, ...]:
    """(wrong, n) of a slot; of arms (student's failures, requests of both, teacher's failures)."""
    if kind == "arms":
        return (one.student_failed, one.by_student + one.by_teacher, one.teacher_failed)
    pairs = {"slice": (one.disagreed, one.compared), "overall": (one.drawn_wrong, one.drawn), "faults": (one.faults, one.asked)}
    return pairs[kind]


def _log_e(rows: tuple[tuple[int, ...], ...], bar: float, share: float | None) -> float:
    """Evidence after the open slot; the full ones before it never change, so that they are folded once."""
    if not rows:
        return 0.0  # nothing was bet
    return fold_restart(_folded(rows[:-1], bar, share), _gain(rows[-1], bar, share)).log_e


@lru_cache(maxsize=256)
def _folded(rows: tuple[tuple[int, ...], ...], bar: float, share: float | None) -> Fold | None:
    if not rows:
        return None
    for end in range(_CHUNK, len(rows), _CHUNK):  # from nothing, so that the recursion stays flat
        _folded(rows[:end], bar, share)
    return fold_restart(_folded(rows[:-1], bar, share), _gain(rows[-1], bar, share))


def _gain(row: tuple[int, ...], bar: float, share: float | None) -> Any:
    if share is None:
        return increment(row[0], row[1], bar)
    return canary_increment(row[0], row[2], row[1], share=share)


def _first(good: Callable[[int], bool], start: int) -> int | None:
    """The first n from start on that is good, to within a per cent; None where it is too far."""
    high = max(1, start)
    while not good(high):
        high *= 2
        if high > FAR:
            return None
    low = max(start, high // 2)
    while high - low > max(1, high // 100):
        middle = (low + high) // 2
        low, high = (low, middle) if good(middle) else (middle, high)
    return high
