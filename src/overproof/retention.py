"""What [privacy.retention] says is over goes: in the log, in the ledger, among examples and artifacts; one entry of the decisions log a pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime

from overproof.project import Project
from overproof.runs import clock_of, runs_of
from overproof.store.aging import ARTIFACT, cutoffs
from overproof.store.codec import encode
from overproof.store.objects import made_by
from overproof.store.project_store import Store
from overproof.store.shared import Shared


@dataclass(frozen=True, kw_only=True, slots=True)
class Retained:
    """What a pass came to."""

    counts: Mapping[str, int]
    """Kind to rows that were blanked or taken away."""
    kept_for_a_release: int
    """Artifacts that are over, and stay since a serving release stands on them."""
    undated: int
    """Rows of the log without a time; nothing says when theirs is over."""
    decision: int
    """Number of the pass in the decisions log; 0 where nothing was over."""


def retain(store: Store, project: Project, *, now: datetime) -> Retained:
    """
    Make one pass; the next one finds nothing to do; after a kill it does the rest, and its entry has the counts of both.

    Args:
        store: the project's store.
        project: says in [privacy.retention] how long what is kept.
        now: in UTC; a clock that was set back makes nothing younger.

    Returns: the counts.
    Raises: StoreError where a run is at work, or a database stays in use.
    """
    days = {name: n for name, n in asdict(project.privacy.retention).items() if n is not None}
    if not days:
        return Retained(counts={}, kept_for_a_release=0, undated=0, decision=0)
    with store.role("run"):
        now = clock_of(store, now)
        ends, aging, shared = cutoffs(days, now), store.aging, Shared(store.objects)
        aging.begin()
        if cut_off := {kind.removeprefix(ARTIFACT) for kind in aging.counts() if kind.startswith(ARTIFACT)}:
            shared.bring_records()
            shared.remove(cut_off)
            store.objects.drop(cut_off)
        aging.mark(now)
        aging.age_log(ends)
        aging.age_words(ends)
        over, kept = set[str](), 0
        if ends.artifacts is not None:
            shared.bring_records()
            over, kept = _over(store, project, ends.artifacts)
        if over or aging.counts():
            aging.note_artifacts(over, rows=bool(aging.counts()))
            shared.remove(over)
            store.objects.learn()
        counts, undated = _counted(store, aging.counts()), aging.undated()
        if not counts:
            return Retained(counts={}, kept_for_a_release=kept, undated=undated, decision=0)
        aging.forget()
        entry = aging.end(task=project.task.name, body={"days": days, "counts": counts, "kept_for_a_release": kept, "undated": undated})
        return Retained(counts=counts, kept_for_a_release=kept, undated=undated, decision=entry.seq)


def _counted(store: Store, noted: Mapping[str, int]) -> dict[str, int]:
    """Kind to what went: of the artifacts that were noted, those that are really gone."""
    counts: Counter[str] = Counter()
    for kind, n in noted.items():
        if not kind.startswith(ARTIFACT):
            counts[kind] += n
        elif not store.objects.is_here(kind.removeprefix(ARTIFACT)):
            counts["artifacts"] += n
    return dict(counts)


def _over(store: Store, project: Project, end: datetime) -> tuple[set[str], int]:
    """Results of steps from before a moment that nothing later stands on, and how many of that age a release needs."""
    needed = _needed(store, project)
    old, fresh = set[str](), set(needed)
    for path, row in store.objects.records().items():
        parts = made_by(row)
        over = path.stat().st_mtime < end.timestamp() and not parts & needed
        (old if over else fresh).update(parts)
    old.update(path.stem for path in (store.home / "objects").glob("*/*.value") if path.stat().st_mtime < end.timestamp())
    return old - fresh, len(old & needed)


def _needed(store: Store, project: Project) -> set[str]:
    """What the runs of releases that serve, or wait to, stand on, with the folders inside."""
    serving = store.rollouts.current(project.task.name).release_id
    live = [store.releases.current(), store.releases.latest(), store.releases.get(serving) if serving else None]
    verdicts = {encode(release).digest for release in live if release is not None}
    needed = {release.bundle.digest for release in live if release is not None}
    for run in runs_of(store):
        if run.digests.get("verdict") in verdicts:
            needed.update(run.digests.values())
    for row in store.objects.records().values():
        if row["output"] in needed:
            needed.update(row["folders"])
    return needed
