"""What [privacy.retention] says is over goes: in the log, in the ledger, among examples and artifacts; one entry of the decisions log a pass."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime

from overproof.project import Project
from overproof.runs import clock_of, runs_of
from overproof.store.aging import KIND, cutoffs
from overproof.store.codec import encode
from overproof.store.project_store import Store


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
    Make one pass; the next one finds nothing to do, and after a kill it does the rest.

    Args:
        store: the project's store.
        project: says in [privacy.retention] how long what is kept.
        now: in UTC; a clock that was set back makes nothing younger.

    Returns: the counts.
    Raises: StoreError where a run is at work, or a database stays in use.
    """
    days = asdict(project.privacy.retention)
    if not any(days.values()):
        return Retained(counts={}, kept_for_a_release=0, undated=0, decision=0)
    with store.role("run"):
        now = clock_of(store, now)
        ends, aging = cutoffs(days, now), store.aging
        aging.mark(now)
        counts = Counter(aging.age_log(ends)) + aging.age_words(ends)
        kept = 0
        if ends.artifacts is not None:
            swept, kept = _sweep(store, project, ends.artifacts)
            counts["artifacts"] += swept
        counts = +counts
        undated = aging.undated()
        if not counts:
            return Retained(counts={}, kept_for_a_release=kept, undated=undated, decision=0)
        aging.forget()
        days = {name: n for name, n in days.items() if n is not None}
        body = {"days": days, "counts": dict(counts), "kept_for_a_release": kept, "undated": undated}
        entry = store.decisions.append(KIND, actor="retention", subject=project.task.name, body=body)
        return Retained(counts=dict(counts), kept_for_a_release=kept, undated=undated, decision=entry.seq)


def _sweep(store: Store, project: Project, end: datetime) -> tuple[int, int]:
    """Remove steps' results from before a moment, manifests first; returns how many went, and how many a release needs."""
    needed = _needed(store, project)
    objects, old, fresh = store.home / "objects", set[str](), set(needed)
    for path in (store.home / "steps").glob("*/*.json"):
        row = json.loads(path.read_bytes())
        parts = {row["output"], *row["folders"]}
        if path.stat().st_mtime >= end.timestamp() or parts & needed:
            fresh |= parts
        else:
            path.unlink()
            old |= parts
    for path in objects.glob("*/*.value"):
        if path.stat().st_mtime < end.timestamp():
            old.add(path.stem)
    for digest in sorted(old - fresh):
        place = objects / digest[:2]
        (place / f"{digest}.tree").unlink(missing_ok=True)
        (place / f"{digest}.value").unlink(missing_ok=True)
        shutil.rmtree(place / digest, ignore_errors=True)
    return len(old - fresh), len(old & needed)


def _needed(store: Store, project: Project) -> set[str]:
    """What the runs of releases that serve, or wait to, stand on, with the folders inside."""
    serving = store.rollouts.current(project.task.name).release_id
    live = [store.releases.current(), store.releases.latest(), store.releases.get(serving) if serving else None]
    verdicts = {encode(release).digest for release in live if release is not None}
    needed = {release.bundle.digest for release in live if release is not None}
    for run in runs_of(store):
        if run.digests.get("verdict") in verdicts:
            needed.update(run.digests.values())
    for path in (store.home / "steps").glob("*/*.json"):
        row = json.loads(path.read_bytes())
        if row["output"] in needed:
            needed.update(row["folders"])
    return needed
