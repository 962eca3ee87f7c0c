"""The owner signs a release off for another while: what was looked at is counted from the log, never typed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from overproof.data import TrafficRecord
from overproof.errors import DataError
from overproof.evidence import Release
from overproof.outputs import Output
from overproof.project import Project
from overproof.runs import REVIEW, clock_of
from overproof.store.project_store import Store

SignOff = Literal["keep", "redistil", "retire"]
LIVE, DISAGREED, EACH_CRITICAL = 50, 20, 10  # judged since the last review, or all that there are


@dataclass(frozen=True, kw_only=True, slots=True)
class Looked:
    """How much of one sort of live rows people have judged since the last review."""

    what: str
    judged: int
    there: int
    """Different messages of that sort in the log."""
    wanted: int
    """The least that a review takes, never more than there are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Signed:
    """A review on record."""

    release_id: str
    reviewer: str
    decision: SignOff
    next_due: str
    """ISO date; of a retired release the day itself."""
    looked: tuple[Looked, ...]
    alarms: tuple[str, ...] = field(default=())
    """Ids of alarms that were open."""


def sign_off(store: Store, project: Project, *, decision: SignOff, by: str, now: datetime) -> Signed:
    """
    Write a review of the serving release down; it lifts what was held for want of it.

    Args:
        store: the project's store.
        project: the loaded project.
        decision: keep it, keep it until the next is distilled, or retire it, which gives all requests to the teacher.
        by: the owner or the deputy.
        now: in UTC.

    Returns: the review.
    Raises: DataError where nothing serves, the reviewer is neither owner nor deputy, or too few rows were judged.
    """
    task, clock = project.task.name, clock_of(store, now)
    release = store.releases.get(store.rollouts.current(task).release_id or "")
    if release is None:
        raise DataError("no release serves, so there is nothing to review", next_action="look at `overproof status`")
    owner = project.owner
    if owner is None or by.casefold() not in (owner.name.casefold(), owner.deputy.casefold()):
        named = "nobody" if owner is None else " or ".join(filter(None, (owner.name, owner.deputy)))
        raise DataError(f"{by or 'nobody'!r} can't sign: the owner is {named}", next_action="say --reviewer NAME, or mend [owner]")
    looked = looked_at(store, project, release)
    short = [one for one in looked if one.judged < one.wanted]
    if short and decision != "retire":
        lines = "; ".join(f"{one.what}: {one.judged} of {one.wanted}" for one in short)
        raise DataError(
            f"too little was looked at since the last review of {release.id}: {lines}",
            next_action="judge live rows with `overproof review --queue audit`, then sign",
        )
    days = owner.review_days if decision != "retire" else 0
    alarms = tuple(one.id for one in store.watching.alarms(task))
    signed = Signed(
        release_id=release.id, reviewer=by, decision=decision, next_due=(clock.date() + timedelta(days=days)).isoformat(), looked=looked,
        alarms=alarms,
    )  # fmt: skip
    store.decisions.append(REVIEW, actor=by, subject=release.id, body=asdict(signed))
    at = clock.timestamp()
    for hold in store.watching.holds(task):
        if hold.trigger.startswith("review_overdue-"):
            store.watching.release_hold(task, by=by, why=f"reviewed: {decision}", at=at, cause=hold.trigger)
    for one in store.watching.triggers(task):
        if one.occasion == "review_overdue":
            store.watching.end_trigger(one.id, state="dismissed", outcome=f"{by} reviewed the release: {decision}", at=at)
    if decision == "retire":
        store.rollouts.give_back(task, by=by, why="retired by its owner", evidence={"review": release.id}, at=at)
    return signed


def looked_at(store: Store, project: Project, release: Release) -> tuple[Looked, ...]:
    """
    What people have judged of a release's live rows since its last review.

    Args:
        store: the project's store.
        project: for its critical slices.
        release: the one that serves.

    Returns: live rows, rows on which student and teacher disagree, and each critical slice.
    """
    since = max((d.at for d in store.decisions.read() if d.kind == REVIEW and d.subject == release.id), default="")
    judged = {r.digest for r in store.reviews.live().rows if r.at > since}
    apart = {a.request_id for a in store.watching.audits(release.id) if a.wrong and a.source == "teacher"}
    marked = [one for one in project.slices if one.critical]
    names = [part.slice for part in release.certificate.slices]
    critical = [n for n in names if any(n == one.name or (one.by and n.startswith(f"{one.by}=")) for one in marked)]
    found: dict[str, dict[str, set[str]]] = {}
    for one in store.traffic.read():
        if one.served is None or one.served.release != release.id or one.served.guess is None:
            continue
        for what in _sorts(one, project.task.output, apart, critical):
            parts = found.setdefault(what, {"there": set(), "judged": set()})
            parts["there"].add(one.request.digest)
            if one.request.digest in judged:
                parts["judged"].add(one.request.digest)
    least: Mapping[str, int] = {"live rows": LIVE, "disagreements": DISAGREED, **{f"slice {name}": EACH_CRITICAL for name in critical}}
    empty: dict[str, set[str]] = {"there": set(), "judged": set()}
    return tuple(
        Looked(what=what, judged=len(parts["judged"]), there=len(parts["there"]), wanted=min(n, len(parts["there"])))
        for what, n in least.items()
        for parts in (found.get(what, empty),)
    )


def _sorts(row: TrafficRecord, output: Output, apart: set[str], critical: Sequence[str]) -> list[str]:
    assert row.served is not None
    found = ["live rows"]
    if row.request.id in apart or _disagree(row, output):
        found.append("disagreements")
    return [*found, f"slice {row.served.slice}"] if row.served.slice in critical else found


def _disagree(row: TrafficRecord, output: Output) -> bool:
    """Whether the teacher answered itself, and otherwise than the student would have."""
    assert row.served is not None
    said = row.completion
    if row.served.route != "teacher" or said is None or said.finish != "stop":
        return False
    value = said.value
    if value is None:
        try:
            value = output.parse(said.text)
        except DataError:
            return False
    return value != row.served.guess
