"""What the overview reads of each task: from the store alone, in milliseconds, whatever the size of the traffic log."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

from overproof.data import ALL, Alarm, Reading, RolloutState, WatchReport
from overproof.errors import OverproofError
from overproof.evidence import Certificate, Figure, Release
from overproof.measure.intervals import figure
from overproof.measure.savings import LEAST_PRICED, Avoided, Stratum, avoided
from overproof.runs import RunRecord, clock_of, review_state
from overproof.serve.moves import newest_candidate
from overproof.steps.reviewing import settle
from overproof.store.served import ServedSum
from overproof.watch.standing import Standing, standing_of
from overproof.web.place import Place

Tone = Literal["pass", "open", "fail", "none"]
JUDGED: Final = ("error", "disagreement")
"""Signals of the watch that speak of wrong answers: people's word before the teacher's."""
RANK: Final = {"alarm": 0, "starved": 1, "not enough": 2, "quiet": 2}
URGENCY: Final[dict[Tone, int]] = {"fail": 0, "open": 1, "none": 2, "pass": 3}


@dataclass(frozen=True, kw_only=True, slots=True)
class Money:
    """What the student has saved so far."""

    avoided: Avoided
    """What its answers would have cost at the teacher's prices."""
    spent_usd: float
    """What this project paid the teacher for labels and audits, all runs together."""
    why_not: str
    """Why nothing can be said; empty where something can."""
    since: str
    """First month with an answer of the student, for example "2026-03"; empty before it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Worst:
    """The slice that stands worst against its bar."""

    slice: str
    source: str
    """"live audits" or "evaluation"."""
    what: str
    """What is wrong with its wrong answers: other than the teacher's, or other than people say."""
    value: float | None
    """Share of wrong answers among those that the student kept, in [0, 1]."""
    low: float | None
    high: float | None
    bar: float
    """The most that is admitted."""
    n: int
    method: str
    tone: Tone
    word: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Waits:
    """Something that only a person can do."""

    what: str
    where: str
    """Last part of the page's path."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Glance:
    """One task at a glance."""

    task: str
    tone: Tone
    """How urgently somebody should look."""
    word: str
    state: RolloutState
    stage: str
    candidate: str
    """Name of the student behind the release; empty where nothing serves."""
    answered: Figure | None
    """Share of the release's requests that the student answered itself; None before the first."""
    money: Money
    worst: Worst | None
    alarms: int
    loudest: str
    """The worst open alarm in words."""
    review_word: str
    review_due: str
    """ISO date; empty where nothing serves."""
    owner: str
    """Whose review it is; empty where nobody is named."""
    run: RunRecord | None
    waits: tuple[Waits, ...]
    problems: tuple[str, ...]


def read_overview(places: Sequence[Place], *, now: float) -> tuple[Glance, ...]:
    """
    Every task, the ones that need somebody first.

    Args:
        places: the tasks.
        now: Unix time.

    Returns: one entry each.
    """
    found = [read_task(one, now=now) for one in places]
    return tuple(sorted(found, key=lambda one: (URGENCY[one.tone], -one.alarms, -len(one.waits), one.task)))


def read_task(place: Place, *, now: float) -> Glance:
    """
    One task at a glance.

    Args:
        place: the task.
        now: Unix time.

    Returns: what serves, what it saves, where it is worst, what waits for people. What can't be read is a problem on the card.
    """
    store, moment = place.store, datetime.fromtimestamp(now, UTC)
    state, runs, problems = store.rollouts.current(place.name), place.runs(), []
    standing: Standing | None = None
    release: Release | None = None
    word, due = "", ""
    try:
        standing = standing_of(store, place.project, now=moment)
        release = store.releases.get(state.release_id) if state.release_id is not None else None
        if release is not None:
            review = review_state(release, store.decisions.read(), place.project.owner, clock_of(store, moment))
            word, due = review.word, review.due
    except OverproofError as problem:  # a damaged release must not hide the other tasks
        problems.append(problem.what)
    problems += standing.problems if standing is not None else []
    served, alarms = store.served.months(place.name), store.watching.alarms(place.name)
    run = runs[-1] if runs else None
    waits = _waits(place, state, standing, run, word=word, due=due)
    tone, said = _tone(standing, problems, waits, run)
    return Glance(
        task=place.name, tone=tone, word=said, state=state, stage=f"canary {100 * state.share:g}%" if state.stage == "canary" else state.stage,
        candidate=release.candidate if release is not None else "", answered=_answered(served, state), money=_money(served, store.ledger.spent_usd),
        worst=_worst(standing.last if standing is not None else None, release), alarms=len(alarms), loudest=_loudest(alarms), review_word=word,
        review_due=due, owner=place.project.owner.name if place.project.owner is not None else "", run=run, waits=waits, problems=tuple(problems),
    )  # fmt: skip


def _tone(standing: Standing | None, problems: Sequence[str], waits: Sequence[Waits], run: RunRecord | None) -> tuple[Tone, str]:
    if standing is None:
        return "fail", "can't be read"
    if standing.alarms or standing.state == "blind":
        return "fail", "nobody watches" if standing.state == "blind" else "alarm"
    if problems or waits:
        return "open", "waits for somebody"
    return ("none", "not begun") if run is None else ("pass", "nothing to do") if standing.release_id is not None else ("none", "nothing serves")


def _answered(served: Iterable[ServedSum], state: RolloutState) -> Figure | None:
    if state.release_id is None:
        return None
    mine = [one for one in served if one.release_id == state.release_id]
    n = sum(one.rows for one in mine)
    return figure(sum(one.rows for one in mine if one.route != "teacher"), n, metric="kept") if n else None


def _money(served: Sequence[ServedSum], spent: float) -> Money:
    """By slice and month, so that neither a new price nor a slice of longer messages bends the mean."""
    parts: defaultdict[tuple[str, str], list[ServedSum]] = defaultdict(list)
    for one in served:
        parts[one.month, one.slice].append(one)
    strata = [
        Stratum(
            kept=sum(one.requests for one in rows if one.route == "student"),
            priced=sum(one.priced for one in rows if one.route == "teacher"), weight=sum(one.weight for one in rows if one.route == "teacher"),
            usd=sum(one.usd for one in rows if one.route == "teacher"), usd2=sum(one.usd2 for one in rows if one.route == "teacher"),
        )
        for rows in parts.values()
    ]  # fmt: skip
    found = avoided(strata)
    months = [one.month for one in served if one.route == "student"]
    why = ""
    if not months:
        why = "the student has answered nothing yet"
    elif found.usd is None:
        why = f"not enough data: {found.priced} answers of the teacher have a price, {LEAST_PRICED} are needed; set its prices in [teacher]"
    elif not any(one.usd for one in strata):
        why = "the teacher's answers cost nothing by the prices in [teacher]"
    return Money(avoided=found, spent_usd=spent, why_not=why, since=min(months, default=""))


def _worst(last: WatchReport | None, release: Release | None) -> Worst | None:
    if release is None:
        return None
    live = [one for one in last.readings if one.release_id == release.id and one.signal in JUDGED and one.reference] if last is not None else []
    live = [one for one in live if one.slice != ALL] or live
    if live:
        return _lived(min(live, key=lambda one: (RANK[one.state], -(one.value or 0.0) / (one.reference or 1.0))))
    return _certified(release.certificate)


def _lived(one: Reading) -> Worst:
    said: dict[str, tuple[Tone, str]] = {
        "alarm": ("fail", "alarm"), "starved": ("open", "starved: audits have no word"), "not enough": ("open", "not enough data"),
        "quiet": ("pass", "met") if one.high is not None and one.reference is not None and one.high <= one.reference else ("open", "no alarm, not proven"),
    }  # fmt: skip
    tone, word = said[one.state]
    what = "wrong, by people" if one.signal == "error" else "other than the teacher's"
    return Worst(
        slice="all traffic" if one.slice == ALL else one.slice, source="live audits", what=what, value=one.value, low=one.low, high=one.high, bar=one.reference or 0.0,
        n=one.n, method=one.method, tone=tone, word=word,
    )  # fmt: skip


def _certified(certificate: Certificate) -> Worst | None:
    parts = [one for one in certificate.slices if one.threshold is not None and one.kept]
    if not parts:
        return None
    one = max(parts, key=lambda part: part.upper / certificate.kept_bar(part))
    bar = certificate.kept_bar(one)
    what = "wrong" if certificate.label_kind == "gold" else "other than the teacher's"
    return Worst(
        slice=one.slice, source="evaluation", what=what, value=one.wrong / one.kept, low=0.0, high=one.upper, bar=bar, n=one.kept,
        method=f"upper bound of the certificate on sealed rows, delta {one.delta:.2g}", tone="pass" if one.upper <= bar else "open", word="met" if one.upper <= bar else "not proven",
    )  # fmt: skip


def _loudest(alarms: Sequence[Alarm]) -> str:
    """What is sure before what is only likely, wrong answers before drift."""
    return min(alarms, key=lambda one: (one.kind != "life", one.signal not in JUDGED, one.at)).words if alarms else ""


def _waits(place: Place, state: RolloutState, standing: Standing | None, run: RunRecord | None, *, word: str, due: str) -> tuple[Waits, ...]:
    store, found = place.store, []

    def add(n: int, one: str, many: str, where: str) -> None:
        if n:
            found.append(Waits(what=f"{n:,} {one if n == 1 else many}", where=where))

    if run is not None and run.outcome == "refusal":
        found.append(Waits(what=f"run {run.id} was refused", where="gate"))
    if (candidate := newest_candidate(store, state)) is not None:
        found.append(Waits(what=f"release {candidate} waits for promotion", where="rollout"))
    if word in ("due", "overdue", "lapsed"):
        found.append(Waits(what=f"the owner's review is {word} ({due})", where="gate"))
    if standing is not None:
        people = sum(one.source == "person" for one in store.watching.audits(state.release_id, state="due")) if standing.audits_due and state.release_id else 0
        add(people, "audited answer waits for a person", "audited answers wait for a person", "review")
        add(standing.triggers, "open trigger", "open triggers", "watch")
        add(len(standing.holds), "hold on the rollout", "holds on the rollout", "rollout")
    add(len(settle(store.reviews.live()).conflicts), "row on which reviewers differ", "rows on which reviewers differ", "review")
    return tuple(found)
